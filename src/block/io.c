/* SPDX-License-Identifier: MIT */
/*
 * Requests to a node: checked, and handed to the driver as they are if it can take them so; cut,
 * copied or padded if it cannot (bounce.c).
 *
 * Flushes: a write sets `unflushed` after it is done and before it is reported; a flush clears it,
 * then tells the driver. So a flush that finds it clear has nothing to do: all that was reported
 * is covered by an earlier flush. As that one may still be running, flushes take turns by
 * flush_lock; ten that come together cost two.
 */
#include <errno.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/bitmap.h"
#include "block/bounce.h"
#include "block/debug.h"
#include "block/iov.h"
#include "block/node.h"
#include "block/zeroes.h"
#include "trace/trace.h"

#define PIECE_IOV 64 /* of a list, copied at once */

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* ---- read and write -------------------------------------------------------------------------- */

int block_co_preadv(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                    unsigned flags, uint64_t id)
{
    TRACE(block_co_preadv, id, node->name, offset, iov->size);
    if (unlikely(!range_fits(offset, iov->size, block_length(node)))) {
        return -EIO;
    }
    if (unlikely(!iov->size)) {
        return 0;
    }
    if (likely(bounce_not_needed(node, offset, iov))) {
        return node->driver->co_preadv(node, offset, iov, flags, id);
    }
    return co_bounce_read(node, offset, iov, flags, id);
}

/* No arrays on the stack of who reads: backing chains are read by recursion. */
__attribute__((noinline)) static int co_read_end(struct block_node *node, uint64_t offset,
                                                 const struct block_iov *iov, uint64_t length,
                                                 unsigned flags, uint64_t id)
{
    unsigned most = MIN(iov->niov, PIECE_IOV);
    autofree struct iovec *vec = xreallocarray(NULL, most, sizeof(*vec));
    uint64_t there = offset < length ? length - offset : 0;

    for (uint64_t done = 0; done < there;) {
        struct block_iov piece = {.iov = vec};
        piece.size = block_iov_slice(iov, done, there - done, vec, (int)most, &piece.niov);
        int ret = block_co_preadv(node, offset + done, &piece, flags, id);
        if (ret < 0) {
            return ret;
        }
        done += piece.size;
    }
    co_block_iov_zero(iov, there, iov->size - there);
    return 0;
}

int block_co_preadv_padded(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                           unsigned flags, uint64_t id)
{
    uint64_t length = block_length(node);

    if (likely(range_fits(offset, iov->size, length))) {
        return block_co_preadv(node, offset, iov, flags, id);
    }
    return co_read_end(node, offset, iov, length, flags, id);
}

/* The end of a node that grows follows what is written to it. */
static void extend(struct block_node *node, uint64_t end)
{
    uint64_t length = block_length(node);

    while (end > length && !atomic_compare_exchange_weak(&node->length, &length, end)) {
    }
}

/* What failed may have been done in part, and then the node is longer: who reads there must see the
 * same now as later. */
static void extend_after_failure(struct block_node *node, uint64_t end)
{
    int64_t length = node->driver->length ? node->driver->length(node) : -1;

    if (length > 0) {
        extend(node, MIN((uint64_t)length, end));
    }
}

static bool may_write(const struct block_node *node, uint64_t offset, uint64_t size)
{
    uint64_t length = atomic_load_explicit(&node->length, memory_order_relaxed);

    return range_fits(offset, size, node->grows ? INT64_MAX & ~node->request_mask : length);
}

/* Before a change is reported: the next flush must reach the driver. */
static void mark_unflushed(struct block_node *node)
{
    if (node->driver->co_flush && !atomic_load(&node->unflushed)) {
        atomic_store(&node->unflushed, true);
    }
}

static int co_write_tracked(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                            unsigned flags, uint64_t id)
{
    uint64_t mask = node->request_mask;
    struct tracked_write write;
    int ret;

    if (unlikely((offset | iov->size) & mask)) {
        uint64_t start = offset & ~mask;
        co_track_begin_serialising(&node->tracker, &write, start,
                                   align_up(offset + iov->size, mask + 1) - start);
    } else {
        co_track_begin(&node->tracker, &write, offset, iov->size);
    }
    ret = bounce_not_needed(node, offset, iov)
              ? node->driver->co_pwritev(node, offset, iov, flags, id)
              : co_bounce_write(node, offset, iov, flags, id);
    co_track_end(&node->tracker, &write);
    return ret;
}

