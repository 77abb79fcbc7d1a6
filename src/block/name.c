/* SPDX-License-Identifier: MIT */
/* The names of nodes. See name.h. */
#include "block/name.h"

#include <assert.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/options.h"
#include "base/range.h"
#include "block/node_option.h"

/* ---- strong options --------------------------------------------------------------------------- */

void block_name_keep_options(struct block_node *node, const struct options *opts)
{
    node->strong = json_object();
    for (size_t i = 0; i < options_count(opts); i++) {
        const char *key = options_key(opts, i);
        if (node_option_is_strong(node->driver, key)) {
            json_object_set_new_nocheck(node->strong, key, options_value_json(opts, i));
        }
    }
}

/* Something that a file name alone would not say. */
static bool has_own_options(const struct block_node *node)
{
    return json_object_size(node->strong) > !!json_object_get(node->strong, "filename");
}

bool block_name_overrides_backing(const struct block_node *node)
{
    if (node->flags & BLOCK_OPEN_NO_BACKING) {
        return false;
    }
    return node->backing
               ? !node->named_backing || strcmp(node->named_backing, node->backing->filename) != 0
               : node->named_backing != NULL;
}

/* ---- names ------------------------------------------------------------------------------------ */

/* The order that QEMU's tools print members in, so that texts can be compared. Others follow as given. */
static const char *const first_keys[] = {
    "data-file",      "backing",      "offset",      "read-zeroes", "server.host",
    "server.path",    "server.port",  "port",        "host",        "image",
    "throttle-group", "max-transfer", "driver",      "size",        "config",
    "path",           "export",       "server.type", "file",
};

/* Moves a member to the end of another object. */
static void move(json_t *from, json_t *to, const char *key)
{
    json_t *value = json_object_get(from, key);

    if (value) {
        json_object_set_nocheck(to, key, value);
        json_object_del(from, key);
    }
}

static json_t *in_order(json_t *object)
{
    json_t *ordered = json_object();

    for (size_t i = 0; i < ARRAY_SIZE(first_keys); i++) {
        move(object, ordered, first_keys[i]);
    }
    json_object_update(ordered, object);
    json_decref(object);
    return ordered;
}

static json_t *all_options(const struct block_node *node)
{
    bool overridden = block_name_overrides_backing(node);
    json_t *all = json_copy(node->strong);

    json_object_set_new(all, "driver", json_string(node->driver->name));
    for (struct block_link *link = node->children; link; link = link->next_child) {
        if (link->role != BLOCK_CHILD_BACKING || overridden) {
            json_object_set(all, link->key, link->node->full_options);
        }
    }
    if (overridden && !node->backing) {
        json_object_set_new(all, "backing", json_null());
    }
    return in_order(all);
}

/* The name that opens the same, or NULL. The caller frees it. */
static char *plain_name(const struct block_node *node)
{
    const struct block_node *file = node->file;

    if (node->is_implicit) {
        return file->has_plain_name ? xstrdup(file->filename) : NULL;
    }
    if (node->driver->plain_name) {
        return node->driver->plain_name(node, has_own_options(node));
    }
    if (!file || !file->driver->plain_name || !file->has_plain_name || node->driver->is_filter ||
        has_own_options(node) || block_name_overrides_backing(node)) {
        return NULL;
    }
    return xstrdup(file->filename);
}

void block_name_refresh(struct block_node *node)
{
    json_decref(node->full_options);
    node->full_options =
        node->is_implicit ? json_incref(node->file->full_options) : all_options(node);

    char *name = plain_name(node);
    node->has_plain_name = name;
    if (!name) {
        char *json = json_dumps(node->full_options, JSON_ENSURE_ASCII);
        assert(json);
        name = xasprintf("json:%s", json);
        free(json);
    }
    free(node->filename);
    node->filename = name;

    for (struct block_link *link = node->users; link; link = link->next_user) {
        if (link->parent) {
            block_name_refresh(link->parent);
        }
    }
}

void block_name_set_implicit(struct block_node *node)
{
    node->is_implicit = true;
    block_name_refresh(node);
}

void block_name_free(struct block_node *node)
{
    json_decref(node->strong);
    json_decref(node->full_options);
    free(node->named_backing);
    free(node->filename);
}

/* ---- comparing -------------------------------------------------------------------------------- */

/* Everything but the file's name. */
static bool options_are_same(const struct block_node *a, const struct block_node *b)
{
    json_t *x = json_copy(a->strong), *y = json_copy(b->strong);

    json_object_del(x, "filename");
    json_object_del(y, "filename");
    bool is_same = json_equal(x, y);
    json_decref(x);
    json_decref(y);
    return is_same;
}

static bool file_is_same(const struct block_node *a, const struct block_node *b)
{
    bool has_file = json_object_get(a->strong, "filename");
    struct stat x, y;

    if (has_file != !!json_object_get(b->strong, "filename")) {
        return false;
    }
    return !has_file || !strcmp(a->filename, b->filename) ||
           (stat(a->filename, &x) == 0 && stat(b->filename, &y) == 0 && x.st_dev == y.st_dev &&
            x.st_ino == y.st_ino);
}

static const struct block_node *find_child(const struct block_node *node, const char *key)
{
    for (const struct block_link *link = node->children; link; link = link->next_child) {
        if (!strcmp(link->key, key)) {
            return link->node;
        }
    }
    return NULL;
}

bool block_name_is_same(const struct block_node *a, const struct block_node *b)
{
    size_t more = 0; /* children of b that a has not */

    if (a == b) {
        return true;
    }
    if (a->driver != b->driver || !options_are_same(a, b) || !file_is_same(a, b)) {
        return false;
    }
    for (const struct block_link *link = b->children; link; link = link->next_child) {
        more++;
    }
    for (const struct block_link *link = a->children; link; link = link->next_child) {
        const struct block_node *other = find_child(b, link->key);
        if (!other || !block_name_is_same(link->node, other)) {
            return false;
        }
        more--;
    }
    return !more;
}
