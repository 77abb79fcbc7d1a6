/* SPDX-License-Identifier: MIT */
/*
 * ferry-img rebase: another backing file.
 *
 * Safe: where the image shows the old backing file and the new one has something else, the old data
 * is written into the image first. Unsafe (-u): only the name in the image changes.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "aio/coroutine.h"
#include "base/alloc.h"
#include "base/range.h"
#include "block/name.h"
#include "tools/common/progress.h"
#include "tools/common/signals.h"
#include "tools/common/tool.h"
#include "tools/img/data.h"
#include "tools/img/img.h"

#define CHUNK   (2 * MiB)
#define WORKERS 4

struct rebase {
    struct img_common common;
    const char *new_backing, *new_format, *cache, *source_cache;
    bool unsafe;
    /* by run() */
    struct block_backend *top, *old, *new; /* old and new: NULL, no backing file */
    struct block_node *shared;             /* of the old chain: what the new file is, or NULL */
    uint32_t unit;                         /* bytes: of the image's clusters */
    /* by the coroutines, one loop */
    struct co_mutex next_lock;
    uint64_t next, total;
    int ret; /* the first error */
    uint64_t failed_at;
    bool interrupted;
    struct progress progress;
};

/* ---- which parts may differ ------------------------------------------------------------------ */

static void fail(struct rebase *r, int ret, uint64_t offset)
{
    if (!r->ret) {
        r->ret = ret;
        r->failed_at = offset;
    }
}

/* 1 if the image has [offset, offset + *length) itself, 0 if its backing file shows; *length is cut. */
static int co_has_itself(struct rebase *r, uint64_t offset, uint64_t *length)
{
    return block_co_is_allocated(img_format_node(r->top), offset, length);
}

/* 1 if the range reads as zeroes, as far as can be told without reading. be NULL: yes. */
static int co_is_zero(struct block_backend *be, uint64_t offset, uint64_t *length)
{
    uint64_t map;

    if (!be || offset >= backend_length(be)) {
        return 1;
    }
    int status = block_co_status_above(backend_root(be), NULL, offset, length, &map, NULL, NULL);
    return status < 0 ? status : (status & BLOCK_STATUS_ZERO) != 0;
}

/* 1 if nothing between the old backing file and the new one, which is below it, has the range. */
static int co_is_shared(struct rebase *r, uint64_t offset, uint64_t *length)
{
    uint64_t map;

    if (!r->shared || offset >= backend_length(r->old)) {
        return 0;
    }
    int status =
        block_co_status_above(backend_root(r->old), r->shared, offset, length, &map, NULL, NULL);
    return status < 0 ? status : !(status & BLOCK_STATUS_ALLOCATED);
}

/* True: the range must be looked at. */
static int co_may_differ(struct rebase *r, uint64_t offset, uint64_t *length)
{
    int ret = co_has_itself(r, offset, length);

    if (ret) {
        return ret < 0 ? ret : 0;
    }
    ret = co_is_shared(r, offset, length);
    if (ret) {
        return ret < 0 ? ret : 0;
    }
    ret = co_is_zero(r->old, offset, length);
    if (ret == 1) {
        ret = co_is_zero(r->new, offset, length);
    }
    return ret < 0 ? ret : !ret;
}

static bool co_next_locked(struct rebase *r, uint64_t *offset, uint64_t *length)
{
    while (r->next < r->total && !r->ret) {
        if (signals_caught()) {
            r->interrupted = true;
            fail(r, -EINTR, r->next);
            break;
        }
        *offset = r->next;
        *length = r->total - r->next;
        int ret = co_may_differ(r, *offset, length);
        if (ret < 0) {
            fail(r, ret, *offset);
            break;
        }
        if (ret) {
            *length = MIN(*length, CHUNK);
        }
        r->next += *length;
        if (ret) {
            return true;
        }
        progress_add(&r->progress, *length);
    }
    return false;
}

/* ---- copying --------------------------------------------------------------------------------- */

