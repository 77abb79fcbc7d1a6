/* SPDX-License-Identifier: MIT */
#include "hw/pci_host.h"

#include "device/vmstate.h"

static unsigned host_map_irq(struct pci_bus *bus, uint8_t devfn, unsigned pin)
{
    const struct pci_irq_router *router = &pci_host_of(bus)->router;

    if (!router->map_irq) {
        return pin % bus->irq_lines;
    }
    return router->map_irq(router->opaque, devfn, pin);
}

static void host_set_irq(void *opaque, unsigned line, int level)
{
    const struct pci_irq_router *router = &((struct pci_host *)opaque)->router;

    if (router->set_irq) {
        router->set_irq(router->opaque, line, level);
    }
}

static const struct pci_bus_ops host_bus_ops = {
    .map_irq = host_map_irq,
    .set_irq = host_set_irq,
};

void pci_host_init_bus(struct pci_host *host, const char *name, bool is_express, unsigned lines)
{
    pci_root_bus_init(&host->bus, &host->dev, name, is_express, host->pci_memory, host->io,
                      &host_bus_ops, host, lines);
    pci_mechanism1_init(&host->mechanism1, &host->bus, host->io);
}

void pci_host_destroy_bus(struct device *dev)
{
    struct pci_host *host = (struct pci_host *)dev;

    pci_mechanism1_destroy(&host->mechanism1, host->io);
    bus_destroy(&host->bus.bus);
}

void pci_host_set_router(struct pci_bus *bus, const struct pci_irq_router *router)
{
    pci_host_of(bus)->router = *router;
}

static void pci_host_reset(struct device *dev)
{
    ((struct pci_host *)dev)->mechanism1.address = 0;
}

static const struct vmstate_field pci_host_fields[] = {
    VMSTATE_UINT(struct pci_host, mechanism1.address),
    VMSTATE_END,
};

static const struct vmstate pci_host_vmstate = {
    .name = "pci-host-bridge",
    .version = 1,
    .minimum_version = 1,
    .fields = pci_host_fields,
};

const struct device_type pci_host_type = {
    .name = "pci-host-bridge",
    .description = "PCI host bridge",
    .category = DEVICE_CATEGORY_BRIDGE,
    .bus = "System",
    .abstract = true,
    .internal = true,
    .reset = pci_host_reset,
    .vmstate = &pci_host_vmstate,
};
