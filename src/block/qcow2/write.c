/* SPDX-License-Identifier: MIT */
/*
 * Writes.
 *
 *   the entry says NORMAL, COPIED (and the cache has it) --> written in place, without a lock
 *   else, with the lock: plan_*(): clusters are taken, the range is noted as being changed
 *        without it:     co_write_clusters(): data, with what has to be copied around it
 *        with it:        link(): the entries point there; the old clusters wait to be free
 *
 * A request that is more than one of these plans them one after the other; their data is written
 * side by side.
 *
 * What was written is visible to everybody when the entries are set, and on disk when a commit has
 * written them, which it does after a flush of the data (O2).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "block/bounce.h"
#include "block/iov.h"
#include "block/qcow2/qcow2.h"
#include "block/tasks.h"
#include "block/zeroes.h"

#define likely(x) __builtin_expect(!!(x), 1)

#define PIECE_IOV 64
#define COW_MAX   (256 * KiB) /* of copies, in one buffer, before or behind the data */

/* How the clusters of a run are written. */
enum way {
    IN_PLACE, /* no change of entries */
    KEEP,     /* into the clusters that the entries have, but the entries change */
    NEW,      /* into new clusters */
    BAD
};

/* A write that changes entries: a run of clusters of one slice. */
struct run {
    struct block_node *node;
    uint64_t from, to;           /* guest bytes that are to be written: of the request */
    uint64_t copy_from, copy_to; /* with what is copied around them */
    unsigned clusters;
    enum way way;
    uint64_t host; /* of the first cluster */
    bool is_fresh; /* nothing was ever written there: it reads as zeroes */
    struct qcow2_slice *slice;
    unsigned index; /* of the first entry */
    struct qcow2_alloc alloc;
};

/* ---- in place --------------------------------------------------------------------------------- */

static int co_write_in_place(struct block_node *node, uint64_t host, const struct block_iov *iov,
                             unsigned flags, uint64_t id)
{
    struct qcow2_state *s = qcow2_of(node);

    if (!s->has_data_file) {
        int ret = qcow2_check_overlap(node, 0, host, iov->size);
        if (ret < 0) {
            return ret;
        }
    }
    block_debug_event(node->file, BLOCK_EVENT_WRITE_AIO);
    return block_co_pwritev(s->data_file, host, iov, flags, id);
}

/* ---- planning --------------------------------------------------------------------------------- */

/* Bits of subclusters that [from, to) of a cluster touches. */
static uint64_t touched(const struct qcow2_state *s, uint64_t from, uint64_t to)
{
    unsigned first = (unsigned)(from / s->subcluster_size);
    unsigned last = (unsigned)((to - 1) / s->subcluster_size);

    return ((UINT64_C(2) << last) - 1) & ~((UINT64_C(1) << first) - 1);
}

/* from, to: within the cluster. */
static enum way way_of(const struct qcow2_state *s, uint64_t entry, uint64_t bitmap, uint64_t from,
                       uint64_t to)
{
    if (qcow2_entry_kind(s, entry, 0, 0) == QCOW2_INVALID ||
        (bitmap & QCOW2_SUB_ALLOC & (bitmap >> 32)) ||
        (bitmap & QCOW2_SUB_ALLOC && !qcow2_has_cluster(s, entry) && !(entry & QCOW2_COMPRESSED))) {
        return BAD;
    }
    if (entry & QCOW2_COMPRESSED || !(entry & QCOW2_COPIED) || !qcow2_has_cluster(s, entry)) {
        return NEW;
    }
    if (!s->extended_l2) {
        return entry & QCOW2_ZERO ? KEEP : IN_PLACE;
    }
    uint64_t mask = touched(s, from, to);
    return (bitmap & mask) == mask ? IN_PLACE : KEEP;
}

