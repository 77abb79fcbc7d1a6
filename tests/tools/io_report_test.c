/* SPDX-License-Identifier: MIT */
/* What ferry-io says about a request: times as qemu-io writes them, however long it took. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/range.h"
#include "tools/io/io_tool.h"

/* What io_report() prints; the caller frees it. */
static char *report(int64_t ns, bool terse)
{
    struct io_stats stats = {
        .verb = "read", .offset = 7, .size = 4096, .nanoseconds = ns, .terse = terse};
    FILE *kept = stdout;
    char *text;
    size_t size;

    stdout = open_memstream(&text, &size);
    io_report(&stats);
    fclose(stdout);
    stdout = kept;
    return text;
}

static void times(void **state)
{
    static const struct {
        int64_t ns;
        const char *text, *terse;
    } cases[] = {
        {0, "00.00 sec", "0:00:00.00"},
        {4900000, "00.00 sec", "0:00:00.00"},
        {5100000, "00.01 sec", "0:00:00.01"}, /* rounded, not cut */
        {994900000, "00.99 sec", "0:00:00.99"},
        {995100000, "01.00 sec", "0:00:01.00"},
        {999999999, "01.00 sec", "0:00:01.00"},
        {1000000000, "0:00:01.00", "0:00:01.00"}, /* from a second on in full */
        {1500000000, "0:00:01.50", "0:00:01.50"},
        {59999000000, "0:00:60.00", "0:00:60.00"}, /* as QEMU has it */
        {61250000000, "0:01:01.25", "0:01:01.25"},
        {3661239000000, "1:01:01.24", "1:01:01.24"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        autofree char *wanted = xasprintf("4 KiB, 1 ops; %s (", cases[i].text);
        autofree char *wanted_terse = xasprintf("4096,1,%s,", cases[i].terse);
        autofree char *got = report(cases[i].ns, false), *got_terse = report(cases[i].ns, true);
        if (!strstr(got, wanted) || strncmp(got_terse, wanted_terse, strlen(wanted_terse)) != 0) {
            fail_msg("%lld ns: %s, %s", (long long)cases[i].ns, got, got_terse);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
