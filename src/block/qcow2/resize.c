/* SPDX-License-Identifier: MIT */
/*
 * Other sizes of the guest's disk.
 *
 * Longer: what entries have behind the old end (the state of a VM) goes; a longer L1 table, if it
 * takes one, is written to new clusters and becomes the image's by one write of the header; what else
 * must not show behind the old end (the rest of its cluster, a longer backing file) is made zeroes;
 * clusters are taken, if that is asked for; the last write is that of the header with the new size.
 * Shorter: the entries behind the new end go, with all that they point to; then the header's size;
 * then the end of the file that nothing uses.
 *
 * Power may fail at any point: the size is the old one or the new one, at worst there are leaks.
 */
#include "block/qcow2/resize.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "block/debug.h"
#include "block/qcow2/preallocate.h"

/* ---- header ---------------------------------------------------------------------------------- */

struct geometry {
    uint64_t size, l1_offset;
    uint32_t l1_size;
};

static struct geometry geometry_of(const struct qcow2_state *s)
{
    return (struct geometry){.size = s->size, .l1_offset = s->l1_offset, .l1_size = s->l1_size};
}

static void set_geometry(struct qcow2_state *s, const struct geometry *g)
{
    s->size = g->size;
    s->l1_offset = g->l1_offset;
    s->l1_size = g->l1_size;
}

/* All that the new header points to is on stable storage. */
static int co_switch(struct block_node *node, const struct geometry *to, struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);
    struct geometry was = geometry_of(s);
    bool unsure;

    set_geometry(s, to);
    int ret = co_qcow2_write_header(node, &unsure);
    if (ret < 0) {
        set_geometry(s, &was);
        if (unsure) { /* both headers are right as long as nothing is written */
            atomic_store(&s->corrupt, true);
        }
        error_set_errno(errp, -ret, "Could not write the header of '%s'", node->filename);
    }
    return ret;
}

/* ---- L1 -------------------------------------------------------------------------------------- */

static int co_write_l1(struct block_node *node, uint64_t offset, uint32_t entries)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t bytes = qcow2_align_cluster(s, (uint64_t)entries * 8);
    autofree uint64_t *table = aligned_alloc(4096, align_up(bytes, 4096));

    if (!table) {
        return -ENOMEM;
    }
    memset(table, 0, bytes);
    for (uint32_t i = 0; i < s->l1_size; i++) {
        table[i] = htobe64(atomic_load(&s->l1[i]));
    }
    block_debug_event(node->file, BLOCK_EVENT_L1_GROW_WRITE_TABLE);
    int ret = co_qcow2_pwrite(node, offset, table, bytes);
    return ret == 0 ? block_co_flush(node->file, 0) : ret;
}

static int co_grow_l1(struct block_node *node, uint32_t entries, struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);
    struct geometry was = geometry_of(s);

    block_debug_event(node->file, BLOCK_EVENT_L1_GROW_ALLOC_TABLE);
    co_mutex_lock(&s->lock);
    int64_t offset = co_qcow2_alloc_clusters(node, qcow2_align_cluster(s, (uint64_t)entries * 8));
    int ret = offset < 0 ? (int)offset
                         : qcow2_check_overlap(node, 0, (uint64_t)offset, (uint64_t)entries * 8);
    co_mutex_unlock(&s->lock);
    if (ret == 0) {
        ret = co_qcow2_mark_clean(node);
    }
    if (ret == 0) {
        ret = co_write_l1(node, (uint64_t)offset, entries);
    }
    if (ret < 0) {
        error_set_errno(errp, -ret, "Failed to grow the L1 table");
        return ret;
    }
    block_debug_event(node->file, BLOCK_EVENT_L1_GROW_ACTIVATE_TABLE);
    ret = co_switch(
        node,
        &(struct geometry){.size = s->size, .l1_offset = (uint64_t)offset, .l1_size = entries},
        errp);
    if (ret == 0) {
        ret = co_qcow2_reload_tables(node, errp);
        if (ret < 0) {
            atomic_store(&s->corrupt, true); /* what is in memory is not what the file has */
        }
    }
    if (ret == 0 && was.l1_size) {
        co_mutex_lock(&s->lock);
        qcow2_free(node, was.l1_offset, (uint64_t)was.l1_size * 8, false);
        co_mutex_unlock(&s->lock);
    }
    return ret;
}

/* ---- longer ---------------------------------------------------------------------------------- */

/* Makes zeroes of what there is in [from, to). */
static int co_clear(struct block_node *node, uint64_t from, uint64_t to)
{
    struct qcow2_extent extent;
    int ret = 0;

    while (from < to && ret == 0) {
        ret = co_qcow2_map(node, from, to - from, &extent);
        if (ret == 0 && extent.kind != QCOW2_ZERO_PLAIN && extent.kind != QCOW2_ZERO_ALLOC &&
            (extent.kind != QCOW2_UNALLOCATED || node->backing)) {
            ret = block_co_write_zeroes(node, from, extent.length, 0);
        }
        from += extent.length;
    }
    return ret;
}

