/* SPDX-License-Identifier: MIT */
/*
 * The CPUID leaves of a vCPU (Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E). Leaves that
 * are not made here read as zero.
 */
#include <assert.h>
#include <string.h>

#include "accel/accel.h"
#include "accel/cpu_model_internal.h"
#include "base/bytes.h"
#include "base/range.h"

struct leaves {
    const struct cpu_model *model;
    struct cpuid_entry *entries;
    unsigned count;
    uint32_t apic_id;
    struct cpu_shifts shifts;
};

static void add(struct leaves *l, uint32_t leaf, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    assert(l->count < CPUID_MAX);
    l->entries[l->count++] =
        (struct cpuid_entry){.leaf = leaf, .eax = a, .ebx = b, .ecx = c, .edx = d};
}

static void add_sub(struct leaves *l, uint32_t leaf, uint32_t subleaf, uint32_t a, uint32_t b,
                    uint32_t c, uint32_t d)
{
    add(l, leaf, a, b, c, d);
    l->entries[l->count - 1].subleaf = subleaf;
    l->entries[l->count - 1].has_subleaf = true;
}

static bool engine_cpuid(const struct leaves *l, uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
    struct accel *accel = l->model->accel;

    memset(regs, 0, 4 * sizeof(regs[0]));
    return accel->ops->supported_cpuid(accel, leaf, subleaf, regs);
}

/* ---- topology -------------------------------------------------------------------------------- */

static unsigned bits_for(unsigned count)
{
    return count > 1 ? 32 - __builtin_clz(count - 1) : 0;
}

struct cpu_shifts cpu_model_shifts(const struct cpu_model *model)
{
    const struct cpu_topology *t = &model->topology;
    struct cpu_shifts s;

    s.core = bits_for(t->threads);
    s.die = s.core + bits_for(t->cores);
    s.socket = s.die + bits_for(t->dies);
    return s;
}

uint32_t cpu_model_apic_id(const struct cpu_model *model, unsigned index)
{
    const struct cpu_topology *t = &model->topology;
    struct cpu_shifts s = cpu_model_shifts(model);
    unsigned thread = index % t->threads;
    unsigned core = index / t->threads % t->cores;
    unsigned die = index / t->threads / t->cores % t->dies;
    unsigned socket = index / t->threads / t->cores / t->dies;

    return thread | core << s.core | die << s.die | socket << s.socket;
}

static unsigned threads_per_socket(const struct leaves *l)
{
    const struct cpu_topology *t = &l->model->topology;

    return t->dies * t->cores * t->threads;
}

/* SDM: each level says how far to shift the APIC id to get the next level's number. */
static void add_extended_topology(struct leaves *l, uint32_t leaf)
{
    enum { SMT = 1, CORE = 2, DIE = 5 };
    const struct cpu_topology *t = &l->model->topology;
    bool has_die = leaf == 0x1f;
    uint32_t level = 0;

    add_sub(l, leaf, level, l->shifts.core, t->threads, level | SMT << 8, l->apic_id);
    level++;
    add_sub(l, leaf, level, has_die ? l->shifts.die : l->shifts.socket,
            has_die ? t->cores * t->threads : threads_per_socket(l), level | CORE << 8, l->apic_id);
    level++;
    if (has_die) {
        add_sub(l, leaf, level, l->shifts.socket, threads_per_socket(l), level | DIE << 8,
                l->apic_id);
        level++;
    }
    add_sub(l, leaf, level, 0, 0, level, l->apic_id);
}

/* ---- caches --------------------------------------------------------------------------------- */

struct cache {
    unsigned level, type, kib, ways; /* type 1: data, 2: code, 3: both; lines of 64 bytes */
};

static const struct cache caches[] = {
    {1, 1, 32, 8}, {1, 2, 32, 8}, {2, 3, 2048, 16}, {3, 3, 16384, 16}};

