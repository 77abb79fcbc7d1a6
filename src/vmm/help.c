/* SPDX-License-Identifier: MIT */
/* What "help" among the values of an option prints. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "accel/accel.h"
#include "accel/cpu_model.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "base/range.h"
#include "block/backend.h"
#include "chardev/chardev.h"
#include "device/device.h"
#include "machine/machine.h"
#include "vmm/setup.h"
#include "vmm/types.h"

/* True if an item of a list is "help" and no value: "TYPE,help", "help", but not "path=a,,help".
 * *type: the first item, to be freed, or NULL. */
static bool asks_help(const char *text, char **type)
{
    const char *item = text;

    *type = NULL;
    if (*text == '{') {
        return false;
    }
    for (const char *p = text;; p++) {
        if (p[0] == ',' && p[1] == ',') {
            p++;
        } else if (!*p || *p == ',') {
            autofree char *word = xstrndup(item, (size_t)(p - item));

            if (cmdline_wants_help(word)) {
                *type = item == text ? NULL : xstrndup(text, strcspn(text, ","));
                return true;
            }
            if (!*p) {
                return false;
            }
            item = p + 1;
        }
    }
}

static bool list_help(const struct text_list *list,
                      bool (*print)(const char *type, struct error **), bool *ok,
                      struct error **errp)
{
    for (size_t i = 0; i < list->count; i++) {
        autofree char *type = NULL;

        if (asks_help(list->text[i], &type)) {
            *ok = print(type, errp);
            return true;
        }
    }
    return false;
}

static bool help_machine(const char *type, struct error **errp)
{
    const struct machine_type *found = type ? machine_type_find(type) : NULL;

    if (type && !found) {
        error_set(errp, "-machine: unsupported machine type '%s'", type);
        return false;
    }
    if (found) {
        machine_properties_print(found, stdout);
    } else {
        machine_types_print(stdout);
    }
    return true;
}

static bool help_accel(const char *type, struct error **errp)
{
    accel_print_engines(stdout);
    return true;
}

static bool help_device(const char *type, struct error **errp)
{
    if (type) {
        return device_print_properties(type, stdout, errp);
    }
    device_print_types(stdout);
    return true;
}

static bool help_object(const char *type, struct error **errp)
{
    if (type) {
        return device_print_properties(type, stdout, errp);
    }
    object_print_types(stdout);
    return true;
}

/* These find the word themselves, "format=help" for one. */
static bool list_asks(const struct text_list *list, const char *implied,
                      bool (*print)(struct options *opts, FILE *to))
{
    bool asked = false;

    for (size_t i = 0; i < list->count && !asked; i++) {
        struct options *opts = options_parse(list->text[i], implied, NULL);

        asked = opts && print(opts, stdout);
        options_free(opts);
    }
    return asked;
}

/* The keys of an option that is a list of nothing else, as QEMU prints them. */
struct key_list {
    const char *name; /* QEMU's, of the list */
    size_t offset;    /* of the text_list in struct cmdline */
    const char *keys[12];
};

static const struct key_list key_lists[] = {
    {"smp-opts",
     offsetof(struct cmdline, smp),
     {"clusters=<num>", "cores=<num>", "cpus=<num>", "dies=<num>", "maxcpus=<num>", "sockets=<num>",
      "threads=<num>"}},
    {"rtc", offsetof(struct cmdline, rtc), {"base=<str>", "clock=<str>", "driftfix=<str>"}},
    {"global", offsetof(struct cmdline, global), {"driver=<str>", "property=<str>", "value=<str>"}},
    {"boot-opts",
     offsetof(struct cmdline, boot),
     {"menu=<bool (on/off)>", "strict=<bool (on/off)>"}},
    {"msg",
     offsetof(struct cmdline, msg),
     {"guest-name=<bool (on/off)>", "timestamp=<bool (on/off)>"}},
    {"overcommit",
     offsetof(struct cmdline, overcommit),
     {"cpu-pm=<bool (on/off)>", "mem-lock=<bool (on/off)>"}},
    {"action", offsetof(struct cmdline, action), {"panic=<str>", "reboot=<str>", "shutdown=<str>"}},
};

static bool help_keys(const struct cmdline *cmdline)
{
    for (size_t i = 0; i < ARRAY_SIZE(key_lists); i++) {
        const struct key_list *list = &key_lists[i];
        const struct text_list *texts = (const void *)((const char *)cmdline + list->offset);

        for (size_t j = 0; j < texts->count; j++) {
            autofree char *first = NULL;

            if (!asks_help(texts->text[j], &first)) {
                continue;
            }
            printf("%s options:\n", list->name);
            for (size_t k = 0; k < ARRAY_SIZE(list->keys) && list->keys[k]; k++) {
                printf("  %s\n", list->keys[k]);
            }
            return true;
        }
    }
    return false;
}

bool setup_help(const struct cmdline *cmdline, bool *ok, struct error **errp)
{
    *ok = true;
    device_types_set(ferry_types); /* for the lists here, and for all that follows */
    if (cmdline->cpu && cmdline_wants_help(cmdline->cpu)) {
        cpu_models_print(stdout);
        return true;
    }
    if (cmdline->log_items && cmdline_wants_help(cmdline->log_items)) {
        log_print_items(stdout);
        return true;
    }
    return help_keys(cmdline) || list_help(&cmdline->machine, help_machine, ok, errp) ||
           list_help(&cmdline->accel, help_accel, ok, errp) ||
           list_help(&cmdline->device, help_device, ok, errp) ||
           list_help(&cmdline->object, help_object, ok, errp) ||
           list_asks(&cmdline->chardev, "backend", chardev_print_help) ||
           list_asks(&cmdline->drive, NULL, drive_help) ||
           list_asks(&cmdline->blockdev, "driver", drive_help);
}
