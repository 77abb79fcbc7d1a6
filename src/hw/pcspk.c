/* SPDX-License-Identifier: MIT */
/*
 * Port 0x61, system control port B (IBM PC AT Technical Reference): bits 1:0 gate counter 2 and the
 * speaker, bits 3:2 are stored, bit 4 toggles with every memory refresh (15 us), bit 5 is counter
 * 2's output. Kernels measure delays with bits 0 and 5.
 */
#include "aio/clock.h"
#include "device/vmstate.h"
#include "hw/isa.h"
#include "hw/isa_misc.h"
#include "hw/pit.h"

#define PORT            0x61
#define BIT_GATE2       0x01
#define BITS_STORED     0x0f
#define BIT_REFRESH     0x10
#define BIT_OUT2        0x20
#define REFRESH_NS      15085 /* 64 KiB rows in 1 s, as counter 1 once drove it */
#define SPEAKER_COUNTER 2

struct pcspk {
    struct device dev;
    /* constant after realize */
    struct device *pit;
    struct mem_region region;
    /* machine state */
    uint8_t control;
};

static uint64_t pcspk_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct pcspk *s = opaque;
    uint8_t value = s->control;

    value |= clock_get_ns(AIO_CLOCK_VIRTUAL) / REFRESH_NS & 1 ? BIT_REFRESH : 0;
    value |= s->pit && pit_output(s->pit, SPEAKER_COUNTER) ? BIT_OUT2 : 0;
    return value;
}

static void pcspk_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pcspk *s = opaque;

    s->control = value & BITS_STORED;
    if (s->pit) {
        pit_set_gate(s->pit, SPEAKER_COUNTER, value & BIT_GATE2);
    }
}

static const struct mem_region_ops pcspk_ops = {
    .read = pcspk_read,
    .write = pcspk_write,
    .valid = {.min = 1, .max = 1},
};

static bool pcspk_realize(struct device *dev, struct error **errp)
{
    struct pcspk *s = (struct pcspk *)dev;

    mem_region_init_io(&s->region, "pcspk", 1, &pcspk_ops, s);
    if (!isa_map_io(dev, &s->region, PORT, errp)) {
        mem_region_destroy(&s->region);
        return false;
    }
    return true;
}

static void pcspk_unrealize(struct device *dev)
{
    struct pcspk *s = (struct pcspk *)dev;

    isa_unmap_io(dev, &s->region);
    mem_region_destroy(&s->region);
}

static void pcspk_reset(struct device *dev)
{
    struct pcspk *s = (struct pcspk *)dev;

    s->control = 0;
    if (s->pit) {
        pit_set_gate(s->pit, SPEAKER_COUNTER, false);
    }
}

static const struct vmstate_field pcspk_fields[] = {
    VMSTATE_UINT(struct pcspk, control),
    VMSTATE_END,
};

static const struct vmstate pcspk_vmstate = {
    .name = "isa-pcspk",
    .version = 1,
    .minimum_version = 1,
    .fields = pcspk_fields,
};

const struct device_type pcspk_type = {
    .name = "isa-pcspk",
    .description = "Speaker and system control port B",
    .category = DEVICE_CATEGORY_SOUND,
    .bus = "ISA",
    .size = sizeof(struct pcspk),
    .internal = true,
    .realize = pcspk_realize,
    .unrealize = pcspk_unrealize,
    .reset = pcspk_reset,
    .vmstate = &pcspk_vmstate,
};

struct device *pcspk_new(struct bus *isa, struct device *pit, struct error **errp)
{
    struct pcspk *s = (struct pcspk *)device_new(&pcspk_type);

    s->pit = pit;
    if (!device_realize(&s->dev, isa, errp)) {
        device_free(&s->dev);
        return NULL;
    }
    return &s->dev;
}
