/* SPDX-License-Identifier: MIT */
/* System instructions: which function runs which, and what ends a block (SDM volume 3, 8.3: the
 * serialising ones; and whatever changes mode, translation, interrupts or the place). */
#include "accel/soft/lower.h"
#include "accel/soft/op_system.h"

/* ---- forms ------------------------------------------------------------------------------------ */

static soft_slow_fn *slow(uintptr_t arg)
{
    return (soft_slow_fn *)arg; /* NOLINT(performance-no-int-to-ptr): as the tables have it */
}

/* The register operand, if the first one is one. */
static void take_register(struct soft_lower *l)
{
    l->op->aux = (uint16_t)l->width;
    if (l->insn->operand_count_visible && soft_is_register(soft_operand(l, 0))) {
        l->op->dst = soft_gpr_offset(soft_operand(l, 0)->reg.value);
    }
}

static void lower_call(struct soft_lower *l, uintptr_t arg)
{
    take_register(l);
    soft_lower_call(l, slow(arg));
}

static void lower_call_end(struct soft_lower *l, uintptr_t arg)
{
    take_register(l);
    soft_lower_call_end(l, slow(arg));
}

/* Operations of their own. */
static void lower_op(struct soft_lower *l, uintptr_t arg)
{
    l->op->fn = (soft_op_fn *)arg; /* NOLINT(performance-no-int-to-ptr) */
}

static void lower_ud(struct soft_lower *l, uintptr_t arg)
{
    soft_lower_raise(l, EXC_UD);
}

/* In 64-bit mode alone. */
static void lower_64(struct soft_lower *l, uintptr_t arg)
{
    if (l->mode & SOFT_MODE_CODE64) {
        lower_call(l, arg);
    }
}

/* SYSRET and SYSEXIT: REX.W decides, the operand-size prefix does not. */
static void lower_return(struct soft_lower *l, uintptr_t arg)
{
    soft_lower_call_end(l, slow(arg));
    l->op->aux = l->mode & SOFT_MODE_CODE64 && l->insn->raw.rex.W ? 8 : 4;
}

static void lower_lmsw(struct soft_lower *l, uintptr_t arg)
{
    lower_call_end(l, (uintptr_t)(l->has_memory ? soft_lmsw_memory : soft_lmsw_register));
}

static void lower_smsw(struct soft_lower *l, uintptr_t arg)
{
    lower_call(l, (uintptr_t)(l->has_memory ? soft_smsw_memory : soft_smsw_register));
}

/* arg: 0 GDTR, 1 IDTR */
static void lower_load_table(struct soft_lower *l, uintptr_t arg)
{
    lower_call_end(l, (uintptr_t)soft_load_table);
    l->op->dst = (uint8_t)arg;
}

static void lower_store_table(struct soft_lower *l, uintptr_t arg)
{
    lower_call(l, (uintptr_t)soft_store_table);
    l->op->dst = (uint8_t)arg;
}

static void lower_read_base(struct soft_lower *l, uintptr_t arg)
{
    lower_64(l, (uintptr_t)soft_read_base);
    l->op->src = (uint8_t)arg;
}

static void lower_write_base(struct soft_lower *l, uintptr_t arg)
{
    lower_64(l, (uintptr_t)soft_write_base);
    l->op->src = (uint8_t)arg;
}

/* ---- MOV with control and debug registers ------------------------------------------------------- */

static bool is_control(const ZydisDecodedOperand *operand)
{
    return ZydisRegisterGetClass(operand->reg.value) == ZYDIS_REGCLASS_CONTROL;
}

static bool is_debug(const ZydisDecodedOperand *operand)
{
    return ZydisRegisterGetClass(operand->reg.value) == ZYDIS_REGCLASS_DEBUG;
}

static bool has_control(const struct soft_lower *l, unsigned number)
{
    return number == 0 || (number >= 2 && number <= 4) ||
           (number == 8 && l->mode & SOFT_MODE_CODE64);
}

/* Reading leaves the block alone. A guest that writes CR2 expects nothing to change. */
void soft_lower_mov_control(struct soft_lower *l)
{
    bool writes = is_control(soft_operand(l, 0)) || is_debug(soft_operand(l, 0));
    const ZydisDecodedOperand *special = soft_operand(l, writes ? 0 : 1);
    const ZydisDecodedOperand *general = soft_operand(l, writes ? 1 : 0);
    unsigned number = soft_reg_number(special->reg.value);

    if (is_control(special) ? !has_control(l, number) : number > 7) {
        soft_lower_raise(l, EXC_UD);
        return;
    }
    l->op->dst = soft_gpr_offset(general->reg.value);
    l->op->aux = (uint16_t)number;
    if (writes) {
        soft_lower_call_end(l, is_control(special) ? soft_mov_to_cr : soft_mov_to_dr);
    } else {
        soft_lower_call(l, is_control(special) ? soft_mov_from_cr : soft_mov_from_dr);
    }
}

/* ---- the table -------------------------------------------------------------------------------- */

#define ROW(name, feature, fn, arg)                                                                \
    {                                                                                              \
        ZYDIS_MNEMONIC_##name, feature, fn, (uintptr_t)(arg)                                       \
    }

