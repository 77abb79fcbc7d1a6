/* SPDX-License-Identifier: MIT */
/*
 * RAM blocks: allocation, the list of all blocks, references of mappings.
 *
 * References follow the scheme of per-CPU counters: while a block lives, each thread counts in its
 * own slot; only when the block is to go (and no flat view shows it any more) the slots are added
 * up into one counter, and whoever brings that to zero releases the memory.
 */
#include "mem/ram.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/range.h"
#include "mem/internal.h"

#define HUGE_PAGE_SIZE (2 * MiB)

/* ---- the list of blocks --------------------------------------------------------------------- */

/* Immutable; sorted by host address. */
struct block_list {
    unsigned count;
    struct ram_block *blocks[];
};

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER; /* of writers */
static struct block_list *list;                               /* RCU */

static void list_replace(struct block_list *new)
{
    struct block_list *old = list;

    mem_rcu_store(list, new);
    pthread_mutex_unlock(&list_lock);
    if (old) {
        mem_rcu_synchronize();
        free(old);
    }
}

static struct block_list *list_copy(unsigned count)
{
    struct block_list *new = xmalloc(sizeof(*new) + count * sizeof(new->blocks[0]));

    new->count = 0;
    return new;
}

static void list_add(struct ram_block *block)
{
    pthread_mutex_lock(&list_lock);
    unsigned count = list ? list->count : 0;
    struct block_list *new = list_copy(count + 1);
    unsigned i = 0;
    while (i < count && list->blocks[i]->host < block->host) {
        new->blocks[new->count++] = list->blocks[i++];
    }
    new->blocks[new->count++] = block;
    while (i < count) {
        new->blocks[new->count++] = list->blocks[i++];
    }
    list_replace(new);
}

/* No reader finds the block when this returns. */
static void list_remove(struct ram_block *block)
{
    pthread_mutex_lock(&list_lock);
    struct block_list *new = list_copy(list->count);
    for (unsigned i = 0; i < list->count; i++) {
        if (list->blocks[i] != block) {
            new->blocks[new->count++] = list->blocks[i];
        }
    }
    assert(new->count == list->count - 1);
    if (new->count == 0) {
        free(new);
        new = NULL;
    }
    list_replace(new);
}

struct ram_block *ram_block_from_host(const void *host, uint64_t *offset)
{
    const uint8_t *address = host;
    struct ram_block *found = NULL;

    mem_read_begin();
    const struct block_list *l = mem_rcu_load(list);
    unsigned low = 0;
    unsigned high = l ? l->count : 0;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        struct ram_block *block = l->blocks[middle];
        if (address < block->host) {
            high = middle;
        } else if ((uint64_t)(address - block->host) >= block->size) {
            low = middle + 1;
        } else {
            found = block;
            break;
        }
    }
    if (found && offset) {
        *offset = (uint64_t)(address - found->host);
    }
    mem_read_end();
    return found;
}

/* ---- allocation ----------------------------------------------------------------------------- */

/* MiB that the host could give now, by its own estimate; 0 if it does not say. */
static uint64_t host_available_mib(void)
{
    FILE *f = fopen("/proc/meminfo", "re");
    char line[128];
    uint64_t kib = 0;

    if (!f) {
        return 0;
    }
    while (fgets(line, sizeof(line), f)) {
        if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1) {
            break;
        }
    }
    fclose(f);
    return kib / 1024;
}

static void set_cannot_allocate(struct error **errp, const char *name, uint64_t size,
                                const char *reason)
{
    error_set(errp,
              "cannot allocate %" PRIu64 " MiB of guest RAM '%s': %s; the host has %" PRIu64
              " MiB available",
              size / MiB + (size % MiB != 0), name, reason, host_available_mib());
}

/* More than even a lazily populated guest could be given. */
static bool exceeds_host(uint64_t size)
{
    struct sysinfo info;

    if (sysinfo(&info) < 0) {
        return false;
    }
    uint64_t host = ((uint64_t)info.totalram + info.totalswap) * info.mem_unit;
    return size / RAM_OVERCOMMIT > host;
}

/*
 * Maps size bytes aligned for huge pages, with an inaccessible page behind, so that running off
 * the end of guest RAM faults instead of reaching what else ferry has there.
 */
