/* SPDX-License-Identifier: MIT */
/* See preallocate.h. */
#include "block/qcow2/preallocate.h"

#include <errno.h>

#include "block/bounce.h"

struct prealloc_run {
    struct block_node *node;
    enum block_prealloc prealloc;
    struct qcow2_slice *slice;
    unsigned index;
    uint64_t clusters, host;
    bool is_fresh; /* the host has zeroes there */
};

static bool has_none(const struct qcow2_state *s, uint64_t entry)
{
    return !(entry & QCOW2_COMPRESSED) && !qcow2_has_cluster(s, entry);
}

/* With lock held: entries from r->index on that have no cluster, at most r->clusters. */
static int co_take(struct prealloc_run *r, uint64_t offset)
{
    struct qcow2_state *s = qcow2_of(r->node);
    uint64_t count = 0, bitmap;

    while (count < r->clusters &&
           has_none(s, qcow2_l2_entry(s, r->slice->data, r->index + (unsigned)count, &bitmap))) {
        count++;
    }
    r->clusters = count;
    if (!count) {
        return 0;
    }
    if (s->has_data_file) {
        r->host = offset;
        r->is_fresh = offset >= block_length(s->data_file);
        return 0;
    }
    uint64_t fresh_from = s->fresh_from;
    int64_t host = co_qcow2_alloc_run(r->node, &r->clusters);
    if (host < 0) {
        return (int)host;
    }
    r->host = (uint64_t)host;
    r->is_fresh = r->host >= fresh_from;
    return qcow2_check_overlap(r->node, 0, r->host, r->clusters << s->cluster_bits);
}

/* Clusters that an entry points to must be within the file. */
static int co_extend_file(struct block_node *file, uint64_t end)
{
    return file->grows && end > block_length(file)
               ? block_co_truncate(file, end, BLOCK_PREALLOC_OFF, NULL)
               : 0;
}

/* What the host has there from now on. */
static int co_fill(const struct prealloc_run *r)
{
    struct qcow2_state *s = qcow2_of(r->node);
    uint64_t length = r->clusters << s->cluster_bits;

    if (s->has_data_file) {
        length = MIN(length, s->size - r->host); /* as long as the disk, no longer */
    }
    switch (r->prealloc) {
    case BLOCK_PREALLOC_FULL:
        return co_bounce_zeroes(s->data_file, r->host, length, 0);
    case BLOCK_PREALLOC_FALLOC:
        return block_co_write_zeroes(s->data_file, r->host, length, 0);
    case BLOCK_PREALLOC_METADATA:
    case BLOCK_PREALLOC_OFF:
        break;
    }
    int ret = co_extend_file(s->data_file, r->host + length);
    if (ret == 0 && !r->is_fresh) {
        ret = block_co_write_zeroes(s->data_file, r->host, length, BLOCK_REQ_MAY_UNMAP);
    }
    return ret;
}

static void link_run(const struct prealloc_run *r)
{
    struct qcow2_state *s = qcow2_of(r->node);
    uint64_t bitmap;

    for (uint64_t i = 0; i < r->clusters; i++) {
        unsigned index = r->index + (unsigned)i;
        uint64_t old = qcow2_l2_entry(s, r->slice->data, index, &bitmap);
        uint64_t zero = s->extended_l2 ? 0 : old & QCOW2_ZERO;
        if (s->extended_l2 && s->data_file_raw) {
            bitmap = QCOW2_SUB_ALLOC;
        }
        qcow2_l2_set(r->node, r->slice, index,
                     (r->host + (i << s->cluster_bits)) | zero | QCOW2_COPIED, bitmap);
    }
}

/* A beginning of [offset, to); *length becomes how much. */
static int co_prealloc_some(struct prealloc_run *r, uint64_t offset, uint64_t to, uint64_t *length)
{
    struct qcow2_state *s = qcow2_of(r->node);

    co_mutex_lock(&s->lock);
    int ret = co_qcow2_l2_slice(r->node, offset, true, &r->slice, &r->index);
    if (ret == 0) {
        r->clusters = MIN(s->l2_cache.slice_size / s->l2_entry_size - r->index,
                          (to - offset + s->cluster_size - 1) >> s->cluster_bits);
        ret = co_take(r, offset);
        if (ret < 0) {
            cache_put(&s->l2_cache, r->slice);
        }
    }
    co_mutex_unlock(&s->lock);
    if (ret < 0) {
        return ret;
    }
    *length = MAX(r->clusters, 1) << s->cluster_bits;
    ret = r->clusters ? co_fill(r) : 0;

    co_mutex_lock(&s->lock);
    if (ret == 0 && r->clusters) {
        link_run(r);
    } else if (r->clusters && !s->has_data_file) {
        co_qcow2_unref(r->node, r->host, r->clusters << s->cluster_bits, false);
    }
    co_mutex_unlock(&s->lock);
    cache_put(&s->l2_cache, r->slice);
    return ret == 0 ? co_qcow2_balance(r->node) : ret;
}

int co_qcow2_preallocate(struct block_node *node, uint64_t from, uint64_t to,
                         enum block_prealloc prealloc)
{
    struct qcow2_state *s = qcow2_of(node);
    struct prealloc_run run = {.node = node, .prealloc = prealloc};
    uint64_t length = 0;
    int ret = 0;

    for (uint64_t at = align_down(from, s->cluster_size); at < to && ret == 0; at += length) {
        ret = co_prealloc_some(&run, at, to, &length);
    }
    return ret;
}
