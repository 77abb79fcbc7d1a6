/* SPDX-License-Identifier: MIT */
/* Mutex, queue and readers-writer lock of coroutines, in one loop and across several. */
#include "kit.h"

/* ---- in one loop: order --------------------------------------------------------------------- */

struct crowd {
    struct aio_loop *loop;
    struct co_mutex mutex;
    struct co_rwlock rwlock;
    struct co_queue queue;
    int order[64];
    int entered;
    int done;
    int readers, writers, most_readers; /* within the lock now */
    bool ready;
};

struct member {
    struct crowd *crowd;
    int number;
    bool is_writer;
};

static void locks_once(void *opaque)
{
    struct member *m = opaque;
    co_mutex_lock(&m->crowd->mutex);
    m->crowd->order[m->crowd->entered++] = m->number;
    co_sleep(AIO_CLOCK_RT, 1000);
    co_mutex_unlock(&m->crowd->mutex);
    m->crowd->done++;
}

static void test_mutex_is_fair(void **state)
{
    struct kit *kit = kit_of(state);
    struct crowd crowd = {.loop = kit->loop};
    struct member members[20];
    co_mutex_init(&crowd.mutex);
    for (int i = 0; i < 20; i++) {
        members[i] = (struct member){&crowd, i, false};
        coroutine_enter(coroutine_new(locks_once, &members[i]));
    }
    assert_int_equal(crowd.entered, 1);
    kit_poll_until(kit->loop, &crowd.done, 20);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(crowd.order[i], i);
    }
    co_mutex_destroy(&crowd.mutex);
}

static void locks_greedily(void *opaque)
{
    struct member *m = opaque;
    struct crowd *c = m->crowd;
    for (int i = 0; i < 10; i++) {
        co_mutex_lock(&c->mutex);
        c->order[c->entered++] = m->number;
        co_sleep(AIO_CLOCK_RT, 0);
        co_mutex_unlock(&c->mutex); /* and at once for it again, but the other was first */
    }
    c->done++;
}

static void test_mutex_alternates(void **state)
{
    struct kit *kit = kit_of(state);
    struct crowd crowd = {.loop = kit->loop};
    struct member members[2] = {{&crowd, 0, false}, {&crowd, 1, false}};
    co_mutex_init(&crowd.mutex);
    for (int i = 0; i < 2; i++) {
        coroutine_enter(coroutine_new(locks_greedily, &members[i]));
    }
    kit_poll_until(kit->loop, &crowd.done, 2);
    for (int i = 0; i < 19; i++) {
        assert_int_not_equal(crowd.order[i], crowd.order[i + 1]);
    }
    co_mutex_destroy(&crowd.mutex);
}

static void waits_in_queue(void *opaque)
{
    struct member *m = opaque;
    co_queue_wait(&m->crowd->queue, NULL);
    m->crowd->order[m->crowd->done++] = m->number;
}

static void test_queue(void **state)
{
    struct kit *kit = kit_of(state);
    struct crowd crowd = {.loop = kit->loop};
    struct member members[10];
    co_queue_init(&crowd.queue);
    assert_true(co_queue_empty(&crowd.queue));
    assert_false(co_queue_wake_one(&crowd.queue));
    co_queue_wake_all(&crowd.queue);
    for (int i = 0; i < 10; i++) {
        members[i] = (struct member){&crowd, i, false};
        coroutine_enter(coroutine_new(waits_in_queue, &members[i]));
    }
    assert_false(co_queue_empty(&crowd.queue));
    assert_true(co_queue_wake_one(&crowd.queue));
    assert_int_equal(crowd.done, 0); /* later, by the loop */
    kit_poll_all(kit->loop);
    assert_int_equal(crowd.done, 1);
    co_queue_wake_all(&crowd.queue);
    assert_true(co_queue_empty(&crowd.queue));
    kit_poll_until(kit->loop, &crowd.done, 10);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(crowd.order[i], i);
    }
    co_queue_destroy(&crowd.queue);
}

static void uses_rwlock(void *opaque)
{
    struct member *m = opaque;
    struct crowd *c = m->crowd;
    if (m->is_writer) {
        co_rwlock_wrlock(&c->rwlock);
        c->writers++;
    } else {
        co_rwlock_rdlock(&c->rwlock);
        c->readers++;
    }
    assert_true(c->writers == 0 || (c->writers == 1 && c->readers == 0));
    c->most_readers = c->readers > c->most_readers ? c->readers : c->most_readers;
    c->order[c->entered++] = m->number;
    co_sleep(AIO_CLOCK_RT, 1000);
    if (m->is_writer) {
        c->writers--;
    } else {
        c->readers--;
    }
    co_rwlock_unlock(&c->rwlock);
    c->done++;
}

