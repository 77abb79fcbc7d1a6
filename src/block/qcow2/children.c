/* SPDX-License-Identifier: MIT */
/*
 * The other files of an image: its backing file and its data file, by the user's options or else by
 * the names in the image.
 *
 * What an image names is opened with the format that it gives, never by looking into it: else a
 * guest that writes a header into its raw disk could make its host open any file.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/options.h"
#include "block/filename.h"
#include "block/qcow2/qcow2.h"

#define MAX_CHAIN 200u /* files */

/* ---- loops ----------------------------------------------------------------------------------- */

/* The images above that are being opened: on the stack of their opening. Main loop. */
struct opening {
    const char *filename;
    struct stat stat;
    bool has_stat;
    unsigned depth;
    const struct opening *above;
};

static const struct opening *innermost;

static bool is_same_file(const struct opening *a, const struct opening *b)
{
    if (a->has_stat && b->has_stat) {
        return a->stat.st_dev == b->stat.st_dev && a->stat.st_ino == b->stat.st_ino;
    }
    return *a->filename && !strcmp(a->filename, b->filename);
}

static bool describe_opening(struct opening *o, const char *filename, struct error **errp)
{
    *o = (struct opening){.filename = filename, .above = innermost};
    o->has_stat = stat(filename, &o->stat) == 0;
    o->depth = innermost ? innermost->depth + 1 : 1;
    if (o->depth > MAX_CHAIN) {
        error_set(errp, "The backing chain is too long: '%s' is file %u of it, at most %u",
                  filename, o->depth, MAX_CHAIN);
        return false;
    }
    for (const struct opening *above = innermost; above; above = above->above) {
        if (is_same_file(o, above)) {
            error_set(errp,
                      "The backing chain is a loop: '%s' has '%s' as its backing file, which is "
                      "above it in the chain; change it by 'ferry-img rebase -u'",
                      innermost->filename, filename);
            return false;
        }
    }
    return true;
}

/* ---- options --------------------------------------------------------------------------------- */

static bool has_prefix(const struct options *opts, const char *prefix)
{
    size_t length = strlen(prefix);

    for (size_t i = 0; i < options_count(opts); i++) {
        if (!strncmp(options_key(opts, i), prefix, length)) {
            return true;
        }
    }
    return false;
}

static void add_missing(struct options *opts, const char *prefix, const struct options *from)
{
    for (size_t i = 0; i < options_count(from); i++) {
        autofree char *key = xasprintf("%s%s", prefix, options_key(from, i));
        if (!options_has(opts, key)) {
            options_copy(opts, key, from, i);
        }
    }
}

/* ---- backing file ---------------------------------------------------------------------------- */

/* Options of the backing node from the names in the image, below those that the user gave. */
static bool name_backing(struct block_node *node, struct options *opts, struct error **errp)
{
    const struct qcow2_state *s = qcow2_of(node);
    bool is_json = !strncmp(s->backing_name, "json:", strlen("json:"));

    autofree char *path = block_node_backing_path(node, s->backing_name, errp);
    struct options *named = path ? block_filename_parse(path, errp) : NULL;
    if (!named) {
        error_prepend(errp, "Could not open backing file of '%s': ", node->filename);
        return false;
    }
    if (!s->backing_format && !options_has(opts, "backing.driver") &&
        !(is_json && options_has(named, "file.driver"))) {
        error_set(errp,
                  "'%s' has backing file '%s' and does not say its format; say it by 'ferry-img "
                  "rebase -u -b %s -F FORMAT %s', or give backing.driver=FORMAT",
                  node->filename, s->backing_name, s->backing_name, node->filename);
        options_free(named);
        return false;
    }
    const char *format = s->backing_format;
    const struct block_driver *driver = format ? block_driver_find(format) : NULL;
    bool is_root = is_json && options_has(named, "file.driver");
    if (format && !driver && !options_has(opts, "backing.driver")) {
        autofree char *names = block_driver_names();
        error_set(errp,
                  "Could not open backing file of '%s': Unknown driver '%s'; this build has %s",
                  node->filename, format, names);
        options_free(named);
        return false;
    }
    /* The image's word for the format is more than that of the JSON in it. */
    if (format && !options_has(opts, "backing.driver")) {
        options_set(opts, "backing.driver", format);
    }
    add_missing(opts, is_root || (driver && driver->is_protocol) ? "backing." : "backing.file.",
                named);
    options_free(named);
    return true;
}

