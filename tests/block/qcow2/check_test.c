/* SPDX-License-Identifier: MIT */
/*
 * check and its repairs: images by qemu-img, spoilt in every way, looked at by ferry and by
 * qemu-img. Both must count the same; after ferry's repair qemu-img must find nothing (or only what
 * it would leave as well), and the guest's data must be what it was.
 */
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "block/qcow2/format.h"
#include "image_kit.h"
#include "tools.h"

#define FIX_ALL (BLOCK_CHECK_FIX_LEAKS | BLOCK_CHECK_FIX_ERRORS)

/* ---- images ----------------------------------------------------------------------------------- */

static void make_plain(const char *options)
{
    run("qemu-img create -q -f qcow2 %s%s q 8M && qemu-io -c 'write -q -P 1 0 1M' -c 'write -q -P "
        "2 "
        "3M 128k' q",
        *options ? "-o " : "", options);
}

static void make_compressed(const char *options)
{
    run("rm -f raw; truncate -s 8M raw && qemu-io -f raw -c 'write -q -P 7 0 2M' -c 'write -q -P 9 "
        "3M 64k' raw && qemu-img convert -c -f raw -O qcow2 %s%s raw q",
        *options ? "-o " : "", options);
}

static void make_snapshots(const char *options)
{
    make_plain(options);
    run("qemu-img snapshot -c s1 q && qemu-io -c 'write -q -P 5 0 64k' q && "
        "qemu-img snapshot -c s2 q && qemu-io -c 'write -q -P 6 64k 64k' q");
}

static void make_bitmaps(const char *options)
{
    make_plain(options);
    run("qemu-img bitmap --add -g 65536 q b0 && qemu-img bitmap --add -g 65536 q b1 && "
        "qemu-io -c 'write -q 0 512k' q");
}

/* ---- faults ----------------------------------------------------------------------------------- */

#define COPIED QCOW2_COPIED

static uint64_t first(struct image *i)
{
    return image_get64(i, i->l2);
}

static void none(struct image *i)
{
}

static void refcount_too_low(struct image *i)
{
    image_put16(i, i->refblock + 12, 0);
}

static void refcount_too_high(struct image *i)
{
    image_put16(i, i->refblock + 12, 2);
}

static void lost_cluster(struct image *i)
{
    image_put64(i, i->l2, 0);
}

static void lost_second_cluster(struct image *i)
{
    image_put64(i, i->l2 + 8, 0);
}

static void l2_not_copied(struct image *i)
{
    image_put64(i, i->l2, first(i) & ~COPIED);
}

static void l1_not_copied(struct image *i)
{
    image_put64(i, i->l1, image_get64(i, i->l1) & ~COPIED);
}

static void lost_and_not_copied(struct image *i)
{
    image_put16(i, i->refblock + 12, 2);
    image_put64(i, i->l2 + 8, image_get64(i, i->l2 + 8) & ~COPIED);
}

static void data_unaligned(struct image *i)
{
    image_put64(i, i->l2, first(i) | 512);
}

static void zero_unaligned(struct image *i)
{
    image_put64(i, i->l2, first(i) | 512 | QCOW2_ZERO);
}

static void l2_reserved_low(struct image *i)
{
    image_put64(i, i->l2, first(i) | 2);
}

static void l2_reserved_high(struct image *i)
{
    image_put64(i, i->l2, first(i) | BIT64(58));
}

static void l1_reserved(struct image *i)
{
    image_put64(i, i->l1, image_get64(i, i->l1) | BIT64(58));
}

static void l1_flag_alone(struct image *i)
{
    image_put64(i, i->l1, BIT64(63));
}

static void l1_unaligned(struct image *i)
{
    image_put64(i, i->l1, image_get64(i, i->l1) | 512);
}

static void data_behind_end(struct image *i)
{
    image_put64(i, i->l2, COPIED | BIT64(40));
}

/* Where new metadata will want to be. */
static void data_just_behind_end(struct image *i)
{
    image_put64(i, i->l2, COPIED | (image_size(i) + i->cluster_size));
    image_put16(i, i->refblock + 14, 0);
}

static void l2_behind_end(struct image *i)
{
    image_put64(i, i->l1, COPIED | BIT64(40));
}

static void data_twice(struct image *i)
{
    image_put64(i, i->l2, image_get64(i, i->l2 + 8));
}

static void l2_twice(struct image *i)
{
    image_put64(i, i->l1 + 8, image_get64(i, i->l1));
}

static void data_is_l2(struct image *i)
{
    image_put64(i, i->l2, i->l2 | COPIED);
}

static void data_is_reftable(struct image *i)
{
    image_put64(i, i->l2, i->reftable | COPIED);
}

static void data_is_refblock(struct image *i)
{
    image_put64(i, i->l2, i->refblock | COPIED);
}

static void data_is_l1(struct image *i)
{
    image_put64(i, i->l2, i->l1 | COPIED);
}

