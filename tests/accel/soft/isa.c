/* SPDX-License-Identifier: MIT */
#include "isa.h"

#include <cpuid.h>
#include <stdio.h>
#include <string.h>

#include "accel/cpu_feature.h"
#include "base/range.h"
#include "soft_run.h"

/* Instruction sets that every x86-64 CPU has have no entry; those that this table lacks and
 * `always` lacks are never offered. */
static const struct isa {
    uint16_t set;
    enum cpu_word word;
    unsigned bit;
} isas[] = {
    {ZYDIS_ISA_SET_X87, CPU_WORD_1_EDX, 0},
    {ZYDIS_ISA_SET_CMOV, CPU_WORD_1_EDX, 15},
    {ZYDIS_ISA_SET_FCMOV, CPU_WORD_1_EDX, 15},
    {ZYDIS_ISA_SET_PENTIUMMMX, CPU_WORD_1_EDX, 23},
    {ZYDIS_ISA_SET_FXSAVE, CPU_WORD_1_EDX, 24},
    {ZYDIS_ISA_SET_FXSAVE64, CPU_WORD_1_EDX, 24},
    {ZYDIS_ISA_SET_SSE, CPU_WORD_1_EDX, 25},
    {ZYDIS_ISA_SET_SSEMXCSR, CPU_WORD_1_EDX, 25},
    {ZYDIS_ISA_SET_SSE_PREFETCH, CPU_WORD_1_EDX, 25},
    {ZYDIS_ISA_SET_SSE2, CPU_WORD_1_EDX, 26},
    {ZYDIS_ISA_SET_SSE2MMX, CPU_WORD_1_EDX, 26},
    {ZYDIS_ISA_SET_PAUSE, CPU_WORD_1_EDX, 26},
    {ZYDIS_ISA_SET_CLFSH, CPU_WORD_1_EDX, 19},
    {ZYDIS_ISA_SET_SSE3, CPU_WORD_1_ECX, 0},
    {ZYDIS_ISA_SET_SSE3X87, CPU_WORD_1_ECX, 0},
    {ZYDIS_ISA_SET_PCLMULQDQ, CPU_WORD_1_ECX, 1},
    {ZYDIS_ISA_SET_MONITOR, CPU_WORD_1_ECX, 3},
    {ZYDIS_ISA_SET_SSSE3, CPU_WORD_1_ECX, 9},
    {ZYDIS_ISA_SET_SSSE3MMX, CPU_WORD_1_ECX, 9},
    {ZYDIS_ISA_SET_FMA, CPU_WORD_1_ECX, 12},
    {ZYDIS_ISA_SET_CMPXCHG16B, CPU_WORD_1_ECX, 13},
    {ZYDIS_ISA_SET_SSE4, CPU_WORD_1_ECX, 19},
    {ZYDIS_ISA_SET_SSE42, CPU_WORD_1_ECX, 20},
    {ZYDIS_ISA_SET_MOVBE, CPU_WORD_1_ECX, 22},
    {ZYDIS_ISA_SET_POPCNT, CPU_WORD_1_ECX, 23},
    {ZYDIS_ISA_SET_AES, CPU_WORD_1_ECX, 25},
    {ZYDIS_ISA_SET_AVXAES, CPU_WORD_1_ECX, 25},
    {ZYDIS_ISA_SET_XSAVE, CPU_WORD_1_ECX, 26},
    {ZYDIS_ISA_SET_AVX, CPU_WORD_1_ECX, 28},
    {ZYDIS_ISA_SET_F16C, CPU_WORD_1_ECX, 29},
    {ZYDIS_ISA_SET_RDRAND, CPU_WORD_1_ECX, 30},
    {ZYDIS_ISA_SET_RDWRFSGS, CPU_WORD_7_EBX, 0},
    {ZYDIS_ISA_SET_BMI1, CPU_WORD_7_EBX, 3},
    {ZYDIS_ISA_SET_RTM, CPU_WORD_7_EBX, 11},
    {ZYDIS_ISA_SET_AVX2, CPU_WORD_7_EBX, 5},
    {ZYDIS_ISA_SET_AVX2GATHER, CPU_WORD_7_EBX, 5},
    {ZYDIS_ISA_SET_BMI2, CPU_WORD_7_EBX, 8},
    {ZYDIS_ISA_SET_INVPCID, CPU_WORD_7_EBX, 10},
    {ZYDIS_ISA_SET_RDSEED, CPU_WORD_7_EBX, 18},
    {ZYDIS_ISA_SET_ADOX_ADCX, CPU_WORD_7_EBX, 19},
    {ZYDIS_ISA_SET_SMAP, CPU_WORD_7_EBX, 20},
    {ZYDIS_ISA_SET_CLFLUSHOPT, CPU_WORD_7_EBX, 23},
    {ZYDIS_ISA_SET_CLWB, CPU_WORD_7_EBX, 24},
    {ZYDIS_ISA_SET_SHA, CPU_WORD_7_EBX, 29},
    {ZYDIS_ISA_SET_PKU, CPU_WORD_7_ECX, 3},
    {ZYDIS_ISA_SET_RDPID, CPU_WORD_7_ECX, 22},
    {ZYDIS_ISA_SET_XSAVEOPT, CPU_WORD_D_1_EAX, 0},
    {ZYDIS_ISA_SET_XSAVEC, CPU_WORD_D_1_EAX, 1},
    {ZYDIS_ISA_SET_XSAVES, CPU_WORD_D_1_EAX, 3},
    {ZYDIS_ISA_SET_LAHF, CPU_WORD_8000_0001_ECX, 0},
    {ZYDIS_ISA_SET_LZCNT, CPU_WORD_8000_0001_ECX, 5},
    {ZYDIS_ISA_SET_SSE4A, CPU_WORD_8000_0001_ECX, 6},
    {ZYDIS_ISA_SET_RDTSCP, CPU_WORD_8000_0001_EDX, 27},
    {ZYDIS_ISA_SET_CLZERO, CPU_WORD_8000_0008_EBX, 0},
};

