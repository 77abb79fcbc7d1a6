/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "base/range.h"
#include "hw/ps2.h"

#define REPLY_ACK       0xfa
#define REPLY_RESEND    0xfe
#define REPLY_SELF_TEST 0xaa

#define CMD_SCALE_1_1  0xe6
#define CMD_SCALE_2_1  0xe7
#define CMD_RESOLUTION 0xe8
#define CMD_STATUS     0xe9
#define CMD_STREAM     0xea
#define CMD_READ       0xeb
#define CMD_WRAP_END   0xec
#define CMD_WRAP       0xee
#define CMD_REMOTE     0xf0
#define CMD_GET_ID     0xf2
#define CMD_RATE       0xf3
#define CMD_ENABLE     0xf4
#define CMD_DISABLE    0xf5
#define CMD_DEFAULTS   0xf6
#define CMD_RESEND     0xfe
#define CMD_RESET      0xff

#define ID_PLAIN 0 /* 3-byte packets, two or three buttons */
#define ID_WHEEL 3 /* 4-byte packets */
#define ID_FIVE  4 /* 4-byte packets, five buttons */

static void reply(struct ps2_mouse *mouse, uint8_t byte)
{
    struct ps2_queue *queue = &mouse->queue;

    if (queue->count < PS2_QUEUE_SIZE) {
        queue->data[(queue->head + queue->count++) % PS2_QUEUE_SIZE] = byte;
        mouse->last = byte == REPLY_RESEND ? mouse->last : byte;
    }
}

static void set_defaults(struct ps2_mouse *mouse)
{
    mouse->rate = 100;
    mouse->resolution = 2; /* 4 counts a millimetre */
    mouse->scaling = mouse->reporting = mouse->remote = mouse->wrap = false;
    mouse->dx = mouse->dy = mouse->dz = 0;
}

void ps2_mouse_reset(struct ps2_mouse *mouse)
{
    memset(mouse, 0, sizeof(*mouse));
    set_defaults(mouse);
}

static void send_packet(struct ps2_mouse *mouse)
{
    unsigned length = mouse->id == ID_PLAIN ? 3 : 4;
    int32_t dx = MAX(MIN(mouse->dx, 255), -256), dy = MAX(MIN(mouse->dy, 255), -256);
    int32_t dz = MAX(MIN(mouse->dz, 7), -8);

    if (mouse->queue.count > PS2_QUEUE_SIZE - length) {
        return; /* the movement is kept and goes with the next one */
    }
    reply(mouse,
          (uint8_t)(0x08 | (mouse->buttons & 7) | (dx < 0 ? 0x10 : 0) | (dy < 0 ? 0x20 : 0)));
    reply(mouse, (uint8_t)dx);
    reply(mouse, (uint8_t)dy);
    if (mouse->id == ID_WHEEL) {
        reply(mouse, (uint8_t)dz);
    } else if (mouse->id == ID_FIVE) {
        reply(mouse, (uint8_t)((dz & 0x0f) | (mouse->buttons & 0x18) << 1));
    }
    mouse->dx -= dx;
    mouse->dy -= dy;
    mouse->dz -= dz;
}

static void set_rate(struct ps2_mouse *mouse, uint8_t rate)
{
    static const uint8_t wheel[3] = {200, 100, 80}, five[3] = {200, 200, 80};

    mouse->rate = rate;
    mouse->knock[0] = mouse->knock[1];
    mouse->knock[1] = mouse->knock[2];
    mouse->knock[2] = rate;
    if (memcmp(mouse->knock, wheel, 3) == 0) {
        mouse->id = ID_WHEEL;
    } else if (memcmp(mouse->knock, five, 3) == 0 && mouse->id == ID_WHEEL) {
        mouse->id = ID_FIVE;
    }
}

static void send_status(struct ps2_mouse *mouse)
{
    uint8_t buttons = mouse->buttons;

    reply(mouse, (uint8_t)((buttons & 1 ? 4 : 0) | (buttons & 2 ? 1 : 0) | (buttons & 4 ? 2 : 0) |
                           (mouse->scaling ? 0x10 : 0) | (mouse->reporting ? 0x20 : 0) |
                           (mouse->remote ? 0x40 : 0)));
    reply(mouse, mouse->resolution);
    reply(mouse, mouse->rate);
}

