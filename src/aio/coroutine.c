/* SPDX-License-Identifier: MIT */
/*
 * Coroutines: how they begin, give way, are woken and end.
 *
 *      new --enter--> running --yield--> suspended --enter--> running ... fn returns --> pool
 *
 * co_wake() only queues a coroutine with its loop, whose thread is the one that runs it. So a wake
 * that comes before the yield is met by the loop after the yield; only if a round of the loop is
 * nested in the coroutine itself does the loop meet it while it is not suspended, and then keeps
 * the wake in is_woken.
 */
#include "aio/coroutine.h"

#include <assert.h>

#include "aio/coroutine_pool.h"
#include "aio/stack_switch.h"

static __thread struct coroutine *running;

/* The bottom frame of every coroutine. */
static void coroutine_main(void *opaque)
{
    struct coroutine *co = opaque;
    fiber_started(&co->fiber);
    co->fn(co->opaque);
    assert(running == co);
    co->is_done = true;
    running = co->caller;
    void *caller_sp = co->caller_sp;
    fiber_leave_last(&co->fiber);
    stack_switch(&co->sp, caller_sp);
    __builtin_unreachable();
}

/* In its loop's thread. */
static void run_woken(struct aio_loop *loop, struct aio_work *work)
{
    struct coroutine *co = container_of(work, struct coroutine, work);
    atomic_store_explicit(&co->is_wake_queued, false, memory_order_release);
    if (co->is_suspended) {
        coroutine_enter(co);
    } else {
        co->is_woken = true;
    }
}

struct coroutine *coroutine_new(coroutine_fn *fn, void *opaque)
{
    struct coroutine *co = coroutine_pool_get();
    co->work.run = run_woken;
    co->fn = fn;
    co->opaque = opaque;
    co->loop = NULL;
    co->is_suspended = true;
    co->is_woken = false;
    co->is_done = false;
    atomic_init(&co->is_wake_queued, false);
    fiber_create(&co->fiber, co->stack, co->stack_size);
    co->sp = stack_prepare(co, coroutine_main, co);
    return co;
}

void coroutine_enter(struct coroutine *co)
{
    void *fake_stack = NULL;
    assert(co->is_suspended && loop_of_thread);
    if (co->loop != loop_of_thread) {
        assert(!co->loop);
        co->loop = loop_of_thread;
    }
    co->is_suspended = false;
    co->caller = running;
    running = co;
    void *sp = co->sp;
    fiber_enter_begin(&co->fiber, &fake_stack);
    stack_switch(&co->caller_sp, sp);
    fiber_enter_end(&fake_stack);

    /* Back, and co has yielded or ended. It has not been entered again since. */
    if (co->is_done) {
        assert(!co->is_woken && !atomic_load_explicit(&co->is_wake_queued, memory_order_relaxed));
        fiber_destroy(&co->fiber);
        coroutine_pool_put(co);
    }
}

void coroutine_yield(void)
{
    struct coroutine *co = running;
    void *fake_stack = NULL;
    assert(co);
    if (co->is_woken) {
        /* Let others have a turn all the same. */
        co->is_woken = false;
        co_wake(co);
    }
    co->is_suspended = true;
    running = co->caller;
    void *caller_sp = co->caller_sp;
    fiber_leave_begin(&co->fiber, &fake_stack);
    stack_switch(&co->sp, caller_sp);
    fiber_leave_end(&co->fiber, &fake_stack);
}

struct coroutine *coroutine_self(void)
{
    return running;
}

struct aio_loop *coroutine_loop(const struct coroutine *co)
{
    return co->loop;
}

void co_wake(struct coroutine *co)
{
    struct aio_loop *loop = co->loop;
    bool was_queued = atomic_exchange_explicit(&co->is_wake_queued, true, memory_order_acq_rel);
    assert(loop && !was_queued);
    (void)was_queued;
    loop_push(loop, &co->work);
}

void aio_call_co(struct aio_loop *loop, coroutine_fn *fn, void *opaque)
{
    struct coroutine *co = coroutine_new(fn, opaque);
    co->loop = loop;
    co_wake(co);
}

static void sleep_over(void *opaque)
{
    coroutine_enter(opaque);
}

void co_sleep(enum aio_clock clock, int64_t ns)
{
    struct aio_timer timer;
    timer_init(&timer, running->loop, clock, sleep_over, running);
    int64_t expires_ns;
    if (__builtin_add_overflow(clock_get_ns(clock), ns, &expires_ns)) {
        expires_ns = INT64_MAX;
    }
    timer_set(&timer, expires_ns);
    coroutine_yield();
}
