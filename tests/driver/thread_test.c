/* SPDX-License-Identifier: MIT */
/*
 * The device with real threads around it: a vCPU that does I/O and looks at the used ring only when
 * it was interrupted, or (spins) one that mostly looks by itself, another that masks and unmasks
 * vectors all the time, the main loop, and an iothread. An interrupt or a doorbell that gets lost is a
 * time-out; ThreadSanitizer watches.
 */
#include <linux/pci_regs.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "aio/notifier.h"
#include "base/alloc.h"
#include "base/range.h"
#include "blkdriver.h"
#include "cm.h"
#include "device/iothread.h"
#include "device/system.h"
#include "fake_accel.h"
#include "fake_disk.h"
#include "hw/virtio/virtio.h"
#include "hw/virtio/virtio_pci.h"
#include "mem/machine_lock.h"

#define DEPTH   4
#define POLL_US 100  /* the longest time that a loop polls, where it does */
#define LOOKS   1000 /* at the used ring, in vain, before a spinning driver yields its CPU */

struct variant {
    bool irqfd, iothread, polling, event_idx, masks, vm_stops, spins;
    unsigned requests;
};

static const struct variant *v;
static struct vdriver driver;
static struct blk_request requests[DEPTH];
static _Atomic(bool) io_ended, failed;
static _Atomic(unsigned) done;

/* ---- the vCPU that does I/O ----------------------------------------------------------------- */

static bool interrupted(void *opaque)
{
    return fake_interrupts(VDRIVER_QUEUE_DATA) != *(unsigned *)opaque;
}

static void fail_thread(const char *what)
{
    fprintf(stderr, "thread_test: %s after %u requests\n", what, done);
    failed = true;
}

static void publish(unsigned slot)
{
    struct buffer buffers[3];
    unsigned n = blk_buffers(&requests[slot], buffers);

    vqueue_set_chain(&driver.queue, slot * 3, buffers, n);
    vqueue_publish(&driver.queue, (uint16_t)(slot * 3));
}

/* As an interrupt handler: all that is there. */
static unsigned take_all(void)
{
    unsigned count = 0;
    uint32_t head, written;

    do {
        while (vqueue_take_used(&driver.queue, &head, &written)) {
            unsigned slot = head / 3;
            if (slot >= DEPTH || blk_status(&requests[slot]) != VIRTIO_BLK_S_OK ||
                !blk_data_is(&requests[slot], slot * 4096)) {
                fail_thread("a wrong completion");
                return count;
            }
            count++;
        }
        /* vqueue_take_used() has moved used_event: look once more. */
    } while (vqueue_used_index(&driver.queue) != driver.queue.seen_used);
    return count;
}

/* Requests come from at once to after the loop has given up polling; some at the very moment. */
static void pause_us(unsigned us)
{
    int64_t until = clock_get_ns(AIO_CLOCK_RT) + us * NS_PER_US;

    while (clock_get_ns(AIO_CLOCK_RT) < until) {
    }
}

/* One request at a time. The driver looks by itself, so that the device has the next one before it
 * interrupts; but from time to time it sleeps. Where threads share a CPU it lets the device have it. */
static void *spinning_thread(void *opaque)
{
    mem_thread_register();
    for (unsigned issued = 0; done < v->requests && !failed; issued++) {
        bool sleeps = issued % 8 == 7;
        unsigned seen, n, looks = 0;
        publish(0);
        vdriver_kick_if_wanted(&driver);
        do {
            seen = fake_interrupts(VDRIVER_QUEUE_DATA);
            n = take_all();
            if (!n && sleeps && !rig_wait(interrupted, &seen)) {
                fail_thread("no interrupt");
            }
            if (!n && ++looks % LOOKS == 0) {
                sched_yield();
            }
        } while (!n && !failed);
        done += n;
    }
    io_ended = true;
    aio_loop_wake(rig.loop);
    mem_thread_unregister();
    return NULL;
}

