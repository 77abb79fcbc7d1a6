/* SPDX-License-Identifier: MIT */
/* The kernel's PIC, IOAPIC and PIT <-> the neutral state. Machine lock held, vCPUs paused. */
#include <string.h>
#include <time.h>

#include "accel/kvm/kvm.h"
#include "aio/clock.h"

static bool chip(struct accel *accel, unsigned long request, struct kvm_irqchip *state)
{
    return kvm_ioctl(kvm_of(accel)->vm_fd, request, state) == 0;
}

/* ---- PIC ------------------------------------------------------------------------------------ */

bool kvm_get_pic(struct accel *accel, struct x86_pic pic[2])
{
    for (unsigned i = 0; i < 2; i++) {
        struct kvm_irqchip state = {.chip_id = i};
        const struct kvm_pic_state *p = &state.chip.pic;

        if (!chip(accel, KVM_GET_IRQCHIP, &state)) {
            return false;
        }
        pic[i] = (struct x86_pic){
            .last_irr = p->last_irr,
            .irr = p->irr,
            .imr = p->imr,
            .isr = p->isr,
            .priority_add = p->priority_add,
            .irq_base = p->irq_base,
            .read_reg_select = p->read_reg_select,
            .poll = p->poll,
            .special_mask = p->special_mask,
            .init_state = p->init_state,
            .auto_eoi = p->auto_eoi,
            .rotate_on_auto_eoi = p->rotate_on_auto_eoi,
            .special_fully_nested = p->special_fully_nested_mode,
            .init4 = p->init4,
            .elcr = p->elcr,
            .elcr_mask = p->elcr_mask,
        };
    }
    return true;
}

bool kvm_set_pic(struct accel *accel, const struct x86_pic pic[2])
{
    for (unsigned i = 0; i < 2; i++) {
        const struct x86_pic *p = &pic[i];
        struct kvm_irqchip state = {
            .chip_id = i,
            .chip.pic =
                {
                    .last_irr = p->last_irr,
                    .irr = p->irr,
                    .imr = p->imr,
                    .isr = p->isr,
                    .priority_add = p->priority_add,
                    .irq_base = p->irq_base,
                    .read_reg_select = p->read_reg_select,
                    .poll = p->poll,
                    .special_mask = p->special_mask,
                    .init_state = p->init_state,
                    .auto_eoi = p->auto_eoi,
                    .rotate_on_auto_eoi = p->rotate_on_auto_eoi,
                    .special_fully_nested_mode = p->special_fully_nested,
                    .init4 = p->init4,
                    .elcr = p->elcr,
                    .elcr_mask = p->elcr_mask,
                },
        };

        if (!chip(accel, KVM_SET_IRQCHIP, &state)) {
            return false;
        }
    }
    return true;
}

/* ---- IOAPIC --------------------------------------------------------------------------------- */

bool kvm_get_ioapic(struct accel *accel, struct x86_ioapic *ioapic)
{
    struct kvm_irqchip state = {.chip_id = KVM_IRQCHIP_IOAPIC};
    const struct kvm_ioapic_state *p = &state.chip.ioapic;

    if (!chip(accel, KVM_GET_IRQCHIP, &state)) {
        return false;
    }
    *ioapic = (struct x86_ioapic){
        .base_address = p->base_address,
        .ioregsel = p->ioregsel,
        .id = p->id,
        .irr = p->irr,
    };
    for (unsigned i = 0; i < X86_IOAPIC_PINS; i++) {
        ioapic->redirection[i] = p->redirtbl[i].bits;
    }
    return true;
}

bool kvm_set_ioapic(struct accel *accel, const struct x86_ioapic *ioapic)
{
    struct kvm_irqchip state = {
        .chip_id = KVM_IRQCHIP_IOAPIC,
        .chip.ioapic = {.base_address = ioapic->base_address,
                        .ioregsel = ioapic->ioregsel,
                        .id = ioapic->id,
                        .irr = ioapic->irr},
    };

    for (unsigned i = 0; i < X86_IOAPIC_PINS; i++) {
        state.chip.ioapic.redirtbl[i].bits = ioapic->redirection[i];
    }
    return chip(accel, KVM_SET_IRQCHIP, &state);
}

/* ---- PIT ------------------------------------------------------------------------------------ */

/* The kernel counts from host time, the neutral state from virtual time. */
static int64_t host_minus_virtual(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * NS_PER_SEC + ts.tv_nsec - clock_get_ns(AIO_CLOCK_VIRTUAL);
}

bool kvm_get_pit(struct accel *accel, struct x86_pit *pit)
{
    int64_t offset = host_minus_virtual();
    struct kvm_pit_state2 state;

    if (kvm_ioctl(kvm_of(accel)->vm_fd, KVM_GET_PIT2, &state) < 0) {
        return false;
    }
    *pit = (struct x86_pit){
        .speaker_data_on = state.flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON,
        .hpet_legacy = state.flags & KVM_PIT_FLAGS_HPET_LEGACY,
    };
    for (unsigned i = 0; i < 3; i++) {
        const struct kvm_pit_channel_state *c = &state.channels[i];

        pit->channel[i] = (struct x86_pit_channel){
            .count = c->count,
            .latched_count = c->latched_count,
            .count_latched = c->count_latched,
            .status_latched = c->status_latched,
            .status = c->status,
            .read_state = c->read_state,
            .write_state = c->write_state,
            .write_latch = c->write_latch,
            .rw_mode = c->rw_mode,
            .mode = c->mode,
            .bcd = c->bcd,
            .gate = c->gate,
            .count_load_ns = c->count_load_time - offset,
        };
    }
    return true;
}

bool kvm_set_pit(struct accel *accel, const struct x86_pit *pit)
{
    int64_t offset = host_minus_virtual();
    struct kvm_pit_state2 state = {
        .flags = (pit->speaker_data_on ? KVM_PIT_FLAGS_SPEAKER_DATA_ON : 0) |
                 (pit->hpet_legacy ? KVM_PIT_FLAGS_HPET_LEGACY : 0),
    };

    for (unsigned i = 0; i < 3; i++) {
        const struct x86_pit_channel *c = &pit->channel[i];

        state.channels[i] = (struct kvm_pit_channel_state){
            .count = c->count,
            .latched_count = c->latched_count,
            .count_latched = c->count_latched,
            .status_latched = c->status_latched,
            .status = c->status,
            .read_state = c->read_state,
            .write_state = c->write_state,
            .write_latch = c->write_latch,
            .rw_mode = c->rw_mode,
            .mode = c->mode,
            .bcd = c->bcd,
            .gate = c->gate,
            .count_load_time = c->count_load_ns + offset,
        };
    }
    return kvm_ioctl(kvm_of(accel)->vm_fd, KVM_SET_PIT2, &state) == 0;
}
