/* SPDX-License-Identifier: MIT */
/*
 * PVH direct boot: an ELF kernel whose Xen note gives a 32-bit entry point; EBX points to
 * hvm_start_info version 1 (Xen public/arch-x86/hvm/start_info.h).
 *
 *   BOOT_START_INFO: [start info 56][module list 32 per module][memory map 24 per range]
 */
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"
#include "machine/boot.h"
#include "machine/elf.h"

#define START_INFO_MAGIC 0x336ec578

enum {
    INFO_SIZE = 56,
    MODULE_SIZE = 32,
    MAP_ENTRY_SIZE = 24,
    /* offsets within the start info */
    INFO_MAGIC = 0,
    INFO_VERSION = 4,
    INFO_MODULES = 12,
    INFO_MODULE_LIST = 16,
    INFO_CMDLINE = 24,
    INFO_RSDP = 32,
    INFO_MAP = 40,
    INFO_MAP_COUNT = 48,
};

static void pvh_entry(struct machine *machine, struct x86_state *state)
{
    boot_set_protected_mode(state, machine->entry_address);
    state->gpr[X86_RBX] = machine->entry_argument;
}

bool boot_pvh(struct machine *machine, struct file_data *kernel, bool *handled, struct error **errp)
{
    uint8_t info[INFO_SIZE + MODULE_SIZE + E820_MAX * MAP_ENTRY_SIZE] = {0};
    autofree struct elf_image *image = NULL;
    uint64_t initrd, initrd_size;
    unsigned map_at = INFO_SIZE + MODULE_SIZE;
    unsigned size = map_at + machine->e820_count * MAP_ENTRY_SIZE;

    *handled = elf_is_elf(kernel);
    if (!*handled) {
        return true;
    }
    image = xnew(struct elf_image);
    if (!elf_parse(kernel, image, errp)) {
        error_prepend(errp, "-kernel: ");
        return false;
    }
    if (!image->has_pvh) {
        error_set(
            errp,
            "-kernel '%s' is an ELF file without a PVH entry note; build Linux with CONFIG_PVH, "
            "or give its bzImage",
            machine->kernel);
        return false;
    }
    if (!elf_load(kernel, image, "kernel", errp) ||
        !boot_load_cmdline(machine, BOOT_CMDLINE_MAX, errp) ||
        !boot_load_initrd(machine, 4 * GiB, &initrd, &initrd_size, errp)) {
        return false;
    }

    store_le32(info + INFO_MAGIC, START_INFO_MAGIC);
    store_le32(info + INFO_VERSION, 1);
    if (initrd_size) {
        store_le32(info + INFO_MODULES, 1);
        store_le64(info + INFO_MODULE_LIST, BOOT_START_INFO + INFO_SIZE);
        store_le64(info + INFO_SIZE, initrd);
        store_le64(info + INFO_SIZE + 8, initrd_size);
    }
    store_le64(info + INFO_CMDLINE, BOOT_CMDLINE);
    store_le64(info + INFO_RSDP, machine->acpi_rsdp);
    store_le64(info + INFO_MAP, BOOT_START_INFO + map_at);
    store_le32(info + INFO_MAP_COUNT, machine->e820_count);
    for (unsigned i = 0; i < machine->e820_count; i++) {
        uint8_t *e = info + map_at + i * MAP_ENTRY_SIZE;
        store_le64(e, machine->e820[i].address);
        store_le64(e + 8, machine->e820[i].size);
        store_le32(e + 16, machine->e820[i].type);
    }
    machine->entry_address = image->pvh_entry;
    machine->entry_argument = BOOT_START_INFO;
    machine->set_entry = pvh_entry;
    return loader_add("PVH start info", BOOT_START_INFO, info, size, size, errp);
}
