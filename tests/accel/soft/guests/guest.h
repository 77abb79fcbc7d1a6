/* SPDX-License-Identifier: MIT */
/*
 * What the guests share. Each .S defines GUEST (its name) and includes this first; guest_end.h last.
 *
 * A guest is one image, loaded at BASE and entered at its first byte in flat 32-bit protected mode
 * without paging. It notes what it found beside what ought to be found:
 *
 *      movl    last_vector, %eax
 *      EXPECT(14)                      got RAX (EAX) against 14, under this source line
 *
 * and ends by DONE. Addresses of labels are A(label); all lie below 64 KiB, so that 16-bit code
 * with segments of base 0 reaches them.
 */
#define BASE      0x8000
#define RESULTS   0x20000 /* count; from +16 on: line, 0, got, want (4, 4, 8, 8 bytes) */
#define STACK     0x7ff0  /* of CPL 0 */
#define STACK_TSS 0x6ff0  /* RSP0, ESP0 */
#define STACK_IST 0x5ff0
#define STACK_USR 0x1ffff0 /* of CPL 3 */
#define TABLES    0x40000 /* page tables */
#define FREE      0x100000 /* pages for the tests */
#define PORT      0x500   /* any write ends the guest */
#define VECTORS   48

#define USER_ALIAS 0x180000 /* long mode: the image, for CPL 3 */

#define U(label)     ((label) - guest_begin + USER_ALIAS) /* long mode, CPL 3 */
#define A(label)     ((label) - guest_begin + BASE)
/* Quotes keep spaces together for the assembler's macros. */
#define QUOTE_2(x)   #x
#define QUOTE(x)     QUOTE_2(x)
#define EXPECT(want) expect QUOTE(want), __LINE__

/* Selectors of the GDT in guest_end.h */
#define CODE32   0x08
#define DATA32   0x10
#define CODE64   0x18
#define USER32   0x23 /* user code, 32 bits */
#define USERDATA 0x2b
#define USER64   0x33
#define CODE16   0x38
#define DATA16   0x40
#define TSS_SEL  0x48 /* 16 bytes */
#define SPARE    0x58 /* eight entries for the tests */

        .section .rodata
        .balign 16
        .globl  GUEST_SYMBOL(begin)
GUEST_SYMBOL(begin):
guest_begin:
        .code32
        jmp     start32

/* Notes RAX; keeps all registers but the flags. */
.macro expect want, line
.if guest_bits == 64
        pushq   %rcx
        pushq   %rdx
        movq    $\want, %rcx
        movl    $\line, %edx
        call    record64
        popq    %rdx
        popq    %rcx
.elseif guest_bits == 32
        pushl   %ecx
        pushl   %edx
        movl    $\want, %ecx
        movl    $\line, %edx
        call    record32
        popl    %edx
        popl    %ecx
.else
        pushl   %ecx
        pushl   %edx
        movl    $\want, %ecx
        movl    $\line, %edx
        call    record16
        popl    %edx
        popl    %ecx
.endif
.endm

.macro bits n
        .set    guest_bits, \n
        .if \n == 64
        .code64
        .elseif \n == 32
        .code32
        .else
        .code16
        .endif
.endm

/* What follows may fault; then it goes on at \to, at CPL 0, with the stack as it is now. */
.macro try to
.if guest_bits == 64
        movq    $A(\to), A(resume)
        movq    %rsp, A(resume_sp)
        movl    $-1, A(last_vector)
        movl    $-1, A(last_error)
.else
        movl    $A(\to), A(resume)
        movl    %esp, A(resume_sp)
        movl    $-1, A(last_vector)
        movl    $-1, A(last_error)
.endif
.endm

/* Note the vector and the error code of the last exception; -1: none. */
.macro expect_fault vector, error, line
        movl    A(last_vector), %eax
        expect  "\vector", "\line"
.if \error != -2
        movl    A(last_error), %eax
        expect  "\error", "\line"
.endif
.endm
/* The same where an emulated L1 (tests/kvm/l1.py) is no model: its CPU does not check this. */
#define HW                      + 0x80000000
#define EXPECT_HW(want)         expect QUOTE(want), QUOTE(__LINE__ HW)
#define FAULT_HW(vector, error) expect_fault QUOTE(vector), QUOTE(error), QUOTE(__LINE__ HW)
#define FAULT(vector, error) expect_fault QUOTE(vector), QUOTE(error), __LINE__
#define NO_FAULT             expect_fault 0xffffffff, -2, __LINE__

.macro done
        movw    $PORT, %dx
        outl    %eax, %dx
97:     hlt
        jmp     97b
.endm
#define DONE done

        .set    guest_bits, 32
