/* SPDX-License-Identifier: MIT */
/*
 * Power fails at any time: what may be on the disk then is an image in which qemu-img check finds at
 * most leaks, and which has all data that a flush covered. Requests come from two loops, flushes in
 * between, and the disk takes its time, so that commits and requests overlap.
 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"
#include "block/iov.h"
#include "block/qcow2/qcow2.h"
#include "disk.h"
#include "qkit.h"

#define SECTOR  512u
#define WORKERS 6
#define LIMIT   (64 * MiB)

/* What a sector was given: `stamp` in all of its words (0: zeroes). */
struct version {
    uint64_t begin, end; /* end 0: not reported */
    uint64_t stamp;
};

struct history {
    struct version *list;
    size_t count;
};

struct flush {
    uint64_t begin, end;
};

static struct {
    pthread_mutex_t lock;
    struct block_backend *be;
    uint64_t size;
    uint32_t cluster_size;
    struct history *sectors;
    uint8_t *busy;
    struct flush flushes[4096];
    size_t flush_count;
    uint64_t next_stamp;
    bool fails; /* the disk does, now and then */
} t = {.lock = PTHREAD_MUTEX_INITIALIZER};

static _Atomic(unsigned) running;

/* ---- load -------------------------------------------------------------------------------------- */

static bool begin_write(uint64_t first, uint64_t count, uint64_t stamp)
{
    pthread_mutex_lock(&t.lock);
    bool ok = !memchr(t.busy + first, 1, count);
    if (ok) {
        memset(t.busy + first, 1, count);
        uint64_t now = disk_time();
        for (uint64_t i = first; i < first + count; i++) {
            struct history *h = &t.sectors[i];
            h->list = xreallocarray(h->list, h->count + 1, sizeof(*h->list));
            h->list[h->count++] = (struct version){.begin = now, .stamp = stamp};
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
    pthread_mutex_lock(&t.lock);
    if (ret == 0 && t.flush_count < ARRAY_SIZE(t.flushes)) {
        t.flushes[t.flush_count++] = (struct flush){begin, disk_time()};
    }
    pthread_mutex_unlock(&t.lock);
}

static void co_one(uint64_t *random)
{
    uint64_t sectors = t.size / SECTOR, per_cluster = t.cluster_size / SECTOR;
    uint64_t kind = kit_random(random) % 16;
    uint64_t count = 1 + kit_random(random) % MAX(kind < 10 ? 8 : 3 * per_cluster, 2);
    uint64_t first = kit_random(random) % sectors;
    bool discard = kind == 14, zero = kind == 12 || kind == 13;

    if (kind == 15 && kit_random(random) % 3) {
        co_flush();
        return;
    }
    if (kind == 15) { /* as when the caches are full */
        CHECK(co_qcow2_commit(backend_root(t.be), false) == 0 || t.fails);
        return;
    }
    count = MIN(count, sectors - first);
    if (discard || kind == 13) {
        first -= first % per_cluster;
        count = MIN(per_cluster * (1 + kit_random(random) % 3), sectors - first);
    }
    pthread_mutex_lock(&t.lock);
    uint64_t stamp = discard || zero ? 0 : ++t.next_stamp;
    pthread_mutex_unlock(&t.lock);
    if (!begin_write(first, count, stamp)) {
        return;
    }
    uint64_t offset = first * SECTOR, length = count * SECTOR;
    int ret;
    if (discard) {
        ret = backend_co_discard(t.be, offset, length);
    } else if (zero) {
        ret = backend_co_write_zeroes(t.be, offset, length,
                                      kit_random(random) % 2 ? BLOCK_REQ_MAY_UNMAP : 0);
    } else {
        uint64_t *data = xmalloc(length);
        for (uint64_t i = 0; i < length / 8; i++) {
            data[i] = stamp;
        }
        struct iovec vec;
        struct block_iov iov = block_iov_of(&vec, data, length);
        ret = backend_co_pwritev(t.be, offset, &iov, 0, 0);
        free(data);
    }
    CHECK(ret == 0 || t.fails);
    end_write(first, count, ret);
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
        co_one(&w->random);
    }
    atomic_fetch_sub(&running, 1);
}

static void run_load(uint64_t seed, unsigned requests)
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
}

/* ---- checks ------------------------------------------------------------------------------------ */

/* The newest version that the last flush before `when` covers must be there, or a later one that had
 * begun. */