static const uint16_t always[] = {
    ZYDIS_ISA_SET_I86,      ZYDIS_ISA_SET_I186,     ZYDIS_ISA_SET_I286PROTECTED,
    ZYDIS_ISA_SET_I286REAL, ZYDIS_ISA_SET_I386,     ZYDIS_ISA_SET_I486,
    ZYDIS_ISA_SET_I486REAL, ZYDIS_ISA_SET_LONGMODE, ZYDIS_ISA_SET_PENTIUMREAL,
    ZYDIS_ISA_SET_PPRO,     ZYDIS_ISA_SET_FAT_NOP,  ZYDIS_ISA_SET_PREFETCH_NOP,
    ZYDIS_ISA_SET_RDPMC,    ZYDIS_ISA_SET_INVALID,
};

/* Not offered, and yet no #UD: hints that older CPUs take as no operation. */
static bool is_hint(const struct form *form)
{
    switch (form->mnemonic) {
    case ZYDIS_MNEMONIC_ENDBR32:
    case ZYDIS_MNEMONIC_ENDBR64:
    case ZYDIS_MNEMONIC_RDSSPD:
    case ZYDIS_MNEMONIC_RDSSPQ:
    case ZYDIS_MNEMONIC_CLDEMOTE:
    case ZYDIS_MNEMONIC_PREFETCHWT1:
        return true;
    default:
        return form->isa_set == ZYDIS_ISA_SET_MPX;
    }
}

/* What the host cannot be asked, and what tests it instead. */
static const struct {
    uint16_t mnemonic;
    const char *reason;
} exclusions[] = {
    {ZYDIS_MNEMONIC_SYSCALL, "enters the host's kernel (guest: syscall)"},
    {ZYDIS_MNEMONIC_SYSENTER, "enters the host's kernel (guest: syscall)"},
    {ZYDIS_MNEMONIC_SYSRET, "answer depends on the host's vendor (guest: syscall)"},
    {ZYDIS_MNEMONIC_CPUID, "the model's answer is not the host's (accel/cpu_model)"},
    {ZYDIS_MNEMONIC_RDTSC, "time (guest: system)"},
    {ZYDIS_MNEMONIC_RDTSCP, "time (guest: system)"},
    {ZYDIS_MNEMONIC_RDPID, "number of the host's CPU (guest: system)"},
    {ZYDIS_MNEMONIC_RDPMC, "depends on the host's CR4.PCE"},
    {ZYDIS_MNEMONIC_RDRAND, "random (guest: system)"},
    {ZYDIS_MNEMONIC_RDSEED, "random (guest: system)"},
    {ZYDIS_MNEMONIC_XGETBV, "the host's XCR0 has more (guest: xsave)"},
    {ZYDIS_MNEMONIC_VMCALL, "KVM's hypercall; enters the host's hypervisor (guest: system)"},
    {ZYDIS_MNEMONIC_VMMCALL, "KVM's hypercall; enters the host's hypervisor (guest: system)"},
    {ZYDIS_MNEMONIC_SGDT, "Linux emulates it, UMIP (guest: system)"},
    {ZYDIS_MNEMONIC_SIDT, "Linux emulates it, UMIP (guest: system)"},
    {ZYDIS_MNEMONIC_SLDT, "Linux emulates it, UMIP (guest: system)"},
    {ZYDIS_MNEMONIC_SMSW, "Linux emulates it, UMIP (guest: system)"},
    {ZYDIS_MNEMONIC_STR, "Linux emulates it, UMIP (guest: system)"},
};

