/* SPDX-License-Identifier: MIT */
/* Opening qcow2 images: options, backing files, hostile headers. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "block/node.h"
#include "block/qcow2/format.h"
#include "image_kit.h"

#define SIZE (4 * MiB)

static void check_pattern(struct block_backend *be, uint64_t from, uint64_t size)
{
    uint8_t *data = xmalloc(size);

    assert_int_equal(kit_read(be, from, data, size), 0);
    for (uint64_t i = 0; i < size; i++) {
        if (data[i] != kit_pattern(from + i)) {
            fail_msg("byte %llu differs", (unsigned long long)(from + i));
        }
    }
    free(data);
}

static void reads_what_qemu_wrote(void **state)
{
    static const char *const options[] = {
        "cluster_size=512",
        "cluster_size=4k",
        "cluster_size=64k",
        "cluster_size=2M",
        "compat=0.10",
        "extended_l2=on",
        "refcount_bits=1",
        "refcount_bits=64",
        "data_file=data.raw",
        "data_file=data.raw,data_file_raw=on",
        "preallocation=metadata",
    };

    kit_make_file("raw", SIZE);
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        run("rm -f q data.raw; qemu-img convert -f raw -O qcow2 -o %s raw q", options[i]);
        struct block_backend *be = kit_drive("file=q,format=qcow2,if=none,readonly=on");
        check_pattern(be, 0, SIZE);
        check_pattern(be, 12345, 77777);
        kit_close();
    }
}

static void backing_chain(void **state)
{
    kit_make_file("raw", SIZE);
    run("qemu-img convert -f raw -O qcow2 raw base && mkdir -p sub &&"
        "qemu-img create -q -f qcow2 -b ../base -F qcow2 sub/mid 3M &&"
        "qemu-img create -q -f qcow2 -b mid -F qcow2 sub/top 4M");
    struct block_backend *be = kit_drive("file=sub/top,format=qcow2,if=none,readonly=on");
    check_pattern(be, 0, 3 * MiB);
    uint8_t data[4096], zeroes[4096] = {0};
    assert_int_equal(kit_read(be, 3 * MiB, data, sizeof(data)), 0);
    assert_memory_equal(data, zeroes, sizeof(data));
    kit_close();
}

#define LEVELS  199
#define CLUSTER 4096

/* A chain as long as ferry opens, of which every file has one cluster, the top one the first. A read
 * of all of it is cut in two at every level, and the frames of all levels are on one stack. */
static void long_chain(void **state)
{
    autofree uint8_t *data = xmalloc((LEVELS + 1) * CLUSTER);
    struct image image;

    run("qemu-img create -q -f qcow2 -o cluster_size=4k c000 1M && cp c000 cNNN && "
        "qemu-img create -q -f qcow2 -o cluster_size=4k -b cNNN -F qcow2 template && "
        "qemu-io -f qcow2 -c 'write -q -P 1 0 4k' template");
    image_open(&image, "template");
    uint64_t entry = image_get64(&image, image.l2);
    image_put64(&image, image.l2, 0);
    uint64_t name = image_get64(&image, 8), l2 = image.l2;
    image_close(&image);
    for (unsigned i = 1; i <= LEVELS; i++) {
        autofree char *level = xasprintf("c%03u", i), *below = xasprintf("c%03u", i - 1);
        copy_file("template", level);
        image_open(&image, level);
        image_put(&image, name, below, 4);
        image_put64(&image, l2 + 8 * (LEVELS - i), entry);
        image_close(&image);
    }
    run("qemu-img compare -q -f qcow2 -F qcow2 c%03u c000; test $? = 1", LEVELS);
    struct block_backend *be = kit_drive("file=c%03u,format=qcow2,if=none,readonly=on", LEVELS);
    assert_int_equal(kit_read(be, 0, data, (LEVELS + 1) * CLUSTER), 0);
    for (unsigned i = 0; i < (LEVELS + 1) * CLUSTER; i++) {
        assert_int_equal(data[i], i < LEVELS * CLUSTER);
    }
    kit_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_what_qemu_wrote, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(backing_chain, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(long_chain, kit_setup, kit_teardown),
    };

    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
