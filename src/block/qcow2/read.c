/* SPDX-License-Identifier: MIT */
/* Reads. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "block/iov.h"
#include "block/qcow2/qcow2.h"
#include "block/tasks.h"

#define likely(x) __builtin_expect(!!(x), 1)

#define PIECE_IOV 64

/* ---- where the bytes are --------------------------------------------------------------------- */

/* Backing chains are read by recursion, a level being in the frames of the one above: no arrays in
 * any that stays on the stack while the next level reads. */

static int co_read_extent(struct block_node *node, uint64_t offset,
                          const struct qcow2_extent *extent, const struct block_iov *iov,
                          uint64_t id)
{
    switch (extent->kind) {
    case QCOW2_NORMAL:
        block_debug_event(node->file, BLOCK_EVENT_READ_AIO);
        return block_co_preadv_padded(qcow2_of(node)->data_file, extent->host, iov, 0, id);
    case QCOW2_COMPRESSED_DATA:
        return co_qcow2_read_compressed(node, offset, extent->entry, iov);
    case QCOW2_UNALLOCATED:
        if (node->backing) {
            block_debug_event(node->file, BLOCK_EVENT_READ_BACKING_AIO);
            return block_co_preadv_padded(node->backing, offset, iov, 0, id);
        }
        co_block_iov_zero(iov, 0, iov->size);
        return 0;
    case QCOW2_ZERO_PLAIN:
    case QCOW2_ZERO_ALLOC:
        co_block_iov_zero(iov, 0, iov->size);
        return 0;
    case QCOW2_INVALID:
        break;
    }
    return -EIO;
}

/* ---- reads ----------------------------------------------------------------------------------- */

struct read_piece {
    struct block_task task;
    struct block_node *node;
    const struct block_iov *iov; /* of the request */
    uint64_t offset, done, id;   /* guest offset of the request; the piece begins at done */
    struct qcow2_extent extent;
};

static int co_read_piece(struct block_task *task)
{
    struct read_piece *p = (struct read_piece *)task;
    unsigned most = MIN(p->iov->niov, PIECE_IOV);
    autofree struct iovec *vec = xreallocarray(NULL, most, sizeof(*vec));
    int ret = 0;

    while (p->extent.length && ret == 0) {
        struct block_iov piece = {.iov = vec};
        piece.size = block_iov_slice(p->iov, p->done, p->extent.length, vec, most, &piece.niov);
        ret = co_read_extent(p->node, p->offset + p->done, &p->extent, &piece, p->id);
        p->done += piece.size;
        p->extent.host += piece.size;
        p->extent.length -= piece.size;
    }
    return ret;
}

static bool takes_time(const struct block_node *node, const struct qcow2_extent *extent)
{
    return extent->kind == QCOW2_NORMAL || extent->kind == QCOW2_COMPRESSED_DATA ||
           (extent->kind == QCOW2_UNALLOCATED && node->backing);
}

/* More than one extent: side by side, as far as they take time; the last one here. */
static int co_read_pieces(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                          const struct qcow2_extent *first, uint64_t id)
{
    struct read_piece here = {
        .node = node, .iov = iov, .offset = offset, .id = id, .extent = *first};
    struct block_tasks tasks = {0};
    int ret = 0;

    for (uint64_t done = 0; ret == 0 && !tasks.ret;) {
        uint64_t length = here.extent.length;
        if (done) {
            co_share(BLOCK_SHORT); /* each may be done at once */
        }
        here.done = done;
        if (done + length < iov->size && takes_time(node, &here.extent)) {
            struct read_piece *p = xnew(struct read_piece);
            *p = here;
            p->task.co_fn = co_read_piece;
            co_block_tasks_start(&tasks, &p->task);
        } else {
            ret = co_read_piece(&here.task);
        }
        done += length;
        if (done == iov->size || ret < 0) {
            break;
        }
        ret = co_qcow2_map(node, offset + done, iov->size - done, &here.extent);
    }
    int others = co_block_tasks_wait(&tasks);
    return ret < 0 ? ret : others;
}

int co_qcow2_read(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                  uint64_t id)
{
    struct qcow2_extent extent;

    int ret = co_qcow2_map(node, offset, iov->size, &extent);
    if (ret < 0) {
        return ret;
    }
    if (likely(extent.length == iov->size)) {
        return co_read_extent(node, offset, &extent, iov, id);
    }
    return co_read_pieces(node, offset, iov, &extent, id);
}

int qcow2_co_preadv(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                    unsigned flags, uint64_t id)
{
    struct qcow2_state *s = qcow2_of(node);

    unsigned epoch = qcow2_epoch_enter(s);
    int ret = co_qcow2_read(node, offset, iov, id);
    qcow2_epoch_leave(s, epoch);
    if (!likely(ret == 0) && s->corrupt) {
        co_qcow2_mark_corrupt(node);
    }
    return ret;
}

int co_qcow2_is_zero(struct block_node *node, uint64_t offset, uint64_t length)
{
    struct qcow2_extent e;

    length = MIN(length, qcow2_of(node)->size - MIN(offset, qcow2_of(node)->size));
    for (uint64_t done = 0; done < length; done += e.length) {
        int ret = co_qcow2_map(node, offset + done, length - done, &e);
        if (ret < 0) {
            return ret;
        }
        bool shows = node->backing && offset + done < block_length(node->backing);
        if (e.kind != QCOW2_ZERO_PLAIN && e.kind != QCOW2_ZERO_ALLOC &&
            (e.kind != QCOW2_UNALLOCATED || shows)) {
            return 0;
        }
    }
    return 1;
}
