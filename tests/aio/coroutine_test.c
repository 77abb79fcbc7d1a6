/* SPDX-License-Identifier: MIT */
/* Coroutines: entering, yielding, waking, their stacks. */
#include "kit.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "aio/coroutine_pool.h"

/* ---- enter and yield ------------------------------------------------------------------------ */

struct trail {
    char text[64];
};

static void leave_mark(struct trail *trail, char c)
{
    trail->text[strlen(trail->text)] = c;
}

static void three_steps(void *opaque)
{
    leave_mark(opaque, 'a');
    coroutine_yield();
    leave_mark(opaque, 'b');
    coroutine_yield();
    leave_mark(opaque, 'c');
}

static void test_enter_and_yield(void **state)
{
    struct kit *kit = kit_of(state);
    struct trail trail = {""};
    struct coroutine *co = coroutine_new(three_steps, &trail);
    assert_string_equal(trail.text, "");
    assert_null(coroutine_self());
    coroutine_enter(co);
    leave_mark(&trail, '1');
    assert_ptr_equal(coroutine_loop(co), kit->loop);
    coroutine_enter(co);
    leave_mark(&trail, '2');
    coroutine_enter(co);
    assert_string_equal(trail.text, "a1b2c");
    assert_null(coroutine_self());
}

struct outer {
    struct trail trail;
    struct coroutine *self;
};

static void enters_another(void *opaque)
{
    struct outer *outer = opaque;
    outer->self = coroutine_self();
    struct coroutine *inner = coroutine_new(three_steps, &outer->trail);
    for (int i = 0; i < 3; i++) {
        coroutine_enter(inner);
        assert_ptr_equal(coroutine_self(), outer->self);
        leave_mark(&outer->trail, (char)('1' + i));
        if (i == 1) {
            coroutine_yield(); /* to the loop, while inner is suspended */
        }
    }
}

static void test_nested_coroutines(void **state)
{
    kit_of(state);
    struct outer outer = {.self = NULL};
    struct coroutine *co = coroutine_new(enters_another, &outer);
    coroutine_enter(co);
    assert_ptr_equal(outer.self, co);
    assert_string_equal(outer.trail.text, "a1b2");
    coroutine_enter(co);
    assert_string_equal(outer.trail.text, "a1b2c3");
}

/* What the ABI says functions preserve, and the stack's contents, survive switches. */
static void computes(void *opaque)
{
    unsigned seed = (unsigned)(uintptr_t)opaque, local[50];
    uint64_t a = seed, b = seed * 3, c = seed * 5, d = seed * 7, e = seed * 11, f = seed * 13;
    double x = seed, y = x / 3;
    for (unsigned i = 0; i < 50; i++) {
        local[i] = seed + i;
    }
    for (int i = 0; i < 20; i++) {
        coroutine_yield();
        a += b, b ^= c, c += d, d ^= e, e += f, f ^= a, x += y;
    }
    uint64_t a2 = seed, b2 = seed * 3, c2 = seed * 5, d2 = seed * 7, e2 = seed * 11, f2 = seed * 13;
    double x2 = seed, y2 = x2 / 3;
    for (int i = 0; i < 20; i++) {
        a2 += b2, b2 ^= c2, c2 += d2, d2 ^= e2, e2 += f2, f2 ^= a2, x2 += y2;
    }
    assert_true(a == a2 && b == b2 && c == c2 && d == d2 && e == e2 && f == f2 && x == x2);
    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(local[i], seed + i);
    }
}

static void test_registers_and_stacks_survive(void **state)
{
    kit_of(state);
    struct coroutine *cos[40];
    for (int i = 0; i < 40; i++) {
        cos[i] = coroutine_new(computes, (void *)(uintptr_t)(i * 7919 + 1));
    }
    for (int step = 0; step <= 20; step++) {
        for (int i = 0; i < 40; i++) {
            coroutine_enter(cos[i]);
        }
    }
}

