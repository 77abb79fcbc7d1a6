/* SPDX-License-Identifier: MIT */
/*
 * The host's file fails: EIO and ENOSPC at writes, zeroes, flushes, discards and truncations, EIO
 * at reads, for a while or once. Requests may fail then, but neither what is in memory nor what is on
 * disk becomes wrong, and when the host has recovered, all goes on. fault_event_test.c picks writes
 * by what they are for.
 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"
#include "block/image.h"
#include "block/qcow2/qcow2.h"
#include "disk.h"
#include "qkit.h"

#define LIMIT  (64 * MiB)
#define ROUNDS 6u /* of each case: each kind of request */

static struct fault_case {
    const char *create;
    uint32_t cluster_size;
    uint64_t size;
    bool base;
    bool snapshot; /* there is one, and compressed data */
} cases[] = {
    {"cluster_size=512", 512, MiB, false},
    {"cluster_size=512,refcount_bits=64", 512, MiB, true},
    {"cluster_size=4k", 4096, 4 * MiB, true},
    {"cluster_size=64k", 65536, 8 * MiB, false},
    {"cluster_size=16k,extended_l2=on", 16384, 4 * MiB, true},
    {"cluster_size=4k,lazy_refcounts=on", 4096, 4 * MiB, false},
    {"cluster_size=4k", 4096, 4 * MiB, false, .snapshot = true},
    {"cluster_size=1M", MiB, 8 * MiB, false}, /* the last: zeroes around data go by themselves */
};

static bool is_large(const struct fault_case *c)
{
    return c->cluster_size == MiB;
}

/* "seed", and what the guest sees of it. */
static void make_seed(const struct fault_case *c)
{
    qkit_run("rm -f seed; qemu-img create -f qcow2 -o %s %s seed %llu", c->create,
             c->base ? "-b base -F raw" : "", (unsigned long long)c->size);
    if (c->snapshot) {
        autofree uint8_t *data = xmalloc(c->size / 2);
        qkit_fill_half(data, c->size / 2, 1);
        qkit_write_file("half", data, c->size / 2);
        qkit_run("qemu-img convert -c -n -f raw -O qcow2 half seed && qemu-img snapshot -c s seed");
    }
    if (is_large(c)) { /* free clusters that may have anything */
        qkit_run("qemu-io -f qcow2 -d unmap -c 'write 0 6M' -c 'discard 0 5M' seed");
    }
    qkit_run("qemu-img convert -f qcow2 -O raw seed seed.raw");
}

/* True if the fault was met, or, without one, if space was missing. */
static bool run_faults(const struct fault_case *c, enum disk_op op, unsigned first, unsigned count,
                       int error, uint64_t limit, uint64_t seed)
{
    uint8_t *expected = xcalloc(1, c->size), *content = xmalloc(c->size);

    kit_read_file("seed.raw", 0, expected, c->size);
    disk_load("seed", limit);
    struct qkit_load load = {
        .be = kit_drive("driver=qcow2,file.driver=disk,if=none,discard=unmap%s",
                        c->base ? ",backing.driver=raw,backing.file.driver=file,"
                                  "backing.file.filename=base"
                                : ""),
        .expected = expected,
        .size = c->size,
        .cluster_size = c->cluster_size,
        .discards = true,
        .compressed = c->snapshot,
        .workers = 3,
        .requests = 40,
        .max_length = MIN(3 * c->cluster_size, MiB),
        .seed = seed,
        .may_fail = true,
    };
    disk_fail(op, first, count, error);
    qkit_run_load(&load);
    if (op == DISK_DISCARD) { /* they come after flushes; nobody sees them fail */
        assert_int_equal(kit_flush(load.be), 0);
        assert_int_equal(kit_discard(load.be, 0, c->size / 2), 0);
        memset(expected, 0, c->size / 2);
        assert_int_equal(kit_flush(load.be), 0);
    }
    bool met = first ? disk_count(op) >= first : load.failed_count > 0;
    disk_fail(op, 0, 0, 0);

    int ret = kit_flush(load.be);
    assert_true(ret == 0 || limit < LIMIT);
    assert_int_equal(kit_read(load.be, 0, content, c->size), 0);
    assert_memory_equal(content, expected, c->size);
    kit_close();
    disk_save("q");
    qkit_check_no_errors("q");
    if (ret == 0) {
        qkit_write_file("model", expected, c->size);
        qkit_run("qemu-img compare -f qcow2 -F raw q model");
    } /* else there was no room for the metadata, and the flush said so */
    if (c->snapshot) {
        qkit_run("qemu-img convert -f qcow2 -l s -O raw q old && cmp old seed.raw");
    }
    disk_unload();
    free(expected);
    free(content);
    return met;
}

