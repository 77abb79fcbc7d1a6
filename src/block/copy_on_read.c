/* SPDX-License-Identifier: MIT */
/*
 * copy-on-read: a filter above an image with a backing chain. What a read finds below the image is
 * written to the image, in whole clusters, so that the next read finds it there.
 *
 *   read --> allocated in the image?                      yes: read it
 *            no, and only below `bottom` is there any:    read it
 *            else: keep writers out of the clusters, look again, read, write to the image
 *
 * Copying is a read-modify-write as seen from the guest's writes, so those are tracked here
 * (track.h): one that overlaps either is in the image before the copy looks, or comes after it.
 * The guest's read does not fail because its copy could not be written; that is said once.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "base/range.h"
#include "block/bounce.h"
#include "block/debug.h"
#include "block/drivers.h"
#include "block/image.h"
#include "block/iov.h"
#include "block/node.h"
#include "block/track.h"

#define COPY_SIZE     MiB /* at once, if clusters are not larger */
#define CLUSTER_OTHER (64 * KiB)

struct cor_state {
    /* constant */
    uint64_t cluster;          /* bytes, power of 2 */
    struct block_node *bottom; /* with a reference, or NULL */
    /* block/track.h */
    struct block_tracker tracker;
    /* block/bounce.h */
    struct bounce_line copies;
    /* atomic */
    _Atomic(bool) has_failed; /* to write a copy; then it has been said */
};

/* ---- opening ---------------------------------------------------------------------------------- */

static bool is_in_chain(struct block_node *top, const struct block_node *node)
{
    while (top && top != node) {
        top = top->driver->is_filter && top->file ? top->file : top->backing;
    }
    return top;
}

static bool find_bottom(struct block_node *node, const char *name, struct error **errp)
{
    struct cor_state *s = node->state;
    struct block_node *bottom = block_node_find(name);

    if (!bottom) {
        error_set(errp, "Bottom node '%s' not found", name);
    } else if (bottom->driver->is_filter) {
        error_set(errp, "Bottom node '%s' is a filter; name the image below it", name);
    } else if (!is_in_chain(node->file, bottom)) {
        error_set(errp, "Bottom node '%s' is not in the backing chain of '%s'", name,
                  node->file->name);
    } else {
        s->bottom = bottom;
        block_node_ref(bottom);
        return true;
    }
    return false;
}

static uint64_t cluster_size(struct block_node *node)
{
    struct block_image_info info;

    block_image_info(block_node_skip_filters(node), &info);
    uint64_t size = info.cluster_size;
    block_image_info_free(&info);
    return is_power_of_2(size) && size <= 2 * MiB ? MAX(size, 4 * KiB) : CLUSTER_OTHER;
}

static bool cor_open(struct block_node *node, struct options *opts, struct error **errp)
{
    struct cor_state *s = node->state;
    const char *bottom = options_get(opts, "bottom");

    if (!block_node_open_child(node, opts, "file", BLOCK_CHILD_FILTERED, errp) ||
        (bottom && !find_bottom(node, bottom, errp))) {
        return false;
    }
    s->cluster = cluster_size(node->file);
    track_init(&s->tracker);
    bounce_line_init(&s->copies);
    free(node->filename);
    node->filename = xstrdup(node->file->filename);
    return true;
}

static void cor_close(struct block_node *node)
{
    struct cor_state *s = node->state;

    bounce_line_destroy(&s->copies);
    track_destroy(&s->tracker);
    if (s->bottom) {
        block_node_unref(s->bottom);
    }
}

static int64_t cor_length(struct block_node *node)
{
    return (int64_t)block_length(node->file);
}

static bool cor_allow_growth(struct block_node *node)
{
    return block_node_allow_growth(node->file);
}

/* ---- reading ---------------------------------------------------------------------------------- */

/* Whether the beginning of [offset, offset + *length), cut to what is alike, is to be copied: 1, 0
 * or negative errno. *is_zero: it is known to read as zeroes. */
