/* SPDX-License-Identifier: MIT */
#include "machine/elf.h"

#include <elf.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"

#define XEN_ELFNOTE_PHYS32_ENTRY 18
#define PHDR_MAX                 1024

bool elf_is_elf(const struct file_data *file)
{
    return file->size >= EI_NIDENT && !memcmp(file->data, ELFMAG, SELFMAG);
}

/* The program header of either class, widened. */
static Elf64_Phdr program_header(const struct elf_image *image, const uint8_t *p)
{
    Elf64_Phdr wide;
    Elf32_Phdr narrow;

    if (image->is_64bit) {
        memcpy(&wide, p, sizeof(wide));
        return wide;
    }
    memcpy(&narrow, p, sizeof(narrow));
    return (Elf64_Phdr){
        .p_type = narrow.p_type,
        .p_offset = narrow.p_offset,
        .p_vaddr = narrow.p_vaddr,
        .p_paddr = narrow.p_paddr,
        .p_filesz = narrow.p_filesz,
        .p_memsz = narrow.p_memsz,
    };
}

/* Looks for the PVH entry among the notes of one PT_NOTE segment. */
static void parse_notes(struct elf_image *image, const uint8_t *p, uint64_t size)
{
    uint64_t at = 0;

    while (range_fits(at, 12, size)) {
        uint64_t name_size = load_le32(p + at), desc_size = load_le32(p + at + 4);
        uint32_t type = load_le32(p + at + 8);
        uint64_t name = at + 12, desc = name + align_up(name_size, 4);

        if (!range_fits(name, name_size, size) || !range_fits(desc, desc_size, size)) {
            return;
        }
        if (type == XEN_ELFNOTE_PHYS32_ENTRY && name_size == 4 && !memcmp(p + name, "Xen", 4) &&
            desc_size >= 4) {
            image->has_pvh = true;
            image->pvh_entry = load_le32(p + desc);
        }
        at = desc + align_up(desc_size, 4);
    }
}

bool elf_parse(const struct file_data *file, struct elf_image *image, struct error **errp)
{
    const uint8_t *d = file->data;
    uint64_t table, entry_size, count;

    *image = (struct elf_image){.is_64bit = d[EI_CLASS] == ELFCLASS64};
    if (file->size < (image->is_64bit ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr))) {
        error_set(errp, "'%s': ELF header is cut off at %zu bytes", file->path, file->size);
        return false;
    }
    if (image->is_64bit) {
        Elf64_Ehdr h;
        memcpy(&h, d, sizeof(h));
        image->entry = h.e_entry;
        table = h.e_phoff;
        entry_size = h.e_phentsize;
        count = h.e_phnum;
        if (h.e_machine != EM_X86_64 || d[EI_DATA] != ELFDATA2LSB) {
            error_set(errp, "'%s' is an ELF file for machine %u, not for x86", file->path,
                      h.e_machine);
            return false;
        }
    } else {
        Elf32_Ehdr h;
        memcpy(&h, d, sizeof(h));
        image->entry = h.e_entry;
        table = h.e_phoff;
        entry_size = h.e_phentsize;
        count = h.e_phnum;
        if ((h.e_machine != EM_386 && h.e_machine != EM_X86_64) || d[EI_DATA] != ELFDATA2LSB) {
            error_set(errp, "'%s' is an ELF file for machine %u, not for x86", file->path,
                      h.e_machine);
            return false;
        }
    }
    if (count == 0 || count > PHDR_MAX ||
        entry_size < (image->is_64bit ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)) ||
        !range_fits(table, count * entry_size, file->size)) {
        error_set(errp,
                  "'%s': ELF program headers (%" PRIu64 " at 0x%" PRIx64 ") are not in the file",
                  file->path, count, table);
        return false;
    }
    for (uint64_t i = 0; i < count; i++) {
        Elf64_Phdr ph = program_header(image, d + table + i * entry_size);
        struct elf_segment *s = &image->segment[image->segment_count];

        if (ph.p_type == PT_NOTE && range_fits(ph.p_offset, ph.p_filesz, file->size)) {
            parse_notes(image, d + ph.p_offset, ph.p_filesz);
        }
        if (ph.p_type != PT_LOAD || ph.p_memsz == 0) {
            continue;
        }
        if (!range_fits(ph.p_offset, ph.p_filesz, file->size) || ph.p_filesz > ph.p_memsz) {
            error_set(errp,
                      "'%s': ELF segment %" PRIu64 " (0x%" PRIx64 " bytes at 0x%" PRIx64
                      ") is not in the file",
                      file->path, i, (uint64_t)ph.p_filesz, (uint64_t)ph.p_offset);
            return false;
        }
        if (image->segment_count == ELF_SEGMENTS_MAX) {
            error_set(errp, "'%s' has more than %d ELF segments to load", file->path,
                      ELF_SEGMENTS_MAX);
            return false;
        }
        *s = (struct elf_segment){
            .file_offset = ph.p_offset,
            .file_size = ph.p_filesz,
            .physical = ph.p_paddr,
            .virtual = ph.p_vaddr,
            .memory_size = ph.p_memsz,
        };
        image->segment_count++;
    }
    if (image->segment_count == 0) {
        error_set(errp, "'%s' is an ELF file with nothing to load", file->path);
        return false;
    }
    return true;
}

bool elf_load(const struct file_data *file, const struct elf_image *image, const char *name,
              struct error **errp)
{
    for (unsigned i = 0; i < image->segment_count; i++) {
        const struct elf_segment *s = &image->segment[i];
        autofree char *blob = xasprintf("%s (segment %u)", name, i);

        if (!loader_add(blob, s->physical, file->data + s->file_offset, s->file_size,
                        s->memory_size, errp)) {
            return false;
        }
    }
    return true;
}
