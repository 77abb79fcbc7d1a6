/* SPDX-License-Identifier: MIT */
/*
 * A hostile driver, register by register and state by state: garbage in every field of the common
 * configuration, at every width, in every state the device can be in. What a state protects stays
 * as it is, and a reset always brings the device back to work.
 */
#include <linux/pci_regs.h>
#include <stdio.h>
#include <string.h>

#include "aio/notifier.h"
#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"
#include "blkdriver.h"
#include "cm.h"
#include "fake_accel.h"
#include "fake_disk.h"
#include "hw/virtio/virtio.h"

#define ACK         VIRTIO_STATUS_ACKNOWLEDGE
#define DRIVER      VIRTIO_STATUS_DRIVER
#define DRIVER_OK   VIRTIO_STATUS_DRIVER_OK
#define FEATURES_OK VIRTIO_STATUS_FEATURES_OK
#define NEEDS_RESET VIRTIO_STATUS_NEEDS_RESET
#define FAILED      VIRTIO_STATUS_FAILED
#define V1          BIT64(VIRTIO_F_VERSION_1)

static struct vdriver driver;

static int setup(void **state)
{
    rig_init(true);
    blk_add_fake_disk("");
    blk_add_device(&driver, "");
    return 0;
}

static int teardown(void **state)
{
    fake_disk_release();
    rig_destroy();
    return 0;
}

static void run_a_while(void)
{
    for (unsigned i = 0; i < 30; i++) {
        rig_run();
    }
}

static void check_works(void)
{
    vdriver_start(&driver, 0, 0, true);
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 7, 512);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_OK);
    assert_true(blk_data_is(&r, 7 * 512));
}

static uint16_t reg16(unsigned offset)
{
    return (uint16_t)common_read(&driver, offset, 2);
}

/* ---- status --------------------------------------------------------------------------------- */

static void to_features_ok(void)
{
    assert_true(vdriver_reset(&driver));
    vdriver_set_status(&driver, ACK);
    vdriver_set_status(&driver, ACK | DRIVER);
    vdriver_set_features(&driver, V1);
    vdriver_set_status(&driver, ACK | DRIVER | FEATURES_OK);
    assert_int_equal(vdriver_status(&driver), ACK | DRIVER | FEATURES_OK);
}

static void test_status_rules(void **state)
{
    /* DRIVER_OK without FEATURES_OK. */
    vdriver_set_status(&driver, ACK | DRIVER | DRIVER_OK);
    assert_int_equal(vdriver_status(&driver), ACK | DRIVER);
    assert_true(vdriver_reset(&driver));
    vdriver_set_status(&driver, DRIVER_OK);
    assert_int_equal(vdriver_status(&driver), 0);
    /* Bits stay until a reset. */
    to_features_ok();
    vdriver_set_status(&driver, ACK);
    assert_int_equal(vdriver_status(&driver), ACK | DRIVER | FEATURES_OK);
    /* NEEDS_RESET is the device's. */
    vdriver_set_status(&driver, 0xff & ~FAILED & ~DRIVER_OK);
    assert_int_equal(vdriver_status(&driver) & NEEDS_RESET, 0);
    vdriver_set_status(&driver, FAILED);
    assert_true(vdriver_status(&driver) & FAILED);
    check_works();
}

