/* SPDX-License-Identifier: MIT */
/*
 * The soft CPU against the host's, instruction by instruction.
 *
 *     hostcheck [-n inputs per form] [-c CPU model] [-f part of a mnemonic] [-o report] [-s]
 *
 * A child process does the work and tells in shared memory how far it is: if it dies (the soft CPU
 * crashed), that form has failed and another child goes on behind it. -s compares flags that the SDM
 * leaves undefined, too.
 */
#include <cpuid.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "compare.h"
#include "form.h"
#include "host_run.h"
#include "input.h"
#include "isa.h"
#include "soft_run.h"

/* ThreadSanitizer holds signals back, which are what runs the host's side. */
#ifdef __SANITIZE_THREAD__
#define HAS_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define HAS_TSAN 1
#endif
#endif
#ifndef HAS_TSAN
#define HAS_TSAN 0
#endif

enum { INPUTS_MAX = 256, SHOWN_PER_FORM = 3, CRASHES_MAX = 200 };

enum verdict { NOT_RUN, PASSED, FAILED, CRASHED, EXCLUDED, LACKS_TABLE };

static struct {
    unsigned inputs;
    const char *cpu, *filter, *report_path;
    bool strict;
} options = {.inputs = 8};

/* Between parent and children. */
static struct {
    unsigned next;      /* index of the encoding that comes or is being run */
    unsigned long runs; /* inputs */
    unsigned long once; /* of them: differences that the host did not show a second time */
    bool ready, features_ok;
    uint8_t *verdict;  /* of each encoding */
    uint8_t *shown;    /* of each form: failures in the report */
    char (*family)[8]; /* of each mnemonic */
    const char **exclusion;
} * shared;

static struct forms forms;
static FILE *failures; /* unlinked; children append */
static struct run_input *inputs;
static struct run_output *host, *soft;

static void *share(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return p;
}

static const char *family_of(const struct form *form)
{
    const char *name = shared->family[form->mnemonic];

    return *name ? name : "none";
}

/* Everything, with the host's vendor, since some instructions differ by that. */
static const char *default_cpu(void)
{
    static char text[64];
    uint32_t regs[4];
    char vendor[13] = {0};

    __cpuid(0, regs[0], regs[1], regs[2], regs[3]);
    memcpy(vendor, &regs[1], 4);
    memcpy(vendor + 4, &regs[3], 4);
    memcpy(vendor + 8, &regs[2], 4);
    snprintf(text, sizeof(text), "max,vendor=%s", vendor);
    return text;
}

/* ---- in a child ---------------------------------------------------------------------------------- */

static bool show(unsigned number)
{
    return shared->shown[number]++ < SHOWN_PER_FORM;
}

static void report_input(const struct form *form, unsigned i)
{
    fprintf(failures, "%s\t%s  (input %u)\n", family_of(form),
            form_text(form, inputs[i].bytes, inputs[i].state.rip), i);
    compare_print_input(form, &inputs[i], failures);
}

static enum verdict run_form(const struct form *form)
{
    enum verdict verdict = PASSED;
    struct form_decoded d;
    unsigned count = form->expects_undefined ? 1 : options.inputs;

    if (form->exclusion) {
        return EXCLUDED;
    }
    form_decode(form, &d);
    for (unsigned i = 0; i < count; i++) {
        input_make(form, &d, i, &inputs[i]);
    }
    if (!form->expects_undefined) {
        host_run(inputs, host, count);
    }
    soft_run(inputs, soft, count);
    shared->runs += count;
    for (unsigned i = 0; i < count; i++) {
        bool ok = form->expects_undefined
                      ? compare_undefined(&inputs[i], &soft[i], NULL)
                      : compare_outputs(form, &host[i], &soft[i], options.strict, NULL);
        if (ok) {
            continue;
        }
        if (!form->expects_undefined) {
            /* Was it the host's kernel, which had the thread wait? */
            host_run(&inputs[i], &host[i], 1);
            if (compare_outputs(form, &host[i], &soft[i], options.strict, NULL)) {
                shared->once++;
                continue;
            }
        }
        verdict = FAILED;
        if (show(form->number)) {
            report_input(form, i);
            if (form->expects_undefined) {
                compare_undefined(&inputs[i], &soft[i], failures);
            } else {
                compare_outputs(form, &host[i], &soft[i], options.strict, failures);
            }
            fflush(failures);
        }
    }
    return verdict;
}

