/* SPDX-License-Identifier: MIT */
/*
 * Functions of instructions with an immediate byte, one for each value that counts, SSE_STUB (32)
 * bytes apart: soft_sse_NAME_table + imm * 32. Their interface is soft_sse_fn of sse.h:
 *
 *      rdi  destination, in and out      rsi  source      rdx  XMM0, which none of these uses
 *
 * Leaves without a stack frame. The instructions may be beyond the host; then nobody calls them.
 */
        .text

        .macro  table_begin name
        .globl  soft_sse_\name\()_table
        .hidden soft_sse_\name\()_table
        .type   soft_sse_\name\()_table, @function
        .p2align 5
soft_sse_\name\()_table:
        .cfi_startproc
        .set    imm, 0
        .endm

        .macro  table_end name
        .cfi_endproc
        .size   soft_sse_\name\()_table, . - soft_sse_\name\()_table
        .endm

/* xmm op= xmm/m, imm8. The source, if it has 16 bytes, is aligned. */
        .macro  binary name, count
        table_begin \name
        .rept   \count
        .p2align 5
        endbr64
        movaps  (%rdi), %xmm0
        \name   $imm, (%rsi), %xmm0
        movaps  %xmm0, (%rdi)
        ret
        .set    imm, imm + 1
        .endr
        table_end \name
        .endm

        binary  shufps, 256
        binary  shufpd, 4
        binary  cmpps, 8
        binary  cmppd, 8
        binary  cmpss, 8
        binary  cmpsd, 8
        binary  pshufd, 256
        binary  pshufhw, 256
        binary  pshuflw, 256
        binary  palignr, 33
        binary  blendps, 16
        binary  blendpd, 4
        binary  pblendw, 256
        binary  dpps, 256
        binary  dppd, 52
        binary  mpsadbw, 8
        binary  roundps, 16
        binary  roundpd, 16
        binary  roundss, 16
        binary  roundsd, 16
        binary  pclmulqdq, 18
        binary  aeskeygenassist, 256
        binary  sha1rnds4, 4
        binary  pinsrb, 16
        binary  pinsrw, 8
        binary  pinsrd, 4
        binary  pinsrq, 2

/* xmm op= imm8 */
        .macro  shift name, count
        table_begin \name
        .rept   \count
        .p2align 5
        endbr64
        movaps  (%rdi), %xmm0
        \name   $imm, %xmm0
        movaps  %xmm0, (%rdi)
        ret
        .set    imm, imm + 1
        .endr
        table_end \name
        .endm

        shift   pslldq, 17
        shift   psrldq, 17

/* gpr = element imm of xmm */
        .macro  extract name, register, count
        table_begin \name
        .rept   \count
        .p2align 5
        endbr64
        movaps  (%rsi), %xmm0
        \name   $imm, %xmm0, %\register
        movq    %rax, (%rdi)
        ret
        .set    imm, imm + 1
        .endr
        table_end \name
        .endm

        extract pextrb, eax, 16
        extract pextrw, eax, 8
        extract pextrd, eax, 4
        extract pextrq, rax, 2

/* INSERTPS from a register: all 16 bytes of the source are read. From memory: bits 6 and 7 zero. */
        table_begin insertps
        .rept   256
        .p2align 5
        endbr64
        movaps  (%rdi), %xmm0
        movaps  (%rsi), %xmm1
        insertps $imm, %xmm1, %xmm0
        movaps  %xmm0, (%rdi)
        ret
        .set    imm, imm + 1
        .endr
        table_end insertps

/* ---- MMX ------------------------------------------------------------------------------------ */

        table_begin pshufw
        .rept   256
        .p2align 5
        endbr64
        movq    (%rsi), %xmm0
        pshuflw $imm, %xmm0, %xmm0
        movq    %xmm0, (%rdi)
        ret
        .set    imm, imm + 1
        .endr
        table_end pshufw

/* Source and destination make one value of 16 bytes, which is shifted right. */
        table_begin palignr_mmx
        .rept   17
        .p2align 5
        endbr64
        movq    (%rsi), %xmm0
        movhps  (%rdi), %xmm0
        psrldq  $imm, %xmm0
        movq    %xmm0, (%rdi)
        ret
        .set    imm, imm + 1
        .endr
        table_end palignr_mmx

        table_begin pinsrw_mmx
        .rept   4
        .p2align 5
        endbr64
        movq    (%rdi), %xmm0
        pinsrw  $imm, (%rsi), %xmm0
        movq    %xmm0, (%rdi)
        ret
        .set    imm, imm + 1
        .endr
        table_end pinsrw_mmx

        table_begin pextrw_mmx
        .rept   4
        .p2align 5
        endbr64
        movq    (%rsi), %xmm0
        pextrw  $imm, %xmm0, %eax
        movq    %rax, (%rdi)
        ret
        .set    imm, imm + 1
        .endr
        table_end pextrw_mmx

/* ---- strings: op_sse_string.c --------------------------------------------------------------- */

/*
 * uint32_t fn(const void *a, const void *b, int32_t length_b, int32_t length_a, void *result):
 *      rdi, rsi: 16 bytes each, aligned   edx, ecx: lengths, for the explicit forms   r8: result
 * Result: 8 bytes of index, or 16 bytes of mask. Returns the status flags in the low 16 bits.
 */
        .macro  text name, result:vararg
        table_begin \name
        .rept   128
        .p2align 5
        endbr64
        movaps  (%rdi), %xmm0
        movl    %ecx, %eax
        \name   $imm, (%rsi), %xmm0
        \result, (%r8)
        lahf
        seto    %al
        ret
        .set    imm, imm + 1
        .endr
        table_end \name
        .endm

        text    pcmpestri, movq %rcx
        text    pcmpistri, movq %rcx
        text    pcmpestrm, movaps %xmm0
        text    pcmpistrm, movaps %xmm0

        .section .note.GNU-stack, "", @progbits
