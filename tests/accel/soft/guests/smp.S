/* SPDX-License-Identifier: MIT */
/*
 * Four processors: INIT and SIPI, locked operations on shared words, split locks across a page,
 * CMPXCHG16B, cross-modifying code, TLB shoot-down by IPI.
 */
#define GUEST_SYMBOL(x) guest_smp_##x
#define GUEST_LONG
#include "guest.inc"

#define CPUS    4
#define TURNS   20000
#define LAPIC   0x400000 /* linear (guest_end.inc) */
#define SHARED  (FREE + 0x1000)
#define SPLIT   (FREE + 0x2ffc) /* 8 bytes across a page boundary */
#define PAIR    (FREE + 0x1100) /* 16 bytes */
#define PATCH   (FREE + 0x4000) /* code */
#define WINDOW  (FREE + 0x6000) /* linear page that moves */
#define SHOOT   46              /* vector */
#define TRAMPOLINE 0x3000       /* of real mode */

        bits    16
trampoline: /* copied to TRAMPOLINE; CS = 0x300 */
        cli
        xorw    %ax, %ax
        movw    %ax, %ds
        lgdtl   A(gdt_pointer)
        movl    %cr0, %eax
        orl     $1, %eax
        andl    $~0x60000000, %eax      /* CD, NW */
        movl    %eax, %cr0
        ljmpl   $CODE32, $A(ap32)
trampoline_end:
        bits    32
ap32:   movl    $DATA32, %eax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movl    $0x620, %eax
        movl    %eax, %cr4
        movl    $TABLES, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx
        xorl    %edx, %edx
        movl    $0x901, %eax
        wrmsr
        movl    $0x80010033, %eax
        movl    %eax, %cr0
        ljmp    $CODE64, $A(ap64)
        bits    64
ap64:   movl    $1, %ebx
        lock xaddl %ebx, A(next_cpu)    /* 1, 2, 3 */
        movl    %ebx, %eax
        shll    $12, %eax
        leal    FREE + 0x10000(%rax), %esp
        lidt    A(idt_pointer)
        movl    $0x1ff, LAPIC + 0xf0
        call    work
        lock incl A(finished)
        sti
1:      hlt
        jmp     1b

        .balign 8
next_cpu: .long 1
ready:    .long 0
finished: .long 0
arrived:  .fill 8, 4, 0
acknowledged: .long 0
stale:    .long 0
patched:  .long 0
bad:      .long 0

/* All wait for all: R12 is the address of a word that counts. */
barrier:
        lock incl (%r12)
1:      pause
        cmpl    $CPUS, (%r12)
        jb      1b
        ret

/* EBX: this CPU's number. */
work:
        movl    $A(arrived), %r12d
        call    barrier
        sti
        /* Locked additions, exchange-and-add, on the same words. */
        movl    $TURNS, %ecx
1:      lock addl $3, SHARED
        movl    $1, %eax
        lock xaddq %rax, SHARED + 8
        lock incl SHARED + 16
        lock btsl $0, SHARED + 64       /* a lock: a plain increment under it */
        jc      3f
2:      incl    SHARED + 128
        movl    $0, SHARED + 64
        jmp     4f
3:      pause
        lock btsl $0, SHARED + 64
        jc      3b
        jmp     2b
4:      loop    1b
        movl    $A(arrived) + 4, %r12d
        call    barrier
        /* Split locks. */
        movl    $TURNS / 10, %ecx
1:      lock incq SPLIT
        lock addl $1, SPLIT + 2
        lock subl $1, SPLIT + 2
        loop    1b
        /* CMPXCHG16B: both halves count together. */
        pushq   %rbx
        movl    $TURNS / 2, %esi
1:      movq    PAIR, %rax
        movq    PAIR + 8, %rdx
2:      movq    %rax, %rbx
        movq    %rdx, %rcx
        incq    %rbx
        addq    $2, %rcx
        lock cmpxchg16b PAIR
        jnz     2b
        decl    %esi
        jnz     1b
        popq    %rbx
        movl    $A(arrived) + 8, %r12d
        call    barrier
        /* Cross-modifying code: CPU 0 patches, says so, the others serialise and run. */
        xorl    %esi, %esi
1:      incl    %esi
        testl   %ebx, %ebx
        jnz     3f
        movl    %esi, PATCH + 1
        movl    $0, A(acknowledged)
        movl    %esi, A(patched)
