/* SPDX-License-Identifier: MIT */
/* -blockdev: nodes that belong to the monitor, until it deletes them or the process ends. */
#include "base/options.h"
#include "block/backend.h"

bool blockdev_add(struct options *opts, struct error **errp)
{
    if (!options_has(opts, "node-name")) {
        error_set(errp, "'node-name' must be specified for the root node");
        return false;
    }
    if (!options_check_type(opts, "node-name", OPTION_STRING, errp) ||
        !options_check_nested(opts, errp)) {
        return false;
    }
    options_want_types(opts);
    struct block_node *node = block_node_open(opts, BLOCK_OPEN_RDWR, errp);
    if (node) {
        node->monitor_owned = true;
    }
    return node;
}

bool blockdev_del(const char *node_name, struct error **errp)
{
    struct block_node *node = block_node_find(node_name);

    if (!node) {
        error_set(errp, "Failed to find node with node-name='%s'", node_name);
        return false;
    }
    if (!node->monitor_owned) {
        error_set(errp, "Node %s is not owned by the monitor", node_name);
        return false;
    }
    if (node->users) {
        error_set(errp, "Block device %s is in use by '%s'", node_name, node->users->user);
        return false;
    }
    node->monitor_owned = false;
    block_node_unref(node);
    return true;
}
