/* SPDX-License-Identifier: MIT */
/*
 * CPUID (SDM volume 2, CPUID; AMD APM volume 3, appendix E): what the soft CPU can offer to a CPU
 * model, and what a vCPU answers, which is its model's leaves with the bits that follow its state.
 *
 * What the handlers leave to the host's own vector unit and ALU is offered only where the host has it.
 */
#include <cpuid.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "accel/cpu_feature.h"
#include "accel/cpu_model_internal.h"
#include "accel/lapic.h"
#include "accel/soft/msr.h"
#include "accel/soft/system.h"
#include "base/alloc.h"
#include "base/range.h"

#define ECX1_OSXSAVE      BIT(27)
#define EDX1_APIC         BIT(9)
#define EDX8000_0001_APIC BIT(9) /* AMD */
#define EDX_SYSCALL       BIT(11)
#define D1_XSAVEC         BIT(1)
#define D1_XSAVES         BIT(3)

#define PHYS_BITS   40
#define LINEAR_BITS 48
#define TSC_KHZ     1000000u
#define BUS_KHZ     1000000u /* of the LAPIC's timer */

/* ---- features --------------------------------------------------------------------------------- */

/* By QEMU's names. */
static const char always[] =
    "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 "
    "ht pni x2apic tsc-deadline hypervisor movbe pcid syscall nx rdtscp lm pdpe1gb lahf-lm "
    "3dnowprefetch arat fsgsbase tsc-adjust smep smap umip erms invpcid invtsc "
    "kvmclock kvmclock2 kvmclock-stable-bit kvm-nopiodelay kvm-poll-control";

/* Where the host has them. */
static const char by_host[] =
    "ssse3 cx16 sse4.1 sse4.2 popcnt abm aes pclmulqdq xsave xsaveopt "
    "xsavec xgetbv1 xsaves bmi1 bmi2 adx rdrand rdseed sha-ni clflushopt clwb rdpid";
static const char by_host_avx[] = "avx avx2 f16c fma";

static struct {
    pthread_once_t once;
    uint32_t words[CPU_WORD_COUNT];
} offered = {.once = PTHREAD_ONCE_INIT};

static uint32_t host_register(uint32_t leaf, uint32_t subleaf, unsigned reg)
{
    uint32_t r[4] = {0};

    __get_cpuid_count(leaf, subleaf, &r[0], &r[1], &r[2], &r[3]);
    return r[reg];
}

/* The host's kernel saves the YMM registers. */
static bool host_has_ymm(void)
{
    uint32_t low, high;

    if (!(host_register(1, 0, 2) & ECX1_OSXSAVE)) {
        return false;
    }
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (~low & (X86_XCR0_SSE | X86_XCR0_AVX)) == 0;
}

static void find_offered(void)
{
    uint32_t host[CPU_WORD_COUNT] = {0};

    cpu_features_add(host, by_host);
    if (host_has_ymm()) {
        cpu_features_add(host, by_host_avx);
    }
    for (unsigned w = 0; w < CPU_WORD_COUNT; w++) {
        const struct cpu_word_info *info = &cpu_words[w];

        if (host[w]) {
            offered.words[w] = host[w] & host_register(info->leaf, info->subleaf, info->reg);
        }
    }
    cpu_features_add(offered.words, always);
    cpu_features_close(offered.words);
}

static const uint32_t *offered_words(void)
{
    pthread_once(&offered.once, find_offered);
    return offered.words;
}

/* ---- XSAVE areas (SDM volume 1, 13.4) ---------------------------------------------------------- */

#define LEGACY_SIZE (512u + 64u)
#define AVX_OFFSET  576u /* standard form */
#define AVX_SIZE    256u
#define AVX_IN_LEAF 2u

uint32_t soft_xsave_size(uint64_t components, bool is_compacted)
{
    /* AVX is the first of the extended region, so both forms are the same. */
    return LEGACY_SIZE + (components & X86_XCR0_AVX ? AVX_SIZE : 0);
}

static bool xsave_leaf(uint32_t subleaf, uint32_t regs[4])
{
    const uint32_t *w = offered_words();
    uint64_t components = X86_XCR0_X87 | X86_XCR0_SSE;

    if (w[CPU_WORD_1_ECX] & BIT(28)) {
        components |= X86_XCR0_AVX;
    }
    switch (subleaf) {
    case 0:
        regs[0] = (uint32_t)components;
        regs[1] = regs[2] = soft_xsave_size(components, false);
        return true;
    case 1:
        regs[0] = w[CPU_WORD_D_1_EAX];
        return true;
    case AVX_IN_LEAF:
        regs[0] = AVX_SIZE;
        regs[1] = AVX_OFFSET;
        return components & X86_XCR0_AVX;
    default:
        return false;
    }
}

/* ---- what is offered --------------------------------------------------------------------------- */

