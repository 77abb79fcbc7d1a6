/* SPDX-License-Identifier: MIT */
/*
 * Power fails at any time: what may be on the disk then is an image in which ferry's check and
 * qemu-img's find at most leaks, and which has all data that a flush, a write with FUA or the end of
 * the run covered, and its snapshots as they were made. Requests come from two loops, flushes in
 * between, and the disk takes its time, so that commits and requests overlap.
 *
 * Two kinds of crashes: prefixes of the log of what the disk was given, in its order, and mixtures, in
 * which what was not flushed is there in part.
 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"
#include "block/iov.h"
#include "block/qcow2/format.h"
#include "block/qcow2/qcow2.h"
#include "disk.h"
#include "image_kit.h"
#include "qkit.h"
#include "tools.h"

#define SECTOR    512u
#define WORKERS   6
#define MAX_SIZE  (8 * MiB)
#define MOST      4096u     /* sectors of a request */
#define BASE      BIT64(40) /* stamps of what was there before */
#define EVERY_NTH 20        /* prefix is shown to qemu-img */
#define SOME      2         /* prefixes of the log where not all are looked at */

/* ---- images ------------------------------------------------------------------------------------ */

/* What an image has before. */
enum seed { EMPTY, DATA, COMPRESSED, BACKING };

struct crash_case {
    const char *create;
    uint32_t cluster_size;
    uint64_t size;
    enum seed seed;
    bool compresses; /* some of the writes are compressed */
    bool snapshots;  /* "old" is there, "mid" comes and goes */
    bool small_too;  /* a small image and load, of which every prefix is looked at */
};

static const struct crash_case cases[] = {
    {"cluster_size=512", 512, MiB},
    {"cluster_size=512,refcount_bits=64", 512, 2 * MiB},
    {"cluster_size=4k", 4096, 4 * MiB},
    {"cluster_size=64k", 65536, 8 * MiB},
    {"cluster_size=16k,extended_l2=on", 16384, 4 * MiB},
    {"cluster_size=4k,lazy_refcounts=on", 4096, 4 * MiB},
    {"cluster_size=4k,compat=0.10", 4096, 4 * MiB},
    {"cluster_size=512,refcount_bits=1", 512, MiB, BACKING},
    {"cluster_size=512,refcount_bits=2", 512, MiB, DATA, .snapshots = true, .small_too = true},
    {"cluster_size=16k,extended_l2=on,refcount_bits=4", 16384, 2 * MiB, BACKING, .snapshots = true},
    {"cluster_size=4k,refcount_bits=32", 4096, 2 * MiB, COMPRESSED, true, true},
    {"cluster_size=64k", 65536, 4 * MiB, DATA, true},
    {"cluster_size=2M,refcount_bits=8", 2 * MiB, 6 * MiB, BACKING, .snapshots = true},
    {"cluster_size=512,lazy_refcounts=on", 512, MiB, COMPRESSED, true, true, .small_too = true},
    {"cluster_size=4k,compat=0.10", 4096, 2 * MiB, DATA, .snapshots = true},
    {"cluster_size=4k,data_file=data.raw", 4096, 2 * MiB, DATA, .small_too = true},
    {"cluster_size=64k,data_file=data.raw,lazy_refcounts=on", 65536, 4 * MiB},
    {"cluster_size=16k,data_file=data.raw,data_file_raw=on", 16384, 2 * MiB, DATA},
};

/* What a sector was given: `stamp` in all of its words (0: zeroes). */
struct version {
    uint64_t begin, end; /* end 0: not reported, or there before */
    uint64_t stamp;
    bool durable; /* FUA */
};

struct history {
    struct version *list; /* the first: what was there before */
    size_t count;
};

struct flush {
    uint64_t begin, end;
};

/* A snapshot: of each sector, that many versions were there when it was made. */
struct snapshot {
    const char *name;
    size_t *counts;
    uint64_t made, is_made, deleted, is_deleted; /* times; made 0: before */
    bool seen, missed;
};

