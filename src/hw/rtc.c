/* SPDX-License-Identifier: MIT */
/*
 * The flags of register C (periodic, alarm, update-ended) are worked out when somebody looks: each
 * kind of event happens at known times, and `seen` remembers up to when they have been taken into
 * register C. A timer is armed only for an event whose interrupt is enabled and whose flag is still
 * clear, as a flag that is set changes nothing until the guest reads register C.
 *
 *   running:  A.DV = 010 and B.SET = 0    time = rtc clock + offset; registers worked out
 *   stopped:  otherwise                   cmos[] holds the time registers as the guest left them
 */
#include "hw/rtc.h"

#include <string.h>
#include <time.h>

#include "accel/accel.h"
#include "aio/loop.h"
#include "base/alloc.h"
#include "base/range.h"
#include "device/iothread.h"
#include "device/vmstate.h"
#include "hw/isa.h"
#include "hw/rtc_time.h"
#include "mem/machine_lock.h"

#define RTC_PORT      0x70
#define RTC_PORTS     4
#define RTC_IRQ       8
#define RTC_CMOS_SIZE 128

#define REG_A_UIP     0x80
#define REG_A_DV      0x70
#define REG_A_RUN     0x20
#define REG_A_RESET   0x60 /* both upper DV bits: the divider is held in reset */
#define REG_A_RS      0x0f
#define REG_B_SET     0x80
#define REG_B_PIE     0x40
#define REG_B_AIE     0x20
#define REG_B_UIE     0x10
#define REG_B_SQWE    0x08
#define REG_B_DM      0x04
#define REG_B_24H     0x02
#define REG_C_IRQF    0x80
#define REG_C_PF      0x40
#define REG_C_AF      0x20
#define REG_C_UF      0x10
#define REG_D_VRT     0x80
#define REG_INTERRUPT 0x70 /* the three enables in B, and the three flags in C */

#define MAX_SECONDS (INT64_C(1) << 50) /* more than any guest can set */

#define CRYSTAL_HZ 32768
#define UIP_NS     (244 * NS_PER_US) /* UIP goes high this long before the update */

enum { PORT_INDEX, PORT_DATA, PORT_EXTENDED_INDEX, PORT_EXTENDED_DATA };

enum rtc_clock { RTC_CLOCK_HOST, RTC_CLOCK_RT, RTC_CLOCK_VM };
static const char *const clock_names[] = {"host", "rt", "vm", NULL};

struct rtc {
    struct device dev;
    /* properties */
    char *base;
    uint32_t clock_kind;
    /* constant after realize */
    enum aio_clock clock;
    struct irq *irq;
    struct mem_region region;
    /* machine state */
    struct aio_timer time_timer;     /* update-ended and alarm, on `clock` */
    struct aio_timer periodic_timer; /* on the virtual clock */
    uint8_t cmos[RTC_CMOS_SIZE], extended[RTC_CMOS_SIZE];
    uint8_t index, extended_index;
    bool nmi_masked;
    int64_t offset_s;    /* seconds to add to the clock's */
    int64_t fraction_ns; /* 0 to 999,999,999, added before that */
    int64_t seen_s;      /* guest time up to which updates and alarms are in register C */
    uint64_t seen_tick;  /* periodic ticks up to which they are */
    uint8_t irq_level;
};

/* ---- time ----------------------------------------------------------------------------------- */

static bool is_running(const struct rtc *rtc)
{
    return (rtc->cmos[RTC_REG_A] & REG_A_DV) == REG_A_RUN && !(rtc->cmos[RTC_REG_B] & REG_B_SET);
}

static struct rtc_format format_of(const struct rtc *rtc)
{
    return (struct rtc_format){
        .binary = rtc->cmos[RTC_REG_B] & REG_B_DM,
        .hours24 = rtc->cmos[RTC_REG_B] & REG_B_24H,
    };
}

/* Guest time, in seconds since 1970, and the nanoseconds within that second. */
static int64_t rtc_now(const struct rtc *rtc, int64_t *ns)
{
    int64_t now = clock_get_ns(rtc->clock) + rtc->fraction_ns;
    int64_t seconds = now / NS_PER_SEC - (now % NS_PER_SEC < 0);

    *ns = now - seconds * NS_PER_SEC;
    return seconds + rtc->offset_s;
}

/* When the clock will be at the start of that second of guest time. */
static int64_t clock_at(const struct rtc *rtc, int64_t seconds)
{
    __int128 ns = ((__int128)seconds - rtc->offset_s) * NS_PER_SEC - rtc->fraction_ns;

    return ns < 0 ? 0 : ns > INT64_MAX ? INT64_MAX : (int64_t)ns;
}