static int co_fill_new(struct block_node *node, uint64_t old, uint64_t length,
                       enum block_prealloc prealloc)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t shown = MIN(length, qcow2_align_cluster(s, old));

    if (node->backing) {
        shown = MAX(shown, MIN(length, block_length(node->backing)));
    }
    int ret = co_clear(node, old, shown);
    if (ret == 0 && prealloc != BLOCK_PREALLOC_OFF) {
        ret = co_qcow2_preallocate(node, old, length, prealloc);
    }
    return ret == 0 ? co_qcow2_mark_clean(node) : ret;
}

/* A data file is as long as the guest's disk, or longer where that cannot be changed. */
static int co_resize_data_file(struct block_node *node, uint64_t length,
                               enum block_prealloc prealloc, struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);
    struct error *err = NULL;

    if (!s->has_data_file || block_length(s->data_file) == length) {
        return 0;
    }
    if (prealloc == BLOCK_PREALLOC_METADATA) {
        prealloc = BLOCK_PREALLOC_OFF; /* it has none */
    }
    int ret = block_co_truncate(s->data_file, length, prealloc, &err);
    if (ret < 0 && block_length(s->data_file) < length) {
        error_propagate(errp, err);
        return ret;
    }
    error_free(err);
    return 0;
}

static int co_grow(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
                   struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t old = s->size, table = (uint64_t)s->cluster_size << s->l2_bits;
    uint64_t entries = length / table + (length % table != 0);

    if (entries > QCOW2_MAX_L1_BYTES / 8) {
        error_set_errno(errp, EFBIG, "Failed to grow the L1 table");
        return -EFBIG;
    }
    int ret = co_qcow2_drop_from(node, qcow2_align_cluster(s, old));
    if (ret < 0) {
        error_set_errno(errp, -ret, "Failed to discard what is behind the old end of '%s'",
                        node->filename);
        return ret;
    }
    ret = co_resize_data_file(node, length, prealloc, errp);
    if (ret == 0 && entries > s->l1_size) {
        ret = co_grow_l1(node, (uint32_t)entries, errp);
    }
    if (ret < 0) {
        return ret;
    }
    /* The requests below go behind the end that the header has. */
    s->size = length;
    atomic_store(&node->length, length);
    ret = co_fill_new(node, old, length,
                      s->data_file_raw && prealloc == BLOCK_PREALLOC_OFF ? BLOCK_PREALLOC_METADATA
                                                                         : prealloc);
    s->size = old;
    atomic_store(&node->length, old);
    if (ret < 0) {
        error_set_errno(errp, -ret, "Could not prepare the new part of '%s'", node->filename);
        return ret;
    }
    struct geometry to = geometry_of(s);
    to.size = length;
    return co_switch(node, &to, errp);
}

/* ---- shorter --------------------------------------------------------------------------------- */

static void free_entry_of(struct block_node *node, uint64_t entry)
{
    if (entry && qcow2_entry_kind(qcow2_of(node), entry, 0, 0) != QCOW2_INVALID) {
        qcow2_free_entry(node, entry, true);
    }
}

/* With lock held: entries of one slice from `offset` on; *next becomes where the next slice begins.
 * They are put into `keep`, if it is there, and else dropped. */
static int co_drop_slice(struct block_node *node, uint64_t offset, uint64_t *keep, uint64_t *next)
{
    struct qcow2_state *s = qcow2_of(node);
    struct qcow2_slice *slice;
    unsigned index, count = s->l2_cache.slice_size / s->l2_entry_size;
    uint64_t bitmap;

    int ret = co_qcow2_l2_slice(node, offset, !keep, &slice, &index);
    if (ret < 0) {
        return ret;
    }
    *next = offset + ((uint64_t)(count - index) << s->cluster_bits);
    for (; index < count; index++) {
        uint64_t entry = qcow2_l2_entry(s, slice->data, index, &bitmap);
        if (keep) {
            *keep++ = entry;
        } else if (entry || bitmap) {
            qcow2_l2_set(node, slice, index, 0, 0);
            free_entry_of(node, entry);
        }
    }
    cache_put(&s->l2_cache, slice);
    return 0;
}

/* With lock held: a whole L2 table, and all that it points to. Nothing is freed before all of it has
 * been read: what the table names stays in use as long as the table does. */
