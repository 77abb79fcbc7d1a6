/* SPDX-License-Identifier: MIT */
/*
 * Base address registers (PCI 3.0, 6.2.5): where a function's regions are in the memory map.
 *
 * BARs go into the bus's containers with a priority above what a machine puts there without one,
 * and may overlap each other: a guest that sizes them, or places them badly, never breaks the map.
 */
#include <assert.h>

#include "base/range.h"
#include "pci/internal.h"

#define BAR_PRIORITY 1

static unsigned bar_register(unsigned index)
{
    return index == PCI_ROM_BAR ? PCI_ROM_ADDRESS : PCI_BASE_ADDRESS_0 + index * 4;
}

void pci_register_bar(struct pci_device *pci, unsigned index, struct mem_region *region, bool is_io,
                      bool is_64bit, bool prefetchable)
{
    uint64_t size = region->size;
    unsigned reg = bar_register(index);
    uint32_t type = 0;

    assert(is_power_of_2(size) && size >= (is_io ? 4 : 16));
    assert(index < PCI_BAR_COUNT - is_64bit || (index == PCI_ROM_BAR && !is_io && !is_64bit));
    assert(!pci->bar[index].region);
    pci->bar[index] = (struct pci_bar){
        .region = region,
        .size = size,
        .is_io = is_io,
        .is_64bit = is_64bit,
        .prefetchable = prefetchable,
        .address = PCI_BAR_UNMAPPED,
    };
    if (is_io) {
        type = PCI_BASE_ADDRESS_SPACE_IO;
    } else if (index != PCI_ROM_BAR) {
        type = (is_64bit ? PCI_BASE_ADDRESS_MEM_TYPE_64 : PCI_BASE_ADDRESS_MEM_TYPE_32) |
               (prefetchable ? PCI_BASE_ADDRESS_MEM_PREFETCH : 0);
    }
    store_le32(pci->config + reg, type);
    if (is_64bit) {
        store_le64(pci->writable + reg, ~(size - 1));
        store_le32(pci->config + reg + 4, 0);
    } else {
        uint32_t enable = index == PCI_ROM_BAR ? PCI_ROM_ADDRESS_ENABLE : 0;
        store_le32(pci->writable + reg, (uint32_t) ~(size - 1) | enable);
    }
}

/* Where the configuration space says that a BAR is, or PCI_BAR_UNMAPPED. */
static uint64_t bar_address(const struct pci_device *pci, unsigned index)
{
    const struct pci_bar *bar = &pci->bar[index];
    const uint8_t *reg = pci->config + bar_register(index);
    uint16_t decode = bar->is_io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
    uint64_t limit = bar->is_io ? UINT16_MAX : bar->is_64bit ? UINT64_MAX : UINT32_MAX;
    uint64_t address = bar->is_64bit ? load_le64(reg) : load_le32(reg);

    if (!(pci_command(pci) & decode) ||
        (index == PCI_ROM_BAR && !(address & PCI_ROM_ADDRESS_ENABLE))) {
        return PCI_BAR_UNMAPPED;
    }
    address = align_down(address, bar->size);
    /* 0 is a BAR that nobody placed; one that ends at the top is being sized. */
    if (address == 0 || address >= limit - (bar->size - 1)) {
        return PCI_BAR_UNMAPPED;
    }
    return address;
}

static void set_mapping(struct pci_device *pci, struct pci_bar *bar, uint64_t address)
{
    struct mem_region *space = bar->is_io ? pci->bus->io : pci->bus->memory;

    if (bar->address == address) {
        return;
    }
    mem_transaction_begin();
    if (bar->address != PCI_BAR_UNMAPPED) {
        mem_region_remove(space, bar->region);
    }
    if (address != PCI_BAR_UNMAPPED) {
        mem_region_add_overlap(space, address, bar->region, BAR_PRIORITY);
    }
    bar->address = address;
    mem_transaction_commit();
}

void pci_update_mappings(struct pci_device *pci)
{
    for (unsigned i = 0; i < ARRAY_SIZE(pci->bar); i++) {
        if (pci->bar[i].region) {
            set_mapping(pci, &pci->bar[i], bar_address(pci, i));
        }
    }
}

void pci_unmap_bars(struct pci_device *pci)
{
    mem_transaction_begin();
    for (unsigned i = 0; i < ARRAY_SIZE(pci->bar); i++) {
        if (pci->bar[i].region) {
            set_mapping(pci, &pci->bar[i], PCI_BAR_UNMAPPED);
            pci->bar[i].region = NULL;
        }
    }
    mem_transaction_commit();
}
