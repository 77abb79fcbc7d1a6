/* SPDX-License-Identifier: MIT */
/*
 * The task state segment: stacks of inner privileges, I/O permissions, and hardware task switches
 * (Intel SDM volume 3, chapter 7; volume 1, 19.5.2).
 *
 * A task switch, in the order of 7.3:
 *      read the new TSS                 faults belong to the old task
 *      save the old task, back link, busy bits
 *      ---- commit: TR, CR3, general registers, EFLAGS, EIP, selectors without hidden parts
 *      LDTR, CS, SS, DS…, hidden parts  faults belong to the new task, at its first instruction
 *      error code, debug trap
 */
#include <string.h>

#include "accel/soft/event_internal.h"
#include "accel/soft/system.h"

/* ---- stacks ---------------------------------------------------------------------------------- */

static uint64_t tss_linear(const struct soft_cpu *cpu, unsigned offset)
{
    uint64_t linear = cpu->seg[X86_TR].base + offset;

    return soft_is_long(cpu) ? linear : (uint32_t)linear;
}

static void read_tss(struct soft_cpu *cpu, unsigned offset, void *buf, unsigned size)
{
    const struct x86_segment *tr = &cpu->seg[X86_TR];

    if (offset + size - 1 > tr->limit) {
        soft_fault_selector(cpu, EXC_TS, tr->selector);
    }
    soft_system_load(cpu, tss_linear(cpu, offset), buf, size, false);
}

static bool is_tss16(const struct x86_segment *tr)
{
    return (tr->attributes & 15) == TYPE_TSS16_BUSY;
}

void soft_tss_stack(struct soft_cpu *cpu, unsigned cpl, uint16_t *ss, uint64_t *sp)
{
    if (soft_is_long(cpu)) {
        *ss = (uint16_t)cpl;
        read_tss(cpu, 4 + 8 * cpl, sp, 8); /* figure 7-11 */
    } else if (is_tss16(&cpu->seg[X86_TR])) {
        uint16_t pair[2]; /* figure 7-10 */

        read_tss(cpu, 2 + 4 * cpl, pair, sizeof(pair));
        *sp = pair[0];
        *ss = pair[1];
    } else {
        struct {
            uint32_t esp;
            uint16_t ss;
        } __attribute__((packed)) pair; /* figure 7-2 */

        read_tss(cpu, 4 + 8 * cpl, &pair, sizeof(pair));
        *sp = pair.esp;
        *ss = pair.ss;
    }
}

uint64_t soft_tss_ist(struct soft_cpu *cpu, unsigned ist)
{
    uint64_t sp;

    read_tss(cpu, 28 + 8 * ist, &sp, sizeof(sp));
    return sp;
}

/* ---- I/O permissions --------------------------------------------------------------------------- */

#define TSS_IO_BASE 0x66u /* offset of the I/O map base address */

void soft_check_io(struct soft_cpu *cpu, uint16_t port, unsigned size)
{
    const struct x86_segment *tr = &cpu->seg[X86_TR];
    unsigned at, mask = (1u << size) - 1;
    uint16_t base, bits;

    if (soft_is_real(cpu) || (!soft_is_v86(cpu) && cpu->cpl <= iopl(cpu))) {
        return;
    }
    if ((tr->attributes & 15) != TYPE_TSS_BUSY || tr->limit < TSS_IO_BASE + 1) {
        soft_fault(cpu, EXC_GP);
    }
    soft_system_load(cpu, tss_linear(cpu, TSS_IO_BASE), &base, sizeof(base), false);
    /* Two bytes are read, whatever the port; both must lie within the limit. */
    at = base + port / 8u;
    if (at + 1 > tr->limit) {
        soft_fault(cpu, EXC_GP);
    }
    soft_system_load(cpu, tss_linear(cpu, at), &bits, sizeof(bits), false);
    if (bits >> port % 8 & mask) {
        soft_fault(cpu, EXC_GP);
    }
}

