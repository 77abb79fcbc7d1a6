/* SPDX-License-Identifier: MIT */
/*
 * The epoll engine: the loop waits in epoll_pwait2(); host I/O goes to the thread pool, or to a
 * ring of io_uring whose eventfd epoll waits for. epoll(7).
 *
 * Notifiers are edge-triggered: each write is an event, and nobody reads them.
 *
 * Regular files and /dev/null are always ready and refused by epoll (EPERM); a console may well be
 * redirected to one, so the loop does not wait while it has such a handler.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "aio/uring.h"
#include "base/log.h"

#define MAX_EVENTS 64 /* of one round */

_Static_assert(POLLIN == EPOLLIN && POLLOUT == EPOLLOUT && POLLERR == EPOLLERR &&
                   POLLHUP == EPOLLHUP,
               "handlers take events of poll(2)");

static int add_edge(int epoll_fd, int fd, void *ptr)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = ptr};
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

static bool engine_init(struct aio_loop *loop, struct error **errp)
{
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    /* wake_fd is not read: each write is an edge. */
    if (loop->epoll_fd < 0 || add_edge(loop->epoll_fd, loop->wake_fd, NULL) < 0) {
        error_set_errno(errp, errno, "cannot set up epoll for event loop '%s'", loop->name);
        return false;
    }
    return true;
}

static void engine_destroy(struct aio_loop *loop)
{
    if (loop->epoll_fd >= 0) {
        close(loop->epoll_fd);
        loop->epoll_fd = -1;
    }
}

static bool engine_bind(struct aio_loop *loop, struct error **errp)
{
    return true;
}

static void engine_unbind(struct aio_loop *loop)
{
    if (loop->uring) {
        uring_drain(loop, loop->uring);
        uring_free(loop->uring);
        loop->uring = NULL;
        close(loop->uring_event_fd); /* and leaves the epoll set */
        loop->uring_event_fd = -1;
    }
}

static void engine_update(struct aio_loop *loop, struct aio_handler *h)
{
    uint32_t events = handler_events(h) | (h->is_notifier ? EPOLLET : 0);
    struct epoll_event event = {.events = events, .data.ptr = h};
    int op = h->epoll_events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (h->always_ready) {
        return;
    }
    if (epoll_ctl(loop->epoll_fd, op, h->fd, &event) == 0) {
        h->epoll_events = events;
    } else if (errno == EPERM) {
        h->always_ready = true;
        loop->always_ready++;
    } else {
        log_error("event loop '%s': cannot wait for file descriptor %d: %s", loop->name, h->fd,
                  strerror(errno));
    }
}

static void engine_remove(struct aio_loop *loop, struct aio_handler *h)
{
    if (h->always_ready) {
        loop->always_ready--;
    } else if (h->epoll_events) {
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, h->fd, NULL);
    }
    h->epoll_events = 0;
}

static void engine_submit(struct aio_loop *loop)
{
    if (loop->uring) {
        uring_submit(loop->uring);
    }
}

static bool engine_is_ready(struct aio_loop *loop)
{
    return loop->always_ready > 0 || (loop->uring && uring_is_ready(loop->uring));
}

static int wait_for_epoll(int epoll_fd, struct epoll_event *events, int64_t timeout_ns)
{
    static atomic_bool lacks_pwait2; /* before Linux 5.11, or hidden by a seccomp filter */

    if (timeout_ns == 0) {
        return epoll_wait(epoll_fd, events, MAX_EVENTS, 0);
    }
    struct timespec ts = {
        .tv_sec = timeout_ns / NS_PER_SEC,
        .tv_nsec = timeout_ns % NS_PER_SEC,
    };
    struct timespec *timeout = timeout_ns == NEVER ? NULL : &ts;
    if (!atomic_load_explicit(&lacks_pwait2, memory_order_relaxed)) {
        int n = epoll_pwait2(epoll_fd, events, MAX_EVENTS, timeout, NULL);
        if (n >= 0 || (errno != ENOSYS && errno != EPERM)) {
            return n;
        }
        atomic_store_explicit(&lacks_pwait2, true, memory_order_relaxed);
    }
    struct pollfd pfd = {.fd = epoll_fd, .events = POLLIN};
    if (ppoll(&pfd, 1, timeout, NULL) <= 0) {
        return 0;
    }
    return epoll_wait(epoll_fd, events, MAX_EVENTS, 0);
}

static bool run_always_ready(struct aio_loop *loop)
{
    bool progress = false;
    struct aio_handler *next;
    for (struct aio_handler *h = loop->handlers; h; h = next) {
        uint32_t events = h->always_ready ? handler_events(h) : 0;
        progress |= events && handler_dispatch(h, events);
        if (h->is_removed) {
            break; /* its links are of another list now; the rest has its turn next round */
        }
        next = h->next;
    }
    return progress;
}

static bool engine_wait(struct aio_loop *loop, int64_t timeout_ns)
{
    if (loop->uring) {
        uring_submit(loop->uring);
        if (uring_is_ready(loop->uring)) {
            timeout_ns = 0;
        }
    }
    if (loop->always_ready) {
        timeout_ns = 0;
    }

    struct epoll_event events[MAX_EVENTS];
    int count = wait_for_epoll(loop->epoll_fd, events, timeout_ns);
    loop_awake(loop);

    bool progress = false;
    for (int i = 0; i < count; i++) {
        /* Without a handler: wake_fd, or uring_event_fd; both are looked after below. */
        if (events[i].data.ptr) {
            progress |= handler_dispatch(events[i].data.ptr, events[i].events);
        }
    }
    if (loop->always_ready) {
        progress |= run_always_ready(loop);
    }
    if (loop->uring) {
        uring_submit(loop->uring);
        progress |= uring_process(loop, loop->uring);
    }
    return progress;
}

struct uring *loop_get_uring(struct aio_loop *loop)
{
    if (loop->uring || loop->engine != &loop_engine_epoll) {
        return loop->uring;
    }
    struct uring *uring = uring_new(NULL);
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    /* An edge per completion; all completions are taken each round. */
    if (!uring || fd < 0 || io_uring_register_eventfd(&uring->ring, fd) < 0 ||
        add_edge(loop->epoll_fd, fd, NULL) < 0) {
        uring_free(uring);
        if (fd >= 0) {
            close(fd);
        }
        return NULL;
    }
    loop->uring = uring;
    loop->uring_event_fd = fd;
    return uring;
}

const struct loop_engine loop_engine_epoll = {
    .id = AIO_LOOP_EPOLL,
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
