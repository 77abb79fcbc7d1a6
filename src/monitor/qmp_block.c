/* SPDX-License-Identifier: MIT */
/* QMP: block nodes and the backends of disks. */
#include "base/alloc.h"
#include "base/options.h"
#include "base/utf8.h"
#include "block/bitmap.h"
#include "block/image.h"
#include "block/throttle_group.h"
#include "device/device.h"
#include "monitor/qmp_commands.h"

/* A file name comes from outside and may not be UTF-8. */
static void set_text(json_t *object, const char *key, const char *text)
{
    autofree char *repaired = utf8_repair(text);

    json_object_set_new(object, key, json_string(repaired));
}

/* The limits of BlockDeviceInfo, in its order: with bursts and a group where there are any. */
static void add_limits(json_t *info, struct throttle_group *group)
{
    static const char *const names[THROTTLE_LIMITS] = {
        [THROTTLE_BPS_TOTAL] = "bps",     [THROTTLE_BPS_READ] = "bps_rd",
        [THROTTLE_BPS_WRITE] = "bps_wr",  [THROTTLE_IOPS_TOTAL] = "iops",
        [THROTTLE_IOPS_READ] = "iops_rd", [THROTTLE_IOPS_WRITE] = "iops_wr",
    };
    struct throttle_config config;

    throttle_config_init(&config);
    if (group) {
        throttle_group_get(group, &config);
        set_text(info, "group", throttle_group_name(group));
    }
    for (size_t i = 0; i < THROTTLE_LIMITS; i++) {
        const struct throttle_limit *limit = &config.limit[i];

        json_object_set_new(info, names[i], json_integer((json_int_t)limit->rate));
        if (limit->burst) {
            autofree char *burst = xasprintf("%s_max", names[i]);
            autofree char *length = xasprintf("%s_max_length", names[i]);
            json_object_set_new(info, burst, json_integer((json_int_t)limit->burst));
            json_object_set_new(info, length, json_integer((json_int_t)limit->burst_length));
        }
    }
    if (config.iops_size) {
        json_object_set_new(info, "iops_size", json_integer((json_int_t)config.iops_size));
    }
}

static const char *detect_name(unsigned flags)
{
    return flags & BLOCK_OPEN_DETECT_UNMAP    ? "unmap"
           : flags & BLOCK_OPEN_DETECT_ZEROES ? "on"
                                              : "off";
}

/* What shows through where the node has nothing, or what it filters; NULL: neither. */
static struct block_node *next_of_chain(const struct block_node *node)
{
    struct block_node *next = node->backing             ? node->backing
                              : node->driver->is_filter ? node->file
                                                        : NULL;

    return next ? block_node_skip_implicit(next) : NULL;
}

static json_t *image_info(struct block_node *node)
{
    struct block_image_description d;
    json_t *info;

    block_image_describe(node, false, &d);
    info = block_image_description_json(&d);
    block_image_description_free(&d);
    return info;
}

/* ImageInfo of a node, and within it of those below; *depth: how many these are. */
static json_t *chain_info(struct block_node *node, int *depth)
{
    json_t *top = image_info(node), *last = top;

    for (*depth = 0; (node = next_of_chain(node)); ++*depth) {
        json_t *info = image_info(node);
        json_object_set_new(last, "backing-image", info);
        last = info;
    }
    return top;
}

static json_t *bitmaps_info(struct block_node *node)
{
    json_t *list = json_array();

    for (struct block_bitmap *b = atomic_load(&node->bitmaps); b; b = b->next) {
        json_t *info =
            json_pack("{s:I, s:I, s:b, s:b, s:b}", "count",
                      b->inconsistent ? (json_int_t)0 : (json_int_t)block_bitmap_count(b),
                      "granularity", (json_int_t)b->granularity, "recording",
                      b->enabled && !b->inconsistent, "busy", 0, "persistent", b->persistent);
        set_text(info, "name", b->name);
        if (b->inconsistent) {
            json_object_set_new(info, "inconsistent", json_true());
        }
        json_array_append_new(list, info);
    }
    return list;
}

