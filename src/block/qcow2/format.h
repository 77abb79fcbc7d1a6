/* SPDX-License-Identifier: MIT */
/*
 * qcow2 on disk (the qcow2 specification, docs/interop/qcow2.txt of the format's home). All numbers
 * are big-endian. Names here are the specification's.
 *
 *   header --l1_table_offset--> L1 table --> L2 tables --> data clusters
 *          --refcount_table_offset--> refcount table --> refcount blocks
 *          --snapshots_offset--> snapshot table --> L1 tables of snapshots
 *          --extension--> bitmap directory --> bitmap tables --> bitmap data
 */
#ifndef FERRY_BLOCK_QCOW2_FORMAT_H
#define FERRY_BLOCK_QCOW2_FORMAT_H

#include <stdint.h>

#include "base/range.h"

#define QCOW2_MAGIC UINT32_C(0x514649fb) /* "QFI\xfb" */

/* Header: offsets of fields, bytes. */
enum {
    QCOW2_H_MAGIC = 0,
    QCOW2_H_VERSION = 4,
    QCOW2_H_BACKING_OFFSET = 8,
    QCOW2_H_BACKING_SIZE = 16,
    QCOW2_H_CLUSTER_BITS = 20,
    QCOW2_H_SIZE = 24,
    QCOW2_H_CRYPT_METHOD = 32,
    QCOW2_H_L1_SIZE = 36, /* entries */
    QCOW2_H_L1_OFFSET = 40,
    QCOW2_H_REFTABLE_OFFSET = 48,
    QCOW2_H_REFTABLE_CLUSTERS = 56,
    QCOW2_H_NB_SNAPSHOTS = 60,
    QCOW2_H_SNAPSHOTS_OFFSET = 64,
    QCOW2_H_V2_LENGTH = 72,
    /* version 3 */
    QCOW2_H_INCOMPATIBLE = 72,
    QCOW2_H_COMPATIBLE = 80,
    QCOW2_H_AUTOCLEAR = 88,
    QCOW2_H_REFCOUNT_ORDER = 96,
    QCOW2_H_HEADER_LENGTH = 100,
    QCOW2_H_COMPRESSION = 104,
    QCOW2_H_V3_LENGTH = 104,      /* the shortest */
    QCOW2_H_V3_FULL_LENGTH = 112, /* with compression type, padded to a multiple of 8 */
};

#define QCOW2_INCOMPAT_DIRTY       BIT64(0)
#define QCOW2_INCOMPAT_CORRUPT     BIT64(1)
#define QCOW2_INCOMPAT_DATA_FILE   BIT64(2)
#define QCOW2_INCOMPAT_COMPRESSION BIT64(3)
#define QCOW2_INCOMPAT_EXTL2       BIT64(4)
#define QCOW2_INCOMPAT_KNOWN       (BIT64(5) - 1)
#define QCOW2_COMPAT_LAZY          BIT64(0)
#define QCOW2_AUTOCLEAR_BITMAPS    BIT64(0)
#define QCOW2_AUTOCLEAR_DATA_RAW   BIT64(1)
#define QCOW2_AUTOCLEAR_KNOWN      (BIT64(2) - 1)

enum qcow2_compression { QCOW2_COMPRESSION_ZLIB = 0, QCOW2_COMPRESSION_ZSTD = 1 };

/* Header extensions: type, length, data padded to 8. */
#define QCOW2_EXT_END            UINT32_C(0)
#define QCOW2_EXT_BACKING_FORMAT UINT32_C(0xe2792aca)
#define QCOW2_EXT_FEATURE_NAMES  UINT32_C(0x6803f857)
#define QCOW2_EXT_BITMAPS        UINT32_C(0x23852875)
#define QCOW2_EXT_CRYPTO         UINT32_C(0x0537be77)
#define QCOW2_EXT_DATA_FILE      UINT32_C(0x44415441)

/* Entries of L1 and L2 tables. */
#define QCOW2_COPIED      BIT64(63) /* refcount is exactly 1 */
#define QCOW2_COMPRESSED  BIT64(62) /* L2 only */
#define QCOW2_ZERO        BIT64(0)  /* L2 only, version 3, not with extended L2 */
#define QCOW2_OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define QCOW2_L1_RESERVED UINT64_C(0x7f000000000001ff)
/* Extended L2: the second word of an entry. Bit n: subcluster n is allocated; bit 32 + n: it reads
 * as zeroes; never both. */
#define QCOW2_SUBCLUSTERS 32u
#define QCOW2_SUB_ALLOC   UINT64_C(0x00000000ffffffff)
#define QCOW2_SUB_ZERO    UINT64_C(0xffffffff00000000)

/* Refcount table. */
#define QCOW2_REFTABLE_OFFSET_MASK UINT64_C(0xfffffffffffffe00)
#define QCOW2_REFTABLE_RESERVED    UINT64_C(0x00000000000001ff)

#define QCOW2_MIN_CLUSTER_BITS 9
#define QCOW2_MAX_CLUSTER_BITS 21
/* Bounds on what an image can make us allocate, as qemu-img has them. */
#define QCOW2_MAX_L1_BYTES         (32 * MiB)
#define QCOW2_MAX_REFTABLE_BYTES   (8 * MiB)
#define QCOW2_MAX_SNAPSHOTS        65536u
#define QCOW2_MAX_SNAPSHOT_EXTRA   1024u
#define QCOW2_MAX_SNAPSHOT_BYTES   (64 * MiB) /* the table */
#define QCOW2_MAX_BITMAPS          65535u
#define QCOW2_MAX_BITMAP_DIR_BYTES (64 * MiB)
#define QCOW2_MAX_BITMAP_TABLE     (UINT64_C(0x8000000))
#define QCOW2_MAX_BACKING_NAME     1023u
#define QCOW2_COMPRESSED_SECTOR    512u
/* Highest host offset that L2 entries can hold: 56 bits. */
#define QCOW2_MAX_OFFSET BIT64(56)

#endif
