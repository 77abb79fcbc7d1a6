/* SPDX-License-Identifier: MIT */
/* Writing the write log of a blkdebug node. See blkdebug_log.h. */
#include "block/blkdebug_log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"
#include "block/blkdebug_log_int.h"

struct blkdebug_log_file {
    int fd; /* constant */
    /* under lock: records are whole, and in the order of their numbers */
    pthread_mutex_t lock;
    uint64_t next;
    int error; /* negative errno of the first failure: after it nothing is written */
};

/* A log with a hole would lie, so what was cut short goes on or ends it. */
static int append_locked(struct blkdebug_log_file *file, struct iovec *vec, int count)
{
    while (count && !file->error) {
        ssize_t n = writev(file->fd, vec, count);
        if (n < 0 && errno != EINTR) {
            file->error = -errno;
        }
        for (; n > 0 && count; vec++, count--) {
            if ((size_t)n < vec->iov_len) {
                vec->iov_base = (char *)vec->iov_base + n;
                vec->iov_len -= n;
                break;
            }
            n -= (ssize_t)vec->iov_len;
        }
        while (count && !vec->iov_len) {
            vec++;
            count--;
        }
    }
    return file->error;
}

struct blkdebug_log_file *blkdebug_log_create(const char *filename, uint64_t length,
                                              struct error **errp)
{
    uint8_t header[LOG_HEADER_SIZE] = {0};

    int fd = open(filename, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0) {
        error_set_errno(errp, errno, "Could not create write-log='%s'", filename);
        return NULL;
    }
    struct blkdebug_log_file *file = xnew(struct blkdebug_log_file);
    file->fd = fd;
    pthread_mutex_init(&file->lock, NULL);

    memcpy(header, LOG_MAGIC, 8);
    store_le32(header + 8, LOG_VERSION);
    store_le32(header + 12, LOG_HEADER_SIZE);
    store_le64(header + 16, length);
    struct iovec vec = {.iov_base = header, .iov_len = sizeof(header)};
    if (append_locked(file, &vec, 1) < 0) {
        error_set_errno(errp, -file->error, "Could not write write-log='%s'", filename);
        blkdebug_log_close(file);
        return NULL;
    }
    return file;
}

void blkdebug_log_close(struct blkdebug_log_file *file)
{
    close(file->fd);
    pthread_mutex_destroy(&file->lock);
    free(file);
}

int blkdebug_log_begin(struct blkdebug_log_file *file, enum blkdebug_log_type type, uint64_t offset,
                       uint64_t length, unsigned flags, const void *data, uint64_t *number)
{
    static const uint8_t padding[LOG_ALIGNMENT];
    uint8_t record[LOG_RECORD_SIZE] = {0};
    struct iovec vec[3] = {{record, sizeof(record)}};
    int count = 1;

    store_le32(record, type);
    store_le32(record + 4, flags);
    store_le64(record + 16, offset);
    store_le64(record + 24, length);
    if (data) {
        size_t rest = align_up(length, LOG_ALIGNMENT) - length;
        vec[count++] = (struct iovec){(void *)(uintptr_t)data, length};
        if (rest) {
            vec[count++] = (struct iovec){(void *)(uintptr_t)padding, rest};
        }
    }
    pthread_mutex_lock(&file->lock);
    *number = file->next++;
    store_le64(record + 8, *number);
    int ret = append_locked(file, vec, count);
    pthread_mutex_unlock(&file->lock);
    return ret;
}

int blkdebug_log_done(struct blkdebug_log_file *file, uint64_t number, int result)
{
    uint8_t record[LOG_RECORD_SIZE] = {0};
    struct iovec vec = {.iov_base = record, .iov_len = sizeof(record)};

    store_le32(record, BLKDEBUG_LOG_DONE);
    store_le64(record + 8, number);
    store_le32(record + 32, (uint32_t)result);
    pthread_mutex_lock(&file->lock);
    int ret = append_locked(file, &vec, 1);
    pthread_mutex_unlock(&file->lock);
    return ret;
}
