/* SPDX-License-Identifier: MIT */
/* What all commands of ferry-img open, parse and print alike. See img.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "tools/common/tool.h"
#include "tools/img/img.h"

/* ---- images ---------------------------------------------------------------------------------- */

struct block_backend *img_open(const struct img_open *how, struct error **errp)
{
    struct block_image_how image = {
        .filename = how->filename,
        .format = how->image_opts ? NULL : how->format,
        .image_opts = how->image_opts,
        .cache = how->cache,
        .aio = how->aio,
        .writable = how->writable,
        .flags = how->flags,
        .user = tool_name(),
    };

    if (how->image_opts && how->format) {
        error_set(errp, "--image-opts and --format are mutually exclusive");
        return NULL;
    }
    struct block_backend *be = block_image_open(&image, errp);
    if (!be) {
        error_prepend(errp, "Could not open '%s': ", how->filename);
    }
    return be;
}

void img_warn_of_probing(struct block_backend *be)
{
    struct block_node *node = backend_root(be);

    if (node->flags & BLOCK_OPEN_PROBED && node->flags & BLOCK_OPEN_RDWR) {
        fprintf(stderr,
                "WARNING: Image format was not specified for '%s' and probing guessed raw.\n"
                "         What looks like the header of another format cannot be written to it.\n"
                "         Give the format 'raw' to lift that.\n",
                node->filename);
    }
}

const struct block_image_ops *img_ops(struct block_node *node)
{
    static const struct block_image_ops none;
    const struct block_driver *driver = block_node_skip_filters(node)->driver;

    return driver->image ? driver->image : &none;
}

struct block_node *img_format_node(struct block_backend *be)
{
    return block_node_skip_filters(backend_root(be));
}

/* ---- options --------------------------------------------------------------------------------- */

bool img_parse_output(const struct img_common *common, bool *json, struct error **errp)
{
    *json = common->output && !strcmp(common->output, "json");
    if (common->output && !*json && strcmp(common->output, "human") != 0) {
        error_set(errp, "--output must be used with human or json as argument.");
        return false;
    }
    return true;
}

bool img_wants_help(const char *list)
{
    while (list) {
        size_t length = strcspn(list, ",");
        if ((length == 4 && !strncmp(list, "help", 4)) || (length == 1 && *list == '?')) {
            return true;
        }
        list = list[length] ? list + length + 1 : NULL;
    }
    return false;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

void img_print_json(json_t *json)
{
    json_dumpf(json, stdout, JSON_INDENT(4) | JSON_ENCODE_ANY);
    putchar('\n');
    json_decref(json);
}
