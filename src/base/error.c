/* SPDX-License-Identifier: MIT */
/* Errors of users and configuration: a message, a class for QMP, and hints. */
#include "base/error.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"

struct error {
    char *message;
    char *hint; /* lines separated by '\n', or NULL */
    enum error_class class;
};

/* The last argument is put behind the message if it is not NULL. */
static void __attribute__((format(printf, 3, 0)))
set(struct error **errp, enum error_class class, const char *fmt, va_list ap, const char *reason)
{
    if (!errp)
        return;
    assert(!*errp); /* an error was lost: the caller went on after a failure */

    struct error *err = xnew(struct error);
    err->class = class;
    err->message = xvasprintf(fmt, ap);
    if (reason) {
        char *text = xasprintf("%s: %s", err->message, reason);
        free(err->message);
        err->message = text;
    }
    *errp = err;
}

void error_set(struct error **errp, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    set(errp, ERROR_GENERIC, fmt, ap, NULL);
    va_end(ap);
}

void error_set_class(struct error **errp, enum error_class class, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    set(errp, class, fmt, ap, NULL);
    va_end(ap);
}

void error_set_errno(struct error **errp, int err, const char *fmt, ...)
{
    char buffer[128];
    /* The GNU variant: returns the text, in buffer or elsewhere; thread-safe. */
    const char *reason = strerror_r(err, buffer, sizeof(buffer));

    va_list ap;
    va_start(ap, fmt);
    set(errp, ERROR_GENERIC, fmt, ap, reason);
    va_end(ap);
}

static void prepend(struct error *err, const char *prefix)
{
    char *text = xasprintf("%s%s", prefix, err->message);

    free(err->message);
    err->message = text;
}

void error_prepend(struct error **errp, const char *fmt, ...)
{
    if (!errp || !*errp)
        return;
    va_list ap;
    va_start(ap, fmt);
    autofree char *prefix = xvasprintf(fmt, ap);
    va_end(ap);
    prepend(*errp, prefix);
}

void error_prepend_once(struct error **errp, const char *fmt, ...)
{
    if (!errp || !*errp)
        return;
    va_list ap;
    va_start(ap, fmt);
    autofree char *prefix = xvasprintf(fmt, ap);
    va_end(ap);
    if (strncmp((*errp)->message, prefix, strlen(prefix)) != 0)
        prepend(*errp, prefix);
}

void error_add_hint(struct error **errp, const char *fmt, ...)
{
    if (!errp || !*errp)
        return;
    va_list ap;
    va_start(ap, fmt);
    char *line = xvasprintf(fmt, ap);
    va_end(ap);

    struct error *err = *errp;
    if (!err->hint) {
        err->hint = line;
        return;
    }
    char *lines = xasprintf("%s\n%s", err->hint, line);
    free(line);
    free(err->hint);
    err->hint = lines;
}

const char *error_message(const struct error *err)
{
    return err->message;
}

const char *error_hint(const struct error *err)
{
    return err->hint ? err->hint : "";
}

enum error_class error_class(const struct error *err)
{
    return err->class;
}

const char *error_class_name(const struct error *err)
{
    switch (err->class) {
    case ERROR_GENERIC:
        break;
    case ERROR_COMMAND_NOT_FOUND:
        return "CommandNotFound";
    case ERROR_DEVICE_NOT_ACTIVE:
        return "DeviceNotActive";
    case ERROR_DEVICE_NOT_FOUND:
        return "DeviceNotFound";
    case ERROR_KVM_MISSING_CAP:
        return "KVMMissingCap";
    }
    return "GenericError";
}

void error_propagate(struct error **errp, struct error *err)
{
    if (!err)
        return;
    if (!errp) {
        error_free(err);
        return;
    }
    assert(!*errp);
    *errp = err;
}

void error_free(struct error *err)
{
    if (!err)
        return;
    free(err->message);
    free(err->hint);
    free(err);
}

void error_report(struct error *err)
{
    if (!err)
        return;
    log_error_with_hint(err->message, error_hint(err));
    error_free(err);
}
