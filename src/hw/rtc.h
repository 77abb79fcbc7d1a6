/* SPDX-License-Identifier: MIT */
/*
 * The MC146818A real-time clock with 128 bytes of CMOS memory (Motorola data sheet; 82371AB,
 * 4.2.5): index port 0x70, whose bit 7 masks the NMI, and data port 0x71; interrupt 8. Ports 0x72
 * and 0x73 are index and data of 128 more bytes.
 *
 * Time is kept as an offset from a host clock (CLOCK_HOST, or the virtual clock with clock=vm); the
 * ten time registers are worked out when they are read. Timers exist only while somebody could see
 * them: alarm, update-ended and periodic interrupts.
 *
 * Machine state: machine lock held.
 */
#ifndef FERRY_HW_RTC_H
#define FERRY_HW_RTC_H

#include "device/device.h"

extern const struct device_type rtc_type; /* "mc146818rtc" */

/* CMOS bytes that PC firmware reads. */
#define RTC_CMOS_EQUIPMENT        0x14
#define RTC_CMOS_BASE_MEMORY_LOW  0x15 /* KiB */
#define RTC_CMOS_BASE_MEMORY_HIGH 0x16
#define RTC_CMOS_EXT_MEMORY_LOW   0x17 /* KiB above 1 MiB, to 64 MiB */
#define RTC_CMOS_EXT_MEMORY_HIGH  0x18
#define RTC_CMOS_EXT2_MEMORY_LOW  0x30 /* the same again */
#define RTC_CMOS_EXT2_MEMORY_HIGH 0x31
#define RTC_CMOS_CENTURY          0x32
#define RTC_CMOS_MEMORY16_LOW     0x34 /* 64 KiB units above 16 MiB */
#define RTC_CMOS_MEMORY16_HIGH    0x35
#define RTC_CMOS_BOOT_DEVICE      0x38
#define RTC_CMOS_BOOT_DEVICE2     0x3d
#define RTC_CMOS_HIGH_MEMORY_LOW  0x5b /* 64 KiB units above 4 GiB, 24 bits */
#define RTC_CMOS_HIGH_MEMORY_MID  0x5c
#define RTC_CMOS_HIGH_MEMORY_HIGH 0x5d
#define RTC_CMOS_CPU_COUNT        0x5f /* vCPUs less one */

/* base: "utc" (NULL), "localtime" or "YYYY-MM-DD[Thh:mm:ss]"; clock: "host" (NULL), "rt" or
 * "vm". */
struct device *rtc_new(struct bus *isa, const char *base, const char *clock, struct error **errp);

/* A CMOS byte outside of the time and control registers (index 0x0e..0x7f). */
void rtc_set_cmos(struct device *rtc, uint8_t index, uint8_t value);
uint8_t rtc_get_cmos(struct device *rtc, uint8_t index);
/* The bytes that tell memory sizes. */
void rtc_set_memory(struct device *rtc, uint64_t below_4g, uint64_t above_4g);

#endif
