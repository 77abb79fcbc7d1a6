/* SPDX-License-Identifier: MIT */
/*
 * What the files of segments, gates, events and tasks share: descriptors, stacks that are not the
 * present one, checks. Section numbers are those of the Intel SDM, volume 3.
 *
 * All of these functions follow one order: read and check everything, write memory, and only then
 * change registers, so that whatever faults leaves the registers as they were.
 *
 * vCPU thread; may raise.
 */
#ifndef FERRY_ACCEL_SOFT_EVENT_INTERNAL_H
#define FERRY_ACCEL_SOFT_EVENT_INTERNAL_H

#include "accel/soft/event.h"
#include "accel/soft/mailbox.h"

#define FLAG_ALL                                                                                   \
    (X86_RFLAGS_STATUS | X86_RFLAGS_TF | X86_RFLAGS_IF | X86_RFLAGS_DF | X86_RFLAGS_IOPL |         \
     X86_RFLAGS_NT | X86_RFLAGS_RF | X86_RFLAGS_VM | X86_RFLAGS_AC | X86_RFLAGS_VIF |              \
     X86_RFLAGS_VIP | X86_RFLAGS_ID)

/* Debug registers (17.2). */
#define DR6_BT (UINT64_C(1) << 15)
#define DR6_BS (UINT64_C(1) << 14)
#define DR6_BD (UINT64_C(1) << 13)
#define DR7_GD (UINT64_C(1) << 13)
/* Breakpoints that are on: L0…L3, G0…G3 (17.2.4). */
#define DR7_ENABLED UINT64_C(0xff)
#define DR7_LOCAL   UINT64_C(0x155) /* L0…L3 and LE */

/* ---- descriptors (3.4.5, 3.5) ------------------------------------------------------------------ */

/* Types of system descriptors (table 3-2). In IA-32e mode 9, 11, 12, 14, 15 are the 64-bit ones and
 * the 16-bit ones do not exist. */
enum soft_descriptor_type {
    TYPE_TSS16 = 1,
    TYPE_LDT = 2,
    TYPE_TSS16_BUSY = 3,
    TYPE_CALL16 = 4,
    TYPE_TASK_GATE = 5,
    TYPE_INTERRUPT16 = 6,
    TYPE_TRAP16 = 7,
    TYPE_TSS = 9,
    TYPE_TSS_BUSY = 11,
    TYPE_CALL = 12,
    TYPE_INTERRUPT = 14,
    TYPE_TRAP = 15,
};

/* Bits of the descriptor's byte 5, and of x86_segment.attributes. */
#define ACCESS_ACCESSED   0x01u
#define ACCESS_BUSY       0x02u /* of a TSS */
#define ACCESS_RW         0x02u /* data: writable; code: readable */
#define ACCESS_CONFORMING 0x04u
#define ACCESS_DOWN       0x04u /* data: expands down */
#define ACCESS_CODE       0x08u
#define ACCESS_DPL        0x60u

static inline unsigned descriptor_type(uint64_t descriptor)
{
    return descriptor >> 40 & 15;
}
static inline bool descriptor_is_system(uint64_t descriptor)
{
    return !(descriptor >> 44 & 1);
}
static inline unsigned descriptor_dpl(uint64_t descriptor)
{
    return descriptor >> 45 & 3;
}
static inline bool descriptor_is_present(uint64_t descriptor)
{
    return descriptor >> 47 & 1;
}
static inline bool descriptor_is_code(uint64_t descriptor)
{
    return (descriptor >> 40 & (X86_SEGMENT_S | ACCESS_CODE)) == (X86_SEGMENT_S | ACCESS_CODE);
}
/* Of a code segment. */
static inline bool descriptor_is_conforming(uint64_t descriptor)
{
    return descriptor >> 40 & ACCESS_CONFORMING;
}
/* L = 1, D = 0 */
static inline bool descriptor_is_code64(uint64_t descriptor)
{
    return (descriptor >> 53 & 3) == 1;
}
static inline bool selector_is_null(uint16_t selector)
{
    return !(selector & ~3u);
}
static inline unsigned iopl(const struct soft_cpu *cpu)
{
    return cpu->rflags >> 12 & 3;
}

/* Raises with an error code that names nothing, or a selector; EXT is added while an event is being
 * delivered (6.13). */
_Noreturn void soft_fault(struct soft_cpu *cpu, uint8_t vector);
_Noreturn void soft_fault_selector(struct soft_cpu *cpu, uint8_t vector, uint16_t selector);

/* As soft_read_descriptor(), but false where that one raises. */
bool soft_find_descriptor(struct soft_cpu *cpu, uint16_t selector, uint64_t *low, uint64_t *high);
/* Sets or clears bits of a descriptor's byte 5 in memory and tells what it was. */
uint8_t soft_mark_descriptor(struct soft_cpu *cpu, uint16_t selector, uint8_t set, uint8_t clear);
/* Sets the accessed bit of a code or data segment that is about to be loaded, if it is clear. */
void soft_mark_accessed(struct soft_cpu *cpu, uint16_t selector, uint64_t descriptor);
/* Hidden part of a code segment, with RPL. */
struct x86_segment soft_code_segment(uint16_t selector, uint64_t descriptor, unsigned rpl);
struct x86_segment soft_null_stack(
    unsigned cpl); /* SS of 64-bit mode's inner privileges (5.14.2) */
