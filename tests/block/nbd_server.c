/* SPDX-License-Identifier: MIT */
#include "nbd_server.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "kit.h"

static pid_t server;

bool nbd_server_has(const char *program)
{
    autofree char *command = xasprintf("command -v %s >/dev/null 2>&1", program);

    return system(command) == 0;
}

void nbd_server_launch(const char *command)
{
    server = fork();
    if (server == 0) {
        execl("/bin/sh", "sh", "-c", command, NULL);
        _exit(127);
    }
}

static bool listens(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "sock"};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;

    close(fd);
    return ok;
}

void nbd_server_start(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    autofree char *text = xvasprintf(fmt, ap);
    va_end(ap);
    autofree char *command = xasprintf("exec %s", text);
    unlink("sock");
    nbd_server_launch(command);
    for (int i = 0; i < 2000; i++) {
        if (listens()) {
            return;
        }
        usleep(5000);
    }
    fail_msg("'%s' does not listen", text);
}

void nbdkit(const char *arguments)
{
    nbd_server_start("nbdkit -f --exit-with-parent -U sock %s", arguments);
}

void nbd_server_stop(void)
{
    if (server > 0) {
        kill(server, SIGKILL);
        waitpid(server, NULL, 0);
        server = 0;
    }
}
