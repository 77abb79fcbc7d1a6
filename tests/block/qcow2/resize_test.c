/* SPDX-License-Identifier: MIT */
/* Other sizes: against an array, and what qemu-img says of the image each time. */
#include "image_kit.h"
#include "qkit.h"
#include "tools.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/node.h"
#include "block/qcow2/format.h"

#define MAX_SIZE (24 * MiB)

struct resize {
    struct block_node *node;
    uint64_t length;
    enum block_prealloc prealloc;
    struct error *err;
};

static int co_resize(void *opaque)
{
    struct resize *r = opaque;

    return block_co_truncate(r->node, r->length, r->prealloc, &r->err);
}

static struct block_backend *open_image(void)
{
    return kit_drive("file=ours.qcow2,format=qcow2,if=none,id=d,discard=unmap,node-name=image");
}

static void resize(uint64_t length, enum block_prealloc prealloc)
{
    struct resize r = {.node = block_node_find("image"), .length = length, .prealloc = prealloc};

    assert_int_equal(block_run(co_resize, &r), 0);
    assert_null(r.err);
    assert_int_equal(block_length(r.node), length);
}

static void refuse(uint64_t length, enum block_prealloc prealloc, const char *message)
{
    struct resize r = {.node = block_node_find("image"), .length = length, .prealloc = prealloc};

    assert_true(block_run(co_resize, &r) < 0);
    assert_string_equal(error_message(r.err), message);
    error_free(r.err);
}

/* ---- random ---------------------------------------------------------------------------------- */

static void check_contents(struct block_backend *be, const uint8_t *model, uint64_t size)
{
    autofree uint8_t *got = xmalloc(size + 1);

    assert_int_equal(kit_read(be, 0, got, size), 0);
    assert_memory_equal(got, model, size);
}

static void check_image(const uint8_t *model, uint64_t size)
{
    FILE *file = fopen("model.raw", "w");

    assert_non_null(file);
    assert_int_equal(fwrite(model, 1, size, file), size);
    fclose(file);
    if (tools_have_qemu_img()) {
        tools_check("ours.qcow2", false);
        tools_must("qemu-img compare -f raw -F qcow2 model.raw ours.qcow2");
    }
}

/* The old end's rest of a cluster, a backing file, what was cut off: nothing of it comes back. */
static void run_random(const char *options, uint64_t seed, unsigned steps)
{
    autofree uint8_t *model = xcalloc(1, MAX_SIZE);
    uint64_t size = 5 * MiB + 512;

    if (strstr(options, "backing_file")) {
        kit_read_file("base.raw", 0, model, size);
    }
    autofree char *all = xasprintf("size=%llu,%s", (unsigned long long)size, options);
    tools_create("ours.qcow2", all);
    struct block_backend *be = open_image();
    for (unsigned n = 0; n < steps; n++) {
        for (unsigned i = 0; i < 6 && size; i++) {
            uint64_t offset = kit_random(&seed) % (size / 512) * 512;
            uint64_t length = (kit_random(&seed) % 300 + 1) * 512;
            length = MIN(length, size - offset);
            if (i == 0) {
                offset = size - (length = MIN(size, length)); /* the end */
            }
            memset(model + offset, (int)(n * 8 + i) | 1, length);
            assert_int_equal(kit_write(be, offset, model + offset, length), 0);
        }
        uint64_t next = kit_random(&seed) % (MAX_SIZE / 512 + 1) * 512;
        enum block_prealloc prealloc = BLOCK_PREALLOC_OFF;
        if (kit_random(&seed) % 4 == 0) {
            next = MIN(MAX_SIZE, align_up(size, 64 * KiB));
        }
        if (next > size) {
            prealloc = kit_random(&seed) % 4;
        } else {
            memset(model + next, 0, size - next);
        }
        resize(next, prealloc);
        size = next;
        check_contents(be, model, size);
        if (n % 4 == 3) {
            kit_close();
            check_image(model, size);
            be = open_image();
        }
    }
    kit_close();
    check_image(model, size);
}

static void test_random(void **state)
{
    static const char *const options[] = {
        "cluster_size=65536",
        "cluster_size=512,refcount_bits=1",
        "cluster_size=4096,lazy_refcounts=on",
        "cluster_size=65536,compat=0.10",
        "cluster_size=16384,extended_l2=on",
        "cluster_size=2097152,refcount_bits=64",
        "cluster_size=65536,data_file=ours.data",
        "cluster_size=65536,data_file=ours.data,data_file_raw=on",
        "cluster_size=65536,backing_file=base.raw,backing_fmt=raw",
        "cluster_size=4096,compat=0.10,backing_file=base.raw,backing_fmt=raw",
        "cluster_size=16384,extended_l2=on,backing_file=base.raw,backing_fmt=raw",
    };

    kit_make_file("base.raw", 9 * MiB + 1024);
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        run_random(options[i], i + 1, 8);
    }
}

