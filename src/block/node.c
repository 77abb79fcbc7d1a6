/* SPDX-License-Identifier: MIT */
/*
 * The node graph: opening and closing nodes, their names, and what nodes there are. Children are in
 * child.c, who uses whom is in link.c, requests are in io.c.
 */
#include "block/node.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/id.h"
#include "base/options.h"
#include "base/range.h"
#include "block/backend.h"
#include "block/bitmap.h"
#include "block/name.h"
#include "block/node_int.h"
#include "block/node_option.h"

#define NODE_NAME_MAX 31 /* as QEMU */

static struct block_node *first_node; /* main loop */

struct block_node *block_node_first(void)
{
    return first_node;
}

struct block_node *block_node_find(const char *name)
{
    for (struct block_node *node = first_node; node; node = node->next) {
        if (!strcmp(node->name, name)) {
            return node;
        }
    }
    return NULL;
}

static void node_insert(struct block_node *node)
{
    struct block_node **p = &first_node;

    while (*p) {
        p = &(*p)->next;
    }
    *p = node;
}

static void node_remove(struct block_node *node)
{
    struct block_node **p = &first_node;

    while (*p != node) {
        p = &(*p)->next;
    }
    *p = node->next;
}

/* ---- names ----------------------------------------------------------------------------------- */

static char *generate_name(void)
{
    static unsigned next;

    for (;;) {
        char *name = xasprintf("#block%03u", next++);
        if (!block_node_find(name)) {
            return name;
        }
        free(name);
    }
}

/* The name that a new node gets; NULL and an error if it cannot have the one it wants. */
/* Before the node is opened, and again afterwards: its children have names, too. */
static bool check_name(const char *name, struct error **errp)
{
    if (backend_find(name)) {
        error_set(errp, "node-name=%s is conflicting with a device id", name);
    } else if (block_node_find(name)) {
        error_set(errp, "Duplicate nodes with node-name='%s'", name);
    } else {
        return true;
    }
    return false;
}

static char *take_name(struct options *opts, struct error **errp)
{
    autofree char *name = options_take(opts, "node-name");

    if (!name) {
        return generate_name();
    }
    if (!id_is_wellformed(name)) {
        error_set(errp,
                  "Invalid node-name: '%s'; it begins with a letter, then come letters, digits, "
                  "'-', '.' and '_'",
                  name);
        return NULL;
    }
    if (strlen(name) > NODE_NAME_MAX) {
        error_set(errp, "Node name too long: '%s'; at most %d characters", name, NODE_NAME_MAX);
        return NULL;
    }
    return check_name(name, errp) ? xstrdup(name) : NULL;
}

/* ---- opening --------------------------------------------------------------------------------- */

static const struct block_driver *take_driver(struct options *opts, struct error **errp)
{
    if (!options_check_type(opts, "driver", OPTION_STRING, errp)) {
        return NULL;
    }
    autofree char *name = options_take(opts, "driver");
    if (!name) {
        autofree char *key = options_full_key(opts, "driver");
        error_set(errp, "Parameter '%s' is missing", key);
        return NULL;
    }
    const struct block_driver *driver = block_driver_find(name);
    if (!driver) {
        autofree char *names = block_driver_names();
        error_set(errp, "Unknown driver '%s'; this build has %s", name, names);
    }
    return driver;
}

static bool get_flag(struct options *opts, const char *key, unsigned flag, bool inverted,
                     unsigned *flags, struct error **errp)
{
    bool on = !(*flags & flag) == inverted;

    if (!options_get_bool(opts, key, &on, errp)) {
        return false;
    }
    *flags = on != inverted ? *flags | flag : *flags & ~flag;
    return true;
}

bool block_node_parse_flags(struct options *opts, unsigned *flags, struct error **errp)
{
    static const char *const discard_names[] = {"ignore", "off", "unmap", "on", NULL};
    static const char *const detect_names[] = {"off", "on", "unmap", NULL};
    int discard = *flags & BLOCK_OPEN_UNMAP ? 2 : 0;
    int detect = *flags & BLOCK_OPEN_DETECT_UNMAP ? 2 : *flags & BLOCK_OPEN_DETECT_ZEROES ? 1 : 0;

    if (!get_flag(opts, "read-only", BLOCK_OPEN_RDWR, true, flags, errp) ||
        !get_flag(opts, "auto-read-only", BLOCK_OPEN_AUTO_READ_ONLY, false, flags, errp) ||
        !get_flag(opts, "force-share", BLOCK_OPEN_FORCE_SHARE, false, flags, errp) ||
        !get_flag(opts, "cache.direct", BLOCK_OPEN_NOCACHE, false, flags, errp) ||
        !get_flag(opts, "cache.no-flush", BLOCK_OPEN_NO_FLUSH, false, flags, errp) ||
        !options_get_enum(opts, "discard", discard_names, &discard, errp) ||
        !options_get_enum(opts, "detect-zeroes", detect_names, &detect, errp)) {
        return false;
    }
    if (*flags & BLOCK_OPEN_FORCE_SHARE && *flags & BLOCK_OPEN_RDWR) {
        error_set(errp, "force-share=on can only be used with read-only=on");
        return false;
    }
    if (detect == 2 && discard < 2) {
        error_set(errp, "setting detect-zeroes to unmap is not allowed without setting discard "
                        "operation to unmap; give discard=unmap");
        return false;
    }
    *flags &= ~(BLOCK_OPEN_DETECT_ZEROES | BLOCK_OPEN_DETECT_UNMAP);
    *flags |= detect ? BLOCK_OPEN_DETECT_ZEROES : 0;
    *flags |= detect == 2 ? BLOCK_OPEN_DETECT_UNMAP : 0;
    *flags = discard >= 2 ? *flags | BLOCK_OPEN_UNMAP : *flags & ~BLOCK_OPEN_UNMAP;
    return true;
}

