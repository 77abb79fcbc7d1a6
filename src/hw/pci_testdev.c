/* SPDX-License-Identifier: MIT */
/*
 * pci-testdev (1b36:0005): tests of single accesses, with and without ioeventfds, and a BAR of any
 * size.
 *
 *   BAR 0 (memory, 4 KiB) and BAR 1 (I/O, 256 bytes) each begin with
 *
 *      0  test    write: starts test N; byte
 *      1  width   bytes of the access that the test wants; 0: there is no such test
 *      4  offset  where in this BAR
 *      8  data    what to write there
 *     12  count   writes that have been seen
 *     16  name    zero-terminated
 *
 *   BAR 2 (64-bit memory) holds nothing; its size is the property membar.
 *
 * Test 0 counts in the device's write callback, 1 by an ioeventfd that takes any data, 2 by one
 * that compares.
 */
#include <stdio.h>
#include <string.h>

#include "aio/notifier.h"
#include "base/bytes.h"
#include "base/range.h"
#include "device/vmstate.h"
#include "hw/isa_misc.h"
#include "pci/pci.h"

#define HEADER_SIZE   64
#define HEADER_TEST   0
#define HEADER_WIDTH  1
#define HEADER_OFFSET 4
#define HEADER_DATA   8
#define HEADER_COUNT  12
#define HEADER_NAME   16

#define MEMORY_SIZE  4096
#define IO_SIZE      256
#define ACCESS_WIDTH 1
#define DATA_MATCH   0xfa
#define DATA_OTHER   0xce

enum { TEST_CALLBACK, TEST_WILDCARD, TEST_DATAMATCH, TEST_COUNT };
enum { BAR_MEMORY, BAR_IO, BAR_COUNT };
#define NO_TEST TEST_COUNT

static const char *const test_names[TEST_COUNT] = {
    "no-eventfd",
    "wildcard-eventfd",
    "datamatch-eventfd",
};

struct testdev_bar {
    /* constant after realize */
    struct mem_region region;
    bool is_io;
    /* machine state */
    uint8_t test; /* NO_TEST: none runs */
    uint32_t count;
    struct event_notifier notifier;
    struct mem_eventfd eventfd; /* registered if its notifier is not NULL */
};

struct pci_testdev {
    struct pci_device pci;
    /* properties */
    uint64_t membar;
    bool membar_backed;
    /* machine state */
    struct testdev_bar bar[BAR_COUNT];
    struct mem_region memory; /* BAR 2 */
};

/* ---- tests ---------------------------------------------------------------------------------- */

static uint32_t test_offset(unsigned test)
{
    return HEADER_SIZE + test * ACCESS_WIDTH;
}

static uint8_t test_data(unsigned test)
{
    return test == TEST_DATAMATCH ? DATA_MATCH : DATA_OTHER;
}

static void stop_test(struct testdev_bar *bar)
{
    if (bar->eventfd.notifier) {
        mem_region_del_eventfd(&bar->region, &bar->eventfd);
        bar->eventfd.notifier = NULL;
    }
    bar->test = NO_TEST;
}

static void start_test(struct testdev_bar *bar, uint8_t test)
{
    stop_test(bar);
    bar->count = 0;
    if (test >= TEST_COUNT) {
        return;
    }
    bar->test = test;
    if (test != TEST_CALLBACK) {
        event_notifier_test_and_clear(&bar->notifier);
        bar->eventfd = (struct mem_eventfd){
            .offset = test_offset(test),
            .size = ACCESS_WIDTH,
            .datamatch = test == TEST_DATAMATCH,
            .data = test_data(test),
            .notifier = &bar->notifier,
        };
        mem_region_add_eventfd(&bar->region, &bar->eventfd);
    }
}

/* ---- BARs ----------------------------------------------------------------------------------- */

static uint64_t bar_read(void *opaque, uint64_t offset, unsigned size)
{
    struct testdev_bar *bar = opaque;
    uint8_t header[HEADER_SIZE] = {0};

    if (bar->test == NO_TEST || !range_fits(offset, size, sizeof(header))) {
        return 0;
    }
    if (event_notifier_test_and_clear(&bar->notifier)) {
        bar->count++;
    }
    header[HEADER_TEST] = bar->test;
    header[HEADER_WIDTH] = ACCESS_WIDTH;
    store_le32(header + HEADER_OFFSET, test_offset(bar->test));
    store_le32(header + HEADER_DATA, test_data(bar->test));
    store_le32(header + HEADER_COUNT, bar->count);
    snprintf((char *)header + HEADER_NAME, sizeof(header) - HEADER_NAME, "%s-%s",
             bar->is_io ? "portio" : "mmio", test_names[bar->test]);
    return load_le(header + offset, size);
}

static void bar_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct testdev_bar *bar = opaque;

    if (offset == HEADER_TEST) {
        start_test(bar, (uint8_t)value);
    } else if (bar->test != NO_TEST && offset == test_offset(bar->test) &&
               (bar->test == TEST_WILDCARD ||
                (size == ACCESS_WIDTH && value == test_data(bar->test)))) {
        bar->count++;
    }
}

static const struct mem_region_ops bar_ops = {
    .read = bar_read,
    .write = bar_write,
    .valid = {.min = 1, .max = 4},
};

