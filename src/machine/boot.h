/* SPDX-License-Identifier: MIT */
/*
 * Direct boot: -kernel without firmware. Recognised by content, in this order: multiboot 1, ELF
 * with a PVH note, Linux bzImage.
 *
 *   kernel      entry                                    argument
 *   bzImage     64-bit, code32_start + 0x200, paging on  RSI: boot_params
 *   PVH         32-bit protected mode, paging off        EBX: hvm_start_info
 *   multiboot   32-bit protected mode, paging off        EAX: magic, EBX: information
 */
#ifndef FERRY_MACHINE_BOOT_H
#define FERRY_MACHINE_BOOT_H

#include "machine/loader.h"
#include "machine/machine.h"

/* Low memory that direct boot uses, below the EBDA. */
#define BOOT_GDT         0x500
#define BOOT_START_INFO  0x6000 /* PVH start info, memory map, module list */
#define BOOT_PARAMS      0x7000 /* Linux boot_params, 4 KiB */
#define BOOT_STACK       0x8ff0
#define BOOT_PAGE_TABLES 0x9000 /* PML4, PDPT, four page directories */
#define BOOT_CMDLINE     0x20000
#define BOOT_CMDLINE_MAX 0x10000
#define BOOT_MULTIBOOT   0x10000 /* multiboot information, map, modules, strings */

#define BOOT_FILE_MAX (UINT64_C(4) << 30)

/* Loads machine->kernel and sets the entry. */
bool boot_load(struct machine *machine, struct error **errp);

/* Each: true and *handled false if the file is of another kind. */
bool boot_multiboot(struct machine *machine, struct file_data *kernel, bool *handled,
                    struct error **errp);
bool boot_pvh(struct machine *machine, struct file_data *kernel, bool *handled,
              struct error **errp);
bool boot_bzimage(struct machine *machine, struct file_data *kernel, bool *handled,
                  struct error **errp);

/* Command line and initrd, as bzImage and PVH need them; *size 0 if there is none. */
bool boot_load_cmdline(struct machine *machine, uint64_t max, struct error **errp);
bool boot_load_initrd(struct machine *machine, uint64_t top, uint64_t *address, uint64_t *size,
                      struct error **errp);

/* Flat 32-bit protected mode, paging off, interrupts off. */
void boot_set_protected_mode(struct x86_state *state, uint64_t rip);
/* 64-bit mode with the low 4 GiB identity-mapped by BOOT_PAGE_TABLES. */
void boot_set_long_mode(struct x86_state *state, uint64_t rip);
bool boot_load_gdt(struct error **errp);
bool boot_load_page_tables(struct error **errp);

#endif
