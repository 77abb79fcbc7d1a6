/* SPDX-License-Identifier: MIT */
#include "vmm/cmdline.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/options.h"
#include "base/range.h"
#include "config.h"

enum option_kind {
    OPTION_HEADING, /* a line of the help text */
    OPTION_FLAG,    /* bool at offset */
    OPTION_TEXT,    /* const char * at offset, the last one counts */
    OPTION_LIST,    /* struct text_list at offset */
    OPTION_SHORT,   /* short for an item of the list at offset, `item` and the argument */
    OPTION_FIXED,   /* only the values of `values` are there; nothing to do for them */
    OPTION_LACKING, /* QEMU has it, ferry not: `help` says what to do instead */
    OPTION_HELP,
    OPTION_VERSION,
};

struct option {
    const char *name;
    const char *alias;
    enum option_kind kind;
    size_t offset;
    bool has_argument;
    const char *argument; /* for the help text */
    const char *help;
    const char *const *values;
    const char *item;
};

static const char *const only_none[] = {"none", NULL};
static const char *const monitors[] = {"none", "null", NULL};

#define FLAG(n, f, h)                                                                              \
    {                                                                                              \
        .name = n, .kind = OPTION_FLAG, .offset = offsetof(struct cmdline, f), .help = h           \
    }
#define TEXT(n, f, a, h)                                                                           \
    {                                                                                              \
        .name = n, .kind = OPTION_TEXT, .offset = offsetof(struct cmdline, f),                     \
        .has_argument = true, .argument = a, .help = h                                             \
    }
#define LIST(n, f, a, h)                                                                           \
    {                                                                                              \
        .name = n, .kind = OPTION_LIST, .offset = offsetof(struct cmdline, f),                     \
        .has_argument = true, .argument = a, .help = h                                             \
    }
#define FIXED(n, v, a, h)                                                                          \
    {                                                                                              \
        .name = n, .kind = OPTION_FIXED, .has_argument = true, .argument = a, .help = h,           \
        .values = v                                                                                \
    }
/* Where the order of this and the option that it stands for counts. */
#define SHORT(n, f, i, h)                                                                          \
    {                                                                                              \
        .name = n, .kind = OPTION_SHORT, .offset = offsetof(struct cmdline, f), .help = h,         \
        .item = i                                                                                  \
    }
#define SHORT_FOR(n, f, i, a, h)                                                                   \
    {                                                                                              \
        .name = n, .kind = OPTION_SHORT, .offset = offsetof(struct cmdline, f),                    \
        .has_argument = true, .argument = a, .help = h, .item = i                                  \
    }
#define LACKING(n, arg, h)                                                                         \
    {                                                                                              \
        .name = n, .kind = OPTION_LACKING, .has_argument = arg, .help = h                          \
    }
#define HEADING(h)                                                                                 \
    {                                                                                              \
        .name = NULL, .kind = OPTION_HEADING, .help = h                                            \
    }

