/* SPDX-License-Identifier: MIT */
/*
 * Invariants:
 *  - s.irr is the level of the inputs.
 *  - Remote IRR is set only in level entries; while it is set the pin sends nothing.
 *  - route[] is what the engine was last told (irqchip=split).
 */
#include "hw/ioapic.h"

#include "accel/accel.h"
#include "hw/chip_state.h"
#include "hw/gsi.h"
#include "mem/address_space.h"

#define REG_SELECT 0x00
#define REG_WINDOW 0x10
#define REG_EOI    0x40

#define INDEX_ID          0x00
#define INDEX_VERSION     0x01
#define INDEX_ARBITRATION 0x02
#define INDEX_TABLE       0x10

#define VERSION 0x20
#define ID_MASK 0x0f000000u

#define ENTRY_VECTOR      UINT64_C(0xff)
#define ENTRY_DELIVERY    UINT64_C(0x700)
#define ENTRY_LOGICAL     UINT64_C(0x800)
#define ENTRY_REMOTE_IRR  UINT64_C(0x4000)
#define ENTRY_LEVEL       UINT64_C(0x8000)
#define ENTRY_MASKED      UINT64_C(0x10000)
#define ENTRY_DESTINATION 56
/* Vector, delivery mode, destination mode, polarity, trigger, mask; and the destination. */
#define ENTRY_WRITABLE UINT64_C(0xff0000000001afff)

#define MSI_BASE    0xfee00000u
#define MSI_LOGICAL 0x4u
#define MSI_LEVEL   0x8000u /* trigger mode */
#define MSI_ASSERT  0x4000u

struct ioapic {
    struct device dev;
    /* constant after realize */
    struct mem_region region;
    /* machine state */
    struct x86_ioapic s;
    struct {
        bool valid;
        struct msi_message msg;
    } route[X86_IOAPIC_PINS];
};

/* ---- sending -------------------------------------------------------------------------------- */

bool ioapic_entry_message(uint64_t entry, struct msi_message *msg)
{
    if (entry & ENTRY_MASKED) {
        return false;
    }
    msg->address =
        MSI_BASE | (entry >> ENTRY_DESTINATION) << 12 | (entry & ENTRY_LOGICAL ? MSI_LOGICAL : 0);
    msg->data = (uint32_t)(entry & (ENTRY_VECTOR | ENTRY_DELIVERY));
    if (entry & ENTRY_LEVEL) {
        msg->data |= MSI_LEVEL | MSI_ASSERT;
    }
    return true;
}

/* True if the pin sent. */
static bool send(struct ioapic *ioapic, unsigned pin)
{
    struct msi_message msg;

    if (!ioapic_entry_message(ioapic->s.redirection[pin], &msg)) {
        return false;
    }
    accel_msi_send(&msg);
    return true;
}

/* A level pin whose input is high sends, unless its last message is still being served. */
static void service_level(struct ioapic *ioapic, unsigned pin)
{
    uint64_t *entry = &ioapic->s.redirection[pin];

    if (*entry & ENTRY_LEVEL && ioapic->s.irr & 1u << pin && !(*entry & ENTRY_REMOTE_IRR) &&
        send(ioapic, pin)) {
        *entry |= ENTRY_REMOTE_IRR;
    }
}

static void ioapic_set_irq(void *opaque, unsigned pin, int level)
{
    struct ioapic *ioapic = opaque;
    uint32_t bit = 1u << pin;
    bool rises = level && !(ioapic->s.irr & bit);

    ioapic->s.irr = level ? ioapic->s.irr | bit : ioapic->s.irr & ~bit;
    if (ioapic->s.redirection[pin] & ENTRY_LEVEL) {
        service_level(ioapic, pin);
    } else if (rises) {
        send(ioapic, pin); /* an edge at a masked pin is lost (82093AA 3.2.4, bit 16) */
    }
}

