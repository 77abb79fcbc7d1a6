/* SPDX-License-Identifier: MIT */
/*
 * System management mode (Intel SDM volume 3, chapter 31; AMD APM volume 2, chapter 10).
 *
 * The save area has AMD64's layout, revision 0x20064 (APM table 10-1), whatever the CPU model's
 * vendor: Intel does not document its own, and firmware tells layouts apart by the revision.
 * Bit 17 of it: SMBASE can be moved. Bit 16, I/O instruction restart, is not set: SMIs come between
 * instructions.
 *
 *      SMBASE + 0x8000   the handler's first instruction
 *      SMBASE + 0xfe00   save area, 512 bytes
 *
 * Both are reached as by a CPU in SMM: in address_space_smm, where the chipset shows SMRAM, so the TLB is
 * flushed on the way in and on the way out.
 */
#include <string.h>

#include "accel/soft/event_internal.h"
#include "accel/soft/system.h"
#include "base/bytes.h"
#include "base/log.h"
#include "mem/dma.h"

#define SMM_REVISION 0x20064u
#define AREA_OFFSET  0xfe00u
#define AREA_SIZE    512u

/* APM table 10-1: offsets within the area (SMBASE + 0xfe00). */
enum {
    AREA_ES = 0x00, /* 16 bytes each: selector, attributes, limit, base */
    AREA_CS = 0x10,
    AREA_SS = 0x20,
    AREA_DS = 0x30,
    AREA_FS = 0x40,
    AREA_GS = 0x50,
    AREA_GDTR = 0x60,
    AREA_LDTR = 0x70,
    AREA_IDTR = 0x80,
    AREA_TR = 0x90,
    AREA_HALT_RESTART = 0xc9,
    AREA_EFER = 0xd0,
    AREA_REVISION = 0xfc,
    AREA_SMBASE = 0x100,
    AREA_CR4 = 0x148,
    AREA_CR3 = 0x150,
    AREA_CR0 = 0x158,
    AREA_DR7 = 0x160,
    AREA_DR6 = 0x168,
    AREA_RFLAGS = 0x170,
    AREA_RIP = 0x178,
    AREA_R15 = 0x180, /* down to RAX, 8 bytes each */
};

static const struct {
    enum x86_segment_register reg;
    unsigned offset;
} segments[] = {
    {X86_ES, AREA_ES}, {X86_CS, AREA_CS}, {X86_SS, AREA_SS},     {X86_DS, AREA_DS},
    {X86_FS, AREA_FS}, {X86_GS, AREA_GS}, {X86_LDTR, AREA_LDTR}, {X86_TR, AREA_TR},
};

