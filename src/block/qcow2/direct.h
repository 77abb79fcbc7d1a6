/* SPDX-License-Identifier: MIT */
/*
 * The image's file read and written around the caches, by image operations: nothing of what they
 * look at is cached and dirty then (co_qcow2_mark_clean()).
 */
#ifndef FERRY_BLOCK_QCOW2_DIRECT_H
#define FERRY_BLOCK_QCOW2_DIRECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct block_node;

/* All of these: node is the qcow2 node; in a coroutine; 0 or negative errno. */

/* What lies behind the file's end reads as zeroes. */
int co_direct_read(struct block_node *node, uint64_t offset, void *to, size_t size);
int co_direct_write(struct block_node *node, uint64_t offset, const void *from, size_t size);
int co_direct_flush(struct block_node *node);
/* The file has nothing there but zeroes, as far as its driver can tell without reading: a table of
 * many gigabytes in a sparse file costs nothing then. */
bool co_direct_is_hole(struct block_node *node, uint64_t offset, uint64_t size);

/* A table read piece by piece from its beginning. */
struct direct_reader {
    struct block_node *node;
    uint64_t offset; /* of the next byte that is taken */
    uint64_t end;    /* reading stops here */
    uint8_t *buffer;
    size_t have, used; /* bytes in the buffer, taken from it */
};

#define DIRECT_BUFFER 65536u /* bytes */

void direct_reader_init(struct direct_reader *reader, struct block_node *node, uint64_t offset,
                        uint64_t size);
void direct_reader_free(struct direct_reader *reader);
/* Takes exactly `size` bytes; -EFBIG behind the end. */
int co_direct_take(struct direct_reader *reader, void *to, size_t size);
/* Passes over `size` bytes; -EFBIG behind the end. */
int direct_skip(struct direct_reader *reader, uint64_t size);

#endif
