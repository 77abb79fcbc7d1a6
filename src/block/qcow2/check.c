/* SPDX-License-Identifier: MIT */
/*
 * check: what is wrong with an image, in qemu-img's words, and its repair.
 *
 *   snapshot table -> references counted (scan.h) -> refcount table -> refcounts -> copied flags
 *        |                   |                            |               |            |
 *        +-------------------+--- errors -----------------+---------------+------------+
 *                                   |                                     | leaks
 *                            rebuild (rebuild.h)                  lowered in place
 *                                   |                                     |
 *                                   +----------- counted again -----------+
 *
 * A repair is a rebuild: crash-safe, and never touching what it read. Leaks alone need none.
 * Entries that point to impossible places are guest data that is gone or can still be found by
 * somebody who knows more than we do: they are told, and left as they are.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "block/qcow2/check.h"
#include "block/qcow2/direct.h"
#include "block/qcow2/rebuild.h"

/* ---- the snapshot table ---------------------------------------------------------------------- */

/* What its faults mean: told, and a repair goes on without what cannot be kept. */
static bool snapshot_fault(void *opaque, enum snapshot_fault fault, uint32_t index, uint64_t value)
{
    struct qcow2_check *check = opaque;
    bool mend = check->fix & BLOCK_CHECK_FIX_ERRORS;

    switch (fault) {
    case SNAPSHOT_INCOMPLETE:
        scan_error(&check->scan, mend, 1, " snapshot table entry %u is incomplete", index);
        return true;
    case SNAPSHOT_EXTRA_TOO_BIG:
        if (mend) {
            check->scan.mended++;
            check->result.corruptions++;
            scan_say(&check->scan,
                     "Discarding too much extra metadata in snapshot table entry %u (%" PRIu64
                     " > %u)",
                     index, value, QCOW2_MAX_SNAPSHOT_EXTRA);
        }
        return mend;
    case SNAPSHOT_TABLE_TOO_BIG:
        if (mend) {
            check->scan.mended += value;
            check->result.corruptions += value;
            scan_say(&check->scan, "Discarding %" PRIu64 " overhanging snapshots", value);
        }
        return mend;
    }
    return false;
}

static int co_check_snapshot_table(struct qcow2_check *check, struct error **errp)
{
    uint8_t header[QCOW2_H_V2_LENGTH];
    int ret = co_direct_read(check->node, 0, header, sizeof(header));

    if (ret < 0) {
        error_set_errno(errp, -ret, "Could not read the header of '%s'", check->node->filename);
        return ret;
    }
    /* Opening for a check goes on without snapshots if the table is broken: ask the header. */
    uint64_t offset = load_be64(header + QCOW2_H_SNAPSHOTS_OFFSET);
    uint32_t count = load_be32(header + QCOW2_H_NB_SNAPSHOTS);
    if (!count && (offset & (check->s->cluster_size - 1) || offset > INT64_MAX)) {
        scan_error(&check->scan, check->fix & BLOCK_CHECK_FIX_ERRORS, 1,
                   " snapshot table offset invalid (%#" PRIx64 "), of no snapshots", offset);
        return 0;
    }
    return co_snapshot_table_read(check->node, offset, count, snapshot_fault, check,
                                  &check->snapshots, errp);
}

/* ---- the header ------------------------------------------------------------------------------ */

/* What opening for a check lets pass. */
static void check_header(struct qcow2_check *check)
{
    struct qcow2_state *s = check->s;
    bool mend = check->fix & BLOCK_CHECK_FIX_ERRORS;

    if (s->odd_extension_end) {
        scan_error(&check->scan, mend, 1, " header extensions end with a length that does not fit");
        s->odd_extension_end = !mend; /* a rebuild writes the header */
    }
    if (s->autoclear & QCOW2_AUTOCLEAR_DATA_RAW && !s->has_data_file) {
        scan_error(&check->scan, mend, 1,
                   " autoclear feature \"raw external data\" without a data file");
        if (mend) {
            s->autoclear &= ~QCOW2_AUTOCLEAR_DATA_RAW;
        }
    }
}

/* ---- references ------------------------------------------------------------------------------ */

static bool check_snapshot_root(struct qcow2_check *check, const struct qcow2_snapshot *snapshot,
                                uint64_t *l1_bytes)
{
    struct qcow2_scan *scan = &check->scan;

    if (snapshot->l1_offset & (check->s->cluster_size - 1)) {
        scan_error(scan, false, 1,
                   " snapshot %s (%s) l1_offset=%#" PRIx64
                   ": L1 table is not cluster aligned; snapshot table entry corrupted",
                   snapshot->id, snapshot->name, snapshot->l1_offset);
        return false;
    }
    if ((uint64_t)snapshot->l1_size * 8 > QCOW2_MAX_L1_BYTES) {
        scan_error(scan, false, 1,
                   " snapshot %s (%s) l1_size=%#" PRIx32
                   ": L1 table is too large; snapshot table entry corrupted",
                   snapshot->id, snapshot->name, snapshot->l1_size);
        return false;
    }
    *l1_bytes += (uint64_t)snapshot->l1_size * 8;
    if (*l1_bytes > scan->file_length + QCOW2_MAX_L1_BYTES) {
        scan_error(scan, false, 1,
                   " snapshot %s (%s) l1_offset=%#" PRIx64
                   ": L1 tables do not fit into the file; snapshot table entry corrupted",
                   snapshot->id, snapshot->name, snapshot->l1_offset);
        return false;
    }
    return true;
}

