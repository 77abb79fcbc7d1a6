/* SPDX-License-Identifier: MIT */
/* ferry-img info: what an image is. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/range.h"
#include "tools/common/json_text.h"
#include "tools/common/tool.h"
#include "tools/img/img.h"

/* A backing chain longer than this is taken for a circle by other names (links, json:). */
#define MAX_CHAIN 1000

struct info {
    struct img_common common;
    bool chain;
};

/* An image of the chain. */
struct described {
    struct block_image_description image;
    struct described *next;
};

/* ---- finding out ----------------------------------------------------------------------------- */

static void described_free(struct described *list)
{
    for (struct described *next; list; list = next) {
        next = list->next;
        block_image_description_free(&list->image);
        free(list);
    }
}

static struct described *describe(const struct img_open *how, struct error **errp)
{
    struct block_backend *be = img_open(how, errp);

    if (!be) {
        return NULL;
    }
    struct described *d = xnew(struct described);
    block_image_describe(backend_root(be), true, &d->image);
    block_image_close(be);
    return d;
}

static bool was_described(const struct described *list, const char *filename)
{
    for (; list; list = list->next) {
        if (!strcmp(list->image.filename, filename)) {
            return true;
        }
    }
    return false;
}

/* The image, and with --backing-chain those below it. NULL and *errp if one cannot be opened. */
static struct described *describe_chain(const struct info *info, const char *filename,
                                        struct error **errp)
{
    struct img_open how = {
        .filename = filename,
        .format = info->common.format,
        .image_opts = info->common.image_opts,
        .flags = BLOCK_OPEN_NO_BACKING | BLOCK_OPEN_NO_IO |
                 (info->common.force_share ? BLOCK_OPEN_FORCE_SHARE : 0),
    };
    struct described *list = NULL, **last = &list;

    for (size_t count = 0; how.filename; count++) {
        if (count == MAX_CHAIN || (count && was_described(list, how.filename))) {
            error_set(errp, "Backing file '%s' creates an infinite loop.", how.filename);
            break;
        }
        struct described *d = *last = describe(&how, errp);
        if (!d) {
            break;
        }
        last = &d->next;
        if (!info->chain || !d->image.info.full_backing_filename) {
            return list;
        }
        how.image_opts = false;
        how.filename = d->image.info.full_backing_filename;
        how.format = d->image.info.backing_format;
    }
    described_free(list);
    return NULL;
}

/* ---- for people ------------------------------------------------------------------------------ */

void img_print_snapshots(const struct block_snapshot *list, size_t count)
{
    printf("Snapshot list:\n");
    printf("%-10s%-17s%8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
    for (size_t i = 0; i < count; i++) {
        const struct block_snapshot *s = &list[i];
        char size[TOOL_SIZE_TEXT], date[64] = "", clock[64], icount[32] = "";
        time_t seconds = (time_t)s->date_sec;
        struct tm tm;
        uint64_t ms = s->vm_clock_ns / 1000000;

        if (localtime_r(&seconds, &tm)) {
            strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
        }
        snprintf(clock, sizeof(clock), "%02" PRIu64 ":%02u:%02u.%03u", ms / 3600000,
                 (unsigned)(ms / 60000 % 60), (unsigned)(ms / 1000 % 60), (unsigned)(ms % 1000));
        if (s->icount >= 0) {
            snprintf(icount, sizeof(icount), "%" PRId64, s->icount);
        }
        printf("%-9s %-16s %8s%20s%13s%11s\n", s->id, s->name,
               tool_size_text(s->vm_state_size, size), date, clock, icount);
    }
}

static void print_human(const struct block_image_description *d)
{
    const struct block_image_info *info = &d->info;
    char virtual_size[TOOL_SIZE_TEXT], actual[TOOL_SIZE_TEXT] = "unavailable";

    if (info->actual_size >= 0) {
        tool_size_text((uint64_t)info->actual_size, actual);
    }
    printf("image: %s\nfile format: %s\nvirtual size: %s (%" PRIu64 " bytes)\ndisk size: %s\n",
           d->filename, d->format, tool_size_text(info->virtual_size, virtual_size),
           info->virtual_size, actual);
    if (info->has_encryption) {
        printf("encrypted: yes\n");
    }
    if (info->cluster_size) {
        printf("cluster_size: %" PRIu32 "\n", info->cluster_size);
    }
    if (info->is_dirty) {
        printf("cleanly shut down: no\n");
    }
    if (info->backing_filename) {
        printf("backing file: %s", info->backing_filename);
        if (!info->full_backing_filename) {
            printf(" (cannot determine actual path)");
        } else if (strcmp(info->backing_filename, info->full_backing_filename) != 0) {
            printf(" (actual path: %s)", info->full_backing_filename);
        }
        putchar('\n');
        if (info->backing_format) {
            printf("backing file format: %s\n", info->backing_format);
        }
    }
    if (d->snapshot_count) {
        img_print_snapshots(d->snapshots, d->snapshot_count);
    }
    const json_t *data = json_object_get(info->specific, "data");
    if (json_object_size(data)) {
        printf("Format specific information:\n");
        tool_print_members(data, 1);
    }
}

/* ---- the command ----------------------------------------------------------------------------- */

static int run(void *fields, int count, char **operands, struct error **errp)
{
    struct info *info = fields;
    bool json;

    if (!img_parse_output(&info->common, &json, errp)) {
        return EXIT_FAILURE;
    }
    if (count != 1) {
        tool_usage_error(errp, "Expecting one image file name");
        return EXIT_FAILURE;
    }
    struct described *list = describe_chain(info, operands[0], errp);
    if (!list) {
        return EXIT_FAILURE;
    }
    if (json) {
        json_t *array = json_array();
        for (struct described *d = list; d; d = d->next) {
            json_array_append_new(array, block_image_description_json(&d->image));
        }
        if (info->chain) {
            img_print_json(array);
        } else {
            img_print_json(json_incref(json_array_get(array, 0)));
            json_decref(array);
        }
    } else {
        for (struct described *d = list; d; d = d->next) {
            print_human(&d->image);
            if (d->next) {
                putchar('\n');
            }
        }
    }
    described_free(list);
    return EXIT_SUCCESS;
}

static const struct tool_option options[] = {
    IMG_OPTION_FORMAT,
    IMG_OPTION_IMAGE_OPTS,
    {0, "backing-chain", TOOL_FLAG, offsetof(struct info, chain), NULL,
     "also the files behind it, from top to bottom"},
    IMG_OPTION_OUTPUT,
    IMG_OPTION_SHARE,
    IMG_OPTION_OBJECT,
    {0},
};

const struct img_command img_info = {
    .name = "info",
    .operands = "FILE",
    .summary = "prints what an image is",
    .options = options,
    .fields_size = sizeof(struct info),
    .run = run,
};