static const struct option options[] = {
    HEADING("Standard options:"),
    {.name = "h", .alias = "help", .kind = OPTION_HELP, .help = "display this help and exit"},
    {.name = "version", .kind = OPTION_VERSION, .help = "display version information and exit"},
    {.name = "machine",
     .alias = "M",
     .kind = OPTION_LIST,
     .has_argument = true,
     .offset = offsetof(struct cmdline, machine),
     .argument = "[type=]name[,prop[=value][,...]]",
     .help = "select the machine ('-machine help' lists them)\n"
             "accel=accel1[:accel2[:...]] selects the accelerator\n"
             "kernel-irqchip=on|split|off who emulates the interrupt chips\n"
             "acpi=on|off|auto, smm=on|off|auto, i8042=on|off, pit=on|off,\n"
             "max-ram-below-4g=size\n"
             "kernel=, initrd=, append=, firmware= same as -kernel, -initrd, -append, -bios"},
    LIST("accel", accel, "[accel=]accelerator[,prop[=value][,...]]",
         "select the accelerator ('-accel help' lists them); may be repeated, the first that\n"
         "works is taken\n"
         "kernel-irqchip=on|split|off who emulates the interrupt chips\n"
         "force=on (kvm) run although the start-up probe says that kernels cannot run\n"
         "tb-size=n (tcg) MiB for decoded code; thread=multi (tcg) a thread for each CPU"),
    SHORT("enable-kvm", machine, "accel=kvm", "same as -machine accel=kvm"),
    TEXT("cpu", cpu, "model[,+feature][,-feature][,feature=on|off]",
         "select the CPU ('-cpu help' lists models and features)"),
    LIST("smp", smp,
         "[[cpus=]n][,maxcpus=maxcpus][,sockets=sockets][,dies=dies][,clusters=1][,cores=cores]"
         "[,threads=threads]",
         "set the number of CPUs to n [default=1]"),
    LIST("m", memory, "[size=]megs", "guest RAM [default: 128 MiB]; suffixes k, M, G"),
    LIST("device", device, "driver[,prop[=value][,...]]",
         "add a device ('-device help' lists them, '-device driver,help' lists properties)"),
    LIST("global", global, "driver.property=value", "set a default of a device's property"),
    LIST("name", name, "string[,process=string][,debug-threads=on|off]", "set the guest's name"),
    TEXT("uuid", uuid, "uuid", "set the guest's UUID, for QMP's query-uuid"),
    HEADING("Block device options:"),
    LIST("blockdev", blockdev,
         "[driver=]driver[,node-name=N][,discard=ignore|unmap]\n"
         "[,cache.direct=on|off][,cache.no-flush=on|off]\n"
         "[,read-only=on|off][,driver specific parameters...]",
         "open a block node"),
    LIST("drive", drive,
         "[file=file,]if=none|virtio[,format=f][,id=name][,serial=s]\n"
         "[,cache=writethrough|writeback|none|directsync|unsafe]\n"
         "[,aio=threads|io_uring|native][,readonly=on|off][,snapshot=on|off][,werror=..][,rerror=.."
         "]",
         "use 'file' as a drive image"),
    FLAG("snapshot", snapshot, "drives take writes in temporary files, images stay as they are"),
    HEADING("Boot options:"),
    SHORT_FOR("kernel", machine, "kernel=", "file",
              "boot a bzImage, an ELF file with a PVH note or multiboot"),
    SHORT_FOR("append", machine, "append=", "cmdline", "kernel command line"),
    SHORT_FOR("initrd", machine, "initrd=", "file", "initial RAM disk, or multiboot modules"),
    SHORT_FOR("bios", machine, "firmware=", "file",
              "firmware image, placed so that it ends at 4 GiB"),
    LIST("boot", boot, "[strict=on|off][,menu=off]", "there is no fw_cfg to tell a firmware"),
    HEADING("Character device options:"),
    LIST("chardev", chardev, "backend,id=id[,prop[=value][,...]]",
         "add a character device ('-chardev help' lists them)"),
    LIST("serial", serial, "dev", "redirect the serial port to character device 'dev'"),
    LIST("qmp", qmp, "dev", "QMP monitor on character device 'dev'"),
    LIST("qmp-pretty", qmp_pretty, "dev", "like -qmp, with the answers indented"),
    LIST("mon", mon, "[chardev=]name,mode=control[,pretty=on|off]",
         "QMP monitor on a character device"),
    FIXED("monitor", monitors, "none", "no human monitor"),
    TEXT("echr", echr, "chr", "set the terminal's escape character instead of Ctrl-A"),
    HEADING("Display and network options:"),
    FIXED("display", only_none, "none", "no display"),
    FIXED("vga", only_none, "none", "no VGA card"),
    FIXED("nic", only_none, "none", "no default network card"),
    FIXED("net", only_none, "none", "no default network card"),
    FIXED("parallel", only_none, "none", "no parallel port"),
    FLAG("nographic", nographic, "serial port on stdio (Ctrl-A x ends ferry, Ctrl-A h helps)"),
    HEADING("Debug and expert options:"),
    LIST("object", object, "TYPENAME[,PROP1=VALUE1,...]",
         "create an object ('-object help' lists them)"),
    FLAG("S", stopped, "freeze the CPUs at start-up (QMP 'cont' starts them)"),
    SHORT("no-reboot", action, "reboot=shutdown", "exit instead of rebooting"),
    SHORT("no-shutdown", action, "shutdown=pause",
          "stop instead of exiting when the guest powers off"),
    LIST("action", action,
         "reboot=reset|shutdown|none / shutdown=poweroff|pause / "
         "panic=pause|shutdown|exit-failure|none",
         "what to do at these events"),
    FLAG("nodefaults", nodefaults, "no default devices"),
    {.name = "no-user-config",
     .kind = OPTION_FLAG,
     .offset = SIZE_MAX,
     .help = "no configuration files (ferry reads none)"},
    SHORT("no-acpi", machine, "acpi=off", "same as -machine acpi=off"),
    {.name = "no-hpet", .kind = OPTION_FLAG, .offset = SIZE_MAX, .help = "no HPET (there is none)"},
    LIST("rtc", rtc, "[base=utc|localtime|<datetime>][,clock=host|rt|vm][,driftfix=none]",
         "set the clock's start"),
    LIST("overcommit", overcommit, "[mem-lock=off][,cpu-pm=off]",
         "guest memory may be swapped, idle CPUs are the host's"),
    LIST("msg", msg, "[timestamp=on|off][,guest-name=on|off]",
         "begin messages with the time and the guest's name"),
    TEXT("pidfile", pidfile, "file", "write the process id to 'file'"),
    TEXT("d", log_items, "item1,...", "log these items ('-d help' lists them)"),
    TEXT("D", log_file, "logfile", "log to 'logfile' instead of stderr"),
    LIST("debugcon", debugcon, "dev", "debug console (port 0xe9) on character device 'dev'"),
    LIST("qtest", qtest, "dev", "qtest protocol on character device 'dev'"),
    TEXT("qtest-log", qtest_log, "file", "log the qtest protocol to 'file' ('none': nowhere)"),

    LACKING("hda", true, "IDE disks are not in this build; use -drive file=…,if=virtio"),
    LACKING("hdb", true, "IDE disks are not in this build; use -drive file=…,if=virtio"),
    LACKING("hdc", true, "IDE disks are not in this build; use -drive file=…,if=virtio"),
    LACKING("hdd", true, "IDE disks are not in this build; use -drive file=…,if=virtio"),
    LACKING("cdrom", true, "IDE disks are not in this build; use -drive file=…,if=virtio"),
    LACKING("sd", true, "SD cards are not in this build; use -drive file=…,if=virtio"),
    LACKING("mtdblock", true, "flash is not in this build; use -bios"),
    LACKING("iscsi", true, "iSCSI is not in this build"),
    LACKING("fda", true, "floppy disks are not in this build"),
    LACKING("fdb", true, "floppy disks are not in this build"),
    LACKING("no-fd-bootchk", false, "floppy disks are not in this build"),
    LACKING("option-rom", true, "option ROMs need fw_cfg, which is not in this build"),
    LACKING("netdev", true, "networking is not in this build; use -nic none"),
    LACKING("daemonize", false, "use your service manager, or a shell's &"),
    LACKING("incoming", true, "migration is not in this build"),
    LACKING("loadvm", true, "snapshots are not in this build"),
    LACKING("gdb", true, "the gdb stub is not in this build"),
    LACKING("s", false, "the gdb stub is not in this build"),
    LACKING("usb", false, "USB is not in this build"),
    LACKING("usbdevice", true, "USB is not in this build"),
    LACKING("set", true, "give the property to the -device or -drive itself, or use -global"),
    LACKING("full-screen", false, "there is no display in this build; use -display none"),
    LACKING("curses", false, "there is no display in this build; use -display none"),
    LACKING("vnc", true, "there is no display in this build; use -display none"),
    LACKING("spice", true, "there is no display in this build; use -display none"),
    LACKING("smbios", true, "SMBIOS tables are not in this build"),
    LACKING("fw_cfg", true, "fw_cfg is not in this build"),
    LACKING("acpitable", true, "extra ACPI tables are not in this build"),
    LACKING("sandbox", true, "the seccomp sandbox is not in this build"),
    LACKING("mem-path", true, "memory back ends are not in this build"),
    LACKING("mem-prealloc", false, "memory back ends are not in this build"),
    LACKING("numa", true, "NUMA is not in this build"),
    LACKING("audio", true, "sound is not in this build"),
    LACKING("audio-help", false, "sound is not in this build"),
    LACKING("audiodev", true, "sound is not in this build"),
    LACKING("tpmdev", true, "TPM is not in this build"),
    LACKING("fsdev", true, "host directory sharing is not in this build"),
    LACKING("virtfs", true, "host directory sharing is not in this build"),
    LACKING("pflash", true, "flash is not in this build; use -bios"),
    LACKING("icount", true, "instruction counting is not in this build"),
    LACKING("watchdog", true, "watchdogs are not in this build"),
    LACKING("watchdog-action", true, "watchdogs are not in this build"),
    LACKING("readconfig", true, "configuration files are not in this build"),
    LACKING("runas", true, "start ferry as that user"),
    LACKING("chroot", true, "start ferry in a chroot or container"),
    LACKING("add-fd", true, "give files by their paths"),
    LACKING("preconfig", false, "give all of the machine on the command line; -S waits with it"),
    LACKING("only-migratable", false, "migration is not in this build"),
    LACKING("dump-vmstate", true, "migration is not in this build"),
    LACKING("compat", true, "QMP's deprecated and unstable parts are as they are in this build"),
    LACKING("dtb", true, "PCs have no device tree"),
    LACKING("prom-env", true, "PCs have no Open Firmware"),
    LACKING("plugin", true, "TCG plug-ins are not in this build"),
    LACKING("singlestep", false, "use -accel tcg with -d exec to see each instruction"),
    LACKING("dfilter", true, "-d has no filter in this build"),
    LACKING("seed", true, "randomness is the host's in this build"),
    LACKING("trace", true, "use bpftrace or perf with ferry's USDT probes"),
    LACKING("L", true, "ferry loads no files of its own; give paths"),
    LACKING("k", true, "there is no display in this build"),
};

