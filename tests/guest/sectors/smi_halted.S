# SPDX-License-Identifier: MIT
# SMIs to a processor that waits in CLI; HLT: it counts them at 0x9000. Prints 1234.
        .include "sector.inc"

        BEGIN
        .code32
protected:
        LOAD_SEGMENTS $0x7000
        mov     $trampoline, %esi
        mov     $0x8000, %edi
        mov     $(trampoline_end - trampoline), %ecx
        rep movsb
        mov     $smm, %esi
        mov     $0x38000, %edi
        mov     $(smm_end - smm), %ecx
        rep movsb
        movl    $0, 0x9000
        movl    $0x1ff, APIC + 0xf0
        movl    $0x01000000, APIC + 0x310
        movl    $0x4500, APIC + 0x300   # INIT
        mov     $0x100000, %ecx
1:      loop    1b
        movl    $0x01000000, APIC + 0x310
        movl    $0x4608, APIC + 0x300   # SIPI: 0x8000
        mov     $0x1000000, %ecx
1:      loop    1b
        mov     $1, %ebx
3:      movl    $0x01000000, APIC + 0x310
        movl    $0x4200, APIC + 0x300   # SMI
        mov     $0x10000000, %ecx
2:      cmp     %ebx, 0x9000
        loopne  2b
        mov     $0x1000000, %ecx        # back into its HLT
4:      loop    4b
        mov     $COM1, %edx
        mov     0x9000, %al
        add     $'0', %al
        out     %al, %dx
        inc     %ebx
        cmp     $5, %ebx
        jne     3b
        out     %al, $EXIT
        hlt

        .code16
trampoline:
        cli
1:      hlt
        jmp     1b
trampoline_end:

smm:    xor     %ax, %ax
        mov     %ax, %ds
        incw    0x9000
        rsm
smm_end:

        END     CODE32, DATA32
