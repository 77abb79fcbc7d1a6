/* SPDX-License-Identifier: MIT */
/* ferry-img bench: how long a number of requests take. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "aio/coroutine.h"
#include "base/alloc.h"
#include "base/options.h"
#include "base/range.h"
#include "tools/common/tool.h"
#include "tools/img/data.h"
#include "tools/img/img.h"

#define DEFAULT_COUNT 75000
#define DEFAULT_DEPTH 64
#define DEFAULT_SIZE  4096
#define MAX_DEPTH     65536
#define MAX_BUFFERS   (2 * GiB) /* bytes, all together */

struct bench {
    struct img_common common;
    const char *aio, *cache, *count_text, *depth_text, *flush_text, *offset_text, *pattern_text;
    const char *size_text, *step_text;
    bool native, no_drain, write;
    /* constant while it runs */
    struct block_backend *be;
    uint64_t count, depth, flush_interval, offset, size, step, length, pattern;
    /* by the coroutines, one loop */
    uint64_t taken, next_offset;
    unsigned in_flight;
    bool flush_due; /* nobody begins until those in flight are done and flushed */
    struct co_queue flushed;
    int ret; /* the first error */
};

/* ---- the requests ---------------------------------------------------------------------------- */

/* One of --flush-interval. With draining it begins when the last request has come back. */
static void co_flush(struct bench *b)
{
    int ret = backend_co_flush(b->be, 0);

    b->ret = b->ret ? b->ret : ret;
}

static void co_end_request(struct bench *b, bool flushes)
{
    b->in_flight--;
    if (b->no_drain) {
        if (flushes) {
            co_flush(b);
        }
    } else if (b->flush_due && !b->in_flight) {
        co_flush(b);
        b->flush_due = false;
        co_queue_wake_all(&b->flushed);
    }
}

static uint64_t take_offset(struct bench *b)
{
    uint64_t offset = b->next_offset;

    b->next_offset += b->step;
    if (b->next_offset >= b->length) {
        b->next_offset = b->length ? b->next_offset % b->length : 0;
    }
    return offset;
}

static void co_requests(void *opaque)
{
    struct bench *b = opaque;
    unsigned char *buffer = xaligned_alloc(4096, MAX(b->size, 1));

    memset(buffer, b->write ? (int)b->pattern : 0, b->size);
    while (b->taken < b->count && !b->ret) {
        if (b->flush_due) {
            co_queue_wait(&b->flushed, NULL);
            continue;
        }
        uint64_t offset = take_offset(b);
        b->taken++;
        bool flushes = b->flush_interval && b->taken % b->flush_interval == 0;
        b->flush_due = flushes && !b->no_drain;
        b->in_flight++;
        int ret = b->write ? data_co_write(b->be, offset, buffer, b->size, 0)
                           : data_co_read(b->be, offset, buffer, b->size);
        if (ret < 0) {
            b->ret = b->ret ? b->ret : ret;
        }
        co_end_request(b, flushes);
    }
    free(buffer);
}

/* ---- the command line ------------------------------------------------------------------------ */

static bool parse_count(const char *text, const char *what, uint64_t min, uint64_t max,
                        uint64_t *value, struct error **errp)
{
    if (!text || (parse_uint(text, value) && *value >= min && *value <= max)) {
        return true;
    }
    error_set(errp, "Invalid %s specified", what);
    return false;
}

static bool parse_bytes(const char *text, const char *what, uint64_t max, uint64_t *value,
                        struct error **errp)
{
    return !text || tool_parse_size(text, what, 0, max, value, errp);
}

static bool choose_aio(struct bench *b, struct error **errp)
{
    if (b->native && !b->aio) {
        b->aio = "native";
    }
    return tool_check_aio(b->aio, errp);
}

static bool parse(struct bench *b, int count, struct error **errp)
{
    b->count = DEFAULT_COUNT;
    b->depth = DEFAULT_DEPTH;
    b->size = DEFAULT_SIZE;
    if (!parse_count(b->count_text, "request count", 0, INT_MAX, &b->count, errp) ||
        !parse_count(b->depth_text, "queue depth", 1, MAX_DEPTH, &b->depth, errp) ||
        !parse_count(b->flush_text, "flush interval", 0, INT_MAX, &b->flush_interval, errp) ||
        !parse_count(b->pattern_text, "pattern byte", 0, 255, &b->pattern, errp) ||
        !parse_bytes(b->offset_text, "offset", INT64_MAX, &b->offset, errp) ||
        !parse_bytes(b->size_text, "buffer size", INT_MAX, &b->size, errp) ||
        !parse_bytes(b->step_text, "step_size", INT_MAX, &b->step, errp) || !choose_aio(b, errp)) {
        return false;
    }
    if (!tool_check_cache(b->cache, "cache mode", NULL)) {
        error_set(errp, "Invalid cache mode");
        return false;
    }
    if (count != 1) {
        tool_usage_error(errp, "Expecting one image file name");
        return false;
    }
    if (!b->write && b->flush_interval) {
        error_set(errp, "--flush-interval is only available in write tests");
        return false;
    }
    if (b->flush_interval && b->flush_interval < b->depth) {
        error_set(errp, "Flush interval can't be smaller than depth");
        return false;
    }
    if (b->size > MAX_BUFFERS / b->depth) {
        error_set(errp,
                  "%" PRIu64 " buffers of %" PRIu64 " bytes are more than 2 GiB; use a "
                  "smaller -s or -d",
                  b->depth, b->size);
        return false;
    }
    b->step = b->step ? b->step : b->size;
    return true;
}