static struct {
    pthread_mutex_t lock;
    struct block_backend *be;
    const struct crash_case *c;
    struct history *sectors;
    uint8_t *busy;
    struct flush flushes[4096];
    size_t flush_count;
    struct snapshot snapshots[2];
    size_t snapshot_count;
    uint64_t next_stamp;
    bool fails;      /* the disk does, now and then */
    bool overwrites; /* all writes are to what has been written */
} t = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* What was met, so that a test which no longer meets it says so. */
static struct {
    unsigned prefixes, mixtures, clean, dirty, fua, fua_alone, compressed;
    unsigned mid_seen, mid_missed;
} met;

static _Atomic(unsigned) running;

static uint64_t sector_count(void)
{
    return t.c->size / SECTOR;
}

/* The stamp of a sector of the data that was there before: most of the first three quarters have one. */
static uint64_t pattern_of(uint64_t sector)
{
    uint64_t per_cluster = t.c->cluster_size / SECTOR;
    bool has = sector < sector_count() / 4 * 3 && sector / per_cluster % 5 != 3;

    return t.c->seed != EMPTY && has ? BASE + sector : 0;
}

static void add_version(uint64_t sector, struct version v)
{
    struct history *h = &t.sectors[sector];

    h->list = xreallocarray(h->list, h->count + 1, sizeof(*h->list));
    h->list[h->count++] = v;
}

static void write_pattern(const char *name, uint64_t size)
{
    uint64_t *data = xmalloc(size);

    for (uint64_t i = 0; i < size / 8; i++) {
        data[i] = pattern_of(i * 8 / SECTOR);
    }
    qkit_write_file(name, data, size);
    free(data);
}

static void make_seed(void)
{
    const struct crash_case *c = t.c;

    qkit_run("rm -f seed base data.raw");
    if (c->seed == BACKING) {
        write_pattern("base", c->size / 4 * 3);
    }
    if (c->seed == DATA || c->seed == COMPRESSED) {
        write_pattern("pattern", c->size);
        qkit_run("qemu-img convert %s -f raw -O qcow2 -o %s pattern seed",
                 c->seed == COMPRESSED ? "-c" : "", c->create);
    } else {
        qkit_run("qemu-img create -f qcow2 -o %s %s seed %llu", c->create,
                 c->seed == BACKING ? "-F raw -b base" : "", (unsigned long long)c->size);
    }
    if (c->snapshots) {
        qkit_run("qemu-img snapshot -c old seed");
    }
}

static bool has_data_file(void)
{
    return strstr(t.c->create, "data_file");
}

static void open_seed(void)
{
    disk_load("seed", 4 * t.c->size + 16 * (uint64_t)t.c->cluster_size + MiB);
    if (has_data_file()) {
        disk_load_second("data.raw");
    }
    t.be = kit_drive("driver=qcow2,file.driver=disk,if=none,discard=unmap%s",
                     has_data_file() ? ",data-file.driver=disk,data-file.disk=1" : "");
    disk_set_log(true);
    disk_set_delay(100000);
}

/* Notes what each sector has now. */
static struct snapshot *add_snapshot(const char *name)
{
    struct snapshot *s = &t.snapshots[t.snapshot_count++];

    *s = (struct snapshot){.name = name, .counts = xcalloc(sector_count(), sizeof(*s->counts))};
    s->deleted = s->is_deleted = UINT64_MAX;
    for (uint64_t i = 0; i < sector_count(); i++) {
        s->counts[i] = t.sectors[i].count;
    }
    return s;
}

static void begin_case(const struct crash_case *c, bool fails)
{
    print_message("%s\n", c->create);
    t.c = c;
    t.fails = fails;
    t.flush_count = t.snapshot_count = 0;
    t.sectors = xcalloc(sector_count(), sizeof(*t.sectors));
    t.busy = xcalloc(sector_count(), 1);
    for (uint64_t i = 0; i < sector_count(); i++) {
        add_version(i, (struct version){.stamp = pattern_of(i)});
    }
    if (c->snapshots) {
        add_snapshot("old");
    }
    make_seed();
    open_seed();
}

