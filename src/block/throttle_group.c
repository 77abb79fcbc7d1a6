/* SPDX-License-Identifier: MIT */
/* Throttle groups: buckets, turns and timers. See throttle_group.h. */
#include "block/throttle_group.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"

/* A limit without a burst rate holds this part of a second, so that not every other request waits;
 * and so does the bucket that keeps a burst at its rate. */
#define SLACK 0.1

struct bucket {
    double level, brim;             /* units: bytes or operations */
    double rate;                    /* leaks, units per second; 0: no limit */
    double burst_level, burst_brim; /* with burst_rate */
    double burst_rate;              /* 0: bursts are not limited */
};

/* On the stack of the coroutine that waits. */
struct throttle_waiter {
    /* constant */
    struct throttle_group *group;
    struct coroutine *co;
    uint64_t bytes;
    struct aio_timer timer; /* runs in the coroutine's loop */
    /* under the group's lock; as soon as it has gone, only its loop's thread touches it */
    bool gone;
    struct throttle_waiter *next; /* of the member */
};

struct throttle_group {
    /* constant */
    char *name;
    /* main loop */
    unsigned refs, members;
    unsigned *users; /* which has `members` as well, or NULL */
    struct throttle_group *next;
    /* atomic */
    _Atomic(bool) limits; /* there are some */
    /* under lock, never held across a yield */
    pthread_mutex_t lock;
    struct throttle_config config;
    struct bucket buckets[THROTTLE_LIMITS];
    int64_t leaked_ns;               /* until when the buckets have leaked */
    unsigned waiting[2];             /* by direction */
    struct throttle_member *turn[2]; /* who comes next, or NULL if there is no member */
    int last_direction;
};

static struct throttle_group *first_group; /* main loop */

/* ---- buckets ---------------------------------------------------------------------------------- */

static void bucket_init(struct bucket *b, const struct throttle_limit *limit)
{
    double level = b->level, burst_level = b->burst_level; /* what was poured in stays in */

    *b = (struct bucket){.rate = (double)limit->rate};
    b->brim = limit->burst ? (double)limit->burst * (double)limit->burst_length : b->rate * SLACK;
    if (limit->burst_length > 1) {
        b->burst_rate = (double)limit->burst;
        b->burst_brim = b->burst_rate * SLACK;
    }
    b->level = MIN(level, b->brim);
    b->burst_level = MIN(burst_level, b->burst_brim);
}

static void leak_locked(struct throttle_group *group)
{
    int64_t now = clock_get_ns(AIO_CLOCK_RT);
    double seconds = (double)(now - group->leaked_ns) / NS_PER_SEC;

    group->leaked_ns = now;
    for (int i = 0; i < THROTTLE_LIMITS; i++) {
        struct bucket *b = &group->buckets[i];
        b->level = MAX(b->level - b->rate * seconds, 0);
        b->burst_level = MAX(b->burst_level - b->burst_rate * seconds, 0);
    }
}

/* Those that a request of a direction has to do with: the totals and its own. */
static bool concerns(int id, int direction)
{
    int kind = id % 3; /* total, read, write */

    return kind == 0 || kind == 1 + direction;
}

/* Nanoseconds until the next request may go. */
static int64_t wait_locked(const struct throttle_group *group, int direction)
{
    double seconds = 0;

    for (int i = 0; i < THROTTLE_LIMITS; i++) {
        const struct bucket *b = &group->buckets[i];
        if (!concerns(i, direction)) {
            continue;
        }
        if (b->rate > 0) {
            seconds = MAX(seconds, (b->level - b->brim) / b->rate);
        }
        if (b->burst_rate > 0) {
            seconds = MAX(seconds, (b->burst_level - b->burst_brim) / b->burst_rate);
        }
    }
    /* Rounded up, or a timer would come just too early. */
    return seconds > 0 ? (int64_t)MIN(seconds * NS_PER_SEC, 3600.0 * NS_PER_SEC) + 1 : 0;
}

/* times: 1, or -1 to take it out again. */
static void pour_locked(struct throttle_group *group, int direction, uint64_t bytes, int times)
{
    uint64_t size = group->config.iops_size;
    double operations = size && bytes > size ? (double)bytes / (double)size : 1;

    for (int i = 0; i < THROTTLE_LIMITS; i++) {
        struct bucket *b = &group->buckets[i];
        if (b->rate > 0 && concerns(i, direction)) {
            double units = times * (i < THROTTLE_IOPS_TOTAL ? (double)bytes : operations);
            b->level = MAX(b->level + units, 0);
            b->burst_level = MAX(b->burst_level + (b->burst_rate > 0 ? units : 0), 0);
        }
    }
}

