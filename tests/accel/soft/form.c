/* SPDX-License-Identifier: MIT */
#include "form.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

/* ---- the set of keys -------------------------------------------------------------------------- */

struct key_set {
    uint64_t *slot; /* 0: free */
    uint32_t *number;
    unsigned bits, used;
};

static uint64_t mix(uint64_t h, uint64_t v)
{
    h ^= v + UINT64_C(0x9e3779b97f4a7c15) + (h << 6) + (h >> 2);
    h *= UINT64_C(0xff51afd7ed558ccd);
    return h ^ (h >> 32);
}

static void key_set_init(struct key_set *set, unsigned bits)
{
    set->bits = bits;
    set->used = 0;
    set->slot = xcalloc(UINT64_C(1) << bits, sizeof(*set->slot));
    set->number = xcalloc(UINT64_C(1) << bits, sizeof(*set->number));
}

/* The slot of a key; *is_new: it was not there. */
static unsigned key_set_add(struct key_set *set, uint64_t key, bool *is_new)
{
    unsigned i = (unsigned)(key >> (64 - set->bits));

    key = key ? key : 1;
    while (set->slot[i] && set->slot[i] != key) {
        i = (i + 1) & ((1u << set->bits) - 1);
    }
    *is_new = !set->slot[i];
    if (*is_new) {
        if (++set->used >= 1u << (set->bits - 1)) {
            fprintf(stderr, "more forms than expected\n");
            abort();
        }
        set->slot[i] = key;
    }
    return i;
}

static void key_set_free(struct key_set *set)
{
    free(set->slot);
    free(set->number);
}

/* ---- which form an instruction is ------------------------------------------------------------- */

/* Those in which every way to address memory is a form. */
static bool shows_addressing(const ZydisDecodedInstruction *insn)
{
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_LEA:
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_MOVZX:
    case ZYDIS_MNEMONIC_CMPXCHG:
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_POP:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_MOVAPS:
    case ZYDIS_MNEMONIC_VMOVDQU:
    case ZYDIS_MNEMONIC_FLD:
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_TEST:
        return true;
    default:
        return false;
    }
}

static bool is_high_byte(ZydisRegister reg)
{
    return reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;
}

static bool is_vector_register(ZydisRegister reg)
{
    ZydisRegisterClass class = ZydisRegisterGetClass(reg);

    return class == ZYDIS_REGCLASS_X87 || class == ZYDIS_REGCLASS_MMX ||
           class == ZYDIS_REGCLASS_XMM || class == ZYDIS_REGCLASS_YMM;
}

static uint64_t key_of_operand(uint64_t h, const ZydisDecodedInstruction *insn,
                               const ZydisDecodedOperand *operand)
{
    h = mix(h, operand->type);
    h = mix(h, operand->size);
    h = mix(h, operand->encoding);
    switch (operand->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        h = mix(h, ZydisRegisterGetClass(operand->reg.value));
        h = mix(h, is_high_byte(operand->reg.value));
        if (operand->encoding == ZYDIS_OPERAND_ENCODING_NONE ||
            ZydisRegisterGetClass(operand->reg.value) == ZYDIS_REGCLASS_SEGMENT ||
            ZydisRegisterGetClass(operand->reg.value) == ZYDIS_REGCLASS_CONTROL ||
            ZydisRegisterGetClass(operand->reg.value) == ZYDIS_REGCLASS_DEBUG) {
            h = mix(h, operand->reg.value);
        }
        break;
    case ZYDIS_OPERAND_TYPE_MEMORY:
        h = mix(h, operand->mem.type);
        h = mix(h, is_vector_register(operand->mem.index));
        if (shows_addressing(insn)) {
            h = mix(h, operand->mem.base != ZYDIS_REGISTER_NONE);
            h = mix(h, operand->mem.base == ZYDIS_REGISTER_RIP ||
                           operand->mem.base == ZYDIS_REGISTER_EIP);
            h = mix(h, operand->mem.base == ZYDIS_REGISTER_RSP ||
                           operand->mem.base == ZYDIS_REGISTER_ESP);
            h = mix(h, operand->mem.index != ZYDIS_REGISTER_NONE);
            h = mix(h, operand->mem.scale);
            h = mix(h, insn->raw.disp.size);
            h = mix(h, operand->mem.segment);
        }
        break;
    default:
        break;
    }
    return h;
}

