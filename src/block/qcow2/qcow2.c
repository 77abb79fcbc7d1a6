/* SPDX-License-Identifier: MIT */
/* The qcow2 driver: opening, closing, its table. See qcow2.h. */
#include "block/qcow2/bitmap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "block/drivers.h"

/* ---- opening --------------------------------------------------------------------------------- */

struct opening {
    struct block_node *node;
    struct error **errp;
};

static int co_open_header(void *opaque)
{
    struct opening *o = opaque;

    return co_qcow2_read_header(o->node, o->errp);
}

static int co_open_tables(void *opaque)
{
    struct opening *o = opaque;

    return co_qcow2_reload_tables(o->node, o->errp);
}

static int fail(const struct opening *o, int ret, const char *what)
{
    error_set_errno(o->errp, -ret, "Could not %s '%s'", what, o->node->filename);
    return ret;
}

/* What others must know, or what has to be put right, before the image is changed. */
static int co_begin_writing(const struct opening *o)
{
    struct qcow2_state *s = qcow2_of(o->node);
    int ret = 0;

    if (s->dirty_bit) {
        ret = co_qcow2_repair_dirty(o->node, o->errp);
        if (ret < 0) {
            return ret;
        }
    }
    uint64_t unknown = s->autoclear & ~QCOW2_AUTOCLEAR_KNOWN;
    if (unknown) {
        ret = co_qcow2_set_autoclear(o->node, 0, unknown);
    }
    return ret < 0 ? fail(o, ret, "update qcow2 header of") : 0;
}

static int co_finish_open(void *opaque)
{
    struct opening *o = opaque;
    struct block_node *node = o->node;
    struct qcow2_state *s = qcow2_of(node);
    bool checks = node->flags & BLOCK_OPEN_CHECK;

    int ret = co_qcow2_read_snapshots(node, o->errp);
    if (ret < 0 && !checks) {
        return ret;
    }
    if (ret < 0 && o->errp) {
        error_free(*o->errp); /* the check finds it again */
        *o->errp = NULL;
    }
    ret = co_qcow2_metadata_rebuild(node);
    if (checks) {
        return 0;
    }
    if (s->corrupt) {
        co_qcow2_mark_corrupt(node);
    }
    if (ret < 0) {
        return fail(o, ret, "read inactive L1 tables of");
    }
    if (node->flags & BLOCK_OPEN_RDWR) {
        ret = co_begin_writing(o);
        if (ret < 0) {
            return ret;
        }
    }
    return s->bitmap_count ? co_qcow2_load_bitmaps(node, o->errp) : 0;
}

static void free_state(struct block_node *node)
{
    struct qcow2_state *s = qcow2_of(node);

    qcow2_free_bitmaps(s);
    qcow2_free_snapshots(s);
    qcow2_free_header(s);
    qcow2_metadata_free(s);
    cache_destroy(&s->l2_cache);
    cache_destroy(&s->refcount_cache);
    qcow2_inflated_free(s);
    for (size_t i = 0; i < ARRAY_SIZE(s->frees); i++) {
        free(s->frees[i].list);
    }
    free(s->l1);
    free(s->l1_dirty);
    free(s->reftable);
    free(s->reftable_dirty);
    co_mutex_destroy(&s->lock);
    co_mutex_destroy(&s->commit_lock);
}

static void clean_caches(void *opaque)
{
    struct qcow2_state *s = opaque;

    cache_clean(&s->l2_cache);
    cache_clean(&s->refcount_cache);
    timer_set(&s->clean_timer, clock_get_ns(AIO_CLOCK_RT) + s->clean_interval * NS_PER_SEC);
}

static bool open_image(struct block_node *node, struct options *opts, struct error **errp)
{
    struct opening o = {.node = node, .errp = errp};

    return block_run(co_open_header, &o) == 0 && qcow2_parse_options(node, opts, errp) &&
           block_run(co_open_tables, &o) == 0 && qcow2_open_data_file(node, opts, errp) &&
           qcow2_open_backing(node, opts, errp) && block_run(co_finish_open, &o) == 0;
}

static bool qcow2_open(struct block_node *node, struct options *opts, struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);
    struct error *err = NULL;

    if (!block_node_open_child(node, opts, "file", BLOCK_CHILD_FILE, errp)) {
        return false;
    }
    free(node->filename);
    node->filename = xstrdup(node->file->filename);
    co_mutex_init(&s->lock);
    co_mutex_init(&s->commit_lock);
    qcow2_inflated_init(s);
    if (!open_image(node, opts, &err)) {
        error_propagate(errp, err);
        free_state(node);
        return false;
    }
    timer_init(&s->clean_timer, aio_loop_current(), AIO_CLOCK_RT, clean_caches, s);
    if (s->clean_interval) {
        timer_set(&s->clean_timer, clock_get_ns(AIO_CLOCK_RT) + s->clean_interval * NS_PER_SEC);
    }
    return true;
}

/* ---- closing --------------------------------------------------------------------------------- */

static int co_end_writing(void *opaque)
{
    struct opening *o = opaque;
    struct qcow2_state *s = qcow2_of(o->node);

    if (s->corrupt) {
        return 0; /* nothing more is written */
    }
    int ret = co_qcow2_store_bitmaps(o->node, o->errp);
    int clean = co_qcow2_mark_clean(o->node);
    if (clean < 0) {
        if (ret == 0) {
            fail(o, clean, "write metadata of");
        }
        ret = clean;
    }
    return ret;
}

