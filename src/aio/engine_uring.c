/* SPDX-License-Identifier: MIT */
/*
 * The io_uring engine: the loop waits in io_uring_enter() for everything at once, and the same
 * call submits the requests of the round.
 *
 *   notifiers, wake_fd   multishot poll requests: armed once; each write is one completion
 *   other fds            one-shot poll requests, armed again with the next wait (the check at
 *                        arming makes them level-triggered)
 *   host I/O             uring.c
 *
 * A ring belongs to the thread that made it, so it is made when the loop is bound and goes when it
 * is unbound; handlers set in between are armed when there is a ring again.
 */
#include <assert.h>
#include <errno.h>

#include "aio/uring.h"
#include "base/log.h"

/* ---- poll requests -------------------------------------------------------------------------- */

static void list_to_arm(struct aio_loop *loop, struct aio_handler *h)
{
    if (!h->is_listed && !h->is_armed) {
        h->is_listed = true;
        h->arm_next = loop->arm_list;
        loop->arm_list = h;
    }
}

static bool arm_wake_fd(struct aio_loop *loop)
{
    struct io_uring_sqe *sqe = uring_get_sqe(loop->uring);
    if (!sqe) {
        return false;
    }
    io_uring_prep_poll_multishot(sqe, loop->wake_fd, POLLIN);
    io_uring_sqe_set_data64(sqe, URING_TAG_WAKE);
    loop->is_wake_armed = true;
    return true;
}

/* Puts poll requests for all handlers that have none into the ring. */
static void arm_handlers(struct aio_loop *loop)
{
    if (!loop->is_wake_armed) {
        arm_wake_fd(loop);
    }
    while (loop->arm_list) {
        struct aio_handler *h = loop->arm_list;
        if (!h->is_removed) {
            struct io_uring_sqe *sqe = uring_get_sqe(loop->uring);
            if (!sqe) {
                return; /* after the next completions */
            }
            if (h->is_notifier) {
                io_uring_prep_poll_multishot(sqe, h->fd, POLLIN);
            } else {
                io_uring_prep_poll_add(sqe, h->fd, handler_events(h));
            }
            io_uring_sqe_set_data64(sqe, (uintptr_t)h | URING_TAG_HANDLER);
            h->is_armed = true;
            h->armed_events = handler_events(h);
        }
        loop->arm_list = h->arm_next;
        h->is_listed = false;
    }
}

/* Asks the kernel to end h's poll request; its last completion clears is_armed. */
static void disarm(struct aio_loop *loop, struct aio_handler *h)
{
    struct io_uring_sqe *sqe;
    loop->depth++; /* h stays */
    while (!(sqe = uring_get_sqe(loop->uring))) {
        /* Full and refused: completions must be taken first, as in a nested round. */
        uring_wait(loop->uring, 0);
        uring_process(loop, loop->uring);
    }
    loop->depth--;
    io_uring_prep_poll_remove(sqe, (uintptr_t)h | URING_TAG_HANDLER);
    io_uring_sqe_set_data64(sqe, URING_TAG_IGNORE);
}

bool uring_handler_done(struct aio_loop *loop, struct aio_handler *h, int result, unsigned flags)
{
    if (!(flags & IORING_CQE_F_MORE)) {
        h->is_armed = false;
        if (result == -EBADF) {
            log_error("event loop '%s': file descriptor %d was closed while the loop waits for it",
                      loop->name, h->fd);
        } else if (!h->is_removed) {
            list_to_arm(loop, h);
        }
    }
    if (result < 0) {
        return false; /* ECANCELED: removed, or armed for events that have changed since */
    }
    return handler_dispatch(h, (uint32_t)result & (handler_events(h) | POLLHUP | POLLERR));
}

static void engine_update(struct aio_loop *loop, struct aio_handler *h)
{
    if (!h->is_armed) {
        list_to_arm(loop, h);
    } else if (h->armed_events != handler_events(h)) {
        disarm(loop, h); /* its completion lists it again */
        h->armed_events = handler_events(h);
    }
}

static void engine_remove(struct aio_loop *loop, struct aio_handler *h)
{
    if (h->is_armed) {
        disarm(loop, h);
        /* Now: the request holds the file open, and the caller may count on close(). */
        uring_submit(loop->uring);
    }
}

/* ---- the engine ----------------------------------------------------------------------------- */

static bool engine_init(struct aio_loop *loop, struct error **errp)
{
    return uring_probe(errp);
}

static void engine_destroy(struct aio_loop *loop)
{
    while (loop->arm_list) {
        loop->arm_list->is_listed = false;
        loop->arm_list = loop->arm_list->arm_next;
    }
}

static bool engine_bind(struct aio_loop *loop, struct error **errp)
{
    loop->uring = uring_new(errp);
    return loop->uring != NULL;
}

static void engine_unbind(struct aio_loop *loop)
{
    uring_drain(loop, loop->uring);
    uring_free(loop->uring);
    loop->uring = NULL;

    /* With the ring went its poll requests. */
    loop->is_wake_armed = false;
    for (struct aio_handler *h = loop->handlers; h; h = h->next) {
        h->is_armed = false;
        list_to_arm(loop, h);
    }
    for (struct aio_handler *h = loop->removed; h; h = h->next) {
        h->is_armed = false;
    }
}

static void engine_submit(struct aio_loop *loop)
{
    arm_handlers(loop);
    uring_submit(loop->uring);
}

static bool engine_is_ready(struct aio_loop *loop)
{
    return uring_is_ready(loop->uring);
}

static bool engine_wait(struct aio_loop *loop, int64_t timeout_ns)
{
    struct uring *uring = loop->uring;
    arm_handlers(loop);
    if (timeout_ns > 0 && loop->is_wake_armed && io_uring_cq_ready(&uring->ring) == 0) {
        uring_wait(uring, timeout_ns);
    } else {
        uring_submit(uring);
    }
    loop_awake(loop);
    return uring_process(loop, uring);
}

const struct loop_engine loop_engine_uring = {
    .id = AIO_LOOP_URING,
    .init = engine_init,
    .destroy = engine_destroy,
    .bind = engine_bind,
    .unbind = engine_unbind,
    .update = engine_update,
    .remove = engine_remove,
    .submit = engine_submit,
    .is_ready = engine_is_ready,
    .wait = engine_wait,
};
