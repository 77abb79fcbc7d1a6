/* SPDX-License-Identifier: MIT */
/*
 * Backends: what a disk device holds on to. A backend has a root node, the write-cache mode and
 * the error policy; a device attaches to it and submits requests from its loop.
 *
 *   device --backend_aio_preadv()--> coroutine --> backend_co_preadv() --> block_co_preadv(root) …
 *          <-- done(opaque, ret) ---
 *
 * References: the list of -drive holds one on each of its backends until backends_close(); a
 * device holds one from backend_attach() to backend_detach(). An anonymous backend is freed with
 * its device.
 */
#ifndef FERRY_BLOCK_BACKEND_H
#define FERRY_BLOCK_BACKEND_H

#include <stdio.h>

#include "aio/loop.h"
#include "block/node.h"

struct block_backend;

/* As query-block's io-status: what stopped the VM. */
enum block_io_status { BLOCK_IO_OK, BLOCK_IO_FAILED, BLOCK_IO_NOSPACE };
enum block_error_action { BLOCK_ERROR_REPORT, BLOCK_ERROR_IGNORE, BLOCK_ERROR_STOP };
enum block_on_error {
    BLOCK_ON_ERROR_REPORT,
    BLOCK_ON_ERROR_IGNORE,
    BLOCK_ON_ERROR_STOP,
    BLOCK_ON_ERROR_ENOSPC /* stop if no space is left, else report */
};

/* Main loop. name: id of -drive, or NULL for an anonymous backend over a -blockdev node. The
 * caller gets a reference. */
struct block_backend *backend_new(const char *name, struct block_node *root, struct error **errp);
struct block_backend *backend_find(const char *name);
/* A device's drive=TEXT: a backend of that id, else a new anonymous one over the node TEXT. The
 * device attaches: a second device is refused. dev_name: for messages. writable: the device wants
 * to write; a read-only node is refused then, so a disk that can do without asks with false if
 * backend_text_is_readonly(). shares_write (share-rw=on): others may write meanwhile, here or in
 * other processes; else those are refused, or this is. */
struct block_backend *backend_attach(const char *text, const char *dev_name, bool writable,
                                     bool shares_write, struct error **errp);
/* What was attached to read writes from now on. After an error it goes on reading. Drained. */
bool backend_start_writing(struct block_backend *be, struct error **errp);
/* True if drive=TEXT names something that cannot be written. */
bool backend_text_is_readonly(const char *text);
/* Waits for the device's requests (as backend_drain()) and drops its reference. */
void backend_detach(struct block_backend *be);
void backend_unref(struct block_backend *be);
void backends_close(void); /* process end: drains, flushes, frees */

const char *backend_name(const struct block_backend *be); /* "" if anonymous */
struct block_node *backend_root(struct block_backend *be);
struct block_backend *backend_first(void); /* main loop */
struct block_backend *backend_next(struct block_backend *be);
const char *backend_device(const struct block_backend *be); /* attached device, or "" */
/* Who is attached, for those who know what it is: of a device the struct device. NULL: nobody, or a tool.
 * Main loop; from backend_attach() to backend_detach(). */
void backend_set_owner(struct block_backend *be, void *owner);
void *backend_owner(const struct block_backend *be);
/* The node cannot be written, or the device said that it does not. */
bool backend_is_readonly(const struct block_backend *be);
uint64_t backend_length(struct block_backend *be); /* bytes, whole sectors of 512 count */
bool backend_write_cache(const struct block_backend *be);
/* Any thread. What was written before stays in the cache: flush after switching it off. */
void backend_set_write_cache(struct block_backend *be, bool on);
/* What to do with an error (positive or negative errno) of this request: by rerror, werror. */
enum block_error_action backend_error_action(struct block_backend *be, bool is_read, int error);
/* A device is attached, and an error may stop the VM (rerror=stop, werror=stop or enospc). Main
 * loop, and where requests are made. */
