/* SPDX-License-Identifier: MIT */
/* Numbers in, numbers out. See io_tool.h. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/options.h"
#include "base/range.h"
#include "tools/io/io_tool.h"

/* ---- parsing --------------------------------------------------------------------------------- */

static bool refuse(const char *why, const char *text)
{
    printf("Parsing error: %s -- %s\n", why, text);
    return false;
}

/* "1.5k": decimal with a fraction and a suffix. */
static bool parse_fraction(const char *text, double *value)
{
    static const char suffixes[] = "bkmgtpe";
    size_t digits = strspn(text, "0123456789"), all = digits;

    if (!digits || text[digits] != '.') {
        return false;
    }
    all += 1 + strspn(text + digits + 1, "0123456789");
    const char *suffix = text[all] ? strchr(suffixes, text[all] | 0x20) : suffixes;
    if (!suffix || all == digits + 1 || (text[all] && text[all + 1])) {
        return false;
    }
    *value = ldexp(strtod(text, NULL), 10 * (int)(suffix - suffixes));
    return true;
}

/* What parse_size() refuses because it is too much, not because it is no number. */
static bool is_number(const char *text)
{
    size_t digits = strspn(text, "0123456789");

    return digits &&
           (!text[digits] || (strchr("bBkKmMgGtTpPeE", text[digits]) && !text[digits + 1]));
}

bool io_parse_number(const char *text, uint64_t *value)
{
    static const char *const no_number = "non-numeric argument, or extraneous/unrecognized suffix";
    double number;

    if (parse_size(text, 1, value)) {
        return *value <= INT64_MAX || refuse("argument too large", text);
    }
    if (parse_fraction(text, &number)) {
        if (number > (double)(INT64_MAX / 2)) {
            return refuse("argument too large", text);
        }
        *value = (uint64_t)number;
        return true;
    }
    return refuse(is_number(text) ? "argument too large" : no_number, text);
}

bool io_parse_length(const char *text, uint64_t *value)
{
    if (!io_parse_number(text, value)) {
        return false;
    }
    if (*value > IO_MAX_BYTES) {
        printf("length cannot exceed %" PRIu64 ", given %s\n", IO_MAX_BYTES, text);
        return false;
    }
    return true;
}

bool io_parse_pattern(const char *text, int *pattern)
{
    uint64_t value;

    if (!parse_uint(text, &value) || value > UINT8_MAX) {
        printf("%s is not a valid pattern byte\n", text);
        return false;
    }
    *pattern = (int)value;
    return true;
}

/* ---- printing -------------------------------------------------------------------------------- */

/* Cuts off a fraction that is zero. */
static void cut_zero(char *number)
{
    char *point = strchr(number, '.');

    if (point && !point[1 + strspn(point + 1, "0")]) {
        *point = '\0';
    }
}

const char *io_size_text(double value, char *text)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    char number[IO_SIZE_TEXT / 2];
    size_t unit = 0;

    while (value >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
        value /= 1024;
        unit++;
    }
    snprintf(number, sizeof(number), unit ? "%.3f" : "%f", value);
    cut_zero(number);
    snprintf(text, IO_SIZE_TEXT, "%s %s", number, units[unit]);
    return text;
}

/* "00.01 sec"; from a second on, and always in full, "0:00:00.01". */
static void time_text(int64_t ns, bool in_full, char *text, size_t size)
{
    uint64_t seconds = (uint64_t)ns / 1000000000;
    double rest = (double)(seconds % 60) + (double)(ns % 1000000000) / 1e9;

    if (in_full || seconds) {
        snprintf(text, size, "%" PRIu64 ":%02u:%05.2f", seconds / 3600,
                 (unsigned)(seconds / 60 % 60), rest);
    } else {
        snprintf(text, size, "%05.2f sec", rest);
    }
}

void io_report(const struct io_stats *stats)
{
    char time[64], size[IO_SIZE_TEXT], rate[IO_SIZE_TEXT];
    double seconds = (double)MAX(stats->nanoseconds, 1) / 1e9;

    if (stats->quiet) {
        return;
    }
    time_text(stats->nanoseconds, stats->terse, time, sizeof(time));
    if (stats->terse) {
        printf("%" PRIu64 ",1,%s,%.3f,%.3f\n", stats->size, time, (double)stats->size / seconds,
               1 / seconds);
        return;
    }
    printf("%s %" PRIu64 "/%" PRIu64 " bytes at offset %" PRIu64 "\n"
           "%s, 1 ops; %s (%s/sec and %.4f ops/sec)\n",
           stats->verb, stats->size, stats->size, stats->offset,
           io_size_text((double)stats->size, size), time,
           io_size_text((double)stats->size / seconds, rate), 1 / seconds);
}

/* Whatever the locale. */
static bool is_alphanumeric(uint8_t c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

void io_dump(const uint8_t *buffer, uint64_t offset, uint64_t size)
{
    for (uint64_t line = 0; line < size; line += 16) {
        uint64_t count = MIN(16, size - line);
        printf("%08" PRIx64 ":  ", offset + line);
        for (uint64_t i = 0; i < count; i++) {
            printf("%02x ", buffer[line + i]);
        }
        putchar(' ');
        for (uint64_t i = 0; i < count; i++) {
            putchar(is_alphanumeric(buffer[line + i]) ? buffer[line + i] : '.');
        }
        putchar('\n');
    }
}

bool io_verify(const uint8_t *buffer, uint64_t from, uint64_t count, uint64_t offset, int pattern)
{
    for (uint64_t i = 0; i < count; i++) {
        if (buffer[from + i] != pattern) {
            printf("Pattern verification failed at offset %" PRIu64 ", %" PRIu64 " bytes\n",
                   offset + from, count);
            return false;
        }
    }
    return true;
}
