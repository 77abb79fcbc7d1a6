/* SPDX-License-Identifier: MIT */
/* Persistent bitmaps: qemu-img's read here, ours read by QEMU, kept through everything. */
#include "disk.h"
#include "tools.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"
#include "block/bitmap.h"
#include "block/image.h"

static struct block_node *open_image(const char *mode)
{
    kit_drive("file=ours.qcow2,format=qcow2,if=none,id=d,discard=unmap,node-name=image%s", mode);
    return block_node_find("image");
}

static struct block_bitmap *add(struct block_node *node, const char *name, uint32_t granularity)
{
    struct block_bitmap *bitmap = block_bitmap_new(node, name, granularity, NULL);

    assert_non_null(bitmap);
    bitmap->persistent = true;
    return bitmap;
}

static void keep(struct block_node *node)
{
    struct error *err = NULL;

    if (!node->driver->image->keep_bitmaps(node, &err)) {
        fail_msg("%s", error_message(err));
    }
}

static void write_at(uint64_t offset, uint64_t length)
{
    autofree uint8_t *data = xcalloc(1, length);

    memset(data, 0xab, length);
    assert_int_equal(kit_write(backend_find("d"), offset, data, length), 0);
}

/* What QEMU says about a bitmap: [{start, length, dirty}], merged. */
static json_t *qemu_map(const char *name)
{
    json_t *map = tools_json("nbdinfo --json --map=qemu:dirty-bitmap:%s -- "
                             "[ qemu-nbd -r -f qcow2 -B %s ours.qcow2 ]",
                             name, name);
    json_t *ranges = json_array(), *extent;
    size_t i;

    json_array_foreach(map, i, extent) {
        if (json_integer_value(json_object_get(extent, "type"))) {
            json_array_append_new(
                ranges, json_pack("[II]", json_integer_value(json_object_get(extent, "offset")),
                                  json_integer_value(json_object_get(extent, "length"))));
        }
    }
    json_decref(map);
    return ranges;
}

static json_t *our_map(const struct block_bitmap *bitmap)
{
    json_t *ranges = json_array();
    uint64_t start, length;

    for (uint64_t at = 0; block_bitmap_next_dirty(bitmap, at, &start, &length);
         at = start + length) {
        json_array_append_new(ranges, json_pack("[II]", (json_int_t)start, (json_int_t)length));
    }
    return ranges;
}

static void assert_same(const struct block_bitmap *bitmap, const char *name)
{
    json_t *ours = our_map(bitmap), *theirs = qemu_map(name);

    tools_assert_same_json(ours, theirs, name);
    json_decref(ours);
    json_decref(theirs);
}

static bool have_tools(void)
{
    return tools_have_qemu_img() && tools_run("nbdinfo --version && qemu-nbd --version") == 0;
}

/* ---- with QEMU -------------------------------------------------------------------------------- */

static void test_theirs(void **state)
{
    if (!have_tools()) {
        skip();
    }
    tools_must("qemu-img create -f qcow2 -o cluster_size=4k ours.qcow2 20M");
    tools_must("qemu-img bitmap --add -g 512 ours.qcow2 fine");
    tools_must("qemu-img bitmap --add --disable ours.qcow2 off");
    tools_must("qemu-io -c 'write 1M 3M' -c 'write 10000k 512' -c 'discard 15M 1M' ours.qcow2");
    struct block_node *node = open_image(",read-only=on");
    struct block_bitmap *fine = block_bitmap_find(node, "fine");
    assert_int_equal(fine->granularity, 512);
    assert_true(fine->enabled && fine->persistent && !fine->inconsistent);
    assert_true(block_bitmap_count(fine) >= 4 * MiB);
    assert_same(fine, "fine");
    struct block_bitmap *off = block_bitmap_find(node, "off");
    assert_int_equal(off->granularity, 4096);
    assert_int_equal(block_bitmap_new(node, "new", 0, NULL)->granularity, 4096);
    assert_false(off->enabled);
    assert_int_equal(block_bitmap_count(off), 0);
}

