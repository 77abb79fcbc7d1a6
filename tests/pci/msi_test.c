/* SPDX-License-Identifier: MIT */
/* MSI and MSI-X: messages, masks, pending bits, notifiers and their routes. */
#include "kit.h"

#include <linux/pci_regs.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "aio/notifier.h"
#include "base/range.h"
#include "fake_accel.h"
#include "mem/machine_lock.h"
#include "pci/msix.h"

#define DEVFN   PCI_DEVFN(3, 0)
#define TABLE   UINT64_C(0xe0000000)
#define PBA     (TABLE + 0x800)
#define ENABLE  PCI_MSIX_FLAGS_ENABLE
#define MASKALL PCI_MSIX_FLAGS_MASKALL

static struct probe *probe;
static unsigned capability;

static unsigned find_capability(uint8_t id)
{
    unsigned at = kit_read(DEVFN, PCI_CAPABILITY_LIST, 1);

    while (at && kit_read(DEVFN, at, 1) != id) {
        at = kit_read(DEVFN, at + 1, 1);
    }
    return at;
}

/* ---- MSI ------------------------------------------------------------------------------------ */

static int setup_msi(void **state)
{
    kit_setup(state);
    probe = kit_add("pci-probe,addr=3,msi=4");
    capability = find_capability(PCI_CAP_ID_MSI);
    kit_write(DEVFN, capability + PCI_MSI_ADDRESS_LO, 0xfee00003, 4);
    kit_write(DEVFN, capability + PCI_MSI_ADDRESS_HI, 0, 4);
    kit_write(DEVFN, capability + PCI_MSI_DATA_64, 0x41, 2);
    return 0;
}

static void enable_msi(unsigned log2)
{
    kit_write(DEVFN, capability + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE | log2 << 4, 2);
}

static void test_msi(void **state)
{
    assert_int_equal(kit_read(DEVFN, capability + PCI_MSI_FLAGS, 2), 0x184);
    assert_int_equal(kit_read(DEVFN, capability + PCI_MSI_ADDRESS_LO, 4), 0xfee00000);
    msi_notify(&probe->pci, 0);
    assert_int_equal(fake_interrupts(0x41), 0); /* off */
    assert_false(msi_enabled(&probe->pci));
    enable_msi(0);
    assert_true(msi_enabled(&probe->pci));
    msi_notify(&probe->pci, 3); /* only one is allowed */
    assert_int_equal(fake_interrupts(0x41), 1);
    /* Four: the low bits of the data are the vector. */
    enable_msi(2);
    for (unsigned v = 0; v < 4; v++) {
        msi_notify(&probe->pci, v);
    }
    assert_int_equal(fake_interrupts(0x40), 1);
    assert_int_equal(fake_interrupts(0x41), 2);
    assert_int_equal(fake_interrupts(0x43), 1);
    /* More than it has: as many as it has. */
    enable_msi(5);
    msi_notify(&probe->pci, 2);
    assert_int_equal(fake_interrupts(0x42), 2);
}

static void test_msi_mask(void **state)
{
    unsigned mask = capability + PCI_MSI_MASK_64;

    enable_msi(2);
    kit_write(DEVFN, mask, 0xffffffff, 4);
    assert_int_equal(kit_read(DEVFN, mask, 4), 0xf);
    msi_notify(&probe->pci, 1);
    msi_notify(&probe->pci, 1);
    msi_notify(&probe->pci, 2);
    assert_int_equal(fake_interrupts(0x41), 0);
    assert_int_equal(kit_read(DEVFN, mask + 4, 4), 6);
    kit_write(DEVFN, mask + 4, 0, 4); /* pending is read-only */
    assert_int_equal(kit_read(DEVFN, mask + 4, 4), 6);
    kit_write(DEVFN, mask, 0x4, 4);
    assert_int_equal(fake_interrupts(0x41), 1);
    assert_int_equal(fake_interrupts(0x42), 0);
    assert_int_equal(kit_read(DEVFN, mask + 4, 4), 4);
    machine_lock();
    device_reset(&probe->pci.dev);
    machine_unlock();
    assert_int_equal(kit_read(DEVFN, mask + 4, 4), 0);
    assert_int_equal(kit_read(DEVFN, capability + PCI_MSI_FLAGS, 2), 0x184);
}