const struct soft_lowering soft_lowering_system[] = {
    /* op_control.c */
    ROW(CLTS, SOFT_ALWAYS, lower_call_end, soft_clts),
    ROW(LMSW, SOFT_ALWAYS, lower_lmsw, 0),
    ROW(SMSW, SOFT_ALWAYS, lower_smsw, 0),
    ROW(LGDT, SOFT_ALWAYS, lower_load_table, 0),
    ROW(LIDT, SOFT_ALWAYS, lower_load_table, 1),
    ROW(SGDT, SOFT_ALWAYS, lower_store_table, 0),
    ROW(SIDT, SOFT_ALWAYS, lower_store_table, 1),
    ROW(INVLPG, SOFT_ALWAYS, lower_call_end, soft_invlpg),
    ROW(INVPCID, SOFT_IF(invpcid), lower_call_end, soft_invpcid),
    ROW(INVD, SOFT_ALWAYS, lower_call_end, soft_privileged_nothing),
    ROW(WBINVD, SOFT_ALWAYS, lower_call_end, soft_privileged_nothing),
    ROW(XGETBV, SOFT_IF(xsave), lower_call, soft_xgetbv),
    ROW(XSETBV, SOFT_IF(xsave), lower_call_end, soft_xsetbv),
    /* op_system.c */
    ROW(CPUID, SOFT_ALWAYS, lower_call_end, soft_op_cpuid),
    ROW(RDTSC, SOFT_IF(tsc), lower_call, soft_op_rdtsc),
    ROW(RDTSCP, SOFT_IF(rdtscp), lower_call, soft_op_rdtscp),
    ROW(RDPID, SOFT_IF(rdpid), lower_call, soft_op_rdpid),
    ROW(RDPMC, SOFT_ALWAYS, lower_call, soft_op_rdpmc),
    ROW(RDMSR, SOFT_IF(msr), lower_call, soft_op_rdmsr),
    ROW(WRMSR, SOFT_IF(msr), lower_call_end, soft_op_wrmsr),
    ROW(HLT, SOFT_ALWAYS, lower_call_end, soft_op_hlt),
    ROW(PAUSE, SOFT_ALWAYS, lower_call, soft_op_pause),
    ROW(RSM, SOFT_ALWAYS, lower_call_end, soft_op_rsm),
    ROW(RDRAND, SOFT_IF(rdrand), lower_call, soft_op_rdrand),
    ROW(RDSEED, SOFT_IF(rdseed), lower_call, soft_op_rdseed),
    ROW(VMCALL, SOFT_ALWAYS, lower_call_end, soft_hypercall),
    ROW(VMMCALL, SOFT_ALWAYS, lower_call_end, soft_hypercall),
    ROW(CLFLUSH, SOFT_IF(clflush), lower_call, soft_flush_line),
    ROW(CLFLUSHOPT, SOFT_IF(clflushopt), lower_call, soft_flush_line),
    ROW(CLWB, SOFT_IF(clwb), lower_call, soft_flush_line),
    ROW(MFENCE, SOFT_IF(sse2), lower_op, soft_op_mfence),
    ROW(LFENCE, SOFT_IF(sse2), lower_op, soft_op_hint),
    ROW(SFENCE, SOFT_IF(sse), lower_op, soft_op_sfence),
    ROW(PREFETCH, SOFT_ALWAYS, lower_op, soft_op_hint),
    ROW(PREFETCHW, SOFT_ALWAYS, lower_op, soft_op_hint),
    ROW(PREFETCHWT1, SOFT_ALWAYS, lower_op, soft_op_hint),
    ROW(PREFETCHNTA, SOFT_ALWAYS, lower_op, soft_op_hint),
    ROW(PREFETCHT0, SOFT_ALWAYS, lower_op, soft_op_hint),
    ROW(PREFETCHT1, SOFT_ALWAYS, lower_op, soft_op_hint),
    ROW(PREFETCHT2, SOFT_ALWAYS, lower_op, soft_op_hint),
    ROW(STAC, SOFT_IF(smap), lower_op, soft_op_stac),
    ROW(CLAC, SOFT_IF(smap), lower_op, soft_op_clac),
    ROW(UD0, SOFT_ALWAYS, lower_ud, 0),
    ROW(UD1, SOFT_ALWAYS, lower_ud, 0),
    ROW(UD2, SOFT_ALWAYS, lower_ud, 0),
    ROW(MONITOR, SOFT_ALWAYS, lower_ud, 0),
    ROW(MWAIT, SOFT_ALWAYS, lower_ud, 0),
    /* op_syscall.c */
    ROW(SYSCALL, SOFT_IF(syscall), lower_call_end, soft_syscall),
    ROW(SYSRET, SOFT_IF(syscall), lower_return, soft_sysret),
    ROW(SYSENTER, SOFT_IF(sep), lower_call_end, soft_sysenter),
    ROW(SYSEXIT, SOFT_IF(sep), lower_return, soft_sysexit),
    ROW(SWAPGS, SOFT_ALWAYS, lower_64, soft_swapgs),
    ROW(RDFSBASE, SOFT_IF(fsgsbase), lower_read_base, X86_FS),
    ROW(RDGSBASE, SOFT_IF(fsgsbase), lower_read_base, X86_GS),
    ROW(WRFSBASE, SOFT_IF(fsgsbase), lower_write_base, X86_FS),
    ROW(WRGSBASE, SOFT_IF(fsgsbase), lower_write_base, X86_GS),
    {0},
};
