/* SPDX-License-Identifier: MIT */
/* A driver for a modern virtio-blk-pci: one split queue, MSI-X vector 0 (virtio 1.2, 4.1, 5.2). */
#include "guest.h"

#define QUEUE_SIZE 256

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};
enum { DESC_NEXT = 1, DESC_WRITE = 2 };

static struct descriptor desc[QUEUE_SIZE] __attribute__((aligned(4096)));
static struct {
    uint16_t flags, index, ring[QUEUE_SIZE], used_event;
} avail __attribute__((aligned(4096)));
static struct {
    uint16_t flags, index;
    struct {
        uint32_t id, length;
    } ring[QUEUE_SIZE];
    uint16_t avail_event;
} volatile used __attribute__((aligned(4096)));

static struct {
    uint32_t type, reserved;
    uint64_t sector;
} header[QUEUE_SIZE / 3];
static volatile uint8_t status[QUEUE_SIZE / 3];
static uint16_t last_used;

/* Offsets of the common configuration, 4.1.4.3. */
enum {
    DRIVER_FEATURE_SELECT = 8,
    DRIVER_FEATURE = 12,
    MSIX_CONFIG = 16,
    DEVICE_STATUS = 20,
    QUEUE_SELECT = 22,
    QUEUE_SIZE_REG = 24,
    QUEUE_MSIX = 26,
    QUEUE_ENABLE = 28,
    QUEUE_NOTIFY_OFF = 30,
    QUEUE_DESC = 32,
    QUEUE_AVAIL = 40,
    QUEUE_USED = 48,
};

static void write32(volatile uint8_t *p, uint32_t v)
{
    *(volatile uint32_t *)p = v;
}
static void write16(volatile uint8_t *p, uint16_t v)
{
    *(volatile uint16_t *)p = v;
}
static uint16_t read16(volatile uint8_t *p)
{
    return *(volatile uint16_t *)p;
}
static void write64(volatile uint8_t *p, uint64_t v)
{
    write32(p, v);
    write32(p + 4, v >> 32);
}

static int find_disk(void)
{
    for (unsigned devfn = 0; devfn < 256; devfn += 8) {
        uint32_t id = pci_read(devfn, 0);
        if (id == 0x10421af4 || id == 0x10011af4) {
            return devfn;
        }
    }
    return -1;
}

static void enable_msix(unsigned devfn, unsigned cap, unsigned vector)
{
    uint32_t table = pci_read(devfn, cap + 4);
    volatile uint32_t *entry = (volatile uint32_t *)(pci_bar(devfn, table & 7) + (table & ~7u));

    entry[0] = 0xfee00000;
    entry[1] = 0;
    entry[2] = vector;
    entry[3] = 0;
    pci_write(devfn, cap, pci_read(devfn, cap) | 0x80000000);
}

bool disk_open(struct disk *disk, unsigned depth, unsigned vector)
{
    int devfn = find_disk();
    unsigned cap;
    volatile uint8_t *config = NULL;

    if (devfn < 0 || depth > QUEUE_SIZE / 3) {
        return false;
    }
    pci_write(devfn, 4, pci_read(devfn, 4) | 6); /* memory, bus master */
    for (cap = pci_read(devfn, 0x34) & 0xfc; cap; cap = pci_read(devfn, cap) >> 8 & 0xfc) {
        uint32_t head = pci_read(devfn, cap);
        uint64_t address;

        if ((head & 0xff) == 0x11) {
            enable_msix(devfn, cap, vector);
        }
        if ((head & 0xff) != 0x09) {
            continue;
        }
        switch (head >> 24) {
        case 1:
        case 2:
        case 4:
            address = pci_bar(devfn, pci_read(devfn, cap + 4) & 0xff) + pci_read(devfn, cap + 8);
            if (head >> 24 == 1) {
                disk->common = (volatile uint8_t *)address;
            } else if (head >> 24 == 2) {
                disk->notify = (volatile uint8_t *)address;
                disk->notify_multiplier = pci_read(devfn, cap + 16);
            } else {
                config = (volatile uint8_t *)address;
            }
            break;
        }
    }
    if (!disk->common || !disk->notify || !config) {
        return false;
    }
    volatile uint8_t *c = disk->common;
    c[DEVICE_STATUS] = 0;
    while (c[DEVICE_STATUS]) {
    }
    last_used = 0;
    avail.index = 0;
    used.index = 0;
    c[DEVICE_STATUS] = 1;
    c[DEVICE_STATUS] = 3;
    write32(c + DRIVER_FEATURE_SELECT, 0);
    write32(c + DRIVER_FEATURE, 0);
    write32(c + DRIVER_FEATURE_SELECT, 1);
    write32(c + DRIVER_FEATURE, 1); /* VERSION_1 */
    c[DEVICE_STATUS] = 11;
    if (!(c[DEVICE_STATUS] & 8)) {
        return false;
    }
    write16(c + MSIX_CONFIG, 0xffff);
    write16(c + QUEUE_SELECT, 0);
    write16(c + QUEUE_SIZE_REG, QUEUE_SIZE);
    write16(c + QUEUE_MSIX, 0);
    if (read16(c + QUEUE_MSIX) != 0) {
        return false;
    }
    write64(c + QUEUE_DESC, (uint64_t)desc);
    write64(c + QUEUE_AVAIL, (uint64_t)&avail);
    write64(c + QUEUE_USED, (uint64_t)&used);
    write16(c + QUEUE_ENABLE, 1);
    disk->doorbell = (volatile uint16_t *)(disk->notify +
                                           read16(c + QUEUE_NOTIFY_OFF) * disk->notify_multiplier);
    c[DEVICE_STATUS] = 15;
    disk->sectors = *(volatile uint32_t *)config | (uint64_t) * (volatile uint32_t *)(config + 4)
                                                       << 32;
    disk->depth = depth;
    return true;
}

void disk_submit(unsigned slot, bool is_write, uint64_t sector, void *buf, uint32_t bytes)
{
    unsigned d = slot * 3;

    header[slot].type = is_write;
    header[slot].sector = sector;
    status[slot] = 0xff;
    desc[d] = (struct descriptor){(uint64_t)&header[slot], 16, DESC_NEXT, d + 1};
    desc[d + 1] =
        (struct descriptor){(uint64_t)buf, bytes, DESC_NEXT | (is_write ? 0 : DESC_WRITE), d + 2};
    desc[d + 2] = (struct descriptor){(uint64_t)&status[slot], 1, DESC_WRITE, 0};
    avail.ring[avail.index % QUEUE_SIZE] = d;
    __atomic_store_n(&avail.index, avail.index + 1, __ATOMIC_RELEASE);
}

void disk_kick(struct disk *disk)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!(used.flags & 1)) {
        *disk->doorbell = 0;
    }
}

int disk_done(struct disk *disk, bool *ok)
{
    uint32_t id;

    if (last_used == __atomic_load_n(&used.index, __ATOMIC_ACQUIRE)) {
        return -1;
    }
    id = used.ring[last_used++ % QUEUE_SIZE].id;
    if (id % 3 || id / 3 >= disk->depth) {
        fail("used ring names a descriptor that was not given");
    }
    *ok = status[id / 3] == 0;
    return id / 3;
}

void disk_spoil(uint32_t where, uint32_t what)
{
    volatile uint32_t *ring = where & 1 ? (volatile uint32_t *)&avail : (volatile uint32_t *)desc;

    ring[where / 2 % (where & 1 ? sizeof(avail) / 4 : sizeof(desc) / 4)] = what;
}
