/* SPDX-License-Identifier: MIT */
/* Rounds of the loop, calls, bottom halves, file descriptors. */
#include "kit.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

/* ---- rounds --------------------------------------------------------------------------------- */

static void test_empty_round(void **state)
{
    struct kit *kit = kit_of(state);
    assert_false(aio_loop_poll(kit->loop, false));
    assert_ptr_equal(aio_loop_current(), kit->loop);
    assert_string_equal(aio_loop_name(kit->loop), "test");
    assert_int_equal(aio_loop_engine(kit->loop), kit->engine);
}

static void test_wake_before_round(void **state)
{
    struct kit *kit = kit_of(state);
    aio_loop_wake(kit->loop);
    aio_loop_wake(kit->loop);
    assert_false(aio_loop_poll(kit->loop, true)); /* returns */
}

struct waker {
    struct aio_loop *loop;
    atomic_bool woke;
};

static void *wake_later(void *opaque)
{
    struct waker *waker = opaque;
    kit_sleep_ms(20);
    atomic_store(&waker->woke, true);
    aio_loop_wake(waker->loop);
    return NULL;
}

static void test_wake_from_thread(void **state)
{
    struct kit *kit = kit_of(state);
    struct waker waker = {.loop = kit->loop};
    pthread_t thread;
    int rounds = 0;
    pthread_create(&thread, NULL, wake_later, &waker);
    while (!atomic_load(&waker.woke)) {
        assert_false(aio_loop_poll(kit->loop, true));
        rounds++;
    }
    assert_true(rounds < 5); /* it did wait */
    pthread_join(thread, NULL);
}

struct other_thread {
    struct aio_loop *loop;
    int count;
};

static void *count_in_loop(void *opaque)
{
    struct other_thread *other = opaque;
    KIT_CHECK(!aio_loop_current());
    aio_loop_bind(other->loop);
    kit_poll_until(other->loop, &other->count, 1);
    aio_loop_unbind(other->loop);
    return NULL;
}

/* A loop is made, given work and handlers, bound in one thread, then in another. */
static void test_bind_in_other_threads(void **state)
{
    struct kit *kit = kit_of(state);
    struct other_thread other = {.loop = kit_loop_new(kit->engine)};
    struct event_notifier n;
    assert_true(event_notifier_init(&n, NULL));
    aio_set_notifier(other.loop, &n, kit_count, NULL, &other.count);

    for (int i = 0; i < 3; i++) {
        pthread_t thread;
        other.count = 0;
        event_notifier_set(&n);
        pthread_create(&thread, NULL, count_in_loop, &other);
        pthread_join(thread, NULL);
        assert_int_equal(other.count, 1);
    }
    aio_set_notifier(other.loop, &n, NULL, NULL, NULL);
    event_notifier_cleanup(&n);
    aio_loop_free(other.loop);
}

static void test_free_unbound(void **state)
{
    struct kit *kit = kit_of(state);
    struct aio_loop *loop = kit_loop_new(kit->engine);
    int count = 0;
    aio_set_fd(loop, STDIN_FILENO, kit_count, NULL, &count);
    aio_set_fd(loop, STDIN_FILENO, NULL, NULL, NULL);
    aio_call(loop, kit_count, &count);
    aio_loop_free(loop);
    assert_int_equal(count, 1); /* a call is not lost, though nobody polled */
}

/* ---- calls ---------------------------------------------------------------------------------- */

struct order {
    int next;
    bool ok;
};

struct ordered_call {
    struct order *order;
    int number;
};

static void check_order(void *opaque)
{
    struct ordered_call *call = opaque;
    call->order->ok &= call->order->next == call->number;
    call->order->next++;
}

struct order_thread {
    struct aio_loop *loop;
    struct order order;
    struct ordered_call calls[1000];
};

static void *order_thread_run(void *opaque)
{
    struct order_thread *t = opaque;
    for (int i = 0; i < 1000; i++) {
        aio_call(t->loop, check_order, &t->calls[i]);
    }
    return NULL;
}

