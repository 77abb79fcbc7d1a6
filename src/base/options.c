/* SPDX-License-Identifier: MIT */
/*
 * The list of options, its getters, and what makes unknown options an error: the list remembers
 * which keys were asked for. options_parse.c makes a list from text.
 */
#include "base/options.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/options_internal.h"

struct option {
    char *key;
    char *value;
    char *spelled;   /* as the user wrote a negated flag ("nodelay" of key delay), or NULL */
    bool is_literal; /* in JSON, it stands without quotes */
    bool used;
};

struct options {
    struct option *items;
    size_t count, capacity;
    /* Keys that were asked for, each once, whether they were there or not. */
    char **asked;
    size_t asked_count;
};

/* ---- the list ------------------------------------------------------------------------------- */

struct options *options_new(void)
{
    return xnew(struct options);
}

static void release(struct option *o)
{
    free(o->key);
    free(o->value);
    free(o->spelled);
}

void options_free(struct options *opts)
{
    if (!opts)
        return;
    for (size_t i = 0; i < opts->count; i++)
        release(&opts->items[i]);
    for (size_t i = 0; i < opts->asked_count; i++)
        free(opts->asked[i]);
    free(opts->items);
    free(opts->asked);
    free(opts);
}

static struct option *find(const struct options *opts, const char *key)
{
    for (size_t i = 0; i < opts->count; i++) {
        if (strcmp(opts->items[i].key, key) == 0)
            return &opts->items[i];
    }
    return NULL;
}

static void remove_option(struct options *opts, struct option *o)
{
    release(o);
    size_t index = (size_t)(o - opts->items);
    memmove(o, o + 1, (opts->count - index - 1) * sizeof(*o));
    opts->count--;
}

static void set_option(struct options *opts, struct option new)
{
    struct option *old = find(opts, new.key);
    if (old) {
        release(old);
        *old = new;
        return;
    }
    if (opts->count == opts->capacity) {
        opts->capacity = opts->capacity ? 2 * opts->capacity : 8;
        opts->items = xreallocarray(opts->items, opts->capacity, sizeof(*opts->items));
    }
    opts->items[opts->count++] = new;
}

/* Arguments may point into the option that is replaced. */
void options_set_spelled(struct options *opts, const char *key, const char *value,
                         const char *spelled)
{
    set_option(opts, (struct option){
                         .key = xstrdup(key),
                         .value = xstrdup(value),
                         .spelled = spelled ? xstrdup(spelled) : NULL,
                     });
}

void options_set(struct options *opts, const char *key, const char *value)
{
    options_set_spelled(opts, key, value, NULL);
}

void options_merge(struct options *opts, const struct options *from)
{
    for (size_t i = 0; i < from->count; i++) {
        const struct option *o = &from->items[i];
        set_option(opts, (struct option){
                             .key = xstrdup(o->key),
                             .value = xstrdup(o->value),
                             .spelled = o->spelled ? xstrdup(o->spelled) : NULL,
                             .is_literal = o->is_literal,
                         });
    }
}

void options_set_literal(struct options *opts, const char *key, const char *value)
{
    set_option(opts, (struct option){
                         .key = xstrdup(key),
                         .value = xstrdup(value),
                         .is_literal = true,
                     });
}

void options_copy(struct options *to, const char *key, const struct options *from, size_t index)
{
    assert(index < from->count);
    const struct option *o = &from->items[index];
    set_option(to, (struct option){
                       .key = xstrdup(key),
                       .value = xstrdup(o->value),
                       .is_literal = o->is_literal,
                   });
}

void options_unset(struct options *opts, const char *key)
{
    struct option *o = find(opts, key);
    if (o)
        remove_option(opts, o);
}

bool options_has(const struct options *opts, const char *key)
{
    return find(opts, key) != NULL;
}

size_t options_count(const struct options *opts)
{
    return opts->count;
}

const char *options_key(const struct options *opts, size_t index)
{
    assert(index < opts->count);
    return opts->items[index].key;
}

const char *options_value(const struct options *opts, size_t index)
{
    assert(index < opts->count);
    return opts->items[index].value;
}