static uint64_t key_of(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *operand,
                       bool is_compat)
{
    const uint64_t prefixes = ZYDIS_ATTRIB_HAS_LOCK | ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE |
                              ZYDIS_ATTRIB_HAS_REPNE;
    bool has_memory = false, is_vector = false;
    uint8_t opcode = insn->opcode;
    uint64_t h = is_compat;

    for (unsigned i = 0; i < insn->operand_count; i++) {
        if (operand[i].type == ZYDIS_OPERAND_TYPE_MEMORY) {
            has_memory = true;
        }
        if (operand[i].encoding == ZYDIS_OPERAND_ENCODING_OPCODE) {
            opcode &= 0xf8;
        }
        if (operand[i].type == ZYDIS_OPERAND_TYPE_REGISTER) {
            is_vector = is_vector || is_vector_register(operand[i].reg.value);
        }
    }
    h = mix(h, insn->mnemonic);
    h = mix(h, insn->encoding);
    h = mix(h, (uint64_t)insn->opcode_map << 8 | opcode);
    h = mix(h, insn->avx.vector_length);
    h = mix(h, is_vector ? 0 : insn->operand_width);
    h = mix(h, has_memory ? insn->address_width : 0);
    h = mix(h, insn->attributes & prefixes);
    if (insn->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
        h = mix(h, insn->raw.vex.W);
    }
    for (unsigned i = 0; i < insn->operand_count_visible; i++) {
        h = key_of_operand(h, insn, &operand[i]);
    }
    return h;
}

static enum form_variant variant_of(const ZydisDecodedInstruction *insn,
                                    const ZydisDecodedOperand *operand)
{
    ZydisRegister seen[ZYDIS_MAX_OPERAND_COUNT];
    unsigned count = 0;
    bool is_same = false;

    for (unsigned i = 0; i < insn->operand_count_visible; i++) {
        if (operand[i].type != ZYDIS_OPERAND_TYPE_REGISTER) {
            if (operand[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
                ZydisRegisterGetId(operand[i].mem.base) >= 8 &&
                ZydisRegisterGetClass(operand[i].mem.base) == ZYDIS_REGCLASS_GPR64) {
                return FORM_HIGH;
            }
            continue;
        }
        if (ZydisRegisterGetClass(operand[i].reg.value) != ZYDIS_REGCLASS_X87 &&
            ZydisRegisterGetId(operand[i].reg.value) >= 8 && !is_high_byte(operand[i].reg.value)) {
            return FORM_HIGH;
        }
        for (unsigned k = 0; k < count; k++) {
            is_same = is_same || seen[k] == operand[i].reg.value;
        }
        seen[count++] = operand[i].reg.value;
    }
    return is_same ? FORM_SAME : FORM_LOW;
}

/* ---- enumeration ------------------------------------------------------------------------------ */

struct enumeration {
    struct forms *forms;
    struct key_set keys, variants, refusals;
    ZydisDecoder decoder;
    bool is_compat;
    unsigned room, refused_room;
};

static void add_refused(struct enumeration *e, const uint8_t *bytes, uint64_t key)
{
    struct forms *forms = e->forms;
    bool is_new;

    key_set_add(&e->refusals, mix(key, e->is_compat), &is_new);
    if (!is_new) {
        return;
    }
    if (forms->refused_count == e->refused_room) {
        e->refused_room = e->refused_room ? 2 * e->refused_room : 4096;
        forms->refused = xrealloc(forms->refused, e->refused_room * sizeof(*forms->refused));
    }
    forms->refused[forms->refused_count++] = (struct form){
        .length = 15, .is_compat = e->is_compat, .hash = key, .expects_undefined = true};
    memcpy(forms->refused[forms->refused_count - 1].bytes, bytes, 15);
}

/* refusal_key: what stands for these bytes if the decoder does not know them. */
static void add(struct enumeration *e, const uint8_t *bytes, uint64_t refusal_key)
{
    struct forms *forms = e->forms;
    struct form_decoded d;
    enum form_variant variant;
    bool is_new_form, is_new;
    unsigned slot;
    uint64_t key;

    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&e->decoder, bytes, 15, &d.insn, d.operand))) {
        add_refused(e, bytes, refusal_key);
        return;
    }
    key = key_of(&d.insn, d.operand, e->is_compat);
    variant = variant_of(&d.insn, d.operand);
    key_set_add(&e->variants, mix(key, variant), &is_new);
    if (!is_new) {
        return;
    }
    slot = key_set_add(&e->keys, key, &is_new_form);
    if (is_new_form) {
        e->keys.number[slot] = forms->number++;
    }
    if (forms->count == e->room) {
        e->room = e->room ? 2 * e->room : 8192;
        forms->form = xrealloc(forms->form, e->room * sizeof(*forms->form));
    }
    struct form *form = &forms->form[forms->count++];
    *form = (struct form){
        .length = d.insn.length,
        .is_compat = e->is_compat,
        .variant = (uint8_t)variant,
        .mnemonic = (uint16_t)d.insn.mnemonic,
        .isa_set = (uint16_t)d.insn.meta.isa_set,
        .number = e->keys.number[slot],
        .hash = mix(key, variant),
    };
    memcpy(form->bytes, bytes, form->length);
}

