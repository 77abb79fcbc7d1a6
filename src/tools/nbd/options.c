/* SPDX-License-Identifier: MIT */
/* The command line, as qemu-nbd's. See nbd_tool.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "base/range.h"
#include "tools/common/tool.h"
#include "tools/nbd/nbd_tool.h"

/* ---- values ---------------------------------------------------------------------------------- */

static bool take_shared(void *fields, const struct tool_option *option, const char *arg,
                        struct error **errp)
{
    uint64_t value;

    if (!parse_uint(arg, &value) || value > INT32_MAX) {
        error_set(errp, "Invalid shared device number '%s'", arg);
        return false;
    }
    ((struct nbd_args *)fields)->shared = (unsigned)value;
    return true;
}

static bool take_threads(void *fields, const struct tool_option *option, const char *arg,
                         struct error **errp)
{
    uint64_t value;

    if (!parse_uint(arg, &value) || value > NBD_SERVER_THREADS_MAX) {
        error_set(errp, "Invalid number of threads '%s'; it is at most %u", arg,
                  NBD_SERVER_THREADS_MAX);
        return false;
    }
    ((struct nbd_args *)fields)->threads = (unsigned)value;
    return true;
}

static bool take_offset(void *fields, const struct tool_option *option, const char *arg,
                        struct error **errp)
{
    uint64_t value;

    if (!parse_size(arg, 1, &value) || value > INT64_MAX) {
        error_set(errp, "Invalid offset '%s'", arg);
        return false;
    }
    ((struct nbd_args *)fields)->offset = value;
    return true;
}

static bool take_once(const char **field, const char *arg, const char *what, struct error **errp)
{
    if (*field) {
        error_set(errp, "%s can only be specified once", what);
        return false;
    }
    *field = arg;
    return true;
}

static bool take_cache(void *fields, const struct tool_option *option, const char *arg,
                       struct error **errp)
{
    return take_once(&((struct nbd_args *)fields)->cache, arg ? arg : "none", "-n and --cache",
                     errp);
}

static bool take_aio(void *fields, const struct tool_option *option, const char *arg,
                     struct error **errp)
{
    return take_once(&((struct nbd_args *)fields)->aio, arg, "--aio", errp);
}

static bool take_discard(void *fields, const struct tool_option *option, const char *arg,
                         struct error **errp)
{
    return take_once(&((struct nbd_args *)fields)->discard, arg, "--discard", errp);
}

static bool refuse_kernel(void *fields, const struct tool_option *option, const char *arg,
                          struct error **errp)
{
    error_set(errp,
              "--%s: ferry-nbd does not drive the kernel's NBD devices; serve the image at a unix "
              "socket (-k) and use nbd-client(8) with -unix",
              option->name);
    return false;
}

static bool refuse_other(void *fields, const struct tool_option *option, const char *arg,
                         struct error **errp)
{
    if (!strcmp(option->name, "snapshot")) {
        error_set(errp, "--snapshot is not supported; make an overlay with 'ferry-img create -f "
                        "qcow2 -b FILE -F FORMAT' and export that");
    } else {
        error_set(errp, "--%s is not supported; leave it out", option->name);
    }
    return false;
}

/* ---- the table ------------------------------------------------------------------------------- */

#define FIELD(name) offsetof(struct nbd_args, name)

static const struct tool_option connection_options[] = {
    {'p', "port", TOOL_STRING, FIELD(port), "PORT", "port to listen on (default 10809)"},
    {'b', "bind", TOOL_STRING, FIELD(bind_address), "ADDR", "address to bind to (default 0.0.0.0)"},
    {'k', "socket", TOOL_STRING, FIELD(socket_path), "PATH", "listen at a unix socket"},
    {'e', "shared", TOOL_CALL, 0, "NUM", "clients at once (default 1, 0: no limit)", take_shared},
    {'t', "persistent", TOOL_FLAG, FIELD(persistent), NULL, "stay when the last client leaves"},
    {'v', "verbose", TOOL_FLAG, FIELD(verbose), NULL, "tell what clients do"},
    {'x', "export-name", TOOL_STRING, FIELD(name), "NAME", "name of the export (default empty)"},
    {'D', "description", TOOL_STRING, FIELD(description), "TEXT", "description of the export"},
    {0, "export", TOOL_LIST, FIELD(exports), "name=NAME,file=FILE,…",
     "one export more; may be repeated"},
    {0, "threads", TOOL_CALL, 0, "NUM", "event loops for clients (default 0: the main loop)",
     take_threads},
    {0},
};

