/* SPDX-License-Identifier: MIT */
/*
 * -drive, the old way: one option makes the nodes, a backend named by id=, and (by if=) the
 * device, which the caller makes. What it does not take itself goes to the root node, so
 * "file.locking=off" or "size=1G" work as they do for -blockdev.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "base/range.h"
#include "block/backend_int.h"
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

static bool apply_cache(struct options *opts, struct options *node_opts, bool *write_cache,
                        struct error **errp)
{
    const char *text = options_get(opts, "cache");
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
    return options_get_bool(opts, "cache.writeback", write_cache, errp);
}

/* ---- the nodes ------------------------------------------------------------------------------- */

/* What -drive takes itself; all else goes to the root node. */
static const char *const drive_keys[] = {
    "id",     "if",     "index",    "bus",          "unit",     "media",           "serial",
    "cache",  "aio",    "format",   "file",         "readonly", "cache.writeback", "werror",
    "rerror", "driver", "snapshot", "copy-on-read",
};

static const char *const throttle_keys[] = {
    "bps",        "bps_rd",     "bps_wr",   "iops",        "iops_rd",     "iops_wr",   "bps_max",
    "bps_rd_max", "bps_wr_max", "iops_max", "iops_rd_max", "iops_wr_max", "iops_size", "group",
};

static bool is_in(const char *key, const char *const *keys, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!strcmp(key, keys[i])) {
            return true;
        }
    }
    return false;
}

static bool refuse_on(struct options *opts, const char *key, const char *remedy,
                      struct error **errp)
{
    bool on = false;

    if (!options_get_bool(opts, key, &on, errp)) {
        return false;
    }
    if (on) {
        error_set(errp, "%s=on is not supported in this build; %s", key, remedy);
    }
    return !on;
}

/* Moves the root node's options out of opts; NULL if there are some that nobody has. */
static struct options *take_node_options(struct options *opts, struct error **errp)
{
    struct options *node_opts = options_new();

    for (size_t i = 0; i < options_count(opts);) {
        const char *key = options_key(opts, i);
        if (is_in(key, throttle_keys, ARRAY_SIZE(throttle_keys)) ||
            !strncmp(key, "throttling.", strlen("throttling."))) {
            error_set(errp, "I/O throttling is not supported in this build; leave '%s' out", key);
            options_free(node_opts);
            return NULL;
        }
        if (is_in(key, drive_keys, ARRAY_SIZE(drive_keys))) {
            i++;
            continue;
        }
        options_set(node_opts, key, options_value(opts, i));
        options_unset(opts, key);
    }
    /* Asked for in vain, so that they are suggested to who misspells them. */
    for (size_t i = 0; i < ARRAY_SIZE(drive_keys); i++) {
        if (strcmp(drive_keys[i], "file") && strcmp(drive_keys[i], "driver")) {
            options_get(node_opts, drive_keys[i]);
        }
    }
    return node_opts;
}

/* Adds those of `from`, below "prefix", that are not there yet. */
static void add_defaults(struct options *to, const char *prefix, const struct options *from)
{
    for (size_t i = 0; i < options_count(from); i++) {
        autofree char *key = xasprintf("%s%s", prefix, options_key(from, i));
        if (!options_has(to, key)) {
            options_set(to, key, options_value(from, i));
        }
    }
}

static bool is_protocol(const char *name)
{
    const struct block_driver *driver = name ? block_driver_find(name) : NULL;

    return driver && driver->is_protocol;
}

/* file=: the options of the protocol node, below "file." unless the root itself is one. */
static bool apply_filename(struct options *node_opts, const char *filename, struct error **errp)
{
    struct options *named = block_filename_parse(filename, errp);

    if (!named) {
        return false;
    }
    const char *format = options_get(node_opts, "driver");
    bool is_json = !strncmp(filename, "json:", strlen("json:"));
    const char *named_driver = options_get(named, "driver");
    bool at_root = is_json ? !format || !is_protocol(named_driver) : is_protocol(format);
    add_defaults(node_opts, at_root ? "" : "file.", named);
    options_free(named);
    return true;
}

