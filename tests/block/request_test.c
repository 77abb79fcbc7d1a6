/* SPDX-License-Identifier: MIT */
/*
 * What drivers are asked for, on the fault driver: errors, flushes, FUA, zeroes, discards, ranges,
 * writes to the same block, and the asynchronous form.
 */
#include <errno.h>
#include <string.h>

#include "base/range.h"
#include "block/bounce.h"
#include "fault.h"
#include "kit.h"

static struct block_backend *be;

static int setup(void **state)
{
    kit_setup(state);
    fault_reset();
    be = kit_drive("driver=fault,size=4M,align=512,discard=unmap,if=none");
    return 0;
}

static struct block_backend *reopen(const char *options)
{
    kit_close();
    be = kit_drive("driver=fault,size=4M,if=none,%s", options);
    return be;
}

/* ---- errors ---------------------------------------------------------------------------------- */

static void errors_are_reported(void **state)
{
    char buffer[2048] = "x";

    fault.error[FAULT_READ] = -EIO;
    assert_int_equal(kit_read(be, 0, buffer, 512), -EIO);
    assert_int_equal(kit_read(be, 3, buffer, 700), -EIO);  /* through the bounce buffer */
    assert_int_equal(kit_write(be, 3, buffer, 700), -EIO); /* the blocks at its ends */
    assert_int_equal(fault.count[FAULT_WRITE], 0);
    fault.error[FAULT_READ] = 0;

    fault.error[FAULT_WRITE] = -ENOSPC;
    assert_int_equal(kit_write(be, 0, buffer, 512), -ENOSPC);
    assert_int_equal(kit_write(be, 3, buffer, 700), -ENOSPC);
    assert_int_equal(backend_error_action(be, false, -ENOSPC), BLOCK_ERROR_STOP);
    fault.error[FAULT_WRITE] = 0;

    fault.error[FAULT_ZEROES] = -ENOSPC;
    assert_int_equal(kit_zero(be, 0, 1024, 0), -ENOSPC);
    fault.error[FAULT_DISCARD] = -EIO;
    assert_int_equal(kit_discard(be, 0, 1024), -EIO);
    /* And it goes on. */
    assert_int_equal(kit_write(be, 0, buffer, 512), 0);
    assert_int_equal(kit_read(be, 0, buffer, 512), 0);
}

static void a_piece_fails(void **state)
{
    static char buffer[64 * 1024];

    kit_close();
    fault.limits.max_transfer = 8192;
    reopen("align=512");
    fault.error[FAULT_WRITE] = -EIO;
    fault.error_at[FAULT_WRITE] = 3;
    assert_int_equal(kit_write(be, 0, buffer, sizeof(buffer)), -EIO);
    assert_int_equal(fault.count[FAULT_WRITE], 3); /* none after it */
}

static void ranges_are_checked(void **state)
{
    char buffer[1024] = "";
    static const struct {
        uint64_t offset, size;
    } cases[] = {
        {4 * MiB, 512},          {4 * MiB - 512, 1024}, {4 * MiB - 1, 2},
        {UINT64_MAX - 511, 512}, {UINT64_MAX, 1},       {INT64_MAX, 512},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(kit_read(be, cases[i].offset, buffer, cases[i].size), -EIO);
        assert_int_equal(kit_write(be, cases[i].offset, buffer, cases[i].size), -EIO);
        assert_int_equal(kit_zero(be, cases[i].offset, cases[i].size, 0), -EIO);
        assert_int_equal(kit_discard(be, cases[i].offset, cases[i].size), -EIO);
    }
    assert_int_equal(kit_zero(be, 512, UINT64_MAX - 511, 0), -EIO);
    assert_int_equal(kit_discard(be, 512, UINT64_MAX - 511), -EIO);
    for (int op = 0; op < FAULT_OPS; op++) {
        assert_int_equal(fault.count[op], 0);
    }
    assert_int_equal(kit_read(be, 4 * MiB, buffer, 0), 0); /* nothing, at the end */
    assert_int_equal(kit_write(be, 4 * MiB - 512, buffer, 512), 0);
}

