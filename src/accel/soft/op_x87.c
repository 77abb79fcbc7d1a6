/* SPDX-License-Identifier: MIT */
/*
 * Frequent x87 instructions, when every exception is masked, as is usual, and no register is empty or
 * full where it should not be: the operands are pushed on the host's empty stack, the host operates,
 * the result is stored. With other masks, or a stack fault, soft_x87_generic() does it; so nothing
 * here can fail, and none of the host's flags need undoing.
 */
#include "accel/soft/x87.h"

/* ---- the host's unit -------------------------------------------------------------------------- */

typedef uint8_t x87_reg[10];
/* A computation: ST(0) in st, changed unless it compares; the other operand. Returns the host's
 * status word. */
typedef uint16_t x87_compute(void *st, const void *operand);

/* Rounding and precision as the guest has them; between enter and leave only inline assembly runs. */
static inline void x87_enter(const struct soft_cpu *cpu)
{
    if (__builtin_expect(cpu->x87.control != X87_CONTROL_INIT, 0)) {
        __asm__ volatile("fldcw %0" : : "m"(cpu->x87.control));
    }
}
static inline void x87_leave(const struct soft_cpu *cpu)
{
    static const uint16_t init = X87_CONTROL_INIT;

    if (__builtin_expect(cpu->x87.control != X87_CONTROL_INIT, 0)) {
        __asm__ volatile("fldcw %0" : : "m"(init));
    }
}

/* ST(0) = ST(0) op memory. */
#define X87_MEMORY(name, insn, size)                                                               \
    static uint16_t name(void *st, const void *operand)                                            \
    {                                                                                              \
        uint16_t sw;                                                                               \
                                                                                                   \
        __asm__ volatile("fnclex\n\t"                                                              \
                         "fldt %1\n\t" insn " %2\n\t"                                              \
                         "fnstsw %0\n\t"                                                           \
                         "fstpt %1"                                                                \
                         : "=a"(sw), "+m"(*(x87_reg *)st)                                          \
                         : "m"(*(const uint8_t(*)[size])operand)                                   \
                         : "st", "st(1)");                                                         \
        return sw;                                                                                 \
    }
/* Compares ST(0) with memory: condition codes alone. */
#define X87_COMPARE(name, insn, size)                                                              \
    static uint16_t name(void *st, const void *operand)                                            \
    {                                                                                              \
        uint16_t sw;                                                                               \
                                                                                                   \
        __asm__ volatile("fnclex\n\t"                                                              \
                         "fldt %1\n\t" insn " %2\n\t"                                              \
                         "fnstsw %0\n\t"                                                           \
                         "fstp %%st(0)"                                                            \
                         : "=a"(sw)                                                                \
                         : "m"(*(const x87_reg *)st), "m"(*(const uint8_t(*)[size])operand)        \
                         : "st", "st(1)");                                                         \
        return sw;                                                                                 \
    }
