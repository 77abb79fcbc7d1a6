/* SPDX-License-Identifier: MIT */
/*
 * Register bits have the data sheet's names. Interrupt causes, highest first: line status, data
 * available or time-out, transmitter empty, modem status.
 *
 * Invariants:
 *  - LSR.DR is rx.count > 0; LSR.THRE and TEMT are tx.count == 0: nothing is stored twice.
 *  - Without FIFO mode each FIFO holds at most one byte.
 *  - The interrupt output is what update_irq() last worked out from the registers.
 */
#include "hw/uart.h"

#include <string.h>

#include "aio/clock.h"
#include "base/range.h"
#include "device/iothread.h"
#include "mem/machine_lock.h"

enum { RBR_THR = 0, IER = 1, IIR_FCR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6, SCR = 7 };

#define IER_RDA  0x01
#define IER_THRE 0x02
#define IER_RLS  0x04
#define IER_MS   0x08
#define IER_MASK 0x0f

#define IIR_NONE    0x01
#define IIR_MS      0x00
#define IIR_THRE    0x02
#define IIR_RDA     0x04
#define IIR_RLS     0x06
#define IIR_TIMEOUT 0x0c
#define IIR_FIFOS   0xc0

#define FCR_ENABLE   0x01
#define FCR_RX_RESET 0x02
#define FCR_TX_RESET 0x04
#define FCR_KEPT     0xc9 /* enable, DMA mode, trigger level */

#define LCR_STOP   0x04
#define LCR_PARITY 0x08
#define LCR_EVEN   0x10
#define LCR_STICK  0x20
#define LCR_BREAK  0x40
#define LCR_DLAB   0x80

#define MCR_DTR  0x01
#define MCR_RTS  0x02
#define MCR_OUT1 0x04
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10
#define MCR_MASK 0x1f

#define LSR_DR   0x01
#define LSR_OE   0x02
#define LSR_PE   0x04
#define LSR_FE   0x08
#define LSR_BI   0x10
#define LSR_THRE 0x20
#define LSR_TEMT 0x40
#define LSR_FIFO 0x80 /* an error is somewhere in the receive FIFO */

#define MSR_DELTAS 0x0f
#define MSR_TERI   0x04
#define MSR_CTS    0x10
#define MSR_DSR    0x20
#define MSR_RI     0x40
#define MSR_DCD    0x80

#define BASE_BAUD          115200
#define DIVISOR_RESET      12 /* 9600 baud, as firmware leaves it */
#define TIMEOUT_CHARACTERS 4

/* ---- FIFOs ---------------------------------------------------------------------------------- */

static bool fifo_mode(const struct uart *uart)
{
    return uart->fcr & FCR_ENABLE;
}

static unsigned fifo_capacity(const struct uart *uart)
{
    return fifo_mode(uart) ? UART_FIFO_SIZE : 1;
}

static void fifo_put(struct uart_fifo *fifo, uint8_t byte, uint8_t error)
{
    unsigned tail = (fifo->head + fifo->count) % UART_FIFO_SIZE;

    fifo->data[tail] = byte;
    fifo->error[tail] = error;
    fifo->count++;
}

static uint8_t fifo_get(struct uart_fifo *fifo)
{
    uint8_t byte = fifo->data[fifo->head];

    fifo->error[fifo->head] = 0;
    fifo->head = (fifo->head + 1) % UART_FIFO_SIZE;
    fifo->count--;
    return byte;
}

static void fifo_clear(struct uart_fifo *fifo)
{
    memset(fifo, 0, sizeof(*fifo));
}

static unsigned rx_trigger(const struct uart *uart)
{
    static const uint8_t levels[4] = {1, 4, 8, 14};

    return fifo_mode(uart) ? levels[uart->fcr >> 6] : 1;
}

/* ---- interrupts ----------------------------------------------------------------------------- */

