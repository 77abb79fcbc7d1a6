/* SPDX-License-Identifier: MIT */
/* Clocks and timers. The virtual clock is one for the process; the tests leave it stopped. */
#include "kit.h"

/* ---- clocks --------------------------------------------------------------------------------- */

static void test_virtual_clock_stops_and_goes(void **state)
{
    assert_int_equal(clock_get_ns(AIO_CLOCK_VIRTUAL), 0);
    kit_sleep_ms(2);
    assert_int_equal(clock_get_ns(AIO_CLOCK_VIRTUAL), 0);

    clock_virtual_resume();
    clock_virtual_resume();
    int64_t start = clock_get_ns(AIO_CLOCK_VIRTUAL);
    kit_sleep_ms(5);
    assert_true(clock_get_ns(AIO_CLOCK_VIRTUAL) - start >= 5 * NS_PER_MS);

    clock_virtual_pause();
    clock_virtual_pause();
    int64_t stopped = clock_get_ns(AIO_CLOCK_VIRTUAL);
    kit_sleep_ms(5);
    assert_int_equal(clock_get_ns(AIO_CLOCK_VIRTUAL), stopped);

    /* It goes on where it stopped. */
    clock_virtual_resume();
    assert_true(clock_get_ns(AIO_CLOCK_VIRTUAL) - stopped < 4 * NS_PER_SEC);
    assert_true(clock_get_ns(AIO_CLOCK_VIRTUAL) >= stopped);
    clock_virtual_pause();

    clock_virtual_restore(77 * NS_PER_SEC);
    assert_int_equal(clock_get_ns(AIO_CLOCK_VIRTUAL), 77 * NS_PER_SEC);
    clock_virtual_resume();
    assert_true(clock_get_ns(AIO_CLOCK_VIRTUAL) >= 77 * NS_PER_SEC);
    clock_virtual_pause();
    clock_virtual_restore(0);
}

static void test_other_clocks(void **state)
{
    int64_t rt = clock_get_ns(AIO_CLOCK_RT);
    kit_sleep_ms(2);
    assert_true(clock_get_ns(AIO_CLOCK_RT) - rt >= 2 * NS_PER_MS);
    int64_t seconds = (int64_t)time(NULL);
    assert_in_range(clock_get_ns(AIO_CLOCK_HOST) / NS_PER_SEC, seconds, seconds + 5);
}

static void *watch_clock(void *opaque)
{
    atomic_bool *stop = opaque;
    int64_t last = 0;
    while (!atomic_load(stop)) {
        int64_t now = clock_get_ns(AIO_CLOCK_VIRTUAL);
        KIT_CHECK(now >= last);
        last = now;
    }
    return NULL;
}

