/* SPDX-License-Identifier: MIT */
/* ferry-img convert: an image, or several one behind the other, into another of any format. */
#include "tools/img/convert.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "base/range.h"
#include "tools/common/signals.h"
#include "tools/common/tool.h"
#include "tools/img/bitmaps.h"
#include "tools/img/img.h"

#define CHUNK          (4 * MiB) /* bytes of one request; no cluster is larger */
#define RAW_UNIT       4096      /* bytes: what file systems allocate */
#define MAX_WORKERS    16
#define MAX_SPARSE     (16 * MiB)
#define DEFAULT_SPARSE 4096

struct convert {
    struct img_common common;
    const char *out_format, *cache, *source_cache, *backing, *backing_format, *snapshot;
    const char *sparse, *rate, *workers;
    char *creation;
    bool compressed, offload, out_of_order, no_create, salvage, target_opts, target_is_zero;
    bool bitmaps, skip_broken;
    /* by run() */
    const char *target_name;
    char *data_name;                 /* path of the target's data file, or NULL */
    bool target_is_new, data_is_new; /* there was no file of that name */
    struct copy copy;
};

/* ---- the command line ------------------------------------------------------------------------ */

static bool parse_numbers(struct convert *c, struct error **errp)
{
    uint64_t value;

    /* Enough to have a read and a write under way always; compressing takes CPUs, not memory. */
    c->copy.workers = c->compressed ? 8 : 4;
    if (c->workers) {
        if (!parse_uint(c->workers, &value) || value < 1 || value > MAX_WORKERS) {
            error_set(errp, "Invalid number of coroutines. Allowed number of coroutines is between "
                            "1 and 16");
            return false;
        }
        c->copy.workers = (unsigned)value;
    }
    c->copy.min_sparse = DEFAULT_SPARSE;
    if (c->sparse) {
        if (!tool_parse_size(c->sparse, "buffer size for sparse output", 0, INT64_MAX, &value,
                             errp)) {
            return false;
        }
        if (value % 512 || value > MAX_SPARSE) {
            error_set(errp, "Invalid buffer size for sparse output specified. Valid sizes are "
                            "multiples of 512 up to 16777216. Select 0 to disable sparse detection "
                            "(fully allocates output).");
            return false;
        }
        c->copy.min_sparse = (uint32_t)value;
        c->copy.writes_holes = !value;
    }
    return !c->rate ||
           tool_parse_size(c->rate, "rate limit", 0, INT64_MAX, &c->copy.rate.limit, errp);
}

static const char *find_conflict(const struct convert *c, int count)
{
    if (c->skip_broken && !c->bitmaps) {
        return "Use of --skip-broken-bitmaps requires --bitmaps";
    }
    if (c->bitmaps && count > 2) {
        return "Copying bitmaps only possible with single source";
    }
    if (c->offload && c->compressed) {
        return "Cannot enable copy offloading when -c is used";
    }
    if (c->offload && c->sparse) {
        return "Cannot enable copy offloading when -S is used";
    }
    if (c->offload && c->salvage) {
        return "Cannot use copy offloading in salvaging mode";
    }
    if (c->target_opts && !c->no_create) {
        return "--target-image-opts requires use of -n flag";
    }
    if (c->target_opts && c->out_format) {
        return "--target-image-opts and -O are mutually exclusive";
    }
    if (c->target_is_zero && !c->no_create) {
        return "--target-is-zero requires use of -n flag";
    }
    if (c->no_create && c->creation) {
        return "-o has no effect when skipping image creation";
    }
    if (c->backing && count > 2) {
        return "Having a backing file for the target makes no sense when concatenating multiple "
               "input images";
    }
    if (c->snapshot && count > 2) {
        return "No support for concatenating multiple snapshot";
    }
    return count < 2 ? "Must specify image file name" : NULL;
}

/* ---- sources --------------------------------------------------------------------------------- */

static bool open_sources(struct convert *c, int count, char **names, struct error **errp)
{
    struct copy *copy = &c->copy;

    copy->sources = xcalloc((size_t)count, sizeof(*copy->sources));
    for (int i = 0; i < count; i++) {
        struct block_backend *be = img_open(
            &(struct img_open){
                .filename = names[i],
                .format = c->common.format,
                .image_opts = c->common.image_opts,
                .cache = c->source_cache,
                .flags = c->common.force_share ? BLOCK_OPEN_FORCE_SHARE : 0,
            },
            errp);
        if (!be) {
            return false;
        }
        copy->sources[copy->source_count++] = (struct copy_source){.be = be, .start = copy->total};
        if (c->snapshot && !tool_load_snapshot(backend_root(be), c->snapshot, errp)) {
            return false;
        }
        struct copy_source *source = &copy->sources[i];
        source->length = backend_length(be);
        if (!range_fits(copy->total, source->length, INT64_MAX)) {
            error_set(errp, "The images together are larger than an image can be");
            return false;
        }
        copy->total += source->length;
    }
    return true;
}

