/* SPDX-License-Identifier: MIT */
/* The refcounts that the file has beside the references that it has. See check.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "block/qcow2/check.h"
#include "block/qcow2/direct.h"
#include "block/qcow2/entry.h"

/* An error of which a rebuild leaves nothing. */
#define REBUILT(check) ((check)->fix & BLOCK_CHECK_FIX_ERRORS)

bool check_mends_leaks(const struct qcow2_check *check)
{
    return check->fix && !check->scan.bitmap_errors;
}

void check_reftable(struct qcow2_check *check)
{
    struct qcow2_scan *scan = &check->scan;
    struct qcow2_state *s = check->s;
    bool mend = REBUILT(check);

    scan_count(scan, s->reftable_offset, (uint64_t)s->reftable_size * 8, 1);
    for (uint32_t i = 0; i < s->reftable_size; i++) {
        uint64_t entry = s->reftable[i], block = entry & QCOW2_REFTABLE_OFFSET_MASK;
        if (entry & QCOW2_REFTABLE_RESERVED) {
            scan_error(scan, mend, 1, " refcount table entry %u has reserved bits set", i);
        } else if (block & (s->cluster_size - 1)) {
            scan_error(scan, mend, 1,
                       " refcount block %u is not cluster aligned; refcount table entry corrupted",
                       i);
        } else if (block >> s->cluster_bits >= scan->file_clusters) {
            scan_error(scan, mend, 1, " refcount block %u is outside image", i);
        } else if (block) {
            scan_count(scan, block, s->cluster_size, 1);
            uint64_t count = refmap_get(&scan->refs, block >> s->cluster_bits);
            if (count != 1) {
                scan_error(scan, mend, 1, " refcount block %u refcount=%" PRIu64, i, count);
            }
        }
    }
}

/* ---- all clusters ---------------------------------------------------------------------------- */

static void compare(struct qcow2_check *check, uint64_t cluster, uint64_t count, uint64_t refs)
{
    struct block_check_result *result = check->scan.result;

    if (count || refs) {
        result->image_end_offset = (cluster + 1) << check->s->cluster_bits;
    }
    if (count < refs) {
        scan_error(&check->scan, REBUILT(check), 1,
                   " cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64, cluster, count,
                   refs);
    } else if (count > refs) {
        result->leaks++;
        scan_say(&check->scan, "%s cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64,
                 check_mends_leaks(check) ? "Repairing" : "Leaked", cluster, count, refs);
    }
}

/* [first, end) of the clusters of one refcount block, or of none. */
static int co_compare_range(struct qcow2_check *check, uint64_t first, uint64_t end, bool has_block)
{
    struct refmap *refs = &check->scan.refs;

    for (uint64_t c = first; c < end;) {
        struct refmap_page *page = refmap_find(refs, c >> REFMAP_PAGE_BITS);
        uint64_t page_end = MIN(end, ((c >> REFMAP_PAGE_BITS) + 1) << REFMAP_PAGE_BITS);
        if (!page && !has_block) {
            c = page_end;
            continue;
        }
        for (; c < page_end; c++) {
            uint64_t count = 0;
            uint64_t here = page ? refmap_page_count(page, c & (REFMAP_PAGE - 1)) : 0;
            int ret = has_block ? co_refdisk_get(&check->disk, c, &count) : 0;
            if (ret < 0) {
                check->scan.result->check_errors++;
                scan_say(&check->scan, "Can't get refcount for cluster %" PRIu64 ": %s", c,
                         "Input/output error");
                continue;
            }
            if (count | here) {
                compare(check, c, count, here);
            }
        }
    }
    return 0;
}

/* Clusters of which no refcount block tells: those that something refers to. */
static void compare_uncovered(struct qcow2_check *check, struct refmap_page **pages, size_t count,
                              size_t *next, uint64_t before)
{
    for (; *next < count && pages[*next]->index << REFMAP_PAGE_BITS < before; ++*next) {
        for (unsigned i = 0; i < REFMAP_PAGE; i++) {
            uint64_t refs = refmap_page_count(pages[*next], i);
            if (refs) {
                compare(check, (pages[*next]->index << REFMAP_PAGE_BITS) + i, 0, refs);
            }
        }
    }
}

int co_check_refcounts(struct qcow2_check *check)
{
    struct qcow2_state *s = check->s;
    struct qcow2_scan *scan = &check->scan;
    struct refmap_page **pages = refmap_sorted(&scan->refs);
    size_t count = scan->refs.page_count, next = 0;
    int ret = 0;

    for (uint32_t i = 0; i < s->reftable_size && ret == 0; i++) {
        uint64_t block = s->reftable[i] & QCOW2_REFTABLE_OFFSET_MASK;
        uint64_t first = (uint64_t)i << s->refblock_bits;
        uint64_t end = MIN(first + BIT64(s->refblock_bits), scan->file_clusters);
        if (first >= scan->file_clusters) {
            break;
        }
        if (!block || (block & (s->cluster_size - 1) && REBUILT(check)) ||
            (!(block & (s->cluster_size - 1)) &&
             co_direct_is_hole(check->node, block, s->cluster_size))) {
            continue; /* all 0 */
        }
        compare_uncovered(check, pages, count, &next, first);
        ret = co_compare_range(check, first, end, true);
        while (next < count && pages[next]->index << REFMAP_PAGE_BITS < end) {
            next++;
        }
    }
    if (ret == 0) {
        compare_uncovered(check, pages, count, &next, UINT64_MAX);
    }
    free(pages);
    return ret;
}

/* ---- copied flags ---------------------------------------------------------------------------- */

