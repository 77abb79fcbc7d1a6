/* SPDX-License-Identifier: MIT */
/*
 * Messages between vCPUs, and holding all of them (mailbox.h).
 *
 * One lock for the register of vCPUs and all mailboxes: messages are about pages that change between
 * code and data, which is rare.
 *
 * Holding: whoever wants it sets `exclusive` and then looks at every vCPU's in_guest; a vCPU sets
 * in_guest and then looks at `exclusive`. Both are sequentially consistent, so one sees the other.
 */
#include "accel/soft/mailbox.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#include "accel/soft/code.h"
#include "base/alloc.h"
#include "base/range.h"

#define MAILBOX_MESSAGES 64

struct message {
    struct soft_ram *ram;
    uint64_t ram_page;
    unsigned offset, end; /* WRITTEN: bytes [offset, end); PROTECT: none */
};

struct soft_mailbox {
    /* under mail_lock */
    struct message messages[MAILBOX_MESSAGES];
    unsigned count;
    bool drop_all; /* there were too many */
    bool flush;
    /* atomic */
    _Atomic(bool) in_guest;
};

static pthread_mutex_t mail_lock = PTHREAD_MUTEX_INITIALIZER;
static struct soft_cpu *cpus[SOFT_CPUS_MAX]; /* under mail_lock; those that live */

static pthread_mutex_t exclusive_lock = PTHREAD_MUTEX_INITIALIZER; /* of who holds all */
static pthread_mutex_t guest_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t guest_left = PTHREAD_COND_INITIALIZER; /* a vCPU left, under guest_lock */
static pthread_cond_t may_enter = PTHREAD_COND_INITIALIZER;  /* `exclusive` ended */
static _Atomic(bool) exclusive;

struct soft_mailbox *soft_mailbox_new(void)
{
    return xnew(struct soft_mailbox);
}

void soft_mailbox_free(struct soft_mailbox *mailbox)
{
    free(mailbox);
}

void soft_mailbox_register(struct soft_cpu *cpu)
{
    pthread_mutex_lock(&mail_lock);
    assert(cpu->index < SOFT_CPUS_MAX && !cpus[cpu->index]);
    cpus[cpu->index] = cpu;
    pthread_mutex_unlock(&mail_lock);
}

void soft_mailbox_unregister(struct soft_cpu *cpu)
{
    pthread_mutex_lock(&mail_lock);
    if (cpus[cpu->index] == cpu) {
        cpus[cpu->index] = NULL;
    }
    pthread_mutex_unlock(&mail_lock);
}

/* ---- messages -------------------------------------------------------------------------------- */

static void ask(struct soft_cpu *to, uint32_t request)
{
    atomic_fetch_or(&to->exit_request, request);
}

static void post_locked(struct soft_cpu *to, struct soft_ram *ram, uint64_t ram_page,
                        unsigned offset, unsigned end)
{
    struct soft_mailbox *m = to->mailbox;

    for (unsigned i = m->count; i-- > 0;) {
        struct message *old = &m->messages[i];

        if (old->ram == ram && old->ram_page == ram_page && !old->end == !end) {
            old->offset = MIN(old->offset, offset);
            old->end = MAX(old->end, end);
            ask(to, SOFT_EXIT_MAIL);
            return;
        }
    }
    if (m->count < MAILBOX_MESSAGES) {
        m->messages[m->count++] = (struct message){ram, ram_page, offset, end};
    } else {
        m->drop_all = true;
    }
    ask(to, SOFT_EXIT_MAIL);
}

void soft_post_protect(struct soft_cpu *from, struct soft_ram *ram, uint64_t ram_page)
{
    pthread_mutex_lock(&mail_lock);
    for (unsigned i = 0; i < SOFT_CPUS_MAX; i++) {
        if (cpus[i] && cpus[i] != from) {
            post_locked(cpus[i], ram, ram_page, 0, 0);
        }
    }
    pthread_mutex_unlock(&mail_lock);
}

void soft_post_written(uint64_t owners, struct soft_ram *ram, uint64_t ram_page, unsigned offset,
                       unsigned size)
{
    pthread_mutex_lock(&mail_lock);
    for (unsigned i = 0; i < SOFT_CPUS_MAX; i++) {
        if (owners >> i & 1 && cpus[i]) {
            post_locked(cpus[i], ram, ram_page, offset, offset + size);
        }
    }
    pthread_mutex_unlock(&mail_lock);
}

void soft_post_flush_all(void)
{
    pthread_mutex_lock(&mail_lock);
    for (unsigned i = 0; i < SOFT_CPUS_MAX; i++) {
        if (cpus[i]) {
            cpus[i]->mailbox->flush = true;
            cpus[i]->mailbox->drop_all = true;
            ask(cpus[i], SOFT_EXIT_MAIL);
        }
    }
    pthread_mutex_unlock(&mail_lock);
}

