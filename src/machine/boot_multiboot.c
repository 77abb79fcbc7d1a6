/* SPDX-License-Identifier: MIT */
/*
 * Multiboot 1 (Multiboot Specification 0.6.96): ELF32 kernels and the "a.out kludge", modules from
 * -initrd "file[ arguments][,file…]", command line, memory map.
 *
 *   BOOT_MULTIBOOT: [information 120][module list 16 each][memory map 24 each][strings]
 */
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"
#include "machine/boot.h"
#include "machine/elf.h"

#define HEADER_MAGIC          0x1badb002
#define LOADER_MAGIC          0x2badb002
#define SEARCH                8192 /* the header lies within the first 8 KiB */
#define HEADER_FLAG_VIDEO     BIT(2)
#define HEADER_FLAG_ADDRESSES BIT(16)
#define HEADER_FLAGS_KNOWN    (BIT(0) | BIT(1) | HEADER_FLAG_ADDRESSES)
#define HEADER_FLAGS_REQUIRED 0xffff

enum {
    INFO_SIZE = 120,
    MODULE_SIZE = 16,
    MAP_ENTRY_SIZE = 24,
    MODULES_MAX = 32,
    AREA_SIZE = 0x8000, /* all of it */
};

enum info_field {
    INFO_FLAGS = 0,
    INFO_MEM_LOWER = 4,
    INFO_MEM_UPPER = 8,
    INFO_CMDLINE = 16,
    INFO_MODULE_COUNT = 20,
    INFO_MODULE_LIST = 24,
    INFO_MAP_LENGTH = 44,
    INFO_MAP = 48,
    INFO_LOADER_NAME = 64,
};

enum info_flag {
    INFO_HAS_MEMORY = BIT(0),
    INFO_HAS_CMDLINE = BIT(2),
    INFO_HAS_MODULES = BIT(3),
    INFO_HAS_MAP = BIT(6),
    INFO_HAS_LOADER_NAME = BIT(9),
};

/* The information area as it is filled. */
struct area {
    uint8_t bytes[AREA_SIZE];
    unsigned strings; /* next free byte */
};

static void multiboot_entry(struct machine *machine, struct x86_state *state)
{
    boot_set_protected_mode(state, machine->entry_address);
    state->gpr[X86_RAX] = LOADER_MAGIC;
    state->gpr[X86_RBX] = machine->entry_argument;
}

/* Offset of the header, or -1. */
static int64_t find_header(const struct file_data *kernel)
{
    size_t end = MIN(kernel->size, (size_t)SEARCH);

    for (size_t i = 0; i + 12 <= end; i += 4) {
        const uint8_t *h = kernel->data + i;
        if (load_le32(h) == HEADER_MAGIC &&
            load_le32(h) + load_le32(h + 4) + load_le32(h + 8) == 0) {
            return i;
        }
    }
    return -1;
}

/* Adds a string; its guest address, or 0 if the area is full. */
static uint32_t area_string(struct area *area, const char *text)
{
    size_t size = strlen(text) + 1;
    unsigned at = area->strings;

    if (!range_fits(at, size, AREA_SIZE)) {
        return 0;
    }
    memcpy(area->bytes + at, text, size);
    area->strings += size;
    return BOOT_MULTIBOOT + at;
}

/* The a.out kludge: addresses stand in the header. */
static bool load_by_addresses(struct machine *machine, struct file_data *kernel, size_t header,
                              struct error **errp)
{
    const uint8_t *h = kernel->data + header;
    uint64_t header_address, load, load_end, bss_end, entry, offset, size;

