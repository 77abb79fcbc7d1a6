/* SPDX-License-Identifier: MIT */
/* Zeroes among data. See zeroes.h. */
#include "block/zeroes.h"

#include <string.h>

#include "aio/coroutine.h"
#include "base/range.h"
#include "block/iov.h"

#define STRIDE 256 /* bytes between two branches */

/* As wide as the processor likes: the compiler cuts it into what there is. */
typedef uint64_t vector __attribute__((vector_size(64), aligned(1), may_alias));

static uint64_t load(const unsigned char *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

/* By address: clang does not pass such a one by value without saying that callers might differ. */
static bool is_zero_vector(const vector *p)
{
    vector v = *p;

    return !(v[0] | v[1] | v[2] | v[3] | v[4] | v[5] | v[6] | v[7]);
}

bool block_bytes_are_zero(const void *data, size_t size)
{
    const unsigned char *p = data;

    if (size < sizeof(uint64_t)) {
        while (size && !p[size - 1]) {
            size--;
        }
        return !size;
    }
    /* Most data differs from zero in one of these. */
    if (load(p) | load(p + (size - 8) / 2) | load(p + size - 8)) {
        return false;
    }
    const unsigned char *end = p + size;
    for (; end - p >= STRIDE; p += STRIDE) {
        const vector *v = (const vector *)p;
        const vector all = (v[0] | v[1]) | (v[2] | v[3]);
        if (!is_zero_vector(&all)) {
            return false;
        }
    }
    for (; end - p >= 8; p += 8) {
        if (load(p)) {
            return false;
        }
    }
    return true; /* the last 8 bytes are known */
}

/* What is not zero mostly shows at once: only who has looked for a while waits for a turn. */
bool co_block_iov_is_zero(const struct block_iov *iov)
{
    uint64_t seen = 0;

    for (int i = 0; i < iov->niov; i++) {
        const char *p = iov->iov[i].iov_base;
        for (uint64_t left = iov->iov[i].iov_len; left;) {
            uint64_t n = MIN(left, seen < BLOCK_SHORT ? BLOCK_SHORT : CO_SHARE_PIECE);
            if (seen >= BLOCK_SHORT) {
                co_share(n);
            }
            if (!block_bytes_are_zero(p, n)) {
                return false;
            }
            p += n;
            left -= n;
            seen += n;
        }
    }
    return true;
}
