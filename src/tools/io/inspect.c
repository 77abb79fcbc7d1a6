/* SPDX-License-Identifier: MIT */
/* length, info, map, alloc, truncate. See io_tool.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/range.h"
#include "block/image.h"
#include "tools/common/json_text.h"
#include "tools/io/io_tool.h"

bool io_length(struct io_session *s, int argc, char **argv)
{
    char text[IO_SIZE_TEXT];

    printf("%s\n", io_size_text((double)backend_length(s->be), text));
    return true;
}

/* Where the VM state of a snapshot would begin: behind what the L1 tables of the image can cover. */
static uint64_t vm_state_offset(const struct block_image_info *info)
{
    const json_t *data = json_object_get(info->specific, "data");
    bool is_extended = json_is_true(json_object_get(data, "extended-l2"));
    uint64_t entries = info->cluster_size / (is_extended ? 16 : 8);
    uint64_t covered = entries * info->cluster_size; /* by one L1 entry */

    return info->cluster_size ? align_up(info->virtual_size, covered) : 0;
}

bool io_info(struct io_session *s, int argc, char **argv)
{
    struct block_node *node = backend_root(s->be);
    char text[IO_SIZE_TEXT];
    struct block_image_info info;

    block_image_info(node, &info);
    printf("format name: %s\n", node->driver->name);
    if (!info.has_details) { /* an error to qemu-io, too, that says nothing */
        block_image_info_free(&info);
        return false;
    }
    printf("cluster size: %s\n", io_size_text((double)info.cluster_size, text));
    printf("vm state offset: %s\n", io_size_text((double)vm_state_offset(&info), text));
    const json_t *data = json_object_get(info.specific, "data");
    if (json_object_size(data)) {
        printf("Format specific information:\n");
        tool_print_members(data, 1);
    }
    block_image_info_free(&info);
    return true;
}

/* ---- allocation ------------------------------------------------------------------------------ */

struct extent {
    struct block_backend *be;
    uint64_t offset, length;
    bool is_allocated; /* in the image itself, not in its backing */
};

/* The first extent of [offset, offset + length): alike to its end. */
static int co_extent(void *opaque)
{
    struct extent *extent = opaque;
    uint64_t end = extent->offset + extent->length, at = extent->offset;

    while (at < end) {
        uint64_t length = end - at, map;
        unsigned depth;
        int status = backend_co_status(extent->be, at, &length, &map, NULL, &depth);
        if (status < 0) {
            return status;
        }
        bool is_allocated = status & BLOCK_STATUS_ALLOCATED && depth == 0;
        if (!length || (at > extent->offset && is_allocated != extent->is_allocated)) {
            break;
        }
        extent->is_allocated = is_allocated;
        at += length;
    }
    extent->length = at - extent->offset;
    return 0;
}

static bool find_extent(struct extent *extent)
{
    int ret = block_run(co_extent, extent);

    if (ret < 0) {
        printf("block status failed at offset %" PRIu64 ": %s\n", extent->offset, strerror(-ret));
    }
    return ret >= 0;
}

bool io_map(struct io_session *s, int argc, char **argv)
{
    uint64_t total = backend_length(s->be);
    char size[IO_SIZE_TEXT], offset[IO_SIZE_TEXT];

    for (uint64_t at = 0; at < total;) {
        struct extent extent = {.be = s->be, .offset = at, .length = total - at};
        if (!find_extent(&extent)) {
            return false;
        }
        if (!extent.length) {
            printf("Unexpected end of image\n");
            return false;
        }
        printf("%s (0x%" PRIx64 ") bytes %s allocated at offset %s (0x%" PRIx64 ")\n",
               io_size_text((double)extent.length, size), extent.length,
               extent.is_allocated ? "   " : "not", io_size_text((double)at, offset), at);
        at += extent.length;
    }
    return true;
}

bool io_alloc(struct io_session *s, int argc, char **argv)
{
    uint64_t start, count = 512, allocated = 0, total = backend_length(s->be);
    char text[IO_SIZE_TEXT];

    if (!io_parse_number(argv[1], &start) || (argc == 3 && !io_parse_number(argv[2], &count))) {
        return false;
    }
    count = MIN(count, total - MIN(start, total));
    for (uint64_t done = 0; done < count;) {
        struct extent extent = {.be = s->be, .offset = start + done, .length = count - done};
        if (!find_extent(&extent)) {
            return false;
        }
        if (!extent.length) {
            break;
        }
        allocated += extent.is_allocated ? extent.length : 0;
        done += extent.length;
    }
    printf("%" PRIu64 "/%" PRIu64 " bytes allocated at offset %s\n", allocated, count,
           io_size_text((double)start, text));
    return true;
}

/* ---- truncate -------------------------------------------------------------------------------- */

struct truncation {
    struct block_node *node;
    uint64_t length;
    enum block_prealloc prealloc;
    struct error *err;
};

static int co_truncate(void *opaque)
{
    struct truncation *t = opaque;

    return block_co_truncate(t->node, t->length, t->prealloc, &t->err);
}

static bool parse_prealloc(const char *text, enum block_prealloc *prealloc)
{
    for (int i = 0; block_prealloc_names[i]; i++) {
        if (!strcmp(text, block_prealloc_names[i])) {
            *prealloc = (enum block_prealloc)i;
            return true;
        }
    }
    log_error("Invalid preallocation mode '%s'", text);
    return false;
}

bool io_truncate(struct io_session *s, int argc, char **argv)
{
    struct truncation t = {.node = backend_root(s->be), .prealloc = BLOCK_PREALLOC_OFF};
    int c;

    while ((c = io_getopt(argc, argv, "m:")) != -1) {
        if (c != 'm' || !parse_prealloc(optarg, &t.prealloc)) {
            return false;
        }
    }
    if (optind >= argc) {
        return io_usage(argv[0]);
    }
    if (!io_parse_number(argv[optind], &t.length)) {
        return false;
    }
    block_node_drain_begin(t.node);
    int ret = block_run(co_truncate, &t);
    block_node_drain_end(t.node);
    if (ret < 0) {
        error_report(t.err);
    }
    return ret >= 0;
}
