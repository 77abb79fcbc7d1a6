/* SPDX-License-Identifier: MIT */
/*
 * KVM's paravirtual clock (Linux, Documentation/virt/kvm/x86/msr.rst): a guest names an address, and
 * finds there how to make nanoseconds of its TSC, and the wall clock of the time when those began.
 *
 *      ns = system_time + ((tsc - tsc_timestamp) << tsc_shift) * tsc_to_system_mul >> 32
 *
 * Both clocks stop with the VM, so this stays true until the guest writes its TSC or a state is
 * loaded. A version that is odd, or changes while the guest reads, tells it to read again.
 */
#include <stdatomic.h>

#include "accel/soft/msr.h"
#include "accel/soft/system.h"
#include "aio/clock.h"
#include "base/bytes.h"
#include "mem/dma.h"

/* struct pvclock_vcpu_time_info */
enum {
    TIME_VERSION = 0,
    TIME_TSC = 8,
    TIME_SYSTEM = 16,
    TIME_MUL = 24,
    TIME_SHIFT = 28,
    TIME_FLAGS = 29,
    TIME_SIZE = 32,
};
#define TIME_TSC_STABLE 1u /* TSCs agree: the guest need not guard against going back */

/* struct pvclock_wall_clock */
enum { WALL_VERSION = 0, WALL_SECONDS = 4, WALL_NS = 8, WALL_SIZE = 12 };

#define ADDRESS_ENABLED UINT64_C(1)
#define KVM_STABLE_BIT  24 /* KVM_FEATURE_CLOCKSOURCE_STABLE_BIT */

/* 1 GHz: ticks are ns; ticks * 2 * 2^31 / 2^32. */
#define GHZ_MUL   0x80000000u
#define GHZ_SHIFT 1u

/* Writes a structure that begins with its version; the rest of data is filled in. What lies beyond
 * the guest's memory is the guest's loss. */
static void publish(uint64_t address, uint8_t *data, unsigned size, uint32_t *version)
{
    uint8_t word[4];

    *version = (*version + 1) | 1;
    store_le32(word, *version);
    dma_write_ram(address_space_memory, address, word, sizeof(word));
    dma_write_ram(address_space_memory, address + sizeof(word), data + sizeof(word),
                  size - sizeof(word));
    *version += 1;
    store_le32(word, *version);
    dma_write_ram(address_space_memory, address, word, sizeof(word));
}

void soft_pvclock_update(struct soft_cpu *cpu)
{
    struct soft_msrs *msrs = cpu->msrs;
    uint8_t data[TIME_SIZE] = {0};
    uint64_t ns;

    if (!(msrs->kvm_system_time & ADDRESS_ENABLED)) {
        return;
    }
    ns = (uint64_t)clock_get_ns(AIO_CLOCK_VIRTUAL);
    store_le64(data + TIME_TSC, ns + (uint64_t)cpu->tsc_offset);
    store_le64(data + TIME_SYSTEM, ns);
    store_le32(data + TIME_MUL, GHZ_MUL);
    data[TIME_SHIFT] = GHZ_SHIFT;
    if (cpu->features->kvm >> KVM_STABLE_BIT & 1 && !atomic_load(&cpu->soft->tsc_differs)) {
        data[TIME_FLAGS] = TIME_TSC_STABLE;
    }
    publish(msrs->kvm_system_time & ~ADDRESS_ENABLED, data, sizeof(data), &msrs->pvclock_version);
}

/* The wall clock at virtual time 0. The structure is for all vCPUs; its version starts anew. */
static void write_wall_clock(uint64_t address)
{
    int64_t ns = clock_get_ns(AIO_CLOCK_HOST) - clock_get_ns(AIO_CLOCK_VIRTUAL);
    uint8_t data[WALL_SIZE] = {0};
    uint32_t version;

    if (dma_read_ram(address_space_memory, address, data, sizeof(version)) != MEM_OK) {
        return;
    }
    version = load_le32(data);
    store_le32(data + WALL_SECONDS, (uint32_t)(ns / NS_PER_SEC));
    store_le32(data + WALL_NS, (uint32_t)(ns % NS_PER_SEC));
    publish(address, data, sizeof(data), &version);
}

void soft_pvclock_write(struct soft_cpu *cpu, uint32_t msr, uint64_t value)
{
    if (msr == X86_MSR_KVM_SYSTEM_TIME || msr == X86_MSR_KVM_SYSTEM_TIME_OLD) {
        cpu->msrs->kvm_system_time = value;
        soft_pvclock_update(cpu);
    } else {
        cpu->msrs->kvm_wall_clock = value;
        if (value) {
            write_wall_clock(value);
        }
    }
}
