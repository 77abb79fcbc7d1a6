/* SPDX-License-Identifier: MIT */
/*
 * Threads that read, write and map while the memory map changes under them. Mostly for
 * ThreadSanitizer and AddressSanitizer to look at; what can be asserted is.
 */
#include "mem_fixture.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "aio/notifier.h"
#include "mem/dma.h"

#define READERS 3
#define CHANGES 120

static _Atomic(bool) stop;

/* ---- devices -------------------------------------------------------------------------------- */

struct counter {
    struct mem_region mr;
    uint64_t plain;           /* machine lock */
    _Atomic(uint64_t) shared; /* lockless */
    bool lockless;
    _Atomic(bool) gone;
};

static uint64_t counter_read(void *opaque, uint64_t offset, unsigned size)
{
    struct counter *c = opaque;

    assert(!c->gone);
    if (c->lockless) {
        return atomic_fetch_add(&c->shared, 1);
    }
    assert(machine_lock_held());
    return c->plain++;
}

static const struct mem_region_ops counter_ops = {.read = counter_read, .valid = {8, 8, false}};
static const struct mem_region_ops lockless_ops = {
    .read = counter_read,
    .valid = {8, 8, false},
    .lockless = true,
};

/* ---- readers against transactions ----------------------------------------------------------- */

#define RAM_AT      UINT64_C(0x100000)
#define MOVING_AT   UINT64_C(0x8000)
#define LOCKED_AT   UINT64_C(0x20000)
#define LOCKLESS_AT UINT64_C(0x30000)

static void *read_everywhere(void *opaque)
{
    uint64_t seed = (uintptr_t)opaque;

    mem_thread_register();
    while (!atomic_load(&stop)) {
        uint64_t value = 0;
        uint8_t buf[256];

        /* This RAM is always there. */
        uint64_t at = RAM_AT + random_below(&seed, 4096) * 8;
        assert(address_space_read(address_space_memory, at, &value, 8) == MEM_OK);
        assert(value == 0 || value == at);
        assert(address_space_write(address_space_memory, at, &at, 8) == MEM_OK);
        /* This comes and goes and moves. */
        address_space_read(address_space_memory, MOVING_AT, buf, sizeof(buf));
        address_space_read(address_space_memory, LOCKED_AT, &value, 8);
        address_space_read(address_space_memory, LOCKLESS_AT, &value, 8);
        /* Both may map, write and unmap in the middle of a change. */
        uint64_t length = 8192;
        void *host = dma_map(address_space_memory, MOVING_AT, &length, true);
        if (host) {
            guest_store64(host, length);
            dma_unmap(host, length, true, 8);
        }
        dma_read(address_space_memory, RAM_AT + 64 * KiB - 16, buf, 64);
    }
    mem_thread_unregister();
    return NULL;
}

static void start(pthread_t *threads, unsigned count, void *(*fn)(void *))
{
    atomic_store(&stop, false);
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, fn, (void *)(uintptr_t)(i + 1)), 0);
    }
}

static void join(pthread_t *threads, unsigned count)
{
    atomic_store(&stop, true);
    for (unsigned i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
    }
}

static void counter_make(struct counter *c, bool lockless)
{
    memset(c, 0, sizeof(*c));
    c->lockless = lockless;
    mem_region_init_io(&c->mr, "counter", 8, lockless ? &lockless_ops : &counter_ops, c);
}

