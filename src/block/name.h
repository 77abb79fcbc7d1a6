/* SPDX-License-Identifier: MIT */
/*
 * What a node is called (node->filename), and what makes it what it is.
 *
 *   file, filename=disk                        disk
 *   raw over it                                disk: opening that makes the same nodes
 *   raw, offset=512, over it                   json:{"offset": 512, "driver": "raw", "file": {…}}
 *   qcow2 with the backing file it names       its file's name
 *   qcow2 with another one, or none            json:{"backing": …, "driver": "qcow2", …}
 *   throttle, copy-on-read                     json:{…}: no plain name makes a filter; if -drive put it
 *                                              there, the name of what is below
 *
 * As in QEMU, a plain name is one that opens the same; else all strong options are in the name, those
 * that change what is read (driver, filename, the driver's own list), with those of all children. What
 * was given as a number in JSON, or by -blockdev, is one there. A backing file is among them only if it is not the one that the
 * image names. So names differ where nodes do, but two names may mean one file ("./a", a link): compare
 * nodes by block_name_is_same().
 *
 * A name is made when a node is opened, out of its children's, and again when its backing node changes.
 * Main loop.
 */
#ifndef FERRY_BLOCK_NAME_H
#define FERRY_BLOCK_NAME_H

#include "block/node.h"

/* Opening: keeps the strong options out of opts, before the driver takes them. */
void block_name_keep_options(struct block_node *node, const struct options *opts);
/* Makes the name of the node, and of those above it. */
void block_name_refresh(struct block_node *node);
/* The node was put there unasked: it is called like what it filters. */
void block_name_set_implicit(struct block_node *node);
void block_name_free(struct block_node *node);
/* The image names a backing file by which no node was opened below it, or none was. */
bool block_name_overrides_backing(const struct block_node *node);
/* One file and the same options, and so on for all children: they show the same bytes. */
bool block_name_is_same(const struct block_node *a, const struct block_node *b);

#endif
