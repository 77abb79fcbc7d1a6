/* SPDX-License-Identifier: MIT */
/* Dirty bitmaps. See bitmap.h. */
#include "block/bitmap.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/image.h"

#define WORD_BITS 64u
/* A bitmap of more bytes is refused; it is as much as qcow2 can keep. */
#define MAX_BYTES (512 * MiB)

/* ---- sizes ----------------------------------------------------------------------------------- */

static uint64_t bit_count(uint64_t length, uint32_t granularity)
{
    return length / granularity + (length % granularity != 0);
}

static uint64_t word_count(uint64_t length, uint32_t granularity)
{
    return bit_count(length, granularity) / WORD_BITS + 1;
}

static _Atomic(uint64_t) *new_words(uint64_t length, uint32_t granularity)
{
    uint64_t words = word_count(length, granularity);

    return words <= MAX_BYTES / 8 ? calloc(words, sizeof(_Atomic(uint64_t))) : NULL;
}

/* ---- the list -------------------------------------------------------------------------------- */

static bool check_new(struct block_node *node, const char *name, uint32_t granularity,
                      struct error **errp)
{
    if (!*name) {
        error_set(errp, "Bitmap name cannot be empty");
    } else if (strlen(name) > BLOCK_BITMAP_NAME_MAX) {
        error_set(errp, "Bitmap name too long: at most %u bytes", BLOCK_BITMAP_NAME_MAX);
    } else if (block_bitmap_find(node, name)) {
        error_set(errp, "Bitmap already exists: %s", name);
    } else if (!is_power_of_2(granularity)) {
        error_set(errp, "Granularity must be power of 2, not %" PRIu32, granularity);
    } else if (granularity < BLOCK_BITMAP_GRANULARITY_MIN) {
        error_set(errp, "Granularity is under minimum (%u bytes)", BLOCK_BITMAP_GRANULARITY_MIN);
    } else if (granularity > BLOCK_BITMAP_GRANULARITY_MAX) {
        error_set(errp, "Granularity exceeds maximum (%u bytes)", BLOCK_BITMAP_GRANULARITY_MAX);
    } else {
        return true;
    }
    return false;
}

struct block_bitmap *block_bitmap_add(struct block_node *node, struct block_bitmap *last,
                                      const char *name, uint32_t granularity, bool usable)
{
    uint64_t length = usable ? block_length(node) : 0;

    granularity = granularity ? granularity : BLOCK_BITMAP_GRANULARITY;
    _Atomic(uint64_t) *words = new_words(length, granularity);
    if (!words) {
        return NULL;
    }
    struct block_bitmap *bitmap = xnew(struct block_bitmap);
    *bitmap = (struct block_bitmap){
        .name = xstrdup(name),
        .granularity = granularity,
        .enabled = true,
        .inconsistent = !usable,
        .length = length,
        .words = words,
    };
    if (last) {
        last->next = bitmap;
    } else {
        atomic_store(&node->bitmaps, bitmap);
    }
    return bitmap;
}

/* As QEMU: the format's clusters, but 4 KiB at least and 64 KiB at most. */
static uint32_t default_granularity(struct block_node *node)
{
    struct block_image_info info;

    block_image_info(node, &info);
    uint32_t granularity = info.cluster_size ? MAX(info.cluster_size, 4096) : UINT32_MAX;
    block_image_info_free(&info);
    return MIN(granularity, BLOCK_BITMAP_GRANULARITY);
}

struct block_bitmap *block_bitmap_new(struct block_node *node, const char *name,
                                      uint32_t granularity, struct error **errp)
{
    granularity = granularity ? granularity : default_granularity(node);
    if (!check_new(node, name, granularity, errp)) {
        return NULL;
    }
    struct block_bitmap *last = atomic_load(&node->bitmaps);
    while (last && last->next) {
        last = last->next;
    }
    struct block_bitmap *bitmap = block_bitmap_add(node, last, name, granularity, true);
    if (!bitmap) {
        error_set(errp, "Too much space will be occupied by the bitmap. Use larger granularity");
    }
    return bitmap;
}

void block_bitmap_free(struct block_node *node, struct block_bitmap *bitmap)
{
    struct block_bitmap *before = atomic_load(&node->bitmaps);

    if (before == bitmap) {
        atomic_store(&node->bitmaps, bitmap->next);
    } else {
        while (before->next != bitmap) {
            before = before->next;
        }
        before->next = bitmap->next;
    }
    free(bitmap->name);
    free(bitmap->words);
    free(bitmap);
}

void block_bitmaps_free(struct block_node *node)
{
    struct block_bitmap *bitmap;

    while ((bitmap = atomic_load(&node->bitmaps))) {
        block_bitmap_free(node, bitmap);
    }
}

struct block_bitmap *block_bitmap_find(struct block_node *node, const char *name)
{
    struct block_bitmap *bitmap = atomic_load(&node->bitmaps);

    while (bitmap && strcmp(bitmap->name, name)) {
        bitmap = bitmap->next;
    }
    return bitmap;
}

void block_bitmaps_resize(struct block_node *node, uint64_t length)
{
    for (struct block_bitmap *b = atomic_load(&node->bitmaps); b; b = b->next) {
        if (b->length == length || b->inconsistent) {
            continue;
        }
        _Atomic(uint64_t) *words = new_words(length, b->granularity);
        if (!words) {
            b->inconsistent = true; /* no bitmap of this granularity can be so long */
            continue;
        }
        uint64_t kept = bit_count(MIN(length, b->length), b->granularity);
        for (uint64_t i = 0; i * WORD_BITS < kept; i++) {
            uint64_t left = kept - i * WORD_BITS;
            uint64_t mask = left < WORD_BITS ? BIT64(left) - 1 : UINT64_MAX;
            atomic_init(&words[i], atomic_load(&b->words[i]) & mask);
        }
        free(b->words);
        b->words = words;
        b->length = length;
        atomic_store(&b->changed, true);
    }
}

