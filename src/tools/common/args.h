/* SPDX-License-Identifier: MIT */
/*
 * Command lines of tools by tables: what getopt_long(3) finds is stored in a struct.
 *
 *   static const struct tool_option options[] = {
 *       {'f', NULL, TOOL_STRING, offsetof(struct create, format), "FMT", "format of the image"},
 *       {'q', NULL, TOOL_FLAG, offsetof(struct create, quiet), NULL, "say nothing"},
 *       {0},
 *   };
 *   tool_parse_args(options, argc, argv, &create, &first, &err)
 *
 * Options and operands may be mixed, as with getopt_long(): argv is sorted, operands come last. The
 * table is also the command's help.
 */
#ifndef FERRY_TOOLS_COMMON_ARGS_H
#define FERRY_TOOLS_COMMON_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/error.h"

enum tool_arg_type {
    TOOL_FLAG = 1, /* bool: becomes true */
    TOOL_STRING,   /* const char *: of argv; the last one counts */
    TOOL_APPEND,   /* char *: lists of options, all with ',' between; the caller frees it */
    TOOL_LIST,     /* struct tool_list: all of them */
    TOOL_CALL      /* call(fields, option, argument or NULL) in the order of the command line */
};

struct tool_list {
    const char **items; /* freed by tool_list_free(); what it points to is argv's */
    size_t count;
};
void tool_list_add(struct tool_list *list, const char *item);
void tool_list_free(struct tool_list *list);

struct tool_option {
    int letter;       /* 'f' for -f, or 0 */
    const char *name; /* "output" for --output, or NULL */
    enum tool_arg_type type;
    size_t offset;    /* of the field */
    const char *arg;  /* what help calls its argument; NULL: it takes none */
    const char *help; /* half a line */
    bool (*call)(void *fields, const struct tool_option *option, const char *arg,
                 struct error **errp);
};

enum tool_args_result { TOOL_ARGS_OK, TOOL_ARGS_HELP, TOOL_ARGS_ERROR };

/* The table ends with an entry of zeroes. argv[0] is the command. *first: index of the first operand
 * in the sorted argv. -h and --help of every command: TOOL_ARGS_HELP, unless the table has 'h'. */
enum tool_args_result tool_parse_args(const struct tool_option *options, int argc, char **argv,
                                      void *fields, int *first, struct error **errp);
/* As tool_parse_args(), but stops at the first operand. */
enum tool_args_result tool_parse_leading_args(const struct tool_option *options, int argc,
                                              char **argv, void *fields, int *first,
                                              struct error **errp);
/* A line for each option. */
void tool_print_options(const struct tool_option *options, FILE *to);
/* An error of the command line: with the hint where help is. */
void tool_usage_error(struct error **errp, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
