/* SPDX-License-Identifier: MIT */
/*
 * 4-level paging: every combination of U and W in the four levels' entries, for CPL 0 and 3, reads
 * and writes, WP on and off; NX per level; A and D bits; reserved bits; SMEP and SMAP; PCID; INVLPG.
 * The page under test is FREE + 0x1000, through tables of its own at linear 0x8000000000.
 */
#define GUEST_SYMBOL(x) guest_paging_##x
#define GUEST_LONG
#include "guest.inc"

#define LINEAR 0x8000000000      /* PML4 entry 1 */
#define PDPT   (TABLES + 0x8000)
#define PD     (TABLES + 0x9000)
#define PT     (TABLES + 0xa000)
#define PML4E  (TABLES + 8)
#define TARGET (FREE + 0x1000)

#define ROOT_2 (TABLES + 0xb000) /* another PML4 */

/* Bit 63: translations of the PCID stay. */
.macro set_cr3 value, keep
        movabsq $(\value) + (\keep << 63), %rax
        movq    %rax, %cr3
.endm

        bits    64
        .balign 8
invpcid_operand:
        .quad   1, 0
/* R8: bits of the four entries, 8 each, PML4 first (P W U at 2..0); bit 63 of an entry from R9's bits
 * 3 to 0. Clears A and D, flushes. */
set_entries:
        pushq   %rax
        pushq   %rcx
        movq    %r8, %rax
        andl    $0xff, %eax
        orq     $PDPT, %rax
        btq     $0, %r9
        jnc     1f
        btsq    $63, %rax
1:      movq    %rax, PML4E
        movq    %r8, %rax
        shrq    $8, %rax
        andl    $0xff, %eax
        orq     $PD, %rax
        btq     $1, %r9
        jnc     1f
        btsq    $63, %rax
1:      movq    %rax, PDPT
        movq    %r8, %rax
        shrq    $16, %rax
        andl    $0xff, %eax
        orq     $PT, %rax
        btq     $2, %r9
        jnc     1f
        btsq    $63, %rax
1:      movq    %rax, PD
        movq    %r8, %rax
        shrq    $24, %rax
        andl    $0xff, %eax
        orq     $TARGET, %rax
        btq     $3, %r9
        jnc     1f
        btsq    $63, %rax
1:      movq    %rax, PT
        movq    %cr3, %rax
        movq    %rax, %cr3
        popq    %rcx
        popq    %rax
        ret

/* At CPL 3: reads, writes, or runs what RDI points to; ends by INT 47. R10: 0, 1, 2. */
user_access:
        cmpl    $1, %r10d
        je      1f
        ja      2f
        movb    (%rdi), %al
        int     $47
1:      movb    $0xc3, (%rdi)
        int     $47
2:      call    *%rdi
        int     $47

/* RAX: what an access gave: vector | error << 8, -1 for none (or vector 47). R10: 0 read, 1 write,
 * 2 run. */
kernel_access:
        try     9f
        cmpl    $1, %r10d
        je      1f
        ja      2f
        movb    (%rdi), %al
        jmp     9f
1:      movb    $0xc3, (%rdi)
        jmp     9f
2:      call    *%rdi
9:      jmp     outcome
from_user:
        pushq   %rbp
        movq    %rsp, %rbp
        try     9f
        movl    $U(user_access), %eax
        jmp     enter_user64
9:      popq    %rbp
outcome:
        movl    A(last_vector), %eax
        cmpl    $47, %eax
        jne     1f
        movl    $-1, %eax
1:      cmpl    $-1, %eax
        je      1f
        movl    A(last_error), %ecx
        shll    $8, %ecx
        orl     %ecx, %eax
1:      ret

/* What ought to come of it, from the entries in R8 and R9, R11 (0: CPL 0, 1: CPL 3), R10, R12 (CR0.WP):
 * SDM volume 3, 4.6. */
