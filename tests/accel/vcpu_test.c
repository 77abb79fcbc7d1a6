/* SPDX-License-Identifier: MIT */
/* vCPU threads, their mailbox and interrupt delivery, on an engine whose guest is a C function. */
#include "fake_engine.h"

#include "accel/lapic.h"

#include <sched.h>
#include <unistd.h>

static struct accel accel;

static void start(enum irqchip_mode irqchip, unsigned count)
{
    struct error *err = NULL;

    fake_setup(&accel, irqchip);
    if (!vcpus_create(&accel, NULL, count, &err)) {
        fail_msg("%s", take_error(&err));
    }
    vcpus_reset();
}

/* ---- life ----------------------------------------------------------------------------------- */

/* What the host calls the thread: a thread of this process that has the vCPU's name. */
static void check_thread_id(const struct vcpu *vcpu)
{
    char path[64], name[32] = "", want[32];

    snprintf(path, sizeof(path), "/proc/self/task/%d/comm", vcpu->thread_id);
    snprintf(want, sizeof(want), "CPU %u\n", vcpu->index);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_non_null(fgets(name, sizeof(name), file));
    fclose(file);
    assert_string_equal(name, want);
}

static void test_create(void **unused)
{
    start(IRQCHIP_ON, 4);
    assert_int_equal(vcpu_count(), 4);
    assert_null(vcpu_get(4));
    assert_null(vcpu_current());
    assert_ptr_equal(vcpu_by_apic_id(2), vcpu_get(2));
    assert_null(vcpu_by_apic_id(99));
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(fake_cpus[i].entries, 0); /* they start paused */
        check_thread_id(vcpu_get(i));
        for (unsigned k = 0; k < i; k++) {
            assert_int_not_equal(vcpu_get(i)->thread_id, vcpu_get(k)->thread_id);
        }
    }
    vcpus_destroy();
    assert_int_equal(vcpu_count(), 0);
}

static void test_create_fails(void **unused)
{
    struct error *err = NULL;

    fake_setup(&accel, IRQCHIP_ON);
    fake_init_fails_at = 2;
    assert_false(vcpus_create(&accel, NULL, 4, &err));
    assert_string_equal(take_error(&err), "vCPU 2 does not want to");
    assert_int_equal(vcpu_count(), 0);
}

static void test_pause_resume(void **unused)
{
    start(IRQCHIP_ON, 4);
    for (unsigned round = 0; round < 200; round++) {
        unsigned before[4];

        vcpus_resume();
        if (round % 4 == 0) {
            wait_for(&fake_cpus[round % 3].entries, 1);
        }
        vcpus_pause();
        for (unsigned i = 0; i < 4; i++) {
            before[i] = fake_cpus[i].entries;
        }
        sched_yield();
        for (unsigned i = 0; i < 4; i++) {
            assert_int_equal(before[i], fake_cpus[i].entries);
        }
    }
    vcpus_destroy();
}

/* Destroyed while it runs, and again and again. */
static void test_destroy_running(void **unused)
{
    for (unsigned round = 0; round < 20; round++) {
        start(IRQCHIP_ON, 2);
        vcpus_resume();
        vcpus_destroy();
    }
}

/* ---- calls ---------------------------------------------------------------------------------- */

static void count_call(struct vcpu *vcpu, void *opaque)
{
    assert_ptr_equal(vcpu_current(), vcpu);
    (*(unsigned *)opaque)++; /* plain: calls of one vCPU exclude each other */
}

static unsigned call_counts[2];

static void *caller(void *opaque)
{
    for (unsigned i = 0; i < 100; i++) {
        vcpu_call(vcpu_get(i % 2), count_call, &call_counts[i % 2]);
    }
    return NULL;
}

