/* SPDX-License-Identifier: MIT */
/* The expansion ROM (PCI 3.0, 6.2.5.2), from the file of romfile=. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/range.h"
#include "pci/internal.h"

#define ROM_SIZE_MAX (16 * MiB)
#define ROM_SIZE_MIN (2 * KiB)

static bool read_all(int fd, uint8_t *to, size_t size)
{
    while (size) {
        ssize_t n = read(fd, to, size);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            errno = n < 0 ? errno : EIO;
            return false;
        }
        to += n;
        size -= (size_t)n;
    }
    return true;
}

static uint8_t *load(const char *path, size_t *size, struct error **errp)
{
    struct stat st;
    uint8_t *image = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) < 0) {
        error_set_errno(errp, errno, "failed to find romfile \"%s\"", path);
        goto out;
    }
    if (!S_ISREG(st.st_mode) || st.st_size == 0) {
        error_set(errp, "romfile \"%s\" is empty or no file", path);
        goto out;
    }
    if ((uint64_t)st.st_size > ROM_SIZE_MAX) {
        error_set(errp, "romfile \"%s\" is too large: more than 16 MiB", path);
        goto out;
    }
    *size = (size_t)st.st_size;
    image = xmalloc(*size);
    if (!read_all(fd, image, *size)) {
        error_set_errno(errp, errno, "failed to load romfile \"%s\"", path);
        free(image);
        image = NULL;
    }
out:
    if (fd >= 0) {
        close(fd);
    }
    return image;
}

bool pci_rom_init(struct pci_device *pci, struct error **errp)
{
    size_t size;
    uint64_t rounded = ROM_SIZE_MIN;

    if (!pci->romfile || !pci->romfile[0]) {
        return true;
    }
    if (!pci->rombar) {
        error_set(errp, "romfile \"%s\" with rombar=0 would be seen by nobody; leave out rombar=0",
                  pci->romfile);
        return false;
    }
    autofree uint8_t *image = load(pci->romfile, &size, errp);
    if (!image) {
        return false;
    }
    while (rounded < size) {
        rounded *= 2;
    }
    rounded = MAX(rounded, GUEST_PAGE_SIZE); /* ROM is made of pages */
    autofree char *name = xasprintf("%s.rom", pci->dev.type->name);
    if (!mem_region_init_rom(&pci->rom, name, rounded, errp)) {
        return false;
    }
    memcpy(pci->rom.ram->host, image, size);
    pci_register_bar(pci, PCI_ROM_BAR, &pci->rom, false, false, false);
    return true;
}

void pci_rom_destroy(struct pci_device *pci)
{
    mem_region_destroy(&pci->rom);
}
