/* SPDX-License-Identifier: MIT */
/*
 * The VM's RAM blocks as the soft CPU knows them: per page, which vCPUs have code from it (code.h);
 * and the memory map's changes.
 *
 * A commit that changes what is RAM holds all vCPUs, and has their translations and blocks dropped
 * before they go on. When it returns no vCPU can reach memory that went away.
 *
 * A struct soft_ram lives as long as its block, and then becomes a spare: messages and blocks of code
 * that a vCPU has not dropped yet may still name it. Such a name means at worst that a page of another
 * block loses its code once.
 */
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "accel/soft/code.h"
#include "accel/soft/mailbox.h"
#include "base/alloc.h"
#include "base/log.h"
#include "mem/address_space.h"
#include "mem/machine_lock.h"

struct entry {
    struct soft_ram ram;
    bool live; /* the block exists */
    struct entry *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct entry *entries; /* under lock */

static struct mem_listener listener, smm_listener; /* of address_space_memory and _smm */
static bool changed;                               /* machine lock: since the last commit */

/* ---- blocks ------------------------------------------------------------------------------------ */

static size_t owners_size(const struct soft_ram *ram)
{
    return ram->pages * sizeof(*ram->owners);
}

/* The masks are as lazily populated as guest RAM is. */
static struct entry *entry_new_locked(uint64_t pages)
{
    struct entry *e = xnew(struct entry);

    e->ram.pages = pages;
    e->ram.owners = mmap(NULL, owners_size(&e->ram), PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (e->ram.owners == MAP_FAILED) {
        free(e);
        return NULL;
    }
    e->next = entries;
    entries = e;
    return e;
}

static struct entry *spare_locked(uint64_t pages)
{
    struct entry *e = entries;

    while (e && (e->live || e->ram.pages != pages)) {
        e = e->next;
    }
    return e;
}

static void add_block(struct ram_block *block)
{
    uint64_t pages = block->size / GUEST_PAGE_SIZE;

    if (atomic_load(&block->engine)) {
        return;
    }
    pthread_mutex_lock(&lock);
    struct entry *e = spare_locked(pages);
    if (!e) {
        e = entry_new_locked(pages);
    }
    if (e) {
        e->live = true;
        e->ram.block = block;
        e->ram.host = block->host;
        atomic_store(&block->engine, &e->ram);
    } else {
        /* It is reached as a device is: slowly. */
        log_error("-accel tcg: no memory to keep track of code in '%s'", block->name);
    }
    pthread_mutex_unlock(&lock);
}

/* mem/'s hook. */
static void on_release(struct ram_block *block)
{
    pthread_mutex_lock(&lock);
    for (struct entry *e = entries; e; e = e->next) {
        if (e->live && e->ram.block == block) {
            e->live = false;
        }
    }
    atomic_store(&block->engine, NULL);
    pthread_mutex_unlock(&lock);
}

struct soft_ram *soft_ram_find(struct ram_block *block)
{
    return atomic_load_explicit(&block->engine, memory_order_acquire);
}

/* ---- owners ------------------------------------------------------------------------------------ */

/* Under the lock the mask and mem/'s bit change together: no write by DMA finds the bit clear while
 * somebody has code there. */

static bool is_live_locked(const struct soft_ram *ram)
{
    return container_of(ram, const struct entry, ram)->live;
}

uint64_t soft_ram_own(struct soft_ram *ram, uint64_t ram_page, unsigned index)
{
    uint64_t old;

    pthread_mutex_lock(&lock);
    old = atomic_fetch_or(&ram->owners[ram_page], BIT64(index));
    if (!old && is_live_locked(ram)) {
        ram_code_set(ram->block, ram_page * GUEST_PAGE_SIZE);
    }
    pthread_mutex_unlock(&lock);
    return old;
}

void soft_ram_disown(struct soft_ram *ram, uint64_t ram_page, unsigned index)
{
    pthread_mutex_lock(&lock);
    if (atomic_fetch_and(&ram->owners[ram_page], ~BIT64(index)) == BIT64(index) &&
        is_live_locked(ram)) {
        ram_code_clear(ram->block, ram_page * GUEST_PAGE_SIZE);
    }
    pthread_mutex_unlock(&lock);
}

/* mem/'s hook: DMA, or a vCPU's write that went by the address space. */
static void on_written(struct ram_block *block, uint64_t offset, uint64_t length)
{
    struct soft_ram *ram = soft_ram_find(block);

    while (ram && length) {
        uint64_t page = offset / GUEST_PAGE_SIZE;
        unsigned start = offset % GUEST_PAGE_SIZE;
        unsigned n = (unsigned)MIN(length, GUEST_PAGE_SIZE - start);

        if (atomic_load_explicit(&ram->owners[page], memory_order_relaxed)) {
            soft_code_written(NULL, ram, page, start, n);
        }
        offset += n;
        length -= n;
    }
}

/* ---- the memory map: machine lock held --------------------------------------------------------- */

static void on_region_add(struct mem_listener *l, const struct mem_section *section)
{
    if (section->is_ram) {
        add_block(section->region->ram);
        changed = true;
    }
}

static void on_region_del(struct mem_listener *l, const struct mem_section *section)
{
    changed |= section->is_ram;
}

static void on_log_changed(struct mem_listener *l, const struct mem_section *section)
{
    changed = true;
}

void soft_flush_everybody(void)
{
    /* A vCPU whose thread this is has left the guest for its device: it counts as one that is not in the
     * guest, as the others that wait do. */
    soft_exclusive_begin(NULL);
    soft_post_flush_all();
    soft_exclusive_end(NULL);
}

/* Devices that come or go change nothing: they are reached by address. */
static void on_commit(struct mem_listener *l)
{
    if (changed) {
        changed = false;
        soft_flush_everybody();
    }
}

void soft_ram_init(struct soft_accel *soft)
{
    listener = (struct mem_listener){
        .region_add = on_region_add,
        .region_del = on_region_del,
        .log_changed = on_log_changed,
        .commit = on_commit,
        .priority = 10,
    };
    ram_set_code_hook(on_written);
    ram_set_release_hook(on_release);
    smm_listener = listener;
    address_space_add_listener(address_space_memory, &listener);
    address_space_add_listener(address_space_smm, &smm_listener);
}

void soft_ram_cleanup(struct soft_accel *soft)
{
    struct entry *next;

    address_space_remove_listener(address_space_smm, &smm_listener);
    address_space_remove_listener(address_space_memory, &listener);
    ram_set_code_hook(NULL);
    ram_set_release_hook(NULL);
    pthread_mutex_lock(&lock);
    for (struct entry *e = entries; e; e = next) {
        next = e->next;
        if (e->live) {
            atomic_store(&e->ram.block->engine, NULL);
        }
        munmap(e->ram.owners, owners_size(&e->ram));
        free(e);
    }
    entries = NULL;
    pthread_mutex_unlock(&lock);
}
