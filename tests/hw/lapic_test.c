/* SPDX-License-Identifier: MIT */
/* The local APIC: SDM volume 3, chapter 10. vCPUs are this test's, without an engine. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "accel/lapic.h"
#include "aio/loop.h"
#include "base/bytes.h"
#include "base/range.h"
#include "device/iothread.h"
#include "mem/address_space.h"
#include "mem/machine_lock.h"

#define CPUS 4
#define PAGE UINT64_C(0xfee00000)

static struct vcpu cpus[CPUS];
static struct accel accel;
static struct aio_loop *loop;
static _Thread_local struct vcpu *current;
static unsigned eoi_count;
static uint8_t eoi_vector;

/* ---- the engine's side ----------------------------------------------------------------------- */

struct vcpu *__wrap_vcpu_current(void);
struct vcpu *__wrap_vcpu_get(unsigned index);
unsigned __wrap_vcpu_count(void);
void __wrap_vcpu_request(struct vcpu *vcpu, uint32_t requests);

struct vcpu *__wrap_vcpu_current(void)
{
    return current;
}

struct vcpu *__wrap_vcpu_get(unsigned index)
{
    return index < CPUS ? &cpus[index] : NULL;
}

unsigned __wrap_vcpu_count(void)
{
    return CPUS;
}

void __wrap_vcpu_request(struct vcpu *vcpu, uint32_t requests)
{
    atomic_fetch_or(&vcpu->requests, requests);
}

static void on_eoi(void *opaque, uint8_t vector)
{
    assert_true(machine_lock_held());
    eoi_count++;
    eoi_vector = vector;
}

static uint32_t take_requests(unsigned cpu)
{
    return atomic_exchange(&cpus[cpu].requests, 0);
}

/* ---- the guest's side ------------------------------------------------------------------------ */

static uint32_t read_reg(unsigned cpu, uint32_t offset)
{
    uint8_t bytes[4];

    current = &cpus[cpu];
    address_space_read(address_space_memory, PAGE + offset, bytes, 4);
    return load_le32(bytes);
}

static void write_reg(unsigned cpu, uint32_t offset, uint32_t value)
{
    uint8_t bytes[4];

    store_le32(bytes, value);
    current = &cpus[cpu];
    address_space_write(address_space_memory, PAGE + offset, bytes, 4);
}

static void enable(unsigned cpu)
{
    write_reg(cpu, 0xf0, 0x1ff);
    write_reg(cpu, 0xd0, 1u << (24 + cpu));
}

static void send(uint32_t destination, bool logical, uint32_t data)
{
    struct msi_message msg = {
        .address = PAGE | (uint64_t)(destination & 0xff) << 12 | (logical ? 4 : 0) |
                   (uint64_t)(destination & 0xffffff00) << 32,
        .data = data,
    };

    lapic_send_msi(&msg);
}

/* Takes an interrupt as the vCPU loop does; -1: none. */
static int take(unsigned cpu)
{
    return lapic_sync(cpus[cpu].lapic) ? lapic_ack(cpus[cpu].lapic) : -1;
}

static void eoi(unsigned cpu)
{
    write_reg(cpu, 0xb0, 0);
}

static bool x2apic(unsigned cpu)
{
    return lapic_set_base(cpus[cpu].lapic, lapic_base(cpus[cpu].lapic) | 1 << 10);
}

static void step(int64_t ns)
{
    clock_virtual_set(clock_get_ns(AIO_CLOCK_VIRTUAL) + ns);
    timers_run(loop, AIO_CLOCK_VIRTUAL);
}

static int setup(void **state)
{
    static bool clock_is_manual;

    loop = aio_loop_new("main", AIO_LOOP_EPOLL, NULL);
    assert_non_null(loop);
    aio_loop_bind(loop);
    main_loop_set(loop);
    if (!clock_is_manual) {
        clock_virtual_set_manual();
        clock_is_manual = true;
    }
    mem_init();
    machine_lock();
    lapic_mmio_init();
    machine_unlock();
    memset(cpus, 0, sizeof(cpus));
    accel = (struct accel){.eoi_broadcast = on_eoi};
    eoi_count = 0;
    for (unsigned i = 0; i < CPUS; i++) {
        cpus[i].index = cpus[i].apic_id = i;
        cpus[i].accel = &accel;
        cpus[i].lapic = lapic_new(&cpus[i]);
    }
    for (unsigned i = 0; i < CPUS; i++) {
        enable(i);
    }
    return 0;
}