/* ---- MSI-X ---------------------------------------------------------------------------------- */

static int setup_msix(void **state)
{
    kit_setup(state);
    probe = kit_add("pci-probe,addr=3,msix=100");
    capability = find_capability(PCI_CAP_ID_MSIX);
    kit_write(DEVFN, 0x20, TABLE, 4);
    kit_write(DEVFN, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
    return 0;
}

static void set_flags(uint16_t flags)
{
    kit_write(DEVFN, capability + PCI_MSIX_FLAGS, flags, 2);
}

static void set_vector(unsigned vector, uint32_t data, bool masked)
{
    kit_set_mem(TABLE + vector * 16, 0xfee00000, 4);
    kit_set_mem(TABLE + vector * 16 + 4, 0, 4);
    kit_set_mem(TABLE + vector * 16 + 8, data, 4);
    kit_set_mem(TABLE + vector * 16 + 12, masked, 4);
}

static bool is_pending(unsigned vector)
{
    return kit_mem(PBA + vector / 64 * 8, 8) >> (vector % 64) & 1;
}

static void test_msix_table(void **state)
{
    assert_int_equal(kit_read(DEVFN, capability + PCI_MSIX_FLAGS, 2), 99);
    for (unsigned v = 0; v < 100; v++) {
        assert_int_equal(kit_mem(TABLE + v * 16 + 12, 4), 1); /* masked at reset */
    }
    kit_set_mem(TABLE + 16, UINT64_C(0x12345678fee0100f), 8);
    assert_true(kit_mem(TABLE + 16, 8) == UINT64_C(0x12345678fee0100c));
    kit_set_mem(TABLE + 24, UINT64_C(0xfffffffe00000055), 8);
    assert_true(kit_mem(TABLE + 24, 8) == 0x55); /* reserved bits of the control are 0 */
    struct msi_message msg = msix_message(&probe->pci, 1);
    assert_true(msg.address == UINT64_C(0x12345678fee0100c) && msg.data == 0x55);
    /* Narrow accesses are not defined: they do nothing. */
    kit_set_mem(TABLE + 24, 0xff, 1);
    kit_set_mem(TABLE + 24, 0xffff, 2);
    assert_int_equal(kit_mem(TABLE + 24, 4), 0x55);
    /* Pending bits are read-only; behind table and bits there is nothing. */
    kit_set_mem(PBA, UINT64_MAX, 8);
    assert_true(kit_mem(PBA, 8) == 0);
    assert_int_equal(kit_mem(TABLE + 100 * 16, 4), UINT32_MAX);
    kit_set_mem(TABLE + 100 * 16, 0, 4);
    /* The table size is read-only. */
    set_flags(0x7ff);
    assert_int_equal(kit_read(DEVFN, capability + PCI_MSIX_FLAGS, 2), 99);
}

static void test_msix_delivery(void **state)
{
    set_vector(0, 0x50, false);
    set_vector(99, 0x51, false);
    msix_notify(&probe->pci, 0);
    assert_int_equal(fake_interrupts(0x50), 0); /* off: not even pending */
    set_flags(ENABLE);
    assert_int_equal(fake_interrupts(0x50), 0);
    assert_true(msix_enabled(&probe->pci));
    msix_notify(&probe->pci, 0);
    msix_notify(&probe->pci, 99);
    msix_notify(&probe->pci, 100);
    msix_notify(&probe->pci, 0xffff);
    assert_int_equal(fake_interrupts(0x50), 1);
    assert_int_equal(fake_interrupts(0x51), 1);
    assert_int_equal(fake_accel.other, 0);
    machine_lock();
    device_reset(&probe->pci.dev);
    machine_unlock();
    assert_false(msix_enabled(&probe->pci));
    msix_notify(&probe->pci, 0);
    assert_int_equal(fake_interrupts(0x50), 1);
}

static void test_msix_masks(void **state)
{
    set_flags(ENABLE);
    set_vector(70, 0x50, true);
    msix_notify(&probe->pci, 70);
    msix_notify(&probe->pci, 70);
    assert_int_equal(fake_interrupts(0x50), 0);
    assert_true(is_pending(70));
    /* The function's mask is above the vector's. */
    set_flags(ENABLE | MASKALL);
    set_vector(70, 0x50, false);
    assert_int_equal(fake_interrupts(0x50), 0);
    set_flags(ENABLE);
    assert_int_equal(fake_interrupts(0x50), 1);
    assert_false(is_pending(70));
    /* A pending one goes out with the message of then. */
    set_vector(70, 0x50, true);
    msix_notify(&probe->pci, 70);
    set_vector(70, 0x52, false);
    assert_int_equal(fake_interrupts(0x50), 1);
    assert_int_equal(fake_interrupts(0x52), 1);
}

/* ---- notifiers ------------------------------------------------------------------------------ */

static struct event_notifier notifier[3];
static struct event_notifier *const notifiers[] = {&notifier[0], &notifier[1], &notifier[2]};

static bool set_notifiers(uint16_t a, uint16_t b, uint16_t c)
{
    machine_lock();
    bool ok = msix_set_notifiers(&probe->pci, notifiers, (const uint16_t[]){a, b, c}, 3);
    machine_unlock();
    return ok;
}

static void clear_notifiers(void)
{
    machine_lock();
    msix_clear_notifiers(&probe->pci);
    machine_unlock();
}

static int setup_notifiers(void **state)
{
    setup_msix(state);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(event_notifier_init(&notifier[i], NULL));
        set_vector(i, 0x60 + i, false);
    }
    set_flags(ENABLE);
    return 0;
}

