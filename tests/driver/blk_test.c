/* SPDX-License-Identifier: MIT */
/*
 * virtio-blk-pci and a driver that follows the specification: every request type, every way of
 * notification, on the main loop and on an iothread.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"
#include "blkdriver.h"
#include "cm.h"
#include "fake_accel.h"
#include "fake_disk.h"
#include "hw/virtio/virtio.h"
#include "mem/dma.h"

static struct vdriver driver;

static int teardown(void **state)
{
    fake_disk_release();
    rig_destroy();
    blk_remove_file();
    return 0;
}

static void start_fake(const char *device_options, uint64_t features)
{
    rig_init(true);
    blk_add_fake_disk("");
    blk_add_device(&driver, device_options);
    vdriver_start(&driver, features, 0, true);
}

/* ---- read, write, flush, by each way of notification ---------------------------------------- */

enum interrupts { IRQFD, MSIX, INTX };

struct variant {
    enum interrupts interrupts;
    bool ioeventfd, iothread, event_idx;
};

static bool intx_is_high(void *opaque)
{
    return rig.level[BLK_IRQ_LINE];
}

static void check_interrupt(enum interrupts interrupts, unsigned count)
{
    switch (interrupts) {
    case IRQFD:
        assert_true(vdriver_wait_interrupts(VDRIVER_QUEUE_DATA, count));
        assert_int_equal(fake_accel.sent[VDRIVER_QUEUE_DATA], 0);
        break;
    case MSIX:
        assert_true(vdriver_wait_interrupts(VDRIVER_QUEUE_DATA, count));
        assert_int_equal(fake_accel.injected[VDRIVER_QUEUE_DATA], 0);
        break;
    case INTX:
        assert_true(rig_wait(intx_is_high, NULL));
        assert_int_equal(guest_read(driver.isr, 1), VIRTIO_ISR_QUEUE);
        assert_int_equal(rig.level[BLK_IRQ_LINE], 0);
        assert_int_equal(guest_read(driver.isr, 1), 0);
        assert_int_equal(fake_interrupts(VDRIVER_QUEUE_DATA), 0);
        break;
    }
}

static void check_file(const char *path, uint64_t offset, uint8_t byte, size_t size)
{
    uint8_t bytes[8192];
    int fd = open(path, O_RDONLY);

    assert_true(size <= sizeof(bytes));
    assert_int_equal(pread(fd, bytes, size, (off_t)offset), size);
    close(fd);
    for (size_t i = 0; i < size; i++) {
        assert_int_equal(bytes[i], byte);
    }
}

/* The driver polls for completions. If it moved used_event on before the device looks, it would
 * rightly get no interrupt: so it does that only after the interrupt it waits for. */
static void want_next_interrupt(void)
{
    if (driver.queue.event_idx) {
        vqueue_set_used_event(&driver.queue, driver.queue.seen_used);
    }
}

static void test_variant(void **state)
{
    const struct variant *v = *state;
    uint64_t features =
        BIT64(VIRTIO_BLK_F_FLUSH) | (v->event_idx ? BIT64(VIRTIO_F_RING_EVENT_IDX) : 0);

    rig_init(v->interrupts == IRQFD);
    const char *path = blk_add_file("");
    if (v->iothread) {
        rig_object("iothread,id=io0");
    }
    autofree char *options = xasprintf(",ioeventfd=%s%s", v->ioeventfd ? "on" : "off",
                                       v->iothread ? ",iothread=io0" : "");
    blk_add_device(&driver, options);
    vdriver_start(&driver, features, 0, v->interrupts != INTX);
    driver.queue.keeps_used_event = true;
    assert_int_equal(driver.queue.size, 256);
    assert_int_equal(fake_accel.commits, v->interrupts == IRQFD);

    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 5, 4096);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_OK);
    assert_true(blk_data_is(&r, 5 * 512));
    check_interrupt(v->interrupts, 1);
    want_next_interrupt();

    struct blk_request w = blk_request(VIRTIO_BLK_T_OUT, 16, 8192);
    memset(guest_ram(w.data), 0x5a, 8192);
    assert_int_equal(blk_perform(&driver, &w), VIRTIO_BLK_S_OK);
    check_interrupt(v->interrupts, 2);
    want_next_interrupt();
    struct blk_request f = blk_request(VIRTIO_BLK_T_FLUSH, 0, 0);
    assert_int_equal(blk_perform(&driver, &f), VIRTIO_BLK_S_OK);
    check_interrupt(v->interrupts, 3);
    want_next_interrupt();
    check_file(path, 16 * 512, 0x5a, 8192);

    /* Once more after a reset, with other rings. */
    assert_true(vdriver_reset(&driver));
    assert_int_equal(fake_accel.attached, 0);
    vdriver_start(&driver, features, 8, v->interrupts != INTX);
    driver.queue.keeps_used_event = true;
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_OK);
    assert_true(blk_data_is(&r, 5 * 512));
    check_interrupt(v->interrupts, 4);
    want_next_interrupt();
    assert_true(fake_accel.commits <= 2);
}

