/* SPDX-License-Identifier: MIT */
/*
 * Refcounts: looked up and changed in the cache's slices; new refcount blocks, a longer refcount
 * table. All with the image's lock held.
 *
 * A range of clusters without a refcount block has refcounts of 0. A new block lies where its caller
 * says, mostly in the range that it counts, and then counts itself. It is zeroes on disk before the
 * table points to it, and the table before a count in it is needed (commit.c).
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "block/qcow2/refcount.h"

/* ---- numbers of 1 to 64 bits ------------------------------------------------------------------ */

uint64_t qcow2_refcount_load(const void *slice, size_t index, unsigned order)
{
    const uint8_t *p = slice;

    switch (order) {
    case 3:
        return p[index];
    case 4:
        return load_be16(p + index * 2);
    case 5:
        return load_be32(p + index * 4);
    case 6:
        return load_be64(p + index * 8);
    default: {
        unsigned per_byte = 8u >> order, bits = 1u << order;
        return p[index / per_byte] >> (index % per_byte * bits) & ((1u << bits) - 1);
    }
    }
}

void qcow2_refcount_store(void *slice, size_t index, unsigned order, uint64_t value)
{
    uint8_t *p = slice;

    switch (order) {
    case 3:
        p[index] = (uint8_t)value;
        break;
    case 4:
        store_be16(p + index * 2, (uint16_t)value);
        break;
    case 5:
        store_be32(p + index * 4, (uint32_t)value);
        break;
    case 6:
        store_be64(p + index * 8, value);
        break;
    default: {
        unsigned per_byte = 8u >> order, bits = 1u << order;
        unsigned shift = (unsigned)(index % per_byte) * bits;
        uint8_t mask = (uint8_t)(((1u << bits) - 1) << shift);
        p[index / per_byte] = (uint8_t)((p[index / per_byte] & ~mask) | (value << shift & mask));
    }
    }
}

/* ---- where a count is ------------------------------------------------------------------------ */

bool qcow2_has_refblock(const struct qcow2_state *s, uint64_t cluster)
{
    uint64_t range = cluster >> s->refblock_bits;

    return range < s->reftable_size && s->reftable[range] & QCOW2_REFTABLE_OFFSET_MASK;
}

int co_qcow2_refcount_slice(struct block_node *node, uint64_t cluster, struct qcow2_slice **slice,
                            size_t *index, size_t *count)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t range = cluster >> s->refblock_bits;
    uint64_t in_block = cluster & ((UINT64_C(1) << s->refblock_bits) - 1);
    size_t per_slice = (size_t)s->refcount_cache.slice_size * 8 >> s->refcount_order;

    uint64_t entry = s->reftable[range], offset = entry & QCOW2_REFTABLE_OFFSET_MASK;
    if (offset & (s->cluster_size - 1) || entry & QCOW2_REFTABLE_RESERVED ||
        !range_fits(offset, s->cluster_size, INT64_MAX)) {
        qcow2_signal_corruption(node, true, s->reftable_offset + range * 8, 0,
                                "Refblock offset 0x%" PRIx64
                                " unaligned (reftable index: 0x%" PRIx64 ")",
                                entry, range);
        return -EIO;
    }
    *index = in_block % per_slice;
    *count = per_slice - *index;
    return co_cache_get(&s->refcount_cache,
                        offset + in_block / per_slice * s->refcount_cache.slice_size, slice);
}

void co_qcow2_read_refcounts_ahead(struct block_node *node, uint64_t cluster)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t block = s->reftable[cluster >> s->refblock_bits] & QCOW2_REFTABLE_OFFSET_MASK;
    uint64_t in_block = cluster & ((UINT64_C(1) << s->refblock_bits) - 1);
    uint64_t at = align_down((in_block << s->refcount_order) / 8, s->refcount_cache.slice_size);

    if (!(block & (s->cluster_size - 1)) && range_fits(block, s->cluster_size, INT64_MAX)) {
        co_cache_read_ahead(&s->refcount_cache, block + at, s->cluster_size - at);
    }
}

int co_qcow2_get_refcount(struct block_node *node, uint64_t cluster, uint64_t *value)
{
    struct qcow2_state *s = qcow2_of(node);
    struct qcow2_slice *slice;
    size_t index, count;

    *value = 0;
    if (!qcow2_has_refblock(s, cluster)) {
        return 0;
    }
    int ret = co_qcow2_refcount_slice(node, cluster, &slice, &index, &count);
    if (ret == 0) {
        *value = qcow2_refcount_load(slice->data, index, s->refcount_order);
        cache_put(&s->refcount_cache, slice);
    }
    return ret;
}

/* ---- changing -------------------------------------------------------------------------------- */

