/* SPDX-License-Identifier: MIT */
#include "input.h"

#include <string.h>

#include "base/bytes.h"
#include "base/range.h"
#include "values.h"

#define CODE_TARGET (CODE_AT + 0x100)

struct maker {
    struct random r;
    const struct form *form;
    const struct form_decoded *d;
    struct run_input *in;
    unsigned i;
    enum input_place place;
    bool is_fixed[16]; /* the register has been given an address */
    bool place_used;
};

/* ---- addresses -------------------------------------------------------------------------------- */

static uint8_t *image_at(struct maker *m, uint64_t address)
{
    if (address >= DATA_AT && address < DATA_AT + 2 * PAGE) {
        return m->in->image + IMAGE_DATA + (address - DATA_AT);
    }
    if (address >= STACK_AT && address < STACK_AT + 2 * PAGE) {
        return m->in->image + IMAGE_STACK + (address - STACK_AT);
    }
    return NULL;
}

/* Writes to the image what fits. */
static void put(struct maker *m, uint64_t address, const void *bytes, unsigned size)
{
    for (unsigned i = 0; i < size; i++) {
        uint8_t *p = image_at(m, address + i);
        if (p) {
            *p = ((const uint8_t *)bytes)[i];
        }
    }
}

static void put_number(struct maker *m, uint64_t address, uint64_t value, unsigned size)
{
    put(m, address, &value, size);
}

static unsigned gpr_number(ZydisRegister reg)
{
    return (unsigned)(ZydisRegisterGetId(
        ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg)));
}

static bool is_gpr(ZydisRegister reg)
{
    ZydisRegisterClass class = ZydisRegisterGetClass(reg);

    return class == ZYDIS_REGCLASS_GPR64 || class == ZYDIS_REGCLASS_GPR32 ||
           class == ZYDIS_REGCLASS_GPR16 || class == ZYDIS_REGCLASS_GPR8;
}

static bool is_vector_index(ZydisRegister reg)
{
    ZydisRegisterClass class = ZydisRegisterGetClass(reg);

    return class == ZYDIS_REGCLASS_XMM || class == ZYDIS_REGCLASS_YMM;
}

static uint64_t pick_address(struct maker *m, unsigned size, unsigned alignment)
{
    enum input_place place = m->place_used ? PLACE_ALIGNED : m->place;
    uint64_t middle = DATA_AT + 0x400 + 64 * random_below(&m->r, 16);

    m->place_used = true;
    size = size ? size : 1;
    switch (place) {
    case PLACE_UNALIGNED:
        return middle + 1 + random_below(&m->r, 62);
    case PLACE_STRADDLES:
        return DATA_AT + PAGE - (size > 1 ? 1 + random_below(&m->r, size - 1) : 1);
    case PLACE_ENDS:
        return DATA_AT + 2 * PAGE - size;
    case PLACE_UNMAPPED:
        return DATA_AT + 2 * PAGE - (size > 1 ? 1 + random_below(&m->r, size - 1) : 0);
    case PLACE_READ_ONLY:
        return RO_AT + 0x400;
    default:
        return middle + (alignment < 64 ? alignment * random_below(&m->r, 64 / alignment) : 0);
    }
}

static uint64_t pick_stack(struct maker *m)
{
    switch (m->place) {
    case PLACE_UNALIGNED:
        return STACK_AT + PAGE - 300 + random_below(&m->r, 600);
    case PLACE_STRADDLES:
        return STACK_AT + PAGE - 4 + random_below(&m->r, 8);
    case PLACE_ENDS: /* nothing to pop */
        return STACK_AT + 2 * PAGE - random_below(&m->r, 17);
    case PLACE_UNMAPPED: /* no room to push */
        return m->place_used ? STACK_AT + PAGE : STACK_AT + random_below(&m->r, 17);
    default:
        return STACK_AT + PAGE - 0x200 + 8 * random_below(&m->r, 128);
    }
}

static void set_gpr(struct maker *m, unsigned reg, uint64_t value)
{
    m->in->state.gpr[reg] = value;
}

static void set_address(struct maker *m, unsigned reg, uint64_t value, unsigned width)
{
    if (width < 64 && !m->form->is_compat) {
        uint64_t mask = (UINT64_C(1) << width) - 1;
        value = (value & mask) | (random_next(&m->r) & ~mask);
    }
    set_gpr(m, reg, value);
    m->is_fixed[reg] = true;
}