static void *io_thread(void *opaque)
{
    unsigned in_flight = 0, issued = 0;

    mem_thread_register();
    while (done < v->requests && !failed) {
        unsigned seen = fake_interrupts(VDRIVER_QUEUE_DATA);
        /* Slots come back in any order, so a new round starts when all are back. */
        if (in_flight == 0) {
            if (v->polling) {
                pause_us(issued / DEPTH % (2 * POLL_US));
            }
            for (; in_flight < DEPTH && issued < v->requests; in_flight++, issued++) {
                publish(in_flight);
            }
            vdriver_kick_if_wanted(&driver);
        }
        if (!rig_wait(interrupted, &seen)) {
            fail_thread("no interrupt");
            break;
        }
        unsigned n = take_all();
        in_flight -= n;
        done += n;
    }
    io_ended = true;
    aio_loop_wake(rig.loop);
    mem_thread_unregister();
    return NULL;
}

/* ---- the vCPU that masks -------------------------------------------------------------------- */

static void *mask_thread(void *opaque)
{
    unsigned flags = driver.msix_capability + PCI_MSIX_FLAGS;
    unsigned round = 0;

    mem_thread_register();
    while (!io_ended) {
        if (round % 3) {
            vdriver_mask_vector(&driver, 1, true);
            guest_read(driver.msix_pba, 8);
            vdriver_mask_vector(&driver, 1, false);
        } else {
            guest_config_write(BLK_DEVFN, flags, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL, 2);
            guest_read(driver.msix_pba, 8);
            guest_config_write(BLK_DEVFN, flags, PCI_MSIX_FLAGS_ENABLE, 2);
        }
        if (round % 16 == 0) {
            /* Another message, with the same data: as a change of affinity. */
            vdriver_set_vector(&driver, 1, 0xfee01000 + (round % 8) * 0x1000, VDRIVER_QUEUE_DATA,
                               false);
        }
        round++;
        fake_accel_poll();
    }
    mem_thread_unregister();
    return NULL;
}

/* ---- the main thread ------------------------------------------------------------------------ */

static void test_threads(void **state)
{
    pthread_t io, mask;

    v = *state;
    io_ended = failed = false;
    done = 0;
    rig_init(v->irqfd);
    blk_add_fake_disk("");
    if (v->iothread) {
        autofree char *object =
            xasprintf("iothread,id=io0,poll-max-ns=%u", v->polling ? POLL_US * 1000 : 0);
        rig_object(object);
    }
    blk_add_device(&driver, v->iothread ? ",iothread=io0" : "");
    if (!v->iothread && v->polling) {
        aio_loop_set_poll(rig.loop, POLL_US * NS_PER_US, 0, 0);
    }
    vdriver_start(&driver, v->event_idx ? BIT64(VIRTIO_F_RING_EVENT_IDX) : 0, 0, true);
    for (unsigned i = 0; i < DEPTH; i++) {
        requests[i] = blk_request(VIRTIO_BLK_T_IN, i * 8, 4096);
    }
    pthread_create(&io, NULL, v->spins ? spinning_thread : io_thread, NULL);
    if (v->masks) {
        pthread_create(&mask, NULL, mask_thread, NULL);
    }
    for (unsigned round = 0; !io_ended; round++) {
        aio_loop_poll(rig.loop, !v->vm_stops);
        if (v->vm_stops && round % 64 == 0) {
            system_vm_state_changed(false);
            system_vm_state_changed(true);
            sched_yield();
        }
    }
    pthread_join(io, NULL);
    if (v->masks) {
        pthread_join(mask, NULL);
    }
    assert_false(failed);
    assert_int_equal(done, v->requests);
    assert_int_equal(fake_accel.other, 0);
    assert_false(vdriver_status(&driver) & VIRTIO_STATUS_NEEDS_RESET);
}

/* Resets against I/O: the queue is torn down while doorbells come. */
static _Atomic(bool) kicks_end;

