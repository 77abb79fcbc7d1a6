/* SPDX-License-Identifier: MIT */
/* The kernel's PIC and IOAPIC <-> the neutral state. Machine lock held, vCPUs paused. */
#include <string.h>

#include "accel/kvm/kvm.h"

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
