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
    for (struct block_bitmap *b = node->bitmaps; b; b = b->next) {
        if (b->persistent && b->inconsistent && !skip_broken) {
            error_set(errp, "Cannot copy inconsistent bitmap '%s'", b->name);
            error_add_hint(errp, "Use --skip-broken-bitmaps, or use 'ferry-img bitmap --remove'");
            return false;
        }
    }
    return true;
}

static bool can_keep(const struct block_bitmap *from, struct block_node *to, struct error **errp)
{
    if (!img_ops(to)->can_keep_bitmap(to, from->name, from->granularity, errp)) {
        error_prepend(errp, "Failed to copy bitmap '%s': ", from->name);
        return false;
    }
    return true;
}

bool bitmaps_check_target(struct block_backend *source, struct block_backend *target,
                          struct error **errp)
{
    struct block_node *to = img_format_node(target);

    for (struct block_bitmap *b = img_format_node(source)->bitmaps; b; b = b->next) {
        if (b->persistent && !b->inconsistent && !can_keep(b, to, errp)) {
            return false;
        }
    }
    return true;
}

static bool copy_bitmap(const struct block_bitmap *from, struct block_node *to, struct error **errp)
{
    struct block_bitmap *bitmap = block_bitmap_new(to, from->name, from->granularity, errp);

    if (bitmap) {
        bitmap->persistent = true;
        bitmap->enabled = from->enabled;
    }
    if (!bitmap || !block_bitmap_merge(bitmap, from, errp)) {
        error_prepend(errp, "Failed to copy bitmap '%s': ", from->name);
        return false;
    }
    return true;
}

bool bitmaps_copy(struct block_backend *source, struct block_backend *target, bool skip_broken,
                  bool quiet, struct error **errp)
{
    struct block_node *from = img_format_node(source), *to = img_format_node(target);

    for (struct block_bitmap *b = from->bitmaps; b; b = b->next) {
        if (!b->persistent) {
            continue;
        }
        if (b->inconsistent && skip_broken) {
            if (!quiet) {
                log_warn("Skipping inconsistent bitmap '%s'", b->name);
            }
            continue;
        }
        if (!can_keep(b, to, errp) || !copy_bitmap(b, to, errp)) {
            return false;
        }
    }
    return img_ops(to)->keep_bitmaps(to, errp);
}
