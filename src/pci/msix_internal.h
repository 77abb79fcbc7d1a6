/* SPDX-License-Identifier: MIT */
/*
 * The state of MSI-X, shared by the table (msix.c) and the notifiers (msix_notifier.c).
 *
 * A vector is masked by its entry, by the function mask, or because MSI-X is off. Signalling and
 * unmasking race like Dekker's two flags: who signals a masked vector sets its pending bit, then
 * looks at the masks again; who unmasks changes the mask, then looks at the pending bit. All four
 * are sequentially consistent, so one of them sees the other, and the exchange of the pending bit
 * lets only one send.
 */
#ifndef FERRY_PCI_MSIX_INTERNAL_H
#define FERRY_PCI_MSIX_INTERNAL_H

#include "pci/internal.h"
#include "pci/message_cell.h"
#include "pci/msix.h"

struct msix_entry {
    struct message_cell message;
    _Atomic(uint32_t) control; /* bit 0: masked */
    /* machine state: the route of its notifiers */
    int gsi; /* -1: none */
    struct msi_message routed;
    bool attached; /* irqfds of its notifiers are with the engine */
};

struct msix_notifier {
    struct event_notifier *notifier;
    uint16_t vector;
};

struct msix {
    /* constant */
    unsigned vectors;
    uint8_t capability;
    unsigned bar_index;
    struct mem_region *bar;           /* container of the two */
    struct mem_region *exclusive_bar; /* the same, if it is ours; or NULL */
    struct mem_region table, pba;
    /* machine state */
    struct msix_notifier *notifier;
    unsigned notifier_count;
    /* atomic: enable and function mask, as in the message control word */
    _Atomic(uint16_t) control;
    _Atomic(uint64_t) pending[MSIX_MAX_VECTORS / 64];
    struct msix_entry entry[];
};

static inline bool msix_is_masked(struct msix *msix, unsigned vector)
{
    return (atomic_load(&msix->control) & (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL)) !=
               PCI_MSIX_FLAGS_ENABLE ||
           atomic_load(&msix->entry[vector].control) & PCI_MSIX_ENTRY_CTRL_MASKBIT;
}

/* True if the bit was set before. */
static inline bool msix_set_pending(struct msix *msix, unsigned vector)
{
    uint64_t bit = UINT64_C(1) << (vector % 64);

    return atomic_fetch_or(&msix->pending[vector / 64], bit) & bit;
}

static inline bool msix_take_pending(struct msix *msix, unsigned vector)
{
    uint64_t bit = UINT64_C(1) << (vector % 64);

    return atomic_load(&msix->pending[vector / 64]) & bit &&
           atomic_fetch_and(&msix->pending[vector / 64], ~bit) & bit;
}

/* Machine lock held. Sends what is pending, unless the vector is masked. */
void msix_send_pending(struct msix *msix, unsigned vector);
/* Machine lock held. The vector's notifiers were set while no irqfd listened: makes it pending. */
void msix_poll_notifiers(struct msix *msix, unsigned vector);
/* After every change of a mask or a message: attaches or detaches the vector's irqfds, renews its
 * route. */
void msix_update_notifiers(struct msix *msix, unsigned vector);
/* Before the mask of the whole function changes: all routes in one commit. */
void msix_renew_routes(struct msix *msix);

#endif
