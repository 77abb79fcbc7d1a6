/* SPDX-License-Identifier: MIT */
/* open, close, reopen. See io_tool.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "block/image.h"
#include "block/open.h"
#include "tools/common/tool.h"
#include "tools/io/io_tool.h"

/* ---- opening --------------------------------------------------------------------------------- */

static bool unmaps(const char *discard)
{
    return !discard || !strcmp(discard, "unmap") || !strcmp(discard, "on");
}

static bool check(const struct io_open *how, struct error **errp)
{
    static const char *const modes[] = {"ignore", "off", "unmap", "on", NULL};
    size_t i = 0;

    while (how->discard && modes[i] && strcmp(how->discard, modes[i])) {
        i++;
    }
    if (!modes[i]) {
        error_set(errp, "Invalid discard option: %s", how->discard);
        return false;
    }
    return tool_check_cache(how->cache, "cache", errp) && tool_check_aio(how->aio, errp);
}

/* Options with a file name: "KEY=VALUE,…" and the name below file. */
static char *join(const struct io_open *how)
{
    if (!how->options) {
        return xstrdup(how->filename ? how->filename : "");
    }
    if (!how->filename) {
        return xstrdup(how->options);
    }
    struct options *named = options_new();
    char *text = xstrdup(how->options);
    if (block_open_add_filename(named, how->filename, NULL)) {
        for (size_t i = 0; i < options_count(named); i++) {
            char *longer = xasprintf("%s,%s=", text, options_key(named, i));
            free(text);
            text = longer;
            for (const char *p = options_value(named, i); *p; p++) {
                longer = xasprintf("%s%c%s", text, *p, *p == ',' ? "," : "");
                free(text);
                text = longer;
            }
        }
    }
    options_free(named);
    return text;
}

/* The image with a copy-on-read node above it: what is read from a backing file is kept in the image. */
static struct block_backend *open_copying(const struct block_image_how *image, struct error **errp)
{
    if (!image->writable) {
        error_set(errp, "Can't use copy-on-read on read-only device");
        return NULL;
    }
    struct block_node *node = block_image_open_node(image, errp);
    if (!node) {
        return NULL;
    }
    struct options *opts = options_new();
    options_set(opts, "driver", "copy-on-read");
    options_set(opts, "file", node->name);
    struct block_node *top =
        block_node_open(opts, BLOCK_OPEN_RDWR | (image->flags & BLOCK_OPEN_UNMAP), errp);
    options_free(opts);
    block_node_unref(node);
    if (!top) {
        return NULL;
    }
    struct block_backend *be = backend_attach(top->name, image->user, true, false, errp);
    block_node_unref(top);
    if (be && image->cache) {
        backend_set_write_cache(be, strcmp(image->cache, "writethrough") != 0 &&
                                        strcmp(image->cache, "directsync") != 0);
    }
    return be;
}

bool io_open_image(struct io_session *s, const struct io_open *how, struct error **errp)
{
    if (s->be) {
        error_set(errp, "file open already, try 'help close'");
        return false;
    }
    if (!check(how, errp)) {
        return false;
    }
    autofree char *name = join(how);
    struct block_image_how image = {
        .filename = name,
        .format = how->format,
        .image_opts = how->image_opts || how->options,
        .cache = how->cache,
        .aio = how->aio,
        .writable = !how->read_only,
        .flags = (unmaps(how->discard) ? BLOCK_OPEN_UNMAP : 0) |
                 (how->force_share ? BLOCK_OPEN_FORCE_SHARE : 0),
        .user = "ferry-io",
    };
    s->be = how->copy_on_read ? open_copying(&image, errp) : block_image_open(&image, errp);
    if (!s->be) {
        if (how->filename && !how->image_opts) {
            error_prepend(errp, "can't open device %s: ", how->filename);
        } else {
            error_prepend(errp, "can't open: ");
        }
        return false;
    }
    s->writable = !how->read_only;
    tool_warn_of_probing(backend_root(s->be));
    return true;
}

bool io_close_image(struct io_session *s)
{
    int ret = 0;

    if (!s->be) {
        return true;
    }
    io_aio_flush(s, 0, NULL);
    if (s->writable) {
        ret = io_flush_image(s);
    }
    if (ret < 0) {
        log_error("Could not flush '%s': %s; what was written last may be lost",
                  backend_root(s->be)->filename, strerror(-ret));
    }
    block_image_close(s->be);
    s->be = NULL;
    return ret >= 0;
}

bool io_open(struct io_session *s, int argc, char **argv)
{
    struct io_open how = {0};
    struct error *err = NULL;
    int c;

    while ((c = io_getopt(argc, argv, "sCrnki:t:d:o:U")) != -1) {
        switch (c) {
        case 's':
            log_error(
                "-s is not supported; make an overlay with 'ferry-img create -b' and open that");
            return false;
        case 'C':
            how.copy_on_read = true;
            break;
        case 'k':
            log_error("-k is not supported; use -i io_uring");
            return false;
        case 'r':
            how.read_only = true;
            break;
        case 'n':
            how.cache = "none";
            break;
        case 'i':
            how.aio = optarg;
            break;
        case 't':
            how.cache = optarg;
            break;
        case 'd':
            how.discard = optarg;
            break;
        case 'o':
            how.options = optarg;
            break;
        case 'U':
            how.force_share = true;
            break;
        default:
            return false;
        }
    }
    if (optind < argc - 1 || (optind == argc && !how.options)) {
        return io_usage(argv[0]);
    }
    how.filename = optind < argc ? argv[optind] : NULL;
    if (!io_open_image(s, &how, &err)) {
        error_report(err);
        return false;
    }
    return true;
}

