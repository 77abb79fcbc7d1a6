/* SPDX-License-Identifier: MIT */
/* Planning, counting, and the switch. See rebuild.h. */
#include "block/qcow2/rebuild.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "block/bitmap.h"
#include "block/qcow2/direct.h"
#include "block/qcow2/rebuild_int.h"
#include "block/qcow2/refdisk.h"
#include "block/qcow2/snapshot_table.h"

/* New metadata is less than what the file has twice over, and these. References further behind the
 * file's end than that are not counted: nothing will ever be written there by us. */
#define ROOM_BEHIND_END (UINT64_C(1) << 20) /* clusters */

void qcow2_plan_init(struct qcow2_plan *plan, struct block_node *node)
{
    struct qcow2_state *s = qcow2_of(node);

    *plan = (struct qcow2_plan){
        .node = node,
        .size = s->size,
        .l1_from = s->l1_offset,
        .l1_from_size = s->l1_size,
        .l1_size = s->l1_size,
        .snapshots = xcalloc((size_t)s->snapshot_count + 1, sizeof(*plan->snapshots)),
        .snapshot_count = s->snapshot_count,
        .refcount_order = s->refcount_order,
    };
    for (uint32_t i = 0; i < s->snapshot_count; i++) {
        qcow2_snapshot_copy(&plan->snapshots[i], &s->snapshots[i]);
    }
}

void qcow2_plan_free(struct qcow2_plan *plan)
{
    snapshot_list_free(plan->snapshots, plan->snapshot_count);
    plan->snapshots = NULL;
    plan->snapshot_count = 0;
}

/* ---- roots ----------------------------------------------------------------------------------- */

static int compare_roots(const void *a, const void *b)
{
    const struct scan_root *x = a, *y = b;

    if (x->l1_offset != y->l1_offset) {
        return x->l1_offset < y->l1_offset ? -1 : 1;
    }
    return x->l1_size < y->l1_size ? -1 : x->l1_size > y->l1_size;
}

struct scan_root *rebuild_find_root(struct rebuild *r, uint64_t l1_offset, uint32_t l1_size)
{
    struct scan_root key = {.l1_offset = l1_offset, .l1_size = l1_size};

    /* The first is the active one. */
    return bsearch(&key, r->roots + 1, r->root_count - 1, sizeof(key), compare_roots);
}

static bool is_possible_root(const struct qcow2_state *s, const struct scan_root *root)
{
    return !(root->l1_offset & (s->cluster_size - 1)) && root->l1_offset < QCOW2_MAX_OFFSET &&
           (uint64_t)root->l1_size * 8 <= QCOW2_MAX_L1_BYTES;
}

/* L1 tables of snapshots; `refs` each. An impossible one is left out, which is false if it has
 * references. */
static bool add_roots(struct rebuild *r, const struct qcow2_snapshot *snapshots, uint32_t count,
                      uint64_t refs)
{
    bool possible = true;

    for (uint32_t i = 0; i < count; i++) {
        struct scan_root root = {
            .l1_offset = snapshots[i].l1_offset,
            .l1_size = snapshots[i].l1_size,
            .refs = refs,
            .is_old = true,
        };
        if (is_possible_root(r->s, &root)) {
            r->roots[r->root_count++] = root;
        } else if (refs) {
            possible = false;
        }
    }
    return possible;
}

/* Tables that several share come once. */
static void merge_roots(struct rebuild *r)
{
    size_t n = 1;

    qsort(r->roots + 1, r->root_count - 1, sizeof(*r->roots), compare_roots);
    for (size_t i = 1; i < r->root_count; i++) {
        if (n > 1 && compare_roots(&r->roots[n - 1], &r->roots[i]) == 0) {
            r->roots[n - 1].refs += r->roots[i].refs;
        } else {
            r->roots[n++] = r->roots[i];
        }
    }
    r->root_count = n;
}

