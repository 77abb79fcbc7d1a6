/* SPDX-License-Identifier: MIT */
/*
 * Messages for whoever started ferry. stdout belongs to the guest's console, so all go to stderr
 * (or to the file of -D), each as one line "ferry: text" (a tool has its own name there) in one
 * write. Thread-safe.
 *
 * What a guest does wrong is logged by log_guest_error(), which is off unless -d guest_errors
 * asks for it and then bounded to 10 lines a second: no guest fills a disk.
 */
#ifndef FERRY_BASE_LOG_H
#define FERRY_BASE_LOG_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

/* Items of -d; a mask. */
enum log_item {
    LOG_GUEST_ERRORS = 1 << 0, /* the guest misuses a device */
    LOG_UNIMP = 1 << 1,        /* the guest uses what ferry lacks */
    LOG_CPU_RESET = 1 << 2,    /* registers before each CPU reset */
    LOG_INT = 1 << 3,          /* interrupts and exceptions (soft CPU) */
    LOG_IN_ASM = 1 << 4,       /* guest code as it is decoded (soft CPU) */
    LOG_EXEC = 1 << 5,         /* each instruction run (soft CPU) */
};

extern uint32_t log_mask; /* written once at start-up */

/* Who speaks, instead of "ferry". At start-up, before other threads; the name stays the caller's. */
void log_set_program(const char *name);

/* -msg: messages begin with the time (UTC) and the guest's name, if it is not NULL; lines of -d do
 * not. At start-up, before other threads. */
void log_set_heads(bool with_timestamps, const char *name);

void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* "warning: " */
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* As log_error(), with lines of hint (separated by '\n', "" for none) below it. */
void log_error_with_hint(const char *message, const char *hint);
void log_guest_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* One line for an item of -d, when it is on. LOG_GUEST_ERRORS and LOG_UNIMP are bounded. */
void log_item(enum log_item item, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Several lines that belong together, as they are, each ending in '\n'; in one write. */
void log_item_block(enum log_item item, const char *lines);

/* Parses "guest_errors,cpu_reset" (of -d). "help" is the caller's. */
bool log_parse_items(const char *items, uint32_t *mask, struct error **errp);
void log_print_items(FILE *to);
/* Sends messages of -d items to a file (of -D). */
bool log_set_file(const char *path, struct error **errp);

#endif
