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
#include "base/options.h"
#include "base/range.h"
#include "block/backend_int.h"
#include "block/open.h"

/* ---- cache= ---------------------------------------------------------------------------------- */

static bool apply_cache(struct options *opts, struct options *node_opts, bool *write_cache,
                        struct error **errp)
{
    return block_open_set_cache(node_opts, options_get(opts, "cache"), write_cache, errp) &&
           options_get_bool(opts, "cache.writeback", write_cache, errp);
}

/* ---- the nodes ------------------------------------------------------------------------------- */

/* What -drive takes itself; all else goes to the root node. */
static const char *const drive_keys[] = {
    "id",     "if",     "index",    "bus",          "unit",     "media",           "serial",
    "cache",  "aio",    "format",   "file",         "readonly", "cache.writeback", "werror",
    "rerror", "driver", "snapshot", "copy-on-read",
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

/* Moves the root node's options out of opts. */
static struct options *take_node_options(struct options *opts)
{
    struct options *node_opts = options_new();

    for (size_t i = 0; i < options_count(opts);) {
        const char *key = options_key(opts, i);
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

static bool apply_format(struct options *opts, struct options *node_opts, struct error **errp)
{
    const char *format = options_get(opts, "format");
    const char *driver = options_get(opts, "driver");

    if (format && driver) {
        error_set(errp, "Cannot specify both 'driver' and 'format'");
        return false;
    }
    format = format ? format : driver;
    return !format || block_open_set_format(node_opts, format, errp);
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
        (filename && !block_open_add_filename(node_opts, filename, errp))) {
        return NULL;
    }
    if (!options_has(node_opts, "driver") && !has_file_options(node_opts)) {
        error_set(errp, "-drive needs file=FILE; drives without a medium are not supported in "
                        "this build");
        return NULL;
    }
    if (aio && !block_open_set_aio(node_opts, aio, errp)) {
        return NULL;
    }
    return block_open_root(node_opts, BLOCK_OPEN_RDWR, true, errp);
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

/* -drive takes detect-zeroes=unmap without discard=unmap as well, where nothing is ever unmapped. */
static void apply_detect_zeroes(struct options *node_opts)
{
    const char *detect = options_get(node_opts, "detect-zeroes");
    const char *discard = options_get(node_opts, "discard");
    bool unmaps = discard && (!strcmp(discard, "unmap") || !strcmp(discard, "on"));

    if (detect && !strcmp(detect, "unmap") && !unmaps) {
        options_set(node_opts, "detect-zeroes", "on");
    }
}

/* A drive without a device has no place for a serial number. */
static bool check_serial(struct options *opts, const struct drive_spec *spec, struct error **errp)
{
    const char *serial = options_get(opts, "serial");

    if (!serial || strcmp(spec->interface, "none")) {
        return true;
    }
    error_set(errp, "if=none takes no serial=; give serial=%s to the -device that has the drive",
              serial);
    return false;
}

/* snapshot=on: what says how the drive is written is for the overlay, *flags, and taken from the
 * image's options. The image itself is read. */
static bool take_overlay_flags(struct options *node_opts, unsigned *flags, struct error **errp)
{
    bool read_only = false;

    if (!options_get_bool(node_opts, "read-only", &read_only, errp)) {
        return false;
    }
    options_set(node_opts, "read-only", "on");
    *flags = 0;
    if (!block_node_parse_flags(node_opts, flags, errp)) {
        return false;
    }
    options_unset(node_opts, "detect-zeroes");
    *flags &= BLOCK_OPEN_DETECT_ZEROES | BLOCK_OPEN_DETECT_UNMAP;
    *flags |= read_only ? 0 : BLOCK_OPEN_RDWR;
    return true;
}

static struct block_backend *make_backend(struct options *opts, struct options *node_opts,
                                          const struct drive_spec *spec,
                                          const struct drive_filters *filters, bool write_cache,
                                          struct error **errp)
{
    autofree char *id = drive_make_id(opts, spec);
    const char *rerror = options_get(opts, "rerror"), *werror = options_get(opts, "werror");
    bool snapshot = false;
    unsigned overlay_flags = 0;

    if (!options_get_bool(opts, "snapshot", &snapshot, errp) ||
        (snapshot && !take_overlay_flags(node_opts, &overlay_flags, errp))) {
        return NULL;
    }
    struct block_node *root = open_root(opts, node_opts, errp);
    if (root && snapshot) {
        root = drive_put_overlay(root, overlay_flags, errp);
    }
    root = drive_put_filters(root, filters, id, errp);
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
    struct drive_filters filters;
    bool write_cache;

    *spec = (struct drive_spec){0};
    if (!drive_take_filters(opts, &filters, errp)) {
        return false;
    }
    struct options *node_opts = take_node_options(opts);
    bool ok = get_media(opts, &spec->is_cdrom, errp) &&
              drive_find_place(opts, default_interface, spec, errp) &&
              check_serial(opts, spec, errp) && apply_cache(opts, node_opts, &write_cache, errp) &&
              apply_readonly(opts, node_opts, spec->is_cdrom, errp);
    apply_detect_zeroes(node_opts);
    if (ok) {
        spec->backend = make_backend(opts, node_opts, spec, &filters, write_cache, errp);
    }
    options_free(node_opts);
    drive_filters_free(&filters);
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
