/* SPDX-License-Identifier: MIT */
/* Parts of a request. See tasks.h. */
#include "block/tasks.h"

#include <stdlib.h>

static void co_task(void *opaque)
{
    struct block_task *task = opaque;
    struct block_tasks *tasks = task->tasks;
    int ret = task->co_fn(task);

    free(task);
    tasks->running--;
    if (ret < 0 && !tasks->ret) {
        tasks->ret = ret;
    }
    if (tasks->waiter) {
        struct coroutine *waiter = tasks->waiter;
        tasks->waiter = NULL;
        co_wake(waiter);
    }
}

static void co_wait_for_fewer(struct block_tasks *tasks, unsigned than)
{
    while (tasks->running >= than) {
        tasks->waiter = coroutine_self();
        coroutine_yield();
    }
}

void co_block_tasks_start(struct block_tasks *tasks, struct block_task *task)
{
    co_wait_for_fewer(tasks, BLOCK_TASKS_MAX);
    tasks->running++;
    task->tasks = tasks;
    if (coroutine_are_scarce()) {
        co_task(task);
        return;
    }
    coroutine_enter(coroutine_new(co_task, task));
}

int co_block_tasks_wait(struct block_tasks *tasks)
{
    co_wait_for_fewer(tasks, 1);
    return tasks->ret;
}
