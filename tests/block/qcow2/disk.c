/* SPDX-License-Identifier: MIT */
/* A disk in memory that fails and crashes. See disk.h. */
#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/options.h"
#include "base/range.h"
#include "block/iov.h"
#include "kit.h"

#define SECTOR 512u
#define DISKS  2u

struct entry {
    enum disk_op op;
    unsigned store;
    uint64_t begin, end; /* end 0: not ended */
    uint64_t applied;    /* between them: when requests that come later see it */
    bool fua, failed;
    uint64_t offset, length;
    uint8_t *data; /* of a write */
};

/* What a disk has, and had when the log began. */
struct store {
    uint8_t *data, *seed;
    uint64_t size, seed_size;
    char *file; /* of the second disk: where it came from, and goes after a crash */
};

static struct {
    pthread_mutex_t lock; /* guards all */
    struct store stores[DISKS];
    uint64_t limit;
    struct entry *log;
    size_t count, capacity;
    bool logs;
    uint64_t delay_ns, random;
    bool refuses_reopen;
    struct {
        unsigned count, first, failing;
        int error;
    } fail[DISK_OPS];
    /* The first `entries` of the log, `changes` without the flushes, are in the file. */
    struct {
        bool begun;
        size_t entries, changes;
        uint64_t random;
    } prefix;
} disk = {.lock = PTHREAD_MUTEX_INITIALIZER};

static _Atomic(uint64_t) now;

struct disk_state {
    uint64_t number; /* of the disk: 0 or 1 */
};

uint64_t disk_time(void)
{
    return atomic_fetch_add(&now, 1) + 1;
}

/* ---- requests ---------------------------------------------------------------------------------- */

static struct store *store_of(const struct block_node *node)
{
    return &disk.stores[((const struct disk_state *)node->state)->number];
}

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

