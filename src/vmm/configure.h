/* SPDX-License-Identifier: MIT */
/*
 * Single options, checked and carried over into the machine: -machine, -m, -smp, -name, -rtc,
 * -action and others. Main thread, before machine_init().
 */
#ifndef FERRY_VMM_CONFIGURE_H
#define FERRY_VMM_CONFIGURE_H

#include "machine/machine.h"
#include "vmm/cmdline.h"
#include "vmm/lifecycle.h"

/* The machine of -machine with its properties; the default one if there is none. NULL on error. */
struct machine *config_machine(const struct cmdline *cmdline, struct error **errp);
/* A key list that is given more than once counts as one: later keys override earlier ones. */
bool config_memory(struct machine *machine, const struct text_list *list, struct error **errp);
bool config_smp(struct machine *machine, const struct text_list *list, struct error **errp);
bool config_rtc(struct machine *machine, const struct text_list *list, struct error **errp);
/* The guest's name, to be freed; NULL in *name if it has none. Sets the process's name. */
bool config_name(const struct text_list *list, char **name, struct error **errp);
/* -msg; name: the guest's, or NULL. As in QEMU, the last one counts alone. */
bool config_messages(const struct text_list *list, const char *name, struct error **errp);
/* A UUID in lower case, to be freed; NULL in *uuid for NULL. */
bool config_uuid(const char *text, char **uuid, struct error **errp);
/* -boot and -overcommit: what ferry does, and nothing else, may be asked for. */
bool config_boot(const struct text_list *list, struct error **errp);
bool config_overcommit(const struct text_list *list, struct error **errp);
bool config_actions(const struct cmdline *cmdline, struct lifecycle_actions *actions,
                    struct error **errp);

#endif