static int teardown_notifiers(void **state)
{
    clear_notifiers();
    assert_int_equal(fake_accel.attached, 0);
    kit_teardown(state);
    for (unsigned i = 0; i < 3; i++) {
        event_notifier_cleanup(&notifier[i]);
    }
    return 0;
}

static void signal_notifier(unsigned i)
{
    event_notifier_set(&notifier[i]);
    fake_accel_poll();
}

static void test_notifiers(void **state)
{
    assert_int_equal(fake_accel.commits, 0);
    assert_true(set_notifiers(0, 1, 0xffff));
    assert_int_equal(fake_accel.commits, 1);
    assert_int_equal(fake_accel.attached, 2);
    signal_notifier(0);
    signal_notifier(1);
    signal_notifier(2); /* nobody's */
    assert_int_equal(fake_accel.injected[0x60], 1);
    assert_int_equal(fake_accel.injected[0x61], 1);
    /* Taken away and made again with the same messages: nothing to commit. */
    clear_notifiers();
    assert_int_equal(fake_accel.attached, 0);
    assert_true(set_notifiers(0, 1, 0xffff));
    assert_int_equal(fake_accel.commits, 1);
    /* msix_notify() still works beside them. */
    msix_notify(&probe->pci, 0);
    assert_int_equal(fake_accel.sent[0x60], 1);
}

static void test_shared_vector(void **state)
{
    assert_true(set_notifiers(1, 1, 1));
    assert_int_equal(fake_accel.attached, 3);
    signal_notifier(0);
    signal_notifier(1);
    signal_notifier(2);
    assert_int_equal(fake_accel.injected[0x61], 3);
    kit_set_mem(TABLE + 16 + 12, 1, 4);
    assert_int_equal(fake_accel.attached, 0);
    kit_set_mem(TABLE + 16 + 12, 0, 4);
    assert_int_equal(fake_accel.attached, 3);
    assert_int_equal(fake_accel.commits, 1);
}

