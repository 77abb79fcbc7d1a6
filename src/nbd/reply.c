/* SPDX-License-Identifier: MIT */
/*
 * Replies: requests that are done queue up and go out together, by one sendmsg(2) for all that came
 * up in a round of the loop. Requests are kept for the next ones, with their buffers as long as
 * those are small.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"
#include "nbd/connection.h"

#define BUFFER_ALIGNMENT 4096 /* what every O_DIRECT file takes */
#define SEND_IOV         128

/* ---- requests -------------------------------------------------------------------------------- */

struct nbd_request *nbd_request_new(struct nbd_connection *conn)
{
    struct nbd_request *r = conn->free_requests;

    if (r) {
        conn->free_requests = r->next;
        conn->kept_bytes -= r->capacity;
    } else {
        r = xnew(struct nbd_request);
        r->conn = conn;
    }
    r->iov = r->own;
    r->niov = 0;
    r->charged = 0;
    conn->in_flight++;
    return r;
}

uint32_t nbd_request_room(const struct nbd_request *r, uint32_t size)
{
    return MAX(r->capacity, (uint32_t)align_up(size, BUFFER_ALIGNMENT));
}

void nbd_request_drop_buffer(struct nbd_request *r)
{
    free(r->buffer);
    r->buffer = NULL;
    r->capacity = 0;
}

bool nbd_request_reserve(struct nbd_request *r, uint32_t size)
{
    if (size <= r->capacity) {
        return true;
    }
    free(r->buffer);
    r->capacity = nbd_request_room(r, size);
    r->buffer = aligned_alloc(BUFFER_ALIGNMENT, r->capacity);
    if (!r->buffer) {
        r->capacity = 0;
    }
    return r->buffer;
}

void nbd_request_free(struct nbd_request *r)
{
    struct nbd_connection *conn = r->conn;

    free(r->extra);
    r->extra = NULL;
    if (r->iov != r->own) {
        free(r->iov);
    }
    if (r->capacity > NBD_REQUEST_KEEP || conn->kept_bytes + r->capacity > NBD_KEPT_BYTES) {
        nbd_request_drop_buffer(r);
    }
    conn->kept_bytes += r->capacity;
    conn->bytes_in_flight -= r->charged;
    conn->in_flight--;
    r->next = conn->free_requests;
    conn->free_requests = r;
    if (conn->waiter) {
        struct coroutine *co = conn->waiter;
        conn->waiter = NULL;
        co_wake(co);
    }
}

void nbd_requests_forget(struct nbd_connection *conn)
{
    while (conn->free_requests) {
        struct nbd_request *r = conn->free_requests;
        conn->free_requests = r->next;
        free(r->buffer);
        free(r);
    }
    conn->kept_bytes = 0;
}

/* ---- sending --------------------------------------------------------------------------------- */

static void drop_replies(struct nbd_connection *conn)
{
    while (conn->first_reply) {
        struct nbd_request *r = conn->first_reply;
        conn->first_reply = r->next;
        nbd_request_free(r);
    }
    conn->last_reply = &conn->first_reply;
    conn->sent = 0;
}

/* What is queued, as a list of buffers, without what was sent of the first reply. */
static int gather(struct nbd_connection *conn, struct iovec *iov)
{
    uint64_t skip = conn->sent;
    int n = 0;

    for (struct nbd_request *r = conn->first_reply; r && n < SEND_IOV; r = r->next) {
        for (int i = 0; i < r->niov && n < SEND_IOV; i++) {
            if (skip >= r->iov[i].iov_len) {
                skip -= r->iov[i].iov_len;
                continue;
            }
            iov[n++] = (struct iovec){
                .iov_base = (uint8_t *)r->iov[i].iov_base + skip,
                .iov_len = r->iov[i].iov_len - skip,
            };
            skip = 0;
        }
    }
    return n;
}

static void sent(struct nbd_connection *conn, uint64_t bytes)
{
    bytes += conn->sent;
    while (conn->first_reply && bytes >= conn->first_reply->reply_size) {
        struct nbd_request *r = conn->first_reply;
        bytes -= r->reply_size;
        conn->first_reply = r->next;
        if (!conn->first_reply) {
            conn->last_reply = &conn->first_reply;
        }
        nbd_request_free(r);
    }
    conn->sent = bytes;
}

static void send_replies(void *opaque);

static void unblocked(void *opaque)
{
    struct nbd_connection *conn = opaque;

    conn->is_blocked = false;
    send_replies(conn);
}

