/* SPDX-License-Identifier: MIT */
/*
 * What happens to requests under way: reset by the driver and by the machine, VM stop and cont,
 * errors that stop the VM, unplug; and the write cache.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "blkdriver.h"
#include "block/backend.h"
#include "cm.h"
#include "device/iothread.h"
#include "device/system.h"
#include "fake_accel.h"
#include "fake_disk.h"
#include "hw/virtio/virtio.h"
#include "mem/dma.h"
#include "mem/machine_lock.h"

static struct vdriver driver;

/* What system_io_error() was called with last; io_errors is counted after the rest is there. */
static _Atomic(unsigned) io_errors;
static struct {
    char drive[16], node[16];
    bool is_write, has_io_status;
    int action, error;
} io_error;

static void on_io_error(const struct system_io_error *error)
{
    snprintf(io_error.drive, sizeof(io_error.drive), "%s", error->drive);
    snprintf(io_error.node, sizeof(io_error.node), "%s", error->node);
    io_error.is_write = error->is_write;
    io_error.has_io_status = error->has_io_status;
    io_error.action = error->action;
    io_error.error = error->error;
    io_errors++;
}

static const struct system_handlers handlers = {.io_error = on_io_error};

static int teardown(void **state)
{
    fake_disk_release();
    rig_destroy();
    return 0;
}

/* Over whatever node is named "disk". state: is there an iothread? */
static void start_device(void **state, const char *more, uint64_t features)
{
    bool iothread = *(bool *)*state;

    if (iothread) {
        rig_object("iothread,id=io0");
    }
    autofree char *text = xasprintf("%s%s", more, iothread ? ",iothread=io0" : "");
    blk_add_device(&driver, text);
    vdriver_start(&driver, features, 0, true);
}

static void init(void)
{
    rig_init(true);
    io_errors = 0;
    system_set_handlers(&handlers);
}

static void start(void **state, const char *more, uint64_t features)
{
    init();
    blk_add_fake_disk("");
    start_device(state, more, features);
}

static bool held_is(void *opaque)
{
    return fake_disk.held == *(unsigned *)opaque;
}

/* Three reads that the disk holds back. */
static void hold_reads(struct blk_request r[3])
{
    fake_disk.hold = true;
    for (unsigned i = 0; i < 3; i++) {
        r[i] = blk_request(VIRTIO_BLK_T_IN, i * 2, 512);
        blk_publish(&driver, &r[i], i * 3);
    }
    vdriver_kick(&driver);
    assert_true(rig_wait(held_is, &(unsigned){3}));
}

static void run_a_while(void)
{
    for (unsigned i = 0; i < 200; i++) {
        rig_run();
    }
}

/* ---- reset ---------------------------------------------------------------------------------- */

static void test_reset_in_flight(void **state)
{
    struct blk_request r[3];

    start(state, "", 0);
    hold_reads(r);
    vdriver_set_status(&driver, 0);
    run_a_while();
    /* Not before the disk has given back the buffers. */
    assert_int_not_equal(vdriver_status(&driver), 0);
    /* Meanwhile the registers take nothing. */
    vdriver_set_status(&driver, VIRTIO_STATUS_ACKNOWLEDGE);
    common_write(&driver, VIRTIO_PCI_COMMON_Q_SIZE, 4, 2);
    common_write(&driver, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
    assert_int_equal(common_read(&driver, VIRTIO_PCI_COMMON_Q_SIZE, 2), 256);
    vdriver_kick(&driver);
    vdriver_set_status(&driver, 0);
    fake_disk_release();
    assert_true(vdriver_reset(&driver));
    assert_int_equal(fake_accel.attached, 0);
    assert_int_equal(common_read(&driver, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);

    vdriver_start(&driver, 0, 0, true);
    struct blk_request again = blk_request(VIRTIO_BLK_T_IN, 7, 512);
    assert_int_equal(blk_perform(&driver, &again), VIRTIO_BLK_S_OK);
    assert_true(blk_data_is(&again, 7 * 512));
}

static void test_reset_many_times(void **state)
{
    start(state, "", 0);
    for (unsigned i = 0; i < 50; i++) {
        struct blk_request r = blk_request(VIRTIO_BLK_T_IN, i, 512);
        blk_publish(&driver, &r, 0);
        vdriver_kick(&driver);
        if (i % 3 == 0) {
            rig_run();
        }
        assert_true(vdriver_reset(&driver));
        vdriver_start(&driver, 0, 16, true);
    }
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 7, 512);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_OK);
}

