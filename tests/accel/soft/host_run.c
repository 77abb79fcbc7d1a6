/* SPDX-License-Identifier: MIT */
#include "host_run.h"

#include <cpuid.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"

/* What host_entry takes and loads. */
struct host_segments {
    uint64_t fs_base, gs_base;
    uint16_t ds, es, fs, gs;
};
extern struct host_segments host_left, host_next;
extern uint64_t host_own_fs_base;
struct host_segments host_left, host_next;
uint64_t host_own_fs_base;

void host_entry(int signal, siginfo_t *info, void *context);
void host_signal(int signal, siginfo_t *info, void *context);

static const int signals[] = {SIGTRAP, SIGSEGV, SIGILL, SIGBUS, SIGFPE, SIGALRM};
static struct sigaction old_actions[sizeof(signals) / sizeof(signals[0])];

enum host_phase { HOST_IDLE, HOST_STARTING, HOST_RUNNING };

static struct {
    volatile enum host_phase phase;
    pid_t thread;
    const struct run_input *input;
    struct run_output *output;
    unsigned at, count;
    gregset_t own; /* the C code that called host_run() */
    unsigned extended_size;
    uint8_t *own_area;
    void *stack;
} run;

/* gregset_t's order of enum x86_gpr. */
static const uint8_t greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                    REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                    REG_R12, REG_R13, REG_R14, REG_R15};

/* ---- memory ------------------------------------------------------------------------------------ */

static void *at(uint64_t address)
{
    return (void *)(uintptr_t)address;
}

static bool map(uint64_t address, unsigned pages, int protection)
{
    void *p = mmap(at(address), pages * PAGE, protection,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    if (p != at(address)) {
        fprintf(stderr, "cannot map %u pages at 0x%llx: %s\n", pages, (unsigned long long)address,
                strerror(errno));
        return false;
    }
    return true;
}

static void put_image(const uint8_t *image)
{
    memcpy(at(DATA_AT), image + IMAGE_DATA, 2 * PAGE);
    memcpy(at(STACK_AT), image + IMAGE_STACK, 2 * PAGE);
}

static void get_image(uint8_t *image)
{
    memcpy(image + IMAGE_DATA, at(DATA_AT), 2 * PAGE);
    memcpy(image + IMAGE_RO, at(RO_AT), PAGE);
    memcpy(image + IMAGE_STACK, at(STACK_AT), 2 * PAGE);
}

/* ---- contexts ---------------------------------------------------------------------------------- */

static uint8_t *area_of(ucontext_t *context)
{
    return (uint8_t *)context->uc_mcontext.fpregs;
}

static void load(const struct run_input *input, ucontext_t *context)
{
    const struct machine_state *s = &input->state;
    greg_t *g = context->uc_mcontext.gregs;
    uint8_t *area = area_of(context);

    memset(at(CODE_AT), 0xcc, 2 * PAGE);
    memcpy(at(s->rip), input->bytes, input->length);
    put_image(input->image);
    for (unsigned i = 0; i < 16; i++) {
        g[greg_of[i]] = (greg_t)s->gpr[i];
    }
    g[REG_RIP] = (greg_t)s->rip;
    g[REG_EFL] = (greg_t)s->rflags;
    g[REG_CSGSFS] = (greg_t)((uint64_t)s->ss << 48 | s->cs);
    /* Bytes 416 to 511 are the kernel's; above AVX stays what the context had. */
    memcpy(area, s->area, 416);
    memcpy(area + AREA_YMM, s->area + AREA_YMM, AREA_SIZE - AREA_YMM);
    store_le64(area + AREA_BV, load_le64(area + AREA_BV) | 7);
    host_next = (struct host_segments){.fs_base = s->fs_base,
                                       .gs_base = s->gs_base,
                                       .ds = s->ds,
                                       .es = s->es,
                                       .fs = s->fs,
                                       .gs = s->gs};
}

static void save(struct run_output *output, int signal, ucontext_t *context)
{
    struct machine_state *s = &output->state;
    const greg_t *g = context->uc_mcontext.gregs;
    const uint8_t *area = area_of(context);
    uint64_t present = load_le64(area + AREA_BV);

    output->vector = signal == SIGALRM ? VECTOR_TIMEOUT : (uint8_t)g[REG_TRAPNO];
    output->error = (uint32_t)g[REG_ERR];
    output->cr2 = output->vector == 14 ? (uint64_t)g[REG_CR2] : 0;
    for (unsigned i = 0; i < 16; i++) {
        s->gpr[i] = (uint64_t)g[greg_of[i]];
    }
    s->rip = (uint64_t)g[REG_RIP];
    s->rflags = (uint64_t)g[REG_EFL];
    s->cs = (uint16_t)g[REG_CSGSFS];
    s->ss = (uint16_t)((uint64_t)g[REG_CSGSFS] >> 48);
    s->fs_base = host_left.fs_base;
    s->gs_base = host_left.gs_base;
    s->ds = host_left.ds;
    s->es = host_left.es;
    s->fs = host_left.fs;
    s->gs = host_left.gs;
    memset(s->area, 0, AREA_SIZE);
    memcpy(s->area + AREA_MXCSR, area + AREA_MXCSR, 8);
    if (present & 1) {
        memcpy(s->area, area, AREA_MXCSR);
        memcpy(s->area + AREA_ST, area + AREA_ST, 128);
    } else {
        store_le16(s->area + AREA_FCW, 0x37f);
    }
    if (present & 2) {
        memcpy(s->area + AREA_XMM, area + AREA_XMM, 256);
    }
    if (present & 4) {
        memcpy(s->area + AREA_YMM, area + AREA_YMM, 256);
    }
    get_image(output->image);
}

/* Called by host_entry, on the signal stack. */
void host_signal(int signal, siginfo_t *info, void *opaque)
{
    ucontext_t *context = opaque;
    pid_t thread = (pid_t)syscall(SYS_gettid);

    if (thread != run.thread || run.phase == HOST_IDLE) {
        if (signal != SIGALRM) { /* a fault of ours: the second time it kills */
            for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
                sigaction(signals[i], &old_actions[i], NULL);
            }
        }
        host_next = host_left;
        return;
    }
    if (run.phase == HOST_STARTING) {
        if (signal != SIGTRAP) {
            host_next = host_left;
            return;
        }
        memcpy(run.own, context->uc_mcontext.gregs, sizeof(run.own));
        memcpy(run.own_area, area_of(context), AREA_SIZE);
        run.phase = HOST_RUNNING;
    } else {
        save(&run.output[run.at++], signal, context);
    }
    if (run.at < run.count) {
        load(&run.input[run.at], context);
        return;
    }
    memcpy(context->uc_mcontext.gregs, run.own, sizeof(run.own));
    memcpy(area_of(context), run.own_area, 416);
    memcpy(area_of(context) + AREA_YMM, run.own_area + AREA_YMM, AREA_SIZE - AREA_YMM);
    host_next = (struct host_segments){.fs_base = host_own_fs_base};
    run.phase = HOST_IDLE;
}

