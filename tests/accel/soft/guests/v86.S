/* SPDX-License-Identifier: MIT */
/* Virtual-8086 mode: entry by IRET, IOPL, the I/O bitmap, interrupts out of it, segments. */
#define GUEST_SYMBOL(x) guest_v86_##x
#include "guest.inc"

#define V86_SS 0x1000

        bits    16
v_cli:  cli
v_hlt:  hlt
v_in:   inb     $0x80, %al
        int3
v_in2:  inb     $0x81, %al
        int3
v_int:  int     $40
v_int3: int3
v_ud:   ud2
v_far:  ljmp    $0x0010, $V86_FAR
v_far_end:
        hlt
v_seg:  movw    $0x2345, %ax
        movw    %ax, %ds
        movw    %ax, %fs
        int3
v_pushf:
        pushfw
v_smsw: smsw    %ax
        int3
v_lldt: lldt    %ax
v_pushf3:
        pushfw
        popw    %ax
        sti
        cli
        int3
v_wrap: movw    $0xffff, %bx
        movw    (%bx), %ax
v_32:   movl    $0x10000, %ebx
        movb (%ebx), %al
        .set    V86_FAR, v_far_target - guest_begin + BASE - 0x100
v_far_target:
        int3

        bits    32
/* EAX: IP, EBX: flags besides VM. Through `resume`. */
enter_v86:
        pushl   $0                      /* GS, FS, DS, ES */
        pushl   $0
        pushl   $0x3000
        pushl   $0x4000
        pushl   $V86_SS
        pushl   $0xfff0
        orl     $0x20002, %ebx
        pushl   %ebx
        pushl   $0
        pushl   %eax
        iretl

.macro v86 label, flags
        try     77f
        movl    $A(\label), %eax
        movl    $\flags, %ebx
        jmp     enter_v86
77:
.endm

main:
        movl    %cr4, %eax
        andl    $~1, %eax               /* no VME */
        movl    %eax, %cr4
        v86     v_int3, 0x3000
        FAULT(3, 0)
        movl    A(last_flags), %eax
        andl    $0x23000, %eax
        EXPECT(0x23000)
        movl    A(last_cs), %eax
        EXPECT(0)
        movl    A(last_ss), %eax
        EXPECT(V86_SS)
        movl    A(last_sp), %eax
        EXPECT(0xfff0)
        movl    A(last_ip), %eax
        EXPECT(A(v_int3) + 1)
        /* ES, DS, FS, GS were pushed below and are null now: look at the frame of CPL 0. */
        movl    STACK_TSS - 16, %eax
        EXPECT(0x4000)
        movl    STACK_TSS - 12, %eax
        EXPECT(0x3000)
        v86     v_cli, 0
        FAULT(13, 0)
        v86     v_hlt, 0x3000
        FAULT(13, 0)
        v86     v_pushf, 0
        FAULT(13, 0)
        v86     v_pushf3, 0x3000
        FAULT(3, 0)
        v86     v_int, 0
        FAULT(13, 0)
        v86     v_int, 0x3000           /* the gate's DPL 0 < 3 */
        FAULT(13, 40 * 8 + 2)
        orb     $0x60, A(idt) + 40 * 8 + 5
        v86     v_int, 0x3000
        FAULT(40, 0)
        v86     v_ud, 0
        FAULT(6, 0)
        v86     v_far, 0x3000
        FAULT(3, 0)
        movl    A(last_cs), %eax
        EXPECT(0x10)
        v86     v_seg, 0x3000
        FAULT(3, 0)
        movl    STACK_TSS - 12, %eax    /* DS */
        EXPECT(0x2345)
        movl    STACK_TSS - 8, %eax     /* FS */
        EXPECT(0x2345)
        v86     v_smsw, 0x3000
        FAULT(3, 0)
        v86     v_lldt, 0x3000
        FAULT(6, 0)
        v86     v_wrap, 0x3000          /* limit 0xffff */
        FAULT_HW(13, 0)
        v86     v_32, 0x3000
        FAULT_HW(13, 0)
        /* I/O: the bitmap counts whatever the IOPL is. */
        v86     v_in, 0x3000
        FAULT(13, 0)
        movb    $0xff, A(tss) + 120     /* the bitmap: all but port 0x80; the TSS is long enough */
        movl    $A(tss) + 104, %edi
        movb    $0xff, %al
        movl    $17, %ecx
        cld
        rep stosb
        movb    $0xfe, A(tss) + 104 + 16
        movw    $104 + 24, A(gdt) + TSS_SEL
        movb    $0x89, A(gdt) + TSS_SEL + 5
        movl    $TSS_SEL, %eax
        ltr     %ax
        v86     v_in, 0
        FAULT(3, 0)
        v86     v_in2, 0x3000
        FAULT(13, 0)
        /* A handler outside CPL 0 is not allowed. */
        movw    $USER32, A(idt) + 3 * 8 + 2
        v86     v_int3, 0x3000
        FAULT(13, USER32 & 0xfffc)
        movw    $CODE32, A(idt) + 3 * 8 + 2
        DONE
#include "guest_end.inc"
