/* SPDX-License-Identifier: MIT */
/*
 * What the handlers of integer instructions share: how the host computes flags, and the shapes of
 * handlers with a memory operand. Only op_*.c, stack.c and lower_integer.c include it.
 *
 * A memory operand has three handlers, which lowering chooses by soft_address_kind():
 *
 *      _b  [base + disp], 64-bit address, no segment base       fast: no stack frame, tail calls only
 *      _x  [base + index * scale + disp + segment base], 64-bit fast
 *      _g  any mode, and where the other two go when the TLB misses
 *
 * so that the fast ones hold no call and thus touch no stack.
 */
#ifndef FERRY_ACCEL_SOFT_INTEGER_H
#define FERRY_ACCEL_SOFT_INTEGER_H

#include "accel/soft/cond.h"
#include "accel/soft/lower.h"
#include "accel/soft/op.h"

#define SOFT_APART __attribute__((noinline))

/* ---- operand sizes --------------------------------------------------------------------------- */

/* Index of a size in tables of handlers: 8, 16, 32, 64 bits. */
enum { SIZE8, SIZE16, SIZE32, SIZE64, SIZE_COUNT };

static inline unsigned soft_size_index(unsigned bits)
{
    return bits == 8 ? SIZE8 : bits == 16 ? SIZE16 : bits == 32 ? SIZE32 : SIZE64;
}