/* ---- request types -------------------------------------------------------------------------- */

static void test_get_id(void **state)
{
    start_fake(",serial=0123456789abcdefghijXYZ", 0);
    struct blk_request r = blk_request(VIRTIO_BLK_T_GET_ID, 0, 20);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_OK);
    assert_memory_equal(guest_ram(r.data), "0123456789abcdefghij", 20);
    /* A buffer that is too short gets the beginning; one that is longer is not touched behind. */
    r = blk_request(VIRTIO_BLK_T_GET_ID, 0, 4);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_OK);
    assert_memory_equal(guest_ram(r.data), "0123", 4);
    r = blk_request(VIRTIO_BLK_T_GET_ID, 0, 24);
    memset(guest_ram(r.data), 0x11, 24);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_OK);
    assert_memory_equal(guest_ram(r.data), "0123456789abcdefghij\x11\x11\x11\x11", 24);
}

static void test_unknown_types(void **state)
{
    static const uint32_t types[] = {2, 3, 5, 6, 7, 9, 10, 12, 14, 16, 0x80000000, UINT32_MAX};

    start_fake("", UINT64_MAX);
    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        struct blk_request r = blk_request(types[i], 0, 512);
        assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_UNSUPP);
    }
    for (unsigned op = 0; op < FAKE_OPS; op++) {
        assert_int_equal(fake_disk.count[op], 0);
    }
}

static void test_range(void **state)
{
    static const struct {
        uint64_t sector;
        uint32_t length;
        uint8_t status;
    } cases[] = {
        {2047, 512, VIRTIO_BLK_S_OK},
        {2048, 512, VIRTIO_BLK_S_IOERR},
        {2047, 1024, VIRTIO_BLK_S_IOERR},
        {UINT64_MAX, 512, VIRTIO_BLK_S_IOERR},
        {UINT64_C(1) << 55, 512, VIRTIO_BLK_S_IOERR}, /* times 512 is 2^64 */
        {(UINT64_C(1) << 55) - 1, 1024, VIRTIO_BLK_S_IOERR},
        {0, 511, VIRTIO_BLK_S_IOERR},
        {0, 513, VIRTIO_BLK_S_IOERR},
    };

    start_fake("", 0);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct blk_request r = blk_request(VIRTIO_BLK_T_IN, cases[i].sector, cases[i].length);
        assert_int_equal(blk_perform(&driver, &r), cases[i].status);
        r = blk_request(VIRTIO_BLK_T_OUT, cases[i].sector, cases[i].length);
        assert_int_equal(blk_perform(&driver, &r), cases[i].status);
    }
    assert_int_equal(fake_disk.count[FAKE_READ], 1);
    assert_int_equal(fake_disk.count[FAKE_WRITE], 1);
}

