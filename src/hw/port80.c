/* SPDX-License-Identifier: MIT */
/*
 * Port 0x80: the power-on self-test code of a PC, which operating systems write to wait about a
 * microsecond. Reads give all ones, as nothing drives the bus on a PCI machine.
 */
#include "device/vmstate.h"
#include "hw/isa.h"
#include "hw/isa_misc.h"

#define PORT 0x80

struct port80 {
    struct device dev;
    /* constant after realize */
    struct mem_region region;
    /* atomic: written without the machine lock, as the guest writes it often */
    uint8_t last;
};

static uint64_t port80_read(void *opaque, uint64_t offset, unsigned size)
{
    return 0xff;
}

static void port80_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct port80 *s = opaque;

    __atomic_store_n(&s->last, (uint8_t)value, __ATOMIC_RELAXED);
}

static const struct mem_region_ops port80_ops = {
    .read = port80_read,
    .write = port80_write,
    .valid = {.min = 1, .max = 1},
    .lockless = true,
};

uint8_t port80_last(struct device *port80)
{
    return __atomic_load_n(&((struct port80 *)port80)->last, __ATOMIC_RELAXED);
}

static bool port80_realize(struct device *dev, struct error **errp)
{
    struct port80 *s = (struct port80 *)dev;

    mem_region_init_io(&s->region, "ioport80", 1, &port80_ops, s);
    if (!isa_map_io(dev, &s->region, PORT, errp)) {
        mem_region_destroy(&s->region);
        return false;
    }
    return true;
}

static void port80_unrealize(struct device *dev)
{
    struct port80 *s = (struct port80 *)dev;

    isa_unmap_io(dev, &s->region);
    mem_region_destroy(&s->region);
}

static void port80_reset(struct device *dev)
{
    __atomic_store_n(&((struct port80 *)dev)->last, 0, __ATOMIC_RELAXED);
}

static const struct vmstate_field port80_fields[] = {
    VMSTATE_UINT(struct port80, last),
    VMSTATE_END,
};

static const struct vmstate port80_vmstate = {
    .name = "isa-post",
    .version = 1,
    .minimum_version = 1,
    .fields = port80_fields,
};

const struct device_type port80_type = {
    .name = "isa-post",
    .description = "Power-on self-test code port",
    .category = DEVICE_CATEGORY_MISC,
    .bus = "ISA",
    .size = sizeof(struct port80),
    .internal = true,
    .realize = port80_realize,
    .unrealize = port80_unrealize,
    .reset = port80_reset,
    .vmstate = &port80_vmstate,
};

struct device *port80_new(struct bus *isa, struct error **errp)
{
    struct device *dev = device_new(&port80_type);

    if (!device_realize(dev, isa, errp)) {
        device_free(dev);
        return NULL;
    }
    return dev;
}
