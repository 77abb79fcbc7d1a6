/* SPDX-License-Identifier: MIT */
/* Bitmaps when an image is opened, kept and closed. See bitmap.h. */
#include "block/bitmap.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "block/qcow2/bitmap.h"

/* Of all bitmaps' bits: what an image can make us read. */
#define MAX_LOADED_BYTES (1 * GiB)

void qcow2_free_bitmaps(struct qcow2_state *s)
{
    qcow2_free_bitmap_list(s->bitmaps, s->bitmap_count);
    s->bitmaps = NULL;
}

/* ---- opening --------------------------------------------------------------------------------- */

/* Why its bits cannot be used, or NULL. */
static const char *fault_of(const struct qcow2_state *s, const struct qcow2_bitmap *b)
{
    if (b->flags & QCOW2_BITMAP_IN_USE) {
        return "was not stored";
    }
    if (b->extra_size && !(b->flags & QCOW2_BITMAP_EXTRA_COMPAT)) {
        return "has unknown extra data";
    }
    return qcow2_bitmap_fault(s, b);
}

static int co_load(struct block_node *node, struct qcow2_bitmap *from, struct block_bitmap *last,
                   uint64_t *budget, struct block_bitmap **made)
{
    struct qcow2_state *s = qcow2_of(node);
    const char *fault = fault_of(s, from);
    uint64_t bytes = (uint64_t)from->table_size << s->cluster_bits;

    from->is_faulty = qcow2_bitmap_fault(s, from) != NULL;
    if (!fault && bytes > *budget) {
        fault = "is too large together with the others";
    }
    struct block_bitmap *b = block_bitmap_add(
        node, last, from->name, fault ? 0 : UINT32_C(1) << from->granularity_bits, !fault);
    if (!b) {
        fault = "is too large";
        b = block_bitmap_add(node, last, from->name, 0, false);
    }
    b->persistent = true;
    b->enabled = from->flags & QCOW2_BITMAP_AUTO;
    b->kept = from;
    *made = b;
    if (!fault) {
        *budget -= bytes;
        int ret = co_qcow2_read_bitmap_table(node, from, b);
        if (ret < 0 && ret != -EIO && ret != -EINVAL) {
            return ret;
        }
        from->is_faulty = ret == -EINVAL;
        fault = ret < 0 ? "could not be read" : NULL;
    }
    if (fault) {
        b->inconsistent = true;
        if (!(from->flags & QCOW2_BITMAP_IN_USE)) {
            log_warn("'%s': bitmap '%s' %s: it cannot be used, only removed", node->filename,
                     from->name, fault);
        }
    }
    return 0;
}

static int co_load_all(struct block_node *node, struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);
    struct block_bitmap *last = NULL;
    uint64_t budget = MAX_LOADED_BYTES;

    atomic_store(&node->length, s->size); /* what bitmaps are made for */
    for (uint32_t i = 0; i < s->bitmap_count; i++) {
        int ret = co_load(node, s->bitmaps[i], last, &budget, &last);
        if (ret < 0) {
            error_set_errno(errp, -ret, "Could not read bitmap '%s' of '%s'", s->bitmaps[i]->name,
                            node->filename);
            return ret;
        }
    }
    return 0;
}

/* From now on the image does not say what the bits are; nor do those that could not be loaded, when
 * something is written. */
static int co_mark_in_use(struct block_node *node, struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);
    bool any = false;

    for (struct block_bitmap *b = node->bitmaps; b; b = b->next) {
        struct qcow2_bitmap *kept = b->kept;
        if (b->persistent && kept && (!b->inconsistent || !(kept->flags & QCOW2_BITMAP_IN_USE))) {
            kept->flags |= QCOW2_BITMAP_IN_USE;
            any = true;
        }
    }
    int ret = 0;
    if (any) {
        ret = s->bitmap_dir_unsure ? co_qcow2_write_bitmap_dir(node, s->bitmaps, s->bitmap_count)
                                   : co_qcow2_rewrite_bitmap_dir(node, s->bitmaps, s->bitmap_count);
    }
    if (ret < 0) {
        error_set_errno(errp, -ret, "Could not mark the bitmaps of '%s' as in use", node->filename);
    }
    return ret;
}