/* False: the refcount cannot be known; that was told already. */
static bool co_get_count(struct qcow2_check *check, bool counted, uint64_t offset, uint64_t *count)
{
    uint64_t cluster = offset >> check->s->cluster_bits;

    if (counted && cluster < check->scan.file_clusters) {
        *count = refmap_get(&check->scan.refs, cluster);
        return true;
    }
    return co_refdisk_get(&check->disk, cluster, count) == 0;
}

static int co_check_l2_copied(struct qcow2_check *check, bool counted, uint64_t offset,
                              uint8_t *data)
{
    struct qcow2_state *s = check->s;

    if (co_direct_is_hole(check->node, offset, s->cluster_size)) {
        return 0;
    }
    int ret = co_direct_read(check->node, offset, data, s->cluster_size);
    for (uint32_t at = 0; at < s->cluster_size && ret == 0; at += s->l2_entry_size) {
        uint64_t word = load_be64(data + at), count = 1;
        uint64_t bitmap = s->extended_l2 ? load_be64(data + at + 8) : 0;
        struct entry_view view;
        if (!word) {
            continue;
        }
        entry_look(s, word, bitmap, &view);
        if (view.kind != ENTRY_CLUSTER ||
            (check->scan.fix && view.faults & ENTRY_FAULT_ZERO_UNALIGNED) ||
            (!s->has_data_file && !co_get_count(check, counted, view.offset, &count))) {
            continue;
        }
        if ((count == 1) != !!(word & QCOW2_COPIED)) {
            scan_error(&check->scan, counted, 1,
                       " OFLAG_COPIED data cluster: l2_entry=%" PRIx64 " refcount=%" PRIu64, word,
                       count);
        }
    }
    return ret;
}

int co_check_copied(struct qcow2_check *check, bool counted)
{
    struct qcow2_state *s = check->s;
    uint64_t end = s->l1_offset + (uint64_t)s->l1_size * 8;
    uint8_t *l1 = xmalloc(DIRECT_BUFFER), *data = xmalloc(s->cluster_size);
    int ret = 0;

    for (uint64_t at = s->l1_offset; at < end && ret == 0; at += DIRECT_BUFFER) {
        size_t size = MIN((uint64_t)DIRECT_BUFFER, end - at);
        if (co_direct_is_hole(check->node, at, size)) {
            continue;
        }
        ret = co_direct_read(check->node, at, l1, size);
        for (size_t i = 0; i < size && ret == 0; i += 8) {
            uint64_t entry = load_be64(l1 + i), offset = entry & QCOW2_OFFSET_MASK, count;
            if (!offset || !co_get_count(check, counted, offset, &count)) {
                continue;
            }
            if ((count == 1) != !!(entry & QCOW2_COPIED)) {
                scan_error(&check->scan, counted, 1,
                           " OFLAG_COPIED L2 cluster: l1_index=%" PRIu64 " l1_entry=%" PRIx64
                           " refcount=%" PRIu64,
                           (at - s->l1_offset + i) / 8, entry, count);
            }
            struct scan_table *table = scan_find_table(&check->scan, offset);
            if (table && table->is_done) {
                table->is_done = false; /* each once, however many entries have it */
                ret = co_check_l2_copied(check, counted, offset, data);
            }
        }
    }
    free(data);
    free(l1);
    return ret;
}

/* ---- leaks ----------------------------------------------------------------------------------- */

struct piece {
    uint64_t offset; /* 0: none */
    uint32_t size;   /* bytes */
    uint8_t *data;
};

static int co_write_piece(struct qcow2_check *check, struct piece *piece)
{
    uint64_t offset = piece->offset;

    piece->offset = 0;
    return offset ? co_direct_write(check->node, offset, piece->data, piece->size) : 0;
}

static int co_lower(struct qcow2_check *check, struct piece *piece, uint64_t cluster,
                    uint64_t count)
{
    unsigned order = check->s->refcount_order;
    uint64_t block, index;
    int ret = refdisk_place(check->s, cluster, &block, &index);

    /* What shares a block's cluster must not be written to. */
    if (ret < 0 || refmap_get(&check->scan.refs, block >> check->s->cluster_bits) != 1) {
        return 0;
    }
    uint64_t offset = block + align_down(index << order >> 3, piece->size);
    if (piece->offset != offset) {
        ret = co_write_piece(check, piece);
        if (ret == 0) {
            ret = co_direct_read(check->node, offset, piece->data, piece->size);
        }
        if (ret < 0) {
            return ret;
        }
        piece->offset = offset;
    }
    refcount_store(piece->data, order, index % ((uint64_t)piece->size * 8 >> order), count);
    return 0;
}

int co_check_free_leaks(struct qcow2_check *check)
{
    struct qcow2_state *s = check->s;
    struct piece piece = {.size = MIN(s->cluster_size, QCOW2_SLICE)};
    int ret = 0;

    piece.data = xmalloc(piece.size);
    for (uint32_t i = 0; i < s->reftable_size && ret == 0; i++) {
        uint64_t block = s->reftable[i] & QCOW2_REFTABLE_OFFSET_MASK;
        uint64_t first = (uint64_t)i << s->refblock_bits;
        uint64_t end = MIN(first + BIT64(s->refblock_bits), check->scan.file_clusters);
        if (!block || block & (s->cluster_size - 1) ||
            co_direct_is_hole(check->node, block, s->cluster_size)) {
            continue;
        }
        for (uint64_t c = first; c < end && ret == 0; c++) {
            uint64_t count, refs = refmap_get(&check->scan.refs, c);
            ret = co_refdisk_get(&check->disk, c, &count);
            if (ret == 0 && count > refs) {
                ret = co_lower(check, &piece, c, refs);
            }
        }
    }
    if (ret == 0) {
        ret = co_write_piece(check, &piece);
    }
    free(piece.data);
    return ret == 0 ? co_direct_flush(check->node) : ret;
}
