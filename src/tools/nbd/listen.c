/* SPDX-License-Identifier: MIT */
/* The sockets that a server listens at. See nbd_tool.h. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "base/range.h"
#include "tools/nbd/nbd_tool.h"

#define FIRST_INHERITED_FD 3 /* sd_listen_fds(3) */
#define INHERITED_MAX      64
#define DEFAULT_ADDRESS    "0.0.0.0"
#define DEFAULT_PORT       "10809"
#define GREETING_MS        500

static void add(struct nbd_sockets *sockets, int fd)
{
    sockets->fds = xreallocarray(sockets->fds, sockets->count + 1, sizeof(int));
    sockets->fds[sockets->count++] = fd;
}

/* ---- inherited ------------------------------------------------------------------------------- */

bool nbd_sockets_inherited(struct nbd_sockets *sockets)
{
    const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
    uint64_t value, count;

    *sockets = (struct nbd_sockets){0};
    if (!pid || !fds || !parse_uint(pid, &value) || value != (uint64_t)getpid() ||
        !parse_uint(fds, &count) || !count || count > INHERITED_MAX) {
        return false;
    }
    /* Not for children. */
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    for (int fd = FIRST_INHERITED_FD; fd < FIRST_INHERITED_FD + (int)count; fd++) {
        int flags = fcntl(fd, F_GETFL);
        if (flags < 0) {
            log_warn("LISTEN_FDS: file descriptor %d is not open", fd);
            continue;
        }
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        fcntl(fd, F_SETFL, flags | O_NONBLOCK);
        add(sockets, fd);
    }
    return sockets->count;
}

/* ---- unix ------------------------------------------------------------------------------------ */

/* The process that listens at the other end is gone: the kernel may keep its socket open for a while
 * after that, until its io_uring has been taken down. */
static bool creator_is_dead(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.pid > 0 &&
           kill(peer.pid, 0) < 0 && errno == ESRCH;
}

/* Who listened may have left the socket to another process, which greets. */
static bool greets(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    char byte;

    return poll(&poll_fd, 1, GREETING_MS) == 1 && recv(fd, &byte, 1, MSG_DONTWAIT) == 1;
}

/* What a server that was killed left behind: a socket that nobody listens at. */
static bool is_stale(const struct sockaddr_un *address)
{
    struct stat st;

    if (lstat(address->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode)) {
        return false;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return false;
    }
    bool stale = connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0
                     ? errno == ECONNREFUSED
                     : creator_is_dead(fd) && !greets(fd);
    close(fd);
    return stale;
}

static bool listen_unix(const char *path, struct nbd_sockets *sockets, struct error **errp)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(address.sun_path)) {
        error_set(errp, "socket path '%s' is longer than %zu bytes", path,
                  sizeof(address.sun_path) - 1);
        return false;
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        error_set_errno(errp, errno, "Failed to create a unix socket");
        return false;
    }
    if (is_stale(&address)) {
        unlink(path);
    }
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, SOMAXCONN) < 0) {
        error_set_errno(errp, errno, "Failed to bind socket to '%s'", path);
        close(fd);
        return false;
    }
    sockets->path = xstrdup(path);
    add(sockets, fd);
    return true;
}

/* ---- TCP ------------------------------------------------------------------------------------- */

static int listen_at(const struct addrinfo *info)
{
    int on = 1;
    int fd = socket(info->ai_family, info->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
                    info->ai_protocol);

    if (fd < 0) {
        return -errno;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (info->ai_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    }
    if (bind(fd, info->ai_addr, info->ai_addrlen) < 0 || listen(fd, SOMAXCONN) < 0) {
        int ret = -errno;
        close(fd);
        return ret;
    }
    return fd;
}

static bool listen_tcp(const char *host, const char *port, struct nbd_sockets *sockets,
                       struct error **errp)
{
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *list;
    int failed = 0;

    int ret = getaddrinfo(*host ? host : NULL, port, &hints, &list);
    if (ret) {
        error_set(errp, "address resolution failed for %s:%s: %s", host, port, gai_strerror(ret));
        return false;
    }
    for (const struct addrinfo *info = list; info; info = info->ai_next) {
        int fd = listen_at(info);
        if (fd >= 0) {
            add(sockets, fd);
        } else if (fd != -EAFNOSUPPORT) {
            failed = -fd;
        }
    }
    freeaddrinfo(list);
    if (!sockets->count) {
        error_set_errno(errp, failed ? failed : EAFNOSUPPORT, "Failed to listen at %s:%s", host,
                        port);
        return false;
    }
    return true;
}

bool nbd_sockets_listen(const struct nbd_args *args, struct nbd_sockets *sockets,
                        struct error **errp)
{
    *sockets = (struct nbd_sockets){0};
    if (args->socket_path) {
        return listen_unix(args->socket_path, sockets, errp);
    }
    return listen_tcp(args->bind_address ? args->bind_address : DEFAULT_ADDRESS,
                      args->port ? args->port : DEFAULT_PORT, sockets, errp);
}

void nbd_sockets_free(struct nbd_sockets *sockets)
{
    if (sockets->path) {
        unlink(sockets->path);
    }
    free(sockets->path);
    free(sockets->fds);
    *sockets = (struct nbd_sockets){0};
}
