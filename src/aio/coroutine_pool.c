/* SPDX-License-Identifier: MIT */
/*
 * Stacks of coroutines, reused: each thread keeps some, taken and given back without a lock; what
 * is too much or too little for one thread goes to or comes from a shared list in batches (vCPU
 * threads make coroutines that end in a loop's thread). Both are bounded; the rest is unmapped.
 *
 *      mapping:  | guard page |  stack, grows down            | struct coroutine | colour |
 *                  no access    <-- COROUTINE_STACK_SIZE -->
 *
 * The colour shifts neighbouring stacks against each other by some cache lines: their tops, which
 * are the parts in use, would all compete for the same few sets of the cache otherwise.
 */
#include "aio/coroutine_pool.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"

#define LOCAL_MAX  128 /* stacks a thread keeps */
#define BATCH      64  /* of them go to the shared list at once */
#define SHARED_MAX 512

/* Stacks beside each other, in all threads, after which they are scarce: each is two mappings, and
 * the kernel gives a process 65530 (vm.max_map_count). */
#define PLENTY 8192

#define COLOURS       16
#define COLOUR_STRIDE 192 /* bytes; three cache lines */

static struct {
    pthread_mutex_t lock;
    /* under lock */
    struct coroutine *first;
    unsigned count;
} shared = {.lock = PTHREAD_MUTEX_INITIALIZER};

static __thread struct {
    struct coroutine *first;
    unsigned count;
    bool is_registered; /* thread_ends() will be called */
} local;

static _Atomic(unsigned) mapped; /* stacks there are */
static _Atomic(unsigned) plenty = PLENTY;

static pthread_key_t thread_key;
static pthread_once_t thread_key_once = PTHREAD_ONCE_INIT;

/* ---- mappings ------------------------------------------------------------------------------- */

static size_t guard_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static size_t mapping_size(void)
{
    size_t page = guard_size();
    size_t body = COROUTINE_STACK_SIZE * FIBER_STACK_FACTOR + sizeof(struct coroutine) +
                  COLOURS * COLOUR_STRIDE;
    return page + align_up(body, page);
}

static struct coroutine *stack_new(void)
{
    static atomic_uint next_colour;
    size_t size = mapping_size(), guard = guard_size();
    char *base = mmap(NULL, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (base == MAP_FAILED || mprotect(base, guard, PROT_NONE) < 0) {
        log_error("cannot map a coroutine's stack: %s", strerror(errno));
        abort();
    }
    atomic_fetch_add_explicit(&mapped, 1, memory_order_relaxed);
    unsigned colour = atomic_fetch_add_explicit(&next_colour, 1, memory_order_relaxed) % COLOURS;
    uintptr_t end = (uintptr_t)base + size - colour * COLOUR_STRIDE;
    struct coroutine *co = (struct coroutine *)((end - sizeof(struct coroutine)) & ~(uintptr_t)63);
    co->stack = base + guard;
    co->stack_size = (size_t)((char *)co - (base + guard));
    return co;
}

static void stack_free(struct coroutine *co)
{
    size_t guard = guard_size();
    char *base = (char *)co->stack - guard;
#if FIBER_ASAN
    __asan_unpoison_memory_region(base + guard, mapping_size() - guard);
#endif
    munmap(base, mapping_size());
    atomic_fetch_sub_explicit(&mapped, 1, memory_order_relaxed);
}

/* ---- lists ---------------------------------------------------------------------------------- */

static struct coroutine *pop(struct coroutine **list, unsigned *count)
{
    struct coroutine *co = *list;
    *list = co->pool_next;
    (*count)--;
    return co;
}

static void push(struct coroutine **list, unsigned *count, struct coroutine *co)
{
    co->pool_next = *list;
    *list = co;
    (*count)++;
}

/* Gives n of this thread's stacks away. */
static void local_release(unsigned n)
{
    struct coroutine *surplus = NULL;
    unsigned surplus_count = 0;

    pthread_mutex_lock(&shared.lock);
    while (n-- > 0) {
        struct coroutine *co = pop(&local.first, &local.count);
        if (shared.count < SHARED_MAX) {
            push(&shared.first, &shared.count, co);
        } else {
            push(&surplus, &surplus_count, co);
        }
    }
    pthread_mutex_unlock(&shared.lock);
    while (surplus) {
        stack_free(pop(&surplus, &surplus_count));
    }
}

static void local_refill(void)
{
    pthread_mutex_lock(&shared.lock);
    while (shared.first && local.count < BATCH) {
        push(&local.first, &local.count, pop(&shared.first, &shared.count));
    }
    pthread_mutex_unlock(&shared.lock);
}

static void thread_ends(void *unused)
{
    local_release(local.count);
    local.is_registered = false;
}

static void make_thread_key(void)
{
    pthread_key_create(&thread_key, thread_ends);
}

static void register_thread(void)
{
    pthread_once(&thread_key_once, make_thread_key);
    pthread_setspecific(thread_key, &local);
    local.is_registered = true;
}

struct coroutine *coroutine_pool_get(void)
{
    if (!local.first) {
        local_refill();
    }
    return local.first ? pop(&local.first, &local.count) : stack_new();
}

void coroutine_pool_put(struct coroutine *co)
{
    if (!local.is_registered) {
        register_thread();
    }
    push(&local.first, &local.count, co);
    if (local.count > LOCAL_MAX) {
        local_release(BATCH);
    }
}

bool coroutine_are_scarce(void)
{
    return atomic_load_explicit(&mapped, memory_order_relaxed) >=
           atomic_load_explicit(&plenty, memory_order_relaxed);
}

void coroutine_set_plenty(unsigned stacks)
{
    atomic_store_explicit(&plenty, stacks ? stacks : PLENTY, memory_order_relaxed);
}

unsigned coroutine_pool_local_count(void)
{
    return local.count;
}

unsigned coroutine_pool_shared_count(void)
{
    pthread_mutex_lock(&shared.lock);
    unsigned count = shared.count;
    pthread_mutex_unlock(&shared.lock);
    return count;
}