model:
        pushq   %rbx
        movq    %r8, %rax
        movq    %r8, %rbx
        shrq    $32, %rbx
        movl    %r8d, %eax      /* AND of the four */
        movl    %eax, %ebx
        shrl    $16, %ebx
        andl    %ebx, %eax
        movl    %eax, %ebx
        shrl    $8, %ebx
        andl    %ebx, %eax
        /* EAX bit 0 P, 1 W, 2 U */
        movl    $0, %ebx        /* error code */
        testl   %r11d, %r11d
        jz      1f
        orl     $4, %ebx
1:      cmpl    $1, %r10d
        jne     1f
        orl     $2, %ebx
1:      cmpl    $2, %r10d
        jne     1f
        orl     $16, %ebx
1:      testl   $1, %eax
        jz      fault
        orl     $1, %ebx
        testl   %r11d, %r11d
        jz      1f
        testl   $4, %eax        /* CPL 3: all U */
        jz      fault
1:      cmpl    $1, %r10d
        jne     2f
        testl   $2, %eax
        jnz     good
        testl   %r11d, %r11d
        jnz     fault
        testl   %r12d, %r12d
        jnz     fault
        jmp     good
2:      cmpl    $2, %r10d
        jne     good
        testl   $15, %r9d
        jnz     fault
good:   movl    $-1, %eax
        popq    %rbx
        ret
fault:  movl    %ebx, %eax
        shll    $8, %eax
        orl     $14, %eax
        popq    %rbx
        ret

/* Compares what happens with the model for all kinds of access; R14: how many differ, R15: a digest. */
all_accesses:
        xorl    %r11d, %r11d
1:      xorl    %r10d, %r10d
2:      call    set_entries
        testl   %r11d, %r11d
        jnz     3f
        call    kernel_access
        jmp     4f
3:      call    from_user
4:      movl    %eax, %r13d
        call    model
        cmpl    %eax, %r13d
        je      5f
        incl    %r14d
5:      movl    %r13d, %eax
        imulq   $0x01000193, %r15, %r15
        xorq    %rax, %r15
        incl    %r10d
        cmpl    $3, %r10d
        jb      2b
        incl    %r11d
        cmpl    $2, %r11d
        jb      1b
        ret

main64:
        movb    $0xc3, TARGET           /* RET */
        movq    $LINEAR, %rdi
        xorl    %r14d, %r14d
        xorl    %r15d, %r15d
        movl    $1, %r12d

        /* Every combination of W and U in four levels: 256. */
        xorl    %ebx, %ebx
1:      xorl    %r8d, %r8d
        movl    %ebx, %eax
        movl    $4, %ecx
2:      shlq    $8, %r8
        movl    %eax, %edx
        andl    $3, %edx
        leal    1(,%rdx,2), %edx        /* P, W, U */
        orq     %rdx, %r8
        shrl    $2, %eax
        loop    2b
        xorl    %r9d, %r9d
        call    all_accesses
        incl    %ebx
        cmpl    $256, %ebx
        jb      1b
        movl    %r14d, %eax
        EXPECT(0)

        /* The same without WP, for the 16 combinations of two levels. */
        movq    %cr0, %rax
        btrq    $16, %rax
        movq    %rax, %cr0
        xorl    %r12d, %r12d
        xorl    %r14d, %r14d
        xorl    %ebx, %ebx
1:      movl    $0x07000007, %r8d
        movl    %ebx, %eax
        andl    $3, %eax
        leal    1(,%rax,2), %eax
        shll    $8, %eax
        orl     %eax, %r8d
        movl    %ebx, %eax
        shrl    $2, %eax
        leal    1(,%rax,2), %eax
        shll    $16, %eax
        orl     %eax, %r8d
        xorl    %r9d, %r9d
        call    all_accesses
        incl    %ebx
        cmpl    $16, %ebx
        jb      1b
        movl    %r14d, %eax
        EXPECT(0)
        movq    %cr0, %rax
        btsq    $16, %rax
        movq    %rax, %cr0
        movl    $1, %r12d

        /* NX in each level. */
        xorl    %r14d, %r14d
        xorl    %r9d, %r9d
