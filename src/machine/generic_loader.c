/* SPDX-License-Identifier: MIT */
#include "machine/generic_loader.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "machine/elf.h"
#include "machine/loader.h"
#include "machine/machine.h"

#define FILE_MAX (UINT64_C(1) << 32)
#define CPU_NONE UINT32_MAX

struct generic_loader {
    struct device dev;
    /* properties; constant after realize */
    uint64_t addr, data;
    uint8_t data_len;
    bool data_be, force_raw;
    char *file;
    uint32_t cpu_num;
    uint64_t entry;
};

static bool load_data(struct generic_loader *loader, struct error **errp)
{
    uint8_t bytes[8];

    if (loader->data_len == 0 || loader->data_len > sizeof(bytes)) {
        error_set(errp, "loader: data-len=%u is not from 1 to 8", loader->data_len);
        return false;
    }
    if (loader->data_len < 8 && loader->data >> (loader->data_len * 8)) {
        error_set(errp, "loader: data=0x%" PRIx64 " has more than data-len=%u bytes", loader->data,
                  loader->data_len);
        return false;
    }
    if (loader->data_be) {
        store_be64(bytes, loader->data << (64 - loader->data_len * 8));
    } else {
        store_le64(bytes, loader->data);
    }
    return loader_add("loader data", loader->addr, bytes, loader->data_len, loader->data_len, errp);
}

static bool load_file(struct generic_loader *loader, struct error **errp)
{
    struct file_data file;
    autofree struct elf_image *image = NULL;
    autofree char *name = xasprintf("loader file '%s'", loader->file);
    bool ok, is_elf;

    if (!file_data_open(&file, loader->file, "loader file", FILE_MAX, errp)) {
        return false;
    }
    is_elf = !loader->force_raw && elf_is_elf(&file);
    if (is_elf) {
        image = xnew(struct elf_image);
        ok = elf_parse(&file, image, errp) && elf_load(&file, image, name, errp);
        loader->entry = image->entry;
    } else if (loader->addr == UINT64_MAX) {
        error_set(errp, "loader: '%s' is not ELF and needs addr=", loader->file);
        ok = false;
    } else {
        ok = loader_add_file(name, loader->addr, &file, 0, file.size, errp);
        loader->entry = loader->addr;
    }
    file_data_close(&file);
    return ok;
}

static bool generic_loader_realize(struct device *dev, struct error **errp)
{
    struct generic_loader *loader = (struct generic_loader *)dev;

    if (loader->cpu_num != CPU_NONE && machine_current &&
        loader->cpu_num >= machine_current->smp.cpus) {
        error_set(errp, "loader: cpu-num=%u, but the machine has %u CPUs", loader->cpu_num,
                  machine_current->smp.cpus);
        return false;
    }
    if (loader->file) {
        if (loader->data || loader->data_len) {
            error_set(errp, "loader: give file= or data=, not both");
            return false;
        }
        return load_file(loader, errp);
    }
    if (loader->addr == UINT64_MAX) {
        error_set(errp, "loader: needs addr=, with data= and data-len=, or file=");
        return false;
    }
    loader->entry = loader->addr;
    if (!loader->data_len && loader->cpu_num != CPU_NONE) {
        return true; /* only a start address */
    }
    return load_data(loader, errp);
}

bool generic_loader_exists(void)
{
    for (struct device *dev = device_first(); dev; dev = dev->next) {
        if (device_is_a(dev, &generic_loader_type)) {
            return true;
        }
    }
    return false;
}

bool generic_loader_entry(unsigned index, uint64_t *rip)
{
    for (struct device *dev = device_first(); dev; dev = dev->next) {
        struct generic_loader *loader = (struct generic_loader *)dev;

        if (device_is_a(dev, &generic_loader_type) && loader->cpu_num == index) {
            *rip = loader->entry;
            return true;
        }
    }
    return false;
}

static const struct property properties[] = {
    PROPERTY_UINT64("addr", struct generic_loader, addr, UINT64_MAX, 0, UINT64_MAX,
                    "guest address"),
    PROPERTY_UINT64("data", struct generic_loader, data, 0, 0, UINT64_MAX, "value to write"),
    PROPERTY_UINT8("data-len", struct generic_loader, data_len, 0, 0, 8, "bytes of data"),
    PROPERTY_BOOL("data-be", struct generic_loader, data_be, false, "data is big-endian"),
    PROPERTY_STRING("file", struct generic_loader, file, NULL, "ELF or raw file"),
    PROPERTY_UINT32("cpu-num", struct generic_loader, cpu_num, CPU_NONE, 0, UINT32_MAX,
                    "vCPU that starts there"),
    PROPERTY_BOOL("force-raw", struct generic_loader, force_raw, false,
                  "load ELF files as they are"),
    PROPERTY_END,
};

const struct device_type generic_loader_type = {
    .name = "loader",
    .description = "Generic Loader",
    .category = DEVICE_CATEGORY_MISC,
    .size = sizeof(struct generic_loader),
    .props = properties,
    .realize = generic_loader_realize,
};
