/* SPDX-License-Identifier: MIT */
/*
 * Clusters taken and given back, and who is about to change which entries.
 *
 * Given back in three stages (O3): frees[0], still pointed to on disk; frees[1], unlinked on stable
 * storage by a commit; frees[2], waiting until all requests have ended that may have looked them up
 * before. Then the refcount goes down, and they can be taken again.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "block/qcow2/refcount.h"

/* ---- looking for free clusters ----------------------------------------------------------------- */

struct search {
    uint64_t want; /* clusters */
    bool exact;    /* all of them, else at least one */
    uint64_t start, found;
    uint64_t at;   /* not looked at yet */
    bool is_first; /* no free cluster was seen before `start` */
};

/* Takes counts of a slice into account; true if the search is over. */
static bool search_slice(const struct qcow2_state *s, struct search *q, const void *slice,
                         size_t index, size_t count)
{
    for (size_t i = 0; i < count && q->found < q->want; i++, q->at++) {
        if (!qcow2_refcount_load(slice, index + i, s->refcount_order)) {
            q->found++;
            continue;
        }
        if (q->found && !q->exact) {
            return true;
        }
        if (q->found) {
            q->is_first = false;
        }
        q->found = 0;
        q->start = q->at + 1;
    }
    return q->found == q->want;
}

static uint64_t range_end(const struct qcow2_state *s, uint64_t cluster)
{
    return ((cluster >> s->refblock_bits) + 1) << s->refblock_bits;
}

/* The search has come to a range without refcount block. If the run need not be longer, the block
 * goes there; else all of the range is free. */
static int co_search_range(struct block_node *node, struct search *q)
{
    struct qcow2_state *s = qcow2_of(node);

    if (q->exact) {
        uint64_t n = MIN(range_end(s, q->at) - q->at, q->want - q->found);
        q->found += n;
        q->at += n;
        return q->found == q->want;
    }
    if (q->found) {
        return 1;
    }
    int ret = co_qcow2_make_refblock(node, q->at >> s->refblock_bits, q->at);
    return ret;
}

/* 1: found; or negative errno. */
static int co_search(struct block_node *node, struct search *q)
{
    struct qcow2_state *s = qcow2_of(node);
    struct qcow2_slice *slice;
    size_t index, count;
    int ret = 0;

    q->start = q->at = s->free_hint;
    q->found = 0;
    q->is_first = true;
    while (ret == 0) {
        ret = qcow2_check_limit(node, q->at, 1);
        if (ret < 0) {
            return !q->exact && q->found ? 1 : ret;
        }
        if (!qcow2_has_refblock(s, q->at)) {
            ret = co_search_range(node, q);
            continue;
        }
        co_qcow2_read_refcounts_ahead(node, q->at);
        ret = co_qcow2_refcount_slice(node, q->at, &slice, &index, &count);
        if (ret == 0) {
            ret = search_slice(s, q, slice->data, index, count);
            cache_put(&s->refcount_cache, slice);
        }
        if (q->is_first) {
            s->free_hint = q->start; /* all before it are taken */
        }
    }
    return ret;
}

/* ---- taking ----------------------------------------------------------------------------------- */

/* Refcount 1 for the run that was found; its host offset. */
static int64_t co_take(struct block_node *node, const struct search *q)
{
    struct qcow2_state *s = qcow2_of(node);

    int ret = qcow2_check_limit(node, q->start, q->found);
    if (ret == 0) {
        ret = co_qcow2_change_refcounts(node, q->start, q->found, 1);
    }
    if (ret < 0) {
        return ret;
    }
    uint64_t end = q->start + q->found;
    if (q->is_first) {
        s->free_hint = end;
    }
    s->fresh_from = MAX(s->fresh_from, end << s->cluster_bits);
    return (int64_t)(q->start << s->cluster_bits);
}

int64_t co_qcow2_alloc_run(struct block_node *node, uint64_t *count)
{
    struct search q = {.want = *count};

    block_debug_event(node->file, BLOCK_EVENT_CLUSTER_ALLOC);
    int ret = co_search(node, &q);
    if (ret < 0) {
        return ret;
    }
    int64_t offset = co_take(node, &q);
    *count = q.found;
    return offset;
}

/* The first free cluster at or behind *at for a refcount block; a block that is missing there is
 * made on the way. */
