/* SPDX-License-Identifier: MIT */
/* A block driver for tests. See fault.h. */
#include "fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "base/range.h"
#include "block/iov.h"
#include "block/node.h"
#include "kit.h"

struct fault fault = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool fault_open(struct block_node *node, struct options *opts, struct error **errp)
{
    uint64_t alignment = 1;

    fault.size = MiB;
    if (!options_get_size(opts, "size", 1, &fault.size, errp) ||
        !options_get_size(opts, "align", 1, &alignment, errp)) {
        return false;
    }
    fault.limits.request_alignment = alignment;
    fault.data = calloc(1, align_up(fault.size, alignment));
    CHECK(fault.data);
    return true;
}

static void fault_close(struct block_node *node)
{
    free(fault.data);
    fault.data = NULL;
}

static void fault_limits(struct block_node *node, struct block_limits *limits)
{
    *limits = fault.limits;
    limits->memory_alignment = MAX(limits->memory_alignment, 1);
}

static int64_t fault_length(struct block_node *node)
{
    return fault.size;
}

static void co_delay(void)
{
    if (fault.delay_ns) {
        pthread_mutex_lock(&fault.lock);
        uint64_t ns = kit_random(&fault.random) % fault.delay_ns;
        pthread_mutex_unlock(&fault.lock);
        co_sleep(AIO_CLOCK_RT, (int64_t)ns);
    }
}

static int co_begin(enum fault_op op, uint64_t offset, uint64_t length, unsigned flags)
{
    unsigned count = atomic_fetch_add(&fault.count[op], 1) + 1;
    unsigned running = atomic_fetch_add(&fault.running, 1) + 1;
    unsigned most = atomic_load(&fault.most_running);

    while (most < running && !atomic_compare_exchange_weak(&fault.most_running, &most, running)) {
    }
    atomic_store(&fault.last_offset, offset);
    atomic_store(&fault.last_length, length);
    atomic_store(&fault.last_flags, flags);

    /* What block/io.c promises to drivers. */
    uint64_t mask = fault.limits.request_alignment - 1;
    CHECK(!((offset | length) & mask));
    CHECK(range_fits(offset, length, align_up(fault.size, mask + 1)));
    CHECK(!fault.limits.max_transfer || op > FAULT_WRITE || length <= fault.limits.max_transfer);
    co_delay();
    bool hit = !fault.error_at[op] || fault.error_at[op] == (int)count;
    return hit ? fault.error[op] : 0;
}

static int co_end(int ret)
{
    co_delay();
    atomic_fetch_sub(&fault.running, 1);
    return ret;
}

static void check_iov(const struct block_iov *iov)
{
    uint64_t sum = 0;

    CHECK(!fault.limits.max_iov || iov->niov <= (int)fault.limits.max_iov);
    for (int i = 0; i < iov->niov; i++) {
        CHECK(fault.limits.memory_alignment <= 1 ||
              !((uintptr_t)iov->iov[i].iov_base & (fault.limits.memory_alignment - 1)));
        sum += iov->iov[i].iov_len;
    }
    CHECK(sum == iov->size);
}

static int fault_co_preadv(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                           unsigned flags, uint64_t id)
{
    check_iov(iov);
    int ret = co_begin(FAULT_READ, offset, iov->size, flags);
    if (ret == 0) {
        pthread_mutex_lock(&fault.lock);
        block_iov_write(iov, 0, fault.data + offset, iov->size);
        pthread_mutex_unlock(&fault.lock);
    }
    return co_end(ret);
}

static int fault_co_pwritev(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                            unsigned flags, uint64_t id)
{
    check_iov(iov);
    int ret = co_begin(FAULT_WRITE, offset, iov->size, flags);
    if (ret == 0) {
        pthread_mutex_lock(&fault.lock);
        block_iov_read(iov, 0, fault.data + offset, iov->size);
        pthread_mutex_unlock(&fault.lock);
    }
    return co_end(ret);
}

static int fault_co_flush(struct block_node *node, uint64_t id)
{
    return co_end(co_begin(FAULT_FLUSH, 0, 0, 0));
}

static int fault_co_discard(struct block_node *node, uint64_t offset, uint64_t length)
{
    return co_end(co_begin(FAULT_DISCARD, offset, length, 0));
}

static int fault_co_write_zeroes(struct block_node *node, uint64_t offset, uint64_t length,
                                 unsigned flags)
{
    if (!fault.can_zero) {
        while (atomic_load(&fault.hold_zeroes)) {
            co_sleep(AIO_CLOCK_RT, 1000000);
        }
        return -ENOTSUP;
    }
    int ret = co_begin(FAULT_ZEROES, offset, length, flags);
    if (ret == 0) {
        pthread_mutex_lock(&fault.lock);
        memset(fault.data + offset, 0, length);
        pthread_mutex_unlock(&fault.lock);
    }
    return co_end(ret);
}

static void fault_drain_begin(struct block_node *node)
{
}

static void fault_drain_end(struct block_node *node)
{
    if (fault.on_drain_end) {
        fault.on_drain_end();
    }
}

static const struct block_driver block_driver_fault = {
    .name = "fault",
    .is_protocol = true,
    .open = fault_open,
    .close = fault_close,
    .limits = fault_limits,
    .length = fault_length,
    .co_preadv = fault_co_preadv,
    .co_pwritev = fault_co_pwritev,
    .co_flush = fault_co_flush,
    .co_discard = fault_co_discard,
    .co_write_zeroes = fault_co_write_zeroes,
    .drain_begin = fault_drain_begin,
    .drain_end = fault_drain_end,
};

void fault_reset(void)
{
    fault.delay_ns = 0;
    fault.limits = (struct block_limits){0};
    fault.can_zero = true;
    atomic_store(&fault.hold_zeroes, false);
    fault.on_drain_end = NULL;
    fault.random = 88172645463325252u;
    for (int op = 0; op < FAULT_OPS; op++) {
        fault.error[op] = fault.error_at[op] = 0;
        atomic_store(&fault.count[op], 0);
    }
    atomic_store(&fault.running, 0);
    atomic_store(&fault.most_running, 0);
    block_driver_set_test(&block_driver_fault);
}
