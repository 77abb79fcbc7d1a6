/* SPDX-License-Identifier: MIT */
/*
 * Runs hostile guests (hostile.h), one seed after the other.
 *
 *      soft_hostile [--seed=N] [--count=N] [--seconds=S] [--vcpus=1|2] [--cpu=MODEL] [--loop] [--verbose]
 *
 * Without --loop a thread of ours drives each vCPU's engine, as the vCPU loop does but with events of our
 * choice; with it the loop itself runs, with INIT, SIPI, interrupts and shutdowns. --count=1 --seed=N
 * runs the guest of one seed again; with more than one vCPU, or --loop, threads make it differ.
 */
#include "hostile.h"

#include <getopt.h>
#include <time.h>

#include "accel/cpu_model.h"
#include "accel/soft/soft.h"
#include "base/error.h"

/* A vCPU comes back this long after a kick, at most: of its own processor time, since the host may be busy;
 * and in all. Many times what it takes, for sanitizers' sake. */
#define ANSWER_NS   INT64_C(1000000000)
#define PATIENCE_NS INT64_C(20000000000)
#define KICK_US     300

static struct {
    /* constant once vCPUs run */
    uint64_t seed, count;
    unsigned seconds, vcpus;
    const char *cpu;
    bool loop, verbose;
    struct accel *accel;
    struct cpu_model *model;
    /* atomic */
    _Atomic(uint64_t) present;      /* the seed that runs */
    _Atomic(int64_t) kicked_at[2];  /* ns of the oldest kick that has not been answered; 0: none */
    _Atomic(int64_t) kicked_cpu[2]; /* then: its thread's processor time */
    _Atomic(bool) quit;
    _Atomic(bool) disturbs;
    /* atomic: what guests came to */
    _Atomic(uint64_t) exits[VCPU_EXIT_COUNT], refused;
    _Atomic(int64_t) slowest_ns;
} hostile = {.count = 1000, .vcpus = 1, .cpu = "max"};

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static _Noreturn void give_up(const char *what, unsigned vcpu)
{
    fprintf(stderr, "soft_hostile: seed %llu, vCPU %u: %s\n",
            (unsigned long long)atomic_load(&hostile.present), vcpu, what);
    abort();
}

/* ---- kicks -------------------------------------------------------------------------------------- */

