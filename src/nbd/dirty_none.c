/* SPDX-License-Identifier: MIT */
/* A build without dirty bitmaps. */
#include "nbd/connection.h"

bool nbd_export_take_bitmaps(struct nbd_export *export, const struct nbd_export_config *config,
                             struct error **errp)
{
    if (config->bitmap_count) {
        error_set(errp, "Bitmap '%s': this build has no dirty bitmaps", config->bitmaps[0]);
    }
    return !config->bitmap_count;
}

void nbd_add_dirty(const struct nbd_request *r, const struct block_bitmap *bitmap,
                   struct nbd_extents *list)
{
}
