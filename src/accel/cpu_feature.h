/* SPDX-License-Identifier: MIT */
/*
 * The bits of CPUID that are features, by the names that QEMU's -cpu knows them by.
 *
 * A word is one register of one leaf. Names are those of QEMU 7.2; '_' and '-' are the same in what
 * users type, and a few features have a second name.
 */
#ifndef FERRY_ACCEL_CPU_FEATURE_H
#define FERRY_ACCEL_CPU_FEATURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum cpu_word {
    CPU_WORD_1_EDX,
    CPU_WORD_1_ECX,
    CPU_WORD_6_EAX,
    CPU_WORD_7_EBX,
    CPU_WORD_7_ECX,
    CPU_WORD_7_EDX,
    CPU_WORD_7_1_EAX,
    CPU_WORD_D_1_EAX,
    CPU_WORD_8000_0001_EDX,
    CPU_WORD_8000_0001_ECX,
    CPU_WORD_8000_0007_EDX,
    CPU_WORD_8000_0008_EBX,
    CPU_WORD_KVM,    /* 0x40000001 EAX */
    CPU_WORD_HYPERV, /* ferry's own numbering of the parts of Hyper-V's interface */
    CPU_WORD_COUNT,
};

/* Bits of CPU_WORD_HYPERV. */
enum { HYPERV_CRASH = 0, HYPERV_RESET = 1 };

struct cpu_word_info {
    uint32_t leaf, subleaf;
    unsigned reg; /* 0: EAX, 1: EBX, 2: ECX, 3: EDX */
    const char *leaf_text;
    /* Bits that ferry can offer: the state behind them is got and set, nothing else is missing. */
    uint32_t supported;
    const char *names[32];
};

extern const struct cpu_word_info cpu_words[CPU_WORD_COUNT];

/* Finds a feature by its name. False: there is none. */
bool cpu_feature_find(const char *name, enum cpu_word *word, unsigned *bit);
/* The name nearest to it, or NULL. */
const char *cpu_feature_nearest(const char *name);
/* Adds the features of a list separated by spaces (of our own tables) to words. */
void cpu_features_add(uint32_t words[CPU_WORD_COUNT], const char *names);
/* Takes away what makes no sense without another feature that is missing (AVX without XSAVE). */
void cpu_features_close(uint32_t words[CPU_WORD_COUNT]);
void cpu_features_print(FILE *to);

static inline bool cpu_words_have(const uint32_t words[CPU_WORD_COUNT], enum cpu_word word,
                                  unsigned bit)
{
    return words[word] >> bit & 1;
}

#endif
