/* SPDX-License-Identifier: MIT */
/*
 * Code that a device writes: virtio-blk in slot 4, whose every kind of write to guest memory (data,
 * status, used index, available event) is an operand of an instruction that has run before. A ROM
 * (device_code.py); real mode.
 *
 *   FS  0x10000  descriptors; 0x11000 available ring; 0x12000 used ring
 *   GS  0x20000  header; 0x21000 data; 0x23000 the data's end and the status
 *   ES  0xd0000  the device's BAR
 */
#define CONFIG(reg) (0x80002000 | (reg))
#define SIZE   256
#define HEAD   0xcb /* as a byte of code, RETF: so the used entry ends the code before it */
#define AVAIL  0x1000
#define USED   0x2000
#define EVENT  (USED + 4 + 8 * SIZE)
#define DATA   0x1000
#define STATUS 0x3041 /* behind DATA's last page */
#define IN     0
#define GET_ID 8
#define S_OK    0
#define S_IOERR 1
#define EVENT_IDX 0x20000000
/* 4.1.4.3 of virtio 1.2 */
#define FEATURE_SELECT 0x08
#define FEATURE        0x0c
#define DEVICE_STATUS  0x14
#define QUEUE_SELECT   0x16
#define QUEUE_SIZE     0x18
#define QUEUE_ENABLE   0x1c
#define QUEUE_DESC     0x20
#define QUEUE_AVAIL    0x28
#define QUEUE_USED     0x30
#define NOTIFY         0x3000

        .code16
        .text
        .globl  _start
_start:
start:
        cli
        cld
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %ss
        movw    $0x7000, %sp
        jmp     main

#include "rom.inc"

.macro pci reg, value
        movw    $0xcf8, %dx
        movl    $CONFIG(\reg), %eax
        outl    %eax, %dx
        movw    $0xcfc, %dx
        movl    $\value, %eax
        outl    %eax, %dx
.endm

main:
        pci     0x20, 0xd0000
        pci     0x24, 0
        pci     0x04, 6
        movw    $0xd000, %ax
        movw    %ax, %es
        movw    $0x1000, %ax
        movw    %ax, %fs
        movw    $0x2000, %ax
        movw    %ax, %gs

        movb    $0, %es:DEVICE_STATUS
1:      cmpb    $0, %es:DEVICE_STATUS
        jne     1b
        movb    $3, %es:DEVICE_STATUS
        movl    $0, %es:FEATURE_SELECT
        movl    $EVENT_IDX, %es:FEATURE
        movl    $1, %es:FEATURE_SELECT
        movl    $1, %es:FEATURE         /* VIRTIO_F_VERSION_1 */
        movb    $0xb, %es:DEVICE_STATUS
        movw    $0, %es:QUEUE_SELECT
        movw    $SIZE, %es:QUEUE_SIZE
        movl    $0x10000, %es:QUEUE_DESC
        movl    $0, %es:QUEUE_DESC + 4
        movl    $0x10000 + AVAIL, %es:QUEUE_AVAIL
        movl    $0, %es:QUEUE_AVAIL + 4
        movl    $0x10000 + USED, %es:QUEUE_USED
        movl    $0, %es:QUEUE_USED + 4
        movw    $1, %es:QUEUE_ENABLE
        movb    $0xf, %es:DEVICE_STATUS

        /* Every available entry is HEAD; the chain is header, data, status. */
        movw    $SIZE, %cx
        movw    $AVAIL + 4, %bx
