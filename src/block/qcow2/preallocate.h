/* SPDX-License-Identifier: MIT */
/* Clusters for parts of the guest's disk that have none. */
#ifndef FERRY_BLOCK_QCOW2_PREALLOCATE_H
#define FERRY_BLOCK_QCOW2_PREALLOCATE_H

#include "block/qcow2/qcow2.h"

/* Takes clusters for what in [from, to) has none; it reads as before, without a backing file as
 * zeroes. Drained. 0 or negative errno. */
int co_qcow2_preallocate(struct block_node *node, uint64_t from, uint64_t to,
                         enum block_prealloc prealloc);

#endif
