/* SPDX-License-Identifier: MIT */
/* A connection to an NBD server. See nbd_conn.h. */
#include "block/nbd_conn.h"

#include <assert.h>
#include <errno.h>
#include <libnbd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "aio/coroutine.h"
#include "base/alloc.h"
#include "block/nbd_impl.h"

#define OWNER_PATIENCE 8

/* ---- life ------------------------------------------------------------------------------------- */

void nbd_conn_ref(struct nbd_conn *conn)
{
    atomic_fetch_add(&conn->impl->refs, 1);
}

void nbd_conn_unref(struct nbd_conn *conn)
{
    struct nbd_impl *impl = conn->impl;

    if (atomic_fetch_sub(&impl->refs, 1) == 1) {
        nbd_close(impl->handle);
        if (impl->fd >= 0) {
            close(impl->fd);
        }
        pthread_mutex_destroy(&impl->lock);
        free(impl);
        free(conn);
    }
}

bool nbd_conn_is_dead(struct nbd_conn *conn)
{
    struct nbd_impl *impl = conn->impl;

    if (!atomic_load_explicit(&impl->dead, memory_order_acquire) &&
        (nbd_aio_is_dead(impl->handle) == 1 || nbd_aio_is_closed(impl->handle) == 1)) {
        atomic_store_explicit(&impl->dead, true, memory_order_release);
    }
    return atomic_load_explicit(&impl->dead, memory_order_acquire);
}

void nbd_conn_break(struct nbd_conn *conn)
{
    shutdown(conn->impl->fd, SHUT_RDWR);
}

/* ---- the loop that watches -------------------------------------------------------------------- */

static void on_readable(void *opaque);
static void on_writable(void *opaque);

/* In the owner's thread. */
static void watch(struct nbd_conn *conn)
{
    struct nbd_impl *impl = conn->impl;
    bool wants_write = nbd_aio_get_direction(impl->handle) & LIBNBD_AIO_DIRECTION_WRITE;

    if (!impl->is_watched || wants_write != impl->watches_write) {
        aio_set_fd(impl->owner, impl->fd, on_readable, wants_write ? on_writable : NULL, conn);
        impl->is_watched = true;
        impl->watches_write = wants_write;
    }
}

/* In the owner's thread. What the owner's reference was is the caller's then. */
static void unwatch(struct nbd_conn *conn)
{
    struct nbd_impl *impl = conn->impl;

    aio_set_fd(impl->owner, impl->fd, NULL, NULL, NULL);
    impl->is_watched = impl->watches_write = false;
}

/* After libnbd did something in the owner's thread. */
static void go_on(struct nbd_conn *conn)
{
    if (!nbd_conn_is_dead(conn)) {
        watch(conn);
        return;
    }
    pthread_mutex_lock(&conn->impl->lock);
    bool owned = conn->impl->owner_state == OWNER_IS;
    if (owned) {
        unwatch(conn);
        conn->impl->owner_state = OWNER_NONE;
        conn->impl->owner = NULL;
    }
    pthread_mutex_unlock(&conn->impl->lock);
    if (owned) {
        nbd_conn_unref(conn);
    }
}

static void on_readable(void *opaque)
{
    struct nbd_conn *conn = opaque;

    if (nbd_aio_get_direction(conn->impl->handle) & LIBNBD_AIO_DIRECTION_READ) {
        nbd_aio_notify_read(conn->impl->handle);
    }
    go_on(conn);
}

static void on_writable(void *opaque)
{
    struct nbd_conn *conn = opaque;

    if (nbd_aio_get_direction(conn->impl->handle) & LIBNBD_AIO_DIRECTION_WRITE) {
        nbd_aio_notify_write(conn->impl->handle);
    }
    go_on(conn);
}

/* The new owner, in its thread; it has the reference already. If a drain began on the way, it only
 * hands it on. */
static void move_in(void *opaque)
{
    struct nbd_conn *conn = opaque;
    struct nbd_impl *impl = conn->impl;
    struct aio_loop *here = aio_loop_current();

    pthread_mutex_lock(&impl->lock);
    struct aio_loop *drainer = impl->drainer;
    bool stays = !drainer || drainer == here;
    if (stays) {
        impl->owner = here;
        impl->owner_state = OWNER_IS;
        impl->foreign = 0;
    }
    pthread_mutex_unlock(&impl->lock);
    if (!stays) {
        aio_call(drainer, move_in, conn);
        return;
    }
    watch(conn);
    go_on(conn);
}