/* Limits left at 0 mean none: then the largest value that keeps pieces aligned. */
void block_node_refresh_limits(struct block_node *node)
{
    struct block_limits *limits = &node->limits;

    *limits = (struct block_limits){.request_alignment = 1, .memory_alignment = 1};
    if (node->driver->limits) {
        node->driver->limits(node, limits);
    } else if (node->driver->is_filter) {
        /* What is no whole block of its child is written from a buffer, and the rest is not. */
        limits->write_zeroes_alignment = node->file->limits.write_zeroes_alignment;
    }
    assert(is_power_of_2(limits->request_alignment) && is_power_of_2(limits->memory_alignment));
    limits->discard_alignment = MAX(limits->discard_alignment, limits->request_alignment);
    limits->write_zeroes_alignment = MAX(limits->write_zeroes_alignment, limits->request_alignment);
    limits->max_iov = limits->max_iov ? limits->max_iov : INT32_MAX;
    if (!limits->max_transfer) {
        limits->max_transfer = align_down(INT32_MAX, limits->request_alignment);
    }
    if (!limits->max_write_zeroes) {
        limits->max_write_zeroes = align_down(INT64_MAX, limits->write_zeroes_alignment);
    }
    if (!limits->max_discard) {
        limits->max_discard = align_down(INT64_MAX, limits->discard_alignment);
    }
    node->request_mask = limits->request_alignment - 1;
    node->tracks_writes = limits->request_alignment > 1;
}

static void node_free(struct block_node *node)
{
    block_bitmaps_free(node);
    co_mutex_destroy(&node->flush_lock);
    track_destroy(&node->tracker);
    free(node->state);
    free(node->name);
    block_name_free(node);
    free(node);
}

bool block_node_check_length(struct block_node *node, struct error **errp)
{
    uint64_t length = block_length(node);

    if (node->flags & BLOCK_OPEN_RDWR && length & node->request_mask) {
        error_set(errp,
                  "'%s' has %" PRIu64 " bytes, not a multiple of the %" PRIu32
                  " that cache.direct=on needs to write it; use cache.direct=off "
                  "(cache=writeback) or make the image longer",
                  node->filename, length, node->limits.request_alignment);
        return false;
    }
    return true;
}

bool block_node_may_grow(const struct block_node *node)
{
    return node->driver->allow_growth && node->driver->is_protocol;
}

/* What comes after the driver's open; its close is the caller's. */
static bool finish_open(struct block_node *node, struct options *opts, struct error **errp)
{
    autofree char *what = xasprintf("block driver '%s'", node->driver->name);

    if (!options_check_used(opts, what, errp) || !check_name(node->name, errp)) {
        return false;
    }
    int64_t length = node->driver->length(node);
    if (length < 0) {
        error_set_errno(errp, -length, "Could not get the length of '%s'", node->filename);
        return false;
    }
    atomic_store(&node->length, length);
    block_node_refresh_limits(node);

    return block_node_may_grow(node) || block_node_check_length(node, errp);
}

struct block_node *block_node_open(struct options *opts, unsigned flags, struct error **errp)
{
    const struct block_driver *driver = take_driver(opts, errp);
    bool is_told = options_has(opts, "read-only");

    if (!driver || !node_options_check(driver, opts, errp) ||
        !block_node_parse_flags(opts, &flags, errp)) {
        return NULL;
    }
    char *name = take_name(opts, errp);
    if (!name) {
        return NULL;
    }

    struct block_node *node = xnew(struct block_node);
    node->driver = driver;
    node->name = name;
    node->filename = xstrdup("");
    node->flags = flags;
    node->stays_read_only = is_told && !(flags & BLOCK_OPEN_RDWR);
    node->refs = 1;
    node->state = driver->state_size ? xcalloc(1, driver->state_size) : NULL;
    co_mutex_init(&node->flush_lock);
    track_init(&node->tracker);

    block_name_keep_options(node, opts);
    if (!driver->open(node, opts, errp)) {
        block_node_drop_children(node);
        node_free(node);
        return NULL;
    }
    if (!finish_open(node, opts, errp)) {
        if (driver->close) {
            driver->close(node);
        }
        block_node_drop_children(node);
        node_free(node);
        return NULL;
    }
    block_name_refresh(node);
    node_insert(node);
    return node;
}

/* ---- references ------------------------------------------------------------------------------ */

void block_node_ref(struct block_node *node)
{
    node->refs++;
}

void block_node_unref(struct block_node *node)
{
    assert(node->refs > 0);
    if (--node->refs) {
        return;
    }
    assert(!node->users);
    node_remove(node);
    if (node->driver->close) {
        node->driver->close(node);
    }
    block_node_drop_children(node);
    node_free(node);
}

void block_nodes_close(void)
{
    struct block_node *node = first_node;

    while (node) {
        if (node->monitor_owned) {
            node->monitor_owned = false;
            block_node_unref(node);
            node = first_node; /* children may be gone with it */
        } else {
            node = node->next;
        }
    }
}
