/* SPDX-License-Identifier: MIT */
/*
 * Commits: changes of metadata go to the file in the order of qcow2.h.
 *
 * With the lock, copies of all that is dirty are taken; with commit_lock alone, they are written, and
 * requests go on. What fails becomes dirty again, and what it would have unlinked stays as it is: the
 * next commit does it all once more. Writing an entry twice is harmless, as it says the same or what
 * came later.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "aio/clock.h"
#include "aio/coroutine.h"
#include "base/alloc.h"
#include "base/bytes.h"
#include "block/iov.h"
#include "block/qcow2/qcow2.h"

#define ENTRIES_PER_SECTOR 64u
#define SECTOR             512u
#define MAX_WRITE          MiB
#define MIN_DIRTY          256u /* slices; fewer are no reason to write */
#define MAX_FREES          16384u
#define MAX_CLEAN_COMMITS  16
#define MAX_ROOM_MS        4096 /* the last of the waits, which double */

/* Copies of dirty slices, sorted by offset. */
struct slices {
    struct qcow2_slice **list;
    size_t count;
    uint8_t *data;
    bool *is_new; /* of each: written in the first step */
};

/* Copies of dirty sectors of a table. */
struct sectors {
    uint64_t offset; /* of the table */
    uint32_t entries;
    uint32_t *list; /* numbers of sectors, ascending */
    size_t count;
    uint64_t *data; /* big-endian */
};

struct commit {
    struct block_node *node;
    struct qcow2_state *s;
    struct slices refcounts, l2;
    struct sectors l1, reftable;
    bool reftable_moved;
    struct qcow2_free_list frees;
    bool any_links, wants_flush;
    uint64_t generation, number;
};

/* ---- copies, with lock held -------------------------------------------------------------------- */

