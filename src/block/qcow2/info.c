/* SPDX-License-Identifier: MIT */
/* What an image is like, as QMP's ImageInfoSpecificQCow2 says it. */
#include "base/alloc.h"
#include "base/utf8.h"
#include "block/qcow2/bitmap.h"

/* Names are whatever the image has. */
static json_t *text_of(const char *name)
{
    autofree char *text = utf8_repair(name);

    return json_string(text);
}

static json_t *bitmap_list(const struct qcow2_state *s)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < s->bitmap_count; i++) {
        const struct qcow2_bitmap *b = s->bitmaps[i];
        json_t *bitmap = json_object(), *flags = json_array();
        if (b->flags & QCOW2_BITMAP_IN_USE) {
            json_array_append_new(flags, json_string("in-use"));
        }
        if (b->flags & QCOW2_BITMAP_AUTO) {
            json_array_append_new(flags, json_string("auto"));
        }
        json_object_set_new(bitmap, "flags", flags);
        json_object_set_new(bitmap, "name", text_of(b->name));
        json_object_set_new(bitmap, "granularity",
                            json_integer((json_int_t)BIT64(b->granularity_bits & 63)));
        json_array_append_new(list, bitmap);
    }
    return list;
}

static json_t *specific_data(const struct qcow2_state *s)
{
    json_t *data = json_object();

    json_object_set_new(data, "compat", json_string(s->version >= 3 ? "1.1" : "0.10"));
    json_object_set_new(data, "compression-type",
                        json_string(s->compression == QCOW2_COMPRESSION_ZSTD ? "zstd" : "zlib"));
    if (s->version >= 3) {
        json_object_set_new(data, "lazy-refcounts",
                            json_boolean(s->compatible & QCOW2_COMPAT_LAZY));
    }
    if (s->bitmaps && s->bitmap_count) {
        json_object_set_new(data, "bitmaps", bitmap_list(s));
    }
    json_object_set_new(data, "refcount-bits", json_integer(1 << s->refcount_order));
    if (s->version < 3) {
        return data;
    }
    if (s->has_data_file) {
        if (s->data_file_name) {
            json_object_set_new(data, "data-file", text_of(s->data_file_name));
        }
        json_object_set_new(data, "data-file-raw",
                            json_boolean(s->autoclear & QCOW2_AUTOCLEAR_DATA_RAW));
    }
    json_object_set_new(data, "corrupt", json_boolean(s->incompatible & QCOW2_INCOMPAT_CORRUPT));
    json_object_set_new(data, "extended-l2", json_boolean(s->extended_l2));
    return data;
}

void qcow2_info(struct block_node *node, struct block_image_info *info)
{
    const struct qcow2_state *s = qcow2_of(node);

    info->cluster_size = s->cluster_size;
    info->is_dirty = s->incompatible & QCOW2_INCOMPAT_DIRTY;
    info->is_corrupt = s->incompatible & QCOW2_INCOMPAT_CORRUPT;
    info->backing_filename = s->backing_name ? xstrdup(s->backing_name) : NULL;
    info->backing_format = s->backing_format ? xstrdup(s->backing_format) : NULL;
    info->specific = json_object();
    json_object_set_new(info->specific, "type", json_string("qcow2"));
    json_object_set_new(info->specific, "data", specific_data(s));
}
