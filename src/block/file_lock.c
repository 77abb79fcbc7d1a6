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
#include <time.h>

#include "base/error.h"
#include "base/range.h"
#include "block/advice.h"
#include "block/file.h"

#define LOCK_USED     100
#define LOCK_UNSHARED 200

/* A process that had an io_uring and was killed is gone for its parent some 10 ms before the kernel
 * closes its files: whoever is started in its place must not fail for that. */
#define PATIENCE_MS 200
#define STEP_MS     5

enum permission { CONSISTENT_READ, WRITE, WRITE_UNCHANGED, RESIZE, PERMISSION_COUNT };

static const char *const names[PERMISSION_COUNT] = {
    "consistent read",
    "write",
    "write unchanged",
    "resize",
};

/* F_RDLCK or F_UNLCK. 0 or a positive errno. */
static int lock_byte(int fd, short type, off_t byte)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

    return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? errno : 0;
}

static bool others_hold(int fd, off_t byte)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

    return fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type != F_UNLCK;
}

static bool others_keep(int fd, off_t byte)
{
    for (unsigned ms = 0; others_hold(fd, byte); ms += STEP_MS) {
        if (ms >= PATIENCE_MS) {
            return true;
        }
        nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000L}, NULL);
    }
    return false;
}

static bool means_no_locks(int err)
{
    return err == EINVAL || err == ENOLCK || err == EOPNOTSUPP || err == ENOSYS;
}

bool file_lock(int fd, const char *filename, bool write, bool required, bool *has_locks,
               struct error **errp)
{
    uint32_t used = BIT(CONSISTENT_READ) | (write ? BIT(WRITE) : 0);

    *has_locks = true;
    for (int p = 0; p < PERMISSION_COUNT; p++) {
        int err = used & BIT(p) ? lock_byte(fd, F_RDLCK, LOCK_USED + p) : 0;
        if (err && means_no_locks(err) && !required) {
            *has_locks = false;
            return true;
        }
        if (err) {
            error_set_errno(errp, err, "Failed to lock '%s'", filename);
            error_add_hint(errp, "use locking=off to go without");
            return false;
        }
    }
    for (int p = 0; p < PERMISSION_COUNT; p++) {
        if (used & BIT(p) && others_keep(fd, LOCK_UNSHARED + p)) {
            error_set(errp, "Failed to get \"%s\" lock: another process is using '%s'", names[p],
                      filename);
            block_advice()->in_use(filename, false, errp);
            return false;
        }
    }
    return true;
}

static void set_locks(int fd, short type, bool write, bool exclusive)
{
    lock_byte(fd, type, LOCK_USED + CONSISTENT_READ);
    if (write) {
        lock_byte(fd, type, LOCK_USED + WRITE);
    }
    if (exclusive) {
        lock_byte(fd, type, LOCK_UNSHARED + WRITE);
    }
}

/* Locks are shared ones, so the new fd has its own before the old one gives up: at no time is the
 * file without. Whether others mind is looked at when only they are left. */
bool file_lock_move(int old_fd, bool old_write, int fd, bool write, bool exclusive,
                    const char *filename, struct error **errp)
{
    set_locks(fd, F_RDLCK, write, exclusive);
    set_locks(old_fd, F_UNLCK, old_write, exclusive);
    if (write && others_keep(fd, LOCK_UNSHARED + WRITE)) {
        error_set(errp, "Failed to get \"%s\" lock: another process is using '%s'", names[WRITE],
                  filename);
        block_advice()->in_use(filename, false, errp);
        set_locks(old_fd, F_RDLCK, old_write, exclusive);
        return false;
    }
    return true;
}

/* As QEMU for a disk, all is shared but writing; who resizes needs to write as well. */
bool file_lock_exclusive(int fd, const char *filename, struct error **errp)
{
    int err = lock_byte(fd, F_RDLCK, LOCK_UNSHARED + WRITE);

    if (err) {
        error_set_errno(errp, err, "Failed to lock '%s'", filename);
        return false;
    }
    if (others_keep(fd, LOCK_USED + WRITE)) {
        file_unlock_exclusive(fd);
        error_set(errp, "Failed to get shared \"%s\" lock: another process is using '%s'",
                  names[WRITE], filename);
        block_advice()->in_use(filename, true, errp);
        return false;
    }
    return true;
}

void file_unlock_exclusive(int fd)
{
    lock_byte(fd, F_UNLCK, LOCK_UNSHARED + WRITE);
}
