/* SPDX-License-Identifier: MIT */
/*
 * raw: the bytes of the child, or a window of them (offset=, size=).
 *
 *   node:   0 |--------------- length ----------------|
 *   child:  0 ......... offset |----------------------| ...... length of the child
 *
 * With an offset that is no multiple of a sector, the last sector ends behind the child, if a write to
 * it can make that longer. What is not there yet reads as zeroes.
 *
 * Requests pass straight through: no copy, no lock, no alignment of its own. Only a node whose
 * format was guessed looks at writes to its first sector (probe.h): such a write is copied before
 * it is looked at, for its buffers are guest memory that may change at any time.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/options.h"
#include "base/range.h"
#include "block/debug.h"
#include "block/drivers.h"
#include "block/iov.h"
#include "block/node.h"
#include "block/probe.h"

#define SECTOR 512

struct raw_state {
    uint64_t offset; /* bytes; constant */
    bool has_size;   /* given by option; constant */
    uint64_t size;   /* bytes; changes with nothing in flight */
};

/* The length without size=: whole sectors of what is there. */
static uint64_t window_size(const struct block_node *node, uint64_t total, uint64_t offset)
{
    const struct block_node *file = node->file;
    bool grows = node->flags & BLOCK_OPEN_RDWR ? file->grows : file->driver->allow_growth != NULL;

    return grows ? align_up(total - offset, SECTOR) : align_down(total - offset, SECTOR);
}

static bool raw_open(struct block_node *node, struct options *opts, struct error **errp)
{
    struct raw_state *s = node->state;

    s->has_size = options_has(opts, "size");
    if (!options_get_size(opts, "offset", 1, &s->offset, errp) ||
        !options_get_size(opts, "size", 1, &s->size, errp) ||
        !block_node_open_child(node, opts, "file", BLOCK_CHILD_FILE, errp)) {
        return false;
    }
    free(node->filename);
    node->filename = xstrdup(node->file->filename);

    uint64_t total = block_length(node->file);
    if (!block_node_check_length(node->file, errp)) {
        return false;
    }
    if (s->offset > total) {
        error_set(errp,
                  "offset=%" PRIu64 " lies behind the end of '%s', which has %" PRIu64 " bytes",
                  s->offset, node->filename, total);
        return false;
    }
    if (s->has_size && (!s->size || s->size % SECTOR)) {
        error_set(errp, "size=%" PRIu64 " is not a positive multiple of %d", s->size, SECTOR);
        return false;
    }
    if (!s->has_size) {
        s->size = window_size(node, total, s->offset);
    } else if (!range_fits(s->offset, s->size, total)) {
        error_set(errp,
                  "offset=%" PRIu64 " and size=%" PRIu64 " do not fit into '%s', which has %" PRIu64
                  " bytes",
                  s->offset, s->size, node->filename, total);
        return false;
    }
    return true;
}

/* A writable child is there already. */
static bool raw_reopen(struct block_node *node, unsigned flags, struct error **errp)
{
    return !(flags & BLOCK_OPEN_RDWR) || block_node_check_length(node->file, errp);
}

static int64_t raw_length(struct block_node *node)
{
    return ((struct raw_state *)node->state)->size;
}

static bool raw_allow_growth(struct block_node *node)
{
    const struct raw_state *s = node->state;

    return !s->has_size && block_node_allow_growth(node->file);
}

static int raw_co_truncate(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
                           struct error **errp)
{
    struct raw_state *s = node->state;

    if (s->has_size) {
        error_set(errp,
                  "Cannot resize fixed-size raw disks: '%s' was opened with size=", node->filename);
        return -ENOTSUP;
    }
    if (!raw_check_prealloc(prealloc, errp)) {
        return -ENOTSUP;
    }
    if (length > (uint64_t)INT64_MAX - s->offset) {
        error_set(errp, "A length of %" PRIu64 " bytes is too much", length);
        return -EFBIG;
    }
    int ret = block_co_truncate(node->file, s->offset + length, prealloc, errp);
    if (ret == 0) {
        /* A host file may end within a sector: it is seen as if that were whole, now as when it is
         * opened again. */
        s->size = window_size(node, block_length(node->file), s->offset);
    }
    return ret;
}

static void raw_limits(struct block_node *node, struct block_limits *limits)
{
    const struct raw_state *s = node->state;
    uint32_t zeroes = node->file->limits.write_zeroes_alignment;

    /* So that a write to the first sector always comes as a whole. */
    if (node->flags & BLOCK_OPEN_PROBED) {
        limits->request_alignment = SECTOR;
    }
    if (!(s->offset & (zeroes - 1))) {
        limits->write_zeroes_alignment = zeroes;
    }
}

