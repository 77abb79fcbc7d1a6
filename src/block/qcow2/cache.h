/* SPDX-License-Identifier: MIT */
/*
 * A cache of metadata: slices of L2 tables, or of refcount blocks, by their offset in the file.
 *
 *   co_cache_get() --> slice (pinned) --> look, or with the image's `lock` change and
 *                                         cache_mark_dirty() --> cache_put()
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

#define QCOW2_SLICE 4096u /* bytes */

struct block_node;
struct qcow2_slice;

struct qcow2_cache {
    /* constant */
    struct block_node *node; /* the qcow2 node; slices are read from its file child */
    uint32_t slice_size;     /* bytes */
    size_t max_slices;       /* that it keeps when they are clean */
    /* under mutex, never held across a yield */
    pthread_mutex_t mutex;
    struct qcow2_slice **buckets;
    size_t bucket_count; /* a power of 2 */
    size_t slice_count, dirty_count;
    struct qcow2_slice *lru_first, *lru_last; /* unpinned clean ones */
};

void cache_init(struct qcow2_cache *cache, struct block_node *node, uint32_t slice_size,
                uint64_t bytes);
/* Nothing pinned; what is dirty is lost. */
void cache_destroy(struct qcow2_cache *cache);
/* Other contents are behind the offsets from now on. Nothing pinned or dirty. */
void cache_drop_all(struct qcow2_cache *cache);

/* The slice at `offset` (a multiple of slice_size), loaded if need be; pinned until cache_put(). 0 or
 * negative errno. Concurrent loads of one slice are one. */
int co_cache_get(struct qcow2_cache *cache, uint64_t offset, struct qcow2_slice **slice);
/* The same if it is there, else NULL. Does not yield. */
struct qcow2_slice *cache_peek(struct qcow2_cache *cache, uint64_t offset);
void cache_put(struct qcow2_cache *cache, struct qcow2_slice *slice);
/* A slice of a table that is new: zeroes, dirty, not read. */
struct qcow2_slice *cache_new(struct qcow2_cache *cache, uint64_t offset);
/* Forgets slices of [offset, offset + length), dirty ones as well: the clusters are free. */
void cache_drop(struct qcow2_cache *cache, uint64_t offset, uint64_t length);

/* The slice's bytes, big-endian as on disk. Reading without the image's lock: under cache->mutex, or
 * entry by entry with atomic loads. Changing: with the image's lock, entry by entry with atomic
 * stores, then cache_mark_dirty(). */
void *cache_data(struct qcow2_slice *slice);
void cache_mark_dirty(struct qcow2_cache *cache, struct qcow2_slice *slice);

#endif
