/* SPDX-License-Identifier: MIT */
/*
 * What other threads tell a soft vCPU, and how all are held.
 *
 * A message is put under the mailbox's lock, then exit_request is set; the vCPU reads its mailbox at
 * the next block boundary, and before its first block when it enters the guest. A vCPU that is not in the guest
 * (halted, in a device's callback, waiting for a lock) is at a boundary.
 */
#ifndef FERRY_ACCEL_SOFT_MAILBOX_H
#define FERRY_ACCEL_SOFT_MAILBOX_H

#include "accel/soft/soft.h"

struct soft_ram;

#define SOFT_CPUS_MAX 64

enum soft_exit_request {
    SOFT_EXIT_KICK = 1 << 0,      /* vcpu_run is to return */
    SOFT_EXIT_MAIL = 1 << 1,      /* the mailbox has something */
    SOFT_EXIT_EXCLUSIVE = 1 << 2, /* somebody wants all vCPUs held */
    SOFT_EXIT_EVENT = 1 << 3,     /* own: an event, a window, a shadow to look at */
};

struct soft_mailbox *soft_mailbox_new(void);
void soft_mailbox_free(struct soft_mailbox *mailbox);
/* Messages reach a vCPU between these two. Any thread. */
void soft_mailbox_register(struct soft_cpu *cpu);
void soft_mailbox_unregister(struct soft_cpu *cpu);

/* ---- any thread ---- */
/* To every vCPU but `from` (may be NULL): writes to this page go the slow way from now on. */
void soft_post_protect(struct soft_cpu *from, struct soft_ram *ram, uint64_t ram_page);
/* To the vCPUs of a mask: drop blocks that overlap. */
void soft_post_written(uint64_t owners, struct soft_ram *ram, uint64_t ram_page, unsigned offset,
                       unsigned size);
/* To all: the memory map has changed; translations and blocks go. */
void soft_post_flush_all(void);
void soft_kick(struct soft_cpu *to);

/* ---- vCPU thread ---- */
/* Handles what has been posted. Not within an instruction. */
void soft_mailbox_read(struct soft_cpu *cpu);

/*
 * In the guest: translations and blocks are in use. enter waits while somebody holds all vCPUs, and
 * reads TLB flushes that came meanwhile. Callbacks into devices are made outside.
 */
void soft_guest_enter(struct soft_cpu *cpu);
void soft_guest_leave(struct soft_cpu *cpu);

/*
 * Until soft_exclusive_end() no other vCPU is in the guest. cpu: the caller's own, which is in the
 * guest, or NULL: another thread (the memory map changes). Nests not.
 */
void soft_exclusive_begin(struct soft_cpu *cpu);
void soft_exclusive_end(struct soft_cpu *cpu);

#endif