/* aio= belongs to the protocol node, if that is a file; null-co has nothing to do by it. */
static bool apply_aio(struct options *node_opts, const char *aio, struct error **errp)
{
    bool at_root = is_protocol(options_get(node_opts, "driver"));
    const char *protocol = options_get(node_opts, at_root ? "driver" : "file.driver");
    const char *key = at_root ? "aio" : "file.aio";

    if (protocol && !strcmp(protocol, "null-co")) {
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

static bool apply_format(struct options *opts, struct options *node_opts, struct error **errp)
{
    const char *format = options_get(opts, "format");
    const char *driver = options_get(opts, "driver");

    if (format && driver) {
        error_set(errp, "Cannot specify both 'driver' and 'format'");
        return false;
    }
    format = format ? format : driver;
    if (format && !block_driver_find(format)) {
        autofree char *names = block_driver_names();
        error_set(errp, "Unknown driver '%s'; this build has %s", format, names);
        return false;
    }
    if (format) {
        options_set(node_opts, "driver", format);
    }
    return true;
}

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

/* No format was given: looks at the file. Only raw will do. */
static bool probe_format(struct block_node *file, struct error **errp)
{
    struct probe probe = {.node = file};
    int ret = block_run(co_read_start, &probe);

    if (ret < 0) {
        error_set_errno(errp, -ret, "Could not read the first sector of '%s'", file->filename);
        return false;
    }
    const char *format = block_probe_format(probe.data);
    if (strcmp(format, "raw")) {
        error_set(errp,
                  "format %s of '%s' is not supported in this build; convert it by 'qemu-img "
                  "convert -O raw', or give format=raw if the guest should see the bytes as "
                  "they are",
                  format, file->filename);
        return false;
    }
    return true;
}

/* A root node from options without a driver: "file" is opened first, to look into it. */
static struct block_node *open_probed(struct options *node_opts, struct error **errp)
{
    unsigned flags = BLOCK_OPEN_RDWR;
    struct block_node *root = NULL;

    if (!block_node_parse_flags(node_opts, &flags, errp)) {
        return NULL;
    }
    struct options *nested = options_take_prefix(node_opts, "file");
    struct block_node *file = block_node_open(nested, flags, errp);
    options_free(nested);
    if (!file) {
        return NULL;
    }
    if (probe_format(file, errp)) {
        options_set(node_opts, "driver", "raw");
        options_set(node_opts, "file", file->name);
        root = block_node_open(node_opts, BLOCK_OPEN_RDWR | BLOCK_OPEN_PROBED, errp);
    }
    if (root && root->flags & BLOCK_OPEN_RDWR && !strcmp(file->driver->name, "file")) {
        log_warn("Image format was not specified for '%s' and probing guessed raw; the guest "
                 "cannot write to its first sector what looks like another format. Give "
                 "format=raw to lift that",
                 file->filename);
    }
    block_node_unref(file);
    return root;
}

static bool has_file_options(const struct options *node_opts)
{
    for (size_t i = 0; i < options_count(node_opts); i++) {
        if (!strncmp(options_key(node_opts, i), "file.", strlen("file."))) {
            return true;
        }
    }
    return false;
}

static struct block_node *open_root(struct options *opts, struct options *node_opts,
                                    struct error **errp)
{
    const char *filename = options_get(opts, "file");
    const char *aio = options_get(opts, "aio");

    if (!apply_format(opts, node_opts, errp) ||
        (filename && !apply_filename(node_opts, filename, errp))) {
        return NULL;
    }
    if (!options_has(node_opts, "driver") && !has_file_options(node_opts)) {
        error_set(errp, "-drive needs file=FILE; drives without a medium are not supported in "
                        "this build");
        return NULL;
    }
    if (aio && !apply_aio(node_opts, aio, errp)) {
        return NULL;
    }
    return options_has(node_opts, "driver") ? block_node_open(node_opts, BLOCK_OPEN_RDWR, errp)
                                            : open_probed(node_opts, errp);
}

/* ---- -drive ---------------------------------------------------------------------------------- */

static bool get_media(struct options *opts, bool *is_cdrom, struct error **errp)
{
    const char *media = options_get(opts, "media");

    *is_cdrom = media && !strcmp(media, "cdrom");
    if (media && !*is_cdrom && strcmp(media, "disk")) {
        error_set(errp, "'%s' invalid media; use disk or cdrom", media);
        return false;
    }
    return true;
}

/* readonly= is the old name of read-only=. */
static bool apply_readonly(struct options *opts, struct options *node_opts, bool is_cdrom,
                           struct error **errp)
{
    bool readonly = is_cdrom;

    if (options_has(opts, "readonly") && options_has(node_opts, "read-only")) {
        error_set(errp, "'readonly' and its alias 'read-only' can't be used at the same time");
        return false;
    }
    if (!options_get_bool(opts, "readonly", &readonly, errp)) {
        return false;
    }
    if (options_has(opts, "readonly") || is_cdrom) {
        options_set(node_opts, "read-only", readonly || is_cdrom ? "on" : "off");
    }
    return true;
}

static struct block_backend *make_backend(struct options *opts, struct options *node_opts,
                                          const struct drive_spec *spec, bool write_cache,
                                          struct error **errp)
{
    autofree char *id = drive_make_id(opts, spec);
    const char *rerror = options_get(opts, "rerror"), *werror = options_get(opts, "werror");
    struct block_node *root = open_root(opts, node_opts, errp);

    if (!root) {
        return NULL;
    }
    struct block_backend *be = backend_new(id, root, errp);
    block_node_unref(root);
    if (!be) {
        return NULL;
    }
    if (!backend_set_error_policy(be, rerror, werror, errp)) {
        backend_unref(be);
        return NULL;
    }
    backend_set_write_cache(be, write_cache);
    be->in_drive_list = true;
    strcpy(be->interface, spec->interface);
    be->bus = spec->bus;
    be->unit = spec->unit;
    return be;
}

bool drive_new(struct options *opts, const char *default_interface, struct drive_spec *spec,
               struct error **errp)
{
    bool write_cache;

    *spec = (struct drive_spec){0};
    struct options *node_opts = take_node_options(opts, errp);
    if (!node_opts) {
        return false;
    }
    bool ok = refuse_on(opts, "snapshot", "use a copy of the image", errp) &&
              refuse_on(opts, "copy-on-read", "leave it out", errp) &&
              get_media(opts, &spec->is_cdrom, errp) &&
              drive_find_place(opts, default_interface, spec, errp) &&
              apply_cache(opts, node_opts, &write_cache, errp) &&
              apply_readonly(opts, node_opts, spec->is_cdrom, errp);
    if (ok) {
        spec->backend = make_backend(opts, node_opts, spec, write_cache, errp);
    }
    options_free(node_opts);
    if (!spec->backend) {
        return false;
    }
    const char *serial = options_get(opts, "serial");
    spec->serial = serial ? xstrdup(serial) : NULL;
    return true;
}

bool drive_help(struct options *opts, FILE *to)
{
    static const char *const keys[] = {"format", "driver"};

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        const char *value = options_get(opts, keys[i]);
        if (value && (!strcmp(value, "help") || !strcmp(value, "?"))) {
            fputs("Supported formats:", to);
            for (const struct block_driver *const *driver = block_drivers; *driver; driver++) {
                fprintf(to, " %s", (*driver)->name);
            }
            fputc('\n', to);
            return true;
        }
    }
    return false;
}
