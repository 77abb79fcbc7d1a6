/* SPDX-License-Identifier: MIT */
/* The throttle-group object. See throttle_object.h. */
#include "device/throttle_object.h"

#include "block/throttle_group.h"

struct throttle_object {
    struct device dev;
    /* constant after realize */
    struct throttle_config config;
    struct throttle_group *group; /* a reference: throttle nodes have theirs */
};

static bool throttle_object_realize(struct device *dev, struct error **errp)
{
    struct throttle_object *object = (struct throttle_object *)dev;

    if (!throttle_config_check(&object->config, errp)) {
        return false;
    }
    object->group = throttle_group_new(dev->id ? dev->id : "", errp);
    if (object->group) {
        throttle_group_set(object->group, &object->config);
        throttle_group_count_users(object->group, &dev->users);
    }
    return object->group;
}

static void throttle_object_unrealize(struct device *dev)
{
    struct throttle_object *object = (struct throttle_object *)dev;

    throttle_group_count_users(object->group, NULL);
    throttle_group_unref(object->group);
    object->group = NULL;
}

/* A limit by its two names; a burst's length fits into 32 bits. */
#define VALUE(name, field, value, max, text)                                                       \
    PROPERTY_UINT64("x-" name, struct throttle_object, field, value, 0, max, text),                \
        PROPERTY_UINT64("limits." name, struct throttle_object, field, value, 0, max, text)
#define LIMIT(id, name, what)                                                                      \
    VALUE(name, config.limit[id].rate, 0, INT64_MAX, what " per second"),                          \
        VALUE(name "-max", config.limit[id].burst, 0, INT64_MAX,                                   \
              what " per second in a burst, 0 means bursts of 0.1 s"),                             \
        VALUE(name "-max-length", config.limit[id].burst_length, 1, UINT32_MAX,                    \
              "longest burst, in seconds")

static const struct property throttle_object_props[] = {
    LIMIT(THROTTLE_BPS_TOTAL, "bps-total", "bytes"),
    LIMIT(THROTTLE_BPS_READ, "bps-read", "bytes read"),
    LIMIT(THROTTLE_BPS_WRITE, "bps-write", "bytes written"),
    LIMIT(THROTTLE_IOPS_TOTAL, "iops-total", "operations"),
    LIMIT(THROTTLE_IOPS_READ, "iops-read", "reads"),
    LIMIT(THROTTLE_IOPS_WRITE, "iops-write", "writes"),
    VALUE("iops-size", config.iops_size, 0, INT64_MAX,
          "bytes that count as an operation, 0 means that a request is one"),
    PROPERTY_END,
};

const struct device_type throttle_group_type = {
    .name = "throttle-group",
    .description = "limits of I/O that drives share",
    .category = DEVICE_CATEGORY_MISC,
    .size = sizeof(struct throttle_object),
    .is_object = true,
    .props = throttle_object_props,
    .realize = throttle_object_realize,
    .unrealize = throttle_object_unrealize,
};