/* CPUID bits that no instruction of CPL 3 hangs on, and what covers them. */
static const struct {
    enum cpu_word word;
    unsigned bit;
    const char *by;
} covered[] = {
    {CPU_WORD_1_EDX, 1, "guest: v86"},
    {CPU_WORD_1_EDX, 2, "guest: debug"},
    {CPU_WORD_1_EDX, 3, "guest: paging32"},
    {CPU_WORD_1_EDX, 4, "guest: system (RDTSC)"},
    {CPU_WORD_1_EDX, 5, "guest: system (RDMSR)"},
    {CPU_WORD_1_EDX, 6, "guest: paging"},
    {CPU_WORD_1_EDX, 7, "MSRs: guest system"},
    {CPU_WORD_1_EDX, 8, "always there: CMPXCHG8B"},
    {CPU_WORD_1_EDX, 9, "guest: smp"},
    {CPU_WORD_1_EDX, 11, "guest: syscall (SYSENTER)"},
    {CPU_WORD_1_EDX, 12, "MSRs: guest system"},
    {CPU_WORD_1_EDX, 13, "guest: paging"},
    {CPU_WORD_1_EDX, 14, "MSRs: guest system"},
    {CPU_WORD_1_EDX, 16, "MSRs: guest system"},
    {CPU_WORD_1_EDX, 17, "guest: paging32"},
    {CPU_WORD_1_EDX, 27, "a promise about caches: nothing to run"},
    {CPU_WORD_1_EDX, 28, "topology: accel/cpu_model"},
    {CPU_WORD_1_ECX, 17, "guest: paging (PCID)"},
    {CPU_WORD_1_ECX, 21, "guest: system"},
    {CPU_WORD_1_ECX, 24, "guest: system"},
    {CPU_WORD_1_ECX, 31, "says that this is a VM: nothing to run"},
    {CPU_WORD_6_EAX, 2, "a promise about the LAPIC timer: nothing to run"},
    {CPU_WORD_7_EBX, 1, "MSRs: guest system"},
    {CPU_WORD_7_EBX, 6, "x87 images: compared in every x87 form"},
    {CPU_WORD_7_EBX, 7, "guest: paging"},
    {CPU_WORD_7_EBX, 9, "speed of REP MOVSB: string forms"},
    {CPU_WORD_7_EBX, 13, "x87 images: compared in every x87 form"},
    {CPU_WORD_7_ECX, 2, "guest: system (UMIP)"},
    {CPU_WORD_7_ECX, 16, "guest: paging"},
    {CPU_WORD_7_EDX, 4, "speed of REP MOVSB: string forms"},
    {CPU_WORD_D_1_EAX, 2, "guest: xsave (XGETBV 1)"},
    {CPU_WORD_8000_0001_EDX, 11, "guest: syscall"},
    {CPU_WORD_8000_0001_EDX, 20, "guest: paging"},
    {CPU_WORD_8000_0001_EDX, 22, "MMX parts of SSE: MMX forms"},
    {CPU_WORD_8000_0001_EDX, 25, "FXSAVE without x87: FXSAVE forms"},
    {CPU_WORD_8000_0001_EDX, 26, "guest: paging"},
    {CPU_WORD_8000_0001_EDX, 29, "every 64-bit form"},
    {CPU_WORD_8000_0001_ECX, 1, "topology: accel/cpu_model"},
    {CPU_WORD_8000_0001_ECX, 4, "LOCK MOV CR0: guest system"},
    {CPU_WORD_8000_0001_ECX, 7, "MXCSR.MM: LDMXCSR forms"},
    {CPU_WORD_8000_0001_ECX, 8, "PREFETCHW forms"},
    {CPU_WORD_8000_0001_ECX, 22, "topology: accel/cpu_model"},
    {CPU_WORD_8000_0007_EDX, 8, "a promise about the TSC: nothing to run"},
    {CPU_WORD_8000_0008_EBX, 9, "WBNOINVD forms (#GP)"},
};