bool cmdline_wants_help(const char *text)
{
    return !strcmp(text, "help") || !strcmp(text, "?");
}

void cmdline_print_help(FILE *to)
{
    fprintf(to, "ferry " FERRY_VERSION "\n"
                "usage: ferry [options]\n"
                "\n"
                "A virtual machine monitor with QEMU's command line.\n");
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        const struct option *o = &options[i];
        const char *line;

        if (o->kind == OPTION_LACKING) {
            continue;
        }
        if (o->kind == OPTION_HEADING) {
            fprintf(to, "\n%s\n", o->help);
            continue;
        }
        fprintf(to, "-%s", o->name);
        if (o->alias) {
            fprintf(to, " or -%s", o->alias);
        }
        if (o->argument) {
            fputc(' ', to);
            for (line = o->argument; *line; line++) {
                fputc(*line, to);
                if (*line == '\n') {
                    fputs("          ", to);
                }
            }
        }
        fputs("\n                ", to);
        for (line = o->help; *line; line++) {
            fputc(*line, to);
            if (*line == '\n') {
                fputs("                ", to);
            }
        }
        fputc('\n', to);
    }
    fprintf(to, "\nDuring emulation with -nographic or a muxed stdio, Ctrl-A h lists the keys.\n");
}

static const struct option *find_option(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        const struct option *o = &options[i];
        if (o->name && (!strcmp(o->name, name) || (o->alias && !strcmp(o->alias, name)))) {
            return o;
        }
    }
    return NULL;
}