/* ---- a task's state ---------------------------------------------------------------------------- */

struct tss32 { /* figure 7-2 */
    uint32_t link, esp0, ss0, esp1, ss1, esp2, ss2, cr3;
    uint32_t eip, eflags, gpr[8];
    uint32_t seg[6]; /* ES CS SS DS FS GS */
    uint32_t ldt;
    uint16_t trap, io_base;
};
_Static_assert(sizeof(struct tss32) == 104, "SDM figure 7-2");

struct tss16 { /* figure 7-10 */
    uint16_t link, sp0, ss0, sp1, ss1, sp2, ss2;
    uint16_t ip, flags, gpr[8];
    uint16_t seg[4]; /* ES CS SS DS */
    uint16_t ldt;
};
_Static_assert(sizeof(struct tss16) == 44, "SDM figure 7-10");

/* What is loaded from either. */
struct task {
    bool is_32, has_trap;
    uint32_t cr3, eip, eflags, gpr[8];
    uint16_t seg[6], ldt;
};

static void read_task(struct soft_cpu *cpu, const struct x86_segment *tss, struct task *task)
{
    *task = (struct task){.is_32 = !is_tss16(tss)};
    if (task->is_32) {
        struct tss32 t;

        soft_system_load(cpu, (uint32_t)tss->base, &t, 64, false);
        soft_system_load(cpu, (uint32_t)(tss->base + 64), (uint8_t *)&t + 64, sizeof(t) - 64,
                         false);
        task->cr3 = t.cr3;
        task->eip = t.eip;
        task->eflags = t.eflags;
        memcpy(task->gpr, t.gpr, sizeof(t.gpr));
        for (unsigned i = 0; i < 6; i++) {
            task->seg[i] = (uint16_t)t.seg[i];
        }
        task->ldt = (uint16_t)t.ldt;
        task->has_trap = t.trap & 1;
    } else {
        struct tss16 t;

        soft_system_load(cpu, (uint32_t)tss->base, &t, sizeof(t), false);
        task->eip = t.ip;
        task->eflags = t.flags;
        for (unsigned i = 0; i < 8; i++) {
            task->gpr[i] = 0xffff0000 | t.gpr[i];
        }
        memcpy(task->seg, t.seg, sizeof(t.seg)); /* FS and GS become null */
        task->ldt = t.ldt;
    }
}

/* The old task's registers, from EIP (IP) to the last segment register. */
static void save_task(struct soft_cpu *cpu, uint64_t flags)
{
    const struct x86_segment *tr = &cpu->seg[X86_TR];

    if (is_tss16(tr)) {
        struct tss16 t = {.ip = (uint16_t)cpu->next_ip, .flags = (uint16_t)flags};

        for (unsigned i = 0; i < 8; i++) {
            t.gpr[i] = (uint16_t)cpu->gpr[i];
        }
        for (unsigned i = 0; i < 4; i++) {
            t.seg[i] = cpu->seg[i].selector;
        }
        soft_system_store(cpu, (uint32_t)(tr->base + offsetof(struct tss16, ip)), &t.ip,
                          offsetof(struct tss16, ldt) - offsetof(struct tss16, ip), false);
    } else {
        struct tss32 t = {.eip = (uint32_t)cpu->next_ip, .eflags = (uint32_t)flags};

        for (unsigned i = 0; i < 8; i++) {
            t.gpr[i] = (uint32_t)cpu->gpr[i];
        }
        for (unsigned i = 0; i < 6; i++) {
            t.seg[i] = cpu->seg[i].selector;
        }
        soft_system_store(cpu, (uint32_t)(tr->base + offsetof(struct tss32, eip)), &t.eip,
                          offsetof(struct tss32, ldt) - offsetof(struct tss32, eip), false);
    }
}

static void check_limit(struct soft_cpu *cpu, const struct x86_segment *tss)
{
    if (tss->limit < (is_tss16(tss) ? sizeof(struct tss16) : sizeof(struct tss32)) - 1) {
        soft_fault_selector(cpu, EXC_TS, tss->selector);
    }
}

