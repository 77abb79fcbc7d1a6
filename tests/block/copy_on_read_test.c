/* SPDX-License-Identifier: MIT */
/*
 * copy-on-read, above a format that is a part of this test: "cow", an image in memory with clusters
 * that are there or show the backing node. It counts, takes its time and fails when told.
 */
#include <errno.h>
#include <string.h>

#include "aio/coroutine.h"
#include "base/alloc.h"
#include "base/range.h"
#include "block/bounce.h"
#include "block/iov.h"
#include "kit.h"

#define CLUSTER (64 * KiB)
#define SIZE    (4 * MiB)

struct cow {
    uint8_t *data;
    bool allocated[SIZE / CLUSTER];
};

/* Of all cow nodes; the test sets them with no request in flight. */
static _Atomic(unsigned) writes, reads, zeroes;
static int write_error;
static bool is_slow, is_held; /* held: a read or write ends when it no longer is */

static bool cow_open(struct block_node *node, struct options *opts, struct error **errp)
{
    struct cow *cow = node->state;
    bool has_backing = options_has(opts, "backing") || options_has(opts, "backing.driver");

    cow->data = xcalloc(1, SIZE);
    return !has_backing || block_node_open_child(node, opts, "backing", BLOCK_CHILD_BACKING, errp);
}

static void cow_close(struct block_node *node)
{
    free(((struct cow *)node->state)->data);
}

static int64_t cow_length(struct block_node *node)
{
    return SIZE;
}

static void co_slow(void)
{
    if (is_slow) {
        co_sleep(AIO_CLOCK_RT, 300000);
    }
    while (is_held) {
        co_sleep(AIO_CLOCK_RT, 100000);
    }
}

static void cow_limits(struct block_node *node, struct block_limits *limits)
{
    limits->request_alignment = 512;
}

static int cow_co_preadv(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                         unsigned flags, uint64_t id)
{
    struct cow *cow = node->state;
    char *buffer = xmalloc(iov->size);
    int ret = 0;

    reads++;
    for (uint64_t done = 0, n; done < iov->size && ret == 0; done += n) {
        uint64_t at = offset + done;
        n = MIN(iov->size - done, CLUSTER - at % CLUSTER);
        if (cow->allocated[at / CLUSTER]) {
            memcpy(buffer + done, cow->data + at, n);
        } else if (node->backing) {
            struct iovec vec;
            struct block_iov part = block_iov_of(&vec, buffer + done, n);
            ret = block_co_preadv(node->backing, at, &part, 0, id);
        } else {
            memset(buffer + done, 0, n);
        }
    }
    co_slow();
    block_iov_write(iov, 0, buffer, iov->size);
    free(buffer);
    return ret;
}

/* Whole clusters, or such as are there. */
static int cow_co_pwritev(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                          unsigned flags, uint64_t id)
{
    struct cow *cow = node->state;

    writes++;
    co_slow();
    if (write_error) {
        return write_error;
    }
    for (uint64_t at = offset; at < offset + iov->size; at = align_down(at, CLUSTER) + CLUSTER) {
        uint64_t cluster = align_down(at, CLUSTER);
        if (!cow->allocated[at / CLUSTER] && node->backing) {
            struct iovec vec;
            struct block_iov part = block_iov_of(&vec, cow->data + cluster, CLUSTER);
            CHECK(block_co_preadv(node->backing, cluster, &part, 0, id) == 0);
        }
        cow->allocated[at / CLUSTER] = true;
    }
    block_iov_read(iov, 0, cow->data + offset, iov->size);
    return 0;
}

static int cow_co_write_zeroes(struct block_node *node, uint64_t offset, uint64_t length,
                               unsigned flags)
{
    struct cow *cow = node->state;

    if (offset % CLUSTER || length % CLUSTER) {
        return -ENOTSUP;
    }
    zeroes++;
    memset(cow->data + offset, 0, length);
    memset(cow->allocated + offset / CLUSTER, true, length / CLUSTER);
    return 0;
}

static int cow_co_block_status(struct block_node *node, uint64_t offset, uint64_t *length,
                               uint64_t *map)
{
    struct cow *cow = node->state;

    *length = MIN(*length, CLUSTER - offset % CLUSTER);
    if (cow->allocated[offset / CLUSTER]) {
        return BLOCK_STATUS_DATA | BLOCK_STATUS_ALLOCATED;
    }
    return node->backing ? 0 : BLOCK_STATUS_ZERO;
}

