/* SPDX-License-Identifier: MIT */
/* ferry-img: commands by name. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "base/range.h"
#include "tools/common/tool.h"
#include "tools/img/img.h"

static const struct img_command *const commands[] = {
    &img_amend,   &img_bench,   &img_bitmap, &img_check,  &img_commit,
    &img_compare, &img_convert, &img_create, &img_dd,     &img_info,
    &img_map,     &img_measure, &img_rebase, &img_resize, &img_snapshot,
};

/* ---- help ------------------------------------------------------------------------------------ */

static void print_help(void)
{
    autofree char *formats = block_driver_names();

    printf("usage: %s [-h | -V] COMMAND [options] [operands]\n"
           "Makes, describes, checks, copies and changes disk images.\n\n"
           "  -h, --help      this text; after a COMMAND, its options\n"
           "  -V, --version   the version\n\n"
           "Commands:\n",
           tool_name());
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        printf("  %-9s %s\n", commands[i]->name, commands[i]->summary);
    }
    printf("\nSizes are bytes, or have a suffix k, M, G, T, P or E (powers of 1024).\n"
           "Caches are none, writeback, writethrough, directsync and unsafe.\n\n"
           "Supported formats: ");
    for (const char *p = formats; *p; p++) {
        if (*p != ',') {
            putchar(*p);
        }
    }
    putchar('\n');
}

static void print_command_help(const struct img_command *command)
{
    printf("usage: %s %s [options] %s\n%s\n\n", tool_name(), command->name, command->operands,
           command->summary);
    tool_print_options(command->options, stdout);
    printf("  %-28s %s\n", "-h, --help", "this text");
}

/* ---- one command ----------------------------------------------------------------------------- */

static bool add_objects(const struct tool_list *list, struct error **errp)
{
    for (size_t i = 0; i < list->count; i++) {
        if (!tool_add_object(list->items[i], errp)) {
            return false;
        }
    }
    return true;
}

static bool is_help(const char *arg)
{
    return !strcmp(arg, "-h") || !strcmp(arg, "--help");
}

static int run_command(const struct img_command *command, int argc, char **argv,
                       struct error **errp)
{
    struct img_common *fields = xcalloc(1, command->fields_size);
    int first, status = EXIT_SUCCESS;
    int parsed = command->last_is_operand && !is_help(argv[argc - 1]) ? argc - 1 : argc;

    if (parsed < argc && argc < 3) {
        tool_usage_error(errp, "Not enough arguments");
        free(fields);
        return EXIT_FAILURE;
    }
    switch (tool_parse_args(command->options, parsed, argv, fields, &first, errp)) {
    case TOOL_ARGS_HELP:
        print_command_help(command);
        break;
    case TOOL_ARGS_ERROR:
        status = EXIT_FAILURE;
        break;
    case TOOL_ARGS_OK:
        fields->progress = fields->progress && !fields->quiet;
        if (!add_objects(&fields->objects, errp)) {
            status = EXIT_FAILURE;
            break;
        }
        img_begin(command);
        status = command->run(fields, argc - first, argv + first, errp);
        break;
    }
    if (command->release) {
        command->release(fields);
    }
    tool_list_free(&fields->objects);
    free(fields);
    return status;
}

static const struct img_command *find_command(const char *name, struct error **errp)
{
    const char *names[ARRAY_SIZE(commands)];

    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        names[i] = commands[i]->name;
        if (!strcmp(name, names[i])) {
            return commands[i];
        }
    }
    const char *near = nearest_name(name, names, ARRAY_SIZE(names));
    if (near) {
        tool_usage_error(errp, "Command not found: %s; did you mean '%s'?", name, near);
    } else {
        tool_usage_error(errp, "Command not found: %s", name);
    }
    return NULL;
}

/* ---- the program ----------------------------------------------------------------------------- */

struct standard {
    bool version;
};

static bool refuse_trace(void *fields, const struct tool_option *option, const char *arg,
                         struct error **errp)
{
    error_set(errp,
              "-T %s: there is no tracing by option; the tracepoints are USDT probes for perf, "
              "bpftrace and systemtap",
              arg);
    return false;
}

static const struct tool_option standard_options[] = {
    {'V', "version", TOOL_FLAG, offsetof(struct standard, version), NULL, "the version"},
    {'T', "trace", TOOL_CALL, 0, "EVENTS", "refused", refuse_trace},
    {0},
};

static int run(int argc, char **argv, struct error **errp)
{
    struct standard standard = {0};
    int first;

    switch (tool_parse_leading_args(standard_options, argc, argv, &standard, &first, errp)) {
    case TOOL_ARGS_ERROR:
        return EXIT_FAILURE;
    case TOOL_ARGS_HELP:
        print_help();
        return EXIT_SUCCESS;
    case TOOL_ARGS_OK:
        break;
    }
    if (standard.version) {
        tool_print_version();
        return EXIT_SUCCESS;
    }
    if (first == argc) {
        tool_usage_error(errp, "Not enough arguments");
        return EXIT_FAILURE;
    }
    const struct img_command *command = find_command(argv[first], errp);
    if (!command) {
        return EXIT_FAILURE;
    }
    int status = run_command(command, argc - first, argv + first, errp);
    return status == EXIT_SUCCESS && *errp ? EXIT_FAILURE : status;
}

int main(int argc, char **argv)
{
    struct error *err = NULL;
    int status = EXIT_FAILURE;

    if (tool_start("ferry-img", true, &err)) {
        status = run(argc, argv, &err);
    }
    error_report(err);
    if (tool_finish_output() != 0 && status == EXIT_SUCCESS) {
        status = EXIT_FAILURE;
    }
    tool_end();
    return status;
}