static int co_read(struct block_backend *be, uint64_t offset, void *to, size_t size)
{
    if (!be) {
        memset(to, 0, size);
        return 0;
    }
    return data_co_read_padded(be, offset, to, size);
}

/* Writes those units in which old and new data differ. Without a new file zeroes need no writing. */
static int co_write_different(struct rebase *r, uint64_t offset, const unsigned char *old,
                              const unsigned char *new, size_t size)
{
    int ret = 0;

    for (size_t at = 0; at < size && !ret;) {
        size_t run = 0;
        while (at + run < size) {
            size_t n = MIN(r->unit - ((offset + at + run) & (r->unit - 1)), size - at - run);
            if (!memcmp(old + at + run, new + at + run, n)) {
                break;
            }
            run += n;
        }
        if (run) {
            ret = data_co_write(r->top, offset + at, old + at, run, 0);
            at += run;
        } else {
            at += MIN(r->unit - ((offset + at) & (r->unit - 1)), size - at);
        }
    }
    return ret;
}

static void co_rebase(void *opaque)
{
    struct rebase *r = opaque;
    unsigned char *old = xaligned_alloc(4096, CHUNK), *new = xaligned_alloc(4096, CHUNK);
    uint64_t offset, length;

    for (;;) {
        co_mutex_lock(&r->next_lock);
        bool found = co_next_locked(r, &offset, &length);
        co_mutex_unlock(&r->next_lock);
        if (!found) {
            break;
        }
        int ret = co_read(r->old, offset, old, length);
        if (!ret) {
            ret = co_read(r->new, offset, new, length);
        }
        if (!ret) {
            ret = co_write_different(r, offset, old, new, length);
        }
        if (ret < 0) {
            fail(r, ret, offset);
        }
        progress_add(&r->progress, length);
    }
    free(old);
    free(new);
}

static int co_flush(void *opaque)
{
    return backend_co_flush(opaque, 0);
}

static bool copy_differences(struct rebase *r, struct error **errp)
{
    struct block_image_info info;

    block_image_info(img_format_node(r->top), &info);
    r->unit = info.cluster_size ? info.cluster_size : 512;
    block_image_info_free(&info);
    r->total = backend_length(r->top);
    signals_catch();
    progress_start(&r->progress, r->common.progress, true, r->total);
    co_mutex_init(&r->next_lock);
    data_run_workers(WORKERS, co_rebase, r);
    co_mutex_destroy(&r->next_lock);
    int ret = r->ret ? r->ret : block_run(co_flush, r->top);
    progress_end(&r->progress, ret == 0);
    signals_release();
    if (r->interrupted) {
        error_set(errp, "Interrupted by a signal; the image still has its old backing file");
    } else if (ret < 0) {
        error_set_errno(errp, -ret, "error while rebasing at byte %" PRIu64, r->failed_at);
    }
    return ret == 0;
}

/* ---- the files ------------------------------------------------------------------------------- */

static bool open_old(struct rebase *r, struct error **errp)
{
    struct block_node *backing = img_format_node(r->top)->backing;

    if (backing) {
        r->old = backend_attach(backing->name, tool_name(), false, false, errp);
    }
    return !backing || r->old;
}

static bool open_new(struct rebase *r, struct error **errp)
{
    struct block_node *top = img_format_node(r->top);

    if (!r->new_backing || !*r->new_backing) {
        return true;
    }
    autofree char *path = block_node_backing_path(top, r->new_backing, errp);
    if (!path) {
        return false;
    }
    struct block_image_how how = {
        .filename = path,
        .format = r->new_format,
        .cache = r->source_cache,
        .user = tool_name(),
        .flags = r->common.force_share ? BLOCK_OPEN_FORCE_SHARE : 0,
    };
    r->new = block_image_open(&how, errp);
    if (!r->new) {
        error_prepend(errp, "Could not open new backing file '%s': ", r->new_backing);
        return false;
    }
    for (struct block_node *node = top->backing; node; node = node->backing) {
        node = block_node_skip_filters(node);
        if (block_name_is_same(node, img_format_node(r->new))) {
            r->shared = node;
        }
    }
    return true;
}

