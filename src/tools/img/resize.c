/* SPDX-License-Identifier: MIT */
/* ferry-img resize: another size of the disk. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/options.h"
#include "base/range.h"
#include "tools/common/tool.h"
#include "tools/img/img.h"

struct resize {
    struct img_common common;
    const char *prealloc_text;
    bool shrink;
    /* of the request */
    struct block_node *node;
    uint64_t size;
    enum block_prealloc prealloc;
    struct error **errp;
};

static int co_truncate(void *opaque)
{
    struct resize *r = opaque;
    int ret = block_co_truncate(r->node, r->size, r->prealloc, r->errp);

    return ret < 0 ? ret : block_co_flush(r->node, 0);
}

static bool parse_prealloc(struct resize *r, struct error **errp)
{
    for (int i = 0; r->prealloc_text && block_prealloc_names[i]; i++) {
        if (!strcmp(r->prealloc_text, block_prealloc_names[i])) {
            r->prealloc = (enum block_prealloc)i;
            return true;
        }
    }
    if (r->prealloc_text) {
        error_set(errp, "Invalid preallocation mode '%s'", r->prealloc_text);
    }
    return !r->prealloc_text;
}

/* "+1G", "-1G", "10G". */
static bool parse_new_size(const char *text, int *sign, uint64_t *bytes, struct error **errp)
{
    *sign = *text == '+' ? 1 : *text == '-' ? -1 : 0;
    if (parse_size(*sign ? text + 1 : text, 1, bytes)) {
        return true;
    }
    error_set(errp, "Parameter 'size' expects a non-negative number below 2^64");
    error_add_hint(errp,
                   "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
                   "and exabytes, respectively.");
    return false;
}

static bool resize(struct resize *r, int sign, uint64_t bytes, struct error **errp)
{
    uint64_t now = block_length(r->node);

    r->size = bytes;
    if ((sign > 0 && !range_fits(now, bytes, INT64_MAX)) || (!sign && bytes > INT64_MAX)) {
        error_set(errp, "The new size is larger than an image can be");
        return false;
    }
    if (sign) {
        r->size = sign > 0 ? now + bytes : now > bytes ? now - bytes : 0;
    }
    if (!r->size) {
        error_set(errp, "New image size must be positive");
        return false;
    }
    if (r->size <= now && r->prealloc != BLOCK_PREALLOC_OFF) {
        error_set(errp, "Preallocation can only be used for growing images");
        return false;
    }
    if (r->size < now && !r->shrink) {
        error_set(errp, "Use the --shrink option to perform a shrink operation.");
        error_add_hint(errp,
                       "%s: warning: Shrinking an image will delete all data beyond the shrunken "
                       "image's end. Before performing such an operation, make sure there is no "
                       "important data there.",
                       tool_name());
        return false;
    }
    r->errp = errp;
    int ret = block_run(co_truncate, r);
    if (ret < 0 && !*errp) {
        error_set_errno(errp, -ret, "Could not resize '%s'", r->node->filename);
    }
    return ret == 0;
}

static int run(void *fields, int count, char **operands, struct error **errp)
{
    struct resize *r = fields;
    uint64_t bytes;
    int sign;

    if (!parse_prealloc(r, errp)) {
        return EXIT_FAILURE;
    }
    if (count != 2) {
        tool_usage_error(errp, "Expecting image file name and size");
        return EXIT_FAILURE;
    }
    if (!parse_new_size(operands[1], &sign, &bytes, errp)) {
        return EXIT_FAILURE;
    }
    struct block_backend *be = img_open(
        &(struct img_open){
            .filename = operands[0],
            .format = r->common.format,
            .image_opts = r->common.image_opts,
            .writable = true,
        },
        errp);
    if (!be) {
        return EXIT_FAILURE;
    }
    img_warn_of_probing(be);
    r->node = backend_root(be);
    bool ok = resize(r, sign, bytes, errp);
    block_image_close(be);
    if (ok && !r->common.quiet) {
        printf("Image resized.\n");
    }
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

static const struct tool_option options[] = {
    IMG_OPTION_FORMAT,
    IMG_OPTION_IMAGE_OPTS,
    {0, "preallocation", TOOL_STRING, offsetof(struct resize, prealloc_text), "MODE",
     "of what is added: off, metadata, falloc or full"},
    {0, "shrink", TOOL_FLAG, offsetof(struct resize, shrink), NULL,
     "allow a smaller size; data behind it is lost"},
    IMG_OPTION_QUIET,
    IMG_OPTION_OBJECT,
    {0},
};

const struct img_command img_resize = {
    .name = "resize",
    .operands = "FILE [+|-]SIZE",
    .summary = "changes the size of the disk; + and - are relative to what it is",
    .options = options,
    .fields_size = sizeof(struct resize),
    .last_is_operand = true,
    .run = run,
};
