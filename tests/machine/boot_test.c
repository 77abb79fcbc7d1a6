/* SPDX-License-Identifier: MIT */
/*
 * Direct boot: kernels made here by hand, good and damaged, loaded into a machine that has RAM and
 * nothing else.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"
#include "machine/acpi_tables.h"
#include "machine/boot.h"
#include "machine/pc.h"
#include "mem/address_space.h"
#include "mem/machine_lock.h"

#define RAM_SIZE (64 * MiB)

struct fixture {
    struct machine *machine;
    struct mem_region ram;
    char kernel[32], initrd[32];
};

static int setup(void **state)
{
    struct fixture *f = xnew(struct fixture);

    f->machine = machine_new(&q35_machine_type);
    f->machine->ram_below_4g = RAM_SIZE;
    assert_true(mem_region_init_ram(&f->ram, "ram", RAM_SIZE, false, NULL));
    machine_lock();
    mem_region_add(mem_root(), 0, &f->ram);
    machine_unlock();
    machine_build_e820(f->machine);
    strcpy(f->kernel, "/tmp/ferry-kernel-XXXXXX");
    strcpy(f->initrd, "/tmp/ferry-initrd-XXXXXX");
    close(mkstemp(f->kernel));
    close(mkstemp(f->initrd));
    f->machine->kernel = xstrdup(f->kernel);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    unlink(f->kernel);
    unlink(f->initrd);
    machine_free(f->machine);
    machine_lock();
    mem_region_remove(mem_root(), &f->ram);
    machine_unlock();
    mem_region_destroy(&f->ram);
    free(f);
    return 0;
}

static void write_file(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    fclose(file);
}

static void give_initrd(struct fixture *f, size_t size)
{
    autofree uint8_t *data = xmalloc(size);

    memset(data, 0xa5, size);
    write_file(f->initrd, data, size);
    f->machine->initrd = xstrdup(f->initrd);
}

static void expect_failure(struct fixture *f, const char *text)
{
    struct error *err = NULL;

    assert_false(boot_load(f->machine, &err));
    assert_non_null(err);
    if (!strstr(error_message(err), text)) {
        fail_msg("'%s' lacks '%s'", error_message(err), text);
    }
    error_free(err);
    loader_cleanup();
}

static uint64_t guest_read(uint64_t address, unsigned size)
{
    uint8_t bytes[8];

    assert_int_equal(address_space_read(address_space_memory, address, bytes, size), MEM_OK);
    return load_le(bytes, size);
}

/* ---- bzImage -------------------------------------------------------------------------------- */

enum { BZ_SIZE = 8192, BZ_KERNEL = 5 * 512 };

static void make_bzimage(uint8_t *image)
{
    memset(image, 0, BZ_SIZE);
    image[0x1f1] = 4;
    store_le16(image + 0x1fe, 0xaa55);
    image[0x201] = 0x66;
    store_le32(image + 0x202, 0x53726448);
    store_le16(image + 0x206, 0x20f);
    store_le32(image + 0x22c, 0x7fffffff);
    image[0x234] = 1;
    store_le16(image + 0x236, 3);
    store_le32(image + 0x238, 2047);
    store_le64(image + 0x258, 0x1000000);
    store_le32(image + 0x260, 0x200000);
    memset(image + BZ_KERNEL, 0xcc, BZ_SIZE - BZ_KERNEL);
}