/* ---- interface --------------------------------------------------------------------------------- */

bool host_run_init(void)
{
    const unsigned long fsgsbase = 2; /* HWCAP2_FSGSBASE */
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_ONSTACK};
    stack_t stack = {.ss_size = 64 * 1024};

    if (!(getauxval(AT_HWCAP2) & fsgsbase)) {
        fprintf(stderr, "this host's kernel does not enable FSGSBASE\n");
        return false;
    }
    if (!map(CODE_AT, 2, PROT_READ | PROT_WRITE | PROT_EXEC) ||
        !map(DATA_AT, 2, PROT_READ | PROT_WRITE) || !map(RO_AT, 1, PROT_READ | PROT_WRITE) ||
        !map(STACK_AT, 2, PROT_READ | PROT_WRITE)) {
        return false;
    }
    for (unsigned i = 0; i < PAGE; i++) {
        *((uint8_t *)at(RO_AT) + i) = (uint8_t)(i * 7 + (i >> 8));
    }
    mprotect(at(RO_AT), PAGE, PROT_READ);
    run.stack = xmalloc(stack.ss_size);
    run.own_area = xcalloc(1, AREA_SIZE);
    stack.ss_sp = run.stack;
    sigaltstack(&stack, NULL);
    __asm__("rdfsbase %0" : "=r"(host_own_fs_base));
    run.thread = (pid_t)syscall(SYS_gettid);
    action.sa_sigaction = host_entry;
    sigfillset(&action.sa_mask);
    for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        sigaction(signals[i], &action, &old_actions[i]);
    }
    return true;
}

void host_run_cleanup(void)
{
    stack_t none = {.ss_flags = SS_DISABLE};

    for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        sigaction(signals[i], &old_actions[i], NULL);
    }
    sigaltstack(&none, NULL);
    free(run.stack);
    free(run.own_area);
    munmap(at(CODE_AT), 2 * PAGE);
    munmap(at(DATA_AT), 2 * PAGE);
    munmap(at(RO_AT), PAGE);
    munmap(at(STACK_AT), 2 * PAGE);
}

bool host_is_intel(void)
{
    unsigned eax, ebx, ecx, edx;

    __cpuid(0, eax, ebx, ecx, edx);
    return ebx == signature_INTEL_ebx;
}

void host_run(const struct run_input *input, struct run_output *output, unsigned count)
{
    const struct itimerval limit = {.it_interval = {.tv_usec = 200000},
                                    .it_value = {.tv_usec = 500000}};
    const struct itimerval none = {0};

    run.input = input;
    run.output = output;
    run.at = 0;
    run.count = count;
    setitimer(ITIMER_REAL, &limit, NULL);
    run.phase = HOST_STARTING;
    __asm__ volatile("int3" ::: "memory");
    setitimer(ITIMER_REAL, &none, NULL);
}
