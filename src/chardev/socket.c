/* SPDX-License-Identifier: MIT */
/*
 * A stream socket, unix or TCP.
 *
 *   server:  listening --accept--> connected --end of input--> listening
 *            While a client is there others wait in the queue of listen(); one client at a time.
 *   client:  connecting --connect--> connected --end of input--> waiting --reconnect s--> connecting
 *            Without reconnect= the first connection must succeed and is the only one.
 *
 * When a client leaves before the front end has taken all its input, the rest is still delivered,
 * and then the front end hears of the closing; but a next client cuts that short.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/range.h"
#include "chardev/internal.h"
#include "chardev/socket_address.h"

struct socket {
    /* constant */
    struct socket_target target;
    bool has_target; /* false: fd= */
    bool is_server, waits;
    bool delay;           /* Nagle's algorithm */
    uint64_t reconnect_s; /* 0: never */
    bool owns_path;       /* the unix socket is ours to remove */
    /* loop */
    int listen_fd;                                         /* -1: none */
    int fd;                                                /* connected or connecting; -1: none */
    struct socket_address addresses[SOCKET_ADDRESSES_MAX]; /* to connect to */
    int address_count, next_address;
    struct aio_timer timer; /* the next attempt to connect or accept */
};

static const struct chardev_option options[] = {
    {"delay", "bool (on/off)"},
    {"fd", "str"},
    {"host", "str"},
    {"ipv4", "bool (on/off)"},
    {"ipv6", "bool (on/off)"},
    {"path", "str"},
    {"port", "str"},
    {"reconnect", "num"},
    {"server", "bool (on/off)"},
    {"wait", "bool (on/off)"},
    {NULL},
};

/* ---- options -------------------------------------------------------------------------------- */

/* A socket that whoever started us has opened (libvirt does). */
static bool adopt_fd(struct socket *s, struct options *opts, struct error **errp)
{
    uint64_t number = 0;
    int listens = 0, type = 0;
    socklen_t size = sizeof(int);
    if (!options_get_uint(opts, "fd", 0, INT32_MAX, &number, errp))
        return false;
    int fd = (int)number;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM) {
        error_set(errp, "fd=%d is not an open stream socket", fd);
        return false;
    }
    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size);
    if (s->is_server != (listens != 0)) {
        error_set(errp, "fd=%d is a %s socket; use server=%s", fd,
                  listens ? "listening" : "connected", listens ? "on" : "off");
        return false;
    }
    if (s->is_server)
        s->listen_fd = fd;
    else
        s->fd = fd;
    return true;
}

static bool socket_parse(struct chardev *chr, struct options *opts, struct error **errp)
{
    struct socket *s = xnew(struct socket);
    chr->state = s;
    s->fd = s->listen_fd = -1;
    s->delay = true;

    bool no_delay = false;
    if (!options_get_bool(opts, "server", &s->is_server, errp) ||
        !options_get_bool(opts, "delay", &s->delay, errp) ||
        !options_get_bool(opts, "nodelay", &no_delay, errp) ||
        !options_get_uint(opts, "reconnect", 0, 86400, &s->reconnect_s, errp))
        return false;
    if (no_delay)
        s->delay = false;
    if (!s->is_server && options_has(opts, "wait")) {
        error_set(errp, "'wait' option is incompatible with socket in client connect mode");
        return false;
    }
    if (s->is_server && s->reconnect_s) {
        error_set(errp, "'reconnect' option is incompatible with 'server=on'");
        return false;
    }
    s->waits = s->is_server;
    if (!options_get_bool(opts, "wait", &s->waits, errp))
        return false;
    s->has_target = !options_has(opts, "fd");
    if (s->reconnect_s && !s->has_target) {
        error_set(errp, "'reconnect' option is incompatible with 'fd'");
        return false;
    }
    return s->has_target ? socket_target_parse(&s->target, opts, errp) : adopt_fd(s, opts, errp);
}

/* ---- connected ------------------------------------------------------------------------------ */

static void connected(struct chardev *chr)
{
    struct socket *s = chr->state;
    int on = 1;
    if (!s->delay) /* fails on unix sockets, which do not delay */
        setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    chardev_connect(chr, s->fd, s->fd);
}

