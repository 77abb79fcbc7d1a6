/* SPDX-License-Identifier: MIT */
/* Options of nodes. See node_option.h. */
#include "block/node_option.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"

/* What every node has. */
static const struct node_option common[] = {
    {"node-name", NODE_OPTION_STRING},
    {"read-only", NODE_OPTION_BOOL},
    {"auto-read-only", NODE_OPTION_BOOL},
    {"force-share", NODE_OPTION_BOOL},
    {"cache.direct", NODE_OPTION_BOOL},
    {"cache.no-flush", NODE_OPTION_BOOL},
    {"discard", NODE_OPTION_STRING},
    {"detect-zeroes", NODE_OPTION_STRING},
    {NULL},
};

/* ---- finding --------------------------------------------------------------------------------- */

/* How much of the key the name stands for: 0, or a whole number of its parts. */
static size_t match(const char *name, const char *key)
{
    const char *p = key;

    for (; *name; name++) {
        if (*name == '*' && *p && *p != '.') {
            p += strcspn(p, ".");
        } else if (*name == *p) {
            p++;
        } else {
            return 0;
        }
    }
    return *p && *p != '.' ? 0 : (size_t)(p - key);
}

static bool is_child(const struct node_option *option)
{
    return option->type == NODE_OPTION_CHILD || option->type == NODE_OPTION_OPTIONAL_CHILD;
}

static const struct node_option *find_in(const struct node_option *options, const char *key)
{
    for (; options && options->name; options++) {
        size_t length = match(options->name, key);
        if (length && (!key[length] || is_child(options))) {
            return options;
        }
    }
    return NULL;
}

static const struct node_option *find(const struct block_driver *driver, const char *key)
{
    const struct node_option *option = find_in(common, key);

    return option ? option : find_in(driver->options, key);
}

bool node_option_is_strong(const struct block_driver *driver, const char *key)
{
    const struct node_option *option = find_in(driver->options, key);

    return !strcmp(key, "filename") || (option && option->is_strong);
}

/* ---- checking -------------------------------------------------------------------------------- */

static bool check_child(const struct options *opts, size_t index, const struct node_option *option,
                        struct error **errp)
{
    const char *below = options_key(opts, index) + strlen(option->name);
    enum option_type type = options_type(opts, index);

    /* An array's elements have numbers. */
    bool ok = *below ? !isdigit((unsigned char)below[1])
                     : type <= OPTION_STRING ||
                           (type == OPTION_NULL && option->type == NODE_OPTION_OPTIONAL_CHILD);
    if (!*below && type == OPTION_OBJECT) {
        autofree char *full = options_full_key(opts, option->name);
        error_set(errp, "Parameter '%s.driver' is missing", full);
        return false;
    }
    if (!ok) {
        options_error_type(opts, option->name, "object or the name of a node", errp);
    }
    return ok;
}

static bool check_type(const struct options *opts, size_t index, const struct node_option *option,
                       struct error **errp)
{
    static const enum option_type types[] = {
        [NODE_OPTION_STRING] = OPTION_STRING,
        [NODE_OPTION_BOOL] = OPTION_BOOL,
        [NODE_OPTION_INTEGER] = OPTION_INTEGER,
        [NODE_OPTION_SIZE] = OPTION_INTEGER,
    };

    return is_child(option)
               ? check_child(opts, index, option, errp)
               : options_check_type(opts, options_key(opts, index), types[option->type], errp);
}

/* The name is that of a group: "cache" of "cache.direct". */
static bool is_group(const struct node_option *options, const char *key)
{
    for (; options && options->name; options++) {
        size_t length = match(key, options->name);
        if (length && options->name[length]) {
            return true;
        }
    }
    return false;
}

/* "filename.x" */
static const struct node_option *find_above(const struct node_option *options, const char *key)
{
    while (options && options->name && !match(options->name, key)) {
        options++;
    }
    return options && options->name ? options : NULL;
}

/* JSON: an object where there should be a value, or the other way round. */
static bool refuse_shape(const struct block_driver *driver, const struct options *opts,
                         const char *key, struct error **errp)
{
    static const char *const names[] = {
        [NODE_OPTION_STRING] = "string",
        [NODE_OPTION_BOOL] = "boolean",
        [NODE_OPTION_INTEGER] = "integer",
        [NODE_OPTION_SIZE] = "integer",
    };
    const struct node_option *above = find_above(common, key);

    above = above ? above : find_above(driver->options, key);
    if (above && !is_group(driver->options, above->name)) {
        options_error_type(opts, above->name, names[above->type], errp);
        return true;
    }
    if (is_group(common, key) || is_group(driver->options, key)) {
        options_error_type(opts, key, "object", errp);
        return true;
    }
    return false;
}

static void offer(struct options *opts, const struct node_option *options)
{
    for (; options->name; options++) {
        if (!strchr(options->name, '*')) {
            options_offer(opts, options->name);
        }
    }
}

static bool refuse_unknown(const struct block_driver *driver, struct options *opts, size_t index,
                           struct error **errp)
{
    const char *key = options_key(opts, index);
    autofree char *what = xasprintf("block driver '%s'", driver->name);

    if (options_type(opts, index) != OPTION_UNTYPED && refuse_shape(driver, opts, key, errp)) {
        return false;
    }
    offer(opts, common);
    offer(opts, driver->options);
    options_error_unknown(opts, index, what, errp);
    return false;
}

/* {} or [] with nothing in it. */
static bool is_empty_group(const struct block_driver *driver, const struct options *opts,
                           size_t index)
{
    const char *key = options_key(opts, index);
    enum option_type type = options_type(opts, index);

    return (type == OPTION_OBJECT || type == OPTION_ARRAY) &&
           (is_group(common, key) || is_group(driver->options, key));
}

static void give_type(struct options *opts, size_t index, enum node_option_type type)
{
    autofree char *key = xstrdup(options_key(opts, index));
    const char *text = options_value(opts, index);
    uint64_t number;
    bool on;

    if (type == NODE_OPTION_BOOL && parse_bool(text, &on)) {
        options_set_typed(opts, key, on ? "on" : "off", OPTION_BOOL);
    } else if ((type == NODE_OPTION_SIZE && parse_size(text, 1, &number)) ||
               (type == NODE_OPTION_INTEGER && parse_uint(text, &number))) {
        autofree char *digits = xasprintf("%llu", (unsigned long long)number);
        if (number <= INT64_MAX) { /* JSON has no more */
            options_set_typed(opts, key, digits, OPTION_INTEGER);
        }
    }
}

bool node_options_check(const struct block_driver *driver, struct options *opts,
                        struct error **errp)
{
    for (size_t i = 0; i < options_count(opts); i++) {
        const struct node_option *option = find(driver, options_key(opts, i));

        if (!option && is_empty_group(driver, opts, i)) {
            options_unset(opts, options_key(opts, i--));
            continue;
        }
        if (!option && driver->options) {
            return refuse_unknown(driver, opts, i, errp);
        }
        if (option && !check_type(opts, i, option, errp)) {
            return false;
        }
        if (option && options_type(opts, i) == OPTION_UNTYPED && options_wants_types(opts)) {
            give_type(opts, i, option->type);
        }
    }
    return true;
}
