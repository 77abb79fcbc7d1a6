/* SPDX-License-Identifier: MIT */
/*
 * With d the clock pulses since a counter of N was loaded (data sheet, mode definitions):
 *
 *   mode 0  OUT low, high from d = N on                    gate low: waits
 *   mode 1  OUT low while d < N, after a rising gate       gate: trigger
 *   mode 2  OUT low in the last pulse of each N            gate low: OUT high; rising: reload
 *   mode 3  OUT high (N+1)/2 pulses, low N/2, and again    as mode 2
 *   mode 4  OUT low in pulse d = N                         gate low: waits
 *   mode 5  as 4, after a rising gate                      gate: trigger
 *
 * A new count takes effect at once in every mode. A counter that waits for its trigger is one whose
 * count ran out long ago.
 */
#include "hw/pit.h"

#include "aio/loop.h"
#include "base/range.h"
#include "device/iothread.h"
#include "hw/chip_state.h"
#include "hw/gsi.h"
#include "mem/address_space.h"
#include "mem/machine_lock.h"

#define PIT_PORT 0x40
#define CHANNELS 3

#define CW_BCD              0x01
#define CW_MODE(v)          ((v) >> 1 & 7)
#define CW_ACCESS(v)        ((v) >> 4 & 3)
#define CW_CHANNEL(v)       ((v) >> 6)
#define CW_READ_BACK        3 /* the channel number that means it */
#define READ_BACK_NO_STATUS 0x10
#define READ_BACK_NO_COUNT  0x20

#define STATUS_OUT  0x80
#define STATUS_NULL 0x40

/* Read, write and latch states; LSB to WORD are the access modes of a control word. */
enum { ACCESS_NONE, ACCESS_LSB, ACCESS_MSB, ACCESS_WORD, ACCESS_WORD_MSB };

/* The host is not asked for more interrupts than this, whatever the guest programs; periods below
 * it are signalled as in mode 2. */
#define PERIOD_MIN_NS     (100 * NS_PER_US)
#define PERIOD_MIN_PULSES 120

#define LONG_AGO (3600 * NS_PER_SEC)

struct counter {
    struct x86_pit_channel s; /* count is N, 1 to 65536 */
    bool null_count;          /* a control word came, and no count yet */
    uint64_t waited;          /* d at which the gate stopped it */
};

struct pit {
    struct device dev;
    /* constant after realize */
    struct mem_region region;
    /* machine state */
    struct counter counter[CHANNELS];
    struct aio_timer timer; /* next change of counter 0's OUT */
    uint64_t period;        /* of counter 0: short periods that have been signalled */
    bool speaker_data_on, hpet_legacy;
    uint8_t irq_level;
};

/* ---- time ----------------------------------------------------------------------------------- */

static int64_t now_ns(void)
{
    return clock_get_ns(AIO_CLOCK_VIRTUAL);
}

static bool gate_pauses(const struct counter *c)
{
    return c->s.mode == 0 || c->s.mode == 4;
}

static bool is_counting(const struct counter *c)
{
    return c->s.mode <= 5 && !c->null_count && (c->s.gate || c->s.mode == 1 || c->s.mode == 5);
}

static uint64_t pulses(const struct counter *c)
{
    if (!is_counting(c)) {
        return c->waited;
    }
    int64_t ns = now_ns() - c->s.count_load_ns;
    return ns <= 0 ? 0 : (uint64_t)((unsigned __int128)ns * PIT_FREQUENCY / (uint64_t)NS_PER_SEC);
}

/* When a counter that counts has made d pulses. */
static int64_t pulse_ns(const struct counter *c, uint64_t d)
{
    unsigned __int128 ns = ((unsigned __int128)d * NS_PER_SEC + PIT_FREQUENCY - 1) / PIT_FREQUENCY;

    return c->s.count_load_ns + (int64_t)ns;
}

/* Makes it have counted d pulses by now. */
static void set_pulses(struct counter *c, uint64_t d)
{
    c->waited = d;
    c->s.count_load_ns = now_ns() - (pulse_ns(c, d) - c->s.count_load_ns);
}

/* ---- output and count ----------------------------------------------------------------------- */

static bool output(const struct counter *c)
{
    uint64_t d = pulses(c), n = c->s.count;

    switch (c->s.mode) {
    case 0:
        return !c->null_count && d >= n;
    case 1:
        return c->null_count || d >= n;
    case 2:
        return c->null_count || !c->s.gate || n == 1 || d % n != n - 1;
    case 3:
        return c->null_count || !c->s.gate || d % n < (n + 1) / 2;
    case 4:
    case 5:
        return c->null_count || d != n;
    default:
        return true;
    }
}

