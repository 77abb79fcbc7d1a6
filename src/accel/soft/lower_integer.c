/* SPDX-License-Identifier: MIT */
/* The integer instructions: which function lowers which (integer.h says where they are). */
#include "accel/soft/integer.h"

void soft_lower_implicit(struct soft_lower *l, enum x86_gpr base)
{
    struct soft_op *op = l->op;
    unsigned segment = X86_DS;

    for (unsigned i = 0; i < l->insn->operand_count; i++) {
        const ZydisDecodedOperandMem *mem = &l->operand[i].mem;

        if (soft_is_memory(&l->operand[i]) && ZydisRegisterGetId(mem->base) == (int)base &&
            ZydisRegisterGetClass(mem->segment) == ZYDIS_REGCLASS_SEGMENT) {
            segment = (unsigned)ZydisRegisterGetId(mem->segment);
            break;
        }
    }
    op->base = (uint8_t)base;
    op->index = SOFT_SLOT_ZERO;
    op->info = (uint8_t)segment;
    op->seg = (uint8_t)(l->mode & SOFT_MODE_CODE64 && segment < X86_FS ? SOFT_SLOT_ZERO
                                                                       : SOFT_SLOT_SEG + segment);
    switch (l->insn->address_width) {
    case 16:
        op->info |= SOFT_OP_ADDR16 | SOFT_OP_GENERAL;
        break;
    case 32:
        op->info |= SOFT_OP_ADDR32 | SOFT_OP_GENERAL;
        break;
    default:
        break;
    }
}

#define ALWAYS(name, fn, arg)                                                                      \
    {                                                                                              \
        ZYDIS_MNEMONIC_##name, SOFT_ALWAYS, fn, arg                                                \
    }
#define WITH(name, member, fn, arg)                                                                \
    {                                                                                              \
        ZYDIS_MNEMONIC_##name, SOFT_IF(member), fn, arg                                            \
    }
