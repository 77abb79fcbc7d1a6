/* SPDX-License-Identifier: MIT */
/*
 * Flattening: from the tree to the sorted array.
 *
 * The tree is walked from the highest priority to the lowest, and each region takes what is still
 * free of its range: whoever comes first wins, and what it leaves open the others fill. Positions
 * are 128-bit integers, since a window into the middle of an alias's target puts the target's
 * start below zero.
 */
#include "mem/flat_view.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "mem/internal.h"

/* A tree deeper than this has an alias that contains itself. */
#define MAX_DEPTH 64

typedef __int128 wide;

struct builder {
    struct flat_view *view;
    unsigned capacity;
};

static wide region_size(const struct mem_region *mr)
{
    return mr->size == UINT64_MAX ? (wide)1 << 64 : (wide)mr->size;
}

/* ---- building ------------------------------------------------------------------------------- */

static void insert_at(struct builder *b, unsigned index, const struct flat_range *range)
{
    if (b->view->count == b->capacity) {
        b->capacity *= 2;
        b->view = xrealloc(b->view, sizeof(*b->view) + b->capacity * sizeof(b->view->ranges[0]));
    }
    struct flat_view *view = b->view;
    memmove(&view->ranges[index + 1], &view->ranges[index],
            (view->count - index) * sizeof(view->ranges[0]));
    view->ranges[index] = *range;
    view->count++;
}

/* Gives `whole` all of its range that nobody has yet. */
static void fill_gaps(struct builder *b, const struct flat_range *whole)
{
    uint64_t position = whole->first;
    unsigned i = 0;

    while (i < b->view->count && b->view->ranges[i].last < position) {
        i++;
    }
    for (;; i++) {
        const struct flat_range *next = i < b->view->count ? &b->view->ranges[i] : NULL;
        if (!next || next->first > position) {
            struct flat_range piece = *whole;
            piece.first = position;
            piece.last = next ? MIN(next->first - 1, whole->last) : whole->last;
            piece.offset += position - whole->first;
            if (piece.host) {
                piece.host += position - whole->first;
            }
            insert_at(b, i, &piece);
        }
        /* Range i now begins at or before position. */
        if (b->view->ranges[i].last >= whole->last) {
            return;
        }
        position = b->view->ranges[i].last + 1;
    }
}

/* What the region itself shows in [first, end), after its children. */
static void render_leaf(struct builder *b, struct mem_region *mr, wide base, wide first, wide end,
                        bool readonly)
{
    struct flat_range range = {
        .first = (uint64_t)first,
        .last = (uint64_t)(end - 1),
        .region = mr,
        .offset = (uint64_t)(first - base),
    };

    switch (mr->kind) {
    case MEM_REGION_CONTAINER:
    case MEM_REGION_ALIAS:
        return;
    case MEM_REGION_IO:
        break;
    case MEM_REGION_RAM:
        range.is_ram = true;
        range.readonly = readonly;
        break;
    case MEM_REGION_ROM:
        range.is_ram = true;
        range.readonly = true;
        break;
    case MEM_REGION_ROM_DEVICE:
        range.is_ram = mr->rom_mode;
        range.readonly = mr->rom_mode;
        break;
    }
    if (range.is_ram) {
        range.host = mr->ram->host + range.offset;
        range.dirty_log = mr->dirty_log;
    }
    fill_gaps(b, &range);
}

/* mr starts at base; only [first, end) of the address space is shown. */
static void render(struct builder *b, struct mem_region *mr, wide base, wide first, wide end,
                   bool readonly, unsigned depth)
{
    assert(depth < MAX_DEPTH);
    if (!mr->enabled) {
        return;
    }
    first = MAX(first, base);
    end = MIN(end, base + region_size(mr));
    if (first >= end) {
        return;
    }
    readonly |= mr->readonly;
    if (mr->kind == MEM_REGION_ALIAS) {
        render(b, mr->alias, base - (wide)mr->alias_offset, first, end, readonly, depth + 1);
        return;
    }
    for (struct mem_region *child = mr->first_child; child; child = child->next_sibling) {
        render(b, child, base + (wide)child->offset, first, end, readonly, depth + 1);
    }
    render_leaf(b, mr, base, first, end, readonly);
}

static bool continues(const struct flat_range *a, const struct flat_range *b)
{
    return a->last + 1 == b->first && a->region == b->region && a->is_ram == b->is_ram &&
           a->readonly == b->readonly && a->dirty_log == b->dirty_log &&
           a->offset + (a->last - a->first) + 1 == b->offset;
}

static void merge_neighbours(struct flat_view *view)
{
    unsigned to = 0;

    for (unsigned i = 1; i < view->count; i++) {
        if (continues(&view->ranges[to], &view->ranges[i])) {
            view->ranges[to].last = view->ranges[i].last;
        } else {
            view->ranges[++to] = view->ranges[i];
        }
    }
    if (view->count) {
        view->count = to + 1;
    }
}

struct flat_view *flat_view_new(struct mem_region *root)
{
    static uint64_t last_id; /* machine lock */
    struct builder b = {.capacity = 16};

    b.view = xmalloc(sizeof(*b.view) + b.capacity * sizeof(b.view->ranges[0]));
    b.view->id = ++last_id;
    b.view->refs = 1;
    b.view->root = root;
    b.view->count = 0;
    if (root) {
        render(&b, root, 0, 0, (wide)1 << 64, false, 0);
    }
    merge_neighbours(b.view);
    return b.view;
}