bool backend_has_io_status(const struct block_backend *be);
enum block_io_status backend_io_status(const struct block_backend *be); /* any thread */
/* An error (positive or negative errno) stops the VM: the first one stands. Any thread. */
void backend_set_io_error(struct block_backend *be, int error);
/* The VM goes on: of backends with a name. Main loop. */
void backends_reset_io_status(void);
/* QEMU's words: report, ignore, stop, enospc (werror only); auto and NULL leave what it is, which
 * is report and enospc at first. Before requests are made. */
bool backend_set_error_policy(struct block_backend *be, const char *rerror, const char *werror,
                              struct error **errp);

/* In a coroutine. Checks range and read-only: -EIO, -EROFS. FUA is added when the write cache is
 * off. */
int backend_co_preadv(struct block_backend *be, uint64_t offset, const struct block_iov *iov,
                      unsigned flags, uint64_t id);
int backend_co_pwritev(struct block_backend *be, uint64_t offset, const struct block_iov *iov,
                       unsigned flags, uint64_t id);
int backend_co_flush(struct block_backend *be, uint64_t id);
int backend_co_discard(struct block_backend *be, uint64_t offset, uint64_t length);
int backend_co_write_zeroes(struct block_backend *be, uint64_t offset, uint64_t length,
                            unsigned flags);
/* block_co_status_above() all of the chain. */
int backend_co_status(struct block_backend *be, uint64_t offset, uint64_t *length, uint64_t *map,
                      struct block_node **owner, unsigned *depth);

/* From a loop's thread, in a coroutine or not: done(opaque, 0 or -errno) is called later in the
 * same loop, in a coroutine, never before this returns. The iov array and its buffers stay valid
 * until then; struct block_iov itself need not. */
typedef void backend_done_fn(void *opaque, int ret);
void backend_aio_preadv(struct block_backend *be, uint64_t offset, const struct block_iov *iov,
                        unsigned flags, uint64_t id, backend_done_fn *done, void *opaque);
void backend_aio_pwritev(struct block_backend *be, uint64_t offset, const struct block_iov *iov,
                         unsigned flags, uint64_t id, backend_done_fn *done, void *opaque);
void backend_aio_flush(struct block_backend *be, uint64_t id, backend_done_fn *done, void *opaque);
void backend_aio_discard(struct block_backend *be, uint64_t offset, uint64_t length,
                         backend_done_fn *done, void *opaque);
void backend_aio_write_zeroes(struct block_backend *be, uint64_t offset, uint64_t length,
                              unsigned flags, backend_done_fn *done, void *opaque);

/* Waits until the backend has no request in flight, that is: until done() has returned for all of
 * them; meanwhile new ones wait. Main loop thread, outside coroutines, without the machine
 * lock. */
void backend_drain(struct block_backend *be);
/* Requests that filters of the backend hold back go on, and later ones are not held back, until the
 * end; they count for the limits all the same. For who waits until its requests are done without
 * backend_drain(). Calls nest. The end may poll, and be may be gone by then. Main loop thread,
 * outside coroutines, without the machine lock. */
struct block_hurry;
struct block_hurry *backend_hurry_begin(struct block_backend *be);
void backend_hurry_end(struct block_hurry *hurry);
/* All backends: drain and flush (VM stop). Negative errno of the first failure. */
int backends_flush_all(void);

/* -drive file=,if=,format=,cache=,aio=,readonly=,id=,discard=,werror=,rerror=… as QEMU. Returns the
 * backend; the caller makes the device for if=virtio (interface and index are left in *spec) and
 * frees spec->serial. */
struct drive_spec {
    struct block_backend *backend; /* the list's reference */
    char interface[16];            /* "none", "virtio", "ide" */
    int index, bus, unit;          /* index: -1 if not given; bus and unit: as QEMU counts */
    bool is_cdrom;                 /* media=cdrom */
    char *serial;                  /* or NULL */
};
bool drive_new(struct options *opts, const char *default_interface, struct drive_spec *spec,
               struct error **errp);
/* format=help and driver=help: prints the drivers as QEMU does; false if it was not asked for. */
bool drive_help(struct options *opts, FILE *to);
/* -blockdev: a node owned by the monitor; node-name is required. */
bool blockdev_add(struct options *opts, struct error **errp);
bool blockdev_del(const char *node_name, struct error **errp);

#endif