static void test_ours(void **state)
{
    static const char *const options[] = {
        "size=20M,cluster_size=512",
        "size=20M,cluster_size=65536,extended_l2=on",
        "size=20M,cluster_size=2M,lazy_refcounts=on,refcount_bits=1",
        "size=20M,data_file=ours.data",
    };

    if (!have_tools()) {
        skip();
    }
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        tools_create("ours.qcow2", options[i]);
        struct block_node *node = open_image("");
        add(node, "fine", 512);
        add(node, "coarse", MiB);
        add(node, "gone", 0);
        keep(node);
        write_at(5 * MiB + 512, 3 * MiB);
        write_at(20 * MiB - 512, 512);
        kit_zero(backend_find("d"), 12 * MiB, 65536, 0);
        block_bitmap_free(node, block_bitmap_find(node, "gone"));
        block_bitmap_find(node, "coarse")->enabled = false;
        write_at(0, 512);
        kit_close();
        tools_check("ours.qcow2", false);

        node = open_image(",read-only=on");
        assert_int_equal(block_bitmap_count(block_bitmap_find(node, "fine")),
                         3 * MiB + 512 + 65536 + 512);
        assert_int_equal(block_bitmap_count(block_bitmap_find(node, "coarse")), 6 * MiB);
        assert_null(block_bitmap_find(node, "gone"));
        assert_same(block_bitmap_find(node, "fine"), "fine");
        assert_same(block_bitmap_find(node, "coarse"), "coarse");
        kit_close();

        node = open_image(""); /* all of them removed */
        block_bitmaps_free(node);
        kit_close();
        tools_check("ours.qcow2", false);
        node = open_image("");
        assert_null(atomic_load(&node->bitmaps));
        kit_close();
    }
}

/* info as QEMU's. */
static void test_info(void **state)
{
    struct block_image_info info;

    if (!tools_have_qemu_img()) {
        skip();
    }
    tools_create("ours.qcow2", "size=1M");
    struct block_node *node = open_image("");
    add(node, "a", 4096);
    add(node, "b", 0)->enabled = false;
    kit_close();
    json_t *theirs = tools_json("qemu-img info --output=json ours.qcow2");
    node = open_image(",read-only=on");
    block_image_info(node, &info);
    tools_assert_same_json(info.specific, json_object_get(theirs, "format-specific"), "info");
    json_decref(theirs);
    block_image_info_free(&info);
}

static void test_resize_keeps(void **state)
{
    if (!have_tools()) {
        skip();
    }
    tools_create("ours.qcow2", "size=20M");
    struct block_node *node = open_image("");
    add(node, "b", 4096);
    write_at(0, 20 * MiB);
    kit_close();
    tools_must("qemu-img resize --shrink ours.qcow2 3M");
    node = open_image("");
    assert_int_equal(block_bitmap_count(block_bitmap_find(node, "b")), 3 * MiB);
    kit_close();
    tools_check("ours.qcow2", false);
}

/* ---- in use ---------------------------------------------------------------------------------- */

/* The image as a crash leaves it while it is open. */
static void test_in_use(void **state)
{
    tools_create("ours.qcow2", "size=4M");
    struct block_node *node = open_image("");
    add(node, "b", 4096);
    keep(node);
    write_at(0, 4096);
    kit_flush(backend_find("d"));
    tools_must("cp ours.qcow2 crash.qcow2");
    kit_close();
    tools_must("mv crash.qcow2 ours.qcow2");
    for (unsigned i = 0; i < 2; i++) { /* it stays so, whoever opens it */
        if (tools_have_qemu_img()) {
            tools_check("ours.qcow2", true);
            tools_must("qemu-img info ours.qcow2 | grep in-use");
        }
        node = open_image("");
        struct block_bitmap *bitmap = block_bitmap_find(node, "b");
        assert_true(bitmap->inconsistent);
        write_at(8192, 512);
        kit_close();
    }
    node = open_image("");
    block_bitmap_free(node, block_bitmap_find(node, "b"));
    keep(node);
    add(node, "b", 512);
    kit_close();
    node = open_image(",read-only=on");
    assert_false(block_bitmap_find(node, "b")->inconsistent);
    kit_close();
    if (tools_have_qemu_img()) {
        tools_check("ours.qcow2", true);
    }
}

/* What power failure leaves now says that the bitmaps of the image are in use. */
static void assert_in_use_on_disk(void)
{
    disk_save("crash.qcow2");
    kit_capture_stderr();
    kit_blockdev("driver=qcow2,node-name=crashed,read-only=on,file.driver=file,"
                 "file.filename=crash.qcow2");
    struct block_node *crashed = block_node_find("crashed");
    assert_true(block_bitmap_find(crashed, "a")->inconsistent);
    block_node_unref(crashed);
    free(kit_captured());
}

static struct block_node *open_disk(void)
{
    disk_load("good.qcow2", 16 * MiB);
    kit_blockdev("driver=qcow2,node-name=n,file.driver=disk,file.node-name=below");
    return block_node_find("n");
}