static void check_alignment(void *opaque)
{
    _Alignas(16) volatile char aligned[16] = {0};
    *(bool *)opaque = ((uintptr_t)aligned & 15) == 0;
    char text[32];
    snprintf(text, sizeof(text), "%.3f", 1.5 + aligned[0]); /* SSE with aligned spills */
    assert_string_equal(text, "1.500");
}

static void test_stack_is_aligned(void **state)
{
    kit_of(state);
    for (int i = 0; i < 40; i++) {
        bool ok = false;
        coroutine_enter(coroutine_new(check_alignment, &ok));
        assert_true(ok);
    }
}

/* ---- stacks --------------------------------------------------------------------------------- */

static int recurse(int depth)
{
    volatile char block[1024];
    memset((char *)block, depth, sizeof(block));
    int sum = depth > 0 ? recurse(depth - 1) : 0;
    return sum + block[depth % 1024];
}

static void recurses(void *opaque)
{
    *(int *)opaque = recurse(*(int *)opaque);
}

static void test_stack_has_its_size(void **state)
{
    kit_of(state);
    int depth = COROUTINE_STACK_SIZE / 1024 * 3 / 4;
    coroutine_enter(coroutine_new(recurses, &depth));
    assert_int_not_equal(depth, 0);
}

/* An overflow ends the process instead of writing over a neighbour. */
static void test_stack_has_a_guard(void **state)
{
    kit_of(state);
    pid_t pid = fork();
    if (pid == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        close(STDOUT_FILENO);
        close(STDERR_FILENO);
        int depth = 4 * COROUTINE_STACK_SIZE / 1024 * 2;
        coroutine_enter(coroutine_new(recurses, &depth));
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void yields(void *opaque)
{
    coroutine_yield();
}

/* Stacks are used again, and not kept without bound. */
static void test_pool_is_bounded(void **state)
{
    kit_of(state);
    enum { N = 700 };
    static struct coroutine *cos[N];
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < N; i++) {
            cos[i] = coroutine_new(yields, NULL);
            coroutine_enter(cos[i]);
        }
        for (int i = 0; i < N; i++) {
            coroutine_enter(cos[i]);
        }
        assert_in_range(coroutine_pool_local_count(), 1, 128);
        assert_in_range(coroutine_pool_shared_count(), 1, 512);
    }
    struct coroutine *co = coroutine_new(yields, NULL);
    coroutine_enter(co);
    coroutine_enter(co);
    assert_ptr_equal(coroutine_new(yields, NULL), co);
    coroutine_enter(co);
    coroutine_enter(co);
}

static void *ends_with_stacks(void *opaque)
{
    struct kit_thread t = {.loop = opaque};
    aio_loop_bind(t.loop);
    struct coroutine *cos[10];
    for (int i = 0; i < 10; i++) {
        coroutine_enter(cos[i] = coroutine_new(yields, NULL));
    }
    for (int i = 0; i < 10; i++) {
        coroutine_enter(cos[i]);
    }
    aio_loop_unbind(t.loop);
    return NULL;
}

/* What a thread kept goes to the others when it ends. */
static void test_thread_leaves_its_stacks(void **state)
{
    struct kit *kit = kit_of(state);
    /* Empty the shared part. */
    enum { N = 1000 };
    static struct coroutine *cos[N];
    int n = 0;
    while (coroutine_pool_shared_count() + coroutine_pool_local_count() > 0) {
        assert_true(n < N);
        cos[n++] = coroutine_pool_get();
    }
    struct aio_loop *loop = kit_loop_new(kit->engine);
    pthread_t thread;
    pthread_create(&thread, NULL, ends_with_stacks, loop);
    pthread_join(thread, NULL);
    aio_loop_free(loop);
    assert_int_equal(coroutine_pool_shared_count(), 10);
    while (n > 0) {
        coroutine_pool_put(cos[--n]);
    }
}

