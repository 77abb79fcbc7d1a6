/* SPDX-License-Identifier: MIT */
/*
 * QMP sessions and the command table (QMP specification 2.12).
 *
 *   connected --greeting--> negotiation --qmp_capabilities--> commands and events
 *
 * A session is one client of one monitor; it knows its peer only as an output function. Main loop.
 */
#ifndef FERRY_MONITOR_QMP_H
#define FERRY_MONITOR_QMP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "monitor/monitor.h"

struct qmp_session;

/* One command. args is the "arguments" object, never NULL; its members have been checked against
 * `arguments`. Returns the "return" value (an empty object for nothing), or NULL and an error. */
struct qmp_command {
    const char *name;
    const char *arguments; /* "id:s,?force:b": names and kinds, '?' optional; kinds s b i o a */
    json_t *(*run)(json_t *args, struct error **errp);
    bool in_negotiation; /* allowed before capabilities are negotiated */
};

extern const struct qmp_command qmp_commands[]; /* ends with a NULL name */
const struct qmp_command *qmp_command_find(const char *name);

/* VM operations set by vmm; NULL in tests that set none. */
const struct monitor_vm_ops *monitor_vm_ops(void);

/* output gets whole lines. */
struct qmp_session *qmp_session_new(bool pretty,
                                    void (*output)(void *opaque, const char *text, size_t size),
                                    void *opaque);
void qmp_session_free(struct qmp_session *session);
/* A client connected: forgets everything and greets. */
void qmp_session_open(struct qmp_session *session);
void qmp_session_close(struct qmp_session *session);
/* Bytes of the client, in any pieces. */
void qmp_session_input(struct qmp_session *session, const char *data, size_t size);
/* An event with its timestamp; ignored before negotiation is over. */
void qmp_session_event(struct qmp_session *session, json_t *event);

/* Finds the end of the first JSON value: bytes it takes, 0: incomplete, or one of the negative
 * values. *scan carries on between calls (zero at first). */
#define QMP_SCAN_STRAY -1 /* the byte before scan->done has no place there */
#define QMP_SCAN_DEEP  -2 /* too many brackets are open */
struct qmp_scan {
    unsigned depth;
    bool in_string, escaped, started;
    size_t done;
};
int64_t qmp_scan(struct qmp_scan *scan, const char *data, size_t size);

#endif
