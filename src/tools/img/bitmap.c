/* SPDX-License-Identifier: MIT */
/* ferry-img bitmap: persistent dirty bitmaps of an image, one action after the other. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/bitmap.h"
#include "tools/common/tool.h"
#include "tools/img/img.h"

struct action {
    const char *name;   /* "add" … */
    const char *source; /* of merge */
};

struct bitmap {
    struct img_common common;
    const char *source_file, *source_format, *granularity_text;
    struct action *actions;
    size_t action_count;
    uint64_t granularity;
};

static bool add_action(void *fields, const struct tool_option *option, const char *arg,
                       struct error **errp)
{
    struct bitmap *b = fields;

    b->actions = xreallocarray(b->actions, b->action_count + 1, sizeof(*b->actions));
    b->actions[b->action_count++] = (struct action){.name = option->name, .source = arg};
    return true;
}

static bool has_action(const struct bitmap *b, const char *name)
{
    for (size_t i = 0; i < b->action_count; i++) {
        if (!strcmp(b->actions[i].name, name)) {
            return true;
        }
    }
    return false;
}

/* ---- actions --------------------------------------------------------------------------------- */

static struct block_bitmap *find(struct block_node *node, const char *name, struct error **errp)
{
    struct block_bitmap *bitmap = block_bitmap_find(node, name);

    if (!bitmap) {
        error_set(errp, "Dirty bitmap '%s' not found", name);
    }
    return bitmap;
}

static bool is_usable(const struct block_bitmap *bitmap, struct error **errp)
{
    if (bitmap->inconsistent) {
        error_set(errp, "Bitmap '%s' is inconsistent and cannot be used", bitmap->name);
        error_add_hint(errp, "Try '%s bitmap --remove' to delete this bitmap from disk",
                       tool_name());
    }
    return !bitmap->inconsistent;
}

/* As QEMU's: a cluster, within bounds. */
static uint64_t default_granularity(struct block_node *node)
{
    struct block_image_info info;

    block_image_info(node, &info);
    uint64_t size = info.cluster_size ? MAX(info.cluster_size, 4096u) : BLOCK_BITMAP_GRANULARITY;
    block_image_info_free(&info);
    return MIN(size, BLOCK_BITMAP_GRANULARITY);
}

static bool add(const struct bitmap *b, struct block_node *node, const char *name,
                struct error **errp)
{
    uint64_t granularity = b->granularity ? b->granularity : default_granularity(node);

    if (!img_ops(node)->can_keep_bitmap) {
        error_set(errp, "Can't store persistent bitmaps to %s: Operation not supported",
                  node->filename);
        return false;
    }
    if (!is_power_of_2(granularity) || granularity < BLOCK_BITMAP_GRANULARITY_MIN) {
        error_set(errp, "Granularity must be power of 2 and at least %d",
                  BLOCK_BITMAP_GRANULARITY_MIN);
        return false;
    }
    if (granularity > BLOCK_BITMAP_GRANULARITY_MAX) {
        error_set(errp, "Granularity must be at most %u", BLOCK_BITMAP_GRANULARITY_MAX);
        return false;
    }
    if (block_bitmap_find(node, name)) {
        error_set(errp, "Bitmap already exists: %s", name);
        return false;
    }
    if (!img_ops(node)->can_keep_bitmap(node, name, (uint32_t)granularity, errp)) {
        return false;
    }
    struct block_bitmap *bitmap = block_bitmap_new(node, name, (uint32_t)granularity, errp);
    if (bitmap) {
        bitmap->persistent = true;
        bitmap->enabled = true;
    }
    return bitmap;
}

static bool merge(struct block_node *node, struct block_node *source, const char *name,
                  const char *source_name, struct error **errp)
{
    struct block_bitmap *to = find(node, name, errp);
    struct block_bitmap *from = to ? find(source, source_name, errp) : NULL;

    return from && is_usable(to, errp) && is_usable(from, errp) &&
           block_bitmap_merge(to, from, errp);
}

static bool act(const struct bitmap *b, const struct action *action, struct block_node *node,
                struct block_node *source, const char *name, struct error **errp)
{
    if (!strcmp(action->name, "add")) {
        return add(b, node, name, errp);
    }
    if (!strcmp(action->name, "merge")) {
        return merge(node, source, name, action->source, errp);
    }
    struct block_bitmap *bitmap = find(node, name, errp);
    if (!bitmap) {
        return false;
    }
    if (!strcmp(action->name, "remove")) {
        block_bitmap_free(node, bitmap);
        return true;
    }
    if (!is_usable(bitmap, errp)) {
        return false;
    }
    if (!strcmp(action->name, "clear")) {
        block_bitmap_clear(bitmap, 0, bitmap->length);
    } else {
        bitmap->enabled = !strcmp(action->name, "enable");
    }
    return true;
}

