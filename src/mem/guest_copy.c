/* SPDX-License-Identifier: MIT */
/*
 * Copies between guest RAM, which vCPUs change meanwhile, and memory of ours.
 *
 * Aligned 1, 2, 4 and 8 bytes are one access, as for a CPU; more is memcpy(). Under
 * ThreadSanitizer guest_copy_tsan.c takes this file's place.
 */
#include <string.h>

#include "mem/dma.h"

static inline int is_single(const void *guest, uint64_t length)
{
    return length <= 8 && (length & (length - 1)) == 0 && ((uintptr_t)guest & (length - 1)) == 0;
}

void guest_copy_from(void *to, const void *guest, uint64_t length)
{
    if (length && is_single(guest, length)) {
        uint64_t v = length == 1   ? guest_load8(guest)
                     : length == 2 ? guest_load16(guest)
                     : length == 4 ? guest_load32(guest)
                                   : guest_load64(guest);
        memcpy(to, &v, length);
        return;
    }
    memcpy(to, guest, length);
}

void guest_copy_to(void *guest, const void *from, uint64_t length)
{
    if (length && is_single(guest, length)) {
        uint64_t v = 0;
        memcpy(&v, from, length);
        switch (length) {
        case 1:
            guest_store8(guest, (uint8_t)v);
            break;
        case 2:
            guest_store16(guest, (uint16_t)v);
            break;
        case 4:
            guest_store32(guest, (uint32_t)v);
            break;
        default:
            guest_store64(guest, v);
            break;
        }
        return;
    }
    memcpy(guest, from, length);
}
