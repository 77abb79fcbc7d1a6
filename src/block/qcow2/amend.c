/* SPDX-License-Identifier: MIT */
/* See amend.h. Messages as qemu-img's. */
#include "block/qcow2/amend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/options.h"
#include "block/qcow2/create.h"
#include "block/qcow2/rebuild.h"
#include "block/qcow2/resize.h"

struct amend {
    struct block_node *node;
    /* what shall be */
    unsigned version, refcount_order;
    bool lazy_refcounts, data_file_raw;
    uint64_t size;
    char *data_file; /* NULL: as it is */
    block_progress_fn *progress;
    void *opaque;
    struct error **errp;
};

/* ---- options --------------------------------------------------------------------------------- */

static bool parse_compat(struct options *opts, unsigned *version, struct error **errp)
{
    autofree char *text = options_take(opts, "compat");

    if (!text) {
        return true;
    }
    if (!strcmp(text, "0.10") || !strcmp(text, "v2")) {
        *version = 2;
    } else if (!strcmp(text, "1.1") || !strcmp(text, "v3")) {
        *version = 3;
    } else {
        error_set(errp, "Unknown compatibility level %s", text);
        return false;
    }
    return true;
}

/* Other backing files are rebase's. */
static bool check_backing(struct options *opts, const struct qcow2_state *s, struct error **errp)
{
    autofree char *file = options_take(opts, "backing_file");
    autofree char *format = options_take(opts, "backing_fmt");

    if ((file && strcmp(file, s->backing_name ? s->backing_name : "")) ||
        (format && strcmp(format, s->backing_format ? s->backing_format : ""))) {
        error_set(errp, "Cannot amend the backing file");
        error_add_hint(errp, "You can use 'rebase' instead.");
        return false;
    }
    return true;
}

static bool parse_data_file(struct amend *a, struct options *opts, struct error **errp)
{
    const struct qcow2_state *s = qcow2_of(a->node);

    autofree char *name = options_take(opts, "data_file"); /* "": none from now on */
    if (name) {
        a->data_file = *name ? qcow2_data_file_name(name, errp) : xstrdup("");
        if (!a->data_file) {
            return false;
        }
    }
    if (a->data_file && !s->has_data_file) {
        error_set(errp, "data-file can only be set for images that use an external data file");
        return false;
    }
    if (!options_get_bool(opts, "data_file_raw", &a->data_file_raw, errp)) {
        return false;
    }
    if (a->data_file_raw && !(s->autoclear & QCOW2_AUTOCLEAR_DATA_RAW)) {
        error_set(errp, "data-file-raw cannot be set on existing images");
        return false;
    }
    return true;
}

/* What goes together, of what shall be. */
static bool check_version(const struct amend *a, struct error **errp)
{
    const struct qcow2_state *s = qcow2_of(a->node);

    if (a->version >= 3) {
        return true;
    }
    if (a->refcount_order != 4) {
        if (a->version == s->version || a->refcount_order != s->refcount_order) {
            error_set(errp, "Refcount widths other than 16 bits require compatibility level 1.1 or "
                            "above (use compat=1.1 or greater)");
        } else {
            error_set(errp, "compat=0.10 requires refcount_bits=16");
        }
        return false;
    }
    return true;
}

static bool parse(struct amend *a, struct options *opts, struct error **errp)
{
    const struct qcow2_state *s = qcow2_of(a->node);
    bool says_lazy = options_has(opts, "lazy_refcounts");

    if (!parse_compat(opts, &a->version, errp) || !check_backing(opts, s, errp) ||
        !parse_data_file(a, opts, errp) ||
        !qcow2_parse_refcount_bits(opts, &a->refcount_order, errp) ||
        !options_get_bool(opts, "lazy_refcounts", &a->lazy_refcounts, errp) ||
        !options_get_size(opts, "size", 1, &a->size, errp) || !check_version(a, errp)) {
        return false;
    }
    if (a->version < 3 && a->lazy_refcounts) {
        if (says_lazy) {
            error_set(errp, "Lazy refcounts only supported with compatibility level 1.1 and above "
                            "(use compat=1.1 or greater)");
            return false;
        }
        a->lazy_refcounts = false;
    }
    return options_check_used(opts, "amend", errp);
}

