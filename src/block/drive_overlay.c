/* SPDX-License-Identifier: MIT */
/* snapshot=on: what the guest writes goes to a qcow2 image that nobody else sees, and is lost. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/options.h"
#include "block/backend_int.h"
#include "block/image.h"

/* An empty file that nobody had before. The caller frees the name. */
static char *make_temporary(struct error **errp)
{
    const char *folder = getenv("TMPDIR");
    char *path = xasprintf("%s/ferry-XXXXXX", folder && *folder ? folder : "/var/tmp");
    int fd = mkstemp(path);

    if (fd < 0) {
        error_set_errno(errp, errno, "snapshot=on: could not make a temporary file '%s'", path);
        error_add_hint(errp, "TMPDIR names the folder");
        free(path);
        return NULL;
    }
    close(fd);
    return path;
}

static bool make_image(const char *path, uint64_t size, struct error **errp)
{
    struct options *opts = options_new();
    autofree char *text = xasprintf("%llu", (unsigned long long)size);

    options_set(opts, "size", text);
    bool ok = block_image_create(path, "qcow2", opts, 0, errp);
    options_free(opts);
    return ok;
}

static struct block_node *open_image(const char *path, const struct block_node *root,
                                     unsigned flags, struct error **errp)
{
    struct options *opts = options_new();

    options_set(opts, "driver", "qcow2");
    options_set(opts, "file.driver", "file");
    options_set(opts, "file.filename", path);
    options_set(opts, "backing", root->name);
    options_set(opts, "cache.no-flush", "on"); /* after a crash, nobody wants it */
    options_set(opts, "discard", "unmap");
    struct block_node *node = block_node_open(opts, flags, errp);
    options_free(opts);
    return node;
}

struct block_node *drive_put_overlay(struct block_node *root, unsigned flags, struct error **errp)
{
    autofree char *path = make_temporary(errp);
    struct block_node *node = NULL;

    if (path) {
        if (make_image(path, block_length(root), errp)) {
            node = open_image(path, root, flags, errp);
        }
        unlink(path); /* the open file lives on */
    }
    block_node_unref(root);
    return node;
}
