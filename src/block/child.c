/* SPDX-License-Identifier: MIT */
/*
 * The children of nodes: opening, attaching and replacing them, whether they grow, and other flags
 * for a node and what is below it.
 */
#include <assert.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/options.h"
#include "block/backend.h"
#include "block/name.h"
#include "block/node_int.h"

/* ---- opening --------------------------------------------------------------------------------- */

static struct block_node *open_child(struct block_node *parent, struct options *opts,
                                     const char *key, unsigned flags, struct error **errp)
{
    autofree char *reference = options_take(opts, key);
    struct options *nested = options_take_prefix(opts, key);
    struct block_node *child = NULL;

    if (reference && options_count(nested)) {
        error_set(errp, "'%s' names node '%s', so '%s.%s' cannot be given as well", key, reference,
                  key, options_key(nested, 0));
    } else if (reference) {
        struct block_backend *be = backend_find(reference);
        child = be ? backend_root(be) : block_node_find(reference);
        if (child) {
            block_node_ref(child);
        } else {
            error_set(errp, "Cannot find device='%s' nor node-name='%s'", reference, reference);
        }
    } else if (!options_count(nested)) {
        error_set(errp,
                  "A block device must be specified for \"%s\": %s=NODE-NAME, or %s.driver=… and "
                  "its options",
                  key, key, key);
    } else {
        child = block_node_open(nested, flags, errp);
    }
    options_free(nested);
    return child;
}

/* A writable parent over a child that cannot be written. */
static bool check_child_writable(struct block_node *parent, const struct block_node *child,
                                 struct error **errp)
{
    if (!(parent->flags & BLOCK_OPEN_RDWR) || child->flags & BLOCK_OPEN_RDWR) {
        return true;
    }
    if (!(parent->flags & BLOCK_OPEN_AUTO_READ_ONLY)) {
        error_set(errp,
                  "node '%s' is read-only and node '%s' above it is not; give both read-only=on",
                  child->name, parent->name);
        return false;
    }
    parent->flags &= ~BLOCK_OPEN_RDWR;
    return true;
}

/* Makes the child known as what it is to its parent. */
static bool attach_child(struct block_node *parent, struct block_node *child, const char *key,
                         enum block_child role, struct error **errp)
{
    bool writes = role != BLOCK_CHILD_BACKING && parent->flags & BLOCK_OPEN_RDWR;

    struct block_link *link = xnew(struct block_link);
    link->node = child;
    link->parent = parent;
    link->key = key;
    link->role = role;
    link->user = parent->name;
    if (!block_link_add(link, errp)) {
        free(link);
        return false;
    }
    link->next_child = parent->children;
    parent->children = link;
    if (role == BLOCK_CHILD_BACKING) {
        parent->backing = child;
    } else if (role != BLOCK_CHILD_DATA) {
        parent->file = child;
    }
    if (writes && (role == BLOCK_CHILD_FILE || role == BLOCK_CHILD_DATA)) {
        block_node_allow_growth(child);
    }
    return true;
}

struct block_node *block_node_open_child(struct block_node *parent, struct options *opts,
                                         const char *key, enum block_child role,
                                         struct error **errp)
{
    unsigned flags = parent->flags & ~BLOCK_OPEN_NOT_INHERITED;

    if (role == BLOCK_CHILD_BACKING) {
        flags &= ~(BLOCK_OPEN_RDWR | BLOCK_OPEN_UNMAP | BLOCK_OPEN_AUTO_READ_ONLY);
    }
    struct block_node *child = open_child(parent, opts, key, flags, errp);
    if (!child) {
        return NULL;
    }
    bool ok = (role == BLOCK_CHILD_BACKING || check_child_writable(parent, child, errp)) &&
              attach_child(parent, child, key, role, errp);
    block_node_unref(child); /* the link has a reference of its own */
    return ok ? child : NULL;
}

/* ---- taking away and replacing --------------------------------------------------------------- */

