/* SPDX-License-Identifier: MIT */
/*
 * The qcow2 driver from the inside: its state, and what its files offer each other.
 *
 *   requests (any loop)                         image operations (main loop, drained)
 *   read.c  write.c  zero.c  compress.c         create.c snapshot.c check.c resize.c amend.c bitmap*.c
 *        \     |      |       /                          |
 *         map.c: guest offset -> L2 entry <--------------+
 *              |                                         |
 *         alloc.c: clusters taken and given back     rebuild.c: all metadata anew, switched
 *              |                                         |      by one write of the header
 *         refcount.c ------- cache.c ------- commit.c ---+
 *                            (slices of L2 tables and refcount blocks)
 *
 * ---- Order -----------------------------------------------------------------------------------
 *
 * Changes of metadata stay in the caches until co_qcow2_commit() takes them to the file, in this
 * order (docs/qcow2.md proves each from it):
 *
 *   1. refcount blocks and new L2 tables, which nothing on disk points to yet; flush
 *   2. (if there are new refcount blocks) refcount table entries; flush
 *   3. L2 slices, L1 entries
 *   4. flush, if the guest asked for one or clusters wait to be free
 *   5. clusters that nothing on disk points to any more become free
 *
 *   O1. A cluster's refcount is on stable storage before an entry that points to it is written.
 *   O2. Guest data, and what was copied around it, is on stable storage before the L2 entry that
 *       makes it visible is written.
 *   O3. A refcount goes down, and a cluster is used for something else, only after the entry that
 *       pointed to it is gone from stable storage, and after all requests have ended that may have
 *       looked it up before (`epoch`).
 *   O4. Entries are written within one sector, so they are there or not.
 *
 * So whatever was written when power fails, every reference has its count: at worst a count is
 * too high, which is a leak.
 *
 * ---- Locks -----------------------------------------------------------------------------------
 *
 * `lock`, a coroutine lock, is held to change metadata (L2 entries, refcounts, L1, allocations),
 * not while data is read or written. A cache has a mutex of its own for looking things up: reads
 * and overwrites of what is there take no coroutine lock. Commits take turns by `commit_lock`, and
 * `lock` within it; nobody takes them the other way round. The mutexes of caches come last and are
 * never held across a yield.
 */
#ifndef FERRY_BLOCK_QCOW2_QCOW2_H
#define FERRY_BLOCK_QCOW2_QCOW2_H

#include "aio/loop.h"
#include "base/bytes.h"
#include "block/gate.h"
#include "block/image.h"
#include "block/node.h"
#include "block/qcow2/cache.h"
#include "block/qcow2/format.h"

/* Guest clusters that a request under way gives other contents and another entry. Others that want
 * to change these entries wait. On the stack of the request's coroutine; listed under lock. */
struct qcow2_alloc {
    uint64_t offset, length; /* guest bytes, whole clusters */
    struct co_queue waiters;
    struct qcow2_alloc *next;
};

/* Clusters that wait to be free: alloc.c. */
struct qcow2_free {
    uint64_t offset, length; /* host bytes, whole clusters */
    bool discard;            /* the host may forget them */
};

struct qcow2_free_list {
    struct qcow2_free *list;
    size_t count, capacity;
    unsigned epoch; /* frees[2]: the last one in which somebody may have looked them up */
};

struct qcow2_metadata_map; /* corrupt.c */

/* Whether clusters with data may be holes of the file: status.c. */
enum { QCOW2_HOLES_UNKNOWN, QCOW2_NO_HOLES, QCOW2_HOLES };

/* A snapshot as its table has it. */
struct qcow2_snapshot {
    uint64_t l1_offset;
    uint32_t l1_size; /* entries */
    char *id, *name;
    uint64_t vm_state_size, disk_size, vm_clock_ns, icount; /* icount: ~0 if not there */
    uint32_t date_sec, date_nsec;
    bool is_incomplete;  /* its entry has no disk size, which version 3 must have */
    void *unknown_extra; /* extra data that we do not know, kept as it is */
    uint32_t unknown_extra_size;
};

/* A header extension that we do not know, kept as it is. */
struct qcow2_extension {
    uint32_t type, length;
    void *data;
    struct qcow2_extension *next;
};

