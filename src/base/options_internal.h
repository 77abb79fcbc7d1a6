/* SPDX-License-Identifier: MIT */
/* Between options.c and options_parse.c. */
#ifndef FERRY_BASE_OPTIONS_INTERNAL_H
#define FERRY_BASE_OPTIONS_INTERNAL_H

#include "base/options.h"

/* As options_set(); errors about the key quote `spelled` instead, if it is not NULL. */
void options_set_spelled(struct options *opts, const char *key, const char *value,
                         const char *spelled);
/* From JSON: getters of another type refuse it. is_dotted: see options_check_nested(). */
void options_set_json(struct options *opts, const char *key, const char *value,
                      enum option_type type, bool is_dotted);

#endif
