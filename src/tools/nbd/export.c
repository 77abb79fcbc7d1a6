/* SPDX-License-Identifier: MIT */
/* Images, opened and exported. See nbd_tool.h. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "block/image.h"
#include "tools/common/tool.h"
#include "tools/nbd/nbd_tool.h"

#define USER "ferry-nbd"

/* ---- opening --------------------------------------------------------------------------------- */

static bool unmaps(const struct nbd_args *args)
{
    return args->discard && (!strcmp(args->discard, "unmap") || !strcmp(args->discard, "on"));
}

static struct block_backend *open_image(const struct nbd_args *args,
                                        const struct block_image_how *how, struct error **errp)
{
    struct block_backend *be = block_image_open(how, errp);

    if (be && args->snapshot && !tool_load_snapshot(backend_root(be), args->snapshot, errp)) {
        error_prepend(errp, "'%s', snapshot '%s': ", backend_root(be)->filename, args->snapshot);
        block_image_close(be);
        return NULL;
    }
    if (be) {
        tool_warn_of_probing(backend_root(be));
    }
    return be;
}

/* Exports an image that has been opened; it is the list's then. */
static bool add(struct nbd_server *server, struct nbd_images *images,
                const struct nbd_export_config *config, struct error **errp)
{
    images->list = xreallocarray(images->list, images->count + 1, sizeof(*images->list));
    images->list[images->count++] = config->be;
    return nbd_server_add_export(server, config, errp);
}

/* ---- one image ------------------------------------------------------------------------------- */

static struct block_image_how how_of(const struct nbd_args *args)
{
    return (struct block_image_how){
        .filename = args->filename,
        .format = args->format,
        .image_opts = args->image_opts,
        .cache = args->cache,
        .aio = args->aio,
        .detect_zeroes = args->detect_zeroes,
        .writable = !args->read_only && !args->snapshot,
        .flags = unmaps(args) ? BLOCK_OPEN_UNMAP : 0,
        .user = USER,
    };
}

static bool export_image(const struct nbd_args *args, struct nbd_server *server,
                         struct nbd_images *images, struct error **errp)
{
    struct block_image_how how = how_of(args);
    struct nbd_export_config config = {
        .name = args->name ? args->name : "",
        .description = args->description,
        .be = open_image(args, &how, errp),
        .offset = args->offset,
        .writable = how.writable,
        .allocation_depth = args->allocation_depth,
        .bitmaps = args->bitmaps.items,
        .bitmap_count = args->bitmaps.count,
    };

    return config.be && add(server, images, &config, errp);
}

/* ---- --export -------------------------------------------------------------------------------- */

/* Options as text again, for block_image_open(). The caller frees it. */
static char *options_text(const struct options *opts)
{
    char *text = xstrdup("");

    for (size_t i = 0; i < options_count(opts); i++) {
        const char *value = options_value(opts, i);
        char *quoted = xmalloc(2 * strlen(value) + 1), *to = quoted;
        for (const char *p = value; *p; p++) {
            *to++ = *p;
            if (*p == ',') {
                *to++ = ',';
            }
        }
        *to = '\0';
        char *longer = xasprintf("%s%s%s=%s", text, *text ? "," : "", options_key(opts, i), quoted);
        free(quoted);
        free(text);
        text = longer;
    }
    return text;
}

/* bitmap=NAME, or in JSON "bitmaps": ["NAME", …], which makes keys bitmaps.0, … */
static void take_bitmaps(struct options *opts, struct tool_list *bitmaps)
{
    for (size_t i = 0; i < options_count(opts); i++) {
        const char *key = options_key(opts, i);
        if (!strcmp(key, "bitmap") || !strncmp(key, "bitmaps.", strlen("bitmaps."))) {
            tool_list_add(bitmaps, options_get(opts, key));
        }
    }
}

static bool parse_export(struct options *opts, struct nbd_export_config *config,
                         struct block_image_how *how, struct error **errp)
{
    bool read_only = !how->writable;

    config->name = options_get(opts, "name");
    config->description = options_get(opts, "description");
    how->filename = options_get(opts, "file");
    if (options_has(opts, "format")) {
        how->format = options_get(opts, "format");
    }
    if (!options_get_bool(opts, "read-only", &read_only, errp) ||
        !options_get_bool(opts, "allocation-depth", &config->allocation_depth, errp) ||
        !options_get_size(opts, "offset", 1, &config->offset, errp) ||
        !options_get_size(opts, "size", 1, &config->size, errp) ||
        !options_check_used(opts, "--export", errp)) {
        return false;
    }
    how->writable = !read_only;
    config->writable = !read_only;
    if (!config->name) {
        error_set(errp, "--export: name= is missing");
        return false;
    }
    return true;
}

static bool export_listed(const struct nbd_args *args, struct options *opts,
                          struct nbd_server *server, struct nbd_images *images, struct error **errp)
{
    struct nbd_export_config config = {.allocation_depth = args->allocation_depth};
    struct block_image_how how = how_of(args);
    struct options *image = options_take_prefix(opts, "image");
    autofree char *image_text = options_text(image);
    struct tool_list bitmaps = {0};
    bool ok = false;

    options_free(image);
    take_bitmaps(opts, &bitmaps);
    how.image_opts = false;
    if (!parse_export(opts, &config, &how, errp)) {
        goto out;
    }
    if (!how.filename == !*image_text) {
        error_set(errp,
                  "--export name=%s: give either file=FILE or image.driver=… with the image's "
                  "options",
                  config.name);
        goto out;
    }
    if (*image_text && options_has(opts, "format")) {
        error_set(errp, "--export name=%s: format= goes with file=; image.driver= is the format",
                  config.name);
        goto out;
    }
    if (*image_text) {
        how.filename = image_text;
        how.image_opts = true;
        how.format = NULL;
    }
    config.bitmaps = bitmaps.items;
    config.bitmap_count = bitmaps.count;
    config.be = open_image(args, &how, errp);
    ok = config.be && add(server, images, &config, errp);
out:
    tool_list_free(&bitmaps);
    return ok;
}

bool nbd_images_open(const struct nbd_args *args, struct nbd_server *server,
                     struct nbd_images *images, struct error **errp)
{
    bool ok = !args->filename || export_image(args, server, images, errp);

    for (size_t i = 0; ok && i < args->exports.count; i++) {
        struct options *opts = options_parse(args->exports.items[i], "name", errp);
        ok = opts && export_listed(args, opts, server, images, errp);
        options_free(opts);
    }
    return ok;
}

static int co_flush(void *opaque)
{
    return backend_co_flush(opaque, 0);
}

bool nbd_images_close(struct nbd_images *images)
{
    bool ok = true;

    for (size_t i = 0; i < images->count; i++) {
        struct block_backend *be = images->list[i];
        int ret = backend_is_readonly(be) ? 0 : block_run(co_flush, be);
        if (ret < 0) {
            log_error("Could not flush '%s': %s; what clients wrote last may be lost",
                      backend_root(be)->filename, strerror(-ret));
            ok = false;
        }
        block_image_close(be);
    }
    free(images->list);
    *images = (struct nbd_images){0};
    return ok;
}
