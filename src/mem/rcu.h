/* SPDX-License-Identifier: MIT */
/*
 * The read side under which flat views, eventfd tables, the list of RAM blocks and dirty bitmaps
 * are read. Internal to mem/.
 *
 * Usually this is liburcu's memb flavour: entering and leaving a read side is two plain stores to
 * thread-local memory, and the writer's membarrier(2) makes them ordered. ThreadSanitizer sees
 * neither liburcu's barriers nor the kernel's, and would call every reader a race; under it the
 * same five functions are made of C11 sequentially consistent atomics (rcu_atomic.c), which it
 * follows.
 *
 * A read side nests. Within it nothing waits: no lock, no guest, no coroutine yield. The writer is
 * the thread that changes the memory map, with the machine lock held: thus a reader that wants the
 * machine lock leaves its read side first.
 */
#ifndef FERRY_MEM_RCU_H
#define FERRY_MEM_RCU_H

#if defined(__SANITIZE_THREAD__)
#define MEM_RCU_ATOMIC 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MEM_RCU_ATOMIC 1
#endif
#endif

#ifdef MEM_RCU_ATOMIC

void mem_rcu_register(void);
void mem_rcu_unregister(void);
void mem_rcu_read_lock(void);
void mem_rcu_read_unlock(void);
/* Waits until all read sides that run now have ended. Not from within one. */
void mem_rcu_synchronize(void);

#define mem_rcu_load(p)     __atomic_load_n(&(p), __ATOMIC_SEQ_CST)
#define mem_rcu_store(p, v) __atomic_store_n(&(p), v, __ATOMIC_SEQ_CST)

#else

#define _LGPL_SOURCE /* inline read sides */
#include <urcu/urcu-memb.h>

static inline void mem_rcu_register(void)
{
    urcu_memb_register_thread();
}
static inline void mem_rcu_unregister(void)
{
    urcu_memb_unregister_thread();
}
static inline void mem_rcu_read_lock(void)
{
    urcu_memb_read_lock();
}
static inline void mem_rcu_read_unlock(void)
{
    urcu_memb_read_unlock();
}
static inline void mem_rcu_synchronize(void)
{
    urcu_memb_synchronize_rcu();
}

#define mem_rcu_load(p)     __atomic_load_n(&(p), __ATOMIC_CONSUME)
#define mem_rcu_store(p, v) __atomic_store_n(&(p), v, __ATOMIC_RELEASE)

#endif

#endif
