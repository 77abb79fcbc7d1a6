/* SPDX-License-Identifier: MIT */
/*
 * Throttling: rates, bursts, groups and their fairness across drives and loops, drains, limits that
 * change, and what is refused. Times have a lower bound; the upper ones leave room for a busy host.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/throttle_group.h"
#include "fault.h"
#include "kit.h"

#define MS INT64_C(1000000)

static int64_t now(void)
{
    return clock_get_ns(AIO_CLOCK_RT);
}

/* ---- load ------------------------------------------------------------------------------------- */

/* Requests of a kind, `depth` at once, until `count` are done or it is told to stop. */
struct load {
    struct block_backend *be;
    bool write;
    uint64_t size;
    unsigned depth, count;
    _Atomic(bool) stop;
    _Atomic(unsigned) started, done, running;
};

static char data[MiB];

static void co_load(void *opaque)
{
    struct load *load = opaque;
    struct iovec vec = {.iov_base = data, .iov_len = load->size};
    struct block_iov iov = {.iov = &vec, .niov = 1, .size = load->size};

    while (!atomic_load(&load->stop) && atomic_fetch_add(&load->started, 1) < load->count) {
        int ret = load->write ? backend_co_pwritev(load->be, 0, &iov, 0, 0)
                              : backend_co_preadv(load->be, 0, &iov, 0, 0);
        CHECK(ret == 0);
        atomic_fetch_add(&load->done, 1);
    }
    atomic_fetch_sub(&load->running, 1);
}

static void start(struct load *load, struct aio_loop *loop)
{
    atomic_store(&load->running, load->depth);
    for (unsigned i = 0; i < load->depth; i++) {
        aio_call_co(loop, co_load, load);
    }
}

static void wait_for(struct load *load)
{
    while (atomic_load(&load->running)) {
        aio_loop_poll(aio_loop_current(), false);
        usleep(100);
    }
}

static void wait_until(int64_t deadline)
{
    while (now() < deadline) {
        aio_loop_poll(aio_loop_current(), false);
        usleep(100);
    }
}

/* How long it takes. */
static int64_t run(struct load *load)
{
    int64_t begin = now();

    start(load, aio_loop_current());
    wait_for(load);
    return now() - begin;
}

static struct block_backend *drive(const char *limits)
{
    return kit_drive("if=none,driver=null-co,size=1G,%s", limits);
}

#define assert_between(ns, low_ms, high_ms)                                                        \
    do {                                                                                           \
        if ((ns) < (low_ms)*MS || (ns) > (high_ms)*MS) {                                           \
            fail_msg("took %lld us, not %d to %d ms", (long long)((ns) / 1000), low_ms, high_ms);  \
        }                                                                                          \
    } while (0)

/* ---- rates ------------------------------------------------------------------------------------ */

static void operations(void **state)
{
    /* 20 at once, the rest at 200 per second. */
    struct load load = {drive("throttling.iops-total=200"), false, 512, 8, 60};

    assert_between(run(&load), 190, 5000);
}

static void bytes(void **state)
{
    /* 100 KiB at once; a request may go as long as the bucket is not over the brim. */
    struct load load = {drive("bps_wr=1024000"), true, 50 * KiB, 1, 7};
    struct load reads = {load.be, false, MiB, 4, 40};

    assert_between(run(&load), 195, 5000); /* 6 * 50 - 100 KiB */
    assert_between(run(&reads), 0, 5000);
}

static void size_of_an_operation(void **state)
{
    /* Each counts as 8: 10 at once, then 100 per second. */
    struct load load = {drive("throttling.iops-total=100,iops_size=4k"), true, 32 * KiB, 1, 5};

    assert_between(run(&load), 215, 5000); /* 4 * 8 - 10 */
}

static void zeroes_and_discards_count(void **state)
{
    struct block_backend *be = drive("iops_wr=50,discard=unmap");
    int64_t begin = now();

    for (int i = 0; i < 8; i++) {
        assert_int_equal(kit_zero(be, 0, 4096, 0), 0);
    }
    /* null-co has no discard, but it passes the filter */
    for (int i = 0; i < 6; i++) {
        assert_int_equal(kit_discard(be, 0, 4096), 0);
    }
    assert_between(now() - begin, 150, 5000);
}

static void burst(void **state)
{
    /* A second at 1000 per second, then 20. */
    struct load load = {drive("iops=20,iops_max=1000"), false, 512, 4, 1000};

    assert_between(run(&load), 0, 5000);
    load = (struct load){load.be, false, 512, 4, 4};
    assert_between(run(&load), 40, 5000);
}

