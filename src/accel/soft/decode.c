/* SPDX-License-Identifier: MIT */
/*
 * Guest bytes to operations.
 *
 * The bytes of a block are copied first (the guest may be writing them) and decoded by Zydis one
 * instruction at a time; the tables of lower_*.c and op_*.c turn each into one operation. A block ends
 * at a branch, at whatever may change the mode, the translation or the interrupt flag, at the end
 * of its page, or when it is full.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "accel/soft/code.h"
#include "accel/soft/lower.h"
#include "base/alloc.h"
#include "base/range.h"
#include "mem/dma.h"

#define INSTRUCTION_MAX 15 /* bytes; SDM volume 2, 2.3.11 */
/* Bytes that a block may have: most instructions have about 4. */
#define BLOCK_BYTES 512

/* ---- tables ---------------------------------------------------------------------------------- */

static const struct soft_lowering *by_mnemonic[ZYDIS_MNEMONIC_MAX_VALUE + 1];
/* MOVSD and CMPSD are names of string instructions, too. */
static const struct soft_lowering *strings[ZYDIS_MNEMONIC_MAX_VALUE + 1];

static void enter(const struct soft_lowering **table, const struct soft_lowering *rows)
{
    for (; rows->mnemonic; rows++) {
        table[rows->mnemonic] = rows;
    }
}

/* Zydis knows machine modes by the widths of code and stack; addresses and operands follow the code. */
enum { DECODER_REAL16, DECODER_16, DECODER_32, DECODER_64, DECODER_COUNT };
static ZydisDecoder decoders[DECODER_COUNT];
static ZydisDecoder decoders_bmi[DECODER_COUNT]; /* F3 BSF and BSR are TZCNT and LZCNT */

static void init_decoder(ZydisDecoder *decoder, ZydisMachineMode mode, ZydisStackWidth width,
                         bool counts)
{
    ZydisDecoderInit(decoder, mode, width);
    ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
    ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
    ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
    ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_FALSE);
    ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_TZCNT, counts);
    ZydisDecoderEnableMode(decoder, ZYDIS_DECODER_MODE_LZCNT, counts);
}

static void init(void)
{
    for (unsigned counts = 0; counts < 2; counts++) {
        ZydisDecoder *d = counts ? decoders_bmi : decoders;

        init_decoder(&d[DECODER_REAL16], ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16, counts);
        init_decoder(&d[DECODER_16], ZYDIS_MACHINE_MODE_LONG_COMPAT_16, ZYDIS_STACK_WIDTH_16,
                     counts);
        init_decoder(&d[DECODER_32], ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32,
                     counts);
        init_decoder(&d[DECODER_64], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64, counts);
    }
    enter(by_mnemonic, soft_lowering_integer);
    enter(by_mnemonic, soft_lowering_branch);
    enter(by_mnemonic, soft_lowering_far);
    enter(by_mnemonic, soft_lowering_system);
    enter(by_mnemonic, soft_lowering_x87);
    enter(by_mnemonic, soft_lowering_state);
    enter(by_mnemonic, soft_lowering_sse);
    enter(by_mnemonic, soft_lowering_avx);
    enter(strings, soft_lowering_string);
}

static const ZydisDecoder *decoder_of(const struct soft_features *features, uint32_t mode)
{
    /* LZCNT has a bit of its own, but no CPU has only one of the two. */
    const ZydisDecoder *d = features->bmi1 ? decoders_bmi : decoders;

    if (mode & SOFT_MODE_CODE64) {
        return &d[DECODER_64];
    }
    if (mode & SOFT_MODE_CODE32) {
        return &d[DECODER_32];
    }
    return &d[mode & SOFT_MODE_PROTECTED ? DECODER_16 : DECODER_REAL16];
}