static void set_displacement(struct maker *m, uint64_t value)
{
    const ZydisDecodedInstruction *insn = &m->d->insn;

    memcpy(m->in->bytes + insn->raw.disp.offset, &value, insn->raw.disp.size / 8);
}

/* Lanes of an index register such that they stay near. */
static void set_index_lanes(struct maker *m, ZydisRegister reg)
{
    unsigned n = (unsigned)ZydisRegisterGetId(reg);
    bool is_quad = m->d->insn.mnemonic == ZYDIS_MNEMONIC_VPGATHERQD ||
                   m->d->insn.mnemonic == ZYDIS_MNEMONIC_VPGATHERQQ ||
                   m->d->insn.mnemonic == ZYDIS_MNEMONIC_VGATHERQPS ||
                   m->d->insn.mnemonic == ZYDIS_MNEMONIC_VGATHERQPD;

    for (unsigned k = 0; k < 32; k += is_quad ? 8 : 4) {
        int64_t v = (int64_t)random_below(&m->r, 128) - 64;
        uint8_t *half = m->in->state.area + (k < 16 ? AREA_XMM : AREA_YMM) + 16 * n + (k & 15);
        memcpy(half, &v, is_quad ? 8 : 4);
    }
}

/* Mod 0 with base 5 in the SIB byte is no base whatever REX.B says (SDM volume 2, table 2-3); Zydis
 * 4.0.0 names R13. */
static ZydisRegister base_of(const struct form_decoded *d, const ZydisDecodedOperand *operand)
{
    const ZydisDecodedInstruction *insn = &d->insn;

    if (insn->attributes & ZYDIS_ATTRIB_HAS_SIB && insn->raw.modrm.mod == 0 &&
        insn->raw.sib.base == 5 && operand->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM) {
        return ZYDIS_REGISTER_NONE;
    }
    return operand->mem.base;
}

/* Zydis 4.0.0 leaves the displacement out there, too. */
static int64_t displacement_of(const struct form_decoded *d, const ZydisDecodedOperand *operand)
{
    return base_of(d, operand) != operand->mem.base ? d->insn.raw.disp.value
                                                    : operand->mem.disp.value;
}

static void place_operand(struct maker *m, const ZydisDecodedOperand *operand)
{
    ZydisRegister base = base_of(m->d, operand);
    int64_t displacement = displacement_of(m->d, operand);
    const ZydisDecodedInstruction *insn = &m->d->insn;
    struct machine_state *s = &m->in->state;
    unsigned size = operand->size / 8, width = insn->address_width;
    uint64_t target, rest;

    if (operand->mem.type == ZYDIS_MEMOP_TYPE_AGEN) {
        return;
    }
    if (is_gpr(base) && gpr_number(base) == RSP) {
        if (!m->is_fixed[RSP]) {
            set_address(m, RSP, pick_stack(m), 64);
        }
        return;
    }
    if (is_gpr(base) && m->is_fixed[gpr_number(base)]) {
        return;
    }
    if (insn->meta.category == ZYDIS_CATEGORY_XSAVE ||
        insn->meta.category == ZYDIS_CATEGORY_XSAVEOPT) {
        size =
            AREA_SIZE; /* in 64 bytes' steps; where it does not fit not even its first part does */
        target = m->place == PLACE_UNMAPPED    ? DATA_AT + 2 * PAGE - 64 * 4
                 : m->place == PLACE_ENDS      ? DATA_AT + 2 * PAGE - size
                 : m->place == PLACE_STRADDLES ? DATA_AT + PAGE - 64 * (1 + random_below(&m->r, 12))
                                               : pick_address(m, size, 64);
    } else {
        target = pick_address(m, size, size >= 64 ? 64 : size >= 16 ? 32 : 8);
    }
    if (operand->mem.segment == ZYDIS_REGISTER_GS) {
        rest = target - s->gs_base;
    } else if (operand->mem.segment == ZYDIS_REGISTER_FS) {
        rest = target - s->fs_base;
    } else {
        rest = target;
    }
    rest -= (uint64_t)displacement;
    if (is_gpr(operand->mem.index) && base != ZYDIS_REGISTER_NONE) {
        unsigned index = gpr_number(operand->mem.index);
        uint64_t v = s->gpr[index];
        if (width == 32) {
            v &= UINT32_MAX;
        }
        m->is_fixed[index] = true;
        rest -= v * operand->mem.scale;
    } else if (is_gpr(operand->mem.index)) {
        set_address(m, gpr_number(operand->mem.index), rest / operand->mem.scale, width);
        return;
    } else if (is_vector_index(operand->mem.index)) {
        set_index_lanes(m, operand->mem.index);
    }
    if (base == ZYDIS_REGISTER_RIP || base == ZYDIS_REGISTER_EIP) {
        set_displacement(m, rest + (uint64_t)displacement - s->rip - insn->length);
    } else if (base == ZYDIS_REGISTER_NONE) {
        set_displacement(m, rest + (uint64_t)displacement);
    } else if (is_gpr(base)) {
        set_address(m, gpr_number(base), rest, width);
    }
}

