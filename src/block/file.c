/* SPDX-License-Identifier: MIT */
/*
 * file and host_device: options, opening, limits. See file.h.
 *
 * A file whose length is no multiple of 512 is seen with its length rounded up, as by QEMU: what
 * is missing reads as zeroes, and a write to the last sector makes the file longer.
 */
#include "block/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "base/range.h"
#include "block/advice.h"
#include "block/drivers.h"
#include "block/filename.h"

#define SECTOR 512

enum { LOCKING_AUTO, LOCKING_ON, LOCKING_OFF };

/* aio=native is Linux AIO, which is asynchronous with O_DIRECT only. io_uring does the same with
 * fewer system calls; where a host forbids that, threads do it. */
static bool get_native_engine(unsigned flags, enum aio_io_engine *engine, struct error **errp)
{
    struct error *err = NULL;

    if (!(flags & BLOCK_OPEN_NOCACHE)) {
        error_set(errp, "aio=native was specified, but it requires cache.direct=on, which was not "
                        "specified.");
        return false;
    }
    *engine = AIO_IO_URING;
    if (!aio_io_available(aio_loop_current(), AIO_IO_URING, &err)) {
        log_warn("aio=native: %s; threads are used", error_message(err));
        error_free(err);
        *engine = AIO_IO_THREADS;
    }
    return true;
}

static bool get_engine(struct options *opts, unsigned flags, enum aio_io_engine *engine,
                       struct error **errp)
{
    static const char *const names[] = {"threads", "io_uring", "native", NULL};
    int aio = 0;

    if (!options_get_enum(opts, "aio", names, &aio, errp)) {
        return false;
    }
    if (aio == 2) {
        return get_native_engine(flags, engine, errp);
    }
    *engine = aio ? AIO_IO_URING : AIO_IO_THREADS;
    return aio_io_available(aio_loop_current(), *engine, errp);
}

/* QEMU's bound on what linux-aio gets at once; 0 leaves that to the engine. */
static bool check_max_batch(struct options *opts, struct error **errp)
{
    uint64_t max_batch = 0;

    if (!options_get_uint(opts, "aio-max-batch", 0, INT64_MAX, &max_batch, errp)) {
        return false;
    }
    if (max_batch) {
        error_set(errp,
                  "aio-max-batch=%" PRIu64 " is not supported: all requests that have come "
                  "together are submitted at once; leave it out",
                  max_batch);
    }
    return !max_batch;
}

/* ---- opening --------------------------------------------------------------------------------- */

static bool means_read_only(int err)
{
    return err == EACCES || err == EPERM || err == EROFS || err == ETXTBSY;
}

/* The file is written by who has the permissions `used`. */
static bool needs_writing(unsigned flags, unsigned used)
{
    if (flags & BLOCK_OPEN_AUTO_READ_ONLY &&
        !(used & (BLOCK_PERM_WRITE | BLOCK_PERM_WRITE_UNCHANGED | BLOCK_PERM_RESIZE))) {
        return false;
    }
    return flags & BLOCK_OPEN_RDWR;
}

static int open_as(const char *filename, bool write, unsigned flags)
{
    /* O_NONBLOCK: a FIFO must not make us wait for its other end. */
    return open(filename, (write ? O_RDWR : O_RDONLY) |
                              (flags & BLOCK_OPEN_NOCACHE ? O_DIRECT : 0) | O_CLOEXEC | O_NOCTTY |
                              O_NONBLOCK);
}

/* Why it could not be opened, and what helps. */
static void explain_open_error(int err, const char *filename, bool write, unsigned flags,
                               struct error **errp)
{
    error_set_errno(errp, err, "Could not open '%s'", filename);
    if (err == EINVAL && flags & BLOCK_OPEN_NOCACHE) {
        error_add_hint(errp, "its file system may not know O_DIRECT; use cache.direct=off "
                             "(cache=writeback)");
    } else if (write && means_read_only(err)) {
        int fd = open_as(filename, false, flags & ~BLOCK_OPEN_NOCACHE);
        if (fd >= 0) {
            close(fd);
            error_add_hint(errp, "%s", block_advice()->only_readable);
        }
    }
}

static bool check_type(const struct stat *st, const char *filename, bool is_device,
                       struct error **errp)
{
    if (S_ISDIR(st->st_mode)) {
        error_set(errp, "Could not open '%s': Is a directory; give the file name of an image",
                  filename);
    } else if (is_device && !S_ISBLK(st->st_mode)) {
        error_set(errp, "'host_device' driver requires '%s' to be a block device", filename);
    } else if (!is_device && S_ISBLK(st->st_mode)) {
        error_set(errp,
                  "'file' driver requires '%s' to be a regular file; use driver "
                  "'host_device' for a block device",
                  filename);
    } else if (!is_device && !S_ISREG(st->st_mode)) {
        error_set(errp, "'file' driver requires '%s' to be a regular file", filename);
    } else {
        return true;
    }
    return false;
}