/* A driver that cannot write through to stable storage is flushed after the write. */
static int co_finish_write(struct block_node *node, int ret, bool flush, uint64_t id)
{
    mark_unflushed(node); /* also after an error: a part may have been written */
    if (unlikely(flush) && ret == 0) {
        return block_co_flush(node, id);
    }
    return ret;
}

/* detect-zeroes=: -ENOTSUP if it has to be written as it is. */
static int co_write_as_zeroes(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                              unsigned flags)
{
    unsigned unmap = node->flags & BLOCK_OPEN_DETECT_UNMAP ? BLOCK_REQ_MAY_UNMAP : 0;

    if (flags & BLOCK_REQ_COMPRESSED || !co_block_iov_is_zero(iov)) {
        return -ENOTSUP;
    }
    return block_co_write_zeroes(node, offset, iov->size, flags | unmap | BLOCK_REQ_NO_FALLBACK);
}

int block_co_pwritev(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                     unsigned flags, uint64_t id)
{
    int ret;

    TRACE(block_co_pwritev, id, node->name, offset, iov->size);
    if (unlikely(!(node->flags & BLOCK_OPEN_RDWR))) {
        return -EROFS;
    }
    if (unlikely(!may_write(node, offset, iov->size))) {
        return -EIO;
    }
    if (unlikely(!iov->size)) {
        return 0;
    }
    if (unlikely(flags & BLOCK_REQ_COMPRESSED & ~node->driver->supported_flags)) {
        return -ENOTSUP;
    }

    if (unlikely(node->flags & BLOCK_OPEN_DETECT_ZEROES)) {
        ret = co_write_as_zeroes(node, offset, iov, flags);
        if (ret != -ENOTSUP) {
            return ret;
        }
    }

    unsigned driver_flags = flags & (node->driver->supported_flags | ~BLOCK_REQ_FUA);
    if (likely(!node->tracks_writes && bounce_not_needed(node, offset, iov))) {
        ret = node->driver->co_pwritev(node, offset, iov, driver_flags, id);
    } else {
        ret = co_write_tracked(node, offset, iov, driver_flags, id);
    }
    if (unlikely(node->grows)) {
        (ret == 0 ? extend : extend_after_failure)(node, offset + iov->size);
    }
    block_bitmaps_mark(node, offset, iov->size); /* as below: also after an error */
    return co_finish_write(node, ret, flags != driver_flags, id);
}

/* ---- flush ----------------------------------------------------------------------------------- */

int block_co_flush(struct block_node *node, uint64_t id)
{
    int ret = 0;

    TRACE(block_co_flush, id, node->name);
    if (!node->driver->is_protocol && !node->driver->is_filter) {
        block_debug_event(node, BLOCK_EVENT_FLUSH_TO_OS);
    }
    if (!node->driver->co_flush) {
        return node->file ? block_co_flush(node->file, id) : 0;
    }
    if (node->driver->is_protocol && node->flags & BLOCK_OPEN_NO_FLUSH) {
        return 0;
    }
    co_mutex_lock(&node->flush_lock);
    if (atomic_exchange(&node->unflushed, false)) {
        ret = node->driver->co_flush(node, id);
        if (ret < 0) {
            atomic_store(&node->unflushed, true);
        }
    }
    co_mutex_unlock(&node->flush_lock);
    return ret;
}

/* ---- write zeroes ---------------------------------------------------------------------------- */

/* Of whole blocks, by the driver. One that hands them on lets its child write them from buffers, if
 * that may be, as the child is who knows: what is in between sees one request. */
