/* SPDX-License-Identifier: MIT */
/*
 * MOVS, CMPS, SCAS, LODS, STOS, with and without REP (SDM volume 2; volume 1, 7.3.9). Pages that are
 * plain memory are done a chunk at a time (string.h), the rest element by element.
 *
 * A repeated one can be left between chunks: registers say what is left, rip stays, and the block ends.
 * A fault leaves the registers as the iterations before it have made them, and the flags as they were
 * before the instruction (CMPS, SCAS: "REP/REPE/REPZ/REPNE/REPNZ").
 */
#include "accel/soft/string.h"

/* ---- common ---------------------------------------------------------------------------------- */

/* Elements that fit before an end which is room bytes behind the first one's first byte. */
static uint64_t elements_up(uint64_t room, unsigned size)
{
    return room < size - 1 ? 0 : (room - (size - 1)) / size + 1;
}

uint64_t string_chunk(const struct soft_cpu *cpu, const struct soft_op *op,
                      const struct string_side *side, uint64_t count)
{
    const struct x86_segment *s = &cpu->seg[side->seg];
    unsigned size = string_size(op), in_page = side->linear & 4095;
    uint64_t chunk = elements_up(4095 - in_page, size);

    if (!soft_is_64(cpu) && side->offset > s->limit) {
        count = MIN(count, 1); /* an expand-down segment: what has been checked, no more */
    }
    if (cpu->rflags & X86_RFLAGS_DF) {
        /* Down: none below offset 0, nor below the page; the limit is above. */
        chunk = chunk == 0 ? 0 : MIN(in_page / size, side->offset / size) + 1;
    } else {
        chunk = MIN(chunk, elements_up(string_mask(op) - side->offset, size));
        if (!soft_is_64(cpu) && side->offset <= s->limit) {
            chunk = MIN(chunk, elements_up(s->limit - side->offset, size));
        }
    }
    return MIN(chunk, count);
}

uint64_t string_load(struct soft_cpu *cpu, const struct soft_op *op, uint64_t linear)
{
    switch (string_size(op)) {
    case 1:
        return soft_load8(cpu, op, linear);
    case 2:
        return soft_load16(cpu, op, linear);
    case 4:
        return soft_load32(cpu, op, linear);
    default:
        return soft_load64(cpu, op, linear);
    }
}

void string_store(struct soft_cpu *cpu, const struct soft_op *op, uint64_t linear, uint64_t value)
{
    switch (string_size(op)) {
    case 1:
        soft_store8(cpu, op, linear, (uint8_t)value);
        break;
    case 2:
        soft_store16(cpu, op, linear, (uint16_t)value);
        break;
    case 4:
        soft_store32(cpu, op, linear, (uint32_t)value);
        break;
    default:
        soft_store64(cpu, op, linear, value);
    }
}

static uint64_t host_load(const void *p, unsigned size)
{
    return size == 1   ? soft_host_load8(p)
           : size == 2 ? soft_host_load16(p)
           : size == 4 ? soft_host_load32(p)
                       : soft_host_load64(p);
}

static void host_store(void *p, unsigned size, uint64_t value)
{
    if (size == 1) {
        soft_host_store8(p, (uint8_t)value);
    } else if (size == 2) {
        soft_host_store16(p, (uint16_t)value);
    } else if (size == 4) {
        soft_host_store32(p, (uint32_t)value);
    } else {
        soft_host_store64(p, value);
    }
}

/* fn(): one chunk of up to count elements; how many it did. */
typedef uint64_t string_chunk_fn(struct soft_cpu *cpu, const struct soft_op *op, uint64_t count);

/* regs: string_none(). */
static inline bool repeat(struct soft_cpu *cpu, const struct soft_op *op, string_chunk_fn *fn,
                          unsigned regs)
{
    const uint64_t mask = string_mask(op);
    uint64_t count = cpu->gpr[X86_RCX] & mask;

    if (!(op->aux & STRING_ANY)) {
        fn(cpu, op, 1);
        return true;
    }
    if (!count) {
        string_none(cpu, op, regs);
    }
    while (count) {
        count -= fn(cpu, op, string_limit(cpu, count));
        string_set(cpu, X86_RCX, count, mask);
        if (count && string_must_stop(cpu)) {
            return false;
        }
    }
    return true;
}