static void reftable_reserved(struct image *i)
{
    image_put64(i, i->reftable, i->refblock | 1);
}

static void reftable_unaligned(struct image *i)
{
    image_put64(i, i->reftable, i->refblock | 512);
}

static void refblock_behind_end(struct image *i)
{
    image_put64(i, i->reftable + 8, BIT64(40));
}

static void refblock_twice(struct image *i)
{
    image_put64(i, i->reftable + 8, i->refblock);
}

static void refblock_gone(struct image *i)
{
    image_put64(i, i->reftable, 0);
}

static void refblock_is_l2(struct image *i)
{
    image_put64(i, i->reftable, i->l2);
}

static void compressed_copied(struct image *i)
{
    image_put64(i, i->l2, first(i) | COPIED);
}

static void compressed_behind_end(struct image *i)
{
    image_put64(i, i->l2, (first(i) & ~(BIT64(54) - 1)) | BIT64(45));
}

static void compressed_too_long(struct image *i)
{
    image_put64(i, i->l2, first(i) | UINT64_C(255) << 54);
}

static void subclusters_both(struct image *i)
{
    image_put64(i, i->l2 + 8, UINT64_C(0x0000000100000001));
}

static void subclusters_without_cluster(struct image *i)
{
    image_put64(i, i->l2, 0);
}

static void subclusters_zero_flag(struct image *i)
{
    image_put64(i, i->l2, first(i) | QCOW2_ZERO);
}

static void subclusters_zero_unaligned(struct image *i)
{
    image_put64(i, i->l2, first(i) | 512);
    image_put64(i, i->l2 + 8, QCOW2_SUB_ZERO);
}

static void compressed_bitmap(struct image *i)
{
    image_put64(i, i->l2 + 8, 1);
}

static void v2_zero(struct image *i)
{
    image_put64(i, i->l2, first(i) | QCOW2_ZERO);
}

static void data_file_compressed(struct image *i)
{
    image_put64(i, i->l2, QCOW2_COMPRESSED | 5);
}

static void snapshot_l1_unaligned(struct image *i)
{
    image_put64(i, i->snapshots, 0x10200);
}

static void snapshot_l1_behind_end(struct image *i)
{
    image_put64(i, i->snapshots, BIT64(40));
}

static void snapshot_l1_too_large(struct image *i)
{
    image_put32(i, i->snapshots + 8, UINT32_C(1) << 24);
}

/* Snapshot 0 with less extra data than it has: what was extra data is its id and name now, and the
 * next entry begins 16 bytes before its place: its extra_data_size is what was date_nsec. */
static void snapshot_incomplete_before(struct image *i, uint32_t date_nsec)
{
    image_put32(i, i->snapshots + 36, 8);
    image_put32(i, i->snapshots + 72 + 20, date_nsec);
}

static void snapshot_incomplete(struct image *i)
{
    snapshot_incomplete_before(i, 500000000);
}

/* So little that the entry is still one that a table can have, if not one that is of use. */
static void snapshot_incomplete_and_next(struct image *i)
{
    snapshot_incomplete_before(i, 19617000);
}

static void snapshot_extra_huge(struct image *i)
{
    image_put32(i, i->snapshots + 36, 2000);
    image_put32(i, QCOW2_H_NB_SNAPSHOTS, 1);
}

static void snapshots_too_many(struct image *i)
{
    image_put32(i, QCOW2_H_NB_SNAPSHOTS, 4);
}

static void snapshot_table_behind_end(struct image *i)
{
    image_put64(i, QCOW2_H_SNAPSHOTS_OFFSET, BIT64(40));
    image_put32(i, QCOW2_H_NB_SNAPSHOTS, 1);
}

static void snapshot_shares_l2(struct image *i)
{
    image_put64(i, image_get64(i, i->snapshots), image_get64(i, i->l1));
}

static void snapshot_l1_is_active(struct image *i)
{
    image_put64(i, i->snapshots, i->l1);
}

static void snapshot_l2_reserved(struct image *i)
{
    uint64_t l2 = image_get64(i, image_get64(i, i->snapshots)) & QCOW2_OFFSET_MASK;

    image_put64(i, l2 + 160, BIT64(58) | 0x50000);
}

static void bitmaps_off(struct image *i)
{
    image_put64(i, QCOW2_H_AUTOCLEAR, 0);
}

static void cut_by_cluster(struct image *i)
{
    image_truncate(i, image_size(i) - i->cluster_size);
}

static void cut_by_sector(struct image *i)
{
    image_truncate(i, image_size(i) - 512);
}

static void dirty(struct image *i)
{
    image_put64(i, QCOW2_H_INCOMPATIBLE, QCOW2_INCOMPAT_DIRTY);
    image_put16(i, i->refblock + 14, 0);
}

