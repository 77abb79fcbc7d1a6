/* SPDX-License-Identifier: MIT */
/*
 * What the nbd driver presents to a server that wants TLS: objects tls-creds-x509 and tls-creds-psk
 * of -object, by id. Main loop.
 */
#ifndef FERRY_BLOCK_NBD_CREDS_H
#define FERRY_BLOCK_NBD_CREDS_H

#include <stdbool.h>

#include "base/error.h"
#include "base/options.h"

struct nbd_creds {
    char *id, *dir;
    bool is_psk;
    char *username;   /* PSK; or NULL */
    bool verify_peer; /* X.509 */
    struct nbd_creds *next;
};

/* "id", "dir", "endpoint=client", "username" or "verify-peer" of opts; type: the object's. The files are
 * there and can be read; what is in them is seen when a connection is made. */
bool nbd_creds_add(const char *type, struct options *opts, struct error **errp);
void nbd_creds_remove(const char *id);
const struct nbd_creds *nbd_creds_find(const char *id);
/* For a node, which outlives the object. Free it by nbd_creds_free(), also NULL. */
struct nbd_creds *nbd_creds_copy(const struct nbd_creds *creds);
void nbd_creds_free(struct nbd_creds *creds);

#endif
