/* SPDX-License-Identifier: MIT */
/* Making a connection to an NBD server, in a worker thread. See nbd_conn.h. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libnbd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "aio/clock.h"
#include "base/alloc.h"
#include "base/range.h"
#include "block/nbd_creds.h"
#include "block/nbd_impl.h"

#define MAX_TRANSFER  (8 * MiB)  /* what we ask for at once: bounds the copies of nbd.c */
#define MAX_MIN_BLOCK (64 * KiB) /* NBD protocol, "Block size constraints" */
#define DEFAULT_PORT  "10809"

void nbd_target_free(struct nbd_target *target)
{
    free(target->host);
    free(target->port);
    free(target->path);
    free(target->export);
    free(target->tls_hostname);
    nbd_creds_free(target->creds);
    *target = (struct nbd_target){0};
}

char *nbd_target_text(const struct nbd_target *target)
{
    const char *scheme = target->tls ? "nbds" : "nbd";

    if (target->path) {
        return xasprintf("%s+unix://%s%s?socket=%s", scheme, *target->export ? "/" : "",
                         target->export, target->path);
    }
    bool is_ipv6 = strchr(target->host, ':');
    bool is_default = !strcmp(target->port, DEFAULT_PORT);
    return xasprintf("%s://%s%s%s%s%s%s%s", scheme, is_ipv6 ? "[" : "", target->host,
                     is_ipv6 ? "]" : "", is_default ? "" : ":", is_default ? "" : target->port,
                     *target->export ? "/" : "", target->export);
}

/* What libnbd has to say, without the name of its function. */
static char *last_error(void)
{
    const char *text = nbd_get_error();
    const char *colon = text ? strstr(text, ": ") : NULL;

    return xstrdup(colon ? colon + 2 : text ? text : "no reason given");
}

static bool set_tls(struct nbd_handle *h, const struct nbd_target *target)
{
    const struct nbd_creds *creds = target->creds;

    if (!target->tls) {
        return true;
    }
    if (nbd_set_tls(h, LIBNBD_TLS_REQUIRE) < 0) {
        return false;
    }
    if (!creds) {
        return true;
    }
    if (creds->is_psk) {
        autofree char *file = xasprintf("%s/keys.psk", creds->dir);
        return nbd_set_tls_psk_file(h, file) == 0 &&
               nbd_set_tls_username(h, creds->username ? creds->username : "qemu") == 0;
    }
    return nbd_set_tls_certificates(h, creds->dir) == 0 &&
           nbd_set_tls_verify_peer(h, creds->verify_peer) == 0;
}

static bool begin(struct nbd_handle *h, const struct nbd_target *target)
{
    return set_tls(h, target) && nbd_set_export_name(h, target->export) == 0 &&
           nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0 &&
           (target->path ? nbd_aio_connect_unix(h, target->path)
                         : nbd_aio_connect_tcp(h, target->host, target->port)) == 0;
}

/* Waits for what libnbd waits for, and lets it go on. */
static bool step(struct nbd_handle *h, int timeout_ms, int interrupt_fd, char **why)
{
    unsigned direction = nbd_aio_get_direction(h);
    bool reads = direction & LIBNBD_AIO_DIRECTION_READ;
    bool writes = direction & LIBNBD_AIO_DIRECTION_WRITE;
    struct pollfd p[] = {
        {.fd = nbd_aio_get_fd(h), .events = (reads ? POLLIN : 0) | (writes ? POLLOUT : 0)},
        {.fd = interrupt_fd, .events = POLLIN}, /* ignored if it is -1 */
    };
    int ret = 0;

    if (p[0].fd < 0) {
        *why = last_error();
        return false;
    }
    if (poll(p, ARRAY_SIZE(p), timeout_ms) < 0) {
        return true; /* EINTR: once more, while there is time */
    }
    if (p[1].revents) {
        *why = xstrdup("interrupted by a signal");
        return false;
    }
    if (reads && p[0].revents & ~POLLOUT) {
        ret = nbd_aio_notify_read(h);
    } else if (writes && p[0].revents) {
        ret = nbd_aio_notify_write(h);
    }
    if (ret < 0) {
        *why = last_error();
    }
    return ret == 0;
}

/* Until it is negotiated or the time is over. */
static bool finish(struct nbd_handle *h, int timeout_ms, int interrupt_fd, char **why)
{
    int64_t deadline = clock_get_ns(AIO_CLOCK_RT) + timeout_ms * INT64_C(1000000);

    while (nbd_aio_is_connecting(h) == 1 || nbd_aio_is_negotiating(h) == 1) {
        int64_t left = (deadline - clock_get_ns(AIO_CLOCK_RT)) / 1000000;
        if (left <= 0) {
            *why = xasprintf("no answer within %d s", timeout_ms / 1000);
            return false;
        }
        if (!step(h, (int)left, interrupt_fd, why)) {
            return false;
        }
    }
    if (nbd_aio_is_ready(h) != 1) {
        *why = last_error();
        return false;
    }
    return true;
}

static bool get_info(struct nbd_handle *h, struct nbd_export_info *info, char **why)
{
    int64_t size = nbd_get_size(h);
    int64_t min = nbd_get_block_size(h, LIBNBD_SIZE_MINIMUM);
    int64_t max = nbd_get_block_size(h, LIBNBD_SIZE_MAXIMUM);

    if (size < 0) {
        *why = last_error();
        return false;
    }
    min = min > 0 ? min : 1;
    max = max > 0 ? MIN(max, (int64_t)MAX_TRANSFER) : (int64_t)MAX_TRANSFER;
    if (!is_power_of_2((uint64_t)min) || min > (int64_t)MAX_MIN_BLOCK || max < min) {
        *why = xasprintf("the server wants blocks of %" PRId64 " to %" PRId64 " bytes", min, max);
        return false;
    }
    *info = (struct nbd_export_info){
        .size = align_down((uint64_t)size, (uint64_t)min),
        .is_read_only = nbd_is_read_only(h) == 1,
        .can_flush = nbd_can_flush(h) == 1,
        .can_fua = nbd_can_fua(h) == 1,
        .can_trim = nbd_can_trim(h) == 1,
        .can_zero = nbd_can_zero(h) == 1,
        .can_status = nbd_can_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1,
        .min_block = (uint32_t)min,
        .max_transfer = (uint32_t)align_down((uint64_t)max, (uint64_t)min),
    };
    return true;
}

struct nbd_conn *nbd_conn_open(const struct nbd_target *target, int timeout_ms, int interrupt_fd,
                               char **why)
{
    struct nbd_export_info info;
    struct nbd_handle *h = nbd_create();
    int fd = -1;

    *why = NULL;
    if (h && begin(h, target)) {
        if (finish(h, timeout_ms, interrupt_fd, why) && get_info(h, &info, why)) {
            fd = fcntl(nbd_aio_get_fd(h), F_DUPFD_CLOEXEC, 3);
        }
    }
    if (fd < 0) {
        *why = *why ? *why : last_error();
        if (h) {
            nbd_close(h);
        }
        return NULL;
    }
    struct nbd_conn *conn = xnew(struct nbd_conn);
    conn->info = info;
    conn->impl = xnew(struct nbd_impl);
    conn->impl->handle = h;
    conn->impl->fd = fd;
    atomic_init(&conn->impl->refs, 1);
    pthread_mutex_init(&conn->impl->lock, NULL);
    return conn;
}