static void test_calls_keep_order(void **state)
{
    struct kit *kit = kit_of(state);
    static struct order_thread threads[4];
    pthread_t ids[4];
    for (int i = 0; i < 4; i++) {
        threads[i].loop = kit->loop;
        threads[i].order = (struct order){.ok = true};
        for (int k = 0; k < 1000; k++) {
            threads[i].calls[k] = (struct ordered_call){&threads[i].order, k};
        }
        if (i > 0) {
            pthread_create(&ids[i], NULL, order_thread_run, &threads[i]);
        }
    }
    order_thread_run(&threads[0]); /* the loop's own thread */
    for (int i = 0; i < 4; i++) {
        kit_poll_until(kit->loop, &threads[i].order.next, 1000);
        assert_true(threads[i].order.ok);
        if (i > 0) {
            pthread_join(ids[i], NULL);
        }
    }
}

struct foreign_call {
    struct aio_loop *loop;
    struct ordered_call call;
};

static void *call_from_outside(void *opaque)
{
    struct foreign_call *foreign = opaque;

    aio_call(foreign->loop, check_order, &foreign->call);
    return NULL;
}

/* What another thread asked for first is done first. */
static void test_calls_of_two_threads(void **state)
{
    struct kit *kit = kit_of(state);
    struct order order = {.ok = true};
    struct foreign_call foreign = {kit->loop, {&order, 1}};
    struct ordered_call own[] = {{&order, 0}, {&order, 2}};
    pthread_t id;

    aio_call(kit->loop, check_order, &own[0]);
    pthread_create(&id, NULL, call_from_outside, &foreign);
    pthread_join(id, NULL);
    aio_call(kit->loop, check_order, &own[1]);
    kit_poll_until(kit->loop, &order.next, 3);
    assert_true(order.ok);
}

static void record_loop(void *opaque)
{
    *(struct aio_loop **)opaque = aio_loop_current();
}

static void test_call_wait(void **state)
{
    struct kit *kit = kit_of(state);
    struct kit_thread other;
    struct aio_loop *seen = NULL;

    aio_call_wait(kit->loop, record_loop, &seen); /* in the loop itself: at once */
    assert_ptr_equal(seen, kit->loop);

    kit_thread_start(&other, kit->engine);
    for (int i = 0; i < 200; i++) {
        seen = NULL;
        aio_call_wait(other.loop, record_loop, &seen);
        assert_ptr_equal(seen, other.loop);
    }
    kit_thread_stop(&other);
}

struct again {
    struct aio_loop *loop;
    int left, count;
};

static void call_again(void *opaque)
{
    struct again *again = opaque;
    again->count++;
    if (again->left-- > 0) {
        aio_call(again->loop, call_again, again);
    }
}

/* A call that calls itself does not keep the loop from its descriptors. */
static void test_call_again_does_not_starve(void **state)
{
    struct kit *kit = kit_of(state);
    struct event_notifier n;
    int count = 0;
    assert_true(event_notifier_init(&n, NULL));
    aio_set_notifier(kit->loop, &n, kit_count, NULL, &count);
    struct again again = {.loop = kit->loop, .left = 1000000};
    aio_call(kit->loop, call_again, &again);
    event_notifier_set(&n);
    kit_poll_until(kit->loop, &count, 1);
    assert_true(again.count < 100);
    again.left = 0;
    kit_poll_all(kit->loop);
    aio_set_notifier(kit->loop, &n, NULL, NULL, NULL);
    event_notifier_cleanup(&n);
}

struct nested {
    struct aio_loop *loop;
    int inner, outer;
};

static void nest(void *opaque)
{
    struct nested *nested = opaque;
    aio_call(nested->loop, kit_count, &nested->inner);
    kit_poll_until(nested->loop, &nested->inner, 2);
    nested->outer++;
}

/* A nested round runs what the outer one had already taken. */
static void test_nested_round(void **state)
{
    struct kit *kit = kit_of(state);
    struct nested nested = {.loop = kit->loop};
    aio_call(kit->loop, nest, &nested);
    aio_call(kit->loop, kit_count, &nested.inner);
    assert_true(aio_loop_poll(kit->loop, true));
    assert_int_equal(nested.outer, 1);
    assert_int_equal(nested.inner, 2);
    assert_false(aio_loop_poll(kit->loop, false));
}

/* ---- bottom halves -------------------------------------------------------------------------- */