static void test_system_reset_in_flight(void **state)
{
    struct blk_request r[3];

    start(state, "", 0);
    hold_reads(r);
    machine_lock();
    devices_reset();
    machine_unlock();
    /* The function decodes nothing any more. */
    assert_int_equal(guest_config_read(BLK_DEVFN, 4, 2), 0);
    assert_int_equal(common_read(&driver, VIRTIO_PCI_COMMON_STATUS, 1), 0xff);
    rig_assign();
    assert_int_not_equal(vdriver_status(&driver), 0);
    fake_disk_release();
    vdriver_probe(&driver, BLK_DEVFN);
    vdriver_start(&driver, 0, 0, true);
    struct blk_request again = blk_request(VIRTIO_BLK_T_IN, 7, 512);
    assert_int_equal(blk_perform(&driver, &again), VIRTIO_BLK_S_OK);
}

static void test_unplug_in_flight(void **state)
{
    struct blk_request r[3];

    start(state, "", 0);
    hold_reads(r);
    fake_disk_release();
    machine_lock();
    device_free(device_find("vd"));
    machine_unlock();
    assert_int_equal(guest_config_read(BLK_DEVFN, 0, 4), UINT32_MAX);
    assert_int_equal(fake_accel.attached, 0);
    /* Its place and its disk are free again. */
    blk_add_device(&driver, "");
    vdriver_start(&driver, 0, 0, true);
    struct blk_request again = blk_request(VIRTIO_BLK_T_IN, 7, 512);
    assert_int_equal(blk_perform(&driver, &again), VIRTIO_BLK_S_OK);
}

/* FAILED: the driver has given up; nothing moves until a reset. */
static void test_failed(void **state)
{
    uint32_t head, written;

    start(state, "", 0);
    vdriver_set_status(&driver, vdriver_status(&driver) | VIRTIO_STATUS_FAILED);
    run_a_while();
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 7, 512);
    blk_publish(&driver, &r, 0);
    vdriver_kick(&driver);
    run_a_while();
    assert_false(vqueue_take_used(&driver.queue, &head, &written));
    assert_int_equal(fake_disk.count[FAKE_READ], 0);
    vdriver_start(&driver, 0, 0, true);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_OK);
}

/* ---- VM stop -------------------------------------------------------------------------------- */

static void stop_vm(void)
{
    system_vm_state_changed(false);
}

static void cont_vm(void)
{
    system_vm_state_changed(true);
}

static void test_vm_stop(void **state)
{
    struct blk_request r[3];
    uint32_t head, written;

    start(state, "", BIT64(VIRTIO_F_RING_EVENT_IDX));
    hold_reads(r);
    fake_disk_release();
    stop_vm();
    /* All is back, and nothing moves any more. */
    assert_int_equal(vqueue_used_index(&driver.queue), 3);
    struct blk_request later = blk_request(VIRTIO_BLK_T_IN, 7, 512);
    blk_publish(&driver, &later, 9);
    vdriver_kick(&driver);
    run_a_while();
    assert_int_equal(vqueue_used_index(&driver.queue), 3);
    assert_int_equal(blk_status(&later), 0xee);
    assert_true(vdriver_status(&driver) & VIRTIO_STATUS_DRIVER_OK);
    cont_vm();
    for (unsigned i = 0; i < 4; i++) {
        assert_true(vdriver_wait_used(&driver, &head, &written));
    }
    assert_int_equal(head, 9);
    assert_int_equal(blk_status(&later), VIRTIO_BLK_S_OK);
    assert_true(blk_data_is(&later, 7 * 512));
}