1:      movl    $0x07070707, %r8d
        call    all_accesses
        incl    %r9d
        cmpl    $16, %r9d
        jb      1b
        movl    %r14d, %eax
        EXPECT(0)

        /* Not present at each level. */
        xorl    %r14d, %r14d
        xorl    %r9d, %r9d
        movl    $0x07070706, %r8d
        call    all_accesses
        movl    $0x07070607, %r8d
        call    all_accesses
        movl    $0x07060707, %r8d
        call    all_accesses
        movl    $0x06070707, %r8d
        call    all_accesses
        movl    %r14d, %eax
        EXPECT(0)

        /* A in every level after a read, D in the last after a write. */
        movl    $0x07070707, %r8d
        xorl    %r9d, %r9d
        call    set_entries
        movb    (%rdi), %al
        movq    PML4E, %rax
        andl    $0x67, %eax
        EXPECT(0x27)
        movq    PDPT, %rax
        andl    $0x67, %eax
        EXPECT(0x27)
        movq    PD, %rax
        andl    $0x67, %eax
        EXPECT(0x27)
        movq    PT, %rax
        andl    $0x67, %eax
        EXPECT(0x27)
        movb    $0xc3, (%rdi)
        movq    PT, %rax
        andl    $0x67, %eax
        EXPECT(0x67)
        movq    PD, %rax
        andl    $0x67, %eax
        EXPECT(0x27)
        /* A write that faults sets no D. */
        movl    $0x05070707, %r8d
        call    set_entries
        movl    $1, %r10d
        call    kernel_access
        EXPECT(0x30e)
        movq    PT, %rax
        andl    $0x40, %eax
        EXPECT(0)
        movq    A(last_cr2), %rax
        EXPECT(LINEAR)

        /* Reserved bits: PS in the PML4E, address bit 51 in the others. */
        xorl    %r10d, %r10d
        movl    $0x07070787, %r8d
        call    set_entries
        call    kernel_access
        EXPECT_HW(0x90e)
        movl    $0x07070707, %r8d
        call    set_entries
        btsq    $51, PT
        call    kernel_access
        EXPECT_HW(0x90e)
        movl    $1, %r10d
        call    from_user
        EXPECT_HW(0xf0e)
        xorl    %r10d, %r10d
        movl    $0x07070707, %r8d
        call    set_entries
        btsq    $51, PD
        call    kernel_access
        EXPECT_HW(0x90e)
        /* NX without EFER.NXE is reserved, too. */
        movl    $8, %r9d
        call    set_entries
        movl    $0xc0000080, %ecx
        rdmsr
        btrl    $11, %eax
        wrmsr
        call    kernel_access
        movl    %eax, %esi
        movl    $0xc0000080, %ecx
        rdmsr
        btsl    $11, %eax
        wrmsr
        movl    %esi, %eax
        EXPECT_HW(0x90e)
        xorl    %r9d, %r9d

        /* Not canonical: #GP(0), and #SS(0) through RBP. */
        movabsq $0x0000800000000000, %rdi
        call    kernel_access
        EXPECT(13)
        movq    %rdi, %rbp
        try     1f
        movb    (%rbp), %al
1:      FAULT_HW(12, 0)
        /* The last byte of the lower half and the first of the gap. */
        movabsq $0x00007fffffffffff, %rdi
        try     1f
        movw    (%rdi), %ax