static int co_drop_table(struct block_node *node, uint32_t l1_index)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t count = BIT64(s->l2_bits), table = s->l1[l1_index] & QCOW2_OFFSET_MASK;
    uint64_t begin = (uint64_t)l1_index << (s->cluster_bits + s->l2_bits);
    uint64_t end = begin + (count << s->cluster_bits);
    autofree uint64_t *entries = xreallocarray(NULL, count, sizeof(*entries));

    for (uint64_t at = begin; at < end;) {
        int ret = co_drop_slice(node, at, &entries[(at - begin) >> s->cluster_bits], &at);
        if (ret < 0) {
            return ret;
        }
    }
    qcow2_set_l1(s, l1_index, 0);
    for (uint64_t i = 0; i < count; i++) {
        free_entry_of(node, entries[i]);
    }
    qcow2_metadata_remove(s, QCOW2_OVERLAP_L2, table, s->cluster_size);
    cache_drop(&s->l2_cache, table, s->cluster_size);
    qcow2_free(node, table, s->cluster_size, true);
    return 0;
}

int co_qcow2_drop_from(struct block_node *node, uint64_t offset)
{
    struct qcow2_state *s = qcow2_of(node);
    unsigned table_bits = s->cluster_bits + s->l2_bits;
    int ret = 0;

    for (uint64_t i = offset >> table_bits; i < s->l1_size && ret == 0; i++) {
        uint64_t start = i << table_bits, end = start + BIT64(table_bits);
        if (!(s->l1[i] & QCOW2_OFFSET_MASK)) {
            continue;
        }
        co_mutex_lock(&s->lock);
        if (start >= offset) {
            ret = co_drop_table(node, (uint32_t)i);
        } else {
            for (uint64_t at = offset; at < end && ret == 0;) {
                ret = co_drop_slice(node, at, NULL, &at);
            }
        }
        co_mutex_unlock(&s->lock);
        if (ret == 0) {
            ret = co_qcow2_balance(node);
        }
    }
    return ret;
}

void co_qcow2_cut_file(struct block_node *node)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t clusters = qcow2_align_cluster(s, block_length(node->file)) >> s->cluster_bits;
    uint64_t count = 0;
    int ret = 0;

    if (!node->file->grows) {
        return;
    }
    co_mutex_lock(&s->lock);
    while (clusters && ret == 0) {
        ret = co_qcow2_get_refcount(node, clusters - 1, &count);
        if (ret < 0 || count) {
            break;
        }
        clusters--;
    }
    co_mutex_unlock(&s->lock);
    uint64_t end = clusters << s->cluster_bits;
    if (ret == 0 && end < block_length(node->file) &&
        block_co_truncate(node->file, end, BLOCK_PREALLOC_OFF, NULL) == 0) {
        s->fresh_from = end;
    }
}

static int co_shrink(struct block_node *node, uint64_t length, struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);

    int ret = co_qcow2_drop_from(node, qcow2_align_cluster(s, length));
    if (ret == 0) {
        ret = co_qcow2_mark_clean(node);
    }
    if (ret < 0) {
        error_set_errno(errp, -ret, "Failed to discard what is behind the new end of '%s'",
                        node->filename);
        return ret;
    }
    struct geometry to = geometry_of(s);
    to.size = length;
    ret = co_switch(node, &to, errp);
    if (ret == 0) {
        co_qcow2_cut_file(node);
        ret = co_resize_data_file(node, length, BLOCK_PREALLOC_OFF, errp);
    }
    return ret;
}

/* ---- both ------------------------------------------------------------------------------------ */

static bool check_resize(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
                         struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);

    if (s->corrupt) {
        error_set(errp, "Cannot resize '%s': the image is corrupt", node->filename);
    } else if (length & 511) {
        error_set(errp, "The new size must be a multiple of 512");
    } else if (s->version < 3 && s->snapshot_count) {
        error_set(errp, "Can't resize a v2 image which has snapshots");
    } else if (!length && node->bitmaps) {
        error_set(errp, "A disk of 0 bytes cannot have bitmaps; remove those of '%s' first",
                  node->filename);
    } else if (length < s->size && prealloc != BLOCK_PREALLOC_OFF) {
        error_set(errp, "Preallocation can't be used for shrinking an image");
    } else {
        return true;
    }
    return false;
}

int qcow2_co_truncate(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
                      struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);

    if (!check_resize(node, length, prealloc, errp)) {
        return s->corrupt ? -EIO : length & 511 ? -EINVAL : -ENOTSUP;
    }
    if (length == s->size) {
        return 0;
    }
    int ret = co_qcow2_mark_clean(node);
    if (ret < 0) {
        error_set_errno(errp, -ret, "Could not write metadata of '%s'", node->filename);
        return ret;
    }
    atomic_store(&s->has_holes, QCOW2_HOLES_UNKNOWN);
    return length > s->size ? co_grow(node, length, prealloc, errp) : co_shrink(node, length, errp);
}
