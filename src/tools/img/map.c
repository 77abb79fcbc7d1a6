/* SPDX-License-Identifier: MIT */
/* ferry-img map: where in which file of a backing chain an image's data is. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "tools/common/tool.h"
#include "tools/img/img.h"

struct map {
    struct img_common common;
    const char *start_text, *length_text;
    struct block_node *node;
    uint64_t start, end; /* bytes */
    bool json;
    int ret;
    uint64_t failed_at;
    bool is_unmapped; /* for people: data that has no place in a file */
};

/* A part of the image that is alike. */
struct extent {
    uint64_t start, length, offset;
    unsigned depth;
    bool present, is_zero, is_data, has_offset, is_compressed;
    const char *filename; /* where the data is, or NULL */
};

/* ---- finding out ----------------------------------------------------------------------------- */

/* The file that offsets of the node count in. */
static const char *data_filename(const struct block_node *node)
{
    for (const struct block_link *link = node->children; link; link = link->next_child) {
        if (link->role == BLOCK_CHILD_DATA) {
            return link->node->filename;
        }
    }
    return node->file ? node->file->filename : node->filename;
}

static unsigned chain_depth(struct block_node *node)
{
    unsigned depth = 0;

    for (node = block_node_skip_filters(node); node->backing;
         node = block_node_skip_filters(node->backing)) {
        depth++;
    }
    return depth;
}

static int co_look(const struct map *map, uint64_t offset, struct extent *extent)
{
    struct block_node *owner;
    unsigned depth;
    uint64_t length = map->end - offset, at;
    int status = block_co_status_above(map->node, NULL, offset, &length, &at, &owner, &depth);

    if (status < 0) {
        return status;
    }
    *extent = (struct extent){
        .start = offset,
        .length = length,
        .offset = at,
        .depth = depth,
        .present = (status & BLOCK_STATUS_ALLOCATED) != 0,
        .is_zero = (status & BLOCK_STATUS_ZERO) != 0,
        /* As QEMU, no data that no image of the chain has. */
        .is_data = status & BLOCK_STATUS_DATA && status & BLOCK_STATUS_ALLOCATED,
        .has_offset = (status & BLOCK_STATUS_OFFSET_VALID) != 0,
        .is_compressed = (status & BLOCK_STATUS_COMPRESSED) != 0,
    };
    if (!extent->present) {
        extent->depth = chain_depth(map->node);
    } else if (owner && offset >= block_length(owner)) {
        /* Behind the end of a backing file that is shorter. */
        extent->present = false;
        extent->depth = depth - 1;
    } else if (owner) {
        extent->filename = data_filename(owner);
    }
    return 0;
}

static bool continues(const struct extent *a, const struct extent *b)
{
    return a->present == b->present && a->is_zero == b->is_zero && a->is_data == b->is_data &&
           a->depth == b->depth && a->has_offset == b->has_offset &&
           a->is_compressed == b->is_compressed && a->filename == b->filename &&
           (!a->has_offset || a->offset + a->length == b->offset);
}

/* ---- printing -------------------------------------------------------------------------------- */

static const char *truth(bool value)
{
    return value ? "true" : "false";
}

static void print_json(const struct map *map, const struct extent *e, bool is_last)
{
    printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64 ", \"depth\": %u, \"present\": %s, "
           "\"zero\": %s, \"data\": %s",
           e->start == map->start ? "[" : "", e->start, e->length, e->depth, truth(e->present),
           truth(e->is_zero), truth(e->is_data));
    if (e->has_offset) {
        printf(", \"offset\": %" PRIu64, e->offset);
    }
    printf(is_last ? "}]\n" : "},\n");
}

/* False: it has no place that could be told. */
static bool print_human(const struct extent *e)
{
    if (!e->is_data || e->is_zero) {
        return true;
    }
    if (!e->has_offset) {
        return false;
    }
    printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64 "%s\n", e->start, e->length, e->offset,
           e->filename ? e->filename : "");
    return true;
}

static bool print(struct map *map, const struct extent *extent, bool is_last)
{
    if (map->json) {
        print_json(map, extent, is_last);
    } else if (!print_human(extent)) {
        map->is_unmapped = true;
        return false;
    }
    return true;
}

static int co_map(void *opaque)
{
    struct map *map = opaque;
    struct extent now = {.start = map->start}, next;
    uint64_t offset = map->start;

    while (offset < map->end) {
        int ret = co_look(map, offset, &next);
        if (ret < 0) {
            map->failed_at = offset;
            return ret;
        }
        if (!next.length) {
            break;
        }
        offset += next.length;
        if (!now.length) {
            now = next;
        } else if (continues(&now, &next)) {
            now.length += next.length;
        } else {
            if (!print(map, &now, false)) {
                return 0;
            }
            now = next;
        }
    }
    print(map, &now, true);
    return 0;
}

/* ---- the command ----------------------------------------------------------------------------- */

static bool parse(struct map *map, uint64_t *length, int count, struct error **errp)
{
    *length = UINT64_MAX;
    if (!img_parse_output(&map->common, &map->json, errp)) {
        return false;
    }
    if (map->start_text &&
        !tool_parse_size(map->start_text, "start offset", 0, INT64_MAX, &map->start, errp)) {
        return false;
    }
    if (map->length_text &&
        !tool_parse_size(map->length_text, "max length", 0, INT64_MAX, length, errp)) {
        return false;
    }
    if (count != 1) {
        tool_usage_error(errp, "Expecting one image file name");
        return false;
    }
    return true;
}

static int run(void *fields, int count, char **operands, struct error **errp)
{
    struct map *map = fields;
    uint64_t length;

    if (!parse(map, &length, count, errp)) {
        return EXIT_FAILURE;
    }
    struct block_backend *be = img_open(
        &(struct img_open){
            .filename = operands[0],
            .format = map->common.format,
            .image_opts = map->common.image_opts,
            .flags = map->common.force_share ? BLOCK_OPEN_FORCE_SHARE : 0,
        },
        errp);
    if (!be) {
        return EXIT_FAILURE;
    }
    map->node = backend_root(be);
    map->end = backend_length(be);
    if (map->start < map->end && length < map->end - map->start) {
        map->end = map->start + length;
    }
    if (!map->json) {
        printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    }
    int ret = block_run(co_map, map);
    if (ret < 0) {
        error_set_errno(errp, -ret, "Failed to read image metadata at offset %" PRIu64,
                        map->failed_at);
    } else if (map->is_unmapped) {
        error_set(errp, "File contains external, encrypted or compressed clusters.");
    }
    block_image_close(be);
    return EXIT_SUCCESS;
}

static const struct tool_option options[] = {
    IMG_OPTION_FORMAT,
    IMG_OPTION_IMAGE_OPTS,
    {'s', "start-offset", TOOL_STRING, offsetof(struct map, start_text), "OFFSET",
     "begin there (0)"},
    {'l', "max-length", TOOL_STRING, offsetof(struct map, length_text), "LENGTH",
     "go so far (to the end)"},
    IMG_OPTION_OUTPUT,
    IMG_OPTION_SHARE,
    IMG_OPTION_OBJECT,
    {0},
};

const struct img_command img_map = {
    .name = "map",
    .operands = "FILE",
    .summary = "prints where the data of an image is",
    .options = options,
    .fields_size = sizeof(struct map),
    .run = run,
};