static void test_bzimage(void **state)
{
    struct fixture *f = *state;
    uint8_t image[BZ_SIZE];
    struct x86_state *cpu = xnew(struct x86_state);
    uint64_t initrd;

    make_bzimage(image);
    write_file(f->kernel, image, sizeof(image));
    f->machine->append = xstrdup("console=ttyS0");
    f->machine->acpi_rsdp = 0x12345;
    give_initrd(f, 5000);
    assert_true(boot_load(f->machine, NULL));
    assert_true(loader_write_all(NULL));
    assert_int_equal(guest_read(0x1000000, 4), 0xcccccccc);
    assert_int_equal(guest_read(BOOT_PARAMS + 0x70, 8), 0x12345);
    assert_int_equal(guest_read(BOOT_PARAMS + 0x228, 4), BOOT_CMDLINE);
    assert_int_equal(guest_read(BOOT_CMDLINE, 8), load_le64("console="));
    initrd = guest_read(BOOT_PARAMS + 0x218, 4);
    assert_int_equal(guest_read(BOOT_PARAMS + 0x21c, 4), 5000);
    assert_int_equal(guest_read(initrd, 1), 0xa5);
    assert_true(initrd + 5000 <= RAM_SIZE && initrd % 4096 == 0);
    assert_int_equal(guest_read(BOOT_PARAMS + 0x1e8, 1), f->machine->e820_count);
    assert_int_equal(guest_read(BOOT_PARAMS + 0x2d0 + 8, 8), f->machine->e820[0].size);

    f->machine->set_entry(f->machine, cpu);
    assert_int_equal(cpu->rip, 0x1000200);
    assert_int_equal(cpu->gpr[X86_RSI], BOOT_PARAMS);
    assert_int_equal(cpu->efer & 0x500, 0x500);
    assert_int_equal(cpu->segment[X86_CS].attributes >> 13 & 1, 1);
    /* The page tables map address 0xc0100000 to itself. */
    assert_int_equal(guest_read(BOOT_PAGE_TABLES + 0x2000 + (0xc0000000 >> 21) * 8, 8),
                     0xc0000000 | 0x83);
    free(cpu);
}

static void test_bzimage_refused(void **state)
{
    struct fixture *f = *state;
    uint8_t image[BZ_SIZE];

    make_bzimage(image);
    store_le16(image + 0x206, 0x204);
    write_file(f->kernel, image, sizeof(image));
    expect_failure(f, "boot protocol 2.04");

    make_bzimage(image);
    store_le16(image + 0x236, 0);
    write_file(f->kernel, image, sizeof(image));
    expect_failure(f, "32-bit kernel without the 64-bit entry");

    make_bzimage(image);
    write_file(f->kernel, image, BZ_KERNEL);
    expect_failure(f, "is cut off");

    make_bzimage(image);
    store_le32(image + 0x260, 0xf0000000);
    write_file(f->kernel, image, sizeof(image));
    expect_failure(f, "give it more (-m)");

    make_bzimage(image);
    store_le64(image + 0x258, UINT64_MAX - 0xfff);
    write_file(f->kernel, image, sizeof(image));
    expect_failure(f, "give it more (-m)");

    make_bzimage(image);
    write_file(f->kernel, image, sizeof(image));
    f->machine->append = xmalloc(4001);
    memset(f->machine->append, 'x', 4000);
    f->machine->append[4000] = 0;
    expect_failure(f, "the command line has 4000 bytes");
    f->machine->append[10] = 0;

    give_initrd(f, 60 * MiB);
    expect_failure(f, "does not fit");
}

/* ---- ELF ------------------------------------------------------------------------------------ */

enum { ELF_SIZE = 0x2000, PHDR = 64, NOTE = 0x200, CODE = 0x1000 };

static void make_elf(uint8_t *image)
{
    memset(image, 0, ELF_SIZE);
    memcpy(image, "\177ELF\2\1\1", 7);
    store_le16(image + 16, 2);
    store_le16(image + 18, 62);
    store_le64(image + 24, 0x200000);
    store_le64(image + 32, PHDR);
    store_le16(image + 54, 56);
    store_le16(image + 56, 2);
    store_le32(image + PHDR, 1);
    store_le64(image + PHDR + 8, CODE);
    store_le64(image + PHDR + 24, 0x200000);
    store_le64(image + PHDR + 32, 0x1000);
    store_le64(image + PHDR + 40, 0x3000);
    store_le32(image + PHDR + 56, 4);
    store_le64(image + PHDR + 56 + 8, NOTE);
    store_le64(image + PHDR + 56 + 32, 20);
    store_le32(image + NOTE, 4);
    store_le32(image + NOTE + 4, 4);
    store_le32(image + NOTE + 8, 18);
    memcpy(image + NOTE + 12, "Xen", 4);
    store_le32(image + NOTE + 16, 0x200040);
    memset(image + CODE, 0xee, 0x1000);
}