static void *map_aligned(uint64_t size, int fd)
{
    uint64_t alignment = size >= HUGE_PAGE_SIZE ? HUGE_PAGE_SIZE : GUEST_PAGE_SIZE;
    uint64_t total = size + alignment + GUEST_PAGE_SIZE;
    int flags = MAP_FIXED | MAP_NORESERVE | (fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
    uint8_t *reserved =
        mmap(NULL, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserved == MAP_FAILED) {
        return NULL;
    }

    uint8_t *host = (uint8_t *)align_up((uintptr_t)reserved, alignment);
    if (mmap(host, size, PROT_READ | PROT_WRITE, flags, fd, 0) == MAP_FAILED) {
        int err = errno;
        munmap(reserved, total);
        errno = err;
        return NULL;
    }
    uint8_t *end = host + size + GUEST_PAGE_SIZE;
    if (host > reserved) {
        munmap(reserved, (size_t)(host - reserved));
    }
    if (end < reserved + total) {
        munmap(end, (size_t)(reserved + total - end));
    }
    return host;
}

struct ram_block *ram_block_new(const char *name, uint64_t size, bool shared, struct error **errp)
{
    if (size == 0) {
        error_set(errp, "guest RAM '%s' has no size", name);
        return NULL;
    }
    if (size > INT64_MAX / 2 || exceeds_host(size)) {
        set_cannot_allocate(errp, name, size, "that is far more than this host's memory and swap");
        return NULL;
    }
    size = align_up(size, GUEST_PAGE_SIZE);

    int fd = -1;
    if (shared) {
        fd = memfd_create(name, MFD_CLOEXEC);
        if (fd < 0 || ftruncate(fd, (off_t)size) < 0) {
            set_cannot_allocate(errp, name, size, strerror(errno));
            if (fd >= 0) {
                close(fd);
            }
            return NULL;
        }
    }
    void *host = map_aligned(size, fd);
    if (!host) {
        set_cannot_allocate(errp, name, size, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return NULL;
    }
    /* Advice; a kernel without transparent huge pages refuses it. */
    madvise(host, size, MADV_HUGEPAGE);

    struct ram_block *block = xaligned_alloc(_Alignof(struct ram_block), sizeof(*block));
    memset(block, 0, sizeof(*block));
    block->name = xstrdup(name);
    block->host = host;
    block->size = size;
    block->fd = fd;
    list_add(block);
    return block;
}

/* ---- references ----------------------------------------------------------------------------- */

void ram_block_ref(struct ram_block *block)
{
    /* A block that can be found in a view is not dying. */
    atomic_fetch_add_explicit(&block->refs[mem_thread.slot % RAM_REF_SLOTS].count, 1,
                              memory_order_relaxed);
}

bool ram_block_unref(struct ram_block *block)
{
    if (atomic_load_explicit(&block->dying, memory_order_acquire)) {
        return atomic_fetch_sub(&block->remaining, 1) == 1;
    }
    /* Release: the slots are read after a grace period, by ram_block_free(). */
    atomic_fetch_sub_explicit(&block->refs[mem_thread.slot % RAM_REF_SLOTS].count, 1,
                              memory_order_release);
    return false;
}

static void (*release_hook)(struct ram_block *block); /* atomic */

void ram_set_release_hook(void (*hook)(struct ram_block *block))
{
    __atomic_store_n(&release_hook, hook, __ATOMIC_RELEASE);
}

void ram_block_release(struct ram_block *block)
{
    void (*hook)(struct ram_block *) = __atomic_load_n(&release_hook, __ATOMIC_ACQUIRE);

    list_remove(block);
    if (hook && block->engine) {
        hook(block);
    }
    munmap(block->host, block->size + GUEST_PAGE_SIZE);
    if (block->fd >= 0) {
        close(block->fd);
    }
    for (int i = 0; i < DIRTY_COUNT; i++) {
        free(block->dirty[i]);
    }
    free(block->code);
    free(block->name);
    free(block);
}

void ram_block_free(struct ram_block *block)
{
    int64_t sum = 0;

    if (!block) {
        return;
    }
    atomic_store_explicit(&block->dying, true, memory_order_release);
    /* Whoever did not see `dying` has counted in its slot when this returns. */
    mem_rcu_synchronize();
    for (int i = 0; i < RAM_REF_SLOTS; i++) {
        sum += atomic_load_explicit(&block->refs[i].count, memory_order_acquire);
    }
    /* Until here `remaining` could only fall, below zero. */
    if (atomic_fetch_add(&block->remaining, sum) + sum == 0) {
        ram_block_release(block);
    }
}
