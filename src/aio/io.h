/* SPDX-License-Identifier: MIT */
/*
 * Host file I/O from coroutines: by the thread pool (preadv, pwritev, …) or by the loop's io_uring.
 *
 * Requests of one round of the loop are submitted together when it waits (batching needs nothing
 * from the caller). A request cannot be cancelled; memory it names stays valid until it returns.
 */
#ifndef FERRY_AIO_IO_H
#define FERRY_AIO_IO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "aio/loop.h"

enum aio_io_engine { AIO_IO_THREADS, AIO_IO_URING };

enum aio_op {
    AIO_OP_READ,      /* iov, niov, offset, length */
    AIO_OP_WRITE,     /* iov, niov, offset, length; flags: AIO_IO_FUA */
    AIO_OP_FDATASYNC, /* nothing */
    AIO_OP_FALLOCATE, /* offset, length, mode of fallocate(2) */
};

#define AIO_IO_FUA 1u /* write with RWF_DSYNC */

struct aio_request {
    enum aio_op op;
    int fd;
    unsigned flags;
    int mode;
    const struct iovec *iov; /* at most IOV_MAX */
    int niov;
    uint64_t offset; /* bytes */
    uint64_t length; /* bytes; of reads and writes 0 if it is not known, that is: not much */
    uint64_t id;     /* request id for tracing, or 0 */
};

/* True if requests of a coroutine in this loop can use the engine. */
bool aio_io_available(struct aio_loop *loop, enum aio_io_engine engine, struct error **errp);

/* Yields until the request is done: bytes transferred (may be short, 0 at the end of the file;
 * EINTR and EAGAIN are retried), 0 for the others, or negative errno. */
int64_t co_aio_submit(enum aio_io_engine engine, const struct aio_request *request);

/* A read or write in the calling thread, at once: bytes transferred (may be short) or negative errno.
 * wait: it may wait, which is for files that never do so for long (in memory); else -EAGAIN if it
 * would wait and -EOPNOTSUPP if the file cannot tell. No coroutine needed. */
int64_t aio_do_now(const struct aio_request *request, bool wait);

/* Runs fn(opaque) in a worker thread of the pool and yields until it returned; its result. For
 * blocking calls of every kind. */
int co_thread_pool(int (*fn)(void *opaque), void *opaque);

#endif
