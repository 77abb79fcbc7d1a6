/* SPDX-License-Identifier: MIT */
/* What the files of the rebuild share. See rebuild.h. */
#ifndef FERRY_BLOCK_QCOW2_REBUILD_INT_H
#define FERRY_BLOCK_QCOW2_REBUILD_INT_H

#include "block/qcow2/rebuild.h"
#include "block/qcow2/scan.h"

struct rebuild {
    struct qcow2_plan *plan;
    struct block_node *node;
    struct qcow2_state *s;
    struct qcow2_scan scan; /* its refs become the new refcounts */
    struct block_check_result result;
    struct scan_root *roots;
    size_t root_count;
    uint64_t next_free;     /* cluster: none below is free */
    uint64_t next_free_run; /* the same for more than one */
    /* the new metadata */
    uint64_t *l1; /* of the active image, plan->l1_size entries */
    uint64_t l1_offset;
    uint64_t snapshots_offset;
    uint32_t snapshots_size; /* bytes */
    uint64_t *reftable;
    uint64_t reftable_offset;
    uint32_t reftable_size; /* entries, whole clusters */
};

/* The root that was made of this L1 table; not the active one. NULL: none, for it is impossible. */
struct scan_root *rebuild_find_root(struct rebuild *r, uint64_t l1_offset, uint32_t l1_size);

/* Contiguous clusters that nothing uses, counted as used once: host offset, or negative errno. */
int64_t rebuild_alloc(struct rebuild *r, uint64_t bytes, uint64_t refs);

/* rebuild_tables.c: L2 tables, L1 tables and the snapshot table that shall be, where they have to
 * be. Fills l1* and snapshots*. */
int co_rebuild_tables(struct rebuild *r, struct error **errp);
/* rebuild_refcounts.c: writes refcount blocks and table. Fills reftable*. */
int co_rebuild_refcounts(struct rebuild *r, struct error **errp);

#endif