    if (!range_fits(header, 32, kernel->size)) {
        error_set(errp, "-kernel '%s': multiboot header at %zu is cut off", machine->kernel,
                  header);
        return false;
    }
    header_address = load_le32(h + 12);
    load = load_le32(h + 16);
    load_end = load_le32(h + 20);
    bss_end = load_le32(h + 24);
    entry = load_le32(h + 28);
    if (header_address < load || header_address - load > header) {
        error_set(errp,
                  "-kernel '%s': multiboot header_addr 0x%" PRIx64
                  " does not fit load_addr 0x%" PRIx64,
                  machine->kernel, header_address, load);
        return false;
    }
    offset = header - (header_address - load);
    size = load_end ? load_end - load : kernel->size - offset;
    if ((load_end && load_end < load) || !range_fits(offset, size, kernel->size)) {
        error_set(errp,
                  "-kernel '%s': multiboot load_end_addr 0x%" PRIx64 " is not within the file",
                  machine->kernel, load_end);
        return false;
    }
    if (bss_end && bss_end < load + size) {
        error_set(errp,
                  "-kernel '%s': multiboot bss_end_addr 0x%" PRIx64
                  " lies before the end of the data",
                  machine->kernel, bss_end);
        return false;
    }
    machine->entry_address = entry;
    return loader_add("multiboot kernel", load, kernel->data + offset, size,
                      bss_end ? bss_end - load : size, errp);
}

static bool load_elf(struct machine *machine, struct file_data *kernel, struct error **errp)
{
    autofree struct elf_image *image = xnew(struct elf_image);

    if (!elf_is_elf(kernel)) {
        error_set(
            errp,
            "-kernel '%s': a multiboot header without addresses (flag bit 16) in a file that is "
            "not ELF",
            machine->kernel);
        return false;
    }
    if (!elf_parse(kernel, image, errp)) {
        error_prepend(errp, "-kernel: ");
        return false;
    }
    if (image->is_64bit) {
        error_set(errp,
                  "-kernel '%s': multiboot 1 loads 32-bit ELF files only; convert it by objcopy -O "
                  "elf32-i386",
                  machine->kernel);
        return false;
    }
    machine->entry_address = image->entry;
    /* Some link at high virtual addresses: then the entry is virtual too. */
    for (unsigned i = 0; i < image->segment_count; i++) {
        const struct elf_segment *s = &image->segment[i];
        if (image->entry >= s->virtual && image->entry - s->virtual < s->memory_size) {
            machine->entry_address = image->entry - s->virtual + s->physical;
            break;
        }
    }
    return elf_load(kernel, image, "multiboot kernel", errp);
}

static bool load_module(struct machine *machine, struct area *area, unsigned index, char *spec,
                        struct error **errp)
{
    uint8_t *entry = area->bytes + INFO_SIZE + index * MODULE_SIZE;
    struct file_data file;
    uint64_t address;
    autofree char *text = xstrdup(spec);
    autofree char *name = NULL;
    uint32_t string = area_string(area, text);
    char *space = strchr(spec, ' ');

    if (space) {
        *space = 0;
    }
    if (!file_data_open(&file, spec, "-initrd module", UINT32_MAX, errp)) {
        return false;
    }
    name = xasprintf("module %s", spec);
    address = loader_find_free(MiB, machine->ram_below_4g, file.size, 4096);
    if (address == UINT64_MAX || !string) {
        error_set(errp, "-initrd module '%s' of %zu KiB does not fit; give the guest more RAM (-m)",
                  spec, file.size / 1024);
        file_data_close(&file);
        return false;
    }
    store_le32(entry, address);
    store_le32(entry + 4, address + file.size);
    store_le32(entry + 8, string);
    if (!loader_add_file(name, address, &file, 0, file.size, errp)) {
        file_data_close(&file);
        return false;
    }
    return true;
}

/* Modules are separated by commas; a comma within one is doubled. */
static bool load_modules(struct machine *machine, struct area *area, unsigned *count,
                         struct error **errp)
{
    autofree char *list = xstrdup(machine->initrd ? machine->initrd : "");
    char *from = list;

