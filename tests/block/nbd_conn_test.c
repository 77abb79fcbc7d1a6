/* SPDX-License-Identifier: MIT */
/* The connection of the nbd driver goes from loop to loop while requests of several are pending. */
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/nbd_impl.h"
#include "kit.h"
#include "nbd_server.h"

#define SIZE   (8 * MiB)
#define BURST  16 /* requests; more than it takes to get the connection */
#define BURSTS 4  /* that may be pending */
#define ROUNDS 150
#define LONG   (128 * KiB)

static struct nbd_conn *conn;
static char image[SIZE]; /* what the server has */

/* Requests that a loop makes at once. */
struct burst {
    struct one {
        struct burst *burst;
        uint64_t offset;
    } ones[BURST];
    _Atomic(unsigned) pending;
    _Atomic(bool)
        is_submitted; /* the loop makes no more requests, which would take the connection */
};

static struct burst bursts[BURSTS];

static int setup(void **state)
{
    struct nbd_target target = {.path = xstrdup("sock"), .export = xstrdup("")};
    char *why;

    kit_setup(state);
    kit_make_file("image", SIZE);
    kit_read_file("image", 0, image, SIZE);
    nbdkit("--filter=delay file image rdelay=20ms");
    conn = nbd_conn_open(&target, 30000, -1, &why);
    assert_non_null(conn);
    nbd_target_free(&target);
    for (unsigned i = 0; i < BURSTS * BURST; i++) {
        struct burst *burst = &bursts[i / BURST];
        burst->ones[i % BURST] = (struct one){burst, i * LONG % SIZE};
    }
    return 0;
}

static int teardown(void **state)
{
    nbd_conn_close(conn);
    kit_teardown(state);
    nbd_server_stop();
    return 0;
}

/* A read of what the image has; every fourth writes that, and more than a socket takes at once. */
static void co_one(void *opaque)
{
    struct one *one = opaque;
    char *here = image + one->offset, back[4096] = "";
    struct nbd_request request = {
        .command = NBD_READ, .offset = one->offset, .buffer = back, .length = sizeof(back)};

    if (one->offset / LONG % 4 == 0) {
        request.command = NBD_WRITE;
        request.buffer = here;
        request.length = LONG;
    }
    CHECK(co_nbd_conn_request(conn, &request) == 0);
    CHECK(request.command == NBD_WRITE || !memcmp(back, here, sizeof(back)));
    atomic_fetch_sub(&one->burst->pending, 1);
}

static void submit(void *opaque)
{
    struct burst *burst = opaque;

    for (unsigned i = 0; i < BURST; i++) {
        coroutine_enter(coroutine_new(co_one, &burst->ones[i]));
    }
    atomic_store(&burst->is_submitted, true);
}

static _Atomic(bool) may_return;

/* The loop does nothing else, so the connection cannot move in, until shortly after may_return. */
static void submit_and_linger(void *opaque)
{
    submit(opaque);
    while (!atomic_load(&may_return)) {
        usleep(20);
    }
    usleep(1000);
}

static bool is_owned_by(void *opaque)
{
    struct nbd_impl *impl = conn->impl;

    pthread_mutex_lock(&impl->lock);
    bool owned = impl->owner_state == OWNER_IS && impl->owner == opaque;
    pthread_mutex_unlock(&impl->lock);
    return owned;
}

static bool is_between(void *opaque)
{
    struct nbd_impl *impl = conn->impl;

    pthread_mutex_lock(&impl->lock);
    bool between = impl->owner_state == OWNER_CHANGES && !impl->owner;
    pthread_mutex_unlock(&impl->lock);
    return between;
}

static bool is_done(void *opaque)
{
    return atomic_load(&((struct burst *)opaque)->pending) == 0;
}

static bool is_submitted(void *opaque)
{
    return atomic_load(&((struct burst *)opaque)->is_submitted);
}

static void wait_until(bool (*fn)(void *opaque), void *opaque)
{
    int64_t deadline = clock_get_ns(AIO_CLOCK_RT) + 20 * NS_PER_SEC;

    while (!fn(opaque)) {
        CHECK(clock_get_ns(AIO_CLOCK_RT) < deadline);
        aio_loop_poll(aio_loop_current(), false);
        usleep(20);
    }
}

/* Bursts of two loops in turn: each takes the connection from the loop of the one before, or from the
 * main loop, which takes it now and then, also when it is on its way. */
static void moves(void **state)
{
    struct kit_thread *threads[] = {kit_thread_start(AIO_LOOP_AUTO),
                                    kit_thread_start(AIO_LOOP_EPOLL)};
    unsigned with_pending = 0;

    for (unsigned i = 0; i < ROUNDS; i++) {
        struct burst *burst = &bursts[i % BURSTS];
        struct aio_loop *loop = kit_thread_loop(threads[i % 2]);

        wait_until(is_done, burst);
        atomic_store(&burst->pending, BURST);
        atomic_store(&burst->is_submitted, false);
        atomic_store(&may_return, false);
        aio_call(loop, i % 3 < 2 ? submit : submit_and_linger, burst);
        wait_until(is_submitted, burst);
        wait_until(i % 3 < 2 ? is_owned_by : is_between, loop);
        atomic_store(&may_return, true);
        if (i % 3 > 0) {
            nbd_conn_release_loop(conn);
            assert_true(is_owned_by(aio_loop_current()));
        }
        with_pending += !is_done(burst) && !is_done(&bursts[(i + BURSTS - 1) % BURSTS]);
    }
    assert_true(with_pending > ROUNDS / 10); /* of both loops */
    for (unsigned i = 0; i < BURSTS; i++) {
        wait_until(is_done, &bursts[i]);
    }
    nbd_conn_release_loop(conn);
    kit_thread_stop(threads[0]);
    kit_thread_stop(threads[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(moves, setup, teardown),
    };
    if (!nbd_server_has("nbdkit")) {
        puts("nbdkit is not installed (apt install nbdkit)");
        return 77;
    }
    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
