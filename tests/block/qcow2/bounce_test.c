/* SPDX-License-Identifier: MIT */
/* What requests copy and inflate keeps to the budget of bounce buffers, and they come to their end. */
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/bounce.h"
#include "block/iov.h"
#include "qkit.h"
#include "tools.h"

#define SIZE (16 * MiB)

static uint8_t *data; /* SIZE */

static int setup(void **state)
{
    kit_setup(state);
    data = xmalloc(SIZE);
    return 0;
}

static int teardown(void **state)
{
    free(data);
    return kit_teardown(state);
}

/* ---- many requests ---------------------------------------------------------------------------- */

struct tally {
    unsigned done;
};

static void count_done(void *opaque, int ret)
{
    struct tally *tally = opaque;

    CHECK(ret == 0);
    tally->done++;
}

/* Until all are done: the most bytes that were in buffers, besides those before. */
static size_t wait_done(struct tally *tally, unsigned count, size_t before)
{
    size_t most = bounce_in_use();

    while (tally->done < count) {
        aio_loop_poll(aio_loop_current(), true);
        most = MAX(most, bounce_in_use());
    }
    assert_int_equal(bounce_in_use(), before);
    return most - before;
}

/* Reads of whole clusters at the same time, into `buffers` buffers each. */
static size_t read_clusters(struct block_backend *be, uint32_t cluster, int buffers)
{
    unsigned count = SIZE / cluster;
    uint8_t *got = xcalloc(1, SIZE);
    struct iovec *vec = xcalloc(2 * count, sizeof(*vec));
    struct tally tally = {0};
    size_t before = bounce_in_use();

    for (unsigned i = 0; i < count; i++) {
        uint8_t *to = got + (size_t)i * cluster;
        uint32_t first = buffers == 1 ? cluster : 1000;
        vec[2 * i] = (struct iovec){to, first};
        vec[2 * i + 1] = (struct iovec){to + first, cluster - first};
        struct block_iov iov = {.iov = &vec[2 * i], .niov = buffers, .size = cluster};
        backend_aio_preadv(be, (uint64_t)i * cluster, &iov, 0, i, count_done, &tally);
    }
    size_t most = wait_done(&tally, count, before);
    assert_memory_equal(got, data, SIZE);
    free(vec);
    free(got);
    return most;
}

static void inflated_clusters(void **state)
{
    static const char *const options[] = {"cluster_size=64k", "cluster_size=1M"};
    static const uint32_t clusters[] = {64 * KiB, MiB};

    qkit_fill_half(data, SIZE, 5);
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        autofree char *all = xasprintf("size=%u,%s", (unsigned)SIZE, options[i]);
        uint32_t cluster = clusters[i];

        tools_create("q", all);
        struct block_backend *be = kit_drive("if=none,id=d,format=qcow2,file=q");
        assert_int_equal(kit_write_flags(be, 0, data, SIZE, BLOCK_REQ_COMPRESSED), 0);
        /* Room for three and a part. */
        size_t rest = 3 * cluster;
        void *others = bounce_alloc(4096, BOUNCE_BUDGET - rest);
        CHECK(others);
        assert_in_range(read_clusters(be, cluster, 2), rest, rest + 3 * cluster);
        assert_in_range(read_clusters(be, cluster, 1), rest / 2, rest + 2 * cluster);
        /* One is always there. */
        void *last = bounce_alloc(4096, rest);
        CHECK(last);
        assert_in_range(read_clusters(be, cluster, 2), cluster, 3 * cluster);
        assert_in_range(read_clusters(be, cluster, 1), cluster / 2, 2 * cluster);
        bounce_free(last, rest);
        bounce_free(others, BOUNCE_BUDGET - rest);
        kit_close();
    }
}

