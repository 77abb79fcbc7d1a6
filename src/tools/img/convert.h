/* SPDX-License-Identifier: MIT */
/*
 * Copying images: what convert.c decides, convert_copy.c does.
 *
 *   sources, one behind the other        coroutines (-m)               target
 *   [ data | hole | data ][ data … ] --> next extent, read --> [turn] --> write
 *
 * The coroutines take extents from the front. Without -W each waits with its write until all before
 * it have been written, so the target's file grows in the order of its contents.
 */
#ifndef FERRY_TOOLS_IMG_CONVERT_H
#define FERRY_TOOLS_IMG_CONVERT_H

#include "aio/coroutine.h"
#include "block/backend.h"
#include "tools/common/progress.h"
#include "tools/img/data.h"

struct copy_source {
    struct block_backend *be;
    uint64_t start, length; /* bytes: its place in the target */
    uint64_t offset;        /* bytes: what comes before in the image is left out */
};

struct copy {
    /* constant while it runs */
    struct copy_source *sources;
    size_t source_count;
    struct block_backend *target;
    uint64_t total;          /* bytes */
    uint32_t unit;           /* of the target, where data begins and ends: a power of 2 */
    uint32_t chunk;          /* bytes of one request, a multiple of unit */
    uint32_t min_sparse;     /* -S: shortest run of zeroes that is no data; 0: all is data */
    bool target_is_zero;     /* what is not written reads as zeroes */
    bool target_has_backing; /* what the source's top image does not have shows through */
    uint64_t backing_length; /* of the target's backing file */
    bool only_allocated;     /* of the source: what it does not have itself is left out */
    bool writes_holes;       /* holes of the source are written as data */
    bool compressed, out_of_order, salvage, quiet;
    bool offload; /* -C: the host copies, as far as it can */
    unsigned workers;
    /* by the coroutines, one loop */
    struct co_mutex next_lock; /* held to find the next extent */
    uint64_t next;             /* bytes: its offset */
    uint64_t known_end;        /* the status `known` holds up to here */
    int known;                 /* enum extent_kind */
    uint64_t tickets, turn;    /* extents given out, written */
    struct co_queue turns;
    struct data_rate rate;
    struct progress progress;
    int ret; /* the first error */
    uint64_t failed_at;
    bool failed_reading;
    bool interrupted;
};

/* Copies all; copy->ret is 0 or what went wrong first. Prints no error. Outside coroutines. */
void copy_run(struct copy *copy);

#endif
