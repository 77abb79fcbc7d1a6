/* SPDX-License-Identifier: MIT */
/* KVM: the exits that are neither IO nor MMIO, and start-up. */
#include "kvm_fixture.h"

#include <sys/ioctl.h>

/* ---- start-up ------------------------------------------------------------------------------- */

static void test_too_many_cpus(void **unused)
{
    const char *entries[] = {"kvm,force=on"};
    struct error *err = NULL;

    assert_null(accel_init(entries, 1, NULL, 1000000, &err));
    assert_contains(take_error(&err), "-smp 1000000: the host's KVM takes at most ");
}

/* The probe's verdict is the one that this host's behaviour shows. */
static void test_probe(void **unused)
{
    const char *entries[] = {"kvm"};
    struct error *err = NULL;

    accel = accel_init(entries, 1, NULL, 1, &err);
    if (emulated) {
        assert_null(accel);
        assert_contains(take_error(&err), "emulates 64-bit ring-0 code instead of running it");
    } else {
        assert_non_null(accel);
        accel_cleanup();
        accel = NULL;
    }
}

/* -machine pit=off: the kernel has a PIT only if it was asked for one. */
static void test_pit(void **unused)
{
    const char *entries[] = {"kvm,force=on,kernel-irqchip=on"};
    struct error *err = NULL;
    struct x86_pit pit;

    accel = accel_init(entries, 1, NULL, 1, &err);
    assert_non_null(accel);
    assert_false(accel->ops->get_pit(accel, &pit));
    assert_true(accel->ops->create_pit(accel, &err));
    assert_true(accel->ops->get_pit(accel, &pit));
    assert_false(accel->ops->create_pit(accel, &err)); /* there is one */
    assert_contains(take_error(&err), "KVM_CREATE_PIT2");
    accel_cleanup();
    accel = NULL;
}

/* ---- exits ---------------------------------------------------------------------------------- */

static void test_shutdown(void **unused)
{
    start_vm("on");
    LOAD(triple_fault);
    vcpus_resume();
    WAIT(system_record.resets, 1);
    vcpus_pause();
    assert_int_equal(exits(VCPU_EXIT_SHUTDOWN), 1);
    assert_int_equal(system_record.cause, SYSTEM_CAUSE_GUEST_RESET);
    /* After a reset it runs again. */
    vcpus_reset();
    LOAD(mmio);
    vcpus_resume();
    WAIT(reports.count, 2);
}

static bool has_hyperv(void)
{
    struct error *err = NULL;
    struct cpu_model *m;
    bool ok;
    const char *entries[] = {"kvm,force=on"};

    assert_non_null(accel_init(entries, 1, NULL, 1, &err));
    m = cpu_model_new("host,hv-crash=on", accel_current(), 1, &err);
    assert_non_null(m);
    ok = cpu_model_has(m, "hv-crash");
    cpu_model_free(m);
    accel_cleanup();
    return ok;
}

static void test_crash(void **unused)
{
    if (!has_hyperv()) {
        print_message("skipped: this KVM has no Hyper-V interface\n");
        skip();
    }
    start_vm_of("on", "host,hv-crash=on", 1);
    LOAD(crash);
    vcpus_resume();
    WAIT(system_record.crashes, 1);
    WAIT(reports.count, 1); /* the guest goes on */
    vcpus_pause();
    assert_int_equal(reports.value[0], 0xdead);
    assert_int_equal(exits(VCPU_EXIT_SYSTEM_EVENT), 1);
    assert_true(system_record.crash.has_hyperv);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(system_record.crash.hyperv[i], 0x1000 + i);
    }
}

static void test_hv_reset(void **unused)
{
    if (!has_hyperv()) {
        print_message("skipped: this KVM has no Hyper-V interface\n");
        skip();
    }
    start_vm_of("on", "host,hv-reset=on", 1);
    LOAD(hv_reset);
    vcpus_resume();
    WAIT(system_record.resets, 1);
    vcpus_pause();
    assert_int_equal(exits(VCPU_EXIT_SYSTEM_EVENT), 1);
    assert_int_equal(reports.count, 0); /* the reset comes first */
}

static void run_bad_mmio(void *unused)
{
    vcpus_resume();
    for (unsigned i = 0; i < 20000 && !atomic_load(&system_record.internal_errors); i++) {
        usleep(1000);
    }
    vcpus_pause();
}

static void test_internal_error(void **unused)
{
    start_vm("on");
    LOAD(bad_mmio);
    autofree char *text = capture_stderr(run_bad_mmio, NULL);

    assert_int_equal(system_record.internal_errors, 1);
    assert_int_equal(exits(VCPU_EXIT_INTERNAL_ERROR), 1);
    assert_contains(text, "kvm internal error on vCPU 0. Suberror: 1 (emulation failure)");
    assert_contains(text, "EIP=00001000 ");
    assert_contains(text, "Code=<66> 0f ef 05 00 00 00 e0 b8 ad 0b 00 00");
    assert_contains(text, "CR0=00000033");
}

/* A debugger's single step. */
static void step_on(struct vcpu *vcpu, void *opaque)
{
    struct kvm_guest_debug debug = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP};

    *(int *)opaque = ioctl(((struct kvm_vcpu *)vcpu->engine)->fd, KVM_SET_GUEST_DEBUG, &debug);
}

static void test_debug(void **unused)
{
    int ret = -1;

    SKIP_WHERE_EMULATED("single steps are native only");
    start_vm("on");
    LOAD(mmio);
    vcpu_call(vcpu_get(0), step_on, &ret);
    assert_int_equal(ret, 0);
    vcpus_resume();
    WAIT(system_record.debugs, 1);
    vcpus_pause();
    assert_int_equal(exits(VCPU_EXIT_DEBUG), 1);
    assert_int_equal(vcpu_get(0)->exit.debug.pc, GUEST_CODE + 5);
    assert_int_equal(mmio_writes.count, 0);
}

/* irqchip=off: lowering CR8 is told. */
static void test_set_tpr(void **unused)
{
    SKIP_WHERE_EMULATED("CR8 is written without an exit");
    start_vm("off");
    LOAD(cr8);
    set_long_state(vcpu_get(0));
    vcpus_resume();
    WAIT(reports.count, 1);
    vcpus_pause();
    assert_int_equal(reports.value[0], 1);
    assert_int_equal(lapic_tpr(vcpu_get(0)->lapic), 0x10);
    assert_int_equal(exits(VCPU_EXIT_SET_TPR), 1);
}

int kvm_exit_tests(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_too_many_cpus),  TEST(test_pit),   TEST(test_probe),
        TEST(test_shutdown),       TEST(test_crash), TEST(test_hv_reset),
        TEST(test_internal_error), TEST(test_debug), TEST(test_set_tpr),
    };

    return cmocka_run_group_tests_name("kvm exit", tests, kvm_group_setup, kvm_group_teardown);
}