static int co_wants_copy(struct block_node *node, uint64_t offset, uint64_t *length, bool *is_zero)
{
    struct cor_state *s = node->state;
    struct block_node *image = block_node_skip_filters(node->file);
    uint64_t map;

    *is_zero = false;
    if (!image->backing) {
        return 0;
    }
    int status = block_co_is_allocated(image, offset, length);
    if (status < 0 || !*length) {
        return status < 0 ? status : -EIO;
    }
    if (status) {
        return 0;
    }
    struct block_node *below = s->bottom ? s->bottom->backing : NULL;
    status = block_co_status_above(image, below, offset, length, &map, NULL, NULL);
    if (status < 0 || !*length) {
        return status < 0 ? status : -EIO;
    }
    *is_zero = status & BLOCK_STATUS_ZERO;
    return !s->bottom || status & BLOCK_STATUS_ALLOCATED;
}

static void say_failure(struct block_node *node, int ret)
{
    struct cor_state *s = node->state;

    if (!atomic_exchange(&s->has_failed, true)) {
        log_warn("copy-on-read: could not write to '%s': %s; reads go on without copies there",
                 node->file->filename, strerror(-ret));
    }
}

/* Reads [offset, offset + length) into buffer and writes it to the image. Nobody else writes. */
static int co_copy(struct block_node *node, uint64_t offset, uint64_t length, bool is_zero,
                   char *buffer, uint64_t id)
{
    struct iovec vec;
    struct block_iov iov = block_iov_of(&vec, buffer, length);
    int ret = 0;

    if (is_zero) {
        memset(buffer, 0, length);
    } else {
        ret = block_co_preadv(node->file, offset, &iov, 0, id);
    }
    if (ret < 0) {
        return ret;
    }
    block_debug_event(node->file, BLOCK_EVENT_COR_WRITE);
    int written = -ENOTSUP;
    if (is_zero) {
        written = block_co_write_zeroes(node->file, offset, length, BLOCK_REQ_NO_FALLBACK);
    }
    if (written == -ENOTSUP) {
        written = block_co_pwritev(node->file, offset, &iov, 0, id);
    }
    if (written < 0) {
        say_failure(node, written);
    }
    return 0;
}

/* [start, end) into buffer, and to the image what it lacks. Nobody else writes. */
static int co_copy_missing(struct block_node *node, uint64_t start, uint64_t end, char *buffer,
                           uint64_t id)
{
    int ret = 0;

    for (uint64_t at = start; at < end && ret >= 0;) {
        uint64_t n = end - at;
        bool is_zero;

        ret = co_wants_copy(node, at, &n, &is_zero);
        if (ret > 0) {
            ret = co_copy(node, at, n, is_zero, buffer + (at - start), id);
        } else if (ret == 0) {
            struct iovec vec;
            struct block_iov part = block_iov_of(&vec, buffer + (at - start), n);
            ret = block_co_preadv(node->file, at, &part, 0, id);
        }
        at += n;
    }
    return MIN(ret, 0);
}

/* [offset, offset + length) lies in one piece of COPY_SIZE or of a cluster. */
static int co_read_and_copy(struct block_node *node, uint64_t offset, uint64_t length,
                            const struct block_iov *iov, uint64_t iov_offset, uint64_t id)
{
    struct cor_state *s = node->state;
    struct tracked_write track;
    uint64_t start = align_down(offset, s->cluster);
    uint64_t end = MIN(align_up(offset + length, s->cluster), block_length(node));
    int ret = -ENOMEM;

    if (end - start > BLOCK_SHORT) {
        co_share(end - start); /* in a buffer */
    }
    co_track_begin_serialising(&s->tracker, &track, start, end - start);
    /* Not before: those who wait for others need none yet. */
    char *buffer = co_bounce_line_alloc(&s->copies, end - start);
    if (buffer) {
        ret = co_copy_missing(node, start, end, buffer, id);
    }
    co_track_end(&s->tracker, &track);
    if (ret == 0) {
        block_iov_write(iov, iov_offset, buffer + (offset - start), length);
    }
    if (buffer) {
        co_bounce_line_free(&s->copies, buffer, end - start);
    }
    return ret;
}