/* Leaves 4 and 0x8000001d have the same form but for the number of cores. */
static void add_caches(struct leaves *l, uint32_t leaf)
{
    uint32_t cores = leaf == 4 ? MIN(BIT(l->shifts.socket - l->shifts.core) - 1, 63) : 0;
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(caches); i++) {
        const struct cache *c = &caches[i];
        uint32_t share = BIT(c->level == 3 ? l->shifts.die : l->shifts.core) - 1;
        uint32_t a = c->type | c->level << 5 | 1 << 8 | MIN(share, 0xfff) << 14 | cores << 26;
        add_sub(l, leaf, i, a, 63 | (c->ways - 1) << 22, c->kib * 1024 / 64 / c->ways - 1, 0);
    }
    add_sub(l, leaf, i, 0, 0, 0, 0);
}

/* The host's caches with the guest's numbers of sharers. */
static bool add_host_caches(struct leaves *l, uint32_t leaf)
{
    uint32_t regs[4], cores = leaf == 4 ? MIN(BIT(l->shifts.socket - l->shifts.core) - 1, 63) : 0;

    if (!l->model->definition->is_host || !engine_cpuid(l, leaf, 0, regs) || !(regs[0] & 31)) {
        return false;
    }
    for (uint32_t i = 0; i < 8; i++) {
        engine_cpuid(l, leaf, i, regs);
        if (!(regs[0] & 31)) {
            add_sub(l, leaf, i, 0, 0, 0, 0);
            break;
        }
        uint32_t level = regs[0] >> 5 & 7;
        uint32_t share = BIT(level >= 3 ? l->shifts.die : l->shifts.core) - 1;
        regs[0] = (regs[0] & 0x3fff) | MIN(share, 0xfff) << 14 | cores << 26;
        add_sub(l, leaf, i, regs[0], regs[1], regs[2], regs[3]);
    }
    return true;
}

/* ---- XSAVE ---------------------------------------------------------------------------------- */

static uint64_t xsave_components(const struct cpu_model *model)
{
    return 3 | (cpu_model_has(model, "avx") ? 1u << 2 : 0) |
           (cpu_model_has(model, "avx512f") ? 7u << 5 : 0) |
           (cpu_model_has(model, "pku") ? 1u << 9 : 0);
}

static void add_xsave(struct leaves *l)
{
    uint32_t size = 512 + 64, regs[4];
    uint64_t components = xsave_components(l->model);
    struct cpuid_entry *first = &l->entries[l->count];

    if (!cpu_model_has(l->model, "xsave") || !engine_cpuid(l, 0xd, 0, regs)) {
        return;
    }
    components &= regs[0] | (uint64_t)regs[3] << 32;
    add_sub(l, 0xd, 0, (uint32_t)components, 0, 0, components >> 32);
    /* EBX, the size for the present XCR0, is the engine's. */
    add_sub(l, 0xd, 1, l->model->words[CPU_WORD_D_1_EAX], 0, 0, 0);
    for (unsigned i = 2; i < 63; i++) {
        if (components >> i & 1 && engine_cpuid(l, 0xd, i, regs)) {
            add_sub(l, 0xd, i, regs[0], regs[1], regs[2], 0);
            size = MAX(size, regs[0] + regs[1]);
        }
    }
    first->ebx = first->ecx = size;
}

/* ---- TSC frequency --------------------------------------------------------------------------- */

/*
 * Leaf 0x15 says TSC = crystal * EBX / EAX, where the crystal is also the LAPIC timer's clock.
 * Guests multiply in 32 bits (crystal in kHz by EBX), so the numerator is small: continued fractions
 * give the nearest one. Next to simple fractions there are gaps; false: it would be wrong by more
 * than 1 ppm, and the guest had better measure.
 */
static bool tsc_ratio(uint64_t tsc_khz, uint64_t crystal_khz, uint32_t *numerator,
                      uint32_t *denominator)
{
    const uint64_t most = UINT32_MAX / crystal_khz;
    uint64_t a = tsc_khz, b = crystal_khz;
    uint64_t n0 = 0, n1 = 1, d0 = 1, d1 = 0;

    while (b) {
        uint64_t q = a / b, fits = n1 ? (most - n0) / n1 : q, r = a % b;
        bool last = q > fits;
        uint64_t n2, d2;

        if (last && 2 * fits < q) {
            break; /* what is between the two convergents is no nearer */
        }
        q = MIN(q, fits);
        n2 = q * n1 + n0;
        d2 = q * d1 + d0;
        n0 = n1;
        n1 = n2;
        d0 = d1;
        d1 = d2;
        if (last) {
            break;
        }
        a = b;
        b = r;
    }
    *numerator = (uint32_t)n1;
    *denominator = (uint32_t)d1;
    if (!n1 || !d1) {
        return false;
    }
    uint64_t khz = crystal_khz * n1 / d1;
    uint64_t error = khz > tsc_khz ? khz - tsc_khz : tsc_khz - khz;
    return error * 1000000 <= tsc_khz + 1000000;
}

