/* SPDX-License-Identifier: MIT */
/* file and host_device: requests. See file.h. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/range.h"
#include "block/file.h"
#include "block/iov.h"
#include "trace/trace.h"

#define REST_IOV 64

static bool is_unsupported(int ret)
{
    return ret == -EOPNOTSUPP || ret == -ENOTTY || ret == -ENOSYS;
}

/* ---- read and write -------------------------------------------------------------------------- */

/*
 * Some I/O is only a copy in memory: on tmpfs always, else if the page cache has the data. Then
 * handing it to another thread (or to io_uring, which does that by itself for tmpfs) costs many
 * times what it takes to do it here. Whether the page cache has it is found out by asking
 * (RWF_NOWAIT); where the answer is no again and again, it is asked less often. io_uring asks
 * itself, and for many requests in one system call.
 */
#define NOW_MAX_BYTES    (64 * KiB) /* longer copies are left to others, who do them side by side */
#define NOW_MAX_FAILURES 6u

static bool is_worth_trying(struct file_state *s, enum aio_op op, uint64_t size)
{
    if (size > NOW_MAX_BYTES || s->is_direct || s->is_device) {
        return false;
    }
    if (s->is_memory) {
        return true;
    }
    if (op != AIO_OP_READ || s->engine != AIO_IO_THREADS ||
        atomic_load_explicit(&s->no_now, memory_order_relaxed)) {
        return false;
    }
    unsigned skips = atomic_load_explicit(&s->now_skips, memory_order_relaxed);
    if (skips) {
        /* Another loop may do the same at the same time: no matter. */
        atomic_store_explicit(&s->now_skips, skips - 1, memory_order_relaxed);
    }
    return !skips;
}

static int64_t try_now(struct file_state *s, const struct aio_request *request)
{
    int64_t ret = aio_do_now(request, s->is_memory);

    if (s->is_memory) {
        return ret;
    }
    if (ret == 0 && request->offset < atomic_load_explicit(&s->eof, memory_order_relaxed)) {
        ret =
            -EAGAIN; /* Linux 5.9 and 5.10 say so for pages that are not there: preadv2(2), BUGS */
    }
    unsigned failures = atomic_load_explicit(&s->now_failures, memory_order_relaxed);
    if (ret >= 0 && failures) {
        atomic_store_explicit(&s->now_failures, 0, memory_order_relaxed);
    } else if (ret == -EAGAIN) {
        atomic_store_explicit(&s->now_skips, 1u << failures, memory_order_relaxed);
        atomic_store_explicit(&s->now_failures, MIN(failures + 1, NOW_MAX_FAILURES),
                              memory_order_relaxed);
    } else if (is_unsupported((int)ret)) {
        atomic_store_explicit(&s->no_now, true, memory_order_relaxed);
        ret = -EAGAIN;
    }
    return ret;
}

static int64_t co_submit_iov(struct file_state *s, enum aio_op op, uint64_t offset,
                             const struct block_iov *iov, unsigned flags, uint64_t id)
{
    const struct aio_request request = {
        .op = op,
        .fd = s->fd,
        .flags = flags,
        .iov = iov->iov,
        .niov = iov->niov,
        .offset = offset,
        .length = iov->size,
        .id = id,
    };

    int64_t ret = -EAGAIN;

    TRACE(block_file_submit, id, op, offset, iov->size);
    if (is_worth_trying(s, op, iov->size)) {
        ret = try_now(s, &request);
    }
    if (ret == -EAGAIN) {
        ret = co_aio_submit(s->engine, &request);
    }
    TRACE(block_file_complete, id, op, offset, ret);
    return ret;
}

/* As co_submit_iov(). What a buffered write with RWF_DSYNC fails with may be the write-back of
 * earlier writes, which Linux reports once: it has been told here, and the next fdatasync() would
 * know nothing of it. That a plain write of the same gets somewhere shows that it was the sync. */