/* The old owner, in its thread: the reference goes to the next, or is dropped. */
static void move_out(void *opaque)
{
    struct nbd_conn *conn = opaque;
    struct nbd_impl *impl = conn->impl;

    pthread_mutex_lock(&impl->lock);
    assert(impl->owner_state == OWNER_CHANGES && impl->is_watched);
    unwatch(conn);
    struct aio_loop *next = impl->drainer ? impl->drainer : impl->next_owner;
    impl->owner = impl->next_owner = NULL;
    impl->owner_state = next ? OWNER_CHANGES : OWNER_NONE;
    pthread_mutex_unlock(&impl->lock);
    if (next) {
        aio_call(next, move_in, conn);
    } else {
        nbd_conn_unref(conn);
    }
    nbd_conn_unref(conn); /* of the call */
}

static void refresh_watch(void *opaque)
{
    struct nbd_conn *conn = opaque;
    struct nbd_impl *impl = conn->impl;

    pthread_mutex_lock(&impl->lock);
    bool mine = impl->owner_state == OWNER_IS && impl->owner == aio_loop_current();
    pthread_mutex_unlock(&impl->lock);
    if (mine) {
        go_on(conn);
    }
    nbd_conn_unref(conn);
}

static void call_owner(struct nbd_conn *conn, aio_fn *fn)
{
    nbd_conn_ref(conn);
    aio_call(conn->impl->owner, fn, conn);
}

/* With lock held, in state IS: the owner gives the connection to `next`, or to nobody. */
static void send_away(struct nbd_conn *conn, struct aio_loop *next)
{
    conn->impl->owner_state = OWNER_CHANGES;
    conn->impl->next_owner = next;
    call_owner(conn, move_out);
}

/* Before a request from this loop: makes sure that somebody watches. */
static void choose_owner(struct nbd_conn *conn)
{
    struct nbd_impl *impl = conn->impl;
    struct aio_loop *here = aio_loop_current();
    bool becomes = false;

    pthread_mutex_lock(&impl->lock);
    if (impl->owner_state == OWNER_NONE) {
        impl->owner = here;
        impl->owner_state = OWNER_IS;
        nbd_conn_ref(conn);
        becomes = true;
    } else if (impl->owner == here) {
        impl->foreign = 0;
    } else if (impl->owner_state == OWNER_IS && !impl->drainer &&
               ++impl->foreign >= OWNER_PATIENCE) {
        send_away(conn, here);
    }
    pthread_mutex_unlock(&impl->lock);
    if (becomes) {
        watch(conn);
    }
}

/* After a request from this loop: somebody has to write the rest, or see that it is dead. */
static void tell_owner(struct nbd_conn *conn)
{
    struct nbd_impl *impl = conn->impl;

    if (nbd_aio_get_direction(impl->handle) == LIBNBD_AIO_DIRECTION_READ) {
        return;
    }
    pthread_mutex_lock(&impl->lock);
    bool mine = impl->owner_state == OWNER_IS && impl->owner == aio_loop_current();
    if (impl->owner_state == OWNER_IS && !mine) {
        call_owner(conn, refresh_watch);
    } /* who moves in looks by itself */
    pthread_mutex_unlock(&impl->lock);
    if (mine) {
        go_on(conn);
    }
}

void nbd_conn_release_loop(struct nbd_conn *conn)
{
    struct nbd_impl *impl = conn->impl;
    struct aio_loop *here = aio_loop_current();

    pthread_mutex_lock(&impl->lock);
    struct aio_loop *outer = impl->drainer;
    assert(!outer || outer == here);
    impl->drainer = here;
    while (impl->owner_state != OWNER_NONE &&
           !(impl->owner_state == OWNER_IS && impl->owner == here)) {
        if (impl->owner_state == OWNER_IS) {
            send_away(conn, here);
        }
        pthread_mutex_unlock(&impl->lock);
        aio_loop_poll(here, true); /* move_in() will run here, whoever else wanted it */
        pthread_mutex_lock(&impl->lock);
    }
    impl->drainer = outer;
    pthread_mutex_unlock(&impl->lock);
}

