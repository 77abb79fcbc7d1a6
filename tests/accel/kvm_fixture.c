/* SPDX-License-Identifier: MIT */
#include "kvm_fixture.h"

#include <time.h>

#define MMIO_SIZE 0x1000u

bool emulated;

/* ---- the device ----------------------------------------------------------------------------- */

struct write_log reports, vectors, strings, bells, mmio_writes;
_Atomic(unsigned) ap_value, go, counter, counter_reads;
void (*on_counter_read)(void);
struct mem_region ports, mmio;

static void log_write(struct write_log *log, uint64_t offset, uint64_t value, unsigned size)
{
    unsigned i = atomic_load(&log->count);

    if (i < LOG_SIZE) {
        log->value[i] = value;
        log->offset[i] = offset;
        log->size[i] = size;
        atomic_store(&log->count, i + 1);
    }
}

static uint64_t ports_read(void *opaque, uint64_t offset, unsigned size)
{
    switch (offset) {
    case COUNTER:
        if (on_counter_read) {
            on_counter_read();
        }
        atomic_fetch_add(&counter_reads, 1);
        return atomic_fetch_add(&counter, 1);
    case STRING:
        return atomic_fetch_add(&counter, 1);
    case GO:
        return atomic_load(&go);
    default:
        return 0;
    }
}

static void ports_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    if (offset == REPORT) {
        log_write(&reports, offset, value, size);
    } else if (offset == VECTOR) {
        log_write(&vectors, offset, value, size);
    } else if (offset == AP_UP) {
        atomic_store(&ap_value, (unsigned)value);
    } else if (offset == STRING) {
        log_write(&strings, offset, value, size);
    } else {
        log_write(&bells, offset, value, size);
    }
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
    return 0xa0b0c0d0 + offset;
}

static void mmio_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    log_write(&mmio_writes, offset, value, size);
}

static const struct mem_region_ops ports_ops = {
    .read = ports_read, .write = ports_write, .valid = {1, 4, true}};
const struct mem_region_ops mmio_ops = {
    .read = mmio_read, .write = mmio_write, .valid = {1, 8, true}};

/* ---- the VM --------------------------------------------------------------------------------- */

struct accel *accel;
struct cpu_model *model;

void start_vm_of(const char *irqchip, const char *cpu, unsigned cpus)
{
    autofree char *entry = xasprintf("kvm,force=on,kernel-irqchip=%s", irqchip);
    const char *entries[] = {entry};
    struct error *err = NULL;

    accel = accel_init(entries, 1, NULL, cpus, &err);
    if (!accel || (accel->irqchip == IRQCHIP_ON && !accel->ops->create_pit(accel, &err))) {
        fail_msg("%s", take_error(&err));
    }
    model = cpu_model_new(cpu, accel, cpus, &err);
    if (!model || !vcpus_create(accel, model, cpus, &err)) {
        fail_msg("%s", take_error(&err));
    }
    vcpus_reset();
}

void start_vm(const char *irqchip)
{
    start_vm_of(irqchip, "host", 1);
}

static void stop_vm(void)
{
    if (accel) {
        vcpus_destroy();
        accel_cleanup();
        cpu_model_free(model);
        accel = NULL;
        model = NULL;
    }
}

int kvm_test_setup(void **state)
{
    struct write_log *logs[] = {&reports, &vectors, &strings, &bells, &mmio_writes};

    for (size_t i = 0; i < ARRAY_SIZE(logs); i++) {
        memset(logs[i], 0, sizeof(*logs[i]));
    }
    atomic_store(&ap_value, 0);
    atomic_store(&go, 0);
    atomic_store(&counter, 0x41);
    atomic_store(&counter_reads, 0);
    on_counter_read = NULL;
    system_record_clear();
    memset(ram_at(0), 0, RAM_SIZE);
    return 0;
}

int kvm_test_teardown(void **state)
{
    stop_vm();
    return 0;
}

int kvm_group_setup(void **state)
{
    if (accel_group_setup(state)) {
        return -1;
    }
    mem_region_init_io(&ports, "ports", PORT_COUNT, &ports_ops, NULL);
    mem_region_init_io(&mmio, "mmio", MMIO_SIZE, &mmio_ops, NULL);
    machine_lock();
    mem_region_add(io_root(), PORTS, &ports);
    mem_region_add(mem_root(), MMIO_BASE, &mmio);
    machine_unlock();
    return 0;
}

int kvm_group_teardown(void **state)
{
    machine_lock();
    mem_region_remove(io_root(), &ports);
    mem_region_remove(mem_root(), &mmio);
    machine_unlock();
    mem_region_destroy(&ports);
    mem_region_destroy(&mmio);
    return accel_group_teardown(state);
}

