/* SPDX-License-Identifier: MIT */
/*
 * File descriptors of a loop and who is called for them. The engines wait; here is the list.
 *
 * A removed handler is never called again, but stays allocated while a round that may still point
 * to it is running, or while the kernel has a poll request that names it.
 */
#include <assert.h>
#include <stdlib.h>

#include "aio/internal.h"
#include "aio/notifier.h"
#include "base/alloc.h"

bool handler_dispatch(struct aio_handler *h, uint32_t events)
{
    bool progress = false;
    if (h->is_removed) {
        return false;
    }
    if (h->is_notifier) {
        /* Engines report each set, not that it is set: nothing is read, nothing is to be cleared. */
        h->read(h->opaque);
        return true;
    }
    /* An error or a hangup is for whoever is there to meet it with read() or write(). */
    if ((events & (POLLIN | POLLHUP | POLLERR)) && h->read) {
        h->read(h->opaque);
        progress = true;
    }
    if ((events & (POLLOUT | POLLHUP | POLLERR)) && !h->is_removed && h->write &&
        ((events & POLLOUT) || !h->read)) {
        h->write(h->opaque);
        progress = true;
    }
    return progress;
}

static struct aio_handler *handler_find(struct aio_loop *loop, int fd)
{
    struct aio_handler *h = loop->handlers;
    while (h && h->fd != fd) {
        h = h->next;
    }
    return h;
}

static void handler_link(struct aio_handler **list, struct aio_handler *h)
{
    h->next = *list;
    h->prev = list;
    if (h->next) {
        h->next->prev = &h->next;
    }
    *list = h;
}

static void handler_unlink(struct aio_handler *h)
{
    *h->prev = h->next;
    if (h->next) {
        h->next->prev = h->prev;
    }
}

static struct aio_handler *handler_add(struct aio_loop *loop, int fd)
{
    struct aio_handler *h = xnew(struct aio_handler);
    h->fd = fd;
    handler_link(&loop->handlers, h);
    return h;
}

static void handler_remove(struct aio_loop *loop, struct aio_handler *h)
{
    h->is_removed = true;
    if (h->poll) {
        struct aio_handler **link = &loop->pollers;
        while (*link != h) {
            link = &(*link)->poll_next;
        }
        *link = h->poll_next; /* h->poll_next stays for whoever stands on h */
        if (loop->is_polling && h->poll_end) {
            h->poll_end(h->opaque);
        }
    }
    handler_unlink(h);
    handler_link(&loop->removed, h);
    loop->engine->remove(loop, h);
    loop_reap_handlers(loop);
}

void loop_reap_handlers(struct aio_loop *loop)
{
    if (loop->depth > 0) {
        return;
    }
    struct aio_handler *next;
    for (struct aio_handler *h = loop->removed; h; h = next) {
        next = h->next;
        if (!h->is_armed && !h->is_listed) {
            handler_unlink(h);
            free(h);
        }
    }
}

/* The loop's own thread, or anyone before it is bound. */
static void assert_owner(const struct aio_loop *loop)
{
    assert(!atomic_load(&loop->is_bound) || loop == loop_of_thread);
}

void aio_set_fd(struct aio_loop *loop, int fd, aio_fn *read, aio_fn *write, void *opaque)
{
    assert_owner(loop);
    assert(fd >= 0);
    struct aio_handler *h = handler_find(loop, fd);
    if (!read && !write) {
        if (h) {
            handler_remove(loop, h);
        }
        return;
    }
    if (h && h->is_notifier) {
        handler_remove(loop, h);
        h = NULL;
    }
    if (!h) {
        h = handler_add(loop, fd);
    }
    uint32_t old_events = handler_events(h);
    h->read = read;
    h->write = write;
    h->opaque = opaque;
    if (handler_events(h) != old_events) {
        loop->engine->update(loop, h);
    }
}

void aio_set_notifier(struct aio_loop *loop, struct event_notifier *n, aio_fn *fn,
                      bool (*poll)(void *opaque), void *opaque)
{
    aio_set_notifier_poll(loop, n, fn, poll, NULL, NULL, opaque);
}

void aio_set_notifier_poll(struct aio_loop *loop, struct event_notifier *n, aio_fn *fn,
                           bool (*poll)(void *opaque), aio_fn *poll_begin, aio_fn *poll_end,
                           void *opaque)
{
    assert_owner(loop);
    assert(n->fd >= 0);
    struct aio_handler *h = handler_find(loop, n->fd);
    if (h) {
        handler_remove(loop, h);
    }
    if (!fn) {
        return;
    }
    h = handler_add(loop, n->fd);
    h->is_notifier = true;
    h->read = fn;
    h->opaque = opaque;
    if (poll) {
        h->poll = poll;
        h->poll_begin = poll_begin;
        h->poll_end = poll_end;
        h->poll_next = loop->pollers;
        loop->pollers = h;
        if (loop->is_polling && poll_begin) {
            poll_begin(opaque);
        }
    }
    loop->engine->update(loop, h);
}
