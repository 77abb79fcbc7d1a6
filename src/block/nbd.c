/* SPDX-License-Identifier: MIT */
/*
 * nbd: an export of an NBD server as a node.
 *
 *   request --> connection alive?  yes --> co_nbd_conn_request() --> 0, an error of the server
 *                   | no                        | -ENOTCONN
 *                   v                           v
 *               co_reconnect(): one coroutine at a time makes a new connection in a worker thread;
 *               until reconnect-delay= seconds after the failure, then requests fail with EIO
 *
 * Requests that were under way when the connection broke are done again: NBD's do the same when
 * they are done twice. The image must have kept its size.
 */
#include <errno.h>
#include <libnbd.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "aio/coroutine.h"
#include "aio/io.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/range.h"
#include "block/bounce.h"
#include "block/drivers.h"
#include "block/interrupt.h"
#include "block/iov.h"
#include "block/nbd_conn.h"
#include "block/nbd_options.h"
#include "block/node.h"

#define CONNECT_TIMEOUT_MS   30000 /* a server that accepts and says nothing */
#define RECONNECT_TIMEOUT_MS 5000
#define RETRY_NS             (NS_PER_SEC / 4) /* between attempts */
#define REST_NS              NS_PER_SEC       /* after a failure, without reconnect-delay */

struct nbd_state {
    /* constant */
    struct nbd_target target;
    struct nbd_times times;
    struct nbd_export_info info; /* of the first connection */
    /* atomic */
    _Atomic(bool) gives_up; /* no more connections: nbd_interrupt() */
    /* under lock, never held across a yield */
    pthread_mutex_t lock;
    struct nbd_conn *conn; /* with a reference; never NULL once it is open */
    /* under connect_lock, a coroutine lock: one attempt at a time */
    struct co_mutex connect_lock;
    int64_t failed_ns; /* when the last attempt failed, or 0 */
    bool is_lost;      /* that has been said */
};

/* ---- connecting ------------------------------------------------------------------------------- */

struct attempt {
    const struct nbd_target *target;
    int timeout_ms;
    int interrupt_fd; /* or -1 */
    struct nbd_conn *conn;
    char *why;
};

static int connect_in_worker(void *opaque)
{
    struct attempt *attempt = opaque;

    attempt->conn =
        nbd_conn_open(attempt->target, attempt->timeout_ms, attempt->interrupt_fd, &attempt->why);
    return 0;
}

/* The first connection: tries again until open-timeout= seconds have passed. */
static int co_connect_first(void *opaque)
{
    struct nbd_state *s = opaque;
    int64_t deadline = clock_get_ns(AIO_CLOCK_RT) + (int64_t)s->times.open_timeout * NS_PER_SEC;
    struct attempt attempt = {
        .target = &s->target,
        .timeout_ms = CONNECT_TIMEOUT_MS,
        .interrupt_fd = block_interrupt_fd(),
    };

    if (s->times.open_timeout) {
        attempt.timeout_ms = (int)MIN(s->times.open_timeout * 1000, CONNECT_TIMEOUT_MS);
    }
    for (;;) {
        co_thread_pool(connect_in_worker, &attempt);
        if (attempt.conn || block_is_interrupted() ||
            clock_get_ns(AIO_CLOCK_RT) + RETRY_NS >= deadline) {
            break;
        }
        free(attempt.why);
        co_sleep(AIO_CLOCK_RT, RETRY_NS);
    }
    s->conn = attempt.conn;
    if (!s->conn) {
        s->times.why = attempt.why;
    }
    return 0;
}

static struct nbd_conn *get_conn(struct nbd_state *s)
{
    pthread_mutex_lock(&s->lock);
    struct nbd_conn *conn = s->conn;
    nbd_conn_ref(conn);
    pthread_mutex_unlock(&s->lock);
    return conn;
}

static bool is_same_export(const struct nbd_export_info *a, const struct nbd_export_info *b)
{
    return a->size == b->size && a->min_block == b->min_block &&
           a->max_transfer <= b->max_transfer && (a->is_read_only || !b->is_read_only);
}

/* Takes attempt->conn. */
static bool accept_conn(struct block_node *node, struct attempt *attempt)
{
    struct nbd_state *s = node->state;

    if (!attempt->conn) {
        return false;
    }
    if (!is_same_export(&s->info, &attempt->conn->info)) {
        log_error("'%s': after reconnecting, the export has another size or other limits; its "
                  "requests fail",
                  node->filename);
        nbd_conn_close(attempt->conn);
        return false;
    }
    /* Under lock, so that a drain that finds the new one comes after the old one left its loop or
     * the call for that was posted. */
    pthread_mutex_lock(&s->lock);
    nbd_conn_close(s->conn);
    s->conn = attempt->conn;
    pthread_mutex_unlock(&s->lock);
    return true;
}