static uint8_t line_status(const struct uart *uart)
{
    uint8_t lsr = uart->overrun ? LSR_OE : 0;

    if (uart->rx.count) {
        lsr |= LSR_DR | uart->rx.error[uart->rx.head];
    }
    if (fifo_mode(uart)) {
        for (unsigned i = 0; i < uart->rx.count; i++) {
            if (uart->rx.error[(uart->rx.head + i) % UART_FIFO_SIZE]) {
                lsr |= LSR_FIFO;
            }
        }
    }
    if (!uart->tx.count) {
        lsr |= LSR_THRE | LSR_TEMT;
    }
    return lsr;
}

static uint8_t interrupt_identification(const struct uart *uart)
{
    uint8_t lsr = line_status(uart);

    if (uart->ier & IER_RLS && lsr & (LSR_OE | LSR_PE | LSR_FE | LSR_BI)) {
        return IIR_RLS;
    }
    if (uart->ier & IER_RDA && uart->rx.count >= rx_trigger(uart)) {
        return IIR_RDA;
    }
    if (uart->ier & IER_RDA && uart->timeout_pending) {
        return IIR_TIMEOUT;
    }
    if (uart->ier & IER_THRE && uart->thre_pending) {
        return IIR_THRE;
    }
    if (uart->ier & IER_MS && uart->msr & MSR_DELTAS) {
        return IIR_MS;
    }
    return IIR_NONE;
}

/* A PC gates the interrupt by MCR.OUT2. That gate is left open here, as other virtual machines
 * leave it: small kernels that never set OUT2 rely on it. */
static void update_irq(struct uart *uart)
{
    uint8_t level = interrupt_identification(uart) != IIR_NONE;

    if (level != uart->irq_level) {
        uart->irq_level = level;
        uart->ops->set_irq(uart->opaque, level);
    }
}

/* ---- receiver ------------------------------------------------------------------------------- */

static int64_t character_ns(const struct uart *uart)
{
    struct uart_line line = uart_line(uart);
    unsigned bits = 1 + line.data_bits + (line.parity != 'N') + line.stop_bits;

    return bits * NS_PER_SEC / (line.baud ? line.baud : 1);
}

/* Something came or went: count the silence anew. */
static void restart_timeout(struct uart *uart)
{
    uart->timeout_pending = false;
    if (fifo_mode(uart) && uart->rx.count) {
        timer_set(&uart->timer,
                  clock_get_ns(AIO_CLOCK_VIRTUAL) + TIMEOUT_CHARACTERS * character_ns(uart));
    } else {
        timer_cancel(&uart->timer);
    }
}

static void timed_out(void *opaque)
{
    struct uart *uart = opaque;

    machine_lock();
    /* The timer may have been moved while this waited for the lock. */
    if (!timer_is_set(&uart->timer) && fifo_mode(uart) && uart->rx.count) {
        uart->timeout_pending = true;
        update_irq(uart);
    }
    machine_unlock();
}

static void receive_byte(struct uart *uart, uint8_t byte, uint8_t error)
{
    if (uart->rx.count < fifo_capacity(uart)) {
        fifo_put(&uart->rx, byte, error);
    } else {
        uart->overrun = true;
        if (!fifo_mode(uart)) {
            /* The receiver buffer register is overwritten; a full FIFO keeps what it has. */
            uart->rx.data[uart->rx.head] = byte;
            uart->rx.error[uart->rx.head] = error;
        }
    }
}

size_t uart_room(const struct uart *uart)
{
    if (uart->mcr & MCR_LOOP) {
        return 0; /* the receiver listens to the transmitter: others wait */
    }
    return fifo_capacity(uart) - MIN(uart->rx.count, fifo_capacity(uart));
}

void uart_receive(struct uart *uart, const uint8_t *data, size_t length)
{
    if (uart->mcr & MCR_LOOP) {
        return;
    }
    for (size_t i = 0; i < length; i++) {
        receive_byte(uart, data[i], 0);
    }
    restart_timeout(uart);
    update_irq(uart);
}

void uart_receive_break(struct uart *uart)
{
    if (uart->mcr & MCR_LOOP) {
        return;
    }
    receive_byte(uart, 0, LSR_BI);
    restart_timeout(uart);
    update_irq(uart);
}