static const enum x86_gpr gprs[] = {
    X86_R15, X86_R14, X86_R13, X86_R12, X86_R11, X86_R10, X86_R9,  X86_R8,
    X86_RDI, X86_RSI, X86_RBP, X86_RSP, X86_RBX, X86_RDX, X86_RCX, X86_RAX,
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- entry ----------------------------------------------------------------------------------- */

static void save_segment(uint8_t *at, const struct x86_segment *s)
{
    bool is_usable = !(s->attributes & X86_SEGMENT_UNUSABLE);

    store_le16(at, s->selector);
    /* Without P it is unusable; DPL of SS is the CPL. */
    store_le16(at + 2, (uint16_t)(s->attributes & (is_usable ? 0xf0ffu : 0xf07fu)));
    store_le32(at + 4, s->limit);
    store_le64(at + 8, s->base);
}

static void save_table(uint8_t *at, const struct x86_table *table)
{
    store_le16(at + 4, table->limit);
    store_le64(at + 8, table->base);
}

static void save(struct soft_cpu *cpu, uint8_t *area)
{
    memset(area, 0, AREA_SIZE);
    for (unsigned i = 0; i < COUNT(segments); i++) {
        save_segment(area + segments[i].offset, &cpu->seg[segments[i].reg]);
    }
    save_table(area + AREA_GDTR, &cpu->gdt);
    save_table(area + AREA_IDTR, &cpu->idt);
    area[AREA_HALT_RESTART] = cpu->vcpu->halted;
    store_le64(area + AREA_EFER, cpu->efer);
    store_le32(area + AREA_REVISION, SMM_REVISION);
    store_le32(area + AREA_SMBASE, cpu->smbase);
    store_le64(area + AREA_CR4, cpu->cr4);
    store_le64(area + AREA_CR3, cpu->cr3);
    store_le64(area + AREA_CR0, cpu->cr0);
    store_le64(area + AREA_DR7, cpu->dr7);
    store_le64(area + AREA_DR6, cpu->dr6);
    store_le64(area + AREA_RFLAGS, soft_get_rflags(cpu));
    store_le64(area + AREA_RIP, cpu->rip);
    for (unsigned i = 0; i < COUNT(gprs); i++) {
        store_le64(area + AREA_R15 + 8 * i, cpu->gpr[gprs[i]]);
    }
}

/* APM volume 2, 10.3.2: like real mode, with segments of 4 GiB. */
static void enter_handler(struct soft_cpu *cpu)
{
    struct x86_segment data = {.limit = UINT32_MAX, .attributes = 0x8093};
    struct x86_segment cs = {.base = cpu->smbase,
                             .limit = UINT32_MAX,
                             .attributes = 0x809b,
                             .selector = (uint16_t)(cpu->smbase >> 4)};

    cpu->cr0 &= ~(X86_CR0_PE | X86_CR0_EM | X86_CR0_TS | X86_CR0_PG);
    cpu->cr4 = 0;
    cpu->efer = 0;
    cpu->idt = (struct x86_table){0};
    soft_write_dr(cpu, 7, 0x400);
    for (unsigned i = X86_ES; i <= X86_GS; i++) {
        soft_set_segment(cpu, (enum x86_segment_register)i, i == X86_CS ? &cs : &data);
    }
    soft_set_rflags(cpu, X86_RFLAGS_FIXED);
    cpu->cpl = 0;
    cpu->rip = 0x8000;
    soft_tlb_flush(cpu);
    soft_update_mode(cpu);
}

void soft_enter_smm(struct soft_cpu *cpu)
{
    uint8_t area[AREA_SIZE];

    save(cpu, area);
    /* Where there is no memory nothing is saved, and RSM finds nonsense. */
    dma_write_ram(address_space_smm, cpu->smbase + (uint64_t)AREA_OFFSET, area, sizeof(area));
    cpu->smm = true;
    cpu->smm_inside_nmi = cpu->nmi_masked;
    cpu->nmi_masked = true;
    cpu->shadow = 0;
    cpu->vcpu->halted = false;
    enter_handler(cpu);
    log_item(LOG_INT, "vCPU %u: SMM: enter, SMBASE %08x", cpu->index, cpu->smbase);
}

/* ---- RSM ------------------------------------------------------------------------------------- */

static void load_segment(struct soft_cpu *cpu, enum x86_segment_register reg, const uint8_t *at)
{
    struct x86_segment s = {
        .selector = load_le16(at),
        .attributes = load_le16(at + 2) & 0xf0ffu,
        .limit = load_le32(at + 4),
        .base = load_le64(at + 8),
    };

    if (!(s.attributes & X86_SEGMENT_P)) {
        s.attributes |= X86_SEGMENT_UNUSABLE;
    }
    soft_set_segment(cpu, reg, &s);
}

static void load_table(struct x86_table *table, const uint8_t *at)
{
    table->limit = load_le16(at + 4);
    table->base = load_le64(at + 8);
}

static bool load_control(struct soft_cpu *cpu, const uint8_t *area)
{
    uint64_t cr0 = load_le64(area + AREA_CR0), cr4 = load_le64(area + AREA_CR4);
    uint64_t cr3 = load_le64(area + AREA_CR3), efer = load_le64(area + AREA_EFER);
    bool is_long = efer & X86_EFER_LMA;

    if (soft_check_control(cpu, cr0, cr4, efer, cpu->xcr0) || cr3 >> cpu->features->phys_bits) {
        return false;
    }
    cpu->cr0 = cr0 | X86_CR0_ET;
    cpu->cr4 = cr4;
    cpu->efer = efer;
    cpu->cr3 = cr3;
    soft_tlb_flush(cpu);
    return !(cr0 & X86_CR0_PG) || !(cr4 & X86_CR4_PAE) || is_long || soft_load_pdptes(cpu, cr3);
}

static void load(struct soft_cpu *cpu, const uint8_t *area)
{
    uint64_t rflags = load_le64(area + AREA_RFLAGS);

    if (cpu->efer & X86_EFER_LMA) {
        rflags &= ~X86_RFLAGS_VM;
    }
    soft_set_rflags(cpu, rflags);
    for (unsigned i = 0; i < COUNT(segments); i++) {
        load_segment(cpu, segments[i].reg, area + segments[i].offset);
    }
    load_table(&cpu->gdt, area + AREA_GDTR);
    load_table(&cpu->idt, area + AREA_IDTR);
    for (unsigned i = 0; i < COUNT(gprs); i++) {
        cpu->gpr[gprs[i]] = load_le64(area + AREA_R15 + 8 * i);
    }
    cpu->smbase = load_le32(area + AREA_SMBASE);
    soft_write_dr(cpu, 6, (uint32_t)load_le64(area + AREA_DR6));
    soft_write_dr(cpu, 7, (uint32_t)load_le64(area + AREA_DR7));
    cpu->cpl = soft_is_real(cpu) ? 0 : soft_is_v86(cpu) ? 3 : cpu->seg[X86_SS].attributes >> 5 & 3;
    soft_update_mode(cpu);
    cpu->next_ip = load_le64(area + AREA_RIP) & soft_ip_mask(cpu);
}

void soft_rsm(struct soft_cpu *cpu)
{
    uint8_t area[AREA_SIZE];

    if (dma_read_ram(address_space_smm, cpu->smbase + (uint64_t)AREA_OFFSET, area, sizeof(area)) !=
        MEM_OK) {
        memset(area, 0xff, sizeof(area));
    }
    /* PDPTEs are read as they are outside. */
    cpu->smm = false;
    soft_tlb_flush(cpu);
    if (!load_control(cpu, area)) {
        soft_update_mode(cpu);
        soft_shutdown(cpu, "shutdown: RSM to an impossible state");
        return;
    }
    load(cpu, area);
    cpu->nmi_masked = cpu->smm_inside_nmi;
    cpu->shadow = 0;
    log_item(LOG_INT, "vCPU %u: SMM: after RSM, SMBASE %08x", cpu->index, cpu->smbase);
    soft_look_for_events(cpu);
    atomic_fetch_or(&cpu->exit_request, SOFT_EXIT_KICK); /* an INIT may have waited */
    if (area[AREA_HALT_RESTART] & 1) {                   /* APM 10.3.5: back into the HLT */
        soft_leave_guest(cpu, VCPU_EXIT_HLT);
    }
}