/* Reset and DRIVER_OK while the VM is stopped (by a debugger, say). */
static void test_vm_stop_reset(void **state)
{
    start(state, "", 0);
    stop_vm();
    assert_true(vdriver_reset(&driver));
    vdriver_start(&driver, 0, 0, true);
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 7, 512);
    blk_publish(&driver, &r, 0);
    vdriver_kick(&driver);
    run_a_while();
    assert_int_equal(blk_status(&r), 0xee);
    cont_vm();
    uint32_t head, written;
    assert_true(vdriver_wait_used(&driver, &head, &written));
    assert_int_equal(blk_status(&r), VIRTIO_BLK_S_OK);
}

/* ---- limits --------------------------------------------------------------------------------- */

#define LIMITED 30 /* requests, one a second */

static bool disk_reads(void *opaque)
{
    return fake_disk.count[FAKE_READ] > 0;
}

/* Whoever waits for them does not wait for the limit. */
static void with_limit(void **state, void (*wait)(void))
{
    struct blk_request r[LIMITED];

    init();
    fake_disk_reset();
    rig_object("throttle-group,id=tg0,x-iops-total=1");
    blk_add_node("driver=throttle,node-name=disk,throttle-group=tg0,file.driver=fake-disk");
    start_device(state, "", 0);
    for (unsigned i = 0; i < LIMITED; i++) {
        r[i] = blk_request(VIRTIO_BLK_T_IN, i * 2, 512);
        blk_publish(&driver, &r[i], i * 3);
    }
    vdriver_kick(&driver);
    assert_true(rig_wait(disk_reads, NULL));
    int64_t begin = clock_get_ns(AIO_CLOCK_RT);
    wait();
    assert_true(clock_get_ns(AIO_CLOCK_RT) - begin < LIMITED / 2 * NS_PER_SEC);
    /* All that the device had taken; an iothread may have been at it yet. */
    assert_int_equal(vqueue_used_index(&driver.queue), fake_disk.count[FAKE_READ]);
}

static void reset_device(void)
{
    assert_true(vdriver_reset(&driver));
}

static void unplug(void)
{
    machine_lock();
    device_free(device_find("vd"));
    machine_unlock();
}

static void test_limit_reset(void **state)
{
    with_limit(state, reset_device);
}

static void test_limit_unplug(void **state)
{
    with_limit(state, unplug);
}

static void test_limit_vm_stop(void **state)
{
    with_limit(state, stop_vm);
    cont_vm();
    /* It holds again, and has not forgotten them. */
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 7, 512);
    blk_publish(&driver, &r, 0);
    vdriver_kick(&driver);
    run_a_while();
    assert_int_equal(blk_status(&r), 0xee);
    reset_device();
}

/* ---- errors --------------------------------------------------------------------------------- */

static bool errors_came(void *opaque)
{
    return io_errors >= *(unsigned *)opaque;
}

/* One more error was told, of the disk "disk", which is no -drive. */
static void check_error(unsigned count, bool is_write, int action, int error)
{
    assert_true(rig_wait(errors_came, &count));
    assert_int_equal(io_errors, count);
    assert_string_equal(io_error.drive, "");
    assert_string_equal(io_error.node, "disk");
    assert_int_equal(io_error.is_write, is_write);
    assert_int_equal(io_error.action, action);
    assert_int_equal(io_error.error, error);
}

static void test_error_report(void **state)
{
    start(state, ",werror=report", 0);
    assert_false(backend_has_io_status(backend_first()));
    fake_disk.error[FAKE_READ] = -EIO;
    fake_disk.error[FAKE_WRITE] = -ENOSPC;
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 7, 512);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_IOERR);
    check_error(1, false, SYSTEM_IO_REPORT, EIO);
    assert_false(io_error.has_io_status);
    struct blk_request w = blk_request(VIRTIO_BLK_T_OUT, 7, 512);
    assert_int_equal(blk_perform(&driver, &w), VIRTIO_BLK_S_IOERR);
    check_error(2, true, SYSTEM_IO_REPORT, ENOSPC);
    fake_disk.error[FAKE_FLUSH] = -EIO;
    struct blk_request f = blk_request(VIRTIO_BLK_T_FLUSH, 0, 0);
    assert_int_equal(blk_perform(&driver, &f), VIRTIO_BLK_S_IOERR);
    check_error(3, true, SYSTEM_IO_REPORT, EIO);
    assert_int_equal(backend_io_status(backend_first()), BLOCK_IO_OK);
}

