/* SPDX-License-Identifier: MIT */
/* Command lines by tables. See args.h. */
#include "tools/common/args.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "tools/common/tool.h"

#define OPTION_BASE 0x1000 /* what getopt_long() returns for option n: OPTION_BASE + n */

/* ---- lists ----------------------------------------------------------------------------------- */

void tool_list_add(struct tool_list *list, const char *item)
{
    list->items = xreallocarray(list->items, list->count + 1, sizeof(*list->items));
    list->items[list->count++] = item;
}

void tool_list_free(struct tool_list *list)
{
    free(list->items);
    *list = (struct tool_list){0};
}

/* ---- errors ---------------------------------------------------------------------------------- */

void tool_usage_error(struct error **errp, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    autofree char *text = xvasprintf(fmt, ap);
    va_end(ap);
    error_set(errp, "%s", text);
    error_add_hint(errp, "Try '%s --help' for more information", tool_name());
}

/* ---- parsing --------------------------------------------------------------------------------- */

static bool is_end(const struct tool_option *option)
{
    return !option->letter && !option->name;
}

static size_t count_options(const struct tool_option *options)
{
    size_t count = 0;

    while (!is_end(&options[count])) {
        count++;
    }
    return count;
}

static bool has_letter(const struct tool_option *options, int letter)
{
    for (; !is_end(options); options++) {
        if (options->letter == letter) {
            return true;
        }
    }
    return false;
}

/* The tables of getopt_long(), with room for what every command has. */
struct getopt_tables {
    char *letters;
    struct option *names;
};

static void make_tables(const struct tool_option *options, bool leading,
                        struct getopt_tables *tables)
{
    size_t count = count_options(options), names = 0;
    char *p = tables->letters = xcalloc(3 * count + 8, 1);

    tables->names = xcalloc(count + 2, sizeof(*tables->names));
    if (leading) {
        *p++ = '+';
    }
    *p++ = ':';
    for (size_t i = 0; i < count; i++) {
        const struct tool_option *option = &options[i];
        if (option->letter) {
            *p++ = (char)option->letter;
            if (option->arg) {
                *p++ = ':';
            }
        }
        if (option->name) {
            tables->names[names++] = (struct option){
                .name = option->name,
                .has_arg = option->arg ? required_argument : no_argument,
                .val = OPTION_BASE + (int)i,
            };
        }
    }
    if (!has_letter(options, 'h')) {
        *p++ = 'h';
        tables->names[names] = (struct option){.name = "help", .val = 'h'};
    }
}

/* QEMU's rule: a list of something, and no comma at its end that would have to be ",,". */
static bool check_list(const char *arg, struct error **errp)
{
    size_t length = strlen(arg), end = length;

    while (end && arg[end - 1] == ',') {
        end--;
    }
    if (!end || *arg == ',' || (length - end) % 2) {
        error_set(errp, "Invalid option list: %s", arg);
        return false;
    }
    return true;
}

static bool store(const struct tool_option *option, void *fields, const char *arg,
                  struct error **errp)
{
    void *field = (char *)fields + option->offset;

    switch (option->type) {
    case TOOL_FLAG:
        *(bool *)field = true;
        break;
    case TOOL_STRING:
        *(const char **)field = arg;
        break;
    case TOOL_APPEND: {
        if (!check_list(arg, errp)) {
            return false;
        }
        char **text = field;
        char *longer = *text ? xasprintf("%s,%s", *text, arg) : xstrdup(arg);
        free(*text);
        *text = longer;
        break;
    }
    case TOOL_LIST:
        tool_list_add(field, arg);
        break;
    case TOOL_CALL:
        return option->call(fields, option, arg, errp);
    }
    return true;
}

static const struct tool_option *find_letter(const struct tool_option *options, int letter)
{
    for (; !is_end(options); options++) {
        if (options->letter == letter) {
            return options;
        }
    }
    return NULL;
}

static enum tool_args_result parse(const struct tool_option *options, bool leading, int argc,
                                   char **argv, void *fields, int *first, struct error **errp)
{
    struct getopt_tables tables;
    enum tool_args_result result = TOOL_ARGS_OK;
    int c;

    make_tables(options, leading, &tables);
    optind = 0; /* from the start, also for a second command line */
    opterr = 0;
    while (result == TOOL_ARGS_OK &&
           (c = getopt_long(argc, argv, tables.letters, tables.names, NULL)) != -1) {
        const struct tool_option *option =
            c >= OPTION_BASE ? &options[c - OPTION_BASE] : find_letter(options, c);
        if (option) {
            result = store(option, fields, optarg, errp) ? TOOL_ARGS_OK : TOOL_ARGS_ERROR;
        } else if (c == 'h') {
            result = TOOL_ARGS_HELP;
        } else {
            tool_usage_error(
                errp, c == ':' ? "missing argument for option '%s'" : "unrecognized option '%s'",
                argv[optind - 1]);
            result = TOOL_ARGS_ERROR;
        }
    }
    *first = optind;
    free(tables.letters);
    free(tables.names);
    return result;
}

enum tool_args_result tool_parse_args(const struct tool_option *options, int argc, char **argv,
                                      void *fields, int *first, struct error **errp)
{
    return parse(options, false, argc, argv, fields, first, errp);
}

enum tool_args_result tool_parse_leading_args(const struct tool_option *options, int argc,
                                              char **argv, void *fields, int *first,
                                              struct error **errp)
{
    return parse(options, true, argc, argv, fields, first, errp);
}

/* ---- help ------------------------------------------------------------------------------------ */

void tool_print_options(const struct tool_option *options, FILE *to)
{
    for (; !is_end(options); options++) {
        char letter[8] = "", text[64];
        if (options->letter) {
            snprintf(letter, sizeof(letter), "-%c%s", options->letter, options->name ? ", " : "");
        }
        snprintf(text, sizeof(text), "%s%s%s%s%s", letter, options->name ? "--" : "",
                 options->name ? options->name : "",
                 options->arg ? (options->name ? "=" : " ") : "", options->arg ? options->arg : "");
        fprintf(to, "  %-28s %s\n", text, options->help);
    }
}
