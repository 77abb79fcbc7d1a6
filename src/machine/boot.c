/* SPDX-License-Identifier: MIT */
#include "machine/boot.h"

#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"

/* Control register and EFER bits, SDM 2.5 and 2.2.1. */
#define CR0_PE   BIT64(0)
#define CR0_ET   BIT64(4)
#define CR0_NE   BIT64(5)
#define CR0_PG   BIT64(31)
#define CR4_PAE  BIT64(5)
#define EFER_LME BIT64(8)
#define EFER_LMA BIT64(10)

/* Page table entry bits, SDM 4.5. */
#define PTE_PRESENT BIT64(0)
#define PTE_WRITE   BIT64(1)
#define PTE_LARGE   BIT64(7)

/*
 * Selectors 0x10 (code) and 0x18 (data) are what the Linux boot protocol asks for; 0x08 is the same
 * code segment once more, for kernels that reload it by habit.
 */
#define SELECTOR_CODE 0x10
#define SELECTOR_DATA 0x18
#define SELECTOR_TSS  0x20

#define ATTRIBUTES_CODE32 0xc09b /* present, execute/read, accessed, 32-bit, 4 KiB units */
#define ATTRIBUTES_CODE64 0xa09b
#define ATTRIBUTES_DATA   0xc093
#define ATTRIBUTES_TSS    0x008b /* busy 32-bit or 64-bit TSS */

static uint64_t descriptor(uint32_t attributes)
{
    /* Base 0, limit 0xfffff in units of the G bit. */
    return UINT64_C(0xffff) | (uint64_t)(attributes & 0xff) << 40 | UINT64_C(0xf) << 48 |
           (uint64_t)(attributes >> 12) << 52;
}

bool boot_load_gdt(struct error **errp)
{
    uint8_t gdt[5 * 8] = {0};

    store_le64(gdt + 0x08, descriptor(ATTRIBUTES_CODE32));
    store_le64(gdt + 0x10, descriptor(ATTRIBUTES_CODE64));
    store_le64(gdt + 0x18, descriptor(ATTRIBUTES_DATA));
    store_le64(gdt + 0x20, UINT64_C(0x00008b0000000067));
    return loader_add("boot GDT", BOOT_GDT, gdt, sizeof(gdt), sizeof(gdt), errp);
}

bool boot_load_page_tables(struct error **errp)
{
    enum { PAGES = 6, ENTRIES = 512 };
    autofree uint8_t *tables = xcalloc(PAGES, 4096);

    store_le64(tables, (BOOT_PAGE_TABLES + 0x1000) | PTE_PRESENT | PTE_WRITE);
    for (unsigned i = 0; i < 4; i++) {
        store_le64(tables + 4096 + i * 8,
                   (BOOT_PAGE_TABLES + 0x2000 + i * 0x1000) | PTE_PRESENT | PTE_WRITE);
    }
    for (unsigned i = 0; i < 4 * ENTRIES; i++) {
        store_le64(tables + 2 * 4096 + i * 8,
                   (uint64_t)i * 2 * MiB | PTE_PRESENT | PTE_WRITE | PTE_LARGE);
    }
    return loader_add("boot page tables", BOOT_PAGE_TABLES, tables, PAGES * 4096, PAGES * 4096,
                      errp);
}

static void set_flat_segments(struct x86_state *state, uint32_t code_attributes)
{
    for (unsigned i = X86_ES; i <= X86_GS; i++) {
        state->segment[i] = (struct x86_segment){
            .limit = UINT32_MAX,
            .attributes = ATTRIBUTES_DATA,
            .selector = SELECTOR_DATA,
        };
    }
    state->segment[X86_CS] = (struct x86_segment){
        .limit = UINT32_MAX,
        .attributes = code_attributes,
        .selector = SELECTOR_CODE,
    };
    state->segment[X86_TR] = (struct x86_segment){
        .limit = 0x67,
        .attributes = ATTRIBUTES_TSS,
        .selector = SELECTOR_TSS,
    };
    state->segment[X86_LDTR] = (struct x86_segment){.attributes = X86_SEGMENT_UNUSABLE};
    state->gdt = (struct x86_table){.base = BOOT_GDT, .limit = 5 * 8 - 1};
    state->idt = (struct x86_table){.base = 0, .limit = 0};
    state->rflags = 2;
}