static void long_burst(void **state)
{
    /* Up to 3 s at 200 per second: 600 in all, 20 at once. */
    struct load load = {drive("iops=10,iops_max=200,throttling.iops-total-max-length=3"), true, 512,
                        4, 80};

    assert_between(run(&load), 290, 5000);
}

/* ---- zeroes that are written from buffers ---------------------------------------------------- */

/* A group, and a driver that cannot write zeroes. */
static struct throttle_group *no_zeroes(int id, uint64_t rate)
{
    struct throttle_group *group = throttle_group_new("g", NULL);
    struct throttle_config config;

    fault_reset();
    fault.can_zero = false;
    throttle_config_init(&config);
    config.limit[id].rate = rate;
    throttle_group_set(group, &config);
    return group;
}

static const char *const no_zeroes_graphs[] = {
    "driver=throttle,throttle-group=g,file.driver=fault,file.size=64M",
    "driver=raw,file.driver=throttle,file.throttle-group=g,file.file.driver=fault,"
    "file.file.size=64M",
};

/* One request, however many writes it takes; and one that nobody could do is none. */
static void written_zeroes_are_one_request(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(no_zeroes_graphs); i++) {
        struct throttle_group *group = no_zeroes(THROTTLE_IOPS_WRITE, 10); /* 1 at once */
        struct block_backend *be = kit_drive("if=none,%s", no_zeroes_graphs[i]);
        struct load writes = {be, true, 512, 1, 2};
        int64_t begin = now();

        for (int n = 0; n < 100; n++) {
            assert_int_equal(kit_zero(be, 0, 4096, BLOCK_REQ_NO_FALLBACK), -ENOTSUP);
        }
        assert_int_equal(fault.count[FAULT_WRITE], 0);
        assert_int_equal(kit_zero(be, 0, 64 * MiB, 0), 0);
        assert_true(fault.count[FAULT_WRITE] >= 64);
        run(&writes);
        assert_between(now() - begin, 100, 5000); /* 3 - 1 */
        kit_close();
        throttle_group_unref(group);
    }
}

/* detect-zeroes= tries in vain, then writes: the latter counts. */
static void detected_zeroes_count_once(void **state)
{
    memset(data, 0, sizeof(data));
    for (size_t i = 0; i < ARRAY_SIZE(no_zeroes_graphs); i++) {
        struct throttle_group *group = no_zeroes(THROTTLE_BPS_WRITE, 100 * KiB);
        struct block_backend *be = kit_drive("if=none,detect-zeroes=on,%s", no_zeroes_graphs[i]);
        int64_t begin = now();

        assert_int_equal(kit_write(be, 0, data, MiB), 0);
        assert_int_equal(fault.count[FAULT_WRITE], 1);
        assert_between(now() - begin, 0, 5000);
        kit_close();
        throttle_group_unref(group);
    }
}

static void co_zero_in_vain(void *opaque)
{
    struct load *load = opaque;

    CHECK(backend_co_write_zeroes(load->be, 0, load->size, BLOCK_REQ_NO_FALLBACK) == -ENOTSUP);
    atomic_store(&load->done, 1);
    atomic_fetch_sub(&load->running, 1);
}

/* Who waits behind a request that comes to nothing goes as soon as that is known. */
static void waiters_profit(void **state)
{
    struct throttle_group *group = no_zeroes(THROTTLE_BPS_WRITE, 100 * KiB);
    struct load zeroes = {kit_drive("if=none,%s", no_zeroes_graphs[0]), .size = MiB, .running = 1};
    struct load writes = {zeroes.be, true, 512, 1, 1};

    atomic_store(&fault.hold_zeroes, true);
    aio_call_co(aio_loop_current(), co_zero_in_vain, &zeroes);
    start(&writes, aio_loop_current());
    while (!atomic_load(&writes.started)) {
        aio_loop_poll(aio_loop_current(), false);
    }
    assert_int_equal(fault.count[FAULT_WRITE], 0);
    atomic_store(&fault.hold_zeroes, false);
    int64_t begin = now();
    wait_for(&writes);
    wait_for(&zeroes);
    assert_between(now() - begin, 0, 5000);
    kit_close();
    throttle_group_unref(group);
}

/* ---- drains ----------------------------------------------------------------------------------- */

static void drain_lets_go(void **state)
{
    struct load load = {drive("iops=1"), true, 512, 10, 10};

    start(&load, aio_loop_current());
    wait_until(now() + 20 * MS);
    assert_true(atomic_load(&load.done) <= 2);
    int64_t begin = now();
    backend_drain(load.be);
    assert_between(now() - begin, 0, 5000);
    assert_int_equal(atomic_load(&load.done), 10);
}

