/* SPDX-License-Identifier: MIT */
/* See qcow2_try.h. */
#include "qcow2_try.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "block/image.h"
#include "block/iov.h"
#include "block/qcow2/format.h"

#define PAGE       16384u
#define HOLE       (256 * MiB)
#define ROOM       (64 * MiB) /* that writes may make the file longer by */
#define MAX_PIECE  (64 * KiB)
#define MAX_LISTED 16u /* snapshots that are looked into */

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);                \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* ---- the file --------------------------------------------------------------------------------- */

/* Pages of it, as they are written. */
static struct {
    const uint8_t *bytes;
    size_t size;
    uint64_t length, limit;
    uint8_t **pages;
    uint64_t writes;
} file;

static void file_set(const uint8_t *bytes, size_t size, bool is_long)
{
    file.bytes = bytes;
    file.size = size;
    file.length = align_up(size, 512) + (is_long ? HOLE : 0);
    file.limit = file.length + ROOM;
    file.pages = xcalloc(file.limit / PAGE + 1, sizeof(*file.pages));
}

static void file_clear(void)
{
    for (uint64_t i = 0; i <= file.limit / PAGE; i++) {
        free(file.pages[i]);
    }
    free(file.pages);
    file.pages = NULL;
}

/* What the page had before anything was written. */
static void first_contents(uint64_t page, uint8_t *to)
{
    uint64_t at = page * PAGE, there = at < file.size ? MIN(file.size - at, PAGE) : 0;

    memcpy(to, file.bytes + (there ? at : 0), there);
    memset(to + there, 0, PAGE - there);
}

static int file_co_preadv(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                          unsigned flags, uint64_t id)
{
    uint8_t page[PAGE];

    for (uint64_t done = 0; done < iov->size;) {
        uint64_t at = offset + done, n = MIN(PAGE - at % PAGE, iov->size - done);
        uint8_t *written = file.pages[at / PAGE];
        if (!written) {
            first_contents(at / PAGE, page);
        }
        block_iov_write(iov, done, (written ? written : page) + at % PAGE, n);
        done += n;
    }
    return 0;
}

static uint8_t *page_to_write(uint64_t index)
{
    if (!file.pages[index]) {
        file.pages[index] = xmalloc(PAGE);
        first_contents(index, file.pages[index]);
    }
    return file.pages[index];
}

static int file_co_pwritev(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                           unsigned flags, uint64_t id)
{
    file.writes++;
    if (!range_fits(offset, iov->size, file.limit)) {
        return -ENOSPC;
    }
    for (uint64_t done = 0; done < iov->size;) {
        uint64_t at = offset + done, n = MIN(PAGE - at % PAGE, iov->size - done);
        block_iov_read(iov, done, page_to_write(at / PAGE) + at % PAGE, n);
        done += n;
    }
    file.length = MAX(file.length, offset + iov->size);
    return 0;
}

static int file_co_block_status(struct block_node *node, uint64_t offset, uint64_t *length,
                                uint64_t *map)
{
    bool is_hole = offset >= file.size && !file.pages[offset / PAGE];
    uint64_t end = (offset / PAGE + 1) * PAGE;

    while (end < offset + *length && is_hole && !file.pages[end / PAGE]) {
        end += PAGE;
    }
    *length = MIN(*length, end - offset);
    *map = offset;
    return is_hole ? BLOCK_STATUS_ZERO : BLOCK_STATUS_DATA | BLOCK_STATUS_OFFSET_VALID;
}

static int file_co_flush(struct block_node *node, uint64_t id)
{
    return 0;
}

static bool file_open(struct block_node *node, struct options *opts, struct error **errp)
{
    free(node->filename);
    node->filename = xstrdup("bytes");
    return true;
}

static int64_t file_length(struct block_node *node)
{
    return (int64_t)file.length;
}

static bool file_allow_growth(struct block_node *node)
{
    return true;
}

static const struct block_driver driver = {
    .name = "bytes",
    .is_protocol = true,
    .open = file_open,
    .length = file_length,
    .allow_growth = file_allow_growth,
    .co_preadv = file_co_preadv,
    .co_pwritev = file_co_pwritev,
    .co_flush = file_co_flush,
    .co_block_status = file_co_block_status,
};

/* ---- what is done ----------------------------------------------------------------------------- */

