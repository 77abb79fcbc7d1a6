/* SPDX-License-Identifier: MIT */
/* Answers for images that need what this build lacks. */
#include <errno.h>

#include "block/qcow2/qcow2.h"

/* ---- image operations ------------------------------------------------------------------------ */

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
