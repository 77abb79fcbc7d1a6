/* SPDX-License-Identifier: MIT */
/*
 * Compressed clusters read.
 *
 * Guests read 4 KiB of a cluster and then the next 4 KiB of it, often many at once. So the image
 * keeps the last few clusters that it inflated; who asks for one that is being inflated waits for
 * it. Whole clusters (convert) pass by that.
 *
 * What is kept belongs to an L2 entry. An entry comes to mean something else only when its sectors
 * are written again, by compress.c, which makes us forget it first; by O3 nobody is reading them then.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "aio/io.h"
#include "base/alloc.h"
#include "block/bounce.h"
#include "block/debug.h"
#include "block/iov.h"
#include "block/qcow2/codec.h"
#include "block/qcow2/qcow2.h"

#define MAX_SLOTS    16
#define KEPT_BYTES   (2 * MiB)
#define INLINE_BYTES 16384u /* clusters so small are inflated at once, not by the thread pool */

struct slot {
    uint64_t entry; /* 0: nothing */
    bool is_loading;
    uint64_t used;
    uint8_t *data; /* a cluster */
};

struct qcow2_inflated {
    /* block/bounce.h */
    struct bounce_line alone; /* what is inflated without a slot */
    struct co_mutex lock;
    /* under lock */
    struct co_queue loaded;
    struct slot slots[MAX_SLOTS];
    uint64_t clock;
    /* atomic */
    _Atomic(bool) is_used; /* there was ever something */
};

void qcow2_inflated_init(struct qcow2_state *s)
{
    s->inflated = xnew(struct qcow2_inflated);
    bounce_line_init(&s->inflated->alone);
    co_mutex_init(&s->inflated->lock);
    co_queue_init(&s->inflated->loaded);
}

void qcow2_inflated_free(struct qcow2_state *s)
{
    if (!s->inflated) {
        return;
    }
    for (size_t i = 0; i < MAX_SLOTS; i++) {
        free(s->inflated->slots[i].data);
    }
    co_queue_destroy(&s->inflated->loaded);
    co_mutex_destroy(&s->inflated->lock);
    bounce_line_destroy(&s->inflated->alone);
    free(s->inflated);
    s->inflated = NULL;
}

/* ---- the file -------------------------------------------------------------------------------- */

static void entry_range(const struct qcow2_state *s, uint64_t entry, uint64_t *host, size_t *size)
{
    uint64_t sectors = (entry >> s->compressed_shift & s->compressed_sectors_mask) + 1;

    /* At most two clusters: the entry has no more bits. */
    *host = entry & s->compressed_offset_mask;
    *size = sectors * QCOW2_COMPRESSED_SECTOR - (*host & (QCOW2_COMPRESSED_SECTOR - 1));
}

struct inflating {
    const struct qcow2_state *s;
    const void *from;
    size_t length;
    void *to;
};

static int inflate_job(void *opaque)
{
    struct inflating *i = opaque;

    return qcow2_inflate(i->s->compression, i->from, i->length, i->to, i->s->cluster_size) ? 0
                                                                                           : -EIO;
}

/* offset: of the guest's cluster, for the message. buffer: for the entry's bytes (entry_range()). */
static int co_inflate(struct block_node *node, uint64_t offset, uint64_t entry, void *buffer,
                      void *to)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t host;
    size_t size;

    entry_range(s, entry, &host, &size);
    block_debug_event(node->file, BLOCK_EVENT_READ_COMPRESSED);
    int ret = co_qcow2_pread(node, host, buffer, size);
    if (ret < 0) {
        return ret;
    }
    struct inflating job = {.s = s, .from = buffer, .length = size, .to = to};
    ret = s->cluster_size <= INLINE_BYTES ? inflate_job(&job) : co_thread_pool(inflate_job, &job);
    if (ret < 0) {
        qcow2_signal_corruption(node, false, host, size,
                                "Compressed cluster at guest offset %#llx (L2 entry %#llx) does "
                                "not inflate to %u bytes",
                                (unsigned long long)align_down(offset, s->cluster_size),
                                (unsigned long long)entry, s->cluster_size);
    }
    return ret;
}

/* ---- what is kept ---------------------------------------------------------------------------- */

static unsigned slots_of(const struct qcow2_state *s)
{
    return (unsigned)MIN(MAX(KEPT_BYTES / s->cluster_size, 2), MAX_SLOTS);
}

