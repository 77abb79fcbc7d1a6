/* SPDX-License-Identifier: MIT */
/* Compressed clusters: qemu-img's read here, ours read by qemu-img, and hostile ones. */
#include "tools.h"

#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"

#define SIZE (3 * MiB + 7 * 512)

static const struct {
    const char *options;
    uint32_t cluster;
} kinds[] = {
    {"cluster_size=512", 512},
    {"cluster_size=4096,compression_type=zstd", 4096},
    {"cluster_size=65536", 65536},
    {"cluster_size=65536,compression_type=zstd", 65536},
    {"cluster_size=65536,compat=0.10", 65536},
    {"cluster_size=16384,extended_l2=on", 16384},
    {"cluster_size=2097152", 2097152},
    {"cluster_size=2097152,compression_type=zstd", 2097152},
};

/* Words that compress, holes, and parts that do not get smaller. */
static uint8_t *make_data(void)
{
    uint8_t *data = xcalloc(1, SIZE);
    uint64_t seed = 42;

    for (uint64_t at = 0; at + 64 * KiB <= SIZE; at += 64 * KiB) {
        uint64_t kind = at / (64 * KiB) % 5;
        for (uint64_t i = 0; kind != 1 && i < 64 * KiB; i += 8) {
            uint64_t word = kit_random(&seed);
            store_le64(data + at + i, kind == 2 ? word : (word & 7) * 0x6172656966747261);
        }
    }
    return data;
}

static void write_file(const char *name, const void *data, size_t size)
{
    FILE *file = fopen(name, "w");

    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    fclose(file);
}

/* ---- reading --------------------------------------------------------------------------------- */

static void check_reads(struct block_backend *be, const uint8_t *data)
{
    autofree uint8_t *got = xmalloc(SIZE);
    uint64_t seed = 7;

    assert_int_equal(kit_read(be, 0, got, SIZE), 0);
    assert_memory_equal(got, data, SIZE);
    for (unsigned i = 0; i < 300; i++) {
        uint64_t offset = kit_random(&seed) % (SIZE / 512) * 512;
        uint64_t size = MIN(SIZE - offset, (kit_random(&seed) % 40 + 1) * 512);
        assert_int_equal(kit_read(be, offset, got, size), 0);
        assert_memory_equal(got, data + offset, size);
    }
}

static void test_read(void **state)
{
    autofree uint8_t *data = make_data();

    if (!tools_have_qemu_img()) {
        skip();
    }
    write_file("data.raw", data, SIZE);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        tools_must("qemu-img convert -c -f raw -O qcow2 -o %s data.raw theirs.qcow2",
                   kinds[i].options);
        struct block_backend *be =
            kit_drive("file=theirs.qcow2,format=qcow2,if=none,id=d,read-only=on");
        check_reads(be, data);
        kit_close();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_read, kit_setup, kit_teardown),
    };

    return cmocka_run_group_tests(tests, tools_enter_directory, tools_leave_directory);
}