/* How many entries from r->index on can be written alike; sets way, host (KEEP). */
static int plan_run(struct run *r, unsigned max)
{
    struct qcow2_state *s = qcow2_of(r->node);
    uint64_t start = align_down(r->from, s->cluster_size), bitmap;

    for (r->clusters = 0; r->clusters < max; r->clusters++) {
        uint64_t entry = qcow2_l2_entry(s, r->slice->data, r->index + r->clusters, &bitmap);
        uint64_t at = start + (uint64_t)r->clusters * s->cluster_size;
        enum way way =
            way_of(s, entry, bitmap, MAX(r->from, at) - at, MIN(r->to, at + s->cluster_size) - at);
        if (way == BAD && !r->clusters) {
            struct qcow2_extent extent; /* says what is wrong */
            int ret = co_qcow2_map(r->node, r->from, 1, &extent);
            if (ret == 0) {
                qcow2_signal_corruption(r->node, true, at, 0, "Invalid L2 entry 0x%llx",
                                        (unsigned long long)entry);
            }
            return -EIO;
        }
        uint64_t host = entry & QCOW2_OFFSET_MASK;
        if (!r->clusters) {
            r->way = way;
            r->host = host;
        } else if (way != r->way ||
                   (way == KEEP && host != r->host + (uint64_t)r->clusters * s->cluster_size)) {
            break;
        }
    }
    return 0;
}

/* Bytes of a cluster that have to be written for [from, to) of it: subclusters are written whole,
 * and what the old cluster has must be in the new one. */
static void widen(const struct qcow2_state *s, enum way way, uint64_t entry, uint64_t bitmap,
                  uint64_t *from, uint64_t *to)
{
    if (!s->extended_l2 || entry & QCOW2_COMPRESSED) {
        *from = 0;
        *to = s->cluster_size;
        return;
    }
    uint64_t has = way == KEEP ? bitmap & QCOW2_SUB_ALLOC : 0;
    if (!(has & touched(s, *from, *from + 1))) {
        *from = align_down(*from, s->subcluster_size);
    }
    if (!(has & touched(s, *to - 1, *to))) {
        *to = align_up(*to, s->subcluster_size);
    }
    uint64_t old = way == NEW ? bitmap & QCOW2_SUB_ALLOC : 0;
    if (old) {
        uint64_t first = (uint64_t)__builtin_ctzll(old), last = 63 - (uint64_t)__builtin_clzll(old);
        *from = MIN(*from, first * s->subcluster_size);
        *to = MAX(*to, (last + 1) * s->subcluster_size);
    }
}

static void plan_copies(struct run *r)
{
    struct qcow2_state *s = qcow2_of(r->node);
    uint64_t start = align_down(r->from, s->cluster_size);
    uint64_t last = align_down(r->to - 1, s->cluster_size), bitmap;

    uint64_t from = r->from - start, to = MIN(r->to - start, s->cluster_size);
    uint64_t entry = qcow2_l2_entry(s, r->slice->data, r->index, &bitmap);
    widen(s, r->way, entry, bitmap, &from, &to);
    r->copy_from = start + from;
    if (last != start) {
        from = 0;
        to = r->to - last;
        entry = qcow2_l2_entry(s, r->slice->data, r->index + r->clusters - 1, &bitmap);
        widen(s, r->way, entry, bitmap, &from, &to);
    }
    r->copy_to = last + to;
    if (s->has_data_file) {
        r->copy_to = MIN(r->copy_to, MAX(r->to, s->size)); /* as long as the disk, no longer */
    }
}

static int co_take_clusters(struct run *r)
{
    struct qcow2_state *s = qcow2_of(r->node);

    if (s->has_data_file) {
        r->host = align_down(r->from, s->cluster_size); /* where the guest has them */
        return 0;
    }
    uint64_t count = r->clusters, fresh_from = s->fresh_from;
    int64_t host = co_qcow2_alloc_run(r->node, &count);
    if (host < 0) {
        return (int)host;
    }
    r->clusters = (unsigned)count;
    r->host = (uint64_t)host;
    r->is_fresh = r->host >= fresh_from;
    return qcow2_check_overlap(r->node, 0, r->host, count << s->cluster_bits);
}

/* The guest offset of the first change by others behind `offset`, at most `to`. */
static uint64_t next_change(const struct qcow2_state *s, uint64_t offset, uint64_t to)
{
    for (const struct qcow2_alloc *alloc = s->allocs; alloc; alloc = alloc->next) {
        if (alloc->offset > offset) {
            to = MIN(to, alloc->offset);
        }
    }
    return to;
}

