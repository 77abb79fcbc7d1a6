/* SPDX-License-Identifier: MIT */
#include "tools/common/json_text.h"

#include <stdio.h>

static void print_value(const json_t *value, int depth);

static void print_member(const char *key, const json_t *value, int depth)
{
    printf("%*s", depth * 4, "");
    for (const char *p = key; *p; p++) {
        putchar(*p == '-' ? ' ' : *p);
    }
    putchar(':');
    print_value(value, depth);
}

void tool_print_members(const json_t *value, int depth)
{
    const char *key;
    json_t *member;
    size_t index;

    if (json_is_array(value)) {
        json_array_foreach(value, index, member) {
            char name[32];
            snprintf(name, sizeof(name), "[%zu]", index);
            print_member(name, member, depth);
        }
    } else {
        json_object_foreach((json_t *)value, key, member) {
            print_member(key, member, depth);
        }
    }
}

static void print_value(const json_t *value, int depth)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
    case JSON_ARRAY:
        putchar('\n');
        tool_print_members(value, depth + 1);
        return;
    case JSON_STRING:
        printf(" %s\n", json_string_value(value));
        return;
    case JSON_INTEGER:
        printf(" %" JSON_INTEGER_FORMAT "\n", json_integer_value(value));
        return;
    case JSON_REAL:
        printf(" %g\n", json_real_value(value));
        return;
    case JSON_TRUE:
    case JSON_FALSE:
        printf(" %s\n", json_is_true(value) ? "true" : "false");
        return;
    case JSON_NULL:
        printf(" null\n");
        return;
    }
}
