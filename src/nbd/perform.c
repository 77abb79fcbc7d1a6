/* SPDX-License-Identifier: MIT */
/* Requests, done: each runs in a coroutine of its own. They have been checked (receive.c). */
#include <errno.h>
#include <string.h>

#include "base/range.h"
#include "block/iov.h"
#include "nbd/connection.h"

/* Reads of up to this much are sent as they are: to ask first where holes are costs more. */
#define SPARSE_MIN (64 * KiB)

static int co_write(struct nbd_request *r)
{
    const struct nbd_export *export = r->conn->export;
    struct iovec vec;
    struct block_iov iov = block_iov_of(&vec, r->buffer, r->length);
    unsigned flags = r->flags & NBD_CMD_FLAG_FUA ? BLOCK_REQ_FUA : 0;

    return backend_co_pwritev(export->be, export->offset + r->offset, &iov, flags, 0);
}

/* There may be new holes. */
static void forget_data(struct nbd_export *export)
{
    atomic_store(&export->data_end, 0);
}

static int co_write_zeroes(struct nbd_request *r)
{
    const struct nbd_export *export = r->conn->export;
    unsigned flags = 0;

    if (r->flags & NBD_CMD_FLAG_FUA) {
        flags |= BLOCK_REQ_FUA;
    }
    if (!(r->flags & NBD_CMD_FLAG_NO_HOLE)) {
        flags |= BLOCK_REQ_MAY_UNMAP;
    }
    if (r->flags & NBD_CMD_FLAG_FAST_ZERO) {
        flags |= BLOCK_REQ_NO_FALLBACK;
    }
    int ret = backend_co_write_zeroes(export->be, export->offset + r->offset, r->length, flags);
    forget_data(r->conn->export);
    return ret;
}

static int co_trim(struct nbd_request *r)
{
    const struct nbd_export *export = r->conn->export;
    int ret = backend_co_discard(export->be, export->offset + r->offset, r->length);

    forget_data(r->conn->export);
    if (ret == 0 && r->flags & NBD_CMD_FLAG_FUA) {
        ret = backend_co_flush(export->be, 0);
    }
    return ret;
}

/* Reads, so that caches below have it. */
static int co_cache(struct nbd_request *r)
{
    const struct nbd_export *export = r->conn->export;
    int ret = 0;

    if (!nbd_request_reserve(r, (uint32_t)MIN(r->length, NBD_CACHE_STEP))) {
        return -ENOMEM;
    }
    for (uint64_t done = 0; done < r->length && ret == 0;) {
        struct iovec vec;
        struct block_iov iov = block_iov_of(&vec, r->buffer, MIN(r->length - done, NBD_CACHE_STEP));
        ret = backend_co_preadv(export->be, export->offset + r->offset + done, &iov, 0, 0);
        done += iov.size;
    }
    return ret;
}

static void co_read(struct nbd_request *r)
{
    const struct nbd_export *export = r->conn->export;
    struct iovec vec;
    struct block_iov iov = block_iov_of(&vec, r->buffer, r->length);

    if (r->conn->is_structured && !(r->flags & NBD_CMD_FLAG_DF) && r->length > SPARSE_MIN) {
        nbd_co_read_sparse(r);
        return;
    }
    int ret = backend_co_preadv(export->be, export->offset + r->offset, &iov, 0, 0);
    if (ret < 0) {
        nbd_reply_simple(r, nbd_error_of(ret), strerror(-ret));
    } else if (!r->length) {
        nbd_reply_simple(r, 0, NULL);
    } else {
        nbd_reply_data(r);
    }
}

void nbd_co_perform(void *request)
{
    struct nbd_request *r = request;
    int ret = 0;

    switch ((enum nbd_command)r->type) {
    case NBD_CMD_READ:
        co_read(r);
        return;
    case NBD_CMD_BLOCK_STATUS:
        nbd_co_block_status(r);
        return;
    case NBD_CMD_WRITE:
        ret = co_write(r);
        break;
    case NBD_CMD_FLUSH:
        ret = backend_co_flush(r->conn->export->be, 0);
        break;
    case NBD_CMD_TRIM:
        ret = co_trim(r);
        break;
    case NBD_CMD_CACHE:
        ret = co_cache(r);
        break;
    case NBD_CMD_WRITE_ZEROES:
        ret = co_write_zeroes(r);
        break;
    case NBD_CMD_DISC:
        break;
    }
    if (ret < 0) {
        nbd_say(r->conn, "request %u at %llu, length %u: %s", r->type,
                (unsigned long long)r->offset, r->length, strerror(-ret));
    }
    nbd_reply_simple(r, nbd_error_of(ret), ret < 0 ? strerror(-ret) : NULL);
}
