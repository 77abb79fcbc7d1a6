/* SPDX-License-Identifier: MIT */
/*
 * Errors of users and configuration.
 *
 * A function that can fail because of what a user gave it returns bool (true: done) or a
 * pointer (NULL: failed) and takes a last argument `struct error **errp`. On failure it stores a
 * new error there; the caller that passed the address decides what to do (print it and exit, or
 * answer a QMP command with it). The message is one line without a full stop, names the culprit
 * (option, file, value) and, after a semicolon or in the hint, the remedy.
 *
 * errp may be NULL: then the error is dropped. *errp must be NULL on entry. I/O errors travel as
 * negative errno, errors of the guest never come here, errors of our own are assertions.
 *
 * Thread-safe: an error belongs to whoever holds the pointer.
 */
#ifndef FERRY_BASE_ERROR_H
#define FERRY_BASE_ERROR_H

#include <stdarg.h>
#include <stdbool.h>

struct error;

/* QMP error classes (QMP specification, 2.4.2). */
enum error_class {
    ERROR_GENERIC,
    ERROR_COMMAND_NOT_FOUND,
    ERROR_DEVICE_NOT_ACTIVE,
    ERROR_DEVICE_NOT_FOUND,
    ERROR_KVM_MISSING_CAP,
};

void error_set(struct error **errp, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void error_set_class(struct error **errp, enum error_class class, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* As error_set(), and appends ": " and the text of errno value err (positive). */
void error_set_errno(struct error **errp, int err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Puts text in front of the message of *errp, if there is one. */
void error_prepend(struct error **errp, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same, unless the message begins with that already. */
void error_prepend_once(struct error **errp, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Adds a line that tells the remedy, printed below the message. */
void error_add_hint(struct error **errp, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

const char *error_message(const struct error *err);
const char *error_hint(const struct error *err); /* "" if there is none */
enum error_class error_class(const struct error *err);
const char *error_class_name(const struct error *err); /* as QMP spells it: "GenericError" */

/* Hands err over to *errp, or frees it if errp is NULL. */
void error_propagate(struct error **errp, struct error *err);
void error_free(struct error *err);
/* Prints "ferry: message" (and the hint on the next line) on stderr and frees err. */
void error_report(struct error *err);

#endif
