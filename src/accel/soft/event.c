/* SPDX-License-Identifier: MIT */
/*
 * Exceptions and interrupts: which one, and through which gate (Intel SDM volume 3, chapter 6;
 * volume 2, INT n).
 *
 *   deliver()         cpu->next_ip is the IP to be pushed, and then the handler's
 *     real mode       vector table: FLAGS, CS, IP
 *     IA-32e mode     16-byte gates; a stack by IST or privilege; SS:RSP always
 *     else            task gate: task.c; interrupt or trap gate: inner, from virtual-8086, same
 *
 * While an event is being delivered cpu->delivering says so. A fault within comes back by
 * soft_raise(), the run loop, and soft_deliver_exception(), which makes of the two what table 6-5
 * says. Nothing but memory has changed by then.
 */
#include <inttypes.h>
#include <stdatomic.h>

#include "accel/soft/event_internal.h"
#include "accel/soft/msr.h"
#include "base/alloc.h"
#include "base/log.h"

/* cpu->delivering: the rows of table 6-5. */
enum { NOTHING, BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

struct event {
    uint8_t vector;
    bool has_error;
    bool is_software; /* INT n, INT3, INTO: the gate's DPL counts */
    uint32_t error;
    uint64_t flags; /* to be pushed */
};

/* The gate itself is at fault: its index, and the IDT bit (6.13). */
static _Noreturn void gate_fault(struct soft_cpu *cpu, uint8_t vector, const struct event *e)
{
    soft_raise(cpu, vector, e->vector * 8u | 2 | cpu->delivering_ext);
}

/* RFLAGS in the handler (6.8.3, 6.12.1.3). */
static uint64_t handler_flags(const struct event *e, bool is_interrupt_gate)
{
    uint64_t clear = X86_RFLAGS_TF | X86_RFLAGS_NT | X86_RFLAGS_RF | X86_RFLAGS_VM;

    return e->flags & ~(clear | (is_interrupt_gate ? X86_RFLAGS_IF : 0));
}

/* ---- real mode, and virtual-8086 by redirection ------------------------------------------------ */

static void deliver_vector_table(struct soft_cpu *cpu, const struct event *e, uint64_t base,
                                 uint64_t pushed, uint64_t flags)
{
    struct soft_push p = soft_push_here(cpu, 2);
    struct x86_segment cs;
    uint32_t entry;

    soft_system_load(cpu, (uint32_t)(base + e->vector * 4u), &entry, sizeof(entry), cpu->cpl == 3);
    soft_push(&p, pushed);
    soft_push(&p, cpu->seg[X86_CS].selector);
    soft_push(&p, cpu->next_ip);
    soft_push_check(cpu, &p, 0);
    cs = soft_real_code_segment(cpu, (uint16_t)(entry >> 16));
    soft_check_ip(cpu, &cs, entry & 0xffff);
    uint64_t sp = soft_push_write(cpu, &p);
    soft_set_context(cpu, &cs, NULL, cpu->cpl, flags);
    cpu->gpr[X86_RSP] = sp;
    cpu->next_ip = entry & 0xffff;
}

static void deliver_real(struct soft_cpu *cpu, const struct event *e)
{
    if (e->vector * 4u + 3 > cpu->idt.limit) {
        gate_fault(cpu, EXC_GP, e);
    }
    deliver_vector_table(cpu, e, cpu->idt.base, e->flags,
                         e->flags &
                             ~(X86_RFLAGS_IF | X86_RFLAGS_TF | X86_RFLAGS_AC | X86_RFLAGS_RF));
}

/* 20.3.3: does the TSS's bitmap send INT n to the program's own vector table? */
static bool is_redirected(struct soft_cpu *cpu, uint8_t vector)
{
    const struct x86_segment *tr = &cpu->seg[X86_TR];
    uint16_t io_base;
    uint8_t bits;

    if (!(cpu->cr4 & X86_CR4_VME) || (tr->attributes & 15) != TYPE_TSS_BUSY || tr->limit < 0x67) {
        return false;
    }
    soft_system_load(cpu, (uint32_t)(tr->base + 0x66), &io_base, sizeof(io_base), false);
    uint32_t at = io_base - 32u + vector / 8;
    if (io_base < 32 || at > tr->limit) {
        return false;
    }
    soft_system_load(cpu, (uint32_t)(tr->base + at), &bits, 1, false);
    return !(bits >> vector % 8 & 1);
}

static void redirect(struct soft_cpu *cpu, const struct event *e)
{
    uint64_t pushed = e->flags, flags = e->flags & ~(X86_RFLAGS_TF | X86_RFLAGS_NT);

    if (iopl(cpu) == 3) {
        flags &= ~X86_RFLAGS_IF;
    } else { /* the program's IF is VIF */
        pushed = (pushed & ~X86_RFLAGS_IF) | X86_RFLAGS_IOPL |
                 (pushed & X86_RFLAGS_VIF ? X86_RFLAGS_IF : 0);
        flags &= ~X86_RFLAGS_VIF;
    }
    deliver_vector_table(cpu, e, 0, pushed, flags);
}

/* ---- gates ----------------------------------------------------------------------------------- */

/* The gate's code segment: code, not less privileged, present. */
static uint64_t gate_code(struct soft_cpu *cpu, uint16_t selector)
{
    uint64_t d;

    if (selector_is_null(selector)) {
        soft_fault(cpu, EXC_GP);
    }
    soft_read_descriptor(cpu, selector, EXC_GP, &d, NULL);
    if (!descriptor_is_code(d) || descriptor_dpl(d) > cpu->cpl ||
        (soft_is_long(cpu) && !descriptor_is_code64(d))) {
        soft_fault_selector(cpu, EXC_GP, selector);
    }
    if (!descriptor_is_present(d)) {
        soft_fault_selector(cpu, EXC_NP, selector);
    }
    return d;
}

static void check_gate(struct soft_cpu *cpu, const struct event *e, uint64_t gate)
{
    if (e->is_software && descriptor_dpl(gate) < cpu->cpl) {
        gate_fault(cpu, EXC_GP, e);
    }
    if (!descriptor_is_present(gate)) {
        gate_fault(cpu, EXC_NP, e);
    }
}

/* ---- IA-32e mode (6.14) ------------------------------------------------------------------------ */

static void deliver_long(struct soft_cpu *cpu, const struct event *e)
{
    unsigned at = e->vector * 16u, type, ist, cpl = cpu->cpl;
    uint64_t gate[2], d, ip, sp, frame[6];
    struct x86_segment cs, ss;
    unsigned size = e->has_error ? 48 : 40;
    uint16_t selector, unused;

    if (at + 15 > cpu->idt.limit) {
        gate_fault(cpu, EXC_GP, e);
    }
    soft_system_load(cpu, cpu->idt.base + at, gate, sizeof(gate), false);
    type = gate[0] >> 40 & 31;
    if (type != TYPE_INTERRUPT && type != TYPE_TRAP) {
        gate_fault(cpu, EXC_GP, e);
    }
    check_gate(cpu, e, gate[0]);
    selector = gate[0] >> 16 & 0xffff;
    d = gate_code(cpu, selector);
    if (!descriptor_is_conforming(d)) {
        cpl = descriptor_dpl(d);
    }
    ist = gate[0] >> 32 & 7;
    if (ist) {
        sp = soft_tss_ist(cpu, ist);
    } else if (cpl != cpu->cpl) {
        soft_tss_stack(cpu, cpl, &unused, &sp);
    } else {
        sp = cpu->gpr[X86_RSP];
    }
    sp &= ~UINT64_C(15);
    if (!soft_is_canonical(cpu, sp - 1) || !soft_is_canonical(cpu, sp - size)) {
        soft_fault(cpu, EXC_SS);
    }
    cs = soft_code_segment(selector, d, cpl);
    ip = (gate[0] & 0xffff) | (gate[0] >> 32 & 0xffff0000) | gate[1] << 32;
    soft_check_ip(cpu, &cs, ip);
    soft_mark_accessed(cpu, selector, d);

    frame[0] = e->error;
    frame[1] = cpu->next_ip;
    frame[2] = cpu->seg[X86_CS].selector;
    frame[3] = e->flags;
    frame[4] = cpu->gpr[X86_RSP];
    frame[5] = cpu->seg[X86_SS].selector;
    soft_system_push(cpu, sp - size, e->has_error ? frame : frame + 1, size, 8, cpl == 3);

    uint64_t flags = handler_flags(e, type == TYPE_INTERRUPT);
    if (cpl != cpu->cpl) {
        ss = soft_null_stack(cpl);
        soft_set_context(cpu, &cs, &ss, cpl, flags);
    } else {
        soft_set_context(cpu, &cs, NULL, cpl, flags);
    }
    cpu->gpr[X86_RSP] = sp - size;
    cpu->next_ip = ip;
}

/* ---- protected and virtual-8086 mode (6.12) ----------------------------------------------------- */

static void push_return(struct soft_cpu *cpu, struct soft_push *p, const struct event *e)
{
    soft_push(p, e->flags);
    soft_push(p, cpu->seg[X86_CS].selector);
    soft_push(p, cpu->next_ip);
    if (e->has_error) {
        soft_push(p, e->error);
    }
}

static void go_inwards(struct soft_cpu *cpu, const struct event *e, struct x86_segment *cs,
                       uint64_t ip, unsigned size, uint64_t flags)
{
    static const enum x86_segment_register data[] = {X86_GS, X86_FS, X86_DS, X86_ES};
    unsigned cpl = cs->selector & 3u;
    bool is_v86 = soft_is_v86(cpu);
    uint16_t ss_selector;
    struct x86_segment ss;
    struct soft_push p;
    uint64_t sp;

    soft_tss_stack(cpu, cpl, &ss_selector, &sp);
    ss = soft_stack_segment(cpu, ss_selector, cpl, EXC_TS);
    p = soft_push_to(&ss, sp, size, false);
    for (unsigned i = 0; is_v86 && i < 4; i++) {
        soft_push(&p, cpu->seg[data[i]].selector);
    }
    soft_push(&p, cpu->seg[X86_SS].selector);
    soft_push(&p, cpu->gpr[X86_RSP]);
    push_return(cpu, &p, e);
    soft_push_check(cpu, &p, ss.selector);
    soft_check_ip(cpu, cs, ip);
    sp = soft_push_write(cpu, &p);

    for (unsigned i = 0; is_v86 && i < 4; i++) {
        struct x86_segment null = soft_null_segment(cpu, data[i], 0);
        soft_set_segment(cpu, data[i], &null);
    }
    soft_set_context(cpu, cs, &ss, cpl, flags);
    cpu->gpr[X86_RSP] = sp;
    cpu->next_ip = ip;
}

static void go_same(struct soft_cpu *cpu, const struct event *e, struct x86_segment *cs,
                    uint64_t ip, unsigned size, uint64_t flags)
{
    struct soft_push p = soft_push_here(cpu, size);
    uint64_t sp;

    push_return(cpu, &p, e);
    soft_push_check(cpu, &p, 0);
    soft_check_ip(cpu, cs, ip);
    sp = soft_push_write(cpu, &p);
    soft_set_context(cpu, cs, NULL, cpu->cpl, flags);
    cpu->gpr[X86_RSP] = sp;
    cpu->next_ip = ip;
}

static void deliver_protected(struct soft_cpu *cpu, const struct event *e)
{
    unsigned at = e->vector * 8u, type, size, cpl;
    bool is_v86 = soft_is_v86(cpu), is_inner;
    struct x86_segment cs;
    uint64_t gate, d, ip, flags;
    uint16_t selector;

    if (at + 7 > cpu->idt.limit) {
        gate_fault(cpu, EXC_GP, e);
    }
    soft_system_load(cpu, (uint32_t)(cpu->idt.base + at), &gate, sizeof(gate), false);
    type = gate >> 40 & 31;
    if (type != TYPE_TASK_GATE && (type & ~9u) != TYPE_INTERRUPT16) {
        gate_fault(cpu, EXC_GP, e); /* neither 5 nor 6, 7, 14, 15 */
    }
    check_gate(cpu, e, gate);
    selector = gate >> 16 & 0xffff;
    if (type == TYPE_TASK_GATE) {
        soft_check_gate_tss(cpu, selector);
        soft_task_switch_flags(cpu, selector, SOFT_TASK_EVENT, e->has_error, e->error, e->flags);
        return;
    }
    d = gate_code(cpu, selector);
    is_inner = !descriptor_is_conforming(d) && descriptor_dpl(d) < cpu->cpl;
    cpl = is_inner ? descriptor_dpl(d) : cpu->cpl;
    if (is_v86 && (!is_inner || cpl != 0)) {
        soft_fault_selector(cpu, EXC_GP, selector);
    }
    cs = soft_code_segment(selector, d, cpl);
    ip = gate & 0xffff;
    size = 2;
    if (type & 8) {
        ip |= gate >> 32 & 0xffff0000;
        size = 4;
    }
    flags = handler_flags(e, !(type & 1));
    soft_mark_accessed(cpu, selector, d);
    if (is_inner) {
        go_inwards(cpu, e, &cs, ip, size, flags);
    } else {
        go_same(cpu, e, &cs, ip, size, flags);
    }
}

/* ---- delivery -------------------------------------------------------------------------------- */

static void log_event(const struct soft_cpu *cpu, const struct event *e, const char *what)
{
    log_item(LOG_INT,
             "vCPU %u: %s 0x%02x error=0x%04" PRIx32 " cpl=%u ip=%04x:%016" PRIx64
             " sp=%04x:%016" PRIx64 " cr2=%016" PRIx64,
             cpu->index, what, e->vector, e->has_error ? e->error : 0, cpu->cpl,
             cpu->seg[X86_CS].selector, cpu->next_ip, cpu->seg[X86_SS].selector, cpu->gpr[X86_RSP],
             cpu->cr2);
}

static void begin(struct soft_cpu *cpu, const struct event *e, uint8_t row, bool is_external,
                  const char *what)
{
    if (__builtin_expect(log_mask & LOG_INT, 0)) {
        log_event(cpu, e, what);
    }
    cpu->delivering = row;
    cpu->delivering_vector = e->vector;
    cpu->delivering_ext = is_external;
}

static void end(struct soft_cpu *cpu)
{
    cpu->delivering = NOTHING;
    cpu->delivering_ext = 0;
    cpu->shadow = 0;
}

static void deliver(struct soft_cpu *cpu, const struct event *e, uint8_t row, bool is_external,
                    const char *what)
{
    begin(cpu, e, row, is_external, what);
    if (soft_is_long(cpu)) {
        deliver_long(cpu, e);
    } else if (soft_is_real(cpu)) {
        deliver_real(cpu, e);
    } else {
        deliver_protected(cpu, e);
    }
    end(cpu);
}

/* Events at a boundary: cpu->rip is where the program goes on. */
static void deliver_at_rip(struct soft_cpu *cpu, const struct event *e, uint8_t row,
                           bool is_external, const char *what)
{
    cpu->next_ip = cpu->rip;
    deliver(cpu, e, row, is_external, what);
    cpu->rip = cpu->next_ip;
}

void soft_deliver_interrupt(struct soft_cpu *cpu, uint8_t vector)
{
    struct event e = {.vector = vector, .flags = soft_get_rflags(cpu)};

    deliver_at_rip(cpu, &e, BENIGN, true, "interrupt");
}

void soft_deliver_nmi(struct soft_cpu *cpu)
{
    struct event e = {.vector = EXC_NMI, .flags = soft_get_rflags(cpu)};

    cpu->nmi_masked = true; /* 6.7.1: until the next IRET */
    cpu->vcpu->halted = false;
    deliver_at_rip(cpu, &e, BENIGN, true, "NMI");
}

/* ---- exceptions ------------------------------------------------------------------------------ */

static uint8_t row_of(uint8_t vector)
{
    switch (vector) {
    case EXC_DE:
    case EXC_TS:
    case EXC_NP:
    case EXC_SS:
    case EXC_GP:
        return CONTRIBUTORY;
    case EXC_PF:
        return PAGE_FAULT;
    case EXC_DF:
        return DOUBLE_FAULT;
    default:
        return BENIGN;
    }
}

/* A fault of class `second` while an event of class `first` was being delivered (table 6-5). */
static bool makes_double(uint8_t first, uint8_t second)
{
    return (first == CONTRIBUTORY && second == CONTRIBUTORY) ||
           (first == PAGE_FAULT && (second == CONTRIBUTORY || second == PAGE_FAULT));
}

/* RF in the pushed image: 17.3.1.1. Of #DB only general detect is a fault that sets it; traps and
 * aborts leave it. */
static bool pushes_rf(const struct soft_exception *x)
{
    switch (x->vector) {
    case EXC_DB:
        return x->dr6 & DR6_BD;
    case EXC_BP:
    case EXC_OF:
    case EXC_NMI:
    case EXC_DF:
    case EXC_MC:
        return false;
    default:
        return true;
    }
}

static void print_shutdown(struct soft_cpu *cpu, const char *why)
{
    static _Atomic(unsigned) printed; /* a guest may do this again and again */
    bool is_asked = log_mask & LOG_CPU_RESET;

    if (atomic_fetch_add(&printed, 1) >= 10 && !is_asked) {
        return;
    }
    log_warn("vCPU %u: %s at %04x:%016" PRIx64 ", CPL %u, SP %04x:%016" PRIx64 ", CR2 %016" PRIx64,
             cpu->index, why, cpu->seg[X86_CS].selector, cpu->rip, cpu->cpl,
             cpu->seg[X86_SS].selector, cpu->gpr[X86_RSP], cpu->cr2);
    if (is_asked) {
        autofree struct x86_state *state = xnew(struct x86_state);
        if (soft_get_state(cpu->vcpu, state, NULL)) {
            x86_state_log(state, LOG_CPU_RESET, "");
        }
    }
}

void soft_shutdown(struct soft_cpu *cpu, const char *why)
{
    print_shutdown(cpu, why);
    cpu->delivering = NOTHING;
    cpu->delivering_ext = 0;
    cpu->vcpu->exit.reason = VCPU_EXIT_SHUTDOWN;
    cpu->leave = true;
}

void soft_deliver_exception(struct soft_cpu *cpu)
{
    struct soft_exception x = cpu->exception;
    struct event e = {.vector = x.vector,
                      .has_error = x.has_error,
                      .error = x.error,
                      .is_software = x.is_software};
    uint8_t row = row_of(x.vector);

    cpu->exception.pending = false;
    if (x.vector == EXC_PF) {
        cpu->cr2 = x.cr2; /* even if it becomes a double fault (6.15, #PF) */
    } else if (x.vector == EXC_DB) {
        cpu->dr6 = (cpu->dr6 & ~UINT64_C(15)) | x.dr6;
        cpu->dr7 &= ~DR7_GD;                       /* 17.2.4 */
        cpu->msrs->debugctl &= ~SOFT_DEBUGCTL_BTF; /* 17.4.3 */
    }
    if (cpu->delivering == DOUBLE_FAULT && row >= CONTRIBUTORY) {
        char why[96];

        snprintf(why, sizeof(why),
                 "triple fault: exception %u (error 0x%" PRIx32 ") within a double fault", x.vector,
                 x.has_error ? x.error : 0);
        soft_shutdown(cpu, why);
        return;
    }
    if (makes_double(cpu->delivering, row)) {
        if (log_mask & LOG_INT) {
            cpu->next_ip = cpu->rip;
            log_event(cpu, &e, "exception within an exception");
        }
        x = (struct soft_exception){.vector = EXC_DF};
        e = (struct event){.vector = EXC_DF, .has_error = true};
        row = DOUBLE_FAULT;
    }
    if (soft_is_real(cpu)) {
        e.has_error = false; /* 20.1.4 */
    }
    e.flags = soft_get_rflags(cpu) | (pushes_rf(&x) ? X86_RFLAGS_RF : 0);
    deliver_at_rip(cpu, &e, row, !x.is_software, "exception");
}

/* ---- instructions ---------------------------------------------------------------------------- */

void soft_software_interrupt(struct soft_cpu *cpu, uint8_t vector, bool is_int3_or_into)
{
    struct event e = {
        .vector = vector, .is_software = true, .flags = soft_get_rflags(cpu) & ~X86_RFLAGS_RF};

    cpu->stepped_over = true; /* TF is saved and cleared */
    if (soft_is_v86(cpu) && !is_int3_or_into) {
        if (is_redirected(cpu, vector)) {
            begin(cpu, &e, BENIGN, false, "INT (redirected)");
            redirect(cpu, &e);
            end(cpu);
            return;
        }
        if (iopl(cpu) < 3) {
            soft_fault(cpu, EXC_GP);
        }
    }
    deliver(cpu, &e, BENIGN, false, "INT");
}

void soft_int1(struct soft_cpu *cpu)
{
    struct event e = {.vector = EXC_DB, .flags = soft_get_rflags(cpu) & ~X86_RFLAGS_RF};

    cpu->stepped_over = true;
    cpu->dr7 &= ~DR7_GD;
    deliver(cpu, &e, BENIGN, true, "INT1");
}