2:      pause
        cmpl    $CPUS - 1, A(acknowledged)
        jb      2b
        jmp     5f
3:      pause
        cmpl    %esi, A(patched)
        jne     3b
        pushq   %rbx
        xorl    %eax, %eax
        cpuid
        popq    %rbx
        movl    $PATCH, %eax
        call    *%rax
        cmpl    %esi, %eax
        je      4f
        lock incl A(bad)
4:      lock incl A(acknowledged)
5:      cmpl    $300, %esi
        jb      1b
        movl    $A(arrived) + 12, %r12d
        call    barrier
        /* Shoot-down: CPU 0 moves WINDOW and tells the others, which look at it all the time. */
        xorl    %esi, %esi
        testl   %ebx, %ebx
        jnz     6f
1:      incl    %esi
        movl    $FREE + 0x8003, %eax    /* even and odd turns */
        testl   $1, %esi
        jz      2f
        movl    $FREE + 0x9003, %eax
2:      movl    $0, A(acknowledged)
        movl    %eax, TABLES + 0x3000 + (WINDOW >> 12) * 8
        invlpg  WINDOW
        movl    $0xc4000 + SHOOT, LAPIC + 0x300 /* all but self */
3:      pause
        cmpl    $CPUS - 1, A(acknowledged)
        jb      3b
        /* Nobody may see the old page now. Its content says so. */
        movl    $FREE + 0x9000, %eax
        testl   $1, %esi
        jz      4f
        movl    $FREE + 0x8000, %eax
4:      movl    $-1, (%rax)
        movl    WINDOW, %eax
        cmpl    $-1, %eax
        jne     5f
        incl    A(stale)
5:      movl    $0, FREE + 0x8000
        movl    $0, FREE + 0x9000
        cmpl    $200, %esi
        jb      1b
        movl    $1, A(arrived) + 20
        jmp     8f
        /* The others: -1 is only ever in the page that is not mapped. */
6:      movl    WINDOW, %eax
        cmpl    $-1, %eax
        jne     7f
        lock incl A(stale)
7:      cmpl    $0, A(arrived) + 20
        je      6b
8:      movl    $A(arrived) + 16, %r12d
        call    barrier
        cli
        ret

/* Vector SHOOT, as a hook would cost its registers: a gate of its own. */
shoot:  invlpg  WINDOW
        lock incl A(acknowledged)
        movl    $0, LAPIC + 0xb0
        iretq

.macro wait_icr
91:     pause
        btl     $12, LAPIC + 0x300
        jc      91b
.endm

main64:
        movl    $A(shoot), %eax
        movw    %ax, A(idt) + SHOOT * 16
        movl    $FREE + 0x8003, TABLES + 0x3000 + (WINDOW >> 12) * 8
        movl    $0, SPLIT
        movb    $0xb8, PATCH            /* MOV EAX, imm32; RET */
        movb    $0xc3, PATCH + 5
        cld
        movl    $A(trampoline), %esi
        movl    $TRAMPOLINE, %edi
        movl    $trampoline_end - trampoline, %ecx
        rep movsb
        movl    $0x1ff, LAPIC + 0xf0
        movl    $0xc4500, LAPIC + 0x300 /* INIT to all but self */
        wait_icr
        movl    $2000000, %ecx
1:      pause
        loop    1b
        movl    $0xc4600 + (TRAMPOLINE >> 12), LAPIC + 0x300
        wait_icr
        xorl    %ebx, %ebx
        call    work
1:      pause
        cmpl    $CPUS - 1, A(finished)
        jb      1b
        movl    SHARED, %eax
        EXPECT(3 * CPUS * TURNS)
        movq    SHARED + 8, %rax
        EXPECT(CPUS * TURNS)
        movl    SHARED + 16, %eax
        EXPECT(CPUS * TURNS)
        movl    SHARED + 128, %eax
        EXPECT(CPUS * TURNS)
        movq    SPLIT, %rax
        EXPECT(CPUS * TURNS / 10)
        movq    PAIR, %rax
        EXPECT(CPUS * TURNS / 2)
        movq    PAIR + 8, %rax
        EXPECT(CPUS * TURNS)
        movl    A(bad), %eax
        EXPECT(0)
        movl    A(stale), %eax
        EXPECT(0)
        DONE
#include "guest_end.inc"