static int teardown(void **state)
{
    current = NULL;
    for (unsigned i = 0; i < CPUS; i++) {
        lapic_free(cpus[i].lapic);
    }
    machine_lock();
    lapic_mmio_cleanup();
    machine_unlock();
    mem_cleanup();
    main_loop_set(NULL);
    aio_loop_unbind(loop);
    aio_loop_free(loop);
    return 0;
}

/* ---- registers ------------------------------------------------------------------------------ */

static void test_reset(void **state)
{
    lapic_reset(cpus[0].lapic, true);
    lapic_reset(cpus[3].lapic, false);
    assert_int_equal(lapic_base(cpus[0].lapic), 0xfee00900);
    assert_int_equal(lapic_base(cpus[3].lapic), 0xfee00800);
    assert_int_equal(read_reg(3, 0x20), 3u << 24);
    assert_int_equal(read_reg(3, 0x30) & 0xff00ff, 0x050014);
    assert_int_equal(read_reg(3, 0xe0), UINT32_MAX);
    assert_int_equal(read_reg(3, 0xf0), 0xff);
    for (unsigned i = 0x320; i <= 0x370; i += 0x10) {
        assert_int_equal(read_reg(3, i), 0x10000);
    }
    assert_true(lapic_accepts_extint(cpus[0].lapic)); /* the virtual wire of the boot processor */
    assert_false(lapic_accepts_extint(cpus[3].lapic));
    /* Not in a vCPU: nobody's page. */
    uint8_t bytes[4];
    current = NULL;
    address_space_read(address_space_memory, PAGE + 0x30, bytes, 4);
    assert_int_equal(load_le32(bytes), UINT32_MAX);
}

static void test_write_masks(void **state)
{
    static const struct {
        uint32_t offset, expected;
    } registers[] = {
        {0x080, 0xff},       {0x0d0, 0xff000000}, {0x0e0, 0xffffffff}, {0x0f0, 0x13ff},
        {0x310, 0xff000000}, {0x320, 0x300ff},    {0x330, 0x107ff},    {0x340, 0x107ff},
        {0x350, 0x1a7ff},    {0x360, 0x1a7ff},    {0x370, 0x100ff},    {0x3e0, 0xb},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(registers); i++) {
        write_reg(1, registers[i].offset, 0xffffffff);
        assert_int_equal(read_reg(1, registers[i].offset), registers[i].expected);
    }
    write_reg(1, 0x20, 0xff000000); /* read-only */
    assert_int_equal(read_reg(1, 0x20), 1u << 24);
    /* Disabled by SVR: LVTs are masked and stay so. */
    write_reg(1, 0x360, 0x400);
    write_reg(1, 0xf0, 0xff);
    assert_int_equal(read_reg(1, 0x360), 0x10400);
    write_reg(1, 0x360, 0x400);
    assert_int_equal(read_reg(1, 0x360), 0x10400);
}

static void test_illegal_register(void **state)
{
    read_reg(0, 0x3c0);
    write_reg(0, 0x280, 0);
    assert_int_equal(read_reg(0, 0x280), 0x80);
    write_reg(0, 0x280, 0);
    assert_int_equal(read_reg(0, 0x280), 0);
    /* With its LVT the error interrupts. */
    write_reg(0, 0x370, 0xfe);
    write_reg(0, 0x3d0, 1);
    assert_int_equal(take(0), 0xfe);
}

/* ---- interrupts ----------------------------------------------------------------------------- */

