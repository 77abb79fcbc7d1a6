/* SPDX-License-Identifier: MIT */
/*
 * Memory regions: who answers at which guest address.
 *
 * Regions form a tree. A container holds sub-regions at offsets; where they overlap, the higher
 * priority wins, and where it leaves holes the lower one shows through. An alias shows a window of
 * another region. The tree is flattened into a sorted view (mem/address_space.h):
 *
 *   memory (container)        0          640K  768K      1M            top          4G
 *     ram-low (alias, 0)      |==============================================|
 *     pci (container, -1)     |..........vga...............|.................|..bar..|
 *     bios (rom, 1)                            |===========|
 *   flat view                 |  ram-low |vga |    bios    |     ram-low     |  bar  |
 *
 * Kinds: container, RAM, ROM (writes are dropped), rom-device (reads as memory, writes by ops; or
 * both by ops when its ROM mode is off), I/O (ops; for MMIO and, in the I/O address space, ports)
 * and alias. Reads where nobody answers give all ones; writes there are dropped.
 *
 * The tree is machine state: change it with the machine lock held, several changes within
 * mem_transaction_begin() and _commit(); the last commit publishes new flat views.
 */
#ifndef FERRY_MEM_REGION_H
#define FERRY_MEM_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem/ram.h"

struct event_notifier;

enum mem_result {
    MEM_OK,
    MEM_DECODE_ERROR, /* nobody answers there */
    MEM_DEVICE_ERROR, /* the device refuses this access */
};

/*
 * Callbacks of an I/O region. offset is from the region's start, size is 1, 2, 4 or 8 bytes, value
 * is in host order and zero-extended (the bus is little-endian). They run with the machine lock
 * held unless `lockless`.
 */
struct mem_region_ops {
    uint64_t (*read)(void *opaque, uint64_t offset, unsigned size);
    void (*write)(void *opaque, uint64_t offset, uint64_t value, unsigned size);
    /* Sizes a guest may use, and whether it may cross its alignment; others read all ones and
     * write nothing. Zero means 1 to 8 (min 1, max 8 for MMIO, 4 for ports). As on a real bus, an
     * address space splits what a CPU or a bus master asks for at max, and at the alignment unless
     * `unaligned`: an outw to a region of single ports is two writes of a byte. */
    struct {
        unsigned min, max;
        bool unaligned;
    } valid;
    /* Sizes the callbacks take; the core splits larger accesses and widens smaller ones (a
     * smaller write is done as narrow write of min size only if min is 1; else by reading,
     * merging and writing). Zero means as valid. The region's size is a multiple of min. */
    struct {
        unsigned min, max;
        bool unaligned;
    } impl;
    /* The callbacks may run in any thread without the machine lock, also several at once. They may
     * take it themselves. */
    bool lockless;
};

enum mem_region_kind {
    MEM_REGION_CONTAINER,
    MEM_REGION_RAM,
    MEM_REGION_ROM,
    MEM_REGION_ROM_DEVICE,
    MEM_REGION_IO,
    MEM_REGION_ALIAS,
};

/* An eventfd that a matching write sets instead of calling the region's write, without the machine
 * lock. The notifier stays valid until the commit of its removal. */
struct mem_eventfd {
    uint64_t offset;
    unsigned size;  /* 0 (any length; MMIO only), 1, 2, 4, 8 */
    bool datamatch; /* only if the value written is data */
    uint64_t data;
    struct event_notifier *notifier;
};

struct mem_eventfds;

struct mem_range {
    uint64_t offset, size;
};

/* Embedded in its device. */
struct mem_region {
    /* constant after initialisation */
    char *name;
    const struct mem_region_ops *ops;
    void *opaque;
    struct ram_block *ram; /* RAM, ROM, ROM_DEVICE */
    bool ram_owned;
    struct mem_region *alias;
    /* machine state; size is also read without the lock */
    enum mem_region_kind kind;
    uint64_t size; /* bytes; UINT64_MAX stands for 2^64 */
    bool enabled;
    bool rom_mode; /* ROM_DEVICE: reads go to memory */
    bool readonly; /* ALIAS: the RAM it shows takes no writes */
    bool dirty_log;
    uint64_t alias_offset;
    struct mem_region *container;
    uint64_t offset; /* within container */
    int priority;
    struct mem_region *first_child, *next_sibling; /* children by falling priority */
    struct mem_range *coalesced;
    unsigned coalesced_count;
    /* RCU: written with the machine lock held */
    struct mem_eventfds *eventfds;
    /* atomic: callbacks that run without the machine lock */
    _Atomic(unsigned) running;
};

