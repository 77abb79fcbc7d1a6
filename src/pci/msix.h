/* SPDX-License-Identifier: MIT */
/*
 * MSI-X and MSI (PCI 3.0, 6.8).
 *
 * A vector is signalled by msix_notify() from any thread: the message is sent unless the function
 * or the vector is masked; then its pending bit is set and the message goes out at unmask.
 *
 * With irqfd: msix_set_notifiers() gives each used vector an eventfd that KVM turns into the
 * interrupt. The notifier is attached to its route only while the vector is unmasked; masked, the
 * vector's eventfd is read by the pending-bit poll. Routes are committed once per batch.
 */
#ifndef FERRY_PCI_MSIX_H
#define FERRY_PCI_MSIX_H

#include "accel/accel.h"
#include "pci/pci.h"

struct event_notifier;

#define MSIX_MAX_VECTORS 2048

/* Table and pending bits within bar_index at the offsets; the BAR's container region is bar. */
bool msix_init(struct pci_device *pci, unsigned vectors, struct mem_region *bar, unsigned bar_index,
               uint32_t table_offset, uint32_t pba_offset, struct error **errp);
/* As msix_init() with a BAR of its own, registered here. */
bool msix_init_exclusive_bar(struct pci_device *pci, unsigned vectors, unsigned bar_index,
                             struct error **errp);
void msix_uninit(struct pci_device *pci);
void msix_reset(struct pci_device *pci);
bool msix_enabled(const struct pci_device *pci);
unsigned msix_vectors(const struct pci_device *pci);
/* Any thread. False: MSI-X is off, so the interrupt is INTx's. */
bool msix_notify(struct pci_device *pci, unsigned vector);
struct msi_message msix_message(const struct pci_device *pci, unsigned vector);

/*
 * Guest notifiers (irqfd) for a set of vectors. vector_of[i] is the vector that notifier[i]
 * signals, or 0xffff for none. Makes routes, adds irqfds for unmasked vectors, commits once.
 * False if the engine has no irqfd: then the caller handles the notifiers itself and calls
 * msix_notify(). Machine lock held.
 */
bool msix_set_notifiers(struct pci_device *pci, struct event_notifier *const notifiers[],
                        const uint16_t vector_of[], unsigned count);
/* What was set and did not become an interrupt is pending, or sent if its vector is unmasked. While
 * MSI-X is off it stays in the notifiers, for the caller. Machine lock held. */
void msix_clear_notifiers(struct pci_device *pci);

/* For state tables: the table (16 bytes a vector) and the pending bits (8 bytes per 64 vectors). */
void msix_save(const struct pci_device *pci, void *table, void *pending);
void msix_load(struct pci_device *pci, const void *table, const void *pending);

/* msi.c */
bool msi_init(struct pci_device *pci, unsigned vectors, bool is_64bit, bool maskable,
              struct error **errp);
void msi_uninit(struct pci_device *pci);
bool msi_enabled(const struct pci_device *pci);
void msi_notify(struct pci_device *pci, unsigned vector);

#endif
