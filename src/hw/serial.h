/* SPDX-License-Identifier: MIT */
/*
 * The 16550A UART (National Semiconductor PC16550D data sheet) as a PC has it: isa-serial.
 *
 *   guest: THR --> transmit FIFO (16) --> chardev (host terminal, file, socket)
 *          RBR <-- receive FIFO (16)  <-- chardev, as long as there is room
 *
 * The baud rate is not simulated: a byte leaves at once, if the back end takes it. If it does not,
 * bytes wait in the FIFO, LSR.THRE stays low, and the guest waits as it would for a slow line. The
 * rate counts for the receive time-out only (four character times).
 *
 * Machine state: machine lock held.
 */
#ifndef FERRY_HW_SERIAL_H
#define FERRY_HW_SERIAL_H

#include "device/device.h"

#define SERIAL_ISA_MAX 4

/* -device isa-serial[,chardev=ID][,index=0..3][,iobase=PORT][,irq=N] */
extern const struct device_type isa_serial_type;

/* COM1..COM4 (index 0..3) with their usual ports and interrupts. chardev: id of a character device,
 * or NULL: nothing is connected. */
struct device *isa_serial_new(struct bus *isa, unsigned index, const char *chardev,
                              struct error **errp);

#endif
