/* SPDX-License-Identifier: MIT */
/*
 * Transmission, the client's side: requests are read one after the other and started. The reader
 * waits while the client has too much in flight, so what a client costs is bounded; replies that it
 * does not take count as in flight.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/range.h"
#include "nbd/connection.h"

/* ---- is it a valid request? ------------------------------------------------------------------ */

static unsigned allowed_flags(const struct nbd_request *r)
{
    switch (r->type) {
    case NBD_CMD_READ:
        return NBD_CMD_FLAG_FUA | (r->conn->is_structured ? NBD_CMD_FLAG_DF : 0);
    case NBD_CMD_WRITE_ZEROES:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
    case NBD_CMD_BLOCK_STATUS:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE;
    default:
        return NBD_CMD_FLAG_FUA;
    }
}

static bool is_write(unsigned type)
{
    return type == NBD_CMD_WRITE || type == NBD_CMD_TRIM || type == NBD_CMD_WRITE_ZEROES;
}

/* An NBD error value with its message, or 0. */
static uint32_t check(const struct nbd_request *r, const char **message)
{
    const struct nbd_export *export = r->conn->export;
    bool has_data = r->type == NBD_CMD_READ || r->type == NBD_CMD_CACHE;

    if (r->type > NBD_CMD_BLOCK_STATUS || r->type == NBD_CMD_DISC) {
        *message = "unknown request type";
        return NBD_EINVAL;
    }
    if (r->flags & ~allowed_flags(r)) {
        *message = "unsupported flags for this request";
        return NBD_EINVAL;
    }
    if (r->type == NBD_CMD_BLOCK_STATUS && (!r->conn->contexts.count || !r->length)) {
        *message = r->length ? "no metadata context was chosen for this export" : "length is zero";
        return NBD_EINVAL;
    }
    if (r->type == NBD_CMD_FLUSH) {
        return 0;
    }
    if (is_write(r->type) && !export->writable) {
        *message = "the export is read-only";
        return NBD_EPERM;
    }
    if (!range_fits(r->offset, r->length, export->size)) {
        *message = "the request goes past the end of the export";
        return r->type == NBD_CMD_WRITE || r->type == NBD_CMD_WRITE_ZEROES ? NBD_ENOSPC
                                                                           : NBD_EINVAL;
    }
    if (has_data && r->length > NBD_MAX_PAYLOAD) {
        *message = "the request is longer than 32 MiB";
        return NBD_EINVAL;
    }
    return 0;
}

/* ---- bounds ---------------------------------------------------------------------------------- */

static void co_wait_until_fewer(struct nbd_connection *conn)
{
    conn->waiter = coroutine_self();
    coroutine_yield();
}

/* What the request and its reply take besides what every request has, at most: with the buffer that
 * r has from an earlier one, needed or not. */
static uint32_t memory_of(const struct nbd_request *r)
{
    switch (r->type) {
    case NBD_CMD_READ:
    case NBD_CMD_WRITE:
        return nbd_request_room(r, r->length);
    case NBD_CMD_CACHE:
        return nbd_request_room(r, MIN(r->length, NBD_CACHE_STEP));
    case NBD_CMD_BLOCK_STATUS:
        return r->capacity + nbd_status_memory(r->conn);
    default:
        return r->capacity;
    }
}

/* Alone it may always. */
static bool has_room(const struct nbd_request *r)
{
    const struct nbd_connection *conn = r->conn;

    return conn->in_flight <= 1 || conn->bytes_in_flight + memory_of(r) <= NBD_IN_FLIGHT_BYTES;
}

/* Waits until r may use the memory that it needs. */
static void co_charge(struct nbd_request *r)
{
    if (!has_room(r)) {
        nbd_request_drop_buffer(r);
    }
    while (!has_room(r)) {
        co_wait_until_fewer(r->conn);
    }
    r->charged = memory_of(r);
    r->conn->bytes_in_flight += r->charged;
}

/* ---- one request ----------------------------------------------------------------------------- */

/* The data of a write, also if it cannot be done. 0, or negative errno: the connection ends. */
static int co_read_payload(struct nbd_request *r, uint32_t *error, const char **message)
{
    struct nbd_channel *channel = &r->conn->channel;

    if (r->length > NBD_MAX_PAYLOAD) {
        nbd_say(r->conn, "a write of %u bytes is longer than 32 MiB", r->length);
        return -EPROTO;
    }
    if (*error) {
        nbd_request_drop_buffer(r);
        return nbd_channel_co_skip(channel, r->length);
    }
    co_charge(r);
    if (!nbd_request_reserve(r, r->length)) {
        *error = NBD_ENOMEM;
        *message = "out of memory";
        return nbd_channel_co_skip(channel, r->length);
    }
    return nbd_channel_co_read(channel, r->buffer, r->length);
}

static int co_receive_request(struct nbd_request *r, const uint8_t *head)
{
    const char *message = NULL;

    r->flags = load_be16(head + 4);
    r->type = load_be16(head + 6);
    r->cookie = load_be64(head + 8);
    r->offset = load_be64(head + 16);
    r->length = load_be32(head + 24);

    uint32_t error = check(r, &message);
    if (r->type == NBD_CMD_WRITE) {
        int ret = co_read_payload(r, &error, &message);
        if (ret < 0) {
            return ret;
        }
    } else if (error) {
        nbd_request_drop_buffer(r);
    } else {
        co_charge(r);
        if (r->type == NBD_CMD_READ && !nbd_request_reserve(r, r->length)) {
            error = NBD_ENOMEM;
            message = "out of memory";
        }
    }
    if (error) {
        nbd_say(r->conn, "request %u at %llu, length %u, flags 0x%x: %s", r->type,
                (unsigned long long)r->offset, r->length, r->flags, message);
        nbd_reply_simple(r, error, message);
        return 0;
    }
    coroutine_enter(coroutine_new(nbd_co_perform, r));
    return 0;
}

/* False: the client leaves or is gone. *violation: it does not speak NBD. */
static bool co_next_request(struct nbd_connection *conn, bool *violation)
{
    uint8_t head[NBD_REQUEST_SIZE];

    while (conn->in_flight >= NBD_IN_FLIGHT_REQUESTS) {
        co_wait_until_fewer(conn);
    }
    if (atomic_load_explicit(&conn->server->is_stopping, memory_order_relaxed) ||
        nbd_channel_co_read(&conn->channel, head, sizeof(head)) < 0) {
        return false;
    }
    if (load_be32(head) != NBD_REQUEST_MAGIC) {
        nbd_say(conn, "a request begins with 0x%08x instead of the magic number", load_be32(head));
        *violation = true;
        return false;
    }
    if (load_be16(head + 6) == NBD_CMD_DISC) {
        return false;
    }
    struct nbd_request *r = nbd_request_new(conn);
    int ret = co_receive_request(r, head);
    if (ret < 0) {
        *violation = ret == -EPROTO;
        nbd_request_free(r);
        return false;
    }
    return !conn->is_broken;
}

void nbd_co_transmit(struct nbd_connection *conn)
{
    bool violation = false;

    while (co_next_request(conn, &violation)) {
    }
    if (violation) {
        nbd_reply_break(conn);
    }
    /* What was begun is finished, and told as long as the client takes it. */
    while (conn->in_flight) {
        co_wait_until_fewer(conn);
    }
}
