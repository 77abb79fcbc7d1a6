/* SPDX-License-Identifier: MIT */
/* What hostile guests have broken once, each as a case of its own; and locks that must not wait for each
 * other. Two vCPUs. */
#include "hostile.h"

#include <time.h>

#include "accel/cpu_model.h"
#include "accel/soft/code.h"
#include "accel/soft/soft.h"

static struct accel *accel;
static struct cpu_model *model;
static struct x86_state *fresh;

/* ---- fixture ------------------------------------------------------------------------------------ */

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static int make(void **state)
{
    const char *entries[] = {"tcg"};
    struct error *err = NULL;

    if (accel_group_setup(NULL) || !world_init()) {
        return -1;
    }
    fresh = xnew(struct x86_state);
    accel = accel_init(entries, 1, NULL, 2, &err);
    model = accel ? cpu_model_new("max", accel, 2, &err) : NULL;
    if (!model || !vcpus_create(accel, model, 2, &err) ||
        !vcpu_get_state(vcpu_get(0), fresh, &err)) {
        error_report(err);
        return -1;
    }
    return 0;
}

static int destroy(void **state)
{
    vcpus_destroy();
    accel_cleanup();
    cpu_model_free(model);
    free(fresh);
    world_cleanup();
    return accel_group_teardown(NULL);
}

