/* SPDX-License-Identifier: MIT */
/* Compressed clusters: qemu-img's read here, ours read by qemu-img, and hostile ones. */
#include "qkit.h"
#include "tools.h"

#include <errno.h>
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
        uint64_t size = (kit_random(&seed) % 40 + 1) * 512;
        size = MIN(size, SIZE - offset);
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

/* ---- writing --------------------------------------------------------------------------------- */

static struct block_backend *open_ours(bool writable)
{
    return kit_drive("file=ours.qcow2,format=qcow2,if=none,id=d,read-only=%s",
                     writable ? "off" : "on");
}

static void write_compressed(struct block_backend *be, const uint8_t *data, uint64_t from,
                             uint64_t to, uint64_t step)
{
    for (uint64_t at = from; at < to; at += step) {
        int ret = kit_write_flags(be, at, data + at, MIN(step, to - at), BLOCK_REQ_COMPRESSED);
        assert_int_equal(ret, 0);
    }
}

/* Ours, read by qemu-img and by us again. */
static void check_image(const uint8_t *data)
{
    write_file("data.raw", data, SIZE);
    if (tools_have_qemu_img()) {
        tools_check("ours.qcow2", false);
        tools_must("qemu-img compare -f raw -F qcow2 data.raw ours.qcow2");
    }
    check_reads(open_ours(false), data);
    kit_close();
}

static void test_write(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        autofree char *options =
            xasprintf("size=%llu,%s", (unsigned long long)SIZE, kinds[i].options);
        autofree uint8_t *data = make_data();
        uint64_t seed = i + 1;

        tools_create("ours.qcow2", options);
        write_compressed(open_ours(true), data, 0, SIZE, MAX(kinds[i].cluster, 256 * KiB));
        kit_close();
        check_image(data);

        /* Over what is compressed: parts, by usual writes, and again compressed. */
        struct block_backend *be = open_ours(true);
        for (unsigned n = 0; n < 30; n++) {
            uint64_t offset = kit_random(&seed) % (SIZE / 512) * 512;
            uint64_t size = (kit_random(&seed) % 100 + 1) * 512;
            size = MIN(size, SIZE - offset);
            memset(data + offset, (int)n + 1, size);
            assert_int_equal(kit_write(be, offset, data + offset, size), 0);
        }
        uint64_t half = align_up(SIZE / 2, kinds[i].cluster);
        memset(data + half, 0x55, SIZE - half);
        write_compressed(be, data, half, SIZE, MAX(kinds[i].cluster, 64 * KiB));
        check_reads(be, data);
        kit_close();
        check_image(data);
    }
}

/* What was kept of a cluster is forgotten when its place in the file gets another one. */
static void test_replaced(void **state)
{
    autofree uint8_t *data = xmalloc(64 * KiB);
    uint8_t got[4096];

    tools_create("ours.qcow2", "size=1M");
    struct block_backend *be = open_ours(true);
    for (int n = 1; n < 60; n++) {
        memset(data, n, 64 * KiB);
        assert_int_equal(kit_write_flags(be, 0, data, 64 * KiB, BLOCK_REQ_COMPRESSED), 0);
        assert_int_equal(kit_read(be, 8192, got, sizeof(got)), 0);
        assert_memory_equal(got, data, sizeof(got));
        assert_int_equal(kit_flush(be), 0);
    }
    kit_close();
    if (tools_have_qemu_img()) {
        tools_check("ours.qcow2", false);
    }
    assert_true(kit_file_size("ours.qcow2") < 512 * KiB); /* places were used again */
}

/* Two loops read and write what is compressed, in small pieces and large ones. */
static void test_load(void **state)
{
    static const char *const options[] = {"cluster_size=65536", "cluster_size=4096",
                                          "cluster_size=65536,compression_type=zstd"};

    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        autofree char *all = xasprintf("size=%llu,%s", (unsigned long long)SIZE, options[i]);
        autofree uint8_t *data = make_data();

        tools_create("ours.qcow2", all);
        struct block_backend *be = open_ours(true);
        write_compressed(be, data, 0, SIZE, 256 * KiB);
        struct qkit_load load = {
            .be = be,
            .expected = data,
            .size = SIZE,
            .cluster_size = 65536,
            .workers = 4,
            .requests = 60 * qkit_scale(),
            .max_length = 20000,
            .seed = i + 1,
        };
        qkit_run_load(&load);
        kit_close();
        check_image(data);
    }
}

static void test_refused(void **state)
{
    uint8_t data[65536] = {0};

    tools_create("ours.qcow2", "size=1000000");
    struct block_backend *be = open_ours(true);
    assert_int_equal(kit_write_flags(be, 512, data, 65536, BLOCK_REQ_COMPRESSED), -EINVAL);
    assert_int_equal(kit_write_flags(be, 0, data, 4096, BLOCK_REQ_COMPRESSED), -EINVAL);
    kit_close();
    tools_create("ours.qcow2", "size=1M,data_file=ours.data");
    be = open_ours(true);
    assert_int_equal(kit_write_flags(be, 0, data, 65536, BLOCK_REQ_COMPRESSED), -ENOTSUP);
    kit_close();
}