/* Initialisation; name is copied. Any thread before the region is in a tree. */
void mem_region_init_container(struct mem_region *mr, const char *name, uint64_t size);
void mem_region_init_io(struct mem_region *mr, const char *name, uint64_t size,
                        const struct mem_region_ops *ops, void *opaque);
/* Allocates a block of its own; freed by mem_region_destroy(). */
bool mem_region_init_ram(struct mem_region *mr, const char *name, uint64_t size, bool shared,
                         struct error **errp);
/* Shows a block that somebody else owns and that outlives the region. */
void mem_region_init_ram_block(struct mem_region *mr, const char *name, struct ram_block *block);
bool mem_region_init_rom(struct mem_region *mr, const char *name, uint64_t size,
                         struct error **errp);
bool mem_region_init_rom_device(struct mem_region *mr, const char *name, uint64_t size,
                                const struct mem_region_ops *ops, void *opaque,
                                struct error **errp);
void mem_region_init_alias(struct mem_region *mr, const char *name, struct mem_region *target,
                           uint64_t target_offset, uint64_t size);
/* The region must be out of every tree, by a transaction that is committed. Waits for callbacks of
 * a lockless region (so those that take the machine lock need their users stopped first); memory
 * that is mapped for DMA lives on until its last dma_unmap(). Nothing happens to a zeroed one. */
void mem_region_destroy(struct mem_region *mr);

/* ---- the tree: machine lock held ------------------------------------------------------------ */

void mem_region_add(struct mem_region *container, uint64_t offset, struct mem_region *mr);
/* Overlapping another child on purpose; higher priority wins, 0 is that of mem_region_add(). Among
 * equals the one added last wins. */
void mem_region_add_overlap(struct mem_region *container, uint64_t offset, struct mem_region *mr,
                            int priority);
void mem_region_remove(struct mem_region *container, struct mem_region *mr);
void mem_region_set_enabled(struct mem_region *mr, bool enabled);
void mem_region_set_offset(struct mem_region *mr, uint64_t offset);
void mem_region_set_size(struct mem_region *mr, uint64_t size);
void mem_region_set_alias_offset(struct mem_region *mr, uint64_t offset);
/* RAM: makes writes fail (PAM, SMRAM lock) or succeed; kind changes between RAM and ROM. Alias: only
 * what shows through it. */
void mem_region_set_readonly(struct mem_region *mr, bool readonly);
void mem_region_rom_device_set_mode(struct mem_region *mr, bool rom_mode);
void mem_region_set_dirty_log(struct mem_region *mr, bool on);
/* Registers e->notifier (copied). Where the engine has ioeventfds, no exit to user space. */
void mem_region_add_eventfd(struct mem_region *mr, const struct mem_eventfd *e);
void mem_region_del_eventfd(struct mem_region *mr, const struct mem_eventfd *e);
/* Writes to [offset, offset+size) may be delayed until the next other exit (coalesced MMIO). */
void mem_region_set_coalesced(struct mem_region *mr, uint64_t offset, uint64_t size);

void mem_transaction_begin(void);
void mem_transaction_commit(void);

/* ---- access by the owner --------------------------------------------------------------------- */

/* One access to an I/O region by its rules: validity, splitting, eventfds, lock. The region exists
 * until it returns. Any thread that is registered. */
enum mem_result mem_region_dispatch_read(struct mem_region *mr, uint64_t offset, uint64_t *value,
                                         unsigned size);
enum mem_result mem_region_dispatch_write(struct mem_region *mr, uint64_t offset, uint64_t value,
                                          unsigned size);

#endif
