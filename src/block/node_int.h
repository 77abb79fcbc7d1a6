/* SPDX-License-Identifier: MIT */
/* What node.c and child.c share. */
#ifndef FERRY_BLOCK_NODE_INT_H
#define FERRY_BLOCK_NODE_INT_H

#include "block/node.h"

/* Asks the driver for the limits and fills up what it leaves open. */
void block_node_refresh_limits(struct block_node *node);
/* gate_wait_idle(), for requests at the node and below: those that a filter holds back go on. The gates
 * that they came through are closed, or nobody submits there; others may be open. */
void block_node_wait_idle(struct block_node *node, bool (*idle)(void *opaque), void *opaque);
/* What backend_hurry_begin() and _end() do. */
struct block_hurry *block_hurry_begin(struct block_node *node);
void block_hurry_end(struct block_hurry *hurry);
/* Then what is above it has a say in what its length means. */
bool block_node_may_grow(const struct block_node *node);
/* The node's flags or starts_writing have changed, and so what it does with its children. Get: adds what
 * comes new, and keeps the rest; after a failure the caller takes back what it changed and calls drop,
 * which gives up what is no longer asked for. */
bool block_node_get_perms(struct block_node *node, struct error **errp);
void block_node_drop_perms(struct block_node *node);
/* Lets go of all children. */
void block_node_drop_children(struct block_node *node);

#endif
