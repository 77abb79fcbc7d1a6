/* SPDX-License-Identifier: MIT */
/*
 * Image locks, shared with QEMU: what a process does with an image, and what it does not want
 * others to do, is said by shared locks on single bytes of the file (open file description locks,
 * which belong to the fd, not the process).
 *
 *   byte 100 + p   somebody uses permission p
 *   byte 200 + p   somebody does not want others to use permission p
 *
 *   p: 0 consistent read, 1 write, 2 write unchanged, 3 resize (BLOCK_PERM_…)
 *
 * They follow what the users of the node do, not how it was opened: with nobody there are none.
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
#define LOCK_TRIED    199 /* means nothing to anybody */

/* A process that had an io_uring and was killed is gone for its parent some 10 ms before the kernel
 * closes its files: whoever is started in its place must not fail for that. */
#define PATIENCE_MS 200
#define STEP_MS     5

static const char *const names[BLOCK_PERM_COUNT] = {
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

static bool fail_to_lock(int err, const char *filename, struct error **errp)
{
    error_set_errno(errp, err, "Failed to lock '%s'", filename);
    error_add_hint(errp, "use locking=off to go without");
    return false;
}

bool file_check_locks(int fd, const char *filename, bool required, bool *has_locks,
                      struct error **errp)
{
    int err = lock_byte(fd, F_RDLCK, LOCK_TRIED);

    *has_locks = !err || !means_no_locks(err);
    if (!err) {
        lock_byte(fd, F_UNLCK, LOCK_TRIED);
    }
    return *has_locks || !required || fail_to_lock(err, filename, errp);
}

/* The bytes of `bits` from `first` on; a positive errno of the first that fails. */
static int set_bytes(int fd, short type, off_t first, unsigned bits)
{
    int err = 0;

    for (int p = 0; p < BLOCK_PERM_COUNT && !err; p++) {
        err = bits & BIT(p) ? lock_byte(fd, type, first + p) : 0;
    }
    return err;
}

static struct block_perms minus(const struct block_perms *a, const struct block_perms *b)
{
    return (struct block_perms){.used = a->used & ~b->used, .denied = a->denied & ~b->denied};
}

static bool check_others(int fd, const struct block_perms *added, const char *filename,
                         struct error **errp)
{
    for (int p = 0; p < BLOCK_PERM_COUNT; p++) {
        bool is_denied = added->used & BIT(p) && others_keep(fd, LOCK_UNSHARED + p);
        if (is_denied || (added->denied & BIT(p) && others_keep(fd, LOCK_USED + p))) {
            error_set(errp, "Failed to get %s\"%s\" lock: another process is using '%s'",
                      is_denied ? "" : "shared ", names[p], filename);
            block_advice()->in_use(filename, errp);
            return false;
        }
    }
    return true;
}

bool file_lock(int fd, const struct block_perms *old, const struct block_perms *perms,
               const char *filename, struct error **errp)
{
    struct block_perms added = minus(perms, old);
    int err = set_bytes(fd, F_RDLCK, LOCK_USED, added.used);

    err = err ? err : set_bytes(fd, F_RDLCK, LOCK_UNSHARED, added.denied);
    if (!err && check_others(fd, &added, filename, errp)) {
        return true;
    }
    file_unlock(fd, &added, &(struct block_perms){0});
    return err ? fail_to_lock(err, filename, errp) : false;
}

void file_unlock(int fd, const struct block_perms *old, const struct block_perms *perms)
{
    struct block_perms left_out = minus(old, perms);

    set_bytes(fd, F_UNLCK, LOCK_USED, left_out.used);
    set_bytes(fd, F_UNLCK, LOCK_UNSHARED, left_out.denied);
}

/* Locks are shared ones, so the new fd has its own before the old one gives up. */
void file_move_locks(int old_fd, int fd, const struct block_perms *perms)
{
    set_bytes(fd, F_RDLCK, LOCK_USED, perms->used);
    set_bytes(fd, F_RDLCK, LOCK_UNSHARED, perms->denied);
    file_unlock(old_fd, perms, &(struct block_perms){0});
}
