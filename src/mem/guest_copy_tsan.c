/* SPDX-License-Identifier: MIT */
/*
 * guest_copy.c for ThreadSanitizer, which would report a memcpy() of memory that a vCPU changes:
 * relaxed atomics, word by word where the guest's side is aligned.
 */
#include <string.h>

#include "mem/dma.h"

void guest_copy_from(void *to, const void *guest, uint64_t length)
{
    const uint8_t *from = guest;
    uint8_t *p = to;

    while (length) {
        uint64_t v;
        unsigned n = 8;
        while (n > length || (uintptr_t)from % n) {
            n /= 2;
        }
        v = n == 1   ? guest_load8(from)
            : n == 2 ? guest_load16(from)
            : n == 4 ? guest_load32(from)
                     : guest_load64(from);
        memcpy(p, &v, n);
        p += n;
        from += n;
        length -= n;
    }
}

void guest_copy_to(void *guest, const void *from, uint64_t length)
{
    const uint8_t *p = from;
    uint8_t *to = guest;

    while (length) {
        uint64_t v = 0;
        unsigned n = 8;
        while (n > length || (uintptr_t)to % n) {
            n /= 2;
        }
        memcpy(&v, p, n);
        if (n == 1) {
            guest_store8(to, (uint8_t)v);
        } else if (n == 2) {
            guest_store16(to, (uint16_t)v);
        } else if (n == 4) {
            guest_store32(to, (uint32_t)v);
        } else {
            guest_store64(to, v);
        }
        p += n;
        to += n;
        length -= n;
    }
}