/* ---- the command ----------------------------------------------------------------------------- */

static bool bench(struct bench *b, struct error **errp)
{
    printf("Sending %" PRIu64 " %s requests, %" PRIu64 " bytes each, %" PRIu64
           " in parallel (starting at offset %" PRIu64 ", step size %" PRIu64 ")\n",
           b->count, b->write ? "write" : "read", b->size, b->depth, b->offset, b->step);
    if (b->flush_interval) {
        printf("Sending flush every %" PRIu64 " requests\n", b->flush_interval);
    }
    tool_flush_output();
    b->length = backend_length(b->be);
    b->next_offset = b->offset;
    co_queue_init(&b->flushed);
    int64_t start = clock_get_ns(AIO_CLOCK_RT);
    data_run_workers((unsigned)MIN(b->depth, MAX(b->count, 1)), co_requests, b);
    int64_t end = clock_get_ns(AIO_CLOCK_RT);
    co_queue_destroy(&b->flushed);
    if (b->ret < 0) {
        error_set(errp, "Failed request: %s", strerror(-b->ret));
        return false;
    }
    printf("Run completed in %3.3f seconds.\n", (double)(end - start) / (double)NS_PER_SEC);
    return true;
}

static int run(void *fields, int count, char **operands, struct error **errp)
{
    struct bench *b = fields;

    if (!parse(b, count, errp)) {
        return EXIT_FAILURE;
    }
    b->be = img_open(
        &(struct img_open){
            .filename = operands[0],
            .format = b->common.format,
            .image_opts = b->common.image_opts,
            .cache = b->cache,
            .aio = b->aio,
            .writable = b->write,
            .flags = b->common.force_share ? BLOCK_OPEN_FORCE_SHARE : 0,
        },
        errp);
    if (!b->be) {
        return EXIT_FAILURE;
    }
    bool ok = bench(b, errp);
    block_image_close(b->be);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

#define FIELD(member) offsetof(struct bench, member)

static const struct tool_option options[] = {
    IMG_OPTION_FORMAT,
    {'c', NULL, TOOL_STRING, FIELD(count_text), "COUNT", "number of requests (75000)"},
    {'d', NULL, TOOL_STRING, FIELD(depth_text), "DEPTH", "how many are on their way at once (64)"},
    {'s', NULL, TOOL_STRING, FIELD(size_text), "SIZE", "bytes of a request (4096)"},
    {'S', NULL, TOOL_STRING, FIELD(step_text), "STEP",
     "bytes from the start of one to that of the next (SIZE)"},
    {'o', NULL, TOOL_STRING, FIELD(offset_text), "OFFSET", "where the first one starts (0)"},
    {'w', NULL, TOOL_FLAG, FIELD(write), NULL, "write, not read"},
    {0, "pattern", TOOL_STRING, FIELD(pattern_text), "BYTE", "what is written (0)"},
    {0, "flush-interval", TOOL_STRING, FIELD(flush_text), "COUNT", "flush after so many writes"},
    {0, "no-drain", TOOL_FLAG, FIELD(no_drain), NULL, "others go on while it flushes"},
    {'i', NULL, TOOL_STRING, FIELD(aio), "AIO", "threads, io_uring or native (as io_uring)"},
    {'n', NULL, TOOL_FLAG, FIELD(native), NULL, "as -i native"},
    {'t', NULL, TOOL_STRING, FIELD(cache), "CACHE", "cache mode (writeback)"},
    IMG_OPTION_IMAGE_OPTS,
    IMG_OPTION_SHARE,
    IMG_OPTION_QUIET,
    IMG_OPTION_OBJECT,
    {0},
};

const struct img_command img_bench = {
    .name = "bench",
    .operands = "FILE",
    .summary = "measures how long requests to an image take",
    .options = options,
    .fields_size = sizeof(struct bench),
    .run = run,
};
