/* SPDX-License-Identifier: MIT */
/* The CPU model's features as questions that decoding and system instructions ask. */
#include "accel/cpu_model_internal.h"
#include "accel/soft/system.h"
#include "base/alloc.h"
#include "base/range.h"

static const struct {
    const char *name; /* QEMU's */
    size_t offset;
} table[] = {
    {"fpu", offsetof(struct soft_features, x87)},
    {"mmx", offsetof(struct soft_features, mmx)},
    {"fxsr", offsetof(struct soft_features, fxsr)},
    {"sse", offsetof(struct soft_features, sse)},
    {"sse2", offsetof(struct soft_features, sse2)},
    {"pni", offsetof(struct soft_features, sse3)},
    {"ssse3", offsetof(struct soft_features, ssse3)},
    {"sse4.1", offsetof(struct soft_features, sse4_1)},
    {"sse4.2", offsetof(struct soft_features, sse4_2)},
    {"popcnt", offsetof(struct soft_features, popcnt)},
    {"cx8", offsetof(struct soft_features, cx8)},
    {"cx16", offsetof(struct soft_features, cx16)},
    {"cmov", offsetof(struct soft_features, cmov)},
    {"sep", offsetof(struct soft_features, sep)},
    {"syscall", offsetof(struct soft_features, syscall)},
    {"lahf-lm", offsetof(struct soft_features, lahf_lm)},
    {"movbe", offsetof(struct soft_features, movbe)},
    {"aes", offsetof(struct soft_features, aes)},
    {"pclmulqdq", offsetof(struct soft_features, pclmul)},
    {"xsave", offsetof(struct soft_features, xsave)},
    {"xsaveopt", offsetof(struct soft_features, xsaveopt)},
    {"xsavec", offsetof(struct soft_features, xsavec)},
    {"xgetbv1", offsetof(struct soft_features, xgetbv1)},
    {"xsaves", offsetof(struct soft_features, xsaves)},
    {"avx", offsetof(struct soft_features, avx)},
    {"avx2", offsetof(struct soft_features, avx2)},
    {"f16c", offsetof(struct soft_features, f16c)},
    {"fma", offsetof(struct soft_features, fma)},
    {"bmi1", offsetof(struct soft_features, bmi1)},
    {"bmi2", offsetof(struct soft_features, bmi2)},
    {"abm", offsetof(struct soft_features, lzcnt)},
    {"adx", offsetof(struct soft_features, adx)},
    {"rdrand", offsetof(struct soft_features, rdrand)},
    {"rdseed", offsetof(struct soft_features, rdseed)},
    {"fsgsbase", offsetof(struct soft_features, fsgsbase)},
    {"rdtscp", offsetof(struct soft_features, rdtscp)},
    {"rdpid", offsetof(struct soft_features, rdpid)},
    {"sha-ni", offsetof(struct soft_features, sha)},
    {"clflushopt", offsetof(struct soft_features, clflushopt)},
    {"clwb", offsetof(struct soft_features, clwb)},
    {"invpcid", offsetof(struct soft_features, invpcid)},
    {"pcid", offsetof(struct soft_features, pcid)},
    {"smep", offsetof(struct soft_features, smep)},
    {"smap", offsetof(struct soft_features, smap)},
    {"umip", offsetof(struct soft_features, umip)},
    {"nx", offsetof(struct soft_features, nx)},
    {"pdpe1gb", offsetof(struct soft_features, pdpe1gb)},
    {"pse", offsetof(struct soft_features, pse)},
    {"pae", offsetof(struct soft_features, pae)},
    {"pge", offsetof(struct soft_features, pge)},
    {"pat", offsetof(struct soft_features, pat)},
    {"mtrr", offsetof(struct soft_features, mtrr)},
    {"3dnowprefetch", offsetof(struct soft_features, prefetchw)},
    {"sse4a", offsetof(struct soft_features, sse4a)},
    {"la57", offsetof(struct soft_features, la57)},
    {"clzero", offsetof(struct soft_features, clzero)},
    {"lm", offsetof(struct soft_features, long_mode)},
    {"x2apic", offsetof(struct soft_features, x2apic)},
    {"tsc-deadline", offsetof(struct soft_features, tsc_deadline)},
    {"vme", offsetof(struct soft_features, vme)},
    {"de", offsetof(struct soft_features, de)},
    {"apic", offsetof(struct soft_features, apic)},
    {"monitor", offsetof(struct soft_features, monitor)},
    {"erms", offsetof(struct soft_features, erms)},
    {"tsc", offsetof(struct soft_features, tsc)},
    {"msr", offsetof(struct soft_features, msr)},
    {"mce", offsetof(struct soft_features, mce)},
    {"mca", offsetof(struct soft_features, mca)},
    {"clflush", offsetof(struct soft_features, clflush)},
    {"tsc-adjust", offsetof(struct soft_features, tsc_adjust)},
};

struct soft_features *soft_features_new(const struct cpu_model *model)
{
    struct soft_features *f = xnew(struct soft_features);

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        *(bool *)((uint8_t *)f + table[i].offset) = cpu_model_has(model, table[i].name);
    }
    f->phys_bits = cpu_model_phys_bits(model);
    f->linear_bits = model->linear_bits;
    f->is_intel = cpu_model_is_intel(model);
    f->kvm_leaves = model->has_kvm_leaves && cpu_model_has(model, "hypervisor");
    f->kvm = f->kvm_leaves ? model->words[CPU_WORD_KVM] : 0;
    return f;
}
