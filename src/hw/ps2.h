/* SPDX-License-Identifier: MIT */
/*
 * PS/2 keyboard and mouse: what the keyboard controller talks to by its two serial lines (IBM PS/2
 * Hardware Interface Technical Reference; Microsoft's IntelliMouse extension for the wheel).
 *
 * Each takes command bytes and answers into a queue that the controller empties. A queue that is
 * full drops what comes, as the real ones do.
 *
 * Machine state: machine lock held.
 */
#ifndef FERRY_HW_PS2_H
#define FERRY_HW_PS2_H

#include "device/vmstate.h"

#define PS2_QUEUE_SIZE 64

struct ps2_queue {
    uint8_t data[PS2_QUEUE_SIZE];
    uint8_t head, count;
};

struct ps2_keyboard {
    struct ps2_queue queue;
    uint8_t command; /* waits for its parameter, or 0 */
    uint8_t scancode_set, leds, rate, last;
    bool scanning;
};

struct ps2_mouse {
    struct ps2_queue queue;
    uint8_t command; /* waits for its parameter, or 0 */
    uint8_t resolution, rate, buttons, id, last;
    uint8_t knock[3]; /* the last sample rates: 200, 100, 80 make a wheel mouse of it */
    bool reporting, remote, wrap, scaling;
    int32_t dx, dy, dz; /* what is not reported yet */
};

extern const struct vmstate ps2_queue_vmstate, ps2_keyboard_vmstate, ps2_mouse_vmstate;

bool ps2_queue_get(struct ps2_queue *queue, uint8_t *byte);

void ps2_keyboard_reset(struct ps2_keyboard *kbd);
void ps2_keyboard_write(struct ps2_keyboard *kbd, uint8_t byte);
bool ps2_keyboard_put(struct ps2_keyboard *kbd, uint8_t scancode);

void ps2_mouse_reset(struct ps2_mouse *mouse);
void ps2_mouse_write(struct ps2_mouse *mouse, uint8_t byte);
bool ps2_mouse_move(struct ps2_mouse *mouse, int dx, int dy, int dz, unsigned buttons);

#endif
