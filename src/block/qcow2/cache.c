/* SPDX-License-Identifier: MIT */
/* The cache of metadata slices. See cache.h. */
#include "block/qcow2/cache.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/qcow2/qcow2.h"

#define DATA_ALIGNMENT 4096u

/* A coroutine that waits until somebody else has loaded a slice. On its stack. */
struct cache_waiter {
    struct coroutine *co;
    struct cache_waiter *next;
};

/* ---- finding --------------------------------------------------------------------------------- */

static struct qcow2_slice **bucket_of(struct qcow2_cache *cache, uint64_t offset)
{
    uint64_t hash = offset / cache->slice_size * UINT64_C(0x9e3779b97f4a7c15);

    return &cache->buckets[(hash >> 32) & (cache->bucket_count - 1)];
}

static struct qcow2_slice *find(struct qcow2_cache *cache, uint64_t offset)
{
    for (struct qcow2_slice *slice = *bucket_of(cache, offset); slice; slice = slice->next) {
        if (slice->offset == offset) {
            return slice;
        }
    }
    return NULL;
}

struct qcow2_slice *cache_peek_locked(struct qcow2_cache *cache, uint64_t offset)
{
    struct qcow2_slice *slice = find(cache, offset);

    if (!slice || slice->is_loading) {
        return NULL;
    }
    slice->is_used = true;
    return slice;
}

struct qcow2_slice *cache_peek(struct qcow2_cache *cache, uint64_t offset)
{
    pthread_mutex_lock(&cache->mutex);
    struct qcow2_slice *slice = cache_peek_locked(cache, offset);
    if (slice) {
        slice->pins++;
    }
    pthread_mutex_unlock(&cache->mutex);
    return slice;
}

/* ---- coming and going ------------------------------------------------------------------------- */

static void slice_free(struct qcow2_slice *slice)
{
    free(slice->data);
    free(slice);
}

static void unlist_dirty(struct qcow2_cache *cache, struct qcow2_slice *slice)
{
    for (size_t i = 0; i < cache->dirty_listed; i++) {
        if (cache->dirty[i] == slice) {
            cache->dirty[i] = cache->dirty[--cache->dirty_listed];
            break;
        }
    }
}

/* Nobody finds it any more. */
static void take_out(struct qcow2_cache *cache, struct qcow2_slice *slice)
{
    struct qcow2_slice **p = bucket_of(cache, slice->offset);

    while (*p != slice) {
        p = &(*p)->next;
    }
    *p = slice->next;
    struct qcow2_slice *last = cache->ring[--cache->slice_count];
    cache->ring[slice->ring_index] = last;
    last->ring_index = slice->ring_index;
    if (slice->is_dirty) {
        unlist_dirty(cache, slice);
        slice->is_dirty = false;
        atomic_fetch_sub(&cache->dirty_count, 1);
    }
}

/* An old slice that nobody needs, taken out; NULL if there is none among those looked at. */
static struct qcow2_slice *evict(struct qcow2_cache *cache)
{
    for (size_t steps = 2 * cache->slice_count; steps; steps--) {
        cache->hand = cache->hand + 1 < cache->slice_count ? cache->hand + 1 : 0;
        struct qcow2_slice *slice = cache->ring[cache->hand];
        if (slice->pins || slice->is_dirty) {
            continue;
        }
        if (!slice->is_used) {
            take_out(cache, slice);
            return slice;
        }
        slice->is_used = false;
    }
    return NULL;
}

/* A slice for the offset, which has none; pinned, its data undefined. */
static struct qcow2_slice *put_in(struct qcow2_cache *cache, uint64_t offset)
{
    struct qcow2_slice *slice = NULL;
    void *data = NULL;

    if (cache->slice_count >= cache->max_slices) {
        slice = evict(cache);
    }
    if (slice && cache->slice_count >= cache->max_slices) {
        /* It had grown: one more goes. */
        struct qcow2_slice *other = evict(cache);
        if (other) {
            slice_free(other);
        }
    }
    if (slice) {
        data = slice->data;
    } else {
        slice = xmalloc(sizeof(*slice));
        data = xaligned_alloc(DATA_ALIGNMENT, align_up(cache->slice_size, DATA_ALIGNMENT));
    }
    *slice = (struct qcow2_slice){.offset = offset, .data = data, .pins = 1, .is_used = true};
    if (cache->slice_count == cache->ring_capacity) {
        cache->ring_capacity = MAX(64, 2 * cache->ring_capacity);
        cache->ring = xreallocarray(cache->ring, cache->ring_capacity, sizeof(*cache->ring));
    }
    slice->ring_index = cache->slice_count;
    cache->ring[cache->slice_count++] = slice;
    struct qcow2_slice **bucket = bucket_of(cache, offset);
    slice->next = *bucket;
    *bucket = slice;
    return slice;
}

