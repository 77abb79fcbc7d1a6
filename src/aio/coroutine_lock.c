/* SPDX-License-Identifier: MIT */
/*
 * Mutex, queue and readers-writer lock of coroutines.
 *
 * Each has a thread's mutex that is held for a few instructions only, and a chain of waiters on
 * the coroutines' stacks, first come, first served. Who releases hands the lock over to the first
 * waiter before waking it, so no one can overtake, and whoever is woken owns what it waited for.
 */
#include <assert.h>

#include "aio/internal.h"

static void waiters_init(struct co_waiter **first, struct co_waiter ***last)
{
    *first = NULL;
    *last = first;
}

static void waiters_append(struct co_waiter **first, struct co_waiter ***last, struct co_waiter *w)
{
    w->next = NULL;
    **last = w;
    *last = &w->next;
}

/* The first waiter, taken out; NULL if there is none. */
static struct co_waiter *waiters_take(struct co_waiter **first, struct co_waiter ***last)
{
    struct co_waiter *w = *first;
    if (w) {
        *first = w->next;
        if (!*first) {
            *last = first;
        }
    }
    return w;
}

/* ---- mutex ---------------------------------------------------------------------------------- */

void co_mutex_init(struct co_mutex *mutex)
{
    pthread_mutex_init(&mutex->lock, NULL);
    mutex->holder = NULL;
    waiters_init(&mutex->first, &mutex->last);
}

void co_mutex_destroy(struct co_mutex *mutex)
{
    assert(!mutex->holder && !mutex->first);
    pthread_mutex_destroy(&mutex->lock);
}

void co_mutex_lock(struct co_mutex *mutex)
{
    struct coroutine *self = coroutine_self();
    struct co_waiter waiter = {.co = self};

    assert(self);
    pthread_mutex_lock(&mutex->lock);
    assert(mutex->holder != self);
    bool is_free = !mutex->holder;
    if (is_free) {
        mutex->holder = self;
    } else {
        waiters_append(&mutex->first, &mutex->last, &waiter);
    }
    pthread_mutex_unlock(&mutex->lock);
    if (!is_free) {
        coroutine_yield(); /* co_mutex_unlock() has made us the holder */
    }
}

void co_mutex_unlock(struct co_mutex *mutex)
{
    pthread_mutex_lock(&mutex->lock);
    assert(mutex->holder == coroutine_self());
    struct co_waiter *waiter = waiters_take(&mutex->first, &mutex->last);
    struct coroutine *next = waiter ? waiter->co : NULL;
    mutex->holder = next;
    pthread_mutex_unlock(&mutex->lock);
    /* mutex may be gone now, unless somebody waited. */
    if (next) {
        co_wake(next);
    }
}

/* ---- queue ---------------------------------------------------------------------------------- */

void co_queue_init(struct co_queue *queue)
{
    pthread_mutex_init(&queue->lock, NULL);
    waiters_init(&queue->first, &queue->last);
}

void co_queue_destroy(struct co_queue *queue)
{
    assert(!queue->first);
    pthread_mutex_destroy(&queue->lock);
}

void co_queue_wait(struct co_queue *queue, struct co_mutex *mutex)
{
    struct co_waiter waiter = {.co = coroutine_self()};

    assert(waiter.co);
    /* In the queue before mutex is released: whoever changes the condition finds us. */
    pthread_mutex_lock(&queue->lock);
    waiters_append(&queue->first, &queue->last, &waiter);
    pthread_mutex_unlock(&queue->lock);
    if (mutex) {
        co_mutex_unlock(mutex);
    }
    coroutine_yield();
    if (mutex) {
        co_mutex_lock(mutex);
    }
}

bool co_queue_wake_one(struct co_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    struct co_waiter *waiter = waiters_take(&queue->first, &queue->last);
    struct coroutine *co = waiter ? waiter->co : NULL;
    pthread_mutex_unlock(&queue->lock);
    if (co) {
        co_wake(co);
    }
    return co;
}

void co_queue_wake_all(struct co_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    struct co_waiter *waiter = queue->first;
    waiters_init(&queue->first, &queue->last);
    pthread_mutex_unlock(&queue->lock);
    while (waiter) {
        struct coroutine *co = waiter->co;
        waiter = waiter->next; /* before its coroutine runs and the waiter is gone */
        co_wake(co);
    }
}

bool co_queue_empty(struct co_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    bool is_empty = !queue->first;
    pthread_mutex_unlock(&queue->lock);
    return is_empty;
}

/* ---- readers-writer lock -------------------------------------------------------------------- */

/*
 * Invariants, under lock: writer implies readers == 0; if there are waiters, the first of them is
 * one that could not be let in.
 */
void co_rwlock_init(struct co_rwlock *lock)
{
    pthread_mutex_init(&lock->lock, NULL);
    lock->readers = 0;
    lock->writer = NULL;
    waiters_init(&lock->first, &lock->last);
}

void co_rwlock_destroy(struct co_rwlock *lock)
{
    assert(!lock->readers && !lock->writer && !lock->first);
    pthread_mutex_destroy(&lock->lock);
}

static bool may_enter_locked(const struct co_rwlock *lock, bool is_writer)
{
    return !lock->writer && (!is_writer || !lock->readers);
}

static void let_in_locked(struct co_rwlock *lock, struct co_waiter *waiter)
{
    if (waiter->is_writer) {
        lock->writer = waiter->co;
    } else {
        lock->readers++;
    }
}

static void rwlock_lock(struct co_rwlock *lock, bool is_writer)
{
    struct co_waiter waiter = {.co = coroutine_self(), .is_writer = is_writer};

    assert(waiter.co);
    pthread_mutex_lock(&lock->lock);
    assert(lock->writer != waiter.co);
    bool is_in = !lock->first && may_enter_locked(lock, is_writer);
    if (is_in) {
        let_in_locked(lock, &waiter);
    } else {
        waiters_append(&lock->first, &lock->last, &waiter);
    }
    pthread_mutex_unlock(&lock->lock);
    if (!is_in) {
        coroutine_yield();
    }
}

void co_rwlock_rdlock(struct co_rwlock *lock)
{
    rwlock_lock(lock, false);
}

void co_rwlock_wrlock(struct co_rwlock *lock)
{
    rwlock_lock(lock, true);
}

void co_rwlock_unlock(struct co_rwlock *lock)
{
    struct co_waiter *woken = NULL, **last = &woken;

    pthread_mutex_lock(&lock->lock);
    if (lock->writer) {
        assert(lock->writer == coroutine_self());
        lock->writer = NULL;
    } else {
        assert(lock->readers > 0);
        lock->readers--;
    }
    while (lock->first && may_enter_locked(lock, lock->first->is_writer)) {
        struct co_waiter *waiter = waiters_take(&lock->first, &lock->last);
        let_in_locked(lock, waiter);
        waiters_append(&woken, &last, waiter);
    }
    pthread_mutex_unlock(&lock->lock);
    while (woken) {
        struct coroutine *co = woken->co;
        woken = woken->next;
        co_wake(co);
    }
}
