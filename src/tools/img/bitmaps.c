/* SPDX-License-Identifier: MIT */
/* Persistent dirty bitmaps from image to image. See bitmaps.h. */
#include "tools/img/bitmaps.h"

#include "base/log.h"
#include "block/bitmap.h"
#include "tools/img/img.h"

bool bitmaps_check(struct block_backend *source, bool skip_broken, struct error **errp)
{
    struct block_node *node = img_format_node(source);

    if (!img_ops(node)->keep_bitmaps) {
        error_set(errp, "Format driver '%s' does not support bitmaps", node->driver->name);
        return false;
    }
    return true;
}

bool bitmaps_copy(struct block_backend *source, struct block_backend *target, bool skip_broken,
                  bool quiet, struct error **errp)
{
    return img_ops(img_format_node(target))->keep_bitmaps(img_format_node(target), errp);
}