static void test_priorities(void **state)
{
    send(0, false, 0x31);
    send(0, false, 0x52);
    send(0, false, 0x55);
    assert_int_equal(take_requests(0), VCPU_REQUEST_APIC);
    assert_int_equal(take(0), 0x55);
    assert_int_equal(take(0), -1); /* the same class */
    assert_int_equal(read_reg(0, 0xa0), 0x50);
    send(0, false, 0x61);
    assert_int_equal(take(0), 0x61);
    eoi(0);
    eoi(0);
    assert_int_equal(take(0), 0x52);
    eoi(0);
    write_reg(0, 0x80, 0x30); /* TPR holds back its class */
    assert_int_equal(take(0), -1);
    assert_int_equal(read_reg(0, 0xa0), 0x30);
    lapic_set_tpr(cpus[0].lapic, 0x20);
    assert_int_equal(lapic_tpr(cpus[0].lapic), 0x20);
    assert_int_equal(take(0), 0x31);
    assert_int_equal(eoi_count, 0); /* all were edges */
}

static void test_level(void **state)
{
    send(2, false, 0x8000 | 0x4000 | 0x71);
    assert_int_equal(take(2), 0x71);
    assert_int_equal(read_reg(2, 0x180 + 0x30) & 1u << 17, 1u << 17);
    eoi(2);
    assert_int_equal(eoi_count, 1);
    assert_int_equal(eoi_vector, 0x71);
    /* Suppressed. */
    write_reg(2, 0xf0, 0x11ff);
    send(2, false, 0x8000 | 0x4000 | 0x71);
    assert_int_equal(take(2), 0x71);
    eoi(2);
    assert_int_equal(eoi_count, 1);
    /* The same vector as an edge clears TMR. */
    write_reg(2, 0xf0, 0x1ff);
    send(2, false, 0x71);
    assert_int_equal(take(2), 0x71);
    eoi(2);
    assert_int_equal(eoi_count, 1);
    eoi(2); /* nothing in service: nothing happens */
}

static void test_irr_shows_the_mailbox(void **state)
{
    send(1, false, 0xe3);
    assert_int_equal(read_reg(1, 0x200 + 0x70), 1u << 3);
    assert_int_equal(take(1), 0xe3);
    assert_int_equal(read_reg(1, 0x200 + 0x70), 0);
    assert_int_equal(read_reg(1, 0x100 + 0x70), 1u << 3);
}

static void test_disabled(void **state)
{
    write_reg(1, 0xf0, 0xff);
    send(1, false, 0x41);
    assert_int_equal(take(1), -1);
    send(1, false, 0x400); /* NMI gets through */
    assert_int_equal(take_requests(1), VCPU_REQUEST_NMI);
    assert_true(lapic_set_base(cpus[1].lapic, PAGE));
    send(1, false, 0x400);
    assert_int_equal(take_requests(1), 0);
    assert_int_equal(read_reg(1, 0x30), UINT32_MAX);
    assert_true(lapic_accepts_extint(cpus[1].lapic));
}

static void test_illegal_vectors(void **state)
{
    send(0, false, 0x0f);
    assert_int_equal(take(0), -1);
    write_reg(0, 0x280, 0);
    assert_int_equal(read_reg(0, 0x280), 0x40);
    write_reg(0, 0x300, 0x4000 | 0x05);
    write_reg(0, 0x280, 0);
    assert_int_equal(read_reg(0, 0x280), 0x20);
}

/* ---- destinations --------------------------------------------------------------------------- */

static unsigned who_got(uint8_t vector)
{
    unsigned who = 0;

    for (unsigned i = 0; i < CPUS; i++) {
        int got = take(i);
        if (got >= 0) {
            assert_int_equal(got, vector);
            who |= 1u << i;
            eoi(i);
        }
    }
    return who;
}