void block_node_drop_children(struct block_node *node)
{
    while (node->children) {
        struct block_link *link = node->children;
        node->children = link->next_child;
        block_link_remove(link);
        free(link);
    }
}

static void detach_child(struct block_node *parent, struct block_node *child)
{
    struct block_link **p = &parent->children;

    while ((*p)->node != child) {
        p = &(*p)->next_child;
    }
    struct block_link *link = *p;
    *p = link->next_child;
    block_link_remove(link);
    free(link);
}

static bool is_below(const struct block_node *node, const struct block_node *top)
{
    if (node == top) {
        return true;
    }
    for (const struct block_link *link = top->children; link; link = link->next_child) {
        if (is_below(node, link->node)) {
            return true;
        }
    }
    return false;
}

bool block_node_set_backing(struct block_node *parent, struct block_node *backing,
                            struct error **errp)
{
    struct block_node *old = parent->backing;

    if (backing && is_below(parent, backing)) {
        error_set(errp, "Making '%s' the backing node of '%s' would make a loop", backing->name,
                  parent->name);
        return false;
    }
    if (backing && !attach_child(parent, backing, "backing", BLOCK_CHILD_BACKING, errp)) {
        return false;
    }
    if (old) {
        detach_child(parent, old);
    }
    parent->backing = backing;
    block_name_refresh(parent);
    return true;
}

struct block_node *block_node_skip_filters(struct block_node *node)
{
    while (node->driver->is_filter && node->file) {
        node = node->file;
    }
    return node;
}

struct block_node *block_node_skip_implicit(struct block_node *node)
{
    while (node->is_implicit) {
        node = node->file;
    }
    return node;
}

/* ---- growth ---------------------------------------------------------------------------------- */

bool block_node_allow_growth(struct block_node *node)
{
    if (!node->grows && node->driver->allow_growth && node->driver->allow_growth(node)) {
        node->grows = true;
    }
    return node->grows;
}

/* ---- other flags ------------------------------------------------------------------------------ */

#define REOPEN_FLAGS                                                                               \
    (BLOCK_OPEN_RDWR | BLOCK_OPEN_NOCACHE | BLOCK_OPEN_NO_FLUSH | BLOCK_OPEN_UNMAP |               \
     BLOCK_OPEN_DETECT_ZEROES | BLOCK_OPEN_DETECT_UNMAP)

/* Who writes through the node keeps it writable; who asks nobody does not write. */
static bool check_reopen(struct block_node *node, unsigned flags, struct error **errp)
{
    if (flags & BLOCK_OPEN_RDWR && node->flags & BLOCK_OPEN_FORCE_SHARE) {
        error_set(errp, "node '%s' was opened with force-share=on, so it cannot be made writable",
                  node->name);
        return false;
    }
    for (struct block_link *link = node->users; link; link = link->next_user) {
        if (!(flags & BLOCK_OPEN_RDWR) && link->claim == BLOCK_CLAIM_WRITE && link->gate) {
            error_set(errp, "'%s' writes to node '%s', so it cannot be made read-only", link->user,
                      node->name);
            return false;
        }
    }
    return true;
}

static bool reopen_driver(struct block_node *node, unsigned flags, struct error **errp)
{
    return !node->driver->reopen || node->driver->reopen(node, flags, errp);
}

/* Who writes metadata as soon as it is made writable finds a file that grows. */
static void allow_growth_below(struct block_node *node)
{
    for (struct block_link *link = node->children; link; link = link->next_child) {
        if (link->role == BLOCK_CHILD_FILE || link->role == BLOCK_CHILD_DATA) {
            block_node_allow_growth(link->node);
        }
    }
}

static void set_flags(struct block_node *node, unsigned flags)
{
    node->flags = flags;
    node->starts_writing = false;
    block_node_drop_perms(node);
    block_node_refresh_limits(node);
}

static size_t count_children(const struct block_node *node)
{
    size_t count = 0;

    for (const struct block_link *link = node->children; link; link = link->next_child) {
        count++;
    }
    return count;
}