/* 0F 1A and 0F 1B, which CPUs without MPX take as no operation and CPUs with MPX as theirs. */
static bool is_mpx(const struct form *form)
{
    for (unsigned i = 0; i < 4; i++) {
        if (form->bytes[i] == 0x0f) {
            return (form->bytes[i + 1] & 0xfe) == 0x1a;
        }
    }
    return false;
}

/* AVX-512's mask instructions (VEX.0F 41 to 4B) with registers beyond k7: AMD's processors ignore the
 * number's highest bit. */
static bool is_high_mask(const struct form *form)
{
    return !host_is_intel() && form->bytes[0] == 0xc4 && (form->bytes[1] & 0x1f) == 1 &&
           form->bytes[3] >= 0x41 && form->bytes[3] <= 0x4b;
}

/* What the decoder refuses must be #UD on both. */
static void run_refused(const struct form *form)
{
    struct form_decoded none = {0};

    if (is_mpx(form) || is_high_mask(form)) {
        return;
    }
    input_make(form, &none, 0, &inputs[0]);
    host_run(inputs, host, 1);
    soft_run(inputs, soft, 1);
    if (host[0].vector == 6 && soft[0].vector == 6) {
        return;
    }
    fprintf(failures, "refused\t%s host vector %u, soft vector %u\n",
            form_text(form, inputs[0].bytes, 0), host[0].vector, soft[0].vector);
    fflush(failures);
}

static bool is_wanted(const struct form *form)
{
    return !options.filter || strcasestr(ZydisMnemonicGetString(form->mnemonic), options.filter) ||
           !strcmp(options.filter, family_of(form));
}

static void child(void)
{
    sigset_t alarm;

    /* The watchdog's signal is for this thread: host_entry's variables are not for two. */
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarm, NULL);
    if (!soft_run_init(options.cpu ? options.cpu : default_cpu()) || !host_run_init()) {
        _exit(3);
    }
    pthread_sigmask(SIG_UNBLOCK, &alarm, NULL);
    isa_classify(&forms);
    for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
        const char *family = soft_run_family(m);
        snprintf(shared->family[m], sizeof(shared->family[m]), "%s", family ? family : "");
    }
    for (unsigned i = 0; i < forms.count; i++) {
        shared->exclusion[i] = forms.form[i].expects_undefined ? "" : forms.form[i].exclusion;
    }
    shared->ready = true;
    while (shared->next < forms.count + forms.refused_count) {
        unsigned i = shared->next;

        if (i >= forms.count) {
            if (!options.filter) {
                run_refused(&forms.refused[i - forms.count]);
            }
        } else if (is_wanted(&forms.form[i])) {
            shared->verdict[i] = (uint8_t)run_form(&forms.form[i]);
        }
        shared->next++;
    }
    shared->features_ok = options.filter || isa_print(&forms, shared->verdict);
    fflush(stdout);
    host_run_cleanup();
    soft_run_cleanup();
    _exit(0);
}

/* ---- in the parent ------------------------------------------------------------------------------- */

