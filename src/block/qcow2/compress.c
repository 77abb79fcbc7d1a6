/* SPDX-License-Identifier: MIT */
/*
 * Compressed clusters written.
 *
 *   deflate in the thread pool  --> with lock: room in the file, the range is ours
 *   write there                 --> with lock: the L2 entry; the old cluster waits to be free
 *
 * Clusters of several requests are deflated and written at the same time, and lie in the file in
 * the order in which they were ready, byte after byte.
 */
#include <errno.h>
#include <stdlib.h>

#include "aio/io.h"
#include "base/alloc.h"
#include "block/debug.h"
#include "block/iov.h"
#include "block/qcow2/codec.h"
#include "block/qcow2/qcow2.h"

struct deflated {
    enum qcow2_compression how;
    const void *from;
    uint32_t cluster_size;
    uint8_t *to;
    size_t size; /* 0: it would not get smaller */
};

static int deflate_job(void *opaque)
{
    struct deflated *d = opaque;

    d->size = qcow2_deflate(d->how, d->from, d->cluster_size, d->to, d->cluster_size - 1);
    return 0;
}

/* The L2 entry of `size` bytes at `host`: where they begin, and how many sectors more than one they
 * touch. */
static uint64_t compressed_entry(const struct qcow2_state *s, uint64_t host, uint64_t size)
{
    uint64_t sectors = (host + size - 1) / QCOW2_COMPRESSED_SECTOR - host / QCOW2_COMPRESSED_SECTOR;

    return QCOW2_COMPRESSED | host | sectors << s->compressed_shift;
}

/* With lock held: room in the file, and the guest's cluster is ours until qcow2_alloc_end(). */
static int co_take_room(struct block_node *node, uint64_t offset, uint64_t size,
                        struct qcow2_alloc *alloc, struct qcow2_slice **slice, unsigned *index,
                        uint64_t *host)
{
    struct qcow2_state *s = qcow2_of(node);

    co_qcow2_wait_allocs(node, offset, s->cluster_size);
    int ret = co_qcow2_l2_slice(node, offset, true, slice, index);
    if (ret < 0) {
        return ret;
    }
    int64_t at = co_qcow2_alloc_bytes(node, size);
    if (at >= 0 && !range_fits((uint64_t)at, size, s->compressed_offset_mask)) {
        co_qcow2_unref(node, (uint64_t)at, size, false);
        s->compressed_at = 0;
        at = -EFBIG; /* the entry has no bits for it */
    }
    if (at < 0) {
        cache_put(&s->l2_cache, *slice);
        return (int)at;
    }
    *host = (uint64_t)at;
    qcow2_alloc_begin(s, alloc, offset, s->cluster_size);
    return 0;
}

static int co_write_deflated(struct block_node *node, uint64_t offset, const struct deflated *d,
                             uint64_t id)
{
    struct qcow2_state *s = qcow2_of(node);
    struct qcow2_alloc alloc;
    struct qcow2_slice *slice;
    struct iovec vec;
    struct block_iov iov = block_iov_of(&vec, d->to, d->size);
    uint64_t host = 0, bitmap;
    unsigned index;

    co_mutex_lock(&s->lock);
    int ret = co_take_room(node, offset, d->size, &alloc, &slice, &index, &host);
    co_mutex_unlock(&s->lock);
    if (ret < 0) {
        return ret;
    }
    qcow2_inflated_forget(s, host, d->size);
    block_debug_event(node->file, BLOCK_EVENT_WRITE_COMPRESSED);
    ret = block_co_pwritev(node->file, host, &iov, 0, id);

    co_mutex_lock(&s->lock);
    if (ret == 0 && s->corrupt) {
        ret = -EIO;
    }
    if (ret == 0) {
        uint64_t old = qcow2_l2_entry(s, slice->data, index, &bitmap);
        qcow2_l2_set(node, slice, index, compressed_entry(s, host, d->size), 0);
        qcow2_free_entry(node, old, false);
    } else if (!s->corrupt) {
        co_qcow2_unref(node, host, d->size, false);
        s->compressed_at = 0;
    }
    qcow2_alloc_end(s, &alloc);
    co_mutex_unlock(&s->lock);
    cache_put(&s->l2_cache, slice);
    return ret;
}

static int co_in_epoch(struct block_node *node, uint64_t offset, const struct deflated *d,
                       uint64_t id)
{
    struct qcow2_state *s = qcow2_of(node);

    unsigned epoch = qcow2_epoch_enter(s);
    int ret = co_write_deflated(node, offset, d, id);
    qcow2_epoch_leave(s, epoch);
    return ret;
}

int co_qcow2_write_compressed(struct block_node *node, uint64_t offset, const void *data,
                              uint64_t id)
{
    struct qcow2_state *s = qcow2_of(node);
    struct deflated d = {.how = s->compression, .from = data, .cluster_size = s->cluster_size};

    autofree uint8_t *buffer = aligned_alloc(4096, align_up(s->cluster_size, 4096));
    if (!buffer) {
        return -ENOMEM;
    }
    d.to = buffer;
    co_thread_pool(deflate_job, &d);
    if (d.size) {
        int ret = co_in_epoch(node, offset, &d, id);
        if (ret == -ENOSPC) {
            ret = co_qcow2_make_room(node);
            if (ret == 0) {
                ret = co_in_epoch(node, offset, &d, id);
            }
        }
        return ret;
    }
    struct iovec vec;
    struct block_iov iov = block_iov_of(&vec, (void *)data, MIN(s->cluster_size, s->size - offset));
    return qcow2_co_pwritev(node, offset, &iov, 0, id);
}
