/* SPDX-License-Identifier: MIT */
/* Parsers for single values. Nothing is skipped: no spaces, no signs, no rest. */
#include <string.h>

#include "base/options.h"
#include "base/range.h"

bool parse_bool(const char *text, bool *value)
{
    static const char *const on[] = {"on", "yes", "true", "y"};
    static const char *const off[] = {"off", "no", "false", "n"};
    for (size_t i = 0; i < ARRAY_SIZE(on); i++) {
        if (strcmp(text, on[i]) == 0) {
            *value = true;
            return true;
        }
        if (strcmp(text, off[i]) == 0) {
            *value = false;
            return true;
        }
    }
    return false;
}

static int digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return 16;
}

/* Reads at least one digit; *end is the first character after them. */
static bool parse_digits(const char *p, unsigned base, uint64_t *value, const char **end)
{
    const char *start = p;
    uint64_t v = 0;
    for (unsigned d; (d = (unsigned)digit_value(*p)) < base; p++) {
        if (__builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, d, &v))
            return false;
    }
    *value = v;
    *end = p;
    return p > start;
}

static bool is_hex(const char *text)
{
    return text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
}

bool parse_uint(const char *text, uint64_t *value)
{
    unsigned base = 10;
    if (is_hex(text)) {
        base = 16;
        text += 2;
    } else if (text[0] == '0' && text[1]) {
        base = 8;
        text++;
    }
    uint64_t v;
    const char *end;
    if (!parse_digits(text, base, &v, &end) || *end)
        return false;
    *value = v;
    return true;
}

/* The factor of a suffix at p, `unit` if there is none; 0 if it is no suffix. */
static uint64_t suffix_factor(const char *p, uint64_t unit)
{
    static const char suffixes[] = "bkmgtpe";
    if (!*p)
        return unit;
    char c = *p >= 'A' && *p <= 'Z' ? (char)(*p - 'A' + 'a') : *p;
    const char *found = strchr(suffixes, c);
    return found && !p[1] ? UINT64_C(1) << (10 * (found - suffixes)) : 0;
}

/* The digits after the point, if any, times factor, to the nearest byte. *end is the first character after
 * them; the factor is that of the suffix there. */
static bool parse_fraction(const char *p, uint64_t *bytes, const char **end)
{
    const char *start = p;
    uint64_t numerator = 0, denominator = 1;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (p - start >= 18)
            continue; /* below a byte, even of an exabyte */
        numerator = numerator * 10 + (uint64_t)(*p - '0');
        denominator *= 10;
    }
    *end = p;
    *bytes = 0;
    if (p == start)
        return true;
    uint64_t factor = suffix_factor(p, 0);
    /* Half a byte does not exist, and half of the default unit is too clever. */
    if (factor <= 1)
        return false;
    *bytes = (uint64_t)(((unsigned __int128)numerator * factor + denominator / 2) / denominator);
    return true;
}

bool parse_size(const char *text, uint64_t unit, uint64_t *value)
{
    uint64_t v, factor, fraction = 0;
    const char *end;
    bool hex = is_hex(text);
    if (!parse_digits(hex ? text + 2 : text, hex ? 16 : 10, &v, &end))
        return false;
    if (*end == '.' && (hex || !parse_fraction(end + 1, &fraction, &end)))
        return false;
    factor = suffix_factor(end, unit);
    if (!factor || __builtin_mul_overflow(v, factor, &v) || __builtin_add_overflow(v, fraction, &v))
        return false;
    *value = v;
    return true;
}
