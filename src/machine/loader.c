/* SPDX-License-Identifier: MIT */
#include "machine/loader.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/range.h"
#include "mem/address_space.h"

struct blob {
    struct blob *next; /* by rising address */
    char *name;
    uint64_t address, memory_size;
    const uint8_t *data;
    size_t size;
    uint8_t *owned;        /* to be freed, or NULL */
    struct file_data file; /* to be closed, if it has a path */
};

static struct blob *blobs;

bool file_data_open(struct file_data *file, const char *path, const char *what, uint64_t max,
                    struct error **errp)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    *file = (struct file_data){0};
    if (fd < 0) {
        error_set_errno(errp, errno, "could not open %s '%s'", what, path);
        return false;
    }
    if (fstat(fd, &st) < 0) {
        error_set_errno(errp, errno, "could not read %s '%s'", what, path);
    } else if (S_ISDIR(st.st_mode)) {
        error_set(errp, "%s '%s' is a directory; give a file", what, path);
    } else if (!S_ISREG(st.st_mode)) {
        error_set(errp, "%s '%s' is not a regular file", what, path);
    } else if (st.st_size == 0) {
        error_set(errp, "%s '%s' is empty", what, path);
    } else if ((uint64_t)st.st_size > max) {
        error_set(errp, "%s '%s' has %" PRIu64 " bytes; at most %" PRIu64 " are possible here",
                  what, path, (uint64_t)st.st_size, max);
    } else {
        /* A private mapping of a file that somebody truncates raises SIGBUS: read it whole. */
        uint8_t *data =
            mmap(NULL, st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        size_t done = 0;

        if (data == MAP_FAILED) {
            error_set_errno(errp, errno, "no memory to read %s '%s'", what, path);
            close(fd);
            return false;
        }
        while (done < (size_t)st.st_size) {
            ssize_t n = pread(fd, data + done, st.st_size - done, done);
            if (n < 0 && errno == EINTR) {
                continue;
            }
            if (n <= 0) {
                if (n < 0) {
                    error_set_errno(errp, errno, "could not read %s '%s'", what, path);
                } else {
                    error_set(errp, "%s '%s' became shorter while it was read", what, path);
                }
                munmap(data, st.st_size);
                close(fd);
                return false;
            }
            done += n;
        }
        *file = (struct file_data){.data = data, .size = st.st_size, .path = xstrdup(path)};
    }
    close(fd);
    return file->data != NULL;
}

void file_data_close(struct file_data *file)
{
    if (file->data) {
        munmap(file->data, file->size);
    }
    free(file->path);
    *file = (struct file_data){0};
}

static bool blob_insert(const struct blob *new, struct error **errp)
{
    struct blob **at = &blobs;
    struct blob *blob;

    if (new->address + new->memory_size < new->address) {
        error_set(errp, "%s: %" PRIu64 " bytes at 0x%" PRIx64 " pass the end of the address space",
                  new->name, new->memory_size, new->address);
        return false;
    }
    for (blob = blobs; blob; blob = blob->next) {
        if (range_overlaps(blob->address, blob->memory_size, new->address, new->memory_size)) {
            error_set(errp,
                      "%s at 0x%" PRIx64 "-0x%" PRIx64 " overlaps %s at 0x%" PRIx64 "-0x%" PRIx64,
                      new->name, new->address, new->address + new->memory_size - 1, blob->name,
                      blob->address, blob->address + blob->memory_size - 1);
            return false;
        }
    }
    while (*at && (*at)->address < new->address) {
        at = &(*at)->next;
    }
    blob = xmemdup(new, sizeof(*new));
    blob->name = xstrdup(new->name);
    blob->next = *at;
    *at = blob;
    return true;
}

bool loader_add(const char *name, uint64_t address, const void *data, size_t size,
                uint64_t memory_size, struct error **errp)
{
    uint8_t *copy = size ? xmemdup(data, size) : NULL;
    struct blob blob = {
        .name = (char *)name,
        .address = address,
        .memory_size = MAX(memory_size, size),
        .data = copy,
        .size = size,
        .owned = copy,
    };

    if (!blob_insert(&blob, errp)) {
        free(copy);
        return false;
    }
    return true;
}

bool loader_add_file(const char *name, uint64_t address, struct file_data *file, size_t offset,
                     size_t size, struct error **errp)
{
    struct blob blob = {
        .name = (char *)name,
        .address = address,
        .memory_size = size,
        .data = file->data + offset,
        .size = size,
        .file = *file,
    };

    if (!blob_insert(&blob, errp)) {
        return false;
    }
    *file = (struct file_data){0};
    return true;
}

uint64_t loader_find_free(uint64_t start, uint64_t end, uint64_t size, uint64_t alignment)
{
    uint64_t address = align_up(start, alignment);

    for (const struct blob *blob = blobs; blob; blob = blob->next) {
        if (range_overlaps(blob->address, blob->memory_size, address, size)) {
            address = align_up(blob->address + blob->memory_size, alignment);
        }
    }
    return address >= start && address <= end && size <= end - address ? address : UINT64_MAX;
}

/* True if all of the range is RAM or ROM. */
static bool range_is_memory(uint64_t address, uint64_t size)
{
    while (size) {
        struct mem_section section;
        uint64_t n;

        if (!address_space_find(address_space_memory, address, &section) || !section.region->ram) {
            return false;
        }
        n = MIN(size, section.size);
        address += n;
        size -= n;
    }
    return true;
}

static bool blob_write(const struct blob *blob, struct error **errp)
{
    static const uint8_t zeroes[4096];
    uint64_t done = blob->size;

    if (!range_is_memory(blob->address, blob->memory_size)) {
        error_set(errp,
                  "%s at 0x%" PRIx64 "-0x%" PRIx64
                  " does not lie in guest memory; give the guest more RAM (-m)",
                  blob->name, blob->address, blob->address + blob->memory_size - 1);
        return false;
    }
    address_space_write_rom(address_space_memory, blob->address, blob->data, blob->size);
    while (done < blob->memory_size) {
        uint64_t n = MIN(sizeof(zeroes), blob->memory_size - done);
        address_space_write_rom(address_space_memory, blob->address + done, zeroes, n);
        done += n;
    }
    return true;
}

bool loader_write_all(struct error **errp)
{
    for (const struct blob *blob = blobs; blob; blob = blob->next) {
        if (!blob_write(blob, errp)) {
            return false;
        }
    }
    return true;
}

void loader_cleanup(void)
{
    while (blobs) {
        struct blob *blob = blobs;
        blobs = blob->next;
        file_data_close(&blob->file);
        free(blob->owned);
        free(blob->name);
        free(blob);
    }
}