static void test_block_size(void **state)
{
    start_fake(",logical_block_size=4096,physical_block_size=16k,min_io_size=8192", 0);
    assert_int_equal(guest_read(driver.device + 20, 4), 4096);
    assert_int_equal(guest_read(driver.device + 24, 1), 2); /* 4 blocks are a physical one */
    assert_int_equal(guest_read(driver.device + 26, 2), 2);
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 8, 4096);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_OK);
    r = blk_request(VIRTIO_BLK_T_IN, 1, 4096);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_IOERR);
    r = blk_request(VIRTIO_BLK_T_IN, 8, 512);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_IOERR);
}

static struct blk_request segment_request(uint32_t type, uint64_t sector, uint32_t sectors,
                                          uint32_t flags, uint32_t length)
{
    struct blk_request r = blk_request(type, 0, length);
    uint8_t *segment = guest_ram(r.data);

    store_le64(segment, sector);
    store_le32(segment + 8, sectors);
    store_le32(segment + 12, flags);
    return r;
}

static void test_discard_write_zeroes(void **state)
{
    static const struct {
        uint32_t type;
        uint64_t sector;
        uint32_t sectors, flags, length;
        uint8_t status;
    } cases[] = {
        {VIRTIO_BLK_T_DISCARD, 8, 8, 0, 16, VIRTIO_BLK_S_OK},
        {VIRTIO_BLK_T_DISCARD, 8, 8, 1, 16, VIRTIO_BLK_S_UNSUPP},
        {VIRTIO_BLK_T_DISCARD, 8, 8, 2, 16, VIRTIO_BLK_S_UNSUPP},
        {VIRTIO_BLK_T_DISCARD, 8, 8, 0, 32, VIRTIO_BLK_S_UNSUPP}, /* two segments */
        {VIRTIO_BLK_T_DISCARD, 8, 8, 0, 15, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_DISCARD, 2048, 1, 0, 16, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_DISCARD, 0, 2049, 0, 16, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_DISCARD, UINT64_MAX, 1, 0, 16, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_DISCARD, 0, UINT32_MAX, 0, 16, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_WRITE_ZEROES, 16, 8, 0, 16, VIRTIO_BLK_S_OK},
        {VIRTIO_BLK_T_WRITE_ZEROES, 16, 8, 1, 16, VIRTIO_BLK_S_OK},
        {VIRTIO_BLK_T_WRITE_ZEROES, 16, 8, 4, 16, VIRTIO_BLK_S_UNSUPP},
        {VIRTIO_BLK_T_WRITE_ZEROES, 16, 1025, 0, 16, VIRTIO_BLK_S_IOERR}, /* above the most */
        {VIRTIO_BLK_T_WRITE_ZEROES, 16, 0, 0, 16, VIRTIO_BLK_S_OK},
    };
    rig_init(true);
    blk_add_fake_disk(",discard=unmap");
    blk_add_device(&driver, ",max-write-zeroes-sectors=1024");
    vdriver_start(&driver, BIT64(VIRTIO_BLK_F_DISCARD) | BIT64(VIRTIO_BLK_F_WRITE_ZEROES), 0, true);
    assert_int_equal(driver.features & BIT64(VIRTIO_BLK_F_DISCARD), BIT64(VIRTIO_BLK_F_DISCARD));
    assert_int_equal(guest_read(driver.device + 36, 4), 0x3fffff);
    assert_int_equal(guest_read(driver.device + 40, 4), 1);
    assert_int_equal(guest_read(driver.device + 48, 4), 1024);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct blk_request r = segment_request(cases[i].type, cases[i].sector, cases[i].sectors,
                                               cases[i].flags, cases[i].length);
        if (blk_perform(&driver, &r) != cases[i].status) {
            fail_msg("case %u: status %u", i, blk_status(&r));
        }
    }
    assert_int_equal(fake_disk.count[FAKE_DISCARD], 1);
    assert_int_equal(fake_disk.count[FAKE_ZEROES], 2);
    assert_int_equal(fake_disk.last_offset, 16 * 512);
    assert_int_equal(fake_disk.data[16 * 512 + 100], 0);
    assert_int_equal(fake_disk.data[24 * 512], blk_byte(24 * 512));
}

