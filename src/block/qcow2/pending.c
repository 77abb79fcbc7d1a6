/* SPDX-License-Identifier: MIT */
/* Answers for images that need what this build lacks. */
#include <errno.h>

#include "block/qcow2/qcow2.h"

/* ---- requests -------------------------------------------------------------------------------- */

int qcow2_co_pwritev(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                     unsigned flags, uint64_t id)
{
    return -ENOTSUP;
}

int qcow2_co_flush(struct block_node *node, uint64_t id)
{
    return block_co_flush(node->file, id);
}

int qcow2_co_discard(struct block_node *node, uint64_t offset, uint64_t length)
{
    return -ENOTSUP;
}

int qcow2_co_write_zeroes(struct block_node *node, uint64_t offset, uint64_t length, unsigned flags)
{
    return -ENOTSUP;
}

int64_t co_qcow2_alloc_clusters(struct block_node *node, uint64_t bytes)
{
    return -ENOTSUP;
}

int co_qcow2_unref(struct block_node *node, uint64_t offset, uint64_t length, bool discard)
{
    return -ENOTSUP;
}

void qcow2_free(struct block_node *node, uint64_t offset, uint64_t length, bool discard)
{
}

void qcow2_reset_allocator(struct block_node *node)
{
}

int co_qcow2_mark_clean(struct block_node *node)
{
    return 0;
}

/* ---- compressed clusters --------------------------------------------------------------------- */

int co_qcow2_read_compressed(struct block_node *node, uint64_t entry, void *to)
{
    return -ENOTSUP;
}

int co_qcow2_write_compressed(struct block_node *node, uint64_t offset, const void *data,
                              uint64_t id)
{
    return -ENOTSUP;
}

/* ---- image operations ------------------------------------------------------------------------ */

int qcow2_co_truncate(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
                      struct error **errp)
{
    error_set(errp, "The length of '%s' cannot be changed", node->filename);
    return -ENOTSUP;
}

int co_qcow2_load_bitmaps(struct block_node *node, struct error **errp)
{
    if (node->flags & BLOCK_OPEN_RDWR) {
        error_set(errp, "'%s' has bitmaps and can only be opened with read-only=on",
                  node->filename);
        return -ENOTSUP;
    }
    return 0;
}

int co_qcow2_store_bitmaps(struct block_node *node, struct error **errp)
{
    return 0;
}
