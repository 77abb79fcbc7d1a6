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
    char *spelled; /* as the user wrote a negated flag ("nodelay" of key delay), or NULL */
    enum option_type type;
    bool is_strict; /* who wants another type refuses it */
    bool is_dotted; /* "a.b" was the name of one member */
    bool used;
};

struct options {
    struct option *items;
    size_t count, capacity;
    char *prefix; /* "file.": what options_take_prefix() took from the keys; or NULL */
    bool wants_types;
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
    free(opts->prefix);
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

static struct option copy_of(const char *key, const struct option *o)
{
    return (struct option){
        .key = xstrdup(key),
        .value = xstrdup(o->value),
        .spelled = o->spelled ? xstrdup(o->spelled) : NULL,
        .type = o->type,
        .is_strict = o->is_strict,
        .is_dotted = o->is_dotted,
    };
}

void options_merge(struct options *opts, const struct options *from)
{
    for (size_t i = 0; i < from->count; i++) {
        set_option(opts, copy_of(from->items[i].key, &from->items[i]));
    }
}

void options_set_typed(struct options *opts, const char *key, const char *value,
                       enum option_type type)
{
    set_option(opts, (struct option){.key = xstrdup(key), .value = xstrdup(value), .type = type});
}

void options_set_json(struct options *opts, const char *key, const char *value,
                      enum option_type type, bool is_dotted)
{
    set_option(opts, (struct option){
                         .key = xstrdup(key),
                         .value = xstrdup(value),
                         .type = type,
                         .is_strict = true,
                         .is_dotted = is_dotted,
                     });
}

void options_copy(struct options *to, const char *key, const struct options *from, size_t index)
{
    assert(index < from->count);
    struct option copy = copy_of(key, &from->items[index]);
    free(copy.spelled); /* it is another key now */
    copy.spelled = NULL;
    set_option(to, copy);
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

char *options_full_key(const struct options *opts, const char *key)
{
    return xasprintf("%s%s", opts->prefix ? opts->prefix : "", key);
}

/* ---- types ---------------------------------------------------------------------------------- */

enum option_type options_type(const struct options *opts, size_t index)
{
    assert(index < opts->count);
    return opts->items[index].type;
}

void options_error_type(const struct options *opts, const char *key, const char *what,
                        struct error **errp)
{
    autofree char *full = options_full_key(opts, key);

    error_set(errp, "Invalid parameter type for '%s', expected: %s", full, what);
}

static bool check_type(const struct options *opts, const struct option *o,
                       enum option_type expected, struct error **errp)
{
    static const char *const names[] = {
        [OPTION_UNTYPED] = "string", [OPTION_STRING] = "string", [OPTION_INTEGER] = "integer",
        [OPTION_REAL] = "number",    [OPTION_BOOL] = "boolean",  [OPTION_NULL] = "null",
        [OPTION_OBJECT] = "object",  [OPTION_ARRAY] = "array",
    };

    if (!o->is_strict || o->type == expected) {
        return true;
    }
    options_error_type(opts, o->key, names[expected], errp);
    return false;
}

bool options_check_type(const struct options *opts, const char *key, enum option_type expected,
                        struct error **errp)
{
    const struct option *o = find(opts, key);
    return !o || check_type(opts, o, expected, errp);
}

void options_loosen(struct options *opts)
{
    for (size_t i = 0; i < opts->count; i++) {
        opts->items[i].is_strict = opts->items[i].is_dotted = false;
    }
}

bool options_check_nested(const struct options *opts, struct error **errp)
{
    for (size_t i = 0; i < opts->count; i++) {
        const char *key = opts->items[i].key;
        if (opts->items[i].is_dotted) {
            error_set(errp,
                      "Parameter '%s' is unexpected: in JSON an object is a member, \"%.*s\": {…}",
                      key, (int)strcspn(key, "."), key);
            return false;
        }
    }
    return true;
}

void options_want_types(struct options *opts)
{
    opts->wants_types = true;
}

bool options_wants_types(const struct options *opts)
{
    return opts->wants_types;
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

void options_offer(struct options *opts, const char *key)
{
    remember(opts, key);
}

static struct option *use(struct options *opts, const char *key)
{
    remember(opts, key);
    struct option *o = find(opts, key);
    if (o)
        o->used = true;
    return o;
}

const char *options_get(struct options *opts, const char *key)
{
    const struct option *o = use(opts, key);
    return o ? o->value : NULL;
}

/* False if it is there and of another type. *text: the value, or NULL. */
static bool get_typed(struct options *opts, const char *key, enum option_type expected,
                      const char **text, struct error **errp)
{
    const struct option *o = use(opts, key);
    *text = o ? o->value : NULL;
    return !o || check_type(opts, o, expected, errp);
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
    const char *text;
    if (!get_typed(opts, key, OPTION_BOOL, &text, errp))
        return false;
    if (!text || parse_bool(text, value))
        return true;
    autofree char *full = options_full_key(opts, key);
    error_set(errp, "option '%s': '%s' is neither 'on' nor 'off'", full, text);
    return false;
}

bool options_get_uint(struct options *opts, const char *key, uint64_t min, uint64_t max,
                      uint64_t *value, struct error **errp)
{
    const char *text;
    if (!get_typed(opts, key, OPTION_INTEGER, &text, errp))
        return false;
    if (!text)
        return true;
    uint64_t v;
    if (parse_uint(text, &v) && v >= min && v <= max) {
        *value = v;
        return true;
    }
    autofree char *full = options_full_key(opts, key);
    error_set(errp, "option '%s': '%s' is not a number from %llu to %llu", full, text,
              (unsigned long long)min, (unsigned long long)max);
    return false;
}

bool options_get_size(struct options *opts, const char *key, uint64_t unit, uint64_t *value,
                      struct error **errp)
{
    const char *text;
    if (!get_typed(opts, key, OPTION_INTEGER, &text, errp))
        return false;
    if (!text || parse_size(text, unit, value))
        return true;
    autofree char *full = options_full_key(opts, key);
    error_set(errp,
              "option '%s': '%s' is not a size below 16 EiB; write a number and optionally one of "
              "the suffixes k, M, G, T, P, E",
              full, text);
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
    const char *text;
    if (!get_typed(opts, key, OPTION_STRING, &text, errp))
        return false;
    if (!text)
        return true;
    for (int i = 0; names[i]; i++) {
        if (strcmp(names[i], text) == 0) {
            *value = i;
            return true;
        }
    }
    autofree char *list = list_names(names);
    autofree char *full = options_full_key(opts, key);
    error_set(errp, "option '%s': '%s' is unknown; use %s", full, text, list);
    return false;
}

struct options *options_take_prefix(struct options *opts, const char *prefix)
{
    struct options *taken = options_new();
    size_t length = strlen(prefix);
    taken->prefix = xasprintf("%s%s.", opts->prefix ? opts->prefix : "", prefix);
    taken->wants_types = opts->wants_types;
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

void options_error_unknown(const struct options *opts, size_t index, const char *what,
                           struct error **errp)
{
    assert(index < opts->count);
    const struct option *o = &opts->items[index];
    const char *name = o->spelled ? o->spelled : o->key;
    const char *near = nearest_name(name, (const char *const *)opts->asked, opts->asked_count);
    if (near)
        error_set(errp, "%s: unknown option '%s'; did you mean '%s'?", what, name, near);
    else
        error_set(errp, "%s: unknown option '%s'", what, name);
}

bool options_check_used(const struct options *opts, const char *what, struct error **errp)
{
    for (size_t i = 0; i < opts->count; i++) {
        if (!opts->items[i].used) {
            options_error_unknown(opts, i, what, errp);
            return false;
        }
    }
    return true;
}
