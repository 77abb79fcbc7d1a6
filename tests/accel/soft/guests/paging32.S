/* SPDX-License-Identifier: MIT */
/* 32-bit paging and PAE paging: 4 KiB, 4 MiB (PSE, PSE-36) and 2 MiB pages, rights, A and D, PDPTEs. */
#define GUEST_SYMBOL(x) guest_paging32_##x
#include "guest.inc"

#define PD     TABLES
#define PT     (TABLES + 0x1000)
#define LINEAR 0x80000000
#define TARGET (FREE + 0x1000)

        bits    32
user_read:
        movb    LINEAR, %al
        int3
user_write:
        movb    $1, LINEAR
        int3
.macro user label
        try     77f
        movl    $A(\label), %eax
        jmp     enter_user32
77:
.endm
.macro flush
        movl    %cr3, %eax
        movl    %eax, %cr3
.endm
.macro paging_on
        movl    %cr0, %eax
        orl     $0x80010000, %eax       /* PG, WP */
        movl    %eax, %cr0
.endm

main:
        movl    %cr4, %eax
        orl     $0x10, %eax             /* PSE */
        movl    %eax, %cr4
        movl    $0x87, PD               /* 0 to 4 MiB as it is, for all */
        movl    $PT + 7, PD + (LINEAR >> 22) * 4
        movl    $TARGET + 7, PT
        movl    $PD, %eax
        movl    %eax, %cr3
        paging_on
        movl    $0x600d, TARGET
        movl    LINEAR, %eax
        EXPECT(0x600d)
        movl    PT, %eax
        andl    $0x60, %eax
        EXPECT(0x20)
        movl    $1, LINEAR
        movl    PT, %eax
        andl    $0x60, %eax
        EXPECT(0x60)
        movl    PD, %eax
        andl    $0x60, %eax
        EXPECT(0x60)
        user    user_write
        FAULT(3, 0)
        movl    $TARGET + 5, PT
        flush
        user    user_write
        FAULT(14, 7)
        user    user_read
        FAULT(3, 0)
        try     1f
        movb    $1, LINEAR
1:      FAULT(14, 3)
        movl    $TARGET + 3, PT
        flush
        user    user_read
        FAULT(14, 5)
        movl    $TARGET + 7, PT
        movl    $PT + 5, PD + (LINEAR >> 22) * 4
        flush
        user    user_write
        FAULT(14, 7)
        movl    $PT + 6, PD + (LINEAR >> 22) * 4
        flush
        user    user_read
        FAULT(14, 4)
        movl    A(last_cr2), %eax
        EXPECT(LINEAR)
        /* 4 MiB page; without CR4.PSE the bit is ignored. */
        movl    $0x87, PD + (LINEAR >> 22) * 4
        flush
        movl    LINEAR + TARGET, %eax
        andl    $0xffff, %eax
        EXPECT(1)
        movl    $0x200087, PD + (LINEAR >> 22) * 4      /* bit 21 is reserved */
        flush
        user    user_read
        FAULT_HW(14, 13)

        /* PAE: PDPTEs are loaded with CR3. */
        movl    %cr0, %eax
        andl    $0x7fffffff, %eax
        movl    %eax, %cr0
        movl    $TABLES, %edi
        xorl    %eax, %eax
        movl    $0x2000, %ecx
        cld
        rep stosl
        movl    %cr4, %eax
        orl     $0x20, %eax
        movl    %eax, %cr4
        movl    $TABLES + 0x1001, TABLES                /* PDPT: 0 */
        movl    $TABLES + 0x2001, TABLES + 16           /* 2 GiB */
        movl    $0x87, TABLES + 0x1000
        movl    $0x200087, TABLES + 0x1008
        movl    $TABLES + 0x3007, TABLES + 0x2000
        movl    $TARGET + 7, TABLES + 0x3000
        movl    $TABLES, %eax
        movl    %eax, %cr3
        paging_on
        movl    $0x7e57, TARGET
        movl    LINEAR, %eax
        EXPECT(0x7e57)
        movl    TABLES + 0x1000, %eax
        andl    $0x60, %eax
        EXPECT(0x60)
        movl    TABLES, %eax            /* a PDPTE has no A */
        andl    $0x60, %eax
        EXPECT_HW(0)
        movl    $0, TABLES + 16
        flush
        user    user_read
        FAULT(14, 4)
        movl    $TABLES + 0x2003, TABLES + 16           /* R/W is reserved in a PDPTE: #GP on load */
        try     1f
        flush
1:      FAULT_HW(13, 0)
        movl    $TABLES + 0x2001, TABLES + 16
        flush
        movl    $0x80000000, TABLES + 0x3004    /* NX without EFER.NXE */
        invlpg  LINEAR
        user    user_read
        FAULT_HW(14, 13)
        movl    $0xc0000080, %ecx
        rdmsr
        orl     $0x800, %eax
        wrmsr
        flush
        user    user_read
        FAULT(3, 0)
        movb    $0xc3, TARGET
        try     1f
        movl    $LINEAR, %eax
        call    *%eax
1:      FAULT(14, 17)
        DONE
#include "guest_end.inc"
