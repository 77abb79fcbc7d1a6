/* SPDX-License-Identifier: MIT */
#include "vmm/drives.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/options.h"
#include "block/backend.h"
#include "device/device.h"
#include "mem/machine_lock.h"

static struct drive_spec *specs;
static size_t spec_count;

bool drives_open(const struct text_list *drives, bool snapshot, struct error **errp)
{
    specs = drives->count ? xcalloc(drives->count, sizeof(*specs)) : NULL;
    for (size_t i = 0; i < drives->count; i++) {
        struct options *opts = options_parse(drives->text[i], NULL, errp);
        if (opts && snapshot && !options_has(opts, "snapshot")) {
            options_set(opts, "snapshot", "on");
        }
        /* As QEMU's machines do: a -drive without if= is an IDE disk, which this build lacks. */
        bool ok = opts && drive_new(opts, "ide", &specs[spec_count], errp);

        options_free(opts);
        if (!ok) {
            error_prepend(errp, "-drive %s: ", drives->text[i]);
            return false;
        }
        if (strcmp(specs[spec_count].interface, "none") &&
            strcmp(specs[spec_count].interface, "virtio")) {
            error_set(errp, "-drive %s: if=%s is not in this build; add if=virtio", drives->text[i],
                      specs[spec_count].interface);
            spec_count++;
            return false;
        }
        spec_count++;
    }
    return true;
}

bool drives_add_devices(struct error **errp)
{
    for (size_t i = 0; i < spec_count; i++) {
        struct drive_spec *spec = &specs[i];
        struct options *opts;
        bool ok;

        if (strcmp(spec->interface, "virtio")) {
            continue;
        }
        opts = options_new();
        options_set(opts, "driver", "virtio-blk-pci");
        options_set(opts, "drive", backend_name(spec->backend));
        if (spec->serial) {
            options_set(opts, "serial", spec->serial);
        }
        machine_lock();
        ok = device_add(opts, errp) != NULL;
        machine_unlock();
        options_free(opts);
        if (!ok) {
            error_prepend(errp, "-drive id=%s: ", backend_name(spec->backend));
            return false;
        }
    }
    return true;
}

void drives_close(void)
{
    for (size_t i = 0; i < spec_count; i++) {
        free(specs[i].serial);
    }
    free(specs);
    specs = NULL;
    spec_count = 0;
}
