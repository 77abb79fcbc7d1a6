/* SPDX-License-Identifier: MIT */
/*
 * Each kind of metadata write fails, by a blkdebug node below the image: with EIO and ENOSPC, once
 * and for a while, beside a snapshot and compressed clusters. One request after the other, so each
 * run is the same. The request that meets the fault fails or does without; all that was flushed before
 * is in the file even then; and when the fault is gone, all goes on.
 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/blkdebug.h"
#include "block/image.h"
#include "block/node.h"
#include "disk.h"
#include "image_kit.h"
#include "qkit.h"

#define SECTOR   512u
#define LIMIT    (32 * MiB)
#define MAX_SIZE (10 * MiB)
#define STEPS    256u /* requests of a load */
#define RESIZE   128u /* this one makes the disk longer */
#define OUTAGE   40u  /* requests, after the one that met the fault */

/* Parts of the guest's disk: shared with a snapshot (from 0), compressed (and shared), of the image
 * alone, with nothing. */
static const struct image_kind {
    const char *create;
    uint32_t cluster_size;
    uint64_t packed, own, empty, size;
} small = {"cluster_size=512,refcount_bits=64", 512, MiB, 3 * MiB / 2, 2 * MiB, 4 * MiB},
  large = {"cluster_size=1M", MiB, MiB, 2 * MiB, 4 * MiB, 8 * MiB};

static const struct fault_event {
    const struct image_kind *kind;
    const char *event, *iotype;
    bool unseen; /* nobody's request fails */
    bool leaks;  /* or something is only leaked, after a request */
    bool stops;  /* nobody knows which header the file has: no more writes */
} events[] = {
    /* commits */
    {&small, "refblock_update_part", "write"},
    {&small, "l2_alloc_write", "write"},
    {&small, "refblock_alloc_hookup", "write"},
    {&small, "refblock_alloc_write_table", "write"},
    {&small, "refblock_alloc_switch_table", "write"},
    {&small, "l2_update", "write"},
    {&small, "l1_update", "write"},
    {&small, "flush_to_disk", "flush"},
    {&small, "l2_update", "flush"},
    {&small, "refblock_alloc_switch_table", "flush"},
    {&large, "l2_update", "write"},
    /* new tables and clusters */
    {&small, "refblock_alloc", "write"},
    {&small, "reftable_grow", "write"},
    {&small, "cluster_alloc", "write"},
    {&small, "cluster_alloc_bytes", "write"},
    {&small, "write_compressed", "write"},
    {&small, "write_aio", "write"},
    {&large, "cow_write", "write"},
    {&large, "pwritev_zero", "write-zeroes"},
    {&small, "cluster_free", "discard", .unseen = true},
    /* what is read for them */
    {&small, "l2_load", "read"},
    {&small, "refblock_load", "read", .leaks = true},
    {&small, "cow_read", "read"},
    {&small, "read_compressed", "read"},
    /* a longer L1 table */
    {&small, "l1_grow_alloc_table", "write"},
    {&small, "l1_grow_write_table", "write"},
    {&small, "l1_grow_activate_table", "write", .stops = true},
};

/* What may be in a sector. */
enum mark {
    OLD,     /* what the seed has */
    UNKNOWN, /* that, or what a failed request wrote */
    DONE,    /* what a request wrote */
    FLUSHED  /* the same, and it is on the disk */
};

struct run {
    const struct fault_event *e;
    struct block_backend *be;
    const uint8_t *before; /* the seed's */
    uint8_t *after;
    uint8_t marks[MAX_SIZE / SECTOR];
    unsigned failed, failed_flushes;
    int error; /* positive errno */
};

/* ---- images ------------------------------------------------------------------------------------ */

static void fill(struct block_backend *be, uint64_t offset, uint64_t size, unsigned flags)
{
    autofree uint8_t *data = xmalloc(size);

    qkit_fill_half(data, size, offset + 1);
    assert_int_equal(kit_write_flags(be, offset, data, size, flags), 0);
}

/* Also "seed.raw" and "snapshot.raw", what the guest sees there. */
static void make_seed(const struct image_kind *kind)
{
    static const char open[] = "file=seed,format=qcow2,if=none,discard=unmap";

    qkit_run("rm -f seed; qemu-img create -f qcow2 -o %s seed %llu", kind->create,
             (unsigned long long)kind->size);
    struct block_backend *be = kit_drive("%s", open);
    fill(be, 0, MiB, 0);
    fill(be, kind->packed, kind->own - kind->packed, BLOCK_REQ_COMPRESSED);
    kit_close();
    qkit_run("qemu-img snapshot -c s seed");
    qkit_run("qemu-img convert -f qcow2 -l s -O raw seed snapshot.raw");
    be = kit_drive("%s", open);
    fill(be, kind->own, kind->own - kind->packed, 0);
    if (kind == &large) { /* free clusters in the file that are not known to be zeroes */
        fill(be, kind->empty, 3 * MiB, 0);
        assert_int_equal(kit_discard(be, kind->empty, 3 * MiB), 0);
        assert_int_equal(kit_flush(be), 0);
    }
    kit_close();
    qkit_check_clean("seed");
    qkit_run("qemu-img convert -f qcow2 -O raw seed seed.raw");
}

