/* SPDX-License-Identifier: MIT */
/*
 * RCU made of C11 atomics, for ThreadSanitizer builds (mem/rcu.h tells why).
 *
 * A reader stores the number of the present grace period where the writer sees it, and zero when
 * it leaves. The writer starts a new grace period and waits for readers that show an older one.
 * All of it is sequentially consistent: a reader whose store the writer did not see yet loads its
 * pointer after the writer has replaced it.
 */
#include "mem/rcu.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"

struct reader {
    _Atomic(uint64_t) active; /* grace period it entered in, or 0 */
    unsigned nesting;         /* own thread */
    struct reader *next;      /* under registry_lock */
};

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct reader *readers; /* under registry_lock */
static _Atomic(uint64_t) grace_period = 1;
static _Thread_local struct reader *self;

void mem_rcu_register(void)
{
    assert(!self);
    self = xnew(struct reader);
    pthread_mutex_lock(&registry_lock);
    self->next = readers;
    readers = self;
    pthread_mutex_unlock(&registry_lock);
}

void mem_rcu_unregister(void)
{
    assert(self && !self->nesting);
    pthread_mutex_lock(&registry_lock);
    for (struct reader **p = &readers; *p; p = &(*p)->next) {
        if (*p == self) {
            *p = self->next;
            break;
        }
    }
    pthread_mutex_unlock(&registry_lock);
    free(self);
    self = NULL;
}

void mem_rcu_read_lock(void)
{
    if (self->nesting++ == 0) {
        atomic_store(&self->active, atomic_load(&grace_period));
    }
}

void mem_rcu_read_unlock(void)
{
    assert(self->nesting);
    if (--self->nesting == 0) {
        atomic_store(&self->active, 0);
    }
}

void mem_rcu_synchronize(void)
{
    assert(!self || !self->nesting);
    pthread_mutex_lock(&registry_lock);
    uint64_t now = atomic_fetch_add(&grace_period, 1) + 1;
    for (struct reader *r = readers; r; r = r->next) {
        uint64_t seen;
        while ((seen = atomic_load(&r->active)) != 0 && seen < now) {
            sched_yield();
        }
    }
    pthread_mutex_unlock(&registry_lock);
}