struct qcow2_state {
    /* constant while it is open; image operations change them drained */
    unsigned version;      /* 2, 3 */
    unsigned cluster_bits; /* 9 to 21 */
    uint32_t cluster_size;
    unsigned refcount_order; /* a refcount has 1 << it bits: 0 to 6 */
    uint64_t max_refcount;
    bool extended_l2;
    unsigned l2_entry_size; /* 8 or 16 bytes */
    unsigned l2_bits;       /* an L2 table has 1 << l2_bits entries */
    unsigned subclusters;   /* in a cluster: 32 or 1 */
    uint32_t subcluster_size;
    unsigned refblock_bits; /* a refcount block has 1 << refblock_bits refcounts */
    enum qcow2_compression compression;
    uint64_t compressed_offset_mask; /* of an L2 entry: host offset */
    unsigned compressed_shift;       /* of an L2 entry: number of further sectors */
    uint64_t compressed_sectors_mask;
    struct block_node
        *data_file; /* where guest data is: node->file unless the image says else; NULL:
                                   * not opened (BLOCK_OPEN_NO_IO) */
    bool has_data_file, data_file_raw;
    uint32_t header_length; /* bytes, as the image has it; fields behind the known ones … */
    void *unknown_header;   /* … are kept: header_length - QCOW2_H_V3_FULL_LENGTH bytes */
    uint32_t unknown_header_size;
    bool odd_extension_end; /* their end marker has a length that does not fit; check only */
    char *backing_name, *backing_format, *data_file_name; /* in the image; or NULL */
    struct qcow2_extension *extensions;
    bool lazy_refcounts;                                   /* by option, or as the image says */
    bool has_discard_request;                              /* pass-discard-request was given */
    bool discard_request, discard_snapshot, discard_other; /* pass-discard-* … */
    unsigned overlap_checks;                               /* QCOW2_OVERLAP_* that are looked for */
    uint32_t clean_interval;  /* seconds after which unused slices go, 0: never */
    bool has_snapshot_loaded; /* snapshot_load: l1 is a copy of a snapshot's, read-only */

    /* under lock (read without it by image operations, drained) */
    struct co_mutex lock;
    uint64_t size;                  /* bytes that the guest sees */
    _Atomic(uint64_t) incompatible; /* the main loop looks at any time (info.c) */
    uint64_t compatible, autoclear;
    /* The active L1 table: entries in host order, as they will be on disk after the next commit.
     * Loads are atomic: reads look without the lock. Changed by qcow2_set_l1(). */
    _Atomic(uint64_t) *l1;
    uint64_t l1_offset;
    uint32_t l1_size;   /* entries */
    uint64_t *reftable; /* host order; changed by qcow2_set_reftable() */
    uint64_t reftable_offset;
    uint32_t reftable_size; /* entries, whole clusters */
    uint64_t snapshots_offset;
    uint32_t snapshots_size; /* bytes of the table */
    struct qcow2_snapshot *snapshots;
    uint32_t snapshot_count;
    uint64_t bitmap_dir_offset, bitmap_dir_size; /* the bitmaps extension; 0: none */
    bool bitmap_dir_unsure; /* after an error: the file's header may name another */
    uint32_t bitmap_count;
    struct qcow2_bitmap **bitmaps; /* bitmap_count of them; NULL: not read */
    struct qcow2_alloc *allocs;
    uint64_t free_hint;     /* cluster: none below is free, as far as is known */
    uint64_t fresh_from;    /* host offset: nothing at or behind it was ever written or given out */
    uint64_t compressed_at; /* host offset where the next compressed cluster may begin, or 0 */
    struct qcow2_free_list frees[3]; /* not yet unlinked on disk, unlinked, waiting for an epoch */
    /* What commits take along: a byte per sector of the table, and whether there is one. */
    uint8_t *l1_dirty, *reftable_dirty;
    bool any_l1_dirty, any_reftable_dirty;
    bool reftable_moved; /* the header does not say so yet */
    bool is_growing_reftable;
    bool any_links;      /* entries point to clusters that they did not before */
    uint64_t generation; /* of changes of metadata */

    /* under commit_lock */
    struct co_mutex commit_lock;

    /* What is where in the file: clusters of metadata by kind. Changed under lock, read without. */
    _Atomic(struct qcow2_metadata_map *) metadata;
    uint32_t mapped_snapshots; /* whose L1 tables are there, the first ones; changed drained */

    /* main loop */
    struct aio_timer clean_timer;

    struct qcow2_inflated *inflated; /* has a lock of its own */

    /* have mutexes of their own */
    struct qcow2_cache l2_cache, refcount_cache;

