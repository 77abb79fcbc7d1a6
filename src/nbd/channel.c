/* SPDX-License-Identifier: MIT */
#include "nbd/channel.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/alloc.h"
#include "base/range.h"

/* What goes past the buffer: reads of at least this much are received where they are wanted. */
#define DIRECT_MIN 16384

void nbd_channel_init(struct nbd_channel *ch, int fd, struct aio_loop *loop)
{
    *ch = (struct nbd_channel){.fd = fd, .loop = loop};
    ch->in = xmalloc(NBD_CHANNEL_BUFFER);
}

/* ---- waiting --------------------------------------------------------------------------------- */

static void readable(void *opaque);
static void writable(void *opaque);

static void set_polls(struct nbd_channel *ch, bool read, bool write)
{
    if (ch->polls_read == read && ch->polls_write == write) {
        return;
    }
    ch->polls_read = read;
    ch->polls_write = write;
    aio_set_fd(ch->loop, ch->fd, read ? readable : NULL, write ? writable : NULL, ch);
}

/* The loop goes on to wait after a reader was called, for it mostly reads again. */
static void readable(void *opaque)
{
    struct nbd_channel *ch = opaque;
    struct coroutine *co = ch->reader;

    if (!co) {
        set_polls(ch, false, ch->polls_write);
        return;
    }
    ch->reader = NULL;
    coroutine_enter(co);
}

static void writable(void *opaque)
{
    struct nbd_channel *ch = opaque;
    aio_fn *fn = ch->on_writable;

    set_polls(ch, ch->polls_read, false);
    ch->on_writable = NULL;
    if (fn) {
        fn(ch->on_writable_opaque);
    }
}

void nbd_channel_when_writable(struct nbd_channel *ch, aio_fn *fn, void *opaque)
{
    assert(!ch->on_writable);
    ch->on_writable = fn;
    ch->on_writable_opaque = opaque;
    set_polls(ch, ch->polls_read, true);
}

static void co_wait_readable(struct nbd_channel *ch)
{
    assert(!ch->reader);
    ch->reader = coroutine_self();
    set_polls(ch, true, ch->polls_write);
    coroutine_yield();
}

static void enter(void *opaque)
{
    coroutine_enter(opaque);
}

static void co_wait_writable(struct nbd_channel *ch)
{
    nbd_channel_when_writable(ch, enter, coroutine_self());
    coroutine_yield();
}

void nbd_channel_destroy(struct nbd_channel *ch)
{
    assert(!ch->reader);
    ch->on_writable = NULL;
    set_polls(ch, false, false);
    if (ch->tls) {
        nbd_tls_bye(ch->tls);
        nbd_tls_free(ch->tls);
    }
    free(ch->in);
}

/* ---- reading --------------------------------------------------------------------------------- */

static ssize_t receive(struct nbd_channel *ch, void *to, size_t size)
{
    ssize_t n;

    if (ch->tls) {
        return nbd_tls_recv(ch->tls, to, size);
    }
    do {
        n = recv(ch->fd, to, size, 0);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* At least one byte. `eager`: it is probably there already. */
static ssize_t co_receive(struct nbd_channel *ch, void *to, size_t size, bool eager)
{
    bool waits = !eager && !(ch->tls && nbd_tls_has_pending(ch->tls));

    for (;;) {
        if (waits) {
            co_wait_readable(ch);
        }
        ssize_t n = receive(ch, to, size);
        if (n > 0) {
            return n;
        }
        if (n == 0) {
            return -ECONNRESET;
        }
        if (n != -EAGAIN) {
            return n;
        }
        waits = true;
    }
}

static size_t take_buffered(struct nbd_channel *ch, void *to, size_t size)
{
    size_t n = MIN(size, ch->in_end - ch->in_start);

    if (to) {
        memcpy(to, ch->in + ch->in_start, n);
    }
    ch->in_start += n;
    return n;
}

int nbd_channel_co_read(struct nbd_channel *ch, void *to, size_t size)
{
    size_t done = take_buffered(ch, to, size);
    bool eager = done > 0;

    while (done < size) {
        uint8_t *at = (uint8_t *)to + done;
        ssize_t n;

        if (size - done >= DIRECT_MIN) {
            n = co_receive(ch, at, size - done, eager);
        } else {
            n = co_receive(ch, ch->in, NBD_CHANNEL_BUFFER, eager);
            if (n > 0) {
                ch->in_start = 0;
                ch->in_end = (size_t)n;
                n = (ssize_t)take_buffered(ch, at, size - done);
            }
        }
        if (n < 0) {
            return (int)n;
        }
        done += (size_t)n;
        eager = true;
    }
    return 0;
}

int nbd_channel_co_skip(struct nbd_channel *ch, uint64_t size)
{
    while (size > 0) {
        size -= take_buffered(ch, NULL, (size_t)MIN(size, NBD_CHANNEL_BUFFER));
        if (size > 0) {
            ssize_t n = co_receive(ch, ch->in, NBD_CHANNEL_BUFFER, false);
            if (n < 0) {
                return (int)n;
            }
            ch->in_start = 0;
            ch->in_end = (size_t)n;
        }
    }
    return 0;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* A record at a time; how much of the list was taken. */
static ssize_t send_tls(struct nbd_channel *ch, const struct iovec *iov, int niov)
{
    ssize_t done = 0;

    for (int i = 0; i < niov; i++) {
        size_t offset = 0;
        while (offset < iov[i].iov_len) {
            ssize_t n = nbd_tls_send(ch->tls, (const uint8_t *)iov[i].iov_base + offset,
                                     iov[i].iov_len - offset);
            if (n < 0) {
                return done ? done : n;
            }
            offset += (size_t)n;
            done += n;
        }
    }
    return done;
}

ssize_t nbd_channel_send(struct nbd_channel *ch, const struct iovec *iov, int niov)
{
    ssize_t n;

    if (ch->tls) {
        return send_tls(ch, iov, niov);
    }
    struct msghdr message = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)niov};
    do {
        n = sendmsg(ch->fd, &message, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

int nbd_channel_co_write(struct nbd_channel *ch, const void *from, size_t size)
{
    while (size > 0) {
        struct iovec iov = {.iov_base = (void *)from, .iov_len = size};
        ssize_t n = nbd_channel_send(ch, &iov, 1);
        if (n == -EAGAIN) {
            co_wait_writable(ch);
            continue;
        }
        if (n < 0) {
            return (int)n;
        }
        from = (const uint8_t *)from + n;
        size -= (size_t)n;
    }
    return 0;
}

/* ---- TLS ------------------------------------------------------------------------------------- */

int nbd_channel_co_start_tls(struct nbd_channel *ch, const struct nbd_tls_creds *creds)
{
    int ret;

    if (ch->in_start != ch->in_end) {
        return -EPROTO;
    }
    struct nbd_tls *tls = nbd_tls_new(creds, ch->fd);
    if (!tls) {
        return -ENOMEM;
    }
    while ((ret = nbd_tls_handshake(tls)) == -EAGAIN) {
        if (nbd_tls_wants_write(tls)) {
            co_wait_writable(ch);
        } else {
            co_wait_readable(ch);
        }
    }
    if (ret < 0) {
        nbd_tls_free(tls);
        return ret;
    }
    ch->tls = tls;
    return 0;
}
