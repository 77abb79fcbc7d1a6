/* SPDX-License-Identifier: MIT */
#include "guest_run.h"

#include "../accel_fixture.h"

#include <cpuid.h>
#include <inttypes.h>
#include <time.h>

#include "accel/cpu_model.h"
#include "aio/clock.h"

#define GUEST_BASE    0x8000u
#define GUEST_RESULTS 0x20000u
#define GUEST_PORT    0x500u
#define SECONDS       60u
#define RESULTS_MAX   4096u

#define LINE_NEEDS_HARDWARE 0x80000000u /* guests/guest.inc: HW */

static _Atomic(unsigned) ended;
static bool is_emulated; /* KVM on an emulated CPU */

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
    return 0;
}

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    atomic_store(&ended, 1);
}

static const struct mem_region_ops port_ops = {
    .read = port_read, .write = port_write, .valid = {1, 4, true}};

static struct x86_segment flat(uint16_t selector, uint32_t attributes)
{
    return (struct x86_segment){.selector = selector,
                                .limit = UINT32_MAX,
                                .attributes = attributes | X86_SEGMENT_D | X86_SEGMENT_G};
}

static bool load(struct vcpu *vcpu, const struct guest *guest, struct error **errp)
{
    autofree struct x86_state *state = xnew(struct x86_state);

    memset(ram_at(0), 0, RAM_SIZE);
    memcpy(ram_at(GUEST_BASE), guest->begin, (size_t)(guest->end - guest->begin));
    if (!vcpu_get_state(vcpu, state, errp)) {
        return false;
    }
    for (unsigned i = X86_ES; i <= X86_GS; i++) {
        state->segment[i] = flat(16, 0x93);
    }
    state->segment[X86_CS] = flat(8, 0x9b);
    state->cr0 = X86_CR0_PE | X86_CR0_ET | X86_CR0_NE;
    state->cr4 = 0;
    state->rip = GUEST_BASE;
    state->mp_state = X86_MP_RUNNABLE;
    return vcpu_set_state(vcpu, state, errp);
}

static const char *wait_for_end(void)
{
    for (unsigned ms = 0; ms < SECONDS * 1000; ms++) {
        if (atomic_load(&ended)) {
            return NULL;
        }
        if (atomic_load(&system_record.resets)) {
            return "triple fault";
        }
        if (atomic_load(&system_record.internal_errors)) {
            return "the engine gave up";
        }
        aio_loop_poll(test_loop, false); /* the LAPIC's timer */
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return "no end in time";
}

/* CPUID 0x40000000 of QEMU's own CPU. */
static bool host_is_emulated(void)
{
    uint32_t regs[4];

    __cpuid(0x40000000, regs[0], regs[1], regs[2], regs[3]);
    return !memcmp(&regs[1], "TCGT", 4);
}

/* Lines, what was found, what was wanted; the number that were wrong. */
static unsigned judge(const struct guest *guest)
{
    uint32_t count = load_le32(ram_at(GUEST_RESULTS));
    uint64_t digest = UINT64_C(0xcbf29ce484222325);
    unsigned wrong = 0, differ = 0;

    if (count > RESULTS_MAX) {
        printf("guest %s: %u results\n", guest->name, count);
        return 1;
    }
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *r = ram_at(GUEST_RESULTS + 16 + 24 * i);
        uint64_t got = load_le64(r + 8), want = load_le64(r + 16);

        uint32_t line = load_le32(r);

        if (line & LINE_NEEDS_HARDWARE) {
            line &= ~LINE_NEEDS_HARDWARE;
            if (got != want && is_emulated) {
                differ++;
                continue;
            }
        } else {
            digest = (digest ^ line) * UINT64_C(0x100000001b3);
            digest = (digest ^ got) * UINT64_C(0x100000001b3);
        }
        if (got != want) {
            wrong++;
            printf("    %s.S:%u: %" PRIx64 ", should be %" PRIx64 "\n", guest->name, line, got,
                   want);
        }
    }
    printf("guest %-10s %4u checks, %u wrong, digest %016" PRIx64, guest->name, count, wrong,
           digest);
    printf(differ ? " (%u others not as on hardware: KVM's host is emulated)\n" : "\n", differ);
    return wrong + (count == 0);
}

static bool run(const char *engine, const struct guest *guest)
{
    autofree char *entry = xasprintf("%s%s", engine, strcmp(engine, "kvm") ? "" : ",force=on");
    const char *entries[] = {entry}, *why;
    struct cpu_model *model = NULL;
    struct error *err = NULL;
    unsigned wrong = 1;
    struct accel *accel;

    atomic_store(&ended, 0);
    system_record_clear();
    accel = accel_init(entries, 1, NULL, guest->cpus, &err);
    if (!accel) {
        error_report(err);
        return false;
    }
    model = cpu_model_new("max", accel, guest->cpus, &err);
    if (!model || !vcpus_create(accel, model, guest->cpus, &err)) {
        error_report(err);
        accel_cleanup();
        return false;
    }
    vcpus_reset();
    if (load(vcpu_get(0), guest, &err)) {
        vcpus_resume();
        why = wait_for_end();
        vcpus_pause();
        if (guest->ends == ENDS_SHUTDOWN) {
            why = why && !strcmp(why, "triple fault") ? NULL : "no triple fault";
        }
        wrong = judge(guest);
        if (why) {
            uint32_t count = load_le32(ram_at(GUEST_RESULTS));
            printf("guest %s: %s; the last check was in line %u\n", guest->name, why,
                   count && count <= RESULTS_MAX
                       ? load_le32(ram_at(GUEST_RESULTS + 16 + 24 * (count - 1))) &
                             ~LINE_NEEDS_HARDWARE
                       : 0);
            wrong++;
        }
    } else {
        error_report(err);
    }
    vcpus_destroy();
    accel_cleanup();
    cpu_model_free(model);
    fflush(stdout);
    return wrong == 0;
}

int main(int argc, char **argv)
{
    struct mem_region port;
    unsigned failed = 0;

    if (argc < 2) {
        fprintf(stderr, "usage: soft_guests ENGINE [GUEST...]\n");
        return 2;
    }
    if (accel_group_setup(NULL)) {
        return 1;
    }
    clock_virtual_resume();
    is_emulated = !strcmp(argv[1], "kvm") && host_is_emulated();
    mem_region_init_io(&port, "end", 4, &port_ops, NULL);
    machine_lock();
    mem_region_add(io_root(), GUEST_PORT, &port);
    machine_unlock();
    for (unsigned i = 0; guests[i].name; i++) {
        bool wanted = argc == 2;
        for (int k = 2; k < argc; k++) {
            wanted = wanted || !strcmp(argv[k], guests[i].name);
        }
        if (wanted && !run(argv[1], &guests[i])) {
            failed++;
        }
    }
    machine_lock();
    mem_region_remove(io_root(), &port);
    machine_unlock();
    mem_region_destroy(&port);
    accel_group_teardown(NULL);
    printf("%u guests failed\n", failed);
    return failed ? 1 : 0;
}
