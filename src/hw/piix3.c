/* SPDX-License-Identifier: MIT */
#include "base/range.h"
#include "device/vmstate.h"
#include "hw/isa.h"
#include "hw/pci_host.h"
#include "hw/piix.h"
#include "hw/reset_control.h"
#include "mem/address_space.h"

#define PIRQ_COUNT    4
#define ROUTE_OFF     0x80
#define ROUTE_IRQ     0x0f
#define ROUTE_MASK    (ROUTE_OFF | ROUTE_IRQ)
#define XBUS_SELECT   0x4e
#define TOP_OF_MEMORY 0x69

struct piix3 {
    struct pci_device pci;
    /* constant after realize */
    struct gsi_state *gsi;
    struct isa_bus isa;
    /* machine state */
    struct reset_control reset_control;
    uint8_t pirq_level; /* bit per PIRQ */
    uint16_t irq_level; /* ISA interrupts that PIRQs hold high */
};

/* ---- interrupt router ----------------------------------------------------------------------- */

/* An ISA interrupt is high while any PIRQ that is routed to it is. */
static void update_irqs(struct piix3 *d)
{
    uint16_t level = 0;

    for (unsigned i = 0; i < PIRQ_COUNT; i++) {
        uint8_t route = d->pci.config[PIIX3_PIRQ_ROUTE + i];
        if (d->pirq_level & 1u << i && !(route & ROUTE_OFF)) {
            level |= (uint16_t)(1u << (route & ROUTE_IRQ));
        }
    }
    uint16_t changed = level ^ d->irq_level;
    d->irq_level = level;
    for (unsigned i = 0; i < ISA_IRQ_COUNT; i++) {
        if (changed & 1u << i) {
            irq_set(&d->gsi->pirq[i], level >> i & 1);
        }
    }
}

static void set_irq(void *opaque, unsigned line, int level)
{
    struct piix3 *d = opaque;
    uint8_t bit = (uint8_t)(1u << (line % PIRQ_COUNT));

    d->pirq_level = level ? d->pirq_level | bit : (uint8_t)(d->pirq_level & ~bit);
    update_irqs(d);
}

unsigned piix3_pirq_of(unsigned slot, unsigned pin)
{
    return (slot + pin + PIRQ_COUNT - 1) % PIRQ_COUNT;
}

static unsigned map_irq(void *opaque, uint8_t devfn, unsigned pin)
{
    return piix3_pirq_of(PCI_SLOT(devfn), pin);
}

/* ---- device --------------------------------------------------------------------------------- */

static void config_written(struct pci_device *pci, uint32_t offset, unsigned size)
{
    if (range_overlaps(offset, size, PIIX3_PIRQ_ROUTE, PIRQ_COUNT)) {
        update_irqs((struct piix3 *)pci);
    }
}

static bool piix3_realize(struct device *dev, struct error **errp)
{
    struct piix3 *d = (struct piix3 *)dev;
    struct pci_host *host = pci_host_of(d->pci.bus);
    struct pci_irq_router router = {map_irq, set_irq, d};

    for (unsigned i = 0; i < PIRQ_COUNT; i++) {
        d->pci.writable[PIIX3_PIRQ_ROUTE + i] = ROUTE_MASK;
    }
    d->pci.writable[XBUS_SELECT] = d->pci.writable[XBUS_SELECT + 1] = 0xff;
    d->pci.writable[TOP_OF_MEMORY] = 0xff;
    isa_bus_init(&d->isa, dev, host->memory, host->io, d->gsi->line);
    reset_control_init(&d->reset_control, host->io, &host->mechanism1.address_port);
    pci_host_set_router(d->pci.bus, &router);
    return true;
}

static void piix3_unrealize(struct device *dev)
{
    struct piix3 *d = (struct piix3 *)dev;
    struct pci_irq_router none = {0};

    pci_host_set_router(d->pci.bus, &none);
    reset_control_destroy(&d->reset_control);
    isa_bus_destroy(&d->isa);
}

static void piix3_reset(struct device *dev)
{
    struct piix3 *d = (struct piix3 *)dev;

    for (unsigned i = 0; i < PIRQ_COUNT; i++) {
        d->pci.config[PIIX3_PIRQ_ROUTE + i] = ROUTE_OFF;
    }
    d->pci.config[XBUS_SELECT] = 0x03;
    d->pci.config[XBUS_SELECT + 1] = 0;
    d->pci.config[TOP_OF_MEMORY] = 0x02;
    d->reset_control.value = 0;
    update_irqs(d);
}

static const struct vmstate_field piix3_fields[] = {
    VMSTATE_SUB(struct piix3, pci, pci_device_vmstate, 1),
    VMSTATE_UINT(struct piix3, reset_control.value),
    VMSTATE_UINT(struct piix3, pirq_level),
    VMSTATE_UINT(struct piix3, irq_level),
    VMSTATE_END,
};

static const struct vmstate piix3_vmstate = {
    .name = "PIIX3",
    .version = 1,
    .minimum_version = 1,
    .fields = piix3_fields,
};

static const struct pci_device_class piix3_class = {
    .vendor_id = 0x8086,
    .device_id = 0x7000,
    .class_code = 0x060100,
    .subsystem_vendor_id = 0x1af4,
    .subsystem_id = 0x1100,
    .config_written = config_written,
};

const struct device_type piix3_type = {
    .name = "PIIX3",
    .parent = &pci_device_type,
    .description = "ISA bridge",
    .category = DEVICE_CATEGORY_BRIDGE,
    .size = sizeof(struct piix3),
    .internal = true,
    .class = &piix3_class,
    .realize = piix3_realize,
    .unrealize = piix3_unrealize,
    .reset = piix3_reset,
    .vmstate = &piix3_vmstate,
};

struct pci_device *piix3_new(struct pci_bus *bus, struct gsi_state *gsi, struct error **errp)
{
    struct piix3 *d = (struct piix3 *)device_new(&piix3_type);

    d->gsi = gsi;
    d->pci.addr = PCI_DEVFN(1, 0);
    d->pci.multifunction = true;
    if (!device_realize(&d->pci.dev, &bus->bus, errp)) {
        device_free(&d->pci.dev);
        return NULL;
    }
    return &d->pci;
}

struct bus *piix3_isa_bus(struct pci_device *piix3)
{
    return &((struct piix3 *)piix3)->isa.bus;
}
