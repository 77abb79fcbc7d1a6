/* SPDX-License-Identifier: MIT */
/* A client's connection; between the files of nbd/. server.h has the picture. */
#ifndef FERRY_NBD_CONNECTION_H
#define FERRY_NBD_CONNECTION_H

#include <pthread.h>

#include "nbd/channel.h"
#include "nbd/export.h"
#include "nbd/protocol.h"

/* ---- the server ------------------------------------------------------------------------------ */

struct nbd_thread; /* server_thread.c */

struct nbd_listener {
    struct nbd_server *server;
    int fd;
    bool is_accepting; /* its loop waits for it */
    struct nbd_listener *next;
};

struct nbd_server {
    /* constant */
    struct nbd_server_config config;
    struct aio_loop *main_loop;
    struct nbd_thread **threads;
    /* main loop */
    struct nbd_listener *listeners;
    struct nbd_connection *connections;
    unsigned connection_count;
    unsigned next_thread;
    struct aio_timer accept_timer; /* no descriptors were left: tries again */
    /* atomic */
    _Atomic(bool) is_stopping;
    /* under lock, which is never held across a yield */
    pthread_mutex_t lock;
    struct nbd_export *exports;
};

void nbd_say(const struct nbd_connection *conn, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Main loop: disconnects who uses the export. */
void nbd_connections_leave(struct nbd_server *server, const struct nbd_export *export);

/* server_thread.c: loops for connections, each with a thread. */
struct nbd_thread *nbd_thread_start(unsigned number, struct error **errp);
struct aio_loop *nbd_thread_loop(struct nbd_thread *thread);
void nbd_thread_stop(struct nbd_thread *thread); /* nothing runs in it any more */

/* ---- requests -------------------------------------------------------------------------------- */

#define NBD_REQUEST_KEEP (UINT32_C(2) << 20)  /* bytes of a buffer that is kept for later */
#define NBD_KEPT_BYTES   (UINT32_C(16) << 20) /* of one connection */

/* A request, and then its reply. Its connection's loop. */
struct nbd_request {
    struct nbd_connection *conn;
    struct nbd_request *next; /* among the free ones, or in the queue of replies */
    uint16_t type, flags;
    uint64_t cookie, offset;
    uint32_t length;
    /* data: of the request, then of the reply */
    uint8_t *buffer;
    uint32_t capacity;
    uint32_t charged; /* bytes of conn->bytes_in_flight; the buffer is among them */
    /* the reply: iov[0 .. niov), which is `own` unless there are many pieces */
    struct iovec *iov;
    int niov;
    uint64_t reply_size;
    void *extra; /* memory that the pieces lie in, or NULL */
    struct iovec own[3];
    uint8_t head[NBD_CHUNK_SIZE + 8 + 128];
};

struct nbd_connection {
    /* constant */
    struct nbd_server *server;
    struct aio_loop *loop;
    /* main loop */
    struct nbd_connection *next;
    int fd; /* closed by the main loop: it may be shut down (2) from there at any time */
    /* its loop: negotiation */
    struct aio_timer handshake_timer;
    bool is_fixed_newstyle, no_zeroes, is_structured;
    unsigned options_left;
    struct nbd_contexts contexts;
    /* its loop: transmission */
    struct nbd_channel channel;
    struct nbd_export *export; /* with a reference; set under server->lock */
    unsigned in_flight;        /* requests whose reply is not sent yet */
    uint64_t bytes_in_flight;
    struct coroutine *waiter; /* the reader waits until some of them are done */
    struct nbd_request *free_requests;
    uint64_t kept_bytes;
    /* its loop: replies */
    struct nbd_request *first_reply, **last_reply;
    uint64_t sent;       /* bytes of the first reply */
    struct aio_bh *send; /* all that come up in a round go out together */
    bool is_blocked;     /* the socket takes no more at present */
    bool is_broken;      /* replies are dropped */
};

/* negotiate.c. True: conn->export is set, transmission begins. */
bool nbd_co_negotiate(struct nbd_connection *conn);
#define NBD_OPTION_MAX  (UINT32_C(256) << 10) /* bytes; longer ones are refused */
#define NBD_OPTIONS_MAX 4096u                 /* a client that asks more often is sent away */
/* One reply to an option. */
int nbd_co_option_reply(struct nbd_connection *conn, uint32_t option, uint32_t type,
                        const void *data, size_t size);
int nbd_co_option_error(struct nbd_connection *conn, uint32_t option, uint32_t type,
                        const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* option_meta.c: NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. 0, or negative errno: the
 * connection ends. */
int nbd_co_option_meta(struct nbd_connection *conn, uint32_t option, const uint8_t *data,
                       uint32_t length);

/* receive.c: until the client leaves or breaks the protocol; no request is in flight then. */
void nbd_co_transmit(struct nbd_connection *conn);

/* What NBD_CMD_CACHE reads at a time. */
#define NBD_CACHE_STEP (UINT32_C(1) << 20)
/* perform.c: a coroutine; ends with a reply. */
void nbd_co_perform(void *request);
/* sparse.c: a read whose reply tells holes; status.c: NBD_CMD_BLOCK_STATUS. They send the reply. */
void nbd_co_read_sparse(struct nbd_request *r);
void nbd_co_block_status(struct nbd_request *r);
/* status.c: flags and length of what begins at `offset` of the export, for NBD_CONTEXT_ALLOCATION and
 * NBD_CONTEXT_DEPTH (either pointer may be NULL). Negative errno. */
int nbd_co_status_at(struct nbd_export *export, uint64_t offset, uint64_t *length,
                     uint32_t *allocation, uint32_t *depth);

/* Bytes that the reply to an NBD_CMD_BLOCK_STATUS takes. */
uint32_t nbd_status_memory(const struct nbd_connection *conn);
/* Extents of one context, as they go out. */
struct nbd_extents {
    uint8_t *at;
    unsigned count, max;
    uint64_t last_length;
    uint32_t last_flags;
};
/* False: no room. A length that 32 bits do not hold is cut into several. */
bool nbd_add_extent(struct nbd_extents *list, uint64_t length, uint32_t flags);

/* dirty.c: what is dirty in the range of the request. */
void nbd_add_dirty(const struct nbd_request *r, const struct block_bitmap *bitmap,
                   struct nbd_extents *list);

/* reply.c */
struct nbd_request *nbd_request_new(struct nbd_connection *conn);
/* Bytes that the buffer has once it has room for `size`: it never gets smaller. */
uint32_t nbd_request_room(const struct nbd_request *r, uint32_t size);
void nbd_request_drop_buffer(struct nbd_request *r);
/* Room for `size` bytes of data. False for want of memory. */
bool nbd_request_reserve(struct nbd_request *r, uint32_t size);
void nbd_request_free(struct nbd_request *r);
/* Frees those that are kept. */
void nbd_requests_forget(struct nbd_connection *conn);
/* A reply without data; error: an NBD error value, 0: none. message: for who reads logs, or NULL. */
void nbd_reply_simple(struct nbd_request *r, uint32_t error, const char *message);
/* The reply of a successful read: r->buffer[0 .. r->length). */
void nbd_reply_data(struct nbd_request *r);
/* Sends r->iov and frees r. */
void nbd_reply_send(struct nbd_request *r);
struct aio_bh *nbd_reply_bh(struct nbd_connection *conn); /* conn->send */
/* Nothing more goes to this client. */
void nbd_reply_break(struct nbd_connection *conn);
void nbd_chunk_head(uint8_t *to, const struct nbd_request *r, unsigned flags, unsigned type,
                    uint32_t length);
/* An I/O error's value on the wire. */
uint32_t nbd_error_of(int error);

#endif
