/* SPDX-License-Identifier: MIT */
/*
 * Near branches (SDM volume 2: JMP, Jcc, CALL, RET, LOOPcc, JrCXZ), and how blocks are linked.
 *
 * A relative branch whose target is in the same page links to the target's block: behind the
 * branch's operation are two pointers (struct soft_links), filled in when the way is first taken. A
 * link holds as long as both blocks do. It is their page on the host that counts: a page that the guest
 * maps anew meanwhile, or an offset that wraps around, makes of a target in the page another page's
 * block (can_link()). Before a link is followed exit_request is looked at, so nobody waits longer than for one block.
 *
 * op->disp of a relative branch: target relative to the page's first byte.
 */
#include "accel/soft/code.h"
#include "accel/soft/cond.h"
#include "accel/soft/lower.h"

/* ---- linking ---------------------------------------------------------------------------------- */

static inline struct soft_links *links_of(const struct soft_op *op)
{
    return (struct soft_links *)(void *)(op + 1);
}

static bool can_link(const struct soft_block *from, const struct soft_block *to)
{
    /* A block that was dropped, or lives for one run, has no page. */
    return from->page[0] && from->page[0] == to->page[0] && !from->page[1] && !to->page[1] &&
           from->mode == to->mode;
}

/* The first time, or somebody asks: the long way. */
static const struct soft_op *find_link(struct soft_cpu *cpu, const struct soft_op *op, unsigned way,
                                       int32_t target)
{
    const struct soft_op *to;

    cpu->rip = (cpu->page_ip + (uint64_t)(int64_t)target) & soft_ip_mask(cpu);
    to = soft_lookup(cpu);
    /* Beyond the page it is found anew each time, and where segments have limits, too. */
    if (to && target >= 0 && target < 4096 && cpu->mode & (SOFT_MODE_CODE64 | SOFT_MODE_FLAT) &&
        can_link(links_of(op)->from, soft_block_of(to))) {
        links_of(op)->to[way] = to;
    }
    return to;
}

static __attribute__((noinline)) const struct soft_op *find_next(struct soft_cpu *cpu,
                                                                 const struct soft_op *op)
{
    const struct soft_op *to = find_link(cpu, op, 0, op->offset + op->length);

    if (!to) {
        return NULL;
    }
    SOFT_GO(cpu, to);
}

static __attribute__((noinline)) const struct soft_op *find_taken(struct soft_cpu *cpu,
                                                                  const struct soft_op *op)
{
    const struct soft_op *to = find_link(cpu, op, 1, op->disp);

    if (!to) {
        return NULL;
    }
    SOFT_GO(cpu, to);
}

/* To the next instruction (way 0) or the branch's target (way 1). */
#define FOLLOW(cpu, op, way, find)                                                                 \
    do {                                                                                           \
        const struct soft_op *follow_to = links_of(op)->to[way];                                   \
        if (__builtin_expect(!follow_to, 0) || soft_is_asked(cpu)) {                               \
            return find(cpu, op);                                                                  \
        }                                                                                          \
        (cpu)->instructions += soft_block_of(follow_to)->instruction_count;                        \
        SOFT_GO(cpu, follow_to);                                                                   \
    } while (0)

const struct soft_op *soft_op_continue(struct soft_cpu *cpu, const struct soft_op *op)
{
    FOLLOW(cpu, op, 0, find_next);
}

/* ---- 64-bit mode ------------------------------------------------------------------------------ */

#define OP(name) static const struct soft_op *name(struct soft_cpu *cpu, const struct soft_op *op)

OP(jmp_rel)
{
    FOLLOW(cpu, op, 1, find_taken);
}

