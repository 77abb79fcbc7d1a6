/* SPDX-License-Identifier: MIT */
/* Buses: places for functions, and finding them. */
#include <assert.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/range.h"
#include "pci/internal.h"

static struct pci_bus *the_root_bus;

char *pci_address_text(const struct device *dev)
{
    const struct pci_device *pci = (const struct pci_device *)dev;

    return xasprintf("0000:%02x:%02x.%x", pci->bus->number, PCI_SLOT(pci->devfn),
                     PCI_FUNC(pci->devfn));
}

const struct bus_type pci_bus_type = {
    .name = "PCI",
    .address_text = pci_address_text,
};

const struct bus_type pcie_bus_type = {
    .name = "PCI",
    .address_text = pci_address_text,
};

void pci_root_bus_init(struct pci_bus *bus, struct device *host_bridge, const char *name,
                       bool is_express, struct mem_region *memory, struct mem_region *io,
                       const struct pci_bus_ops *ops, void *opaque, unsigned irq_lines)
{
    assert(irq_lines <= ARRAY_SIZE(bus->irq_count));
    *bus = (struct pci_bus){
        .ops = ops,
        .opaque = opaque,
        .memory = memory,
        .io = io,
        .is_express = is_express,
        .irq_lines = irq_lines,
    };
    bus_init(&bus->bus, is_express ? &pcie_bus_type : &pci_bus_type, host_bridge, name);
    the_root_bus = bus;
}

struct pci_bus *pci_root_bus(void)
{
    return the_root_bus;
}

/* ---- finding -------------------------------------------------------------------------------- */

static struct pci_bus *bus_by_number(struct pci_bus *bus, uint8_t number)
{
    if (bus->number == number) {
        return bus;
    }
    for (unsigned devfn = 0; devfn < ARRAY_SIZE(bus->function); devfn++) {
        struct pci_device *bridge = bus->function[devfn];
        if (!bridge || !bridge->class->is_bridge || !bridge->dev.first_child_bus) {
            continue;
        }
        uint8_t secondary = bridge->config[PCI_SECONDARY_BUS];
        /* A guest may number buses in circles; the tree has none. */
        if (secondary && number >= secondary && number <= bridge->config[PCI_SUBORDINATE_BUS]) {
            struct pci_bus *child = (struct pci_bus *)bridge->dev.first_child_bus;
            child->number = secondary;
            return bus_by_number(child, number);
        }
    }
    return NULL;
}

struct pci_device *pci_find(struct pci_bus *root, uint8_t bus, uint8_t devfn)
{
    struct pci_bus *found = bus_by_number(root, bus);

    return found ? found->function[devfn] : NULL;
}

/* ---- places --------------------------------------------------------------------------------- */

static void set_not_available(const struct pci_bus *bus, uint8_t devfn, const char *name,
                              struct error **errp)
{
    const struct pci_device *other = bus->function[devfn];

    error_set(errp, "PCI: slot %d function %d not available for %s, in use by %s%s%s",
              PCI_SLOT(devfn), PCI_FUNC(devfn), name, other->dev.type->name,
              other->dev.id ? ",id=" : "", other->dev.id ? other->dev.id : "");
    error_add_hint(errp, "Choose another addr=, or leave it out to take a free slot.");
}

static bool slot_is_free(const struct pci_bus *bus, unsigned slot)
{
    for (unsigned function = 0; function < 8; function++) {
        if (bus->function[PCI_DEVFN(slot, function)]) {
            return false;
        }
    }
    return true;
}

static int first_free_slot(const struct pci_bus *bus)
{
    for (unsigned slot = bus->first_slot; slot < 32; slot++) {
        if (slot_is_free(bus, slot)) {
            return (int)slot;
        }
    }
    return -1;
}

/* Function 0 says whether there are others (PCI 3.0, 6.2.1): a guest looks no further else. */
static bool check_functions(const struct pci_bus *bus, const struct pci_device *pci,
                            struct error **errp)
{
    unsigned slot = PCI_SLOT(pci->devfn);
    unsigned function = PCI_FUNC(pci->devfn);
    const struct pci_device *first = bus->function[PCI_DEVFN(slot, 0)];

    if (function && first && !first->multifunction) {
        error_set(errp, "PCI: single function device can't be populated in function %x.%x", slot,
                  function);
        error_add_hint(errp, "Give %s%s%s multifunction=on.", first->dev.type->name,
                       first->dev.id ? ",id=" : "", first->dev.id ? first->dev.id : "");
        return false;
    }
    if (function || pci->multifunction) {
        return true;
    }
    for (unsigned other = 1; other < 8; other++) {
        if (bus->function[PCI_DEVFN(slot, other)]) {
            error_set(errp, "PCI: %x.0 indicates single function, but %x.%x is already populated.",
                      slot, slot, other);
            error_add_hint(errp, "Give %s multifunction=on.", pci->dev.type->name);
            return false;
        }
    }
    return true;
}

bool pci_bus_take_place(struct pci_bus *bus, struct pci_device *pci, struct error **errp)
{
    const char *name = pci->dev.type->name;

    if (pci->addr >= 0) {
        pci->devfn = (uint8_t)pci->addr;
        if (bus->function[pci->devfn]) {
            set_not_available(bus, pci->devfn, name, errp);
            return false;
        }
    } else {
        int slot = first_free_slot(bus);
        if (slot < 0) {
            error_set(errp, "PCI: no slot/function available for %s, all in use or reserved", name);
            return false;
        }
        pci->devfn = (uint8_t)PCI_DEVFN(slot, 0);
    }
    if (!check_functions(bus, pci, errp)) {
        return false;
    }
    pci->bus = bus;
    pci->takes_any = pci->addr < 0;
    pci->addr = pci->devfn;
    bus->function[pci->devfn] = pci;
    bus->bus.full = first_free_slot(bus) < 0;
    return true;
}

void pci_bus_leave_place(struct pci_device *pci)
{
    struct pci_bus *bus = pci->bus;

    bus->function[pci->devfn] = NULL;
    bus->bus.full = first_free_slot(bus) < 0;
    pci->addr = pci->takes_any ? -1 : pci->addr;
    pci->bus = NULL;
}
