/* SPDX-License-Identifier: MIT */
/* Hints to the host's CPU. */
#ifndef FERRY_BASE_CPU_H
#define FERRY_BASE_CPU_H

/* In a loop that waits for another CPU. */
static inline void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#endif
}

#endif
