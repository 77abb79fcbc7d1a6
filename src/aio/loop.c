/* SPDX-License-Identifier: MIT */
/*
 * The event loop: its life and its rounds.
 *
 * A round (aio_loop_poll) is
 *   1. work from the inbox (calls, bottom halves, woken coroutines), then timers;
 *   2. if that was nothing and the caller wants to block: poll virtqueues for a while, then wait;
 *   3. the handlers of what the engine found;
 *   4. work and timers once more, so that what woke the loop runs in the same round.
 *
 * Invariants:
 *   - The inbox is WAITING only while the engine is in, or about to enter, its system call.
 *   - Each step runs no more than what was there when it began, so none starves the others.
 *   - Handlers may nest rounds. All lists are walked so that a nested round may change them: work
 *     is popped before it runs, handlers are freed at depth 0 only.
 */
#include "aio/loop.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "aio/internal.h"
#include "aio/notifier.h"
#include "aio/thread_pool.h"
#include "aio/uring.h"
#include "base/alloc.h"
#include "base/log.h"

__thread struct aio_loop *loop_of_thread;

/* ---- life ----------------------------------------------------------------------------------- */

static bool engine_init(struct aio_loop *loop, const struct loop_engine *engine,
                        struct error **errp)
{
    loop->engine = engine;
    if (engine->init(loop, errp)) {
        return true;
    }
    engine->destroy(loop);
    return false;
}

struct aio_loop *aio_loop_new(const char *name, enum aio_loop_engine engine, struct error **errp)
{
    /* The inbox has a cache line of its own. */
    struct aio_loop *loop = xaligned_alloc(_Alignof(struct aio_loop), sizeof(*loop));
    memset(loop, 0, sizeof(*loop));
    loop->name = xstrdup(name);
    loop->ready_last = &loop->ready_first;
    loop->jobs_last = &loop->jobs_first;
    loop->wake_work.run = loop_run_wake;
    loop->epoll_fd = -1;
    loop->uring_event_fd = -1;
    loop_timers_init(loop);
    loop_share_init(loop);

    loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (loop->wake_fd < 0) {
        error_set_errno(errp, errno, "cannot create an eventfd for event loop '%s'", name);
    } else if (engine == AIO_LOOP_AUTO) {
        if (engine_init(loop, &loop_engine_uring, NULL) ||
            engine_init(loop, &loop_engine_epoll, errp)) {
            return loop;
        }
    } else if (engine_init(loop, engine == AIO_LOOP_URING ? &loop_engine_uring : &loop_engine_epoll,
                           errp)) {
        return loop;
    }
    loop->engine = NULL;
    aio_loop_free(loop);
    return NULL;
}

void aio_loop_set_only_requests(struct aio_loop *loop)
{
    loop->only_requests = true;
}

void aio_loop_set_batch(struct aio_loop *loop, uint64_t max)
{
    loop->max_batch = max;
}

void aio_loop_free(struct aio_loop *loop)
{
    if (!loop) {
        return;
    }
    assert(!atomic_load(&loop->is_bound));
    thread_pool_free(loop->pool);
    /* Calls that nobody waited for, deleted bottom halves. */
    while (loop_run_work(loop)) {
    }
    assert(!loop->handlers && !loop->jobs_first && !loop->share_first);
    /* Acquire: after the last access of a thread that woke the loop (loop_push). */
    while (atomic_load_explicit(&loop->kickers, memory_order_acquire) > 0) {
        sched_yield();
    }
    if (loop->engine) {
        loop->engine->destroy(loop);
    }
    loop_reap_handlers(loop);
    loop_timers_destroy(loop);
    if (loop->wake_fd >= 0) {
        close(loop->wake_fd);
    }
    free(loop->name);
    free(loop);
}

const char *aio_loop_name(const struct aio_loop *loop)
{
    return loop->name;
}

enum aio_loop_engine aio_loop_engine(const struct aio_loop *loop)
{
    return loop->engine->id;
}

