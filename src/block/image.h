/* SPDX-License-Identifier: MIT */
/*
 * Images as tools see them: making, opening by file name, checking, changing.
 *
 *   tools/ferry-img --> block_image_open() --> backend --> nodes     data: backend_co_*()
 *                  \--> node->driver->image --> struct block_image_ops     metadata
 *
 * All functions here run on the main loop, outside coroutines (they poll the loop where they have
 * to wait), with no request in flight at the image. A format without some operation leaves it NULL:
 * the tool says that the format cannot do it.
 */
#ifndef FERRY_BLOCK_IMAGE_H
#define FERRY_BLOCK_IMAGE_H

#include <jansson.h>

#include "block/backend.h"

/* ---- making ---------------------------------------------------------------------------------- */

enum block_option_type {
    BLOCK_OPTION_STRING,
    BLOCK_OPTION_SIZE,
    BLOCK_OPTION_BOOL,
    BLOCK_OPTION_UINT
};

/* An option of `create -o`, for help and for defaults. The list ends with a NULL name. */
struct block_create_option {
    const char *name;
    enum block_option_type type;
    const char *help;
    const char *default_text; /* or NULL */
    bool of_file;             /* the protocol's, which the format passes on */
};

/* Makes an image at `filename` (a path, "nbd://…", "json:{…}"): the file by its protocol, then the
 * format in it. opts: what `create -o` takes, "size" (bytes) among them, backing_file and
 * backing_fmt as well; taken ones are removed, unknown ones refused. Without size, the backing
 * file's. With wrong options it fails before it touches the file; what it made itself is removed again
 * if it fails later. */
#define BLOCK_CREATE_NO_BACKING_CHECK 1u /* the backing file is not opened (create -u) */
bool block_image_create(const char *filename, const char *format, struct options *opts,
                        unsigned flags, struct error **errp);
/* The create options of a format, and those of the protocol of `filename` (NULL: a file) that it
 * passes on; NULL and an error if images of it cannot be made. */
const struct block_create_option *block_image_create_options(const char *format,
                                                             struct error **errp);

/* ---- opening --------------------------------------------------------------------------------- */

struct block_image_how {
    const char *filename; /* or, with image_opts, options: "driver=qcow2,file.filename=x" */
    const char *format;   /* or NULL: looked at, without a warning */
    bool image_opts;
    const char *cache;         /* as -drive cache=, or NULL: writeback */
    const char *aio;           /* "threads", "io_uring", "native" or NULL */
    const char *detect_zeroes; /* as the node's option, or NULL */
    bool writable;
    bool shares_write; /* others may write meanwhile */
    unsigned flags;    /* BLOCK_OPEN_FORCE_SHARE, _NO_BACKING, _NO_IO, _CHECK, _UNMAP … */
    const char *user;  /* for messages: "ferry-img" */
};

/* A backend over the image's nodes, attached (locked as its user asks); block_image_close() ends
 * both. */
struct block_backend *block_image_open(const struct block_image_how *how, struct error **errp);
void block_image_close(struct block_backend *be);
/* The nodes alone: what block_image_open() puts a backend on; the caller gets a reference. */
struct block_node *block_image_open_node(const struct block_image_how *how, struct error **errp);

/* The host file that an image's name opens, or NULL if it is none ("nbd://…") or not known. The caller
 * frees it. */
char *block_image_path(const char *filename);
/* The path, as block_image_backing_path() gives it, of a data_file= ("file:NAME" or NAME). */
char *block_image_data_path(const char *image_filename, const char *data_file, struct error **errp);
/* A file that is about to be emptied must not be open, under whatever name. */
bool block_image_check_unused(const char *path, struct error **errp);
/* A backing file's name as the image has it, made into one that can be opened: relative ones begin
 * at the folder of the image that names them. The caller frees it. */
char *block_image_backing_path(const char *image_filename, const char *backing,
                               struct error **errp);
/* The same for an open image: the folder is that of the file at its bottom. */
char *block_node_backing_path(const struct block_node *node, const char *backing,
                              struct error **errp);

/* ---- describing: image_info.c ---------------------------------------------------------------- */

/* As QMP's ImageInfo. Strings belong to whoever asked: block_image_info_free(). */
struct block_image_info {
    uint64_t virtual_size;
    int64_t actual_size;   /* bytes on the host, -1: not known */
    uint32_t cluster_size; /* 0: none */
    bool is_dirty, is_corrupt, has_encryption;
    bool has_details; /* of clusters and the dirty bit: not of NBD exports, and what is raw there */
    char *backing_filename, *full_backing_filename, *backing_format; /* or NULL */
    json_t *specific; /* ImageInfoSpecific: {"type": "qcow2", "data": {…}}, or NULL */
};
void block_image_info(struct block_node *node, struct block_image_info *info);
/* The one that has a node's internal snapshots: below filters, and as in QEMU raw shows those of its
 * file. */
