/* SPDX-License-Identifier: MIT */
/*
 * Interrupt lines. A line is a function, an opaque pointer and a number; whoever raises it knows
 * nothing of who listens. Lines are machine state: machine lock held.
 *
 * Connect an output to an input with irq_connect(), or raise the input by its address: a copy of an
 * input does not see an interception that comes later.
 */
#ifndef FERRY_DEVICE_IRQ_H
#define FERRY_DEVICE_IRQ_H

#include <stdbool.h>
#include <stddef.h>

typedef void irq_fn(void *opaque, unsigned n, int level);

struct irq {
    irq_fn *set; /* NULL: not connected */
    void *opaque;
    unsigned n;
    /* Sees each level first (qtest irq_intercept); then set is not called. */
    irq_fn *intercept;
    void *intercept_opaque;
    unsigned intercept_n;
};

static inline struct irq irq_make(irq_fn *set, void *opaque, unsigned n)
{
    return (struct irq){.set = set, .opaque = opaque, .n = n};
}

static inline void irq_set(const struct irq *irq, int level)
{
    if (!irq) {
        return;
    }
    if (irq->intercept) {
        irq->intercept(irq->intercept_opaque, irq->intercept_n, level);
    } else if (irq->set) {
        irq->set(irq->opaque, irq->n, level);
    }
}

static inline void irq_raise(const struct irq *irq)
{
    irq_set(irq, 1);
}

static inline void irq_lower(const struct irq *irq)
{
    irq_set(irq, 0);
}

static inline void irq_pulse(const struct irq *irq)
{
    irq_set(irq, 1);
    irq_set(irq, 0);
}

static inline void irq_pass_on(void *opaque, unsigned n, int level)
{
    irq_set((const struct irq *)opaque, level);
}

/* out raises in from now on; in lives as long as out. */
static inline void irq_connect(struct irq *out, struct irq *in)
{
    out->set = irq_pass_on;
    out->opaque = in;
    out->n = 0;
}

#endif