    *count = 0;
    while (*from) {
        char *to = from, *at = from;

        while (*at && (*at != ',' || at[1] == ',')) {
            at += *at == ',' ? 1 : 0;
            *to++ = *at++;
        }
        at += *at == ',' ? 1 : 0;
        *to = 0;
        if (*count == MODULES_MAX) {
            error_set(errp, "-initrd: more than %d multiboot modules", MODULES_MAX);
            return false;
        }
        if (!load_module(machine, area, (*count)++, from, errp)) {
            return false;
        }
        from = at;
    }
    return true;
}

bool boot_multiboot(struct machine *machine, struct file_data *kernel, bool *handled,
                    struct error **errp)
{
    int64_t header = find_header(kernel);
    autofree struct area *area = NULL;
    autofree char *cmdline = NULL;
    unsigned modules, map_at,
        flags = INFO_HAS_MEMORY | INFO_HAS_CMDLINE | INFO_HAS_MAP | INFO_HAS_LOADER_NAME;
    uint32_t header_flags, cmdline_address;
    uint8_t *info;

    *handled = header >= 0;
    if (!*handled) {
        return true;
    }
    header_flags = load_le32(kernel->data + header + 4);
    if (header_flags & HEADER_FLAGS_REQUIRED & ~HEADER_FLAGS_KNOWN) {
        error_set(errp, "-kernel '%s' asks for multiboot features 0x%x; ferry has 0x%x%s",
                  machine->kernel, header_flags & HEADER_FLAGS_REQUIRED,
                  HEADER_FLAGS_KNOWN & HEADER_FLAGS_REQUIRED,
                  header_flags & HEADER_FLAG_VIDEO ? " (no video modes)" : "");
        return false;
    }
    if (!(header_flags & HEADER_FLAG_ADDRESSES ? load_by_addresses(machine, kernel, header, errp)
                                               : load_elf(machine, kernel, errp))) {
        return false;
    }

    area = xnew(struct area);
    info = area->bytes;
    map_at = INFO_SIZE + MODULES_MAX * MODULE_SIZE;
    area->strings = map_at + E820_MAX * MAP_ENTRY_SIZE;
    if (!load_modules(machine, area, &modules, errp)) {
        return false;
    }
    cmdline = machine->append ? xasprintf("%s %s", machine->kernel, machine->append)
                              : xstrdup(machine->kernel);
    cmdline_address = area_string(area, cmdline);
    if (!cmdline_address) {
        error_set(errp, "-append: %zu bytes are too many for a multiboot kernel", strlen(cmdline));
        return false;
    }
    store_le32(info + INFO_MEM_LOWER, MIN(machine->ram_below_4g / KiB, 639));
    store_le32(info + INFO_CMDLINE, cmdline_address);
    store_le32(info + INFO_LOADER_NAME, area_string(area, "ferry"));
    store_le32(info + INFO_MODULE_COUNT, modules);
    store_le32(info + INFO_MODULE_LIST, modules ? BOOT_MULTIBOOT + INFO_SIZE : 0);
    store_le32(info + INFO_MAP, BOOT_MULTIBOOT + map_at);
    store_le32(info + INFO_MAP_LENGTH, machine->e820_count * MAP_ENTRY_SIZE);
    for (unsigned i = 0; i < machine->e820_count; i++) {
        const struct e820_entry *e = &machine->e820[i];
        uint8_t *entry = info + map_at + i * MAP_ENTRY_SIZE;

        store_le32(entry, MAP_ENTRY_SIZE - 4);
        store_le64(entry + 4, e->address);
        store_le64(entry + 12, e->size);
        store_le32(entry + 20, e->type);
        if (e->type == E820_RAM && e->address == MiB) {
            store_le32(info + INFO_MEM_UPPER, e->size / KiB);
        }
    }
    store_le32(info + INFO_FLAGS, flags | (modules ? INFO_HAS_MODULES : 0));
    machine->entry_argument = BOOT_MULTIBOOT;
    machine->set_entry = multiboot_entry;
    return loader_add("multiboot information", BOOT_MULTIBOOT, area->bytes, AREA_SIZE, AREA_SIZE,
                      errp);
}