static int64_t co_submit_noting_sync(struct file_state *s, enum aio_op op, uint64_t offset,
                                     const struct block_iov *iov, unsigned flags, uint64_t id)
{
    int64_t got = co_submit_iov(s, op, offset, iov, flags, id);

    if (__builtin_expect(got < 0, 0) && flags & AIO_IO_FUA && !s->is_direct &&
        !is_unsupported((int)got) && co_submit_iov(s, op, offset, iov, 0, id) > 0) {
        atomic_store(&s->flush_error, (int)got);
    }
    return got;
}

/* The host transferred less than asked for. Behind the end that the file had when the read began,
 * zeroes are missing; before it, somebody has made the file shorter. */
static int read_end(uint64_t eof, uint64_t offset, const struct block_iov *iov, uint64_t done)
{
    if (offset + done < eof) {
        return -EIO;
    }
    block_iov_zero(iov, done, iov->size - done);
    return 0;
}

/* Goes on after `got` bytes, or an error. eof: of the file, before the request was made. */
static int co_transfer_rest(struct file_state *s, enum aio_op op, uint64_t offset,
                            const struct block_iov *iov, unsigned flags, uint64_t id, uint64_t eof,
                            int64_t got)
{
    struct iovec vec[REST_IOV];
    uint64_t done = 0;

    for (;;) {
        if (got < 0) {
            return (int)got;
        }
        uint64_t before = done;
        done += got;
        if (done >= iov->size) {
            return 0;
        }
        if (op == AIO_OP_READ && (!got || done & (s->request_alignment - 1))) {
            return read_end(eof, offset, iov, done);
        }
        done = align_down(done, s->request_alignment);
        if (done == before) {
            return -EIO; /* nothing was written, and no reason given */
        }
        struct block_iov rest = {.iov = vec};
        rest.size = block_iov_slice(iov, done, iov->size - done, vec, REST_IOV, &rest.niov);
        got = co_submit_noting_sync(s, op, offset + done, &rest, flags, id);
    }
}

int file_co_preadv(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                   unsigned flags, uint64_t id)
{
    struct file_state *s = node->state;
    uint64_t eof = atomic_load_explicit(&s->eof, memory_order_relaxed);
    int64_t got = co_submit_iov(s, AIO_OP_READ, offset, iov, 0, id);

    if (__builtin_expect(got == (int64_t)iov->size, 1)) {
        return 0;
    }
    return co_transfer_rest(s, AIO_OP_READ, offset, iov, 0, id, eof, got);
}

/* Our own writes made the file longer: what is missing before its new end is a hole. */
static void extend_eof(struct file_state *s, uint64_t end)
{
    uint64_t eof = atomic_load_explicit(&s->eof, memory_order_relaxed);

    while (end > eof && !atomic_compare_exchange_weak(&s->eof, &eof, end)) {
    }
}

/* What failed may have been done in part. */
static void extend_eof_after_failure(struct file_state *s, uint64_t end)
{
    struct stat st;

    if (fstat(s->fd, &st) == 0 && st.st_size > 0) {
        extend_eof(s, MIN((uint64_t)st.st_size, end));
    }
}

static int co_write(struct file_state *s, uint64_t offset, const struct block_iov *iov,
                    unsigned flags, uint64_t id)
{
    int64_t got = co_submit_noting_sync(s, AIO_OP_WRITE, offset, iov, flags, id);
    int ret = 0;

    if (__builtin_expect(got != (int64_t)iov->size, 0)) {
        ret = co_transfer_rest(s, AIO_OP_WRITE, offset, iov, flags, id, 0, got);
    }
    (ret == 0 ? extend_eof : extend_eof_after_failure)(s, offset + iov->size);
    return ret;
}

int file_co_pwritev(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                    unsigned flags, uint64_t id)
{
    struct file_state *s = node->state;
    bool fua = flags & BLOCK_REQ_FUA && !(node->flags & BLOCK_OPEN_NO_FLUSH);

    if (__builtin_expect(!fua, 1)) {
        return co_write(s, offset, iov, 0, id);
    }
    if (!atomic_load_explicit(&s->no_dsync, memory_order_relaxed)) {
        int ret = co_write(s, offset, iov, AIO_IO_FUA, id);
        if (!is_unsupported(ret)) {
            return ret;
        }
        atomic_store_explicit(&s->no_dsync, true, memory_order_relaxed);
    }
    int ret = co_write(s, offset, iov, 0, id);
    return ret < 0 ? ret : file_co_flush(node, id);
}

