/* SPDX-License-Identifier: MIT */
/*
 * Power fails while snapshots are made, applied and deleted, and while an image is repaired. Whatever
 * reached the disk then, sector by sector in any order between two flushes: the image must be the
 * old one or the new one, with all data of the disk and of all snapshots, and free of errors (of
 * repairs: the old errors, or none).
 *
 * And the disk fails instead: the operation says so, and the image is the old one or the new one.
 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "block/qcow2/format.h"
#include "disk.h"
#include "image_kit.h"
#include "qkit.h"
#include "tools.h"

#define DISK    "driver=qcow2,file.driver=disk"
#define SIZE    MiB
#define LIMIT   (8 * MiB)
#define FIX_ALL (BLOCK_CHECK_FIX_LEAKS | BLOCK_CHECK_FIX_ERRORS)

/* ---- what an image has ------------------------------------------------------------------------ */

static void append(char **text, char *more)
{
    char *longer = xasprintf("%s%s", *text, more);

    free(*text);
    free(more);
    *text = longer;
}

static void append_contents(char **text, struct block_backend *be, const char *name)
{
    uint64_t size = backend_length(be), hash = 14695981039346656037u;
    uint8_t *data = xmalloc(size + 1);

    int ret = kit_read(be, 0, data, size);
    for (uint64_t i = 0; i < size && ret == 0; i++) {
        hash = (hash ^ data[i]) * 1099511628211u;
    }
    free(data);
    append(text, xasprintf("%s: %d, %llu bytes, %016llx\n", name, ret, (unsigned long long)size,
                           (unsigned long long)hash));
}

/* All data of the disk and of the snapshots, as a text to compare. */
static char *contents_of(const char *name)
{
    struct block_backend *be = image_backend(name, false);
    struct block_node *node = backend_root(be);
    struct block_snapshot *list;
    char *text = xstrdup("");

    append_contents(&text, be, "disk");
    size_t count = node->driver->image->snapshot_list(node, &list);
    image_backend_close(be);
    for (size_t i = 0; i < count; i++) {
        be = image_backend(name, false);
        snapshot_op(be, "load", list[i].id, NULL);
        append_contents(&text, be, list[i].name);
        image_backend_close(be);
    }
    block_snapshots_free(list, count);
    return text;
}

/* ---- crashes ---------------------------------------------------------------------------------- */

static unsigned crashes;

static void expect_old_or_new(const char *what, const char *old, const char *new_,
                              uint64_t old_errors, bool ask_qemu)
{
    struct block_check_result result;

    assert_true(ferry_check("crashed", 0, &result, NULL, NULL));
    if (result.check_errors || (result.corruptions && result.corruptions != old_errors)) {
        fail_msg("%s: %llu errors", what, (unsigned long long)result.corruptions);
    }
    char *now = contents_of("crashed");
    if (strcmp(now, old) && strcmp(now, new_)) {
        fail_msg("%s: was\n%s\nshould be\n%s\nis\n%s", what, old, new_, now);
    }
    free(now);
    if (ask_qemu) {
        assert_true(qemu_check("crashed", &result));
        assert_true(!result.check_errors &&
                    (!result.corruptions || result.corruptions == old_errors));
    }
}

/* Crashes at times between `begin` and now. "seed": the image as it was before. */
static void crash(const char *what, uint64_t begin, uint64_t old_errors)
{
    uint64_t end = disk_time(), random = 88172645463325252u + begin;
    unsigned count = 25 * qkit_scale();

    disk_save("new");
    char *old = contents_of("seed"), *new_ = contents_of("new");
    for (unsigned i = 0; i < count; i++) {
        uint64_t when = begin + (end - begin) * i / count;
        disk_crash("crashed", when, kit_random(&random));
        expect_old_or_new(what, old, new_, old_errors, crashes++ % 16 == 0);
    }
    free(old);
    free(new_);
}

/* ---- snapshots -------------------------------------------------------------------------------- */

static void fill(struct block_backend *be, uint64_t offset, uint64_t size, int byte)
{
    uint8_t *data = xmalloc(size);

    memset(data, byte, size);
    assert_int_equal(kit_write(be, offset, data, size), 0);
    free(data);
}

static void restart(void)
{
    disk_save("next");
    copy_file("next", "seed");
    disk_load("seed", LIMIT);
}

static void one_change(const char *op, const char *name)
{
    struct block_backend *be = image_backend(DISK, true);
    autofree char *what = xasprintf("%s %s", op, name);
    uint64_t begin = disk_time();

    disk_set_log(true);
    snapshot_op(be, op, name, NULL);
    crash(what, begin, 0);
    disk_set_log(false);
    fill(be, kit_pattern(begin) * 3000, 100000, kit_pattern(begin));
    image_backend_close(be);
    restart();
}

static void snapshots_of(const char *options)
{
    run("rm -f seed; qemu-img create -q -f qcow2 -o %s seed 1M", options);
    disk_load("seed", LIMIT);
    struct block_backend *be = image_backend(DISK, true);
    fill(be, 0, SIZE / 2, 1);
    fill(be, SIZE * 3 / 4, 10000, 2);
    image_backend_close(be);
    restart();
    one_change("create", "a");
    one_change("create", "b");
    one_change("apply", "a");
    one_change("create", "c");
    one_change("delete", "b");
    one_change("apply", "c");
    one_change("delete", "a");
    one_change("delete", "c");
    disk_unload();
    qkit_check_clean("seed");
}

