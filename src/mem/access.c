/* SPDX-License-Identifier: MIT */
/*
 * Accesses to an address space, split into pieces that lie within one range each.
 *
 * A piece in RAM is copied within the read side. A piece for a device leaves the read side before
 * its callback: a callback may take locks, or change the memory map and wait for readers. What
 * keeps the region alive meanwhile is the machine lock, or for lockless regions the count of
 * running callbacks. A thread that has to wait for the machine lock looks the address up again
 * when it has it.
 */
#include <stdatomic.h>
#include <string.h>

#include "base/bytes.h"
#include "base/range.h"
#include "mem/dma.h"
#include "mem/internal.h"
#include "mem/machine_lock.h"

/* A copy within a read side is no longer than this, so that a commit never waits long. */
#define MAX_COPY (256 * KiB)

struct access {
    struct address_space *as;
    unsigned flags;
    bool locked; /* we took the machine lock */
};

static uint64_t range_left(const struct flat_range *range, uint64_t address)
{
    uint64_t left = range->last - address;

    return left == UINT64_MAX ? left : left + 1;
}

/* Bytes from an address that nobody answers at, up to the next range. */
static uint64_t hole_left(const struct flat_view *view, uint64_t address)
{
    unsigned i = flat_view_lookup(view, address);

    return i < view->count ? view->ranges[i].first - address : UINT64_MAX;
}

/* Size of the next access to a device. */
static unsigned io_size(const struct address_space *as, const struct mem_region_ops *ops,
                        uint64_t offset, uint64_t length)
{
    unsigned size = mem_ops_valid_max(ops);

    if (as == address_space_io) {
        size = MIN(size, 4);
    }
    while (size > length || (!ops->valid.unaligned && offset % size)) {
        size /= 2;
    }
    return size;
}

/* Leaves the read side. */
static enum mem_result access_ram(const struct access *a, const struct flat_range *range,
                                  uint64_t address, uint8_t *buf, uint64_t length)
{
    uint8_t *host = range->host + (address - range->first);

    if (!(a->flags & MEM_ACCESS_WRITE)) {
        guest_copy_from(buf, host, length);
    } else if (!range->readonly) {
        guest_copy_to(host, buf, length);
        ram_written(range->region->ram, range->offset + (address - range->first), length);
    }
    mem_read_end();
    return MEM_OK;
}

static enum mem_result call_region(const struct access *a, struct mem_region *mr, uint64_t offset,
                                   uint8_t *buf, unsigned size)
{
    uint64_t value;

    if (a->flags & MEM_ACCESS_WRITE) {
        return mem_region_call_write(mr, offset, load_le(buf, size), size);
    }
    enum mem_result result = mem_region_call_read(mr, offset, &value, size);
    store_le(buf, size, value);
    return result;
}

/* Who may call the region now, and how. */
enum io_way {
    IO_CALL,          /* the machine lock is held */
    IO_CALL_LOCKLESS, /* the region needs none */
    IO_LOCK_FIRST,
    IO_REFUSE, /* the device would re-enter itself */
    IO_UNREACHABLE,
};

static enum io_way io_way(const struct access *a, const struct mem_region *mr)
{
    bool dma = a->flags & MEM_ACCESS_DMA;

    if (dma && mem_region_is_entered(mr)) {
        return IO_REFUSE;
    }
    if (mr->ops->lockless) {
        return IO_CALL_LOCKLESS;
    }
    if (machine_lock_held()) {
        return IO_CALL;
    }
    return dma ? IO_UNREACHABLE : IO_LOCK_FIRST;
}

static enum mem_result refuse(const struct access *a, uint8_t *buf, uint64_t size,
                              enum mem_result result)
{
    if (!(a->flags & MEM_ACCESS_WRITE)) {
        memset(buf, 0xff, size);
    }
    return result;
}

/*
 * Leaves the read side. *length becomes the size of this access, or 0 if the machine lock had to be
 * taken and the address is to be looked up again.
 */
static enum mem_result access_io(struct access *a, const struct flat_range *range, uint64_t address,
                                 uint8_t *buf, uint64_t *length)
{
    struct mem_region *mr = range->region;
    uint64_t offset = range->offset + (address - range->first);
    unsigned size = io_size(a->as, mr->ops, offset, *length);
    enum mem_result result;

    *length = size;
    if (a->flags & MEM_ACCESS_WRITE &&
        mem_region_signal_eventfd(mr, offset, load_le(buf, size), size)) {
        mem_read_end();
        return MEM_OK;
    }
    enum io_way way = io_way(a, mr);
    if (way == IO_CALL_LOCKLESS) {
        atomic_fetch_add_explicit(&mr->running, 1, memory_order_relaxed);
    }
    mem_read_end();

    switch (way) {
    case IO_CALL:
        return call_region(a, mr, offset, buf, size);
    case IO_CALL_LOCKLESS:
        result = call_region(a, mr, offset, buf, size);
        atomic_fetch_sub_explicit(&mr->running, 1, memory_order_release);
        return result;
    case IO_LOCK_FIRST:
        machine_lock();
        a->locked = true;
        *length = 0;
        return MEM_OK;
    case IO_REFUSE:
        return refuse(a, buf, size, MEM_DEVICE_ERROR);
    case IO_UNREACHABLE:
        break;
    }
    return refuse(a, buf, size, MEM_DECODE_ERROR);
}