static int write_more(struct block_node *node)
{
    uint8_t data[4096] = {1};
    struct block_backend *be = backend_attach(node->name, "writer", true, false, NULL);
    assert_non_null(be);
    int ret = kit_write(be, MiB, data, sizeof(data));
    ret = ret ? ret : kit_flush(be);
    backend_detach(be);
    return ret;
}

static void make_good(void)
{
    tools_create("ours.qcow2", "size=4M");
    add(open_image(""), "a", 4096);
    kit_close();
    tools_must("mv ours.qcow2 good.qcow2");
}

/* It stored the bitmaps, and then what is below refused: writes go on. */
static void test_reopen_refused_below(void **state)
{
    struct error *err = NULL;

    make_good();
    struct block_node *node = open_disk();
    assert_int_equal(write_more(node), 0);
    disk_refuse_reopen();
    assert_false(block_node_reopen(node, node->flags & ~BLOCK_OPEN_RDWR, &err));
    kit_assert_error(err, "The disk refuses");
    assert_true(node->flags & BLOCK_OPEN_RDWR && node->file->flags & BLOCK_OPEN_RDWR);
    assert_in_use_on_disk();
    assert_int_equal(write_more(node), 0);
    assert_true(block_bitmap_get(block_bitmap_find(node, "a"), MiB));
    assert_true(block_node_reopen(node, node->flags & ~BLOCK_OPEN_RDWR, NULL));
    kit_close();
    disk_save("ours.qcow2");
    assert_false(block_bitmap_find(open_image(",read-only=on"), "a")->inconsistent);
    kit_close();
    disk_unload();
}

/* It failed itself, at each request. */
static void test_reopen_fails(void **state)
{
    bool failed = true;

    make_good();
    for (unsigned at = 1; failed; at++) {
        for (enum disk_op op = DISK_WRITE; op <= DISK_FLUSH; op += DISK_FLUSH - DISK_WRITE) {
            struct block_node *node = open_disk();
            assert_int_equal(write_more(node), 0);
            disk_fail(op, at, 1, EIO);
            kit_capture_stderr();
            bool ok = block_node_reopen(node, node->flags & ~BLOCK_OPEN_RDWR, NULL);
            free(kit_captured());
            failed = op == DISK_WRITE ? !ok : failed || !ok;
            disk_fail(op, 0, 0, 0);
            if (!ok) {
                assert_in_use_on_disk();
                assert_int_equal(write_more(node), 0);
            }
            kit_close();
            disk_unload();
        }
    }
}