/* Writes of a sector in the middle of each cluster, what is around it being in the backing file. */
static size_t write_sectors(uint32_t cluster)
{
    unsigned count = SIZE / cluster;
    struct iovec *vec = xcalloc(count, sizeof(*vec));
    uint8_t *got = xmalloc(SIZE);
    struct tally tally = {0};
    size_t before = bounce_in_use();

    kit_make_file("base", SIZE);
    kit_read_file("base", 0, data, SIZE);
    tools_create("q", "size=16M,cluster_size=512k,backing_file=base,backing_fmt=raw");
    struct block_backend *be = kit_drive(
        "if=none,id=d,driver=qcow2,file.driver=blkdebug,file.image.driver=file,"
        "file.image.filename=q,file.inject-error.0.event=cow_write,file.inject-error.0.errno=0,"
        "file.inject-error.0.delay=1000000,file.inject-error.1.event=write_aio,"
        "file.inject-error.1.errno=0,file.inject-error.1.delay=1000000");
    for (unsigned i = 0; i < count; i++) {
        uint64_t at = (uint64_t)i * cluster + cluster / 2;
        memset(data + at, 0xa5, 512);
        struct block_iov iov = block_iov_of(&vec[i], data + at, 512);
        backend_aio_pwritev(be, at, &iov, 0, i, count_done, &tally);
    }
    size_t most = wait_done(&tally, count, before);
    assert_int_equal(kit_read(be, 0, got, SIZE), 0);
    assert_memory_equal(got, data, SIZE);
    kit_close();
    qkit_check_clean("q");
    free(got);
    free(vec);
    return most;
}

static void copied_around_writes(void **state)
{
    const uint32_t cluster = 512 * KiB;
    const unsigned count = SIZE / cluster;

    assert_in_range(write_sectors(cluster), cluster - 512, count * cluster);
    void *all = bounce_alloc(4096, BOUNCE_BUDGET);
    CHECK(all);
    assert_in_range(write_sectors(cluster), BOUNCE_SMALL, count * (2 * BOUNCE_SMALL + 4096));
    bounce_free(all, BOUNCE_BUDGET);
}

/* ---- random requests -------------------------------------------------------------------------- */

/* From two loops, while others have the budget: an image with compressed clusters, above another. */
static void load_without_budget(void **state)
{
    static const char *const sizes[] = {"64k", "512k"};
    static const uint32_t clusters[] = {64 * KiB, 512 * KiB};
    void *all = bounce_alloc(4096, BOUNCE_BUDGET);

    CHECK(all);
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        autofree char *base = xasprintf("size=16M,cluster_size=%s", sizes[i]);
        autofree char *over = xasprintf("%s,backing_file=base,backing_fmt=qcow2", base);

        qkit_fill_half(data, SIZE, 6);
        tools_create("base", base);
        assert_int_equal(kit_write_flags(kit_drive("if=none,id=d,format=qcow2,file=base"), 0, data,
                                         SIZE, BLOCK_REQ_COMPRESSED),
                         0);
        kit_close();
        tools_create("q", over);
        struct block_backend *be = kit_drive("if=none,id=d,format=qcow2,file=q,cache=none");
        assert_int_equal(kit_write_flags(be, 0, data, SIZE / 2, BLOCK_REQ_COMPRESSED), 0);
        struct qkit_load load = {
            .be = be,
            .expected = data,
            .size = SIZE,
            .cluster_size = clusters[i],
            .compressed = true,
            .workers = 6,
            .requests = 30 * qkit_scale(),
            .max_length = 2 * clusters[i],
            .seed = i + 1,
        };
        qkit_run_load(&load);
        kit_close();
        qkit_check_clean("q");
    }
    bounce_free(all, BOUNCE_BUDGET);
    assert_int_equal(bounce_in_use(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(inflated_clusters, setup, teardown),
        cmocka_unit_test_setup_teardown(copied_around_writes, setup, teardown),
        cmocka_unit_test_setup_teardown(load_without_budget, setup, teardown),
    };
    return cmocka_run_group_tests(tests, tools_enter_directory, tools_leave_directory);
}
