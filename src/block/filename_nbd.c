/* SPDX-License-Identifier: MIT */
/*
 * File names of NBD exports: URIs (NBD URI specification) and QEMU's older form. See filename.h.
 *
 *   nbd://host[:port][/export]            nbd:host:port[:exportname=export]
 *   nbd+unix:///[export]?socket=path      nbd:unix:path[:exportname=export]
 *   nbds://…, nbds+unix://…
 */
#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "block/filename_int.h"

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : isxdigit((unsigned char)c) ? (c | 32) - 'a' + 10 : -1;
}

/* RFC 3986, 2.1: "%41" is "A". NULL if it is malformed, or for %00. */
static char *decode(const char *text, size_t length)
{
    char *out = xcalloc(1, length + 1), *to = out;

    for (size_t i = 0; i < length; i++) {
        if (text[i] != '%') {
            *to++ = text[i];
            continue;
        }
        bool is_whole = length - i > 2;
        int high = is_whole ? hex_digit(text[i + 1]) : -1;
        int low = is_whole ? hex_digit(text[i + 2]) : -1;
        if (high < 0 || low < 0 || !(high | low)) {
            free(out);
            return NULL;
        }
        *to++ = (char)(high << 4 | low);
        i += 2;
    }
    return out;
}

static bool set_decoded(struct options *opts, const char *key, const char *text, size_t length)
{
    autofree char *value = decode(text, length);

    if (!value) {
        return false;
    }
    options_set(opts, key, value);
    return true;
}

/* "host", "host:port", "[address]:port". */
static bool set_host(struct options *opts, const char *text, size_t length)
{
    size_t host = length;
    const char *port = memchr(text, ':', length);

    if (length && text[0] == '[') {
        const char *end = memchr(text, ']', length);
        if (!end || end == text + 1) {
            return false;
        }
        host = (size_t)(end - text) - 1;
        port = end + 1 < text + length ? end + 1 : NULL;
        text++;
        length--;
        if (port && *port != ':') {
            return false;
        }
    } else if (port) {
        host = (size_t)(port - text);
    }
    options_set(opts, "server.type", "inet");
    if (port) {
        autofree char *number = xstrndup(port + 1, (size_t)(text + length - port) - 1);
        options_set(opts, "server.port", *number ? number : "10809");
    } else {
        options_set(opts, "server.port", "10809");
    }
    return host && set_decoded(opts, "server.host", text, host);
}

/* What follows "nbd://": "authority/export?query". */
static bool parse_uri(struct options *opts, const char *text, bool is_unix)
{
    size_t authority = strcspn(text, "/?");
    const char *export = text + authority + (text[authority] == '/');
    size_t export_length = strcspn(export, "?");
    const char *query = export[export_length] ? export + export_length + 1 : NULL;

    if (strchr(text, '#')) {
        return false;
    }
    if (is_unix) {
        size_t length = query ? strcspn(query, "&;") : 0;
        if (authority || !query || strncmp(query, "socket=", 7) || query[length]) {
            return false;
        }
        options_set(opts, "server.type", "unix");
        if (length == 7 || !set_decoded(opts, "server.path", query + 7, length - 7)) {
            return false;
        }
    } else if (query || !set_host(opts, text, authority)) {
        return false;
    }
    return !export_length || set_decoded(opts, "export", export, export_length);
}

/* What follows "nbd:" in the older form. */
static bool parse_old(struct options *opts, const char *text)
{
    static const char marker[] = ":exportname=";
    const char *export = strstr(text, marker);
    size_t length = export ? (size_t)(export - text) : strlen(text);

    if (export) {
        options_set(opts, "export", export + strlen(marker));
    }
    if (!strncmp(text, "unix:", 5)) {
        autofree char *path = length > 5 ? xstrndup(text + 5, length - 5) : NULL;
        options_set(opts, "server.type", "unix");
        if (path) {
            options_set(opts, "server.path", path);
        }
        return path;
    }
    const char *colon = memrchr(text, ':', length);
    return colon && colon > text && colon + 1 < text + length && set_host(opts, text, length);
}

struct options *filename_parse_nbd(const char *filename, struct error **errp)
{
    static const struct scheme {
        const char *name;
        bool is_unix, tls;
    } schemes[] = {
        {"nbd://", false, false}, {"nbd+tcp://", false, false}, {"nbd+unix://", true, false},
        {"nbds://", false, true}, {"nbds+tcp://", false, true}, {"nbds+unix://", true, true},
    };
    struct options *opts = options_new();
    bool ok = false, is_uri = false;

    options_set(opts, "driver", "nbd");
    for (size_t i = 0; !is_uri && i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        const struct scheme *scheme = &schemes[i];
        size_t length = strlen(scheme->name);
        if (!strncmp(filename, scheme->name, length)) {
            is_uri = true;
            ok = parse_uri(opts, filename + length, scheme->is_unix);
            if (scheme->tls) {
                options_set(opts, "tls", "on");
            }
        }
    }
    if (!is_uri && !strncmp(filename, "nbd:", 4)) {
        ok = parse_old(opts, filename + 4);
    }
    if (!ok) {
        error_set(errp,
                  "'%s' is not a valid NBD file name: nbd://HOST[:PORT][/EXPORT], "
                  "nbd+unix:///[EXPORT]?socket=PATH, nbd:HOST:PORT[:exportname=EXPORT] or "
                  "nbd:unix:PATH[:exportname=EXPORT]",
                  filename);
        options_free(opts);
        return NULL;
    }
    return opts;
}
