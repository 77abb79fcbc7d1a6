/* SPDX-License-Identifier: MIT */
/* 32-bit protected mode: limits, expand-down, null selectors, loads, call gates to an inner ring, conforming
 * code, RET outward, VERR and friends. */
#define GUEST_SYMBOL(x) guest_segment_##x
#include "guest.inc"

/* Selectors of SPARE */
#define SMALL   (SPARE)           /* data, limit 0xff, base FREE */
#define DOWN    (SPARE + 8)       /* expand-down, limit 0xfff, B = 1 */
#define READ    (SPARE + 16)      /* read-only */
#define EXEC    (SPARE + 24)      /* execute-only */
#define CONF    (SPARE + 32)      /* conforming code, DPL 0 */
#define GATE    (SPARE + 40)      /* call gate to CODE32, DPL 3, 2 parameters */
#define ABSENT  (SPARE + 48)      /* not present */
#define DOWN16  (SPARE + 56)      /* expand-down, limit 0xfff, B = 0 */

        bits    32
.macro descriptor selector, low, high
        movl    $\low, A(gdt) + \selector
        movl    $\high, A(gdt) + \selector + 4
.endm
.macro load reg, selector
        movl    $\selector, %eax
        movw    %ax, %\reg
.endm

user_gate:
        pushl   $0x11111111
        pushl   $0x22222222
        lcall   $GATE + 3, $0
        int3
user_conf:
        lcall   $CONF, $A(conforming)
        int3
user_load:
        movl    $DATA32, %eax
        movw    %ax, %ds
        int3
user_fs:
        movl    $USERDATA, %eax
        movw    %ax, %fs
        ljmp    $CODE32, $0
user_ret:
        lret
conforming:
        movw    %cs, A(seen)            /* CPL stays 3: RPL 3 */
        lret
gate_target:
        movl    %cs, %eax
        movl    %eax, A(seen)
        movl    %ss, %eax
        movl    %eax, A(seen) + 4
        movl    (%esp), %eax
        movl    %eax, A(seen) + 8       /* EIP */
        movl    8(%esp), %eax
        movl    %eax, A(seen) + 12      /* the last parameter */
        movl    12(%esp), %eax
        movl    %eax, A(seen) + 16
        movl    16(%esp), %eax
        movl    %eax, A(seen) + 20      /* ESP of CPL 3 */
        lret    $8
seen:   .fill   8, 4, 0

.macro user label
        try     77f
        movl    $A(\label), %eax
        jmp     enter_user32
77:
.endm

main:
        descriptor SMALL, FREE << 16 | 0xff, 0x00409300 | FREE >> 16
        descriptor DOWN, FREE << 16 | 0xfff, 0x00409700 | FREE >> 16
        descriptor READ, 0xffff, 0x00cf9100
        descriptor EXEC, 0xffff, 0x00cf9900
        descriptor CONF, 0xffff, 0x00cf9f00
        descriptor GATE, CODE32 << 16 | A(gate_target), 0x0000ec02
        descriptor ABSENT, 0xffff, 0x00cf1300
        descriptor DOWN16, FREE << 16 | 0xfff, 0x00009700 | FREE >> 16

        load    fs, SMALL
        movl    $0x12345678, FREE + 0xfc
        try     1f
        movl    %fs:0xfc, %ebx
1:      NO_FAULT
        movl    %ebx, %eax
        EXPECT(0x12345678)
        try     1f
        movl    %fs:0xfd, %eax
1:      FAULT_HW(13, 0)
        try     1f
        movb    %fs:0x100, %al
1:      FAULT_HW(13, 0)
        try     1f
        movl    %fs:0xffffffff, %eax    /* wraps within the segment */
1:      FAULT_HW(13, 0)
        /* SS: #SS. */
        try     1f
        load    ss, SMALL
        movl    $0xfe, %esp             /* room for the handler's frame below */
        popl    %eax
1:      FAULT_HW(12, 0)
        load    ss, DATA32
        try     1f
        load    ss, SMALL
        movl    $0x80, %esp
        movl    0x80(%esp), %eax
1:      FAULT_HW(12, 0)
        /* Expand-down: offsets above the limit, to 4 GiB or 64 KiB. */
        load    fs, DOWN
        try     1f
        movb    %fs:0xfff, %al
1:      FAULT_HW(13, 0)
        try     1f
        movb    %fs:0x1000, %al
1:      NO_FAULT
        try     1f
        movb    %fs:0x12000, %al
1:      NO_FAULT
        load    fs, DOWN16
        try     1f
        movb    %fs:0xffff, %al
1:      NO_FAULT
        try     1f
        movb    %fs:0x10000, %al
1:      FAULT_HW(13, 0)
        try     1f
        movw    %fs:0xffff, %ax
1:      FAULT_HW(13, 0)
        /* Rights. */
        load    fs, READ
        try     1f
        movb    %al, %fs:FREE
1:      FAULT_HW(13, 0)
        try     1f
        movb    %fs:FREE, %al
1:      NO_FAULT
        try     1f
        load    fs, EXEC
1:      FAULT(13, EXEC)
        try     1f
        load    ss, READ
1:      FAULT(13, READ)
        try     1f
        load    fs, ABSENT
1:      FAULT(11, ABSENT)
        try     1f
        load    ss, ABSENT
1:      FAULT(12, ABSENT)
        try     1f
        load    fs, 0x1000              /* beyond the limit */
