/* SPDX-License-Identifier: MIT */
/* Options of new images, checked, with the messages of qemu-img. See create.h. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/options.h"
#include "block/qcow2/create.h"

#define DEFAULT_CLUSTER_SIZE  65536u
#define DEFAULT_REFCOUNT_BITS 16u
#define MIN_EXTL2_CLUSTER     16384u
#define USE_V3                " (use version=v3 or greater)"

/* In the order in which qemu-img tells them. */
const struct block_create_option qcow2_create_option_list[] = {
    {"cluster_size", BLOCK_OPTION_SIZE, "Size of clusters, 512 to 2M", "65536"},
    {"extended_l2", BLOCK_OPTION_BOOL, "L2 entries with subclusters", "off"},
    {"preallocation", BLOCK_OPTION_STRING, "What is allocated: off, metadata, falloc, full", NULL},
    {"compression_type", BLOCK_OPTION_STRING, "How clusters are compressed: zlib or zstd", "zlib"},
    {"size", BLOCK_OPTION_SIZE, "Size of the disk that the guest sees", NULL},
    {"compat", BLOCK_OPTION_STRING, "Version of the format: 0.10 (v2) or 1.1 (v3)", NULL},
    {"backing_file", BLOCK_OPTION_STRING, "File name of the image that shows below this one", NULL},
    {"backing_fmt", BLOCK_OPTION_STRING, "Format of the backing file", NULL},
    {"data_file", BLOCK_OPTION_STRING, "File name of a second file that holds the data", NULL},
    {"data_file_raw", BLOCK_OPTION_BOOL, "The data file is always a valid raw image", NULL},
    {"lazy_refcounts", BLOCK_OPTION_BOOL, "Refcounts are updated late", "off"},
    {"refcount_bits", BLOCK_OPTION_UINT, "Width of refcounts, 1 to 64 bits", "16"},
    {"nocow", BLOCK_OPTION_BOOL, "No copy-on-write of the host's file (btrfs)", .of_file = true},
    {"extent_size_hint", BLOCK_OPTION_SIZE,
     "How much the host allocates at once (XFS); 0: its choice", .of_file = true},
    {NULL},
};

/* ---- values ---------------------------------------------------------------------------------- */

/* what: the name that qemu-img's message has. */
static bool get_choice(struct options *opts, const char *key, const char *what,
                       const char *const *names, int *value, struct error **errp)
{
    autofree char *text = options_take(opts, key);

    if (!text) {
        return true;
    }
    for (int i = 0; names[i]; i++) {
        if (!strcmp(names[i], text)) {
            *value = i;
            return true;
        }
    }
    error_set(errp, "Parameter '%s' does not accept value '%s'", what, text);
    error_add_hint(errp, "It accepts:");
    for (int i = 0; names[i]; i++) {
        error_add_hint(errp, "  %s", names[i]);
    }
    return false;
}

static bool take_bool(struct options *opts, const char *key, bool *value, struct error **errp)
{
    bool ok = options_get_bool(opts, key, value, errp);

    options_unset(opts, key);
    return ok;
}

bool qcow2_parse_version(struct options *opts, unsigned *version, struct error **errp)
{
    static const char *const names[] = {"0.10", "v2", "1.1", "v3", NULL};
    int index = -1;

    if (!get_choice(opts, "compat", "version", names, &index, errp)) {
        return false;
    }
    if (index >= 0) {
        *version = index < 2 ? 2 : 3;
    }
    return true;
}

bool qcow2_parse_refcount_bits(struct options *opts, unsigned *order, struct error **errp)
{
    autofree char *text = options_take(opts, "refcount_bits");
    uint64_t bits;

    if (!text) {
        return true;
    }
    if (!parse_uint(text, &bits)) {
        error_set(errp, "Parameter 'refcount_bits' expects a number, not '%s'", text);
        return false;
    }
    if (!is_power_of_2(bits) || bits > 64) {
        error_set(errp, "Refcount width must be a power of two and may not exceed 64 bits");
        return false;
    }
    *order = (unsigned)__builtin_ctzll(bits);
    return true;
}

static bool parse_cluster_size(struct options *opts, unsigned *bits, struct error **errp)
{
    uint64_t size = DEFAULT_CLUSTER_SIZE;
    bool ok = options_get_size(opts, "cluster_size", 1, &size, errp);

    options_unset(opts, "cluster_size");
    if (!ok) {
        return false;
    }
    if (!is_power_of_2(size) || size < BIT(QCOW2_MIN_CLUSTER_BITS) ||
        size > BIT(QCOW2_MAX_CLUSTER_BITS)) {
        error_set(errp, "Cluster size must be a power of two between 512 and 2048k");
        return false;
    }
    *bits = (unsigned)__builtin_ctzll(size);
    return true;
}

static bool parse_size_option(struct options *opts, uint64_t *size, struct error **errp)
{
    bool ok = options_get_size(opts, "size", 1, size, errp);

    options_unset(opts, "size");
    if (!ok) {
        return false;
    }
    if (*size > INT64_MAX - 511) {
        error_set(errp, "Image size is too large: at most 9223372036854775296 bytes");
        return false;
    }
    *size = align_up(*size, 512);
    return true;
}

static bool refuse_encryption(struct options *opts, struct error **errp)
{
    bool encryption = false;

    if (!take_bool(opts, "encryption", &encryption, errp)) {
        return false;
    }
    struct options *encrypt = options_take_prefix(opts, "encrypt");
    const char *key = options_count(encrypt) ? options_key(encrypt, 0) : NULL;
    if (encryption) {
        error_set(errp, "Encrypted qcow2 images are not supported; leave out encryption=on");
    } else if (key) {
        error_set(errp, "Encrypted qcow2 images are not supported; leave out encrypt.%s", key);
    }
    options_free(encrypt);
    return !encryption && !key;
}

