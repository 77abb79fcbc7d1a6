/* SPDX-License-Identifier: MIT */
/*
 * Internal snapshots: listing, making, applying, deleting, reading.
 *
 * Making one gives the active L1 table a twin; applying one makes the twin of its L1 table the
 * active one; deleting one takes its L1 table away. What that means for L2 tables, flags and
 * refcounts, and that no crash shows a half of it, is the business of rebuild.h.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "block/qcow2/direct.h"
#include "block/qcow2/rebuild.h"
#include "block/qcow2/snapshot_ops.h"
#include "block/qcow2/snapshot_table.h"

#define NAME_MAX_BYTES UINT16_MAX

/* ---- at open and close ----------------------------------------------------------------------- */

int co_qcow2_read_snapshots(struct block_node *node, struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);
    struct snapshot_list list;
    uint8_t header[QCOW2_H_V2_LENGTH];
    int ret = co_direct_read(node, 0, header, sizeof(header));

    if (ret < 0) {
        error_set_errno(errp, -ret, "Could not read the header of '%s'", node->filename);
        return ret;
    }
    uint32_t count = load_be32(header + QCOW2_H_NB_SNAPSHOTS);
    qcow2_free_snapshots(s);
    s->snapshots_size = 0;
    s->snapshots_offset = load_be64(header + QCOW2_H_SNAPSHOTS_OFFSET);
    ret = co_snapshot_table_read(node, s->snapshots_offset, count, NULL, NULL, &list, errp);
    if (ret == 0) {
        s->snapshots = list.items;
        s->snapshot_count = list.count;
        s->snapshots_size = (uint32_t)list.bytes;
    }
    return ret;
}

void qcow2_free_snapshots(struct qcow2_state *s)
{
    if (s->snapshots) {
        snapshot_list_free(s->snapshots, s->snapshot_count);
    }
    s->snapshots = NULL;
    s->snapshot_count = 0;
}

/* ---- finding --------------------------------------------------------------------------------- */

static struct qcow2_snapshot *find_by_id(struct qcow2_snapshot *list, uint32_t count,
                                         const char *id)
{
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(list[i].id, id) == 0) {
            return &list[i];
        }
    }
    return NULL;
}

static struct qcow2_snapshot *find_by_name(struct qcow2_snapshot *list, uint32_t count,
                                           const char *name)
{
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(list[i].name, name) == 0) {
            return &list[i];
        }
    }
    return NULL;
}

static struct qcow2_snapshot *find(struct qcow2_snapshot *list, uint32_t count, const char *text)
{
    struct qcow2_snapshot *found = find_by_id(list, count, text);

    return found ? found : find_by_name(list, count, text);
}

/* ---- listing --------------------------------------------------------------------------------- */

size_t qcow2_snapshot_list(struct block_node *node, struct block_snapshot **list)
{
    struct qcow2_state *s = qcow2_of(node);

    *list = xcalloc((size_t)s->snapshot_count + 1, sizeof(**list));
    for (uint32_t i = 0; i < s->snapshot_count; i++) {
        const struct qcow2_snapshot *from = &s->snapshots[i];
        (*list)[i] = (struct block_snapshot){
            .id = xstrdup(from->id),
            .name = xstrdup(from->name),
            .vm_state_size = from->vm_state_size,
            .disk_size = from->disk_size,
            .vm_clock_ns = from->vm_clock_ns,
            .icount = (int64_t)from->icount,
            .date_sec = from->date_sec,
            .date_nsec = from->date_nsec,
        };
    }
    return s->snapshot_count;
}

/* ---- changing -------------------------------------------------------------------------------- */

struct change {
    struct qcow2_plan plan;
    struct error **errp;
};

static int co_change(void *opaque)
{
    struct change *change = opaque;

    return co_qcow2_rebuild(&change->plan, change->errp);
}

static bool run_change(struct change *change, struct error **errp)
{
    struct error *err = NULL;

    change->errp = &err;
    int ret = block_run(co_change, change);
    qcow2_plan_free(&change->plan);
    if (ret < 0) {
        error_propagate(errp, err);
    }
    return ret == 0;
}