/* ---- the target ------------------------------------------------------------------------------ */

static bool refuse_options(struct convert *c, struct options *opts, struct error **errp)
{
    const char *prealloc = options_get(opts, "preallocation");

    if (c->compressed && prealloc && strcmp(prealloc, "off") != 0) {
        error_set(errp, "Compression and preallocation not supported at the same time");
        return true;
    }
    if (options_get(opts, "backing_file") && !options_get(opts, "backing_fmt")) {
        error_set(errp, "Use of backing file requires explicit backing format");
        return true;
    }
    if (c->copy.source_count > 1 && options_get(opts, "backing_file")) {
        error_set(errp, "Having a backing file for the target makes no sense when concatenating "
                        "multiple input images");
        return true;
    }
    return false;
}

/* Before anything is made: what the format lacks. */
static bool check_format(const struct convert *c, const char *format, struct error **errp)
{
    const struct block_driver *driver = block_driver_find(format);

    if (!driver) {
        error_set(errp, "Unknown file format '%s'", format);
        return false;
    }
    if (c->compressed && !(driver->supported_flags & BLOCK_REQ_COMPRESSED)) {
        error_set(errp, "Compression not supported for this file format");
        return false;
    }
    if (c->bitmaps && (!driver->image || !driver->image->keep_bitmaps)) {
        error_set(errp, "Format driver '%s' does not support bitmaps", format);
        return false;
    }
    return true;
}

static bool check_creation_names(const char *format, const struct options *opts,
                                 struct error **errp)
{
    const struct block_create_option *known = block_image_create_options(format, errp);

    if (!known) {
        return false;
    }
    for (size_t i = 0; i < options_count(opts); i++) {
        const struct block_create_option *option = known;
        while (option->name && strcmp(option->name, options_key(opts, i)) != 0) {
            option++;
        }
        if (!option->name) {
            error_set(errp, "Invalid parameter '%s'", options_key(opts, i));
            return false;
        }
    }
    return true;
}

/* What was there is not lost for bitmaps that a target of an old version could not keep. */
static bool check_bitmaps_version(const struct convert *c, struct options *opts,
                                  struct error **errp)
{
    const char *compat = options_get(opts, "compat");

    if (!c->bitmaps || !compat || (strcmp(compat, "0.10") != 0 && strcmp(compat, "v2") != 0)) {
        return true;
    }
    error_set(errp, "Cannot store dirty bitmaps in qcow2 v2 files; use compat=1.1 or leave "
                    "--bitmaps out");
    return false;
}

static bool create_target(struct convert *c, struct error **errp)
{
    const char *format = c->out_format ? c->out_format : "raw";
    struct options *opts = img_parse_creation(c->creation, errp);

    if (!opts || !check_creation_names(format, opts, errp) ||
        (c->backing && !img_set_backing(opts, format, c->backing, c->backing_format, errp)) ||
        refuse_options(c, opts, errp) || !check_bitmaps_version(c, opts, errp)) {
        options_free(opts);
        return false;
    }
    c->copy.target_has_backing = options_has(opts, "backing_file");
    uint64_t ignored;
    bool ok = (c->backing || img_set_backing(opts, format, NULL, c->backing_format, errp)) &&
              options_get_size(opts, "size", 1, &ignored, errp);
    if (ok) {
        autofree char *size = xasprintf("%" PRIu64, c->copy.total);
        options_set(opts, "size", size); /* the sources', whatever -o says */
        c->target_is_new = img_is_new(c->target_name);
        const char *data = options_get(opts, "data_file");
        c->data_name = data ? block_image_data_path(c->target_name, data, NULL) : NULL;
        c->data_is_new = c->data_name && img_is_new(c->data_name);
        signals_catch();
        tool_has_force_share(false);
        ok = block_image_create(c->target_name, format, opts, 0, errp);
    }
    if (!ok) {
        error_prepend(errp, "%s: error while converting %s: ", c->target_name, format);
    }
    options_free(opts);
    return ok;
}

/* Files that were made just now read as zeroes, whatever the format on them; other protocols show what
 * was there before. */
