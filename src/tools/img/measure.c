/* SPDX-License-Identifier: MIT */
/* ferry-img measure: how large a file a new image would need. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "tools/common/tool.h"
#include "tools/img/img.h"

struct measure {
    struct img_common common;
    const char *out_format, *size_text, *snapshot;
    char *creation;
};

static void print(const struct block_measure *m, bool json)
{
    if (json) {
        json_t *object = json_object();
        if (m->has_bitmaps) {
            json_object_set_new(object, "bitmaps", json_integer((json_int_t)m->bitmaps));
        }
        json_object_set_new(object, "required", json_integer((json_int_t)m->required));
        json_object_set_new(object, "fully-allocated",
                            json_integer((json_int_t)m->fully_allocated));
        img_print_json(object);
        return;
    }
    printf("required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n", m->required,
           m->fully_allocated);
    if (m->has_bitmaps) {
        printf("bitmaps size: %" PRIu64 "\n", m->bitmaps);
    }
}

static bool measure(struct measure *m, const struct block_image_ops *ops, struct block_node *source,
                    uint64_t size, bool json, struct error **errp)
{
    struct block_measure result = {0};
    struct options *opts = img_parse_creation(m->creation, errp);

    if (!opts) {
        return false;
    }
    for (size_t i = 0; i < options_count(opts); i++) {
        const struct block_create_option *known = ops->create_options;
        while (known->name && strcmp(known->name, options_key(opts, i)) != 0) {
            known++;
        }
        if (!known->name) {
            error_set(errp, "Invalid parameter '%s'", options_key(opts, i));
            error_add_hint(errp, "%s: Invalid options for file format '%s'", tool_name(),
                           m->out_format);
            options_free(opts);
            return false;
        }
    }
    bool ok = ops->measure(opts, source, size, &result, errp);
    options_free(opts);
    if (ok) {
        print(&result, json);
    }
    return ok;
}

static bool check(const struct measure *m, int count, bool *json, uint64_t *size,
                  struct error **errp)
{
    if (!img_parse_output(&m->common, json, errp) ||
        (m->size_text && !tool_parse_size(m->size_text, "image size", 0, INT64_MAX, size, errp))) {
        return false;
    }
    if (count > 1) {
        error_set(errp, "At most one filename argument is allowed.");
    } else if (count && m->size_text) {
        error_set(errp, "--size N cannot be used together with a filename.");
    } else if (!count && (m->common.image_opts || m->common.format || m->snapshot)) {
        error_set(errp, "--image-opts, -f, and -l require a filename argument.");
    } else if (!count && !m->size_text) {
        error_set(errp, "Either --size N or one filename must be specified.");
    }
    return !*errp;
}

static int run(void *fields, int count, char **operands, struct error **errp)
{
    struct measure *m = fields;
    struct block_backend *be = NULL;
    uint64_t size = 0;
    bool json;

    if (!check(m, count, &json, &size, errp)) {
        return EXIT_FAILURE;
    }
    m->out_format = m->out_format ? m->out_format : "raw";
    if (img_wants_help(m->creation)) {
        img_create_help(m->out_format, NULL, errp);
        return EXIT_SUCCESS;
    }
    const struct block_driver *driver = block_driver_find(m->out_format);
    if (!driver) {
        error_set(errp, "Unknown file format '%s'", m->out_format);
        return EXIT_FAILURE;
    }
    if (count) {
        be = img_open(
            &(struct img_open){
                .filename = operands[0],
                .format = m->common.format,
                .image_opts = m->common.image_opts,
                .flags = m->common.force_share ? BLOCK_OPEN_FORCE_SHARE : 0,
            },
            errp);
        if (!be) {
            return EXIT_FAILURE;
        }
    }
    if (!driver->image || !driver->image->measure) {
        error_set(errp, "Block driver '%s' does not support size measurement", driver->name);
    } else if (!m->snapshot || tool_load_snapshot(backend_root(be), m->snapshot, errp)) {
        measure(m, driver->image, be ? backend_root(be) : NULL, size, json, errp);
    }
    if (be) {
        block_image_close(be);
    }
    return EXIT_SUCCESS;
}

static void release(void *fields)
{
    free(((struct measure *)fields)->creation);
}

static const struct tool_option options[] = {
    {'f', NULL, TOOL_STRING, IMG_FIELD(format), "FMT", "format of FILE"},
    IMG_OPTION_IMAGE_OPTS,
    {0, "size", TOOL_STRING, offsetof(struct measure, size_text), "SIZE",
     "for an empty image of this size, without FILE"},
    {'O', NULL, TOOL_STRING, offsetof(struct measure, out_format), "FMT",
     "format of the new image (raw)"},
    {'o', NULL, TOOL_APPEND, offsetof(struct measure, creation), "OPTIONS",
     "options of the new image, as for create"},
    {'l', NULL, TOOL_STRING, offsetof(struct measure, snapshot), "SNAPSHOT",
     "of an internal snapshot: ID, NAME, snapshot.id=ID or snapshot.name=NAME"},
    IMG_OPTION_OUTPUT,
    IMG_OPTION_SHARE,
    IMG_OPTION_OBJECT,
    {0},
};

const struct img_command img_measure = {
    .name = "measure",
    .operands = "[FILE]",
    .summary = "says how many bytes a new image would take",
    .options = options,
    .fields_size = sizeof(struct measure),
    .run = run,
    .release = release,
};