void ioapic_eoi(void *opaque, uint8_t vector)
{
    struct ioapic *ioapic = opaque;

    for (unsigned i = 0; i < X86_IOAPIC_PINS; i++) {
        uint64_t *entry = &ioapic->s.redirection[i];
        if ((*entry & ENTRY_VECTOR) == vector && *entry & ENTRY_REMOTE_IRR) {
            *entry &= ~ENTRY_REMOTE_IRR;
            service_level(ioapic, i);
        }
    }
}

/* ---- routes of the engine ------------------------------------------------------------------- */

static void set_route(struct ioapic *ioapic, unsigned pin, bool valid, struct msi_message msg)
{
    struct accel *accel = accel_current();

    if (!accel || accel->irqchip != IRQCHIP_SPLIT || !accel->ops->route_ioapic_pin ||
        (valid == ioapic->route[pin].valid && msg.address == ioapic->route[pin].msg.address &&
         msg.data == ioapic->route[pin].msg.data)) {
        return;
    }
    ioapic->route[pin].valid = valid;
    ioapic->route[pin].msg = msg;
    accel->ops->route_ioapic_pin(accel, pin, valid ? &msg : NULL);
}

/* Tells the engine what the pin sends, if it wants to know and that has changed. A pin that is masked
 * keeps its route: an interrupt of it may be in service, whose EOI is only told while there is one. */
static void update_route(struct ioapic *ioapic, unsigned pin)
{
    struct msi_message msg;

    if (ioapic_entry_message(ioapic->s.redirection[pin], &msg)) {
        set_route(ioapic, pin, true, msg);
    }
}

/* ---- registers ------------------------------------------------------------------------------ */

static uint32_t read_window(const struct ioapic *ioapic)
{
    const struct x86_ioapic *s = &ioapic->s;

    switch (s->ioregsel) {
    case INDEX_ID:
    case INDEX_ARBITRATION:
        return s->id << 24 & ID_MASK;
    case INDEX_VERSION:
        return VERSION | (X86_IOAPIC_PINS - 1) << 16;
    default:
        break;
    }
    unsigned pin = (s->ioregsel - INDEX_TABLE) / 2;
    if (s->ioregsel < INDEX_TABLE || pin >= X86_IOAPIC_PINS) {
        return 0;
    }
    return (uint32_t)(s->redirection[pin] >> (s->ioregsel & 1 ? 32 : 0));
}

static void write_entry(struct ioapic *ioapic, unsigned pin, unsigned shift, uint32_t value)
{
    uint64_t *entry = &ioapic->s.redirection[pin];
    uint64_t mask = UINT64_C(0xffffffff) << shift & ENTRY_WRITABLE;

    *entry = (*entry & ~mask) | ((uint64_t)value << shift & mask);
    if (!(*entry & ENTRY_LEVEL)) {
        *entry &= ~ENTRY_REMOTE_IRR;
    }
    update_route(ioapic, pin);
    service_level(ioapic, pin);
}

static void write_window(struct ioapic *ioapic, uint32_t value)
{
    struct x86_ioapic *s = &ioapic->s;
    unsigned pin = (s->ioregsel - INDEX_TABLE) / 2;

    if (s->ioregsel == INDEX_ID) {
        s->id = (value & ID_MASK) >> 24;
    } else if (s->ioregsel >= INDEX_TABLE && pin < X86_IOAPIC_PINS) {
        write_entry(ioapic, pin, s->ioregsel & 1 ? 32 : 0, value);
    }
}

static uint64_t ioapic_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct ioapic *ioapic = opaque;

    switch (offset) {
    case REG_SELECT:
        return ioapic->s.ioregsel;
    case REG_WINDOW:
        return read_window(ioapic);
    default:
        return 0;
    }
}

