/* SPDX-License-Identifier: MIT */
/* ferry-io: the command line. See io_tool.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "tools/common/tool.h"
#include "tools/io/io_tool.h"

struct io_args {
    struct tool_list commands, objects;
    struct io_open how;
    bool misalign, version;
};

static bool take_nocache(void *fields, const struct tool_option *option, const char *arg,
                         struct error **errp)
{
    ((struct io_args *)fields)->how.cache = "none";
    return true;
}

static bool set_native(void *fields, const struct tool_option *option, const char *arg,
                       struct error **errp)
{
    ((struct io_args *)fields)->how.aio = "native";
    return true;
}

static bool refuse(void *fields, const struct tool_option *option, const char *arg,
                   struct error **errp)
{
    error_set(errp, "-%c is not supported; %s", option->letter,
              option->letter == 's' ? "make an overlay with 'ferry-img create -b' and open that"
                                    : "leave it out");
    return false;
}

#define FIELD(name) offsetof(struct io_args, name)

static const struct tool_option options[] = {
    {'c', "cmd", TOOL_LIST, FIELD(commands), "COMMAND", "run a command; may be repeated"},
    {'f', "format", TOOL_STRING, FIELD(how.format), "FORMAT", "format of the image"},
    {0, "image-opts", TOOL_FLAG, FIELD(how.image_opts), NULL, "FILE is a list of image options"},
    {'r', "read-only", TOOL_FLAG, FIELD(how.read_only), NULL, "open the image read-only"},
    {'n', "nocache", TOOL_CALL, 0, NULL, "as -t none", take_nocache},
    {'t', "cache", TOOL_STRING, FIELD(how.cache), "MODE",
     "none, writeback (default), writethrough, directsync, unsafe"},
    {'i', "aio", TOOL_STRING, FIELD(how.aio), "MODE",
     "threads (default), io_uring or native (as io_uring, with -t none)"},
    {'d', "discard", TOOL_STRING, FIELD(how.discard), "MODE", "unmap (default) or ignore"},
    {'C', "copy-on-read", TOOL_FLAG, FIELD(how.copy_on_read), NULL,
     "keep what is read from backing files"},
    {'m', "misalign", TOOL_FLAG, FIELD(misalign), NULL, "buffers at odd addresses"},
    {'U', "force-share", TOOL_FLAG, FIELD(how.force_share), NULL,
     "open it whatever others do with it"},
    {0, "object", TOOL_LIST, FIELD(objects), "TYPE,id=ID,…", "make an object"},
    {'V', "version", TOOL_FLAG, FIELD(version), NULL, "print the version"},
    {'s', "snapshot", TOOL_CALL, 0, NULL, "not supported", refuse},
    {'k', "native-aio", TOOL_CALL, 0, NULL, "as --aio native", set_native},
    {'T', "trace", TOOL_CALL, 0, "SPEC", "not supported", refuse},
    {0},
};

static void print_help(FILE *to)
{
    fprintf(to, "Usage: ferry-io [OPTIONS] [-c COMMAND]... [FILE]\n"
                "Single requests to a disk image (ferry-io(1))\n\n"
                "  -h, --help                   display this help\n");
    tool_print_options(options, to);
    fprintf(to, "\nWithout -c, commands come from standard input; 'help' lists them.\n");
}

static bool prepare(struct io_args *args, struct io_session *s, struct error **errp)
{
    for (size_t i = 0; i < args->objects.count; i++) {
        if (!tool_add_object(args->objects.items[i], errp)) {
            return false;
        }
    }
    s->misalign = args->misalign;
    if (args->how.image_opts && args->how.format) {
        error_set(errp, "--image-opts and -f are mutually exclusive");
        return false;
    }
    return (!args->how.filename && !args->how.image_opts) || io_open_image(s, &args->how, errp);
}

static bool run(struct io_args *args, struct error **errp)
{
    struct io_session session = {0};
    bool ok = tool_start("ferry-io", true, errp) && prepare(args, &session, errp);

    if (ok && args->commands.count) {
        for (size_t i = 0; i < args->commands.count && !session.is_over; i++) {
            ok = io_command_run(&session, args->commands.items[i]) && ok;
        }
    } else if (ok) {
        ok = io_shell(&session);
    }
    ok = io_close_image(&session) && ok;
    tool_end();
    return ok;
}

static bool parse(int argc, char **argv, struct io_args *args, bool *is_done, struct error **errp)
{
    int first;

    switch (tool_parse_args(options, argc, argv, args, &first, errp)) {
    case TOOL_ARGS_HELP:
        print_help(stdout);
        *is_done = true;
        return true;
    case TOOL_ARGS_ERROR:
        return false;
    case TOOL_ARGS_OK:
        break;
    }
    if (args->version) {
        tool_print_version();
        *is_done = true;
        return true;
    }
    if (argc - first > 1) {
        tool_usage_error(errp, "Only one image can be open; '%s' is one too many", argv[first + 1]);
        return false;
    }
    if (first < argc) {
        args->how.filename = argv[first];
    }
    return true;
}

int main(int argc, char **argv)
{
    struct io_args args = {0};
    struct error *err = NULL;
    bool is_done = false;

    tool_begin("ferry-io");
    tool_has_force_share(true);
    bool ok = parse(argc, argv, &args, &is_done, &err) && (is_done || run(&args, &err));
    if (err) {
        error_report(err);
    }
    tool_list_free(&args.commands);
    tool_list_free(&args.objects);
    ok = tool_finish_output() == 0 && ok;
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