/* ---- the fault --------------------------------------------------------------------------------- */

/* The rule is active from vmstate_save, which this test tells, to vmstate_load. The first of the
 * rules is used up when it is met. */
static struct block_backend *open_faulty(const struct fault_event *e, int error, bool once)
{
    autofree char *rule = xasprintf("event=%s,file.inject-error.0.iotype=%s", e->event, e->iotype);
    autofree char *again =
        once ? xstrdup("")
             : xasprintf("file.inject-error.2.event=%s,file.inject-error.2.iotype=%s,"
                         "file.inject-error.2.state=2,file.inject-error.2.errno=%d,",
                         e->event, e->iotype, error);

    return kit_drive("driver=qcow2,if=none,discard=unmap,file.driver=blkdebug,"
                     "file.image.driver=disk,file.inject-error.0.%s,file.inject-error.0.state=2,"
                     "file.inject-error.0.errno=%d,file.inject-error.0.once=on,"
                     "file.inject-error.1.event=vmstate_load,file.inject-error.1.errno=0,%s"
                     "file.set-state.0.event=vmstate_save,file.set-state.0.state=1,"
                     "file.set-state.0.new_state=2,file.set-state.1.event=vmstate_load,"
                     "file.set-state.1.state=2,file.set-state.1.new_state=3",
                     rule, error, again);
}

static const void *first_rule(const struct run *r)
{
    const struct blkdebug_rules *rules = backend_root(r->be)->file->state;

    return rules->first;
}

static void tell(const struct run *r, enum block_event event)
{
    block_debug_event(backend_root(r->be)->file, event);
}

/* ---- the load ---------------------------------------------------------------------------------- */

/* Requests do not touch each other's sectors. */
static void ended(struct run *r, int ret, uint64_t offset, uint64_t length)
{
    uint64_t first = offset / SECTOR, end = (offset + length + SECTOR - 1) / SECTOR;

    r->failed += ret < 0;
    for (uint64_t i = first; i < end; i++) {
        assert_int_equal(r->marks[i], OLD);
        r->marks[i] = ret < 0 ? UNKNOWN : DONE;
    }
}

static int write_some(struct run *r, uint64_t offset, uint64_t length, unsigned flags)
{
    qkit_fill_half(r->after + offset, length, offset);
    int ret = kit_write_flags(r->be, offset, r->after + offset, length, flags);
    ended(r, ret, offset, length);
    return ret;
}

static int zero_some(struct run *r, uint64_t offset, uint64_t length, bool discard)
{
    memset(r->after + offset, 0, length);
    int ret = discard ? kit_discard(r->be, offset, length) : kit_zero(r->be, offset, length, 0);
    ended(r, ret, offset, length);
    return ret;
}

static int flush(struct run *r)
{
    int ret = kit_flush(r->be);

    r->failed += ret < 0;
    for (size_t i = 0; i < ARRAY_SIZE(r->marks) && ret == 0; i++) {
        r->marks[i] = r->marks[i] == DONE ? FLUSHED : r->marks[i];
    }
    return ret;
}

static int co_grow(void *opaque)
{
    const struct run *r = opaque;

    return block_co_truncate(backend_root(r->be), r->e->kind->size + 2 * MiB, BLOCK_PREALLOC_OFF,
                             NULL);
}

static bool has_grown(const struct run *r)
{
    return backend_length(r->be) > r->e->kind->size;
}

static int step(struct run *r, unsigned i)
{
    const struct image_kind *kind = r->e->kind;
    uint64_t turn = i / 8, at = turn * 4 * KiB, empty = kind->empty + turn * 64 * KiB;
    bool is_small = kind == &small;

    if (i >= RESIZE && !has_grown(r)) {
        int ret = block_run(co_grow, r);
        r->failed += ret < 0;
        return ret;
    }
    if (i >= RESIZE && turn % 2) {
        empty = kind->size + (turn - RESIZE / 8) * 64 * KiB;
    }
    switch (i % 8) {
    case 0:
        return write_some(r, at + 100, 300, 0);
    case 1:
        return write_some(r, kind->packed + at + 100, 3 * SECTOR, 0);
    case 2:
        return write_some(r, empty, 16 * KiB, 0);
    case 3:
        return write_some(r, empty + 32 * KiB, 4 * SECTOR, is_small ? BLOCK_REQ_COMPRESSED : 0);
    case 4:
        return zero_some(r, kind->own + at, 2 * SECTOR, false);
    case 5:
        return is_small ? zero_some(r, kind->own + at + KiB, 2 * SECTOR, true) : 0;
    case 6:
        return write_some(r, kind->own + at + 2 * KiB, SECTOR, 0);
    default: /* seldom, so that there are many tables to write */
        return turn % 4 == 3 ? flush(r) : 0;
    }
}

/* ---- afterwards -------------------------------------------------------------------------------- */