static void ioapic_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct ioapic *ioapic = opaque;

    switch (offset) {
    case REG_SELECT:
        ioapic->s.ioregsel = (uint8_t)value;
        break;
    case REG_WINDOW:
        write_window(ioapic, (uint32_t)value);
        break;
    case REG_EOI:
        ioapic_eoi(ioapic, (uint8_t)value);
        break;
    default:
        break;
    }
}

static const struct mem_region_ops ioapic_ops = {
    .read = ioapic_read,
    .write = ioapic_write,
    .valid = {.min = 1, .max = 4},
    .impl = {.min = 4, .max = 4},
};

/* ---- state ---------------------------------------------------------------------------------- */

static void normalize(struct ioapic *ioapic)
{
    struct x86_ioapic *s = &ioapic->s;

    s->ioregsel &= 0xff;
    s->id &= 0xf;
    s->irr &= (1u << X86_IOAPIC_PINS) - 1;
    s->base_address = IOAPIC_BASE;
    for (unsigned i = 0; i < X86_IOAPIC_PINS; i++) {
        s->redirection[i] &= ENTRY_WRITABLE | ENTRY_REMOTE_IRR;
        if (!(s->redirection[i] & ENTRY_LEVEL)) {
            s->redirection[i] &= ~ENTRY_REMOTE_IRR;
        }
        struct msi_message msg = {0};
        bool valid = ioapic_entry_message(s->redirection[i], &msg);
        set_route(ioapic, i, valid, msg);
    }
}

void ioapic_get_state(struct device *dev, struct x86_ioapic *state)
{
    *state = ((const struct ioapic *)dev)->s;
}

void ioapic_set_state(struct device *dev, const struct x86_ioapic *state)
{
    struct ioapic *ioapic = (struct ioapic *)dev;

    ioapic->s = *state;
    normalize(ioapic);
}

static bool ioapic_post_load(void *device, unsigned version)
{
    normalize(device);
    return true;
}

/* ---- device --------------------------------------------------------------------------------- */

static void ioapic_init(struct device *dev)
{
    device_init_gpio_in(dev, ioapic_set_irq, X86_IOAPIC_PINS);
}

static bool ioapic_realize(struct device *dev, struct error **errp)
{
    struct ioapic *ioapic = (struct ioapic *)dev;

    mem_region_init_io(&ioapic->region, "ioapic", IOAPIC_WINDOW_SIZE, &ioapic_ops, ioapic);
    mem_region_add_overlap(mem_root(), IOAPIC_BASE, &ioapic->region, 1);
    return true;
}

static void ioapic_unrealize(struct device *dev)
{
    struct ioapic *ioapic = (struct ioapic *)dev;

    mem_region_remove(mem_root(), &ioapic->region);
    mem_region_destroy(&ioapic->region);
}

static void ioapic_reset(struct device *dev)
{
    struct ioapic *ioapic = (struct ioapic *)dev;

    x86_ioapic_reset(&ioapic->s);
    normalize(ioapic);
}

static const struct vmstate_field ioapic_fields[] = {
    VMSTATE_SUB(struct ioapic, s, x86_ioapic_vmstate, 1),
    VMSTATE_END,
};

static const struct vmstate ioapic_vmstate = {
    .name = "ioapic",
    .version = 1,
    .minimum_version = 1,
    .fields = ioapic_fields,
    .post_load = ioapic_post_load,
};

const struct device_type ioapic_type = {
    .name = "ioapic",
    .description = "I/O APIC",
    .category = DEVICE_CATEGORY_MISC,
    .bus = "System",
    .size = sizeof(struct ioapic),
    .internal = true,
    .init = ioapic_init,
    .realize = ioapic_realize,
    .unrealize = ioapic_unrealize,
    .reset = ioapic_reset,
    .vmstate = &ioapic_vmstate,
};

struct device *ioapic_new(struct error **errp)
{
    struct device *dev = device_new(&ioapic_type);

    if (!device_realize(dev, system_bus(), errp)) {
        device_free(dev);
        return NULL;
    }
    device_reset(dev);
    return dev;
}
