/* SPDX-License-Identifier: MIT */
/*
 * A driver without reason: random writes to registers, rings, descriptors, the MSI-X table and
 * configuration space, mixed with resets, VM stops and doorbells. Seeds are fixed, so a failure can
 * be repeated; FERRY_FUZZ_ROUNDS makes it longer, FERRY_FUZZ_SEED starts elsewhere. In the end the
 * device must work, and nothing but the driver's own RAM may have changed.
 */
#include <linux/pci_regs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"
#include "blkdriver.h"
#include "cm.h"
#include "device/iothread.h"
#include "device/system.h"
#include "fake_accel.h"
#include "fake_disk.h"
#include "hw/virtio/virtio.h"
#include "mem/dma.h"
#include "mem/machine_lock.h"

static struct vdriver driver;
static uint64_t random_state;

static uint64_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static uint64_t below(uint64_t limit)
{
    return random_next() % limit;
}

/* Numbers that are likely to be on an edge. */
static uint64_t edge(void)
{
    static const uint64_t edges[] = {0,
                                     1,
                                     2,
                                     15,
                                     16,
                                     255,
                                     256,
                                     257,
                                     512,
                                     4095,
                                     4096,
                                     0x7fff,
                                     0x8000,
                                     0xffff,
                                     0x10000,
                                     0x7fffffff,
                                     0x80000000,
                                     UINT32_MAX,
                                     UINT64_C(1) << 32,
                                     INT64_MAX,
                                     UINT64_MAX};

    switch (below(4)) {
    case 0:
        return random_next();
    case 1:
        return edges[below(ARRAY_SIZE(edges))] + below(3) - 1;
    case 2:
        return BIT64(below(64));
    default:
        return below(64);
    }
}

static uint64_t some_address(void)
{
    switch (below(8)) {
    case 0:
        return edge();
    case 1:
        return RIG_RAM_SIZE - below(1024);
    case 2:
        return RIG_ROM + below(RIG_ROM_SIZE);
    case 3:
        return RIG_ECAM + below(1 << 20);
    case 4:
        return driver.common + below(0x4000);
    case 5:
        return RIG_HIGH_RAM + below(RIG_HIGH_SIZE);
    default:
        return MiB + below(8 * MiB);
    }
}

static void fuzz_register(void)
{
    static const unsigned sizes[] = {1, 2, 4, 8};
    unsigned size = sizes[below(4)];

    switch (below(8)) {
    case 0:
        guest_write(driver.device + below(80), edge(), size);
        break;
    case 1:
        guest_write(driver.isr + below(8), edge(), size);
        guest_read(driver.isr, 1);
        break;
    case 2:
        guest_write(driver.notify + below(64), edge(), size);
        break;
    case 3:
        guest_write(driver.msix_table + below(48), below(2) ? edge() : below(2), size);
        guest_read(driver.msix_pba, 8);
        break;
    case 4:
        guest_config_write(BLK_DEVFN, driver.msix_capability + PCI_MSIX_FLAGS,
                           (uint32_t)(below(4) << 14), 2);
        break;
    case 5: {
        unsigned offset = (unsigned)below(256);
        if (offset < PCI_COMMAND || offset >= 0x28) {
            guest_config_write(BLK_DEVFN, offset, (uint32_t)edge(), 1);
        }
        break;
    }
    default:
        common_write(&driver, (unsigned)below(0x40), edge(), size);
        common_read(&driver, (unsigned)below(0x40), size);
        break;
    }
}

static void fuzz_descriptor(void)
{
    unsigned index = (unsigned)below(driver.queue.size);
    uint32_t length = (uint32_t)(below(3) ? 1 + below(1024) : edge());
    uint16_t flags = (uint16_t)(below(8) ? below(4) : below(8));

    vqueue_set_desc(&driver.queue, index, some_address(), length, flags,
                    (uint16_t)(below(4) ? below(driver.queue.size) : edge()));
}

static void good_request(void)
{
    static const uint32_t types[] = {VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_FLUSH,
                                     VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_DISCARD};
    uint32_t type = types[below(ARRAY_SIZE(types))];
    uint32_t length = type <= VIRTIO_BLK_T_OUT     ? 512 * (1 + (uint32_t)below(8))
                      : type == VIRTIO_BLK_T_FLUSH ? 0
                                                   : 16;
    uint64_t header = MiB + below(MiB) * 8;
    struct blk_request r = {
        .type = type,
        .length = length,
        .header = header,
        .data = 9 * MiB + below(MiB),
        .status = 10 * MiB + below(MiB),
    };
    unsigned head = (unsigned)below(driver.queue.size / 4) * 3;

    guest_store32(guest_ram(header), type);
    guest_store64(guest_ram(header + 8), below(2040));
    if (type == VIRTIO_BLK_T_DISCARD) {
        store_le64(guest_ram(r.data), below(2040));
        store_le64((uint8_t *)guest_ram(r.data) + 8, below(16));
    }
    blk_publish(&driver, &r, head);
}

/* A request that might be fine, or nearly. */
static void fuzz_request(void)
{
    struct buffer buffers[6];
    unsigned n = 1 + (unsigned)below(5);
    unsigned head = (unsigned)below(driver.queue.size - 6);
    uint64_t header = MiB + below(MiB) * 8;
    uint8_t *bytes = guest_ram(header);

    guest_store32(bytes, (uint32_t)(below(4) ? below(15) : edge()));
    guest_store64(bytes + 8, below(4) ? below(2050) : edge());
    buffers[0] = (struct buffer){header, below(8) ? 16 : (uint32_t)below(32), below(16) == 0};
    for (unsigned i = 1; i < n; i++) {
        buffers[i] = (struct buffer){below(16) ? MiB + below(8 * MiB) : some_address(),
                                     (uint32_t)(below(4) ? 512 * (1 + below(4)) : 1 + below(600)),
                                     i + 1 == n || below(2)};
    }
    if (below(3) == 0) {
        vqueue_set_indirect(&driver.queue, head, buffers, n);
    } else {
        vqueue_set_chain(&driver.queue, head, buffers, n);
    }
    vqueue_publish(&driver.queue, (uint16_t)head);
}

