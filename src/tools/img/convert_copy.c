/* SPDX-License-Identifier: MIT */
/* Copying images. See convert.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/range.h"
#include "tools/common/signals.h"
#include "tools/img/convert.h"

#define BUFFER_ALIGNMENT 4096
#define SALVAGE_UNIT     512         /* bytes: so much is lost with a read error */
#define MAX_ZEROES       (128 * MiB) /* bytes between two looks at the signals */

enum extent_kind {
    EXTENT_DATA,
    EXTENT_ZERO,
    EXTENT_BACKING /* the target's backing file has it */
};

struct extent {
    enum extent_kind kind;
    uint64_t offset, length, ticket;
};

static void fail(struct copy *copy, int ret, uint64_t offset, bool reading)
{
    if (!copy->ret) {
        copy->ret = ret;
        copy->failed_at = offset;
        copy->failed_reading = reading;
    }
}

static bool was_interrupted(struct copy *copy)
{
    if (signals_caught()) {
        copy->interrupted = true;
        fail(copy, -EINTR, copy->next, false);
    }
    return copy->interrupted;
}

/* ---- the sources ----------------------------------------------------------------------------- */

static struct copy_source *source_at(struct copy *copy, uint64_t offset)
{
    size_t i = 0;

    while (i + 1 < copy->source_count && offset >= copy->sources[i + 1].start) {
        i++;
    }
    return &copy->sources[i];
}

static int co_read(struct copy *copy, uint64_t offset, unsigned char *to, size_t size)
{
    int ret = 0;

    while (size && !ret) {
        struct copy_source *source = source_at(copy, offset);
        uint64_t within = offset - source->start;
        size_t n = MIN(size, source->length - within);

        ret = data_co_read(source->be, source->offset + within, to, n);
        offset += n;
        to += n;
        size -= n;
    }
    return ret;
}

/* Sector by sector, where a large read failed. */
static void co_salvage(struct copy *copy, uint64_t offset, unsigned char *to, size_t size)
{
    for (size_t at = 0; at < size; at += SALVAGE_UNIT) {
        size_t n = MIN(SALVAGE_UNIT, size - at);
        int ret = co_read(copy, offset + at, to + at, n);
        if (ret < 0) {
            memset(to + at, 0, n);
            if (!copy->quiet) {
                log_warn("error while reading offset %" PRIu64 ": %s", offset + at, strerror(-ret));
            }
        }
    }
}

/* What is at `offset` of a source: its kind, and in *length how far it goes. */
static int co_source_status(struct copy *copy, uint64_t offset, uint64_t *length)
{
    struct copy_source *source = source_at(copy, offset);
    struct block_node *node = backend_root(source->be);
    uint64_t within = offset - source->start, map;
    struct block_node *base =
        copy->target_has_backing ? block_node_skip_filters(node)->backing : NULL;

    *length = source->length - within;
    int status =
        block_co_status_above(node, base, source->offset + within, length, &map, NULL, NULL);
    if (status < 0 || !*length) {
        if (status >= 0) {
            *length = source->length - within;
        }
        return status < 0 && copy->salvage ? EXTENT_DATA : status < 0 ? status : EXTENT_ZERO;
    }
    if (copy->only_allocated && !(status & BLOCK_STATUS_ALLOCATED)) {
        return EXTENT_BACKING;
    }
    if (status & BLOCK_STATUS_ZERO) {
        bool behind_backing = copy->target_has_backing && offset >= copy->backing_length;
        return behind_backing ? EXTENT_BACKING : EXTENT_ZERO;
    }
    return base && !(status & BLOCK_STATUS_ALLOCATED) ? EXTENT_BACKING : EXTENT_DATA;
}

/* ---- extents --------------------------------------------------------------------------------- */

/* Fills copy->known for copy->next. */
static int co_look(struct copy *copy)
{
    uint64_t length;

    if (copy->next < copy->known_end) {
        return 0;
    }
    int kind = co_source_status(copy, copy->next, &length);
    if (kind < 0 && !copy->salvage) {
        fail(copy, kind, copy->next, true);
        return kind;
    }
    copy->known = kind < 0 ? EXTENT_DATA : kind;
    copy->known_end = copy->next + (kind < 0 ? MIN(length, copy->chunk) : length);
    return 0;
}

static bool is_skipped(const struct copy *copy, enum extent_kind kind)
{
    return kind == EXTENT_BACKING || (kind == EXTENT_ZERO && copy->target_is_zero &&
                                      copy->min_sparse && !copy->target_has_backing);
}

/* The next extent that is something to do. False: there is none, or an error. Whole units of the
 * target are data as soon as a part of them is. */
static bool co_next_locked(struct copy *copy, struct extent *extent)
{
    while (copy->next < copy->total && !copy->ret) {
        if (was_interrupted(copy)) {
            return false;
        }
        if (co_look(copy) < 0) {
            return false;
        }
        enum extent_kind kind = copy->known;
        uint64_t offset = copy->next;
        uint64_t end =
            copy->known_end == copy->total ? copy->total : align_down(copy->known_end, copy->unit);

        if (kind != EXTENT_DATA && end <= offset) {
            kind = EXTENT_DATA; /* not a whole unit */
        }
        if (kind == EXTENT_DATA || (kind == EXTENT_ZERO && copy->writes_holes)) {
            end = align_down(offset, copy->chunk) + copy->chunk;
            end = MIN(end, align_up(MIN(copy->known_end, copy->total), copy->unit));
            if (kind == EXTENT_ZERO) {
                kind = EXTENT_DATA;
            }
        }
        end = MIN(end, copy->total);
        copy->next = end;
        if (is_skipped(copy, kind)) {
            progress_add(&copy->progress, end - offset);
            continue;
        }
        *extent = (struct extent){
            .kind = kind, .offset = offset, .length = end - offset, .ticket = copy->tickets++};
        return true;
    }
    return false;
}

