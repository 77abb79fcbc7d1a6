/* SPDX-License-Identifier: MIT */
/* What a backend is inside; for backend*.c and drive.c. */
#ifndef FERRY_BLOCK_BACKEND_INT_H
#define FERRY_BLOCK_BACKEND_INT_H

#include "block/backend.h"
#include "block/gate.h"
#include "block/throttle_group.h"

struct block_backend {
    /* constant */
    char *name; /* or NULL */
    /* main loop; on_*_error are set before the device starts */
    unsigned refs;
    bool in_drive_list; /* which holds a reference */
    char *device;       /* attached, or NULL */
    void *owner;        /* the attached device, or NULL */
    enum block_on_error on_read_error, on_write_error;
    struct block_link link; /* to the root node */
    char interface[16];     /* of -drive: its place among the drives */
    int bus, unit;
    struct block_backend *next;
    /* atomic */
    _Atomic(bool) write_cache;
    _Atomic(int) io_status; /* enum block_io_status */
    struct block_gate gate;
};

/* drive_place.c: fills interface, index, bus and unit; is_cdrom is set already. */
bool drive_find_place(struct options *opts, const char *default_interface, struct drive_spec *spec,
                      struct error **errp);
/* drive_overlay.c: snapshot=on. A temporary image over `root` that takes all writes and is gone when it
 * is closed; takes root's reference, and gives one. flags: BLOCK_OPEN_RDWR, _DETECT_ZEROES and
 * _DETECT_UNMAP. NULL and an error if it could not be made. */
struct block_node *drive_put_overlay(struct block_node *root, unsigned flags, struct error **errp);
/* drive_filter.c: copy-on-read= and throttling. */
struct drive_filters {
    struct throttle_config limits;
    char *group; /* or NULL: named as the drive */
    bool copy_on_read;
};
bool drive_take_filters(struct options *opts, struct drive_filters *filters, struct error **errp);
void drive_filters_free(struct drive_filters *filters);
/* The filters above `root`; takes its reference, and gives one. NULL (also for root NULL) and an
 * error if it fails. id: of the drive. */
struct block_node *drive_put_filters(struct block_node *root, const struct drive_filters *filters,
                                     const char *id, struct error **errp);
/* id=, or as QEMU makes one up. The caller frees it. */
char *drive_make_id(struct options *opts, const struct drive_spec *spec);

#endif