static void test_feature_rules(void **state)
{
    uint64_t host = vdriver_host_features(&driver);

    assert_true(host & V1);
    /* Beyond 64 bits there are none. */
    common_write(&driver, VIRTIO_PCI_COMMON_DFSELECT, 2, 4);
    assert_int_equal(common_read(&driver, VIRTIO_PCI_COMMON_DF, 4), 0);
    common_write(&driver, VIRTIO_PCI_COMMON_DFSELECT, UINT32_MAX, 4);
    assert_int_equal(common_read(&driver, VIRTIO_PCI_COMMON_DF, 4), 0);
    for (unsigned bit = 0; bit < 64; bit++) {
        uint64_t features = V1 | BIT64(bit);
        assert_true(vdriver_reset(&driver));
        vdriver_set_status(&driver, ACK | DRIVER);
        vdriver_set_features(&driver, features);
        vdriver_set_status(&driver, ACK | DRIVER | FEATURES_OK);
        bool taken = vdriver_status(&driver) & FEATURES_OK;
        assert_int_equal(taken, (features & ~host) == 0);
    }
    /* Not without VERSION_1. */
    assert_true(vdriver_reset(&driver));
    vdriver_set_features(&driver, host & ~V1);
    vdriver_set_status(&driver, ACK | DRIVER | FEATURES_OK);
    assert_int_equal(vdriver_status(&driver), ACK | DRIVER);
    /* After a refusal the driver may try again. */
    vdriver_set_features(&driver, V1);
    vdriver_set_status(&driver, ACK | DRIVER | FEATURES_OK);
    assert_int_equal(vdriver_status(&driver), ACK | DRIVER | FEATURES_OK);
    /* But not once it has been accepted. */
    vdriver_set_features(&driver, UINT64_MAX);
    common_write(&driver, VIRTIO_PCI_COMMON_GFSELECT, 1, 4);
    assert_int_equal(common_read(&driver, VIRTIO_PCI_COMMON_GF, 4), 1);
    common_write(&driver, VIRTIO_PCI_COMMON_GFSELECT, 0, 4);
    assert_int_equal(common_read(&driver, VIRTIO_PCI_COMMON_GF, 4), 0);
    check_works();
}

/* ---- queue registers ------------------------------------------------------------------------ */

static void test_queue_select(void **state)
{
    static const uint16_t absent[] = {1, 2, 63, 64, 0x7fff, 0xffff};

    to_features_ok();
    assert_int_equal(reg16(VIRTIO_PCI_COMMON_NUMQ), 1);
    for (unsigned i = 0; i < ARRAY_SIZE(absent); i++) {
        common_write(&driver, VIRTIO_PCI_COMMON_Q_SELECT, absent[i], 2);
        assert_int_equal(reg16(VIRTIO_PCI_COMMON_Q_SELECT), absent[i]);
        assert_int_equal(reg16(VIRTIO_PCI_COMMON_Q_SIZE), 0);
        for (unsigned offset = VIRTIO_PCI_COMMON_Q_SIZE; offset < 0x100; offset += 2) {
            common_write(&driver, offset, UINT64_MAX, 2);
            common_write(&driver, offset, 1, 2);
        }
        assert_int_equal(reg16(VIRTIO_PCI_COMMON_Q_ENABLE), 0);
    }
    common_write(&driver, VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
    assert_int_equal(reg16(VIRTIO_PCI_COMMON_Q_SIZE), 256);
    check_works();
}

static void test_queue_size(void **state)
{
    static const uint16_t bad[] = {3, 5, 100, 255, 257, 512, 1024, 32768, 0xffff};

    to_features_ok();
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        common_write(&driver, VIRTIO_PCI_COMMON_Q_SIZE, bad[i], 2);
        assert_int_equal(reg16(VIRTIO_PCI_COMMON_Q_SIZE), 256);
    }
    common_write(&driver, VIRTIO_PCI_COMMON_Q_SIZE, 128, 2);
    assert_int_equal(reg16(VIRTIO_PCI_COMMON_Q_SIZE), 128);
    /* A queue of size 0 is none. */
    common_write(&driver, VIRTIO_PCI_COMMON_Q_SIZE, 0, 2);
    common_write(&driver, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
    assert_int_equal(reg16(VIRTIO_PCI_COMMON_Q_ENABLE), 0);
    check_works();
}

/* What the device has taken over is not changed behind its back: the size of an active queue
 * (CVE-2026-5747 in another VMM), its addresses, its being enabled. */
static void test_active_queue(void **state)
{
    static const unsigned addresses[] = {
        VIRTIO_PCI_COMMON_Q_DESCLO,  VIRTIO_PCI_COMMON_Q_DESCHI, VIRTIO_PCI_COMMON_Q_AVAILLO,
        VIRTIO_PCI_COMMON_Q_AVAILHI, VIRTIO_PCI_COMMON_Q_USEDLO, VIRTIO_PCI_COMMON_Q_USEDHI,
    };
    static const uint16_t sizes[] = {0, 1, 2, 16, 32, 64, 128, 256, 1024};

    for (unsigned phase = 0; phase < 3; phase++) {
        bool runs = phase > 0;
        if (runs) {
            vdriver_start(&driver, 0, 32, true);
        } else {
            to_features_ok();
            vdriver_enable_msix(&driver);
            vdriver_setup_queue(&driver, 32, true);
        }
        if (phase == 2) {
            /* After FAILED, too. */
            vdriver_set_status(&driver, FAILED);
            run_a_while();
        }
        for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
            common_write(&driver, VIRTIO_PCI_COMMON_Q_SIZE, sizes[i], 2);
            assert_int_equal(reg16(VIRTIO_PCI_COMMON_Q_SIZE), 32);
        }
        for (unsigned i = 0; i < ARRAY_SIZE(addresses); i++) {
            uint64_t before = common_read(&driver, addresses[i], 4);
            common_write(&driver, addresses[i], 0xfffff000, 4);
            common_write(&driver, addresses[i], 0, 4);
            assert_int_equal(common_read(&driver, addresses[i], 4), before);
        }
        common_write(&driver, VIRTIO_PCI_COMMON_Q_ENABLE, 0, 2);
        common_write(&driver, VIRTIO_PCI_COMMON_Q_ENABLE, 0xffff, 2);
        common_write(&driver, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
        assert_int_equal(reg16(VIRTIO_PCI_COMMON_Q_ENABLE), 1);
        if (phase == 1) {
            struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 7, 512);
            for (unsigned i = 0; i < 100; i++) {
                assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_OK);
            }
        }
    }
    check_works();
}