static const struct soft_lowering *find(const struct soft_lower *l)
{
    uint16_t mnemonic = l->insn->mnemonic;
    ZydisInstructionCategory category = l->insn->meta.category;
    const struct soft_lowering *row = NULL;

    /* Zydis knows Knights Corner's forms of these, which are nobody else's. */
    if (l->insn->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX &&
        (mnemonic == ZYDIS_MNEMONIC_POPCNT || mnemonic == ZYDIS_MNEMONIC_TZCNT ||
         mnemonic == ZYDIS_MNEMONIC_LZCNT)) {
        return NULL;
    }
    /* Zydis knows AMD's XOP by the names of others, with other operands; and no row means these. */
    if (l->insn->encoding == ZYDIS_INSTRUCTION_ENCODING_XOP ||
        l->insn->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX ||
        l->insn->encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX) {
        return NULL;
    }
    if (category == ZYDIS_CATEGORY_STRINGOP || category == ZYDIS_CATEGORY_IOSTRINGOP ||
        category == ZYDIS_CATEGORY_IO) {
        row = strings[mnemonic];
    }
    if (!row) {
        row = by_mnemonic[mnemonic] ? by_mnemonic[mnemonic] : strings[mnemonic];
    }
    if (row && row->feature != SOFT_ALWAYS &&
        !*(const bool *)((const uint8_t *)l->features + row->feature)) {
        row = NULL;
    }
    return row;
}

/* ---- what lowering functions use -------------------------------------------------------------- */

uint8_t soft_gpr_offset(ZydisRegister reg)
{
    if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH) {
        return (uint8_t)((reg - ZYDIS_REGISTER_AH) * 8 + 1);
    }
    if (ZydisRegisterGetClass(reg) == ZYDIS_REGCLASS_GPR8) {
        /* AL CL DL BL, AH CH DH BH, SPL BPL SIL DIL, R8B… */
        unsigned id =
            reg <= ZYDIS_REGISTER_BL ? reg - ZYDIS_REGISTER_AL : reg - ZYDIS_REGISTER_SPL + 4u;
        return (uint8_t)(id * 8);
    }
    return (uint8_t)(ZydisRegisterGetId(reg) * 8);
}

uint8_t soft_reg_number(ZydisRegister reg)
{
    return (uint8_t)ZydisRegisterGetId(reg);
}

void soft_lower_call(struct soft_lower *l, soft_slow_fn *fn)
{
    l->op->fn = soft_op_call;
    l->op->imm = (uint64_t)(uintptr_t)fn;
}

void soft_lower_call_end(struct soft_lower *l, soft_slow_fn *fn)
{
    l->op->fn = soft_op_call_end;
    l->op->imm = (uint64_t)(uintptr_t)fn;
    l->ends_block = true;
}

static const struct soft_op *soft_op_fault(struct soft_cpu *cpu, const struct soft_op *op)
{
    if (op->imm == EXC_GP || op->imm == EXC_SS) {
        soft_op_raise(cpu, op, (uint8_t)op->imm, 0);
    }
    soft_op_raise_no_error(cpu, op, (uint8_t)op->imm);
}

void soft_lower_raise(struct soft_lower *l, uint8_t vector)
{
    l->op->fn = soft_op_fault;
    l->op->imm = vector;
    l->ends_block = true;
}

/* The operating system has said that it saves these registers. */
static bool is_enabled(const struct soft_cpu *cpu, enum soft_mode kind)
{
    if (kind == SOFT_MODE_AVX) {
        return cpu->cr4 & X86_CR4_OSXSAVE && (cpu->xcr0 & 6) == 6 && soft_is_protected(cpu);
    }
    return cpu->cr4 & X86_CR4_OSFXSR;
}

bool soft_lower_unit(struct soft_lower *l, enum soft_mode kind)
{
    bool is_available = l->mode & kind;

    if (is_available) {
        return true;
    }
    if (kind == SOFT_MODE_FPU) {
        /* EM and TS both give #NM for x87; for MMX, EM gives #UD. */
        bool mmx_emulated = l->mode & SOFT_MODE_EM && l->insn->meta.isa_set != ZYDIS_ISA_SET_X87;
        soft_lower_raise(l, mmx_emulated ? EXC_UD : EXC_NM);
    } else {
        /* #UD conditions come before TS: without EM and with the OS's consent only TS is left. */
        soft_lower_raise(l, l->mode & SOFT_MODE_TS && !(l->mode & SOFT_MODE_EM) &&
                                    is_enabled(l->cpu, kind)
                                ? EXC_NM
                                : EXC_UD);
    }
    return false;
}