void cache_put(struct qcow2_cache *cache, struct qcow2_slice *slice)
{
    pthread_mutex_lock(&cache->mutex);
    assert(slice->pins);
    bool is_last = !--slice->pins && slice->is_gone;
    pthread_mutex_unlock(&cache->mutex);
    if (is_last) {
        slice_free(slice);
    }
}

/* ---- loading --------------------------------------------------------------------------------- */

/* Another coroutine loads it. With mutex held, which is released. */
static int co_wait_loaded(struct qcow2_cache *cache, struct qcow2_slice *slice)
{
    struct cache_waiter waiter = {.co = coroutine_self(), .next = slice->waiters};

    slice->waiters = &waiter;
    pthread_mutex_unlock(&cache->mutex);
    coroutine_yield();
    pthread_mutex_lock(&cache->mutex);
    int ret = slice->error;
    pthread_mutex_unlock(&cache->mutex);
    return ret;
}

/* It is there now, or (ret < 0) it is not; those who wait for it go on. */
static void loaded(struct qcow2_cache *cache, struct qcow2_slice *slice, int ret)
{
    pthread_mutex_lock(&cache->mutex);
    slice->is_loading = false;
    slice->error = ret;
    if (ret < 0 && !slice->is_gone) {
        take_out(cache, slice);
        slice->is_gone = true;
    }
    struct cache_waiter *waiter = slice->waiters;
    slice->waiters = NULL;
    pthread_mutex_unlock(&cache->mutex);
    while (waiter) {
        struct cache_waiter *next = waiter->next; /* the waiter is gone once it runs */
        co_wake(waiter->co);
        waiter = next;
    }
}

static int co_load(struct qcow2_cache *cache, struct qcow2_slice *slice)
{
    block_debug_event(cache->node->file, cache->load);
    int ret = co_qcow2_pread(cache->node, slice->offset, slice->data, cache->slice_size);
    loaded(cache, slice, ret);
    return ret;
}

int co_cache_get(struct qcow2_cache *cache, uint64_t offset, struct qcow2_slice **slice)
{
    int ret = 0;

    pthread_mutex_lock(&cache->mutex);
    struct qcow2_slice *found = find(cache, offset);
    if (found) {
        found->pins++;
        found->is_used = true;
        if (found->is_loading) {
            ret = co_wait_loaded(cache, found);
        } else {
            pthread_mutex_unlock(&cache->mutex);
        }
    } else {
        found = put_in(cache, offset);
        found->is_loading = true;
        pthread_mutex_unlock(&cache->mutex);
        ret = co_load(cache, found);
    }
    if (ret < 0) {
        cache_put(cache, found);
        found = NULL;
    }
    *slice = found;
    return ret;
}

#define READ_AHEAD 16 /* slices */

void co_cache_read_ahead(struct qcow2_cache *cache, uint64_t offset, uint64_t length)
{
    struct qcow2_slice *slices[READ_AHEAD];
    unsigned count = 0, max = (unsigned)MIN(READ_AHEAD, length / cache->slice_size);

    pthread_mutex_lock(&cache->mutex);
    while (count < max && !find(cache, offset + (uint64_t)count * cache->slice_size)) {
        struct qcow2_slice *slice = put_in(cache, offset + (uint64_t)count * cache->slice_size);
        slice->is_loading = true;
        slices[count++] = slice;
    }
    pthread_mutex_unlock(&cache->mutex);
    if (!count) {
        return;
    }
    size_t size = (size_t)count * cache->slice_size;
    uint8_t *data = xaligned_alloc(DATA_ALIGNMENT, align_up(size, DATA_ALIGNMENT));
    block_debug_event(cache->node->file, cache->load);
    int ret = co_qcow2_pread(cache->node, offset, data, size);
    for (unsigned i = 0; i < count; i++) {
        if (ret == 0) {
            memcpy(slices[i]->data, data + (size_t)i * cache->slice_size, cache->slice_size);
        }
        loaded(cache, slices[i], ret);
        cache_put(cache, slices[i]);
    }
    free(data);
}

/* ---- changing -------------------------------------------------------------------------------- */

/* With mutex held. */
static void mark_dirty(struct qcow2_cache *cache, struct qcow2_slice *slice)
{
    if (slice->is_dirty || slice->is_gone) {
        return;
    }
    slice->is_dirty = true;
    atomic_fetch_add(&cache->dirty_count, 1);
    if (cache->dirty_listed == cache->dirty_capacity) {
        cache->dirty_capacity = MAX(64, 2 * cache->dirty_capacity);
        cache->dirty = xreallocarray(cache->dirty, cache->dirty_capacity, sizeof(*cache->dirty));
    }
    cache->dirty[cache->dirty_listed++] = slice;
}

