/* SPDX-License-Identifier: MIT */
/*
 * Backends: what there are, who is attached, and how their errors are treated. Their requests are
 * in backend_io.c.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/id.h"
#include "base/log.h"
#include "block/backend_int.h"
#include "block/node_int.h"

static struct block_backend *first_backend; /* main loop */

/* ---- making and finding ---------------------------------------------------------------------- */

struct block_backend *backend_find(const char *name)
{
    for (struct block_backend *be = first_backend; be; be = be->next) {
        if (be->name && !strcmp(be->name, name)) {
            return be;
        }
    }
    return NULL;
}

struct block_backend *backend_first(void)
{
    return first_backend;
}

struct block_backend *backend_next(struct block_backend *be)
{
    return be->next;
}

static bool check_name(const char *name, struct error **errp)
{
    if (!id_is_wellformed(name)) {
        error_set(errp,
                  "Invalid block device name '%s'; it begins with a letter, then come "
                  "letters, digits, '-', '.' and '_'",
                  name);
        return false;
    }
    if (backend_find(name)) {
        error_set(errp, "Device with id '%s' already exists", name);
        return false;
    }
    if (block_node_find(name)) {
        error_set(errp, "Device name '%s' conflicts with an existing node name", name);
        return false;
    }
    return true;
}

struct block_backend *backend_new(const char *name, struct block_node *root, struct error **errp)
{
    if (name && !check_name(name, errp)) {
        return NULL;
    }
    struct block_backend *be = xnew(struct block_backend);
    be->name = name ? xstrdup(name) : NULL;
    be->refs = 1;
    be->on_read_error = BLOCK_ON_ERROR_REPORT;
    be->on_write_error = BLOCK_ON_ERROR_ENOSPC;
    atomic_init(&be->write_cache, true);
    gate_init(&be->gate);
    be->link = (struct block_link){
        .node = root,
        .gate = &be->gate,
        .user = be->name ? be->name : "",
    };
    bool is_linked = block_link_add(&be->link, errp);
    /* As QEMU's, -drive is seen to read before it has a device. */
    if (!is_linked || (name && !block_link_set_claim(&be->link, BLOCK_CLAIM_OPEN, true, errp))) {
        if (is_linked) {
            block_link_remove(&be->link);
        }
        gate_destroy(&be->gate);
        free(be->name);
        free(be);
        return NULL;
    }

    struct block_backend **p = &first_backend;
    while (*p) {
        p = &(*p)->next;
    }
    *p = be;
    return be;
}

static bool is_unused(void *opaque)
{
    return gate_is_unused(opaque);
}

void backend_unref(struct block_backend *be)
{
    assert(be->refs > 0);
    if (--be->refs) {
        return;
    }
    block_node_wait_idle(be->link.node, is_unused, &be->gate);

    struct block_backend **p = &first_backend;
    while (*p != be) {
        p = &(*p)->next;
    }
    *p = be->next;
    block_link_remove(&be->link);
    gate_destroy(&be->gate);
    free(be->name);
    free(be->device);
    free(be);
}

void backends_close(void)
{
    int ret = backends_flush_all();
    if (ret < 0) {
        log_error("Could not flush all disks: %s; what the guest wrote last may be lost",
                  strerror(-ret));
    }
    for (struct block_backend *be = first_backend, *next; be; be = next) {
        next = be->next;
        if (be->in_drive_list) {
            be->in_drive_list = false;
            backend_unref(be);
        }
    }
    block_nodes_close();
}

/* ---- devices --------------------------------------------------------------------------------- */

static struct block_node *find_root(const char *text)
{
    struct block_backend *be = backend_find(text);

    return be ? be->link.node : block_node_find(text);
}

bool backend_text_is_readonly(const char *text)
{
    const struct block_node *node = find_root(text);

    return node && !(node->flags & BLOCK_OPEN_RDWR);
}

static struct block_backend *find_or_make(const char *text, struct error **errp)
{
    struct block_backend *be = backend_find(text);

    if (be) {
        be->refs++;
        return be;
    }
    struct block_node *node = block_node_find(text);
    if (!node) {
        error_set(errp,
                  "Cannot find device='%s' nor node-name='%s'; make it with -drive id=%s or "
                  "-blockdev node-name=%s",
                  text, text, text, text);
        return NULL;
    }
    return backend_new(NULL, node, errp);
}

struct block_backend *backend_attach(const char *text, const char *dev_name, bool writable,
                                     bool shares_write, struct error **errp)
{
    struct block_backend *be = find_or_make(text, errp);

    if (!be) {
        return NULL;
    }
    if (be->device) {
        error_set(errp, "Drive '%s' is already in use by another block device: '%s'", text,
                  be->device);
        if (*be->interface && strcmp(be->interface, "none")) {
            error_add_hint(errp,
                           "-drive with if=%s has made that device; give if=none to a drive "
                           "that is for a -device of yours.",
                           be->interface);
        }
        backend_unref(be);
        return NULL;
    }
    be->device = xstrdup(dev_name);
    atomic_store(&be->io_status, BLOCK_IO_OK);
    be->link.user = be->device;
    if ((writable && !block_node_check_length(be->link.node, errp)) ||
        !block_link_set_claim(&be->link, writable ? BLOCK_CLAIM_WRITE : BLOCK_CLAIM_READ,
                              shares_write, errp)) {
        backend_detach(be);
        return NULL;
    }
    return be;
}