static uint16_t present_count(const struct counter *c)
{
    uint64_t d = pulses(c), n = c->s.count, modulus = c->s.bcd ? 10000 : 65536;
    uint64_t value;

    if (c->s.mode == 2) {
        value = n - d % n;
    } else if (c->s.mode == 3) {
        uint64_t high = (n + 1) / 2, position = d % n;
        value = (n & ~UINT64_C(1)) - 2 * (position < high ? position : position - high);
    } else {
        value = n + modulus - d % modulus;
    }
    value %= modulus;
    if (c->s.bcd) {
        value = value / 1000 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 | value % 10;
    }
    return (uint16_t)value;
}

/* ---- interrupt 0 ---------------------------------------------------------------------------- */

/* The next d at which OUT of a counter changes (in mode 2: rises), 0: never. */
static uint64_t next_change(const struct counter *c)
{
    uint64_t d = pulses(c), n = c->s.count;

    if (!is_counting(c)) {
        return 0;
    }
    switch (c->s.mode) {
    case 0:
    case 1:
        return d < n ? n : 0;
    case 2:
        return (d / n + 1) * n;
    case 3:
        return d / n * n + (d % n < (n + 1) / 2 && n > 1 ? (n + 1) / 2 : n);
    default:
        return d < n ? n : d == n ? n + 1 : 0;
    }
}

static void set_irq(struct pit *pit, bool level)
{
    if (level != pit->irq_level && !pit->hpet_legacy) {
        pit->irq_level = level;
        irq_set(&pit->dev.gpio_out[0], level);
    }
}

/* OUT is low so shortly that a timer would come too late: the pulse is made up when it is over. */
static bool is_short(const struct counter *c)
{
    return is_counting(c) && (c->s.mode == 2 || (c->s.mode == 3 && c->s.count < PERIOD_MIN_PULSES));
}

static void update(struct pit *pit)
{
    struct counter *c = &pit->counter[0];
    uint64_t next = next_change(c);

    if (is_short(c)) {
        uint64_t period = pulses(c) / c->s.count;
        if (period != pit->period) {
            pit->period = period;
            set_irq(pit, false);
        }
        set_irq(pit, true);
    } else {
        set_irq(pit, output(c));
    }
    if (next && is_short(c) && c->s.count < PERIOD_MIN_PULSES) {
        timer_set(&pit->timer, MAX(pulse_ns(c, next), now_ns() + PERIOD_MIN_NS));
    } else if (next) {
        timer_set(&pit->timer, pulse_ns(c, next));
    } else {
        timer_cancel(&pit->timer);
    }
}

static void timer_fired(void *opaque)
{
    machine_lock();
    update(opaque);
    machine_unlock();
}

/* ---- programming ---------------------------------------------------------------------------- */

static void changed(struct pit *pit, const struct counter *c)
{
    if (c == &pit->counter[0]) {
        update(pit);
    }
}

static void load(struct pit *pit, struct counter *c, uint16_t value)
{
    unsigned n = value;

    if (c->s.bcd) {
        n = (value >> 12) * 1000 + (value >> 8 & 15) * 100 + (value >> 4 & 15) * 10 + (value & 15);
    }
    c->s.count = n ? n : c->s.bcd ? 10000 : 65536;
    c->null_count = false;
    c->waited = 0;
    c->s.count_load_ns = now_ns();
    if (c->s.mode == 1 || c->s.mode == 5) {
        c->s.count_load_ns -= LONG_AGO; /* waits for the gate */
    }
    if (c == &pit->counter[0]) {
        pit->period = 0;
    }
    changed(pit, c);
}

static void latch_count(struct counter *c)
{
    if (!c->s.count_latched) {
        c->s.latched_count = present_count(c);
        c->s.count_latched = c->s.rw_mode;
    }
}

static void latch_status(struct counter *c)
{
    if (!c->s.status_latched) {
        c->s.status = (uint8_t)((output(c) ? STATUS_OUT : 0) | (c->null_count ? STATUS_NULL : 0) |
                                c->s.rw_mode << 4 | (c->s.mode & 7) << 1 | c->s.bcd);
        c->s.status_latched = 1;
    }
}

