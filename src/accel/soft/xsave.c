/* SPDX-License-Identifier: MIT */
/*
 * The state of x87, SSE and AVX in memory: FXSAVE, XSAVE and their like (SDM volume 1, 10.5 and
 * chapter 13; volume 2 for each), LDMXCSR and STMXCSR, and the neutral state's area.
 *
 *      offset 0    legacy region: x87 (24 bytes), MXCSR, ST0 to ST7, XMM registers
 *             512  XSAVE header: XSTATE_BV, XCOMP_BV
 *             576  upper halves of the YMM registers: in the standard form, and in the compacted one,
 *                  too, because it is the only component behind the header
 *
 * An area in guest memory is built or taken apart in a buffer. Everything that can fault is done
 * before the first byte is written to memory or to a register.
 */
#include <string.h>

#include "accel/soft/lower.h"
#include "accel/soft/simd.h"
#include "accel/soft/system.h"
#include "accel/soft/x87.h"
#include "base/bytes.h"
#include "base/range.h"

enum xsave_component {
    XSAVE_X87 = 1 << 0,
    XSAVE_SSE = 1 << 1,
    XSAVE_AVX = 1 << 2,
    XSAVE_ALL = XSAVE_X87 | XSAVE_SSE | XSAVE_AVX,
};
#define XCOMP_COMPACTED (UINT64_C(1) << 63)

enum {
    AREA_MXCSR = 24,
    AREA_ST = 32,
    AREA_XMM = 160,
    AREA_HEADER = 512,
    AREA_XCOMP = 520,
    AREA_YMM = 576,
    AREA_SIZE = AREA_YMM + 16 * 16,
    AREA_FXSAVE_SIZE =
        416, /* what FXSAVE writes at most; the rest of its 512 bytes is software's */
};

/* ---- registers and the area's parts ----------------------------------------------------------- */

/* XMM8 to XMM15 exist in 64-bit mode alone (SDM volume 1, 13.5.2). */
static unsigned vector_count(const struct soft_cpu *cpu)
{
    return soft_is_64(cpu) ? 16 : 8;
}

/* is_wide: FIP and FDP as 64-bit offsets (REX.W), else 32 bits and the selectors (table 10-2). */
static void put_x87(const struct soft_cpu *cpu, uint8_t *area, bool is_wide)
{
    const struct soft_x87 *x = &cpu->x87;

    store_le16(area, x->control);
    store_le16(area + 2, soft_x87_status(cpu));
    store_le16(area + 4, x->used);
    store_le16(area + 6, x->opcode);
    store_le64(area + 8, x->ip);
    store_le64(area + 16, x->dp);
    if (!is_wide) {
        store_le32(area + 12, x->ip_selector);
        store_le32(area + 20, x->dp_selector);
    }
    for (unsigned i = 0; i < 8; i++) {
        memcpy(area + AREA_ST + 16 * i, x->reg[(x->top + i) & 7].b, 10);
        memset(area + AREA_ST + 16 * i + 10, 0, 6);
    }
}

static void take_x87(struct soft_cpu *cpu, const uint8_t *area, bool is_wide)
{
    struct soft_x87 *x = &cpu->x87;

    soft_x87_set_control(cpu, load_le16(area));
    soft_x87_set_status(cpu, load_le16(area + 2));
    x->used = area[4];
    x->opcode = load_le16(area + 6) & 0x7ff;
    x->ip = is_wide ? load_le64(area + 8) : load_le32(area + 8);
    x->dp = is_wide ? load_le64(area + 16) : load_le32(area + 16);
    x->ip_selector = is_wide ? 0 : load_le16(area + 12);
    x->dp_selector = is_wide ? 0 : load_le16(area + 20);
    for (unsigned i = 0; i < 8; i++) {
        memcpy(x->reg[(x->top + i) & 7].b, area + AREA_ST + 16 * i, 10);
    }
}

