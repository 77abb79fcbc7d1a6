/* SPDX-License-Identifier: MIT */
/* The options of the nbd driver. See nbd_options.h. */
#include "block/nbd_options.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/alloc.h"
#include "block/nbd_creds.h"

#define DEFAULT_PORT    "10809"
#define MAX_EXPORT_NAME 4096 /* bytes; NBD protocol, "String length" */
#define MAX_SECONDS     UINT32_MAX

static char *copy(struct options *opts, const char *key)
{
    const char *text = options_get(opts, key);

    return text ? xstrdup(text) : NULL;
}

static bool parse_address(struct options *opts, const char *type, struct nbd_target *target,
                          struct error **errp)
{
    target->host = copy(opts, "host");
    target->port = copy(opts, "port");
    target->path = copy(opts, "path");
    if (type && strcmp(type, "inet") && strcmp(type, "unix")) {
        error_set(errp, "nbd: server.type=%s is not supported; use inet or unix", type);
    } else if (target->path && target->host) {
        error_set(errp, "path and host may not be used at the same time");
    } else if (!target->path && !target->host) {
        error_set(errp, "one of path and host must be specified: server.type=unix,server.path=… "
                        "or server.type=inet,server.host=…");
    } else if (target->path && target->port) {
        error_set(errp, "port may not be used without host");
    } else if (type && !strcmp(type, "unix") != !!target->path) {
        error_set(errp, "nbd: server.type=%s needs server.%s", type,
                  strcmp(type, "unix") ? "host" : "path");
    } else if (target->path &&
               strlen(target->path) >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
        error_set(errp, "UNIX socket path '%s' is too long: at most %zu bytes", target->path,
                  sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
    } else {
        return true;
    }
    return false;
}

/* 4, 6 or, for a name, 0. */
static int literal_family(const char *host)
{
    struct in6_addr address;

    return inet_pton(AF_INET, host, &address) == 1    ? 4
           : inet_pton(AF_INET6, host, &address) == 1 ? 6
                                                      : 0;
}

/* ipv4=, ipv6=: libnbd takes whatever address a name has, so only numbers can be told apart. */
static bool check_family(struct options *opts, const struct nbd_target *target, struct error **errp)
{
    bool has4 = options_has(opts, "ipv4"), has6 = options_has(opts, "ipv6"), on4 = false,
         on6 = false;

    if (!options_get_bool(opts, "ipv4", &on4, errp) ||
        !options_get_bool(opts, "ipv6", &on6, errp)) {
        return false;
    }
    if (has4 && has6 && !on4 && !on6) {
        error_set(errp, "Cannot disable IPv4 and IPv6 at same time");
        return false;
    }
    int wanted = on4 == on6 && has4 == has6 ? 0 : on6 || (has4 && !on4) ? 6 : 4;
    int family = target->host && wanted ? literal_family(target->host) : wanted;
    if (family == wanted) {
        return true;
    }
    error_set(errp,
              family ? "nbd: server.host=%s is no IPv%d address"
                     : "nbd: server.host=%s has to be a number for server.ipv%d=on: this libnbd "
                       "takes whatever address a name has",
              target->host, wanted);
    return false;
}

static bool parse_server(struct options *opts, struct nbd_target *target, struct error **errp)
{
    struct options *server = options_take_prefix(opts, "server");
    bool is_nested = options_count(server);
    struct options *from = is_nested ? server : opts;

    bool ok = parse_address(from, is_nested ? options_get(server, "type") : NULL, target, errp);
    ok = ok && check_family(from, target, errp) &&
         (!is_nested || options_check_used(server, "nbd: server", errp));
    options_free(server);
    if (target->host && !target->port) {
        target->port = xstrdup(DEFAULT_PORT);
    }
    return ok;
}

/* The server has to show a certificate that is checked. */
static bool verifies(const struct nbd_target *target)
{
    return target->tls &&
           (!target->creds || (!target->creds->is_psk && target->creds->verify_peer));
}

static bool parse_tls(struct options *opts, struct nbd_target *target, struct error **errp)
{
    const char *id = options_get(opts, "tls-creds");

    if (!options_get_bool(opts, "tls", &target->tls, errp)) {
        return false;
    }
    target->tls_hostname = copy(opts, "tls-hostname");
    if (id) {
        const struct nbd_creds *creds = nbd_creds_find(id);
        if (!creds) {
            error_set(errp, "No TLS credentials with id '%s'", id);
            return false;
        }
        target->creds = nbd_creds_copy(creds);
        target->tls = true;
    }
    if (target->path && verifies(target)) {
        error_set(errp, "nbd: this libnbd checks no certificates over unix sockets; give "
                        "server.host, or tls-creds with verify-peer=off");
        return false;
    }
    if (target->tls_hostname && (!target->host || strcmp(target->tls_hostname, target->host))) {
        error_set(errp,
                  "tls-hostname=%s is not supported by this libnbd, which checks the name that it "
                  "connects to; give server.host=%s",
                  target->tls_hostname, target->tls_hostname);
        return false;
    }
    return true;
}

bool nbd_options_parse(struct options *opts, struct nbd_target *target, struct nbd_times *times,
                       struct error **errp)
{
    const char *export = options_get(opts, "export");

    if (export && strlen(export) > MAX_EXPORT_NAME) {
        error_set(errp, "export name too long to send to server: at most %d bytes",
                  MAX_EXPORT_NAME);
        return false;
    }
    target->export = xstrdup(export ? export : "");
    return parse_server(opts, target, errp) && parse_tls(opts, target, errp) &&
           options_get_uint(opts, "reconnect-delay", 0, MAX_SECONDS, &times->reconnect_delay,
                            errp) &&
           options_get_uint(opts, "open-timeout", 0, MAX_SECONDS, &times->open_timeout, errp);
}