/* Never backwards, seen from another thread, whatever the main thread does. */
static void test_virtual_clock_is_monotonic(void **state)
{
    pthread_t thread;
    atomic_bool stop = false;
    pthread_create(&thread, NULL, watch_clock, &stop);
    for (int i = 0; i < 200000; i++) {
        clock_virtual_resume();
        clock_virtual_pause();
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    clock_virtual_restore(0);
}

/* ---- timers --------------------------------------------------------------------------------- */

static void test_timer_runs_once(void **state)
{
    struct kit *kit = kit_of(state);
    struct aio_timer timer;
    int count = 0;
    timer_init(&timer, kit->loop, AIO_CLOCK_RT, kit_count, &count);
    assert_false(timer_is_set(&timer));
    assert_int_equal(timer_expires(&timer), -1);

    int64_t start = kit_now();
    timer_set(&timer, start + 10 * NS_PER_MS);
    assert_true(timer_is_set(&timer));
    assert_int_equal(timer_expires(&timer), start + 10 * NS_PER_MS);
    assert_int_equal(timers_next_expiry(AIO_CLOCK_RT), start + 10 * NS_PER_MS);
    kit_poll_until(kit->loop, &count, 1);
    assert_true(kit_now() - start >= 10 * NS_PER_MS);
    assert_false(timer_is_set(&timer));
    assert_int_equal(timers_next_expiry(AIO_CLOCK_RT), -1);
    assert_false(aio_loop_poll(kit->loop, false));
    assert_int_equal(count, 1);

    timer_set(&timer, 0); /* long past */
    assert_true(aio_loop_poll(kit->loop, true));
    assert_int_equal(count, 2);
    timer_set(&timer, -5); /* is 0 */
    assert_true(aio_loop_poll(kit->loop, true));
    assert_int_equal(count, 3);
}

static void test_timer_is_exact(void **state)
{
    struct kit *kit = kit_of(state);
    struct aio_timer timer;
    int64_t best = INT64_MAX;
    timer_init(&timer, kit->loop, AIO_CLOCK_RT, kit_count, &(int){0});
    for (int i = 0; i < 20; i++) {
        int count = 0;
        timer.opaque = &count;
        int64_t at = kit_now() + 2 * NS_PER_MS + 345678;
        timer_set(&timer, at);
        kit_poll_until(kit->loop, &count, 1);
        int64_t late = kit_now() - at;
        assert_true(late >= 0);
        best = late < best ? late : best;
    }
    assert_true(best < NS_PER_MS); /* not rounded to milliseconds */
}

static void test_timer_cancel_and_change(void **state)
{
    struct kit *kit = kit_of(state);
    struct aio_timer a, b;
    int as = 0, bs = 0;
    timer_init(&a, kit->loop, AIO_CLOCK_RT, kit_count, &as);
    timer_init(&b, kit->loop, AIO_CLOCK_RT, kit_count, &bs);
    int64_t now = kit_now();
    timer_set(&a, now + 5 * NS_PER_MS);
    timer_set(&b, now + 10 * NS_PER_MS);
    timer_cancel(&a);
    timer_cancel(&a);
    assert_int_equal(timer_expires(&a), -1);
    timer_set(&b, now + 3600 * NS_PER_SEC);
    timer_set(&b, now + 15 * NS_PER_MS);
    kit_poll_until(kit->loop, &bs, 1);
    assert_int_equal(as, 0);
    assert_true(kit_now() - now >= 15 * NS_PER_MS);
}

struct rearm {
    struct aio_timer timer;
    int count, left;
};

static void set_again_in_the_past(void *opaque)
{
    struct rearm *r = opaque;
    r->count++;
    if (r->left-- > 0) {
        timer_set(&r->timer, 1);
    }
}

static void test_timer_in_the_past_does_not_starve(void **state)
{
    struct kit *kit = kit_of(state);
    struct rearm r = {.left = 1000};
    timer_init(&r.timer, kit->loop, AIO_CLOCK_RT, set_again_in_the_past, &r);
    timer_set(&r.timer, 1);
    aio_loop_poll(kit->loop, true);
    assert_in_range(r.count, 1, 4);
    kit_poll_until(kit->loop, &r.count, 1001);
    assert_false(timer_is_set(&r.timer));
}

/* A model: N timers, set, changed and cancelled at random; they run in order. */
enum { HEAP_TIMERS = 300 };

struct heap_model {
    struct aio_timer timer;
    int64_t expires;
    int64_t *last;
    int *count;
};

static void check_heap_order(void *opaque)
{
    struct heap_model *m = opaque;
    assert_true(m->expires >= *m->last);
    *m->last = m->expires;
    m->expires = -1;
    ++*m->count;
}

static void test_timers_run_in_order(void **state)
{
    struct kit *kit = kit_of(state);
    static struct heap_model model[HEAP_TIMERS];
    unsigned seed = 1;
    for (int round = 0; round < 20; round++) {
        int64_t last = -1;
        int count = 0, expected = 0;
        for (int i = 0; i < HEAP_TIMERS; i++) {
            timer_init(&model[i].timer, kit->loop, AIO_CLOCK_RT, check_heap_order, &model[i]);
            model[i].expires = -1;
            model[i].last = &last;
            model[i].count = &count;
        }
        for (int i = 0; i < 2000; i++) {
            struct heap_model *m = &model[rand_r(&seed) % HEAP_TIMERS];
            if (rand_r(&seed) % 4) {
                m->expires = 1 + rand_r(&seed) % 1000;
                timer_set(&m->timer, m->expires);
            } else {
                m->expires = -1;
                timer_cancel(&m->timer);
            }
        }
        int64_t next = -1;
        for (int i = 0; i < HEAP_TIMERS; i++) {
            assert_int_equal(timer_expires(&model[i].timer), model[i].expires);
            if (model[i].expires >= 0) {
                expected++;
                next = next < 0 || model[i].expires < next ? model[i].expires : next;
            }
        }
        assert_int_equal(timers_next_expiry(AIO_CLOCK_RT), next);
        kit_poll_all(kit->loop);
        assert_int_equal(count, expected);
    }
}

struct setter {
    struct aio_timer *timer;
    int64_t at;
};

static void *set_later(void *opaque)
{
    struct setter *setter = opaque;
    kit_sleep_ms(10);
    timer_set(setter->timer, setter->at);
    return NULL;
}

/* The loop waits for a later timer, or for none, when another thread sets an earlier one. */
static void test_timer_set_by_another_thread(void **state)
{
    struct kit *kit = kit_of(state);
    for (int far = 0; far < 2; far++) {
        struct aio_timer timer, late;
        int count = 0, never = 0;
        pthread_t thread;
        timer_init(&timer, kit->loop, AIO_CLOCK_RT, kit_count, &count);
        timer_init(&late, kit->loop, AIO_CLOCK_RT, kit_count, &never);
        if (far) {
            timer_set(&late, kit_now() + 3600 * NS_PER_SEC);
        }
        struct setter setter = {&timer, kit_now() + 20 * NS_PER_MS};
        pthread_create(&thread, NULL, set_later, &setter);
        kit_poll_until(kit->loop, &count, 1);
        assert_true(kit_now() >= setter.at);
        assert_true(kit_now() < setter.at + 30 * NS_PER_SEC);
        pthread_join(thread, NULL);
        timer_cancel(&late);
        assert_int_equal(never, 0);
    }
}

static void *resume_later(void *opaque)
{
    kit_sleep_ms(20);
    clock_virtual_resume();
    return NULL;
}

/* While the machine is stopped its timers do not run, due or not. */
static void test_virtual_timers_stop_with_the_clock(void **state)
{
    struct kit *kit = kit_of(state);
    struct aio_timer timer;
    pthread_t thread;
    int count = 0;
    timer_init(&timer, kit->loop, AIO_CLOCK_VIRTUAL, kit_count, &count);
    timer_set(&timer, 0);
    kit_poll_all(kit->loop);
    assert_int_equal(count, 0);
    assert_false(timers_run(kit->loop, AIO_CLOCK_VIRTUAL));

    /* The loop waits without end; the clock starts. */
    timer_set(&timer, clock_get_ns(AIO_CLOCK_VIRTUAL) + NS_PER_MS);
    pthread_create(&thread, NULL, resume_later, NULL);
    kit_poll_until(kit->loop, &count, 1);
    pthread_join(thread, NULL);

    /* Stopped again before it is due. */
    timer_set(&timer, clock_get_ns(AIO_CLOCK_VIRTUAL) + 5 * NS_PER_MS);
    clock_virtual_pause();
    kit_sleep_ms(10);
    kit_poll_all(kit->loop);
    assert_int_equal(count, 1);
    timer_cancel(&timer);
    clock_virtual_restore(0);
}

static void test_host_timer(void **state)
{
    struct kit *kit = kit_of(state);
    struct aio_timer timer;
    int count = 0;
    timer_init(&timer, kit->loop, AIO_CLOCK_HOST, kit_count, &count);
    int64_t at = clock_get_ns(AIO_CLOCK_HOST) + 5 * NS_PER_MS;
    timer_set(&timer, at);
    kit_poll_until(kit->loop, &count, 1);
    assert_true(clock_get_ns(AIO_CLOCK_HOST) >= at);
}

struct racer {
    struct aio_timer timers[8];
    struct aio_loop *loop;
    int fired; /* loop */
    atomic_bool stop;
};

static void *race_timers(void *opaque)
{
    struct racer *r = opaque;
    unsigned seed = (unsigned)(uintptr_t)pthread_self();
    while (!atomic_load(&r->stop)) {
        struct aio_timer *t = &r->timers[rand_r(&seed) % 8];
        switch (rand_r(&seed) % 3) {
        case 0:
            timer_cancel(t);
            break;
        case 1:
            timer_set(t, kit_now());
            break;
        default:
            timer_set(t, kit_now() + rand_r(&seed) % (200 * NS_PER_US));
            break;
        }
    }
    return NULL;
}

static void test_timers_race(void **state)
{
    struct kit *kit = kit_of(state);
    struct racer r = {.loop = kit->loop};
    pthread_t threads[2];
    for (int i = 0; i < 8; i++) {
        timer_init(&r.timers[i], kit->loop, AIO_CLOCK_RT, kit_count, &r.fired);
    }
    for (int i = 0; i < 2; i++) {
        pthread_create(&threads[i], NULL, race_timers, &r);
    }
    kit_poll_until(kit->loop, &r.fired, 5000);
    atomic_store(&r.stop, true);
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    for (int i = 0; i < 8; i++) {
        timer_cancel(&r.timers[i]);
    }
    kit_poll_all(kit->loop);
}

/* As qtest steps it. There is no way back, so these come last. */
static void test_manual_clock(void **state)
{
    clock_virtual_set_manual();
    clock_virtual_set_manual();
    assert_int_equal(clock_get_ns(AIO_CLOCK_VIRTUAL), 0);
    clock_virtual_resume();
    kit_sleep_ms(2);
    assert_int_equal(clock_get_ns(AIO_CLOCK_VIRTUAL), 0);
    clock_virtual_set(1000);
    clock_virtual_set(500); /* never back */
    assert_int_equal(clock_get_ns(AIO_CLOCK_VIRTUAL), 1000);
}

static void test_manual_timers(void **state)
{
    struct kit *kit = kit_of(state);
    struct aio_timer a, b;
    int as = 0, bs = 0;
    int64_t now = clock_get_ns(AIO_CLOCK_VIRTUAL);
    timer_init(&a, kit->loop, AIO_CLOCK_VIRTUAL, kit_count, &as);
    timer_init(&b, kit->loop, AIO_CLOCK_VIRTUAL, kit_count, &bs);
    timer_set(&a, now + 100);
    timer_set(&b, now + 200);
    kit_poll_all(kit->loop);
    assert_int_equal(as + bs, 0);
    assert_int_equal(timers_next_expiry(AIO_CLOCK_VIRTUAL), now + 100);
    clock_virtual_set(now + 100);
    assert_int_equal(as, 0); /* setting does not run */
    assert_true(timers_run(kit->loop, AIO_CLOCK_VIRTUAL));
    assert_false(timers_run(kit->loop, AIO_CLOCK_VIRTUAL));
    assert_int_equal(as, 1);
    assert_int_equal(bs, 0);
    assert_int_equal(timers_next_expiry(AIO_CLOCK_VIRTUAL), now + 200);
    clock_virtual_set(now + 1000);
    kit_poll_until(kit->loop, &bs, 1); /* a round runs them as well */
    assert_int_equal(timers_next_expiry(AIO_CLOCK_VIRTUAL), -1);

    /* A loop in another thread, waiting, sees the jump. */
    struct kit_thread other;
    kit_thread_start(&other, kit->engine);
    struct aio_timer c;
    int cs = 0;
    timer_init(&c, other.loop, AIO_CLOCK_VIRTUAL, kit_count, &cs);
    timer_set(&c, now + 2000);
    kit_sleep_ms(5);
    clock_virtual_set(now + 2000);
    while (timer_is_set(&c)) {
        kit_sleep_ms(1);
    }
    kit_thread_stop(&other);
    assert_int_equal(cs, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_virtual_clock_stops_and_goes),
        cmocka_unit_test(test_other_clocks),
        cmocka_unit_test(test_virtual_clock_is_monotonic),
        BOTH_ENGINES(test_timer_runs_once),
        BOTH_ENGINES(test_timer_is_exact),
        BOTH_ENGINES(test_timer_cancel_and_change),
        BOTH_ENGINES(test_timer_in_the_past_does_not_starve),
        BOTH_ENGINES(test_timers_run_in_order),
        BOTH_ENGINES(test_timer_set_by_another_thread),
        BOTH_ENGINES(test_virtual_timers_stop_with_the_clock),
        BOTH_ENGINES(test_host_timer),
        BOTH_ENGINES(test_timers_race),
        cmocka_unit_test(test_manual_clock),
        BOTH_ENGINES(test_manual_timers),
    };
    return KIT_MAIN("timer", tests);
}