static void init_x87(struct soft_cpu *cpu)
{
    soft_x87_init(cpu);
    memset(cpu->x87.reg, 0, sizeof(cpu->x87.reg));
}

static void put_mxcsr(struct soft_cpu *cpu, uint8_t *area)
{
    store_le32(area + AREA_MXCSR, soft_get_mxcsr(cpu));
    store_le32(area + AREA_MXCSR + 4, SOFT_MXCSR_VALID);
}

static void put_xmm(const struct soft_cpu *cpu, uint8_t *area, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        memcpy(area + AREA_XMM + 16 * i, cpu->vec[i].b, 16);
    }
}

static void take_xmm(struct soft_cpu *cpu, const uint8_t *area, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        memcpy(cpu->vec[i].b, area + AREA_XMM + 16 * i, 16);
    }
}

static void init_xmm(struct soft_cpu *cpu, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        memset(cpu->vec[i].b, 0, 16);
    }
}

static void put_ymm(const struct soft_cpu *cpu, uint8_t *area, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        memcpy(area + AREA_YMM + 16 * i, cpu->vec[i].b + 16, 16);
    }
}

static void take_ymm(struct soft_cpu *cpu, const uint8_t *area, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        memcpy(cpu->vec[i].b + 16, area + AREA_YMM + 16 * i, 16);
    }
}

static void init_ymm(struct soft_cpu *cpu, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        memset(cpu->vec[i].b + 16, 0, 16);
    }
}

/* Components that are not in their initial configuration: XINUSE (SDM volume 1, 13.6). MXCSR does not
 * count. */
static uint64_t components_in_use(const struct soft_cpu *cpu)
{
    const struct soft_x87 *x = &cpu->x87;
    uint64_t low = 0, high = 0, st = 0, used = 0;

    for (unsigned i = 0; i < vector_count(cpu); i++) {
        low |= cpu->vec[i].q[0] | cpu->vec[i].q[1];
        high |= cpu->vec[i].q[2] | cpu->vec[i].q[3];
    }
    for (unsigned i = 0; i < 8; i++) {
        st |= x->reg[i].q[0] | x->reg[i].q[1];
    }
    if (x->control != X87_CONTROL_INIT || x->status || x->top || x->used || x->opcode || x->ip ||
        x->dp || x->ip_selector || x->dp_selector || st) {
        used |= XSAVE_X87;
    }
    used |= low ? XSAVE_SSE : 0;
    used |= high ? XSAVE_AVX : 0;
    return used;
}

/* ---- guest memory ----------------------------------------------------------------------------- */

/* Linear addresses wrap at 4 GiB outside of 64-bit mode. */
static uint64_t area_at(const struct soft_cpu *cpu, uint64_t linear, unsigned offset)
{
    return soft_is_64(cpu) ? linear + offset : (uint32_t)(linear + offset);
}

/* The operand's address. #GP(0) if it is not aligned, whatever CR0.AM (SDM volume 2). */
static uint64_t area_linear(struct soft_cpu *cpu, const struct soft_op *op, unsigned size,
                            unsigned alignment, enum soft_access access)
{
    uint64_t linear = soft_linear(cpu, op, size, access);

    if (linear % alignment) {
        soft_op_raise(cpu, op, EXC_GP, 0);
    }
    return linear;
}

static void area_load(struct soft_cpu *cpu, const struct soft_op *op, uint64_t linear,
                      uint8_t *area, unsigned first, unsigned last)
{
    for (unsigned i = first; i < last; i += 32) {
        soft_load_bytes(cpu, op, area_at(cpu, linear, i), area + i, MIN(32u, last - i));
    }
}

/* Parts of the area that an instruction writes, in 32-byte steps from 0. */
struct area_parts {
    unsigned count;
    struct {
        uint16_t first, last;
    } part[6];
};

static void add_part(struct area_parts *parts, unsigned first, unsigned last)
{
    parts->part[parts->count].first = (uint16_t)first;
    parts->part[parts->count++].last = (uint16_t)last;
}