void aio_loop_bind(struct aio_loop *loop)
{
    assert(!loop_of_thread && !atomic_load(&loop->is_bound));

    struct error *err = NULL;
    if (!loop->engine->bind(loop, &err)) {
        /* There was a ring when aio_loop_new() tried, but now the kernel gives none. */
        log_warn("event loop '%s': %s; using epoll", loop->name, error_message(err));
        error_free(err);
        loop->engine->destroy(loop);
        err = NULL;
        if (!engine_init(loop, &loop_engine_epoll, &err) || !loop->engine->bind(loop, &err)) {
            error_report(err);
            abort();
        }
        for (struct aio_handler *h = loop->handlers; h; h = h->next) {
            loop->engine->update(loop, h);
        }
    }
    loop_of_thread = loop;
    atomic_store(&loop->is_bound, true);

    /* Timers are to be as exact as the host can. */
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    if (gettid() != getpid()) {
        char name[16]; /* the kernel's limit */
        snprintf(name, sizeof(name), "%s", loop->name);
        pthread_setname_np(pthread_self(), name);
    }
}

struct aio_loop *aio_loop_current(void)
{
    return loop_of_thread;
}

void aio_loop_unbind(struct aio_loop *loop)
{
    assert(loop_of_thread == loop && loop->depth == 0);
    polling_leave(loop);
    thread_pool_flush(loop);
    atomic_store(&loop->is_bound, false);
    loop->engine->unbind(loop);
    loop_of_thread = NULL;
    loop_reap_handlers(loop);
}

/* ---- rounds --------------------------------------------------------------------------------- */

static bool wait_for_events(struct aio_loop *loop)
{
    int64_t timeout = loop_timers_timeout(loop);
    bool polls = loop->poll_max_ns > 0 && timeout > 0 && loop->pollers;
    int64_t start = 0;
    bool progress = false;

    if (polls) {
        start = clock_get_ns(AIO_CLOCK_RT);
        if (loop->poll_ns > 0) {
            progress = polling_spin(loop, start, MIN(loop->poll_ns, timeout));
            int64_t spent = clock_get_ns(AIO_CLOCK_RT) - start;
            timeout = timeout == NEVER ? NEVER : MAX(timeout - spent, 0);
            if (progress) {
                polling_adapt(loop, MIN(spent, loop->poll_ns));
            }
        }
    }
    /* Doorbells stay off while polling is what finds the work. */
    bool is_ready = loop->engine->is_ready(loop);
    if (progress && !is_ready && polling_skips_engine(loop)) {
        return true; /* not worth a system call */
    }
    loop->rounds_skipped = 0;
    if (progress || is_ready) {
        timeout = 0;
    } else if (timeout > 0 && polling_end(loop)) {
        progress = true;
        timeout = 0;
    }
    if (timeout > 0 && !loop_may_wait(loop)) {
        timeout = 0;
    }
    bool was_found_polling = progress;
    progress |= loop->engine->wait(loop, timeout);
    if (polls && !was_found_polling) {
        polling_adapt(loop, loop->awake_ns - start);
    }
    return progress;
}

bool aio_loop_poll(struct aio_loop *loop, bool block)
{
    assert(loop == loop_of_thread);
    loop->depth++;

    bool progress = loop_run_work(loop);
    progress |= loop_timers_run(loop);
    thread_pool_flush(loop);
    if (block && !progress && !loop->is_woken) {
        progress = wait_for_events(loop);
    } else {
        /* While doorbells are off, only asking finds work. */
        progress |= loop->is_polling && polling_ask(loop);
        progress |= loop->engine->wait(loop, 0);
    }
    progress |= loop_run_work(loop);
    progress |= loop_timers_run(loop);
    thread_pool_flush(loop);

    loop->is_woken = false;
    loop->depth--;
    if (loop->removed) {
        loop_reap_handlers(loop);
    }
    return progress;
}
