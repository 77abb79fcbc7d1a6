/* SPDX-License-Identifier: MIT */
/* What all commands of ferry-img open, parse and print alike. See img.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "tools/common/tool.h"
#include "tools/img/img.h"

/* ---- images ---------------------------------------------------------------------------------- */

static bool has_force_share;

void img_begin(const struct img_command *command)
{
    for (const struct tool_option *o = command->options; o->letter || o->name; o++) {
        has_force_share |= o->letter == 'U';
    }
}

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
    tool_has_force_share(has_force_share && !how->writable);
    struct block_backend *be = block_image_open(&image, errp);
    if (!be) {
        error_prepend_once(errp, "Could not open '%s': ", how->filename); /* as qemu-img */
    }
    return be;
}

void img_warn_of_probing(struct block_backend *be)
{
    tool_warn_of_probing(backend_root(be));
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

struct block_node *img_snapshot_node(struct block_backend *be)
{
    return block_snapshot_node(backend_root(be));
}

bool img_is_new(const char *filename)
{
    autofree char *path = block_image_path(filename);
    struct stat st;

    return path && stat(path, &st) < 0 && errno == ENOENT;
}

void img_clean_up(const char *filename, bool was_new, struct error **errp)
{
    autofree char *path = block_image_path(filename);
    autofree char *file = path ? realpath(path, NULL) : NULL; /* not the link that leads there */
    struct stat st;

    if (path && (!file || stat(file, &st) < 0)) {
        return;
    }
    if (was_new && file && S_ISREG(st.st_mode) && unlink(file) == 0) {
        error_add_hint(errp, "%s: target '%s' was incomplete and has been removed", tool_name(),
                       filename);
    } else {
        error_add_hint(errp, "%s: target '%s' is incomplete", tool_name(), filename);
    }
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
