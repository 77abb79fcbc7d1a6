/* SPDX-License-Identifier: MIT */
/* Options of an open image, by QEMU's names: caches, refcounts, discards, overlap checks. */
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/options.h"
#include "block/qcow2/qcow2.h"

#define DEFAULT_L2_CACHE (32 * MiB)
#define MIN_REFCOUNTS    4u /* slices */
#define MAX_CACHE        (UINT64_C(1) << 40)
#define DEFAULT_CLEAN    600 /* seconds */
#define COMMIT_CLUSTERS  64u

/* ---- caches ---------------------------------------------------------------------------------- */

struct sizes {
    uint64_t l2, refcount; /* bytes */
    uint64_t entry;        /* an L2 slice */
};

/* All of the L2 tables that the image can have. */
static uint64_t full_l2(const struct qcow2_state *s)
{
    uint64_t clusters = s->size / s->cluster_size + 1;

    return align_up(clusters * s->l2_entry_size, s->cluster_size);
}

static bool get_size(struct options *opts, const char *key, uint64_t *size, bool *given,
                     struct error **errp)
{
    *given = options_has(opts, key);
    if (!options_get_size(opts, key, 1, size, errp)) {
        return false;
    }
    if (*size > MAX_CACHE) {
        error_set(errp, "%s=%" PRIu64 " is too big: at most %" PRIu64, key, *size, MAX_CACHE);
        return false;
    }
    return true;
}

static bool parse_cache_sizes(const struct qcow2_state *s, struct options *opts, struct sizes *z,
                              struct error **errp)
{
    bool has_all, has_l2, has_refcount, has_entry;
    uint64_t all = 0, min_refcount = (uint64_t)MIN_REFCOUNTS * s->cluster_size;

    *z = (struct sizes){.entry = MIN(QCOW2_SLICE, s->cluster_size)};
    if (!get_size(opts, "cache-size", &all, &has_all, errp) ||
        !get_size(opts, "l2-cache-size", &z->l2, &has_l2, errp) ||
        !get_size(opts, "refcount-cache-size", &z->refcount, &has_refcount, errp) ||
        !get_size(opts, "l2-cache-entry-size", &z->entry, &has_entry, errp)) {
        return false;
    }
    if (has_all && has_l2 && has_refcount) {
        error_set(errp, "cache-size, l2-cache-size and refcount-cache-size may not be set at the "
                        "same time");
        return false;
    }
    if (has_all && (z->l2 > all || z->refcount > all)) {
        error_set(errp, "%s may not exceed cache-size",
                  z->l2 > all ? "l2-cache-size" : "refcount-cache-size");
        return false;
    }
    if (!is_power_of_2(z->entry) || z->entry < 512 || z->entry > s->cluster_size) {
        error_set(errp,
                  "L2 cache entry size must be a power of two between 512 and the cluster size "
                  "(%" PRIu32 "), not %" PRIu64,
                  s->cluster_size, z->entry);
        return false;
    }
    if (has_all && has_l2) {
        z->refcount = all - z->l2;
    } else if (has_all && has_refcount) {
        z->l2 = all - z->refcount;
    } else if (has_all) {
        z->l2 = MIN(full_l2(s), all > min_refcount ? all - min_refcount : all / 2);
        z->refcount = all - z->l2;
    } else {
        z->l2 = has_l2 ? z->l2 : MIN(DEFAULT_L2_CACHE, full_l2(s));
        z->refcount = has_refcount ? z->refcount : MAX(min_refcount, MiB);
    }
    return true;
}

/* ---- overlap checks -------------------------------------------------------------------------- */

#define OVERLAP_CONSTANT                                                                           \
    (QCOW2_OVERLAP_HEADER | QCOW2_OVERLAP_L1 | QCOW2_OVERLAP_REFTABLE | QCOW2_OVERLAP_SNAPSHOTS |  \
     QCOW2_OVERLAP_BITMAPS)
#define OVERLAP_CACHED                                                                             \
    (OVERLAP_CONSTANT | QCOW2_OVERLAP_L2 | QCOW2_OVERLAP_REFBLOCK | QCOW2_OVERLAP_INACT_L1)
#define OVERLAP_ALL (OVERLAP_CACHED | QCOW2_OVERLAP_INACT_L2)

