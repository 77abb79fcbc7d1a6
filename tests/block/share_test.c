/* SPDX-License-Identifier: MIT */
/*
 * Long requests that are work in memory alone: the loop's other work comes in between. A guest may ask
 * for gigabytes at once, with a few pages that it names again and again.
 */
#include <string.h>

#include "base/range.h"
#include "block/image.h"
#include "block/node.h"
#include "block/zeroes.h"
#include "kit.h"

#define PAGES  256
#define PAGE   MiB
#define LENGTH (PAGES * (uint64_t)PAGE)
#define STEPS  12 /* of the loop, at least: its share is 16 MiB of copying in each */

static char page[PAGE];

/* A call that makes itself again: once in a step of the loop. */
static unsigned steps;
static bool is_done;

static void count_steps(void *opaque)
{
    steps++;
    if (!is_done) {
        aio_call(aio_loop_current(), count_steps, NULL);
    }
}

static int result;

static void done(void *opaque, int ret)
{
    is_done = true;
    result = ret;
}

static void check_steps(void)
{
    steps = 0;
    aio_call(aio_loop_current(), count_steps, NULL);
    while (!is_done) {
        aio_loop_poll(aio_loop_current(), true);
    }
    unsigned until_done = steps;
    aio_loop_poll(aio_loop_current(), false); /* the last call */
    is_done = false;
    assert_int_equal(result, 0);
    if (until_done < STEPS) {
        fail_msg("%u steps", until_done);
    }
}

/* One request of LENGTH bytes, all in one page. */
static struct block_iov everything(void)
{
    static struct iovec vec[PAGES];

    for (unsigned i = 0; i < PAGES; i++) {
        vec[i] = (struct iovec){page, PAGE};
    }
    return (struct block_iov){.iov = vec, .niov = PAGES, .size = LENGTH};
}

static void long_read(struct block_backend *be, uint64_t offset)
{
    const struct block_iov iov = everything();

    memset(page, 1, sizeof(page));
    backend_aio_preadv(be, offset, &iov, 0, 0, done, NULL);
    check_steps();
    assert_true(block_bytes_are_zero(page, PAGE));
}

static void long_write(struct block_backend *be, uint64_t offset)
{
    const struct block_iov iov = everything();

    backend_aio_pwritev(be, offset, &iov, 0, 0, done, NULL);
    check_steps();
}

static void make_qcow2(const char *options)
{
    struct error *err = NULL;
    struct options *opts = options_parse(options, NULL, &err);

    assert_non_null(opts);
    assert_true(block_image_create("image.qcow2", "qcow2", opts, 0, &err));
    options_free(opts);
}

static void null_reads(void **state)
{
    long_read(kit_drive("if=none,driver=null-co,size=1G,read-zeroes=on"), 0);
}

static void empty_qcow2_reads(void **state)
{
    make_qcow2("size=1G");
    struct block_backend *be = kit_drive("if=none,file=image.qcow2,format=qcow2");
    long_read(be, 0);
    /* Zeroes that somebody has written. */
    assert_int_equal(kit_zero(be, 0, GiB, 0), 0);
    long_read(be, 0);
}

/* Looked at, each byte of them. */
static void zeroes_are_detected(void **state)
{
    memset(page, 0, sizeof(page));
    long_write(kit_drive("if=none,driver=null-co,size=1G,detect-zeroes=on"), 0);
}

/* By way of a buffer, on a driver that is done at once. */
static void bounced(void **state)
{
    struct block_backend *be = kit_drive("if=none,driver=blkdebug,align=4096,image.driver=null-co,"
                                         "image.size=1G,image.read-zeroes=on");

    long_read(be, 512);
    long_write(be, 512);
}

/* In pieces. */
static void cut(void **state)
{
    long_write(kit_drive("if=none,driver=blkdebug,max-transfer=65536,image.driver=null-co,"
                         "image.size=1G"),
               0);
}

/* Nothing but metadata, and in this case not even that, but a lot of places to look at. */
static void discard(void **state)
{
    make_qcow2("size=512M,cluster_size=512");
    struct block_backend *be = kit_drive("if=none,file=image.qcow2,format=qcow2,discard=unmap");
    backend_aio_discard(be, 0, 512 * MiB, done, NULL);
    check_steps();
    backend_aio_write_zeroes(be, 0, 512 * MiB, BLOCK_REQ_MAY_UNMAP, done, NULL);
    check_steps();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(null_reads, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(empty_qcow2_reads, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(zeroes_are_detected, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(bounced, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(cut, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(discard, kit_setup, kit_teardown),
    };
    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