static const struct block_driver block_driver_cow = {
    .name = "cow",
    .state_size = sizeof(struct cow),
    .open = cow_open,
    .close = cow_close,
    .length = cow_length,
    .limits = cow_limits,
    .co_preadv = cow_co_preadv,
    .co_pwritev = cow_co_pwritev,
    .co_write_zeroes = cow_co_write_zeroes,
    .co_block_status = cow_co_block_status,
};

/* ---- what tests share ------------------------------------------------------------------------- */

static char buffer[SIZE];

static int setup(void **state)
{
    kit_setup(state);
    block_driver_set_test(&block_driver_cow);
    writes = reads = zeroes = 0;
    write_error = 0;
    is_slow = is_held = false;
    kit_make_file("image", SIZE);
    return 0;
}

static struct block_backend *top(const char *options)
{
    return kit_drive("if=none,driver=copy-on-read,file.driver=cow,file.node-name=top,"
                     "file.backing.driver=raw,file.backing.file.driver=file,"
                     "file.backing.file.filename=image%s",
                     options);
}

static struct cow *cow_of(const char *name)
{
    return block_node_find(name)->state;
}

static unsigned count_allocated(const char *name)
{
    unsigned count = 0;

    for (size_t i = 0; i < SIZE / CLUSTER; i++) {
        count += cow_of(name)->allocated[i];
    }
    return count;
}

static void assert_pattern(const char *data, uint64_t offset, uint64_t length)
{
    for (uint64_t i = 0; i < length; i++) {
        if ((uint8_t)data[i] != kit_pattern(offset + i)) {
            fail_msg("at %llu: %02x, not %02x", (unsigned long long)(offset + i), (uint8_t)data[i],
                     kit_pattern(offset + i));
        }
    }
}

/* ---- tests ------------------------------------------------------------------------------------ */

static void copies_what_is_read(void **state)
{
    struct block_backend *be = top("");

    assert_int_equal(kit_read(be, CLUSTER + 100, buffer, 3000), 0);
    assert_pattern(buffer, CLUSTER + 100, 3000);
    assert_int_equal(count_allocated("top"), 1);
    assert_true(cow_of("top")->allocated[1]);
    assert_pattern((char *)cow_of("top")->data + CLUSTER, CLUSTER, CLUSTER);

    writes = 0;
    assert_int_equal(kit_read(be, CLUSTER, buffer, CLUSTER), 0);
    assert_int_equal(writes, 0);

    /* Some there, some not; longer than what is copied at once. */
    assert_int_equal(kit_read(be, 512, buffer, SIZE - 1024), 0);
    assert_pattern(buffer, 512, SIZE - 1024);
    assert_int_equal(count_allocated("top"), SIZE / CLUSTER);
}

static void what_was_written_stays(void **state)
{
    struct block_backend *be = top("");

    memset(buffer, 0xaa, CLUSTER);
    assert_int_equal(kit_write(be, CLUSTER, buffer, CLUSTER), 0);
    assert_int_equal(kit_read(be, 0, buffer, 3 * CLUSTER), 0);
    assert_int_equal((uint8_t)buffer[CLUSTER], 0xaa);
    assert_int_equal((uint8_t)buffer[2 * CLUSTER - 1], 0xaa);
    assert_pattern(buffer, 0, CLUSTER);
    assert_pattern(buffer + 2 * CLUSTER, 2 * CLUSTER, CLUSTER);
}

static void failed_copy(void **state)
{
    struct block_backend *be = top("");

    write_error = -ENOSPC;
    kit_capture_stderr();
    assert_int_equal(kit_read(be, 0, buffer, 4096), 0);
    assert_int_equal(kit_read(be, CLUSTER, buffer + 4096, 4096), 0);
    char *said = kit_captured();
    assert_pattern(buffer, 0, 4096);
    assert_pattern(buffer + 4096, CLUSTER, 4096);
    assert_int_equal(count_allocated("top"), 0);
    assert_non_null(strstr(said, "copy-on-read: could not write"));
    assert_ptr_equal(strstr(said, "copy-on-read"), strstr(said, "copy-on-read: could not write"));
    assert_null(strstr(strstr(said, "could not") + 1, "could not")); /* once */
    free(said);
    write_error = 0;
    assert_int_equal(kit_read(be, 0, buffer, 4096), 0);
    assert_int_equal(count_allocated("top"), 1);
}

