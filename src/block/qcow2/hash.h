/* SPDX-License-Identifier: MIT */
/*
 * Hashes of clusters, for tables with open addressing. Whoever makes an image knows this code, but
 * not the multipliers, which are drawn for each table: nobody can choose clusters that all go to one
 * place.
 */
#ifndef FERRY_BLOCK_QCOW2_HASH_H
#define FERRY_BLOCK_QCOW2_HASH_H

#include <stdint.h>

struct qcow2_hash {
    uint64_t multipliers[2]; /* odd */
};

void qcow2_hash_init(struct qcow2_hash *hash);

/* A number of `bits` bits, 1 to 63. */
static inline uint64_t qcow2_hash(const struct qcow2_hash *hash, uint64_t key, unsigned bits)
{
    key *= hash->multipliers[0];
    key ^= key >> 32;
    return key * hash->multipliers[1] >> (64 - bits);
}

#endif