static bool change_name(struct rebase *r, struct error **errp)
{
    struct block_node *top = img_format_node(r->top);
    const char *name = r->new_backing && *r->new_backing ? r->new_backing : NULL;

    if (!img_ops(top)->change_backing) {
        error_set_errno(errp, ENOTSUP, "Could not change the backing file to '%s'",
                        name ? name : "");
        return false;
    }
    if (name && !r->new_format) {
        error_set(errp,
                  "Could not change the backing file to '%s': backing format must be specified",
                  name);
        return false;
    }
    if (!img_ops(top)->change_backing(top, name, name ? r->new_format : NULL, errp)) {
        error_prepend(errp, "Could not change the backing file to '%s': ", name ? name : "");
        return false;
    }
    return true;
}

/* ---- the command ----------------------------------------------------------------------------- */

static bool check(const struct rebase *r, int count, struct error **errp)
{
    if (count != 1) {
        tool_usage_error(errp, "Expecting one image file name");
    } else if (!r->unsafe && !r->new_backing) {
        tool_usage_error(errp, "Must specify backing file (-b) or use unsafe mode (-u)");
    } else if (r->new_format && !block_driver_find(r->new_format)) {
        error_set(errp, "Invalid format name: '%s'", r->new_format);
    }
    return !*errp && tool_check_cache(r->cache, "cache", errp) &&
           tool_check_cache(r->source_cache, "source cache", errp);
}

static bool rebase(struct rebase *r, struct error **errp)
{
    struct block_node *top = img_format_node(r->top);

    /* Before hours of copying: can the end be reached? */
    if (!r->unsafe && img_ops(top)->change_backing &&
        (!r->new_backing || !*r->new_backing || r->new_format)) {
        if (!open_old(r, errp) || !open_new(r, errp) || !copy_differences(r, errp)) {
            return false;
        }
    }
    return change_name(r, errp);
}

static int run(void *fields, int count, char **operands, struct error **errp)
{
    struct rebase *r = fields;

    if (!check(r, count, errp)) {
        return EXIT_FAILURE;
    }
    r->top = img_open(
        &(struct img_open){
            .filename = operands[0],
            .format = r->common.format,
            .image_opts = r->common.image_opts,
            .cache = r->cache ? r->cache : "writeback",
            .writable = true,
            .flags = BLOCK_OPEN_UNMAP | (r->unsafe ? BLOCK_OPEN_NO_BACKING : 0),
        },
        errp);
    if (!r->top) {
        return EXIT_FAILURE;
    }
    img_warn_of_probing(r->top);
    bool ok = rebase(r, errp);
    if (r->new) {
        block_image_close(r->new);
    }
    if (r->old) {
        block_image_close(r->old);
    }
    block_image_close(r->top);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

#define FIELD(member) offsetof(struct rebase, member)

static const struct tool_option options[] = {
    IMG_OPTION_FORMAT,
    IMG_OPTION_IMAGE_OPTS,
    {'b', NULL, TOOL_STRING, FIELD(new_backing), "FILE", "the new backing file; '' for none"},
    {'F', NULL, TOOL_STRING, FIELD(new_format), "FMT", "format of the new backing file"},
    {'u', NULL, TOOL_FLAG, FIELD(unsafe), NULL, "change the name only; the contents must match"},
    {'t', NULL, TOOL_STRING, FIELD(cache), "CACHE", "cache mode of the image (writeback)"},
    {'T', NULL, TOOL_STRING, FIELD(source_cache), "CACHE", "cache mode of the backing files"},
    {'U', "force-share", TOOL_FLAG, IMG_FIELD(force_share), NULL,
     "open the new backing file although others write to it"},
    IMG_OPTION_PROGRESS,
    IMG_OPTION_QUIET,
    IMG_OPTION_OBJECT,
    {0},
};

const struct img_command img_rebase = {
    .name = "rebase",
    .operands = "FILE",
    .summary = "gives an image another backing file; what a guest sees stays the same",
    .options = options,
    .fields_size = sizeof(struct rebase),
    .run = run,
};
