/* SPDX-License-Identifier: MIT */
#include "chardev/socket_address.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/range.h"

#define BACKLOG 1 /* one client at a time; the next waits in the queue */

/* ---- targets -------------------------------------------------------------------------------- */

static bool parse_family(struct socket_target *target, struct options *opts, struct error **errp)
{
    bool has_v4 = options_has(opts, "ipv4"), has_v6 = options_has(opts, "ipv6");
    /* Asking for one means not the other. */
    bool v4 = !has_v6, v6 = !has_v4;
    if (!options_get_bool(opts, "ipv4", &v4, errp) || !options_get_bool(opts, "ipv6", &v6, errp))
        return false;
    if (has_v4 && !has_v6)
        v6 = !v4;
    if (has_v6 && !has_v4)
        v4 = !v6;
    if (!v4 && !v6) {
        error_set(errp, "ipv4=off and ipv6=off leave no way to connect");
        return false;
    }
    target->family = v4 && v6 ? AF_UNSPEC : v4 ? AF_INET : AF_INET6;
    return true;
}

bool socket_target_parse(struct socket_target *target, struct options *opts, struct error **errp)
{
    const char *path = options_get(opts, "path");
    const char *host = options_get(opts, "host");
    const char *port = options_get(opts, "port");
    struct sockaddr_un un;

    if (path && (host || port)) {
        error_set(errp, "a socket has either a path or a host and port");
        return false;
    }
    if (!path && !port) {
        error_set(errp, "a socket needs path=PATH or host=HOST,port=PORT");
        return false;
    }
    if (path && !*path) {
        error_set(errp, "path='' is no path of a socket");
        return false;
    }
    if (path && strlen(path) >= sizeof(un.sun_path)) {
        error_set(errp, "UNIX socket path '%s' is too long; it must be less than %zu bytes", path,
                  sizeof(un.sun_path));
        return false;
    }
    if (path) {
        target->path = xstrdup(path);
        return true;
    }
    target->host = xstrdup(host ? host : "");
    target->port = xstrdup(port);
    return parse_family(target, opts, errp);
}

void socket_target_free(struct socket_target *target)
{
    free(target->path);
    free(target->host);
    free(target->port);
}

static char *tcp_text(const char *host, const char *port)
{
    bool brackets = strchr(host, ':') != NULL;
    return xasprintf("tcp:%s%s%s:%s", brackets ? "[" : "", host, brackets ? "]" : "", port);
}

char *socket_target_text(const struct socket_target *target)
{
    return target->path ? xasprintf("unix:%s", target->path) : tcp_text(target->host, target->port);
}

/* ---- addresses ------------------------------------------------------------------------------ */

int socket_resolve(const struct socket_target *target, bool to_listen,
                   struct socket_address addresses[SOCKET_ADDRESSES_MAX], struct error **errp)
{
    if (target->path) {
        struct sockaddr_un *un = (struct sockaddr_un *)&addresses[0].sa;
        memset(un, 0, sizeof(*un));
        un->sun_family = AF_UNIX;
        memcpy(un->sun_path, target->path, strlen(target->path));
        addresses[0].length = sizeof(*un);
        return 1;
    }

    struct addrinfo hints = {
        .ai_family = target->family,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = to_listen ? AI_PASSIVE : 0,
    };
    struct addrinfo *list;
    /* Without a host: all of ours to listen on, ourselves to connect to. */
    const char *host = *target->host ? target->host : NULL;
    int failure = getaddrinfo(host, target->port, &hints, &list);
    if (failure) {
        error_set(errp, "address resolution failed for %s:%s: %s", target->host, target->port,
                  failure == EAI_SYSTEM ? strerror(errno) : gai_strerror(failure));
        return 0;
    }
    int count = 0;
    for (struct addrinfo *a = list; a && count < SOCKET_ADDRESSES_MAX; a = a->ai_next) {
        if (a->ai_addrlen > sizeof(addresses[count].sa))
            continue;
        memcpy(&addresses[count].sa, a->ai_addr, a->ai_addrlen);
        addresses[count].length = a->ai_addrlen;
        count++;
    }
    freeaddrinfo(list);
    if (count == 0)
        error_set(errp, "no address for %s:%s", target->host, target->port);
    return count;
}

/* A socket that a ferry which was killed left behind; nothing else is removed. */
static bool clear_path(const char *path, struct error **errp)
{
    struct stat st;
    if (lstat(path, &st) != 0)
        return true; /* bind() will tell, if it matters */
    if (!S_ISSOCK(st.st_mode)) {
        error_set(errp, "'%s' exists and is not a socket; choose another path or remove it", path);
        return false;
    }
    if (unlink(path) != 0 && errno != ENOENT) {
        error_set_errno(errp, errno, "cannot remove the old socket '%s'", path);
        return false;
    }
    return true;
}

static int listen_at(const struct socket_address *address)
{
    int on = 1;
    int fd = socket(address->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (address->sa.ss_family != AF_UNIX)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, (const struct sockaddr *)&address->sa, address->length) == 0 &&
        listen(fd, BACKLOG) == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

int socket_listen(const struct socket_target *target, struct error **errp)
{
    struct socket_address addresses[SOCKET_ADDRESSES_MAX];
    int count = socket_resolve(target, true, addresses, errp);
    if (count == 0 || (target->path && !clear_path(target->path, errp)))
        return -1;
    for (int i = 0; i < count; i++) {
        int fd = listen_at(&addresses[i]);
        if (fd >= 0)
            return fd;
    }
    int saved = errno;
    autofree char *text = socket_target_text(target);
    error_set_errno(errp, saved, "cannot listen on %s", text);
    return -1;
}

char *socket_name(int fd, bool of_peer)
{
    struct socket_address address = {.length = sizeof(address.sa)};
    struct sockaddr *sa = (struct sockaddr *)&address.sa;
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if ((of_peer ? getpeername(fd, sa, &address.length) : getsockname(fd, sa, &address.length)) ||
        getnameinfo(sa, address.length, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0 ||
        sa->sa_family == AF_UNIX)
        return NULL;
    return tcp_text(host, port);
}
