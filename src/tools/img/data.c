/* SPDX-License-Identifier: MIT */
/* Bytes of images. See data.h. */
#include "tools/img/data.h"

#include <string.h>

#include "aio/coroutine.h"
#include "base/range.h"
#include "block/iov.h"
#include "block/zeroes.h"
#include "tools/common/signals.h"

/* ---- looking at bytes ------------------------------------------------------------------------ */

#define SLICE_NS (100 * NS_PER_MS)
#define STRIDE   256 /* bytes that are looked at between two branches */

bool data_is_zero(const void *data, size_t size)
{
    return block_bytes_are_zero(data, size);
}

/* Of units from the beginning: how many bytes are alike. */
static size_t unit_run(const unsigned char *data, size_t size, uint64_t offset, size_t unit,
                       bool *is_zero)
{
    size_t length = MIN(unit - (size_t)(offset & (unit - 1)), size);

    *is_zero = data_is_zero(data, length);
    while (length < size) {
        size_t next = MIN(unit, size - length);
        if (data_is_zero(data + length, next) != *is_zero) {
            break;
        }
        length += next;
    }
    return length;
}

size_t data_run(const void *data, size_t size, uint64_t offset, size_t unit, size_t min_zero,
                bool *is_zero)
{
    const unsigned char *p = data;
    size_t length = unit_run(p, size, offset, unit, is_zero);

    if (*is_zero && (length >= min_zero || length == size)) {
        return length;
    }
    *is_zero = false;
    while (length < size) {
        bool next_is_zero;
        size_t next = unit_run(p + length, size - length, offset + length, unit, &next_is_zero);
        if (next_is_zero && (next >= min_zero || length + next == size)) {
            break;
        }
        length += next;
    }
    return length;
}

size_t data_first_difference(const void *a, const void *b, size_t size)
{
    const unsigned char *x = a, *y = b;
    size_t i = 0;

    if (!memcmp(a, b, size)) {
        return size;
    }
    for (; size - i >= STRIDE && !memcmp(x + i, y + i, STRIDE); i += STRIDE) {
    }
    while (i < size && x[i] == y[i]) {
        i++;
    }
    return i;
}

/* ---- requests -------------------------------------------------------------------------------- */

int data_co_read(struct block_backend *be, uint64_t offset, void *to, size_t size)
{
    struct iovec vec;
    struct block_iov iov = block_iov_of(&vec, to, size);

    return backend_co_preadv(be, offset, &iov, 0, 0);
}

int data_co_read_padded(struct block_backend *be, uint64_t offset, void *to, size_t size)
{
    uint64_t length = backend_length(be);
    size_t there = offset < length ? MIN(size, length - offset) : 0;

    memset((char *)to + there, 0, size - there);
    return there ? data_co_read(be, offset, to, there) : 0;
}

int data_co_write(struct block_backend *be, uint64_t offset, const void *from, size_t size,
                  unsigned flags)
{
    struct iovec vec;
    struct block_iov iov = block_iov_of(&vec, (void *)from, size);

    return backend_co_pwritev(be, offset, &iov, flags, 0);
}

/* ---- workers --------------------------------------------------------------------------------- */

struct workers {
    void (*co_fn)(void *opaque);
    void *opaque;
    unsigned running;
};

static void co_worker(void *opaque)
{
    struct workers *workers = opaque;

    workers->co_fn(workers->opaque);
    workers->running--;
}

void data_run_workers(unsigned count, void (*co_fn)(void *opaque), void *opaque)
{
    struct aio_loop *loop = aio_loop_current();
    struct workers workers = {.co_fn = co_fn, .opaque = opaque, .running = count};

    for (unsigned i = 0; i < count; i++) {
        coroutine_enter(coroutine_new(co_worker, &workers));
    }
    while (workers.running) {
        aio_loop_poll(loop, true);
    }
}

/* ---- rates ----------------------------------------------------------------------------------- */

void data_co_wait(struct data_rate *rate, uint64_t bytes)
{
    if (!rate->limit) {
        return;
    }
    int64_t now = clock_get_ns(AIO_CLOCK_RT);
    if (!rate->started_ns) {
        rate->started_ns = now;
    }
    /* What was sent before may go on the wire now if its time has come. */
    int64_t due =
        rate->started_ns + (int64_t)((double)rate->sent * (double)NS_PER_SEC / (double)rate->limit);
    rate->sent += bytes;
    /* In slices: a signal shall not wait for a slow rate. */
    for (; due > now && !signals_caught(); now = clock_get_ns(AIO_CLOCK_RT)) {
        co_sleep(AIO_CLOCK_RT, MIN(due - now, SLICE_NS));
    }
}
