/* SPDX-License-Identifier: MIT */
/*
 * The ISA bus behind the south bridge: devices at fixed ports, with interrupt lines 0..15.
 *
 * "isa.0" belongs to PIIX3 or the ICH9 LPC bridge, so that -device isa-serial and the like find it.
 *
 * Machine state.
 */
#ifndef FERRY_HW_ISA_H
#define FERRY_HW_ISA_H

#include "device/device.h"
#include "mem/region.h"

#define ISA_IRQ_COUNT 16

struct isa_ports;

struct isa_bus {
    struct bus bus;
    /* constant */
    struct mem_region *memory, *io; /* where children map themselves */
    struct irq *irq;                /* ISA_IRQ_COUNT lines */
    /* machine state */
    struct isa_ports *ports; /* who answers where */
    unsigned port_count;
};

extern const struct bus_type isa_bus_type; /* "ISA" */

/* Named "isa.0"; embedded in the bridge. */
void isa_bus_init(struct isa_bus *isa, struct device *bridge, struct mem_region *memory,
                  struct mem_region *io, struct irq *irq);
void isa_bus_destroy(struct isa_bus *isa); /* children go first */

/* For a device that is on an ISA bus. */
static inline struct isa_bus *isa_bus_of(const struct device *dev)
{
    return (struct isa_bus *)dev->bus;
}

/* Maps region at port for a device that is being realized: refuses a range that leaves the I/O
 * space or overlaps another ISA device's ports, naming it. isa_unmap() in unrealize. */
bool isa_map_io(struct device *dev, struct mem_region *region, uint32_t port, struct error **errp);
void isa_unmap_io(struct device *dev, struct mem_region *region);
/* The line, or NULL and an error for a number that the bus does not have. */
struct irq *isa_irq(struct device *dev, uint32_t n, struct error **errp);

#endif
