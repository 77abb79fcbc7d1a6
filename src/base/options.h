/* SPDX-License-Identifier: MIT */
/*
 * Option strings, as in -device virtio-blk-pci,drive=d0,logical_block_size=512.
 *
 * A `struct options` is an ordered list of keys and string values. It is made from
 *   - a comma list: "value,key=value,flag,noflag": a first item without '=' gets the implied key,
 *     "," within a value is doubled, "flag" means flag=on; a later key overrides an earlier one;
 *   - a JSON object, when the text starts with '{': nested members become dotted keys
 *     ("file.driver"), elements of arrays "key.0", "key.1"; true and false become on and off. As
 *     in QEMU, a string may also stand in single quotes. What a value was in JSON is kept, and the
 *     getters refuse what is of another type ("5" is no number), unless options_loosen() was called.
 *
 * Each getter marks its key as used. options_check_used() then refuses the keys that nobody asked
 * for, by name, with the nearest one that was asked for as a suggestion. So unknown options are
 * never ignored.
 *
 * Not thread-safe; owned by whoever holds it.
 */
#ifndef FERRY_BASE_OPTIONS_H
#define FERRY_BASE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct options;

/* What a value is in JSON. OPTION_UNTYPED: it is from a comma list or from the program, and may stand for
 * anything. */
enum option_type {
    OPTION_UNTYPED,
    OPTION_STRING,
    OPTION_INTEGER,
    OPTION_REAL,
    OPTION_BOOL,
    OPTION_NULL,
    OPTION_OBJECT, /* {} */
    OPTION_ARRAY   /* [] */
};

/* implied_key: key of a first item without '=', or NULL if there is none. */
struct options *options_parse(const char *text, const char *implied_key, struct error **errp);
/* From a JSON object (json_t of jansson, as in QMP arguments); a null becomes "", like {} and []. */
struct json_t;
struct options *options_from_json(const struct json_t *object, struct error **errp);
struct options *options_new(void);
void options_free(struct options *opts);

void options_set(struct options *opts, const char *key, const char *value);
/* Puts all of `from` into opts; what is in both becomes as in `from`. */
void options_merge(struct options *opts, const struct options *from);
/* As options_set(); in JSON the value is of that type. No getter refuses it for that. */
void options_set_typed(struct options *opts, const char *key, const char *value,
                       enum option_type type);
/* Item `index` of `from`, by another name. */
void options_copy(struct options *to, const char *key, const struct options *from, size_t index);
void options_unset(struct options *opts, const char *key);
bool options_has(const struct options *opts, const char *key); /* does not mark it as used */

/* What item `index` was in JSON. */
enum option_type options_type(const struct options *opts, size_t index);
/* False, and an error that names the key, if it is there and was written in JSON as anything but
 * `expected`. */
bool options_check_type(const struct options *opts, const char *key, enum option_type expected,
                        struct error **errp);
/* The error of options_check_type(); what: "an object". */
void options_error_type(const struct options *opts, const char *key, const char *what,
                        struct error **errp);
/* Types need not be right any more: a name json:{…}, say. */
void options_loosen(struct options *opts);
/* False if a member's name has a dot in it ("file.driver"), which only file names may have. */
bool options_check_nested(const struct options *opts, struct error **errp);
/* Whose values without a type shall get one when somebody knows which: as names of nodes have them.
 * options_take_prefix() passes it on. */
void options_want_types(struct options *opts);
bool options_wants_types(const struct options *opts);
/* How the user would have to write the key: with what options_take_prefix() took from it. To be
 * freed. */
char *options_full_key(const struct options *opts, const char *key);

/* The value, or NULL. Owned by opts. */
const char *options_get(struct options *opts, const char *key);
/* As options_get(), and removes the key; the caller frees the value. */
char *options_take(struct options *opts, const char *key);

/* Typed getters: *value keeps what it has if the key is absent; false if the value is malformed. */
bool options_get_bool(struct options *opts, const char *key, bool *value, struct error **errp);
bool options_get_uint(struct options *opts, const char *key, uint64_t min, uint64_t max,
                      uint64_t *value, struct error **errp);
/* Bytes with suffixes b, k, M, G, T, P, E (powers of 1024, either case); no suffix means `unit`. */
bool options_get_size(struct options *opts, const char *key, uint64_t unit, uint64_t *value,
                      struct error **errp);
/* names: NULL-terminated; *value becomes the index. The error lists the valid ones. */
bool options_get_enum(struct options *opts, const char *key, const char *const *names, int *value,
                      struct error **errp);

/* Moves all keys that start with "prefix." into a new list, without the prefix. */
struct options *options_take_prefix(struct options *opts, const char *prefix);

size_t options_count(const struct options *opts);
const char *options_key(const struct options *opts, size_t index);
const char *options_value(const struct options *opts, size_t index);
/* As it would stand in JSON: what was read from there as a number is one again. The caller gets a
 * reference. */
struct json_t *options_value_json(const struct options *opts, size_t index);

/* Asks for a key that no getter may ask for, so that it can be suggested. */
void options_offer(struct options *opts, const char *key);
/* The error of options_check_used(). */
void options_error_unknown(const struct options *opts, size_t index, const char *what,
                           struct error **errp);
/* False and an error "WHAT: unknown option 'KEY'; did you mean 'NEAR'?" if a key was never asked
 * for. */
bool options_check_used(const struct options *opts, const char *what, struct error **errp);

/* Parsers for single values, used by the getters and by device properties. */
bool parse_bool(const char *text, bool *value);     /* on off yes no true false y n */
bool parse_uint(const char *text, uint64_t *value); /* decimal, 0x hex, 0 octal; whole string */
bool parse_size(const char *text, uint64_t unit, uint64_t *value);

/* The candidate nearest to word, or NULL if none is near (edit distance at most a third of the
 * length, at least 1). */
const char *nearest_name(const char *word, const char *const *candidates, size_t count);

#endif
