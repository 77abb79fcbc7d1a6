/* SPDX-License-Identifier: MIT */
/* A disk in memory that fails and crashes. See disk.h. */
#include "disk.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/iov.h"
#include "kit.h"

#define SECTOR 512u

struct entry {
    enum disk_op op;
    uint64_t begin, end; /* end 0: not ended */
    bool fua, failed;
    uint64_t offset, length;
    uint8_t *data; /* of a write */
};

static struct {
    pthread_mutex_t lock; /* guards all */
    uint8_t *data, *seed;
    uint64_t size, seed_size, limit;
    struct entry *log;
    size_t count, capacity;
    bool logs;
    uint64_t delay_ns, random;
    bool refuses_reopen;
    struct {
        unsigned count, first, failing;
        int error;
    } fail[DISK_OPS];
} disk = {.lock = PTHREAD_MUTEX_INITIALIZER};

static _Atomic(uint64_t) now;

uint64_t disk_time(void)
{
    return atomic_fetch_add(&now, 1) + 1;
}

/* ---- requests ---------------------------------------------------------------------------------- */

static void co_delay(void)
{
    pthread_mutex_lock(&disk.lock);
    uint64_t ns = disk.delay_ns ? kit_random(&disk.random) % disk.delay_ns : 0;
    bool sleeps = disk.delay_ns && kit_random(&disk.random) % 2;
    pthread_mutex_unlock(&disk.lock);
    if (sleeps) {
        co_sleep(AIO_CLOCK_RT, (int64_t)ns);
    }
}

static int failure(enum disk_op op)
{
    unsigned n = ++disk.fail[op].count;

    return n >= disk.fail[op].first && n - disk.fail[op].first < disk.fail[op].failing
               ? -disk.fail[op].error
               : 0;
}

static void apply(enum disk_op op, uint64_t offset, uint64_t length, const uint8_t *data, int ret)
{
    for (uint64_t done = 0; done < length;) {
        uint64_t at = offset + done, n = MIN(SECTOR - at % SECTOR, length - done);
        if (ret == 0 || kit_random(&disk.random) % 2) {
            if (data) {
                memcpy(disk.data + at, data + done, n);
            } else {
                memset(disk.data + at, 0, n);
            }
        }
        done += n;
    }
}

/* With the lock. data: NULL, or owned by the log afterwards. Where it is, or SIZE_MAX. */
static size_t note(const struct entry *entry)
{
    if (!disk.logs) {
        return SIZE_MAX;
    }
    if (disk.count == disk.capacity) {
        disk.capacity = MAX(1024, 2 * disk.capacity);
        disk.log = xreallocarray(disk.log, disk.capacity, sizeof(*disk.log));
    }
    disk.log[disk.count] = *entry;
    return disk.count++;
}

static int co_change(enum disk_op op, uint64_t offset, uint64_t length, const struct block_iov *iov,
                     unsigned flags)
{
    struct entry entry = {.op = op,
                          .begin = disk_time(),
                          .fua = flags & BLOCK_REQ_FUA,
                          .offset = offset,
                          .length = length};
    uint8_t *data = NULL;

    if (iov) {
        data = xmalloc(MAX(length, 1));
        block_iov_read(iov, 0, data, length);
    }
    co_delay();
    pthread_mutex_lock(&disk.lock);
    int ret = failure(op);
    if (ret == 0 && op != DISK_FLUSH && !range_fits(offset, length, disk.limit)) {
        ret = -ENOSPC;
    }
    if (range_fits(offset, length, disk.limit) && op != DISK_FLUSH) {
        apply(op, offset, length, data, ret);
        disk.size = MAX(disk.size, offset + length);
    }
    entry.failed = ret < 0;
    entry.data = data;
    size_t index = op != DISK_FLUSH || ret == 0 ? note(&entry) : SIZE_MAX;
    bool is_logged = index != SIZE_MAX;
    if (is_logged) {
        data = NULL;
    }
    pthread_mutex_unlock(&disk.lock);
    free(data);
    co_delay();
    if (is_logged) {
        pthread_mutex_lock(&disk.lock);
        disk.log[index].end = disk_time();
        pthread_mutex_unlock(&disk.lock);
    }
    return ret;
}