/* BlockDeviceInfo of a node, with the limits of a group or, if it is NULL, none. flat: of this node
 * alone. */
static json_t *node_info(struct block_node *node, bool write_cache, struct throttle_group *group,
                         bool flat)
{
    int depth = 0;
    json_t *image = flat ? image_info(node) : chain_info(node, &depth);
    json_t *info =
        json_pack("{s:s, s:s, s:b, s:i, s:b, s:i, s:s, s:{s:b, s:b, s:b}, s:o}", "node-name",
                  node->name, "drv", node->driver->name, "ro", !(node->flags & BLOCK_OPEN_RDWR),
                  "backing_file_depth", depth, "encrypted", 0, "write_threshold", 0,
                  "detect_zeroes", detect_name(node->flags), "cache", "writeback", write_cache,
                  "direct", !!(node->flags & BLOCK_OPEN_NOCACHE), "no-flush",
                  !!(node->flags & BLOCK_OPEN_NO_FLUSH), "image", image);

    set_text(info, "file", node->filename);
    if (node->backing) {
        set_text(info, "backing_file", node->backing->filename);
    }
    if (atomic_load(&node->bitmaps)) {
        json_object_set_new(info, "dirty-bitmaps", bitmaps_info(node));
    }
    add_limits(info, group);
    return info;
}

/* What a drive has: filters that -drive put there are not told of, but for their limits. */
static json_t *backend_info(struct block_backend *be)
{
    struct block_node *node = backend_root(be);
    struct throttle_group *group = NULL;

    for (; node->is_implicit; node = node->file) {
        struct throttle_group *own = throttle_node_group(node);
        group = own ? own : group;
    }
    return node_info(node, backend_write_cache(be), group, false);
}

json_t *qmp_query_named_block_nodes(json_t *args, struct error **errp)
{
    bool flat = json_is_true(json_object_get(args, "flat"));
    json_t *list = json_array();

    for (struct block_node *node = block_node_first(); node; node = node->next) {
        if (!node->is_implicit) {
            json_array_append_new(list, node_info(node, true, NULL, flat));
        }
    }
    return list;
}

json_t *qmp_query_block(json_t *args, struct error **errp)
{
    static const char *const statuses[] = {
        [BLOCK_IO_OK] = "ok",
        [BLOCK_IO_FAILED] = "failed",
        [BLOCK_IO_NOSPACE] = "nospace",
    };
    json_t *list = json_array();

    for (struct block_backend *be = backend_first(); be; be = backend_next(be)) {
        const struct device *dev = backend_owner(be);
        json_t *info =
            json_pack("{s:s, s:b, s:b, s:s, s:o}", "device", backend_name(be), "locked", 0,
                      "removable", !dev, "type", "unknown", "inserted", backend_info(be));

        if (backend_has_io_status(be)) {
            json_object_set_new(info, "io-status", json_string(statuses[backend_io_status(be)]));
        }
        if (dev) {
            autofree char *path = qom_path_of_disk(dev);
            json_object_set_new(info, "qdev", json_string(path));
        }
        json_array_append_new(list, info);
    }
    return list;
}

static json_t *with_options(json_t *args, bool (*run)(struct options *opts, struct error **errp),
                            struct error **errp)
{
    struct options *opts = options_from_json(args, errp);
    bool ok = opts && run(opts, errp);

    options_free(opts);
    return ok ? json_object() : NULL;
}

json_t *qmp_blockdev_add(json_t *args, struct error **errp)
{
    return with_options(args, blockdev_add, errp);
}

json_t *qmp_blockdev_del(json_t *args, struct error **errp)
{
    const char *name = json_string_value(json_object_get(args, "node-name"));

    return blockdev_del(name, errp) ? json_object() : NULL;
}
