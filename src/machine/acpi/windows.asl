/* SPDX-License-Identifier: MIT */
/*
 * Resources of the PCI root: the windows that the machine chose at run time. The names are defined
 * in the SSDT that src/machine/acpi_tables.c writes.
 */
        External (\W32B, IntObj) /* first byte of the 32-bit memory window */
        External (\W32L, IntObj) /* last byte */
        External (\W64B, IntObj) /* the 64-bit window */
        External (\W64L, IntObj)

        Name (RES, ResourceTemplate ()
        {
            WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,
                0, 0, 0xFF, 0, 0x100)
            IO (Decode16, 0x0CF8, 0x0CF8, 1, 8)
            WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
                0, 0x0000, 0x0CF7, 0, 0x0CF8)
            WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
                0, 0x0D00, 0xFFFF, 0, 0xF300)
            DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite,
                0, 0x000A0000, 0x000BFFFF, 0, 0x00020000)
            DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                0, 0xE0000000, 0xFEBFFFFF, 0, 0x1EC00000, , , PW32)
            QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite,
                0, 0x8000000000, 0x80FFFFFFFF, 0, 0x100000000, , , PW64)
        })
        Method (_CRS, 0, Serialized)
        {
            CreateDWordField (RES, ^PW32._MIN, M32B)
            CreateDWordField (RES, ^PW32._MAX, M32L)
            CreateDWordField (RES, ^PW32._LEN, M32S)
            CreateQWordField (RES, ^PW64._MIN, M64B)
            CreateQWordField (RES, ^PW64._MAX, M64L)
            CreateQWordField (RES, ^PW64._LEN, M64S)
            M32B = \W32B
            M32L = \W32L
            M32S = \W32L - \W32B + 1
            M64B = \W64B
            M64L = \W64L
            M64S = \W64L - \W64B + 1
            Return (RES)
        }
