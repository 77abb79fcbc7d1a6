/* SPDX-License-Identifier: MIT */
/*
 * Calendar arithmetic of the RTC: seconds since 1970 and its registers, in BCD or binary, 12 or 24
 * hours. No state, any thread.
 */
#ifndef FERRY_HW_RTC_TIME_H
#define FERRY_HW_RTC_TIME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* Register numbers (MC146818A, address map). */
enum {
    RTC_SECONDS,
    RTC_SECONDS_ALARM,
    RTC_MINUTES,
    RTC_MINUTES_ALARM,
    RTC_HOURS,
    RTC_HOURS_ALARM,
    RTC_DAY_OF_WEEK,
    RTC_DAY_OF_MONTH,
    RTC_MONTH,
    RTC_YEAR,
    RTC_REG_A,
    RTC_REG_B,
    RTC_REG_C,
    RTC_REG_D,
};

#define RTC_SECONDS_PER_DAY 86400

struct rtc_format {
    bool binary;  /* register B, DM; else BCD */
    bool hours24; /* register B, 24/12 */
};

/* Writes the seven time and date registers of cmos, and the century. */
void rtc_time_encode(int64_t seconds, struct rtc_format format, uint8_t *cmos);
/* Whatever the registers hold is taken as some time; fields beyond their range carry over. */
int64_t rtc_time_decode(struct rtc_format format, const uint8_t *cmos);

/* Seconds from `seconds` (exclusive) to the next time the alarm registers match, 1 to 86400, or 0:
 * they never do. */
unsigned rtc_alarm_distance(int64_t seconds, struct rtc_format format, const uint8_t *cmos);

/* "YYYY-MM-DDThh:mm:ss" or "YYYY-MM-DD", as UTC. */
bool rtc_time_parse(const char *text, int64_t *seconds, struct error **errp);

#endif
