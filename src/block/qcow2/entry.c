/* SPDX-License-Identifier: MIT */
#include "block/qcow2/entry.h"

#include <inttypes.h>

#include "base/alloc.h"
#include "block/qcow2/qcow2.h"

static void look_compressed(const struct qcow2_state *s, uint64_t word, uint64_t bitmap,
                            struct entry_view *view)
{
    /* The specification, "Compressed Clusters Descriptor": x = 62 - (cluster_bits - 8). */
    unsigned shift = 62 - (s->cluster_bits - 8);
    uint64_t offset = word & (BIT64(shift) - 1);
    uint64_t sectors = ((word & ~(QCOW2_COPIED | QCOW2_COMPRESSED)) >> shift) + 1;

    view->kind = ENTRY_COMPRESSED;
    view->offset = align_down(offset, QCOW2_COMPRESSED_SECTOR);
    view->size = sectors * QCOW2_COMPRESSED_SECTOR;
    if (s->has_data_file) {
        view->faults |= ENTRY_FAULT_COMPRESSED_DATA_FILE;
        return;
    }
    if (word & QCOW2_COPIED) {
        view->faults |= ENTRY_FAULT_COMPRESSED_COPIED;
    }
    if (bitmap) { /* which reads do not look at */
        view->faults |= ENTRY_FAULT_COMPRESSED_BITMAP;
    }
}

void entry_look(const struct qcow2_state *s, uint64_t word, uint64_t bitmap,
                struct entry_view *view)
{
    uint64_t offset = word & QCOW2_OFFSET_MASK;

    *view = (struct entry_view){.kind = ENTRY_NOTHING};
    if (word & QCOW2_COMPRESSED) {
        look_compressed(s, word, bitmap, view);
        return;
    }
    if (word & QCOW2_L2_RESERVED) {
        view->faults |= ENTRY_FAULT_RESERVED;
    }
    bool reads_zero = s->extended_l2 ? !(bitmap & QCOW2_SUB_ALLOC) : word & QCOW2_ZERO;
    /* In a data file, offset 0 is a cluster like others; "copied" tells. */
    if (!offset && !(s->has_data_file && word & QCOW2_COPIED && (s->extended_l2 || !reads_zero))) {
        if (bitmap & QCOW2_SUB_ALLOC) {
            view->faults |= ENTRY_FAULT_BITMAP_NO_CLUSTER;
        }
        return;
    }
    view->kind = ENTRY_CLUSTER;
    view->offset = offset;
    view->size = s->cluster_size;
    if (bitmap & bitmap >> QCOW2_SUBCLUSTERS & QCOW2_SUB_ALLOC) {
        view->faults |= ENTRY_FAULT_BITMAP_BOTH;
    }
    if (offset & (s->cluster_size - 1)) {
        view->faults |=
            reads_zero && s->version >= 3 ? ENTRY_FAULT_ZERO_UNALIGNED : ENTRY_FAULT_DATA_UNALIGNED;
    }
}

bool entry_fix(const struct qcow2_state *s, uint64_t *word, uint64_t *bitmap)
{
    struct entry_view view;

    entry_look(s, *word, *bitmap, &view);
    if (view.faults & ENTRY_FAULT_RESERVED) {
        *word &= ~QCOW2_L2_RESERVED;
    }
    if (view.faults & ENTRY_FAULT_COMPRESSED_COPIED) {
        *word &= ~QCOW2_COPIED;
    }
    if (view.faults & ENTRY_FAULT_COMPRESSED_BITMAP) {
        *bitmap = 0;
    }
    if (view.faults & ENTRY_FAULT_ZERO_UNALIGNED) {
        *word = s->extended_l2 ? 0 : QCOW2_ZERO;
    }
    return view.faults & ~ENTRY_FAULT_UNFIXABLE;
}

char *entry_fault_text(unsigned fault, uint64_t word, const struct entry_view *view, uint64_t index)
{
    switch (fault) {
    case ENTRY_FAULT_RESERVED:
        return xasprintf(" found l2 entry with reserved bits set: %" PRIx64, word);
    case ENTRY_FAULT_COMPRESSED_COPIED:
        return xasprintf(": coffset=0x%" PRIx64
                         ": copied flag must never be set for compressed clusters",
                         view->offset);
    case ENTRY_FAULT_ZERO_UNALIGNED:
    case ENTRY_FAULT_DATA_UNALIGNED:
        return xasprintf(" offset=%" PRIx64
                         ": %s cluster is not properly aligned; L2 entry corrupted.",
                         view->offset,
                         fault == ENTRY_FAULT_ZERO_UNALIGNED ? "Preallocated" : "Data");
    case ENTRY_FAULT_BITMAP_BOTH:
        return xasprintf(" offset=%" PRIx64
                         ": Allocated cluster has corrupted subcluster allocation bitmap",
                         view->offset);
    case ENTRY_FAULT_BITMAP_NO_CLUSTER:
        return xstrdup(": Unallocated cluster has non-zero subcluster allocation map");
    case ENTRY_FAULT_COMPRESSED_BITMAP:
        return xasprintf(" compressed cluster %" PRIu64
                         " with non-zero subcluster allocation bitmap, entry=0x%" PRIx64,
                         index, word);
    default:
        return xasprintf(" compressed cluster %" PRIu64 " with data file, entry=0x%" PRIx64, index,
                         word);
    }
}