/* rrr W rr W W r: readers together, nobody overtakes a writer. */
static void test_rwlock_is_fair(void **state)
{
    struct kit *kit = kit_of(state);
    static const char kinds[] = "rrrWrrWWr";
    struct crowd crowd = {.loop = kit->loop};
    struct member members[sizeof(kinds)];
    co_rwlock_init(&crowd.rwlock);
    for (int i = 0; kinds[i]; i++) {
        members[i] = (struct member){&crowd, i, kinds[i] == 'W'};
        coroutine_enter(coroutine_new(uses_rwlock, &members[i]));
    }
    assert_int_equal(crowd.entered, 3);
    kit_poll_until(kit->loop, &crowd.done, 9);
    for (int i = 0; i < 9; i++) {
        assert_int_equal(crowd.order[i], i);
    }
    assert_int_equal(crowd.most_readers, 3);
    co_rwlock_destroy(&crowd.rwlock);
}

/* ---- across loops --------------------------------------------------------------------------- */

enum { LOOPS = 3, PER_LOOP = 8, TURNS = 300 };

struct shared {
    struct co_mutex mutex;
    struct co_rwlock rwlock;
    struct co_queue not_empty;
    /* under mutex or rwlock; not atomic, so that a sanitizer sees if they exclude nothing */
    uint64_t counter, mirror;
    int items;
    int taken;
    atomic_int running;
};

static void counts_under_mutex(void *opaque)
{
    struct shared *s = opaque;
    for (int i = 0; i < TURNS; i++) {
        co_mutex_lock(&s->mutex);
        uint64_t before = s->counter;
        KIT_CHECK(s->mirror == before);
        s->counter = before + 1;
        if (i % 16 == 0) {
            co_sleep(AIO_CLOCK_RT, 0); /* held over a yield */
        }
        KIT_CHECK(s->counter == before + 1);
        s->mirror = before + 1;
        co_mutex_unlock(&s->mutex);
    }
    atomic_fetch_sub(&s->running, 1);
}

static void reads_and_writes(void *opaque)
{
    struct shared *s = opaque;
    for (int i = 0; i < TURNS; i++) {
        if (i % 8 == 0) {
            co_rwlock_wrlock(&s->rwlock);
            s->counter++;
            if (i % 32 == 0) {
                co_sleep(AIO_CLOCK_RT, 0);
            }
            s->mirror = s->counter;
        } else {
            co_rwlock_rdlock(&s->rwlock);
            KIT_CHECK(s->counter == s->mirror);
            if (i % 8 == 3) {
                co_sleep(AIO_CLOCK_RT, 0);
                KIT_CHECK(s->counter == s->mirror);
            }
        }
        co_rwlock_unlock(&s->rwlock);
    }
    atomic_fetch_sub(&s->running, 1);
}

static void produces(void *opaque)
{
    struct shared *s = opaque;
    for (int i = 0; i < TURNS; i++) {
        co_mutex_lock(&s->mutex);
        s->items++;
        co_mutex_unlock(&s->mutex);
        co_queue_wake_one(&s->not_empty);
    }
    atomic_fetch_sub(&s->running, 1);
}

static void consumes(void *opaque)
{
    struct shared *s = opaque;
    for (int i = 0; i < TURNS; i++) {
        co_mutex_lock(&s->mutex);
        while (s->items == 0) {
            co_queue_wait(&s->not_empty, &s->mutex);
        }
        s->items--;
        s->taken++;
        co_mutex_unlock(&s->mutex);
    }
    atomic_fetch_sub(&s->running, 1);
}

static void shared_init(struct shared *s)
{
    memset(s, 0, sizeof(*s));
    co_mutex_init(&s->mutex);
    co_rwlock_init(&s->rwlock);
    co_queue_init(&s->not_empty);
}