/* ---- hidden parts, in the new task ------------------------------------------------------------- */

static void load_v86(struct soft_cpu *cpu, const struct task *task)
{
    for (unsigned i = 0; i < 6; i++) {
        struct x86_segment s = soft_v86_segment(task->seg[i]);
        soft_set_segment(cpu, (enum x86_segment_register)i, &s);
    }
}

static void load_code(struct soft_cpu *cpu, uint16_t selector)
{
    unsigned rpl = selector & 3u;
    struct x86_segment s;
    uint64_t d;

    if (selector_is_null(selector)) {
        soft_fault_selector(cpu, EXC_TS, selector);
    }
    soft_read_descriptor(cpu, selector, EXC_TS, &d, NULL);
    if (!descriptor_is_code(d) ||
        (descriptor_is_conforming(d) ? descriptor_dpl(d) > rpl : descriptor_dpl(d) != rpl)) {
        soft_fault_selector(cpu, EXC_TS, selector);
    }
    if (!descriptor_is_present(d)) {
        soft_fault_selector(cpu, EXC_NP, selector);
    }
    soft_mark_accessed(cpu, selector, d);
    s = soft_code_segment(selector, d, rpl);
    soft_set_segment(cpu, X86_CS, &s);
}

static void load_segments(struct soft_cpu *cpu, const struct task *task)
{
    static const enum x86_segment_register data[] = {X86_DS, X86_ES, X86_FS, X86_GS};
    struct x86_segment s = soft_ldt_segment(cpu, task->ldt, EXC_TS);

    soft_set_segment(cpu, X86_LDTR, &s);
    if (task->eflags & X86_RFLAGS_VM && task->is_32) {
        return; /* loaded with the selectors */
    }
    load_code(cpu, task->seg[X86_CS]);
    s = soft_stack_segment(cpu, task->seg[X86_SS], cpu->cpl, EXC_TS);
    soft_set_segment(cpu, X86_SS, &s);
    for (unsigned i = 0; i < 4; i++) {
        if (!selector_is_null(task->seg[data[i]])) {
            s = soft_data_segment(cpu, task->seg[data[i]], cpu->cpl, EXC_TS);
            soft_set_segment(cpu, data[i], &s);
        }
    }
}

/* ---- the switch ------------------------------------------------------------------------------ */

void soft_check_gate_tss(struct soft_cpu *cpu, uint16_t selector)
{
    uint64_t low, high;

    if (selector_is_null(selector) || selector & 4) {
        soft_fault_selector(cpu, EXC_GP, selector);
    }
    soft_read_descriptor(cpu, selector, EXC_GP, &low, &high);
    if (!descriptor_is_system(low) ||
        (descriptor_type(low) != TYPE_TSS && descriptor_type(low) != TYPE_TSS16)) {
        soft_fault_selector(cpu, EXC_GP, selector);
    }
    if (!descriptor_is_present(low)) {
        soft_fault_selector(cpu, EXC_NP, selector);
    }
}

