/* SPDX-License-Identifier: MIT */
/*
 * What the host bridges of pc and q35 have in common: the device on the system bus that owns the
 * root PCI bus and configuration mechanism 1, and the way from the bus's interrupt lines to the
 * south bridge, which is a function of that very bus and so comes later.
 *
 * Machine state: machine lock held.
 */
#ifndef FERRY_HW_PCI_HOST_H
#define FERRY_HW_PCI_HOST_H

#include "pci/pci.h"

struct pci_irq_router {
    unsigned (*map_irq)(void *opaque, uint8_t devfn, unsigned pin); /* pin 0..3 -> line */
    void (*set_irq)(void *opaque, unsigned line, int level);
    void *opaque;
};

struct pci_host {
    struct device dev;
    /* constant after realize */
    struct pci_bus bus;
    struct pci_mechanism1 mechanism1;
    struct mem_region *memory, *io, *ram, *pci_memory, *smm; /* smm: may be NULL */
    /* machine state, set once */
    struct pci_irq_router router;
};

extern const struct device_type pci_host_type; /* abstract "pci-host-bridge" */

static inline struct pci_host *pci_host_of(const struct pci_bus *bus)
{
    return (struct pci_host *)bus->bus.parent;
}

/* For the realize of a host bridge. */
void pci_host_init_bus(struct pci_host *host, const char *name, bool is_express, unsigned lines);
void pci_host_destroy_bus(struct device *dev); /* fits device_type.unrealize */
/* By the south bridge; router NULL members take it away. */
void pci_host_set_router(struct pci_bus *bus, const struct pci_irq_router *router);

#endif
