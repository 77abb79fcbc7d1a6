/* SPDX-License-Identifier: MIT */
#ifndef FERRY_BASE_ID_H
#define FERRY_BASE_ID_H
#include <stdbool.h>
/* True if id is well formed: a letter, then letters, digits, '-', '.', '_'. */
bool id_is_wellformed(const char *id);
#endif