int co_qcow2_load_bitmaps(struct block_node *node, struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);
    int ret = 0;

    if (!s->bitmaps) {
        ret = co_qcow2_read_bitmap_dir(node, &s->bitmaps, errp);
        if (ret == -EINVAL) {
            error_prepend(errp, "'%s': ", node->filename);
        }
        if (ret == 0) {
            ret = co_load_all(node, errp);
        }
    }
    if (ret == 0 && node->flags & BLOCK_OPEN_RDWR) {
        ret = co_mark_in_use(node, errp);
    }
    return ret;
}

/* ---- storing --------------------------------------------------------------------------------- */

/* The entry that an image shall have for it: as the old one, with other flags. */
static struct qcow2_bitmap *new_entry(const struct block_bitmap *b, bool in_use)
{
    struct qcow2_bitmap *old = b->kept, *entry = xnew(struct qcow2_bitmap);

    if (old) {
        *entry = *old;
        entry->extra = old->extra_size ? xmemdup(old->extra, old->extra_size) : NULL;
    } else {
        entry->type = QCOW2_BITMAP_TYPE_DIRTY;
        entry->granularity_bits = (uint8_t)__builtin_ctz(b->granularity);
    }
    entry->name = xstrdup(b->name);
    if (!b->inconsistent) {
        entry->flags &= ~(QCOW2_BITMAP_IN_USE | QCOW2_BITMAP_AUTO);
        entry->flags |= (in_use ? QCOW2_BITMAP_IN_USE : 0) | (b->enabled ? QCOW2_BITMAP_AUTO : 0);
    }
    return entry;
}

static bool needs_table(const struct block_bitmap *b)
{
    return !b->inconsistent && (!b->kept || atomic_load(&b->changed));
}

/* An entry for each persistent bitmap, and tables for those that changed. */
static int co_make_list(struct block_node *node, bool in_use, struct qcow2_bitmap **list)
{
    uint32_t i = 0;
    int ret = 0;

    for (struct block_bitmap *b = node->bitmaps; b && ret == 0; b = b->next) {
        if (!b->persistent) {
            continue;
        }
        struct qcow2_bitmap *entry = list[i++] = new_entry(b, in_use);
        if (needs_table(b)) {
            entry->table_offset = 0;
            ret = co_qcow2_write_bitmap_table(node, b, entry);
            entry->is_new = ret == 0;
        }
    }
    return ret;
}

/* Nothing on disk has them. */
static void co_drop_list(struct block_node *node, struct qcow2_bitmap **list, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (list[i] && list[i]->is_new) {
            co_qcow2_free_bitmap_table(node, list[i], false);
        }
        qcow2_bitmap_free(list[i]);
    }
}

/* The new list is the image's. What only the old one had goes; if that fails it is leaked. */
static void co_take_list(struct block_node *node, struct qcow2_bitmap **list, uint32_t old_count)
{
    struct qcow2_state *s = qcow2_of(node);
    struct qcow2_bitmap **old = s->bitmaps;
    uint32_t i = 0;

    s->bitmaps = list;
    for (struct block_bitmap *b = node->bitmaps; b; b = b->next) {
        if (!b->persistent) {
            continue;
        }
        struct qcow2_bitmap *was = b->kept;
        if (was) {
            was->is_kept = !list[i]->is_new;
        }
        list[i]->is_new = false;
        b->kept = list[i++];
        atomic_store(&b->changed, false);
    }
    for (i = 0; old && i < old_count; i++) {
        if (!old[i]->is_kept && old[i]->is_faulty) {
            log_warn("'%s': what damaged bitmap '%s' has in the file is leaked; 'ferry-img check "
                     "-r leaks' frees it",
                     node->filename, old[i]->name);
        } else if (!old[i]->is_kept) {
            co_qcow2_free_bitmap_table(node, old[i], true);
        }
        qcow2_bitmap_free(old[i]);
    }
    free(old);
}

/* What differs from the image's directory is flags. */
static bool can_rewrite(const struct qcow2_state *s, struct qcow2_bitmap *const *list,
                        uint32_t count)
{
    if (s->bitmap_dir_unsure || count != s->bitmap_count) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (list[i]->is_new || strcmp(list[i]->name, s->bitmaps[i]->name) != 0) {
            return false;
        }
    }
    return true;
}