1:      movl    A(last_vector), %eax
        EXPECT_HW(13)
        movq    $LINEAR, %rdi

        /* A stale translation lives until INVLPG, or does not; after it never. */
        movl    $0x07070707, %r8d
        call    set_entries
        movb    (%rdi), %al
        movb    $0x90, FREE + 0x2000
        movq    $FREE + 0x2007, PT
        invlpg  (%rdi)
        movzbl  (%rdi), %eax
        EXPECT(0x90)
        movq    $TARGET + 7, PT
        invlpg  (%rdi)
        movzbl  (%rdi), %eax
        EXPECT(0xc3)
        /* A page made writable: the fault is not repeated (SDM 4.10.4.2). */
        movq    $TARGET + 5, PT
        invlpg  (%rdi)
        movb    (%rdi), %al
        movl    $1, %r10d
        call    kernel_access
        EXPECT(0x30e)
        movq    $TARGET + 7, PT
        call    kernel_access
        EXPECT(0xffffffff)
        movq    PT, %rax
        andl    $0x40, %eax
        EXPECT(0x40)

        /* SMEP and SMAP (CPUID 7.EBX 7 and 20). */
        movl    $7, %eax
        xorl    %ecx, %ecx
        cpuid
        movl    %ebx, %esi
        btl     $7, %esi
        jnc     1f
        movq    %cr4, %rax
        btsq    $20, %rax
        movq    %rax, %cr4
        movl    $0x07070707, %r8d
        call    set_entries
        movl    $2, %r10d
        call    kernel_access
        EXPECT(0x110e)
        xorl    %r10d, %r10d
        call    kernel_access
        EXPECT(0xffffffff)
        movl    $2, %r10d
        call    from_user
        EXPECT(0xffffffff)
        movl    $0x07070307, %r8d       /* a supervisor page: one level without U */
        call    set_entries
        call    kernel_access
        EXPECT(0xffffffff)
        movq    %cr4, %rax
        btrq    $20, %rax
        movq    %rax, %cr4
1:      btl     $20, %esi
        jnc     1f
        movq    %cr4, %rax
        btsq    $21, %rax
        movq    %rax, %cr4
        movl    $0x07070707, %r8d
        call    set_entries
        xorl    %r10d, %r10d
        call    kernel_access
        EXPECT(0x10e)
        movl    $1, %r10d
        call    kernel_access
        EXPECT(0x30e)
        stac
        call    kernel_access
        EXPECT(0xffffffff)
        clac
        call    kernel_access
        EXPECT(0x30e)
        movl    $2, %r10d               /* fetches are SMEP's */
        call    kernel_access
        EXPECT(0xffffffff)
        movl    $1, %r10d
        call    from_user
        EXPECT(0xffffffff)
        movl    $0x07070307, %r8d
        call    set_entries
        call    kernel_access
        EXPECT(0xffffffff)
        movq    %cr4, %rax
        btrq    $21, %rax
        movq    %rax, %cr4
1:
        /* 2 MiB and 1 GiB pages; dirty bits in their entries. */
        movl    $0x07070707, %r8d
        xorl    %r9d, %r9d
        call    set_entries
        movq    $0x87, PD
        movq    %cr3, %rax
        movq    %rax, %cr3
        movq    $LINEAR + TARGET, %rdi
        movzbl  (%rdi), %eax
        EXPECT(0xc3)
        movq    PD, %rax
        EXPECT(0xa7)
        movb    $0xc3, (%rdi)
        movq    PD, %rax
        EXPECT(0xe7)
        movl    $0x80000001, %eax
        cpuid
        btl     $26, %edx
        jnc     1f
        movq    $0x87, PDPT
        movq    %cr3, %rax
        movq    %rax, %cr3
        movb    $0xc3, (%rdi)
        movq    PDPT, %rax
        EXPECT(0xe7)
