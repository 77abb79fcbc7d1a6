/* SPDX-License-Identifier: MIT */
/*
 * The terminal's raw mode, and its way back to what it was: at exit(), at signals that end the
 * process, and around a stop (Ctrl-Z).
 *
 * There is one terminal. What signal handlers read is written before they are installed.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include "base/range.h"
#include "chardev/internal.h"

static struct termios before, raw;
static int terminal_fd = -1;
static pid_t owner;
static volatile sig_atomic_t is_raw;

/* Those that end a process and that nobody else may have taken over. */
static const int fatal_signals[] = {SIGHUP, SIGINT,  SIGQUIT, SIGILL, SIGABRT, SIGBUS,
                                    SIGFPE, SIGSEGV, SIGTERM, SIGSYS, SIGTRAP};

/* A process in the background that changes its terminal is stopped. */
static bool is_foreground(void)
{
    pid_t group = tcgetpgrp(terminal_fd);
    return group < 0 || group == getpgrp();
}

void terminal_restore(void)
{
    /* A child that ends must not change our terminal. */
    if (!is_raw || getpid() != owner)
        return;
    is_raw = 0;
    if (is_foreground())
        tcsetattr(terminal_fd, TCSANOW, &before);
}

/* The action is the default again (SA_RESETHAND), so the signal ends the process. */
static void on_fatal_signal(int signal_number)
{
    terminal_restore();
    raise(signal_number);
}

/* After a stop the shell may have left the terminal in another mode. */
static void on_continue(int signal_number)
{
    if (is_raw && is_foreground())
        tcsetattr(terminal_fd, TCSANOW, &raw);
}

static void install_handlers(void)
{
    static bool is_installed;
    if (is_installed)
        return;
    is_installed = true;
    atexit(terminal_restore);
    for (size_t i = 0; i < ARRAY_SIZE(fatal_signals); i++) {
        struct sigaction action;
        /* Whoever handles a signal already calls exit() at last, or is a sanitizer. */
        if (sigaction(fatal_signals[i], NULL, &action) != 0 || action.sa_handler != SIG_DFL)
            continue;
        action = (struct sigaction){.sa_handler = on_fatal_signal,
                                    .sa_flags = SA_RESETHAND | SA_NODEFER};
        sigaction(fatal_signals[i], &action, NULL);
    }
    struct sigaction action = {.sa_handler = on_continue, .sa_flags = SA_RESTART};
    sigaction(SIGCONT, &action, NULL);
}

void terminal_set_raw(int fd, bool with_signals)
{
    if (!isatty(fd) || tcgetattr(fd, &before) != 0)
        return;
    raw = before;
    raw.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    raw.c_oflag |= OPOST; /* messages of ours end in '\n' alone */
    raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN);
    if (!with_signals)
        raw.c_lflag &= ~(tcflag_t)ISIG;
    raw.c_cflag = (raw.c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8;
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;

    terminal_fd = fd;
    owner = getpid();
    is_raw = 1;
    install_handlers();
    if (is_foreground())
        tcsetattr(fd, TCSANOW, &raw);
}
