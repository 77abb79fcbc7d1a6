/* SPDX-License-Identifier: MIT */
/*
 * MSI-X (PCI 3.0, 6.8.2): capability, table, pending bits, delivery. msix_internal.h has the
 * invariants.
 */
#include "pci/msix.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "pci/msix_internal.h"
#include "trace/trace.h"

#define ENTRY_SIZE PCI_MSIX_ENTRY_SIZE

static void send(struct msix *msix, unsigned vector)
{
    struct msi_message msg = message_cell_read(&msix->entry[vector].message);

    TRACE(msix_send, vector, msg.address, msg.data);
    accel_msi_send(&msg);
}

/* ---- delivery: any thread ------------------------------------------------------------------- */

bool msix_notify(struct pci_device *pci, unsigned vector)
{
    struct msix *msix = pci->msix;

    if (!msix_enabled(pci)) {
        return false;
    }
    if (vector >= msix->vectors) {
        return true;
    }
    if (msix_is_masked(msix, vector)) {
        msix_set_pending(msix, vector);
        /* Switched off, or unmasked meanwhile? Then one of us two sends. */
        if (!msix_enabled(pci)) {
            return !msix_take_pending(msix, vector);
        }
        if (msix_is_masked(msix, vector) || !msix_take_pending(msix, vector)) {
            return true;
        }
    }
    send(msix, vector);
    return true;
}

struct msi_message msix_message(const struct pci_device *pci, unsigned vector)
{
    assert(pci->msix && vector < pci->msix->vectors);
    return message_cell_read(&pci->msix->entry[vector].message);
}

bool msix_enabled(const struct pci_device *pci)
{
    return pci->msix && atomic_load(&pci->msix->control) & PCI_MSIX_FLAGS_ENABLE;
}

unsigned msix_vectors(const struct pci_device *pci)
{
    return pci->msix ? pci->msix->vectors : 0;
}

/* ---- masks: machine lock held --------------------------------------------------------------- */

void msix_send_pending(struct msix *msix, unsigned vector)
{
    if (!msix_is_masked(msix, vector) && msix_take_pending(msix, vector)) {
        send(msix, vector);
    }
}

static void mask_changed(struct msix *msix, unsigned vector)
{
    msix_update_notifiers(msix, vector);
    msix_send_pending(msix, vector);
}

void msix_config_written(struct pci_device *pci, uint32_t offset, unsigned size)
{
    struct msix *msix = pci->msix;

    if (!msix || !range_overlaps(offset, size, msix->capability + PCI_MSIX_FLAGS, 2)) {
        return;
    }
    uint16_t control = load_le16(pci->config + msix->capability + PCI_MSIX_FLAGS) &
                       (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    if (atomic_exchange(&msix->control, control) == control) {
        return;
    }
    msix_renew_routes(msix);
    for (unsigned v = 0; v < msix->vectors; v++) {
        mask_changed(msix, v);
    }
}

/* ---- the table ------------------------------------------------------------------------------ */

static uint64_t table_read(void *opaque, uint64_t offset, unsigned size)
{
    struct msix *msix = opaque;
    struct msix_entry *e = &msix->entry[offset / ENTRY_SIZE];
    struct msi_message msg = message_cell_read(&e->message);

    switch (offset % ENTRY_SIZE) {
    case PCI_MSIX_ENTRY_LOWER_ADDR:
        return (uint32_t)msg.address;
    case PCI_MSIX_ENTRY_UPPER_ADDR:
        return msg.address >> 32;
    case PCI_MSIX_ENTRY_DATA:
        return msg.data;
    default:
        return atomic_load(&e->control);
    }
}

static void table_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct msix *msix = opaque;
    unsigned vector = (unsigned)(offset / ENTRY_SIZE);
    struct msix_entry *e = &msix->entry[vector];
    struct msi_message msg = message_cell_read(&e->message);
    uint32_t word = (uint32_t)value;

    switch (offset % ENTRY_SIZE) {
    case PCI_MSIX_ENTRY_LOWER_ADDR:
        msg.address = (msg.address & ~UINT64_C(0xffffffff)) | (word & ~3u);
        break;
    case PCI_MSIX_ENTRY_UPPER_ADDR:
        msg.address = (msg.address & UINT32_MAX) | (uint64_t)word << 32;
        break;
    case PCI_MSIX_ENTRY_DATA:
        msg.data = word;
        break;
    default:
        word &= PCI_MSIX_ENTRY_CTRL_MASKBIT;
        if (atomic_exchange(&e->control, word) != word) {
            mask_changed(msix, vector);
        }
        return;
    }
    message_cell_write(&e->message, &msg);
    msix_update_notifiers(msix, vector);
}

