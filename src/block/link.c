/* SPDX-License-Identifier: MIT */
/*
 * Who uses a node: the links of the graph, what users claim, which goes down along the links to the
 * files' locks, and drains, which go up to the gates.
 *
 * A node's `drained` is the sum of the drains of itself and, over all its children, of theirs; a
 * link made or removed in the middle of a drain carries its share, so begin and end always match.
 */
#include <assert.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "block/gate.h"
#include "block/node_int.h"

/* ---- drains ---------------------------------------------------------------------------------- */

static void drain_user(struct block_link *link, int change);

static void drain_node(struct block_node *node, int change)
{
    unsigned before = node->drained, after = before + change;

    if (!before && after && node->driver->drain_begin) {
        node->driver->drain_begin(node);
    }
    if (before && !after && node->driver->drain_end) {
        node->driver->drain_end(node); /* below gates that are still closed */
    }
    node->drained += change;
    for (struct block_link *link = node->users; link; link = link->next_user) {
        drain_user(link, change);
    }
}

static void drain_user(struct block_link *link, int change)
{
    if (link->parent) {
        drain_node(link->parent, change);
        return;
    }
    for (; change > 0; change--) {
        gate_close(link->gate);
    }
    for (; change < 0; change++) {
        gate_open(link->gate);
    }
}

static bool gates_above_idle(void *opaque)
{
    struct block_node *node = opaque;

    for (struct block_link *link = node->users; link; link = link->next_user) {
        if (link->parent ? !gates_above_idle(link->parent) : !gate_is_idle(link->gate)) {
            return false;
        }
    }
    return true;
}

/* Those below that hold requests back by themselves (throttle), and the node itself. */
struct block_hurry {
    struct block_node **nodes;
    size_t count;
};

static void hurry(struct block_hurry *hurried, struct block_node *node)
{
    if (node->driver->drain_begin) {
        hurried->nodes = xreallocarray(hurried->nodes, hurried->count + 1, sizeof(node));
        hurried->nodes[hurried->count++] = node;
        block_node_ref(node);
        node->driver->drain_begin(node);
    }
    for (struct block_link *link = node->children; link; link = link->next_child) {
        hurry(hurried, link->node);
    }
}

struct block_hurry *block_hurry_begin(struct block_node *node)
{
    struct block_hurry *hurried = xnew(struct block_hurry);

    hurry(hurried, node);
    return hurried;
}

void block_hurry_end(struct block_hurry *hurried)
{
    for (size_t i = 0; i < hurried->count; i++) {
        hurried->nodes[i]->driver->drain_end(hurried->nodes[i]);
        block_node_unref(hurried->nodes[i]);
    }
    free(hurried->nodes);
    free(hurried);
}

void block_node_wait_idle(struct block_node *node, bool (*idle)(void *opaque), void *opaque)
{
    struct block_hurry *hurried = block_hurry_begin(node);

    gate_wait_idle(idle, opaque);
    block_hurry_end(hurried);
}

void block_node_drain_begin(struct block_node *node)
{
    drain_node(node, 1);
    block_node_wait_idle(node, gates_above_idle, node);
}

void block_node_drain_end(struct block_node *node)
{
    assert(node->drained > 0);
    drain_node(node, -1);
}

/* ---- links ----------------------------------------------------------------------------------- */

static bool check_claim(const struct block_link *link, enum block_claim claim, bool shares_write,
                        struct error **errp)
{
    const struct block_node *node = link->node;

    for (const struct block_link *other = node->users; other; other = other->next_user) {
        if (other == link || claim == BLOCK_CLAIM_NONE || other->claim == BLOCK_CLAIM_NONE) {
            continue;
        }
        if ((claim == BLOCK_CLAIM_WRITE && !other->shares_write) ||
            (other->claim == BLOCK_CLAIM_WRITE && !shares_write)) {
            error_set(errp, "node '%s' is already in use by '%s', so '%s' cannot %s it%s",
                      node->name, other->user, link->user,
                      claim == BLOCK_CLAIM_WRITE ? "write" : "read",
                      other->claim == BLOCK_CLAIM_WRITE ? " while that may write to it" : "");
            if (link->gate && other->gate) {
                error_add_hint(errp, "Devices that all have share-rw=on may use it together.");
            }
            return false;
        }
    }
    if (claim == BLOCK_CLAIM_WRITE && !(node->flags & BLOCK_OPEN_RDWR)) {
        error_set(errp, "Block node is read-only: '%s', which '%s' wants to write", node->name,
                  link->user);
        return false;
    }
    return true;
}

static bool link_wants_exclusive(const struct block_link *link)
{
    if (link->shares_write) {
        return false;
    }
    return link->parent ? link->parent->is_exclusive || link->parent->driver->keeps_metadata
                        : link->claim != BLOCK_CLAIM_NONE;
}

static bool wants_exclusive(const struct block_node *node)
{
    for (const struct block_link *link = node->users; link; link = link->next_user) {
        if (link_wants_exclusive(link)) {
            return true;
        }
    }
    return false;
}

/* Carries what the users want down to the files. After a failure, the caller takes back what was
 * asked for and calls again, which cannot fail. */
static bool update_exclusive(struct block_node *node, struct error **errp)
{
    bool exclusive = wants_exclusive(node);

    if (exclusive == node->is_exclusive) {
        return true;
    }
    if (node->driver->set_exclusive && !node->driver->set_exclusive(node, exclusive, errp)) {
        return false;
    }
    node->is_exclusive = exclusive;
    for (struct block_link *link = node->children; link; link = link->next_child) {
        if (!update_exclusive(link->node, errp)) {
            return false;
        }
    }
    return true;
}

bool block_link_add(struct block_link *link, struct error **errp)
{
    struct block_node *node = link->node;

    assert(link->parent || link->claim == BLOCK_CLAIM_NONE);
    if (!check_claim(link, link->claim, link->shares_write, errp)) {
        return false;
    }
    block_node_ref(node);
    link->next_user = node->users;
    node->users = link;
    drain_user(link, node->drained);
    if (!update_exclusive(node, errp)) {
        block_link_remove(link);
        return false;
    }
    return true;
}

bool block_link_set_claim(struct block_link *link, enum block_claim claim, bool shares_write,
                          struct error **errp)
{
    enum block_claim old_claim = link->claim;
    bool old_shares_write = link->shares_write;

    if (!check_claim(link, claim, shares_write, errp)) {
        return false;
    }
    link->claim = claim;
    link->shares_write = shares_write;
    if (!update_exclusive(link->node, errp)) {
        link->claim = old_claim;
        link->shares_write = old_shares_write;
        update_exclusive(link->node, NULL);
        return false;
    }
    return true;
}

void block_link_remove(struct block_link *link)
{
    struct block_node *node = link->node;
    struct block_link **p = &node->users;

    while (*p != link) {
        p = &(*p)->next_user;
    }
    *p = link->next_user;
    drain_user(link, -(int)node->drained);
    update_exclusive(node, NULL); /* there is one user less, so it only lets go */
    block_node_unref(node);
}
