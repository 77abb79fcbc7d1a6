/* SPDX-License-Identifier: MIT */
/* RFC 3629, UTF-8. See utf8.h. */
#include "base/utf8.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

static bool is_character(uint32_t code, unsigned length)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};

    return length <= 4 && code >= least[length] && code <= 0x10FFFF &&
           (code < 0xD800 || code > 0xDFFF) && /* surrogates */
           (code < 0xFDD0 || code > 0xFDEF) && /* noncharacters */
           (code & 0xFFFE) != 0xFFFE;
}

/* Bytes that belong together at the beginning of a text that is not empty. */
static unsigned sequence(const unsigned char *text, bool *valid)
{
    unsigned char first = *text;
    unsigned length = 1;

    *valid = first < 0x80;
    if (first < 0xC0 || first >= 0xFE) {
        return 1;
    }
    /* 11…10xxxxxx: as many ones as bytes; the form goes on to six, of which no character is made. */
    unsigned announced = 0;
    while (first & (0x80u >> announced)) {
        announced++;
    }
    uint32_t code = first & (0x7Fu >> announced);
    while (length < announced && (text[length] & 0xC0) == 0x80) {
        code = code << 6 | (text[length++] & 0x3F);
    }
    *valid = length == announced && is_character(code, length);
    return length;
}

char *utf8_repair(const char *text)
{
    char *out = xmalloc(strlen(text) * strlen(REPLACEMENT) + 1), *to = out;

    while (*text) {
        bool valid;
        unsigned length = sequence((const unsigned char *)text, &valid);
        const char *from = valid ? text : REPLACEMENT;
        size_t size = valid ? length : strlen(REPLACEMENT);
        memcpy(to, from, size);
        to += size;
        text += length;
    }
    *to = 0;
    return out;
}
