/* SPDX-License-Identifier: MIT */
/* Start and end of tools, and the small things that all of them parse and print. See tool.h. */
#include "tools/common/tool.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "aio/loop.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "base/process.h"
#include "base/range.h"
#include "block/advice.h"
#include "block/nbd_creds.h"
#include "block/node.h"
#include "block/throttle_group.h"
#include "config.h"

static const char *program = "";
static struct aio_loop *main_loop;

/* ---- objects --------------------------------------------------------------------------------- */

/* Those that objects were made of; they live until tool_end(). */
static struct throttle_group **groups;
static size_t group_count;

static void drop_groups(void)
{
    for (size_t i = 0; i < group_count; i++) {
        throttle_group_unref(groups[i]);
    }
    free(groups);
    groups = NULL;
    group_count = 0;
}

static bool add_throttle_group(struct options *opts, struct error **errp)
{
    struct throttle_group *group = throttle_group_new_from(opts, errp);

    if (group) {
        groups = xreallocarray(groups, group_count + 1, sizeof(groups[0]));
        groups[group_count++] = group;
    }
    return group;
}

bool tool_add_object(const char *text, struct error **errp)
{
    struct options *opts = options_parse(text, "qom-type", errp);
    bool ok = false;

    if (!opts) {
        return false;
    }
    autofree char *type = options_take(opts, "qom-type");
    if (!type) {
        error_set(errp, "--object: Parameter 'qom-type' is missing");
    } else if (!strcmp(type, "throttle-group")) {
        ok = add_throttle_group(opts, errp);
    } else if (!strcmp(type, "tls-creds-x509") || !strcmp(type, "tls-creds-psk")) {
        ok = nbd_creds_add(type, opts, errp);
    } else {
        error_set(errp,
                  "--object: '%s' is not a type of object that %s has; it has throttle-group, "
                  "tls-creds-x509 and tls-creds-psk",
                  type, program);
    }
    ok = ok && options_check_used(opts, "--object", errp);
    options_free(opts);
    return ok;
}

/* ---- advice ---------------------------------------------------------------------------------- */

static bool has_force_share;

static void in_use(const char *filename, struct error **errp)
{
    error_add_hint(errp, "Is another process using the image [%s]?",
                   filename); /* as QEMU's tools */
    if (has_force_share) {
        error_add_hint(errp, "-U opens it nevertheless, to read what may be torn.");
    }
}

static const struct block_advice tool_advice = {
    .in_use = in_use,
    .only_readable = "it can be read; its permissions or its file system do not let you write it",
};

void tool_has_force_share(bool has)
{
    has_force_share = has;
}

/* ---- start and end --------------------------------------------------------------------------- */

void tool_begin(const char *name)
{
    process_begin();
    block_set_advice(&tool_advice);
    program = name;
    log_set_program(name);
}

bool tool_start(const char *name, bool only_requests, struct error **errp)
{
    tool_begin(name);
    main_loop = aio_loop_new("main", AIO_LOOP_AUTO, errp);
    if (!main_loop) {
        return false;
    }
    if (only_requests) {
        aio_loop_set_only_requests(main_loop);
    }
    aio_loop_bind(main_loop);
    return true;
}

void tool_end(void)
{
    if (main_loop) {
        block_nodes_close();
        drop_groups();
        aio_loop_unbind(main_loop);
        aio_loop_free(main_loop);
        main_loop = NULL;
    }
}

const char *tool_name(void)
{
    return program;
}

void tool_print_version(void)
{
    printf("%s version %s\n", program, FERRY_VERSION);
}

/* The first reason why something could not be written; 0: none that is known. */
static int output_error;

void tool_flush_output(void)
{
    if (fflush(stdout) != 0 && !output_error) {
        output_error = errno;
    }
}

/* As "head" does when it has seen enough. */
static bool reader_is_gone(void)
{
    struct pollfd fd = {.fd = STDOUT_FILENO, .events = POLLOUT};

    return output_error == EPIPE || (!output_error && poll(&fd, 1, 0) == 1 && fd.revents & POLLERR);
}

int tool_finish_output(void)
{
    tool_flush_output();
    if ((output_error || ferror(stdout)) && reader_is_gone()) {
        return 0;
    }
    if (output_error) {
        log_error("Could not write to standard output: %s", strerror(output_error));
    } else if (ferror(stdout)) {
        log_error("Could not write all to standard output");
    } else {
        return 0;
    }
    return 1;
}

/* ---- values ---------------------------------------------------------------------------------- */

bool tool_check_cache(const char *mode, const char *what, struct error **errp)
{
    static const char *const modes[] = {"none",         "off",        "writeback",
                                        "writethrough", "directsync", "unsafe"};

    for (size_t i = 0; mode && i < ARRAY_SIZE(modes); i++) {
        if (!strcmp(mode, modes[i])) {
            return true;
        }
    }
    if (mode) {
        error_set(errp, "Invalid %s option: %s", what, mode);
    }
    return !mode;
}

bool tool_check_aio(const char *aio, struct error **errp)
{
    if (!aio || !strcmp(aio, "threads") || !strcmp(aio, "io_uring") || !strcmp(aio, "native")) {
        return true;
    }
    error_set(errp, "Invalid aio option: %s", aio);
    error_add_hint(errp, "use threads, io_uring or native");
    return false;
}

/* Digits and perhaps a suffix: if parse_size() refuses it, it is too much. */
static bool is_number(const char *text)
{
    size_t digits = strspn(text, "0123456789");

    return digits &&
           (!text[digits] || (strchr("bBkKmMgGtTpPeE", text[digits]) && !text[digits + 1]));
}

bool tool_parse_size(const char *text, const char *what, uint64_t min, uint64_t max,
                     uint64_t *bytes, struct error **errp)
{
    bool is_valid = parse_size(text, 1, bytes);

    if (is_valid && *bytes >= min && *bytes <= max) {
        return true;
    }
    if (is_valid || is_number(text)) {
        error_set(errp, "Invalid %s specified. Must be between %" PRIu64 " and %" PRIu64 ".", what,
                  min, max);
    } else {
        error_set(errp, "Invalid %s specified. You may use k, M, G, T, P or E suffixes for", what);
        error_add_hint(errp,
                       "%s: kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.",
                       program);
    }
    return false;
}

char *tool_size_text(uint64_t bytes, char *text)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;

    while (value >= 1000 && unit + 1 < ARRAY_SIZE(units)) {
        value /= 1024;
        unit++;
    }
    snprintf(text, TOOL_SIZE_TEXT, "%.3g %s", value, units[unit]);
    return text;
}
