/* SPDX-License-Identifier: MIT */
/* Every exit reason through vcpu_handle_exit(), those that no x86 host can cause included. */
#include "fake_engine.h"

#include "accel/vcpu_internal.h"

#include <errno.h>

static struct accel accel;
static struct vcpu *vcpu;

/* ---- a device that writes down what comes ----------------------------------------------------- */

#define DEVICE_SIZE 16
#define PIO_BASE    0x300
#define MMIO_BASE   UINT64_C(0xe0000000)

struct access {
    uint64_t offset, value;
    unsigned size;
    bool is_write;
};

static struct access accesses[64];
static unsigned access_count;
static uint64_t next_read;
static struct mem_region pio, mmio;

static void note(uint64_t offset, uint64_t value, unsigned size, bool is_write)
{
    assert_true(machine_lock_held());
    assert_true(access_count < ARRAY_SIZE(accesses));
    accesses[access_count++] = (struct access){offset, value, size, is_write};
}

static uint64_t device_read(void *opaque, uint64_t offset, unsigned size)
{
    note(offset, next_read, size, false);
    return next_read++;
}

static void device_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    note(offset, value, size, true);
}

static const struct mem_region_ops device_ops = {
    .read = device_read,
    .write = device_write,
    .valid = {.min = 1, .max = 8, .unaligned = true},
};

static void assert_access(unsigned i, uint64_t offset, uint64_t value, unsigned size, bool is_write)
{
    assert_true(i < access_count);
    assert_int_equal(accesses[i].offset, offset);
    assert_int_equal(accesses[i].value, value);
    assert_int_equal(accesses[i].size, size);
    assert_int_equal(accesses[i].is_write, is_write);
}

static int group_setup(void **state)
{
    if (accel_group_setup(state)) {
        return -1;
    }
    mem_region_init_io(&pio, "pio", DEVICE_SIZE, &device_ops, NULL);
    mem_region_init_io(&mmio, "mmio", DEVICE_SIZE, &device_ops, NULL);
    machine_lock();
    mem_region_add(io_root(), PIO_BASE, &pio);
    mem_region_add(mem_root(), MMIO_BASE, &mmio);
    machine_unlock();
    return 0;
}

static int group_teardown(void **state)
{
    machine_lock();
    mem_region_remove(io_root(), &pio);
    mem_region_remove(mem_root(), &mmio);
    machine_unlock();
    mem_region_destroy(&pio);
    mem_region_destroy(&mmio);
    return accel_group_teardown(state);
}

/* A vCPU without a thread: the test's is its thread. */
static int setup(void **state)
{
    fake_setup(&accel, IRQCHIP_ON);
    vcpu = xnew(struct vcpu);
    vcpu->accel = &accel;
    access_count = 0;
    next_read = 0x41;
    return 0;
}

static int teardown(void **state)
{
    free(vcpu);
    return 0;
}

static void handle(void *opaque)
{
    *(bool *)opaque = vcpu_handle_exit(vcpu);
}

/* Handles the exit, which is to end in `go_on`; what was printed, to be freed. */
static char *handle_exit(bool go_on)
{
    bool result = !go_on;
    char *text = capture_stderr(handle, &result);

    assert_int_equal(result, go_on);
    return text;
}

static void handle_silently(bool go_on)
{
    autofree char *text = handle_exit(go_on);
    assert_string_equal(text, "");
}

/* ---- accesses ------------------------------------------------------------------------------- */

static void test_io(void **unused)
{
    uint8_t data[8] = {0x11, 0x22, 0x33, 0x44};

    vcpu->exit = (struct vcpu_exit){.reason = VCPU_EXIT_IO, .io = {data, 1, PIO_BASE + 4, 4, true}};
    handle_silently(true);
    assert_int_equal(access_count, 1);
    assert_access(0, 4, 0x44332211, 4, true);

    vcpu->exit.io.is_write = false;
    vcpu->exit.io.size = 1;
    handle_silently(true);
    assert_access(1, 4, 0x41, 1, false);
    assert_int_equal(data[0], 0x41);
    assert_int_equal(data[1], 0x22);
}

/* String instructions: count items, all at the same port, in order. */
static void test_io_string(void **unused)
{
    uint8_t data[8] = {1, 2, 3, 4, 5, 6, 7, 8};

    vcpu->exit = (struct vcpu_exit){.reason = VCPU_EXIT_IO, .io = {data, 4, PIO_BASE, 2, true}};
    handle_silently(true);
    assert_int_equal(access_count, 4);
    for (unsigned i = 0; i < 4; i++) {
        assert_access(i, 0, load_le16(data + 2 * i), 2, true);
    }
    vcpu->exit.io.is_write = false;
    handle_silently(true);
    assert_int_equal(access_count, 8);
    assert_int_equal(load_le64(data), UINT64_C(0x0044004300420041));
    /* No items: nothing happens. */
    vcpu->exit.io.count = 0;
    handle_silently(true);
    assert_int_equal(access_count, 8);
}