bool options_is_literal(const struct options *opts, size_t index)
{
    assert(index < opts->count);
    return opts->items[index].is_literal;
}

/* ---- getters -------------------------------------------------------------------------------- */

static void remember(struct options *opts, const char *key)
{
    for (size_t i = 0; i < opts->asked_count; i++) {
        if (strcmp(opts->asked[i], key) == 0)
            return;
    }
    opts->asked = xreallocarray(opts->asked, opts->asked_count + 1, sizeof(*opts->asked));
    opts->asked[opts->asked_count++] = xstrdup(key);
}

const char *options_get(struct options *opts, const char *key)
{
    remember(opts, key);
    struct option *o = find(opts, key);
    if (!o)
        return NULL;
    o->used = true;
    return o->value;
}

char *options_take(struct options *opts, const char *key)
{
    remember(opts, key);
    struct option *o = find(opts, key);
    if (!o)
        return NULL;
    char *value = o->value;
    o->value = NULL;
    remove_option(opts, o);
    return value;
}

bool options_get_bool(struct options *opts, const char *key, bool *value, struct error **errp)
{
    const char *text = options_get(opts, key);
    if (!text || parse_bool(text, value))
        return true;
    error_set(errp, "option '%s': '%s' is neither 'on' nor 'off'", key, text);
    return false;
}

bool options_get_uint(struct options *opts, const char *key, uint64_t min, uint64_t max,
                      uint64_t *value, struct error **errp)
{
    const char *text = options_get(opts, key);
    if (!text)
        return true;
    uint64_t v;
    if (parse_uint(text, &v) && v >= min && v <= max) {
        *value = v;
        return true;
    }
    error_set(errp, "option '%s': '%s' is not a number from %llu to %llu", key, text,
              (unsigned long long)min, (unsigned long long)max);
    return false;
}

bool options_get_size(struct options *opts, const char *key, uint64_t unit, uint64_t *value,
                      struct error **errp)
{
    const char *text = options_get(opts, key);
    if (!text || parse_size(text, unit, value))
        return true;
    error_set(errp,
              "option '%s': '%s' is not a size below 16 EiB; write a number and optionally one of "
              "the suffixes k, M, G, T, P, E",
              key, text);
    return false;
}

/* "a, b or c" */
static char *list_names(const char *const *names)
{
    char *list = xstrdup("");
    for (size_t i = 0; names[i]; i++) {
        const char *separator = i == 0 ? "" : names[i + 1] ? ", " : " or ";
        char *longer = xasprintf("%s%s%s", list, separator, names[i]);
        free(list);
        list = longer;
    }
    return list;
}

bool options_get_enum(struct options *opts, const char *key, const char *const *names, int *value,
                      struct error **errp)
{
    const char *text = options_get(opts, key);
    if (!text)
        return true;
    for (int i = 0; names[i]; i++) {
        if (strcmp(names[i], text) == 0) {
            *value = i;
            return true;
        }
    }
    autofree char *list = list_names(names);
    error_set(errp, "option '%s': '%s' is unknown; use %s", key, text, list);
    return false;
}

struct options *options_take_prefix(struct options *opts, const char *prefix)
{
    struct options *taken = options_new();
    size_t length = strlen(prefix);
    for (size_t i = 0; i < opts->count;) {
        struct option *o = &opts->items[i];
        if (strncmp(o->key, prefix, length) != 0 || o->key[length] != '.') {
            i++;
            continue;
        }
        options_copy(taken, o->key + length + 1, opts, i);
        remove_option(opts, o);
    }
    return taken;
}

bool options_check_used(const struct options *opts, const char *what, struct error **errp)
{
    for (size_t i = 0; i < opts->count; i++) {
        const struct option *o = &opts->items[i];
        if (o->used)
            continue;
        const char *name = o->spelled ? o->spelled : o->key;
        const char *near = nearest_name(name, (const char *const *)opts->asked, opts->asked_count);
        if (near)
            error_set(errp, "%s: unknown option '%s'; did you mean '%s'?", what, name, near);
        else
            error_set(errp, "%s: unknown option '%s'", what, name);
        return false;
    }
    return true;
}
