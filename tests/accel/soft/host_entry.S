/* SPDX-License-Identifier: MIT */
/*
 * The signal handler's first and last instructions: no C code may run with the FS base (the thread's
 * own storage), the data segments or the alignment check that a test has left.
 */
        .text
        .globl  host_entry
        .type   host_entry, @function
host_entry:
        pushq   $2              /* AC, NT, ID, DF: clear */
        popfq
        rdfsbase %rax
        movq    %rax, host_left+0(%rip)
        rdgsbase %rax
        movq    %rax, host_left+8(%rip)
        movw    %ds, host_left+16(%rip)
        movw    %es, host_left+18(%rip)
        movw    %fs, host_left+20(%rip)
        movw    %gs, host_left+22(%rip)
        xorl    %eax, %eax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %fs
        movw    %ax, %gs
        movq    host_own_fs_base(%rip), %rax
        wrfsbase %rax
        subq    $8, %rsp
        call    host_signal
        addq    $8, %rsp
        movw    host_next+16(%rip), %ax
        movw    %ax, %ds
        movw    host_next+18(%rip), %ax
        movw    %ax, %es
        movw    host_next+20(%rip), %ax
        movw    %ax, %fs
        movw    host_next+22(%rip), %ax
        movw    %ax, %gs
        movq    host_next+0(%rip), %rax
        wrfsbase %rax
        movq    host_next+8(%rip), %rax
        wrgsbase %rax
        ret
        .size   host_entry, . - host_entry

        .section .note.GNU-stack, "", %progbits
