/* SPDX-License-Identifier: MIT */
/*
 * Lists of options from text.
 *
 *   drive0,if=none,file=a,,b.img,readonly,nocache
 *     value of the implied key | if=none | file=a,b.img | readonly=on | cache=off
 *
 *   {"driver": "qcow2", "file": {"driver": "file"}, "queues": [1, 2]}
 *     driver=qcow2 | file.driver=file | queues.0=1 | queues.1=2
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/options.h"
#include "base/options_internal.h"
#include "base/utf8.h"

/* Far above what makes sense; the list is searched linearly. */
#define MAX_OPTIONS 4096
#define MAX_DEPTH   32

/* ---- comma lists ---------------------------------------------------------------------------- */

/* Copies up to a single comma or the end; doubled commas become one. *p moves to the comma or the
 * end. */
static char *take_value(const char **p)
{
    char *value = xmalloc(strlen(*p) + 1);
    char *out = value;
    for (; **p; (*p)++) {
        if (**p == ',' && *++*p != ',') {
            --*p;
            break;
        }
        *out++ = **p;
    }
    *out = 0;
    return value;
}

static void add_flag(struct options *opts, const char *name)
{
    if (strncmp(name, "no", 2) == 0 && name[2])
        options_set_spelled(opts, name + 2, "off", name);
    else
        options_set(opts, name, "on");
}

static bool parse_list(struct options *opts, const char *text, const char *implied_key,
                       struct error **errp)
{
    bool first = true;
    for (const char *p = text; *p; first = false) {
        size_t length = strcspn(p, "=,");
        if (length == 0) {
            error_set(errp, "'%s': %s; write ',,' for a comma within a value", text,
                      *p == '=' ? "a value without a name" : "an empty option");
            return false;
        }
        if (options_count(opts) == MAX_OPTIONS) {
            error_set(errp, "more than %d options in a list", MAX_OPTIONS);
            return false;
        }
        if (p[length] == '=') {
            autofree char *key = xstrndup(p, length);
            p += length + 1;
            autofree char *value = take_value(&p);
            options_set(opts, key, value);
        } else if (first && implied_key) {
            autofree char *value = take_value(&p);
            options_set(opts, implied_key, value);
        } else {
            autofree char *name = xstrndup(p, length);
            p += length;
            add_flag(opts, name);
        }
        if (*p == ',')
            p++; /* one at the very end is harmless */
    }
    return true;
}

/* ---- JSON ----------------------------------------------------------------------------------- */

/* Where a value is: depth in objects and arrays; is_dotted: a name on the way there has a dot. */
struct place {
    unsigned depth;
    bool is_dotted;
};

static bool flatten(struct options *opts, const char *key, const json_t *value, struct place place,
                    struct error **errp);

static bool flatten_object(struct options *opts, const char *prefix, const json_t *object,
                           struct place place, struct error **errp)
{
    const char *name;
    const json_t *value;
    /* The iterator does not change the object, but its type is not const. */
    json_object_foreach((json_t *)object, name, value) {
        if (!*name) {
            error_set(errp, "JSON: a member of %s%s%s has no name", *prefix ? "'" : "",
                      *prefix ? prefix : "the object", *prefix ? "'" : "");
            return false;
        }
        autofree char *key = *prefix ? xasprintf("%s.%s", prefix, name) : xstrdup(name);
        struct place below = {place.depth, place.is_dotted || strchr(name, '.')};
        if (!flatten(opts, key, value, below, errp))
            return false;
    }
    return true;
}

static bool flatten_array(struct options *opts, const char *prefix, const json_t *array,
                          struct place place, struct error **errp)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        autofree char *key = xasprintf("%s.%zu", prefix, i);
        if (!flatten(opts, key, json_array_get(array, i), place, errp))
            return false;
    }
    return true;
}

static char *scalar_text(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_STRING:
        return xstrdup(json_string_value(value));
    case JSON_INTEGER:
        return xasprintf("%lld", (long long)json_integer_value(value));
    case JSON_REAL:
        return xasprintf("%.17g", json_real_value(value));
    case JSON_TRUE:
        return xstrdup("on");
    case JSON_FALSE:
        return xstrdup("off");
    default:
        return xstrdup("");
    }
}