static const struct tool_option part_options[] = {
    {'o', "offset", TOOL_CALL, 0, "OFFSET", "where in the image the export begins", take_offset},
    {'A', "allocation-depth", TOOL_FLAG, FIELD(allocation_depth), NULL,
     "show qemu:allocation-depth"},
    {'B', "bitmap", TOOL_LIST, FIELD(bitmaps), "NAME", "show qemu:dirty-bitmap:NAME"},
    {0},
};

static const struct tool_option general_options[] = {
    {'L', "list", TOOL_FLAG, FIELD(list), NULL, "list the exports of another server"},
    {0, "object", TOOL_LIST, FIELD(objects), "TYPE,id=ID,…",
     "tls-creds-x509, tls-creds-psk, authz-simple, throttle-group"},
    {0, "tls-creds", TOOL_STRING, FIELD(tls_creds), "ID", "TLS with these credentials"},
    {0, "tls-hostname", TOOL_STRING, FIELD(tls_hostname), "NAME",
     "with -L: whose certificate is expected"},
    {0, "tls-authz", TOOL_STRING, FIELD(tls_authz), "ID", "who may connect"},
    {0, "fork", TOOL_FLAG, FIELD(fork), NULL, "go into the background when clients can come"},
    {0, "pid-file", TOOL_STRING, FIELD(pid_file), "PATH", "write the process id there"},
    {'V', "version", TOOL_FLAG, FIELD(version), NULL, "print the version"},
    {0},
};

static const struct tool_option image_options[] = {
    {'f', "format", TOOL_STRING, FIELD(format), "FORMAT", "format of the image (raw, qcow2, …)"},
    {'r', "read-only", TOOL_FLAG, FIELD(read_only), NULL, "export read-only"},
    {'l', "load-snapshot", TOOL_STRING, FIELD(snapshot), "SNAPSHOT",
     "export an internal snapshot, read-only"},
    {'n', "nocache", TOOL_CALL, 0, NULL, "as --cache=none", take_cache},
    {0, "cache", TOOL_CALL, 0, "MODE",
     "none, writeback (default), writethrough, directsync, unsafe", take_cache},
    {0, "aio", TOOL_CALL, 0, "MODE", "threads (default), io_uring or native", take_aio},
    {0, "discard", TOOL_CALL, 0, "MODE", "ignore (default) or unmap", take_discard},
    {0, "detect-zeroes", TOOL_STRING, FIELD(detect_zeroes), "MODE", "off (default), on, unmap"},
    {0, "image-opts", TOOL_FLAG, FIELD(image_opts), NULL, "FILE is a list of image options"},
    {0},
};

static const struct tool_option refused_options[] = {
    {'c', "connect", TOOL_CALL, 0, "DEV", "", refuse_kernel},
    {'d', "disconnect", TOOL_CALL, 0, NULL, "", refuse_kernel},
    {'s', "snapshot", TOOL_CALL, 0, NULL, "", refuse_other},
    {'T', "trace", TOOL_CALL, 0, "SPEC", "", refuse_other},
    {0, "selinux-label", TOOL_CALL, 0, "LABEL", "", refuse_other},
    {0},
};

static const struct tool_option *const tables[] = {
    connection_options, part_options, general_options, image_options, refused_options,
};

#define OPTIONS_MAX 64

static void join_tables(struct tool_option *all)
{
    size_t count = 0;

    for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
        for (const struct tool_option *option = tables[i]; option->name; option++) {
            all[count++] = *option;
        }
    }
    all[count] = (struct tool_option){0};
}

static void print_help(void)
{
    printf("Usage: ferry-nbd [OPTIONS] FILE\n"
           "  or:  ferry-nbd [OPTIONS] --export name=NAME,file=FILE …\n"
           "  or:  ferry-nbd -L [OPTIONS]\n"
           "Images as exports of an NBD server (ferry-nbd(1))\n"
           "\n  -h, --help                   display this help\n\nConnections:\n");
    tool_print_options(connection_options, stdout);
    printf("\nPart of the image:\n");
    tool_print_options(part_options, stdout);
    printf("\nGeneral:\n");
    tool_print_options(general_options, stdout);
    printf("\nThe image:\n");
    tool_print_options(image_options, stdout);
}

/* ---- what goes together ---------------------------------------------------------------------- */

static bool is_one_of(const char *text, const char *const *names)
{
    while (*names && strcmp(text, *names)) {
        names++;
    }
    return *names;
}

