/* SPDX-License-Identifier: MIT */
/* ferry-img check: whether an image's metadata is consistent, and repairs. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "tools/common/tool.h"
#include "tools/img/img.h"

/* Exit statuses; 1: the check itself failed. */
enum { STATUS_CORRUPT = 2, STATUS_LEAKS = 3, STATUS_NO_CHECKS = 63 };

struct check {
    struct img_common common;
    const char *repair, *cache;
    struct block_check_result result;
};

static void say(void *opaque, const char *line)
{
    (void)opaque;
    fprintf(stderr, "%s\n", line);
}

/* ---- printing -------------------------------------------------------------------------------- */

static void print_errors(const struct block_check_result *r)
{
    if (!r->corruptions && !r->leaks && !r->check_errors) {
        printf("No errors were found on the image.\n");
        return;
    }
    if (r->corruptions) {
        printf("\n%" PRIu64 " errors were found on the image.\n"
               "Data may be corrupted, or further writes to the image may corrupt it.\n",
               r->corruptions);
    }
    if (r->leaks) {
        printf("\n%" PRIu64 " leaked clusters were found on the image.\n"
               "This means waste of disk space, but no harm to data.\n",
               r->leaks);
    }
    if (r->check_errors) {
        printf("\n%" PRIu64 " internal errors have occurred during the check.\n", r->check_errors);
    }
}

static void print_human(const struct block_check_result *r)
{
    print_errors(r);
    if (r->total_clusters && r->allocated_clusters) {
        double allocated = (double)r->allocated_clusters;
        printf("%" PRIu64 "/%" PRIu64
               " = %.2f%% allocated, %.2f%% fragmented, %.2f%% compressed clusters\n",
               r->allocated_clusters, r->total_clusters,
               allocated * 100 / (double)r->total_clusters,
               (double)r->fragmented_clusters * 100 / allocated,
               (double)r->compressed_clusters * 100 / allocated);
    }
    if (r->image_end_offset) {
        printf("Image end offset: %" PRIu64 "\n", r->image_end_offset);
    }
}

static void set_if(json_t *object, const char *key, uint64_t value)
{
    if (value) {
        json_object_set_new(object, key, json_integer((json_int_t)value));
    }
}

static void print_json(const struct block_check_result *r, const char *filename, const char *format)
{
    autofree char *name = utf8_repair(filename);
    json_t *object = json_object();

    set_if(object, "image-end-offset", r->image_end_offset);
    set_if(object, "total-clusters", r->total_clusters);
    json_object_set_new(object, "check-errors", json_integer((json_int_t)r->check_errors));
    set_if(object, "corruptions", r->corruptions);
    set_if(object, "leaks", r->leaks);
    set_if(object, "corruptions-fixed", r->corruptions_fixed);
    set_if(object, "leaks-fixed", r->leaks_fixed);
    set_if(object, "allocated-clusters", r->allocated_clusters);
    set_if(object, "fragmented-clusters", r->fragmented_clusters);
    set_if(object, "compressed-clusters", r->compressed_clusters);
    json_object_set_new(object, "filename", json_string(name));
    json_object_set_new(object, "format", json_string(format));
    img_print_json(object);
}

/* ---- the command ----------------------------------------------------------------------------- */

static bool parse_repair(const char *text, unsigned *fix, struct error **errp)
{
    *fix = 0;
    if (!text) {
        return true;
    }
    if (!strcmp(text, "leaks")) {
        *fix = BLOCK_CHECK_FIX_LEAKS;
    } else if (!strcmp(text, "all")) {
        *fix = BLOCK_CHECK_FIX_LEAKS | BLOCK_CHECK_FIX_ERRORS;
    } else {
        tool_usage_error(errp, "Unknown option value for -r (expecting 'leaks' or 'all'): %s",
                         text);
    }
    return *fix;
}

/* Once more after repairs, so that what is told is how the image is now. */
static bool check_again(struct check *c, struct block_node *node, bool prints, struct error **errp)
{
    struct block_check_result fixed = c->result;

    if (prints) {
        printf("The following inconsistencies were found and repaired:\n\n"
               "    %" PRIu64 " leaked clusters\n"
               "    %" PRIu64 " corruptions\n\n"
               "Double checking the fixed image now...\n",
               fixed.leaks_fixed, fixed.corruptions_fixed);
        tool_flush_output();
    }
    c->result = (struct block_check_result){0};
    bool ok = img_ops(node)->check(node, 0, &c->result, say, NULL, errp);
    c->result.leaks_fixed = fixed.leaks_fixed;
    c->result.corruptions_fixed = fixed.corruptions_fixed;
    return ok;
}

static int check_image(struct check *c, struct block_backend *be, const char *filename, bool json,
                       unsigned fix, struct error **errp)
{
    struct block_node *node = img_format_node(be);
    bool prints = !json && !c->common.quiet;

    if (!img_ops(node)->check) {
        error_set(errp, "This image format does not support checks");
        return STATUS_NO_CHECKS;
    }
    bool ok = img_ops(node)->check(node, fix, &c->result, say, NULL, errp);
    if (ok && (c->result.leaks_fixed || c->result.corruptions_fixed)) {
        ok = check_again(c, node, prints, errp);
    }
    if (!ok) {
        error_prepend(errp, "Check failed: ");
        return EXIT_FAILURE;
    }
    if (json && !c->common.quiet) {
        print_json(&c->result, filename, node->driver->name);
    } else if (prints) {
        print_human(&c->result);
    }
    if (c->result.check_errors) {
        return EXIT_FAILURE;
    }
    return c->result.corruptions ? STATUS_CORRUPT : c->result.leaks ? STATUS_LEAKS : EXIT_SUCCESS;
}

static int run(void *fields, int count, char **operands, struct error **errp)
{
    struct check *c = fields;
    unsigned fix;
    bool json;

    if (!parse_repair(c->repair, &fix, errp)) {
        return EXIT_FAILURE;
    }
    if (count != 1) {
        tool_usage_error(errp, "Expecting one image file name");
        return EXIT_FAILURE;
    }
    if (!img_parse_output(&c->common, &json, errp) ||
        !tool_check_cache(c->cache, "source cache", errp)) {
        return EXIT_FAILURE;
    }
    struct block_backend *be = img_open(
        &(struct img_open){
            .filename = operands[0],
            .format = c->common.format,
            .image_opts = c->common.image_opts,
            .cache = c->cache,
            .writable = fix != 0,
            .flags = BLOCK_OPEN_CHECK | (c->common.force_share ? BLOCK_OPEN_FORCE_SHARE : 0),
        },
        errp);
    if (!be) {
        return EXIT_FAILURE;
    }
    int status = check_image(c, be, operands[0], json, fix, errp);
    block_image_close(be);
    return status;
}

static const struct tool_option options[] = {
    IMG_OPTION_FORMAT,
    IMG_OPTION_IMAGE_OPTS,
    {'r', "repair", TOOL_STRING, offsetof(struct check, repair), "leaks|all",
     "repair leaked clusters, or all errors"},
    {'T', NULL, TOOL_STRING, offsetof(struct check, cache), "CACHE", "cache mode (writeback)"},
    IMG_OPTION_OUTPUT,
    IMG_OPTION_SHARE,
    IMG_OPTION_QUIET,
    IMG_OPTION_OBJECT,
    {0},
};

const struct img_command img_check = {
    .name = "check",
    .operands = "FILE",
    .summary = "checks metadata: status 0 fine, 2 errors, 3 leaks, 63 format has no checks",
    .options = options,
    .fields_size = sizeof(struct check),
    .run = run,
};
