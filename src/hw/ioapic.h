/* SPDX-License-Identifier: MIT */
/*
 * The I/O APIC: 24 pins, each with a redirection entry that says which interrupt message it sends
 * (Intel 82093AA data sheet; version 0x20 with the EOI register of ICH9, 13.5).
 *
 * An edge pin sends when its input rises. A level pin sends while its input is high and its Remote
 * IRR bit is clear; sending sets Remote IRR, and the EOI of that vector clears it and looks again.
 *
 * Messages go by accel_msi_send(). With irqchip=split the engine must know what the pins send, so
 * that it reports EOIs: the entry goes to accel_ops.route_ioapic_pin as well.
 *
 * Machine state: machine lock held.
 */
#ifndef FERRY_HW_IOAPIC_H
#define FERRY_HW_IOAPIC_H

#include "accel/x86_state.h"
#include "device/device.h"

#define IOAPIC_BASE        0xfec00000u
#define IOAPIC_WINDOW_SIZE 0x1000u

extern const struct device_type ioapic_type; /* "ioapic"; gpio_in: the 24 pins */

/* At IOAPIC_BASE in system memory. */
struct device *ioapic_new(struct error **errp);

/* A LAPIC was told the end of a level-triggered interrupt. opaque is the device: fits
 * accel->eoi_broadcast. */
void ioapic_eoi(void *ioapic, uint8_t vector);

void ioapic_get_state(struct device *ioapic, struct x86_ioapic *state);
void ioapic_set_state(struct device *ioapic, const struct x86_ioapic *state);

/* The MSI that an entry sends; false: it is masked. (82093AA 3.2.4, SDM 10.11) */
struct msi_message;
bool ioapic_entry_message(uint64_t entry, struct msi_message *msg);

#endif
