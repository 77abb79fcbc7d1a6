/* SPDX-License-Identifier: MIT */
/* file: making files, and other lengths for them. See file.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "base/range.h"
#include "block/file.h"

/* ---- length ---------------------------------------------------------------------------------- */

static int write_zeroes(int fd, uint64_t offset, uint64_t length)
{
    autofree char *zeroes = xcalloc(1, MiB);

    while (length) {
        ssize_t n = pwrite(fd, zeroes, MIN(length, MiB), (off_t)offset);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        if (n > 0) {
            offset += n;
            length -= n;
        }
    }
    return fsync(fd) < 0 ? -errno : 0;
}

int file_set_length(int fd, uint64_t old, uint64_t length, enum block_prealloc prealloc)
{
    int ret = 0;

    if (length > INT64_MAX) {
        return -EFBIG;
    }
    if (length <= old || prealloc == BLOCK_PREALLOC_OFF || prealloc == BLOCK_PREALLOC_METADATA) {
        return ftruncate(fd, (off_t)length) < 0 ? -errno : 0;
    }
    if (prealloc == BLOCK_PREALLOC_FALLOC) {
        ret = -posix_fallocate(fd, (off_t)old, (off_t)(length - old));
    } else {
        ret = write_zeroes(fd, old, length - old);
    }
    if (ret < 0 && ftruncate(fd, (off_t)old) < 0) {
        return ret; /* the first reason counts */
    }
    return ret;
}

/* ---- making ---------------------------------------------------------------------------------- */

/* Copy-on-write off (btrfs); a hint, as for qemu-img. */
static void set_nocow(int fd)
{
    int attributes;

    if (ioctl(fd, FS_IOC_GETFLAGS, &attributes) == 0) {
        attributes |= FS_NOCOW_FL;
        ioctl(fd, FS_IOC_SETFLAGS, &attributes);
    }
}

/* As for qemu-img, what cannot be done is told and left undone. */
static void set_extent_size(int fd, uint64_t hint)
{
    struct fsxattr attributes;

    int ret = ioctl(fd, FS_IOC_FSGETXATTR, &attributes);
    if (ret == 0) {
        attributes.fsx_xflags |= FS_XFLAG_EXTSIZE;
        attributes.fsx_extsize = (uint32_t)hint;
        ret = ioctl(fd, FS_IOC_FSSETXATTR, &attributes);
    }
    if (ret < 0) {
        log_warn("Failed to set extent size hint: %s", strerror(errno));
    }
}

/* Nobody may be reading or writing what is about to be emptied. */
static bool lock_and_empty(int fd, const char *filename, struct error **errp)
{
    const struct block_perms none = {0};
    const struct block_perms writes = {
        .used = BLOCK_PERM_READ | BLOCK_PERM_WRITE,
        .denied = BLOCK_PERM_WRITE,
    };
    bool has_locks;

    if (!file_check_locks(fd, filename, false, &has_locks, errp) ||
        (has_locks && !file_lock(fd, &none, &writes, filename, errp))) {
        return false;
    }
    if (ftruncate(fd, 0) < 0) {
        error_set_errno(errp, errno, "Could not empty '%s'", filename);
        return false;
    }
    return true;
}

bool file_create(struct options *opts, struct error **errp)
{
    autofree char *filename = options_take(opts, "filename");
    int prealloc = BLOCK_PREALLOC_OFF;
    uint64_t size = 0, extent_size = 0;
    bool nocow = false;

    if (!options_get_size(opts, "size", 1, &size, errp) ||
        !options_get_enum(opts, "preallocation", block_prealloc_names, &prealloc, errp) ||
        !options_get_bool(opts, "nocow", &nocow, errp) ||
        !options_get_size(opts, "extent_size_hint", 1, &extent_size, errp)) {
        return false;
    }
    if (extent_size > UINT32_MAX) {
        error_set(errp, "Extent size hint is too large");
        return false;
    }
    if (!filename || !*filename) {
        error_set(errp, "The 'file' block driver requires a file name: filename=FILE");
        return false;
    }
    int fd = open(filename, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0644);
    if (fd < 0) {
        error_set_errno(errp, errno, "Could not create '%s'", filename);
        return false;
    }
    bool ok = lock_and_empty(fd, filename, errp);
    if (ok) {
        if (nocow) {
            set_nocow(fd);
        }
        if (extent_size) {
            set_extent_size(fd, extent_size);
        }
        int ret = file_set_length(fd, 0, size, prealloc);
        if (ret < 0) {
            error_set_errno(errp, -ret, "Could not resize '%s' to %llu bytes", filename,
                            (unsigned long long)size);
            ok = false;
        }
    }
    close(fd);
    return ok;
}
