/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the KVM engine share: a VM on the real /dev/kvm with RAM, a device that writes
 * down what guests tell it, and guests of a few instructions (guest_code.S).
 *
 * They run where code at CPL 0 is interpreted, too (docs/testing.md): what such a host cannot do is
 * skipped there, by name, and tested in L1.
 */
#ifndef FERRY_TESTS_ACCEL_KVM_FIXTURE_H
#define FERRY_TESTS_ACCEL_KVM_FIXTURE_H

#include "accel_fixture.h"

#include "accel/cpu_model.h"
#include "accel/kvm/kvm.h"
#include "accel/lapic.h"

#define GUEST_CODE     0x1000u
#define GUEST_HANDLERS 0x1800u
#define GUEST_IDT      0x2000u
#define GUEST_GDT      0x2800u
#define GUEST_AP       0x3000u
#define GUEST_TABLES   0x4000u
#define GUEST_BUFFER   0x5000u
#define GUEST_STACK    0x9000u
#define MMIO_BASE      UINT64_C(0xe0000000)
#define DIRTY_BASE     UINT64_C(0x200000)
#define ROM_BASE       UINT64_C(0x300000)

#define GUEST(name) extern const uint8_t guest_##name[], guest_##name##_end[]
GUEST(string);
GUEST(mmio);
GUEST(doorbells);
GUEST(interrupts);
GUEST(ioapic);
GUEST(window);
GUEST(handlers);
GUEST(dirty);
GUEST(rom);
GUEST(coalesced);
GUEST(spin);
GUEST(count);
GUEST(in);
GUEST(triple_fault);
GUEST(crash);
GUEST(hv_reset);
GUEST(bad_mmio);
GUEST(start_ap);
GUEST(ap);
GUEST(cr8);

/* Only an interpreter of CPL 0 is here. */
extern bool emulated;

#define SKIP_WHERE_EMULATED(why)                                                                   \
    do {                                                                                           \
        if (emulated) {                                                                            \
            print_message("skipped: CPL 0 is interpreted here: %s\n", why);                        \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

/* ---- the device: ports and an MMIO page -------------------------------------------------------- */

enum { PORTS = 0x500, PORT_COUNT = 0x40 };
enum { REPORT = 0, VECTOR = 4, AP_UP = 5, COUNTER = 8, STRING = 0x10, BELL = 0x20, GO = 0x30 };

#define LOG_SIZE 64

/* The other fields of an entry are written before count. */
struct write_log {
    _Atomic(unsigned) count;
    uint64_t value[LOG_SIZE];
    uint64_t offset[LOG_SIZE];
    unsigned size[LOG_SIZE];
};

extern struct write_log reports, vectors, strings, bells, mmio_writes;
extern _Atomic(unsigned) ap_value, go, counter, counter_reads;
extern void (*on_counter_read)(void);
extern struct mem_region ports, mmio;
extern const struct mem_region_ops mmio_ops;

void assert_logged(const struct write_log *log, unsigned i, uint64_t offset, uint64_t value,
                   unsigned size);

/* ---- one VM at a time -------------------------------------------------------------------------- */

extern struct accel *accel;
extern struct cpu_model *model;

int kvm_group_setup(void **state);
int kvm_group_teardown(void **state);
int kvm_test_setup(void **state);
int kvm_test_teardown(void **state); /* ends the VM */

#define TEST(name) cmocka_unit_test_setup_teardown(name, kvm_test_setup, kvm_test_teardown)

void start_vm_of(const char *irqchip, const char *cpu, unsigned cpus);
void start_vm(const char *irqchip);
/* Number of exits of vCPU 0. */
uint64_t exits(enum vcpu_exit_reason reason);

/* Puts a guest at GUEST_CODE with its tables, and vCPU 0 in flat 32-bit mode before it. */
void load(const uint8_t *code, const uint8_t *end);
#define LOAD(name) load(guest_##name, guest_##name##_end)
void set_flat_state(struct vcpu *vcpu);
void set_long_state(struct vcpu *vcpu); /* 64-bit, the first 2 MiB mapped as they are */

/* False after some seconds, or when a vCPU cannot go on. */
bool reaches(_Atomic(unsigned) *count, unsigned value);
#define WAIT(count, value) assert_true(reaches(&(count), (value)))

struct msi_message message(uint8_t vector); /* to vCPU 0 */

/* The groups; number of tests that failed. */
int kvm_io_tests(void);
int kvm_irq_tests(void);
int kvm_route_tests(void);
int kvm_exit_tests(void);
int kvm_state_tests(void);

#endif