static void test_readers(void **state)
{
    pthread_t threads[READERS];
    struct mem_region ram;
    uint64_t seed = 99;

    assert_true(mem_region_init_ram(&ram, "ram", 64 * KiB, false, NULL));
    machine_lock();
    mem_region_add(mem_root(), RAM_AT, &ram);
    machine_unlock();
    start(threads, READERS, read_everywhere);

    for (unsigned i = 0; i < CHANGES; i++) {
        /* A whole life each time: freed memory that is still used would be noticed. */
        struct mem_region *moving = xnew(struct mem_region);
        struct counter *locked = xnew(struct counter), *lockless = xnew(struct counter);

        assert_true(mem_region_init_ram(moving, "moving", 16 * KiB, i % 2, NULL));
        if (i % 3 == 0) {
            ram_dirty_log_start(moving->ram, DIRTY_MIGRATION);
        }
        counter_make(locked, false);
        counter_make(lockless, true);
        machine_lock();
        mem_transaction_begin();
        mem_region_add(mem_root(), MOVING_AT - random_below(&seed, 3) * 4096, moving);
        mem_region_add(mem_root(), LOCKED_AT, &locked->mr);
        mem_region_add(mem_root(), LOCKLESS_AT, &lockless->mr);
        mem_transaction_commit();
        machine_unlock();
        sched_yield();

        machine_lock();
        mem_region_set_offset(moving, MOVING_AT - random_below(&seed, 3) * 4096);
        mem_transaction_begin();
        mem_region_remove(mem_root(), moving);
        mem_region_remove(mem_root(), &locked->mr);
        mem_region_remove(mem_root(), &lockless->mr);
        mem_transaction_commit();
        mem_region_destroy(moving);
        mem_region_destroy(&locked->mr);
        mem_region_destroy(&lockless->mr);
        machine_unlock();
        locked->gone = true;
        lockless->gone = true;
        free(moving);
        free(locked);
        free(lockless);
    }
    join(threads, READERS);
    machine_lock();
    mem_region_remove(mem_root(), &ram);
    machine_unlock();
    mem_region_destroy(&ram);
}

/* ---- maps in one thread, unmaps in another --------------------------------------------------- */

struct mapping {
    void *host;
    uint64_t length;
};

static struct {
    pthread_mutex_t lock;
    struct mapping items[64];
    unsigned count;
    bool closed;
} queue = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void *unmap_all(void *opaque)
{
    bool done = false;

    mem_thread_register();
    while (!done) {
        struct mapping m = {NULL, 0};
        pthread_mutex_lock(&queue.lock);
        if (queue.count) {
            m = queue.items[--queue.count];
        } else {
            done = queue.closed;
        }
        pthread_mutex_unlock(&queue.lock);
        if (m.host) {
            guest_store8(m.host, 1);
            dma_unmap(m.host, m.length, true, 1);
        } else {
            sched_yield();
        }
    }
    mem_thread_unregister();
    return NULL;
}

/* The block goes while mappings of it are under way, and is freed by whoever unmaps last. */
static void test_maps_outlive_regions(void **state)
{
    static void *hosts[200];
    pthread_t thread;

    queue.closed = false;
    assert_int_equal(pthread_create(&thread, NULL, unmap_all, NULL), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(hosts); i++) {
        struct mem_region ram;

        assert_true(mem_region_init_ram(&ram, "ram", 32 * KiB, false, NULL));
        machine_lock();
        mem_region_add(mem_root(), 0, &ram);
        machine_unlock();
        for (unsigned k = 0; k < 16; k++) {
            uint64_t length = 2 * KiB;
            void *host = dma_map(address_space_memory, k * 2 * KiB, &length, true);
            assert_non_null(host);
            hosts[i] = host;
            pthread_mutex_lock(&queue.lock);
            bool room = queue.count < ARRAY_SIZE(queue.items);
            if (room) {
                queue.items[queue.count++] = (struct mapping){host, length};
            }
            pthread_mutex_unlock(&queue.lock);
            if (!room) {
                dma_unmap(host, length, true, 0);
            }
        }
        machine_lock();
        mem_region_remove(mem_root(), &ram);
        mem_region_destroy(&ram);
        machine_unlock();
    }
    pthread_mutex_lock(&queue.lock);
    queue.closed = true;
    pthread_mutex_unlock(&queue.lock);
    pthread_join(thread, NULL);
    assert_int_equal(queue.count, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(hosts); i++) {
        assert_null(ram_block_from_host(hosts[i], NULL));
    }
}

