/* SPDX-License-Identifier: MIT */
/*
 * Descriptor chains (virtio 1.2, 2.7.5): direct, or one indirect table at their end.
 *
 * The driver may change descriptors while they are read: each is copied once, and only the copy
 * counts. A chain visits no table for more entries than the table has, so a loop
 * ends there.
 */
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"
#include "hw/virtio/virtq_internal.h"

struct desc {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

struct table {
    const uint8_t *entries; /* mapped */
    unsigned count;
    bool is_indirect;
    bool is_unaligned; /* to 8 bytes; only an indirect one may be (2.7.5.3 asks for none) */
};

void virtq_element_init(struct virtq_element *element)
{
    element->iov = element->inline_iov;
    element->capacity = VIRTQ_INLINE_IOV;
}

void virtq_element_destroy(struct virtq_element *element)
{
    if (element->iov != element->inline_iov) {
        free(element->iov);
    }
}

/* ---- buffers -------------------------------------------------------------------------------- */

static bool add_iov(struct virtq_element *element, void *host, uint64_t length)
{
    unsigned count = element->out_count + element->in_count;

    if (count == VIRTQ_IOV_MAX) {
        return false;
    }
    if (count == element->capacity) {
        unsigned capacity = MIN(element->capacity * 4, VIRTQ_IOV_MAX);
        if (element->iov == element->inline_iov) {
            element->iov = xreallocarray(NULL, capacity, sizeof(element->iov[0]));
            memcpy(element->iov, element->inline_iov, sizeof(element->inline_iov));
        } else {
            element->iov = xreallocarray(element->iov, capacity, sizeof(element->iov[0]));
        }
        element->capacity = capacity;
    }
    element->iov[count] = (struct iovec){.iov_base = host, .iov_len = length};
    return true;
}

/* One descriptor's buffer, in pieces where host memory is not contiguous. NULL: fine. */
static const char *add_buffer(struct virtq *vq, struct virtq_element *element,
                              const struct desc *desc)
{
    bool is_write = desc->flags & VRING_DESC_F_WRITE;
    uint64_t address = desc->address;
    uint64_t left = desc->length;

    if (left == 0) {
        return "a descriptor has length 0";
    }
    if (!range_fits(address, left, UINT64_MAX)) {
        return "a descriptor's buffer wraps";
    }
    if (element->out_bytes + element->in_bytes + left > UINT64_C(1) << 32) {
        return "a chain is longer than 4 GiB";
    }
    if (!is_write && element->in_count) {
        return "a readable descriptor follows a writable one";
    }
    while (left) {
        uint64_t length = left;
        void *host = dma_map(vq->as, address, &length, is_write);
        if (!host) {
            return "a descriptor's buffer is not in RAM, or bus mastering is off";
        }
        if (!add_iov(element, host, length)) {
            dma_unmap(host, length, is_write, 0);
            return "a chain has too many buffers";
        }
        if (is_write) {
            element->in_count++;
            element->in_bytes += length;
        } else {
            element->out_count++;
            element->out_bytes += length;
        }
        address += length;
        left -= length;
    }
    return NULL;
}

void virtq_chain_unmap(struct virtq_element *element, bool is_written)
{
    const struct iovec *iov = element->iov;

    for (unsigned i = 0; i < element->out_count; i++, iov++) {
        dma_unmap(iov->iov_base, iov->iov_len, false, 0);
    }
    for (unsigned i = 0; i < element->in_count; i++, iov++) {
        dma_unmap(iov->iov_base, iov->iov_len, true, is_written ? iov->iov_len : 0);
    }
    element->out_count = element->in_count = 0;
    element->out = element->in = NULL;
}

/* ---- descriptors ---------------------------------------------------------------------------- */

static struct desc fetch(const struct table *table, unsigned index)
{
    const uint8_t *entry = table->entries + (size_t)index * VIRTQ_DESC_SIZE;
    uint64_t address, rest;

