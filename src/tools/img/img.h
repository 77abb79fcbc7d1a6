/* SPDX-License-Identifier: MIT */
/*
 * ferry-img: image files made, described, checked, copied and changed, with qemu-img's arguments.
 *
 *   main.c: the table of commands; parses, runs, prints the error
 *   <command>.c: its options, and what it does
 *
 * A command is a struct of fields that the parser fills (its first member is struct img_common), and
 * a function. What stays open when it returns would be an error of ours: commands close what they
 * open.
 */
#ifndef FERRY_TOOLS_IMG_IMG_H
#define FERRY_TOOLS_IMG_IMG_H

#include "base/error.h"
#include "block/image.h"
#include "tools/common/args.h"

/* What most commands have; those that do not leave it out of their option table. */
struct img_common {
    struct tool_list objects; /* --object */
    const char *format;       /* -f */
    const char *output;       /* --output */
    bool image_opts;          /* --image-opts */
    bool force_share;         /* -U */
    bool quiet;               /* -q */
    bool progress;            /* -p without -q */
};

#define IMG_FIELD(member) offsetof(struct img_common, member)
#define IMG_OPTION_OBJECT                                                                            \
    {                                                                                                \
        0, "object", TOOL_LIST, IMG_FIELD(objects), "OBJECT", "make an object first: TYPE,id=ID,…" \
    }
#define IMG_OPTION_IMAGE_OPTS                                                                      \
    {                                                                                              \
        0, "image-opts", TOOL_FLAG, IMG_FIELD(image_opts), NULL,                                   \
            "FILE is a list of options: driver=…,file.filename=…"                              \
    }
#define IMG_OPTION_FORMAT                                                                          \
    {                                                                                              \
        'f', "format", TOOL_STRING, IMG_FIELD(format), "FMT",                                      \
            "format of FILE; else it is looked at"                                                 \
    }
#define IMG_OPTION_OUTPUT                                                                          \
    {                                                                                              \
        0, "output", TOOL_STRING, IMG_FIELD(output), "human|json", "how to print (human)"          \
    }
#define IMG_OPTION_SHARE                                                                           \
    {                                                                                              \
        'U', "force-share", TOOL_FLAG, IMG_FIELD(force_share), NULL,                               \
            "open the image although others write to it"                                           \
    }
#define IMG_OPTION_QUIET                                                                           \
    {                                                                                              \
        'q', "quiet", TOOL_FLAG, IMG_FIELD(quiet), NULL, "print errors only"                       \
    }
#define IMG_OPTION_PROGRESS                                                                        \
    {                                                                                              \
        'p', NULL, TOOL_FLAG, IMG_FIELD(progress), NULL, "show the progress"                       \
    }

struct img_command {
    const char *name;
    const char *operands; /* "FILE [SIZE]" */
    const char *summary;  /* one line */
    const struct tool_option *options;
    size_t fields_size;
    bool last_is_operand; /* the last argument is no option, also if it begins with '-' */
    /* operands: count of them. The exit status; EXIT_SUCCESS with an error set becomes 1. */
    int (*run)(void *fields, int count, char **operands, struct error **errp);
    void (*release)(void *fields); /* or NULL */
};

extern const struct img_command img_amend, img_bench, img_bitmap, img_check, img_commit,
    img_compare, img_convert, img_create, img_dd, img_info, img_map, img_measure, img_rebase,
    img_resize, img_snapshot;

/* ---- create.c -------------------------------------------------------------------------------- */

/* -o of create, convert and amend: a list, perhaps NULL. */
struct options *img_parse_creation(const char *list, struct error **errp);
/* Adds -b and -F (or NULL) to what -o said, if the format has backing files. */
bool img_set_backing(struct options *opts, const char *format, const char *backing,
                     const char *backing_format, struct error **errp);
/* -o help. filename: or NULL. */
bool img_create_help(const char *format, const char *filename, struct error **errp);
/* with_file: also what is passed on to the file. */
void img_print_option_list(const struct block_create_option *options, bool with_file);

/* info.c: the table of `info` and `snapshot -l`. */
void img_print_snapshots(const struct block_snapshot *list, size_t count);

/* ---- for all commands (text.c) --------------------------------------------------------------- */

/* Before the command runs: what errors may advise. */
void img_begin(const struct img_command *command);
/* Options of an image to open; what is NULL or 0 is as usual. */
struct img_open {
    const char *filename, *format, *cache, *aio;
    bool image_opts, writable;
    unsigned flags; /* BLOCK_OPEN_* */
};
/* As block_image_open(), with "Could not open 'FILE': " before its errors. */
struct block_backend *img_open(const struct img_open *how, struct error **errp);
/* "WARNING: Image format was not specified…", if a raw image was guessed and can be written. */
void img_warn_of_probing(struct block_backend *be);
/* The operations of the image's format, never NULL. */
const struct block_image_ops *img_ops(struct block_node *node);
/* The image itself: below filters. */
struct block_node *img_format_node(struct block_backend *be);
/* The one that has internal snapshots: as in QEMU, raw shows those of its file. */
struct block_node *img_snapshot_node(struct block_backend *be);

/* There is no file of that name yet. */
bool img_is_new(const char *filename);
/* After a failure: nobody shall take what was made for the whole. A file that was new is removed, else
 * the error says that it is incomplete. */
void img_clean_up(const char *filename, bool was_new, struct error **errp);

/* --output: *json; false and an error if it is neither human nor json. */
bool img_parse_output(const struct img_common *common, bool *json, struct error **errp);
/* Prints with an indentation of 4, as QEMU's tools do, and a newline; takes the reference. */
void img_print_json(json_t *json);

/* One of the lists separated by ',' is "help" or "?". */
bool img_wants_help(const char *list);

#endif
