/* SPDX-License-Identifier: MIT */
/* What happens to nodes that management software wants to know. */
#ifndef FERRY_BLOCK_EVENT_H
#define FERRY_BLOCK_EVENT_H

#include <stdbool.h>
#include <stdint.h>

/* Metadata of an image is wrong. */
struct block_corruption {
    const char *node;        /* its name */
    const char *message;     /* without the place */
    uint64_t offset, length; /* in the image's file, bytes; length 0: not known */
    bool fatal;              /* nothing is written to it any more */
};

typedef void block_corruption_fn(const struct block_corruption *corruption);

/* The one who is told, from any thread and perhaps with locks of the image held; what the pointers lead to
 * is the caller's. Set before images are opened. */
void block_set_corruption_handler(block_corruption_fn *handler);
void block_tell_corruption(const struct block_corruption *corruption);

#endif
