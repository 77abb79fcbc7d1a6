/* SPDX-License-Identifier: MIT */
/* KVM: GSI routes, irqfds, EOIs of a split irqchip. */
#include "kvm_fixture.h"

#include <errno.h>

#include "aio/notifier.h"

/* ---- routes and irqfds ---------------------------------------------------------------------- */

static void test_irqfd(void **unused)
{
    struct msi_message msg = message(0x41);
    struct event_notifier trigger;
    uint64_t before;
    int gsi;

    start_vm("on");
    assert_true(accel_has_irqfd());
    assert_true(event_notifier_init(&trigger, NULL));
    LOAD(interrupts);
    machine_lock();
    gsi = accel->ops->route_add(accel, &msg);
    assert_true(gsi >= ACCEL_GSI_PINS);
    accel->ops->routes_commit(accel);
    assert_int_equal(accel->ops->irqfd_add(accel, gsi, &trigger, NULL), 0);
    machine_unlock();
    vcpus_resume();
    WAIT(reports.count, 1);
    before = kvm_stats.signal_msi;
    for (unsigned i = 0; i < 10; i++) {
        event_notifier_set(&trigger);
        WAIT(vectors.count, i + 1);
        assert_int_equal(vectors.value[i], 0x41);
    }
    assert_int_equal(kvm_stats.signal_msi, before);

    /* The route changes under it. */
    msg = message(0x42);
    machine_lock();
    accel->ops->route_update(accel, gsi, &msg);
    accel->ops->routes_commit(accel);
    machine_unlock();
    event_notifier_set(&trigger);
    WAIT(vectors.count, 11);
    assert_int_equal(vectors.value[10], 0x42);

    machine_lock();
    accel->ops->irqfd_remove(accel, gsi, &trigger);
    accel->ops->route_remove(accel, gsi);
    machine_unlock();
    event_notifier_set(&trigger);
    usleep(20000);
    vcpus_pause();
    assert_int_equal(vectors.count, 11);
    event_notifier_cleanup(&trigger);
}

/* A level interrupt by irqfd: the EOI lowers the line and tells so. */
static void test_irqfd_resample(void **unused)
{
    struct event_notifier trigger, resample;

    start_vm("on");
    assert_true(event_notifier_init(&trigger, NULL));
    assert_true(event_notifier_init(&resample, NULL));
    LOAD(ioapic);
    assert_int_equal(accel->ops->irqfd_add(accel, 5, &trigger, &resample), 0);
    vcpus_resume();
    WAIT(reports.count, 1);
    for (unsigned i = 0; i < 5; i++) {
        bool told = false;

        assert_false(event_notifier_test_and_clear(&resample));
        event_notifier_set(&trigger);
        WAIT(vectors.count, i + 1);
        for (unsigned k = 0; k < 5000 && !told; k++) {
            told = event_notifier_test_and_clear(&resample);
            usleep(told ? 0 : 1000);
        }
        assert_true(told);
    }
    accel->ops->irqfd_remove(accel, 5, &trigger);
    vcpus_pause();
    assert_int_equal(vectors.count, 5);
    event_notifier_cleanup(&trigger);
    event_notifier_cleanup(&resample);
}

static uint64_t commit(void)
{
    uint64_t before = kvm_stats.set_gsi_routing;

    accel->ops->routes_commit(accel);
    return kvm_stats.set_gsi_routing - before;
}