static void read_only(void **state)
{
    char buffer[512] = "";

    reopen("align=512,readonly=on");
    assert_true(backend_is_readonly(be));
    assert_int_equal(kit_write(be, 0, buffer, 512), -EROFS);
    assert_int_equal(kit_zero(be, 0, 512, 0), -EROFS);
    assert_int_equal(kit_discard(be, 0, 512), -EROFS);
    assert_int_equal(kit_read(be, 0, buffer, 512), 0);
    assert_int_equal(kit_flush(be), 0);

    /* The node can be written, the device attached for reading only. */
    kit_close();
    kit_blockdev("driver=fault,node-name=n,size=1M");
    be = backend_attach("n", "disk", false, false, NULL);
    assert_int_equal(kit_write(be, 0, buffer, 512), -EROFS);
    assert_int_equal(fault.count[FAULT_WRITE], 0);
    backend_detach(be);
}

/* ---- flush ----------------------------------------------------------------------------------- */

static void flush_only_after_writes(void **state)
{
    char buffer[512] = "";

    assert_int_equal(kit_flush(be), 0);
    assert_int_equal(fault.count[FAULT_FLUSH], 0);
    kit_read(be, 0, buffer, 512);
    kit_flush(be);
    assert_int_equal(fault.count[FAULT_FLUSH], 0);
    kit_write(be, 0, buffer, 512);
    kit_flush(be);
    kit_flush(be);
    assert_int_equal(fault.count[FAULT_FLUSH], 1);
    kit_zero(be, 0, 512, 0);
    kit_flush(be);
    assert_int_equal(fault.count[FAULT_FLUSH], 2);
    kit_discard(be, 0, 512);
    kit_flush(be);
    assert_int_equal(fault.count[FAULT_FLUSH], 3);

    /* A write that failed may have written something; a flush that failed has to be repeated. */
    fault.error[FAULT_WRITE] = -EIO;
    kit_write(be, 0, buffer, 512);
    fault.error[FAULT_FLUSH] = -EIO;
    assert_int_equal(kit_flush(be), -EIO);
    assert_int_equal(kit_flush(be), -EIO);
    assert_int_equal(fault.count[FAULT_FLUSH], 5);
    fault.error[FAULT_FLUSH] = 0;
    assert_int_equal(kit_flush(be), 0);
    assert_int_equal(kit_flush(be), 0);
    assert_int_equal(fault.count[FAULT_FLUSH], 6);
}

struct counted {
    int done, ret;
};

static void count_done(void *opaque, int ret)
{
    struct counted *counted = opaque;

    counted->done++;
    if (ret < 0) {
        counted->ret = ret;
    }
}

static void wait_done(struct counted *counted, int count)
{
    while (counted->done < count) {
        aio_loop_poll(aio_loop_current(), true);
    }
}

static void flushes_coalesce(void **state)
{
    struct counted counted = {0};
    char buffer[512] = "";

    kit_write(be, 0, buffer, 512);
    fault.delay_ns = 5 * NS_PER_MS;
    for (int i = 0; i < 10; i++) {
        backend_aio_flush(be, 0, count_done, &counted);
    }
    assert_int_equal(counted.done, 0);
    wait_done(&counted, 10);
    assert_int_equal(fault.count[FAULT_FLUSH], 1);
    assert_int_equal(counted.ret, 0);

    /* If the first fails, those that waited for it ask again. */
    kit_write(be, 0, buffer, 512);
    fault.error[FAULT_FLUSH] = -EIO;
    fault.error_at[FAULT_FLUSH] = 2;
    counted.done = 0;
    for (int i = 0; i < 10; i++) {
        backend_aio_flush(be, 0, count_done, &counted);
    }
    wait_done(&counted, 10);
    assert_int_equal(counted.ret, -EIO);
    assert_int_equal(fault.count[FAULT_FLUSH], 3);
    assert_int_equal(fault.most_running, 1);
}

