/* SPDX-License-Identifier: MIT */
/*
 * The command line in QEMU's spelling, taken apart but not yet carried out: options may come in
 * any order and are carried out in that of vmm/setup.c. Unknown options are refused with the
 * nearest known one; options that QEMU has and ferry lacks are refused by name, saying what to use
 * instead. Nothing is ignored.
 */
#ifndef FERRY_VMM_CMDLINE_H
#define FERRY_VMM_CMDLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/error.h"

struct text_list {
    const char **text; /* point into argv, or to texts in `made` */
    size_t count;
};

/* Short options stand in the list of what they are short for, in their place: -enable-kvm as
 * "accel=kvm" of -machine, -no-reboot as "reboot=shutdown" of -action. */
struct cmdline {
    struct text_list machine, accel, global, object, chardev, serial, drive, blockdev, device, qmp,
        qmp_pretty, debugcon, mon, qtest, action, smp, memory, name, rtc, boot, overcommit, msg;
    struct text_list made; /* texts that are freed with this */
    const char *cpu, *uuid, *pidfile, *log_items, *log_file, *qtest_log, *echr;
    bool nodefaults, nographic, stopped, snapshot;
};

enum cmdline_result {
    CMDLINE_RUN,
    CMDLINE_EXIT, /* help or version has been printed */
    CMDLINE_ERROR,
};

enum cmdline_result cmdline_parse(struct cmdline *cmdline, int argc, char **argv,
                                  struct error **errp);
void cmdline_free(struct cmdline *cmdline);
void cmdline_print_help(FILE *to);
/* True if text is "help" or "?". */
bool cmdline_wants_help(const char *text);

#endif
