/* SPDX-License-Identifier: MIT */
/*
 * Dirty bitmaps: which parts of a node were written since some time. Writes to the node set bits
 * (io.c calls block_bitmaps_mark() before a write is reported), as long as the bitmap is enabled
 * and is not a read-only one.
 *
 *   node --bitmaps--> "b0" (granularity 64 KiB) --> "b1"
 *
 * A persistent bitmap is kept in the image by its format (image.h, keep_bitmaps).
 *
 * The list changes on the main loop with no request in flight; bits are set by any loop,
 * atomically.
 */
#ifndef FERRY_BLOCK_BITMAP_H
#define FERRY_BLOCK_BITMAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "block/node.h"

#define BLOCK_BITMAP_NAME_MAX        1023  /* bytes, qcow2 */
#define BLOCK_BITMAP_GRANULARITY     65536 /* by default, at most */
#define BLOCK_BITMAP_GRANULARITY_MIN 512
#define BLOCK_BITMAP_GRANULARITY_MAX (UINT32_C(1) << 31)

struct block_bitmap {
    /* constant */
    char *name;
    uint32_t granularity; /* bytes, power of 2 */
    bool persistent;      /* set by who makes it */
    /* main loop, no request in flight */
    bool enabled;
    bool inconsistent; /* was in use when a process died: its bits mean nothing */
    uint64_t length;   /* bytes covered: the node's */
    void *kept;        /* its format's, with persistent ones */
    struct block_bitmap *next;
    /* atomic */
    _Atomic(bool) changed;    /* since its format loaded or kept it */
    _Atomic(uint64_t) *words; /* bit n: [n, n + 1) * granularity */
};

/* granularity 0: the default, from the format's cluster size. Errors: name taken, granularity no power of 2 or out of bounds. */
struct block_bitmap *block_bitmap_new(struct block_node *node, const char *name,
                                      uint32_t granularity, struct error **errp);
/* For formats that load many, whose names they have checked: behind `last`, the last one of the list
 * (NULL: it is empty). Not usable: inconsistent, without bits. NULL: it would be too large. */
struct block_bitmap *block_bitmap_add(struct block_node *node, struct block_bitmap *last,
                                      const char *name, uint32_t granularity, bool usable);
void block_bitmap_free(struct block_node *node, struct block_bitmap *bitmap);
void block_bitmaps_free(struct block_node *node);
struct block_bitmap *block_bitmap_find(struct block_node *node, const char *name);
/* Sets (or clears) what the range touches (or wholly covers). Any loop. */
void block_bitmap_set(struct block_bitmap *bitmap, uint64_t offset, uint64_t length);
void block_bitmap_clear(struct block_bitmap *bitmap, uint64_t offset, uint64_t length);
bool block_bitmap_get(const struct block_bitmap *bitmap, uint64_t offset);
/* The first dirty byte at or behind offset, and how far it goes; false if there is none. */
bool block_bitmap_next_dirty(const struct block_bitmap *bitmap, uint64_t offset, uint64_t *start,
                             uint64_t *length);
uint64_t block_bitmap_count(const struct block_bitmap *bitmap); /* dirty bytes */
/* Sets in `to` all that is dirty in `from`; granularities may differ, lengths not. */
bool block_bitmap_merge(struct block_bitmap *to, const struct block_bitmap *from,
                        struct error **errp);
/* After the node's length changed. New parts are clean. */
void block_bitmaps_resize(struct block_node *node, uint64_t length);
void block_bitmaps_mark_slow(struct block_node *node, uint64_t offset, uint64_t length);

/* The node has other contents there. Any loop. */
static inline void block_bitmaps_mark(struct block_node *node, uint64_t offset, uint64_t length)
{
    if (__builtin_expect(!!atomic_load_explicit(&node->bitmaps, memory_order_relaxed), 0)) {
        block_bitmaps_mark_slow(node, offset, length);
    }
}

#endif