/* Without the features the requests do not exist. */
static void test_discard_not_negotiated(void **state)
{
    start_fake("", 0);
    struct blk_request r = segment_request(VIRTIO_BLK_T_DISCARD, 0, 8, 0, 16);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_UNSUPP);
    r = segment_request(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0, 16);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_UNSUPP);
}

static void test_readonly(void **state)
{
    rig_init(true);
    const char *path = blk_add_file(",read-only=on");
    blk_add_device(&driver, "");
    vdriver_start(&driver, UINT64_MAX & ~BIT64(VIRTIO_F_RING_EVENT_IDX), 0, true);
    assert_true(driver.features & BIT64(VIRTIO_BLK_F_RO));
    assert_false(driver.features &
                 (BIT64(VIRTIO_BLK_F_DISCARD) | BIT64(VIRTIO_BLK_F_WRITE_ZEROES)));
    struct blk_request w = blk_request(VIRTIO_BLK_T_OUT, 1, 512);
    assert_int_equal(blk_perform(&driver, &w), VIRTIO_BLK_S_IOERR);
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 1, 512);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_OK);
    assert_true(blk_data_is(&r, 512));
    check_file(path, 1024, blk_byte(1024), 1);
}

/* ---- framing: 2.6.4, no assumption on the layout of buffers ---------------------------------- */

static void test_framing(void **state)
{
    uint32_t head, written;

    start_fake("", BIT64(VIRTIO_F_RING_INDIRECT_DESC));
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 3, 1024);
    /* The header in three pieces; data and status in one buffer. */
    uint64_t area = guest_alloc(1025, 1);
    vqueue_set_chain(&driver.queue, 0,
                     (struct buffer[]){{r.header, 1, false},
                                       {r.header + 1, 8, false},
                                       {r.header + 9, 7, false},
                                       {area, 1025, true}},
                     4);
    vqueue_publish(&driver.queue, 0);
    vdriver_kick(&driver);
    assert_true(vdriver_wait_used(&driver, &head, &written));
    assert_int_equal(written, 1025);
    assert_int_equal(*((uint8_t *)guest_ram(area) + 1024), VIRTIO_BLK_S_OK);
    for (unsigned i = 0; i < 1024; i++) {
        assert_int_equal(*((uint8_t *)guest_ram(area) + i), blk_byte(3 * 512 + i));
    }

    /* Header and the data of a write in one buffer, then more data. */
    area = guest_alloc(16 + 100, 16);
    struct blk_request w = blk_request(VIRTIO_BLK_T_OUT, 9, 512);
    memcpy(guest_ram(area), guest_ram(w.header), 16);
    memset((uint8_t *)guest_ram(area) + 16, 0x77, 100);
    memset(guest_ram(w.data), 0x78, 412);
    vqueue_set_chain(
        &driver.queue, 4,
        (struct buffer[]){{area, 116, false}, {w.data, 412, false}, {w.status, 1, true}}, 3);
    vqueue_publish(&driver.queue, 4);
    vdriver_kick(&driver);
    assert_true(vdriver_wait_used(&driver, &head, &written));
    assert_int_equal(head, 4);
    assert_int_equal(blk_status(&w), VIRTIO_BLK_S_OK);
    assert_int_equal(fake_disk.data[9 * 512 + 99], 0x77);
    assert_int_equal(fake_disk.data[9 * 512 + 100], 0x78);
    assert_int_equal(fake_disk.data[9 * 512 + 511], 0x78);
    assert_int_equal(fake_disk.data[10 * 512], blk_byte(10 * 512));
}

/* Chains beyond what an element holds inline: direct and indirect, also with an unaligned table,
 * and buffers above 4 GiB. */