static void corrupt(struct image *i)
{
    image_put64(i, QCOW2_H_INCOMPATIBLE, QCOW2_INCOMPAT_CORRUPT);
    image_put64(i, i->l2, first(i) & ~COPIED);
}

static void corrupt_for_nothing(struct image *i)
{
    image_put64(i, QCOW2_H_INCOMPATIBLE, QCOW2_INCOMPAT_CORRUPT);
}

/* ---- what is done with each ------------------------------------------------------------------- */

struct spoilt {
    const char *name;
    void (*make)(const char *options);
    const char *options;
    void (*spoil)(struct image *image);
    uint64_t left;       /* errors that a repair leaves */
    bool counts_differ;  /* qemu-img reads tables that cannot be, or does not go on */
    const char *mention; /* of ferry's report */
};

static const struct spoilt spoilts[] = {
    {"nothing", make_plain, "", none},
    {"refcount too low", make_plain, "", refcount_too_low,
     .mention = "ERROR cluster 6 refcount=0 reference=1\n"
                "ERROR OFLAG_COPIED data cluster: l2_entry=8000000000060000 refcount=0\n"},
    {"refcount too high", make_plain, "", refcount_too_high,
     .mention = "Leaked cluster 6 refcount=2 reference=1\n"
                "ERROR OFLAG_COPIED data cluster: l2_entry=8000000000060000 refcount=2\n"},
    {"lost cluster", make_plain, "", lost_cluster,
     .mention = "Leaked cluster 5 refcount=1 reference=0\n"},
    {"copied flag of data", make_plain, "", l2_not_copied,
     .mention = "ERROR OFLAG_COPIED data cluster: l2_entry=50000 refcount=1\n"},
    {"copied flag of an L2 table", make_plain, "", l1_not_copied,
     .mention = "ERROR OFLAG_COPIED L2 cluster: l1_index=0 l1_entry=40000 refcount=1\n"},
    {"lost reference and flag", make_plain, "", lost_and_not_copied},
    {"data unaligned", make_plain, "", data_unaligned, .left = 1,
     .mention = "ERROR offset=50200: Data cluster is not properly aligned; L2 entry corrupted.\n"},
    {"zeroes unaligned", make_plain, "", zero_unaligned,
     .mention = "ERROR offset=50200: Preallocated cluster is not properly aligned; L2 entry "
                "corrupted.\n"},
    {"L2 reserved bit 1", make_plain, "", l2_reserved_low,
     .mention = "ERROR found l2 entry with reserved bits set: 8000000000050002\n"},
    {"L2 reserved bit 58", make_plain, "", l2_reserved_high},
    {"L1 reserved", make_plain, "", l1_reserved,
     .mention = "ERROR found L1 entry with reserved bits set: 8400000000040000\n"},
    {"L1 flag without table", make_plain, "", l1_flag_alone, .counts_differ = true,
     .mention = "ERROR found L1 entry with a flag but no table: 8000000000000000\n"},
    {"L1 unaligned", make_plain, "", l1_unaligned, .left = 1, .counts_differ = true,
     .mention = "ERROR l2_offset=40200: Table is not cluster aligned; L1 entry corrupted\n"},
    {"data behind the end", make_plain, "", data_behind_end, .left = 1,
     .mention = "ERROR: counting reference for region exceeding the end of the file by one cluster "
                "or more: offset 0x10000000000 size 0x10000\n"},
    {"data just behind the end", make_plain, "", data_just_behind_end, .left = 1},
    {"L2 behind the end", make_plain, "", l2_behind_end, .left = 1},
    {"data twice", make_plain, "", data_twice,
     .mention = "ERROR cluster 6 refcount=1 reference=2\n"},
    {"L2 table twice", make_plain, "cluster_size=4k", l2_twice},
    {"data is the L2 table", make_plain, "", data_is_l2},
    {"data is the refcount table", make_plain, "", data_is_reftable},
    {"data is a refcount block", make_plain, "", data_is_refblock},
    {"data is the L1 table", make_plain, "", data_is_l1},
    {"refcount table reserved", make_plain, "", reftable_reserved,
     .mention = "ERROR refcount table entry 0 has reserved bits set\n"},
    {"refcount table unaligned", make_plain, "", reftable_unaligned, .counts_differ = true,
     .mention = "ERROR refcount block 0 is not cluster aligned; refcount table entry corrupted\n"},
    {"refcount block behind the end", make_plain, "", refblock_behind_end,
     .mention = "ERROR refcount block 1 is outside image\n"},
    {"refcount block twice", make_plain, "", refblock_twice,
     .mention = "ERROR refcount block 1 refcount=2\n"},
    {"refcount block gone", make_plain, "", refblock_gone},
    {"refcount block is the L2 table", make_plain, "", refblock_is_l2},
    {"compressed", make_compressed, "", none},
    {"compressed copied", make_compressed, "", compressed_copied,
     .mention = "ERROR: coffset=0x50000: copied flag must never be set for compressed clusters\n"},
    {"compressed behind the end", make_compressed, "", compressed_behind_end, .left = 1},
    {"compressed too long", make_compressed, "", compressed_too_long, .left = 1},
    {"compressed by zstd", make_compressed, "compression_type=zstd", lost_cluster},
    {"subclusters", make_plain, "extended_l2=on", none},
    {"subcluster both", make_plain, "extended_l2=on", subclusters_both, .left = 1,
     .mention = "ERROR offset=50000: Allocated cluster has corrupted subcluster allocation "
                "bitmap\n"},
    {"subclusters without cluster", make_plain, "extended_l2=on", subclusters_without_cluster,
     .left = 1, .mention = "ERROR: Unallocated cluster has non-zero subcluster allocation map\n"},
    {"subclusters and zero flag", make_plain, "extended_l2=on", subclusters_zero_flag},
    {"subclusters unaligned", make_plain, "extended_l2=on", data_unaligned, .left = 1},
    {"subclusters zero unaligned", make_plain, "extended_l2=on", subclusters_zero_unaligned},
    {"subclusters of compressed", make_compressed, "extended_l2=on", compressed_bitmap,
     .counts_differ = true,
     .mention = "ERROR compressed cluster 0 with non-zero subcluster allocation bitmap, "
                "entry=0x4000000000050000\n"},
    {"version 2", make_plain, "compat=0.10", lost_cluster},
    {"version 2 with zero flag", make_plain, "compat=0.10", v2_zero},
    {"data file", make_plain, "data_file=data.raw", none},
    {"data file copied 0", make_plain, "data_file=data.raw", l2_not_copied},
    {"data file copied", make_plain, "data_file=data.raw", l1_not_copied},
    {"data file compressed", make_plain, "data_file=data.raw", data_file_compressed, .left = 1,
     .mention = "ERROR compressed cluster 0 with data file, entry=0x4000000000000005\n"},
    {"data file behind the end", make_plain, "data_file=data.raw", data_behind_end},
    {"data file unaligned", make_plain, "data_file=data.raw", data_unaligned, .left = 1},
    {"too many references for a bit", make_plain, "refcount_bits=1", data_twice,
     .mention = "ERROR: overflow cluster offset=0x60000\n"},
    {"refcounts of 1 bit", make_plain, "refcount_bits=1", lost_cluster},
    {"refcounts of 2 bits", make_plain, "refcount_bits=2", data_twice},
    {"refcounts of 4 bits", make_plain, "refcount_bits=4", data_twice},
    {"refcounts of 8 bits", make_plain, "refcount_bits=8", data_twice},
    {"refcounts of 32 bits", make_plain, "refcount_bits=32", data_twice},
    {"refcounts of 64 bits", make_plain, "refcount_bits=64", data_twice},
    {"clusters of 512 bytes", make_plain, "cluster_size=512", lost_second_cluster},
    {"clusters of 512, 64 bits", make_plain, "cluster_size=512,refcount_bits=64", data_twice},
    {"clusters of 2 MiB", make_plain, "cluster_size=2M", lost_cluster},
    {"clusters of 2 MiB, 1 bit", make_plain, "cluster_size=2M,refcount_bits=1", lost_cluster},
    {"snapshots", make_snapshots, "", none},
    {"snapshots, version 2", make_snapshots, "compat=0.10", lost_cluster},
    {"snapshot's L1 unaligned", make_snapshots, "", snapshot_l1_unaligned, .left = 1,
     .mention = "ERROR snapshot 1 (s1) l1_offset=0x10200: L1 table is not cluster aligned; "
                "snapshot table entry corrupted\n"},
    {"snapshot's L1 behind the end", make_snapshots, "", snapshot_l1_behind_end, .left = 1},
    {"snapshot's L1 too large", make_snapshots, "", snapshot_l1_too_large, .left = 1,
     .mention = "ERROR snapshot 1 (s1) l1_size=0x1000000: L1 table is too large; snapshot table "
                "entry corrupted\n"},
    {"snapshot incomplete", make_snapshots, "", snapshot_incomplete, .counts_differ = true,
     .mention = "ERROR snapshot table entry 0 is incomplete\n"},
    {"snapshot incomplete, next is nonsense", make_snapshots, "", snapshot_incomplete_and_next,
     .left = 1, .counts_differ = true, .mention = "ERROR snapshot table entry 0 is incomplete\n"},
    {"snapshot's extra data huge", make_snapshots, "", snapshot_extra_huge, .counts_differ = true},
    {"more snapshots than there are", make_snapshots, "", snapshots_too_many,
     .mention = "ERROR snapshot table entry 2 is incomplete\n"
                "ERROR snapshot table entry 3 is incomplete\n"},
    {"snapshot table behind the end", make_snapshots, "", snapshot_table_behind_end},
    {"snapshot shares an L2 table", make_snapshots, "", snapshot_shares_l2},
    {"snapshot shares the L1 table", make_snapshots, "", snapshot_l1_is_active},
    {"snapshot's L2 reserved", make_snapshots, "", snapshot_l2_reserved},
    {"bitmaps", make_bitmaps, "", lost_cluster},
    {"bitmaps switched off", make_bitmaps, "", bitmaps_off},
    {"cut by a cluster", make_plain, "", cut_by_cluster, .left = 1},
    {"cut by a sector", make_plain, "", cut_by_sector},
    {"dirty", make_plain, "", dirty},
    {"corrupt", make_plain, "", corrupt},
};

