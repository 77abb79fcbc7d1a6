/* SPDX-License-Identifier: MIT */
/*
 * TLS of NBD connections (NBD_OPT_STARTTLS), by GnuTLS: objects tls-creds-x509 and tls-creds-psk as
 * QEMU has them. Without GnuTLS (tls_none.c) making credentials is an error.
 *
 * Credentials are made on the main loop and constant then; a session belongs to the loop of its
 * connection. Nothing here waits: what would answers -EAGAIN.
 */
#ifndef FERRY_NBD_TLS_H
#define FERRY_NBD_TLS_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/options.h"

struct nbd_tls_creds;
struct nbd_tls;

/* From "tls-creds-x509,id=…,dir=…,endpoint=server,verify-peer=…,priority=…,passwordid=…" and
 * "tls-creds-psk,id=…,dir=…,username=…": type is the first word, opts the rest; all are used up. */
struct nbd_tls_creds *nbd_tls_creds_new(const char *type, struct options *opts,
                                        struct error **errp);
void nbd_tls_creds_free(struct nbd_tls_creds *creds);
bool nbd_tls_creds_is_server(const struct nbd_tls_creds *creds);
/* What a client needs to use the same credentials with libnbd. */
const char *nbd_tls_creds_dir(const struct nbd_tls_creds *creds);
bool nbd_tls_creds_is_psk(const struct nbd_tls_creds *creds);
const char *nbd_tls_creds_username(const struct nbd_tls_creds *creds); /* PSK; or NULL */
bool nbd_tls_creds_verify_peer(const struct nbd_tls_creds *creds);
/* The peer's certificate, and so its name, is verified. */
static inline bool nbd_tls_creds_verify_names(const struct nbd_tls_creds *creds)
{
    return !nbd_tls_creds_is_psk(creds) && nbd_tls_creds_verify_peer(creds);
}

/* The server's side of a session over a socket; NULL for want of memory. */
struct nbd_tls *nbd_tls_new(const struct nbd_tls_creds *creds, int fd);
void nbd_tls_free(struct nbd_tls *tls);
/* 0, -EAGAIN (wait as nbd_tls_wants_write() says, then again), or another negative errno: no session
 * came about, or the peer has no valid certificate. */
int nbd_tls_handshake(struct nbd_tls *tls);
/* The distinguished name of the peer's certificate, its parts in the certificate's order; the
 * caller frees it; NULL if there is none. */
char *nbd_tls_peer_name(struct nbd_tls *tls);
bool nbd_tls_wants_write(const struct nbd_tls *tls);
/* Received bytes are waiting inside: the socket need not become readable. */
bool nbd_tls_has_pending(const struct nbd_tls *tls);
ssize_t nbd_tls_recv(struct nbd_tls *tls, void *to, size_t size);         /* 0: end */
ssize_t nbd_tls_send(struct nbd_tls *tls, const void *from, size_t size); /* once -EAGAIN, again
                                                                             with the same data */
void nbd_tls_bye(struct nbd_tls *tls); /* tells the peer, if the socket takes it */

#endif