static void test_masked_notifier(void **state)
{
    set_vector(1, 0x61, true);
    assert_true(set_notifiers(0, 1, 2));
    assert_int_equal(fake_accel.commits, 1);
    assert_int_equal(fake_accel.attached, 2);
    signal_notifier(1);
    assert_int_equal(fake_interrupts(0x61), 0);
    assert_true(is_pending(1)); /* found in the eventfd */
    kit_set_mem(TABLE + 16 + 12, 0, 4);
    assert_int_equal(fake_interrupts(0x61), 1);
    assert_false(is_pending(1));
    assert_int_equal(fake_accel.attached, 3);
    /* Not looked at in between. */
    kit_set_mem(TABLE + 16 + 12, 1, 4);
    signal_notifier(1);
    kit_set_mem(TABLE + 16 + 12, 0, 4);
    assert_int_equal(fake_interrupts(0x61), 2);
    /* The whole function. */
    set_flags(ENABLE | MASKALL);
    assert_int_equal(fake_accel.attached, 0);
    signal_notifier(0);
    signal_notifier(2);
    set_flags(ENABLE);
    assert_int_equal(fake_accel.attached, 3);
    assert_int_equal(fake_interrupts(0x60), 1);
    assert_int_equal(fake_interrupts(0x62), 1);
    assert_int_equal(fake_accel.commits, 1);
    /* Signalled while masked, and then taken away: still pending. */
    kit_set_mem(TABLE + 16 + 12, 1, 4);
    signal_notifier(1);
    clear_notifiers();
    assert_true(is_pending(1));
}

static void test_changed_message(void **state)
{
    assert_true(set_notifiers(0, 1, 2));
    /* As a driver does it: masked; one commit at the unmasking. */
    kit_set_mem(TABLE + 12, 1, 4);
    kit_set_mem(TABLE, 0xfee02000, 4);
    kit_set_mem(TABLE + 8, 0x70, 4);
    assert_int_equal(fake_accel.commits, 1);
    kit_set_mem(TABLE + 12, 0, 4);
    assert_int_equal(fake_accel.commits, 2);
    signal_notifier(0);
    assert_int_equal(fake_accel.injected[0x70], 1);
    /* Unmasked: at once. */
    kit_set_mem(TABLE + 8, 0x71, 4);
    assert_int_equal(fake_accel.commits, 3);
    signal_notifier(0);
    assert_int_equal(fake_accel.injected[0x71], 1);
    /* The same again changes nothing. */
    kit_set_mem(TABLE + 8, 0x71, 4);
    assert_int_equal(fake_accel.commits, 3);
}

/* All vectors change under the function's mask: one commit. */
static void test_changed_together(void **state)
{
    assert_true(set_notifiers(0, 1, 2));
    set_flags(ENABLE | MASKALL);
    for (unsigned v = 0; v < 3; v++) {
        kit_set_mem(TABLE + v * 16 + 8, 0x70 + v, 4);
    }
    assert_int_equal(fake_accel.commits, 1);
    set_flags(ENABLE);
    assert_int_equal(fake_accel.commits, 2);
    assert_int_equal(fake_accel.attached, 3);
    for (unsigned v = 0; v < 3; v++) {
        signal_notifier(v);
        assert_int_equal(fake_accel.injected[0x70 + v], 1);
    }
}

static void test_no_irqfd(void **state)
{
    fake_accel.accel.has_irqfd = false;
    assert_false(set_notifiers(0, 1, 2));
    fake_accel.accel.has_irqfd = true;
    fake_accel.refuse_irqfd = true;
    assert_false(set_notifiers(0, 1, 2));
    assert_int_equal(fake_accel.attached, 0);
    fake_accel.refuse_irqfd = false;
    assert_true(set_notifiers(0, 1, 2));
    /* Refused later, at an unmasking: the interrupt waits, nothing breaks. */
    kit_set_mem(TABLE + 12, 1, 4);
    fake_accel.refuse_irqfd = true;
    kit_set_mem(TABLE + 12, 0, 4);
    signal_notifier(0);
    assert_int_equal(fake_interrupts(0x60), 0);
    assert_true(is_pending(0));
    fake_accel.refuse_irqfd = false;
    kit_set_mem(TABLE + 12, 1, 4);
    kit_set_mem(TABLE + 12, 0, 4);
    assert_int_equal(fake_interrupts(0x60), 1);
}

