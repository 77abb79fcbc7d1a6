/* SPDX-License-Identifier: MIT */
/* The short texts of -serial, -monitor, -qmp and -qtest, which become options of -chardev. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "chardev/internal.h"

/* The rest of text after prefix, or NULL. */
static const char *after(const char *text, const char *prefix)
{
    size_t length = strlen(prefix);
    return strncmp(text, prefix, length) == 0 ? text + length : NULL;
}

/* HOST:PORT[,option…]; an IPv6 address stands in brackets. */
static struct options *parse_tcp(const char *text, struct error **errp)
{
    struct options *opts = options_parse(text, "address", errp);
    if (!opts)
        return NULL;
    autofree char *address = options_take(opts, "address");
    char *host = address, *colon = address ? strrchr(address, ':') : NULL;
    if (!colon || !colon[1]) {
        error_set(errp, "'tcp:%s' has no port; write tcp:HOST:PORT", text);
        options_free(opts);
        return NULL;
    }
    *colon = 0;
    size_t length = strlen(host);
    if (length >= 2 && host[0] == '[' && host[length - 1] == ']') {
        host[length - 1] = 0;
        host++;
    } else if (strchr(host, ':')) {
        error_set(errp, "'tcp:%s' has too many colons; write an IPv6 address in [brackets]", text);
        options_free(opts);
        return NULL;
    }
    options_set(opts, "host", host);
    options_set(opts, "port", colon + 1);
    options_set(opts, "backend", "socket");
    return opts;
}

static struct options *parse_unix(const char *text, struct error **errp)
{
    struct options *opts = options_parse(text, "path", errp);
    if (opts)
        options_set(opts, "backend", "socket");
    return opts;
}

static struct options *parse_text(const char *text, struct error **errp)
{
    static const char *const plain[] = {"null", "stdio", "pty"};
    const char *rest;

    if ((rest = after(text, "unix:")))
        return parse_unix(rest, errp);
    if ((rest = after(text, "tcp:")))
        return parse_tcp(rest, errp);

    struct options *opts = options_new();
    for (size_t i = 0; i < ARRAY_SIZE(plain); i++) {
        if (strcmp(text, plain[i]) == 0) {
            options_set(opts, "backend", text);
            return opts;
        }
    }
    if ((rest = after(text, "file:"))) {
        options_set(opts, "backend", "file");
        options_set(opts, "path", rest);
        return opts;
    }
    options_free(opts);
    error_set(errp,
              "'%s' is not a valid char driver; use null, stdio, pty, file:PATH, unix:PATH, "
              "tcp:HOST:PORT or chardev:ID",
              text);
    return NULL;
}

struct chardev *chardev_new_from_legacy(const char *text, const char *id, struct error **errp)
{
    const char *existing = after(text, "chardev:");
    if (existing) {
        struct chardev *chr = chardev_find(existing);
        if (!chr)
            error_set(errp, "no chardev '%s'; define it with -chardev", existing);
        return chr;
    }

    const char *rest = after(text, "mon:");
    struct options *opts = parse_text(rest ? rest : text, errp);
    if (!opts)
        return NULL;
    options_set(opts, "id", id);
    if (rest) {
        options_set(opts, "mux", "on");
        /* Ctrl-C is for the guest; Ctrl-A x ends ferry. */
        if (strcmp(rest, "stdio") == 0)
            options_set(opts, "signal", "off");
    }
    struct chardev *chr = chardev_new_from_options(opts, errp);
    options_free(opts);
    if (chr)
        chr->wants_monitor = rest != NULL;
    return chr;
}
