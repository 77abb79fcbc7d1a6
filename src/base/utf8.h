/* SPDX-License-Identifier: MIT */
/* Bytes from outside (file names, names in images) made into UTF-8, which JSON needs. */
#ifndef FERRY_BASE_UTF8_H
#define FERRY_BASE_UTF8_H

#include <stdbool.h>

/* A copy in which U+FFFD stands for each sequence that is none: for a byte that begins no sequence, and
 * for what is cut off, overlong, a surrogate, a noncharacter or above U+10FFFF. The caller frees it. */
char *utf8_repair(const char *text);

#endif
