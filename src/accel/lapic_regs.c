/* SPDX-License-Identifier: MIT */
/*
 * The registers as the guest sees them: the page at 0xfee00000 (xAPIC), MSRs 0x800-0x83f (x2APIC).
 */
#include "accel/lapic_internal.h"

#include "base/range.h"
#include "mem/address_space.h"

#define MSR_X2APIC_FIRST 0x800u
#define MSR_X2APIC_LAST  0x8ffu
#define MSR_TSC_DEADLINE 0x6e0u

#define MSI_WINDOW_SIZE (1 * MiB) /* 0xfee00000 to 0xfeefffff */
#define PAGE_SIZE_4K    0x1000u

#define ICR_WRITABLE      0x000ccfffu
#define DFR_FIXED         0x0fffffffu
#define LVT_LINT_WRITABLE 0x1a7ffu /* vector, delivery, polarity, trigger, mask */

/* What may be written to an LVT entry; 0: it is none. */
static uint32_t lvt_writable(uint32_t offset)
{
    switch (offset) {
    case LAPIC_LVT_TIMER:
        return LVT_VECTOR | LVT_MASKED | LVT_TIMER_MODE;
    case LAPIC_LVT_THERMAL:
    case LAPIC_LVT_PERFORMANCE:
        return LVT_VECTOR | LVT_DELIVERY | LVT_MASKED;
    case LAPIC_LVT_LINT0:
    case LAPIC_LVT_LINT1:
        return LVT_LINT_WRITABLE;
    case LAPIC_LVT_ERROR:
        return LVT_VECTOR | LVT_MASKED;
    default:
        return 0;
    }
}

/* Bits that may be set in a write in x2APIC mode, where others fault (10.12.1.2). */
static uint32_t x2apic_writable(uint32_t offset)
{
    switch (offset) {
    case LAPIC_TPR:
    case LAPIC_SELF_IPI:
        return 0xff;
    case LAPIC_SVR:
        return SVR_WRITABLE;
    case LAPIC_EOI:
    case LAPIC_ESR:
        return 0;
    case LAPIC_ICR:
        return ICR_WRITABLE;
    case LAPIC_TIMER_INITIAL:
        return UINT32_MAX;
    case LAPIC_TIMER_DIVIDE:
        return 0xb;
    default:
        return lvt_writable(offset) | (lvt_writable(offset) ? 0x5000 : 0); /* read-only bits */
    }
}

/* ---- reads ---------------------------------------------------------------------------------- */

bool lapic_read(struct lapic *lapic, uint32_t offset, uint32_t *value)
{
    uint32_t id = lapic->vcpu->apic_id;

    lapic_take_mailbox(lapic);
    switch (offset) {
    case LAPIC_ID:
        *value = lapic_is_x2apic(lapic) ? id : id << 24;
        return true;
    case LAPIC_PPR:
        *value = lapic_ppr(lapic);
        return true;
    case LAPIC_TIMER_CURRENT:
        *value = lapic_timer_count(lapic);
        return true;
    case LAPIC_EOI: /* write-only; an xAPIC gives 0 */
    case LAPIC_SELF_IPI:
        *value = 0;
        return !lapic_is_x2apic(lapic) && offset == LAPIC_EOI;
    case LAPIC_DFR:
    case LAPIC_APR:
    case LAPIC_RRD:
        *value = lapic->reg[offset / 16];
        return !lapic_is_x2apic(lapic);
    case LAPIC_VERSION:
    case LAPIC_TPR:
    case LAPIC_LDR:
    case LAPIC_SVR:
    case LAPIC_ISR ... LAPIC_ESR:
    case LAPIC_LVT_CMCI:
    case LAPIC_ICR:
    case LAPIC_ICR_HIGH:
    case LAPIC_LVT_TIMER ... LAPIC_TIMER_INITIAL:
    case LAPIC_TIMER_DIVIDE:
        *value = lapic->reg[offset / 16];
        return true;
    default:
        *value = 0;
        return false;
    }
}