static void send_replies(void *opaque)
{
    struct nbd_connection *conn = opaque;
    struct iovec iov[SEND_IOV];

    while (conn->first_reply && !conn->is_blocked && !conn->is_broken) {
        ssize_t n = nbd_channel_send(&conn->channel, iov, gather(conn, iov));
        if (n == -EAGAIN) {
            conn->is_blocked = true;
            nbd_channel_when_writable(&conn->channel, unblocked, conn);
        } else if (n < 0) {
            nbd_say(conn, "cannot send: %s", strerror((int)-n));
            nbd_reply_break(conn);
        } else {
            sent(conn, (uint64_t)n);
        }
    }
    if (conn->is_broken) {
        drop_replies(conn);
    }
}

void nbd_reply_send(struct nbd_request *r)
{
    struct nbd_connection *conn = r->conn;

    r->reply_size = 0;
    for (int i = 0; i < r->niov; i++) {
        r->reply_size += r->iov[i].iov_len;
    }
    r->next = NULL;
    *conn->last_reply = r;
    conn->last_reply = &r->next;
    if (!conn->is_blocked) {
        bh_schedule(conn->send);
    }
}

struct aio_bh *nbd_reply_bh(struct nbd_connection *conn)
{
    return bh_new(conn->loop, send_replies, conn);
}

void nbd_reply_break(struct nbd_connection *conn)
{
    conn->is_broken = true;
    shutdown(conn->fd, SHUT_RDWR); /* who waits for the socket comes to an end */
    bh_schedule(conn->send);
}

/* ---- replies --------------------------------------------------------------------------------- */

uint32_t nbd_error_of(int error)
{
    switch (error < 0 ? -error : error) {
    case 0:
        return 0;
    case EPERM:
    case EACCES:
    case EROFS:
        return NBD_EPERM;
    case ENOMEM:
        return NBD_ENOMEM;
    case EINVAL:
        return NBD_EINVAL;
    case ENOSPC:
    case EFBIG:
    case EDQUOT:
        return NBD_ENOSPC;
    case EOVERFLOW:
        return NBD_EOVERFLOW;
    case ENOTSUP:
        return NBD_ENOTSUP;
    case ESHUTDOWN:
        return NBD_ESHUTDOWN;
    default:
        return NBD_EIO;
    }
}

void nbd_chunk_head(uint8_t *to, const struct nbd_request *r, unsigned flags, unsigned type,
                    uint32_t length)
{
    store_be32(to, NBD_STRUCTURED_MAGIC);
    store_be16(to + 4, (uint16_t)flags);
    store_be16(to + 6, (uint16_t)type);
    store_be64(to + 8, r->cookie);
    store_be32(to + 16, length);
}

static void set_head(struct nbd_request *r, size_t size)
{
    r->own[0] = (struct iovec){.iov_base = r->head, .iov_len = size};
    r->iov = r->own;
    r->niov = 1;
}

void nbd_reply_simple(struct nbd_request *r, uint32_t error, const char *message)
{
    /* Reads and block status must have structured replies once those are agreed on; failures of
     * others can say more by them. */
    bool must = r->type == NBD_CMD_READ || r->type == NBD_CMD_BLOCK_STATUS;

    if (!r->conn->is_structured || (!error && !must)) {
        store_be32(r->head, NBD_SIMPLE_MAGIC);
        store_be32(r->head + 4, error);
        store_be64(r->head + 8, r->cookie);
        set_head(r, NBD_SIMPLE_SIZE);
    } else if (!error) {
        nbd_chunk_head(r->head, r, NBD_CHUNK_DONE, NBD_CHUNK_NONE, 0);
        set_head(r, NBD_CHUNK_SIZE);
    } else {
        size_t room = sizeof(r->head) - NBD_CHUNK_SIZE - 6;
        size_t length = message ? MIN(strlen(message), room) : 0;
        nbd_chunk_head(r->head, r, NBD_CHUNK_DONE, NBD_CHUNK_ERROR, (uint32_t)(6 + length));
        store_be32(r->head + NBD_CHUNK_SIZE, error);
        store_be16(r->head + NBD_CHUNK_SIZE + 4, (uint16_t)length);
        memcpy(r->head + NBD_CHUNK_SIZE + 6, message ? message : "", length);
        set_head(r, NBD_CHUNK_SIZE + 6 + length);
    }
    nbd_reply_send(r);
}

void nbd_reply_data(struct nbd_request *r)
{
    if (!r->conn->is_structured) {
        store_be32(r->head, NBD_SIMPLE_MAGIC);
        store_be32(r->head + 4, 0);
        store_be64(r->head + 8, r->cookie);
        set_head(r, NBD_SIMPLE_SIZE);
    } else {
        nbd_chunk_head(r->head, r, NBD_CHUNK_DONE, NBD_CHUNK_OFFSET_DATA, 8 + r->length);
        store_be64(r->head + NBD_CHUNK_SIZE, r->offset);
        set_head(r, NBD_CHUNK_SIZE + 8);
    }
    r->own[1] = (struct iovec){.iov_base = r->buffer, .iov_len = r->length};
    r->niov = 2;
    nbd_reply_send(r);
}