static bool check_image(const struct nbd_args *args, struct error **errp)
{
    static const char *const discard[] = {"ignore", "off", "unmap", "on", NULL};
    static const char *const detect[] = {"off", "on", "unmap", NULL};
    bool unmaps =
        args->discard && (!strcmp(args->discard, "unmap") || !strcmp(args->discard, "on"));

    if (args->discard && !is_one_of(args->discard, discard)) {
        error_set(errp, "Invalid discard mode `%s'; use ignore or unmap", args->discard);
        return false;
    }
    if (args->detect_zeroes && !is_one_of(args->detect_zeroes, detect)) {
        error_set(errp, "Failed to parse detect_zeroes mode: invalid parameter value: %s",
                  args->detect_zeroes);
        return false;
    }
    if (args->detect_zeroes && !strcmp(args->detect_zeroes, "unmap") && !unmaps) {
        error_set(errp, "setting detect-zeroes to unmap is not allowed without setting discard "
                        "operation to unmap");
        return false;
    }
    if (args->image_opts && args->format) {
        error_set(errp, "--image-opts and -f are mutually exclusive");
        return false;
    }
    return tool_check_cache(args->cache, "cache", errp) && tool_check_aio(args->aio, errp);
}

static bool check_connection(const struct nbd_args *args, struct error **errp)
{
    uint64_t port;

    if (args->socket_path && *args->socket_path != '/') {
        error_set(errp, "socket path must be absolute");
        return false;
    }
    if (args->port && (!parse_uint(args->port, &port) || port > UINT16_MAX)) {
        error_set(errp, "Invalid port '%s'", args->port);
        return false;
    }
    if (args->tls_authz && !args->tls_creds) {
        error_set(errp, "--tls-authz is not permitted without --tls-creds");
        return false;
    }
    if (args->tls_hostname && !args->list) {
        error_set(errp, "TLS hostname is only for the client: it goes with -L");
        return false;
    }
    if (args->tls_hostname && !args->tls_creds) {
        error_set(errp, "--tls-hostname is not permitted without --tls-creds");
        return false;
    }
    return true;
}

/* Settings of FILE, which --export says in its own way. */
static bool is_for_one(const struct nbd_args *args)
{
    return args->name || args->description || args->offset || args->bitmaps.count ||
           args->image_opts;
}

static bool check_operands(struct nbd_args *args, int count, char **operands, struct error **errp)
{
    int wanted = args->list || args->exports.count ? 0 : 1;

    if (count > 1 || count < wanted || (args->list && count)) {
        tool_usage_error(errp, args->list ? "List mode is incompatible with a file name"
                                          : "Invalid number of arguments");
        return false;
    }
    args->filename = count ? operands[0] : NULL;
    if (!args->filename && !args->list && is_for_one(args)) {
        error_set(errp, "-x, -D, -o, -B and --image-opts are for FILE; give them to "
                        "--export as name=, description=, offset=, bitmap=, image.…=");
        return false;
    }
    return true;
}

/* Another server's exports are as they are. */
static bool check_list(const struct nbd_args *args, struct error **errp)
{
    if (!args->list) {
        return true;
    }
    if (is_for_one(args) || args->exports.count || args->format || args->snapshot ||
        args->allocation_depth || args->cache || args->aio || args->discard) {
        error_set(errp, "List mode is incompatible with per-device settings");
        return false;
    }
    if (args->fork) {
        error_set(errp, "List mode is incompatible with forking");
        return false;
    }
    return true;
}

enum tool_args_result nbd_args_parse(int argc, char **argv, struct nbd_args *args,
                                     struct error **errp)
{
    struct tool_option all[OPTIONS_MAX];
    int first;

    *args = (struct nbd_args){.shared = 1};
    join_tables(all);
    enum tool_args_result result = tool_parse_args(all, argc, argv, args, &first, errp);
    if (result == TOOL_ARGS_HELP) {
        print_help();
        return result;
    }
    if (result == TOOL_ARGS_OK && args->version) {
        tool_print_version();
        return TOOL_ARGS_HELP;
    }
    if (result != TOOL_ARGS_OK || !check_operands(args, argc - first, argv + first, errp) ||
        !check_list(args, errp) || !check_connection(args, errp) || !check_image(args, errp)) {
        return TOOL_ARGS_ERROR;
    }
    return TOOL_ARGS_OK;
}

void nbd_args_free(struct nbd_args *args)
{
    tool_list_free(&args->bitmaps);
    tool_list_free(&args->exports);
    tool_list_free(&args->objects);
}