static void take_command(struct ps2_mouse *mouse, uint8_t byte)
{
    switch (byte) {
    case CMD_SCALE_1_1:
    case CMD_SCALE_2_1:
        mouse->scaling = byte == CMD_SCALE_2_1;
        break;
    case CMD_RESOLUTION:
    case CMD_RATE:
        mouse->command = byte;
        break;
    case CMD_STATUS:
        reply(mouse, REPLY_ACK);
        send_status(mouse);
        return;
    case CMD_STREAM:
    case CMD_REMOTE:
        mouse->remote = byte == CMD_REMOTE;
        break;
    case CMD_READ:
        reply(mouse, REPLY_ACK);
        send_packet(mouse);
        return;
    case CMD_WRAP_END:
        break;
    case CMD_WRAP:
        mouse->wrap = true;
        break;
    case CMD_GET_ID:
        reply(mouse, REPLY_ACK);
        reply(mouse, mouse->id);
        return;
    case CMD_ENABLE:
    case CMD_DISABLE:
        mouse->reporting = byte == CMD_ENABLE;
        break;
    case CMD_DEFAULTS:
        set_defaults(mouse);
        break;
    case CMD_RESEND:
        reply(mouse, mouse->last);
        return;
    case CMD_RESET:
        ps2_mouse_reset(mouse);
        reply(mouse, REPLY_ACK);
        reply(mouse, REPLY_SELF_TEST);
        reply(mouse, ID_PLAIN);
        return;
    default:
        reply(mouse, REPLY_RESEND);
        return;
    }
    reply(mouse, REPLY_ACK);
}

void ps2_mouse_write(struct ps2_mouse *mouse, uint8_t byte)
{
    uint8_t command = mouse->command;

    if (mouse->wrap && byte != CMD_WRAP_END && byte != CMD_RESET) {
        reply(mouse, byte);
        return;
    }
    mouse->wrap = false;
    mouse->command = 0;
    if (command && byte < CMD_SCALE_1_1) {
        if (command == CMD_RATE) {
            set_rate(mouse, byte);
        } else {
            mouse->resolution = byte & 3;
        }
        reply(mouse, REPLY_ACK);
        return;
    }
    take_command(mouse, byte);
}

bool ps2_mouse_move(struct ps2_mouse *mouse, int dx, int dy, int dz, unsigned buttons)
{
    const int limit = 1 << 20;

    if (!mouse->reporting || mouse->remote || mouse->wrap) {
        mouse->buttons = (uint8_t)(buttons & 0x1f);
        return false;
    }
    mouse->dx = MAX(MIN(mouse->dx + MAX(MIN(dx, limit), -limit), limit), -limit);
    mouse->dy = MAX(MIN(mouse->dy + MAX(MIN(dy, limit), -limit), limit), -limit);
    mouse->dz = MAX(MIN(mouse->dz + MAX(MIN(dz, limit), -limit), limit), -limit);
    mouse->buttons = (uint8_t)(buttons & 0x1f);
    send_packet(mouse);
    return true;
}

/* ---- state ---------------------------------------------------------------------------------- */

static bool mouse_post_load(void *object, unsigned version)
{
    struct ps2_mouse *mouse = object;
    const int limit = 1 << 20;

    return (mouse->id == ID_PLAIN || mouse->id == ID_WHEEL || mouse->id == ID_FIVE) &&
           MAX(MAX(mouse->dx, mouse->dy), mouse->dz) <= limit &&
           MIN(MIN(mouse->dx, mouse->dy), mouse->dz) >= -limit;
}

static const struct vmstate_field mouse_fields[] = {
    VMSTATE_SUB(struct ps2_mouse, queue, ps2_queue_vmstate, 1),
    VMSTATE_UINT(struct ps2_mouse, command),
    VMSTATE_UINT(struct ps2_mouse, resolution),
    VMSTATE_UINT(struct ps2_mouse, rate),
    VMSTATE_UINT(struct ps2_mouse, buttons),
    VMSTATE_UINT(struct ps2_mouse, id),
    VMSTATE_UINT(struct ps2_mouse, last),
    VMSTATE_BYTES(struct ps2_mouse, knock),
    VMSTATE_BOOL(struct ps2_mouse, reporting),
    VMSTATE_BOOL(struct ps2_mouse, remote),
    VMSTATE_BOOL(struct ps2_mouse, wrap),
    VMSTATE_BOOL(struct ps2_mouse, scaling),
    VMSTATE_UINT(struct ps2_mouse, dx),
    VMSTATE_UINT(struct ps2_mouse, dy),
    VMSTATE_UINT(struct ps2_mouse, dz),
    VMSTATE_END,
};

const struct vmstate ps2_mouse_vmstate = {
    .name = "ps2-mouse",
    .version = 1,
    .minimum_version = 1,
    .fields = mouse_fields,
    .post_load = mouse_post_load,
};