/* The children before `end` become what they were. */
static void undo_children(struct block_node *node, const struct block_link *end,
                          const unsigned *old)
{
    for (struct block_link *link = node->children; link != end; link = link->next_child) {
        struct error *err = NULL;
        if (!block_node_reopen(link->node, *old++, &err)) {
            error_report(err);
        }
    }
}

/* Only what changes above changes here: the rest may be set otherwise for this node. */
static bool reopen_child(struct block_node *child, unsigned flags, unsigned changed,
                         struct error **errp)
{
    changed &= ~BLOCK_OPEN_NOT_INHERITED;
    flags = (child->flags & ~changed) | (flags & changed);
    if (flags & BLOCK_OPEN_RDWR && child->stays_read_only) {
        error_set(errp, "Block node is read-only: '%s' was opened with read-only=on", child->name);
        return false;
    }
    return block_node_reopen(child, flags, errp);
}

/* All of them or, on failure, none; old: what they were. */
static bool reopen_children(struct block_node *node, unsigned flags, unsigned changed,
                            unsigned *old, struct error **errp)
{
    struct block_link *link = node->children;

    for (size_t i = 0; link; link = link->next_child, i++) {
        old[i] = link->node->flags;
        if (link->role != BLOCK_CHILD_BACKING && !reopen_child(link->node, flags, changed, errp)) {
            undo_children(node, link, old);
            return false;
        }
    }
    return true;
}

/* It had stopped writing, and children could not follow. If it cannot go on, it stays stopped. */
static void restart(struct block_node *node)
{
    struct error *err = NULL;
    unsigned old = node->flags;

    node->flags &= ~BLOCK_OPEN_RDWR;
    if (reopen_driver(node, old, &err)) {
        node->flags = old;
    } else {
        error_report(err);
        set_flags(node, node->flags);
    }
}

/* It could be opened so, but its length does not fit. */
static void undo_reopen(struct block_node *node, unsigned flags, const unsigned *old_below)
{
    struct error *err = NULL;

    if (!reopen_driver(node, flags, &err)) {
        error_report(err);
    }
    set_flags(node, flags);
    undo_children(node, NULL, old_below);
}

/* What is written as soon as it may be needs the locks before. */
static bool reopen_for_writing(struct block_node *node, unsigned flags, struct error **errp)
{
    node->starts_writing = flags & BLOCK_OPEN_RDWR;
    if (block_node_get_perms(node, errp) && reopen_driver(node, flags, errp)) {
        return true;
    }
    node->starts_writing = false;
    block_node_drop_perms(node);
    return false;
}

bool block_node_reopen(struct block_node *node, unsigned flags, struct error **errp)
{
    unsigned old = node->flags;

    flags = (old & ~REOPEN_FLAGS) | (flags & REOPEN_FLAGS);
    unsigned changed = flags ^ old;
    if (!changed) {
        return true;
    }
    if (!check_reopen(node, flags, errp)) {
        return false;
    }
    /* Downwards first, so that who writes finds below what can be written; what stops writing says
     * its last while that is so. */
    autofree unsigned *old_below = xcalloc(count_children(node) + 1, sizeof(*old_below));
    bool stops = old & BLOCK_OPEN_RDWR && !(flags & BLOCK_OPEN_RDWR);
    if (stops && !reopen_driver(node, flags, errp)) {
        return false;
    }
    if (!reopen_children(node, flags, changed, old_below, errp)) {
        if (stops) {
            restart(node);
        }
        return false;
    }
    if (flags & BLOCK_OPEN_RDWR) {
        allow_growth_below(node);
    }
    if (!stops && !reopen_for_writing(node, flags, errp)) {
        undo_children(node, NULL, old_below);
        return false;
    }
    set_flags(node, flags);
    if (!block_node_may_grow(node) && !block_node_check_length(node, errp)) {
        undo_reopen(node, old, old_below);
        return false;
    }
    return true;
}
