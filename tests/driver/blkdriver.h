/* SPDX-License-Identifier: MIT */
/* A virtio-blk driver in the guest, and the disk below it, for tests. */
#ifndef FERRY_TESTS_DRIVER_BLKDRIVER_H
#define FERRY_TESTS_DRIVER_BLKDRIVER_H

#include <linux/virtio_blk.h>

#include "vdriver.h"

#define BLK_DEVFN    PCI_DEVFN(3, 0)
#define BLK_IRQ_LINE 3 /* where INTA of slot 3 comes out */

/* What a fresh disk holds. */
uint8_t blk_byte(uint64_t offset);

/* -blockdev; fails the test on an error. */
void blk_add_node(const char *text);
/* node-name=disk: the fake disk of 1 MiB; or a raw file with the same content, which
 * blk_remove_file() unlinks. */
void blk_add_fake_disk(const char *more);
const char *blk_add_file(const char *more);
void blk_remove_file(void);
/* virtio-blk-pci in slot 3 over node "disk", BARs placed, the driver probed. more: ",prop=…". */
void blk_add_device(struct vdriver *d, const char *more);

struct blk_request {
    uint64_t header, data, status; /* guest addresses */
    uint32_t type, length;
};

struct blk_request blk_request(uint32_t type, uint64_t sector, uint32_t length);
/* Header, data, status; returns how many. */
unsigned blk_buffers(const struct blk_request *r, struct buffer buffers[3]);
void blk_publish(struct vdriver *d, const struct blk_request *r, unsigned head);
uint8_t blk_status(const struct blk_request *r); /* 0xee: not written yet */
/* From doorbell to used ring; checks the used entry; the status. */
uint8_t blk_perform(struct vdriver *d, const struct blk_request *r);
/* The data are those of a fresh disk at this offset. */
bool blk_data_is(const struct blk_request *r, uint64_t offset);

#endif