static void add_x87_part(struct area_parts *parts)
{
    add_part(parts, 0, AREA_MXCSR);
    add_part(parts, AREA_ST, AREA_XMM);
}

static void probe(struct soft_cpu *cpu, uint64_t linear, unsigned size)
{
    if (!soft_write_pointer(cpu, linear, size)) {
        soft_probe_write(cpu, linear, size);
    }
}

/* Faults before the first byte is written. */
static void area_store(struct soft_cpu *cpu, const struct soft_op *op, uint64_t linear,
                       const uint8_t *area, const struct area_parts *parts)
{
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned p = 0; p < parts->count; p++) {
            unsigned last = parts->part[p].last;

            for (unsigned i = parts->part[p].first; i < last; i += 32) {
                uint64_t at = area_at(cpu, linear, i);
                unsigned size = MIN(32u, last - i);

                if (pass) {
                    soft_store_bytes(cpu, op, at, area + i, size);
                } else {
                    probe(cpu, at, size);
                }
            }
        }
    }
}

/* ---- FXSAVE, FXRSTOR --------------------------------------------------------------------------- */

/* op->src: REX.W. SSE state takes part if CR4.OSFXSR says that the system knows of it (SDM volume 2:
 * implementation dependent; so do AMD's). */
static void soft_fxsave(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t linear = area_linear(cpu, op, AREA_HEADER, 16, SOFT_WRITE);
    struct area_parts parts = {0};
    uint8_t area[AREA_HEADER];

    put_x87(cpu, area, op->src);
    add_x87_part(&parts);
    if (cpu->cr4 & X86_CR4_OSFXSR) {
        put_mxcsr(cpu, area);
        put_xmm(cpu, area, vector_count(cpu));
        add_part(&parts, AREA_MXCSR, AREA_ST);
        add_part(&parts, AREA_XMM, AREA_XMM + 16 * vector_count(cpu));
    }
    /* What is left for software must be writable, too. */
    for (unsigned i = AREA_FXSAVE_SIZE; i < AREA_HEADER; i += 32) {
        probe(cpu, area_at(cpu, linear, i), 32);
    }
    area_store(cpu, op, linear, area, &parts);
}

static void check_mxcsr(struct soft_cpu *cpu, const struct soft_op *op, uint32_t value)
{
    if (value & ~SOFT_MXCSR_VALID) {
        soft_op_raise(cpu, op, EXC_GP, 0);
    }
}

static void soft_fxrstor(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t linear = area_linear(cpu, op, AREA_HEADER, 16, SOFT_READ);
    uint8_t area[AREA_HEADER];

    area_load(cpu, op, linear, area, 0, AREA_FXSAVE_SIZE);
    if (cpu->cr4 & X86_CR4_OSFXSR) {
        uint32_t mxcsr = load_le32(area + AREA_MXCSR);

        check_mxcsr(cpu, op, mxcsr);
        soft_set_mxcsr(cpu, mxcsr);
        take_xmm(cpu, area, vector_count(cpu));
    }
    take_x87(cpu, area, op->src);
}

/* ---- XSAVE, XRSTOR ----------------------------------------------------------------------------- */

enum xsave_form { FORM_XSAVE, FORM_XSAVEOPT, FORM_XSAVEC, FORM_XSAVES, FORM_XRSTOR, FORM_XRSTORS };

/* #UD, #NM, #GP in the order of priority; and the requested components. op->dst: the form. IA32_XSS
 * has no component, so the supervisor forms are XSAVEC and XRSTOR at CPL 0. */
