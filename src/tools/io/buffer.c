/* SPDX-License-Identifier: MIT */
/* Buffers of requests. See io_tool.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/range.h"
#include "tools/io/io_tool.h"

#define ALIGNMENT 4096
#define ODD       16 /* bytes behind an aligned address: what no O_DIRECT file takes */

uint8_t *io_buffer_new(struct io_session *s, uint64_t size, int pattern)
{
    uint64_t odd = s->misalign ? ODD : 0;
    uint8_t *memory = aligned_alloc(ALIGNMENT, align_up(MAX(size, 1) + odd, ALIGNMENT));

    if (!memory) {
        printf("Could not allocate a buffer of %" PRIu64 " bytes\n", size);
        return NULL;
    }
    memset(memory + odd, pattern, size);
    return memory + odd;
}

void io_buffer_free(struct io_session *s, uint8_t *buffer)
{
    if (buffer) {
        free(buffer - (s->misalign ? ODD : 0));
    }
}

static bool fill_from(FILE *file, const char *path, uint8_t *buffer, uint64_t size)
{
    size_t n = fread(buffer, 1, size, file);

    if (ferror(file)) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return false;
    }
    if (!n && size) {
        fprintf(stderr, "%s: file is empty\n", path);
        return false;
    }
    for (uint64_t done = n; done < size; done += MIN(n, size - done)) {
        memcpy(buffer + done, buffer, MIN(n, size - done));
    }
    return true;
}

uint8_t *io_buffer_from_file(struct io_session *s, uint64_t size, const char *path)
{
    FILE *file = fopen(path, "re");

    if (!file) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return NULL;
    }
    uint8_t *buffer = io_buffer_new(s, size, 0);
    if (buffer && !fill_from(file, path, buffer, size)) {
        io_buffer_free(s, buffer);
        buffer = NULL;
    }
    fclose(file);
    return buffer;
}

/* ---- lists of buffers ------------------------------------------------------------------------ */

static bool add_sizes(struct io_vector *vector, char **sizes, int count)
{
    for (int i = 0; i < count; i++) {
        uint64_t size;
        if (!io_parse_number(sizes[i], &size)) {
            return false;
        }
        if (size > IO_MAX_BYTES) {
            printf("Argument '%s' exceeds maximum size %" PRIu64 "\n", sizes[i], IO_MAX_BYTES);
            return false;
        }
        if (vector->size > IO_MAX_BYTES - size) {
            printf("The total number of bytes exceed the maximum size %" PRIu64 "\n", IO_MAX_BYTES);
            return false;
        }
        vector->iov[vector->niov++].iov_len = size;
        vector->size += size;
    }
    return true;
}

bool io_vector_new(struct io_session *s, struct io_vector *vector, char **sizes, int count,
                   int pattern)
{
    *vector = (struct io_vector){.iov = xcalloc((size_t)count, sizeof(struct iovec))};
    if (!add_sizes(vector, sizes, count) ||
        !(vector->buffer = io_buffer_new(s, vector->size, pattern))) {
        free(vector->iov);
        return false;
    }
    uint8_t *at = vector->buffer;
    for (int i = 0; i < count; i++) {
        vector->iov[i].iov_base = at;
        at += vector->iov[i].iov_len;
    }
    return true;
}

void io_vector_free(struct io_session *s, struct io_vector *vector)
{
    io_buffer_free(s, vector->buffer);
    free(vector->iov);
}