/* ---- guests --------------------------------------------------------------------------------- */

static struct x86_segment flat(uint16_t selector, uint32_t attributes)
{
    return (
        struct x86_segment){.selector = selector, .limit = UINT32_MAX, .attributes = attributes};
}

static void write_gate(unsigned vector, uint32_t handler)
{
    uint8_t *gate = ram_at(GUEST_IDT + 8 * vector);

    store_le16(gate, (uint16_t)handler);
    store_le16(gate + 2, 8);
    store_le16(gate + 4, 0x8e00);
    store_le16(gate + 6, handler >> 16);
}

static void write_tables(void)
{
    static const uint8_t vector_order[] = {0x41, 0x42, 0x20, 0x02};

    store_le64(ram_at(GUEST_GDT + 8), UINT64_C(0x00cf9b000000ffff));
    store_le64(ram_at(GUEST_GDT + 16), UINT64_C(0x00cf93000000ffff));
    memcpy(ram_at(GUEST_HANDLERS), guest_handlers, guest_handlers_end - guest_handlers);
    for (unsigned i = 0; i < ARRAY_SIZE(vector_order); i++) {
        write_gate(vector_order[i], GUEST_HANDLERS + 64 * i);
    }
}

/* Flat 32-bit mode at GUEST_CODE. */
void set_flat_state(struct vcpu *vcpu)
{
    autofree struct x86_state *state = xnew(struct x86_state);

    assert_true(vcpu_get_state(vcpu, state, NULL));
    for (unsigned i = X86_ES; i <= X86_GS; i++) {
        state->segment[i] = flat(16, 0x93 | X86_SEGMENT_D | X86_SEGMENT_G);
    }
    state->segment[X86_CS] = flat(8, 0x9b | X86_SEGMENT_D | X86_SEGMENT_G);
    state->gdt = (struct x86_table){GUEST_GDT, 23};
    state->idt = (struct x86_table){GUEST_IDT, 0x7ff};
    state->cr0 = X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE;
    state->cr4 = X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT;
    state->rip = GUEST_CODE;
    state->gpr[X86_RSP] = GUEST_STACK;
    state->mp_state = X86_MP_RUNNABLE;
    assert_true(vcpu_set_state(vcpu, state, NULL));
}

/* 64-bit mode, the first 2 MiB mapped as they are. */
void set_long_state(struct vcpu *vcpu)
{
    autofree struct x86_state *state = xnew(struct x86_state);

    store_le64(ram_at(GUEST_TABLES), 0x6000 | 3);
    store_le64(ram_at(0x6000), 0x7000 | 3);
    store_le64(ram_at(0x7000), 0 | 0x83);
    set_flat_state(vcpu);
    assert_true(vcpu_get_state(vcpu, state, NULL));
    state->segment[X86_CS] = flat(8, 0x9b | X86_SEGMENT_L | X86_SEGMENT_G);
    state->cr3 = GUEST_TABLES;
    state->cr4 |= X86_CR4_PAE;
    state->efer = X86_EFER_LME | X86_EFER_LMA;
    state->cr0 |= X86_CR0_PG;
    assert_true(vcpu_set_state(vcpu, state, NULL));
}

void load(const uint8_t *code, const uint8_t *end)
{
    assert_true(end - code < GUEST_HANDLERS - GUEST_CODE);
    memcpy(ram_at(GUEST_CODE), code, (size_t)(end - code));
    write_tables();
    set_flat_state(vcpu_get(0));
}

bool reaches(_Atomic(unsigned) *count, unsigned value)
{
    const struct timespec ms = {.tv_nsec = 1000000};

    for (unsigned i = 0; i < 20000 && atomic_load(count) < value; i++) {
        if (atomic_load(&system_record.internal_errors)) {
            return false;
        }
        nanosleep(&ms, NULL);
    }
    return atomic_load(count) >= value;
}

uint64_t exits(enum vcpu_exit_reason reason)
{
    return atomic_load(&vcpu_get(0)->exits[reason]);
}

void assert_logged(const struct write_log *log, unsigned i, uint64_t offset, uint64_t value,
                   unsigned size)
{
    assert_true(i < log->count);
    assert_int_equal(log->offset[i], offset);
    assert_int_equal(log->value[i], value);
    assert_int_equal(log->size[i], size);
}

struct msi_message message(uint8_t vector)
{
    return (struct msi_message){.address = 0xfee00000, .data = vector};
}