1:
        /* Global pages stay through a write of CR3, and go with CR4.PGE. */
        movl    $0x07070707, %r8d
        call    set_entries
        movq    $LINEAR, %rdi
        movq    %cr4, %rax
        btsq    $7, %rax
        movq    %rax, %cr4
        movq    $TARGET + 0x107, PT
        movq    %cr3, %rax
        movq    %rax, %cr3
        movb    (%rdi), %al
        movq    $FREE + 0x2007, PT
        movq    %cr4, %rax
        btrq    $7, %rax
        movq    %rax, %cr4
        movzbl  (%rdi), %eax
        EXPECT(0x90)

        /* PCID: each has its own translations (CPUID 1.ECX 17). */
        movl    $1, %eax
        cpuid
        btl     $17, %ecx
        jnc     1f
        movq    %cr4, %rax
        btsq    $17, %rax
        movq    %rax, %cr4
        movq    $TARGET + 7, PT
        movq    $TABLES + 1, %rax
        movq    %rax, %cr3
        movzbl  (%rdi), %eax
        EXPECT(0xc3)
        movq    $FREE + 0x2007, PT
        movq    $TABLES + 2, %rax
        movq    %rax, %cr3
        movzbl  (%rdi), %eax
        EXPECT(0x90)
        movq    $TABLES + 1, %rax       /* without bit 63: flushed */
        movq    %rax, %cr3
        movzbl  (%rdi), %eax
        EXPECT(0x90)
        /* Bit 63 keeps them, also in tables that differ. */
        movq    TABLES, %rax
        movq    %rax, ROOT_2
        movq    $TABLES + 0xc007, ROOT_2 + 8
        movq    $TABLES + 0xd007, TABLES + 0xc000
        movq    $TABLES + 0xe007, TABLES + 0xd000
        movq    $FREE + 0x2007, TABLES + 0xe000
        movq    $TARGET + 7, PT
        set_cr3 TABLES + 1, 0
        movzbl  (%rdi), %eax
        EXPECT(0xc3)
        set_cr3 ROOT_2 + 2, 0
        movzbl  (%rdi), %eax
        EXPECT(0x90)
        set_cr3 TABLES + 1, 1
        movzbl  (%rdi), %eax
        EXPECT(0xc3)
        set_cr3 ROOT_2 + 2, 1
        movzbl  (%rdi), %eax
        EXPECT(0x90)
        /* INVLPG reaches a global page of another PCID. */
        movq    %cr4, %rax
        btsq    $7, %rax
        movq    %rax, %cr4
        movq    $TARGET + 0x107, PT
        set_cr3 TABLES + 1, 0
        movzbl  (%rdi), %eax
        EXPECT(0xc3)
        set_cr3 ROOT_2 + 2, 1
        movq    $FREE + 0x2007, PT
        invlpg  (%rdi)
        set_cr3 TABLES + 1, 1
        movzbl  (%rdi), %eax
        EXPECT(0x90)
        movq    %cr4, %rax
        btrq    $7, %rax
        movq    %rax, %cr4
        /* INVPCID (CPUID 7.EBX 10): of an address, of a PCID. */
        pushq   %rbx
        movl    $7, %eax
        xorl    %ecx, %ecx
        cpuid
        btl     $10, %ebx
        popq    %rbx
        jnc     3f
        set_cr3 ROOT_2 + 2, 1
        movq    $TARGET + 7, PT
        movq    %rdi, A(invpcid_operand) + 8
        xorl    %ecx, %ecx
        invpcid A(invpcid_operand), %rcx
        set_cr3 TABLES + 1, 1
        movzbl  (%rdi), %eax
        EXPECT(0xc3)
        set_cr3 ROOT_2 + 2, 1
        movq    $FREE + 0x2007, PT
        movl    $1, %ecx
        invpcid A(invpcid_operand), %rcx
        set_cr3 TABLES + 1, 1
        movzbl  (%rdi), %eax
        EXPECT(0x90)
        /* Far more PCIDs than anybody keeps; what was written through one is code of another. */
3:      movq    $ROOT_2 + 3, %rdx
        xorl    %ecx, %ecx
4:      movq    %rdx, %rax
        btsq    $63, %rax
        movq    %rax, %cr3
        movb    $0x90, (%rdi)           /* NOP; RET behind it */
        movb    $0xc3, 1(%rdi)
        call    *%rdi
        movb    $0xc3, (%rdi)
        call    *%rdi
        movzbl  (%rdi), %eax
        addl    %eax, %ecx
        incq    %rdx
        cmpq    $ROOT_2 + 35, %rdx
        jb      4b
        movl    %ecx, %eax
        EXPECT(0xc3 * 32)
        movb    $0x90, (%rdi)
        set_cr3 TABLES + 1, 1
        movzbl  (%rdi), %eax
        EXPECT(0x90)
        try     2f
        movq    $TABLES, %rax
        movq    %rax, %cr3
        movq    %cr4, %rax
        btrq    $17, %rax
        movq    %rax, %cr4
2:      NO_FAULT
1:
        movq    %r15, %rax              /* the digest of all combinations */
        DONE
#include "guest_end.inc"
