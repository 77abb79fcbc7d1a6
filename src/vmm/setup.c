/* SPDX-License-Identifier: MIT */
#include "vmm/setup.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "accel/accel.h"
#include "accel/cpu_model.h"
#include "accel/vcpu.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "base/range.h"
#include "block/backend.h"
#include "chardev/chardev.h"
#include "device/iothread.h"
#include "device/system.h"
#include "machine/generic_loader.h"
#include "machine/machine.h"
#include "mem/address_space.h"
#include "mem/machine_lock.h"
#include "monitor/monitor.h"
#include "vmm/configure.h"
#include "vmm/drives.h"
#include "vmm/lifecycle.h"

static struct {
    struct aio_loop *loop;
    struct machine *machine;
    struct cpu_model *model;
    struct accel *accel;
    char *name, *uuid, *pidfile;
    bool memory;
} made;

/* ---- steps ---------------------------------------------------------------------------------- */

/* What other errors may be told with comes first. */
static bool setup_logs(const struct cmdline *cmdline, struct error **errp)
{
    return config_name(&cmdline->name, &made.name, errp) &&
           config_messages(&cmdline->msg, made.name, errp) &&
           (!cmdline->log_items || log_parse_items(cmdline->log_items, &log_mask, errp)) &&
           (!cmdline->log_file || log_set_file(cmdline->log_file, errp));
}

static bool write_pidfile(const char *path, struct error **errp)
{
    char text[16];
    int n = snprintf(text, sizeof(text), "%d\n", getpid());
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    /* The lock is held until the process ends. */
    if (fd < 0 || fcntl(fd, F_SETLK, &lock) < 0 || ftruncate(fd, 0) < 0 ||
        write(fd, text, n) != n) {
        error_set_errno(errp, errno, "-pidfile '%s'", path);
        if (fd >= 0) {
            close(fd);
        }
        return false;
    }
    made.pidfile = xstrdup(path);
    return true;
}

static bool setup_host(const struct cmdline *cmdline, struct error **errp)
{
    made.loop = aio_loop_new("main", AIO_LOOP_AUTO, errp);
    if (!made.loop) {
        return false;
    }
    aio_loop_bind(made.loop);
    main_loop_set(made.loop);
    mem_init();
    mem_thread_register();
    made.memory = true;
    return !cmdline->pidfile || write_pidfile(cmdline->pidfile, errp);
}

/* The character device of COM<index + 1>; *id stays NULL for "none". */
static bool setup_serial(const char *text, unsigned index, char **id, struct error **errp)
{
    autofree char *label = xasprintf("serial%u", index);
    struct chardev *chr;

    if (!strcmp(text, "none")) {
        return true;
    }
    chr = chardev_new_from_legacy(text, label, errp);
    if (!chr) {
        error_prepend(errp, "-serial %s: ", text);
        return false;
    }
    *id = xstrdup(chardev_id(chr));
    return true;
}

static bool setup_chardevs(const struct cmdline *cmdline, struct error **errp)
{
    const struct text_list *serial = &cmdline->serial;

    if (cmdline->echr) {
        uint64_t value;
        if (!parse_uint(cmdline->echr, &value) || value > 255) {
            error_set(errp, "-echr %s: needs a character code from 0 to 255", cmdline->echr);
            return false;
        }
        chardev_set_escape(value);
    }
    for (size_t i = 0; i < cmdline->chardev.count; i++) {
        struct options *opts = options_parse(cmdline->chardev.text[i], "backend", errp);
        bool ok = opts && chardev_new_from_options(opts, errp);

        options_free(opts);
        if (!ok) {
            error_prepend(errp, "-chardev %s: ", cmdline->chardev.text[i]);
            return false;
        }
    }
    if (serial->count > ARRAY_SIZE(made.machine->serial)) {
        error_set(errp, "-serial: the machine has %zu serial ports, %zu are asked for",
                  ARRAY_SIZE(made.machine->serial), serial->count);
        return false;
    }
    for (size_t i = 0; i < serial->count; i++) {
        if (!setup_serial(serial->text[i], i, &made.machine->serial[i], errp)) {
            return false;
        }
    }
    if (serial->count == 0 && !cmdline->nodefaults) {
        return setup_serial(cmdline->nographic ? "mon:stdio" : "null", 0, &made.machine->serial[0],
                            errp);
    }
    return true;
}

static bool for_each(const struct text_list *list, const char *implied, const char *option,
                     bool (*fn)(struct options *opts, struct error **errp), struct error **errp)
{
    for (size_t i = 0; i < list->count; i++) {
        struct options *opts = options_parse(list->text[i], implied, errp);
        bool ok = opts && fn(opts, errp);

        options_free(opts);
        if (!ok) {
            error_prepend(errp, "%s %s: ", option, list->text[i]);
            return false;
        }
    }
    return true;
}