static void changed(struct qcow2_state *s)
{
    s->generation++;
    atomic_store(&s->unstable, true);
}

/* Adds +1 or -1 to some of `count` counts from `index` on; how many, or negative errno if the first
 * cannot be. */
static int64_t change_slice(struct block_node *node, struct qcow2_slice *slice, uint64_t cluster,
                            size_t index, size_t count, int delta)
{
    struct qcow2_state *s = qcow2_of(node);
    int64_t done = 0;
    int ret = 0;

    cache_change_begin(&s->refcount_cache);
    for (; done < (int64_t)count; done++) {
        uint64_t value = qcow2_refcount_load(slice->data, index + done, s->refcount_order);
        if (delta > 0 ? value == s->max_refcount : value == 0) {
            ret = -EINVAL;
            break;
        }
        value += delta;
        qcow2_refcount_store(slice->data, index + done, s->refcount_order, value);
        if (!value) {
            s->free_hint = MIN(s->free_hint, cluster + done);
        }
    }
    cache_change_end(&s->refcount_cache, slice);
    changed(s);
    return done ? done : ret;
}

static int co_change_some(struct block_node *node, uint64_t cluster, uint64_t count, int delta,
                          uint64_t *done)
{
    struct qcow2_state *s = qcow2_of(node);
    struct qcow2_slice *slice;
    size_t index, in_slice;

    if (!qcow2_has_refblock(s, cluster)) {
        return -EINVAL; /* who takes clusters makes the block first */
    }
    int ret = co_qcow2_refcount_slice(node, cluster, &slice, &index, &in_slice);
    if (ret < 0) {
        return ret;
    }
    int64_t n = change_slice(node, slice, cluster, index, MIN(in_slice, count), delta);
    cache_put(&s->refcount_cache, slice);
    if (n < 0) {
        return (int)n;
    }
    *done = (uint64_t)n;
    return 0;
}

/* All of them or, with +1, none. */
int co_qcow2_change_refcounts(struct block_node *node, uint64_t cluster, uint64_t count, int delta)
{
    uint64_t done = 0, n;

    while (done < count) {
        int ret = co_change_some(node, cluster + done, count - done, delta, &n);
        if (ret < 0) {
            if (delta > 0 && done) {
                co_qcow2_change_refcounts(node, cluster, done, -1);
            }
            return ret;
        }
        done += n;
    }
    return 0;
}

/* The clusters that bytes touch. */
static void clusters_of(const struct qcow2_state *s, uint64_t offset, uint64_t length,
                        uint64_t *first, uint64_t *count)
{
    *first = offset >> s->cluster_bits;
    *count = length ? ((offset + length - 1) >> s->cluster_bits) - *first + 1 : 0;
}

int co_qcow2_ref(struct block_node *node, uint64_t offset, uint64_t length)
{
    uint64_t first, count;

    clusters_of(qcow2_of(node), offset, length, &first, &count);
    return co_qcow2_change_refcounts(node, first, count, 1);
}

int co_qcow2_unref(struct block_node *node, uint64_t offset, uint64_t length, bool discard)
{
    uint64_t first, count;

    clusters_of(qcow2_of(node), offset, length, &first, &count);
    int ret = co_qcow2_change_refcounts(node, first, count, -1);
    if (ret == 0 && discard) {
        block_co_discard(node->file, offset, length);
    }
    return ret;
}

/* ---- new blocks ------------------------------------------------------------------------------- */

int qcow2_check_limit(struct block_node *node, uint64_t cluster, uint64_t count)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t max = QCOW2_MAX_OFFSET >> s->cluster_bits;

    if (!range_fits(cluster, count, max)) {
        return -EFBIG;
    }
    if (!node->file->grows && !range_fits(cluster << s->cluster_bits, count << s->cluster_bits,
                                          block_length(node->file))) {
        return -ENOSPC;
    }
    return 0;
}

