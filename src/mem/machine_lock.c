/* SPDX-License-Identifier: MIT */
/* The machine lock (mem/machine_lock.h) and the registration of threads that read memory. */
#include "mem/machine_lock.h"

#include <assert.h>
#include <pthread.h>

#include "mem/address_space.h"
#include "mem/internal.h"
#include "mem/rcu.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local bool held;

void machine_lock(void)
{
    assert(!held);
    pthread_mutex_lock(&lock);
    held = true;
}

void machine_unlock(void)
{
    assert(held);
    held = false;
    pthread_mutex_unlock(&lock);
}

bool machine_lock_held(void)
{
    return held;
}

/* ---- threads -------------------------------------------------------------------------------- */

_Thread_local struct mem_thread mem_thread;

void mem_thread_register(void)
{
    static _Atomic(unsigned) next_slot;

    if (mem_thread.registered++ == 0) {
        mem_rcu_register();
        mem_thread.slot = next_slot++;
    }
}

void mem_thread_unregister(void)
{
    assert(mem_thread.registered);
    if (--mem_thread.registered == 0) {
        mem_rcu_unregister();
    }
}
