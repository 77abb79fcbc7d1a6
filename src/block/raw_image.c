/* SPDX-License-Identifier: MIT */
/* raw: what image tools do with raw images. See image.h. */
#include "block/drivers.h"

#include "base/options.h"
#include "base/range.h"
#include "block/image.h"

/* In the order in which qemu-img tells them. */
static const struct block_create_option create_options[] = {
    {"size", BLOCK_OPTION_SIZE, "Virtual disk size", NULL},
    {"nocow", BLOCK_OPTION_BOOL, "Turn off copy-on-write (valid only on btrfs)", .of_file = true},
    {"preallocation", BLOCK_OPTION_STRING, "Preallocation mode (allowed values: off, falloc, full)",
     .of_file = true},
    {"extent_size_hint", BLOCK_OPTION_SIZE, "Extent size hint for the image file, 0 to disable",
     .of_file = true},
    {0},
};

bool raw_check_prealloc(enum block_prealloc prealloc, struct error **errp)
{
    if (prealloc == BLOCK_PREALLOC_METADATA) {
        error_set(errp, "Preallocation mode 'metadata' is not for raw images; use off, falloc or "
                        "full");
        return false;
    }
    return true;
}

struct resize {
    struct block_node *node;
    uint64_t size;
    enum block_prealloc prealloc;
    struct error **errp;
};

static int co_resize(void *opaque)
{
    const struct resize *resize = opaque;

    return block_co_truncate(resize->node, resize->size, resize->prealloc, resize->errp);
}

static bool parse(struct options *opts, struct resize *resize, struct error **errp)
{
    int prealloc = BLOCK_PREALLOC_OFF;
    bool nocow = false;
    uint64_t hint = 0;

    if (!options_get_size(opts, "size", 1, &resize->size, errp) ||
        !options_get_bool(opts, "nocow", &nocow, errp) ||
        !options_get_size(opts, "extent_size_hint", 1, &hint, errp) ||
        !options_get_enum(opts, "preallocation", block_prealloc_names, &prealloc, errp)) {
        return false;
    }
    if (!raw_check_prealloc(prealloc, errp)) {
        return false;
    }
    resize->size = align_up(resize->size, 512);
    resize->prealloc = prealloc;
    return true;
}

static bool raw_check_create(struct options *opts, struct error **errp)
{
    struct resize resize = {0};

    return parse(opts, &resize, errp);
}

/* The protocol made the file, but without its length. */
static bool raw_create(struct block_node *file, struct options *opts, struct error **errp)
{
    struct resize resize = {.node = file, .errp = errp};

    if (!parse(opts, &resize, errp)) {
        return false;
    }
    if (!file->driver->co_truncate && resize.size <= block_length(file)) {
        return true; /* a device, or somebody else's export: it is long enough */
    }
    return block_run(co_resize, &resize) == 0;
}

static bool raw_measure(struct options *opts, struct block_node *source, uint64_t size,
                        struct block_measure *measure, struct error **errp)
{
    options_get(opts, "preallocation"); /* says nothing about the size */
    options_get(opts, "nocow");
    options_get(opts, "extent_size_hint");
    measure->required = align_up(source ? block_length(source) : size, 512);
    measure->fully_allocated = measure->required;
    return true;
}

const struct block_image_ops raw_image_ops = {
    .create_options = create_options,
    .check_create = raw_check_create,
    .create = raw_create,
    .measure = raw_measure,
};
