/* SPDX-License-Identifier: MIT */
/*
 * The neutral state of an x86 vCPU and of the interrupt chips: what every engine gets and sets,
 * and what snapshots carry. Names and bit layouts are those of the Intel SDM; nothing here is an
 * engine's ABI.
 */
#ifndef FERRY_ACCEL_X86_STATE_H
#define FERRY_ACCEL_X86_STATE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/log.h"

enum x86_gpr {
    X86_RAX,
    X86_RCX,
    X86_RDX,
    X86_RBX,
    X86_RSP,
    X86_RBP,
    X86_RSI,
    X86_RDI,
    X86_R8,
    X86_R9,
    X86_R10,
    X86_R11,
    X86_R12,
    X86_R13,
    X86_R14,
    X86_R15,
    X86_GPR_COUNT,
};

enum x86_segment_register {
    X86_ES,
    X86_CS,
    X86_SS,
    X86_DS,
    X86_FS,
    X86_GS,
    X86_LDTR,
    X86_TR,
    X86_SEGMENT_COUNT,
};

/* SDM 3.4.5: attributes as in the descriptor's second doubleword, shifted right by 8: type 3:0,
 * S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15; bit 16: unusable. limit is in bytes. */
struct x86_segment {
    uint64_t base;
    uint32_t limit;
    uint32_t attributes;
    uint16_t selector;
};
#define X86_SEGMENT_UNUSABLE (1u << 16)

struct x86_table {
    uint64_t base;
    uint16_t limit;
};

struct x86_msr {
    uint32_t index;
    uint64_t value;
};

enum x86_mp_state {
    X86_MP_RUNNABLE,
    X86_MP_UNINITIALIZED, /* application processor before INIT */
    X86_MP_INIT_RECEIVED, /* waits for SIPI */
    X86_MP_HALTED,
    X86_MP_SIPI_RECEIVED,
};

/* What is about to be delivered (SDM 6.15, VMCS event fields; KVM_GET_VCPU_EVENTS has the same). */
struct x86_events {
    bool exception_injected, exception_pending, exception_has_error;
    uint8_t exception_vector;
    uint32_t exception_error;
    bool exception_has_payload;
    uint64_t exception_payload;
    bool interrupt_injected, interrupt_soft;
    uint8_t interrupt_vector;
    uint8_t interrupt_shadow; /* 1: MOV SS, 2: STI */
    bool nmi_injected, nmi_pending, nmi_masked;
    uint32_t sipi_vector;
    bool smm, smi_pending, smm_inside_nmi, smi_latched_init;
};

/* The local APIC (SDM 10.4.1): registers at their offsets, 16 bytes apart, in this page. */
#define X86_LAPIC_SIZE 1024
struct x86_lapic {
    uint8_t regs[X86_LAPIC_SIZE];
    /* One-shot and periodic timer: when it fires next, virtual ns, or -1. Engines that keep it
     * themselves leave it -1. */
    int64_t timer_expires_ns;
};

#define X86_MSR_MAX   256
#define X86_XSAVE_MAX 16384

struct x86_state {
    uint64_t gpr[X86_GPR_COUNT];
    uint64_t rip, rflags;
    struct x86_segment segment[X86_SEGMENT_COUNT];
    struct x86_table gdt, idt;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base;
    uint64_t dr[4], dr6, dr7;
    uint64_t xcr0;
    uint32_t xsave_size;          /* bytes used of xsave, at least 512 (FXSAVE area) + 64 */
    uint8_t xsave[X86_XSAVE_MAX]; /* XSAVE area, standard (non-compacted) form, SDM 13.4 */
    unsigned msr_count;
    struct x86_msr msr[X86_MSR_MAX];
    struct x86_events events;
    enum x86_mp_state mp_state;
    struct x86_lapic lapic;
};

/* After RESET or INIT (SDM table 9-1): is_bsp decides apic_base.BSP and mp_state. */
void x86_state_reset(struct x86_state *state, bool is_bsp, uint32_t apic_id);
/* Registers for people, in the form of QEMU's "info registers". */
void x86_state_print(const struct x86_state *state, FILE *to);
/* The same for an item of -d, below a heading, which ends in '\n' or is "". Any thread. */
void x86_state_log(const struct x86_state *state, enum log_item item, const char *heading);
uint64_t *x86_state_msr(struct x86_state *state, uint32_t index); /* NULL: not in the list */

/* ---- interrupt chips ------------------------------------------------------------------------ */

struct x86_pic { /* one 8259A */
    uint8_t last_irr, irr, imr, isr, priority_add, irq_base, read_reg_select, poll;
    uint8_t special_mask, init_state, auto_eoi, rotate_on_auto_eoi, special_fully_nested;
    uint8_t init4, elcr, elcr_mask;
};

#define X86_IOAPIC_PINS 24
struct x86_ioapic {
    uint64_t base_address;
    uint32_t ioregsel, id, irr;            /* irr: levels asserted */
    uint64_t redirection[X86_IOAPIC_PINS]; /* 82093AA 3.2.4 */
};

struct x86_pit_channel { /* 8254 */
    uint32_t count;
    uint16_t latched_count;
    uint8_t count_latched, status_latched, status, read_state, write_state, write_latch;
    uint8_t rw_mode, mode, bcd, gate;
    int64_t count_load_ns;
};

struct x86_pit {
    struct x86_pit_channel channel[3];
    bool speaker_data_on, hpet_legacy;
};

#endif
