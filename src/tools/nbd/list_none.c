/* SPDX-License-Identifier: MIT */
/* -L in a build without libnbd. */
#include "tools/nbd/nbd_tool.h"

bool nbd_list(const struct nbd_args *args, struct error **errp)
{
    error_set(errp, "-L: this build has no NBD client; build it with libnbd (libnbd-dev)");
    return false;
}