/* ---- hostile --------------------------------------------------------------------------------- */

/* The first compressed cluster's L2 entry: where it is in the file. */
static uint64_t find_entry(uint64_t *entry)
{
    uint8_t word[8];

    kit_read_file("ours.qcow2", 40, word, 8);
    uint64_t l1 = load_be64(word);
    kit_read_file("ours.qcow2", l1, word, 8);
    uint64_t l2 = load_be64(word) & UINT64_C(0x00fffffffffffe00);
    kit_read_file("ours.qcow2", l2, word, 8);
    *entry = load_be64(word);
    assert_true(*entry & BIT64(62));
    return l2;
}

static void poke(uint64_t offset, const void *bytes, size_t size)
{
    FILE *file = fopen("ours.qcow2", "r+");

    assert_non_null(file);
    assert_int_equal(fseek(file, (long)offset, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

/* Whatever the bytes are: a cluster comes out or -EIO. */
static int read_hostile(void)
{
    static uint8_t got[4096];

    struct block_backend *be = open_ours(false);
    kit_capture_stderr();
    int ret = kit_read(be, 4096, got, sizeof(got));
    free(kit_captured());
    kit_close();
    assert_true(ret == 0 || ret == -EIO);
    return ret;
}

static void test_hostile(void **state)
{
    static const char *const types[] = {"zlib", "zstd"};
    autofree uint8_t *data = make_data();
    uint64_t seed = 3, entry;

    for (size_t t = 0; t < ARRAY_SIZE(types); t++) {
        autofree char *options = xasprintf("size=1M,compression_type=%s", types[t]);
        uint8_t saved[4096], bytes[4096];

        tools_create("ours.qcow2", options);
        write_compressed(open_ours(true), data, 0, MiB, 64 * KiB);
        kit_close();
        uint64_t at = find_entry(&entry), host = entry & (BIT64(54) - 1);
        kit_read_file("ours.qcow2", host, saved, sizeof(saved));
        assert_int_equal(read_hostile(), 0);

        for (unsigned n = 0; n < 200; n++) { /* the data */
            memcpy(bytes, saved, sizeof(saved));
            for (unsigned i = 0; i <= n % 8; i++) {
                bytes[kit_random(&seed) % (n < 100 ? 64 : sizeof(bytes))] =
                    (uint8_t)kit_random(&seed);
            }
            poke(host, bytes, sizeof(bytes));
            read_hostile();
        }
        memset(bytes, 0, sizeof(bytes));
        poke(host, bytes, sizeof(bytes));
        assert_int_equal(read_hostile(), -EIO);
        memset(bytes, 0xff, sizeof(bytes));
        poke(host, bytes, sizeof(bytes));
        assert_int_equal(read_hostile(), -EIO);
        poke(host, saved, sizeof(saved));
        for (unsigned n = 0; n < 100; n++) { /* the entry */
            store_be64(bytes, BIT64(62) | (kit_random(&seed) >> (2 + n % 50)));
            poke(at, bytes, 8);
            read_hostile();
        }
        store_be64(bytes, BIT64(62) | host); /* one sector is too short */
        poke(at, bytes, 8);
        assert_int_equal(read_hostile(), -EIO);
        store_be64(bytes, BIT64(62) | (host + 1) | UINT64_C(127) << 54);
        poke(at, bytes, 8);
        assert_int_equal(read_hostile(), -EIO);
    }
}

/* A stream that inflates to more, or less, than a cluster. */
static void test_wrong_size(void **state)
{
    uint8_t stored[5 + 512] = {0x01, 0x00, 0x02, 0xff, 0xfd}; /* RFC 1951, 3.2.4: 512 bytes */
    uint8_t got[512], bytes[8];
    uint64_t entry;

    tools_create("ours.qcow2", "size=64k,cluster_size=512");
    struct block_backend *be = open_ours(true);
    uint8_t zeroes[512] = {0};
    assert_int_equal(kit_write_flags(be, 0, zeroes, 512, BLOCK_REQ_COMPRESSED), 0);
    kit_close();
    uint64_t at = find_entry(&entry), host = align_up(kit_file_size("ours.qcow2"), 512);
    for (uint64_t length = 500; length < 530; length++) {
        stored[1] = (uint8_t)length;
        stored[2] = (uint8_t)(length >> 8);
        stored[3] = (uint8_t)~stored[1];
        stored[4] = (uint8_t)~stored[2];
        poke(host, stored, sizeof(stored));
        store_be64(bytes, BIT64(62) | host | BIT64(61));
        poke(at, bytes, 8);
        be = open_ours(false);
        kit_capture_stderr();
        assert_int_equal(kit_read(be, 0, got, 512), length == 512 ? 0 : -EIO);
        char *said = kit_captured();
        assert_true(length == 512 || strstr(said, "does not inflate to 512 bytes"));
        free(said);
        kit_close();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_read, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_write, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_replaced, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_load, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_refused, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_hostile, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_wrong_size, kit_setup, kit_teardown),
    };

    return cmocka_run_group_tests(tests, tools_enter_directory, tools_leave_directory);
}
