/* SPDX-License-Identifier: MIT */
/*
 * INTx: a function's level, the interrupt disable bit, the wires of the bus.
 *
 * Several functions share a line of the root bus; it is high while any of them asserts it. Behind
 * bridges the pins are rotated by the device number (PCI-to-PCI Bridge Architecture 1.2, 9.1).
 */
#include <assert.h>

#include "base/range.h"
#include "pci/internal.h"

void pci_set_interrupt_pin(struct pci_device *pci, unsigned pin)
{
    assert(pin >= 1 && pin <= 4);
    pci->config[PCI_INTERRUPT_PIN] = (uint8_t)pin;
}

static struct pci_bus *root_line(const struct pci_device *pci, unsigned *line)
{
    unsigned pin = pci->config[PCI_INTERRUPT_PIN] - 1u;
    uint8_t devfn = pci->devfn;
    struct pci_bus *bus = pci->bus;

    while (bus->bridge) {
        pin = (pin + PCI_SLOT(devfn)) % 4;
        devfn = bus->bridge->devfn;
        bus = bus->bridge->bus;
    }
    *line = bus->ops->map_irq(bus, devfn, pin);
    assert(*line < bus->irq_lines);
    return bus;
}

static struct pci_bus *root_of(struct pci_bus *bus)
{
    while (bus->bridge) {
        bus = bus->bridge->bus;
    }
    return bus;
}

void pci_update_intx(struct pci_device *pci)
{
    bool asserted = pci->irq_level && !(pci_command(pci) & PCI_COMMAND_INTX_DISABLE);

    if (pci->irq_level) {
        pci->config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
    } else {
        pci->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTERRUPT;
    }
    if (asserted == pci->irq_asserted) {
        return;
    }
    pci->irq_asserted = asserted;
    if (asserted) {
        struct pci_bus *root = root_line(pci, &pci->irq_line);
        if (root->irq_count[pci->irq_line]++ == 0) {
            root->ops->set_irq(root->opaque, pci->irq_line, 1);
        }
    } else {
        struct pci_bus *root = root_of(pci->bus);
        assert(root->irq_count[pci->irq_line]);
        if (--root->irq_count[pci->irq_line] == 0) {
            root->ops->set_irq(root->opaque, pci->irq_line, 0);
        }
    }
}

void pci_set_irq(struct pci_device *pci, int level)
{
    if (pci->config[PCI_INTERRUPT_PIN] == 0 || pci->irq_level == (level != 0)) {
        return;
    }
    pci->irq_level = level != 0;
    pci_update_intx(pci);
}