/* Enabled again and again, and after DRIVER_OK, when it is too late. */
static void test_enable(void **state)
{
    to_features_ok();
    common_write(&driver, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 2);
    common_write(&driver, VIRTIO_PCI_COMMON_Q_ENABLE, 0, 2);
    assert_int_equal(reg16(VIRTIO_PCI_COMMON_Q_ENABLE), 0);
    vdriver_set_status(&driver, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
    assert_true(vdriver_status(&driver) & DRIVER_OK);
    common_write(&driver, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
    assert_int_equal(reg16(VIRTIO_PCI_COMMON_Q_ENABLE), 0);
    vdriver_kick(&driver);
    run_a_while();
    for (unsigned i = 0; i < 20; i++) {
        check_works();
    }
}

static void test_vectors(void **state)
{
    to_features_ok();
    assert_int_equal(reg16(VIRTIO_PCI_COMMON_MSIX), VIRTIO_NO_VECTOR);
    assert_int_equal(reg16(VIRTIO_PCI_COMMON_Q_MSIX), VIRTIO_NO_VECTOR);
    static const uint16_t bad[] = {2, 3, 64, 2047, 2048, 0x7fff, 0xfffe, 0xffff};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        common_write(&driver, VIRTIO_PCI_COMMON_MSIX, bad[i], 2);
        common_write(&driver, VIRTIO_PCI_COMMON_Q_MSIX, bad[i], 2);
        assert_int_equal(reg16(VIRTIO_PCI_COMMON_MSIX), VIRTIO_NO_VECTOR);
        assert_int_equal(reg16(VIRTIO_PCI_COMMON_Q_MSIX), VIRTIO_NO_VECTOR);
    }
    /* Without a vector there is no interrupt, but work is done. */
    vdriver_start(&driver, 0, 0, true);
    common_write(&driver, VIRTIO_PCI_COMMON_Q_MSIX, VIRTIO_NO_VECTOR, 2);
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 7, 512);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_OK);
    run_a_while();
    assert_int_equal(fake_interrupts(VDRIVER_QUEUE_DATA), 0);
    assert_int_equal(fake_accel.attached, 0);
    /* The config vector for the queue as well, while it runs. */
    common_write(&driver, VIRTIO_PCI_COMMON_Q_MSIX, 0, 2);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_OK);
    assert_true(vdriver_wait_interrupts(VDRIVER_CONFIG_DATA, 1));
    common_write(&driver, VIRTIO_PCI_COMMON_Q_MSIX, 1, 2);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_OK);
    assert_true(vdriver_wait_interrupts(VDRIVER_QUEUE_DATA, 1));
}