static void test_long_chains(void **state)
{
    struct buffer buffers[130];
    uint32_t head, written;

    start_fake("", BIT64(VIRTIO_F_RING_INDIRECT_DESC));
    for (unsigned round = 0; round < 4; round++) {
        struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 16, 64 * 1024);
        uint64_t data = round == 2 ? RIG_HIGH_RAM + 4096 : r.data;
        buffers[0] = (struct buffer){r.header, 16, false};
        for (unsigned i = 0; i < 128; i++) {
            buffers[1 + i] = (struct buffer){data + i * 512, 512, true};
        }
        buffers[129] = (struct buffer){r.status, 1, true};
        if (round == 0) {
            vqueue_set_chain(&driver.queue, 2, buffers, 130);
        } else {
            vqueue_set_indirect(&driver.queue, 2, buffers, 130);
        }
        if (round == 3) {
            uint64_t odd = guest_alloc(130 * 16 + 1, 16) + 1;
            uint64_t table = load_le64(guest_ram(driver.queue.at.desc + 2 * 16));
            memcpy(guest_ram(odd), guest_ram(table), 130 * 16);
            vqueue_set_desc(&driver.queue, 2, odd, 130 * 16, VRING_DESC_F_INDIRECT, 0);
        }
        vqueue_publish(&driver.queue, 2);
        vdriver_kick(&driver);
        assert_true(vdriver_wait_used(&driver, &head, &written));
        assert_int_equal(head, 2);
        assert_int_equal(written, 64 * 1024 + 1);
        assert_int_equal(blk_status(&r), VIRTIO_BLK_S_OK);
        r.data = data;
        assert_true(blk_data_is(&r, 16 * 512));
    }
}

/* ---- merging, batching, suppression --------------------------------------------------------- */

static void run_batch(unsigned count, uint32_t type, unsigned stride)
{
    struct blk_request r[64];
    uint32_t head, written;

    for (unsigned i = 0; i < count; i++) {
        /* Out of order: odd ones first. */
        unsigned position = i < count / 2 ? 2 * i + 1 : 2 * (i - count / 2);
        r[i] = blk_request(type, position * stride, 512);
        if (type == VIRTIO_BLK_T_OUT) {
            memset(guest_ram(r[i].data), (int)position, 512);
        }
        blk_publish(&driver, &r[i], i * 3);
    }
    vdriver_kick(&driver);
    for (unsigned i = 0; i < count; i++) {
        assert_true(vdriver_wait_used(&driver, &head, &written));
    }
    for (unsigned i = 0; i < count; i++) {
        unsigned position = i < count / 2 ? 2 * i + 1 : 2 * (i - count / 2);
        assert_int_equal(blk_status(&r[i]), VIRTIO_BLK_S_OK);
        if (type == VIRTIO_BLK_T_IN) {
            assert_true(blk_data_is(&r[i], position * stride * 512));
        } else {
            assert_int_equal(fake_disk.data[position * stride * 512], position);
            assert_int_equal(fake_disk.data[position * stride * 512 + 511], position);
        }
    }
}

static void test_merging(void **state)
{
    start_fake("", 0);
    run_batch(32, VIRTIO_BLK_T_IN, 1);
    assert_int_equal(fake_disk.count[FAKE_READ], 1);
    assert_int_equal(fake_disk.last_length, 32 * 512);
    run_batch(32, VIRTIO_BLK_T_IN, 2);
    assert_int_equal(fake_disk.count[FAKE_READ], 33);
    run_batch(48, VIRTIO_BLK_T_OUT, 1);
    assert_true(fake_disk.count[FAKE_WRITE] < 48);
}

static void test_no_merging(void **state)
{
    start_fake(",request-merging=off", 0);
    run_batch(32, VIRTIO_BLK_T_IN, 1);
    assert_int_equal(fake_disk.count[FAKE_READ], 32);
}

/* An error of a merged request is that of each. */
static void test_merged_error(void **state)
{
    struct blk_request r[4];
    uint32_t head, written;

    start_fake("", 0);
    fake_disk.error[FAKE_READ] = -EIO;
    for (unsigned i = 0; i < 4; i++) {
        r[i] = blk_request(VIRTIO_BLK_T_IN, i, 512);
        blk_publish(&driver, &r[i], i * 3);
    }
    vdriver_kick(&driver);
    for (unsigned i = 0; i < 4; i++) {
        assert_true(vdriver_wait_used(&driver, &head, &written));
    }
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(blk_status(&r[i]), VIRTIO_BLK_S_IOERR);
    }
    assert_int_equal(fake_disk.count[FAKE_READ], 1);
}

