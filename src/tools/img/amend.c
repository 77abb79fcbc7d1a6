/* SPDX-License-Identifier: MIT */
/* ferry-img amend: other format options for an image that is there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "base/range.h"
#include "tools/common/progress.h"
#include "tools/common/tool.h"
#include "tools/img/img.h"

struct amend {
    struct img_common common;
    char *changes;
    const char *cache;
    bool force;
    struct progress progress;
};

static void on_progress(void *opaque, uint64_t done, uint64_t total)
{
    struct amend *a = opaque;

    a->progress.total = total;
    progress_set(&a->progress, done);
}

/* ---- -o help --------------------------------------------------------------------------------- */

/* Those of the create options that can be changed later. */
static const char *const amendable[] = {"backing_file",  "backing_fmt",   "compat",
                                        "data_file",     "data_file_raw", "lazy_refcounts",
                                        "refcount_bits", "size"};

static bool is_amendable(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(amendable); i++) {
        if (!strcmp(name, amendable[i])) {
            return true;
        }
    }
    return false;
}

static bool print_help(const char *format, struct error **errp)
{
    const struct block_driver *driver = block_driver_find(format);
    struct block_create_option list[ARRAY_SIZE(amendable) + 1] = {0};
    size_t count = 0;

    if (!driver) {
        error_set(errp, "Unknown file format '%s'", format);
        return false;
    }
    if (!driver->image || !driver->image->amend) {
        error_set(errp, "Format driver '%s' does not support option amendment", format);
        return false;
    }
    const struct block_create_option *option = driver->image->create_options;
    for (; option->name && count < ARRAY_SIZE(amendable); option++) {
        if (is_amendable(option->name)) {
            list[count++] = *option;
        }
    }
    printf("Amend options for '%s':\n", format);
    img_print_option_list(list, true);
    return true;
}

/* ---- the command ----------------------------------------------------------------------------- */

static bool check_names(struct block_node *node, const struct options *opts, struct error **errp)
{
    for (size_t i = 0; i < options_count(opts); i++) {
        const char *name = options_key(opts, i);
        const struct block_create_option *known = img_ops(node)->create_options;
        if (is_amendable(name)) {
            continue;
        }
        while (known->name && strcmp(known->name, name) != 0) {
            known++;
        }
        error_set(errp, "Invalid parameter '%s'", name);
        if (known->name) {
            error_add_hint(errp, "This option is only supported for image creation");
        }
        return false;
    }
    return true;
}

static bool amend(struct amend *a, struct block_node *node, struct error **errp)
{
    if (!img_ops(node)->amend) {
        error_set(errp, "Format driver '%s' does not support option amendment", node->driver->name);
        return false;
    }
    struct options *opts = img_parse_creation(a->changes, errp);
    bool ok = opts && check_names(node, opts, errp);
    if (ok) {
        progress_start(&a->progress, a->common.progress, false, 1);
        ok = img_ops(node)->amend(node, opts, a->force, on_progress, a, errp);
        progress_end(&a->progress, ok);
    }
    options_free(opts);
    return ok;
}

static int run(void *fields, int count, char **operands, struct error **errp)
{
    struct amend *a = fields;

    if (!a->changes) {
        tool_usage_error(errp, "Must specify options (-o)");
        return EXIT_FAILURE;
    }
    bool help = img_wants_help(a->changes);
    if (help && a->common.format) {
        print_help(a->common.format, errp);
        return EXIT_SUCCESS;
    }
    if (count != 1) {
        error_set(errp, "Expecting one image file name");
        return EXIT_FAILURE;
    }
    if (!tool_check_cache(a->cache, "cache", errp)) {
        return EXIT_FAILURE;
    }
    struct block_backend *be = img_open(
        &(struct img_open){
            .filename = operands[0],
            .format = a->common.format,
            .image_opts = a->common.image_opts,
            .cache = a->cache,
            .writable = !help,
        },
        errp);
    if (!be) {
        return EXIT_FAILURE;
    }
    img_warn_of_probing(be);
    struct block_node *node = img_format_node(be);
    bool ok = help ? print_help(node->driver->name, errp) : amend(a, node, errp);
    block_image_close(be);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

static void release(void *fields)
{
    free(((struct amend *)fields)->changes);
}

static const struct tool_option options[] = {
    IMG_OPTION_FORMAT,
    IMG_OPTION_IMAGE_OPTS,
    {'o', NULL, TOOL_APPEND, offsetof(struct amend, changes), "OPTIONS",
     "what to change: NAME=VALUE,…; 'help' lists what can be"},
    {0, "force", TOOL_FLAG, offsetof(struct amend, force), NULL,
     "also where it would lose something"},
    {'t', NULL, TOOL_STRING, offsetof(struct amend, cache), "CACHE", "cache mode (writeback)"},
    IMG_OPTION_PROGRESS,
    IMG_OPTION_QUIET,
    IMG_OPTION_OBJECT,
    {0},
};

const struct img_command img_amend = {
    .name = "amend",
    .operands = "-o OPTIONS FILE",
    .summary = "changes format options of an image",
    .options = options,
    .fields_size = sizeof(struct amend),
    .run = run,
    .release = release,
};
