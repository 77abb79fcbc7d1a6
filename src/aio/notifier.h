/* SPDX-License-Identifier: MIT */
/*
 * Event notifiers: an eventfd that one side sets and a loop, or KVM, waits for.
 *
 * As a doorbell: KVM sets it (ioeventfd), the loop runs the handler. As an interrupt: the loop
 * sets it, KVM injects (irqfd).
 */
#ifndef FERRY_AIO_NOTIFIER_H
#define FERRY_AIO_NOTIFIER_H

#include <stdbool.h>

#include "aio/loop.h"

struct event_notifier {
    int fd; /* eventfd, non-blocking, close-on-exec; -1: none */
};

bool event_notifier_init(struct event_notifier *n, struct error **errp);
void event_notifier_cleanup(struct event_notifier *n); /* safe on fd -1 */
void event_notifier_set(struct event_notifier *n);     /* any thread */
/* True if it was set since the last call. */
bool event_notifier_test_and_clear(struct event_notifier *n);

/* Runs fn(opaque) in the loop after each set; several sets may be one. The loop does not clear the
 * notifier, which would be a system call each time: it stays set, also for whoever has it next, and
 * a handler for a notifier that is set runs once to begin with. So no set is lost between two loops,
 * and fn must take being called for nothing.
 *
 * poll, if not NULL, is called by adaptive polling and returns true if there is work for fn without
 * a set (a new available index). fn NULL removes the handler; after that fn never runs again. */
void aio_set_notifier(struct aio_loop *loop, struct event_notifier *n, aio_fn *fn,
                      bool (*poll)(void *opaque), void *opaque);

/* The same, for a doorbell that can be switched off while the loop polls: poll_begin(opaque) is
 * called when polling starts, poll_end(opaque) before the loop waits again, and once more poll()
 * after it, so that what came in between is not lost. Both may be NULL. They come in pairs, also
 * when the handler is removed in between. */
void aio_set_notifier_poll(struct aio_loop *loop, struct event_notifier *n, aio_fn *fn,
                           bool (*poll)(void *opaque), aio_fn *poll_begin, aio_fn *poll_end,
                           void *opaque);

#endif