/* ---- those that wait -------------------------------------------------------------------------- */

/* The member whose turn it is, of those with somebody who waits. */
static struct throttle_member *next_member_locked(struct throttle_group *group, int direction)
{
    struct throttle_member *member = group->turn[direction];

    while (!member->first[direction]) {
        member = member->next;
    }
    return member;
}

static void let_go_locked(struct throttle_member *member, int direction)
{
    struct throttle_group *group = member->group;
    struct throttle_waiter *waiter = member->first[direction];

    member->first[direction] = waiter->next;
    if (!waiter->next) {
        member->last[direction] = &member->first[direction];
    }
    group->waiting[direction]--;
    pour_locked(group, direction, waiter->bytes, 1);
    waiter->gone = true;
    co_wake(waiter->co);
}

static bool try_next_locked(struct throttle_group *group, int direction)
{
    if (!group->waiting[direction] || wait_locked(group, direction) > 0) {
        return false;
    }
    struct throttle_member *member = next_member_locked(group, direction);
    let_go_locked(member, direction);
    group->turn[direction] = member->next;
    group->last_direction = direction;
    return true;
}

/* Lets go who may, reads and writes by turns, and arms the timers of the next. */
static void dispatch_locked(struct throttle_group *group)
{
    leak_locked(group);
    while (try_next_locked(group, !group->last_direction) ||
           try_next_locked(group, group->last_direction)) {
    }
    for (int direction = 0; direction < 2; direction++) {
        if (group->waiting[direction]) {
            struct throttle_member *member = next_member_locked(group, direction);
            timer_set(&member->first[direction]->timer,
                      group->leaked_ns + wait_locked(group, direction));
        }
    }
}

/* In the waiter's loop. */
static void on_timer(void *opaque)
{
    struct throttle_waiter *waiter = opaque;
    struct throttle_group *group = waiter->group;

    pthread_mutex_lock(&group->lock);
    if (!waiter->gone) {
        dispatch_locked(group);
    }
    pthread_mutex_unlock(&group->lock);
}

static void co_wait(struct throttle_member *member, int direction, struct throttle_waiter *waiter)
{
    struct throttle_group *group = member->group;

    waiter->group = group;
    waiter->co = coroutine_self();
    timer_init(&waiter->timer, coroutine_loop(waiter->co), AIO_CLOCK_RT, on_timer, waiter);
    *member->last[direction] = waiter;
    member->last[direction] = &waiter->next;
    if (!group->waiting[direction]++) {
        dispatch_locked(group); /* nobody else has a timer */
    }
    pthread_mutex_unlock(&group->lock);
    coroutine_yield();
    timer_cancel(&waiter->timer); /* set by somebody who was about to wait less */
}

void co_throttle(struct throttle_member *member, int direction, uint64_t bytes)
{
    struct throttle_group *group = member->group;
    struct throttle_waiter waiter = {.bytes = bytes};

    if (!atomic_load_explicit(&group->limits, memory_order_relaxed)) {
        return;
    }
    pthread_mutex_lock(&group->lock);
    leak_locked(group);
    if (!member->unlimited && (group->waiting[direction] || wait_locked(group, direction) > 0)) {
        co_wait(member, direction, &waiter);
        return;
    }
    pour_locked(group, direction, bytes, 1);
    pthread_mutex_unlock(&group->lock);
}

void throttle_give_back(struct throttle_member *member, int direction, uint64_t bytes)
{
    struct throttle_group *group = member->group;

    if (!atomic_load_explicit(&group->limits, memory_order_relaxed)) {
        return;
    }
    pthread_mutex_lock(&group->lock);
    leak_locked(group);
    pour_locked(group, direction, bytes, -1);
    dispatch_locked(group); /* who waits may go sooner */
    pthread_mutex_unlock(&group->lock);
}

/* ---- members ---------------------------------------------------------------------------------- */

static void count_members(struct throttle_group *group, int change)
{
    group->members += change;
    if (group->users) {
        *group->users += change;
    }
}