static int co_zero_blocks(struct block_node *node, uint64_t offset, uint64_t length, unsigned flags)
{
    struct tracked_write write;
    int ret = 0;

    if (!length) {
        return 0;
    }
    if (!node->driver->co_write_zeroes) {
        return -ENOTSUP;
    }
    if (node->tracks_writes) {
        co_track_begin(&node->tracker, &write, offset, length);
    }
    while (length && ret == 0) {
        uint64_t n = MIN(length, node->limits.max_write_zeroes);
        ret = node->driver->co_write_zeroes(node, offset, n, flags);
        offset += n;
        length -= n;
    }
    if (node->tracks_writes) {
        co_track_end(&node->tracker, &write);
    }
    return ret;
}

int block_co_write_zeroes(struct block_node *node, uint64_t offset, uint64_t length, unsigned flags)
{
    uint64_t mask = node->limits.write_zeroes_alignment - 1;

    TRACE(block_co_write_zeroes, node->name, offset, length, flags);
    if (!(node->flags & BLOCK_OPEN_RDWR)) {
        return -EROFS;
    }
    if (!may_write(node, offset, length)) {
        return -EIO;
    }
    if (!(node->flags & BLOCK_OPEN_UNMAP)) {
        flags &= ~BLOCK_REQ_MAY_UNMAP;
    }

    /* [offset, first) and [last, end) are parts of blocks; [first, last) is whole ones. */
    uint64_t end = offset + length;
    uint64_t first = MIN(align_up(offset, mask + 1), end);
    uint64_t last = MAX(end & ~mask, first);
    unsigned driver_flags = flags & (node->driver->supported_flags | ~BLOCK_REQ_FUA);
    int ret = -ENOTSUP;

    if (flags & BLOCK_REQ_NO_FALLBACK && (first != offset || last != end)) {
        int are_zero =
            flags & BLOCK_REQ_ZERO_PARTS ? block_co_reads_as_zeroes(node, offset, first) : 0;
        if (are_zero == 1) {
            are_zero = block_co_reads_as_zeroes(node, last, end);
        }
        if (are_zero != 1) {
            return are_zero < 0 ? are_zero : -ENOTSUP;
        }
        offset = first;
        end = last;
    }
    ret = co_zero_blocks(node, first, last - first, driver_flags);
    if (ret == -ENOTSUP && !(flags & BLOCK_REQ_NO_FALLBACK)) {
        return co_bounce_zeroes(node, offset, length, flags);
    }
    if (node->grows) {
        (ret == 0 ? extend : extend_after_failure)(node, last);
    }
    block_bitmaps_mark(node, first, last - first);
    ret = co_finish_write(node, ret, flags != driver_flags, 0);
    if (ret == 0) {
        ret = co_bounce_zeroes(node, offset, first - offset, flags);
    }
    if (ret == 0) {
        ret = co_bounce_zeroes(node, last, end - last, flags);
    }
    return ret;
}

/* ---- discard --------------------------------------------------------------------------------- */

/* A hint: what cannot be done, or is not allowed by discard=, is left undone. */
int block_co_discard(struct block_node *node, uint64_t offset, uint64_t length)
{
    uint64_t alignment = node->limits.discard_alignment;
    struct tracked_write write;
    int ret = 0;

    TRACE(block_co_discard, node->name, offset, length);
    if (!(node->flags & BLOCK_OPEN_RDWR)) {
        return -EROFS;
    }
    if (!range_fits(offset, length, block_length(node))) {
        return -EIO;
    }
    if (!(node->flags & BLOCK_OPEN_UNMAP) || !node->driver->co_discard) {
        return 0;
    }
    /* Behind the end of the disk nobody looks: its last block may be a part. */
    uint64_t first = align_up(offset, alignment), last = offset + length;
    if (last != block_length(node)) {
        last = align_down(last, alignment);
    }
    if (first >= last) {
        return 0;
    }
    offset = first;

    if (node->tracks_writes) {
        co_track_begin(&node->tracker, &write, first, last - first);
    }
    while (first < last && ret == 0) {
        uint64_t n = MIN(last - first, node->limits.max_discard);
        ret = node->driver->co_discard(node, first, n);
        first += n;
    }
    if (node->tracks_writes) {
        co_track_end(&node->tracker, &write);
    }
    block_bitmaps_mark(node, offset, first - offset);
    mark_unflushed(node);
    return ret == -ENOTSUP ? 0 : ret;
}
