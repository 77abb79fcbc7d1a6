/* SPDX-License-Identifier: MIT */
/* ferry-img dd: a part of an image into a new one, all of it as data. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "base/range.h"
#include "tools/common/signals.h"
#include "tools/common/tool.h"
#include "tools/img/convert.h"
#include "tools/img/img.h"

#define CHUNK (2 * MiB) /* bytes of one request; bs= counts, it does not slow down */

struct dd {
    struct img_common common;
    const char *out_format, *input, *output;
    uint64_t block_size, count, skip;
    bool has_count, has_skip;
    struct copy copy;
};

/* ---- operands -------------------------------------------------------------------------------- */

static bool parse_operand(struct dd *dd, const char *operand, struct error **errp)
{
    const char *value = strchr(operand, '=');
    autofree char *name = xstrndup(operand, value ? (size_t)(value - operand) : strlen(operand));

    if (value && !strcmp(name, "if")) {
        dd->input = value + 1;
    } else if (value && !strcmp(name, "of")) {
        dd->output = value + 1;
    } else if (value && !strcmp(name, "bs")) {
        return tool_parse_size(value + 1, "bs", 1, INT_MAX, &dd->block_size, errp);
    } else if (value && !strcmp(name, "count")) {
        dd->has_count = true;
        return tool_parse_size(value + 1, "count", 0, INT64_MAX, &dd->count, errp);
    } else if (value && !strcmp(name, "skip")) {
        dd->has_skip = true;
        return tool_parse_size(value + 1, "skip", 0, INT64_MAX, &dd->skip, errp);
    } else {
        error_set(errp, "unrecognized operand %s", name);
        return false;
    }
    return true;
}

static bool parse(struct dd *dd, int count, char **operands, struct error **errp)
{
    dd->block_size = 512;
    for (int i = 0; i < count; i++) {
        if (!parse_operand(dd, operands[i], errp)) {
            return false;
        }
    }
    if (!dd->input || !dd->output) {
        error_set(errp, "Must specify both input and output files");
        return false;
    }
    return true;
}

/* What is copied of `length` bytes. */
static void choose_range(struct dd *dd, uint64_t length, uint64_t *offset, uint64_t *size)
{
    *offset = 0;
    *size = length;
    if (dd->has_skip) {
        if (__builtin_mul_overflow(dd->skip, dd->block_size, offset) || *offset > length) {
            log_error("%s: cannot skip to specified offset", dd->input);
            *offset = length;
        }
        *size = length - *offset;
    }
    uint64_t wanted;
    if (dd->has_count && !__builtin_mul_overflow(dd->count, dd->block_size, &wanted)) {
        *size = MIN(*size, wanted);
    }
}

/* ---- the command ----------------------------------------------------------------------------- */

static bool make_target(struct dd *dd, const char *format, uint64_t size, struct error **errp)
{
    struct options *opts = options_new();
    autofree char *text = xasprintf("%" PRIu64, size);

    options_set(opts, "size", text);
    bool ok = block_image_create(dd->output, format, opts, 0, errp);
    if (!ok) {
        error_prepend(errp, "%s: error while creating output image of type %s: ", dd->output,
                      format);
    }
    options_free(opts);
    return ok;
}

static bool copy_range(struct dd *dd, struct block_backend *from, struct block_backend *to,
                       uint64_t offset, uint64_t size, struct error **errp)
{
    struct copy_source source = {.be = from, .length = size, .offset = offset};

    dd->copy = (struct copy){
        .sources = &source,
        .source_count = 1,
        .target = to,
        .total = size,
        .unit = MAX(512u, backend_root(to)->limits.request_alignment),
        .chunk = CHUNK,
        .writes_holes = true,
        .workers = 4,
    };
    progress_start(&dd->copy.progress, false, true, size);
    copy_run(&dd->copy);
    if (dd->copy.interrupted) {
        error_set(errp, "Interrupted by a signal");
    } else if (dd->copy.ret < 0) {
        error_set_errno(errp, -dd->copy.ret,
                        dd->copy.failed_reading ? "error while reading from input image file"
                                                : "error while writing to output image file");
    }
    return dd->copy.ret == 0;
}

static int co_flush(void *opaque)
{
    return backend_co_flush(opaque, 0);
}

static bool dd_images(struct dd *dd, struct block_backend *from, struct error **errp)
{
    const char *format = dd->out_format ? dd->out_format : "raw";
    uint64_t offset, size;

    choose_range(dd, backend_length(from), &offset, &size);
    bool is_new = img_is_new(dd->output);
    signals_catch();
    if (!make_target(dd, format, size, errp)) {
        return false;
    }
    struct block_backend *to = img_open(
        &(struct img_open){
            .filename = dd->output, .format = format, .writable = true, .flags = BLOCK_OPEN_UNMAP},
        errp);
    if (!to) {
        return false;
    }
    bool ok = copy_range(dd, from, to, offset, size, errp);
    int ret = ok ? block_run(co_flush, to) : 0;
    if (ret < 0) {
        error_set_errno(errp, -ret, "error while writing to output image file");
    }
    block_image_close(to);
    if (!ok || ret < 0) {
        img_clean_up(dd->output, is_new, errp);
    }
    return ok && ret == 0;
}

static int run(void *fields, int count, char **operands, struct error **errp)
{
    struct dd *dd = fields;

    if (!parse(dd, count, operands, errp)) {
        return EXIT_FAILURE;
    }
    if (dd->out_format && !block_driver_find(dd->out_format)) {
        error_set(errp, "Unknown file format '%s'", dd->out_format);
        return EXIT_FAILURE;
    }
    struct block_backend *from = img_open(
        &(struct img_open){
            .filename = dd->input,
            .format = dd->common.format,
            .image_opts = dd->common.image_opts,
            .flags = dd->common.force_share ? BLOCK_OPEN_FORCE_SHARE : 0,
        },
        errp);
    if (!from) {
        return EXIT_FAILURE;
    }
    bool ok = dd_images(dd, from, errp);
    block_image_close(from);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

static const struct tool_option options[] = {
    {'f', NULL, TOOL_STRING, IMG_FIELD(format), "FMT", "format of the input"},
    {'O', NULL, TOOL_STRING, offsetof(struct dd, out_format), "FMT", "format of the output (raw)"},
    IMG_OPTION_IMAGE_OPTS,
    IMG_OPTION_SHARE,
    IMG_OPTION_OBJECT,
    {0},
};

const struct img_command img_dd = {
    .name = "dd",
    .operands = "[bs=SIZE] [count=BLOCKS] [skip=BLOCKS] if=FILE of=FILE",
    .summary = "copies a part of an image into a new one; blocks are of 512 bytes or bs=",
    .options = options,
    .fields_size = sizeof(struct dd),
    .run = run,
};