static void *kick_thread(void *opaque)
{
    uint64_t doorbell = *(uint64_t *)opaque;

    mem_thread_register();
    while (!kicks_end) {
        guest_write(doorbell, 0, 2);
    }
    mem_thread_unregister();
    return NULL;
}

static void test_kicks_against_resets(void **state)
{
    pthread_t kick;

    rig_init(true);
    blk_add_fake_disk("");
    rig_object("iothread,id=io0");
    blk_add_device(&driver, ",iothread=io0");
    vdriver_start(&driver, 0, 16, true);
    kicks_end = false;
    uint64_t doorbell = driver.doorbell;
    pthread_create(&kick, NULL, kick_thread, &doorbell);
    for (unsigned i = 0; i < 100; i++) {
        vdriver_start(&driver, 0, 16, true);
        struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 7, 512);
        blk_publish(&driver, &r, 0);
    }
    kicks_end = true;
    pthread_join(kick, NULL);
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 7, 512);
    vdriver_start(&driver, 0, 16, true);
    assert_int_equal(blk_perform(&driver, &r), VIRTIO_BLK_S_OK);
}

/* ---- MSI-X goes off as the device interrupts ------------------------------------------------- */

/* The device's loop is held where it has decided on the irqfd and not set it yet. */
static struct event_notifier *_Atomic held_notifier;
static _Atomic(bool) is_held, goes_on;

void __real_event_notifier_set(struct event_notifier *n);
void __wrap_event_notifier_set(struct event_notifier *n);
void __wrap_event_notifier_set(struct event_notifier *n)
{
    if (n == atomic_load(&held_notifier)) {
        atomic_store(&held_notifier, NULL);
        is_held = true;
        while (!goes_on) {
            sched_yield();
        }
    }
    __real_event_notifier_set(n);
}

static bool loop_is_held(void *opaque)
{
    return is_held;
}

static bool intx_is_high(void *opaque)
{
    return rig.level[BLK_IRQ_LINE];
}

static void start_held_request(struct blk_request *r)
{
    struct virtio_pci *vpci = (struct virtio_pci *)device_find("vd");

    is_held = goes_on = false;
    held_notifier = &vpci->vdev->queues[0].interrupt;
    blk_publish(&driver, r, 0);
    vdriver_kick(&driver);
    assert_true(rig_wait(loop_is_held, NULL));
}

/* A started device with MSI-X on. Returns the configuration address of MSI-X's flags. */
static unsigned start_in_iothread(void)
{
    rig_init(true);
    blk_add_fake_disk("");
    rig_object("iothread,id=io0");
    blk_add_device(&driver, ",iothread=io0");
    vdriver_start(&driver, 0, 16, true);
    return driver.msix_capability + PCI_MSIX_FLAGS;
}

static void test_msix_off_at_the_interrupt(void **state)
{
    uint32_t head, written;

    unsigned flags = start_in_iothread();
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 7, 512);
    start_held_request(&r);
    guest_config_write(BLK_DEVFN, flags, 0, 2);
    goes_on = true;
    assert_true(rig_wait(intx_is_high, NULL));
    assert_int_equal(guest_read(driver.isr, 1), VIRTIO_ISR_QUEUE);
    assert_true(vdriver_wait_used(&driver, &head, &written));
    assert_int_equal(fake_interrupts(VDRIVER_QUEUE_DATA), 0);
    /* Off and on again. */
    guest_config_write(BLK_DEVFN, flags, PCI_MSIX_FLAGS_ENABLE, 2);
    start_held_request(&r);
    guest_config_write(BLK_DEVFN, flags, 0, 2);
    guest_config_write(BLK_DEVFN, flags, PCI_MSIX_FLAGS_ENABLE, 2);
    goes_on = true;
    assert_true(vdriver_wait_interrupts(VDRIVER_QUEUE_DATA, 1));
    assert_true(vdriver_wait_used(&driver, &head, &written));
    /* The engine has no irqfd left when the vector changes. */
    start_held_request(&r);
    fake_accel.refuse_irqfd = true;
    common_write(&driver, VIRTIO_PCI_COMMON_Q_MSIX, 0, 2);
    goes_on = true;
    assert_true(vdriver_wait_interrupts(VDRIVER_CONFIG_DATA, 1));
    fake_accel.refuse_irqfd = false;
}