static int copy_slices(struct commit *c, struct qcow2_cache *cache, unsigned kind,
                       struct slices *slices)
{
    slices->list = cache_take_dirty(cache, &slices->count);
    if (!slices->count) {
        return 0;
    }
    slices->data = xaligned_alloc(4096, align_up(slices->count * cache->slice_size, 4096));
    slices->is_new = xcalloc(slices->count, sizeof(*slices->is_new));
    for (size_t i = 0; i < slices->count; i++) {
        const struct qcow2_slice *slice = slices->list[i];
        memcpy(slices->data + i * cache->slice_size, slice->data, cache->slice_size);
        slices->is_new[i] = slice->is_new && kind == QCOW2_OVERLAP_L2;
        int ret = qcow2_check_overlap(c->node, kind, slice->offset, cache->slice_size);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static void add_sector(struct sectors *to, uint32_t sector, uint32_t entries)
{
    to->list[to->count] = sector;
    for (uint32_t i = 0; i < ENTRIES_PER_SECTOR; i++) {
        uint32_t entry = sector * ENTRIES_PER_SECTOR + i;
        if (entry >= entries) {
            to->data[to->count * ENTRIES_PER_SECTOR + i] = 0;
        }
    }
    to->count++;
}

/* map: of dirty sectors; all: takes all. Entries are put in by the caller. */
static void take_sectors(struct sectors *to, uint8_t *map, uint32_t entries, uint64_t offset,
                         bool all)
{
    size_t size = (entries + ENTRIES_PER_SECTOR - 1) / ENTRIES_PER_SECTOR, count = 0;

    for (size_t i = 0; i < size; i++) {
        map[i] |= all;
        count += map[i];
    }
    *to = (struct sectors){.offset = offset, .entries = entries};
    to->list = xcalloc(count + 1, sizeof(*to->list));
    to->data = xcalloc(count + 1, SECTOR);
    for (size_t i = 0; i < size; i++) {
        if (map[i]) {
            add_sector(to, (uint32_t)i, entries);
            map[i] = 0;
        }
    }
}

static uint32_t sector_entries(const struct sectors *t, size_t i)
{
    return MIN(ENTRIES_PER_SECTOR, t->entries - t->list[i] * ENTRIES_PER_SECTOR);
}

static void copy_l1(struct commit *c)
{
    struct qcow2_state *s = c->s;

    if (!s->any_l1_dirty) {
        return;
    }
    take_sectors(&c->l1, s->l1_dirty, s->l1_size, s->l1_offset, false);
    for (size_t i = 0; i < c->l1.count; i++) {
        uint32_t first = c->l1.list[i] * ENTRIES_PER_SECTOR;
        for (uint32_t j = 0; j < sector_entries(&c->l1, i); j++) {
            c->l1.data[i * ENTRIES_PER_SECTOR + j] = htobe64(atomic_load(&s->l1[first + j]));
        }
    }
    s->any_l1_dirty = false;
}

static void copy_reftable(struct commit *c)
{
    struct qcow2_state *s = c->s;

    if (!s->any_reftable_dirty && !s->reftable_moved) {
        return;
    }
    take_sectors(&c->reftable, s->reftable_dirty, s->reftable_size, s->reftable_offset,
                 s->reftable_moved);
    for (size_t i = 0; i < c->reftable.count; i++) {
        uint32_t first = c->reftable.list[i] * ENTRIES_PER_SECTOR;
        for (uint32_t j = 0; j < sector_entries(&c->reftable, i); j++) {
            c->reftable.data[i * ENTRIES_PER_SECTOR + j] = htobe64(s->reftable[first + j]);
        }
    }
    s->any_reftable_dirty = false;
    c->reftable_moved = s->reftable_moved;
}

/* refcounts: also those, and their table; else they stay in the cache (lazy refcounts). */
static int co_take_copies(struct commit *c, bool refcounts)
{
    struct qcow2_state *s = c->s;

    refcounts |= s->reftable_moved; /* or the old table would be used for something else */
    int ret = copy_slices(c, &s->l2_cache, QCOW2_OVERLAP_L2, &c->l2);
    if (ret == 0 && refcounts) {
        ret = copy_slices(c, &s->refcount_cache, QCOW2_OVERLAP_REFBLOCK, &c->refcounts);
    }
    copy_l1(c);
    if (refcounts) {
        copy_reftable(c);
    }
    c->frees = s->frees[0];
    s->frees[0] = (struct qcow2_free_list){0};
    atomic_store(&s->waiting_frees, 0);
    c->any_links = s->any_links;
    s->any_links = false;
    c->generation = s->generation;
    return ret;
}

/* ---- writing, without it ----------------------------------------------------------------------- */

/* Slices of one kind; those that follow each other in one write. */
static int co_write_slices(struct commit *c, const struct slices *slices, uint32_t slice_size,
                           bool news, enum block_event event)
{
    int ret = 0;

    for (size_t i = 0; i < slices->count && ret == 0;) {
        if (slices->is_new[i] != news) {
            i++;
            continue;
        }
        size_t n = 1;
        while (i + n < slices->count && slices->is_new[i + n] == news &&
               slices->list[i + n]->offset == slices->list[i]->offset + n * slice_size &&
               (n + 1) * slice_size <= MAX_WRITE) {
            n++;
        }
        block_debug_event(c->node->file, event);
        ret = co_qcow2_pwrite(c->node, slices->list[i]->offset, slices->data + i * slice_size,
                              n * slice_size);
        i += n;
    }
    return ret;
}

static int co_write_sectors(struct commit *c, const struct sectors *t, enum block_event event)
{
    int ret = 0;

    for (size_t i = 0; i < t->count && ret == 0;) {
        size_t n = 1, bytes = sector_entries(t, i) * 8;
        while (i + n < t->count && t->list[i + n] == t->list[i] + n && bytes < MAX_WRITE) {
            bytes += sector_entries(t, i + n) * 8;
            n++;
        }
        block_debug_event(c->node->file, event);
        ret = co_qcow2_pwrite(c->node, t->offset + (uint64_t)t->list[i] * SECTOR,
                              t->data + i * ENTRIES_PER_SECTOR, bytes);
        i += n;
    }
    return ret;
}

/* Of the data, if that is in another file, before the metadata. */
static int co_flush_files(struct block_node *node)
{
    struct qcow2_state *s = qcow2_of(node);
    int ret = 0;

    if (s->data_file != node->file) {
        ret = block_co_flush(s->data_file, 0);
    }
    return ret == 0 ? block_co_flush(node->file, 0) : ret;
}

/* The header's fields of the refcount table, in one write of 12 bytes of its first sector. */
static int co_switch_reftable(struct commit *c)
{
    uint8_t bytes[12];

    store_be64(bytes, c->reftable.offset);
    store_be32(bytes + 8, (uint32_t)((uint64_t)c->reftable.entries * 8 >> c->s->cluster_bits));
    block_debug_event(c->node->file, BLOCK_EVENT_REFBLOCK_ALLOC_SWITCH_TABLE);
    int ret = co_qcow2_pwrite(c->node, QCOW2_H_REFTABLE_OFFSET, bytes, sizeof(bytes));
    return ret == 0 ? block_co_flush(c->node->file, 0) : ret;
}

static int co_write_reftable(struct commit *c)
{
    if (!c->reftable.count) {
        return 0;
    }
    int ret = co_write_sectors(c, &c->reftable,
                               c->reftable_moved ? BLOCK_EVENT_REFBLOCK_ALLOC_WRITE_TABLE
                                                 : BLOCK_EVENT_REFBLOCK_ALLOC_HOOKUP);
    if (ret == 0) {
        ret = block_co_flush(c->node->file, 0);
    }
    return ret == 0 && c->reftable_moved ? co_switch_reftable(c) : ret;
}

/* From now on something on disk may point to them. */
static void co_tables_are_old(struct commit *c)
{
    co_mutex_lock(&c->s->lock);
    for (size_t i = 0; i < c->l2.count; i++) {
        c->l2.list[i]->is_new = false;
    }
    co_mutex_unlock(&c->s->lock);
}

/* Steps 1 to 4 of qcow2.h. */
static int co_write_all(struct commit *c)
{
    struct qcow2_state *s = c->s;
    bool points = c->l2.count || c->l1.count || c->reftable.count;
    bool needs_order = points && (c->any_links || c->reftable.count);

    int ret = co_write_slices(c, &c->refcounts, s->refcount_cache.slice_size, false,
                              BLOCK_EVENT_REFBLOCK_UPDATE_PART);
    if (ret == 0) {
        ret = co_write_slices(c, &c->l2, s->l2_cache.slice_size, true, BLOCK_EVENT_L2_ALLOC_WRITE);
    }
    if (ret == 0 && needs_order) {
        ret = co_flush_files(c->node);
    }
    if (ret == 0) {
        ret = co_write_reftable(c);
    }
    if (ret == 0 && c->l2.count) {
        co_tables_are_old(c);
        ret = co_write_slices(c, &c->l2, s->l2_cache.slice_size, false, BLOCK_EVENT_L2_UPDATE);
    }
    if (ret == 0) {
        ret = co_write_sectors(c, &c->l1, BLOCK_EVENT_L1_UPDATE);
    }
    if (ret == 0 && (c->wants_flush || c->frees.count)) {
        ret = co_flush_files(c->node);
    }
    return ret;
}

/* ---- afterwards, with lock held ---------------------------------------------------------------- */

static void give_back_sectors(struct sectors *t, uint8_t *map, bool *any, bool failed)
{
    for (size_t i = 0; i < t->count && failed; i++) {
        map[t->list[i]] = 1;
        *any = true;
    }
    free(t->list);
    free(t->data);
}

static void give_back_slices(struct qcow2_cache *cache, struct slices *slices, bool failed)
{
    cache_give_back(cache, slices->list, slices->count, failed);
    free(slices->list);
    free(slices->data);
    free(slices->is_new);
}

static void finish(struct commit *c, int ret)
{
    struct qcow2_state *s = c->s;
    bool failed = ret < 0;

    give_back_slices(&s->l2_cache, &c->l2, failed);
    give_back_slices(&s->refcount_cache, &c->refcounts, failed);
    give_back_sectors(&c->l1, s->l1_dirty, &s->any_l1_dirty, failed);
    give_back_sectors(&c->reftable, s->reftable_dirty, &s->any_reftable_dirty, failed);
    if (failed) {
        s->any_links |= c->any_links;
        qcow2_append_frees(&s->frees[0], &c->frees);
        return;
    }
    if (c->reftable_moved && s->reftable_offset == c->reftable.offset) {
        s->reftable_moved = false;
    }
    qcow2_append_frees(&s->frees[1], &c->frees);
    if (c->wants_flush) {
        atomic_store(&s->commits_done, c->number);
        if (s->generation == c->generation) {
            atomic_store(&s->unstable, false);
        }
    }
}

/* ---- commits ----------------------------------------------------------------------------------- */

/* With commit_lock held. */
static int co_commit(struct block_node *node, bool flush, bool refcounts)
{
    struct qcow2_state *s = qcow2_of(node);
    struct commit c = {.node = node, .s = s, .wants_flush = flush};

    if (s->corrupt) {
        return -EIO;
    }
    c.number = atomic_fetch_add(&s->commits_begun, 1) + 1;
    co_mutex_lock(&s->lock);
    int ret = co_take_copies(&c, refcounts);
    co_mutex_unlock(&s->lock);
    if (ret == 0) {
        ret = co_write_all(&c);
    }
    co_mutex_lock(&s->lock);
    finish(&c, ret);
    co_mutex_unlock(&s->lock);
    if (ret == 0) {
        co_qcow2_release_frees(node); /* what fails there is leaked */
    }
    return ret;
}

int co_qcow2_commit(struct block_node *node, bool flush)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t begun = atomic_load(&s->commits_begun);
    int ret = 0;

    co_mutex_lock(&s->commit_lock);
    /* One that began after we were called has done it for us. */
    if (!flush || atomic_load(&s->commits_done) <= begun) {
        if (s->lazy_refcounts && flush && !s->dirty_bit) {
            ret = co_qcow2_mark_dirty(node);
        }
        if (ret == 0) {
            ret = co_commit(node, flush, !s->lazy_refcounts || !flush);
        }
    }
    co_mutex_unlock(&s->commit_lock);
    return ret;
}

/* Of clusters that are unlinked: some wait for requests that may still use them. */
static bool frees_ripen(struct qcow2_state *s)
{
    co_mutex_lock(&s->lock);
    bool some = s->frees[1].count || s->frees[2].count;
    co_mutex_unlock(&s->lock);
    return some;
}

int co_qcow2_make_room(struct block_node *node)
{
    struct qcow2_state *s = qcow2_of(node);

    co_mutex_lock(&s->lock);
    int ret = qcow2_has_frees(s) ? 0 : -ENOSPC;
    co_mutex_unlock(&s->lock);
    if (ret == 0) {
        ret = co_qcow2_commit(node, true);
    }
    for (unsigned ms = 1; ret == 0 && ms <= MAX_ROOM_MS && frees_ripen(s); ms *= 2) {
        co_sleep(AIO_CLOCK_RT, ms * NS_PER_MS);
        ret = co_qcow2_commit(node, true);
    }
    return ret;
}

int co_qcow2_balance(struct block_node *node)
{
    struct qcow2_state *s = qcow2_of(node);
    size_t l2 = atomic_load_explicit(&s->l2_cache.dirty_count, memory_order_relaxed);
    size_t refcounts = atomic_load_explicit(&s->refcount_cache.dirty_count, memory_order_relaxed);
    size_t max_l2 = MAX(s->l2_cache.max_slices / 2, MIN_DIRTY);
    size_t max_refcounts = MAX(s->refcount_cache.max_slices / 2, MIN_DIRTY);

    if (l2 <= max_l2 && refcounts <= max_refcounts &&
        atomic_load_explicit(&s->waiting_frees, memory_order_relaxed) <= MAX_FREES) {
        return 0;
    }
    bool is_other = atomic_exchange(&s->is_balancing, true);
    if (is_other && l2 <= 2 * max_l2 && refcounts <= 2 * max_refcounts) {
        return 0; /* somebody is at it */
    }
    int ret = co_qcow2_commit(node, false);
    if (!is_other) {
        atomic_store(&s->is_balancing, false);
    }
    return ret;
}

int co_qcow2_mark_dirty(struct block_node *node)
{
    struct qcow2_state *s = qcow2_of(node);

    co_mutex_lock(&s->lock);
    int ret = co_qcow2_set_incompatible(node, QCOW2_INCOMPAT_DIRTY, 0);
    co_mutex_unlock(&s->lock);
    return ret;
}

static bool is_all_clean(struct qcow2_state *s)
{
    return !s->l2_cache.dirty_count && !s->refcount_cache.dirty_count && !s->any_l1_dirty &&
           !s->any_reftable_dirty && !s->reftable_moved && !qcow2_has_frees(s);
}

int co_qcow2_mark_clean(struct block_node *node)
{
    struct qcow2_state *s = qcow2_of(node);
    int ret = 0;

    co_mutex_lock(&s->commit_lock);
    for (int i = 0; ret == 0 && !is_all_clean(s) && i < MAX_CLEAN_COMMITS; i++) {
        ret = co_commit(node, true, true);
    }
    if (ret == 0 && s->unstable) {
        ret = co_commit(node, true, true);
    }
    if (ret == 0) {
        ret = co_flush_files(node);
    }
    if (ret == 0 && !(node->flags & BLOCK_OPEN_CHECK)) { /* a check knows better */
        co_mutex_lock(&s->lock);
        ret = co_qcow2_set_incompatible(node, 0, QCOW2_INCOMPAT_DIRTY);
        co_mutex_unlock(&s->lock);
    }
    co_mutex_unlock(&s->commit_lock);
    return ret;
}

/* ---- flush requests ----------------------------------------------------------------------------- */

int qcow2_co_flush(struct block_node *node, uint64_t id)
{
    struct qcow2_state *s = qcow2_of(node);

    if (!atomic_load(&s->unstable)) {
        return co_flush_files(node);
    }
    int ret = co_qcow2_commit(node, true);
    if (ret < 0 && s->corrupt) {
        co_qcow2_mark_corrupt(node);
    }
    return ret;
}
