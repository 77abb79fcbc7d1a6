/* SPDX-License-Identifier: MIT */
/*
 * ferry-io: single requests to an image, with qemu-io's arguments, commands and output.
 *
 *   main.c      the command line; -c commands, or the shell
 *   shell.c     commands from stdin; edit.c on a terminal, by libedit (edit_none.c without it)
 *   command.c   commands by name; their arguments
 *   image.c     open, close, reopen
 *   request.c   read, readv, write, writev, flush, discard
 *   aio.c       aio_read, aio_write, aio_flush
 *   inspect.c   length, info, map, alloc, truncate
 *   process.c   break and what belongs to it, sleep, sigraise, abort
 *   report.c    numbers, and what is printed about requests
 *
 * All of it runs in the main thread. What a command answers goes to stdout; what is wrong with its
 * name, the number of its arguments or the image to stderr.
 */
#ifndef FERRY_TOOLS_IO_IO_TOOL_H
#define FERRY_TOOLS_IO_IO_TOOL_H

#include "block/backend.h"
#include "tools/common/args.h"

#define IO_PROMPT "ferry-io> "
/* The longest request: what fits into an int, whole sectors. */
#define IO_MAX_BYTES UINT64_C(2147483136)
#define IO_FILL      0xcd /* what is written unless told otherwise */
#define IO_FILL_READ 0xab /* what a buffer holds before it is read into */

/* How the next open opens: the program's options, or those of the open command. */
struct io_open {
    const char *filename; /* or NULL: options say it all */
    const char *format, *cache, *aio, *discard;
    const char *options; /* "key=value,…" */
    bool read_only, force_share, image_opts, copy_on_read;
};

struct io_session {
    struct block_backend *be; /* the open image, or NULL */
    bool writable;
    bool misalign; /* buffers at odd addresses (-m) */
    bool is_over;  /* quit */
    unsigned aio_in_flight;
};

/* ---- commands -------------------------------------------------------------------------------- */

#define IO_NO_FILE 1u /* works without an image */
#define IO_WRITES  2u /* only for images that can be written */

/* True: done. False: it failed, and that was said; the process ends with 1 some time. */
typedef bool io_command_fn(struct io_session *s, int argc, char **argv);

struct io_command {
    const char *name, *short_name; /* short_name may be NULL */
    io_command_fn *run;
    int min, max; /* arguments, options included; max -1: no limit */
    unsigned flags;
    const char *args, *summary, *help; /* help: further lines, or NULL */
};

/* Runs "name argument argument …". */
bool io_command_run(struct io_session *s, const char *line);
/* Prints how the command is used, and is false. */
bool io_usage(const char *name);

/* getopt(3) for a command; -1: no more; '?' after io_usage(). optind: the first operand. */
int io_getopt(int argc, char **argv, const char *letters);
/* "512", "4k", "1.5M", "0x200"; false after a message. */
bool io_parse_number(const char *text, uint64_t *value);
/* As io_parse_number(), for a length of at most IO_MAX_BYTES. */
bool io_parse_length(const char *text, uint64_t *value);
bool io_parse_pattern(const char *text, int *pattern); /* 0 … 255 */

io_command_fn io_open, io_close, io_reopen, io_read, io_readv, io_write, io_writev, io_flush,
    io_discard, io_aio_read, io_aio_write, io_aio_flush, io_length, io_info, io_map, io_alloc,
    io_truncate, io_break, io_resume, io_remove_break, io_wait_break, io_sleep, io_sigraise,
    io_abort;

/* ---- image.c --------------------------------------------------------------------------------- */

bool io_open_image(struct io_session *s, const struct io_open *how, struct error **errp);
/* Waits for what is in flight; false: what was written last may be lost, which was said. */
bool io_close_image(struct io_session *s);
/* 0, or negative errno. */
int io_flush_image(struct io_session *s);

/* ---- buffers, and what is printed ------------------------------------------------------------ */

/* Freed by io_buffer_free(); NULL after a message. At an odd address if the session says so. */
uint8_t *io_buffer_new(struct io_session *s, uint64_t size, int pattern);
void io_buffer_free(struct io_session *s, uint8_t *buffer);
/* Filled from a file's beginning, over and over. */
uint8_t *io_buffer_from_file(struct io_session *s, uint64_t size, const char *path);
/* size operands of a vector request: a list of buffers. NULL after a message; freed with
 * io_vector_free(). */
struct io_vector {
    struct iovec *iov;
    int niov;
    uint64_t size;
    uint8_t *buffer;
};
bool io_vector_new(struct io_session *s, struct io_vector *vector, char **sizes, int count,
                   int pattern);
void io_vector_free(struct io_session *s, struct io_vector *vector);

struct io_stats {
    const char *verb; /* "read", "wrote", "discard" */
    uint64_t offset, size;
    int64_t nanoseconds;
    bool quiet, terse;
};
void io_report(const struct io_stats *stats);
void io_dump(const uint8_t *buffer, uint64_t offset, uint64_t size);
bool io_verify(const uint8_t *buffer, uint64_t from, uint64_t count, uint64_t offset, int pattern);
/* "512 bytes", "1.500 KiB" into text, which has room for IO_SIZE_TEXT. */
#define IO_SIZE_TEXT 64
const char *io_size_text(double value, char *text);

/* ---- shell.c, edit.c ------------------------------------------------------------------------- */

/* Commands from stdin until it ends or one quits; false if one failed. */
bool io_shell(struct io_session *s);
/* On a terminal, with history and editing; false: there is no such shell in this build. */
bool io_edit_available(void);
/* line: NULL is the end; false: no line more. */
void io_edit_start(bool (*line)(void *opaque, const char *text), void *opaque);
void io_edit_read(void); /* stdin can be read */
void io_edit_stop(void);

#endif