/* ---- memory operands ------------------------------------------------------------------------- */

static uint8_t address_slot(ZydisRegister reg)
{
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        return (uint8_t)ZydisRegisterGetId(reg);
    default: /* none; a vector index is the instruction's own business */
        return SOFT_SLOT_ZERO;
    }
}

static bool is_ip(ZydisRegister reg)
{
    return reg == ZYDIS_REGISTER_RIP || reg == ZYDIS_REGISTER_EIP;
}

static unsigned log2_of_scale(unsigned scale)
{
    return scale == 8 ? 3 : scale == 4 ? 2 : scale == 2 ? 1 : 0;
}

/* SDM volume 2, table 2-3: with MOD = 0 a SIB base of 5 is a displacement whatever REX.B says. Zydis
 * 4.0 takes it for R13D if the address size is 32 bits. */
static bool has_no_base(const ZydisDecodedInstruction *insn)
{
    return insn->attributes & ZYDIS_ATTRIB_HAS_SIB && insn->raw.modrm.mod == 0 &&
           (insn->raw.sib.base & 7) == 5;
}

static void lower_memory(struct soft_lower *l, const ZydisDecodedOperandMem *mem)
{
    struct soft_op *op = l->op;
    unsigned segment = ZydisRegisterGetId(mem->segment);
    int64_t disp = mem->disp.value;
    bool is_64 = l->mode & SOFT_MODE_CODE64;

    if (ZydisRegisterGetClass(mem->segment) != ZYDIS_REGCLASS_SEGMENT) {
        segment = X86_DS;
    }
    op->base = address_slot(mem->base);
    op->index = address_slot(mem->index);
    op->scale = (uint8_t)log2_of_scale(mem->scale);
    op->info = (uint8_t)segment;
    if (has_no_base(l->insn)) {
        op->base = SOFT_SLOT_ZERO;
        disp = l->insn->raw.disp.value;
    }
    if (is_ip(mem->base)) {
        op->base = SOFT_SLOT_PAGE_IP;
        disp += op->offset + op->length;
        if (disp > INT32_MAX) {
            disp -= SOFT_PAGE_WRAP; /* two GiB ahead, less than a page */
            op->index = SOFT_SLOT_PAGE_WRAP;
        }
    }
    op->disp = (int32_t)disp;
    op->seg = (uint8_t)(is_64 && segment < X86_FS ? SOFT_SLOT_ZERO : SOFT_SLOT_SEG + segment);
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
    l->has_memory = true;
    l->is_general = op->info & SOFT_OP_GENERAL;
}

static const ZydisDecodedOperandMem *find_memory(const struct soft_lower *l)
{
    for (unsigned i = 0; i < l->insn->operand_count_visible; i++) {
        if (soft_is_memory(&l->operand[i]) &&
            l->operand[i].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT) {
            return &l->operand[i].mem;
        }
    }
    return NULL;
}

/* ---- MOV with a 64-bit address, which no operation has room for beside anything else ------------ */

static const struct soft_op *soft_op_load_moffs(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t linear = op->imm + cpu->slot[op->seg];

    switch (op->aux) {
    case 1:
        soft_set_reg8(cpu, 0, soft_load8(cpu, op, linear));
        break;
    case 2:
        soft_set_reg16(cpu, 0, soft_load16(cpu, op, linear));
        break;
    case 4:
        soft_set_reg32(cpu, 0, soft_load32(cpu, op, linear));
        break;
    default:
        soft_set_reg64(cpu, 0, soft_load64(cpu, op, linear));
    }
    SOFT_NEXT(cpu, op);
}

