/* SPDX-License-Identifier: MIT */
/* aio_read, aio_write, aio_flush: requests that go on while other commands run. See io_tool.h. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "tools/io/io_tool.h"

struct aio {
    struct io_session *session;
    bool is_read, zeroes, quiet, terse, dump;
    int pattern; /* to verify, or -1 */
    uint64_t offset, size;
    struct io_vector vector; /* unless zeroes */
    int64_t begin;
};

static void done(void *opaque, int ret)
{
    struct aio *aio = opaque;

    if (ret < 0) {
        printf("%s failed: %s\n", aio->is_read ? "readv" : "aio_write", strerror(-ret));
    } else {
        if (aio->pattern >= 0) {
            io_verify(aio->vector.buffer, 0, aio->size, aio->offset, aio->pattern);
        }
        if (!aio->quiet && aio->dump) {
            io_dump(aio->vector.buffer, aio->offset, aio->size);
        }
        io_report(&(struct io_stats){.verb = aio->is_read ? "read" : "wrote",
                                     .offset = aio->offset,
                                     .size = aio->size,
                                     .nanoseconds = clock_get_ns(AIO_CLOCK_RT) - aio->begin,
                                     .quiet = aio->quiet,
                                     .terse = aio->terse});
    }
    if (!aio->zeroes) {
        io_vector_free(aio->session, &aio->vector);
    }
    aio->session->aio_in_flight--;
    free(aio);
}

static struct aio *start(struct aio *from)
{
    struct aio *aio = xmemdup(from, sizeof(*from));

    aio->begin = clock_get_ns(AIO_CLOCK_RT);
    aio->session->aio_in_flight++;
    return aio;
}

static struct block_iov iov_of(const struct aio *aio)
{
    return (struct block_iov){
        .iov = aio->vector.iov, .niov = aio->vector.niov, .size = aio->vector.size};
}

bool io_aio_read(struct io_session *s, int argc, char **argv)
{
    struct aio aio = {.session = s, .is_read = true, .pattern = -1};
    int c;

    while ((c = io_getopt(argc, argv, "CiP:qv")) != -1) {
        switch (c) {
        case 'C':
            aio.terse = true;
            break;
        case 'i':
            printf("injecting invalid read request\n");
            return true;
        case 'P':
            if (!io_parse_pattern(optarg, &aio.pattern)) {
                return false;
            }
            break;
        case 'q':
            aio.quiet = true;
            break;
        case 'v':
            aio.dump = true;
            break;
        default:
            return false;
        }
    }
    if (optind > argc - 2) {
        return io_usage(argv[0]);
    }
    if (!io_parse_number(argv[optind], &aio.offset) ||
        !io_vector_new(s, &aio.vector, argv + optind + 1, argc - optind - 1, IO_FILL_READ)) {
        return false;
    }
    aio.size = aio.vector.size;
    struct aio *started = start(&aio);
    struct block_iov iov = iov_of(started);
    backend_aio_preadv(s->be, aio.offset, &iov, 0, 0, done, started);
    return true;
}

struct aio_write_args {
    bool unmap;
    int pattern;
    unsigned flags;
};

/* *injected: -i, nothing is to be done. */
static bool parse_write(int argc, char **argv, struct aio *aio, struct aio_write_args *args,
                        bool *injected)
{
    int c;

    while ((c = io_getopt(argc, argv, "CfiP:quz")) != -1) {
        switch (c) {
        case 'C':
            aio->terse = true;
            break;
        case 'f':
            args->flags |= BLOCK_REQ_FUA;
            break;
        case 'i':
            printf("injecting invalid write request\n");
            *injected = true;
            return true;
        case 'P':
            if (!io_parse_pattern(optarg, &args->pattern)) {
                return false;
            }
            break;
        case 'q':
            aio->quiet = true;
            break;
        case 'u':
            args->unmap = true;
            break;
        case 'z':
            aio->zeroes = true;
            break;
        default:
            return false;
        }
    }
    return optind <= argc - 2 || io_usage(argv[0]);
}

static bool check_write(const struct aio *aio, const struct aio_write_args *args, int lengths)
{
    const char *fault = NULL;

    if (aio->zeroes && lengths != 1) {
        fault = "-z supports only a single length parameter";
    } else if (args->unmap && !aio->zeroes) {
        fault = "-u requires -z to be specified";
    }
    if (fault) {
        printf("%s\n", fault);
    }
    return !fault;
}

bool io_aio_write(struct io_session *s, int argc, char **argv)
{
    struct aio aio = {.session = s, .pattern = -1};
    struct aio_write_args args = {.pattern = IO_FILL};
    bool injected = false;

    if (!parse_write(argc, argv, &aio, &args, &injected) || injected) {
        return injected;
    }
    if (!check_write(&aio, &args, argc - optind - 1) ||
        !io_parse_number(argv[optind], &aio.offset)) {
        return false;
    }
    if (aio.zeroes) {
        if (!io_parse_number(argv[optind + 1], &aio.size)) {
            return false;
        }
        unsigned flags = args.flags | (args.unmap ? BLOCK_REQ_MAY_UNMAP : 0);
        backend_aio_write_zeroes(s->be, aio.offset, aio.size, flags, done, start(&aio));
        return true;
    }
    if (!io_vector_new(s, &aio.vector, argv + optind + 1, argc - optind - 1, args.pattern)) {
        return false;
    }
    aio.size = aio.vector.size;
    struct aio *started = start(&aio);
    struct block_iov iov = iov_of(started);
    backend_aio_pwritev(s->be, aio.offset, &iov, args.flags, 0, done, started);
    return true;
}

bool io_aio_flush(struct io_session *s, int argc, char **argv)
{
    while (s->aio_in_flight) {
        aio_loop_poll(aio_loop_current(), true);
    }
    return true;
}
