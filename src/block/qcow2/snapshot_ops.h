/* SPDX-License-Identifier: MIT */
/*
 * What struct block_image_ops has of snapshots. Main loop, outside coroutines, no request in flight.
 *
 * Messages are those that qemu-img prints behind "Could not create snapshot 'NAME': " and the like.
 */
#ifndef FERRY_BLOCK_QCOW2_SNAPSHOT_OPS_H
#define FERRY_BLOCK_QCOW2_SNAPSHOT_OPS_H

#include "block/image.h"
#include "block/qcow2/qcow2.h"

size_t qcow2_snapshot_list(struct block_node *node, struct block_snapshot **list);
bool qcow2_snapshot_create(struct block_node *node, const struct block_snapshot *snapshot,
                           struct error **errp);
bool qcow2_snapshot_apply(struct block_node *node, const char *id_or_name, struct error **errp);
/* By name, as qemu-img. */
bool qcow2_snapshot_delete(struct block_node *node, const char *name, struct error **errp);
bool qcow2_snapshot_load(struct block_node *node, const struct block_snapshot_key *key,
                         struct error **errp);

#endif
