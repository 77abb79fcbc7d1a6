/* SPDX-License-Identifier: MIT */
/*
 * Lists of capabilities: in the first 256 bytes (PCI 3.0, 6.7) and, on express buses, the extended
 * ones from 256 on (PCIe 3.0, 7.9). Both are laid out in the order in which they are added.
 */
#include <assert.h>

#include "base/range.h"
#include "pci/internal.h"

uint8_t pci_add_capability(struct pci_device *pci, uint8_t id, unsigned size)
{
    uint16_t offset = pci->next_capability;
    uint8_t *link = &pci->config[PCI_CAPABILITY_LIST];

    /* The sizes are the type's own, no guest's or user's. */
    assert(size >= 2 && offset + size <= PCI_CONFIG_SIZE);
    while (*link) {
        link = &pci->config[*link + PCI_CAP_LIST_NEXT];
    }
    *link = (uint8_t)offset;
    pci->config[offset + PCI_CAP_LIST_ID] = id;
    pci->config[offset + PCI_CAP_LIST_NEXT] = 0;
    pci->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
    pci->next_capability = (uint16_t)align_up(offset + size, 4);
    return (uint8_t)offset;
}

uint16_t pcie_add_extended_capability(struct pci_device *pci, uint16_t id, uint8_t version,
                                      unsigned size)
{
    uint16_t offset = MAX(pci->next_extended_capability, PCI_CONFIG_SIZE);

    assert(pci->config_size == PCIE_CONFIG_SIZE && size >= 4 && offset + size <= PCIE_CONFIG_SIZE);
    if (pci->last_extended_capability) {
        uint8_t *last = pci->config + pci->last_extended_capability;
        store_le32(last, load_le32(last) | (uint32_t)offset << 20);
    }
    store_le32(pci->config + offset, id | (uint32_t)version << 16);
    pci->last_extended_capability = offset;
    pci->next_extended_capability = (uint16_t)align_up(offset + size, 4);
    return offset;
}

/* PCIe 3.0, 7.8. Without a link: a root complex integrated endpoint has none, and behind a port
 * the model's link is always up at its only speed. */
void pcie_add_capability(struct pci_device *pci)
{
    bool at_root = !pci->bus->bridge;

    if (pci->config_size != PCIE_CONFIG_SIZE) {
        return;
    }
    uint8_t at = pci_add_capability(pci, PCI_CAP_ID_EXP, PCI_CAP_EXP_ENDPOINT_SIZEOF_V2);
    uint8_t *cap = pci->config + at;
    uint8_t *writable = pci->writable + at;
    pci->express_capability = at;
    unsigned type = at_root ? PCI_EXP_TYPE_RC_END : PCI_EXP_TYPE_ENDPOINT;
    store_le16(cap + PCI_EXP_FLAGS, (uint16_t)(2 | type << 4));
    store_le32(cap + PCI_EXP_DEVCAP, PCI_EXP_DEVCAP_RBER);
    store_le16(cap + PCI_EXP_DEVCTL, PCIE_DEVCTL_RESET);
    store_le16(writable + PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_CERE | PCI_EXP_DEVCTL_NFERE |
                                              PCI_EXP_DEVCTL_FERE | PCI_EXP_DEVCTL_URRE |
                                              PCI_EXP_DEVCTL_RELAX_EN | PCI_EXP_DEVCTL_PAYLOAD |
                                              PCI_EXP_DEVCTL_NOSNOOP_EN | PCI_EXP_DEVCTL_READRQ);
    store_le16(pci->clear_on_write + at + PCI_EXP_DEVSTA,
               PCI_EXP_DEVSTA_CED | PCI_EXP_DEVSTA_NFED | PCI_EXP_DEVSTA_FED | PCI_EXP_DEVSTA_URD);
    if (!at_root) {
        uint16_t link = PCI_EXP_LNKSTA_CLS_2_5GB | PCI_EXP_LNKSTA_NLW_X1;
        store_le32(cap + PCI_EXP_LNKCAP, PCI_EXP_LNKCAP_SLS_2_5GB | 1 << 4);
        store_le16(cap + PCI_EXP_LNKSTA, link);
        store_le16(cap + PCI_EXP_LNKCTL2, PCI_EXP_LNKCTL2_TLS_2_5GT);
    }
}