static void test_destinations(void **state)
{
    send(2, false, 0x40);
    assert_int_equal(who_got(0x40), 4);
    send(9, false, 0x40);
    assert_int_equal(who_got(0x40), 0);
    send(0xff, false, 0x41);
    assert_int_equal(who_got(0x41), 15);
    send(0x0a, true, 0x42); /* flat */
    assert_int_equal(who_got(0x42), 10);
    send(0xff, true, 0x42);
    assert_int_equal(who_got(0x42), 15);
    for (unsigned i = 0; i < CPUS; i++) { /* two clusters of two */
        write_reg(i, 0xe0, 0x0fffffff);
        write_reg(i, 0xd0, (i / 2) << 28 | 1u << (24 + i % 2));
    }
    send(0x12, true, 0x43);
    assert_int_equal(who_got(0x43), 8);
    send(0x03, true, 0x43);
    assert_int_equal(who_got(0x43), 3);
    send(0x23, true, 0x43);
    assert_int_equal(who_got(0x43), 0);
}

static void test_lowest_priority(void **state)
{
    write_reg(0, 0x80, 0x20);
    write_reg(1, 0x80, 0x10);
    write_reg(2, 0x80, 0x30);
    write_reg(3, 0xf0, 0xff); /* lowest of all, but disabled */
    send(0x0f, true, 0x100 | 0x55);
    assert_int_equal(who_got(0x55), 2);
    /* Among equals each gets some. */
    unsigned all = 0;
    for (unsigned i = 0; i < 3; i++) {
        write_reg(i, 0x80, 0);
    }
    for (unsigned i = 0; i < 12; i++) {
        send(0x0f, true, 0x100 | 0x55);
        unsigned who = who_got(0x55);
        assert_true(is_power_of_2(who));
        all |= who;
    }
    assert_int_equal(all, 7);
}

static void send_ipi(unsigned cpu, uint32_t high, uint32_t low)
{
    write_reg(cpu, 0x310, high << 24);
    write_reg(cpu, 0x300, low);
}

static void test_ipis(void **state)
{
    send_ipi(1, 3, 0x4000 | 0x60);
    assert_int_equal(who_got(0x60), 8);
    send_ipi(1, 0, 1u << 18 | 0x61); /* self */
    assert_int_equal(who_got(0x61), 2);
    send_ipi(1, 0, 2u << 18 | 0x62);
    assert_int_equal(who_got(0x62), 15);
    send_ipi(1, 0, 3u << 18 | 0x63);
    assert_int_equal(who_got(0x63), 13);
    send_ipi(1, 0x05, 0x800 | 0x64);
    assert_int_equal(who_got(0x64), 5);
    assert_int_equal(read_reg(1, 0x300) & 0x1000, 0); /* delivered at once */
    for (unsigned i = 0; i < CPUS; i++) {
        take_requests(i);
    }
    send_ipi(0, 0, 3u << 18 | 0x4500); /* INIT to the others */
    send_ipi(0, 0, 3u << 18 | 0x8500); /* de-assert: nothing */
    send_ipi(0, 2, 0x4600 | 0x9a);     /* SIPI */
    assert_int_equal(take_requests(0), 0);
    assert_int_equal(take_requests(1), VCPU_REQUEST_INIT);
    assert_int_equal(take_requests(2), VCPU_REQUEST_INIT | VCPU_REQUEST_SIPI);
    assert_int_equal(atomic_load(&cpus[2].sipi_vector), 0x9a);
    send_ipi(0, 1, 0x4400);
    assert_int_equal(take_requests(1), VCPU_REQUEST_NMI);
    /* SMIs, if the machine has SMM: by IPI, to oneself too, and by message; also with the LAPIC disabled
     * by software. */
    write_reg(3, 0xf0, 0xff);
    take_requests(3);
    for (unsigned smm = 0; smm < 2; smm++) {
        accel.smm_enabled = smm;
        send_ipi(0, 3, 0x4200);
        assert_int_equal(take_requests(3), smm ? VCPU_REQUEST_SMI : 0);
        send_ipi(1, 1, 0x4200);
        assert_int_equal(take_requests(1), smm ? VCPU_REQUEST_SMI : 0);
        send(2, false, 0x200);
        assert_int_equal(take_requests(2), smm ? VCPU_REQUEST_SMI : 0);
        assert_int_equal(take_requests(0), 0);
    }
    /* An INIT leaves the mode, clears the rest. */
    lapic_init(cpus[2].lapic);
    assert_int_equal(read_reg(2, 0xf0), 0xff);
}

/* ---- x2APIC --------------------------------------------------------------------------------- */

