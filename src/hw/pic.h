/* SPDX-License-Identifier: MIT */
/*
 * The two 8259A interrupt controllers of a PC (Intel 8259A data sheet; 82371AB, 4.2 for ELCR).
 *
 *      IR0..7 --> master (0x20, 0x21) --INT--> accel_set_extint() --> vCPU 0, by its LINT0
 *                    ^ IR2
 *      IR8..15 -> slave (0xa0, 0xa1)           edge/level control: 0x4d0, 0x4d1
 *
 * The vCPU answers with an INTA cycle: pic_ack() gives the vector.
 *
 * Machine state: machine lock held.
 */
#ifndef FERRY_HW_PIC_H
#define FERRY_HW_PIC_H

#include "accel/x86_state.h"
#include "device/device.h"

extern const struct device_type pic_type; /* "isa-i8259"; gpio_in: the 16 inputs */

struct device *pic_new(struct error **errp);

/* INTA: the vector of the highest request, which becomes in service; spurious IR7 if none is left.
 * opaque is the device: fits accel->extint_ack. */
int pic_ack(void *pic);

/* [0] is the master. */
void pic_get_state(struct device *pic, struct x86_pic state[2]);
void pic_set_state(struct device *pic, const struct x86_pic state[2]);

#endif
