/* SPDX-License-Identifier: MIT */
/*
 * The event loop.
 *
 * A loop waits for file descriptors, timers, calls from other threads, and the completions of
 * host I/O, and runs their handlers one after the other in its own thread: the main thread, or the
 * thread of an iothread object.
 *
 *        any thread                              the loop's thread
 *   aio_call(), bh_schedule() ---- eventfd --->  +-----------------------------+
 *   timer_set(), co_wake()                       | aio_loop_poll():            |
 *   event_notifier_set() --------- eventfd --->  |   poll virtqueues a while,  |
 *   thread pool worker, done ----- co_wake --->  |   wait (io_uring or epoll), |
 *   kernel: CQE                  ------------->  |   run handlers, bhs, timers |
 *                                                +-----------------------------+
 *
 * Two engines: AIO_LOOP_URING waits in io_uring_enter() for everything at once (fds by poll
 * requests, I/O by the same ring), AIO_LOOP_EPOLL in epoll_pwait2(); there host I/O goes to the
 * thread pool. AIO_LOOP_AUTO takes io_uring where the kernel allows it.
 *
 * Unless a function says "any thread", it is called in the loop's thread, or before the loop has
 * been bound to one. Handlers run without any lock held; those that touch machine state take the
 * machine lock themselves. A handler may remove itself and others.
 */
#ifndef FERRY_AIO_LOOP_H
#define FERRY_AIO_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "aio/clock.h"
#include "base/error.h"

struct aio_loop;

enum aio_loop_engine { AIO_LOOP_AUTO, AIO_LOOP_URING, AIO_LOOP_EPOLL };

typedef void aio_fn(void *opaque);

/* name: copied, for messages and the thread's name. */
struct aio_loop *aio_loop_new(const char *name, enum aio_loop_engine engine, struct error **errp);
/* All handlers, timers and coroutines of the loop must be gone. Not while its thread polls. */
void aio_loop_free(struct aio_loop *loop);
const char *aio_loop_name(const struct aio_loop *loop);
enum aio_loop_engine aio_loop_engine(const struct aio_loop *loop); /* URING or EPOLL */

/* Makes the calling thread the loop's thread. A thread has one loop at a time. */
void aio_loop_bind(struct aio_loop *loop);
void aio_loop_unbind(struct aio_loop *loop);
/* The loop bound to this thread, or NULL (vCPU threads, workers). Any thread. */
struct aio_loop *aio_loop_current(void);

/* One round: runs what is ready; if nothing is and block is true, waits until something is.
 * Returns true if a handler ran; false also when something else ended the wait (a signal,
 * aio_loop_wake()), so callers look at what they wait for, in a loop. May be called from within a
 * handler (drain loops). */
bool aio_loop_poll(struct aio_loop *loop, bool block);
/* Makes a waiting or the next aio_loop_poll() return. Any thread. */
void aio_loop_wake(struct aio_loop *loop);

/* Adaptive polling of notifiers that have a poll function: up to max_ns before each wait; 0, the
 * default, turns it off. grow and shrink as QEMU's iothread properties: what the time is multiplied
 * by while events come too late for it, and divided by after one that came later than max_ns; 0
 * means 2, and to give up after a few of those in a row. */
void aio_loop_set_poll(struct aio_loop *loop, int64_t max_ns, int64_t grow, int64_t shrink);

/* A thread pool for this loop alone, instead of the one that the others share: `min` threads that are
 * there at once and stay, at most `max` (at least 1 and min). An error if the host gives no `min`
 * threads. Before the loop is bound, once. */
bool aio_loop_set_thread_pool(struct aio_loop *loop, unsigned min, unsigned max,
                              struct error **errp);
/* Says that the loop's thread does nothing but wait for its requests, as that of a tool: then a short
 * request for a file that is alone runs in this thread, which saves two changes of threads. */
void aio_loop_set_only_requests(struct aio_loop *loop);
/* Requests that are gathered before they go to the kernel or the thread pool: at most max; 0 (the
 * default) means all that come up in a round. Before the loop is bound. */
void aio_loop_set_batch(struct aio_loop *loop, uint64_t max);

/* Calls read(opaque) while fd is readable (or at its end), write(opaque) while it is writable.
 * A NULL pair removes the fd, which must happen before it is closed. */
void aio_set_fd(struct aio_loop *loop, int fd, aio_fn *read, aio_fn *write, void *opaque);

/* ---- calls ---------------------------------------------------------------------------------- */

/* Runs fn(opaque) once in the loop's thread, soon. Any thread; calls keep the order in which they were
 * made, also those of different threads if one came before the other. */
void aio_call(struct aio_loop *loop, aio_fn *fn, void *opaque);
/* As aio_call(), and waits until fn has returned; runs it directly in the loop's own thread. Any
 * thread, but never with the machine lock held. */
void aio_call_wait(struct aio_loop *loop, aio_fn *fn, void *opaque);

/* A bottom half: a call that is prepared once and scheduled often; several schedulings before it
 * runs are one. */
struct aio_bh;
struct aio_bh *bh_new(struct aio_loop *loop, aio_fn *fn, void *opaque); /* any thread */
void bh_schedule(struct aio_bh *bh);                                    /* any thread */
void bh_cancel(struct aio_bh *bh);
void bh_delete(struct aio_bh *bh); /* also from within fn */

/* ---- timers --------------------------------------------------------------------------------- */

/*
 * A one-shot timer, embedded in its owner. timer_set() and timer_cancel() may come from any
 * thread; then fn may just be starting in the loop's thread, so a device's fn takes the machine
 * lock and looks at the device's state before it acts.
 */
struct aio_timer {
    /* constant after timer_init() */
    struct aio_loop *loop;
    enum aio_clock clock;
    aio_fn *fn;
    void *opaque;
    /* under the loop's timer lock */
    int64_t expires_ns; /* -1: not set */
    unsigned heap_index;
};

void timer_init(struct aio_timer *timer, struct aio_loop *loop, enum aio_clock clock, aio_fn *fn,
                void *opaque);
/* Runs fn once when the clock reaches expires_ns (at once if it has), but not while the clock is
 * stopped. Any thread. */
void timer_set(struct aio_timer *timer, int64_t expires_ns);
void timer_cancel(struct aio_timer *timer);           /* any thread */
bool timer_is_set(const struct aio_timer *timer);     /* any thread */
int64_t timer_expires(const struct aio_timer *timer); /* -1: not set; any thread */

/* Over all loops: the next expiry of a clock's timers, or -1. Any thread. */
int64_t timers_next_expiry(enum aio_clock clock);
/* Runs the loop's timers of a clock that are due (qtest's clock_step), unless it is stopped. Returns
 * true if any ran. */
bool timers_run(struct aio_loop *loop, enum aio_clock clock);
/* Tells all loops that a clock jumped or started. Any thread. */
void timers_clock_changed(enum aio_clock clock);

#endif