static bool act_all(const struct bitmap *b, struct block_node *node, struct block_node *source,
                    const char *name, struct error **errp)
{
    for (size_t i = 0; i < b->action_count; i++) {
        if (!act(b, &b->actions[i], node, source, name, errp)) {
            error_prepend(errp, "Operation %s on bitmap %s failed: ", b->actions[i].name, name);
            return false;
        }
    }
    return img_ops(node)->keep_bitmaps(node, errp);
}

/* ---- the command ----------------------------------------------------------------------------- */

static bool check(struct bitmap *b, int count, struct error **errp)
{
    if (b->granularity_text &&
        !tool_parse_size(b->granularity_text, "granularity", 0, INT64_MAX, &b->granularity, errp)) {
        return false;
    }
    if (count != 2 && b->action_count) {
        error_set(errp, "Expecting filename and bitmap name");
    } else if (!b->action_count) {
        error_set(errp, "Need at least one of --add, --remove, --clear, --enable, --disable, or "
                        "--merge");
    } else if (b->granularity_text && !has_action(b, "add")) {
        error_set(errp, "granularity only supported with --add");
    } else if (b->source_format && !b->source_file) {
        error_set(errp, "-F only supported with -b");
    } else if (b->source_file && !has_action(b, "merge")) {
        error_set(errp, "Merge bitmap source file only supported with --merge");
    }
    return !*errp;
}

static void run_on(const struct bitmap *b, struct block_backend *be, const char *name,
                   struct error **errp)
{
    struct block_node *node = img_format_node(be);
    struct block_backend *other = NULL;

    if (b->source_file) {
        other = img_open(&(struct img_open){.filename = b->source_file, .format = b->source_format},
                         errp);
        if (!other) {
            return;
        }
    }
    act_all(b, node, other ? img_format_node(other) : node, name, errp);
    if (other) {
        block_image_close(other);
    }
}

static int run(void *fields, int count, char **operands, struct error **errp)
{
    struct bitmap *b = fields;

    if (!check(b, count, errp)) {
        return EXIT_FAILURE;
    }
    struct block_backend *be = img_open(
        &(struct img_open){
            .filename = operands[0],
            .format = b->common.format,
            .image_opts = b->common.image_opts,
            .writable = true,
            .flags = BLOCK_OPEN_NO_BACKING,
        },
        errp);
    if (!be) {
        return EXIT_FAILURE;
    }
    img_warn_of_probing(be);
    run_on(b, be, operands[1], errp);
    block_image_close(be);
    return EXIT_SUCCESS;
}

static void release(void *fields)
{
    free(((struct bitmap *)fields)->actions);
}

#define FIELD(member) offsetof(struct bitmap, member)

static const struct tool_option options[] = {
    IMG_OPTION_FORMAT,
    IMG_OPTION_IMAGE_OPTS,
    {0, "add", TOOL_CALL, 0, NULL, "make it, empty", add_action},
    {0, "remove", TOOL_CALL, 0, NULL, "remove it", add_action},
    {0, "clear", TOOL_CALL, 0, NULL, "make it empty", add_action},
    {0, "enable", TOOL_CALL, 0, NULL, "writes set bits from now on", add_action},
    {0, "disable", TOOL_CALL, 0, NULL, "writes do not set bits any more", add_action},
    {0, "merge", TOOL_CALL, 0, "SOURCE", "add the bits of the bitmap SOURCE", add_action},
    {'g', "granularity", TOOL_STRING, FIELD(granularity_text), "SIZE",
     "of --add: bytes that a bit stands for (64k)"},
    {'b', "source-file", TOOL_STRING, FIELD(source_file), "FILE",
     "of --merge: the image that has SOURCE"},
    {'F', "source-format", TOOL_STRING, FIELD(source_format), "FMT", "format of -b"},
    IMG_OPTION_OBJECT,
    {0},
};

const struct img_command img_bitmap = {
    .name = "bitmap",
    .operands = "FILE BITMAP",
    .summary = "makes, removes, changes and merges persistent dirty bitmaps",
    .options = options,
    .fields_size = sizeof(struct bitmap),
    .run = run,
    .release = release,
};
