/* SPDX-License-Identifier: MIT */
/*
 * The LAPIC's state: mailbox, priorities, acknowledge, end of interrupt, modes.
 *
 * Invariants:
 *  - Only the vCPU's thread touches reg[]; senders see identity and priority, which it publishes.
 *  - A vector is in ISR at most once, and ISR's highest is the one being served.
 */
#include "accel/lapic.h"

#include <stdlib.h>
#include <string.h>

#include "accel/lapic_internal.h"
#include "base/alloc.h"
#include "base/bytes.h"
#include "mem/machine_lock.h"

#define VERSION       (0x14u | 5u << 16 | 1u << 24) /* integrated, 6 LVTs, EOI suppression */
#define LVT_EXTINT    (DELIVERY_EXTINT << 8)
#define BASE_WRITABLE (UINT64_C(0xffffff000) | BASE_X2APIC | BASE_ENABLE)

/* ---- vectors -------------------------------------------------------------------------------- */

/* Highest vector of one of the 256-bit registers, or -1. */
static int highest(const struct lapic *lapic, enum lapic_register first)
{
    for (int i = LAPIC_VECTOR_WORDS - 1; i >= 0; i--) {
        uint32_t word = lapic->reg[first / 16 + i];
        if (word) {
            return i * 32 + 31 - __builtin_clz(word);
        }
    }
    return -1;
}

static uint32_t *word_of(struct lapic *lapic, enum lapic_register first, unsigned vector)
{
    return &lapic->reg[first / 16 + vector / 32];
}

static uint32_t bit_of(unsigned vector)
{
    return UINT32_C(1) << vector % 32;
}

/* 10.8.3.1 */
uint32_t lapic_ppr(const struct lapic *lapic)
{
    uint32_t tpr = lapic_get(lapic, LAPIC_TPR) & 0xff;
    int served = highest(lapic, LAPIC_ISR);
    uint32_t class = served < 0 ? 0 : (uint32_t)served & 0xf0;

    return (tpr & 0xf0) >= class ? tpr : class;
}

/* ---- what senders see ----------------------------------------------------------------------- */

void lapic_publish(struct lapic *lapic)
{
    uint64_t identity = lapic_get(lapic, LAPIC_LDR);

    if (lapic->base & BASE_ENABLE) {
        identity |= IDENTITY_ENABLED;
        identity |= lapic_get(lapic, LAPIC_SVR) & SVR_ENABLE ? IDENTITY_SOFTWARE : 0;
        identity |= lapic_is_x2apic(lapic) ? IDENTITY_X2APIC : 0;
        identity |= lapic_get(lapic, LAPIC_DFR) >> 28 == 0xf ? IDENTITY_FLAT : 0;
    }
    atomic_store_explicit(&lapic->identity, identity, memory_order_release);
    atomic_store_explicit(&lapic->priority, (uint8_t)lapic_ppr(lapic), memory_order_relaxed);
}

/* ---- mailbox -------------------------------------------------------------------------------- */

void lapic_take_mailbox(struct lapic *lapic)
{
    /* Pairs with the release in lapic_post(): whoever sees a word's bit sees its vectors. */
    uint32_t posted = atomic_exchange_explicit(&lapic->posted, 0, memory_order_acquire);

    if (!posted) {
        return;
    }
    for (unsigned i = 0; i < LAPIC_VECTOR_WORDS; i++) {
        if (!(posted & 1u << i)) {
            continue;
        }
        uint32_t edge = atomic_exchange_explicit(&lapic->edge[i], 0, memory_order_acquire);
        uint32_t level = atomic_exchange_explicit(&lapic->level[i], 0, memory_order_acquire);
        uint32_t *tmr = &lapic->reg[LAPIC_TMR / 16 + i];
        lapic->reg[LAPIC_IRR / 16 + i] |= edge | level;
        *tmr = (*tmr & ~edge) | level;
    }
    if (posted & POSTED_ERROR) {
        lapic_error(lapic, atomic_exchange(&lapic->posted_errors, 0));
    }
    if (posted & POSTED_TIMER) {
        lapic_timer_sync(lapic);
    }
}

static void clear_mailbox(struct lapic *lapic)
{
    atomic_store(&lapic->posted, 0);
    atomic_store(&lapic->posted_errors, 0);
    for (unsigned i = 0; i < LAPIC_VECTOR_WORDS; i++) {
        atomic_store(&lapic->edge[i], 0);
        atomic_store(&lapic->level[i], 0);
    }
}

/* ---- local interrupts ----------------------------------------------------------------------- */

