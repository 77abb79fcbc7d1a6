/* SPDX-License-Identifier: MIT */
/*
 * Host I/O of coroutines: the choice of the engine, and the system calls of the worker threads.
 */
#include "aio/io.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include "aio/coroutine.h"
#include "aio/thread_pool.h"
#include "aio/uring.h"
#include "trace/trace.h"

/* How long a worker waits for a file that says EAGAIN before it asks again. */
#define AGAIN_POLL_MS 100
/* What a short request is, at most. */
#define SHORT_BYTES 65536
#define SHORT_IOV   16
/* Of what is longer, io_uring's workers do all: else what the page cache has is copied, and with O_DIRECT
 * the pages are looked up, within the system call that submits. */
#define LONG_BYTES (4 * MiB)

/* ---- by the thread pool --------------------------------------------------------------------- */

static int64_t call_once(const struct aio_request *r)
{
    int64_t ret = -1;
    switch (r->op) {
    case AIO_OP_READ:
        ret = preadv(r->fd, r->iov, r->niov, (off_t)r->offset);
        break;
    case AIO_OP_WRITE:
        ret = pwritev2(r->fd, r->iov, r->niov, (off_t)r->offset,
                       r->flags & AIO_IO_FUA ? RWF_DSYNC : 0);
        break;
    case AIO_OP_FDATASYNC:
        ret = fdatasync(r->fd);
        break;
    case AIO_OP_FALLOCATE:
        ret = fallocate(r->fd, r->mode, (off_t)r->offset, (off_t)r->length);
        break;
    }
    return ret < 0 ? -errno : ret;
}

static int64_t call_in_worker(void *opaque)
{
    const struct aio_request *r = opaque;
    for (;;) {
        int64_t ret = call_once(r);
        if (ret == -EAGAIN) {
            struct pollfd pfd = {.fd = r->fd, .events = r->op == AIO_OP_READ ? POLLIN : POLLOUT};
            poll(&pfd, 1, AGAIN_POLL_MS);
        } else if (ret != -EINTR) {
            return ret;
        }
    }
}

/* ---- by io_uring ---------------------------------------------------------------------------- */

static int64_t co_uring_run(struct uring *uring, const struct aio_request *r)
{
    struct uring_io io = {.co = coroutine_self(), .request = r, .is_async = r->length > LONG_BYTES};
    do {
        uring_submit_io(uring, &io, coroutine_loop(io.co)->max_batch);
        coroutine_yield();
        if (io.result == -EAGAIN) {
            if (io.is_async) {
                /* Not even a kernel worker waits for this file (O_NONBLOCK). */
                return co_pool_run(call_in_worker, (void *)r, false);
            }
            io.is_async = true;
        }
        /* The loop has been bound anew meanwhile, perhaps. */
        uring = loop_get_uring(coroutine_loop(io.co));
    } while ((io.result == -EAGAIN || io.result == -EINTR) && uring);
    return io.result;
}

/* ---- both ----------------------------------------------------------------------------------- */

bool aio_io_available(struct aio_loop *loop, enum aio_io_engine engine, struct error **errp)
{
    if (engine == AIO_IO_THREADS || uring_probe(errp)) {
        return true;
    }
    error_add_hint(errp, "use aio=threads");
    return false;
}

static bool request_is_valid(const struct aio_request *r)
{
    switch (r->op) {
    case AIO_OP_READ:
    case AIO_OP_WRITE:
        return r->niov >= 0 && r->niov <= IOV_MAX && r->offset <= INT64_MAX;
    case AIO_OP_FALLOCATE:
        return r->offset <= INT64_MAX && r->length <= INT64_MAX;
    default:
        return true;
    }
}

/* Of a file, and sooner done than handed to another thread and back. */
static bool is_short(const struct aio_request *r)
{
    size_t size = 0;

    if ((r->op != AIO_OP_READ && r->op != AIO_OP_WRITE) || r->niov > SHORT_IOV) {
        return false;
    }
    for (int i = 0; i < r->niov; i++) {
        size += r->iov[i].iov_len;
    }
    return size <= SHORT_BYTES;
}

int64_t co_aio_submit(enum aio_io_engine engine, const struct aio_request *request)
{
    /* io_uring takes an offset of -1 for the file's position, so refuse what is no offset. */
    if (!request_is_valid(request)) {
        return -EINVAL;
    }
    TRACE(aio_submit, request->id, request->op, request->fd, request->offset);
    struct uring *uring =
        engine == AIO_IO_URING ? loop_get_uring(coroutine_loop(coroutine_self())) : NULL;
    int64_t ret = uring ? co_uring_run(uring, request)
                        : co_pool_run(call_in_worker, (void *)request, is_short(request));
    TRACE(aio_complete, request->id, request->op, request->fd, ret);
    return ret;
}

int64_t aio_do_now(const struct aio_request *r, bool wait)
{
    int rw_flags = (wait ? 0 : RWF_NOWAIT) | (r->flags & AIO_IO_FUA ? RWF_DSYNC : 0);
    ssize_t ret;

    if (!request_is_valid(r)) {
        return -EINVAL;
    }
    TRACE(aio_submit, r->id, r->op, r->fd, r->offset);
    do {
        ret = r->op == AIO_OP_READ ? preadv2(r->fd, r->iov, r->niov, (off_t)r->offset, rw_flags)
                                   : pwritev2(r->fd, r->iov, r->niov, (off_t)r->offset, rw_flags);
    } while (ret < 0 && errno == EINTR);
    ret = ret < 0 ? -errno : ret;
    TRACE(aio_complete, r->id, r->op, r->fd, ret);
    return ret;
}

struct int_call {
    int (*fn)(void *opaque);
    void *opaque;
};

static int64_t run_int_call(void *opaque)
{
    struct int_call *call = opaque;
    return call->fn(call->opaque);
}

int co_thread_pool(int (*fn)(void *opaque), void *opaque)
{
    struct int_call call = {.fn = fn, .opaque = opaque};
    return (int)co_pool_run(run_int_call, &call, false);
}
