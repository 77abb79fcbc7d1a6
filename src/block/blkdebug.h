/* SPDX-License-Identifier: MIT */
/*
 * The rules of a blkdebug node: which events make which requests fail.
 *
 *   event --> set-state rules:    the state that the node is in from now on
 *         --> inject-error rules: those of this event and the present state are active from now
 *                                 on, instead of those that were active; without any, these stay
 *         --> breakpoints:        the coroutine is held, by the first of them, which is used up
 *
 *   request --> the first active rule of its kind and range gives its error
 *
 * State begins with 1; 0 in a rule means any state. All this is as QEMU's blkdebug does it; a delay=
 * is ours: rules with a delay add theirs up, those with errno=0 do nothing else.
 */
#ifndef FERRY_BLOCK_BLKDEBUG_H
#define FERRY_BLOCK_BLKDEBUG_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "aio/loop.h"
#include "base/options.h"
#include "block/debug.h"
#include "block/drivers.h"

enum blkdebug_iotype {
    BLKDEBUG_READ,
    BLKDEBUG_WRITE,
    BLKDEBUG_WRITE_ZEROES,
    BLKDEBUG_DISCARD,
    BLKDEBUG_FLUSH,
    BLKDEBUG_BLOCK_STATUS
};

struct blkdebug_rule;
struct blkdebug_held;

/* The first member of a blkdebug node's state. */
struct blkdebug_rules {
    pthread_mutex_t lock; /* guards all below; never held across a yield */
    unsigned state;
    struct blkdebug_rule *first, **last;
    struct blkdebug_held *held; /* coroutines at breakpoints */
    struct aio_loop *watcher;   /* woken when one is held, or NULL */
};

struct blkdebug_outcome {
    int error;         /* negative errno or 0 */
    bool immediately;  /* without a yield before */
    uint64_t delay_ns; /* before all else */
};

void blkdebug_rules_init(struct blkdebug_rules *rules);
void blkdebug_rules_destroy(struct blkdebug_rules *rules);
/* "inject-error.N.…" and "set-state.N.…" of opts. */
bool blkdebug_rules_parse(struct blkdebug_rules *rules, struct options *opts, struct error **errp);
/* A configuration file as QEMU's: [inject-error] and [set-state], key = "value". */
bool blkdebug_config_read(const char *filename, struct options *opts, struct error **errp);

void blkdebug_event(struct blkdebug_rules *rules, enum block_event event);
struct blkdebug_outcome blkdebug_check(struct blkdebug_rules *rules, enum blkdebug_iotype type,
                                       uint64_t offset, uint64_t length);

void blkdebug_break(struct blkdebug_rules *rules, enum block_event event, const char *tag);
bool blkdebug_remove_break(struct blkdebug_rules *rules, const char *tag);
bool blkdebug_resume(struct blkdebug_rules *rules, const char *tag); /* one; false: there is none */
bool blkdebug_is_suspended(struct blkdebug_rules *rules, const char *tag);
void blkdebug_watch(struct blkdebug_rules *rules, struct aio_loop *loop);
void blkdebug_set_report(void (*report)(const char *line));

#endif