/* Displacements and immediates: small, positive, different bytes. */
static const uint8_t tail[8] = {0x10, 0x01, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00};

/* Registers in the order in which a form takes them: RSP last. */
static const uint8_t reg_order[8] = {1, 2, 0, 3, 6, 7, 5, 4};

/* ModRM and what follows: memory shapes. rm 3: [RBX], 6: [RSI], 7: [RDI], 5: RIP or absolute. */
static const struct {
    uint8_t mod, rm, sib;
} memory_shapes[] = {
    {0, 3, 0},    /* [rbx] */
    {0, 4, 0x0b}, /* [rbx + rcx]: also an index vector 1 */
    {1, 6, 0},    /* [rsi + disp8] */
    {2, 7, 0},    /* [rdi + disp32] */
    {0, 5, 0},    /* [rip + disp32] or [disp32] */
    {1, 4, 0x4b}, /* [rbx + rcx * 2 + disp8] */
    {2, 4, 0x93}, /* [rbx + rdx * 4 + disp32] */
    {0, 4, 0xcd}, /* [rcx * 8 + disp32] */
    {0, 4, 0x24}, /* [rsp] */
    {1, 4, 0x24}, /* [rsp + disp8] */
    {0, 4, 0x25}, /* [disp32] */
    {1, 5, 0},    /* [rbp + disp8] */
    {1, 2, 0},    /* [rdx + disp8]; [bp + si + disp8] */
};

/* All ModRM bytes of interest behind bytes[0..at). */
static void add_modrm(struct enumeration *e, uint8_t *bytes, unsigned at, uint64_t refusal_key,
                      bool per_reg)
{
    for (unsigned r = 0; r < 8; r++) {
        for (unsigned m = 0; m < 8; m++) {
            /* rm 2 first: a register other than reg 1. */
            unsigned rm = reg_order[(m + 1) % 8];
            bytes[at] = (uint8_t)(0xc0 | reg_order[r] << 3 | rm);
            memcpy(bytes + at + 1, tail, sizeof(tail));
            add(e, bytes, mix(refusal_key, 0xc0 | (per_reg ? reg_order[r] : 0)));
        }
        for (unsigned s = 0; s < sizeof(memory_shapes) / sizeof(memory_shapes[0]); s++) {
            unsigned n = at;
            bytes[n++] =
                (uint8_t)(memory_shapes[s].mod << 6 | reg_order[r] << 3 | memory_shapes[s].rm);
            if (memory_shapes[s].rm == 4) {
                bytes[n++] = memory_shapes[s].sib;
            }
            memcpy(bytes + n, tail, sizeof(tail));
            add(e, bytes, mix(refusal_key, per_reg ? reg_order[r] : 0));
        }
    }
}

static void enumerate_legacy(struct enumeration *e)
{
    static const char *const prefixes[] = {"",         "\x66",     "\xf2",     "\xf3",
                                           "\x66\xf2", "\x66\xf3", "\xf0",     "\x66\xf0",
                                           "\x67",     "\x67\x66", "\x67\xf3", "\x67\xf2",
                                           "\x65",     "\x64",     "\xf2\xf0", "\xf3\xf0"};
    static const uint8_t rexes[] = {0, 0x48, 0x40, 0x45, 0x4d};
    static const struct {
        uint8_t byte[2];
        unsigned count;
    } maps[] = {{{0}, 0}, {{0x0f}, 1}, {{0x0f, 0x38}, 2}, {{0x0f, 0x3a}, 2}};

    for (unsigned p = 0; p < sizeof(prefixes) / sizeof(prefixes[0]); p++) {
        for (unsigned x = 0; x < (e->is_compat ? 1 : sizeof(rexes)); x++) {
            for (unsigned m = 0; m < 4; m++) {
                for (unsigned opcode = 0; opcode < 256; opcode++) {
                    uint8_t bytes[32] = {0};
                    unsigned n = (unsigned)strlen(prefixes[p]);
                    uint64_t refusal = mix(m << 8 | opcode, p);

                    memcpy(bytes, prefixes[p], n);
                    if (rexes[x]) {
                        bytes[n++] = rexes[x];
                    }
                    memcpy(bytes + n, maps[m].byte, maps[m].count);
                    n += maps[m].count;
                    bytes[n++] = (uint8_t)opcode;
                    add_modrm(e, bytes, n, refusal, p == 0 && !rexes[x]);
                }
            }
        }
    }
}