static void test_bh_coalesces(void **state)
{
    struct kit *kit = kit_of(state);
    int count = 0;
    struct aio_bh *bh = bh_new(kit->loop, kit_count, &count);
    bh_schedule(bh);
    bh_schedule(bh);
    assert_int_equal(count, 0);
    assert_true(aio_loop_poll(kit->loop, true));
    assert_int_equal(count, 1);
    assert_false(aio_loop_poll(kit->loop, false));
    bh_schedule(bh);
    assert_true(aio_loop_poll(kit->loop, false));
    assert_int_equal(count, 2);
    bh_delete(bh);
}

static void test_bhs_interleave(void **state)
{
    struct kit *kit = kit_of(state);
    int as = 0, bs = 0, calls = 0;
    struct aio_bh *a = bh_new(kit->loop, kit_count, &as);
    struct aio_bh *b = bh_new(kit->loop, kit_count, &bs);
    for (int i = 1; i <= 3; i++) {
        bh_schedule(a);
        bh_schedule(b);
        bh_schedule(a);
        bh_schedule(b);
        aio_call(kit->loop, kit_count, &calls);
        assert_true(aio_loop_poll(kit->loop, true));
        assert_false(aio_loop_poll(kit->loop, false)); /* nothing is left over */
        assert_int_equal(as, i);
        assert_int_equal(bs, i);
        assert_int_equal(calls, i);
    }
    bh_delete(a);
    bh_delete(b);
    bh_delete(NULL);
}

static void test_bh_cancel_and_delete(void **state)
{
    struct kit *kit = kit_of(state);
    int count = 0;
    struct aio_bh *bh = bh_new(kit->loop, kit_count, &count);
    bh_schedule(bh);
    bh_cancel(bh);
    kit_poll_all(kit->loop);
    assert_int_equal(count, 0);
    bh_schedule(bh);
    bh_cancel(bh);
    bh_schedule(bh);
    kit_poll_all(kit->loop);
    assert_int_equal(count, 1);
    bh_schedule(bh);
    bh_delete(bh);
    kit_poll_all(kit->loop);
    assert_int_equal(count, 1);
}

static struct aio_bh *self_bh;

static void delete_self(void *opaque)
{
    ++*(int *)opaque;
    bh_schedule(self_bh); /* to no effect */
    bh_delete(self_bh);
}

static void test_bh_deletes_itself(void **state)
{
    struct kit *kit = kit_of(state);
    int count = 0;
    self_bh = bh_new(kit->loop, delete_self, &count);
    bh_schedule(self_bh);
    kit_poll_all(kit->loop);
    assert_int_equal(count, 1);
}

/* ---- file descriptors ----------------------------------------------------------------------- */

struct reader {
    struct aio_loop *loop;
    int fd;
    int calls, bytes, ends;
    bool is_lazy; /* does not read */
};

static void read_byte(void *opaque)
{
    struct reader *r = opaque;
    char c;
    r->calls++;
    if (!r->is_lazy) {
        ssize_t n = read(r->fd, &c, 1);
        r->bytes += n > 0;
        r->ends += n == 0;
    }
}

static void test_fd_is_level_triggered(void **state)
{
    struct kit *kit = kit_of(state);
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    struct reader r = {.fd = fds[0]};
    aio_set_fd(kit->loop, fds[0], read_byte, NULL, &r);
    assert_false(aio_loop_poll(kit->loop, false));
    assert_int_equal(write(fds[1], "abc", 3), 3);
    kit_poll_until(kit->loop, &r.bytes, 3); /* a byte per call */
    assert_false(aio_loop_poll(kit->loop, false));

    /* Not read: called again and again. */
    r.is_lazy = true;
    r.calls = 0;
    assert_int_equal(write(fds[1], "d", 1), 1);
    kit_poll_until(kit->loop, &r.calls, 10);
    r.is_lazy = false;
    kit_poll_until(kit->loop, &r.bytes, 4);

    /* The end of the file. */
    close(fds[1]);
    kit_poll_until(kit->loop, &r.ends, 1);
    aio_set_fd(kit->loop, fds[0], NULL, NULL, NULL);
    assert_false(aio_loop_poll(kit->loop, false));
    close(fds[0]);
}