/* ---- waking --------------------------------------------------------------------------------- */

static void yield_and_count(void *opaque)
{
    coroutine_yield();
    ++*(int *)opaque;
}

static void wakes_itself(void *opaque)
{
    co_wake(coroutine_self()); /* before the yield it is meant for */
    yield_and_count(opaque);
}

static void test_wake_before_yield(void **state)
{
    struct kit *kit = kit_of(state);
    int count = 0;
    coroutine_enter(coroutine_new(wakes_itself, &count));
    assert_int_equal(count, 0);
    assert_true(aio_loop_poll(kit->loop, true));
    assert_int_equal(count, 1);
}

struct polling_co {
    struct aio_loop *loop;
    int count;
};

/* The wake meets the coroutine in a nested round, while it is not suspended. */
static void polls_before_yield(void *opaque)
{
    struct polling_co *p = opaque;
    co_wake(coroutine_self());
    kit_poll_all(p->loop);
    p->count++;
    coroutine_yield();
    p->count++;
}

static void test_wake_is_kept_over_nested_round(void **state)
{
    struct kit *kit = kit_of(state);
    struct polling_co p = {.loop = kit->loop};
    coroutine_enter(coroutine_new(polls_before_yield, &p));
    assert_int_equal(p.count, 1);
    kit_poll_until(kit->loop, &p.count, 2);
    kit_poll_all(kit->loop);
}

struct waking {
    struct aio_loop *loop;
    _Atomic(struct coroutine *) co; /* to be woken */
    int woken;                      /* loop */
    int rounds;
    atomic_bool stop;
};

static void waits_often(void *opaque)
{
    struct waking *w = opaque;
    while (w->woken < w->rounds) {
        atomic_store(&w->co, coroutine_self());
        if (w->woken % 7 == 0) {
            sched_yield(); /* the wake mostly comes before the yield */
        }
        coroutine_yield();
        w->woken++;
    }
    atomic_store(&w->stop, true);
}

static void *wakes_often(void *opaque)
{
    struct waking *w = opaque;
    unsigned idle = 0;
    while (!atomic_load(&w->stop)) {
        struct coroutine *co = atomic_exchange(&w->co, NULL);
        if (co) {
            co_wake(co);
        } else if (++idle % 64 == 0) {
            sched_yield();
        }
    }
    return NULL;
}

/* Two threads compete to wake a coroutine that waits, or is about to. None is lost. */
static void test_wakes_race_with_yields(void **state)
{
    struct kit *kit = kit_of(state);
    struct waking w = {.loop = kit->loop, .rounds = 5000};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        pthread_create(&threads[i], NULL, wakes_often, &w);
    }
    coroutine_enter(coroutine_new(waits_often, &w));
    kit_poll_until(kit->loop, &w.woken, w.rounds);
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
}

static void sleeps(void *opaque)
{
    int64_t *slept = opaque;
    int64_t start = kit_now();
    co_sleep(AIO_CLOCK_RT, 5 * NS_PER_MS);
    *slept = kit_now() - start;
    co_sleep(AIO_CLOCK_RT, 0);
    co_sleep(AIO_CLOCK_RT, -1);
}

static void test_sleep(void **state)
{
    struct kit *kit = kit_of(state);
    int64_t slept = 0;
    kit_run_co(kit->loop, sleeps, &slept);
    assert_true(slept >= 5 * NS_PER_MS);
}

struct remote {
    struct aio_loop *loop;
    int count;
    bool ok;
};

static void remote_co(void *opaque)
{
    struct remote *r = opaque;
    r->ok &= coroutine_loop(coroutine_self()) == r->loop && aio_loop_current() == r->loop;
    co_sleep(AIO_CLOCK_RT, 1000);
    r->count++;
}

static void read_count(void *opaque)
{
    struct remote *r = opaque;
    r->loop = r->count >= 1000 ? NULL : r->loop;
}

