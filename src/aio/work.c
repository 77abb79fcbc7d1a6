/* SPDX-License-Identifier: MIT */
/*
 * What other threads give a loop to do: the inbox, and on top of it calls and bottom halves.
 * internal.h draws the states of the inbox.
 */
#include <assert.h>
#include <stdlib.h>

#include "aio/internal.h"
#include "aio/notifier.h"
#include "base/alloc.h"

/* The value of an inbox whose loop waits. Never dereferenced. */
static struct aio_work inbox_waiting;
#define WAITING (&inbox_waiting)

/* ---- work ----------------------------------------------------------------------------------- */

static void ready_append(struct aio_loop *loop, struct aio_work *work)
{
    work->next = NULL;
    *loop->ready_last = work;
    loop->ready_last = &work->next;
    loop->ready_count++;
}

/* Moves the inbox to the end of the ready list, oldest first. */
static void inbox_take(struct aio_loop *loop)
{
    if (!atomic_load_explicit(&loop->inbox, memory_order_relaxed)) {
        return;
    }
    struct aio_work *head = atomic_exchange_explicit(&loop->inbox, NULL, memory_order_acquire);
    if (head == WAITING) {
        return;
    }
    struct aio_work *oldest = NULL;
    while (head) {
        struct aio_work *next = head->next;
        head->next = oldest;
        oldest = head;
        head = next;
    }
    while (oldest) {
        struct aio_work *next = oldest->next;
        ready_append(loop, oldest);
        oldest = next;
    }
}

void loop_push(struct aio_loop *loop, struct aio_work *work)
{
    if (loop == loop_of_thread) {
        struct aio_work *waits = atomic_load_explicit(&loop->inbox, memory_order_relaxed);
        if (waits && waits != WAITING) {
            inbox_take(loop); /* what others gave before this comes first */
        }
        ready_append(loop, work);
        return;
    }

    struct aio_work *head = atomic_load_explicit(&loop->inbox, memory_order_relaxed);
    for (;;) {
        bool must_wake = head == WAITING;
        if (must_wake) {
            /* As soon as work is in the inbox, the loop may run it, come to its end and be freed,
             * all before the write below: aio_loop_free() waits for kickers. */
            atomic_fetch_add_explicit(&loop->kickers, 1, memory_order_relaxed);
        }
        work->next = must_wake ? NULL : head;
        /* Release: work and all that was done before it; pairs with inbox_take(). */
        bool done = atomic_compare_exchange_weak_explicit(
            &loop->inbox, &head, work, memory_order_release, memory_order_relaxed);
        if (must_wake) {
            if (done) {
                event_notifier_set(&(struct event_notifier){.fd = loop->wake_fd});
            }
            atomic_fetch_sub_explicit(&loop->kickers, 1, memory_order_release);
        }
        if (done) {
            return;
        }
    }
}

bool loop_may_wait(struct aio_loop *loop)
{
    struct aio_work *empty = NULL;
    /* A push that is not seen here sees WAITING, for both change the same word. */
    return !loop->ready_first &&
           atomic_compare_exchange_strong_explicit(&loop->inbox, &empty, WAITING,
                                                   memory_order_relaxed, memory_order_relaxed);
}

void loop_awake(struct aio_loop *loop)
{
    if (loop->poll_max_ns > 0) {
        loop->awake_ns = clock_get_ns(AIO_CLOCK_RT);
    }
    struct aio_work *waiting = WAITING;
    atomic_compare_exchange_strong_explicit(&loop->inbox, &waiting, NULL, memory_order_relaxed,
                                            memory_order_relaxed);
}

bool loop_run_work(struct aio_loop *loop)
{
    bool progress = false;
    inbox_take(loop);
    for (unsigned left = loop->ready_count; left > 0 && loop->ready_first; left--) {
        struct aio_work *work = loop->ready_first;
        loop->ready_first = work->next;
        if (!loop->ready_first) {
            loop->ready_last = &loop->ready_first;
        }
        loop->ready_count--;
        progress |= work != &loop->wake_work;
        work->run(loop, work);
    }
    return progress;
}

void loop_run_wake(struct aio_loop *loop, struct aio_work *work)
{
    /* An exchange: who set it before has been seen, and who sets it later than this pushes. A store
     * could be overtaken by the loads of what the wake is about. */
    atomic_exchange_explicit(&loop->is_wake_queued, false, memory_order_acq_rel);
    loop->is_woken = true;
}

