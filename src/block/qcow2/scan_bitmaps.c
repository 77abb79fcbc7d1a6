/* SPDX-License-Identifier: MIT */
/* What the bitmaps extension refers to ("Bitmaps" in the specification). See scan.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/log.h"
#include "block/qcow2/bitmap.h"
#include "block/qcow2/direct.h"
#include "block/qcow2/scan.h"

/* What is wrong is not mended one by one: a repair leaves the image without bitmaps, unless they are
 * in use. Whoever asked for them makes a full backup then. */
static bool can_drop(const struct qcow2_scan *scan)
{
    return scan->fix && !scan->s->bitmaps;
}

static void drop(struct qcow2_scan *scan)
{
    struct qcow2_state *s = scan->s;

    if (scan->say) {
        scan_say(scan, "Dropping the image's %" PRIu32 " bitmaps", s->bitmap_count);
    } else { /* a dirty image is repaired while it is opened */
        log_warn("'%s': its bitmaps are damaged; all %" PRIu32 " are dropped", scan->node->filename,
                 s->bitmap_count);
    }
    scan->mended++;
    s->autoclear &= ~QCOW2_AUTOCLEAR_BITMAPS;
    s->bitmap_count = 0;
    s->bitmap_dir_offset = s->bitmap_dir_size = 0;
}

/* A bitmap as it is looked at. */
struct bitmap_view {
    const char *name;
    const char *fault;      /* or NULL */
    uint64_t offset, bytes; /* its table */
};

static bool is_in_file(const struct qcow2_scan *scan, uint64_t offset, uint64_t size)
{
    return range_fits(offset, size, scan->file_length + scan->s->cluster_size - 1);
}

static void see_table_entry(struct qcow2_scan *scan, const struct bitmap_view *view, uint64_t at,
                            uint64_t entry)
{
    uint64_t offset = entry & QCOW2_OFFSET_MASK;

    if (entry & QCOW2_BITMAP_TABLE_RESERVED || (offset && entry & QCOW2_BITMAP_TABLE_ONES) ||
        offset & (scan->s->cluster_size - 1)) {
        if (!view->fault) {
            scan_error(scan, can_drop(scan), 1,
                       " bitmap '%s' table entry %" PRIu64 " is impossible: %" PRIx64, view->name,
                       at, entry);
        }
    } else if (offset && !(view->fault && !is_in_file(scan, offset, scan->s->cluster_size))) {
        scan_count(scan, offset, scan->s->cluster_size, 1);
        scan_pin(scan, offset, scan->s->cluster_size);
    }
}

static int co_see_table(struct qcow2_scan *scan, const struct bitmap_view *view)
{
    uint8_t *buffer = xmalloc(DIRECT_BUFFER);
    int ret = 0;

    for (uint64_t at = 0; at < view->bytes && ret == 0; at += DIRECT_BUFFER) {
        size_t size = MIN((uint64_t)DIRECT_BUFFER, view->bytes - at);
        if (co_direct_is_hole(scan->node, view->offset + at, size)) {
            continue;
        }
        ret = co_direct_read(scan->node, view->offset + at, buffer, size);
        for (size_t i = 0; i < size && ret == 0; i += 8) {
            uint64_t entry = load_be64(buffer + i);
            if (entry) {
                see_table_entry(scan, view, (at + i) / 8, entry);
            }
        }
    }
    free(buffer);
    return ret;
}

/* A table with a fault: what of it is in the file, and not more than its bitmap can need. */
static void clip_table(const struct qcow2_scan *scan, const struct qcow2_bitmap *bitmap,
                       struct bitmap_view *view)
{
    const struct qcow2_state *s = scan->s;
    unsigned bits = MAX(bitmap->granularity_bits, QCOW2_BITMAP_MIN_BITS);
    uint64_t entries = qcow2_bitmap_table_size(s, s->size, MIN(bits, QCOW2_BITMAP_MAX_BITS));
    uint64_t end = qcow2_align_cluster(s, scan->file_length);

    if (!view->offset || view->offset & (s->cluster_size - 1) || view->offset >= end) {
        view->bytes = 0;
        return;
    }
    view->bytes = MIN(view->bytes, end - view->offset);
    view->bytes = MIN(view->bytes, qcow2_align_cluster(s, entries * 8));
}

/* With a fault, what its table seems to have counts all the same: whoever knows more than we do may
 * still use it. */
static int co_see_bitmap(struct qcow2_scan *scan, const struct qcow2_bitmap *bitmap,
                         uint64_t *table_bytes)
{
    struct bitmap_view view = {
        .name = bitmap->name,
        .fault = qcow2_bitmap_fault(scan->s, bitmap),
        .offset = bitmap->table_offset,
        .bytes = (uint64_t)bitmap->table_size * 8,
    };

    if (view.fault) {
        scan_error(scan, can_drop(scan), 1, " bitmap '%s' %s", view.name, view.fault);
        clip_table(scan, bitmap, &view);
    }
    *table_bytes += view.bytes;
    if (*table_bytes > scan->file_length + scan->s->cluster_size) {
        /* Tables that lie in each other would be read again and again. */
        if (!view.fault) {
            scan_error(scan, can_drop(scan), 1, " bitmap '%s' has a table that is not in the file",
                       view.name);
        }
        return 0;
    }
    scan_pin(scan, view.offset, view.bytes);
    return scan_count(scan, view.offset, view.bytes, 1) ? co_see_table(scan, &view) : 0;
}

int co_scan_bitmaps(struct qcow2_scan *scan)
{
    struct qcow2_state *s = scan->s;
    uint64_t table_bytes = 0, corruptions = scan->result->corruptions;
    struct qcow2_bitmap **list = NULL;
    struct error *err = NULL;
    int ret = 0;

    if (!(s->autoclear & QCOW2_AUTOCLEAR_BITMAPS) || !s->bitmap_dir_size || !s->bitmap_count) {
        return 0;
    }
    scan_pin(scan, s->bitmap_dir_offset, s->bitmap_dir_size);
    if (scan_count(scan, s->bitmap_dir_offset, s->bitmap_dir_size, 1)) {
        ret = co_qcow2_read_bitmap_dir(scan->node, &list, &err);
    }
    if (ret == -EINVAL) {
        scan_error(scan, can_drop(scan), 1, " %s", error_message(err));
        ret = 0;
    }
    error_free(err);
    for (uint32_t i = 0; list && i < s->bitmap_count && ret == 0; i++) {
        ret = co_see_bitmap(scan, list[i], &table_bytes);
    }
    qcow2_free_bitmap_list(list, s->bitmap_count);
    scan->bitmap_errors = scan->result->corruptions > corruptions;
    if (ret == 0 && scan->bitmap_errors && can_drop(scan)) {
        drop(scan);
        scan->bitmap_errors = false;
    }
    return ret;
}