/* ---- what goes together ---------------------------------------------------------------------- */

static bool check_version(const struct qcow2_create_options *o, struct error **errp)
{
    if (o->version >= 3) {
        return true;
    }
    if (o->lazy_refcounts) {
        error_set(errp, "Lazy refcounts only supported with compatibility level 1.1 and "
                        "above" USE_V3);
    } else if (1u << o->refcount_order != DEFAULT_REFCOUNT_BITS) {
        error_set(errp, "Different refcount widths than 16 bits require compatibility level 1.1 "
                        "or above" USE_V3);
    } else if (o->data_file) {
        error_set(errp, "External data files are only supported with compatibility level 1.1 and "
                        "above" USE_V3);
    } else if (o->extended_l2) {
        error_set(errp, "Extended L2 entries are only supported with compatibility level 1.1 and "
                        "above" USE_V3);
    } else if (o->compression != QCOW2_COMPRESSION_ZLIB) {
        error_set(errp, "Non-zlib compression type is only supported with compatibility level 1.1 "
                        "and above" USE_V3);
    } else {
        return true;
    }
    return false;
}

static bool check_backing(const struct qcow2_create_options *o, struct error **errp)
{
    if (o->backing_format && !o->backing_file) {
        error_set(errp, "Backing format cannot be used without backing file");
        return false;
    }
    if (!o->backing_file) {
        return true;
    }
    if (strlen(o->backing_file) > QCOW2_MAX_BACKING_NAME) {
        error_set(errp, "Backing file name is too long: %zu bytes, at most %u",
                  strlen(o->backing_file), QCOW2_MAX_BACKING_NAME);
        return false;
    }
    if (o->data_file_raw) {
        error_set(errp, "Backing file and data-file-raw cannot be used at the same time");
        return false;
    }
    if (o->prealloc != BLOCK_PREALLOC_OFF && !o->extended_l2) {
        error_set(errp, "Backing file and preallocation can only be used at the same time if "
                        "extended_l2 is on");
        return false;
    }
    return true;
}

static bool check_options(const struct qcow2_create_options *o, struct error **errp)
{
    if (o->data_file_raw && !o->data_file) {
        error_set(errp, "data-file-raw requires data-file");
        return false;
    }
    if (!check_version(o, errp) || !check_backing(o, errp)) {
        return false;
    }
    if (o->extended_l2 && 1u << o->cluster_bits < MIN_EXTL2_CLUSTER) {
        error_set(errp,
                  "Extended L2 entries are only supported with cluster sizes of at least %u "
                  "bytes",
                  MIN_EXTL2_CLUSTER);
        return false;
    }
    return true;
}

/* ---- all ------------------------------------------------------------------------------------- */

/* An empty name is none. */
static char *take_name(struct options *opts, const char *key)
{
    char *name = options_take(opts, key);

    if (name && !*name) {
        free(name);
        return NULL;
    }
    return name;
}

char *qcow2_data_file_name(const char *name, struct error **errp)
{
    const char *plain = name + (strncmp(name, "file:", 5) ? 0 : 5);

    if (!*plain || plain[strcspn(plain, ":/")] == ':') {
        error_set(errp, "data_file='%s' is not the name of a file", name);
        return NULL;
    }
    return xstrdup(plain);
}

static bool take_data_file(struct options *opts, char **data_file, struct error **errp)
{
    autofree char *name = take_name(opts, "data_file");

    *data_file = name ? qcow2_data_file_name(name, errp) : NULL;
    return !name || *data_file;
}

bool qcow2_parse_create_options(struct options *opts, struct qcow2_create_options *o,
                                struct error **errp)
{
    static const char *const compressions[] = {"zlib", "zstd", NULL};
    int prealloc = BLOCK_PREALLOC_OFF, compression = QCOW2_COMPRESSION_ZLIB;
    bool nocow = false; /* the protocol's, as is the next */
    uint64_t extent_size;

    *o = (struct qcow2_create_options){.version = 3, .refcount_order = 4};
    o->backing_file = take_name(opts, "backing_file");
    o->backing_format = take_name(opts, "backing_fmt");
    if (!take_data_file(opts, &o->data_file, errp) || !refuse_encryption(opts, errp) ||
        !parse_size_option(opts, &o->size, errp) ||
        !parse_cluster_size(opts, &o->cluster_bits, errp) ||
        !qcow2_parse_version(opts, &o->version, errp) ||
        !qcow2_parse_refcount_bits(opts, &o->refcount_order, errp) ||
        !take_bool(opts, "extended_l2", &o->extended_l2, errp) ||
        !take_bool(opts, "lazy_refcounts", &o->lazy_refcounts, errp) ||
        !take_bool(opts, "data_file_raw", &o->data_file_raw, errp) ||
        !take_bool(opts, "nocow", &nocow, errp) ||
        !options_get_size(opts, "extent_size_hint", 1, &extent_size, errp) ||
        !get_choice(opts, "preallocation", "preallocation", block_prealloc_names, &prealloc,
                    errp) ||
        !get_choice(opts, "compression_type", "compression-type", compressions, &compression,
                    errp)) {
        return false;
    }
    o->prealloc = prealloc;
    o->compression = compression;
    if (!check_options(o, errp)) {
        return false;
    }
    if (o->data_file_raw && o->prealloc == BLOCK_PREALLOC_OFF) {
        /* Who reads the data file alone must find each byte at its place. */
        o->prealloc = BLOCK_PREALLOC_METADATA;
    }
    return true;
}

void qcow2_create_options_free(struct qcow2_create_options *o)
{
    free(o->backing_file);
    free(o->backing_format);
    free(o->data_file);
    *o = (struct qcow2_create_options){0};
}