static const struct soft_op *soft_op_store_moffs(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t linear = op->imm + cpu->slot[op->seg];

    switch (op->aux) {
    case 1:
        soft_store8(cpu, op, linear, soft_reg8(cpu, 0));
        break;
    case 2:
        soft_store16(cpu, op, linear, soft_reg16(cpu, 0));
        break;
    case 4:
        soft_store32(cpu, op, linear, soft_reg32(cpu, 0));
        break;
    default:
        soft_store64(cpu, op, linear, soft_reg64(cpu, 0));
    }
    SOFT_NEXT(cpu, op);
}

static bool lower_moffs(struct soft_lower *l, const ZydisDecodedOperandMem *mem)
{
    if (l->insn->mnemonic != ZYDIS_MNEMONIC_MOV || mem->disp.value == (int32_t)mem->disp.value ||
        l->is_general) {
        return false;
    }
    l->op->fn = soft_is_memory(&l->operand[0]) ? soft_op_store_moffs : soft_op_load_moffs;
    l->op->aux = (uint16_t)l->width;
    l->op->imm = (uint64_t)mem->disp.value;
    return true;
}

/* ---- instructions ---------------------------------------------------------------------------- */

static void lower(struct soft_lower *l)
{
    const ZydisDecodedOperandMem *mem = find_memory(l);
    const struct soft_lowering *row = find(l);

    l->width = l->insn->operand_width / 8;
    if (mem) {
        lower_memory(l, mem);
        if (lower_moffs(l, mem)) {
            return;
        }
    }
    if (row) {
        row->fn(l, row->arg);
    }
    if (!l->op->fn) {
        soft_lower_raise(l, EXC_UD);
    }
}

static enum soft_branch branch_of(const ZydisDecodedInstruction *insn)
{
    switch (insn->meta.category) {
    case ZYDIS_CATEGORY_COND_BR:
        return SOFT_BRANCH_CONDITIONAL;
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
        return SOFT_BRANCH_ALWAYS;
    default:
        return SOFT_BRANCH_NONE;
    }
}