static uint64_t xsave_begin(struct soft_cpu *cpu, const struct soft_op *op)
{
    if (!(cpu->cr4 & X86_CR4_OSXSAVE)) {
        soft_op_raise_no_error(cpu, op, EXC_UD);
    }
    if (cpu->mode & SOFT_MODE_TS) {
        soft_op_raise_no_error(cpu, op, EXC_NM);
    }
    if ((op->dst == FORM_XSAVES || op->dst == FORM_XRSTORS) && cpu->cpl != 0) {
        soft_op_raise(cpu, op, EXC_GP, 0);
    }
    return cpu->xcr0 & XSAVE_ALL & (cpu->gpr[X86_RDX] << 32 | (uint32_t)cpu->gpr[X86_RAX]);
}

static unsigned area_size(uint64_t components)
{
    return components & XSAVE_AVX ? AREA_SIZE : AREA_YMM;
}

/* All four forms that save (SDM volume 1, 13.7, 13.9, 13.10, 13.11). */
static void soft_xsave(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t requested = xsave_begin(cpu, op), used = components_in_use(cpu);
    uint64_t linear = area_linear(cpu, op, area_size(requested), 64, SOFT_WRITE);
    bool is_compacted = op->dst == FORM_XSAVEC || op->dst == FORM_XSAVES;
    uint64_t saved;
    bool has_mxcsr;
    unsigned count = vector_count(cpu);
    struct area_parts parts = {0};
    uint8_t area[AREA_SIZE];

    /* MXCSR belongs to SSE in the compacted forms, and is saved with either in the others. */
    if (is_compacted && soft_get_mxcsr(cpu) != SOFT_MXCSR_RESET) {
        used |= XSAVE_SSE;
    }
    saved = op->dst == FORM_XSAVE ? requested : requested & used;
    has_mxcsr = is_compacted ? saved & XSAVE_SSE : requested & (XSAVE_SSE | XSAVE_AVX);

    if (saved & XSAVE_X87) {
        put_x87(cpu, area, op->src);
        add_x87_part(&parts);
    }
    if (has_mxcsr) {
        put_mxcsr(cpu, area);
        add_part(&parts, AREA_MXCSR, AREA_ST);
    }
    if (saved & XSAVE_SSE) {
        put_xmm(cpu, area, count);
        add_part(&parts, AREA_XMM, AREA_XMM + 16 * count);
    }
    if (saved & XSAVE_AVX) {
        put_ymm(cpu, area, count);
        add_part(&parts, AREA_YMM, AREA_YMM + 16 * count);
    }
    /* The header is read only where it may be written. */
    if (!soft_write_pointer(cpu, area_at(cpu, linear, AREA_HEADER), 16)) {
        soft_probe_write(cpu, area_at(cpu, linear, AREA_HEADER), 16);
    }
    /* Its other fields stay as they are. */
    if (is_compacted) {
        store_le64(area + AREA_HEADER, saved);
        store_le64(area + AREA_XCOMP, requested | XCOMP_COMPACTED);
        add_part(&parts, AREA_HEADER, AREA_XCOMP + 8);
    } else {
        area_load(cpu, op, linear, area, AREA_HEADER, AREA_XCOMP);
        store_le64(area + AREA_HEADER,
                   (load_le64(area + AREA_HEADER) & ~requested) | (used & requested));
        add_part(&parts, AREA_HEADER, AREA_XCOMP);
    }
    area_store(cpu, op, linear, area, &parts);
}

/* The header's checks (SDM volume 1, 13.8.1 and 13.12). */
static bool xrstor_header_fits(const struct soft_cpu *cpu, const struct soft_op *op,
                               const uint8_t *area)
{
    uint64_t xstate = load_le64(area + AREA_HEADER), xcomp = load_le64(area + AREA_XCOMP);

    if (!(xcomp & XCOMP_COMPACTED)) {
        return op->dst == FORM_XRSTOR && xcomp == 0 && load_le64(area + AREA_XCOMP + 8) == 0 &&
               (xstate & ~cpu->xcr0) == 0;
    }
    if (!cpu->features->xsavec && !cpu->features->xsaves) {
        return false;
    }
    for (unsigned i = AREA_XCOMP + 8; i < AREA_YMM; i += 8) {
        if (load_le64(area + i) != 0) {
            return false;
        }
    }
    return (xcomp & ~XCOMP_COMPACTED & ~cpu->xcr0) == 0 && (xstate & ~xcomp) == 0 &&
           !(xstate & XCOMP_COMPACTED);
}