#define X87_MEMORY_ALL(suffix, i, letter, size)                                                    \
    X87_MEMORY(add_##suffix, "f" i "add" letter, size)                                             \
    X87_MEMORY(mul_##suffix, "f" i "mul" letter, size)                                             \
    X87_COMPARE(com_##suffix, "f" i "com" letter, size)                                            \
    X87_MEMORY(sub_##suffix, "f" i "sub" letter, size)                                             \
    X87_MEMORY(subr_##suffix, "f" i "subr" letter, size)                                           \
    X87_MEMORY(div_##suffix, "f" i "div" letter, size)                                             \
    X87_MEMORY(divr_##suffix, "f" i "divr" letter, size)                                           \
    /* by /0 to /7 */                                                                              \
    static x87_compute *const x87_##suffix[8] = {                                                  \
        add_##suffix, mul_##suffix,  com_##suffix, com_##suffix,                                   \
        sub_##suffix, subr_##suffix, div_##suffix, divr_##suffix,                                  \
    };
X87_MEMORY_ALL(m32, "", "s", 4)
X87_MEMORY_ALL(m64, "", "l", 8)
X87_MEMORY_ALL(i32, "i", "l", 4)
X87_MEMORY_ALL(i16, "i", "s", 2)

/* st = st op operand, both 80 bits: operand is pushed first and becomes ST(1). The opcode's bytes
 * stand here because assemblers disagree on the names of the reversed forms. */
#define X87_REGISTER(name, modrm)                                                                  \
    static uint16_t name(void *st, const void *operand)                                            \
    {                                                                                              \
        uint16_t sw;                                                                               \
                                                                                                   \
        __asm__ volatile("fnclex\n\t"                                                              \
                         "fldt %2\n\t"                                                             \
                         "fldt %1\n\t"                                                             \
                         ".byte 0xd8, " modrm "\n\t"                                               \
                         "fnstsw %0\n\t"                                                           \
                         "fstpt %1\n\t"                                                            \
                         "fstp %%st(0)"                                                            \
                         : "=a"(sw), "+m"(*(x87_reg *)st)                                          \
                         : "m"(*(const x87_reg *)operand)                                          \
                         : "st", "st(1)");                                                         \
        return sw;                                                                                 \
    }
#define X87_COMPARE_REGISTER(name, bytes)                                                          \
    static uint16_t name(void *st, const void *operand)                                            \
    {                                                                                              \
        uint16_t sw;                                                                               \
                                                                                                   \
        __asm__ volatile("fnclex\n\t"                                                              \
                         "fldt %2\n\t"                                                             \
                         "fldt %1\n\t"                                                             \
                         ".byte " bytes "\n\t"                                                     \
                         "fnstsw %0\n\t"                                                           \
                         "fstp %%st(0)\n\t"                                                        \
                         "fstp %%st(0)"                                                            \
                         : "=a"(sw)                                                                \
                         : "m"(*(const x87_reg *)st), "m"(*(const x87_reg *)operand)               \
                         : "st", "st(1)");                                                         \
        return sw;                                                                                 \
    }
X87_REGISTER(add_st, "0xc1")
X87_REGISTER(mul_st, "0xc9")
X87_COMPARE_REGISTER(com_st, "0xd8, 0xd1")
X87_REGISTER(sub_st, "0xe1")
X87_REGISTER(subr_st, "0xe9")
X87_REGISTER(div_st, "0xf1")
X87_REGISTER(divr_st, "0xf9")
X87_COMPARE_REGISTER(ucom_st, "0xdd, 0xe1")

static x87_compute *const x87_st[8] = {
    add_st, mul_st, com_st, com_st, sub_st, subr_st, div_st, divr_st,
};

/* Conversions on loads (out = operand) and stores (out = ST). */
#define X87_LOAD_AS(name, insn, size)                                                              \
    static uint16_t name(void *st, const void *operand)                                            \
    {                                                                                              \
        uint16_t sw;                                                                               \
                                                                                                   \
        __asm__ volatile("fnclex\n\t" insn " %2\n\t"                                               \
                         "fnstsw %0\n\t"                                                           \
                         "fstpt %1"                                                                \
                         : "=a"(sw), "=m"(*(x87_reg *)st)                                          \
                         : "m"(*(const uint8_t(*)[size])operand)                                   \
                         : "st");                                                                  \
        return sw;                                                                                 \
    }
#define X87_STORE_AS(name, insn, size)                                                             \
    static uint16_t name(void *out, const void *st)                                                \
    {                                                                                              \
        uint16_t sw;                                                                               \
                                                                                                   \
        __asm__ volatile("fnclex\n\t"                                                              \
                         "fldt %2\n\t" insn " %1\n\t"                                              \
                         "fnstsw %0"                                                               \
                         : "=a"(sw), "=m"(*(uint8_t(*)[size])out)                                  \
                         : "m"(*(const x87_reg *)st)                                               \
                         : "st");                                                                  \
        return sw;                                                                                 \
    }
X87_LOAD_AS(fld_m32, "flds", 4)
X87_LOAD_AS(fld_m64, "fldl", 8)
X87_LOAD_AS(fild_i16, "filds", 2)
X87_LOAD_AS(fild_i32, "fildl", 4)
X87_LOAD_AS(fild_i64, "fildll", 8)
X87_STORE_AS(fst_m32, "fstps", 4)
X87_STORE_AS(fst_m64, "fstpl", 8)
X87_STORE_AS(fist_i16, "fistps", 2)
X87_STORE_AS(fist_i32, "fistpl", 4)
X87_STORE_AS(fist_i64, "fistpll", 8)
X87_STORE_AS(fistt_i16, "fisttps", 2)
X87_STORE_AS(fistt_i32, "fisttpl", 4)
X87_STORE_AS(fistt_i64, "fisttpll", 8)

/* ---- the guest's unit ------------------------------------------------------------------------- */

static inline unsigned st_index(const struct soft_cpu *cpu, unsigned i)
{
    return (cpu->x87.top + i) & 7;
}
static inline void *st(struct soft_cpu *cpu, unsigned i)
{
    return cpu->x87.reg[st_index(cpu, i)].b;
}
static inline bool is_used(const struct soft_cpu *cpu, unsigned i)
{
    return cpu->x87.used >> st_index(cpu, i) & 1;
}
static inline bool is_masked(const struct soft_cpu *cpu)
{
    return (cpu->x87.control & X87_EXCEPTIONS) == X87_EXCEPTIONS;
}

/* Flags are sticky; condition codes that the instruction defines are replaced, C1 always. */
static inline void merge(struct soft_cpu *cpu, uint16_t sw, uint16_t codes)
{
    cpu->x87.status = (cpu->x87.status & ~codes) | (sw & (codes | X87_EXCEPTIONS));
}
enum { CODES_COMPARE = X87_C0 | X87_C1 | X87_C2 | X87_C3 };

static inline void pop(struct soft_cpu *cpu)
{
    cpu->x87.used &= (uint8_t) ~(1u << cpu->x87.top);
    cpu->x87.top = (cpu->x87.top + 1) & 7;
}
/* Where a push goes; the caller has seen that it is empty. */
static inline void *push(struct soft_cpu *cpu)
{
    cpu->x87.top = (cpu->x87.top - 1) & 7;
    cpu->x87.used |= (uint8_t)(1u << cpu->x87.top);
    return st(cpu, 0);
}
static inline void copy(void *to, const void *from)
{
    __builtin_memcpy(to, from, 16); /* the rest of both slots is zero */
}

/* ---- instructions ----------------------------------------------------------------------------- */

/* A handler and the function that does its work, whose locals may have addresses (op.h). When the
 * conditions do not hold, the generic way is taken. */
#define X87_HANDLER(name, conditions)                                                              \
    static void do_##name(struct soft_cpu *cpu, const struct soft_op *op);                         \
    static const struct soft_op *op_##name(struct soft_cpu *cpu, const struct soft_op *op)         \
    {                                                                                              \
        if (__builtin_expect(is_masked(cpu) && (conditions), 1)) {                                 \
            do_##name(cpu, op);                                                                    \
        } else {                                                                                   \
            soft_x87_generic(cpu, op);                                                             \
        }                                                                                          \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    static __attribute__((noinline)) void do_##name(struct soft_cpu *cpu, const struct soft_op *op)

static inline uint16_t compute(struct soft_cpu *cpu, const struct soft_op *op, void *to,
                               const void *from)
{
    x87_compute *fn = (x87_compute *)(uintptr_t)op->imm;
    uint16_t sw;

    x87_enter(cpu);
    sw = fn(to, from);
    x87_leave(cpu);
    return sw;
}

/* FADD, FMUL, FSUB, FSUBR, FDIV, FDIVR, FIADD… with memory. */
#define X87_ARITHMETIC_MEMORY(bits)                                                                \
    X87_HANDLER(arithmetic_m##bits, is_used(cpu, 0))                                               \
    {                                                                                              \
        uint##bits##_t v = soft_load##bits(cpu, op, soft_linear(cpu, op, bits / 8, SOFT_READ));    \
                                                                                                   \
        merge(cpu, compute(cpu, op, st(cpu, 0), &v), X87_C1);                                      \
        soft_x87_note_memory(cpu, op);                                                             \
    }                                                                                              \
    X87_HANDLER(compare_m##bits, is_used(cpu, 0))                                                  \
    {                                                                                              \
        uint##bits##_t v = soft_load##bits(cpu, op, soft_linear(cpu, op, bits / 8, SOFT_READ));    \
                                                                                                   \
        merge(cpu, compute(cpu, op, st(cpu, 0), &v), CODES_COMPARE);                               \
        if (op->aux & 8) { /* FCOMP, FICOMP: /3 */                                                 \
            pop(cpu);                                                                              \
        }                                                                                          \
        soft_x87_note_memory(cpu, op);                                                             \
    }
X87_ARITHMETIC_MEMORY(16)
X87_ARITHMETIC_MEMORY(32)
X87_ARITHMETIC_MEMORY(64)

/* D8: ST(0) = ST(0) op ST(i) */
X87_HANDLER(arithmetic_st0, is_used(cpu, 0) && is_used(cpu, op->src))
{
    merge(cpu, compute(cpu, op, st(cpu, 0), st(cpu, op->src)), X87_C1);
    soft_x87_note(cpu, op);
}

/* DC: ST(i) = ST(i) op ST(0); DE: pops. */
X87_HANDLER(arithmetic_sti, is_used(cpu, 0) && is_used(cpu, op->src))
{
    merge(cpu, compute(cpu, op, st(cpu, op->src), st(cpu, 0)), X87_C1);
    if (op->aux & 0x200) {
        pop(cpu);
    }
    soft_x87_note(cpu, op);
}

/* FCOM, FUCOM and those that pop: op->scale times. */
X87_HANDLER(compare_sti, is_used(cpu, 0) && is_used(cpu, op->src))
{
    merge(cpu, compute(cpu, op, st(cpu, 0), st(cpu, op->src)), CODES_COMPARE);
    for (unsigned i = 0; i < op->scale; i++) {
        pop(cpu);
    }
    soft_x87_note(cpu, op);
}

/* FCOMI, FUCOMI: into the status flags (soft.h); DF: and pop. */
#define X87_COMPARE_FLAGS(name, bytes)                                                             \
    X87_HANDLER(name, is_used(cpu, 0) && is_used(cpu, op->src))                                    \
    {                                                                                              \
        uint32_t flags;                                                                            \
        uint16_t sw;                                                                               \
                                                                                                   \
        __asm__ volatile("fnclex\n\t"                                                              \
                         "fldt %3\n\t"                                                             \
                         "fldt %2\n\t"                                                             \
                         ".byte " bytes "\n\t"                                                     \
                         "lahf\n\t"                                                                \
                         "seto %%al\n\t"                                                           \
                         "fnstsw %1\n\t"                                                           \
                         "fstp %%st(0)\n\t"                                                        \
                         "fstp %%st(0)"                                                            \
                         : "=&a"(flags), "=m"(sw)                                                  \
                         : "m"(*(const x87_reg *)st(cpu, 0)),                                      \
                           "m"(*(const x87_reg *)st(cpu, op->src))                                 \
                         : "cc", "st", "st(1)");                                                   \
        cpu->status = (uint16_t)flags;                                                             \
        merge(cpu, sw, 0); /* C1: only by a stack fault */                                         \
        if (op->aux & 0x400) {                                                                     \
            pop(cpu);                                                                              \
        }                                                                                          \
        soft_x87_note(cpu, op);                                                                    \
    }
X87_COMPARE_FLAGS(comi, "0xdb, 0xf1")
X87_COMPARE_FLAGS(ucomi, "0xdb, 0xe9")

/* FLD and FILD: ST(7) is where the push goes. */
#define X87_LOADS(bits)                                                                            \
    X87_HANDLER(load_m##bits, !is_used(cpu, 7))                                                    \
    {                                                                                              \
        uint##bits##_t v = soft_load##bits(cpu, op, soft_linear(cpu, op, bits / 8, SOFT_READ));    \
                                                                                                   \
        merge(cpu, compute(cpu, op, push(cpu), &v), X87_C1);                                       \
        soft_x87_note_memory(cpu, op);                                                             \
    }
X87_LOADS(16)
X87_LOADS(32)
X87_LOADS(64)

/* FST, FSTP, FIST, FISTP, FISTTP to memory: all with /1, /3 and /7 pop, /2 does not. */
#define X87_STORES(bits)                                                                           \
    X87_HANDLER(store_m##bits, is_used(cpu, 0))                                                    \
    {                                                                                              \
        uint64_t linear = soft_linear(cpu, op, bits / 8, SOFT_WRITE);                              \
        uint##bits##_t v;                                                                          \
        uint16_t sw = compute(cpu, op, &v, st(cpu, 0));                                            \
                                                                                                   \
        soft_store##bits(cpu, op, linear, v);                                                      \
        merge(cpu, sw, X87_C1);                                                                    \
        if (op->aux & 8) {                                                                         \
            pop(cpu);                                                                              \
        }                                                                                          \
        soft_x87_note_memory(cpu, op);                                                             \
    }
X87_STORES(16)
X87_STORES(32)
X87_STORES(64)

/* 80 bits are moved as they are. */
X87_HANDLER(fld_m80, !is_used(cpu, 7))
{
    uint8_t v[16] = {0};

    soft_load_bytes(cpu, op, soft_linear(cpu, op, 10, SOFT_READ), v, 10);
    copy(push(cpu), v);
    merge(cpu, 0, X87_C1);
    soft_x87_note_memory(cpu, op);
}

X87_HANDLER(fstp_m80, is_used(cpu, 0))
{
    soft_store_bytes(cpu, op, soft_linear(cpu, op, 10, SOFT_WRITE), st(cpu, 0), 10);
    pop(cpu);
    merge(cpu, 0, X87_C1);
    soft_x87_note_memory(cpu, op);
}

X87_HANDLER(fld_st, is_used(cpu, op->src) && !is_used(cpu, 7))
{
    const void *from = st(cpu, op->src);

    copy(push(cpu), from);
    merge(cpu, 0, X87_C1);
    soft_x87_note(cpu, op);
}

X87_HANDLER(fst_st, is_used(cpu, 0))
{
    copy(st(cpu, op->src), st(cpu, 0));
    cpu->x87.used |= (uint8_t)(1u << st_index(cpu, op->src));
    if (op->aux & 8) {
        pop(cpu);
    }
    merge(cpu, 0, X87_C1);
    soft_x87_note(cpu, op);
}

X87_HANDLER(fxch, is_used(cpu, 0) && is_used(cpu, op->src))
{
    uint8_t v[16];

    copy(v, st(cpu, 0));
    copy(st(cpu, 0), st(cpu, op->src));
    copy(st(cpu, op->src), v);
    merge(cpu, 0, X87_C1);
    soft_x87_note(cpu, op);
}

/* FCHS, FABS: NaNs and what is not supported, too (SDM volume 1, 8.3.5). */
X87_HANDLER(fchs, is_used(cpu, 0))
{
    ((uint8_t *)st(cpu, 0))[9] ^= 0x80;
    merge(cpu, 0, X87_C1);
    soft_x87_note(cpu, op);
}

X87_HANDLER(fabs, is_used(cpu, 0))
{
    ((uint8_t *)st(cpu, 0))[9] &= 0x7f;
    merge(cpu, 0, X87_C1);
    soft_x87_note(cpu, op);
}

/* FLD1 and FLDZ; the other constants depend on the rounding. op->imm: the significand, which is zero
 * or has its leading bit set. */
X87_HANDLER(constant, !is_used(cpu, 7))
{
    uint64_t v[2] = {op->imm, op->imm ? 0x3fff : 0};

    copy(push(cpu), v);
    merge(cpu, 0, X87_C1);
    soft_x87_note(cpu, op);
}

/* ---- selection -------------------------------------------------------------------------------- */

static soft_op_fn *with(struct soft_op *op, x87_compute *by, soft_op_fn *fn)
{
    op->imm = (uintptr_t)by;
    return fn;
}

static soft_op_fn *fast_memory(struct soft_op *op)
{
    unsigned reg = op->aux >> 3 & 7;
    bool compares = reg == 2 || reg == 3;

    switch (op->aux >> 8) {
    case 0: /* D8: m32 */
        return with(op, x87_m32[reg], compares ? op_compare_m32 : op_arithmetic_m32);
    case 2: /* DA: 32-bit integers */
        return with(op, x87_i32[reg], compares ? op_compare_m32 : op_arithmetic_m32);
    case 4: /* DC: m64 */
        return with(op, x87_m64[reg], compares ? op_compare_m64 : op_arithmetic_m64);
    case 6: /* DE: 16-bit integers */
        return with(op, x87_i16[reg], compares ? op_compare_m16 : op_arithmetic_m16);
    case 1: /* D9 */
        return reg == 0 ? with(op, fld_m32, op_load_m32) : with(op, fst_m32, op_store_m32);
    case 3: /* DB */
        return reg == 0   ? with(op, fild_i32, op_load_m32)
               : reg == 1 ? with(op, fistt_i32, op_store_m32)
               : reg < 4  ? with(op, fist_i32, op_store_m32)
               : reg == 5 ? op_fld_m80
                          : op_fstp_m80;
    case 5: /* DD */
        return reg == 0   ? with(op, fld_m64, op_load_m64)
               : reg == 1 ? with(op, fistt_i64, op_store_m64)
                          : with(op, fst_m64, op_store_m64);
    default: /* DF */
        return reg == 0   ? with(op, fild_i16, op_load_m16)
               : reg == 1 ? with(op, fistt_i16, op_store_m16)
               : reg < 4  ? with(op, fist_i16, op_store_m16)
               : reg == 5 ? with(op, fild_i64, op_load_m64)
               : reg == 7 ? with(op, fist_i64, op_store_m64)
                          : NULL; /* BCD */
    }
}

static soft_op_fn *compare_pops(struct soft_op *op, x87_compute *by, unsigned pops)
{
    op->scale = (uint8_t)pops;
    return with(op, by, op_compare_sti);
}

static soft_op_fn *fast_register(struct soft_op *op)
{
    unsigned reg = op->aux >> 3 & 7;

    switch (op->aux >> 8) {
    case 0: /* D8 */
        return reg == 2 || reg == 3 ? compare_pops(op, com_st, reg - 2)
                                    : with(op, x87_st[reg], op_arithmetic_st0);
    case 4: /* DC */
    case 6: /* DE */
        if (op->aux == 0x6d9) {
            return compare_pops(op, com_st, 2); /* FCOMPP */
        }
        /* With ST(i) as the destination, /4 and /6 are the reversed forms. */
        return reg < 2   ? with(op, x87_st[reg], op_arithmetic_sti)
               : reg < 4 ? NULL
                         : with(op, x87_st[reg ^ 1], op_arithmetic_sti);
    case 5: /* DD */
        return reg == 2 || reg == 3   ? op_fst_st
               : reg == 4 || reg == 5 ? compare_pops(op, ucom_st, reg - 4)
                                      : NULL;
    case 2:                                                            /* DA */
        return op->aux == 0x2e9 ? compare_pops(op, ucom_st, 2) : NULL; /* FUCOMPP */
    case 3:                                                            /* DB */
    case 7:                                                            /* DF */
        return reg == 5 ? op_ucomi : reg == 6 ? op_comi : NULL;
    default: /* D9 */
        if (reg == 0) {
            return op_fld_st;
        }
        if (reg == 1) {
            return op_fxch;
        }
        break;
    }
    switch (op->aux & 0xff) {
    case 0xe0:
        return op_fchs;
    case 0xe1:
        return op_fabs;
    case 0xe8:
        op->imm = UINT64_C(1) << 63;
        return op_constant;
    case 0xee:
        return op_constant;
    default:
        return NULL;
    }
}

soft_op_fn *soft_x87_fast(struct soft_op *op, bool is_memory)
{
    return is_memory ? fast_memory(op) : fast_register(op);
}
