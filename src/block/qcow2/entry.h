/* SPDX-License-Identifier: MIT */
/*
 * An entry of an L2 table looked at with distrust: what it refers to, what is wrong with it, and
 * what can be mended without a guess at the guest's data. (Requests have map.c for what is right.)
 */
#ifndef FERRY_BLOCK_QCOW2_ENTRY_H
#define FERRY_BLOCK_QCOW2_ENTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/range.h"

struct qcow2_state;

/* Bits of a standard L2 entry that must be 0. */
#define QCOW2_L2_RESERVED UINT64_C(0x3f000000000001fe)

/* Faults of an entry. Those before ENTRY_FAULT_UNFIXABLE can be mended. */
#define ENTRY_FAULT_RESERVED          BIT(0) /* reserved bits: cleared */
#define ENTRY_FAULT_COMPRESSED_COPIED BIT(1) /* "copied" of compressed data: cleared */
#define ENTRY_FAULT_ZERO_UNALIGNED    BIT(2) /* zeroes with an impossible cluster: without it */
#define ENTRY_FAULT_COMPRESSED_BITMAP BIT(3) /* subclusters of compressed data: cleared */
#define ENTRY_FAULT_UNFIXABLE         0xfffffff0u
#define ENTRY_FAULT_DATA_UNALIGNED    BIT(4)
#define ENTRY_FAULT_BITMAP_BOTH       BIT(5) /* a subcluster that is allocated and reads as zeroes */
#define ENTRY_FAULT_BITMAP_NO_CLUSTER BIT(6) /* subclusters allocated without a cluster */
/* The entry is not followed: */
#define ENTRY_FAULT_COMPRESSED_DATA_FILE BIT(7)

enum entry_kind { ENTRY_NOTHING, ENTRY_CLUSTER, ENTRY_COMPRESSED };

struct entry_view {
    enum entry_kind kind;
    unsigned faults;
    uint64_t offset, size; /* what it refers to: bytes of the image's file, or of the data file */
};

/* bitmap: the second word with extended L2, else 0. */
void entry_look(const struct qcow2_state *s, uint64_t word, uint64_t bitmap,
                struct entry_view *view);
/* Mends what can be mended; true if that changed something. */
bool entry_fix(const struct qcow2_state *s, uint64_t *word, uint64_t *bitmap);
/* What a fault is called, as qemu-img does; fault is one bit. The caller frees it. index: the
 * guest cluster within its table. */
char *entry_fault_text(unsigned fault, uint64_t word, const struct entry_view *view,
                       uint64_t index);

#endif
