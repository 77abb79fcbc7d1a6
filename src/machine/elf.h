/* SPDX-License-Identifier: MIT */
/*
 * ELF executables (System V ABI, gABI chapter 5) as kernels: ELF32 for i386, ELF64 for x86-64.
 */
#ifndef FERRY_MACHINE_ELF_H
#define FERRY_MACHINE_ELF_H

#include "machine/loader.h"

#define ELF_SEGMENTS_MAX 64

struct elf_segment {
    uint64_t file_offset, file_size; /* within the file */
    uint64_t physical, virtual, memory_size;
};

struct elf_image {
    bool is_64bit;
    uint64_t entry;         /* as in the header (virtual for some kernels) */
    unsigned segment_count; /* PT_LOAD only */
    struct elf_segment segment[ELF_SEGMENTS_MAX];
    /* XEN_ELFNOTE_PHYS32_ENTRY */
    bool has_pvh;
    uint32_t pvh_entry;
};

bool elf_is_elf(const struct file_data *file);
/* Every offset and length is checked against the file. */
bool elf_parse(const struct file_data *file, struct elf_image *image, struct error **errp);
/* Adds each PT_LOAD segment as a blob at its physical address. */
bool elf_load(const struct file_data *file, const struct elf_image *image, const char *name,
              struct error **errp);

#endif
