/* SPDX-License-Identifier: MIT */
/* What a server exports, and what a client chose to know about it. */
#ifndef FERRY_NBD_EXPORT_H
#define FERRY_NBD_EXPORT_H

#include <stdatomic.h>

#include "nbd/server.h"

struct block_bitmap;
struct nbd_connection;

/* Ids of metadata contexts; those of bitmaps follow. */
#define NBD_CONTEXT_ALLOCATION 0u
#define NBD_CONTEXT_DEPTH      1u
#define NBD_CONTEXT_BITMAP     2u

struct nbd_export {
    /* constant */
    struct nbd_server *server;
    char *name, *description; /* description: "" if there is none */
    struct block_backend *be;
    uint64_t offset, size; /* bytes */
    bool writable, multi_conn;
    uint32_t alignment; /* of requests that the image takes best, bytes */
    bool allocation_depth;
    struct block_bitmap **bitmaps;
    size_t bitmap_count;
    aio_fn *released;
    void *opaque;
    /* atomic: what was data when somebody looked. Who finds it out of date, or sees one of them new and
     * the other old, misses a hole, and that is all. */
    _Atomic(uint64_t) data_begin, data_end;
    struct co_mutex look_lock; /* one looks, the others wait for what it finds */
    /* main loop */
    struct block_hurry *hurry; /* while the server stops */
    /* under server->lock */
    unsigned refs; /* the list's, and one of each connection that uses it */
    bool is_removed;
    struct nbd_export *next;
};

/* dirty.c: finds the bitmaps that config names. */
bool nbd_export_take_bitmaps(struct nbd_export *export, const struct nbd_export_config *config,
                             struct error **errp);
/* NULL if there is none; else with a reference. Any loop. */
struct nbd_export *nbd_export_find(struct nbd_server *server, const char *name, size_t length);
/* The one behind it (NULL: the first), with a reference; takes that of `export`. Any loop. */
struct nbd_export *nbd_export_next(struct nbd_server *server, struct nbd_export *export);
/* Any loop. After the last one, released() is called in the main loop. */
void nbd_export_unref(struct nbd_export *export);
/* conn->export becomes it, unless it has been removed from the server. */
bool nbd_export_attach(struct nbd_export *export, struct nbd_connection *conn);
/* Transmission flags without NBD_FLAG_SEND_DF. */
unsigned nbd_export_flags(const struct nbd_export *export);

/* Chosen metadata contexts: bit n of the set is the context with id n. */
struct nbd_contexts {
    bool is_chosen[2]; /* the two above */
    uint8_t *bitmaps;  /* one byte for each of the export's; or NULL */
    unsigned count;    /* chosen ones */
    char *export_name; /* they hold for this export only; or NULL */
    size_t export_length;
};
void nbd_contexts_clear(struct nbd_contexts *contexts);

#endif