struct block_node *block_snapshot_node(struct block_node *node);
void block_image_info_free(struct block_image_info *info);

/* All that ImageInfo has, but for the backing-image. It stays as it is when the node has gone. */
struct block_image_description {
    char *filename, *format;
    struct block_image_info info;
    struct block_snapshot *snapshots;
    size_t snapshot_count;
};
/* looks_through: what a filter shows of the image below counts as the filter's, too. No I/O but a
 * look at the host file; requests may be in flight. */
void block_image_describe(struct block_node *node, bool looks_through,
                          struct block_image_description *d);
void block_image_description_free(struct block_image_description *d);
/* ImageInfo; the caller gets the reference. */
json_t *block_image_description_json(const struct block_image_description *d);

/* ---- checking -------------------------------------------------------------------------------- */

#define BLOCK_CHECK_FIX_LEAKS  1u
#define BLOCK_CHECK_FIX_ERRORS 2u

/* As QMP's ImageCheck. */
struct block_check_result {
    uint64_t corruptions, leaks, check_errors;
    uint64_t corruptions_fixed, leaks_fixed;
    uint64_t image_end_offset; /* bytes */
    uint64_t total_clusters, allocated_clusters, fragmented_clusters, compressed_clusters;
};

/* ---- the operations of a format -------------------------------------------------------------- */

struct block_snapshot {
    char *id, *name;
    uint64_t vm_state_size, disk_size, vm_clock_ns; /* bytes, bytes */
    int64_t icount;                                 /* -1: not known */
    uint32_t date_sec, date_nsec;
};

/* Which one: all that are not NULL must fit. */
struct block_snapshot_key {
    const char *id, *name;
    const char *id_or_name; /* the id, if there is such a one */
};

struct block_measure {
    uint64_t required, fully_allocated; /* bytes */
    uint64_t bitmaps;                   /* bytes; with has_bitmaps */
    bool has_bitmaps;
};

/* Tells how far a long operation is; of `total`, in units of its own. */
typedef void block_progress_fn(void *opaque, uint64_t done, uint64_t total);

struct block_image_ops {
    const struct block_create_option *create_options;
    /* Whether create could take opts, before there is a file; takes them out of opts as well. */
    bool (*check_create)(struct options *opts, struct error **errp);
    /* Writes an empty image into `file`, an open, empty, writable protocol node that grows. Takes
     * its options out of opts (size in bytes is there). */
    bool (*create)(struct block_node *file, struct options *opts, struct error **errp);
    /* What an image made with opts would need for `size` bytes, or for what `source` has. */
    bool (*measure)(struct options *opts, struct block_node *source, uint64_t size,
                    struct block_measure *measure, struct error **errp);
    /* Fills cluster_size, flags, backing_* and specific. */
    void (*info)(struct block_node *node, struct block_image_info *info);
    /* Errors in the image are counted and told by say(); false and *errp: it could not be checked. */
    bool (*check)(struct block_node *node, unsigned fix, struct block_check_result *result,
                  void (*say)(void *opaque, const char *line), void *opaque, struct error **errp);
    bool (*amend)(struct block_node *node, struct options *opts, bool force,
                  block_progress_fn *progress, void *opaque, struct error **errp);
    /* Only the names in the image; name NULL: none. node->backing is the caller's. */
    bool (*change_backing)(struct block_node *node, const char *name, const char *format,
                           struct error **errp);
    /* All of the guest's data is dropped, so that the backing file shows. */
    bool (*make_empty)(struct block_node *node, struct error **errp);

    /* The caller frees the list with block_snapshots_free(). */
    size_t (*snapshot_list)(struct block_node *node, struct block_snapshot **list);
    /* id NULL: the next number. */
    bool (*snapshot_create)(struct block_node *node, const struct block_snapshot *snapshot,
                            struct error **errp);
    bool (*snapshot_apply)(struct block_node *node, const char *id_or_name, struct error **errp);
    bool (*snapshot_delete)(struct block_node *node, const char *id_or_name, struct error **errp);
    /* Reads go to this snapshot from now on; only for nodes opened read-only (convert -l). */
    bool (*snapshot_load)(struct block_node *node, const struct block_snapshot_key *key,
                          struct error **errp);

    /* Whether a bitmap could be kept in the image; *errp says why not. */
    bool (*can_keep_bitmap)(struct block_node *node, const char *name, uint32_t granularity,
                            struct error **errp);
    /* The bitmaps of the node (block/bitmap.h) as they are now are written to the image, those that
     * are no longer there are removed from it. */
    bool (*keep_bitmaps)(struct block_node *node, struct error **errp);
};

void block_snapshots_free(struct block_snapshot *list, size_t count);

#endif
