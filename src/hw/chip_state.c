/* SPDX-License-Identifier: MIT */
#include "hw/chip_state.h"

#include "hw/gsi.h"
#include "hw/ioapic.h"
#include "hw/pit.h"

static const struct vmstate_field pic_fields[] = {
    VMSTATE_UINT(struct x86_pic, last_irr),
    VMSTATE_UINT(struct x86_pic, irr),
    VMSTATE_UINT(struct x86_pic, imr),
    VMSTATE_UINT(struct x86_pic, isr),
    VMSTATE_UINT(struct x86_pic, priority_add),
    VMSTATE_UINT(struct x86_pic, irq_base),
    VMSTATE_UINT(struct x86_pic, read_reg_select),
    VMSTATE_UINT(struct x86_pic, poll),
    VMSTATE_UINT(struct x86_pic, special_mask),
    VMSTATE_UINT(struct x86_pic, init_state),
    VMSTATE_UINT(struct x86_pic, auto_eoi),
    VMSTATE_UINT(struct x86_pic, rotate_on_auto_eoi),
    VMSTATE_UINT(struct x86_pic, special_fully_nested),
    VMSTATE_UINT(struct x86_pic, init4),
    VMSTATE_UINT(struct x86_pic, elcr),
    VMSTATE_UINT(struct x86_pic, elcr_mask),
    VMSTATE_END,
};

const struct vmstate x86_pic_vmstate = {
    .name = "x86-pic",
    .version = 1,
    .minimum_version = 1,
    .fields = pic_fields,
};

static const struct vmstate_field ioapic_fields[] = {
    VMSTATE_UINT(struct x86_ioapic, base_address), VMSTATE_UINT(struct x86_ioapic, ioregsel),
    VMSTATE_UINT(struct x86_ioapic, id),           VMSTATE_UINT(struct x86_ioapic, irr),
    VMSTATE_ARRAY(struct x86_ioapic, redirection), VMSTATE_END,
};

const struct vmstate x86_ioapic_vmstate = {
    .name = "x86-ioapic",
    .version = 1,
    .minimum_version = 1,
    .fields = ioapic_fields,
};

static const struct vmstate_field pit_channel_fields[] = {
    VMSTATE_UINT(struct x86_pit_channel, count),
    VMSTATE_UINT(struct x86_pit_channel, latched_count),
    VMSTATE_UINT(struct x86_pit_channel, count_latched),
    VMSTATE_UINT(struct x86_pit_channel, status_latched),
    VMSTATE_UINT(struct x86_pit_channel, status),
    VMSTATE_UINT(struct x86_pit_channel, read_state),
    VMSTATE_UINT(struct x86_pit_channel, write_state),
    VMSTATE_UINT(struct x86_pit_channel, write_latch),
    VMSTATE_UINT(struct x86_pit_channel, rw_mode),
    VMSTATE_UINT(struct x86_pit_channel, mode),
    VMSTATE_UINT(struct x86_pit_channel, bcd),
    VMSTATE_UINT(struct x86_pit_channel, gate),
    VMSTATE_UINT(struct x86_pit_channel, count_load_ns),
    VMSTATE_END,
};

const struct vmstate x86_pit_channel_vmstate = {
    .name = "x86-pit-channel",
    .version = 1,
    .minimum_version = 1,
    .fields = pit_channel_fields,
};

static const struct vmstate_field pit_fields[] = {
    VMSTATE_SUB(struct x86_pit, channel, x86_pit_channel_vmstate, 3),
    VMSTATE_BOOL(struct x86_pit, speaker_data_on),
    VMSTATE_BOOL(struct x86_pit, hpet_legacy),
    VMSTATE_END,
};

const struct vmstate x86_pit_vmstate = {
    .name = "x86-pit",
    .version = 1,
    .minimum_version = 1,
    .fields = pit_fields,
};

/* ---- after RESET ---------------------------------------------------------------------------- */

/* Interrupts that may be level-triggered: not 0, 1, 2, 8 and 13 (82371AB, 4.2.4). */
#define ELCR_MASK_MASTER 0xf8
#define ELCR_MASK_SLAVE  0xde

void x86_pic_reset(struct x86_pic *pic)
{
    for (unsigned i = 0; i < 2; i++) {
        uint8_t inputs = pic[i].last_irr;
        pic[i] = (struct x86_pic){
            .last_irr = inputs, /* wires, not state */
            .elcr_mask = i ? ELCR_MASK_SLAVE : ELCR_MASK_MASTER,
        };
    }
    pic[0].last_irr &= (uint8_t)~4u; /* the slave asks for nothing any more */
}

void x86_ioapic_reset(struct x86_ioapic *ioapic)
{
    uint32_t inputs = ioapic->irr;

    *ioapic = (struct x86_ioapic){.base_address = IOAPIC_BASE, .irr = inputs};
    for (unsigned i = 0; i < X86_IOAPIC_PINS; i++) {
        ioapic->redirection[i] = 1u << 16; /* masked */
    }
}

void x86_pit_reset(struct x86_pit *pit, int64_t now_ns)
{
    *pit = (struct x86_pit){0};
    for (unsigned i = 0; i < 3; i++) {
        pit->channel[i] = (struct x86_pit_channel){
            .mode = PIT_MODE_NONE,
            .gate = i != 2, /* port 0x61 */
            .count = 0x10000,
            .count_load_ns = now_ns,
        };
    }
}
