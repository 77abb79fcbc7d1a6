/* SPDX-License-Identifier: MIT */
/*
 * What every disk has in common: its drive, block sizes, error policy.
 *
 * A disk's struct embeds struct block_conf, its property table takes BLOCK_CONF_PROPERTIES, its
 * realize calls block_conf_attach() and its unrealize block_conf_detach(). Main thread.
 */
#ifndef FERRY_HW_BLOCK_CONF_H
#define FERRY_HW_BLOCK_CONF_H

#include "block/backend.h"
#include "device/device.h"

struct block_conf {
    /* properties */
    char *drive;
    uint32_t logical_block_size, physical_block_size; /* bytes; 0: 512 */
    uint32_t min_io_size, opt_io_size;                /* bytes */
    uint32_t discard_granularity;                     /* bytes; UINT32_MAX: a logical block */
    int write_cache;                                  /* enum on_off_auto */
    bool share_rw;
    char *rerror, *werror;
    int32_t bootindex;
    /* constant after block_conf_attach() */
    struct block_backend *backend;
    char *name; /* for messages and events */
};

#define BLOCK_CONF_PROPERTIES(s, f)                                                                \
    PROPERTY_STRING("drive", s, f.drive, NULL,                                                     \
                    "Node name or ID of a block device to use as a backend"),                      \
        PROPERTY_SIZE32("logical_block_size", s, f.logical_block_size, 0, 0, 0,                    \
                        "A power of two between 512 B and 2 MiB"),                                 \
        PROPERTY_SIZE32("physical_block_size", s, f.physical_block_size, 0, 0, 0,                  \
                        "A power of two between 512 B and 2 MiB"),                                 \
        PROPERTY_SIZE32("min_io_size", s, f.min_io_size, 0, 0, 0, "least size of fast I/O"),       \
        PROPERTY_SIZE32("opt_io_size", s, f.opt_io_size, 0, 0, 0, "best size of I/O"),             \
        PROPERTY_SIZE32("discard_granularity", s, f.discard_granularity, UINT32_MAX, 0, 0,         \
                        "alignment of discards"),                                                  \
        PROPERTY_ON_OFF_AUTO("write-cache", s, f.write_cache, ON_OFF_AUTO_AUTO,                    \
                             "write cache as the guest sees it at first"),                         \
        PROPERTY_BOOL("share-rw", s, f.share_rw, false, "others may write to the drive too"),      \
        PROPERTY_STRING("rerror", s, f.rerror, "auto",                                             \
                        "on a read error: report, ignore, stop, auto"),                            \
        PROPERTY_STRING("werror", s, f.werror, "auto",                                             \
                        "on a write error: report, ignore, stop, enospc, auto"),                   \
        PROPERTY_INT32("bootindex", s, f.bootindex, -1, "place in the boot order")

/* Checks and completes the sizes, and attaches the drive: writable unless it is read-only. */
bool block_conf_attach(struct block_conf *conf, struct device *dev, struct error **errp);
/* Gives up the machine lock meanwhile, if it is held: requests may have to be waited for. */
void block_conf_detach(struct block_conf *conf);

#endif
