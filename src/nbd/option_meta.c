/* SPDX-License-Identifier: MIT */
/*
 * NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT: name of an export, number of queries, the
 * queries. Contexts are
 *
 *   base:allocation          holes and zeroes
 *   qemu:allocation-depth    how deep in the backing chain the data is
 *   qemu:dirty-bitmap:NAME   what was written since some time
 *
 * A list may ask for "base:", "qemu:" and "qemu:dirty-bitmap:", and without a query for all.
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"
#include "block/bitmap.h"
#include "nbd/connection.h"

#define DIRTY_BITMAP "qemu:dirty-bitmap:"
#define QUERIES_MAX  4096u

static const char *const fixed_contexts[] = {"base:allocation", "qemu:allocation-depth"};

void nbd_contexts_clear(struct nbd_contexts *contexts)
{
    free(contexts->bitmaps);
    free(contexts->export_name);
    *contexts = (struct nbd_contexts){0};
}

static bool has_context(const struct nbd_export *export, uint32_t context)
{
    return context == NBD_CONTEXT_ALLOCATION ||
           (context == NBD_CONTEXT_DEPTH && export->allocation_depth) ||
           (context >= NBD_CONTEXT_BITMAP && context - NBD_CONTEXT_BITMAP < export->bitmap_count);
}

/* The caller frees it. */
static char *context_name(const struct nbd_export *export, uint32_t context)
{
    return context < NBD_CONTEXT_BITMAP
               ? xstrdup(fixed_contexts[context])
               : xasprintf(DIRTY_BITMAP "%s", export->bitmaps[context - NBD_CONTEXT_BITMAP]->name);
}

/* Does the query name the context or, in a list, a group that it is in? */
static bool matches(const char *name, const char *query, size_t length, bool is_list)
{
    if (strlen(name) == length && !memcmp(name, query, length)) {
        return true;
    }
    return is_list && length && query[length - 1] == ':' && length < strlen(name) &&
           !memcmp(name, query, length);
}

/* ---- parsing --------------------------------------------------------------------------------- */

struct meta_option {
    const char *export_name;
    uint32_t export_length;
    uint32_t query_count;
    const uint8_t *queries; /* each: length, text */
};

static bool parse(const uint8_t *data, uint32_t length, struct meta_option *meta)
{
    uint32_t left = length;

    if (left < 8) {
        return false;
    }
    meta->export_length = load_be32(data);
    left -= 8;
    if (meta->export_length > left) {
        return false;
    }
    left -= meta->export_length;
    meta->export_name = (const char *)data + 4;
    data += 4 + meta->export_length;
    meta->query_count = load_be32(data);
    meta->queries = data += 4;
    if (meta->query_count > QUERIES_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < meta->query_count; i++) {
        if (left < 4) {
            return false;
        }
        uint32_t size = load_be32(data);
        left -= 4;
        if (size > left) {
            return false;
        }
        left -= size;
        data += 4 + size;
    }
    return left == 0;
}

static bool is_asked_for(const struct meta_option *meta, const char *name, bool is_list)
{
    const uint8_t *at = meta->queries;

    for (uint32_t i = 0; i < meta->query_count; i++) {
        uint32_t size = load_be32(at);
        if (matches(name, (const char *)at + 4, size, is_list)) {
            return true;
        }
        at += 4 + size;
    }
    return is_list && !meta->query_count;
}

/* ---- answering ------------------------------------------------------------------------------- */

static int co_tell(struct nbd_connection *conn, uint32_t option, uint32_t id, const char *name)
{
    size_t length = strlen(name);
    autofree uint8_t *data = xmalloc(4 + length);

    store_be32(data, id);
    memcpy(data + 4, name, length);
    return nbd_co_option_reply(conn, option, NBD_REP_META_CONTEXT, data, 4 + length);
}

static void choose(struct nbd_contexts *contexts, const struct nbd_export *export, uint32_t context)
{
    contexts->count++;
    if (context < NBD_CONTEXT_BITMAP) {
        contexts->is_chosen[context] = true;
        return;
    }
    if (!contexts->bitmaps) {
        contexts->bitmaps = xcalloc(export->bitmap_count, 1);
    }
    contexts->bitmaps[context - NBD_CONTEXT_BITMAP] = true;
}

static int co_answer(struct nbd_connection *conn, uint32_t option, const struct meta_option *meta,
                     const struct nbd_export *export)
{
    bool is_list = option == NBD_OPT_LIST_META_CONTEXT;
    uint32_t all = NBD_CONTEXT_BITMAP + (uint32_t) export->bitmap_count;
    int ret = 0;

    for (uint32_t context = 0; context < all && ret == 0; context++) {
        if (!has_context(export, context)) {
            continue;
        }
        autofree char *name = context_name(export, context);
        if (is_asked_for(meta, name, is_list)) {
            ret = co_tell(conn, option, is_list ? 0 : context, name);
            if (!is_list) {
                choose(&conn->contexts, export, context);
            }
        }
    }
    return ret < 0 ? ret : nbd_co_option_reply(conn, option, NBD_REP_ACK, NULL, 0);
}

int nbd_co_option_meta(struct nbd_connection *conn, uint32_t option, const uint8_t *data,
                       uint32_t length)
{
    struct meta_option meta;

    if (option == NBD_OPT_SET_META_CONTEXT) {
        nbd_contexts_clear(&conn->contexts);
    }
    if (!conn->is_structured) {
        return nbd_co_option_error(conn, option, NBD_REP_ERR_INVALID,
                                   "metadata contexts need structured replies, which were not "
                                   "agreed on");
    }
    if (!parse(data, length, &meta)) {
        return nbd_co_option_error(conn, option, NBD_REP_ERR_INVALID, "malformed option");
    }
    struct nbd_export *export = nbd_export_find(conn->server, meta.export_name, meta.export_length);
    if (!export) {
        return nbd_co_option_error(conn, option, NBD_REP_ERR_UNKNOWN, "export not present");
    }
    if (option == NBD_OPT_SET_META_CONTEXT) {
        conn->contexts.export_name = xmemdup(meta.export_name, MAX(meta.export_length, 1u));
        conn->contexts.export_length = meta.export_length;
    }
    int ret = co_answer(conn, option, &meta, export);
    nbd_export_unref(export);
    return ret;
}
