/* SPDX-License-Identifier: MIT */
/*
 * The 8042 keyboard controller (ports 0x60, 0x64; interrupts 1 and 12) with a PS/2 keyboard and a
 * PS/2 mouse (IBM PS/2 Hardware Interface Technical Reference, keyboard/auxiliary controller).
 *
 * A write of 0xfe to port 0x64 resets the machine, 0xd1 and 0xdd/0xdf move the A20 gate.
 *
 * Machine state: machine lock held.
 */
#ifndef FERRY_HW_I8042_H
#define FERRY_HW_I8042_H

#include "device/device.h"

extern const struct device_type i8042_type; /* "i8042"; gpio_out[0]: A20 gate */

struct device *i8042_new(struct bus *isa, struct error **errp);

/* What firmware would leave: the keyboard on, with its scan codes translated to set 1, and the mouse
 * off. For a machine that starts a kernel without firmware, after its reset. */
void i8042_firmware_setup(struct device *i8042);

/* One byte from the keyboard, in scan code set 2 (which the controller translates to set 1 if the
 * guest asked for that). Dropped when the keyboard's buffer is full or scanning is off; false
 * then. */
bool kbd_put_scancode(struct device *i8042, uint8_t code);
/* A movement (+x right, +y up) and the buttons (bit 0 left, 1 right, 2 middle). */
bool mouse_put_event(struct device *i8042, int dx, int dy, int dz, unsigned buttons);

#endif