static bool co_next(struct copy *copy, struct extent *extent)
{
    co_mutex_lock(&copy->next_lock);
    bool found = co_next_locked(copy, extent);
    co_mutex_unlock(&copy->next_lock);
    return found;
}

/* ---- the target ------------------------------------------------------------------------------ */

/* Where the target reads as zero already nothing is written. Nobody else writes to the range meanwhile. */
static int co_write_zeroes(struct copy *copy, uint64_t offset, uint64_t length)
{
    struct block_node *node = backend_root(copy->target);
    int ret = 0;

    if (copy->target_is_zero && !copy->target_has_backing) {
        return 0;
    }
    while (length && !ret && !was_interrupted(copy)) {
        uint64_t n = MIN(length, MAX_ZEROES), map;
        int status = block_co_status_above(node, NULL, offset, &n, &map, NULL, NULL);
        if (status < 0 || !n) {
            n = MIN(length, MAX_ZEROES);
        }
        if (status < 0 || !(status & BLOCK_STATUS_ZERO)) {
            ret = backend_co_write_zeroes(copy->target, offset, n, BLOCK_REQ_MAY_UNMAP);
        }
        offset += n;
        length -= n;
    }
    return ret;
}

static int co_write_data(struct copy *copy, const struct extent *extent, const unsigned char *data)
{
    uint64_t offset = extent->offset;
    size_t left = extent->length;
    int ret = 0;

    while (left && !ret) {
        bool is_zero = false;
        size_t n = left;
        if (copy->compressed) {
            n = MIN(left, copy->unit);
            is_zero = copy->min_sparse && data_is_zero(data, n);
        } else if (copy->min_sparse) {
            n = data_run(data, left, offset, copy->unit, copy->min_sparse, &is_zero);
        }
        ret = is_zero ? co_write_zeroes(copy, offset, n)
                      : data_co_write(copy->target, offset, data, n,
                                      copy->compressed ? BLOCK_REQ_COMPRESSED : 0);
        offset += n;
        data += n;
        left -= n;
    }
    return ret;
}

/* Compressed clusters are written as they get ready: their order says nothing about places. */
static void co_wait_turn(struct copy *copy, const struct extent *extent)
{
    while (!copy->out_of_order && copy->turn != extent->ticket) {
        co_queue_wait(&copy->turns, NULL);
    }
}

static void end_turn(struct copy *copy)
{
    copy->turn++;
    if (!copy->out_of_order) {
        co_queue_wake_all(&copy->turns);
    }
}

/* ---- a coroutine ----------------------------------------------------------------------------- */

/* By the host; -ENOTSUP: by us, this one and those after it. */
static int co_offload(struct copy *copy, const struct extent *extent)
{
    struct copy_source *source = source_at(copy, extent->offset);
    uint64_t within = extent->offset - source->start;

    if (!copy->offload || extent->kind != EXTENT_DATA ||
        !range_fits(within, extent->length, source->length)) {
        return -ENOTSUP;
    }
    data_co_wait(&copy->rate, extent->length);
    if (was_interrupted(copy)) {
        return -EINTR;
    }
    int ret = block_co_copy_range(backend_root(source->be), source->offset + within,
                                  backend_root(copy->target), extent->offset, extent->length);
    if (ret == -ENOTSUP) {
        copy->offload = false;
    }
    return ret;
}

static void co_copy_extent(struct copy *copy, const struct extent *extent, unsigned char *buffer)
{
    int ret = co_offload(copy, extent);

    if (ret != -ENOTSUP) {
        if (ret < 0) {
            fail(copy, ret, extent->offset, false);
        }
        progress_add(&copy->progress, extent->length);
        co_wait_turn(copy, extent);
        end_turn(copy);
        return;
    }
    ret = 0;
    if (extent->kind == EXTENT_DATA) {
        ret = co_read(copy, extent->offset, buffer, extent->length);
        if (ret < 0 && copy->salvage) {
            co_salvage(copy, extent->offset, buffer, extent->length);
            ret = 0;
        }
        if (ret < 0) {
            fail(copy, ret, extent->offset, true);
        }
    }
    co_wait_turn(copy, extent);
    if (!copy->ret) {
        data_co_wait(&copy->rate, extent->length);
    }
    if (!was_interrupted(copy) && !copy->ret) {
        ret = extent->kind == EXTENT_DATA ? co_write_data(copy, extent, buffer)
                                          : co_write_zeroes(copy, extent->offset, extent->length);
        if (ret < 0) {
            fail(copy, ret, extent->offset, false);
        }
        progress_add(&copy->progress, extent->length);
    }
    end_turn(copy);
}

static void co_copy(void *opaque)
{
    struct copy *copy = opaque;
    struct extent extent;
    unsigned char *buffer = NULL;

    while (co_next(copy, &extent)) {
        if (!buffer) {
            buffer = xaligned_alloc(BUFFER_ALIGNMENT, copy->chunk);
        }
        co_copy_extent(copy, &extent, buffer);
    }
    free(buffer);
}

void copy_run(struct copy *copy)
{
    co_mutex_init(&copy->next_lock);
    co_queue_init(&copy->turns);
    data_run_workers(copy->workers, co_copy, copy);
    co_queue_destroy(&copy->turns);
    co_mutex_destroy(&copy->next_lock);
}
