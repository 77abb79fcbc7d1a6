/* SPDX-License-Identifier: MIT */
/*
 * The 8254 programmable interval timer (Intel 8254 data sheet): three 16-bit counters at
 * 1.193182 MHz. Counter 0 drives interrupt 0, counter 2 the speaker, by way of port 0x61.
 *
 * Nothing counts: what a counter holds is worked out from the virtual time since it was loaded, and
 * a timer waits for the next edge of counter 0's output.
 *
 * Machine state: machine lock held.
 */
#ifndef FERRY_HW_PIT_H
#define FERRY_HW_PIT_H

#include "accel/x86_state.h"
#include "device/device.h"

#define PIT_FREQUENCY 1193182 /* Hz */
#define PIT_MODE_NONE 0xff    /* no control word since RESET: the counter stands still */

extern const struct device_type pit_type; /* "isa-pit"; gpio_out[0]: output of counter 0 */

/* irq0: what counter 0's output drives. */
struct device *pit_new(const struct irq *irq0, struct error **errp);

bool pit_gate(struct device *pit, unsigned channel);
void pit_set_gate(struct device *pit, unsigned channel, bool gate);
bool pit_output(struct device *pit, unsigned channel);

void pit_get_state(struct device *pit, struct x86_pit *state);
void pit_set_state(struct device *pit, const struct x86_pit *state);

#endif