#define JCC(name, cc)                                                                              \
    OP(jcc_##name)                                                                                 \
    {                                                                                              \
        if (soft_cond_##name(cpu->status)) {                                                       \
            FOLLOW(cpu, op, 1, find_taken);                                                        \
        }                                                                                          \
        FOLLOW(cpu, op, 0, find_next);                                                             \
    }
SOFT_EACH_COND(JCC)
#undef JCC

#define JCC(name, cc) [cc] = jcc_##name,
static soft_op_fn *const jcc[16] = {SOFT_EACH_COND(JCC)};
#undef JCC

#define GO_TO(cpu, op, target)                                                                     \
    do {                                                                                           \
        if (__builtin_expect(!soft_is_canonical(cpu, target), 0)) {                                \
            soft_op_raise(cpu, op, EXC_GP, 0);                                                     \
        }                                                                                          \
        (cpu)->rip = (target);                                                                     \
        SOFT_DISPATCH(cpu);                                                                        \
    } while (0)

OP(jmp_reg)
{
    uint64_t target = cpu->gpr[op->dst];

    GO_TO(cpu, op, target);
}

OP(jmp_mem)
{
    uint64_t target = soft_load64(cpu, op, soft_linear(cpu, op, 8, SOFT_READ));

    GO_TO(cpu, op, target);
}

/* The return address is stored before anything else changes: it may fault. */
static inline void push_next(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t sp = cpu->gpr[X86_RSP] - 8;

    soft_store64(cpu, op, sp, cpu->page_ip + op->offset + op->length);
    cpu->gpr[X86_RSP] = sp;
}

OP(call_rel)
{
    push_next(cpu, op);
    FOLLOW(cpu, op, 1, find_taken);
}

OP(call_reg)
{
    uint64_t target = cpu->gpr[op->dst];

    if (__builtin_expect(!soft_is_canonical(cpu, target), 0)) {
        soft_op_raise(cpu, op, EXC_GP, 0);
    }
    push_next(cpu, op);
    cpu->rip = target;
    SOFT_DISPATCH(cpu);
}

OP(call_mem)
{
    uint64_t target = soft_load64(cpu, op, soft_linear(cpu, op, 8, SOFT_READ));

    if (__builtin_expect(!soft_is_canonical(cpu, target), 0)) {
        soft_op_raise(cpu, op, EXC_GP, 0);
    }
    push_next(cpu, op);
    cpu->rip = target;
    SOFT_DISPATCH(cpu);
}

OP(ret)
{
    uint64_t target = soft_load64(cpu, op, cpu->gpr[X86_RSP]);

    if (__builtin_expect(!soft_is_canonical(cpu, target), 0)) {
        soft_op_raise(cpu, op, EXC_GP, 0);
    }
    cpu->gpr[X86_RSP] += 8 + op->imm;
    cpu->rip = target;
    SOFT_DISPATCH(cpu);
}

/* ---- counters: any mode -------------------------------------------------------------------------- */

static uint64_t address_mask(const struct soft_op *op)
{
    return op->scale == 16 ? UINT16_MAX : op->scale == 32 ? UINT32_MAX : UINT64_MAX;
}

/* By the address size: writing ECX clears the upper half of RCX, writing CX does not. */
static bool count_down(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t mask = address_mask(op);
    uint64_t count = (cpu->gpr[X86_RCX] - 1) & mask;

    if (mask == UINT16_MAX) {
        cpu->gpr[X86_RCX] = (cpu->gpr[X86_RCX] & ~mask) | count;
    } else {
        cpu->gpr[X86_RCX] = count;
    }
    return count != 0;
}

#define COUNTED(name, condition)                                                                   \
    OP(name)                                                                                       \
    {                                                                                              \
        if (condition) {                                                                           \
            FOLLOW(cpu, op, 1, find_taken);                                                        \
        }                                                                                          \
        FOLLOW(cpu, op, 0, find_next);                                                             \
    }
#define SLOW_COUNTED(name, condition)                                                              \
    static void slow_##name(struct soft_cpu *cpu, const struct soft_op *op)                        \
    {                                                                                              \
        uint64_t target = relative(cpu, op); /* may fault, before the counter changes */           \
                                                                                                   \
        if (condition) {                                                                           \
            cpu->next_ip = target;                                                                 \
        }                                                                                          \
    }
#define EACH_COUNTED(X)                                                                            \
    X(jrcxz, !(cpu->gpr[X86_RCX] & address_mask(op)))                                              \
    X(loop, count_down(cpu, op))                                                                   \
    X(loope, count_down(cpu, op) && soft_cond_z(cpu->status))                                      \
    X(loopne, count_down(cpu, op) && soft_cond_nz(cpu->status))
EACH_COUNTED(COUNTED)

/* ---- 16 and 32 bits ------------------------------------------------------------------------------ */

/*
 * Targets are cut to the operand size (aux: bytes), and have to lie within the code segment: #GP(0)
 * before anything changes. Relative ones with the operand size of a flat code segment and a target in
 * the page take the handlers above.
 */
static uint64_t checked(struct soft_cpu *cpu, const struct soft_op *op, uint64_t target)
{
    if (op->aux == 2) {
        target = (uint16_t)target;
    } else if (op->aux == 4) {
        target = (uint32_t)target;
    }
    if (soft_is_64(cpu) ? !soft_is_canonical(cpu, target) : target > cpu->seg[X86_CS].limit) {
        soft_raise(cpu, EXC_GP, 0);
    }
    return target;
}

static uint64_t relative(struct soft_cpu *cpu, const struct soft_op *op)
{
    return checked(cpu, op, cpu->page_ip + (uint64_t)(int64_t)op->disp);
}

EACH_COUNTED(SLOW_COUNTED)

static uint64_t absolute(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t target = cpu->gpr[op->dst];

    if (op->base != SOFT_SLOT_ZERO || op->info & SOFT_OP_GENERAL) {
        uint64_t linear = soft_linear(cpu, op, op->aux, SOFT_READ);

        target = op->aux == 2   ? soft_load16(cpu, op, linear)
                 : op->aux == 4 ? soft_load32(cpu, op, linear)
                                : soft_load64(cpu, op, linear);
    }
    return checked(cpu, op, target);
}

static void slow_jmp_rel(struct soft_cpu *cpu, const struct soft_op *op)
{
    cpu->next_ip = relative(cpu, op);
}

static void slow_jcc(struct soft_cpu *cpu, const struct soft_op *op)
{
    if (soft_cond(cpu->status, op->src)) {
        cpu->next_ip = relative(cpu, op);
    }
}

static void slow_jmp(struct soft_cpu *cpu, const struct soft_op *op)
{
    cpu->next_ip = absolute(cpu, op);
}

static void call_to(struct soft_cpu *cpu, const struct soft_op *op, uint64_t target)
{
    soft_stack_write(cpu, -(int64_t)op->aux, cpu->next_ip, op->aux);
    soft_stack_adjust(cpu, -(int64_t)op->aux);
    cpu->next_ip = target;
}

static void slow_call_rel(struct soft_cpu *cpu, const struct soft_op *op)
{
    call_to(cpu, op, relative(cpu, op));
}

static void slow_call(struct soft_cpu *cpu, const struct soft_op *op)
{
    call_to(cpu, op, absolute(cpu, op));
}

static void slow_ret(struct soft_cpu *cpu, const struct soft_op *op)
{
    uint64_t target = checked(cpu, op, soft_stack_read(cpu, 0, op->aux));

    soft_stack_adjust(cpu, op->aux + op->disp);
    cpu->next_ip = target;
}

/* ---- lowering --------------------------------------------------------------------------------- */

static void lower_target(struct soft_lower *l)
{
    l->op->disp = (int32_t)(l->op->offset + l->op->length + soft_operand(l, 0)->imm.value.s);
    l->ends_block = true;
}

/* The code segment's own size: then a target in the page needs no check and no cut. */
static bool is_plain(const struct soft_lower *l)
{
    unsigned size = l->mode & SOFT_MODE_CODE64 ? 8 : l->mode & SOFT_MODE_CODE32 ? 4 : 2;

    return l->width == size &&
           (size == 8 || (l->mode & SOFT_MODE_FLAT && l->op->disp >= 0 && l->op->disp < 4096));
}

static void lower_relative(struct soft_lower *l, soft_op_fn *fast, soft_slow_fn *slow)
{
    lower_target(l);
    if (is_plain(l)) {
        l->op->fn = fast;
    } else {
        l->op->aux = (uint16_t)l->width;
        soft_lower_call_end(l, slow);
    }
}

static void lower_indirect(struct soft_lower *l, soft_op_fn *by_reg, soft_op_fn *by_mem,
                           soft_slow_fn *slow)
{
    l->ends_block = true;
    l->op->aux = (uint16_t)l->width;
    if (!l->has_memory) {
        l->op->dst = soft_reg_number(soft_operand(l, 0)->reg.value);
        l->op->info = X86_SS;
    }
    if (l->width == 8) {
        l->op->fn = l->has_memory ? by_mem : by_reg;
    } else {
        soft_lower_call_end(l, slow);
    }
}

static bool is_far(const struct soft_lower *l)
{
    return l->insn->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
}

static void lower_jmp(struct soft_lower *l, uintptr_t arg)
{
    if (is_far(l)) {
        soft_lower_far_branch(l);
    } else if (soft_is_immediate(soft_operand(l, 0))) {
        lower_relative(l, jmp_rel, slow_jmp_rel);
    } else {
        lower_indirect(l, jmp_reg, jmp_mem, slow_jmp);
    }
}

static void lower_call(struct soft_lower *l, uintptr_t arg)
{
    if (is_far(l)) {
        soft_lower_far_branch(l);
    } else if (!soft_is_immediate(soft_operand(l, 0))) {
        lower_indirect(l, call_reg, call_mem, slow_call);
    } else {
        lower_target(l);
        l->op->aux = (uint16_t)l->width;
        l->op->info = X86_SS; /* the access is the stack's */
        if (l->width == 8) {
            l->op->fn = call_rel;
        } else {
            soft_lower_call_end(l, slow_call_rel);
        }
    }
}

static void lower_ret(struct soft_lower *l, uintptr_t arg)
{
    unsigned bytes = 0;

    if (is_far(l)) {
        soft_lower_far_branch(l);
        return;
    }
    if (soft_is_immediate(soft_operand(l, 0))) {
        bytes = (uint16_t)soft_operand(l, 0)->imm.value.u;
    }
    l->ends_block = true;
    l->op->info = X86_SS;
    l->op->aux = (uint16_t)l->width;
    if (l->width == 8) {
        l->op->fn = ret;
        l->op->imm = bytes;
    } else {
        l->op->disp = (int32_t)bytes;
        soft_lower_call_end(l, slow_ret);
    }
}

static void lower_jcc(struct soft_lower *l, uintptr_t cc)
{
    l->op->src = (uint8_t)cc;
    lower_relative(l, jcc[cc], slow_jcc);
}

/* The counter's width is the address size; the target is cut to the operand size. */
static void lower_counted(struct soft_lower *l, uintptr_t which)
{
    static soft_op_fn *const fast[] = {jrcxz, loop, loope, loopne};
    static soft_slow_fn *const slow[] = {slow_jrcxz, slow_loop, slow_loope, slow_loopne};

    l->op->scale = l->insn->address_width;
    lower_relative(l, fast[which], slow[which]);
}

const struct soft_lowering soft_lowering_branch[] = {
    {ZYDIS_MNEMONIC_JMP, SOFT_ALWAYS, lower_jmp, 0},
    {ZYDIS_MNEMONIC_CALL, SOFT_ALWAYS, lower_call, 0},
    {ZYDIS_MNEMONIC_RET, SOFT_ALWAYS, lower_ret, 0},
    {ZYDIS_MNEMONIC_JO, SOFT_ALWAYS, lower_jcc, 0},
    {ZYDIS_MNEMONIC_JNO, SOFT_ALWAYS, lower_jcc, 1},
    {ZYDIS_MNEMONIC_JB, SOFT_ALWAYS, lower_jcc, 2},
    {ZYDIS_MNEMONIC_JNB, SOFT_ALWAYS, lower_jcc, 3},
    {ZYDIS_MNEMONIC_JZ, SOFT_ALWAYS, lower_jcc, 4},
    {ZYDIS_MNEMONIC_JNZ, SOFT_ALWAYS, lower_jcc, 5},
    {ZYDIS_MNEMONIC_JBE, SOFT_ALWAYS, lower_jcc, 6},
    {ZYDIS_MNEMONIC_JNBE, SOFT_ALWAYS, lower_jcc, 7},
    {ZYDIS_MNEMONIC_JS, SOFT_ALWAYS, lower_jcc, 8},
    {ZYDIS_MNEMONIC_JNS, SOFT_ALWAYS, lower_jcc, 9},
    {ZYDIS_MNEMONIC_JP, SOFT_ALWAYS, lower_jcc, 10},
    {ZYDIS_MNEMONIC_JNP, SOFT_ALWAYS, lower_jcc, 11},
    {ZYDIS_MNEMONIC_JL, SOFT_ALWAYS, lower_jcc, 12},
    {ZYDIS_MNEMONIC_JNL, SOFT_ALWAYS, lower_jcc, 13},
    {ZYDIS_MNEMONIC_JLE, SOFT_ALWAYS, lower_jcc, 14},
    {ZYDIS_MNEMONIC_JNLE, SOFT_ALWAYS, lower_jcc, 15},
    {ZYDIS_MNEMONIC_JCXZ, SOFT_ALWAYS, lower_counted, 0},
    {ZYDIS_MNEMONIC_JECXZ, SOFT_ALWAYS, lower_counted, 0},
    {ZYDIS_MNEMONIC_JRCXZ, SOFT_ALWAYS, lower_counted, 0},
    {ZYDIS_MNEMONIC_LOOP, SOFT_ALWAYS, lower_counted, 1},
    {ZYDIS_MNEMONIC_LOOPE, SOFT_ALWAYS, lower_counted, 2},
    {ZYDIS_MNEMONIC_LOOPNE, SOFT_ALWAYS, lower_counted, 3},
    {0},
};