/* Which requests fail, one of the first `most`: so many come in most loads. */
static const struct fault_kind {
    const char *name;
    enum disk_op op;
    unsigned most;
    bool only_once, only_large;
} kinds[] = {
    {"write", DISK_WRITE, 60},
    {"flush", DISK_FLUSH, 6},
    {"write", DISK_WRITE, 60},
    {"read", DISK_READ, 3, .only_once = true}, /* what a failed request has changed is read */
    {"discard", DISK_DISCARD, 1},              /* not in all loads */
    {"zeroes", DISK_ZEROES, 1, .only_large = true},
};

static void any_request(void **state)
{
    unsigned met[ARRAY_SIZE(kinds)] = {0}, tried[ARRAY_SIZE(kinds)] = {0};
    uint64_t random = 4711;

    kit_make_file("base", 700 * KiB);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        make_seed(&cases[i]);
        for (unsigned round = 0; round < ROUNDS * qkit_scale(); round++) {
            size_t k = round % ARRAY_SIZE(kinds);
            uint64_t r = kit_random(&random);
            if (kinds[k].only_large != is_large(&cases[i])) {
                continue;
            }
            tried[k]++;
            met[k] += run_faults(&cases[i], kinds[k].op, 1 + (unsigned)(r / 8 % kinds[k].most),
                                 kinds[k].only_once ? 1
                                 : r / 4096 % 4     ? 1 + (unsigned)(r / 65536 % 3)
                                                    : 30,
                                 r / 1024 % 2 && !kinds[k].only_once ? ENOSPC : EIO, LIMIT, r);
        }
    }
    unsigned all_met = 0, all_tried = 0;
    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        print_message("%s: %u faults met, %u tried\n", kinds[k].name, met[k], tried[k]);
        assert_true(met[k]);
        all_met += met[k];
        all_tried += tried[k];
    }
    assert_true(all_met * 4 >= all_tried * 3);
}

/* The host has no room for all of it; discards make some. */
static void full_disk(void **state)
{
    unsigned met = 0, tried = 0;
    uint64_t random = 815;

    kit_make_file("base", 700 * KiB);
    for (size_t i = 0; i < ARRAY_SIZE(cases) && !is_large(&cases[i]); i++) {
        make_seed(&cases[i]);
        for (unsigned round = 0; round < 3 * qkit_scale(); round++) {
            uint64_t seed_size = align_up(kit_file_size("seed"), 512);
            /* less than what is written */
            uint64_t room = 30 * MIN(3 * cases[i].cluster_size, 48 * KiB);
            uint64_t limit = seed_size + kit_random(&random) % room;
            met += run_faults(&cases[i], DISK_READ, 0, 0, 0, align_up(limit, 512),
                              kit_random(&random));
            tried++;
        }
    }
    print_message("full disks: %u met, %u tried\n", met, tried);
    assert_true(met * 2 >= tried);
}

/* No room for a first L2 table, or for what it would point to: what fails leaves no leak, and the rest
 * can be flushed. */
static void full_disk_leaks_nothing(void **state)
{
    uint8_t piece[64 * KiB];

    memset(piece, 5, sizeof(piece));
    for (unsigned room = 0; room < 4; room++) { /* clusters */
        qkit_run("rm -f seed; qemu-img create -f qcow2 seed 4M && truncate -s 256k seed");
        disk_load("seed", 256 * KiB + room * sizeof(piece));
        struct block_backend *be = kit_drive("driver=qcow2,file.driver=disk,if=none");
        unsigned done = 0;
        while (kit_write(be, done * sizeof(piece), piece, sizeof(piece)) == 0) {
            done++;
        }
        assert_int_equal(done, room ? room - 1 : 0);
        assert_int_equal(kit_flush(be), 0);
        kit_close();
        disk_save("q");
        disk_unload();
        qkit_check_clean("q");
    }
}

/* ---- other sizes ------------------------------------------------------------------------------- */

struct resize {
    struct block_node *node;
    uint64_t length;
    enum block_prealloc prealloc;
};

static int co_resize(void *opaque)
{
    const struct resize *r = opaque;

    return block_co_truncate(r->node, r->length, r->prealloc, NULL);
}

/* The n-th request of this kind and those after it fail, while the disk gets `length` bytes. True
 * if that was met. */