static void write_control(struct pit *pit, uint8_t value)
{
    if (CW_CHANNEL(value) == CW_READ_BACK) {
        for (unsigned i = 0; i < CHANNELS; i++) {
            if (!(value & 2u << i)) {
                continue;
            }
            if (!(value & READ_BACK_NO_COUNT)) {
                latch_count(&pit->counter[i]);
            }
            if (!(value & READ_BACK_NO_STATUS)) {
                latch_status(&pit->counter[i]);
            }
        }
        return;
    }
    struct counter *c = &pit->counter[CW_CHANNEL(value)];
    if (CW_ACCESS(value) == ACCESS_NONE) {
        latch_count(c);
        return;
    }
    c->s.rw_mode = c->s.read_state = c->s.write_state = CW_ACCESS(value);
    c->s.mode = CW_MODE(value) > 5 ? CW_MODE(value) & 3 : CW_MODE(value);
    c->s.bcd = value & CW_BCD;
    c->s.count_latched = c->s.status_latched = 0;
    c->null_count = true;
    c->waited = 0;
    changed(pit, c);
}

static void write_count(struct pit *pit, struct counter *c, uint8_t value)
{
    switch (c->s.write_state) {
    case ACCESS_LSB:
        load(pit, c, value);
        break;
    case ACCESS_MSB:
        load(pit, c, (uint16_t)(value << 8));
        break;
    case ACCESS_WORD:
        c->s.write_latch = value;
        c->s.write_state = ACCESS_WORD_MSB;
        if (c->s.mode == 0) {
            /* The first byte stops it and makes OUT low. */
            c->waited = 0;
            c->null_count = true;
            changed(pit, c);
        }
        break;
    case ACCESS_WORD_MSB:
        c->s.write_state = ACCESS_WORD;
        load(pit, c, (uint16_t)(value << 8 | c->s.write_latch));
        break;
    default:
        break; /* no control word yet */
    }
}

/* Takes the next byte of a two-byte sequence. */
static uint8_t byte_of(uint16_t value, uint8_t *state, uint8_t after_word)
{
    switch (*state) {
    case ACCESS_MSB:
    case ACCESS_WORD_MSB:
        *state = *state == ACCESS_WORD_MSB ? after_word : *state;
        return (uint8_t)(value >> 8);
    case ACCESS_WORD:
        *state = ACCESS_WORD_MSB;
        return (uint8_t)value;
    default:
        return (uint8_t)value;
    }
}

static uint8_t read_count(struct counter *c)
{
    if (c->s.status_latched) {
        c->s.status_latched = 0;
        return c->s.status;
    }
    if (c->s.count_latched) {
        bool more = c->s.count_latched == ACCESS_WORD;
        uint8_t byte = byte_of(c->s.latched_count, &c->s.count_latched, ACCESS_NONE);
        if (!more) {
            c->s.count_latched = ACCESS_NONE;
        }
        return byte;
    }
    return byte_of(present_count(c), &c->s.read_state, ACCESS_WORD);
}

static uint64_t pit_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pit *pit = opaque;

    /* The control word register cannot be read. */
    return offset < CHANNELS ? read_count(&pit->counter[offset]) : 0;
}

static void pit_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pit *pit = opaque;

    if (offset < CHANNELS) {
        write_count(pit, &pit->counter[offset], (uint8_t)value);
    } else {
        write_control(pit, (uint8_t)value);
    }
}

static const struct mem_region_ops pit_ops = {
    .read = pit_read,
    .write = pit_write,
    .valid = {.min = 1, .max = 1},
};

/* ---- gate ----------------------------------------------------------------------------------- */

bool pit_gate(struct device *dev, unsigned channel)
{
    return ((struct pit *)dev)->counter[channel].s.gate;
}

void pit_set_gate(struct device *dev, unsigned channel, bool gate)
{
    struct pit *pit = (struct pit *)dev;
    struct counter *c = &pit->counter[channel];
    uint64_t d = pulses(c);

    if (c->s.gate == gate) {
        return;
    }
    c->s.gate = gate;
    if (gate_pauses(c)) {
        set_pulses(c, d);
    } else if (gate) {
        set_pulses(c, 0); /* trigger, or reload */
        pit->period = channel == 0 ? 0 : pit->period;
    } else {
        c->waited = d;
    }
    changed(pit, c);
}

bool pit_output(struct device *dev, unsigned channel)
{
    return output(&((struct pit *)dev)->counter[channel]);
}

/* ---- state ---------------------------------------------------------------------------------- */

void pit_get_state(struct device *dev, struct x86_pit *state)
{
    const struct pit *pit = (const struct pit *)dev;

    for (unsigned i = 0; i < CHANNELS; i++) {
        state->channel[i] = pit->counter[i].s;
    }
    state->speaker_data_on = pit->speaker_data_on;
    state->hpet_legacy = pit->hpet_legacy;
}

