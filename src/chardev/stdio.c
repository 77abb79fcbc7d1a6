/* SPDX-License-Identifier: MIT */
/*
 * The terminal, or whatever stdin and stdout are.
 *
 * They are shared with the shell and other processes, so they are not made non-blocking: a
 * terminal or pipe is opened once more for output, with a file description of our own. A regular
 * file or a socket needs no such thing. Where opening is forbidden (a terminal of another user),
 * output may wait for the reader.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "chardev/internal.h"

struct stdio {
    bool signals;
    int out_fd; /* our own, or -1: stdout itself */
};

/* Main thread. */
static bool is_taken;

static const struct chardev_option options[] = {
    {"signal", "bool (on/off)"},
    {NULL},
};

static bool stdio_parse(struct chardev *chr, struct options *opts, struct error **errp)
{
    struct stdio *s = xnew(struct stdio);
    chr->state = s;
    s->out_fd = -1;
    s->signals = true;
    return options_get_bool(opts, "signal", &s->signals, errp);
}

static int reopen_for_output(void)
{
    struct stat st;
    if (fstat(STDOUT_FILENO, &st) != 0 || !(S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode)))
        return -1;
    return open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

static bool stdio_open(struct chardev *chr, struct error **errp)
{
    struct stdio *s = chr->state;
    if (is_taken) {
        error_set(errp, "cannot use stdio by multiple character devices; with mux=on several front "
                        "ends share one");
        return false;
    }
    if (fcntl(STDIN_FILENO, F_GETFD) < 0 || fcntl(STDOUT_FILENO, F_GETFD) < 0) {
        error_set(errp, "stdin or stdout is closed");
        return false;
    }
    is_taken = true;
    s->out_fd = reopen_for_output();
    terminal_set_raw(STDIN_FILENO, s->signals);
    chardev_connect(chr, STDIN_FILENO, s->out_fd >= 0 ? s->out_fd : STDOUT_FILENO);
    return true;
}

static void stdio_close(struct chardev *chr)
{
    struct stdio *s = chr->state;
    if (chr->out_fd >= 0) {
        chardev_disconnect(chr);
        terminal_restore();
        is_taken = false;
    }
    if (s->out_fd >= 0)
        close(s->out_fd);
    free(s);
}

const struct chardev_backend chardev_stdio = {
    .name = "stdio",
    .options = options,
    .parse = stdio_parse,
    .open = stdio_open,
    .close = stdio_close,
    .input_ended = chardev_disconnect_input,
};
