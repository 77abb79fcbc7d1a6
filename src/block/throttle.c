/* SPDX-License-Identifier: MIT */
/* throttle: a filter whose requests wait as the limits of its group say (throttle_group.h). */
#include <errno.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "block/drivers.h"
#include "block/node.h"
#include "block/throttle_group.h"

struct throttle_state {
    struct throttle_member member;
};

static bool throttle_open(struct block_node *node, struct options *opts, struct error **errp)
{
    struct throttle_state *s = node->state;
    const char *name = options_get(opts, "throttle-group");

    if (!name) {
        error_set(errp, "Please specify a throttle group: throttle-group=ID of -object "
                        "throttle-group,id=ID");
        return false;
    }
    if (!block_node_open_child(node, opts, "file", BLOCK_CHILD_FILTERED, errp)) {
        return false;
    }
    struct throttle_group *group = throttle_group_find(name);
    if (!group) {
        error_set(errp,
                  "Throttle group '%s' does not exist; make it with -object "
                  "throttle-group,id=%s",
                  name, name);
        return false;
    }
    throttle_member_join(&s->member, group);
    free(node->filename);
    node->filename = xstrdup(node->file->filename);
    return true;
}

static void throttle_close(struct block_node *node)
{
    struct throttle_state *s = node->state;

    throttle_member_leave(&s->member);
}

struct throttle_group *throttle_node_group(const struct block_node *node)
{
    const struct throttle_state *s = node->state;

    return node->driver == &block_driver_throttle ? s->member.group : NULL;
}

static int64_t throttle_length(struct block_node *node)
{
    return (int64_t)block_length(node->file);
}

static bool throttle_allow_growth(struct block_node *node)
{
    return block_node_allow_growth(node->file);
}

static int throttle_co_preadv(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                              unsigned flags, uint64_t id)
{
    struct throttle_state *s = node->state;

    co_throttle(&s->member, THROTTLE_READ, iov->size);
    return block_co_preadv(node->file, offset, iov, flags, id);
}

static int throttle_co_pwritev(struct block_node *node, uint64_t offset,
                               const struct block_iov *iov, unsigned flags, uint64_t id)
{
    struct throttle_state *s = node->state;

    co_throttle(&s->member, THROTTLE_WRITE, iov->size);
    return block_co_pwritev(node->file, offset, iov, flags, id);
}

static int throttle_co_discard(struct block_node *node, uint64_t offset, uint64_t length)
{
    struct throttle_state *s = node->state;

    co_throttle(&s->member, THROTTLE_WRITE, length);
    return block_co_discard(node->file, offset, length);
}

static int throttle_co_write_zeroes(struct block_node *node, uint64_t offset, uint64_t length,
                                    unsigned flags)
{
    struct throttle_state *s = node->state;

    co_throttle(&s->member, THROTTLE_WRITE, length);
    int ret = block_co_write_zeroes(node->file, offset, length, flags);
    if (ret == -ENOTSUP) {
        /* Who asked writes them instead, and that counts. */
        throttle_give_back(&s->member, THROTTLE_WRITE, length);
    }
    return ret;
}

static void throttle_drain_begin(struct block_node *node)
{
    struct throttle_state *s = node->state;

    throttle_member_drain_begin(&s->member);
}

static void throttle_drain_end(struct block_node *node)
{
    struct throttle_state *s = node->state;

    throttle_member_drain_end(&s->member);
}

static const struct node_option options[] = {
    {"throttle-group", NODE_OPTION_STRING, true},
    {"file", NODE_OPTION_CHILD},
    {NULL},
};

const struct block_driver block_driver_throttle = {
    .name = "throttle",
    .help = "limits the rate of requests; throttle-group=, file=",
    .is_filter = true,
    .state_size = sizeof(struct throttle_state),
    .options = options,
    .supported_flags = BLOCK_REQ_FUA | BLOCK_REQ_COMPRESSED,
    .open = throttle_open,
    .close = throttle_close,
    .length = throttle_length,
    .allow_growth = throttle_allow_growth,
    .co_preadv = throttle_co_preadv,
    .co_pwritev = throttle_co_pwritev,
    .co_discard = throttle_co_discard,
    .co_write_zeroes = throttle_co_write_zeroes,
    .drain_begin = throttle_drain_begin,
    .drain_end = throttle_drain_end,
};
