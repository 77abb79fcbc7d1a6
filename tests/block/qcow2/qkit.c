/* SPDX-License-Identifier: MIT */
/* What the tests of the qcow2 driver share. See qkit.h. */
#include "qkit.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/iov.h"
#include "image_kit.h"

#define SECTOR 512u

/* ---- commands --------------------------------------------------------------------------------- */

static bool try(const char *command)
{
    char *redirected = xasprintf("(%s) > out 2>&1 < /dev/null", command);
    int status = system(redirected);

    free(redirected);
    return status == 0;
}

bool qkit_try(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    char *command = xvasprintf(fmt, ap);
    va_end(ap);
    bool ok = try(command);
    free(command);
    return ok;
}

static void show_output(void)
{
    char line[256];
    FILE *f = fopen("out", "re");

    while (f && fgets(line, sizeof(line), f)) {
        fputs(line, stderr);
    }
    if (f) {
        fclose(f);
    }
}

void qkit_run(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    char *command = xvasprintf(fmt, ap);
    va_end(ap);
    if (!try(command)) {
        show_output();
        fail_msg("failed: %s", command);
    }
    free(command);
}

void qkit_check_clean(const char *image)
{
    struct block_check_result result;
    char *lines, *error;

    qkit_run("qemu-img check -f qcow2 %s", image);
    bool done = ferry_check(image, 0, &result, &lines, &error);
    if (!done || result.corruptions || result.leaks || result.check_errors) {
        fail_msg("%s: ferry's check: %s%s", image, lines, done ? "" : error);
    }
    free(lines);
    free(error);
}

/* 0: clean; 3: leaks only */
#define NO_ERRORS "qemu-img check -f qcow2 %s; s=$?; test $s = 0 -o $s = 3"

bool qkit_has_no_errors(const char *image)
{
    return qkit_try(NO_ERRORS, image);
}

void qkit_check_no_errors(const char *image)
{
    qkit_run(NO_ERRORS, image);
}

/* ---- files ------------------------------------------------------------------------------------- */

void qkit_write_file(const char *name, const void *data, size_t size)
{
    FILE *f = fopen(name, "we");

    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

void qkit_poke(const char *name, uint64_t offset, const void *data, size_t size)
{
    int fd = open(name, O_WRONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, size, (off_t)offset), size);
    close(fd);
}

void qkit_fill_half(uint8_t *data, uint64_t size, uint64_t seed)
{
    seed |= 1;
    for (uint64_t i = 0; i < size; i++) {
        data[i] = i / 64 % 2 ? (uint8_t)kit_random(&seed) : (uint8_t)(i / 128);
    }
}

unsigned qkit_scale(void)
{
    const char *text = getenv("FERRY_TEST_LONG");

    return text && *text ? (unsigned)MAX(atoi(text), 1) : 1;
}

/* ---- random requests --------------------------------------------------------------------------- */

/* Requests never overlap, but otherwise come as they like: neighbours share clusters. */
static struct {
    pthread_mutex_t lock;
    uint8_t *busy; /* a byte per sector */
} ranges = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool try_range(uint64_t offset, uint64_t length)
{
    uint64_t first = offset / SECTOR, end = (offset + length + SECTOR - 1) / SECTOR;
    bool ok;

    pthread_mutex_lock(&ranges.lock);
    ok = !memchr(ranges.busy + first, 1, end - first);
    if (ok) {
        memset(ranges.busy + first, 1, end - first);
    }
    pthread_mutex_unlock(&ranges.lock);
    return ok;
}

static void release_range(uint64_t offset, uint64_t length)
{
    uint64_t first = offset / SECTOR, end = (offset + length + SECTOR - 1) / SECTOR;

    pthread_mutex_lock(&ranges.lock);
    memset(ranges.busy + first, 0, end - first);
    pthread_mutex_unlock(&ranges.lock);
}

struct worker {
    struct qkit_load *load;
    uint64_t random;
};

static _Atomic(unsigned) running;

static uint64_t below(struct worker *w, uint64_t n)
{
    return kit_random(&w->random) % n;
}

static void pick_range(struct worker *w, uint64_t *offset, uint64_t *length)
{
    const struct qkit_load *l = w->load;

    do {
        uint64_t unit = below(w, 8) ? 512 : 1;
        uint64_t max = below(w, 4) ? MIN(l->max_length, 16 * KiB) : l->max_length;
        *length = unit * (1 + below(w, MAX(max / unit, 1)));
        *length = MIN(*length, l->size);
        *offset = below(w, (l->size - *length) / unit + 1) * unit;
        if (!below(w, 6)) { /* whole clusters */
            *offset = align_down(*offset, l->cluster_size);
            *length = MIN(align_up(*length, l->cluster_size), l->size - *offset);
        }
    } while (!*length || !try_range(*offset, *length));
}

/* After a failed request: each byte is the old or the new one. */
static void read_back(struct worker *w, uint64_t offset, uint64_t length, const uint8_t *wanted)
{
    uint8_t *got = xmalloc(length), *model = w->load->expected + offset;
    struct iovec vec;
    struct block_iov iov = block_iov_of(&vec, got, length);

    CHECK(backend_co_preadv(w->load->be, offset, &iov, 0, 0) == 0);
    for (uint64_t i = 0; i < length; i++) {
        CHECK(got[i] == model[i] || got[i] == wanted[i]);
    }
    memcpy(model, got, length);
    free(got);
}

