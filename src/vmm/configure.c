/* SPDX-License-Identifier: MIT */
#include "vmm/configure.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "base/range.h"

/* An option that is a list of keys, given any number of times: the keys of all, the last ones
 * counting. NULL on error; what: the option's name, for the error. */
static struct options *merge(const struct text_list *list, const char *implied, const char *what,
                             struct error **errp)
{
    struct options *all = options_new();

    for (size_t i = 0; i < list->count; i++) {
        struct options *opts = options_parse(list->text[i], implied, errp);

        if (!opts) {
            error_prepend(errp, "%s: ", what);
            options_free(all);
            return NULL;
        }
        options_merge(all, opts);
        options_free(opts);
    }
    return all;
}

/* ---- -machine ------------------------------------------------------------------------------- */

static const struct machine_type *default_machine(void)
{
    for (unsigned i = 0; machine_types[i]; i++) {
        if (machine_types[i]->is_default) {
            return machine_types[i];
        }
    }
    return machine_types[0];
}

/* "kernel_irqchip" is an old spelling of "kernel-irqchip". */
static char *dashify(const char *key)
{
    char *name = xstrdup(key);

    for (char *c = name; *c; c++) {
        *c = *c == '_' ? '-' : *c;
    }
    return name;
}

/* Properties of one -machine option, "type" excepted. */
static bool apply_properties(struct machine *machine, struct options *opts, struct error **errp)
{
    for (size_t i = 0; i < options_count(opts); i++) {
        autofree char *key = dashify(options_key(opts, i));

        if (strcmp(key, "type") && !machine_set(machine, key, options_value(opts, i), errp)) {
            return false;
        }
    }
    return true;
}

