/* SPDX-License-Identifier: MIT */
/* Between options.c and options_parse.c. */
#ifndef FERRY_BASE_OPTIONS_INTERNAL_H
#define FERRY_BASE_OPTIONS_INTERNAL_H

#include "base/options.h"

/* As options_set(); errors about the key quote `spelled` instead, if it is not NULL. */
void options_set_spelled(struct options *opts, const char *key, const char *value,
                         const char *spelled);
/* options_set_literal() has set it. */
bool options_is_literal(const struct options *opts, size_t index);

#endif
