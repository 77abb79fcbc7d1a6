/* SPDX-License-Identifier: MIT */
/*
 * Refcounts as the file has them, read around the cache: for image operations, which look at all of
 * them once. And refcounts of any width in a buffer.
 */
#ifndef FERRY_BLOCK_QCOW2_REFDISK_H
#define FERRY_BLOCK_QCOW2_REFDISK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "block/qcow2/qcow2.h"

#define REFDISK_WAYS 64u

/* A small cache of pieces of refcount blocks. */
struct refdisk {
    struct block_node *node;
    struct qcow2_state *s;
    uint32_t piece; /* bytes */
    uint64_t offset[REFDISK_WAYS];
    uint8_t *data[REFDISK_WAYS];
};

void refdisk_init(struct refdisk *disk, struct block_node *node);
void refdisk_destroy(struct refdisk *disk);
/* The refcount of a cluster; 0 where there is no block. -EIO: its table entry is impossible, or it
 * cannot be read. In a coroutine. */
int co_refdisk_get(struct refdisk *disk, uint64_t cluster, uint64_t *count);
/* Where the refcount of a cluster is: offset of its block (0: none) and index in it. */
int refdisk_place(const struct qcow2_state *s, uint64_t cluster, uint64_t *block, uint64_t *index);

/* Refcount `index` of a block of refcounts of 1 << order bits ("Refcount block entry"). */
static inline uint64_t refcount_load(const uint8_t *block, unsigned order, uint64_t index)
{
    switch (order) {
    case 3:
        return block[index];
    case 4:
        return load_be16(block + 2 * index);
    case 5:
        return load_be32(block + 4 * index);
    case 6:
        return load_be64(block + 8 * index);
    default: {
        unsigned shift = (index << order) & 7; /* bit 0 is the least significant */
        return block[index << order >> 3] >> shift & ((1u << (1u << order)) - 1);
    }
    }
}

static inline void refcount_store(uint8_t *block, unsigned order, uint64_t index, uint64_t count)
{
    switch (order) {
    case 3:
        block[index] = (uint8_t)count;
        return;
    case 4:
        store_be16(block + 2 * index, (uint16_t)count);
        return;
    case 5:
        store_be32(block + 4 * index, (uint32_t)count);
        return;
    case 6:
        store_be64(block + 8 * index, count);
        return;
    default: {
        unsigned shift = (index << order) & 7;
        uint8_t mask = (uint8_t)(((1u << (1u << order)) - 1) << shift);
        uint8_t *byte = &block[index << order >> 3];
        *byte = (uint8_t)((*byte & ~mask) | (count << shift & mask));
        return;
    }
    }
}

static inline uint64_t refcount_max(unsigned order)
{
    return order == 6 ? UINT64_MAX : BIT64(1u << order) - 1;
}

#endif
