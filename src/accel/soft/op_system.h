/* SPDX-License-Identifier: MIT */
/*
 * System instructions: what lower_system.c hands out. All are slow functions (op.h) unless they say
 * otherwise; dst is the byte offset of a register operand, aux its size in bytes or a number.
 */
#ifndef FERRY_ACCEL_SOFT_OP_SYSTEM_H
#define FERRY_ACCEL_SOFT_OP_SYSTEM_H

#include "accel/soft/op.h"

/* ---- op_control.c: aux of MOV is the number of the control or debug register -------------------- */
soft_slow_fn soft_mov_from_cr, soft_mov_to_cr, soft_mov_from_dr, soft_mov_to_dr;
soft_slow_fn soft_clts, soft_lmsw_register, soft_lmsw_memory;
soft_slow_fn soft_smsw_register, soft_smsw_memory;
/* aux: operand size; dst: 0 GDTR, 1 IDTR */
soft_slow_fn soft_load_table, soft_store_table;
soft_slow_fn soft_invlpg, soft_invpcid, soft_privileged_nothing;
soft_slow_fn soft_xgetbv, soft_xsetbv;

/* ---- op_system.c ---- */
soft_slow_fn soft_op_cpuid, soft_op_rdtsc, soft_op_rdtscp, soft_op_rdpid, soft_op_rdpmc;
soft_slow_fn soft_op_rdmsr, soft_op_wrmsr, soft_op_hlt, soft_op_pause, soft_op_rsm;
soft_slow_fn soft_op_rdrand, soft_op_rdseed, soft_hypercall, soft_flush_line;
soft_op_fn soft_op_mfence, soft_op_sfence, soft_op_hint, soft_op_stac, soft_op_clac;

/* ---- op_syscall.c: aux of the returns: 8 with REX.W, else 4 ---- */
soft_slow_fn soft_syscall, soft_sysret, soft_sysenter, soft_sysexit;
/* dst: register; src: X86_FS or X86_GS; aux: operand size */
soft_slow_fn soft_swapgs, soft_read_base, soft_write_base;

/* #GP(0) unless CPL is 0. */
static inline void soft_require_cpl0(struct soft_cpu *cpu)
{
    if (cpu->cpl != 0) {
        soft_raise(cpu, EXC_GP, 0);
    }
}

#endif