static bool fail_resize(enum disk_op op, unsigned n, uint64_t length, enum block_prealloc prealloc)
{
    uint8_t *expected = xcalloc(1, 4 * MiB), *content = xmalloc(4 * MiB);

    memset(expected, 7, MiB);
    memset(expected + 1984 * KiB, 9, 64 * KiB);
    disk_load("seed", LIMIT);
    struct block_backend *be = kit_drive("driver=qcow2,file.driver=disk,if=none,discard=unmap");
    struct resize r = {backend_root(be), length, prealloc};
    disk_fail(op, n, 1000, n % 2 ? ENOSPC : EIO);
    int ret = block_run(co_resize, &r);
    bool met = disk_count(op) >= n;
    disk_fail(op, 0, 0, 0);

    bool in_file = op == DISK_TRUNCATE && length < 2 * MiB; /* it only stays longer */
    assert_true(ret == 0 ? !met || in_file : met && (ret == -EIO || ret == -ENOSPC));
    assert_int_equal(backend_length(be), ret == 0 ? length : 2 * MiB);
    int again = kit_write(be, 0, expected, KiB); /* EIO: nobody knows which header the file has */
    assert_true(again == 0 || (again == -EIO && ret < 0 && (op == DISK_WRITE || op == DISK_FLUSH)));
    assert_int_equal(kit_read(be, 0, content, backend_length(be)), 0);
    assert_memory_equal(content, expected, backend_length(be));
    kit_close();
    disk_save("q");
    disk_unload();
    qkit_check_no_errors("q");
    free(expected);
    free(content);
    return met;
}

static void failed_resize(void **state)
{
    static const struct {
        enum disk_op op;
        uint64_t length;
        enum block_prealloc prealloc;
    } ways[] = {
        {DISK_TRUNCATE, 4 * MiB, BLOCK_PREALLOC_METADATA},
        {DISK_ZEROES, 4 * MiB, BLOCK_PREALLOC_FALLOC},
        {DISK_WRITE, 4 * MiB, BLOCK_PREALLOC_METADATA},
        {DISK_FLUSH, 4 * MiB, BLOCK_PREALLOC_METADATA},
        {DISK_TRUNCATE, 3 * MiB / 2, BLOCK_PREALLOC_OFF},
    };

    qkit_run("rm -f seed; qemu-img create -f qcow2 -o cluster_size=4k seed 2M && "
             "qemu-io -f qcow2 -c 'write -P 7 0 1M' -c 'write -P 9 1984k 64k' seed");
    for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
        unsigned n = 1;
        while (fail_resize(ways[i].op, n, ways[i].length, ways[i].prealloc)) {
            n += qkit_scale() > 1 ? 1 : n;
        }
        assert_true(n > 1);
    }
}

/* ---- snapshots, tables ------------------------------------------------------------------------- */

static bool make_snapshot(struct block_backend *be)
{
    struct block_node *node = backend_root(be);
    char name[] = "s";
    struct block_snapshot snapshot = {.name = name};

    return node->driver->image->snapshot_create(node, &snapshot, NULL);
}

/* A snapshot that could not be made has written tables where the guest's next clusters will be:
 * what the guest does not write of those is zeroes all the same. */
static void failed_snapshot(void **state)
{
    uint8_t *expected = xmalloc(4 * MiB), *content = xmalloc(4 * MiB), piece[512];
    bool done = false;

    qkit_run("qemu-img create -f qcow2 -o cluster_size=4k seed 4M && "
             "qemu-io -f qcow2 -c 'write -P 7 0 1M' seed");
    memset(piece, 9, sizeof(piece));
    for (unsigned n = 1; !done; n++) {
        memset(expected, 0, 4 * MiB);
        memset(expected, 7, MiB);
        disk_load("seed", LIMIT);
        struct block_backend *be = kit_drive("driver=qcow2,file.driver=disk,if=none");
        disk_fail(DISK_WRITE, n, 1000, EIO);
        done = make_snapshot(be);
        disk_fail(DISK_WRITE, 0, 0, 0);
        for (uint64_t at = 2 * MiB + KiB; at < 3 * MiB; at += 4 * KiB) {
            if (kit_write(be, at, piece, sizeof(piece)) < 0) {
                break; /* nobody knows which header the file has */
            }
            memcpy(expected + at, piece, sizeof(piece));
        }
        assert_int_equal(kit_read(be, 0, content, 4 * MiB), 0);
        assert_memory_equal(content, expected, 4 * MiB);
        kit_close();
        disk_save("q");
        qkit_check_no_errors("q");
        disk_unload();
    }
    free(expected);
    free(content);
}