static void no_flush(void **state)
{
    char buffer[512] = "";

    reopen("align=512,cache=unsafe");
    kit_write(be, 0, buffer, 512);
    assert_int_equal(kit_flush(be), 0);
    assert_int_equal(fault.count[FAULT_FLUSH], 0);
}

/* The fault driver does not know FUA: a flush follows. */
static void write_through(void **state)
{
    char buffer[512] = "";

    assert_true(backend_write_cache(be));
    kit_write(be, 0, buffer, 512);
    assert_int_equal(fault.count[FAULT_FLUSH], 0);
    assert_int_equal(kit_write_flags(be, 0, buffer, 512, BLOCK_REQ_FUA), 0);
    assert_int_equal(fault.count[FAULT_FLUSH], 1);
    backend_set_write_cache(be, false);
    kit_write(be, 0, buffer, 512);
    assert_int_equal(fault.count[FAULT_FLUSH], 2);
    assert_int_equal(fault.last_flags & BLOCK_REQ_FUA, 0);
    kit_zero(be, 0, 512, 0);
    assert_int_equal(fault.count[FAULT_FLUSH], 3);
    kit_write(be, 100, buffer, 10);
    assert_int_equal(fault.count[FAULT_FLUSH], 4);
    kit_read(be, 0, buffer, 512);
    assert_int_equal(fault.count[FAULT_FLUSH], 4);
    fault.error[FAULT_FLUSH] = -EIO;
    assert_int_equal(kit_write(be, 0, buffer, 512), -EIO);

    fault.error[FAULT_FLUSH] = 0;
    reopen("align=512,cache=writethrough");
    assert_false(backend_write_cache(be));
}

/* ---- zeroes and discards --------------------------------------------------------------------- */

static void zeroes_by_the_driver(void **state)
{
    char buffer[1024];

    memset(fault.data, 0xff, 8192);
    assert_int_equal(kit_zero(be, 100, 5000, BLOCK_REQ_MAY_UNMAP), 0);
    assert_int_equal(fault.count[FAULT_ZEROES], 1);
    assert_int_equal(fault.count[FAULT_WRITE], 2); /* the blocks at the ends */
    assert_int_equal(kit_read(be, 0, buffer, 1024), 0);
    assert_int_equal((uint8_t)buffer[99], 0xff);
    assert_int_equal(buffer[100], 0);
    assert_int_equal(fault.data[5099], 0);
    assert_int_equal(fault.data[5100], 0xff);

    /* Within one block. */
    memset(fault.data, 0xff, 8192);
    assert_int_equal(kit_zero(be, 600, 10, 0), 0);
    assert_int_equal(fault.count[FAULT_ZEROES], 1);
    assert_int_equal(fault.data[599], 0xff);
    assert_int_equal(fault.data[600] | fault.data[609], 0);
    assert_int_equal(fault.data[610], 0xff);

    /* may-unmap needs discard=unmap. */
    kit_zero(be, 0, 4096, BLOCK_REQ_MAY_UNMAP);
    assert_true(fault.last_flags & BLOCK_REQ_MAY_UNMAP);
    reopen("align=512");
    kit_zero(be, 0, 4096, BLOCK_REQ_MAY_UNMAP);
    assert_false(fault.last_flags & BLOCK_REQ_MAY_UNMAP);
}

static void zeroes_by_buffers(void **state)
{
    fault.can_zero = false;
    memset(fault.data, 0xff, 4 * MiB);
    assert_int_equal(kit_zero(be, 100, 3 * MiB, 0), 0);
    assert_int_equal(fault.data[99], 0xff);
    for (size_t i = 100; i < 3 * MiB + 100; i++) {
        assert_int_equal(fault.data[i], 0);
    }
    assert_int_equal(fault.data[3 * MiB + 100], 0xff);
    assert_true(fault.last_length <= MiB);
    assert_int_equal(kit_zero(be, 0, 4096, BLOCK_REQ_NO_FALLBACK), -ENOTSUP);
    fault.can_zero = true;
    assert_int_equal(kit_zero(be, 1, 4096, BLOCK_REQ_NO_FALLBACK), -ENOTSUP);
    assert_int_equal(kit_zero(be, 0, 4096, BLOCK_REQ_NO_FALLBACK), 0);

    fault.can_zero = false;
    fault.error[FAULT_WRITE] = -ENOSPC;
    assert_int_equal(kit_zero(be, 0, 4096, 0), -ENOSPC);
}

