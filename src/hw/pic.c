/* SPDX-License-Identifier: MIT */
/*
 * Initialisation (data sheet, figure 7): init_state counts the words.
 *
 *   READY --ICW1--> ICW2 --> ICW3 (not if single) --> ICW4 (only if ICW1 says so) --> READY
 *
 * Invariants:
 *  - last_irr is the level of the inputs, in either trigger mode.
 *  - irr of an edge input is set by its rise and cleared by INTA or ICW1; of a level input it is
 *    last_irr.
 *  - The slave's output is the master's input 2, and the master's output is what accel was told.
 */
#include "hw/pic.h"

#include "accel/accel.h"
#include "hw/chip_state.h"
#include "hw/gsi.h"
#include "mem/address_space.h"

#define CASCADE_IRQ  2
#define SPURIOUS_IRQ 7
#define NO_IRQ       (-1)

#define ICW1_ICW4   0x01
#define ICW1_SINGLE 0x02
#define ICW1_INIT   0x10
#define ICW4_AEOI   0x02
#define ICW4_SFNM   0x10

#define OCW3      0x08
#define OCW3_RIS  0x01
#define OCW3_RR   0x02
#define OCW3_POLL 0x04
#define OCW3_SMM  0x20
#define OCW3_ESMM 0x40

enum { INIT_READY, INIT_ICW2, INIT_ICW3, INIT_ICW4 };

/* OCW2's upper three bits: rotate, specific, EOI. */
enum ocw2 {
    OCW2_ROTATE_AEOI_CLEAR,
    OCW2_EOI,
    OCW2_NOTHING,
    OCW2_SPECIFIC_EOI,
    OCW2_ROTATE_AEOI_SET,
    OCW2_ROTATE_EOI,
    OCW2_SET_PRIORITY,
    OCW2_ROTATE_SPECIFIC_EOI,
};

struct pic;

struct pic_chip {
    struct pic *pair;
    struct x86_pic s;
    uint8_t single; /* ICW1.SNGL, until the initialisation is through */
    bool is_master;
    struct mem_region ports, elcr;
};

struct pic {
    struct device dev;
    /* machine state */
    struct pic_chip chip[2]; /* master, slave */
    uint8_t output;          /* of the master */
};

/* ---- priorities ----------------------------------------------------------------------------- */

/* Position of the highest of the bits in the present order, 8: none. */
static unsigned highest(const struct x86_pic *s, uint8_t bits)
{
    for (unsigned i = 0; i < 8; i++) {
        if (bits & 1u << ((i + s->priority_add) & 7)) {
            return i;
        }
    }
    return 8;
}

/* The request that may interrupt now, or NO_IRQ. */
static int pending(const struct pic_chip *chip)
{
    const struct x86_pic *s = &chip->s;
    uint8_t in_service = s->isr;

    if (s->special_mask) {
        in_service &= (uint8_t)~s->imr;
    }
    if (s->special_fully_nested && chip->is_master) {
        in_service &= (uint8_t) ~(1u << CASCADE_IRQ);
    }
    unsigned request = highest(s, s->irr & (uint8_t)~s->imr);
    if (request == 8 || request >= highest(s, in_service)) {
        return NO_IRQ;
    }
    return (int)((request + s->priority_add) & 7);
}

/* ---- inputs and outputs --------------------------------------------------------------------- */

static void set_input(struct pic_chip *chip, unsigned n, bool level)
{
    struct x86_pic *s = &chip->s;
    uint8_t bit = (uint8_t)(1u << n);
    bool follows = s->elcr & bit || (chip->is_master && n == CASCADE_IRQ);

    if (level && (follows || !(s->last_irr & bit))) {
        s->irr |= bit;
    } else if (!level && follows) {
        s->irr &= (uint8_t)~bit;
    }
    s->last_irr = level ? s->last_irr | bit : (uint8_t)(s->last_irr & ~bit);
}