#define STRING_HANDLER(name)                                                                       \
    SOFT_APART_HANDLER(name)                                                                       \
    {                                                                                              \
        soft_sync(cpu, op);                                                                        \
        if (__builtin_expect(name##_run(cpu, op), 1)) {                                            \
            SOFT_NEXT(cpu, op);                                                                    \
        }                                                                                          \
        SOFT_DISPATCH(cpu);                                                                        \
    }

/* ---- MOVS ------------------------------------------------------------------------------------ */

/* Up to here a loop is quicker than the host's REP. */
#define SHORT_BYTES 128u

static void move_short(uint8_t *to, const uint8_t *from, unsigned bytes)
{
    for (; bytes >= 8; bytes -= 8, to += 8, from += 8) {
        soft_host_store64(to, soft_host_load64(from));
    }
    if (bytes & 4) {
        soft_host_store32(to, soft_host_load32(from));
        to += 4;
        from += 4;
    }
    if (bytes & 2) {
        soft_host_store16(to, soft_host_load16(from));
        to += 2;
        from += 2;
    }
    if (bytes & 1) {
        soft_host_store8(to, soft_host_load8(from));
    }
}

/* Elements one after the other, upwards: where the destination is ahead of the source within the chunk
 * it fills up with a pattern. The host's own instruction does just that. */
static void move_elements(void *to, const void *from, uint64_t count, unsigned size)
{
    switch (size) {
    case 1:
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
        break;
    case 2:
        __asm__ volatile("rep movsw" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
        break;
    case 4:
        __asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
        break;
    default:
        __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    }
}

static void move_up(uint8_t *to, const uint8_t *from, uint64_t count, unsigned size)
{
    uint64_t bytes = count * size;

    if ((uintptr_t)to - (uintptr_t)from < bytes) {
        move_elements(to, from, count, size);
    } else if (bytes <= SHORT_BYTES) {
        move_short(to, from, (unsigned)bytes);
    } else {
        move_elements(to, from, bytes, 1);
    }
}

static void move_down(uint8_t *to, const uint8_t *from, uint64_t count, unsigned size)
{
    for (; count; count--, to -= size, from -= size) {
        host_store(to, size, host_load(from, size));
    }
}

static inline uint64_t movs_chunk(struct soft_cpu *cpu, const struct soft_op *op, uint64_t count)
{
    struct string_side from = string_side_at(cpu, op, X86_RSI, SOFT_READ);
    struct string_side to = string_side_at(cpu, op, X86_RDI, SOFT_WRITE);
    uint64_t chunk = string_chunk(cpu, op, &from, string_chunk(cpu, op, &to, count));
    const uint8_t *source = soft_read_pointer(cpu, from.linear, 1);
    uint8_t *target = soft_write_pointer(cpu, to.linear, 1);

    if (!chunk || !source || !target) {
        chunk = 1;
        string_store(cpu, op, to.linear, string_load(cpu, op, from.linear));
    } else if (cpu->rflags & X86_RFLAGS_DF) {
        move_down(target, source, chunk, string_size(op));
    } else {
        move_up(target, source, chunk, string_size(op));
    }
    string_advance(cpu, op, X86_RSI, chunk);
    string_advance(cpu, op, X86_RDI, chunk);
    return chunk;
}

static bool movs_run(struct soft_cpu *cpu, const struct soft_op *op)
{
    return repeat(cpu, op, movs_chunk, 1u << X86_RSI | 1u << X86_RDI);
}
STRING_HANDLER(movs)

/* ---- STOS ------------------------------------------------------------------------------------ */

static void fill(uint8_t *to, uint64_t count, unsigned size, uint64_t value)
{
    if (count * size <= SHORT_BYTES) {
        for (; count; count--, to += size) {
            host_store(to, size, value);
        }
        return;
    }
    switch (size) {
    case 1:
        __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
        break;
    case 2:
        __asm__ volatile("rep stosw" : "+D"(to), "+c"(count) : "a"(value) : "memory");
        break;
    case 4:
        __asm__ volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(value) : "memory");
        break;
    default:
        __asm__ volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(value) : "memory");
    }
}

static inline uint64_t stos_chunk(struct soft_cpu *cpu, const struct soft_op *op, uint64_t count)
{
    struct string_side to = string_side_at(cpu, op, X86_RDI, SOFT_WRITE);
    uint64_t chunk = string_chunk(cpu, op, &to, count);
    uint8_t *target = soft_write_pointer(cpu, to.linear, 1);
    unsigned size = string_size(op);

    if (!chunk || !target) {
        chunk = 1;
        string_store(cpu, op, to.linear, cpu->gpr[X86_RAX]);
    } else {
        if (cpu->rflags & X86_RFLAGS_DF) { /* the same from the other end */
            target -= (chunk - 1) * size;
        }
        fill(target, chunk, size, cpu->gpr[X86_RAX]);
    }
    string_advance(cpu, op, X86_RDI, chunk);
    return chunk;
}

static bool stos_run(struct soft_cpu *cpu, const struct soft_op *op)
{
    return repeat(cpu, op, stos_chunk, 1u << X86_RDI);
}
STRING_HANDLER(stos)

/* ---- LODS ------------------------------------------------------------------------------------ */