static void discards_are_trimmed(void **state)
{
    kit_close();
    fault.limits.discard_alignment = 4096;
    fault.limits.max_discard = 8192;
    reopen("align=512,discard=unmap");
    assert_int_equal(kit_discard(be, 512, 512), 0);
    assert_int_equal(kit_discard(be, 512, 7168), 0); /* 512..7680: no whole 4096 */
    assert_int_equal(fault.count[FAULT_DISCARD], 0);
    assert_int_equal(kit_discard(be, 512, 8192), 0);
    assert_int_equal(fault.count[FAULT_DISCARD], 1);
    assert_int_equal(fault.last_offset, 4096);
    assert_int_equal(fault.last_length, 4096);
    assert_int_equal(kit_discard(be, 0, 20480), 0);
    assert_int_equal(fault.count[FAULT_DISCARD], 4);
    fault.error[FAULT_DISCARD] = -ENOTSUP; /* only a hint */
    assert_int_equal(kit_discard(be, 0, 20480), 0);

    reopen("align=512");
    fault.count[FAULT_DISCARD] = 0;
    assert_int_equal(kit_discard(be, 0, 20480), 0);
    assert_int_equal(fault.count[FAULT_DISCARD], 0);
}

/* ---- writes to one block --------------------------------------------------------------------- */

struct write {
    uint64_t offset, size;
    uint8_t value;
    bool zero;
    _Atomic(int) *left;
};

static void co_write(void *opaque)
{
    struct write *w = opaque;
    uint8_t buffer[4096];
    struct iovec vec = {.iov_base = buffer, .iov_len = w->size};
    struct block_iov iov = {.iov = &vec, .niov = 1, .size = w->size};

    memset(buffer, w->value, sizeof(buffer));
    CHECK((w->zero ? backend_co_write_zeroes(be, w->offset, w->size, 0)
                   : backend_co_pwritev(be, w->offset, &iov, 0, 0)) == 0);
    atomic_fetch_sub(w->left, 1);
}

/* One writes a part of a block, the other all of it, at the same time: what the first does not
 * write is what the second wrote, in whatever order they come. */
static void partial_and_whole_block(void **state)
{
    struct kit_thread *second = kit_thread_start(AIO_LOOP_AUTO);

    reopen("align=4096");
    fault.delay_ns = 300000;
    for (int i = 0; i < 200; i++) {
        _Atomic(int) left = 2;
        bool zero = i % 4 == 3;
        struct write part = {1024, 512, 0xaa, false, &left};
        struct write whole = {0, 4096, zero ? 0 : 0xbb, zero, &left};
        struct aio_loop *loops[2] = {aio_loop_current(), kit_thread_loop(second)};

        memset(fault.data, 0xcc, 4096);
        aio_call_co(loops[i & 1], co_write, i & 2 ? &part : &whole);
        aio_call_co(loops[i >> 2 & 1], co_write, i & 2 ? &whole : &part);
        while (atomic_load(&left)) {
            aio_loop_poll(aio_loop_current(), false);
        }
        assert_int_equal(fault.data[0], whole.value);
        assert_int_equal(fault.data[1023], whole.value);
        assert_int_equal(fault.data[1536], whole.value);
        assert_int_equal(fault.data[4095], whole.value);
        assert_true(fault.data[1024] == 0xaa || fault.data[1024] == whole.value);
    }
    kit_thread_stop(second);
}

/* ---- asynchronous ---------------------------------------------------------------------------- */