static void soft_xrstor(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t requested = xsave_begin(cpu, op), restored;
    uint64_t linear = area_linear(cpu, op, area_size(requested), 64, SOFT_READ);
    unsigned count = vector_count(cpu);
    bool is_compacted, has_mxcsr;
    uint32_t mxcsr = SOFT_MXCSR_RESET;
    uint8_t area[AREA_SIZE];

    area_load(cpu, op, linear, area, AREA_HEADER, AREA_YMM);
    if (!xrstor_header_fits(cpu, op, area)) {
        soft_op_raise(cpu, op, EXC_GP, 0);
    }
    restored = requested & load_le64(area + AREA_HEADER);
    is_compacted = load_le64(area + AREA_XCOMP) & XCOMP_COMPACTED;
    /* The standard form loads MXCSR whatever XSTATE_BV says, with either component. */
    has_mxcsr = is_compacted ? restored & XSAVE_SSE : requested & (XSAVE_SSE | XSAVE_AVX);
    if (restored & XSAVE_X87) {
        area_load(cpu, op, linear, area, 0, AREA_MXCSR);
        area_load(cpu, op, linear, area, AREA_ST, AREA_XMM);
    }
    if (has_mxcsr) {
        area_load(cpu, op, linear, area, AREA_MXCSR, AREA_ST);
        mxcsr = load_le32(area + AREA_MXCSR);
    }
    if (restored & XSAVE_SSE) {
        area_load(cpu, op, linear, area, AREA_XMM, AREA_XMM + 16 * count);
    }
    if (restored & XSAVE_AVX) {
        area_load(cpu, op, linear, area, AREA_YMM, AREA_YMM + 16 * count);
    }
    check_mxcsr(cpu, op, mxcsr);

    /* From here on nothing faults. */
    if (restored & XSAVE_X87) {
        take_x87(cpu, area, op->src);
    } else if (requested & XSAVE_X87) {
        init_x87(cpu);
    }
    if (has_mxcsr || (requested & XSAVE_SSE)) {
        soft_set_mxcsr(cpu, mxcsr);
    }
    if (restored & XSAVE_SSE) {
        take_xmm(cpu, area, count);
    } else if (requested & XSAVE_SSE) {
        init_xmm(cpu, count);
    }
    if (restored & XSAVE_AVX) {
        take_ymm(cpu, area, count);
    } else if (requested & XSAVE_AVX) {
        init_ymm(cpu, count);
    }
}

/* ---- MXCSR ------------------------------------------------------------------------------------- */

static void soft_ldmxcsr(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint32_t v = soft_load32(cpu, op, soft_linear(cpu, op, 4, SOFT_READ));

    check_mxcsr(cpu, op, v);
    soft_set_mxcsr(cpu, v);
}

static void soft_stmxcsr(struct soft_cpu *cpu, const struct soft_op *op)
{
    soft_store32(cpu, op, soft_linear(cpu, op, 4, SOFT_WRITE), soft_get_mxcsr(cpu));
}

/* ---- the neutral state ------------------------------------------------------------------------- */

/* Everything, in the standard form; FIP and FDP as 64-bit offsets. */
void soft_save_area(struct soft_cpu *cpu, uint8_t *area, uint32_t size)
{
    uint64_t components = XSAVE_X87 | XSAVE_SSE;

    if (cpu->features->avx && size >= AREA_SIZE) {
        components |= XSAVE_AVX;
    }
    memset(area, 0, size);
    put_x87(cpu, area, true);
    put_mxcsr(cpu, area);
    put_xmm(cpu, area, 16);
    if (size >= AREA_YMM) {
        store_le64(area + AREA_HEADER, components);
    }
    if (components & XSAVE_AVX) {
        put_ymm(cpu, area, 16);
    }
}