static void run_everywhere(struct kit *kit, struct shared *s, coroutine_fn *even, coroutine_fn *odd)
{
    struct kit_thread loops[LOOPS];
    atomic_init(&s->running, LOOPS * PER_LOOP);
    for (int i = 0; i < LOOPS; i++) {
        /* Both engines take part. */
        kit_thread_start(&loops[i], i == LOOPS - 1 ? AIO_LOOP_EPOLL : kit->engine);
    }
    for (int i = 0; i < LOOPS * PER_LOOP; i++) {
        aio_call_co(loops[i % LOOPS].loop, i / LOOPS % 2 ? odd : even, s);
    }
    while (atomic_load(&s->running) > 0) {
        kit_sleep_ms(1);
    }
    for (int i = 0; i < LOOPS; i++) {
        kit_thread_stop(&loops[i]);
    }
    co_mutex_destroy(&s->mutex);
    co_rwlock_destroy(&s->rwlock);
    co_queue_destroy(&s->not_empty);
}

static void test_mutex_across_loops(void **state)
{
    struct shared s;
    struct kit *kit = kit_of(state);
    shared_init(&s);
    run_everywhere(kit, &s, counts_under_mutex, counts_under_mutex);
    assert_int_equal(s.counter, LOOPS * PER_LOOP * TURNS);
}

static void test_rwlock_across_loops(void **state)
{
    struct shared s;
    struct kit *kit = kit_of(state);
    shared_init(&s);
    run_everywhere(kit, &s, reads_and_writes, reads_and_writes);
    assert_int_equal(s.counter, LOOPS * PER_LOOP * ((TURNS + 7) / 8));
}

static void test_queue_across_loops(void **state)
{
    struct shared s;
    struct kit *kit = kit_of(state);
    shared_init(&s);
    run_everywhere(kit, &s, produces, consumes);
    assert_int_equal(s.items, 0);
    assert_int_equal(s.taken, LOOPS * PER_LOOP / 2 * TURNS);
}

static bool never(void *opaque)
{
    return false;
}

/* A loop spins only if it has somebody to ask. */
static void let_poll(void *opaque)
{
    struct event_notifier *n = opaque;
    aio_set_notifier(aio_loop_current(), n, kit_count, never, NULL);
    aio_loop_set_poll(aio_loop_current(), NS_PER_MS, 0, 0);
}

static void let_be(void *opaque)
{
    aio_set_notifier(aio_loop_current(), opaque, NULL, NULL, NULL);
}

/* One item at a time, from one loop to another: a wake that is lost is never made up for. */
struct relay {
    struct co_mutex mutex;
    struct co_queue changed;
    int turn; /* under mutex */
    atomic_int done;
};

static void relay_side(struct relay *r, int side)
{
    for (int i = 0; i < 5000; i++) {
        co_mutex_lock(&r->mutex);
        while (r->turn % 2 != side) {
            co_queue_wait(&r->changed, &r->mutex);
        }
        r->turn++;
        co_mutex_unlock(&r->mutex);
        co_queue_wake_all(&r->changed);
    }
    atomic_fetch_add(&r->done, 1);
}

static void relay_even(void *opaque)
{
    relay_side(opaque, 0);
}

static void relay_odd(void *opaque)
{
    relay_side(opaque, 1);
}

static void test_queue_relay(void **state)
{
    struct kit *kit = kit_of(state);
    struct kit_thread loops[2];
    struct event_notifier never_set[2];
    struct relay r = {.turn = 0};
    co_mutex_init(&r.mutex);
    co_queue_init(&r.changed);
    for (int i = 0; i < 2; i++) {
        kit_thread_start(&loops[i], kit->engine);
        /* Spinning loops meet each other in the narrow places. */
        assert_true(event_notifier_init(&never_set[i], NULL));
        aio_call_wait(loops[i].loop, let_poll, &never_set[i]);
        aio_call_co(loops[i].loop, i ? relay_odd : relay_even, &r);
    }
    while (atomic_load(&r.done) < 2) {
        kit_sleep_ms(1);
    }
    for (int i = 0; i < 2; i++) {
        aio_call_wait(loops[i].loop, let_be, &never_set[i]);
        kit_thread_stop(&loops[i]);
        event_notifier_cleanup(&never_set[i]);
    }
    assert_int_equal(r.turn, 10000);
    co_mutex_destroy(&r.mutex);
    co_queue_destroy(&r.changed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH_ENGINES(test_mutex_is_fair),
        BOTH_ENGINES(test_mutex_alternates),
        BOTH_ENGINES(test_queue),
        BOTH_ENGINES(test_rwlock_is_fair),
        BOTH_ENGINES(test_mutex_across_loops),
        BOTH_ENGINES(test_rwlock_across_loops),
        BOTH_ENGINES(test_queue_across_loops),
        BOTH_ENGINES(test_queue_relay),
    };
    return KIT_MAIN("lock", tests);
}