/* ---- eventfds ------------------------------------------------------------------------------- */

#define BELL_AT UINT64_C(0x40000)

static void ignore_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
}

static void *ring(void *opaque)
{
    mem_thread_register();
    while (!atomic_load(&stop)) {
        address_space_write(address_space_memory, BELL_AT, "\0\0", 2);
    }
    mem_thread_unregister();
    return NULL;
}

/* After the commit of its removal a notifier is not touched. */
static void test_notifier_life(void **state)
{
    static const struct mem_region_ops ops = {.write = ignore_write};
    pthread_t threads[2];
    struct mem_region bell;

    mem_region_init_io(&bell, "bell", 16, &ops, NULL);
    machine_lock();
    mem_region_add(mem_root(), BELL_AT, &bell);
    machine_unlock();
    start(threads, 2, ring);
    for (unsigned i = 0; i < 200; i++) {
        struct event_notifier *n = xnew(struct event_notifier);
        struct mem_eventfd e = {.size = 2, .notifier = n};

        assert_true(event_notifier_init(n, NULL));
        machine_lock();
        mem_region_add_eventfd(&bell, &e);
        machine_unlock();
        sched_yield();
        machine_lock();
        mem_region_del_eventfd(&bell, &e);
        machine_unlock();
        event_notifier_cleanup(n);
        free(n);
    }
    join(threads, 2);
    machine_lock();
    mem_region_remove(mem_root(), &bell);
    machine_unlock();
    mem_region_destroy(&bell);
}

/* ---- dirty bitmaps -------------------------------------------------------------------------- */

#define DIRTY_WORDS 4
#define DIRTY_PAGES (DIRTY_WORDS * 64)

static struct ram_block *dirty_block;
static _Atomic(bool) writer_done;

/* Writes each page once. */
static void *write_pages(void *opaque)
{
    mem_thread_register();
    for (uint64_t p = 0; p < DIRTY_PAGES; p++) {
        guest_store64(dirty_block->host + p * GUEST_PAGE_SIZE, p + (uintptr_t)opaque);
        ram_set_dirty(dirty_block, p * GUEST_PAGE_SIZE, 8);
    }
    atomic_store(&writer_done, true);
    mem_thread_unregister();
    return NULL;
}

/* Whoever fetches and then copies the dirty pages ends up with what was written. */
static void test_dirty_loses_nothing(void **state)
{
    static uint64_t copy[DIRTY_PAGES];

    dirty_block = ram_block_new("ram", DIRTY_PAGES * GUEST_PAGE_SIZE, false, NULL);
    ram_dirty_log_start(dirty_block, DIRTY_MIGRATION);
    for (uintptr_t round = 1; round <= 300; round++) {
        pthread_t thread;
        bool done;

        atomic_store(&writer_done, false);
        assert_int_equal(pthread_create(&thread, NULL, write_pages, (void *)round), 0);
        do {
            uint64_t bitmap[DIRTY_WORDS];
            done = atomic_load(&writer_done);
            ram_dirty_fetch(dirty_block, DIRTY_MIGRATION, 0, dirty_block->size, bitmap);
            for (unsigned p = 0; p < DIRTY_PAGES; p++) {
                if (bitmap[p / 64] >> p % 64 & 1) {
                    copy[p] = guest_load64(dirty_block->host + p * GUEST_PAGE_SIZE);
                }
            }
        } while (!done);
        pthread_join(thread, NULL);
        for (unsigned p = 0; p < DIRTY_PAGES; p++) {
            assert_int_equal(copy[p], p + round);
        }
    }
    ram_block_free(dirty_block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_readers),
        cmocka_unit_test(test_maps_outlive_regions),
        cmocka_unit_test(test_notifier_life),
        cmocka_unit_test(test_dirty_loses_nothing),
    };

    return cmocka_run_group_tests(tests, mem_setup, mem_teardown);
}