/* Makes `seconds` the present time, ns of that second gone. */
static void set_time(struct rtc *rtc, int64_t seconds, int64_t ns)
{
    int64_t present;

    rtc->offset_s = 0;
    rtc->fraction_ns = 0;
    int64_t clock_s = rtc_now(rtc, &present);
    rtc->fraction_ns = ns - present;
    rtc->offset_s = seconds - clock_s;
    if (rtc->fraction_ns < 0) {
        rtc->fraction_ns += NS_PER_SEC;
        rtc->offset_s--;
    }
    rtc->seen_s = seconds;
}

/* ---- periodic interrupt --------------------------------------------------------------------- */

/* Crystal cycles of a period, 0: off (MC146818A, table 5). */
static unsigned period_cycles(const struct rtc *rtc)
{
    unsigned rs = rtc->cmos[RTC_REG_A] & REG_A_RS;

    if (rs == 0 || (rtc->cmos[RTC_REG_A] & REG_A_DV) != REG_A_RUN) {
        return 0;
    }
    return 1u << ((rs <= 2 ? rs + 7 : rs) - 1);
}

static uint64_t tick_at(unsigned cycles, int64_t ns)
{
    return (uint64_t)((unsigned __int128)ns * CRYSTAL_HZ / ((uint64_t)NS_PER_SEC * cycles));
}

/* The first nanosecond at which tick_at() is `tick`. */
static int64_t tick_ns(unsigned cycles, uint64_t tick)
{
    unsigned __int128 scaled = (unsigned __int128)tick * NS_PER_SEC * cycles;

    return (int64_t)((scaled + CRYSTAL_HZ - 1) / CRYSTAL_HZ);
}

/* ---- flags, interrupt and timers ------------------------------------------------------------ */

/* Takes all events up to now into register C. */
static void account(struct rtc *rtc)
{
    uint8_t *c = &rtc->cmos[RTC_REG_C];
    unsigned cycles = period_cycles(rtc);

    if (is_running(rtc)) {
        int64_t ns, now = rtc_now(rtc, &ns);
        if (now > rtc->seen_s) {
            *c |= REG_C_UF;
            unsigned alarm = rtc_alarm_distance(rtc->seen_s, format_of(rtc), rtc->cmos);
            if (alarm && rtc->seen_s + alarm <= now) {
                *c |= REG_C_AF;
            }
        }
        rtc->seen_s = now; /* also back, when the host's clock was set back */
    }
    if (cycles) {
        uint64_t tick = tick_at(cycles, clock_get_ns(AIO_CLOCK_VIRTUAL));
        if (tick > rtc->seen_tick) {
            *c |= REG_C_PF;
        }
        rtc->seen_tick = tick;
    }
}

static void update_irq(struct rtc *rtc)
{
    uint8_t *c = &rtc->cmos[RTC_REG_C];
    uint8_t level = (*c & rtc->cmos[RTC_REG_B] & REG_INTERRUPT) != 0;

    *c = level ? *c | REG_C_IRQF : (uint8_t)(*c & ~REG_C_IRQF);
    if (level != rtc->irq_level) {
        rtc->irq_level = level;
        irq_set(rtc->irq, level);
    }
}

static void arm_timers(struct rtc *rtc)
{
    uint8_t waiting = rtc->cmos[RTC_REG_B] & (uint8_t)~rtc->cmos[RTC_REG_C] & REG_INTERRUPT;
    unsigned cycles = period_cycles(rtc);
    int64_t next = 0;

    if (is_running(rtc) && waiting & REG_B_UIE) {
        next = rtc->seen_s + 1;
    } else if (is_running(rtc) && waiting & REG_B_AIE) {
        unsigned alarm = rtc_alarm_distance(rtc->seen_s, format_of(rtc), rtc->cmos);
        next = alarm ? rtc->seen_s + alarm : 0;
    }
    if (next) {
        timer_set(&rtc->time_timer, clock_at(rtc, next));
    } else {
        timer_cancel(&rtc->time_timer);
    }
    if (cycles && waiting & REG_B_PIE) {
        timer_set(&rtc->periodic_timer, tick_ns(cycles, rtc->seen_tick + 1));
    } else {
        timer_cancel(&rtc->periodic_timer);
    }
}

static void rtc_update(struct rtc *rtc)
{
    account(rtc);
    update_irq(rtc);
    arm_timers(rtc);
}

