/* SPDX-License-Identifier: MIT */
/*
 * LOCK forms, and XCHG, XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B with and without LOCK (SDM volume 2;
 * volume 3, 8.1.2). A locked access is the host's own on guest memory; what has no single host
 * address comes as a copy while every other vCPU is held (soft_locked_begin()), on which the same
 * instruction does as well. XCHG with memory is always locked.
 */
#include "accel/soft/integer.h"

#define LOCKED_INSN "lock "
#define PLAIN_INSN  ""

/* ---- ADD, OR, ADC, SBB, AND, SUB, XOR, INC, DEC, NEG, NOT ------------------------------------- */

#define LOCKED_ALU(before, insn, bits, start, value)                                               \
    do {                                                                                           \
        uint32_t status = start;                                                                   \
        __asm__ volatile(before "lock " insn SOFT_SUFFIX_##bits " %[y], %[x]" SOFT_FLAGS_SAVE      \
                         : [x] "+m"(SOFT_MEM(bits, p)), "+&a"(status)                              \
                         : [y] "r"((uint##bits##_t)(value))                                        \
                         : "cc", "memory");                                                        \
        cpu->status = status;                                                                      \
    } while (0);
#define LOCKED_UNARY(before, insn, bits, start)                                                    \
    do {                                                                                           \
        uint32_t status = start;                                                                   \
        __asm__ volatile(before "lock " insn SOFT_SUFFIX_##bits " %[x]" SOFT_FLAGS_SAVE            \
                         : [x] "+m"(SOFT_MEM(bits, p)), "+&a"(status)                              \
                         :                                                                         \
                         : "cc", "memory");                                                        \
        cpu->status = status;                                                                      \
    } while (0);
#define LOCKED_NOT(bits)                                                                           \
    __asm__ volatile("lock not" SOFT_SUFFIX_##bits " %[x]"                                         \
                     : [x] "+m"(SOFT_MEM(bits, p))                                                 \
                     :                                                                             \
                     : "memory");

#define LOCKED_ALU_HANDLERS(name, before, insn, bits, start)                                       \
    SOFT_RMW_HANDLERS_X(name##bits##_mr, locked, bits,                                             \
                        LOCKED_ALU(before, insn, bits, start, SOFT_REG(bits, op->src)))            \
    SOFT_RMW_HANDLERS_X(name##bits##_mi, locked, bits,                                             \
                        LOCKED_ALU(before, insn, bits, start, op->imm))
#define LOCKED_UNARY_HANDLERS(name, before, insn, bits, start)                                     \
    SOFT_RMW_HANDLERS_X(name##bits##_m, locked, bits, LOCKED_UNARY(before, insn, bits, start))
#define EACH_SIZE(X, ...)                                                                          \
    X(__VA_ARGS__, 8)                                                                              \
    X(__VA_ARGS__, 16)                                                                             \
    X(__VA_ARGS__, 32)                                                                             \
    X(__VA_ARGS__, 64)
#define ALU_ARITH(name, insn, bits) LOCKED_ALU_HANDLERS(name, "", insn, bits, 0)
#define ALU_CARRY(name, insn, bits)                                                                \
    LOCKED_ALU_HANDLERS(name, SOFT_CARRY_LOAD, insn, bits, cpu->status)
#define UNARY_ARITH(name, insn, bits) LOCKED_UNARY_HANDLERS(name, "", insn, bits, 0)
#define UNARY_CARRY(name, insn, bits)                                                              \
    LOCKED_UNARY_HANDLERS(name, SOFT_CARRY_LOAD, insn, bits, cpu->status)
#define UNARY_NONE(name, bits) SOFT_RMW_HANDLERS_X(name##bits##_m, locked, bits, LOCKED_NOT(bits))

EACH_SIZE(ALU_ARITH, add, "add")
EACH_SIZE(ALU_ARITH, or, "or")
EACH_SIZE(ALU_CARRY, adc, "adc")
EACH_SIZE(ALU_CARRY, sbb, "sbb")
EACH_SIZE(ALU_ARITH, and, "and")
EACH_SIZE(ALU_ARITH, sub, "sub")
EACH_SIZE(ALU_ARITH, xor, "xor")
EACH_SIZE(UNARY_CARRY, inc, "inc")
EACH_SIZE(UNARY_CARRY, dec, "dec")
EACH_SIZE(UNARY_ARITH, neg, "neg")
EACH_SIZE(UNARY_NONE, not )

#define LOCKED_ROW(name, form)                                                                     \
    {                                                                                              \
        {name##8##form##_x, name##8##form##_g}, {name##16##form##_x, name##16##form##_g},          \
            {name##32##form##_x, name##32##form##_g},                                              \
        {                                                                                          \
            name##64##form##_x, name##64##form##_g                                                 \
        }                                                                                          \
    }
const soft_locked_handlers soft_locked_alu_mr[ALU_COUNT] = {
    [ALU_ADD] = LOCKED_ROW(add, _mr), [ALU_OR] = LOCKED_ROW(or, _mr),
    [ALU_ADC] = LOCKED_ROW(adc, _mr), [ALU_SBB] = LOCKED_ROW(sbb, _mr),
    [ALU_AND] = LOCKED_ROW(and, _mr), [ALU_SUB] = LOCKED_ROW(sub, _mr),
    [ALU_XOR] = LOCKED_ROW(xor, _mr),
};
const soft_locked_handlers soft_locked_alu_mi[ALU_COUNT] = {
    [ALU_ADD] = LOCKED_ROW(add, _mi), [ALU_OR] = LOCKED_ROW(or, _mi),
    [ALU_ADC] = LOCKED_ROW(adc, _mi), [ALU_SBB] = LOCKED_ROW(sbb, _mi),
    [ALU_AND] = LOCKED_ROW(and, _mi), [ALU_SUB] = LOCKED_ROW(sub, _mi),
    [ALU_XOR] = LOCKED_ROW(xor, _mi),
};
const soft_locked_handlers soft_locked_unary[UNARY_COUNT] = {
    [UNARY_INC] = LOCKED_ROW(inc, _m),
    [UNARY_DEC] = LOCKED_ROW(dec, _m),
    [UNARY_NEG] = LOCKED_ROW(neg, _m),
    [UNARY_NOT] = LOCKED_ROW(not, _m),
};

/* ---- XCHG, XADD ------------------------------------------------------------------------------ */

#define XCHG_HANDLERS(bits)                                                                        \
    SOFT_HANDLER(xchg##bits##_rr)                                                                  \
    {                                                                                              \
        uint##bits##_t a = soft_reg##bits(cpu, op->dst), b = soft_reg##bits(cpu, op->src);         \
                                                                                                   \
        soft_set_reg##bits(cpu, op->dst, b);                                                       \
        soft_set_reg##bits(cpu, op->src, a);                                                       \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    SOFT_RMW_HANDLERS_X(xchg##bits##_m, locked, bits,                                              \
                        uint##bits##_t value = soft_reg##bits(cpu, op->src);                       \
                        __asm__ volatile("xchg %[y], %[x]"                                         \
                                         : [x] "+m"(SOFT_MEM(bits, p)), [y] "+r"(value)            \
                                         :                                                         \
                                         : "memory");                                              \
                        soft_set_reg##bits(cpu, op->src, value);)
XCHG_HANDLERS(8)
XCHG_HANDLERS(16)
XCHG_HANDLERS(32)
XCHG_HANDLERS(64)

/* Where both are one register, it gets the sum: the source is written first. */
#define XADD_MEMORY(how, bits)                                                                     \
    uint##bits##_t value = soft_reg##bits(cpu, op->src);                                           \
    uint32_t status = 0;                                                                           \
    __asm__ volatile(how##_INSN "xadd" SOFT_SUFFIX_##bits " %[y], %[x]" SOFT_FLAGS_SAVE            \
                     : [x] "+m"(SOFT_MEM(bits, p)), "+&a"(status), [y] "+r"(value)                 \
                     :                                                                             \
                     : "cc", "memory");                                                            \
    cpu->status = status;
#define XADD_HANDLERS(bits)                                                                        \
    SOFT_HANDLER(xadd##bits##_rr)                                                                  \
    {                                                                                              \
        uint##bits##_t a = soft_reg##bits(cpu, op->dst), b = soft_reg##bits(cpu, op->src);         \
        uint32_t status = 0;                                                                       \
                                                                                                   \
        __asm__("xadd" SOFT_SUFFIX_##bits " %[y], %[x]" SOFT_FLAGS_SAVE                            \
                : [x] "+r"(a), "+&a"(status), [y] "+r"(b)                                          \
                :                                                                                  \
                : "cc");                                                                           \
        soft_set_reg##bits(cpu, op->src, b);                                                       \
        soft_set_reg##bits(cpu, op->dst, a);                                                       \
        cpu->status = status;                                                                      \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    SOFT_RMW_HANDLERS_X(xadd##bits##_m, rmw, bits,                                                 \
                        XADD_MEMORY(PLAIN, bits) soft_set_reg##bits(cpu, op->src, value);)         \
    SOFT_RMW_HANDLERS_X(xadd##bits##_lock, locked, bits,                                           \
                        XADD_MEMORY(LOCKED, bits) soft_set_reg##bits(cpu, op->src, value);)
XADD_HANDLERS(8)
XADD_HANDLERS(16)
XADD_HANDLERS(32)
XADD_HANDLERS(64)

struct exchange_forms {
    soft_op_fn *rr, *m[LOCKED_KINDS], *lock[LOCKED_KINDS];
};
#define XCHG_FORMS(bits)                                                                           \
    {                                                                                              \
        .rr = xchg##bits##_rr, .m = {xchg##bits##_m_x, xchg##bits##_m_g},                          \
        .lock = {xchg##bits##_m_x, xchg##bits##_m_g},                                              \
    }
#define XADD_FORMS(bits)                                                                           \
    {                                                                                              \
        .rr = xadd##bits##_rr, .m = {xadd##bits##_m_x, xadd##bits##_m_g},                          \
        .lock = {xadd##bits##_lock_x, xadd##bits##_lock_g},                                        \
    }
static const struct exchange_forms xchg_forms[SIZE_COUNT] = {XCHG_FORMS(8), XCHG_FORMS(16),
                                                             XCHG_FORMS(32), XCHG_FORMS(64)};
static const struct exchange_forms xadd_forms[SIZE_COUNT] = {XADD_FORMS(8), XADD_FORMS(16),
                                                             XADD_FORMS(32), XADD_FORMS(64)};

/* Either operand may be the memory of XCHG: Zydis says it as it is encoded. */
static void lower_exchange(struct soft_lower *l, const struct exchange_forms *forms)
{
    unsigned memory = soft_is_memory(soft_operand(l, 0)) ? 0 : 1;
    const struct exchange_forms *form = &forms[soft_size_index(soft_operand(l, 0)->size)];

    if (soft_is_memory(soft_operand(l, memory))) {
        unsigned general = soft_address_kind(l) == KIND_GENERAL;

        l->op->src = soft_operand_reg(l, 1 - memory);
        l->op->fn = soft_has_lock(l) ? form->lock[general] : form->m[general];
    } else {
        l->op->dst = soft_operand_reg(l, 0);
        l->op->src = soft_operand_reg(l, 1);
        l->op->fn = form->rr;
    }
}

void soft_lower_xchg(struct soft_lower *l, uintptr_t arg)
{
    lower_exchange(l, xchg_forms);
}

void soft_lower_xadd(struct soft_lower *l, uintptr_t arg)
{
    lower_exchange(l, xadd_forms);
}

/* ---- CMPXCHG --------------------------------------------------------------------------------- */

/*
 * RAX, and a register that is the destination, go through the host's instruction as a whole: when
 * 32 bits clear upper halves is the host's doing, too.
 */
#define CMPXCHG(how, bits, operand, destination)                                                   \
    uint64_t rax = cpu->gpr[X86_RAX], old;                                                         \
    __asm__ volatile(how##_INSN "cmpxchg" SOFT_SUFFIX_##bits                                       \
                     " %[y], " operand "\n\tmov %%rax, %[old]" SOFT_FLAGS_SAVE                     \
                     : [x] destination, "+&a"(rax), [old] "=&r"(old)                               \
                     : [y] "r"(soft_reg##bits(cpu, op->src))                                       \
                     : "cc", "memory");                                                            \
    cpu->gpr[X86_RAX] = old;                                                                       \
    cpu->status = (uint16_t)rax;
/* The destination may be (a part of) RAX: it is written last. */
#define CMPXCHG_HANDLERS(bits, modifier, write_bits)                                               \
    SOFT_HANDLER(cmpxchg##bits##_rr)                                                               \
    {                                                                                              \
        uint64_t a = soft_reg##write_bits(cpu, op->dst);                                           \
                                                                                                   \
        CMPXCHG(PLAIN, bits, "%" modifier "[x]", "+r"(a))                                          \
        soft_set_reg##write_bits(cpu, op->dst, (uint##write_bits##_t)a);                           \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    SOFT_RMW_HANDLERS_X(cmpxchg##bits##_m, rmw, bits,                                              \
                        CMPXCHG(PLAIN, bits, "%[x]", "+m"(SOFT_MEM(bits, p))))                     \
    SOFT_RMW_HANDLERS_X(cmpxchg##bits##_lock, locked, bits,                                        \
                        CMPXCHG(LOCKED, bits, "%[x]", "+m"(SOFT_MEM(bits, p))))
CMPXCHG_HANDLERS(8, "b", 8)
CMPXCHG_HANDLERS(16, "w", 16)
CMPXCHG_HANDLERS(32, "k", 64)
CMPXCHG_HANDLERS(64, "q", 64)

#define CMPXCHG_FORMS(bits)                                                                        \
    {                                                                                              \
        .rr = cmpxchg##bits##_rr, .m = {cmpxchg##bits##_m_x, cmpxchg##bits##_m_g},                 \
        .lock = {cmpxchg##bits##_lock_x, cmpxchg##bits##_lock_g},                                  \
    }
static const struct exchange_forms cmpxchg_forms[SIZE_COUNT] = {
    CMPXCHG_FORMS(8), CMPXCHG_FORMS(16), CMPXCHG_FORMS(32), CMPXCHG_FORMS(64)};

void soft_lower_cmpxchg(struct soft_lower *l, uintptr_t arg)
{
    lower_exchange(l, cmpxchg_forms);
}

/* ---- CMPXCHG8B, CMPXCHG16B ------------------------------------------------------------------- */

/* Only ZF changes. What was compared comes back in EDX:EAX (RDX:RAX) if it differed. */
static void cmpxchg_wide_end(struct soft_cpu *cpu, bool equal, uint64_t low, uint64_t high)
{
    if (equal) {
        cpu->status |= SOFT_ZF;
        return;
    }
    cpu->status &= ~SOFT_ZF;
    cpu->gpr[X86_RAX] = low;
    cpu->gpr[X86_RDX] = high;
}

#define CMPXCHG8B(insn)                                                                            \
    uint32_t low = (uint32_t)cpu->gpr[X86_RAX], high = (uint32_t)cpu->gpr[X86_RDX];                \
    bool equal;                                                                                    \
    __asm__ volatile(insn "cmpxchg8b %[x]"                                                         \
                     : [x] "+m"(SOFT_MEM(64, p)), "+a"(low), "+d"(high), "=@ccz"(equal)            \
                     : "b"((uint32_t)cpu->gpr[X86_RBX]), "c"((uint32_t)cpu->gpr[X86_RCX])          \
                     : "memory");

static void cmpxchg8b(struct soft_cpu *cpu, const struct soft_op *op)
{
    const uint64_t linear = soft_linear(cpu, op, 8, SOFT_WRITE);
    void *const p = soft_rmw_begin(cpu, op, linear, 8);

    CMPXCHG8B("")
    soft_rmw_end(cpu, op, linear, p, 8);
    cmpxchg_wide_end(cpu, equal, low, high);
}

static void cmpxchg8b_lock(struct soft_cpu *cpu, const struct soft_op *op)
{
    const uint64_t linear = soft_linear(cpu, op, 8, SOFT_WRITE);
    void *const p = soft_locked_begin(cpu, op, linear, 8);

    CMPXCHG8B("lock ")
    soft_locked_end(cpu, op, linear, p, 8);
    cmpxchg_wide_end(cpu, equal, low, high);
}

/*
 * LOCK or not: the host's with LOCK, which is never wrong. Guest memory at a multiple of 16 is that on
 * the host, too; a copy in scratch need not be, and is nobody else's.
 */
static void cmpxchg16b(struct soft_cpu *cpu, const struct soft_op *op)
{
    const uint64_t linear = soft_linear(cpu, op, 16, SOFT_WRITE);
    uint64_t low = cpu->gpr[X86_RAX], high = cpu->gpr[X86_RDX];
    bool equal;

    if (linear % 16) {
        soft_op_raise(cpu, op, EXC_GP, 0);
    }
    uint64_t *const p = soft_locked_begin(cpu, op, linear, 16);
    if ((uintptr_t)p % 16 == 0) {
        __asm__ volatile("lock cmpxchg16b %[x]"
                         : [x] "+m"(*(uint8_t(*)[16])p), "+a"(low), "+d"(high), "=@ccz"(equal)
                         : "b"(cpu->gpr[X86_RBX]), "c"(cpu->gpr[X86_RCX])
                         : "memory");
    } else {
        uint64_t old_low = soft_host_load64(p), old_high = soft_host_load64((uint8_t *)p + 8);

        equal = old_low == low && old_high == high;
        if (equal) {
            soft_host_store64(p, cpu->gpr[X86_RBX]);
            soft_host_store64((uint8_t *)p + 8, cpu->gpr[X86_RCX]);
        }
        low = old_low;
        high = old_high;
    }
    soft_locked_end(cpu, op, linear, p, 16);
    cmpxchg_wide_end(cpu, equal, low, high);
}

/* arg: bytes, 8 or 16. */
void soft_lower_cmpxchg_wide(struct soft_lower *l, uintptr_t arg)
{
    soft_lower_call(l, arg == 16 ? cmpxchg16b : soft_has_lock(l) ? cmpxchg8b_lock : cmpxchg8b);
}