1:      movw    $HEAD, %fs:(%bx)
        addw    $2, %bx
        loop    1b
        movl    $0x20000, %fs:HEAD * 16
        movl    $0, %fs:HEAD * 16 + 4
        movl    $16, %fs:HEAD * 16 + 8
        movl    $1 | (HEAD + 1) << 16, %fs:HEAD * 16 + 12
        movl    $0x20000 + DATA, %fs:HEAD * 16 + 16
        movl    $0, %fs:HEAD * 16 + 20
        movl    $512, %fs:HEAD * 16 + 24
        movl    $3 | (HEAD + 2) << 16, %fs:HEAD * 16 + 28
        movl    $0x20000 + STATUS, %fs:HEAD * 16 + 32
        movl    $0, %fs:HEAD * 16 + 36
        movl    $1, %fs:HEAD * 16 + 40
        movl    $2, %fs:HEAD * 16 + 44

        /* The code: MOV AL, imm8 and MOV AX, imm16, with RETF. */
        movb    $0xb0, %gs:STATUS - 1
        movw    $0xcb55, %gs:STATUS
        movb    $0xb0, %gs:DATA - 1
        movw    $0xcb55, %gs:DATA
        movw    $0xb890, %fs:USED       /* NOP first: the flags, of which the event index makes none */
        movw    $0, %fs:USED + 2
        movl    $HEAD, %fs:USED + 4
        movb    $0xb8, %fs:EVENT - 1    /* in the last entry, which is not used */
        movb    $0xcb, %fs:EVENT + 2
        call    all
        check   before-status, 0x55
        movw    %cx, %ax
        check   before-data, 0x55
        movw    %di, %ax
        check   before-index, 0
        movw    %bp, %ax
        check   before-event, 0

        /* Beyond the disk's end: of data and status, one byte is written. */
        movl    $IN, %gs:0
        movl    $0x7fffffff, %gs:8
        movl    $0, %gs:12
        call    request
        call    all
        check   error-status, S_IOERR
        movw    %cx, %ax
        check   error-data, 0x55
        movw    %di, %ax
        check   error-index, 1
        movw    %bp, %ax
        check   error-event, 1

        /* The serial number is shorter than the room for it. */
        movb    $0x55, %gs:STATUS
        call    all
        check   rewritten-status, 0x55
        movl    $GET_ID, %gs:0
        call    request
        movb    $0xcb, %gs:DATA + 1
        call    all
        check   id-status, S_OK
        movw    %cx, %ax
        check   id-data, 'S'
        movw    %di, %ax
        check   id-index, 2
        movw    %bp, %ax
        check   id-event, 2

        /* A read that succeeds: the disk holds 0xcb everywhere. */
        movl    $IN, %gs:0
        movl    $0, %gs:8
        movb    $0x55, %gs:STATUS
        call    all
        call    request
        call    all
        check   read-status, S_OK
        movw    %cx, %ax
        check   read-data, 0xcb
        movw    %di, %ax
        check   read-index, 3
        movw    %bp, %ax
        check   read-event, 3
        finish

/*
 * Runs all that the device writes: AL status, CX data, DI used index, BP available event.
 *
 * The device writes the ring's words first and lets the processor know afterwards, as one that writes
 * another's code would, and the available event is one less while it looks for requests: so these two have
 * some time to become what they will be, the number of requests.
 */
all:
        xorw    %ax, %ax
        lcall   $0x2000, $DATA - 1
        movw    %ax, %cx
        movl    $10000000, %esi
1:      lcall   $0x1000, $USED
        movw    %ax, %di
        lcall   $0x1000, $EVENT - 1
        movw    %ax, %bp
        cmpw    %fs:AVAIL + 2, %di
        jne     2f
        cmpw    %fs:AVAIL + 2, %bp
        je      3f
2:      pause
        decl    %esi
        jnz     1b
3:      xorw    %ax, %ax
        lcall   $0x2000, $STATUS - 1
        ret

/* One request, until it is done, by data reads. */
request:
        movw    %fs:AVAIL + 2, %ax
        incw    %ax
        movw    %ax, %fs:AVAIL + 2
        mfence
        movw    $0, %es:NOTIFY
1:      pause
        cmpw    %ax, %fs:USED + 2
        jne     1b
        ret

        reset_vector
