/* SPDX-License-Identifier: MIT */
/*
 * What the files of aio/ share and nobody else sees.
 *
 * Everything that other threads give to a loop is a `struct aio_work`, embedded in a call, a
 * bottom half, a coroutine or a job of the thread pool. It goes into the loop's inbox, a lock-free
 * stack that the loop empties as a whole:
 *
 *     inbox:  NULL  <----------------+      nothing to do, the loop is awake
 *              | loop: about to wait | loop: awake again
 *              v                     |
 *           WAITING -----------------+      the loop waits, or is just about to
 *              | any thread: push, then write wake_fd
 *              v
 *           work -> work -> NULL            the loop will see it before it waits: no write
 *
 * One atomic word holds both "who waits" and "what is there", so no wakeup is lost, and whoever
 * pushes to an awake loop makes no system call and never touches the loop again.
 */
#ifndef FERRY_AIO_INTERNAL_H
#define FERRY_AIO_INTERNAL_H

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "aio/coroutine.h"
#include "aio/io.h"
#include "aio/loop.h"
#include "base/range.h"

#define NEVER INT64_MAX /* a time that does not come */

/* ---- clocks --------------------------------------------------------------------------------- */

enum clock_mode {
    CLOCK_STOPPED, /* timers do not run */
    CLOCK_STEPPED, /* timers run when due; waiting does not make them due */
    CLOCK_RUNNING,
};

enum clock_mode clock_get_mode(enum aio_clock clock);

/* ---- work ----------------------------------------------------------------------------------- */

struct aio_work {
    struct aio_work *next;
    void (*run)(struct aio_loop *loop, struct aio_work *work); /* in the loop; may free work */
};

/* Any thread. work must not be queued already. */
void loop_push(struct aio_loop *loop, struct aio_work *work);
void loop_run_wake(struct aio_loop *loop, struct aio_work *work); /* of wake_work */
/* Ends a wait of the loop so that it looks at its timers again. Any thread. */
void loop_kick(struct aio_loop *loop);

extern __thread struct aio_loop *loop_of_thread;

/* ---- file descriptors ----------------------------------------------------------------------- */

struct aio_handler {
    /* loop */
    struct aio_handler *next, **prev; /* in loop->handlers, or loop->removed */
    int fd;
    bool is_notifier; /* an eventfd: read is called for each set, and its count left alone */
    bool is_removed;
    aio_fn *read, *write;
    void *opaque;

    /* loop: adaptive polling */
    bool (*poll)(void *opaque);
    aio_fn *poll_begin, *poll_end;
    struct aio_handler *poll_next; /* in loop->pollers */

    /* loop: epoll */
    uint32_t epoll_events; /* registered; 0: not */
    bool always_ready;     /* a regular file, which epoll refuses */

    /* loop: io_uring */
    bool is_armed;         /* a poll request is with the kernel */
    uint32_t armed_events; /* its events */
    bool is_listed;        /* in loop->arm_list */
    struct aio_handler *arm_next;
};

/* Runs the functions of h for poll(2) events; true if one ran. */
bool handler_dispatch(struct aio_handler *h, uint32_t events);
/* Events to wait for. */
static inline uint32_t handler_events(const struct aio_handler *h)
{
    return (h->read ? POLLIN : 0u) | (h->write ? POLLOUT : 0u);
}

/* ---- engines -------------------------------------------------------------------------------- */

struct loop_engine {
    enum aio_loop_engine id;
    bool (*init)(struct aio_loop *loop, struct error **errp);
    void (*destroy)(struct aio_loop *loop); /* also what is left of a failed init */
    /* The calling thread becomes, ceases to be, the loop's thread. */
    bool (*bind)(struct aio_loop *loop, struct error **errp);
    void (*unbind)(struct aio_loop *loop);
    /* h is new, or its events have changed. */
    void (*update)(struct aio_loop *loop, struct aio_handler *h);
    /* h is never to be dispatched again, is_removed is set; the file may be closed on return. */
    void (*remove)(struct aio_loop *loop, struct aio_handler *h);
    /* Hands pending requests to the kernel; without waiting. */
    void (*submit)(struct aio_loop *loop);
    /* True if wait() has something to dispatch, as far as one sees without a system call. */
    bool (*is_ready)(struct aio_loop *loop);
    /* Submits, waits up to timeout_ns (0: not at all, NEVER: for ever), calls loop_awake(), and
     * dispatches. True if a handler ran. */
    bool (*wait)(struct aio_loop *loop, int64_t timeout_ns);
};

extern const struct loop_engine loop_engine_epoll, loop_engine_uring;

/* ---- the loop ------------------------------------------------------------------------------- */

struct timer_heap {
    struct aio_timer **timers;
    unsigned count, size;
};

