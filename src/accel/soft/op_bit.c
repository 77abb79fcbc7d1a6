/* SPDX-License-Identifier: MIT */
/*
 * BT, BTS, BTR, BTC; BSF, BSR, TZCNT, LZCNT, POPCNT, CRC32; ANDN, BEXTR, BZHI, BLSI, BLSMSK, BLSR,
 * PDEP, PEXT; ADCX, ADOX (SDM volume 2). Those of BMI1, BMI2 and ADX are written as assembly: the
 * build needs no such host, and they run only where the CPU model offers them, thus where the host
 * has them.
 */
#include "accel/soft/integer.h"

/* ---- BT, BTS, BTR, BTC ----------------------------------------------------------------------- */

/* Only CF changes. offset: within the operand. */
static inline void set_carry(struct soft_cpu *cpu, bool carry)
{
    cpu->status = (cpu->status & ~SOFT_CF) | (carry ? SOFT_CF : 0);
}

#define BIT_CHANGE(prefix, insn, bits, where, a, offset)                                           \
    do {                                                                                           \
        bool carry;                                                                                \
        __asm__ volatile(prefix insn SOFT_SUFFIX_##bits " %[y], %[x]"                              \
                         : [x] where(a), "=@ccc"(carry)                                            \
                         : [y] "r"((uint##bits##_t)((offset) & (bits - 1)))                        \
                         : "memory");                                                              \
        set_carry(cpu, carry);                                                                     \
    } while (0);

/* Registers. */
#define BIT_REG(name, insn, bits)                                                                  \
    SOFT_HANDLER(name##bits##_rr)                                                                  \
    {                                                                                              \
        uint##bits##_t value = soft_reg##bits(cpu, op->dst);                                       \
        BIT_CHANGE("", insn, bits, "+r", value, soft_reg##bits(cpu, op->src))                      \
        soft_set_reg##bits(cpu, op->dst, value);                                                   \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    SOFT_HANDLER(name##bits##_ri)                                                                  \
    {                                                                                              \
        uint##bits##_t value = soft_reg##bits(cpu, op->dst);                                       \
        BIT_CHANGE("", insn, bits, "+r", value, op->aux)                                           \
        soft_set_reg##bits(cpu, op->dst, value);                                                   \
        SOFT_NEXT(cpu, op);                                                                        \
    }
#define BIT_REG_TEST(bits)                                                                         \
    SOFT_HANDLER(bt##bits##_rr)                                                                    \
    {                                                                                              \
        set_carry(cpu, soft_reg##bits(cpu, op->dst) >> (soft_reg##bits(cpu, op->src) % bits) & 1); \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    SOFT_HANDLER(bt##bits##_ri)                                                                    \
    {                                                                                              \
        set_carry(cpu, soft_reg##bits(cpu, op->dst) >> op->aux & 1);                               \
        SOFT_NEXT(cpu, op);                                                                        \
    }

/*
 * Memory with an offset in a register: a bit string, of which the word that holds the bit is the
 * operand (SDM volume 2, 3.1.1.9, BitBase). Lowering has moved the base register's number to aux and
 * made the base a temporary slot.
 */
#define BIT_BASE(bits)                                                                             \
    cpu->temp[0] =                                                                                 \
        cpu->slot[op->aux] +                                                                       \
        (uint64_t)(((int64_t)(int##bits##_t)soft_reg##bits(cpu, op->src) & -(int64_t)bits) / 8)
#define BIT_MEMORY_READ(bits)                                                                      \
    SOFT_APART_HANDLER(bt##bits##_mr_g)                                                            \
    {                                                                                              \
        BIT_BASE(bits);                                                                            \
        uint##bits##_t m = soft_load##bits(cpu, op, soft_linear(cpu, op, bits / 8, SOFT_READ));    \
        set_carry(cpu, m >> (soft_reg##bits(cpu, op->src) % bits) & 1);                            \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    SOFT_HANDLER(bt##bits##_mr_x)                                                                  \
    {                                                                                              \
        BIT_BASE(bits);                                                                            \
        SOFT_FAST_POINTER(read, soft_linear_64(cpu, op), bits, bt##bits##_mr_g)                    \
        set_carry(cpu, soft_host_load##bits(p) >> (soft_reg##bits(cpu, op->src) % bits) & 1);      \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    SOFT_READ_HANDLERS_X(bt##bits##_mi, bits, set_carry(cpu, m >> op->aux & 1);)
#define BIT_MEMORY_CHANGE(name, how, prefix, insn, bits)                                           \
    SOFT_APART_HANDLER(name##bits##_mr_##how##_g)                                                  \
    {                                                                                              \
        BIT_BASE(bits);                                                                            \
        const uint64_t linear = soft_linear(cpu, op, bits / 8, SOFT_WRITE);                        \
        void *const p = soft_##how##_begin(cpu, op, linear, bits / 8);                             \
        BIT_CHANGE(prefix, insn, bits, "+m", SOFT_MEM(bits, p), soft_reg##bits(cpu, op->src))      \
        soft_##how##_end(cpu, op, linear, p, bits / 8);                                            \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    SOFT_HANDLER(name##bits##_mr_##how##_x)                                                        \
    {                                                                                              \
        BIT_BASE(bits);                                                                            \
        SOFT_FAST_POINTER(write, soft_linear_64(cpu, op), bits, name##bits##_mr_##how##_g)         \
        BIT_CHANGE(prefix, insn, bits, "+m", SOFT_MEM(bits, p), soft_reg##bits(cpu, op->src))      \
        SOFT_NEXT(cpu, op);                                                                        \
    }                                                                                              \
    SOFT_RMW_HANDLERS_X(name##bits##_mi_##how, how, bits,                                          \
                        BIT_CHANGE(prefix, insn, bits, "+m", SOFT_MEM(bits, p), op->aux))
#define BIT_HANDLERS(bits)                                                                         \
    BIT_REG_TEST(bits)                                                                             \
    BIT_REG(bts, "bts", bits)                                                                      \
    BIT_REG(btr, "btr", bits)                                                                      \
    BIT_REG(btc, "btc", bits)                                                                      \
    BIT_MEMORY_READ(bits)                                                                          \
    BIT_MEMORY_CHANGE(bts, rmw, "", "bts", bits)                                                   \
    BIT_MEMORY_CHANGE(btr, rmw, "", "btr", bits)                                                   \
    BIT_MEMORY_CHANGE(btc, rmw, "", "btc", bits)                                                   \
    BIT_MEMORY_CHANGE(bts, locked, "lock ", "bts", bits)                                           \
    BIT_MEMORY_CHANGE(btr, locked, "lock ", "btr", bits)                                           \
    BIT_MEMORY_CHANGE(btc, locked, "lock ", "btc", bits)
BIT_HANDLERS(16)
BIT_HANDLERS(32)
BIT_HANDLERS(64)

struct bit_forms {
    soft_op_fn *rr, *ri, *mr[KIND_COUNT], *mi[KIND_COUNT], *lock_mr[KIND_COUNT],
        *lock_mi[KIND_COUNT];
};
#define BT_FORMS(bits)                                                                             \
    {                                                                                              \
        .rr = bt##bits##_rr, .ri = bt##bits##_ri, .mr = SOFT_KINDS_X(bt##bits##_mr),               \
        .mi = SOFT_KINDS_X(bt##bits##_mi),                                                         \
    }
#define BIT_FORMS(name)                                                                            \
    {                                                                                              \
        .rr = name##_rr, .ri = name##_ri, .mr = SOFT_KINDS_X(name##_mr_rmw),                       \
        .mi = SOFT_KINDS_X(name##_mi_rmw), .lock_mr = SOFT_KINDS_X(name##_mr_locked),              \
        .lock_mi = SOFT_KINDS_X(name##_mi_locked),                                                 \
    }
#define BIT_ROW(name)                                                                              \
    {                                                                                              \
        [SIZE16] = BIT_FORMS(name##16), [SIZE32] = BIT_FORMS(name##32),                            \
        [SIZE64] = BIT_FORMS(name##64),                                                            \
    }
static const struct bit_forms bit_forms[BIT_COUNT][SIZE_COUNT] = {
    [BIT_TEST] = {[SIZE16] = BT_FORMS(16), [SIZE32] = BT_FORMS(32), [SIZE64] = BT_FORMS(64)},
    [BIT_SET] = BIT_ROW(bts),
    [BIT_RESET] = BIT_ROW(btr),
    [BIT_COMPLEMENT] = BIT_ROW(btc),
};

/* arg: enum soft_bit. */
void soft_lower_bit_test(struct soft_lower *l, uintptr_t arg)
{
    const ZydisDecodedOperand *to = soft_operand(l, 0), *offset = soft_operand(l, 1);
    const struct bit_forms *forms = &bit_forms[arg][soft_size_index(to->size)];
    unsigned kind = soft_address_kind(l);
    bool has_lock = soft_has_lock(l);

    if (soft_is_immediate(offset)) {
        l->op->aux = (uint16_t)(offset->imm.value.u & (to->size - 1u));
    } else {
        l->op->src = soft_operand_reg(l, 1);
    }
    if (!soft_is_memory(to)) {
        l->op->dst = soft_operand_reg(l, 0);
        l->op->fn = soft_is_immediate(offset) ? forms->ri : forms->rr;
    } else if (soft_is_immediate(offset)) {
        l->op->fn = has_lock ? forms->lock_mi[kind] : forms->mi[kind];
    } else {
        l->op->aux = l->op->base;
        l->op->base = SOFT_SLOT_TEMP;
        l->op->fn = has_lock ? forms->lock_mr[kind] : forms->mr[kind];
    }
}

/* ---- forms register, register or memory ------------------------------------------------------- */

struct scan_forms {
    soft_op_fn *r, *m[KIND_COUNT];
};
#define SCAN_FORMS(name)                                                                           \
    {                                                                                              \
        name##_r, SOFT_KINDS_X(name##_m)                                                           \
    }
/* What CHANGE(…, value) makes of the source goes to op->dst. */
#define SCAN_HANDLERS(name, bits, CHANGE, insn)                                                    \
    SOFT_HANDLER(name##bits##_r)                                                                   \
    {                                                                                              \
        CHANGE(insn, bits, soft_reg##bits(cpu, op->src)) SOFT_NEXT(cpu, op);                       \
    }                                                                                              \
    SOFT_READ_HANDLERS_X(name##bits##_m, bits, CHANGE(insn, bits, m))

static void lower_scan(struct soft_lower *l, unsigned from, const struct scan_forms *form)
{
    l->op->dst = soft_operand_reg(l, 0);
    if (soft_is_memory(soft_operand(l, from))) {
        l->op->fn = form->m[soft_address_kind(l)];
    } else {
        l->op->src = soft_operand_reg(l, from);
        l->op->fn = form->r;
    }
}

/* ---- BSF, BSR, TZCNT, LZCNT, POPCNT, CRC32 --------------------------------------------------- */

/*
 * The destination goes through the host's instruction as a whole: BSF and BSR of zero leave it (or what
 * of it the host leaves). The other flags are undefined or zero: the host's.
 */
#define SCAN(insn, bits, value)                                                                    \
    do {                                                                                           \
        uint64_t to = soft_reg64(cpu, op->dst);                                                    \
        uint32_t status = cpu->status;                                                             \
        __asm__(SOFT_FLAGS_LOAD insn SOFT_SUFFIX_##bits " %[y], %" SOFT_MODIFIER_##bits            \
                "[x]" SOFT_FLAGS_SAVE                                                              \
                : [x] "+&r"(to), "+&a"(status)                                                     \
                : [y] "r"((uint##bits##_t)(value))                                                 \
                : "cc");                                                                           \
        soft_set_reg64(cpu, op->dst, to);                                                          \
        cpu->status = status;                                                                      \
    } while (0);
#define SCAN_SIZES(name, insn)                                                                     \
    SCAN_HANDLERS(name, 16, SCAN, insn)                                                            \
    SCAN_HANDLERS(name, 32, SCAN, insn)                                                            \
    SCAN_HANDLERS(name, 64, SCAN, insn)
SCAN_SIZES(bsf, "bsf")
SCAN_SIZES(bsr, "bsr")
SCAN_SIZES(tzcnt, "tzcnt")
SCAN_SIZES(lzcnt, "lzcnt")
SCAN_SIZES(popcnt, "popcnt")

#define SCAN_ROW(name)                                                                             \
    {                                                                                              \
        [SIZE16] = SCAN_FORMS(name##16), [SIZE32] = SCAN_FORMS(name##32),                          \
        [SIZE64] = SCAN_FORMS(name##64),                                                           \
    }
/* arg: enum soft_scan. Without BMI1 or LZCNT the prefix F3 means nothing to BSF and BSR. */
void soft_lower_bit_scan(struct soft_lower *l, uintptr_t arg)
{
    static const struct scan_forms forms[SCAN_COUNT][SIZE_COUNT] = {
        [SCAN_BSF] = SCAN_ROW(bsf),       [SCAN_BSR] = SCAN_ROW(bsr),
        [SCAN_TZCNT] = SCAN_ROW(tzcnt),   [SCAN_LZCNT] = SCAN_ROW(lzcnt),
        [SCAN_POPCNT] = SCAN_ROW(popcnt),
    };

    if (arg == SCAN_TZCNT && !l->features->bmi1) {
        arg = SCAN_BSF;
    } else if (arg == SCAN_LZCNT && !l->features->lzcnt) {
        arg = SCAN_BSR;
    }
    lower_scan(l, 1, &forms[arg][soft_size_index(soft_operand(l, 0)->size)]);
}

/* The destination's upper half is cleared also when it is 64 bits wide. */
#define CRC(insn, bits, value)                                                                     \
    do {                                                                                           \
        uint32_t to = soft_reg32(cpu, op->dst);                                                    \
        __asm__("crc32" SOFT_SUFFIX_##bits " %[y], %k[x]"                                          \
                : [x] "+r"(to)                                                                     \
                : [y] "r"((uint##bits##_t)(value)));                                               \
        soft_set_reg32(cpu, op->dst, to);                                                          \
    } while (0);
#define CRC64(insn, bits, value)                                                                   \
    do {                                                                                           \
        uint64_t to = soft_reg32(cpu, op->dst);                                                    \
        __asm__("crc32q %[y], %[x]" : [x] "+r"(to) : [y] "r"((uint64_t)(value)));                  \
        soft_set_reg64(cpu, op->dst, to);                                                          \
    } while (0);
SCAN_HANDLERS(crc, 8, CRC, )
SCAN_HANDLERS(crc, 16, CRC, )
SCAN_HANDLERS(crc, 32, CRC, )
SCAN_HANDLERS(crc, 64, CRC64, )

void soft_lower_crc32(struct soft_lower *l, uintptr_t arg)
{
    static const struct scan_forms forms[SIZE_COUNT] = {SCAN_FORMS(crc8), SCAN_FORMS(crc16),
                                                        SCAN_FORMS(crc32), SCAN_FORMS(crc64)};

    lower_scan(l, 1, &forms[soft_size_index(soft_operand(l, 1)->size)]);
}

/* ---- BMI1, BMI2, ADX ------------------------------------------------------------------------- */

/* Two sources: v is the register operand, in either order. */
#define BMI_ASM(text, bits, load, save, other, value)                                              \
    do {                                                                                           \
        uint##bits##_t to;                                                                         \
        uint32_t status = cpu->status;                                                             \
        __asm__(load text save                                                                     \
                : [x] "=&r"(to), "+&a"(status)                                                     \
                : [v] "r"(other), [m] "r"((uint##bits##_t)(value))                                 \
                : "cc");                                                                           \
        soft_set_reg##bits(cpu, op->dst, to);                                                      \
        cpu->status = status;                                                                      \
    } while (0);
#define AUX_REG(bits) soft_reg##bits(cpu, (uint8_t)op->aux)
#define ANDN(insn, bits, value)                                                                    \
    BMI_ASM("andn %[m], %[v], %[x]", bits, SOFT_FLAGS_LOAD, SOFT_FLAGS_SAVE, AUX_REG(bits), value)
#define BEXTR(insn, bits, value)                                                                   \
    BMI_ASM("bextr %[v], %[m], %[x]", bits, SOFT_FLAGS_LOAD, SOFT_FLAGS_SAVE, AUX_REG(bits), value)
#define BZHI(insn, bits, value)                                                                    \
    BMI_ASM("bzhi %[v], %[m], %[x]", bits, SOFT_FLAGS_LOAD, SOFT_FLAGS_SAVE, AUX_REG(bits), value)
#define BLS(insn, bits, value)                                                                     \
    BMI_ASM(insn " %[m], %[x]", bits, SOFT_FLAGS_LOAD, SOFT_FLAGS_SAVE, (uint##bits##_t)0, value)
/* These two leave the flags alone. */
#define DEPOSIT(insn, bits, value)                                                                 \
    BMI_ASM(insn " %[m], %[v], %[x]", bits, "", "", AUX_REG(bits), value)
/* ADCX adds with CF and changes it alone, ADOX does so with OF. */
#define ADD_FLAG(insn, bits, value)                                                                \
    BMI_ASM("mov %[v], %[x]\n\t" SOFT_FLAGS_LOAD insn " %[m], %[x]", bits, "", SOFT_FLAGS_SAVE,    \
            soft_reg##bits(cpu, op->dst), value)

#define BMI_SIZES(name, CHANGE, insn)                                                              \
    SCAN_HANDLERS(name, 32, CHANGE, insn)                                                          \
    SCAN_HANDLERS(name, 64, CHANGE, insn)
BMI_SIZES(andn, ANDN, )
BMI_SIZES(bextr, BEXTR, )
BMI_SIZES(bzhi, BZHI, )
BMI_SIZES(blsi, BLS, "blsi")
BMI_SIZES(blsmsk, BLS, "blsmsk")
BMI_SIZES(blsr, BLS, "blsr")
BMI_SIZES(pdep, DEPOSIT, "pdep")
BMI_SIZES(pext, DEPOSIT, "pext")
BMI_SIZES(adcx, ADD_FLAG, "adcx")
BMI_SIZES(adox, ADD_FLAG, "adox")

#define BMI_ROW(name)                                                                              \
    {                                                                                              \
        SCAN_FORMS(name##32), SCAN_FORMS(name##64)                                                 \
    }
/* arg: enum soft_bmi. The operand that may be memory is the last, but for BEXTR and BZHI, where it is
 * the middle one. */
void soft_lower_bmi(struct soft_lower *l, uintptr_t arg)
{
    static const struct scan_forms forms[BMI_COUNT][2] = {
        [BMI_ANDN] = BMI_ROW(andn), [BMI_BEXTR] = BMI_ROW(bextr),   [BMI_BZHI] = BMI_ROW(bzhi),
        [BMI_BLSI] = BMI_ROW(blsi), [BMI_BLSMSK] = BMI_ROW(blsmsk), [BMI_BLSR] = BMI_ROW(blsr),
        [BMI_PDEP] = BMI_ROW(pdep), [BMI_PEXT] = BMI_ROW(pext),     [BMI_ADCX] = BMI_ROW(adcx),
        [BMI_ADOX] = BMI_ROW(adox),
    };
    unsigned from = 1;

    switch (arg) {
    case BMI_ANDN:
    case BMI_PDEP:
    case BMI_PEXT:
        from = 2;
        l->op->aux = soft_operand_reg(l, 1);
        break;
    case BMI_BEXTR:
    case BMI_BZHI:
        l->op->aux = soft_operand_reg(l, 2);
        break;
    default:
        break;
    }
    lower_scan(l, from, &forms[arg][soft_operand(l, 0)->size == 64]);
}
