/* SPDX-License-Identifier: MIT */
/* Addresses of sockets: from options, to text, and the system calls that take them. */
#ifndef FERRY_CHARDEV_SOCKET_ADDRESS_H
#define FERRY_CHARDEV_SOCKET_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>

#include "base/error.h"
#include "base/options.h"

#define SOCKET_ADDRESSES_MAX 8 /* of a host; more are not tried */

struct socket_address {
    struct sockaddr_storage sa;
    socklen_t length;
};

/* What the user gave. */
struct socket_target {
    char *path; /* or NULL: host and port */
    char *host, *port;
    int family; /* AF_UNSPEC, AF_INET, AF_INET6 */
};

/* Needs path, or host and port. Texts are copied. */
bool socket_target_parse(struct socket_target *target, struct options *opts, struct error **errp);
void socket_target_free(struct socket_target *target);
/* "unix:PATH" or "tcp:HOST:PORT"; to be freed. */
char *socket_target_text(const struct socket_target *target);

/* Looks the target up: number of addresses, or 0 and an error. Waits for name servers. */
int socket_resolve(const struct socket_target *target, bool to_listen,
                   struct socket_address addresses[SOCKET_ADDRESSES_MAX], struct error **errp);
/* A listening socket at the first address that works, non-blocking; -1: none. What is in the way
 * of a unix socket is removed if it is a socket. */
int socket_listen(const struct socket_target *target, struct error **errp);
/* "tcp:ADDRESS:PORT" of a TCP socket's local or other end, or NULL; to be freed. */
char *socket_name(int fd, bool of_peer);

#endif