static const struct mem_region_ops table_ops = {
    .read = table_read,
    .write = table_write,
    .valid = {.min = 4, .max = 8},
    .impl = {.min = 4, .max = 4},
};

static uint64_t pba_read(void *opaque, uint64_t offset, unsigned size)
{
    struct msix *msix = opaque;
    unsigned first = (unsigned)offset * 8;

    for (unsigned v = first; v < first + 64 && v < msix->vectors; v++) {
        msix_poll_notifiers(msix, v);
    }
    return atomic_load(&msix->pending[first / 64]);
}

static const struct mem_region_ops pba_ops = {
    .read = pba_read,
    .write = NULL, /* read-only */
    .valid = {.min = 4, .max = 8},
    .impl = {.min = 8, .max = 8},
};

/* ---- life ----------------------------------------------------------------------------------- */

static void reset_entries(struct msix *msix)
{
    static const struct msi_message none;

    for (unsigned v = 0; v < msix->vectors; v++) {
        message_cell_write(&msix->entry[v].message, &none);
        atomic_store(&msix->entry[v].control, PCI_MSIX_ENTRY_CTRL_MASKBIT);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(msix->pending); i++) {
        atomic_store(&msix->pending[i], 0);
    }
}

static bool check_layout(const struct pci_device *pci, unsigned vectors, uint64_t bar_size,
                         uint32_t table_offset, uint32_t pba_offset, struct error **errp)
{
    uint64_t table_size = (uint64_t)vectors * ENTRY_SIZE;
    uint64_t pba_size = (vectors + 63) / 64 * 8;

    if (vectors < 1 || vectors > MSIX_MAX_VECTORS) {
        error_set(errp, "%s: %u MSI-X vectors; a function can have 1 to %u", pci->dev.type->name,
                  vectors, MSIX_MAX_VECTORS);
        return false;
    }
    /* Offsets are the type's own. */
    assert(table_offset % 8 == 0 && pba_offset % 8 == 0);
    assert(range_fits(table_offset, table_size, bar_size));
    assert(range_fits(pba_offset, pba_size, bar_size));
    assert(!range_overlaps(table_offset, table_size, pba_offset, pba_size));
    return true;
}

bool msix_init(struct pci_device *pci, unsigned vectors, struct mem_region *bar, unsigned bar_index,
               uint32_t table_offset, uint32_t pba_offset, struct error **errp)
{
    if (!check_layout(pci, vectors, bar->size, table_offset, pba_offset, errp)) {
        return false;
    }
    struct msix *msix = xcalloc(1, sizeof(*msix) + vectors * sizeof(msix->entry[0]));
    msix->vectors = vectors;
    msix->bar_index = bar_index;
    msix->bar = bar;
    for (unsigned v = 0; v < vectors; v++) {
        msix->entry[v].gsi = -1;
    }
    reset_entries(msix);

    msix->capability = pci_add_capability(pci, PCI_CAP_ID_MSIX, PCI_CAP_MSIX_SIZEOF);
    uint8_t *cap = pci->config + msix->capability;
    store_le16(cap + PCI_MSIX_FLAGS, (uint16_t)(vectors - 1));
    store_le32(cap + PCI_MSIX_TABLE, table_offset | bar_index);
    store_le32(cap + PCI_MSIX_PBA, pba_offset | bar_index);
    store_le16(pci->writable + msix->capability + PCI_MSIX_FLAGS,
               PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);

    mem_region_init_io(&msix->table, "msix-table", (uint64_t)vectors * ENTRY_SIZE, &table_ops,
                       msix);
    mem_region_init_io(&msix->pba, "msix-pba", (vectors + 63) / 64 * 8, &pba_ops, msix);
    mem_transaction_begin();
    mem_region_add(bar, table_offset, &msix->table);
    mem_region_add(bar, pba_offset, &msix->pba);
    mem_transaction_commit();
    pci->msix = msix;
    return true;
}

