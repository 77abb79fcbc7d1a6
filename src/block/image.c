/* SPDX-License-Identifier: MIT */
/* Images opened for tools. See image.h. */
#include "block/image.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/options.h"
#include "block/filename.h"
#include "block/open.h"

/* ---- opening --------------------------------------------------------------------------------- */

static struct options *image_options(const struct block_image_how *how, struct error **errp)
{
    struct options *opts;

    if (how->image_opts) {
        opts = options_parse(how->filename, NULL, errp);
        if (opts && how->format) {
            error_set(errp, "--image-opts and --format are mutually exclusive");
            options_free(opts);
            return NULL;
        }
        return opts;
    }
    opts = options_new();
    if ((how->format && !block_open_set_format(opts, how->format, errp)) ||
        !block_open_add_filename(opts, how->filename, errp)) {
        options_free(opts);
        return NULL;
    }
    return opts;
}

/* Flags that options cannot override, because the tool says what it does with the image. */
static struct block_node *open_node(const struct block_image_how *how, bool *write_cache,
                                    struct error **errp)
{
    unsigned flags = how->flags | (how->writable ? BLOCK_OPEN_RDWR : 0);
    struct options *opts = image_options(how, errp);
    struct block_node *node = NULL;

    if (!opts) {
        return NULL;
    }
    if (how->detect_zeroes) {
        options_set(opts, "detect-zeroes", how->detect_zeroes);
    }
    if (block_open_set_cache(opts, how->cache, write_cache, errp) &&
        (!how->aio || block_open_set_aio(opts, how->aio, errp))) {
        node = block_open_root(opts, flags, false, errp);
    }
    options_free(opts);
    return node;
}

struct block_node *block_image_open_node(const struct block_image_how *how, struct error **errp)
{
    bool write_cache;

    return open_node(how, &write_cache, errp);
}

struct block_backend *block_image_open(const struct block_image_how *how, struct error **errp)
{
    bool write_cache;
    struct block_node *node = open_node(how, &write_cache, errp);

    if (!node) {
        return NULL;
    }
    if (how->writable && !(node->flags & BLOCK_OPEN_RDWR)) {
        error_set(errp,
                  "Block node is read-only: '%s', which %s wants to write; leave out read-only=on "
                  "and auto-read-only=on",
                  node->filename, how->user);
        block_node_unref(node);
        return NULL;
    }
    bool shares_write = how->shares_write || how->flags & BLOCK_OPEN_FORCE_SHARE;
    struct block_backend *be =
        backend_attach(node->name, how->user, how->writable, shares_write, errp);
    block_node_unref(node);
    if (be) {
        backend_set_write_cache(be, write_cache);
    }
    return be;
}

void block_image_close(struct block_backend *be)
{
    backend_detach(be);
}

/* ---- names ----------------------------------------------------------------------------------- */

char *block_image_backing_path(const char *image_filename, const char *backing, struct error **errp)
{
    if (*backing == '/' || block_filename_has_protocol(backing)) {
        return xstrdup(backing);
    }
    if (!strncmp(image_filename, "file:", strlen("file:"))) {
        image_filename += strlen("file:");
    }
    if (block_filename_has_protocol(image_filename)) {
        error_set(errp, "Cannot use relative backing file names for '%s': '%s'", image_filename,
                  backing);
        return NULL;
    }
    const char *slash = strrchr(image_filename, '/');
    int folder = slash ? (int)(slash - image_filename) + 1 : 0;
    return xasprintf("%.*s%s", folder, image_filename, backing);
}

char *block_image_data_path(const char *image_filename, const char *data_file, struct error **errp)
{
    bool has_prefix = !strncmp(data_file, "file:", strlen("file:"));

    return block_image_backing_path(image_filename, data_file + (has_prefix ? 5 : 0), errp);
}

char *block_image_path(const char *filename)
{
    struct options *opts = block_filename_parse(filename, NULL);
    char *driver = opts ? options_take(opts, "driver") : NULL;
    char *path = driver && !strcmp(driver, "file") ? options_take(opts, "filename") : NULL;

    free(driver);
    options_free(opts);
    return path;
}

char *block_node_backing_path(const struct block_node *node, const char *backing,
                              struct error **errp)
{
    while (node->file) {
        node = node->file;
    }
    return block_image_backing_path(node->filename, backing, errp);
}