static void rtc_timer(void *opaque)
{
    machine_lock();
    rtc_update(opaque);
    machine_unlock();
}

/* ---- registers ------------------------------------------------------------------------------ */

static bool is_time_register(unsigned index)
{
    switch (index) {
    case RTC_SECONDS:
    case RTC_MINUTES:
    case RTC_HOURS:
    case RTC_DAY_OF_WEEK:
    case RTC_DAY_OF_MONTH:
    case RTC_MONTH:
    case RTC_YEAR:
    case RTC_CMOS_CENTURY:
        return true;
    default:
        return false;
    }
}

/* Puts the present time into the registers; returns the nanoseconds of the second. */
static int64_t latch_time(struct rtc *rtc)
{
    int64_t ns, seconds = rtc_now(rtc, &ns);

    rtc_time_encode(seconds, format_of(rtc), rtc->cmos);
    return ns;
}

static uint8_t read_register_a(struct rtc *rtc)
{
    uint8_t a = rtc->cmos[RTC_REG_A];

    if (is_running(rtc)) {
        int64_t ns;
        rtc_now(rtc, &ns);
        a |= ns >= NS_PER_SEC - UIP_NS ? REG_A_UIP : 0;
    }
    return a;
}

static uint8_t read_data(struct rtc *rtc)
{
    uint8_t value;

    switch (rtc->index) {
    case RTC_REG_A:
        return read_register_a(rtc);
    case RTC_REG_C:
        account(rtc);
        update_irq(rtc);
        value = rtc->cmos[RTC_REG_C];
        rtc->cmos[RTC_REG_C] = 0;
        update_irq(rtc);
        arm_timers(rtc);
        return value;
    default:
        if (is_time_register(rtc->index) && is_running(rtc)) {
            latch_time(rtc);
        }
        return rtc->cmos[rtc->index];
    }
}

static void write_time(struct rtc *rtc, uint8_t value)
{
    if (!is_running(rtc)) {
        rtc->cmos[rtc->index] = value;
        return;
    }
    account(rtc);
    int64_t ns = latch_time(rtc);
    rtc->cmos[rtc->index] = value;
    set_time(rtc, rtc_time_decode(format_of(rtc), rtc->cmos), ns);
    rtc_update(rtc);
}

/* Registers A and B: what they change may stop or start the time. */
static void write_control(struct rtc *rtc, unsigned reg, uint8_t value, uint8_t mask)
{
    bool was_running = is_running(rtc);
    bool was_reset = (rtc->cmos[RTC_REG_A] & REG_A_RESET) == REG_A_RESET;
    int64_t ns = 0;

    account(rtc);
    if (was_running) {
        ns = latch_time(rtc);
    }
    rtc->cmos[reg] = value & mask;
    if (is_running(rtc) && !was_running) {
        /* The first update comes half a second after the divider's reset ends. */
        ns = was_reset ? NS_PER_SEC / 2 : 0;
        set_time(rtc, rtc_time_decode(format_of(rtc), rtc->cmos), ns);
    } else if (is_running(rtc)) {
        /* DM or 24/12 do not convert the registers, but here they are worked out anyway. */
        rtc_now(rtc, &ns);
    }
    unsigned cycles = period_cycles(rtc);
    rtc->seen_tick = cycles ? tick_at(cycles, clock_get_ns(AIO_CLOCK_VIRTUAL)) : 0;
    rtc_update(rtc);
}

static void write_data(struct rtc *rtc, uint8_t value)
{
    switch (rtc->index) {
    case RTC_REG_A:
        write_control(rtc, RTC_REG_A, value, (uint8_t)~REG_A_UIP);
        break;
    case RTC_REG_B:
        /* SET clears UIE (MC146818A, register B). */
        if (value & REG_B_SET) {
            value &= (uint8_t)~REG_B_UIE;
        }
        write_control(rtc, RTC_REG_B, value, 0xff);
        break;
    case RTC_REG_C:
    case RTC_REG_D:
        break;
    case RTC_SECONDS_ALARM:
    case RTC_MINUTES_ALARM:
    case RTC_HOURS_ALARM:
        account(rtc);
        rtc->cmos[rtc->index] = value;
        rtc_update(rtc);
        break;
    default:
        if (is_time_register(rtc->index)) {
            write_time(rtc, value);
        } else {
            rtc->cmos[rtc->index] = value;
        }
    }
}

