# SPDX-License-Identifier: MIT
# Code at 0x400000 maps its own page to another one, has the TLB forget the old one, and jumps within the
# page: that is the new page's code, which then changes. Prints OOO, then NN (or O where N would be new).
        .include "sector.inc"

        BEGIN
        .code32
protected:
        LOAD_SEGMENTS $0x7000
        mov     $0x10000, %edi          # page directory: 0 and 0xc00000 by the table at 0x11000 and
        xor     %eax, %eax              # 0x13000, 0x400000 by that at 0x12000
        mov     $0x1000, %ecx
        rep stosl
        movl    $0x11003, 0x10000
        movl    $0x12003, 0x10004
        movl    $0x13003, 0x1000c
        movl    $0x40003, 0x13000
        mov     $0x11000, %edi
        mov     $3, %eax
1:      stosl
        add     $0x1000, %eax
        cmp     $0x400003, %eax
        jb      1b
        mov     $code, %esi             # the old page: 0x20000
        mov     $0x20000, %edi
        mov     $(code_end - code), %ecx
        rep movsb
        movl    $0xc34fb0, 0x30040      # the new one: mov $'O', %al; ret
        movl    $0xc350b0, 0x20040      # mov $'P', %al; ret
        movl    $0xc358b0, 0x30800      # mov $'X', %al; ret: takes the place of the old block
        mov     $0x10000, %eax
        mov     %eax, %cr3
        mov     %cr0, %eax
        or      $0x80000000, %eax
        mov     %eax, %cr0
        jmp     1f
1:      mov     $COM1, %edx
        movl    $0x30003, 0x12000
        invlpg  0x400000
        mov     $0x400040, %ebx
        call    *%ebx
        call    go
        call    go
        call    go
        movl    $0x90904eb0, 0x30040    # mov $'N', %al; nop ...; ret
        movl    $0xc3909090, 0x30044
        mov     $0x30800, %ebx
        call    *%ebx
        call    go
        call    go
        out     %al, $EXIT
        hlt

go:     movl    $0x20003, 0x12000
        invlpg  0x400000
        mov     $0x400000, %ebx
        call    *%ebx
        out     %al, %dx
        ret

code:   movl    $0x30003, 0x12000
        mov     0xc00000, %eax          # 2048 pages on: the same place in the TLB
        mov     0x400000, %eax
        .byte   0xeb, 0x40 - (. - code) - 1     # jmp code + 0x40
code_end:

        END     CODE32, DATA32