/* Nothing that was said of a backing file goes unheard. */
static bool refuse_backing_options(const struct options *opts, struct error **errp)
{
    for (size_t i = 0; i < options_count(opts); i++) {
        const char *key = options_key(opts, i);
        if (!strcmp(key, "backing") || !strncmp(key, "backing.", strlen("backing."))) {
            error_set(errp,
                      "The option '%s' has no place here: the image is opened without a backing "
                      "file",
                      key);
            return false;
        }
    }
    return true;
}

static bool open_backing(struct block_node *node, struct options *opts, bool is_complete,
                         struct error **errp)
{
    struct opening opening;

    if (!describe_opening(&opening, node->filename, errp)) {
        return false;
    }
    innermost = &opening;
    bool ok = is_complete || name_backing(node, opts, errp);
    if (ok && !block_node_open_child(node, opts, "backing", BLOCK_CHILD_BACKING, errp)) {
        error_prepend(errp, "Could not open backing file of '%s': ", node->filename);
        ok = false;
    }
    innermost = opening.above;
    return ok;
}

/* A protocol has filename=; a format has it in its file. */
static bool check_backing_filename(struct block_node *node, struct options *opts,
                                   struct error **errp)
{
    const char *given = options_get(opts, "backing.driver");
    const char *format = given ? given : qcow2_of(node)->backing_format;
    const struct block_driver *driver = format ? block_driver_find(format) : NULL;

    if (!driver || driver->is_protocol || !options_has(opts, "backing.filename")) {
        return true;
    }
    error_set(errp,
              "Could not open backing file of '%s': Block format '%s' does not support the option "
              "'filename'; give backing.file.filename=",
              node->filename, format);
    return false;
}

bool qcow2_open_backing(struct block_node *node, struct options *opts, struct error **errp)
{
    const struct qcow2_state *s = qcow2_of(node);
    const char *reference = options_get(opts, "backing");
    bool has_options = has_prefix(opts, "backing.");

    node->named_backing = s->backing_name ? xstrdup(s->backing_name) : NULL;
    if (reference && !*reference) {
        options_unset(opts, "backing");
        return refuse_backing_options(opts, errp);
    }
    if (node->flags & BLOCK_OPEN_NO_BACKING) {
        return refuse_backing_options(opts, errp);
    }
    if (!reference && !s->backing_name && !has_options) {
        return true;
    }
    if (!check_backing_filename(node, opts, errp)) {
        return false;
    }
    bool is_complete = reference || !s->backing_name || options_has(opts, "backing.file") ||
                       has_prefix(opts, "backing.file.") || options_has(opts, "backing.filename");
    if (!reference && s->backing_format && is_complete && !options_has(opts, "backing.driver")) {
        options_set(opts, "backing.driver", s->backing_format);
    }
    if (!open_backing(node, opts, is_complete, errp)) {
        return false;
    }
    if (!reference && !has_options) {
        free(node->named_backing);
        node->named_backing = xstrdup(node->backing->filename);
    }
    return true;
}

/* ---- data file ------------------------------------------------------------------------------- */

/* The image's own words: a file beside it, and nothing else. */
static bool name_data_file(struct block_node *node, struct options *opts, struct error **errp)
{
    const struct qcow2_state *s = qcow2_of(node);
    const char *name = s->data_file_name;

    if (!name) {
        error_set(errp, "'data-file' is required for this image: '%s' does not name its data file",
                  node->filename);
        return false;
    }
    if (name[strcspn(name, ":/")] == ':') {
        error_set(errp,
                  "'%s' has data file '%s', which is not the name of a file; give "
                  "data-file.driver=… and its options",
                  node->filename, name);
        return false;
    }
    autofree char *path = block_node_backing_path(node, name, errp);
    struct options *named = path ? block_filename_parse(path, errp) : NULL;
    if (!named) {
        return false;
    }
    add_missing(opts, "data-file.", named);
    options_free(named);
    return true;
}

bool qcow2_open_data_file(struct block_node *node, struct options *opts, struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);
    bool is_given = options_has(opts, "data-file") || has_prefix(opts, "data-file.");

    s->data_file = node->file;
    if (!s->has_data_file) {
        if (is_given) {
            error_set(errp,
                      "'data-file' can only be set for images with an external data file, "
                      "which '%s' has not",
                      node->filename);
        }
        return !is_given;
    }
    if (node->flags & BLOCK_OPEN_NO_IO) {
        s->data_file = NULL;
        options_unset(opts, "data-file");
        options_free(options_take_prefix(opts, "data-file"));
        return true;
    }
    if (!is_given && !name_data_file(node, opts, errp)) {
        return false;
    }
    s->data_file = block_node_open_child(node, opts, "data-file", BLOCK_CHILD_DATA, errp);
    if (!s->data_file) {
        error_prepend(errp, "Could not open data file of '%s': ", node->filename);
    }
    return s->data_file;
}