/* With lock held: what is to be done for a beginning of [r->from, r->to). */
static int co_plan(struct run *r)
{
    struct qcow2_state *s = qcow2_of(r->node);
    uint64_t start = align_down(r->from, s->cluster_size);

    co_qcow2_wait_allocs(r->node, start, s->cluster_size);
    r->to = next_change(s, r->from, r->to);
    int ret = co_qcow2_l2_slice(r->node, r->from, true, &r->slice, &r->index);
    if (ret < 0) {
        return ret;
    }
    uint64_t in_slice = s->l2_cache.slice_size / s->l2_entry_size - r->index;
    uint64_t wanted = (r->to - start + s->cluster_size - 1) >> s->cluster_bits;
    ret = plan_run(r, (unsigned)MIN(in_slice, wanted));
    if (ret == 0 && r->way == NEW) {
        ret = co_take_clusters(r);
    } else if (ret == 0 && r->way == KEEP && !s->has_data_file) {
        ret = qcow2_check_overlap(r->node, 0, r->host, (uint64_t)r->clusters << s->cluster_bits);
    }
    if (ret == 0) {
        r->to = MIN(r->to, start + (uint64_t)r->clusters * s->cluster_size);
    }
    if (ret < 0 || r->way == IN_PLACE) {
        cache_put(&s->l2_cache, r->slice);
        return ret;
    }
    plan_copies(r);
    qcow2_alloc_begin(s, &r->alloc, start, (uint64_t)r->clusters * s->cluster_size);
    return 0;
}

/* ---- data ------------------------------------------------------------------------------------- */

static uint64_t host_of(const struct run *r, uint64_t guest)
{
    return r->host + (guest - r->alloc.offset);
}

/* What the guest sees at [offset, offset + size); zeroes behind the end of its disk. */
static int co_read_old(struct run *r, uint64_t offset, void *to, uint64_t size)
{
    struct qcow2_state *s = qcow2_of(r->node);
    uint64_t there = MIN(size, s->size - MIN(offset, s->size));
    struct iovec vec;
    struct block_iov iov = block_iov_of(&vec, to, there);

    memset((char *)to + there, 0, size - there);
    block_debug_event(r->node->file, BLOCK_EVENT_COW_READ);
    return there ? co_qcow2_read(r->node, offset, &iov, 0) : 0;
}

static int co_write_buffer(struct run *r, uint64_t guest, void *from, uint64_t size)
{
    struct iovec vec;
    struct block_iov iov = block_iov_of(&vec, from, size);

    block_debug_event(r->node->file, BLOCK_EVENT_COW_WRITE);
    return block_co_pwritev(qcow2_of(r->node)->data_file, host_of(r, guest), &iov, 0, 0);
}

/* A long range around the request, by itself: zeroes by the host's means, the rest in pieces. */
static int co_copy_alone(struct run *r, uint64_t from, uint64_t to, bool is_zero)
{
    struct qcow2_state *s = qcow2_of(r->node);
    int ret = 0;

    if (is_zero) {
        return block_co_write_zeroes(s->data_file, host_of(r, from), to - from, 0);
    }
    const uint64_t most = bounce_room(MIN(to - from, COW_MAX), 1);
    void *buffer = bounce_alloc(4096, most);
    if (!buffer) {
        return -ENOMEM;
    }
    while (from < to && ret == 0) {
        uint64_t n = MIN(to - from, most);
        ret = co_read_old(r, from, buffer, n);
        if (ret == 0) {
            ret = co_write_buffer(r, from, buffer, n);
        }
        from += n;
    }
    bounce_free(buffer, most);
    return ret;
}

/* Fills `buffer` with [from, to), which is around the request; true if nothing need be written, as
 * it is zeroes and the cluster is so already. */
static int co_fill(struct run *r, uint64_t from, uint64_t to, bool is_zero, uint8_t *buffer,
                   bool *skip)
{
    if (is_zero) {
        memset(buffer, 0, to - from);
        *skip = r->is_fresh;
        return 0;
    }
    int ret = co_read_old(r, from, buffer, to - from);
    *skip = ret == 0 && r->is_fresh && block_bytes_are_zero(buffer, to - from);
    return ret;
}

