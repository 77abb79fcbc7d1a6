/* SPDX-License-Identifier: MIT */
/*
 * The start-up probe: can this /dev/kvm run a 64-bit kernel?
 *
 * A KVM without VT-x or AMD-V below it (para-virtual KVM) opens, makes VMs and passes exits, but
 * interprets what runs at CPL 0, and its interpreter lacks most of SSE. No capability tells. So a
 * guest of a dozen instructions is run in long mode at CPL 0: pxor, addsd and popcnt, the result
 * by OUT. Natively that takes microseconds; an interpreter ends in KVM_EXIT_INTERNAL_ERROR.
 *
 *   0x0000 PML4 -> 0x1000 PDPT -> 0x2000 page directory -> 2 MiB, identity;  0x3000 code
 *
 * The run is bounded: a timer sends the kick signal to this thread.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "accel/kvm/kvm.h"
#include "accel/x86_regs.h"
#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"

#define PROBE_SECONDS     3
#define PROBE_MEMORY      (4 * GUEST_PAGE_SIZE)
#define PROBE_PML4        0x0000
#define PROBE_PDPT        0x1000
#define PROBE_DIRECTORY   0x2000
#define PROBE_CODE        0x3000
#define PROBE_PORT        0x80
#define PROBE_TSS_ADDRESS UINT64_C(0xfeffd000)

/* popcnt of 1.5 + 1.5 as a double: 0x4008000000000000. */
#define PROBE_RESULT 2
/* The first processors with VT-x have no popcnt: there the low byte itself comes out. */
#define PROBE_RESULT_WITHOUT_POPCNT 0
#define PROBE_POPCNT_SIZE           5
#define PROBE_POPCNT_OFFSET         (sizeof(probe_code) - 3 - PROBE_POPCNT_SIZE)

static const uint8_t probe_code[] = {
    0x66, 0x0f,       0xef, 0xc0,                            /* pxor   xmm0, xmm0 */
    0x48, 0xb8,       0,    0,    0,    0, 0, 0, 0xf8, 0x3f, /* mov    rax, 1.5 */
    0x66, 0x48,       0x0f, 0x6e, 0xc8,                      /* movq   xmm1, rax */
    0xf2, 0x0f,       0x58, 0xc1,                            /* addsd  xmm0, xmm1 */
    0xf2, 0x0f,       0x58, 0xc1,                            /* addsd  xmm0, xmm1 */
    0x66, 0x48,       0x0f, 0x7e, 0xc0,                      /* movq   rax, xmm0 */
    0xf3, 0x48,       0x0f, 0xb8, 0xc0,                      /* popcnt rax, rax */
    0xe6, PROBE_PORT,                                        /* out    PROBE_PORT, al */
    0xf4,                                                    /* hlt */
};

struct probe {
    int fd, vm_fd, vcpu_fd;
    size_t run_size;
    struct kvm_run *run;
    uint8_t *memory;
    timer_t timer;
    bool has_timer;
};

enum probe_verdict { PROBE_NATIVE, PROBE_EMULATED, PROBE_STUCK, PROBE_FAILED };

/* ---- the guest ------------------------------------------------------------------------------ */

static void write_guest(uint8_t *memory)
{
    store_le64(memory + PROBE_PML4, PROBE_PDPT | 3); /* present, writable */
    store_le64(memory + PROBE_PDPT, PROBE_DIRECTORY | 3);
    store_le64(memory + PROBE_DIRECTORY, 0 | 3 | 1 << 7); /* … and 2 MiB large */
    memcpy(memory + PROBE_CODE, probe_code, sizeof(probe_code));
    if (!__builtin_cpu_supports("popcnt")) {
        memset(memory + PROBE_CODE + PROBE_POPCNT_OFFSET, 0x90, PROBE_POPCNT_SIZE);
    }
}

static int enter_long_mode(int vcpu_fd)
{
    struct kvm_segment data = {
        .limit = UINT32_MAX, .selector = 16, .type = 3, .s = 1, .present = 1, .db = 1, .g = 1};
    struct kvm_segment code = data;
    struct kvm_regs regs = {.rip = PROBE_CODE, .rflags = X86_RFLAGS_FIXED};
    struct kvm_sregs sregs;
    int ret = kvm_ioctl(vcpu_fd, KVM_GET_SREGS, &sregs);

    if (ret < 0) {
        return ret;
    }
    code.selector = 8;
    code.type = 11;
    code.l = 1;
    code.db = 0;
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.cr0 = X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_PG;
    sregs.cr3 = PROBE_PML4;
    sregs.cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT;
    sregs.efer = X86_EFER_LME | X86_EFER_LMA;
    ret = kvm_ioctl(vcpu_fd, KVM_SET_SREGS, &sregs);
    return ret < 0 ? ret : kvm_ioctl(vcpu_fd, KVM_SET_REGS, &regs);
}

static int set_cpuid(struct probe *p)
{
    enum { ENTRIES = 256 };
    autofree struct kvm_cpuid2 *cpuid =
        xcalloc(1, sizeof(*cpuid) + ENTRIES * sizeof(cpuid->entries[0]));
    int ret;

    cpuid->nent = ENTRIES;
    ret = kvm_ioctl(p->fd, KVM_GET_SUPPORTED_CPUID, cpuid);
    return ret < 0 ? ret : kvm_ioctl(p->vcpu_fd, KVM_SET_CPUID2, cpuid);
}