static void unknown_option(const char *arg, const char *name, struct error **errp)
{
    const char *names[ARRAY_SIZE(options) * 2];
    const char *near;
    size_t count = 0;

    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        if (options[i].name && options[i].kind != OPTION_LACKING) {
            names[count++] = options[i].name;
            if (options[i].alias) {
                names[count++] = options[i].alias;
            }
        }
    }
    near = nearest_name(name, names, count);
    if (near) {
        error_set(errp, "%s: invalid option; did you mean '-%s'?", arg, near);
    } else {
        error_set(errp, "%s: invalid option; 'ferry -help' lists the valid ones", arg);
    }
}

static bool is_listed(const char *value, const char *const *values)
{
    for (; *values; values++) {
        if (!strcmp(value, *values)) {
            return true;
        }
    }
    return false;
}

static void print_values(const struct option *o)
{
    printf("Available values of -%s:\n", o->name);
    for (const char *const *value = o->values; *value; value++) {
        printf("%s\n", *value);
    }
}

static void append(struct text_list *list, const char *text)
{
    list->text = xreallocarray(list->text, list->count + 1, sizeof(*list->text));
    list->text[list->count++] = text;
}

/* "kernel=" and "a,b": "kernel=a,,b". */
static char *make_item(const char *item, const char *value)
{
    size_t length = strlen(item);
    char *text = xmalloc(length + 2 * strlen(value) + 1), *out = text + length;

    memcpy(text, item, length);
    for (; *value; value++) {
        *out++ = *value;
        if (*value == ',') {
            *out++ = ',';
        }
    }
    *out = 0;
    return text;
}

