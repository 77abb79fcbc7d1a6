/* SPDX-License-Identifier: MIT */
#include "monitor/monitor.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "aio/loop.h"
#include "base/alloc.h"
#include "base/id.h"
#include "base/log.h"
#include "base/options.h"
#include "chardev/chardev.h"
#include "device/iothread.h"
#include "monitor/qmp.h"
#include "monitor/qtest.h"

#define READ_MAX 4096
/* A client that does not read loses events beyond this: a guest can cause as many as it likes. */
#define UNREAD_MAX (1u << 20)

/* A session on a character device: QMP or qtest. Main loop. */
struct monitor {
    struct monitor *next;
    struct chardev *chr;
    struct chardev_frontend frontend;
    struct qmp_session *qmp;     /* or NULL */
    struct qtest_session *qtest; /* or NULL */
    FILE *log;
    bool has_lost_events; /* and it was said, for this client */
};

static struct monitor *monitors;
/* Some commands run the main loop until they are done, and so does who holds the monitors. Other
 * commands must not come in between: what one has found stays there until it has used it. */
static unsigned holds;
static const struct monitor_vm_ops *vm_ops;

void monitor_set_vm_ops(const struct monitor_vm_ops *ops)
{
    vm_ops = ops;
}

const struct monitor_vm_ops *monitor_vm_ops(void)
{
    return vm_ops;
}

/* ---- character device ----------------------------------------------------------------------- */

static int monitor_can_read(void *opaque)
{
    struct monitor *monitor = opaque;

    /* A client that does not read its answers gets no more commands carried out. */
    return !holds && chardev_writable(monitor->chr) ? READ_MAX : 0;
}

void monitors_hold(void)
{
    holds++;
}

/* What clients have sent meanwhile; `monitor`, which may be NULL, looks by itself. */
static void release(const struct monitor *monitor)
{
    assert(holds > 0);
    if (--holds) {
        return;
    }
    for (struct monitor *other = monitors; other; other = other->next) {
        if (other != monitor) {
            chardev_accept_input(other->chr);
        }
    }
}

void monitors_release(void)
{
    release(NULL);
}

static void monitor_read(void *opaque, const uint8_t *buf, size_t len)
{
    struct monitor *monitor = opaque;

    monitors_hold();
    if (monitor->qmp) {
        qmp_session_input(monitor->qmp, (const char *)buf, len);
    } else {
        qtest_session_input(monitor->qtest, (const char *)buf, len);
    }
    release(monitor);
}

static void monitor_event(void *opaque, enum chardev_event event)
{
    struct monitor *monitor = opaque;

    if (event == CHARDEV_OPENED) {
        monitor->has_lost_events = false;
        if (monitor->qmp) {
            qmp_session_open(monitor->qmp);
        } else {
            qtest_session_open(monitor->qtest);
        }
    } else if (event == CHARDEV_CLOSED) {
        if (monitor->qmp) {
            qmp_session_close(monitor->qmp);
        } else {
            qtest_session_close(monitor->qtest);
        }
    }
}

static void monitor_writable(void *opaque)
{
    struct monitor *monitor = opaque;

    chardev_accept_input(monitor->chr);
}

static void monitor_output(void *opaque, const char *text, size_t size)
{
    struct monitor *monitor = opaque;

    chardev_write_all(monitor->chr, text, size);
}

static bool monitor_start(struct monitor *monitor, struct chardev *chr, struct error **errp)
{
    monitor->chr = chr;
    monitor->frontend = (struct chardev_frontend){
        .can_read = monitor_can_read,
        .read = monitor_read,
        .event = monitor_event,
        .writable = monitor_writable,
        .opaque = monitor,
        .is_background = true,
    };
    if (!chardev_attach(chr, &monitor->frontend, errp)) {
        return false;
    }
    monitor->next = monitors;
    monitors = monitor;
    return true;
}

static void monitor_free(struct monitor *monitor)
{
    if (monitor->qmp) {
        qmp_session_free(monitor->qmp);
    }
    if (monitor->qtest) {
        qtest_session_free(monitor->qtest);
    }
    if (monitor->log && monitor->log != stderr) {
        fclose(monitor->log);
    }
    free(monitor);
}