static void test_fd_write_and_change(void **state)
{
    struct kit *kit = kit_of(state);
    int fds[2], writable = 0;
    struct reader r = {.calls = 0};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    r.fd = fds[0];

    aio_set_fd(kit->loop, fds[0], NULL, kit_count, &writable);
    kit_poll_until(kit->loop, &writable, 2);
    aio_set_fd(kit->loop, fds[0], read_byte, NULL, &r);
    for (int i = 0; i < 20; i++) {
        aio_loop_poll(kit->loop, false);
    }
    writable = 0;
    assert_int_equal(r.calls, 0);
    assert_int_equal(write(fds[1], "x", 1), 1);
    kit_poll_until(kit->loop, &r.bytes, 1);
    assert_int_equal(writable, 0);
    /* Back and forth without a round in between. */
    for (int i = 0; i < 100; i++) {
        aio_set_fd(kit->loop, fds[0], NULL, kit_count, &writable);
        aio_set_fd(kit->loop, fds[0], read_byte, NULL, &r);
    }
    assert_int_equal(write(fds[1], "y", 1), 1);
    kit_poll_until(kit->loop, &r.bytes, 2);
    assert_int_equal(writable, 0);
    aio_set_fd(kit->loop, fds[0], NULL, kit_count, &writable);
    kit_poll_until(kit->loop, &writable, 1);

    /* A hangup comes to whoever is there. */
    close(fds[1]);
    writable = 0;
    kit_poll_until(kit->loop, &writable, 1);
    aio_set_fd(kit->loop, fds[0], NULL, NULL, NULL);
    close(fds[0]);
}

/* After removal the file is closed by close(), not by some later round: the peer sees it. */
static void test_fd_removal_releases_file(void **state)
{
    struct kit *kit = kit_of(state);
    int fds[2], count = 0;
    char c;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    aio_set_fd(kit->loop, fds[0], kit_count, NULL, &count);
    aio_loop_poll(kit->loop, false);
    aio_set_fd(kit->loop, fds[0], NULL, NULL, NULL);
    close(fds[0]);
    assert_int_equal(read(fds[1], &c, 1), 0);
    close(fds[1]);
    assert_int_equal(count, 0);
}

struct remover {
    struct aio_loop *loop;
    int fds[2];
    int calls;
};

static void remove_both(void *opaque)
{
    struct remover *r = opaque;
    r->calls++;
    for (int i = 0; i < 2; i++) {
        aio_set_fd(r->loop, r->fds[i], NULL, NULL, NULL);
    }
}

/* Two are ready in one round; whichever comes first removes both. */
static void test_fd_removes_itself_and_others(void **state)
{
    struct kit *kit = kit_of(state);
    for (int i = 0; i < 50; i++) {
        struct remover r = {.loop = kit->loop};
        for (int k = 0; k < 2; k++) {
            r.fds[k] = eventfd(1, EFD_NONBLOCK);
            aio_set_fd(kit->loop, r.fds[k], remove_both, NULL, &r);
        }
        kit_poll_until(kit->loop, &r.calls, 1);
        kit_poll_all(kit->loop);
        assert_int_equal(r.calls, 1);
        close(r.fds[0]);
        close(r.fds[1]);
    }
}

/* The number of a closed descriptor comes back with another file. */
static void test_fd_number_is_reused(void **state)
{
    struct kit *kit = kit_of(state);
    for (int i = 0; i < 100; i++) {
        int fds[2];
        assert_int_equal(pipe(fds), 0);
        struct reader r = {.fd = fds[0]};
        aio_set_fd(kit->loop, fds[0], read_byte, NULL, &r);
        if (i % 3) {
            aio_loop_poll(kit->loop, false);
        }
        if (i % 2) {
            assert_int_equal(write(fds[1], "a", 1), 1);
            kit_poll_until(kit->loop, &r.bytes, 1);
        }
        aio_set_fd(kit->loop, fds[0], NULL, NULL, NULL);
        close(fds[0]);
        close(fds[1]);
    }
}

/* What epoll refuses: a console redirected from a file or from /dev/null. */
static void test_fd_of_file_is_always_ready(void **state)
{
    struct kit *kit = kit_of(state);
    int null = open("/dev/null", O_RDONLY);
    int file = open("/proc/self/exe", O_RDONLY);
    struct reader a = {.fd = null}, b = {.fd = file};
    aio_set_fd(kit->loop, null, read_byte, NULL, &a);
    aio_set_fd(kit->loop, file, read_byte, NULL, &b);
    kit_poll_until(kit->loop, &a.ends, 3);
    kit_poll_until(kit->loop, &b.bytes, 3);
    aio_set_fd(kit->loop, null, NULL, NULL, NULL);
    aio_set_fd(kit->loop, file, NULL, NULL, NULL);
    close(null);
    close(file);
    aio_loop_wake(kit->loop);
    assert_false(aio_loop_poll(kit->loop, true));
}