static void done_comes_later(void **state)
{
    static char buffer[512];
    struct iovec vec = {.iov_base = buffer, .iov_len = 512};
    struct counted counted = {0};

    reopen("align=1");
    {
        struct block_iov iov = {.iov = &vec, .niov = 1, .size = 512};
        backend_aio_preadv(be, 0, &iov, 0, 1, count_done, &counted);
        backend_aio_pwritev(be, 0, &iov, 0, 2, count_done, &counted);
    }
    backend_aio_discard(be, 0, 512, count_done, &counted);
    backend_aio_write_zeroes(be, 0, 512, 0, count_done, &counted);
    backend_aio_flush(be, 3, count_done, &counted);
    assert_int_equal(counted.done, 0);
    wait_done(&counted, 5);
    assert_int_equal(counted.ret, 0);
    struct block_iov iov = {.iov = &vec, .niov = 1, .size = 512};
    backend_aio_preadv(be, 4 * MiB, &iov, 0, 1, count_done, &counted);
    assert_int_equal(counted.done, 5);
    wait_done(&counted, 6);
    assert_int_equal(counted.ret, -EIO);
}

/* ---- probed images --------------------------------------------------------------------------- */

/* The guest changes its buffer after the write was found harmless: what was looked at is what is
 * written. */
static void probed_write_is_copied(void **state)
{
    static uint8_t buffer[1024];
    struct iovec vec = {.iov_base = buffer, .iov_len = sizeof(buffer)};
    struct block_iov iov = {.iov = &vec, .niov = 1, .size = sizeof(buffer)};
    struct counted counted = {0};

    kit_close();
    be = kit_drive("file.driver=fault,file.size=1M,if=none");
    assert_true(backend_root(be)->flags & BLOCK_OPEN_PROBED);
    fault.delay_ns = 20 * NS_PER_MS;
    memset(buffer, 'x', sizeof(buffer));
    backend_aio_pwritev(be, 0, &iov, 0, 0, count_done, &counted);
    memcpy(buffer, "QFI\xfb\0\0\0\3", 8);
    memcpy(buffer + 512, "y", 1);
    wait_done(&counted, 1);
    assert_int_equal(counted.ret, 0);
    assert_int_equal(fault.data[0], 'x');
    assert_int_equal(fault.data[512], 'y'); /* the test sees the race */
    fault.delay_ns = 0;
    assert_int_equal(kit_write(be, 0, buffer, 1024), -EPERM);
    assert_int_equal(fault.data[0], 'x');
}

/* O_DIRECT with blocks larger than what the image ends with. */
static void length_must_be_whole_blocks(void **state)
{
    kit_close();
    kit_blockdev_fails("driver=fault,node-name=n,size=1049088,align=4096",
                       "'' has 1049088 bytes, not a multiple of the 4096 that cache.direct=on "
                       "needs to write it; use cache.direct=off (cache=writeback) or make the "
                       "image longer");
    char buffer[1024];
    be = kit_drive("driver=fault,size=1049088,align=4096,readonly=on,if=none");
    assert_int_equal(kit_read(be, 1048576, buffer, 512), 0);
    assert_int_equal(kit_read(be, 1048576, buffer, 513), -EIO);
}

/* Many requests with buffers that need copying: the first get large bounce buffers, later ones
 * small ones, and all get their data. */