static void test_calls(void **unused)
{
    pthread_t threads[4];

    start(IRQCHIP_ON, 2);
    vcpu_call(vcpu_get(0), count_call, &call_counts[0]); /* while paused */
    vcpus_resume();
    for (unsigned i = 0; i < 4; i++) {
        pthread_create(&threads[i], NULL, caller, NULL);
    }
    for (unsigned i = 0; i < 20; i++) {
        vcpus_pause();
        vcpus_resume();
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(call_counts[0], 201);
    assert_int_equal(call_counts[1], 200);
    vcpus_destroy();
}

static void nested_call(struct vcpu *vcpu, void *opaque)
{
    vcpu_call(vcpu, count_call, opaque);
}

static void test_state(void **unused)
{
    autofree struct x86_state *state = xnew(struct x86_state);
    unsigned calls = 0;

    start(IRQCHIP_ON, 2);
    vcpus_resume();
    assert_true(vcpu_get_state(vcpu_get(1), state, NULL));
    assert_int_equal(state->rip, 0xfff0);
    assert_int_equal(state->mp_state, X86_MP_UNINITIALIZED);
    state->gpr[X86_RBX] = 0x77;
    assert_true(vcpu_set_state(vcpu_get(1), state, NULL));
    memset(state, 0, sizeof(*state));
    assert_true(vcpu_get_state(vcpu_get(1), state, NULL));
    assert_int_equal(state->gpr[X86_RBX], 0x77);
    vcpus_reset();
    assert_true(vcpu_get_state(vcpu_get(1), state, NULL));
    assert_int_equal(state->gpr[X86_RBX], 0);
    vcpu_call(vcpu_get(1), nested_call, &calls);
    assert_int_equal(calls, 1);
    vcpus_destroy();
}

/* ---- stopping by itself ----------------------------------------------------------------------- */

static void guest_triple_fault(struct vcpu *vcpu, struct fake_cpu *cpu)
{
    if (vcpu->index == 0) {
        vcpu->exit.reason = VCPU_EXIT_SHUTDOWN;
    } else {
        fake_guest_spin(vcpu, cpu);
    }
}

/* A vCPU that cannot go on waits for the main thread; after the reset it runs again. */
static void test_reset_request(void **unused)
{
    start(IRQCHIP_ON, 2);
    fake_guest = guest_triple_fault;
    vcpus_resume();
    for (unsigned i = 1; i < 50; i++) {
        wait_for(&system_record.resets, i);
        vcpus_pause();
        assert_int_equal(system_record.resets, i); /* not once more by itself */
        vcpus_reset();
        vcpus_resume();
    }
    vcpus_destroy();
}

/* ---- accesses that wait for completion -------------------------------------------------------- */

static uint8_t io_data[4];

static void guest_in(struct vcpu *vcpu, struct fake_cpu *cpu)
{
    vcpu->exit = (struct vcpu_exit){.reason = VCPU_EXIT_IO, .io = {io_data, 1, 0x500, 1, false}};
}

/* Before a pause or a call the last IN is completed, so that the state is whole. */
static void test_complete_io(void **unused)
{
    unsigned calls = 0;

    start(IRQCHIP_ON, 1);
    io_data[0] = 0;
    fake_guest = guest_in;
    /* A kick that comes first ends the entry without an exit for I/O. */
    for (unsigned i = 1; i < 1000 && !fake_cpus[0].completions; i++) {
        unsigned entries = fake_cpus[0].entries;

        vcpus_resume();
        wait_for(&fake_cpus[0].entries, entries + 3);
        vcpus_pause();
    }
    assert_int_equal(fake_cpus[0].completions, vcpu_get(0)->exits[VCPU_EXIT_IO]);
    assert_true(fake_cpus[0].completions > 0);
    assert_int_equal(io_data[0], 0xff);
    vcpu_call(vcpu_get(0), count_call, &calls);
    /* Nothing new to complete. */
    assert_int_equal(fake_cpus[0].completions, vcpu_get(0)->exits[VCPU_EXIT_IO]);
    vcpus_destroy();
}

/* ---- interrupts of ferry's own chips ----------------------------------------------------------- */

static struct msi_message message(unsigned apic_id, uint8_t vector)
{
    return (struct msi_message){.address = 0xfee00000 | apic_id << 12, .data = vector};
}

static void enable_lapic(struct vcpu *vcpu, void *opaque)
{
    const uint64_t svr = 0xfee000f0;
    uint8_t enabled[4] = {0xff, 1};

    address_space_write(address_space_memory, svr, enabled, 4);
    fake_cpus[vcpu->index].ready = true;
}

static void end_interrupt(void)
{
    uint8_t zero[4] = {0};
    address_space_write(address_space_memory, 0xfee000b0, zero, 4);
}

/* Ends the interrupt it has taken, then halts. */
static void guest_handler(struct vcpu *vcpu, struct fake_cpu *cpu)
{
    if (atomic_load(&cpu->last_vector) >= 0) {
        atomic_store(&cpu->last_vector, -1);
        end_interrupt();
    }
    vcpu->exit.reason = VCPU_EXIT_HLT;
}

static void test_halt_and_msi(void **unused)
{
    struct vcpu *vcpu;

    start(IRQCHIP_OFF, 1);
    vcpu = vcpu_get(0);
    fake_guest = guest_handler;
    vcpu_call(vcpu, enable_lapic, NULL);
    vcpus_resume();
    for (unsigned i = 1; i <= 100; i++) {
        struct msi_message msg = message(0, (uint8_t)(0x40 + i));

        lapic_send_msi(&msg);
        wait_for(&fake_cpus[0].injected, i);
    }
    vcpus_pause();
    assert_true(vcpu->halted);
    assert_int_equal(fake_cpus[0].injected, 100);
    assert_true(vcpu->exits[VCPU_EXIT_HLT] >= 100);
    vcpus_destroy();
}

/* Not ready: no injection, but a window is asked for; a halted vCPU with IF clear stays halted. */
static void test_window(void **unused)
{
    struct msi_message msg = message(0, 0x55);

    start(IRQCHIP_OFF, 1);
    vcpu_call(vcpu_get(0), enable_lapic, NULL);
    fake_cpus[0].ready = false;
    lapic_send_msi(&msg);
    vcpus_resume();
    wait_for(&fake_cpus[0].entries, 1);
    vcpus_pause();
    assert_int_equal(fake_cpus[0].injected, 0);
    assert_true(fake_cpus[0].window);
    fake_cpus[0].ready = true;
    vcpus_resume();
    wait_for(&fake_cpus[0].injected, 1);
    vcpus_pause();
    assert_int_equal(fake_cpus[0].last_vector, 0x55);
    assert_false(fake_cpus[0].window);
    vcpus_destroy();
}

static void test_halted_masked(void **unused)
{
    struct msi_message msg = message(0, 0x55);
    struct vcpu *vcpu;
    unsigned entries;

    start(IRQCHIP_OFF, 1);
    vcpu = vcpu_get(0);
    fake_guest = fake_guest_halt;
    vcpu_call(vcpu, enable_lapic, NULL);
    fake_cpus[0].ready = false;
    vcpus_resume();
    wait_for(&fake_cpus[0].entries, 1);
    lapic_send_msi(&msg);
    vcpus_pause();
    entries = fake_cpus[0].entries;
    assert_true(vcpu->halted);
    vcpus_resume();
    vcpus_pause();
    assert_int_equal(fake_cpus[0].entries, entries);
    /* An NMI wakes it all the same. */
    vcpu_request(vcpu, VCPU_REQUEST_NMI);
    vcpus_resume();
    wait_for(&fake_cpus[0].nmis, 1);
    vcpus_destroy();
}

static _Atomic(unsigned) acks;

static int pic_ack(void *opaque)
{
    assert_true(machine_lock_held());
    assert_ptr_equal(opaque, &accel);
    accel_set_extint(0);
    atomic_fetch_add(&acks, 1);
    return 0x20;
}

/* The PIC's output, by the LAPIC's LINT0 (off), or to the engine (split). */
static void check_extint(enum irqchip_mode mode)
{
    start(mode, 2);
    accel.extint_ack = pic_ack;
    accel.extint_opaque = &accel;
    atomic_store(&acks, 0);
    fake_cpus[0].ready = fake_cpus[1].ready = true;
    vcpus_resume();
    accel_set_extint(1);
    wait_for(&fake_cpus[0].injected, 1);
    vcpus_pause();
    assert_int_equal(fake_cpus[0].last_vector, 0x20);
    assert_int_equal(acks, 1);
    assert_int_equal(fake_cpus[1].injected, 0);
    /* Withdrawn before anybody took it. */
    accel_set_extint(1);
    accel_set_extint(0);
    vcpus_resume();
    vcpus_pause();
    assert_int_equal(acks, 1);
    vcpus_destroy();
}

static void test_extint_off(void **unused)
{
    check_extint(IRQCHIP_OFF);
}

static void test_extint_split(void **unused)
{
    check_extint(IRQCHIP_SPLIT);
}

/* Until the vCPU has taken these requests. */
static void wait_taken(struct vcpu *vcpu, uint32_t requests)
{
    for (unsigned i = 0; i < 20000 && atomic_load(&vcpu->requests) & requests; i++) {
        usleep(1000);
    }
    assert_false(atomic_load(&vcpu->requests) & requests);
}

/* ---- INIT and SIPI ---------------------------------------------------------------------------- */

static void test_init_sipi(void **unused)
{
    autofree struct x86_state *state = xnew(struct x86_state);
    struct vcpu *ap;

    start(IRQCHIP_OFF, 2);
    ap = vcpu_get(1);
    vcpus_resume();
    wait_for(&fake_cpus[0].entries, 1);
    /* A SIPI alone is nothing. */
    atomic_store(&ap->sipi_vector, 0x9a);
    vcpu_request(ap, VCPU_REQUEST_SIPI);
    wait_taken(ap, VCPU_REQUEST_SIPI);
    vcpus_pause();
    assert_int_equal(fake_cpus[1].entries, 0);

    assert_true(vcpu_get_state(ap, state, NULL));
    state->xsave[160] = 0x99; /* XMM0: INIT leaves it alone */
    state->gpr[X86_RBX] = 5;
    *x86_state_msr(state, X86_MSR_PAT) = 6;
    assert_true(vcpu_set_state(ap, state, NULL));
    vcpu_request(ap, VCPU_REQUEST_INIT);
    vcpus_resume();
    wait_taken(ap, VCPU_REQUEST_INIT);
    vcpus_pause();
    assert_int_equal(ap->mp_state, X86_MP_INIT_RECEIVED);
    assert_int_equal(fake_cpus[1].entries, 0);

    vcpu_request(ap, VCPU_REQUEST_SIPI);
    vcpus_resume();
    wait_for(&fake_cpus[1].entries, 1);
    vcpus_pause();
    assert_true(vcpu_get_state(ap, state, NULL));
    assert_int_equal(state->mp_state, X86_MP_RUNNABLE);
    assert_int_equal(state->segment[X86_CS].selector, 0x9a00);
    assert_int_equal(state->segment[X86_CS].base, 0x9a000);
    assert_int_equal(state->rip, 0);
    assert_int_equal(state->gpr[X86_RBX], 0);
    assert_int_equal(state->xsave[160], 0x99);
    assert_int_equal(*x86_state_msr(state, X86_MSR_PAT), 6);
    vcpus_destroy();
}

/* INIT to the boot processor: it goes on at the reset vector. */
static void test_init_bsp(void **unused)
{
    autofree struct x86_state *state = xnew(struct x86_state);

    start(IRQCHIP_OFF, 1);
    assert_true(vcpu_get_state(vcpu_get(0), state, NULL));
    state->rip = 0x1234;
    assert_true(vcpu_set_state(vcpu_get(0), state, NULL));
    vcpu_request(vcpu_get(0), VCPU_REQUEST_INIT);
    vcpus_resume();
    wait_for(&fake_cpus[0].entries, 1);
    assert_true(vcpu_get_state(vcpu_get(0), state, NULL));
    assert_int_equal(state->rip, 0xfff0);
    vcpus_destroy();
}

/* Many senders at once: nothing is lost (run under TSan). */
static void *sender(void *opaque)
{
    unsigned base = 0x40 + 0x10 * (unsigned)(uintptr_t)opaque;

    for (unsigned i = 0; i < 200; i++) {
        struct msi_message msg = message(i % 2, (uint8_t)(base + i % 16));
        lapic_send_msi(&msg);
    }
    return NULL;
}

static void test_many_senders(void **unused)
{
    pthread_t threads[4];
    unsigned settled = 0;

    start(IRQCHIP_OFF, 2);
    fake_guest = guest_handler;
    vcpu_get(1)->mp_state = X86_MP_RUNNABLE;
    vcpu_call(vcpu_get(0), enable_lapic, NULL);
    vcpu_call(vcpu_get(1), enable_lapic, NULL);
    vcpus_resume();
    for (uintptr_t i = 0; i < 4; i++) {
        pthread_create(&threads[i], NULL, sender, (void *)i);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    /* Each vCPU comes to rest: halted, nothing left to deliver. */
    for (unsigned i = 0; i < 2000 && settled < 2; i++) {
        usleep(1000);
        vcpus_pause();
        settled = vcpu_get(0)->halted + vcpu_get(1)->halted;
        vcpus_resume();
    }
    assert_int_equal(settled, 2);
    vcpus_pause();
    assert_true(fake_cpus[0].injected >= 32 && fake_cpus[1].injected >= 32);
    assert_false(fake_cpus[0].window || fake_cpus[1].window);
    vcpus_destroy();
}

/* After a test that failed half-way. */
static int teardown(void **state)
{
    if (vcpu_count()) {
        vcpus_destroy();
    }
    return 0;
}

#define TEST(name) cmocka_unit_test_teardown(name, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_create),          TEST(test_create_fails),  TEST(test_pause_resume),
        TEST(test_destroy_running), TEST(test_calls),         TEST(test_state),
        TEST(test_reset_request),   TEST(test_complete_io),   TEST(test_halt_and_msi),
        TEST(test_window),          TEST(test_halted_masked), TEST(test_extint_off),
        TEST(test_extint_split),    TEST(test_init_sipi),     TEST(test_init_bsp),
        TEST(test_many_senders),
    };

    return cmocka_run_group_tests(tests, accel_group_setup, accel_group_teardown);
}
