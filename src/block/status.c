/* SPDX-License-Identifier: MIT */
/* What is where in a node and in its backing chain; and changing a node's length. */
#include <errno.h>
#include <string.h>

#include "base/range.h"
#include "block/bitmap.h"
#include "block/node.h"

const char *const block_prealloc_names[] = {"off", "metadata", "falloc", "full", NULL};

/* ---- status ---------------------------------------------------------------------------------- */

int block_co_status(struct block_node *node, uint64_t offset, uint64_t *length, uint64_t *map)
{
    uint64_t total = block_length(node);

    *map = 0;
    if (offset >= total) {
        *length = 0;
        return BLOCK_STATUS_EOF;
    }
    *length = MIN(*length, total - offset);
    if (*length && node->driver->co_block_status) {
        return node->driver->co_block_status(node, offset, length, map);
    }
    if (*length && node->driver->is_filter && node->file) {
        return block_co_status(node->file, offset, length, map);
    }
    return BLOCK_STATUS_DATA | BLOCK_STATUS_ALLOCATED;
}

int block_co_is_allocated(struct block_node *node, uint64_t offset, uint64_t *length)
{
    uint64_t total = block_length(node), map;

    if (offset < total && *length && node->driver->co_is_allocated) {
        *length = MIN(*length, total - offset);
        return node->driver->co_is_allocated(node, offset, length);
    }
    int status = block_co_status(node, offset, length, &map);
    return status < 0 ? status : (status & BLOCK_STATUS_ALLOCATED) != 0;
}

/* What is below `node` in the chain: filters have a child that they show, others a backing file. */
static struct block_node *next_in_chain(struct block_node *node)
{
    return node->driver->is_filter && node->file ? node->file : node->backing;
}

int block_co_status_above(struct block_node *top, struct block_node *base, uint64_t offset,
                          uint64_t *length, uint64_t *map, struct block_node **owner,
                          unsigned *depth)
{
    struct block_node *node = top;
    unsigned level = 0;
    int status = BLOCK_STATUS_ZERO;
    uint64_t total = block_length(top);

    *map = 0;
    if (owner) {
        *owner = NULL;
    }
    if (depth) {
        *depth = 0;
    }
    if (offset >= total) {
        *length = 0;
        return BLOCK_STATUS_EOF;
    }
    *length = MIN(*length, total - offset);
    for (; node && node != base; node = next_in_chain(node)) {
        uint64_t here = *length;

        if (node->driver->is_filter && node->file) {
            continue;
        }
        if (offset >= block_length(node)) {
            /* A backing file that is too short: zeroes show, as if it had them. */
            status = BLOCK_STATUS_ZERO | BLOCK_STATUS_ALLOCATED;
        } else {
            status = block_co_status(node, offset, &here, map);
            if (status < 0) {
                return status;
            }
            *length = here;
        }
        if (status & BLOCK_STATUS_ALLOCATED) {
            break;
        }
        level++;
    }
    if (!node) {
        *map = 0;
        return status & (BLOCK_STATUS_ZERO | BLOCK_STATUS_DATA);
    }
    if (node == base) { /* what is there is not looked at */
        uint64_t end = block_length(base);
        *map = 0;
        if (offset >= end) {
            return BLOCK_STATUS_ZERO;
        }
        *length = MIN(*length, end - offset);
        return 0;
    }
    if (owner) {
        *owner = node;
    }
    if (depth) {
        *depth = level;
    }
    return status;
}

int block_co_reads_as_zeroes(struct block_node *node, uint64_t offset, uint64_t end)
{
    while (offset < end) {
        uint64_t length = end - offset, map;
        int status = block_co_status_above(node, NULL, offset, &length, &map, NULL, NULL);
        if (status < 0 || !length || !(status & BLOCK_STATUS_ZERO)) {
            return status < 0 ? status : 0;
        }
        offset += length;
    }
    return 1;
}

/* ---- length ---------------------------------------------------------------------------------- */

int block_co_truncate(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
                      struct error **errp)
{
    int ret;

    if (!(node->flags & BLOCK_OPEN_RDWR)) {
        error_set(errp, "Image '%s' is read-only", node->filename);
        return -EACCES;
    }
    if (length > INT64_MAX - node->request_mask) {
        error_set(errp, "A length of %llu bytes is too much", (unsigned long long)length);
        return -EFBIG;
    }
    if (node->driver->co_truncate) {
        ret = node->driver->co_truncate(node, length, prealloc, errp);
    } else if (node->driver->is_filter && node->file) {
        ret = block_co_truncate(node->file, length, prealloc, errp);
    } else {
        error_set(errp, "The length of '%s' cannot be changed: driver '%s' does not know how",
                  node->filename, node->driver->name);
        return -ENOTSUP;
    }
    if (ret < 0) {
        return ret;
    }
    int64_t now = node->driver->length(node);
    if (now < 0) {
        error_set_errno(errp, (int)-now, "Could not get the length of '%s'", node->filename);
        return (int)now;
    }
    atomic_store(&node->length, (uint64_t)now);
    block_bitmaps_resize(node, (uint64_t)now);
    if (node->driver->co_flush) {
        atomic_store(&node->unflushed, true);
    }
    return 0;
}

int64_t block_allocated(struct block_node *node)
{
    int64_t sum = 0;

    if (node->driver->allocated) {
        return node->driver->allocated(node);
    }
    if (!node->children) {
        return -ENOTSUP;
    }
    for (struct block_link *link = node->children; link; link = link->next_child) {
        int64_t bytes = link->role == BLOCK_CHILD_BACKING ? 0 : block_allocated(link->node);
        if (bytes < 0) {
            return bytes;
        }
        sum += bytes;
    }
    return sum;
}
