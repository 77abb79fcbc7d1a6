/* SPDX-License-Identifier: MIT */
/*
 * New refcount blocks and a new refcount table for the counts of a rebuild. They count themselves:
 * a block may lie among the clusters of another one that is not there yet, and the table, once there
 * is room for it, may need a block too. So room is made until nothing is missing.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "block/qcow2/direct.h"
#include "block/qcow2/rebuild_int.h"
#include "block/qcow2/refdisk.h"

/* Clusters of a block, as a power of 2; at least a page of the map. */
static unsigned block_bits(const struct rebuild *r)
{
    return r->s->cluster_bits + 3 - r->plan->refcount_order;
}

static bool has_counts(const struct refmap_page *page)
{
    for (unsigned i = 0; i < REFMAP_PAGE; i++) {
        if (refmap_page_count(page, i)) {
            return true;
        }
    }
    return false;
}

static uint64_t block_of(const struct rebuild *r, const struct refmap_page *page)
{
    return page->index >> (block_bits(r) - REFMAP_PAGE_BITS);
}

/* The table gets longer, filled with zeroes. */
static int grow_table(struct rebuild *r, uint64_t entries)
{
    uint64_t size = qcow2_align_cluster(r->s, entries * 8) / 8;

    if (size <= r->reftable_size) {
        return 0;
    }
    if (size * 8 > MAX(QCOW2_MAX_REFTABLE_BYTES, r->s->cluster_size)) {
        return -EFBIG;
    }
    r->reftable = xreallocarray(r->reftable, size, sizeof(*r->reftable));
    for (uint64_t i = r->reftable_size; i < size; i++) {
        r->reftable[i] = 0;
    }
    r->reftable_size = (uint32_t)size;
    return 0;
}

/* Room for blocks of all counts that have none. 1 if there were any, 0, or negative errno. */
static int make_blocks(struct rebuild *r)
{
    size_t count = r->scan.refs.page_count;
    struct refmap_page **pages = refmap_sorted(&r->scan.refs);
    int ret = 0;

    for (size_t i = 0; i < count && ret >= 0; i++) {
        uint64_t block = block_of(r, pages[i]);
        if ((block < r->reftable_size && r->reftable[block]) || !has_counts(pages[i])) {
            continue;
        }
        ret = grow_table(r, block + 1);
        if (ret == 0) {
            int64_t offset = rebuild_alloc(r, r->s->cluster_size, 1);
            r->reftable[block] = offset < 0 ? 0 : (uint64_t)offset;
            ret = offset < 0 ? (int)offset : 1;
        }
    }
    free(pages);
    return ret;
}

static int make_room(struct rebuild *r)
{
    uint32_t room = 0; /* entries of the table that there is room for */

    for (;;) {
        int ret = make_blocks(r);
        if (ret < 0) {
            return ret;
        }
        if (ret) {
            continue;
        }
        if (room >= r->reftable_size) {
            return 0;
        }
        for (uint64_t at = 0; at < (uint64_t)room * 8; at += r->s->cluster_size) {
            refmap_set(&r->scan.refs, (r->reftable_offset + at) >> r->s->cluster_bits, 0);
        }
        room = r->reftable_size;
        int64_t offset = rebuild_alloc(r, (uint64_t)room * 8, 1);
        if (offset < 0) {
            return (int)offset;
        }
        r->reftable_offset = (uint64_t)offset;
    }
}

/* ---- writing --------------------------------------------------------------------------------- */

static void encode_page(struct rebuild *r, const struct refmap_page *page, uint8_t *block)
{
    uint64_t first = page->index << REFMAP_PAGE_BITS & (BIT64(block_bits(r)) - 1);

    for (unsigned i = 0; i < REFMAP_PAGE; i++) {
        refcount_store(block, r->plan->refcount_order, first + i, refmap_page_count(page, i));
    }
}

static int co_write_blocks(struct rebuild *r)
{
    struct refmap_page **pages = refmap_sorted(&r->scan.refs);
    size_t count = r->scan.refs.page_count, i = 0;
    uint8_t *data = xmalloc(r->s->cluster_size);
    int ret = 0;

    for (uint64_t block = 0; block < r->reftable_size && ret == 0; block++) {
        if (!r->reftable[block]) {
            continue;
        }
        memset(data, 0, r->s->cluster_size);
        while (i < count && block_of(r, pages[i]) < block) {
            i++; /* no counts in them */
        }
        for (; i < count && block_of(r, pages[i]) == block; i++) {
            encode_page(r, pages[i], data);
        }
        ret = co_direct_write(r->node, r->reftable[block], data, r->s->cluster_size);
    }
    free(data);
    free(pages);
    return ret;
}

static int co_write_table(struct rebuild *r)
{
    uint64_t bytes = (uint64_t)r->reftable_size * 8;
    uint64_t *table = xmalloc(bytes);

    for (uint32_t i = 0; i < r->reftable_size; i++) {
        store_be64(&table[i], r->reftable[i]);
    }
    int ret = co_direct_write(r->node, r->reftable_offset, table, bytes);
    free(table);
    return ret;
}

int co_rebuild_refcounts(struct rebuild *r, struct error **errp)
{
    int ret = make_room(r);

    if (ret == 0) {
        ret = co_write_blocks(r);
    }
    if (ret == 0) {
        ret = co_write_table(r);
    }
    if (ret < 0) {
        error_set_errno(errp, -ret, "Could not write new refcounts of '%s'", r->node->filename);
    }
    return ret;
}
