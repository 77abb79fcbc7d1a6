/* SPDX-License-Identifier: MIT */
/*
 * Changes of an image's format: amend, other names of the backing file, all data dropped.
 *
 * Each is one write of the header, before which everything that the new header needs is on stable
 * storage.
 */
#ifndef FERRY_BLOCK_QCOW2_AMEND_H
#define FERRY_BLOCK_QCOW2_AMEND_H

#include "block/qcow2/qcow2.h"

/* Of image_ops. */
bool qcow2_amend(struct block_node *node, struct options *opts, bool force,
                 block_progress_fn *progress, void *opaque, struct error **errp);
bool qcow2_change_backing(struct block_node *node, const char *name, const char *format,
                          struct error **errp);
bool qcow2_make_empty(struct block_node *node, struct error **errp);

/* amend_version.c; in a coroutine. To version 3, or to 2, which has no zero clusters: those of the
 * active image are written as data; snapshots must have none. */
int co_qcow2_upgrade(struct block_node *node, struct error **errp);
int co_qcow2_downgrade(struct block_node *node, block_progress_fn *progress, void *opaque,
                       struct error **errp);
/* The header as the state says now; after a failure, nothing is written any more. */
int co_qcow2_amend_header(struct block_node *node, struct error **errp);

#endif
