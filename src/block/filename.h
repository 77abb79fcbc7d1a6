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
 * "name:" before the first '/' is a protocol; ./name:x is a file.
 */
#ifndef FERRY_BLOCK_FILENAME_H
#define FERRY_BLOCK_FILENAME_H

#include "base/options.h"

/* NULL if the protocol is unknown or the JSON malformed. */
struct options *block_filename_parse(const char *filename, struct error **errp);

#endif