    if (table->is_unaligned) {
        uint8_t bytes[VIRTQ_DESC_SIZE];
        guest_copy_from(bytes, entry, sizeof(bytes));
        address = load_le64(bytes);
        rest = load_le64(bytes + 8);
    } else {
        address = guest_load64(entry);
        rest = guest_load64(entry + 8);
    }
    return (struct desc){
        .address = address,
        .length = (uint32_t)rest,
        .flags = (uint16_t)(rest >> 32),
        .next = (uint16_t)(rest >> 48),
    };
}

/* Walks a table from index on. *indirect: the descriptor of an indirect table, if the chain ended
 * there. NULL: fine. */
static const char *walk(struct virtq *vq, struct virtq_element *element, const struct table *table,
                        unsigned index, struct desc *indirect)
{
    for (unsigned visited = 0; visited < table->count; visited++) {
        if (index >= table->count) {
            return "a descriptor index is beyond its table";
        }
        struct desc desc = fetch(table, index);
        if (desc.flags & VRING_DESC_F_INDIRECT) {
            if (table->is_indirect) {
                return "an indirect descriptor is within an indirect table";
            }
            if (!vq->indirect) {
                return "an indirect descriptor without VIRTIO_F_INDIRECT_DESC";
            }
            if (desc.flags & VRING_DESC_F_NEXT) {
                return "an indirect descriptor has a next one";
            }
            *indirect = desc;
            return NULL;
        }
        const char *why = add_buffer(vq, element, &desc);
        if (why) {
            return why;
        }
        if (!(desc.flags & VRING_DESC_F_NEXT)) {
            return NULL;
        }
        index = desc.next;
    }
    return "a chain is longer than its table: a loop";
}

static const char *walk_indirect(struct virtq *vq, struct virtq_element *element,
                                 const struct desc *desc)
{
    uint64_t size = desc->length;
    uint64_t length = size;
    struct desc none = {.length = 0};

    if (size == 0 || size % VIRTQ_DESC_SIZE || size / VIRTQ_DESC_SIZE > VIRTQ_IOV_MAX) {
        return "an indirect table has a bad length";
    }
    if (!range_fits(desc->address, size, UINT64_MAX)) {
        return "an indirect table wraps";
    }
    void *host = dma_map(vq->as, desc->address, &length, false);
    const char *why = "an indirect table is not in RAM, or bus mastering is off";
    if (host && length == size) {
        struct table table = {
            .entries = host,
            .count = (unsigned)(size / VIRTQ_DESC_SIZE),
            .is_indirect = true,
            .is_unaligned = desc->address % 8,
        };
        why = walk(vq, element, &table, 0, &none);
    }
    if (host) {
        dma_unmap(host, length, false, 0);
    }
    return why;
}

bool virtq_chain_map(struct virtq *vq, struct virtq_element *element, uint16_t head)
{
    struct table table = {.entries = vq->desc, .count = vq->size};
    struct desc indirect = {.length = 0};

    element->out_count = element->in_count = 0;
    element->out_bytes = element->in_bytes = 0;
    const char *why = walk(vq, element, &table, head, &indirect);
    if (!why && indirect.flags) {
        why = walk_indirect(vq, element, &indirect);
    }
    if (why) {
        virtq_chain_unmap(element, false);
        virtq_break(vq, why);
        return false;
    }
    element->out = element->iov;
    element->in = element->iov + element->out_count;
    return true;
}

/* ---- copies --------------------------------------------------------------------------------- */

static uint64_t copy(const struct iovec *iov, unsigned count, uint64_t offset, uint8_t *to,
                     const uint8_t *from, uint64_t length)
{
    uint64_t done = 0;

    for (unsigned i = 0; i < count && done < length; i++) {
        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        uint64_t n = MIN(iov[i].iov_len - offset, length - done);
        uint8_t *guest = (uint8_t *)iov[i].iov_base + offset;
        if (to) {
            guest_copy_from(to + done, guest, n);
        } else {
            guest_copy_to(guest, from + done, n);
        }
        done += n;
        offset = 0;
    }
    return done;
}

uint64_t virtq_iov_read(const struct iovec *iov, unsigned count, uint64_t offset, void *buf,
                        uint64_t length)
{
    return copy(iov, count, offset, buf, NULL, length);
}

uint64_t virtq_iov_write(const struct iovec *iov, unsigned count, uint64_t offset, const void *buf,
                         uint64_t length)
{
    return copy(iov, count, offset, NULL, buf, length);
}
