/* SPDX-License-Identifier: MIT */
/* The server: who listens, who is connected, and the end. */
#include "nbd/server.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "nbd/connection.h"

#define RETRY_NS (100 * NS_PER_MS) /* after the host had no descriptor for a client */
#define GRACE_NS NS_PER_SEC

/* ---- connections ----------------------------------------------------------------------------- */

void nbd_say(const struct nbd_connection *conn, const char *fmt, ...)
{
    const struct nbd_server_config *config = &conn->server->config;
    va_list ap;

    if (!config->say) {
        return;
    }
    va_start(ap, fmt);
    autofree char *text = xvasprintf(fmt, ap);
    va_end(ap);
    autofree char *line = xasprintf("client %d: %s", conn->fd, text);
    config->say(config->opaque, line);
}

static void accept_more(struct nbd_server *server);

/* Main loop: the connection's coroutine has ended. */
static void ended(void *opaque)
{
    struct nbd_connection *conn = opaque;
    struct nbd_server *server = conn->server;
    bool had_export = conn->export;

    struct nbd_connection **p = &server->connections;
    while (*p != conn) {
        p = &(*p)->next;
    }
    *p = conn->next;
    server->connection_count--;
    nbd_say(conn, "disconnected");
    close(conn->fd);
    if (conn->export) {
        nbd_export_unref(conn->export);
    }
    free(conn);
    accept_more(server);
    if (server->config.closed) {
        server->config.closed(server->config.opaque, had_export, server->connection_count);
    }
}

static void handshake_took_too_long(void *opaque)
{
    struct nbd_connection *conn = opaque;

    nbd_say(conn, "no export was chosen within %u seconds", conn->server->config.handshake_seconds);
    shutdown(conn->fd, SHUT_RDWR);
}

static void co_connection(void *opaque)
{
    struct nbd_connection *conn = opaque;

    nbd_channel_init(&conn->channel, conn->fd, conn->loop);
    conn->last_reply = &conn->first_reply;
    conn->send = nbd_reply_bh(conn);
    timer_init(&conn->handshake_timer, conn->loop, AIO_CLOCK_RT, handshake_took_too_long, conn);
    timer_set(&conn->handshake_timer,
              clock_get_ns(AIO_CLOCK_RT) + conn->server->config.handshake_seconds * NS_PER_SEC);
    bool has_export = nbd_co_negotiate(conn);
    timer_cancel(&conn->handshake_timer);
    if (has_export) {
        nbd_co_transmit(conn);
    }

    bh_delete(conn->send);
    nbd_channel_destroy(&conn->channel);
    nbd_contexts_clear(&conn->contexts);
    nbd_requests_forget(conn);
    aio_call(conn->server->main_loop, ended, conn);
}

static struct aio_loop *choose_loop(struct nbd_server *server)
{
    if (!server->config.threads) {
        return server->main_loop;
    }
    return nbd_thread_loop(server->threads[server->next_thread++ % server->config.threads]);
}

void nbd_server_add_client(struct nbd_server *server, int fd)
{
    struct nbd_connection *conn = xnew(struct nbd_connection);
    int on = 1;

    /* Small replies go out at once; a dead host is noticed some day. Other than TCP has neither. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    conn->server = server;
    conn->fd = fd;
    conn->loop = choose_loop(server);
    conn->next = server->connections;
    server->connections = conn;
    server->connection_count++;
    nbd_say(conn, "connected");
    aio_call_co(conn->loop, co_connection, conn);
}

void nbd_connections_leave(struct nbd_server *server, const struct nbd_export *export)
{
    /* A connection that has not come to an export yet, comes to this one no more. */
    pthread_mutex_lock(&server->lock);
    for (struct nbd_connection *conn = server->connections; conn; conn = conn->next) {
        if (conn->export == export) {
            shutdown(conn->fd, SHUT_RDWR);
        }
    }
    pthread_mutex_unlock(&server->lock);
}

/* ---- listening ------------------------------------------------------------------------------- */

static void accept_client(void *opaque);

static void set_accepting(struct nbd_listener *listener, bool on)
{
    if (listener->is_accepting != on) {
        listener->is_accepting = on;
        aio_set_fd(listener->server->main_loop, listener->fd, on ? accept_client : NULL, NULL,
                   listener);
    }
}

static bool has_room(const struct nbd_server *server)
{
    unsigned max = server->config.max_connections;

    return !max || server->connection_count < max;
}