static bool intx_is_high(void *opaque)
{
    return rig.level[BLK_IRQ_LINE];
}

/* MSI-X goes off and on while the device runs. */
static void test_msix_toggle(void **state)
{
    unsigned flags = 0;

    vdriver_start(&driver, 0, 0, true);
    flags = driver.msix_capability + PCI_MSIX_FLAGS;
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 7, 512);
    guest_config_write(BLK_DEVFN, flags, 0, 2);
    assert_int_equal(fake_accel.attached, 0);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_OK);
    assert_true(rig_wait(intx_is_high, NULL));
    guest_config_write(BLK_DEVFN, flags, PCI_MSIX_FLAGS_ENABLE, 2);
    assert_int_equal(rig.level[BLK_IRQ_LINE], 0);
    assert_int_equal(fake_accel.attached, 1);
    unsigned before = fake_interrupts(VDRIVER_QUEUE_DATA);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_OK);
    assert_true(vdriver_wait_interrupts(VDRIVER_QUEUE_DATA, before + 1));
}

/* The device interrupts at the moment when its irqfd has gone: by what comes next. */
static void test_set_when_removed(void **state)
{
    vdriver_start(&driver, 0, 0, true);
    unsigned flags = driver.msix_capability + PCI_MSIX_FLAGS;
    fake_accel.on_removed = event_notifier_set;
    /* MSI-X off: INTx. */
    guest_config_write(BLK_DEVFN, flags, 0, 2);
    assert_true(rig_wait(intx_is_high, NULL));
    assert_int_equal(guest_read(driver.isr, 1), VIRTIO_ISR_QUEUE);
    guest_config_write(BLK_DEVFN, flags, PCI_MSIX_FLAGS_ENABLE, 2);
    assert_int_equal(fake_interrupts(VDRIVER_QUEUE_DATA), 0);
    /* The function masked: pending until it is not. */
    guest_config_write(BLK_DEVFN, flags, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL, 2);
    assert_int_equal(fake_interrupts(VDRIVER_QUEUE_DATA), 0);
    assert_int_equal(guest_read(driver.msix_pba, 8), 2);
    guest_config_write(BLK_DEVFN, flags, PCI_MSIX_FLAGS_ENABLE, 2);
    assert_int_equal(fake_interrupts(VDRIVER_QUEUE_DATA), 1);
    /* Another vector, for which there is no irqfd: by a message. */
    fake_accel.refuse_irqfd = true;
    common_write(&driver, VIRTIO_PCI_COMMON_Q_MSIX, 0, 2);
    assert_int_equal(fake_interrupts(VDRIVER_QUEUE_DATA) + fake_interrupts(VDRIVER_CONFIG_DATA), 2);
    fake_accel.refuse_irqfd = false;
    fake_accel.on_removed = NULL;
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 7, 512);
    unsigned before = fake_interrupts(VDRIVER_CONFIG_DATA);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_OK);
    assert_true(vdriver_wait_interrupts(VDRIVER_CONFIG_DATA, before + 1));
}

/* ---- read-only registers, ISR, device configuration, doorbells ------------------------------- */