static int refuse_corrupt(struct rebuild *r, struct error **errp)
{
    error_set(errp, "Image '%s' is corrupt", r->node->filename);
    error_add_hint(errp, "ferry-img check says how, ferry-img check -r all repairs");
    return -EIO;
}

static int collect_roots(struct rebuild *r, struct error **errp)
{
    struct qcow2_plan *plan = r->plan;
    struct qcow2_state *s = r->s;
    struct qcow2_snapshot active = {.l1_offset = s->l1_offset, .l1_size = s->l1_size};

    r->roots = xcalloc((size_t)plan->snapshot_count + s->snapshot_count + 2, sizeof(*r->roots));
    r->roots[0] = (struct scan_root){
        .l1_offset = plan->l1_from,
        .l1_size = plan->l1_from_size,
        .refs = 1,
        .is_active = true,
        .is_old = true,
    };
    r->root_count = 1;
    if (plan->l1_from != s->l1_offset || plan->l1_from_size != s->l1_size) {
        add_roots(r, &active, 1, 0);
    }
    add_roots(r, s->snapshots, s->snapshot_count, 0);
    if (!add_roots(r, plan->snapshots, plan->snapshot_count, 1) && !plan->repair) {
        return refuse_corrupt(r, errp);
    }
    merge_roots(r);

    /* Tables that lie in each other would be read, and with a repair written, again and again. */
    uint64_t bytes = 0;
    for (size_t i = 1; i < r->root_count; i++) {
        bytes += (uint64_t)r->roots[i].l1_size * 8;
    }
    if (bytes > r->scan.file_length + QCOW2_MAX_L1_BYTES) {
        error_set(
            errp,
            "The L1 tables of the snapshots of '%s' do not fit into the file; delete snapshots",
            r->node->filename);
        return -EFBIG;
    }
    return 0;
}

/* ---- counting -------------------------------------------------------------------------------- */

static void pin_old_metadata(struct rebuild *r)
{
    struct qcow2_state *s = r->s;
    uint64_t file_end = r->scan.file_clusters << s->cluster_bits;

    scan_pin(&r->scan, s->snapshots_offset, s->snapshots_size);
    scan_pin(&r->scan, s->reftable_offset, (uint64_t)s->reftable_size * 8);
    for (uint32_t i = 0; i < s->reftable_size; i++) {
        uint64_t block = s->reftable[i] & QCOW2_REFTABLE_OFFSET_MASK;
        if (block && range_fits(block, s->cluster_size, file_end)) {
            scan_pin(&r->scan, block, s->cluster_size);
        }
    }
}

/* Clusters that have a refcount, but no reference that we know. */
static int co_keep_leaks(struct rebuild *r, struct error **errp)
{
    struct qcow2_state *s = r->s;
    struct refmap *refs = &r->scan.refs;
    struct refdisk disk;
    int ret = 0;

    refdisk_init(&disk, r->node);
    for (uint32_t i = 0; i < s->reftable_size && ret == 0; i++) {
        uint64_t block = s->reftable[i] & QCOW2_REFTABLE_OFFSET_MASK;
        uint64_t first = (uint64_t)i << s->refblock_bits;
        uint64_t end = MIN(first + BIT64(s->refblock_bits), r->scan.file_clusters);
        if (!block || co_direct_is_hole(r->node, block, s->cluster_size)) {
            continue;
        }
        for (uint64_t c = first; c < end && ret == 0; c++) {
            uint64_t count;
            ret = co_refdisk_get(&disk, c, &count);
            if (ret == 0 && count && refmap_is_free(refs, c)) {
                refmap_set(refs, c, MIN(count, refs->max));
                refmap_pin(refs, c);
            }
        }
    }
    refdisk_destroy(&disk);
    if (ret < 0) {
        error_set_errno(errp, -ret, "Could not read the refcounts of '%s'", r->node->filename);
    }
    return ret;
}

