/* SPDX-License-Identifier: MIT */
/* The back end that drops everything and never says a word. */
#include "chardev/internal.h"

static const struct chardev_option options[] = {{NULL}};

static bool null_parse(struct chardev *chr, struct options *opts, struct error **errp)
{
    return true;
}

static bool null_open(struct chardev *chr, struct error **errp)
{
    chardev_connect(chr, -1, -1);
    return true;
}

static void null_close(struct chardev *chr)
{
}

const struct chardev_backend chardev_null = {
    .name = "null",
    .options = options,
    .parse = null_parse,
    .open = null_open,
    .close = null_close,
};
