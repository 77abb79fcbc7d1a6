/* SPDX-License-Identifier: MIT */
/* How far a command is. See progress.h. */
#include "tools/common/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "aio/clock.h"
#include "base/range.h"
#include "tools/common/signals.h"
#include "tools/common/tool.h"

#define TERMINAL_NS (100 * NS_PER_MS) /* between two updates */

static int64_t now_ns(void)
{
    return clock_get_ns(AIO_CLOCK_RT);
}

void progress_start(struct progress *progress, bool shown, bool is_bytes, uint64_t total)
{
    *progress = (struct progress){
        .shown = shown,
        .on_terminal = shown && isatty(STDOUT_FILENO),
        .is_bytes = is_bytes,
        .total = total,
        .started_ns = now_ns(),
        .shown_hundredths = UINT32_MAX,
    };
    signals_catch_usr1();
    progress_set(progress, 0);
}

static unsigned hundredths(const struct progress *progress)
{
    if (!progress->total) {
        return 0;
    }
    return (unsigned)((double)MIN(progress->done, progress->total) * 10000 /
                      (double)progress->total);
}

/* ", 123 MiB/s, 1:05 left". */
static void describe_rate(const struct progress *progress, char *text, size_t size)
{
    double seconds = (double)(now_ns() - progress->started_ns) / NS_PER_SEC;
    char rate_text[TOOL_SIZE_TEXT];

    *text = 0;
    if (!progress->is_bytes || seconds < 0.2 || !progress->done) {
        return;
    }
    double rate = (double)progress->done / seconds;
    double left = (double)(progress->total - MIN(progress->done, progress->total)) / rate;
    unsigned whole = left < 360000 ? (unsigned)(left + 0.5) : 360000;
    int n = snprintf(text, size, " %s/s, ", tool_size_text((uint64_t)rate, rate_text));
    if (n < 0 || (size_t)n >= size) {
        return;
    }
    if (whole >= 3600) {
        snprintf(text + n, size - (size_t)n, "%u:%02u:%02u left", whole / 3600, whole / 60 % 60,
                 whole % 60);
    } else {
        snprintf(text + n, size - (size_t)n, "%u:%02u left", whole / 60, whole % 60);
    }
}

static void print(struct progress *progress, FILE *to, const char *end)
{
    char rate[96] = "";
    unsigned part = hundredths(progress);

    if (progress->on_terminal && to == stdout) {
        describe_rate(progress, rate, sizeof(rate));
    }
    fprintf(to, "    (%u.%02u/100%%)%s%s%s", part / 100, part % 100, rate, *rate ? "\033[K" : "",
            end);
    if (to == stdout) {
        tool_flush_output();
    }
}

void progress_set(struct progress *progress, uint64_t done)
{
    progress->done = done;
    if (signals_take_usr1()) {
        print(progress, stderr, "\n");
    }
    if (!progress->shown) {
        return;
    }
    unsigned part = hundredths(progress);
    if (part == progress->shown_hundredths) {
        return;
    }
    if (progress->on_terminal) {
        int64_t now = now_ns();
        if (progress->line_open && part < 10000 && now - progress->shown_ns < TERMINAL_NS) {
            return;
        }
        progress->shown_ns = now;
    }
    progress->shown_hundredths = part;
    progress->line_open = true;
    print(progress, stdout, "\r");
}

void progress_add(struct progress *progress, uint64_t more)
{
    progress_set(progress, progress->done + more);
}

void progress_end(struct progress *progress, bool complete)
{
    if (!progress->shown) {
        return;
    }
    if (complete) {
        progress->shown_hundredths = UINT32_MAX;
        progress->total = MAX(progress->total, 1);
        progress_set(progress, progress->total);
    }
    putchar('\n');
    tool_flush_output();
    progress->line_open = false;
}