static bool add_object(struct options *opts, struct error **errp)
{
    bool ok;

    machine_lock();
    ok = object_add(opts, errp) != NULL;
    machine_unlock();
    return ok;
}

static bool add_device(struct options *opts, struct error **errp)
{
    bool ok;

    machine_lock();
    ok = device_add(opts, errp) != NULL;
    machine_unlock();
    return ok;
}

/* -debugcon DEV: a character device, and an isa-debugcon at its port. */
static bool setup_debugcon(const char *text, unsigned index, struct error **errp)
{
    autofree char *label = xasprintf("debugcon%u", index);
    struct chardev *chr = chardev_new_from_legacy(text, label, errp);
    struct options *opts;
    bool ok;

    if (!chr) {
        return false;
    }
    opts = options_new();
    options_set(opts, "driver", "isa-debugcon");
    options_set(opts, "iobase", "0xe9");
    options_set(opts, "chardev", chardev_id(chr));
    ok = add_device(opts, errp);
    options_free(opts);
    return ok;
}

static bool setup_debugcons(const struct text_list *list, struct error **errp)
{
    for (size_t i = 0; i < list->count; i++) {
        if (!setup_debugcon(list->text[i], i, errp)) {
            error_prepend(errp, "-debugcon %s: ", list->text[i]);
            return false;
        }
    }
    return true;
}

/* -accel, or -machine accel= (-enable-kvm is one); nothing: the default order. */
static bool setup_accel(const struct cmdline *cmdline, struct error **errp)
{
    const char *entries[32];
    autofree char *list = NULL;
    size_t count = 0;

    if (cmdline->accel.count && made.machine->accel) {
        error_set(errp, "The -accel and \"-machine accel=\" options are incompatible");
        return false;
    }
    for (size_t i = 0; i < cmdline->accel.count && count < ARRAY_SIZE(entries); i++) {
        entries[count++] = cmdline->accel.text[i];
    }
    if (made.machine->accel) {
        char *save, *item;

        list = xstrdup(made.machine->accel);
        for (item = strtok_r(list, ":", &save); item && count < ARRAY_SIZE(entries);
             item = strtok_r(NULL, ":", &save)) {
            entries[count++] = item;
        }
    }
    made.accel =
        accel_init(entries, count, made.machine->kernel_irqchip, made.machine->smp.max_cpus, errp);
    return made.accel != NULL;
}

/* An engine without vCPUs takes -cpu, too: what would be refused elsewhere is refused here. */
static bool setup_vcpus(const struct cmdline *cmdline, struct error **errp)
{
    const struct machine *machine = made.machine;
    const struct cpu_topology topology = {
        .sockets = machine->smp.sockets,
        .dies = machine->smp.dies,
        .cores = machine->smp.cores,
        .threads = machine->smp.threads,
    };

    if (!made.accel->ops->has_vcpus && !cmdline->cpu) {
        return true;
    }
    made.model = cpu_model_new(cmdline->cpu, made.accel, machine->smp.cpus, errp);
    if (!made.model) {
        return false;
    }
    cpu_model_set_topology(made.model, &topology);
    if (!machine_check_phys_bits(made.machine, cpu_model_phys_bits(made.model), errp)) {
        return false;
    }
    return !made.accel->ops->has_vcpus ||
           vcpus_create(made.accel, made.model, machine->smp.cpus, errp);
}

/* CPUs that this process may use. */
static unsigned host_cpus(void)
{
    cpu_set_t set;
    long online;

    if (sched_getaffinity(0, sizeof(set), &set) == 0) {
        return CPU_COUNT(&set);
    }
    /* More than the set holds. */
    online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? online : 1;
}

/* The main loop polls the virtqueues that it has, like an iothread, but only where the vCPUs leave
 * it a CPU: else it would spin in the time of the one that it waits for. */
static void setup_polling(void)
{
    if (made.accel->ops->has_vcpus && made.machine->smp.cpus < host_cpus()) {
        aio_loop_set_poll(made.loop, IOTHREAD_POLL_MAX_NS, 0, 0);
    }
}

static bool setup_machine_text(const struct cmdline *cmdline, struct error **errp)
{
    struct machine *machine = config_machine(cmdline, errp);

    if (!machine) {
        return false;
    }
    made.machine = machine;
    return config_memory(machine, &cmdline->memory, errp) &&
           config_smp(machine, &cmdline->smp, errp) && config_rtc(machine, &cmdline->rtc, errp) &&
           config_boot(&cmdline->boot, errp) && config_overcommit(&cmdline->overcommit, errp) &&
           config_uuid(cmdline->uuid, &made.uuid, errp);
}

