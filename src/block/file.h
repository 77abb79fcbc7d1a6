/* SPDX-License-Identifier: MIT */
/*
 * file and host_device: host files and block devices. Opening and options are in file.c, requests
 * in file_io.c, locks against other processes in file_lock.c, what O_DIRECT needs in
 * file_align.c.
 */
#ifndef FERRY_BLOCK_FILE_H
#define FERRY_BLOCK_FILE_H

#include "aio/io.h"
#include "block/node.h"

struct file_state {
    /* constant while it is open; the fd may become another file description of the same file */
    int fd;
    enum aio_io_engine engine;
    bool is_device;
    bool is_direct;
    bool is_memory;      /* on tmpfs or ramfs: I/O is a copy in memory */
    bool has_locks;      /* locking= and the file system allow them */
    uint32_t block_size; /* bytes: a device's logical blocks, a file system's blocks */
    uint32_t request_alignment, memory_alignment;
    /* main loop */
    bool is_writable; /* the fd is; with auto-read-only=on only while somebody writes */
    /* atomic */
    _Atomic(uint64_t) eof; /* bytes the file had when it was opened, or has by our own writes behind
                            * that; the node's length is rounded up */
    _Atomic(int) flush_error; /* negative errno of a flush that lost data in the page cache */
    /* How often a read without waiting failed in a row, and how many reads do not try therefore. */
    _Atomic(unsigned) now_failures, now_skips;
    _Atomic(bool) no_now; /* the file system cannot tell whether it would wait */
    _Atomic(bool) no_zero_range, no_punch_hole, no_discard, no_dsync;
};

/* file_io.c */
int file_co_preadv(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                   unsigned flags, uint64_t id);
int file_co_pwritev(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                    unsigned flags, uint64_t id);
int file_co_flush(struct block_node *node, uint64_t id);
int file_co_discard(struct block_node *node, uint64_t offset, uint64_t length);
int file_co_write_zeroes(struct block_node *node, uint64_t offset, uint64_t length, unsigned flags);
int file_co_truncate(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
                     struct error **errp);
int file_co_block_status(struct block_node *node, uint64_t offset, uint64_t *length, uint64_t *map);

/* file_create.c. file_set_length(): blocks; 0 or negative errno, the old length then. */
int file_set_length(int fd, uint64_t old, uint64_t length, enum block_prealloc prealloc);
bool file_create(struct options *opts, struct error **errp);

/* file_lock.c. Can locks be had? required: locking=on; else a file system without locks is fine, and
 * *has_locks says so. */
bool file_check_locks(int fd, const char *filename, bool required, bool *has_locks,
                      struct error **errp);
/* What is added to `old` is said to other processes (ferry, QEMU and its tools), until fd is closed; an
 * error, and nothing has changed, if one of them denies that, or does what is denied now. */
bool file_lock(int fd, const struct block_perms *old, const struct block_perms *perms,
               const char *filename, struct error **errp);
/* What is left out of `old` may be done by others again. */
void file_unlock(int fd, const struct block_perms *old, const struct block_perms *perms);
/* The file gets a new fd: at no time is it without locks. */
void file_move_locks(int old_fd, int fd, const struct block_perms *perms);

/* file_align.c: fills request_alignment and memory_alignment. */
bool file_probe_alignment(struct file_state *s, const char *filename, struct error **errp);

#endif
