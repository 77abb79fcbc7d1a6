/* SPDX-License-Identifier: MIT */
/* See hash.h. */
#include "block/qcow2/hash.h"

#include <sys/random.h>

void qcow2_hash_init(struct qcow2_hash *hash)
{
    /* Where the kernel has none, or none yet, it has drawn addresses at least. */
    if (getrandom(hash->multipliers, sizeof(hash->multipliers), GRND_NONBLOCK) !=
        sizeof(hash->multipliers)) {
        hash->multipliers[0] = UINT64_C(0x9e3779b97f4a7c15) ^ (uintptr_t)hash << 16;
        hash->multipliers[1] = UINT64_C(0xbf58476d1ce4e5b9) ^ (uintptr_t)hash << 24;
    }
    hash->multipliers[0] |= 1;
    hash->multipliers[1] |= 1;
}