static uint64_t read_nothing(void *opaque, uint64_t offset, unsigned size)
{
    return 0;
}

static void write_nothing(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
}

static const struct mem_region_ops membar_ops = {
    .read = read_nothing,
    .write = write_nothing,
    .valid = {.min = 1, .max = 8},
    .lockless = true,
};

/* ---- device --------------------------------------------------------------------------------- */

static void destroy_bars(struct pci_testdev *d)
{
    for (unsigned i = 0; i < BAR_COUNT; i++) {
        event_notifier_cleanup(&d->bar[i].notifier);
        mem_region_destroy(&d->bar[i].region);
    }
    mem_region_destroy(&d->memory);
}

static bool init_membar(struct pci_testdev *d, struct error **errp)
{
    if (!d->membar) {
        return true;
    }
    if (!is_power_of_2(d->membar) || d->membar < 16) {
        error_set(errp, "pci-testdev: membar must be a power of 2 of at least 16 bytes");
        return false;
    }
    if (!d->membar_backed) {
        mem_region_init_io(&d->memory, "pci-testdev-membar", d->membar, &membar_ops, d);
    } else if (!mem_region_init_ram(&d->memory, "pci-testdev-membar", d->membar, false, errp)) {
        return false;
    }
    pci_register_bar(&d->pci, 2, &d->memory, false, true, true);
    d->pci.bar[2].size_property = "membar";
    return true;
}

static bool testdev_realize(struct device *dev, struct error **errp)
{
    struct pci_testdev *d = (struct pci_testdev *)dev;
    static const char *const names[] = {"pci-testdev-mmio", "pci-testdev-portio"};

    for (unsigned i = 0; i < BAR_COUNT; i++) {
        d->bar[i].notifier.fd = -1;
    }
    for (unsigned i = 0; i < BAR_COUNT; i++) {
        struct testdev_bar *bar = &d->bar[i];
        bar->is_io = i == BAR_IO;
        bar->test = NO_TEST;
        if (!event_notifier_init(&bar->notifier, errp)) {
            destroy_bars(d);
            return false;
        }
        mem_region_init_io(&bar->region, names[i], i == BAR_IO ? IO_SIZE : MEMORY_SIZE, &bar_ops,
                           bar);
    }
    if (!init_membar(d, errp)) {
        destroy_bars(d);
        return false;
    }
    pci_register_bar(&d->pci, BAR_MEMORY, &d->bar[BAR_MEMORY].region, false, false, false);
    pci_register_bar(&d->pci, BAR_IO, &d->bar[BAR_IO].region, true, false, false);
    return true;
}

static void testdev_unrealize(struct device *dev)
{
    struct pci_testdev *d = (struct pci_testdev *)dev;

    pci_unmap_bars(&d->pci);
    for (unsigned i = 0; i < BAR_COUNT; i++) {
        stop_test(&d->bar[i]);
    }
    destroy_bars(d);
}

static void testdev_reset(struct device *dev)
{
    struct pci_testdev *d = (struct pci_testdev *)dev;

    for (unsigned i = 0; i < BAR_COUNT; i++) {
        stop_test(&d->bar[i]);
        d->bar[i].count = 0;
    }
}

static bool testdev_post_load(void *device, unsigned version)
{
    struct pci_testdev *d = device;

    for (unsigned i = 0; i < BAR_COUNT; i++) {
        struct testdev_bar *bar = &d->bar[i];
        uint32_t count = bar->count;
        uint8_t test = bar->test;
        start_test(bar, test);
        bar->count = count;
    }
    return true;
}

static const struct property testdev_props[] = {
    PROPERTY_SIZE("membar", struct pci_testdev, membar, 0, 0, 0, "size of BAR 2, 0: none"),
    PROPERTY_BOOL("membar-backed", struct pci_testdev, membar_backed, false, "BAR 2 is RAM"),
    PROPERTY_END,
};

static const struct vmstate_field testdev_fields[] = {
    VMSTATE_SUB(struct pci_testdev, pci, pci_device_vmstate, 1),
    VMSTATE_UINT(struct pci_testdev, bar[0].test),
    VMSTATE_UINT(struct pci_testdev, bar[1].test),
    VMSTATE_UINT(struct pci_testdev, bar[0].count),
    VMSTATE_UINT(struct pci_testdev, bar[1].count),
    VMSTATE_END,
};

static const struct vmstate testdev_vmstate = {
    .name = "pci-testdev",
    .version = 1,
    .minimum_version = 1,
    .fields = testdev_fields,
    .post_load = testdev_post_load,
};

static const struct pci_device_class testdev_class = {
    .vendor_id = 0x1b36,
    .device_id = 0x0005,
    .class_code = 0x00ff00,
    .subsystem_vendor_id = 0x1af4,
    .subsystem_id = 0x1100,
};

const struct device_type pci_testdev_type = {
    .name = "pci-testdev",
    .parent = &pci_device_type,
    .description = "PCI Test Device",
    .category = DEVICE_CATEGORY_MISC,
    .size = sizeof(struct pci_testdev),
    .props = testdev_props,
    .class = &testdev_class,
    .realize = testdev_realize,
    .unrealize = testdev_unrealize,
    .reset = testdev_reset,
    .vmstate = &testdev_vmstate,
};
