/* SPDX-License-Identifier: MIT */
/*
 * Global system interrupts: the 24 wires between the machine's devices and its interrupt chips.
 *
 *   ISA device --- line[n] --\                    irqchip=on   +-> engine: its PIC and IOAPIC
 *   PIRQ router -- pirq[n] ---+-- OR --> wire n --<
 *   ACPI SCI ----- sci[n]  --/                    split, off   +-> PIC input n (0..15)
 *                                                              \-> IOAPIC pin n (IRQ 0: pin 2)
 *
 * As on a PC, ISA interrupt 0 comes out at IOAPIC pin 2 (the MADT says so by an override), and
 * interrupt 2 is the cascade of the two PICs. A wire that several drive is high while any of them
 * drives it high.
 *
 * gsi_new() makes the chips that the engine does not have (accel_current()->irqchip). Where the
 * engine has them, this device carries their state for reset and snapshots.
 *
 * Machine state: machine lock held.
 */
#ifndef FERRY_HW_GSI_H
#define FERRY_HW_GSI_H

#include "accel/x86_state.h"
#include "device/device.h"

#define GSI_COUNT     24
#define GSI_ISA_COUNT 16

struct gsi_state {
    struct device dev;
    /* constant after gsi_new() */
    struct device *pic, *ioapic; /* ferry's own, or NULL: in the engine */
    /* What devices raise; three sets, so that sources that share a wire do not lower each other. */
    struct irq line[GSI_COUNT]; /* ISA devices and the PIT */
    struct irq pirq[GSI_COUNT]; /* PCI interrupt router */
    struct irq sci[GSI_COUNT];  /* ACPI */
    /* machine state */
    uint8_t level[GSI_COUNT];     /* a bit for each of the three sets */
    struct x86_pic engine_pic[2]; /* only while state is saved or loaded */
    struct x86_ioapic engine_ioapic;
    struct x86_pit engine_pit;
    bool engine_has_pit;
};

extern const struct device_type gsi_type;

/* Makes PIC and IOAPIC as the engine needs them, and connects the engine's extint_ack and
 * eoi_broadcast. Without an engine (tests) the chips are ferry's. has_pit: the engine, if it has
 * the chips, has a PIT to be reset with them. Main thread. */
struct gsi_state *gsi_new(bool has_pit, struct error **errp);

/* Edge/level control (ports 0x4d0 and 0x4d1), which firmware sets for the interrupts that PIRQs are
 * routed to: bit n set: level. In the chips, whoever has them. Call with vCPUs paused. */
void gsi_set_elcr(struct gsi_state *gsi, uint16_t elcr);

/* After RESET, for engines' chips too. */
void x86_pic_reset(struct x86_pic *pic); /* both: master, slave */
void x86_ioapic_reset(struct x86_ioapic *ioapic);
void x86_pit_reset(struct x86_pit *pit, int64_t now_ns);

#endif