static uint64_t msr(unsigned cpu, uint32_t index)
{
    uint64_t value = 0;

    assert_true(lapic_read_msr(cpus[cpu].lapic, index, &value));
    return value;
}

static void test_x2apic(void **state)
{
    uint64_t value;

    assert_false(lapic_read_msr(cpus[0].lapic, 0x802, &value));
    assert_false(lapic_write_msr(cpus[0].lapic, 0x808, 0));
    for (unsigned i = 0; i < CPUS; i++) {
        assert_true(x2apic(i));
        assert_true(lapic_write_msr(cpus[i].lapic, 0x80f, 0x1ff));
        assert_int_equal(msr(i, 0x802), i);
        assert_int_equal(msr(i, 0x80d), 1u << i);
    }
    assert_int_equal(read_reg(0, 0x30), UINT32_MAX); /* no page */
    assert_false(lapic_read_msr(cpus[0].lapic, 0x80e, &value));
    assert_false(lapic_write_msr(cpus[0].lapic, 0x80e, 0));
    assert_false(lapic_read_msr(cpus[0].lapic, 0x831, &value));
    assert_false(lapic_read_msr(cpus[0].lapic, 0x80b, &value));
    assert_false(lapic_write_msr(cpus[0].lapic, 0x802, 0));
    assert_false(lapic_write_msr(cpus[0].lapic, 0x80b, 1));
    assert_false(lapic_write_msr(cpus[0].lapic, 0x828, 1));
    assert_false(lapic_write_msr(cpus[0].lapic, 0x808, 0x100));
    assert_false(lapic_write_msr(cpus[0].lapic, 0x808, UINT64_C(1) << 32));
    assert_true(lapic_write_msr(cpus[0].lapic, 0x808, 0x20));
    assert_int_equal(msr(0, 0x808), 0x20);
    assert_true(lapic_write_msr(cpus[0].lapic, 0x808, 0));

    assert_true(lapic_write_msr(cpus[0].lapic, 0x830, UINT64_C(3) << 32 | 0x4071));
    assert_int_equal(msr(0, 0x830), UINT64_C(3) << 32 | 0x4071);
    assert_int_equal(take(3), 0x71);
    assert_true(lapic_write_msr(cpus[3].lapic, 0x80b, 0));
    assert_true(lapic_write_msr(cpus[0].lapic, 0x830, UINT64_C(6) << 32 | 0x4872));
    assert_int_equal(take(1), 0x72);
    assert_int_equal(take(2), 0x72);
    assert_int_equal(take(3), -1);
    assert_true(lapic_write_msr(cpus[1].lapic, 0x80b, 0));
    assert_true(lapic_write_msr(cpus[2].lapic, 0x80b, 0));
    assert_true(lapic_write_msr(cpus[0].lapic, 0x83f, 0x73)); /* self IPI */
    assert_int_equal(take(0), 0x73);
    assert_true(lapic_write_msr(cpus[0].lapic, 0x80b, 0));
    assert_true(lapic_write_msr(cpus[0].lapic, 0x830, UINT64_C(0xffffffff) << 32 | 0x4074));
    for (unsigned i = 0; i < CPUS; i++) {
        assert_int_equal(take(i), 0x74);
        assert_true(lapic_write_msr(cpus[i].lapic, 0x80b, 0));
    }
    /* Devices know 8 bits of destination. */
    send(0xff, false, 0x75);
    assert_int_equal(take(2), 0x75);
}

static void test_mode_changes(void **state)
{
    struct lapic *l = cpus[1].lapic;
    uint64_t base = lapic_base(l);

    assert_false(lapic_set_base(l, base | 1)); /* reserved */
    assert_false(lapic_set_base(l, (base & ~UINT64_C(0x800)) | 0x400));
    assert_true(lapic_set_base(l, base | 0x400));
    assert_false(lapic_set_base(l, base)); /* x2APIC to xAPIC only by way of disabled */
    assert_true(lapic_set_base(l, base & ~UINT64_C(0x800)));
    assert_false(lapic_set_base(l, base | 0x400));
    assert_true(lapic_set_base(l, base));
    assert_int_equal(read_reg(1, 0xf0), 0xff);
    lapic_load_base(l, base | 0x400);
    lapic_load_base(l, base);
    assert_int_equal(lapic_base(l), base);
}

