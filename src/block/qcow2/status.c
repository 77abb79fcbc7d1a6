/* SPDX-License-Identifier: MIT */
/*
 * What is where.
 *
 * An image with preallocated metadata has clusters for all of its disk, and what nobody has written to
 * is a hole in its file. So where the counts speak of many more clusters than the file has blocks for,
 * the file is asked as well; in other images that would cost a system call for each extent, and find
 * nothing. As in QEMU, data files are not asked.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "block/qcow2/qcow2.h"
#include "block/qcow2/refcount.h"

#define MAX_STATUS_STEPS 4096

/* ---- extents --------------------------------------------------------------------------------- */

static int status_of(const struct block_node *node, const struct qcow2_extent *extent,
                     uint64_t *map)
{
    *map = 0;
    switch (extent->kind) {
    case QCOW2_NORMAL:
        *map = extent->host;
        return BLOCK_STATUS_DATA | BLOCK_STATUS_ALLOCATED | BLOCK_STATUS_OFFSET_VALID;
    case QCOW2_ZERO_ALLOC:
        *map = extent->host;
        return BLOCK_STATUS_ZERO | BLOCK_STATUS_ALLOCATED | BLOCK_STATUS_OFFSET_VALID;
    case QCOW2_ZERO_PLAIN:
        return BLOCK_STATUS_ZERO | BLOCK_STATUS_ALLOCATED;
    case QCOW2_COMPRESSED_DATA:
        return BLOCK_STATUS_DATA | BLOCK_STATUS_ALLOCATED | BLOCK_STATUS_COMPRESSED;
    case QCOW2_UNALLOCATED:
    case QCOW2_INVALID:
        break;
    }
    return node->backing ? 0 : BLOCK_STATUS_ZERO;
}

/* The extent at offset, with those behind it that go on alike. Within an epoch. */
static int co_look(struct block_node *node, uint64_t offset, uint64_t length,
                   struct qcow2_extent *first)
{
    struct qcow2_extent next;

    int ret = co_qcow2_map(node, offset, length, first);
    for (unsigned i = 0; ret == 0 && first->length < length && i < MAX_STATUS_STEPS; i++) {
        uint64_t done = first->length;
        /* An error further on is its own request's. */
        if (co_qcow2_map(node, offset + done, length - done, &next) < 0 ||
            next.kind != first->kind ||
            ((next.kind == QCOW2_NORMAL || next.kind == QCOW2_ZERO_ALLOC) &&
             next.host != first->host + done)) {
            break;
        }
        first->length += next.length;
    }
    return ret;
}

/* ---- holes of the file ----------------------------------------------------------------------- */

/* Adds the clusters among the first `clusters` that are counted in the refcount table's entry
 * `range`. From the file, as this decides only what is asked: what is wrong there is for others to
 * find. */
static void co_count_range(struct block_node *node, uint64_t range, uint64_t clusters,
                           uint8_t *buffer, uint64_t *used)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t entry = 0, in_block = UINT64_C(1) << s->refblock_bits;

    co_mutex_lock(&s->lock); /* the table may move */
    if (range < s->reftable_size) {
        entry = s->reftable[range] & QCOW2_REFTABLE_OFFSET_MASK;
    }
    co_mutex_unlock(&s->lock);
    if (!entry || entry & (s->cluster_size - 1) ||
        co_qcow2_pread(node, entry, buffer, s->cluster_size) < 0) {
        return;
    }
    uint64_t count = MIN(in_block, clusters - (range << s->refblock_bits));
    for (size_t i = 0; i < count; i++) {
        *used += qcow2_refcount_load(buffer, i, s->refcount_order) != 0;
    }
}

/* Whether a tenth of the clusters in use, at least, has no blocks on the host: QEMU's measure. */
static bool co_looks_preallocated(struct block_node *node)
{
    struct qcow2_state *s = qcow2_of(node);
    int64_t allocated = block_allocated(node->file);
    uint64_t clusters = qcow2_align_cluster(s, block_length(node->file)) >> s->cluster_bits;
    uint64_t used = 0;

    if (allocated < 0) {
        return false;
    }
    uint64_t there = (uint64_t)allocated >> s->cluster_bits;
    uint64_t wanted = MAX(there + there / 9, there + 2);
    if (wanted > clusters) {
        return false;
    }
    autofree uint8_t *buffer = xmalloc(s->cluster_size);
    for (uint64_t range = 0; range << s->refblock_bits < clusters && used < wanted; range++) {
        co_count_range(node, range, clusters, buffer, &used);
    }
    return used >= wanted;
}

static bool co_may_have_holes(struct block_node *node)
{
    struct qcow2_state *s = qcow2_of(node);
    int known = atomic_load(&s->has_holes);

    if (known == QCOW2_HOLES_UNKNOWN) {
        known = co_looks_preallocated(node) ? QCOW2_HOLES : QCOW2_NO_HOLES;
        atomic_store(&s->has_holes, known);
    }
    return known == QCOW2_HOLES;
}

/* Whether a part of the image's file reads as zeroes; *length is cut to what is alike. An error is
 * that of who reads there. */
static bool co_is_hole(struct block_node *node, uint64_t host, uint64_t *length)
{
    uint64_t end = block_length(node->file), here = *length, map;

    if (host >= end) {
        return true;
    }
    int status = block_co_status(node->file, host, &here, &map);
    if (status < 0 || !here) {
        return false;
    }
    *length = here;
    return status & BLOCK_STATUS_ZERO;
}

/* ---- status ---------------------------------------------------------------------------------- */

int qcow2_co_block_status(struct block_node *node, uint64_t offset, uint64_t *length, uint64_t *map)
{
    struct qcow2_state *s = qcow2_of(node);
    struct qcow2_extent extent;
    bool is_hole = false;

    /* Before anything is looked up: an epoch that lasts keeps clusters from becoming free. */
    bool asks = !s->has_data_file && co_may_have_holes(node);
    unsigned epoch = qcow2_epoch_enter(s);
    int ret = co_look(node, offset, *length, &extent);
    if (ret == 0 && asks && extent.kind == QCOW2_NORMAL) {
        is_hole = co_is_hole(node, extent.host, &extent.length);
    }
    qcow2_epoch_leave(s, epoch);
    if (ret < 0) {
        return ret;
    }
    *length = extent.length;
    return status_of(node, &extent, map) | (is_hole ? BLOCK_STATUS_ZERO : 0);
}

int qcow2_co_is_allocated(struct block_node *node, uint64_t offset, uint64_t *length)
{
    struct qcow2_state *s = qcow2_of(node);
    struct qcow2_extent extent;
    uint64_t map;

    unsigned epoch = qcow2_epoch_enter(s);
    int ret = co_look(node, offset, *length, &extent);
    qcow2_epoch_leave(s, epoch);
    if (ret < 0) {
        return ret;
    }
    *length = extent.length;
    return (status_of(node, &extent, &map) & BLOCK_STATUS_ALLOCATED) != 0;
}
