/* SPDX-License-Identifier: MIT */
/* What node.c and child.c share. */
#ifndef FERRY_BLOCK_NODE_INT_H
#define FERRY_BLOCK_NODE_INT_H

#include "block/node.h"

/* Asks the driver for the limits and fills up what it leaves open. */
void block_node_refresh_limits(struct block_node *node);
/* Lets go of all children. */
void block_node_drop_children(struct block_node *node);

#endif
