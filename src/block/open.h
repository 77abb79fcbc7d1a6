/* SPDX-License-Identifier: MIT */
/*
 * From file names, formats and cache modes, as -drive and the image tools have them, to a root node.
 *
 *   "disk.qcow2", "qcow2"  -->  driver=qcow2, file.driver=file, file.filename=disk.qcow2  -->  node
 *   "disk.img", none       -->  the file is opened and looked into, then as above
 *
 * Main loop, outside coroutines.
 */
#ifndef FERRY_BLOCK_OPEN_H
#define FERRY_BLOCK_OPEN_H

#include "block/node.h"

/* Adds what the name stands for to the options of a root node, which keep what they have: below
 * "file." unless the root itself is a protocol, or the name is json: with a format. */
bool block_open_add_filename(struct options *node_opts, const char *filename, struct error **errp);
/* "driver": the format; an error if there is none of that name. */
bool block_open_set_format(struct options *node_opts, const char *format, struct error **errp);
/* QEMU's cache=: none, writeback, writethrough, directsync, unsafe; NULL is writeback. */
bool block_open_set_cache(struct options *node_opts, const char *mode, bool *write_cache,
                          struct error **errp);
/* aio= belongs to the protocol node, if that is a file; null-co and nbd have nothing to do by it. */
bool block_open_set_aio(struct options *node_opts, const char *aio, struct error **errp);

/* Opens the root node. Without "driver", the format is found by looking into the file, and if warns
 * is true that is said; an image taken for raw that way stays raw (BLOCK_OPEN_PROBED). */
struct block_node *block_open_root(struct options *node_opts, unsigned flags, bool warns,
                                   struct error **errp);

#endif