static struct block_backend *open_it(bool writable, unsigned flags)
{
    struct block_image_how how = {
        .filename = "driver=qcow2,file.driver=bytes",
        .image_opts = true,
        .writable = writable,
        .flags = flags | BLOCK_OPEN_NO_BACKING,
        .user = "try",
    };
    struct error *err = NULL;
    struct block_backend *be = block_image_open(&how, &err);

    MUST(!be == !!err);
    error_free(err);
    return be;
}

struct request {
    struct block_backend *be;
    bool is_write;
    uint64_t offset;
    size_t size;
};

static int co_request(void *opaque)
{
    struct request *r = opaque;
    void *buffer = xcalloc(1, r->size);
    struct iovec vec;
    struct block_iov iov = block_iov_of(&vec, buffer, r->size);
    int ret = r->is_write ? backend_co_pwritev(r->be, r->offset, &iov, 0, 0)
                          : backend_co_preadv(r->be, r->offset, &iov, 0, 0);

    free(buffer);
    return ret;
}

static int co_status(void *opaque)
{
    struct request *r = opaque;
    uint64_t length = backend_length(r->be), map;

    return block_co_status(backend_root(r->be), 0, &length, &map);
}

/* Some places of the disk: what comes of it is not said. */
static void touch(struct block_backend *be, bool is_write)
{
    uint64_t length = backend_length(be), steps = 12;

    for (uint64_t i = 0; i < steps && length; i++) {
        uint64_t offset = i < 8 ? i * MAX_PIECE : length / steps * i;
        if (offset >= length) {
            break;
        }
        struct request r = {be, is_write, offset, MIN(MAX_PIECE, length - offset)};
        block_run(co_request, &r);
    }
    struct request r = {.be = be};
    block_run(co_status, &r);
}

static void say(void *opaque, const char *line)
{
    uint64_t *lines = opaque;

    MUST(*line && !strchr(line, '\n'));
    ++*lines;
}

static bool check(unsigned fix, struct block_check_result *result)
{
    struct block_backend *be = open_it(fix, BLOCK_OPEN_CHECK);
    struct error *err = NULL;
    uint64_t lines = 0;

    if (!be) {
        return false;
    }
    struct block_node *node = backend_root(be);
    bool done = node->driver->image->check(node, fix, result, say, &lines, &err);
    MUST(done == !err);
    MUST(!done || !result->corruptions || fix || lines);
    error_free(err);
    block_image_close(be);
    return done;
}

/* Lists the snapshots and reads from each. */
static void look_at_snapshots(void)
{
    size_t count = 1;

    for (size_t i = 0; i < count && i < MAX_LISTED; i++) {
        struct block_backend *be = open_it(false, 0);
        struct block_snapshot *list;
        if (!be) {
            return;
        }
        struct block_node *node = backend_root(be);
        count = node->driver->image->snapshot_list(node, &list);
        if (i < count && node->driver->image->snapshot_load(
                             node, &(struct block_snapshot_key){.id = list[i].id}, NULL)) {
            touch(be, false);
        }
        block_snapshots_free(list, count);
        block_image_close(be);
    }
}

static void change_snapshots(void)
{
    struct block_backend *be = open_it(true, 0);

    if (!be) {
        return;
    }
    struct block_node *node = backend_root(be);
    const struct block_image_ops *ops = node->driver->image;
    char name[] = "new";
    struct block_snapshot snapshot = {.name = name};
    bool made = ops->snapshot_create(node, &snapshot, NULL);
    touch(be, true);
    if (made) {
        ops->snapshot_apply(node, name, NULL);
        touch(be, false);
        ops->snapshot_delete(node, name, NULL);
    }
    block_image_close(be);
}

void qcow2_try(const uint8_t *bytes, size_t size, bool is_long)
{
    struct block_check_result before, after;

    block_driver_set_test(&driver);
    file_set(bytes, size, is_long);
    file.writes = 0;
    struct block_backend *be = open_it(false, 0);
    if (be) {
        touch(be, false);
        block_image_close(be);
    }
    look_at_snapshots();
    bool checked = check(0, &before);
    MUST(!file.writes); /* nothing of that changes the file */

    if (checked && check(BLOCK_CHECK_FIX_LEAKS | BLOCK_CHECK_FIX_ERRORS, &after)) {
        /* What it says is what another check finds. */
        MUST(check(0, &before));
        MUST(before.corruptions == after.corruptions && before.leaks == after.leaks);
    }
    change_snapshots();
    file_clear();

    /* The same without a repair before. */
    file_set(bytes, size, is_long);
    change_snapshots();
    file_clear();
    block_driver_set_test(NULL);
}