/* 0: there is a connection that is not dead; -EIO: not until the deadline. */
static int co_reconnect(struct block_node *node, int64_t deadline)
{
    struct nbd_state *s = node->state;
    int ret = -EIO;

    co_mutex_lock(&s->connect_lock);
    for (;;) {
        struct attempt attempt = {
            .target = &s->target,
            .timeout_ms = RECONNECT_TIMEOUT_MS,
            .interrupt_fd = -1, /* a disk's last flush is worth it */
        };
        struct nbd_conn *conn = get_conn(s);
        bool is_dead = nbd_conn_is_dead(conn);
        nbd_conn_unref(conn);
        if (!is_dead) {
            ret = 0;
            break;
        }
        if (!s->is_lost) {
            log_warn("lost the connection to '%s'", node->filename);
            s->is_lost = true;
        }
        int64_t now = clock_get_ns(AIO_CLOCK_RT);
        if (s->failed_ns && now >= deadline && now < s->failed_ns + REST_NS) {
            break;
        }
        co_thread_pool(connect_in_worker, &attempt);
        if (accept_conn(node, &attempt)) {
            log_warn("connected to '%s' again", node->filename);
            s->is_lost = false;
            s->failed_ns = 0;
            ret = 0;
            break;
        }
        free(attempt.why);
        s->failed_ns = clock_get_ns(AIO_CLOCK_RT);
        if (s->failed_ns + RETRY_NS >= deadline) {
            break;
        }
        co_sleep(AIO_CLOCK_RT, RETRY_NS);
    }
    co_mutex_unlock(&s->connect_lock);
    return ret;
}

static int co_request(struct block_node *node, struct nbd_request *request)
{
    struct nbd_state *s = node->state;
    int64_t deadline = 0;

    for (;;) {
        struct nbd_conn *conn = get_conn(s);
        int ret = co_nbd_conn_request(conn, request);
        nbd_conn_unref(conn);
        if (ret != -ENOTCONN) {
            return ret == -ESHUTDOWN ? -EIO : ret;
        }
        int64_t now = clock_get_ns(AIO_CLOCK_RT);
        if (atomic_load(&s->gives_up) || (deadline && now >= deadline)) {
            return -EIO; /* … or it keeps breaking */
        }
        deadline = deadline ? deadline : now + (int64_t)s->times.reconnect_delay * NS_PER_SEC;
        if (co_reconnect(node, deadline) < 0) {
            return -EIO;
        }
    }
}

/* ---- opening ---------------------------------------------------------------------------------- */

static bool check_writable(struct block_node *node, struct error **errp)
{
    struct nbd_state *s = node->state;

    if (!(node->flags & BLOCK_OPEN_RDWR) || !s->info.is_read_only) {
        return true;
    }
    if (!(node->flags & BLOCK_OPEN_AUTO_READ_ONLY)) {
        error_set(errp, "'%s': the server's export is read-only; give read-only=on",
                  node->filename);
        return false;
    }
    node->flags &= ~BLOCK_OPEN_RDWR;
    return true;
}

static bool connect_first(struct block_node *node, struct error **errp)
{
    struct nbd_state *s = node->state;

    block_run(co_connect_first, s);
    if (!s->conn) {
        error_set(errp, "Failed to connect to '%s': %s", node->filename, s->times.why);
        free(s->times.why);
        s->times.why = NULL;
        return false;
    }
    s->info = s->conn->info;
    return true;
}

static bool nbd_open(struct block_node *node, struct options *opts, struct error **errp)
{
    struct nbd_state *s = node->state;

    if (!nbd_options_parse(opts, &s->target, &s->times, errp)) {
        nbd_target_free(&s->target);
        return false;
    }
    free(node->filename);
    node->filename = nbd_target_text(&s->target);
    pthread_mutex_init(&s->lock, NULL);
    co_mutex_init(&s->connect_lock);
    if (connect_first(node, errp) && check_writable(node, errp)) {
        return true;
    }
    if (s->conn) {
        nbd_conn_close(s->conn);
    }
    co_mutex_destroy(&s->connect_lock);
    pthread_mutex_destroy(&s->lock);
    nbd_target_free(&s->target);
    return false;
}

static void nbd_node_close(struct block_node *node)
{
    struct nbd_state *s = node->state;

    nbd_conn_close(s->conn);
    co_mutex_destroy(&s->connect_lock);
    pthread_mutex_destroy(&s->lock);
    nbd_target_free(&s->target);
}