static int co_place_refblock(struct block_node *node, uint64_t *at, uint64_t *place)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t value;

    for (;; ++*at) {
        if (!qcow2_has_refblock(s, *at)) {
            int ret = co_qcow2_make_refblock(node, *at >> s->refblock_bits, *at);
            if (ret < 0) {
                return ret;
            }
            continue;
        }
        int ret = co_qcow2_get_refcount(node, *at, &value);
        if (ret < 0) {
            return ret;
        }
        if (!value) {
            *place = (*at)++;
            return 0;
        }
    }
}

/* Blocks for all ranges of the run, behind the run. 1: there is no longer such a run, as the table
 * had to grow. */
static int co_prepare_run(struct block_node *node, const struct search *q)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t first = q->start >> s->refblock_bits, end = q->start + q->found;
    uint64_t last = (end - 1) >> s->refblock_bits, place, missing = 0;
    uint64_t table = s->reftable_offset;

    for (uint64_t range = first; range <= last; range++) {
        missing += !qcow2_has_refblock(s, range << s->refblock_bits);
    }
    if (!missing) {
        return 0;
    }
    uint64_t need = (end + 2 * missing + 2) >> s->refblock_bits;
    if (need >= s->reftable_size) {
        int ret = co_qcow2_grow_reftable(node, need);
        return ret < 0 ? ret : 1;
    }
    for (uint64_t range = first; range <= last; range++) {
        if (qcow2_has_refblock(s, range << s->refblock_bits)) {
            continue;
        }
        int ret = co_place_refblock(node, &end, &place);
        /* That may have made this one, at a place of its own range behind the run. */
        if (ret == 0 && !qcow2_has_refblock(s, range << s->refblock_bits)) {
            ret = co_qcow2_make_refblock(node, range, place);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return s->reftable_offset != table; /* the new one may lie in the run */
}

int64_t co_qcow2_alloc_clusters(struct block_node *node, uint64_t bytes)
{
    struct qcow2_state *s = qcow2_of(node);
    struct search q = {.want = qcow2_align_cluster(s, bytes) >> s->cluster_bits, .exact = true};
    int ret;

    if (!q.want) {
        return -EINVAL;
    }
    block_debug_event(node->file, BLOCK_EVENT_CLUSTER_ALLOC);
    if (q.want == 1) {
        q.exact = false;
        ret = co_search(node, &q);
        return ret < 0 ? ret : co_take(node, &q);
    }
    do {
        ret = co_search(node, &q);
        if (ret > 0) {
            ret = co_prepare_run(node, &q);
        }
    } while (ret > 0);
    return ret < 0 ? ret : co_take(node, &q);
}

/* ---- compressed clusters ---------------------------------------------------------------------- */

/* Room behind the last compressed cluster; 0: there is none. */
static int64_t co_take_behind(struct block_node *node, uint64_t size)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t at = s->compressed_at, cluster = at >> s->cluster_bits, count, next = 0;

    if (!at) {
        return 0;
    }
    int ret = co_qcow2_get_refcount(node, cluster, &count);
    if (ret < 0) {
        return ret;
    }
    if (!count || count == s->max_refcount) {
        return 0;
    }
    if (size > s->cluster_size - (at & (s->cluster_size - 1))) {
        if (!qcow2_has_refblock(s, cluster + 1) || qcow2_check_limit(node, cluster + 1, 1) < 0) {
            return 0;
        }
        ret = co_qcow2_get_refcount(node, cluster + 1, &next);
        if (ret < 0 || next) {
            return ret;
        }
    }
    ret = co_qcow2_ref(node, at, size);
    if (ret == 0) {
        s->fresh_from = MAX(s->fresh_from, qcow2_align_cluster(s, at + size));
    }
    return ret < 0 ? ret : (int64_t)at;
}

int64_t co_qcow2_alloc_bytes(struct block_node *node, uint64_t size)
{
    struct qcow2_state *s = qcow2_of(node);

    assert(size && size <= s->cluster_size);
    block_debug_event(node->file, BLOCK_EVENT_CLUSTER_ALLOC_BYTES);
    int64_t offset = co_take_behind(node, size);
    if (!offset) {
        offset = co_qcow2_alloc_clusters(node, s->cluster_size);
    }
    if (offset < 0) {
        return offset;
    }
    int ret = qcow2_check_overlap(node, 0, (uint64_t)offset, size);
    if (ret < 0) {
        return ret;
    }
    uint64_t end = (uint64_t)offset + size;
    s->compressed_at = end & (s->cluster_size - 1) ? end : 0;
    return offset;
}

