/* SPDX-License-Identifier: MIT */
#include "monitor/base64.h"

#include <string.h>

#include "base/alloc.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *base64_encode(const uint8_t *data, size_t size)
{
    char *text = xmalloc((size + 2) / 3 * 4 + 1), *p = text;

    for (size_t i = 0; i < size; i += 3) {
        uint32_t v = data[i] << 16 | (i + 1 < size ? data[i + 1] << 8 : 0) |
                     (i + 2 < size ? data[i + 2] : 0);
        *p++ = alphabet[v >> 18];
        *p++ = alphabet[v >> 12 & 63];
        *p++ = i + 1 < size ? alphabet[v >> 6 & 63] : '=';
        *p++ = i + 2 < size ? alphabet[v & 63] : '=';
    }
    *p = 0;
    return text;
}

bool base64_decode(const char *text, uint8_t *data, size_t size)
{
    size_t length = strlen(text), padding = 0, at = 0;

    if (length % 4) {
        return false;
    }
    while (padding < 2 && padding < length && text[length - 1 - padding] == '=') {
        padding++;
    }
    if (length / 4 * 3 - padding != size) {
        return false;
    }
    for (size_t i = 0; i < length; i += 4) {
        uint32_t v = 0;

        for (size_t j = 0; j < 4; j++) {
            char c = text[i + j];
            const char *found = c ? strchr(alphabet, c) : NULL;

            if (!found && !(c == '=' && i + j >= length - padding)) {
                return false;
            }
            v = v << 6 | (found ? (uint32_t)(found - alphabet) : 0);
        }
        for (int shift = 16; shift >= 0 && at < size; shift -= 8) {
            data[at++] = v >> shift;
        }
    }
    return true;
}
