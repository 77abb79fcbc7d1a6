/* SPDX-License-Identifier: MIT */
/* Commands by name. See io_tool.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/range.h"
#include "tools/io/io_tool.h"

static io_command_fn help, quit;

/* In the order of the alphabet. */
static const struct io_command commands[] = {
    {"abort", NULL, io_abort, 0, 0, IO_NO_FILE, "", "ends the process as if it crashed", NULL},
    {"aio_flush", NULL, io_aio_flush, 0, 0, 0, "", "waits for all aio_read and aio_write", NULL},
    {"aio_read", NULL, io_aio_read, 2, -1, 0, "[-Ciqv] [-P pattern] off len [len..]",
     "begins to read into one or more buffers",
     " -C  statistics for programs\n"
     " -i  only says that a request is invalid\n"
     " -P  all bytes should have this value\n"
     " -q  no statistics\n"
     " -v  prints the bytes\n"
     "What comes of it is told when it is done; aio_flush waits for that.\n"},
    {"aio_write", NULL, io_aio_write, 2, -1, IO_WRITES, "[-Cfiquz] [-P pattern] off len [len..]",
     "begins to write from one or more buffers",
     " -C  statistics for programs\n"
     " -f  on stable storage when it is done (FUA)\n"
     " -i  only says that a request is invalid\n"
     " -P  value of the bytes (0xcd)\n"
     " -q  no statistics\n"
     " -u  with -z: may unmap\n"
     " -z  zeroes\n"
     "What comes of it is told when it is done; aio_flush waits for that.\n"},
    {"alloc", "a", io_alloc, 1, 2, 0, "offset [count]", "how many bytes are allocated there", NULL},
    {"break", NULL, io_break, 2, 2, 0, "event tag",
     "holds the next request that comes to the event (blkdebug)", NULL},
    {"close", "c", io_close, 0, 0, 0, "", "closes the image", NULL},
    {"discard", "d", io_discard, 2, -1, IO_WRITES, "[-Cq] off len",
     "tells that the bytes are no longer needed",
     " -C  statistics for programs\n"
     " -q  no statistics\n"},
    {"flush", "f", io_flush, 0, 0, 0, "", "all that was written goes to stable storage", NULL},
    {"help", "?", help, 0, 1, IO_NO_FILE, "[command]", "describes one command or lists all", NULL},
    {"info", "i", io_info, 0, 0, 0, "", "what the image is", NULL},
    {"length", "l", io_length, 0, 0, 0, "", "the length of the disk", NULL},
    {"map", NULL, io_map, 0, 0, 0, "", "which parts are allocated in the image", NULL},
    {"open", "o", io_open, 1, -1, IO_NO_FILE,
     "[-rCnU] [-t cache] [-i aio] [-d discard] [-o options] [path]", "opens an image",
     " -r  read-only\n"
     " -C  what is read from backing files is kept in the image\n"
     " -n  as -t none\n"
     " -U  whatever others do with it\n"
     " -t  none, writeback, writethrough, directsync, unsafe\n"
     " -i  threads, io_uring\n"
     " -d  ignore, unmap\n"
     " -o  options of the node: driver=qcow2,lazy-refcounts=on\n"},
    {"quit", "q", quit, 0, -1, IO_NO_FILE, "", "ends the program", NULL},
    {"read", "r", io_read, 2, -1, 0, "[-bCqv] [-P pattern [-s off] [-l len]] off len",
     "reads bytes",
     " -b  from the VM state\n"
     " -C  statistics for programs\n"
     " -P  all bytes should have this value …\n"
     " -s  … from here on, behind off …\n"
     " -l  … so many of them\n"
     " -q  no statistics\n"
     " -v  prints the bytes\n"},
    {"readv", NULL, io_readv, 2, -1, 0, "[-Cqv] [-P pattern] off len [len..]",
     "reads into several buffers",
     " -C  statistics for programs\n"
     " -P  all bytes should have this value\n"
     " -q  no statistics\n"
     " -v  prints the bytes\n"},
    {"remove_break", NULL, io_remove_break, 1, 1, 0, "tag", "removes a breakpoint", NULL},
    {"reopen", NULL, io_reopen, 0, -1, 0, "[-r | -w] [-c cache] [-o options]",
     "changes how the image is open",
     " -r  read-only\n"
     " -w  read and write\n"
     " -c  another cache mode\n"
     " -o  other options: read-only, discard, cache.direct, cache.no-flush\n"},
    {"resume", NULL, io_resume, 1, 1, 0, "tag", "lets a request that was held go on", NULL},
    {"sigraise", NULL, io_sigraise, 1, 1, IO_NO_FILE, "signal",
     "sends a signal to the program itself", NULL},
    {"sleep", NULL, io_sleep, 1, 1, IO_NO_FILE, "milliseconds", "waits", NULL},
    {"truncate", "t", io_truncate, 1, 3, IO_WRITES, "[-m prealloc_mode] off",
     "changes the length of the disk", " -m  off, metadata, falloc, full\n"},
    {"wait_break", NULL, io_wait_break, 1, 1, 0, "tag", "waits until a request is held", NULL},
    {"write", "w", io_write, 2, -1, IO_WRITES, "[-bcCfnquz] [-P pattern | -s source_file] off len",
     "writes bytes",
     " -b  to the VM state\n"
     " -c  compressed\n"
     " -C  statistics for programs\n"
     " -f  on stable storage when it is done (FUA)\n"
     " -n  with -z: fails rather than writing zeroes from a buffer\n"
     " -P  value of the bytes (0xcd)\n"
     " -q  no statistics\n"
     " -s  bytes of this file, over and over\n"
     " -u  with -z: may unmap\n"
     " -z  zeroes\n"},
    {"writev", NULL, io_writev, 2, -1, IO_WRITES, "[-Cfq] [-P pattern] off len [len..]",
     "writes from several buffers",
     " -C  statistics for programs\n"
     " -f  on stable storage when it is done (FUA)\n"
     " -P  value of the bytes (0xcd)\n"
     " -q  no statistics\n"},
};

