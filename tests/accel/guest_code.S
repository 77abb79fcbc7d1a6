/* SPDX-License-Identifier: MIT */
/*
 * Guests for kvm_test.c: each between guest_NAME and guest_NAME_end, position independent, copied
 * to GUEST_CODE and run in flat 32-bit mode without paging unless it says otherwise. They report by
 * ports of the test's device; what a port means is in kvm_test.c.
 */
#define REPORT   0x500
#define VECTOR   0x504
#define AP_UP    0x505
#define COUNTER  0x508
#define STRING   0x510
#define BELL     0x520
#define GO       0x530
#define MMIO     0xe0000000
#define BUFFER   0x5000
#define LAPIC    0xfee00000
#define IOAPIC   0xfec00000

        .section .rodata

.macro begin name
        .globl guest_\name
        .balign 16
guest_\name:
.endm

.macro end name
        .globl guest_\name\()_end
guest_\name\()_end:
        nop
.endm

/* Reports EAX. */
.macro report
        movw    $REPORT, %dx
        outl    %eax, %dx
.endm

.macro rest
99:     hlt
        jmp     99b
.endm

.macro enable_lapic
        movl    $0x1ff, LAPIC + 0xf0
.endm

        .code32

/* Writes 5 bytes of BUFFER to STRING, reads 4 words from it to BUFFER + 16. */
begin string
        cld
        movl    $BUFFER, %esi
        movl    $5, %ecx
        movw    $STRING, %dx
        rep outsb
        movl    $BUFFER + 16, %edi
        movl    $4, %ecx
        rep insw
        movl    $1, %eax
        report
        rest
end string

begin mmio
        movl    $0x44332211, %eax
        movl    %eax, MMIO
        movw    %ax, MMIO + 4
        movb    %al, MMIO + 7
        movl    MMIO + 8, %eax
        report
        movzbl  MMIO + 12, %eax
        report
        rest
end mmio

begin doorbells
        movw    $BELL, %dx
        movl    $1, %eax
        outw    %ax, %dx        /* matches */
        movl    $2, %eax
        outw    %ax, %dx        /* does not */
        movw    $BELL + 2, %dx
        outw    %ax, %dx        /* any value */
        outb    %al, %dx        /* another size */
        movw    $1, MMIO + 0x10 /* matches */
        movw    $2, MMIO + 0x10 /* does not */
        movw    $3, MMIO + 0x12 /* any value */
        movl    $4, MMIO + 0x20 /* any value of any size */
        movb    $5, MMIO + 0x20
        movl    $0xd00d, %eax
        report
        rest
end doorbells

/* Takes interrupts for ever. */
begin interrupts
        enable_lapic
        sti
        movl    $1, %eax
        report
        rest
end interrupts

/* IOAPIC pin 5: level, vector 0x42. */
begin ioapic
        movb    $0xff, %al      /* not by the PIC */
        outb    %al, $0x21
        outb    %al, $0xa1
        enable_lapic
        movl    $0x1b, IOAPIC
        movl    $0, IOAPIC + 0x10
        movl    $0x1a, IOAPIC
        movl    $0x8042, IOAPIC + 0x10
        sti
        movl    $1, %eax
        report
        rest
end ioapic

/* Interrupts are off until GO reads non-zero. */
begin window
        enable_lapic
        movl    $1, %eax
        report
        movw    $GO, %dx
1:      inb     %dx, %al
        testb   %al, %al
        jz      1b
        sti
        nop
        rest
end window

/* Handlers of vectors 0x41, 0x42 (LAPIC), 0x20 (PIC) and 2 (NMI), 64 bytes apart. */
.macro handler vector, eoi
        .balign 64
        pushl   %eax
        pushl   %edx
        movb    $\vector, %al
        movw    $VECTOR, %dx
        outb    %al, %dx
.if \eoi
        movl    $0, LAPIC + 0xb0
.endif
        popl    %edx
        popl    %eax
        /* Not IRET, which KVM's interpreter lacks in protected mode. */
        pushl   8(%esp)
        popfl
        ret     $8
.endm
        .balign 64
begin handlers
        handler 0x41, 1
        handler 0x42, 1
        handler 0x20, 0
        handler 0x02, 0
end handlers

begin dirty
        movb    $1, 0x201000
        movb    $1, 0x203fff
        movl    0x204000, %eax
        movl    $1, %eax
        report
        rest
end dirty

begin rom
        movl    0x300000, %eax
        report
        movl    $0x55555555, 0x300000
        movl    0x300000, %eax
        report
        rest
end rom

begin coalesced
        movl    $10, %ecx
        movl    $0, %eax
1:      movl    %eax, MMIO + 0x100
        incl    %eax
        decl    %ecx
        jnz     1b
        movl    $0xc0a1, %eax
        report
        rest
end coalesced

begin spin
        movl    $1, %eax
        report
1:      jmp     1b
end spin

begin count
        movl    $1, %eax
        report
1:      incl    BUFFER
        jmp     1b
end count

begin in
        movw    $COUNTER, %dx
        inl     %dx, %eax
        nop
        rest
end in

begin triple_fault
        movl    $BUFFER, %eax
        movl    $0, (%eax)
        movl    $0, 4(%eax)
        lidt    (%eax)
        ud2
end triple_fault

/* Hyper-V's crash MSRs: P0..P4 = 0x1000 + i, then notify. */
begin crash
        movl    $0x40000100, %ecx
        movl    $0x1000, %eax
        xorl    %edx, %edx
1:      wrmsr
        incl    %eax
        incl    %ecx
        cmpl    $0x40000105, %ecx
        jne     1b
        movl    $0, %eax
        movl    $0x80000000, %edx
        wrmsr
        movl    $0xdead, %eax
        report
        rest
end crash

begin hv_reset
        movl    $0x40000003, %ecx
        movl    $1, %eax
        xorl    %edx, %edx
        wrmsr
        movl    $0xbad, %eax
        report
        rest
end hv_reset

/* No emulator of instructions knows pxor with a memory operand. */
begin bad_mmio
        pxor    MMIO, %xmm0
        movl    $0xbad, %eax
        report
        rest
end bad_mmio

/* INIT, SIPI to 0x3000 to the processor with APIC id 1. */
begin start_ap
        enable_lapic
        movl    $1 << 24, LAPIC + 0x310
        movl    $0x4500, LAPIC + 0x300
        movl    $1 << 24, LAPIC + 0x310
        movl    $0x4603, LAPIC + 0x300
        movl    $1, %eax
        report
        rest
end start_ap

        .code16
begin ap
        movw    %cs, %ax
        movb    %ah, %al
        movw    $AP_UP, %dx
        outb    %al, %dx
        rest
end ap

        .code64
/* The task priority goes up and down again. */
begin cr8
        movl    $5, %eax
        movq    %rax, %cr8
        movl    $1, %eax
        movq    %rax, %cr8
        movq    %cr8, %rax
        report
        rest
end cr8

        .section .note.GNU-stack, "", %progbits