bool backend_start_writing(struct block_backend *be, struct error **errp)
{
    return block_node_check_length(be->link.node, errp) &&
           block_link_set_claim(&be->link, BLOCK_CLAIM_WRITE, be->link.shares_write, errp);
}

void backend_detach(struct block_backend *be)
{
    assert(be->device);
    block_node_wait_idle(be->link.node, is_unused, &be->gate);
    block_link_set_claim(&be->link, BLOCK_CLAIM_NONE, false, NULL);
    be->link.user = be->name ? be->name : "";
    free(be->device);
    be->device = NULL;
    be->owner = NULL;
    backend_unref(be);
}

/* ---- properties ------------------------------------------------------------------------------ */

const char *backend_name(const struct block_backend *be)
{
    return be->name ? be->name : "";
}

const char *backend_device(const struct block_backend *be)
{
    return be->device ? be->device : "";
}

void backend_set_owner(struct block_backend *be, void *owner)
{
    be->owner = owner;
}

void *backend_owner(const struct block_backend *be)
{
    return be->owner;
}

struct block_node *backend_root(struct block_backend *be)
{
    return be->link.node;
}

bool backend_is_readonly(const struct block_backend *be)
{
    return !(be->link.node->flags & BLOCK_OPEN_RDWR) || be->link.claim == BLOCK_CLAIM_READ;
}

uint64_t backend_length(struct block_backend *be)
{
    return block_length(be->link.node);
}

bool backend_write_cache(const struct block_backend *be)
{
    return atomic_load_explicit(&be->write_cache, memory_order_relaxed);
}

void backend_set_write_cache(struct block_backend *be, bool on)
{
    atomic_store_explicit(&be->write_cache, on, memory_order_relaxed);
}

/* ---- error policy ---------------------------------------------------------------------------- */

enum block_error_action backend_error_action(struct block_backend *be, bool is_read, int error)
{
    switch (is_read ? be->on_read_error : be->on_write_error) {
    case BLOCK_ON_ERROR_IGNORE:
        return BLOCK_ERROR_IGNORE;
    case BLOCK_ON_ERROR_STOP:
        return BLOCK_ERROR_STOP;
    case BLOCK_ON_ERROR_ENOSPC:
        return abs(error) == ENOSPC ? BLOCK_ERROR_STOP : BLOCK_ERROR_REPORT;
    case BLOCK_ON_ERROR_REPORT:
        break;
    }
    return BLOCK_ERROR_REPORT;
}

bool backend_has_io_status(const struct block_backend *be)
{
    return be->device &&
           (be->on_read_error == BLOCK_ON_ERROR_STOP || be->on_write_error == BLOCK_ON_ERROR_STOP ||
            be->on_write_error == BLOCK_ON_ERROR_ENOSPC);
}

enum block_io_status backend_io_status(const struct block_backend *be)
{
    return atomic_load(&be->io_status);
}

void backend_set_io_error(struct block_backend *be, int error)
{
    int ok = BLOCK_IO_OK;

    atomic_compare_exchange_strong(&be->io_status, &ok,
                                   abs(error) == ENOSPC ? BLOCK_IO_NOSPACE : BLOCK_IO_FAILED);
}

void backends_reset_io_status(void)
{
    for (struct block_backend *be = first_backend; be; be = be->next) {
        if (*backend_name(be)) { /* QEMU leaves the anonymous ones as they are */
            atomic_store(&be->io_status, BLOCK_IO_OK);
        }
    }
}

static bool parse_on_error(const char *text, bool is_read, enum block_on_error *policy,
                           struct error **errp)
{
    if (!strcmp(text, "auto")) {
        return true; /* a device's default: as the drive has it */
    }
    if (!strcmp(text, "report")) {
        *policy = BLOCK_ON_ERROR_REPORT;
    } else if (!strcmp(text, "ignore")) {
        *policy = BLOCK_ON_ERROR_IGNORE;
    } else if (!strcmp(text, "stop")) {
        *policy = BLOCK_ON_ERROR_STOP;
    } else if (!strcmp(text, "enospc") && !is_read) {
        *policy = BLOCK_ON_ERROR_ENOSPC;
    } else {
        error_set(errp, "'%s' invalid %s error action; use %s", text, is_read ? "read" : "write",
                  is_read ? "report, ignore, stop or auto"
                          : "report, ignore, stop, enospc or auto");
        return false;
    }
    return true;
}

bool backend_set_error_policy(struct block_backend *be, const char *rerror, const char *werror,
                              struct error **errp)
{
    enum block_on_error on_read = be->on_read_error, on_write = be->on_write_error;

    if ((rerror && !parse_on_error(rerror, true, &on_read, errp)) ||
        (werror && !parse_on_error(werror, false, &on_write, errp))) {
        return false;
    }
    be->on_read_error = on_read;
    be->on_write_error = on_write;
    return true;
}
