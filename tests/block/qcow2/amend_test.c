/* SPDX-License-Identifier: MIT */
/* Other format options, other backing names, all data dropped. */
#include "image_kit.h"
#include "tools.h"

#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/image.h"
#include "block/qcow2/format.h"

static const char *node_options = ""; /* more of them, each after a comma */

static struct block_node *open_image(void)
{
    kit_drive("file=ours.qcow2,format=qcow2,if=none,id=d,discard=unmap,node-name=image%s",
              node_options);
    return block_node_find("image");
}

static void amend(const char *options)
{
    struct block_node *node = open_image();
    struct options *opts = options_parse(options, NULL, NULL);
    struct error *err = NULL;

    if (!node->driver->image->amend(node, opts, false, NULL, NULL, &err)) {
        fail_msg("amend -o %s: %s", options, error_message(err));
    }
    options_free(opts);
    kit_close();
}

static void refuse(const char *options, const char *message)
{
    struct block_node *node = open_image();
    struct options *opts = options_parse(options, NULL, NULL);
    struct error *err = NULL;

    assert_false(node->driver->image->amend(node, opts, false, NULL, NULL, &err));
    assert_string_equal(error_message(err), message);
    error_free(err);
    options_free(opts);
    kit_close();
}

static void fill(uint64_t offset, uint64_t length, int byte)
{
    autofree uint8_t *data = xmalloc(length);

    memset(data, byte, length);
    assert_int_equal(kit_write(backend_find("d"), offset, data, length), 0);
}

static void expect(uint64_t offset, uint64_t length, int byte)
{
    autofree uint8_t *data = xmalloc(length);

    assert_int_equal(kit_read(backend_find("d"), offset, data, length), 0);
    for (uint64_t i = 0; i < length; i++) {
        assert_int_equal(data[i], byte);
    }
}

/* qemu-img finds nothing wrong, and these words in its info. */
static void check(const char *words)
{
    if (tools_have_qemu_img()) {
        tools_check("ours.qcow2", false);
        if (tools_run("qemu-img info ours.qcow2 | grep '%s'", words)) {
            fail_msg("no '%s' in qemu-img info", words);
        }
    }
}

/* ---- amend ----------------------------------------------------------------------------------- */

static void test_refcount_bits(void **state)
{
    static const unsigned widths[] = {1, 64, 2, 32, 4, 8, 16};

    tools_create("ours.qcow2", "size=20M,cluster_size=4096");
    open_image();
    fill(MiB, 9 * MiB, 5);
    kit_close();
    for (size_t i = 0; i < ARRAY_SIZE(widths); i++) {
        autofree char *options = xasprintf("refcount_bits=%u", widths[i]);
        autofree char *words = xasprintf("refcount bits: %u$", widths[i]);
        amend(options);
        check(words);
        open_image();
        expect(MiB, 9 * MiB, 5);
        fill(i * MiB / 2, 4096, 5);
        kit_close();
    }
}

static void test_versions(void **state)
{
    kit_make_file("base.raw", 4 * MiB);
    for (unsigned backed = 0; backed < 2; backed++) {
        tools_create("ours.qcow2", backed ? "size=4M,backing_file=base.raw,backing_fmt=raw"
                                          : "size=4M,lazy_refcounts=on");
        open_image();
        fill(0, MiB, 3);
        assert_int_equal(kit_zero(backend_find("d"), 65536, 65536, 0), 0);
        assert_int_equal(kit_zero(backend_find("d"), 2 * MiB, MiB, BLOCK_REQ_MAY_UNMAP), 0);
        kit_close();
        /* Data of zeroes it must be, whatever the node makes of zeroes that come from above. */
        node_options = backed ? ",detect-zeroes=unmap" : "";
        amend("compat=0.10");
        node_options = "";
        check("compat: 0.10");
        open_image();
        expect(65536, 65536, 0);
        expect(2 * MiB, MiB, 0);
        expect(0, 65536, 3);
        expect(131072, 65536, 3);
        kit_close();
        amend("compat=1.1,refcount_bits=8,lazy_refcounts=on");
        check("compat: 1.1");
        check("lazy refcounts: true");
        amend("lazy_refcounts=off");
        check("lazy refcounts: false");
        open_image();
        expect(65536, 65536, 0);
        fill(65536, 512, 9);
        kit_close();
        check("refcount bits: 8$");
        refuse("compat=0.10", "compat=0.10 requires refcount_bits=16");
        amend("compat=0.10,refcount_bits=16");
        check("refcount bits: 16$");
    }
}