/* What nobody has reads as zeroes, and is copied as such. */
static void zeroes_are_copied_as_zeroes(void **state)
{
    struct block_backend *be = kit_drive("if=none,driver=copy-on-read,file.driver=cow,"
                                         "file.node-name=top,file.backing.driver=cow");

    memset(buffer, 1, CLUSTER);
    assert_int_equal(kit_read(be, 0, buffer, CLUSTER), 0);
    assert_int_equal(buffer[0] | buffer[CLUSTER - 1], 0);
    assert_int_equal(count_allocated("top"), 1);
    assert_int_equal(zeroes, 1);
    assert_int_equal(writes, 0);
}

/* top -> middle -> image: from the middle it is copied, from the image not. */
static void bottom(void **state)
{
    struct block_backend *middle = kit_drive("if=none,id=m,driver=cow,node-name=middle,"
                                             "backing.driver=raw,backing.file.driver=file,"
                                             "backing.file.filename=image");
    memset(buffer, 0x55, CLUSTER);
    assert_int_equal(kit_write(middle, 2 * CLUSTER, buffer, CLUSTER), 0);

    struct block_backend *be = kit_drive("if=none,driver=copy-on-read,bottom=middle,"
                                         "file.driver=cow,file.node-name=top,file.backing=middle");
    assert_int_equal(kit_read(be, CLUSTER, buffer, 3 * CLUSTER), 0);
    assert_pattern(buffer, CLUSTER, CLUSTER);
    assert_int_equal(buffer[CLUSTER], 0x55);
    assert_pattern(buffer + 2 * CLUSTER, 3 * CLUSTER, CLUSTER);
    assert_int_equal(count_allocated("top"), 1);
    assert_true(cow_of("top")->allocated[2]);
}

static void refusals(void **state)
{
    kit_blockdev("raw,node-name=other,file.driver=null-co");
#define C "copy-on-read,node-name=n,file.driver=cow,file.node-name=top,file.backing.driver=null-co,"
    kit_blockdev_fails(C "bottom=foo", "Bottom node 'foo' not found");
    kit_blockdev_fails(C "bottom=other", "Bottom node 'other' is not in the backing chain of "
                                         "'top'");
    kit_blockdev("copy-on-read,node-name=filter,file.driver=cow");
    kit_blockdev_fails(C "bottom=filter", "Bottom node 'filter' is a filter; name the image below "
                                          "it");
}

static void read_only(void **state)
{
    struct block_backend *be = top(",read-only=on");

    assert_int_equal(kit_read(be, 0, buffer, CLUSTER), 0);
    assert_pattern(buffer, 0, CLUSTER);
    assert_int_equal(count_allocated("top"), 0);
    kit_close();
    kit_capture_stderr();
    be = kit_drive("if=none,copy-on-read=on,read-only=on,file=image,format=raw");
    char *said = kit_captured();
    assert_non_null(strstr(said, "disabling copy-on-read on read-only drive 'image'"));
    free(said);
    assert_string_equal(backend_root(be)->driver->name, "raw");
}

static void drive_option(void **state)
{
    struct block_backend *be = kit_drive("if=none,copy-on-read=on,iops=1000000,file=image,"
                                         "format=raw");
    struct block_node *root = backend_root(be);

    assert_string_equal(root->driver->name, "throttle");
    assert_string_equal(root->file->driver->name, "copy-on-read");
    assert_string_equal(root->file->file->driver->name, "raw");
    assert_string_equal(root->filename, "image");
    assert_int_equal(kit_read(be, 0, buffer, CLUSTER), 0);
    assert_pattern(buffer, 0, CLUSTER);
    assert_int_equal(kit_write(be, 0, buffer + 1, 100), 0);
}

/* Readers and writers in the same clusters: no write is lost under a copy. */
struct user {
    struct block_backend *be;
    unsigned index;
    _Atomic(bool) done;
};

#define USERS 8

/* Each writes its sectors, one after the other, and finds what it wrote. */
static void co_use(void *opaque)
{
    struct user *user = opaque;
    uint8_t mine[512];
    struct iovec vec;
    struct block_iov iov = block_iov_of(&vec, mine, sizeof(mine));
    uint64_t random = 77 + user->index;

    for (unsigned i = 0; i < 300; i++) {
        uint64_t sector = kit_random(&random) % (SIZE / 512 / USERS) * USERS + user->index;
        uint8_t value = (uint8_t)kit_random(&random) | 1;

        if (i % 3) {
            memset(mine, value, sizeof(mine));
            CHECK(backend_co_pwritev(user->be, sector * 512, &iov, 0, 0) == 0);
            memset(mine, 0, sizeof(mine));
        }
        CHECK(backend_co_preadv(user->be, sector * 512, &iov, 0, 0) == 0);
        CHECK(!(i % 3) || (mine[0] == value && mine[511] == value));
    }
    atomic_store(&user->done, true);
    aio_loop_wake(coroutine_loop(coroutine_self()));
}

