/* SPDX-License-Identifier: MIT */
/*
 * A connection to an NBD server, by libnbd: for nbd.c.
 *
 *   coroutine (any loop) --> nbd_conn_…() --> libnbd's handle, which has a lock --> socket
 *                                                  ^
 *   the loop that owns the connection: socket readable --> replies --> wakes the coroutines
 *
 * Any loop submits by itself. The socket is watched by one loop, that which uses the connection
 * most: it changes hands when another loop submits OWNER_PATIENCE times in a row. So with one disk
 * per iothread, requests and replies stay in that thread. A drain takes it to the loop that waits,
 * as that which had it may end. It is watched there: a drain waits for the requests of some backends
 * only, and replies to those of others are still to come.
 *
 * A connection that breaks is dead: all its requests end with -ENOTCONN, and so do new ones. It is
 * freed when the last reference is gone: the driver's, the watching loop's, those of requests.
 */
#ifndef FERRY_BLOCK_NBD_CONN_H
#define FERRY_BLOCK_NBD_CONN_H

#include <stdint.h>

#include "aio/loop.h"
#include "base/error.h"

struct nbd_creds;

/* Where a server is and how to talk to it. Constant. */
struct nbd_target {
    char *host, *port; /* TCP; or … */
    char *path;        /* … a unix socket */
    char *export;
    bool tls;
    struct nbd_creds *creds; /* or NULL: the system's */
    char *tls_hostname;      /* or NULL: host */
};
void nbd_target_free(struct nbd_target *target);
/* As a URI, for messages. The caller frees it. */
char *nbd_target_text(const struct nbd_target *target);

/* What the server says of the export. Checked: powers of 2, in order, within bounds. */
struct nbd_export_info {
    uint64_t size; /* bytes */
    bool is_read_only, can_flush, can_fua, can_trim, can_zero, can_status;
    uint32_t min_block, max_transfer; /* bytes */
};

struct nbd_conn {
    /* constant */
    struct nbd_export_info info;
    struct nbd_impl *impl;
};

/* Connects and negotiates; blocks, at most timeout_ms, and not when interrupt_fd (or -1) is readable.
 * NULL and a text, to be freed, that says why. A worker thread's. The caller has a reference. */
struct nbd_conn *nbd_conn_open(const struct nbd_target *target, int timeout_ms, int interrupt_fd,
                               char **why);
void nbd_conn_ref(struct nbd_conn *conn);
void nbd_conn_unref(struct nbd_conn *conn);
/* Nobody needs it any more: the server is told, the loop lets go of it. Any loop. */
void nbd_conn_close(struct nbd_conn *conn);
bool nbd_conn_is_dead(struct nbd_conn *conn);
/* It breaks, as if the server had gone. Any loop. */
void nbd_conn_break(struct nbd_conn *conn);
/* If another loop watches it, this one does instead; polls the loop of this thread until then. Requests
 * may be pending and may be made meanwhile. Main loop, outside coroutines. */
void nbd_conn_release_loop(struct nbd_conn *conn);

enum nbd_command { NBD_READ, NBD_WRITE, NBD_FLUSH, NBD_TRIM, NBD_ZERO, NBD_STATUS };

struct nbd_request {
    enum nbd_command command;
    unsigned flags; /* LIBNBD_CMD_FLAG_* */
    uint64_t offset, length;
    void *buffer; /* of READ and WRITE: length bytes */
    /* results of STATUS: the first extent */
    uint32_t status_length, status_flags;
};

/* 0 or negative errno; -ENOTCONN: the connection is dead. */
int co_nbd_conn_request(struct nbd_conn *conn, struct nbd_request *request);

#endif
