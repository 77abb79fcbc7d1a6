/* SPDX-License-Identifier: MIT */
/*
 * What one instruction starts from and what it leaves, the same for the host's CPU and the soft one.
 *
 * Both see the same linear addresses: the host by mmap(), the soft CPU by its page tables.
 *
 *     CODE  2 pages  int3, and the instruction somewhere between
 *     DATA  2 pages  read and write; nothing before and behind
 *     RO    1 page   read only; nothing before and behind
 *     STACK 2 pages  read and write; nothing before and behind
 */
#ifndef FERRY_TESTS_SOFT_MACHINE_STATE_H
#define FERRY_TESTS_SOFT_MACHINE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE     0x1000u
#define CODE_AT  0x10000000u
#define DATA_AT  0x20001000u
#define RO_AT    0x20011000u
#define STACK_AT 0x30001000u

/* The pages as one image. */
enum { IMAGE_DATA = 0, IMAGE_RO = 2 * PAGE, IMAGE_STACK = 3 * PAGE, IMAGE_SIZE = 5 * PAGE };

#define SELECTOR_CODE32 0x23u /* as Linux has them; the soft CPU's GDT is the same */
#define SELECTOR_DATA   0x2bu
#define SELECTOR_CODE64 0x33u

/* XSAVE area in standard form: x87, SSE, AVX (SDM volume 1, 13.4). */
enum {
    AREA_FCW = 0,
    AREA_FSW = 2,
    AREA_FTW = 4,
    AREA_FOP = 6,
    AREA_FIP = 8,
    AREA_FDP = 16,
    AREA_MXCSR = 24,
    AREA_ST = 32,
    AREA_XMM = 160,
    AREA_BV = 512,
    AREA_YMM = 576,
    AREA_SIZE = 832,
};

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI };

struct machine_state {
    uint64_t gpr[16];
    uint64_t rip, rflags;
    uint64_t fs_base, gs_base;
    uint16_t cs, ss, ds, es, fs, gs;
    uint8_t area[AREA_SIZE];
};

struct run_input {
    struct machine_state state;
    uint8_t bytes[15]; /* of the instruction at state.rip; immediates and displacement filled in */
    uint8_t length;
    uint8_t image[IMAGE_SIZE];
};

#define VECTOR_TIMEOUT 0xff
#define VECTOR_ENGINE                                                                              \
    0xfe /* the soft CPU stopped for another reason; error: enum vcpu_exit_reason */

struct run_output {
    struct machine_state state; /* at the exception; an int3 is how a run without a fault ends */
    uint8_t vector;
    uint32_t error;
    uint64_t cr2; /* #PF only */
    uint8_t image[IMAGE_SIZE];
};

#endif