struct mem_region *flat_view_root(struct mem_region *root)
{
    for (unsigned depth = 0; depth < MAX_DEPTH; depth++) {
        struct mem_region *only = NULL;

        if (!root->enabled) {
            return NULL;
        }
        if (root->readonly) {
            return root;
        }
        if (root->kind == MEM_REGION_ALIAS) {
            if (root->alias_offset != 0 || root->alias->size != root->size) {
                return root;
            }
            root = root->alias;
            continue;
        }
        if (root->kind != MEM_REGION_CONTAINER) {
            return root;
        }
        for (struct mem_region *child = root->first_child; child; child = child->next_sibling) {
            if (child->enabled) {
                if (only) {
                    return root;
                }
                only = child;
            }
        }
        if (!only) {
            return NULL;
        }
        if (only->offset != 0 || only->size != root->size) {
            return root;
        }
        root = only;
    }
    return root;
}

bool flat_view_same(const struct flat_view *a, const struct flat_view *b)
{
    if (a->count != b->count) {
        return false;
    }
    for (unsigned i = 0; i < a->count; i++) {
        const struct flat_range *x = &a->ranges[i];
        const struct flat_range *y = &b->ranges[i];
        if (x->first != y->first || x->last != y->last || x->region != y->region ||
            x->offset != y->offset || x->is_ram != y->is_ram || x->readonly != y->readonly ||
            x->dirty_log != y->dirty_log) {
            return false;
        }
    }
    return true;
}

/* ---- looking up ----------------------------------------------------------------------------- */

unsigned flat_view_lookup(const struct flat_view *view, uint64_t address)
{
    /* A thread mostly stays within one range: its RAM, or the device it polls. */
    static _Thread_local struct {
        uint64_t view_id;
        unsigned index;
    } last_hit;
    unsigned low = 0;
    unsigned high = view->count;

    if (last_hit.view_id == view->id) {
        const struct flat_range *range = &view->ranges[last_hit.index];
        if (range->first <= address && address <= range->last) {
            return last_hit.index;
        }
    }
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        if (view->ranges[middle].last < address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low < view->count && view->ranges[low].first <= address) {
        last_hit.view_id = view->id;
        last_hit.index = low;
    }
    return low;
}

struct mem_section flat_range_section(const struct flat_range *range)
{
    uint64_t size = range->last - range->first;

    return (struct mem_section){
        .address = range->first,
        .size = size == UINT64_MAX ? size : size + 1,
        .region = range->region,
        .offset = range->offset,
        .readonly = range->readonly,
        .is_ram = range->is_ram,
        .dirty_log = range->dirty_log,
    };
}

/* ---- eventfds and coalesced ranges ---------------------------------------------------------- */

#define ORDER(a, b)                                                                                \
    if ((a) != (b)) {                                                                              \
        return (a) < (b) ? -1 : 1;                                                                 \
    }

int flat_eventfd_compare(const void *a, const void *b)
{
    const struct flat_eventfd *x = a;
    const struct flat_eventfd *y = b;

    ORDER(x->address, y->address);
    ORDER(x->e.size, y->e.size);
    ORDER(x->e.datamatch, y->e.datamatch);
    ORDER(x->e.data, y->e.data);
    ORDER((uintptr_t)x->e.notifier, (uintptr_t)y->e.notifier);
    return 0;
}

int flat_coalesced_compare(const void *a, const void *b)
{
    const struct flat_coalesced *x = a;
    const struct flat_coalesced *y = b;

    ORDER(x->address, y->address);
    ORDER(x->size, y->size);
    return 0;
}

struct flat_eventfd *flat_view_eventfds(const struct flat_view *view, unsigned *count)
{
    struct flat_eventfd *list = NULL;
    unsigned n = 0;

    for (unsigned i = 0; i < view->count; i++) {
        const struct flat_range *range = &view->ranges[i];
        const struct mem_eventfds *eventfds = range->region->eventfds;
        for (unsigned k = 0; eventfds && k < eventfds->count; k++) {
            const struct mem_eventfd *e = &eventfds->entries[k];
            uint64_t last = e->offset + MAX(e->size, 1) - 1;
            if (e->offset < range->offset || last - range->offset > range->last - range->first) {
                continue;
            }
            list = xreallocarray(list, n + 1, sizeof(*list));
            list[n++] = (struct flat_eventfd){
                .address = range->first + (e->offset - range->offset),
                .e = *e,
            };
        }
    }
    if (n) {
        qsort(list, n, sizeof(*list), flat_eventfd_compare);
    }
    *count = n;
    return list;
}

struct flat_coalesced *flat_view_coalesced(const struct flat_view *view, unsigned *count)
{
    struct flat_coalesced *list = NULL;
    unsigned n = 0;

    for (unsigned i = 0; i < view->count; i++) {
        const struct flat_range *range = &view->ranges[i];
        uint64_t range_last = range->offset + (range->last - range->first);
        for (unsigned k = 0; k < range->region->coalesced_count; k++) {
            const struct mem_range *c = &range->region->coalesced[k];
            uint64_t first = MAX(c->offset, range->offset);
            uint64_t last = MIN(c->offset + c->size - 1, range_last);
            if (first > last) {
                continue;
            }
            list = xreallocarray(list, n + 1, sizeof(*list));
            list[n++] = (struct flat_coalesced){
                .address = range->first + (first - range->offset),
                .size = last - first + 1,
            };
        }
    }
    if (n) {
        qsort(list, n, sizeof(*list), flat_coalesced_compare);
    }
    *count = n;
    return list;
}
