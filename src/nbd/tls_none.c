/* SPDX-License-Identifier: MIT */
/* TLS in a build without GnuTLS: nobody gets credentials, so no session is ever made. */
#include <errno.h>
#include <stddef.h>

#include "nbd/tls.h"

struct nbd_tls_creds *nbd_tls_creds_new(const char *type, struct options *opts, struct error **errp)
{
    error_set(errp, "%s: this build has no TLS; build it with GnuTLS (libgnutls28-dev)", type);
    return NULL;
}

void nbd_tls_creds_free(struct nbd_tls_creds *creds)
{
}

bool nbd_tls_creds_is_server(const struct nbd_tls_creds *creds)
{
    return false;
}

const char *nbd_tls_creds_dir(const struct nbd_tls_creds *creds)
{
    return NULL;
}

bool nbd_tls_creds_is_psk(const struct nbd_tls_creds *creds)
{
    return false;
}

const char *nbd_tls_creds_username(const struct nbd_tls_creds *creds)
{
    return NULL;
}

bool nbd_tls_creds_verify_peer(const struct nbd_tls_creds *creds)
{
    return false;
}

struct nbd_tls *nbd_tls_new(const struct nbd_tls_creds *creds, int fd)
{
    return NULL;
}

void nbd_tls_free(struct nbd_tls *tls)
{
}

int nbd_tls_handshake(struct nbd_tls *tls)
{
    return -ENOTSUP;
}

char *nbd_tls_peer_name(struct nbd_tls *tls)
{
    return NULL;
}

bool nbd_tls_wants_write(const struct nbd_tls *tls)
{
    return false;
}

bool nbd_tls_has_pending(const struct nbd_tls *tls)
{
    return false;
}

ssize_t nbd_tls_recv(struct nbd_tls *tls, void *to, size_t size)
{
    return -ENOTSUP;
}

ssize_t nbd_tls_send(struct nbd_tls *tls, const void *from, size_t size)
{
    return -ENOTSUP;
}

void nbd_tls_bye(struct nbd_tls *tls)
{
}