static bool store(struct cmdline *cmdline, const struct option *o, const char *value,
                  struct error **errp)
{
    void *field = (char *)cmdline + o->offset;

    switch (o->kind) {
    case OPTION_FLAG:
        if (o->offset != SIZE_MAX) {
            *(bool *)field = true;
        }
        return true;
    case OPTION_TEXT:
        *(const char **)field = value;
        return true;
    case OPTION_LIST:
        append(field, value);
        return true;
    case OPTION_SHORT: {
        char *item = make_item(o->item, value ? value : "");

        append(&cmdline->made, item);
        append(field, item);
        return true;
    }
    case OPTION_FIXED:
        if (cmdline_wants_help(value)) {
            print_values(o);
            return true;
        }
        if (!is_listed(value, o->values)) {
            error_set(errp, "-%s %s: this build has only '-%s %s'", o->name, value, o->name,
                      o->values[0]);
            return false;
        }
        return true;
    default:
        error_set(errp, "-%s: %s", o->name, o->help);
        return false;
    }
}

enum cmdline_result cmdline_parse(struct cmdline *cmdline, int argc, char **argv,
                                  struct error **errp)
{
    *cmdline = (struct cmdline){0};
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        const char *name = arg + 1, *value = NULL;
        const struct option *o;

        if (arg[0] != '-' || !arg[1]) {
            error_set(errp,
                      "'%s' is no option; give a disk image as -drive file=%s,format=raw,if=virtio",
                      arg, arg);
            return CMDLINE_ERROR;
        }
        name += *name == '-';
        o = find_option(name);
        if (!o) {
            unknown_option(arg, name, errp);
            return CMDLINE_ERROR;
        }
        if (o->kind == OPTION_HELP) {
            cmdline_print_help(stdout);
            return CMDLINE_EXIT;
        }
        if (o->kind == OPTION_VERSION) {
            printf("ferry version " FERRY_VERSION "\n");
            return CMDLINE_EXIT;
        }
        if (o->has_argument) {
            if (i + 1 == argc) {
                error_set(errp, "%s: requires an argument", arg);
                return CMDLINE_ERROR;
            }
            value = argv[++i];
        }
        if (!store(cmdline, o, value, errp)) {
            return CMDLINE_ERROR;
        }
        if (o->kind == OPTION_FIXED && cmdline_wants_help(value)) {
            return CMDLINE_EXIT;
        }
    }
    return CMDLINE_RUN;
}

static void free_list(struct text_list *list)
{
    free(list->text);
    *list = (struct text_list){0};
}

void cmdline_free(struct cmdline *cmdline)
{
    for (size_t i = 0; i < cmdline->made.count; i++) {
        free((char *)cmdline->made.text[i]);
    }
    free_list(&cmdline->made);
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        if (options[i].kind == OPTION_LIST) {
            free_list((struct text_list *)((char *)cmdline + options[i].offset));
        }
    }
}
