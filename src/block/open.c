/* SPDX-License-Identifier: MIT */
/* Root nodes from file names. See open.h. */
#include "block/open.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "base/range.h"
#include "block/filename.h"
#include "block/iov.h"
#include "block/probe.h"

/* ---- cache= ---------------------------------------------------------------------------------- */

static const struct cache_mode {
    const char *name;
    bool write_cache, direct, no_flush;
} cache_modes[] = {
    {"writeback", true, false, false},  {"none", true, true, false},
    {"off", true, true, false},         {"writethrough", false, false, false},
    {"directsync", false, true, false}, {"unsafe", true, false, true},
};

bool block_open_set_cache(struct options *node_opts, const char *text, bool *write_cache,
                          struct error **errp)
{
    const struct cache_mode *mode = NULL;

    for (size_t i = 0; text && i < ARRAY_SIZE(cache_modes); i++) {
        if (!strcmp(text, cache_modes[i].name)) {
            mode = &cache_modes[i];
        }
    }
    if (text && !mode) {
        error_set(errp,
                  "invalid cache option: cache=%s; use none, writeback, writethrough, "
                  "directsync or unsafe",
                  text);
        return false;
    }
    *write_cache = !mode || mode->write_cache;
    if (mode && !options_has(node_opts, "cache.direct")) {
        options_set(node_opts, "cache.direct", mode->direct ? "on" : "off");
    }
    if (mode && !options_has(node_opts, "cache.no-flush")) {
        options_set(node_opts, "cache.no-flush", mode->no_flush ? "on" : "off");
    }
    return true;
}

/* ---- names and formats ------------------------------------------------------------------------ */

/* Adds those of `from`, below "prefix", that are not there yet. */
static void add_defaults(struct options *to, const char *prefix, const struct options *from)
{
    for (size_t i = 0; i < options_count(from); i++) {
        autofree char *key = xasprintf("%s%s", prefix, options_key(from, i));
        if (!options_has(to, key)) {
            options_copy(to, key, from, i);
        }
    }
}

static bool is_protocol(const char *name)
{
    const struct block_driver *driver = name ? block_driver_find(name) : NULL;

    return driver && driver->is_protocol;
}

/* What a name of an NBD export says, or leaves at its default, is not said by options as well. */
static bool is_in_nbd_name(const char *key)
{
    static const char *const keys[] = {"host", "port", "path", "export"};

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        if (!strcmp(key, keys[i])) {
            return true;
        }
    }
    return !strncmp(key, "server.", strlen("server."));
}

/* A name says where the image is; options that say so as well would contradict it. */
static bool refuse_conflicts(const struct options *opts, const char *prefix,
                             const struct options *named, const char *driver, struct error **errp)
{
    bool is_nbd = driver && !strcmp(driver, "nbd");

    for (size_t i = 0; i < options_count(opts); i++) {
        const char *full = options_key(opts, i), *key = full + strlen(prefix);
        if (strncmp(full, prefix, strlen(prefix)) || !strcmp(key, "driver")) {
            continue;
        }
        if (!strcmp(key, "filename")) {
            error_set(errp, "Can't specify 'file' and '%s' options at the same time", full);
            return true;
        }
        if (options_has(named, key) || (is_nbd && is_in_nbd_name(key))) {
            error_set(errp, "Option '%s' cannot be used with a file name", full);
            return true;
        }
    }
    return false;
}

bool block_open_add_filename(struct options *node_opts, const char *filename, struct error **errp)
{
    struct options *named = block_filename_parse(filename, errp);

    if (!named) {
        return false;
    }
    const char *format = options_get(node_opts, "driver");
    bool is_json = !strncmp(filename, "json:", strlen("json:"));
    const char *named_driver = options_get(named, "driver");
    bool at_root = is_json ? !format || !is_protocol(named_driver) : is_protocol(format);
    const char *prefix = at_root ? "" : "file.";
    /* Options override what JSON says. */
    bool ok = is_json || !refuse_conflicts(node_opts, prefix, named, named_driver, errp);
    if (ok) {
        add_defaults(node_opts, prefix, named);
    }
    options_free(named);
    return ok;
}