static bool parse_template(struct options *opts, const char *key, unsigned *checks, bool *given,
                           struct error **errp)
{
    static const char *const names[] = {"none", "constant", "cached", "all", NULL};
    static const unsigned values[] = {0, OVERLAP_CONSTANT, OVERLAP_CACHED, OVERLAP_ALL};
    int index = 2;

    *given = options_has(opts, key);
    if (!options_get_enum(opts, key, names, &index, errp)) {
        return false;
    }
    if (*given) {
        *checks = values[index];
    }
    return true;
}

static bool parse_overlap(struct qcow2_state *s, struct options *opts, struct error **errp)
{
    static const struct {
        const char *key;
        unsigned check;
    } keys[] = {
        {"overlap-check.main-header", QCOW2_OVERLAP_HEADER},
        {"overlap-check.active-l1", QCOW2_OVERLAP_L1},
        {"overlap-check.active-l2", QCOW2_OVERLAP_L2},
        {"overlap-check.refcount-table", QCOW2_OVERLAP_REFTABLE},
        {"overlap-check.refcount-block", QCOW2_OVERLAP_REFBLOCK},
        {"overlap-check.snapshot-table", QCOW2_OVERLAP_SNAPSHOTS},
        {"overlap-check.inactive-l1", QCOW2_OVERLAP_INACT_L1},
        {"overlap-check.inactive-l2", QCOW2_OVERLAP_INACT_L2},
        {"overlap-check.bitmap-directory", QCOW2_OVERLAP_BITMAPS},
    };
    unsigned checks = OVERLAP_CACHED;
    bool has_text, has_template;

    if (!parse_template(opts, "overlap-check", &checks, &has_text, errp) ||
        !parse_template(opts, "overlap-check.template", &checks, &has_template, errp)) {
        return false;
    }
    if (has_text && has_template) {
        error_set(errp, "Conflicting values for qcow2 options 'overlap-check' and "
                        "'overlap-check.template'");
        return false;
    }
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        bool on = checks & keys[i].check;
        if (!options_get_bool(opts, keys[i].key, &on, errp)) {
            return false;
        }
        checks = on ? checks | keys[i].check : checks & ~keys[i].check;
    }
    s->overlap_checks = checks;
    return true;
}

/* ---- all ------------------------------------------------------------------------------------- */

static bool refuse_encryption(struct options *opts, struct error **errp)
{
    struct options *encrypt = options_take_prefix(opts, "encrypt");
    bool ok = !options_count(encrypt);

    if (!ok) {
        error_set(errp, "encrypt.%s: encrypted images are not supported", options_key(encrypt, 0));
    }
    options_free(encrypt);
    return ok;
}

bool qcow2_parse_options(struct block_node *node, struct options *opts, struct error **errp)
{
    struct qcow2_state *s = qcow2_of(node);
    struct sizes z;
    uint64_t clean = DEFAULT_CLEAN;
    bool lazy = s->lazy_refcounts, no_unref = false;

    s->discard_request = node->flags & BLOCK_OPEN_UNMAP;
    s->has_discard_request = options_has(opts, "pass-discard-request");
    s->discard_snapshot = true;
    if (!refuse_encryption(opts, errp) || !parse_cache_sizes(s, opts, &z, errp) ||
        !parse_overlap(s, opts, errp) || !options_get_bool(opts, "lazy-refcounts", &lazy, errp) ||
        !options_get_bool(opts, "pass-discard-request", &s->discard_request, errp) ||
        !options_get_bool(opts, "pass-discard-snapshot", &s->discard_snapshot, errp) ||
        !options_get_bool(opts, "pass-discard-other", &s->discard_other, errp) ||
        !options_get_bool(opts, "discard-no-unref", &no_unref, errp) ||
        !options_get_uint(opts, "cache-clean-interval", 0, UINT32_MAX, &clean, errp)) {
        return false;
    }
    if (no_unref) {
        error_set(errp, "discard-no-unref=on is not supported; discarded clusters become free");
        return false;
    }
    if (lazy && s->version < 3) {
        error_set(errp, "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility "
                        "level");
        return false;
    }
    s->lazy_refcounts = lazy;
    s->clean_interval = (uint32_t)clean;
    cache_init(&s->l2_cache, node, BLOCK_EVENT_L2_LOAD, (uint32_t)z.entry, z.l2);
    cache_init(&s->refcount_cache, node, BLOCK_EVENT_REFBLOCK_LOAD,
               MIN(QCOW2_SLICE, s->cluster_size), z.refcount);
    return true;
}