static void update_output(struct pic *pic)
{
    set_input(&pic->chip[0], CASCADE_IRQ, pending(&pic->chip[1]) != NO_IRQ);

    uint8_t output = pending(&pic->chip[0]) != NO_IRQ;
    if (output != pic->output) {
        pic->output = output;
        irq_set(&pic->dev.gpio_out[0], output);
    }
}

static void pic_set_irq(void *opaque, unsigned n, int level)
{
    struct pic *pic = opaque;

    set_input(&pic->chip[n / 8], n % 8, level != 0);
    update_output(pic);
}

/* ---- acknowledge and end of interrupt ------------------------------------------------------- */

static void take(struct pic_chip *chip, unsigned n)
{
    struct x86_pic *s = &chip->s;
    uint8_t bit = (uint8_t)(1u << n);

    if (!s->auto_eoi) {
        s->isr |= bit;
    } else if (s->rotate_on_auto_eoi) {
        s->priority_add = (n + 1) & 7;
    }
    if (!(s->elcr & bit)) {
        s->irr &= (uint8_t)~bit;
    }
}

/* INTA of one chip: the input, 7 if the request has gone. */
static unsigned acknowledge(struct pic_chip *chip)
{
    int n = pending(chip);

    if (n == NO_IRQ) {
        return SPURIOUS_IRQ;
    }
    take(chip, (unsigned)n);
    return (unsigned)n;
}

int pic_ack(void *opaque)
{
    struct pic *pic = opaque;
    struct pic_chip *master = &pic->chip[0], *slave = &pic->chip[1];
    bool from_slave = pending(master) == CASCADE_IRQ;
    unsigned n = acknowledge(master);
    int vector = master->s.irq_base + (int)n;

    if (from_slave) {
        vector = slave->s.irq_base + (int)acknowledge(slave);
        /* Its output falls with INTA; if it has another request the master sees a new edge. */
        set_input(master, CASCADE_IRQ, false);
    }
    update_output(pic);
    return vector;
}

static uint8_t poll(struct pic_chip *chip)
{
    int n = pending(chip);

    chip->s.poll = 0;
    if (n == NO_IRQ) {
        return 0;
    }
    take(chip, (unsigned)n);
    update_output(chip->pair);
    return (uint8_t)(0x80 | n);
}

static void end_of_interrupt(struct x86_pic *s, unsigned n, bool rotate)
{
    s->isr &= (uint8_t) ~(1u << n);
    if (rotate) {
        s->priority_add = (n + 1) & 7;
    }
}

/* The highest in service; in special mask mode those that are masked do not count. */
static void end_of_highest(struct x86_pic *s, bool rotate)
{
    unsigned position = highest(s, s->special_mask ? s->isr & (uint8_t)~s->imr : s->isr);

    if (position < 8) {
        end_of_interrupt(s, (position + s->priority_add) & 7, rotate);
    }
}

/* ---- command words -------------------------------------------------------------------------- */

static void write_icw1(struct pic_chip *chip, uint8_t value)
{
    struct x86_pic *s = &chip->s;

    s->irr = s->last_irr & s->elcr; /* the edge sense is reset: edges must come again */
    s->imr = s->isr = 0;
    s->priority_add = 0;
    s->special_mask = s->poll = s->read_reg_select = 0;
    s->auto_eoi = s->rotate_on_auto_eoi = s->special_fully_nested = 0;
    s->init4 = value & ICW1_ICW4;
    chip->single = (value & ICW1_SINGLE) != 0;
    s->init_state = INIT_ICW2;
}

static void write_ocw2(struct x86_pic *s, uint8_t value)
{
    unsigned n = value & 7;

    switch ((enum ocw2)(value >> 5)) {
    case OCW2_ROTATE_AEOI_CLEAR:
    case OCW2_ROTATE_AEOI_SET:
        s->rotate_on_auto_eoi = value >> 7;
        break;
    case OCW2_EOI:
    case OCW2_ROTATE_EOI:
        end_of_highest(s, value >> 7);
        break;
    case OCW2_SPECIFIC_EOI:
    case OCW2_ROTATE_SPECIFIC_EOI:
        end_of_interrupt(s, n, value >> 7);
        break;
    case OCW2_SET_PRIORITY:
        s->priority_add = (n + 1) & 7;
        break;
    case OCW2_NOTHING:
        break;
    }
}