static int make_guest(struct probe *p)
{
    struct kvm_userspace_memory_region region = {.memory_size = PROBE_MEMORY};
    void *map;
    int ret;

    map = mmap(NULL, PROBE_MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) {
        return -errno;
    }
    p->memory = map;
    write_guest(p->memory);
    region.userspace_addr = (uintptr_t)p->memory;
    ret = kvm_ioctl(p->vm_fd, KVM_SET_TSS_ADDR, (unsigned long)PROBE_TSS_ADDRESS);
    if (ret < 0 || (ret = kvm_ioctl(p->vm_fd, KVM_SET_USER_MEMORY_REGION, &region)) < 0) {
        return ret;
    }
    p->vcpu_fd = kvm_ioctl(p->vm_fd, KVM_CREATE_VCPU, 0ul);
    if (p->vcpu_fd < 0) {
        return p->vcpu_fd;
    }
    map = mmap(NULL, p->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu_fd, 0);
    if (map == MAP_FAILED) {
        return -errno;
    }
    p->run = map;
    ret = set_cpuid(p);
    return ret < 0 ? ret : enter_long_mode(p->vcpu_fd);
}

/* ---- the run -------------------------------------------------------------------------------- */

/* A timer that signals this thread alone. */
static int start_timer(struct probe *p)
{
    struct sigevent event = {
        .sigev_notify = SIGEV_THREAD_ID,
        .sigev_signo = KVM_KICK_SIGNAL,
    };
    /* Repeated, for the case that the first comes just before KVM_RUN. */
    struct itimerspec when = {.it_value.tv_sec = PROBE_SECONDS,
                              .it_interval.tv_nsec = 100 * 1000 * 1000};

    event._sigev_un._tid = gettid();
    if (timer_create(CLOCK_MONOTONIC, &event, &p->timer) < 0) {
        return -errno;
    }
    p->has_timer = true;
    return timer_settime(p->timer, 0, &when, NULL) < 0 ? -errno : 0;
}

/* After its first signal it goes on in short intervals. */
static bool timer_ran_out(const struct probe *p)
{
    struct itimerspec left;

    return timer_gettime(p->timer, &left) < 0 || left.it_value.tv_sec == 0;
}

static enum probe_verdict run_guest(struct probe *p)
{
    uint8_t expected =
        __builtin_cpu_supports("popcnt") ? PROBE_RESULT : PROBE_RESULT_WITHOUT_POPCNT;

    while (ioctl(p->vcpu_fd, KVM_RUN, 0) < 0) {
        if (errno != EINTR) {
            return PROBE_FAILED;
        }
        if (timer_ran_out(p)) {
            return PROBE_STUCK;
        }
    }
    switch (p->run->exit_reason) {
    case KVM_EXIT_IO:
        if (p->run->io.port == PROBE_PORT && p->run->io.direction == KVM_EXIT_IO_OUT &&
            *((uint8_t *)p->run + p->run->io.data_offset) == expected) {
            return PROBE_NATIVE;
        }
        return PROBE_FAILED;
    case KVM_EXIT_INTERNAL_ERROR:
        return PROBE_EMULATED;
    default:
        return PROBE_FAILED;
    }
}

static void probe_cleanup(struct probe *p)
{
    if (p->has_timer) {
        timer_delete(p->timer);
    }
    if (p->run) {
        munmap(p->run, p->run_size);
    }
    if (p->vcpu_fd >= 0) {
        close(p->vcpu_fd);
    }
    if (p->vm_fd >= 0) {
        close(p->vm_fd);
    }
    if (p->memory) {
        munmap(p->memory, PROBE_MEMORY);
    }
}

#define PROBE_REMEDY "use a host with VT-x or AMD-V, or -accel kvm,force=on"

static bool give_verdict(const struct probe *p, enum probe_verdict verdict, struct error **errp)
{
    switch (verdict) {
    case PROBE_NATIVE:
        return true;
    case PROBE_EMULATED:
        error_set(errp, "-accel kvm: /dev/kvm of this host emulates 64-bit ring-0 code instead of "
                        "running it (para-virtual KVM), so kernels cannot run; " PROBE_REMEDY);
        return false;
    case PROBE_STUCK:
        error_set(errp,
                  "-accel kvm: /dev/kvm of this host did not run a guest of %zu "
                  "instruction bytes within %u s; " PROBE_REMEDY,
                  sizeof(probe_code), PROBE_SECONDS);
        return false;
    default:
        error_set(errp,
                  "-accel kvm: /dev/kvm of this host fails to run a 64-bit guest (exit "
                  "reason %u); " PROBE_REMEDY,
                  p->run->exit_reason);
        return false;
    }
}

bool kvm_probe(int fd, struct error **errp)
{
    struct probe p = {.fd = fd, .vm_fd = -1, .vcpu_fd = -1};
    int ret = kvm_ioctl(fd, KVM_GET_VCPU_MMAP_SIZE, 0ul);
    bool ok = false;

    if (ret >= 0) {
        p.run_size = ret;
        p.vm_fd = ret = kvm_create_vm(fd, errp);
        if (ret < 0) {
            return false; /* errp says why */
        }
        ret = make_guest(&p);
    }
    if (ret >= 0) {
        ret = start_timer(&p);
    }
    if (ret < 0) {
        error_set_errno(errp, -ret,
                        "-accel kvm: /dev/kvm cannot make a 64-bit guest; " PROBE_REMEDY);
    } else {
        ok = give_verdict(&p, run_guest(&p), errp);
    }
    probe_cleanup(&p);
    return ok;
}
