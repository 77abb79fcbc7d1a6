/* SPDX-License-Identifier: MIT */
/* See process.h. */
#include "base/process.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

void process_begin(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDWR); /* the lowest number that is free */
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0) {
        close(fd);
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}