/* While nothing can be committed, what waits for that does not grow without end. */
static void memory_is_bounded(void **state)
{
    uint8_t *expected = xcalloc(1, 64 * MiB), *content = xmalloc(64 * MiB), piece[512];
    unsigned written = 0;

    qkit_run("rm -f seed; qemu-img create -f qcow2 -o cluster_size=512 seed 64M");
    memset(piece, 3, sizeof(piece));
    disk_load("seed", LIMIT);
    struct block_backend *be = kit_drive("driver=qcow2,file.driver=disk,if=none,discard=unmap,"
                                         "l2-cache-size=64k,refcount-cache-size=64k");
    const struct qcow2_state *s = qcow2_of(backend_root(be));
    disk_fail(DISK_FLUSH, 1, UINT32_MAX, EIO);
    for (uint64_t at = 0; at < 64 * MiB; at += 32 * KiB) { /* a table each */
        if (kit_write(be, at, piece, sizeof(piece)) == 0) {
            memcpy(expected + at, piece, sizeof(piece));
            written++;
        }
    }
    assert_true(written > 100);
    assert_true(s->l2_cache.dirty_count < 600 && s->refcount_cache.dirty_count < 600);
    assert_true(s->l2_cache.slice_count < 1000);
    disk_fail(DISK_FLUSH, 0, 0, 0);
    assert_int_equal(kit_write(be, 32 * KiB + 512, piece, sizeof(piece)), 0);
    memcpy(expected + 32 * KiB + 512, piece, sizeof(piece));
    assert_int_equal(kit_flush(be), 0);
    assert_int_equal(kit_read(be, 0, content, 64 * MiB), 0);
    assert_memory_equal(content, expected, 64 * MiB);
    kit_close();
    disk_save("q");
    disk_unload();
    qkit_check_clean("q");
    qkit_write_file("model", expected, 64 * MiB);
    qkit_run("qemu-img compare -f qcow2 -F raw q model");
    free(expected);
    free(content);
}

/* An L1 entry that is "copied", but has no table. */
static void copied_nothing(void **state)
{
    static const uint8_t entry[8] = {0x80};
    uint8_t *expected = xcalloc(1, 8 * MiB), *content = xmalloc(8 * MiB);

    for (unsigned i = 0; i < 2; i++) {
        bool base = i;
        kit_make_file("base", 700 * KiB);
        if (base) {
            kit_read_file("base", 0, expected, 700 * KiB);
        }
        qkit_run("rm -f q; qemu-img create -f qcow2 %s q 8M", base ? "-b base -F raw" : "");
        qkit_poke("q", 0x30000, entry, sizeof(entry)); /* where qemu-img puts the L1 table */
        struct block_backend *be = kit_drive("driver=qcow2,file.driver=file,file.filename=q,"
                                             "if=none,discard=unmap");
        assert_int_equal(kit_zero(be, 64 * KiB, 64 * KiB, 0), 0);
        memset(expected + 64 * KiB, 0, 64 * KiB);
        assert_int_equal(kit_write(be, 200 * KiB, expected + 2 * MiB, KiB), 0);
        memcpy(expected + 200 * KiB, expected + 2 * MiB, KiB);
        assert_int_equal(kit_read(be, 0, content, 8 * MiB), 0);
        assert_memory_equal(content, expected, 8 * MiB);
        kit_close();
        qkit_check_clean("q");
    }
    free(expected);
    free(content);
}

static int co_shrink(void *opaque)
{
    return block_co_truncate(opaque, 256 * MiB, BLOCK_PREALLOC_OFF, NULL);
}

static bool shrink(struct block_node *node)
{
    return block_run(co_shrink, node) == 0;
}

static bool make_empty(struct block_node *node)
{
    return node->driver->image->make_empty(node, NULL);
}

/* Any read fails while an image is made shorter, or empty: what is left of it is in use as before,
 * also for writes that go on. */
static void failed_drop(void **state)
{
    static bool (*const drops[])(struct block_node *) = {shrink, make_empty};
    static const unsigned step = 8 * MiB; /* 64 in an L2 table, which maps 512 MiB */
    uint8_t data[4096], got[4096];

    kit_make_file("base", 512);
    qkit_run("qemu-img create -f qcow2 -b base -F raw seed 1G");
    qkit_run("set qemu-io -f qcow2; for i in $(seq 0 8 1016); do "
             "set \"$@\" -c \"write -P 7 ${i}M 4k\"; done; \"$@\" seed");
    memset(data, 9, sizeof(data));
    for (size_t i = 0; i < ARRAY_SIZE(drops); i++) {
        bool done = false;
        for (unsigned n = 1; !done; n++) {
            disk_load("seed", LIMIT);
            struct block_backend *be = kit_drive("driver=qcow2,file.driver=disk,if=none,"
                                                 "backing.driver=raw,backing.file.driver=file,"
                                                 "backing.file.filename=base");
            disk_fail(DISK_READ, n, 1000, EIO);
            done = drops[i](backend_root(be));
            disk_fail(DISK_READ, 0, 0, 0);
            assert_int_equal(kit_write(be, 4 * MiB, data, sizeof(data)), 0);
            for (uint64_t at = 0; at < backend_length(be) && !done; at += step) {
                assert_int_equal(kit_read(be, at, got, sizeof(got)), 0);
                assert_true(got[0] == 7 || at >= 256 * MiB || drops[i] == make_empty);
            }
            kit_close();
            disk_save("q");
            qkit_check_no_errors("q");
            disk_unload();
        }
    }
}