static void test_readonly_registers(void **state)
{
    static const uint16_t offsets[] = {VIRTIO_PCI_COMMON_DF, VIRTIO_PCI_COMMON_NUMQ,
                                       VIRTIO_PCI_COMMON_CFGGENERATION, VIRTIO_PCI_COMMON_Q_NOFF};

    for (unsigned i = 0; i < ARRAY_SIZE(offsets); i++) {
        unsigned size = offsets[i] == VIRTIO_PCI_COMMON_DF              ? 4
                        : offsets[i] == VIRTIO_PCI_COMMON_CFGGENERATION ? 1
                                                                        : 2;
        uint64_t before = common_read(&driver, offsets[i], size);
        common_write(&driver, offsets[i], ~before, size);
        assert_int_equal(common_read(&driver, offsets[i], size), before);
    }
    /* Behind the structure there is nothing. */
    for (unsigned offset = 0x38; offset < 0x1000; offset += 4) {
        common_write(&driver, offset, UINT32_MAX, 4);
        assert_int_equal(common_read(&driver, offset, 4), 0);
    }
    guest_write(driver.isr, 0xff, 1);
    assert_int_equal(guest_read(driver.isr, 1), 0);
    assert_int_equal(guest_read(driver.isr + 1, 1), 0);
    check_works();
}

static void test_device_config(void **state)
{
    vdriver_start(&driver, UINT64_MAX & ~BIT64(VIRTIO_F_RING_EVENT_IDX), 0, true);
    assert_int_equal(guest_read(driver.device, 8), 2048);
    assert_int_equal(guest_read(driver.device + 12, 4), 254); /* seg_max */
    assert_int_equal(guest_read(driver.device + 20, 4), 512);
    for (unsigned offset = 0; offset < 64; offset++) {
        for (unsigned size = 1; size <= 4; size *= 2) {
            guest_write(driver.device + offset, UINT64_MAX, size);
            guest_write(driver.device + offset, 0x5a5a5a5a, size);
        }
    }
    assert_int_equal(guest_read(driver.device, 8), 2048);
    assert_int_equal(guest_read(driver.device + 12, 4), 254);
    assert_int_equal(guest_read(driver.device + 59, 1), 0);
    assert_int_equal(guest_read(driver.device + 60, 4), UINT32_MAX);
    assert_int_equal(guest_read(driver.device + 0xffc, 4), UINT32_MAX);
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 7, 512);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_OK);
}

static void test_doorbells(void **state)
{
    uint32_t head, written;

    vdriver_start(&driver, 0, 0, true);
    /* Those of queues that do not exist, and their whole page. */
    for (unsigned i = 1; i < 1024; i++) {
        guest_write(driver.notify + i * 4, i, 2);
        assert_int_equal(guest_read(driver.notify + i * 4, 4), 0);
    }
    run_a_while();
    /* Any value at any width rings. */
    static const unsigned widths[] = {1, 2, 4, 8};
    for (unsigned i = 0; i < ARRAY_SIZE(widths); i++) {
        struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 7, 512);
        blk_publish(&driver, &r, 0);
        guest_write(driver.doorbell, UINT64_MAX, widths[i]);
        assert_true(vdriver_wait_used(&driver, &head, &written));
    }
    /* Without anything to do, and when nobody listens. */
    for (unsigned i = 0; i < 1000; i++) {
        vdriver_kick(&driver);
    }
    assert_true(vdriver_reset(&driver));
    vdriver_kick(&driver);
    run_a_while();
    check_works();
}

/* ---- the window in PCI configuration space (4.1.4.9) ----------------------------------------- */

static void set_window(uint8_t bar, uint32_t offset, uint32_t length)
{
    guest_config_write(BLK_DEVFN, driver.window + VIRTIO_PCI_CAP_BAR, bar, 1);
    guest_config_write(BLK_DEVFN, driver.window + VIRTIO_PCI_CAP_OFFSET, offset, 4);
    guest_config_write(BLK_DEVFN, driver.window + VIRTIO_PCI_CAP_LENGTH, length, 4);
}

static uint32_t window_read(unsigned size)
{
    return guest_config_read(BLK_DEVFN, driver.window + 16, size);
}

static void window_write(uint32_t value, unsigned size)
{
    guest_config_write(BLK_DEVFN, driver.window + 16, value, size);
}

