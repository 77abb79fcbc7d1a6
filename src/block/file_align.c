/* SPDX-License-Identifier: MIT */
/*
 * What O_DIRECT needs of offsets, lengths and buffers: told by statx() since Linux 6.1, by the
 * logical block size of a block device, and else found out by trying.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/file.h"

#define SECTOR        512
#define MAX_ALIGNMENT 65536

static bool is_sane(uint32_t alignment)
{
    return is_power_of_2(alignment) && alignment <= MAX_ALIGNMENT;
}

/* False if the kernel or the file system does not tell. The system call itself, since libc and
 * the kernel's headers both want to define struct statx. */
static bool ask_statx(struct file_state *s)
{
    struct statx stx;

    if (syscall(SYS_statx, s->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) < 0 ||
        !(stx.stx_mask & STATX_DIOALIGN) || !is_sane(stx.stx_dio_offset_align) ||
        !is_sane(stx.stx_dio_mem_align)) {
        return false;
    }
    s->request_alignment = stx.stx_dio_offset_align;
    s->memory_alignment = stx.stx_dio_mem_align;
    return true;
}

/* The smallest length that can be read from the start into a buffer at a multiple of that. A file
 * system may not look at requests beyond the end, so an empty file tells nothing. */
static uint32_t try_reading(int fd)
{
    char *buffer = xaligned_alloc(MAX_ALIGNMENT, 2 * MAX_ALIGNMENT);
    uint32_t found = 0;

    for (uint32_t n = SECTOR; !found && n <= MAX_ALIGNMENT; n *= 2) {
        ssize_t got = pread(fd, buffer + n, n, 0);
        if (got > 0 || (got < 0 && errno != EINVAL)) {
            found = n;
        }
    }
    free(buffer);
    return found ? found : 4096;
}

bool file_probe_alignment(struct file_state *s, const char *filename, struct error **errp)
{
    s->request_alignment = s->memory_alignment = 1;
    if (!s->is_direct) {
        return true;
    }
    if (ask_statx(s)) {
        /* Sectors are the unit of all devices; less only costs more checks. */
        s->request_alignment = MAX(s->request_alignment, SECTOR);
        return true;
    }
    s->request_alignment = s->is_device ? s->block_size : try_reading(s->fd);
    s->memory_alignment = MAX(s->request_alignment, 4096);
    if (!is_sane(s->request_alignment)) {
        error_set(errp, "'%s' has blocks of %u bytes; use cache.direct=off (cache=writeback)",
                  filename, s->request_alignment);
        return false;
    }
    return true;
}
