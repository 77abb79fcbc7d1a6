/* SPDX-License-Identifier: MIT */
/*
 * Bitmaps over RAM blocks: which pages were written (per client), and which hold code that an
 * engine has decoded.
 *
 * Order: who writes guest memory writes the bytes first and marks them dirty second; who fetches
 * clears the bit first and reads the bytes second. So a write is never lost, at worst sent twice.
 */
#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "mem/internal.h"

typedef _Atomic(uint64_t) bitmap_word;

static pthread_mutex_t bitmap_lock = PTHREAD_MUTEX_INITIALIZER; /* start and stop of logging */
static void (*code_hook)(struct ram_block *block, uint64_t offset, uint64_t length);

static bitmap_word *bitmap_new(const struct ram_block *block)
{
    return xcalloc((block->size / GUEST_PAGE_SIZE + 63) / 64, sizeof(bitmap_word));
}

/* Bits [first, last] of a word. */
static uint64_t word_mask(unsigned first, unsigned last)
{
    return (UINT64_MAX << first) & (UINT64_MAX >> (63 - last));
}

/* ---- dirty pages ---------------------------------------------------------------------------- */

void ram_dirty_log_start(struct ram_block *block, enum dirty_client client)
{
    pthread_mutex_lock(&bitmap_lock);
    if (!block->dirty[client]) {
        mem_rcu_store(block->dirty[client], bitmap_new(block));
    }
    pthread_mutex_unlock(&bitmap_lock);
}

void ram_dirty_log_stop(struct ram_block *block, enum dirty_client client)
{
    pthread_mutex_lock(&bitmap_lock);
    bitmap_word *old = block->dirty[client];
    mem_rcu_store(block->dirty[client], NULL);
    pthread_mutex_unlock(&bitmap_lock);
    if (old) {
        mem_rcu_synchronize();
        free(old);
    }
}

static void bitmap_set(bitmap_word *bitmap, uint64_t first_page, uint64_t last_page)
{
    /* A page that is written often is dirty already: no shared write then. The fence orders the
     * guest's bytes before the look at the bit; it pairs with the exchange in ram_dirty_fetch(). */
    atomic_thread_fence(memory_order_seq_cst);
    for (uint64_t w = first_page / 64; w <= last_page / 64; w++) {
        uint64_t mask = word_mask(w == first_page / 64 ? first_page % 64 : 0,
                                  w == last_page / 64 ? last_page % 64 : 63);
        if ((atomic_load_explicit(&bitmap[w], memory_order_relaxed) & mask) != mask) {
            atomic_fetch_or_explicit(&bitmap[w], mask, memory_order_release);
        }
    }
}

static bool page_range(const struct ram_block *block, uint64_t offset, uint64_t length,
                       uint64_t *first, uint64_t *last)
{
    if (length == 0 || !range_fits(offset, length, block->size)) {
        return false;
    }
    *first = offset / GUEST_PAGE_SIZE;
    *last = (offset + length - 1) / GUEST_PAGE_SIZE;
    return true;
}

/* Within a read side. */
static void set_dirty(struct ram_block *block, uint64_t first_page, uint64_t last_page)
{
    for (int client = 0; client < DIRTY_COUNT; client++) {
        bitmap_word *bitmap = mem_rcu_load(block->dirty[client]);
        if (bitmap) {
            bitmap_set(bitmap, first_page, last_page);
        }
    }
}

void ram_set_dirty(struct ram_block *block, uint64_t offset, uint64_t length)
{
    uint64_t first, last;

    if (!page_range(block, offset, length, &first, &last)) {
        return;
    }
    mem_read_begin();
    set_dirty(block, first, last);
    mem_read_end();
}

bool ram_dirty_fetch(struct ram_block *block, enum dirty_client client, uint64_t offset,
                     uint64_t length, uint64_t *bitmap)
{
    uint64_t first, last;
    uint64_t any = 0;

    if (!page_range(block, offset, length, &first, &last)) {
        return false;
    }
    memset(bitmap, 0, ((last - first) / 64 + 1) * sizeof(*bitmap));
    mem_read_begin();
    bitmap_word *from = mem_rcu_load(block->dirty[client]);
    for (uint64_t w = first / 64; from && w <= last / 64; w++) {
        unsigned low = w == first / 64 ? first % 64 : 0;
        uint64_t mask = word_mask(low, w == last / 64 ? last % 64 : 63);
        if (!(atomic_load_explicit(&from[w], memory_order_relaxed) & mask)) {
            continue;
        }
        uint64_t bits = atomic_fetch_and(&from[w], ~mask) & mask;
        any |= bits;
        /* The word's first wanted bit is page w * 64 + low. */
        uint64_t to = w * 64 + low - first;
        bits >>= low;
        bitmap[to / 64] |= bits << (to % 64);
        if (to % 64 && bits >> (64 - to % 64)) {
            bitmap[to / 64 + 1] |= bits >> (64 - to % 64);
        }
    }
    mem_read_end();
    return any != 0;
}

/* ---- code pages ----------------------------------------------------------------------------- */

void ram_set_code_hook(void (*hook)(struct ram_block *block, uint64_t offset, uint64_t length))
{
    __atomic_store_n(&code_hook, hook, __ATOMIC_RELEASE);
}

void ram_code_set(struct ram_block *block, uint64_t offset)
{
    bitmap_word *code = __atomic_load_n(&block->code, __ATOMIC_ACQUIRE);
    uint64_t page = offset / GUEST_PAGE_SIZE;

    assert(offset < block->size);
    if (!code) {
        /* Stays until the block goes. */
        pthread_mutex_lock(&bitmap_lock);
        if (!block->code) {
            __atomic_store_n(&block->code, bitmap_new(block), __ATOMIC_RELEASE);
        }
        code = block->code;
        pthread_mutex_unlock(&bitmap_lock);
    }
    /* Sequentially consistent: pairs with the fence in ram_written(). */
    atomic_fetch_or(&code[page / 64], BIT64(page % 64));
}

void ram_code_clear(struct ram_block *block, uint64_t offset)
{
    bitmap_word *code = __atomic_load_n(&block->code, __ATOMIC_ACQUIRE);
    uint64_t page = offset / GUEST_PAGE_SIZE;

    assert(offset < block->size);
    if (code) {
        atomic_fetch_and(&code[page / 64], ~BIT64(page % 64));
    }
}

static bool has_code(bitmap_word *code, uint64_t first, uint64_t last)
{
    for (uint64_t w = first / 64; w <= last / 64; w++) {
        uint64_t mask =
            word_mask(w == first / 64 ? first % 64 : 0, w == last / 64 ? last % 64 : 63);
        if (atomic_load_explicit(&code[w], memory_order_relaxed) & mask) {
            return true;
        }
    }
    return false;
}

void ram_written(struct ram_block *block, uint64_t offset, uint64_t length)
{
    void (*hook)(struct ram_block *, uint64_t, uint64_t) =
        __atomic_load_n(&code_hook, __ATOMIC_ACQUIRE);
    uint64_t first, last;

    if (!page_range(block, offset, length, &first, &last)) {
        return;
    }
    mem_read_begin();
    set_dirty(block, first, last);
    if (hook) {
        /* Bytes before marks: pairs with the read-modify-write in ram_code_set(). */
        atomic_thread_fence(memory_order_seq_cst);
        bitmap_word *code = __atomic_load_n(&block->code, __ATOMIC_ACQUIRE);
        if (code && has_code(code, first, last)) {
            hook(block, offset, length);
        }
    }
    mem_read_end();
}