bool io_close(struct io_session *s, int argc, char **argv)
{
    return io_close_image(s);
}

/* ---- reopen ---------------------------------------------------------------------------------- */

struct reopen {
    bool writable;
    bool has_mode;       /* -r or -w */
    const char *cache;   /* or NULL */
    const char *options; /* or NULL */
};

/* What a letter says, -o does not say once more. */
static bool check_once(const struct reopen *how, const struct options *opts, struct error **errp)
{
    if (how->has_mode && options_has(opts, "read-only")) {
        error_set(errp, "Cannot set both -r/-w and 'read-only'");
        return false;
    }
    if (how->cache && (options_has(opts, "cache.direct") || options_has(opts, "cache.no-flush"))) {
        error_set(errp, "Cannot set both -c and the cache options");
        return false;
    }
    return true;
}

/* The flags that the node shall have. */
static bool new_flags(struct block_node *node, const struct reopen *how, struct options *opts,
                      unsigned *flags, bool *write_cache, struct error **errp)
{
    *flags = node->flags;
    if ((how->cache && !tool_check_cache(how->cache, "cache", errp)) ||
        !check_once(how, opts, errp) ||
        (how->cache && !block_open_set_cache(opts, how->cache, write_cache, errp))) {
        return false;
    }
    if (!options_has(opts, "read-only")) {
        options_set(opts, "read-only", how->writable ? "off" : "on");
    }
    /* -d of open is not undone. */
    if (!options_has(opts, "discard")) {
        options_set(opts, "discard", node->flags & BLOCK_OPEN_UNMAP ? "unmap" : "ignore");
    }
    if (!block_node_parse_flags(opts, flags, errp)) {
        return false;
    }
    for (size_t i = 0; i < options_count(opts); i++) {
        static const char *const known[] = {"read-only", "discard", "cache.direct",
                                            "cache.no-flush", "detect-zeroes"};
        size_t k = 0;
        while (k < sizeof(known) / sizeof(*known) && strcmp(known[k], options_key(opts, i))) {
            k++;
        }
        if (k == sizeof(known) / sizeof(*known)) {
            error_set(errp, "Cannot change the option '%s'", options_key(opts, i));
            return false;
        }
    }
    return true;
}

/* The image is let go of and taken again, as its claim on it changes. */
static bool attach(struct io_session *s, struct block_node *node, bool writable, bool write_cache,
                   struct error **errp)
{
    bool shares = node->flags & BLOCK_OPEN_FORCE_SHARE;

    s->be = backend_attach(node->name, "ferry-io", writable, shares, errp);
    if (s->be) {
        s->writable = writable;
        backend_set_write_cache(s->be, write_cache);
    }
    return s->be;
}

static bool apply(struct io_session *s, unsigned flags, bool write_cache, struct error **errp)
{
    struct block_node *node = backend_root(s->be);
    bool old_write_cache = backend_write_cache(s->be), was_writable = s->writable;
    struct error *other = NULL;

    block_node_ref(node);
    backend_detach(s->be);
    s->be = NULL;
    bool ok = block_node_reopen(node, flags, errp) &&
              attach(s, node, flags & BLOCK_OPEN_RDWR, write_cache, errp);
    if (!ok && !attach(s, node, was_writable, old_write_cache, &other)) {
        error_report(other);
    }
    block_node_unref(node);
    return ok;
}

static bool reopen(struct io_session *s, const struct reopen *how, struct error **errp)
{
    struct options *opts = how->options ? options_parse(how->options, NULL, errp) : options_new();
    bool write_cache = backend_write_cache(s->be);
    unsigned flags;

    if (!opts) {
        return false;
    }
    bool ok = new_flags(backend_root(s->be), how, opts, &flags, &write_cache, errp);
    options_free(opts);
    if (!ok) {
        return false;
    }
    io_aio_flush(s, 0, NULL);
    if (s->writable) {
        int ret = io_flush_image(s);
        if (ret < 0) {
            error_set_errno(errp, -ret, "Could not flush '%s'", backend_root(s->be)->filename);
            return false;
        }
    }
    return apply(s, flags, write_cache, errp);
}

bool io_reopen(struct io_session *s, int argc, char **argv)
{
    struct reopen how = {.writable = s->writable};
    struct error *err = NULL;
    int c;

    while ((c = io_getopt(argc, argv, "c:o:rw")) != -1) {
        switch (c) {
        case 'c':
            how.cache = optarg;
            break;
        case 'o':
            if (how.options) {
                return io_usage(argv[0]);
            }
            how.options = optarg;
            break;
        case 'r':
        case 'w':
            if (how.has_mode) {
                log_error("Only one -r/-w option may be given");
                return false;
            }
            how.has_mode = true;
            how.writable = c == 'w';
            break;
        default:
            return false;
        }
    }
    if (optind != argc) {
        return io_usage(argv[0]);
    }
    if (!reopen(s, &how, &err)) {
        error_report(err);
        return false;
    }
    return true;
}