static bool can_change(struct block_node *node, struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);

    if (!(node->flags & BLOCK_OPEN_RDWR)) {
        error_set(errp, "Image '%s' is read-only", node->filename);
        return false;
    }
    if (atomic_load(&s->corrupt)) {
        error_set(errp, "Image '%s' is corrupt", node->filename);
        error_add_hint(errp, "ferry-img check -r all repairs it");
        return false;
    }
    return true;
}

/* One more than the highest number among the ids. */
static char *next_id(const struct qcow2_state *s)
{
    uint64_t highest = 0;

    for (uint32_t i = 0; i < s->snapshot_count; i++) {
        uint64_t id = strtoull(s->snapshots[i].id, NULL, 10);
        highest = MAX(highest, id);
    }
    return xasprintf("%" PRIu64, highest + 1);
}

bool qcow2_snapshot_create(struct block_node *node, const struct block_snapshot *snapshot,
                           struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);
    struct change change;

    if (!can_change(node, errp)) {
        return false;
    }
    if (s->has_data_file) {
        error_set(errp, "%d (%s)", -ENOTSUP, strerror(ENOTSUP));
        error_add_hint(errp, "'%s' has its data in another file, which cannot have snapshots",
                       node->filename);
        return false;
    }
    if (s->snapshot_count >= QCOW2_MAX_SNAPSHOTS) {
        error_set(errp, "%d (%s)", -EFBIG, strerror(EFBIG));
        error_add_hint(errp, "'%s' has %u snapshots already", node->filename, s->snapshot_count);
        return false;
    }
    if (snapshot->id && find_by_id(s->snapshots, s->snapshot_count, snapshot->id)) {
        error_set(errp, "%d (%s)", -EEXIST, strerror(EEXIST));
        error_add_hint(errp, "'%s' has a snapshot of ID %s already", node->filename, snapshot->id);
        return false;
    }
    if (strlen(snapshot->name) > NAME_MAX_BYTES ||
        (snapshot->id && strlen(snapshot->id) > NAME_MAX_BYTES)) {
        error_set(errp, "%d (%s)", -ENAMETOOLONG, strerror(ENAMETOOLONG));
        return false;
    }

    qcow2_plan_init(&change.plan, node);
    change.plan.snapshots[change.plan.snapshot_count++] = (struct qcow2_snapshot){
        .l1_offset = s->l1_offset,
        .l1_size = s->l1_size,
        .id = snapshot->id ? xstrdup(snapshot->id) : next_id(s),
        .name = xstrdup(snapshot->name),
        .vm_state_size = snapshot->vm_state_size,
        .disk_size = s->size,
        .vm_clock_ns = snapshot->vm_clock_ns,
        .icount = (uint64_t)snapshot->icount,
        .date_sec = snapshot->date_sec,
        .date_nsec = snapshot->date_nsec,
    };
    return run_change(&change, errp);
}

/* Entries of the L1 table that a disk of so many bytes needs. */
static uint64_t l1_entries(const struct qcow2_state *s, uint64_t size)
{
    unsigned bits = s->cluster_bits + s->l2_bits;

    return (size >> bits) + !!(size & (BIT64(bits) - 1));
}

bool qcow2_snapshot_apply(struct block_node *node, const char *id_or_name, struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);
    struct qcow2_snapshot *snapshot = find(s->snapshots, s->snapshot_count, id_or_name);
    struct change change;

    if (!can_change(node, errp)) {
        return false;
    }
    if (s->bitmap_count || atomic_load(&node->bitmaps)) {
        error_set(errp, "Device has active dirty bitmaps");
        error_add_hint(errp, "they tell what was written since some time; remove them first");
        return false;
    }
    if (!snapshot) {
        error_set(errp, "Failed to load snapshot: %s", strerror(ENOENT));
        return false;
    }
    uint64_t needed = l1_entries(s, snapshot->disk_size);
    if (snapshot->disk_size > INT64_MAX || snapshot->disk_size % 512 ||
        needed * 8 > QCOW2_MAX_L1_BYTES || (uint64_t)snapshot->l1_size * 8 > QCOW2_MAX_L1_BYTES) {
        error_set(errp, "Failed to load snapshot: %s", strerror(EFBIG));
        error_add_hint(errp, "its disk size of %" PRIu64 " bytes is impossible",
                       snapshot->disk_size);
        return false;
    }

    qcow2_plan_init(&change.plan, node);
    change.plan.size = snapshot->disk_size;
    change.plan.l1_from = snapshot->l1_offset;
    change.plan.l1_from_size = snapshot->l1_size;
    change.plan.l1_size = (uint32_t)MAX(needed, snapshot->l1_size);
    return run_change(&change, errp);
}