/* ---- steps ----------------------------------------------------------------------------------- */

int co_qcow2_amend_header(struct block_node *node, struct error **errp)
{
    int ret = co_qcow2_write_header(node, NULL);

    if (ret < 0) {
        atomic_store(&qcow2_of(node)->corrupt, true);
        error_set_errno(errp, -ret, "Could not write the header of '%s'", node->filename);
    }
    return ret;
}

static int co_set_refcount_order(struct amend *a)
{
    struct qcow2_plan plan;

    qcow2_plan_init(&plan, a->node);
    plan.refcount_order = a->refcount_order;
    plan.progress = a->progress;
    plan.opaque = a->opaque;
    int ret = co_qcow2_rebuild(&plan, a->errp);
    qcow2_plan_free(&plan);
    return ret;
}

static void swap_names(char **a, char **b)
{
    char *c = *a;

    *a = *b;
    *b = c;
}

/* Flags and the data file's name: one header. */
static int co_set_features(struct amend *a)
{
    struct qcow2_state *s = qcow2_of(a->node);
    uint64_t compatible = s->compatible & ~QCOW2_COMPAT_LAZY, autoclear = s->autoclear;

    compatible |= a->lazy_refcounts ? QCOW2_COMPAT_LAZY : 0;
    if (!a->data_file_raw) {
        autoclear &= ~QCOW2_AUTOCLEAR_DATA_RAW;
    }
    if (compatible == s->compatible && autoclear == s->autoclear && !a->data_file) {
        return 0;
    }
    if (a->data_file) {
        swap_names(&s->data_file_name, &a->data_file);
    }
    autofree void *cluster = xmalloc(s->cluster_size);
    if (qcow2_encode_header(s, cluster) < 0) {
        swap_names(&s->data_file_name, &a->data_file);
        error_set(a->errp, "The name of the data file does not fit into the header of '%s'",
                  a->node->filename);
        return -ENOSPC;
    }
    s->compatible = compatible;
    s->autoclear = autoclear;
    s->lazy_refcounts = a->lazy_refcounts;
    s->data_file_raw = a->data_file_raw;
    return co_qcow2_amend_header(a->node, a->errp);
}

static int co_amend(void *opaque)
{
    struct amend *a = opaque;
    struct qcow2_state *s = qcow2_of(a->node);
    int ret = co_qcow2_mark_clean(a->node);

    if (ret < 0) {
        error_set_errno(a->errp, -ret, "Could not write metadata of '%s'", a->node->filename);
        return ret;
    }
    if (a->version > s->version) {
        ret = co_qcow2_upgrade(a->node, a->errp);
    }
    if (ret == 0 && a->refcount_order != s->refcount_order) {
        ret = co_set_refcount_order(a);
    }
    if (ret == 0 && s->version >= 3) {
        ret = co_set_features(a);
    }
    if (ret == 0 && a->size != s->size) {
        ret = block_co_truncate(a->node, a->size, BLOCK_PREALLOC_OFF, a->errp);
    }
    if (ret == 0 && a->version < s->version) {
        ret = co_qcow2_downgrade(a->node, a->progress, a->opaque, a->errp);
    }
    if (ret == 0 && a->progress) {
        a->progress(a->opaque, 1, 1);
    }
    return ret;
}

static bool check_writable(struct block_node *node, struct error **errp)
{
    if (qcow2_of(node)->corrupt) {
        error_set(errp, "'%s' is corrupt; repair it with 'check -r all'", node->filename);
        return false;
    }
    return true;
}