/* Opened and closed without a change: the same bitmap, no leak, no growth. */
static void test_unchanged(void **state)
{
    tools_create("ours.qcow2", "size=64M,cluster_size=512");
    struct block_node *node = open_image("");
    block_bitmap_set(add(node, "b", 512), 0, 64 * MiB);
    kit_close();
    open_image("");
    kit_close();
    uint64_t size = kit_file_size("ours.qcow2");
    for (unsigned i = 0; i < 5; i++) {
        node = open_image("");
        assert_int_equal(block_bitmap_count(block_bitmap_find(node, "b")), 64 * MiB);
        kit_close();
    }
    assert_true(kit_file_size("ours.qcow2") <= size);
    if (tools_have_qemu_img()) {
        tools_check("ours.qcow2", false);
    }
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void refuse(const char *options, const char *name, uint32_t granularity, const char *message)
{
    struct error *err = NULL;

    tools_create("ours.qcow2", options);
    struct block_node *node = open_image("");
    assert_false(node->driver->image->can_keep_bitmap(node, name, granularity, &err));
    kit_assert_error(err, message);
    kit_close();
}

static void test_refusals(void **state)
{
    refuse("size=1M,compat=0.10", "b", 0,
           "Can't make bitmap 'b' persistent in 'ours.qcow2': Cannot store dirty bitmaps in qcow2 "
           "v2 files");
    refuse("size=64T", "b", 512,
           "Can't make bitmap 'b' persistent in 'ours.qcow2': Too much space will be occupied by "
           "the bitmap. Use larger granularity");
    refuse("size=1M", "b", 1000,
           "Can't make bitmap 'b' persistent in 'ours.qcow2': Granularity must be a power of 2 "
           "from 512 to 2147483648");
    refuse("size=1M", "", 0,
           "Can't make bitmap '' persistent in 'ours.qcow2': The name must have 1 to 1023 bytes");
}

/* ---- hostile --------------------------------------------------------------------------------- */

static void poke(uint64_t offset, const void *bytes, size_t size)
{
    FILE *file = fopen("ours.qcow2", "r+");

    assert_non_null(file);
    assert_int_equal(fseek(file, (long)offset, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

/* Where the directory is: behind the extension's type and length. */
static uint64_t find_dir(uint64_t *extension)
{
    uint8_t header[512];

    kit_read_file("ours.qcow2", 0, header, sizeof(header));
    for (uint64_t at = 112; at + 32 <= sizeof(header);
         at += 8 + align_up(load_be32(header + at + 4), 8)) {
        if (load_be32(header + at) == 0x23852875) {
            *extension = at + 8;
            return load_be64(header + at + 24);
        }
    }
    fail_msg("no bitmaps extension");
    return 0;
}

/* Opens it if that works, writable, and closes it again. */
static void try_open(void)
{
    struct error *err = NULL;
    const struct block_image_how how = {
        .filename = "ours.qcow2", .format = "qcow2", .writable = true, .user = "test"};

    kit_capture_stderr();
    struct block_backend *be = block_image_open(&how, &err);
    if (be) {
        block_image_close(be);
    }
    error_free(err);
    free(kit_captured());
}

static void test_hostile(void **state)
{
    uint8_t saved[96], table[8];
    uint64_t extension, seed = 11;

    tools_create("ours.qcow2", "size=4M,cluster_size=512");
    struct block_node *node = open_image("");
    block_bitmap_set(add(node, "a", 512), 0, MiB);
    add(node, "b", 4096);
    kit_close();
    tools_must("cp ours.qcow2 good.qcow2");
    uint64_t dir = find_dir(&extension);
    kit_read_file("ours.qcow2", dir, saved, 64);
    uint64_t table_offset = load_be64(saved);
    for (unsigned n = 0; n < 150; n++) {
        tools_must("cp good.qcow2 ours.qcow2");
        uint8_t byte = (uint8_t)kit_random(&seed);
        switch (n % 3) {
        case 0: /* an entry's fields */
            poke(dir + kit_random(&seed) % 56, &byte, 1);
            break;
        case 1: /* the extension */
            poke(extension + kit_random(&seed) % 24, &byte, 1);
            break;
        case 2: /* a table */
            store_be64(table, kit_random(&seed) >> kit_random(&seed) % 64);
            poke(table_offset + kit_random(&seed) % 4 * 8, table, 8);
            break;
        }
        try_open();
        try_open();
    }

    /* A flag that nobody knows: kept, but what the bits are is not known any more. */
    tools_must("cp good.qcow2 ours.qcow2");
    store_be32(table, 0x80000002);
    poke(dir + 12, table, 4);
    kit_capture_stderr();
    node = open_image("");
    assert_true(block_bitmap_find(node, "a")->inconsistent);
    assert_false(block_bitmap_find(node, "b")->inconsistent);
    kit_close();
    char *said = kit_captured();
    assert_non_null(strstr(said, "bitmap 'a' has unknown flags: it cannot be used, only removed"));
    free(said);
    dir = find_dir(&extension);
    kit_read_file("ours.qcow2", dir + 12, table, 4);
    assert_int_equal(load_be32(table), 0x80000003);
}

/* One that we do not understand is removed, and what it seemed to have is leaked: it may be
 * somebody else's by now. */
static void test_remove_faulty(void **state)
{
    uint8_t flags[4];
    uint64_t extension;

    if (!tools_have_qemu_img()) {
        skip();
    }
    tools_create("ours.qcow2", "size=4M,cluster_size=512");
    struct block_node *node = open_image("");
    block_bitmap_set(add(node, "a", 512), 0, MiB);
    block_bitmap_set(add(node, "b", 512), 0, MiB);
    kit_close();
    store_be32(flags, 0x80000002);
    poke(find_dir(&extension) + 12, flags, 4);
    kit_capture_stderr();
    node = open_image("");
    block_bitmap_free(node, block_bitmap_find(node, "a"));
    keep(node);
    block_bitmap_free(node, block_bitmap_find(node, "b")); /* goes without a trace */
    kit_close();
    char *said = kit_captured();
    assert_non_null(strstr(said, "what damaged bitmap 'a' has in the file is leaked"));
    assert_null(strstr(said, "damaged bitmap 'b'"));
    free(said);
    tools_check("ours.qcow2", true);
    assert_int_equal(tools_run("qemu-img check ours.qcow2 | grep '^2 leaked clusters'"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_theirs, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_ours, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_info, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_resize_keeps, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_in_use, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_reopen_refused_below, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_reopen_fails, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_unchanged, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_refusals, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_remove_faulty, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_hostile, kit_setup, kit_teardown),
    };

    return cmocka_run_group_tests(tests, tools_enter_directory, tools_leave_directory);
}
