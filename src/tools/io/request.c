/* SPDX-License-Identifier: MIT */
/* read, readv, write, writev, flush, discard. See io_tool.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/range.h"
#include "tools/io/io_tool.h"

#define SECTOR 512

enum kind { READ, WRITE, ZEROES, DISCARD, FLUSH };

struct request {
    struct block_backend *be;
    enum kind kind;
    uint64_t offset, size;
    struct block_iov iov;
    unsigned flags;
    int64_t nanoseconds; /* what it took */
};

static int co_request(void *opaque)
{
    struct request *r = opaque;
    int64_t begin = clock_get_ns(AIO_CLOCK_RT);
    int ret = 0;

    switch (r->kind) {
    case READ:
        ret = backend_co_preadv(r->be, r->offset, &r->iov, r->flags, 0);
        break;
    case WRITE:
        ret = backend_co_pwritev(r->be, r->offset, &r->iov, r->flags, 0);
        break;
    case ZEROES:
        ret = backend_co_write_zeroes(r->be, r->offset, r->size, r->flags);
        break;
    case DISCARD:
        ret = backend_co_discard(r->be, r->offset, r->size);
        break;
    case FLUSH:
        ret = backend_co_flush(r->be, 0);
        break;
    }
    r->nanoseconds = clock_get_ns(AIO_CLOCK_RT) - begin;
    return ret;
}

/* Of what `command` is called in messages. */
static bool perform(struct request *r, const char *command)
{
    int ret = block_run(co_request, r);

    if (ret < 0) {
        printf("%s failed: %s\n", command, strerror(-ret));
    }
    return ret >= 0;
}

static void report(const struct request *r, const char *verb, bool quiet, bool terse)
{
    io_report(&(struct io_stats){.verb = verb,
                                 .offset = r->offset,
                                 .size = r->size,
                                 .nanoseconds = r->nanoseconds,
                                 .quiet = quiet,
                                 .terse = terse});
}

int io_flush_image(struct io_session *s)
{
    struct request r = {.be = s->be, .kind = FLUSH};

    return block_run(co_request, &r);
}

/* The VM state lies behind the disk in some formats; no format here can be asked for it. */
static bool refuse_vm_state(const char *command)
{
    printf("%s failed: %s\n", command, strerror(EOPNOTSUPP));
    return false;
}

/* ---- read ------------------------------------------------------------------------------------ */

struct read_args {
    bool terse, quiet, dump, vm_state;
    int pattern; /* -1: none */
    const char *start, *count;
    uint64_t verify_start, verify_count;
};

static bool parse_verification(struct read_args *args, uint64_t size)
{
    if (args->start && !io_parse_number(args->start, &args->verify_start)) {
        return false;
    }
    args->verify_count = size - MIN(args->verify_start, size);
    if (args->count && !io_parse_number(args->count, &args->verify_count)) {
        return false;
    }
    if (args->verify_start >= MAX(size, 1) ||
        !range_fits(args->verify_start, args->verify_count, size)) {
        printf("pattern verification range exceeds end of read data\n");
        return false;
    }
    return true;
}

static bool parse_read(int argc, char **argv, struct read_args *args)
{
    int c;

    *args = (struct read_args){.pattern = -1};
    while ((c = io_getopt(argc, argv, "bCl:pP:qs:v")) != -1) {
        switch (c) {
        case 'b':
            args->vm_state = true;
            break;
        case 'C':
            args->terse = true;
            break;
        case 'l':
            args->count = optarg;
            break;
        case 'p':
            break;
        case 'P':
            if (!io_parse_pattern(optarg, &args->pattern)) {
                return false;
            }
            break;
        case 'q':
            args->quiet = true;
            break;
        case 's':
            args->start = optarg;
            break;
        case 'v':
            args->dump = true;
            break;
        default:
            return false;
        }
    }
    if (optind != argc - 2 || (args->pattern < 0 && (args->start || args->count))) {
        return io_usage(argv[0]);
    }
    return true;
}