void lapic_local(struct lapic *lapic, enum lapic_register entry)
{
    uint32_t lvt = lapic_get(lapic, entry);
    uint8_t vector = lvt & LVT_VECTOR;

    if (lvt & LVT_MASKED || !(lapic->base & BASE_ENABLE)) {
        return;
    }
    switch ((enum lapic_delivery)((lvt & LVT_DELIVERY) >> 8)) {
    case DELIVERY_FIXED:
        if (vector < FIRST_VECTOR) {
            /* The error's own vector would raise the same error again. */
            lapic->errors |= ESR_RECEIVE_ILLEGAL;
            if (entry != LAPIC_LVT_ERROR) {
                lapic_local(lapic, LAPIC_LVT_ERROR);
            }
            return;
        }
        *word_of(lapic, LAPIC_IRR, vector) |= bit_of(vector);
        *word_of(lapic, LAPIC_TMR, vector) &= ~bit_of(vector);
        break;
    case DELIVERY_NMI:
        vcpu_request(lapic->vcpu, VCPU_REQUEST_NMI);
        break;
    default: /* timer and error, which come here, have no delivery mode (10.5.1) */
        break;
    }
}

/* 10.5.3: the bits show in ESR after the next write to it. */
void lapic_error(struct lapic *lapic, uint32_t bits)
{
    if (bits) {
        lapic->errors |= bits;
        lapic_local(lapic, LAPIC_LVT_ERROR);
    }
}

/* ---- delivery to the CPU -------------------------------------------------------------------- */

static int deliverable(const struct lapic *lapic)
{
    int vector = highest(lapic, LAPIC_IRR);

    if (!(lapic->base & BASE_ENABLE) || vector < 0 ||
        ((uint32_t)vector & 0xf0) <= (lapic_ppr(lapic) & 0xf0)) {
        return -1;
    }
    return vector;
}

bool lapic_sync(struct lapic *lapic)
{
    lapic_take_mailbox(lapic);
    return deliverable(lapic) >= 0;
}

int lapic_ack(struct lapic *lapic)
{
    int vector = deliverable(lapic);

    if (vector >= 0) {
        *word_of(lapic, LAPIC_IRR, (unsigned)vector) &= ~bit_of((unsigned)vector);
        *word_of(lapic, LAPIC_ISR, (unsigned)vector) |= bit_of((unsigned)vector);
        lapic_publish(lapic);
    }
    return vector;
}

bool lapic_accepts_extint(const struct lapic *lapic)
{
    uint32_t lvt = lapic_get(lapic, LAPIC_LVT_LINT0);

    return !(lapic->base & BASE_ENABLE) ||
           (!(lvt & LVT_MASKED) && (lvt & LVT_DELIVERY) == LVT_EXTINT);
}

/* Tells the IOAPIC; it is machine state. */
static void broadcast_eoi(struct lapic *lapic, uint8_t vector)
{
    struct accel *accel = lapic->vcpu->accel;
    bool held = machine_lock_held();

    if (!accel || !accel->eoi_broadcast) {
        return;
    }
    if (!held) {
        machine_lock();
    }
    accel->eoi_broadcast(accel->eoi_opaque, vector);
    if (!held) {
        machine_unlock();
    }
}

/* 10.8.5 */
void lapic_eoi(struct lapic *lapic)
{
    int vector = highest(lapic, LAPIC_ISR);

    if (vector < 0) {
        return;
    }
    *word_of(lapic, LAPIC_ISR, (unsigned)vector) &= ~bit_of((unsigned)vector);
    lapic_publish(lapic);
    if (*word_of(lapic, LAPIC_TMR, (unsigned)vector) & bit_of((unsigned)vector) &&
        !(lapic_get(lapic, LAPIC_SVR) & SVR_NO_EOI)) {
        broadcast_eoi(lapic, (uint8_t)vector);
    }
}

uint8_t lapic_tpr(const struct lapic *lapic)
{
    return (uint8_t)lapic_get(lapic, LAPIC_TPR);
}

void lapic_set_tpr(struct lapic *lapic, uint8_t tpr)
{
    *lapic_reg(lapic, LAPIC_TPR) = tpr;
    lapic_publish(lapic);
}

/* ---- modes ---------------------------------------------------------------------------------- */

/* The registers after RESET and INIT (10.4.7.1). The boot processor's LINT0 is the virtual wire
 * that firmware would set up. */
static void reset_registers(struct lapic *lapic)
{
    lapic_timer_stop(lapic);
    clear_mailbox(lapic);
    memset(lapic->reg, 0, sizeof(lapic->reg));
    lapic->errors = 0;
    *lapic_reg(lapic, LAPIC_VERSION) = VERSION;
    *lapic_reg(lapic, LAPIC_DFR) = UINT32_MAX;
    *lapic_reg(lapic, LAPIC_SVR) = 0xff;
    *lapic_reg(lapic, LAPIC_LVT_CMCI) = LVT_MASKED;
    for (unsigned i = LAPIC_LVT_TIMER; i <= LAPIC_LVT_ERROR; i += 16) {
        lapic->reg[i / 16] = LVT_MASKED;
    }
    if (lapic->is_bsp) {
        *lapic_reg(lapic, LAPIC_LVT_LINT0) = LVT_EXTINT;
    }
}