/* The L2 table's entry for what is at 4 MiB. */
static void put_zeroes_behind_the_end(void)
{
    struct image image;

    image_open(&image, "ours.qcow2");
    image_put64(&image, image.l2 + 64 * sizeof(uint64_t), QCOW2_ZERO);
    image_close(&image);
}

static void test_zeroes_behind_the_end(void **state)
{
    struct image image;

    tools_create("ours.qcow2", "size=4M");
    open_image();
    fill(0, 65536, 3);
    kit_close();
    put_zeroes_behind_the_end();
    amend("compat=0.10");
    image_open(&image, "ours.qcow2");
    assert_int_equal(image_get64(&image, image.l2 + 64 * sizeof(uint64_t)), 0);
    image_close(&image);
    check("compat: 0.10");
    amend("size=8M");
    open_image();
    expect(0, 65536, 3);
    expect(65536, 8 * MiB - 65536, 0);
    kit_close();

    if (tools_have_qemu_img()) {
        tools_create("ours.qcow2", "size=4M");
        open_image();
        fill(0, 65536, 3);
        kit_close();
        tools_must("qemu-img snapshot -c s ours.qcow2");
        put_zeroes_behind_the_end(); /* of the table that the snapshot has, too */
        refuse("compat=0.10", "Snapshot 's' has zero clusters, which version 2 does not know; "
                              "delete it first");
    }
}

/* A table of one snapshot, as tools wrote it that knew nothing of extra data: 0 bytes of it, or
 * just the size of the VM's state. */
static void test_snapshot_without_size(void **state)
{
    struct block_check_result result;
    struct image image;

    if (!tools_have_qemu_img()) {
        skip();
    }
    for (unsigned extra = 0; extra <= 8; extra += 8) {
        uint8_t tail[16] = {0};
        tools_create("ours.qcow2", "size=4M,compat=0.10");
        open_image();
        fill(0, MiB, 3);
        kit_close();
        tools_must("qemu-img snapshot -c s ours.qcow2");
        image_open(&image, "ours.qcow2");
        image_put32(&image, image.snapshots + 36, extra);
        memcpy(tail + extra, "1s", 2);
        image_put(&image, image.snapshots + 40, tail, sizeof(tail));
        image_close(&image);
        amend("compat=1.1");
        check("compat: 1.1");
        assert_true(ferry_check("ours.qcow2", 0, &result, NULL, NULL));
        assert_int_equal(result.corruptions + result.leaks, 0);
        amend("size=16M");
        struct block_node *node = open_image();
        fill(0, MiB, 4);
        assert_true(node->driver->image->snapshot_apply(node, "s", NULL));
        assert_int_equal(block_length(node), 4 * MiB);
        expect(0, MiB, 3);
        kit_close();
        check("virtual size: 4 MiB");
    }
}

/* An L1 table of a snapshot that cannot be is not read. */
static void test_impossible_snapshots(void **state)
{
    static const struct {
        uint64_t l1_offset; /* 0: as it is */
        uint32_t l1_size;
        const char *message;
    } cases[] = {
        {0, UINT32_MAX, "Could not read snapshot 's': File too large"},
        {0, QCOW2_MAX_L1_BYTES / 8 + 1, "Could not read snapshot 's': File too large"},
        {0x10200, 1, "Could not read snapshot 's': Invalid argument"},
        {BIT64(40), 1, "Could not read snapshot 's': Input/output error"},
        {0, QCOW2_MAX_L1_BYTES / 8, NULL},
    };
    struct image image;

    if (!tools_have_qemu_img()) {
        skip();
    }
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        tools_create("ours.qcow2", "size=4M");
        tools_must("qemu-img snapshot -c s ours.qcow2");
        image_open(&image, "ours.qcow2");
        if (cases[i].l1_offset) {
            image_put64(&image, image.snapshots, cases[i].l1_offset);
        }
        image_put32(&image, image.snapshots + 8, cases[i].l1_size);
        if (!cases[i].message) { /* behind it all is zeroes */
            image_put64(&image, image.snapshots, BIT64(30));
            image_truncate(&image, 2 * GiB);
        }
        image_close(&image);
        if (cases[i].message) {
            refuse("compat=0.10", cases[i].message);
        } else {
            amend("compat=0.10");
        }
    }
}

