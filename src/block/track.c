/* SPDX-License-Identifier: MIT */
/* Serialising of overlapping writes: the slow side. See track.h. */
#include "block/track.h"

#include <assert.h>
#include <stddef.h>

#include "base/range.h"

void track_init(struct block_tracker *tracker)
{
    co_mutex_init(&tracker->mutex);
    co_queue_init(&tracker->changed);
}

void track_destroy(struct block_tracker *tracker)
{
    assert(!tracker->list && striped_is_zero(&tracker->writes));
    co_queue_destroy(&tracker->changed);
    co_mutex_destroy(&tracker->mutex);
}

/* Only earlier writes are waited for; two that merely cover blocks do not mind each other. */
static bool must_wait_locked(struct block_tracker *tracker, const struct tracked_write *write)
{
    if (write->serialising && !striped_is_zero(&tracker->writes)) {
        return true;
    }
    for (const struct tracked_write *w = tracker->list; w; w = w->next) {
        if (w->ticket < write->ticket && (w->serialising || write->serialising) &&
            range_overlaps(w->offset, w->length, write->offset, write->length)) {
            return true;
        }
    }
    return false;
}

void co_track_begin_slow(struct block_tracker *tracker, struct tracked_write *write)
{
    co_mutex_lock(&tracker->mutex);
    if (write->serialising) {
        /* Pairs with co_track_begin(): it adds to `writes`, then loads `serialising`. */
        atomic_fetch_add(&tracker->serialising, 1);
    }
    write->ticket = tracker->next_ticket++;
    write->next = tracker->list;
    tracker->list = write;
    if (write->counted) {
        /* Listed from now on, so that the serialising writes wait for it by range, if at all. */
        write->counted = false;
        striped_sub(&tracker->writes);
        co_queue_wake_all(&tracker->changed);
    }
    while (must_wait_locked(tracker, write)) {
        co_queue_wait(&tracker->changed, &tracker->mutex);
    }
    co_mutex_unlock(&tracker->mutex);
}

/* Also for a counted write that ended while another waits for the counter to be zero. */
void co_track_end_slow(struct block_tracker *tracker, struct tracked_write *write)
{
    co_mutex_lock(&tracker->mutex);
    if (!write->counted) {
        struct tracked_write **p = &tracker->list;
        while (*p != write) {
            p = &(*p)->next;
        }
        *p = write->next;
        if (write->serialising) {
            atomic_fetch_sub(&tracker->serialising, 1);
        }
    }
    co_queue_wake_all(&tracker->changed);
    co_mutex_unlock(&tracker->mutex);
}
