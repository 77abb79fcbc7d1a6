/* SPDX-License-Identifier: MIT */
/*
 * DSDT of the q35 machine. _PRT follows src/hw/ich9.c: functions in slots 0 to 24 use PIRQ E-H,
 * turned by slot, those in 25 to 31 PIRQ A-D by pin; PIRQ A-H are GSIs 16-23 in APIC mode.
 */
DefinitionBlock ("", "DSDT", 2, "FERRY ", "FERRYQ35", 1)
{
    Name (\_S5, Package () { 0, 0, 0, 0 })
    Name (PICM, 0) /* 0: the guest uses the PICs; 1: IOAPIC */
    Method (\_PIC, 1) { PICM = Arg0 }

    Scope (\_SB)
    {
        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A08"))
            Name (_CID, EisaId ("PNP0A03"))
            Name (_UID, 0)
            Name (_SEG, 0)
            Name (_BBN, 0)
            #include "windows.asl"
            /* The guest may control hot-plug, PME, AER and the capability structure; nothing of
             * it needs firmware's help. */
            Method (_OSC, 4)
            {
                CreateDWordField (Arg3, 0, CDW1)
                If (Arg0 == ToUUID ("33DB4D5B-1FF7-401C-9657-7441C03DD766"))
                {
                    CreateDWordField (Arg3, 8, CDW3)
                    CDW3 &= 0x1F
                    If (Arg1 != 1) { CDW1 |= 0x08 }
                }
                Else { CDW1 |= 0x04 }
                Return (Arg3)
            }
            Device (LPC)
            {
                Name (_ADR, 0x001F0000)
                OperationRegion (PIRQ, PCI_Config, 0x60, 0x0C)
                Field (PIRQ, ByteAcc, NoLock, Preserve)
                {
                    PRQA, 8, PRQB, 8, PRQC, 8, PRQD, 8,
                    Offset (0x08),
                    PRQE, 8, PRQF, 8, PRQG, 8, PRQH, 8
                }
                #include "isa.asl"
            }
            Method (_PRT)
            {
                If (PICM) { Return (APRT) }
                Return (PPRT)
            }
            Name (APRT, Package ()
            {
                Package () { 0x0000FFFF, 0, 0, 20 },
                Package () { 0x0000FFFF, 1, 0, 21 },
                Package () { 0x0000FFFF, 2, 0, 22 },
                Package () { 0x0000FFFF, 3, 0, 23 },
                Package () { 0x0001FFFF, 0, 0, 21 },
                Package () { 0x0001FFFF, 1, 0, 22 },
                Package () { 0x0001FFFF, 2, 0, 23 },
                Package () { 0x0001FFFF, 3, 0, 20 },
                Package () { 0x0002FFFF, 0, 0, 22 },
                Package () { 0x0002FFFF, 1, 0, 23 },
                Package () { 0x0002FFFF, 2, 0, 20 },
                Package () { 0x0002FFFF, 3, 0, 21 },
                Package () { 0x0003FFFF, 0, 0, 23 },
                Package () { 0x0003FFFF, 1, 0, 20 },
                Package () { 0x0003FFFF, 2, 0, 21 },
                Package () { 0x0003FFFF, 3, 0, 22 },
                Package () { 0x0004FFFF, 0, 0, 20 },
                Package () { 0x0004FFFF, 1, 0, 21 },
                Package () { 0x0004FFFF, 2, 0, 22 },
                Package () { 0x0004FFFF, 3, 0, 23 },
                Package () { 0x0005FFFF, 0, 0, 21 },
                Package () { 0x0005FFFF, 1, 0, 22 },
                Package () { 0x0005FFFF, 2, 0, 23 },
                Package () { 0x0005FFFF, 3, 0, 20 },
                Package () { 0x0006FFFF, 0, 0, 22 },
                Package () { 0x0006FFFF, 1, 0, 23 },
                Package () { 0x0006FFFF, 2, 0, 20 },
                Package () { 0x0006FFFF, 3, 0, 21 },
                Package () { 0x0007FFFF, 0, 0, 23 },
                Package () { 0x0007FFFF, 1, 0, 20 },
                Package () { 0x0007FFFF, 2, 0, 21 },
                Package () { 0x0007FFFF, 3, 0, 22 },
                Package () { 0x0008FFFF, 0, 0, 20 },
                Package () { 0x0008FFFF, 1, 0, 21 },
                Package () { 0x0008FFFF, 2, 0, 22 },
                Package () { 0x0008FFFF, 3, 0, 23 },
                Package () { 0x0009FFFF, 0, 0, 21 },
                Package () { 0x0009FFFF, 1, 0, 22 },
                Package () { 0x0009FFFF, 2, 0, 23 },
                Package () { 0x0009FFFF, 3, 0, 20 },
                Package () { 0x000AFFFF, 0, 0, 22 },
                Package () { 0x000AFFFF, 1, 0, 23 },
                Package () { 0x000AFFFF, 2, 0, 20 },
                Package () { 0x000AFFFF, 3, 0, 21 },
                Package () { 0x000BFFFF, 0, 0, 23 },
                Package () { 0x000BFFFF, 1, 0, 20 },
                Package () { 0x000BFFFF, 2, 0, 21 },
                Package () { 0x000BFFFF, 3, 0, 22 },
                Package () { 0x000CFFFF, 0, 0, 20 },
                Package () { 0x000CFFFF, 1, 0, 21 },
                Package () { 0x000CFFFF, 2, 0, 22 },
                Package () { 0x000CFFFF, 3, 0, 23 },
                Package () { 0x000DFFFF, 0, 0, 21 },
                Package () { 0x000DFFFF, 1, 0, 22 },
                Package () { 0x000DFFFF, 2, 0, 23 },
                Package () { 0x000DFFFF, 3, 0, 20 },
                Package () { 0x000EFFFF, 0, 0, 22 },
                Package () { 0x000EFFFF, 1, 0, 23 },
                Package () { 0x000EFFFF, 2, 0, 20 },
                Package () { 0x000EFFFF, 3, 0, 21 },
                Package () { 0x000FFFFF, 0, 0, 23 },
                Package () { 0x000FFFFF, 1, 0, 20 },
                Package () { 0x000FFFFF, 2, 0, 21 },
                Package () { 0x000FFFFF, 3, 0, 22 },
                Package () { 0x0010FFFF, 0, 0, 20 },
                Package () { 0x0010FFFF, 1, 0, 21 },
                Package () { 0x0010FFFF, 2, 0, 22 },
                Package () { 0x0010FFFF, 3, 0, 23 },
                Package () { 0x0011FFFF, 0, 0, 21 },
                Package () { 0x0011FFFF, 1, 0, 22 },
                Package () { 0x0011FFFF, 2, 0, 23 },
                Package () { 0x0011FFFF, 3, 0, 20 },
                Package () { 0x0012FFFF, 0, 0, 22 },
                Package () { 0x0012FFFF, 1, 0, 23 },
                Package () { 0x0012FFFF, 2, 0, 20 },
                Package () { 0x0012FFFF, 3, 0, 21 },
                Package () { 0x0013FFFF, 0, 0, 23 },
                Package () { 0x0013FFFF, 1, 0, 20 },
                Package () { 0x0013FFFF, 2, 0, 21 },
                Package () { 0x0013FFFF, 3, 0, 22 },
                Package () { 0x0014FFFF, 0, 0, 20 },
                Package () { 0x0014FFFF, 1, 0, 21 },
                Package () { 0x0014FFFF, 2, 0, 22 },
                Package () { 0x0014FFFF, 3, 0, 23 },
                Package () { 0x0015FFFF, 0, 0, 21 },
                Package () { 0x0015FFFF, 1, 0, 22 },
                Package () { 0x0015FFFF, 2, 0, 23 },
                Package () { 0x0015FFFF, 3, 0, 20 },
                Package () { 0x0016FFFF, 0, 0, 22 },
                Package () { 0x0016FFFF, 1, 0, 23 },
                Package () { 0x0016FFFF, 2, 0, 20 },
                Package () { 0x0016FFFF, 3, 0, 21 },
                Package () { 0x0017FFFF, 0, 0, 23 },
                Package () { 0x0017FFFF, 1, 0, 20 },
                Package () { 0x0017FFFF, 2, 0, 21 },
                Package () { 0x0017FFFF, 3, 0, 22 },
                Package () { 0x0018FFFF, 0, 0, 20 },
                Package () { 0x0018FFFF, 1, 0, 21 },
                Package () { 0x0018FFFF, 2, 0, 22 },
                Package () { 0x0018FFFF, 3, 0, 23 },
                Package () { 0x0019FFFF, 0, 0, 16 },
                Package () { 0x0019FFFF, 1, 0, 17 },
                Package () { 0x0019FFFF, 2, 0, 18 },
                Package () { 0x0019FFFF, 3, 0, 19 },
                Package () { 0x001AFFFF, 0, 0, 16 },
                Package () { 0x001AFFFF, 1, 0, 17 },
                Package () { 0x001AFFFF, 2, 0, 18 },
                Package () { 0x001AFFFF, 3, 0, 19 },
                Package () { 0x001BFFFF, 0, 0, 16 },
                Package () { 0x001BFFFF, 1, 0, 17 },
                Package () { 0x001BFFFF, 2, 0, 18 },
                Package () { 0x001BFFFF, 3, 0, 19 },
                Package () { 0x001CFFFF, 0, 0, 16 },
                Package () { 0x001CFFFF, 1, 0, 17 },
                Package () { 0x001CFFFF, 2, 0, 18 },
                Package () { 0x001CFFFF, 3, 0, 19 },
                Package () { 0x001DFFFF, 0, 0, 16 },
                Package () { 0x001DFFFF, 1, 0, 17 },
                Package () { 0x001DFFFF, 2, 0, 18 },
                Package () { 0x001DFFFF, 3, 0, 19 },
                Package () { 0x001EFFFF, 0, 0, 16 },
                Package () { 0x001EFFFF, 1, 0, 17 },
                Package () { 0x001EFFFF, 2, 0, 18 },
                Package () { 0x001EFFFF, 3, 0, 19 },
                Package () { 0x001FFFFF, 0, 0, 16 },
                Package () { 0x001FFFFF, 1, 0, 17 },
                Package () { 0x001FFFFF, 2, 0, 18 },
                Package () { 0x001FFFFF, 3, 0, 19 }
            })
            Name (PPRT, Package ()
            {
                Package () { 0x0000FFFF, 0, LNKE, 0 },
                Package () { 0x0000FFFF, 1, LNKF, 0 },
                Package () { 0x0000FFFF, 2, LNKG, 0 },
                Package () { 0x0000FFFF, 3, LNKH, 0 },
                Package () { 0x0001FFFF, 0, LNKF, 0 },
                Package () { 0x0001FFFF, 1, LNKG, 0 },
                Package () { 0x0001FFFF, 2, LNKH, 0 },
                Package () { 0x0001FFFF, 3, LNKE, 0 },
                Package () { 0x0002FFFF, 0, LNKG, 0 },
                Package () { 0x0002FFFF, 1, LNKH, 0 },
                Package () { 0x0002FFFF, 2, LNKE, 0 },
                Package () { 0x0002FFFF, 3, LNKF, 0 },
                Package () { 0x0003FFFF, 0, LNKH, 0 },
                Package () { 0x0003FFFF, 1, LNKE, 0 },
                Package () { 0x0003FFFF, 2, LNKF, 0 },
                Package () { 0x0003FFFF, 3, LNKG, 0 },
                Package () { 0x0004FFFF, 0, LNKE, 0 },
                Package () { 0x0004FFFF, 1, LNKF, 0 },
                Package () { 0x0004FFFF, 2, LNKG, 0 },
                Package () { 0x0004FFFF, 3, LNKH, 0 },
                Package () { 0x0005FFFF, 0, LNKF, 0 },
                Package () { 0x0005FFFF, 1, LNKG, 0 },
                Package () { 0x0005FFFF, 2, LNKH, 0 },
                Package () { 0x0005FFFF, 3, LNKE, 0 },
                Package () { 0x0006FFFF, 0, LNKG, 0 },
                Package () { 0x0006FFFF, 1, LNKH, 0 },
                Package () { 0x0006FFFF, 2, LNKE, 0 },
                Package () { 0x0006FFFF, 3, LNKF, 0 },
                Package () { 0x0007FFFF, 0, LNKH, 0 },
                Package () { 0x0007FFFF, 1, LNKE, 0 },
                Package () { 0x0007FFFF, 2, LNKF, 0 },
                Package () { 0x0007FFFF, 3, LNKG, 0 },
                Package () { 0x0008FFFF, 0, LNKE, 0 },
                Package () { 0x0008FFFF, 1, LNKF, 0 },
                Package () { 0x0008FFFF, 2, LNKG, 0 },
                Package () { 0x0008FFFF, 3, LNKH, 0 },
                Package () { 0x0009FFFF, 0, LNKF, 0 },
                Package () { 0x0009FFFF, 1, LNKG, 0 },
                Package () { 0x0009FFFF, 2, LNKH, 0 },
                Package () { 0x0009FFFF, 3, LNKE, 0 },
                Package () { 0x000AFFFF, 0, LNKG, 0 },
                Package () { 0x000AFFFF, 1, LNKH, 0 },
                Package () { 0x000AFFFF, 2, LNKE, 0 },
                Package () { 0x000AFFFF, 3, LNKF, 0 },
                Package () { 0x000BFFFF, 0, LNKH, 0 },
                Package () { 0x000BFFFF, 1, LNKE, 0 },
                Package () { 0x000BFFFF, 2, LNKF, 0 },
                Package () { 0x000BFFFF, 3, LNKG, 0 },
                Package () { 0x000CFFFF, 0, LNKE, 0 },
                Package () { 0x000CFFFF, 1, LNKF, 0 },
                Package () { 0x000CFFFF, 2, LNKG, 0 },
                Package () { 0x000CFFFF, 3, LNKH, 0 },
                Package () { 0x000DFFFF, 0, LNKF, 0 },
                Package () { 0x000DFFFF, 1, LNKG, 0 },
                Package () { 0x000DFFFF, 2, LNKH, 0 },
                Package () { 0x000DFFFF, 3, LNKE, 0 },
                Package () { 0x000EFFFF, 0, LNKG, 0 },
                Package () { 0x000EFFFF, 1, LNKH, 0 },
                Package () { 0x000EFFFF, 2, LNKE, 0 },
                Package () { 0x000EFFFF, 3, LNKF, 0 },
                Package () { 0x000FFFFF, 0, LNKH, 0 },
                Package () { 0x000FFFFF, 1, LNKE, 0 },
                Package () { 0x000FFFFF, 2, LNKF, 0 },
                Package () { 0x000FFFFF, 3, LNKG, 0 },
                Package () { 0x0010FFFF, 0, LNKE, 0 },
                Package () { 0x0010FFFF, 1, LNKF, 0 },
                Package () { 0x0010FFFF, 2, LNKG, 0 },
                Package () { 0x0010FFFF, 3, LNKH, 0 },
                Package () { 0x0011FFFF, 0, LNKF, 0 },
                Package () { 0x0011FFFF, 1, LNKG, 0 },
                Package () { 0x0011FFFF, 2, LNKH, 0 },
                Package () { 0x0011FFFF, 3, LNKE, 0 },
                Package () { 0x0012FFFF, 0, LNKG, 0 },
                Package () { 0x0012FFFF, 1, LNKH, 0 },
                Package () { 0x0012FFFF, 2, LNKE, 0 },
                Package () { 0x0012FFFF, 3, LNKF, 0 },
                Package () { 0x0013FFFF, 0, LNKH, 0 },
                Package () { 0x0013FFFF, 1, LNKE, 0 },
                Package () { 0x0013FFFF, 2, LNKF, 0 },
                Package () { 0x0013FFFF, 3, LNKG, 0 },
                Package () { 0x0014FFFF, 0, LNKE, 0 },
                Package () { 0x0014FFFF, 1, LNKF, 0 },
                Package () { 0x0014FFFF, 2, LNKG, 0 },
                Package () { 0x0014FFFF, 3, LNKH, 0 },
                Package () { 0x0015FFFF, 0, LNKF, 0 },
                Package () { 0x0015FFFF, 1, LNKG, 0 },
                Package () { 0x0015FFFF, 2, LNKH, 0 },
                Package () { 0x0015FFFF, 3, LNKE, 0 },
                Package () { 0x0016FFFF, 0, LNKG, 0 },
                Package () { 0x0016FFFF, 1, LNKH, 0 },
                Package () { 0x0016FFFF, 2, LNKE, 0 },
                Package () { 0x0016FFFF, 3, LNKF, 0 },
                Package () { 0x0017FFFF, 0, LNKH, 0 },
                Package () { 0x0017FFFF, 1, LNKE, 0 },
                Package () { 0x0017FFFF, 2, LNKF, 0 },
                Package () { 0x0017FFFF, 3, LNKG, 0 },
                Package () { 0x0018FFFF, 0, LNKE, 0 },
                Package () { 0x0018FFFF, 1, LNKF, 0 },
                Package () { 0x0018FFFF, 2, LNKG, 0 },
                Package () { 0x0018FFFF, 3, LNKH, 0 },
                Package () { 0x0019FFFF, 0, LNKA, 0 },
                Package () { 0x0019FFFF, 1, LNKB, 0 },
                Package () { 0x0019FFFF, 2, LNKC, 0 },
                Package () { 0x0019FFFF, 3, LNKD, 0 },
                Package () { 0x001AFFFF, 0, LNKA, 0 },
                Package () { 0x001AFFFF, 1, LNKB, 0 },
                Package () { 0x001AFFFF, 2, LNKC, 0 },
                Package () { 0x001AFFFF, 3, LNKD, 0 },
                Package () { 0x001BFFFF, 0, LNKA, 0 },
                Package () { 0x001BFFFF, 1, LNKB, 0 },
                Package () { 0x001BFFFF, 2, LNKC, 0 },
                Package () { 0x001BFFFF, 3, LNKD, 0 },
                Package () { 0x001CFFFF, 0, LNKA, 0 },
                Package () { 0x001CFFFF, 1, LNKB, 0 },
                Package () { 0x001CFFFF, 2, LNKC, 0 },
                Package () { 0x001CFFFF, 3, LNKD, 0 },
                Package () { 0x001DFFFF, 0, LNKA, 0 },
                Package () { 0x001DFFFF, 1, LNKB, 0 },
                Package () { 0x001DFFFF, 2, LNKC, 0 },
                Package () { 0x001DFFFF, 3, LNKD, 0 },
                Package () { 0x001EFFFF, 0, LNKA, 0 },
                Package () { 0x001EFFFF, 1, LNKB, 0 },
                Package () { 0x001EFFFF, 2, LNKC, 0 },
                Package () { 0x001EFFFF, 3, LNKD, 0 },
                Package () { 0x001FFFFF, 0, LNKA, 0 },
                Package () { 0x001FFFFF, 1, LNKB, 0 },
                Package () { 0x001FFFFF, 2, LNKC, 0 },
                Package () { 0x001FFFFF, 3, LNKD, 0 }
            })
        }
        /* The configuration space that the machine decodes for MCFG. */
        Device (DRAC)
        {
            Name (_HID, EisaId ("PNP0C01"))
            Name (_CRS, ResourceTemplate ()
            {
                Memory32Fixed (ReadWrite, 0xB0000000, 0x10000000)
            })
        }
        /* A link is routed unless bit 7 of its register is set; bits 3:0 are the IRQ. */
        Method (LSTA, 1) { If (Arg0 & 0x80) { Return (0x09) } Return (0x0B) }
        Method (LCRS, 1, Serialized)
        {
            Name (BUF, ResourceTemplate ()
            {
                Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 0 }
            })
            CreateDWordField (BUF, 5, IRQN)
            If (!(Arg0 & 0x80)) { IRQN = Arg0 & 0x0F }
            Return (BUF)
        }
        Device (LNKA)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 0)
            Name (_PRS, ResourceTemplate ()
            {
                Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 5, 10, 11 }
            })
            Method (_STA) { Return (LSTA (\_SB.PCI0.LPC.PRQA)) }
            Method (_DIS) { \_SB.PCI0.LPC.PRQA |= 0x80 }
            Method (_CRS) { Return (LCRS (\_SB.PCI0.LPC.PRQA)) }
            Method (_SRS, 1)
            {
                CreateDWordField (Arg0, 5, IRQN)
                \_SB.PCI0.LPC.PRQA = IRQN
            }
        }
        Device (LNKB)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 1)
            Name (_PRS, ResourceTemplate ()
            {
                Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 5, 10, 11 }
            })
            Method (_STA) { Return (LSTA (\_SB.PCI0.LPC.PRQB)) }
            Method (_DIS) { \_SB.PCI0.LPC.PRQB |= 0x80 }
            Method (_CRS) { Return (LCRS (\_SB.PCI0.LPC.PRQB)) }
            Method (_SRS, 1)
            {
                CreateDWordField (Arg0, 5, IRQN)
                \_SB.PCI0.LPC.PRQB = IRQN
            }
        }
        Device (LNKC)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 2)
            Name (_PRS, ResourceTemplate ()
            {
                Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 5, 10, 11 }
            })
            Method (_STA) { Return (LSTA (\_SB.PCI0.LPC.PRQC)) }
            Method (_DIS) { \_SB.PCI0.LPC.PRQC |= 0x80 }
            Method (_CRS) { Return (LCRS (\_SB.PCI0.LPC.PRQC)) }
            Method (_SRS, 1)
            {
                CreateDWordField (Arg0, 5, IRQN)
                \_SB.PCI0.LPC.PRQC = IRQN
            }
        }
        Device (LNKD)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 3)
            Name (_PRS, ResourceTemplate ()
            {
                Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 5, 10, 11 }
            })
            Method (_STA) { Return (LSTA (\_SB.PCI0.LPC.PRQD)) }
            Method (_DIS) { \_SB.PCI0.LPC.PRQD |= 0x80 }
            Method (_CRS) { Return (LCRS (\_SB.PCI0.LPC.PRQD)) }
            Method (_SRS, 1)
            {
                CreateDWordField (Arg0, 5, IRQN)
                \_SB.PCI0.LPC.PRQD = IRQN
            }
        }
        Device (LNKE)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 4)
            Name (_PRS, ResourceTemplate ()
            {
                Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 5, 10, 11 }
            })
            Method (_STA) { Return (LSTA (\_SB.PCI0.LPC.PRQE)) }
            Method (_DIS) { \_SB.PCI0.LPC.PRQE |= 0x80 }
            Method (_CRS) { Return (LCRS (\_SB.PCI0.LPC.PRQE)) }
            Method (_SRS, 1)
            {
                CreateDWordField (Arg0, 5, IRQN)
                \_SB.PCI0.LPC.PRQE = IRQN
            }
        }
        Device (LNKF)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 5)
            Name (_PRS, ResourceTemplate ()
            {
                Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 5, 10, 11 }
            })
            Method (_STA) { Return (LSTA (\_SB.PCI0.LPC.PRQF)) }
            Method (_DIS) { \_SB.PCI0.LPC.PRQF |= 0x80 }
            Method (_CRS) { Return (LCRS (\_SB.PCI0.LPC.PRQF)) }
            Method (_SRS, 1)
            {
                CreateDWordField (Arg0, 5, IRQN)
                \_SB.PCI0.LPC.PRQF = IRQN
            }
        }
        Device (LNKG)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 6)
            Name (_PRS, ResourceTemplate ()
            {
                Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 5, 10, 11 }
            })
            Method (_STA) { Return (LSTA (\_SB.PCI0.LPC.PRQG)) }
            Method (_DIS) { \_SB.PCI0.LPC.PRQG |= 0x80 }
            Method (_CRS) { Return (LCRS (\_SB.PCI0.LPC.PRQG)) }
            Method (_SRS, 1)
            {
                CreateDWordField (Arg0, 5, IRQN)
                \_SB.PCI0.LPC.PRQG = IRQN
            }
        }
        Device (LNKH)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 7)
            Name (_PRS, ResourceTemplate ()
            {
                Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 5, 10, 11 }
            })
            Method (_STA) { Return (LSTA (\_SB.PCI0.LPC.PRQH)) }
            Method (_DIS) { \_SB.PCI0.LPC.PRQH |= 0x80 }
            Method (_CRS) { Return (LCRS (\_SB.PCI0.LPC.PRQH)) }
            Method (_SRS, 1)
            {
                CreateDWordField (Arg0, 5, IRQN)
                \_SB.PCI0.LPC.PRQH = IRQN
            }
        }
    }
}
