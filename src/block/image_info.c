/* SPDX-License-Identifier: MIT */
/* What images are, for tools and QMP. See image.h. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "block/image.h"

struct block_node *block_snapshot_node(struct block_node *node)
{
    node = block_node_skip_filters(node);
    while (!strcmp(node->driver->name, "raw")) {
        node = block_node_skip_filters(node->file);
    }
    return node;
}

/* raw tells what its file tells of clusters. */
static void add_details(struct block_node *node, struct block_image_info *info)
{
    struct block_node *below = block_snapshot_node(node);
    struct block_image_info there;

    info->has_details = !below->driver->is_protocol || !strcmp(below->driver->name, "file") ||
                        !strcmp(below->driver->name, "host_device");
    if (!strcmp(node->driver->name, "raw") && below->driver->image) {
        block_image_info(below, &there);
        info->cluster_size = there.cluster_size;
        info->is_dirty = there.is_dirty;
        block_image_info_free(&there);
    }
}

void block_image_info(struct block_node *node, struct block_image_info *info)
{
    *info = (struct block_image_info){
        .virtual_size = block_length(node),
        .actual_size = block_allocated(node),
    };
    if (info->actual_size < 0) {
        info->actual_size = -1;
    }
    struct block_node *format = block_node_skip_filters(node);
    if (format->driver->image && format->driver->image->info) {
        format->driver->image->info(format, info);
    }
    add_details(format, info);
    if (info->backing_filename && !info->full_backing_filename) {
        info->full_backing_filename = block_node_backing_path(format, info->backing_filename, NULL);
    }
}

void block_image_info_free(struct block_image_info *info)
{
    free(info->backing_filename);
    free(info->full_backing_filename);
    free(info->backing_format);
    json_decref(info->specific);
    *info = (struct block_image_info){0};
}

void block_snapshots_free(struct block_snapshot *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(list[i].id);
        free(list[i].name);
    }
    free(list);
}

/* ---- descriptions ---------------------------------------------------------------------------- */

/* What is left is what QEMU tells of a filter. */
static void keep_sizes(struct block_image_info *info)
{
    struct block_image_info sizes = {
        .virtual_size = info->virtual_size,
        .actual_size = info->actual_size,
        .cluster_size = info->cluster_size,
        .is_dirty = info->is_dirty,
        .has_details = info->has_details,
    };

    block_image_info_free(info);
    *info = sizes;
}

void block_image_describe(struct block_node *node, bool looks_through,
                          struct block_image_description *d)
{
    struct block_node *format = block_node_skip_filters(node);
    struct block_node *owner = block_snapshot_node(node);

    *d = (struct block_image_description){
        .filename = xstrdup(node->filename),
        .format = xstrdup(node->driver->name),
    };
    block_image_info(node, &d->info);
    if (format != node && !looks_through) {
        keep_sizes(&d->info);
    } else if (owner->driver->image && owner->driver->image->snapshot_list) {
        d->snapshot_count = owner->driver->image->snapshot_list(owner, &d->snapshots);
    }
}

void block_image_description_free(struct block_image_description *d)
{
    block_image_info_free(&d->info);
    block_snapshots_free(d->snapshots, d->snapshot_count);
    free(d->filename);
    free(d->format);
    *d = (struct block_image_description){0};
}

static void set_string(json_t *object, const char *key, const char *value)
{
    if (value) {
        /* File names need not be UTF-8, JSON is. */
        autofree char *text = utf8_repair(value);
        json_object_set_new(object, key, json_string(text));
    }
}

static json_t *snapshots_json(const struct block_image_description *d)
{
    json_t *array = json_array();

    for (size_t i = 0; i < d->snapshot_count; i++) {
        const struct block_snapshot *s = &d->snapshots[i];
        json_t *object = json_object();
        set_string(object, "id", s->id);
        set_string(object, "name", s->name);
        json_object_set_new(object, "vm-state-size", json_integer((json_int_t)s->vm_state_size));
        json_object_set_new(object, "date-sec", json_integer(s->date_sec));
        json_object_set_new(object, "date-nsec", json_integer(s->date_nsec));
        json_object_set_new(object, "vm-clock-sec",
                            json_integer((json_int_t)(s->vm_clock_ns / 1000000000)));
        json_object_set_new(object, "vm-clock-nsec",
                            json_integer((json_int_t)(s->vm_clock_ns % 1000000000)));
        if (s->icount >= 0) {
            json_object_set_new(object, "icount", json_integer(s->icount));
        }
        json_array_append_new(array, object);
    }
    return array;
}

json_t *block_image_description_json(const struct block_image_description *d)
{
    const struct block_image_info *info = &d->info;
    json_t *object = json_object();

    set_string(object, "filename", d->filename);
    set_string(object, "format", d->format);
    json_object_set_new(object, "virtual-size", json_integer((json_int_t)info->virtual_size));
    if (info->actual_size >= 0) {
        json_object_set_new(object, "actual-size", json_integer(info->actual_size));
    }
    if (info->has_details) {
        json_object_set_new(object, "dirty-flag", json_boolean(info->is_dirty));
    }
    if (info->has_encryption) {
        json_object_set_new(object, "encrypted", json_true());
    }
    if (info->cluster_size) {
        json_object_set_new(object, "cluster-size", json_integer(info->cluster_size));
    }
    set_string(object, "backing-filename", info->backing_filename);
    set_string(object, "full-backing-filename", info->full_backing_filename);
    set_string(object, "backing-filename-format", info->backing_format);
    if (d->snapshot_count) {
        json_object_set_new(object, "snapshots", snapshots_json(d));
    }
    if (info->specific) {
        json_object_set(object, "format-specific", info->specific);
    }
    return object;
}
