/* SPDX-License-Identifier: MIT */
/*
 * Throttle groups: limits that several nodes share (throttle.c is the node).
 *
 *   node "t0" (member) --reads: [w] [w]   --\
 *                        writes:            |   who is next by turns -> timer in the loop of that
 *   node "t1" (member) --reads: [w]       --+-> request -> lets go all that fit the buckets
 *                        writes: [w] [w]  --/
 *
 * Each limit is a leaky bucket: a request may go as long as none of its buckets is over the brim,
 * and then pours in what it is, 1 operation and its bytes; so a large one goes and makes those
 * after it wait. A bucket leaks at the limit's rate. It holds a tenth of a second of that, or, with
 * a burst rate, what a burst of the given length may have; then a second bucket, that leaks at
 * the burst's rate, keeps the burst from being faster.
 *
 * Requests of a member go first come, first served, separately for reads and writes; members take
 * turns. All of it is under the group's lock, from any loop; of those that wait, only the next
 * read and the next write have a timer, each in its own loop.
 */
#ifndef FERRY_BLOCK_THROTTLE_GROUP_H
#define FERRY_BLOCK_THROTTLE_GROUP_H

#include <pthread.h>
#include <stdatomic.h>

#include "aio/coroutine.h"
#include "block/throttle_config.h"

#define THROTTLE_READ  0
#define THROTTLE_WRITE 1 /* also discards and zeroes */

struct block_node;
struct throttle_waiter;
struct throttle_group;

struct throttle_member {
    /* constant while it is a member */
    struct throttle_group *group;
    /* under the group's lock */
    struct throttle_waiter *first[2], **last[2];
    unsigned unlimited;           /* drains, stops: nobody waits */
    struct throttle_member *next; /* of the group, in a ring */
};

/* Groups by name; main loop. A reference each for the object of -object and for each member. */
struct throttle_group *throttle_group_new(const char *name, struct error **errp);
struct throttle_group *throttle_group_find(const char *name);
const char *throttle_group_name(const struct throttle_group *group);
void throttle_group_ref(struct throttle_group *group);
void throttle_group_unref(struct throttle_group *group);
/* Adds to *users as long as there are members; NULL: no longer. */
void throttle_group_count_users(struct throttle_group *group, unsigned *users);
/* Other limits, also for those that wait already. config has been checked. */
void throttle_group_set(struct throttle_group *group, const struct throttle_config *config);
void throttle_group_get(struct throttle_group *group, struct throttle_config *config);
/* "-object throttle-group,id=…" for programs without devices: "id" and the limits, "x-iops-total"
 * or "limits.iops-total". NULL: *errp. The caller has a reference. */
struct throttle_group *throttle_group_new_from(struct options *opts, struct error **errp);

void throttle_member_join(struct throttle_member *member, struct throttle_group *group);
void throttle_member_leave(struct throttle_member *member); /* nobody waits */
/* From begin to end requests of the member go at once, those that wait, too; they count all the
 * same. Main loop. */
void throttle_member_drain_begin(struct throttle_member *member);
void throttle_member_drain_end(struct throttle_member *member);

/* The group of a throttle node (throttle.c), or NULL if it is none. */
struct throttle_group *throttle_node_group(const struct block_node *node);

/* Yields until a request of so many bytes may go. Any loop. */
void co_throttle(struct throttle_member *member, int direction, uint64_t bytes);
/* What went as such a request has done nothing, and does not count. Any loop. */
void throttle_give_back(struct throttle_member *member, int direction, uint64_t bytes);

#endif