/* Sets fd and what it is like. */
static bool open_fd(struct file_state *s, const char *filename, unsigned flags, struct error **errp)
{
    struct stat st;
    struct statfs fs;

    /* First by name: opening some things has effects of its own. */
    if (stat(filename, &st) == 0 && !check_type(&st, filename, s->is_device, errp)) {
        return false;
    }
    s->is_writable = needs_writing(flags, 0);
    s->fd = open_as(filename, s->is_writable, flags);
    if (s->fd < 0) {
        explain_open_error(errno, filename, s->is_writable, flags, errp);
        return false;
    }
    if (fstat(s->fd, &st) < 0) {
        error_set_errno(errp, errno, "Could not open '%s'", filename);
        return false;
    }
    if (!check_type(&st, filename, s->is_device, errp)) {
        return false;
    }
    /* io_uring answers EAGAIN on such files rather than to wait. */
    int fd_flags = fcntl(s->fd, F_GETFL);
    fcntl(s->fd, F_SETFL, fd_flags & ~O_NONBLOCK);
    s->is_direct = flags & BLOCK_OPEN_NOCACHE;
    s->is_memory = !s->is_device && fstatfs(s->fd, &fs) == 0 &&
                   (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
    s->block_size = is_power_of_2(st.st_blksize) && st.st_blksize <= 65536 ? st.st_blksize : 4096;
    return true;
}

static bool get_size(struct file_state *s, const char *filename, struct error **errp)
{
    struct stat st;
    int block_size;
    uint64_t size;

    if (!s->is_device) {
        if (fstat(s->fd, &st) < 0) {
            error_set_errno(errp, errno, "Could not get the length of '%s'", filename);
            return false;
        }
        size = st.st_size;
    } else if (ioctl(s->fd, BLKGETSIZE64, &size) < 0 || ioctl(s->fd, BLKSSZGET, &block_size) < 0) {
        error_set_errno(errp, errno, "Could not get the size of block device '%s'", filename);
        return false;
    } else {
        s->block_size = block_size;
    }
    if (size > INT64_MAX - SECTOR) {
        error_set(errp, "'%s' is too long: %" PRIu64 " bytes", filename, size);
        return false;
    }
    atomic_store(&s->eof, size);
    return true;
}

static void file_close(struct block_node *node)
{
    struct file_state *s = node->state;

    close(s->fd);
}

static bool open_common(struct block_node *node, struct options *opts, bool is_device,
                        struct error **errp)
{
    static const char *const locking_names[] = {"auto", "on", "off", NULL};
    struct file_state *s = node->state;
    const char *filename = options_get(opts, "filename");
    int locking = LOCKING_AUTO;

    s->is_device = is_device;
    if (!get_engine(opts, node->flags, &s->engine, errp) ||
        !options_get_enum(opts, "locking", locking_names, &locking, errp) ||
        !check_max_batch(opts, errp)) {
        return false;
    }
    if (!filename || !*filename) {
        error_set(errp, "The '%s' block driver requires a file name: filename=FILE",
                  node->driver->name);
        return false;
    }
    free(node->filename);
    node->filename = xstrdup(filename);
    s->fd = -1;
    bool ok = open_fd(s, filename, node->flags, errp) &&
              (locking == LOCKING_OFF ||
               file_check_locks(s->fd, filename, locking == LOCKING_ON, &s->has_locks, errp)) &&
              get_size(s, filename, errp) && file_probe_alignment(s, filename, errp);
    if (!ok && s->fd >= 0) {
        close(s->fd);
    }
    return ok;
}

static bool file_open(struct block_node *node, struct options *opts, struct error **errp)
{
    return open_common(node, opts, false, errp);
}

static bool host_device_open(struct block_node *node, struct options *opts, struct error **errp)
{
    return open_common(node, opts, true, errp);
}

/* ---- other flags, other users ---------------------------------------------------------------- */

/* The same file by another open file description; negative errno. */
static int open_again(const struct file_state *s, bool write, unsigned flags)
{
    char name[32];

    snprintf(name, sizeof(name), "/proc/self/fd/%d", s->fd);
    int fd = open_as(name, write, flags);
    if (fd < 0) {
        return -errno;
    }
    int fd_flags = fcntl(fd, F_GETFL);
    fcntl(fd, F_SETFL, fd_flags & ~O_NONBLOCK);
    return fd;
}

/* It comes into the place of the old one, which requests in flight still use, with the locks of `perms`. */
static void take_fd(struct file_state *s, int fd, bool write, const struct block_perms *perms)
{
    if (s->has_locks) {
        file_move_locks(s->fd, fd, perms);
    }
    dup3(fd, s->fd, O_CLOEXEC);
    close(fd);
    s->is_writable = write;
}

static bool file_reopen(struct block_node *node, unsigned flags, struct error **errp)
{
    struct file_state *s = node->state;
    bool write = needs_writing(flags, node->perms.used);

    if (write == s->is_writable && !((flags ^ node->flags) & BLOCK_OPEN_NOCACHE)) {
        return true;
    }
    int fd = open_again(s, write, flags);
    if (fd < 0) {
        explain_open_error(-fd, node->filename, write, flags, errp);
        return false;
    }
    struct file_state as = {
        .fd = fd,
        .is_device = s->is_device,
        .is_direct = flags & BLOCK_OPEN_NOCACHE,
        .block_size = s->block_size,
    };
    if (!file_probe_alignment(&as, node->filename, errp)) {
        close(fd);
        return false;
    }
    take_fd(s, fd, write, &node->perms);
    s->is_direct = as.is_direct;
    s->request_alignment = as.request_alignment;
    s->memory_alignment = as.memory_alignment;
    return true;
}

/* auto-read-only=on: the first writer comes. */
static bool start_writing(struct block_node *node, const struct block_perms *perms,
                          struct error **errp)
{
    int fd = open_again(node->state, true, node->flags);

    if (fd < 0) {
        explain_open_error(-fd, node->filename, true, node->flags, errp);
        return false;
    }
    take_fd(node->state, fd, true, perms);
    return true;
}

/* The last one is gone. What it left in the page cache is flushed by the fd that it was written by, which
 * hears of errors; also if it cannot be opened otherwise any more, the old one stays. */
static void stop_writing(struct block_node *node, const struct block_perms *perms)
{
    if (atomic_load(&node->unflushed)) {
        return;
    }
    int fd = open_again(node->state, false, node->flags);
    if (fd >= 0) {
        take_fd(node->state, fd, false, perms);
    }
}

/* Another fd of the file in this process is another user of it, too. */
static bool file_set_perms(struct block_node *node, const struct block_perms *perms,
                           struct error **errp)
{
    const struct file_state *s = node->state;
    bool write = needs_writing(node->flags, perms->used);

    if (s->has_locks && !file_lock(s->fd, &node->perms, perms, node->filename, errp)) {
        return false;
    }
    if (write && !s->is_writable && !start_writing(node, perms, errp)) {
        if (s->has_locks) {
            file_unlock(s->fd, perms, &node->perms);
        }
        return false;
    }
    if (s->has_locks) {
        file_unlock(s->fd, &node->perms, perms);
    }
    if (!write && s->is_writable) {
        stop_writing(node, perms);
    }
    return true;
}

/* ---- what it is like ------------------------------------------------------------------------- */

static int64_t file_length(struct block_node *node)
{
    const struct file_state *s = node->state;

    return align_up(s->eof, SECTOR);
}

static int64_t file_allocated(struct block_node *node)
{
    const struct file_state *s = node->state;
    struct stat st;

    return fstat(s->fd, &st) < 0 ? -errno : (int64_t)st.st_blocks * SECTOR;
}

static bool file_allow_growth(struct block_node *node)
{
    return true;
}

static void file_limits(struct block_node *node, struct block_limits *limits)
{
    const struct file_state *s = node->state;

    limits->request_alignment = s->request_alignment;
    limits->memory_alignment = s->memory_alignment;
    limits->max_iov = IOV_MAX;
    limits->max_transfer = GiB; /* the kernel takes nearly 2 GiB */
    limits->discard_alignment = s->block_size;
}

static char *file_plain_name(const struct block_node *node, bool has_options)
{
    return block_filename_of_path(node->filename);
}

static const struct node_option options[] = {
    {"filename", NODE_OPTION_STRING, true},
    {"aio", NODE_OPTION_STRING},
    {"locking", NODE_OPTION_STRING},
    {"aio-max-batch", NODE_OPTION_INTEGER},
    {NULL},
};

const struct block_driver block_driver_file = {
    .name = "file",
    .help = "a host file; filename=, aio=threads|io_uring|native, locking=auto|on|off",
    .is_protocol = true,
    .state_size = sizeof(struct file_state),
    .options = options,
    .plain_name = file_plain_name,
    .supported_flags = BLOCK_REQ_FUA,
    .open = file_open,
    .close = file_close,
    .reopen = file_reopen,
    .limits = file_limits,
    .length = file_length,
    .allocated = file_allocated,
    .co_preadv = file_co_preadv,
    .co_pwritev = file_co_pwritev,
    .co_flush = file_co_flush,
    .co_discard = file_co_discard,
    .co_write_zeroes = file_co_write_zeroes,
    .co_block_status = file_co_block_status,
    .co_truncate = file_co_truncate,
    .allow_growth = file_allow_growth,
    .create = file_create,
    .set_perms = file_set_perms,
};

const struct block_driver block_driver_host_device = {
    .name = "host_device",
    .help = "a host block device; filename=, aio=threads|io_uring|native, locking=auto|on|off",
    .is_protocol = true,
    .state_size = sizeof(struct file_state),
    .options = options,
    .plain_name = file_plain_name,
    .supported_flags = BLOCK_REQ_FUA,
    .open = host_device_open,
    .close = file_close,
    .reopen = file_reopen,
    .limits = file_limits,
    .length = file_length,
    .allocated = file_allocated,
    .co_preadv = file_co_preadv,
    .co_pwritev = file_co_pwritev,
    .co_flush = file_co_flush,
    .co_discard = file_co_discard,
    .co_write_zeroes = file_co_write_zeroes,
    .co_block_status = file_co_block_status,
    .set_perms = file_set_perms,
};
