/* SPDX-License-Identifier: MIT */
/*
 * NBD_CMD_BLOCK_STATUS: for each metadata context that the client chose a list of extents, from the
 * request's offset on. Each list may end before the request does; all cover at least one extent.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/range.h"
#include "nbd/connection.h"

#define EXTENT_SIZE 8 /* length, flags */
/* A request asks the image so often, at most; what looks alike counts as one extent of the reply. */
#define LOOKUPS_MAX (4 * NBD_MAX_EXTENTS)

int nbd_co_status_at(struct nbd_export *export, uint64_t offset, uint64_t *length,
                     uint32_t *allocation, uint32_t *depth)
{
    uint64_t map;
    unsigned level = 0;
    int status = backend_co_status(export->be, export->offset + offset, length, &map, NULL, &level);

    if (status < 0) {
        return status;
    }
    if (*length == 0) {
        return -EIO; /* the image has become shorter */
    }
    if (allocation) {
        *allocation = (status & BLOCK_STATUS_DATA ? 0 : NBD_STATE_HOLE) |
                      (status & BLOCK_STATUS_ZERO ? NBD_STATE_ZERO : 0);
    }
    if (depth) {
        *depth = status & BLOCK_STATUS_ALLOCATED ? level + 1 : 0;
    }
    return 0;
}

static void store_last(struct nbd_extents *list)
{
    uint8_t *at = list->at + (size_t)(list->count - 1) * EXTENT_SIZE;

    store_be32(at, (uint32_t)list->last_length);
    store_be32(at + 4, list->last_flags);
}

bool nbd_add_extent(struct nbd_extents *list, uint64_t length, uint32_t flags)
{
    const uint64_t longest = UINT32_MAX - (64 * KiB - 1);

    if (list->count && list->last_flags == flags && list->last_length + length <= longest) {
        list->last_length += length;
        store_last(list);
        return true;
    }
    while (length > 0) {
        if (list->count == list->max) {
            return false;
        }
        list->count++;
        list->last_length = MIN(length, longest);
        list->last_flags = flags;
        store_last(list);
        length -= list->last_length;
    }
    return true;
}

static int co_add_status(struct nbd_request *r, uint32_t context, struct nbd_extents *list)
{
    uint64_t offset = r->offset, end = r->offset + r->length;

    for (unsigned n = 0; offset < end && n < LOOKUPS_MAX; n++) {
        uint64_t length = end - offset;
        uint32_t allocation, depth;
        int ret = nbd_co_status_at(r->conn->export, offset, &length, &allocation, &depth);
        if (ret < 0) {
            return list->count ? 0 : ret; /* the client asks again from there */
        }
        if (!nbd_add_extent(list, length, context == NBD_CONTEXT_DEPTH ? depth : allocation)) {
            break;
        }
        offset += length;
    }
    return 0;
}

#define HEAD_SIZE (NBD_CHUNK_SIZE + 4) /* of a list: chunk, context */

/* Of each context, where all of them share NBD_MAX_EXTENTS. */
static unsigned max_extents_of(const struct nbd_connection *conn)
{
    return MAX(1u, NBD_MAX_EXTENTS / conn->contexts.count);
}

uint32_t nbd_status_memory(const struct nbd_connection *conn)
{
    return conn->contexts.count * (HEAD_SIZE + max_extents_of(conn) * EXTENT_SIZE);
}

/* Room for the replies to r: list after list. */
static bool prepare(struct nbd_request *r)
{
    const unsigned count = r->conn->contexts.count;

    r->extra = malloc(nbd_status_memory(r->conn));
    r->iov = calloc(count, sizeof(*r->iov));
    return r->extra && r->iov;
}

static int co_fill(struct nbd_request *r, uint32_t context, unsigned max_extents)
{
    const struct nbd_contexts *contexts = &r->conn->contexts;
    uint8_t *at =
        (uint8_t *)r->extra + (size_t)r->niov * (HEAD_SIZE + (size_t)max_extents * EXTENT_SIZE);
    struct nbd_extents list = {
        .at = at + HEAD_SIZE,
        .max = r->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : max_extents,
    };
    int ret = 0;

    if (context < NBD_CONTEXT_BITMAP) {
        ret = co_add_status(r, context, &list);
    } else {
        nbd_add_dirty(r, r->conn->export->bitmaps[context - NBD_CONTEXT_BITMAP], &list);
    }
    if (ret < 0) {
        return ret;
    }
    uint32_t size = list.count * EXTENT_SIZE;
    bool is_last = r->niov + 1 == (int)contexts->count;
    nbd_chunk_head(at, r, is_last ? NBD_CHUNK_DONE : 0, NBD_CHUNK_BLOCK_STATUS, 4 + size);
    store_be32(at + NBD_CHUNK_SIZE, context);
    r->iov[r->niov++] = (struct iovec){.iov_base = at, .iov_len = HEAD_SIZE + size};
    return 0;
}

static bool is_chosen(const struct nbd_contexts *contexts, uint32_t context)
{
    return context < NBD_CONTEXT_BITMAP ? contexts->is_chosen[context]
                                        : contexts->bitmaps[context - NBD_CONTEXT_BITMAP];
}

void nbd_co_block_status(struct nbd_request *r)
{
    const struct nbd_contexts *contexts = &r->conn->contexts;
    unsigned max_extents = max_extents_of(r->conn);
    uint32_t all =
        NBD_CONTEXT_BITMAP + (contexts->bitmaps ? (uint32_t)r->conn->export->bitmap_count : 0);
    int ret = prepare(r) ? 0 : -ENOMEM;

    for (uint32_t context = 0; context < all && ret == 0; context++) {
        if (is_chosen(contexts, context)) {
            ret = co_fill(r, context, max_extents);
        }
    }
    if (ret < 0) {
        if (r->iov != r->own) {
            free(r->iov);
            r->iov = r->own;
        }
        nbd_reply_simple(r, nbd_error_of(ret), strerror(-ret));
        return;
    }
    nbd_reply_send(r);
}