static void apply(struct store *store, uint64_t offset, uint64_t length, const uint8_t *data,
                  int ret)
{
    for (uint64_t done = 0; done < length;) {
        uint64_t at = offset + done, n = MIN(SECTOR - at % SECTOR, length - done);
        if (ret == 0 || kit_random(&disk.random) % 2) {
            if (data) {
                memcpy(store->data + at, data + done, n);
            } else {
                memset(store->data + at, 0, n);
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
    disk.log[disk.count].applied = disk_time();
    return disk.count++;
}

static int co_change(struct block_node *node, enum disk_op op, uint64_t offset, uint64_t length,
                     const struct block_iov *iov, unsigned flags)
{
    struct store *store = store_of(node);
    struct entry entry = {.op = op,
                          .store = (unsigned)(store - disk.stores),
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
        apply(store, offset, length, data, ret);
        store->size = MAX(store->size, offset + length);
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
        block_iov_write(iov, 0, store_of(node)->data + offset, iov->size);
    }
    pthread_mutex_unlock(&disk.lock);
    return ret;
}

static int disk_co_pwritev(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                           unsigned flags, uint64_t id)
{
    return co_change(node, DISK_WRITE, offset, iov->size, iov, flags);
}

static int disk_co_flush(struct block_node *node, uint64_t id)
{
    return co_change(node, DISK_FLUSH, 0, 0, NULL, 0);
}

static int disk_co_discard(struct block_node *node, uint64_t offset, uint64_t length)
{
    return co_change(node, DISK_DISCARD, offset, length, NULL, 0);
}

static int disk_co_write_zeroes(struct block_node *node, uint64_t offset, uint64_t length,
                                unsigned flags)
{
    return co_change(node, DISK_ZEROES, offset, length, NULL, flags);
}

static bool disk_open(struct block_node *node, struct options *opts, struct error **errp)
{
    struct disk_state *state = node->state;

    state->number = 0;
    free(node->filename);
    node->filename = xstrdup("disk");
    return options_get_uint(opts, "disk", 0, DISKS - 1, &state->number, errp);
}

static int64_t disk_length(struct block_node *node)
{
    pthread_mutex_lock(&disk.lock);
    int64_t size = (int64_t)store_of(node)->size;
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
    struct store *store = store_of(node);

    pthread_mutex_lock(&disk.lock);
    int ret = failure(DISK_TRUNCATE);
    ret = ret == 0 && length > disk.limit ? -ENOSPC : ret;
    if (ret == 0) {
        if (length < store->size) {
            memset(store->data + length, 0, store->size - length);
        }
        store->size = length;
        size_t index = note(&(struct entry){.op = DISK_TRUNCATE,
                                            .store = (unsigned)(store - disk.stores),
                                            .begin = disk_time(),
                                            .offset = length});
        if (index != SIZE_MAX) {
            disk.log[index].end = disk_time();
        }
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
    .state_size = sizeof(struct disk_state),
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
    disk.prefix.begun = false;
}

static void load(struct store *store, const char *seed)
{
    store->size = store->seed_size = kit_file_size(seed);
    CHECK(store->size <= disk.limit);
    store->data = xcalloc(1, disk.limit);
    store->seed = xcalloc(1, MAX(store->size, 1));
    kit_read_file(seed, 0, store->seed, store->size);
    memcpy(store->data, store->seed, store->size);
}

void disk_load(const char *seed, uint64_t limit)
{
    disk_unload();
    disk.limit = limit;
    load(&disk.stores[0], seed);
    disk.random = 88172645463325252u;
    memset(disk.fail, 0, sizeof(disk.fail));
    block_driver_set_test(&driver);
}

void disk_load_second(const char *seed)
{
    load(&disk.stores[1], seed);
    disk.stores[1].file = xstrdup(seed);
}

void disk_unload(void)
{
    clear_log();
    for (unsigned i = 0; i < DISKS; i++) {
        free(disk.stores[i].data);
        free(disk.stores[i].seed);
        free(disk.stores[i].file);
        disk.stores[i] = (struct store){0};
    }
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
    save(name, disk.stores[0].data, disk.stores[0].size);
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
        if (f->op == DISK_FLUSH && f->store == w->store && f->begin > w->end && f->end &&
            f->end <= when) {
            return true;
        }
    }
    return false;
}

/* A disk as it may be after a crash. */
struct crashed {
    uint8_t *data;
    uint64_t size;
};

static void crash_truncate(struct crashed *c, uint64_t size)
{
    if (size < c->size) {
        memset(c->data + size, 0, c->size - size);
    }
    c->size = size;
}

void disk_crash(const char *name, uint64_t when, uint64_t random)
{
    struct crashed crashed[DISKS];
    /* Mostly one of: none, all, or a mixture of what is not flushed. */
    unsigned chance = random % 4 == 0 ? 0 : random % 4 == 1 ? 8 : 1 + random / 4 % 7;
    bool by_request = random / 64 % 2;

    random = random * 2 + 1;
    for (unsigned i = 0; i < DISKS; i++) {
        const struct store *store = &disk.stores[i];
        crashed[i] =
            (struct crashed){store->data ? xcalloc(1, disk.limit) : NULL, store->seed_size};
        if (store->data) {
            memcpy(crashed[i].data, store->seed, store->seed_size);
        }
    }
    for (size_t i = 0; i < disk.count; i++) {
        const struct entry *w = &disk.log[i];
        struct crashed *c = &crashed[w->store];
        if (w->op == DISK_FLUSH || w->begin > when) {
            continue;
        }
        bool durable = is_durable(w, when), whole = kit_random(&random) % 8 < chance;
        if (w->op == DISK_TRUNCATE && (durable || whole)) {
            crash_truncate(c, w->offset);
        }
        for (uint64_t done = 0; done < w->length;) {
            uint64_t at = w->offset + done, n = MIN(SECTOR - at % SECTOR, w->length - done);
            if (durable || (by_request ? whole : kit_random(&random) % 8 < chance)) {
                if (w->data) {
                    memcpy(c->data + at, w->data + done, n);
                } else {
                    memset(c->data + at, 0, n);
                }
                c->size = MAX(c->size, at + n);
            }
            done += n;
        }
    }
    for (unsigned i = 0; i < DISKS; i++) {
        if (crashed[i].data) {
            save(i ? disk.stores[i].file : name, crashed[i].data, crashed[i].size);
        }
        free(crashed[i].data);
    }
}

/* ---- prefixes of the log ----------------------------------------------------------------------- */

size_t disk_changes(void)
{
    size_t count = 0;

    for (size_t i = 0; i < disk.count; i++) {
        count += disk.log[i].op != DISK_FLUSH;
    }
    return count;
}

unsigned disk_fua_writes(void)
{
    unsigned count = 0;

    for (size_t i = 0; i < disk.count; i++) {
        count += disk.log[i].op == DISK_WRITE && disk.log[i].fua && !disk.log[i].failed;
    }
    return count;
}

/* What failed has any of its sectors written. */
static void replay(int fd, const struct entry *w)
{
    if (w->op == DISK_TRUNCATE) {
        CHECK(ftruncate(fd, (off_t)w->offset) == 0);
        return;
    }
    uint8_t *zeroes = w->data ? NULL : xcalloc(1, MAX(w->length, 1));
    const uint8_t *data = w->data ? w->data : zeroes;
    for (uint64_t done = 0, n; done < w->length; done += n) {
        n = w->failed ? MIN(SECTOR - (w->offset + done) % SECTOR, w->length - done) : w->length;
        if (!w->failed || kit_random(&disk.prefix.random) % 2) {
            CHECK(pwrite(fd, data + done, n, (off_t)(w->offset + done)) == (ssize_t)n);
        }
    }
    free(zeroes);
}

uint64_t disk_prefix(const char *name, size_t count)
{
    int fds[DISKS] = {-1, -1};

    if (!disk.prefix.begun || count < disk.prefix.changes) {
        for (unsigned i = 0; i < DISKS && disk.stores[i].data; i++) {
            save(i ? disk.stores[i].file : name, disk.stores[i].seed, disk.stores[i].seed_size);
        }
        memset(&disk.prefix, 0, sizeof(disk.prefix));
        disk.prefix.begun = true;
        disk.prefix.random = 88172645463325252u;
    }
    for (unsigned i = 0; i < DISKS && disk.stores[i].data; i++) {
        fds[i] = open(i ? disk.stores[i].file : name, O_WRONLY | O_CLOEXEC);
        CHECK(fds[i] >= 0);
    }
    size_t i = disk.prefix.entries;
    for (; i < disk.count && disk.prefix.changes < count; i++) {
        if (disk.log[i].op != DISK_FLUSH) {
            replay(fds[disk.log[i].store], &disk.log[i]);
            disk.prefix.changes++;
        }
    }
    disk.prefix.entries = i;
    for (unsigned d = 0; d < DISKS && fds[d] >= 0; d++) {
        close(fds[d]);
    }
    while (i < disk.count && disk.log[i].op == DISK_FLUSH) {
        i++;
    }
    return i < disk.count ? disk.log[i].applied - 1 : disk_time();
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
    for (unsigned i = 0; i < DISKS && disk.stores[i].data; i++) {
        struct store *store = &disk.stores[i];
        store->seed = xrealloc(store->seed, MAX(store->size, 1));
        memcpy(store->seed, store->data, store->size);
        store->seed_size = store->size;
    }
}
