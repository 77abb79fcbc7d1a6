/* SPDX-License-Identifier: MIT */
/*
 * Shadow metadata: how image operations change many tables at once (qcow2.h says what for).
 *
 *   1. What shall be (struct qcow2_plan) is counted: every reference from the L1 tables that shall
 *      exist, the header and the bitmaps (scan.h). What the image as it is refers to is pinned.
 *   2. Tables that are right stay where they are. Those that are not - "copied" flags of the active
 *      image's L2 tables above all - are written anew to clusters that are neither pinned nor
 *      referred to; then the L1 tables that point to those, the snapshot table, and at last
 *      refcount blocks and the refcount table for all of it. Flush.
 *   3. One write of the header's first sector points to the new tables. Flush.
 *
 *      old header -> old tables --\
 *                                  >-- data, and tables that are right
 *      new header -> new tables --/
 *
 * Before the write of the header nothing that the old tables refer to has changed; after it,
 * everything that the new ones refer to is on stable storage. What only the old ones referred to is
 * free in the new refcounts: nobody has to clean up, whichever of the two the crash leaves.
 *
 * A table that shares a cluster with something else (of a corrupt image) never stays. So whatever
 * the old tables looked like, in the new image only data clusters are referred to more than once.
 *
 * In a coroutine of the main loop; the image is drained.
 */
#ifndef FERRY_BLOCK_QCOW2_REBUILD_H
#define FERRY_BLOCK_QCOW2_REBUILD_H

#include "block/image.h"
#include "block/qcow2/qcow2.h"

/* What the image shall be. */
struct qcow2_plan {
    struct block_node *node;
    uint64_t size; /* bytes that the guest sees */
    /* The active L1 table is made from this one of the file: 0 entries: all empty. */
    uint64_t l1_from;
    uint32_t l1_from_size; /* entries */
    uint32_t l1_size;      /* entries that it shall have: the same, or more, or 0 from 0 */
    /* Their l1_offset is where it is now. The plan's own. */
    struct qcow2_snapshot *snapshots;
    uint32_t snapshot_count;
    unsigned refcount_order;
    /* Repair: faults are mended where that needs no guess, what nothing refers to is free, and
     * whatever faults are left are kept as they are. Without it an image with faults is refused, and
     * clusters that are lost stay lost. */
    bool repair;
    block_progress_fn *progress; /* or NULL; in steps of rebuilding */
    void *opaque;
};

/* The image as it is. */
void qcow2_plan_init(struct qcow2_plan *plan, struct block_node *node);
void qcow2_plan_free(struct qcow2_plan *plan);

/* Makes it so, in the file and in the state. 0, or negative errno and *errp: then the image is as it
 * was (or, if writing the header failed, one of both; nothing is written any more then, as with a
 * corrupt image). */
int co_qcow2_rebuild(struct qcow2_plan *plan, struct error **errp);

#endif