static bool is_allowed(const struct history *h, uint64_t stamp, uint64_t when)
{
    size_t oldest = 0;

    for (size_t i = 0; i < h->count; i++) {
        const struct version *v = &h->list[i];
        for (size_t f = 0; f < t.flush_count; f++) {
            if (t.flushes[f].end <= when && v->end && v->end < t.flushes[f].begin) {
                oldest = i + 1;
            }
        }
    }
    /* oldest: 1 + index of the version that is certain, or 0: the seed's, zeroes */
    if (!oldest && !stamp) {
        return true;
    }
    for (size_t i = oldest ? oldest - 1 : 0; i < h->count; i++) {
        if (h->list[i].begin <= when && h->list[i].stamp == stamp) {
            return true;
        }
    }
    return false;
}

static void check_data(uint64_t when)
{
    uint8_t *data = xmalloc(t.size);

    kit_read_file("crashed.raw", 0, data, t.size);
    for (uint64_t i = 0; i < t.size / SECTOR; i++) {
        const uint8_t *sector = data + i * SECTOR;
        uint64_t stamp;
        memcpy(&stamp, sector, sizeof(stamp));
        if (memcmp(sector, sector + 8, SECTOR - 8)) {
            fail_msg("time %llu: sector %llu is torn", (unsigned long long)when,
                     (unsigned long long)i);
        }
        if (!is_allowed(&t.sectors[i], stamp, when)) {
            fail_msg("time %llu: sector %llu has %llu", (unsigned long long)when,
                     (unsigned long long)i, (unsigned long long)stamp);
        }
    }
    free(data);
}

static void crash_at(uint64_t when, uint64_t random, bool repair)
{
    disk_crash("crashed", when, random);
    if (repair) {
        /* The dirty bit says that refcounts may be wrong; nothing else may be. */
        qkit_run("qemu-img check -q -r all -f qcow2 crashed");
    } else if (!qkit_has_no_errors("crashed")) {
        qkit_run("cp crashed ../crashed.failed; cat out; false");
    }
    qkit_run("qemu-img convert -f qcow2 -O raw crashed crashed.raw");
    check_data(when);
}

static void clear(void)
{
    for (uint64_t i = 0; i < t.size / SECTOR; i++) {
        free(t.sectors[i].list);
    }
    free(t.sectors);
    free(t.busy);
}

static void run_case(const char *create, uint32_t cluster_size, uint64_t size, bool repair,
                     bool fails, uint64_t seed)
{
    unsigned points = 8 * qkit_scale();

    print_message("%s\n", create);
    qkit_run("rm -f seed; qemu-img create -f qcow2 -o %s seed %llu", create,
             (unsigned long long)size);
    disk_load("seed", LIMIT);
    t.size = size;
    t.cluster_size = cluster_size;
    t.sectors = xcalloc(size / SECTOR, sizeof(*t.sectors));
    t.busy = xcalloc(size / SECTOR, 1);
    t.flush_count = 0;
    t.fails = fails;
    t.be = kit_drive("driver=qcow2,file.driver=disk,if=none,discard=unmap");
    disk_set_log(true);
    disk_set_delay(100000);
    uint64_t start = disk_time();
    run_load(seed, 60);
    disk_fail(DISK_WRITE, 0, 0, 0);
    disk_fail(DISK_FLUSH, 0, 0, 0);
    kit_close();
    uint64_t end = disk_time(), random = seed * 77 + 1;
    for (unsigned i = 0; i < points; i++) {
        crash_at(start + kit_random(&random) % (end - start), kit_random(&random), repair);
    }
    crash_at(end, 0, repair);
    clear();
    disk_unload();
}

static void run_cases(bool fails)
{
    static const struct {
        const char *create;
        uint32_t cluster_size;
        uint64_t size;
        bool repair;
    } cases[] = {
        {"cluster_size=512", 512, MiB, false},
        {"cluster_size=512,refcount_bits=64", 512, 2 * MiB, false},
        {"cluster_size=4k", 4096, 4 * MiB, false},
        {"cluster_size=64k", 65536, 8 * MiB, false},
        {"cluster_size=16k,extended_l2=on", 16384, 4 * MiB, false},
        {"cluster_size=4k,lazy_refcounts=on", 4096, 4 * MiB, true},
        {"cluster_size=4k,compat=0.10", 4096, 4 * MiB, false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        for (unsigned round = 0; round < (qkit_scale() > 1 ? 5 : 1); round++) {
            run_case(cases[i].create, cases[i].cluster_size, cases[i].size, cases[i].repair, fails,
                     i * 10 + round + 1);
        }
    }
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
        cmocka_unit_test_setup_teardown(power_failures, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(power_failures_after_errors, kit_setup, kit_teardown),
    };

    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
