/* SPDX-License-Identifier: MIT */
#include "guest.h"

#define COM1               0x3f8
#define DEBUG_EXIT         0xf4
#define START_INFO_CMDLINE 24

void print(const char *text)
{
    for (; *text; text++) {
        while (!(inb(COM1 + 5) & 0x20)) {
        }
        outb(COM1, *text);
    }
}

void print_number(uint64_t v)
{
    char text[24];
    unsigned i = sizeof(text);

    text[--i] = 0;
    do {
        text[--i] = '0' + v % 10;
        v /= 10;
    } while (v);
    print(text + i);
}

void finish(unsigned code)
{
    outb(DEBUG_EXIT, code);
    for (;;) {
        halt();
    }
}

void fail(const char *why)
{
    print("FAIL ");
    print(why);
    print("\n");
    finish(1);
}

uint64_t option(const char *name, uint64_t fallback)
{
    const char *p = *(const char **)(start_info + START_INFO_CMDLINE);

    while (p && *p) {
        const char *n = name;

        while (*n && *p == *n) {
            p++;
            n++;
        }
        if (!*n && *p == '=') {
            uint64_t v = 0;
            for (p++; *p >= '0' && *p <= '9'; p++) {
                v = v * 10 + (*p - '0');
            }
            return v;
        }
        while (*p && *p != ' ') {
            p++;
        }
        while (*p == ' ') {
            p++;
        }
    }
    return fallback;
}

/* Identity-maps the gigabyte that holds address, for BARs above 4 GiB. */
void map_gigabyte(uint64_t address)
{
    static uint64_t tables[8][512] __attribute__((aligned(4096)));
    static uint64_t upper[2][512] __attribute__((aligned(4096)));
    static unsigned used, upper_used;
    uint64_t gigabyte = address >> 30;
    uint64_t *entries = pdpt;

    if (gigabyte >= 512) {
        uint64_t *top = &pml4[gigabyte >> 9];
        if (!*top) {
            if (upper_used == 2) {
                fail("too many BARs above 512 GiB");
            }
            *top = (uint64_t)upper[upper_used++] | 7;
        }
        entries = (uint64_t *)(*top & ~0xfffull);
    }
    if (entries[gigabyte & 511] & 1) {
        return;
    }
    if (used == 8) {
        fail("too many BARs above 4 GiB");
    }
    for (unsigned i = 0; i < 512; i++) {
        tables[used][i] = (gigabyte << 30) + ((uint64_t)i << 21) + 0x87;
    }
    entries[gigabyte & 511] = (uint64_t)tables[used++] | 7;
}

/* A gate of type interrupt, DPL 0. */
void set_vector(unsigned vector, void (*entry)(void))
{
    uint64_t address = (uint64_t)entry;
    uint64_t *gate = (uint64_t *)(idt + vector * 16);

    gate[0] = (address & 0xffff) | 0x08 << 16 | 0x8e00ull << 32 | (address >> 16 & 0xffff) << 48;
    gate[1] = address >> 32;
}

uint32_t pci_read(unsigned devfn, unsigned offset)
{
    outl(0xcf8, 0x80000000 | devfn << 8 | (offset & 0xfc));
    return inl(0xcfc) >> (offset & 3) * 8;
}

void pci_write(unsigned devfn, unsigned offset, uint32_t v)
{
    outl(0xcf8, 0x80000000 | devfn << 8 | (offset & 0xfc));
    outl(0xcfc, v);
}

uint64_t pci_bar(unsigned devfn, unsigned index)
{
    uint32_t low = pci_read(devfn, 0x10 + index * 4);
    uint64_t address = low & ~15u;

    if ((low & 6) == 4) {
        address |= (uint64_t)pci_read(devfn, 0x14 + index * 4) << 32;
    }
    map_gigabyte(address);
    return address;
}