/* ---- immediates -------------------------------------------------------------------------------- */

static void fill_immediates(struct maker *m)
{
    const ZydisDecodedInstruction *insn = &m->d->insn;

    for (unsigned k = 0; k < 2; k++) {
        unsigned size = insn->raw.imm[k].size / 8;
        uint8_t *at = m->in->bytes + insn->raw.imm[k].offset;
        uint64_t v;

        if (!size) {
            continue;
        }
        if (insn->raw.imm[k].is_relative) {
            v = size == 1 ? random_below(&m->r, 100) : random_below(&m->r, 0x300);
            if (random_below(&m->r, 2)) { /* backwards, but not into itself */
                v = 0 - (v % 100 + 20);
            }
            memcpy(at, &v, size);
            continue;
        }
        v = value_integer(&m->r);
        if (size == 1 && m->i < 4) {
            v = m->i == 0 ? m->form->bytes[insn->raw.imm[k].offset] : v & 0x3f;
        }
        switch (insn->mnemonic) {
        case ZYDIS_MNEMONIC_ENTER: /* bytes; level */
            v = size == 2 ? random_below(&m->r, 600) : random_below(&m->r, 34);
            break;
        case ZYDIS_MNEMONIC_INT:
            v = (v & 0xff) == 0x80 ? 0x81 : v;
            break;
        case ZYDIS_MNEMONIC_CALL: /* far pointers of 32-bit code */
        case ZYDIS_MNEMONIC_JMP:
            v = k ? value_selector(&m->r) : CODE_TARGET + random_below(&m->r, 0x100);
            break;
        case ZYDIS_MNEMONIC_RET:
            v &= 0xfff;
            break;
        default:
            break;
        }
        if (insn->raw.encoding2 == ZYDIS_INSTRUCTION_ENCODING_VEX && size == 1) {
            for (unsigned o = 0; o < insn->operand_count_visible; o++) {
                if (m->d->operand[o].encoding == ZYDIS_OPERAND_ENCODING_IS4) {
                    v = (v & 0x0f) | (*at & 0xf0); /* the upper half is a register */
                }
            }
        }
        memcpy(at, &v, size);
    }
}

/* ---- what single instructions want -------------------------------------------------------------- */

static uint64_t operand_address(struct maker *m)
{
    const ZydisDecodedInstruction *insn = &m->d->insn;
    const struct machine_state *s = &m->in->state;

    for (unsigned i = 0; i < insn->operand_count; i++) {
        const ZydisDecodedOperand *o = &m->d->operand[i];
        int64_t disp = 0;
        uint64_t v;

        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY) {
            continue;
        }
        if (insn->raw.disp.size) {
            const uint8_t *at = m->in->bytes + insn->raw.disp.offset;
            switch (insn->raw.disp.size) {
            case 8:
                disp = (int8_t)*at;
                break;
            case 16:
                disp = (int16_t)load_le16(at);
                break;
            case 32:
                disp = (int32_t)load_le32(at);
                break;
            default:
                disp = (int64_t)load_le64(at);
                break;
            }
        }
        v = (uint64_t)disp;
        ZydisRegister base = base_of(m->d, o);
        if (base == ZYDIS_REGISTER_RIP || base == ZYDIS_REGISTER_EIP) {
            v += s->rip + insn->length;
        } else if (is_gpr(base)) {
            v += s->gpr[gpr_number(base)];
        }
        if (is_gpr(o->mem.index)) {
            v += s->gpr[gpr_number(o->mem.index)] * o->mem.scale;
        }
        if (insn->address_width == 32) {
            v &= UINT32_MAX;
        }
        v += o->mem.segment == ZYDIS_REGISTER_GS   ? s->gs_base
             : o->mem.segment == ZYDIS_REGISTER_FS ? s->fs_base
                                                   : 0;
        return v;
    }
    return 0;
}

