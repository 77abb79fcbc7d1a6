/* SPDX-License-Identifier: MIT */
/*
 * Monitors: QMP servers (QMP specification 2.12) and the qtest server, each on a character device.
 *
 *   chardev --bytes--> JSON parser --command--> table of commands --> vm ops, device, block, …
 *           <-------- return, error, events ---
 *
 * Commands run on the main loop, one at a time, without the machine lock; those that touch machine
 * state take it. Events may come from any thread and are sent by the main loop.
 */
#ifndef FERRY_MONITOR_MONITOR_H
#define FERRY_MONITOR_MONITOR_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"

struct options;

/* What vmm, which is above, does for commands. Main loop. */
struct monitor_vm_ops {
    const char *(*status)(void); /* RunState: "running", "paused", "prelaunch", … */
    bool (*is_running)(void);
    bool (*stop)(struct error **errp);
    bool (*cont)(struct error **errp);
    void (*system_reset)(void);
    bool (*system_powerdown)(struct error **errp);
    void (*quit)(void);
    const char *(*name)(void); /* -name, or NULL */
    const char *(*uuid)(void); /* -uuid, or NULL */
};

void monitor_set_vm_ops(const struct monitor_vm_ops *ops);
/* -qmp DEV, -qmp-pretty DEV: legacy text of a character device. */
bool monitor_add_qmp(const char *device, bool pretty, struct error **errp);
/* -mon [chardev=]ID,mode=control[,pretty=on][,id=NAME] */
bool monitor_add(struct options *opts, struct error **errp);
/* -qtest DEV with -qtest-log FILE (NULL: stderr as QEMU; "none"). */
bool qtest_server_start(const char *device, const char *log, struct error **errp);
/* From hold to release no command begins, QMP or qtest: for who polls the main loop and whose work one
 * would disturb. What clients send meanwhile waits. Holds nest. Main loop. */
void monitors_hold(void);
void monitors_release(void);
void monitors_cleanup(void);

/* Sends an event to every QMP client that has left capabilities negotiation. data is stolen, may be
 * NULL. A client that leaves a megabyte unread gets no more until it reads. Any thread. */
void qmp_event(const char *name, json_t *data);

#endif
