/* SPDX-License-Identifier: MIT */
/* QMP: the table of commands, and those about the protocol itself. */
#include <string.h>

#include "config.h"
#include "monitor/qmp.h"
#include "monitor/qmp_commands.h"

static json_t *cmd_qmp_capabilities(json_t *args, struct error **errp)
{
    json_t *enable = json_object_get(args, "enable");

    if (enable && json_array_size(enable)) {
        error_set(errp, "this server has no capabilities to enable");
        return NULL;
    }
    return json_object();
}

static json_t *cmd_query_version(json_t *args, struct error **errp)
{
    return json_pack("{s:{s:i, s:i, s:i}, s:s}", "qemu", "micro", 0, "minor", 2, "major", 7,
                     "package", "ferry " FERRY_VERSION);
}

static json_t *cmd_query_commands(json_t *args, struct error **errp)
{
    json_t *list = json_array();

    for (const struct qmp_command *c = qmp_commands; c->name; c++) {
        json_array_append_new(list, json_pack("{s:s}", "name", c->name));
    }
    return list;
}

/* For what ferry never has: jobs, hot-plugged memory. */
static json_t *cmd_query_nothing(json_t *args, struct error **errp)
{
    return json_array();
}

static json_t *cmd_human_monitor(json_t *args, struct error **errp)
{
    error_set(errp, "the human monitor is not in this build; use QMP commands (query-commands "
                    "lists them)");
    return NULL;
}

const struct qmp_command qmp_commands[] = {
    {"qmp_capabilities", "?enable:a", cmd_qmp_capabilities, true},
    {"query-version", NULL, cmd_query_version, false},
    {"query-commands", NULL, cmd_query_commands, false},
    {"human-monitor-command", "command-line:s,?cpu-index:i", cmd_human_monitor, false},

    {"query-status", NULL, qmp_query_status, false},
    {"stop", NULL, qmp_stop, false},
    {"cont", NULL, qmp_cont, false},
    {"system_reset", NULL, qmp_system_reset, false},
    {"system_powerdown", NULL, qmp_system_powerdown, false},
    {"quit", NULL, qmp_quit, false},

    {"query-name", NULL, qmp_query_name, false},
    {"query-uuid", NULL, qmp_query_uuid, false},
    {"query-target", NULL, qmp_query_target, false},
    {"query-kvm", NULL, qmp_query_kvm, false},
    {"query-machines", NULL, qmp_query_machines, false},
    {"query-current-machine", NULL, qmp_query_current_machine, false},
    {"query-cpus-fast", NULL, qmp_query_cpus_fast, false},
    {"query-memory-size-summary", NULL, qmp_query_memory_size_summary, false},
    {"query-memory-devices", NULL, cmd_query_nothing, false},
    {"query-chardev", NULL, qmp_query_chardev, false},

    {"qom-list-types", "?implements:s,?abstract:b", qmp_qom_list_types, false},
    {"device-list-properties", "typename:s", qmp_device_list_properties, false},
    {"qom-list-properties", "typename:s", qmp_qom_list_properties, false},
    {"qom-list", "path:s", qmp_qom_list, false},
    {"qom-get", "path:s,property:s", qmp_qom_get, false},
    {"device_add", "driver:s,?bus:s,?id:s,...:*", qmp_device_add, false},
    {"device_del", "id:s", qmp_device_del, false},
    {"object-add", "qom-type:s,id:s,...:*", qmp_object_add, false},
    {"object-del", "id:s", qmp_object_del, false},
    {"query-iothreads", NULL, qmp_query_iothreads, false},

    {"query-block", NULL, qmp_query_block, false},
    {"query-named-block-nodes", "?flat:b", qmp_query_named_block_nodes, false},
    {"query-block-jobs", NULL, cmd_query_nothing, false},
    {"query-jobs", NULL, cmd_query_nothing, false},
    {"blockdev-add", "driver:s,?node-name:s,...:*", qmp_blockdev_add, false},
    {"blockdev-del", "node-name:s", qmp_blockdev_del, false},
    {NULL},
};

const struct qmp_command *qmp_command_find(const char *name)
{
    for (const struct qmp_command *c = qmp_commands; c->name; c++) {
        if (!strcmp(c->name, name)) {
            return c;
        }
    }
    return NULL;
}