/* From here on nothing belongs to the old task. */
static void commit(struct soft_cpu *cpu, const struct x86_segment *tss, const struct task *task,
                   bool is_nested)
{
    uint64_t flags = task->eflags & FLAG_ALL;
    struct x86_segment unusable[6],
        ldt = {.attributes = X86_SEGMENT_UNUSABLE, .selector = task->ldt};

    if (is_nested) {
        flags |= X86_RFLAGS_NT;
    }
    /* RF matters to breakpoints only (iret.c) */
    if (!(cpu->dr7 & DR7_ENABLED)) {
        flags &= ~X86_RFLAGS_RF;
    }
    soft_set_segment(cpu, X86_TR, tss);
    soft_set_segment(cpu, X86_LDTR, &ldt);
    cpu->cr0 |= X86_CR0_TS;
    cpu->dr7 &= ~DR7_LOCAL; /* 17.2.4 */
    for (unsigned i = 0; i < 8; i++) {
        cpu->gpr[i] = task->gpr[i];
    }
    for (unsigned i = 0; i < 6; i++) {
        unusable[i] =
            (struct x86_segment){.attributes = X86_SEGMENT_UNUSABLE, .selector = task->seg[i]};
    }
    /* CS keeps its attributes so that the code size stays defined if its load faults. */
    unusable[X86_CS] = cpu->seg[X86_CS];
    unusable[X86_CS].selector = task->seg[X86_CS];
    for (unsigned i = 0; i < 6; i++) {
        if (i != X86_CS) {
            soft_set_segment(cpu, (enum x86_segment_register)i, &unusable[i]);
        }
    }
    cpu->next_ip = cpu->rip = task->eip;
    cpu->stepped_over = true; /* TF was the old task's */
    soft_set_context(cpu, &unusable[X86_CS], NULL,
                     flags & X86_RFLAGS_VM ? 3 : task->seg[X86_CS] & 3u, flags);
    soft_update_mode(cpu); /* CR0.TS, DR7 */
    if (flags & X86_RFLAGS_VM) {
        load_v86(cpu, task);
    }
    if (task->is_32 && cpu->cr0 & X86_CR0_PG) {
        soft_write_cr3(cpu, task->cr3);
    }
}

static void push_error(struct soft_cpu *cpu, const struct task *task, uint32_t error)
{
    struct soft_push p = soft_push_here(cpu, task->is_32 ? 4 : 2);

    soft_push(&p, error);
    soft_push_check(cpu, &p, 0);
    cpu->gpr[X86_RSP] = soft_push_write(cpu, &p);
}

void soft_task_switch_flags(struct soft_cpu *cpu, uint16_t selector, enum soft_task_switch how,
                            bool has_error, uint32_t error, uint64_t flags)
{
    bool is_nested = how == SOFT_TASK_CALL || how == SOFT_TASK_EVENT;
    uint64_t low;
    struct x86_segment old = cpu->seg[X86_TR], tss;
    struct task task;

    soft_read_descriptor(cpu, selector, EXC_TS, &low, NULL);
    tss = soft_segment_of(selector, low);
    tss.attributes |= ACCESS_BUSY;
    check_limit(cpu, &tss);
    check_limit(cpu, &old);
    read_task(cpu, &tss, &task);

    if (how == SOFT_TASK_IRET) {
        flags &= ~X86_RFLAGS_NT;
    }
    save_task(cpu, flags);
    if (is_nested) {
        soft_system_store(cpu, (uint32_t)tss.base, &old.selector, 2, false);
    } else if (!selector_is_null(old.selector)) {
        soft_mark_descriptor(cpu, old.selector, 0, ACCESS_BUSY);
    }
    if (how != SOFT_TASK_IRET) {
        soft_mark_descriptor(cpu, selector, ACCESS_BUSY, 0);
    }
    read_task(cpu, &tss, &task); /* once more: it may be the old task's */

    commit(cpu, &tss, &task, is_nested);
    load_segments(cpu, &task);
    soft_check_ip(cpu, &cpu->seg[X86_CS], cpu->rip);
    if (has_error) {
        push_error(cpu, &task, error);
    }
    if (task.has_trap) {
        cpu->pending_dr6 |= DR6_BT; /* taken before the first instruction (17.3.1.5) */
        atomic_fetch_or(&cpu->exit_request, SOFT_EXIT_EVENT);
    }
    if (cpu->rflags & X86_RFLAGS_IF) {
        soft_look_for_events(cpu);
    }
}

void soft_task_switch(struct soft_cpu *cpu, uint16_t selector, enum soft_task_switch how,
                      bool has_error, uint32_t error)
{
    soft_task_switch_flags(cpu, selector, how, has_error, error, soft_get_rflags(cpu));
}
