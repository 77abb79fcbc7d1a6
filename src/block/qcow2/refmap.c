/* SPDX-License-Identifier: MIT */
#include "block/qcow2/refmap.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"

#define FIRST_SLOT_BITS 8

static size_t slot_count(const struct refmap *map)
{
    return (size_t)1 << map->slot_bits;
}

void refmap_init(struct refmap *map, uint64_t max)
{
    *map = (struct refmap){.slot_bits = FIRST_SLOT_BITS, .max = max};
    map->slots = xcalloc(slot_count(map), sizeof(struct refmap_page *));
    qcow2_hash_init(&map->hash);
}

void refmap_destroy(struct refmap *map)
{
    for (size_t i = 0; i < slot_count(map); i++) {
        if (map->slots[i]) {
            free(map->slots[i]->wide);
            free(map->slots[i]);
        }
    }
    free(map->slots);
}

/* The slot that has the page, or where it goes. */
static struct refmap_page **find_slot(const struct refmap *map, uint64_t index)
{
    size_t i = qcow2_hash(&map->hash, index, map->slot_bits), mask = slot_count(map) - 1;

    while (map->slots[i] && map->slots[i]->index != index) {
        i = (i + 1) & mask;
    }
    return &map->slots[i];
}

struct refmap_page *refmap_find(struct refmap *map, uint64_t index)
{
    if (!map->last || map->last->index != index) {
        struct refmap_page *page = *find_slot(map, index);
        if (!page) {
            return NULL;
        }
        map->last = page;
    }
    return map->last;
}

static void grow(struct refmap *map)
{
    struct refmap_page **old = map->slots;
    size_t count = slot_count(map);

    map->slot_bits++;
    map->slots = xcalloc(slot_count(map), sizeof(struct refmap_page *));
    for (size_t i = 0; i < count; i++) {
        if (old[i]) {
            *find_slot(map, old[i]->index) = old[i];
        }
    }
    free(old);
}

static struct refmap_page *get_page(struct refmap *map, uint64_t index)
{
    struct refmap_page *page = refmap_find(map, index);

    if (page) {
        return page;
    }
    if (map->page_count >= slot_count(map) / 4 * 3) {
        grow(map);
    }
    page = xnew(struct refmap_page);
    page->index = index;
    *find_slot(map, index) = page;
    map->page_count++;
    map->last = page;
    return page;
}

static unsigned within(uint64_t cluster)
{
    return cluster & (REFMAP_PAGE - 1);
}

uint64_t refmap_get(struct refmap *map, uint64_t cluster)
{
    struct refmap_page *page = refmap_find(map, cluster >> REFMAP_PAGE_BITS);

    return page ? refmap_page_count(page, within(cluster)) : 0;
}

static void set_count(struct refmap_page *page, unsigned i, uint64_t count)
{
    if (!page->wide && count > UINT8_MAX) {
        page->wide = xcalloc(REFMAP_PAGE, sizeof(*page->wide));
        for (unsigned j = 0; j < REFMAP_PAGE; j++) {
            page->wide[j] = page->narrow[j];
        }
    }
    if (page->wide) {
        page->wide[i] = count;
    } else {
        page->narrow[i] = (uint8_t)count;
    }
}

void refmap_set(struct refmap *map, uint64_t cluster, uint64_t count)
{
    set_count(get_page(map, cluster >> REFMAP_PAGE_BITS), within(cluster), count);
}

uint64_t refmap_add(struct refmap *map, uint64_t cluster, uint64_t n)
{
    struct refmap_page *page = get_page(map, cluster >> REFMAP_PAGE_BITS);
    uint64_t count = refmap_page_count(page, within(cluster));
    uint64_t fits = MIN(n, map->max - MIN(count, map->max));

    set_count(page, within(cluster), count + fits);
    return n - fits;
}

bool refmap_is_pinned(struct refmap *map, uint64_t cluster)
{
    struct refmap_page *page = refmap_find(map, cluster >> REFMAP_PAGE_BITS);

    return page && page->pinned & BIT64(within(cluster));
}

void refmap_pin(struct refmap *map, uint64_t cluster)
{
    get_page(map, cluster >> REFMAP_PAGE_BITS)->pinned |= BIT64(within(cluster));
}

bool refmap_is_free(struct refmap *map, uint64_t cluster)
{
    struct refmap_page *page = refmap_find(map, cluster >> REFMAP_PAGE_BITS);

    return !page ||
           (!(page->pinned & BIT64(within(cluster))) && !refmap_page_count(page, within(cluster)));
}

static int compare_pages(const void *a, const void *b)
{
    uint64_t x = (*(struct refmap_page *const *)a)->index;
    uint64_t y = (*(struct refmap_page *const *)b)->index;

    return x < y ? -1 : x > y;
}

struct refmap_page **refmap_sorted(const struct refmap *map)
{
    struct refmap_page **pages = xcalloc(map->page_count + 1, sizeof(*pages));
    size_t n = 0;

    for (size_t i = 0; i < slot_count(map); i++) {
        if (map->slots[i]) {
            pages[n++] = map->slots[i];
        }
    }
    qsort(pages, n, sizeof(*pages), compare_pages);
    return pages;
}