/* A part of the request that is there already. */
static int co_read_part(struct block_node *node, uint64_t offset, uint64_t length,
                        const struct block_iov *iov, uint64_t iov_offset, unsigned flags,
                        uint64_t id)
{
    struct block_iov part = {.size = length};

    if (length == iov->size) {
        return block_co_preadv(node->file, offset, iov, flags, id);
    }
    struct iovec *vec = calloc((size_t)iov->niov, sizeof(*vec));
    if (!vec) {
        return -ENOMEM;
    }
    part.iov = vec;
    block_iov_slice(iov, iov_offset, length, vec, iov->niov, &part.niov);
    int ret = block_co_preadv(node->file, offset, &part, flags, id);
    free(vec);
    return ret;
}

static int cor_co_preadv(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                         unsigned flags, uint64_t id)
{
    struct cor_state *s = node->state;
    bool writable = node->file->flags & BLOCK_OPEN_RDWR;
    uint64_t piece = MAX(COPY_SIZE, s->cluster);
    int ret = 0;

    for (uint64_t done = 0; done < iov->size && ret >= 0;) {
        uint64_t at = offset + done, n = iov->size - done;
        bool is_zero;

        if (done) {
            co_share(BLOCK_SHORT); /* each may be done at once */
        }
        ret = writable ? co_wants_copy(node, at, &n, &is_zero) : 0;
        if (ret > 0) {
            n = MIN(n, piece - at % piece);
            ret = co_read_and_copy(node, at, n, iov, done, id);
        } else if (ret == 0) {
            ret = co_read_part(node, at, n, iov, done, flags, id);
        }
        done += n;
    }
    return MIN(ret, 0);
}

/* ---- the guest's changes ---------------------------------------------------------------------- */

static int cor_co_pwritev(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                          unsigned flags, uint64_t id)
{
    struct cor_state *s = node->state;
    struct tracked_write track;

    co_track_begin(&s->tracker, &track, offset, iov->size);
    int ret = block_co_pwritev(node->file, offset, iov, flags, id);
    co_track_end(&s->tracker, &track);
    return ret;
}

static int cor_co_write_zeroes(struct block_node *node, uint64_t offset, uint64_t length,
                               unsigned flags)
{
    struct cor_state *s = node->state;
    struct tracked_write track;

    co_track_begin(&s->tracker, &track, offset, length);
    int ret = block_co_write_zeroes(node->file, offset, length, flags);
    co_track_end(&s->tracker, &track);
    return ret;
}

static int cor_co_discard(struct block_node *node, uint64_t offset, uint64_t length)
{
    struct cor_state *s = node->state;
    struct tracked_write track;

    co_track_begin(&s->tracker, &track, offset, length);
    int ret = block_co_discard(node->file, offset, length);
    co_track_end(&s->tracker, &track);
    return ret;
}

static const struct node_option options[] = {
    {"file", NODE_OPTION_CHILD},
    {"bottom", NODE_OPTION_STRING},
    {NULL},
};

const struct block_driver block_driver_copy_on_read = {
    .name = "copy-on-read",
    .help = "what is read from backing files goes to the image; file=, bottom=",
    .is_filter = true,
    .keeps_metadata = true, /* its tracker knows the writes that pass through it, and no others */
    .state_size = sizeof(struct cor_state),
    .options = options,
    .supported_flags = BLOCK_REQ_FUA | BLOCK_REQ_COMPRESSED,
    .open = cor_open,
    .close = cor_close,
    .length = cor_length,
    .allow_growth = cor_allow_growth,
    .co_preadv = cor_co_preadv,
    .co_pwritev = cor_co_pwritev,
    .co_discard = cor_co_discard,
    .co_write_zeroes = cor_co_write_zeroes,
};