static const struct io_command *find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        const struct io_command *command = &commands[i];
        if (!strcmp(name, command->name) ||
            (command->short_name && !strcmp(name, command->short_name))) {
            return command;
        }
    }
    return NULL;
}

/* ---- help, quit ------------------------------------------------------------------------------ */

static void print_line(const struct io_command *command)
{
    printf("%s%s%s -- %s\n", command->name, *command->args ? " " : "", command->args,
           command->summary);
}

bool io_usage(const char *name)
{
    print_line(find(name));
    return false;
}

static bool help(struct io_session *s, int argc, char **argv)
{
    if (argc == 1) {
        for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
            print_line(&commands[i]);
        }
        printf("\n'help COMMAND' tells more about one.\n");
        return true;
    }
    const struct io_command *command = find(argv[1]);
    if (!command) {
        printf("command %s not found\n", argv[1]);
        return false;
    }
    print_line(command);
    if (command->help) {
        printf("\n%s", command->help);
    }
    return true;
}

static bool quit(struct io_session *s, int argc, char **argv)
{
    s->is_over = true;
    return true;
}

/* ---- running --------------------------------------------------------------------------------- */

int io_getopt(int argc, char **argv, const char *letters)
{
    int c = getopt(argc, argv, letters);

    if (c == '?') {
        io_usage(argv[0]);
    }
    return c;
}

static bool check_count(const struct io_command *command, const char *name, int count)
{
    if (count >= command->min && (command->max < 0 || count <= command->max)) {
        return true;
    }
    fprintf(stderr, "bad argument count %d to %s, expected ", count, name);
    if (command->max < 0) {
        fprintf(stderr, "at least %d arguments\n", command->min);
    } else if (command->min == command->max) {
        fprintf(stderr, "%d arguments\n", command->min);
    } else {
        fprintf(stderr, "between %d and %d arguments\n", command->min, command->max);
    }
    return false;
}

static bool run(struct io_session *s, int argc, char **argv)
{
    const struct io_command *command = find(argv[0]);

    if (!command) {
        fprintf(stderr, "command \"%s\" not found\n", argv[0]);
        return false;
    }
    if (!(command->flags & IO_NO_FILE) && !s->be) {
        fprintf(stderr, "no file open, try 'help open'\n");
        return false;
    }
    if (!check_count(command, argv[0], argc - 1)) {
        return false;
    }
    if (command->flags & IO_WRITES && !s->writable) {
        log_error("Block node is read-only");
        return false;
    }
    optind = 0; /* getopt() begins anew */
    return command->run(s, argc, argv);
}

bool io_command_run(struct io_session *s, const char *line)
{
    autofree char *copy = xstrdup(line);
    char **argv = NULL, *save = NULL;
    int argc = 0;
    bool ok = true;

    for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        argv = xreallocarray(argv, (size_t)argc + 2, sizeof(*argv));
        argv[argc++] = word;
        argv[argc] = NULL;
    }
    if (argc) {
        ok = run(s, argc, argv);
    }
    free(argv);
    return ok;
}