struct qcow2_slice *cache_new(struct qcow2_cache *cache, uint64_t offset)
{
    pthread_mutex_lock(&cache->mutex);
    struct qcow2_slice *slice = find(cache, offset);
    if (slice && slice->is_loading) {
        pthread_mutex_unlock(&cache->mutex);
        return NULL;
    }
    if (slice) {
        slice->pins++;
    } else {
        slice = put_in(cache, offset);
    }
    memset(slice->data, 0, cache->slice_size);
    slice->is_new = true;
    mark_dirty(cache, slice);
    pthread_mutex_unlock(&cache->mutex);
    return slice;
}

void cache_drop(struct qcow2_cache *cache, uint64_t offset, uint64_t length)
{
    pthread_mutex_lock(&cache->mutex);
    for (uint64_t done = 0; done < length && cache->slice_count; done += cache->slice_size) {
        struct qcow2_slice *slice = find(cache, offset + done);
        if (!slice) {
            continue;
        }
        take_out(cache, slice);
        if (slice->pins) {
            slice->is_gone = true;
        } else {
            slice_free(slice);
        }
    }
    pthread_mutex_unlock(&cache->mutex);
}

void cache_change_begin(struct qcow2_cache *cache)
{
    pthread_mutex_lock(&cache->mutex);
}

void cache_change_end(struct qcow2_cache *cache, struct qcow2_slice *slice)
{
    mark_dirty(cache, slice);
    pthread_mutex_unlock(&cache->mutex);
}

/* ---- commits --------------------------------------------------------------------------------- */

static int compare_offsets(const void *a, const void *b)
{
    const struct qcow2_slice *x = *(struct qcow2_slice *const *)a;
    const struct qcow2_slice *y = *(struct qcow2_slice *const *)b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

struct qcow2_slice **cache_take_dirty(struct qcow2_cache *cache, size_t *count)
{
    pthread_mutex_lock(&cache->mutex);
    struct qcow2_slice **list = cache->dirty;
    *count = cache->dirty_listed;
    for (size_t i = 0; i < *count; i++) {
        list[i]->pins++;
        list[i]->is_dirty = false;
    }
    atomic_fetch_sub(&cache->dirty_count, *count);
    cache->dirty = NULL;
    cache->dirty_listed = cache->dirty_capacity = 0;
    pthread_mutex_unlock(&cache->mutex);
    if (*count) {
        qsort(list, *count, sizeof(*list), compare_offsets);
    }
    return list;
}

void cache_give_back(struct qcow2_cache *cache, struct qcow2_slice **list, size_t count,
                     bool failed)
{
    for (size_t i = 0; i < count; i++) {
        pthread_mutex_lock(&cache->mutex);
        if (failed && !list[i]->is_gone) {
            mark_dirty(cache, list[i]);
        }
        pthread_mutex_unlock(&cache->mutex);
        cache_put(cache, list[i]);
    }
}

/* ---- all of it ------------------------------------------------------------------------------- */

void cache_init(struct qcow2_cache *cache, struct block_node *node, enum block_event load,
                uint32_t slice_size, uint64_t bytes)
{
    *cache = (struct qcow2_cache){
        .node = node,
        .load = load,
        .slice_size = slice_size,
        .max_slices = MAX(bytes / slice_size, 4),
        .bucket_count = 64,
    };
    while (cache->bucket_count < cache->max_slices) {
        cache->bucket_count *= 2;
    }
    cache->buckets = xcalloc(cache->bucket_count, sizeof(*cache->buckets));
    pthread_mutex_init(&cache->mutex, NULL);
}

void cache_drop_all(struct qcow2_cache *cache)
{
    pthread_mutex_lock(&cache->mutex);
    for (size_t i = 0; i < cache->slice_count; i++) {
        assert(!cache->ring[i]->pins);
        slice_free(cache->ring[i]);
    }
    cache->slice_count = cache->hand = cache->dirty_listed = 0;
    atomic_store(&cache->dirty_count, 0);
    memset(cache->buckets, 0, cache->bucket_count * sizeof(*cache->buckets));
    pthread_mutex_unlock(&cache->mutex);
}

void cache_destroy(struct qcow2_cache *cache)
{
    if (!cache->buckets) {
        return;
    }
    cache_drop_all(cache);
    pthread_mutex_destroy(&cache->mutex);
    free(cache->buckets);
    free(cache->ring);
    free(cache->dirty);
    *cache = (struct qcow2_cache){0};
}

void cache_clean(struct qcow2_cache *cache)
{
    pthread_mutex_lock(&cache->mutex);
    for (size_t i = cache->slice_count; i-- > 0;) {
        struct qcow2_slice *slice = cache->ring[i];
        if (slice->is_used || slice->pins || slice->is_dirty) {
            slice->is_used = false;
            continue;
        }
        take_out(cache, slice); /* the last one, already looked at, comes into its place */
        slice_free(slice);
    }
    pthread_mutex_unlock(&cache->mutex);
}
