/* SPDX-License-Identifier: MIT */
/*
 * Sending: who is addressed (SDM 10.6.2, 10.12.10), and what happens to them by delivery mode.
 *
 * A sender looks at the targets' published identities and posts to their mailboxes: no lock, from
 * any thread. A target that changes its logical address at that moment gets the message by its old
 * or its new one.
 */
#include "accel/lapic_internal.h"

#include "base/range.h"

#define BROADCAST_8BIT  0xffu
#define BROADCAST_32BIT UINT32_MAX

#define ICR_LOGICAL      0x800u
#define ICR_ASSERT       0x4000u
#define ICR_LEVEL        0x8000u
#define ICR_SHORTHAND(v) ((v) >> 18 & 3)

enum { SHORTHAND_NONE, SHORTHAND_SELF, SHORTHAND_ALL, SHORTHAND_OTHERS };

#define MSI_LOGICAL 0x4u
#define MSI_HINT    0x8u /* redirection: one of those addressed */

struct message {
    uint32_t destination;
    bool is_logical;
    bool is_8bit; /* sent by an xAPIC or a device that knows only 8 bits of destination */
    bool to_one;  /* the one of lowest priority */
    enum lapic_delivery delivery;
    uint8_t vector;
    bool level, assert;
};

/* ---- targets -------------------------------------------------------------------------------- */

static bool matches_logical(uint64_t identity, const struct message *m)
{
    uint32_t ldr = (uint32_t)(identity & IDENTITY_LDR), dest = m->destination;

    if (identity & IDENTITY_X2APIC) {
        return dest >> 16 == ldr >> 16 && dest & ldr & 0xffff;
    }
    ldr >>= 24;
    if (dest > 0xff) {
        return false;
    }
    if (identity & IDENTITY_FLAT) {
        return dest & ldr;
    }
    return dest >> 4 == ldr >> 4 && dest & ldr & 0xf;
}

static bool matches(const struct lapic *lapic, const struct message *m)
{
    uint64_t identity = atomic_load_explicit(&lapic->identity, memory_order_acquire);

    if (!(identity & IDENTITY_ENABLED)) {
        return false;
    }
    if (m->destination == (m->is_8bit ? BROADCAST_8BIT : BROADCAST_32BIT)) {
        return true;
    }
    return m->is_logical ? matches_logical(identity, m) : m->destination == lapic->vcpu->apic_id;
}

/* ---- posting -------------------------------------------------------------------------------- */

static void post_error(struct lapic *lapic, uint32_t bits)
{
    atomic_fetch_or(&lapic->posted_errors, bits);
    atomic_fetch_or_explicit(&lapic->posted, POSTED_ERROR, memory_order_release);
    vcpu_request(lapic->vcpu, VCPU_REQUEST_APIC);
}

void lapic_post(struct lapic *lapic, uint8_t vector, bool level)
{
    uint64_t identity = atomic_load_explicit(&lapic->identity, memory_order_acquire);
    unsigned word = vector / 32;

    if (!(identity & IDENTITY_SOFTWARE)) {
        return; /* 10.4.7.2: only NMI, INIT, SMI and SIPI get through */
    }
    if (vector < FIRST_VECTOR) {
        post_error(lapic, ESR_RECEIVE_ILLEGAL);
        return;
    }
    atomic_fetch_or_explicit(level ? &lapic->level[word] : &lapic->edge[word],
                             UINT32_C(1) << vector % 32, memory_order_relaxed);
    /* Release: pairs with the acquire in lapic_take_mailbox(). */
    atomic_fetch_or_explicit(&lapic->posted, UINT32_C(1) << word, memory_order_release);
    vcpu_request(lapic->vcpu, VCPU_REQUEST_APIC);
}

static void deliver(struct lapic *lapic, const struct message *m)
{
    switch (m->delivery) {
    case DELIVERY_FIXED:
    case DELIVERY_LOWEST:
        lapic_post(lapic, m->vector, m->level);
        break;
    case DELIVERY_NMI:
        vcpu_request(lapic->vcpu, VCPU_REQUEST_NMI);
        break;
    case DELIVERY_INIT:
        if (m->assert || !m->level) { /* the level de-assert of old does nothing */
            vcpu_request(lapic->vcpu, VCPU_REQUEST_INIT);
        }
        break;
    case DELIVERY_SIPI:
        atomic_store(&lapic->vcpu->sipi_vector, m->vector);
        vcpu_request(lapic->vcpu, VCPU_REQUEST_SIPI);
        break;
    case DELIVERY_SMI:
        if (lapic->vcpu->accel->smm_enabled) {
            vcpu_request(lapic->vcpu, VCPU_REQUEST_SMI);
        }
        break;
    case DELIVERY_REMOTE_READ: /* not since the Pentium 4 */
    case DELIVERY_EXTINT:      /* the PIC's wire goes to LINT0 only */
        break;
    }
}