static int co_count(struct rebuild *r, struct error **errp)
{
    struct qcow2_scan *scan = &r->scan;
    int ret;

    scan_count(scan, 0, r->s->cluster_size, 1);
    scan_pin(scan, 0, r->s->cluster_size);
    pin_old_metadata(r);
    ret = co_scan_roots(scan, r->roots, r->root_count);
    if (ret == 0) {
        ret = co_scan_bitmaps(scan);
    }
    if (ret < 0) {
        error_set_errno(errp, -ret, "Could not read the metadata of '%s'", r->node->filename);
        return ret;
    }
    if (scan->overflows && !r->plan->repair) {
        error_set(errp, "%d (%s)", -EINVAL, strerror(EINVAL));
        error_add_hint(errp,
                       "refcounts of %u bits are too small for that; make them larger by ferry-img "
                       "amend -o refcount_bits=16",
                       1u << r->plan->refcount_order);
        return -EINVAL;
    }
    if (r->result.corruptions && !r->plan->repair) {
        return refuse_corrupt(r, errp);
    }
    return r->plan->repair && !scan->bitmap_errors ? 0 : co_keep_leaks(r, errp);
}

/* ---- room ------------------------------------------------------------------------------------ */

int64_t rebuild_alloc(struct rebuild *r, uint64_t bytes, uint64_t refs)
{
    uint64_t count = qcow2_align_cluster(r->s, bytes) >> r->s->cluster_bits;
    uint64_t *from = count > 1 ? &r->next_free_run : &r->next_free;
    uint64_t found = 0, c = *from;
    bool grows = r->node->file->grows;

    for (; found < count; c++) {
        if (c >= r->scan.count_end) {
            return -EFBIG;
        }
        if (!grows && c >= r->scan.file_length >> r->s->cluster_bits) {
            return -ENOSPC; /* a device */
        }
        found = refmap_is_free(&r->scan.refs, c) ? found + 1 : 0;
    }
    for (uint64_t i = c - count; i < c; i++) {
        refmap_set(&r->scan.refs, i, refs);
    }
    *from = c;
    return (int64_t)((c - count) << r->s->cluster_bits);
}

/* ---- the switch ------------------------------------------------------------------------------ */

/* The host may forget what only the old tables referred to. */
static void co_discard_freed(struct rebuild *r)
{
    struct refmap_page **pages = refmap_sorted(&r->scan.refs);
    unsigned bits = r->s->cluster_bits;
    uint64_t run = 0, next = 0; /* clusters to be discarded: how many, up to which */

    for (size_t i = 0; i < r->scan.refs.page_count; i++) {
        for (unsigned j = 0; j < REFMAP_PAGE; j++) {
            uint64_t cluster = (pages[i]->index << REFMAP_PAGE_BITS) + j;
            if (!(pages[i]->pinned & BIT64(j)) || refmap_page_count(pages[i], j) ||
                cluster + 1 >= r->scan.file_clusters) {
                continue;
            }
            if (run && next != cluster) {
                block_co_discard(r->node->file, (next - run) << bits, run << bits);
                run = 0;
            }
            run++;
            next = cluster + 1;
        }
    }
    if (run) {
        block_co_discard(r->node->file, (next - run) << bits, run << bits);
    }
    free(pages);
}

static void set_refcount_order(struct qcow2_state *s, unsigned order)
{
    s->refcount_order = order;
    s->max_refcount = refcount_max(order);
    s->refblock_bits = s->cluster_bits + 3 - order;
}

/* Fields of the state that the header has, to and fro. */
struct header_fields {
    uint64_t size, l1_offset, reftable_offset, snapshots_offset;
    uint32_t l1_size, reftable_size, snapshots_size, snapshot_count;
    unsigned refcount_order;
};

static struct header_fields swap_fields(struct qcow2_state *s, struct header_fields to)
{
    struct header_fields was = {
        .size = s->size,
        .l1_offset = s->l1_offset,
        .reftable_offset = s->reftable_offset,
        .snapshots_offset = s->snapshots_offset,
        .l1_size = s->l1_size,
        .reftable_size = s->reftable_size,
        .snapshots_size = s->snapshots_size,
        .snapshot_count = s->snapshot_count,
        .refcount_order = s->refcount_order,
    };

