/* SPDX-License-Identifier: MIT */
/*
 * null-co: a disk that is not there, for measuring what is above it. Writes vanish; reads leave
 * the buffers as they are, or fill them with zeroes (read-zeroes=on); latency-ns= makes it slow.
 */
#include <stdlib.h>
#include <string.h>

#include "aio/coroutine.h"
#include "base/alloc.h"
#include "base/options.h"
#include "base/range.h"
#include "block/drivers.h"
#include "block/iov.h"
#include "block/node.h"

#define SECTOR 512

struct null_state {
    uint64_t size;       /* bytes */
    uint64_t latency_ns; /* of each request */
    bool read_zeroes;
};

static bool null_open(struct block_node *node, struct options *opts, struct error **errp)
{
    struct null_state *s = node->state;

    s->size = GiB; /* as QEMU */
    if (!options_get_size(opts, "size", 1, &s->size, errp) ||
        !options_get_uint(opts, "latency-ns", 0, INT64_MAX, &s->latency_ns, errp) ||
        !options_get_bool(opts, "read-zeroes", &s->read_zeroes, errp)) {
        return false;
    }
    if (s->size > INT64_MAX - SECTOR) {
        error_set(errp, "size=%llu is more than a block device can have",
                  (unsigned long long)s->size);
        return false;
    }
    s->size = align_up(s->size, SECTOR); /* devices have whole sectors */
    return true;
}

static int64_t null_length(struct block_node *node)
{
    return ((struct null_state *)node->state)->size;
}

static int64_t null_allocated(struct block_node *node)
{
    return 0;
}

static void co_null_wait(const struct null_state *s)
{
    if (s->latency_ns) {
        co_sleep(AIO_CLOCK_RT, (int64_t)s->latency_ns);
    }
}

static int null_co_preadv(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                          unsigned flags, uint64_t id)
{
    const struct null_state *s = node->state;

    co_null_wait(s);
    if (s->read_zeroes) {
        co_block_iov_zero(iov, 0, iov->size);
    }
    return 0;
}

static int null_co_pwritev(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                           unsigned flags, uint64_t id)
{
    co_null_wait(node->state);
    return 0;
}

static int null_co_flush(struct block_node *node, uint64_t id)
{
    co_null_wait(node->state);
    return 0;
}

static int null_co_write_zeroes(struct block_node *node, uint64_t offset, uint64_t length,
                                unsigned flags)
{
    co_null_wait(node->state);
    return 0;
}

static int null_co_block_status(struct block_node *node, uint64_t offset, uint64_t *length,
                                uint64_t *map)
{
    const struct null_state *s = node->state;

    *map = offset;
    return BLOCK_STATUS_OFFSET_VALID | BLOCK_STATUS_ALLOCATED |
           (s->read_zeroes ? BLOCK_STATUS_ZERO : BLOCK_STATUS_DATA);
}

static char *null_plain_name(const struct block_node *node, bool has_options)
{
    return has_options ? NULL : xasprintf("%s://", node->driver->name);
}

static const struct node_option options[] = {
    {"size", NODE_OPTION_SIZE, true},
    {"latency-ns", NODE_OPTION_INTEGER},
    {"read-zeroes", NODE_OPTION_BOOL, true},
    {NULL},
};

const struct block_driver block_driver_null_co = {
    .name = "null-co",
    .help = "no data at all, for measuring; size=, latency-ns=, read-zeroes=",
    .is_protocol = true,
    .state_size = sizeof(struct null_state),
    .options = options,
    .plain_name = null_plain_name,
    .supported_flags = BLOCK_REQ_FUA,
    .open = null_open,
    .length = null_length,
    .allocated = null_allocated,
    .co_preadv = null_co_preadv,
    .co_pwritev = null_co_pwritev,
    .co_flush = null_co_flush,
    .co_write_zeroes = null_co_write_zeroes,
    .co_block_status = null_co_block_status,
};

/* The same by another name: there is nothing here that would not be asynchronous. */
const struct block_driver block_driver_null_aio = {
    .name = "null-aio",
    .help = "as null-co",
    .is_protocol = true,
    .state_size = sizeof(struct null_state),
    .options = options,
    .plain_name = null_plain_name,
    .supported_flags = BLOCK_REQ_FUA,
    .open = null_open,
    .length = null_length,
    .allocated = null_allocated,
    .co_preadv = null_co_preadv,
    .co_pwritev = null_co_pwritev,
    .co_flush = null_co_flush,
    .co_write_zeroes = null_co_write_zeroes,
    .co_block_status = null_co_block_status,
};
