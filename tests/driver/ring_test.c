/* SPDX-License-Identifier: MIT */
/*
 * A hostile driver, ring by ring and field by field. Each violation sets NEEDS_RESET and announces
 * it; the device then touches neither ring nor disk, and after a reset works as before.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"
#include "blkdriver.h"
#include "cm.h"
#include "fake_accel.h"
#include "fake_disk.h"
#include "hw/virtio/virtio.h"
#include "mem/dma.h"
#include "mem/machine_lock.h"

#define HOLE     UINT64_C(0x40000000)
#define INDIRECT BIT64(VIRTIO_F_RING_INDIRECT_DESC)

static struct vdriver driver;
static struct blk_request good; /* a read, well formed */

static int teardown(void **state)
{
    fake_disk_release();
    rig_destroy();
    return 0;
}

static void start(bool iothread, uint64_t features)
{
    rig_init(true);
    blk_add_fake_disk("");
    if (iothread) {
        rig_object("iothread,id=io0");
    }
    blk_add_device(&driver, iothread ? ",iothread=io0" : "");
    vdriver_start(&driver, features, 0, true);
    good = blk_request(VIRTIO_BLK_T_IN, 7, 512);
}

static void run_a_while(void)
{
    for (unsigned i = 0; i < 100; i++) {
        rig_run();
    }
}

/* The device has noticed, is still, and can be brought back. */
static void check_broken(const char *name)
{
    uint64_t features = driver.features;
    unsigned reads = fake_disk.count[FAKE_READ];

    if (!vdriver_wait_status(&driver, VIRTIO_STATUS_NEEDS_RESET)) {
        fail_msg("%s: not noticed", name);
    }
    assert_true(vdriver_wait_interrupts(VDRIVER_CONFIG_DATA, 1));
    vqueue_publish(&driver.queue, 0);
    vdriver_kick(&driver);
    run_a_while();
    assert_int_equal(vqueue_used_index(&driver.queue), driver.queue.seen_used);
    assert_int_equal(fake_disk.count[FAKE_READ], reads);
    vdriver_set_status(&driver, vdriver_status(&driver)); /* does not help */
    assert_true(vdriver_status(&driver) & VIRTIO_STATUS_NEEDS_RESET);

    vdriver_start(&driver, features, 0, true);
    assert_int_equal(blk_perform(&driver, &good), VIRTIO_BLK_S_OK);
    assert_true(blk_data_is(&good, 7 * 512));
}

/* ---- chains --------------------------------------------------------------------------------- */

#define NEXT  VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define INDIR VRING_DESC_F_INDIRECT

/* The chain of a read, one descriptor of which is spoilt; indirect: within a table. */
struct chain_case {
    const char *name;
    unsigned index;   /* which descriptor of the three is replaced */
    uint64_t address; /* 0: as it is */
    uint32_t length;
    int flags; /* -1: as they are */
    uint16_t next;
};

static const struct chain_case chain_cases[] = {
    {"length 0 of the header", 0, 0, 0, -1, 1},
    {"length 0 of the data", 1, 0, 0, -1, 2},
    {"length 0 of the status", 2, 0, 0, -1, 0},
    {"header where nothing is", 0, HOLE, 16, -1, 1},
    {"data where nothing is", 1, HOLE, 512, -1, 2},
    {"status where nothing is", 2, HOLE, 1, -1, 0},
    {"data in MMIO", 1, RIG_ECAM, 512, -1, 2},
    {"header in MMIO", 0, RIG_ECAM, 16, -1, 1},
    {"data in ROM", 1, RIG_ROM, 512, -1, 2},
    {"status in ROM", 2, RIG_ROM, 1, -1, 0},
    {"data beyond the end of RAM", 1, RIG_RAM_SIZE - 256, 512, -1, 2},
    {"data of 4 GiB", 1, 4096, UINT32_MAX, -1, 2},
    {"data that wrap", 1, UINT64_MAX - 255, 512, -1, 2},
    {"data at the last byte", 1, UINT64_MAX, 1, -1, 2},
    {"next beyond the table", 0, 0, 16, NEXT, 0x7fff},
    {"next just beyond the table", 0, 0, 16, NEXT, 256},
    {"a loop to itself", 0, 0, 16, NEXT, 0},
    {"a loop of three", 2, 0, 1, WRITE | NEXT, 1},
    {"readable after writable", 2, 0, 16, 0, 0},
    {"no status: nothing is writable", 1, 0, 512, 0, 0},
    {"no header: nothing is readable", 0, 0, 16, WRITE | NEXT, 1},
    {"a header that is too short", 0, 0, 15, NEXT, 1},
    {"indirect without the feature, or within a table", 1, 0, 16, INDIR, 0},
    {"indirect and next", 1, 0, 16, INDIR | NEXT, 2},
    {"indirect of length 0", 1, 0, 0, INDIR, 0},
};