struct co_waiter;
struct pool_job;
struct thread_pool;
struct uring;

struct aio_loop {
    /* constant while bound */
    char *name;
    int wake_fd; /* eventfd that ends a wait; both engines look for edges, so nobody reads it */
    const struct loop_engine *engine;
    struct thread_pool *pool; /* its own, or NULL: the shared one */
    uint64_t max_batch;       /* requests; 0: no limit */

    /* any thread */
    _Alignas(64) _Atomic(struct aio_work *) inbox;
    atomic_uint kickers; /* threads that still need the loop to be there, to write wake_fd */
    atomic_bool is_bound;
    atomic_bool is_wake_queued;
    struct aio_work wake_work;
    _Atomic int64_t next_expiry[AIO_CLOCK_COUNT]; /* of the first timer, or NEVER; written under
                                                   * timer_lock */

    /* under timer_lock */
    pthread_mutex_t timer_lock;
    struct timer_heap heaps[AIO_CLOCK_COUNT];

    /* under the lock of the list of loops (timer.c) */
    struct aio_loop *next_loop, **prev_loop;

    /* loop */
    _Alignas(64) struct aio_work *ready_first, **ready_last; /* work taken from the inbox, or
                                                              * pushed by the loop's own thread */
    unsigned ready_count;
    unsigned depth; /* nested aio_loop_poll() */
    bool is_woken;  /* aio_loop_wake(): do not wait */
    struct aio_handler *handlers, *removed, *pollers;
    struct pool_job *jobs_first, **jobs_last; /* not yet with the pool */
    unsigned jobs_count;
    unsigned jobs_running; /* with the pool */
    bool only_requests;    /* aio_loop_set_only_requests() */

    /* loop: long work in memory (share.c) */
    uint64_t share_left; /* bytes */
    struct co_waiter *share_first, **share_last;
    bool is_share_queued;
    struct aio_work share_work;

    /* loop: adaptive polling */
    bool is_polling;                             /* doorbells are suppressed (poll_begin) */
    int64_t poll_max_ns, poll_grow, poll_shrink; /* as set */
    int64_t poll_ns;                             /* how long it spins now */
    unsigned poll_misses;                        /* events that came after poll_max_ns; in a row */
    unsigned poll_untried;                       /* misses since the last trial */
    unsigned poll_trial;                         /* misses until the next one */
    int64_t awake_ns;                            /* when the last wait ended */
    unsigned rounds_skipped;                     /* in a row, without asking the engine */

    /* loop: engines */
    int epoll_fd;
    unsigned always_ready; /* handlers that epoll cannot wait for */
    struct uring *uring;   /* of the io_uring engine; or that of requests on an epoll loop */
    int uring_event_fd;    /* the latter's completions, for epoll */
    struct aio_handler *arm_list;
    bool is_wake_armed;
};

/* Runs the work that is there; true if any was. */
bool loop_run_work(struct aio_loop *loop);
/* Before waiting: true if no work is there; from then on pushes write wake_fd. */
bool loop_may_wait(struct aio_loop *loop);
/* The wait is over: pushes need not write wake_fd any more. */
void loop_awake(struct aio_loop *loop);
/* Frees removed handlers that nothing refers to. */
void loop_reap_handlers(struct aio_loop *loop);

/* polling.c */
/* Asks every notifier that can be asked. True if one had work, which is done then. */
bool polling_ask(struct aio_loop *loop);
/* Spins until ns after start, doorbells off. True if a handler ran. Also ends when the engine or the
 * inbox has work. */
bool polling_spin(struct aio_loop *loop, int64_t start, int64_t ns);
/* Spinning has found work: true if the engine need not be asked for other work this time. */
bool polling_skips_engine(struct aio_loop *loop);
/* The loop had nothing to do for idle_ns; found in time if that is no more than poll_ns. */
void polling_adapt(struct aio_loop *loop, int64_t idle_ns);
/* Before a wait: doorbells on. True if one had been missed; its work is done then. */
bool polling_end(struct aio_loop *loop);
/* Doorbells on for good. What had been missed is left for the next thread of the loop. */
void polling_leave(struct aio_loop *loop);

void loop_share_init(struct aio_loop *loop); /* share.c */

/* timer.c */
void loop_timers_init(struct aio_loop *loop);
void loop_timers_destroy(struct aio_loop *loop);
bool loop_timers_run(struct aio_loop *loop);
int64_t loop_timers_timeout(const struct aio_loop *loop); /* ns until the next is due, or NEVER */

/* ---- coroutines ----------------------------------------------------------------------------- */

/* A chain of waiting coroutines; each link is on its coroutine's stack. */
struct co_waiter {
    struct co_waiter *next;
    struct coroutine *co;
    bool is_writer; /* co_rwlock */
};

#endif
