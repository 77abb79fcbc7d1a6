/* SPDX-License-Identifier: MIT */
/* KVM: state of vCPUs and chips, got and set. */
#include "kvm_fixture.h"

/* ---- state ---------------------------------------------------------------------------------- */

static void check_state(const char *irqchip)
{
    autofree struct x86_state *want = xnew(struct x86_state);
    autofree struct x86_state *got = xnew(struct x86_state);
    struct vcpu *vcpu;

    start_vm(irqchip);
    vcpu = vcpu_get(0);
    set_flat_state(vcpu);
    assert_true(vcpu_get_state(vcpu, want, NULL));
    for (unsigned i = 0; i < X86_GPR_COUNT; i++) {
        want->gpr[i] = UINT64_C(0x0101010101010101) * (i + 1);
    }
    want->rflags |= X86_RFLAGS_IF | 0x400;
    want->cr2 = 0x123000;
    want->dr[0] = 0x1000;
    want->dr[3] = 0x4000;
    want->segment[X86_FS].base = 0x7700;
    want->segment[X86_GS].limit = 0xfffff;
    want->segment[X86_GS].attributes &= ~X86_SEGMENT_G;
    store_le16(want->xsave, 0x27f);
    for (unsigned i = 0; i < 128; i++) {
        want->xsave[160 + i] = (uint8_t)(i * 7 + 1); /* XMM0..7 */
    }
    want->xsave[512] |= 3;
    *x86_state_msr(want, X86_MSR_SYSENTER_EIP) = 0xc0001000;
    *x86_state_msr(want, X86_MSR_KERNEL_GS_BASE) = UINT64_C(0xffff800000000000);
    *x86_state_msr(want, X86_MSR_PAT) = UINT64_C(0x0007040600070106);
    *x86_state_msr(want, X86_MSR_MTRR_DEF_TYPE) = 0xc06;
    *x86_state_msr(want, X86_MSR_MTRR_PHYS_BASE0) = 0x80000000;
    *x86_state_msr(want, X86_MSR_MTRR_FIX4K_C0000) = UINT64_C(0x0505050505050505);
    want->events.nmi_masked = true;
    store_le32(want->lapic.regs + 0xf0, 0x1fe);
    store_le32(want->lapic.regs + 0x80, 0x20);
    want->cr8 = 2;
    assert_true(vcpu_set_state(vcpu, want, NULL));
    assert_true(vcpu_get_state(vcpu, got, NULL));

    assert_memory_equal(got->gpr, want->gpr, sizeof(got->gpr));
    assert_int_equal(got->rip, want->rip);
    assert_int_equal(got->rflags, want->rflags);
    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++) {
        assert_int_equal(got->segment[i].base, want->segment[i].base);
        assert_int_equal(got->segment[i].limit, want->segment[i].limit);
        assert_int_equal(got->segment[i].selector, want->segment[i].selector);
        assert_int_equal(got->segment[i].attributes, want->segment[i].attributes);
    }
    assert_int_equal(got->gdt.base, want->gdt.base);
    assert_int_equal(got->idt.limit, want->idt.limit);
    assert_int_equal(got->cr0, want->cr0);
    assert_int_equal(got->cr2, want->cr2);
    assert_int_equal(got->cr4, want->cr4);
    assert_int_equal(got->cr8, want->cr8);
    assert_int_equal(got->apic_base, want->apic_base);
    assert_memory_equal(got->dr, want->dr, sizeof(got->dr));
    assert_int_equal(got->dr7, want->dr7);
    assert_int_equal(got->xcr0, want->xcr0);
    assert_int_equal(load_le16(got->xsave), 0x27f);
    assert_memory_equal(got->xsave + 160, want->xsave + 160, 128);
    assert_true(got->events.nmi_masked);
    assert_int_equal(got->mp_state, X86_MP_RUNNABLE);
    assert_int_equal(load_le32(got->lapic.regs + 0xf0), 0x1fe);
    assert_int_equal(load_le32(got->lapic.regs + 0x80), 0x20);
    assert_int_equal(load_le32(got->lapic.regs + 0x350), 0x700);
    assert_int_equal(got->msr_count, want->msr_count);
    for (unsigned i = 0; i < want->msr_count; i++) {
        assert_int_equal(got->msr[i].index, want->msr[i].index);
        if (want->msr[i].index != X86_MSR_TSC && want->msr[i].index != X86_MSR_TSC_ADJUST) {
            assert_int_equal(got->msr[i].value, want->msr[i].value);
        }
    }

    /* And a reset undoes all of it. */
    vcpus_reset();
    assert_true(vcpu_get_state(vcpu, got, NULL));
    assert_int_equal(got->rip, 0xfff0);
    assert_int_equal(got->gpr[X86_RBX], 0);
    assert_int_equal(got->gpr[X86_RDX], cpu_model_signature(model));
    assert_int_equal(*x86_state_msr(got, X86_MSR_MTRR_DEF_TYPE), 0);
    assert_int_equal(*x86_state_msr(got, X86_MSR_SYSENTER_EIP), 0);
    assert_int_equal(load_le16(got->xsave), 0x37f);
    assert_false(got->events.nmi_masked);
}

static void test_state_on(void **unused)
{
    check_state("on");
}

static void test_state_off(void **unused)
{
    check_state("off");
}

