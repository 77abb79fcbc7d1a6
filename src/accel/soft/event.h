/* SPDX-License-Identifier: MIT */
/*
 * Segments, control transfers, exceptions and interrupts (SDM volume 3, chapters 3, 5, 6, 7; volume 2
 * for the instructions). All: vCPU thread, cpu->rip at the instruction; may raise.
 */
#ifndef FERRY_ACCEL_SOFT_EVENT_H
#define FERRY_ACCEL_SOFT_EVENT_H

#include "accel/soft/op.h"

/* ---- event.c --------------------------------------------------------------------------------- */

/* Delivers cpu->exception through the IDT (or IVT), with double and triple faults: a fault within
 * the delivery goes by soft_raise() to the run loop, which calls again; event.c merges it with what
 * was being delivered (SDM table 6-5). A triple fault prints where and why, sets vcpu->exit to
 * SHUTDOWN and cpu->leave. */
void soft_deliver_exception(struct soft_cpu *cpu);
/* An external interrupt or NMI, at an instruction boundary: cpu->rip is the next instruction. */
void soft_deliver_interrupt(struct soft_cpu *cpu, uint8_t vector);
void soft_deliver_nmi(struct soft_cpu *cpu);
/* INT n, INT3, INTO, INT1: cpu->next_ip is what gets pushed. */
void soft_software_interrupt(struct soft_cpu *cpu, uint8_t vector, bool is_int3_or_into);
void soft_iret(struct soft_cpu *cpu, unsigned width); /* 2, 4, 8; sets next_ip */

/* ---- segment.c ------------------------------------------------------------------------------- */

/* MOV, POP, LDS… to ES, SS, DS, FS, GS with all checks. Loading SS sets cpu->shadow = 1 for MOV and
 * POP (the caller's). */
void soft_load_segment(struct soft_cpu *cpu, enum x86_segment_register reg, uint16_t selector);
/* In real and virtual-8086 mode. */
void soft_load_segment_real(struct soft_cpu *cpu, enum x86_segment_register reg, uint16_t selector);
/* Reads a descriptor of the GDT or LDT; raises vector(selector) if it is beyond the limit. In long mode
 * a system descriptor has 16 bytes: high gets the second half. */
void soft_read_descriptor(struct soft_cpu *cpu, uint16_t selector, uint8_t vector, uint64_t *low,
                          uint64_t *high);
/* The hidden part of a descriptor (SDM 3.4.5) */
struct x86_segment soft_segment_of(uint16_t selector, uint64_t descriptor);
void soft_load_ldt(struct soft_cpu *cpu, uint16_t selector);
void soft_load_tr(struct soft_cpu *cpu, uint16_t selector);
/* CPL, with what hangs on it: the TLB's privilege, alignment checks. */
void soft_set_cpl(struct soft_cpu *cpu, unsigned cpl);

/* ---- far.c: set cpu->next_ip, CS, SS, RSP ------------------------------------------------------ */

void soft_far_jump(struct soft_cpu *cpu, uint16_t selector, uint64_t offset, unsigned width);
void soft_far_call(struct soft_cpu *cpu, uint16_t selector, uint64_t offset, unsigned width);
void soft_far_return(struct soft_cpu *cpu, unsigned width, unsigned pop_bytes);

/* ---- task.c ---------------------------------------------------------------------------------- */

enum soft_task_switch { SOFT_TASK_JUMP, SOFT_TASK_CALL, SOFT_TASK_IRET, SOFT_TASK_EVENT };
/* To the TSS of a selector that has been checked to be one (SDM 7.3). error: pushed for an event that
 * has one. */
void soft_task_switch(struct soft_cpu *cpu, uint16_t selector, enum soft_task_switch how,
                      bool has_error, uint32_t error);
/* Stack pointer (and selector) of a privilege or IST entry in the current TSS. */
void soft_tss_stack(struct soft_cpu *cpu, unsigned cpl, uint16_t *ss, uint64_t *sp);
uint64_t soft_tss_ist(struct soft_cpu *cpu, unsigned ist); /* 1 to 7 */
/* Does the I/O permission bitmap (or IOPL) let this through? else #GP(0). */
void soft_check_io(struct soft_cpu *cpu, uint16_t port, unsigned size);

/* ---- smm.c ----------------------------------------------------------------------------------- */

/* Takes an SMI: saves the state and goes to the handler. At an instruction boundary, not in SMM. */
void soft_enter_smm(struct soft_cpu *cpu);
/* RSM, in SMM: the whole state is as saved, cpu->next_ip too; shutdown if it makes no sense. */
void soft_rsm(struct soft_cpu *cpu);

/* ---- segment.c: for whoever changes privilege in one go (SYSCALL, IRET, interrupts) ------------- */

/* CS, SS (NULL: stays), CPL and all of RFLAGS, with at most one soft_update_mode(). */
void soft_set_context(struct soft_cpu *cpu, const struct x86_segment *cs,
                      const struct x86_segment *ss, unsigned cpl, uint64_t rflags);

#endif