/* ---- bits ------------------------------------------------------------------------------------ */

/* The bits [first, last] of word `i`. */
static uint64_t mask_of(uint64_t i, uint64_t first, uint64_t last)
{
    uint64_t mask = UINT64_MAX;

    if (first / WORD_BITS == i) {
        mask &= UINT64_MAX << first % WORD_BITS;
    }
    if (last / WORD_BITS == i) {
        mask &= UINT64_MAX >> (WORD_BITS - 1 - last % WORD_BITS);
    }
    return mask;
}

static void note_change(struct block_bitmap *bitmap)
{
    if (!atomic_load_explicit(&bitmap->changed, memory_order_relaxed)) {
        atomic_store(&bitmap->changed, true);
    }
}

void block_bitmap_set(struct block_bitmap *bitmap, uint64_t offset, uint64_t length)
{
    if (offset >= bitmap->length || !length) {
        return;
    }
    uint64_t end = offset + MIN(length, bitmap->length - offset);
    uint64_t first = offset / bitmap->granularity, last = (end - 1) / bitmap->granularity;

    for (uint64_t i = first / WORD_BITS; i <= last / WORD_BITS; i++) {
        uint64_t mask = mask_of(i, first, last);
        if ((atomic_load_explicit(&bitmap->words[i], memory_order_relaxed) & mask) != mask) {
            atomic_fetch_or(&bitmap->words[i], mask);
            note_change(bitmap);
        }
    }
}

void block_bitmap_clear(struct block_bitmap *bitmap, uint64_t offset, uint64_t length)
{
    if (offset >= bitmap->length || !length) {
        return;
    }
    uint64_t end = offset + MIN(length, bitmap->length - offset);
    uint64_t first = bit_count(offset, bitmap->granularity);
    uint64_t behind =
        end == bitmap->length ? bit_count(end, bitmap->granularity) : end / bitmap->granularity;

    if (first >= behind) {
        return;
    }
    for (uint64_t i = first / WORD_BITS; i <= (behind - 1) / WORD_BITS; i++) {
        uint64_t mask = mask_of(i, first, behind - 1);
        if (atomic_load_explicit(&bitmap->words[i], memory_order_relaxed) & mask) {
            atomic_fetch_and(&bitmap->words[i], ~mask);
            note_change(bitmap);
        }
    }
}

bool block_bitmap_get(const struct block_bitmap *bitmap, uint64_t offset)
{
    uint64_t bit = offset / bitmap->granularity;

    return offset < bitmap->length &&
           atomic_load(&bitmap->words[bit / WORD_BITS]) >> bit % WORD_BITS & 1;
}

/* The first bit at or behind `bit` that is (or is not) set; bits are `count`. */
static uint64_t find_bit(const struct block_bitmap *bitmap, uint64_t bit, uint64_t count, bool set)
{
    while (bit < count) {
        uint64_t word = atomic_load_explicit(&bitmap->words[bit / WORD_BITS], memory_order_relaxed);
        word = (set ? word : ~word) & UINT64_MAX << bit % WORD_BITS;
        if (word) {
            return MIN(count, bit / WORD_BITS * WORD_BITS + (uint64_t)__builtin_ctzll(word));
        }
        bit = (bit / WORD_BITS + 1) * WORD_BITS;
    }
    return count;
}

bool block_bitmap_next_dirty(const struct block_bitmap *bitmap, uint64_t offset, uint64_t *start,
                             uint64_t *length)
{
    uint64_t count = bit_count(bitmap->length, bitmap->granularity);

    if (offset >= bitmap->length) {
        return false;
    }
    uint64_t first = find_bit(bitmap, offset / bitmap->granularity, count, true);
    if (first == count) {
        return false;
    }
    uint64_t behind = find_bit(bitmap, first, count, false);
    *start = MAX(offset, first * bitmap->granularity);
    *length = MIN(behind * bitmap->granularity, bitmap->length) - *start;
    return true;
}

uint64_t block_bitmap_count(const struct block_bitmap *bitmap)
{
    uint64_t start, length, bytes = 0;

    for (uint64_t at = 0; block_bitmap_next_dirty(bitmap, at, &start, &length);
         at = start + length) {
        bytes += length;
    }
    return bytes;
}

bool block_bitmap_merge(struct block_bitmap *to, const struct block_bitmap *from,
                        struct error **errp)
{
    uint64_t start, length;

    if (to->inconsistent || from->inconsistent) {
        error_set(errp, "Bitmap '%s' is inconsistent and cannot be used; remove it",
                  to->inconsistent ? to->name : from->name);
        return false;
    }
    if (to->length != from->length) {
        error_set(errp,
                  "Bitmaps are of different sizes (destination size is %" PRIu64
                  " and source size is %" PRIu64 ") and can't be merged",
                  to->length, from->length);
        return false;
    }
    for (uint64_t at = 0; block_bitmap_next_dirty(from, at, &start, &length); at = start + length) {
        block_bitmap_set(to, start, length);
    }
    return true;
}

/* ---- writes ---------------------------------------------------------------------------------- */

void block_bitmaps_mark_slow(struct block_node *node, uint64_t offset, uint64_t length)
{
    for (struct block_bitmap *b = atomic_load(&node->bitmaps); b; b = b->next) {
        if (b->enabled && !b->inconsistent) {
            block_bitmap_set(b, offset, length);
        }
    }
}