static void test_window(void **state)
{
    static const struct {
        uint8_t bar;
        uint32_t offset, length;
    } bad[] = {
        {0, 0x14, 1}, {1, 0, 4},      {5, 0, 4},      {255, 0, 4},        {4, 0, 0},
        {4, 0, 3},    {4, 0, 5},      {4, 0, 8},      {4, 0, UINT32_MAX}, {4, 1, 2},
        {4, 2, 4},    {4, 0x3fff, 4}, {4, 0x4000, 4}, {4, UINT32_MAX, 1}, {4, 0xfffffffc, 4},
    };

    set_window(4, VIRTIO_PCI_COMMON_STATUS, 1);
    window_write(ACK, 1);
    assert_int_equal(vdriver_status(&driver), ACK);
    assert_int_equal(window_read(1), ACK);
    window_write(ACK | DRIVER, 4); /* the length is the window's */
    assert_int_equal(vdriver_status(&driver), ACK | DRIVER);
    set_window(4, 0x2000, 4);
    assert_int_equal(window_read(4), 2048);
    set_window(4, VIRTIO_PCI_COMMON_NUMQ, 2);
    assert_int_equal(window_read(2), 1);
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        set_window(bad[i].bar, bad[i].offset, bad[i].length);
        window_write(0, 4);
        window_read(4);
        assert_int_equal(vdriver_status(&driver), ACK | DRIVER);
    }
    /* It works with memory decoding off, as firmware wants it, and rings doorbells. */
    vdriver_start(&driver, 0, 0, true);
    guest_config_write(BLK_DEVFN, PCI_COMMAND, PCI_COMMAND_MASTER, 2);
    assert_int_equal(vdriver_status(&driver), 0xff);
    uint32_t head, written;
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 7, 512);
    blk_publish(&driver, &r, 0);
    set_window(4, 0x3000, 2);
    window_write(0, 2);
    assert_true(vdriver_wait_used(&driver, &head, &written));
    assert_int_equal(blk_status(&r), VIRTIO_BLK_S_OK);
    guest_config_write(BLK_DEVFN, PCI_COMMAND, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY, 2);
    set_window(4, VIRTIO_PCI_COMMON_STATUS, 1);
    window_write(0, 1);
    check_works();
}

/* ---- garbage everywhere --------------------------------------------------------------------- */

enum phase {
    PHASE_RESET,
    PHASE_ACK,
    PHASE_DRIVER,
    PHASE_FEATURES_OK,
    PHASE_QUEUE,
    PHASE_DRIVER_OK,
    PHASE_BROKEN,
    PHASE_FAILED,
    PHASE_RESETTING,
    PHASES,
};

static bool held_is_one(void *opaque)
{
    return fake_disk.held == 1;
}

static void to_phase(enum phase phase)
{
    fake_disk_release();
    assert_true(vdriver_reset(&driver));
    switch (phase) {
    case PHASE_RESET:
    case PHASES:
        break;
    case PHASE_ACK:
        vdriver_set_status(&driver, ACK);
        break;
    case PHASE_DRIVER:
        vdriver_set_status(&driver, ACK | DRIVER);
        break;
    case PHASE_FEATURES_OK:
        to_features_ok();
        break;
    case PHASE_QUEUE:
        to_features_ok();
        vdriver_enable_msix(&driver);
        vdriver_setup_queue(&driver, 0, true);
        break;
    case PHASE_DRIVER_OK:
        vdriver_start(&driver, 0, 0, true);
        break;
    case PHASE_BROKEN:
        vdriver_start(&driver, 0, 0, true);
        vqueue_publish(&driver.queue, 0xffff);
        vdriver_kick(&driver);
        assert_true(vdriver_wait_status(&driver, NEEDS_RESET));
        break;
    case PHASE_FAILED:
        vdriver_start(&driver, 0, 0, true);
        vdriver_set_status(&driver, FAILED);
        break;
    case PHASE_RESETTING: {
        vdriver_start(&driver, 0, 0, true);
        fake_disk.hold = true;
        struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 7, 512);
        blk_publish(&driver, &r, 0);
        vdriver_kick(&driver);
        assert_true(rig_wait(held_is_one, NULL));
        vdriver_set_status(&driver, 0);
        break;
    }
    }
}