static int co_store(struct block_node *node, bool in_use)
{
    struct qcow2_state *s = qcow2_of(node);
    uint32_t old_count = s->bitmap_count, count = 0;

    if (old_count && !s->bitmaps) {
        return 0; /* opened to be checked: they are as they are */
    }
    for (struct block_bitmap *b = node->bitmaps; b; b = b->next) {
        count += b->persistent;
    }
    if (!count && !old_count) {
        return 0;
    }
    struct qcow2_bitmap **list = xcalloc(count + 1, sizeof(struct qcow2_bitmap *));
    int ret = co_make_list(node, in_use, list);
    if (ret < 0) {
        co_drop_list(node, list, count);
        free(list);
        return ret;
    }
    ret = co_qcow2_write_bitmap_dir(node, list, count);
    if (ret == -ENOSPC && can_rewrite(s, list, count)) {
        ret = co_qcow2_rewrite_bitmap_dir(node, list, count);
    }
    if (ret < 0) {
        for (uint32_t i = 0; s->bitmap_dir_unsure && i < count; i++) {
            list[i]->is_new = false; /* the header may name them: at worst a leak */
        }
        co_drop_list(node, list, count);
        free(list);
        return ret;
    }
    co_take_list(node, list, old_count);
    return 0;
}

int co_qcow2_store_bitmaps(struct block_node *node, struct error **errp)
{
    int ret = co_store(node, false);

    if (ret < 0) {
        error_set_errno(errp, -ret,
                        "Could not store the bitmaps of '%s', which are inconsistent from now on",
                        node->filename);
    }
    return ret;
}

/* ---- operations ------------------------------------------------------------------------------ */

static int co_keep(void *opaque)
{
    return co_store(opaque, true);
}

bool qcow2_keep_bitmaps(struct block_node *node, struct error **errp)
{
    for (struct block_bitmap *b = node->bitmaps; b; b = b->next) {
        if (b->persistent && !b->kept &&
            !qcow2_can_keep_bitmap(node, b->name, b->granularity, errp)) {
            return false;
        }
    }
    int ret = block_run(co_keep, node);
    if (ret < 0) {
        /* The others may be stored. */
        for (struct block_bitmap *b = node->bitmaps; b; b = b->next) {
            b->persistent = b->persistent && b->kept;
        }
        error_set_errno(errp, -ret, "Could not store bitmaps in '%s'", node->filename);
    }
    return ret == 0;
}

static bool check_space(const struct qcow2_state *s, const char *name, uint32_t granularity,
                        struct error **errp)
{
    unsigned bits = (unsigned)__builtin_ctz(granularity);
    uint64_t clusters = qcow2_bitmap_table_size(s, s->size, bits), size = 0;

    if (clusters > QCOW2_BITMAP_MAX_BYTES >> s->cluster_bits) {
        error_set(errp, "Too much space will be occupied by the bitmap. Use larger granularity");
        return false;
    }
    if (s->bitmap_count >= QCOW2_MAX_BITMAPS) {
        error_set(errp, "Maximum number of persistent bitmaps is already reached");
        return false;
    }
    size = s->bitmap_dir_size + qcow2_bitmap_entry_size(strlen(name), 0);
    if (size > QCOW2_MAX_BITMAP_DIR_BYTES) {
        error_set(errp, "Not enough space in the bitmap directory");
        return false;
    }
    return true;
}

bool qcow2_can_keep_bitmap(struct block_node *node, const char *name, uint32_t granularity,
                           struct error **errp)
{
    const struct qcow2_state *s = qcow2_of(node);
    struct error *err = NULL;

    granularity = granularity ? granularity : MIN(s->cluster_size, BLOCK_BITMAP_GRANULARITY);
    if (s->version < 3) {
        /* Who does not know the autoclear bit would change the image and leave the bitmaps. */
        error_set(&err, "Cannot store dirty bitmaps in qcow2 v2 files");
    } else if (!s->size) {
        error_set(&err, "A disk of 0 bytes cannot have a bitmap");
    } else if (!*name || strlen(name) > BLOCK_BITMAP_NAME_MAX) {
        error_set(&err, "The name must have 1 to %u bytes", BLOCK_BITMAP_NAME_MAX);
    } else if (!is_power_of_2(granularity) || granularity < BLOCK_BITMAP_GRANULARITY_MIN ||
               granularity > BLOCK_BITMAP_GRANULARITY_MAX) {
        error_set(&err, "Granularity must be a power of 2 from %u to %u",
                  BLOCK_BITMAP_GRANULARITY_MIN, BLOCK_BITMAP_GRANULARITY_MAX);
    } else if (check_space(s, name, granularity, &err)) {
        return true;
    }
    error_prepend(&err, "Can't make bitmap '%s' persistent in '%s': ", name, node->filename);
    error_propagate(errp, err);
    return false;
}
