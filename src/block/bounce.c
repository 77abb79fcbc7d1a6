/* SPDX-License-Identifier: MIT */
/* Requests cut, copied and padded for the driver. See bounce.h. */
#include "block/bounce.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "block/debug.h"
#include "block/drivers.h"
#include "block/iov.h"

#define PIECE_IOV    64
#define ZEROES_SIZE  (64 * KiB)
#define ZEROES_COUNT 16 /* buffers of ZEROES_SIZE in one request: 1 MiB */

bool bounce_buffers_aligned(const struct block_node *node, const struct block_iov *iov)
{
    uintptr_t address_mask = node->limits.memory_alignment - 1;
    size_t length_mask = node->request_mask | address_mask;

    for (int i = 0; i < iov->niov; i++) {
        if (((uintptr_t)iov->iov[i].iov_base & address_mask) ||
            (iov->iov[i].iov_len & length_mask)) {
            return false;
        }
    }
    return true;
}

/* ---- pieces ---------------------------------------------------------------------------------- */

typedef int co_transfer_fn(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                           unsigned flags, uint64_t id);

static bool can_cut(const struct block_node *node, uint64_t offset, const struct block_iov *iov)
{
    return !((offset | iov->size) & node->request_mask) && bounce_buffers_aligned(node, iov);
}

static int co_cut(struct block_node *node, co_transfer_fn *transfer, uint64_t offset,
                  const struct block_iov *iov, unsigned flags, uint64_t id)
{
    struct iovec vec[PIECE_IOV];
    int max = MIN(node->limits.max_iov, PIECE_IOV);

    for (uint64_t done = 0; done < iov->size;) {
        struct block_iov piece = {.iov = vec};
        if (done) {
            co_share(BLOCK_SHORT); /* each may be done at once */
        }
        piece.size = block_iov_slice(iov, done, MIN(iov->size - done, node->limits.max_transfer),
                                     vec, max, &piece.niov);
        int ret = transfer(node, offset + done, &piece, flags, id);
        if (ret < 0) {
            return ret;
        }
        done += piece.size;
    }
    return 0;
}

/* ---- the budget ------------------------------------------------------------------------------ */

static _Atomic(size_t) bounce_bytes; /* of all buffers; not exact, a limit need not be */

size_t bounce_in_use(void)
{
    return atomic_load_explicit(&bounce_bytes, memory_order_relaxed);
}

static bool is_spent(void)
{
    return bounce_in_use() >= BOUNCE_BUDGET;
}

uint64_t bounce_room(uint64_t size, uint32_t block)
{
    if (is_spent()) {
        size = MIN(size, BOUNCE_SMALL);
    }
    return MAX(align_down(size, block), block);
}

void *bounce_alloc(size_t alignment, size_t size)
{
    void *buffer = aligned_alloc(alignment, align_up(size, alignment));

    if (buffer) {
        atomic_fetch_add_explicit(&bounce_bytes, size, memory_order_relaxed);
    }
    return buffer;
}

void bounce_free(void *buffer, size_t size)
{
    if (buffer) {
        atomic_fetch_sub_explicit(&bounce_bytes, size, memory_order_relaxed);
        free(buffer);
    }
}

/* ---- waiting for the budget ------------------------------------------------------------------ */

void bounce_line_init(struct bounce_line *line)
{
    co_mutex_init(&line->turn);
    co_mutex_init(&line->lock);
    co_queue_init(&line->given_back);
}

void bounce_line_destroy(struct bounce_line *line)
{
    assert(!line->holders && !line->waiting);
    co_queue_destroy(&line->given_back);
    co_mutex_destroy(&line->lock);
    co_mutex_destroy(&line->turn);
}

/* Waits until it may be one of the holders. */
static void co_line_up(struct bounce_line *line)
{
    /* Pairs with co_leave_line(): each changes one of the two and then looks at the other. */
    atomic_fetch_add(&line->waiting, 1);
    co_mutex_lock(&line->turn);
    co_mutex_lock(&line->lock);
    while (atomic_load(&line->holders) && is_spent()) {
        co_queue_wait(&line->given_back, &line->lock);
    }
    atomic_fetch_add(&line->holders, 1);
    co_mutex_unlock(&line->lock);
    atomic_fetch_sub(&line->waiting, 1);
    co_mutex_unlock(&line->turn);
}

static void co_leave_line(struct bounce_line *line)
{
    atomic_fetch_sub(&line->holders, 1);
    if (atomic_load(&line->waiting)) {
        co_mutex_lock(&line->lock);
        co_queue_wake_one(&line->given_back);
        co_mutex_unlock(&line->lock);
    }
}

void *co_bounce_line_alloc(struct bounce_line *line, size_t size)
{
    if (is_spent() || atomic_load(&line->waiting)) {
        co_line_up(line);
    } else {
        atomic_fetch_add(&line->holders, 1);
    }
    void *buffer = bounce_alloc(4096, size);
    if (!buffer) {
        co_leave_line(line);
    }
    return buffer;
}

void co_bounce_line_free(struct bounce_line *line, void *buffer, size_t size)
{
    bounce_free(buffer, size);
    co_leave_line(line);
}

/* ---- through a buffer ------------------------------------------------------------------------ */