static struct slot *find_slot(struct qcow2_inflated *in, unsigned count, uint64_t entry)
{
    for (unsigned i = 0; i < count; i++) {
        if (in->slots[i].entry == entry) {
            return &in->slots[i];
        }
    }
    return NULL;
}

/* The one that was not used for the longest time; NULL if all are being filled. */
static struct slot *take_slot(struct qcow2_inflated *in, unsigned count)
{
    struct slot *oldest = NULL;

    for (unsigned i = 0; i < count; i++) {
        struct slot *slot = &in->slots[i];
        if (!slot->is_loading && (!oldest || slot->used < oldest->used)) {
            oldest = slot;
        }
    }
    return oldest;
}

void qcow2_inflated_forget(struct qcow2_state *s, uint64_t offset, uint64_t length)
{
    struct qcow2_inflated *in = s->inflated;

    if (!atomic_load(&in->is_used)) {
        return;
    }
    co_mutex_lock(&in->lock);
    for (unsigned i = 0; i < MAX_SLOTS; i++) {
        uint64_t host;
        size_t size;
        entry_range(s, in->slots[i].entry, &host, &size);
        if (in->slots[i].entry && !in->slots[i].is_loading &&
            range_overlaps(host, size, offset, length)) {
            in->slots[i].entry = 0;
        }
    }
    co_mutex_unlock(&in->lock);
}

/* With in->lock held. Fills a slot with the entry's cluster. */
static int co_load_slot(struct block_node *node, uint64_t offset, uint64_t entry, struct slot *slot)
{
    struct qcow2_state *s = qcow2_of(node);
    struct qcow2_inflated *in = s->inflated;
    uint64_t host;
    size_t size;
    int ret = -ENOMEM;

    slot->entry = entry;
    slot->is_loading = true;
    atomic_store(&in->is_used, true);
    co_mutex_unlock(&in->lock);
    if (!slot->data) {
        slot->data = aligned_alloc(4096, align_up(s->cluster_size, 4096));
    }
    entry_range(s, entry, &host, &size);
    void *buffer = aligned_alloc(4096, align_up(size, 4096));
    if (slot->data && buffer) {
        ret = co_inflate(node, offset, entry, buffer, slot->data);
    }
    free(buffer);
    co_mutex_lock(&in->lock);
    slot->is_loading = false;
    if (ret < 0) {
        slot->entry = 0;
    }
    co_queue_wake_all(&in->loaded);
    return ret;
}

/* A cluster that is not kept. A guest has as many of these at a time as it likes. */
static int co_read_alone(struct block_node *node, uint64_t offset, uint64_t entry, uint32_t at,
                         const struct block_iov *iov)
{
    struct qcow2_state *s = qcow2_of(node);
    bool is_whole = iov->niov == 1 && iov->size == s->cluster_size;
    size_t copied = is_whole ? 0 : align_up(s->cluster_size, 4096), size;
    uint64_t host;

    entry_range(s, entry, &host, &size);
    uint8_t *buffer = co_bounce_line_alloc(&s->inflated->alone, copied + size);
    if (!buffer) {
        return -ENOMEM;
    }
    void *to = is_whole ? iov->iov->iov_base : buffer;
    int ret = co_inflate(node, offset, entry, buffer + copied, to);
    if (ret == 0 && !is_whole) {
        block_iov_write(iov, 0, buffer + at, iov->size);
    }
    co_bounce_line_free(&s->inflated->alone, buffer, copied + size);
    return ret;
}

int co_qcow2_read_compressed(struct block_node *node, uint64_t offset, uint64_t entry,
                             const struct block_iov *iov)
{
    struct qcow2_state *s = qcow2_of(node);
    struct qcow2_inflated *in = s->inflated;
    uint32_t at = offset & (s->cluster_size - 1);
    unsigned count = slots_of(s);
    struct slot *slot;
    int ret = 0;

    if (iov->size == s->cluster_size) {
        return co_read_alone(node, offset, entry, at, iov);
    }
    co_mutex_lock(&in->lock);
    while ((slot = find_slot(in, count, entry)) && slot->is_loading) {
        co_queue_wait(&in->loaded, &in->lock);
    }
    if (!slot) {
        slot = take_slot(in, count);
        if (!slot) {
            co_mutex_unlock(&in->lock);
            return co_read_alone(node, offset, entry, at, iov);
        }
        ret = co_load_slot(node, offset, entry, slot);
    }
    if (ret == 0) {
        slot->used = ++in->clock;
        block_iov_write(iov, 0, slot->data + at, iov->size);
    }
    co_mutex_unlock(&in->lock);
    return ret;
}