static void test_error_ignore(void **state)
{
    uint32_t head, written;

    start(state, ",rerror=ignore,werror=ignore", 0);
    fake_disk.error[FAKE_READ] = fake_disk.error[FAKE_WRITE] = -EIO;
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 7, 512);
    blk_publish(&driver, &r, 0);
    vdriver_kick(&driver);
    assert_true(vdriver_wait_used(&driver, &head, &written));
    assert_int_equal(written, 0); /* done, but nothing was read */
    assert_int_equal(blk_status(&r), VIRTIO_BLK_S_OK);
    check_error(1, false, SYSTEM_IO_IGNORE, EIO);
    struct blk_request w = blk_request(VIRTIO_BLK_T_OUT, 7, 512);
    assert_int_equal(blk_perform(&driver, &w), VIRTIO_BLK_S_OK);
    check_error(2, true, SYSTEM_IO_IGNORE, EIO);
    assert_false(io_error.has_io_status);
}

/* What is the guest's fault is not the disk's: it stops no VM. */
static void test_error_of_guest(void **state)
{
    start(state, ",rerror=stop,werror=stop", 0);
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 2047, 1024);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_IOERR);
    struct blk_request w = blk_request(VIRTIO_BLK_T_OUT, 2048, 512);
    assert_int_equal(blk_perform(&driver, &w), VIRTIO_BLK_S_IOERR);
    assert_int_equal(io_errors, 0);
}

/* By default a full disk stops the VM, and the write is done again when it goes on. */
static void test_error_stop(void **state)
{
    uint32_t head, written;

    start(state, "", 0);
    fake_disk.error[FAKE_WRITE] = -ENOSPC;
    struct blk_request w = blk_request(VIRTIO_BLK_T_OUT, 7, 512);
    memset(guest_ram(w.data), 0x33, 512);
    blk_publish(&driver, &w, 0);
    vdriver_kick(&driver);
    check_error(1, true, SYSTEM_IO_STOP, ENOSPC);
    assert_true(io_error.has_io_status);
    stop_vm();
    assert_int_equal(backend_io_status(backend_first()), BLOCK_IO_NOSPACE);
    assert_false(vqueue_take_used(&driver.queue, &head, &written));
    assert_int_equal(blk_status(&w), 0xee);
    fake_disk.error[FAKE_WRITE] = 0;
    backends_reset_io_status();
    cont_vm();
    assert_true(vdriver_wait_used(&driver, &head, &written));
    assert_int_equal(blk_status(&w), VIRTIO_BLK_S_OK);
    assert_int_equal(fake_disk.data[7 * 512], 0x33);
    /* The backend has no name: what it shows stays, as QEMU's does. */
    assert_int_equal(backend_io_status(backend_first()), BLOCK_IO_NOSPACE);
}

/* The same, but the machine is reset instead: the write is forgotten. */
static void test_error_stop_reset(void **state)
{
    start(state, ",rerror=stop", 0);
    fake_disk.error[FAKE_READ] = -EIO;
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 7, 512);
    blk_publish(&driver, &r, 0);
    vdriver_kick(&driver);
    check_error(1, false, SYSTEM_IO_STOP, EIO);
    stop_vm();
    assert_int_equal(backend_io_status(backend_first()), BLOCK_IO_FAILED);
    machine_lock();
    devices_reset();
    machine_unlock();
    cont_vm();
    run_a_while();
    assert_int_equal(blk_status(&r), 0xee);
    assert_int_equal(fake_disk.count[FAKE_READ], 1);
    fake_disk.error[FAKE_READ] = 0;
    rig_assign();
    vdriver_probe(&driver, BLK_DEVFN);
    vdriver_start(&driver, 0, 0, true);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_OK);
}

