/* SPDX-License-Identifier: MIT */
/* The inside of an NBD connection, for nbd_conn.c and nbd_connect.c. */
#ifndef FERRY_BLOCK_NBD_IMPL_H
#define FERRY_BLOCK_NBD_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "block/nbd_conn.h"

/*
 * Which loop watches the connection:
 *
 *   NONE --choose_owner()--> IS --send_away()--> CHANGES --move_out(), then move_in()--> IS
 *   IS, CHANGES --dead, or closed--> NONE
 *
 * 1. As long as requests are pending there is an owner, or a call is on its way that makes one
 *    (CHANGES); who moves in reads what has come meanwhile. NONE is for a connection that nobody has
 *    used yet, and for a dead one, whose requests libnbd has ended.
 * 2. A loop becomes the owner by a request of its own or by waiting in a drain. So one that has no
 *    requests any more is left alone after the next drain, and may end.
 */
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
    struct aio_loop *drainer; /* waits for the connection, which goes nowhere else; or NULL */
    unsigned foreign;         /* requests of other loops in a row */
    /* the owner's thread */
    bool is_watched, watches_write;
};

#endif
