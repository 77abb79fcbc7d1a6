/* SPDX-License-Identifier: MIT */
/* See event.h. */
#include "block/event.h"

#include <stddef.h>

static block_corruption_fn *corruption_handler;

void block_set_corruption_handler(block_corruption_fn *handler)
{
    corruption_handler = handler;
}

void block_tell_corruption(const struct block_corruption *corruption)
{
    if (corruption_handler) {
        corruption_handler(corruption);
    }
}