/* ---- writes --------------------------------------------------------------------------------- */

static void write_svr(struct lapic *lapic, uint32_t value)
{
    *lapic_reg(lapic, LAPIC_SVR) = value & SVR_WRITABLE;
    if (!(value & SVR_ENABLE)) {
        /* 10.4.7.2: all LVTs are masked, and stay so. */
        for (unsigned i = LAPIC_LVT_TIMER; i <= LAPIC_LVT_ERROR; i += 16) {
            lapic->reg[i / 16] |= LVT_MASKED;
        }
    }
    lapic_publish(lapic);
}

static void write_lvt(struct lapic *lapic, uint32_t offset, uint32_t value)
{
    value &= lvt_writable(offset);
    if (!(lapic_get(lapic, LAPIC_SVR) & SVR_ENABLE)) {
        value |= LVT_MASKED;
    }
    if (offset == LAPIC_LVT_TIMER) {
        lapic_timer_set_lvt(lapic, value);
    } else {
        lapic->reg[offset / 16] = value;
    }
}

static void write_icr(struct lapic *lapic, uint32_t low)
{
    *lapic_reg(lapic, LAPIC_ICR) = low & ICR_WRITABLE;
    lapic_send_icr(lapic, low & ICR_WRITABLE, lapic_get(lapic, LAPIC_ICR_HIGH));
}

bool lapic_write(struct lapic *lapic, uint32_t offset, uint32_t value)
{
    bool x2apic = lapic_is_x2apic(lapic);

    if (x2apic && value & ~x2apic_writable(offset)) {
        return false;
    }
    lapic_take_mailbox(lapic);
    switch (offset) {
    case LAPIC_TPR:
        lapic_set_tpr(lapic, (uint8_t)value);
        return true;
    case LAPIC_EOI:
        lapic_eoi(lapic);
        return true;
    case LAPIC_SVR:
        write_svr(lapic, value);
        return true;
    case LAPIC_ESR:
        *lapic_reg(lapic, LAPIC_ESR) = lapic->errors;
        lapic->errors = 0;
        return true;
    case LAPIC_ICR:
        write_icr(lapic, value);
        return true;
    case LAPIC_LVT_TIMER ... LAPIC_LVT_ERROR:
        write_lvt(lapic, offset, value);
        return true;
    case LAPIC_TIMER_INITIAL:
        lapic_timer_set_count(lapic, value);
        return true;
    case LAPIC_TIMER_DIVIDE:
        lapic_timer_set_divide(lapic, value);
        return true;
    case LAPIC_SELF_IPI:
        if (x2apic) {
            lapic_send_self(lapic, (uint8_t)value);
        }
        return x2apic;
    case LAPIC_LDR:
    case LAPIC_DFR:
        if (x2apic) {
            return false;
        }
        lapic->reg[offset / 16] = offset == LAPIC_LDR ? value & 0xff000000 : value | DFR_FIXED;
        lapic_publish(lapic);
        return true;
    case LAPIC_ICR_HIGH:
        *lapic_reg(lapic, LAPIC_ICR_HIGH) = value & 0xff000000;
        return !x2apic;
    case LAPIC_ID: /* read-only: an xAPIC ignores the write */
    case LAPIC_VERSION:
    case LAPIC_PPR:
    case LAPIC_APR:
    case LAPIC_RRD:
    case LAPIC_LVT_CMCI:
    case LAPIC_TIMER_CURRENT:
    case LAPIC_ISR ... LAPIC_ESR - 1:
        return !x2apic;
    default:
        return false;
    }
}

/* ---- MSRs ----------------------------------------------------------------------------------- */