static void test_pvh(void **state)
{
    struct fixture *f = *state;
    uint8_t image[ELF_SIZE];
    struct x86_state *cpu = xnew(struct x86_state);

    make_elf(image);
    write_file(f->kernel, image, sizeof(image));
    give_initrd(f, 100);
    assert_true(boot_load(f->machine, NULL));
    assert_true(loader_write_all(NULL));
    assert_int_equal(guest_read(0x200000, 4), 0xeeeeeeee);
    assert_int_equal(guest_read(0x201000, 4), 0); /* .bss */
    assert_int_equal(guest_read(BOOT_START_INFO, 4), 0x336ec578);
    assert_int_equal(guest_read(BOOT_START_INFO + 12, 4), 1);
    assert_int_equal(guest_read(guest_read(BOOT_START_INFO + 16, 8) + 8, 8), 100);
    assert_int_equal(guest_read(BOOT_START_INFO + 48, 4), f->machine->e820_count);
    f->machine->set_entry(f->machine, cpu);
    assert_int_equal(cpu->rip, 0x200040);
    assert_int_equal(cpu->gpr[X86_RBX], BOOT_START_INFO);
    assert_int_equal(cpu->cr0 & 0x80000001, 1);
    free(cpu);
}

static void test_elf_refused(void **state)
{
    struct fixture *f = *state;
    uint8_t image[ELF_SIZE];

    make_elf(image);
    store_le32(image + NOTE + 8, 17);
    write_file(f->kernel, image, sizeof(image));
    expect_failure(f, "without a PVH entry note");

    make_elf(image);
    store_le64(image + PHDR + 32, 0x1001);
    write_file(f->kernel, image, sizeof(image));
    expect_failure(f, "is not in the file");

    make_elf(image);
    store_le64(image + PHDR + 8, UINT64_MAX - 10);
    write_file(f->kernel, image, sizeof(image));
    expect_failure(f, "is not in the file");

    make_elf(image);
    store_le64(image + 32, UINT64_MAX - 100);
    write_file(f->kernel, image, sizeof(image));
    expect_failure(f, "program headers");

    make_elf(image);
    store_le16(image + 18, 183);
    write_file(f->kernel, image, sizeof(image));
    expect_failure(f, "not for x86");

    make_elf(image);
    write_file(f->kernel, image, 40);
    expect_failure(f, "cut off");

    write_file(f->kernel, "hello", 5);
    expect_failure(f, "is no kernel that ferry can boot");
}

/* A segment that lies outside of RAM is found when it is written, not before. */
static void test_outside_of_ram(void **state)
{
    struct fixture *f = *state;
    struct error *err = NULL;
    uint8_t image[ELF_SIZE];

    make_elf(image);
    store_le64(image + PHDR + 24, RAM_SIZE - 0x2000);
    write_file(f->kernel, image, sizeof(image));
    assert_true(boot_load(f->machine, NULL));
    assert_false(loader_write_all(&err));
    assert_non_null(strstr(error_message(err), "does not lie in guest memory"));
    error_free(err);
}

/* Every byte of the headers changed once: no crash, and what loads, loads within bounds. */
static void test_damaged_headers(void **state)
{
    struct fixture *f = *state;
    uint8_t image[ELF_SIZE];
    static const uint8_t values[] = {0x00, 0x7f, 0x80, 0xff};

    for (size_t i = 7; i < NOTE + 20; i++) {
        if (i >= 64 + 112 && i < NOTE) {
            continue;
        }
        for (size_t v = 0; v < ARRAY_SIZE(values); v++) {
            struct error *err = NULL;

            make_elf(image);
            image[i] = values[v];
            write_file(f->kernel, image, sizeof(image));
            if (boot_load(f->machine, &err) && f->machine->ram_below_4g) {
                assert_true(f->machine->set_entry != NULL);
            } else {
                assert_non_null(err);
            }
            error_free(err);
            loader_cleanup();
        }
    }
}

/* ---- multiboot ------------------------------------------------------------------------------ */