/* ---- flush ----------------------------------------------------------------------------------- */

int file_co_flush(struct block_node *node, uint64_t id)
{
    struct file_state *s = node->state;
    const struct aio_request request = {.op = AIO_OP_FDATASYNC, .fd = s->fd, .id = id};

    /* Linux reports a failed write-back once and then forgets the pages: a later fdatasync()
     * succeeds without them. The guest must not believe it. */
    int ret = atomic_load(&s->flush_error);
    if (ret < 0) {
        return ret;
    }
    TRACE(block_file_submit, id, AIO_OP_FDATASYNC, 0, 0);
    ret = (int)co_aio_submit(s->engine, &request);
    TRACE(block_file_complete, id, AIO_OP_FDATASYNC, 0, ret);
    if (ret < 0 && !s->is_direct) {
        atomic_store(&s->flush_error, ret);
    }
    return ret;
}

/* ---- zeroes and holes ------------------------------------------------------------------------ */

static int co_fallocate(struct file_state *s, int mode, uint64_t offset, uint64_t length)
{
    const struct aio_request request = {
        .op = AIO_OP_FALLOCATE,
        .fd = s->fd,
        .mode = mode,
        .offset = offset,
        .length = length,
    };

    return (int)co_aio_submit(s->engine, &request);
}

/* -ENOTSUP, now and for ever after, if the file system does not know the mode. */
static int co_try_fallocate(struct file_state *s, _Atomic(bool) *unsupported, int mode,
                            uint64_t offset, uint64_t length)
{
    if (atomic_load_explicit(unsupported, memory_order_relaxed)) {
        return -ENOTSUP;
    }
    int ret = co_fallocate(s, mode, offset, length);
    if (is_unsupported(ret)) {
        atomic_store_explicit(unsupported, true, memory_order_relaxed);
        return -ENOTSUP;
    }
    return ret;
}

/* As writes do: also where somebody has made the file shorter meanwhile. */
static bool makes_longer(const struct file_state *s, uint64_t end)
{
    struct stat st;

    return !s->is_device &&
           (end > atomic_load(&s->eof) || (fstat(s->fd, &st) == 0 && end > (uint64_t)st.st_size));
}

int file_co_write_zeroes(struct block_node *node, uint64_t offset, uint64_t length, unsigned flags)
{
    struct file_state *s = node->state;
    bool extends = makes_longer(s, offset + length);
    int ret = -ENOTSUP;

    if (s->is_device && ((offset | length) & (s->block_size - 1))) {
        return -ENOTSUP; /* the kernel wants whole blocks here, page cache or not */
    }
    if (flags & BLOCK_REQ_MAY_UNMAP && !extends) {
        ret = co_try_fallocate(s, &s->no_punch_hole, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                               offset, length);
    }
    if (ret == -ENOTSUP) {
        int keep = extends ? 0 : FALLOC_FL_KEEP_SIZE;
        ret = co_try_fallocate(s, &s->no_zero_range, FALLOC_FL_ZERO_RANGE | keep, offset, length);
    }
    if (extends) {
        (ret == 0 ? extend_eof : extend_eof_after_failure)(s, offset + length);
    }
    if (ret == 0 && flags & BLOCK_REQ_FUA && !(node->flags & BLOCK_OPEN_NO_FLUSH)) {
        ret = file_co_flush(node, 0);
    }
    return ret;
}

struct range_call {
    int fd;
    uint64_t range[2]; /* offset, length */
};

static int discard_in_worker(void *opaque)
{
    struct range_call *call = opaque;

    return ioctl(call->fd, BLKDISCARD, call->range) < 0 ? -errno : 0;
}

