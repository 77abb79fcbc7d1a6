/* SPDX-License-Identifier: MIT */
/* Request ids. A thread takes them in blocks, so that cores do not share a cache line per id. */
#include "trace/trace.h"

#include <stdatomic.h>

#define BLOCK 1024

static _Atomic uint64_t next_block = 1;

uint64_t trace_request_id(void)
{
    static _Thread_local uint64_t next, left;
    if (left == 0) {
        next = atomic_fetch_add_explicit(&next_block, BLOCK, memory_order_relaxed);
        left = BLOCK;
    }
    left--;
    return next++;
}
