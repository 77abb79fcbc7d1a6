/* SPDX-License-Identifier: MIT */
/*
 * Writes that must not overlap: read-modify-write against all other writes of a node.
 *
 * A write that does not cover whole blocks of the node's request_alignment reads the blocks at its
 * ends, changes them and writes them back; a write by somebody else to the same blocks in between
 * would be lost. So it *serialises*: it waits for all overlapping writes that came before, and
 * those that come after wait for it.
 *
 * Aligned writes are only counted as long as no write serialises (the fast path: no lock, no
 * list). A serialising write turns that off, waits until the counted ones are done, and from then
 * on all writes are listed by range until no write serialises any more. Each waits only for those
 * with a lower ticket, so there is no cycle.
 *
 * Nodes whose request_alignment is 1 need none of this and are not tracked.
 */
#ifndef FERRY_BLOCK_TRACK_H
#define FERRY_BLOCK_TRACK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "aio/coroutine.h"
#include "block/gate.h"

struct tracked_write {
    bool counted; /* on the fast path, the rest is unused */
    bool serialising;
    uint64_t offset, length, ticket;
    struct tracked_write *next;
};

struct block_tracker {
    /* atomic */
    struct striped_count writes;   /* counted ones */
    _Atomic(unsigned) serialising; /* serialising writes, waiting or running */
    /* under mutex */
    struct co_mutex mutex;
    struct co_queue changed; /* a listed write ended, or the last counted one */
    struct tracked_write *list;
    uint64_t next_ticket;
};

void track_init(struct block_tracker *tracker);
void track_destroy(struct block_tracker *tracker);

void co_track_begin_slow(struct block_tracker *tracker, struct tracked_write *write);
void co_track_end_slow(struct block_tracker *tracker, struct tracked_write *write);

/* A write of whole blocks. */
static inline void co_track_begin(struct block_tracker *tracker, struct tracked_write *write,
                                  uint64_t offset, uint64_t length)
{
    striped_add(&tracker->writes);
    write->counted = true;
    if (__builtin_expect(atomic_load(&tracker->serialising) != 0, 0)) {
        *write = (struct tracked_write){.counted = true, .offset = offset, .length = length};
        co_track_begin_slow(tracker, write);
    }
}

/* A read-modify-write; the range is rounded to whole blocks. */
static inline void co_track_begin_serialising(struct block_tracker *tracker,
                                              struct tracked_write *write, uint64_t offset,
                                              uint64_t length)
{
    *write = (struct tracked_write){.serialising = true, .offset = offset, .length = length};
    co_track_begin_slow(tracker, write);
}

static inline void co_track_end(struct block_tracker *tracker, struct tracked_write *write)
{
    if (__builtin_expect(write->counted, 1)) {
        striped_sub(&tracker->writes);
        if (__builtin_expect(atomic_load(&tracker->serialising) == 0, 1)) {
            return;
        }
    }
    co_track_end_slow(tracker, write);
}

#endif
