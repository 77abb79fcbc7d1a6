/* SPDX-License-Identifier: MIT */
/*
 * A cache of metadata: slices of L2 tables, or of refcount blocks, by their offset in the file.
 *
 *   co_cache_get() --> slice (pinned) --> look, or with the image's `lock` change it --> cache_put()
 *
 * A slice is SLICE bytes, or a cluster if that is smaller. Dirty slices stay until a commit has
 * written them (commit.c takes copies, so that they can be changed meanwhile); clean ones that
 * nobody has pinned make room for others, the least recently used first. If all are dirty or pinned
 * the cache grows for a while; who dirties more than its size asks for a commit.
 */
#ifndef FERRY_BLOCK_QCOW2_CACHE_H
#define FERRY_BLOCK_QCOW2_CACHE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "aio/coroutine.h"
#include "block/debug.h"

#define QCOW2_SLICE 4096u /* bytes */

struct block_node;
struct qcow2_slice;

struct qcow2_cache {
    /* constant */
    struct block_node *node; /* the qcow2 node; slices are read from its file child */
    enum block_event load;   /* told when a slice is read */
    uint32_t slice_size;     /* bytes */
    size_t max_slices;       /* that it keeps when they are clean */
    /* under mutex, never held across a yield */
    pthread_mutex_t mutex;
    struct qcow2_slice **buckets;
    size_t bucket_count;       /* a power of 2 */
    struct qcow2_slice **ring; /* all slices; the hand goes around to find old ones */
    size_t slice_count, ring_capacity, hand;
    struct qcow2_slice **dirty; /* the dirty ones, in any order */
    size_t dirty_listed, dirty_capacity;
    /* atomic */
    _Atomic(size_t) dirty_count;
};

struct qcow2_slice {
    /* constant while anybody can find it */
    uint64_t offset;
    void *data; /* slice_size bytes, big-endian as on disk; aligned for O_DIRECT */
    /* under the cache's mutex */
    unsigned pins;
    bool is_loading;
    bool is_used;             /* since the hand passed */
    bool is_dirty;            /* differs from what a commit has taken */
    bool is_gone;             /* nobody finds it any more: the last cache_put() frees it */
    int error;                /* of loading it */
    struct qcow2_slice *next; /* of its bucket */
    struct cache_waiter *waiters;
    size_t ring_index;
    /* under the image's lock */
    bool is_new; /* of a table that nothing on disk points to */
};

void cache_init(struct qcow2_cache *cache, struct block_node *node, enum block_event load,
                uint32_t slice_size, uint64_t bytes);
/* Nothing pinned; what is dirty is lost. */
void cache_destroy(struct qcow2_cache *cache);
/* Other contents are behind the offsets from now on. Nothing pinned or dirty. */
void cache_drop_all(struct qcow2_cache *cache);
/* Frees clean slices that nobody has used since the last call. */
void cache_clean(struct qcow2_cache *cache);

/* The slice at `offset` (a multiple of slice_size), loaded if need be; pinned until cache_put(). 0 or
 * negative errno. Concurrent loads of one slice are one. */
int co_cache_get(struct qcow2_cache *cache, uint64_t offset, struct qcow2_slice **slice);
/* Reads slices of [offset, offset + length) that are not there in one go, for somebody who is about to
 * look at them all; a part of a table. Errors are left to those who get them. */
void co_cache_read_ahead(struct qcow2_cache *cache, uint64_t offset, uint64_t length);
/* The same if it is there, else NULL. Does not yield. */
struct qcow2_slice *cache_peek(struct qcow2_cache *cache, uint64_t offset);
/* The same, not pinned, with cache->mutex held by the caller, who may look at it while that is so. */
struct qcow2_slice *cache_peek_locked(struct qcow2_cache *cache, uint64_t offset);
void cache_put(struct qcow2_cache *cache, struct qcow2_slice *slice);
/* A slice of a table that is new: zeroes, dirty, not read, pinned. NULL: somebody is loading it, so
 * something refers to what was thought to be free; cache_drop() takes back what there is. */
struct qcow2_slice *cache_new(struct qcow2_cache *cache, uint64_t offset);
/* Forgets slices of [offset, offset + length), dirty ones as well: the clusters are free. */
void cache_drop(struct qcow2_cache *cache, uint64_t offset, uint64_t length);

/* The slice's bytes may be read under the image's lock, or without it under cache->mutex. They are
 * changed with both: cache_change_begin(), the change, cache_change_end(), which makes it dirty. */
void cache_change_begin(struct qcow2_cache *cache);
void cache_change_end(struct qcow2_cache *cache, struct qcow2_slice *slice);

/* For commits, with the image's lock: all dirty slices, sorted by offset, pinned, no longer dirty;
 * *count becomes how many; the caller frees the list. */
struct qcow2_slice **cache_take_dirty(struct qcow2_cache *cache, size_t *count);
/* Gives back the list's slices; failed: they become dirty again. */
void cache_give_back(struct qcow2_cache *cache, struct qcow2_slice **list, size_t count,
                     bool failed);

#endif