static void run_users(struct block_backend *be)
{
    struct user users[USERS];

    is_slow = true;
    for (unsigned i = 0; i < USERS; i++) {
        users[i] = (struct user){.be = be, .index = i};
        aio_call_co(aio_loop_current(), co_use, &users[i]);
    }
    for (unsigned i = 0; i < USERS; i++) {
        while (!atomic_load(&users[i].done)) {
            aio_loop_poll(aio_loop_current(), true);
        }
    }
}

static void concurrent(void **state)
{
    run_users(top(""));
}

/* ---- buffers ---------------------------------------------------------------------------------- */

static unsigned reads_done;

static void read_done(void *opaque, int ret)
{
    CHECK(ret == 0);
    reads_done++;
}

/* `count` reads of a sector, `step` from each other, and how much they have in buffers while none goes
 * on. */
static size_t held_by_reads(struct block_backend *be, unsigned count, uint64_t step)
{
    struct iovec *vec = xcalloc(count, sizeof(*vec));
    size_t before = bounce_in_use(), most;

    is_held = true;
    reads_done = 0;
    memset(buffer, 0, count * 512);
    for (unsigned i = 0; i < count; i++) {
        struct block_iov iov = block_iov_of(&vec[i], buffer + i * 512, 512);
        backend_aio_preadv(be, i * step, &iov, 0, i, read_done, NULL);
    }
    most = bounce_in_use();
    is_held = false;
    while (reads_done < count) {
        aio_loop_poll(aio_loop_current(), true);
        most = MAX(most, bounce_in_use());
    }
    for (unsigned i = 0; i < count; i++) {
        assert_pattern(buffer + i * 512, i * step, 512);
    }
    free(vec);
    assert_int_equal(bounce_in_use(), before);
    return most - before;
}

/* Reads that wait for each other have no buffers yet. */
static void who_waits_has_no_buffer(void **state)
{
    assert_int_equal(held_by_reads(top(""), CLUSTER / 512, 512), CLUSTER);
    assert_int_equal(count_allocated("top"), 1);
}

static void buffers_have_a_budget(void **state)
{
    size_t rest = BOUNCE_BUDGET - 4 * CLUSTER;
    void *others = bounce_alloc(4096, rest), *last;

    CHECK(others);
    assert_int_equal(held_by_reads(top(""), SIZE / CLUSTER, CLUSTER), 4 * CLUSTER);
    assert_int_equal(count_allocated("top"), SIZE / CLUSTER);
    kit_close();

    /* One is always there. */
    last = bounce_alloc(4096, 4 * CLUSTER);
    CHECK(last);
    assert_int_equal(held_by_reads(top(""), SIZE / CLUSTER, CLUSTER), CLUSTER);
    assert_int_equal(count_allocated("top"), SIZE / CLUSTER);
    bounce_free(last, 4 * CLUSTER);
    bounce_free(others, rest);
}

/* Two nodes one above the other need a buffer each for a read, and others have the budget. */
static void filters_in_a_chain(void **state)
{
    void *all = bounce_alloc(4096, BOUNCE_BUDGET);

    CHECK(all);
    run_users(kit_drive("if=none,driver=copy-on-read,file.driver=cow,file.node-name=top,"
                        "file.backing.driver=copy-on-read,file.backing.read-only=off,"
                        "file.backing.file.driver=cow,file.backing.file.node-name=middle,"
                        "file.backing.file.backing.driver=raw,"
                        "file.backing.file.backing.file.driver=file,"
                        "file.backing.file.backing.file.filename=image"));
    assert_true(count_allocated("top") > 1);
    assert_true(count_allocated("middle") > 1);
    bounce_free(all, BOUNCE_BUDGET);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(copies_what_is_read, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(what_was_written_stays, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(failed_copy, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(zeroes_are_copied_as_zeroes, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(bottom, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(refusals, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(read_only, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(drive_option, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(concurrent, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(who_waits_has_no_buffer, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(buffers_have_a_budget, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(filters_in_a_chain, setup, kit_teardown),
    };
    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