static void test_reset_with_notifiers(void **state)
{
    assert_true(set_notifiers(0, 1, 2));
    machine_lock();
    device_reset(&probe->pci.dev);
    machine_unlock();
    assert_int_equal(fake_accel.attached, 0);
    signal_notifier(0);
    assert_int_equal(fake_interrupts(0x60), 0);
}

/* ---- threads -------------------------------------------------------------------------------- */

static _Atomic(bool) ended;

static void *notify_thread(void *opaque)
{
    for (unsigned i = 0; i < 20000; i++) {
        msix_notify(&probe->pci, 0);
    }
    ended = true;
    return NULL;
}

/* A vector is signalled while it is masked, unmasked and rewritten. Address and data belong
 * together, and the last signal comes out at the latest at the last unmasking. */
static void test_races(void **state)
{
    pthread_t thread;
    unsigned before, round = 0;

    ended = false;
    pthread_create(&thread, NULL, notify_thread, NULL);
    while (!ended) {
        kit_set_mem(TABLE + 12, 1, 4);
        kit_set_mem(TABLE, round % 2 ? 0xfee00000 : 0x10000000, 4);
        kit_set_mem(TABLE + 8, round % 2 ? 0x60 : 0x10060, 4);
        kit_set_mem(TABLE + 12, 0, 4);
        if (round % 16 == 0) {
            set_flags(ENABLE | MASKALL);
            set_flags(ENABLE);
        }
        round++;
    }
    pthread_join(thread, NULL);
    kit_set_mem(TABLE + 12, 1, 4);
    kit_set_mem(TABLE, 0xfee00000, 4);
    kit_set_mem(TABLE + 8, 0x60, 4);
    before = fake_interrupts(0x60);
    msix_notify(&probe->pci, 0);
    assert_true(is_pending(0));
    kit_set_mem(TABLE + 12, 0, 4);
    assert_int_equal(fake_interrupts(0x60), before + 1);
    assert_false(is_pending(0));
}

/* One signal meets one unmasking, again and again: whoever comes second sends, and only he. */
static _Atomic(unsigned) turn;

static void meet(unsigned round)
{
    atomic_fetch_add(&turn, 1);
    while (atomic_load(&turn) < 2 * (round + 1)) {
        sched_yield();
    }
}

#define MEETINGS 5000

static void *meeting_thread(void *opaque)
{
    for (unsigned round = 0; round < 2 * MEETINGS; round += 2) {
        meet(round);
        msix_notify(&probe->pci, 0);
        meet(round + 1);
    }
    return NULL;
}

static void test_meetings(void **state)
{
    pthread_t thread;

    turn = 0;
    pthread_create(&thread, NULL, meeting_thread, NULL);
    for (unsigned round = 0; round < 2 * MEETINGS; round += 2) {
        kit_set_mem(TABLE + 12, 1, 4);
        meet(round);
        kit_set_mem(TABLE + 12, 0, 4);
        meet(round + 1);
        if (fake_interrupts(0x60) != round / 2 + 1 || is_pending(0)) {
            fail_msg("round %u: %u interrupts, pending %d", round / 2, fake_interrupts(0x60),
                     is_pending(0));
        }
    }
    pthread_join(thread, NULL);
}

#define MSI(t)       cmocka_unit_test_setup_teardown(t, setup_msi, kit_teardown)
#define MSIX(t)      cmocka_unit_test_setup_teardown(t, setup_msix, kit_teardown)
#define NOTIFIERS(t) cmocka_unit_test_setup_teardown(t, setup_notifiers, teardown_notifiers)

int main(void)
{
    const struct CMUnitTest tests[] = {
        MSI(test_msi),
        MSI(test_msi_mask),
        MSIX(test_msix_table),
        MSIX(test_msix_delivery),
        MSIX(test_msix_masks),
        NOTIFIERS(test_notifiers),
        NOTIFIERS(test_shared_vector),
        NOTIFIERS(test_masked_notifier),
        NOTIFIERS(test_changed_message),
        NOTIFIERS(test_changed_together),
        NOTIFIERS(test_no_irqfd),
        NOTIFIERS(test_reset_with_notifiers),
        NOTIFIERS(test_races),
        NOTIFIERS(test_meetings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
