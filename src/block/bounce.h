/* SPDX-License-Identifier: MIT */
/*
 * Requests that a driver cannot take as they are.
 *
 *   offset and length whole blocks, buffers aligned, but too much at once:  cut into pieces
 *   buffers not aligned as O_DIRECT needs them:           copied through an aligned buffer
 *   offset or length not whole blocks:                    padded; a write reads the blocks at its
 *                                                         ends first
 *
 *      request             |-----------|
 *      blocks      |-------+---|-------+---|
 *      read first  |xxxxxxx        xxxx+xxx|     then written as one
 *
 * Buffers are bounded, so that a guest cannot make us allocate as much as it asks to transfer: one
 * request has one of at most BOUNCE_SIZE, and when all together have BOUNCE_BUDGET, those that
 * come now make do with BOUNCE_SMALL. Drivers that copy what guests transfer keep to the same budget.
 */
#ifndef FERRY_BLOCK_BOUNCE_H
#define FERRY_BLOCK_BOUNCE_H

#include "aio/coroutine.h"
#include "base/range.h"
#include "block/node.h"

#define BOUNCE_SIZE   (256 * KiB)
#define BOUNCE_SMALL  (16 * KiB)
#define BOUNCE_BUDGET (32 * MiB)

/* `size`, or if the budget is spent at most BOUNCE_SMALL; in whole blocks, at least one. Any thread, as
 * the three below. */
uint64_t bounce_room(uint64_t size, uint32_t block);
/* Takes from the budget, whether or not it is spent. NULL: no memory. */
void *bounce_alloc(size_t alignment, size_t size);
void bounce_free(void *buffer, size_t size); /* buffer may be NULL */
size_t bounce_in_use(void);                  /* bytes of all buffers */

/*
 * Buffers of one node that cannot be small, as they are of whole clusters. Who comes when the budget is
 * spent waits, first come, first served, until it is not or the node has none left: each node may have
 * one whatever others have. A request has one of a node at a time, and waits with it for nodes below
 * only; so each comes to its end.
 */
struct bounce_line {
    /* atomic */
    _Atomic(unsigned) holders, waiting;
    /* a coroutine lock: who has it is the one that waits, others wait for it */
    struct co_mutex turn;
    /* under lock */
    struct co_mutex lock;
    struct co_queue given_back;
};

void bounce_line_init(struct bounce_line *line);
void bounce_line_destroy(struct bounce_line *line);
/* At a page. NULL: no memory. Any loop. */
void *co_bounce_line_alloc(struct bounce_line *line, size_t size);
void co_bounce_line_free(struct bounce_line *line, void *buffer, size_t size);

bool bounce_buffers_aligned(const struct block_node *node, const struct block_iov *iov);

/* True if the driver can take the request. */
static inline bool bounce_not_needed(const struct block_node *node, uint64_t offset,
                                     const struct block_iov *iov)
{
    return !((offset | iov->size) & node->request_mask) && iov->size <= node->limits.max_transfer &&
           (uint32_t)iov->niov <= node->limits.max_iov &&
           (node->limits.memory_alignment == 1 || bounce_buffers_aligned(node, iov));
}

int co_bounce_read(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                   unsigned flags, uint64_t id);
/* The caller has made sure that nobody else writes to the blocks. */
int co_bounce_write(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                    unsigned flags, uint64_t id);
/* Writes zeroes from a buffer, by block_co_pwritev(). */
int co_bounce_zeroes(struct block_node *node, uint64_t offset, uint64_t length, unsigned flags);

#endif