bool qcow2_snapshot_delete(struct block_node *node, const char *name, struct error **errp)
{
    struct change change;

    if (!can_change(node, errp)) {
        return false;
    }
    qcow2_plan_init(&change.plan, node);
    struct qcow2_snapshot *list = change.plan.snapshots;
    uint32_t count = change.plan.snapshot_count;
    struct qcow2_snapshot *snapshot = find_by_name(list, count, name);
    if (!snapshot) {
        error_set(errp, "snapshot not found");
        if (find_by_id(list, count, name)) {
            error_add_hint(errp, "%s is an ID; snapshots are deleted by name", name);
        }
        qcow2_plan_free(&change.plan);
        return false;
    }
    qcow2_snapshot_clear(snapshot);
    memmove(snapshot, snapshot + 1, (size_t)(list + count - (snapshot + 1)) * sizeof(*snapshot));
    change.plan.snapshot_count--;
    return run_change(&change, errp);
}

/* ---- reading --------------------------------------------------------------------------------- */

struct load {
    struct block_node *node;
    const struct qcow2_snapshot *snapshot;
    uint64_t *l1;
};

static int co_load(void *opaque)
{
    struct load *load = opaque;
    uint32_t size = load->snapshot->l1_size;
    int ret = co_direct_read(load->node, load->snapshot->l1_offset, load->l1, (size_t)size * 8);

    for (uint32_t i = 0; i < size && ret == 0; i++) {
        load->l1[i] = load_be64(&load->l1[i]);
    }
    return ret;
}

static struct qcow2_snapshot *find_by_key(struct qcow2_snapshot *list, uint32_t count,
                                          const struct block_snapshot_key *key)
{
    struct qcow2_snapshot *other = key->id_or_name ? find(list, count, key->id_or_name) : NULL;

    for (uint32_t i = 0; i < count; i++) {
        if ((!key->id || !strcmp(list[i].id, key->id)) &&
            (!key->name || !strcmp(list[i].name, key->name)) &&
            (!key->id_or_name || other == &list[i])) {
            return &list[i];
        }
    }
    return NULL;
}

bool qcow2_snapshot_load(struct block_node *node, const struct block_snapshot_key *key,
                         struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);
    struct qcow2_snapshot *snapshot = find_by_key(s->snapshots, s->snapshot_count, key);

    if (node->flags & BLOCK_OPEN_RDWR) {
        error_set(errp, "Failed to load snapshot: Device is not readonly");
        return false;
    }
    if (!snapshot) {
        error_set(errp, "Failed to load snapshot: Can't find snapshot");
        return false;
    }
    uint64_t needed = l1_entries(s, snapshot->disk_size);
    uint64_t size = MAX(needed, snapshot->l1_size);
    if (snapshot->l1_offset & (s->cluster_size - 1) || size * 8 > QCOW2_MAX_L1_BYTES ||
        snapshot->disk_size > INT64_MAX || snapshot->disk_size % 512) {
        error_set(errp, "Failed to load snapshot: Snapshot L1 table is impossible");
        error_add_hint(errp, "offset 0x%" PRIx64 ", %" PRIu32 " entries, disk of %" PRIu64 " bytes",
                       snapshot->l1_offset, snapshot->l1_size, snapshot->disk_size);
        return false;
    }
    struct load load = {node, snapshot, xcalloc(size + 1, 8)};
    int ret = block_run(co_load, &load);
    if (ret < 0) {
        free(load.l1);
        error_set_errno(errp, -ret, "Failed to load snapshot: Could not read its L1 table");
        return false;
    }
    free(s->l1);
    s->l1 = (_Atomic(uint64_t) *)(void *)load.l1;
    s->has_snapshot_loaded = true;
    s->l1_size = (uint32_t)size;
    s->l1_offset = snapshot->l1_offset;
    s->size = snapshot->disk_size;
    cache_drop_all(&s->l2_cache);
    atomic_store(&node->length, s->size);
    return true;
}