/* Among those addressed the one of lowest priority; among equals each in turn. */
static void send_to_one(const struct message *m)
{
    static _Atomic(unsigned) turn;
    unsigned count = vcpu_count(), first = atomic_fetch_add(&turn, 1);
    struct lapic *best = NULL;
    unsigned best_priority = 0;

    for (unsigned i = 0; i < count; i++) {
        struct vcpu *vcpu = vcpu_get((first + i) % count);
        if (!vcpu || !vcpu->lapic || !matches(vcpu->lapic, m) ||
            !(atomic_load(&vcpu->lapic->identity) & IDENTITY_SOFTWARE)) {
            continue;
        }
        unsigned priority = atomic_load(&vcpu->lapic->priority);
        if (!best || priority < best_priority) {
            best = vcpu->lapic;
            best_priority = priority;
        }
    }
    if (best) {
        deliver(best, m);
    }
}

static void send_message(const struct message *m)
{
    if (m->to_one) {
        send_to_one(m);
        return;
    }
    for (unsigned i = 0; i < vcpu_count(); i++) {
        struct vcpu *vcpu = vcpu_get(i);
        if (vcpu && vcpu->lapic && matches(vcpu->lapic, m)) {
            deliver(vcpu->lapic, m);
        }
    }
}

/* ---- senders -------------------------------------------------------------------------------- */

/* 10.11: the destination's bits 7:0 are address bits 19:12; 63:40 extend it. */
void lapic_send_msi(const struct msi_message *msg)
{
    struct message m = {
        .destination =
            (uint32_t)(msg->address >> 12 & 0xff) | (uint32_t)(msg->address >> 32 & 0xffffff00),
        .is_logical = msg->address & MSI_LOGICAL,
        .delivery = (enum lapic_delivery)(msg->data >> 8 & 7),
        .vector = (uint8_t)msg->data,
        .level = msg->data & ICR_LEVEL,
        .assert = msg->data & ICR_ASSERT,
    };

    m.is_8bit = m.destination <= 0xff;
    m.to_one = m.delivery == DELIVERY_LOWEST ||
               (m.delivery == DELIVERY_FIXED && m.is_logical && msg->address & MSI_HINT);
    send_message(&m);
}

static void send_to_others(struct lapic *lapic, const struct message *m, bool self_too)
{
    for (unsigned i = 0; i < vcpu_count(); i++) {
        struct vcpu *vcpu = vcpu_get(i);
        if (vcpu && vcpu->lapic && (vcpu->lapic != lapic || self_too) &&
            atomic_load(&vcpu->lapic->identity) & IDENTITY_ENABLED) {
            deliver(vcpu->lapic, m);
        }
    }
}

/* 10.6.1; IPIs are edges, but for INIT level de-assert. */
void lapic_send_icr(struct lapic *lapic, uint32_t low, uint32_t high)
{
    bool x2apic = lapic_is_x2apic(lapic);
    struct message m = {
        .destination = x2apic ? high : high >> 24,
        .is_logical = low & ICR_LOGICAL,
        .is_8bit = !x2apic,
        .delivery = (enum lapic_delivery)(low >> 8 & 7),
        .vector = (uint8_t)low,
        .assert = low & ICR_ASSERT,
    };

    m.to_one = m.delivery == DELIVERY_LOWEST;
    m.level = m.delivery == DELIVERY_INIT && low & ICR_LEVEL;
    if (m.delivery <= DELIVERY_LOWEST && m.vector < FIRST_VECTOR) {
        lapic_error(lapic, ESR_SEND_ILLEGAL);
        return;
    }
    switch (ICR_SHORTHAND(low)) {
    case SHORTHAND_SELF:
        if (m.delivery == DELIVERY_FIXED) {
            lapic_post(lapic, m.vector, false);
        }
        break;
    case SHORTHAND_ALL:
    case SHORTHAND_OTHERS:
        send_to_others(lapic, &m, ICR_SHORTHAND(low) == SHORTHAND_ALL);
        break;
    default:
        send_message(&m);
    }
}

/* 10.12.11 */
void lapic_send_self(struct lapic *lapic, uint8_t vector)
{
    if (vector < FIRST_VECTOR) {
        lapic_error(lapic, ESR_SEND_ILLEGAL);
    } else {
        lapic_post(lapic, vector, false);
    }
}