/* ---- the write cache ------------------------------------------------------------------------ */

#define WCE_OFFSET 32

static unsigned flushes_of_a_write(void)
{
    unsigned before = fake_disk.count[FAKE_FLUSH];
    struct blk_request w = blk_request(VIRTIO_BLK_T_OUT, 7, 512);

    assert_int_equal(blk_perform(&driver, &w), VIRTIO_BLK_S_OK);
    return fake_disk.count[FAKE_FLUSH] - before + (fake_disk.last_flags & 1);
}

static bool flushed(void *opaque)
{
    return fake_disk.count[FAKE_FLUSH] > *(unsigned *)opaque;
}

static void test_write_cache(void **state)
{
    start(state, "", BIT64(VIRTIO_BLK_F_FLUSH));
    assert_int_equal(guest_read(driver.device + WCE_OFFSET, 1), 1);
    assert_int_equal(flushes_of_a_write(), 0);
    /* It did not negotiate CONFIG_WCE. */
    guest_write(driver.device + WCE_OFFSET, 0, 1);
    assert_int_equal(guest_read(driver.device + WCE_OFFSET, 1), 1);

    vdriver_start(&driver, BIT64(VIRTIO_BLK_F_FLUSH) | BIT64(VIRTIO_BLK_F_CONFIG_WCE), 0, true);
    assert_int_equal(flushes_of_a_write(), 0);
    unsigned before = fake_disk.count[FAKE_FLUSH];
    guest_write(driver.device + WCE_OFFSET, 0, 1);
    assert_int_equal(guest_read(driver.device + WCE_OFFSET, 1), 0);
    assert_true(rig_wait(flushed, &before)); /* what was in the cache */
    assert_int_not_equal(flushes_of_a_write(), 0);

    /* A driver that cannot flush gets no cache; a reset brings the configured one back. */
    assert_true(vdriver_reset(&driver));
    assert_int_equal(guest_read(driver.device + WCE_OFFSET, 1), 1);
    vdriver_start(&driver, 0, 0, true);
    assert_int_not_equal(flushes_of_a_write(), 0);
}

static bool wce_is(void *opaque)
{
    return guest_read(driver.device + WCE_OFFSET, 1) == *(uint8_t *)opaque;
}

/* A driver that has written, and then cannot switch the cache off without losing that. */
static void fail_to_switch_off(void **state, const char *werror, int action)
{
    start(state, werror, BIT64(VIRTIO_BLK_F_FLUSH) | BIT64(VIRTIO_BLK_F_CONFIG_WCE));
    assert_int_equal(flushes_of_a_write(), 0);
    fake_disk.error[FAKE_FLUSH] = -EIO;
    guest_write(driver.device + WCE_OFFSET, 0, 1);
    check_error(1, true, action, EIO);
}

/* It sees that it is to flush, and what it writes meanwhile is safe. */
static void test_write_cache_error_report(void **state)
{
    fail_to_switch_off(state, ",werror=report", SYSTEM_IO_REPORT);
    assert_true(rig_wait(wce_is, &(uint8_t){1}));
    assert_true(vdriver_wait_interrupts(VDRIVER_CONFIG_DATA, 1));
    struct blk_request f = blk_request(VIRTIO_BLK_T_FLUSH, 0, 0);
    assert_int_equal(blk_perform(&driver, &f), VIRTIO_BLK_S_IOERR);
    assert_true(wce_is(&(uint8_t){1}));
    fake_disk.error[FAKE_FLUSH] = 0;
    assert_int_not_equal(flushes_of_a_write(), 0);
    assert_int_equal(blk_perform(&driver, &f), VIRTIO_BLK_S_OK);
    assert_true(wce_is(&(uint8_t){0}));
    assert_true(vdriver_wait_interrupts(VDRIVER_CONFIG_DATA, 2));

    /* Or it switches it off once more. */
    guest_write(driver.device + WCE_OFFSET, 1, 1);
    assert_int_equal(flushes_of_a_write(), 0);
    fake_disk.error[FAKE_FLUSH] = -EIO;
    guest_write(driver.device + WCE_OFFSET, 0, 1);
    check_error(3, true, SYSTEM_IO_REPORT, EIO);
    assert_true(rig_wait(wce_is, &(uint8_t){1}));
    fake_disk.error[FAKE_FLUSH] = 0;
    unsigned before = fake_disk.count[FAKE_FLUSH];
    guest_write(driver.device + WCE_OFFSET, 0, 1);
    assert_true(rig_wait(flushed, &before));
    run_a_while();
    assert_true(wce_is(&(uint8_t){0}));
    assert_int_not_equal(flushes_of_a_write(), 0);
}