static void snapshots_crash(void **state)
{
    snapshots_of("cluster_size=4k");
    snapshots_of("cluster_size=512");
    snapshots_of("cluster_size=64k,compat=0.10");
    snapshots_of("cluster_size=16k,extended_l2=on,lazy_refcounts=on");
}

/* ---- repairs ---------------------------------------------------------------------------------- */

static void make_seed(void)
{
    run("rm -f seed; qemu-img create -q -f qcow2 -o cluster_size=4k seed 1M && qemu-io -c 'write "
        "-q -P 1 0 600k' seed && qemu-img snapshot -c a seed && qemu-io -c 'write -q -P 2 100k "
        "200k' seed");
}

static void repair(const char *what, unsigned fix, void (*spoil)(struct image *image))
{
    struct block_check_result before, result;
    struct image image;

    make_seed();
    image_open(&image, "seed");
    spoil(&image);
    image_close(&image);
    assert_true(ferry_check("seed", 0, &before, NULL, NULL));
    assert_true(before.corruptions + before.leaks > 0);
    disk_load("seed", LIMIT);
    uint64_t begin = disk_time();
    disk_set_log(true);
    assert_true(ferry_check(DISK, fix, &result, NULL, NULL));
    assert_int_equal(result.corruptions + result.leaks, 0);
    crash(what, begin, before.corruptions);
    disk_unload();
}

static void no_refcounts(struct image *image)
{
    image_put64(image, image->reftable, 0);
}

static void wrong_refcounts(struct image *image)
{
    for (unsigned i = 10; i < 60; i += 3) {
        image_put16(image, image->refblock + 2 * i, (uint16_t)(i % 4));
    }
}

static void leaks(struct image *image)
{
    for (unsigned i = 10; i < 60; i += 3) {
        image_put16(image, image->refblock + 2 * i, 3);
    }
    for (unsigned i = 0; i < 200; i++) {
        uint64_t entry = image_get64(image, image->l2 + 8 * i);
        image_put64(image, image->l2 + 8 * i, entry & ~QCOW2_COPIED);
    }
}

static void leaks_alone(struct image *image)
{
    for (unsigned i = 30; i < 150; i += 7) {
        image_put64(image, image->l2 + 8 * i, 0);
    }
}

static void tables_in_each_other(struct image *image)
{
    image_put64(image, image->l2, image->l2 | QCOW2_COPIED);
    image_put64(image, image->l2 + 8, image->refblock | QCOW2_COPIED);
    image_put64(image, image->l2 + 16, image->l1 | QCOW2_COPIED);
    image_put64(image, image->l2 + 24, image->snapshots | QCOW2_COPIED);
}

static void repairs_crash(void **state)
{
    repair("no refcounts", FIX_ALL, no_refcounts);
    repair("wrong refcounts", FIX_ALL, wrong_refcounts);
    repair("leaks and flags", FIX_ALL, leaks);
    repair("leaks alone", BLOCK_CHECK_FIX_LEAKS, leaks_alone);
    repair("tables in each other", FIX_ALL, tables_in_each_other);
}

/* ---- failing disks ---------------------------------------------------------------------------- */

/* The n-th request of a kind fails, for all n. */
static void each_fails(enum disk_op kind, const char *op, const char *name, int error)
{
    bool failed = true;

    char *old = contents_of("seed");
    for (unsigned n = 1; failed; n++) {
        disk_load("seed", LIMIT);
        struct block_backend *be = image_backend(DISK, true);
        struct block_node *node = backend_root(be);
        const struct block_image_ops *ops = node->driver->image;
        char *text = (char *)(uintptr_t)name;
        struct block_snapshot snapshot = {.name = text};
        struct error *err = NULL;
        disk_fail(kind, n, 1, error);
        bool done = strcmp(op, "create") == 0  ? ops->snapshot_create(node, &snapshot, &err)
                    : strcmp(op, "apply") == 0 ? ops->snapshot_apply(node, name, &err)
                                               : ops->snapshot_delete(node, name, &err);
        failed = disk_count(kind) >= n;
        assert_int_equal(done, !err);
        error_free(err);
        disk_fail(kind, 0, 0, 0);
        image_backend_close(be);
        disk_save("crashed");
        char *now = contents_of("crashed");
        assert_true(!(done && failed));
        if (kind == DISK_READ && !done) {
            assert_string_equal(now, old); /* writing the header, or the flush, may have worked */
        }
        free(now);
        struct block_check_result result;
        assert_true(ferry_check("crashed", 0, &result, NULL, NULL));
        assert_int_equal(result.corruptions, 0);
        disk_unload();
    }
    free(old);
}

static void disk_fails(void **state)
{
    make_seed();
    each_fails(DISK_WRITE, "create", "b", EIO);
    each_fails(DISK_WRITE, "apply", "a", ENOSPC);
    each_fails(DISK_WRITE, "delete", "a", EIO);
    each_fails(DISK_FLUSH, "create", "b", EIO);
    each_fails(DISK_FLUSH, "delete", "a", EIO);
    each_fails(DISK_READ, "create", "b", EIO);
    each_fails(DISK_READ, "apply", "a", EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(snapshots_crash, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(repairs_crash, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(disk_fails, kit_setup, kit_teardown),
    };

    if (!tools_have_qemu_img()) {
        puts("needs qemu-img (package qemu-utils)");
        return 77;
    }
    return cmocka_run_group_tests(tests, tools_enter_directory, tools_leave_directory);
}