#define CONDITION(NAME, cc)                                                                        \
    WITH(CMOV##NAME, cmov, soft_lower_cmov, cc), ALWAYS(SET##NAME, soft_lower_setcc, cc)

const struct soft_lowering soft_lowering_integer[] = {
    /* op_alu.c */
    ALWAYS(ADD, soft_lower_alu, ALU_ADD),
    ALWAYS(OR, soft_lower_alu, ALU_OR),
    ALWAYS(ADC, soft_lower_alu, ALU_ADC),
    ALWAYS(SBB, soft_lower_alu, ALU_SBB),
    ALWAYS(AND, soft_lower_alu, ALU_AND),
    ALWAYS(SUB, soft_lower_alu, ALU_SUB),
    ALWAYS(XOR, soft_lower_alu, ALU_XOR),
    ALWAYS(CMP, soft_lower_compare, ALU_CMP),
    ALWAYS(TEST, soft_lower_compare, ALU_TEST),
    ALWAYS(INC, soft_lower_unary, UNARY_INC),
    ALWAYS(DEC, soft_lower_unary, UNARY_DEC),
    ALWAYS(NEG, soft_lower_unary, UNARY_NEG),
    ALWAYS(NOT, soft_lower_unary, UNARY_NOT),
    /* op_locked.c */
    ALWAYS(XCHG, soft_lower_xchg, 0),
    ALWAYS(XADD, soft_lower_xadd, 0),
    ALWAYS(CMPXCHG, soft_lower_cmpxchg, 0),
    WITH(CMPXCHG8B, cx8, soft_lower_cmpxchg_wide, 8),
    WITH(CMPXCHG16B, cx16, soft_lower_cmpxchg_wide, 16),
    /* op_mov.c */
    ALWAYS(MOV, soft_lower_mov, 0),
    ALWAYS(MOVZX, soft_lower_extend, 0),
    ALWAYS(MOVSX, soft_lower_extend, 1),
    ALWAYS(MOVSXD, soft_lower_extend, 1),
    ALWAYS(LEA, soft_lower_lea, 0),
    ALWAYS(BSWAP, soft_lower_bswap, 0),
    WITH(MOVBE, movbe, soft_lower_movbe, 0),
    WITH(MOVNTI, sse2, soft_lower_movnti, 0),
    CONDITION(O, 0x0),
    CONDITION(NO, 0x1),
    CONDITION(B, 0x2),
    CONDITION(NB, 0x3),
    CONDITION(Z, 0x4),
    CONDITION(NZ, 0x5),
    CONDITION(BE, 0x6),
    CONDITION(NBE, 0x7),
    CONDITION(S, 0x8),
    CONDITION(NS, 0x9),
    CONDITION(P, 0xa),
    CONDITION(NP, 0xb),
    CONDITION(L, 0xc),
    CONDITION(NL, 0xd),
    CONDITION(LE, 0xe),
    CONDITION(NLE, 0xf),
    /* op_shift.c */
    ALWAYS(ROL, soft_lower_shift, SHIFT_ROL),
    ALWAYS(ROR, soft_lower_shift, SHIFT_ROR),
    ALWAYS(RCL, soft_lower_shift, SHIFT_RCL),
    ALWAYS(RCR, soft_lower_shift, SHIFT_RCR),
    ALWAYS(SHL, soft_lower_shift, SHIFT_SHL),
    ALWAYS(SHR, soft_lower_shift, SHIFT_SHR),
    ALWAYS(SAR, soft_lower_shift, SHIFT_SAR),
    ALWAYS(SHLD, soft_lower_double_shift, 0),
    ALWAYS(SHRD, soft_lower_double_shift, 1),
    WITH(SHLX, bmi2, soft_lower_shift_bmi2, SHIFT_SHL),
    WITH(SHRX, bmi2, soft_lower_shift_bmi2, SHIFT_SHR),
    WITH(SARX, bmi2, soft_lower_shift_bmi2, SHIFT_SAR),
    WITH(RORX, bmi2, soft_lower_shift_bmi2, SHIFT_ROR),
    /* op_muldiv.c */
    ALWAYS(MUL, soft_lower_mul, 0),
    ALWAYS(IMUL, soft_lower_imul, 0),
    ALWAYS(DIV, soft_lower_div, 0),
    ALWAYS(IDIV, soft_lower_div, 1),
    WITH(MULX, bmi2, soft_lower_mulx, 0),
    /* op_bit.c; TZCNT and LZCNT are BSF and BSR where they are not offered */
    ALWAYS(BT, soft_lower_bit_test, BIT_TEST),
    ALWAYS(BTS, soft_lower_bit_test, BIT_SET),
    ALWAYS(BTR, soft_lower_bit_test, BIT_RESET),
    ALWAYS(BTC, soft_lower_bit_test, BIT_COMPLEMENT),
    ALWAYS(BSF, soft_lower_bit_scan, SCAN_BSF),
    ALWAYS(BSR, soft_lower_bit_scan, SCAN_BSR),
    ALWAYS(TZCNT, soft_lower_bit_scan, SCAN_TZCNT),
    ALWAYS(LZCNT, soft_lower_bit_scan, SCAN_LZCNT),
    WITH(POPCNT, popcnt, soft_lower_bit_scan, SCAN_POPCNT),
    WITH(CRC32, sse4_2, soft_lower_crc32, 0),
    WITH(ANDN, bmi1, soft_lower_bmi, BMI_ANDN),
    WITH(BEXTR, bmi1, soft_lower_bmi, BMI_BEXTR),
    WITH(BLSI, bmi1, soft_lower_bmi, BMI_BLSI),
    WITH(BLSMSK, bmi1, soft_lower_bmi, BMI_BLSMSK),
    WITH(BLSR, bmi1, soft_lower_bmi, BMI_BLSR),
    WITH(BZHI, bmi2, soft_lower_bmi, BMI_BZHI),
    WITH(PDEP, bmi2, soft_lower_bmi, BMI_PDEP),
    WITH(PEXT, bmi2, soft_lower_bmi, BMI_PEXT),
    WITH(ADCX, adx, soft_lower_bmi, BMI_ADCX),
    WITH(ADOX, adx, soft_lower_bmi, BMI_ADOX),
    /* op_misc.c */
    ALWAYS(CBW, soft_lower_simple, SIMPLE_CBW),
    ALWAYS(CWDE, soft_lower_simple, SIMPLE_CWDE),
    ALWAYS(CDQE, soft_lower_simple, SIMPLE_CDQE),
    ALWAYS(CWD, soft_lower_simple, SIMPLE_CWD),
    ALWAYS(CDQ, soft_lower_simple, SIMPLE_CDQ),
    ALWAYS(CQO, soft_lower_simple, SIMPLE_CQO),
    ALWAYS(CLC, soft_lower_simple, SIMPLE_CLC),
    ALWAYS(STC, soft_lower_simple, SIMPLE_STC),
    ALWAYS(CMC, soft_lower_simple, SIMPLE_CMC),
    ALWAYS(CLD, soft_lower_simple, SIMPLE_CLD),
    ALWAYS(STD, soft_lower_simple, SIMPLE_STD),
    ALWAYS(LAHF, soft_lower_simple, SIMPLE_LAHF),
    ALWAYS(SAHF, soft_lower_simple, SIMPLE_SAHF),
    ALWAYS(AAA, soft_lower_simple, SIMPLE_AAA),
    ALWAYS(AAS, soft_lower_simple, SIMPLE_AAS),
    ALWAYS(AAM, soft_lower_simple, SIMPLE_AAM),
    ALWAYS(AAD, soft_lower_simple, SIMPLE_AAD),
    ALWAYS(DAA, soft_lower_simple, SIMPLE_DAA),
    ALWAYS(DAS, soft_lower_simple, SIMPLE_DAS),
    ALWAYS(SALC, soft_lower_simple, SIMPLE_SALC),
    ALWAYS(XLAT, soft_lower_xlat, 0),
    ALWAYS(BOUND, soft_lower_bound, 0),
    /* Hints, and what is one where it is not offered (CET, CLDEMOTE). */
    ALWAYS(NOP, soft_lower_nop, 0),
    ALWAYS(ENDBR32, soft_lower_nop, 0),
    ALWAYS(ENDBR64, soft_lower_nop, 0),
    ALWAYS(RDSSPD, soft_lower_nop, 0),
    ALWAYS(RDSSPQ, soft_lower_nop, 0),
    ALWAYS(CLDEMOTE, soft_lower_nop, 0),
    ALWAYS(PREFETCH, soft_lower_nop, 0),
    ALWAYS(PREFETCHNTA, soft_lower_nop, 0),
    ALWAYS(PREFETCHT0, soft_lower_nop, 0),
    ALWAYS(PREFETCHT1, soft_lower_nop, 0),
    ALWAYS(PREFETCHT2, soft_lower_nop, 0),
    ALWAYS(PREFETCHW, soft_lower_nop, 0),
    ALWAYS(PREFETCHWT1, soft_lower_nop, 0),
    /* stack.c */
    ALWAYS(PUSH, soft_lower_push, 0),
    ALWAYS(POP, soft_lower_pop, 0),
    ALWAYS(PUSHA, soft_lower_pusha, 0),
    ALWAYS(PUSHAD, soft_lower_pusha, 0),
    ALWAYS(POPA, soft_lower_popa, 0),
    ALWAYS(POPAD, soft_lower_popa, 0),
    ALWAYS(ENTER, soft_lower_enter, 0),
    ALWAYS(LEAVE, soft_lower_leave, 0),
    ALWAYS(PUSHF, soft_lower_pushf, 0),
    ALWAYS(PUSHFD, soft_lower_pushf, 0),
    ALWAYS(PUSHFQ, soft_lower_pushf, 0),
    ALWAYS(POPF, soft_lower_popf, 0),
    ALWAYS(POPFD, soft_lower_popf, 0),
    ALWAYS(POPFQ, soft_lower_popf, 0),
    {0},
};