/* ---- transmitter ---------------------------------------------------------------------------- */

static void transmit(struct uart *uart)
{
    while (uart->tx.count && !uart->tx_stuck) {
        uint8_t bytes[UART_FIFO_SIZE];
        unsigned count = uart->tx.count;
        for (unsigned i = 0; i < count; i++) {
            bytes[i] = uart->tx.data[(uart->tx.head + i) % UART_FIFO_SIZE];
        }
        size_t sent = uart->ops->write(uart->opaque, bytes, count);
        for (size_t i = 0; i < sent && i < count; i++) {
            fifo_get(&uart->tx);
        }
        uart->tx_stuck = sent < count;
    }
    if (!uart->tx.count) {
        uart->thre_pending = true;
    }
}

static void write_thr(struct uart *uart, uint8_t byte)
{
    uart->thre_pending = false;
    if (uart->mcr & MCR_LOOP) {
        receive_byte(uart, byte, 0);
        restart_timeout(uart);
        uart->thre_pending = true;
    } else {
        if (uart->tx.count < fifo_capacity(uart)) {
            fifo_put(&uart->tx, byte, 0);
        } else if (!fifo_mode(uart)) {
            uart->tx.data[uart->tx.head] = byte; /* overwritten; a full FIFO drops the new one */
        }
        transmit(uart);
    }
    update_irq(uart);
}

void uart_writable(struct uart *uart)
{
    uart->tx_stuck = false;
    if (uart->tx.count) {
        transmit(uart);
        update_irq(uart);
    }
}

/* ---- modem lines ---------------------------------------------------------------------------- */

static uint8_t modem_inputs(const struct uart *uart)
{
    uint8_t inputs = 0;

    if (uart->mcr & MCR_LOOP) {
        inputs |= uart->mcr & MCR_RTS ? MSR_CTS : 0;
        inputs |= uart->mcr & MCR_DTR ? MSR_DSR : 0;
        inputs |= uart->mcr & MCR_OUT1 ? MSR_RI : 0;
        inputs |= uart->mcr & MCR_OUT2 ? MSR_DCD : 0;
    } else if (uart->connected) {
        inputs = MSR_CTS | MSR_DSR | MSR_DCD;
    }
    return inputs;
}

/* Delta bits lie four below their inputs; that of RI is set by its falling edge only. */
static void update_modem_status(struct uart *uart)
{
    uint8_t inputs = modem_inputs(uart);
    uint8_t changed = (uart->msr ^ inputs) & (uint8_t)~MSR_DELTAS;
    uint8_t deltas = (changed >> 4) & (uint8_t)~MSR_TERI;

    if (changed & MSR_RI && !(inputs & MSR_RI)) {
        deltas |= MSR_TERI;
    }
    uart->msr = inputs | (uart->msr & MSR_DELTAS) | deltas;
}

void uart_set_connected(struct uart *uart, bool connected)
{
    uart->connected = connected;
    update_modem_status(uart);
    update_irq(uart);
}

/* ---- registers ------------------------------------------------------------------------------ */

struct uart_line uart_line(const struct uart *uart)
{
    static const char parities[4] = {'O', 'E', 'M', 'S'};
    struct uart_line line = {
        .baud = uart->divisor ? BASE_BAUD / uart->divisor : 0,
        .data_bits = 5 + (uart->lcr & 3),
        .stop_bits = uart->lcr & LCR_STOP ? 2 : 1,
        .parity = 'N',
    };

    if (uart->lcr & LCR_PARITY) {
        line.parity = parities[(uart->lcr >> 4) & 3];
    }
    return line;
}

static uint8_t read_rbr(struct uart *uart)
{
    if (!uart->rx.count) {
        /* The register keeps the last byte. */
        return uart->rx.data[(uart->rx.head + UART_FIFO_SIZE - 1) % UART_FIFO_SIZE];
    }
    uint8_t byte = fifo_get(&uart->rx);
    restart_timeout(uart);
    update_irq(uart);
    if (uart->ops->readable && !(uart->mcr & MCR_LOOP)) {
        uart->ops->readable(uart->opaque);
    }
    return byte;
}