static void write_garbage(unsigned offset, unsigned size)
{
    static const uint64_t values[] = {
        UINT64_MAX, 0xfffe, 0x8000, 0x7f, 3, 2, 1, UINT64_C(0xa5a5a5a5a5a5a5a5), 0xfffffff0,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(values); i++) {
        common_write(&driver, offset, values[i], size);
        common_read(&driver, offset, size);
    }
}

/* Every register, aligned or not, at every width; in a phase that the garbage itself does not
 * leave (the status comes last). */
static void test_garbage(void **state)
{
    enum phase phase = *(enum phase *)*state;

    to_phase(phase);
    for (unsigned size = 1; size <= 8; size *= 2) {
        for (unsigned offset = 0; offset < 0x40; offset++) {
            if (offset <= VIRTIO_PCI_COMMON_STATUS && offset + size > VIRTIO_PCI_COMMON_STATUS) {
                continue;
            }
            write_garbage(offset, size);
            rig_run();
        }
    }
    for (unsigned offset = 0; offset < 0x60; offset++) {
        guest_write(driver.isr + offset, UINT64_MAX, 4);
        guest_write(driver.device + offset, UINT64_MAX, 4);
        guest_write(driver.notify + offset, UINT64_MAX, 4);
    }
    for (unsigned vector = 0; vector < 2; vector++) {
        for (unsigned word = 0; word < 16; word += 4) {
            guest_write(driver.msix_table + vector * 16 + word, UINT64_MAX, 4);
        }
    }
    for (unsigned i = 0; i < 256; i++) {
        if (i < 4 || i >= 0x28) { /* not the command and the BARs */
            guest_config_write(BLK_DEVFN, i, 0xff, 1);
        }
    }
    run_a_while();
    for (int status = 0xff; status > 0; status -= 2) {
        vdriver_set_status(&driver, (uint8_t)status);
        rig_run();
    }
    fake_disk_release();
    check_works();
}

#define GARBAGE(n, p)                                                                              \
    {                                                                                              \
        .name = "test_garbage " n, .test_func = test_garbage, .setup_func = setup_garbage,         \
        .teardown_func = teardown, .initial_state = &(enum phase)                                  \
        {                                                                                          \
            p                                                                                      \
        }                                                                                          \
    }

static int setup_garbage(void **state)
{
    return setup(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_status_rules, setup, teardown),
        cmocka_unit_test_setup_teardown(test_feature_rules, setup, teardown),
        cmocka_unit_test_setup_teardown(test_queue_select, setup, teardown),
        cmocka_unit_test_setup_teardown(test_queue_size, setup, teardown),
        cmocka_unit_test_setup_teardown(test_active_queue, setup, teardown),
        cmocka_unit_test_setup_teardown(test_enable, setup, teardown),
        cmocka_unit_test_setup_teardown(test_vectors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_msix_toggle, setup, teardown),
        cmocka_unit_test_setup_teardown(test_set_when_removed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_readonly_registers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_device_config, setup, teardown),
        cmocka_unit_test_setup_teardown(test_doorbells, setup, teardown),
        cmocka_unit_test_setup_teardown(test_window, setup, teardown),
        GARBAGE("after reset", PHASE_RESET),
        GARBAGE("after ACKNOWLEDGE", PHASE_ACK),
        GARBAGE("after DRIVER", PHASE_DRIVER),
        GARBAGE("after FEATURES_OK", PHASE_FEATURES_OK),
        GARBAGE("with a queue", PHASE_QUEUE),
        GARBAGE("after DRIVER_OK", PHASE_DRIVER_OK),
        GARBAGE("in NEEDS_RESET", PHASE_BROKEN),
        GARBAGE("after FAILED", PHASE_FAILED),
        GARBAGE("during a reset", PHASE_RESETTING),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