static void test_write_cache_error_ignore(void **state)
{
    fail_to_switch_off(state, ",werror=ignore", SYSTEM_IO_IGNORE);
    run_a_while();
    assert_true(wce_is(&(uint8_t){0}));
}

/* The flush is owed until the VM goes on. */
static void test_write_cache_error_stop(void **state)
{
    fail_to_switch_off(state, ",werror=stop", SYSTEM_IO_STOP);
    stop_vm();
    assert_int_equal(backend_io_status(backend_first()), BLOCK_IO_FAILED);
    cont_vm();
    check_error(2, true, SYSTEM_IO_STOP, EIO); /* still */
    stop_vm();
    fake_disk.error[FAKE_FLUSH] = 0;
    unsigned before = fake_disk.count[FAKE_FLUSH];
    cont_vm();
    assert_true(rig_wait(flushed, &before));
    run_a_while();
    assert_int_equal(io_errors, 2);
    assert_true(wce_is(&(uint8_t){0}));
    stop_vm();
    before = fake_disk.count[FAKE_FLUSH];
    cont_vm();
    run_a_while();
    assert_int_equal(fake_disk.count[FAKE_FLUSH], before);
}

/* It was that driver's. */
static void test_write_cache_error_reset(void **state)
{
    fail_to_switch_off(state, ",werror=stop", SYSTEM_IO_STOP);
    stop_vm();
    unsigned before = fake_disk.count[FAKE_FLUSH];
    reset_device();
    cont_vm();
    assert_true(wce_is(&(uint8_t){1}));
    vdriver_start(&driver, BIT64(VIRTIO_BLK_F_FLUSH) | BIT64(VIRTIO_BLK_F_CONFIG_WCE), 0, true);
    run_a_while();
    assert_int_equal(fake_disk.count[FAKE_FLUSH], before);
    assert_int_equal(io_errors, 1);
    fake_disk.error[FAKE_FLUSH] = 0; /* for the end of the drive */
}

static void test_write_through(void **state)
{
    start(state, ",write-cache=off,config-wce=off", UINT64_MAX & ~BIT64(VIRTIO_F_RING_EVENT_IDX));
    assert_false(driver.features & (BIT64(VIRTIO_BLK_F_FLUSH) | BIT64(VIRTIO_BLK_F_CONFIG_WCE)));
    assert_int_equal(guest_read(driver.device + WCE_OFFSET, 1), 0);
    assert_int_not_equal(flushes_of_a_write(), 0);
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
        BOTH(test_reset_in_flight),
        BOTH(test_reset_many_times),
        BOTH(test_system_reset_in_flight),
        BOTH(test_unplug_in_flight),
        BOTH(test_failed),
        BOTH(test_vm_stop),
        BOTH(test_vm_stop_reset),
        BOTH(test_error_report),
        BOTH(test_error_ignore),
        BOTH(test_error_of_guest),
        BOTH(test_error_stop),
        BOTH(test_error_stop_reset),
        BOTH(test_write_cache),
        BOTH(test_write_through),
        BOTH(test_limit_reset),
        BOTH(test_limit_unplug),
        BOTH(test_limit_vm_stop),
        BOTH(test_write_cache_error_report),
        BOTH(test_write_cache_error_ignore),
        BOTH(test_write_cache_error_stop),
        BOTH(test_write_cache_error_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
