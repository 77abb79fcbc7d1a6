/* SPDX-License-Identifier: MIT */
/* What the bitmaps extension refers to ("Bitmaps" in the specification). See scan.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "block/bitmap.h"
#include "block/qcow2/direct.h"
#include "block/qcow2/scan.h"

#define DIR_ENTRY_SIZE       24u /* without extra data and name */
#define TABLE_RESERVED       UINT64_C(0xff000000000001fe)
#define BITMAP_TYPE_DIRTY    1u
#define BITMAP_MAX_GRAN_BITS 31u

struct dir_entry {
    uint64_t table_offset;
    uint32_t table_size; /* entries */
    uint8_t type, granularity_bits;
    uint16_t name_size;
    uint32_t extra_size;
};

static void see_table_entry(struct qcow2_scan *scan, uint64_t index, uint64_t at, uint64_t entry)
{
    uint64_t offset = entry & QCOW2_OFFSET_MASK;

    if (entry & TABLE_RESERVED || (offset && entry & 1) || offset & (scan->s->cluster_size - 1)) {
        scan_error(scan, false, 1,
                   " bitmap %" PRIu64 " table entry %" PRIu64 " is impossible: %" PRIx64, index, at,
                   entry);
    } else if (offset) {
        scan_count(scan, offset, scan->s->cluster_size, 1);
        scan_pin(scan, offset, scan->s->cluster_size);
    }
}

static int co_see_table(struct qcow2_scan *scan, uint64_t index, const struct dir_entry *dir)
{
    uint64_t bytes = (uint64_t)dir->table_size * 8;
    uint8_t *buffer = xmalloc(DIRECT_BUFFER);
    int ret = 0;

    for (uint64_t at = 0; at < bytes && ret == 0; at += DIRECT_BUFFER) {
        size_t size = MIN((uint64_t)DIRECT_BUFFER, bytes - at);
        if (co_direct_is_hole(scan->node, dir->table_offset + at, size)) {
            continue;
        }
        ret = co_direct_read(scan->node, dir->table_offset + at, buffer, size);
        for (size_t i = 0; i < size && ret == 0; i += 8) {
            uint64_t entry = load_be64(buffer + i);
            if (entry) {
                see_table_entry(scan, index, (at + i) / 8, entry);
            }
        }
    }
    free(buffer);
    return ret;
}

static int co_take_entry(struct direct_reader *reader, struct dir_entry *dir)
{
    uint8_t raw[DIR_ENTRY_SIZE];
    int ret = co_direct_take(reader, raw, sizeof(raw));

    if (ret < 0) {
        return ret;
    }
    *dir = (struct dir_entry){
        .table_offset = load_be64(raw),
        .table_size = load_be32(raw + 8),
        .type = raw[16],
        .granularity_bits = raw[17],
        .name_size = load_be16(raw + 18),
        .extra_size = load_be32(raw + 20),
    };
    uint64_t size = sizeof(raw) + (uint64_t)dir->extra_size + dir->name_size;
    return direct_skip(reader, align_up(size, 8) - sizeof(raw));
}

static bool is_possible(const struct qcow2_state *s, const struct dir_entry *dir)
{
    return dir->table_size && dir->table_size <= QCOW2_MAX_BITMAP_TABLE && dir->table_offset &&
           !(dir->table_offset & (s->cluster_size - 1)) &&
           dir->granularity_bits <= BITMAP_MAX_GRAN_BITS && dir->name_size &&
           dir->name_size <= BLOCK_BITMAP_NAME_MAX && dir->type == BITMAP_TYPE_DIRTY;
}

int co_scan_bitmaps(struct qcow2_scan *scan)
{
    struct qcow2_state *s = scan->s;
    uint64_t table_bytes = 0;
    struct direct_reader reader;
    int ret = 0;

    if (!(s->autoclear & QCOW2_AUTOCLEAR_BITMAPS) || !s->bitmap_dir_size || !s->bitmap_count) {
        return 0;
    }
    if (s->bitmap_dir_size > QCOW2_MAX_BITMAP_DIR_BYTES) {
        scan_error(scan, false, 1, " bitmap directory of %" PRIu64 " bytes is too large",
                   s->bitmap_dir_size);
        return 0;
    }
    scan_pin(scan, s->bitmap_dir_offset, s->bitmap_dir_size);
    if (!scan_count(scan, s->bitmap_dir_offset, s->bitmap_dir_size, 1)) {
        return 0;
    }
    direct_reader_init(&reader, scan->node, s->bitmap_dir_offset, s->bitmap_dir_size);
    for (uint64_t i = 0; i < s->bitmap_count && ret == 0; i++) {
        struct dir_entry dir;
        ret = co_take_entry(&reader, &dir);
        if (ret == -EFBIG) {
            scan_error(scan, false, 1, " bitmap directory ends within bitmap %" PRIu64, i);
            ret = 0;
            break;
        }
        if (ret < 0) {
            break;
        }
        uint64_t bytes = (uint64_t)dir.table_size * 8;
        table_bytes += bytes;
        if (!is_possible(s, &dir)) {
            scan_error(scan, false, 1, " bitmap %" PRIu64 ": directory entry is impossible", i);
        } else if (table_bytes > scan->file_length + s->cluster_size) {
            /* Tables that lie in each other would be read again and again. */
            scan_error(scan, false, 1, " bitmap %" PRIu64 ": its table does not fit into the file",
                       i);
        } else {
            scan_pin(scan, dir.table_offset, bytes);
            if (scan_count(scan, dir.table_offset, bytes, 1)) {
                ret = co_see_table(scan, i, &dir);
            }
        }
    }
    direct_reader_free(&reader);
    return ret;
}
