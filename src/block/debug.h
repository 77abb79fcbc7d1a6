/* SPDX-License-Identifier: MIT */
/*
 * Events: what a driver is about to do, told to the blkdebug node below it, if there is one. A
 * rule there (blkdebug.c) makes the requests that follow fail, or a breakpoint holds the coroutine.
 *
 *   qcow2: block_debug_event(node, BLOCK_EVENT_L2_UPDATE); block_co_pwritev(node->file, …)
 *             |                                                  |
 *             +--> blkdebug: rules of l2_update are active       +--> blkdebug: -EIO
 *
 * The event is told right before the request it is about. Without a blkdebug node in the process,
 * telling it costs a load and a branch.
 */
#ifndef FERRY_BLOCK_DEBUG_H
#define FERRY_BLOCK_DEBUG_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/error.h"

struct block_node;

/* As QMP's BlkdebugEvent; block_debug_event_names[] has their names. */
enum block_event {
    BLOCK_EVENT_L1_UPDATE,
    BLOCK_EVENT_L1_GROW_ALLOC_TABLE,
    BLOCK_EVENT_L1_GROW_WRITE_TABLE,
    BLOCK_EVENT_L1_GROW_ACTIVATE_TABLE,
    BLOCK_EVENT_L2_LOAD,
    BLOCK_EVENT_L2_UPDATE,
    BLOCK_EVENT_L2_UPDATE_COMPRESSED,
    BLOCK_EVENT_L2_ALLOC_COW_READ,
    BLOCK_EVENT_L2_ALLOC_WRITE,
    BLOCK_EVENT_READ_AIO,
    BLOCK_EVENT_READ_BACKING_AIO,
    BLOCK_EVENT_READ_COMPRESSED,
    BLOCK_EVENT_WRITE_AIO,
    BLOCK_EVENT_WRITE_COMPRESSED,
    BLOCK_EVENT_VMSTATE_LOAD,
    BLOCK_EVENT_VMSTATE_SAVE,
    BLOCK_EVENT_COW_READ,
    BLOCK_EVENT_COW_WRITE,
    BLOCK_EVENT_REFTABLE_LOAD,
    BLOCK_EVENT_REFTABLE_GROW,
    BLOCK_EVENT_REFTABLE_UPDATE,
    BLOCK_EVENT_REFBLOCK_LOAD,
    BLOCK_EVENT_REFBLOCK_UPDATE,
    BLOCK_EVENT_REFBLOCK_UPDATE_PART,
    BLOCK_EVENT_REFBLOCK_ALLOC,
    BLOCK_EVENT_REFBLOCK_ALLOC_HOOKUP,
    BLOCK_EVENT_REFBLOCK_ALLOC_WRITE,
    BLOCK_EVENT_REFBLOCK_ALLOC_WRITE_BLOCKS,
    BLOCK_EVENT_REFBLOCK_ALLOC_WRITE_TABLE,
    BLOCK_EVENT_REFBLOCK_ALLOC_SWITCH_TABLE,
    BLOCK_EVENT_CLUSTER_ALLOC,
    BLOCK_EVENT_CLUSTER_ALLOC_BYTES,
    BLOCK_EVENT_CLUSTER_FREE,
    BLOCK_EVENT_FLUSH_TO_OS,
    BLOCK_EVENT_FLUSH_TO_DISK, /* told by blkdebug itself when it is flushed */
    /* Told by io.c and blkdebug of the blkdebug node's own requests. */
    BLOCK_EVENT_PWRITEV_RMW_HEAD,
    BLOCK_EVENT_PWRITEV_RMW_AFTER_HEAD,
    BLOCK_EVENT_PWRITEV_RMW_TAIL,
    BLOCK_EVENT_PWRITEV_RMW_AFTER_TAIL,
    BLOCK_EVENT_PWRITEV,
    BLOCK_EVENT_PWRITEV_ZERO,
    BLOCK_EVENT_PWRITEV_DONE,
    BLOCK_EVENT_EMPTY_IMAGE_PREPARE,
    BLOCK_EVENT_L1_SHRINK_WRITE_TABLE,
    BLOCK_EVENT_L1_SHRINK_FREE_L2_CLUSTERS,
    BLOCK_EVENT_COR_WRITE,
    BLOCK_EVENT_CLUSTER_ALLOC_SPACE,
    BLOCK_EVENT_NONE, /* once, when the blkdebug node is opened */
};
extern const char *const block_debug_event_names[]; /* NULL-terminated, in the enum's order */

extern _Atomic(unsigned) block_debug_nodes; /* blkdebug nodes that are open */
void block_debug_event_slow(struct block_node *node, enum block_event event);

/* Tells the nearest blkdebug node along node->file, `node` itself first. May yield, if there is a
 * breakpoint and this is a coroutine. Any loop. */
static inline void block_debug_event(struct block_node *node, enum block_event event)
{
    if (__builtin_expect(atomic_load_explicit(&block_debug_nodes, memory_order_relaxed) != 0, 0)) {
        block_debug_event_slow(node, event);
    }
}

/* ---- breakpoints ------------------------------------------------------------------------------ */

/* As ferry-io's break, resume, remove_break and wait_break; of the blkdebug node nearest below
 * `node`. 0 or negative errno: -ENOTSUP if there is no blkdebug node, -ENOENT if it has no such event
 * or tag. Main loop. */

/* The next coroutine that tells `event` is held until `tag` is resumed. */
int block_debug_break(struct block_node *node, const char *event, const char *tag);
int block_debug_resume(struct block_node *node, const char *tag);
/* Also resumes what it holds. */
int block_debug_remove_break(struct block_node *node, const char *tag);
bool block_debug_is_suspended(struct block_node *node, const char *tag);
/* Polls the loop of this thread until somebody is held by `tag`. Not in a coroutine. */
int block_debug_wait_break(struct block_node *node, const char *tag);
/* Who wants to hear "Suspended request 'TAG'"; NULL: nobody. Called in any loop. */
void block_debug_set_report(void (*report)(const char *line));

#endif
