/* SPDX-License-Identifier: MIT */
/*
 * The controller has one output buffer. It is filled, whenever it is empty, from the controller's
 * own answers, then from the keyboard, then from the mouse; reading port 0x60 empties it. Its
 * interrupt is high while the buffer is full with a byte of that device.
 */
#include "hw/i8042.h"

#include <string.h>

#include "device/system.h"
#include "device/vmstate.h"
#include "hw/isa.h"
#include "hw/ps2.h"

#define DATA_PORT    0x60
#define COMMAND_PORT 0x64
#define KBD_IRQ      1
#define AUX_IRQ      12

#define STATUS_OBF 0x01 /* output buffer full */
#define STATUS_SYS 0x04 /* self test passed */
#define STATUS_CMD 0x08 /* the last write went to 0x64 */
#define STATUS_KEY 0x10 /* keyboard lock is open */
#define STATUS_AUX 0x20 /* the byte is the mouse's */

#define CTR_KBD_INT 0x01
#define CTR_AUX_INT 0x02
#define CTR_SYS     0x04
#define CTR_KBD_OFF 0x10
#define CTR_AUX_OFF 0x20
#define CTR_XLATE   0x40 /* scan codes of set 2 to set 1 */

#define OUT_RUN     0x01 /* low: reset */
#define OUT_A20     0x02
#define OUT_KBD_IRQ 0x10
#define OUT_AUX_IRQ 0x20

#define CMD_READ_RAM      0x20 /* to 0x3f; byte 0 is the command byte */
#define CMD_WRITE_RAM     0x60 /* to 0x7f */
#define CMD_AUX_DISABLE   0xa7
#define CMD_AUX_ENABLE    0xa8
#define CMD_AUX_TEST      0xa9
#define CMD_SELF_TEST     0xaa
#define CMD_KBD_TEST      0xab
#define CMD_KBD_DISABLE   0xad
#define CMD_KBD_ENABLE    0xae
#define CMD_READ_INPUT    0xc0
#define CMD_READ_OUTPUT   0xd0
#define CMD_WRITE_OUTPUT  0xd1
#define CMD_WRITE_KBD_OBF 0xd2
#define CMD_WRITE_AUX_OBF 0xd3
#define CMD_WRITE_AUX     0xd4
#define CMD_A20_OFF       0xdd
#define CMD_A20_ON        0xdf
#define CMD_TEST_INPUTS   0xe0
#define CMD_PULSE         0xf0 /* to 0xff: output bits 3:0 that are 0 go low for 6 us */

#define RAM_SIZE 32

enum { SOURCE_NONE, SOURCE_CONTROLLER, SOURCE_KBD, SOURCE_AUX };

struct i8042 {
    struct device dev;
    /* constant after realize */
    struct irq *kbd_irq, *aux_irq;
    struct mem_region data, command;
    /* machine state */
    uint8_t ram[RAM_SIZE]; /* [0] is the command byte (CTR) */
    uint8_t status;        /* SYS and CMD; the others are worked out */
    uint8_t pending;       /* command that waits for a byte at 0x60, or 0 */
    uint8_t output, output_source;
    uint8_t answer, answer_source; /* of the controller, goes to output next */
    uint8_t output_port;
    bool break_prefix; /* translation saw 0xf0 */
    uint8_t kbd_level, aux_level;
    struct ps2_keyboard kbd;
    struct ps2_mouse mouse;
};

/* Scan code set 2 to set 1. (IBM PS/2 keyboard controller's translation table.) */
static const uint8_t translation[128] = {
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
};

/* ---- output buffer -------------------------------------------------------------------------- */

/* False: a prefix that the controller keeps to itself. */
static bool translate(struct i8042 *s, uint8_t *byte)
{
    if (!(s->ram[0] & CTR_XLATE)) {
        return true;
    }
    if (*byte == 0xf0) {
        s->break_prefix = true;
        return false;
    }
    uint8_t code = *byte < 0x80 ? translation[*byte] : *byte == 0x83 ? 0x41 : *byte;
    if (*byte == 0x84) {
        code = 0x54;
    }
    *byte = s->break_prefix ? code | 0x80 : code;
    s->break_prefix = false;
    return true;
}