    s->size = to.size;
    s->l1_offset = to.l1_offset;
    s->reftable_offset = to.reftable_offset;
    s->snapshots_offset = to.snapshots_offset;
    s->l1_size = to.l1_size;
    s->reftable_size = to.reftable_size;
    s->snapshots_size = to.snapshots_size;
    s->snapshot_count = to.snapshot_count;
    set_refcount_order(s, to.refcount_order);
    return was;
}

static int co_switch(struct rebuild *r, struct error **errp)
{
    struct qcow2_plan *plan = r->plan;
    struct qcow2_state *s = r->s;
    int ret = co_direct_flush(r->node);

    if (ret < 0) {
        error_set_errno(errp, -ret, "Could not flush '%s'", r->node->filename);
        return ret;
    }
    struct header_fields was = swap_fields(s, (struct header_fields){
                                                  .size = plan->size,
                                                  .l1_offset = r->l1_offset,
                                                  .reftable_offset = r->reftable_offset,
                                                  .snapshots_offset = r->snapshots_offset,
                                                  .l1_size = plan->l1_size,
                                                  .reftable_size = r->reftable_size,
                                                  .snapshots_size = r->snapshots_size,
                                                  .snapshot_count = plan->snapshot_count,
                                                  .refcount_order = plan->refcount_order,
                                              });
    ret = co_qcow2_write_header(r->node, NULL);
    if (ret < 0) {
        /* Nobody knows which header the file has; both are right as long as nothing is written. */
        swap_fields(s, was);
        atomic_store(&s->corrupt, true);
        error_set_errno(errp, -ret, "Could not write the header of '%s'", r->node->filename);
        return ret;
    }

    if (s->snapshots) {
        snapshot_list_free(s->snapshots, was.snapshot_count);
    }
    s->snapshots = plan->snapshots;
    plan->snapshots = NULL;
    plan->snapshot_count = 0;
    atomic_store(&r->node->length, s->size);
    block_bitmaps_resize(r->node, s->size);
    co_qcow2_install_tables(r->node, r->l1, r->reftable);
    return 0;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static void tell_progress(struct rebuild *r, uint64_t done)
{
    if (r->plan->progress) {
        r->plan->progress(r->plan->opaque, done, 4);
    }
}

int co_qcow2_rebuild(struct qcow2_plan *plan, struct error **errp)
{
    struct block_node *node = plan->node;
    struct qcow2_state *s = qcow2_of(node);
    struct rebuild r = {.plan = plan, .node = node, .s = s, .next_free = 1, .next_free_run = 1};
    int ret = plan->repair ? 0 : co_qcow2_mark_clean(node);

    if (ret < 0) {
        error_set_errno(errp, -ret, "Could not write the metadata of '%s'", node->filename);
        return ret;
    }
    scan_init(&r.scan, node, refcount_max(plan->refcount_order), &r.result, NULL, NULL);
    r.scan.fix = plan->repair;
    r.scan.tables_move = true;
    r.scan.count_end =
        MIN(2 * r.scan.file_clusters + ROOM_BEHIND_END, QCOW2_MAX_OFFSET >> s->cluster_bits);
    ret = collect_roots(&r, errp);
    if (ret == 0) {
        ret = co_count(&r, errp);
    }
    tell_progress(&r, 1);
    if (ret == 0) {
        ret = co_rebuild_tables(&r, errp);
    }
    tell_progress(&r, 2);
    if (ret == 0) {
        ret = co_rebuild_refcounts(&r, errp);
    }
    tell_progress(&r, 3);
    if (ret == 0) {
        ret = co_switch(&r, errp);
    }
    if (ret == 0 && s->discard_snapshot) {
        co_discard_freed(&r);
    }
    tell_progress(&r, 4);
    scan_destroy(&r.scan);
    free(r.roots);
    free(r.l1);
    free(r.reftable);
    return ret;
}
