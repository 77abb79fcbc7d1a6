/* SPDX-License-Identifier: MIT */
/*
 * Internal snapshots beside qemu-img: either makes them, applies them, deletes them; the guest
 * writes through ferry in between. What a model says is what the disk and all snapshots must have,
 * and qemu-img check must find nothing.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "block/qcow2/format.h"
#include "image_kit.h"
#include "qkit.h"
#include "tools.h"

/* ---- the model -------------------------------------------------------------------------------- */

#define MAX_DISK      (6 * MiB)
#define MAX_SNAPSHOTS 6

struct contents {
    char *name; /* NULL: none */
    uint64_t size;
    uint8_t *data; /* MAX_DISK bytes */
};

static struct {
    struct contents disk, snapshots[MAX_SNAPSHOTS];
    unsigned made;
    uint64_t random;
} m;

static uint64_t below(uint64_t limit)
{
    return kit_random(&m.random) % limit;
}

static void set(struct contents *to, const struct contents *from, const char *name)
{
    if (!to->data) {
        to->data = xmalloc(MAX_DISK);
    }
    memcpy(to->data, from->data, MAX_DISK);
    to->size = from->size;
    free(to->name);
    to->name = name ? xstrdup(name) : NULL;
}

static struct contents *any_snapshot(void)
{
    unsigned first = (unsigned)below(MAX_SNAPSHOTS);

    for (unsigned i = 0; i < MAX_SNAPSHOTS; i++) {
        struct contents *s = &m.snapshots[(first + i) % MAX_SNAPSHOTS];
        if (s->name) {
            return s;
        }
    }
    return NULL;
}

static void model_begin(uint64_t size, uint64_t seed)
{
    m.disk = (struct contents){.size = size, .data = xcalloc(1, MAX_DISK)};
    m.random = seed;
    m.made = 0;
}

static void model_end(void)
{
    for (unsigned i = 0; i < MAX_SNAPSHOTS; i++) {
        free(m.snapshots[i].name);
        free(m.snapshots[i].data);
        m.snapshots[i] = (struct contents){0};
    }
    free(m.disk.data);
}

/* ---- steps ------------------------------------------------------------------------------------ */

static void write_some(struct block_backend *be)
{
    uint64_t offset = below(m.disk.size), length = 1 + below(200000);
    uint64_t size = MIN(length, m.disk.size - offset);
    unsigned how = (unsigned)below(4);

    if (how == 0) {
        assert_int_equal(kit_zero(be, offset, size, BLOCK_REQ_MAY_UNMAP), 0);
        memset(m.disk.data + offset, 0, size);
        return;
    }
    memset(m.disk.data + offset, 1 + (int)below(255), size);
    assert_int_equal(kit_write(be, offset, m.disk.data + offset, size), 0);
}

/* The image is open in ferry or in qemu-img, never in both. */
static void change(struct block_backend **be, const char *op, const char *option, const char *name)
{
    if (below(2)) {
        snapshot_op(*be, op, name, NULL);
        return;
    }
    image_backend_close(*be);
    run("qemu-img snapshot %s %s q", option, name);
    *be = image_backend("q", true);
}

static void step(struct block_backend **be)
{
    char name[16];
    struct contents *s;

    switch (below(8)) {
    default:
        write_some(*be);
        return;
    case 5:
        for (s = m.snapshots; s < m.snapshots + MAX_SNAPSHOTS && s->name; s++) {
        }
        if (s < m.snapshots + MAX_SNAPSHOTS) {
            snprintf(name, sizeof(name), "s%u", ++m.made);
            change(be, "create", "-c", name);
            set(s, &m.disk, name);
        }
        return;
    case 6:
        s = any_snapshot();
        if (s) {
            change(be, "apply", "-a", s->name);
            set(&m.disk, s, NULL);
        }
        return;
    case 7:
        s = any_snapshot();
        if (s) {
            change(be, "delete", "-d", s->name);
            free(s->name);
            s->name = NULL;
        }
        return;
    }
}

/* ---- what must be ----------------------------------------------------------------------------- */

static void expect_contents(struct block_backend *be, const struct contents *c)
{
    uint8_t *data = xmalloc(MAX_DISK);

    assert_int_equal(backend_length(be), c->size);
    assert_int_equal(kit_read(be, 0, data, c->size), 0);
    assert_memory_equal(data, c->data, c->size);
    free(data);
}

static void expect_all(struct block_backend **be)
{
    struct block_check_result result;

    expect_contents(*be, &m.disk);
    image_backend_close(*be);
    assert_true(qemu_check("q", &result));
    assert_int_equal(result.corruptions + result.leaks + result.check_errors, 0);
    assert_true(ferry_check("q", 0, &result, NULL, NULL));
    assert_int_equal(result.corruptions + result.leaks + result.check_errors, 0);
    run("qemu-img convert -f qcow2 -O raw q disk");
    uint8_t *data = xmalloc(MAX_DISK);
    kit_read_file("disk", 0, data, m.disk.size);
    assert_memory_equal(data, m.disk.data, m.disk.size);
    free(data);
    for (unsigned i = 0; i < MAX_SNAPSHOTS; i++) {
        if (m.snapshots[i].name) {
            *be = image_backend("q", false);
            snapshot_op(*be, "load", m.snapshots[i].name, NULL);
            expect_contents(*be, &m.snapshots[i]);
            image_backend_close(*be);
        }
    }
    *be = image_backend("q", true);
}