void throttle_member_join(struct throttle_member *member, struct throttle_group *group)
{
    count_members(group, 1);
    throttle_group_ref(group);
    *member = (struct throttle_member){.group = group};
    pthread_mutex_lock(&group->lock);
    for (int direction = 0; direction < 2; direction++) {
        member->last[direction] = &member->first[direction];
        if (!group->turn[direction]) {
            group->turn[direction] = member;
        }
    }
    struct throttle_member *other = group->turn[0];
    member->next = other->next ? other->next : other;
    other->next = member;
    pthread_mutex_unlock(&group->lock);
}

void throttle_member_leave(struct throttle_member *member)
{
    struct throttle_group *group = member->group;

    pthread_mutex_lock(&group->lock);
    assert(!member->first[0] && !member->first[1]);
    struct throttle_member *before = member;
    while (before->next != member) {
        before = before->next;
    }
    before->next = member->next;
    for (int direction = 0; direction < 2; direction++) {
        if (group->turn[direction] == member) {
            group->turn[direction] = before == member ? NULL : member->next;
        }
    }
    pthread_mutex_unlock(&group->lock);
    count_members(group, -1);
    throttle_group_unref(group);
}

void throttle_member_drain_begin(struct throttle_member *member)
{
    struct throttle_group *group = member->group;

    pthread_mutex_lock(&group->lock);
    member->unlimited++;
    for (int direction = 0; direction < 2; direction++) {
        while (member->first[direction]) {
            let_go_locked(member, direction);
        }
    }
    dispatch_locked(group); /* the next of the others has no timer yet */
    pthread_mutex_unlock(&group->lock);
}

void throttle_member_drain_end(struct throttle_member *member)
{
    pthread_mutex_lock(&member->group->lock);
    member->unlimited--;
    pthread_mutex_unlock(&member->group->lock);
}

/* ---- groups ----------------------------------------------------------------------------------- */

struct throttle_group *throttle_group_find(const char *name)
{
    struct throttle_group *group = first_group;

    while (group && strcmp(group->name, name)) {
        group = group->next;
    }
    return group;
}

struct throttle_group *throttle_group_new(const char *name, struct error **errp)
{
    if (throttle_group_find(name)) {
        error_set(errp, "A throttle group '%s' exists already", name);
        return NULL;
    }
    struct throttle_group *group = xnew(struct throttle_group);
    group->name = xstrdup(name);
    group->refs = 1;
    pthread_mutex_init(&group->lock, NULL);
    throttle_config_init(&group->config);
    group->leaked_ns = clock_get_ns(AIO_CLOCK_RT);
    group->next = first_group;
    first_group = group;
    return group;
}

const char *throttle_group_name(const struct throttle_group *group)
{
    return group->name;
}

void throttle_group_ref(struct throttle_group *group)
{
    group->refs++;
}

void throttle_group_unref(struct throttle_group *group)
{
    struct throttle_group **p = &first_group;

    assert(group->refs > 0);
    if (--group->refs) {
        return;
    }
    while (*p != group) {
        p = &(*p)->next;
    }
    *p = group->next;
    pthread_mutex_destroy(&group->lock);
    free(group->name);
    free(group);
}

void throttle_group_count_users(struct throttle_group *group, unsigned *users)
{
    group->users = users;
    if (users) {
        *users += group->members;
    }
}

void throttle_group_set(struct throttle_group *group, const struct throttle_config *config)
{
    pthread_mutex_lock(&group->lock);
    leak_locked(group);
    group->config = *config;
    for (int i = 0; i < THROTTLE_LIMITS; i++) {
        bucket_init(&group->buckets[i], &config->limit[i]);
    }
    atomic_store(&group->limits, throttle_config_is_on(config));
    dispatch_locked(group);
    pthread_mutex_unlock(&group->lock);
}

void throttle_group_get(struct throttle_group *group, struct throttle_config *config)
{
    pthread_mutex_lock(&group->lock);
    *config = group->config;
    pthread_mutex_unlock(&group->lock);
}

struct throttle_group *throttle_group_new_from(struct options *opts, struct error **errp)
{
    const char *id = options_get(opts, "id");
    struct throttle_config config;

    throttle_config_init(&config);
    if (!id) {
        error_set(errp, "Parameter 'id' is missing");
        return NULL;
    }
    if (!throttle_config_parse(&config, opts, "x-", errp) ||
        !throttle_config_parse(&config, opts, "limits.", errp) ||
        !throttle_config_check(&config, errp)) {
        return NULL;
    }
    struct throttle_group *group = throttle_group_new(id, errp);
    if (group) {
        throttle_group_set(group, &config);
    }
    return group;
}
