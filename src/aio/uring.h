/* SPDX-License-Identifier: MIT */
/*
 * A loop's io_uring: made for one thread, used by this thread alone.
 *
 * The io_uring engine waits in it; a loop of the epoll engine has one for I/O requests only. What
 * a completion is for stands in the low bits of its user data.
 */
#ifndef FERRY_AIO_URING_H
#define FERRY_AIO_URING_H

#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>

#include "aio/internal.h"

enum uring_tag {
    URING_TAG_IO,      /* struct uring_io */
    URING_TAG_HANDLER, /* struct aio_handler */
    URING_TAG_WAKE,    /* wake_fd */
    URING_TAG_IGNORE,
    URING_TAG_MASK = 3,
};

struct uring {
    struct io_uring ring;
    unsigned inflight;                              /* I/O requests with the kernel */
    struct uring_io *backlog_first, **backlog_last; /* for want of room in the ring */
};

/* A request on its coroutine's stack. */
struct uring_io {
    struct uring_io *next;
    struct coroutine *co;
    const struct aio_request *request;
    bool is_async; /* not again without a kernel worker */
    int result;
};

/* False and an error that says why if the kernel gives no usable ring. Any thread; asks once. */
bool uring_probe(struct error **errp);

/* A ring for the calling thread. */
struct uring *uring_new(struct error **errp);
/* By the same thread, and not before inflight is 0. */
void uring_free(struct uring *uring);

/* Room for a request, or NULL if there is none until completions have been taken. */
struct io_uring_sqe *uring_get_sqe(struct uring *uring);
/* max_batch: requests in the ring that are not submitted yet, at most; 0: no limit. */
void uring_submit_io(struct uring *uring, struct uring_io *io, uint64_t max_batch);
/* Moves requests from the backlog into the ring. */
void uring_flush_backlog(struct uring *uring);

/* True if there are completions, or the kernel has some that it wants to be asked for. */
static inline bool uring_is_ready(struct uring *uring)
{
    return io_uring_cq_ready(&uring->ring) > 0 || (IO_URING_READ_ONCE(*uring->ring.sq.kflags) &
                                                   (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN));
}

/* Submits and fetches what is complete; no system call if there is neither. */
void uring_submit(struct uring *uring);
/* The same, and waits for a completion up to timeout_ns (NEVER: for ever). */
void uring_wait(struct uring *uring, int64_t timeout_ns);
/* Handles the completions that are there now; true if a handler or a coroutine ran. While the
 * loop is being unbound nothing runs: coroutines are left to its next round, and what a handler
 * waits for will be there again when it is armed anew. */
bool uring_process(struct aio_loop *loop, struct uring *uring);
/* Waits until no I/O request is in flight. */
void uring_drain(struct aio_loop *loop, struct uring *uring);

/* engine_uring.c: the completion of a poll request. */
bool uring_handler_done(struct aio_loop *loop, struct aio_handler *h, int result, unsigned flags);

/* The ring for I/O requests of a loop, made if need be; NULL if the kernel refuses. Loop. */
struct uring *loop_get_uring(struct aio_loop *loop);

#endif