static void accept_client(void *opaque);

static void listen_again(struct chardev *chr)
{
    struct socket *s = chr->state;
    if (s->listen_fd >= 0)
        aio_set_fd(chr->loop, s->listen_fd, accept_client, NULL, chr);
}

static void accept_client(void *opaque)
{
    struct chardev *chr = opaque;
    struct socket *s = chr->state;
    int fd = accept4(s->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
            return; /* it has gone again */
        /* No fds or no memory for it: it stays in the queue, and we do not spin. */
        aio_set_fd(chr->loop, s->listen_fd, NULL, NULL, NULL);
        timer_set(&s->timer, clock_get_ns(AIO_CLOCK_RT) + NS_PER_SEC);
        return;
    }

    chardev_enter(chr);
    if (s->fd >= 0) {
        /* The last client left input that nobody takes. */
        chardev_disconnect(chr);
    }
    if (chr->is_deleted) {
        close(fd); /* by a callback */
    } else {
        if (s->fd >= 0)
            close(s->fd);
        s->fd = fd;
        aio_set_fd(chr->loop, s->listen_fd, NULL, NULL, NULL);
        connected(chr);
    }
    chardev_leave(chr);
}

static void socket_input_ending(struct chardev *chr)
{
    listen_again(chr);
}

/* ---- client --------------------------------------------------------------------------------- */

static void try_later(struct chardev *chr)
{
    struct socket *s = chr->state;
    if (s->reconnect_s)
        timer_set(&s->timer, clock_get_ns(AIO_CLOCK_RT) + (int64_t)s->reconnect_s * NS_PER_SEC);
}

static void try_next_address(struct chardev *chr);

static void connect_done(void *opaque)
{
    struct chardev *chr = opaque;
    struct socket *s = chr->state;
    int err = 0;
    socklen_t size = sizeof(err);
    getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &err, &size);
    aio_set_fd(chr->loop, s->fd, NULL, NULL, NULL);
    if (!err) {
        connected(chr);
        return;
    }
    close(s->fd);
    s->fd = -1;
    try_next_address(chr);
}

static void try_next_address(struct chardev *chr)
{
    struct socket *s = chr->state;
    while (s->next_address < s->address_count) {
        const struct socket_address *a = &s->addresses[s->next_address++];
        s->fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (s->fd < 0)
            continue;
        if (connect(s->fd, (const struct sockaddr *)&a->sa, a->length) == 0) {
            connected(chr);
            return;
        }
        if (errno == EINPROGRESS) {
            aio_set_fd(chr->loop, s->fd, NULL, connect_done, chr);
            return;
        }
        close(s->fd);
        s->fd = -1;
    }
    try_later(chr);
}

static void try_connect(struct chardev *chr)
{
    struct socket *s = chr->state;
    if (s->address_count == 0)
        s->address_count = socket_resolve(&s->target, false, s->addresses, NULL);
    s->next_address = 0;
    try_next_address(chr);
}

static void try_again(void *opaque)
{
    struct chardev *chr = opaque;
    struct socket *s = chr->state;
    if (s->is_server)
        listen_again(chr);
    else
        try_connect(chr);
}

/* The one connection of a client without reconnect=. */
static bool connect_now(struct chardev *chr, struct error **errp)
{
    struct socket *s = chr->state;
    int err = 0;
    s->address_count = socket_resolve(&s->target, false, s->addresses, errp);
    if (s->address_count == 0)
        return false;
    for (int i = 0; i < s->address_count; i++) {
        const struct socket_address *a = &s->addresses[i];
        int fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, (const struct sockaddr *)&a->sa, a->length) == 0) {
            s->fd = fd;
            return true;
        }
        err = errno;
        if (fd >= 0)
            close(fd);
    }
    autofree char *text = socket_target_text(&s->target);
    error_set_errno(errp, err, "cannot connect to %s", text);
    return false;
}

