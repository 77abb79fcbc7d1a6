/* SPDX-License-Identifier: MIT */
/* Making images: the file by its protocol, then the format in it. See image.h. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/options.h"
#include "base/range.h"
#include "block/filename.h"
#include "block/image.h"

/* ---- options --------------------------------------------------------------------------------- */

const struct block_create_option *block_image_create_options(const char *format,
                                                             struct error **errp)
{
    const struct block_driver *driver = block_driver_find(format);

    if (!driver) {
        error_set(errp, "Unknown file format '%s'", format);
        return NULL;
    }
    if (!driver->image || !driver->image->create) {
        error_set(errp, "Format driver '%s' does not support image creation", format);
        return NULL;
    }
    return driver->image->create_options;
}

static bool check_options(const struct options *opts, const struct block_create_option *known,
                          struct error **errp)
{
    for (size_t i = 0; i < options_count(opts); i++) {
        const char *key = options_key(opts, i);
        const struct block_create_option *option = known;

        while (option->name && strcmp(option->name, key)) {
            option++;
        }
        if (option->name) {
            continue;
        }
        const char *names[32];
        size_t count = 0;
        for (option = known; option->name && count < ARRAY_SIZE(names); option++) {
            names[count++] = option->name;
        }
        const char *near = nearest_name(key, names, count);
        error_set(errp, "Invalid parameter '%s'", key);
        if (near) {
            error_add_hint(errp, "Did you mean '%s'?", near);
        }
        return false;
    }
    return true;
}

/* ---- files that are to be kept ---------------------------------------------------------------- */

