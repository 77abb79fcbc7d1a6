/* SPDX-License-Identifier: MIT */
/* The shared code and data of a guest, behind its own. The guest defines main (32 bits) or main64. */

/* ---- results --------------------------------------------------------------------------------- */

        bits    64
record64:
        pushq   %rbx
        movl    RESULTS, %ebx
        incl    RESULTS
        imull   $24, %ebx, %ebx
        movl    %edx, RESULTS + 16(%rbx)
        movl    $0, RESULTS + 20(%rbx)
        movq    %rax, RESULTS + 24(%rbx)
        movq    %rcx, RESULTS + 32(%rbx)
        popq    %rbx
        ret

        bits    32
record32:
        pushl   %ebx
        movl    RESULTS, %ebx
        incl    RESULTS
        imull   $24, %ebx, %ebx
        movl    %edx, RESULTS + 16(%ebx)
        movl    $0, RESULTS + 20(%ebx)
        movl    %eax, RESULTS + 24(%ebx)
        movl    $0, RESULTS + 28(%ebx)
        movl    %ecx, RESULTS + 32(%ebx)
        movl    $0, RESULTS + 36(%ebx)
        popl    %ebx
        ret

        bits    16
record16: /* real mode */
        pushl   %ebx
        pushw   %es
        pushw   $RESULTS >> 4
        popw    %es
        movl    %es:0, %ebx
        incl    %es:0
        imull   $24, %ebx, %ebx
        movl    %edx, %es:16(%bx)
        movl    $0, %es:20(%bx)
        movl    %eax, %es:24(%bx)
        movl    $0, %es:28(%bx)
        movl    %ecx, %es:32(%bx)
        movl    $0, %es:36(%bx)
        popw    %es
        popl    %ebx
        ret

/* ---- start ------------------------------------------------------------------------------------- */

        bits    32
start32:
        movl    $STACK, %esp
        lgdt    A(gdt_pointer)
        ljmp    $CODE32, $A(1f)
1:      movw    $DATA32, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        xorl    %eax, %eax
        movw    %ax, %fs
        movw    %ax, %gs
        movl    %cr4, %eax
        orl     $0x600, %eax            /* OSFXSR, OSXMMEXCPT */
        movl    %eax, %cr4
        movl    $RESULTS, %edi
        movl    $0, (%edi)
#ifdef GUEST_LONG
        /* 2 MiB pages: 0 to 4 MiB for CPL 0 but for the second half of the first 2 MiB, which has
         * 4 KiB pages for all. */
        movl    $TABLES, %edi
        xorl    %eax, %eax
        movl    $0x4000, %ecx           /* and room for the guest's own */
        rep stosl
        movl    $TABLES + 0x1007, TABLES
        movl    $TABLES + 0x2007, TABLES + 0x1000
        movl    $TABLES + 0x3007, TABLES + 0x2000
        movl    $0x200083, TABLES + 0x2008
        movl    $0xfee00083, TABLES + 0x2010    /* the LAPIC, at linear 4 MiB */
        movl    $3, %eax                /* the first MiB for CPL 0 */
        movl    $TABLES + 0x3000, %edi
        movl    $256, %ecx
1:      movl    %eax, (%edi)
        addl    $0x1000, %eax
        addl    $8, %edi
        loop    1b
        orl     $4, %eax
        movl    $256, %ecx
1:      movl    %eax, (%edi)
        addl    $0x1000, %eax
        addl    $8, %edi
        loop    1b
        /* the guest's own code once more, for CPL 3 */
        movl    $BASE + 7, %eax
        movl    $TABLES + 0x3000 + (USER_ALIAS >> 12) * 8, %edi
        movl    $8, %ecx
1:      movl    %eax, (%edi)
        addl    $0x1000, %eax
        addl    $8, %edi
        loop    1b
        movl    %cr4, %eax
        orl     $0x20, %eax
        movl    %eax, %cr4
        movl    $TABLES, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx
        rdmsr
        orl     $0x901, %eax            /* NXE, LME, SCE */
        wrmsr
        movl    $0x80010033, %eax       /* PG, WP, NE, ET, MP, PE */
        movl    %eax, %cr0
        ljmp    $CODE64, $A(start64)

        bits    64
start64:
        movl    $STACK, %esp
        movl    $A(idt), %edi
        movl    $A(stubs64), %ebx
        movl    $VECTORS, %ecx
1:      movw    %bx, (%rdi)
        movw    $CODE64, 2(%rdi)
        movl    $0x8e00, 4(%rdi)
        movq    $0, 8(%rdi)
        addl    $16, %ebx
        addl    $16, %edi
        loop    1b
        orb     $0x60, A(idt) + 3 * 16 + 5      /* INT3, INTO and the last are for CPL 3 */
        orb     $0x60, A(idt) + 4 * 16 + 5
        orb     $0x60, A(idt) + (VECTORS - 1) * 16 + 5
        lidt    A(idt_pointer)
        movq    $STACK_TSS, A(tss) + 4
        movq    $STACK_IST, A(tss) + 36
        movw    $TSS_SEL, %ax
        ltr     %ax
        jmp     main64

        .balign 16
stubs64:
        .set    v, 0
        .rept   VECTORS
        .balign 16
        .if v != 8 && v != 10 && v != 11 && v != 12 && v != 13 && v != 14 && v != 17
        pushq   $0
        .endif
        pushq   $v
        jmp     common64
        .set    v, v + 1
        .endr

