/* SPDX-License-Identifier: MIT */
/*
 * File names as -drive takes them, made into options of nodes:
 *
 *   disk.img  file:disk.img    driver=file, filename=disk.img (host_device if it is one)
 *   host_device:/dev/sdb       driver=host_device, filename=/dev/sdb
 *   null-co://  null-aio://    driver=null-co, driver=null-aio
 *   nbd://host/export  nbd:…   driver=nbd, server.…, export=… (filename_nbd.c)
 *   blkdebug:CONFIG:IMAGE      driver=blkdebug, config=CONFIG, image.… of IMAGE
 *   json:{"driver": …}         what is in it
 *
 * "name:" before the first '/' is a protocol; ./name:x is a file, and what file:name:x stands for.
 */
#ifndef FERRY_BLOCK_FILENAME_H
#define FERRY_BLOCK_FILENAME_H

#include "base/options.h"

/* NULL if the protocol is unknown or the JSON malformed. */
struct options *block_filename_parse(const char *filename, struct error **errp);
/* "file.filename" without "file.driver", at any depth: a path, whatever it looks like. The driver that
 * it needs is added; not for "backing.filename". */
void block_filename_add_drivers(struct options *opts);
/* It begins with the name of a protocol, known or not. */
bool block_filename_has_protocol(const char *filename);
/* A path as a file name: with "./" before it if it would be taken for a protocol. The caller frees it. */
char *block_filename_of_path(const char *path);

#endif