static uint64_t rtc_read(void *opaque, uint64_t offset, unsigned size)
{
    struct rtc *rtc = opaque;

    switch (offset) {
    case PORT_DATA:
        return read_data(rtc);
    case PORT_EXTENDED_INDEX:
        return rtc->extended_index;
    case PORT_EXTENDED_DATA:
        return rtc->extended[rtc->extended_index];
    default:
        return 0xff; /* this index is write-only */
    }
}

static void rtc_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct rtc *rtc = opaque;

    switch (offset) {
    case PORT_INDEX:
        rtc->index = value & (RTC_CMOS_SIZE - 1);
        rtc->nmi_masked = value & 0x80;
        break;
    case PORT_DATA:
        write_data(rtc, (uint8_t)value);
        break;
    case PORT_EXTENDED_INDEX:
        rtc->extended_index = value & (RTC_CMOS_SIZE - 1);
        break;
    default:
        rtc->extended[rtc->extended_index] = (uint8_t)value;
    }
}

static const struct mem_region_ops rtc_ops = {
    .read = rtc_read,
    .write = rtc_write,
    .valid = {.min = 1, .max = 1},
};

/* ---- for the machine ------------------------------------------------------------------------ */

void rtc_set_cmos(struct device *dev, uint8_t index, uint8_t value)
{
    struct rtc *rtc = (struct rtc *)dev;

    if (index > RTC_REG_D && index < RTC_CMOS_SIZE && !is_time_register(index)) {
        rtc->cmos[index] = value;
    }
}

uint8_t rtc_get_cmos(struct device *dev, uint8_t index)
{
    struct rtc *rtc = (struct rtc *)dev;

    return rtc->cmos[index & (RTC_CMOS_SIZE - 1)];
}

static void set_cmos16(struct device *dev, uint8_t low, uint8_t high, uint64_t value)
{
    value = MIN(value, 0xffff);
    rtc_set_cmos(dev, low, (uint8_t)value);
    rtc_set_cmos(dev, high, (uint8_t)(value >> 8));
}

void rtc_set_memory(struct device *dev, uint64_t below_4g, uint64_t above_4g)
{
    uint64_t extended = below_4g > MiB ? (below_4g - MiB) / KiB : 0;
    uint64_t high = MIN(above_4g / (64 * KiB), 0xffffff);

    set_cmos16(dev, RTC_CMOS_BASE_MEMORY_LOW, RTC_CMOS_BASE_MEMORY_HIGH, 640);
    set_cmos16(dev, RTC_CMOS_EXT_MEMORY_LOW, RTC_CMOS_EXT_MEMORY_HIGH, extended);
    set_cmos16(dev, RTC_CMOS_EXT2_MEMORY_LOW, RTC_CMOS_EXT2_MEMORY_HIGH, extended);
    set_cmos16(dev, RTC_CMOS_MEMORY16_LOW, RTC_CMOS_MEMORY16_HIGH,
               below_4g > 16 * MiB ? (below_4g - 16 * MiB) / (64 * KiB) : 0);
    rtc_set_cmos(dev, RTC_CMOS_HIGH_MEMORY_LOW, (uint8_t)high);
    rtc_set_cmos(dev, RTC_CMOS_HIGH_MEMORY_MID, (uint8_t)(high >> 8));
    rtc_set_cmos(dev, RTC_CMOS_HIGH_MEMORY_HIGH, (uint8_t)(high >> 16));
}

/* ---- device --------------------------------------------------------------------------------- */

static bool set_base(struct rtc *rtc, struct error **errp)
{
    int64_t now = clock_get_ns(AIO_CLOCK_HOST);
    int64_t seconds = now / NS_PER_SEC, ns = now % NS_PER_SEC;

    if (!rtc->base || strcmp(rtc->base, "utc") == 0) {
        /* the host's time as it is */
    } else if (strcmp(rtc->base, "localtime") == 0) {
        struct tm tm;
        time_t t = (time_t)seconds;
        localtime_r(&t, &tm);
        seconds += tm.tm_gmtoff;
    } else if (rtc_time_parse(rtc->base, &seconds, errp)) {
        ns = 0;
    } else {
        return false;
    }
    set_time(rtc, seconds, ns);
    return true;
}

