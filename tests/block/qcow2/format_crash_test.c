/* SPDX-License-Identifier: MIT */
/*
 * Power fails, or the disk, while an image gets another size, other options, other backing names, is
 * emptied, or keeps bitmaps. After a crash the image has no errors, its size is the old one or the
 * new one, and each of its bytes is what it was or what it shall be; bitmaps are right or say that
 * they are not. After an error the operation says so, and the same holds. What it says is done is
 * on the disk.
 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/bitmap.h"
#include "block/qcow2/format.h"
#include "disk.h"
#include "image_kit.h"
#include "qkit.h"
#include "tools.h"

#define DISK  "driver=qcow2,file.driver=disk"
#define LIMIT (24 * MiB)
#define MOST  (8 * MiB)

/* ---- operations -------------------------------------------------------------------------------- */

struct op {
    const char *name;
    const char *options; /* of the image before */
    bool (*run)(struct block_node *node, const struct op *op, struct error **errp);
    const char *text;
    uint64_t length;
    enum block_prealloc prealloc;
    bool snapshot;       /* there is one, of the same contents */
    const char *backing; /* there is one of this name */
};

struct resizing {
    struct block_node *node;
    const struct op *op;
    struct error **errp;
};

static int co_resize(void *opaque)
{
    struct resizing *r = opaque;

    return block_co_truncate(r->node, r->op->length, r->op->prealloc, r->errp);
}

static bool resize(struct block_node *node, const struct op *op, struct error **errp)
{
    struct resizing r = {node, op, errp};

    return block_run(co_resize, &r) == 0;
}

static bool amend(struct block_node *node, const struct op *op, struct error **errp)
{
    struct options *opts = options_parse(op->text, NULL, errp);
    bool ok = node->driver->image->amend(node, opts, false, NULL, NULL, errp);

    options_free(opts);
    return ok;
}

static bool rename_backing(struct block_node *node, const struct op *op, struct error **errp)
{
    return node->driver->image->change_backing(node, op->text, op->text ? "raw" : NULL, errp);
}

static bool make_empty(struct block_node *node, const struct op *op, struct error **errp)
{
    return node->driver->image->make_empty(node, errp);
}

/* One that is kept, one that goes, one that changes. */
static bool keep_bitmaps(struct block_node *node, const struct op *op, struct error **errp)
{
    struct block_bitmap *bitmap = block_bitmap_find(node, "new");

    if (!bitmap) {
        bitmap = block_bitmap_new(node, "new", 512, errp);
        bitmap->persistent = true;
    }
    block_bitmap_set(bitmap, 0, MiB);
    if (block_bitmap_find(node, "gone")) {
        block_bitmap_free(node, block_bitmap_find(node, "gone"));
    }
    if (block_bitmap_find(node, "old")) {
        block_bitmap_set(block_bitmap_find(node, "old"), 0, 2 * MiB);
    }
    return node->driver->image->keep_bitmaps(node, errp);
}

static const struct op ops[] = {
    {"grow", "cluster_size=512", resize, .length = 7 * MiB},
    {"grow with data", "cluster_size=4k", resize, .length = 6 * MiB, .prealloc = 3},
    {"grow with metadata", "cluster_size=4k,lazy_refcounts=on", resize, .length = 6 * MiB,
     .prealloc = 1},
    {"shrink", "cluster_size=4k", resize, .length = MiB + 512},
    {"shrink tables", "cluster_size=512,refcount_bits=1", resize, .length = 65536},
    {"shrink with a snapshot", "cluster_size=4k", resize, .length = MiB, .snapshot = true},
    {"wider refcounts", "cluster_size=4k", amend, "refcount_bits=64"},
    {"narrower refcounts", "cluster_size=512", amend, "refcount_bits=1"},
    {"version 2", "cluster_size=4k", amend, "compat=0.10"},
    {"version 3", "cluster_size=4k,compat=0.10", amend,
     "compat=1.1,refcount_bits=8,lazy_refcounts=on"},
    {"backing name", "cluster_size=512", rename_backing, "base"},
    {"other backing name", "cluster_size=4k", rename_backing, "base", .backing = "the-middle"},
    {"longer backing name", "cluster_size=64k", rename_backing, "./././././././././base",
     .backing = "mid"},
    {"backing name, small clusters", "cluster_size=1k", rename_backing, "base",
     .backing = "the-middle"},
    {"no backing name", "cluster_size=4k", rename_backing, .backing = "the-middle"},
    {"bitmaps under a backing name", "cluster_size=4k", keep_bitmaps, .backing = "the-middle"},
    {"empty", "cluster_size=4k", make_empty},
    {"empty, lazy", "cluster_size=512,lazy_refcounts=on", make_empty},
    {"bitmaps", "cluster_size=512", keep_bitmaps},
    {"bitmaps, lazy", "cluster_size=4k,lazy_refcounts=on", keep_bitmaps},
};

/* ---- what an image has ------------------------------------------------------------------------- */

struct contents {
    uint64_t size;
    uint8_t bytes[MOST]; /* zeroes behind size */
};