static bool is_made_of_zeroes(const struct block_node *node)
{
    if (node->driver->is_protocol) {
        return !strcmp(node->driver->name, "file");
    }
    for (const struct block_link *link = node->children; link; link = link->next_child) {
        if (link->role != BLOCK_CHILD_BACKING && !is_made_of_zeroes(link->node)) {
            return false;
        }
    }
    return true;
}

static uint32_t subclusters(const struct block_image_info *info)
{
    json_t *data = json_object_get(info->specific, "data");

    return json_is_true(json_object_get(data, "extended-l2")) ? 32 : 1;
}

static void set_unit(struct copy *copy)
{
    struct block_node *node = backend_root(copy->target);
    struct block_image_info info;

    block_image_info(node, &info);
    copy->unit = info.cluster_size ? info.cluster_size : RAW_UNIT;
    if (!copy->compressed) {
        copy->unit /= info.cluster_size ? subclusters(&info) : 1;
    }
    if (!info.cluster_size && copy->min_sparse && copy->min_sparse < RAW_UNIT) {
        copy->unit = 512;
    }
    copy->unit = MAX(copy->unit, node->limits.request_alignment);
    copy->chunk = copy->compressed ? copy->unit : MAX((uint32_t)CHUNK, copy->unit);
    block_image_info_free(&info);
}

static bool open_target(struct convert *c, struct error **errp)
{
    struct copy *copy = &c->copy;

    copy->target = img_open(
        &(struct img_open){
            .filename = c->target_name,
            .format = c->target_opts  ? NULL
                      : c->out_format ? c->out_format
                                      : "raw",
            .image_opts = c->target_opts,
            .cache = c->cache ? c->cache : "unsafe",
            .writable = true,
            .flags = BLOCK_OPEN_UNMAP,
        },
        errp);
    if (!copy->target) {
        return false;
    }
    struct block_node *node = img_format_node(copy->target);
    if (c->no_create && !check_format(c, node->driver->name, errp)) {
        return false;
    }
    if (c->bitmaps && !bitmaps_check_target(copy->sources[0].be, copy->target, errp)) {
        return false;
    }
    if (backend_length(copy->target) < copy->total) {
        error_set(errp, "output file is smaller than input file");
        return false;
    }
    if (c->backing) {
        copy->target_has_backing = true;
    }
    copy->backing_length = node->backing ? block_length(node->backing) : UINT64_MAX;
    copy->target_is_zero = c->target_is_zero || (!c->no_create && is_made_of_zeroes(node));
    set_unit(copy);
    return true;
}

/* ---- the end --------------------------------------------------------------------------------- */

static int co_flush(void *opaque)
{
    return backend_co_flush(opaque, 0);
}

static void explain(const struct copy *copy, struct error **errp)
{
    if (copy->interrupted) {
        error_set(errp, "Interrupted by a signal");
    } else {
        error_set_errno(errp, -copy->ret, "error while %s at byte %" PRIu64,
                        copy->failed_reading ? "reading" : "writing", copy->failed_at);
    }
}

static bool copy_all(struct convert *c, struct error **errp)
{
    struct copy *copy = &c->copy;

    signals_catch();
    progress_start(&copy->progress, c->common.progress, true, copy->total);
    copy_run(copy);
    if (!copy->ret) {
        int ret = block_run(co_flush, copy->target);
        if (ret < 0) {
            error_set_errno(errp, -ret, "error while writing: could not flush '%s'",
                            c->target_name);
        }
    } else {
        explain(copy, errp);
    }
    progress_end(&copy->progress, !*errp);
    return !*errp;
}

static void close_all(struct convert *c)
{
    for (size_t i = 0; i < c->copy.source_count; i++) {
        block_image_close(c->copy.sources[i].be);
    }
    free(c->copy.sources);
    if (c->copy.target) {
        block_image_close(c->copy.target);
    }
}

/* ---- the command ----------------------------------------------------------------------------- */

static bool check_options(struct convert *c, int count, struct error **errp)
{
    if (!parse_numbers(c, errp)) {
        return false;
    }
    const char *conflict = find_conflict(c, count);
    if (conflict) {
        error_set(errp, "%s", conflict);
        return false;
    }
    return tool_check_cache(c->cache, "cache", errp) &&
           tool_check_cache(c->source_cache, "source cache", errp);
}

