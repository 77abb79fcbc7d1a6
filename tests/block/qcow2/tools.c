/* SPDX-License-Identifier: MIT */
/* See tools.h. */
#include "tools.h"

#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "block/image.h"

/* ---- directory ------------------------------------------------------------------------------- */

static char directory[64];

int tools_enter_directory(void **state)
{
    snprintf(directory, sizeof(directory), "/dev/shm/ferry-qcow2-XXXXXX");
    if (!mkdtemp(directory)) {
        snprintf(directory, sizeof(directory), "/tmp/ferry-qcow2-XXXXXX");
        if (!mkdtemp(directory)) {
            return -1;
        }
    }
    return chdir(directory);
}

int tools_leave_directory(void **state)
{
    autofree char *command = xasprintf("rm -rf '%s'", directory);

    return chdir("/") == 0 ? system(command) : -1;
}

/* ---- commands -------------------------------------------------------------------------------- */

static int run(const char *command)
{
    autofree char *quiet = xasprintf("{ %s\n} 2>/dev/null >/dev/null", command);
    int status = system(quiet);

    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int tools_run(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    autofree char *command = xvasprintf(fmt, ap);
    va_end(ap);
    return run(command);
}

void tools_must(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    autofree char *command = xvasprintf(fmt, ap);
    va_end(ap);
    int status = run(command);
    if (status) {
        fail_msg("exit status %d: %s", status, command);
    }
}

json_t *tools_json(const char *fmt, ...)
{
    json_error_t error;
    va_list ap;

    va_start(ap, fmt);
    autofree char *command = xvasprintf(fmt, ap);
    va_end(ap);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    json_t *json = json_loadf(pipe, 0, &error);
    int status = pclose(pipe);
    if (!json || status) {
        fail_msg("status %d, %s: %s", status, json ? "JSON" : error.text, command);
    }
    return json;
}

bool tools_have_qemu_img(void)
{
    static int have = -1;

    if (have < 0) {
        have = run("qemu-img --version") == 0;
    }
    return have;
}

void tools_check(const char *image, bool leaks)
{
    int status = tools_run("qemu-img check %s", image);

    if (status && !(leaks && status == 3)) {
        tools_run("qemu-img check %s >&2", image);
        fail_msg("qemu-img check %s: exit status %d", image, status);
    }
}

void tools_assert_same_json(const json_t *ours, const json_t *theirs, const char *what)
{
    if (json_equal(ours, theirs)) {
        return;
    }
    autofree char *a = json_dumps(ours, JSON_SORT_KEYS);
    autofree char *b = json_dumps(theirs, JSON_SORT_KEYS);
    fail_msg("%s:\n  ours   %s\n  theirs %s", what, a, b);
}

/* ---- images ---------------------------------------------------------------------------------- */

bool tools_try_create(const char *name, const char *options, struct error **errp)
{
    struct options *opts = options_parse(options, NULL, errp);
    bool ok = opts && block_image_create(name, "qcow2", opts, 0, errp);

    options_free(opts);
    return ok;
}

void tools_create(const char *name, const char *options)
{
    struct error *err = NULL;

    if (!tools_try_create(name, options, &err)) {
        fail_msg("create -o %s %s: %s", options, name, error_message(err));
    }
}