static void expect_counts(const struct spoilt *s, const char *when,
                          const struct block_check_result *qemu,
                          const struct block_check_result *ferry)
{
    static const char *const names[] = {
        "corruptions", "leaks", "check errors", "corruptions fixed", "leaks fixed",
        "end",         "total", "allocated",    "fragmented",        "compressed",
    };
    const uint64_t *a = (const uint64_t *)qemu, *b = (const uint64_t *)ferry;

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (i != 3 && i != 4 && a[i] != b[i]) {
            fail_msg("%s, %s: %s: qemu-img says %llu, ferry %llu", s->name, when, names[i],
                     (unsigned long long)a[i], (unsigned long long)b[i]);
        }
    }
}

/* Images of one kind are made once. */
static void make(const struct spoilt *s)
{
    const struct spoilt *like = spoilts;

    while (like->make != s->make || strcmp(like->options, s->options)) {
        like++;
    }
    autofree char *name = xasprintf("made-%d", (int)(like - spoilts));
    if (like == s) {
        unlink("q");
        s->make(s->options);
        copy_file("q", name);
    } else {
        copy_file(name, "q");
    }
}

static void check_spoilt(const struct spoilt *s)
{
    struct block_check_result qemu, ferry;
    struct image image;
    char *lines;

    make(s);
    image_open(&image, "q");
    s->spoil(&image);
    image_close(&image);
    bool has_data = run_status("qemu-img convert -f qcow2 -O raw q before 2>/dev/null") == 0;

    bool qemu_can = qemu_check("q", &qemu);
    bool ferry_can = ferry_check("q", 0, &ferry, &lines, NULL);
    assert_int_equal(qemu_can, ferry_can);
    if (!s->counts_differ) {
        expect_counts(s, "as it was", &qemu, &ferry);
    }
    if (s->mention && !strstr(lines, s->mention)) {
        fail_msg("%s: no line \"%s\" in\n%s", s->name, s->mention, lines);
    }
    free(lines);

    /* Leaks alone: what is lost is found, all else stays. */
    if (ferry_can && ferry.leaks) {
        uint64_t had = ferry.leaks;
        copy_file("q", "leaks");
        assert_true(ferry_check("leaks", BLOCK_CHECK_FIX_LEAKS, &ferry, NULL, NULL));
        assert_true(ferry.leaks + ferry.leaks_fixed >= had);
        assert_true(qemu_check("leaks", &qemu));
        if (!s->counts_differ) {
            expect_counts(s, "after -r leaks", &qemu, &ferry);
        }
    }

    copy_file("q", "all");
    assert_true(ferry_check("all", FIX_ALL, &ferry, &lines, NULL));
    if (ferry.leaks || ferry.corruptions != s->left) {
        fail_msg("%s, after -r all: %llu leaks and %llu corruptions are left:\n%s", s->name,
                 (unsigned long long)ferry.leaks, (unsigned long long)ferry.corruptions, lines);
    }
    free(lines);
    assert_int_equal(qemu_check("all", &qemu), true);
    if (!(s->counts_differ && s->left)) {
        expect_counts(s, "after -r all", &qemu, &ferry);
    }
    if (has_data) {
        run("qemu-img convert -f qcow2 -O raw all after 2>/dev/null");
        assert_true(same_files("before", "after"));
    }
    if (!s->left && strcmp(s->options, "compat=0.10")) {
        image_open(&image, "all");
        uint64_t bits = image_get64(&image, QCOW2_H_INCOMPATIBLE);
        image_close(&image);
        assert_int_equal(bits & (QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT), 0);
    }
    /* Once more finds nothing to do, and does nothing. */
    copy_file("all", "again");
    assert_true(ferry_check("again", FIX_ALL, &ferry, NULL, NULL));
    assert_int_equal(ferry.corruptions_fixed, 0);
    assert_true(same_files("all", "again"));
}