static enum option_type type_of(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_STRING:
        return OPTION_STRING;
    case JSON_INTEGER:
        return OPTION_INTEGER;
    case JSON_REAL:
        return OPTION_REAL;
    case JSON_TRUE:
    case JSON_FALSE:
        return OPTION_BOOL;
    case JSON_OBJECT:
        return OPTION_OBJECT;
    case JSON_ARRAY:
        return OPTION_ARRAY;
    default:
        return OPTION_NULL;
    }
}

static bool flatten(struct options *opts, const char *key, const json_t *value, struct place place,
                    struct error **errp)
{
    if (place.depth == MAX_DEPTH) {
        error_set(errp, "JSON: '%.80s…' is nested more than %d levels deep", key, MAX_DEPTH);
        return false;
    }
    place.depth++;
    if (json_is_object(value) && json_object_size(value) > 0)
        return flatten_object(opts, key, value, place, errp);
    if (json_is_array(value) && json_array_size(value) > 0)
        return flatten_array(opts, key, value, place, errp);

    /* {"a.b": 1, "a": {"b": 2}}: the order of members has no meaning, so neither overrides. */
    if (options_has(opts, key)) {
        error_set(errp, "JSON: '%s' is given twice", key);
        return false;
    }
    if (options_count(opts) == MAX_OPTIONS) {
        error_set(errp, "JSON: more than %d values in an object", MAX_OPTIONS);
        return false;
    }
    /* {} and [] become "" rather than nothing: whoever knows no such option must see it. */
    autofree char *text = scalar_text(value);
    options_set_json(opts, key, text, type_of(value), place.is_dotted);
    return true;
}

json_t *options_value_json(const struct options *opts, size_t index)
{
    const char *text = options_value(opts, index);
    switch (options_type(opts, index)) {
    case OPTION_INTEGER:
    case OPTION_REAL:
        return json_loads(text, JSON_DECODE_ANY, NULL);
    case OPTION_BOOL:
        return json_boolean(!strcmp(text, "on"));
    case OPTION_NULL:
        return json_null();
    case OPTION_OBJECT:
        return json_object();
    case OPTION_ARRAY:
        return json_array();
    default:
        break;
    }
    autofree char *repaired = utf8_repair(text);
    return json_string(repaired);
}

struct options *options_from_json(const struct json_t *object, struct error **errp)
{
    if (!json_is_object(object)) {
        error_set(errp, "JSON: not an object");
        return NULL;
    }
    struct options *opts = options_new();
    if (!flatten_object(opts, "", object, (struct place){0}, errp)) {
        options_free(opts);
        return NULL;
    }
    return opts;
}

/* Copies a string and its quotes, which become double ones. *p moves behind it, or to the end. */
static char *requote(const char **p, char *out)
{
    char quote = *(*p)++;
    *out++ = '"';
    while (**p && **p != quote) {
        char c = *(*p)++;
        if (c == '\\' && **p == '\'') {
            c = *(*p)++; /* \' is nothing special between double quotes */
        } else if (c == '\\' && **p) {
            *out++ = c;
            c = *(*p)++;
        } else if (c == '"') {
            *out++ = '\\';
        }
        *out++ = c;
    }
    if (**p) {
        (*p)++;
        *out++ = '"';
    }
    return out;
}

/* 'a"b' becomes "a\"b". */
static char *to_double_quotes(const char *text)
{
    char *result = xmalloc(2 * strlen(text) + 1), *out = result;
    while (*text) {
        if (*text == '"' || *text == '\'')
            out = requote(&text, out);
        else
            *out++ = *text++;
    }
    *out = 0;
    return result;
}

static struct options *parse_json(const char *text, struct error **errp)
{
    json_error_t problem;
    autofree char *quoted = to_double_quotes(text);
    json_t *object = json_loads(quoted, JSON_REJECT_DUPLICATES, &problem);
    if (!object) {
        error_set(errp, "'%s': no valid JSON: %s (line %d, column %d)", text, problem.text,
                  problem.line, problem.column);
        return NULL;
    }
    struct options *opts = options_from_json(object, errp);
    json_decref(object);
    return opts;
}

/* --------------------------------------------------------------------------------------------- */

struct options *options_parse(const char *text, const char *implied_key, struct error **errp)
{
    if (*text == '{')
        return parse_json(text, errp);

    struct options *opts = options_new();
    if (!parse_list(opts, text, implied_key, errp)) {
        options_free(opts);
        return NULL;
    }
    return opts;
}