static void spoil(struct vqueue *table, const struct chain_case *c, uint16_t first)
{
    uint8_t *desc = guest_ram(table->at.desc + (first + c->index) * 16u);
    uint64_t address = load_le64(desc);
    uint16_t flags = load_le16(desc + 12);

    vqueue_set_desc(table, first + c->index, c->address ? c->address : address, c->length,
                    c->flags >= 0 ? (uint16_t)c->flags : flags, (uint16_t)(c->next + first));
}

static void test_chains(bool iothread, uint64_t features, bool in_table)
{
    start(iothread, features);
    for (unsigned i = 0; i < ARRAY_SIZE(chain_cases); i++) {
        const struct chain_case *c = &chain_cases[i];
        struct buffer buffers[3];
        unsigned n = blk_buffers(&good, buffers);
        struct vqueue table = driver.queue;

        if (in_table) {
            vqueue_set_indirect(&driver.queue, 0, buffers, n);
            table.at.desc = load_le64(guest_ram(driver.queue.at.desc));
        } else {
            vqueue_set_chain(&driver.queue, 0, buffers, n);
        }
        spoil(&table, c, 0);
        unsigned announced = fake_interrupts(VDRIVER_CONFIG_DATA);
        vqueue_publish(&driver.queue, 0);
        vdriver_kick(&driver);
        check_broken(c->name);
        assert_int_equal(fake_interrupts(VDRIVER_CONFIG_DATA), announced + 1);
    }
}

static void test_direct_chains(void **state)
{
    test_chains(*(bool *)*state, 0, false);
}

static void test_indirect_chains(void **state)
{
    test_chains(*(bool *)*state, INDIRECT, true);
}

/* ---- indirect tables ------------------------------------------------------------------------ */

static void test_indirect_tables(void **state)
{
    static const struct {
        const char *name;
        uint64_t address; /* 0: the table */
        uint32_t length;
        uint16_t flags;
    } cases[] = {
        {"length 0", 0, 0, INDIR},
        {"length 15", 0, 15, INDIR},
        {"length 47", 0, 47, INDIR},
        {"length 49", 0, 49, INDIR},
        {"more than 1024 entries", 0, 1025 * 16, INDIR},
        {"length 0xfffffff0", 0, 0xfffffff0, INDIR},
        {"a table where nothing is", HOLE, 48, INDIR},
        {"a table in MMIO", RIG_ECAM, 48, INDIR},
        {"a table beyond the end of RAM", RIG_RAM_SIZE - 16, 48, INDIR},
        {"a table that wraps", UINT64_MAX - 15, 48, INDIR},
        {"with a next one", 0, 48, INDIR | NEXT},
        {"a chain longer than its table", 0, 32, INDIR},
    };

    start(*(bool *)*state, INDIRECT);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct buffer buffers[3];
        unsigned n = blk_buffers(&good, buffers);
        vqueue_set_indirect(&driver.queue, 0, buffers, n);
        uint64_t table = load_le64(guest_ram(driver.queue.at.desc));
        vqueue_set_desc(&driver.queue, 0, cases[i].address ? cases[i].address : table,
                        cases[i].length, cases[i].flags, 1);
        vqueue_publish(&driver.queue, 0);
        vdriver_kick(&driver);
        check_broken(cases[i].name);
    }
    /* WRITE at an indirect descriptor is to be ignored (2.7.5.3.2), and descriptors may come
     * before it. */
    uint32_t head, written;
    struct buffer buffers[3];
    unsigned n = blk_buffers(&good, buffers);
    vqueue_set_indirect(&driver.queue, 1, buffers + 1, n - 1);
    uint64_t table = load_le64(guest_ram(driver.queue.at.desc + 16));
    vqueue_set_desc(&driver.queue, 1, table, 32, INDIR | WRITE, 0);
    vqueue_set_desc(&driver.queue, 0, good.header, 16, NEXT, 1);
    vqueue_publish(&driver.queue, 0);
    vdriver_kick(&driver);
    assert_true(vdriver_wait_used(&driver, &head, &written));
    assert_int_equal(written, 513);
}

/* Tables that would make a fine request if nobody looked where they end, and requests that would be
 * fine with an indirect descriptor more or less. */
