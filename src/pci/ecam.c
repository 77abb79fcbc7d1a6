/* SPDX-License-Identifier: MIT */
/* Enhanced configuration access (PCIe 3.0, 7.2.2): a page of memory for each function. */
#include "base/range.h"
#include "pci/internal.h"

static struct pci_device *function_at(const struct pci_ecam *ecam, uint64_t offset)
{
    return pci_find(ecam->root, (uint8_t)(offset >> 20), (uint8_t)(offset >> 12));
}

static uint64_t ecam_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pci_device *pci = function_at(opaque, offset);

    return pci ? pci_config_read(pci, offset % PCIE_CONFIG_SIZE, size) : UINT32_MAX;
}

static void ecam_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pci_device *pci = function_at(opaque, offset);

    if (pci) {
        pci_config_write(pci, offset % PCIE_CONFIG_SIZE, (uint32_t)value, size);
    }
}

static const struct mem_region_ops ecam_ops = {
    .read = ecam_read,
    .write = ecam_write,
    .valid = {.min = 1, .max = 8},
    .impl = {.min = 1, .max = 4},
};

void pci_ecam_init(struct pci_ecam *ecam, struct pci_bus *root, unsigned buses)
{
    *ecam = (struct pci_ecam){.root = root, .buses = buses};
    mem_region_init_io(&ecam->region, "pcie-mmcfg-mmio", buses * MiB, &ecam_ops, ecam);
}

void pci_ecam_destroy(struct pci_ecam *ecam)
{
    mem_region_destroy(&ecam->region);
}