static void ended(struct worker *w, int ret, uint64_t offset, uint64_t length,
                  const uint8_t *wanted)
{
    if (ret == 0) {
        memcpy(w->load->expected + offset, wanted, length);
    } else {
        CHECK(w->load->may_fail);
        atomic_fetch_add(&w->load->failed_count, 1);
        read_back(w, offset, length, wanted);
    }
}

/* With load->compressed: some of those requests that may be compressed. */
static bool picks_compressed(struct worker *w, uint64_t offset, uint64_t length)
{
    uint64_t mask = w->load->cluster_size - 1, end = offset + length;

    return w->load->compressed && !(offset & mask) && (!(end & mask) || end == w->load->size) &&
           below(w, 2);
}

static void co_write(struct worker *w, uint64_t offset, uint64_t length)
{
    uint8_t *data = xmalloc(length), *copy = xmalloc(length);
    struct iovec vec[3];
    uint64_t a = below(w, length + 1), b = a + below(w, length - a + 1);
    struct block_iov iov = {.iov = vec, .niov = 3, .size = length};

    uint64_t x = kit_random(&w->random);
    for (uint64_t i = 0; i < length; i++) {
        data[i] = (uint8_t)((x + i) * 0x9e3779b1u >> 13);
    }
    memcpy(copy, data, length);
    vec[0] = (struct iovec){data, a};
    vec[1] = (struct iovec){data + a, b - a};
    vec[2] = (struct iovec){data + b, length - b};
    unsigned flags = below(w, 20) ? 0 : BLOCK_REQ_FUA;
    if (picks_compressed(w, offset, length)) {
        flags |= BLOCK_REQ_COMPRESSED;
        atomic_fetch_add(&w->load->compressed_count, 1);
        qkit_fill_half(data, length, x);
        memcpy(copy, data, length);
    }
    int ret = backend_co_pwritev(w->load->be, offset, &iov, flags, 0);
    ended(w, ret, offset, length, copy);
    free(data);
    free(copy);
}

static void co_zero(struct worker *w, uint64_t offset, uint64_t length, bool discard)
{
    uint8_t *wanted = xcalloc(1, length);
    int ret;

    if (discard) {
        uint64_t first = align_up(offset, w->load->cluster_size);
        uint64_t last = align_down(offset + length, w->load->cluster_size);
        memcpy(wanted, w->load->expected + offset, length);
        if (first < last && w->load->discards) {
            memset(wanted + (first - offset), 0, last - first);
        }
        ret = backend_co_discard(w->load->be, offset, length);
    } else {
        unsigned flags = below(w, 2) ? BLOCK_REQ_MAY_UNMAP : 0;
        ret = backend_co_write_zeroes(w->load->be, offset, length, flags);
    }
    ended(w, ret, offset, length, wanted);
    free(wanted);
}

static void co_read(struct worker *w, uint64_t offset, uint64_t length)
{
    uint8_t *got = xmalloc(length);
    struct iovec vec;
    struct block_iov iov = block_iov_of(&vec, got, length);

    int ret = backend_co_preadv(w->load->be, offset, &iov, 0, 0);
    CHECK(ret == 0 || w->load->may_fail);
    if (ret == 0 && memcmp(got, w->load->expected + offset, length)) {
        uint64_t i = 0;
        while (got[i] == w->load->expected[offset + i]) {
            i++;
        }
        fprintf(stderr, "read %#llx+%#llx: byte %#llx is %02x, not %02x\n",
                (unsigned long long)offset, (unsigned long long)length,
                (unsigned long long)(offset + i), got[i], w->load->expected[offset + i]);
        abort();
    }
    free(got);
}

static void co_status(struct worker *w, uint64_t offset, uint64_t length)
{
    struct block_node *node = backend_root(w->load->be);
    uint64_t map;

    int ret = block_co_status(node, offset, &length, &map);
    CHECK(ret >= 0 || w->load->may_fail);
    CHECK(ret < 0 || length);
    if (ret >= 0 && ret & BLOCK_STATUS_ZERO) {
        for (uint64_t i = 0; i < length; i++) {
            CHECK(!w->load->expected[offset + i]);
        }
    }
}

static void co_work(void *opaque)
{
    struct worker *w = opaque;

    for (unsigned i = 0; i < w->load->requests; i++) {
        uint64_t offset, length;
        uint64_t kind = below(w, 32);
        if (!kind) {
            int ret = backend_co_flush(w->load->be, 0);
            CHECK(ret == 0 || w->load->may_fail);
            continue;
        }
        pick_range(w, &offset, &length);
        if (kind < 14) {
            co_write(w, offset, length);
        } else if (kind < 17) {
            co_zero(w, offset, length, false);
        } else if (kind < 20) {
            co_zero(w, offset, length, true);
        } else if (kind < 22) {
            co_status(w, offset, length);
        } else {
            co_read(w, offset, length);
        }
        release_range(offset, length);
    }
    free(w);
    atomic_fetch_sub(&running, 1);
}

void qkit_run_load(struct qkit_load *load)
{
    struct kit_thread *second = kit_thread_start(AIO_LOOP_AUTO);
    uint64_t seed = load->seed * 2 + 1;

    ranges.busy = xcalloc(load->size / SECTOR + 2, 1);
    atomic_store(&running, 2 * load->workers);
    for (unsigned i = 0; i < 2 * load->workers; i++) {
        struct worker *w = xnew(struct worker);
        *w = (struct worker){load, kit_random(&seed)};
        aio_call_co(i % 2 ? kit_thread_loop(second) : aio_loop_current(), co_work, w);
    }
    while (atomic_load(&running)) {
        aio_loop_poll(aio_loop_current(), false);
    }
    kit_thread_stop(second);
    free(ranges.busy);
    ranges.busy = NULL;
}