/* head, data, tail in one write. buffer: for the head and, at tail_at, the tail. */
static int co_write_with(struct run *r, const struct block_iov *iov, uint64_t done, bool zero_head,
                         bool zero_tail, uint8_t *buffer, uint64_t tail_at, uint64_t id)
{
    struct qcow2_state *s = qcow2_of(r->node);
    uint64_t head = r->from - r->copy_from, tail = r->copy_to - r->to, size = r->to - r->from;
    bool skip_head = !head, skip_tail = !tail;
    struct iovec few[PIECE_IOV + 2], *vec = few;
    autofree struct iovec *many = NULL;
    int niov, ret = 0;

    if (head) {
        ret = co_fill(r, r->copy_from, r->from, zero_head, buffer, &skip_head);
    }
    if (ret == 0 && tail) {
        ret = co_fill(r, r->to, r->copy_to, zero_tail, buffer + tail_at, &skip_tail);
    }
    if (ret < 0) {
        return ret;
    }
    if (iov->niov > PIECE_IOV) {
        many = calloc((size_t)iov->niov + 2, sizeof(*many));
        if (!many) {
            return -ENOMEM;
        }
        vec = many;
    }
    block_iov_slice(iov, done, size, vec + 1, iov->niov, &niov);
    struct block_iov all = {.iov = vec + 1, .niov = niov, .size = size};
    uint64_t at = r->from;
    if (!skip_head) {
        vec[0] = (struct iovec){.iov_base = buffer, .iov_len = head};
        all = (struct block_iov){.iov = vec, .niov = niov + 1, .size = head + size};
        at = r->copy_from;
    }
    if (!skip_tail) {
        vec[1 + niov] = (struct iovec){.iov_base = buffer + tail_at, .iov_len = tail};
        all.niov++;
        all.size += tail;
    }
    block_debug_event(r->node->file, BLOCK_EVENT_WRITE_AIO);
    return block_co_pwritev(s->data_file, host_of(r, at), &all, 0, id);
}

static int co_write_around(struct run *r, const struct block_iov *iov, uint64_t done,
                           bool zero_head, bool zero_tail, uint64_t id)
{
    uint64_t head = r->from - r->copy_from, tail = r->copy_to - r->to;
    uint64_t tail_at = align_up(head, 4096); /* for O_DIRECT, as far as that goes */

    if (!head && !tail) {
        return co_write_with(r, iov, done, zero_head, zero_tail, NULL, 0, id);
    }
    uint8_t *buffer = bounce_alloc(4096, tail_at + tail);
    if (!buffer) {
        return -ENOMEM;
    }
    int ret = co_write_with(r, iov, done, zero_head, zero_tail, buffer, tail_at, id);
    bounce_free(buffer, tail_at + tail);
    return ret;
}

/* The data and what is copied around it. */
static int co_write_clusters(struct run *r, const struct block_iov *iov, uint64_t done, uint64_t id)
{
    uint64_t head = r->from - r->copy_from, tail = r->copy_to - r->to;
    uint64_t copy_from = r->copy_from, copy_to = r->copy_to;
    int zero_head = 0, zero_tail = 0, ret = 0;

    if (head) {
        zero_head = co_qcow2_is_zero(r->node, r->copy_from, head);
    }
    if (tail && zero_head >= 0) {
        zero_tail = co_qcow2_is_zero(r->node, r->to, tail);
    }
    if (zero_head < 0 || zero_tail < 0) {
        return zero_head < 0 ? zero_head : zero_tail;
    }
    /* What is long goes by itself, and where the budget is spent, what is not short; what need not be
     * written is left out. */
    const uint64_t most = bounce_room(COW_MAX, 1);
    if (head > most || (zero_head && r->is_fresh)) {
        if (!(zero_head && r->is_fresh)) {
            ret = co_copy_alone(r, r->copy_from, r->from, zero_head);
        }
        r->copy_from = r->from;
    }
    if (ret == 0 && (tail > most || (zero_tail && r->is_fresh))) {
        if (!(zero_tail && r->is_fresh)) {
            ret = co_copy_alone(r, r->to, r->copy_to, zero_tail);
        }
        r->copy_to = r->to;
    }
    if (ret == 0) {
        ret = co_write_around(r, iov, done, zero_head, zero_tail, id);
    }
    r->copy_from = copy_from;
    r->copy_to = copy_to;
    return ret;
}

/* ---- entries ---------------------------------------------------------------------------------- */

/* With lock held: the entries point to what was written. */
static void link_clusters(struct run *r)
{
    struct qcow2_state *s = qcow2_of(r->node);
    uint64_t bitmap;

    for (unsigned i = 0; i < r->clusters; i++) {
        uint64_t at = (uint64_t)i * s->cluster_size, guest = r->alloc.offset + at;
        uint64_t old = qcow2_l2_entry(s, r->slice->data, r->index + i, &bitmap);
        if (s->extended_l2) {
            uint64_t mask = touched(s, MAX(r->copy_from, guest) - guest,
                                    MIN(r->copy_to, guest + s->cluster_size) - guest);
            bitmap = old & QCOW2_COMPRESSED ? mask : (bitmap & ~(mask << 32)) | mask;
        }
        qcow2_l2_set(r->node, r->slice, r->index + i, (r->host + at) | QCOW2_COPIED, bitmap);
        if (r->way == NEW) {
            qcow2_free_entry(r->node, old, false);
        }
    }
}

