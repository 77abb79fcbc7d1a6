/* SPDX-License-Identifier: MIT */
/* The nbd driver where there is no libnbd: it says so. */
#include "base/error.h"
#include "block/drivers.h"
#include "block/node.h"

static bool nbd_open(struct block_node *node, struct options *opts, struct error **errp)
{
    error_set(errp, "driver 'nbd': this build has no NBD client; build it where libnbd is "
                    "installed (libnbd-dev)");
    return false;
}

const struct block_driver block_driver_nbd = {
    .name = "nbd",
    .help = "an export of an NBD server (not in this build)",
    .is_protocol = true,
    .open = nbd_open,
};
