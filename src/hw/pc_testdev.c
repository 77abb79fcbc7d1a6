/* SPDX-License-Identifier: MIT */
/*
 * pc-testdev: what the tests of kvm-unit-tests expect of a machine.
 *
 *   ports 0xe0-0xe3      four bytes that read as written, any size
 *   port  0xe4           a write of an address drops the page there from the engine's page tables
 *   ports 0xe8-0xeb      the same four bytes, one byte at a time
 *   ports 0x2000-0x2017  a write to port 0x2000 + n sets interrupt line n to 0 or 1
 *   0xff000000, 64 KiB   memory that is MMIO
 */
#include <string.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "base/range.h"
#include "device/vmstate.h"
#include "hw/isa.h"
#include "hw/isa_misc.h"
#include "mem/dma.h"

#define IOPORT      0xe0
#define FLUSH       0xe4
#define IOPORT_BYTE 0xe8
#define IRQ_PORTS   0x2000
#define IRQ_COUNT   24
#define IOMEM       0xff000000
#define IOMEM_SIZE  0x10000

struct pc_testdev {
    struct device dev;
    /* constant after realize */
    struct mem_region ioport, flush, ioport_byte, irq, iomem;
    /* machine state */
    uint8_t data[4];
    uint8_t memory[IOMEM_SIZE];
};

static uint64_t ioport_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pc_testdev *s = opaque;

    return load_le(s->data + offset, size); /* the core keeps offset + size within the region */
}

static void ioport_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pc_testdev *s = opaque;

    store_le(s->data + offset, size, value);
}

static const struct mem_region_ops ioport_ops = {
    .read = ioport_read,
    .write = ioport_write,
    .valid = {.min = 1, .max = 4, .unaligned = true},
    .impl = {.min = 1, .max = 4, .unaligned = true},
};

static const struct mem_region_ops ioport_byte_ops = {
    .read = ioport_read,
    .write = ioport_write,
    .valid = {.min = 1, .max = 4, .unaligned = true},
    .impl = {.min = 1, .max = 1},
};

/* Changing the protection of the host's page makes an engine forget the translation. It may be executed
 * for a moment, which nobody does: reading and writing stay possible throughout, for another vCPU or a
 * device's read may be writing the page, and must not fail. */
static void flush_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    uint64_t length = GUEST_PAGE_SIZE;
    uint64_t address = align_down(value, GUEST_PAGE_SIZE);
    void *host = dma_map(address_space_memory, address, &length, true);

    if (!host) {
        return;
    }
    if (length == GUEST_PAGE_SIZE && (uintptr_t)host % GUEST_PAGE_SIZE == 0 &&
        mprotect(host, GUEST_PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC) == 0) {
        mprotect(host, GUEST_PAGE_SIZE, PROT_READ | PROT_WRITE);
    }
    dma_unmap(host, length, true, 0);
}

static uint64_t read_nothing(void *opaque, uint64_t offset, unsigned size)
{
    return 0;
}

static const struct mem_region_ops flush_ops = {
    .read = read_nothing,
    .write = flush_write,
    .valid = {.min = 4, .max = 4},
};

static void irq_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pc_testdev *s = opaque;

    if (offset < ISA_IRQ_COUNT) {
        irq_set(&isa_bus_of(&s->dev)->irq[offset], value != 0);
    }
}

static const struct mem_region_ops irq_ops = {
    .read = read_nothing,
    .write = irq_write,
    .valid = {.min = 1, .max = 4, .unaligned = true},
    .impl = {.min = 1, .max = 4, .unaligned = true},
};

static uint64_t iomem_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pc_testdev *s = opaque;

    return load_le(s->memory + offset, size);
}

static void iomem_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pc_testdev *s = opaque;

    store_le(s->memory + offset, size, value);
}

static const struct mem_region_ops iomem_ops = {
    .read = iomem_read,
    .write = iomem_write,
    .valid = {.min = 1, .max = 8, .unaligned = true},
    .impl = {.min = 1, .max = 8, .unaligned = true},
};

/* These ports are laid over what else may be there (isa-debugcon at 0xe9). */
static bool pc_testdev_realize(struct device *dev, struct error **errp)
{
    struct pc_testdev *s = (struct pc_testdev *)dev;
    struct isa_bus *isa = isa_bus_of(dev);

    mem_region_init_io(&s->ioport, "pc-testdev-ioport", 4, &ioport_ops, s);
    mem_region_init_io(&s->flush, "pc-testdev-flush", 4, &flush_ops, s);
    mem_region_init_io(&s->ioport_byte, "pc-testdev-ioport-byte", 4, &ioport_byte_ops, s);
    mem_region_init_io(&s->irq, "pc-testdev-irq", IRQ_COUNT, &irq_ops, s);
    mem_region_init_io(&s->iomem, "pc-testdev-iomem", IOMEM_SIZE, &iomem_ops, s);
    mem_region_add_overlap(isa->io, IOPORT, &s->ioport, -1);
    mem_region_add_overlap(isa->io, FLUSH, &s->flush, -1);
    mem_region_add_overlap(isa->io, IOPORT_BYTE, &s->ioport_byte, -1);
    mem_region_add_overlap(isa->io, IRQ_PORTS, &s->irq, -1);
    mem_region_add(isa->memory, IOMEM, &s->iomem);
    return true;
}

static void pc_testdev_unrealize(struct device *dev)
{
    struct pc_testdev *s = (struct pc_testdev *)dev;
    struct isa_bus *isa = isa_bus_of(dev);
    struct mem_region *ports[] = {&s->ioport, &s->flush, &s->ioport_byte, &s->irq};

    for (unsigned i = 0; i < ARRAY_SIZE(ports); i++) {
        mem_region_remove(isa->io, ports[i]);
        mem_region_destroy(ports[i]);
    }
    mem_region_remove(isa->memory, &s->iomem);
    mem_region_destroy(&s->iomem);
}

static const struct vmstate_field pc_testdev_fields[] = {
    VMSTATE_BYTES(struct pc_testdev, data),
    VMSTATE_BYTES(struct pc_testdev, memory),
    VMSTATE_END,
};

static const struct vmstate pc_testdev_vmstate = {
    .name = "pc-testdev",
    .version = 1,
    .minimum_version = 1,
    .fields = pc_testdev_fields,
};

const struct device_type pc_testdev_type = {
    .name = "pc-testdev",
    .description = "Ports and memory for kvm-unit-tests",
    .category = DEVICE_CATEGORY_MISC,
    .bus = "ISA",
    .size = sizeof(struct pc_testdev),
    .realize = pc_testdev_realize,
    .unrealize = pc_testdev_unrealize,
    .vmstate = &pc_testdev_vmstate,
};