static void random_steps(void **state)
{
    static const char *const options[] = {
        "cluster_size=64k",
        "cluster_size=512",
        "cluster_size=4k,refcount_bits=8",
        "compat=0.10,cluster_size=4k",
        "extended_l2=on,cluster_size=16k",
        "cluster_size=2M,refcount_bits=64",
        "cluster_size=4k,lazy_refcounts=on",
    };

    for (unsigned i = 0; i < ARRAY_SIZE(options) * qkit_scale(); i++) {
        model_begin(4 * MiB, 77 + i);
        run("rm -f q; qemu-img create -q -f qcow2 -o %s q 4M", options[i % ARRAY_SIZE(options)]);
        struct block_backend *be = image_backend("q", true);
        for (unsigned n = 1; n <= 60; n++) {
            step(&be);
            if (n % 15 == 0) {
                expect_all(&be);
            }
        }
        image_backend_close(be);
        model_end();
    }
}

/* ---- sizes ------------------------------------------------------------------------------------ */

static void applying_restores_the_size(void **state)
{
    static const char pattern[] = "at the end";
    char back[sizeof(pattern)];
    struct block_check_result result;

    run("rm -f q; qemu-img create -q -f qcow2 -o cluster_size=4k q 4M && qemu-img snapshot -c "
        "small "
        "q && qemu-img resize -q q 40M && qemu-io -c 'write -q 30M 1M' q");
    struct block_backend *be = image_backend("q", true);
    assert_int_equal(kit_write(be, 40 * MiB - sizeof(pattern), pattern, sizeof(pattern)), 0);
    snapshot_op(be, "create", "large", NULL);
    snapshot_op(be, "apply", "small", NULL);
    assert_int_equal(backend_length(be), 4 * MiB);
    image_backend_close(be);
    assert_true(qemu_check("q", &result));
    assert_int_equal(result.corruptions + result.leaks, 0);
    run("qemu-img info q | grep -q 'virtual size: 4 MiB'");
    be = image_backend("q", true);
    snapshot_op(be, "apply", "large", NULL);
    assert_int_equal(backend_length(be), 40 * MiB);
    assert_int_equal(kit_read(be, 40 * MiB - sizeof(pattern), back, sizeof(pattern)), 0);
    assert_memory_equal(pattern, back, sizeof(pattern));
    /* Everything can be written after it. */
    assert_int_equal(kit_write(be, 0, pattern, sizeof(pattern)), 0);
    image_backend_close(be);
    assert_true(qemu_check("q", &result));
    assert_int_equal(result.corruptions + result.leaks, 0);
}

/* ---- names and refusals ------------------------------------------------------------------------ */

static void lists_as_qemu(void **state)
{
    struct block_snapshot *list;

    run("rm -f q; qemu-img create -q -f qcow2 q 4M && qemu-img snapshot -c one q");
    struct block_backend *be = image_backend("q", true);
    snapshot_op(be, "create", "two", NULL);
    snapshot_op(be, "create", "one", NULL); /* a second one of that name */
    snapshot_op(be, "create", "1", NULL);   /* the first one's ID */
    struct block_node *node = backend_root(be);
    size_t count = node->driver->image->snapshot_list(node, &list);
    assert_int_equal(count, 4);
    assert_string_equal(list[2].id, "3");
    assert_string_equal(list[2].name, "one");
    assert_int_equal(list[2].disk_size, 4 * MiB);
    assert_int_equal(list[2].date_sec, 1700000000);
    block_snapshots_free(list, count);
    image_backend_close(be);
    char *text = run_output("TZ=UTC qemu-img snapshot -l q | awk '{print $1, $2, $5, $6}'");
    assert_non_null(strstr(text, "\n2 two 2023-11-14 22:13:20\n3 one 2023-11-14 22:13:20\n4 1 "
                                 "2023-11-14 22:13:20\n"));
    free(text);

    /* By name, even if there is such an ID. */
    be = image_backend("q", true);
    snapshot_op(be, "delete", "1", NULL);
    snapshot_op(be, "delete", "one", NULL);
    snapshot_op(be, "delete", "2", "snapshot not found");
    node = backend_root(be);
    count = node->driver->image->snapshot_list(node, &list);
    assert_int_equal(count, 2);
    assert_string_equal(list[0].id, "2");
    assert_string_equal(list[1].id, "3");
    block_snapshots_free(list, count);
    snapshot_op(be, "apply", "3", NULL); /* by ID */
    image_backend_close(be);
}

