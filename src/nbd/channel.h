/* SPDX-License-Identifier: MIT */
/*
 * A connection's socket as coroutines see it: reads and writes that wait, through TLS once that has
 * been started.
 *
 * One coroutine at a time reads; what is small comes through a buffer, so that one recv(2) brings
 * many requests. A reader waits until the socket is readable before it calls recv(): then every
 * connection of the loop gets its turn between two buffers.
 *
 * All of it belongs to one loop.
 */
#ifndef FERRY_NBD_CHANNEL_H
#define FERRY_NBD_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "aio/coroutine.h"
#include "nbd/tls.h"

#define NBD_CHANNEL_BUFFER 65536 /* bytes */

struct nbd_channel {
    int fd; /* non-blocking; closed by the owner */
    struct aio_loop *loop;
    struct nbd_tls *tls; /* or NULL */
    /* who waits */
    struct coroutine *reader;
    aio_fn *on_writable; /* called once */
    void *on_writable_opaque;
    bool polls_read, polls_write; /* what the loop waits for */
    /* received and not yet taken: in[in_start .. in_end) */
    uint8_t *in;
    size_t in_start, in_end;
};

void nbd_channel_init(struct nbd_channel *ch, int fd, struct aio_loop *loop);
/* Nobody waits any more. Its loop. */
void nbd_channel_destroy(struct nbd_channel *ch);

/* Exactly `size` bytes. 0, or a negative errno: -ECONNRESET if the peer has gone. */
int nbd_channel_co_read(struct nbd_channel *ch, void *to, size_t size);
/* Reads and forgets. */
int nbd_channel_co_skip(struct nbd_channel *ch, uint64_t size);
/* All of it, before anybody else writes. 0 or negative errno. */
int nbd_channel_co_write(struct nbd_channel *ch, const void *from, size_t size);
/* Does not wait: bytes taken (perhaps fewer), or -EAGAIN: nbd_channel_when_writable(). The same data
 * then come again. */
ssize_t nbd_channel_send(struct nbd_channel *ch, const struct iovec *iov, int niov);
/* Calls fn(opaque) once, when more can be sent. */
void nbd_channel_when_writable(struct nbd_channel *ch, aio_fn *fn, void *opaque);
/* True if a read of `size` bytes would not wait. */
static inline bool nbd_channel_has(const struct nbd_channel *ch, size_t size)
{
    return ch->in_end - ch->in_start >= size;
}

/* From now on through TLS. What the peer sent before the handshake, in the clear, would count as sent
 * through it: an error. */
int nbd_channel_co_start_tls(struct nbd_channel *ch, const struct nbd_tls_creds *creds);

#endif