/* ---- the used length: 2.7.8.2, no byte counts that was not written --------------------------- */

/* A chain with `data` bytes to write into and a status behind them. */
static uint32_t written_of(uint32_t type, uint64_t sector, uint32_t data, uint8_t status)
{
    struct blk_request r = blk_request(type, sector, 1024);
    uint64_t area = guest_alloc(data + 1, 1);
    struct buffer buffers[3] = {{r.header, 16, false}};
    unsigned n = 1;
    uint32_t head, written;

    if (type == VIRTIO_BLK_T_OUT) {
        buffers[n++] = (struct buffer){r.data, 1024, false};
    }
    buffers[n++] = (struct buffer){area, data + 1, true};
    vqueue_set_chain(&driver.queue, 0, buffers, n);
    vqueue_publish(&driver.queue, 0);
    vdriver_kick(&driver);
    assert_true(vdriver_wait_used(&driver, &head, &written));
    assert_int_equal(*((uint8_t *)guest_ram(area) + data), status);
    return written;
}

static void test_used_length(void **state)
{
    start_fake("", UINT64_MAX & ~BIT64(VIRTIO_F_RING_EVENT_IDX));
    assert_int_equal(written_of(VIRTIO_BLK_T_IN, 0, 1024, VIRTIO_BLK_S_OK), 1025);
    assert_int_equal(written_of(VIRTIO_BLK_T_IN, 0, 0, VIRTIO_BLK_S_OK), 1);
    /* Behind the end, and unknown: only the status. */
    assert_int_equal(written_of(VIRTIO_BLK_T_IN, 4096, 1024, VIRTIO_BLK_S_IOERR), 0);
    assert_int_equal(written_of(VIRTIO_BLK_T_OUT, 4096, 0, VIRTIO_BLK_S_IOERR), 1);
    assert_int_equal(written_of(99, 0, 8, VIRTIO_BLK_S_UNSUPP), 0);
    assert_int_equal(written_of(99, 0, 0, VIRTIO_BLK_S_UNSUPP), 1);
    /* Bytes to spare before it. */
    assert_int_equal(written_of(VIRTIO_BLK_T_OUT, 0, 0, VIRTIO_BLK_S_OK), 1);
    assert_int_equal(written_of(VIRTIO_BLK_T_OUT, 0, 512, VIRTIO_BLK_S_OK), 0);
    assert_int_equal(written_of(VIRTIO_BLK_T_FLUSH, 0, 0, VIRTIO_BLK_S_OK), 1);
    assert_int_equal(written_of(VIRTIO_BLK_T_FLUSH, 0, 7, VIRTIO_BLK_S_OK), 0);
    assert_int_equal(written_of(VIRTIO_BLK_T_GET_ID, 0, 20, VIRTIO_BLK_S_OK), 21);
    assert_int_equal(written_of(VIRTIO_BLK_T_GET_ID, 0, 30, VIRTIO_BLK_S_OK), 20);
    fake_disk.error[FAKE_READ] = fake_disk.error[FAKE_WRITE] = -EIO;
    assert_int_equal(written_of(VIRTIO_BLK_T_IN, 0, 1024, VIRTIO_BLK_S_IOERR), 0);
    assert_int_equal(written_of(VIRTIO_BLK_T_OUT, 0, 512, VIRTIO_BLK_S_IOERR), 0);
}

static bool used_is_32(void *opaque)
{
    return vqueue_used_index(&driver.queue) == 32;
}

