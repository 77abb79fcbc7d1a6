/* SPDX-License-Identifier: MIT */
/*
 * Output to a file. A named pipe or terminal works as well: then open() waits for a reader as
 * usual, and writing does not block afterwards.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "chardev/internal.h"

struct file {
    char *path;
    bool append;
    int fd;
};

static const struct chardev_option options[] = {
    {"append", "bool (on/off)"},
    {"path", "str"},
    {NULL},
};

static bool file_parse(struct chardev *chr, struct options *opts, struct error **errp)
{
    struct file *f = xnew(struct file);
    chr->state = f;
    f->fd = -1;
    const char *path = options_get(opts, "path");
    if (!options_get_bool(opts, "append", &f->append, errp))
        return false;
    if (!path || !*path) {
        error_set(errp, "chardev: file: no filename given; add path=FILE");
        return false;
    }
    f->path = xstrdup(path);
    return true;
}

static bool file_open(struct chardev *chr, struct error **errp)
{
    struct file *f = chr->state;
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | (f->append ? O_APPEND : O_TRUNC);
    f->fd = open(f->path, flags, 0666);
    if (f->fd < 0) {
        error_set_errno(errp, errno, "cannot open '%s'", f->path);
        return false;
    }
    fcntl(f->fd, F_SETFL, fcntl(f->fd, F_GETFL) | O_NONBLOCK);
    chardev_connect(chr, -1, f->fd);
    return true;
}

static void file_close(struct chardev *chr)
{
    struct file *f = chr->state;
    chardev_disconnect(chr);
    if (!f)
        return;
    if (f->fd >= 0)
        close(f->fd);
    free(f->path);
    free(f);
}

const struct chardev_backend chardev_file = {
    .name = "file",
    .options = options,
    .parse = file_parse,
    .open = file_open,
    .close = file_close,
};
