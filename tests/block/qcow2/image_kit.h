/* SPDX-License-Identifier: MIT */
/*
 * What the tests of qcow2's image operations share: images made by qemu-img, poked at, checked by
 * both.
 */
#ifndef FERRY_TESTS_BLOCK_QCOW2_IMAGE_KIT_H
#define FERRY_TESTS_BLOCK_QCOW2_IMAGE_KIT_H

#include "block/image.h"
#include "kit.h"

/* sh -c; its exit status. run() must be 0. */
int run_status(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Its standard output, to be freed. */
char *run_output(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

void copy_file(const char *from, const char *to);
bool same_files(const char *a, const char *b);

/* ---- an image file as bytes ------------------------------------------------------------------ */

struct image {
    int fd;
    uint64_t cluster_size;
    uint64_t l1, l2; /* offsets: the active L1 table, its first L2 table */
    uint64_t reftable, refblock;
    uint64_t snapshots;
};

void image_open(struct image *image, const char *name);
void image_close(struct image *image);
uint64_t image_get64(struct image *image, uint64_t offset);
void image_put(struct image *image, uint64_t offset, const void *from, size_t size);
void image_put64(struct image *image, uint64_t offset, uint64_t value);
void image_put32(struct image *image, uint64_t offset, uint32_t value);
void image_put16(struct image *image, uint64_t offset, uint16_t value);
uint64_t image_size(struct image *image);
void image_truncate(struct image *image, uint64_t size);

/* ---- both tools' checks ----------------------------------------------------------------------- */

/* False: qemu-img could not check it. */
bool qemu_check(const char *name, struct block_check_result *result);
/* ferry's; name may be "driver=…" options. lines: what it said, each ended by a newline, to be freed; or NULL. False: *error has the
 * message, to be freed. */
bool ferry_check(const char *name, unsigned fix, struct block_check_result *result, char **lines,
                 char **error);

/* ---- opening ---------------------------------------------------------------------------------- */

/* "driver=…" options, or a file name of a qcow2 image. Must work. */
struct block_backend *image_backend(const char *text, bool writable);
void image_backend_close(struct block_backend *be);
/* One of the operations by name: "create", "apply", "delete", "load"; must work, or, with message,
 * fail so. */
void snapshot_op(struct block_backend *be, const char *op, const char *arg, const char *message);

#endif
