/* SPDX-License-Identifier: MIT */
/*
 * Zeroes and discards: changes of entries alone. Clusters that go are free after a commit has
 * unlinked them and nobody can read them any more.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "block/iov.h"
#include "block/qcow2/qcow2.h"

#define ZERO_BUFFER (64 * KiB)
#define ZERO_IOV    32

static const uint8_t zeroes[ZERO_BUFFER] __attribute__((aligned(4096)));

struct change {
    struct block_node *node;
    bool unmap; /* clusters go */
    bool holes; /* so does the space in a raw data file */
};

/* ---- entries ---------------------------------------------------------------------------------- */

static uint64_t all_subclusters(const struct qcow2_state *s)
{
    return s->extended_l2 ? QCOW2_SUB_ALLOC : 1;
}

static bool is_empty(const struct qcow2_state *s, uint64_t entry, uint64_t bitmap)
{
    return !(entry & QCOW2_COMPRESSED) && !qcow2_has_cluster(s, entry) && !bitmap &&
           (s->extended_l2 || !(entry & QCOW2_ZERO));
}

/* Subclusters `mask` of an entry become zeroes. -ENOTSUP: they have to be written. */
static int change_entry(const struct change *c, struct qcow2_slice *slice, unsigned index,
                        uint64_t mask)
{
    struct qcow2_state *s = qcow2_of(c->node);
    uint64_t bitmap, old = qcow2_l2_entry(s, slice->data, index, &bitmap);
    bool whole = mask == all_subclusters(s), compressed = old & QCOW2_COMPRESSED;
    bool keep = !c->unmap && !compressed && qcow2_has_cluster(s, old);
    uint64_t entry, zero_bits = mask << 32;

    if (qcow2_entry_kind(s, old, 0, 0) == QCOW2_INVALID) {
        qcow2_signal_corruption(c->node, true, slice->offset + (uint64_t)index * s->l2_entry_size,
                                0, "Invalid L2 entry 0x%" PRIx64, old);
        return -EIO;
    }
    if (is_empty(s, old, bitmap) && !c->node->backing) {
        return 0;
    }
    if (!whole) {
        if (compressed) {
            return -ENOTSUP;
        }
        entry = old;
        bitmap = (bitmap & ~mask) | zero_bits;
    } else if (s->extended_l2) {
        entry = keep ? old : 0;
        bitmap = zero_bits;
    } else if (s->version < 3) {
        entry = 0;
    } else {
        entry = keep ? old | QCOW2_ZERO : QCOW2_ZERO;
    }
    uint64_t old_bitmap;
    if (entry == qcow2_l2_entry(s, slice->data, index, &old_bitmap) && bitmap == old_bitmap) {
        return 0;
    }
    qcow2_l2_set(c->node, slice, index, entry, bitmap);
    if (whole && !keep) {
        qcow2_free_entry(c->node, old, s->discard_request);
    }
    return 0;
}

/* Where the data has a file of its own, that is changed as well; nobody else changes it. */
static int co_change_data_file(const struct change *c, uint64_t offset, uint64_t length)
{
    struct qcow2_state *s = qcow2_of(c->node);
    struct qcow2_extent e;
    int ret = 0;

    length = MIN(length, s->size - MIN(offset, s->size)); /* raw data is no longer than the disk */
    if (!length) {
        return 0;
    }
    if (s->data_file_raw) {
        return block_co_write_zeroes(s->data_file, offset, length,
                                     c->holes ? BLOCK_REQ_MAY_UNMAP : 0);
    }
    for (uint64_t done = 0; done < length && c->unmap && s->discard_request && ret == 0;
         done += e.length) {
        ret = co_qcow2_map(c->node, offset + done, length - done, &e);
        if (ret == 0 && (e.kind == QCOW2_NORMAL || e.kind == QCOW2_ZERO_ALLOC)) {
            uint64_t there = block_length(s->data_file);
            if (e.host < there) {
                ret = block_co_discard(s->data_file, e.host, MIN(e.length, there - e.host));
            }
        }
    }
    return ret;
}

