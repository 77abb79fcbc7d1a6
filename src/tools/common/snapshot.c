/* SPDX-License-Identifier: MIT */
/* Images of the tools: -l, and formats that were guessed. See tool.h. */
#include <stdio.h>
#include <string.h>

#include "base/options.h"
#include "block/image.h"
#include "tools/common/tool.h"

#define PREFIX "snapshot."

static bool load(struct block_node *node, const struct block_snapshot_key *key, struct error **errp)
{
    const struct block_image_ops *ops = node->driver->image;

    if (!ops || !ops->snapshot_load) {
        error_set(errp,
                  "Failed to load snapshot: Device '%s' (%s) does not support internal snapshots",
                  node->filename, node->driver->name);
        return false;
    }
    return ops->snapshot_load(node, key, errp);
}

bool tool_load_snapshot(struct block_node *node, const char *text, struct error **errp)
{
    node = block_node_skip_filters(node);
    if (strncmp(text, PREFIX, strlen(PREFIX)) != 0) {
        return load(node, &(struct block_snapshot_key){.id_or_name = text}, errp);
    }
    struct options *opts = options_parse(text, NULL, errp);
    if (!opts) {
        return false;
    }
    struct block_snapshot_key key = {
        .id = options_get(opts, PREFIX "id"),
        .name = options_get(opts, PREFIX "name"),
    };
    bool ok = options_check_used(opts, "-l", errp) && load(node, &key, errp);
    options_free(opts);
    return ok;
}

void tool_warn_of_probing(const struct block_node *node)
{
    if (node->flags & BLOCK_OPEN_PROBED && node->flags & BLOCK_OPEN_RDWR) {
        fprintf(stderr,
                "WARNING: Image format was not specified for '%s' and probing guessed raw.\n"
                "         What looks like the header of another format cannot be written to it.\n"
                "         Give the format 'raw' to lift that.\n",
                node->filename);
    }
}
