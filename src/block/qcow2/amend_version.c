/* SPDX-License-Identifier: MIT */
/* Versions of the format. See amend.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "block/qcow2/amend.h"
#include "block/qcow2/rebuild.h"
#include "block/qcow2/resize.h"

#define EXPAND_BYTES (UINT64_C(1) << 20) /* of zeroes written at a time */

/* ---- up -------------------------------------------------------------------------------------- */

/* Entries of the snapshot table get the size of the disk, which is the image's in version 2. */
static int co_complete_snapshots(struct block_node *node, struct error **errp)
{
    const struct qcow2_state *s = qcow2_of(node);
    struct qcow2_plan plan;
    bool any = false;

    for (uint32_t i = 0; i < s->snapshot_count; i++) {
        any |= s->snapshots[i].is_incomplete;
    }
    if (!any) {
        return 0;
    }
    qcow2_plan_init(&plan, node);
    int ret = co_qcow2_rebuild(&plan, errp);
    qcow2_plan_free(&plan);
    return ret;
}

int co_qcow2_upgrade(struct block_node *node, struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);
    autofree void *cluster = xmalloc(s->cluster_size);
    int ret = co_complete_snapshots(node, errp);

    if (ret < 0) {
        return ret;
    }
    s->version = 3;
    s->incompatible = s->compatible = s->autoclear = 0;
    if (qcow2_encode_header(s, cluster) < 0) {
        s->version = 2;
        error_set(errp, "The header of '%s' has no room for the fields of version 3",
                  node->filename);
        return -ENOSPC;
    }
    return co_qcow2_amend_header(node, errp);
}

/* ---- down: what prevents it ------------------------------------------------------------------- */

static bool check_features(struct block_node *node, struct error **errp)
{
    const struct qcow2_state *s = qcow2_of(node);

    if (s->incompatible & ~QCOW2_INCOMPAT_DIRTY) {
        error_set(errp, "Cannot downgrade an image with incompatible features 0x%" PRIx64 " set",
                  s->incompatible & ~QCOW2_INCOMPAT_DIRTY);
        return false;
    }
    if (s->bitmap_count || node->bitmaps) {
        error_set(errp, "Cannot downgrade an image with bitmaps, which version 2 cannot keep; "
                        "remove them first");
        return false;
    }
    for (uint32_t i = 0; i < s->snapshot_count; i++) {
        if (s->snapshots[i].vm_state_size > UINT32_MAX || s->snapshots[i].disk_size != s->size) {
            error_set(errp, "Internal snapshots prevent downgrade of image");
            error_add_hint(errp, "Snapshot '%s' has another size of the disk.",
                           s->snapshots[i].name);
            return false;
        }
    }
    return true;
}

static bool is_zero(enum qcow2_kind kind)
{
    return kind == QCOW2_ZERO_PLAIN || kind == QCOW2_ZERO_ALLOC;
}

/* Whether a snapshot has zero clusters, be it behind its disk: 1, 0 or negative errno. */
static int co_has_zeroes(struct block_node *node, const struct qcow2_snapshot *snapshot)
{
    struct qcow2_state *s = qcow2_of(node);
    struct qcow2_extent extent;

    if ((uint64_t)snapshot->l1_size * 8 > QCOW2_MAX_L1_BYTES) {
        return -EFBIG;
    }
    if (snapshot->l1_offset & (s->cluster_size - 1)) {
        return -EINVAL;
    }
    uint64_t size = (uint64_t)snapshot->l1_size << (s->cluster_bits + s->l2_bits);
    autofree uint64_t *l1 = malloc((size_t)snapshot->l1_size * 8 + 1);
    if (!l1) {
        return -ENOMEM;
    }
    int ret = snapshot->l1_size
                  ? co_qcow2_pread(node, snapshot->l1_offset, l1, (size_t)snapshot->l1_size * 8)
                  : 0;
    for (uint32_t i = 0; i < snapshot->l1_size && ret == 0; i++) {
        l1[i] = be64toh(l1[i]);
    }
    for (uint64_t at = 0; at < size && ret == 0; at += extent.length) {
        ret = co_qcow2_map_l1(node, l1, snapshot->l1_size, at, size - at, &extent);
        if (ret == 0 && is_zero(extent.kind)) {
            return 1;
        }
    }
    return ret;
}

