/* SPDX-License-Identifier: MIT */
/* --fork and --pid-file. See nbd_tool.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/log.h"
#include "tools/nbd/nbd_tool.h"

static int ready_fd = -1; /* the parent waits at its other end */

static void __attribute__((noreturn)) wait_for_child(int fd)
{
    char byte;
    ssize_t n;

    do {
        n = read(fd, &byte, 1);
    } while (n < 0 && errno == EINTR);
    _exit(n == 1 ? EXIT_SUCCESS : EXIT_FAILURE); /* a child that failed has said why */
}

bool nbd_daemon_fork(struct error **errp)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0) {
        error_set_errno(errp, errno, "--fork: cannot make a pipe");
        return false;
    }
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        error_set_errno(errp, errno, "--fork: cannot fork");
        close(fds[0]);
        close(fds[1]);
        return false;
    }
    if (pid > 0) {
        close(fds[1]);
        wait_for_child(fds[0]);
    }
    close(fds[0]);
    ready_fd = fds[1];
    setsid();
    return true;
}

void nbd_daemon_ready(bool keep_stderr)
{
    if (ready_fd < 0) {
        return;
    }
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        if (!keep_stderr) {
            dup2(null, STDERR_FILENO);
        }
        close(null);
    }
    if (write(ready_fd, "", 1) != 1) {
        log_warn("--fork: the process that started this one has gone");
    }
    close(ready_fd);
    ready_fd = -1;
}

bool nbd_pid_file_write(const char *path, struct error **errp)
{
    char text[32];
    int length = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644); /* stays open: it holds the lock */

    if (fd < 0) {
        error_set_errno(errp, errno, "cannot create PID file '%s'", path);
        return false;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        error_set(errp, "cannot lock PID file '%s': another process uses it", path);
        close(fd);
        return false;
    }
    if (ftruncate(fd, 0) < 0 || write(fd, text, (size_t)length) != length) {
        error_set_errno(errp, errno, "cannot write PID file '%s'", path);
        close(fd);
        return false;
    }
    return true;
}

void nbd_pid_file_remove(const char *path)
{
    unlink(path);
}
