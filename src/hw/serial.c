/* SPDX-License-Identifier: MIT */
#include "hw/serial.h"

#include "chardev/property.h"
#include "hw/isa.h"
#include "hw/uart.h"
#include "mem/machine_lock.h"

#define UNSET UINT32_MAX

struct isa_serial {
    struct device dev;
    /* properties; UNSET until realize */
    uint32_t index, iobase, irq_number;
    struct chardev *chr;
    /* constant after realize */
    struct irq *irq;
    struct mem_region region;
    struct chardev_frontend frontend;
    bool is_attached;
    /* machine state */
    struct uart uart;
};

/* ---- the chip's other end: machine lock held ------------------------------------------------- */

static void serial_set_irq(void *opaque, int level)
{
    irq_set(((struct isa_serial *)opaque)->irq, level);
}

static size_t serial_send(void *opaque, const uint8_t *data, size_t length)
{
    struct isa_serial *s = opaque;

    return s->chr ? chardev_write(s->chr, data, length) : length;
}

static void serial_has_room(void *opaque)
{
    struct isa_serial *s = opaque;

    if (s->is_attached) {
        chardev_accept_input(s->chr);
    }
}

static const struct uart_ops serial_uart_ops = {
    .set_irq = serial_set_irq,
    .write = serial_send,
    .readable = serial_has_room,
};

/* ---- chardev: main loop, no lock ------------------------------------------------------------- */

static int serial_can_read(void *opaque)
{
    struct isa_serial *s = opaque;

    machine_lock();
    int room = (int)uart_room(&s->uart);
    machine_unlock();
    return room;
}

static void serial_read(void *opaque, const uint8_t *buf, size_t len)
{
    struct isa_serial *s = opaque;

    machine_lock();
    uart_receive(&s->uart, buf, len);
    machine_unlock();
}

static void serial_event(void *opaque, enum chardev_event event)
{
    struct isa_serial *s = opaque;

    if (event == CHARDEV_BREAK) {
        machine_lock();
        uart_receive_break(&s->uart);
        machine_unlock();
    }
}

static void serial_writable(void *opaque)
{
    struct isa_serial *s = opaque;

    machine_lock();
    uart_writable(&s->uart);
    machine_unlock();
}

/* ---- ports ---------------------------------------------------------------------------------- */

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
    struct isa_serial *s = opaque;

    return uart_read(&s->uart, (unsigned)offset);
}

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct isa_serial *s = opaque;

    uart_write(&s->uart, (unsigned)offset, (uint8_t)value);
}

static const struct mem_region_ops port_ops = {
    .read = port_read,
    .write = port_write,
    .valid = {.min = 1, .max = 1},
};

/* ---- device --------------------------------------------------------------------------------- */

static bool index_is_taken(const struct isa_serial *s, uint32_t index)
{
    for (const struct device *d = s->dev.bus->first; d; d = d->next_sibling) {
        if (d->type == s->dev.type && ((const struct isa_serial *)d)->index == index) {
            return true;
        }
    }
    return false;
}

/* The first free index, and the ports and interrupt that a PC gives to it. */
static bool choose_defaults(struct isa_serial *s, struct error **errp)
{
    static const uint16_t ports[SERIAL_ISA_MAX] = {0x3f8, 0x2f8, 0x3e8, 0x2e8};
    static const uint8_t irqs[SERIAL_ISA_MAX] = {4, 3, 4, 3};

    if (s->index == UNSET) {
        s->index = 0;
        while (index_is_taken(s, s->index)) {
            s->index++;
        }
    }
    if (s->index >= SERIAL_ISA_MAX) {
        error_set(errp, "Max. supported number of ISA serial ports is %d.", SERIAL_ISA_MAX);
        return false;
    }
    if (s->iobase == UNSET) {
        s->iobase = ports[s->index];
    }
    if (s->irq_number == UNSET) {
        s->irq_number = irqs[s->index];
    }
    return true;
}

static bool attach(struct isa_serial *s, struct error **errp)
{
    s->frontend = (struct chardev_frontend){
        .can_read = serial_can_read,
        .read = serial_read,
        .event = serial_event,
        .writable = serial_writable,
        .opaque = s,
    };
    s->is_attached = s->chr && chardev_attach(s->chr, &s->frontend, errp);
    return s->is_attached || !s->chr;
}

static bool serial_realize(struct device *dev, struct error **errp)
{
    struct isa_serial *s = (struct isa_serial *)dev;

    if (!choose_defaults(s, errp) || !(s->irq = isa_irq(dev, s->irq_number, errp)) ||
        !attach(s, errp)) {
        return false;
    }
    uart_init(&s->uart, &serial_uart_ops, s);
    uart_set_connected(&s->uart, true);
    uart_reset(&s->uart);
    mem_region_init_io(&s->region, "serial", UART_REGISTERS, &port_ops, s);
    if (!isa_map_io(dev, &s->region, s->iobase, errp)) {
        mem_region_destroy(&s->region);
        if (s->is_attached) {
            chardev_detach(s->chr, &s->frontend);
        }
        return false;
    }
    return true;
}

static void serial_unrealize(struct device *dev)
{
    struct isa_serial *s = (struct isa_serial *)dev;

    if (s->is_attached) {
        chardev_detach(s->chr, &s->frontend);
        s->is_attached = false;
    }
    isa_unmap_io(dev, &s->region);
    mem_region_destroy(&s->region);
    uart_destroy(&s->uart);
}

static void serial_reset(struct device *dev)
{
    uart_reset(&((struct isa_serial *)dev)->uart);
}

static bool serial_post_load(void *device, unsigned version)
{
    struct isa_serial *s = device;

    /* The back end here may take what the one there did not. */
    uart_writable(&s->uart);
    serial_has_room(s);
    return true;
}

static const struct property serial_props[] = {
    PROPERTY_UINT32("index", struct isa_serial, index, UNSET, 0, 0, "COM1 is 0"),
    PROPERTY_UINT32("iobase", struct isa_serial, iobase, UNSET, 0, 0, "first port"),
    PROPERTY_UINT32("irq", struct isa_serial, irq_number, UNSET, 0, 0, "ISA interrupt"),
    PROPERTY_CHARDEV("chardev", struct isa_serial, chr),
    PROPERTY_END,
};

static const struct vmstate_field serial_fields[] = {
    VMSTATE_SUB(struct isa_serial, uart, uart_vmstate, 1),
    VMSTATE_END,
};

static const struct vmstate serial_vmstate = {
    .name = "isa-serial",
    .version = 1,
    .minimum_version = 1,
    .fields = serial_fields,
    .post_load = serial_post_load,
};

const struct device_type isa_serial_type = {
    .name = "isa-serial",
    .description = "16550A serial port",
    .category = DEVICE_CATEGORY_INPUT,
    .bus = "ISA",
    .size = sizeof(struct isa_serial),
    .props = serial_props,
    .realize = serial_realize,
    .unrealize = serial_unrealize,
    .reset = serial_reset,
    .vmstate = &serial_vmstate,
};

struct device *isa_serial_new(struct bus *isa, unsigned index, const char *chardev,
                              struct error **errp)
{
    struct device *dev = device_new(&isa_serial_type);

    ((struct isa_serial *)dev)->index = index;
    if ((chardev && !device_set(dev, "chardev", chardev, errp)) ||
        !device_realize(dev, isa, errp)) {
        device_free(dev);
        return NULL;
    }
    return dev;
}
