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

/* What it is to be for; perms is what it has. */
static struct block_perms wanted_perms(const struct block_link *link)
{
    const unsigned resizes = BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE;
    const struct block_node *parent = link->parent;
    struct block_perms perms = {0};

    if (!parent) {
        if (link->claim >= BLOCK_CLAIM_OPEN) {
            perms.used = BLOCK_PERM_READ;
        }
        if (link->claim >= BLOCK_CLAIM_READ && !link->shares_write) {
            perms.denied = BLOCK_PERM_WRITE;
        }
        if (link->claim == BLOCK_CLAIM_WRITE) {
            perms.used |= BLOCK_PERM_WRITE;
        }
        return perms;
    }
    perms = parent->perms;
    if (link->role == BLOCK_CHILD_BACKING) {
        perms.used &= BLOCK_PERM_READ;
        perms.denied = perms.denied & BLOCK_PERM_WRITE ? resizes : 0;
    } else if (parent->driver->keeps_metadata) {
        bool writes = parent->flags & BLOCK_OPEN_RDWR || parent->starts_writing;
        perms.used = BLOCK_PERM_READ | (writes ? resizes : 0);
        perms.denied = resizes;
    }
    if (parent->flags & BLOCK_OPEN_FORCE_SHARE) {
        perms.denied = 0;
    }
    return perms;
}

static bool is_in_the_way(const struct block_perms *a, const struct block_perms *b)
{
    return a->used & b->denied || b->used & a->denied;
}

static bool check_perms(const struct block_link *link, const struct block_perms *perms,
                        struct error **errp)
{
    const struct block_node *node = link->node;
    bool writes = perms->used & BLOCK_PERM_WRITE;

    for (const struct block_link *other = node->users; other; other = other->next_user) {
        if (other == link || !is_in_the_way(perms, &other->perms)) {
            continue;
        }
        error_set(errp, "node '%s' is already in use by '%s', so '%s' cannot %s it%s", node->name,
                  other->user, link->user, writes ? "write" : "read",
                  other->perms.used & BLOCK_PERM_WRITE ? " while that may write to it" : "");
        if (link->gate && other->gate) {
            error_add_hint(errp, "Devices that all have share-rw=on may use it together.");
        }
        return false;
    }
    if (writes && !(node->flags & BLOCK_OPEN_RDWR)) {
        error_set(errp, "Block node is read-only: '%s', which '%s' wants to write", node->name,
                  link->user);
        return false;
    }
    return true;
}

static bool set_node_perms(struct block_node *node, const struct block_perms *perms,
                           struct error **errp)
{
    if (node->driver->set_perms && !node->driver->set_perms(node, perms, errp)) {
        return false;
    }
    node->perms = *perms;
    return true;
}

static struct block_perms sum_of_users(const struct block_node *node)
{
    struct block_perms sum = {0};

    for (const struct block_link *link = node->users; link; link = link->next_user) {
        sum.used |= link->perms.used;
        sum.denied |= link->perms.denied;
    }
    return sum;
}

static bool is_same(const struct block_perms *a, const struct block_perms *b)
{
    return a->used == b->used && a->denied == b->denied;
}

static bool get_link_perms(struct block_link *link, struct error **errp)
{
    struct block_node *node = link->node;
    struct block_perms perms = wanted_perms(link);

    perms.used |= link->perms.used;
    perms.denied |= link->perms.denied;
    if (is_same(&perms, &link->perms)) {
        return true;
    }
    if (!check_perms(link, &perms, errp)) {
        return false;
    }
    link->perms = perms;
    perms = sum_of_users(node);
    perms.used |= node->perms.used;
    perms.denied |= node->perms.denied;
    return is_same(&perms, &node->perms) ||
           (set_node_perms(node, &perms, errp) && block_node_get_perms(node, errp));
}

bool block_node_get_perms(struct block_node *node, struct error **errp)
{
    for (struct block_link *link = node->children; link; link = link->next_child) {
        if (!get_link_perms(link, errp)) {
            return false;
        }
    }
    return true;
}

static void drop_unused(struct block_node *node)
{
    struct block_perms perms = sum_of_users(node);

    if (!is_same(&perms, &node->perms)) {
        set_node_perms(node, &perms, NULL); /* less than before: it does not fail */
        block_node_drop_perms(node);
    }
}

static void drop_link_perms(struct block_link *link)
{
    link->perms = wanted_perms(link);
    drop_unused(link->node);
}

void block_node_drop_perms(struct block_node *node)
{
    for (struct block_link *link = node->children; link; link = link->next_child) {
        drop_link_perms(link);
    }
}

bool block_link_add(struct block_link *link, struct error **errp)
{
    struct block_node *node = link->node;

    assert(link->parent || link->claim == BLOCK_CLAIM_NONE);
    block_node_ref(node);
    link->next_user = node->users;
    node->users = link;
    drain_user(link, node->drained);
    if (!get_link_perms(link, errp)) {
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

    link->claim = claim;
    link->shares_write = shares_write;
    bool ok = get_link_perms(link, errp);
    if (!ok) {
        link->claim = old_claim;
        link->shares_write = old_shares_write;
    }
    drop_link_perms(link);
    return ok;
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
    drop_unused(node);
    block_node_unref(node);
}
