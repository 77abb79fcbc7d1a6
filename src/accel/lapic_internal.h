/* SPDX-License-Identifier: MIT */
/* Between the files of the LAPIC. Section numbers are those of the Intel SDM, volume 3. */
#ifndef FERRY_ACCEL_LAPIC_INTERNAL_H
#define FERRY_ACCEL_LAPIC_INTERNAL_H

#include <stdatomic.h>

#include "accel/lapic.h"
#include "aio/loop.h"

/* Offsets of registers (table 10-1); an x2APIC MSR is 0x800 + offset / 16. */
enum lapic_register {
    LAPIC_ID = 0x020,
    LAPIC_VERSION = 0x030,
    LAPIC_TPR = 0x080,
    LAPIC_APR = 0x090,
    LAPIC_PPR = 0x0a0,
    LAPIC_EOI = 0x0b0,
    LAPIC_RRD = 0x0c0,
    LAPIC_LDR = 0x0d0,
    LAPIC_DFR = 0x0e0,
    LAPIC_SVR = 0x0f0,
    LAPIC_ISR = 0x100,
    LAPIC_TMR = 0x180,
    LAPIC_IRR = 0x200,
    LAPIC_ESR = 0x280,
    LAPIC_LVT_CMCI = 0x2f0,
    LAPIC_ICR = 0x300,
    LAPIC_ICR_HIGH = 0x310,
    LAPIC_LVT_TIMER = 0x320,
    LAPIC_LVT_THERMAL = 0x330,
    LAPIC_LVT_PERFORMANCE = 0x340,
    LAPIC_LVT_LINT0 = 0x350,
    LAPIC_LVT_LINT1 = 0x360,
    LAPIC_LVT_ERROR = 0x370,
    LAPIC_TIMER_INITIAL = 0x380,
    LAPIC_TIMER_CURRENT = 0x390,
    LAPIC_TIMER_DIVIDE = 0x3e0,
    LAPIC_SELF_IPI = 0x3f0,
};

#define LAPIC_REGISTERS    64
#define LAPIC_VECTOR_WORDS 8

#define BASE_BSP     (UINT64_C(1) << 8)
#define BASE_X2APIC  (UINT64_C(1) << 10)
#define BASE_ENABLE  (UINT64_C(1) << 11)
#define BASE_ADDRESS UINT64_C(0xfee00000)

#define SVR_ENABLE   0x100u
#define SVR_NO_EOI   0x1000u /* suppress EOI broadcasts */
#define SVR_WRITABLE 0x13ffu

#define LVT_VECTOR      0xffu
#define LVT_DELIVERY    0x700u
#define LVT_MASKED      0x10000u
#define LVT_TIMER_MODE  0x60000u
#define LVT_TIMER_SHIFT 17

/* Delivery modes (figure 10-12, and of MSI data, 10.11.2). */
enum lapic_delivery {
    DELIVERY_FIXED,
    DELIVERY_LOWEST,
    DELIVERY_SMI,
    DELIVERY_REMOTE_READ,
    DELIVERY_NMI,
    DELIVERY_INIT,
    DELIVERY_SIPI,
    DELIVERY_EXTINT,
};

#define ESR_SEND_ILLEGAL     0x20u
#define ESR_RECEIVE_ILLEGAL  0x40u
#define ESR_ILLEGAL_REGISTER 0x80u

#define FIRST_VECTOR 16

struct lapic {
    /* constant */
    struct vcpu *vcpu;
    int64_t (*tsc_ns_at)(struct vcpu *vcpu, uint64_t tsc);

    /* vCPU thread */
    uint64_t base;
    uint32_t reg[LAPIC_REGISTERS]; /* by offset / 16 */
    uint32_t errors;               /* since the last write to ESR */
    bool is_bsp;
    int64_t timer_expires_ns; /* -1: not running */
    uint64_t tsc_deadline;    /* 0: none */
    struct aio_timer timer;   /* its callback runs in the main loop and posts timer_fired */

    /* atomic: the mailbox. A vector is posted in its word, and then the word in `posted`. */
    _Atomic(uint32_t) edge[LAPIC_VECTOR_WORDS], level[LAPIC_VECTOR_WORDS];
    _Atomic(uint32_t) posted; /* bit per word; POSTED_TIMER, POSTED_ERROR */
    _Atomic(uint32_t) posted_errors;

    /* atomic: what senders need to know, published by the vCPU's thread */
    _Atomic(uint64_t) identity; /* IDENTITY_… */
    _Atomic(uint8_t) priority;  /* PPR */
};

#define POSTED_TIMER (UINT32_C(1) << 30)
#define POSTED_ERROR (UINT32_C(1) << 31)

#define IDENTITY_LDR      UINT64_C(0xffffffff)
#define IDENTITY_ENABLED  (UINT64_C(1) << 32) /* globally */
#define IDENTITY_SOFTWARE (UINT64_C(1) << 33) /* and by SVR */
#define IDENTITY_X2APIC   (UINT64_C(1) << 34)
#define IDENTITY_FLAT     (UINT64_C(1) << 35)

static inline uint32_t *lapic_reg(struct lapic *lapic, enum lapic_register offset)
{
    return &lapic->reg[offset / 16];
}

static inline uint32_t lapic_get(const struct lapic *lapic, enum lapic_register offset)
{
    return lapic->reg[offset / 16];
}

static inline bool lapic_is_x2apic(const struct lapic *lapic)
{
    return (lapic->base & (BASE_ENABLE | BASE_X2APIC)) == (BASE_ENABLE | BASE_X2APIC);
}

/* ---- lapic.c: vCPU thread -------------------------------------------------------------------- */

/* Takes what has been posted into the registers. */
void lapic_take_mailbox(struct lapic *lapic);
void lapic_publish(struct lapic *lapic); /* identity and priority, after they may have changed */
uint32_t lapic_ppr(const struct lapic *lapic);
/* An interrupt of an LVT entry. */
void lapic_local(struct lapic *lapic, enum lapic_register lvt);
void lapic_error(struct lapic *lapic, uint32_t bits);
void lapic_eoi(struct lapic *lapic);

/* ---- lapic_regs.c: vCPU thread --------------------------------------------------------------- */

/* False: there is no such register, or it cannot be read or written so (#GP in x2APIC mode). */
bool lapic_read(struct lapic *lapic, uint32_t offset, uint32_t *value);
bool lapic_write(struct lapic *lapic, uint32_t offset, uint32_t value);

/* ---- lapic_ipi.c ----------------------------------------------------------------------------- */

/* Any thread. */
void lapic_post(struct lapic *lapic, uint8_t vector, bool level);
/* Sends what the two halves of ICR say. vCPU thread. */
void lapic_send_icr(struct lapic *lapic, uint32_t low, uint32_t high);
void lapic_send_self(struct lapic *lapic, uint8_t vector);

/* ---- lapic_timer.c: vCPU thread -------------------------------------------------------------- */

void lapic_timer_init(struct lapic *lapic);
void lapic_timer_stop(struct lapic *lapic);
void lapic_timer_set_count(struct lapic *lapic, uint32_t count);
void lapic_timer_set_divide(struct lapic *lapic, uint32_t divide);
void lapic_timer_set_lvt(struct lapic *lapic, uint32_t lvt);
uint32_t lapic_timer_count(const struct lapic *lapic);
void lapic_timer_set_deadline(struct lapic *lapic, uint64_t tsc);
/* It may have expired. */
void lapic_timer_sync(struct lapic *lapic);
void lapic_timer_load(struct lapic *lapic, int64_t expires_ns, uint32_t current_count);

#endif