static void check_sector(const struct run *r, uint64_t at, const uint8_t *got, bool crashed)
{
    unsigned mark = r->marks[at / SECTOR];
    bool may_be_old = mark == OLD || mark == UNKNOWN || (crashed && mark == DONE);

    if (!memcmp(got, r->after + at, SECTOR)) {
        return;
    }
    for (unsigned i = 0; i < SECTOR; i++) {
        if (got[i] != r->after[at + i] && !(may_be_old && got[i] == r->before[at + i])) {
            fail_msg("byte %#llx is %02x, not %02x, before that %02x, mark %u",
                     (unsigned long long)at + i, got[i], r->after[at + i], r->before[at + i], mark);
        }
    }
}

/* crashed: what is not flushed may be missing. */
static void check_content(const struct run *r, struct block_backend *be, bool crashed)
{
    uint64_t size = MIN(backend_length(be), MAX_SIZE);
    autofree uint8_t *content = xmalloc(size);

    assert_int_equal(kit_read(be, 0, content, size), 0);
    for (uint64_t i = 0; i < size; i += SECTOR) {
        check_sector(r, i, content + i, crashed);
    }
}

/* The file as it is now. */
static void check_file(const struct run *r)
{
    disk_save("q");
    qkit_check_no_errors("q");
    struct block_backend *be = image_backend("q", false);
    check_content(r, be, true);
    image_backend_close(be);
}

static void check_failures(const struct run *r, bool once)
{
    if (r->e->unseen) {
        assert_int_equal(r->failed, 0);
    } else if (once) { /* if space is missing, some is made and the request tries again */
        assert_true(r->failed == 1 || (r->failed == 0 && (r->error == ENOSPC || r->e->leaks)));
    } else {
        assert_true(r->failed > 0 || r->e->leaks);
    }
}

/* Up to the end of the fault; the number of the next step. */
static unsigned run_outage(struct run *r, unsigned begin, bool once)
{
    const void *rule = first_rule(r);
    unsigned end = 0, i = 0;

    for (; i < STEPS && (!end || i < end); i++) {
        if (i == begin) {
            tell(r, BLOCK_EVENT_VMSTATE_SAVE);
        }
        int ret = step(r, i);
        assert_true(ret == 0 || ret == -r->error || (r->e->stops && end && ret == -EIO));
        assert_true(ret == 0 || first_rule(r) != rule); /* nothing fails before */
        if (!end && first_rule(r) != rule) {
            end = i + (once ? 1 : OUTAGE);
        }
    }
    assert_true(end); /* the fault was met */
    check_failures(r, once);
    return i;
}

static void run_event(const struct fault_event *e, int error, bool once, unsigned begin)
{
    autofree struct run *r = xnew(struct run);
    autofree uint8_t *before = xcalloc(1, MAX_SIZE), *after = xcalloc(1, MAX_SIZE);

    print_message("%s, %s of %s: %s, %s\n", e->kind->create, e->iotype, e->event,
                  error == EIO ? "EIO" : "ENOSPC", once ? "once" : "for a while");
    kit_read_file("seed.raw", 0, before, e->kind->size);
    memcpy(after, before, MAX_SIZE);
    disk_load("seed", LIMIT);
    *r = (struct run){.e = e, .before = before, .after = after, .error = error};
    r->be = open_faulty(e, error, once);

    unsigned next = run_outage(r, begin, once);
    check_file(r);
    tell(r, BLOCK_EVENT_VMSTATE_LOAD);
    check_content(r, r->be, false);
    if (e->stops) {
        assert_int_equal(kit_write(r->be, 0, before, SECTOR), -EIO);
    } else { /* before other requests change the same tables */
        assert_int_equal(flush(r), 0);
        check_file(r);
    }
    for (; next < STEPS && !e->stops; next++) {
        assert_int_equal(step(r, next), 0);
    }
    if (!e->stops) {
        assert_true(has_grown(r));
        assert_int_equal(flush(r), 0);
        check_content(r, r->be, false);
    }
    kit_close();
    check_file(r);
    qkit_run("qemu-img convert -f qcow2 -l s -O raw q old && cmp -n %llu old snapshot.raw",
             (unsigned long long)e->kind->size);
    disk_unload();
}

/* The short form has each event once, with both errors and both lengths by turns. */
static void every_event(void **state)
{
    static const unsigned begins[] = {16, 0, 40};
    const struct image_kind *kind = NULL;
    bool is_long = qkit_scale() > 1;

    for (size_t k = 0; k < 2; k++) {
        kind = k ? &large : &small;
        make_seed(kind);
        for (size_t i = 0; i < ARRAY_SIZE(events); i++) {
            for (unsigned how = 0; how < 4 && events[i].kind == kind; how++) {
                bool once = how % 2;
                int error = how / 2 ? ENOSPC : EIO;
                if (!is_long && i % 4 != how) {
                    continue;
                }
                for (unsigned b = 0; b < (is_long && !k ? ARRAY_SIZE(begins) : 1); b++) {
                    run_event(&events[i], error, once, k ? 0 : begins[b]);
                }
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_event, kit_setup, kit_teardown),
    };

    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