bool msix_init_exclusive_bar(struct pci_device *pci, unsigned vectors, unsigned bar_index,
                             struct error **errp)
{
    autofree char *name = xasprintf("%s-msix", pci->dev.type->name);
    uint32_t pba_offset = 2 * KiB;
    uint64_t size = 4 * KiB;

    if (vectors >= 1 && vectors <= MSIX_MAX_VECTORS) {
        /* The table in the lower half, the pending bits in the upper one. */
        while (vectors * ENTRY_SIZE > pba_offset) {
            pba_offset *= 2;
            size *= 2;
        }
    }
    struct mem_region *bar = xnew(struct mem_region);
    mem_region_init_container(bar, name, size);
    if (!msix_init(pci, vectors, bar, bar_index, 0, pba_offset, errp)) {
        mem_region_destroy(bar);
        free(bar);
        return false;
    }
    pci->msix->exclusive_bar = bar;
    pci_register_bar(pci, bar_index, bar, false, false, false);
    return true;
}

void msix_uninit(struct pci_device *pci)
{
    struct msix *msix = pci->msix;

    if (!msix) {
        return;
    }
    msix_clear_notifiers(pci);
    mem_transaction_begin();
    mem_region_remove(msix->bar, &msix->table);
    mem_region_remove(msix->bar, &msix->pba);
    mem_transaction_commit();
    mem_region_destroy(&msix->table);
    mem_region_destroy(&msix->pba);
    if (msix->exclusive_bar) {
        mem_region_destroy(msix->exclusive_bar);
        free(msix->exclusive_bar);
    }
    pci->msix = NULL;
    free(msix);
}

void msix_reset(struct pci_device *pci)
{
    struct msix *msix = pci->msix;
    uint8_t *flags = pci->config + msix->capability + PCI_MSIX_FLAGS;

    store_le16(flags, load_le16(flags) & PCI_MSIX_FLAGS_QSIZE);
    atomic_store(&msix->control, 0);
    reset_entries(msix);
    for (unsigned v = 0; v < msix->vectors; v++) {
        msix_update_notifiers(msix, v);
    }
}

/* ---- state ---------------------------------------------------------------------------------- */

void msix_save(const struct pci_device *pci, void *table, void *pending)
{
    struct msix *msix = pci->msix;
    uint8_t *to = table;

    for (unsigned v = 0; v < msix->vectors; v++, to += ENTRY_SIZE) {
        struct msi_message msg = message_cell_read(&msix->entry[v].message);
        msix_poll_notifiers(msix, v);
        store_le64(to, msg.address);
        store_le32(to + PCI_MSIX_ENTRY_DATA, msg.data);
        store_le32(to + PCI_MSIX_ENTRY_VECTOR_CTRL, atomic_load(&msix->entry[v].control));
    }
    for (unsigned i = 0; i < (msix->vectors + 63) / 64; i++) {
        store_le64((uint8_t *)pending + i * 8, atomic_load(&msix->pending[i]));
    }
}

void msix_load(struct pci_device *pci, const void *table, const void *pending)
{
    struct msix *msix = pci->msix;
    const uint8_t *from = table;

    for (unsigned i = 0; i < (msix->vectors + 63) / 64; i++) {
        atomic_store(&msix->pending[i], load_le64((const uint8_t *)pending + i * 8));
    }
    for (unsigned v = 0; v < msix->vectors; v++, from += ENTRY_SIZE) {
        struct msi_message msg = {.address = load_le64(from) & ~UINT64_C(3),
                                  .data = load_le32(from + PCI_MSIX_ENTRY_DATA)};
        message_cell_write(&msix->entry[v].message, &msg);
        atomic_store(&msix->entry[v].control,
                     load_le32(from + PCI_MSIX_ENTRY_VECTOR_CTRL) & PCI_MSIX_ENTRY_CTRL_MASKBIT);
        mask_changed(msix, v);
    }
}
