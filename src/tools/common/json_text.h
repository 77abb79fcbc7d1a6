/* SPDX-License-Identifier: MIT */
/* JSON objects for people: one member a line, indented. */
#ifndef FERRY_TOOLS_COMMON_JSON_TEXT_H
#define FERRY_TOOLS_COMMON_JSON_TEXT_H

#include <jansson.h>

/* Members of an object or array, to stdout; depth: in steps of 4 spaces. '-' in names becomes ' '. */
void tool_print_members(const json_t *value, int depth);

#endif