static void write_ocw3(struct x86_pic *s, uint8_t value)
{
    if (value & OCW3_POLL) {
        s->poll = 1;
    }
    if (value & OCW3_RR) {
        s->read_reg_select = value & OCW3_RIS;
    }
    if (value & OCW3_ESMM) {
        s->special_mask = (value & OCW3_SMM) != 0;
    }
}

static void write_data(struct pic_chip *chip, uint8_t value)
{
    struct x86_pic *s = &chip->s;

    switch (s->init_state) {
    case INIT_READY:
        s->imr = value;
        break;
    case INIT_ICW2:
        s->irq_base = value & 0xf8;
        s->init_state = !chip->single ? INIT_ICW3 : s->init4 ? INIT_ICW4 : INIT_READY;
        break;
    case INIT_ICW3: /* the cascade is wired */
        s->init_state = s->init4 ? INIT_ICW4 : INIT_READY;
        break;
    default:
        s->special_fully_nested = (value & ICW4_SFNM) != 0;
        s->auto_eoi = (value & ICW4_AEOI) != 0;
        s->init_state = INIT_READY;
    }
}

static void chip_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pic_chip *chip = opaque;

    if (offset == 1) {
        write_data(chip, (uint8_t)value);
    } else if (value & ICW1_INIT) {
        write_icw1(chip, (uint8_t)value);
    } else if (value & OCW3) {
        write_ocw3(&chip->s, (uint8_t)value);
    } else {
        write_ocw2(&chip->s, (uint8_t)value);
    }
    update_output(chip->pair);
}

static uint64_t chip_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pic_chip *chip = opaque;
    const struct x86_pic *s = &chip->s;

    if (s->poll) {
        return poll(chip);
    }
    return offset == 1 ? s->imr : s->read_reg_select ? s->isr : s->irr;
}

static const struct mem_region_ops chip_ops = {
    .read = chip_read,
    .write = chip_write,
    .valid = {.min = 1, .max = 1},
};

static uint64_t elcr_read(void *opaque, uint64_t offset, unsigned size)
{
    return ((struct pic_chip *)opaque)->s.elcr;
}

static void elcr_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pic_chip *chip = opaque;
    struct x86_pic *s = &chip->s;
    uint8_t old = s->elcr;

    s->elcr = (uint8_t)value & s->elcr_mask;
    s->irr &= (uint8_t) ~(old ^ s->elcr);
    s->irr |= s->elcr & s->last_irr;
    update_output(chip->pair);
}

static const struct mem_region_ops elcr_ops = {
    .read = elcr_read,
    .write = elcr_write,
    .valid = {.min = 1, .max = 1},
};

/* ---- state ---------------------------------------------------------------------------------- */

void pic_get_state(struct device *dev, struct x86_pic state[2])
{
    const struct pic *pic = (const struct pic *)dev;

    state[0] = pic->chip[0].s;
    state[1] = pic->chip[1].s;
}

static void normalize(struct x86_pic *s)
{
    s->priority_add &= 7;
    s->irq_base &= 0xf8;
    s->elcr &= s->elcr_mask;
    s->init_state &= 3;
}

void pic_set_state(struct device *dev, const struct x86_pic state[2])
{
    struct pic *pic = (struct pic *)dev;

    for (unsigned i = 0; i < 2; i++) {
        uint8_t mask = pic->chip[i].s.elcr_mask;
        pic->chip[i].s = state[i];
        pic->chip[i].s.elcr_mask = mask;
        normalize(&pic->chip[i].s);
    }
    update_output(pic);
}

