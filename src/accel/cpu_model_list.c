/* SPDX-License-Identifier: MIT */
/*
 * The CPU models, under QEMU's names: what -cpu NAME gives on top of nothing. Families, models,
 * steppings and features are those of the processors (Intel SDM volume 2, AMD PPR 17h and 19h), less
 * what ferry does not support (cpu_feature.c).
 */
#include <stddef.h>

#include "accel/cpu_model_internal.h"

#define BASE                                                                                       \
    "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse "    \
    "sse2 "                                                                                        \
    "syscall nx lm "
#define NEHALEM      "vme pni ssse3 cx16 sse4.1 sse4.2 popcnt lahf-lm "
#define WESTMERE     NEHALEM "aes pclmulqdq arat "
#define SANDY_BRIDGE WESTMERE "avx xsave xsaveopt x2apic tsc-deadline rdtscp "
#define HASWELL                                                                                    \
    SANDY_BRIDGE "f16c rdrand movbe pcid fma fsgsbase bmi1 avx2 smep bmi2 erms invpcid abm "
#define SKYLAKE                                                                                    \
    HASWELL "adx rdseed smap clwb clflushopt 3dnowprefetch pdpe1gb xsavec xgetbv1 "                \
            "avx512f avx512dq avx512bw avx512cd avx512vl "
#define TSX "hle rtm "
#define EPYC                                                                                       \
    "vme pni pclmulqdq ssse3 fma cx16 sse4.1 sse4.2 movbe popcnt aes xsave avx f16c rdrand arat "  \
    "fsgsbase bmi1 avx2 smep bmi2 rdseed adx smap clflushopt sha-ni xsaveopt xsavec xgetbv1 "      \
    "mmxext fxsr-opt pdpe1gb rdtscp lahf-lm cr8legacy abm sse4a misalignsse 3dnowprefetch "        \
    "topoext "
#define EPYC_ROME  EPYC "umip rdpid clwb clzero xsaveerptr wbnoinvd ibpb amd-stibp "
#define EPYC_MILAN EPYC_ROME "pcid invpcid erms pku fsrm vaes vpclmulqdq ibrs amd-ssbd "

#define HOST(model_name, text)                                                                     \
    {                                                                                              \
        .name = model_name, .description = text, .is_host = true                                   \
    }
#define MODEL(model_name, maker, f, m, s, text, brand_text, list)                                  \
    {                                                                                              \
        .name = model_name, .description = text, .vendor = CPU_VENDOR_##maker, .family = f,        \
        .model = m, .stepping = s, .brand = brand_text, .features = list                           \
    }

const struct cpu_definition cpu_definitions[] = {
    HOST("host", "the host's processor, as far as the accelerator has it"),
    HOST("max", "all that the accelerator supports"),
    MODEL("qemu64", AMD, 15, 107, 1, "a plain 64-bit processor", "ferry virtual CPU 64-bit",
          BASE "pni cx16 lahf-lm"),
    MODEL("kvm64", INTEL, 15, 6, 1, "a plain 64-bit processor, as Intel's",
          "Common 64-bit virtual CPU", BASE "vme pni cx16"),
    MODEL("Nehalem", INTEL, 6, 26, 3, "Intel Core i7 9xx (Nehalem)",
          "Intel Core i7 9xx (Nehalem Class Core i7)", BASE NEHALEM),
    MODEL("Westmere", INTEL, 6, 44, 1, "Intel Xeon E56xx/L56xx/X56xx (Westmere)",
          "Westmere E56xx/L56xx/X56xx (Nehalem-C)", BASE WESTMERE),
    MODEL("SandyBridge", INTEL, 6, 42, 1, "Intel Xeon E312xx (Sandy Bridge)",
          "Intel Xeon E312xx (Sandy Bridge)", BASE SANDY_BRIDGE),
    MODEL("Haswell", INTEL, 6, 60, 4, "Intel Core Processor (Haswell)",
          "Intel Core Processor (Haswell)", BASE HASWELL TSX),
    MODEL("Haswell-noTSX", INTEL, 6, 60, 1, "Intel Core Processor (Haswell, no TSX)",
          "Intel Core Processor (Haswell, no TSX)", BASE HASWELL),
    MODEL("Skylake-Server", INTEL, 6, 85, 4, "Intel Xeon Processor (Skylake)",
          "Intel Xeon Processor (Skylake)", BASE SKYLAKE TSX),
    MODEL("Skylake-Server-noTSX-IBRS", INTEL, 6, 85, 4,
          "Intel Xeon Processor (Skylake, IBRS, no TSX)",
          "Intel Xeon Processor (Skylake, IBRS, no TSX)", BASE SKYLAKE "spec-ctrl"),
    MODEL("EPYC", AMD, 23, 1, 2, "AMD EPYC Processor", "AMD EPYC Processor", BASE EPYC),
    MODEL("EPYC-Rome", AMD, 23, 49, 0, "AMD EPYC-Rome Processor", "AMD EPYC-Rome Processor",
          BASE EPYC_ROME),
    MODEL("EPYC-Milan", AMD, 25, 1, 1, "AMD EPYC-Milan Processor", "AMD EPYC-Milan Processor",
          BASE EPYC_MILAN),
    {.name = NULL},
};

void cpu_models_print(FILE *to)
{
    fprintf(to, "Available CPUs:\n");
    for (const struct cpu_definition *d = cpu_definitions; d->name; d++) {
        fprintf(to, "x86 %-26s %s\n", d->name, d->description);
    }
    fprintf(to, "\nRecognized CPUID flags:\n");
    cpu_features_print(to);
}
