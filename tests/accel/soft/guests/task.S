/* SPDX-License-Identifier: MIT */
/* 32-bit task switches: JMP, CALL and IRET, a task gate in the IDT, busy bits, back links, NT, TS; errors. */
#define GUEST_SYMBOL(x) guest_task_##x
#include "guest.inc"

#define OTHER (SPARE)           /* TSS of another task */
#define GATE  (SPARE + 8)       /* task gate to it */
#define SHORT (SPARE + 16)      /* a TSS that is too short */

        bits    32
        .balign 4
other:  .fill   104, 1, 0
turns:  .long   0
seen:   .fill   4, 4, 0

other_task:
        incl    A(turns)
        pushfl
        popl    A(seen)
        movl    %eax, A(seen) + 4
        str     %ax
        movw    %ax, A(seen) + 8
        movl    %cr0, %eax
        movl    %eax, A(seen) + 12
        clts
        iretl                           /* NT: back */
        incl    A(turns)
        ljmp    $TSS_SEL, $0
        incl    A(turns)
        iretl
        jmp     other_task

/* Entered by an exception: its error code lies on the new task's stack. */
fault_task:
        popl    A(seen)
        incl    A(turns)
        addl    $2, A(tss) + 32         /* the faulting UD2's successor */
        clts
        iretl
        jmp     fault_task

.macro set_other entry
        movl    $A(\entry), A(other) + 32
        movl    $0x2, A(other) + 36
        movl    $0x5555, A(other) + 40
        movl    $STACK_IST, A(other) + 56
        movl    $DATA32, A(other) + 72
        movl    $CODE32, A(other) + 76
        movl    $DATA32, A(other) + 80
        movl    $DATA32, A(other) + 84
        movl    $0, A(other) + 88
        movl    $0, A(other) + 92
        movl    $0, A(other) + 96
        movw    $0x68, A(other) + 102
        movl    %cr3, %eax
        movl    %eax, A(other) + 28
        movw    $103, A(gdt) + OTHER
        movw    $A(other), A(gdt) + OTHER + 2
        movl    $0x8900, A(gdt) + OTHER + 4
.endm

main:
        set_other other_task
        movl    $OTHER << 16, A(gdt) + GATE
        movl    $0x8500, A(gdt) + GATE + 4
        movw    $102, A(gdt) + SHORT
        movw    $A(other), A(gdt) + SHORT + 2
        movl    $0x8900, A(gdt) + SHORT + 4

        /* CALL: nested, back by IRET. */
        movl    $0x1234, %ebx
        lcall   $OTHER, $0
        movl    %ebx, %eax
        EXPECT(0x1234)
        movl    A(turns), %eax
        EXPECT(1)
        movl    A(seen), %eax
        andl    $0x4000, %eax           /* NT */
        EXPECT(0x4000)
        movl    A(seen) + 4, %eax
        EXPECT(0x5555)
        movzwl  A(seen) + 8, %eax
        EXPECT(OTHER)
        movl    A(seen) + 12, %eax
        andl    $8, %eax                /* TS */
        EXPECT(8)
        movzwl  A(other), %eax          /* back link */
        EXPECT(TSS_SEL)
        movzbl  A(gdt) + OTHER + 5, %eax
        EXPECT(0x89)
        movzbl  A(gdt) + TSS_SEL + 5, %eax
        EXPECT(0x8b)
        str     %ax
        movzwl  %ax, %eax
        EXPECT(TSS_SEL)
        pushfl
        popl    %eax
        andl    $0x4000, %eax
        EXPECT(0)
        /* By JMP through a task gate: it goes on where it was left and comes back by JMP. */
        ljmp    $GATE, $0
        movl    A(turns), %eax
        EXPECT(2)
        movzbl  A(gdt) + OTHER + 5, %eax        /* JMP clears the old task's busy bit */
        EXPECT(0x89)
        lcall   $OTHER, $0
        movl    A(turns), %eax
        EXPECT(3)

        /* Errors. */
        try     1f
        lcall   $SHORT, $0
1:      FAULT(10, SHORT)
        movl    $0x0900, A(gdt) + SHORT + 4
        try     1f
        lcall   $SHORT, $0
1:      FAULT(11, SHORT)
        movl    $0x8b00, A(gdt) + SHORT + 4     /* busy */
        try     1f
        ljmp    $SHORT, $0
1:      FAULT(13, SHORT)
        try     1f
        ljmp    $TSS_SEL, $0            /* to itself: busy */
1:      FAULT(13, TSS_SEL)
        /* NT and IRET to a task that is not busy: #TS. */
        movw    $OTHER, A(tss)
        try     1f
        pushfl
        orl     $0x4000, (%esp)
        popfl
        iretl
1:      FAULT(10, OTHER)
        pushfl
        andl    $~0x4000, (%esp)
        popfl

        /* An exception through a task gate: error code on the new stack; back behind it. */
        set_other fault_task
        movl    $OTHER << 16, A(idt) + 13 * 8
        movl    $0x8500, A(idt) + 13 * 8 + 4
        movl    $0, A(turns)
        movl    $0xffff, %eax
        .byte   0x8e, 0xe0              /* MOV FS, AX: two bytes */
        movl    A(turns), %eax
        EXPECT(1)
        movl    A(seen), %eax
        EXPECT(0xfffc)
        movl    $0xfff7, %eax
        .byte   0x8e, 0xe0
        movl    A(turns), %eax
        EXPECT(2)
        movl    A(seen), %eax
        EXPECT(0xfff4)
        DONE
#include "guest_end.inc"
