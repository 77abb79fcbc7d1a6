/* SPDX-License-Identifier: MIT */
/*
 * ferry-img commit: what an image changed goes into its backing file, or one further down.
 *
 * The chain is cut above the base, so nobody reads through nodes whose contents change. The base is the
 * node that was below, made writable: no name says as exactly as the node itself what it is (a window
 * of a file, a filter's target, options that the user gave).
 *
 *   top --backing--> middle --backing--> base          top --backing--> middle     base (written)
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/filename.h"
#include "block/name.h"
#include "tools/common/signals.h"
#include "tools/common/tool.h"
#include "tools/img/convert.h"
#include "tools/img/img.h"

#define CHUNK   (2 * MiB)
#define WORKERS 8

struct commit {
    struct img_common common;
    const char *base, *cache, *rate;
    bool keep; /* -d: the image is not emptied */
    struct copy copy;
};

/* ---- the chain ------------------------------------------------------------------------------- */

static bool is_same_path(const char *a, const char *b)
{
    autofree char *x = realpath(a, NULL), *y = realpath(b, NULL);

    return x && y && !strcmp(x, y);
}

/* The name means the image below `overlay`: as a path that leads to the same file, or else, with a
 * protocol, exactly as it is written in the overlay. With a backing file by the user's options, only the
 * node's own name does. */
static bool is_named(struct block_node *overlay, const char *name)
{
    const char *below = block_node_skip_filters(overlay->backing)->filename;
    struct block_image_info info;
    bool is_named = false;

    if (block_name_overrides_backing(overlay)) {
        return !strcmp(name, below);
    }
    block_image_info(overlay, &info);
    const char *written = info.backing_filename, *full = info.full_backing_filename;
    if (written && (block_filename_has_protocol(name) || block_filename_has_protocol(written))) {
        is_named = !strcmp(name, written) || (full && !strcmp(name, full));
    } else if (full) {
        autofree char *path = block_node_backing_path(overlay, name, NULL);
        is_named = path && is_same_path(path, full);
    }
    block_image_info_free(&info);
    return is_named;
}

/* The node whose backing file is the base, or NULL and *errp. */
static struct block_node *find_overlay(const struct commit *c, struct block_node *top,
                                       const char *filename, struct error **errp)
{
    if (!top->backing) {
        error_set(errp, "Image does not have a backing file");
        return NULL;
    }
    if (!c->base) {
        return top;
    }
    for (struct block_node *node = top; node && node->backing;
         node = block_node_skip_filters(node->backing)) {
        if (is_named(node, c->base)) {
            return node;
        }
    }
    error_set(errp, "Did not find '%s' in the backing chain of '%s'", c->base, filename);
    return NULL;
}

/* Makes what is below `overlay` writable and cuts the chain above it. It is read all the time, so that
 * others never take the base's files for unused. */
static struct block_backend *take_base(struct block_backend *top, struct block_node *overlay,
                                       struct error **errp)
{
    struct block_node *base = block_node_skip_filters(overlay->backing);
    struct block_backend *be = backend_attach(base->name, tool_name(), false, false, errp);

    block_node_ref(base);
    if (be && block_node_reopen(base, base->flags | BLOCK_OPEN_RDWR | BLOCK_OPEN_UNMAP, errp) &&
        block_node_set_backing(overlay, NULL, errp) && backend_start_writing(be, errp)) {
        backend_set_write_cache(be, backend_write_cache(top));
    } else {
        error_prepend(errp, "Could not write to the backing file '%s': ", base->filename);
        if (be) {
            backend_detach(be);
        }
        be = NULL;
    }
    block_node_unref(base);
    return be;
}

/* ---- copying --------------------------------------------------------------------------------- */

struct grow {
    struct block_node *node;
    uint64_t length;
    struct error **errp;
};

static int co_grow(void *opaque)
{
    struct grow *grow = opaque;

    return block_co_truncate(grow->node, grow->length, BLOCK_PREALLOC_OFF, grow->errp);
}

static bool grow_base(struct block_backend *base, uint64_t length, struct error **errp)
{
    struct grow grow = {.node = backend_root(base), .length = length, .errp = errp};

    if (backend_length(base) >= length || block_run(co_grow, &grow) == 0) {
        return true;
    }
    error_prepend(errp, "Could not resize '%s': ", backend_root(base)->filename);
    return false;
}

