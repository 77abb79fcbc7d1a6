/* SPDX-License-Identifier: MIT */
/*
 * Reading the header: every field and extension is checked before anything is made of it (qcow2
 * specification, "Header", "Header extensions"). The tables that it names are in tables.c.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "block/iov.h"
#include "block/qcow2/qcow2.h"

#define FEATURE_ENTRY     48u
#define FEATURE_NAME      46u
#define MAX_EXTENSIONS    256u /* that we keep */
#define BITMAPS_LENGTH    24u
#define MAX_FORMAT_NAME   15u
#define MAX_DATA_FILENAME 1023u

struct parse {
    struct block_node *node;
    struct qcow2_state *s;
    const uint8_t *cluster; /* the first one */
    uint32_t size;          /* its bytes */
    uint32_t header_length; /* as the image has it */
    uint64_t backing_offset;
    uint32_t backing_size;
    bool has_bitmaps;
    const uint8_t *feature_names;
    uint32_t feature_count;
    struct error **errp;
};

/* The error, with the file's name before it. */
static int bad(struct parse *p, int ret, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static int bad(struct parse *p, int ret, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    autofree char *text = xvasprintf(fmt, ap);
    va_end(ap);
    error_set(p->errp, "Could not open '%s': %s", p->node->filename, text);
    return ret;
}

/* ---- fields ---------------------------------------------------------------------------------- */

static int parse_start(struct parse *p, const uint8_t *h)
{
    struct qcow2_state *s = p->s;

    if (load_be32(h + QCOW2_H_MAGIC) != QCOW2_MAGIC) {
        return bad(p, -EINVAL, "Image is not in qcow2 format");
    }
    s->version = load_be32(h + QCOW2_H_VERSION);
    if (s->version < 2 || s->version > 3) {
        return bad(p, -ENOTSUP, "Unsupported qcow2 version %u", s->version);
    }
    s->cluster_bits = load_be32(h + QCOW2_H_CLUSTER_BITS);
    if (s->cluster_bits < QCOW2_MIN_CLUSTER_BITS || s->cluster_bits > QCOW2_MAX_CLUSTER_BITS) {
        return bad(p, -EINVAL, "Unsupported cluster size: 2^%u; cluster_bits must be %d to %d",
                   s->cluster_bits, QCOW2_MIN_CLUSTER_BITS, QCOW2_MAX_CLUSTER_BITS);
    }
    s->cluster_size = UINT32_C(1) << s->cluster_bits;
    return 0;
}

static int parse_v3_fields(struct parse *p, const uint8_t *h)
{
    struct qcow2_state *s = p->s;

    p->header_length = QCOW2_H_V2_LENGTH;
    s->refcount_order = 4;
    if (s->version == 2) {
        return 0;
    }
    p->header_length = load_be32(h + QCOW2_H_HEADER_LENGTH);
    if (p->header_length < QCOW2_H_V3_LENGTH) {
        return bad(p, -EINVAL, "qcow2 header too short: header_length is %" PRIu32 ", at least %d",
                   p->header_length, QCOW2_H_V3_LENGTH);
    }
    if (p->header_length > s->cluster_size) {
        return bad(p, -EINVAL,
                   "qcow2 header exceeds cluster size: header_length is %" PRIu32
                   ", clusters have %" PRIu32,
                   p->header_length, s->cluster_size);
    }
    if (p->header_length % 8) {
        return bad(p, -EINVAL, "header_length is %" PRIu32 ", which is no multiple of 8",
                   p->header_length);
    }
    s->incompatible = load_be64(h + QCOW2_H_INCOMPATIBLE);
    s->compatible = load_be64(h + QCOW2_H_COMPATIBLE);
    s->autoclear = load_be64(h + QCOW2_H_AUTOCLEAR);
    s->refcount_order = load_be32(h + QCOW2_H_REFCOUNT_ORDER);
    if (s->refcount_order > 6) {
        return bad(p, -EINVAL,
                   "Reference count entry width too large; may not exceed 64 bits "
                   "(refcount_order is %u)",
                   s->refcount_order);
    }
    if (p->header_length > QCOW2_H_V3_FULL_LENGTH) {
        s->unknown_header_size = p->header_length - QCOW2_H_V3_FULL_LENGTH;
        s->unknown_header = xmemdup(h + QCOW2_H_V3_FULL_LENGTH, s->unknown_header_size);
    }
    return 0;
}

static int parse_compression(struct parse *p, const uint8_t *h)
{
    struct qcow2_state *s = p->s;
    unsigned type = p->header_length > QCOW2_H_COMPRESSION ? h[QCOW2_H_COMPRESSION] : 0;

    if (!(s->incompatible & QCOW2_INCOMPAT_COMPRESSION)) {
        if (type != QCOW2_COMPRESSION_ZLIB) {
            return bad(p, -EINVAL,
                       "Compression type incompatible feature bit must be set for compression "
                       "type %u",
                       type);
        }
    } else if (type == QCOW2_COMPRESSION_ZLIB) {
        return bad(p, -EINVAL,
                   "Compression type incompatible feature bit must not be set for "
                   "zlib");
    } else if (type != QCOW2_COMPRESSION_ZSTD) {
        return bad(p, -ENOTSUP,
                   "Unknown compression type: %u; this build has 0 (zlib) and 1 (zstd)", type);
    }
    s->compression = type;
    return 0;
}

/* What follows from the fields. */
static void set_geometry(struct qcow2_state *s)
{
    s->extended_l2 = s->incompatible & QCOW2_INCOMPAT_EXTL2;
    s->l2_entry_size = s->extended_l2 ? 16 : 8;
    s->l2_bits = s->cluster_bits - (s->extended_l2 ? 4 : 3);
    s->subclusters = s->extended_l2 ? QCOW2_SUBCLUSTERS : 1;
    s->subcluster_size = s->cluster_size / s->subclusters;
    s->refblock_bits = s->cluster_bits + 3 - s->refcount_order;
    s->max_refcount =
        s->refcount_order == 6 ? UINT64_MAX : (UINT64_C(1) << (1u << s->refcount_order)) - 1;
    s->compressed_shift = 62 - (s->cluster_bits - 8);
    s->compressed_sectors_mask = (UINT64_C(1) << (s->cluster_bits - 8)) - 1;
    s->compressed_offset_mask = (UINT64_C(1) << s->compressed_shift) - 1;
}

/* A table of `entries` entries at `offset`: aligned, not too long, no wrap. */
static int check_table(struct parse *p, const char *name, uint64_t offset, uint64_t entries,
                       uint32_t entry_size, uint64_t max_bytes)
{
    if (entries > max_bytes / entry_size) {
        return bad(p, -EFBIG, "%s too large: %" PRIu64 " entries, at most %" PRIu64, name, entries,
                   max_bytes / entry_size);
    }
    if (offset % p->s->cluster_size || !range_fits(offset, entries * entry_size, INT64_MAX)) {
        return bad(p, -EINVAL, "%s offset invalid: 0x%" PRIx64, name, offset);
    }
    return 0;
}

static int parse_tables(struct parse *p, const uint8_t *h)
{
    struct qcow2_state *s = p->s;
    uint64_t reftable_clusters = load_be32(h + QCOW2_H_REFTABLE_CLUSTERS);
    uint64_t span = UINT64_C(1) << (s->cluster_bits + s->l2_bits); /* bytes of an L1 entry */
    int ret;

    s->reftable_offset = load_be64(h + QCOW2_H_REFTABLE_OFFSET);
    s->l1_offset = load_be64(h + QCOW2_H_L1_OFFSET);
    s->l1_size = load_be32(h + QCOW2_H_L1_SIZE);
    s->snapshots_offset = load_be64(h + QCOW2_H_SNAPSHOTS_OFFSET);
    s->snapshot_count = load_be32(h + QCOW2_H_NB_SNAPSHOTS);
    s->size = load_be64(h + QCOW2_H_SIZE);

    if (!reftable_clusters && !(p->node->flags & BLOCK_OPEN_CHECK)) {
        return bad(p, -EINVAL, "Image does not contain a reference count table");
    }
    ret = check_table(p, "Reference count table", s->reftable_offset,
                      reftable_clusters << (s->cluster_bits - 3), 8, QCOW2_MAX_REFTABLE_BYTES);
    if (ret < 0) {
        return ret;
    }
    s->reftable_size = (uint32_t)(reftable_clusters << (s->cluster_bits - 3));
    if (s->snapshot_count > QCOW2_MAX_SNAPSHOTS && !(p->node->flags & BLOCK_OPEN_CHECK)) {
        return bad(p, -EFBIG, "Snapshot table too large: %u snapshots, at most %u",
                   s->snapshot_count, QCOW2_MAX_SNAPSHOTS);
    }
    if (!(p->node->flags & BLOCK_OPEN_CHECK)) {
        ret = check_table(p, "Snapshot table", s->snapshots_offset, s->snapshot_count, 40,
                          QCOW2_MAX_SNAPSHOT_BYTES);
        if (ret < 0) {
            return ret;
        }
    }
    ret = check_table(p, "Active L1 table", s->l1_offset, s->l1_size, 8, QCOW2_MAX_L1_BYTES);
    if (ret < 0) {
        return ret;
    }
    if (s->size > INT64_MAX - s->cluster_size) {
        return bad(p, -EFBIG, "Image is too big: size is %" PRIu64, s->size);
    }
    uint64_t needed = s->size / span + (s->size % span != 0);
    if (needed > s->l1_size) {
        return bad(p, -EINVAL,
                   "L1 table is too small: %" PRIu32 " entries, %" PRIu64 " bytes need %" PRIu64,
                   s->l1_size, s->size, needed);
    }
    return 0;
}

/* ---- features -------------------------------------------------------------------------------- */

/* "name, name, bit 9": of bits that we do not know. */
static char *unknown_features(const struct parse *p, uint64_t bits)
{
    char *text = xstrdup("");

    for (unsigned bit = 0; bit < 64; bit++) {
        if (!(bits & BIT64(bit))) {
            continue;
        }
        autofree char *name = NULL;
        for (uint32_t i = 0; i < p->feature_count && !name; i++) {
            const uint8_t *entry = p->feature_names + (size_t)i * FEATURE_ENTRY;
            if (entry[0] == 0 && entry[1] == bit) {
                name = xstrndup((const char *)entry + 2, FEATURE_NAME);
            }
        }
        for (char *c = name; c && *c; c++) {
            if ((unsigned char)*c < ' ' || *c == 0x7f) {
                *c = '?';
            }
        }
        char *longer = name && *name ? xasprintf("%s%s%s", text, *text ? ", " : "", name)
                                     : xasprintf("%s%sUnknown incompatible feature: %" PRIx64, text,
                                                 *text ? ", " : "", BIT64(bit));
        free(text);
        text = longer;
    }
    return text;
}

static int check_features(struct parse *p)
{
    struct qcow2_state *s = p->s;
    uint64_t unknown = s->incompatible & ~QCOW2_INCOMPAT_KNOWN;

    if (unknown) {
        autofree char *names = unknown_features(p, unknown);
        return bad(p, -ENOTSUP, "Unsupported qcow2 feature(s): %s", names);
    }
    if (s->incompatible & QCOW2_INCOMPAT_CORRUPT && p->node->flags & BLOCK_OPEN_RDWR &&
        !(p->node->flags & BLOCK_OPEN_CHECK)) {
        bad(p, -EACCES, "qcow2: Image is corrupt; cannot be opened read/write");
        error_add_hint(p->errp, "Repair it by 'ferry-img check -r all', or open it with "
                                "read-only=on.");
        return -EACCES;
    }
    if (s->extended_l2 && s->cluster_bits < 14) {
        return bad(p, -EINVAL,
                   "Unsupported cluster size %" PRIu32 " with extended L2 entries: at "
                   "least 16384",
                   s->cluster_size);
    }
    return 0;
}

/* ---- extensions ------------------------------------------------------------------------------ */

static int parse_bitmaps(struct parse *p, const uint8_t *data, uint32_t length)
{
    struct qcow2_state *s = p->s;

    if (!(s->autoclear & QCOW2_AUTOCLEAR_BITMAPS)) {
        return 0; /* somebody wrote who does not know bitmaps: they mean nothing any more */
    }
    if (length != BITMAPS_LENGTH) {
        return bad(p, -EINVAL, "bitmaps_ext: Invalid extension length: %" PRIu32, length);
    }
    uint32_t count = load_be32(data);
    uint64_t size = load_be64(data + 8), offset = load_be64(data + 16);
    if (load_be32(data + 4)) {
        return bad(p, -EINVAL, "bitmaps_ext: Reserved field is not zero");
    }
    if (!count || count > QCOW2_MAX_BITMAPS) {
        return bad(p, -EINVAL, "bitmaps_ext: image has %" PRIu32 " bitmaps, which must be 1 to %u",
                   count, QCOW2_MAX_BITMAPS);
    }
    if (size > QCOW2_MAX_BITMAP_DIR_BYTES || !size) {
        return bad(p, -EINVAL,
                   "bitmaps_ext: bitmap directory size (%" PRIu64 ") must be 1 to %" PRIu64, size,
                   QCOW2_MAX_BITMAP_DIR_BYTES);
    }
    if (!offset || offset % s->cluster_size || !range_fits(offset, size, INT64_MAX)) {
        return bad(p, -EINVAL, "bitmaps_ext: invalid bitmap directory offset 0x%" PRIx64, offset);
    }
    s->bitmap_count = count;
    s->bitmap_dir_size = size;
    s->bitmap_dir_offset = offset;
    return 0;
}

/* A text of at most max bytes without a zero in it. */
static int parse_text(struct parse *p, const char *what, const uint8_t *data, uint32_t length,
                      uint32_t max, char **text)
{
    if (length > max) {
        return bad(p, -EINVAL, "%s too long: %" PRIu32 " bytes, at most %" PRIu32, what, length,
                   max);
    }
    free(*text);
    *text = xstrndup((const char *)data, length);
    return 0;
}

static int keep_extension(struct parse *p, uint32_t type, const uint8_t *data, uint32_t length)
{
    struct qcow2_extension **last = &p->s->extensions;
    unsigned count = 0;

    for (; *last; last = &(*last)->next) {
        if (++count == MAX_EXTENSIONS) {
            return bad(p, -EINVAL, "More than %u header extensions", MAX_EXTENSIONS);
        }
    }
    *last = xnew(struct qcow2_extension);
    **last = (struct qcow2_extension){.type = type, .length = length};
    (*last)->data = length ? xmemdup(data, length) : NULL;
    return 0;
}

static int parse_extension(struct parse *p, uint32_t type, const uint8_t *data, uint32_t length)
{
    struct qcow2_state *s = p->s;

    switch (type) {
    case QCOW2_EXT_BACKING_FORMAT:
        return parse_text(p, "Backing format name", data, length, MAX_FORMAT_NAME,
                          &s->backing_format);
    case QCOW2_EXT_DATA_FILE:
        return parse_text(p, "Data file name", data, length, MAX_DATA_FILENAME, &s->data_file_name);
    case QCOW2_EXT_FEATURE_NAMES:
        p->feature_names = data;
        p->feature_count = length / FEATURE_ENTRY;
        return 0;
    case QCOW2_EXT_BITMAPS:
        if (p->has_bitmaps) {
            return bad(p, -EINVAL, "bitmaps_ext: there are two of them");
        }
        p->has_bitmaps = true;
        return parse_bitmaps(p, data, length);
    case QCOW2_EXT_CRYPTO:
        return bad(p, -ENOTSUP, "Encrypted images (LUKS) are not supported");
    default:
        return keep_extension(p, type, data, length);
    }
}

static int parse_extensions(struct parse *p)
{
    uint32_t end = p->backing_offset ? (uint32_t)p->backing_offset : p->size;
    uint32_t at = p->header_length;

    while (range_fits(at, 8, end)) {
        uint32_t type = load_be32(p->cluster + at), length = load_be32(p->cluster + at + 4);
        at += 8;
        bool fits = range_fits(at, length, end);
        if (type == QCOW2_EXT_END && (fits || p->node->flags & BLOCK_OPEN_CHECK)) {
            p->s->odd_extension_end = !fits;
            break;
        }
        if (!fits) {
            return bad(p, -EINVAL,
                       "Header extension too large: type 0x%" PRIx32 " has %" PRIu32 " bytes", type,
                       length);
        }
        int ret = parse_extension(p, type, p->cluster + at, length);
        if (ret < 0) {
            return ret;
        }
        at += (uint32_t)MIN(align_up(length, 8), end - at);
    }
    return 0;
}

static int parse_backing(struct parse *p)
{
    if (!p->backing_offset) {
        return 0;
    }
    if (p->backing_size > MIN(QCOW2_MAX_BACKING_NAME, p->size - p->backing_offset)) {
        return bad(p, -EINVAL, "Backing file name too long: %" PRIu32 " bytes", p->backing_size);
    }
    if (p->backing_size) {
        p->s->backing_name =
            xstrndup((const char *)p->cluster + p->backing_offset, p->backing_size);
    }
    return 0;
}

/* ---- all ------------------------------------------------------------------------------------- */

static int parse_cluster(struct parse *p)
{
    const uint8_t *h = p->cluster;
    uint32_t crypt = load_be32(h + QCOW2_H_CRYPT_METHOD);
    struct qcow2_state *s = p->s;
    int ret = parse_v3_fields(p, h);

    if (ret < 0) {
        return ret;
    }
    set_geometry(s);
    p->backing_offset = load_be64(h + QCOW2_H_BACKING_OFFSET);
    p->backing_size = load_be32(h + QCOW2_H_BACKING_SIZE);
    if (p->backing_offset > s->cluster_size ||
        (p->backing_offset && p->backing_offset < p->header_length)) {
        return bad(p, -EINVAL, "Invalid backing file offset: %" PRIu64, p->backing_offset);
    }
    ret = parse_extensions(p);
    if (ret == 0) {
        ret = check_features(p);
    }
    if (ret == 0) {
        ret = parse_compression(p, h);
    }
    if (ret == 0 && crypt) {
        ret = bad(p, -ENOTSUP,
                  crypt <= 2 ? "Encrypted images are not supported (crypt_method is %" PRIu32 ")"
                             : "Unsupported encryption method: %" PRIu32,
                  crypt);
    }
    if (ret == 0) {
        ret = parse_tables(p, h);
    }
    return ret == 0 ? parse_backing(p) : ret;
}

static void set_feature_state(struct qcow2_state *s)
{
    s->has_data_file = s->incompatible & QCOW2_INCOMPAT_DATA_FILE;
    s->data_file_raw = s->has_data_file && s->autoclear & QCOW2_AUTOCLEAR_DATA_RAW;
    s->lazy_refcounts = s->compatible & QCOW2_COMPAT_LAZY;
    s->corrupt = s->incompatible & QCOW2_INCOMPAT_CORRUPT;
    s->dirty_bit = s->incompatible & QCOW2_INCOMPAT_DIRTY;
}

static int co_read_first(struct parse *p, uint32_t size, uint8_t **to)
{
    *to = xcalloc(1, size);
    int ret = co_qcow2_pread(p->node, 0, *to, size);
    if (ret < 0) {
        error_set_errno(p->errp, -ret, "Could not read qcow2 header of '%s'", p->node->filename);
    }
    return ret;
}

int co_qcow2_read_header(struct block_node *node, struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);
    struct parse p = {.node = node, .s = s, .errp = errp};
    autofree uint8_t *start = NULL, *cluster = NULL;

    if (block_length(node->file) < QCOW2_H_V2_LENGTH) {
        return bad(&p, -EINVAL, "Image is not in qcow2 format: it has %" PRIu64 " bytes",
                   block_length(node->file));
    }
    int ret = co_read_first(&p, BIT(QCOW2_MIN_CLUSTER_BITS), &start);
    if (ret == 0) {
        ret = parse_start(&p, start);
    }
    if (ret == 0) {
        ret = co_read_first(&p, s->cluster_size, &cluster);
    }
    if (ret == 0) {
        p.cluster = cluster;
        p.size = s->cluster_size;
        ret = parse_cluster(&p);
    }
    if (ret == 0) {
        s->header_length = p.header_length;
        set_feature_state(s);
        if (s->autoclear & QCOW2_AUTOCLEAR_DATA_RAW && !s->has_data_file &&
            !(node->flags & BLOCK_OPEN_CHECK)) {
            ret = bad(&p, -EINVAL, "data-file-raw requires a data file");
            error_add_hint(errp, "ferry-img check -r all clears that flag");
        }
    }
    return ret;
}

void qcow2_free_header(struct qcow2_state *s)
{
    while (s->extensions) {
        struct qcow2_extension *next = s->extensions->next;
        free(s->extensions->data);
        free(s->extensions);
        s->extensions = next;
    }
    free(s->unknown_header);
    free(s->backing_name);
    free(s->backing_format);
    free(s->data_file_name);
    s->unknown_header = s->backing_name = s->backing_format = s->data_file_name = NULL;
    s->unknown_header_size = 0;
}
