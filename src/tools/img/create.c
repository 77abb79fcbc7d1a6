/* SPDX-License-Identifier: MIT */
/* ferry-img create: an empty image. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/options.h"
#include "base/range.h"
#include "tools/common/tool.h"
#include "tools/img/img.h"

struct create {
    struct img_common common;
    const char *backing, *backing_format;
    char *creation; /* -o */
    bool unsafe;    /* -u */
};

/* ---- -o -------------------------------------------------------------------------------------- */

static const char *type_text(enum block_option_type type)
{
    switch (type) {
    case BLOCK_OPTION_STRING:
        return "str";
    case BLOCK_OPTION_SIZE:
        return "size";
    case BLOCK_OPTION_BOOL:
        return "bool (on/off)";
    case BLOCK_OPTION_UINT:
        return "num";
    }
    return "";
}

static int compare_names(const void *a, const void *b)
{
    const struct block_create_option *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

void img_print_option_list(const struct block_create_option *options, bool with_file)
{
    const struct block_create_option *sorted[64] = {0};
    size_t count = 0;

    for (; options->name && count < ARRAY_SIZE(sorted); options++) {
        if (with_file || !options->of_file) {
            sorted[count++] = options;
        }
    }
    qsort(sorted, count, sizeof(sorted[0]), compare_names);
    for (size_t i = 0; i < count; i++) {
        autofree char *name = xasprintf("%s=<%s>", sorted[i]->name, type_text(sorted[i]->type));
        printf("  %-22s - %s\n", name, sorted[i]->help);
    }
}

bool img_create_help(const char *format, const char *filename, struct error **errp)
{
    const struct block_create_option *known = block_image_create_options(format, errp);

    if (!known) {
        return false;
    }
    if (filename) {
        printf("Supported options:\n");
    } else {
        printf("Supported %s options:\n", format);
    }
    img_print_option_list(known, filename);
    if (!filename) {
        printf("\nThe protocol level may support further options.\n"
               "Specify the target filename to include those options.\n");
    }
    return true;
}

struct options *img_parse_creation(const char *list, struct error **errp)
{
    return list ? options_parse(list, NULL, errp) : options_new();
}

/* ---- "Formatting …" -------------------------------------------------------------------------- */

/* As the option's type has it: sizes in bytes, booleans as on and off. */
static char *value_text(const struct block_create_option *option, const char *text)
{
    uint64_t number;
    bool on;

    switch (option->type) {
    case BLOCK_OPTION_SIZE:
        if (parse_size(text, 1, &number)) {
            return xasprintf("%" PRIu64, number);
        }
        break;
    case BLOCK_OPTION_BOOL:
        if (parse_bool(text, &on)) {
            return xstrdup(on ? "on" : "off");
        }
        break;
    case BLOCK_OPTION_STRING:
    case BLOCK_OPTION_UINT:
        break;
    }
    return xstrdup(text);
}

/* So that the list could be given to -o. */
static void print_doubling_commas(const char *text)
{
    for (; *text; text++) {
        fputs(*text == ',' ? ",," : (const char[]){*text, 0}, stdout);
    }
}

static void print_formatting(const char *filename, const char *format, struct options *opts,
                             const struct block_create_option *known)
{
    printf("Formatting '%s', fmt=%s", filename, format);
    for (; known->name; known++) {
        const char *text = options_get(opts, known->name);
        text = text ? text : known->default_text;
        if (text) {
            autofree char *value = value_text(known, text);
            printf(" %s=", known->name);
            print_doubling_commas(value);
        }
    }
    putchar('\n');
    tool_flush_output();
}

/* ---- sizes and backing files ----------------------------------------------------------------- */

static bool set_size(struct options *opts, const char *filename, const char *text,
                     struct error **errp)
{
    uint64_t size;

    if (!tool_parse_size(text, "image size", 0, INT64_MAX, &size, errp)) {
        return false;
    }
    if (options_has(opts, "size")) {
        error_set(errp, "%s: The image size must be specified only once", filename);
        return false;
    }
    autofree char *number = xasprintf("%" PRIu64, size);
    options_set(opts, "size", number);
    return true;
}

static bool has_option(const struct block_create_option *known, const char *name)
{
    for (; known->name; known++) {
        if (!strcmp(known->name, name)) {
            return true;
        }
    }
    return false;
}

bool img_set_backing(struct options *opts, const char *format, const char *backing,
                     const char *backing_format, struct error **errp)
{
    const struct block_create_option *known = block_image_create_options(format, errp);

    if (!known) {
        return false;
    }
    if (backing && !has_option(known, "backing_file")) {
        error_set(errp, "Backing file not supported for file format '%s'", format);
        return false;
    }
    if (backing_format && !has_option(known, "backing_fmt")) {
        error_set(errp, "Backing format not supported for file format '%s'", format);
        return false;
    }
    if (backing) {
        options_set(opts, "backing_file", backing);
    }
    if (backing_format) {
        options_set(opts, "backing_fmt", backing_format);
    }
    if (!options_has(opts, "backing_file") && options_has(opts, "backing_fmt")) {
        error_set(errp, "Backing format cannot be used without backing file");
        return false;
    }
    return true;
}

/* Looks into the backing file before anything is said: it must be there, and without a size the new
 * image has its size. */
static bool look_at_backing(struct options *opts, const char *filename, struct error **errp)
{
    const char *backing = options_get(opts, "backing_file");
    const char *format = options_get(opts, "backing_fmt");

    if (!backing) {
        return true;
    }
    autofree char *path = block_image_backing_path(filename, backing, errp);
    if (!path) {
        return false;
    }
    struct block_node *node =
        block_image_open_node(&(struct block_image_how){.filename = path,
                                                        .format = format,
                                                        .flags = BLOCK_OPEN_FORCE_SHARE},
                              errp);
    if (!node) {
        error_add_hint(errp, "Could not open backing image.");
        return false;
    }
    if (!format) {
        error_set(errp, "Backing file specified without backing format");
        error_add_hint(errp, "Detected format of %s.", node->driver->name);
    } else if (!options_has(opts, "size")) {
        autofree char *number = xasprintf("%" PRIu64, block_length(node));
        options_set(opts, "size", number);
    }
    block_node_unref(node);
    return format != NULL;
}

/* ---- the command ----------------------------------------------------------------------------- */

static bool check_names(const struct options *opts, const struct block_create_option *known,
                        struct error **errp)
{
    for (size_t i = 0; i < options_count(opts); i++) {
        if (!has_option(known, options_key(opts, i))) {
            error_set(errp, "Invalid parameter '%s'", options_key(opts, i));
            return false;
        }
    }
    return true;
}

static bool make(const struct create *create, const char *filename, struct options *opts,
                 struct error **errp)
{
    const char *format = create->common.format ? create->common.format : "raw";
    const struct block_create_option *known = block_image_create_options(format, errp);
    const char *backing = create->backing;

    if (!known || !check_names(opts, known, errp)) {
        return false;
    }
    if (backing && !*backing) {
        error_set(errp, "Expected backing file name, got empty string");
        return false;
    }
    if (!img_set_backing(opts, format, backing, create->backing_format, errp)) {
        return false;
    }
    if (!create->unsafe && !look_at_backing(opts, filename, errp)) {
        return false;
    }
    if (options_has(opts, "size") && !create->common.quiet) {
        print_formatting(filename, format, opts, known);
    }
    return block_image_create(filename, format, opts,
                              create->unsafe ? BLOCK_CREATE_NO_BACKING_CHECK : 0, errp);
}

static int run(void *fields, int count, char **operands, struct error **errp)
{
    struct create *create = fields;
    const char *format = create->common.format ? create->common.format : "raw";

    if (img_wants_help(create->creation)) {
        img_create_help(format, count ? operands[0] : NULL, errp);
        return EXIT_SUCCESS;
    }
    if (count < 1) {
        tool_usage_error(errp, "Expecting image file name");
        return EXIT_FAILURE;
    }
    if (count > 2) {
        tool_usage_error(errp, "Unexpected argument: %s", operands[2]);
        return EXIT_FAILURE;
    }
    struct options *opts = img_parse_creation(create->creation, errp);
    if (opts && (count < 2 || set_size(opts, operands[0], operands[1], errp)) &&
        !make(create, operands[0], opts, errp)) {
        error_prepend(errp, "%s: ", operands[0]);
    }
    options_free(opts);
    return EXIT_SUCCESS;
}

static void release(void *fields)
{
    free(((struct create *)fields)->creation);
}

static const struct tool_option options[] = {
    {'f', NULL, TOOL_STRING, IMG_FIELD(format), "FMT", "format of the new image (raw)"},
    {'o', NULL, TOOL_APPEND, offsetof(struct create, creation), "OPTIONS",
     "options of the format: NAME=VALUE,…; 'help' lists them"},
    {'b', NULL, TOOL_STRING, offsetof(struct create, backing), "FILE", "backing file"},
    {'F', NULL, TOOL_STRING, offsetof(struct create, backing_format), "FMT",
     "format of the backing file"},
    {'u', NULL, TOOL_FLAG, offsetof(struct create, unsafe), NULL,
     "do not look whether the backing file can be opened"},
    IMG_OPTION_QUIET,
    IMG_OPTION_OBJECT,
    {0},
};

const struct img_command img_create = {
    .name = "create",
    .operands = "FILE [SIZE]",
    .summary = "makes an empty image; without SIZE as large as its backing file",
    .options = options,
    .fields_size = sizeof(struct create),
    .run = run,
    .release = release,
};
