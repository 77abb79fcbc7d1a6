/* SPDX-License-Identifier: MIT */
/* The options of the nbd driver. */
#ifndef FERRY_BLOCK_NBD_OPTIONS_H
#define FERRY_BLOCK_NBD_OPTIONS_H

#include "base/options.h"
#include "block/nbd_conn.h"

struct nbd_times {
    uint64_t reconnect_delay, open_timeout; /* seconds */
    char *why;                              /* the first connection failed; or NULL */
};

/* server.type=, .host=, .port=, .path= (or, as QEMU had it, host=, port=, path=), export=, tls=,
 * tls-creds=, tls-hostname=, reconnect-delay=, open-timeout=. *target is all zero before; to be
 * freed, also after an error. */
bool nbd_options_parse(struct options *opts, struct nbd_target *target, struct nbd_times *times,
                       struct error **errp);

#endif
