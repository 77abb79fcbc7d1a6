/* SPDX-License-Identifier: MIT */
/* ferry-img snapshot: internal snapshots, listed, made, applied and deleted. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/common/tool.h"
#include "tools/img/img.h"

struct snapshot {
    struct img_common common;
    int action; /* 'l', 'a', 'c' or 'd'; 0: none */
    const char *name;
};

static bool set_action(void *fields, const struct tool_option *option, const char *arg,
                       struct error **errp)
{
    struct snapshot *s = fields;

    if (s->action) {
        tool_usage_error(errp, "Cannot mix '-l', '-a', '-c', '-d'");
        return false;
    }
    s->action = option->letter;
    s->name = arg;
    return true;
}

/* ---- actions --------------------------------------------------------------------------------- */

static void list(struct block_node *node)
{
    struct block_snapshot *snapshots = NULL;
    size_t count =
        img_ops(node)->snapshot_list ? img_ops(node)->snapshot_list(node, &snapshots) : 0;

    if (count) {
        img_print_snapshots(snapshots, count);
    }
    block_snapshots_free(snapshots, count);
}

static bool is_there(struct block_node *node, const char *name)
{
    struct block_snapshot *snapshots = NULL;
    size_t count =
        img_ops(node)->snapshot_list ? img_ops(node)->snapshot_list(node, &snapshots) : 0;
    bool found = false;

    for (size_t i = 0; i < count; i++) {
        found = found || !strcmp(snapshots[i].id, name) || !strcmp(snapshots[i].name, name);
    }
    block_snapshots_free(snapshots, count);
    return found;
}

static void not_supported(struct error **errp)
{
    error_set(errp, "%d (%s)", -ENOTSUP, strerror(ENOTSUP));
}

static bool create(struct block_node *node, const char *name, struct error **errp)
{
    struct timespec now;

    if (!img_ops(node)->snapshot_create) {
        not_supported(errp);
        return false;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    struct block_snapshot snapshot = {
        .name = (char *)name,
        .date_sec = (uint32_t)now.tv_sec,
        .date_nsec = (uint32_t)now.tv_nsec,
    };
    return img_ops(node)->snapshot_create(node, &snapshot, errp);
}

static bool apply(struct block_node *node, const char *name, struct error **errp)
{
    if (!img_ops(node)->snapshot_apply) {
        not_supported(errp);
        return false;
    }
    if (!is_there(node, name)) {
        error_set_errno(errp, ENOENT, "Failed to load snapshot");
        return false;
    }
    return img_ops(node)->snapshot_apply(node, name, errp);
}

static bool delete (struct block_node *node, const char *name, struct error **errp)
{
    if (!is_there(node, name)) {
        error_set(errp, "snapshot not found");
        return false;
    }
    return img_ops(node)->snapshot_delete(node, name, errp);
}

static void act(const struct snapshot *s, struct block_node *node, struct error **errp)
{
    switch (s->action) {
    case 'c':
        if (!create(node, s->name, errp)) {
            error_prepend(errp, "Could not create snapshot '%s': ", s->name);
        }
        break;
    case 'a':
        if (!apply(node, s->name, errp)) {
            error_prepend(errp, "Could not apply snapshot '%s': ", s->name);
        }
        break;
    case 'd':
        if (!delete (node, s->name, errp)) {
            error_prepend(errp, "Could not delete snapshot '%s': ", s->name);
        }
        break;
    case 'l':
        list(node);
        break;
    default:
        break; /* as qemu-img: only whether it can be opened */
    }
}

/* ---- the command ----------------------------------------------------------------------------- */

static int run(void *fields, int count, char **operands, struct error **errp)
{
    struct snapshot *s = fields;
    bool changes = s->action && s->action != 'l';

    if (count != 1) {
        tool_usage_error(errp, "Expecting one image file name");
        return EXIT_FAILURE;
    }
    struct block_backend *be = img_open(
        &(struct img_open){
            .filename = operands[0],
            .format = s->common.format,
            .image_opts = s->common.image_opts,
            .writable = changes,
            .flags = BLOCK_OPEN_UNMAP | (s->common.force_share ? BLOCK_OPEN_FORCE_SHARE : 0),
        },
        errp);
    if (!be) {
        return EXIT_FAILURE;
    }
    img_warn_of_probing(be);
    act(s, img_snapshot_node(be), errp);
    block_image_close(be);
    return EXIT_SUCCESS;
}

static const struct tool_option options[] = {
    IMG_OPTION_FORMAT,
    IMG_OPTION_IMAGE_OPTS,
    {'l', NULL, TOOL_CALL, 0, NULL, "list all", set_action},
    {'c', NULL, TOOL_CALL, 0, "SNAPSHOT", "make one", set_action},
    {'a', NULL, TOOL_CALL, 0, "SNAPSHOT", "go back to it: ID or NAME", set_action},
    {'d', NULL, TOOL_CALL, 0, "SNAPSHOT", "delete it: ID or NAME", set_action},
    IMG_OPTION_SHARE,
    IMG_OPTION_QUIET,
    IMG_OPTION_OBJECT,
    {0},
};

const struct img_command img_snapshot = {
    .name = "snapshot",
    .operands = "FILE",
    .summary = "lists, makes, applies or deletes internal snapshots",
    .options = options,
    .fields_size = sizeof(struct snapshot),
    .run = run,
};
