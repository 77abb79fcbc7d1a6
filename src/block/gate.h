/* SPDX-License-Identifier: MIT */
/*
 * Gates: where requests enter the node graph.
 *
 * Every backend has a gate; requests of guests and tools enter the graph there and nowhere else. A
 * request is counted from gate_enter() to gate_leave(), so a drain that closes the gates above a
 * node and waits until nobody is inside knows that no request is anywhere below them. Not counted
 * is what the main loop does itself by block_run(), which returns when it is done: opening and
 * probing, image operations, the flush of all disks.
 *
 *      loop A --\                       /--> nodes
 *      loop B ---+--> [ gate: count ] -+---> nodes
 *      loop C --/       ^ closed: wait here until it opens
 *                       main loop
 *
 * The way through an open gate takes no lock: one atomic addition on a counter that this thread
 * shares with few others, and one load. Closing and entering race like Dekker's two flags: whoever
 * enters adds, then loads `closed`; who closes stores `closed`, then reads the counters. All four
 * are sequentially consistent, so one of them sees the other.
 */
#ifndef FERRY_BLOCK_GATE_H
#define FERRY_BLOCK_GATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define STRIPES 8

/* A counter that threads change without sharing a cache line. Whoever adds in one thread subtracts
 * in the same one. */
struct striped_count {
    struct {
        _Atomic(unsigned) n;
        char pad[60];
    } stripe[STRIPES];
};

struct gate_waiter;

struct block_gate {
    /* atomic */
    struct striped_count in_flight;
    _Atomic(unsigned) closed;  /* nested */
    _Atomic(unsigned) waiting; /* requests held back, or woken and not yet counted in again */
    /* under lock, never held across a yield */
    pthread_mutex_t lock;
    struct gate_waiter *first, **last;
};

extern _Thread_local unsigned stripe_of_thread; /* index + 1; 0: none yet */
unsigned stripe_assign(void);

static inline unsigned stripe_index(void)
{
    return stripe_of_thread ? stripe_of_thread - 1 : stripe_assign();
}

static inline void striped_add(struct striped_count *count)
{
    atomic_fetch_add(&count->stripe[stripe_index()].n, 1);
}

static inline void striped_sub(struct striped_count *count)
{
    atomic_fetch_sub(&count->stripe[stripe_index()].n, 1);
}

/* Exact only while nobody new can come. */
static inline bool striped_is_zero(struct striped_count *count)
{
    for (unsigned i = 0; i < STRIPES; i++) {
        if (atomic_load(&count->stripe[i].n)) {
            return false;
        }
    }
    return true;
}

void gate_init(struct block_gate *gate);
void gate_destroy(struct block_gate *gate); /* open, and gate_is_unused() */

/* No request inside. Exact only while the gate is closed or nobody submits. */
static inline bool gate_is_idle(struct block_gate *gate)
{
    return striped_is_zero(&gate->in_flight);
}

/* No request inside or before it. */
static inline bool gate_is_unused(struct block_gate *gate)
{
    return !atomic_load(&gate->waiting) && gate_is_idle(gate);
}

extern _Atomic(unsigned) gate_drains; /* number of gate_wait_idle() under way */
void gate_wake_drains(void);
void co_gate_wait(struct block_gate *gate);

/* In a coroutine; may yield while the gate is closed. */
static inline void co_gate_enter(struct block_gate *gate)
{
    striped_add(&gate->in_flight);
    if (__builtin_expect(atomic_load(&gate->closed) != 0, 0)) {
        co_gate_wait(gate);
    }
}

/* After it the gate may be gone. */
static inline void gate_leave(struct block_gate *gate)
{
    striped_sub(&gate->in_flight);
    if (__builtin_expect(atomic_load(&gate_drains) != 0, 0)) {
        gate_wake_drains();
    }
}

/* Main loop. Closing does not wait. */
void gate_close(struct block_gate *gate);
void gate_open(struct block_gate *gate);

/* Polls the loop of this thread until idle(opaque) is true; it is looked at again after each
 * gate_leave(). Main loop, outside coroutines. */
void gate_wait_idle(bool (*idle)(void *opaque), void *opaque);

#endif