static int disk_co_preadv(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                          unsigned flags, uint64_t id)
{
    co_delay();
    pthread_mutex_lock(&disk.lock);
    int ret = failure(DISK_READ);
    if (ret == 0) {
        CHECK(range_fits(offset, iov->size, disk.limit));
        block_iov_write(iov, 0, disk.data + offset, iov->size);
    }
    pthread_mutex_unlock(&disk.lock);
    return ret;
}

static int disk_co_pwritev(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                           unsigned flags, uint64_t id)
{
    return co_change(DISK_WRITE, offset, iov->size, iov, flags);
}

static int disk_co_flush(struct block_node *node, uint64_t id)
{
    return co_change(DISK_FLUSH, 0, 0, NULL, 0);
}

static int disk_co_discard(struct block_node *node, uint64_t offset, uint64_t length)
{
    return co_change(DISK_DISCARD, offset, length, NULL, 0);
}

static int disk_co_write_zeroes(struct block_node *node, uint64_t offset, uint64_t length,
                                unsigned flags)
{
    return co_change(DISK_ZEROES, offset, length, NULL, flags);
}

static bool disk_open(struct block_node *node, struct options *opts, struct error **errp)
{
    free(node->filename);
    node->filename = xstrdup("disk");
    return true;
}

static int64_t disk_length(struct block_node *node)
{
    pthread_mutex_lock(&disk.lock);
    int64_t size = (int64_t)disk.size;
    pthread_mutex_unlock(&disk.lock);
    return size;
}

static bool disk_allow_growth(struct block_node *node)
{
    return true;
}

static int disk_co_truncate(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
                            struct error **errp)
{
    pthread_mutex_lock(&disk.lock);
    int ret = failure(DISK_TRUNCATE);
    ret = ret == 0 && length > disk.limit ? -ENOSPC : ret;
    if (ret == 0) {
        if (length < disk.size) {
            memset(disk.data + length, 0, disk.size - length);
        }
        disk.size = length;
        note(&(struct entry){
            .op = DISK_TRUNCATE, .begin = disk_time(), .end = disk_time(), .offset = length});
    }
    pthread_mutex_unlock(&disk.lock);
    if (ret < 0) {
        error_set_errno(errp, -ret, "Could not resize the disk");
    }
    return ret;
}

static bool disk_reopen(struct block_node *node, unsigned flags, struct error **errp)
{
    bool refuses = disk.refuses_reopen;

    disk.refuses_reopen = false;
    if (refuses) {
        error_set(errp, "The disk refuses");
    }
    return !refuses;
}

/* As a file here, so that images on it can have backing files beside it. */
static char *disk_plain_name(const struct block_node *node, bool has_options)
{
    return xstrdup("disk");
}

static const struct block_driver driver = {
    .name = "disk",
    .is_protocol = true,
    .plain_name = disk_plain_name,
    .supported_flags = BLOCK_REQ_FUA,
    .open = disk_open,
    .reopen = disk_reopen,
    .length = disk_length,
    .co_preadv = disk_co_preadv,
    .co_pwritev = disk_co_pwritev,
    .co_flush = disk_co_flush,
    .co_discard = disk_co_discard,
    .co_write_zeroes = disk_co_write_zeroes,
    .co_truncate = disk_co_truncate,
    .allow_growth = disk_allow_growth,
};

/* ---- tests' side -------------------------------------------------------------------------------- */

static void clear_log(void)
{
    for (size_t i = 0; i < disk.count; i++) {
        free(disk.log[i].data);
    }
    free(disk.log);
    disk.log = NULL;
    disk.count = disk.capacity = 0;
}

