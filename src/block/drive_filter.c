/* SPDX-License-Identifier: MIT */
/*
 * What -drive puts above its image: copy-on-read=on, and a throttle node for throttling.…, with the
 * old names bps=, iops_rd= and so on.
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "base/range.h"
#include "block/backend_int.h"
#include "block/name.h"

static const struct alias {
    const char *old, *name;
} aliases[] = {
    {"bps", "throttling.bps-total"},
    {"bps_rd", "throttling.bps-read"},
    {"bps_wr", "throttling.bps-write"},
    {"iops", "throttling.iops-total"},
    {"iops_rd", "throttling.iops-read"},
    {"iops_wr", "throttling.iops-write"},
    {"bps_max", "throttling.bps-total-max"},
    {"bps_rd_max", "throttling.bps-read-max"},
    {"bps_wr_max", "throttling.bps-write-max"},
    {"iops_max", "throttling.iops-total-max"},
    {"iops_rd_max", "throttling.iops-read-max"},
    {"iops_wr_max", "throttling.iops-write-max"},
    {"iops_size", "throttling.iops-size"},
    {"group", "throttling.group"},
};

static bool resolve_aliases(struct options *opts, struct error **errp)
{
    for (size_t i = 0; i < ARRAY_SIZE(aliases); i++) {
        const struct alias *a = &aliases[i];
        autofree char *value = options_take(opts, a->old);

        if (value && options_has(opts, a->name)) {
            error_set(errp, "'%s' and its alias '%s' can't be used at the same time", a->name,
                      a->old);
            return false;
        }
        if (value) {
            options_set(opts, a->name, value);
        }
    }
    return true;
}

bool drive_take_filters(struct options *opts, struct drive_filters *filters, struct error **errp)
{
    *filters = (struct drive_filters){0};
    throttle_config_init(&filters->limits);
    if (!resolve_aliases(opts, errp)) {
        return false;
    }
    struct options *nested = options_take_prefix(opts, "throttling");
    bool ok = throttle_config_parse(&filters->limits, nested, "", errp);
    filters->group = options_take(nested, "group");
    ok = ok && options_check_used(nested, "throttling", errp) &&
         throttle_config_check(&filters->limits, errp) &&
         options_get_bool(opts, "copy-on-read", &filters->copy_on_read, errp);
    options_free(nested);
    if (!ok) {
        drive_filters_free(filters);
    }
    return ok;
}

void drive_filters_free(struct drive_filters *filters)
{
    free(filters->group);
    filters->group = NULL;
}

/* The filter over `root`, which it gets the flags of; takes root's reference. */
static struct block_node *put_filter(struct block_node *root, struct options *opts,
                                     struct error **errp)
{
    options_set(opts, "file", root->name);
    struct block_node *node = block_node_open(
        opts, root->flags & ~(BLOCK_OPEN_NOT_INHERITED | BLOCK_OPEN_AUTO_READ_ONLY), errp);
    options_free(opts);
    block_node_unref(root);
    if (node) {
        block_name_set_implicit(node);
    }
    return node;
}

static struct block_node *put_copy_on_read(struct block_node *root, struct error **errp)
{
    if (!(root->flags & BLOCK_OPEN_RDWR)) {
        log_warn("disabling copy-on-read on read-only drive '%s'", root->filename);
        return root;
    }
    struct options *opts = options_new();
    options_set(opts, "driver", "copy-on-read");
    return put_filter(root, opts, errp);
}

static struct block_node *put_throttle(struct block_node *root, const struct drive_filters *filters,
                                       const char *id, struct error **errp)
{
    const char *name = filters->group ? filters->group : id;
    struct throttle_group *group = throttle_group_find(name);

    if (group) {
        throttle_group_ref(group);
    } else {
        group = throttle_group_new(name, NULL);
    }
    /* Who comes last says what the group's limits are, as in QEMU. */
    throttle_group_set(group, &filters->limits);
    struct options *opts = options_new();
    options_set(opts, "driver", "throttle");
    options_set(opts, "throttle-group", name);
    struct block_node *node = put_filter(root, opts, errp);
    throttle_group_unref(group);
    return node;
}

struct block_node *drive_put_filters(struct block_node *root, const struct drive_filters *filters,
                                     const char *id, struct error **errp)
{
    if (root && filters->copy_on_read) {
        root = put_copy_on_read(root, errp);
    }
    if (root && throttle_config_is_on(&filters->limits)) {
        root = put_throttle(root, filters, id, errp);
    }
    return root;
}
