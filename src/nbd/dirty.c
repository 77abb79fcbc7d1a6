/* SPDX-License-Identifier: MIT */
/* Dirty bitmaps as metadata contexts, qemu:dirty-bitmap:NAME. */
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/bitmap.h"
#include "nbd/connection.h"

/* In the image, or below it: behind filters, in backing files. *is_writable: others may write to
 * the node that has it. */
static struct block_bitmap *find_bitmap(struct block_backend *be, const char *name,
                                        bool *is_writable)
{
    for (struct block_node *node = backend_root(be); node;
         node = node->driver->is_filter ? node->file : node->backing) {
        struct block_bitmap *bitmap = block_bitmap_find(node, name);
        if (bitmap) {
            *is_writable = node->flags & BLOCK_OPEN_RDWR;
            return bitmap;
        }
    }
    return NULL;
}

bool nbd_export_take_bitmaps(struct nbd_export *export, const struct nbd_export_config *config,
                             struct error **errp)
{
    export->bitmaps = xcalloc(MAX(config->bitmap_count, 1), sizeof(*export->bitmaps));
    for (size_t i = 0; i < config->bitmap_count; i++) {
        bool is_writable = false;
        struct block_bitmap *bitmap = find_bitmap(config->be, config->bitmaps[i], &is_writable);
        if (!bitmap) {
            error_set(errp, "Bitmap '%s' is not found", config->bitmaps[i]);
            return false;
        }
        if (bitmap->inconsistent) {
            error_set(errp,
                      "Bitmap '%s' is inconsistent and cannot be used; remove it with 'ferry-img "
                      "bitmap --remove'",
                      config->bitmaps[i]);
            return false;
        }
        /* Clients take what a read-only export tells for constant. */
        if (bitmap->enabled && is_writable && !config->writable) {
            error_set(errp, "Enabled bitmap '%s' incompatible with readonly export",
                      config->bitmaps[i]);
            return false;
        }
        export->bitmaps[export->bitmap_count++] = bitmap;
    }
    return true;
}

void nbd_add_dirty(const struct nbd_request *r, const struct block_bitmap *bitmap,
                   struct nbd_extents *list)
{
    const struct nbd_export *export = r->conn->export;
    uint64_t offset = export->offset + r->offset, end = offset + r->length;

    while (offset < end) {
        uint64_t start, length;
        if (!block_bitmap_next_dirty(bitmap, offset, &start, &length) || start >= end) {
            start = end;
            length = 0;
        }
        length = MIN(length, end - start);
        if ((start > offset && !nbd_add_extent(list, start - offset, 0)) ||
            (length > 0 && !nbd_add_extent(list, length, NBD_STATE_DIRTY))) {
            return;
        }
        offset = start + length;
    }
}
