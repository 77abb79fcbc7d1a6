/* SPDX-License-Identifier: MIT */
/*
 * A function around each instruction of avx_list.h: soft_avx_NAME_x with 128 bits, soft_avx_NAME_y with
 * 256. Their interface is soft_avx_fn of avx.h:
 *
 *      rdi  result    rsi  operand a    rdx  operand b    rcx  operand c
 *
 * b is read as a memory operand, of the size that the instruction reads. A vector result is written as
 * 32 bytes: a VEX-encoded instruction with 128 bits clears the rest. Functions with an immediate are
 * 32 bytes apart in soft_avx_NAME_table_x. The instructions may be beyond the host; then nobody calls
 * their functions.
 */
#include "accel/soft/avx_list.h"

        .text

        .macro  begin name, suffix
        .globl  soft_avx_\name\()_\suffix
        .hidden soft_avx_\name\()_\suffix
        .type   soft_avx_\name\()_\suffix, @function
        .p2align 4
soft_avx_\name\()_\suffix\():
        .cfi_startproc
        .endm

        .macro  end name, suffix
        .cfi_endproc
        .size   soft_avx_\name\()_\suffix, . - soft_avx_\name\()_\suffix
        .endm

        .macro  begin_table name, suffix
        .globl  soft_avx_\name\()_table_\suffix
        .hidden soft_avx_\name\()_table_\suffix
        .type   soft_avx_\name\()_table_\suffix, @function
        .p2align 5
soft_avx_\name\()_table_\suffix\():
        .cfi_startproc
        .set    imm, 0
        .endm

        .macro  end_table name, suffix
        .cfi_endproc
        .size   soft_avx_\name\()_table_\suffix, . - soft_avx_\name\()_table_\suffix
        .endm

/* No upper half of a register stays in use: legacy SSE code follows (SDM volume 1, 14.1.1). */
        .macro  clean w
        .ifc    \w, y
        vzeroupper
        .endif
        .endm

        .macro  result w
        vmovdqu %ymm0, (%rdi)
        clean   \w
        ret
        .endm

/* ---- without an immediate ---- */

        .macro  three name, w
        begin   \name, \w
        vmovdqu (%rsi), %\w\()mm1
        \name   (%rdx), %\w\()mm1, %\w\()mm0
        result  \w
        end     \name, \w
        .endm

        .macro  two name, w
        begin   \name, \w
        \name   (%rdx), %\w\()mm0
        result  \w
        end     \name, \w
        .endm

        .macro  narrow name, w
        begin   \name, \w
        \name\w (%rdx), %xmm0
        result  \w
        end     \name, \w
        .endm

        .macro  blend name, w
        begin   \name, \w
        vmovdqu (%rsi), %\w\()mm1
        vmovdqu (%rcx), %\w\()mm2
        \name   %\w\()mm2, (%rdx), %\w\()mm1, %\w\()mm0
        result  \w
        end     \name, \w
        .endm

        .macro  fma name, w
        begin   \name, \w
        vmovdqu (%rdi), %\w\()mm0
        vmovdqu (%rsi), %\w\()mm1
        \name   (%rdx), %\w\()mm1, %\w\()mm0
        result  \w
        end     \name, \w
        .endm

        .macro  to_gpr name, w
        begin   \name, \w
        vmovdqu (%rdx), %\w\()mm0
        \name   %\w\()mm0, %eax
        mov     %rax, (%rdi)
        clean   \w
        ret
        end     \name, \w
        .endm

        .macro  convert_to_gpr name, w, register
        begin   \name, \w
        \name   (%rdx), %\register
        mov     %rax, (%rdi)
        ret
        end     \name, \w
        .endm

        .macro  convert_from_gpr name, w, size
        begin   \name, \w
        vmovdqu (%rsi), %xmm1
        \name\size (%rdx), %xmm1, %xmm0
        result  x
        end     \name, \w
        .endm