/* How much of a range of the node the child has: all, but at the end. */
static uint64_t bytes_in_child(const struct block_node *node, uint64_t offset, uint64_t length)
{
    const struct raw_state *s = node->state;
    uint64_t total = block_length(node->file), begin = s->offset + offset;

    return begin >= total ? 0 : MIN(length, total - begin);
}

static int raw_co_preadv(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                         unsigned flags, uint64_t id)
{
    const struct raw_state *s = node->state;

    block_debug_event(node->file, BLOCK_EVENT_READ_AIO);
    return block_co_preadv_padded(node->file, s->offset + offset, iov, flags, id);
}

/* A write that begins in the first sector of a probed image. */
static int raw_co_write_probed(struct block_node *node, const struct block_iov *iov, unsigned flags,
                               uint64_t id)
{
    const struct raw_state *s = node->state;
    _Alignas(SECTOR) char sector[SECTOR];
    int ret = -ENOMEM;

    block_iov_read(iov, 0, sector, SECTOR);
    if (strcmp(block_probe_format(sector), "raw")) {
        return -EPERM;
    }
    struct iovec *vec = calloc(iov->niov + 1, sizeof(*vec));
    if (vec) {
        int niov;
        block_iov_slice(iov, SECTOR, iov->size - SECTOR, vec + 1, iov->niov, &niov);
        vec[0] = (struct iovec){.iov_base = sector, .iov_len = SECTOR};
        struct block_iov checked = {.iov = vec, .niov = niov + 1, .size = iov->size};
        ret = block_co_pwritev(node->file, s->offset, &checked, flags, id);
    }
    free(vec);
    return ret;
}

static int raw_co_pwritev(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                          unsigned flags, uint64_t id)
{
    const struct raw_state *s = node->state;

    block_debug_event(node->file, BLOCK_EVENT_WRITE_AIO);
    if (offset < SECTOR && node->flags & BLOCK_OPEN_PROBED) {
        return raw_co_write_probed(node, iov, flags, id);
    }
    return block_co_pwritev(node->file, s->offset + offset, iov, flags, id);
}

static int raw_co_discard(struct block_node *node, uint64_t offset, uint64_t length)
{
    const struct raw_state *s = node->state;

    length = bytes_in_child(node, offset, length);
    return length ? block_co_discard(node->file, s->offset + offset, length) : 0;
}

static int raw_co_write_zeroes(struct block_node *node, uint64_t offset, uint64_t length,
                               unsigned flags)
{
    const struct raw_state *s = node->state;

    return block_co_write_zeroes(node->file, s->offset + offset, length, flags);
}

/* A raw node has no backing file: what its file takes from one is in no node that a chain shows. */
static int raw_co_block_status(struct block_node *node, uint64_t offset, uint64_t *length,
                               uint64_t *map)
{
    const struct raw_state *s = node->state;

    if (!bytes_in_child(node, offset, *length)) {
        *map = 0;
        return BLOCK_STATUS_ZERO | BLOCK_STATUS_ALLOCATED;
    }
    int status = block_co_status(node->file, s->offset + offset, length, map);
    if (status < 0 || status & (BLOCK_STATUS_EOF | BLOCK_STATUS_ALLOCATED)) {
        return status;
    }
    status = block_co_status_above(node->file, NULL, s->offset + offset, length, map, NULL, NULL);
    if (status < 0) {
        return status;
    }
    *map = 0; /* not a place in node->file */
    return status & (BLOCK_STATUS_ZERO | BLOCK_STATUS_DATA);
}

static const struct node_option options[] = {
    {"offset", NODE_OPTION_SIZE, true},
    {"size", NODE_OPTION_SIZE, true},
    {"file", NODE_OPTION_CHILD},
    {NULL},
};

const struct block_driver block_driver_raw = {
    .name = "raw",
    .help = "the bytes of the file as they are; offset=, size=",
    .state_size = sizeof(struct raw_state),
    .options = options,
    .supported_flags = BLOCK_REQ_FUA,
    .image = &raw_image_ops,
    .open = raw_open,
    .reopen = raw_reopen,
    .limits = raw_limits,
    .length = raw_length,
    .allow_growth = raw_allow_growth,
    .co_truncate = raw_co_truncate,
    .co_preadv = raw_co_preadv,
    .co_pwritev = raw_co_pwritev,
    .co_discard = raw_co_discard,
    .co_write_zeroes = raw_co_write_zeroes,
    .co_block_status = raw_co_block_status,
};
