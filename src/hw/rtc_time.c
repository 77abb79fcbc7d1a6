/* SPDX-License-Identifier: MIT */
#include "hw/rtc_time.h"

#include <stdio.h>
#include <string.h>

#include "hw/rtc.h"

#define HOUR_PM         0x80
#define ALARM_DONT_CARE 0xc0 /* both top bits set */
#define ALARM_NEVER     0xff

/* Days since 1970-01-01 of the proleptic Gregorian calendar; a year starts in March, so that the
 * leap day is its last. */
static int64_t days_from_date(int64_t year, unsigned month, unsigned day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t year_of_era = year - era * 400;
    int64_t month_from_march = (month + 9) % 12;
    int64_t day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;

    return era * 146097 + day_of_era - 719468;
}

struct date {
    int64_t year;
    unsigned month, day;
};

static struct date date_from_days(int64_t days)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t day_of_era = days - era * 146097;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t month_from_march = (5 * day_of_year + 2) / 153;
    unsigned day = (unsigned)(day_of_year - (153 * month_from_march + 2) / 5 + 1);
    unsigned month = (unsigned)((month_from_march + 2) % 12 + 1);

    return (struct date){year_of_era + era * 400 + (month <= 2), month, day};
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

static uint8_t to_bcd(unsigned v)
{
    return (uint8_t)(v / 10 % 10 << 4 | v % 10);
}

static unsigned from_bcd(uint8_t v)
{
    return (v >> 4) * 10u + (v & 0x0f);
}

static uint8_t encode(struct rtc_format format, unsigned v)
{
    return format.binary ? (uint8_t)v : to_bcd(v);
}

static unsigned decode(struct rtc_format format, uint8_t v)
{
    return format.binary ? v : from_bcd(v);
}

static unsigned decode_hours(struct rtc_format format, uint8_t v)
{
    if (format.hours24) {
        return decode(format, v);
    }
    unsigned hours = decode(format, v & (uint8_t)~HOUR_PM) % 12;
    return v & HOUR_PM ? hours + 12 : hours;
}

void rtc_time_encode(int64_t seconds, struct rtc_format format, uint8_t *cmos)
{
    int64_t days = floor_div(seconds, RTC_SECONDS_PER_DAY);
    unsigned second = (unsigned)(seconds - days * RTC_SECONDS_PER_DAY);
    unsigned hours = second / 3600;
    struct date date = date_from_days(days);
    /* Years beyond four digits show their last four. */
    unsigned year = (unsigned)((date.year % 10000 + 10000) % 10000);

    cmos[RTC_SECONDS] = encode(format, second % 60);
    cmos[RTC_MINUTES] = encode(format, second / 60 % 60);
    if (format.hours24) {
        cmos[RTC_HOURS] = encode(format, hours);
    } else {
        cmos[RTC_HOURS] = encode(format, hours % 12 ? hours % 12 : 12);
        cmos[RTC_HOURS] |= hours >= 12 ? HOUR_PM : 0;
    }
    /* 1970-01-01 was a Thursday; Sunday is 1. */
    cmos[RTC_DAY_OF_WEEK] = encode(format, (unsigned)(((days + 4) % 7 + 7) % 7 + 1));
    cmos[RTC_DAY_OF_MONTH] = encode(format, date.day);
    cmos[RTC_MONTH] = encode(format, date.month);
    cmos[RTC_YEAR] = encode(format, year % 100);
    cmos[RTC_CMOS_CENTURY] = encode(format, year / 100);
}

int64_t rtc_time_decode(struct rtc_format format, const uint8_t *cmos)
{
    unsigned month = decode(format, cmos[RTC_MONTH]);
    int64_t year = decode(format, cmos[RTC_CMOS_CENTURY]) * 100 + decode(format, cmos[RTC_YEAR]);

    month = month < 1 ? 1 : month > 12 ? 12 : month;
    return days_from_date(year, month, 1) * RTC_SECONDS_PER_DAY +
           ((int64_t)decode(format, cmos[RTC_DAY_OF_MONTH]) - 1) * RTC_SECONDS_PER_DAY +
           decode_hours(format, cmos[RTC_HOURS]) * 3600 + decode(format, cmos[RTC_MINUTES]) * 60 +
           decode(format, cmos[RTC_SECONDS]);
}

/* What an alarm register asks for: a number, or any (-1). */
static int alarm_field(struct rtc_format format, uint8_t v, bool is_hours)
{
    if ((v & ALARM_DONT_CARE) == ALARM_DONT_CARE) {
        return -1;
    }
    return (int)(is_hours ? decode_hours(format, v) : decode(format, v));
}

unsigned rtc_alarm_distance(int64_t seconds, struct rtc_format format, const uint8_t *cmos)
{
    int hour = alarm_field(format, cmos[RTC_HOURS_ALARM], true);
    int minute = alarm_field(format, cmos[RTC_MINUTES_ALARM], false);
    int second = alarm_field(format, cmos[RTC_SECONDS_ALARM], false);
    int64_t day = floor_div(seconds, RTC_SECONDS_PER_DAY) * RTC_SECONDS_PER_DAY;
    unsigned start = (unsigned)(seconds - day);

    if (hour > 23 || minute > 59 || second > 59) {
        return 0;
    }
    /* Step to the start of the next hour, minute or second that may match. */
    for (unsigned t = start + 1; t <= start + RTC_SECONDS_PER_DAY;) {
        if (hour >= 0 && t / 3600 % 24 != (unsigned)hour) {
            t = (t / 3600 + 1) * 3600;
        } else if (minute >= 0 && t / 60 % 60 != (unsigned)minute) {
            t = (t / 60 + 1) * 60;
        } else if (second >= 0 && t % 60 != (unsigned)second) {
            t++;
        } else {
            return t - start;
        }
    }
    return 0;
}

static bool in_month(int year, int month, int day)
{
    struct date date;

    if (month < 1 || month > 12 || day < 1 || day > 31) {
        return false;
    }
    date = date_from_days(days_from_date(year, (unsigned)month, (unsigned)day));
    return date.month == (unsigned)month;
}

bool rtc_time_parse(const char *text, int64_t *seconds, struct error **errp)
{
    int year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0, end = 0;
    size_t length = strlen(text);

    if (length == strlen("YYYY-MM-DDThh:mm:ss")) {
        sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &year, &month, &day, &hour, &minute, &second,
               &end);
    } else if (length == strlen("YYYY-MM-DD")) {
        sscanf(text, "%4d-%2d-%2d%n", &year, &month, &day, &end);
    }
    if (!end || (size_t)end != length || year < 0 || !in_month(year, month, day) || hour < 0 ||
        hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60) {
        error_set(errp, "invalid datetime format '%s'", text);
        error_add_hint(errp, "valid formats: '2006-06-17T16:01:21' or '2006-06-17'");
        return false;
    }
    *seconds = days_from_date(year, (unsigned)month, (unsigned)day) * RTC_SECONDS_PER_DAY +
               hour * 3600 + minute * 60 + second;
    return true;
}