static void read_signal(void *opaque)
{
    struct reader *r = opaque;
    struct signalfd_siginfo info;
    r->bytes += read(r->fd, &info, sizeof(info)) == sizeof(info) && info.ssi_signo == SIGUSR1;
}

/* How ferry hears of SIGTERM; signalfd has its own way to wake who polls. */
static void test_fd_of_signals(void **state)
{
    struct kit *kit = kit_of(state);
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, &old);
    struct reader r = {.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC)};
    aio_set_fd(kit->loop, r.fd, read_signal, NULL, &r);
    for (int i = 1; i <= 3; i++) {
        aio_loop_poll(kit->loop, false);
        assert_int_equal(kill(getpid(), SIGUSR1), 0);
        kit_poll_until(kit->loop, &r.bytes, i);
    }
    aio_set_fd(kit->loop, r.fd, NULL, NULL, NULL);
    close(r.fd);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void read_and_nest(void *opaque)
{
    struct reader *r = opaque;
    char c;
    if (read(r->fd, &c, 1) == 1) {
        r->bytes++;
        kit_poll_until(r->loop, &r->bytes, 3); /* the rest comes in nested rounds */
    }
}

static void test_fd_handler_nests_rounds(void **state)
{
    struct kit *kit = kit_of(state);
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    struct reader r = {.loop = kit->loop, .fd = fds[0]};
    assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    aio_set_fd(kit->loop, fds[0], read_and_nest, NULL, &r);
    assert_int_equal(write(fds[1], "abc", 3), 3);
    kit_poll_until(kit->loop, &r.bytes, 3);
    aio_set_fd(kit->loop, fds[0], NULL, NULL, NULL);
    close(fds[0]);
    close(fds[1]);
}

/* More descriptors than the engines take in one go. */
static void test_many_fds(void **state)
{
    struct kit *kit = kit_of(state);
    enum { N = 500 };
    static struct event_notifier n[N];
    int count = 0;
    for (int i = 0; i < N; i++) {
        assert_true(event_notifier_init(&n[i], NULL));
        aio_set_notifier(kit->loop, &n[i], kit_count, NULL, &count);
    }
    for (int round = 1; round <= 3; round++) {
        for (int i = 0; i < N; i++) {
            event_notifier_set(&n[i]);
        }
        kit_poll_until(kit->loop, &count, round * N);
        kit_poll_all(kit->loop);
        assert_int_equal(count, round * N);
    }
    for (int i = 0; i < N; i++) {
        aio_set_notifier(kit->loop, &n[i], NULL, NULL, NULL);
        event_notifier_cleanup(&n[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH_ENGINES(test_empty_round),
        BOTH_ENGINES(test_wake_before_round),
        BOTH_ENGINES(test_wake_from_thread),
        BOTH_ENGINES(test_bind_in_other_threads),
        BOTH_ENGINES(test_free_unbound),
        BOTH_ENGINES(test_calls_keep_order),
        BOTH_ENGINES(test_calls_of_two_threads),
        BOTH_ENGINES(test_call_wait),
        BOTH_ENGINES(test_call_again_does_not_starve),
        BOTH_ENGINES(test_nested_round),
        BOTH_ENGINES(test_bh_coalesces),
        BOTH_ENGINES(test_bhs_interleave),
        BOTH_ENGINES(test_bh_cancel_and_delete),
        BOTH_ENGINES(test_bh_deletes_itself),
        BOTH_ENGINES(test_fd_is_level_triggered),
        BOTH_ENGINES(test_fd_write_and_change),
        BOTH_ENGINES(test_fd_removal_releases_file),
        BOTH_ENGINES(test_fd_removes_itself_and_others),
        BOTH_ENGINES(test_fd_number_is_reused),
        BOTH_ENGINES(test_fd_of_file_is_always_ready),
        BOTH_ENGINES(test_fd_of_signals),
        BOTH_ENGINES(test_fd_handler_nests_rounds),
        BOTH_ENGINES(test_many_fds),
    };
    return KIT_MAIN("loop", tests);
}