/* False: not a state that a counter can have. */
static bool normalize(struct counter *c)
{
    struct x86_pit_channel *s = &c->s;

    s->gate = s->gate != 0;
    s->bcd = s->bcd != 0;
    return (s->mode <= 5 || s->mode == PIT_MODE_NONE) && s->count >= 1 && s->count <= 65536 &&
           s->rw_mode <= ACCESS_WORD && s->read_state <= ACCESS_WORD_MSB &&
           s->write_state <= ACCESS_WORD_MSB && s->count_latched <= ACCESS_WORD_MSB &&
           s->count_load_ns <= INT64_MAX / 4 && s->count_load_ns >= INT64_MIN / 4;
}

void pit_set_state(struct device *dev, const struct x86_pit *state)
{
    struct pit *pit = (struct pit *)dev;

    for (unsigned i = 0; i < CHANNELS; i++) {
        struct counter c = {.s = state->channel[i]};
        if (normalize(&c)) {
            pit->counter[i] = c;
        }
    }
    pit->speaker_data_on = state->speaker_data_on;
    pit->hpet_legacy = state->hpet_legacy;
    struct counter *c = &pit->counter[0];
    pit->period = is_short(c) ? pulses(c) / c->s.count : 0;
    update(pit);
}

static bool pit_post_load(void *device, unsigned version)
{
    struct pit *pit = device;
    bool ok = true;

    for (unsigned i = 0; i < CHANNELS; i++) {
        ok = ok && normalize(&pit->counter[i]);
    }
    pit->irq_level = pit->irq_level != 0;
    if (ok) {
        update(pit);
    }
    return ok;
}

/* ---- device --------------------------------------------------------------------------------- */

static void pit_init(struct device *dev)
{
    device_init_gpio_out(dev, 1);
}

static bool pit_realize(struct device *dev, struct error **errp)
{
    struct pit *pit = (struct pit *)dev;

    timer_init(&pit->timer, main_loop(), AIO_CLOCK_VIRTUAL, timer_fired, pit);
    mem_region_init_io(&pit->region, "pit", 4, &pit_ops, pit);
    mem_region_add(io_root(), PIT_PORT, &pit->region);
    return true;
}

static void pit_unrealize(struct device *dev)
{
    struct pit *pit = (struct pit *)dev;

    timer_cancel(&pit->timer);
    mem_region_remove(io_root(), &pit->region);
    mem_region_destroy(&pit->region);
}

static void pit_reset(struct device *dev)
{
    struct pit *pit = (struct pit *)dev;
    struct x86_pit state;

    x86_pit_reset(&state, now_ns());
    pit_set_state(dev, &state);
    for (unsigned i = 0; i < CHANNELS; i++) {
        pit->counter[i].null_count = true;
    }
}

static const struct vmstate_field pit_fields[] = {
    VMSTATE_SUB(struct pit, counter[0].s, x86_pit_channel_vmstate, 1),
    VMSTATE_SUB(struct pit, counter[1].s, x86_pit_channel_vmstate, 1),
    VMSTATE_SUB(struct pit, counter[2].s, x86_pit_channel_vmstate, 1),
    VMSTATE_BOOL(struct pit, counter[0].null_count),
    VMSTATE_BOOL(struct pit, counter[1].null_count),
    VMSTATE_BOOL(struct pit, counter[2].null_count),
    VMSTATE_UINT(struct pit, counter[0].waited),
    VMSTATE_UINT(struct pit, counter[1].waited),
    VMSTATE_UINT(struct pit, counter[2].waited),
    VMSTATE_UINT(struct pit, period),
    VMSTATE_BOOL(struct pit, speaker_data_on),
    VMSTATE_BOOL(struct pit, hpet_legacy),
    VMSTATE_UINT(struct pit, irq_level),
    VMSTATE_END,
};

static const struct vmstate pit_vmstate = {
    .name = "isa-pit",
    .version = 1,
    .minimum_version = 1,
    .fields = pit_fields,
    .post_load = pit_post_load,
};

const struct device_type pit_type = {
    .name = "isa-pit",
    .description = "8254 programmable interval timer",
    .category = DEVICE_CATEGORY_MISC,
    .bus = "System",
    .size = sizeof(struct pit),
    .internal = true,
    .init = pit_init,
    .realize = pit_realize,
    .unrealize = pit_unrealize,
    .reset = pit_reset,
    .vmstate = &pit_vmstate,
};

struct device *pit_new(const struct irq *irq0, struct error **errp)
{
    struct device *dev = device_new(&pit_type);

    dev->gpio_out[0] = *irq0;
    if (!device_realize(dev, system_bus(), errp)) {
        device_free(dev);
        return NULL;
    }
    device_reset(dev);
    return dev;
}