/* Repeated, only the last element is left to be seen. */
static inline uint64_t lods_chunk(struct soft_cpu *cpu, const struct soft_op *op, uint64_t count)
{
    struct string_side from = string_side_at(cpu, op, X86_RSI, SOFT_READ);
    uint64_t chunk = string_chunk(cpu, op, &from, count);
    unsigned size = string_size(op);
    uint64_t value;

    if (!chunk || !soft_read_pointer(cpu, from.linear, 1)) {
        chunk = 1;
        value = string_load(cpu, op, from.linear);
    } else {
        uint64_t bytes = (chunk - 1) * size;

        value = string_load(
            cpu, op, cpu->rflags & X86_RFLAGS_DF ? from.linear - bytes : from.linear + bytes);
    }
    switch (size) {
    case 1:
        soft_set_reg8(cpu, X86_RAX * 8, (uint8_t)value);
        break;
    case 2:
        soft_set_reg16(cpu, X86_RAX * 8, (uint16_t)value);
        break;
    default: /* 4 bytes clear the upper half */
        cpu->gpr[X86_RAX] = value;
    }
    string_advance(cpu, op, X86_RSI, chunk);
    return chunk;
}

static bool lods_run(struct soft_cpu *cpu, const struct soft_op *op)
{
    return repeat(cpu, op, lods_chunk, 0);
}
STRING_HANDLER(lods)

/* ---- CMPS, SCAS ------------------------------------------------------------------------------ */