void boot_set_protected_mode(struct x86_state *state, uint64_t rip)
{
    set_flat_segments(state, ATTRIBUTES_CODE32);
    state->segment[X86_CS].selector = 0x08;
    state->cr0 = CR0_PE | CR0_ET;
    state->cr4 = 0;
    state->efer = 0;
    state->rip = rip;
}

void boot_set_long_mode(struct x86_state *state, uint64_t rip)
{
    set_flat_segments(state, ATTRIBUTES_CODE64);
    state->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
    state->cr3 = BOOT_PAGE_TABLES;
    state->cr4 = CR4_PAE;
    state->efer = EFER_LME | EFER_LMA;
    state->rip = rip;
    state->gpr[X86_RSP] = BOOT_STACK;
}

bool boot_load_cmdline(struct machine *machine, uint64_t max, struct error **errp)
{
    const char *text = machine->append ? machine->append : "";
    size_t size = strlen(text) + 1;

    max = MIN(max, BOOT_CMDLINE_MAX - 1);
    if (size - 1 > max) {
        error_set(errp, "-append: the command line has %zu bytes; '%s' takes at most %" PRIu64,
                  size - 1, machine->kernel, max);
        return false;
    }
    return loader_add("kernel command line", BOOT_CMDLINE, text, size, size, errp);
}

bool boot_load_initrd(struct machine *machine, uint64_t top, uint64_t *address, uint64_t *size,
                      struct error **errp)
{
    struct file_data file;

    *address = *size = 0;
    if (!machine->initrd) {
        return true;
    }
    if (!file_data_open(&file, machine->initrd, "initrd", BOOT_FILE_MAX, errp)) {
        return false;
    }
    *size = file.size;
    /* As high as it may be, so that a kernel that decompresses itself does not reach it. */
    for (unsigned i = 0; i < machine->e820_count; i++) {
        const struct e820_entry *e = &machine->e820[i];
        if (e->type == E820_RAM && e->address >= MiB && e->address < 4 * GiB) {
            top = MIN(top, e->address + e->size);
            break;
        }
    }
    if (top < *size + 16 * MiB) {
        error_set(errp,
                  "initrd '%s' of %" PRIu64 " MiB does not fit below 0x%" PRIx64
                  "; give the guest more RAM (-m)",
                  machine->initrd, *size / MiB, top);
        file_data_close(&file);
        return false;
    }
    *address = align_down(top - *size, 4096);
    if (!loader_add_file("initrd", *address, &file, 0, file.size, errp)) {
        file_data_close(&file);
        return false;
    }
    return true;
}

bool boot_load(struct machine *machine, struct error **errp)
{
    static bool (*const kinds[])(struct machine *, struct file_data *, bool *, struct error **) = {
        boot_multiboot,
        boot_pvh,
        boot_bzimage,
    };
    struct file_data kernel;
    bool ok = true, handled = false;

    if (!file_data_open(&kernel, machine->kernel, "kernel", BOOT_FILE_MAX, errp)) {
        return false;
    }
    for (size_t i = 0; ok && !handled && i < ARRAY_SIZE(kinds); i++) {
        ok = kinds[i](machine, &kernel, &handled, errp);
    }
    if (ok && !handled) {
        error_set(errp,
                  "-kernel '%s' is no kernel that ferry can boot: not a Linux bzImage, an ELF file "
                  "with a PVH note, or a multiboot image",
                  machine->kernel);
        ok = false;
    }
    file_data_close(&kernel);
    return ok && boot_load_gdt(errp);
}
