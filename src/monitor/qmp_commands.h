/* SPDX-License-Identifier: MIT */
/* The functions behind the command table of qmp_commands.c, file by file. Main loop. */
#ifndef FERRY_MONITOR_QMP_COMMANDS_H
#define FERRY_MONITOR_QMP_COMMANDS_H

#include <jansson.h>

#include "base/error.h"

typedef json_t *qmp_run_fn(json_t *args, struct error **errp);

/* qmp_vm.c: the VM and its processors, memory and characters. */
qmp_run_fn qmp_query_status, qmp_stop, qmp_cont, qmp_system_reset, qmp_system_powerdown, qmp_quit,
    qmp_query_name, qmp_query_uuid, qmp_query_target, qmp_query_kvm, qmp_query_machines,
    qmp_query_current_machine, qmp_query_cpus_fast, qmp_query_memory_size_summary,
    qmp_query_chardev;

/* qmp_object.c: types, devices, objects and their properties. */
qmp_run_fn qmp_qom_list_types, qmp_device_list_properties, qmp_qom_list_properties, qmp_qom_list,
    qmp_qom_get, qmp_device_add, qmp_device_del, qmp_object_add, qmp_object_del,
    qmp_query_iothreads;
struct device;
/* The device or object at a path of the tree, or NULL. */
struct device *qom_find_device(const char *path);
/* Where users look for what a disk is: in the half of it that is no transport. The caller frees it. */
char *qom_path_of_disk(const struct device *dev);

/* qmp_block.c */
qmp_run_fn qmp_query_block, qmp_query_named_block_nodes, qmp_blockdev_add, qmp_blockdev_del;

#endif