static void fuzz_ring(void)
{
    switch (below(100)) {
    case 0:
        vqueue_set_avail_index(&driver.queue, (uint16_t)edge());
        break;
    case 1:
        vqueue_publish(&driver.queue, (uint16_t)edge());
        break;
    case 2:
        vqueue_set_used_event(&driver.queue, (uint16_t)edge());
        break;
    case 3:
        vqueue_set_avail_flags(&driver.queue, (uint16_t)edge());
        break;
    case 4:
        /* What the device owns. */
        guest_store16(guest_ram(driver.queue.at.used + 2), (uint16_t)edge());
        break;
    case 5:
    case 6:
        fuzz_descriptor();
        break;
    case 7:
        fuzz_request();
        break;
    default:
        good_request();
        break;
    }
}

static void restart(void)
{
    fake_disk.hold = false; /* a reset waits for the disk */
    guest_config_write(BLK_DEVFN, PCI_COMMAND, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY, 2);
    vdriver_start(&driver, random_next(), 1u << (3 + below(6)), below(4) != 0);
}

static void fuzz_step(void)
{
    switch (below(200)) {
    case 0:
        restart();
        break;
    case 1:
        vdriver_set_status(&driver, (uint8_t)edge());
        break;
    case 2:
        fake_disk.hold = false;
        system_vm_state_changed(false);
        rig_run();
        system_vm_state_changed(true);
        break;
    case 3:
        guest_config_write(BLK_DEVFN, PCI_COMMAND, (uint32_t)random_next(), 2);
        break;
    case 4:
        machine_lock();
        devices_reset();
        machine_unlock();
        rig_assign();
        break;
    case 5:
        fake_disk.hold = false;
        system_vm_state_changed(false); /* nobody reads `error` meanwhile */
        fake_disk.error[below(FAKE_OPS)] = below(4) == 0 ? -(int)(1 + below(130)) : 0;
        system_vm_state_changed(true);
        break;
    case 6:
        fake_disk.hold = below(4) == 0;
        break;
    case 7:
    case 8:
        fake_disk.hold = false;
        break;
    default:
        if (below(16)) {
            fuzz_ring();
        } else {
            fuzz_register();
        }
        if (below(3) == 0) {
            vdriver_kick(&driver);
        }
        if (below(3) == 0) {
            rig_run();
        }
        break;
    }
    if (vdriver_status(&driver) & VIRTIO_STATUS_NEEDS_RESET && below(4) == 0) {
        restart();
    }
}

static unsigned long setting(const char *name, unsigned long value)
{
    const char *text = getenv(name);

    return text ? strtoul(text, NULL, 0) : value;
}

static void fuzz(uint64_t seed, bool iothread)
{
    unsigned long rounds = setting("FERRY_FUZZ_ROUNDS", 20000);

    random_state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    rig_init(below(4) != 0);
    blk_add_fake_disk(",discard=unmap");
    if (iothread) {
        rig_object("iothread,id=io0");
    }
    blk_add_device(&driver, iothread ? ",iothread=io0,rerror=stop" : ",werror=ignore");
    restart();
    for (unsigned long i = 0; i < rounds; i++) {
        if (i % 512 == 0) {
            rig_free_all(); /* tables of indirect descriptors */
            restart();
        }
        fuzz_step();
    }
    fake_disk_release();
    system_vm_state_changed(false);
    memset(fake_disk.error, 0, sizeof(fake_disk.error));
    system_vm_state_changed(true);
    guest_config_write(BLK_DEVFN, PCI_COMMAND, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY, 2);
    vdriver_start(&driver, 0, 0, true);
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 7, 512);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_OK);
    assert_memory_equal(guest_ram(r.data), fake_disk.data + 7 * 512, 512);
    print_message("%u reads, %u writes, %u flushes, %u discards\n", fake_disk.count[0],
                  fake_disk.count[1], fake_disk.count[2], fake_disk.count[3]);
    /* Nobody writes into ROM. */
    for (uint64_t i = 0; i < RIG_ROM_SIZE; i++) {
        assert_int_equal(rig.rom.ram->host[i], 0);
    }
    rig_destroy();
}

/* Buffers of such a driver overlap while the disk writes into them: a race by intent, which
 * ThreadSanitizer cannot know. thread_test has those that must not be. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define IS_TSAN true
#endif
#elif defined(__SANITIZE_THREAD__)
#define IS_TSAN true
#endif
#ifndef IS_TSAN
#define IS_TSAN false
#endif

static void test_fuzz(void **state)
{
    bool iothread = *(bool *)*state;
    unsigned long first = setting("FERRY_FUZZ_SEED", 1);

    if (iothread && IS_TSAN) {
        skip();
    }
    for (unsigned long seed = first; seed < first + 4; seed++) {
        print_message("seed %lu\n", seed);
        fuzz(seed, iothread);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        {.name = "test_fuzz, main loop", .test_func = test_fuzz, .initial_state = &(bool){false}},
        {.name = "test_fuzz, iothread", .test_func = test_fuzz, .initial_state = &(bool){true}},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