static void end_case(void)
{
    for (uint64_t i = 0; i < sector_count(); i++) {
        free(t.sectors[i].list);
    }
    for (size_t i = 0; i < t.snapshot_count; i++) {
        free(t.snapshots[i].counts);
    }
    free(t.sectors);
    free(t.busy);
    disk_unload();
}

/* ---- load -------------------------------------------------------------------------------------- */

static void add_flush(uint64_t begin)
{
    pthread_mutex_lock(&t.lock);
    CHECK(t.flush_count < ARRAY_SIZE(t.flushes));
    t.flushes[t.flush_count++] = (struct flush){begin, disk_time()};
    pthread_mutex_unlock(&t.lock);
}

/* Of writes to what has been written: all of it has. */
static bool is_written(uint64_t first, uint64_t count)
{
    for (uint64_t i = first; i < first + count; i++) {
        const struct history *h = &t.sectors[i];
        if (!h->list[h->count - 1].stamp) {
            return false;
        }
    }
    return true;
}

static bool begin_write(uint64_t first, uint64_t count, uint64_t stamp, bool durable)
{
    pthread_mutex_lock(&t.lock);
    bool ok = !memchr(t.busy + first, 1, count) && (!t.overwrites || is_written(first, count));
    if (ok) {
        memset(t.busy + first, 1, count);
        uint64_t now = disk_time();
        for (uint64_t i = first; i < first + count; i++) {
            add_version(i, (struct version){.begin = now, .stamp = stamp, .durable = durable});
        }
    }
    pthread_mutex_unlock(&t.lock);
    return ok;
}

static void end_write(uint64_t first, uint64_t count, int ret)
{
    pthread_mutex_lock(&t.lock);
    uint64_t now = disk_time();
    for (uint64_t i = first; i < first + count; i++) {
        t.sectors[i].list[t.sectors[i].count - 1].end = ret == 0 ? now : 0;
    }
    memset(t.busy + first, 0, count);
    pthread_mutex_unlock(&t.lock);
}

static void co_flush(void)
{
    uint64_t begin = disk_time();

    int ret = backend_co_flush(t.be, 0);
    CHECK(ret == 0 || t.fails);
    if (ret == 0) {
        add_flush(begin);
    }
}

static int co_write(uint64_t offset, uint64_t length, uint64_t stamp, unsigned flags)
{
    uint64_t *data = xmalloc(length);
    struct iovec vec;
    struct block_iov iov = block_iov_of(&vec, data, length);

    for (uint64_t i = 0; i < length / 8; i++) {
        data[i] = stamp;
    }
    int ret = backend_co_pwritev(t.be, offset, &iov, flags, 0);
    free(data);
    return ret;
}

enum kind { WRITE, LONG_WRITE, COMPRESS, ZERO, ZERO_CLUSTERS, DISCARD, FLUSH, COMMIT };

static enum kind random_kind(uint64_t *random)
{
    uint64_t n = kit_random(random) % 16;

    if (n == 15) {
        return kit_random(random) % 3 ? FLUSH : COMMIT;
    }
    if (t.overwrites || n < 10) {
        return WRITE;
    }
    if (n < 12) {
        return t.c->compresses ? COMPRESS : LONG_WRITE;
    }
    return n == 12 ? ZERO : n == 13 ? ZERO_CLUSTERS : DISCARD;
}

static int co_change(enum kind kind, uint64_t offset, uint64_t length, uint64_t stamp,
                     unsigned flags, uint64_t *random)
{
    switch (kind) {
    case DISCARD:
        return backend_co_discard(t.be, offset, length);
    case ZERO:
    case ZERO_CLUSTERS:
        return backend_co_write_zeroes(t.be, offset, length,
                                       flags | (kit_random(random) % 2 ? BLOCK_REQ_MAY_UNMAP : 0));
    case COMPRESS:
        return co_write(offset, length, stamp, flags | BLOCK_REQ_COMPRESSED);
    default:
        return co_write(offset, length, stamp, flags);
    }
}