static bool run_children(void)
{
    for (unsigned crashes = 0; crashes < CRASHES_MAX;) {
        unsigned start = shared->next;
        pid_t pid;
        int status;

        fflush(NULL);
        pid = fork();
        if (pid == 0) {
            child();
        }
        if (pid < 0 || waitpid(pid, &status, 0) < 0) {
            perror("fork");
            return false;
        }
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
            return true;
        }
        if (!shared->ready) {
            fprintf(stderr, "hostcheck: the soft CPU does not start (status 0x%x)\n", status);
            return false;
        }
        unsigned i = shared->next;
        const struct form *form =
            i < forms.count ? &forms.form[i] : &forms.refused[i - forms.count];
        fseek(failures, 0, SEEK_END);
        fprintf(failures, "%s\t%s  CRASH of the process, status 0x%x\n",
                i < forms.count ? family_of(form) : "refused", form_text(form, form->bytes, 0),
                status);
        fflush(failures);
        if (i < forms.count) {
            shared->verdict[i] = CRASHED;
        }
        shared->next = i + 1;
        crashes += shared->next > start;
    }
    fprintf(stderr, "hostcheck: gave up after %u crashes\n", CRASHES_MAX);
    return false;
}

static const char *const families[] = {"integer", "string", "branch", "far",  "system", "x87",
                                       "state",   "sse",    "avx",    "none", "refused"};
#define FAMILIES (sizeof(families) / sizeof(families[0]))

static unsigned family_index(const char *name)
{
    for (unsigned f = 0; f < FAMILIES; f++) {
        if (!strcmp(families[f], name)) {
            return f;
        }
    }
    return FAMILIES - 2;
}

static void print_failing(FILE *to, unsigned f)
{
    unsigned last = UINT32_MAX;

    for (unsigned i = 0; i < forms.count; i++) {
        const struct form *form = &forms.form[i];
        if ((shared->verdict[i] == FAILED || shared->verdict[i] == CRASHED) &&
            form->number != last && family_index(family_of(form)) == f) {
            last = form->number;
            fprintf(to, "    %s\n", form_text(form, form->bytes, 0x10000800));
        }
    }
}

/* The failures of a family, as the children wrote them. */
static void print_details(FILE *to, unsigned f)
{
    char line[1024];
    bool is_ours = false;

    rewind(failures);
    while (fgets(line, sizeof(line), failures)) {
        char *tab = strchr(line, '\t');
        if (tab && line[0] != ' ') {
            *tab = '\0';
            is_ours = family_index(line) == f;
            if (is_ours) {
                fprintf(to, "%s: %s", line, tab + 1);
            }
        } else if (is_ours) {
            fputs(line, to);
        }
    }
}

struct counts {
    unsigned decoded, passed, failed, undefined, excluded;
};

/* Forms, not encodings: one fails if any of its variants does. */
static struct counts count_family(unsigned f)
{
    struct counts c = {0};
    uint8_t *worst = xcalloc(forms.number, 1); /* 1 passed, 2 undefined, 3 excluded, 4 failed */

    for (unsigned i = 0; i < forms.count; i++) {
        const struct form *form = &forms.form[i];
        uint8_t v;

        if (f < FAMILIES && family_index(family_of(form)) != f) {
            continue;
        }
        switch (shared->verdict[i]) {
        case FAILED:
        case CRASHED:
            v = 4;
            break;
        case EXCLUDED:
            v = 3;
            break;
        case PASSED:
            v = shared->exclusion[i] ? 2 : 1;
            break;
        default:
            v = 0;
            break;
        }
        worst[form->number] = worst[form->number] > v ? worst[form->number] : v;
        if (!v) {
            worst[form->number] = worst[form->number] ? worst[form->number] : 0x80;
        }
    }
    for (unsigned n = 0; n < forms.number; n++) {
        c.decoded += worst[n] != 0;
        c.passed += worst[n] == 1;
        c.undefined += worst[n] == 2;
        c.excluded += worst[n] == 3;
        c.failed += worst[n] == 4;
    }
    free(worst);
    return c;
}

static void print_counts(FILE *to)
{
    fprintf(to, "%-8s %8s %8s %8s %8s %8s\n", "family", "decoded", "agree", "#UD", "excluded",
            "fail");
    for (unsigned f = 0; f <= FAMILIES - 2; f++) {
        struct counts c = count_family(f);
        fprintf(to, "%-8s %8u %8u %8u %8u %8u\n", families[f], c.decoded, c.passed, c.undefined,
                c.excluded, c.failed);
    }
}