/* The first piece of [address, address + *length); *length becomes its length. */
static enum mem_result access_piece(struct access *a, uint64_t address, uint8_t *buf,
                                    uint64_t *length)
{
    mem_read_begin();
    const struct flat_view *view = address_space_view(a->as);
    const struct flat_range *range = flat_view_find(view, address);

    if (!range) {
        *length = MIN(*length, hole_left(view, address));
        mem_read_end();
        if (!(a->flags & MEM_ACCESS_WRITE)) {
            memset(buf, 0xff, *length);
        }
        return MEM_DECODE_ERROR;
    }
    *length = MIN(*length, range_left(range, address));
    /* A rom-device in ROM mode takes writes by its callbacks. */
    if (range->is_ram && !(range->readonly && range->region->ops && a->flags & MEM_ACCESS_WRITE)) {
        *length = MIN(*length, MAX_COPY);
        return access_ram(a, range, address, buf, *length);
    }
    if (a->flags & MEM_ACCESS_RAM) {
        mem_read_end();
        return refuse(a, buf, *length, MEM_DECODE_ERROR);
    }
    return access_io(a, range, address, buf, length);
}

enum mem_result mem_access(struct address_space *as, uint64_t address, void *buf, uint64_t length,
                           unsigned flags)
{
    struct access a = {.as = as, .flags = flags};
    enum mem_result worst = MEM_OK;
    uint8_t *p = buf;

    while (length) {
        uint64_t n = length;
        enum mem_result result = access_piece(&a, address, p, &n);
        worst = MAX(worst, result);
        p += n;
        length -= n;
        address += n;
        if (length && n && address == 0) {
            /* Behind the last byte of 2^64 there is nothing. */
            if (!(flags & MEM_ACCESS_WRITE)) {
                memset(p, 0xff, length);
            }
            worst = MAX(worst, MEM_DECODE_ERROR);
            break;
        }
    }
    if (a.locked) {
        machine_unlock();
    }
    return worst;
}

/* ---- public --------------------------------------------------------------------------------- */

enum mem_result address_space_read(struct address_space *as, uint64_t address, void *buf,
                                   uint64_t length)
{
    return mem_access(as, address, buf, length, 0);
}

enum mem_result address_space_write(struct address_space *as, uint64_t address, const void *buf,
                                    uint64_t length)
{
    /* Only reads change buf. */
    return mem_access(as, address, (void *)buf, length, MEM_ACCESS_WRITE);
}

enum mem_result address_space_rw(struct address_space *as, uint64_t address, void *buf,
                                 uint64_t length, bool is_write)
{
    return mem_access(as, address, buf, length, is_write ? MEM_ACCESS_WRITE : 0);
}

enum mem_result address_space_write_rom(struct address_space *as, uint64_t address, const void *buf,
                                        uint64_t length)
{
    enum mem_result worst = MEM_OK;
    const uint8_t *p = buf;

    while (length) {
        mem_read_begin();
        const struct flat_view *view = address_space_view(as);
        const struct flat_range *range = flat_view_find(view, address);
        uint64_t n = MIN(length, range ? range_left(range, address) : hole_left(view, address));
        n = MIN(n, MAX_COPY);
        struct ram_block *block = range ? range->region->ram : NULL;
        if (block) {
            uint64_t offset = range->offset + (address - range->first);
            guest_copy_to(block->host + offset, p, n);
            ram_written(block, offset, n);
        } else {
            worst = MEM_DECODE_ERROR;
        }
        mem_read_end();
        p += n;
        length -= n;
        address += n;
        if (address == 0 && length) {
            return MEM_DECODE_ERROR;
        }
    }
    return worst;
}

bool address_space_find(struct address_space *as, uint64_t address, struct mem_section *section)
{
    mem_read_begin();
    const struct flat_range *range = flat_view_find(address_space_view(as), address);

    if (range) {
        *section = flat_range_section(range);
        section->address = address;
        section->size = range_left(range, address);
        section->offset += address - range->first;
    }
    mem_read_end();
    return range != NULL;
}

bool address_space_find_ram(struct address_space *as, uint64_t address, struct mem_host_page *page)
{
    uint64_t first = align_down(address, GUEST_PAGE_SIZE);
    bool found = false;

    mem_read_begin();
    const struct flat_range *range = flat_view_find(address_space_view(as), address);
    if (range && range->is_ram && range->first <= first &&
        range->last - first >= GUEST_PAGE_SIZE - 1) {
        uint64_t offset = range->offset + (first - range->first);
        *page = (struct mem_host_page){
            .host = range->host + (first - range->first),
            .ram = range->region->ram,
            .offset = offset,
            .readonly = range->readonly,
            .dirty_log = range->dirty_log,
            .first = align_up(range->first, GUEST_PAGE_SIZE),
            .last = range->last - ((range->last + 1) % GUEST_PAGE_SIZE),
        };
        found = offset % GUEST_PAGE_SIZE == 0;
    }
    mem_read_end();
    return found;
}