static void put_code(uint64_t at, const void *bytes, size_t size)
{
    assert_int_equal(address_space_write(address_space_memory, at, bytes, size), MEM_OK);
}
#define PUT_CODE(at, ...)                                                                          \
    put_code(at, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* 32-bit code with flat segments at CPL 0. No IDT: a fault is a shutdown. */
static void protected_state(struct x86_state *s, uint64_t rip)
{
    *s = *fresh;
    for (unsigned i = X86_ES; i <= X86_GS; i++) {
        s->segment[i] = (struct x86_segment){.limit = UINT32_MAX,
                                             .attributes = i == X86_CS ? 0xc09b : 0xc093,
                                             .selector = i == X86_CS ? 8 : 16};
    }
    s->idt = (struct x86_table){0};
    s->cr0 = X86_CR0_PE | X86_CR0_ET;
    s->rip = rip;
    s->gpr[X86_RSP] = AT_DATA + 0x1000;
    s->mp_state = X86_MP_RUNNABLE;
}

static void set_state(unsigned vcpu, const struct x86_state *s)
{
    struct error *err = NULL;

    if (!vcpu_set_state(vcpu_get(vcpu), s, &err)) {
        fail_msg("%s", take_error(&err));
    }
}

/* Until the guest leaves by itself; why it did. */
static void run_guest(struct vcpu *vcpu, void *opaque)
{
    enum vcpu_exit_reason *reason = opaque;

    do {
        vcpu->exit.reason = VCPU_EXIT_INTR;
        vcpu->accel->ops->vcpu_run(vcpu);
    } while (vcpu->exit.reason == VCPU_EXIT_INTR);
    *reason = vcpu->exit.reason;
}

static enum vcpu_exit_reason run(unsigned vcpu)
{
    enum vcpu_exit_reason reason;

    vcpu_call(vcpu_get(vcpu), run_guest, &reason);
    return reason;
}

static void run_once(struct vcpu *vcpu, void *opaque)
{
    vcpu->exit.reason = VCPU_EXIT_INTR;
    vcpu->accel->ops->vcpu_run(vcpu);
}

static void *kick(void *opaque)
{
    for (unsigned i = 0; i < 3; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        vcpu_request(opaque, VCPU_REQUEST_NMI);
        accel->ops->vcpu_kick(opaque);
    }
    return NULL;
}

static void run_for_a_moment(unsigned vcpu)
{
    pthread_t kicker;

    assert_int_equal(pthread_create(&kicker, NULL, kick, vcpu_get(vcpu)), 0);
    vcpu_call(vcpu_get(vcpu), run_once, NULL); /* ends: the call's own kick, or before */
    vcpu_call(vcpu_get(vcpu), run_once, NULL);
    pthread_join(kicker, NULL);
}

/* ---- decoding ----------------------------------------------------------------------------------- */

/* Code in a page table: the walk for an instruction's second page sets an accessed bit in the page of its
 * first, whose code is forgotten while it is being decoded. */
static void test_walk_writes_page_being_decoded(void **state)
{
    const uint64_t directory = AT_TABLES, table = AT_TABLES + PAGE, next = AT_TABLES + 2 * PAGE;
    struct x86_state *s = xnew(struct x86_state);

    memset(ram_at(AT_TABLES), 0, 3 * PAGE);
    store_le32(ram_at(directory), (uint32_t)table | 0x67);
    store_le32(ram_at(table + 4 * (table >> 12)), (uint32_t)table | 0x67);
    store_le32(ram_at(table + 4 * (next >> 12)), (uint32_t)next | 0x47); /* not accessed */
    PUT_CODE(next - 2, 0xb8, 0x78, 0x56, 0x34, 0x12, 0xf4);
    protected_state(s, next - 2);
    s->cr0 |= X86_CR0_PG;
    s->cr3 = directory;
    set_state(0, s);
    assert_int_equal(run(0), VCPU_EXIT_HLT);
    assert_int_equal(soft_cpu_of(vcpu_get(0))->gpr[X86_RAX], 0x12345678);
    assert_int_equal(load_le32(ram_at(table + 4 * (next >> 12))) & 0x60, 0x60);
    free(s);
}

/* A page full of blocks, at every offset and in several modes, goes in a moment. */
static void test_many_blocks_in_a_page(void **state)
{
    static const uint64_t cr0s[] = {0, X86_CR0_TS, X86_CR0_EM, X86_CR0_TS | X86_CR0_EM};
    static const uint64_t cr4s[] = {0, X86_CR4_OSFXSR};
    struct x86_state *s = xnew(struct x86_state);
    uint8_t page[PAGE];
    int64_t start;

    /* add $1, %ecx; cmp $…, %ecx; jb to the call; hlt. The page: RET. */
    memset(page, 0xc3, sizeof(page));
    put_code(AT_DATA + PAGE, page, sizeof(page));
    PUT_CODE(AT_CODE, 0xff, 0xd1,                /* call *%ecx */
             0x41,                               /* inc %ecx */
             0x81, 0xf9, 0x00, 0x20, 0x01, 0x00, /* cmp $AT_DATA + 2 * PAGE, %ecx */
             0x72, 0xf5, 0xf4);
    for (unsigned i = 0; i < 16; i++) {
        protected_state(s, AT_CODE);
        s->gpr[X86_RCX] = AT_DATA + PAGE;
        s->cr0 |= cr0s[i & 3];
        s->cr4 = cr4s[i >> 2 & 1];
        /* The stack's size is in the mode, too. */
        s->segment[X86_SS].attributes = i & 8 ? 0xc093 : 0x8093;
        set_state(0, s);
        assert_int_equal(run(0), VCPU_EXIT_HLT);
    }
    start = now_ns();
    put_code(AT_DATA + PAGE, page, sizeof(page));
    protected_state(s, AT_CODE);
    s->gpr[X86_RCX] = AT_DATA + 2 * PAGE - 1;
    set_state(0, s);
    assert_int_equal(run(0), VCPU_EXIT_HLT);
    print_message("%lld us\n", (long long)(now_ns() - start) / 1000);
    assert_true(now_ns() - start < INT64_C(2000000000));
    free(s);
}

/* ---- locks -------------------------------------------------------------------------------------- */

static void *change_map(void *opaque)
{
    const _Atomic(bool) *quit = opaque;
    struct random r = {1};

    mem_thread_register();
    while (!atomic_load(quit)) {
        world_disturb_map(&r);
    }
    mem_thread_unregister();
    return NULL;
}

/*
 * Both vCPUs lock across pages, at whose second the memory map changes, and half into a device that wants
 * the machine lock, whose owner wants all vCPUs held; they write their TSCs, which holds all of them; and they
 * are paused, looked at, and started anew.
 */
static void test_locks_against_each_other(void **state)
{
    struct x86_state *s = xnew(struct x86_state);
    _Atomic(bool) quit = false;
    uint64_t before = soft_cpu_of(vcpu_get(0))->instructions;
    struct error *err = NULL;
    pthread_t changer;

    PUT_CODE(AT_CODE, 0xf0, 0xff, 0x05, 0xfe, 0xff, 0x2f, 0x00, /* lock incl AT_OVERLAY - 2 */
             0xf0, 0xff, 0x05, 0xfe, 0xff, 0x0b, 0x00,          /* lock incl AT_MMIO - 2 */
             0xf0, 0xff, 0x05, 0x00, 0x00, 0x0c, 0x00,          /* lock incl AT_MMIO */
             0xf0, 0xff, 0x05, 0xfe, 0xef, 0x2f, 0x00, /* lock incl AT_OVERLAY - PAGE - 2 */
             0xff, 0x05, 0x00, 0x00, 0x30, 0x00,       /* incl AT_OVERLAY */
             0xec,                                     /* in %dx, %al */
             0xb9, 0x10, 0x00, 0x00, 0x00, 0x0f, 0x30, /* wrmsr TSC */
             0xb9, 0x01, 0x4d, 0x56, 0x4b,             /* wrmsr KVM_SYSTEM_TIME_NEW */
             0xb8, 0x01, 0x00, 0x01, 0x00, 0x31, 0xd2, 0x0f, 0x30, 0xeb, 0xc6); /* again */
    system_record_clear();
    assert_int_equal(pthread_create(&changer, NULL, change_map, &quit), 0);
    for (unsigned i = 0; i < 300; i++) {
        if (i % 8 == 0) {
            vcpus_reset();
            for (unsigned k = 0; k < 2; k++) {
                protected_state(s, AT_CODE);
                set_state(k, s);
            }
        }
        vcpus_resume();
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        if (i % 3 == 0 && !vcpu_get_state(vcpu_get(i & 1), s, &err)) {
            fail_msg("%s", take_error(&err));
        }
        if (i % 5 == 0) {
            vcpu_request(vcpu_get(1), VCPU_REQUEST_INIT);
        }
        vcpus_pause();
    }
    atomic_store(&quit, true);
    pthread_join(changer, NULL);
    /* They did what they were to do, without a fault. */
    assert_int_equal(atomic_load(&system_record.internal_errors), 0);
    assert_int_equal(atomic_load(&system_record.resets), 0);
    assert_true(soft_cpu_of(vcpu_get(0))->instructions > before + 1000);
    free(s);
}

/* ---- states ------------------------------------------------------------------------------------- */

/* Nothing that a state may hold does more than be refused, or end in a fault. */
static void test_any_state(void **state)
{
    struct x86_state *s = xnew(struct x86_state);
    struct random r = {42};
    unsigned taken = 0;

    for (unsigned i = 0; i < 1500; i++) {
        struct error *err = NULL;

        if (i % 100 == 0) {
            world_fill(&r);
        }
        *s = *fresh;
        for (size_t k = 0; k < sizeof(*s); k++) {
            /* bool is 0 or 1, whoever reads it */
            bool is_event = k >= offsetof(struct x86_state, events) &&
                            k < offsetof(struct x86_state, events) + sizeof(s->events);
            ((uint8_t *)s)[k] = is_event ? random_below(&r, 2) : (uint8_t)random_u64(&r);
        }
        s->events.exception_vector = (uint8_t)random_u64(&r);
        s->events.interrupt_vector = (uint8_t)random_u64(&r);
        s->events.interrupt_shadow = (uint8_t)random_u64(&r);
        s->mp_state = random_below(&r, 5);
        if (random_one_in(&r, 4)) { /* else refused: mostly */
            s->cr0 &= UINT32_MAX;
        } else {
            s->cr0 = fresh->cr0 | (random_one_in(&r, 2) ? X86_CR0_PE : 0);
            s->cr4 = random_one_in(&r, 2) ? X86_CR4_PAE | X86_CR4_OSFXSR : X86_CR4_PSE;
            s->efer = 0;
            s->xcr0 = 1;
            if (s->cr0 & X86_CR0_PE && random_one_in(&r, 2)) {
                s->cr0 |= X86_CR0_PG;
                s->efer = s->cr4 & X86_CR4_PAE ? X86_EFER_LME | X86_EFER_LMA : 0;
                s->cr3 = random_one_in(&r, 2) ? AT_TABLES : s->cr3;
            }
        }
        if (random_one_in(&r, 2)) {
            s->rip = random_address(&r);
            s->segment[X86_CS].base = 0;
        }
        if (vcpu_set_state(vcpu_get(i & 1), s, &err)) {
            taken++;
            run_for_a_moment(i & 1);
            assert_true(vcpu_get_state(vcpu_get(i & 1), s, &err));
        }
        error_free(err);
    }
    print_message("%u taken\n", taken);
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_walk_writes_page_being_decoded),
        cmocka_unit_test(test_many_blocks_in_a_page),
        cmocka_unit_test(test_locks_against_each_other),
        cmocka_unit_test(test_any_state),
    };

    return cmocka_run_group_tests(tests, make, destroy);
}
