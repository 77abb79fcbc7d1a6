/* SPDX-License-Identifier: MIT */
/*
 * How often each host cluster is referred to, counted anew from the tables. Memory goes by what is
 * referred to, not by the file's length nor by the highest offset in a table: pages of 64 counts in
 * a hash, one byte per count until one of the page outgrows that.
 *
 * A cluster can also be pinned: whatever its count, it must not be written to.
 *
 * One coroutine at a time.
 */
#ifndef FERRY_BLOCK_QCOW2_REFMAP_H
#define FERRY_BLOCK_QCOW2_REFMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "block/qcow2/hash.h"

#define REFMAP_PAGE_BITS 6
#define REFMAP_PAGE      (1u << REFMAP_PAGE_BITS) /* clusters */

struct refmap_page {
    uint64_t index;  /* its first cluster >> REFMAP_PAGE_BITS */
    uint64_t pinned; /* a bit for each cluster */
    uint64_t *wide;  /* the counts, or NULL: they are in narrow */
    uint8_t narrow[REFMAP_PAGE];
};

struct refmap {
    struct refmap_page **slots; /* open addressing */
    unsigned slot_bits;         /* 1 << slot_bits of them */
    struct qcow2_hash hash;     /* of pages by index */
    size_t page_count;
    struct refmap_page *last; /* found last */
    uint64_t max;             /* counts stay at or below it */
};

void refmap_init(struct refmap *map, uint64_t max);
void refmap_destroy(struct refmap *map);

struct refmap_page *refmap_find(struct refmap *map, uint64_t index); /* or NULL */

static inline uint64_t refmap_page_count(const struct refmap_page *page, unsigned i)
{
    return page->wide ? page->wide[i] : page->narrow[i];
}

uint64_t refmap_get(struct refmap *map, uint64_t cluster);
void refmap_set(struct refmap *map, uint64_t cluster, uint64_t count);
/* Returns what did not fit below max. */
uint64_t refmap_add(struct refmap *map, uint64_t cluster, uint64_t n);
bool refmap_is_pinned(struct refmap *map, uint64_t cluster);
void refmap_pin(struct refmap *map, uint64_t cluster);
/* Neither referred to nor pinned. */
bool refmap_is_free(struct refmap *map, uint64_t cluster);

/* All pages, lowest first; the caller frees the array. */
struct refmap_page **refmap_sorted(const struct refmap *map);

#endif
