/* SPDX-License-Identifier: MIT */
/* Gates: the slow side, when a drain holds requests back. See gate.h. */
#include "block/gate.h"

#include <assert.h>
#include <stddef.h>

#include "aio/coroutine.h"
#include "aio/loop.h"

struct gate_waiter {
    struct coroutine *co;
    struct gate_waiter *next;
};

_Thread_local unsigned stripe_of_thread;

unsigned stripe_assign(void)
{
    static _Atomic(unsigned) next;

    unsigned index = atomic_fetch_add_explicit(&next, 1, memory_order_relaxed) % STRIPES;
    stripe_of_thread = index + 1;
    return index;
}

/* ---- drains ---------------------------------------------------------------------------------- */

_Atomic(unsigned) gate_drains;

/* The loop that drains. The lock keeps it alive while another thread wakes it: the drain may end,
 * and with it the loop, as soon as the last request has left. */
static pthread_mutex_t drain_lock = PTHREAD_MUTEX_INITIALIZER;
static struct aio_loop *drain_loop;

void gate_wake_drains(void)
{
    pthread_mutex_lock(&drain_lock);
    if (drain_loop) {
        aio_loop_wake(drain_loop);
    }
    pthread_mutex_unlock(&drain_lock);
}

void gate_wait_idle(bool (*idle)(void *opaque), void *opaque)
{
    struct aio_loop *loop = aio_loop_current();
    assert(loop && !coroutine_self());

    pthread_mutex_lock(&drain_lock);
    struct aio_loop *outer = drain_loop;
    drain_loop = loop;
    pthread_mutex_unlock(&drain_lock);
    atomic_fetch_add(&gate_drains, 1);

    while (!idle(opaque)) {
        aio_loop_poll(loop, true);
    }

    atomic_fetch_sub(&gate_drains, 1);
    pthread_mutex_lock(&drain_lock);
    drain_loop = outer;
    pthread_mutex_unlock(&drain_lock);
}

/* ---- gates ----------------------------------------------------------------------------------- */

void gate_init(struct block_gate *gate)
{
    pthread_mutex_init(&gate->lock, NULL);
    gate->first = NULL;
    gate->last = &gate->first;
}

void gate_destroy(struct block_gate *gate)
{
    assert(gate_is_unused(gate));
    pthread_mutex_destroy(&gate->lock);
}

/* The request has counted itself in, then saw the gate closed: it steps back and waits. */
void co_gate_wait(struct block_gate *gate)
{
    atomic_fetch_add(&gate->waiting, 1);
    do {
        struct gate_waiter waiter = {.co = coroutine_self()};
        bool wait = false;

        pthread_mutex_lock(&gate->lock);
        if (atomic_load(&gate->closed)) {
            *gate->last = &waiter;
            gate->last = &waiter.next;
            wait = true;
        }
        pthread_mutex_unlock(&gate->lock);

        gate_leave(gate);
        if (wait) {
            coroutine_yield();
        }
        striped_add(&gate->in_flight);
    } while (atomic_load(&gate->closed));
    /* Counted in first: gate_is_unused() looks at `waiting` before it looks inside. */
    atomic_fetch_sub(&gate->waiting, 1);
}

void gate_close(struct block_gate *gate)
{
    atomic_fetch_add(&gate->closed, 1);
}

void gate_open(struct block_gate *gate)
{
    struct gate_waiter *waiter = NULL;

    pthread_mutex_lock(&gate->lock);
    assert(atomic_load(&gate->closed) > 0);
    if (atomic_fetch_sub(&gate->closed, 1) == 1) {
        waiter = gate->first;
        gate->first = NULL;
        gate->last = &gate->first;
    }
    pthread_mutex_unlock(&gate->lock);

    while (waiter) {
        /* Once woken, a waiter's stack is no longer ours. */
        struct gate_waiter *next = waiter->next;
        co_wake(waiter->co);
        waiter = next;
    }
}