    /* atomic */
    struct striped_count epoch_users[2]; /* requests that began in an even, an odd epoch */
    _Atomic(unsigned) epoch;
    _Atomic(int) has_holes;  /* of the file, below clusters: QCOW2_HOLES_UNKNOWN and so on */
    _Atomic(bool) corrupt;   /* found at run time or in the header: writes fail with -EIO */
    _Atomic(bool) has_told;  /* of corruption that is not fatal */
    _Atomic(bool) dirty_bit; /* the dirty bit is on disk (lazy refcounts) */
    /* Metadata was changed that is perhaps not yet on stable storage. */
    _Atomic(bool) unstable;
    _Atomic(size_t) waiting_frees; /* entries of frees[0] */
    _Atomic(bool) is_balancing;    /* somebody writes them because there are many */
    /* Commits that have begun; the last one that brought all it found to stable storage. */
    _Atomic(uint64_t) commits_begun, commits_done;
};

static inline struct qcow2_state *qcow2_of(struct block_node *node)
{
    return node->state;
}

static inline uint64_t qcow2_align_cluster(const struct qcow2_state *s, uint64_t bytes)
{
    return align_up(bytes, s->cluster_size);
}

/* ---- header.c -------------------------------------------------------------------------------- */

/* Reads and checks header, extensions, L1 and refcount tables; fills the state. In a coroutine. */
int co_qcow2_read_header(struct block_node *node, struct error **errp);
/* The tables anew from where the state says they are, after an image operation wrote them; the
 * caches are dropped. Drained, all clean. */
int co_qcow2_reload_tables(struct block_node *node, struct error **errp);
/* The same from memory: they are on disk already. Host order; as long as the state says. */
void co_qcow2_install_tables(struct block_node *node, const uint64_t *l1, const uint64_t *reftable);
/* What co_qcow2_read_header() made. */
void qcow2_free_header(struct qcow2_state *s);
/* Reads metadata: what is missing behind the end of the file is zeroes; -EIO if all of it is. */
int co_qcow2_pread(struct block_node *node, uint64_t offset, void *to, size_t size);
int co_qcow2_pwrite(struct block_node *node, uint64_t offset, const void *from, size_t size);
/* Gets the host's space for the clusters of a new table, whose contents are still to be written. With
 * lock held. */
int co_qcow2_reserve(struct block_node *node, uint64_t offset, uint64_t length);
/* header_encode.c: the bytes of the first cluster (cluster_size) as the state says: header,
 * extensions, backing name. -ENOSPC if they do not fit into it. */
int qcow2_encode_header(const struct qcow2_state *s, void *cluster);
/* In two steps: all but the backing name, *end becomes where the extensions end; then that name. */
int qcow2_encode_header_fields(const struct qcow2_state *s, void *cluster, uint32_t *end);
int qcow2_encode_backing_name(const struct qcow2_state *s, void *cluster, uint32_t at);
/* Writes the first cluster from the state: header, extensions, backing name; all header fields come
 * in one write of the first sector, before or after which nothing half-made can be seen, after what
 * they point to was flushed by the caller. Flushes. After an error *unsure, if there is one, says
 * whether the file may have the new header nevertheless. */
int co_qcow2_write_header(struct block_node *node, bool *unsure);
/* Changes feature bits only (one write of 8 bytes, flushed). */
int co_qcow2_set_incompatible(struct block_node *node, uint64_t set, uint64_t clear);
int co_qcow2_set_autoclear(struct block_node *node, uint64_t set, uint64_t clear);

/* ---- corrupt.c ------------------------------------------------------------------------------- */

/* Corruption was found: says so once for the image (and with fatal marks it corrupt, in the header
 * as well, so that all writes fail). offset: in the image's file, for the message. Any loop. */