/* ---- timer ---------------------------------------------------------------------------------- */

static void test_timer_one_shot(void **state)
{
    write_reg(0, 0x3e0, 0xb); /* by 1 */
    write_reg(0, 0x320, 0x20);
    write_reg(0, 0x380, 1000);
    step(400);
    assert_int_equal(read_reg(0, 0x390), 600);
    step(599);
    assert_int_equal(take(0), -1);
    take_requests(0);
    step(1);
    assert_int_equal(take_requests(0), VCPU_REQUEST_APIC);
    assert_int_equal(take(0), 0x20);
    eoi(0);
    assert_int_equal(read_reg(0, 0x390), 0);
    step(NS_PER_SEC);
    assert_int_equal(take(0), -1);
    /* By 128; masked; stopped by 0. */
    write_reg(0, 0x3e0, 0xa);
    write_reg(0, 0x380, 1000);
    step(127999);
    assert_int_equal(take(0), -1);
    step(1);
    assert_int_equal(take(0), 0x20);
    eoi(0);
    write_reg(0, 0x320, 0x10020);
    write_reg(0, 0x380, 10);
    step(NS_PER_SEC);
    assert_int_equal(take(0), -1);
    write_reg(0, 0x320, 0x20);
    write_reg(0, 0x380, 1000);
    write_reg(0, 0x380, 0);
    step(NS_PER_SEC);
    assert_int_equal(take(0), -1);
}

static void test_timer_periodic(void **state)
{
    unsigned count = 0;

    write_reg(0, 0x3e0, 0xb);
    write_reg(0, 0x320, 0x20000 | 0x20);
    write_reg(0, 0x380, NS_PER_MS);
    for (unsigned i = 0; i < 1000; i++) {
        step(100 * NS_PER_US);
        if (take(0) == 0x20) {
            count++;
            eoi(0);
        }
    }
    assert_int_equal(count, 100);
    /* Late by many periods is one interrupt, and the beat stays. */
    step(10 * NS_PER_MS + NS_PER_MS / 2);
    assert_int_equal(take(0), 0x20);
    eoi(0);
    step(NS_PER_MS / 2 - 1);
    assert_int_equal(take(0), -1);
    step(1);
    assert_int_equal(take(0), 0x20);
    eoi(0);
    /* A period of 1 ns does not keep the host busy. */
    write_reg(0, 0x380, 1);
    count = 0;
    for (unsigned i = 0; i < 1000; i++) {
        step(NS_PER_US);
        count += take(0) == 0x20;
        eoi(0);
    }
    assert_in_range(count, 9, 12);
    assert_true(read_reg(0, 0x390) <= 1);
}

/* An expiry that was already posted when the guest sets the timer anew is dropped. */
static void test_timer_race(void **state)
{
    write_reg(0, 0x3e0, 0xb);
    write_reg(0, 0x320, 0x20);
    write_reg(0, 0x380, 1000);
    step(1000); /* posted, not taken */
    current = &cpus[0];
    write_reg(0, 0x310, 0); /* takes the mailbox: it is in IRR */
    assert_int_equal(take(0), 0x20);
    eoi(0);
    write_reg(0, 0x380, 5000);
    lapic_sync(cpus[0].lapic);
    assert_int_equal(take(0), -1);
    step(5000);
    assert_int_equal(take(0), 0x20);
}

static int64_t tsc_ns_at(struct vcpu *vcpu, uint64_t tsc)
{
    return (int64_t)(tsc / 3); /* 3 GHz */
}

