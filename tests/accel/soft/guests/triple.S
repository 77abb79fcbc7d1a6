/* SPDX-License-Identifier: MIT */
/* A triple fault: no IDT at all. */
#define GUEST_SYMBOL(x) guest_triple_##x
#define GUEST_LONG
#include "guest.inc"

        bits    64
main64:
        movl    $1, %eax
        EXPECT(1)
        movw    $0, A(idt_pointer)
        lidt    A(idt_pointer)
        ud2
        DONE
#include "guest_end.inc"
