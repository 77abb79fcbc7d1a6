/* SPDX-License-Identifier: MIT */
/*
 * Power fails while snapshots are made, applied and deleted, and while an image is repaired. Whatever
 * reached the disk then, sector by sector in any order between two flushes: the image must be the
 * old one or the new one, with all data of the disk and of all snapshots, without more leaks, and
 * free of errors (of repairs: the old errors, or none). After the operation it is the new one.
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
#define DURABLE 0 /* for disk_crash(): nothing that is not flushed */
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

static unsigned crashes, olds, news;

/* What an image may have after a crash or an error, and what its check may find. */
struct expected {
    const char *what;
    char *old, *new_;               /* old: NULL: it must be the new one */
    struct block_check_result seed; /* of the old one */
};

static void expect_no_more(const struct expected *e, const struct block_check_result *result)
{
    bool is_as_before = e->old && result->corruptions == e->seed.corruptions;

    if (result->check_errors || (result->corruptions && !is_as_before)) {
        fail_msg("%s: %llu errors", e->what, (unsigned long long)result->corruptions);
    }
    if (result->leaks > (e->old ? e->seed.leaks : 0)) {
        fail_msg("%s: %llu leaks, were %llu", e->what, (unsigned long long)result->leaks,
                 (unsigned long long)e->seed.leaks);
    }
}

static void expect_old_or_new(const struct expected *e, bool ask_qemu)
{
    struct block_check_result result;

    assert_true(ferry_check("crashed", 0, &result, NULL, NULL));
    expect_no_more(e, &result);
    char *now = contents_of("crashed");
    bool is_old = e->old && strcmp(now, e->old) == 0, is_new = strcmp(now, e->new_) == 0;
    if (!is_old && !is_new) {
        fail_msg("%s: was\n%s\nshould be\n%s\nis\n%s", e->what, e->old ? e->old : "(new)", e->new_,
                 now);
    }
    olds += is_old;
    news += is_new;
    free(now);
    if (ask_qemu) {
        assert_true(qemu_check("crashed", &result));
        expect_no_more(e, &result);
    }
}

/* Crashes at times between `begin` and now, and one now: all must have reached the disk. "seed":
 * the image as it was before. */
static void crash(const char *what, uint64_t begin)
{
    uint64_t end = disk_time(), random = 88172645463325252u + begin;
    unsigned count = 24 * qkit_scale();
    struct expected e = {.what = what};

    disk_save("new");
    e.old = contents_of("seed");
    e.new_ = contents_of("new");
    assert_true(ferry_check("seed", 0, &e.seed, NULL, NULL));
    /* Else the last one would show nothing. */
    assert_true(strcmp(e.old, e.new_) || e.seed.corruptions || e.seed.leaks);
    for (unsigned i = 0; i < count; i++) {
        uint64_t when = begin + (end - begin) * i / count;
        disk_crash("crashed", when, kit_random(&random));
        expect_old_or_new(&e, crashes++ % 16 == 0);
    }
    free(e.old);
    e.old = NULL;
    disk_crash("crashed", end, DURABLE);
    expect_old_or_new(&e, crashes++ % 16 == 0);
    free(e.new_);
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
    crash(what, begin);
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
    olds = news = 0;
    snapshots_of("cluster_size=4k");
    snapshots_of("cluster_size=512");
    snapshots_of("cluster_size=64k,compat=0.10");
    snapshots_of("cluster_size=16k,extended_l2=on,lazy_refcounts=on");
    assert_true(olds && news);
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
    struct block_check_result result;
    struct image image;

    make_seed();
    image_open(&image, "seed");
    spoil(&image);
    image_close(&image);
    disk_load("seed", LIMIT);
    uint64_t begin = disk_time();
    disk_set_log(true);
    assert_true(ferry_check(DISK, fix, &result, NULL, NULL));
    assert_int_equal(result.corruptions + result.leaks, 0);
    crash(what, begin);
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
    olds = news = 0;
    repair("no refcounts", FIX_ALL, no_refcounts);
    repair("wrong refcounts", FIX_ALL, wrong_refcounts);
    repair("leaks and flags", FIX_ALL, leaks);
    repair("leaks alone", BLOCK_CHECK_FIX_LEAKS, leaks_alone);
    repair("tables in each other", FIX_ALL, tables_in_each_other);
    assert_true(olds && news);
}