/* False: no request, as others are in the way, or it would be no overwrite. */
static bool co_one(uint64_t *random)
{
    uint64_t sectors = sector_count(), per_cluster = t.c->cluster_size / SECTOR;
    enum kind kind = random_kind(random);
    bool by_clusters = kind == COMPRESS || kind == ZERO_CLUSTERS || kind == DISCARD;
    uint64_t most = MIN(MAX(kind == WRITE ? 8 : 3 * per_cluster, 2), MOST);
    uint64_t count = 1 + kit_random(random) % most, first = kit_random(random) % sectors;

    if (kind == FLUSH) {
        co_flush();
        return true;
    }
    if (kind == COMMIT) { /* as when the caches are full */
        CHECK(co_qcow2_commit(backend_root(t.be), false) == 0 || t.fails);
        return true;
    }
    if (by_clusters) {
        first -= first % per_cluster;
        count = per_cluster * (1 + kit_random(random) % 3);
    }
    count = MIN(count, sectors - first);
    pthread_mutex_lock(&t.lock);
    uint64_t stamp = kind >= ZERO ? 0 : ++t.next_stamp;
    pthread_mutex_unlock(&t.lock);
    bool fua = kind != DISCARD && kit_random(random) % (t.overwrites ? 2 : 8) == 0;
    if (!begin_write(first, count, stamp, fua)) {
        return false;
    }
    int ret =
        co_change(kind, first * SECTOR, count * SECTOR, stamp, fua ? BLOCK_REQ_FUA : 0, random);
    CHECK(ret == 0 || t.fails);
    end_write(first, count, ret);
    return true;
}

struct worker {
    uint64_t random;
    unsigned requests;
};

static void co_work(void *opaque)
{
    struct worker *w = opaque;

    for (unsigned i = 0; i < w->requests; i++) {
        if (t.fails && kit_random(&w->random) % 8 == 0) {
            disk_fail(kit_random(&w->random) % 4 ? DISK_WRITE : DISK_FLUSH,
                      1 + (unsigned)(kit_random(&w->random) % 8),
                      1 + (unsigned)(kit_random(&w->random) % 3), EIO);
        }
        for (unsigned tries = t.overwrites ? 20 : 1; tries && !co_one(&w->random); tries--) {
        }
    }
    atomic_fetch_sub(&running, 1);
}

static void run_workers(uint64_t seed, unsigned requests)
{
    struct kit_thread *second = kit_thread_start(AIO_LOOP_AUTO);
    struct worker workers[WORKERS];

    atomic_store(&running, WORKERS);
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){seed * 1000 + i * 2 + 1, requests};
        aio_call_co(i % 2 ? kit_thread_loop(second) : aio_loop_current(), co_work, &workers[i]);
    }
    while (atomic_load(&running)) {
        aio_loop_poll(aio_loop_current(), false);
    }
    kit_thread_stop(second);
    disk_fail(DISK_WRITE, 0, 0, 0);
    disk_fail(DISK_FLUSH, 0, 0, 0);
}

/* Requests of all kinds; then, with all metadata on stable storage, only such as need none: with FUA
 * they go through to the disk. */
static void run_phase(uint64_t seed, unsigned requests)
{
    t.overwrites = false;
    run_workers(seed, requests);
    uint64_t begin = disk_time();
    assert_int_equal(kit_flush(t.be), 0);
    add_flush(begin);
    t.overwrites = true;
    run_workers(seed + 500, MAX(requests / 4, 1));
}