static void nbd_interrupt(struct block_node *node)
{
    struct nbd_state *s = node->state;

    if (s->conn) {
        atomic_store(&s->gives_up, true);
        nbd_conn_break(s->conn);
    }
}

static bool nbd_reopen(struct block_node *node, unsigned flags, struct error **errp)
{
    const struct nbd_state *s = node->state;

    if (flags & BLOCK_OPEN_RDWR && s->info.is_read_only) {
        error_set(errp, "'%s': the server's export is read-only", node->filename);
        return false;
    }
    return true;
}

/* The loop that watches the connection may end after a drain. Others may have requests in flight. */
static void nbd_drain_end(struct block_node *node)
{
    struct nbd_conn *conn = get_conn(node->state);

    nbd_conn_release_loop(conn);
    nbd_conn_unref(conn);
}

static void nbd_drain_begin(struct block_node *node)
{
}

static int64_t nbd_length(struct block_node *node)
{
    return (int64_t)((struct nbd_state *)node->state)->info.size;
}

static void nbd_limits(struct block_node *node, struct block_limits *limits)
{
    const struct nbd_export_info *info = &((struct nbd_state *)node->state)->info;

    limits->request_alignment = info->min_block;
    limits->max_transfer = info->max_transfer;
    /* Lengths have 32 bits. */
    limits->max_discard = limits->max_write_zeroes = align_down(UINT32_MAX, info->min_block);
}

/* ---- requests --------------------------------------------------------------------------------- */

/* libnbd takes one buffer. */
static int co_transfer_copied(struct block_node *node, struct nbd_request *request,
                              const struct block_iov *iov, uint64_t done)
{
    bool is_read = request->command == NBD_READ;
    void *buffer = bounce_alloc(_Alignof(max_align_t), request->length);

    if (!buffer) {
        return -ENOMEM;
    }
    if (!is_read) {
        block_iov_read(iov, done, buffer, request->length);
    }
    request->buffer = buffer;
    int ret = co_request(node, request);
    if (is_read && ret == 0) {
        block_iov_write(iov, done, buffer, request->length);
    }
    bounce_free(buffer, request->length);
    return ret;
}

/* Buffers of a list are copied to one, all at once; when the budget of copies is spent, in small
 * pieces, and what is longer in one buffer goes from there. */
static int co_transfer(struct block_node *node, struct nbd_request *request,
                       const struct block_iov *iov)
{
    uint32_t block = node->limits.request_alignment;
    uint64_t offset = request->offset;
    int ret = 0;

    if (iov->niov == 1) {
        request->buffer = iov->iov[0].iov_base;
        return co_request(node, request);
    }
    for (uint64_t done = 0; done < iov->size && ret == 0; done += request->length) {
        struct iovec first = {0};
        uint64_t left = iov->size - done, room = bounce_room(left, block), there = 0;
        int niov;

        if (room < left) {
            there = align_down(block_iov_slice(iov, done, left, &first, 1, &niov), block);
        }
        request->offset = offset + done;
        if (there >= room) {
            request->length = there;
            request->buffer = first.iov_base;
            ret = co_request(node, request);
        } else {
            request->length = room;
            ret = co_transfer_copied(node, request, iov, done);
        }
    }
    return ret;
}

static int nbd_co_preadv(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                         unsigned flags, uint64_t id)
{
    return co_transfer(
        node, &(struct nbd_request){.command = NBD_READ, .offset = offset, .length = iov->size},
        iov);
}

static int nbd_co_flush(struct block_node *node, uint64_t id)
{
    const struct nbd_state *s = node->state;

    return s->info.can_flush ? co_request(node, &(struct nbd_request){.command = NBD_FLUSH}) : 0;
}

/* A server without FUA is flushed. */
static unsigned wire_flags(const struct nbd_state *s, unsigned flags)
{
    return flags & BLOCK_REQ_FUA && s->info.can_fua ? LIBNBD_CMD_FLAG_FUA : 0;
}

static int co_finish(struct block_node *node, int ret, unsigned flags, uint64_t id)
{
    const struct nbd_state *s = node->state;

    return ret == 0 && flags & BLOCK_REQ_FUA && !s->info.can_fua ? nbd_co_flush(node, id) : ret;
}

static int nbd_co_pwritev(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                          unsigned flags, uint64_t id)
{
    struct nbd_request request = {.command = NBD_WRITE,
                                  .flags = wire_flags(node->state, flags),
                                  .offset = offset,
                                  .length = iov->size};

    return co_finish(node, co_transfer(node, &request, iov), flags, id);
}

