/* SPDX-License-Identifier: MIT */
/*
 * Loaded contents: what stands in guest memory at every reset.
 *
 * A blob is named bytes at a guest address. Blobs are kept by ferry and written at each reset, so a
 * guest that overwrote its kernel boots again. Blobs never overlap and lie in RAM or ROM.
 *
 * Main thread.
 */
#ifndef FERRY_MACHINE_LOADER_H
#define FERRY_MACHINE_LOADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* A file read whole, or mapped. */
struct file_data {
    uint8_t *data;
    size_t size; /* bytes */
    char *path;
};

/* Maps a regular file privately. what: "kernel", for messages. Refuses directories, empty files,
 * and files over max bytes. */
bool file_data_open(struct file_data *file, const char *path, const char *what, uint64_t max,
                    struct error **errp);
void file_data_close(struct file_data *file);

/* Copies data. memory_size bytes are written, those past size as zeroes (ELF .bss). */
bool loader_add(const char *name, uint64_t address, const void *data, size_t size,
                uint64_t memory_size, struct error **errp);
/* As loader_add(), and the loader owns the mapping from now on. */
bool loader_add_file(const char *name, uint64_t address, struct file_data *file, size_t offset,
                     size_t size, struct error **errp);
/* Writes all blobs; machine_reset(). False if one does not lie in RAM or ROM. */
bool loader_write_all(struct error **errp);
void loader_cleanup(void);
/* Lowest free address at or above start where size bytes fit below end, or UINT64_MAX. */
uint64_t loader_find_free(uint64_t start, uint64_t end, uint64_t size, uint64_t alignment);

#endif
