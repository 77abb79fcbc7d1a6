# SPDX-License-Identifier: MIT
# A jump in 16-bit code at EIP 0x12000 wraps around to 0x2040, which is another page: what is there then
# changes, and the jump finds the new code. Prints OOO, then NNN.
        .include "sector.inc"

        BEGIN
protected:
        LOAD_SEGMENTS $0x7000
        mov     $0x12000, %edi
        movw    $0x3eeb, (%edi)         # jmp .+0x40
        movw    $0x4fb0, 0x2040         # mov $'O', %al; ret
        movb    $0xc3, 0x2042
        mov     $COM1, %dx
        mov     $3, %cx
1:      call    go
        loop    1b
        movw    $0x58b0, 0x3040         # mov $'X', %al; ret: takes the place of the old block
        movb    $0xc3, 0x3042
        movw    $0x4eb0, 0x2040         # mov $'N', %al; nop ...; ret
        movw    $0x9090, 0x2042
        movw    $0x9090, 0x2044
        movb    $0xc3, 0x2046
        mov     $0x3040, %bx
        call    *%bx
        mov     $3, %cx
1:      call    go
        loop    1b
        out     %al, $EXIT
        hlt

go:     push    $1f
        .byte   0x66, 0xea              # ljmpl $8, $0x12000
        .long   0x12000
        .word   8
1:      out     %al, %dx
        ret

        END     CODE16, DATA16