static int co_check_snapshots(struct block_node *node, struct error **errp)
{
    const struct qcow2_state *s = qcow2_of(node);

    for (uint32_t i = 0; i < s->snapshot_count; i++) {
        int ret = co_has_zeroes(node, &s->snapshots[i]);
        if (ret < 0) {
            error_set_errno(errp, -ret, "Could not read snapshot '%s'", s->snapshots[i].name);
            return ret;
        }
        if (ret) {
            error_set(errp,
                      "Snapshot '%s' has zero clusters, which version 2 does not know; "
                      "delete it first",
                      s->snapshots[i].name);
            return -ENOTSUP;
        }
    }
    return 0;
}

/* ---- down: zero clusters ---------------------------------------------------------------------- */

/* With lock held: one slice's zero entries become none at all. There is no backing file to show. */
static int co_drop_zeroes(struct block_node *node, uint64_t offset)
{
    struct qcow2_state *s = qcow2_of(node);
    struct qcow2_slice *slice;
    unsigned index;
    uint64_t bitmap;

    int ret = co_qcow2_l2_slice(node, offset, true, &slice, &index);
    if (ret < 0) {
        return ret;
    }
    uint64_t old = qcow2_l2_entry(s, slice->data, index, &bitmap);
    qcow2_l2_set(node, slice, index, 0, 0);
    qcow2_free_entry(node, old, true);
    cache_put(&s->l2_cache, slice);
    return 0;
}

/* Data that is zeroes, past the node's detect-zeroes=, which would make zero clusters of it again. */
static int co_write_data_of_zeroes(struct block_node *node, uint64_t offset, uint64_t length)
{
    uint64_t most = MIN(length, EXPAND_BYTES);
    autofree void *zeroes = xcalloc(1, most);
    int ret = 0;

    for (uint64_t done = 0, n; done < length && ret == 0; done += n) {
        n = MIN(length - done, most);
        struct iovec vec = {.iov_base = zeroes, .iov_len = n};
        struct block_iov iov = {.iov = &vec, .niov = 1, .size = n};
        ret = qcow2_co_pwritev(node, offset + done, &iov, 0, 0);
    }
    return ret;
}

static int co_expand(struct block_node *node, uint64_t offset, uint64_t length)
{
    struct qcow2_state *s = qcow2_of(node);
    int ret = 0;

    if (node->backing) {
        return co_write_data_of_zeroes(node, offset, length);
    }
    for (uint64_t at = offset; at < offset + length && ret == 0; at += s->cluster_size) {
        co_mutex_lock(&s->lock);
        ret = co_drop_zeroes(node, at);
        co_mutex_unlock(&s->lock);
        if (ret == 0) {
            ret = co_qcow2_balance(node);
        }
    }
    return ret;
}

static int co_expand_all(struct block_node *node, block_progress_fn *progress, void *opaque)
{
    struct qcow2_state *s = qcow2_of(node);
    struct qcow2_extent extent;
    int ret = 0;

    for (uint64_t at = 0; at < s->size && ret == 0; at += extent.length) {
        ret = co_qcow2_map(node, at, s->size - at, &extent);
        if (ret == 0 && is_zero(extent.kind)) {
            ret = co_expand(node, at, extent.length);
        }
        if (progress) {
            progress(opaque, at, s->size);
        }
    }
    return ret == 0 ? co_qcow2_mark_clean(node) : ret;
}

int co_qcow2_downgrade(struct block_node *node, block_progress_fn *progress, void *opaque,
                       struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);

    if (!check_features(node, errp)) {
        return -ENOTSUP;
    }
    int ret = co_check_snapshots(node, errp);
    if (ret < 0) {
        return ret;
    }
    /* Zero clusters behind the disk are not seen below. */
    ret = co_qcow2_drop_from(node, qcow2_align_cluster(s, s->size));
    if (ret == 0) {
        ret = co_expand_all(node, progress, opaque);
    }
    if (ret < 0) {
        error_set_errno(errp, -ret, "Failed to turn zero into data clusters");
        return ret;
    }
    s->version = 2;
    s->incompatible = s->compatible = s->autoclear = 0;
    s->lazy_refcounts = false;
    free(s->unknown_header);
    s->unknown_header = NULL;
    s->unknown_header_size = 0;
    return co_qcow2_amend_header(node, errp);
}