/* The same at any moment, as it happens. */
static void test_msix_off_under_io(void **state)
{
    unsigned flags = start_in_iothread();
    struct blk_request r = blk_request(VIRTIO_BLK_T_IN, 7, 512);
    for (unsigned i = 0; i < 2000; i++) {
        uint32_t head, written;
        unsigned before = fake_interrupts(VDRIVER_QUEUE_DATA);
        blk_publish(&driver, &r, 0);
        vdriver_kick(&driver);
        pause_us(i % 50);
        guest_config_write(BLK_DEVFN, flags, 0, 2);
        if (fake_interrupts(VDRIVER_QUEUE_DATA) == before) {
            assert_true(rig_wait(intx_is_high, NULL));
            assert_int_equal(guest_read(driver.isr, 1), VIRTIO_ISR_QUEUE);
        }
        assert_true(vdriver_wait_used(&driver, &head, &written));
        guest_config_write(BLK_DEVFN, flags, PCI_MSIX_FLAGS_ENABLE, 2);
    }
}

static int teardown(void **state)
{
    rig_destroy();
    return 0;
}

#define VARIANT(n, ...)                                                                            \
    {                                                                                              \
        .name = "test_threads " n, .test_func = test_threads, .teardown_func = teardown,           \
        .initial_state = &(struct variant)                                                         \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        VARIANT("main loop, irqfd", .irqfd = true, .requests = 2000),
        VARIANT("main loop, msix", .requests = 2000),
        VARIANT("main loop, polling", .irqfd = true, .polling = true, .requests = 20000),
        VARIANT("main loop, polling, event index", .irqfd = true, .polling = true,
                .event_idx = true, .masks = true, .requests = 2000),
        VARIANT("main loop, polling, VM stops", .irqfd = true, .polling = true, .vm_stops = true,
                .requests = 2000),
        VARIANT("iothread, irqfd", .irqfd = true, .iothread = true, .requests = 2000),
        VARIANT("iothread, polling", .irqfd = true, .iothread = true, .polling = true,
                .requests = 20000),
        VARIANT("iothread, polling, event index", .irqfd = true, .iothread = true, .polling = true,
                .event_idx = true, .requests = 2000),
        VARIANT("main loop, driver spins", .irqfd = true, .polling = true, .spins = true,
                .requests = 20000),
        VARIANT("iothread, driver spins", .irqfd = true, .iothread = true, .polling = true,
                .spins = true, .requests = 20000),
        VARIANT("iothread, driver spins, event index, VM stops", .irqfd = true, .iothread = true,
                .polling = true, .event_idx = true, .spins = true, .vm_stops = true,
                .requests = 2000),
        VARIANT("iothread, msix, event index", .iothread = true, .event_idx = true,
                .requests = 2000),
        VARIANT("iothread, irqfd, masks", .irqfd = true, .iothread = true, .masks = true,
                .requests = 2000),
        VARIANT("iothread, msix, masks", .iothread = true, .masks = true, .requests = 2000),
        VARIANT("main loop, irqfd, masks", .irqfd = true, .masks = true, .requests = 2000),
        VARIANT("iothread, irqfd, VM stops", .irqfd = true, .iothread = true, .polling = true,
                .event_idx = true, .vm_stops = true, .requests = 2000),
        cmocka_unit_test_teardown(test_kicks_against_resets, teardown),
        cmocka_unit_test_teardown(test_msix_off_at_the_interrupt, teardown),
        cmocka_unit_test_teardown(test_msix_off_under_io, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