void loop_kick(struct aio_loop *loop)
{
    if (!atomic_exchange_explicit(&loop->is_wake_queued, true, memory_order_acq_rel)) {
        loop_push(loop, &loop->wake_work);
    }
}

void aio_loop_wake(struct aio_loop *loop)
{
    loop_kick(loop);
}

/* ---- calls ---------------------------------------------------------------------------------- */

struct aio_call {
    struct aio_work work;
    aio_fn *fn;
    void *opaque;
};

static void run_call(struct aio_loop *loop, struct aio_work *work)
{
    struct aio_call *call = container_of(work, struct aio_call, work);
    aio_fn *fn = call->fn;
    void *opaque = call->opaque;
    free(call);
    fn(opaque);
}

void aio_call(struct aio_loop *loop, aio_fn *fn, void *opaque)
{
    struct aio_call *call = xmalloc(sizeof(*call));
    *call = (struct aio_call){.work.run = run_call, .fn = fn, .opaque = opaque};
    loop_push(loop, &call->work);
}

struct waited_call {
    struct aio_work work;
    aio_fn *fn;
    void *opaque;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done; /* under lock */
};

static void run_waited_call(struct aio_loop *loop, struct aio_work *work)
{
    struct waited_call *call = container_of(work, struct waited_call, work);
    call->fn(call->opaque);
    pthread_mutex_lock(&call->lock);
    call->done = true;
    pthread_cond_signal(&call->cond);
    pthread_mutex_unlock(&call->lock);
}

void aio_call_wait(struct aio_loop *loop, aio_fn *fn, void *opaque)
{
    if (loop == loop_of_thread) {
        fn(opaque);
        return;
    }
    struct waited_call call = {
        .work.run = run_waited_call,
        .fn = fn,
        .opaque = opaque,
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .cond = PTHREAD_COND_INITIALIZER,
    };
    loop_push(loop, &call.work);
    pthread_mutex_lock(&call.lock);
    while (!call.done) {
        pthread_cond_wait(&call.cond, &call.lock);
    }
    pthread_mutex_unlock(&call.lock);
    pthread_cond_destroy(&call.cond);
    pthread_mutex_destroy(&call.lock);
}

/* ---- bottom halves -------------------------------------------------------------------------- */

enum {
    BH_SCHEDULED = 1, /* fn is to run */
    BH_QUEUED = 2,    /* work is with the loop, which clears this when it takes it */
    BH_DELETED = 4,   /* whoever clears BH_QUEUED frees it */
};

struct aio_bh {
    /* constant */
    struct aio_loop *loop;
    aio_fn *fn;
    void *opaque;
    /* any thread */
    atomic_uint state;
    struct aio_work work;
};

static void run_bh(struct aio_loop *loop, struct aio_work *work)
{
    struct aio_bh *bh = container_of(work, struct aio_bh, work);
    /* Acquire: what was done before bh_schedule(). */
    unsigned state =
        atomic_fetch_and_explicit(&bh->state, ~(BH_SCHEDULED | BH_QUEUED), memory_order_acq_rel);
    if (state & BH_DELETED) {
        free(bh);
    } else if (state & BH_SCHEDULED) {
        bh->fn(bh->opaque);
    }
}

struct aio_bh *bh_new(struct aio_loop *loop, aio_fn *fn, void *opaque)
{
    struct aio_bh *bh = xnew(struct aio_bh);
    bh->loop = loop;
    bh->fn = fn;
    bh->opaque = opaque;
    atomic_init(&bh->state, 0);
    bh->work.run = run_bh;
    return bh;
}

void bh_schedule(struct aio_bh *bh)
{
    unsigned state =
        atomic_fetch_or_explicit(&bh->state, BH_SCHEDULED | BH_QUEUED, memory_order_acq_rel);
    if (!(state & BH_QUEUED)) {
        loop_push(bh->loop, &bh->work);
    }
}

void bh_cancel(struct aio_bh *bh)
{
    atomic_fetch_and_explicit(&bh->state, ~BH_SCHEDULED, memory_order_acq_rel);
}

void bh_delete(struct aio_bh *bh)
{
    if (!bh) {
        return;
    }
    unsigned state = atomic_fetch_or_explicit(&bh->state, BH_DELETED, memory_order_acq_rel);
    if (!(state & BH_QUEUED)) {
        free(bh);
    }
}
