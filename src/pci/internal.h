/* SPDX-License-Identifier: MIT */
/* What the files of pci/ share among themselves. Machine state: machine lock held. */
#ifndef FERRY_PCI_INTERNAL_H
#define FERRY_PCI_INTERNAL_H

#include <linux/pci_regs.h>

#include "base/bytes.h"
#include "pci/pci.h"

/* Device Control after reset: relaxed ordering and no-snoop enabled, 512 byte reads. */
#define PCIE_DEVCTL_RESET 0x2810

static inline uint16_t pci_command(const struct pci_device *pci)
{
    return load_le16(pci->config + PCI_COMMAND);
}

/* bus.c: finds a place (pci->addr, or the first free slot) and takes it; gives it back. */
bool pci_bus_take_place(struct pci_bus *bus, struct pci_device *pci, struct error **errp);
void pci_bus_leave_place(struct pci_device *pci);

/* bar.c: maps and unmaps BARs as the configuration space says. */
void pci_update_mappings(struct pci_device *pci);

/* intx.c: asserts INTx at the root bus as irq_level and the command register say. */
void pci_update_intx(struct pci_device *pci);

/* rom.c */
bool pci_rom_init(struct pci_device *pci, struct error **errp);
void pci_rom_destroy(struct pci_device *pci);

/* msi.c, msix.c: after a write to the configuration space. */
void msi_config_written(struct pci_device *pci, uint32_t offset, unsigned size);
void msix_config_written(struct pci_device *pci, uint32_t offset, unsigned size);
/* Before a read: its pending bits. */
void msi_config_reading(struct pci_device *pci);
void msi_reset(struct pci_device *pci);

#endif
