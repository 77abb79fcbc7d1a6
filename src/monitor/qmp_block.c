/* SPDX-License-Identifier: MIT */
/* QMP: block nodes and the backends of disks. */
#include "base/alloc.h"
#include "base/options.h"
#include "base/utf8.h"
#include "block/backend.h"
#include "block/node.h"
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

/* BlockDeviceInfo of a node, with the limits of a group or, if it is NULL, none. */
static json_t *node_info(struct block_node *node, bool write_cache, struct throttle_group *group)
{
    json_t *info =
        json_pack("{s:s, s:s, s:b, s:i, s:b, s:i, s:s, s:{s:b, s:b, s:b}, s:{s:s, s:I}}",
                  "node-name", node->name, "drv", node->driver->name, "ro",
                  !(node->flags & BLOCK_OPEN_RDWR), "backing_file_depth", 0, "encrypted", 0,
                  "write_threshold", 0, "detect_zeroes", detect_name(node->flags), "cache",
                  "writeback", write_cache, "direct", !!(node->flags & BLOCK_OPEN_NOCACHE),
                  "no-flush", !!(node->flags & BLOCK_OPEN_NO_FLUSH), "image", "format",
                  node->driver->name, "virtual-size", (json_int_t)block_length(node));

    set_text(info, "file", node->filename);
    set_text(json_object_get(info, "image"), "filename", node->filename);
    add_limits(info, group);
    return info;
}

/* What a drive has: filters that -drive put there are not told of, but for their limits. */
static json_t *backend_info(struct block_backend *be)
{
    struct block_node *node = backend_root(be);
    struct throttle_group *group = NULL;

    while (node->driver->is_filter && node->name[0] == '#') {
        struct throttle_group *own = throttle_node_group(node);
        group = own ? own : group;
        node = node->file;
    }
    return node_info(node, backend_write_cache(be), group);
}

json_t *qmp_query_named_block_nodes(json_t *args, struct error **errp)
{
    json_t *list = json_array();

    for (struct block_node *node = block_node_first(); node; node = node->next) {
        json_array_append_new(list, node_info(node, true, throttle_node_group(node)));
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
        const char *device = backend_device(be);
        json_t *info =
            json_pack("{s:s, s:b, s:b, s:s, s:o}", "device", backend_name(be), "locked", 0,
                      "removable", 0, "type", "unknown", "inserted", backend_info(be));

        if (backend_has_io_status(be)) {
            json_object_set_new(info, "io-status", json_string(statuses[backend_io_status(be)]));
        }
        /* Without an id it is only a type's name. */
        if (device_find(device)) {
            json_object_set_new(info, "qdev", json_string(device));
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
