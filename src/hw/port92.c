/* SPDX-License-Identifier: MIT */
/*
 * Port 0x92, system control port A (82371AB, 4.2.7): bit 1 is the A20 gate, and a rising bit 0
 * resets.
 */
#include "device/system.h"
#include "device/vmstate.h"
#include "hw/isa.h"
#include "hw/isa_misc.h"

#define PORT      0x92
#define BIT_RESET 0x01
#define BIT_A20   0x02

struct port92 {
    struct device dev;
    /* constant after realize */
    struct mem_region region;
    /* machine state */
    uint8_t value;
};

static uint64_t port92_read(void *opaque, uint64_t offset, unsigned size)
{
    return ((struct port92 *)opaque)->value;
}

static void port92_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct port92 *s = opaque;
    uint8_t risen = (uint8_t)value & (uint8_t)~s->value;

    irq_set(&s->dev.gpio_out[0], (value & BIT_A20) != 0);
    s->value = value & (BIT_RESET | BIT_A20);
    if (risen & BIT_RESET) {
        system_reset_request(SYSTEM_CAUSE_GUEST_RESET);
    }
}

static const struct mem_region_ops port92_ops = {
    .read = port92_read,
    .write = port92_write,
    .valid = {.min = 1, .max = 1},
};

static void port92_init(struct device *dev)
{
    device_init_gpio_out(dev, 1);
}

static bool port92_realize(struct device *dev, struct error **errp)
{
    struct port92 *s = (struct port92 *)dev;

    mem_region_init_io(&s->region, "port92", 1, &port92_ops, s);
    if (!isa_map_io(dev, &s->region, PORT, errp)) {
        mem_region_destroy(&s->region);
        return false;
    }
    return true;
}

static void port92_unrealize(struct device *dev)
{
    struct port92 *s = (struct port92 *)dev;

    isa_unmap_io(dev, &s->region);
    mem_region_destroy(&s->region);
}

/* A20 is open after reset, as the keyboard controller's is. Of the two, whichever is written last moves
 * the gate. */
static void port92_reset(struct device *dev)
{
    ((struct port92 *)dev)->value = BIT_A20;
    irq_set(&dev->gpio_out[0], 1);
}

static const struct vmstate_field port92_fields[] = {
    VMSTATE_UINT(struct port92, value),
    VMSTATE_END,
};

static const struct vmstate port92_vmstate = {
    .name = "port92",
    .version = 1,
    .minimum_version = 1,
    .fields = port92_fields,
};

const struct device_type port92_type = {
    .name = "port92",
    .description = "System control port A",
    .category = DEVICE_CATEGORY_MISC,
    .bus = "ISA",
    .size = sizeof(struct port92),
    .internal = true,
    .init = port92_init,
    .realize = port92_realize,
    .unrealize = port92_unrealize,
    .reset = port92_reset,
    .vmstate = &port92_vmstate,
};

struct device *port92_new(struct bus *isa, struct error **errp)
{
    struct device *dev = device_new(&port92_type);

    if (!device_realize(dev, isa, errp)) {
        device_free(dev);
        return NULL;
    }
    return dev;
}