/* It could not end: the file may say already that the bitmaps are stored, and writes go on. */
static int co_go_on_writing(void *opaque)
{
    struct opening *o = opaque;
    struct qcow2_state *s = qcow2_of(o->node);

    if (s->corrupt || !s->bitmap_count) {
        return 0;
    }
    int ret = co_qcow2_load_bitmaps(o->node, o->errp);
    if (ret < 0) {
        atomic_store(&s->corrupt, true); /* rather no writes than some that a bitmap misses */
    }
    return ret;
}

static bool stop_writing(struct block_node *node, struct error **errp)
{
    struct error *err = NULL;
    struct opening stop = {.node = node, .errp = errp}, start = {.node = node, .errp = &err};

    if (block_run(co_end_writing, &stop) == 0) {
        return true;
    }
    if (block_run(co_go_on_writing, &start) < 0) {
        error_prepend(&err, "Nothing more is written to '%s': ", node->filename);
        error_report(err);
    }
    return false;
}

static void qcow2_close(struct block_node *node)
{
    struct error *err = NULL;
    struct opening o = {.node = node, .errp = &err};

    timer_cancel(&qcow2_of(node)->clean_timer);
    if (node->flags & BLOCK_OPEN_RDWR && block_run(co_end_writing, &o) < 0 && err) {
        log_error("%s", error_message(err));
    }
    error_free(err);
    free_state(node);
}

static bool qcow2_reopen(struct block_node *node, unsigned flags, struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);
    struct opening o = {.node = node, .errp = errp};
    if (!s->has_discard_request) {
        s->discard_request = flags & BLOCK_OPEN_UNMAP;
    }
    bool was = node->flags & BLOCK_OPEN_RDWR, will = flags & BLOCK_OPEN_RDWR;

    if (was && !will) {
        return stop_writing(node, errp);
    }
    if (!was && will) {
        if (s->corrupt) {
            error_set(errp, "qcow2: Image is corrupt; cannot be opened read/write");
            return false;
        }
        qcow2_allow_growth(node);
        node->flags |= BLOCK_OPEN_RDWR; /* for what is written here */
        bool ok = block_run(co_finish_open, &o) == 0;
        node->flags &= ~BLOCK_OPEN_RDWR;
        return ok;
    }
    return true;
}

/* ---- what it is like ------------------------------------------------------------------------- */

static int64_t qcow2_length(struct block_node *node)
{
    return (int64_t)qcow2_of(node)->size;
}

static void qcow2_limits(struct block_node *node, struct block_limits *limits)
{
    limits->discard_alignment = qcow2_of(node)->cluster_size;
}

static const struct node_option options[] = {
    {"file", NODE_OPTION_CHILD},
    {"data-file", NODE_OPTION_CHILD},
    {"backing", NODE_OPTION_OPTIONAL_CHILD},
    {"lazy-refcounts", NODE_OPTION_BOOL},
    {"cache-size", NODE_OPTION_SIZE},
    {"l2-cache-size", NODE_OPTION_SIZE},
    {"refcount-cache-size", NODE_OPTION_SIZE},
    {"l2-cache-entry-size", NODE_OPTION_SIZE},
    {"cache-clean-interval", NODE_OPTION_INTEGER},
    {"pass-discard-request", NODE_OPTION_BOOL},
    {"pass-discard-snapshot", NODE_OPTION_BOOL},
    {"pass-discard-other", NODE_OPTION_BOOL},
    {"discard-no-unref", NODE_OPTION_BOOL},
    {"overlap-check", NODE_OPTION_STRING},
    {"overlap-check.template", NODE_OPTION_STRING},
    {"overlap-check.main-header", NODE_OPTION_BOOL},
    {"overlap-check.active-l1", NODE_OPTION_BOOL},
    {"overlap-check.active-l2", NODE_OPTION_BOOL},
    {"overlap-check.refcount-table", NODE_OPTION_BOOL},
    {"overlap-check.refcount-block", NODE_OPTION_BOOL},
    {"overlap-check.snapshot-table", NODE_OPTION_BOOL},
    {"overlap-check.inactive-l1", NODE_OPTION_BOOL},
    {"overlap-check.inactive-l2", NODE_OPTION_BOOL},
    {"overlap-check.bitmap-directory", NODE_OPTION_BOOL},
    {"encrypt.*", NODE_OPTION_STRING},
    {NULL},
};

const struct block_driver block_driver_qcow2 = {
    .name = "qcow2",
    .help = "images with snapshots, backing files and clusters on demand; backing=, data-file=, "
            "lazy-refcounts=, l2-cache-size=, …",
    .state_size = sizeof(struct qcow2_state),
    .options = options,
    .supported_flags = BLOCK_REQ_FUA | BLOCK_REQ_COMPRESSED,
    .keeps_metadata = true,
    .image = &qcow2_image_ops,
    .open = qcow2_open,
    .close = qcow2_close,
    .reopen = qcow2_reopen,
    .limits = qcow2_limits,
    .length = qcow2_length,
    .co_preadv = qcow2_co_preadv,
    .co_pwritev = qcow2_co_pwritev,
    .co_flush = qcow2_co_flush,
    .co_discard = qcow2_co_discard,
    .co_write_zeroes = qcow2_co_write_zeroes,
    .co_block_status = qcow2_co_block_status,
    .co_is_allocated = qcow2_co_is_allocated,
    .co_truncate = qcow2_co_truncate,
};