static void test_mp_states(void **unused)
{
    static const enum x86_mp_state states[] = {X86_MP_UNINITIALIZED, X86_MP_HALTED,
                                               X86_MP_INIT_RECEIVED, X86_MP_RUNNABLE};
    autofree struct x86_state *state = xnew(struct x86_state);

    start_vm_of("on", "host", 2);
    assert_true(vcpu_get_state(vcpu_get(1), state, NULL));
    assert_int_equal(state->mp_state, X86_MP_UNINITIALIZED);
    for (unsigned i = 0; i < ARRAY_SIZE(states); i++) {
        state->mp_state = states[i];
        assert_true(vcpu_set_state(vcpu_get(1), state, NULL));
        assert_true(vcpu_get_state(vcpu_get(1), state, NULL));
        assert_int_equal(state->mp_state, states[i]);
    }
}

/* A value that the processor cannot have is refused, and says which. */
static void test_state_refused(void **unused)
{
    autofree struct x86_state *state = xnew(struct x86_state);
    struct error *err = NULL;

    start_vm("on");
    assert_true(vcpu_get_state(vcpu_get(0), state, NULL));
    *x86_state_msr(state, X86_MSR_MTRR_DEF_TYPE) = 0xffff;
    assert_false(vcpu_set_state(vcpu_get(0), state, &err));
    assert_contains(take_error(&err), "MSR 0x2ff of vCPU 0");
}

static void test_chips(void **unused)
{
    struct x86_pic pic[2], pic_again[2];
    struct x86_ioapic ioapic, ioapic_again;
    struct x86_pit pit, pit_again;

    start_vm("on");
    machine_lock();
    assert_true(accel->ops->get_pic(accel, pic));
    pic[0].irq_base = 0x30;
    pic[1].irq_base = 0x38;
    pic[0].imr = 0xfb;
    pic[1].elcr = 0x0c;
    assert_true(accel->ops->set_pic(accel, pic));
    assert_true(accel->ops->get_pic(accel, pic_again));
    assert_memory_equal(pic, pic_again, sizeof(pic));

    assert_true(accel->ops->get_ioapic(accel, &ioapic));
    assert_int_equal(ioapic.base_address, 0xfec00000);
    ioapic.redirection[7] = UINT64_C(0x0100000000018044);
    ioapic.id = 3;
    assert_true(accel->ops->set_ioapic(accel, &ioapic));
    assert_true(accel->ops->get_ioapic(accel, &ioapic_again));
    assert_int_equal(ioapic_again.redirection[7], ioapic.redirection[7]);
    assert_int_equal(ioapic_again.id, 3);

    assert_true(accel->ops->get_pit(accel, &pit));
    pit.channel[2].count = 0x1234;
    pit.channel[2].mode = 3;
    pit.channel[2].rw_mode = 3;
    pit.channel[2].count_load_ns = 1000000;
    pit.speaker_data_on = true;
    assert_true(accel->ops->set_pit(accel, &pit));
    assert_true(accel->ops->get_pit(accel, &pit_again));
    assert_int_equal(pit_again.channel[2].count, 0x1234);
    assert_int_equal(pit_again.channel[2].mode, 3);
    assert_true(pit_again.speaker_data_on);
    machine_unlock();
}

static uint64_t guest_clock_ns(void)
{
    struct kvm_clock_data data = {0};

    assert_int_equal(kvm_ioctl(kvm_of(accel)->vm_fd, KVM_GET_CLOCK, &data), 0);
    return data.clock;
}

/* The paravirtual clock stands still while the VM does. */
static void test_clock_stops(void **unused)
{
    const uint64_t pause_ns = 200000000;
    uint64_t before;

    start_vm("on");
    system_vm_state_changed(false);
    before = guest_clock_ns();
    usleep(pause_ns / 1000);
    system_vm_state_changed(true);
    assert_true(guest_clock_ns() - before < pause_ns);
}

static int64_t host_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

/* So does the kernel's PIT: it begins anew when the VM goes on, without the ticks of the time between, also
 * with what a reset made of it. */
static void test_pit_stops(void **unused)
{
    struct kvm_pit_state2 kernel;
    struct x86_pit pit;

    start_vm("on");
    system_vm_state_changed(true);
    for (unsigned reset = 0; reset < 2; reset++) {
        machine_lock();
        assert_true(accel->ops->get_pit(accel, &pit));
        pit.channel[2].mode = 3;
        pit.channel[2].count = 0x1234;
        assert_true(accel->ops->set_pit(accel, &pit));
        system_vm_state_changed(false);
        usleep(100000);
        if (reset) {
            pit.channel[2].count = 0x4321;
            assert_true(accel->ops->set_pit(accel, &pit));
            usleep(100000);
        }
        int64_t resumed = host_ns();
        system_vm_state_changed(true);
        machine_unlock();
        assert_int_equal(kvm_ioctl(kvm_of(accel)->vm_fd, KVM_GET_PIT2, &kernel), 0);
        assert_int_equal(kernel.channels[2].count, reset ? 0x4321 : 0x1234);
        assert_true(kernel.channels[2].count_load_time >= resumed);
    }
}

int kvm_state_tests(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_state_on), TEST(test_state_off),   TEST(test_mp_states), TEST(test_state_refused),
        TEST(test_chips),    TEST(test_clock_stops), TEST(test_pit_stops),
    };

    return cmocka_run_group_tests_name("kvm state", tests, kvm_group_setup, kvm_group_teardown);
}
