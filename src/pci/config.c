/* SPDX-License-Identifier: MIT */
/* Access to a function's configuration space, by the host bridge (PCI 3.0, 6.1 and 6.2). */
#include <assert.h>

#include "base/range.h"
#include "pci/internal.h"

static uint32_t all_ones(unsigned size)
{
    return size == 4 ? UINT32_MAX : BIT(size * 8) - 1;
}

uint32_t pci_config_read(struct pci_device *pci, uint32_t offset, unsigned size)
{
    if (!range_fits(offset, size, pci->config_size)) {
        return all_ones(size);
    }
    msi_config_reading(pci);
    if (pci->class->config_read) {
        pci->class->config_read(pci, offset, size);
    }
    return (uint32_t)load_le(pci->config + offset, size);
}

void pci_config_write(struct pci_device *pci, uint32_t offset, uint32_t value, unsigned size)
{
    if (!range_fits(offset, size, pci->config_size)) {
        return;
    }
    for (unsigned i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)(value >> (i * 8));
        uint8_t writable = pci->writable[offset + i];
        uint8_t *to = &pci->config[offset + i];

        *to = (uint8_t)((*to & ~writable) | (byte & writable));
        *to &= (uint8_t) ~(byte & pci->clear_on_write[offset + i]);
    }
    bool command = range_overlaps(offset, size, PCI_COMMAND, 2);
    if (command || range_overlaps(offset, size, PCI_BASE_ADDRESS_0, 24) ||
        range_overlaps(offset, size, PCI_ROM_ADDRESS, 4)) {
        mem_transaction_begin();
        mem_region_set_enabled(&pci->bus_master_alias, pci_bus_master_enabled(pci));
        pci_update_mappings(pci);
        mem_transaction_commit();
    }
    if (command) {
        pci_update_intx(pci);
    }
    msi_config_written(pci, offset, size);
    msix_config_written(pci, offset, size);
    if (pci->class->config_written) {
        pci->class->config_written(pci, offset, size);
    }
}