static void refusals(void **state)
{
    run("rm -f q; qemu-img create -q -f qcow2 q 4M && qemu-img snapshot -c one q");
    struct block_backend *be = image_backend("q", true);
    snapshot_op(be, "apply", "none", "Failed to load snapshot: No such file or directory");
    snapshot_op(be, "delete", "none", "snapshot not found");
    snapshot_op(be, "load", "one", "Failed to load snapshot: Device is not readonly");
    image_backend_close(be);

    be = image_backend("q", false);
    snapshot_op(be, "create", "two", "Image 'q' is read-only");
    snapshot_op(be, "load", "none", "Failed to load snapshot: Can't find snapshot");
    image_backend_close(be);

    run("qemu-img bitmap --add q b");
    be = image_backend("q", true);
    snapshot_op(be, "apply", "one", "Device has active dirty bitmaps");
    snapshot_op(be, "create", "two", NULL);
    snapshot_op(be, "delete", "one", NULL);
    image_backend_close(be);
    qkit_check_clean("q");
    run("qemu-img info q | grep -q 'name: b'");

    run("rm -f q; qemu-img create -q -f qcow2 -o data_file=data.raw q 4M");
    be = image_backend("q", true);
    snapshot_op(be, "create", "one", "-95 (Operation not supported)");
    image_backend_close(be);

    /* A bit cannot count two. */
    run("rm -f q; qemu-img create -q -f qcow2 -o refcount_bits=1 q 4M");
    be = image_backend("q", true);
    snapshot_op(be, "create", "of nothing", NULL);
    assert_int_equal(kit_write(be, 0, "x", 1), 0);
    snapshot_op(be, "create", "of something", "-22 (Invalid argument)");
    image_backend_close(be);
    qkit_check_clean("q");
}

/* ---- the table --------------------------------------------------------------------------------- */

/* A table by another program: extra data that we do not know, an icount, a state of the VM. */
static void keeps_what_it_does_not_know(void **state)
{
    static const uint8_t unknown[16] = "what is this?";
    struct image image;
    uint8_t entry[88] = {0}, back[88] = {0};

    run("rm -f q; qemu-img create -q -f qcow2 q 4M && qemu-img snapshot -c one q");
    image_open(&image, "q");
    store_be64(entry, image_get64(&image, image.snapshots));
    store_be32(entry + 8, 1);
    store_be16(entry + 12, 1);
    store_be16(entry + 14, 3);
    store_be32(entry + 16, 1234567890);
    store_be32(entry + 20, 987654321);
    store_be64(entry + 24, UINT64_C(0x123456789a));
    store_be32(entry + 36, 24 + sizeof(unknown));
    store_be64(entry + 40, UINT64_C(5) << 32);
    store_be64(entry + 48, 4 * MiB);
    store_be64(entry + 56, 77);
    memcpy(entry + 64, unknown, sizeof(unknown));
    memcpy(entry + 80, "9one", 4);
    image_put(&image, image.snapshots, entry, sizeof(entry));
    image_close(&image);

    struct block_backend *be = image_backend("q", true);
    snapshot_op(be, "create", "two", NULL);
    struct block_snapshot *list;
    struct block_node *node = backend_root(be);
    size_t count = node->driver->image->snapshot_list(node, &list);
    assert_int_equal(count, 2);
    assert_int_equal(list[0].vm_state_size, UINT64_C(5) << 32);
    assert_int_equal(list[0].icount, 77);
    assert_string_equal(list[1].id, "10");
    block_snapshots_free(list, count);
    image_backend_close(be);
    image_open(&image, "q");
    kit_read_file("q", image.snapshots + 8, back + 8, sizeof(back) - 8);
    image_close(&image);
    assert_memory_equal(back + 8, entry + 8, sizeof(back) - 8);
}

/* A snapshot whose tables are broken can be deleted, and nothing else. */
static void broken_snapshots(void **state)
{
    struct block_check_result result;
    struct image image;

    run("rm -f q; qemu-img create -q -f qcow2 q 4M && qemu-io -c 'write -q 0 1M' q && qemu-img "
        "snapshot -c one q");
    image_open(&image, "q");
    image_put64(&image, image.snapshots, 0x10200);
    image_close(&image);
    struct block_backend *be = image_backend("q", true);
    snapshot_op(be, "create", "two", "Image 'q' is corrupt");
    snapshot_op(be, "apply", "one", "Image 'q' is corrupt");
    snapshot_op(be, "delete", "one", NULL);
    snapshot_op(be, "create", "two", NULL);
    image_backend_close(be);
    assert_true(qemu_check("q", &result));
    assert_int_equal(result.corruptions, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(random_steps, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(applying_restores_the_size, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(lists_as_qemu, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(refusals, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(keeps_what_it_does_not_know, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(broken_snapshots, kit_setup, kit_teardown),
    };

    if (!tools_have_qemu_img()) {
        puts("needs qemu-img (package qemu-utils)");
        return 77;
    }
    return cmocka_run_group_tests(tests, tools_enter_directory, tools_leave_directory);
}