static int64_t processor_ns(unsigned vcpu)
{
    struct timespec t;
    clockid_t clock;

    if (pthread_getcpuclockid(vcpu_get(vcpu)->thread, &clock) || clock_gettime(clock, &t)) {
        give_up("no processor time", vcpu);
    }
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void note_kick(unsigned vcpu)
{
    int64_t cpu = processor_ns(vcpu), none = 0;

    if (!atomic_load(&hostile.kicked_at[vcpu])) {
        atomic_store(&hostile.kicked_cpu[vcpu], cpu);
        atomic_compare_exchange_strong(&hostile.kicked_at[vcpu], &none, now_ns());
    }
}

static void note_answer(unsigned vcpu)
{
    int64_t cpu = atomic_load(&hostile.kicked_cpu[vcpu]);
    int64_t at = atomic_exchange(&hostile.kicked_at[vcpu], 0);
    int64_t took = at ? processor_ns(vcpu) - cpu : 0;

    if (took > atomic_load(&hostile.slowest_ns)) {
        atomic_store(&hostile.slowest_ns, took);
        if (hostile.verbose) {
            printf("seed %llu: %lld us after a kick\n",
                   (unsigned long long)atomic_load(&hostile.present), (long long)took / 1000);
        }
    }
    if (took > ANSWER_NS) {
        give_up("slow to come back after a kick", vcpu);
    }
}

/* Kicks all, disturbs them, and sees that they answer. */
static void *disturb(void *opaque)
{
    struct random r = {hostile.seed + 1};

    mem_thread_register();
    while (!atomic_load(&hostile.quit)) {
        nanosleep(&(struct timespec){.tv_nsec = KICK_US * 1000}, NULL);
        for (unsigned i = 0; i < hostile.vcpus; i++) {
            int64_t at = atomic_load(&hostile.kicked_at[i]);

            if (at && now_ns() - at > PATIENCE_NS) {
                give_up("does not come back after a kick", i);
            }
            if (!hostile.loop) {
                note_kick(i);
                hostile.accel->ops->vcpu_kick(vcpu_get(i));
            }
        }
        if (atomic_load(&hostile.disturbs)) {
            world_disturb(&r);
        }
    }
    mem_thread_unregister();
    return NULL;
}

/* ---- without the vCPU loop ---------------------------------------------------------------------- */

struct guest {
    struct random r;
    struct x86_state *state;
};

static void check(const struct soft_cpu *cpu)
{
    if (cpu->zero || cpu->page_wrap != SOFT_PAGE_WRAP || cpu->cpl > 3 || cpu->x87.top > 7 ||
        memcmp(cpu->seg_base,
               (uint64_t[6]){cpu->seg[0].base, cpu->seg[1].base, cpu->seg[2].base, cpu->seg[3].base,
                             cpu->seg[4].base, cpu->seg[5].base},
               sizeof(cpu->seg_base))) {
        give_up("the state is not whole", cpu->index);
    }
}

/* What the loop does between two entries. False: the guest is at its end. */
static bool between(struct vcpu *vcpu, struct random *r)
{
    const struct accel_ops *ops = vcpu->accel->ops;

    atomic_fetch_add_explicit(&hostile.exits[vcpu->exit.reason], 1, memory_order_relaxed);
    switch (vcpu->exit.reason) {
    case VCPU_EXIT_INTR:
    case VCPU_EXIT_HLT:
    case VCPU_EXIT_IRQ_WINDOW_OPEN:
    case VCPU_EXIT_SET_TPR:
        break;
    case VCPU_EXIT_SHUTDOWN:
        return false;
    default:
        fprintf(stderr, "exit %u\n", vcpu->exit.reason);
        give_up("an exit that no guest should cause", vcpu->index);
    }
    if (random_one_in(r, 4)) {
        ops->vcpu_inject_nmi(vcpu);
    }
    if (random_one_in(r, 2) && ops->vcpu_interrupt_ready(vcpu)) {
        ops->vcpu_inject(vcpu, (uint8_t)random_u64(r));
    }
    ops->vcpu_request_window(vcpu, random_one_in(r, 3));
    return true;
}

static void run_guest(struct vcpu *vcpu, void *opaque)
{
    const struct accel_ops *ops = vcpu->accel->ops;
    struct guest *g = opaque;
    struct error *err = NULL;
    unsigned runs = 1 + random_below(&g->r, 6);

    for (unsigned i = 0; !ops->vcpu_set_state(vcpu, g->state, &err); i++) {
        if (i == 2) {
            error_report(err);
            give_up("a plain state is refused", vcpu->index);
        }
        error_free(err);
        err = NULL;
        atomic_fetch_add(&hostile.refused, 1);
        world_tame(g->state, i);
    }
    for (unsigned i = 0; i < runs; i++) {
        vcpu->exit.reason = VCPU_EXIT_INTR;
        ops->vcpu_run(vcpu);
        note_answer(vcpu->index);
        check(soft_cpu_of(vcpu));
        if (!between(vcpu, &g->r)) {
            break;
        }
    }
    if (random_one_in(&g->r, 4)) {
        if (!ops->vcpu_get_state(vcpu, g->state, &err) ||
            !ops->vcpu_set_state(vcpu, g->state, &err)) {
            error_report(err);
            give_up("its own state is refused", vcpu->index);
        }
    }
}

static void *call_guest(void *opaque)
{
    struct guest *g = opaque;

    vcpu_call(vcpu_get(1), run_guest, g);
    return NULL;
}

static void run_without_loop(struct guest guest[2])
{
    pthread_t second;

    if (hostile.vcpus == 2 && pthread_create(&second, NULL, call_guest, &guest[1])) {
        give_up("no thread", 1);
    }
    vcpu_call(vcpu_get(0), run_guest, &guest[0]);
    if (hostile.vcpus == 2) {
        pthread_join(second, NULL);
    }
}

/* ---- with the vCPU loop ------------------------------------------------------------------------- */

static void run_with_loop(struct guest guest[2])
{
    static const uint32_t requests[] = {VCPU_REQUEST_NMI, VCPU_REQUEST_INIT, VCPU_REQUEST_SIPI,
                                        VCPU_REQUEST_EXTINT};
    struct random *r = &guest[0].r;
    struct error *err = NULL;

    for (unsigned i = 0; i < hostile.vcpus; i++) {
        for (unsigned k = 0; k < 2 && !vcpu_set_state(vcpu_get(i), guest[i].state, &err); k++) {
            error_free(err);
            err = NULL;
            atomic_fetch_add(&hostile.refused, 1);
            world_tame(guest[i].state, k);
        }
    }
    for (unsigned i = 0, rounds = 1 + random_below(r, 3); i < rounds; i++) {
        vcpus_resume();
        for (unsigned k = 0; k < 3; k++) {
            struct vcpu *vcpu = vcpu_get(random_below(r, hostile.vcpus));

            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
            atomic_store(&vcpu->sipi_vector, AT_CODE >> 12);
            vcpu_request(vcpu, requests[random_below(r, ARRAY_SIZE(requests))]);
            if (random_one_in(r, 4)) {
                accel_msi_send(&(struct msi_message){0xfee00000, (uint32_t)random_u64(r) & 0xc7ff});
            }
        }
        for (unsigned k = 0; k < hostile.vcpus; k++) {
            note_kick(k);
        }
        vcpus_pause();
        for (unsigned k = 0; k < hostile.vcpus; k++) {
            note_answer(k);
        }
        if (random_one_in(r, 4)) {
            vcpus_reset();
        }
    }
    for (unsigned i = 0; i < hostile.vcpus; i++) {
        atomic_fetch_and(&vcpu_get(i)->requests, ~(uint32_t)VCPU_REQUEST_EXTINT);
        check(soft_cpu_of(vcpu_get(i)));
    }
}

/* ---- the program -------------------------------------------------------------------------------- */

static bool make_vm(void)
{
    const char *entries[] = {"tcg"};
    struct error *err = NULL;

    if (accel_group_setup(NULL) || !world_init()) {
        return false;
    }
    hostile.accel = accel_init(entries, 1, NULL, hostile.vcpus, &err);
    if (hostile.accel) {
        hostile.model = cpu_model_new(hostile.cpu, hostile.accel, hostile.vcpus, &err);
    }
    if (!hostile.model || !vcpus_create(hostile.accel, hostile.model, hostile.vcpus, &err)) {
        error_report(err);
        return false;
    }
    vcpus_reset();
    return true;
}

static void destroy_vm(void)
{
    vcpus_destroy();
    accel_cleanup();
    cpu_model_free(hostile.model);
    world_cleanup();
    accel_group_teardown(NULL);
}

static void run_seed(uint64_t seed, const struct x86_state *fresh)
{
    struct guest guest[2];
    struct random r = {seed};

    atomic_store(&hostile.present, seed);
    atomic_store(&hostile.disturbs, false);
    world_fill(&r);
    for (unsigned i = 0; i < hostile.vcpus; i++) {
        guest[i].state = xmemdup(fresh, sizeof(*fresh));
        guest[i].r.state = random_u64(&r);
        world_state(&guest[i].r, guest[i].state);
    }
    /* Half of the guests run alone, so that their seed tells what they do. */
    atomic_store(&hostile.disturbs, random_one_in(&r, 2));
    if (hostile.loop) {
        run_with_loop(guest);
    } else {
        run_without_loop(guest);
    }
    for (unsigned i = 0; i < hostile.vcpus; i++) {
        free(guest[i].state);
    }
}

static void report(uint64_t done)
{
    printf("%llu guests from seed %llu on, %u vCPU(s)%s, -cpu %s: %llu states refused, slowest "
           "answer to "
           "a kick %lld us\n",
           (unsigned long long)done, (unsigned long long)hostile.seed, hostile.vcpus,
           hostile.loop ? ", with the loop" : "", hostile.cpu,
           (unsigned long long)atomic_load(&hostile.refused),
           (long long)atomic_load(&hostile.slowest_ns) / 1000);
    for (unsigned i = 0; hostile.verbose && i < VCPU_EXIT_COUNT; i++) {
        uint64_t n = atomic_load(&hostile.exits[i]);
        for (unsigned k = 0; k < hostile.vcpus; k++) {
            n += atomic_load(&vcpu_get(k)->exits[i]);
        }
        if (n) {
            printf("  exit %u: %llu\n", i, (unsigned long long)n);
        }
    }
    for (unsigned k = 0; hostile.verbose && k < hostile.vcpus; k++) {
        printf("  vCPU %u: %llu instructions\n", k,
               (unsigned long long)soft_cpu_of(vcpu_get(k))->instructions);
    }
}

static bool parse(int argc, char **argv)
{
    static const struct option options[] = {
        {"seed", required_argument, NULL, 's'},    {"count", required_argument, NULL, 'n'},
        {"seconds", required_argument, NULL, 't'}, {"vcpus", required_argument, NULL, 'v'},
        {"cpu", required_argument, NULL, 'c'},     {"loop", no_argument, NULL, 'l'},
        {"verbose", no_argument, NULL, 'V'},       {0},
    };

    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 's':
            hostile.seed = strtoull(optarg, NULL, 0);
            break;
        case 'n':
            hostile.count = strtoull(optarg, NULL, 0);
            break;
        case 't':
            hostile.seconds = (unsigned)atoi(optarg);
            break;
        case 'v':
            hostile.vcpus = (unsigned)atoi(optarg);
            break;
        case 'c':
            hostile.cpu = optarg;
            break;
        case 'l':
            hostile.loop = true;
            break;
        case 'V':
            hostile.verbose = true;
            break;
        default:
            return false;
        }
    }
    return hostile.vcpus == 1 || hostile.vcpus == 2;
}

int main(int argc, char **argv)
{
    struct x86_state *fresh = xnew(struct x86_state);
    struct error *err = NULL;
    pthread_t disturber;
    uint64_t done = 0;
    int64_t start;

    if (!parse(argc, argv) || !make_vm() || !vcpu_get_state(vcpu_get(0), fresh, &err)) {
        return 1;
    }
    if (pthread_create(&disturber, NULL, disturb, NULL)) {
        return 1;
    }
    start = now_ns();
    while (done < hostile.count &&
           (!hostile.seconds || now_ns() - start < hostile.seconds * INT64_C(1000000000))) {
        run_seed(hostile.seed + done, fresh);
        done++;
    }
    report(done);
    atomic_store(&hostile.quit, true);
    pthread_join(disturber, NULL);
    destroy_vm();
    free(fresh);
    return 0;
}
