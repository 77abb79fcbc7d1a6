/* SPDX-License-Identifier: MIT */
/*
 * Long reads with structured replies: where the image is known to read as zeroes, nothing is read
 * and a hole is told ("Structured replies", NBD_REPLY_TYPE_OFFSET_HOLE).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/range.h"
#include "block/iov.h"
#include "nbd/connection.h"

#define PIECES_MAX 64
#define HOLE_MIN   (16 * KiB) /* shorter ones are read with what is around them */
#define HEAD_SIZE  (NBD_CHUNK_SIZE + 8 + 4)

struct piece {
    uint32_t offset, length; /* from the request's offset on */
    bool is_hole;
};

/* True if the bytes from `at` on are known to be data; *length is cut to as many as are. */
static bool is_known_data(struct nbd_export *export, uint64_t at, uint64_t *length)
{
    uint64_t end = atomic_load(&export->data_end);

    if (at < atomic_load(&export->data_begin) || at >= end) {
        return false;
    }
    *length = MIN(*length, end - at);
    return true;
}

/* Whether the bytes from `at` on are zeroes; as many as are alike, at most *length. Finding the end of
 * data may take the host longer than reading it (SEEK_HOLE goes on far beyond the request), so what was
 * found is remembered. */
static bool co_is_hole(struct nbd_export *export, uint64_t at, uint64_t *length)
{
    uint64_t found = export->size - at;
    uint32_t flags = 0;

    if (is_known_data(export, at, length)) {
        return false;
    }
    co_mutex_lock(&export->look_lock);
    if (!is_known_data(export, at, length) &&
        nbd_co_status_at(export, at, &found, &flags, NULL) == 0) {
        if (!(flags & NBD_STATE_ZERO)) {
            atomic_store(&export->data_begin, at);
            atomic_store(&export->data_end, at + found);
        }
        *length = MIN(*length, found);
    }
    co_mutex_unlock(&export->look_lock);
    return flags & NBD_STATE_ZERO;
}

/* Pieces that cover the request; how many. What there is no room for is data. */
static unsigned co_find_pieces(struct nbd_request *r, struct piece *pieces)
{
    unsigned count = 0;

    for (uint32_t done = 0; done < r->length;) {
        uint64_t length = r->length - done;
        bool is_hole =
            count < PIECES_MAX - 1 && co_is_hole(r->conn->export, r->offset + done, &length);
        is_hole = is_hole && length >= HOLE_MIN;
        if (count && pieces[count - 1].is_hole == is_hole) {
            pieces[count - 1].length += (uint32_t)length;
        } else {
            pieces[count++] =
                (struct piece){.offset = done, .length = (uint32_t)length, .is_hole = is_hole};
        }
        done += (uint32_t)length;
    }
    return count;
}

static int co_read_piece(struct nbd_request *r, const struct piece *piece)
{
    const struct nbd_export *export = r->conn->export;
    struct iovec vec;
    struct block_iov iov = block_iov_of(&vec, r->buffer + piece->offset, piece->length);

    return backend_co_preadv(export->be, export->offset + r->offset + piece->offset, &iov, 0, 0);
}

static void add_chunk(struct nbd_request *r, const struct piece *piece, uint8_t *head, bool is_last)
{
    unsigned flags = is_last ? NBD_CHUNK_DONE : 0;

    store_be64(head + NBD_CHUNK_SIZE, r->offset + piece->offset);
    if (piece->is_hole) {
        nbd_chunk_head(head, r, flags, NBD_CHUNK_OFFSET_HOLE, 8 + 4);
        store_be32(head + NBD_CHUNK_SIZE + 8, piece->length);
        r->iov[r->niov++] = (struct iovec){.iov_base = head, .iov_len = NBD_CHUNK_SIZE + 8 + 4};
    } else {
        nbd_chunk_head(head, r, flags, NBD_CHUNK_OFFSET_DATA, 8 + piece->length);
        r->iov[r->niov++] = (struct iovec){.iov_base = head, .iov_len = NBD_CHUNK_SIZE + 8};
        r->iov[r->niov++] =
            (struct iovec){.iov_base = r->buffer + piece->offset, .iov_len = piece->length};
    }
}

void nbd_co_read_sparse(struct nbd_request *r)
{
    struct piece pieces[PIECES_MAX];
    unsigned count = co_find_pieces(r, pieces);
    int ret = 0;

    for (unsigned i = 0; i < count && ret == 0; i++) {
        if (!pieces[i].is_hole) {
            ret = co_read_piece(r, &pieces[i]);
        }
    }
    if (ret == 0 && count == 1 && !pieces[0].is_hole) {
        nbd_reply_data(r);
        return;
    }
    struct iovec *iov = ret == 0 ? calloc(2 * count, sizeof(*iov)) : NULL;
    r->extra = iov ? malloc(count * HEAD_SIZE) : NULL;
    if (!r->extra) {
        free(iov);
        ret = ret ? ret : -ENOMEM;
        nbd_reply_simple(r, nbd_error_of(ret), strerror(-ret));
        return;
    }
    r->iov = iov;
    for (unsigned i = 0; i < count; i++) {
        add_chunk(r, &pieces[i], (uint8_t *)r->extra + i * HEAD_SIZE, i + 1 == count);
    }
    nbd_reply_send(r);
}