void disk_load(const char *seed, uint64_t limit)
{
    disk_unload();
    disk.size = disk.seed_size = kit_file_size(seed);
    disk.limit = limit;
    CHECK(disk.size <= limit);
    disk.data = xcalloc(1, limit);
    disk.seed = xcalloc(1, MAX(disk.size, 1));
    kit_read_file(seed, 0, disk.seed, disk.size);
    memcpy(disk.data, disk.seed, disk.size);
    disk.random = 88172645463325252u;
    memset(disk.fail, 0, sizeof(disk.fail));
    block_driver_set_test(&driver);
}

void disk_unload(void)
{
    clear_log();
    free(disk.data);
    free(disk.seed);
    disk.data = disk.seed = NULL;
    disk.logs = false;
    disk.delay_ns = 0;
    block_driver_set_test(NULL);
}

static void save(const char *name, const uint8_t *data, uint64_t size)
{
    FILE *f = fopen(name, "we");

    CHECK(f && fwrite(data, 1, size, f) == size);
    CHECK(fclose(f) == 0);
}

void disk_save(const char *name)
{
    save(name, disk.data, disk.size);
}

static bool is_durable(const struct entry *w, uint64_t when)
{
    if (!w->end || w->end > when || w->failed) {
        return false;
    }
    if (w->fua) {
        return true;
    }
    for (size_t i = 0; i < disk.count; i++) {
        const struct entry *f = &disk.log[i];
        if (f->op == DISK_FLUSH && f->begin > w->end && f->end && f->end <= when) {
            return true;
        }
    }
    return false;
}

void disk_crash(const char *name, uint64_t when, uint64_t random)
{
    uint8_t *data = xcalloc(1, disk.limit);
    uint64_t size = disk.seed_size;
    /* Mostly one of: none, all, or a mixture of what is not flushed. */
    unsigned chance = random % 4 == 0 ? 0 : random % 4 == 1 ? 8 : 1 + random / 4 % 7;
    bool by_request = random / 64 % 2;

    random = random * 2 + 1;
    memcpy(data, disk.seed, disk.seed_size);
    for (size_t i = 0; i < disk.count; i++) {
        const struct entry *w = &disk.log[i];
        if (w->op == DISK_FLUSH || w->begin > when) {
            continue;
        }
        bool durable = is_durable(w, when), whole = kit_random(&random) % 8 < chance;
        if (w->op == DISK_TRUNCATE && (durable || whole)) {
            if (w->offset < size) {
                memset(data + w->offset, 0, size - w->offset);
            }
            size = w->offset;
        }
        for (uint64_t done = 0; done < w->length;) {
            uint64_t at = w->offset + done, n = MIN(SECTOR - at % SECTOR, w->length - done);
            if (durable || (by_request ? whole : kit_random(&random) % 8 < chance)) {
                if (w->data) {
                    memcpy(data + at, w->data + done, n);
                } else {
                    memset(data + at, 0, n);
                }
                size = MAX(size, at + n);
            }
            done += n;
        }
    }
    save(name, data, size);
    free(data);
}

void disk_fail(enum disk_op op, unsigned first, unsigned count, int error)
{
    pthread_mutex_lock(&disk.lock);
    disk.fail[op].count = 0;
    disk.fail[op].first = first;
    disk.fail[op].failing = count;
    disk.fail[op].error = error;
    pthread_mutex_unlock(&disk.lock);
}

unsigned disk_count(enum disk_op op)
{
    pthread_mutex_lock(&disk.lock);
    unsigned n = disk.fail[op].count;
    pthread_mutex_unlock(&disk.lock);
    return n;
}

void disk_refuse_reopen(void)
{
    disk.refuses_reopen = true;
}

void disk_set_delay(uint64_t ns)
{
    disk.delay_ns = ns;
}

void disk_set_log(bool on)
{
    clear_log();
    disk.logs = on;
    memcpy(disk.seed = xrealloc(disk.seed, MAX(disk.size, 1)), disk.data, disk.size);
    disk.seed_size = disk.size;
}
