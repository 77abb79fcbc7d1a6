/* SPDX-License-Identifier: MIT */
/*
 * Pre-decoded operations and how handlers are written.
 *
 * A block is an array of struct soft_op; op[0] is the first instruction's. A handler does its
 * instruction's work and ends with SOFT_NEXT(): a tail call of the next operation's handler in
 * optimised builds (threaded dispatch), a return to a loop elsewhere.
 *
 *      const struct soft_op *soft_op_xyz(struct soft_cpu *cpu, const struct soft_op *op)
 *      {
 *          ...
 *          SOFT_NEXT(cpu, op);
 *      }
 *
 * No local variable's address may live to the end of a handler, or the tail call becomes a call and
 * the stack grows: whatever needs buffers is a function that the handler calls.
 *
 * Faults: everything that can fault comes before anything is committed. Memory helpers below take
 * `op` and bring cpu->rip up to date when they leave the fast path.
 *
 * Slow instructions are plain functions, soft_slow_fn: they run with cpu->rip at the instruction and
 * cpu->next_ip behind it, may call soft_raise*(), change next_ip to jump. Lowering chooses between
 * soft_op_call (goes on in the block) and soft_op_call_end (ends the block: whatever changes the mode,
 * the translation, interrupts, or jumps).
 */
#ifndef FERRY_ACCEL_SOFT_OP_H
#define FERRY_ACCEL_SOFT_OP_H

#include "accel/soft/soft.h"
#include "accel/soft/tlb.h"

typedef const struct soft_op *soft_op_fn(struct soft_cpu *cpu, const struct soft_op *op);
typedef void soft_slow_fn(struct soft_cpu *cpu, const struct soft_op *op);

struct soft_op {
    soft_op_fn *fn;
    uint8_t dst, src; /* byte offsets of general registers (enum soft_slot), or numbers of others */
    uint8_t base, index; /* memory operand: slots (SOFT_SLOT_ZERO: none; PAGE_IP: RIP-relative) */
    uint8_t seg;         /* slot of the segment's base (ZERO: 0) */
    uint8_t scale;       /* shift, 0 to 3 */
    uint8_t info;        /* SOFT_OP_… */
    uint8_t length;      /* of the instruction, bytes */
    int32_t disp;    /* of the memory operand; RIP-relative: relative to the page's first byte */
    uint16_t offset; /* of the instruction in its page */
    uint16_t aux;    /* the handler's own: an 8-bit immediate, a third register */
    uint64_t imm; /* immediate, sign-extended to 64 bits; or a soft_slow_fn, or another pointer */
};
_Static_assert(sizeof(struct soft_op) == 32, "two operations per cache line");

/* info: the memory operand's segment and address size, for the general path. */
#define SOFT_OP_SEGMENT 0x07u /* enum x86_segment_register */
#define SOFT_OP_ADDR16  0x08u
#define SOFT_OP_ADDR32  0x10u /* neither: 64 bits */
#define SOFT_OP_GENERAL 0x20u /* the address needs soft_linear_general() */

/* Sanitizers and unoptimised builds make no tail calls. */
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define SOFT_TAIL_CALLS 1
#else
#define SOFT_TAIL_CALLS 0
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(undefined_behavior_sanitizer)
#undef SOFT_TAIL_CALLS
#define SOFT_TAIL_CALLS 0
#endif
#endif

/* Goes on with a given operation. The compiler is kept from knowing where it comes from: of op + 1 it
 * makes `add $32, %rsi; jmp *(%rsi)` then, two instructions rather than four. */
#if SOFT_TAIL_CALLS
#define SOFT_GO(cpu, to)                                                                           \
    do {                                                                                           \
        const struct soft_op *go_to = (to);                                                        \
        __asm__("" : "+r"(go_to));                                                                 \
        return go_to->fn(cpu, go_to);                                                              \
    } while (0)
#else
#define SOFT_GO(cpu, to) return (to)
#endif
#define SOFT_NEXT(cpu, op) SOFT_GO(cpu, (op) + 1)

/* ---- registers ------------------------------------------------------------------------------- */

#define SOFT_REG_ACCESS(bits)                                                                      \
    static inline uint##bits##_t soft_reg##bits(const struct soft_cpu *cpu, uint8_t offset)        \
    {                                                                                              \
        return *(const volatile uint##bits##_t                                                     \
                 __attribute__((may_alias)) *)((const uint8_t *)cpu + offset);                     \
    }
SOFT_REG_ACCESS(8)
SOFT_REG_ACCESS(16)
SOFT_REG_ACCESS(32)
SOFT_REG_ACCESS(64)