static uint8_t read_iir(struct uart *uart)
{
    uint8_t iir = interrupt_identification(uart);

    if (iir == IIR_THRE) {
        uart->thre_pending = false;
        update_irq(uart);
    }
    return iir | (fifo_mode(uart) ? IIR_FIFOS : 0);
}

static uint8_t read_lsr(struct uart *uart)
{
    uint8_t lsr = line_status(uart);

    uart->overrun = false;
    if (uart->rx.count) {
        uart->rx.error[uart->rx.head] = 0;
    }
    update_irq(uart);
    return lsr;
}

static uint8_t read_msr(struct uart *uart)
{
    uint8_t msr = uart->msr;

    uart->msr &= (uint8_t)~MSR_DELTAS;
    update_irq(uart);
    return msr;
}

uint8_t uart_read(struct uart *uart, unsigned reg)
{
    bool dlab = uart->lcr & LCR_DLAB;

    switch (reg) {
    case RBR_THR:
        return dlab ? (uint8_t)uart->divisor : read_rbr(uart);
    case IER:
        return dlab ? (uint8_t)(uart->divisor >> 8) : uart->ier;
    case IIR_FCR:
        return read_iir(uart);
    case LCR:
        return uart->lcr;
    case MCR:
        return uart->mcr;
    case LSR:
        return read_lsr(uart);
    case MSR:
        return read_msr(uart);
    case SCR:
        return uart->scr;
    default:
        return 0xff;
    }
}

static void line_changed(struct uart *uart)
{
    if (uart->ops->line_changed) {
        uart->ops->line_changed(uart->opaque);
    }
}

static void write_ier(struct uart *uart, uint8_t value)
{
    uint8_t risen = value & (uint8_t)~uart->ier;

    uart->ier = value & IER_MASK;
    /* Enabling the interrupt while the transmitter is empty requests it at once. */
    if (risen & IER_THRE && !uart->tx.count) {
        uart->thre_pending = true;
    }
    update_irq(uart);
}

static void write_fcr(struct uart *uart, uint8_t value)
{
    bool rx_reset = value & FCR_RX_RESET, tx_reset = value & FCR_TX_RESET;

    if ((value ^ uart->fcr) & FCR_ENABLE) {
        rx_reset = tx_reset = true;
    }
    /* While bit 0 is clear the others are not programmed. */
    uart->fcr = value & FCR_ENABLE ? value & FCR_KEPT : 0;
    if (rx_reset) {
        fifo_clear(&uart->rx);
    }
    if (tx_reset) {
        bool had = uart->tx.count;
        fifo_clear(&uart->tx);
        uart->thre_pending |= had;
    }
    restart_timeout(uart);
    update_irq(uart);
    if (rx_reset && uart->ops->readable) {
        uart->ops->readable(uart->opaque);
    }
}

static void write_lcr(struct uart *uart, uint8_t value)
{
    uint8_t changed = uart->lcr ^ value;

    uart->lcr = value;
    if (changed & LCR_BREAK && uart->ops->send_break && !(uart->mcr & MCR_LOOP)) {
        uart->ops->send_break(uart->opaque, value & LCR_BREAK);
    }
    if (changed & 0x3f) {
        line_changed(uart);
    }
}

static void write_mcr(struct uart *uart, uint8_t value)
{
    uint8_t changed = uart->mcr ^ value;

    uart->mcr = value & MCR_MASK;
    update_modem_status(uart);
    update_irq(uart);
    if (changed & MCR_LOOP && !(value & MCR_LOOP) && uart->ops->readable) {
        uart->ops->readable(uart->opaque);
    }
}

static void write_divisor(struct uart *uart, uint16_t divisor)
{
    if (uart->divisor != divisor) {
        uart->divisor = divisor;
        line_changed(uart);
    }
}

