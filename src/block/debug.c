/* SPDX-License-Identifier: MIT */
/* Events on their way to a blkdebug node, and its breakpoints. See debug.h. */
#include "block/debug.h"

#include <errno.h>
#include <string.h>

#include "aio/loop.h"
#include "block/blkdebug.h"
#include "block/node.h"

const char *const block_debug_event_names[] = {
    [BLOCK_EVENT_L1_UPDATE] = "l1_update",
    [BLOCK_EVENT_L1_GROW_ALLOC_TABLE] = "l1_grow_alloc_table",
    [BLOCK_EVENT_L1_GROW_WRITE_TABLE] = "l1_grow_write_table",
    [BLOCK_EVENT_L1_GROW_ACTIVATE_TABLE] = "l1_grow_activate_table",
    [BLOCK_EVENT_L2_LOAD] = "l2_load",
    [BLOCK_EVENT_L2_UPDATE] = "l2_update",
    [BLOCK_EVENT_L2_UPDATE_COMPRESSED] = "l2_update_compressed",
    [BLOCK_EVENT_L2_ALLOC_COW_READ] = "l2_alloc_cow_read",
    [BLOCK_EVENT_L2_ALLOC_WRITE] = "l2_alloc_write",
    [BLOCK_EVENT_READ_AIO] = "read_aio",
    [BLOCK_EVENT_READ_BACKING_AIO] = "read_backing_aio",
    [BLOCK_EVENT_READ_COMPRESSED] = "read_compressed",
    [BLOCK_EVENT_WRITE_AIO] = "write_aio",
    [BLOCK_EVENT_WRITE_COMPRESSED] = "write_compressed",
    [BLOCK_EVENT_VMSTATE_LOAD] = "vmstate_load",
    [BLOCK_EVENT_VMSTATE_SAVE] = "vmstate_save",
    [BLOCK_EVENT_COW_READ] = "cow_read",
    [BLOCK_EVENT_COW_WRITE] = "cow_write",
    [BLOCK_EVENT_REFTABLE_LOAD] = "reftable_load",
    [BLOCK_EVENT_REFTABLE_GROW] = "reftable_grow",
    [BLOCK_EVENT_REFTABLE_UPDATE] = "reftable_update",
    [BLOCK_EVENT_REFBLOCK_LOAD] = "refblock_load",
    [BLOCK_EVENT_REFBLOCK_UPDATE] = "refblock_update",
    [BLOCK_EVENT_REFBLOCK_UPDATE_PART] = "refblock_update_part",
    [BLOCK_EVENT_REFBLOCK_ALLOC] = "refblock_alloc",
    [BLOCK_EVENT_REFBLOCK_ALLOC_HOOKUP] = "refblock_alloc_hookup",
    [BLOCK_EVENT_REFBLOCK_ALLOC_WRITE] = "refblock_alloc_write",
    [BLOCK_EVENT_REFBLOCK_ALLOC_WRITE_BLOCKS] = "refblock_alloc_write_blocks",
    [BLOCK_EVENT_REFBLOCK_ALLOC_WRITE_TABLE] = "refblock_alloc_write_table",
    [BLOCK_EVENT_REFBLOCK_ALLOC_SWITCH_TABLE] = "refblock_alloc_switch_table",
    [BLOCK_EVENT_CLUSTER_ALLOC] = "cluster_alloc",
    [BLOCK_EVENT_CLUSTER_ALLOC_BYTES] = "cluster_alloc_bytes",
    [BLOCK_EVENT_CLUSTER_FREE] = "cluster_free",
    [BLOCK_EVENT_FLUSH_TO_OS] = "flush_to_os",
    [BLOCK_EVENT_FLUSH_TO_DISK] = "flush_to_disk",
    [BLOCK_EVENT_PWRITEV_RMW_HEAD] = "pwritev_rmw_head",
    [BLOCK_EVENT_PWRITEV_RMW_AFTER_HEAD] = "pwritev_rmw_after_head",
    [BLOCK_EVENT_PWRITEV_RMW_TAIL] = "pwritev_rmw_tail",
    [BLOCK_EVENT_PWRITEV_RMW_AFTER_TAIL] = "pwritev_rmw_after_tail",
    [BLOCK_EVENT_PWRITEV] = "pwritev",
    [BLOCK_EVENT_PWRITEV_ZERO] = "pwritev_zero",
    [BLOCK_EVENT_PWRITEV_DONE] = "pwritev_done",
    [BLOCK_EVENT_EMPTY_IMAGE_PREPARE] = "empty_image_prepare",
    [BLOCK_EVENT_L1_SHRINK_WRITE_TABLE] = "l1_shrink_write_table",
    [BLOCK_EVENT_L1_SHRINK_FREE_L2_CLUSTERS] = "l1_shrink_free_l2_clusters",
    [BLOCK_EVENT_COR_WRITE] = "cor_write",
    [BLOCK_EVENT_CLUSTER_ALLOC_SPACE] = "cluster_alloc_space",
    [BLOCK_EVENT_NONE] = "none",
    NULL,
};

_Atomic(unsigned) block_debug_nodes;

static struct blkdebug_rules *find_rules(struct block_node *node)
{
    for (; node; node = node->file) {
        if (node->driver == &block_driver_blkdebug) {
            return node->state;
        }
    }
    return NULL;
}

void block_debug_event_slow(struct block_node *node, enum block_event event)
{
    struct blkdebug_rules *rules = find_rules(node);

    if (rules) {
        blkdebug_event(rules, event);
    }
}

/* ---- breakpoints ------------------------------------------------------------------------------ */

int block_debug_break(struct block_node *node, const char *event, const char *tag)
{
    struct blkdebug_rules *rules = find_rules(node);

    for (int i = 0; rules && block_debug_event_names[i]; i++) {
        if (!strcmp(block_debug_event_names[i], event)) {
            blkdebug_break(rules, i, tag);
            return 0;
        }
    }
    return rules ? -ENOENT : -ENOTSUP;
}

int block_debug_resume(struct block_node *node, const char *tag)
{
    struct blkdebug_rules *rules = find_rules(node);

    return !rules ? -ENOTSUP : blkdebug_resume(rules, tag) ? 0 : -ENOENT;
}

int block_debug_remove_break(struct block_node *node, const char *tag)
{
    struct blkdebug_rules *rules = find_rules(node);

    if (!rules) {
        return -ENOTSUP;
    }
    bool removed = blkdebug_remove_break(rules, tag);
    while (blkdebug_resume(rules, tag)) {
        removed = true;
    }
    return removed ? 0 : -ENOENT;
}

bool block_debug_is_suspended(struct block_node *node, const char *tag)
{
    struct blkdebug_rules *rules = find_rules(node);

    return rules && blkdebug_is_suspended(rules, tag);
}

int block_debug_wait_break(struct block_node *node, const char *tag)
{
    struct blkdebug_rules *rules = find_rules(node);

    if (!rules) {
        return -ENOTSUP;
    }
    blkdebug_watch(rules, aio_loop_current());
    while (!blkdebug_is_suspended(rules, tag)) {
        aio_loop_poll(aio_loop_current(), true);
    }
    blkdebug_watch(rules, NULL);
    return 0;
}

void block_debug_set_report(void (*report)(const char *line))
{
    blkdebug_set_report(report);
}