bool io_read(struct io_session *s, int argc, char **argv)
{
    struct request r = {.be = s->be, .kind = READ};
    struct read_args args;
    struct iovec vec;

    if (!parse_read(argc, argv, &args) || !io_parse_number(argv[optind], &r.offset) ||
        !io_parse_length(argv[optind + 1], &r.size) ||
        (args.pattern >= 0 && !parse_verification(&args, r.size))) {
        return false;
    }
    if (args.vm_state) {
        return refuse_vm_state("read");
    }
    uint8_t *buffer = io_buffer_new(s, r.size, IO_FILL_READ);
    if (!buffer) {
        return false;
    }
    vec = (struct iovec){.iov_base = buffer, .iov_len = r.size};
    r.iov = (struct block_iov){.iov = &vec, .niov = 1, .size = r.size};
    bool ok = perform(&r, "read");
    if (ok) {
        ok = args.pattern < 0 ||
             io_verify(buffer, args.verify_start, args.verify_count, r.offset, args.pattern);
        if (!args.quiet && args.dump) {
            io_dump(buffer, r.offset, r.size);
        }
        report(&r, "read", args.quiet, args.terse);
    }
    io_buffer_free(s, buffer);
    return ok;
}

bool io_readv(struct io_session *s, int argc, char **argv)
{
    struct request r = {.be = s->be, .kind = READ};
    bool terse = false, quiet = false, dump = false;
    struct io_vector vector;
    int c, pattern = -1;

    while ((c = io_getopt(argc, argv, "CP:qv")) != -1) {
        switch (c) {
        case 'C':
            terse = true;
            break;
        case 'P':
            if (!io_parse_pattern(optarg, &pattern)) {
                return false;
            }
            break;
        case 'q':
            quiet = true;
            break;
        case 'v':
            dump = true;
            break;
        default:
            return false;
        }
    }
    if (optind > argc - 2) {
        return io_usage(argv[0]);
    }
    if (!io_parse_number(argv[optind], &r.offset) ||
        !io_vector_new(s, &vector, argv + optind + 1, argc - optind - 1, IO_FILL_READ)) {
        return false;
    }
    r.size = vector.size;
    r.iov = (struct block_iov){.iov = vector.iov, .niov = vector.niov, .size = vector.size};
    bool ok = perform(&r, "readv");
    if (ok) {
        ok = pattern < 0 || io_verify(vector.buffer, 0, r.size, r.offset, pattern);
        if (!quiet && dump) {
            io_dump(vector.buffer, r.offset, r.size);
        }
        report(&r, "read", quiet, terse);
    }
    io_vector_free(s, &vector);
    return ok;
}

/* ---- write ----------------------------------------------------------------------------------- */

struct write_args {
    bool terse, quiet, vm_state, compressed, zeroes, no_fallback, unmap, has_pattern;
    const char *file;
    int pattern;
    unsigned flags;
};

static bool parse_write_options(int argc, char **argv, struct write_args *args)
{
    int c;

    *args = (struct write_args){.pattern = IO_FILL};
    while ((c = io_getopt(argc, argv, "bcCfnpP:qs:uz")) != -1) {
        switch (c) {
        case 'b':
            args->vm_state = true;
            break;
        case 'c':
            args->compressed = true;
            break;
        case 'C':
            args->terse = true;
            break;
        case 'f':
            args->flags |= BLOCK_REQ_FUA;
            break;
        case 'n':
            args->no_fallback = true;
            break;
        case 'p':
            break;
        case 'P':
            args->has_pattern = true;
            if (!io_parse_pattern(optarg, &args->pattern)) {
                return false;
            }
            break;
        case 'q':
            args->quiet = true;
            break;
        case 's':
            args->file = optarg;
            break;
        case 'u':
            args->unmap = true;
            break;
        case 'z':
            args->zeroes = true;
            break;
        default:
            return false;
        }
    }
    return optind == argc - 2 || io_usage(argv[0]);
}

/* What goes together. */
static bool check_write(const struct write_args *args)
{
    const char *fault = NULL;

    if (args->vm_state && args->zeroes) {
        fault = "-b and -z cannot be specified at the same time";
    } else if (args->flags & BLOCK_REQ_FUA && (args->vm_state || args->compressed)) {
        fault = "-f and -b or -c cannot be specified at the same time";
    } else if (args->no_fallback && !args->zeroes) {
        fault = "-n requires -z to be specified";
    } else if (args->unmap && !args->zeroes) {
        fault = "-u requires -z to be specified";
    } else if (args->zeroes + args->has_pattern + !!args->file > 1) {
        fault = "Only one of -z, -P, and -s can be specified at the same time";
    }
    if (fault) {
        printf("%s\n", fault);
    }
    return !fault;
}