static void test_tempting_tables(void **state)
{
    struct buffer buffers[3];

    start(*(bool *)*state, INDIRECT);
    unsigned n = blk_buffers(&good, buffers);
    /* The third entry is beyond the table's end. */
    vqueue_set_indirect(&driver.queue, 0, buffers, n);
    struct vqueue table = {.size = 3, .at.desc = load_le64(guest_ram(driver.queue.at.desc))};
    vqueue_set_desc(&table, 0, good.header, 16, NEXT, 2);
    vqueue_set_desc(&driver.queue, 0, table.at.desc, 32, INDIR, 0);
    vqueue_publish(&driver.queue, 0);
    vdriver_kick(&driver);
    check_broken("a next beyond a table that goes on in memory");

    /* Its unused fourth entry is beyond the end of RAM. */
    table.at.desc = RIG_RAM_SIZE - 48;
    vqueue_set_chain(&table, 0, buffers, n);
    vqueue_set_desc(&driver.queue, 0, table.at.desc, 64, INDIR, 0);
    vqueue_publish(&driver.queue, 0);
    vdriver_kick(&driver);
    check_broken("a table that ends behind RAM");

    /* Header and status, and then another table. */
    vqueue_set_indirect(&driver.queue, 0, buffers, n);
    table.at.desc = load_le64(guest_ram(driver.queue.at.desc));
    vqueue_set_desc(&table, 1, good.status, 1, WRITE | NEXT, 2);
    vqueue_set_desc(&table, 2, table.at.desc, 48, INDIR, 0);
    vqueue_publish(&driver.queue, 0);
    vdriver_kick(&driver);
    check_broken("a table within a table");

    /* A good table that was not negotiated. */
    vdriver_start(&driver, 0, 0, true);
    vqueue_set_indirect(&driver.queue, 0, buffers, n);
    vqueue_publish(&driver.queue, 0);
    vdriver_kick(&driver);
    check_broken("an indirect descriptor without the feature");
}

/* As many buffers as an element can have, and one more. */
static void test_buffer_count(void **state)
{
    struct buffer *buffers = xcalloc(1025, sizeof(*buffers));
    uint32_t head, written;

    start(*(bool *)*state, INDIRECT);
    uint64_t data = guest_alloc(1022 * 512, 512);
    buffers[0] = (struct buffer){good.header, 16, false};
    for (unsigned i = 1; i < 1023; i++) {
        buffers[i] = (struct buffer){data + (i - 1) * 512, 512, true};
    }
    buffers[1023] = (struct buffer){good.status, 1, true};
    vqueue_set_indirect(&driver.queue, 0, buffers, 1024);
    vqueue_publish(&driver.queue, 0);
    vdriver_kick(&driver);
    assert_true(vdriver_wait_used(&driver, &head, &written));
    assert_int_equal(written, 1022 * 512 + 1);
    assert_int_equal(blk_status(&good), VIRTIO_BLK_S_OK);
    /* A buffer after an indirect table. */
    vqueue_set_indirect(&driver.queue, 1, buffers + 1, 1023);
    vqueue_set_desc(&driver.queue, 0, good.header, 8, NEXT, 2);
    vqueue_set_desc(&driver.queue, 2, good.header + 8, 8, NEXT, 1);
    vqueue_publish(&driver.queue, 0);
    vdriver_kick(&driver);
    check_broken("1025 buffers");
    free(buffers);
}

/* ---- the available ring --------------------------------------------------------------------- */

static void test_avail(void **state)
{
    static const uint16_t jumps[] = {257, 300, 0x7fff, 0x8000, 0xffff};
    static const uint16_t heads[] = {256, 257, 0x8000, 0xffff};

    start(*(bool *)*state, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(jumps); i++) {
        vqueue_set_avail_index(&driver.queue, jumps[i]);
        vdriver_kick(&driver);
        check_broken("a jump of the index");
    }
    for (unsigned i = 0; i < ARRAY_SIZE(heads); i++) {
        vqueue_publish(&driver.queue, heads[i]);
        vdriver_kick(&driver);
        check_broken("a head beyond the table");
    }
    /* The index runs backwards. */
    vqueue_set_avail_index(&driver.queue, 0);
    vdriver_kick(&driver);
    check_broken("an index that goes back");
}

static bool held_is(void *opaque)
{
    return fake_disk.held == *(unsigned *)opaque;
}