void uart_write(struct uart *uart, unsigned reg, uint8_t value)
{
    bool dlab = uart->lcr & LCR_DLAB;

    switch (reg) {
    case RBR_THR:
        if (dlab) {
            write_divisor(uart, (uart->divisor & 0xff00) | value);
        } else {
            write_thr(uart, value);
        }
        break;
    case IER:
        if (dlab) {
            write_divisor(uart, (uint16_t)(value << 8) | (uart->divisor & 0xff));
        } else {
            write_ier(uart, value);
        }
        break;
    case IIR_FCR:
        write_fcr(uart, value);
        break;
    case LCR:
        write_lcr(uart, value);
        break;
    case MCR:
        write_mcr(uart, value);
        break;
    case SCR:
        uart->scr = value;
        break;
    default:
        break; /* LSR and MSR: writing is for factory tests */
    }
}

/* ---- life ----------------------------------------------------------------------------------- */

void uart_init(struct uart *uart, const struct uart_ops *ops, void *opaque)
{
    uart->ops = ops;
    uart->opaque = opaque;
    timer_init(&uart->timer, main_loop(), AIO_CLOCK_VIRTUAL, timed_out, uart);
}

void uart_destroy(struct uart *uart)
{
    timer_cancel(&uart->timer);
}

void uart_reset(struct uart *uart)
{
    timer_cancel(&uart->timer);
    uart->divisor = DIVISOR_RESET;
    uart->ier = uart->lcr = uart->mcr = uart->scr = uart->fcr = 0;
    uart->overrun = uart->thre_pending = uart->timeout_pending = false;
    fifo_clear(&uart->rx);
    fifo_clear(&uart->tx);
    uart->msr = modem_inputs(uart);
    update_irq(uart);
    if (uart->ops->readable) {
        uart->ops->readable(uart->opaque);
    }
}

static bool fifo_is_sound(const struct uart *uart, const struct uart_fifo *fifo)
{
    return fifo->head < UART_FIFO_SIZE && fifo->count <= fifo_capacity(uart);
}

static bool uart_post_load(void *device, unsigned version)
{
    struct uart *uart = device;

    uart->ier &= IER_MASK;
    uart->mcr &= MCR_MASK;
    uart->irq_level = uart->irq_level != 0;
    uart->tx_stuck = uart->tx.count; /* the owner looks whether its back end takes more */
    return fifo_is_sound(uart, &uart->rx) && fifo_is_sound(uart, &uart->tx);
}

static const struct vmstate_field fifo_fields[] = {
    VMSTATE_BYTES(struct uart_fifo, data),
    VMSTATE_BYTES(struct uart_fifo, error),
    VMSTATE_UINT(struct uart_fifo, head),
    VMSTATE_UINT(struct uart_fifo, count),
    VMSTATE_END,
};

static const struct vmstate fifo_vmstate = {
    .name = "uart-fifo",
    .version = 1,
    .minimum_version = 1,
    .fields = fifo_fields,
};

static const struct vmstate_field uart_fields[] = {
    VMSTATE_UINT(struct uart, divisor),
    VMSTATE_UINT(struct uart, ier),
    VMSTATE_UINT(struct uart, lcr),
    VMSTATE_UINT(struct uart, mcr),
    VMSTATE_UINT(struct uart, msr),
    VMSTATE_UINT(struct uart, scr),
    VMSTATE_UINT(struct uart, fcr),
    VMSTATE_BOOL(struct uart, overrun),
    VMSTATE_BOOL(struct uart, thre_pending),
    VMSTATE_BOOL(struct uart, timeout_pending),
    VMSTATE_UINT(struct uart, irq_level),
    VMSTATE_SUB(struct uart, rx, fifo_vmstate, 1),
    VMSTATE_SUB(struct uart, tx, fifo_vmstate, 1),
    VMSTATE_TIMER(struct uart, timer),
    VMSTATE_END,
};

const struct vmstate uart_vmstate = {
    .name = "uart-16550a",
    .version = 1,
    .minimum_version = 1,
    .fields = uart_fields,
    .post_load = uart_post_load,
};
