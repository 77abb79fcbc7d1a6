/* SPDX-License-Identifier: MIT */
/*
 * isa-debugcon: a port whose bytes go to a character device as they come, the debug console of
 * Bochs (port 0xe9). Reading gives the readback value, by which a guest detects it. There is no
 * flow control: the guest cannot wait, so what the back end has no room for is lost.
 */
#include "chardev/property.h"
#include "device/vmstate.h"
#include "hw/isa.h"
#include "hw/isa_misc.h"

struct debugcon {
    struct device dev;
    /* properties */
    uint32_t iobase, readback;
    struct chardev *chr;
    /* constant after realize */
    struct mem_region region;
    struct chardev_frontend frontend;
};

static uint64_t debugcon_read(void *opaque, uint64_t offset, unsigned size)
{
    return ((struct debugcon *)opaque)->readback;
}

static void debugcon_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct debugcon *s = opaque;
    uint8_t byte = (uint8_t)value;

    chardev_write(s->chr, &byte, 1);
}

static const struct mem_region_ops debugcon_ops = {
    .read = debugcon_read,
    .write = debugcon_write,
    .valid = {.min = 1, .max = 1},
};

/* Input is for nobody. */
static int can_read(void *opaque)
{
    return 0;
}

static void read_input(void *opaque, const uint8_t *buf, size_t len)
{
}

static bool debugcon_realize(struct device *dev, struct error **errp)
{
    struct debugcon *s = (struct debugcon *)dev;

    if (!s->chr) {
        error_set(errp, "Can't create debugcon device, empty char device");
        error_add_hint(errp, "Name one with chardev=ID.");
        return false;
    }
    s->frontend = (struct chardev_frontend){
        .can_read = can_read,
        .read = read_input,
        .opaque = s,
        .is_background = true,
    };
    if (!chardev_attach(s->chr, &s->frontend, errp)) {
        return false;
    }
    mem_region_init_io(&s->region, "isa-debugcon", 1, &debugcon_ops, s);
    if (!isa_map_io(dev, &s->region, s->iobase, errp)) {
        mem_region_destroy(&s->region);
        chardev_detach(s->chr, &s->frontend);
        return false;
    }
    return true;
}

static void debugcon_unrealize(struct device *dev)
{
    struct debugcon *s = (struct debugcon *)dev;

    isa_unmap_io(dev, &s->region);
    mem_region_destroy(&s->region);
    chardev_detach(s->chr, &s->frontend);
}

static const struct property debugcon_props[] = {
    PROPERTY_UINT32("iobase", struct debugcon, iobase, 0xe9, 0, 0xffff, "the port"),
    PROPERTY_CHARDEV("chardev", struct debugcon, chr),
    PROPERTY_UINT32("readback", struct debugcon, readback, 0xe9, 0, 0xff, "what reading gives"),
    PROPERTY_END,
};

static const struct vmstate_field no_fields[] = {VMSTATE_END};

static const struct vmstate debugcon_vmstate = {
    .name = "isa-debugcon",
    .version = 1,
    .minimum_version = 1,
    .fields = no_fields,
};

const struct device_type debugcon_type = {
    .name = "isa-debugcon",
    .description = "Debug console port",
    .category = DEVICE_CATEGORY_MISC,
    .bus = "ISA",
    .size = sizeof(struct debugcon),
    .props = debugcon_props,
    .realize = debugcon_realize,
    .unrealize = debugcon_unrealize,
    .vmstate = &debugcon_vmstate,
};
