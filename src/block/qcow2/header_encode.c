/* SPDX-License-Identifier: MIT */
/* The bytes of the first cluster, from the state: for new headers and for changed ones. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "block/qcow2/qcow2.h"

#define EXTENSION_HEADER 8u /* type and length */
#define SECTOR           512u
#define FEATURE_ENTRY    48u
#define FEATURE_NAME     46u
#define BITMAPS_LENGTH   24u

/* Where the next extension goes. */
struct cursor {
    uint8_t *at, *end, *sector_end; /* of the cluster, of its first sector */
};

/* ---- extensions ------------------------------------------------------------------------------ */

static uint64_t padded(uint64_t length)
{
    return align_up(length, 8);
}

/* Room for the data of an extension, which is zeroed; NULL if the cluster has no more. */
static uint8_t *add_extension(struct cursor *c, uint32_t type, uint32_t length)
{
    if (!range_fits(EXTENSION_HEADER, padded(length), c->end - c->at)) {
        return NULL;
    }
    store_be32(c->at, type);
    store_be32(c->at + 4, length);
    uint8_t *data = c->at + EXTENSION_HEADER;
    c->at = data + padded(length);
    return data;
}

static bool add_bytes(struct cursor *c, uint32_t type, const void *bytes, uint32_t length)
{
    uint8_t *data = add_extension(c, type, length);

    if (data && length) {
        memcpy(data, bytes, length);
    }
    return data;
}

static bool add_text(struct cursor *c, uint32_t type, const char *text)
{
    return !text || add_bytes(c, type, text, (uint32_t)strlen(text));
}

static bool add_bitmaps(struct cursor *c, const struct qcow2_state *s)
{
    if (!s->bitmap_count) {
        return true;
    }
    uint8_t *data = add_extension(c, QCOW2_EXT_BITMAPS, BITMAPS_LENGTH);
    if (data) {
        store_be32(data, s->bitmap_count);
        store_be64(data + 8, s->bitmap_dir_size);
        store_be64(data + 16, s->bitmap_dir_offset);
    }
    return data;
}

/* What other programs call the feature bits when they do not know them. Optional: all of them where
 * the first sector has room (header_write.c says why there), else those that are set, else none.
 * `reserve`: bytes that must stay free in it. */
static void add_feature_names(struct cursor *c, const struct qcow2_state *s, uint64_t reserve)
{
    enum { INCOMPATIBLE, COMPATIBLE, AUTOCLEAR };
    static const struct {
        uint8_t type, bit;
        const char *name;
    } features[] = {
        {INCOMPATIBLE, 0, "dirty bit"},
        {INCOMPATIBLE, 1, "corrupt bit"},
        {INCOMPATIBLE, 2, "external data file"},
        {INCOMPATIBLE, 3, "compression type"},
        {INCOMPATIBLE, 4, "extended L2 entries"},
        {COMPATIBLE, 0, "lazy refcounts"},
        {AUTOCLEAR, 0, "bitmaps"},
        {AUTOCLEAR, 1, "raw external data"},
    };
    const uint64_t set[] = {s->incompatible, s->compatible, s->autoclear};
    uint32_t all = ARRAY_SIZE(features) * FEATURE_ENTRY, some = 0;
    bool takes_all = range_fits(EXTENSION_HEADER + all, reserve, c->sector_end - c->at);

    for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
        some += set[features[i].type] >> features[i].bit & 1 ? FEATURE_ENTRY : 0;
    }
    if (!takes_all &&
        (!some || !range_fits(EXTENSION_HEADER + some, reserve, c->sector_end - c->at))) {
        return;
    }
    uint8_t *entry = add_extension(c, QCOW2_EXT_FEATURE_NAMES, takes_all ? all : some);
    for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
        if (takes_all || set[features[i].type] >> features[i].bit & 1) {
            entry[0] = features[i].type;
            entry[1] = features[i].bit;
            memcpy(entry + 2, features[i].name, strnlen(features[i].name, FEATURE_NAME));
            entry += FEATURE_ENTRY;
        }
    }
}