/* Flags as soft.h has them. */
        .macro  test_flags name, w
        begin   \name, \w
        vmovdqu (%rsi), %\w\()mm0
        \name   (%rdx), %\w\()mm0
        lahf
        seto    %al
        movzwl  %ax, %eax
        clean   \w
        ret
        end     \name, \w
        .endm

#define BOTH(shape, name) shape name, x; shape name, y;

#define X(name, mnemonic) BOTH(three, name)
        AVX_LIST_THREE_BOTH(X)
        AVX_LIST_THREE_BOTH_FLOAT(X)
#undef X
#define X(name, mnemonic) three name, y;
        AVX_LIST_THREE_256(X)
#undef X
#define X(name, mnemonic) three name, x;
        AVX_LIST_THREE_128(X)
        AVX_LIST_THREE_128_FLOAT(X)
#undef X
#define X(name, mnemonic, ...) BOTH(three, name)
        AVX_LIST_SHIFT(X)
        AVX_LIST_PERMIL(X)
#undef X
#define X(name, mnemonic) BOTH(two, name)
        AVX_LIST_TWO_BOTH(X)
        AVX_LIST_TWO_BOTH_FLOAT(X)
#undef X
#define X(name, mnemonic) two name, y;
        AVX_LIST_TWO_256(X)
#undef X
#define X(name, mnemonic) two name, x;
        AVX_LIST_TWO_128(X)
#undef X
#define X(name, mnemonic) BOTH(narrow, name)
        AVX_LIST_TWO_NARROW_FLOAT(X)
#undef X
#define X(name, mnemonic) BOTH(blend, name)
        AVX_LIST_BLEND(X)
#undef X
#define X(name, mnemonic) BOTH(fma, name)
        AVX_LIST_FMA_BOTH_FLOAT(X)
#undef X
#define X(name, mnemonic) fma name, x;
        AVX_LIST_FMA_128_FLOAT(X)
#undef X
#define X(name, mnemonic) BOTH(to_gpr, name)
        AVX_LIST_TO_GPR(X)
#undef X
#define X(name, mnemonic) convert_to_gpr name, x, eax; convert_to_gpr name, y, rax;
        AVX_LIST_CONVERT_TO_GPR_FLOAT(X)
#undef X
#define X(name, mnemonic) convert_from_gpr name, x, l; convert_from_gpr name, y, q;
        AVX_LIST_CONVERT_FROM_GPR_FLOAT(X)
#undef X
#define X(name, mnemonic) BOTH(test_flags, name)
        AVX_LIST_TEST(X)
#undef X
#define X(name, mnemonic) test_flags name, x;
        AVX_LIST_COMPARE_FLOAT(X)
#undef X

/* ---- with an immediate ---- */

        .macro  three_imm name, w, last
        begin_table \name, \w
        .rept   \last + 1
        .p2align 5
        vmovdqu (%rsi), %\w\()mm1
        \name   $imm, (%rdx), %\w\()mm1, %\w\()mm0
        result  \w
        .set    imm, imm + 1
        .endr
        end_table \name, \w
        .endm

        .macro  two_imm name, w, last
        begin_table \name, \w
        .rept   \last + 1
        .p2align 5
        \name   $imm, (%rdx), %\w\()mm0
        result  \w
        .set    imm, imm + 1
        .endr
        end_table \name, \w
        .endm

/* b in a register: shifts; to is the result's width. */
        .macro  reg_imm name, w, last, to
        begin_table \name, \w
        .rept   \last + 1
        .p2align 5
        vmovdqu (%rdx), %\w\()mm1
        \name   $imm, %\w\()mm1, %\to\()mm0
        result  \w
        .set    imm, imm + 1
        .endr
        end_table \name, \w
        .endm