/* One head again and again: as often as there are descriptors, no more. */
static void test_same_head(void **state)
{
    start(*(bool *)*state, 0);
    vdriver_start(&driver, 0, 8, true);
    fake_disk.hold = true;
    blk_publish(&driver, &good, 0);
    for (unsigned i = 1; i < 8; i++) {
        vqueue_publish(&driver.queue, 0);
    }
    vdriver_kick(&driver);
    assert_true(rig_wait(held_is, &(unsigned){8}));
    vqueue_publish(&driver.queue, 0);
    vdriver_kick(&driver);
    assert_true(vdriver_wait_status(&driver, VIRTIO_STATUS_NEEDS_RESET));
    fake_disk_release();
    vdriver_start(&driver, 0, 8, true);
    assert_int_equal(blk_perform(&driver, &good), VIRTIO_BLK_S_OK);
}

/* ---- places of rings ------------------------------------------------------------------------ */

static void set_ring(unsigned ring, uint64_t address)
{
    unsigned low = VIRTIO_PCI_COMMON_Q_DESCLO + ring * 8;

    common_write(&driver, low, (uint32_t)address, 4);
    common_write(&driver, low + 4, address >> 32, 4);
}

static void begin_setup(void)
{
    uint8_t status = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER;

    assert_true(vdriver_reset(&driver));
    vdriver_set_status(&driver, status);
    vdriver_set_features(&driver, BIT64(VIRTIO_F_VERSION_1));
    vdriver_set_status(&driver, status | VIRTIO_STATUS_FEATURES_OK);
    vdriver_enable_msix(&driver);
    common_write(&driver, VIRTIO_PCI_COMMON_MSIX, 0, 2);
    vqueue_alloc(&driver.queue, 256);
    common_write(&driver, VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
    set_ring(0, driver.queue.at.desc);
    set_ring(1, driver.queue.at.avail);
    set_ring(2, driver.queue.at.used);
}

/* What can be seen at once keeps the queue from being enabled. */
static void test_misaligned_rings(void **state)
{
    static const struct {
        unsigned ring;
        uint64_t address;
    } cases[] = {
        {0, 0x10008},
        {0, 0x10001},
        {1, 0x10001},
        {2, 0x10002},
        {2, 0x10001},
        {0, UINT64_MAX - 15},
        {1, UINT64_MAX - 1},
        {2, UINT64_MAX - 3},
        {0, UINT64_MAX - 0xfff},
        {2, UINT64_MAX - 0x7ff},
    };

    start(*(bool *)*state, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        begin_setup();
        set_ring(cases[i].ring, cases[i].address);
        common_write(&driver, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
        if (common_read(&driver, VIRTIO_PCI_COMMON_Q_ENABLE, 2) != 0) {
            fail_msg("case %u: enabled", i);
        }
        /* A device without queues is of no use, but does no harm. */
        vdriver_set_status(&driver, 0xf);
        vdriver_kick(&driver);
        run_a_while();
        assert_int_equal(vdriver_status(&driver), 0xf);
    }
}

static void test_rings_not_in_ram(void **state)
{
    static const struct {
        unsigned ring;
        uint64_t address;
    } cases[] = {
        {0, HOLE},
        {1, HOLE},
        {2, HOLE},
        {0, RIG_ECAM},
        {1, RIG_ECAM},
        {2, RIG_ECAM},
        {2, RIG_ROM}, /* the device writes it */
        {0, RIG_RAM_SIZE - 4080},
        {1, RIG_RAM_SIZE - 516},
        {2, RIG_RAM_SIZE - 2052},
    };

    start(*(bool *)*state, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        begin_setup();
        set_ring(cases[i].ring, cases[i].address);
        common_write(&driver, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
        unsigned before = fake_interrupts(VDRIVER_CONFIG_DATA);
        vdriver_set_status(&driver, 0xf);
        if (!(vdriver_status(&driver) & VIRTIO_STATUS_NEEDS_RESET)) {
            fail_msg("case %u: not noticed", i);
        }
        assert_true(vdriver_wait_interrupts(VDRIVER_CONFIG_DATA, before + 1));
        vdriver_kick(&driver);
        run_a_while();
    }
    /* Descriptors and available ring may be in ROM. */
    vdriver_start(&driver, 0, 0, true);
    assert_int_equal(blk_perform(&driver, &good), VIRTIO_BLK_S_OK);
}

/* Rings that lie on each other, and data that lie on rings: garbage for the driver, no more. */
static void test_overlapping(void **state)
{
    start(*(bool *)*state, 0);
    for (unsigned i = 0; i < 6; i++) {
        begin_setup();
        uint64_t at = driver.queue.at.desc;
        if (i < 3) {
            set_ring(1, at + (i == 1 ? 256 : 0));
            set_ring(2, at + (i == 2 ? 512 : 0));
        }
        common_write(&driver, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
        vdriver_set_status(&driver, 0xf);
        struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 0, 4096);
        r.data = i == 3 ? at : i == 4 ? driver.queue.at.avail : driver.queue.at.used;
        blk_publish(&driver, &r, 0);
        vdriver_kick(&driver);
        run_a_while();
        vdriver_kick(&driver);
        run_a_while();
    }
    vdriver_start(&driver, 0, 0, true);
    assert_int_equal(blk_perform(&driver, &good), VIRTIO_BLK_S_OK);
}

/* ---- bus mastering -------------------------------------------------------------------------- */

static void test_bus_master(void **state)
{
    start(*(bool *)*state, 0);
    uint32_t command = guest_config_read(BLK_DEVFN, 4, 2);
    guest_config_write(BLK_DEVFN, 4, command & ~4u, 2);
    blk_publish(&driver, &good, 0);
    vdriver_kick(&driver);
    assert_true(vdriver_wait_status(&driver, VIRTIO_STATUS_NEEDS_RESET));
    assert_int_equal(vqueue_used_index(&driver.queue), 0);
    assert_int_equal(blk_status(&good), 0xee);
    /* Not a bus master when it starts. */
    assert_true(vdriver_reset(&driver));
    begin_setup();
    common_write(&driver, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
    vdriver_set_status(&driver, 0xf);
    assert_true(vdriver_status(&driver) & VIRTIO_STATUS_NEEDS_RESET);
    guest_config_write(BLK_DEVFN, 4, command, 2);
    vdriver_start(&driver, 0, 0, true);
    assert_int_equal(blk_perform(&driver, &good), VIRTIO_BLK_S_OK);
}

/* The memory that the rings lie in goes away, and only that. */
static void test_rings_vanish(void **state)
{
    start(*(bool *)*state, 0);
    for (unsigned ring = 0; ring < 3; ring++) {
        uint64_t at = RIG_HIGH_RAM + 0x10000;
        begin_setup();
        uint64_t *moved = ring == 0   ? &driver.queue.at.desc
                          : ring == 1 ? &driver.queue.at.avail
                                      : &driver.queue.at.used;
        *moved = at;
        memset(guest_ram(at), 0, 8192);
        set_ring(ring, at);
        common_write(&driver, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
        vdriver_set_status(&driver, 0xf);
        assert_int_equal(blk_perform(&driver, &good), VIRTIO_BLK_S_OK);
        machine_lock();
        mem_region_set_enabled(&rig.high_ram, false);
        machine_unlock();
        unsigned reads = fake_disk.count[FAKE_READ];
        blk_publish(&driver, &good, 0);
        vdriver_kick(&driver);
        assert_true(vdriver_wait_status(&driver, VIRTIO_STATUS_NEEDS_RESET));
        assert_int_equal(fake_disk.count[FAKE_READ], reads);
        machine_lock();
        mem_region_set_enabled(&rig.high_ram, true);
        machine_unlock();
    }
    vdriver_start(&driver, 0, 0, true);
    assert_int_equal(blk_perform(&driver, &good), VIRTIO_BLK_S_OK);
}

/* The memory map changes while requests run: the rings are mapped anew. */
static void test_remap(void **state)
{
    start(*(bool *)*state, 0);
    for (unsigned i = 0; i < 50; i++) {
        /* A BAR comes and goes. */
        uint32_t command = guest_config_read(BLK_DEVFN, 4, 2);
        guest_config_write(BLK_DEVFN, 4, command & ~2u, 2);
        guest_config_write(BLK_DEVFN, 4, command, 2);
        assert_int_equal(blk_perform(&driver, &good), VIRTIO_BLK_S_OK);
    }
}

#define BOTH(test)                                                                                 \
    {.name = #test ", main loop",                                                                  \
     .test_func = test,                                                                            \
     .teardown_func = teardown,                                                                    \
     .initial_state = &(bool){false}},                                                             \
    {                                                                                              \
        .name = #test ", iothread", .test_func = test, .teardown_func = teardown,                  \
        .initial_state = &(bool)                                                                   \
        {                                                                                          \
            true                                                                                   \
        }                                                                                          \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(test_direct_chains),
        BOTH(test_indirect_chains),
        BOTH(test_indirect_tables),
        BOTH(test_buffer_count),
        BOTH(test_avail),
        BOTH(test_same_head),
        BOTH(test_misaligned_rings),
        BOTH(test_rings_not_in_ram),
        BOTH(test_overlapping),
        BOTH(test_bus_master),
        BOTH(test_rings_vanish),
        BOTH(test_tempting_tables),
        BOTH(test_remap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