static int nbd_co_discard(struct block_node *node, uint64_t offset, uint64_t length)
{
    const struct nbd_state *s = node->state;

    return s->info.can_trim ? co_request(node, &(struct nbd_request){.command = NBD_TRIM,
                                                                     .offset = offset,
                                                                     .length = length})
                            : -ENOTSUP;
}

static int nbd_co_write_zeroes(struct block_node *node, uint64_t offset, uint64_t length,
                               unsigned flags)
{
    const struct nbd_state *s = node->state;
    unsigned no_hole = flags & BLOCK_REQ_MAY_UNMAP ? 0 : LIBNBD_CMD_FLAG_NO_HOLE;
    struct nbd_request request = {.command = NBD_ZERO,
                                  .flags = wire_flags(s, flags) | no_hole,
                                  .offset = offset,
                                  .length = length};

    return s->info.can_zero ? co_finish(node, co_request(node, &request), flags, 0) : -ENOTSUP;
}

static int nbd_co_block_status(struct block_node *node, uint64_t offset, uint64_t *length,
                               uint64_t *map)
{
    const struct nbd_state *s = node->state;
    uint64_t block = s->info.min_block;
    uint64_t start = align_down(offset, block);
    struct nbd_request request = {.command = NBD_STATUS,
                                  .flags = LIBNBD_CMD_FLAG_REQ_ONE,
                                  .offset = start,
                                  .length = MIN(align_up(offset + *length, block) - start,
                                                align_down(UINT32_MAX, block))};
    *map = offset;
    if (!s->info.can_status) {
        return BLOCK_STATUS_DATA | BLOCK_STATUS_ALLOCATED | BLOCK_STATUS_OFFSET_VALID;
    }
    int ret = co_request(node, &request);
    if (ret < 0) {
        return ret;
    }
    uint64_t end = start + request.status_length;
    if (end <= offset) {
        return -EIO; /* less than a block */
    }
    *length = MIN(*length, end - offset);
    return BLOCK_STATUS_ALLOCATED | BLOCK_STATUS_OFFSET_VALID |
           (request.status_flags & LIBNBD_STATE_HOLE ? 0 : BLOCK_STATUS_DATA) |
           (request.status_flags & LIBNBD_STATE_ZERO ? BLOCK_STATUS_ZERO : 0);
}

static char *nbd_plain_name(const struct block_node *node, bool has_options)
{
    return nbd_target_text(&((const struct nbd_state *)node->state)->target);
}

static const struct node_option options[] = {
    {"server.type", NODE_OPTION_STRING, true},
    {"server.host", NODE_OPTION_STRING, true},
    {"server.port", NODE_OPTION_STRING, true},
    {"server.path", NODE_OPTION_STRING, true},
    {"server.ipv4", NODE_OPTION_BOOL},
    {"server.ipv6", NODE_OPTION_BOOL},
    {"server.cid", NODE_OPTION_STRING}, /* of types that are refused by name */
    {"server.str", NODE_OPTION_STRING},
    {"path", NODE_OPTION_STRING, true},
    {"host", NODE_OPTION_STRING, true},
    {"port", NODE_OPTION_STRING, true},
    {"export", NODE_OPTION_STRING, true},
    {"tls", NODE_OPTION_BOOL, true},
    {"tls-creds", NODE_OPTION_STRING, true},
    {"tls-hostname", NODE_OPTION_STRING, true},
    {"reconnect-delay", NODE_OPTION_INTEGER},
    {"open-timeout", NODE_OPTION_INTEGER},
    {NULL},
};

const struct block_driver block_driver_nbd = {
    .name = "nbd",
    .help = "an export of an NBD server; server.type=, server.path= or server.host=, export=, "
            "tls-creds=, reconnect-delay=, open-timeout=",
    .is_protocol = true,
    .state_size = sizeof(struct nbd_state),
    .options = options,
    .plain_name = nbd_plain_name,
    .supported_flags = BLOCK_REQ_FUA,
    .open = nbd_open,
    .close = nbd_node_close,
    .limits = nbd_limits,
    .length = nbd_length,
    .co_preadv = nbd_co_preadv,
    .co_pwritev = nbd_co_pwritev,
    .co_flush = nbd_co_flush,
    .co_discard = nbd_co_discard,
    .co_write_zeroes = nbd_co_write_zeroes,
    .co_block_status = nbd_co_block_status,
    .reopen = nbd_reopen,
    .interrupt = nbd_interrupt,
    .drain_begin = nbd_drain_begin,
    .drain_end = nbd_drain_end,
};