static void bounce_buffers_have_a_budget(void **state)
{
    enum { COUNT = 2 * BOUNCE_BUDGET / BOUNCE_SIZE };
    static char *buffers[COUNT];
    static struct iovec vecs[COUNT];
    struct counted counted = {0};

    kit_close();
    fault.limits.memory_alignment = 512;
    reopen("align=512");
    memset(fault.data, 0x42, 4 * MiB);
    fault.delay_ns = 5 * NS_PER_MS;
    for (int i = 0; i < COUNT; i++) {
        buffers[i] = malloc(BOUNCE_SIZE + 512);
        CHECK(buffers[i]);
        char *odd = buffers[i] + ((uintptr_t)buffers[i] & 1 ? 0 : 1);
        vecs[i] = (struct iovec){.iov_base = odd, .iov_len = BOUNCE_SIZE};
        struct block_iov iov = {.iov = &vecs[i], .niov = 1, .size = BOUNCE_SIZE};
        backend_aio_preadv(be, i % 8 * 512, &iov, 0, 0, count_done, &counted);
        assert_int_equal(fault.last_length, i < COUNT / 2 ? BOUNCE_SIZE : BOUNCE_SMALL);
    }
    wait_done(&counted, COUNT);
    assert_int_equal(counted.ret, 0);
    for (int i = 0; i < COUNT; i++) {
        char *data = vecs[i].iov_base;
        assert_int_equal(data[0], 0x42);
        assert_int_equal(data[BOUNCE_SIZE - 1], 0x42);
        free(buffers[i]);
    }
    fault.delay_ns = 0;
    static char odd[BOUNCE_SIZE + 1];
    assert_int_equal(kit_read(be, 0, odd + 1 - ((uintptr_t)odd & 1), BOUNCE_SIZE), 0);
    assert_int_equal(fault.last_length, BOUNCE_SIZE); /* all was given back */
}

/* Buffers for which one waits: users in three loops, each with several coroutines. */
#define LINE_USERS  12
#define LINE_ROUNDS 60

static struct bounce_line line;
static _Atomic(unsigned) line_held, line_most, line_ended;

static void co_use_line(void *opaque)
{
    for (int i = 0; i < LINE_ROUNDS; i++) {
        char *buffer = co_bounce_line_alloc(&line, 4096);
        CHECK(buffer);
        unsigned held = atomic_fetch_add(&line_held, 1) + 1, most = atomic_load(&line_most);
        while (most < held && !atomic_compare_exchange_weak(&line_most, &most, held)) {
        }
        co_wake(coroutine_self());
        coroutine_yield();
        atomic_fetch_sub(&line_held, 1);
        co_bounce_line_free(&line, buffer, 4096);
    }
    atomic_fetch_add(&line_ended, 1);
    aio_loop_wake(opaque); /* the main one */
}

/* `rest` of the budget is left: how many have buffers at the same time. */
static unsigned use_line(size_t rest)
{
    struct kit_thread *one = kit_thread_start(AIO_LOOP_AUTO);
    struct kit_thread *two = kit_thread_start(AIO_LOOP_EPOLL);
    struct aio_loop *main_loop = aio_loop_current();
    struct aio_loop *loops[] = {main_loop, kit_thread_loop(one), kit_thread_loop(two)};
    void *others = bounce_alloc(4096, BOUNCE_BUDGET - rest);

    CHECK(others);
    bounce_line_init(&line);
    atomic_store(&line_most, 0);
    atomic_store(&line_ended, 0);
    for (unsigned i = 0; i < LINE_USERS; i++) {
        aio_call_co(loops[i % 3], co_use_line, main_loop);
    }
    while (atomic_load(&line_ended) < LINE_USERS) {
        aio_loop_poll(main_loop, true);
    }
    kit_thread_stop(one);
    kit_thread_stop(two);
    bounce_line_destroy(&line);
    bounce_free(others, BOUNCE_BUDGET - rest);
    assert_int_equal(bounce_in_use(), 0);
    return line_most;
}

static void large_buffers_are_waited_for(void **state)
{
    assert_int_equal(use_line(0), 1);
    /* As each loop looks and then takes, there may be some more. */
    assert_in_range(use_line(3 * 4096), 1, 3 + 2);
    assert_in_range(use_line(BOUNCE_BUDGET / 2), 2, LINE_USERS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(errors_are_reported, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(a_piece_fails, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(ranges_are_checked, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(read_only, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(flush_only_after_writes, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(flushes_coalesce, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(no_flush, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(write_through, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(zeroes_by_the_driver, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(zeroes_by_buffers, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(discards_are_trimmed, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(partial_and_whole_block, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(done_comes_later, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(bounce_buffers_have_a_budget, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(large_buffers_are_waited_for, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(probed_write_is_copied, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(length_must_be_whole_blocks, setup, kit_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