/* ---- failing disks ---------------------------------------------------------------------------- */

struct fault {
    enum disk_op kind;
    unsigned n; /* the n-th request of the kind fails; 0: none */
    int error;
};

struct outcome {
    bool done, failed; /* the operation; the request */
};

static struct outcome operate(const char *op, const char *name, struct fault fault)
{
    struct block_backend *be = image_backend(DISK, true);
    struct block_node *node = backend_root(be);
    const struct block_image_ops *ops = node->driver->image;
    char *text = (char *)(uintptr_t)name;
    struct block_snapshot snapshot = {.name = text};
    struct outcome outcome;
    struct error *err = NULL;

    disk_fail(fault.kind, fault.n, fault.n ? 1 : 0, fault.error);
    outcome.done = strcmp(op, "create") == 0  ? ops->snapshot_create(node, &snapshot, &err)
                   : strcmp(op, "apply") == 0 ? ops->snapshot_apply(node, name, &err)
                                              : ops->snapshot_delete(node, name, &err);
    outcome.failed = fault.n && disk_count(fault.kind) >= fault.n;
    assert_int_equal(outcome.done, !err);
    error_free(err);
    disk_fail(fault.kind, 0, 0, 0);
    image_backend_close(be);
    return outcome;
}

/* What the operation makes of "seed" on a disk that works. */
static struct expected expect_of(const char *op, const char *name)
{
    struct expected e = {.what = op};

    disk_load("seed", LIMIT);
    assert_true(operate(op, name, (struct fault){0}).done);
    disk_save("new");
    disk_unload();
    e.old = contents_of("seed");
    e.new_ = contents_of("new");
    assert_string_not_equal(e.old, e.new_);
    assert_true(ferry_check("seed", 0, &e.seed, NULL, NULL));
    return e;
}

/* False: there were not so many requests of the kind. */
static bool one_fails(struct expected e, const char *op, const char *name, struct fault fault)
{
    disk_load("seed", LIMIT);
    struct outcome outcome = operate(op, name, fault);
    disk_save("crashed");
    disk_unload();
    assert_true(!(outcome.done && outcome.failed));
    if (outcome.done) {
        e.old = NULL;
    } else if (fault.kind == DISK_READ) {
        e.new_ = e.old; /* writing the header, or the flush, may have worked */
    }
    expect_old_or_new(&e, false);
    return outcome.failed;
}

/* The n-th request of a kind fails, for all n. */
static void each_fails(enum disk_op kind, const char *op, const char *name, int error)
{
    struct expected e = expect_of(op, name);
    unsigned n = 1;

    while (one_fails(e, op, name, (struct fault){kind, n, error})) {
        n++;
    }
    assert_true(n > 1);
    free(e.old);
    free(e.new_);
}

static void disk_fails(void **state)
{
    olds = news = 0;
    make_seed();
    each_fails(DISK_WRITE, "create", "b", EIO);
    each_fails(DISK_WRITE, "apply", "a", ENOSPC);
    each_fails(DISK_WRITE, "delete", "a", EIO);
    each_fails(DISK_FLUSH, "create", "b", EIO);
    each_fails(DISK_FLUSH, "apply", "a", ENOSPC);
    each_fails(DISK_FLUSH, "delete", "a", EIO);
    each_fails(DISK_READ, "create", "b", EIO);
    each_fails(DISK_READ, "apply", "a", EIO);
    assert_true(olds && news);
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