/* What reads find is in use, whatever else an entry says: nothing new is put there. */
static void keeps_compressed_with_subclusters(void **state)
{
    static const unsigned fixes[] = {BLOCK_CHECK_FIX_LEAKS, FIX_ALL};
    autofree uint8_t *data = xmalloc(MiB);
    struct block_check_result result;
    struct image image;

    run("rm -f q");
    make_compressed("extended_l2=on");
    copy_file("q", "good");
    for (size_t i = 0; i < ARRAY_SIZE(fixes) * 2; i++) {
        copy_file("good", "q");
        image_open(&image, "q");
        compressed_bitmap(&image);
        if (i & 1) {
            compressed_copied(&image);
        }
        assert_true(ferry_check("q", fixes[i / 2], &result, NULL, NULL));
        assert_int_equal(result.leaks + result.leaks_fixed, 0);
        if (fixes[i / 2] == FIX_ALL) {
            assert_int_equal(result.corruptions_fixed, 1 + (i & 1));
            assert_int_equal(result.corruptions, 0);
        }
        image_close(&image);
        struct block_backend *be = image_backend("q", true);
        memset(data, 5, MiB);
        assert_int_equal(kit_write(be, 5 * MiB, data, MiB), 0);
        assert_int_equal(kit_read(be, 0, data, MiB), 0);
        for (uint64_t at = 0; at < MiB; at += 512) {
            assert_int_equal(data[at], 7);
        }
        image_backend_close(be);
    }
}