/* ---- cases ----------------------------------------------------------------------------------- */

/* An L1 table of many clusters, twice. */
static void test_large(void **state)
{
    tools_create("ours.qcow2", "size=1M,cluster_size=512");
    struct block_backend *be = open_image();
    uint8_t byte[512];
    memset(byte, 7, sizeof(byte));
    resize(64 * MiB, BLOCK_PREALLOC_OFF);
    assert_int_equal(kit_write(be, 64 * MiB - 512, byte, 512), 0);
    resize(20 * GiB, BLOCK_PREALLOC_OFF);
    assert_int_equal(kit_write(be, 20 * GiB - 512, byte, 512), 0);
    refuse(129 * GiB, BLOCK_PREALLOC_OFF, "Failed to grow the L1 table: File too large");
    refuse(1000, BLOCK_PREALLOC_OFF, "The new size must be a multiple of 512");
    refuse(512, BLOCK_PREALLOC_FULL, "Preallocation can't be used for shrinking an image");
    kit_close();
    if (tools_have_qemu_img()) {
        tools_check("ours.qcow2", false);
        tools_must("qemu-io -r -c 'read -P 7 67108352 512' -c 'read -P 7 21474835968 512' "
                   "ours.qcow2");
    }
    open_image();
    resize(MiB, BLOCK_PREALLOC_OFF);
    kit_close();
    if (tools_have_qemu_img()) {
        tools_check("ours.qcow2", false);
    }
}

/* The file becomes shorter with the disk. */
static void test_file_shrinks(void **state)
{
    autofree uint8_t *data = xmalloc(8 * MiB);

    memset(data, 1, 8 * MiB);
    tools_create("ours.qcow2", "size=8M");
    struct block_backend *be = open_image();
    assert_int_equal(kit_write(be, 0, data, 8 * MiB), 0);
    resize(MiB, BLOCK_PREALLOC_OFF);
    kit_close();
    assert_true(kit_file_size("ours.qcow2") < 2 * MiB);
    be = open_image();
    resize(8 * MiB, BLOCK_PREALLOC_METADATA);
    assert_int_equal(kit_read(be, 0, data, 8 * MiB), 0);
    for (uint64_t i = 0; i < 8 * MiB; i += 512) {
        assert_int_equal(data[i], i < MiB);
    }
    kit_close();
}

/* What entries have behind the end (the state of a VM) is not for the guest to see. */
static void test_behind_the_end(void **state)
{
    static const char *const options[] = {
        "size=8M",
        "size=8M,cluster_size=512",
        "size=8M,cluster_size=2097152",
        "size=8M,cluster_size=16384,extended_l2=on",
        "size=8M,data_file=ours.data",
        "size=8M,backing_file=base.raw,backing_fmt=raw",
    };
    static const uint64_t sizes[] = {4 * MiB, 4 * MiB + 512, 32 * MiB};
    autofree uint8_t *data = xmalloc(32 * MiB);
    struct image image;

    kit_make_file("base.raw", 4 * MiB); /* ends where the disk does */
    for (size_t i = 0; i < ARRAY_SIZE(options) * ARRAY_SIZE(sizes); i++) {
        uint64_t old = MIN(sizes[i % ARRAY_SIZE(sizes)], 4 * MiB + 512);
        tools_create("ours.qcow2", options[i / ARRAY_SIZE(sizes)]);
        struct block_backend *be = open_image();
        memset(data, 3, 8 * MiB);
        assert_int_equal(kit_write(be, 2 * MiB, data, 6 * MiB), 0);
        kit_close();
        image_open(&image, "ours.qcow2");
        image_put64(&image, QCOW2_H_SIZE, old);
        image_close(&image);
        be = open_image();
        resize(MAX(sizes[i % ARRAY_SIZE(sizes)], 8 * MiB), BLOCK_PREALLOC_OFF);
        uint64_t size = block_length(backend_root(be));
        assert_int_equal(kit_read(be, 2 * MiB, data, size - 2 * MiB), 0);
        for (uint64_t at = 2 * MiB; at < size; at += 512) {
            assert_int_equal(data[at - 2 * MiB], at < old ? 3 : 0);
        }
        kit_close();
        if (tools_have_qemu_img()) {
            tools_check("ours.qcow2", false);
        }
    }
}

/* A data file is as long as the disk, wherever in a cluster that ends; raw, it has the guest's
 * bytes. */
static void check_data_file(struct block_backend *be, const uint8_t *model, bool is_raw)
{
    uint64_t size = block_length(backend_root(be));
    autofree uint8_t *got = xmalloc(size);

    check_contents(be, model, size);
    assert_int_equal(kit_flush(be), 0);
    assert_int_equal(kit_file_size("ours.data"), size);
    kit_read_file("ours.data", 0, got, size);
    if (is_raw) {
        assert_memory_equal(got, model, size);
    }
}

