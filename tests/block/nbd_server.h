/* SPDX-License-Identifier: MIT */
/* An NBD server for tests: a program that listens at the unix socket "sock". One at a time. */
#ifndef FERRY_TESTS_BLOCK_NBD_SERVER_H
#define FERRY_TESTS_BLOCK_NBD_SERVER_H

#include <stdbool.h>

bool nbd_server_has(const char *program);
/* A command of the shell, which need not listen yet. */
void nbd_server_launch(const char *command);
/* Runs a program until it listens. */
void nbd_server_start(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void nbdkit(const char *arguments);
/* Kills it; nothing if there is none. */
void nbd_server_stop(void);

#endif