static void counts_as_qemu(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(spoilts); i++) {
        check_spoilt(&spoilts[i]);
    }
}

/* ---- tables that cannot be read --------------------------------------------------------------- */

static void refuses_what_it_cannot_read(void **state)
{
    struct block_check_result result;
    struct image image;
    char *error;

    run("rm -f q");
    make_snapshots("");
    image_open(&image, "q");
    snapshot_extra_huge(&image);
    assert_false(ferry_check("q", 0, &result, NULL, &error));
    assert_string_equal(error, "Too much extra metadata in snapshot table entry 0");
    free(error);

    run("rm -f q");
    make_snapshots("");
    image_close(&image);
    image_open(&image, "q");
    image_put32(&image, QCOW2_H_NB_SNAPSHOTS, 70000);
    assert_false(ferry_check("q", 0, &result, NULL, &error));
    assert_string_equal(error,
                        "snapshot table too large: nb_snapshots=70000 of 'q' is more than 65536");
    free(error);
    image_put32(&image, QCOW2_H_NB_SNAPSHOTS, 1);
    image_put64(&image, QCOW2_H_SNAPSHOTS_OFFSET, 0x200);
    assert_false(ferry_check("q", FIX_ALL, &result, NULL, &error));
    assert_string_equal(error, "Snapshot table offset invalid: snapshots_offset=0x200 of 'q' is "
                               "not a multiple of the cluster size");
    free(error);
    image_close(&image);
}

/* ---- images that only a check opens ----------------------------------------------------------- */

static uint64_t bitmap_dir(struct image *i)
{
    for (uint64_t at = 0x70; at < 0x200; at += 8) {
        if (image_get64(i, at) >> 32 == QCOW2_EXT_BITMAPS) {
            return image_get64(i, at + 24);
        }
    }
    fail_msg("no bitmaps");
    return 0;
}

static void raw_flag(struct image *i)
{
    image_put64(i, QCOW2_H_AUTOCLEAR, QCOW2_AUTOCLEAR_DATA_RAW);
}

static void no_snapshots_somewhere(struct image *i)
{
    image_put64(i, QCOW2_H_SNAPSHOTS_OFFSET, 0x12345);
}

static void no_snapshots_far_away(struct image *i)
{
    image_put64(i, QCOW2_H_SNAPSHOTS_OFFSET, UINT64_C(0x8000000000010000));
}

static void extensions_end_oddly(struct image *i)
{
    image_put64(i, 0x70, 0x20000); /* of a header with 112 bytes */
}

static void bitmap_granularity(struct image *i)
{
    image_put(i, bitmap_dir(i) + 17, &(uint8_t){1}, 1);
}

static void bitmap_flags(struct image *i)
{
    image_put32(i, bitmap_dir(i) + 12, 0xff00);
}

static void bitmap_type(struct image *i)
{
    image_put(i, bitmap_dir(i) + 16, &(uint8_t){2}, 1);
}

static void bitmap_table_unaligned(struct image *i)
{
    image_put64(i, bitmap_dir(i), 0x1234);
}

static void bitmap_table_behind_end(struct image *i)
{
    image_put64(i, bitmap_dir(i), UINT64_C(1) << 40);
}

static void bitmap_table_huge(struct image *i)
{
    image_put32(i, bitmap_dir(i) + 8, UINT32_MAX);
}

static void bitmap_table_too_long(struct image *i)
{
    image_put32(i, bitmap_dir(i) + 8, 2);
}

static void bitmap_twins(struct image *i)
{
    image_put(i, bitmap_dir(i) + 32 + 24, "b0", 2);
}