static bool pic_post_load(void *device, unsigned version)
{
    struct pic *pic = device;
    static const uint8_t masks[2] = {0xf8, 0xde};

    for (unsigned i = 0; i < 2; i++) {
        pic->chip[i].s.elcr_mask = masks[i];
        normalize(&pic->chip[i].s);
    }
    /* Whoever listens may hold another level than the one that was saved. */
    pic->output = pending(&pic->chip[0]) != NO_IRQ;
    irq_set(&pic->dev.gpio_out[0], pic->output);
    update_output(pic);
    return true;
}

/* ---- device --------------------------------------------------------------------------------- */

static void pic_init(struct device *dev)
{
    device_init_gpio_in(dev, pic_set_irq, GSI_ISA_COUNT);
    device_init_gpio_out(dev, 1);
}

static bool pic_realize(struct device *dev, struct error **errp)
{
    struct pic *pic = (struct pic *)dev;
    static const uint16_t ports[2] = {0x20, 0xa0};
    struct mem_region *io = io_root();

    mem_transaction_begin();
    for (unsigned i = 0; i < 2; i++) {
        struct pic_chip *chip = &pic->chip[i];
        chip->pair = pic;
        chip->is_master = i == 0;
        mem_region_init_io(&chip->ports, "pic", 2, &chip_ops, chip);
        mem_region_init_io(&chip->elcr, "elcr", 1, &elcr_ops, chip);
        mem_region_add(io, ports[i], &chip->ports);
        mem_region_add(io, 0x4d0 + i, &chip->elcr);
    }
    mem_transaction_commit();
    return true;
}

static void pic_unrealize(struct device *dev)
{
    struct pic *pic = (struct pic *)dev;
    struct mem_region *io = io_root();

    mem_transaction_begin();
    for (unsigned i = 0; i < 2; i++) {
        mem_region_remove(io, &pic->chip[i].ports);
        mem_region_remove(io, &pic->chip[i].elcr);
    }
    mem_transaction_commit();
    for (unsigned i = 0; i < 2; i++) {
        mem_region_destroy(&pic->chip[i].ports);
        mem_region_destroy(&pic->chip[i].elcr);
    }
}

static void pic_reset(struct device *dev)
{
    struct pic *pic = (struct pic *)dev;
    struct x86_pic state[2];

    pic_get_state(dev, state);
    x86_pic_reset(state);
    pic->chip[0].s = state[0];
    pic->chip[1].s = state[1];
    pic->chip[0].single = pic->chip[1].single = 0;
    update_output(pic);
}

static const struct vmstate_field pic_fields[] = {
    VMSTATE_SUB(struct pic, chip[0].s, x86_pic_vmstate, 1),
    VMSTATE_SUB(struct pic, chip[1].s, x86_pic_vmstate, 1),
    VMSTATE_UINT(struct pic, chip[0].single),
    VMSTATE_UINT(struct pic, chip[1].single),
    VMSTATE_END,
};

static const struct vmstate pic_vmstate = {
    .name = "isa-i8259",
    .version = 1,
    .minimum_version = 1,
    .fields = pic_fields,
    .post_load = pic_post_load,
};

const struct device_type pic_type = {
    .name = "isa-i8259",
    .description = "Pair of 8259A interrupt controllers",
    .category = DEVICE_CATEGORY_MISC,
    .bus = "System",
    .size = sizeof(struct pic),
    .internal = true,
    .init = pic_init,
    .realize = pic_realize,
    .unrealize = pic_unrealize,
    .reset = pic_reset,
    .vmstate = &pic_vmstate,
};

static void set_extint(void *opaque, unsigned n, int level)
{
    accel_set_extint(level);
}

struct device *pic_new(struct error **errp)
{
    struct device *dev = device_new(&pic_type);

    dev->gpio_out[0] = irq_make(set_extint, NULL, 0);
    if (!device_realize(dev, system_bus(), errp)) {
        device_free(dev);
        return NULL;
    }
    device_reset(dev);
    return dev;
}