static void socket_input_ended(struct chardev *chr)
{
    struct socket *s = chr->state;
    chardev_disconnect(chr);
    /* A callback may have deleted us. */
    if (chr->is_deleted || s->fd < 0)
        return;
    close(s->fd);
    s->fd = -1;
    if (s->is_server)
        listen_again(chr);
    else
        try_later(chr);
}

/* ---- life ----------------------------------------------------------------------------------- */

static int interrupt_fd = -1;

void chardev_set_interrupt_fd(int fd)
{
    interrupt_fd = fd;
}

static bool wait_for_client(struct chardev *chr, struct error **errp)
{
    struct socket *s = chr->state;
    autofree char *name = chardev_filename(chr);
    log_info("waiting for connection on: %s", name);
    while (s->fd < 0) {
        struct pollfd p[] = {
            {.fd = s->listen_fd, .events = POLLIN},
            {.fd = interrupt_fd, .events = POLLIN}, /* ignored if it is -1 */
        };
        if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
            break;
        if (p[1].revents) {
            errno = EINTR;
            break;
        }
        s->fd = accept4(s->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (s->fd < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            break;
    }
    if (s->fd >= 0)
        return true;
    error_set_errno(errp, errno, "%s: no client can connect", name);
    return false;
}

static bool open_server(struct chardev *chr, struct error **errp)
{
    struct socket *s = chr->state;
    if (s->has_target) {
        s->listen_fd = socket_listen(&s->target, errp);
        if (s->listen_fd < 0)
            return false;
        s->owns_path = s->target.path != NULL;
    }
    fcntl(s->listen_fd, F_SETFL, fcntl(s->listen_fd, F_GETFL) | O_NONBLOCK);
    fcntl(s->listen_fd, F_SETFD, FD_CLOEXEC);
    if (!s->waits) {
        listen_again(chr);
        return true;
    }
    if (!wait_for_client(chr, errp))
        return false;
    connected(chr);
    return true;
}

static bool socket_open(struct chardev *chr, struct error **errp)
{
    struct socket *s = chr->state;
    timer_init(&s->timer, chr->loop, AIO_CLOCK_RT, try_again, chr);
    if (s->is_server)
        return open_server(chr, errp);
    if (s->reconnect_s && s->has_target) {
        try_connect(chr);
        return true;
    }
    if (s->has_target && !connect_now(chr, errp))
        return false;
    fcntl(s->fd, F_SETFL, fcntl(s->fd, F_GETFL) | O_NONBLOCK);
    fcntl(s->fd, F_SETFD, FD_CLOEXEC);
    connected(chr);
    return true;
}

static void socket_close(struct chardev *chr)
{
    struct socket *s = chr->state;
    if (s->timer.fn)
        timer_cancel(&s->timer);
    chardev_disconnect(chr);
    if (s->fd >= 0) {
        aio_set_fd(chr->loop, s->fd, NULL, NULL, NULL); /* while connecting */
        close(s->fd);
    }
    if (s->listen_fd >= 0) {
        aio_set_fd(chr->loop, s->listen_fd, NULL, NULL, NULL);
        close(s->listen_fd);
    }
    if (s->owns_path)
        unlink(s->target.path);
    socket_target_free(&s->target);
    free(s);
    chr->state = NULL;
}

static char *socket_filename(const struct chardev *chr)
{
    const struct socket *s = chr->state;
    autofree char *local = s->listen_fd >= 0 ? socket_name(s->listen_fd, false) : NULL;
    autofree char *given = s->has_target ? socket_target_text(&s->target) : xasprintf("fd");
    const char *server = s->is_server ? ",server=on" : "";
    const char *name = s->is_server && local ? local : given;
    if (!chr->is_open)
        return xasprintf("disconnected:%s%s", name, server);
    autofree char *peer = socket_name(s->fd, true);
    if (peer)
        return xasprintf("%s%s <-> %s", name, server, peer + strlen("tcp:"));
    return xasprintf("%s%s", name, server);
}

const struct chardev_backend chardev_socket = {
    .name = "socket",
    .options = options,
    .parse = socket_parse,
    .open = socket_open,
    .close = socket_close,
    .input_ending = socket_input_ending,
    .input_ended = socket_input_ended,
    .filename = socket_filename,
};
