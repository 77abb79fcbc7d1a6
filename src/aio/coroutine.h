/* SPDX-License-Identifier: MIT */
/*
 * Coroutines: straight-line code above the event loop.
 *
 * A coroutine has its own stack (pooled, with a guard page), runs in the thread of one loop, and
 * gives way at coroutine_yield(). Functions that may yield are named co_* and are called only from
 * a coroutine. No lock of a thread (mutex, RCU read side, machine lock) is held across a yield.
 *
 *   loop: coroutine_enter(co) --> co runs ... coroutine_yield() --> back in the loop
 *   anywhere: co_wake(co) -----> the loop enters co again
 *
 * A coroutine belongs to the loop that first entered it and never changes it.
 */
#ifndef FERRY_AIO_COROUTINE_H
#define FERRY_AIO_COROUTINE_H

#include <pthread.h>
#include <stdbool.h>

#include "aio/loop.h"

#define COROUTINE_STACK_SIZE (256 * 1024) /* bytes, without the guard page */

struct coroutine;
typedef void coroutine_fn(void *opaque);

/* Starts to run at the first coroutine_enter(); frees itself when fn returns. Loop thread. */
struct coroutine *coroutine_new(coroutine_fn *fn, void *opaque);
/* Runs co until it yields or ends. In its loop's thread, also from within another coroutine. */
void coroutine_enter(struct coroutine *co);
void coroutine_yield(void);
/* The running coroutine, or NULL. */
struct coroutine *coroutine_self(void);
struct aio_loop *coroutine_loop(const struct coroutine *co);

/* Lets co's loop enter it, soon. Any thread; once per yield. A wake that comes before the yield it
 * is meant for is kept. */
void co_wake(struct coroutine *co);

void co_sleep(enum aio_clock clock, int64_t ns);

/* Before a piece of long work in memory, which is to copy or look at `bytes`, or takes as long: waits
 * for its turn if coroutines of this loop have done much of that already, so that the loop's other work
 * comes in between. A piece has CO_SHARE_PIECE at most; who has little to do need not ask. */
#define CO_SHARE_PIECE (UINT64_C(1) << 20)
void co_share(uint64_t bytes);

/* There are so many coroutines that who could do without another one should: the kernel bounds the
 * mappings of a process, and one that cannot be made ends it. Loop thread. */
bool coroutine_are_scarce(void);
/* From how many on; 0: as ever. For tests. */
void coroutine_set_plenty(unsigned stacks);

/* Starts fn in a new coroutine of loop. Any thread. */
void aio_call_co(struct aio_loop *loop, coroutine_fn *fn, void *opaque);

/* ---- waiting for each other ----------------------------------------------------------------- */

/* First come, first served; works across loops. Unlock in the coroutine that locked. */
struct co_mutex {
    pthread_mutex_t lock; /* guards the fields below; never held across a yield */
    struct coroutine *holder;
    struct co_waiter *first, **last;
};

void co_mutex_init(struct co_mutex *mutex);
void co_mutex_destroy(struct co_mutex *mutex);
void co_mutex_lock(struct co_mutex *mutex);
void co_mutex_unlock(struct co_mutex *mutex);

/* A queue of coroutines that wait for something. Used by one loop, or with a co_mutex that guards
 * the condition: co_queue_wait() releases it while waiting (NULL: none) and holds it again on
 * return. */
struct co_queue {
    pthread_mutex_t lock;
    struct co_waiter *first, **last;
};

void co_queue_init(struct co_queue *queue);
void co_queue_destroy(struct co_queue *queue);
void co_queue_wait(struct co_queue *queue, struct co_mutex *mutex);
bool co_queue_wake_one(struct co_queue *queue); /* any thread; false: nobody waited */
void co_queue_wake_all(struct co_queue *queue);
bool co_queue_empty(struct co_queue *queue);

/* Many readers or one writer, first come, first served; across loops. A writer unlocks in the
 * coroutine that locked. */
struct co_rwlock {
    pthread_mutex_t lock; /* guards the fields below; never held across a yield */
    unsigned readers;
    struct coroutine *writer;
    struct co_waiter *first, **last;
};

void co_rwlock_init(struct co_rwlock *lock);
void co_rwlock_destroy(struct co_rwlock *lock);
void co_rwlock_rdlock(struct co_rwlock *lock);
void co_rwlock_wrlock(struct co_rwlock *lock);
void co_rwlock_unlock(struct co_rwlock *lock);

#endif