static void read_contents(const char *name, struct contents *c)
{
    struct block_backend *be = image_backend(name, false);

    memset(c, 0, sizeof(*c));
    c->size = backend_length(be);
    assert_true(c->size <= MOST);
    assert_int_equal(kit_read(be, 0, c->bytes, c->size), 0);
    image_backend_close(be);
}

static bool is_in(const struct contents *now, const struct contents *c, uint64_t at, uint64_t n)
{
    return memcmp(now->bytes + at, c->bytes + at, n) == 0;
}

static void expect_between(const struct op *op, const struct contents *old,
                           const struct contents *new_)
{
    static struct contents now;

    read_contents("crashed", &now);
    if (now.size != old->size && now.size != new_->size) {
        fail_msg("%s: %llu bytes", op->name, (unsigned long long)now.size);
    }
    for (uint64_t i = 0; i < now.size; i++) {
        uint64_t n = MIN(now.size - i, 4096);
        if (i % 4096 == 0 && (is_in(&now, old, i, n) || is_in(&now, new_, i, n))) {
            i += n - 1; /* most are one of them as a whole */
            continue;
        }
        if (now.bytes[i] != old->bytes[i] && now.bytes[i] != new_->bytes[i]) {
            fail_msg("%s: byte %llu is %02x, was %02x, should be %02x", op->name,
                     (unsigned long long)i, now.bytes[i], old->bytes[i], new_->bytes[i]);
        }
    }
}

/* Right, or said to be wrong. */
static void check_bitmaps(const struct op *op)
{
    struct block_backend *be = image_backend("crashed", false);

    for (struct block_bitmap *b = backend_root(be)->bitmaps; b; b = b->next) {
        uint64_t count = b->inconsistent ? 0 : block_bitmap_count(b);
        if (count && count != MiB && count != 2 * MiB) {
            fail_msg("%s: bitmap '%s' has %llu dirty bytes", op->name, b->name,
                     (unsigned long long)count);
        }
    }
    image_backend_close(be);
}

/* Their names, whether they are wrong, and how much is dirty. */
static char *bitmaps_of(const char *name)
{
    struct block_backend *be = image_backend(name, false);
    char *text = xstrdup("");

    for (struct block_bitmap *b = backend_root(be)->bitmaps; b; b = b->next) {
        char *longer = xasprintf("%s%s: %d, %llu\n", text, b->name, b->inconsistent,
                                 (unsigned long long)block_bitmap_count(b));
        free(text);
        text = longer;
    }
    image_backend_close(be);
    return text;
}

/* Lazy refcounts: what opens the image for writing puts them right first. */
static void mend_if_dirty(void)
{
    uint8_t bits[8];

    kit_read_file("crashed", QCOW2_H_VERSION, bits, 4);
    if (bits[3] >= 3) {
        kit_read_file("crashed", QCOW2_H_INCOMPATIBLE, bits, 8);
        if (bits[7] & QCOW2_INCOMPAT_DIRTY) {
            image_backend_close(image_backend("crashed", true));
        }
    }
}

static void expect_fine(const struct op *op, const struct contents *old,
                        const struct contents *new_, bool ask_qemu)
{
    struct block_check_result result;

    mend_if_dirty();
    assert_true(ferry_check("crashed", 0, &result, NULL, NULL));
    if (result.check_errors || result.corruptions) {
        fail_msg("%s: %llu errors", op->name, (unsigned long long)result.corruptions);
    }
    if (ask_qemu) {
        assert_true(qemu_check("crashed", &result));
        assert_true(!result.check_errors && !result.corruptions);
    }
    expect_between(op, old, new_);
    check_bitmaps(op);
}

/* ---- the image before -------------------------------------------------------------------------- */

static void make_seed(const struct op *op)
{
    bool v2 = strstr(op->options, "compat=0.10");

    /* Backing files are all zeroes: whichever is named, the contents are the same. A name that is
     * neither does not open. */
    run("rm -f seed; truncate -s 8M base mid the-middle; "
        "qemu-img create -q -f qcow2 -o %s %s%s seed 4M && "
        "qemu-io -c 'write -q -P 1 0 1300k' -c 'write -q -P 2 3000k 900k' seed",
        op->options, op->backing ? "-F raw -b " : "", op->backing ? op->backing : "");
    if (!v2) {
        run("qemu-io -c 'write -q -z 1000k 100k' seed");
    }
    if (op->snapshot) {
        run("qemu-img snapshot -c s seed");
    }
    if (op->run == keep_bitmaps) {
        run("qemu-img bitmap --add -g 4k seed gone && qemu-img bitmap --add -g 512 seed old && "
            "qemu-io -c 'write -q -P 3 0 1M' seed");
    }
}

static bool operate(const struct op *op, struct block_backend *be, struct error **errp)
{
    return op->run(backend_root(be), op, errp);
}

/* ---- crashes ----------------------------------------------------------------------------------- */