/* The table goes to the kernel only if something in it has changed. */
static void test_routes_commit(void **unused)
{
    struct msi_message msg[3] = {message(0x41), message(0x42), message(0x43)};
    int gsi[3];

    start_vm("on");
    machine_lock();
    assert_int_equal(commit(), 0);
    for (unsigned i = 0; i < 3; i++) {
        gsi[i] = accel->ops->route_add(accel, &msg[i]);
        assert_int_equal(gsi[i], ACCEL_GSI_PINS + (int)i);
    }
    assert_int_equal(commit(), 1); /* three at once */
    assert_int_equal(commit(), 0);
    accel->ops->route_update(accel, gsi[1], &msg[1]);
    assert_int_equal(commit(), 0); /* the same */
    accel->ops->route_update(accel, gsi[1], &msg[2]);
    assert_int_equal(commit(), 1);
    accel->ops->route_remove(accel, gsi[0]);
    assert_int_equal(commit(), 0); /* nobody uses it */
    assert_int_equal(accel->ops->route_add(accel, &msg[0]), gsi[0]);
    assert_int_equal(commit(), 0); /* the kernel still has it */
    accel->ops->route_remove(accel, gsi[0]);
    assert_int_equal(accel->ops->route_add(accel, &msg[1]), gsi[0]);
    assert_int_equal(commit(), 1);
    /* A wrong GSI harms nobody. */
    accel->ops->route_update(accel, 5, &msg[0]);
    accel->ops->route_remove(accel, 100000);
    accel->ops->route_remove(accel, -1);
    assert_int_equal(commit(), 0);
    machine_unlock();
}

static void test_routes_many(void **unused)
{
    struct msi_message msg = message(0x41);
    unsigned count = 0;
    int gsi;

    start_vm("on");
    machine_lock();
    while ((gsi = accel->ops->route_add(accel, &msg)) >= 0) {
        count++;
        assert_true(count < 100000);
    }
    assert_int_equal(gsi, -ENOSPC);
    assert_int_equal(count, kvm_of(accel)->max_routes);
    for (unsigned i = 0; i < count; i++) {
        accel->ops->route_remove(accel, ACCEL_GSI_PINS + (int)i);
    }
    assert_int_equal(accel->ops->route_add(accel, &msg), ACCEL_GSI_PINS);
    machine_unlock();
}

static void test_routes_off(void **unused)
{
    struct msi_message msg = message(0x41);

    start_vm("off");
    assert_false(accel_has_irqfd());
    machine_lock();
    assert_int_equal(accel->ops->route_add(accel, &msg), -ENOTSUP);
    accel->ops->route_ioapic_pin(accel, 3, &msg);
    assert_int_equal(commit(), 0);
    machine_unlock();
}

static _Atomic(unsigned) eois, eoi_vector;
static void on_eoi(void *opaque, uint8_t vector)
{
    assert_true(machine_lock_held());
    atomic_store(&eoi_vector, vector);
    atomic_fetch_add(&eois, 1);
}

/* Split: ferry's IOAPIC sends a level interrupt, its EOI comes back as an exit. */
static void test_split_eoi(void **unused)
{
    struct msi_message msg = {.address = 0xfee00000, .data = 0x42 | 1 << 15 | 1 << 14};

    atomic_store(&eois, 0);
    start_vm("split");
    accel->eoi_broadcast = on_eoi;
    LOAD(interrupts);
    machine_lock();
    accel->ops->route_ioapic_pin(accel, 5, &msg);
    machine_unlock();
    vcpus_resume();
    WAIT(reports.count, 1);
    for (unsigned i = 0; i < 3; i++) {
        accel_msi_send(&msg);
        WAIT(vectors.count, i + 1);
        WAIT(eois, i + 1);
    }
    vcpus_pause();
    assert_int_equal(eoi_vector, 0x42);
    assert_int_equal(exits(VCPU_EXIT_IOAPIC_EOI), 3);
    /* After a reset: the route goes, no EOI is reported any more. */
    machine_lock();
    assert_int_equal(commit(), 0);
    accel->ops->route_ioapic_pin(accel, 5, NULL);
    assert_false(kvm_of(accel)->pins[5].in_kernel);
    machine_unlock();
}

int kvm_route_tests(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_irqfd),       TEST(test_irqfd_resample), TEST(test_routes_commit),
        TEST(test_routes_many), TEST(test_routes_off),     TEST(test_split_eoi),
    };

    return cmocka_run_group_tests_name("kvm route", tests, kvm_group_setup, kvm_group_teardown);
}