void qcow2_signal_corruption(struct block_node *node, bool fatal, uint64_t offset, uint64_t length,
                             const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* After corruption was found: the header gets the corrupt bit, if it has not. In a coroutine, not
 * with lock held. */
void co_qcow2_mark_corrupt(struct block_node *node);

/* Metadata that a write to [offset, offset + length) of the image's file would hit. */
#define QCOW2_OVERLAP_HEADER    BIT(0)
#define QCOW2_OVERLAP_L1        BIT(1)
#define QCOW2_OVERLAP_L2        BIT(2)
#define QCOW2_OVERLAP_REFTABLE  BIT(3)
#define QCOW2_OVERLAP_REFBLOCK  BIT(4)
#define QCOW2_OVERLAP_SNAPSHOTS BIT(5)
#define QCOW2_OVERLAP_INACT_L1  BIT(6)
#define QCOW2_OVERLAP_INACT_L2  BIT(7)
#define QCOW2_OVERLAP_BITMAPS   BIT(8)
/* 0, or -EIO after qcow2_signal_corruption(); ignore: kinds that it may be. No I/O, does not yield:
 * inactive L2 tables are not looked at here. */
int qcow2_check_overlap(struct block_node *node, unsigned ignore, uint64_t offset, uint64_t length);
/* The same for clusters that are about to be given away. */
int qcow2_check_free(struct block_node *node, uint64_t offset, uint64_t length);
/* -EIO after qcow2_signal_corruption(): a cluster to put a table in is one already, by its readers. */
int qcow2_not_free(struct block_node *node, uint64_t offset);
/* The map that the checks use, from the tables: at open, and after image operations. Those of the
 * snapshots, which only overlap-check=all looks at, are read from the file; after an error the map has
 * all but them, or some of them. In a coroutine, drained. */
int co_qcow2_metadata_rebuild(struct block_node *node);
/* Changes; under lock. */
void qcow2_metadata_add(struct qcow2_state *s, unsigned kind, uint64_t offset, uint64_t length);
void qcow2_metadata_remove(struct qcow2_state *s, unsigned kind, uint64_t offset, uint64_t length);
void qcow2_metadata_free(struct qcow2_state *s);

/* ---- refcount.c, alloc.c; all with lock held, in a coroutine ------------------------------------ */

int co_qcow2_get_refcount(struct block_node *node, uint64_t cluster, uint64_t *count);
/* Adds 1 to the refcounts of all clusters that the bytes touch; -EINVAL if one would overflow. */
int co_qcow2_ref(struct block_node *node, uint64_t offset, uint64_t length);
/* Takes whole clusters, contiguous, refcount 1. Host offset, or negative errno (-ENOSPC, -EFBIG). */
int64_t co_qcow2_alloc_clusters(struct block_node *node, uint64_t bytes);
/* At least 1 of at most *count clusters, contiguous; *count becomes how many. */
int64_t co_qcow2_alloc_run(struct block_node *node, uint64_t *count);
/* Room for `size` bytes of compressed data (at most a cluster), perhaps in a cluster that has some
 * already. */
int64_t co_qcow2_alloc_bytes(struct block_node *node, uint64_t size);
/* Nothing will point to the clusters of the bytes any more: their refcounts go down after the next
 * commit (O3). discard: the host may forget them then (pass-discard-*). Does not yield. */
void qcow2_free(struct block_node *node, uint64_t offset, uint64_t length, bool discard);
/* What an L2 entry refers to: its cluster, or the sectors of its compressed data. */
void qcow2_free_entry(struct block_node *node, uint64_t entry, bool discard);
/* Subtracts 1 at once: of clusters that nothing on disk ever pointed to. */
int co_qcow2_unref(struct block_node *node, uint64_t offset, uint64_t length, bool discard);
/* Frees that have waited long enough become free. With commit_lock, without lock. */
int co_qcow2_release_frees(struct block_node *node);
void qcow2_append_frees(struct qcow2_free_list *to, struct qcow2_free_list *from);
bool qcow2_has_frees(const struct qcow2_state *s);
/* Forgets what it knows about free clusters: after image operations. */
void qcow2_reset_allocator(struct block_node *node);
/* The file grows from now on, unlike before. */
void qcow2_allow_growth(struct block_node *node);
/* Of a map with a byte per sector of a table. */
static inline size_t qcow2_dirty_map_size(uint32_t entries)
{
    return entries / 64 + 1;
}

void qcow2_set_l1(struct qcow2_state *s, uint32_t index, uint64_t entry);
void qcow2_set_reftable(struct qcow2_state *s, uint32_t index, uint64_t entry);

/* Waits until nobody changes entries of [offset, offset + length) any more; with lock held, which
 * is released meanwhile: what was looked up before has to be looked up again if it says true. */
bool co_qcow2_wait_allocs(struct block_node *node, uint64_t offset, uint64_t length);
/* Nobody else does (co_qcow2_wait_allocs() said false): the range, whole clusters, is the
 * caller's until qcow2_alloc_end(). With lock held. */
void qcow2_alloc_begin(struct qcow2_state *s, struct qcow2_alloc *alloc, uint64_t offset,
                       uint64_t length);
void qcow2_alloc_end(struct qcow2_state *s, struct qcow2_alloc *alloc);

/* ---- commit.c -------------------------------------------------------------------------------- */

/* Takes all changes of metadata to the file in the order above. flush: on stable storage at return.
 * Without lock and commit_lock. */
int co_qcow2_commit(struct block_node *node, bool flush);
/* After -ENOSPC: clusters that wait to be free become so, which takes as long as others use them, at
 * most 8 seconds. -ENOSPC: there are none. Without lock, outside of an epoch. */
int co_qcow2_make_room(struct block_node *node);
/* Before more changes of metadata: writes those there are if they are too many. If it fails, none may
 * be added, or they would fill the memory of a host whose disk is full. Without lock, outside of an
 * epoch. */
int co_qcow2_balance(struct block_node *node);
/* The image can be changed from now on without the refcounts' being on disk: sets the dirty bit. */
int co_qcow2_mark_dirty(struct block_node *node);
/* All of the caches go to the file; the dirty bit is cleared. At close, and before image operations
 * that read metadata from the file. Drained. */
int co_qcow2_mark_clean(struct block_node *node);

/* ---- map.c ----------------------------------------------------------------------------------- */

enum qcow2_kind {
    QCOW2_UNALLOCATED, /* the backing file shows */
    QCOW2_ZERO_PLAIN,  /* zeroes, no cluster */
    QCOW2_ZERO_ALLOC,  /* zeroes, and a cluster that can be written */
    QCOW2_NORMAL,
    QCOW2_COMPRESSED_DATA,
    QCOW2_INVALID,
};

struct qcow2_extent {
    enum qcow2_kind kind;
    bool copied;     /* the cluster is this image's alone: may be written in place */
    uint64_t host;   /* offset of the first byte (NORMAL, ZERO_ALLOC), in data_file */
    uint64_t entry;  /* the L2 entry (COMPRESSED_DATA) */
    uint64_t length; /* bytes that are alike and contiguous; at most what was asked for */
};

/* Entry `index` of an L2 slice; bitmap: the second word, 0 unless entries are extended. */
static inline uint64_t qcow2_l2_entry(const struct qcow2_state *s, const void *slice,
                                      unsigned index, uint64_t *bitmap)
{
    const uint8_t *p = (const uint8_t *)slice + (size_t)index * s->l2_entry_size;

    *bitmap = s->extended_l2 ? load_be64(p + 8) : 0;
    return load_be64(p);
}

static inline bool qcow2_has_cluster(const struct qcow2_state *s, uint64_t entry)
{
    return entry & QCOW2_OFFSET_MASK || (s->has_data_file && entry & QCOW2_COPIED);
}

enum qcow2_kind qcow2_entry_kind(const struct qcow2_state *s, uint64_t entry, uint64_t bitmap,
                                 unsigned subcluster);

/* The L2 slice that has the entry of a guest offset, pinned (cache_put(&s->l2_cache, …)), and the
 * index in it. make: to be changed: there will be an L2 table, this image's alone. *slice becomes
 * NULL if there is no table. With lock held if make. */
int co_qcow2_l2_slice(struct block_node *node, uint64_t offset, bool make,
                      struct qcow2_slice **slice, unsigned *index);
/* Changes an entry; marks its slice as dirty. With lock held. */
void qcow2_l2_set(struct block_node *node, struct qcow2_slice *slice, unsigned index,
                  uint64_t entry, uint64_t bitmap);

/* What is at [offset, offset + length) of the guest's disk: its first extent, from the caches, or
 * read. Takes no coroutine lock unless an L2 slice must be loaded. 0, or negative errno; an
 * impossible entry is -EIO after qcow2_signal_corruption(). */
int co_qcow2_map(struct block_node *node, uint64_t offset, uint64_t length,
                 struct qcow2_extent *extent);
/* The same if the caches have it, else false. Does not yield. */
bool qcow2_map_cached(struct block_node *node, uint64_t offset, uint64_t length,
                      struct qcow2_extent *extent);
/* The same through any L1 table (a snapshot's) and without the cache. */
int co_qcow2_map_l1(struct block_node *node, const uint64_t *l1, uint32_t l1_size, uint64_t offset,
                    uint64_t length, struct qcow2_extent *extent);

/* ---- epochs (O3): around every request that uses what it looked up ---------------------------- */

static inline unsigned qcow2_epoch_enter(struct qcow2_state *s)
{
    for (;;) {
        unsigned epoch = atomic_load(&s->epoch) & 1;
        striped_add(&s->epoch_users[epoch]);
        if ((atomic_load(&s->epoch) & 1) == epoch) {
            return epoch;
        }
        striped_sub(&s->epoch_users[epoch]);
    }
}

static inline void qcow2_epoch_leave(struct qcow2_state *s, unsigned epoch)
{
    striped_sub(&s->epoch_users[epoch]);
}

/* ---- inflate.c, compress.c --------------------------------------------------------------------- */

struct qcow2_inflated; /* the clusters inflated last: inflate.c */
void qcow2_inflated_init(struct qcow2_state *s);
void qcow2_inflated_free(struct qcow2_state *s);
/* Something else will be in the image's file there. */
void qcow2_inflated_forget(struct qcow2_state *s, uint64_t offset, uint64_t length);
/* From the compressed cluster of an L2 entry: [offset, offset + iov->size) of the guest's, which is
 * within the cluster. Within an epoch. */
int co_qcow2_read_compressed(struct block_node *node, uint64_t offset, uint64_t entry,
                             const struct block_iov *iov);
/* Writes one cluster (zero-padded by the caller) compressed; what does not get smaller is written as
 * it is. Several may run at once: deflating happens in the thread pool. */
int co_qcow2_write_compressed(struct block_node *node, uint64_t offset, const void *data,
                              uint64_t id);

/* ---- read.c ---------------------------------------------------------------------------------- */

/* What the guest would read, within an epoch; what lies behind the end of the disk is zeroes. */
int co_qcow2_read(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                  uint64_t id);
/* Whether all of the range reads as zeroes, as far as this image knows; 1, 0 or negative errno. */
int co_qcow2_is_zero(struct block_node *node, uint64_t offset, uint64_t length);

/* ---- requests -------------------------------------------------------------------------------- */

int qcow2_co_preadv(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                    unsigned flags, uint64_t id);
int qcow2_co_pwritev(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                     unsigned flags, uint64_t id);
int qcow2_co_flush(struct block_node *node, uint64_t id);
int qcow2_co_discard(struct block_node *node, uint64_t offset, uint64_t length);
int qcow2_co_write_zeroes(struct block_node *node, uint64_t offset, uint64_t length,
                          unsigned flags);
int qcow2_co_block_status(struct block_node *node, uint64_t offset, uint64_t *length,
                          uint64_t *map);
int qcow2_co_is_allocated(struct block_node *node, uint64_t offset, uint64_t *length);
int qcow2_co_truncate(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
                      struct error **errp);

/* ---- rebuild.c ------------------------------------------------------------------------------- */

/*
 * Shadow metadata. Image operations that touch many tables at once (snapshots, repairs, other
 * refcount widths) do not change them where they are: they make all of them anew in clusters that
 * nothing uses, flush, and switch to them by the one write of the header's first sector that changes
 * l1_table_offset, refcount_table_offset, snapshots_offset and their sizes. Power may fail at any
 * point: the image is the old one or the new one, and both are free of errors.
 */
struct qcow2_plan; /* rebuild.h */

/* Image operations (image.h) of the files named there. */
extern const struct block_image_ops qcow2_image_ops;
bool qcow2_check_create(struct options *opts, struct error **errp);
bool qcow2_create(struct block_node *file, struct options *opts, struct error **errp);
bool qcow2_measure(struct options *opts, struct block_node *source, uint64_t size,
                   struct block_measure *measure, struct error **errp);
void qcow2_info(struct block_node *node, struct block_image_info *info);
bool qcow2_check(struct block_node *node, unsigned fix, struct block_check_result *result,
                 void (*say)(void *opaque, const char *line), void *opaque, struct error **errp);
/* What opening does for an image whose dirty bit is set; in a coroutine. */
int co_qcow2_repair_dirty(struct block_node *node, struct error **errp);

/* options.c: of an open image; makes the caches. children.c: its other files. */
bool qcow2_parse_options(struct block_node *node, struct options *opts, struct error **errp);
bool qcow2_open_data_file(struct block_node *node, struct options *opts, struct error **errp);
bool qcow2_open_backing(struct block_node *node, struct options *opts, struct error **errp);
/* snapshot.c: reads the table into the state (at open), frees it. */
int co_qcow2_read_snapshots(struct block_node *node, struct error **errp);
void qcow2_free_snapshots(struct qcow2_state *s);
/* bitmap.c: makes node's bitmaps from the image (at open, after the refcounts); writable: those
 * that are enabled are marked as in use. A fault of a bitmap makes that one inconsistent. */
int co_qcow2_load_bitmaps(struct block_node *node, struct error **errp);
/* At close of a writable node: writes what changed, clears the in-use marks. */
int co_qcow2_store_bitmaps(struct block_node *node, struct error **errp);

#endif