/* Writes fail while the refcount table is made longer: what of the image's clusters there was for it
 * is given back, and all goes on. */
static void failed_table(void **state)
{
    static const uint64_t from = 1960 * KiB, to = 2020 * KiB; /* the table counts 2 MiB of file */
    uint8_t *expected = xcalloc(1, 4 * MiB), *content = xmalloc(4 * MiB), piece[512];
    bool done = false, grew = false;

    qkit_run("rm -f seed; qemu-img create -f qcow2 -o cluster_size=512,refcount_bits=64 seed 4M && "
             "qemu-io -f qcow2 -c 'write -P 7 0 1960k' seed");
    memset(piece, 9, sizeof(piece));
    for (unsigned n = 1; !done; n++) {
        memset(expected, 0, 4 * MiB);
        memset(expected, 7, from);
        disk_load("seed", LIMIT);
        struct block_backend *be = kit_drive("driver=qcow2,file.driver=disk,if=none");
        const struct qcow2_state *s = qcow2_of(backend_root(be));
        uint32_t size = s->reftable_size;
        done = true;
        disk_fail(DISK_WRITE, n, 4, n % 2 ? ENOSPC : EIO);
        for (uint64_t at = from; at < to; at += sizeof(piece)) {
            bool ok = kit_write(be, at, piece, sizeof(piece)) == 0;
            memset(expected + at, ok ? 9 : 0, sizeof(piece));
            done &= ok;
        }
        disk_fail(DISK_WRITE, 0, 0, 0);
        grew |= s->reftable_size > size;
        assert_int_equal(kit_flush(be), 0);
        assert_int_equal(kit_read(be, 0, content, 4 * MiB), 0);
        assert_memory_equal(content, expected, 4 * MiB);
        kit_close();
        disk_save("q");
        disk_unload();
        qkit_check_clean("q");
    }
    assert_true(grew);
    free(expected);
    free(content);
}

/* The dirty bit of lazy refcounts is cleared, but the flush after that fails: nobody knows whether it
 * is, so the next flush sets it before it leaves counts behind. */
static void dirty_bit_half_cleared(void **state)
{
    uint8_t piece[4096], header[8];

    memset(piece, 9, sizeof(piece));
    qkit_run("rm -f seed; qemu-img create -f qcow2 -o lazy_refcounts=on,cluster_size=4k seed 4M");
    for (unsigned n = 1; n < 8; n++) {
        disk_load("seed", LIMIT);
        struct block_backend *be = kit_drive("driver=qcow2,file.driver=disk,if=none");
        struct block_node *root = backend_root(be);
        assert_int_equal(kit_write(be, 0, piece, sizeof(piece)), 0);
        assert_int_equal(kit_flush(be), 0);
        disk_fail(DISK_FLUSH, n, 1, EIO);
        struct error *err = NULL;
        block_node_reopen(root, root->flags & ~BLOCK_OPEN_RDWR, &err); /* may fail */
        error_free(err);
        disk_fail(DISK_FLUSH, 0, 0, 0);
        if (!(root->flags & BLOCK_OPEN_RDWR)) {
            assert_true(block_node_reopen(root, root->flags | BLOCK_OPEN_RDWR, NULL));
        }
        assert_int_equal(kit_write(be, MiB, piece, sizeof(piece)), 0);
        assert_int_equal(kit_flush(be), 0);
        disk_save("q"); /* as after a crash now */
        qkit_run("cp q crashed");
        kit_close();
        disk_unload();
        kit_read_file("crashed", QCOW2_H_INCOMPATIBLE, header, 8);
        assert_true(load_be64(header) & QCOW2_INCOMPAT_DIRTY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(any_request, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(full_disk, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(full_disk_leaks_nothing, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(failed_resize, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(failed_snapshot, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(memory_is_bounded, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(copied_nothing, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(failed_drop, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(failed_table, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(dirty_bit_half_cleared, kit_setup, kit_teardown),
    };

    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
