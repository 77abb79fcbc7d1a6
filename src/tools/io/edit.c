/* SPDX-License-Identifier: MIT */
/* Lines of a terminal, by libedit's interface of callbacks. See io_tool.h. */
#include <stdio.h>
#include <stdlib.h>

#include <editline/readline.h>

#include "tools/io/io_tool.h"

static bool (*on_line)(void *opaque, const char *text);
static void *on_line_opaque;
static bool is_installed;
static bool wants_next; /* a line came, and it was not the last one */

bool io_edit_available(void)
{
    return true;
}

static void got_line(char *text)
{
    if (!text) {
        putchar('\n');
    } else if (*text) {
        add_history(text);
    }
    wants_next = on_line(on_line_opaque, text);
    free(text);
}

void io_edit_start(bool (*line)(void *opaque, const char *text), void *opaque)
{
    on_line = line;
    on_line_opaque = opaque;
    rl_callback_handler_install(IO_PROMPT, got_line);
    is_installed = true;
}

void io_edit_read(void)
{
    wants_next = false;
    rl_callback_read_char();
    if (wants_next) { /* libedit leaves the terminal to us with each line */
        rl_callback_handler_install(IO_PROMPT, got_line);
    }
}

void io_edit_stop(void)
{
    if (is_installed) {
        rl_callback_handler_remove();
        is_installed = false;
    }
}