/* ---- giving back ------------------------------------------------------------------------------ */

static void append_free(struct qcow2_free_list *list, const struct qcow2_free *entry)
{
    struct qcow2_free *last = list->count ? &list->list[list->count - 1] : NULL;

    if (last && last->discard == entry->discard && last->offset + last->length == entry->offset) {
        last->length += entry->length;
        return;
    }
    if (list->count == list->capacity) {
        list->capacity = MAX(16, 2 * list->capacity);
        list->list = xreallocarray(list->list, list->capacity, sizeof(*list->list));
    }
    list->list[list->count++] = *entry;
}

void qcow2_append_frees(struct qcow2_free_list *to, struct qcow2_free_list *from)
{
    for (size_t i = 0; i < from->count; i++) {
        append_free(to, &from->list[i]);
    }
    free(from->list);
    *from = (struct qcow2_free_list){0};
}

void qcow2_free(struct block_node *node, uint64_t offset, uint64_t length, bool discard)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t first = align_down(offset, s->cluster_size);
    struct qcow2_free entry = {first, qcow2_align_cluster(s, offset + length) - first, discard};

    if (qcow2_check_free(node, entry.offset, entry.length) < 0) {
        return; /* leaked: better than to give away a table that is in use */
    }
    if (range_overlaps(entry.offset, entry.length, s->compressed_at, 1)) {
        s->compressed_at = 0; /* else its count could go up again */
    }
    append_free(&s->frees[0], &entry);
    atomic_store_explicit(&s->waiting_frees, s->frees[0].count, memory_order_relaxed);
    s->generation++;
    atomic_store(&s->unstable, true);
}

void qcow2_free_entry(struct block_node *node, uint64_t entry, bool discard)
{
    struct qcow2_state *s = qcow2_of(node);

    if (entry & QCOW2_COMPRESSED) {
        uint64_t offset = entry & s->compressed_offset_mask;
        uint64_t sectors = (entry >> s->compressed_shift & s->compressed_sectors_mask) + 1;
        offset = align_down(offset, QCOW2_COMPRESSED_SECTOR);
        qcow2_free(node, offset, sectors * QCOW2_COMPRESSED_SECTOR, discard);
    } else if (entry & QCOW2_OFFSET_MASK && !s->has_data_file) {
        qcow2_free(node, entry & QCOW2_OFFSET_MASK, s->cluster_size, discard);
    }
}

bool qcow2_has_frees(const struct qcow2_state *s)
{
    return s->frees[0].count || s->frees[1].count || s->frees[2].count;
}

/* ---- the last stage --------------------------------------------------------------------------- */

/* Of what the host may forget, those clusters that will be free; nobody can take them meanwhile,
 * nor does their count go up. */
static int co_list_discards(struct block_node *node, const struct qcow2_free *entry,
                            struct qcow2_free_list *list)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t count;

    for (uint64_t done = 0; done < entry->length; done += s->cluster_size) {
        uint64_t offset = entry->offset + done;
        int ret = co_qcow2_get_refcount(node, offset >> s->cluster_bits, &count);
        if (ret < 0) {
            return ret;
        }
        if (count == 1) {
            append_free(list, &(struct qcow2_free){offset, s->cluster_size, true});
        }
    }
    return 0;
}

static void co_discard_frees(struct block_node *node, const struct qcow2_free_list *frees)
{
    struct qcow2_state *s = qcow2_of(node);
    struct qcow2_free_list list = {0};
    int ret = 0;

    co_mutex_lock(&s->lock);
    for (size_t i = 0; i < frees->count && ret == 0; i++) {
        if (frees->list[i].discard) {
            ret = co_list_discards(node, &frees->list[i], &list);
        }
    }
    co_mutex_unlock(&s->lock);
    for (size_t i = 0; i < list.count; i++) {
        block_co_discard(node->file, list.list[i].offset, list.list[i].length);
    }
    free(list.list);
}

