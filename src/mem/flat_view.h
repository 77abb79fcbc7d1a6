/* SPDX-License-Identifier: MIT */
/*
 * Flat views: a tree of regions as a sorted array of ranges. Internal to mem/.
 *
 * Immutable once built. Ends are inclusive: 2^64 bytes have a last byte but no 64-bit size.
 */
#ifndef FERRY_MEM_FLAT_VIEW_H
#define FERRY_MEM_FLAT_VIEW_H

#include "mem/address_space.h"

struct flat_range {
    uint64_t first, last;
    struct mem_region *region;
    uint64_t offset; /* of first, within region */
    uint8_t *host;   /* of first, if is_ram */
    bool is_ram;     /* reads come from host */
    bool readonly;   /* writes do not go to host */
    bool dirty_log;
};

struct flat_view {
    uint64_t id;   /* rises with every view that is built, over all address spaces */
    unsigned refs; /* machine lock: address spaces with the same view share it */
    struct mem_region *root;
    unsigned count;
    struct flat_range ranges[];
};

struct flat_eventfd {
    uint64_t address;
    struct mem_eventfd e;
};

struct flat_coalesced {
    uint64_t address, size;
};

/* Builds the view of a tree (NULL: empty), with one reference. Machine lock held. */
struct flat_view *flat_view_new(struct mem_region *root);
/* The region whose view is the same as root's but easier to share; NULL if it shows nothing. */
struct mem_region *flat_view_root(struct mem_region *root);
bool flat_view_same(const struct flat_view *a, const struct flat_view *b);

/* Index of the range that holds the address, or that of the next one above (possibly count). */
unsigned flat_view_lookup(const struct flat_view *view, uint64_t address);

/* The range that holds the address, or NULL. */
static inline const struct flat_range *flat_view_find(const struct flat_view *view,
                                                      uint64_t address)
{
    unsigned i = flat_view_lookup(view, address);

    return i < view->count && view->ranges[i].first <= address ? &view->ranges[i] : NULL;
}

/* Their order, for qsort(); 0 means the same. */
int flat_eventfd_compare(const void *a, const void *b);
int flat_coalesced_compare(const void *a, const void *b);

/* Sorted arrays of what the view shows, to be freed. */
struct flat_eventfd *flat_view_eventfds(const struct flat_view *view, unsigned *count);
struct flat_coalesced *flat_view_coalesced(const struct flat_view *view, unsigned *count);

struct mem_section flat_range_section(const struct flat_range *range);

#endif