/* Nothing is lost if power fails then. */
static void expect_durable(const struct op *op, const struct contents *new_, uint64_t when)
{
    autofree char *bitmaps = bitmaps_of("new");
    uint8_t header[512], was[512];
    struct block_check_result result;

    disk_crash("crashed", when, 0); /* no more than what was flushed */
    kit_read_file("crashed", 0, header, sizeof(header));
    kit_read_file("new", 0, was, sizeof(was));
    if (memcmp(header, was, sizeof(was))) {
        fail_msg("%s: another header", op->name);
    }
    expect_fine(op, new_, new_, false);
    autofree char *now = bitmaps_of("crashed");
    assert_string_equal(now, bitmaps);
    assert_true(ferry_check("crashed", 0, &result, NULL, NULL));
    assert_int_equal(result.leaks, 0);
}

static void test_crashes(void **state)
{
    static struct contents old, new_;

    for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
        const struct op *op = &ops[i];
        uint64_t random = 88172645463325252u + i;
        struct error *err = NULL;

        make_seed(op);
        disk_load("seed", LIMIT);
        uint64_t begin = disk_time();
        disk_set_log(true);
        struct block_backend *be = image_backend(DISK, true);
        if (!operate(op, be, &err)) {
            fail_msg("%s: %s", op->name, error_message(err));
        }
        uint64_t returned = disk_time();
        image_backend_close(be);
        uint64_t end = disk_time();
        disk_save("new");
        read_contents("seed", &old);
        read_contents("new", &new_);
        unsigned count = 20 * qkit_scale();
        for (unsigned n = 0; n < count; n++) {
            disk_crash("crashed", begin + (end - begin) * n / count, kit_random(&random));
            expect_fine(op, &old, &new_, n % 10 == 0);
        }
        /* Bitmaps are whole when the image is closed. */
        expect_durable(op, &new_, op->run == keep_bitmaps ? end : returned);
        disk_unload();
    }
}

/* ---- failing disks ----------------------------------------------------------------------------- */

static struct {
    const char *name;
    enum disk_op op;
    bool has_no_space; /* every second error is ENOSPC */
    bool is_rare;      /* none is left out */
    unsigned count;    /* requests of the operation */
    unsigned met[2];   /* of all operations: how many failed with EIO, with ENOSPC */
} kinds[] = {
    {"write", DISK_WRITE, .has_no_space = true},
    {"flush", DISK_FLUSH, .has_no_space = true},
    {"truncate", DISK_TRUNCATE, .has_no_space = true, .is_rare = true},
    {"read", DISK_READ},
};

/* The n-th request of a kind fails. */
static void one_fails(const struct op *op, enum disk_op kind, unsigned n, int error,
                      const struct contents *old, const struct contents *new_)
{
    struct error *err = NULL;

    disk_load("seed", LIMIT);
    struct block_backend *be = image_backend(DISK, true);
    disk_fail(kind, n, 1, error);
    bool done = operate(op, be, &err);
    assert_true(disk_count(kind) >= n);
    if (done != !err) {
        fail_msg("%s: %s without a message", op->name, done ? "done, not" : "failed");
    }
    error_free(err);
    disk_fail(kind, 0, 0, 0);
    kit_capture_stderr();
    image_backend_close(be);
    free(kit_captured());
    disk_save("crashed");
    expect_fine(op, done ? new_ : old, new_, false);
    disk_unload();
}

/* The `first`-th request of each kind fails, and every `step`-th after it. */
static void each_fails(const struct op *op, unsigned first, unsigned step,
                       const struct contents *old, const struct contents *new_)
{
    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        unsigned *met = kinds[k].met, n = kinds[k].is_rare ? 1 : first;
        for (; n <= kinds[k].count; n += kinds[k].is_rare ? 1 : step) {
            bool no_space = kinds[k].has_no_space && met[0] > met[1];
            one_fails(op, kinds[k].op, n, no_space ? ENOSPC : EIO, old, new_);
            met[no_space]++;
        }
    }
}

/* What the operation makes of "seed" on a disk that works, and how many requests that takes. */
static void operate_and_count(const struct op *op)
{
    struct error *err = NULL;

    disk_load("seed", LIMIT);
    struct block_backend *be = image_backend(DISK, true);
    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        disk_fail(kinds[k].op, 0, 0, 0);
    }
    operate(op, be, &err);
    assert_null(err);
    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        kinds[k].count = disk_count(kinds[k].op);
    }
    image_backend_close(be);
    disk_save("new");
    disk_unload();
}

static void test_failures(void **state)
{
    static struct contents old, new_;
    unsigned step = qkit_scale() > 1 ? 1 : 3;

    for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
        make_seed(&ops[i]);
        operate_and_count(&ops[i]);
        read_contents("seed", &old);
        read_contents("new", &new_);
        each_fails(&ops[i], 1 + i % step, step, &old, &new_);
    }
    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        if (!kinds[k].met[0] || (kinds[k].has_no_space && !kinds[k].met[1])) {
            fail_msg("no %s failed with %s", kinds[k].name, kinds[k].met[0] ? "ENOSPC" : "EIO");
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_crashes, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(test_failures, kit_setup, kit_teardown),
    };

    if (!tools_have_qemu_img()) {
        puts("needs qemu-img (package qemu-utils)");
        return 77;
    }
    return cmocka_run_group_tests(tests, tools_enter_directory, tools_leave_directory);
}