static void accept_more(struct nbd_server *server)
{
    bool on = has_room(server) && !timer_is_set(&server->accept_timer);

    for (struct nbd_listener *listener = server->listeners; listener; listener = listener->next) {
        set_accepting(listener, on);
    }
}

static void accept_again(void *opaque)
{
    accept_more(opaque);
}

static void accept_client(void *opaque)
{
    struct nbd_listener *listener = opaque;
    struct nbd_server *server = listener->server;
    int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0) {
        nbd_server_add_client(server, fd);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        timer_set(&server->accept_timer, clock_get_ns(AIO_CLOCK_RT) + RETRY_NS);
    }
    accept_more(server);
}

void nbd_server_listen(struct nbd_server *server, int fd)
{
    struct nbd_listener *listener = xnew(struct nbd_listener);

    *listener = (struct nbd_listener){.server = server, .fd = fd, .next = server->listeners};
    server->listeners = listener;
    accept_more(server);
}

/* ---- making and ending ----------------------------------------------------------------------- */

static void stop_threads(struct nbd_server *server)
{
    for (unsigned i = 0; i < server->config.threads && server->threads[i]; i++) {
        nbd_thread_stop(server->threads[i]);
    }
    free(server->threads);
}

static void free_server(struct nbd_server *server)
{
    stop_threads(server);
    pthread_mutex_destroy(&server->lock);
    free(server);
}

struct nbd_server *nbd_server_new(const struct nbd_server_config *config, struct error **errp)
{
    struct nbd_server *server = xnew(struct nbd_server);

    assert(config->threads <= NBD_SERVER_THREADS_MAX);
    server->config = *config;
    if (!server->config.handshake_seconds) {
        server->config.handshake_seconds = NBD_HANDSHAKE_SECONDS;
    }
    server->main_loop = aio_loop_current();
    pthread_mutex_init(&server->lock, NULL);
    timer_init(&server->accept_timer, server->main_loop, AIO_CLOCK_RT, accept_again, server);
    server->threads = xcalloc(config->threads + 1, sizeof(struct nbd_thread *));
    for (unsigned i = 0; i < config->threads; i++) {
        server->threads[i] = nbd_thread_start(i, errp);
        if (!server->threads[i]) {
            free_server(server);
            return NULL;
        }
    }
    return server;
}

static void stop_listening(struct nbd_server *server)
{
    timer_cancel(&server->accept_timer);
    while (server->listeners) {
        struct nbd_listener *listener = server->listeners;
        server->listeners = listener->next;
        set_accepting(listener, false);
        close(listener->fd);
        free(listener);
    }
}

static void shut_all(struct nbd_server *server, int how)
{
    for (struct nbd_connection *conn = server->connections; conn; conn = conn->next) {
        shutdown(conn->fd, how);
    }
}

static void grace_is_over(void *opaque)
{
    shut_all(opaque, SHUT_RDWR);
}

/* Limits of throttle nodes do not hold up the end. */
static void hurry_exports(struct nbd_server *server, bool begin)
{
    struct nbd_export *export = nbd_export_next(server, NULL);

    while (export) {
        if (begin) {
            export->hurry = backend_hurry_begin(export->be);
        } else if (export->hurry) {
            backend_hurry_end(export->hurry);
            export->hurry = NULL;
        }
        export = nbd_export_next(server, export);
    }
}

void nbd_server_stop(struct nbd_server *server)
{
    struct aio_timer timer;

    stop_listening(server);
    atomic_store(&server->is_stopping, true);
    shut_all(server, SHUT_RD); /* whoever waits for a request meets an end */
    timer_init(&timer, server->main_loop, AIO_CLOCK_RT, grace_is_over, server);
    timer_set(&timer, clock_get_ns(AIO_CLOCK_RT) + GRACE_NS);
    hurry_exports(server, true);
    while (server->connection_count) {
        aio_loop_poll(server->main_loop, true);
    }
    hurry_exports(server, false);
    timer_cancel(&timer);
}

void nbd_server_free(struct nbd_server *server)
{
    nbd_server_stop(server);
    /* What threads have posted before, has come: it was posted before the connections' end. */
    while (server->exports) {
        struct nbd_export *export = server->exports;
        server->exports = export->next;
        nbd_export_unref(export);
    }
    free_server(server);
}