/* 10.12.10.2: the logical id of x2APIC mode comes from the APIC id. */
static void enter_mode(struct lapic *lapic)
{
    uint32_t id = lapic->vcpu->apic_id;

    if (lapic_is_x2apic(lapic)) {
        *lapic_reg(lapic, LAPIC_LDR) = (id >> 4) << 16 | 1u << (id & 0xf);
        *lapic_reg(lapic, LAPIC_DFR) = UINT32_MAX;
    }
    lapic_publish(lapic);
}

void lapic_reset(struct lapic *lapic, bool is_bsp)
{
    lapic->is_bsp = is_bsp;
    lapic->base = BASE_ADDRESS | BASE_ENABLE | (is_bsp ? BASE_BSP : 0);
    reset_registers(lapic);
    enter_mode(lapic);
}

void lapic_init(struct lapic *lapic)
{
    reset_registers(lapic);
    enter_mode(lapic);
}

uint64_t lapic_base(const struct lapic *lapic)
{
    return lapic->base;
}

void lapic_load_base(struct lapic *lapic, uint64_t value)
{
    bool was_enabled = lapic->base & BASE_ENABLE;
    bool was_x2apic = lapic_is_x2apic(lapic);

    lapic->base = (value & BASE_WRITABLE) | (lapic->is_bsp ? BASE_BSP : 0);
    if (was_enabled != !!(lapic->base & BASE_ENABLE)) {
        reset_registers(lapic);
    }
    if (was_x2apic != lapic_is_x2apic(lapic)) {
        *lapic_reg(lapic, LAPIC_LDR) = 0;
    }
    enter_mode(lapic);
}

/* Figure 10-27: which changes there are. */
bool lapic_set_base(struct lapic *lapic, uint64_t value)
{
    bool was_enabled = lapic->base & BASE_ENABLE, was_x2apic = lapic_is_x2apic(lapic);
    bool enables = value & BASE_ENABLE, x2apic = value & BASE_X2APIC;

    if (value & ~(BASE_WRITABLE | BASE_BSP) || (x2apic && !enables) ||
        (was_x2apic && enables && !x2apic) || (!was_enabled && x2apic)) {
        return false;
    }
    lapic_load_base(lapic, value);
    return true;
}

/* ---- state ---------------------------------------------------------------------------------- */

void lapic_get_state(const struct lapic *lapic, struct x86_lapic *state)
{
    uint32_t id = lapic->vcpu->apic_id;

    memset(state, 0, sizeof(*state));
    for (unsigned i = 0; i < LAPIC_REGISTERS; i++) {
        store_le32(state->regs + i * 16, lapic->reg[i]);
    }
    store_le32(state->regs + LAPIC_ID, lapic_is_x2apic(lapic) ? id : id << 24);
    store_le32(state->regs + LAPIC_PPR, lapic_ppr(lapic));
    store_le32(state->regs + LAPIC_TIMER_CURRENT, lapic_timer_count(lapic));
    /* What is still in the mailbox belongs to the state. */
    for (unsigned i = 0; i < LAPIC_VECTOR_WORDS; i++) {
        uint32_t edge = atomic_load(&lapic->edge[i]), level = atomic_load(&lapic->level[i]);
        uint8_t *irr = state->regs + LAPIC_IRR + i * 16, *tmr = state->regs + LAPIC_TMR + i * 16;
        store_le32(irr, load_le32(irr) | edge | level);
        store_le32(tmr, (load_le32(tmr) & ~edge) | level);
    }
    state->timer_expires_ns = lapic->timer_expires_ns;
}

void lapic_set_state(struct lapic *lapic, const struct x86_lapic *state)
{
    lapic_timer_stop(lapic);
    clear_mailbox(lapic);
    for (unsigned i = 0; i < LAPIC_REGISTERS; i++) {
        lapic->reg[i] = load_le32(state->regs + i * 16);
    }
    *lapic_reg(lapic, LAPIC_VERSION) = VERSION;
    *lapic_reg(lapic, LAPIC_TPR) &= 0xff;
    *lapic_reg(lapic, LAPIC_SVR) &= SVR_WRITABLE;
    /* Vectors below 16 cannot have been accepted. */
    *lapic_reg(lapic, LAPIC_IRR) &= ~UINT32_C(0xffff);
    *lapic_reg(lapic, LAPIC_ISR) &= ~UINT32_C(0xffff);
    lapic_timer_load(lapic, state->timer_expires_ns, load_le32(state->regs + LAPIC_TIMER_CURRENT));
    enter_mode(lapic);
}

/* ---- life ----------------------------------------------------------------------------------- */

struct lapic *lapic_new(struct vcpu *vcpu)
{
    struct lapic *lapic = xnew(struct lapic);

    lapic->vcpu = vcpu;
    lapic_timer_init(lapic);
    lapic_reset(lapic, vcpu->index == 0);
    return lapic;
}

void lapic_free(struct lapic *lapic)
{
    lapic_timer_stop(lapic);
    free(lapic);
}

void lapic_set_tsc_clock(struct lapic *lapic, int64_t (*ns_at)(struct vcpu *vcpu, uint64_t tsc))
{
    lapic->tsc_ns_at = ns_at;
}