/* With lock held: entries of one slice, from offset on; *length becomes how much. */
static int co_change_slice(const struct change *c, uint64_t offset, uint64_t *length)
{
    struct qcow2_state *s = qcow2_of(c->node);
    uint64_t in_cluster = offset & (s->cluster_size - 1), done = 0;
    struct qcow2_slice *slice;
    unsigned index, per_slice = s->l2_cache.slice_size / s->l2_entry_size;

    int ret = co_qcow2_l2_slice(c->node, offset, c->node->backing, &slice, &index);
    if (ret == 0 && !slice) {
        /* No table, nothing below: zeroes already, as far as the table would reach. */
        uint64_t span = UINT64_C(1) << (s->cluster_bits + s->l2_bits);
        *length = MIN(*length, span - (offset & (span - 1)));
        return 0;
    }
    if (ret == 0 && !(s->l1[offset >> (s->cluster_bits + s->l2_bits)] & QCOW2_COPIED)) {
        cache_put(&s->l2_cache, slice);
        ret = co_qcow2_l2_slice(c->node, offset, true, &slice, &index);
    }
    if (ret < 0) {
        return ret;
    }
    for (; done < *length && index < per_slice && ret == 0; index++) {
        uint64_t n = MIN(*length - done, s->cluster_size - in_cluster);
        unsigned first = (unsigned)(in_cluster / s->subcluster_size);
        unsigned count = (unsigned)(n / s->subcluster_size);
        ret = change_entry(c, slice, index, ((UINT64_C(1) << count) - 1) << first);
        if (ret == 0) {
            done += n;
            in_cluster = 0;
        }
    }
    cache_put(&s->l2_cache, slice);
    *length = done;
    return done ? 0 : ret;
}

/* A beginning of whole subclusters; *length becomes how much. */
static int co_change_some(const struct change *c, uint64_t offset, uint64_t *length)
{
    struct qcow2_state *s = qcow2_of(c->node);
    uint64_t per_slice = s->l2_cache.slice_size / s->l2_entry_size;
    uint64_t span = per_slice << s->cluster_bits;
    uint64_t start = align_down(offset, s->cluster_size);
    struct qcow2_alloc alloc;
    int ret = 0;

    *length = MIN(*length, span - (offset & (span - 1)));
    uint64_t all = qcow2_align_cluster(s, offset + *length) - start;
    co_mutex_lock(&s->lock);
    while (co_qcow2_wait_allocs(c->node, start, all)) {
    }
    if (s->has_data_file) {
        qcow2_alloc_begin(s, &alloc, start, all);
        co_mutex_unlock(&s->lock);
        ret = co_change_data_file(c, offset, *length);
        co_mutex_lock(&s->lock);
    }
    if (ret == 0) {
        ret = co_change_slice(c, offset, length);
    }
    if (s->has_data_file) {
        qcow2_alloc_end(s, &alloc);
    }
    co_mutex_unlock(&s->lock);
    return ret;
}

/* ---- by buffers ------------------------------------------------------------------------------- */

static int co_write_buffers(struct block_node *node, uint64_t offset, uint64_t length)
{
    struct iovec vec[ZERO_IOV];
    int ret = 0;

    while (length && ret == 0) {
        struct block_iov iov = {.iov = vec};
        while (iov.size < length && iov.niov < ZERO_IOV) {
            uint64_t n = MIN(ZERO_BUFFER, length - iov.size);
            vec[iov.niov++] = (struct iovec){(void *)(uintptr_t)zeroes, n};
            iov.size += n;
        }
        ret = qcow2_co_pwritev(node, offset, &iov, 0, 0);
        offset += iov.size;
        length -= iov.size;
    }
    return ret;
}

/* Parts of subclusters, unless they are zeroes anyway. */
static int co_zero_part(struct block_node *node, uint64_t offset, uint64_t length)
{
    struct qcow2_state *s = qcow2_of(node);

    if (!length) {
        return 0;
    }
    unsigned epoch = qcow2_epoch_enter(s);
    int is_zero = s->data_file_raw ? 0 : co_qcow2_is_zero(node, offset, length);
    qcow2_epoch_leave(s, epoch);
    return is_zero < 0 ? is_zero : is_zero ? 0 : co_write_buffers(node, offset, length);
}

/* ---- requests --------------------------------------------------------------------------------- */

