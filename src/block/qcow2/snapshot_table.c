/* SPDX-License-Identifier: MIT */
#include "block/qcow2/snapshot_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "block/qcow2/direct.h"

/* Offsets of fields in an entry, bytes. */
enum {
    E_L1_OFFSET = 0,
    E_L1_SIZE = 8,
    E_ID_SIZE = 12,
    E_NAME_SIZE = 14,
    E_DATE_SEC = 16,
    E_DATE_NSEC = 20,
    E_VM_CLOCK = 24,
    E_VM_STATE_SIZE = 32,
    E_EXTRA_SIZE = 36,
    E_FIXED = 40,
    /* extra data */
    X_VM_STATE_SIZE = 0,
    X_DISK_SIZE = 8,
    X_ICOUNT = 16,
    X_REQUIRED = 16, /* in version 3 */
    X_KNOWN = 24,
};

void qcow2_snapshot_copy(struct qcow2_snapshot *to, const struct qcow2_snapshot *from)
{
    *to = *from;
    to->id = xstrdup(from->id);
    to->name = xstrdup(from->name);
    to->unknown_extra =
        from->unknown_extra ? xmemdup(from->unknown_extra, from->unknown_extra_size) : NULL;
}

void qcow2_snapshot_clear(struct qcow2_snapshot *snapshot)
{
    free(snapshot->id);
    free(snapshot->name);
    free(snapshot->unknown_extra);
}

void snapshot_list_free(struct qcow2_snapshot *items, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        qcow2_snapshot_clear(&items[i]);
    }
    free(items);
}

/* ---- reading --------------------------------------------------------------------------------- */

struct table_reader {
    struct block_node *node;
    struct direct_reader bytes;
    snapshot_fault_fn *fault;
    void *opaque;
};

static char *co_take_text(struct direct_reader *reader, uint16_t size, int *ret)
{
    char *text = xcalloc(1, (size_t)size + 1);

    *ret = co_direct_take(reader, text, size);
    return text;
}

/* Extra data that we know goes into the snapshot, the rest is kept. */
static int co_take_extra(struct table_reader *t, struct qcow2_snapshot *snapshot, uint32_t size,
                         uint32_t index, struct error **errp)
{
    uint32_t kept = MIN(size, QCOW2_MAX_SNAPSHOT_EXTRA);
    uint8_t extra[QCOW2_MAX_SNAPSHOT_EXTRA];

    if (size > kept && !(t->fault && t->fault(t->opaque, SNAPSHOT_EXTRA_TOO_BIG, index, size))) {
        error_set(errp, "Too much extra metadata in snapshot table entry %u", index);
        error_add_hint(errp,
                       "You can force-remove this extra metadata with ferry-img check -r all");
        return -EFBIG;
    }
    int ret = co_direct_take(&t->bytes, extra, kept);
    if (ret == 0) {
        ret = direct_skip(&t->bytes, size - kept);
    }
    if (ret < 0) {
        return ret;
    }
    if (kept >= X_VM_STATE_SIZE + 8) {
        snapshot->vm_state_size = load_be64(extra + X_VM_STATE_SIZE);
    }
    snapshot->disk_size =
        kept >= X_REQUIRED ? load_be64(extra + X_DISK_SIZE) : qcow2_of(t->node)->size;
    snapshot->icount = kept >= X_KNOWN ? load_be64(extra + X_ICOUNT) : UINT64_MAX;
    if (kept > X_KNOWN) {
        snapshot->unknown_extra_size = kept - X_KNOWN;
        snapshot->unknown_extra = xmemdup(extra + X_KNOWN, kept - X_KNOWN);
    }
    snapshot->is_incomplete = kept < X_REQUIRED;
    if (snapshot->is_incomplete && qcow2_of(t->node)->version >= 3 && t->fault) {
        t->fault(t->opaque, SNAPSHOT_INCOMPLETE, index, 0);
    }
    return 0;
}

/* *snapshot is filled as far as it came. */
static int co_take_entry(struct table_reader *t, struct qcow2_snapshot *snapshot, uint32_t index,
                         struct error **errp)
{
    uint8_t raw[E_FIXED];
    int ret = co_direct_take(&t->bytes, raw, sizeof(raw));

    if (ret < 0) {
        return ret;
    }
    *snapshot = (struct qcow2_snapshot){
        .l1_offset = load_be64(raw + E_L1_OFFSET),
        .l1_size = load_be32(raw + E_L1_SIZE),
        .date_sec = load_be32(raw + E_DATE_SEC),
        .date_nsec = load_be32(raw + E_DATE_NSEC),
        .vm_clock_ns = load_be64(raw + E_VM_CLOCK),
        .vm_state_size = load_be32(raw + E_VM_STATE_SIZE),
    };
    uint16_t id_size = load_be16(raw + E_ID_SIZE), name_size = load_be16(raw + E_NAME_SIZE);
    uint32_t extra_size = load_be32(raw + E_EXTRA_SIZE);
    ret = co_take_extra(t, snapshot, extra_size, index, errp);
    if (ret == 0) {
        snapshot->id = co_take_text(&t->bytes, id_size, &ret);
    }
    if (ret == 0) {
        snapshot->name = co_take_text(&t->bytes, name_size, &ret);
    }
    if (ret == 0) {
        uint64_t size = sizeof(raw) + (uint64_t)extra_size + id_size + name_size;
        ret = direct_skip(&t->bytes, align_up(size, 8) - size);
    }
    return ret;
}