static bool rtc_realize(struct device *dev, struct error **errp)
{
    struct rtc *rtc = (struct rtc *)dev;
    static const enum aio_clock clocks[] = {AIO_CLOCK_HOST, AIO_CLOCK_RT, AIO_CLOCK_VIRTUAL};

    rtc->clock = clocks[rtc->clock_kind];
    rtc->irq = isa_irq(dev, RTC_IRQ, errp);
    if (!rtc->irq || !set_base(rtc, errp)) {
        return false;
    }
    rtc->cmos[RTC_REG_A] = REG_A_RUN | 6; /* 1024 Hz */
    rtc->cmos[RTC_REG_B] = REG_B_24H;
    rtc->cmos[RTC_REG_D] = REG_D_VRT;
    timer_init(&rtc->time_timer, main_loop(), rtc->clock, rtc_timer, rtc);
    timer_init(&rtc->periodic_timer, main_loop(), AIO_CLOCK_VIRTUAL, rtc_timer, rtc);
    mem_region_init_io(&rtc->region, "rtc", RTC_PORTS, &rtc_ops, rtc);
    if (!isa_map_io(dev, &rtc->region, RTC_PORT, errp)) {
        mem_region_destroy(&rtc->region);
        return false;
    }
    return true;
}

static void rtc_unrealize(struct device *dev)
{
    struct rtc *rtc = (struct rtc *)dev;

    timer_cancel(&rtc->time_timer);
    timer_cancel(&rtc->periodic_timer);
    isa_unmap_io(dev, &rtc->region);
    mem_region_destroy(&rtc->region);
}

/* Time and memory go on; interrupts stop (MC146818A, RESET). */
static void rtc_reset(struct device *dev)
{
    struct rtc *rtc = (struct rtc *)dev;

    account(rtc);
    rtc->cmos[RTC_REG_B] &= (uint8_t) ~(REG_INTERRUPT | REG_B_SQWE);
    rtc->cmos[RTC_REG_C] = 0;
    rtc->index = rtc->extended_index = 0;
    rtc->nmi_masked = false;
    rtc_update(rtc);
}

static bool is_plausible(int64_t seconds)
{
    return seconds > -MAX_SECONDS && seconds < MAX_SECONDS;
}

/* The host's time may have gone on meanwhile: timers are worked out anew. */
static bool rtc_post_load(void *device, unsigned version)
{
    struct rtc *rtc = device;

    if (rtc->index >= RTC_CMOS_SIZE || rtc->extended_index >= RTC_CMOS_SIZE ||
        rtc->fraction_ns < 0 || rtc->fraction_ns >= NS_PER_SEC || !is_plausible(rtc->offset_s) ||
        !is_plausible(rtc->seen_s)) {
        return false;
    }
    rtc->cmos[RTC_REG_A] &= (uint8_t)~REG_A_UIP;
    rtc->cmos[RTC_REG_D] = REG_D_VRT;
    rtc->irq_level = rtc->irq_level != 0;
    arm_timers(rtc);
    return true;
}

static const struct property rtc_props[] = {
    PROPERTY_STRING("base", struct rtc, base, NULL, "utc, localtime or a date"),
    PROPERTY_ENUM("clock", struct rtc, clock_kind, clock_names, RTC_CLOCK_HOST,
                  "clock that drives it"),
    PROPERTY_END,
};

static const struct vmstate_field rtc_fields[] = {
    VMSTATE_BYTES(struct rtc, cmos),
    VMSTATE_BYTES(struct rtc, extended),
    VMSTATE_UINT(struct rtc, index),
    VMSTATE_UINT(struct rtc, extended_index),
    VMSTATE_BOOL(struct rtc, nmi_masked),
    VMSTATE_UINT(struct rtc, offset_s),
    VMSTATE_UINT(struct rtc, fraction_ns),
    VMSTATE_UINT(struct rtc, seen_s),
    VMSTATE_UINT(struct rtc, seen_tick),
    VMSTATE_UINT(struct rtc, irq_level),
    VMSTATE_END,
};

static const struct vmstate rtc_vmstate = {
    .name = "mc146818rtc",
    .version = 1,
    .minimum_version = 1,
    .fields = rtc_fields,
    .post_load = rtc_post_load,
};

const struct device_type rtc_type = {
    .name = "mc146818rtc",
    .description = "Real-time clock and CMOS memory",
    .category = DEVICE_CATEGORY_MISC,
    .bus = "ISA",
    .size = sizeof(struct rtc),
    .internal = true,
    .props = rtc_props,
    .realize = rtc_realize,
    .unrealize = rtc_unrealize,
    .reset = rtc_reset,
    .vmstate = &rtc_vmstate,
};

struct device *rtc_new(struct bus *isa, const char *base, const char *clock, struct error **errp)
{
    struct device *dev = device_new(&rtc_type);

    if ((base && !device_set(dev, "base", base, errp)) ||
        (clock && !device_set(dev, "clock", clock, errp)) || !device_realize(dev, isa, errp)) {
        device_free(dev);
        return NULL;
    }
    return dev;
}