static void next_output(struct i8042 *s)
{
    if (s->answer_source != SOURCE_NONE) {
        s->output = s->answer;
        s->output_source = s->answer_source;
        s->answer_source = SOURCE_NONE;
        return;
    }
    while (!(s->ram[0] & CTR_KBD_OFF) && ps2_queue_get(&s->kbd.queue, &s->output)) {
        if (translate(s, &s->output)) {
            s->output_source = SOURCE_KBD;
            return;
        }
    }
    if (!(s->ram[0] & CTR_AUX_OFF) && ps2_queue_get(&s->mouse.queue, &s->output)) {
        s->output_source = SOURCE_AUX;
    }
}

static void set_level(struct irq *irq, uint8_t *now, bool level)
{
    if (*now != level) {
        *now = level;
        irq_set(irq, level);
    }
}

static void update(struct i8042 *s)
{
    if (s->output_source == SOURCE_NONE) {
        next_output(s);
    }
    bool full = s->output_source != SOURCE_NONE, aux = s->output_source == SOURCE_AUX;
    set_level(s->kbd_irq, &s->kbd_level, full && !aux && s->ram[0] & CTR_KBD_INT);
    set_level(s->aux_irq, &s->aux_level, full && aux && s->ram[0] & CTR_AUX_INT);
}

static void answer(struct i8042 *s, uint8_t byte, uint8_t source)
{
    s->answer = byte;
    s->answer_source = source;
}

static uint8_t read_data(struct i8042 *s)
{
    uint8_t byte = s->output;

    if (s->output_source != SOURCE_NONE) {
        s->output_source = SOURCE_NONE;
        /* The line falls before the next byte raises it: interrupts 1 and 12 are edges. */
        set_level(s->kbd_irq, &s->kbd_level, false);
        set_level(s->aux_irq, &s->aux_level, false);
        update(s);
    }
    return byte;
}

static uint8_t read_status(const struct i8042 *s)
{
    uint8_t status = s->status | STATUS_KEY;

    if (s->output_source != SOURCE_NONE) {
        status |= STATUS_OBF;
    }
    if (s->output_source == SOURCE_AUX) {
        status |= STATUS_AUX;
    }
    return status;
}

/* ---- commands ------------------------------------------------------------------------------- */

static uint8_t read_output_port(const struct i8042 *s)
{
    return s->output_port | (s->kbd_level ? OUT_KBD_IRQ : 0) | (s->aux_level ? OUT_AUX_IRQ : 0);
}

static void write_output_port(struct i8042 *s, uint8_t value)
{
    irq_set(&s->dev.gpio_out[0], (value & OUT_A20) != 0);
    s->output_port = (value & OUT_A20) | OUT_RUN;
    if (!(value & OUT_RUN)) {
        system_reset_request(SYSTEM_CAUSE_GUEST_RESET);
    }
}

static void set_ctr_bit(struct i8042 *s, uint8_t bit, bool on)
{
    s->ram[0] = on ? s->ram[0] | bit : (uint8_t)(s->ram[0] & ~bit);
}

