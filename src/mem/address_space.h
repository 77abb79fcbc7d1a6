/* SPDX-License-Identifier: MIT */
/*
 * Address spaces: what a CPU or a bus master sees.
 *
 *   root region --flatten--> flat view (sorted array of ranges) --RCU--> readers
 *
 * A flat view is immutable; commits replace it. Readers find their range by binary search within
 * an RCU read side and never lock. No read side is held across entering the guest, waiting, or a
 * coroutine's yield. Every thread that reads is registered with RCU (mem_thread_register()).
 *
 * Listeners hear of every difference between the old view and the new, so that an engine keeps
 * its slots and ioeventfds the same as the view.
 */
#ifndef FERRY_MEM_ADDRESS_SPACE_H
#define FERRY_MEM_ADDRESS_SPACE_H

#include <stdio.h>

#include "mem/region.h"

/* A piece of a flat view. */
struct mem_section {
    uint64_t address; /* guest address */
    uint64_t size;    /* bytes, not 0; UINT64_MAX stands for 2^64 */
    struct mem_region *region;
    uint64_t offset; /* within region */
    bool readonly;   /* memory that takes no write (ROM; rom-device in ROM mode: write by ops) */
    bool is_ram;     /* reads come from region->ram directly */
    bool dirty_log;
};

/*
 * Called within the committing thread with the machine lock held, in the order begin, del…, add…,
 * eventfd_del…, eventfd_add…, coalesced_del…, coalesced_add…, commit. Any may be NULL. Listeners
 * with lower priority are called first for additions and last for deletions. Ranges that stay as
 * they were are not mentioned. When del is called readers may still use the old view: memory it
 * showed is valid until after commit. A listener does not change the memory map.
 */
struct mem_listener {
    void (*begin)(struct mem_listener *listener);
    void (*commit)(struct mem_listener *listener);
    void (*region_add)(struct mem_listener *listener, const struct mem_section *section);
    void (*region_del)(struct mem_listener *listener, const struct mem_section *section);
    /* Same range as before but for its dirty_log. */
    void (*log_changed)(struct mem_listener *listener, const struct mem_section *section);
    /* Fetches the engine's dirty log into the block's bitmaps (ram_set_dirty()). */
    void (*log_sync)(struct mem_listener *listener, const struct mem_section *section);
    void (*eventfd_add)(struct mem_listener *listener, uint64_t address,
                        const struct mem_eventfd *eventfd);
    void (*eventfd_del)(struct mem_listener *listener, uint64_t address,
                        const struct mem_eventfd *eventfd);
    void (*coalesced_add)(struct mem_listener *listener, uint64_t address, uint64_t size);
    void (*coalesced_del)(struct mem_listener *listener, uint64_t address, uint64_t size);
    int priority;
    struct mem_listener *next; /* owned by the address space */
};

struct address_space;

/* The machine's own, made by mem_init(): system memory; what a CPU in system management mode sees of it,
 * which is the same until mem_smram() is enabled; x86 I/O ports. */
extern struct address_space *address_space_memory, *address_space_smm, *address_space_io;

/* Makes the address spaces and their root containers, and registers the calling thread. Main
 * thread, once, before everything else here. */
void mem_init(void);
void mem_cleanup(void);
struct mem_region *mem_root(void); /* of address_space_memory, 2^64 bytes */
/* Lies over mem_root() in address_space_smm alone: RAM that is for SMM. 4 GiB, disabled at first. */
struct mem_region *mem_smram(void);
struct mem_region *io_root(void); /* of address_space_io, 64 KiB */

/* A thread that uses address spaces or DMA registers first (RCU) and unregisters at its end; pairs
 * nest. Nothing is needed before a long wait. */
void mem_thread_register(void);
void mem_thread_unregister(void);

/* Main thread. The root outlives the address space; it may be part of another's tree. */
struct address_space *address_space_new(const char *name, struct mem_region *root);
void address_space_free(struct address_space *as);
/* Machine lock held; the listener hears of the present view at once, and of its end when it is
 * removed. */
void address_space_add_listener(struct address_space *as, struct mem_listener *listener);
void address_space_remove_listener(struct address_space *as, struct mem_listener *listener);
/* Calls log_sync for the sections of a region. Machine lock held. */
void address_space_sync_dirty(struct address_space *as, struct mem_region *mr);

/* Grows with every new flat view. A mapping made at another generation may be stale. Any thread. */
uint64_t address_space_generation(const struct address_space *as);

/*
 * Reads or writes guest memory or devices, split at range ends. Any registered thread; takes the
 * machine lock for devices that need it unless the thread holds it. Reads where nobody answers
 * give 0xff. The result is that of the worst piece; all pieces are carried out. A size of 1, 2, 4
 * or 8 aligned bytes in RAM is one access.
 */
enum mem_result address_space_read(struct address_space *as, uint64_t address, void *buf,
                                   uint64_t length);
enum mem_result address_space_write(struct address_space *as, uint64_t address, const void *buf,
                                    uint64_t length);
enum mem_result address_space_rw(struct address_space *as, uint64_t address, void *buf,
                                 uint64_t length, bool is_write);
/* As a loader writes: into ROM too, but only into memory. */
enum mem_result address_space_write_rom(struct address_space *as, uint64_t address, const void *buf,
                                        uint64_t length);

/* Copies the section at an address, cut to [address, …]; false if nobody answers there. The
 * region stays valid only as long as the caller holds the machine lock. */
bool address_space_find(struct address_space *as, uint64_t address, struct mem_section *section);

/*
 * The host memory behind the 4 KiB page of an address; false if the page is not, or not all of it, of
 * one RAM or ROM region. Any registered thread, no lock. What it says is true until a listener has
 * heard of the commit that changes it; the memory itself stays until after that.
 */
struct mem_host_page {
    uint8_t *host; /* of the page's first byte */
    struct ram_block *ram;
    uint64_t offset; /* of the page within it, page aligned */
    bool readonly;   /* writes go by address_space_write() */
    bool dirty_log;
    /* Addresses of the first and last byte of the whole pages around it that continue like this. */
    uint64_t first, last;
};
bool address_space_find_ram(struct address_space *as, uint64_t address, struct mem_host_page *page);

/* Print the flat view (monitor: info mtree -f) or the tree (info mtree). Machine lock held. */
void address_space_print(struct address_space *as, FILE *to);
void address_space_print_all(FILE *to);   /* the flat views of all address spaces */
void address_space_print_trees(FILE *to); /* the trees of all, and what their aliases name */
void mem_region_print_tree(const struct mem_region *root, FILE *to);

#endif
