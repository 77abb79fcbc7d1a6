/* SPDX-License-Identifier: MIT */
/*
 * The last words of a vCPU that cannot go on: what happened, its registers, and the code it was
 * executing. Then the VM stops; it can be looked at, reset or ended.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "accel/vcpu_internal.h"
#include "accel/x86_regs.h"
#include "accel/x86_walk.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/range.h"
#include "device/system.h"
#include "mem/ram.h"

#define CODE_BEFORE 16
#define CODE_AFTER  32

/* "Code=… <48> …": the byte at RIP in angle brackets. */
static void print_code(const struct x86_state *state, FILE *to)
{
    uint64_t at = state->rip + state->segment[X86_CS].base;
    unsigned before = (unsigned)MIN(at % GUEST_PAGE_SIZE, CODE_BEFORE);
    uint8_t bytes[CODE_BEFORE + CODE_AFTER];
    unsigned count = x86_read_linear(state, at - before, bytes, before + CODE_AFTER);

    fprintf(to, "Code=");
    for (unsigned i = 0; i < count; i++) {
        fprintf(to, i == before ? "%s<%02x>" : "%s%02x", i ? " " : "", bytes[i]);
    }
    if (!count) {
        fprintf(to, "(not mapped)");
    }
    fputc('\n', to);
}

static void print_registers(struct vcpu *vcpu, FILE *to)
{
    autofree struct x86_state *state = xnew(struct x86_state);
    struct error *err = NULL;

    if (!vcpu->accel->ops->vcpu_get_state(vcpu, state, &err)) {
        fprintf(to, "(no registers: %s)\n", err ? error_message(err) : "?");
        error_free(err);
        return;
    }
    x86_state_print(state, to);
    print_code(state, to);
}

/* One write, so that vCPUs that fail at the same time do not mix their lines. */
static void print_and_stop(struct vcpu *vcpu)
{
    char *text = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&text, &size);

    if (to) {
        print_registers(vcpu, to);
        fclose(to);
        fwrite(text, 1, size, stderr);
        free(text);
    }
    system_internal_error(vcpu->index);
}

void vcpu_fail(struct vcpu *vcpu, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    autofree char *text = xvasprintf(fmt, ap);
    va_end(ap);

    log_error("%s, vCPU %u: %s; the VM stops", vcpu->accel->ops->name, vcpu->index, text);
    print_and_stop(vcpu);
}

/* ---- internal errors of the engine (KVM API, KVM_EXIT_INTERNAL_ERROR) ------------------------- */

enum { EMULATION = 1, SIMULTANEOUS_EXCEPTIONS = 2, EVENT_DELIVERY = 3, UNEXPECTED_EXIT = 4 };

static const char *suberror_text(uint32_t suberror)
{
    switch (suberror) {
    case EMULATION:
        return "emulation failure";
    case SIMULTANEOUS_EXCEPTIONS:
        return "simultaneous exceptions";
    case EVENT_DELIVERY:
        return "unexpected exit while delivering an event";
    case UNEXPECTED_EXIT:
        return "unexpected exit reason";
    default:
        return "unknown";
    }
}

/* data[0]: flags, bit 0: data[1] is the length of the instruction and up to 15 bytes of it. */
static void print_instruction(const struct vcpu_exit *exit)
{
    const uint8_t *bytes = (const uint8_t *)&exit->internal.data[1];
    unsigned size = MIN(bytes[0], 15);

    if (exit->internal.ndata < 3 || !(exit->internal.data[0] & 1)) {
        return;
    }
    fprintf(stderr, "emulation failure, instruction bytes:");
    for (unsigned i = 0; i < size; i++) {
        fprintf(stderr, " %02x", bytes[1 + i]);
    }
    fputc('\n', stderr);
}

void vcpu_internal_error(struct vcpu *vcpu)
{
    const struct vcpu_exit *exit = &vcpu->exit;

    log_error("%s internal error on vCPU %u. Suberror: %u (%s); the VM stops",
              vcpu->accel->ops->name, vcpu->index, exit->internal.suberror,
              suberror_text(exit->internal.suberror));
    for (unsigned i = 0; i < exit->internal.ndata && i < ARRAY_SIZE(exit->internal.data); i++) {
        fprintf(stderr, "extra data[%u]: 0x%016" PRIx64 "\n", i, exit->internal.data[i]);
    }
    if (exit->internal.suberror == EMULATION) {
        print_instruction(exit);
    }
    print_and_stop(vcpu);
}