static int co_count_references(struct qcow2_check *check)
{
    struct qcow2_state *s = check->s;
    struct qcow2_scan *scan = &check->scan;
    struct scan_root *roots = xcalloc((size_t)check->snapshots.count + 1, sizeof(*roots));
    size_t count = 0;
    uint64_t l1_bytes = 0;

    scan_count(scan, 0, s->cluster_size, 1);
    roots[count++] = (struct scan_root){
        .l1_offset = s->l1_offset, .l1_size = s->l1_size, .refs = 1, .is_active = true};
    for (uint32_t i = 0; i < check->snapshots.count; i++) {
        const struct qcow2_snapshot *snapshot = &check->snapshots.items[i];
        struct scan_root *last = &roots[count - 1];
        if (count > 1 && last->l1_offset == snapshot->l1_offset &&
            last->l1_size == snapshot->l1_size) {
            last->refs++; /* read once */
        } else if (check_snapshot_root(check, snapshot, &l1_bytes)) {
            roots[count++] = (struct scan_root){
                .l1_offset = snapshot->l1_offset, .l1_size = snapshot->l1_size, .refs = 1};
        }
    }
    int ret = co_scan_roots(scan, roots, count);
    free(roots);
    if (ret < 0) {
        return ret;
    }
    if (check->snapshots.count) {
        uint8_t raw[8];
        ret = co_direct_read(check->node, QCOW2_H_SNAPSHOTS_OFFSET, raw, sizeof(raw));
        scan_count(scan, load_be64(raw), check->snapshots.bytes, 1);
    }
    return ret < 0 ? ret : co_scan_bitmaps(scan);
}

/* ---- one look at it -------------------------------------------------------------------------- */

/* Fills check->result. On return the map of references is there for a repair of leaks; the caller
 * ends it by look_end(). */
static int co_look(struct qcow2_check *check, scan_say_fn *say, void *opaque, struct error **errp)
{
    struct qcow2_state *s = check->s;
    struct block_check_result *result = &check->result;

    memset(result, 0, sizeof(*result));
    scan_init(&check->scan, check->node, s->max_refcount, result, say, opaque);
    check->scan.fix = check->fix & BLOCK_CHECK_FIX_ERRORS;
    refdisk_init(&check->disk, check->node);
    check->is_looking = true;
    result->total_clusters = (s->size >> s->cluster_bits) + !!(s->size & (s->cluster_size - 1));

    check_header(check);
    int ret = co_check_snapshot_table(check, errp);
    if (ret < 0) {
        return ret;
    }
    ret = co_count_references(check);
    if (ret == 0) {
        check_reftable(check);
        ret = co_check_refcounts(check);
    }
    if (ret == 0 && result->leaks && check->fix && !check_mends_leaks(check)) {
        scan_say(&check->scan, "Leaked clusters stay, as they may be those of the bitmaps with "
                               "errors; a repair of all drops the bitmaps");
    }
    if (ret == 0) {
        /* A repair of leaks alone takes along the flags that are wrong only because of them. */
        bool only_leaks = !result->corruptions && !result->check_errors;
        ret = co_check_copied(check,
                              check->fix & BLOCK_CHECK_FIX_ERRORS || (check->fix && only_leaks));
    }
    if (ret < 0) {
        error_set_errno(errp, -ret, "Could not read the metadata of '%s'", check->node->filename);
    }
    return ret;
}

static void look_end(struct qcow2_check *check)
{
    if (!check->is_looking) {
        return;
    }
    check->is_looking = false;
    scan_destroy(&check->scan);
    refdisk_destroy(&check->disk);
    snapshot_list_free(check->snapshots.items, check->snapshots.count);
    check->snapshots = (struct snapshot_list){0};
}

/* ---- repair ---------------------------------------------------------------------------------- */

/* Counts that do not fit get refcounts into which they do. */
static bool can_widen(const struct qcow2_check *check)
{
    return check->scan.overflows && check->s->version >= 3 && check->s->refcount_order < 6 &&
           check->fix & BLOCK_CHECK_FIX_ERRORS;
}

static int co_repair_all(struct qcow2_check *check, struct error **errp)
{
    struct qcow2_plan plan;

    qcow2_plan_init(&plan, check->node);
    snapshot_list_free(plan.snapshots, plan.snapshot_count);
    plan.snapshots = check->snapshots.items;
    plan.snapshot_count = check->snapshots.count;
    check->snapshots = (struct snapshot_list){0};
    plan.repair = true;
    if (can_widen(check)) {
        plan.refcount_order = check->s->refcount_order < 4 ? 4 : 6;
    }
    int ret = co_qcow2_rebuild(&plan, errp);
    qcow2_plan_free(&plan);
    return ret;
}

