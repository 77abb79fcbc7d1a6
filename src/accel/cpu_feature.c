/* SPDX-License-Identifier: MIT */
/*
 * The table of features (Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E; Linux,
 * Documentation/virt/kvm/x86/cpuid.rst).
 *
 * Not supported although KVM may be able to: nested virtualization (VMX, SVM), SGX, processor
 * trace, AMX, LBR and performance counters: their state is not in struct x86_state. MONITOR, SMX,
 * thermal and debug store features have nothing behind them in a VM.
 */
#include "accel/cpu_feature.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/options.h"
#include "base/range.h"

const struct cpu_word_info cpu_words[CPU_WORD_COUNT] = {
    [CPU_WORD_1_EDX] =
        {
            .leaf = 0x1,
            .subleaf = 0,
            .reg = 3,
            .leaf_text = "01H.EDX",
            .supported = 0x1f8bfbff,
            .names =
                {
                    [0] = "fpu",   [1] = "vme",    [2] = "de",    [3] = "pse",      [4] = "tsc",
                    [5] = "msr",   [6] = "pae",    [7] = "mce",   [8] = "cx8",      [9] = "apic",
                    [11] = "sep",  [12] = "mtrr",  [13] = "pge",  [14] = "mca",     [15] = "cmov",
                    [16] = "pat",  [17] = "pse36", [18] = "pn",   [19] = "clflush", [21] = "ds",
                    [22] = "acpi", [23] = "mmx",   [24] = "fxsr", [25] = "sse",     [26] = "sse2",
                    [27] = "ss",   [28] = "ht",    [29] = "tm",   [30] = "ia64",    [31] = "pbe",
                },
        },
    [CPU_WORD_1_ECX] =
        {
            .leaf = 0x1,
            .subleaf = 0,
            .reg = 2,
            .leaf_text = "01H.ECX",
            .supported = 0xf7fa3203,
            .names =
                {
                    [0] = "pni",     [1] = "pclmulqdq",     [2] = "dtes64",  [3] = "monitor",
                    [4] = "ds-cpl",  [5] = "vmx",           [6] = "smx",     [7] = "est",
                    [8] = "tm2",     [9] = "ssse3",         [12] = "fma",    [13] = "cx16",
                    [14] = "xtpr",   [15] = "pdcm",         [17] = "pcid",   [18] = "dca",
                    [19] = "sse4.1", [20] = "sse4.2",       [21] = "x2apic", [22] = "movbe",
                    [23] = "popcnt", [24] = "tsc-deadline", [25] = "aes",    [26] = "xsave",
                    [28] = "avx",    [29] = "f16c",         [30] = "rdrand", [31] = "hypervisor",
                },
        },
    [CPU_WORD_6_EAX] =
        {
            .leaf = 0x6,
            .subleaf = 0,
            .reg = 0,
            .leaf_text = "06H.EAX",
            .supported = 0x00000004,
            .names =
                {
                    [2] = "arat",
                },
        },
    [CPU_WORD_7_EBX] =
        {
            .leaf = 0x7,
            .subleaf = 0,
            .reg = 1,
            .leaf_text = "07H.EBX",
            .supported = 0xfdbf2ffb,
            .names =
                {
                    [0] = "fsgsbase",
                    [1] = "tsc-adjust",
                    [2] = "sgx",
                    [3] = "bmi1",
                    [4] = "hle",
                    [5] = "avx2",
                    [6] = "fdp-excptn-only",
                    [7] = "smep",
                    [8] = "bmi2",
                    [9] = "erms",
                    [10] = "invpcid",
                    [11] = "rtm",
                    [13] = "zero-fcs-fds",
                    [14] = "mpx",
                    [16] = "avx512f",
                    [17] = "avx512dq",
                    [18] = "rdseed",
                    [19] = "adx",
                    [20] = "smap",
                    [21] = "avx512ifma",
                    [22] = "pcommit",
                    [23] = "clflushopt",
                    [24] = "clwb",
                    [25] = "intel-pt",
                    [26] = "avx512pf",
                    [27] = "avx512er",
                    [28] = "avx512cd",
                    [29] = "sha-ni",
                    [30] = "avx512bw",
                    [31] = "avx512vl",
                },
        },
    [CPU_WORD_7_ECX] =
        {
            .leaf = 0x7,
            .subleaf = 0,
            .reg = 2,
            .leaf_text = "07H.ECX",
            .supported = 0x1a415f4e,
            .names =
                {
                    [1] = "avx512vbmi",
                    [2] = "umip",
                    [3] = "pku",
                    [5] = "waitpkg",
                    [6] = "avx512vbmi2",
                    [8] = "gfni",
                    [9] = "vaes",
                    [10] = "vpclmulqdq",
                    [11] = "avx512vnni",
                    [12] = "avx512bitalg",
                    [14] = "avx512-vpopcntdq",
                    [16] = "la57",
                    [22] = "rdpid",
                    [24] = "bus-lock-detect",
                    [25] = "cldemote",
                    [27] = "movdiri",
                    [28] = "movdir64b",
                    [30] = "sgxlc",
                    [31] = "pks",
                },
        },
    [CPU_WORD_7_EDX] =
        {
            .leaf = 0x7,
            .subleaf = 0,
            .reg = 3,
            .leaf_text = "07H.EDX",
            .supported = 0xbc81451c,
            .names =
                {
                    [2] = "avx512-4vnniw",
                    [3] = "avx512-4fmaps",
                    [4] = "fsrm",
                    [8] = "avx512-vp2intersect",
                    [10] = "md-clear",
                    [14] = "serialize",
                    [16] = "tsx-ldtrk",
                    [19] = "arch-lbr",
                    [22] = "amx-bf16",
                    [23] = "avx512-fp16",
                    [24] = "amx-tile",
                    [25] = "amx-int8",
                    [26] = "spec-ctrl",
                    [27] = "stibp",
                    [28] = "flush-l1d",
                    [29] = "arch-capabilities",
                    [30] = "core-capability",
                    [31] = "ssbd",
                },
        },
    [CPU_WORD_7_1_EAX] =
        {
            .leaf = 0x7,
            .subleaf = 1,
            .reg = 0,
            .leaf_text = "07H.1.EAX",
            .supported = 0x00801c30,
            .names =
                {
                    [4] = "avx-vnni",
                    [5] = "avx512-bf16",
                    [10] = "fzrm",
                    [11] = "fsrs",
                    [12] = "fsrc",
                    [21] = "amx-fp16",
                    [23] = "avx-ifma",
                },
        },
    [CPU_WORD_D_1_EAX] =
        {
            .leaf = 0xd,
            .subleaf = 1,
            .reg = 0,
            .leaf_text = "0DH.1.EAX",
            .supported = 0x0000000f,
            .names =
                {
                    [0] = "xsaveopt",
                    [1] = "xsavec",
                    [2] = "xgetbv1",
                    [3] = "xsaves",
                    [4] = "xfd",
                },
        },
    [CPU_WORD_8000_0001_EDX] =
        {
            .leaf = 0x80000001,
            .subleaf = 0,
            .reg = 3,
            .leaf_text = "80000001H.EDX",
            .supported = 0xee500800,
            .names =
                {
                    [11] = "syscall",
                    [19] = "mp",
                    [20] = "nx",
                    [22] = "mmxext",
                    [25] = "fxsr-opt",
                    [26] = "pdpe1gb",
                    [27] = "rdtscp",
                    [29] = "lm",
                    [30] = "3dnowext",
                    [31] = "3dnow",
                },
        },
    [CPU_WORD_8000_0001_ECX] =
        {
            .leaf = 0x80000001,
            .subleaf = 0,
            .reg = 2,
            .leaf_text = "80000001H.ECX",
            .supported = 0x006309f3,
            .names =
                {
                    [0] = "lahf-lm",       [1] = "cmp-legacy",  [2] = "svm",   [3] = "extapic",
                    [4] = "cr8legacy",     [5] = "abm",         [6] = "sse4a", [7] = "misalignsse",
                    [8] = "3dnowprefetch", [9] = "osvw",        [10] = "ibs",  [11] = "xop",
                    [12] = "skinit",       [13] = "wdt",        [15] = "lwp",  [16] = "fma4",
                    [17] = "tce",          [19] = "nodeid-msr", [21] = "tbm",  [22] = "topoext",
                    [23] = "perfctr-core", [24] = "perfctr-nb",
                },
        },
    [CPU_WORD_8000_0007_EDX] =
        {
            .leaf = 0x80000007,
            .subleaf = 0,
            .reg = 3,
            .leaf_text = "80000007H.EDX",
            .supported = 0x00000100,
            .names =
                {
                    [8] = "invtsc",
                },
        },
    [CPU_WORD_8000_0008_EBX] =
        {
            .leaf = 0x80000008,
            .subleaf = 0,
            .reg = 1,
            .leaf_text = "80000008H.EBX",
            .supported = 0x0500d205,
            .names =
                {
                    [0] = "clzero",
                    [2] = "xsaveerptr",
                    [9] = "wbnoinvd",
                    [12] = "ibpb",
                    [14] = "ibrs",
                    [15] = "amd-stibp",
                    [24] = "amd-ssbd",
                    [25] = "virt-ssbd",
                    [26] = "amd-no-ssb",
                },
        },
    [CPU_WORD_KVM] =
        {
            .leaf = 0x40000001,
            .subleaf = 0,
            .reg = 0,
            .leaf_text = "40000001H.EAX",
            .supported = 0x01007efb,
            .names =
                {
                    [0] = "kvmclock",
                    [1] = "kvm-nopiodelay",
                    [2] = "kvm-mmu",
                    [3] = "kvmclock2",
                    [4] = "kvm-asyncpf",
                    [5] = "kvm-steal-time",
                    [6] = "kvm-pv-eoi",
                    [7] = "kvm-pv-unhalt",
                    [9] = "kvm-pv-tlb-flush",
                    [10] = "kvm-asyncpf-vmexit",
                    [11] = "kvm-pv-ipi",
                    [12] = "kvm-poll-control",
                    [13] = "kvm-pv-sched-yield",
                    [14] = "kvm-asyncpf-int",
                    [15] = "kvm-msi-ext-dest-id",
                    [24] = "kvmclock-stable-bit",
                },
        },
    [CPU_WORD_HYPERV] =
        {
            .leaf = 0x40000003,
            .subleaf = 0,
            .reg = 3,
            .leaf_text = "40000003H",
            .supported = 0x00000003,
            .names =
                {
                    [0] = "hv-crash",
                    [1] = "hv-reset",
                },
        },
};