static bool parse_write_range(const struct write_args *args, char **operands, struct request *r)
{
    if (!io_parse_number(operands[0], &r->offset) || !io_parse_number(operands[1], &r->size)) {
        return false;
    }
    if (r->size > IO_MAX_BYTES && !(args->no_fallback && args->zeroes)) {
        printf("length cannot exceed %" PRIu64 " without -n, given %s\n", IO_MAX_BYTES,
               operands[1]);
        return false;
    }
    if (args->vm_state || args->compressed) {
        const char *what = r->offset % SECTOR ? "offset" : r->size % SECTOR ? "count" : NULL;
        if (what) {
            printf("%" PRIu64 " is not a sector-aligned value for '%s'\n",
                   r->offset % SECTOR ? r->offset : r->size, what);
            return false;
        }
    }
    return true;
}

bool io_write(struct io_session *s, int argc, char **argv)
{
    struct request r = {.be = s->be};
    struct write_args args;
    struct iovec vec;
    uint8_t *buffer = NULL;

    if (!parse_write_options(argc, argv, &args) || !check_write(&args) ||
        !parse_write_range(&args, argv + optind, &r)) {
        return false;
    }
    if (args.vm_state) {
        return refuse_vm_state("write");
    }
    r.flags = args.flags;
    if (args.zeroes) {
        r.kind = ZEROES;
        r.flags |= (args.unmap ? BLOCK_REQ_MAY_UNMAP : 0) |
                   (args.no_fallback ? BLOCK_REQ_NO_FALLBACK | BLOCK_REQ_ZERO_PARTS : 0);
    } else {
        r.kind = WRITE;
        r.flags |= args.compressed ? BLOCK_REQ_COMPRESSED : 0;
        buffer = args.file ? io_buffer_from_file(s, r.size, args.file)
                           : io_buffer_new(s, r.size, args.pattern);
        if (!buffer) {
            return false;
        }
        vec = (struct iovec){.iov_base = buffer, .iov_len = r.size};
        r.iov = (struct block_iov){.iov = &vec, .niov = 1, .size = r.size};
    }
    bool ok = perform(&r, "write");
    if (ok) {
        report(&r, "wrote", args.quiet, args.terse);
    }
    io_buffer_free(s, buffer);
    return ok;
}

bool io_writev(struct io_session *s, int argc, char **argv)
{
    struct request r = {.be = s->be, .kind = WRITE};
    bool terse = false, quiet = false;
    struct io_vector vector;
    int c, pattern = IO_FILL;

    while ((c = io_getopt(argc, argv, "CfP:q")) != -1) {
        switch (c) {
        case 'C':
            terse = true;
            break;
        case 'f':
            r.flags |= BLOCK_REQ_FUA;
            break;
        case 'P':
            if (!io_parse_pattern(optarg, &pattern)) {
                return false;
            }
            break;
        case 'q':
            quiet = true;
            break;
        default:
            return false;
        }
    }
    if (optind > argc - 2) {
        return io_usage(argv[0]);
    }
    if (!io_parse_number(argv[optind], &r.offset) ||
        !io_vector_new(s, &vector, argv + optind + 1, argc - optind - 1, pattern)) {
        return false;
    }
    r.size = vector.size;
    r.iov = (struct block_iov){.iov = vector.iov, .niov = vector.niov, .size = vector.size};
    bool ok = perform(&r, "writev");
    if (ok) {
        report(&r, "wrote", quiet, terse);
    }
    io_vector_free(s, &vector);
    return ok;
}

/* ---- flush, discard -------------------------------------------------------------------------- */

bool io_flush(struct io_session *s, int argc, char **argv)
{
    struct request r = {.be = s->be, .kind = FLUSH};

    return perform(&r, "flush");
}

bool io_discard(struct io_session *s, int argc, char **argv)
{
    struct request r = {.be = s->be, .kind = DISCARD};
    bool terse = false, quiet = false;
    int c;

    while ((c = io_getopt(argc, argv, "Cq")) != -1) {
        if (c == 'C') {
            terse = true;
        } else if (c == 'q') {
            quiet = true;
        } else {
            return false;
        }
    }
    if (optind != argc - 2) {
        return io_usage(argv[0]);
    }
    if (!io_parse_number(argv[optind], &r.offset) || !io_parse_length(argv[optind + 1], &r.size) ||
        !perform(&r, "discard")) {
        return false;
    }
    report(&r, "discard", quiet, terse);
    return true;
}