static int co_drop_counts(struct block_node *node, const struct qcow2_free_list *frees)
{
    struct qcow2_state *s = qcow2_of(node);
    int ret = 0;

    co_mutex_lock(&s->lock);
    for (size_t i = 0; i < frees->count; i++) {
        const struct qcow2_free *entry = &frees->list[i];
        cache_drop(&s->l2_cache, entry->offset, entry->length);
        int failed = co_qcow2_change_refcounts(node, entry->offset >> s->cluster_bits,
                                               entry->length >> s->cluster_bits, -1);
        if (failed == -EINVAL) {
            qcow2_signal_corruption(node, true, entry->offset, entry->length,
                                    "Freed clusters had a refcount of 0");
        }
        ret = failed < 0 ? failed : ret; /* the others all the same; this one is leaked */
    }
    co_mutex_unlock(&s->lock);
    return ret;
}

/* The list whose requests have all ended, or an empty one; moves the epoch on for the next. */
static struct qcow2_free_list take_ripe(struct qcow2_state *s)
{
    struct qcow2_free_list ripe = {0};

    for (unsigned turn = 0; turn < 2 && !ripe.count; turn++) {
        /* Requests of the epoch before this one: none can come to it any more. */
        if (!striped_is_zero(&s->epoch_users[(s->epoch + 1) & 1])) {
            break;
        }
        ripe = s->frees[2];
        s->frees[2] = (struct qcow2_free_list){0};
        if (s->frees[1].count) {
            s->frees[2] = s->frees[1];
            s->frees[1] = (struct qcow2_free_list){0};
            atomic_fetch_add(&s->epoch, 1);
        }
    }
    return ripe;
}

int co_qcow2_release_frees(struct block_node *node)
{
    struct qcow2_state *s = qcow2_of(node);
    int ret = 0;

    for (;;) {
        co_mutex_lock(&s->lock);
        struct qcow2_free_list ripe = take_ripe(s);
        co_mutex_unlock(&s->lock);
        if (!ripe.count) {
            free(ripe.list);
            return ret;
        }
        block_debug_event(node->file, BLOCK_EVENT_CLUSTER_FREE);
        co_discard_frees(node, &ripe);
        int failed = co_drop_counts(node, &ripe);
        ret = failed < 0 ? failed : ret;
        free(ripe.list);
    }
}

static uint64_t file_end(struct block_node *node)
{
    return qcow2_align_cluster(qcow2_of(node), block_length(node->file));
}

void qcow2_reset_allocator(struct block_node *node)
{
    struct qcow2_state *s = qcow2_of(node);

    s->free_hint = 0;
    s->compressed_at = 0;
    /* What a file grows by reads as zeroes. */
    s->fresh_from = node->file->grows ? MAX(s->fresh_from, file_end(node)) : UINT64_MAX;
}

void qcow2_allow_growth(struct block_node *node)
{
    struct qcow2_state *s = qcow2_of(node);

    if (s->fresh_from == UINT64_MAX && node->file->grows) {
        s->fresh_from = file_end(node);
    }
}

/* ---- changes under way ------------------------------------------------------------------------- */

bool co_qcow2_wait_allocs(struct block_node *node, uint64_t offset, uint64_t length)
{
    struct qcow2_state *s = qcow2_of(node);
    struct qcow2_alloc *alloc = s->allocs;
    bool waited = false;

    while (alloc) {
        if (range_overlaps(alloc->offset, alloc->length, offset, length)) {
            co_queue_wait(&alloc->waiters, &s->lock);
            waited = true;
            alloc = s->allocs;
        } else {
            alloc = alloc->next;
        }
    }
    return waited;
}

void qcow2_alloc_begin(struct qcow2_state *s, struct qcow2_alloc *alloc, uint64_t offset,
                       uint64_t length)
{
    alloc->offset = offset;
    alloc->length = length;
    co_queue_init(&alloc->waiters);
    alloc->next = s->allocs;
    s->allocs = alloc;
}

void qcow2_alloc_end(struct qcow2_state *s, struct qcow2_alloc *alloc)
{
    struct qcow2_alloc **p = &s->allocs;

    while (*p != alloc) {
        p = &(*p)->next;
    }
    *p = alloc->next;
    co_queue_wake_all(&alloc->waiters);
    co_queue_destroy(&alloc->waiters);
}
