/* SPDX-License-Identifier: MIT */
/* ferry-img compare: whether a guest sees the same in two images. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "aio/coroutine.h"
#include "base/alloc.h"
#include "base/range.h"
#include "tools/common/progress.h"
#include "tools/common/tool.h"
#include "tools/img/data.h"
#include "tools/img/img.h"

#define CHUNK   (1 * MiB) /* bytes of each image that a coroutine holds */
#define WORKERS 4
#define SECTOR  512u

/* Of the process, beside EXIT_SUCCESS: the same, and EXIT_FAILURE: not. */
enum { STATUS_NOT_OPENED = 2, STATUS_NO_STATUS = 3, STATUS_NOT_READ = 4 };

struct compare {
    struct img_common common;
    const char *second_format, *cache;
    bool strict;
    /* by the coroutines, one loop */
    struct block_backend *images[2];
    struct co_mutex next_lock;
    uint64_t next, end; /* bytes */
    uint64_t mismatch;  /* the lowest offset, UINT64_MAX: none */
    bool status_differs;
    int ret;             /* the first error */
    bool failed_reading; /* else it was asking for the status */
    uint64_t failed_at;
    int failed_image;
    struct progress progress;
};

struct piece {
    uint64_t offset, length;
    bool is_zero[2];
};

/* ---- what is next ---------------------------------------------------------------------------- */

static void fail(struct compare *c, int image, int ret, bool reading, uint64_t offset)
{
    if (!c->ret) {
        c->ret = ret;
        c->failed_reading = reading;
        c->failed_at = offset;
        c->failed_image = image;
    }
}

static void set_mismatch(struct compare *c, uint64_t offset, bool is_status)
{
    if (offset < c->mismatch) {
        c->mismatch = offset;
        c->status_differs = is_status;
    }
}

/* Status of one image at `offset`, *length cut to it; behind the end are zeroes. */
static int co_status(struct compare *c, int image, uint64_t offset, uint64_t *length)
{
    struct block_node *node = backend_root(c->images[image]);
    uint64_t map;

    if (offset >= block_length(node)) {
        return BLOCK_STATUS_ZERO;
    }
    int status = block_co_status_above(node, NULL, offset, length, &map, NULL, NULL);
    if (status < 0) {
        fail(c, image, status, false, offset);
    }
    return status;
}

/* The next piece that must be read. */
static bool co_next_locked(struct compare *c, struct piece *piece)
{
    const int compared = BLOCK_STATUS_DATA | BLOCK_STATUS_ZERO | BLOCK_STATUS_ALLOCATED |
                         BLOCK_STATUS_OFFSET_VALID | BLOCK_STATUS_COMPRESSED;

    while (c->next < c->end && c->next < c->mismatch && !c->ret) {
        uint64_t offset = c->next, length = c->end - offset;
        int status[2];
        for (int i = 0; i < 2; i++) {
            status[i] = co_status(c, i, offset, &length);
            if (status[i] < 0) {
                return false;
            }
        }
        bool in_both = offset < MIN(backend_length(c->images[0]), backend_length(c->images[1]));
        if (c->strict && in_both && (status[0] ^ status[1]) & compared) {
            set_mismatch(c, offset, true);
            return false;
        }
        *piece = (struct piece){.offset = offset};
        for (int i = 0; i < 2; i++) {
            piece->is_zero[i] = (status[i] & BLOCK_STATUS_ZERO) != 0;
        }
        if (piece->is_zero[0] && piece->is_zero[1]) {
            c->next += length;
            progress_add(&c->progress, length);
            continue;
        }
        piece->length = MIN(length, CHUNK);
        c->next += piece->length;
        return true;
    }
    return false;
}

static bool co_next(struct compare *c, struct piece *piece)
{
    co_mutex_lock(&c->next_lock);
    bool found = co_next_locked(c, piece);
    co_mutex_unlock(&c->next_lock);
    return found;
}

/* ---- looking --------------------------------------------------------------------------------- */

static bool co_read(struct compare *c, int image, const struct piece *piece, void *to)
{
    int ret = data_co_read_padded(c->images[image], piece->offset, to, piece->length);

    if (ret < 0) {
        fail(c, image, ret, true, piece->offset);
    }
    return ret == 0;
}

static size_t first_nonzero(const unsigned char *data, size_t size)
{
    size_t i = 0;

    while (i < size && data_is_zero(data + i, MIN(SECTOR, size - i))) {
        i += SECTOR;
    }
    return MIN(i, size);
}