static void write_command(struct i8042 *s, uint8_t command)
{
    s->status |= STATUS_CMD;
    s->pending = 0;
    switch (command) {
    case CMD_READ_RAM ... CMD_READ_RAM + RAM_SIZE - 1:
        answer(s, s->ram[command & (RAM_SIZE - 1)], SOURCE_CONTROLLER);
        break;
    case CMD_WRITE_RAM ... CMD_WRITE_RAM + RAM_SIZE - 1:
    case CMD_WRITE_OUTPUT:
    case CMD_WRITE_KBD_OBF:
    case CMD_WRITE_AUX_OBF:
    case CMD_WRITE_AUX:
        s->pending = command;
        break;
    case CMD_AUX_DISABLE:
    case CMD_AUX_ENABLE:
        set_ctr_bit(s, CTR_AUX_OFF, command == CMD_AUX_DISABLE);
        break;
    case CMD_AUX_TEST:
    case CMD_KBD_TEST:
        answer(s, 0x00, SOURCE_CONTROLLER);
        break;
    case CMD_SELF_TEST:
        s->status |= STATUS_SYS;
        s->ram[0] |= CTR_SYS;
        answer(s, 0x55, SOURCE_CONTROLLER);
        break;
    case CMD_KBD_DISABLE:
    case CMD_KBD_ENABLE:
        set_ctr_bit(s, CTR_KBD_OFF, command == CMD_KBD_DISABLE);
        break;
    case CMD_READ_INPUT:
        answer(s, 0x80, SOURCE_CONTROLLER); /* keyboard is not locked */
        break;
    case CMD_READ_OUTPUT:
        answer(s, read_output_port(s), SOURCE_CONTROLLER);
        break;
    case CMD_A20_OFF:
    case CMD_A20_ON:
        write_output_port(s, command == CMD_A20_ON ? OUT_RUN | OUT_A20 : OUT_RUN);
        break;
    case CMD_TEST_INPUTS:
        answer(s, 0x00, SOURCE_CONTROLLER);
        break;
    case CMD_PULSE ... 0xff:
        if (!(command & OUT_RUN)) {
            system_reset_request(SYSTEM_CAUSE_GUEST_RESET);
        }
        break;
    default:
        break; /* not a command of this controller: no answer */
    }
    update(s);
}

static void write_data(struct i8042 *s, uint8_t value)
{
    uint8_t pending = s->pending;

    s->status &= (uint8_t)~STATUS_CMD;
    s->pending = 0;
    switch (pending) {
    case 0:
        set_ctr_bit(s, CTR_KBD_OFF, false); /* the keyboard's clock runs again */
        ps2_keyboard_write(&s->kbd, value);
        break;
    case CMD_WRITE_OUTPUT:
        write_output_port(s, value);
        break;
    case CMD_WRITE_KBD_OBF:
        answer(s, value, SOURCE_KBD);
        break;
    case CMD_WRITE_AUX_OBF:
        answer(s, value, SOURCE_AUX);
        break;
    case CMD_WRITE_AUX:
        set_ctr_bit(s, CTR_AUX_OFF, false);
        ps2_mouse_write(&s->mouse, value);
        break;
    default: /* CMD_WRITE_RAM */
        s->ram[pending & (RAM_SIZE - 1)] = value;
        if (pending == CMD_WRITE_RAM) {
            s->status = (uint8_t)((s->status & ~STATUS_SYS) | (value & CTR_SYS));
        }
    }
    update(s);
}

/* ---- ports ---------------------------------------------------------------------------------- */

static uint64_t data_read(void *opaque, uint64_t offset, unsigned size)
{
    return read_data(opaque);
}

static void data_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    write_data(opaque, (uint8_t)value);
}

static uint64_t command_read(void *opaque, uint64_t offset, unsigned size)
{
    return read_status(opaque);
}

static void command_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    write_command(opaque, (uint8_t)value);
}

static const struct mem_region_ops data_ops = {
    .read = data_read,
    .write = data_write,
    .valid = {.min = 1, .max = 1},
};

static const struct mem_region_ops command_ops = {
    .read = command_read,
    .write = command_write,
    .valid = {.min = 1, .max = 1},
};

void i8042_firmware_setup(struct device *dev)
{
    struct i8042 *s = (struct i8042 *)dev;

    s->ram[0] = CTR_KBD_INT | CTR_SYS | CTR_AUX_OFF | CTR_XLATE;
    s->status |= STATUS_SYS;
    update(s);
}

/* ---- injection ------------------------------------------------------------------------------ */

bool kbd_put_scancode(struct device *dev, uint8_t code)
{
    struct i8042 *s = (struct i8042 *)dev;
    bool taken = ps2_keyboard_put(&s->kbd, code);

    update(s);
    return taken;
}

bool mouse_put_event(struct device *dev, int dx, int dy, int dz, unsigned buttons)
{
    struct i8042 *s = (struct i8042 *)dev;
    bool taken = ps2_mouse_move(&s->mouse, dx, dy, dz, buttons);

    update(s);
    return taken;
}