static bool add_extensions(struct cursor *c, const struct qcow2_state *s)
{
    /* The unknown ones and the end mark: all that follows the names. */
    uint64_t reserve = EXTENSION_HEADER;

    if (!add_text(c, QCOW2_EXT_BACKING_FORMAT, s->backing_format) ||
        !add_text(c, QCOW2_EXT_DATA_FILE, s->data_file_name) || !add_bitmaps(c, s)) {
        return false;
    }
    for (const struct qcow2_extension *e = s->extensions; e; e = e->next) {
        reserve += EXTENSION_HEADER + padded(e->length);
    }
    if (s->version >= 3 && c->at < c->sector_end) {
        add_feature_names(c, s, reserve);
    }
    for (const struct qcow2_extension *e = s->extensions; e; e = e->next) {
        if (!add_bytes(c, e->type, e->data, e->length)) {
            return false;
        }
    }
    return add_extension(c, QCOW2_EXT_END, 0);
}

/* ---- fields ---------------------------------------------------------------------------------- */

static void put_fields(uint8_t *h, const struct qcow2_state *s)
{
    store_be32(h + QCOW2_H_MAGIC, QCOW2_MAGIC);
    store_be32(h + QCOW2_H_VERSION, s->version);
    store_be32(h + QCOW2_H_CLUSTER_BITS, s->cluster_bits);
    store_be64(h + QCOW2_H_SIZE, s->size);
    store_be32(h + QCOW2_H_L1_SIZE, s->l1_size);
    store_be64(h + QCOW2_H_L1_OFFSET, s->l1_offset);
    store_be64(h + QCOW2_H_REFTABLE_OFFSET, s->reftable_offset);
    store_be32(h + QCOW2_H_REFTABLE_CLUSTERS,
               (uint32_t)((uint64_t)s->reftable_size * 8 >> s->cluster_bits));
    store_be32(h + QCOW2_H_NB_SNAPSHOTS, s->snapshot_count);
    store_be64(h + QCOW2_H_SNAPSHOTS_OFFSET, s->snapshots_offset);
    if (s->version >= 3) {
        store_be64(h + QCOW2_H_INCOMPATIBLE, s->incompatible);
        store_be64(h + QCOW2_H_COMPATIBLE, s->compatible);
        store_be64(h + QCOW2_H_AUTOCLEAR, s->autoclear);
        store_be32(h + QCOW2_H_REFCOUNT_ORDER, s->refcount_order);
        h[QCOW2_H_COMPRESSION] = (uint8_t)s->compression;
    }
}

int qcow2_encode_header_fields(const struct qcow2_state *s, void *cluster, uint32_t *end)
{
    uint8_t *h = cluster;
    uint32_t length = QCOW2_H_V2_LENGTH;

    memset(h, 0, s->cluster_size);
    put_fields(h, s);
    if (s->version >= 3) {
        length = QCOW2_H_V3_FULL_LENGTH + s->unknown_header_size;
        if (length > s->cluster_size - EXTENSION_HEADER) {
            return -ENOSPC;
        }
        store_be32(h + QCOW2_H_HEADER_LENGTH, length);
        if (s->unknown_header_size) {
            memcpy(h + QCOW2_H_V3_FULL_LENGTH, s->unknown_header, s->unknown_header_size);
        }
    }
    struct cursor c = {.at = h + length, .end = h + s->cluster_size, .sector_end = h + SECTOR};
    if (!add_extensions(&c, s)) {
        return -ENOSPC;
    }
    *end = (uint32_t)(c.at - h);
    return 0;
}

int qcow2_encode_backing_name(const struct qcow2_state *s, void *cluster, uint32_t at)
{
    uint8_t *h = cluster;
    size_t length = strlen(s->backing_name);

    if (!range_fits(at, length, s->cluster_size)) {
        return -ENOSPC;
    }
    memcpy(h + at, s->backing_name, length);
    store_be64(h + QCOW2_H_BACKING_OFFSET, at);
    store_be32(h + QCOW2_H_BACKING_SIZE, (uint32_t)length);
    return 0;
}

int qcow2_encode_header(const struct qcow2_state *s, void *cluster)
{
    uint32_t end;

    int ret = qcow2_encode_header_fields(s, cluster, &end);
    return ret == 0 && s->backing_name ? qcow2_encode_backing_name(s, cluster, end) : ret;
}