static void test_size_and_data_file(void **state)
{
    tools_create("ours.qcow2", "size=4M");
    amend("size=6M");
    check("virtual size: 6 MiB");
    tools_create("ours.qcow2", "size=4M,data_file=one.raw,data_file_raw=on");
    open_image();
    fill(MiB, MiB, 8);
    kit_close();
    tools_must("mv one.raw two.raw");
    tools_must("cp two.raw one.raw");
    amend("data_file=two.raw,data_file_raw=off");
    tools_must("rm one.raw");
    check("data file: two.raw");
    check("data file raw: false");
    open_image();
    expect(MiB, MiB, 8);
    kit_close();
}

static void test_refusals(void **state)
{
    tools_create("ours.qcow2", "size=4M");
    refuse("compat=0.9", "Unknown compatibility level 0.9");
    refuse("refcount_bits=7", "Refcount width must be a power of two and may not exceed 64 bits");
    refuse("compat=0.10,refcount_bits=8",
           "Refcount widths other than 16 bits require compatibility level 1.1 or above (use "
           "compat=1.1 or greater)");
    refuse("compat=0.10,lazy_refcounts=on",
           "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 "
           "or greater)");
    refuse("data_file=x", "data-file can only be set for images that use an external data file");
    refuse("data_file_raw=on", "data-file-raw cannot be set on existing images");
    refuse("backing_file=x", "Cannot amend the backing file");
    refuse("size=1000", "The new size must be a multiple of 512");
    check("compat: 1.1"); /* as it was */
    tools_create("ours.qcow2", "size=4M,extended_l2=on");
    refuse("compat=0.10", "Cannot downgrade an image with incompatible features 0x10 set");
    if (tools_have_qemu_img()) {
        tools_create("ours.qcow2", "size=4M");
        tools_must("qemu-io -c 'write -z 0 64k' ours.qcow2 && qemu-img snapshot -c s ours.qcow2");
        refuse("compat=0.10", "Snapshot 's' has zero clusters, which version 2 does not know; "
                              "delete it first");
        tools_must("qemu-img bitmap --add ours.qcow2 b");
        refuse("compat=0.10", "Cannot downgrade an image with bitmaps, which version 2 cannot "
                              "keep; remove them first");
    }
}

/* ---- backing --------------------------------------------------------------------------------- */

static void change_backing(const char *name, const char *format)
{
    struct block_node *node = open_image();
    struct error *err = NULL;

    if (!node->driver->image->change_backing(node, name, format, &err)) {
        fail_msg("%s", error_message(err));
    }
    kit_close();
}

static void test_change_backing(void **state)
{
    kit_make_file("a.raw", 2 * MiB);
    kit_make_file("b.raw", 2 * MiB);
    tools_create("ours.qcow2", "size=2M");
    change_backing("a.raw", "raw");
    check("backing file: a.raw");
    check("backing file format: raw");
    change_backing("b.raw", "raw");
    check("backing file: b.raw");
    change_backing(NULL, NULL);
    if (tools_have_qemu_img()) {
        assert_int_not_equal(tools_run("qemu-img info ours.qcow2 | grep backing"), 0);
    }
    tools_create("ours.qcow2", "size=2M,cluster_size=512");
    struct block_node *node = open_image();
    struct error *err = NULL;
    char name[600];
    memset(name, 'x', sizeof(name));
    name[sizeof(name) - 1] = 0;
    assert_false(node->driver->image->change_backing(node, name, "raw", &err));
    kit_assert_error(err,
                     "The name of the backing file does not fit into the header of 'ours.qcow2'");
    kit_close();
    check("cluster_size: 512");
}

static void test_make_empty(void **state)
{
    static const char *const options[] = {
        "size=8M",
        "size=8M,cluster_size=512",
        "size=8M,lazy_refcounts=on,extended_l2=on",
    };
    struct error *err = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        tools_create("ours.qcow2", options[i]);
        struct block_node *node = open_image();
        fill(0, 5 * MiB, 1);
        if (!node->driver->image->make_empty(node, &err)) {
            fail_msg("%s", error_message(err));
        }
        expect(0, 8 * MiB, 0);
        fill(3 * MiB, 512, 2);
        kit_close();
        check("virtual size: 8 MiB");
        assert_true(kit_file_size("ours.qcow2") < MiB / 2);
        open_image();
        expect(3 * MiB, 512, 2);
        expect(4 * MiB, MiB, 0);
        kit_close();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_refcount_bits, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_versions, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_zeroes_behind_the_end, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_snapshot_without_size, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_impossible_snapshots, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_size_and_data_file, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_refusals, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_change_backing, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_make_empty, kit_setup, kit_teardown),
    };

    return cmocka_run_group_tests(tests, tools_enter_directory, tools_leave_directory);
}