void nbd_conn_close(struct nbd_conn *conn)
{
    struct nbd_impl *impl = conn->impl;

    nbd_aio_disconnect(impl->handle, 0);
    shutdown(impl->fd, SHUT_WR);
    pthread_mutex_lock(&impl->lock);
    bool mine = impl->owner_state == OWNER_IS && impl->owner == aio_loop_current();
    if (mine) {
        unwatch(conn);
        impl->owner_state = OWNER_NONE;
        impl->owner = NULL;
    } else if (impl->owner_state == OWNER_IS) {
        send_away(conn, NULL);
    } else {
        impl->next_owner = NULL; /* of a change that has not begun */
    }
    pthread_mutex_unlock(&impl->lock);
    if (mine) {
        nbd_conn_unref(conn);
    }
    nbd_conn_unref(conn);
}

/* ---- requests --------------------------------------------------------------------------------- */

/* On the stack of the coroutine. */
struct pending {
    struct nbd_request *request;
    struct coroutine *co;
    int error; /* positive errno; constant after the wake */
    bool has_status;
    uint64_t got; /* bytes of a read */
};

/* libnbd's handle is locked. After the wake, `pending` may be gone. Returning 1 retires the
 * command. */
static int on_done(void *opaque, int *error)
{
    struct pending *pending = opaque;

    pending->error = *error;
    if (pending->request->command == NBD_READ && !*error &&
        pending->got != pending->request->length) {
        pending->error = EIO; /* the server calls done what it has sent in part */
    }
    co_wake(pending->co);
    return 1;
}

static int on_chunk(void *opaque, const void *data, size_t size, uint64_t offset, unsigned kind,
                    int *error)
{
    struct pending *pending = opaque;

    pending->got += kind == LIBNBD_READ_ERROR ? 0 : size;
    return 0;
}

static int on_extents(void *opaque, const char *context, uint64_t offset, uint32_t *entries,
                      size_t count, int *error)
{
    struct pending *pending = opaque;

    /* The first one; the server may have more, or something else than was asked for. */
    if (!pending->has_status && offset == pending->request->offset && count >= 2 && entries[0] &&
        !strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION)) {
        pending->request->status_length = entries[0];
        pending->request->status_flags = entries[1];
        pending->has_status = true;
    }
    return 0;
}

static int64_t submit(struct nbd_handle *h, struct pending *pending)
{
    const struct nbd_request *r = pending->request;
    nbd_completion_callback done = {.callback = on_done, .user_data = pending};
    nbd_chunk_callback chunk = {.callback = on_chunk, .user_data = pending};
    nbd_extent_callback extents = {.callback = on_extents, .user_data = pending};

    switch (r->command) {
    case NBD_READ:
        return nbd_aio_pread_structured(h, r->buffer, r->length, r->offset, chunk, done, r->flags);
    case NBD_WRITE:
        return nbd_aio_pwrite(h, r->buffer, r->length, r->offset, done, r->flags);
    case NBD_FLUSH:
        return nbd_aio_flush(h, done, r->flags);
    case NBD_TRIM:
        return nbd_aio_trim(h, r->length, r->offset, done, r->flags);
    case NBD_ZERO:
        return nbd_aio_zero(h, r->length, r->offset, done, r->flags);
    default:
        return nbd_aio_block_status(h, r->length, r->offset, extents, done, r->flags);
    }
}

int co_nbd_conn_request(struct nbd_conn *conn, struct nbd_request *request)
{
    struct pending pending = {.request = request, .co = coroutine_self()};

    if (nbd_conn_is_dead(conn)) {
        return -ENOTCONN;
    }
    choose_owner(conn);
    if (submit(conn->impl->handle, &pending) < 0) {
        int error = nbd_get_errno();
        tell_owner(conn);
        return nbd_conn_is_dead(conn) ? -ENOTCONN : error ? -error : -EIO;
    }
    tell_owner(conn);
    coroutine_yield();
    if (pending.error && nbd_conn_is_dead(conn)) {
        return -ENOTCONN;
    }
    if (request->command == NBD_STATUS && !pending.error && !pending.has_status) {
        return -EIO;
    }
    return -pending.error;
}