static int co_flush(void *opaque)
{
    return backend_co_flush(opaque, 0);
}

static bool copy_into(struct commit *c, struct block_backend *top, struct block_backend *base,
                      struct error **errp)
{
    struct copy_source source = {.be = top, .length = backend_length(top)};
    struct data_rate rate = c->copy.rate;

    c->copy = (struct copy){
        .sources = &source,
        .source_count = 1,
        .target = base,
        .total = source.length,
        .unit = MAX(512u, backend_root(base)->limits.request_alignment),
        .chunk = CHUNK,
        .only_allocated = true,
        .workers = WORKERS,
        .rate = rate,
    };
    signals_catch();
    progress_start(&c->copy.progress, c->common.progress, true, source.length);
    copy_run(&c->copy);
    int ret = c->copy.ret ? c->copy.ret : block_run(co_flush, base);
    progress_end(&c->copy.progress, ret == 0);
    signals_release();
    if (c->copy.interrupted) {
        error_set(errp, "Interrupted by a signal; the backing file has a part of the changes, the "
                        "image still has all of them");
    } else if (ret < 0) {
        error_set_errno(errp, -ret, "Could not commit at byte %" PRIu64, c->copy.failed_at);
    }
    return ret == 0;
}

static bool commit(struct commit *c, struct block_backend *be, const char *filename,
                   struct error **errp)
{
    struct block_node *top = img_format_node(be);
    struct block_node *overlay = find_overlay(c, top, filename, errp);

    if (!overlay) {
        return false;
    }
    /* With another base than the next image, -d is implied: files between them would show. */
    bool empties = !c->keep && !c->base;
    if (empties && !img_ops(top)->make_empty) {
        error_set(errp, "Format '%s' cannot be emptied; use -d to keep the contents of '%s'",
                  top->driver->name, filename);
        return false;
    }
    struct block_backend *base = take_base(be, overlay, errp);
    if (!base) {
        return false;
    }
    bool ok = grow_base(base, backend_length(be), errp) && copy_into(c, be, base, errp);
    block_image_close(base);
    if (ok && empties && !img_ops(top)->make_empty(top, errp)) {
        error_prepend(errp, "Could not empty %s: ", filename);
        ok = false;
    }
    return ok;
}

/* ---- the command ----------------------------------------------------------------------------- */

static int run(void *fields, int count, char **operands, struct error **errp)
{
    struct commit *c = fields;

    if (c->rate &&
        !tool_parse_size(c->rate, "rate limit", 0, INT64_MAX, &c->copy.rate.limit, errp)) {
        return EXIT_FAILURE;
    }
    if (count != 1) {
        tool_usage_error(errp, "Expecting one image file name");
        return EXIT_FAILURE;
    }
    if (!tool_check_cache(c->cache, "cache", errp)) {
        return EXIT_FAILURE;
    }
    struct block_backend *be = img_open(
        &(struct img_open){
            .filename = operands[0],
            .format = c->common.format,
            .image_opts = c->common.image_opts,
            .cache = c->cache,
            .writable = true,
            .flags = BLOCK_OPEN_UNMAP,
        },
        errp);
    if (!be) {
        return EXIT_FAILURE;
    }
    img_warn_of_probing(be);
    bool ok = commit(c, be, operands[0], errp);
    block_image_close(be);
    if (ok && !c->common.quiet) {
        printf("Image committed.\n");
    }
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

#define FIELD(member) offsetof(struct commit, member)

static const struct tool_option options[] = {
    IMG_OPTION_FORMAT,
    IMG_OPTION_IMAGE_OPTS,
    {'b', NULL, TOOL_STRING, FIELD(base), "BASE",
     "the file of the chain that gets the changes (the next one); implies -d"},
    {'d', NULL, TOOL_FLAG, FIELD(keep), NULL, "do not empty the image afterwards"},
    {'r', NULL, TOOL_STRING, FIELD(rate), "RATE", "at most so many bytes per second"},
    {'t', NULL, TOOL_STRING, FIELD(cache), "CACHE", "cache mode (writeback)"},
    IMG_OPTION_PROGRESS,
    IMG_OPTION_QUIET,
    IMG_OPTION_OBJECT,
    {0},
};

const struct img_command img_commit = {
    .name = "commit",
    .operands = "FILE",
    .summary = "writes what an image changed into its backing file",
    .options = options,
    .fields_size = sizeof(struct commit),
    .run = run,
};