/* Other names by which users know a feature. */
static const struct {
    const char *alias, *name;
} aliases[] = {
    {"sse3", "pni"},        {"pclmuldq", "pclmulqdq"},
    {"ds_cpl", "ds-cpl"},   {"sse4-1", "sse4.1"},
    {"sse4-2", "sse4.2"},   {"xd", "nx"},
    {"i64", "lm"},          {"ffxsr", "fxsr-opt"},
    {"lahf_lm", "lahf-lm"}, {"kvm_clock", "kvmclock"},
};

static bool same_name(const char *a, const char *b)
{
    for (;; a++, b++) {
        char x = *a == '_' ? '-' : *a, y = *b == '_' ? '-' : *b;
        if (x != y) {
            return false;
        }
        if (!x) {
            return true;
        }
    }
}

bool cpu_feature_find(const char *name, enum cpu_word *word, unsigned *bit)
{
    for (size_t i = 0; i < ARRAY_SIZE(aliases); i++) {
        if (same_name(aliases[i].alias, name)) {
            name = aliases[i].name;
            break;
        }
    }
    for (unsigned w = 0; w < CPU_WORD_COUNT; w++) {
        for (unsigned b = 0; b < 32; b++) {
            if (cpu_words[w].names[b] && same_name(cpu_words[w].names[b], name)) {
                *word = w;
                *bit = b;
                return true;
            }
        }
    }
    return false;
}