/* ---- device --------------------------------------------------------------------------------- */

static void i8042_init(struct device *dev)
{
    device_init_gpio_out(dev, 1);
}

static void i8042_unrealize(struct device *dev)
{
    struct i8042 *s = (struct i8042 *)dev;

    isa_unmap_io(dev, &s->data);
    isa_unmap_io(dev, &s->command);
    mem_region_destroy(&s->data);
    mem_region_destroy(&s->command);
}

static bool i8042_realize(struct device *dev, struct error **errp)
{
    struct i8042 *s = (struct i8042 *)dev;

    s->kbd_irq = isa_irq(dev, KBD_IRQ, errp);
    s->aux_irq = isa_irq(dev, AUX_IRQ, errp);
    mem_region_init_io(&s->data, "i8042-data", 1, &data_ops, s);
    mem_region_init_io(&s->command, "i8042-cmd", 1, &command_ops, s);
    if (!isa_map_io(dev, &s->data, DATA_PORT, errp) ||
        !isa_map_io(dev, &s->command, COMMAND_PORT, errp)) {
        i8042_unrealize(dev);
        return false;
    }
    return true;
}

static void i8042_reset(struct device *dev)
{
    struct i8042 *s = (struct i8042 *)dev;

    memset(s->ram, 0, sizeof(s->ram));
    s->ram[0] = CTR_KBD_INT | CTR_AUX_INT;
    s->status = STATUS_CMD;
    s->pending = 0;
    s->output = 0;
    s->output_source = s->answer_source = SOURCE_NONE;
    s->output_port = OUT_RUN | OUT_A20;
    s->break_prefix = false;
    ps2_keyboard_reset(&s->kbd);
    ps2_mouse_reset(&s->mouse);
    irq_set(&dev->gpio_out[0], 1);
    update(s);
}

static bool i8042_post_load(void *device, unsigned version)
{
    struct i8042 *s = device;

    s->kbd_level = s->kbd_level != 0;
    s->aux_level = s->aux_level != 0;
    return s->output_source <= SOURCE_AUX && s->answer_source <= SOURCE_AUX;
}

static const struct vmstate_field i8042_fields[] = {
    VMSTATE_BYTES(struct i8042, ram),
    VMSTATE_UINT(struct i8042, status),
    VMSTATE_UINT(struct i8042, pending),
    VMSTATE_UINT(struct i8042, output),
    VMSTATE_UINT(struct i8042, output_source),
    VMSTATE_UINT(struct i8042, answer),
    VMSTATE_UINT(struct i8042, answer_source),
    VMSTATE_UINT(struct i8042, output_port),
    VMSTATE_BOOL(struct i8042, break_prefix),
    VMSTATE_UINT(struct i8042, kbd_level),
    VMSTATE_UINT(struct i8042, aux_level),
    VMSTATE_SUB(struct i8042, kbd, ps2_keyboard_vmstate, 1),
    VMSTATE_SUB(struct i8042, mouse, ps2_mouse_vmstate, 1),
    VMSTATE_END,
};

static const struct vmstate i8042_vmstate = {
    .name = "i8042",
    .version = 1,
    .minimum_version = 1,
    .fields = i8042_fields,
    .post_load = i8042_post_load,
};

const struct device_type i8042_type = {
    .name = "i8042",
    .description = "PS/2 keyboard controller, keyboard and mouse",
    .category = DEVICE_CATEGORY_INPUT,
    .bus = "ISA",
    .size = sizeof(struct i8042),
    .internal = true,
    .init = i8042_init,
    .realize = i8042_realize,
    .unrealize = i8042_unrealize,
    .reset = i8042_reset,
    .vmstate = &i8042_vmstate,
};

struct device *i8042_new(struct bus *isa, struct error **errp)
{
    struct device *dev = device_new(&i8042_type);

    if (!device_realize(dev, isa, errp)) {
        device_free(dev);
        return NULL;
    }
    return dev;
}
