/* SPDX-License-Identifier: MIT */
/*
 * An NBD server: exports, and clients that use them (doc/proto.md of the NBD project: fixed newstyle
 * negotiation, structured replies, metadata contexts, TLS).
 *
 *   listening socket --accept--> struct nbd_connection, in one of the server's loops
 *                                  negotiate.c: options, until the client takes an export
 *                                  receive.c:   one coroutine reads requests …
 *                                  perform.c:   … each of which is a coroutine of its own …
 *                                  reply.c:     … and ends in the queue of replies
 *                                                 |
 *                             struct nbd_export --+--> struct block_backend
 *
 * The server knows nothing of programs and their arguments: ferry-nbd, which runs it, makes
 * backends and listening sockets and gives them here.
 *
 * Clients are hostile: what one sends costs a bounded amount of memory (NBD_IN_FLIGHT_*), and a
 * client that neither sends nor takes anything holds up nobody but itself. A client has
 * NBD_HANDSHAKE_SECONDS to come to an export.
 *
 * All functions: main loop, outside coroutines. Connections run in the main loop or, with
 * `threads`, in loops of their own; what they share (the list of exports) is under a lock.
 */
#ifndef FERRY_NBD_SERVER_H
#define FERRY_NBD_SERVER_H

#include "block/backend.h"
#include "nbd/tls.h"

#define NBD_HANDSHAKE_SECONDS  10
#define NBD_IN_FLIGHT_REQUESTS 128u                 /* of one connection */
#define NBD_IN_FLIGHT_BYTES    (UINT32_C(64) << 20) /* the same; a request has at most 32 MiB */
#define NBD_SERVER_THREADS_MAX 64u

struct nbd_server;
struct nbd_export;

struct nbd_server_config {
    unsigned max_connections;        /* at once; others wait to be accepted. 0: no limit */
    unsigned threads;                /* 0: connections run in the main loop */
    unsigned handshake_seconds;      /* 0: NBD_HANDSHAKE_SECONDS */
    const struct nbd_tls_creds *tls; /* or NULL; clients must use it then */
    /* With TLS: may a client of this distinguished name (NULL: it has none) come in? Any loop. NULL:
     * all may. */
    bool (*authorize)(void *opaque, const char *peer_name);
    /* A connection has ended, which had come to an export or not; `left`: how many there are still.
     * May not free the server. Main loop. NULL: nobody wants to know. */
    void (*closed)(void *opaque, bool had_export, unsigned left);
    /* For whoever looks for a fault; or NULL. Any loop. */
    void (*say)(void *opaque, const char *text);
    void *opaque;
};

/* config is copied. */
struct nbd_server *nbd_server_new(const struct nbd_server_config *config, struct error **errp);
/* Accepts clients of a listening socket, which the server closes. */
void nbd_server_listen(struct nbd_server *server, int fd);
/* Serves one client that is connected already. */
void nbd_server_add_client(struct nbd_server *server, int fd);
/* Accepts nobody any more; requests that were begun are finished, without the limits of throttle
 * nodes, and their replies sent if the client takes them within a second; then all connections are
 * closed. Polls the loop. */
void nbd_server_stop(struct nbd_server *server);
/* Stops it and frees it and its exports. */
void nbd_server_free(struct nbd_server *server);

struct nbd_export_config {
    const char *name;        /* "" is the default export; at most NBD_STRING_MAX bytes */
    const char *description; /* or NULL */
    struct block_backend *be;
    uint64_t offset, size; /* the part of the image that is shown; size 0: up to the end */
    bool writable;
    bool allocation_depth;      /* shows qemu:allocation-depth */
    const char *const *bitmaps; /* names; shows qemu:dirty-bitmap:NAME of each; or NULL */
    size_t bitmap_count;
    aio_fn *released; /* the server does not use `be` any more: main loop; or NULL */
    void *opaque;
};

/* Errors: the name is taken or too long, no such bitmap, the part is not in the image. */
bool nbd_server_add_export(struct nbd_server *server, const struct nbd_export_config *config,
                           struct error **errp);
/* Disconnects who uses it; false if there is none of that name. */
bool nbd_server_remove_export(struct nbd_server *server, const char *name, struct error **errp);

#endif
