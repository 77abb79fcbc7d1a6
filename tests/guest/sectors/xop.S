# SPDX-License-Identifier: MIT
# An XOP instruction, which the processor does not have: #UD. Prints AB.
        .include "sector.inc"

        BEGIN
        .code32
protected:
        LOAD_SEGMENTS $0x7000
        mov     $undefined, %eax        # gate of vector 6
        mov     %eax, 0x1030
        movw    $8, 0x1032
        movl    $0x00008e00, 0x1034
        lidt    idtr
        mov     $COM1, %edx
        mov     $'A', %al
        out     %al, %dx
        .byte   0x8f, 0xea, 0x78, 0x10, 0xc8    # bextr $0x808, %eax, %ecx
        .long   0x0808
        mov     $'X', %al
        jmp     1f
undefined:
        mov     $'B', %al
1:      out     %al, %dx
        out     %al, $EXIT
        hlt

idtr:   .word   0x7ff
        .long   0x1000
        END     CODE32, DATA32
