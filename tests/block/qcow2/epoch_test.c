/* SPDX-License-Identifier: MIT */
/*
 * Clusters that become free while somebody still reads them: nobody sees what others write there then.
 * And images that are made writable and read-only again while they are open.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/iov.h"
#include "block/qcow2/qcow2.h"
#include "disk.h"
#include "qkit.h"

#define CLUSTER 4096u
#define SIZE    (4 * MiB)
#define HALF    (SIZE / 2)

static struct block_backend *be;
static _Atomic(unsigned) running;
static _Atomic(bool) stop;
static bool flushes;

/* The lower half of the disk only ever has 0x11 or zeroes, the upper one 0x22 or zeroes. */
static int co_fill(uint64_t offset, uint64_t length, uint8_t value)
{
    uint8_t *data = xmalloc(length);
    struct iovec vec;
    struct block_iov iov = block_iov_of(&vec, data, length);

    memset(data, value, length);
    int ret = backend_co_pwritev(be, offset, &iov, 0, 0);
    free(data);
    return ret;
}

static void co_read_lower(void *opaque)
{
    uint64_t random = (uint64_t)(uintptr_t)opaque;
    const size_t size = 4 * CLUSTER;

    while (!atomic_load(&stop)) {
        uint8_t *copy = xmalloc(size);
        struct iovec vec;
        struct block_iov iov = block_iov_of(&vec, copy, size);
        uint64_t offset = kit_random(&random) % (HALF / CLUSTER - 4) * CLUSTER;
        CHECK(backend_co_preadv(be, offset, &iov, 0, 0) == 0);
        for (size_t i = 0; i < size; i++) {
            CHECK(copy[i] == 0x11 || copy[i] == 0);
        }
        free(copy);
    }
    atomic_fetch_sub(&running, 1);
}

/* What one half gives up, the other takes at once, if it may. */
static void co_move(void *opaque)
{
    uint64_t random = (uint64_t)(uintptr_t)opaque;

    for (unsigned i = 0; i < 60 * qkit_scale(); i++) {
        uint64_t at = kit_random(&random) % (HALF / CLUSTER - 8) * CLUSTER, length = 8 * CLUSTER;
        CHECK(backend_co_discard(be, at, length) == 0);
        CHECK(!flushes || backend_co_flush(be, 0) == 0);
        CHECK(co_fill(HALF + at, length, 0x22) == 0);
        CHECK(backend_co_discard(be, HALF + at, length) == 0);
        CHECK(!flushes || backend_co_flush(be, 0) == 0);
        CHECK(co_fill(at, length, 0x11) == 0);
    }
    atomic_store(&stop, true);
    atomic_fetch_sub(&running, 1);
}

static int co_fill_lower(void *opaque)
{
    return co_fill(0, HALF, 0x11);
}

static void move_beside_readers(uint64_t limit)
{
    qkit_run("rm -f seed; qemu-img create -f qcow2 -o cluster_size=4k seed 4M");
    disk_load("seed", limit);
    be = kit_drive("driver=qcow2,file.driver=disk,if=none,discard=unmap");
    assert_int_equal(block_run(co_fill_lower, NULL), 0);
    disk_set_delay(300000);
    struct kit_thread *second = kit_thread_start(AIO_LOOP_AUTO);
    atomic_store(&running, 9);
    atomic_store(&stop, false);
    for (uintptr_t i = 1; i <= 8; i++) {
        aio_call_co(i % 2 ? kit_thread_loop(second) : aio_loop_current(), co_read_lower,
                    (void *)(i * 7919));
    }
    aio_call_co(aio_loop_current(), co_move, (void *)(uintptr_t)4711);
    while (atomic_load(&running)) {
        aio_loop_poll(aio_loop_current(), false);
    }
    kit_thread_stop(second);
}

static void freed_clusters_wait_for_readers(void **state)
{
    flushes = true;
    move_beside_readers(64 * MiB);

    /* They did become free: the image has not grown by what went back and forth. */
    disk_set_delay(0);
    kit_close();
    disk_save("q");
    qkit_check_clean("q");
    assert_true(kit_file_size("q") < 3 * SIZE);
    disk_unload();
}

/* On a host without room: who needs clusters waits until nobody reads those that were freed. */
static void full_disk_waits_for_readers(void **state)
{
    const unsigned metadata = 6; /* header, refcount table and block, L1 table, two L2 tables */

    flushes = false;
    move_beside_readers(HALF + (metadata + 4) * CLUSTER);
    disk_set_delay(0);
    kit_close();
    disk_save("q");
    qkit_check_clean("q");
    disk_unload();
}

static void reopened(void **state)
{
    uint8_t data[CLUSTER], got[CLUSTER];
    struct error *err = NULL;

    memset(data, 0x5a, sizeof(data));
    qkit_run("rm -f q; qemu-img create -f qcow2 -o lazy_refcounts=on q 4M && qemu-img bitmap --add "
             "q b &&"
             "qemu-img snapshot -c s q");
    kit_blockdev("driver=qcow2,node-name=n,read-only=on,file.driver=file,file.filename=q");
    struct block_node *node = block_node_find("n");
    for (unsigned round = 0; round < 3; round++) {
        if (!block_node_reopen(node, node->flags | BLOCK_OPEN_RDWR, &err)) {
            fail_msg("%s", error_message(err));
        }
        struct block_backend *writer = backend_attach("n", "writer", true, false, &err);
        assert_non_null(writer);
        assert_int_equal(kit_write(writer, round * 100000, data, sizeof(data)), 0);
        assert_int_equal(kit_flush(writer), 0);
        backend_detach(writer);
        assert_true(block_node_reopen(node, node->flags & ~BLOCK_OPEN_RDWR, &err));
        /* All is in the file, and nothing is marked any more. */
        qkit_run("qemu-img check -U -f qcow2 q && qemu-img info -U q | grep 'corrupt: false'");
        qkit_run("! qemu-img info -U q | grep -q in-use");
        struct block_backend *reader = backend_attach("n", "reader", false, false, &err);
        assert_non_null(reader);
        assert_int_equal(kit_read(reader, round * 100000, got, sizeof(got)), 0);
        assert_memory_equal(got, data, sizeof(data));
        backend_detach(reader);
    }
    kit_close();
    qkit_check_clean("q");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(freed_clusters_wait_for_readers, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(full_disk_waits_for_readers, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(reopened, kit_setup, kit_teardown),
    };

    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
