/* SPDX-License-Identifier: MIT */
/* Commands from stdin. Requests of aio_* go on while the shell waits for a line. See io_tool.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "tools/common/tool.h"
#include "tools/io/io_tool.h"

#define LINE_MAX_BYTES (1024 * 1024) /* a longer one is no command */

struct shell {
    struct io_session *session;
    bool ok;      /* no command has failed */
    bool is_over; /* stdin has ended */
    bool prompted;
    char *text; /* what came and is no whole line yet */
    size_t length;
};

static void run_line(struct shell *shell, const char *line)
{
    if (!shell->session->is_over && !io_command_run(shell->session, line)) {
        shell->ok = false;
    }
    tool_flush_output();
    shell->prompted = false;
}

/* ---- a terminal ------------------------------------------------------------------------------ */

static bool edited_line(void *opaque, const char *line)
{
    struct shell *shell = opaque;

    if (line) {
        run_line(shell, line);
    } else {
        shell->is_over = true;
    }
    return !shell->is_over && !shell->session->is_over;
}

static void listen_to(struct shell *shell, aio_fn *fn)
{
    aio_set_fd(aio_loop_current(), STDIN_FILENO, fn, NULL, shell);
}

/* Not while a command runs, which may poll the loop itself. */
static void edit_readable(void *opaque)
{
    listen_to(opaque, NULL);
    io_edit_read();
    listen_to(opaque, edit_readable);
}

/* ---- anything else --------------------------------------------------------------------------- */

static void take_lines(struct shell *shell)
{
    char *line = shell->text, *end;

    while (!shell->session->is_over && (end = memchr(line, '\n', shell->length))) {
        *end = '\0';
        shell->length -= (size_t)(end + 1 - line);
        run_line(shell, line);
        line = end + 1;
        if (!shell->session->is_over && shell->length && memchr(line, '\n', shell->length)) {
            fputs(IO_PROMPT, stdout);
        }
    }
    memmove(shell->text, line, shell->length);
}

static void read_more(struct shell *shell)
{
    char buffer[4096];
    ssize_t n = read(STDIN_FILENO, buffer, sizeof(buffer));

    if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
        return;
    }
    if (n <= 0 || shell->length + (size_t)n > LINE_MAX_BYTES) {
        if (shell->length && n <= 0) { /* a last line without its end */
            shell->text[shell->length] = '\0';
            shell->length = 0;
            run_line(shell, shell->text);
            fputs(IO_PROMPT, stdout);
        }
        shell->is_over = true;
        return;
    }
    shell->text = xrealloc(shell->text, shell->length + (size_t)n + 1);
    memcpy(shell->text + shell->length, buffer, (size_t)n);
    shell->length += (size_t)n;
    take_lines(shell);
}

static void readable(void *opaque)
{
    listen_to(opaque, NULL);
    read_more(opaque);
    listen_to(opaque, readable);
}

bool io_shell(struct io_session *s)
{
    struct shell shell = {.session = s, .ok = true};
    struct aio_loop *loop = aio_loop_current();
    bool edits = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && io_edit_available();

    if (edits) {
        io_edit_start(edited_line, &shell);
    }
    listen_to(&shell, edits ? edit_readable : readable);
    while (!s->is_over && !shell.is_over) {
        if (!edits && !shell.prompted) {
            fputs(IO_PROMPT, stdout);
            tool_flush_output();
            shell.prompted = true;
        }
        aio_loop_poll(loop, true);
    }
    listen_to(&shell, NULL);
    if (edits) {
        io_edit_stop();
    }
    free(shell.text);
    return shell.ok;
}
