/* SPDX-License-Identifier: MIT */
/*
 * The 16550A chip itself, without a bus and without a back end (PC16550D data sheet): eight byte
 * registers, two FIFOs, an interrupt output. serial.h tells how it is connected.
 *
 * Machine state: machine lock held.
 */
#ifndef FERRY_HW_UART_H
#define FERRY_HW_UART_H

#include "aio/loop.h"
#include "device/vmstate.h"

#define UART_FIFO_SIZE 16
#define UART_REGISTERS 8

struct uart_fifo {
    uint8_t data[UART_FIFO_SIZE];
    uint8_t error[UART_FIFO_SIZE]; /* LSR bits that came with the byte */
    uint8_t head, count;
};

/* The other end of the wire. */
struct uart_ops {
    void (*set_irq)(void *opaque, int level);
    /* Takes up to length bytes and returns how many; fewer: uart_writable() comes later. */
    size_t (*write)(void *opaque, const uint8_t *data, size_t length);
    /* uart_room() has grown: more bytes may come. */
    void (*readable)(void *opaque);
    void (*send_break)(void *opaque, bool on);
    /* Baud rate, data bits or parity changed. */
    void (*line_changed)(void *opaque);
};

struct uart {
    /* constant after uart_init() */
    const struct uart_ops *ops;
    void *opaque;
    struct aio_timer timer; /* receive time-out */
    /* machine state */
    uint16_t divisor;
    uint8_t ier, lcr, mcr, msr, scr, fcr;
    bool overrun;      /* LSR.OE */
    bool thre_pending; /* interrupt identifications that are latched */
    bool timeout_pending;
    bool tx_stuck;     /* the back end took less than we had */
    bool connected;    /* the other end has its lines up */
    uint8_t irq_level; /* of the interrupt output */
    struct uart_fifo rx, tx;
};

extern const struct vmstate uart_vmstate;

void uart_init(struct uart *uart, const struct uart_ops *ops, void *opaque);
void uart_destroy(struct uart *uart);
void uart_reset(struct uart *uart);

uint8_t uart_read(struct uart *uart, unsigned reg);
void uart_write(struct uart *uart, unsigned reg, uint8_t value);

/* ---- from the back end ---------------------------------------------------------------------- */

/* How many bytes the receiver can take without overrun. */
size_t uart_room(const struct uart *uart);
void uart_receive(struct uart *uart, const uint8_t *data, size_t length);
void uart_receive_break(struct uart *uart);
/* It can take bytes again. */
void uart_writable(struct uart *uart);
/* The other end came or went: DCD, DSR and CTS. */
void uart_set_connected(struct uart *uart, bool connected);

/* Line parameters as the guest set them. */
struct uart_line {
    unsigned baud; /* 0: the divisor is 0 */
    unsigned data_bits, stop_bits;
    char parity; /* 'N', 'E', 'O', 'M', 'S' */
};
struct uart_line uart_line(const struct uart *uart);

#endif
