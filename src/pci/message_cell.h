/* SPDX-License-Identifier: MIT */
/*
 * The message of a vector: written with the machine lock held, read by any thread without one.
 *
 * A sequence lock: the writer makes `sequence` odd, stores the fields, makes it even. A reader that
 * saw an odd or a changed sequence tries again. No fences: the fields themselves are stored with
 * release and loaded with acquire, so that
 *   - whoever loads a new field also sees the odd sequence stored before it, and
 *   - the second load of the sequence does not move before the loads of the fields.
 */
#ifndef FERRY_PCI_MESSAGE_CELL_H
#define FERRY_PCI_MESSAGE_CELL_H

#include <stdatomic.h>

#include "accel/accel.h"

struct message_cell {
    _Atomic(uint32_t) sequence, address_low, address_high, data;
};

/* Machine lock held. */
static inline void message_cell_write(struct message_cell *cell, const struct msi_message *msg)
{
    uint32_t sequence = atomic_load_explicit(&cell->sequence, memory_order_relaxed);

    atomic_store_explicit(&cell->sequence, sequence + 1, memory_order_relaxed);
    atomic_store_explicit(&cell->address_low, (uint32_t)msg->address, memory_order_release);
    atomic_store_explicit(&cell->address_high, (uint32_t)(msg->address >> 32),
                          memory_order_release);
    atomic_store_explicit(&cell->data, msg->data, memory_order_release);
    atomic_store_explicit(&cell->sequence, sequence + 2, memory_order_release);
}

/* Any thread. */
static inline struct msi_message message_cell_read(struct message_cell *cell)
{
    for (;;) {
        uint32_t before = atomic_load_explicit(&cell->sequence, memory_order_acquire);
        uint32_t low = atomic_load_explicit(&cell->address_low, memory_order_acquire);
        uint32_t high = atomic_load_explicit(&cell->address_high, memory_order_acquire);
        uint32_t data = atomic_load_explicit(&cell->data, memory_order_acquire);
        uint32_t after = atomic_load_explicit(&cell->sequence, memory_order_relaxed);
        if (before == after && !(before & 1)) {
            return (struct msi_message){.address = (uint64_t)high << 32 | low, .data = data};
        }
    }
}

#endif