1:      FAULT(13, 0x1000)
        try     1f
        load    fs, 4                   /* no LDT */
1:      FAULT(13, 4)
        try     1f
        load    ss, DATA32 + 1          /* RPL */
1:      FAULT(13, DATA32)
        try     1f
        load    ss, 0
1:      FAULT(13, 0)
        try     1f
        load    fs, TSS_SEL
1:      FAULT(13, TSS_SEL)
        try     1f
        movl    %cs:FREE, %eax
        movb    %al, %cs:FREE
1:      FAULT_HW(13, 0)
        /* Null: loads, and faults when it is used. */
        try     1f
        load    fs, 3
1:      NO_FAULT
        try     1f
        movb    %fs:0, %al
1:      FAULT_HW(13, 0)
        /* A load sets the accessed bit. */
        load    fs, READ
        andb    $0xfe, A(gdt) + READ + 5
        load    fs, READ
        movzbl  A(gdt) + READ + 5, %eax
        EXPECT(0x91)

        user    user_load
        FAULT(13, DATA32)
        user    user_fs
        FAULT(13, CODE32)
        user    user_conf
        FAULT(3, 0)
        movl    A(seen), %eax
        andl    $0xffff, %eax
        EXPECT(CONF + 3)
        user    user_gate
        FAULT(3, 0)
        movl    A(seen), %eax
        EXPECT(CODE32)
        movl    A(seen) + 4, %eax
        EXPECT(DATA32)
        movl    A(seen) + 8, %eax
        EXPECT(A(user_gate) + 17)
        movl    A(seen) + 12, %eax
        EXPECT(0x22222222)
        movl    A(seen) + 16, %eax
        EXPECT(0x11111111)
        movl    A(seen) + 20, %eax
        EXPECT(STACK_USR - 8)
        movl    A(last_sp), %eax        /* the parameters are gone from both stacks */
        EXPECT(STACK_USR)
        /* The gate's DPL. */
        movb    $0x8c, A(gdt) + GATE + 5
        user    user_gate
        FAULT(13, GATE)
        movb    $0x6c, A(gdt) + GATE + 5
        user    user_gate
        FAULT(11, GATE)
        movb    $0xec, A(gdt) + GATE + 5
        /* A bad SS in the TSS, for ring 1: #TS. */
        descriptor DOWN16, 0xffff, 0x00cfbb00
        descriptor GATE, DOWN16 << 16 | A(gate_target), 0x0000ec02
        movl    $STACK_IST, A(tss) + 12
        movl    $USERDATA, A(tss) + 16
        user    user_gate
        FAULT(10, USERDATA & 0xfffc)
        movl    $0, A(tss) + 16
        user    user_gate
        FAULT(10, 0)
        descriptor GATE, CODE32 << 16 | A(gate_target), 0x0000ec02

        /* RET to an outer ring clears DS when it is inner. */
        try     1f
        load    ds, DATA32
        load    fs, READ
        pushl   $USERDATA
        pushl   $STACK_USR
        pushl   $USER32
        pushl   $A(user_int3)
        lret
user_int3:
        movl    %ds, %ebx
        movl    %fs, %ecx
        int3
1:      FAULT(3, 0)
        movl    %ebx, %eax
        EXPECT(0)
        movl    %ecx, %eax
        EXPECT(0)
        /* RET inward is not possible. */
        user    user_push_ret
        FAULT(13, CODE32)
        /* Jumps. */
        try     1f
        ljmp    $DATA32, $0
1:      FAULT(13, DATA32)
        try     1f
        ljmp    $0, $0
1:      FAULT(13, 0)
        try     1f
        ljmp    $ABSENT, $0
1:      FAULT(13, ABSENT)
        try     1f
        ljmp    $USER32, $0
1:      FAULT(13, USER32 & 0xfffc)
        /* VERR, VERW, LAR, LSL. */
        movl    $READ, %eax
        verr    %ax
        setz    %bl
        verw    %ax
        setz    %bh
        movzwl  %bx, %eax
        EXPECT(1)
        movl    $EXEC, %eax
        verr    %ax
        setz    %al
        movzbl  %al, %eax
        EXPECT(0)
        movl    $SMALL, %ebx
        lsl     %ebx, %eax
        EXPECT(0xff)
        movl    $READ, %ebx
        lsl     %ebx, %eax
        EXPECT(0xffffffff)
        movl    $GATE, %ebx
        movl    $-1, %eax
        lar     %ebx, %eax
        andl    $0xff00, %eax
        EXPECT(0xec00)
        movl    $GATE, %ebx
        lsl     %ebx, %eax
        setz    %al
        movzbl  %al, %eax
        EXPECT(0)
        /* ARPL. */
        movl    $0x10, %eax
        movl    $3, %ebx
        arpl    %bx, %ax
        EXPECT(0x13)
        /* BOUND, INTO. */
        movl    $2, FREE
        movl    $5, FREE + 4
        try     1f
        movl    $6, %eax
        bound   %eax, FREE
1:      FAULT(5, 0)
        try     1f
        movl    $5, %eax
        bound   %eax, FREE
1:      NO_FAULT
        try     1f
        movl    $0x7fffffff, %eax
        incl    %eax
        into
1:      FAULT(4, 0)
        DONE
user_push_ret:
        pushl   $CODE32
        pushl   $0
        lret
#include "guest_end.inc"