#define COMPARE(bits)                                                                              \
    do {                                                                                           \
        uint32_t status = 0;                                                                       \
        __asm__("cmp" SOFT_SUFFIX_##bits " %[y], %[x]" SOFT_FLAGS_SAVE                             \
                : "+&a"(status)                                                                    \
                : [x] "r"((uint##bits##_t)a), [y] "r"((uint##bits##_t)b)                           \
                : "cc");                                                                           \
        return status;                                                                             \
    } while (0)
static uint32_t compare(uint64_t a, uint64_t b, unsigned size)
{
    switch (size) {
    case 1:
        COMPARE(8);
    case 2:
        COMPARE(16);
    case 4:
        COMPARE(32);
    default:
        COMPARE(64);
    }
}

/* Two places, or one and a value. Elements are compared until two are alike or not, as `until` says;
 * the last pair comes back in a and b. */
struct pairs {
    const uint8_t *left, *right; /* left NULL: a is the value */
    int64_t step;
    unsigned size;
    bool until;
    uint64_t a, b;
};

/* Equal stretches of 8 bytes, upwards; at least one element is left over. */
static uint64_t skip_equal(struct pairs *pairs, uint64_t count)
{
    unsigned per_word = 8 / pairs->size;
    uint64_t skipped = 0;

    while (count - skipped > per_word &&
           soft_host_load64(pairs->left) == soft_host_load64(pairs->right)) {
        pairs->left += 8;
        pairs->right += 8;
        skipped += per_word;
    }
    return skipped;
}

static uint64_t compare_pairs(struct pairs *pairs, uint64_t count)
{
    uint64_t done = 0;

    if (pairs->left && !pairs->until && pairs->step > 0) {
        done = skip_equal(pairs, count);
    }
    do {
        if (pairs->left) {
            pairs->a = host_load(pairs->left, pairs->size);
            pairs->left += pairs->step;
        }
        pairs->b = host_load(pairs->right, pairs->size);
        pairs->right += pairs->step;
        done++;
    } while (done < count && (pairs->a == pairs->b) != pairs->until);
    return done;
}

/* CMPS and SCAS in one: for SCAS the accumulator stands on the left. */
static inline bool compare_run(struct soft_cpu *cpu, const struct soft_op *op, bool is_scas)
{
    const uint64_t mask = string_mask(op);
    bool repeats = op->aux & STRING_ANY;
    uint64_t count = repeats ? cpu->gpr[X86_RCX] & mask : 1;
    uint32_t status = cpu->status;
    bool done = true;
    struct pairs pairs = {
        .size = string_size(op),
        .until = op->aux & STRING_REPNE,
        .step = cpu->rflags & X86_RFLAGS_DF ? -(int64_t)string_size(op) : string_size(op),
    };

    if (is_scas) {
        pairs.a = cpu->gpr[X86_RAX] & (UINT64_MAX >> (64 - 8 * pairs.size));
    }
    if (!count) {
        string_none(cpu, op, 0);
    }
    while (count) {
        uint64_t chunk = string_limit(cpu, count), compared;
        struct string_side left = {0}, right;
        const uint8_t *left_host = NULL;

        if (!is_scas) {
            left = string_side_at(cpu, op, X86_RSI, SOFT_READ);
            chunk = string_chunk(cpu, op, &left, chunk);
            left_host = soft_read_pointer(cpu, left.linear, 1);
        }
        right = string_side_at(cpu, op, X86_RDI, SOFT_READ);
        chunk = string_chunk(cpu, op, &right, chunk);
        pairs.left = left_host;
        pairs.right = soft_read_pointer(cpu, right.linear, 1);
        if (chunk && pairs.right && (is_scas || left_host)) {
            compared = compare_pairs(&pairs, chunk);
        } else {
            /* In the order of Intel's processors, which shows when both fault. */
            pairs.b = string_load(cpu, op, right.linear);
            if (!is_scas) {
                pairs.a = string_load(cpu, op, left.linear);
            }
            compared = 1;
        }
        status = compare(pairs.a, pairs.b, pairs.size);
        if (!is_scas) {
            string_advance(cpu, op, X86_RSI, compared);
        }
        string_advance(cpu, op, X86_RDI, compared);
        if (!repeats) {
            break;
        }
        count -= compared;
        string_set(cpu, X86_RCX, count, mask);
        if (!cpu->features->is_intel) { /* what a fault finds is of the last iteration there */
            cpu->status = status;
        }
        if ((pairs.a == pairs.b) == pairs.until) {
            break;
        }
        if (count && string_must_stop(cpu)) {
            done = false;
            break;
        }
    }
    cpu->status = status;
    return done;
}

static bool cmps_run(struct soft_cpu *cpu, const struct soft_op *op)
{
    return compare_run(cpu, op, false);
}
STRING_HANDLER(cmps)

static bool scas_run(struct soft_cpu *cpu, const struct soft_op *op)
{
    return compare_run(cpu, op, true);
}
STRING_HANDLER(scas)

/* ---- lowering -------------------------------------------------------------------------------- */

void string_lower(struct soft_lower *l, unsigned size)
{
    soft_lower_implicit(l, X86_RSI);
    l->op->aux = (uint16_t)size;
    /* Either prefix repeats; the last one counts. Zydis reports REPNE only where it differs. */
    for (unsigned i = 0; i < l->insn->raw.prefix_count; i++) {
        uint8_t prefix = l->insn->raw.prefixes[i].value;

        if (prefix == 0xf2 || prefix == 0xf3) {
            l->op->aux = (uint16_t)(size | (prefix == 0xf2 ? STRING_REPNE : STRING_REP));
        }
    }
}

enum { STRING_MOVS, STRING_STOS, STRING_LODS, STRING_CMPS, STRING_SCAS };

#define STRING_ARG(which, size) ((which) << 4 | (size))
/* arg: which, and the size. */
static void lower_string(struct soft_lower *l, uintptr_t arg)
{
    static soft_op_fn *const handlers[] = {
        [STRING_MOVS] = movs, [STRING_STOS] = stos, [STRING_LODS] = lods,
        [STRING_CMPS] = cmps, [STRING_SCAS] = scas,
    };

    string_lower(l, arg & 15);
    l->op->fn = handlers[arg >> 4];
}

#define STRING_ROWS(NAME, which)                                                                   \
    {ZYDIS_MNEMONIC_##NAME##B, SOFT_ALWAYS, lower_string, STRING_ARG(which, 1)},                   \
        {ZYDIS_MNEMONIC_##NAME##W, SOFT_ALWAYS, lower_string, STRING_ARG(which, 2)},               \
        {ZYDIS_MNEMONIC_##NAME##D, SOFT_ALWAYS, lower_string, STRING_ARG(which, 4)},               \
    {                                                                                              \
        ZYDIS_MNEMONIC_##NAME##Q, SOFT_ALWAYS, lower_string, STRING_ARG(which, 8)                  \
    }

const struct soft_lowering soft_lowering_string[] = {
    STRING_ROWS(MOVS, STRING_MOVS),
    STRING_ROWS(STOS, STRING_STOS),
    STRING_ROWS(LODS, STRING_LODS),
    STRING_ROWS(CMPS, STRING_CMPS),
    STRING_ROWS(SCAS, STRING_SCAS),
    {ZYDIS_MNEMONIC_IN, SOFT_ALWAYS, soft_lower_in, 0},
    {ZYDIS_MNEMONIC_OUT, SOFT_ALWAYS, soft_lower_out, 0},
    {ZYDIS_MNEMONIC_INSB, SOFT_ALWAYS, soft_lower_ins, 1},
    {ZYDIS_MNEMONIC_INSW, SOFT_ALWAYS, soft_lower_ins, 2},
    {ZYDIS_MNEMONIC_INSD, SOFT_ALWAYS, soft_lower_ins, 4},
    {ZYDIS_MNEMONIC_OUTSB, SOFT_ALWAYS, soft_lower_outs, 1},
    {ZYDIS_MNEMONIC_OUTSW, SOFT_ALWAYS, soft_lower_outs, 2},
    {ZYDIS_MNEMONIC_OUTSD, SOFT_ALWAYS, soft_lower_outs, 4},
    {0},
};
