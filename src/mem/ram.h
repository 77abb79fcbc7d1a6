/* SPDX-License-Identifier: MIT */
/*
 * RAM blocks: host memory that backs guest RAM and ROM.
 *
 * Anonymous and lazily populated with huge pages advised, or a memfd when it must be shared. Each
 * block has a dirty bitmap per client, one bit per 4 KiB page, set by dma_unmap(), by
 * address_space_write(), by ram_written() and by the engine's log; and a code bitmap, set by an engine
 * that caches decoded guest code: a write to such a page calls the code hook.
 */
#ifndef FERRY_MEM_RAM_H
#define FERRY_MEM_RAM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define GUEST_PAGE_BITS 12
#define GUEST_PAGE_SIZE UINT64_C(4096)

enum dirty_client { DIRTY_MIGRATION, DIRTY_VGA, DIRTY_COUNT };

/* References are counted in one of these places, by thread: loops that map for DMA at the same
 * time do not share a cache line. */
#define RAM_REF_SLOTS 16
struct ram_ref_slot {
    _Alignas(64) _Atomic(int64_t) count;
};

struct ram_block {
    /* constant */
    char *name;    /* "pc.ram" */
    uint8_t *host; /* page aligned */
    uint64_t size; /* bytes, multiple of the page size */
    int fd;        /* memfd, or -1 */
    /* RCU; atomic, one bit per page; NULL while nobody logs */
    _Atomic(uint64_t) *dirty[DIRTY_COUNT];
    _Atomic(uint64_t) *code;
    _Atomic(void *) engine; /* the CPU engine's own; NULL until it sets it */
    /* atomic: mappings. Once dying, `remaining` takes the place of the slots. */
    struct ram_ref_slot refs[RAM_REF_SLOTS];
    _Atomic(bool) dying;
    _Atomic(int64_t) remaining;
};

/*
 * size: bytes, rounded up to a page. shared: memfd.
 *
 * Memory is populated lazily and may exceed what the host has. Fails if the kernel refuses, and for
 * more than RAM_OVERCOMMIT times the host's memory and swap, where the guest could only come to
 * grief.
 */
#define RAM_OVERCOMMIT 8
struct ram_block *ram_block_new(const char *name, uint64_t size, bool shared, struct error **errp);
/* No new mappings are possible any more (it is in no flat view); what is mapped stays until it is
 * unmapped, only then the memory goes back to the host. */
void ram_block_free(struct ram_block *block);

/* Any registered thread. */
void ram_dirty_log_start(struct ram_block *block, enum dirty_client client);
void ram_dirty_log_stop(struct ram_block *block, enum dirty_client client);
/* Only the bitmaps: for engines, whose guest's writes these are. */
void ram_set_dirty(struct ram_block *block, uint64_t offset, uint64_t length);
/* A device has written bytes, by a mapping that it keeps: marks them dirty and calls the code hook, as
 * dma_unmap() does. Where no engine has a hook (KVM) it costs one load more than ram_set_dirty(); where
 * one has, a fence and a look at the page's bit. */
void ram_written(struct ram_block *block, uint64_t offset, uint64_t length);
/* Copies and clears bits of [offset, offset+length), page aligned; bit 0 of bitmap is the page at
 * offset. True if any was set. */
bool ram_dirty_fetch(struct ram_block *block, enum dirty_client client, uint64_t offset,
                     uint64_t length, uint64_t *bitmap);

/* Code pages (soft CPU): hook runs in the writing thread, after the write, within an RCU read side.
 * Set it before anything writes. An engine that marks a page first and reads the code afterwards
 * misses no write: either it reads what was written, or the writer sees the mark. */
void ram_set_code_hook(void (*hook)(struct ram_block *block, uint64_t offset, uint64_t length));
void ram_code_set(struct ram_block *block, uint64_t offset);
void ram_code_clear(struct ram_block *block, uint64_t offset);

/* Called for a block whose `engine` is set, when its memory is about to go back to the host: no view
 * shows it, nothing is mapped. Any thread. */
void ram_set_release_hook(void (*hook)(struct ram_block *block));

/* The block that holds a host address, or NULL; *offset within it (may be NULL). Any registered
 * thread; the block is valid as long as its region or a mapping is. */
struct ram_block *ram_block_from_host(const void *host, uint64_t *offset);

#endif