static void test_io_nobody(void **unused)
{
    uint8_t data[4] = {0};

    vcpu->exit = (struct vcpu_exit){.reason = VCPU_EXIT_IO, .io = {data, 1, 0x500, 4, false}};
    handle_silently(true);
    assert_int_equal(load_le32(data), UINT32_MAX);
}

static void test_mmio(void **unused)
{
    uint8_t data[8] = {1, 2, 3, 4, 5, 6, 7, 8};

    for (unsigned size = 1; size <= 8; size *= 2) {
        access_count = 0;
        vcpu->exit =
            (struct vcpu_exit){.reason = VCPU_EXIT_MMIO, .mmio = {data, MMIO_BASE + 8, size, true}};
        handle_silently(true);
        assert_int_equal(access_count, 1);
        assert_access(0, 8, load_le(data, size), size, true);
    }
    vcpu->exit.mmio.is_write = false;
    vcpu->exit.mmio.length = 2;
    handle_silently(true);
    assert_int_equal(load_le16(data), 0x41);
    assert_int_equal(data[2], 3);
}

/* RAM that has no slot (part of a page) is reached by MMIO exits, too. */
static void test_mmio_ram(void **unused)
{
    uint8_t data[8] = {9, 8, 7, 6, 5, 4, 3, 2};

    vcpu->exit = (struct vcpu_exit){.reason = VCPU_EXIT_MMIO, .mmio = {data, 0x2001, 3, true}};
    handle_silently(true);
    assert_memory_equal(ram_at(0x2001), data, 3);
}

/* ---- the loop's own business ------------------------------------------------------------------ */

static void test_intr(void **unused)
{
    vcpu->exit.reason = VCPU_EXIT_INTR;
    handle_silently(true);
    vcpu->exit.reason = VCPU_EXIT_IRQ_WINDOW_OPEN;
    handle_silently(true);
    vcpu->exit.reason = VCPU_EXIT_SET_TPR;
    handle_silently(true);
}

static void test_hlt(void **unused)
{
    vcpu->exit.reason = VCPU_EXIT_HLT;
    handle_silently(true);
    assert_false(vcpu->halted); /* the engine's LAPIC would wake it */
}

static uint8_t eoi_vector;
static void on_eoi(void *opaque, uint8_t vector)
{
    assert_true(machine_lock_held());
    assert_ptr_equal(opaque, &accel);
    eoi_vector = vector;
}

static void test_ioapic_eoi(void **unused)
{
    vcpu->exit = (struct vcpu_exit){.reason = VCPU_EXIT_IOAPIC_EOI, .eoi_vector = 0x51};
    handle_silently(true); /* nobody listens */
    accel.eoi_broadcast = on_eoi;
    accel.eoi_opaque = &accel;
    handle_silently(true);
    assert_int_equal(eoi_vector, 0x51);
}

static void test_msr(void **unused)
{
    vcpu->exit = (struct vcpu_exit){.reason = VCPU_EXIT_MSR, .msr = {.index = 0x12345}};
    handle_silently(true);
    assert_true(vcpu->exit.msr.fault);
}

/* ---- what the machine must do ----------------------------------------------------------------- */

static void test_shutdown(void **unused)
{
    vcpu->exit.reason = VCPU_EXIT_SHUTDOWN;
    handle_silently(false);
    assert_int_equal(system_record.resets, 1);
    assert_int_equal(system_record.cause, SYSTEM_CAUSE_GUEST_RESET);
}

static void test_system_events(void **unused)
{
    vcpu->index = 3;
    vcpu->exit = (struct vcpu_exit){.reason = VCPU_EXIT_SYSTEM_EVENT,
                                    .system = {.known = true, .event = VCPU_EVENT_SHUTDOWN}};
    handle_silently(false);
    assert_int_equal(system_record.shutdowns, 1);
    assert_int_equal(system_record.cause, SYSTEM_CAUSE_GUEST_SHUTDOWN);

    vcpu->exit.system.event = VCPU_EVENT_RESET;
    handle_silently(false);
    assert_int_equal(system_record.resets, 1);

    vcpu->exit.system.event = VCPU_EVENT_CRASH;
    vcpu->exit.system.crash.has_hyperv = true;
    for (unsigned i = 0; i < 5; i++) {
        vcpu->exit.system.crash.hyperv[i] = 0x100 + i;
    }
    handle_silently(true);
    assert_int_equal(system_record.crashes, 1);
    assert_true(system_record.crash.has_hyperv);
    assert_int_equal(system_record.crash.hyperv[4], 0x104);
    assert_int_equal(system_record.crash.vcpu, 3);

    vcpu->exit.system.known = false;
    vcpu->exit.system.type_number = 77;
    autofree char *text = handle_exit(false);
    assert_contains(text, "vCPU 3: unknown system event 77; the VM stops");
    assert_int_equal(system_record.internal_errors, 1);
}

static void test_debug(void **unused)
{
    vcpu->exit.reason = VCPU_EXIT_DEBUG;
    handle_silently(false);
    assert_int_equal(system_record.debugs, 1);
}

/* ---- the guest cannot go on ------------------------------------------------------------------- */

