/* SPDX-License-Identifier: MIT */
/*
 * How far a command is.
 *
 *   -p         "    (12.34/100%)\r" on stdout, whenever it changes; on a terminal with rate and time left
 *   SIGUSR1    the same as a line on stderr, with or without -p
 */
#ifndef FERRY_TOOLS_COMMON_PROGRESS_H
#define FERRY_TOOLS_COMMON_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    bool shown;       /* -p */
    bool on_terminal; /* stdout is one */
    bool is_bytes;    /* done and total are bytes: a rate makes sense */
    uint64_t done, total;
    int64_t started_ns, shown_ns;
    unsigned shown_hundredths; /* of a percent */
    bool line_open;            /* no newline yet */
};

void progress_start(struct progress *progress, bool shown, bool is_bytes, uint64_t total);
/* done: of the total; goes up only. Prints if a hundredth of a percent was made. */
void progress_set(struct progress *progress, uint64_t done);
void progress_add(struct progress *progress, uint64_t more);
/* complete: as if all were done. Ends the line. */
void progress_end(struct progress *progress, bool complete);

#endif