static inline void soft_set_reg8(struct soft_cpu *cpu, uint8_t offset, uint8_t v)
{
    *((uint8_t *)cpu + offset) = v;
}
static inline void soft_set_reg16(struct soft_cpu *cpu, uint8_t offset, uint16_t v)
{
    *(uint16_t __attribute__((may_alias)) *)((uint8_t *)cpu + offset) = v;
}
/* Clears the upper half (SDM volume 1, 3.4.1.1). */
static inline void soft_set_reg32(struct soft_cpu *cpu, uint8_t offset, uint32_t v)
{
    *(uint64_t __attribute__((may_alias)) *)((uint8_t *)cpu + offset) = v;
}
static inline void soft_set_reg64(struct soft_cpu *cpu, uint8_t offset, uint64_t v)
{
    *(uint64_t __attribute__((may_alias)) *)((uint8_t *)cpu + offset) = v;
}

/* ---- where we are ---------------------------------------------------------------------------- */

static inline uint64_t soft_ip_mask(const struct soft_cpu *cpu)
{
    return cpu->mode & SOFT_MODE_CODE64   ? UINT64_MAX
           : cpu->mode & SOFT_MODE_CODE32 ? UINT32_MAX
                                          : UINT16_MAX;
}

/* Before anything that may fault or look at rip. */
static inline void soft_sync(struct soft_cpu *cpu, const struct soft_op *op)
{
    cpu->rip = (cpu->page_ip + op->offset) & soft_ip_mask(cpu);
}
static inline uint64_t soft_next_ip(const struct soft_cpu *cpu, const struct soft_op *op)
{
    return (cpu->page_ip + op->offset + op->length) & soft_ip_mask(cpu);
}

_Noreturn void soft_op_raise(struct soft_cpu *cpu, const struct soft_op *op, uint8_t vector,
                             uint32_t error);
_Noreturn void soft_op_raise_no_error(struct soft_cpu *cpu, const struct soft_op *op,
                                      uint8_t vector);

/* ---- blocks' ends and slow instructions (run.c) ----------------------------------------------- */

soft_op_fn soft_op_call;     /* op->imm is a soft_slow_fn */
soft_op_fn soft_op_call_end; /* and the block ends */
/* cpu->rip says where: goes on with the block there, or leaves the chain (NULL) if it is not at hand,
 * or somebody asks for that. */
const struct soft_op *soft_dispatch(struct soft_cpu *cpu);

/* Tail of a handler that ends its block with rip set. */
#define SOFT_DISPATCH(cpu) return soft_dispatch(cpu)

/* ---- memory operands ------------------------------------------------------------------------- */

enum soft_access { SOFT_READ, SOFT_WRITE };

/* Effective address before segmentation and truncation. */
static inline uint64_t soft_effective(const struct soft_cpu *cpu, const struct soft_op *op)
{
    return cpu->slot[op->base] + (cpu->slot[op->index] << op->scale) + (uint64_t)(int64_t)op->disp;
}
/* Linear address when op->info lacks SOFT_OP_GENERAL: 64-bit addresses in 64-bit mode. Canonical form
 * is checked on the slow path. */
static inline uint64_t soft_linear_64(const struct soft_cpu *cpu, const struct soft_op *op)
{
    return soft_effective(cpu, op) + cpu->slot[op->seg];
}
/* Any mode: truncates to the address size, checks the segment (#GP(0), #SS(0)). memory.c */
uint64_t soft_linear_general(struct soft_cpu *cpu, const struct soft_op *op, unsigned size,
                             enum soft_access access);
/* The same for an offset at hand (string instructions, stack, XLAT). offset is truncated already. */
uint64_t soft_segment_linear(struct soft_cpu *cpu, enum x86_segment_register seg, uint64_t offset,
                             unsigned size, enum soft_access access);
/* One of the two, chosen at run time: for handlers that are not worth two versions. */
static inline uint64_t soft_linear(struct soft_cpu *cpu, const struct soft_op *op, unsigned size,
                                   enum soft_access access)
{
    return op->info & SOFT_OP_GENERAL ? soft_linear_general(cpu, op, size, access)
                                      : soft_linear_64(cpu, op);
}