static void bitmap_dir_nowhere(struct image *i)
{
    uint64_t at = 0x70;

    while (image_get64(i, at) >> 32 != QCOW2_EXT_BITMAPS) {
        at += 8;
    }
    image_put64(i, at + 24, UINT64_C(1) << 61);
}

static void bitmap_dir_too_short(struct image *i)
{
    image_put(i, bitmap_dir(i) + 19, &(uint8_t){200}, 1);
}

static void mends_what_only_it_opens(void **state)
{
    static const struct {
        void (*make)(const char *options);
        void (*spoil)(struct image *i);
        const char *line;
    } cases[] = {
        {make_plain, raw_flag,
         "ERROR autoclear feature \"raw external data\" without a data file\n"},
        {make_plain, no_snapshots_somewhere,
         "ERROR snapshot table offset invalid (0x12345), of no snapshots\n"},
        {make_plain, no_snapshots_far_away,
         "ERROR snapshot table offset invalid (0x8000000000010000), of no snapshots\n"},
        {make_plain, extensions_end_oddly,
         "ERROR header extensions end with a length that does not fit\n"},
        {make_bitmaps, bitmap_granularity, "ERROR bitmap 'b0' has an impossible granularity\n"},
        {make_bitmaps, bitmap_flags, "ERROR bitmap 'b0' has unknown flags\n"},
        {make_bitmaps, bitmap_table_too_long, "ERROR bitmap 'b0' has a table that does not fit\n"},
        {make_bitmaps, bitmap_twins, "ERROR Broken bitmap directory: there are two bitmaps 'b0'\n"},
        {make_bitmaps, bitmap_dir_nowhere, "0x2000000000000000"},
        {make_bitmaps, bitmap_dir_too_short,
         "ERROR Broken bitmap directory: entry 0 at offset 0 is impossible\n"},
    };
    struct block_check_result result;
    struct image image;
    char *lines;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        run("rm -f q");
        cases[i].make("");
        run("qemu-img convert -f qcow2 -O raw q before");
        image_open(&image, "q");
        cases[i].spoil(&image);
        image_close(&image);
        if (!run_status("qemu-io -c length q >/dev/null 2>&1")) {
            fail_msg("case %zu: qemu-img opens it", i);
        }

        assert_true(ferry_check("q", 0, &result, &lines, NULL));
        assert_int_equal(result.corruptions, 1);
        if (!strstr(lines, cases[i].line)) {
            fail_msg("no line \"%s\" in\n%s", cases[i].line, lines);
        }
        free(lines);
        assert_true(ferry_check("q", FIX_ALL, &result, NULL, NULL));
        assert_int_equal(result.corruptions, 0);
        assert_int_equal(result.leaks, 0);
        run("qemu-img check -q q && qemu-img convert -f qcow2 -O raw q after");
        assert_true(same_files("before", "after"));
    }
}

/* Whoever knows what is wrong with them, or put them there, shall find them as they are. */
static void keeps_what_faulty_bitmaps_have(void **state)
{
    static const struct {
        void (*spoil)(struct image *i);
        bool is_known; /* where the table is: leaks are what is lost otherwise */
    } cases[] = {
        {bitmap_flags, true},
        {bitmap_type, true},
        {bitmap_granularity, true},
        {bitmap_table_too_long, true},
        {bitmap_table_huge, true},
        {bitmap_table_unaligned, false},
        {bitmap_table_behind_end, false},
        {bitmap_twins, false},
        {bitmap_dir_nowhere, false},
        {bitmap_dir_too_short, false},
    };
    struct block_check_result result;
    struct image image;
    char *lines;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        run("rm -f q");
        make_bitmaps("");
        image_open(&image, "q");
        lost_cluster(&image);
        cases[i].spoil(&image);
        image_close(&image);
        copy_file("q", "before");
        assert_true(ferry_check("q", BLOCK_CHECK_FIX_LEAKS, &result, &lines, NULL));
        assert_int_equal(result.corruptions, 1);
        assert_true(cases[i].is_known ? result.leaks == 1 : result.leaks > 1);
        assert_int_equal(result.leaks_fixed, 0);
        assert_null(strstr(lines, "Repairing"));
        assert_non_null(strstr(lines, "Leaked clusters stay, as they may be those of the bitmaps"));
        free(lines);
        assert_true(same_files("before", "q"));
    }
}

/* ---- unknown autoclear bits ------------------------------------------------------------------- */