static void add_tsc(struct leaves *l)
{
    uint32_t numerator, denominator;
    uint32_t mhz = l->model->tsc_khz / 1000;

    if (tsc_ratio(l->model->tsc_khz, l->model->bus_khz, &numerator, &denominator)) {
        add(l, 0x15, denominator, numerator, l->model->bus_khz * 1000, 0);
    }
    add(l, 0x16, mhz, mhz, 100, 0);
}

/* ---- basic leaves ---------------------------------------------------------------------------- */

static void add_text(struct leaves *l, uint32_t leaf, uint32_t eax, const char text[12])
{
    add(l, leaf, eax, load_le32(text), load_le32(text + 4), load_le32(text + 8));
}

static void add_basic(struct leaves *l)
{
    const struct cpu_model *m = l->model;
    const uint32_t *w = m->words;
    bool intel = cpu_model_is_intel(m);
    bool has_tsc = intel && m->tsc_khz && m->bus_khz;
    bool has_die = intel && m->topology.dies > 1;
    unsigned threads = MIN(BIT(l->shifts.socket), 255);
    uint32_t level = has_die ? 0x1f : has_tsc ? 0x16 : 0xd;

    /* In leaf 0 the name is in EBX, EDX, ECX. */
    add(l, 0, level, load_le32(m->vendor), load_le32(m->vendor + 8), load_le32(m->vendor + 4));
    add(l, 1, cpu_model_signature(m), 8 << 8 | threads << 16 | l->apic_id << 24, w[CPU_WORD_1_ECX],
        (w[CPU_WORD_1_EDX] & ~BIT(28)) | (threads > 1 ? BIT(28) : 0));
    if (intel) {
        add(l, 2, 0x0000ff01, 0, 0, 0); /* see leaf 4 */
        if (!add_host_caches(l, 4)) {
            add_caches(l, 4);
        }
    }
    add(l, 6, w[CPU_WORD_6_EAX], 0, 0, 0);
    add_sub(l, 7, 0, w[CPU_WORD_7_1_EAX] ? 1 : 0, w[CPU_WORD_7_EBX], w[CPU_WORD_7_ECX],
            w[CPU_WORD_7_EDX]);
    if (w[CPU_WORD_7_1_EAX]) {
        add_sub(l, 7, 1, w[CPU_WORD_7_1_EAX], 0, 0, 0);
    }
    add_extended_topology(l, 0xb);
    add_xsave(l);
    if (has_tsc) {
        add_tsc(l);
    }
    if (has_die) {
        add_extended_topology(l, 0x1f);
    }
}

/* ---- hypervisor leaves ------------------------------------------------------------------------ */

/* The little of the Hyper-V interface (TLFS 2.4) that its crash and reset MSRs need. */
static void add_hyperv(struct leaves *l)
{
    const struct cpu_model *m = l->model;
    uint32_t msrs = BIT(5); /* hypercall and guest OS id */
    uint32_t features = 0;

    msrs |= cpu_model_has_bit(m, CPU_WORD_HYPERV, HYPERV_RESET) ? BIT(7) : 0;
    features |= cpu_model_has_bit(m, CPU_WORD_HYPERV, HYPERV_CRASH) ? BIT(10) : 0;
    add_text(l, 0x40000000, 0x40000005, "Microsoft Hv");
    add(l, 0x40000001, 0x31237648, 0, 0, 0); /* "Hv#1" */
    add(l, 0x40000002, 0, 0, 0, 0);
    add(l, 0x40000003, msrs, 0, 0, features);
    add(l, 0x40000004, 0, UINT32_MAX, 0, 0); /* never retry a spinlock by hypercall */
    add(l, 0x40000005, m->topology.sockets * threads_per_socket(l), 0, 0, 0);
}