/* What completes together is announced together. */
static void test_one_interrupt(void **state)
{
    start_fake("", 0);
    for (unsigned i = 0; i < 32; i++) {
        struct blk_request r = blk_request(VIRTIO_BLK_T_IN, i * 2, 512);
        blk_publish(&driver, &r, i * 3);
    }
    vdriver_kick(&driver);
    assert_true(rig_wait(used_is_32, NULL));
    rig_run();
    unsigned interrupts = fake_interrupts(VDRIVER_QUEUE_DATA);
    assert_in_range(interrupts, 1, 4);
}

/* Long requests may mean work on all their bytes: the queue is left to other handlers before all of
 * them are taken. They may name the same memory again and again. */
static void test_long_requests(void **state)
{
    uint32_t head, written;
    unsigned most = 0;

    start_fake("", 0);
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 0, 128 * KiB);
    for (unsigned i = 0; i < 20; i++) {
        struct buffer buffers[10] = {{r.header, 16, false}};
        for (unsigned n = 1; n < 9; n++) {
            buffers[n] = (struct buffer){r.data, 128 * KiB, true};
        }
        buffers[9] = (struct buffer){guest_alloc(1, 1), 1, true};
        vqueue_set_chain(&driver.queue, i * 10, buffers, 10);
    }
    fake_disk.hold = true;
    for (unsigned i = 0; i < 100; i++) {
        vqueue_publish(&driver.queue, (uint16_t)(i % 20 * 10));
    }
    vdriver_kick(&driver);
    while (fake_disk.count[FAKE_READ] < 100) {
        unsigned before = fake_disk.count[FAKE_READ];
        rig_run();
        most = MAX(most, fake_disk.count[FAKE_READ] - before);
    }
    assert_in_range(most, 1, 32); /* MiB */
    fake_disk_release();
    for (unsigned i = 0; i < 100; i++) {
        assert_true(vdriver_wait_used(&driver, &head, &written));
        assert_int_equal(written, MiB + 1);
    }
}

static bool one_is_held(void *opaque)
{
    return fake_disk.held == 1;
}

/* One that is slow holds back nobody's announcement. */
static void test_slow_neighbour(void **state)
{
    uint32_t head, written;

    start_fake("", 0);
    fake_disk.hold = true;
    struct blk_request slow = blk_request(VIRTIO_BLK_T_IN, 0, 512);
    blk_publish(&driver, &slow, 0);
    vdriver_kick(&driver);
    assert_true(rig_wait(one_is_held, NULL));
    struct blk_request fast = blk_request(VIRTIO_BLK_T_GET_ID, 0, 20);
    blk_publish(&driver, &fast, 3);
    vdriver_kick(&driver);
    assert_true(vdriver_wait_used(&driver, &head, &written));
    assert_int_equal(head, 3);
    assert_true(vdriver_wait_interrupts(VDRIVER_QUEUE_DATA, 1));
    assert_int_equal(fake_disk.held, 1);
    fake_disk_release();
    assert_true(vdriver_wait_used(&driver, &head, &written));
    assert_int_equal(head, 0);
}

static void test_event_idx(void **state)
{
    uint32_t head, written;

    start_fake("", BIT64(VIRTIO_F_RING_EVENT_IDX));
    assert_true(driver.queue.event_idx);
    rig_run();
    assert_true(vqueue_wants_kick(&driver.queue) || vqueue_avail_event(&driver.queue) == 0);
    /* The driver says that it wants to hear of the fourth completion only. */
    vqueue_set_used_event(&driver.queue, 3);
    for (unsigned i = 0; i < 5; i++) {
        struct blk_request r = blk_request(VIRTIO_BLK_T_IN, i, 512);
        blk_publish(&driver, &r, i * 3);
        assert_true(vqueue_wants_kick(&driver.queue));
        vdriver_kick(&driver);
        driver.queue.event_idx = false; /* used_event stays */
        assert_true(vdriver_wait_used(&driver, &head, &written));
        driver.queue.event_idx = true;
        for (unsigned n = 0; n < 10; n++) {
            rig_run();
        }
        assert_int_equal(fake_interrupts(VDRIVER_QUEUE_DATA), i == 0 ? 1 : i < 3 ? 1 : 2);
    }
}

