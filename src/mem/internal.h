/* SPDX-License-Identifier: MIT */
/* What the files of mem/ share among themselves. */
#ifndef FERRY_MEM_INTERNAL_H
#define FERRY_MEM_INTERNAL_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "mem/address_space.h"
#include "mem/flat_view.h"
#include "mem/rcu.h"

/* ---- threads and read sides (machine_lock.c) ------------------------------------------------ */

struct mem_thread {
    unsigned registered; /* nested registrations; 0: this thread may not read */
    unsigned slot;       /* spreads per-block counters over cache lines */
};
extern _Thread_local struct mem_thread mem_thread;

static inline void mem_read_begin(void)
{
    assert(mem_thread.registered);
    mem_rcu_read_lock();
}

static inline void mem_read_end(void)
{
    mem_rcu_read_unlock();
}

/* ---- address spaces (address_space.c) ------------------------------------------------------- */

struct address_space {
    /* constant */
    char *name;
    struct mem_region *root;
    /* RCU: written with the machine lock held */
    struct flat_view *view;
    /* atomic: id of the view, changed after it */
    uint64_t generation;
    /* machine lock */
    struct mem_listener *listeners; /* by rising priority */
    struct flat_eventfd *eventfds;  /* those of view, sorted */
    unsigned eventfd_count;
    struct flat_coalesced *coalesced;
    unsigned coalesced_count;
    struct address_space *next;
};

extern struct address_space *address_spaces; /* machine lock */

/* The published view. Within a read side or with the machine lock held. */
static inline struct flat_view *address_space_view(struct address_space *as)
{
    return mem_rcu_load(as->view);
}

/* ---- listeners (listener.c) ----------------------------------------------------------------- */

/* What an address space shows, or showed. */
struct mem_state {
    const struct flat_view *view;
    const struct flat_eventfd *eventfds;
    unsigned eventfd_count;
    const struct flat_coalesced *coalesced;
    unsigned coalesced_count;
};

/* Tells a list of listeners what differs. */
void mem_listeners_tell(struct mem_listener *to, const struct mem_state *old,
                        const struct mem_state *new);

/* ---- transactions (address_space.c) --------------------------------------------------------- */

/* What changed since the last commit. Machine lock held, within a transaction. */
void mem_topology_changed(void);
void mem_extras_changed(void); /* eventfds and coalesced ranges only */
bool mem_transaction_open(void);
/* Frees p once no reader can hold it, at the end of the open transaction. */
void mem_free_later(void *p);

/* ---- dispatch (dispatch.c) ------------------------------------------------------------------ */

/* The eventfds of a region, immutable. */
struct mem_eventfds {
    unsigned count;
    struct mem_eventfd entries[];
};

unsigned mem_ops_valid_max(const struct mem_region_ops *ops);
/* Sets the notifier that waits for such a write, if there is one. Within a read side. */
bool mem_region_signal_eventfd(struct mem_region *mr, uint64_t offset, uint64_t value,
                               unsigned size);
/* The callbacks by their rules. The machine lock is held, or the region is lockless and counted
 * in mr->running. */
enum mem_result mem_region_call_read(struct mem_region *mr, uint64_t offset, uint64_t *value,
                                     unsigned size);
enum mem_result mem_region_call_write(struct mem_region *mr, uint64_t offset, uint64_t value,
                                      unsigned size);
/* True if a callback of this region is running in this thread. */
bool mem_region_is_running(const struct mem_region *mr);
/* True if one of this region, or of its device, is. */
bool mem_region_is_entered(const struct mem_region *mr);

/* ---- access (access.c) ---------------------------------------------------------------------- */

enum mem_access_flags {
    MEM_ACCESS_WRITE = 1,
    MEM_ACCESS_DMA = 2, /* never waits for the machine lock, never re-enters a device */
    MEM_ACCESS_RAM = 4, /* calls no region: what is not RAM is not there */
};
enum mem_result mem_access(struct address_space *as, uint64_t address, void *buf, uint64_t length,
                           unsigned flags);

/* ---- RAM (ram.c, ram_dirty.c) --------------------------------------------------------------- */

/* Within a read side. */
void ram_block_ref(struct ram_block *block);
/* True if it was the last of a dying block: then ram_block_release() follows, outside of the read
 * side. */
bool ram_block_unref(struct ram_block *block);
void ram_block_release(struct ram_block *block);

#endif