const char *cpu_feature_nearest(const char *name)
{
    const char *names[CPU_WORD_COUNT * 32];
    size_t count = 0;

    for (unsigned w = 0; w < CPU_WORD_COUNT; w++) {
        for (unsigned b = 0; b < 32; b++) {
            if (cpu_words[w].names[b]) {
                names[count++] = cpu_words[w].names[b];
            }
        }
    }
    return nearest_name(name, names, count);
}

void cpu_features_add(uint32_t words[CPU_WORD_COUNT], const char *names)
{
    autofree char *copy = xstrdup(names);
    char *rest = NULL;

    for (char *name = strtok_r(copy, " ", &rest); name; name = strtok_r(NULL, " ", &rest)) {
        enum cpu_word word;
        unsigned bit;
        bool found = cpu_feature_find(name, &word, &bit);
        assert(found);
        words[word] |= BIT(bit);
    }
}

void cpu_features_print(FILE *to)
{
    int column = 0;

    for (unsigned w = 0; w < CPU_WORD_COUNT; w++) {
        for (unsigned b = 0; b < 32; b++) {
            const char *name = cpu_words[w].names[b];
            if (!name || !(cpu_words[w].supported >> b & 1)) {
                continue;
            }
            if (column && column + (int)strlen(name) + 1 > 74) {
                fputc('\n', to);
                column = 0;
            }
            column += fprintf(to, "%s%s", column ? " " : "  ", name);
        }
    }
    fputc('\n', to);
}