static const struct isa *isa_find(uint16_t set)
{
    for (unsigned i = 0; i < ARRAY_SIZE(isas); i++) {
        if (isas[i].set == set) {
            return &isas[i];
        }
    }
    return NULL;
}

static bool is_always(uint16_t set)
{
    for (unsigned i = 0; i < ARRAY_SIZE(always); i++) {
        if (always[i] == set) {
            return true;
        }
    }
    return false;
}

static bool soft_has(enum cpu_word word, unsigned bit)
{
    const struct cpu_word_info *w = &cpu_words[word];

    return soft_run_cpuid(w->leaf, w->subleaf, w->reg, bit);
}

static bool host_has(enum cpu_word word, unsigned bit)
{
    const struct cpu_word_info *w = &cpu_words[word];
    uint32_t regs[4] = {0};

    return __get_cpuid_count(w->leaf, w->subleaf, &regs[0], &regs[1], &regs[2], &regs[3]) &&
           (regs[w->reg] >> bit & 1);
}

static void classify(struct form *form)
{
    const struct isa *isa = isa_find(form->isa_set);
    bool is_offered, is_host;

    if (is_hint(form)) {
        return;
    }
    is_offered = is_always(form->isa_set);
    is_host = true;
    if (isa) {
        is_offered = soft_has(isa->word, isa->bit);
        is_host = host_has(isa->word, isa->bit);
    } else if (form->isa_set == ZYDIS_ISA_SET_AMD || form->isa_set == ZYDIS_ISA_SET_AMD3DNOW) {
        /* SYSCALL, SYSRET; PREFETCHW */
        is_offered = form->mnemonic == ZYDIS_MNEMONIC_PREFETCHW ||
                     form->mnemonic == ZYDIS_MNEMONIC_PREFETCH ||
                     form->mnemonic == ZYDIS_MNEMONIC_SYSCALL ||
                     form->mnemonic == ZYDIS_MNEMONIC_SYSRET;
    } else if (form->mnemonic == ZYDIS_MNEMONIC_VMCALL ||
               form->mnemonic == ZYDIS_MNEMONIC_VMMCALL) {
        is_offered = true;
    }
    if (!is_offered) {
        form->expects_undefined = true;
        return;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(exclusions); i++) {
        if (exclusions[i].mnemonic == form->mnemonic) {
            form->exclusion = exclusions[i].reason;
        }
    }
    if (!is_host) {
        form->exclusion = "the host's CPU lacks it";
    }
}

void isa_classify(struct forms *forms)
{
    for (unsigned i = 0; i < forms->count; i++) {
        classify(&forms->form[i]);
    }
}

static unsigned count_forms(const struct forms *forms, const uint8_t *tested, enum cpu_word word,
                            unsigned bit)
{
    unsigned count = 0, last = UINT32_MAX;

    for (unsigned i = 0; i < forms->count; i++) {
        const struct isa *isa = isa_find(forms->form[i].isa_set);
        if (isa && isa->word == word && isa->bit == bit && tested[i] &&
            forms->form[i].number != last) {
            last = forms->form[i].number;
            count++;
        }
    }
    return count;
}

bool isa_print(const struct forms *forms, const uint8_t *tested)
{
    bool ok = true;

    printf("CPUID bits offered and what tests them:\n");
    for (unsigned w = 0; w < CPU_WORD_KVM; w++) {
        for (unsigned bit = 0; bit < 32; bit++) {
            const char *name = cpu_words[w].names[bit], *by = NULL;
            unsigned count;

            if (!soft_has(w, bit)) {
                continue;
            }
            count = count_forms(forms, tested, w, bit);
            for (unsigned i = 0; i < ARRAY_SIZE(covered) && !count; i++) {
                if (covered[i].word == w && covered[i].bit == bit) {
                    by = covered[i].by;
                }
            }
            for (unsigned i = 0; i < forms->count && !count && !by; i++) {
                const struct isa *isa = isa_find(forms->form[i].isa_set);
                if (isa && isa->word == w && isa->bit == bit) {
                    by = forms->form[i].exclusion;
                }
            }
            if (w == CPU_WORD_8000_0001_EDX && !name) {
                by = "AMD's copy of 01H.EDX";
            }
            printf("  %-8s %2u %-16s ", cpu_words[w].leaf_text, bit, name ? name : "?");
            if (count) {
                printf("%u forms\n", count);
            } else {
                printf("%s\n", by ? by : "NOTHING");
                ok = ok && by;
            }
        }
    }
    return ok;
}