static void clears_what_it_does_not_know(void **state)
{
    static const struct {
        void (*spoil)(struct image *i);
        unsigned fix;
        bool clears;
    } cases[] = {
        {lost_cluster, 0, false},
        {none, FIX_ALL, false}, /* nothing is written */
        {lost_cluster, BLOCK_CHECK_FIX_LEAKS, true},
        {lost_cluster, FIX_ALL, true},
        {l2_reserved_low, FIX_ALL, true},
        {dirty, FIX_ALL, true},
        {corrupt_for_nothing, FIX_ALL, true},
    };
    const uint64_t known = QCOW2_AUTOCLEAR_BITMAPS, unknown = BIT64(40);
    struct block_check_result result;
    struct image image;

    run("rm -f q");
    make_bitmaps("");
    copy_file("q", "good");
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        copy_file("good", "q");
        image_open(&image, "q");
        assert_int_equal(image_get64(&image, QCOW2_H_AUTOCLEAR), known);
        image_put64(&image, QCOW2_H_AUTOCLEAR, known | unknown);
        cases[i].spoil(&image);
        assert_true(ferry_check("q", cases[i].fix, &result, NULL, NULL));
        assert_int_equal(image_get64(&image, QCOW2_H_AUTOCLEAR),
                         cases[i].clears ? known : known | unknown);
        image_close(&image);
    }
}

/* ---- the dirty bit ---------------------------------------------------------------------------- */

static void opening_repairs_dirty(void **state)
{
    struct block_check_result result;
    struct image image;

    run("rm -f q");
    make_plain("lazy_refcounts=on");
    image_open(&image, "q");
    dirty(&image);
    refcount_too_low(&image);
    image_backend_close(image_backend("q", false));
    assert_int_equal(image_get64(&image, QCOW2_H_INCOMPATIBLE), QCOW2_INCOMPAT_DIRTY);
    image_backend_close(image_backend("q", true));
    assert_int_equal(image_get64(&image, QCOW2_H_INCOMPATIBLE), 0);
    image_close(&image);
    assert_true(qemu_check("q", &result));
    assert_int_equal(result.corruptions, 0);
    assert_int_equal(result.leaks, 0);
}

/* ---- hostile ---------------------------------------------------------------------------------- */

static void fill(struct image *image, uint64_t offset, size_t count, uint64_t entry, uint64_t step)
{
    uint64_t *table = xcalloc(count, sizeof(*table));

    for (size_t i = 0; i < count; i++) {
        store_be64(&table[i], entry + i * step);
    }
    image_put(image, offset, table, count * sizeof(*table));
    free(table);
}

/* What this thread has computed, without system calls. */
static uint64_t thread_ms(void)
{
    struct rusage usage;

    assert_int_equal(getrusage(RUSAGE_THREAD, &usage), 0);
    return (uint64_t)usage.ru_utime.tv_sec * 1000 + (uint64_t)usage.ru_utime.tv_usec / 1000;
}

/* Tables that all point to one, in a file that is nearly all hole. */
static void hostile_tables_cost_little(void **state)
{
    struct block_check_result result;
    struct image image;

    run("rm -f q; qemu-img create -q -f qcow2 q 2000T && qemu-io -c 'write -q 0 64k' q");
    image_open(&image, "q");
    fill(&image, image.l1, 1000000, image_get64(&image, image.l1), 0);
    fill(&image, image.l2, 8192, image_get64(&image, image.l2), 0);
    image_close(&image);
    assert_true(ferry_check("q", 0, &result, NULL, NULL));
    assert_true(result.corruptions > 0);

    /* L1 entries all over a sparse file, at offsets that a hash by the golden ratio takes to one place
     * (inverse: of that modulo 2^64). */
    enum { COUNT = 1 << 16 };
    const uint64_t golden = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t inverse = golden;
    for (unsigned i = 0; i < 5; i++) {
        inverse *= 2 - golden * inverse;
    }
    assert_int_equal(golden * inverse, 1);
    run("rm -f q; qemu-img create -q -f qcow2 -o cluster_size=512 q 4G && truncate -s 16P q");
    image_open(&image, "q");
    autofree uint64_t *l1 = xmalloc(COUNT * sizeof(*l1));
    for (uint64_t i = 0; i < COUNT; i++) {
        uint64_t page = (i + 16) * inverse & (BIT64(38) - 1); /* of 64 clusters */
        store_be64(&l1[i], QCOW2_COPIED | page * 64 * 512);
    }
    image_put(&image, image.l1, l1, COUNT * sizeof(*l1));
    image_close(&image);
    uint64_t start = thread_ms();
    assert_true(ferry_check("q", 0, &result, NULL, NULL));
    uint64_t took = thread_ms() - start;
    assert_true(result.corruptions >= COUNT);
    if (took > 10000) {
        fail_msg("a check took %u ms", (unsigned)took);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(counts_as_qemu, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(keeps_compressed_with_subclusters, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(refuses_what_it_cannot_read, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(mends_what_only_it_opens, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(keeps_what_faulty_bitmaps_have, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(clears_what_it_does_not_know, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(opening_repairs_dirty, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(hostile_tables_cost_little, kit_setup, kit_teardown),
    };

    if (system("qemu-img --version >/dev/null 2>&1")) {
        puts("needs qemu-img (package qemu-utils)");
        return 77;
    }
    return cmocka_run_group_tests(tests, tools_enter_directory, tools_leave_directory);
}