static void test_tsc_deadline(void **state)
{
    struct lapic *l = cpus[0].lapic;
    uint64_t value;

    assert_false(lapic_write_msr(l, 0x6e0, 1));
    assert_false(lapic_read_msr(l, 0x6e0, &value));
    write_reg(0, 0x320, 0x40020);
    assert_int_equal(read_reg(0, 0x320), 0x20); /* there is no such mode */
    lapic_set_tsc_clock(l, tsc_ns_at);
    write_reg(0, 0x320, 0x40020);
    assert_int_equal(read_reg(0, 0x320), 0x40020);
    uint64_t deadline = ((uint64_t)clock_get_ns(AIO_CLOCK_VIRTUAL) + 500) * 3;
    assert_true(lapic_write_msr(l, 0x6e0, deadline));
    assert_int_equal(msr(0, 0x6e0), deadline);
    step(499);
    assert_int_equal(take(0), -1);
    step(1);
    assert_int_equal(take(0), 0x20);
    eoi(0);
    assert_int_equal(msr(0, 0x6e0), 0);
    /* In the past: at once. 0 disarms. */
    assert_true(lapic_write_msr(l, 0x6e0, 3));
    step(1);
    assert_int_equal(take(0), 0x20);
    eoi(0);
    assert_true(lapic_write_msr(l, 0x6e0, deadline + 30000));
    assert_true(lapic_write_msr(l, 0x6e0, 0));
    step(NS_PER_SEC);
    assert_int_equal(take(0), -1);
    write_reg(0, 0x380, 100); /* ignored in this mode */
    assert_int_equal(read_reg(0, 0x380), 0);
}

/* ---- state ---------------------------------------------------------------------------------- */

static void test_state(void **state)
{
    struct x86_lapic s, again;
    struct lapic *l = cpus[1].lapic;

    write_reg(1, 0x3e0, 0xb);
    write_reg(1, 0x320, 0x20000 | 0x31);
    write_reg(1, 0x380, NS_PER_MS);
    step(300 * NS_PER_US);
    send(1, false, 0xc000 | 0x91);
    assert_int_equal(take(1), 0x91);
    send(1, false, 0x45); /* stays in the mailbox */
    lapic_get_state(l, &s);
    assert_int_equal(load_le32(s.regs + 0x220), 1u << 5);
    assert_int_equal(load_le32(s.regs + 0x390), 700000);
    lapic_reset(l, false);
    assert_int_equal(take(1), -1);
    lapic_set_state(l, &s);
    lapic_get_state(l, &again);
    assert_memory_equal(&s, &again, sizeof(s));
    eoi(1);
    assert_int_equal(eoi_vector, 0x91);
    assert_int_equal(take(1), 0x45);
    eoi(1);
    step(700 * NS_PER_US);
    assert_int_equal(take(1), 0x31);
    /* From an engine that keeps the timer itself. */
    s.timer_expires_ns = -1;
    lapic_set_state(l, &s);
    assert_int_equal(read_reg(1, 0x390), 700000);
    /* Garbage does no harm. */
    memset(&s, 0xff, sizeof(s));
    lapic_set_state(l, &s);
    for (unsigned i = 0; i < 300; i++) {
        take(1);
        eoi(1);
    }
}

static uint32_t random_next(uint64_t *seed)
{
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    return (uint32_t)(*seed * UINT64_C(2685821657736338717) >> 32);
}

static void test_hostile(void **state)
{
    uint64_t seed = 9, value;

    lapic_set_tsc_clock(cpus[2].lapic, tsc_ns_at);
    for (unsigned i = 0; i < 60000; i++) {
        uint32_t r = random_next(&seed);
        unsigned cpu = r & 3;
        struct lapic *l = cpus[cpu].lapic;
        switch (r >> 2 & 7) {
        case 0:
            read_reg(cpu, r >> 8 & 0xffc);
            break;
        case 1:
        case 2:
            write_reg(cpu, r >> 8 & 0xff0, random_next(&seed));
            break;
        case 3:
            send(r >> 8 & 0xff, r >> 16 & 1, random_next(&seed));
            break;
        case 4:
            take(cpu);
            break;
        case 5:
            lapic_read_msr(l, r & 0x10000 ? 0x6e0 : 0x800 + (r >> 8 & 0x3f), &value);
            break;
        case 6:
            lapic_write_msr(l, r & 0x10000 ? 0x6e0 : 0x800 + (r >> 8 & 0x3f), random_next(&seed));
            break;
        default:
            lapic_set_base(l, PAGE | (uint64_t)(r >> 8 & 0xfff));
            step(random_next(&seed) % NS_PER_MS);
        }
    }
}