common64:
        pushq   %rax
        movq    8(%rsp), %rax
        movl    %eax, A(last_vector)
        movq    16(%rsp), %rax
        movl    %eax, A(last_error)
        movq    24(%rsp), %rax
        movq    %rax, A(last_ip)
        movq    32(%rsp), %rax
        movl    %eax, A(last_cs)
        movq    40(%rsp), %rax
        movq    %rax, A(last_flags)
        movq    48(%rsp), %rax
        movq    %rax, A(last_sp)
        movq    56(%rsp), %rax
        movl    %eax, A(last_ss)
        movq    %cr2, %rax
        movq    %rax, A(last_cr2)
        incl    A(exceptions)
        movq    A(hook), %rax
        testq   %rax, %rax
        jz      1f
        xchgq   %rax, (%rsp)            /* the hook sees RAX, and vector and error on the stack */
        ret
1:      popq    %rax
        movq    A(resume_sp), %rsp
        pushq   A(resume)
        ret

/* Goes to CPL 3 at RAX, 64 bits. */
enter_user64:
        pushq   $USERDATA
        pushq   $STACK_USR
        pushq   $0x202
        pushq   $USER64
        pushq   %rax
        iretq
#else
        movl    $A(idt), %edi
        movl    $A(stubs32), %ebx
        movl    $VECTORS, %ecx
1:      movw    %bx, (%edi)
        movw    $CODE32, 2(%edi)
        movl    $0x8e00, 4(%edi)
        addl    $16, %ebx
        addl    $8, %edi
        loop    1b
        orb     $0x60, A(idt) + 3 * 8 + 5
        orb     $0x60, A(idt) + 4 * 8 + 5
        orb     $0x60, A(idt) + (VECTORS - 1) * 8 + 5
        lidt    A(idt_pointer)
        movl    $STACK_TSS, A(tss) + 4
        movl    $DATA32, A(tss) + 8
        movw    $TSS_SEL, %ax
        ltr     %ax
        jmp     main

        .balign 16
stubs32:
        .set    v, 0
        .rept   VECTORS
        .balign 16
        .if v != 8 && v != 10 && v != 11 && v != 12 && v != 13 && v != 14 && v != 17
        pushl   $0
        .endif
        pushl   $v
        jmp     common32
        .set    v, v + 1
        .endr

common32:
        pushl   %eax
        movw    $DATA32, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movl    %ss:4(%esp), %eax
        movl    %eax, A(last_vector)
        movl    %ss:8(%esp), %eax
        movl    %eax, A(last_error)
        movl    %ss:12(%esp), %eax
        movl    %eax, A(last_ip)
        movl    %ss:16(%esp), %eax
        movl    %eax, A(last_cs)
        movl    %ss:20(%esp), %eax
        movl    %eax, A(last_flags)
        movl    %ss:24(%esp), %eax
        movl    %eax, A(last_sp)
        movl    %ss:28(%esp), %eax
        movl    %eax, A(last_ss)
        movl    %cr2, %eax
        movl    %eax, A(last_cr2)
        incl    A(exceptions)
        movl    A(hook), %eax
        testl   %eax, %eax
        jz      1f
        xchgl   %eax, (%esp)
        ret
1:      popl    %eax
        movw    $DATA32, %ax
        movw    %ax, %ss
        movl    A(resume_sp), %esp
        pushl   A(resume)
        ret

/* Goes to CPL 3 at EAX, 32 bits. */
enter_user32:
        pushl   $USERDATA
        pushl   $STACK_USR
        pushl   $0x202
        pushl   $USER32
        pushl   %eax
        pushw   $USERDATA
        popw    %ds
        pushw   $USERDATA
        popw    %es
        iretl
#endif

/* ---- data --------------------------------------------------------------------------------------- */

        .balign 8
resume:      .quad 0
resume_sp:   .quad 0
hook:        .quad 0
last_ip:     .quad 0
last_flags:  .quad 0
last_sp:     .quad 0
last_cr2:    .quad 0
last_vector: .long 0
last_error:  .long 0
last_cs:     .long 0
last_ss:     .long 0
exceptions:  .long 0
        .balign 8
gdt:
        .quad   0
        .quad   0x00cf9b000000ffff      /* CODE32 */
        .quad   0x00cf93000000ffff      /* DATA32 */
        .quad   0x00af9b000000ffff      /* CODE64 */
        .quad   0x00cffb000000ffff      /* USER32 */
        .quad   0x00cff3000000ffff      /* USERDATA */
        .quad   0x00affb000000ffff      /* USER64 */
        .quad   0x00009b000000ffff      /* CODE16 */
        .quad   0x000093000000ffff      /* DATA16 */
        .word   0x67, A(tss), 0x8900, 0 /* TSS_SEL */
        .quad   0
        .fill   8, 8, 0                 /* SPARE */
gdt_end:
        .word   0
gdt_pointer:
        .word   gdt_end - gdt - 1
        .long   A(gdt), 0
        .word   0
idt_pointer:
#ifdef GUEST_LONG
        .word   VECTORS * 16 - 1
#else
        .word   VECTORS * 8 - 1
#endif
        .long   A(idt), 0
        .balign 16
idt:
        .fill   VECTORS * 16, 1, 0
tss:
        .fill   102, 1, 0
        .word   0x68                    /* no I/O bitmap */
        .fill   32, 1, 0

        .globl  GUEST_SYMBOL(end)
GUEST_SYMBOL(end):
        .section .note.GNU-stack, "", %progbits