static int register_operand(const struct maker *m, unsigned i)
{
    const ZydisDecodedOperand *o = &m->d->operand[i];

    return o->type == ZYDIS_OPERAND_TYPE_REGISTER && is_gpr(o->reg.value)
               ? (int)gpr_number(o->reg.value)
               : -1;
}

static uint64_t pick_target(struct maker *m)
{
    return random_below(&m->r, 16) ? CODE_TARGET + random_below(&m->r, 0x200)
                                   : value_integer(&m->r);
}

static void set_branch_target(struct maker *m)
{
    const ZydisDecodedInstruction *insn = &m->d->insn;
    int reg = register_operand(m, 0);
    uint8_t far[10];

    if (insn->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) {
        unsigned width = insn->operand_width / 8;

        store_le64(far, pick_target(m));
        store_le16(far + width, random_below(&m->r, 2)
                                    ? (m->form->is_compat ? SELECTOR_CODE32 : SELECTOR_CODE64)
                                    : value_selector(&m->r));
        put(m, operand_address(m), far, width + 2);
    } else if (reg >= 0) {
        set_gpr(m, (unsigned)reg, pick_target(m));
    } else if (m->d->operand[0].type == ZYDIS_OPERAND_TYPE_MEMORY) {
        put_number(m, operand_address(m), pick_target(m), insn->operand_width / 8);
    }
}

/* RET, IRET: RIP, CS, RFLAGS, RSP, SS. */
static void set_return_frame(struct maker *m)
{
    const ZydisDecodedInstruction *insn = &m->d->insn;
    uint64_t sp = m->in->state.gpr[RSP];
    unsigned width = insn->operand_width / 8;
    bool is_iret = insn->mnemonic == ZYDIS_MNEMONIC_IRET ||
                   insn->mnemonic == ZYDIS_MNEMONIC_IRETD || insn->mnemonic == ZYDIS_MNEMONIC_IRETQ;
    uint16_t code = m->form->is_compat ? SELECTOR_CODE32 : SELECTOR_CODE64;

    put_number(m, sp, pick_target(m), width);
    if (!is_iret && insn->meta.branch_type != ZYDIS_BRANCH_TYPE_FAR) {
        return;
    }
    put_number(m, sp + width, random_below(&m->r, 3) ? code : value_selector(&m->r), width);
    if (is_iret) { /* not TF and VM; not AC, which Linux takes for a split lock from here */
        put_number(m, sp + 2 * width, random_next(&m->r) & ~UINT64_C(0x60100), width);
        put_number(m, sp + 3 * width, STACK_AT + PAGE + 8 * random_below(&m->r, 16), width);
        put_number(m, sp + 4 * width,
                   random_below(&m->r, 3) ? SELECTOR_DATA : value_selector(&m->r), width);
    }
}

/* An XSAVE or FXSAVE image that mostly loads. */
static void set_save_area(struct maker *m)
{
    uint8_t area[AREA_SIZE];

    value_area(&m->r, area);
    memset(area + AREA_BV, 0, 64);
    area[AREA_BV] = (uint8_t)random_below(&m->r, 8);
    if (random_below(&m->r, 8) == 0) {
        area[AREA_BV + random_below(&m->r, 24)] |= (uint8_t)(1 << random_below(&m->r, 8));
    }
    if (random_below(&m->r, 8) == 0) {
        store_le32(area + AREA_MXCSR, (uint32_t)random_next(&m->r));
    }
    put(m, operand_address(m), area, sizeof(area));
    m->in->state.gpr[RAX] = random_below(&m->r, 8);
    m->in->state.gpr[RDX] = 0;
}

static void set_division(struct maker *m)
{
    struct machine_state *s = &m->in->state;

    switch (random_below(&m->r, 4)) {
    case 0:
        s->gpr[RDX] = 0;
        s->gpr[RAX] &= 0xff;
        break;
    case 1:
        s->gpr[RDX] = (uint64_t)((int64_t)s->gpr[RAX] >> 63);
        break;
    case 2:
        s->gpr[RDX] = random_below(&m->r, 100);
        break;
    default:
        break;
    }
}