/* Loads and stores at the present privilege. bits: 8, 16, 32, 64. */
#define SOFT_MEMORY_DECLARE(bits)                                                                  \
    uint##bits##_t soft_load##bits##_miss(struct soft_cpu *cpu, const struct soft_op *op,          \
                                          uint64_t linear);                                        \
    void soft_store##bits##_miss(struct soft_cpu *cpu, const struct soft_op *op, uint64_t linear,  \
                                 uint##bits##_t v);                                                \
    static inline uint##bits##_t soft_load##bits(struct soft_cpu *cpu, const struct soft_op *op,   \
                                                 uint64_t linear)                                  \
    {                                                                                              \
        const void *p = soft_read_pointer(cpu, linear, bits / 8);                                  \
        return __builtin_expect(p != NULL, 1) ? soft_host_load##bits(p)                            \
                                              : soft_load##bits##_miss(cpu, op, linear);           \
    }                                                                                              \
    static inline void soft_store##bits(struct soft_cpu *cpu, const struct soft_op *op,            \
                                        uint64_t linear, uint##bits##_t v)                         \
    {                                                                                              \
        void *p = soft_write_pointer(cpu, linear, bits / 8);                                       \
        if (__builtin_expect(p != NULL, 1)) {                                                      \
            soft_host_store##bits(p, v);                                                           \
        } else {                                                                                   \
            soft_store##bits##_miss(cpu, op, linear, v);                                           \
        }                                                                                          \
    }
SOFT_MEMORY_DECLARE(8)
SOFT_MEMORY_DECLARE(16)
SOFT_MEMORY_DECLARE(32)
SOFT_MEMORY_DECLARE(64)

/* Bytes of a vector, x87 or wider operand: any size to 64. Copies go by moves of up to 32 bytes. */
void soft_load_bytes(struct soft_cpu *cpu, const struct soft_op *op, uint64_t linear, void *buf,
                     unsigned size);
void soft_store_bytes(struct soft_cpu *cpu, const struct soft_op *op, uint64_t linear,
                      const void *buf, unsigned size);

/*
 * Read-modify-write: p = soft_rmw_begin() is guest memory, or cpu->scratch with a copy of it; after
 * the change soft_rmw_end() writes a copy back. begin faults as a write does; end never.
 */
void *soft_rmw_begin_miss(struct soft_cpu *cpu, const struct soft_op *op, uint64_t linear,
                          unsigned size);
void soft_rmw_end_miss(struct soft_cpu *cpu, const struct soft_op *op, uint64_t linear,
                       unsigned size);
static inline void *soft_rmw_begin(struct soft_cpu *cpu, const struct soft_op *op, uint64_t linear,
                                   unsigned size)
{
    void *p = soft_write_pointer(cpu, linear, size);

    return __builtin_expect(p != NULL, 1) ? p : soft_rmw_begin_miss(cpu, op, linear, size);
}
static inline void soft_rmw_end(struct soft_cpu *cpu, const struct soft_op *op, uint64_t linear,
                                const void *p, unsigned size)
{
    if (__builtin_expect(p == cpu->scratch, 0)) {
        soft_rmw_end_miss(cpu, op, linear, size);
    }
}
/*
 * LOCK: as soft_rmw_begin(), but what has no single host address (crosses pages, MMIO, code) is done
 * while every other vCPU is held at a block boundary; soft_locked_end() lets them go. Between the two
 * nothing may fault.
 */
void *soft_locked_begin_miss(struct soft_cpu *cpu, const struct soft_op *op, uint64_t linear,
                             unsigned size);
void soft_locked_end_miss(struct soft_cpu *cpu, const struct soft_op *op, uint64_t linear,
                          unsigned size);
static inline void *soft_locked_begin(struct soft_cpu *cpu, const struct soft_op *op,
                                      uint64_t linear, unsigned size)
{
    void *p = soft_write_pointer(cpu, linear, size);

    return __builtin_expect(p != NULL, 1) ? p : soft_locked_begin_miss(cpu, op, linear, size);
}
static inline void soft_locked_end(struct soft_cpu *cpu, const struct soft_op *op, uint64_t linear,
                                   const void *p, unsigned size)
{
    if (__builtin_expect(p == cpu->scratch, 0)) {
        soft_locked_end_miss(cpu, op, linear, size);
    }
}

/* ---- the stack (stack.c); sizes 2, 4, 8 bytes; for slow handlers (rip is up to date) ---------- */

/* Value at the top + offset bytes, or below it; by SS and the stack's address size; no change of RSP. */
uint64_t soft_stack_read(struct soft_cpu *cpu, int64_t offset, unsigned size);
void soft_stack_write(struct soft_cpu *cpu, int64_t offset, uint64_t value, unsigned size);
void soft_stack_adjust(struct soft_cpu *cpu, int64_t bytes); /* RSP, ESP or SP += bytes */

/* vcpu->exit says which IO or MMIO: leaves the guest, lets the vCPU loop's code do it, and enters
 * again. Translations may have changed then. Not while all are held (run.c). */
void soft_exit_inline(struct soft_cpu *cpu);

#endif