/* The end of a run is a flush as well. */
static void run_load(uint64_t seed, unsigned requests)
{
    if (t.c->snapshots) {
        run_phase(seed + 200, requests / 3);
        struct snapshot *mid = add_snapshot("mid");
        mid->made = disk_time();
        snapshot_op(t.be, "create", "mid", NULL);
        mid->is_made = disk_time();
        run_phase(seed + 400, requests / 3);
        mid->deleted = disk_time();
        snapshot_op(t.be, "delete", "mid", NULL);
        mid->is_deleted = disk_time();
        requests /= 3;
    }
    run_phase(seed, requests);
    uint64_t begin = disk_time();
    kit_close();
    add_flush(begin);
}

/* ---- checks ------------------------------------------------------------------------------------ */

/* What was reported before this time is covered by a flush that ended before `when`. */
static uint64_t covered_at(uint64_t when)
{
    uint64_t covered = 0;

    for (size_t i = 0; i < t.flush_count; i++) {
        if (t.flushes[i].end <= when) {
            covered = MAX(covered, t.flushes[i].begin);
        }
    }
    return covered;
}

static bool has_stamp(const struct history *h, size_t from, size_t to, uint64_t stamp)
{
    for (size_t i = from; i < to; i++) {
        if (h->list[i].stamp == stamp) {
            return true;
        }
    }
    return false;
}

/* The newest version that is certain must be there, or a later one that had begun. */
static bool is_allowed(const struct history *h, uint64_t stamp, uint64_t when, uint64_t covered)
{
    size_t oldest = 0, begun = 1;
    bool by_fua = false;

    for (size_t i = 1; i < h->count; i++) {
        const struct version *v = &h->list[i];
        bool flushed = v->end && v->end < covered, fua = v->durable && v->end && v->end <= when;
        if (flushed || fua) {
            oldest = i;
            by_fua = !flushed;
        }
        begun += v->begin <= when;
    }
    met.fua_alone += by_fua;
    return has_stamp(h, oldest, begun, stamp);
}

/* As it was when the snapshot was made, after all that had succeeded. */
static bool is_allowed_in(const struct snapshot *s, uint64_t sector, uint64_t stamp)
{
    const struct history *h = &t.sectors[sector];
    size_t oldest = 0;

    for (size_t i = 1; i < s->counts[sector]; i++) {
        oldest = h->list[i].end ? i : oldest;
    }
    return has_stamp(h, oldest, s->counts[sector], stamp);
}

static uint8_t content[MAX_SIZE]; /* what was read */

static void check_content(const char *name, const struct snapshot *snapshot, uint64_t when)
{
    uint64_t covered = covered_at(when);

    for (uint64_t i = 0; i < sector_count(); i++) {
        const uint8_t *sector = content + i * SECTOR;
        uint64_t stamp;
        memcpy(&stamp, sector, sizeof(stamp));
        if (memcmp(sector, sector + 8, SECTOR - 8)) {
            fail_msg("%s, time %llu: sector %llu is torn", name, (unsigned long long)when,
                     (unsigned long long)i);
        }
        if (snapshot ? !is_allowed_in(snapshot, i, stamp)
                     : !is_allowed(&t.sectors[i], stamp, when, covered)) {
            fail_msg("%s, time %llu: sector %llu has %llu", name, (unsigned long long)when,
                     (unsigned long long)i, (unsigned long long)stamp);
        }
    }
}

/* Which snapshots an image has: bits, by their places in t.snapshots. */
static unsigned snapshots_of(struct block_node *node)
{
    struct block_snapshot *list;
    unsigned found = 0;

    size_t count = node->driver->image->snapshot_list(node, &list);
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < t.snapshot_count; j++) {
            found |= (unsigned)!strcmp(list[i].name, t.snapshots[j].name) << j;
        }
    }
    block_snapshots_free(list, count);
    return found;
}