static void test_multiboot_addresses(void **state)
{
    struct fixture *f = *state;
    uint8_t image[4096] = {0};
    struct x86_state *cpu = xnew(struct x86_state);
    uint64_t modules;

    store_le32(image + 64, 0x1badb002);
    store_le32(image + 68, 0x10003);
    store_le32(image + 72, -(0x1badb002 + 0x10003));
    store_le32(image + 76, 0x100040); /* header */
    store_le32(image + 80, 0x100000); /* load */
    store_le32(image + 84, 0x101000); /* load end */
    store_le32(image + 88, 0x104000); /* bss end */
    store_le32(image + 92, 0x100200); /* entry */
    write_file(f->kernel, image, sizeof(image));
    give_initrd(f, 5000);
    f->machine->append = xstrdup("a b");
    assert_true(boot_load(f->machine, NULL));
    assert_true(loader_write_all(NULL));
    assert_int_equal(guest_read(0x100040, 4), 0x1badb002);
    assert_int_equal(guest_read(BOOT_MULTIBOOT + 20, 4), 1);
    modules = guest_read(BOOT_MULTIBOOT + 24, 4);
    assert_int_equal(guest_read(modules + 4, 4) - guest_read(modules, 4), 5000);
    assert_int_equal(guest_read(guest_read(modules, 4), 1), 0xa5);
    assert_int_equal(guest_read(BOOT_MULTIBOOT + 8, 4), (RAM_SIZE - MiB) / KiB);
    f->machine->set_entry(f->machine, cpu);
    assert_int_equal(cpu->rip, 0x100200);
    assert_int_equal(cpu->gpr[X86_RAX], 0x2badb002);
    assert_int_equal(cpu->gpr[X86_RBX], BOOT_MULTIBOOT);
    free(cpu);

    loader_cleanup();
    store_le32(image + 76, 0xf0000000);
    write_file(f->kernel, image, sizeof(image));
    expect_failure(f, "does not fit load_addr");
    store_le32(image + 76, 0x100040);
    store_le32(image + 84, 0x900000);
    write_file(f->kernel, image, sizeof(image));
    expect_failure(f, "load_end_addr");
    store_le32(image + 84, 0x101000);
    store_le32(image + 88, 0x100800);
    write_file(f->kernel, image, sizeof(image));
    expect_failure(f, "bss_end_addr");
    store_le32(image + 88, 0);
    store_le32(image + 68, 0x10007);
    store_le32(image + 72, -(0x1badb002 + 0x10007));
    write_file(f->kernel, image, sizeof(image));
    expect_failure(f, "no video modes");
}

/* ---- files ---------------------------------------------------------------------------------- */

static void test_files(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *path, *error;
    } cases[] = {
        {"/nonexistent", "could not open kernel '/nonexistent'"},
        {"/tmp", "is a directory"},
        {"/dev/null", "is not a regular file"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        free(f->machine->kernel);
        f->machine->kernel = xstrdup(cases[i].path);
        expect_failure(f, cases[i].error);
    }
    free(f->machine->kernel);
    f->machine->kernel = xstrdup(f->kernel);
    expect_failure(f, "is empty");
}

static void test_loader_overlap(void **state)
{
    struct error *err = NULL;

    assert_true(loader_add("one", 0x1000, "x", 1, 0x1000, NULL));
    assert_false(loader_add("two", 0x1fff, "x", 1, 1, &err));
    assert_non_null(strstr(error_message(err), "two at 0x1fff-0x1fff overlaps one at 0x1000"));
    error_free(err);
    err = NULL;
    assert_false(loader_add("three", UINT64_MAX - 1, "xxxx", 4, 4, &err));
    error_free(err);
    assert_int_equal(loader_find_free(0x1000, 0x10000, 0x1000, 0x1000), 0x2000);
    assert_int_equal(loader_find_free(0x1000, 0x2000, 0x1000, 0x1000), UINT64_MAX);
    loader_cleanup();
}

static void test_e820(void **state)
{
    struct fixture *f = *state;
    uint64_t at = machine_e820_reserve(f->machine, 5000, 4096, E820_ACPI);
    uint64_t end = 0;

    assert_true(at >= MiB && at % 4096 == 0 && at + 5000 <= RAM_SIZE);
    for (unsigned i = 0; i < f->machine->e820_count; i++) {
        assert_true(f->machine->e820[i].address >= end);
        end = f->machine->e820[i].address + f->machine->e820[i].size;
    }
    assert_int_equal(machine_e820_reserve(f->machine, 1 * TiB, 4096, E820_ACPI), 0);
}

static int group_setup(void **state)
{
    mem_init();
    mem_thread_register();
    return 0;
}

static int group_teardown(void **state)
{
    mem_cleanup();
    mem_thread_unregister();
    return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_bzimage),     TEST(test_bzimage_refused),     TEST(test_pvh),
        TEST(test_elf_refused), TEST(test_outside_of_ram),      TEST(test_damaged_headers),
        TEST(test_files),       TEST(test_multiboot_addresses), TEST(test_loader_overlap),
        TEST(test_e820),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
