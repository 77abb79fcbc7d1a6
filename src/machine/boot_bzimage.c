/* SPDX-License-Identifier: MIT */
/*
 * Linux bzImage by the 64-bit boot protocol (Linux Documentation/x86/boot.rst, "64-bit BOOT
 * PROTOCOL"; the zero page in zero-page.rst).
 *
 *   file:  [setup sectors: boot sector, setup header, real-mode code][protected-mode kernel]
 *   guest: boot_params at BOOT_PARAMS, kernel at pref_address, entry at kernel + 0x200
 */
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"
#include "machine/boot.h"

/* Offsets within the file and within boot_params. */
enum {
    OFF_ACPI_RSDP = 0x070,
    OFF_EXT_RAMDISK_IMAGE = 0x0c0,
    OFF_EXT_RAMDISK_SIZE = 0x0c4,
    OFF_E820_ENTRIES = 0x1e8,
    OFF_SETUP_SECTS = 0x1f1,
    OFF_VID_MODE = 0x1fa,
    OFF_BOOT_FLAG = 0x1fe,
    OFF_JUMP_LENGTH = 0x201,
    OFF_MAGIC = 0x202,
    OFF_VERSION = 0x206,
    OFF_LOADER = 0x210,
    OFF_LOADFLAGS = 0x211,
    OFF_CODE32_START = 0x214,
    OFF_RAMDISK_IMAGE = 0x218,
    OFF_RAMDISK_SIZE = 0x21c,
    OFF_CMD_LINE_PTR = 0x228,
    OFF_INITRD_MAX = 0x22c,
    OFF_KERNEL_ALIGNMENT = 0x230,
    OFF_RELOCATABLE = 0x234,
    OFF_XLOADFLAGS = 0x236,
    OFF_CMDLINE_SIZE = 0x238,
    OFF_PREF_ADDRESS = 0x258,
    OFF_INIT_SIZE = 0x260,
    OFF_E820_TABLE = 0x2d0,
    HEADER_END = 0x268,
    SECTOR = 512,
    E820_ENTRY_SIZE = 20,
};

#define MAGIC_HDRS       0x53726448 /* "HdrS" */
#define LOADER_UNDEFINED 0xff
#define XLF_KERNEL_64    BIT(0)
#define XLF_ABOVE_4G     BIT(1)
#define ENTRY_64         0x200
#define VID_MODE_NORMAL  0xffff

static void bzimage_entry(struct machine *machine, struct x86_state *state)
{
    boot_set_long_mode(state, machine->entry_address);
    state->gpr[X86_RSI] = machine->entry_argument;
}

static bool check_header(const struct machine *machine, const struct file_data *kernel,
                         uint64_t *kernel_offset, struct error **errp)
{
    const uint8_t *h = kernel->data;
    uint16_t version = load_le16(h + OFF_VERSION);
    unsigned sectors = h[OFF_SETUP_SECTS] ? h[OFF_SETUP_SECTS] : 4;

    if (version < 0x20c) {
        error_set(
            errp,
            "-kernel '%s' speaks Linux boot protocol %u.%02u; ferry needs 2.12 or later (Linux "
            "3.8)",
            machine->kernel, version >> 8, version & 0xff);
        return false;
    }
    if (!(load_le16(h + OFF_XLOADFLAGS) & XLF_KERNEL_64)) {
        error_set(errp,
                  "-kernel '%s' is a 32-bit kernel without the 64-bit entry point; build it for "
                  "x86-64, or give its ELF vmlinux with CONFIG_PVH",
                  machine->kernel);
        return false;
    }
    *kernel_offset = (uint64_t)(sectors + 1) * SECTOR;
    if (*kernel_offset >= kernel->size) {
        error_set(errp, "-kernel '%s' is cut off: %zu bytes, its kernel begins at %" PRIu64,
                  machine->kernel, kernel->size, *kernel_offset);
        return false;
    }
    return true;
}