static void test_internal_error(void **unused)
{
    static const uint8_t instruction[] = {0x66, 0x0f, 0xef, 0xc0};
    uint8_t *bytes = (uint8_t *)&vcpu->exit.internal.data[1];

    fake_cpus[0].state.rip = 0x1010;
    fake_cpus[0].state.segment[X86_CS].base = 0;
    memset(ram_at(0x1000), 0x90, 0x40);
    memcpy(ram_at(0x1010), instruction, sizeof(instruction));
    vcpu->exit.reason = VCPU_EXIT_INTERNAL_ERROR;
    vcpu->exit.internal.suberror = 1;
    vcpu->exit.internal.ndata = 3;
    vcpu->exit.internal.data[0] = 1;
    bytes[0] = sizeof(instruction);
    memcpy(bytes + 1, instruction, sizeof(instruction));

    autofree char *text = handle_exit(false);
    assert_contains(text, "fake internal error on vCPU 0. Suberror: 1 (emulation failure)");
    assert_contains(text, "extra data[0]: 0x0000000000000001\n");
    assert_contains(text, "extra data[2]: ");
    assert_contains(text, "emulation failure, instruction bytes: 66 0f ef c0\n");
    assert_contains(text, "EIP=00001010 ");
    assert_contains(text, "Code=90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 <66> 0f ef c0 90");
    assert_int_equal(system_record.internal_errors, 1);
}

static void test_internal_error_others(void **unused)
{
    vcpu->exit.reason = VCPU_EXIT_INTERNAL_ERROR;
    vcpu->exit.internal.suberror = 3;
    vcpu->exit.internal.ndata = UINT32_MAX; /* not believed */
    autofree char *text = handle_exit(false);
    assert_contains(text, "Suberror: 3 (unexpected exit while delivering an event)");
    assert_contains(text, "extra data[15]: ");
    assert_null(strstr(text, "extra data[16]"));
    assert_null(strstr(text, "instruction bytes"));

    vcpu->exit.internal.suberror = 99;
    autofree char *unknown = handle_exit(false);
    assert_contains(unknown, "Suberror: 99 (unknown)");

    /* A length beyond the bytes there are. */
    vcpu->exit.internal.suberror = 1;
    vcpu->exit.internal.ndata = 3;
    memset(vcpu->exit.internal.data, 0xff, sizeof(vcpu->exit.internal.data));
    autofree char *hostile = handle_exit(false);
    assert_contains(hostile, "instruction bytes: ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff\n");
}

static void test_fail_entry(void **unused)
{
    vcpu->exit = (struct vcpu_exit){.reason = VCPU_EXIT_FAIL_ENTRY,
                                    .fail_entry = {.reason = 0x80000021, .cpu = 5}};
    autofree char *text = handle_exit(false);
    assert_contains(text, "entering the guest failed, hardware reason 0x80000021, on host CPU 5");
    assert_contains(text, "EIP=0000fff0");
    assert_contains(text, "Code=");
    assert_int_equal(system_record.internal_errors, 1);
}

static void test_unknown(void **unused)
{
    vcpu->exit = (struct vcpu_exit){.reason = VCPU_EXIT_UNKNOWN, .hardware_reason = 0x42};
    autofree char *text = handle_exit(false);
    assert_contains(text, "unknown exit, hardware reason 0x42; the VM stops");
    assert_contains(text, "(not mapped)"); /* nothing at the reset vector */
    assert_int_equal(system_record.internal_errors, 1);
}

static void test_error(void **unused)
{
    vcpu->exit = (struct vcpu_exit){.reason = VCPU_EXIT_ERROR, .error = -EFAULT};
    autofree char *text = handle_exit(false);
    assert_contains(text, "fake, vCPU 0: running the guest failed: Bad address; the VM stops");
    assert_int_equal(system_record.internal_errors, 1);
}

/* A reason that an engine made up. */
static void test_out_of_range(void **unused)
{
    vcpu->exit.reason = VCPU_EXIT_COUNT;
    autofree char *text = handle_exit(false);
    assert_contains(text, "unknown exit");
}

static void test_names(void **unused)
{
    for (unsigned i = 0; i < VCPU_EXIT_COUNT; i++) {
        assert_non_null(vcpu_exit_name(i));
    }
    assert_string_equal(vcpu_exit_name(VCPU_EXIT_IRQ_WINDOW_OPEN), "IRQ_WINDOW_OPEN");
    assert_string_equal(vcpu_exit_name(VCPU_EXIT_COUNT), "?");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_io),
        TEST(test_io_string),
        TEST(test_io_nobody),
        TEST(test_mmio),
        TEST(test_mmio_ram),
        TEST(test_intr),
        TEST(test_hlt),
        TEST(test_ioapic_eoi),
        TEST(test_msr),
        TEST(test_shutdown),
        TEST(test_system_events),
        TEST(test_debug),
        TEST(test_internal_error),
        TEST(test_internal_error_others),
        TEST(test_fail_entry),
        TEST(test_unknown),
        TEST(test_error),
        TEST(test_out_of_range),
        TEST(test_names),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
