/* SPDX-License-Identifier: MIT */
/*
 * Image locks, shared with QEMU: what a process does with an image, and what it does not want
 * others to do, is said by shared locks on single bytes of the file (open file description locks,
 * which belong to the fd, not the process).
 *
 *   byte 100 + p   somebody uses permission p
 *   byte 200 + p   somebody does not want others to use permission p
 *
 *   p: 0 consistent read, 1 write, 2 write unchanged, 3 resize
 *
 * Whoever comes locks its bytes first and then looks whether somebody holds the opposite ones, so
 * of two that come at the same time at least one sees the other.
 */
#include <errno.h>
#include <fcntl.h>

#include "base/error.h"
#include "base/range.h"
#include "block/file.h"

#define LOCK_USED     100
#define LOCK_UNSHARED 200

enum permission { CONSISTENT_READ, WRITE, WRITE_UNCHANGED, RESIZE, PERMISSION_COUNT };

static const char *const names[PERMISSION_COUNT] = {
    "consistent read",
    "write",
    "write unchanged",
    "resize",
};

/* 0 or a positive errno. */
static int lock_byte(int fd, off_t byte)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

    return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? errno : 0;
}

static bool others_hold(int fd, off_t byte)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

    return fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type != F_UNLCK;
}

static bool means_no_locks(int err)
{
    return err == EINVAL || err == ENOLCK || err == EOPNOTSUPP || err == ENOSYS;
}

bool file_lock(int fd, const char *filename, bool write, bool required, struct error **errp)
{
    uint32_t used = BIT(CONSISTENT_READ) | (write ? BIT(WRITE) : 0);
    uint32_t unshared = BIT(WRITE); /* as QEMU for a disk; who resizes needs to write as well */

    for (int p = 0; p < PERMISSION_COUNT; p++) {
        int err = used & BIT(p) ? lock_byte(fd, LOCK_USED + p) : 0;
        if (!err && unshared & BIT(p)) {
            err = lock_byte(fd, LOCK_UNSHARED + p);
        }
        if (err && means_no_locks(err) && !required) {
            return true;
        }
        if (err) {
            error_set_errno(errp, err, "Failed to lock '%s'", filename);
            error_add_hint(errp, "use locking=off to go without");
            return false;
        }
    }
    for (int p = 0; p < PERMISSION_COUNT; p++) {
        bool refused = used & BIT(p) && others_hold(fd, LOCK_UNSHARED + p);
        if (refused || (unshared & BIT(p) && others_hold(fd, LOCK_USED + p))) {
            error_set(errp, "Failed to get %s\"%s\" lock: another process is using '%s'",
                      refused ? "" : "shared ", names[p], filename);
            return false;
        }
    }
    return true;
}
