/* SPDX-License-Identifier: MIT */
/* Opening qcow2 images: options, backing files, hostile headers. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "block/node.h"
#include "block/qcow2/format.h"
#include "kit.h"

static void run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static void run(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    char *command = xvasprintf(fmt, ap);
    va_end(ap);
    if (system(command) != 0) {
        fail_msg("failed: %s", command);
    }
    free(command);
}

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_what_qemu_wrote, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(backing_chain, kit_setup, kit_teardown),
    };

    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