void soft_kick(struct soft_cpu *to)
{
    ask(to, SOFT_EXIT_KICK);
}

static bool take(struct soft_mailbox *m, struct message *message)
{
    bool any;

    pthread_mutex_lock(&mail_lock);
    any = m->count > 0;
    if (any) {
        *message = m->messages[--m->count];
    }
    pthread_mutex_unlock(&mail_lock);
    return any;
}

static void read_flush(struct soft_cpu *cpu)
{
    bool flush;

    pthread_mutex_lock(&mail_lock);
    flush = cpu->mailbox->flush;
    cpu->mailbox->flush = false;
    pthread_mutex_unlock(&mail_lock);
    if (flush) {
        soft_tlb_flush(cpu);
    }
}

void soft_mailbox_read(struct soft_cpu *cpu)
{
    struct soft_mailbox *m = cpu->mailbox;
    struct message message;
    bool drop_all;

    /* Cleared first: what is posted from here on sets it again. */
    atomic_fetch_and(&cpu->exit_request, ~(uint32_t)SOFT_EXIT_MAIL);
    read_flush(cpu);
    pthread_mutex_lock(&mail_lock);
    drop_all = m->drop_all;
    m->drop_all = false;
    pthread_mutex_unlock(&mail_lock);
    if (drop_all) {
        /* Which pages were to be protected is not known any more. */
        soft_tlb_flush(cpu);
        soft_code_drop_all(cpu);
    }
    /* What others post meanwhile is for the next time. */
    for (unsigned i = 0; i < MAILBOX_MESSAGES && take(m, &message); i++) {
        if (message.end) {
            soft_code_drop(cpu, message.ram, message.ram_page, message.offset,
                           message.end - message.offset);
        } else if (soft_tlb_protect(cpu, message.ram, message.ram_page)) {
            /* It may have been written to before this message was seen. */
            soft_code_written(cpu, message.ram, message.ram_page, 0, 4096);
        }
    }
}

/* ---- in and out of the guest ------------------------------------------------------------------ */

void soft_guest_enter(struct soft_cpu *cpu)
{
    struct soft_mailbox *m = cpu->mailbox;

    for (;;) {
        atomic_store(&m->in_guest, true);
        if (!atomic_load(&exclusive)) {
            break;
        }
        soft_guest_leave(cpu);
        pthread_mutex_lock(&guest_lock);
        while (atomic_load(&exclusive)) {
            pthread_cond_wait(&may_enter, &guest_lock);
        }
        pthread_mutex_unlock(&guest_lock);
    }
    if (atomic_load_explicit(&cpu->exit_request, memory_order_acquire) & SOFT_EXIT_MAIL) {
        read_flush(cpu);
    }
}

void soft_guest_leave(struct soft_cpu *cpu)
{
    atomic_store(&cpu->mailbox->in_guest, false);
    if (atomic_load(&exclusive)) {
        pthread_mutex_lock(&guest_lock);
        pthread_cond_broadcast(&guest_left);
        pthread_mutex_unlock(&guest_lock);
    }
}

static bool anybody_in_guest(void)
{
    bool any = false;

    pthread_mutex_lock(&mail_lock);
    for (unsigned i = 0; i < SOFT_CPUS_MAX; i++) {
        if (cpus[i] && atomic_load(&cpus[i]->mailbox->in_guest)) {
            ask(cpus[i], SOFT_EXIT_EXCLUSIVE);
            any = true;
        }
    }
    pthread_mutex_unlock(&mail_lock);
    return any;
}

void soft_exclusive_begin(struct soft_cpu *cpu)
{
    if (cpu) {
        soft_guest_leave(cpu);
    }
    pthread_mutex_lock(&exclusive_lock);
    atomic_store(&exclusive, true);
    pthread_mutex_lock(&guest_lock);
    while (anybody_in_guest()) {
        pthread_cond_wait(&guest_left, &guest_lock);
    }
    pthread_mutex_unlock(&guest_lock);
    if (cpu && atomic_load_explicit(&cpu->exit_request, memory_order_acquire) & SOFT_EXIT_MAIL) {
        read_flush(cpu);
    }
}

void soft_exclusive_end(struct soft_cpu *cpu)
{
    pthread_mutex_lock(&guest_lock);
    atomic_store(&exclusive, false);
    pthread_cond_broadcast(&may_enter);
    pthread_mutex_unlock(&guest_lock);
    pthread_mutex_unlock(&exclusive_lock);
    if (cpu) {
        soft_guest_enter(cpu);
    }
}
