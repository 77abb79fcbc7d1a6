/* SPDX-License-Identifier: MIT */
/* QMP: run state, power, and what the VM consists of. */
#include <string.h>

#include "accel/accel.h"
#include "accel/vcpu.h"
#include "base/alloc.h"
#include "chardev/chardev.h"
#include "machine/machine.h"
#include "monitor/monitor.h"
#include "monitor/qmp.h"
#include "monitor/qmp_commands.h"

/* ---- run state ------------------------------------------------------------------------------ */

json_t *qmp_query_status(json_t *args, struct error **errp)
{
    const struct monitor_vm_ops *ops = monitor_vm_ops();

    return json_pack("{s:s, s:b, s:b}", "status", ops->status(), "singlestep", 0, "running",
                     ops->is_running());
}

json_t *qmp_stop(json_t *args, struct error **errp)
{
    return monitor_vm_ops()->stop(errp) ? json_object() : NULL;
}

json_t *qmp_cont(json_t *args, struct error **errp)
{
    return monitor_vm_ops()->cont(errp) ? json_object() : NULL;
}

json_t *qmp_system_reset(json_t *args, struct error **errp)
{
    monitor_vm_ops()->system_reset();
    return json_object();
}

json_t *qmp_system_powerdown(json_t *args, struct error **errp)
{
    return monitor_vm_ops()->system_powerdown(errp) ? json_object() : NULL;
}

json_t *qmp_quit(json_t *args, struct error **errp)
{
    monitor_vm_ops()->quit();
    return json_object();
}

/* ---- names ---------------------------------------------------------------------------------- */

json_t *qmp_query_name(json_t *args, struct error **errp)
{
    const char *name = monitor_vm_ops()->name();

    return name ? json_pack("{s:s}", "name", name) : json_object();
}

/* All zeroes is what QEMU says of a VM without -uuid. */
json_t *qmp_query_uuid(json_t *args, struct error **errp)
{
    const char *uuid = monitor_vm_ops()->uuid();

    return json_pack("{s:s}", "UUID", uuid ? uuid : "00000000-0000-0000-0000-000000000000");
}

json_t *qmp_query_target(json_t *args, struct error **errp)
{
    return json_pack("{s:s}", "arch", "x86_64");
}

/* ---- machine, processors, memory ------------------------------------------------------------- */

json_t *qmp_query_kvm(json_t *args, struct error **errp)
{
    struct accel *accel = accel_current();

    /* "present" is about the program: it has the engine. */
    return json_pack("{s:b, s:b}", "enabled", accel && !strcmp(accel->ops->name, "kvm"), "present",
                     1);
}

json_t *qmp_query_machines(json_t *args, struct error **errp)
{
    json_t *list = json_array();

    for (unsigned i = 0; machine_types[i]; i++) {
        const struct machine_type *type = machine_types[i];
        json_t *info = json_pack("{s:b, s:s, s:b, s:i, s:b, s:s}", "hotpluggable-cpus", 0, "name",
                                 type->name, "numa-mem-supported", 0, "cpu-max", type->max_cpus,
                                 "deprecated", 0, "default-ram-id", "pc.ram");
        if (type->is_default) {
            json_object_set_new(info, "is-default", json_true());
        }
        if (type->alias) {
            json_object_set_new(info, "alias", json_string(type->alias));
        }
        json_array_append_new(list, info);
    }
    return list;
}

json_t *qmp_query_current_machine(json_t *args, struct error **errp)
{
    return json_pack("{s:b}", "wakeup-suspend-support", 0);
}

json_t *qmp_query_cpus_fast(json_t *args, struct error **errp)
{
    const struct machine *machine = machine_current;
    json_t *list = json_array();

    for (unsigned i = 0; i < vcpu_count(); i++) {
        autofree char *path = xasprintf("/machine/unattached/device[%u]", i);
        unsigned threads = machine->smp.threads, cores = machine->smp.cores;
        unsigned dies = machine->smp.dies;

        json_array_append_new(list, json_pack("{s:i, s:s, s:i, s:s, s:{s:i, s:i, s:i, s:i}}",
                                              "cpu-index", i, "qom-path", path, "thread-id",
                                              vcpu_get(i)->thread_id, "target", "x86_64", "props",
                                              "socket-id", i / (threads * cores * dies), "die-id",
                                              i / (threads * cores) % dies, "core-id",
                                              i / threads % cores, "thread-id", i % threads));
    }
    return list;
}

json_t *qmp_query_memory_size_summary(json_t *args, struct error **errp)
{
    const struct machine *machine = machine_current;

    return json_pack("{s:I, s:I}", "base-memory",
                     machine ? (json_int_t)machine->ram_size : (json_int_t)0, "plugged-memory",
                     (json_int_t)0);
}

/* ---- character devices ---------------------------------------------------------------------- */

json_t *qmp_query_chardev(json_t *args, struct error **errp)
{
    json_t *list = json_array();

    for (struct chardev *chr = chardev_first(); chr; chr = chardev_next(chr)) {
        autofree char *filename = chardev_filename(chr);

        json_array_append_new(list, json_pack("{s:b, s:s, s:s}", "frontend-open",
                                              chardev_has_frontend(chr), "filename", filename,
                                              "label", chardev_id(chr)));
    }
    return list;
}
