/* SPDX-License-Identifier: MIT */
/*
 * Persistent dirty bitmaps in the image (the specification's "Bitmaps").
 *
 *   header extension --> directory --> tables --> data: a bit per granule, the first one is bit 0 of
 *                                                 the first byte
 *
 *   open      the directory is read, and the bits; for writing, all bitmaps that are fine are marked
 *             as in use: whoever finds the mark later knows that their bits were not stored
 *   write     bits are set in memory (block/bitmap.h)
 *   close     tables of those that changed are written anew, and a directory without the marks
 *
 * Nothing but a mark is changed where it is: a new directory in new clusters becomes the image's by one
 * write of the header, and what only the old one referred to is free after that. So power may fail at
 * any point. A mark lies within a sector and says nothing of other entries: it is set in place, before
 * anything is written, and taken away in place if there is no room for another directory and no table
 * has changed, after all else is on stable storage. So an image that can hold no more can be opened for
 * writing, and keeps its bitmaps as long as no bit is set. What we cannot use (in use, of a type, with flags or extra data that we do not know, or
 * damaged) is shown as inconsistent and kept as it is until somebody removes it.
 *
 * In coroutines of the main loop, drained.
 */
#ifndef FERRY_BLOCK_QCOW2_BITMAP_H
#define FERRY_BLOCK_QCOW2_BITMAP_H

#include "block/qcow2/qcow2.h"

#define QCOW2_BITMAP_IN_USE       BIT(0)
#define QCOW2_BITMAP_AUTO         BIT(1) /* writes set bits */
#define QCOW2_BITMAP_EXTRA_COMPAT BIT(2) /* who does not know the extra data may use it still */
#define QCOW2_BITMAP_KNOWN_FLAGS  (BIT(3) - 1)
#define QCOW2_BITMAP_TYPE_DIRTY   1u
#define QCOW2_BITMAP_MIN_BITS     9u
#define QCOW2_BITMAP_MAX_BITS     31u
#define QCOW2_BITMAP_MAX_BYTES    (512 * MiB) /* of bits; as QEMU */
/* Entries of a table: an offset, or 0 and all bits of that part are the lowest bit's. */
#define QCOW2_BITMAP_TABLE_ONES     UINT64_C(1)
#define QCOW2_BITMAP_TABLE_RESERVED UINT64_C(0xff000000000001fe)

/* An entry of the directory. */
struct qcow2_bitmap {
    char *name;
    uint64_t table_offset;
    uint32_t table_size; /* entries */
    uint32_t flags;
    uint8_t type, granularity_bits;
    void *extra; /* kept as it is */
    uint32_t extra_size;
    /* There was a fault when it was read: nobody knows what its table means, so nothing that is in it
     * is ever given back. */
    bool is_faulty;
    /* While bitmaps are stored: this entry's table was written just now; the new directory has it as
     * well. */
    bool is_new, is_kept;
};

void qcow2_bitmap_free(struct qcow2_bitmap *bitmap);

/* bitmap_dir.c. Reads the directory that the header names: s->bitmap_count entries, the caller's to
 * free. Negative errno and *errp, which does not name the image, if it is none (-EINVAL). */
int co_qcow2_read_bitmap_dir(struct block_node *node, struct qcow2_bitmap ***list,
                             struct error **errp);
void qcow2_free_bitmap_list(struct qcow2_bitmap **list, uint32_t count);
/* What no program would write in that entry, or NULL. */
const char *qcow2_bitmap_fault(const struct qcow2_state *s, const struct qcow2_bitmap *bitmap);
/* Bytes of an entry in the directory. */
uint64_t qcow2_bitmap_entry_size(size_t name_length, uint32_t extra_size);
/* A new directory with the first `count` of s->bitmaps' places; the old one's clusters will be free.
 * What the tables need was written before. */
int co_qcow2_write_bitmap_dir(struct block_node *node, struct qcow2_bitmap **list, uint32_t count);
/* Over the image's directory, of which only flags differ. All else is on stable storage first. */
int co_qcow2_rewrite_bitmap_dir(struct block_node *node, struct qcow2_bitmap **list,
                                uint32_t count);

/* bitmap_table.c. table_size of a bitmap that covers `length` bytes. */
uint64_t qcow2_bitmap_table_size(const struct qcow2_state *s, uint64_t length,
                                 unsigned granularity_bits);
struct block_bitmap;
/* Bits from and to the image; negative errno: that could not be (-EINVAL: a table entry is
 * impossible). Writing takes new clusters for the table and the data, sets the table in `to`. */
int co_qcow2_read_bitmap_table(struct block_node *node, const struct qcow2_bitmap *from,
                               struct block_bitmap *bitmap);
int co_qcow2_write_bitmap_table(struct block_node *node, const struct block_bitmap *bitmap,
                                struct qcow2_bitmap *to);
/* Gives back a table's clusters. unlinked: it was on disk; else nothing ever pointed to it. */
int co_qcow2_free_bitmap_table(struct block_node *node, const struct qcow2_bitmap *bitmap,
                               bool was_linked);

/* bitmap.c: of image_ops. */
bool qcow2_can_keep_bitmap(struct block_node *node, const char *name, uint32_t granularity,
                           struct error **errp);
bool qcow2_keep_bitmaps(struct block_node *node, struct error **errp);
/* With the node. */
void qcow2_free_bitmaps(struct qcow2_state *s);

#endif
