/* SPDX-License-Identifier: MIT */
/*
 * MSI (PCI 3.0, 6.8.1): up to 32 messages that differ in the low bits of their data.
 *
 * Written by the guest in the configuration space (machine lock); msi_notify() reads atomic copies
 * and may come from any thread. Masks and pending bits follow the rules of msix_internal.h.
 */
#include <assert.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/range.h"
#include "pci/internal.h"
#include "pci/message_cell.h"
#include "pci/msix.h"

struct msi {
    /* constant */
    unsigned vectors;
    uint8_t capability;
    bool is_64bit, maskable;
    /* atomic */
    struct message_cell message;
    _Atomic(unsigned) enabled; /* number of vectors the guest allowed, 0: off */
    _Atomic(uint32_t) mask, pending;
};

static unsigned data_offset(const struct msi *msi)
{
    return msi->is_64bit ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32;
}

static unsigned mask_offset(const struct msi *msi)
{
    return msi->is_64bit ? PCI_MSI_MASK_64 : PCI_MSI_MASK_32;
}

static unsigned capability_size(const struct msi *msi)
{
    if (msi->maskable) {
        return mask_offset(msi) + 8;
    }
    return data_offset(msi) + 2;
}

bool msi_init(struct pci_device *pci, unsigned vectors, bool is_64bit, bool maskable,
              struct error **errp)
{
    if (!is_power_of_2(vectors) || vectors > 32) {
        error_set(errp, "%s: %u MSI vectors; a function can have 1, 2, 4, 8, 16 or 32",
                  pci->dev.type->name, vectors);
        return false;
    }
    struct msi *msi = xnew(struct msi);
    msi->vectors = vectors;
    msi->is_64bit = is_64bit;
    msi->maskable = maskable;
    msi->capability = pci_add_capability(pci, PCI_CAP_ID_MSI, capability_size(msi));

    uint16_t log2 = (uint16_t)__builtin_ctz(vectors);
    uint8_t *cap = pci->config + msi->capability;
    uint8_t *writable = pci->writable + msi->capability;
    store_le16(cap + PCI_MSI_FLAGS, (uint16_t)(log2 << 1 | (is_64bit ? PCI_MSI_FLAGS_64BIT : 0) |
                                               (maskable ? PCI_MSI_FLAGS_MASKBIT : 0)));
    store_le16(writable + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE);
    store_le32(writable + PCI_MSI_ADDRESS_LO, ~3u);
    if (is_64bit) {
        store_le32(writable + PCI_MSI_ADDRESS_HI, UINT32_MAX);
    }
    store_le16(writable + data_offset(msi), UINT16_MAX);
    if (maskable) {
        store_le32(writable + mask_offset(msi), UINT32_MAX >> (32 - vectors));
    }
    pci->msi = msi;
    return true;
}

void msi_uninit(struct pci_device *pci)
{
    free(pci->msi);
    pci->msi = NULL;
}

bool msi_enabled(const struct pci_device *pci)
{
    return pci->msi && atomic_load(&pci->msi->enabled);
}

/* ---- delivery: any thread ------------------------------------------------------------------- */

static void send(struct msi *msi, unsigned vector, unsigned allowed)
{
    struct msi_message msg = message_cell_read(&msi->message);

    msg.data = (msg.data & ~(allowed - 1)) | vector;
    accel_msi_send(&msg);
}

void msi_notify(struct pci_device *pci, unsigned vector)
{
    struct msi *msi = pci->msi;
    unsigned allowed = msi ? atomic_load(&msi->enabled) : 0;

    if (!allowed) {
        return;
    }
    /* A function with fewer messages than it wants uses the first ones for several things. */
    vector &= allowed - 1;
    if (atomic_load(&msi->mask) & BIT(vector)) {
        atomic_fetch_or(&msi->pending, BIT(vector));
        if (atomic_load(&msi->mask) & BIT(vector) ||
            !(atomic_fetch_and(&msi->pending, ~BIT(vector)) & BIT(vector))) {
            return;
        }
    }
    send(msi, vector, allowed);
}

/* ---- configuration: machine lock held ------------------------------------------------------- */

void msi_config_written(struct pci_device *pci, uint32_t offset, unsigned size)
{
    struct msi *msi = pci->msi;

    if (!msi || !range_overlaps(offset, size, msi->capability, capability_size(msi))) {
        return;
    }
    const uint8_t *cap = pci->config + msi->capability;
    uint16_t flags = load_le16(cap + PCI_MSI_FLAGS);
    struct msi_message msg = {
        .address = load_le32(cap + PCI_MSI_ADDRESS_LO),
        .data = load_le16(cap + data_offset(msi)),
    };
    if (msi->is_64bit) {
        msg.address |= (uint64_t)load_le32(cap + PCI_MSI_ADDRESS_HI) << 32;
    }
    unsigned wanted = 1u << ((flags & PCI_MSI_FLAGS_QSIZE) >> 4);
    unsigned allowed = flags & PCI_MSI_FLAGS_ENABLE ? MIN(wanted, msi->vectors) : 0;
    message_cell_write(&msi->message, &msg);
    atomic_store(&msi->mask, msi->maskable ? load_le32(cap + mask_offset(msi)) : 0);
    atomic_store(&msi->enabled, allowed);
    for (unsigned v = 0; v < allowed; v++) {
        if (!(atomic_load(&msi->mask) & BIT(v)) &&
            atomic_fetch_and(&msi->pending, ~BIT(v)) & BIT(v)) {
            send(msi, v, allowed);
        }
    }
}

void msi_config_reading(struct pci_device *pci)
{
    struct msi *msi = pci->msi;

    if (msi && msi->maskable) {
        store_le32(pci->config + msi->capability + mask_offset(msi) + 4,
                   atomic_load(&msi->pending));
    }
}

void msi_reset(struct pci_device *pci)
{
    struct msi *msi = pci->msi;

    if (!msi) {
        return;
    }
    for (unsigned i = 0; i < capability_size(msi); i++) {
        pci->config[msi->capability + i] &= (uint8_t)~pci->writable[msi->capability + i];
    }
    atomic_store(&msi->pending, 0);
    msi_config_written(pci, msi->capability, 4);
}