/* snapshot: which is read, or NULL: the disk. */
static unsigned check_by_ferry(const char *image, const struct snapshot *snapshot, uint64_t when)
{
    struct block_backend *be = image_backend(image, false);

    unsigned found = snapshots_of(backend_root(be));
    if (snapshot) {
        snapshot_op(be, "load", snapshot->name, NULL);
    }
    assert_int_equal(kit_read(be, 0, content, t.c->size), 0);
    image_backend_close(be);
    check_content(snapshot ? snapshot->name : "disk", snapshot, when);
    return found;
}

static void check_by_qemu(const char *image, uint64_t when)
{
    qkit_run("qemu-img convert -f qcow2 -O raw %s crashed.raw", image);
    kit_read_file("crashed.raw", 0, content, t.c->size);
    check_content("disk by QEMU", NULL, when);
}

/* What a data file has by itself, where it promises to be the disk. */
static void check_data_file(uint64_t when)
{
    if (strstr(t.c->create, "data_file_raw=on")) {
        kit_read_file("data.raw", 0, content, t.c->size);
        check_content("data file", NULL, when);
    }
}

static void check_snapshots(const char *image, unsigned found, uint64_t when)
{
    for (size_t i = 0; i < t.snapshot_count; i++) {
        struct snapshot *s = &t.snapshots[i];
        bool has = found >> i & 1;
        bool may = s->made <= when && when < s->is_deleted;
        bool must = s->is_made <= when && when < s->deleted;
        if (has ? !may : must) {
            fail_msg("time %llu: %s snapshot %s", (unsigned long long)when, has ? "has" : "no",
                     s->name);
        }
        if (has) {
            check_by_ferry(image, s, when);
        }
        s->seen |= has;
        s->missed |= !has;
    }
}

static bool is_dirty(const char *image)
{
    uint8_t bits[8];

    kit_read_file(image, QCOW2_H_VERSION, bits, 4);
    if (load_be32(bits) < 3) {
        return false;
    }
    kit_read_file(image, QCOW2_H_INCOMPATIBLE, bits, 8);
    return load_be64(bits) & QCOW2_INCOMPAT_DIRTY;
}

/* The dirty bit says that refcounts may be wrong, and nothing else may be: who opens the image for
 * writing puts them right. Returns the image to look at. */
static const char *mended(const char *image)
{
    bool is_lazy = strstr(t.c->create, "lazy_refcounts");

    if (!is_dirty(image)) {
        met.clean += is_lazy;
        return image;
    }
    assert_true(is_lazy);
    met.dirty++;
    copy_file(image, "mended");
    image_backend_close(image_backend("mended", true));
    assert_false(is_dirty("mended"));
    return "mended";
}

/* Fails the test, and keeps the image. */
static void fail_image(const char *image, uint64_t when, const char *why)
{
    qkit_run("cp %s ../crashed.failed", image);
    qkit_try("qemu-img check -f qcow2 %s", image);
    fail_msg("time %llu: %s", (unsigned long long)when, why);
}

static void check_crashed(const char *crashed, uint64_t when, bool ask_qemu)
{
    const char *image = mended(crashed);
    bool may_leak = image == crashed;
    struct block_check_result result;

    if (!ferry_check(image, 0, &result, NULL, NULL) || result.check_errors || result.corruptions) {
        fail_image(image, when, "ferry's check has errors");
    }
    if (!may_leak && result.leaks) {
        fail_image(image, when, "leaks after the refcounts were put right");
    }
    met.compressed += result.compressed_clusters > 0;
    if (ask_qemu &&
        !(may_leak ? qkit_has_no_errors(image) : qkit_try("qemu-img check -f qcow2 %s", image))) {
        fail_image(image, when, "qemu-img's check has errors");
    }
    check_snapshots(image, check_by_ferry(image, NULL, when), when);
    check_data_file(when);
}

static void crash_at(uint64_t when, uint64_t random)
{
    disk_crash("crashed", when, random);
    check_crashed("crashed", when, true);
    if (random % 4 == 0) {
        check_by_qemu("crashed", when);
    }
    met.mixtures++;
}

static uint64_t between(uint64_t begin, uint64_t end, uint64_t *random)
{
    return begin + kit_random(random) % (end - begin);
}