bool soft_supported_cpuid(struct accel *accel, uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
    /* The processor of -cpu max; other models have names of their own. */
    static const char vendor[] = CPU_VENDOR_AMD, brand[48] = "ferry soft CPU";
    const uint32_t *words = offered_words();
    bool known = false;

    memset(regs, 0, 4 * sizeof(regs[0]));
    for (unsigned w = 0; w < CPU_WORD_COUNT; w++) {
        const struct cpu_word_info *info = &cpu_words[w];

        if (info->leaf == leaf && info->subleaf == subleaf && w != CPU_WORD_HYPERV) {
            regs[info->reg] = words[w];
            known = true;
        }
    }
    switch (leaf) {
    case 0:
        regs[0] = 0x16;
        memcpy(&regs[1], vendor, 4);
        memcpy(&regs[3], vendor + 4, 4);
        memcpy(&regs[2], vendor + 8, 4);
        return true;
    case 1:
        regs[0] = 0x00060fb1; /* family 15, model 107, stepping 1 */
        return true;
    case 0xd:
        return words[CPU_WORD_1_ECX] & BIT(26) && xsave_leaf(subleaf, regs);
    case 0x80000000:
        regs[0] = 0x80000008;
        return true;
    case 0x80000002 ... 0x80000004:
        memcpy(regs, brand + 16 * (leaf - 0x80000002), 16);
        return true;
    case 0x80000008:
        regs[0] = PHYS_BITS | LINEAR_BITS << 8;
        return true;
    case CPUID_LEAF_TSC_KHZ:
        regs[0] = TSC_KHZ;
        regs[1] = BUS_KHZ;
        return true;
    case CPUID_LEAF_EMULATED:
        return true;
    default:
        return known;
    }
}

/* ---- what a vCPU answers ----------------------------------------------------------------------- */

static const struct cpuid_entry *find(const struct soft_msrs *msrs, uint32_t leaf, uint32_t subleaf)
{
    for (unsigned i = 0; i < msrs->leaf_count; i++) {
        const struct cpuid_entry *e = &msrs->leaves[i];

        if (e->leaf == leaf && (!e->has_subleaf || e->subleaf == subleaf)) {
            return e;
        }
    }
    return NULL;
}

static bool is_beyond(const struct soft_msrs *msrs, uint32_t leaf)
{
    uint32_t class = leaf & 0x80000000;
    const struct cpuid_entry *first;

    if (leaf >> 28 == 4) {
        class = leaf & 0xffffff00; /* a hypervisor's */
    }
    first = find(msrs, class, 0);
    return !first || leaf > first->eax;
}

static bool is_topology(uint32_t leaf)
{
    return leaf == 0xb || leaf == 0x1f;
}

/* Bits that follow the vCPU's state. */
static void adapt(const struct soft_cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
    const struct vcpu *vcpu = cpu->vcpu;
    bool has_apic = !vcpu->lapic || lapic_base(vcpu->lapic) & X86_APIC_BASE_ENABLE;

    switch (leaf) {
    case 1:
        regs[2] |= cpu->cr4 & X86_CR4_OSXSAVE ? ECX1_OSXSAVE : 0;
        regs[3] &= has_apic ? UINT32_MAX : ~EDX1_APIC;
        break;
    case 0xd:
        if (subleaf == 0 && regs[0]) {
            regs[1] = soft_xsave_size(cpu->xcr0, false);
        } else if (subleaf == 1 && regs[0] & (D1_XSAVEC | D1_XSAVES)) {
            regs[1] = soft_xsave_size(cpu->xcr0 | cpu->xss, true);
        }
        break;
    case 0x80000001:
        if (cpu->features->is_intel) {
            regs[3] &= soft_is_64(cpu) ? UINT32_MAX : ~EDX_SYSCALL;
        } else {
            regs[3] &= has_apic ? UINT32_MAX : ~EDX8000_0001_APIC;
        }
        break;
    default:
        break;
    }
}

void soft_cpuid(struct soft_cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
    struct soft_msrs *msrs = cpu->msrs;
    const struct cpuid_entry *e;

    if (!msrs->leaf_count) {
        msrs->leaf_count = cpu_model_cpuid(cpu->vcpu->model, cpu->vcpu->apic_id, msrs->leaves);
    }
    /* Beyond the last leaf Intel's processors answer as for the last basic one, AMD's with zeros. */
    if (is_beyond(msrs, leaf) && cpu->features->is_intel) {
        leaf = find(msrs, 0, 0)->eax;
    }
    memset(regs, 0, 4 * sizeof(regs[0]));
    e = find(msrs, leaf, subleaf);
    if (e) {
        regs[0] = e->eax;
        regs[1] = e->ebx;
        regs[2] = e->ecx;
        regs[3] = e->edx;
        adapt(cpu, leaf, subleaf, regs);
    } else if (is_topology(leaf) && find(msrs, leaf, 0)) {
        /* Levels that there are not: the level as asked for, and the APIC id. */
        regs[2] = subleaf & 0xff;
        regs[3] = cpu->vcpu->apic_id;
    }
}