/* b in a register, the name of the table tells so. */
        .macro  three_reg_imm name, last
        begin_table \name\()_reg, x
        .rept   \last + 1
        .p2align 5
        vmovdqu (%rsi), %xmm1
        vmovdqu (%rdx), %xmm2
        \name   $imm, %xmm2, %xmm1, %xmm0
        result  x
        .set    imm, imm + 1
        .endr
        end_table \name\()_reg, x
        .endm

        .macro  extract name, last, register
        begin_table \name, x
        .rept   \last + 1
        .p2align 5
        vmovdqu (%rdx), %xmm0
        \name   $imm, %xmm0, %\register
        mov     %rax, (%rdi)
        ret
        .set    imm, imm + 1
        .endr
        end_table \name, x
        .endm

#define X(name, mnemonic, mask, last, mask256, last256)                                            \
        three_imm name, x, last; three_imm name, y, last256;
        AVX_LIST_THREE_IMM_BOTH(X)
        AVX_LIST_THREE_IMM_BOTH_FLOAT(X)
#undef X
#define X(name, mnemonic, mask, last) three_imm name, y, last;
        AVX_LIST_THREE_IMM_256(X)
#undef X
#define X(name, mnemonic, mask, last) three_imm name, x, last;
        AVX_LIST_THREE_IMM_128(X)
        AVX_LIST_THREE_IMM_128_FLOAT(X)
#undef X
#define X(name, mnemonic, mask, last, mask256, last256)                                            \
        two_imm name, x, last; two_imm name, y, last256;
        AVX_LIST_TWO_IMM_BOTH(X)
        AVX_LIST_TWO_IMM_BOTH_FLOAT(X)
        AVX_LIST_PERMIL(X)
#undef X
#define X(name, mnemonic, mask, last) two_imm name, y, last;
        AVX_LIST_TWO_IMM_256(X)
#undef X
#define X(name, mnemonic, mask, last) two_imm name, x, last;
        AVX_LIST_TWO_IMM_128(X)
#undef X
#define X(name, mnemonic, mask, last, mask256, last256)                                            \
        reg_imm name, x, last, x; reg_imm name, y, last256, y;
        AVX_LIST_REG_IMM_BOTH(X)
        AVX_LIST_SHIFT(X)
#undef X
#define X(name, mnemonic, mask, last, mask256, last256)                                            \
        reg_imm name, x, last, x; reg_imm name, y, last256, x;
        AVX_LIST_HALVES_FLOAT(X)
#undef X
#define X(name, mnemonic, mask, last) reg_imm name, y, last, x;
        AVX_LIST_EXTRACT_256(X)
#undef X
#define X(name, mnemonic, mask, last) three_imm name, x, last; three_reg_imm name, last;
        AVX_LIST_INSERT(X)
#undef X
#define X(name, mnemonic, mask, last, register) extract name, last, register;
        AVX_LIST_EXTRACT(X)
#undef X

/* ---- moves of parts of a register: 4 or 8 bytes of b, zero-extended or into a copy of a ---- */

        .macro  part name, insn:vararg
        begin   \name, x
        \insn
        result  x
        end     \name, x
        .endm

        .macro  part_of_a name, insn, load:vararg
        begin   \name, x
        vmovdqu (%rsi), %xmm1
        \load   (%rdx), %xmm2
        \insn   %xmm2, %xmm1, %xmm0
        result  x
        end     \name, x
        .endm

        .macro  half_of_a name, insn
        begin   \name, x
        vmovdqu (%rsi), %xmm1
        \insn   (%rdx), %xmm1, %xmm0
        result  x
        end     \name, x
        .endm

        part    move4, vmovd (%rdx), %xmm0
        part    move8, vmovq (%rdx), %xmm0
        part    move_high, vmovq 8(%rdx), %xmm0
        part_of_a merge4, vmovss, vmovd
        part_of_a merge8, vmovsd, vmovq
        half_of_a merge_low, vmovlps
        half_of_a merge_high, vmovhps
        part_of_a high_to_low, vmovhlps, vmovdqu
        part_of_a low_to_high, vmovlhps, vmovq

        .section .note.GNU-stack, "", @progbits
