/* SPDX-License-Identifier: MIT */
/* What other image operations want of resize.c. */
#ifndef FERRY_BLOCK_QCOW2_RESIZE_H
#define FERRY_BLOCK_QCOW2_RESIZE_H

#include "block/qcow2/qcow2.h"

/* No entries for clusters at or behind `offset`, the beginning of one, any more: the backing file
 * shows there. Drained; 0 or negative errno. */
int co_qcow2_drop_from(struct block_node *node, uint64_t offset);
/* Gives back the end of the file that nothing uses; what fails is left. All is clean, drained. */
void co_qcow2_cut_file(struct block_node *node);

#endif