/* Hidden part in virtual-8086 mode (20.1.1) */
struct x86_segment soft_v86_segment(uint16_t selector);
/*
 * The segment for SS at a CPL (5.7): vector(selector) unless it is writable data of that privilege
 * with that RPL; #SS(selector) if not present. Null: vector(0). Marks it accessed.
 */
struct x86_segment soft_stack_segment(struct soft_cpu *cpu, uint16_t selector, unsigned cpl,
                                      uint8_t vector);
/* The segment for DS, ES, FS, GS (5.6); not null. */
struct x86_segment soft_data_segment(struct soft_cpu *cpu, uint16_t selector, unsigned cpl,
                                     uint8_t vector);
/* What a null selector leaves in a register. */
struct x86_segment soft_null_segment(const struct soft_cpu *cpu, enum x86_segment_register reg,
                                     uint16_t selector);
struct x86_segment soft_ldt_segment(struct soft_cpu *cpu, uint16_t selector, uint8_t vector);
/* CS in real and virtual-8086 mode */
struct x86_segment soft_real_code_segment(const struct soft_cpu *cpu, uint16_t selector);

/* #GP(0) unless ip lies within the limit, or is canonical. */
void soft_check_ip(struct soft_cpu *cpu, const struct x86_segment *cs, uint64_t ip);

/* ---- stacks ---------------------------------------------------------------------------------- */

/* Pushes onto a stack that becomes the present one when all has been checked. */
struct soft_push {
    const struct x86_segment *ss; /* NULL: 64-bit mode, without base and limit */
    uint64_t sp, mask;            /* mask: of the stack's address size */
    unsigned size;                /* of one item: 2, 4, 8 bytes */
    bool user;                    /* new CPL is 3 */
    unsigned count;
    uint64_t item[40]; /* 31 parameters of a call gate and SS, ESP, CS, EIP */
};

/* The stack of a segment, or the present one. */
struct soft_push soft_push_to(const struct x86_segment *ss, uint64_t sp, unsigned size, bool user);
struct soft_push soft_push_here(const struct soft_cpu *cpu, unsigned size);
static inline void soft_push(struct soft_push *p, uint64_t value)
{
    p->item[p->count++] = value;
}
/* #SS(selector) unless there is room. */
void soft_push_check(struct soft_cpu *cpu, const struct soft_push *p, uint16_t selector);
/* Writes the items; returns the new RSP. Checked before. */
uint64_t soft_push_write(struct soft_cpu *cpu, const struct soft_push *p);
/* RSP that a return to an outer stack leaves: only SP changes if the stack has 16 bits. */
uint64_t soft_stack_pointer(const struct soft_cpu *cpu, const struct x86_segment *cs,
                            const struct x86_segment *ss, uint64_t sp);
/* How much of RSP counts on the present stack. */
static inline uint64_t soft_stack_mask(const struct soft_cpu *cpu)
{
    return soft_is_64(cpu) ? UINT64_MAX : cpu->mode & SOFT_MODE_STACK32 ? UINT32_MAX : UINT16_MAX;
}
/* A selector in a slot of width bytes on the present stack, offset bytes from its top. The slot has to
 * lie within the limit, but only the selector's two bytes are read. */
uint16_t soft_stack_selector(struct soft_cpu *cpu, int64_t offset, unsigned width);

/* ---- events (event.c) -------------------------------------------------------------------------- */

void soft_int1(struct soft_cpu *cpu); /* 0xf1: #DB that nothing checks */
/* Something waits for interrupts or NMIs to be allowed. */
static inline bool soft_has_event(const struct soft_cpu *cpu)
{
    return __builtin_expect(cpu->window_requested || cpu->interrupt_pending || cpu->nmi_pending, 0);
}
/* They may be allowed now: the loop is to look. */
static inline void soft_look_for_events(struct soft_cpu *cpu)
{
    if (soft_has_event(cpu)) {
        atomic_fetch_or(&cpu->exit_request, SOFT_EXIT_EVENT);
    }
}
/* SHUTDOWN: said on stderr, and the vCPU leaves. */
void soft_shutdown(struct soft_cpu *cpu, const char *why);

/* ---- tasks (task.c) ---------------------------------------------------------------------------- */

/* The selector of a task gate: #GP(selector) unless it is an available TSS of the GDT; #NP. */
void soft_check_gate_tss(struct soft_cpu *cpu, uint16_t selector);
/* With the RFLAGS that the old task gets: RF = 1 after a fault (17.3.1.1). */
void soft_task_switch_flags(struct soft_cpu *cpu, uint16_t selector, enum soft_task_switch how,
                            bool has_error, uint32_t error, uint64_t flags);

/* ---- returns (return.c) ------------------------------------------------------------------------ */

/* Checks a popped CS (5.8.6): RPL >= CPL, code, DPL, present. */
struct x86_segment soft_return_code(struct soft_cpu *cpu, uint16_t selector);
/* Checks a popped SS for a return to cs at privilege cpl. */
struct x86_segment soft_return_stack(struct soft_cpu *cpu, uint16_t selector,
                                     const struct x86_segment *cs, unsigned cpl);
/* DS, ES, FS, GS that the outer privilege may not use become null. */
void soft_return_data(struct soft_cpu *cpu, unsigned cpl);

#endif