int co_qcow2_make_refblock(struct block_node *node, uint64_t range, uint64_t cluster)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t offset = cluster << s->cluster_bits;

    block_debug_event(node->file, BLOCK_EVENT_REFBLOCK_ALLOC);
    int ret = qcow2_check_limit(node, cluster, 1);
    if (ret == 0 && range >= s->reftable_size) {
        ret = co_qcow2_grow_reftable(node, range);
        if (ret == 0 && qcow2_has_refblock(s, range << s->refblock_bits)) {
            return 0; /* the longer table needed it, too */
        }
    }
    if (ret == 0) {
        ret = qcow2_check_overlap(node, 0, offset, s->cluster_size);
    }
    if (ret < 0) {
        return ret;
    }
    for (uint32_t done = 0; done < s->cluster_size; done += s->refcount_cache.slice_size) {
        struct qcow2_slice *slice = cache_new(&s->refcount_cache, offset + done);
        if (!slice) {
            cache_drop(&s->refcount_cache, offset, s->cluster_size);
            return qcow2_not_free(node, offset);
        }
        cache_put(&s->refcount_cache, slice);
    }
    ret = co_qcow2_reserve(node, offset, s->cluster_size);
    if (ret < 0) {
        cache_drop(&s->refcount_cache, offset, s->cluster_size);
        return ret;
    }
    qcow2_metadata_add(s, QCOW2_OVERLAP_REFBLOCK, offset, s->cluster_size);
    qcow2_set_reftable(s, (uint32_t)range, offset);
    s->fresh_from = MAX(s->fresh_from, offset + s->cluster_size);
    ret = co_qcow2_change_refcounts(node, cluster, 1, 1);
    if (ret < 0) {
        qcow2_drop_refblock(s, (uint32_t)range);
    }
    return ret;
}

void qcow2_drop_refblock(struct qcow2_state *s, uint32_t range)
{
    uint64_t offset = s->reftable[range];

    cache_drop(&s->refcount_cache, offset, s->cluster_size);
    qcow2_metadata_remove(s, QCOW2_OVERLAP_REFBLOCK, offset, s->cluster_size);
    qcow2_set_reftable(s, range, 0);
}

/* ---- a longer table --------------------------------------------------------------------------- */

static void set_reftable_size(struct qcow2_state *s, uint32_t size)
{
    uint32_t old = s->reftable_size;
    size_t old_map = qcow2_dirty_map_size(old), map = qcow2_dirty_map_size(size);

    s->reftable = xreallocarray(s->reftable, size, sizeof(*s->reftable));
    s->reftable_dirty = xrealloc(s->reftable_dirty, map);
    if (size > old) {
        memset(s->reftable + old, 0, (size - old) * sizeof(*s->reftable));
        memset(s->reftable_dirty + old_map, 0, map - old_map);
    }
    s->reftable_size = size;
}

/* Entries of a table that has one for `range`, and for the clusters of the table itself. */
static uint64_t longer_size(const struct qcow2_state *s, uint64_t range)
{
    uint64_t size = MAX(range + 1, (uint64_t)s->reftable_size + s->reftable_size / 2);
    uint64_t clusters = size * 8 / s->cluster_size + 2;

    size += 2 * (clusters >> s->refblock_bits) + 4;
    return align_up(size, s->cluster_size / 8);
}

/* What was made for nothing: blocks whose entry, or whose own count, lies behind the old end. */
static void drop_behind(struct qcow2_state *s, uint32_t old_size)
{
    for (uint32_t i = 0; i < s->reftable_size; i++) {
        uint64_t cluster = s->reftable[i] >> s->cluster_bits;
        if (s->reftable[i] && (i >= old_size || cluster >> s->refblock_bits >= old_size)) {
            qcow2_drop_refblock(s, i);
        }
    }
}

int co_qcow2_grow_reftable(struct block_node *node, uint64_t range)
{
    struct qcow2_state *s = qcow2_of(node);
    uint32_t old_size = s->reftable_size;
    uint64_t size = longer_size(s, range);

    if (s->is_growing_reftable || size > QCOW2_MAX_REFTABLE_BYTES / 8) {
        return -EFBIG;
    }
    block_debug_event(node->file, BLOCK_EVENT_REFTABLE_GROW);
    s->is_growing_reftable = true;
    set_reftable_size(s, (uint32_t)size);
    int64_t offset = co_qcow2_alloc_clusters(node, size * 8);
    s->is_growing_reftable = false;
    int ret = offset < 0 ? (int)offset : qcow2_check_overlap(node, 0, (uint64_t)offset, size * 8);
    if (ret == 0) {
        ret = co_qcow2_reserve(node, (uint64_t)offset, size * 8);
    }
    if (ret < 0) {
        if (offset >= 0) {
            co_qcow2_unref(node, (uint64_t)offset, size * 8, false);
        }
        drop_behind(s, old_size);
        set_reftable_size(s, old_size);
        return ret;
    }
    qcow2_metadata_remove(s, QCOW2_OVERLAP_REFTABLE, s->reftable_offset, (uint64_t)old_size * 8);
    qcow2_metadata_add(s, QCOW2_OVERLAP_REFTABLE, (uint64_t)offset, size * 8);
    if (old_size) {
        qcow2_free(node, s->reftable_offset, (uint64_t)old_size * 8, false);
    }
    s->reftable_offset = (uint64_t)offset;
    s->reftable_moved = true;
    changed(s);
    return 0;
}