int file_co_discard(struct block_node *node, uint64_t offset, uint64_t length)
{
    struct file_state *s = node->state;

    if (!s->is_device) {
        return co_try_fallocate(s, &s->no_punch_hole, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                offset, length);
    }
    if (atomic_load_explicit(&s->no_discard, memory_order_relaxed)) {
        return -ENOTSUP;
    }
    struct range_call call = {.fd = s->fd, .range = {offset, length}};
    int ret = co_thread_pool(discard_in_worker, &call);
    if (is_unsupported(ret)) {
        atomic_store_explicit(&s->no_discard, true, memory_order_relaxed);
        return -ENOTSUP;
    }
    return ret;
}

/* ---- status ---------------------------------------------------------------------------------- */

struct seek_call {
    int fd;
    uint64_t eof;
    uint64_t range[2]; /* offset, length; result: of what shares the status */
    int status;
};

/* A hole that reaches the end of the file, or what lies behind that: zeroes. But where somebody has
 * made the file shorter, reads fail, and nothing is known. */
static void seek_end(struct seek_call *call)
{
    uint64_t offset = call->range[0];
    struct stat st;

    call->status = BLOCK_STATUS_ZERO;
    if (fstat(call->fd, &st) < 0 || (uint64_t)st.st_size >= call->eof) {
        return;
    }
    if (offset < (uint64_t)st.st_size) {
        call->range[1] = MIN(call->range[1], (uint64_t)st.st_size - offset);
    } else if (offset < call->eof) {
        call->status = BLOCK_STATUS_DATA;
        call->range[1] = MIN(call->range[1], call->eof - offset);
    }
}

/* Whether offset lies in a hole, and where that, or the data, ends. */
static int seek_in_worker(void *opaque)
{
    struct seek_call *call = opaque;
    off_t offset = (off_t)call->range[0];
    off_t data = lseek(call->fd, offset, SEEK_DATA);

    if (data < 0 && errno == ENXIO) {
        seek_end(call);
    } else if (data < 0) {
        call->status = BLOCK_STATUS_DATA; /* not known: all is data */
    } else if (data > offset) {
        call->status = BLOCK_STATUS_ZERO;
        call->range[1] = MIN(call->range[1], (uint64_t)(data - offset));
    } else {
        off_t hole = lseek(call->fd, offset, SEEK_HOLE);
        call->status = BLOCK_STATUS_DATA;
        if (hole > offset) {
            call->range[1] = MIN(call->range[1], (uint64_t)(hole - offset));
        }
    }
    return 0;
}

int file_co_block_status(struct block_node *node, uint64_t offset, uint64_t *length, uint64_t *map)
{
    const struct file_state *s = node->state;
    struct seek_call call = {.fd = s->fd, .eof = atomic_load(&s->eof), .range = {offset, *length}};

    *map = offset;
    if (s->is_device) {
        return BLOCK_STATUS_DATA | BLOCK_STATUS_OFFSET_VALID | BLOCK_STATUS_ALLOCATED;
    }
    int ret = co_thread_pool(seek_in_worker, &call);
    if (ret < 0) {
        return ret;
    }
    *length = call.range[1];
    return call.status | BLOCK_STATUS_OFFSET_VALID | BLOCK_STATUS_ALLOCATED;
}

/* ---- length ---------------------------------------------------------------------------------- */

struct truncate_call {
    int fd;
    uint64_t old, length;
    enum block_prealloc prealloc;
};

static int truncate_in_worker(void *opaque)
{
    const struct truncate_call *call = opaque;

    return file_set_length(call->fd, call->old, call->length, call->prealloc);
}

int file_co_truncate(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
                     struct error **errp)
{
    struct file_state *s = node->state;
    struct truncate_call call = {
        .fd = s->fd, .old = atomic_load(&s->eof), .length = length, .prealloc = prealloc};

    int ret = co_thread_pool(truncate_in_worker, &call);
    if (ret < 0) {
        error_set_errno(errp, -ret, "Could not change the length of '%s' to %llu bytes",
                        node->filename, (unsigned long long)length);
        return ret;
    }
    atomic_store(&s->eof, length);
    return 0;
}