static void test_data_file_length(void **state)
{
    static const char *const options[] = {
        "size=1M,data_file=ours.data,data_file_raw=on",
        "size=1M,data_file=ours.data",
        "size=1M,data_file=ours.data,data_file_raw=on,cluster_size=16384,extended_l2=on",
        "size=1M,data_file=ours.data,cluster_size=16384,extended_l2=on",
    };
    static const uint64_t sizes[] = {MiB + 512, 3 * MiB + 3 * 512, 2 * MiB + 9 * 512};
    static uint8_t model[4 * MiB];

    for (size_t i = 0; i < ARRAY_SIZE(options) * 4; i++) {
        bool is_raw = strstr(options[i / 4], "raw");
        if (qkit_scale() == 1 && i % 4 != (i / 4 ^ 1)) {
            continue; /* each of both once */
        }
        tools_create("ours.qcow2", options[i / 4]);
        struct block_backend *be = open_image();
        memset(model, 0, sizeof(model));
        for (size_t n = 0; n < ARRAY_SIZE(sizes); n++) {
            bool grows = sizes[n] > block_length(backend_root(be));
            uint64_t last = sizes[n] - 512;
            resize(sizes[n], grows ? i % 4 : BLOCK_PREALLOC_OFF);
            check_data_file(be, model, is_raw);
            model[last] = (uint8_t)(n + 1);
            assert_int_equal(kit_write(be, last, model + last, 512), 0);
            check_data_file(be, model, is_raw);
            assert_int_equal(kit_zero(be, last, 512, BLOCK_REQ_MAY_UNMAP), 0);
            model[last] = 0;
            check_data_file(be, model, is_raw);
            model[last - 512] = (uint8_t)(n + 9);
            assert_int_equal(kit_write(be, last - 512, model + last - 512, 1024), 0);
            check_data_file(be, model, is_raw);
            memset(model + sizes[n], 0, sizeof(model) - sizes[n]);
        }
        kit_close();
    }
}

/* One that cannot get longer, as a device: the last cluster is written as far as it goes. */
static void test_data_file_of_fixed_length(void **state)
{
    uint8_t data[512];

    tools_create("ours.qcow2", "size=1049088,data_file=ours.data");
    struct block_backend *be =
        kit_drive("driver=qcow2,file.driver=file,file.filename=ours.qcow2,if=none,"
                  "data-file.driver=raw,data-file.size=1049088,data-file.file.driver=file,"
                  "data-file.file.filename=ours.data");
    memset(data, 5, sizeof(data));
    assert_int_equal(kit_write(be, MiB, data, sizeof(data)), 0);
    kit_close();
    be = open_image();
    assert_int_equal(kit_read(be, MiB, data, sizeof(data)), 0);
    assert_int_equal(data[511], 5);
    kit_close();
    assert_int_equal(kit_file_size("ours.data"), 1049088);
}

static void test_snapshots(void **state)
{
    uint8_t data[4096];

    if (!tools_have_qemu_img()) {
        skip();
    }
    memset(data, 9, sizeof(data));
    tools_create("ours.qcow2", "size=8M,compat=0.10");
    tools_must("qemu-img snapshot -c s ours.qcow2");
    open_image();
    refuse(9 * MiB, BLOCK_PREALLOC_OFF, "Can't resize a v2 image which has snapshots");
    kit_close();

    tools_create("ours.qcow2", "size=8M,cluster_size=4096");
    struct block_backend *be = open_image();
    for (uint64_t at = 0; at < 8 * MiB; at += MiB / 2) {
        assert_int_equal(kit_write(be, at, data, sizeof(data)), 0);
    }
    kit_close();
    tools_must("qemu-img snapshot -c s ours.qcow2");
    open_image();
    resize(MiB, BLOCK_PREALLOC_OFF);
    resize(32 * MiB, BLOCK_PREALLOC_METADATA);
    kit_close();
    tools_check("ours.qcow2", false);
    tools_must("qemu-img snapshot -a s ours.qcow2");
    tools_check("ours.qcow2", false);
    be = open_image();
    for (uint64_t at = 0; at < 8 * MiB; at += MiB / 2) {
        assert_int_equal(kit_read(be, at, data, sizeof(data)), 0);
        assert_int_equal(data[0], 9);
    }
    kit_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_random, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_large, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_file_shrinks, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_behind_the_end, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_data_file_length, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_data_file_of_fixed_length, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_snapshots, kit_setup, kit_teardown),
    };

    return cmocka_run_group_tests(tests, tools_enter_directory, tools_leave_directory);
}