/* Where the kernel goes, with init_size bytes of RAM to unpack itself. */
static bool place_kernel(const struct machine *machine, const uint8_t *h, uint64_t size,
                         uint64_t *address, struct error **errp)
{
    uint64_t need = MAX(load_le32(h + OFF_INIT_SIZE), size);

    *address = h[OFF_RELOCATABLE] ? load_le64(h + OFF_PREF_ADDRESS) : MiB;
    if (*address < MiB || *address >= machine->ram_below_4g ||
        need > machine->ram_below_4g - *address) {
        error_set(errp,
                  "-kernel '%s' needs %" PRIu64 " MiB of RAM from 0x%" PRIx64
                  " on; the guest has %" PRIu64 " MiB below 4 GiB: give it more (-m)",
                  machine->kernel, (need + MiB - 1) / MiB, *address, machine->ram_below_4g / MiB);
        return false;
    }
    return true;
}

bool boot_bzimage(struct machine *machine, struct file_data *kernel, bool *handled,
                  struct error **errp)
{
    const uint8_t *h = kernel->data;
    autofree uint8_t *params = NULL;
    uint64_t offset, size, address, initrd, initrd_size, initrd_max, cmdline_max;
    size_t header_size;

    *handled = kernel->size >= HEADER_END && load_le16(h + OFF_BOOT_FLAG) == 0xaa55 &&
               load_le32(h + OFF_MAGIC) == MAGIC_HDRS;
    if (!*handled) {
        return true;
    }
    if (!check_header(machine, kernel, &offset, errp)) {
        return false;
    }
    size = kernel->size - offset;
    if (!place_kernel(machine, h, size, &address, errp)) {
        return false;
    }

    params = xcalloc(1, 4096);
    header_size = OFF_MAGIC + h[OFF_JUMP_LENGTH] - OFF_SETUP_SECTS;
    header_size = MIN(header_size, kernel->size - OFF_SETUP_SECTS);
    memcpy(params + OFF_SETUP_SECTS, h + OFF_SETUP_SECTS,
           MIN(header_size, (size_t)(OFF_E820_TABLE - OFF_SETUP_SECTS)));
    cmdline_max = load_le32(h + OFF_CMDLINE_SIZE);
    initrd_max = (uint64_t)load_le32(h + OFF_INITRD_MAX) + 1;
    if (load_le16(h + OFF_XLOADFLAGS) & XLF_ABOVE_4G) {
        initrd_max = MAX(initrd_max, 4 * GiB);
    }

    if (!loader_add("kernel", address, h + offset, size, size, errp) ||
        !boot_load_cmdline(machine, cmdline_max ? cmdline_max : 255, errp) ||
        !boot_load_initrd(machine, initrd_max, &initrd, &initrd_size, errp)) {
        return false;
    }
    if (initrd_size && initrd < address + MAX(load_le32(h + OFF_INIT_SIZE), size)) {
        error_set(errp,
                  "initrd '%s' of %" PRIu64 " MiB does not fit beside kernel '%s'; give the guest "
                  "more RAM (-m)",
                  machine->initrd, initrd_size / MiB, machine->kernel);
        return false;
    }

    params[OFF_LOADER] = LOADER_UNDEFINED;
    store_le16(params + OFF_VID_MODE, VID_MODE_NORMAL);
    store_le32(params + OFF_CODE32_START, address);
    store_le32(params + OFF_CMD_LINE_PTR, BOOT_CMDLINE);
    store_le32(params + OFF_RAMDISK_IMAGE, initrd);
    store_le32(params + OFF_RAMDISK_SIZE, initrd_size);
    store_le32(params + OFF_EXT_RAMDISK_IMAGE, initrd >> 32);
    store_le32(params + OFF_EXT_RAMDISK_SIZE, initrd_size >> 32);
    store_le64(params + OFF_ACPI_RSDP, machine->acpi_rsdp);
    params[OFF_E820_ENTRIES] = machine->e820_count;
    for (unsigned i = 0; i < machine->e820_count; i++) {
        uint8_t *e = params + OFF_E820_TABLE + i * E820_ENTRY_SIZE;
        store_le64(e, machine->e820[i].address);
        store_le64(e + 8, machine->e820[i].size);
        store_le32(e + 16, machine->e820[i].type);
    }
    machine->entry_address = address + ENTRY_64;
    machine->entry_argument = BOOT_PARAMS;
    machine->set_entry = bzimage_entry;
    return loader_add("Linux boot parameters", BOOT_PARAMS, params, 4096, 4096, errp) &&
           boot_load_page_tables(errp);
}
