/* SPDX-License-Identifier: MIT */
/* Metadata read and written as it is in the file; the tables that are kept whole in memory. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/log.h"
#include "block/bounce.h"
#include "block/iov.h"
#include "block/qcow2/qcow2.h"

#define ENTRIES_PER_SECTOR 64u

int co_qcow2_pread(struct block_node *node, uint64_t offset, void *to, size_t size)
{
    uint64_t length = block_length(node->file);
    struct iovec vec;

    if (offset >= length) {
        return -EIO;
    }
    uint64_t there = MIN(size, length - offset);
    struct block_iov iov = block_iov_of(&vec, to, there);
    memset((char *)to + there, 0, size - there);
    return block_co_preadv(node->file, offset, &iov, 0, 0);
}

int co_qcow2_pwrite(struct block_node *node, uint64_t offset, const void *from, size_t size)
{
    struct iovec vec;
    struct block_iov iov = block_iov_of(&vec, (void *)(uintptr_t)from, size);

    return block_co_pwritev(node->file, offset, &iov, 0, 0);
}

/* What the commit that writes it needs must not be used up by data meanwhile: on a full host all that
 * was written before could not be flushed any more. */
int co_qcow2_reserve(struct block_node *node, uint64_t offset, uint64_t length)
{
    return co_bounce_zeroes(node->file, offset, length, 0);
}

/* ---- L1 and refcount table ------------------------------------------------------------------- */

static uint8_t *new_dirty_map(uint32_t entries)
{
    return xcalloc(qcow2_dirty_map_size(entries), 1);
}

/* Reads a table into big-endian memory. */
static int co_read_table(struct block_node *node, const char *name, uint64_t offset,
                         uint32_t entries, uint64_t *table, struct error **errp)
{
    if (!entries) {
        return 0;
    }
    uint64_t length = block_length(node->file);
    if (!range_fits(offset, (uint64_t)entries * 8, length)) {
        error_set(errp,
                  "Could not open '%s': %s at 0x%" PRIx64 " (%" PRIu32
                  " entries) lies behind the end of the file, which has %" PRIu64
                  " bytes; is it truncated?",
                  node->filename, name, offset, entries, length);
        return -EINVAL;
    }
    int ret = co_qcow2_pread(node, offset, table, (size_t)entries * 8);
    if (ret < 0) {
        error_set_errno(errp, -ret, "Could not read %s of '%s'", name, node->filename);
    }
    return ret;
}

static int co_read_l1(struct block_node *node, struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);
    uint64_t *table = xcalloc(MAX(s->l1_size, 1), 8);

    int ret = co_read_table(node, "Active L1 table", s->l1_offset, s->l1_size, table, errp);
    free(s->l1);
    free(s->l1_dirty);
    s->l1 = xcalloc(MAX(s->l1_size, 1), sizeof(*s->l1));
    for (uint32_t i = 0; i < s->l1_size && ret == 0; i++) {
        atomic_init(&s->l1[i], be64toh(table[i]));
    }
    s->l1_dirty = new_dirty_map(s->l1_size);
    s->any_l1_dirty = false;
    free(table);
    return ret;
}

static int co_read_reftable(struct block_node *node, struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);

    free(s->reftable);
    free(s->reftable_dirty);
    s->reftable = xcalloc(MAX(s->reftable_size, 1), 8);
    s->reftable_dirty = new_dirty_map(s->reftable_size);
    s->any_reftable_dirty = s->reftable_moved = false;
    int ret = co_read_table(node, "Reference count table", s->reftable_offset, s->reftable_size,
                            s->reftable, errp);
    for (uint32_t i = 0; i < s->reftable_size && ret == 0; i++) {
        s->reftable[i] = be64toh(s->reftable[i]);
    }
    return ret;
}

int co_qcow2_reload_tables(struct block_node *node, struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);

    cache_drop_all(&s->l2_cache);
    cache_drop_all(&s->refcount_cache);
    int ret = co_read_l1(node, errp);
    if (ret == 0) {
        ret = co_read_reftable(node, errp);
    }
    if (ret == 0) {
        qcow2_reset_allocator(node);
        ret = co_qcow2_metadata_rebuild(node);
        if (ret < 0) {
            error_set_errno(errp, -ret, "Could not read inactive L1 tables of '%s'",
                            node->filename);
        }
    }
    return ret;
}

void co_qcow2_install_tables(struct block_node *node, const uint64_t *l1, const uint64_t *reftable)
{
    struct qcow2_state *s = qcow2_of(node);

    cache_drop_all(&s->l2_cache);
    cache_drop_all(&s->refcount_cache);
    free(s->l1);
    free(s->l1_dirty);
    s->l1 = xcalloc(MAX(s->l1_size, 1), sizeof(*s->l1));
    for (uint32_t i = 0; i < s->l1_size; i++) {
        atomic_init(&s->l1[i], l1[i]);
    }
    s->l1_dirty = new_dirty_map(s->l1_size);
    free(s->reftable);
    free(s->reftable_dirty);
    s->reftable = xmemdup(reftable, MAX((size_t)s->reftable_size, 1) * 8);
    s->reftable_dirty = new_dirty_map(s->reftable_size);
    s->any_l1_dirty = s->any_reftable_dirty = s->reftable_moved = false;
    qcow2_reset_allocator(node);
    int ret = co_qcow2_metadata_rebuild(node);
    if (ret < 0) {
        log_warn("qcow2: '%s': overlap-check does not know the L2 tables of snapshots until the "
                 "image is "
                 "opened anew: could not read inactive L1 tables: %s",
                 node->filename, strerror(-ret));
    }
}

void qcow2_set_l1(struct qcow2_state *s, uint32_t index, uint64_t entry)
{
    s->generation++;
    atomic_store(&s->unstable, true); /* before reads can see the entry: qcow2_l2_set() */
    atomic_store(&s->l1[index], entry);
    s->l1_dirty[index / ENTRIES_PER_SECTOR] = 1;
    s->any_l1_dirty = true;
}

void qcow2_set_reftable(struct qcow2_state *s, uint32_t index, uint64_t entry)
{
    s->reftable[index] = entry;
    s->reftable_dirty[index / ENTRIES_PER_SECTOR] = 1;
    s->any_reftable_dirty = true;
    s->generation++;
    atomic_store(&s->unstable, true);
}