/* The filter is below the node that is drained, and its requests come from another loop. */
static void drain_from_above(void **state)
{
    struct throttle_group *group = throttle_group_new("g", NULL);
    struct throttle_config config;

    throttle_config_init(&config);
    config.limit[THROTTLE_BPS_TOTAL].rate = 512;
    throttle_group_set(group, &config);
    struct block_backend *be = kit_drive("if=none,driver=raw,file.driver=throttle,"
                                         "file.throttle-group=g,file.file.driver=null-co");
    struct kit_thread *thread = kit_thread_start(AIO_LOOP_AUTO);
    struct load load = {be, false, 4096, 6, 6};
    start(&load, kit_thread_loop(thread));
    wait_until(now() + 20 * MS);
    int64_t begin = now();
    block_node_drain_begin(backend_root(be));
    block_node_drain_end(backend_root(be));
    assert_between(now() - begin, 0, 5000);
    wait_for(&load);
    kit_thread_stop(thread);
    throttle_group_unref(group);
}

/* ---- groups ----------------------------------------------------------------------------------- */

/* Two drives, each from its loop, one with four times as many requests: each gets its half. */
static void fair(void **state)
{
    struct block_backend *a = drive("id=a,iops=400,group=g");
    struct block_backend *b = drive("id=b,iops=400,group=g");
    struct kit_thread *thread = kit_thread_start(AIO_LOOP_AUTO);
    struct load one = {a, false, 512, 16, UINT32_MAX / 2}, two = {b, false, 512, 4, UINT32_MAX / 2};

    int64_t begin = now();
    start(&one, aio_loop_current());
    start(&two, kit_thread_loop(thread));
    wait_until(now() + 600 * MS);
    unsigned done_one = atomic_load(&one.done), done_two = atomic_load(&two.done);
    atomic_store(&one.stop, true);
    atomic_store(&two.stop, true);
    wait_for(&one);
    wait_for(&two);
    kit_thread_stop(thread);
    /* 40 at once, which may all be of one, then 400 per second. */
    assert_true(4 * MIN(done_one, done_two) + 40 >= done_one + done_two);
    assert_true(done_one + done_two <= 40 + 400 * (now() - begin) / NS_PER_SEC + 25);
}

/* Reads and writes that share a limit take turns, too. */
static void fair_directions(void **state)
{
    struct block_backend *be = drive("iops=400");
    struct load reads = {be, false, 512, 8, UINT32_MAX / 2}, writes = {be, true, 512, 1, 1 << 30};

    start(&reads, aio_loop_current());
    start(&writes, aio_loop_current());
    wait_until(now() + 500 * MS);
    unsigned done_reads = atomic_load(&reads.done), done_writes = atomic_load(&writes.done);
    atomic_store(&reads.stop, true);
    atomic_store(&writes.stop, true);
    wait_for(&reads);
    wait_for(&writes);
    assert_true(4 * done_writes + 40 >= done_reads);
}

static void separate_directions(void **state)
{
    struct block_backend *be = drive("iops_rd=10");
    struct load reads = {be, false, 512, 4, 8}, writes = {be, true, 512, 4, 1000};

    start(&reads, aio_loop_current());
    int64_t took = run(&writes);
    assert_true(atomic_load(&reads.done) < 8 || took > 500 * MS);
    wait_for(&reads);
}

/* Who waits already feels new limits. */
static void limits_change(void **state)
{
    struct load load = {drive("iops=1,group=g"), false, 512, 100, 100};
    struct throttle_config config;

    start(&load, aio_loop_current());
    wait_until(now() + 20 * MS);
    throttle_group_get(throttle_group_find("g"), &config);
    assert_int_equal(config.limit[THROTTLE_IOPS_TOTAL].rate, 1);
    config.limit[THROTTLE_IOPS_TOTAL].rate = 500;
    int64_t begin = now();
    throttle_group_set(throttle_group_find("g"), &config);
    wait_for(&load);
    assert_between(now() - begin, 80, 5000);

    throttle_config_init(&config);
    throttle_group_set(throttle_group_find("g"), &config);
    load = (struct load){load.be, false, 512, 4, 1000};
    assert_between(run(&load), 0, 5000);
}

static void group_lives_with_its_users(void **state)
{
    drive("id=a,iops=400");
    assert_non_null(throttle_group_find("a"));
    kit_close();
    assert_null(throttle_group_find("a"));
}