/* ---- dependencies --------------------------------------------------------------------------- */

static bool has(const uint32_t words[CPU_WORD_COUNT], const char *name)
{
    enum cpu_word word;
    unsigned bit;

    return cpu_feature_find(name, &word, &bit) && cpu_words_have(words, word, bit);
}

static void remove_all(uint32_t words[CPU_WORD_COUNT], const char *names)
{
    uint32_t gone[CPU_WORD_COUNT] = {0};

    cpu_features_add(gone, names);
    for (unsigned w = 0; w < CPU_WORD_COUNT; w++) {
        words[w] &= ~gone[w];
    }
}

void cpu_features_close(uint32_t words[CPU_WORD_COUNT])
{
    /* In order: what an earlier line takes away may be what a later one needs. */
    static const struct {
        const char *needed, *dependents;
    } dependencies[] = {
        {"apic", "x2apic tsc-deadline"},
        {"fxsr", "sse"},
        {"sse", "sse2"},
        {"sse2", "pni ssse3 sse4.1 sse4.2 sse4a pclmulqdq aes sha-ni"},
        {"pae", "nx lm"},
        {"lm", "pcid lahf-lm"},
        {"pcid", "invpcid"},
        {"xsave", "avx pku xsaveopt xsavec xgetbv1 xsaves"},
        {"xsavec", "xsaves"},
        {"avx", "fma f16c avx2 xop fma4 vaes vpclmulqdq"},
        {"avx2", "avx512f avx-vnni avx-ifma"},
        {"avx512f", "avx512dq avx512ifma avx512pf avx512er avx512cd avx512bw avx512vl avx512vbmi "
                    "avx512vbmi2 avx512vnni avx512bitalg avx512-vpopcntdq avx512-4vnniw "
                    "avx512-4fmaps avx512-vp2intersect avx512-fp16 avx512-bf16"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(dependencies); i++) {
        if (!has(words, dependencies[i].needed)) {
            remove_all(words, dependencies[i].dependents);
        }
    }
}
