/* SPDX-License-Identifier: MIT */
/* DMA: mappings of guest RAM and copies (mem/dma.h). */
#include "mem/dma.h"

#include "base/range.h"
#include "mem/internal.h"

static bool is_mappable(const struct flat_range *range, bool is_write)
{
    return range->is_ram && !(is_write && range->readonly);
}

void *dma_map(struct address_space *as, uint64_t address, uint64_t *length, bool is_write)
{
    void *host = NULL;

    if (*length == 0) {
        return NULL;
    }
    mem_read_begin();
    const struct flat_view *view = address_space_view(as);
    const struct flat_range *range = flat_view_find(view, address);
    if (range && is_mappable(range, is_write)) {
        const struct flat_range *end = view->ranges + view->count;
        struct ram_block *block = range->region->ram;
        uint64_t left = *length - 1; /* bytes after the first */
        uint64_t have = range->last - address;

        host = range->host + (address - range->first);
        /* What the map cuts in pieces (shadowed BIOS areas) is often one piece of host memory. */
        for (const struct flat_range *next = range + 1;
             have < left && next < end && next->first == range->last + 1 &&
             next->host == range->host + (range->last - range->first) + 1 &&
             next->region->ram == block && is_mappable(next, is_write);
             range = next++) {
            have += next->last - next->first + 1;
        }
        *length = MIN(have, left) + 1;
        ram_block_ref(block);
    }
    mem_read_end();
    return host;
}

void dma_unmap(void *host, uint64_t length, bool is_write, uint64_t written)
{
    uint64_t offset;

    mem_read_begin();
    struct ram_block *block = ram_block_from_host(host, &offset);
    assert(block);
    written = MIN(written, length);
    if (is_write && written) {
        ram_written(block, offset, written);
    }
    bool last = ram_block_unref(block);
    mem_read_end();
    if (last) {
        ram_block_release(block);
    }
}

enum mem_result dma_read(struct address_space *as, uint64_t address, void *buf, uint64_t length)
{
    return mem_access(as, address, buf, length, MEM_ACCESS_DMA);
}

enum mem_result dma_write(struct address_space *as, uint64_t address, const void *buf,
                          uint64_t length)
{
    return mem_access(as, address, (void *)buf, length, MEM_ACCESS_DMA | MEM_ACCESS_WRITE);
}

enum mem_result dma_read_ram(struct address_space *as, uint64_t address, void *buf, uint64_t length)
{
    return mem_access(as, address, buf, length, MEM_ACCESS_DMA | MEM_ACCESS_RAM);
}

enum mem_result dma_write_ram(struct address_space *as, uint64_t address, const void *buf,
                              uint64_t length)
{
    return mem_access(as, address, (void *)buf, length,
                      MEM_ACCESS_DMA | MEM_ACCESS_RAM | MEM_ACCESS_WRITE);
}
