/* SPDX-License-Identifier: MIT */
#include "blkdriver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/options.h"
#include "base/range.h"
#include "block/backend.h"
#include "fake_disk.h"
#include "mem/dma.h"

#define DISK_SIZE (1 * MiB)

static char path[64];

static void check(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "blkdriver: %s\n", what);
        abort();
    }
}

uint8_t blk_byte(uint64_t offset)
{
    return (uint8_t)(offset / 512 * 7 + offset);
}

/* ---- disks ---------------------------------------------------------------------------------- */

void blk_add_node(const char *text)
{
    struct error *err = NULL;
    struct options *opts = options_parse(text, NULL, &err);

    check(opts && blockdev_add(opts, &err), err ? error_message(err) : text);
    options_free(opts);
}

void blk_add_fake_disk(const char *more)
{
    autofree char *text = xasprintf("driver=fake-disk,node-name=disk%s", more);

    fake_disk_reset();
    blk_add_node(text);
}

const char *blk_add_file(const char *more)
{
    uint8_t *bytes = xmalloc(DISK_SIZE);

    strcpy(path, "ferry-blk-test-XXXXXX");
    int fd = mkstemp(path);
    check(fd >= 0, "no temporary file");
    for (uint64_t i = 0; i < DISK_SIZE; i++) {
        bytes[i] = blk_byte(i);
    }
    check(write(fd, bytes, DISK_SIZE) == DISK_SIZE, "cannot write the disk");
    close(fd);
    free(bytes);
    autofree char *text =
        xasprintf("driver=raw,node-name=disk,file.driver=file,file.filename=%s%s", path, more);
    blk_add_node(text);
    return path;
}

void blk_remove_file(void)
{
    if (path[0]) {
        unlink(path);
        path[0] = 0;
    }
}

void blk_add_device(struct vdriver *d, const char *more)
{
    autofree char *text = xasprintf("virtio-blk-pci,id=vd,addr=3,drive=disk%s", more);

    rig_device(text);
    rig_assign();
    vdriver_probe(d, BLK_DEVFN);
}

/* ---- requests ------------------------------------------------------------------------------- */

struct blk_request blk_request(uint32_t type, uint64_t sector, uint32_t length)
{
    struct blk_request r = {
        .type = type,
        .header = guest_alloc(16, 16),
        .data = guest_alloc(MAX(length, 1), 512),
        .status = guest_alloc(1, 1),
        .length = length,
    };

    guest_store32(guest_ram(r.header), type);
    guest_store64(guest_ram(r.header + 8), sector);
    guest_store8(guest_ram(r.status), 0xee);
    return r;
}

static bool is_read(const struct blk_request *r)
{
    return r->type == VIRTIO_BLK_T_IN || r->type == VIRTIO_BLK_T_GET_ID;
}

unsigned blk_buffers(const struct blk_request *r, struct buffer buffers[3])
{
    unsigned n = 0;

    buffers[n++] = (struct buffer){r->header, 16, false};
    if (r->length) {
        buffers[n++] = (struct buffer){r->data, r->length, is_read(r)};
    }
    buffers[n++] = (struct buffer){r->status, 1, true};
    return n;
}

void blk_publish(struct vdriver *d, const struct blk_request *r, unsigned head)
{
    struct buffer buffers[3];
    unsigned n = blk_buffers(r, buffers);

    vqueue_set_chain(&d->queue, head, buffers, n);
    vqueue_publish(&d->queue, (uint16_t)head);
}

uint8_t blk_status(const struct blk_request *r)
{
    return guest_load8(guest_ram(r->status));
}

/* 2.7.8.2: all bytes up to there have been written. The status is the last one; before it, a GET_ID
 * whose buffer is longer than the id leaves some as they are. */
static uint32_t written_of(const struct blk_request *r)
{
    if (!is_read(r) || !r->length) {
        return 1;
    }
    if (blk_status(r) != VIRTIO_BLK_S_OK) {
        return 0;
    }
    bool is_whole = r->type == VIRTIO_BLK_T_IN || r->length <= VIRTIO_BLK_ID_BYTES;
    return is_whole ? r->length + 1 : VIRTIO_BLK_ID_BYTES;
}

uint8_t blk_perform(struct vdriver *d, const struct blk_request *r)
{
    uint32_t head, written;

    blk_publish(d, r, 0);
    vdriver_kick(d);
    check(vdriver_wait_used(d, &head, &written), "a request does not come back");
    check(head == 0, "another head comes back");
    check(written == written_of(r), "the used length is wrong");
    return blk_status(r);
}

bool blk_data_is(const struct blk_request *r, uint64_t offset)
{
    const uint8_t *data = guest_ram(r->data);

    for (uint32_t i = 0; i < r->length; i++) {
        if (data[i] != blk_byte(offset + i)) {
            fprintf(stderr, "byte %u at %llu is %02x\n", i, (unsigned long long)offset, data[i]);
            return false;
        }
    }
    return true;
}