/* A component that the area does not have, or says to be in its initial configuration, becomes so. */
void soft_load_area(struct soft_cpu *cpu, const uint8_t *area, uint32_t size)
{
    uint64_t components = size >= AREA_YMM ? load_le64(area + AREA_HEADER) : XSAVE_X87 | XSAVE_SSE;

    init_x87(cpu);
    init_xmm(cpu, 16);
    init_ymm(cpu, 16);
    if (components & XSAVE_X87) {
        take_x87(cpu, area, true);
    }
    if (components & XSAVE_SSE) {
        take_xmm(cpu, area, 16);
    }
    if ((components & XSAVE_AVX) && size >= AREA_SIZE) {
        take_ymm(cpu, area, 16);
    }
    soft_set_mxcsr(cpu, components & (XSAVE_SSE | XSAVE_AVX)
                            ? load_le32(area + AREA_MXCSR) & SOFT_MXCSR_VALID
                            : SOFT_MXCSR_RESET);
}

/* ---- lowering ---------------------------------------------------------------------------------- */

static bool is_rex_w(const struct soft_lower *l)
{
    return l->insn->raw.rex.W;
}

static void lower_fxsave(struct soft_lower *l, uintptr_t arg)
{
    if (soft_lower_unit(l, SOFT_MODE_FPU)) {
        l->op->src = is_rex_w(l);
        soft_lower_call(l, (soft_slow_fn *)arg);
    }
}

/* arg: enum xsave_form */
static void lower_xsave(struct soft_lower *l, uintptr_t arg)
{
    l->op->dst = (uint8_t)arg;
    l->op->src = is_rex_w(l);
    soft_lower_call(l, arg < FORM_XRSTOR ? soft_xsave : soft_xrstor);
}

static void lower_mxcsr(struct soft_lower *l, uintptr_t arg)
{
    bool is_vex = l->insn->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;

    if (soft_lower_unit(l, is_vex ? SOFT_MODE_AVX : SOFT_MODE_SSE)) {
        soft_lower_call(l, (soft_slow_fn *)arg);
    }
}

#define STATE(name, feature, fn, arg)                                                              \
    {                                                                                              \
        ZYDIS_MNEMONIC_##name, SOFT_IF(feature), fn, (uintptr_t)(arg)                              \
    }
/* Without and with REX.W. */
#define STATE_TWO(name, feature, fn, arg)                                                          \
    STATE(name, feature, fn, arg), STATE(name##64, feature, fn, arg)

const struct soft_lowering soft_lowering_state[] = {
    STATE_TWO(FXSAVE, fxsr, lower_fxsave, soft_fxsave),
    STATE_TWO(FXRSTOR, fxsr, lower_fxsave, soft_fxrstor),
    STATE_TWO(XSAVE, xsave, lower_xsave, FORM_XSAVE),
    STATE_TWO(XSAVEOPT, xsaveopt, lower_xsave, FORM_XSAVEOPT),
    STATE_TWO(XSAVEC, xsavec, lower_xsave, FORM_XSAVEC),
    STATE_TWO(XSAVES, xsaves, lower_xsave, FORM_XSAVES),
    STATE_TWO(XRSTOR, xsave, lower_xsave, FORM_XRSTOR),
    STATE_TWO(XRSTORS, xsaves, lower_xsave, FORM_XRSTORS),
    STATE(LDMXCSR, sse, lower_mxcsr, soft_ldmxcsr),
    STATE(STMXCSR, sse, lower_mxcsr, soft_stmxcsr),
    STATE(VLDMXCSR, avx, lower_mxcsr, soft_ldmxcsr),
    STATE(VSTMXCSR, avx, lower_mxcsr, soft_stmxcsr),
    {ZYDIS_MNEMONIC_INVALID},
};