/* Many loops, members that come and go: for TSan. */
static void storm(void **state)
{
    struct block_backend *be[3] = {drive("iops=20000,bps=200M,group=g,id=a"),
                                   drive("iops=20000,bps=200M,group=g,id=b"),
                                   drive("iops=20000,bps=200M,group=g,id=c")};
    struct kit_thread *thread[2] = {kit_thread_start(AIO_LOOP_AUTO),
                                    kit_thread_start(AIO_LOOP_EPOLL)};
    struct load load[6];

    for (int i = 0; i < 6; i++) {
        load[i] = (struct load){be[i % 3], i & 1, 512u << i, 4, UINT32_MAX / 2};
        start(&load[i], i < 2 ? aio_loop_current() : kit_thread_loop(thread[i & 1]));
    }
    for (int i = 0; i < 20; i++) {
        struct throttle_config config;
        wait_until(now() + 10 * MS);
        throttle_group_get(throttle_group_find("g"), &config);
        config.limit[THROTTLE_IOPS_TOTAL].rate = i % 5 ? 1000u * i : 0;
        throttle_group_set(throttle_group_find("g"), &config);
        backend_drain(be[i % 3]);
    }
    for (int i = 0; i < 6; i++) {
        atomic_store(&load[i].stop, true);
    }
    for (int i = 0; i < 6; i++) {
        wait_for(&load[i]);
        assert_true(atomic_load(&load[i].done) > 0);
    }
    kit_thread_stop(thread[0]);
    kit_thread_stop(thread[1]);
}

/* ---- refusals --------------------------------------------------------------------------------- */

static void refusals(void **state)
{
#define D "if=none,driver=null-co,"
    kit_drive_fails(D "iops=10,iops_rd=5",
                    "bps/iops/max total values and read/write values cannot be used at the same "
                    "time: leave out iops-total or iops-read and iops-write");
    kit_drive_fails(D "iops_size=512", "iops size requires an iops value to be set; give "
                                       "iops-total");
    kit_drive_fails(D "bps=10000000000000000",
                    "bps-total: bps/iops/max values must be within [0, 1000000000000000]");
    kit_drive_fails(D "iops=5,throttling.iops-total-max-length=0",
                    "iops-total-max-length=0: the burst length cannot be 0");
    kit_drive_fails(D "iops=5,throttling.iops-total-max-length=4",
                    "iops-total-max-length: burst length set without burst rate; give "
                    "iops-total-max");
    kit_drive_fails(D "bps_rd_max=5", "bps-read-max: bps_max/iops_max require corresponding "
                                      "bps/iops values; give bps-read");
    kit_drive_fails(
        D "iops=10,iops_max=4",
        "iops-total-max=4: bps_max/iops_max cannot be lower than bps/iops, which is 10");
    kit_drive_fails(D "iops=10,iops_max=1000000000000,throttling.iops-total-max-length=100000",
                    "iops-total-max-length=100000: burst length too high for this burst rate");
    kit_drive_fails(D "iops=10,throttling.iops-total=5",
                    "'throttling.iops-total' and its alias 'iops' can't be used at the same time");
    kit_drive_fails(D "throttling.iops-toal=5",
                    "throttling: unknown option 'iops-toal'; did you mean 'iops-total'?");
    kit_blockdev_fails("throttle,node-name=n,file.driver=null-co",
                       "Please specify a throttle group: throttle-group=ID of -object "
                       "throttle-group,id=ID");
    kit_blockdev_fails("throttle,node-name=n,throttle-group=g,file.driver=null-co",
                       "Throttle group 'g' does not exist; make it with -object "
                       "throttle-group,id=g");
}

static void from_options(void **state)
{
    struct options *opts =
        options_parse("{\"id\": \"g\", \"limits\": {\"iops-total\": 7, \"bps-read-max\": 90, "
                      "\"bps-read\": 9}, \"x-iops-size\": 512}",
                      NULL, NULL);
    struct throttle_group *group = throttle_group_new_from(opts, NULL);
    struct throttle_config config;
    struct error *err = NULL;

    assert_non_null(group);
    assert_true(options_check_used(opts, "object", NULL));
    assert_null(throttle_group_new_from(opts, &err));
    kit_assert_error(err, "A throttle group 'g' exists already");
    throttle_group_get(group, &config);
    assert_int_equal(config.limit[THROTTLE_IOPS_TOTAL].rate, 7);
    assert_int_equal(config.limit[THROTTLE_BPS_READ].burst, 90);
    assert_int_equal(config.iops_size, 512);
    options_free(opts);
    throttle_group_unref(group);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(operations, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(bytes, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(size_of_an_operation, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(zeroes_and_discards_count, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(written_zeroes_are_one_request, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(detected_zeroes_count_once, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(waiters_profit, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(burst, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(long_burst, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(drain_lets_go, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(drain_from_above, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(fair, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(fair_directions, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(separate_directions, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(limits_change, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(group_lives_with_its_users, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(storm, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(refusals, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(from_options, kit_setup, kit_teardown),
    };
    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
