# SPDX-License-Identifier: MIT
# One processor has its paravirtual clock written to where the EOI register of its APIC is, while a level
# interrupt is in service; the other one moves memory about. Neither may wait for the other for ever.
# Prints 8 times . or +.
        .include "sector.inc"

        BEGIN
        .code32
protected:
        LOAD_SEGMENTS $0x7000
        mov     $trampoline, %esi
        mov     $0x8000, %edi
        mov     $(trampoline_end - trampoline), %ecx
        rep movsb
        mov     $handler, %eax          # gate of vector 0x40
        mov     %eax, 0x1200
        movw    $8, 0x1202
        movl    $0x00008e00, 0x1204
        movl    $0x1ff, APIC + 0xf0
        movl    $0x01000000, APIC + 0x310
        movl    $0x4500, APIC + 0x300   # INIT
        mov     $0x100000, %ecx
1:      loop    1b
        movl    $0x01000000, APIC + 0x310
        movl    $0x4608, APIC + 0x300   # SIPI: 0x8000
        mov     $8, %ebx
3:      mov     $200, %ecx
2:      mov     $0x80000058, %eax       # PAM of the pc's bridge
        mov     $0xcf8, %edx
        out     %eax, %dx
        mov     $0xcfd, %edx
        mov     $0x30, %al
        out     %al, %dx
        mov     $0x10, %al
        out     %al, %dx
        loop    2b
        mov     $COM1, %edx
        mov     $'.', %al
        cmpl    $0, 0x9000
        je      4f
        mov     $'+', %al
        movl    $0, 0x9000
4:      out     %al, %dx
        dec     %ebx
        jnz     3b
        out     %al, $EXIT
        hlt

handler:
        iret

second: LOAD_SEGMENTS $0x6000
        lidt    idtr
        movl    $0x1ff, APIC + 0xf0
        sti
1:      movl    $0xc040, APIC + 0x1000  # a level interrupt to itself, as a message
        nop
        nop
        mov     $0x4b564d01, %ecx       # MSR_KVM_SYSTEM_TIME_NEW
        mov     $(APIC + 0xa1), %eax
        xor     %edx, %edx
        wrmsr
        incl    0x9000
        jmp     1b

        .code16
trampoline:
        cli
        xor     %ax, %ax
        mov     %ax, %ds
        lgdt    gdtr
        mov     %cr0, %eax
        or      $1, %al
        mov     %eax, %cr0
        ljmpl   $8, $second
trampoline_end:

idtr:   .word   0x7ff
        .long   0x1000
        END     CODE32, DATA32
