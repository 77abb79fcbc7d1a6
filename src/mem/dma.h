/* SPDX-License-Identifier: MIT */
/*
 * DMA: a device's way to guest memory.
 *
 * dma_map() gives a host pointer to guest RAM that stays valid, whatever the guest does to the
 * memory map, until dma_unmap(), which also marks what was written as dirty and invalidates code
 * cached from there. Devices do DMA to RAM only: a range that is not RAM does not map, and its
 * user treats that as the guest's error. dma_read() and dma_write() copy; where the range is MMIO
 * and the thread holds the machine lock (or the region needs none) they go through the region's
 * callbacks, but never into a region of a device whose callback is running in this thread: no
 * device re-enters itself by DMA.
 *
 * Any registered thread; never blocks.
 */
#ifndef FERRY_MEM_DMA_H
#define FERRY_MEM_DMA_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "mem/address_space.h"

/* Maps up to *length bytes at address; *length becomes what is contiguous (> 0). NULL if there is
 * no RAM, or is_write and it is ROM. */
void *dma_map(struct address_space *as, uint64_t address, uint64_t *length, bool is_write);
/* host and length as dma_map() gave them; written: bytes from host on that were written. */
void dma_unmap(void *host, uint64_t length, bool is_write, uint64_t written);

enum mem_result dma_read(struct address_space *as, uint64_t address, void *buf, uint64_t length);
enum mem_result dma_write(struct address_space *as, uint64_t address, const void *buf,
                          uint64_t length);
/* The same of RAM and ROM alone: no region is called, so no lock is taken. A vCPU that is in the guest, whom
 * others may wait for with the machine lock held, uses no other. */
enum mem_result dma_read_ram(struct address_space *as, uint64_t address, void *buf,
                             uint64_t length);
enum mem_result dma_write_ram(struct address_space *as, uint64_t address, const void *buf,
                              uint64_t length);

/*
 * Guest RAM is shared with vCPUs that run: plain C accesses would race. These are relaxed atomics;
 * p is aligned to the size. guest_copy_*() copy bytes that a guest may be changing.
 */
static inline uint8_t guest_load8(const void *p)
{
    return __atomic_load_n((const uint8_t *)p, __ATOMIC_RELAXED);
}
static inline uint16_t guest_load16(const void *p)
{
    return __atomic_load_n((const uint16_t *)p, __ATOMIC_RELAXED);
}
static inline uint32_t guest_load32(const void *p)
{
    return __atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED);
}
static inline uint64_t guest_load64(const void *p)
{
    return __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED);
}
static inline void guest_store8(void *p, uint8_t v)
{
    __atomic_store_n((uint8_t *)p, v, __ATOMIC_RELAXED);
}
static inline void guest_store16(void *p, uint16_t v)
{
    __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELAXED);
}
static inline void guest_store32(void *p, uint32_t v)
{
    __atomic_store_n((uint32_t *)p, v, __ATOMIC_RELAXED);
}
static inline void guest_store64(void *p, uint64_t v)
{
    __atomic_store_n((uint64_t *)p, v, __ATOMIC_RELAXED);
}
void guest_copy_from(void *to, const void *guest, uint64_t length);
void guest_copy_to(void *guest, const void *from, uint64_t length);

#endif