/* C4: map, W, vvvv, L, pp (SDM volume 2, 2.3.5). */
static void enumerate_vex(struct enumeration *e)
{
    static const uint8_t highs[] = {0xe0, 0x40}; /* R X B inverted: low; R and B set */

    for (unsigned h = 0; h < (e->is_compat ? 1 : 2); h++) {
        for (unsigned map = 1; map <= 3; map++) {
            for (unsigned wlpp = 0; wlpp < 16; wlpp++) {
                for (unsigned v = 0; v < 3; v++) {
                    /* v: another register, the same as ModRM.rm's first, none. */
                    static const uint8_t vvvv[3] = {3, 1, 0};
                    unsigned reg = v == 2 ? 0 : vvvv[v] + (h ? 8 : 0);

                    for (unsigned opcode = 0; opcode < 256; opcode++) {
                        uint8_t bytes[32] = {0xc4, (uint8_t)(highs[h] | map)};

                        bytes[2] = (uint8_t)((wlpp & 8) << 4 | (~reg & 15) << 3 | (wlpp & 7));
                        bytes[3] = (uint8_t)opcode;
                        add_modrm(e, bytes, 4, mix(map << 8 | opcode, (wlpp & 7) + 100), false);
                    }
                }
            }
        }
    }
}

void forms_enumerate(struct forms *forms)
{
    struct enumeration e = {.forms = forms};

    *forms = (struct forms){0};
    key_set_init(&e.keys, 18);
    key_set_init(&e.variants, 18);
    key_set_init(&e.refusals, 20);
    for (unsigned compat = 0; compat < 2; compat++) {
        e.is_compat = compat;
        ZydisDecoderInit(&e.decoder,
                         compat ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32 : ZYDIS_MACHINE_MODE_LONG_64,
                         compat ? ZYDIS_STACK_WIDTH_32 : ZYDIS_STACK_WIDTH_64);
        enumerate_legacy(&e);
        enumerate_vex(&e);
    }
    key_set_free(&e.keys);
    key_set_free(&e.variants);
    key_set_free(&e.refusals);
}

void forms_free(struct forms *forms)
{
    free(forms->form);
    free(forms->refused);
    *forms = (struct forms){0};
}

static bool decode(const struct form *form, const uint8_t *bytes, struct form_decoded *to)
{
    ZydisDecoder decoder;

    ZydisDecoderInit(
        &decoder, form->is_compat ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32 : ZYDIS_MACHINE_MODE_LONG_64,
        form->is_compat ? ZYDIS_STACK_WIDTH_32 : ZYDIS_STACK_WIDTH_64);
    return ZYAN_SUCCESS(
        ZydisDecoderDecodeFull(&decoder, bytes, form->length, &to->insn, to->operand));
}

bool form_decode(const struct form *form, struct form_decoded *to)
{
    return decode(form, form->bytes, to);
}

const char *form_text(const struct form *form, const uint8_t *bytes, uint64_t address)
{
    static char text[256];
    ZydisFormatter formatter;
    struct form_decoded d;
    int n = 0;

    for (unsigned i = 0; i < form->length; i++) {
        n += snprintf(text + n, sizeof(text) - (size_t)n, "%02x", bytes[i]);
    }
    n += snprintf(text + n, sizeof(text) - (size_t)n, "%s  ", form->is_compat ? " (32)" : "");
    if (!decode(form, bytes, &d)) {
        snprintf(text + n, sizeof(text) - (size_t)n, "(refused)");
        return text;
    }
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    ZydisFormatterFormatInstruction(&formatter, &d.insn, d.operand, d.insn.operand_count_visible,
                                    text + n, sizeof(text) - (size_t)n, address, NULL);
    return text;
}
