/* SPDX-License-Identifier: MIT */
/* What the files of the check share. */
#ifndef FERRY_BLOCK_QCOW2_CHECK_H
#define FERRY_BLOCK_QCOW2_CHECK_H

#include "block/qcow2/refdisk.h"
#include "block/qcow2/scan.h"
#include "block/qcow2/snapshot_table.h"

struct qcow2_check {
    struct block_node *node;
    struct qcow2_state *s;
    unsigned fix; /* BLOCK_CHECK_FIX_*: what is to be repaired */
    struct block_check_result result;
    struct qcow2_scan scan;
    struct refdisk disk;
    struct snapshot_list snapshots;
    bool is_looking; /* scan, disk and snapshots are in use */
};

/* check_refcounts.c: the refcounts in the file beside those that were counted. */

/* A repair frees leaked clusters, unless they may be a bitmap's that we do not understand. */
bool check_mends_leaks(const struct qcow2_check *check);
/* Refcount table and blocks: their shape, and what they refer to. */
void check_reftable(struct qcow2_check *check);
/* All clusters. */
int co_check_refcounts(struct qcow2_check *check);
/* The "copied" flags of the active image: against the refcounts of the file or, with counted, those
 * that a repair will give it. */
int co_check_copied(struct qcow2_check *check, bool counted);
/* Lowers refcounts of lost clusters where they are, which needs no order: whichever of them reach
 * the disk, those clusters are free, the others still lost. */
int co_check_free_leaks(struct qcow2_check *check);

#endif