bool qcow2_amend(struct block_node *node, struct options *opts, bool force,
                 block_progress_fn *progress, void *opaque, struct error **errp)
{
    const struct qcow2_state *s = qcow2_of(node);
    struct error *err = NULL;
    struct amend a = {
        .node = node,
        .version = s->version,
        .refcount_order = s->refcount_order,
        .lazy_refcounts = s->compatible & QCOW2_COMPAT_LAZY,
        .data_file_raw = s->autoclear & QCOW2_AUTOCLEAR_DATA_RAW,
        .size = s->size,
        .progress = progress,
        .opaque = opaque,
        .errp = &err,
    };

    bool ok = check_writable(node, &err) && parse(&a, opts, &err) && block_run(co_amend, &a) == 0;
    free(a.data_file);
    error_propagate(errp, err);
    return ok;
}

/* ---- backing file ---------------------------------------------------------------------------- */

struct names {
    struct block_node *node;
    char *name, *format;
    struct error **errp;
};

static int co_set_names(void *opaque)
{
    struct names *n = opaque;
    struct qcow2_state *s = qcow2_of(n->node);

    swap_names(&s->backing_name, &n->name);
    swap_names(&s->backing_format, &n->format);
    autofree void *cluster = xmalloc(s->cluster_size);
    if (qcow2_encode_header(s, cluster) < 0) {
        swap_names(&s->backing_name, &n->name);
        swap_names(&s->backing_format, &n->format);
        error_set(n->errp, "The name of the backing file does not fit into the header of '%s'",
                  n->node->filename);
        return -ENOSPC;
    }
    return co_qcow2_amend_header(n->node, n->errp);
}

bool qcow2_change_backing(struct block_node *node, const char *name, const char *format,
                          struct error **errp)
{
    const struct qcow2_state *s = qcow2_of(node);

    if (!check_writable(node, errp)) {
        return false;
    }
    if (name && strlen(name) > QCOW2_MAX_BACKING_NAME) {
        error_set(errp, "Backing file name is too long: %zu bytes, at most %u", strlen(name),
                  QCOW2_MAX_BACKING_NAME);
        return false;
    }
    if (name && *name && s->autoclear & QCOW2_AUTOCLEAR_DATA_RAW) {
        error_set(errp, "Cannot set a backing file for images with data-file-raw");
        return false;
    }
    bool any = name && *name;
    struct names names = {
        .node = node,
        .name = any ? xstrdup(name) : NULL,
        .format = any && format && *format ? xstrdup(format) : NULL,
        .errp = errp,
    };
    int ret = block_run(co_set_names, &names);
    free(names.name);
    free(names.format);
    return ret == 0;
}

/* ---- all data dropped ------------------------------------------------------------------------ */

struct emptying {
    struct block_node *node;
    struct error **errp;
};

static bool has_many_refblocks(const struct qcow2_state *s)
{
    unsigned count = 0;

    for (uint32_t i = 0; i < s->reftable_size && count < 2; i++) {
        count += s->reftable[i] != 0;
    }
    return count > 1;
}

/* Entry by entry: a crash leaves some of them. Refcount blocks that lie where the data was keep the
 * file long, so they are made anew. */
static int co_make_empty(void *opaque)
{
    struct emptying *e = opaque;
    struct qcow2_plan plan;

    int ret = co_qcow2_drop_from(e->node, 0);
    if (ret == 0) {
        ret = co_qcow2_mark_clean(e->node);
    }
    if (ret < 0) {
        error_set_errno(e->errp, -ret, "Could not empty '%s'", e->node->filename);
        return ret;
    }
    if (has_many_refblocks(qcow2_of(e->node))) {
        qcow2_plan_init(&plan, e->node);
        ret = co_qcow2_rebuild(&plan, e->errp);
        qcow2_plan_free(&plan);
    }
    if (ret == 0) {
        co_qcow2_cut_file(e->node);
    }
    return ret;
}

bool qcow2_make_empty(struct block_node *node, struct error **errp)
{
    struct emptying emptying = {.node = node, .errp = errp};

    return check_writable(node, errp) && block_run(co_make_empty, &emptying) == 0;
}
