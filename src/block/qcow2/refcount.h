/* SPDX-License-Identifier: MIT */
/* What refcount.c and alloc.c offer each other. All with the image's lock held, in a coroutine. */
#ifndef FERRY_BLOCK_QCOW2_REFCOUNT_H
#define FERRY_BLOCK_QCOW2_REFCOUNT_H

#include "block/qcow2/qcow2.h"

/* Count `index` of a refcount block or a part of one that begins with a whole byte. */
uint64_t qcow2_refcount_load(const void *slice, size_t index, unsigned order);
void qcow2_refcount_store(void *slice, size_t index, unsigned order, uint64_t value);

bool qcow2_has_refblock(const struct qcow2_state *s, uint64_t cluster);
/* The slice that has the cluster's count, pinned, its index there, and how many counts follow (that
 * one included). There must be a block. */
int co_qcow2_refcount_slice(struct block_node *node, uint64_t cluster, struct qcow2_slice **slice,
                            size_t *index, size_t *count);
/* For a search: reads more of the block than the slice with the cluster's count. */
void co_qcow2_read_refcounts_ahead(struct block_node *node, uint64_t cluster);
/* delta: 1 or -1. -EINVAL if a count would leave its bounds; then with +1 nothing is changed. */
int co_qcow2_change_refcounts(struct block_node *node, uint64_t cluster, uint64_t count, int delta);
/* A refcount block for clusters [range << refblock_bits, …), in `cluster`, which nothing uses. */
int co_qcow2_make_refblock(struct block_node *node, uint64_t range, uint64_t cluster);
/* Takes back a block that was never committed and counts nothing but itself. */
void qcow2_drop_refblock(struct qcow2_state *s, uint32_t range);
/* The refcount table gets an entry for the range. */
int co_qcow2_grow_reftable(struct block_node *node, uint64_t range);
/* -EFBIG behind what entries can hold, -ENOSPC behind the end of a file that does not grow. */
int qcow2_check_limit(struct block_node *node, uint64_t cluster, uint64_t count);

#endif