static int co_end_run(struct run *r, int ret)
{
    struct qcow2_state *s = qcow2_of(r->node);

    co_mutex_lock(&s->lock);
    if (ret == 0 && s->corrupt) {
        ret = -EIO;
    }
    if (ret == 0) {
        link_clusters(r);
    } else if (r->way == NEW && !s->has_data_file && !s->corrupt) {
        /* Nothing ever pointed there. If that fails as well, they are leaked. */
        co_qcow2_unref(r->node, r->host, (uint64_t)r->clusters << s->cluster_bits, false);
    }
    qcow2_alloc_end(s, &r->alloc);
    co_mutex_unlock(&s->lock);
    cache_put(&s->l2_cache, r->slice);
    return ret;
}

/* ---- requests --------------------------------------------------------------------------------- */

/* A part of a request that is written in one way. */
struct write_piece {
    struct block_task task;
    const struct block_iov *iov; /* of the request */
    uint64_t done, id;           /* the piece begins at done */
    unsigned epoch;
    struct run run; /* IN_PLACE: only from, to and host are set */
};

/* In an epoch: what is to be done for a beginning of [r->from, r->to). */
static int co_plan_piece(struct run *r)
{
    struct qcow2_state *s = qcow2_of(r->node);
    const uint64_t to = r->to;
    struct qcow2_extent extent;

    for (;;) {
        int ret = co_qcow2_map(r->node, r->from, to - r->from, &extent);
        if (ret < 0) {
            return ret;
        }
        if (extent.kind == QCOW2_NORMAL && extent.copied) {
            r->way = IN_PLACE;
            r->host = extent.host;
            r->to = r->from + extent.length;
            return 0;
        }
        r->to = to;
        co_mutex_lock(&s->lock);
        ret = co_plan(r);
        co_mutex_unlock(&s->lock);
        if (ret < 0 || r->way != IN_PLACE) {
            return ret;
        }
        /* Somebody else has come before us: as the others. */
    }
}

static int co_piece_in_place(struct write_piece *p)
{
    struct iovec vec[PIECE_IOV];
    const struct run *r = &p->run;
    uint64_t size = r->to - r->from;
    int ret = 0;

    for (uint64_t done = 0; done < size && ret == 0;) {
        struct block_iov piece = {.iov = vec};
        piece.size =
            block_iov_slice(p->iov, p->done + done, size - done, vec, PIECE_IOV, &piece.niov);
        ret = co_write_in_place(r->node, r->host + done, &piece, 0, p->id);
        done += piece.size;
    }
    return ret;
}

static int co_write_piece(struct block_task *task)
{
    struct write_piece *p = (struct write_piece *)task;
    struct qcow2_state *s = qcow2_of(p->run.node);

    int ret = p->run.way == IN_PLACE
                  ? co_piece_in_place(p)
                  : co_end_run(&p->run, co_write_clusters(&p->run, p->iov, p->done, p->id));
    qcow2_epoch_leave(s, p->epoch);
    return ret;
}

/* One after the other is planned; the data is written side by side, the last piece here. */
static int co_write_all(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                        uint64_t id)
{
    struct qcow2_state *s = qcow2_of(node);
    struct block_tasks tasks = {0};
    int ret = 0;

    for (uint64_t done = 0; done < iov->size && ret == 0 && !tasks.ret;) {
        if (done) {
            co_share(BLOCK_SHORT); /* each may be done at once */
        }
        ret = co_qcow2_balance(node);
        if (ret < 0) {
            break;
        }
        struct write_piece *p = xnew(struct write_piece);
        *p = (struct write_piece){
            .task.co_fn = co_write_piece,
            .iov = iov,
            .done = done,
            .id = id,
            .epoch = qcow2_epoch_enter(s),
            .run = {.node = node, .from = offset + done, .to = offset + iov->size},
        };
        ret = co_plan_piece(&p->run);
        if (ret < 0) {
            qcow2_epoch_leave(s, p->epoch);
            free(p);
            break;
        }
        done += p->run.to - p->run.from;
        if (done < iov->size) {
            co_block_tasks_start(&tasks, &p->task);
        } else {
            ret = co_write_piece(&p->task);
            free(p);
        }
    }
    int others = co_block_tasks_wait(&tasks);
    return ret < 0 ? ret : others;
}

