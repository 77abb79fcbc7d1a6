/* SPDX-License-Identifier: MIT */
#include "hw/isa.h"

#include <inttypes.h>

#include "base/alloc.h"
#include "base/range.h"
#include "mem/address_space.h"

#define ISA_PORT_SPACE 0x10000u

/* What one device answers at. */
struct isa_ports {
    const struct device *dev;
    const struct mem_region *region;
    uint32_t first, size;
};

void isa_bus_init(struct isa_bus *isa, struct device *bridge, struct mem_region *memory,
                  struct mem_region *io, struct irq *irq)
{
    isa->memory = memory;
    isa->io = io;
    isa->irq = irq;
    bus_init(&isa->bus, &isa_bus_type, bridge, "isa.0");
}

void isa_bus_destroy(struct isa_bus *isa)
{
    bus_destroy(&isa->bus);
    free(isa->ports);
    isa->ports = NULL;
    isa->port_count = 0;
}

const struct bus_type isa_bus_type = {
    .name = "ISA",
};

bool isa_map_io(struct device *dev, struct mem_region *region, uint32_t port, struct error **errp)
{
    struct isa_bus *isa = isa_bus_of(dev);

    if (!range_fits(port, region->size, ISA_PORT_SPACE)) {
        error_set(errp, "%s: ports 0x%" PRIx32 " to 0x%" PRIx64 " leave the I/O space of 64 KiB",
                  dev->type->name, port, port + region->size - 1);
        return false;
    }
    for (unsigned i = 0; i < isa->port_count; i++) {
        const struct isa_ports *other = &isa->ports[i];
        if (range_overlaps(port, region->size, other->first, other->size)) {
            error_set(errp,
                      "%s: port 0x%" PRIx32 " belongs to %s (0x%" PRIx32 "-0x%" PRIx32
                      "); choose another iobase",
                      dev->type->name, MAX(port, other->first),
                      other->dev->id ? other->dev->id : other->dev->type->name, other->first,
                      other->first + other->size - 1);
            return false;
        }
    }
    isa->ports = xreallocarray(isa->ports, isa->port_count + 1, sizeof(*isa->ports));
    isa->ports[isa->port_count++] = (struct isa_ports){dev, region, port, (uint32_t)region->size};
    mem_region_add(isa->io, port, region);
    return true;
}

void isa_unmap_io(struct device *dev, struct mem_region *region)
{
    struct isa_bus *isa = isa_bus_of(dev);

    for (unsigned i = 0; i < isa->port_count; i++) {
        if (isa->ports[i].region == region) {
            isa->ports[i] = isa->ports[--isa->port_count];
            mem_region_remove(isa->io, region);
            return;
        }
    }
}

struct irq *isa_irq(struct device *dev, uint32_t n, struct error **errp)
{
    if (n >= ISA_IRQ_COUNT) {
        error_set(errp, "%s: irq %" PRIu32 " does not exist on an ISA bus; use 0 to %u",
                  dev->type->name, n, ISA_IRQ_COUNT - 1);
        return NULL;
    }
    return &isa_bus_of(dev)->irq[n];
}