static bool add_qmp(struct chardev *chr, bool pretty, struct error **errp)
{
    struct monitor *monitor = xnew(struct monitor);

    monitor->qmp = qmp_session_new(pretty, monitor_output, monitor);
    if (!monitor_start(monitor, chr, errp)) {
        monitor_free(monitor);
        return false;
    }
    return true;
}

bool monitor_add_qmp(const char *device, bool pretty, struct error **errp)
{
    static unsigned count;
    autofree char *id = xasprintf("compat_monitor%u", count++);
    struct chardev *chr;

    if (!strcmp(device, "none")) {
        return true;
    }
    chr = chardev_new_from_legacy(device, id, errp);
    return chr && add_qmp(chr, pretty, errp);
}

bool monitor_add(struct options *opts, struct error **errp)
{
    const char *id = options_get(opts, "chardev"), *mode = options_get(opts, "mode");
    const char *own_id = options_get(opts, "id"); /* nothing names a monitor by it */
    struct chardev *chr = id ? chardev_find(id) : NULL;
    bool pretty = false;

    if (!id) {
        error_set(errp, "Parameter 'chardev' is missing");
        return false;
    }
    if (!chr) {
        error_set(errp, "chardev '%s' not found; define it by -chardev …,id=%s", id, id);
        return false;
    }
    if (own_id && !id_is_wellformed(own_id)) {
        error_set(errp, "Parameter 'id' expects an identifier");
        return false;
    }
    if (!mode || strcmp(mode, "control")) {
        error_set(errp, "mode=%s: this build has only mode=control (QMP)",
                  mode ? mode : "readline");
        return false;
    }
    return options_get_bool(opts, "pretty", &pretty, errp) &&
           options_check_used(opts, "-mon", errp) && add_qmp(chr, pretty, errp);
}

bool qtest_server_start(const char *device, const char *log, struct error **errp)
{
    struct monitor *monitor;
    struct chardev *chr;
    FILE *file = NULL;

    for (monitor = monitors; monitor; monitor = monitor->next) {
        if (monitor->qtest) {
            error_set(errp, "there is a qtest server already");
            return false;
        }
    }
    if (!log) {
        file = stderr;
    } else if (strcmp(log, "none")) {
        file = fopen(log, "we");
        if (!file) {
            error_set_errno(errp, errno, "-qtest-log '%s'", log);
            return false;
        }
    }
    chr = chardev_new_from_legacy(device, "qtest", errp);
    if (!chr) {
        if (file && file != stderr) {
            fclose(file);
        }
        return false;
    }
    monitor = xnew(struct monitor);
    monitor->log = file;
    monitor->qtest = qtest_session_new(monitor_output, monitor, file);
    if (!monitor_start(monitor, chr, errp)) {
        monitor_free(monitor);
        return false;
    }
    return true;
}

/* ---- events --------------------------------------------------------------------------------- */

static void send_event(struct monitor *monitor, json_t *event)
{
    if (chardev_unsent(monitor->chr) <= UNREAD_MAX) {
        qmp_session_event(monitor->qmp, event);
    } else if (!monitor->has_lost_events) {
        monitor->has_lost_events = true;
        log_warn("the QMP client of chardev '%s' does not read; events for it are lost",
                 chardev_id(monitor->chr));
    }
}

static void broadcast(void *opaque)
{
    json_t *event = opaque;

    for (struct monitor *monitor = monitors; monitor; monitor = monitor->next) {
        if (monitor->qmp) {
            send_event(monitor, event);
        }
    }
    json_decref(event);
}

void qmp_event(const char *name, json_t *data)
{
    struct timeval now;
    json_t *event;

    gettimeofday(&now, NULL);
    event = json_pack("{s:{s:I, s:I}, s:s}", "timestamp", "seconds", (json_int_t)now.tv_sec,
                      "microseconds", (json_int_t)now.tv_usec, "event", name);
    if (data) {
        json_object_set_new(event, "data", data);
    }
    if (aio_loop_current() == main_loop()) {
        broadcast(event);
    } else {
        aio_call(main_loop(), broadcast, event);
    }
}

void monitors_cleanup(void)
{
    while (monitors) {
        struct monitor *monitor = monitors;

        monitors = monitor->next;
        chardev_detach(monitor->chr, &monitor->frontend);
        monitor_free(monitor);
    }
}
