/* SPDX-License-Identifier: MIT */
/* Parts of one request that run side by side, each in a coroutine of its own on the request's loop. */
#ifndef FERRY_BLOCK_TASKS_H
#define FERRY_BLOCK_TASKS_H

#include "aio/coroutine.h"

#define BLOCK_TASKS_MAX 8 /* of a request, at the same time */

/* The parts of one request; {0} has none. Owned by the coroutine that starts and awaits them. */
struct block_tasks {
    struct coroutine *waiter;
    unsigned running;
    int ret; /* 0, or the first error: no more need be started */
};

/* The first member of what a part needs, which is allocated and freed when it has ended. */
struct block_task {
    int (*co_fn)(struct block_task *task); /* 0 or a negative errno */
    struct block_tasks *tasks;
};

/* Runs task up to where it first waits for something (or to its end, where coroutines are scarce);
 * before that, waits for others if there are too many. Takes task. */
void co_block_tasks_start(struct block_tasks *tasks, struct block_task *task);
/* All that were started have ended. Returns tasks->ret. */
int co_block_tasks_wait(struct block_tasks *tasks);

#endif
