/* SPDX-License-Identifier: MIT */
/*
 * Images that somebody made to do harm, or that something has damaged: each header field at its
 * limits and beyond, entries that point anywhere, random damage. A clear error, and nothing is
 * written where it must not be.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"
#include "block/debug.h"
#include "block/iov.h"
#include "block/qcow2/format.h"
#include "disk.h"
#include "image_kit.h"
#include "qkit.h"

#define CLUSTER 65536u

/* ---- header fields ------------------------------------------------------------------------------ */

static void poke(uint64_t offset, unsigned size, uint64_t value)
{
    uint8_t bytes[8];

    store_be64(bytes, value);
    qkit_poke("q", offset, bytes + 8 - size, size);
}

#define OPEN "file=q,format=qcow2,if=none"
#define FAIL "Could not open 'q': "

static void header_fields(void **state)
{
    static const struct {
        unsigned offset, size;
        uint64_t value;
        const char *message;
    } fields[] = {
        {QCOW2_H_MAGIC, 4, 0x514649fc, FAIL "Image is not in qcow2 format"},
        {QCOW2_H_VERSION, 4, 0, FAIL "Unsupported qcow2 version 0"},
        {QCOW2_H_VERSION, 4, 1, FAIL "Unsupported qcow2 version 1"},
        {QCOW2_H_VERSION, 4, 4, FAIL "Unsupported qcow2 version 4"},
        {QCOW2_H_BACKING_OFFSET, 8, 1, FAIL "Invalid backing file offset: 1"},
        {QCOW2_H_BACKING_OFFSET, 8, 65537, FAIL "Invalid backing file offset: 65537"},
        {QCOW2_H_BACKING_OFFSET, 8, UINT64_MAX,
         FAIL "Invalid backing file offset: 18446744073709551615"},
        {QCOW2_H_CLUSTER_BITS, 4, 8,
         FAIL "Unsupported cluster size: 2^8; cluster_bits must be 9 to 21"},
        {QCOW2_H_CLUSTER_BITS, 4, 22,
         FAIL "Unsupported cluster size: 2^22; cluster_bits must be 9 to 21"},
        {QCOW2_H_CLUSTER_BITS, 4, UINT32_MAX,
         FAIL "Unsupported cluster size: 2^4294967295; cluster_bits must be 9 to 21"},
        {QCOW2_H_SIZE, 8, UINT64_MAX, FAIL "Image is too big: size is 18446744073709551615"},
        {QCOW2_H_SIZE, 8, 512 * MiB + 512,
         FAIL "L1 table is too small: 1 entries, 536871424 bytes need 2"},
        {QCOW2_H_CRYPT_METHOD, 4, 1, FAIL "Encrypted images are not supported (crypt_method is 1)"},
        {QCOW2_H_CRYPT_METHOD, 4, 3, FAIL "Unsupported encryption method: 3"},
        {QCOW2_H_L1_SIZE, 4, 0, FAIL "L1 table is too small: 0 entries, 4194304 bytes need 1"},
        {QCOW2_H_L1_SIZE, 4, 4194305,
         FAIL "Active L1 table too large: 4194305 entries, at most 4194304"},
        {QCOW2_H_L1_SIZE, 4, UINT32_MAX,
         FAIL "Active L1 table too large: 4294967295 entries, at most 4194304"},
        {QCOW2_H_L1_SIZE, 4, 4194304,
         FAIL "Active L1 table at 0x30000 (4194304 entries) lies behind the end of the file, which "
              "has 200704 bytes; is it truncated?"},
        {QCOW2_H_L1_OFFSET, 8, 0x30200, FAIL "Active L1 table offset invalid: 0x30200"},
        {QCOW2_H_L1_OFFSET, 8, UINT64_C(0x7fffffffffff0000),
         FAIL "Active L1 table at 0x7fffffffffff0000 (1 entries) lies behind the end of the file, "
              "which has 200704 bytes; is it truncated?"},
        {QCOW2_H_L1_OFFSET, 8, UINT64_C(0xffffffffffff0000),
         FAIL "Active L1 table offset invalid: 0xffffffffffff0000"},
        {QCOW2_H_REFTABLE_OFFSET, 8, 1, FAIL "Reference count table offset invalid: 0x1"},
        {QCOW2_H_REFTABLE_OFFSET, 8, UINT64_C(0x100000000),
         FAIL "Reference count table at 0x100000000 (8192 entries) lies behind the end of the "
              "file, which has 200704 bytes; is it truncated?"},
        {QCOW2_H_REFTABLE_CLUSTERS, 4, 0, FAIL "Image does not contain a reference count table"},
        {QCOW2_H_REFTABLE_CLUSTERS, 4, 129,
         FAIL "Reference count table too large: 1056768 entries, at most 1048576"},
        {QCOW2_H_REFTABLE_CLUSTERS, 4, UINT32_MAX,
         FAIL "Reference count table too large: 35184372080640 entries, at most 1048576"},
        {QCOW2_H_NB_SNAPSHOTS, 4, 65537,
         FAIL "Snapshot table too large: 65537 snapshots, at most 65536"},
        {QCOW2_H_INCOMPATIBLE, 8, 0x20,
         FAIL "Unsupported qcow2 feature(s): Unknown incompatible feature: 20"},
        {QCOW2_H_INCOMPATIBLE, 8, UINT64_C(1) << 63,
         FAIL "Unsupported qcow2 feature(s): Unknown incompatible feature: 8000000000000000"},
        {QCOW2_H_INCOMPATIBLE, 8, QCOW2_INCOMPAT_CORRUPT,
         FAIL "qcow2: Image is corrupt; cannot be opened read/write | Repair it by 'ferry-img "
              "check -r all', or open it with read-only=on."},
        {QCOW2_H_INCOMPATIBLE, 8, QCOW2_INCOMPAT_DATA_FILE,
         "'data-file' is required for this image: 'q' does not name its data file"},
        {QCOW2_H_INCOMPATIBLE, 8, QCOW2_INCOMPAT_COMPRESSION,
         FAIL "Compression type incompatible feature bit must not be set for zlib"},
        {QCOW2_H_REFCOUNT_ORDER, 4, 7,
         FAIL "Reference count entry width too large; may not exceed 64 bits (refcount_order is "
              "7)"},
        {QCOW2_H_HEADER_LENGTH, 4, 96,
         FAIL "qcow2 header too short: header_length is 96, at least 104"},
        {QCOW2_H_HEADER_LENGTH, 4, 65544,
         FAIL "qcow2 header exceeds cluster size: header_length is 65544, clusters have 65536"},
        {QCOW2_H_HEADER_LENGTH, 4, 116, FAIL "header_length is 116, which is no multiple of 8"},
        {QCOW2_H_COMPRESSION, 1, 1,
         FAIL "Compression type incompatible feature bit must be set for compression type 1"},
        {116, 4, 0x10000, FAIL "Header extension too large: type 0x6803f857 has 65536 bytes"},
        {116, 4, UINT32_MAX,
         FAIL "Header extension too large: type 0x6803f857 has 4294967295 bytes"},
        {112, 4, QCOW2_EXT_CRYPTO, FAIL "Encrypted images (LUKS) are not supported"},
        {112, 4, QCOW2_EXT_BACKING_FORMAT,
         FAIL "Backing format name too long: 384 bytes, at most 15"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
        qkit_run("rm -f q && qemu-img create -f qcow2 q 4M && truncate -s 200704 q");
        poke(fields[i].offset, fields[i].size, fields[i].value);
        qkit_run("cp q before");
        kit_drive_fails(OPEN, fields[i].message);
        qkit_run("cmp q before");
    }
}

static void named_features(void **state)
{
    qkit_run("rm -f q && qemu-img create -f qcow2 q 4M");
    poke(QCOW2_H_INCOMPATIBLE, 8, UINT64_C(1) << 40);
    /* The first entry of the feature name table is for this bit now. */
    qkit_poke("q", 120,
              "\0\x28"
              "time travel",
              14);
    kit_drive_fails(OPEN, FAIL "Unsupported qcow2 feature(s): time travel");
}

static void truncated_files(void **state)
{
    static const struct {
        unsigned size;
        const char *message;
    } sizes[] = {
        {0, FAIL "Image is not in qcow2 format: it has 0 bytes"},
        {1, FAIL "Active L1 table at 0x30000 (1 entries) lies behind the end of the file, which "
                 "has 512 bytes; is it truncated?"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        qkit_run("rm -f q && qemu-img create -f qcow2 q 4M && truncate -s %u q",
                 sizes[i].size * 512);
        kit_drive_fails(OPEN, sizes[i].message);
    }
    qkit_run("rm -f q && qemu-img create -f qcow2 q 4M && truncate -s 196608 q");
    kit_drive_fails(OPEN, FAIL "Active L1 table at 0x30000 (1 entries) lies behind the end of the "
                               "file, which has 196608 bytes; is it truncated?");
}

static void backing_loops(void **state)
{
    qkit_run("qemu-img create -f qcow2 a 1M && qemu-img create -f qcow2 -b a -F qcow2 b 1M &&"
             "qemu-img create -f qcow2 -b b -F qcow2 c 1M &&"
             "qemu-img rebase -u -f qcow2 -b c -F qcow2 a");
    struct error *err = NULL;
    struct options *opts = options_parse("driver=qcow2,node-name=n,read-only=on,file.driver=file,"
                                         "file.filename=c,file.locking=off",
                                         NULL, &err);
    assert_non_null(opts);
    assert_false(blockdev_add(opts, &err));
    assert_non_null(
        strstr(error_message(err), "The backing chain is a loop: 'a' has 'c' as its backing file"));
    error_free(err);
    options_free(opts);
    kit_close();
    qkit_run("qemu-img create -f qcow2 self 1M &&"
             "qemu-img rebase -u -f qcow2 -b self -F qcow2 self");
    kit_drive_fails(
        "file=self,format=qcow2,if=none,readonly=on",
        "Could not open backing file of 'self': The backing chain is a loop: 'self' has "
        "'self' as its backing file, which is above it in the chain; change it by "
        "'ferry-img rebase -u'");
}

static void backing_without_format(void **state)
{
    qkit_run("qemu-img create -f raw base 1M && qemu-img create -f qcow2 -b base -F raw q 1M");
    poke(112, 4, 0x12345678); /* the backing format's extension is one that nobody knows */
    kit_drive_fails(OPEN, "'q' has backing file 'base' and does not say its format; say it by "
                          "'ferry-img rebase -u -b base -F FORMAT q', or give "
                          "backing.driver=FORMAT");
    kit_drive(OPEN ",backing.driver=raw");
    kit_close();
    kit_drive(OPEN ",backing=");
    kit_close();
}

/* Not a file whose bytes show, whatever the image says of the format. */
static void backing_filename(void **state)
{
    qkit_run("qemu-img create -f qcow2 base 1M &&"
             "rm -f q && qemu-img create -f qcow2 -b base -F qcow2 q 1M");
    kit_drive_fails(OPEN ",backing.filename=base",
                    "Could not open backing file of 'q': Block format 'qcow2' does not support the "
                    "option 'filename'; give backing.file.filename=");
    struct block_backend *be = kit_drive(OPEN ",backing.file.filename=base");
    assert_string_equal(backend_root(be)->backing->driver->name, "qcow2");
    kit_close();
    be = kit_drive(OPEN ",backing.driver=file,backing.filename=base");
    assert_string_equal(backend_root(be)->backing->driver->name, "file");
    kit_close();
}

/* ---- entries ----------------------------------------------------------------------------------- */

/* An image with data in its first cluster: L1 at 0x30000, L2 at 0x40000, data at 0x50000. */
static void make_image(void)
{
    qkit_run(
        "rm -f q && qemu-img create -f qcow2 q 4M && qemu-io -f qcow2 -c 'write -P 7 0 64k' q");
}

static void is_corrupt_now(const char *said, const char *wanted)
{
    uint8_t bits[8];

    if (!strstr(said, wanted)) {
        fail_msg("said: %s", said);
    }
    const char *first = strstr(said, "Marking image as corrupt");
    assert_non_null(first);
    assert_null(strstr(first + 1, "Image is corrupt:"));
    assert_null(strstr(first + 1, "Marking")); /* it says so once */
    kit_read_file("q", QCOW2_H_INCOMPATIBLE, bits, 8);
    assert_true(load_be64(bits) & QCOW2_INCOMPAT_CORRUPT);
}

static void entries_that_point_anywhere(void **state)
{
    static const struct {
        uint64_t at, value, offset; /* of the guest's write */
        const char *said;
    } entries[] = {
        {0x30000, QCOW2_COPIED | 0x40200, 0, "L2 table offset 0x40200 unaligned (L1 index: 0x0)"},
        {0x40000, QCOW2_COPIED | 0x50200, 0,
         "Cluster allocation offset 0x50200 unaligned (L2 offset: 0x40000, L2 index: 0x0)"},
        {0x40000, QCOW2_COPIED, 0, NULL}, /* no cluster: allocated anew */
        {0x40000, QCOW2_COPIED | 0x30000, 0,
         "Preventing invalid write on metadata (overlaps with active L1 table)"},
        {0x40000, QCOW2_COPIED | 0x40000, 0,
         "Preventing invalid write on metadata (overlaps with active L2 table)"},
        {0x40000, QCOW2_COPIED | 0x10000, 0,
         "Preventing invalid write on metadata (overlaps with refcount table)"},
        {0x40000, QCOW2_COPIED | 0x20000, 0,
         "Preventing invalid write on metadata (overlaps with refcount block)"},
        /* Zeroes that have a cluster, which a write fills. */
        {0x40000, QCOW2_COPIED | QCOW2_ZERO | 0x30000, 0,
         "Preventing invalid write on metadata (overlaps with active L1 table)"},
        {0x40000, QCOW2_COPIED | QCOW2_ZERO | 0x40000, 0,
         "Preventing invalid write on metadata (overlaps with active L2 table)"},
        {0x10000, 0x20200, 65536, "Refblock offset 0x20200 unaligned (reftable index: 0x0)"},
        /* The L2 table, the L1 table and the header are free, say the refcounts. */
        {0x20000, 0x0001000100010000, 65536,
         "Preventing invalid write on metadata (overlaps with active L1 table)"},
        {0x20000, 0, 65536, "Preventing invalid write on metadata (overlaps with qcow2_header)"},
    };
    uint8_t data[4096];

    memset(data, 1, sizeof(data));
    for (size_t i = 0; i < ARRAY_SIZE(entries); i++) {
        make_image();
        poke(entries[i].at, 8, entries[i].value);
        kit_capture_stderr();
        struct block_backend *be = kit_drive(OPEN);
        int ret = kit_write(be, entries[i].offset, data, sizeof(data));
        int again = kit_write(be, 2 * MiB, data, sizeof(data));
        if (!entries[i].said) {
            free(kit_captured());
            assert_int_equal(ret, 0);
            kit_close();
            continue;
        }
        kit_close();
        char *said = kit_captured();
        assert_int_equal(ret, -EIO);
        assert_int_equal(again, -EIO);
        is_corrupt_now(said, entries[i].said);
        free(said);
        kit_drive_fails(OPEN,
                        FAIL "qcow2: Image is corrupt; cannot be opened read/write | Repair it by "
                             "'ferry-img check -r all', or open it with read-only=on.");
        kit_capture_stderr();
        kit_drive(OPEN ",readonly=on");
        kit_close();
        free(kit_captured());
    }
}

/* The write fails, and the cluster at `host` stays as it is. */
static void write_hits(uint64_t host, const char *options, const char *said)
{
    uint8_t data[4096], before[CLUSTER], after[CLUSTER];

    memset(data, 1, sizeof(data));
    kit_read_file("q", host, before, CLUSTER);
    kit_capture_stderr();
    struct block_backend *be = kit_drive(OPEN "%s", options);
    int ret = kit_write(be, 0, data, sizeof(data));
    kit_close();
    autofree char *text = kit_captured();
    assert_int_equal(ret, -EIO);
    is_corrupt_now(text, said);
    kit_read_file("q", host, after, CLUSTER);
    assert_memory_equal(before, after, CLUSTER);
}

/* Subclusters of the L1 table: written as the entry has them, or not yet written. */
static void subclusters_in_a_table(void **state)
{
    static const uint64_t bitmaps[] = {QCOW2_SUB_ALLOC, 0, QCOW2_SUB_ZERO, QCOW2_SUB_ALLOC - 1};

    for (size_t i = 0; i < ARRAY_SIZE(bitmaps); i++) {
        qkit_run("rm -f q && qemu-img create -f qcow2 -o extended_l2=on q 4M && qemu-io -f qcow2 "
                 "-c 'write -P 7 0 64k' q");
        poke(0x40000, 8, QCOW2_COPIED | 0x30000);
        poke(0x40008, 8, bitmaps[i]);
        write_hits(0x30000, "",
                   "Preventing invalid write on metadata (overlaps with active L1 table)");
    }
}

/* An entry that is the L1 table of a snapshot, by which data and zeroes are written in place. Behind
 * one that is larger than the map can take, too. */
static void snapshots_table_as_data(void **state)
{
    static const uint64_t flags[] = {QCOW2_COPIED, QCOW2_COPIED | QCOW2_ZERO};
    static const char *const options[] = {
        "", ",overlap-check.template=none,overlap-check.inactive-l1=on"};
    uint8_t offset[8];

    for (size_t i = 0; i < 8; i++) {
        make_image();
        qkit_run("qemu-img snapshot -c s q && qemu-img snapshot -c t q && "
                 "qemu-io -f qcow2 -c 'write -P 7 0 64k' q");
        kit_read_file("q", QCOW2_H_SNAPSHOTS_OFFSET, offset, 8);
        uint64_t table = load_be64(offset);
        if (i & 4) {
            poke(table + 8, 4, UINT32_MAX); /* entries of the first */
            poke(table, 8, UINT64_C(1) << 50);
        }
        kit_read_file("q", table + 72, offset, 8); /* where the second begins */
        uint64_t l1 = load_be64(offset);
        kit_read_file("q", QCOW2_H_L1_OFFSET, offset, 8);
        kit_read_file("q", load_be64(offset), offset, 8);
        poke(load_be64(offset) & QCOW2_OFFSET_MASK, 8, l1 | flags[i & 1]);
        write_hits(l1, options[i >> 1 & 1],
                   "Preventing invalid write on metadata (overlaps with inactive L1 table)");
    }
}

/* Cluster 1 of the guest's disk lies in the L2 table that maps it. Given away, the table would be lost,
 * and all that it maps. */
static void free_of_a_table(void **state)
{
    uint8_t data[4096];

    make_image();
    poke(0x40008, 8, 0x40000);
    kit_capture_stderr();
    struct block_backend *be = kit_drive(OPEN ",discard=unmap");
    kit_discard(be, CLUSTER, CLUSTER);
    assert_int_equal(kit_flush(be), -EIO);
    assert_int_equal(kit_write(be, 4 * CLUSTER, data, sizeof(data)), -EIO);
    kit_close();
    char *said = kit_captured();
    is_corrupt_now(said, "Preventing invalid free of metadata (overlaps with active L2 table)");
    free(said);
    kit_capture_stderr();
    be = kit_drive(OPEN ",readonly=on");
    assert_int_equal(kit_read(be, 0, data, sizeof(data)), 0);
    assert_int_equal(data[0], 7);
    kit_close();
    free(kit_captured());
}

static void any_end(void *opaque, int ret)
{
    *(int *)opaque = 1;
}

static void wait_for(const int *done)
{
    while (!*done) {
        aio_loop_poll(aio_loop_current(), true);
    }
}

/* The same where nothing is looked for: a write has the table in its hand when that is given away. Nobody
 * can say what comes of the image; but ASan that no freed memory is used. */
static void table_gone_under_a_write(void **state)
{
    static const uint8_t data[4096] = {1};
    struct iovec vec;
    struct block_iov iov = block_iov_of(&vec, (void *)(uintptr_t)data, sizeof(data));
    int a = 0, b = 0;

    make_image();
    poke(0x40008, 8, 0x40000);
    kit_capture_stderr();
    struct block_backend *be =
        kit_drive("if=none,driver=qcow2,overlap-check=none,discard=unmap,file.driver=blkdebug,"
                  "file.image.driver=file,file.image.filename=q");
    struct block_node *root = backend_root(be);
    assert_int_equal(block_debug_break(root, "write_aio", "A"), 0);
    backend_aio_pwritev(be, 2 * CLUSTER, &iov, 0, 0, any_end, &a);
    assert_int_equal(block_debug_wait_break(root, "A"), 0);
    assert_int_equal(kit_discard(be, CLUSTER, CLUSTER), 0);
    kit_flush(be);
    assert_int_equal(block_debug_break(root, "write_aio", "B"), 0);
    backend_aio_pwritev(be, 3 * CLUSTER, &iov, 0, 0, any_end, &b);
    assert_int_equal(block_debug_wait_break(root, "B"), 0);
    assert_int_equal(block_debug_resume(root, "A"), 0);
    wait_for(&a);
    kit_flush(be);
    assert_int_equal(block_debug_resume(root, "B"), 0);
    wait_for(&b);
    kit_flush(be);
    kit_close();
    free(kit_captured());
}

static int co_resize(void *opaque)
{
    return block_co_truncate(opaque, 2 * GiB, BLOCK_PREALLOC_OFF, NULL);
}

/* The refcounts call the only L2 table free: nothing new is put there. */
static void new_tables_in_one_in_use(void **state)
{
    uint8_t data[4096];

    for (unsigned kind = 0; kind < 2; kind++) {
        make_image();
        if (kind == 1) {
            qkit_run("qemu-img bitmap --add q b");
        }
        poke(0x20000 + 2 * 4, 2, 0);
        kit_capture_stderr();
        if (kind == 0) {
            struct block_backend *be = kit_drive(OPEN);
            assert_int_equal(block_run(co_resize, backend_root(be)), -EIO);
            kit_close();
        } else { /* a directory of bitmaps, at the end */
            kit_drive(OPEN);
            kit_close();
        }
        char *said = kit_captured();
        assert_true(!kind == !strstr(said, "Could not store the bitmaps of 'q'"));
        free(said);
        kit_capture_stderr();
        struct block_backend *be = kit_drive(OPEN ",readonly=on");
        assert_int_equal(kit_read(be, 0, data, sizeof(data)), 0);
        assert_int_equal(data[0], 7);
        kit_close();
        free(kit_captured());
    }
}

static uint64_t read_entry(uint64_t offset)
{
    uint8_t entry[8];

    kit_read_file("q", offset, entry, sizeof(entry));
    return load_be64(entry) & QCOW2_OFFSET_MASK;
}

/* The active table of an L1 table of one entry, or that of the first snapshot. */
static uint64_t first_l2(bool snapshots)
{
    uint64_t table = read_entry(snapshots ? QCOW2_H_SNAPSHOTS_OFFSET : QCOW2_H_L1_OFFSET);

    return read_entry(snapshots ? read_entry(table) : table);
}

/* An entry that is an L2 table of a snapshot is found as the image was opened, and after what makes
 * tables anew: a longer L1 table, a snapshot less, one more. */
static void snapshots_l2_as_data(void **state)
{
    uint8_t data[4096], before[CLUSTER], after[CLUSTER];

    memset(data, 1, sizeof(data));
    for (unsigned what = 0; what < 4; what++) {
        make_image();
        qkit_run("qemu-img snapshot -c s q && qemu-img snapshot -c u q && "
                 "qemu-io -f qcow2 -c 'write -P 7 0 64k' q");
        kit_capture_stderr();
        struct block_backend *be = kit_drive(OPEN ",overlap-check=all");
        if (what == 1) {
            assert_int_equal(block_run(co_resize, backend_root(be)), 0);
        } else if (what == 2) {
            snapshot_op(be, "delete", "u", NULL);
        } else if (what == 3) {
            snapshot_op(be, "create", "t", NULL);
        }

        uint64_t inactive = first_l2(true);
        poke(first_l2(false), 8, QCOW2_COPIED | inactive);
        kit_read_file("q", inactive, before, CLUSTER);
        int ret = kit_write(be, 0, data, sizeof(data));
        kit_close();
        autofree char *text = kit_captured();
        if (ret != -EIO) {
            fail_msg("after operation %u: %d", what, ret);
        }
        is_corrupt_now(text,
                       "Preventing invalid write on metadata (overlaps with inactive L2 table)");
        kit_read_file("q", inactive, after, CLUSTER);
        assert_memory_equal(before, after, CLUSTER);
    }
}

static void checks_can_be_off(void **state)
{
    uint8_t data[512] = {1}, entry[8];

    make_image();
    poke(0x40000, 8, QCOW2_COPIED | 0x30000);
    struct block_backend *be = kit_drive(OPEN ",overlap-check=none");
    assert_int_equal(kit_write(be, 512, data, sizeof(data)), 0);
    kit_close();
    kit_read_file("q", 0x30200, entry, 1);
    assert_int_equal(entry[0], 1);
    kit_drive_fails(OPEN ",overlap-check=some",
                    "option 'overlap-check': 'some' is unknown; use none, constant, cached or "
                    "all");
}

static void read_done(void *opaque, int ret)
{
    CHECK(ret == 0);
    *(int *)opaque = 1;
}

/* An L2 table whose refcount is 0 is given out while a read loads it; nothing else looks. */
static void new_table_in_one_that_loads(void **state)
{
    uint8_t data[512] = {1}, got[512];
    struct iovec vec;
    struct block_iov iov = block_iov_of(&vec, got, sizeof(got));
    int done = 0;

    qkit_run("rm -f q && qemu-img create -f qcow2 -o cluster_size=512 q 1M && "
             "qemu-io -f qcow2 -c 'write -P 7 0 512' q");
    uint8_t entry[8];
    kit_read_file("q", QCOW2_H_L1_OFFSET, entry, 8);
    kit_read_file("q", load_be64(entry), entry, 8);
    uint64_t table = load_be64(entry) & ~QCOW2_COPIED;
    kit_read_file("q", QCOW2_H_REFTABLE_OFFSET, entry, 8);
    kit_read_file("q", load_be64(entry), entry, 8);
    poke(load_be64(entry) + table / 512 * 2, 2, 0);

    struct block_backend *be =
        kit_drive("if=none,driver=qcow2,overlap-check=none,file.driver=blkdebug,"
                  "file.image.driver=file,file.image.filename=q");
    assert_int_equal(block_debug_break(backend_root(be), "l2_load", "A"), 0);
    backend_aio_preadv(be, 0, &iov, 0, 0, read_done, &done);
    assert_int_equal(block_debug_wait_break(backend_root(be), "A"), 0);
    kit_capture_stderr();
    assert_int_equal(kit_write(be, 512 * KiB, data, sizeof(data)), -EIO);
    char *said = kit_captured();
    is_corrupt_now(said, "A new table would lie in one that is in use");
    free(said);
    assert_int_equal(block_debug_resume(backend_root(be), "A"), 0);
    while (!done) {
        aio_loop_poll(aio_loop_current(), true);
    }
    assert_int_equal(got[0], 7);
    kit_close();
}

/* Snapshots that all name one L1 table: it is not read again for each of them. */
static void inactive_tables_cost_little(void **state)
{
    enum { COUNT = 2000, L1_ENTRIES = 8192 };
    uint8_t first[80], *all = xcalloc(COUNT, sizeof(first)), offset[8];

    make_image();
    qkit_run("qemu-img snapshot -c s q");
    kit_drive(OPEN ",overlap-check=all");
    kit_close();
    qkit_run("truncate -s 1M q");
    kit_read_file("q", QCOW2_H_SNAPSHOTS_OFFSET, offset, 8);
    kit_read_file("q", load_be64(offset), first, sizeof(first));
    size_t size = align_up(40 + load_be32(first + 36) + 2 * 1, 8); /* id "1", name "s" */
    assert_true(size <= sizeof(first));
    store_be32(first + 8, L1_ENTRIES);
    for (size_t i = 0; i < COUNT; i++) {
        memcpy(all + i * size, first, size);
    }
    qkit_poke("q", 512 * KiB, all, COUNT * size);
    free(all);
    poke(QCOW2_H_SNAPSHOTS_OFFSET, 8, 512 * KiB);
    poke(QCOW2_H_NB_SNAPSHOTS, 4, COUNT);

    disk_load("q", 2 * MiB);
    disk_fail(DISK_READ, 0, 0, 0);
    kit_drive_fails("driver=qcow2,if=none,overlap-check=all,file.driver=disk",
                    "Could not read inactive L1 tables of 'disk': File too large");
    assert_true(disk_count(DISK_READ) < 700);
    disk_unload();
}

/* L2 tables at clusters that a hash by the golden ratio takes to nearly one place: multiples of a
 * Fibonacci number. Opening would look at all that came before for each. */
static void tables_of_one_hash(void **state)
{
    enum { COUNT = 1 << 17 };
    autofree uint64_t *l1 = xmalloc(COUNT * sizeof(*l1));
    uint8_t offset[8];

    qkit_run("rm -f q && qemu-img create -f qcow2 -o cluster_size=512 q 4G");
    for (uint64_t i = 0; i < COUNT; i++) {
        store_be64(&l1[i], QCOW2_COPIED | (i + 1) * 433494437 * 512);
    }
    kit_read_file("q", QCOW2_H_L1_OFFSET, offset, 8);
    qkit_poke("q", load_be64(offset), l1, COUNT * sizeof(*l1));
    clock_t start = clock();
    kit_drive(OPEN ",readonly=on");
    kit_close();
    clock_t took = clock() - start;
    if (took > 3 * CLOCKS_PER_SEC) {
        fail_msg("opening took %ld ms of CPU", (long)(took / (CLOCKS_PER_SEC / 1000)));
    }
}

/* ---- damage ------------------------------------------------------------------------------------ */

struct storm {
    struct block_backend *be;
    uint64_t random, size;
};

/* Requests of which nobody knows how they end; only that they do. */
static int co_storm(void *opaque)
{
    struct storm *s = opaque;
    static uint8_t buffer[256 * 1024];
    struct block_node *node = backend_root(s->be);

    for (unsigned i = 0; i < 30; i++) {
        uint64_t length = 1 + kit_random(&s->random) % sizeof(buffer);
        uint64_t offset = kit_random(&s->random) % (s->size - length), map;
        struct iovec vec = {buffer, length};
        struct block_iov iov = {&vec, 1, length};
        switch (kit_random(&s->random) % 8) {
        case 0:
        case 1:
            backend_co_pwritev(s->be, offset, &iov, 0, 0);
            break;
        case 2:
            backend_co_write_zeroes(s->be, offset, length, BLOCK_REQ_MAY_UNMAP);
            break;
        case 3:
            backend_co_discard(s->be, offset, length);
            break;
        case 4:
            backend_co_flush(s->be, 0);
            break;
        case 5:
            block_co_status(node, offset, &length, &map);
            break;
        default:
            backend_co_preadv(s->be, offset, &iov, 0, 0);
        }
    }
    return 0;
}

static uint64_t damage_value(uint64_t *random)
{
    uint64_t r = kit_random(random);

    switch (r % 6) {
    case 0:
        return (r >> 8) % 64 * CLUSTER / 16 | QCOW2_COPIED;
    case 1:
        return (r >> 8) % 64 * 4096;
    case 2:
        return r;
    case 3:
        return UINT64_C(1) << (r >> 8) % 64;
    case 4:
        return UINT64_MAX - (r >> 8) % 4096;
    default:
        return (r >> 8) % 300;
    }
}

static void random_damage(void **state)
{
    static const char *const creates[] = {"cluster_size=4k", "cluster_size=512,refcount_bits=8",
                                          "cluster_size=16k,extended_l2=on",
                                          "compat=0.10,cluster_size=4k"};
    uint64_t random = 123456789;

    for (size_t i = 0; i < ARRAY_SIZE(creates); i++) {
        qkit_run(
            "rm -f good; qemu-img create -f qcow2 -o %s good 4M && qemu-io -f qcow2 -c 'write "
            "0 600k' -c 'write -c 1M 64k' -c 'write -z 2M 128k' good && qemu-img snapshot -c a "
            "good && qemu-io -f qcow2 -c 'write 100k 600k' good",
            creates[i]);
        uint64_t length = kit_file_size("good");
        autofree uint8_t *image = xmalloc(length);
        for (unsigned round = 0; round < 100 * qkit_scale(); round++) {
            kit_read_file("good", 0, image, length);
            unsigned count = 1 + (unsigned)(kit_random(&random) % 6);
            for (unsigned n = 0; n < count; n++) {
                /* In the header every other time, else in any cluster's first entries. */
                uint64_t at = kit_random(&random) % 3 ? kit_random(&random) % (length / 512) * 512 +
                                                            kit_random(&random) % 8 * 8
                                                      : kit_random(&random) % 16 * 8;
                store_be64(image + MIN(at, length - 8), damage_value(&random));
            }
            qkit_write_file("q", image, length);
            disk_load("q", 64 * MiB);
            kit_capture_stderr();
            struct error *err = NULL;
            struct drive_spec spec;
            struct options *opts = options_parse(
                "driver=qcow2,file.driver=disk,if=none,discard=unmap,backing=", NULL, &err);
            assert_non_null(opts);
            if (drive_new(opts, "ide", &spec, &err)) {
                free(spec.serial);
                struct storm storm = {spec.backend, kit_random(&random),
                                      block_length(backend_root(spec.backend))};
                if (storm.size > 512 * 1024) {
                    block_run(co_storm, &storm);
                }
            }
            error_free(err);
            options_free(opts);
            kit_close();
            free(kit_captured());
            disk_unload();
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(header_fields, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(named_features, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(truncated_files, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(backing_loops, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(backing_without_format, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(backing_filename, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(entries_that_point_anywhere, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(subclusters_in_a_table, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(snapshots_table_as_data, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(free_of_a_table, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(table_gone_under_a_write, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(new_tables_in_one_in_use, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(snapshots_l2_as_data, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(checks_can_be_off, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(new_table_in_one_that_loads, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(inactive_tables_cost_little, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(tables_of_one_hash, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(random_damage, kit_setup, kit_teardown),
    };

    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