static int co_change(const struct change *c, uint64_t offset, uint64_t length)
{
    struct qcow2_state *s = qcow2_of(c->node);
    bool has_retried = false;
    int ret = 0;

    while (length && ret == 0) {
        uint64_t n = length;
        co_share(BLOCK_SHORT); /* a slice */
        ret = co_qcow2_balance(c->node);
        if (ret < 0) {
            break;
        }
        unsigned epoch = qcow2_epoch_enter(s);
        ret = co_change_some(c, offset, &n);
        qcow2_epoch_leave(s, epoch);
        if (ret == -ENOSPC && !has_retried) { /* for a table */
            has_retried = true;
            ret = co_qcow2_make_room(c->node);
            continue;
        }
        if (ret == -ENOTSUP) { /* a part of a compressed cluster */
            n = MIN(length, s->cluster_size - (offset & (s->cluster_size - 1)));
            ret = co_write_buffers(c->node, offset, n);
        }
        offset += n;
        length -= n;
    }
    return ret;
}

static int co_finish(struct block_node *node, int ret, unsigned flags)
{
    if (ret == 0 && flags & BLOCK_REQ_FUA) {
        ret = co_qcow2_commit(node, true);
    }
    if (qcow2_of(node)->corrupt) { /* also by what was to be given away */
        co_qcow2_mark_corrupt(node);
    }
    return ret;
}

/* BLOCK_REQ_ZERO_PARTS: [*offset, *end) becomes what is between the parts, which must read as zeroes. */
static int co_leave_zero_parts(struct block_node *node, uint64_t *offset, uint64_t first,
                               uint64_t last, uint64_t *end)
{
    uint64_t head_end = MIN(first, *end), tail = MIN(MAX(last, head_end), *end);

    if (qcow2_of(node)->data_file_raw) {
        return -ENOTSUP; /* the file alone may have something else there */
    }
    int ret = block_co_reads_as_zeroes(node, *offset, head_end);
    if (ret == 1) {
        ret = block_co_reads_as_zeroes(node, tail, *end);
    }
    *offset = head_end;
    *end = tail;
    return ret < 0 ? ret : ret ? 0 : -ENOTSUP;
}

int qcow2_co_write_zeroes(struct block_node *node, uint64_t offset, uint64_t length, unsigned flags)
{
    struct qcow2_state *s = qcow2_of(node);
    bool unmap = flags & BLOCK_REQ_MAY_UNMAP;
    struct change c = {.node = node, .unmap = unmap && !s->data_file_raw, .holes = unmap};
    uint64_t end = offset + length;

    if (s->corrupt) {
        return -EIO;
    }
    /* Behind the end of the disk nobody looks. */
    uint64_t last =
        end == s->size ? align_up(end, s->subcluster_size) : align_down(end, s->subcluster_size);
    uint64_t first = align_up(offset, s->subcluster_size);
    if (flags & BLOCK_REQ_ZERO_PARTS && (first != offset || last != end)) {
        int ret = co_leave_zero_parts(node, &offset, first, last, &end);
        if (ret < 0 || offset == end) {
            return ret;
        }
    }
    if (first >= last || (s->version < 3 && (node->backing || !c.unmap))) {
        return -ENOTSUP;
    }
    if (s->version < 3) {
        last = align_down(end, s->cluster_size);
    }
    int ret = co_zero_part(node, offset, first - offset);
    if (ret == 0 && first < last) {
        ret = co_change(&c, first, last - first);
    }
    if (ret == 0 && last < end) {
        ret = co_zero_part(node, last, end - last);
    }
    return co_finish(node, ret, flags);
}

int qcow2_co_discard(struct block_node *node, uint64_t offset, uint64_t length)
{
    struct qcow2_state *s = qcow2_of(node);
    const struct change c = {.node = node, .unmap = true, .holes = true};

    if (s->corrupt) {
        return -EIO;
    }
    if (s->version < 3 && node->backing) {
        return -ENOTSUP; /* what is below would show again */
    }
    if (offset + length == s->size) {
        length = qcow2_align_cluster(s, s->size) - offset;
    }
    return co_finish(node, co_change(&c, offset, length), 0);
}