static int co_repair_leaks(struct qcow2_check *check, struct error **errp)
{
    int ret = co_check_free_leaks(check);

    if (ret < 0) {
        error_set_errno(errp, -ret, "Could not write refcounts of '%s'", check->node->filename);
    }
    cache_drop_all(&check->s->refcount_cache);
    check->s->free_hint = 0;
    return ret;
}

/* Whoever knows the features of unknown autoclear bits must learn that they were not kept up. */
static int co_clear_unknown(struct block_node *node, struct error **errp)
{
    int ret = co_qcow2_set_autoclear(node, 0, qcow2_of(node)->autoclear & ~QCOW2_AUTOCLEAR_KNOWN);

    if (ret < 0) {
        error_set_errno(errp, -ret, "Could not write the header of '%s'", node->filename);
    }
    return ret;
}

static int co_repair(struct qcow2_check *check, struct error **errp)
{
    bool all = check->scan.mended || can_widen(check);

    if (!all && !(check->result.leaks && check_mends_leaks(check))) {
        return 0;
    }
    int ret = co_clear_unknown(check->node, errp);
    if (ret < 0) {
        return ret;
    }
    return all ? co_repair_all(check, errp) : co_repair_leaks(check, errp);
}

static uint64_t fixed(uint64_t before, uint64_t after)
{
    return before > after ? before - after : 0;
}

/* ---- the operation --------------------------------------------------------------------------- */

struct operation {
    struct block_node *node;
    unsigned fix;
    bool is_in_use; /* the caches may have something that the file has not */
    struct block_check_result *result;
    scan_say_fn *say;
    void *opaque;
    struct error **errp;
};

/* The image is whole, and was not always. */
static int co_unmark(struct block_node *node, struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);
    int ret = co_clear_unknown(node, errp);

    if (ret < 0) {
        return ret;
    }
    ret = co_qcow2_set_incompatible(node, 0, QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT);
    if (ret < 0) {
        error_set_errno(errp, -ret, "Could not write the header of '%s'", node->filename);
        return ret;
    }
    atomic_store(&s->corrupt, false);
    atomic_store(&s->dirty_bit, false);
    return 0;
}

static int co_check(void *opaque)
{
    struct operation *op = opaque;
    struct qcow2_check check = {.node = op->node, .s = qcow2_of(op->node), .fix = op->fix};
    struct qcow2_state *s = check.s;
    int ret = 0;

    if (op->is_in_use) {
        ret = co_qcow2_mark_clean(op->node);
        if (ret < 0) {
            error_set_errno(op->errp, -ret, "Could not write the metadata of '%s'",
                            op->node->filename);
            return ret;
        }
    }
    ret = co_look(&check, op->say, op->opaque, op->errp);
    if (ret == 0 && op->fix && (check.result.corruptions || check.result.leaks)) {
        struct block_check_result before = check.result;
        ret = co_repair(&check, op->errp);
        look_end(&check);
        check.fix = 0;
        if (ret == 0) {
            ret = co_look(&check, NULL, NULL, op->errp);
        }
        check.result.corruptions_fixed = fixed(before.corruptions, check.result.corruptions);
        check.result.leaks_fixed = fixed(before.leaks, check.result.leaks);
    }
    if (ret == 0 && op->fix && !check.result.corruptions && !check.result.check_errors &&
        s->incompatible & (QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT)) {
        ret = co_unmark(op->node, op->errp);
    }
    *op->result = check.result;
    look_end(&check);
    return ret;
}

bool qcow2_check(struct block_node *node, unsigned fix, struct block_check_result *result,
                 void (*say)(void *opaque, const char *line), void *opaque, struct error **errp)
{
    struct error *err = NULL;
    struct operation op = {
        .node = node,
        .fix = fix,
        .is_in_use = node->flags & BLOCK_OPEN_RDWR && !(node->flags & BLOCK_OPEN_CHECK),
        .result = result,
        .say = say,
        .opaque = opaque,
        .errp = &err,
    };

    memset(result, 0, sizeof(*result));
    if (fix && !(node->flags & BLOCK_OPEN_RDWR)) {
        error_set(errp, "Image '%s' is read-only", node->filename);
        return false;
    }
    if (block_run(co_check, &op) < 0) {
        error_propagate(errp, err);
        return false;
    }
    return true;
}

int co_qcow2_repair_dirty(struct block_node *node, struct error **errp)
{
    struct block_check_result result = {0};
    struct operation op = {
        .node = node,
        .fix = BLOCK_CHECK_FIX_ERRORS | BLOCK_CHECK_FIX_LEAKS,
        .result = &result,
        .errp = errp,
    };
    int ret = co_check(&op);

    if (ret == 0 && result.corruptions) {
        error_set(errp, "Could not repair dirty image '%s': %" PRIu64 " errors are left",
                  node->filename, result.corruptions);
        error_add_hint(errp, "ferry-img check tells them");
        return -EIO;
    }
    return ret;
}
