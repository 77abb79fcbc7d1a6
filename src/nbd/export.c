/* SPDX-License-Identifier: MIT */
#include "nbd/export.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "nbd/connection.h"

/* ---- finding --------------------------------------------------------------------------------- */

static struct nbd_export *find_locked(struct nbd_server *server, const char *name, size_t length)
{
    struct nbd_export *export = server->exports;

    while (export && (strlen(export->name) != length || memcmp(export->name, name, length))) {
        export = export->next;
    }
    return export;
}

struct nbd_export *nbd_export_find(struct nbd_server *server, const char *name, size_t length)
{
    pthread_mutex_lock(&server->lock);
    struct nbd_export *export = find_locked(server, name, length);
    if (export) {
        export->refs++;
    }
    pthread_mutex_unlock(&server->lock);
    return export;
}

struct nbd_export *nbd_export_next(struct nbd_server *server, struct nbd_export *export)
{
    pthread_mutex_lock(&server->lock);
    struct nbd_export *next = export ? export->next : server->exports;
    if (next) {
        next->refs++;
    }
    pthread_mutex_unlock(&server->lock);
    if (export) {
        nbd_export_unref(export);
    }
    return next;
}

bool nbd_export_attach(struct nbd_export *export, struct nbd_connection *conn)
{
    pthread_mutex_lock(&export->server->lock);
    if (!export->is_removed) {
        conn->export = export;
    }
    pthread_mutex_unlock(&export->server->lock);
    return conn->export;
}

unsigned nbd_export_flags(const struct nbd_export *export)
{
    unsigned flags =
        NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_CACHE;

    flags |= export->writable
                 ? NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO
                 : NBD_FLAG_READ_ONLY;
    return flags | (export->multi_conn ? NBD_FLAG_CAN_MULTI_CONN : 0);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void free_export(void *opaque)
{
    struct nbd_export *export = opaque;

    if (export->released) {
        export->released(export->opaque);
    }
    co_mutex_destroy(&export->look_lock);
    free(export->bitmaps);
    free(export->name);
    free(export->description);
    free(export);
}

void nbd_export_unref(struct nbd_export *export)
{
    struct nbd_server *server = export->server;

    pthread_mutex_lock(&server->lock);
    bool is_last = --export->refs == 0;
    pthread_mutex_unlock(&server->lock);
    if (is_last && aio_loop_current() == server->main_loop) {
        free_export(export);
    } else if (is_last) {
        aio_call(server->main_loop, free_export, export);
    }
}

/* Takes it out of the list; the list's reference is the caller's then. */
static void unlink_export(struct nbd_server *server, struct nbd_export *export)
{
    pthread_mutex_lock(&server->lock);
    struct nbd_export **p = &server->exports;
    while (*p != export) {
        p = &(*p)->next;
    }
    *p = export->next;
    export->next = NULL;
    export->is_removed = true;
    pthread_mutex_unlock(&server->lock);
}

bool nbd_server_remove_export(struct nbd_server *server, const char *name, struct error **errp)
{
    struct nbd_export *export = nbd_export_find(server, name, strlen(name));

    if (!export) {
        error_set(errp, "Export '%s' is not found", name);
        return false;
    }
    unlink_export(server, export);
    nbd_export_unref(export);
    nbd_connections_leave(server, export);
    nbd_export_unref(export);
    return true;
}

/* ---- making ---------------------------------------------------------------------------------- */

static bool check_config(const struct nbd_export_config *config, struct error **errp)
{
    uint64_t length = backend_length(config->be);

    if (strlen(config->name) > NBD_STRING_MAX) {
        error_set(errp, "export name '%.32s…' is longer than %u bytes", config->name,
                  NBD_STRING_MAX);
        return false;
    }
    if (config->description && strlen(config->description) > NBD_STRING_MAX) {
        error_set(errp, "description '%.32s…' is longer than %u bytes", config->description,
                  NBD_STRING_MAX);
        return false;
    }
    if (!range_fits(config->offset, config->size, length)) {
        error_set(errp, "offset %llu and size %llu go past the end of the image at %llu",
                  (unsigned long long)config->offset, (unsigned long long)config->size,
                  (unsigned long long)length);
        return false;
    }
    return true;
}

bool nbd_server_add_export(struct nbd_server *server, const struct nbd_export_config *config,
                           struct error **errp)
{
    uint64_t length = backend_length(config->be);

    if (!check_config(config, errp)) {
        return false;
    }
    struct nbd_export *export = xnew(struct nbd_export);
    *export = (struct nbd_export){
        .server = server,
        .name = xstrdup(config->name),
        .description = xstrdup(config->description ? config->description : ""),
        .be = config->be,
        .offset = config->offset,
        .size = config->size ? config->size : length - config->offset,
        .writable = config->writable,
        .multi_conn = server->config.max_connections != 1,
        .alignment = backend_root(config->be)->limits.request_alignment,
        .allocation_depth = config->allocation_depth,
        .refs = 1,
    };
    co_mutex_init(&export->look_lock);
    bool ok = nbd_export_take_bitmaps(export, config, errp);
    pthread_mutex_lock(&server->lock);
    if (ok && find_locked(server, config->name, strlen(config->name))) {
        error_set(errp, "NBD server already has export named '%s'", config->name);
        ok = false;
    }
    if (ok) {
        struct nbd_export **p = &server->exports;
        while (*p) {
            p = &(*p)->next;
        }
        *p = export;
        export->released = config->released;
        export->opaque = config->opaque;
    }
    pthread_mutex_unlock(&server->lock);
    if (!ok) {
        free_export(export);
    }
    return ok;
}
