/* SPDX-License-Identifier: MIT */
/*
 * The qtest protocol: a test drives the machine's buses and clock over a character device.
 *
 *   > outl 0xcf8 0x80000000      < OK
 *   > clock_step 1000            < OK 1000
 *                                < IRQ raise 4          (after irq_intercept_in ioapic)
 *
 * Lines of words; numbers as strtoull takes them; data as 0x and hexadecimal digits, or base64. Each
 * request gets one line "OK[ value]" or "FAIL reason". Main loop; a session knows its peer only as
 * an output function.
 */
#ifndef FERRY_MONITOR_QTEST_H
#define FERRY_MONITOR_QTEST_H

#include <stddef.h>
#include <stdio.h>

struct qtest_session;

/* log: where requests and replies are written, or NULL. */
struct qtest_session *qtest_session_new(void (*output)(void *opaque, const char *text, size_t size),
                                        void *opaque, FILE *log);
void qtest_session_free(struct qtest_session *session);
void qtest_session_open(struct qtest_session *session);
void qtest_session_close(struct qtest_session *session);
void qtest_session_input(struct qtest_session *session, const char *data, size_t size);

#endif