/* ---- several threads ------------------------------------------------------------------------- */

#define SENDERS      3
#define ROUNDS       2000
#define FIRST_VECTOR 0x40
#define VECTORS      32

/* By (cpu, vector): how often it was taken. A vector belongs to one sender. */
static _Atomic(unsigned) taken[CPUS][256];
static _Atomic(bool) done;

static void *run_vcpu(void *opaque)
{
    struct vcpu *vcpu = opaque;

    mem_thread_register();
    while (!atomic_load(&done)) {
        if (!(atomic_exchange(&vcpu->requests, 0) & VCPU_REQUEST_APIC)) {
            sched_yield();
            continue;
        }
        while (lapic_sync(vcpu->lapic)) {
            int vector = lapic_ack(vcpu->lapic);
            atomic_fetch_add(&taken[vcpu->index][vector], 1);
            write_reg(vcpu->index, 0xb0, 0);
        }
    }
    mem_thread_unregister();
    return NULL;
}

/* Sends a vector only when its last one has been taken, so each must arrive. */
static void *run_sender(void *opaque)
{
    unsigned me = (unsigned)(uintptr_t)opaque;
    uint64_t seed = me + 1;
    unsigned sent[CPUS][VECTORS] = {0};

    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned cpu = random_next(&seed) % CPUS, n = random_next(&seed) % VECTORS;
        uint8_t vector = (uint8_t)(FIRST_VECTOR + me * VECTORS + n);
        while (atomic_load(&taken[cpu][vector]) != sent[cpu][n]) {
            sched_yield();
        }
        sent[cpu][n]++;
        send(cpu, false, vector | (i & 1 ? 0xc000 : 0));
    }
    for (unsigned cpu = 0; cpu < CPUS; cpu++) {
        for (unsigned n = 0; n < VECTORS; n++) {
            while (atomic_load(&taken[cpu][FIRST_VECTOR + me * VECTORS + n]) != sent[cpu][n]) {
                sched_yield();
            }
        }
    }
    return NULL;
}

static void test_mailbox_loses_nothing(void **state)
{
    pthread_t vcpus[CPUS], senders[SENDERS];

    memset(taken, 0, sizeof(taken));
    atomic_store(&done, false);
    accel.eoi_broadcast = NULL;
    for (uintptr_t i = 0; i < CPUS; i++) {
        take_requests((unsigned)i);
        assert_int_equal(pthread_create(&vcpus[i], NULL, run_vcpu, &cpus[i]), 0);
    }
    for (uintptr_t i = 0; i < SENDERS; i++) {
        assert_int_equal(pthread_create(&senders[i], NULL, run_sender, (void *)i), 0);
    }
    for (unsigned i = 0; i < SENDERS; i++) {
        pthread_join(senders[i], NULL);
    }
    atomic_store(&done, true);
    unsigned sum = 0;
    for (unsigned i = 0; i < CPUS; i++) {
        pthread_join(vcpus[i], NULL);
        for (unsigned v = 0; v < 256; v++) {
            sum += atomic_load(&taken[i][v]);
        }
    }
    assert_int_equal(sum, SENDERS * ROUNDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        TEST(test_reset),
        TEST(test_write_masks),
        TEST(test_illegal_register),
        TEST(test_priorities),
        TEST(test_level),
        TEST(test_irr_shows_the_mailbox),
        TEST(test_disabled),
        TEST(test_illegal_vectors),
        TEST(test_destinations),
        TEST(test_lowest_priority),
        TEST(test_ipis),
        TEST(test_x2apic),
        TEST(test_mode_changes),
        TEST(test_timer_one_shot),
        TEST(test_timer_periodic),
        TEST(test_timer_race),
        TEST(test_tsc_deadline),
        TEST(test_state),
        TEST(test_hostile),
        TEST(test_mailbox_loses_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