static void add_hypervisor(struct leaves *l)
{
    const struct cpu_model *m = l->model;
    uint32_t base = 0x40000000;

    if (!cpu_model_has(m, "hypervisor")) {
        return;
    }
    if (m->words[CPU_WORD_HYPERV]) {
        add_hyperv(l);
        base += 0x100;
    }
    if (m->has_kvm_leaves) {
        uint32_t last = m->tsc_khz ? base + 0x10 : base + 1;
        add_text(l, base, last, "KVMKVMKVM\0\0\0");
        add(l, base + 1, m->words[CPU_WORD_KVM], 0, 0, 0);
        if (m->tsc_khz) {
            add(l, base + 0x10, m->tsc_khz, m->bus_khz, 0, 0);
        }
    }
}

/* ---- extended leaves -------------------------------------------------------------------------- */

/* AMD repeats these bits of leaf 1 in leaf 0x80000001. */
#define EDX_REPEATED 0x0183f3ffu

static void add_extended(struct leaves *l)
{
    const struct cpu_model *m = l->model;
    const uint32_t *w = m->words;
    bool amd = !cpu_model_is_intel(m);
    bool topoext = amd && cpu_model_has(m, "topoext");
    unsigned threads = threads_per_socket(l);
    uint32_t edx = w[CPU_WORD_8000_0001_EDX], ecx = w[CPU_WORD_8000_0001_ECX];
    uint32_t cores = 0;

    if (amd) {
        edx |= w[CPU_WORD_1_EDX] & EDX_REPEATED;
        ecx |= threads > 1 ? BIT(1) : 0; /* core multi-processing legacy mode */
        cores = MIN(threads - 1, 255) | l->shifts.socket << 12;
    }
    add(l, 0x80000000, topoext ? 0x8000001e : 0x80000008, load_le32(m->vendor),
        load_le32(m->vendor + 8), load_le32(m->vendor + 4));
    add(l, 0x80000001, amd ? cpu_model_signature(m) : 0, 0, ecx, edx);
    for (unsigned i = 0; i < 3; i++) {
        const char *part = m->brand + 16 * i;
        add(l, 0x80000002 + i, load_le32(part), load_le32(part + 4), load_le32(part + 8),
            load_le32(part + 12));
    }
    if (amd) {
        /* L1: 32 KiB, 8 ways (KiB << 24 | ways << 16 | lines per tag << 8 | line); L2, L3 alike. */
        add(l, 0x80000005, 0, 0, 32u << 24 | 8 << 16 | 1 << 8 | 64,
            32u << 24 | 8 << 16 | 1 << 8 | 64);
        add(l, 0x80000006, 0, 0, 2048u << 16 | 8 << 12 | 1 << 8 | 64,
            (16384u / 512) << 18 | 8 << 12 | 1 << 8 | 64);
    } else {
        add(l, 0x80000006, 0, 0, 2048u << 16 | 8 << 12 | 64, 0);
    }
    add(l, 0x80000007, 0, 0, 0, w[CPU_WORD_8000_0007_EDX]);
    add(l, 0x80000008, m->phys_bits | m->linear_bits << 8, w[CPU_WORD_8000_0008_EBX], cores, 0);
    if (topoext) {
        uint32_t die = l->apic_id >> l->shifts.die;
        uint32_t core = l->apic_id >> l->shifts.core;
        if (!add_host_caches(l, 0x8000001d)) {
            add_caches(l, 0x8000001d);
        }
        add(l, 0x8000001e, l->apic_id, (core & 0xff) | (m->topology.threads - 1) << 8,
            (die & 0xff) | (m->topology.dies - 1) << 8, 0);
    }
}

unsigned cpu_model_cpuid(const struct cpu_model *model, uint32_t apic_id,
                         struct cpuid_entry entries[CPUID_MAX])
{
    struct leaves l = {
        .model = model,
        .entries = entries,
        .apic_id = apic_id,
        .shifts = cpu_model_shifts(model),
    };

    add_basic(&l);
    add_hypervisor(&l);
    add_extended(&l);
    return l.count;
}