struct bounce {
    uint64_t start, end; /* whole blocks around the request */
    size_t size;
    char *buffer;
};

static bool bounce_init(struct bounce *b, const struct block_node *node, uint64_t offset,
                        uint64_t length)
{
    uint32_t block = node->limits.request_alignment;
    uint64_t most = bounce_room(MIN(BOUNCE_SIZE, node->limits.max_transfer), block);

    b->start = align_down(offset, block);
    b->end = align_up(offset + length, block);
    b->size = MIN(b->end - b->start, most);
    b->buffer = bounce_alloc(MAX(node->limits.memory_alignment, 4096), b->size);
    return b->buffer;
}

static int co_transfer(struct block_node *node, co_transfer_fn *transfer, uint64_t offset,
                       char *buffer, size_t size, unsigned flags, uint64_t id)
{
    struct iovec vec;
    struct block_iov iov = block_iov_of(&vec, buffer, size);

    return transfer(node, offset, &iov, flags, id);
}

int co_bounce_read(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                   unsigned flags, uint64_t id)
{
    struct bounce b;
    int ret = 0;

    if (can_cut(node, offset, iov)) {
        return co_cut(node, node->driver->co_preadv, offset, iov, flags, id);
    }
    if (!bounce_init(&b, node, offset, iov->size)) {
        return -ENOMEM;
    }
    for (uint64_t pos = b.start; pos < b.end && ret == 0; pos += b.size) {
        uint64_t n = MIN(b.size, b.end - pos);
        if (pos != b.start) {
            co_share(n);
        }
        ret = co_transfer(node, node->driver->co_preadv, pos, b.buffer, n, flags, id);
        if (ret == 0) {
            uint64_t from = MAX(pos, offset), to = MIN(pos + n, offset + iov->size);
            block_iov_write(iov, from - offset, b.buffer + (from - pos), to - from);
        }
    }
    bounce_free(b.buffer, b.size);
    return ret;
}

/* Of a blkdebug node's own requests; what is above it tells its events itself. */
static void tell(struct block_node *node, enum block_event event)
{
    if (node->driver == &block_driver_blkdebug) {
        block_debug_event(node, event);
    }
}

/* Reads what the request leaves as it is of the first and last block of [pos, pos + n). */
static int co_read_ends(struct block_node *node, const struct bounce *b, uint64_t pos, uint64_t n,
                        uint64_t from, uint64_t to, uint64_t id)
{
    uint64_t block = node->limits.request_alignment;
    int ret = 0;

    if (from > pos) {
        tell(node, BLOCK_EVENT_PWRITEV_RMW_HEAD);
        ret = co_transfer(node, node->driver->co_preadv, pos, b->buffer, block, 0, id);
        tell(node, BLOCK_EVENT_PWRITEV_RMW_AFTER_HEAD);
    }
    if (ret == 0 && to < pos + n && (from == pos || n > block)) {
        tell(node, BLOCK_EVENT_PWRITEV_RMW_TAIL);
        ret = co_transfer(node, node->driver->co_preadv, pos + n - block, b->buffer + n - block,
                          block, 0, id);
        tell(node, BLOCK_EVENT_PWRITEV_RMW_AFTER_TAIL);
    }
    return ret;
}

int co_bounce_write(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                    unsigned flags, uint64_t id)
{
    struct bounce b;
    int ret = 0;

    if (can_cut(node, offset, iov)) {
        return co_cut(node, node->driver->co_pwritev, offset, iov, flags, id);
    }
    if (!bounce_init(&b, node, offset, iov->size)) {
        return -ENOMEM;
    }
    for (uint64_t pos = b.start; pos < b.end && ret == 0; pos += b.size) {
        uint64_t n = MIN(b.size, b.end - pos);
        uint64_t from = MAX(pos, offset), to = MIN(pos + n, offset + iov->size);

        if (pos != b.start) {
            co_share(n);
        }
        ret = co_read_ends(node, &b, pos, n, from, to, id);
        if (ret == 0) {
            block_iov_read(iov, from - offset, b.buffer + (from - pos), to - from);
            ret = co_transfer(node, node->driver->co_pwritev, pos, b.buffer, n, flags, id);
        }
    }
    bounce_free(b.buffer, b.size);
    return ret;
}

/* ---- zeroes ---------------------------------------------------------------------------------- */

int co_bounce_zeroes(struct block_node *node, uint64_t offset, uint64_t length, unsigned flags)
{
    /* In the zero page as long as nobody writes, and nobody does. */
    static _Alignas(4096) char zeroes[ZEROES_SIZE];
    struct iovec vec[ZEROES_COUNT];
    int ret = 0;

    while (length && ret == 0) {
        struct block_iov iov = {.iov = vec};
        for (; iov.niov < ZEROES_COUNT && iov.size < length; iov.niov++) {
            uint64_t n = MIN(length - iov.size, ZEROES_SIZE);
            vec[iov.niov] = (struct iovec){.iov_base = zeroes, .iov_len = n};
            iov.size += n;
        }
        ret = block_co_pwritev(node, offset, &iov, flags & BLOCK_REQ_FUA, 0);
        offset += iov.size;
        length -= iov.size;
        if (length) {
            co_share(BLOCK_SHORT); /* as above */
        }
    }
    return ret;
}