/* What is compared is equal, half the time. */
static void set_equal(struct maker *m)
{
    const ZydisDecodedInstruction *insn = &m->d->insn;
    const struct machine_state *s = &m->in->state;
    uint8_t wide[16];
    int reg = register_operand(m, 0);

    if (random_below(&m->r, 2)) {
        return;
    }
    if (reg >= 0) {
        if (!m->is_fixed[reg]) {
            set_gpr(m, (unsigned)reg, s->gpr[RAX]);
        }
        return;
    }
    if (insn->mnemonic == ZYDIS_MNEMONIC_CMPXCHG) {
        put_number(m, operand_address(m), s->gpr[RAX], m->d->operand[0].size / 8);
        return;
    }
    unsigned half = insn->mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B ? 8 : 4;
    store_le64(wide, s->gpr[RAX]);
    store_le64(wide + half, s->gpr[RDX]);
    put(m, operand_address(m), wide, 2 * half);
}

static void set_specials(struct maker *m)
{
    static const uint64_t counts[] = {0, 1, 2, 3, 7, 33, 100, 5000};
    const ZydisDecodedInstruction *insn = &m->d->insn;
    struct machine_state *s = &m->in->state;
    int reg;

    if (insn->attributes &
        (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) {
        s->gpr[RCX] = counts[random_below(&m->r, ARRAY_SIZE(counts))];
    }
    switch (insn->meta.category) {
    case ZYDIS_CATEGORY_STRINGOP:
        if (random_below(&m->r, 3) == 0) {
            s->rflags |= 0x400;
        }
        if (random_below(&m->r, 2)) { /* runs of the same byte: SCAS and CMPS go far */
            memset(m->in->image + IMAGE_DATA, (int)(s->gpr[RAX] & 0xff), 2 * PAGE);
        }
        break;
    case ZYDIS_CATEGORY_RET:
        set_return_frame(m);
        break;
    default:
        break;
    }
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
        set_division(m);
        break;
    case ZYDIS_MNEMONIC_CMPXCHG:
    case ZYDIS_MNEMONIC_CMPXCHG8B:
    case ZYDIS_MNEMONIC_CMPXCHG16B:
        set_equal(m);
        break;
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_SUB:
    case ZYDIS_MNEMONIC_SCASB:
        if (random_below(&m->r, 4) == 0 && register_operand(m, 0) >= 0 &&
            register_operand(m, 1) >= 0) {
            set_gpr(m, (unsigned)register_operand(m, 0), s->gpr[(unsigned)register_operand(m, 1)]);
        }
        break;
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JRCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JCXZ: {
        static const uint64_t edges[] = {
            0, 1, 2, UINT64_C(1) << 32, (UINT64_C(1) << 32) + 1, 0x10000, 0x10001};
        s->gpr[RCX] = edges[random_below(&m->r, ARRAY_SIZE(edges))];
        if (m->form->is_compat) {
            s->gpr[RCX] &= UINT32_MAX;
        }
        break;
    }
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        reg = register_operand(m, 1);
        if (reg >= 0 && m->d->operand[0].type == ZYDIS_OPERAND_TYPE_MEMORY && !m->is_fixed[reg]) {
            uint64_t v = (uint64_t)((int64_t)random_below(&m->r, 4000) - 2000);
            /* Bits above the operand's size do not count. */
            unsigned size = m->d->operand[1].size;
            set_gpr(m, (unsigned)reg,
                    size < 64 && !m->form->is_compat
                        ? (v & ((UINT64_C(1) << size) - 1)) | (random_next(&m->r) << size)
                        : v);
        }
        break;
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_JMP:
        set_branch_target(m);
        break;
    case ZYDIS_MNEMONIC_ENTER:
    case ZYDIS_MNEMONIC_LEAVE:
        set_gpr(m, RBP, STACK_AT + PAGE + random_below(&m->r, 0x800));
        break;
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
        /* Not TF: single steps are the guests' matter. */
        put_number(m, s->gpr[RSP], random_next(&m->r) & ~UINT64_C(0x100), 8);
        break;
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
        set_save_area(m);
        break;
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
        put_number(m, operand_address(m),
                   random_next(&m->r) & (random_below(&m->r, 4) ? 0xffff : UINT32_MAX), 4);
        break;
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FLDCW:
        if (random_below(&m->r, 2)) { /* nothing unmasked */
            put_number(m, operand_address(m), 0x37f, 2);
        }
        break;
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
        reg = register_operand(m, 0);
        if (random_below(&m->r, 4)) {
            set_gpr(m, (unsigned)reg, (uint64_t)((int64_t)(s->gpr[reg] << 16) >> 16) & INT64_MAX);
        }
        break;
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS:
        put_number(m, operand_address(m) + insn->operand_width / 8, value_selector(&m->r), 2);
        break;
    case ZYDIS_MNEMONIC_POP:
        if (m->d->operand[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(m->d->operand[0].reg.value) == ZYDIS_REGCLASS_SEGMENT) {
            put_number(m, s->gpr[RSP], value_selector(&m->r), 2);
        }
        break;
    case ZYDIS_MNEMONIC_MOV:
        if (m->d->operand[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(m->d->operand[0].reg.value) == ZYDIS_REGCLASS_SEGMENT) {
            if (register_operand(m, 1) >= 0) {
                set_gpr(m, (unsigned)register_operand(m, 1), value_selector(&m->r));
            } else {
                put_number(m, operand_address(m), value_selector(&m->r), 2);
            }
        }
        break;
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_ARPL: {
        unsigned source = insn->operand_count_visible > 1 && insn->mnemonic != ZYDIS_MNEMONIC_ARPL;
        if (register_operand(m, source) >= 0) {
            set_gpr(m, (unsigned)register_operand(m, source), value_selector(&m->r));
        } else {
            put_number(m, operand_address(m), value_selector(&m->r), 2);
        }
        break;
    }
    default:
        break;
    }
}

/* ---- all --------------------------------------------------------------------------------------- */

void input_make(const struct form *form, const struct form_decoded *d, unsigned i,
                struct run_input *input)
{
    struct maker m = {.r = {form->hash + i * UINT64_C(0x632be59bd9b4e019)},
                      .form = form,
                      .d = d,
                      .in = input,
                      .i = i,
                      .place = (enum input_place)(i % PLACES)};
    struct machine_state *s = &input->state;

    memset(s, 0, sizeof(*s));
    input->length = form->length;
    memcpy(input->bytes, form->bytes, sizeof(input->bytes));
    for (unsigned n = 0; n < IMAGE_SIZE; n += 64) {
        value_vector(&m.r, input->image + n, 64);
    }
    value_area(&m.r, s->area);
    for (unsigned n = 0; n < 16; n++) {
        s->gpr[n] = value_integer(&m.r);
    }
    s->gpr[RSP] = STACK_AT + PAGE;
    /* In one of eight the instruction lies across the pages of CODE. */
    s->rip = i % PLACES == PLACE_ALIGNED_3 && form->length > 1
                 ? CODE_AT + PAGE - 1 - random_below(&m.r, form->length - 1u)
                 : CODE_AT + 0x800;
    s->rflags = 0x202 | (random_next(&m.r) & 0x8d5);
    if (random_below(&m.r, 8) == 0) {
        s->rflags |= 0x400;
    }
    if ((i % PLACES == PLACE_UNALIGNED || i % PLACES == PLACE_ALIGNED_2) &&
        random_below(&m.r, 8) == 0) {
        s->rflags |= 0x40000; /* AC */
    }
    s->ss = SELECTOR_DATA;
    s->cs = form->is_compat ? SELECTOR_CODE32 : SELECTOR_CODE64;
    if (form->is_compat) {
        s->ds = s->es = SELECTOR_DATA;
        for (unsigned n = 0; n < 16; n++) {
            s->gpr[n] &= UINT32_MAX;
        }
    } else {
        s->fs_base = UINT64_C(0x1000) * random_below(&m.r, 0x10000);
        s->gs_base = random_next(&m.r) & 0x7fffffff;
    }
    fill_immediates(&m);
    if (form->expects_undefined) {
        return;
    }
    for (unsigned o = 0; o < d->insn.operand_count; o++) {
        if (d->operand[o].type == ZYDIS_OPERAND_TYPE_MEMORY) {
            place_operand(&m, &d->operand[o]);
        }
    }
    set_specials(&m);
    if (form->is_compat) {
        for (unsigned n = 0; n < 16; n++) {
            s->gpr[n] = n < 8 ? s->gpr[n] & UINT32_MAX : 0;
        }
    }
}