static void test_no_interrupt_flag(void **state)
{
    uint32_t head, written;

    start_fake("", 0);
    vqueue_set_avail_flags(&driver.queue, VRING_AVAIL_F_NO_INTERRUPT);
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 0, 512);
    blk_publish(&driver, &r, 0);
    vdriver_kick(&driver);
    assert_true(vdriver_wait_used(&driver, &head, &written));
    for (unsigned i = 0; i < 10; i++) {
        rig_run();
    }
    assert_int_equal(fake_interrupts(VDRIVER_QUEUE_DATA), 0);
    vqueue_set_avail_flags(&driver.queue, 0);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_OK);
    assert_true(vdriver_wait_interrupts(VDRIVER_QUEUE_DATA, 1));
}

/* The ring's indices wrap at 65536. */
static void test_wrap(void **state)
{
    start_fake("", BIT64(VIRTIO_F_RING_EVENT_IDX));
    struct blk_request r = blk_request(VIRTIO_BLK_T_GET_ID, 0, 20);
    struct buffer buffers[3];
    unsigned n = blk_buffers(&r, buffers);
    uint32_t head, written;
    vqueue_set_chain(&driver.queue, 0, buffers, n);
    for (unsigned done = 0; done < 66000;) {
        for (unsigned i = 0; i < 200; i++) {
            vqueue_publish(&driver.queue, 0);
        }
        vdriver_kick_if_wanted(&driver);
        for (unsigned i = 0; i < 200; i++, done++) {
            assert_true(vdriver_wait_used(&driver, &head, &written));
        }
    }
    assert_int_equal(vdriver_status(&driver) & VIRTIO_STATUS_NEEDS_RESET, 0);
}

#define VARIANT(n, ...)                                                                            \
    {                                                                                              \
        .name = "test_variant " n, .test_func = test_variant, .teardown_func = teardown,           \
        .initial_state = &(struct variant)                                                         \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        VARIANT("irqfd", IRQFD, .ioeventfd = true),
        VARIANT("irqfd, event index", IRQFD, .ioeventfd = true, .event_idx = true),
        VARIANT("irqfd, iothread", IRQFD, .ioeventfd = true, .iothread = true),
        VARIANT("irqfd, iothread, event index", IRQFD, .ioeventfd = true, .iothread = true,
                .event_idx = true),
        VARIANT("irqfd, no ioeventfd", IRQFD, .ioeventfd = false),
        VARIANT("msix", MSIX, .ioeventfd = true),
        VARIANT("msix, iothread, no ioeventfd", MSIX, .ioeventfd = false, .iothread = true),
        VARIANT("intx", INTX, .ioeventfd = true),
        VARIANT("intx, iothread", INTX, .ioeventfd = true, .iothread = true),
        cmocka_unit_test_teardown(test_get_id, teardown),
        cmocka_unit_test_teardown(test_unknown_types, teardown),
        cmocka_unit_test_teardown(test_range, teardown),
        cmocka_unit_test_teardown(test_block_size, teardown),
        cmocka_unit_test_teardown(test_discard_write_zeroes, teardown),
        cmocka_unit_test_teardown(test_discard_not_negotiated, teardown),
        cmocka_unit_test_teardown(test_readonly, teardown),
        cmocka_unit_test_teardown(test_framing, teardown),
        cmocka_unit_test_teardown(test_long_chains, teardown),
        cmocka_unit_test_teardown(test_merging, teardown),
        cmocka_unit_test_teardown(test_no_merging, teardown),
        cmocka_unit_test_teardown(test_merged_error, teardown),
        cmocka_unit_test_teardown(test_used_length, teardown),
        cmocka_unit_test_teardown(test_one_interrupt, teardown),
        cmocka_unit_test_teardown(test_long_requests, teardown),
        cmocka_unit_test_teardown(test_slow_neighbour, teardown),
        cmocka_unit_test_teardown(test_event_idx, teardown),
        cmocka_unit_test_teardown(test_no_interrupt_flag, teardown),
        cmocka_unit_test_teardown(test_wrap, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
