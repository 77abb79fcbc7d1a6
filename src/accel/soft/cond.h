/* SPDX-License-Identifier: MIT */
/*
 * The sixteen conditions of Jcc, SETcc and CMOVcc (SDM volume 1, appendix B), asked of the status
 * flags as soft_cpu.status has them. The number is the low nibble of the opcode.
 */
#ifndef FERRY_ACCEL_SOFT_COND_H
#define FERRY_ACCEL_SOFT_COND_H

#include "accel/soft/soft.h"

static inline bool soft_cond_o(uint32_t status)
{
    return status & SOFT_OF;
}
static inline bool soft_cond_b(uint32_t status)
{
    return status & SOFT_CF;
}
static inline bool soft_cond_z(uint32_t status)
{
    return status & SOFT_ZF;
}
static inline bool soft_cond_be(uint32_t status)
{
    return status & (SOFT_CF | SOFT_ZF);
}
static inline bool soft_cond_s(uint32_t status)
{
    return status & SOFT_SF;
}
static inline bool soft_cond_p(uint32_t status)
{
    return status & SOFT_PF;
}
static inline bool soft_cond_l(uint32_t status)
{
    /* SF (bit 15) differs from OF (bit 0). */
    return ((status >> 15) ^ status) & 1;
}
static inline bool soft_cond_le(uint32_t status)
{
    /* One test: SF != OF moved next to ZF. */
    return (((status >> 15) ^ status) & 1) | (status & SOFT_ZF);
}

static inline bool soft_cond_no(uint32_t status)
{
    return !soft_cond_o(status);
}
static inline bool soft_cond_nb(uint32_t status)
{
    return !soft_cond_b(status);
}
static inline bool soft_cond_nz(uint32_t status)
{
    return !soft_cond_z(status);
}
static inline bool soft_cond_nbe(uint32_t status)
{
    return !soft_cond_be(status);
}
static inline bool soft_cond_ns(uint32_t status)
{
    return !soft_cond_s(status);
}
static inline bool soft_cond_np(uint32_t status)
{
    return !soft_cond_p(status);
}
static inline bool soft_cond_nl(uint32_t status)
{
    return !soft_cond_l(status);
}
static inline bool soft_cond_nle(uint32_t status)
{
    return !soft_cond_le(status);
}

/* X(name, cc) for each: to make one handler per condition. */
#define SOFT_EACH_COND(X)                                                                          \
    X(o, 0x0)                                                                                      \
    X(no, 0x1)                                                                                     \
    X(b, 0x2)                                                                                      \
    X(nb, 0x3)                                                                                     \
    X(z, 0x4)                                                                                      \
    X(nz, 0x5)                                                                                     \
    X(be, 0x6)                                                                                     \
    X(nbe, 0x7)                                                                                    \
    X(s, 0x8)                                                                                      \
    X(ns, 0x9)                                                                                     \
    X(p, 0xa)                                                                                      \
    X(np, 0xb)                                                                                     \
    X(l, 0xc)                                                                                      \
    X(nl, 0xd)                                                                                     \
    X(le, 0xe)                                                                                     \
    X(nle, 0xf)

/* cc at run time (only its low four bits count), or a constant. */
static inline bool soft_cond(uint32_t status, unsigned cc)
{
    bool holds = false;

    switch ((cc >> 1) & 7) {
    case 0:
        holds = soft_cond_o(status);
        break;
    case 1:
        holds = soft_cond_b(status);
        break;
    case 2:
        holds = soft_cond_z(status);
        break;
    case 3:
        holds = soft_cond_be(status);
        break;
    case 4:
        holds = soft_cond_s(status);
        break;
    case 5:
        holds = soft_cond_p(status);
        break;
    case 6:
        holds = soft_cond_l(status);
        break;
    default:
        holds = soft_cond_le(status);
        break;
    }
    return holds ^ (cc & 1);
}

#endif