static int co_write_pieces(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                           uint64_t id)
{
    int ret = co_write_all(node, offset, iov, id);

    if (ret == -ENOSPC) {
        ret = co_qcow2_make_room(node);
        if (ret == 0) {
            ret = co_write_all(node, offset, iov, id);
        }
    }
    return ret;
}

struct compressed_piece {
    struct block_task task;
    struct block_node *node;
    const struct block_iov *iov; /* of the request */
    uint64_t offset, done, id;   /* guest offset of the request; the cluster begins at done */
};

/* A cluster; the last one of the disk is filled up with zeroes. */
static int co_write_compressed_piece(struct block_task *task)
{
    const struct compressed_piece *p = (struct compressed_piece *)task;
    struct qcow2_state *s = qcow2_of(p->node);
    uint64_t n = MIN(s->cluster_size, p->iov->size - p->done);

    if (p->iov->niov == 1 && n == s->cluster_size) {
        const uint8_t *data = (const uint8_t *)p->iov->iov[0].iov_base + p->done;
        return co_qcow2_write_compressed(p->node, p->offset + p->done, data, p->id);
    }
    autofree uint8_t *cluster = aligned_alloc(4096, align_up(s->cluster_size, 4096));
    if (!cluster) {
        return -ENOMEM;
    }
    block_iov_read(p->iov, p->done, cluster, n);
    memset(cluster + n, 0, s->cluster_size - n);
    return co_qcow2_write_compressed(p->node, p->offset + p->done, cluster, p->id);
}

/* Whole clusters, deflated side by side. */
static int co_write_compressed(struct block_node *node, uint64_t offset,
                               const struct block_iov *iov, uint64_t id)
{
    struct qcow2_state *s = qcow2_of(node);
    struct block_tasks tasks = {0};
    int ret = 0;

    if (s->has_data_file) {
        return -ENOTSUP;
    }
    if (offset & (s->cluster_size - 1) ||
        (iov->size & (s->cluster_size - 1) && offset + iov->size != s->size)) {
        return -EINVAL;
    }
    for (uint64_t done = 0; done < iov->size && ret == 0 && !tasks.ret; done += s->cluster_size) {
        ret = co_qcow2_balance(node);
        if (ret == 0) {
            struct compressed_piece *p = xnew(struct compressed_piece);
            *p = (struct compressed_piece){.task.co_fn = co_write_compressed_piece,
                                           .node = node,
                                           .iov = iov,
                                           .offset = offset,
                                           .done = done,
                                           .id = id};
            co_block_tasks_start(&tasks, &p->task);
        }
    }
    int others = co_block_tasks_wait(&tasks);
    return ret < 0 ? ret : others;
}

static int co_finish_write(struct block_node *node, int ret, unsigned flags)
{
    if (ret == 0 && flags & BLOCK_REQ_FUA) {
        ret = co_qcow2_commit(node, true);
    }
    if (!likely(ret == 0) && qcow2_of(node)->corrupt) {
        co_qcow2_mark_corrupt(node);
    }
    return ret;
}

int qcow2_co_pwritev(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                     unsigned flags, uint64_t id)
{
    struct qcow2_state *s = qcow2_of(node);
    struct qcow2_extent extent;

    if (!likely(!atomic_load_explicit(&s->corrupt, memory_order_relaxed))) {
        return -EIO;
    }
    if (!likely(!(flags & BLOCK_REQ_COMPRESSED))) {
        return co_finish_write(node, co_write_compressed(node, offset, iov, id), flags);
    }
    unsigned epoch = qcow2_epoch_enter(s);
    if (likely(qcow2_map_cached(node, offset, iov->size, &extent) && extent.kind == QCOW2_NORMAL &&
               extent.copied && extent.length == iov->size)) {
        /* Written through if the entry is on stable storage already; else a commit follows. */
        bool through = flags & BLOCK_REQ_FUA && !atomic_load(&s->unstable);
        int ret = co_write_in_place(node, extent.host, iov, through ? BLOCK_REQ_FUA : 0, id);
        qcow2_epoch_leave(s, epoch);
        return likely(ret == 0 && (through || !(flags & BLOCK_REQ_FUA)))
                   ? 0
                   : co_finish_write(node, ret, flags);
    }
    qcow2_epoch_leave(s, epoch);
    return co_finish_write(node, co_write_pieces(node, offset, iov, id), flags);
}