/* One file, whatever it is called: by links, by other spellings. */
static bool is_same_file(const char *a, const char *b)
{
    struct stat x, y;

    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* A source that was opened without locks, or what is below it, must not be emptied. */
bool block_image_check_unused(const char *path, struct error **errp)
{
    for (struct block_node *node = block_node_first(); node; node = node->next) {
        if (node->driver->is_protocol && node->filename && is_same_file(path, node->filename)) {
            error_set(errp, "'%s' is in use as '%s'; give the new image another name", path,
                      node->filename);
            return false;
        }
    }
    return true;
}

/* ---- the data file ---------------------------------------------------------------------------- */

/* It is emptied, like the image. */
static bool check_data_file(const char *filename, struct options *opts, struct error **errp)
{
    const char *name = options_get(opts, "data_file"), *backing = options_get(opts, "backing_file");
    autofree char *full = name ? block_image_data_path(filename, name, NULL) : NULL;
    autofree char *path = full ? block_image_path(full) : NULL;
    autofree char *image = block_image_path(filename);
    autofree char *full_backing =
        backing ? block_image_backing_path(filename, backing, NULL) : NULL;
    autofree char *base = full_backing ? block_image_path(full_backing) : NULL;

    if (!path) {
        return true; /* whoever makes it says what is wrong with its name */
    }
    if (image && (!strcmp(path, image) || is_same_file(path, image))) {
        error_set(errp, "'%s' cannot be the image and its data file; give data_file= another name",
                  path);
        return false;
    }
    if (base && is_same_file(path, base)) {
        error_set(errp,
                  "'%s' cannot be the backing file and the data file; give data_file= another name",
                  path);
        return false;
    }
    return block_image_check_unused(path, errp);
}

/* ---- the backing file ------------------------------------------------------------------------ */

/* Opens the backing file to see that it is there, and how long it is. */
static bool look_at_backing(const char *filename, const char *format, struct options *opts,
                            uint64_t *size, struct error **errp)
{
    const char *backing = options_get(opts, "backing_file");
    autofree char *path = block_image_backing_path(filename, backing, errp);

    if (!path) {
        return false;
    }
    struct block_node *node = block_image_open_node(
        &(struct block_image_how){
            .filename = path,
            .format = format,
            .flags = BLOCK_OPEN_FORCE_SHARE,
        },
        errp);
    if (!node) {
        error_prepend_once(errp, "Could not open '%s': ", path);
        error_add_hint(errp, "Could not open backing image.");
        return false;
    }
    *size = block_length(node);
    bool ok = check_data_file(filename, opts, errp); /* while all of the chain is open */
    block_node_unref(node);
    return ok;
}

static bool apply_backing(const char *filename, struct options *opts, unsigned flags,
                          struct error **errp)
{
    const char *backing = options_get(opts, "backing_file");
    const char *format = options_get(opts, "backing_fmt");
    uint64_t size = 0;

    if (!backing) {
        if (format) {
            error_set(errp, "backing_fmt=%s is given without backing_file", format);
            return false;
        }
        return true;
    }
    if (!*backing) {
        options_unset(opts, "backing_file");
        options_unset(opts, "backing_fmt");
        return true;
    }
    autofree char *path = block_image_backing_path(filename, backing, NULL);
    if (!strcmp(backing, filename) || (path && is_same_file(path, filename))) {
        error_set(errp, "Error: Trying to create an image with the same filename as the backing "
                        "file");
        return false;
    }
    if (format && !block_driver_find(format)) {
        error_set(errp, "Unknown backing file format '%s'", format);
        return false;
    }
    if (!format) {
        error_set(errp, "Backing file specified without backing format");
        error_add_hint(errp, "Give it with -F or backing_fmt=: the format of an image that a guest "
                             "can write must not be guessed.");
        return false;
    }
    if (flags & BLOCK_CREATE_NO_BACKING_CHECK) {
        return true;
    }
    if (!look_at_backing(filename, format, opts, &size, errp)) {
        return false;
    }
    if (!options_has(opts, "size")) {
        autofree char *text = xasprintf("%llu", (unsigned long long)size);
        options_set(opts, "size", text);
    }
    return true;
}

/* ---- the format ------------------------------------------------------------------------------- */

/* An image that is there is not lost for a wrong option. */
static bool check_format_options(const struct block_driver *format, const struct options *opts,
                                 struct error **errp)
{
    struct options *copy = options_new();

    for (size_t i = 0; i < options_count(opts); i++) {
        options_set(copy, options_key(opts, i), options_value(opts, i));
    }
    bool ok = !format->image->check_create || format->image->check_create(copy, errp);
    options_free(copy);
    return ok;
}

/* ---- the file -------------------------------------------------------------------------------- */

/* What the protocol is told: for a raw image it does all the work. */
static void take_protocol_options(struct options *file_opts, struct options *opts, bool is_raw)
{
    static const char *const keys[] = {"nocow", "extent_size_hint", "size", "preallocation"};

    for (size_t i = 0; i < (is_raw ? ARRAY_SIZE(keys) : 2); i++) {
        const char *value = options_get(opts, keys[i]);
        if (value) {
            options_set(file_opts, keys[i], value);
        }
    }
}

/* Makes the file, or finds it where its protocol can make none, and opens it. *made: its path, if
 * it was not there before. */
static struct block_node *make_file(const char *filename, struct options *opts, bool is_raw,
                                    char **made, struct error **errp)
{
    struct options *named = block_filename_parse(filename, errp);
    struct block_node *file = NULL;

    if (!named) {
        return NULL;
    }
    const char *name = options_get(named, "driver");
    const struct block_driver *driver = name ? block_driver_find(name) : NULL;
    if (!driver || !driver->is_protocol) {
        error_set(errp, "'%s' names no file that an image could be made in", filename);
        options_free(named);
        return NULL;
    }
    if (driver->create) {
        struct options *file_opts = options_new();
        const char *path = options_get(named, "filename");
        bool existed = !path || access(path, F_OK) == 0;

        options_set(file_opts, "filename", path ? path : "");
        take_protocol_options(file_opts, opts, is_raw);
        bool ok =
            (!path || block_image_check_unused(path, errp)) && driver->create(file_opts, errp);
        if (!existed && access(path, F_OK) == 0) {
            *made = xstrdup(path);
        }
        options_free(file_opts);
        if (!ok) {
            options_free(named);
            return NULL;
        }
    }
    file = block_node_open(named, BLOCK_OPEN_RDWR | BLOCK_OPEN_UNMAP, errp);
    options_free(named);
    return file;
}

/* Nobody else uses the file meanwhile. */
static bool create_in(struct block_node *file, const struct block_driver *format,
                      struct options *opts, struct error **errp)
{
    struct block_backend *be = backend_attach(file->name, "image creation", true, false, errp);

    if (!be) {
        return false;
    }
    block_node_allow_growth(file);
    bool ok = format->image->create(file, opts, errp);
    backend_detach(be);
    return ok;
}

bool block_image_create(const char *filename, const char *format, struct options *opts,
                        unsigned flags, struct error **errp)
{
    const struct block_create_option *known = block_image_create_options(format, errp);
    const struct block_driver *driver = block_driver_find(format);
    autofree char *made = NULL;
    uint64_t size = 0;

    if (!known || !check_options(opts, known, errp) ||
        !apply_backing(filename, opts, flags, errp) || !check_data_file(filename, opts, errp)) {
        return false;
    }
    if (!options_has(opts, "size")) {
        error_set(errp, "Image creation needs a size parameter");
        return false;
    }
    if (!options_get_size(opts, "size", 1, &size, errp)) {
        return false;
    }
    if (size > INT64_MAX - 512) {
        error_set(errp, "Image size must be less than 8 EiB!");
        return false;
    }
    if (!check_format_options(driver, opts, errp)) {
        return false;
    }
    struct block_node *file = make_file(filename, opts, !strcmp(format, "raw"), &made, errp);
    bool ok = file && create_in(file, driver, opts, errp);
    if (file) {
        block_node_unref(file);
    }
    if (!ok && made) {
        unlink(made);
    }
    return ok;
}