/* While it is made, after that, while it is deleted. */
static void crash_around_snapshot(const struct snapshot *s, uint64_t random)
{
    crash_at(between(s->made, s->is_made, &random), kit_random(&random));
    crash_at(s->is_made, kit_random(&random));
    crash_at(between(s->deleted, s->is_deleted, &random), kit_random(&random));
}

/* All prefixes of the log, or some. */
static void check_prefixes(bool all, uint64_t random)
{
    size_t changes = disk_changes(), step = all ? 1 : MAX(changes / (SOME * qkit_scale()), 1);
    unsigned count = 0;

    for (size_t n = all ? 0 : kit_random(&random) % step; n <= changes; count++) {
        uint64_t when = disk_prefix("prefix", n);
        check_crashed("prefix", when, count % EVERY_NTH == 0);
        n += all ? 1 : 1 + kit_random(&random) % (2 * step - 1);
    }
    met.prefixes += count;
}

static void run_case(const struct crash_case *c, uint64_t seed, bool fails, unsigned requests,
                     unsigned mixtures, bool all_prefixes)
{
    begin_case(c, fails);
    uint64_t start = disk_time();
    run_load(seed, requests);
    uint64_t end = disk_time(), random = seed * 77 + 1;
    met.fua += disk_fua_writes();
    for (unsigned i = 0; i < mixtures; i++) {
        crash_at(between(start, end, &random), kit_random(&random));
    }
    if (c->snapshots && mixtures) {
        crash_around_snapshot(&t.snapshots[1], kit_random(&random));
    }
    crash_at(end, 0); /* nothing that was not flushed */
    assert_false(is_dirty("crashed"));
    check_prefixes(all_prefixes, kit_random(&random));
    for (size_t i = 0; i < t.snapshot_count; i++) {
        met.mid_seen += t.snapshots[i].made && t.snapshots[i].seen;
        met.mid_missed += t.snapshots[i].made && t.snapshots[i].missed;
    }
    end_case();
}

static void check_met(void)
{
    print_message(
        "%u prefixes, %u mixtures; %u images dirty, %u with compressed clusters; %u writes "
        "with FUA, %u sectors there by that alone; a snapshot seen in %u cases, not yet "
        "or no more in %u\n",
        met.prefixes, met.mixtures, met.dirty, met.compressed, met.fua, met.fua_alone, met.mid_seen,
        met.mid_missed);
    assert_true(met.prefixes && met.mixtures && met.dirty && met.clean);
    assert_true(met.fua_alone && met.compressed);
    assert_true(met.mid_seen && met.mid_missed);
    memset(&met, 0, sizeof(met));
}

static void run_cases(bool fails)
{
    unsigned scale = qkit_scale();

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        if (fails && scale == 1 && i % 2 == 0) {
            continue;
        }
        for (unsigned round = 0; round < (scale > 1 ? 5 : 1); round++) {
            bool all = scale > 1 && !round;
            unsigned requests = scale == 1 ? 36 : all ? 45 : 60;
            run_case(&cases[i], i * 10 + round + 1, fails, requests, 2 * scale, all);
        }
    }
    assert_true(met.fua);
    check_met();
}

static void every_prefix(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        if (cases[i].small_too) {
            struct crash_case c = cases[i];
            c.size /= 4;
            run_case(&c, i * 10 + 7, false, 6, 0, true);
        }
    }
    check_met();
}

static void power_failures(void **state)
{
    run_cases(false);
}

/* Requests fail before that; what is written once more is in the same order. */
static void power_failures_after_errors(void **state)
{
    run_cases(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_prefix, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(power_failures, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(power_failures_after_errors, kit_setup, kit_teardown),
    };

    if (!tools_have_qemu_img()) {
        puts("needs qemu-img (package qemu-utils)");
        return 77;
    }
    return cmocka_run_group_tests(tests, tools_enter_directory, tools_leave_directory);
}