static void print_exclusions(FILE *to)
{
    fprintf(to, "excluded:\n");
    for (unsigned i = 0; i < forms.count; i++) {
        bool is_first = true;

        if (shared->verdict[i] != EXCLUDED) {
            continue;
        }
        for (unsigned k = 0; k < i && is_first; k++) {
            is_first =
                shared->verdict[k] != EXCLUDED || forms.form[k].mnemonic != forms.form[i].mnemonic;
        }
        if (is_first) {
            fprintf(to, "    %-10s %s\n", ZydisMnemonicGetString(forms.form[i].mnemonic),
                    shared->exclusion[i] ? shared->exclusion[i] : "?");
        }
    }
}

static void write_report(void)
{
    FILE *to = fopen(options.report_path, "w");

    if (!to) {
        perror(options.report_path);
        return;
    }
    print_counts(to);
    for (unsigned f = 0; f < FAMILIES; f++) {
        fprintf(to, "\n======== %s: failing forms\n", families[f]);
        print_failing(to, f);
        fprintf(to, "\n-------- %s: details\n", families[f]);
        print_details(to, f);
    }
    fclose(to);
}

static bool parse(int argc, char **argv)
{
    int c;

    while ((c = getopt(argc, argv, "n:c:f:o:s")) != -1) {
        switch (c) {
        case 'n':
            options.inputs = (unsigned)atoi(optarg);
            break;
        case 'c':
            options.cpu = optarg;
            break;
        case 'f':
            options.filter = optarg;
            break;
        case 'o':
            options.report_path = optarg;
            break;
        case 's':
            options.strict = true;
            break;
        default:
            return false;
        }
    }
    return options.inputs && options.inputs <= INPUTS_MAX && optind == argc;
}

int main(int argc, char **argv)
{
    struct timespec begin, end;
    struct counts all;
    unsigned refused = 0;
    char line[1024];
    bool ok;

    if (!parse(argc, argv)) {
        fprintf(stderr, "usage: hostcheck [-n inputs] [-c model] [-f filter] [-o report] [-s]\n");
        return 2;
    }
    if (HAS_TSAN) {
        printf("not under ThreadSanitizer\n");
        return 77;
    }
    clock_gettime(CLOCK_MONOTONIC, &begin);
    forms_enumerate(&forms);
    failures = tmpfile();
    shared = share(sizeof(*shared));
    shared->verdict = share(forms.count);
    shared->shown = share(forms.number);
    shared->family = share((ZYDIS_MNEMONIC_MAX_VALUE + 1) * sizeof(*shared->family));
    shared->exclusion = share(forms.count * sizeof(*shared->exclusion));
    inputs = xcalloc(options.inputs, sizeof(*inputs));
    host = xcalloc(options.inputs, sizeof(*host));
    soft = xcalloc(options.inputs, sizeof(*soft));

    ok = run_children();
    if (options.report_path) {
        write_report();
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    all = count_family(FAMILIES);
    rewind(failures);
    while (fgets(line, sizeof(line), failures)) {
        refused += !strncmp(line, "refused\t", 8);
    }
    print_exclusions(stdout);
    print_counts(stdout);
    printf("forms covered %u of %u decoded: %u agree with the host, %u raise #UD as they should, "
           "%u excluded, %u failed; %u encodings, %lu inputs (%lu run again); %u of %u refused "
           "encodings differ; "
           "%ld s\n",
           all.passed + all.undefined + all.failed, all.decoded, all.passed, all.undefined,
           all.excluded, all.failed, forms.count, shared->runs, shared->once, refused,
           forms.refused_count, (long)(end.tv_sec - begin.tv_sec));
    if (!options.report_path && (all.failed || refused)) {
        for (unsigned f = 0; f < FAMILIES; f++) {
            print_details(stdout, f);
        }
    }
    forms_free(&forms);
    free(inputs);
    free(host);
    free(soft);
    fclose(failures);
    return ok && !all.failed && !refused && shared->features_ok ? 0 : 1;
}