/* A general register as an lvalue: for asm operands in memory. */
#define SOFT_REG(bits, offset)                                                                     \
    (*(uint##bits##_t __attribute__((may_alias)) *)((uint8_t *)cpu + (offset)))
/* Guest memory as an asm operand: any alignment. */
#define SOFT_MEM(bits, p) (*(uint8_t(*)[(bits) / 8])(p))

#define SOFT_SUFFIX_8  "b"
#define SOFT_SUFFIX_16 "w"
#define SOFT_SUFFIX_32 "l"
#define SOFT_SUFFIX_64 "q"

/* How asm names a 64-bit operand's low part. */
#define SOFT_MODIFIER_8  "b"
#define SOFT_MODIFIER_16 "w"
#define SOFT_MODIFIER_32 "k"
#define SOFT_MODIFIER_64 "q"

/* ---- flags ----------------------------------------------------------------------------------- */

/*
 * The status flags in EAX, an asm operand "+&a"(status): SAVE leaves them there (EAX's upper half must
 * be zero before), LOAD puts all six into the host's. LOAD: AL is OF; 0x7f + 1 overflows; SAHF leaves
 * OF alone.
 */
#define SOFT_FLAGS_SAVE "\n\tlahf\n\tseto %%al"
#define SOFT_FLAGS_LOAD "addb $0x7f, %%al\n\tsahf\n\t"
#define SOFT_CARRY_LOAD "btl $8, %%eax\n\t" /* SOFT_CF */

static inline uint32_t soft_status_of_rflags(uint64_t rflags)
{
    return (uint32_t)(rflags & 0xd5) << 8 | 0x200 | ((rflags >> 11) & 1);
}
static inline uint64_t soft_status_to_rflags(uint32_t status)
{
    return ((status >> 8) & 0xd5) | (uint64_t)(status & SOFT_OF) << 11;
}

/*
 * CHANGE(insn, class, bits, where, a, ...), asm that changes the lvalue a ("+m" or "+r" in where), done
 * to the register op->dst.
 */
#define SOFT_ON_REG_8(CHANGE, insn, class, ...)                                                    \
    CHANGE(insn, class, 8, "+m", SOFT_REG(8, op->dst), ##__VA_ARGS__)
#define SOFT_ON_REG_16(CHANGE, insn, class, ...)                                                   \
    CHANGE(insn, class, 16, "+m", SOFT_REG(16, op->dst), ##__VA_ARGS__)
#define SOFT_ON_REG_64(CHANGE, insn, class, ...)                                                   \
    CHANGE(insn, class, 64, "+m", SOFT_REG(64, op->dst), ##__VA_ARGS__)
#define SOFT_ON_REG_32(CHANGE, insn, class, ...)                                                   \
    do {                                                                                           \
        uint32_t value = soft_reg32(cpu, op->dst);                                                 \
        CHANGE(insn, class, 32, "+r", value, ##__VA_ARGS__)                                        \
        soft_set_reg32(cpu, op->dst, value);                                                       \
    } while (0);

/* ---- handlers' shapes ------------------------------------------------------------------------ */

#define SOFT_HANDLER(name)                                                                         \
    static const struct soft_op *name(struct soft_cpu *cpu, const struct soft_op *op)
#define SOFT_APART_HANDLER(name) SOFT_APART SOFT_HANDLER(name)

static inline uint64_t soft_linear_base(const struct soft_cpu *cpu, const struct soft_op *op)
{
    return cpu->slot[op->base] + (uint64_t)(int64_t)op->disp;
}
#define SOFT_LINEAR_b soft_linear_base(cpu, op)
#define SOFT_LINEAR_x soft_linear_64(cpu, op)

/* Defines p, the host's address of a memory operand, or goes to other(), the handler that takes the slow
 * way. how: read or write. */
#define SOFT_FAST_POINTER(how, address, bits, other)                                               \
    void *const p = soft_##how##_pointer(cpu, address, (bits) / 8);                                \
    if (__builtin_expect(!p, 0)) {                                                                 \
        return other(cpu, op);                                                                     \
    }

/* __VA_ARGS__: statements with the loaded value m. */
#define SOFT_READ_FAST(name, kind, bits, ...)                                                      \
    SOFT_HANDLER(name##_##kind)                                                                    \
    {                                                                                              \
        SOFT_FAST_POINTER(read, SOFT_LINEAR_##kind, bits, name##_g)                                \
        uint##bits##_t m = soft_host_load##bits(p);                                                \
        __VA_ARGS__                                                                                \
        SOFT_NEXT(cpu, op);                                                                        \
    }
#define SOFT_READ_GENERAL(name, bits, ...)                                                         \
    SOFT_APART_HANDLER(name##_g)                                                                   \
    {                                                                                              \
        uint##bits##_t m = soft_load##bits(cpu, op, soft_linear(cpu, op, (bits) / 8, SOFT_READ));  \
        __VA_ARGS__                                                                                \
        SOFT_NEXT(cpu, op);                                                                        \
    }
#define SOFT_READ_HANDLERS(name, bits, ...)                                                        \
    SOFT_READ_GENERAL(name, bits, __VA_ARGS__)                                                     \
    SOFT_READ_FAST(name, b, bits, __VA_ARGS__)                                                     \
    SOFT_READ_FAST(name, x, bits, __VA_ARGS__)
/* Where one fast version is enough: _x serves _b's operands, too. */
#define SOFT_READ_HANDLERS_X(name, bits, ...)                                                      \
    SOFT_READ_GENERAL(name, bits, __VA_ARGS__)                                                     \
    SOFT_READ_FAST(name, x, bits, __VA_ARGS__)

/* value: an expression of cpu and op. */
#define SOFT_WRITE_FAST(name, kind, bits, value)                                                   \
    SOFT_HANDLER(name##_##kind)                                                                    \
    {                                                                                              \
        SOFT_FAST_POINTER(write, SOFT_LINEAR_##kind, bits, name##_g)                               \
        soft_host_store##bits(p, value);                                                           \
        SOFT_NEXT(cpu, op);                                                                        \
    }
#define SOFT_WRITE_GENERAL(name, bits, value)                                                      \
    SOFT_APART_HANDLER(name##_g)                                                                   \
    {                                                                                              \
        soft_store##bits(cpu, op, soft_linear(cpu, op, (bits) / 8, SOFT_WRITE), value);            \
        SOFT_NEXT(cpu, op);                                                                        \
    }
#define SOFT_WRITE_HANDLERS(name, bits, value)                                                     \
    SOFT_WRITE_GENERAL(name, bits, value)                                                          \
    SOFT_WRITE_FAST(name, b, bits, value)                                                          \
    SOFT_WRITE_FAST(name, x, bits, value)
#define SOFT_WRITE_HANDLERS_X(name, bits, value)                                                   \
    SOFT_WRITE_GENERAL(name, bits, value)                                                          \
    SOFT_WRITE_FAST(name, x, bits, value)

/* __VA_ARGS__: statements that change the operand at p. how: rmw or locked. */
#define SOFT_RMW_FAST(name, kind, bits, ...)                                                       \
    SOFT_HANDLER(name##_##kind)                                                                    \
    {                                                                                              \
        SOFT_FAST_POINTER(write, SOFT_LINEAR_##kind, bits, name##_g)                               \
        __VA_ARGS__                                                                                \
        SOFT_NEXT(cpu, op);                                                                        \
    }
#define SOFT_RMW_GENERAL(name, how, bits, ...)                                                     \
    SOFT_APART_HANDLER(name##_g)                                                                   \
    {                                                                                              \
        const uint64_t linear = soft_linear(cpu, op, (bits) / 8, SOFT_WRITE);                      \
        void *const p = soft_##how##_begin(cpu, op, linear, (bits) / 8);                           \
        __VA_ARGS__                                                                                \
        soft_##how##_end(cpu, op, linear, p, (bits) / 8);                                          \
        SOFT_NEXT(cpu, op);                                                                        \
    }
#define SOFT_RMW_HANDLERS(name, bits, ...)                                                         \
    SOFT_RMW_GENERAL(name, rmw, bits, __VA_ARGS__)                                                 \
    SOFT_RMW_FAST(name, b, bits, __VA_ARGS__)                                                      \
    SOFT_RMW_FAST(name, x, bits, __VA_ARGS__)
#define SOFT_RMW_HANDLERS_X(name, how, bits, ...)                                                  \
    SOFT_RMW_GENERAL(name, how, bits, __VA_ARGS__)                                                 \
    SOFT_RMW_FAST(name, x, bits, __VA_ARGS__)

/* ---- lowering -------------------------------------------------------------------------------- */

enum { KIND_BASE, KIND_INDEX, KIND_GENERAL, KIND_COUNT };

/* The handlers of one memory form, by kind. */
#define SOFT_KINDS(name)                                                                           \
    {                                                                                              \
        name##_b, name##_x, name##_g                                                               \
    }
#define SOFT_KINDS_X(name)                                                                         \
    {                                                                                              \
        name##_x, name##_x, name##_g                                                               \
    }

static inline unsigned soft_address_kind(const struct soft_lower *l)
{
    return l->is_general || (l->op->info & SOFT_OP_GENERAL)                 ? KIND_GENERAL
           : l->op->index == SOFT_SLOT_ZERO && l->op->seg == SOFT_SLOT_ZERO ? KIND_BASE
                                                                            : KIND_INDEX;
}

static inline uint8_t soft_operand_reg(const struct soft_lower *l, unsigned i)
{
    return soft_gpr_offset(l->operand[i].reg.value);
}

/* Memory that no byte of the instruction names (XLAT; the source of string instructions, by rSI): fills
 * in base, segment and address size, which decode.c does for explicit operands only. The segment is DS
 * or the prefix's. */
void soft_lower_implicit(struct soft_lower *l, enum x86_gpr base);

/* Lowering functions by file; lower_integer.c has the table. What arg is stands at each. */
soft_lower_fn soft_lower_alu, soft_lower_compare, soft_lower_unary; /* op_alu.c: enum soft_alu */
soft_lower_fn soft_lower_xadd, soft_lower_cmpxchg, soft_lower_cmpxchg_wide, soft_lower_xchg;
soft_lower_fn soft_lower_mov, soft_lower_extend, soft_lower_lea, soft_lower_bswap, soft_lower_movbe,
    soft_lower_cmov, soft_lower_setcc, soft_lower_movnti;
soft_lower_fn soft_lower_shift, soft_lower_double_shift, soft_lower_shift_bmi2;
soft_lower_fn soft_lower_mul, soft_lower_imul, soft_lower_div, soft_lower_mulx;
soft_lower_fn soft_lower_bit_test, soft_lower_bit_scan, soft_lower_bmi, soft_lower_crc32;
soft_lower_fn soft_lower_simple, soft_lower_nop, soft_lower_xlat, soft_lower_bound;
soft_lower_fn soft_lower_push, soft_lower_pop, soft_lower_pusha, soft_lower_popa, soft_lower_enter,
    soft_lower_leave, soft_lower_pushf, soft_lower_popf;
soft_lower_fn soft_lower_in, soft_lower_out, soft_lower_ins, soft_lower_outs; /* op_io.c */

enum soft_alu {
    ALU_ADD,
    ALU_OR,
    ALU_ADC,
    ALU_SBB,
    ALU_AND,
    ALU_SUB,
    ALU_XOR,
    ALU_COUNT, /* of those with two operands that write */
    ALU_CMP = ALU_COUNT,
    ALU_TEST,
};
/* In the order of the opcodes' reg field. */
enum soft_shift {
    SHIFT_ROL,
    SHIFT_ROR,
    SHIFT_RCL,
    SHIFT_RCR,
    SHIFT_SHL,
    SHIFT_SHR,
    SHIFT_SAR,
    SHIFT_COUNT,
};
enum soft_bit { BIT_TEST, BIT_SET, BIT_RESET, BIT_COMPLEMENT, BIT_COUNT };
enum soft_scan { SCAN_BSF, SCAN_BSR, SCAN_TZCNT, SCAN_LZCNT, SCAN_POPCNT, SCAN_COUNT };
enum soft_bmi {
    BMI_ANDN,
    BMI_BEXTR,
    BMI_BZHI,
    BMI_BLSI,
    BMI_BLSMSK,
    BMI_BLSR,
    BMI_PDEP,
    BMI_PEXT,
    BMI_ADCX,
    BMI_ADOX,
    BMI_COUNT,
};
enum soft_simple {
    SIMPLE_CBW,
    SIMPLE_CWDE,
    SIMPLE_CDQE,
    SIMPLE_CWD,
    SIMPLE_CDQ,
    SIMPLE_CQO,
    SIMPLE_CLC,
    SIMPLE_STC,
    SIMPLE_CMC,
    SIMPLE_CLD,
    SIMPLE_STD,
    SIMPLE_LAHF,
    SIMPLE_SAHF,
    SIMPLE_AAA,
    SIMPLE_AAS,
    SIMPLE_AAM,
    SIMPLE_AAD,
    SIMPLE_DAA,
    SIMPLE_DAS,
    SIMPLE_SALC,
    SIMPLE_COUNT,
};
enum soft_unary { UNARY_INC, UNARY_DEC, UNARY_NEG, UNARY_NOT, UNARY_COUNT };

/* LOCK forms (op_locked.c): [SIZE…][KIND_INDEX or KIND_GENERAL - 1] */
enum { LOCKED_KINDS = 2 };
typedef soft_op_fn *soft_locked_handlers[SIZE_COUNT][LOCKED_KINDS];
extern const soft_locked_handlers soft_locked_alu_mr[ALU_COUNT], soft_locked_alu_mi[ALU_COUNT],
    soft_locked_unary[UNARY_COUNT];
static inline soft_op_fn *soft_locked_handler(const struct soft_lower *l,
                                              const soft_locked_handlers handlers, unsigned size)
{
    return handlers[size][soft_address_kind(l) == KIND_GENERAL];
}

#endif
