/* SPDX-License-Identifier: MIT */
/* KVM: interrupts in the three irqchip modes, and several vCPUs. */
#include "kvm_fixture.h"

/* ---- interrupts ----------------------------------------------------------------------------- */

static void check_msi(const char *irqchip)
{
    struct msi_message first = message(0x41), second = message(0x42);
    uint64_t before = kvm_stats.signal_msi;
    bool in_kernel = strcmp(irqchip, "off");

    start_vm(irqchip);
    /* What ferry's LAPIC could not be asked for is not offered. */
    assert_int_equal(cpu_model_has(model, "x2apic"), in_kernel);
    assert_int_equal(cpu_model_has(model, "tsc-deadline"),
                     in_kernel && kvm_of(accel)->has_tsc_deadline);
    LOAD(interrupts);
    vcpus_resume();
    WAIT(reports.count, 1);
    for (unsigned i = 0; i < 20; i++) {
        accel_msi_send(i % 2 ? &second : &first);
        WAIT(vectors.count, i + 1);
        assert_int_equal(vectors.value[i], i % 2 ? 0x42 : 0x41);
    }
    vcpus_pause();
    assert_int_equal(kvm_stats.signal_msi - before, in_kernel ? 20 : 0);
    if (in_kernel) {
        assert_int_equal(exits(VCPU_EXIT_HLT), 0);
        return;
    }
    vcpus_resume();
    for (unsigned i = 0; i < 5000 && !exits(VCPU_EXIT_HLT); i++) {
        usleep(1000);
    }
    vcpus_pause();
    assert_true(exits(VCPU_EXIT_HLT) > 0);
    assert_true(vcpu_get(0)->halted);
}

static void test_msi_on(void **unused)
{
    check_msi("on");
}

static void test_msi_split(void **unused)
{
    check_msi("split");
}

static void test_msi_off(void **unused)
{
    check_msi("off");
}

/* The interrupt comes while IF is clear; with ferry's LAPIC an exit says when it can be taken. */
static void check_window(const char *irqchip)
{
    struct msi_message msg = message(0x41);

    start_vm(irqchip);
    LOAD(window);
    vcpus_resume();
    WAIT(reports.count, 1);
    accel_msi_send(&msg);
    usleep(20000);
    assert_int_equal(vectors.count, 0);
    atomic_store(&go, 1);
    WAIT(vectors.count, 1);
    vcpus_pause();
    assert_int_equal(vectors.count, 1);
}

static void test_masked_on(void **unused)
{
    check_window("on");
}

static void test_masked_off(void **unused)
{
    check_window("off");
}

static void test_window_exit(void **unused)
{
    SKIP_WHERE_EMULATED("the interrupt window opens without an exit");
    check_window("off");
    assert_true(exits(VCPU_EXIT_IRQ_WINDOW_OPEN) > 0);
}

static void check_nmi(const char *irqchip)
{
    start_vm(irqchip);
    LOAD(interrupts);
    vcpus_resume();
    WAIT(reports.count, 1);
    vcpu_request(vcpu_get(0), VCPU_REQUEST_NMI);
    WAIT(vectors.count, 1);
    vcpus_pause();
    assert_int_equal(vectors.value[0], 2);
}

static void test_nmi_on(void **unused)
{
    check_nmi("on");
}

static void test_nmi_off(void **unused)
{
    check_nmi("off");
}

static _Atomic(unsigned) acks;
static int pic_ack(void *opaque)
{
    accel_set_extint(0);
    atomic_fetch_add(&acks, 1);
    return 0x20;
}

/* The PIC's interrupt: LINT0 is left as virtual wire. */
static void check_extint(const char *irqchip)
{
    atomic_store(&acks, 0);
    start_vm(irqchip);
    accel->extint_ack = pic_ack;
    LOAD(interrupts);
    vcpus_resume();
    WAIT(reports.count, 1);
    for (unsigned i = 0; i < 5; i++) {
        accel_set_extint(1);
        WAIT(vectors.count, i + 1);
        assert_int_equal(vectors.value[i], 0x20);
    }
    vcpus_pause();
    assert_int_equal(acks, 5);
}

static void test_extint_split(void **unused)
{
    check_extint("split");
}

static void test_extint_off(void **unused)
{
    check_extint("off");
}

static void test_irq_line(void **unused)
{
    uint64_t before = kvm_stats.irq_line;

    start_vm("on");
    LOAD(ioapic);
    vcpus_resume();
    WAIT(reports.count, 1);
    accel->ops->irq_set(accel, 5, 1);
    WAIT(vectors.count, 1);
    accel->ops->irq_set(accel, 5, 0);
    vcpus_pause();
    assert_int_equal(vectors.value[0], 0x42);
    assert_int_equal(kvm_stats.irq_line - before, 2);
}

/* ---- several vCPUs -------------------------------------------------------------------------- */

static void check_smp(const char *irqchip)
{
    start_vm_of(irqchip, "host", 2);
    LOAD(start_ap);
    memcpy(ram_at(GUEST_AP), guest_ap, (size_t)(guest_ap_end - guest_ap));
    vcpus_resume();
    WAIT(reports.count, 1);
    WAIT(ap_value, 1);
    vcpus_pause();
    assert_int_equal(ap_value, 3); /* CS is 0x300 */
}

static void test_smp_on(void **unused)
{
    check_smp("on");
}

static void test_smp_split(void **unused)
{
    check_smp("split");
}

static void test_smp_off(void **unused)
{
    check_smp("off");
}

int kvm_irq_tests(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_msi_on),       TEST(test_msi_split),   TEST(test_msi_off),  TEST(test_masked_on),
        TEST(test_masked_off),   TEST(test_window_exit), TEST(test_nmi_on),   TEST(test_nmi_off),
        TEST(test_extint_split), TEST(test_extint_off),  TEST(test_irq_line), TEST(test_smp_on),
        TEST(test_smp_split),    TEST(test_smp_off),
    };

    return cmocka_run_group_tests_name("kvm irq", tests, kvm_group_setup, kvm_group_teardown);
}
