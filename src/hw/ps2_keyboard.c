/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "hw/ps2.h"

#define REPLY_ACK       0xfa
#define REPLY_RESEND    0xfe
#define REPLY_ECHO      0xee
#define REPLY_SELF_TEST 0xaa /* passed */

#define CMD_SET_LEDS       0xed
#define CMD_ECHO           0xee
#define CMD_SCANCODE_SET   0xf0
#define CMD_GET_ID         0xf2
#define CMD_TYPEMATIC      0xf3
#define CMD_ENABLE         0xf4
#define CMD_DISABLE        0xf5
#define CMD_DEFAULTS       0xf6
#define CMD_ALL_KEYS_FIRST 0xf7 /* f7 to fa: how all keys of set 3 behave */
#define CMD_ALL_KEYS_LAST  0xfa
#define CMD_ONE_KEY_FIRST  0xfb /* fb to fd: how one key of set 3 behaves */
#define CMD_ONE_KEY_LAST   0xfd
#define CMD_RESEND         0xfe
#define CMD_RESET          0xff

#define RATE_DEFAULT 0x2b /* 10.9 characters a second after 500 ms */

/* ---- queue, shared with the mouse ----------------------------------------------------------- */

bool ps2_queue_get(struct ps2_queue *queue, uint8_t *byte)
{
    if (!queue->count) {
        return false;
    }
    *byte = queue->data[queue->head];
    queue->head = (queue->head + 1) % PS2_QUEUE_SIZE;
    queue->count--;
    return true;
}

static bool put(struct ps2_queue *queue, uint8_t byte)
{
    if (queue->count == PS2_QUEUE_SIZE) {
        return false;
    }
    queue->data[(queue->head + queue->count++) % PS2_QUEUE_SIZE] = byte;
    return true;
}

/* ---- keyboard ------------------------------------------------------------------------------- */

static void reply(struct ps2_keyboard *kbd, uint8_t byte)
{
    if (put(&kbd->queue, byte) && byte != REPLY_RESEND) {
        kbd->last = byte;
    }
}

static void set_defaults(struct ps2_keyboard *kbd)
{
    kbd->rate = RATE_DEFAULT;
    kbd->scancode_set = 2;
}

void ps2_keyboard_reset(struct ps2_keyboard *kbd)
{
    memset(kbd, 0, sizeof(*kbd));
    set_defaults(kbd);
    kbd->scanning = true;
}

static void take_parameter(struct ps2_keyboard *kbd, uint8_t byte)
{
    uint8_t command = kbd->command;

    kbd->command = 0;
    switch (command) {
    case CMD_SET_LEDS:
        kbd->leds = byte & 7;
        break;
    case CMD_TYPEMATIC:
        kbd->rate = byte & 0x7f;
        break;
    case CMD_SCANCODE_SET:
        if (byte > 3) {
            reply(kbd, REPLY_RESEND);
            return;
        }
        if (byte == 0) {
            reply(kbd, REPLY_ACK);
            reply(kbd, kbd->scancode_set);
            return;
        }
        kbd->scancode_set = byte;
        break;
    default: /* one key of set 3: all keys behave alike here */
        break;
    }
    reply(kbd, REPLY_ACK);
}

void ps2_keyboard_write(struct ps2_keyboard *kbd, uint8_t byte)
{
    /* A command where a parameter was due starts anew. */
    if (kbd->command && byte < CMD_SET_LEDS) {
        take_parameter(kbd, byte);
        return;
    }
    kbd->command = 0;
    switch (byte) {
    case CMD_ECHO:
        reply(kbd, REPLY_ECHO);
        break;
    case CMD_GET_ID:
        reply(kbd, REPLY_ACK);
        reply(kbd, 0xab);
        reply(kbd, 0x83);
        break;
    case CMD_ENABLE:
        memset(&kbd->queue, 0, sizeof(kbd->queue));
        kbd->scanning = true;
        reply(kbd, REPLY_ACK);
        break;
    case CMD_DISABLE:
        set_defaults(kbd);
        kbd->scanning = false;
        reply(kbd, REPLY_ACK);
        break;
    case CMD_DEFAULTS:
        set_defaults(kbd);
        reply(kbd, REPLY_ACK);
        break;
    case CMD_RESEND:
        reply(kbd, kbd->last);
        break;
    case CMD_RESET:
        ps2_keyboard_reset(kbd);
        reply(kbd, REPLY_ACK);
        reply(kbd, REPLY_SELF_TEST);
        break;
    case CMD_ALL_KEYS_FIRST ... CMD_ALL_KEYS_LAST:
        reply(kbd, REPLY_ACK);
        break;
    case CMD_SET_LEDS:
    case CMD_SCANCODE_SET:
    case CMD_TYPEMATIC:
    case CMD_ONE_KEY_FIRST ... CMD_ONE_KEY_LAST:
        kbd->command = byte;
        reply(kbd, REPLY_ACK);
        break;
    default:
        reply(kbd, REPLY_RESEND);
    }
}

bool ps2_keyboard_put(struct ps2_keyboard *kbd, uint8_t scancode)
{
    if (!kbd->scanning || !put(&kbd->queue, scancode)) {
        return false;
    }
    kbd->last = scancode;
    return true;
}

/* ---- state ---------------------------------------------------------------------------------- */

static bool queue_post_load(void *object, unsigned version)
{
    struct ps2_queue *queue = object;

    return queue->head < PS2_QUEUE_SIZE && queue->count <= PS2_QUEUE_SIZE;
}

static const struct vmstate_field queue_fields[] = {
    VMSTATE_BYTES(struct ps2_queue, data),
    VMSTATE_UINT(struct ps2_queue, head),
    VMSTATE_UINT(struct ps2_queue, count),
    VMSTATE_END,
};

const struct vmstate ps2_queue_vmstate = {
    .name = "ps2-queue",
    .version = 1,
    .minimum_version = 1,
    .fields = queue_fields,
    .post_load = queue_post_load,
};

static const struct vmstate_field keyboard_fields[] = {
    VMSTATE_SUB(struct ps2_keyboard, queue, ps2_queue_vmstate, 1),
    VMSTATE_UINT(struct ps2_keyboard, command),
    VMSTATE_UINT(struct ps2_keyboard, scancode_set),
    VMSTATE_UINT(struct ps2_keyboard, leds),
    VMSTATE_UINT(struct ps2_keyboard, rate),
    VMSTATE_UINT(struct ps2_keyboard, last),
    VMSTATE_BOOL(struct ps2_keyboard, scanning),
    VMSTATE_END,
};

const struct vmstate ps2_keyboard_vmstate = {
    .name = "ps2-keyboard",
    .version = 1,
    .minimum_version = 1,
    .fields = keyboard_fields,
};