bool block_open_set_aio(struct options *node_opts, const char *aio, struct error **errp)
{
    bool at_root = is_protocol(options_get(node_opts, "driver"));
    const char *protocol = options_get(node_opts, at_root ? "driver" : "file.driver");
    const char *key = at_root ? "aio" : "file.aio";

    if (protocol && (!strncmp(protocol, "null-", 5) || !strcmp(protocol, "nbd"))) {
        return true;
    }
    if (!protocol || (strcmp(protocol, "file") && strcmp(protocol, "host_device"))) {
        error_set(errp, "aio=%s finds no file node below the drive; give it to that node", aio);
        return false;
    }
    if (!options_has(node_opts, key)) {
        options_set(node_opts, key, aio);
    }
    return true;
}

bool block_open_set_format(struct options *node_opts, const char *format, struct error **errp)
{
    if (!block_driver_find(format)) {
        autofree char *names = block_driver_names();
        error_set(errp, "Unknown driver '%s'; this build has %s", format, names);
        return false;
    }
    options_set(node_opts, "driver", format);
    return true;
}

/* ---- looking ---------------------------------------------------------------------------------- */

struct probe {
    struct block_node *node;
    char data[PROBE_SIZE];
};

static int co_read_start(void *opaque)
{
    struct probe *probe = opaque;
    struct iovec vec;
    uint64_t length = MIN(PROBE_SIZE, block_length(probe->node));
    struct block_iov iov = block_iov_of(&vec, probe->data, length);

    return block_co_preadv(probe->node, 0, &iov, 0, 0);
}

/* No format was given: looks at the file. NULL and an error if there is no driver for what it is. */
static const char *probe_format(struct block_node *file, struct error **errp)
{
    struct probe probe = {.node = file};
    int ret = block_run(co_read_start, &probe);

    if (ret < 0) {
        error_set_errno(errp, -ret, "Could not read the first sector of '%s'", file->filename);
        return NULL;
    }
    const char *format = block_probe_format(probe.data);
    if (!block_driver_find(format)) {
        error_set(errp,
                  "format %s of '%s' is not supported in this build; convert it by 'qemu-img "
                  "convert -O raw', or give format=raw if the guest should see the bytes as "
                  "they are",
                  format, file->filename);
        return NULL;
    }
    return format;
}

static void warn_of_probing(const struct block_node *root, const struct block_node *file,
                            const char *format)
{
    if (strcmp(format, "raw")) {
        log_warn("Image format was not specified for '%s' and probing found %s. Give format=%s",
                 file->filename, format, format);
    } else if (root->flags & BLOCK_OPEN_RDWR) {
        log_warn("Image format was not specified for '%s' and probing guessed raw; the guest "
                 "cannot write to its first sector what looks like another format. Give "
                 "format=raw to lift that",
                 file->filename);
    }
}

/* A root node from options without a driver: "file" is opened first, to look into it. */
static struct block_node *open_probed(struct options *node_opts, unsigned flags, bool warns,
                                      struct error **errp)
{
    unsigned file_flags = flags & ~BLOCK_OPEN_NOT_INHERITED;
    struct block_node *root = NULL;

    if (!block_node_parse_flags(node_opts, &file_flags, errp)) {
        return NULL;
    }
    struct options *nested = options_take_prefix(node_opts, "file");
    struct block_node *file = block_node_open(nested, file_flags, errp);
    options_free(nested);
    if (!file) {
        return NULL;
    }
    const char *format = probe_format(file, errp);
    if (format) {
        options_set(node_opts, "driver", format);
        options_set(node_opts, "file", file->name);
        root = block_node_open(node_opts, strcmp(format, "raw") ? flags : flags | BLOCK_OPEN_PROBED,
                               errp);
    }
    if (root && warns) {
        warn_of_probing(root, file, format);
    }
    block_node_unref(file);
    return root;
}

struct block_node *block_open_root(struct options *node_opts, unsigned flags, bool warns,
                                   struct error **errp)
{
    block_filename_add_drivers(node_opts);
    return options_has(node_opts, "driver") ? block_node_open(node_opts, flags, errp)
                                            : open_probed(node_opts, flags, warns, errp);
}
