/* SPDX-License-Identifier: MIT */
/* Reading the write log of a blkdebug node. See blkdebug_log.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/range.h"
#include "block/blkdebug_log.h"
#include "block/blkdebug_log_int.h"

static void *map_file(const char *filename, size_t *size, struct error **errp)
{
    struct stat st;
    void *map = MAP_FAILED;

    int fd = open(filename, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size >= LOG_HEADER_SIZE) {
        *size = (size_t)st.st_size;
        map = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, fd, 0);
    } else if (fd >= 0) {
        errno = EINVAL;
    }
    if (map == MAP_FAILED) {
        error_set_errno(errp, errno, "Could not read write log '%s'", filename);
    }
    if (fd >= 0) {
        close(fd);
    }
    return map == MAP_FAILED ? NULL : map;
}

/* Whole at `at`? The size of it, with its data; 0: the log ends here. */
static uint64_t record_size(const struct blkdebug_log *log, uint64_t at)
{
    const uint8_t *p = (const uint8_t *)log->map + at;
    uint64_t size = LOG_RECORD_SIZE;

    if (!range_fits(at, size, log->map_size)) {
        return 0;
    }
    if (load_le32(p) == BLKDEBUG_LOG_WRITE) {
        uint64_t length = load_le64(p + 24);
        if (length > log->map_size) {
            return 0;
        }
        size += align_up(length, LOG_ALIGNMENT);
    }
    return range_fits(at, size, log->map_size) ? size : 0;
}

/* All that was done when this flush began, and was not safe yet, is safe now. */
static void flush_done(struct blkdebug_log *log, const struct blkdebug_log_entry *flush)
{
    for (size_t i = 0; i < log->count; i++) {
        struct blkdebug_log_entry *e = &log->entries[i];
        if (e->done < flush->begin && !e->result && e->durable == BLKDEBUG_LOG_NEVER) {
            e->durable = flush->done;
        }
    }
}

static bool add_record(struct blkdebug_log *log, const uint8_t *p, size_t place, size_t *capacity)
{
    uint32_t type = load_le32(p);
    uint64_t number = load_le64(p + 8);

    if (type == BLKDEBUG_LOG_DONE) {
        /* Numbers count the entries. */
        struct blkdebug_log_entry *e = number < log->count ? &log->entries[number] : NULL;
        if (!e || e->done != BLKDEBUG_LOG_NEVER) {
            return false;
        }
        e->done = place;
        e->result = (int32_t)load_le32(p + 32);
        if (e->result == 0 && e->type == BLKDEBUG_LOG_FLUSH) {
            e->durable = place;
            flush_done(log, e);
        } else if (e->result == 0 && e->flags & BLOCK_REQ_FUA) {
            e->durable = place;
        }
        return true;
    }
    if (!type || type > BLKDEBUG_LOG_DONE || number != log->count) {
        return false;
    }
    if (log->count == *capacity) {
        *capacity = *capacity ? *capacity * 2 : 256;
        log->entries = xreallocarray(log->entries, *capacity, sizeof(*log->entries));
    }
    log->entries[log->count++] = (struct blkdebug_log_entry){
        .type = type,
        .flags = load_le32(p + 4),
        .offset = load_le64(p + 16),
        .length = load_le64(p + 24),
        .data = type == BLKDEBUG_LOG_WRITE ? p + LOG_RECORD_SIZE : NULL,
        .begin = place,
        .done = BLKDEBUG_LOG_NEVER,
        .durable = BLKDEBUG_LOG_NEVER,
    };
    return true;
}

struct blkdebug_log *blkdebug_log_load(const char *filename, struct error **errp)
{
    struct blkdebug_log *log = xnew(struct blkdebug_log);
    size_t capacity = 0;

    log->map = map_file(filename, &log->map_size, errp);
    if (!log->map) {
        free(log);
        return NULL;
    }
    const uint8_t *p = log->map;
    uint64_t at = load_le32(p + 12), size;
    if (memcmp(p, LOG_MAGIC, 8) || load_le32(p + 8) != LOG_VERSION || at < LOG_HEADER_SIZE) {
        error_set(errp, "'%s' is no write log of version %d", filename, LOG_VERSION);
        blkdebug_log_free(log);
        return NULL;
    }
    log->length = load_le64(p + 16);
    for (; (size = record_size(log, at)); at += size, log->places++) {
        if (!add_record(log, p + at, log->places, &capacity)) {
            error_set(errp, "'%s': record %zu makes no sense", filename, log->places);
            blkdebug_log_free(log);
            return NULL;
        }
    }
    return log;
}

void blkdebug_log_free(struct blkdebug_log *log)
{
    munmap(log->map, log->map_size);
    free(log->entries);
    free(log);
}

static int zero(int fd, uint64_t offset, uint64_t length)
{
    static const uint8_t zeroes[64 * 1024];

    if (fallocate(fd, FALLOC_FL_ZERO_RANGE, (off_t)offset, (off_t)length) == 0) {
        return 0;
    }
    while (length) {
        ssize_t n = pwrite(fd, zeroes, MIN(length, sizeof(zeroes)), (off_t)offset);
        if (n < 0) {
            return -errno;
        }
        offset += (uint64_t)n;
        length -= (uint64_t)n;
    }
    return 0;
}

int blkdebug_log_apply(const struct blkdebug_log_entry *entry, int fd)
{
    const char *data = entry->data;

    switch (entry->type) {
    case BLKDEBUG_LOG_WRITE:
        for (uint64_t done = 0; done < entry->length;) {
            ssize_t n =
                pwrite(fd, data + done, entry->length - done, (off_t)(entry->offset + done));
            if (n < 0) {
                return -errno;
            }
            done += (uint64_t)n;
        }
        return 0;
    case BLKDEBUG_LOG_ZEROES:
    case BLKDEBUG_LOG_DISCARD:
        return zero(fd, entry->offset, entry->length);
    case BLKDEBUG_LOG_TRUNCATE:
        return ftruncate(fd, (off_t)entry->length) < 0 ? -errno : 0;
    default:
        return 0;
    }
}
