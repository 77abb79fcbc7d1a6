/* SPDX-License-Identifier: MIT */
/*
 * isa-debug-exit: a write of V ends ferry with status (V << 1) | 1, so that a test in the guest
 * tells its result. The status is never 0; the host's shell sees its low 8 bits.
 */
#include "device/system.h"
#include "device/vmstate.h"
#include "hw/isa.h"
#include "hw/isa_misc.h"

struct debug_exit {
    struct device dev;
    /* properties */
    uint32_t iobase, iosize;
    /* constant after realize */
    struct mem_region region;
};

static uint64_t debug_exit_read(void *opaque, uint64_t offset, unsigned size)
{
    return 0;
}

static void debug_exit_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    system_exit_request((int)((value << 1 | 1) & 0xff));
}

static const struct mem_region_ops debug_exit_ops = {
    .read = debug_exit_read,
    .write = debug_exit_write,
    .valid = {.min = 1, .max = 4, .unaligned = true},
};

static bool debug_exit_realize(struct device *dev, struct error **errp)
{
    struct debug_exit *s = (struct debug_exit *)dev;

    mem_region_init_io(&s->region, "isa-debug-exit", s->iosize, &debug_exit_ops, s);
    if (!isa_map_io(dev, &s->region, s->iobase, errp)) {
        mem_region_destroy(&s->region);
        return false;
    }
    return true;
}

static void debug_exit_unrealize(struct device *dev)
{
    struct debug_exit *s = (struct debug_exit *)dev;

    isa_unmap_io(dev, &s->region);
    mem_region_destroy(&s->region);
}

static const struct property debug_exit_props[] = {
    PROPERTY_UINT32("iobase", struct debug_exit, iobase, 0x501, 0, 0xffff, "first port"),
    PROPERTY_UINT32("iosize", struct debug_exit, iosize, 2, 1, 0x10000, "number of ports"),
    PROPERTY_END,
};

static const struct vmstate_field no_fields[] = {VMSTATE_END};

static const struct vmstate debug_exit_vmstate = {
    .name = "isa-debug-exit",
    .version = 1,
    .minimum_version = 1,
    .fields = no_fields,
};

const struct device_type debug_exit_type = {
    .name = "isa-debug-exit",
    .description = "Port that ends the process",
    .category = DEVICE_CATEGORY_MISC,
    .bus = "ISA",
    .size = sizeof(struct debug_exit),
    .props = debug_exit_props,
    .realize = debug_exit_realize,
    .unrealize = debug_exit_unrealize,
    .vmstate = &debug_exit_vmstate,
};
