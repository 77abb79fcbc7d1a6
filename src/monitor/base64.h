/* SPDX-License-Identifier: MIT */
/* Base64 (RFC 4648, 4); no library among ferry's has it. */
#ifndef FERRY_MONITOR_BASE64_H
#define FERRY_MONITOR_BASE64_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

char *base64_encode(const uint8_t *data, size_t size); /* to be freed */
/* Decodes to exactly size bytes; false if text is malformed or of another length. */
bool base64_decode(const char *text, uint8_t *data, size_t size);

#endif