/* A machine with nothing to run would show nothing at all. */
static bool check_boot(struct error **errp)
{
    const struct machine *machine = made.machine;

    if (!machine->kernel && !machine->bios && !generic_loader_exists() &&
        made.accel->ops->has_vcpus) {
        error_set(errp, "there is nothing to boot: give -kernel FILE, -bios FILE or -device "
                        "loader,file=FILE");
        error_add_hint(errp, "This build starts no firmware of its own yet.");
        return false;
    }
    return true;
}

static bool setup_qmp(const struct text_list *list, bool pretty, struct error **errp)
{
    for (size_t i = 0; i < list->count; i++) {
        if (!monitor_add_qmp(list->text[i], pretty, errp)) {
            error_prepend(errp, "-qmp%s %s: ", pretty ? "-pretty" : "", list->text[i]);
            return false;
        }
    }
    return true;
}

static bool setup_monitors(const struct cmdline *cmdline, struct error **errp)
{
    for (size_t i = 0; i < cmdline->qtest.count; i++) {
        if (!qtest_server_start(cmdline->qtest.text[i], cmdline->qtest_log, errp)) {
            error_prepend(errp, "-qtest %s: ", cmdline->qtest.text[i]);
            return false;
        }
    }
    if (!setup_qmp(&cmdline->qmp, false, errp) || !setup_qmp(&cmdline->qmp_pretty, true, errp)) {
        return false;
    }
    return for_each(&cmdline->mon, "chardev", "-mon", monitor_add, errp);
}

/* The engine's own timer has no device type here; what it does may be asked for. */
static bool is_kvm_pit(const char *text, bool *ok, struct error **errp)
{
    static const char driver[] = "kvm-pit.", policy[] = "kvm-pit.lost_tick_policy=delay";

    *ok = true;
    if (strncmp(text, driver, strlen(driver))) {
        return false;
    }
    if (strcmp(text, policy)) {
        error_set(errp, "-global %s: this build has only %s", text, policy);
        *ok = false;
    }
    return true;
}

static bool setup_globals(const struct cmdline *cmdline, struct error **errp)
{
    for (size_t i = 0; i < cmdline->global.count; i++) {
        const char *text = cmdline->global.text[i];
        bool ok;

        if (!is_kvm_pit(text, &ok, errp)) {
            ok = device_add_global(text, errp);
        }
        if (!ok) {
            return false;
        }
    }
    return device_check_globals(errp);
}

static void chardev_exit(void)
{
    system_shutdown_request(SYSTEM_CAUSE_HOST_UI);
}

bool setup(const struct cmdline *cmdline, struct error **errp)
{
    struct lifecycle_actions actions;

    if (!setup_logs(cmdline, errp) || !config_actions(cmdline, &actions, errp) ||
        !setup_machine_text(cmdline, errp) || !setup_host(cmdline, errp) ||
        !lifecycle_init(made.loop, made.machine, &actions, made.name, made.uuid, errp)) {
        return false;
    }
    chardev_set_exit_handler(chardev_exit);
    if (!setup_globals(cmdline, errp) || !setup_chardevs(cmdline, errp) ||
        !for_each(&cmdline->object, "qom-type", "-object", add_object, errp) ||
        !for_each(&cmdline->blockdev, "driver", "-blockdev", blockdev_add, errp) ||
        !drives_open(&cmdline->drive, cmdline->snapshot, errp) || !setup_accel(cmdline, errp) ||
        !machine_init(made.machine, errp) || !setup_vcpus(cmdline, errp) ||
        !setup_debugcons(&cmdline->debugcon, errp) ||
        !for_each(&cmdline->device, "driver", "-device", add_device, errp) ||
        !drives_add_devices(errp) || !check_boot(errp) || !machine_ready(made.machine, errp) ||
        !machine_reset(made.machine, errp)) {
        return false;
    }
    devices_cold_plug_done();
    setup_polling();
    if (!setup_monitors(cmdline, errp)) {
        return false;
    }
    return cmdline->stopped || vm_start(errp);
}

void setup_cleanup(void)
{
    vcpus_destroy();
    monitors_cleanup();
    backends_close();
    if (made.memory) {
        machine_lock();
        devices_free();
        machine_unlock();
    }
    drives_close();
    block_nodes_close();
    chardevs_cleanup();
    accel_cleanup();
    cpu_model_free(made.model);
    machine_free(made.machine);
    lifecycle_cleanup();
    if (made.memory) {
        mem_cleanup();
        mem_thread_unregister();
    }
    if (made.loop) {
        aio_loop_unbind(made.loop);
        aio_loop_free(made.loop);
    }
    if (made.pidfile) {
        unlink(made.pidfile);
        free(made.pidfile);
    }
    free(made.name);
    free(made.uuid);
}
