/* SPDX-License-Identifier: MIT */
/* What the tests of qcow2 share: images made by ferry, and qemu-img's opinion of them. */
#ifndef FERRY_TESTS_BLOCK_QCOW2_TOOLS_H
#define FERRY_TESTS_BLOCK_QCOW2_TOOLS_H

#include "kit.h"

#include <jansson.h>

/* cmocka group fixtures: a directory in memory, where flushes cost nothing. */
int tools_enter_directory(void **state);
int tools_leave_directory(void **state);

/* True if Debian's qemu-img is there; tests that compare with it skip without. */
bool tools_have_qemu_img(void);
/* Runs a shell command, stderr dropped; its exit status. */
int tools_run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same; it must succeed. */
void tools_must(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* What it prints, as JSON; it must succeed. The caller drops the reference. */
json_t *tools_json(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* `qemu-img check` finds nothing at all; leaks: leaked clusters are fine. */
void tools_check(const char *image, bool leaks);
/* Fails and prints both if they differ. */
void tools_assert_same_json(const json_t *ours, const json_t *theirs, const char *what);

/* `create -f qcow2 -o options name`, by ferry; size among them. False and *errp if it fails. */
bool tools_try_create(const char *name, const char *options, struct error **errp);
void tools_create(const char *name, const char *options);

#endif