static const struct machine_type *find_type(struct options *opts, struct error **errp)
{
    const char *name = options_get(opts, "type");
    const struct machine_type *type = name ? machine_type_find(name) : NULL;
    const char *names[8];
    size_t count = 0;
    const char *near;

    if (!name || type) {
        return type;
    }
    for (unsigned i = 0; machine_types[i] && count + 2 <= ARRAY_SIZE(names); i++) {
        names[count++] = machine_types[i]->name;
        if (machine_types[i]->alias) {
            names[count++] = machine_types[i]->alias;
        }
    }
    near = nearest_name(name, names, count);
    error_set(errp, "-machine: unsupported machine type '%s'%s%s%s", name,
              near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    error_add_hint(errp, "Use -machine help to list supported machines");
    return NULL;
}

struct machine *config_machine(const struct cmdline *cmdline, struct error **errp)
{
    const struct machine_type *type = default_machine();
    struct machine *machine = NULL;
    struct error *err = NULL;
    size_t count = cmdline->machine.count;
    struct options **opts = xcalloc(count + 1, sizeof(*opts));

    for (size_t i = 0; i < count && !err; i++) {
        const struct machine_type *t;

        opts[i] = options_parse(cmdline->machine.text[i], "type", &err);
        if (opts[i]) {
            t = find_type(opts[i], &err);
            type = t ? t : type;
        }
    }
    if (!err) {
        machine = machine_new(type);
        for (size_t i = 0; i < count && !err; i++) {
            apply_properties(machine, opts[i], &err);
        }
    }
    for (size_t i = 0; i < count; i++) {
        options_free(opts[i]);
    }
    free(opts);
    if (err) {
        machine_free(machine);
        error_propagate(errp, err);
        return NULL;
    }
    return machine;
}

/* ---- -m ------------------------------------------------------------------------------------- */

bool config_memory(struct machine *machine, const struct text_list *list, struct error **errp)
{
    struct options *opts;
    bool ok = false;

    if (list->count == 0) {
        return true;
    }
    opts = merge(list, "size", "-m", errp);
    if (!opts) {
        return false;
    }
    if (options_has(opts, "slots") || options_has(opts, "maxmem")) {
        error_set(errp, "-m: memory hot-plug (slots, maxmem) is not in this build; leave them out");
    } else if (!options_get_size(opts, "size", MiB, &machine->ram_size, errp)) {
        error_prepend(errp, "-m: ");
    } else if (machine->ram_size == 0) {
        error_set(errp, "-m %s: the guest needs some RAM", options_get(opts, "size"));
    } else {
        machine->ram_size = align_up(machine->ram_size, GUEST_PAGE_SIZE);
        ok = options_check_used(opts, "-m", errp);
    }
    options_free(opts);
    return ok;
}

/* ---- -smp ----------------------------------------------------------------------------------- */

struct topology {
    uint64_t cpus, maxcpus, sockets, dies, clusters, cores, threads; /* 0: not given */
};

/* As QEMU since 6.2: what is missing is filled in cores first, then sockets. */
static void complete_topology(struct topology *t)
{
    uint64_t max = t->maxcpus ? t->maxcpus : t->cpus;

    t->dies = t->dies ? t->dies : 1;
    if (!max) {
        t->sockets = t->sockets ? t->sockets : 1;
        t->cores = t->cores ? t->cores : 1;
        t->threads = t->threads ? t->threads : 1;
    } else if (!t->cores) {
        t->sockets = t->sockets ? t->sockets : 1;
        t->threads = t->threads ? t->threads : 1;
        t->cores = max / (t->sockets * t->dies * t->threads);
    } else if (!t->sockets) {
        t->threads = t->threads ? t->threads : 1;
        t->sockets = max / (t->dies * t->cores * t->threads);
    } else if (!t->threads) {
        t->threads = max / (t->sockets * t->dies * t->cores);
    }
    t->maxcpus = max ? max : t->sockets * t->dies * t->cores * t->threads;
    t->cpus = t->cpus ? t->cpus : t->maxcpus;
}

static bool check_topology(const struct machine *machine, const struct topology *t,
                           struct error **errp)
{
    if (t->sockets * t->dies * t->cores * t->threads != t->maxcpus) {
        error_set(
            errp,
            "-smp: Invalid CPU topology: product of the hierarchy must match maxcpus: sockets "
            "(%" PRIu64 ") * dies (%" PRIu64 ") * cores (%" PRIu64 ") * threads (%" PRIu64
            ") != maxcpus (%" PRIu64 ")",
            t->sockets, t->dies, t->cores, t->threads, t->maxcpus);
        return false;
    }
    if (t->maxcpus < t->cpus) {
        error_set(errp, "-smp: maxcpus (%" PRIu64 ") must be at least cpus (%" PRIu64 ")",
                  t->maxcpus, t->cpus);
        return false;
    }
    if (t->maxcpus > machine->type->max_cpus) {
        error_set(errp,
                  "-smp: Invalid SMP CPUs %" PRIu64
                  ". The max CPUs supported by machine '%s' is %u",
                  t->maxcpus, machine->type->name, machine->type->max_cpus);
        return false;
    }
    if (t->maxcpus != t->cpus) {
        error_set(errp, "-smp: CPU hot-plug (maxcpus above cpus) is not in this build");
        return false;
    }
    return true;
}

bool config_smp(struct machine *machine, const struct text_list *list, struct error **errp)
{
    static const char *const keys[] = {
        "cpus", "maxcpus", "sockets", "dies", "clusters", "cores", "threads",
    };
    struct topology t = {0};
    uint64_t *const values[] = {
        &t.cpus, &t.maxcpus, &t.sockets, &t.dies, &t.clusters, &t.cores, &t.threads,
    };
    struct options *opts;
    bool ok = true;

    if (list->count == 0) {
        return true;
    }
    opts = merge(list, "cpus", "-smp", errp);
    if (!opts) {
        return false;
    }
    for (size_t i = 0; ok && i < ARRAY_SIZE(keys); i++) {
        ok = options_get_uint(opts, keys[i], 0, 65535, values[i], errp);
        if (!ok) {
            error_prepend(errp, "-smp: ");
        } else if (options_has(opts, keys[i]) && *values[i] == 0) {
            error_set(errp,
                      "-smp: Invalid CPU topology: CPU topology parameters must be greater "
                      "than zero (%s=0)",
                      keys[i]);
            ok = false;
        }
    }
    ok = ok && options_check_used(opts, "-smp", errp);
    options_free(opts);
    if (ok && t.clusters > 1) {
        error_set(errp, "-smp: clusters not supported by this machine's CPU topology");
        ok = false;
    }
    if (!ok) {
        return false;
    }
    complete_topology(&t);
    if (!check_topology(machine, &t, errp)) {
        return false;
    }
    machine->smp.cpus = t.cpus;
    machine->smp.max_cpus = t.maxcpus;
    machine->smp.sockets = t.sockets;
    machine->smp.dies = t.dies;
    machine->smp.cores = t.cores;
    machine->smp.threads = t.threads;
    return true;
}

/* ---- -rtc, -name, -msg, -uuid ------------------------------------------------------------------- */

bool config_rtc(struct machine *machine, const struct text_list *list, struct error **errp)
{
    struct options *opts;
    const char *drift;
    bool ok = false;

    if (list->count == 0) {
        return true;
    }
    opts = merge(list, NULL, "-rtc", errp);
    if (!opts) {
        return false;
    }
    drift = options_get(opts, "driftfix");
    if (drift && strcmp(drift, "none")) {
        error_set(errp, "-rtc driftfix=%s: this build has only driftfix=none", drift);
    } else {
        const char *base = options_get(opts, "base"), *clock = options_get(opts, "clock");
        machine->rtc_base = base ? xstrdup(base) : NULL;
        machine->rtc_clock = clock ? xstrdup(clock) : NULL;
        ok = options_check_used(opts, "-rtc", errp);
    }
    options_free(opts);
    return ok;
}

bool config_name(const struct text_list *list, char **name, struct error **errp)
{
    struct options *opts;
    const char *process;
    bool threads = false, ok = false;

    *name = NULL;
    if (list->count == 0) {
        return true;
    }
    opts = merge(list, "guest", "-name", errp);
    if (!opts) {
        return false;
    }
    if (!options_get_bool(opts, "debug-threads", &threads, errp)) {
        error_prepend(errp, "-name: ");
    } else {
        const char *guest = options_get(opts, "guest");

        process = options_get(opts, "process");
        if (process) {
            prctl(PR_SET_NAME, process);
        }
        ok = options_check_used(opts, "-name", errp);
        *name = ok && guest ? xstrdup(guest) : NULL;
    }
    options_free(opts);
    return ok;
}

bool config_messages(const struct text_list *list, const char *name, struct error **errp)
{
    bool timestamp = false, guest_name = false, ok;
    struct options *opts;

    if (list->count == 0) {
        return true;
    }
    opts = options_parse(list->text[list->count - 1], NULL, errp);
    ok = opts && options_get_bool(opts, "timestamp", &timestamp, errp) &&
         options_get_bool(opts, "guest-name", &guest_name, errp);
    if (!ok) {
        error_prepend(errp, "-msg: ");
    }
    ok = ok && options_check_used(opts, "-msg", errp);
    options_free(opts);
    if (ok) {
        log_set_heads(timestamp, guest_name ? name : NULL);
    }
    return ok;
}

bool config_uuid(const char *text, char **uuid, struct error **errp)
{
    static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

    *uuid = text ? xstrdup(text) : NULL;
    for (size_t i = 0; text && i < sizeof(form); i++) {
        char c = text[i];

        if (form[i] == 'x' ? !isxdigit((unsigned char)c) : c != form[i]) {
            error_set(errp, "-uuid %s: a UUID has hexadecimal digits in the form %s", text, form);
            free(*uuid);
            *uuid = NULL;
            return false;
        }
        (*uuid)[i] = tolower((unsigned char)c);
    }
    return true;
}

/* ---- -boot, -overcommit, -action ------------------------------------------------------------ */

bool config_boot(const struct text_list *list, struct error **errp)
{
    static const char *const lacking[] = {
        "order", "once", "splash", "splash-time", "reboot-timeout",
    };
    struct options *opts = merge(list, "order", "-boot", errp);
    bool strict, menu = false, ok;

    if (!opts) {
        return false;
    }
    ok = options_get_bool(opts, "strict", &strict, errp) &&
         options_get_bool(opts, "menu", &menu, errp);
    if (!ok) {
        error_prepend(errp, "-boot: ");
    }
    for (size_t i = 0; ok && i < ARRAY_SIZE(lacking); i++) {
        const char *value = options_get(opts, lacking[i]);

        if (value) {
            error_set(errp, "-boot %s=%s: there is no fw_cfg to tell a firmware; leave it out",
                      lacking[i], value);
            ok = false;
        }
    }
    if (ok && menu) {
        error_set(errp, "-boot menu=on: there is no fw_cfg to tell a firmware; leave it out");
        ok = false;
    }
    ok = ok && options_check_used(opts, "-boot", errp);
    options_free(opts);
    return ok;
}

bool config_overcommit(const struct text_list *list, struct error **errp)
{
    static const char *const keys[] = {"mem-lock", "cpu-pm"};
    bool ok = true;

    /* Not merged: in QEMU an "on" stays, whatever follows. */
    for (size_t i = 0; ok && i < list->count; i++) {
        struct options *opts = options_parse(list->text[i], NULL, errp);

        ok = opts;
        for (size_t k = 0; ok && k < ARRAY_SIZE(keys); k++) {
            bool on = false;

            ok = options_get_bool(opts, keys[k], &on, errp);
            if (on) {
                error_set(errp, "%s=on is not in this build; leave it off", keys[k]);
                ok = false;
            }
        }
        if (!ok) {
            error_prepend(errp, "-overcommit: ");
        }
        ok = ok && options_check_used(opts, "-overcommit", errp);
        options_free(opts);
    }
    return ok;
}

static bool one_action(const char *text, struct lifecycle_actions *actions, struct error **errp)
{
    static const char *const reboot[] = {"reset", "shutdown", "none", NULL};
    static const char *const shutdown[] = {"poweroff", "pause", NULL};
    static const char *const panic[] = {"shutdown", "pause", "exit-failure", "none", NULL};
    struct options *opts = options_parse(text, NULL, errp);
    int r = actions->reboot, s = actions->shutdown, p = actions->panic;
    bool ok;

    if (!opts) {
        error_prepend(errp, "-action: ");
        return false;
    }
    ok = options_get_enum(opts, "reboot", reboot, &r, errp) &&
         options_get_enum(opts, "shutdown", shutdown, &s, errp) &&
         options_get_enum(opts, "panic", panic, &p, errp);
    if (!ok) {
        error_prepend(errp, "-action: ");
    }
    ok = ok && options_check_used(opts, "-action", errp);
    options_free(opts);
    actions->reboot = r;
    actions->shutdown = s;
    actions->panic = p;
    return ok;
}

bool config_actions(const struct cmdline *cmdline, struct lifecycle_actions *actions,
                    struct error **errp)
{
    *actions = (struct lifecycle_actions){0};
    for (size_t i = 0; i < cmdline->action.count; i++) {
        if (!one_action(cmdline->action.text[i], actions, errp)) {
            return false;
        }
    }
    return true;
}