static void co_compare(void *opaque)
{
    struct compare *c = opaque;
    unsigned char *buffers[2] = {xaligned_alloc(4096, CHUNK), xaligned_alloc(4096, CHUNK)};
    struct piece piece;

    while (co_next(c, &piece)) {
        size_t equal = piece.length;
        if ((!piece.is_zero[0] && !co_read(c, 0, &piece, buffers[0])) ||
            (!piece.is_zero[1] && !co_read(c, 1, &piece, buffers[1]))) {
            break;
        }
        if (piece.is_zero[0] || piece.is_zero[1]) {
            unsigned char *other = buffers[piece.is_zero[0] ? 1 : 0];
            equal = data_is_zero(other, piece.length) ? piece.length
                                                      : first_nonzero(other, piece.length);
        } else {
            equal = data_first_difference(buffers[0], buffers[1], piece.length);
        }
        if (equal < piece.length) {
            set_mismatch(c, align_down(piece.offset + equal, SECTOR), false);
        }
        progress_add(&c->progress, piece.length);
    }
    free(buffers[0]);
    free(buffers[1]);
}

/* False: there is a mismatch below `end`, or an error. */
static bool compare_up_to(struct compare *c, uint64_t end)
{
    c->end = end;
    data_run_workers(WORKERS, co_compare, c);
    return !c->ret && c->mismatch == UINT64_MAX;
}

/* ---- the command ----------------------------------------------------------------------------- */

static int report(struct compare *c, char **names, struct error **errp)
{
    if (c->ret) {
        error_set_errno(errp, -c->ret, "Error while %s at offset %" PRIu64 " of %s",
                        c->failed_reading ? "reading" : "querying block status", c->failed_at,
                        names[c->failed_image]);
        return c->failed_reading ? STATUS_NOT_READ : STATUS_NO_STATUS;
    }
    if (!c->common.quiet) {
        printf(c->status_differs ? "Strict mode: Offset %" PRIu64 " block status mismatch!\n"
                                 : "Content mismatch at offset %" PRIu64 "!\n",
               c->mismatch);
    }
    return EXIT_FAILURE;
}

static int compare_images(struct compare *c, char **names, struct error **errp)
{
    uint64_t sizes[2] = {backend_length(c->images[0]), backend_length(c->images[1])};

    if (c->strict && sizes[0] != sizes[1]) {
        if (!c->common.quiet) {
            printf("Strict mode: Image size mismatch!\n");
        }
        return EXIT_FAILURE;
    }
    c->mismatch = UINT64_MAX;
    progress_start(&c->progress, c->common.progress, true, MAX(sizes[0], sizes[1]));
    co_mutex_init(&c->next_lock);
    bool same = compare_up_to(c, MIN(sizes[0], sizes[1]));
    if (same && sizes[0] != sizes[1]) {
        if (!c->common.quiet) {
            printf("Warning: Image size mismatch!\n");
        }
        same = compare_up_to(c, MAX(sizes[0], sizes[1]));
    }
    co_mutex_destroy(&c->next_lock);
    if (same && !c->common.quiet) {
        printf("Images are identical.\n");
    }
    int status = same ? EXIT_SUCCESS : report(c, names, errp);
    progress_end(&c->progress, false);
    return status;
}

static int run(void *fields, int count, char **operands, struct error **errp)
{
    struct compare *c = fields;
    int status = STATUS_NOT_OPENED;

    if (count != 2) {
        tool_usage_error(errp, "Expecting two image file names");
        return EXIT_FAILURE;
    }
    if (!tool_check_cache(c->cache, "source cache", errp)) {
        return STATUS_NOT_OPENED;
    }
    for (int i = 0; i < 2; i++) {
        c->images[i] = img_open(
            &(struct img_open){
                .filename = operands[i],
                .format = i ? c->second_format : c->common.format,
                .image_opts = c->common.image_opts,
                .cache = c->cache,
                .flags = c->common.force_share ? BLOCK_OPEN_FORCE_SHARE : 0,
            },
            errp);
        if (!c->images[i]) {
            break;
        }
    }
    if (c->images[1]) {
        status = compare_images(c, operands, errp);
    }
    for (int i = 0; i < 2; i++) {
        if (c->images[i]) {
            block_image_close(c->images[i]);
        }
    }
    return status;
}

static const struct tool_option options[] = {
    {'f', NULL, TOOL_STRING, IMG_FIELD(format), "FMT", "format of the first image"},
    {'F', NULL, TOOL_STRING, offsetof(struct compare, second_format), "FMT",
     "format of the second image"},
    {'s', NULL, TOOL_FLAG, offsetof(struct compare, strict), NULL,
     "sizes and allocation must be the same, too"},
    {'T', NULL, TOOL_STRING, offsetof(struct compare, cache), "CACHE", "cache mode (writeback)"},
    IMG_OPTION_IMAGE_OPTS,
    IMG_OPTION_SHARE,
    IMG_OPTION_PROGRESS,
    IMG_OPTION_QUIET,
    IMG_OPTION_OBJECT,
    {0},
};

const struct img_command img_compare = {
    .name = "compare",
    .operands = "FILE1 FILE2",
    .summary = "says whether two images have the same contents: status 0 yes, 1 no, more an error",
    .options = options,
    .fields_size = sizeof(struct compare),
    .run = run,
};