static int run(void *fields, int count, char **operands, struct error **errp)
{
    struct convert *c = fields;
    struct copy *copy = &c->copy;

    if (img_wants_help(c->creation)) {
        img_create_help(c->out_format ? c->out_format : "raw",
                        count > 1 ? operands[count - 1] : NULL, errp);
        return EXIT_SUCCESS;
    }
    if (!check_options(c, count, errp)) {
        return EXIT_FAILURE;
    }
    c->target_name = operands[count - 1];
    copy->compressed = c->compressed;
    copy->salvage = c->salvage;
    copy->quiet = c->common.quiet;
    copy->offload = c->offload;
    /* Compressed clusters are written as they get ready. */
    copy->out_of_order = c->out_of_order || c->compressed;

    bool ok = open_sources(c, count - 1, operands, errp) &&
              (c->no_create || check_format(c, c->out_format ? c->out_format : "raw", errp)) &&
              (!c->bitmaps || bitmaps_check(copy->sources[0].be, c->skip_broken, errp));
    bool began = ok && (c->no_create || create_target(c, errp));
    ok = began && open_target(c, errp) && copy_all(c, errp) &&
         (!c->bitmaps ||
          bitmaps_copy(copy->sources[0].be, copy->target, c->skip_broken, c->common.quiet, errp));
    bool wrote = began && copy->target && (ok || copy->progress.started_ns);
    close_all(c);
    if (!ok && (wrote || (began && !c->no_create))) {
        img_clean_up(c->target_name, c->target_is_new, errp);
        if (c->data_name) {
            img_clean_up(c->data_name, c->data_is_new, errp);
        }
    }
    signals_release();
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

static void release(void *fields)
{
    struct convert *c = fields;

    free(c->creation);
    free(c->data_name);
}

#define FIELD(member) offsetof(struct convert, member)

static const struct tool_option options[] = {
    {'f', NULL, TOOL_STRING, IMG_FIELD(format), "FMT", "format of the sources"},
    {'O', NULL, TOOL_STRING, FIELD(out_format), "FMT", "format of the target (raw)"},
    {'o', NULL, TOOL_APPEND, FIELD(creation), "OPTIONS",
     "options of the target's format: NAME=VALUE,…; 'help' lists them"},
    {'c', NULL, TOOL_FLAG, FIELD(compressed), NULL, "write compressed clusters"},
    {'B', NULL, TOOL_STRING, FIELD(backing), "FILE",
     "backing file of the target; what the source shares with its own is left there"},
    {'F', NULL, TOOL_STRING, FIELD(backing_format), "FMT", "format of the backing file"},
    {'S', NULL, TOOL_STRING, FIELD(sparse), "SIZE",
     "shortest run of zeroes that becomes a hole (4k); 0: none"},
    {'l', NULL, TOOL_STRING, FIELD(snapshot), "SNAPSHOT",
     "read an internal snapshot: ID, NAME, snapshot.id=ID or snapshot.name=NAME"},
    {'m', NULL, TOOL_STRING, FIELD(workers), "COUNT",
     "coroutines that copy, 1 to 16 (4; 8 with -c)"},
    {'W', NULL, TOOL_FLAG, FIELD(out_of_order), NULL, "write in any order"},
    {'n', NULL, TOOL_FLAG, FIELD(no_create), NULL, "the target is there; do not make it"},
    {0, "target-is-zero", TOOL_FLAG, FIELD(target_is_zero), NULL, "with -n: it reads as zeroes"},
    {0, "target-image-opts", TOOL_FLAG, FIELD(target_opts), NULL,
     "with -n: the target is a list of options"},
    {'C', NULL, TOOL_FLAG, FIELD(offload), NULL, "let the host copy, where it can"},
    {'r', NULL, TOOL_STRING, FIELD(rate), "RATE", "at most so many bytes per second"},
    {0, "bitmaps", TOOL_FLAG, FIELD(bitmaps), NULL, "copy persistent bitmaps"},
    {0, "skip-broken-bitmaps", TOOL_FLAG, FIELD(skip_broken), NULL,
     "leave out inconsistent bitmaps"},
    {0, "salvage", TOOL_FLAG, FIELD(salvage), NULL, "what cannot be read becomes zeroes"},
    {'t', NULL, TOOL_STRING, FIELD(cache), "CACHE", "cache mode of the target (unsafe)"},
    {'T', NULL, TOOL_STRING, FIELD(source_cache), "CACHE", "cache mode of the sources (writeback)"},
    IMG_OPTION_IMAGE_OPTS,
    IMG_OPTION_SHARE,
    IMG_OPTION_PROGRESS,
    IMG_OPTION_QUIET,
    IMG_OPTION_OBJECT,
    {0},
};

const struct img_command img_convert = {
    .name = "convert",
    .operands = "FILE [FILE…] TARGET",
    .summary = "copies images into a new one, of another format perhaps",
    .options = options,
    .fields_size = sizeof(struct convert),
    .run = run,
    .release = release,
};