int co_snapshot_table_read(struct block_node *node, uint64_t offset, uint32_t count,
                           snapshot_fault_fn *fault, void *opaque, struct snapshot_list *list,
                           struct error **errp)
{
    struct table_reader t = {.node = node, .fault = fault, .opaque = opaque};
    uint32_t room = 0;
    int ret = 0;

    *list = (struct snapshot_list){0};
    if (count && offset & (qcow2_of(node)->cluster_size - 1)) {
        error_set(errp,
                  "Snapshot table offset invalid: snapshots_offset=0x%llx of '%s' is not a "
                  "multiple of the cluster size",
                  (unsigned long long)offset, node->filename);
        return -EINVAL;
    }
    if (count > QCOW2_MAX_SNAPSHOTS) {
        uint32_t excess = count - QCOW2_MAX_SNAPSHOTS;
        if (!(fault && fault(opaque, SNAPSHOT_TABLE_TOO_BIG, QCOW2_MAX_SNAPSHOTS, excess))) {
            error_set(errp, "snapshot table too large: nb_snapshots=%u of '%s' is more than %u",
                      count, node->filename, QCOW2_MAX_SNAPSHOTS);
            error_add_hint(errp,
                           "You can force-remove all %u overhanging snapshots with ferry-img "
                           "check -r all",
                           excess);
            return -EFBIG;
        }
        count = QCOW2_MAX_SNAPSHOTS;
    }
    direct_reader_init(&t.bytes, node, offset, QCOW2_MAX_SNAPSHOT_BYTES);
    while (list->count < count) {
        if (list->count == room) {
            room = room ? room * 2 : 16;
            list->items = xreallocarray(list->items, room, sizeof(*list->items));
        }
        struct qcow2_snapshot *item = &list->items[list->count];
        *item = (struct qcow2_snapshot){0};
        ret = co_take_entry(&t, item, list->count, errp);
        if (ret < 0) {
            qcow2_snapshot_clear(item);
            break;
        }
        list->count++;
        list->bytes = t.bytes.offset - offset;
    }
    direct_reader_free(&t.bytes);
    if (ret == -EFBIG && !(errp && *errp)) {
        /* The table is longer than it may be. */
        if (fault && fault(opaque, SNAPSHOT_TABLE_TOO_BIG, list->count, count - list->count)) {
            return 0;
        }
        error_set(errp, "snapshot table too large: that of '%s' has more than %llu bytes",
                  node->filename, (unsigned long long)QCOW2_MAX_SNAPSHOT_BYTES);
        error_add_hint(errp,
                       "You can force-remove all %u overhanging snapshots with ferry-img check -r "
                       "all",
                       count - list->count);
    } else if (ret < 0 && errp && !*errp) {
        error_set_errno(errp, -ret, "Could not read the snapshot table of '%s'", node->filename);
    }
    if (ret < 0) {
        snapshot_list_free(list->items, list->count);
        *list = (struct snapshot_list){0};
    }
    return ret;
}

/* ---- writing --------------------------------------------------------------------------------- */

static size_t entry_size(const struct qcow2_snapshot *s)
{
    return align_up(E_FIXED + X_KNOWN + s->unknown_extra_size + strlen(s->id) + strlen(s->name), 8);
}

static void encode_entry(uint8_t *p, const struct qcow2_snapshot *s)
{
    size_t id_size = strlen(s->id), name_size = strlen(s->name);

    store_be64(p + E_L1_OFFSET, s->l1_offset);
    store_be32(p + E_L1_SIZE, s->l1_size);
    store_be16(p + E_ID_SIZE, (uint16_t)id_size);
    store_be16(p + E_NAME_SIZE, (uint16_t)name_size);
    store_be32(p + E_DATE_SEC, s->date_sec);
    store_be32(p + E_DATE_NSEC, s->date_nsec);
    store_be64(p + E_VM_CLOCK, s->vm_clock_ns);
    store_be32(p + E_VM_STATE_SIZE, s->vm_state_size > UINT32_MAX ? 0 : (uint32_t)s->vm_state_size);
    store_be32(p + E_EXTRA_SIZE, X_KNOWN + s->unknown_extra_size);
    p += E_FIXED;
    store_be64(p + X_VM_STATE_SIZE, s->vm_state_size);
    store_be64(p + X_DISK_SIZE, s->disk_size);
    store_be64(p + X_ICOUNT, s->icount);
    p += X_KNOWN;
    if (s->unknown_extra_size) {
        memcpy(p, s->unknown_extra, s->unknown_extra_size);
        p += s->unknown_extra_size;
    }
    memcpy(p, s->id, id_size);
    memcpy(p + id_size, s->name, name_size);
}

uint8_t *snapshot_table_encode(const struct qcow2_snapshot *items, uint32_t count, size_t *size)
{
    size_t total = 0;

    for (uint32_t i = 0; i < count; i++) {
        total += entry_size(&items[i]);
        if (total > QCOW2_MAX_SNAPSHOT_BYTES) {
            return NULL;
        }
    }
    uint8_t *table = xcalloc(1, total + 1), *p = table;
    for (uint32_t i = 0; i < count; i++) {
        encode_entry(p, &items[i]);
        p += entry_size(&items[i]);
    }
    *size = total;
    return table;
}
