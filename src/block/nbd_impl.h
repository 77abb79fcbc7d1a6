/* SPDX-License-Identifier: MIT */
/* The inside of an NBD connection, for nbd_conn.c and nbd_connect.c. */
#ifndef FERRY_BLOCK_NBD_IMPL_H
#define FERRY_BLOCK_NBD_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "block/nbd_conn.h"

/* CHANGES: a call is under way that takes it from a loop and, perhaps, gives it to the next. */
enum owner_state { OWNER_NONE, OWNER_IS, OWNER_CHANGES };

struct nbd_impl {
    /* constant */
    struct nbd_handle *handle; /* has a lock of its own */
    int fd;                    /* ours, of the same socket: libnbd closes its own when it likes */
    /* atomic */
    _Atomic(unsigned) refs;
    _Atomic(bool) dead;
    /* under lock */
    pthread_mutex_t lock;
    enum owner_state owner_state;
    struct aio_loop *owner, *next_owner;
    unsigned foreign;               /* requests of other loops in a row */
    struct aio_loop *release_waits; /* woken when the owner changes, or NULL */
    /* the owner's thread */
    bool is_watched, watches_write;
};

#endif