bool lapic_read_msr(struct lapic *lapic, uint32_t index, uint64_t *value)
{
    uint32_t offset = (index - MSR_X2APIC_FIRST) * 16, low;

    if (index == MSR_TSC_DEADLINE) {
        lapic_take_mailbox(lapic);
        *value = lapic->tsc_deadline;
        return lapic->tsc_ns_at != NULL;
    }
    if (index < MSR_X2APIC_FIRST || index > MSR_X2APIC_LAST || !lapic_is_x2apic(lapic) ||
        offset == LAPIC_ICR_HIGH || offset == LAPIC_LVT_CMCI || !lapic_read(lapic, offset, &low)) {
        return false;
    }
    *value = low;
    if (offset == LAPIC_ICR) {
        *value |= (uint64_t)lapic_get(lapic, LAPIC_ICR_HIGH) << 32;
    }
    return true;
}

bool lapic_write_msr(struct lapic *lapic, uint32_t index, uint64_t value)
{
    uint32_t offset = (index - MSR_X2APIC_FIRST) * 16;

    if (index == MSR_TSC_DEADLINE) {
        if (!lapic->tsc_ns_at) {
            return false;
        }
        lapic_take_mailbox(lapic);
        lapic_timer_set_deadline(lapic, value);
        return true;
    }
    if (index < MSR_X2APIC_FIRST || index > MSR_X2APIC_LAST || !lapic_is_x2apic(lapic)) {
        return false;
    }
    if (offset == LAPIC_ICR) {
        if ((uint32_t)value & ~ICR_WRITABLE) {
            return false;
        }
        *lapic_reg(lapic, LAPIC_ICR_HIGH) = (uint32_t)(value >> 32);
    } else if (value >> 32) {
        return false;
    }
    return lapic_write(lapic, offset, (uint32_t)value);
}

/* ---- memory --------------------------------------------------------------------------------- */

/* The LAPIC that answers in this thread's page, or NULL. */
static struct lapic *own_lapic(uint64_t offset)
{
    struct vcpu *vcpu = vcpu_current();
    struct lapic *lapic = vcpu ? vcpu->lapic : NULL;

    if (offset >= PAGE_SIZE_4K || !lapic || !(lapic->base & BASE_ENABLE) ||
        lapic_is_x2apic(lapic)) {
        return NULL;
    }
    return lapic;
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
    struct lapic *lapic = own_lapic(offset);
    uint32_t value;

    if (!lapic) {
        return UINT64_MAX;
    }
    if (offset % 16) {
        return 0; /* registers have 4 bytes of each 16 */
    }
    if (!lapic_read(lapic, (uint32_t)offset, &value)) {
        lapic_error(lapic, ESR_ILLEGAL_REGISTER);
    }
    return value;
}

static void mmio_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct lapic *lapic = own_lapic(offset);
    struct vcpu *vcpu = vcpu_current();

    if (lapic) {
        if (offset % 16 == 0 && !lapic_write(lapic, (uint32_t)offset, (uint32_t)value)) {
            lapic_error(lapic, ESR_ILLEGAL_REGISTER);
        }
    } else if (!vcpu || offset >= PAGE_SIZE_4K) {
        struct msi_message msg = {.address = BASE_ADDRESS + offset, .data = (uint32_t)value};
        lapic_send_msi(&msg);
    }
}

static const struct mem_region_ops mmio_ops = {
    .read = mmio_read,
    .write = mmio_write,
    .valid = {.min = 4, .max = 4},
    .lockless = true,
};

static struct mem_region mmio; /* machine state */

void lapic_mmio_init(void)
{
    if (!mmio.name) {
        mem_region_init_io(&mmio, "apic-msi", MSI_WINDOW_SIZE, &mmio_ops, NULL);
        mem_region_add_overlap(mem_root(), BASE_ADDRESS, &mmio, 0x1000);
    }
}

void lapic_mmio_cleanup(void)
{
    if (mmio.name) {
        mem_region_remove(mem_root(), &mmio);
        mem_region_destroy(&mmio);
        mmio = (struct mem_region){0};
    }
}