/* One instruction at bytes of which `left` are known. False: it is longer than that. */
static bool decode_one(struct soft_lower *l, const uint8_t *bytes, unsigned left, unsigned offset)
{
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    ZyanStatus status = ZydisDecoderDecodeFull(decoder_of(l->features, l->mode), bytes,
                                               MIN(left, INSTRUCTION_MAX), &insn, operands);

    memset(l->op, 0, sizeof(*l->op));
    l->op->offset = (uint16_t)offset;
    l->op->base = l->op->index = l->op->seg = SOFT_SLOT_ZERO;
    l->has_memory = l->is_general = l->ends_block = false;
    l->branch = SOFT_BRANCH_NONE;
    if (ZYAN_SUCCESS(status)) {
        l->branch = branch_of(&insn);
        l->insn = &insn;
        l->operand = operands;
        l->op->length = insn.length;
        lower(l);
        return true;
    }
    if (status == ZYDIS_STATUS_NO_MORE_DATA && left < INSTRUCTION_MAX) {
        return false;
    }
    l->op->length = 1; /* the block has at least this byte */
    soft_lower_raise(l, status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG ||
                                status == ZYDIS_STATUS_NO_MORE_DATA
                            ? EXC_GP
                            : EXC_UD);
    return true;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/* The bytes at linear, `size` of them, the last ones perhaps of the next page. */
static unsigned fetch_both(struct soft_cpu *cpu, uint64_t linear, const uint8_t *host,
                           uint8_t *bytes, struct soft_tlb_info *second, const uint8_t **host2)
{
    unsigned here = 4096 - (linear & 4095);
    uint64_t next = soft_next_page(cpu, linear);

    if (here >= INSTRUCTION_MAX) {
        here = INSTRUCTION_MAX;
        next = 0;
    }
    if (host) {
        guest_copy_from(bytes, host, here);
    } else {
        soft_fetch_bytes(cpu, linear, bytes, here);
    }
    if (here < INSTRUCTION_MAX && second) {
        *host2 = soft_fetch_pointer(cpu, next, second);
        if (*host2 && second->ram) {
            soft_code_claim(cpu, *host2, second->ram, second->ram_page);
            guest_copy_from(bytes + here, *host2, INSTRUCTION_MAX - here);
        } else {
            *host2 = NULL;
            soft_fetch_bytes(cpu, next, bytes + here, INSTRUCTION_MAX - here);
        }
        return INSTRUCTION_MAX;
    }
    return here;
}

static struct soft_block *finish(struct soft_cpu *cpu, const struct soft_block *head,
                                 const struct soft_op *ops, unsigned instructions)
{
    size_t size = sizeof(*head) + (head->op_count + 1u) * sizeof(*ops);
    struct soft_block *b = xmalloc(size);

    *b = *head;
    memcpy(b->op, ops, head->op_count * sizeof(*ops));
    memset(&b->op[head->op_count], 0, sizeof(*ops));
    b->instruction_count = (uint16_t)instructions;
    soft_block_links(b)->from = b;
    cpu->code->bytes += size;
    return b;
}

/* The block goes on behind its last instruction, unless that one says where. */
static void go_on(struct soft_block *head, struct soft_op *ops, const struct soft_lower *l,
                  unsigned offset)
{
    if (!l->ends_block) {
        ops[head->op_count++] =
            (struct soft_op){.fn = soft_op_continue, .offset = (uint16_t)offset};
    }
}

/* A single instruction, which may reach into the next page or lie in no memory. */
static struct soft_block *decode_alone(struct soft_cpu *cpu, struct soft_lower *l,
                                       struct soft_block *head, struct soft_op *ops,
                                       uint64_t linear, struct soft_tlb_info *second)
{
    unsigned here = 4096 - (linear & 4095);
    uint8_t bytes[INSTRUCTION_MAX];
    const uint8_t *host2 = NULL;
    unsigned left = fetch_both(cpu, linear, head->host, bytes, NULL, NULL);

    l->op = ops;
    if (!decode_one(l, bytes, left, head->first)) {
        left = fetch_both(cpu, linear, head->host, bytes, second, &host2);
        decode_one(l, bytes, left, head->first);
    }
    head->last = (uint16_t)(head->first + MIN(l->op->length, here));
    if (l->op->length > here) {
        head->host2 = host2;
        head->last2 = (uint16_t)(l->op->length - here);
    }
    head->op_count = 1;
    head->branch = l->branch;
    go_on(head, ops, l, head->first + l->op->length);
    soft_log_block(cpu, linear, bytes, head);
    return finish(cpu, head, ops, 1);
}

struct soft_block *soft_decode(struct soft_cpu *cpu, uint64_t linear, const uint8_t *host,
                               uint32_t mode, struct soft_tlb_info *second)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct soft_op ops[SOFT_BLOCK_OPS + 1];
    struct soft_block head = {.host = host, .mode = mode, .first = linear & 4095};
    struct soft_lower l = {.features = cpu->features, .cpu = cpu, .mode = mode};
    unsigned size = MIN(4096u - head.first, BLOCK_BYTES), at = 0, count = 0;
    uint8_t bytes[BLOCK_BYTES];

    pthread_once(&once, init);
    if (!host || mode & SOFT_MODE_SINGLE) {
        return decode_alone(cpu, &l, &head, ops, linear, second);
    }
    guest_copy_from(bytes, host, size);
    do {
        l.op = &ops[count];
        if (!decode_one(&l, bytes + at, size - at, head.first + at)) {
            break;
        }
        count++;
        at += l.op->length;
    } while (!l.ends_block && count < SOFT_BLOCK_OPS && at < size);
    if (count == 0) {
        return decode_alone(cpu, &l, &head, ops, linear, second);
    }
    head.last = (uint16_t)(head.first + at);
    head.op_count = (uint16_t)count;
    go_on(&head, ops, &l, head.last);
    soft_log_block(cpu, linear, bytes, &head);
    return finish(cpu, &head, ops, count);
}