/* A vCPU thread starts coroutines in a loop. */
static void test_call_co(void **state)
{
    struct kit *kit = kit_of(state);
    struct kit_thread other;
    kit_thread_start(&other, kit->engine);
    struct remote r = {.loop = other.loop, .ok = true};
    for (int i = 0; i < 1000; i++) {
        aio_call_co(other.loop, remote_co, &r);
    }
    while (r.loop) {
        aio_call_wait(other.loop, read_count, &r);
    }
    kit_thread_stop(&other);
    assert_true(r.ok);
    assert_int_equal(r.count, 1000);
}

/* ---- long work ------------------------------------------------------------------------------ */

#define WORKERS 20
#define MIB     1048576

struct work {
    unsigned pieces[WORKERS]; /* done, of 40 */
    unsigned total, next, ended;
    unsigned others; /* what else the loop did */
    struct aio_bh *bh;
};

static void work_long(void *opaque)
{
    struct work *work = opaque;
    unsigned self = work->next++;
    for (int i = 0; i < 40; i++) {
        co_share(MIB);
        work->pieces[self]++;
        work->total++;
    }
    work->ended++;
}

static void do_other_work(void *opaque)
{
    struct work *work = opaque;
    work->others++;
    bh_schedule(work->bh);
}

/* However many work long: in each step of the loop they get their share and no more, in turns, and the
 * rest of its work comes in between. */
static void test_share(void **state)
{
    struct kit *kit = kit_of(state);
    struct work work = {.total = 0};
    work.bh = bh_new(kit->loop, do_other_work, &work);
    bh_schedule(work.bh);
    for (int i = 0; i < WORKERS; i++) {
        coroutine_enter(coroutine_new(work_long, &work));
    }
    assert_in_range(work.total, 1, 16);
    for (unsigned before; work.ended < WORKERS;) {
        before = work.total;
        aio_loop_poll(kit->loop, false);
        assert_in_range(work.total - before, 1, 2 * 16); /* two steps */
        /* The first one was alone for a share, which the others never make up for. */
        for (int i = 1; i < WORKERS && work.ended == 0; i++) {
            assert_in_range(work.pieces[0] - work.pieces[i], 15, 17);
        }
    }
    assert_in_range(work.others, WORKERS * 40 / 16, WORKERS * 40);
    bh_delete(work.bh);
    kit_poll_all(kit->loop);
}

/* A piece that is longer than the share is done all the same; who comes from time to time waits for
 * nobody. */
static void share_alone(void *opaque)
{
    co_share(UINT64_MAX);
    ++*(int *)opaque;
    co_share(1);
    ++*(int *)opaque;
}

static void test_share_alone(void **state)
{
    struct kit *kit = kit_of(state);
    int steps = 0;
    coroutine_enter(coroutine_new(share_alone, &steps));
    assert_int_equal(steps, 1);
    kit_poll_all(kit->loop);
    assert_int_equal(steps, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH_ENGINES(test_enter_and_yield),
        BOTH_ENGINES(test_nested_coroutines),
        BOTH_ENGINES(test_registers_and_stacks_survive),
        BOTH_ENGINES(test_stack_is_aligned),
        BOTH_ENGINES(test_stack_has_its_size),
        BOTH_ENGINES(test_stack_has_a_guard),
        BOTH_ENGINES(test_pool_is_bounded),
        BOTH_ENGINES(test_thread_leaves_its_stacks),
        BOTH_ENGINES(test_wake_before_yield),
        BOTH_ENGINES(test_wake_is_kept_over_nested_round),
        BOTH_ENGINES(test_wakes_race_with_yields),
        BOTH_ENGINES(test_sleep),
        BOTH_ENGINES(test_call_co),
        BOTH_ENGINES(test_share),
        BOTH_ENGINES(test_share_alone),
    };
    return KIT_MAIN("coroutine", tests);
}
