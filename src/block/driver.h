/* SPDX-License-Identifier: MIT */
/*
 * Block drivers: format drivers (raw, qcow2), filters (throttle, copy-on-read, blkdebug), and
 * protocol drivers (file, host_device, null-co, nbd) at the bottom of the node graph.
 *
 *   backend --> node "format" (raw) --file--> node "protocol" (file) --> aio --> host file
 *
 * A request runs in a coroutine of the loop that submitted it, several loops at once; a driver
 * guards its own metadata by coroutine locks. co_* functions get requests that are aligned to the
 * node's request_alignment and lie within its length rounded up to that (block/io.c checks,
 * bounces and pads). They return 0 or negative errno and transfer all or fail.
 */
#ifndef FERRY_BLOCK_DRIVER_H
#define FERRY_BLOCK_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"

struct block_node;
struct block_image_ops;
struct options;

/* Request flags. */
#define BLOCK_REQ_FUA         1u /* on stable storage when it returns */
#define BLOCK_REQ_MAY_UNMAP   2u /* write-zeroes may deallocate */
#define BLOCK_REQ_NO_FALLBACK 4u /* write-zeroes: -ENOTSUP rather than writing buffers */
/* With NO_FALLBACK: parts of blocks that read as zeroes already are left as they are. */
#define BLOCK_REQ_ZERO_PARTS 16u
/* Write: store it compressed. Whole clusters, or up to the end; only to drivers that have it among
 * their supported_flags, else -ENOTSUP. */
#define BLOCK_REQ_COMPRESSED 8u

/* What is done with a node: bits that are the numbers of QEMU's lock bytes (file_lock.c). */
#define BLOCK_PERM_READ            1u
#define BLOCK_PERM_WRITE           2u
#define BLOCK_PERM_WRITE_UNCHANGED 4u /* what it reads as stays the same; nobody does that here */
#define BLOCK_PERM_RESIZE          8u
#define BLOCK_PERM_COUNT           4

/* What one who uses a node does with it, and what others shall not do meanwhile. Of a node: all that its
 * users do, or deny. */
struct block_perms {
    unsigned used, denied; /* BLOCK_PERM_… */
};

/* A list of buffers. Owned by the caller for the time of the request. */
struct block_iov {
    const struct iovec *iov;
    int niov;
    uint64_t size; /* sum of the lengths, bytes */
};

/* co_block_status */
#define BLOCK_STATUS_DATA         1u
#define BLOCK_STATUS_ZERO         2u
#define BLOCK_STATUS_OFFSET_VALID 4u
#define BLOCK_STATUS_ALLOCATED    8u /* in this node, not in its backing */
#define BLOCK_STATUS_EOF          16u
#define BLOCK_STATUS_COMPRESSED   32u /* with DATA: no offset then */

/* What is allocated at once for new length: nothing; all metadata; metadata and host blocks by
 * fallocate(2); the same, by writing zeroes. */
enum block_prealloc {
    BLOCK_PREALLOC_OFF,
    BLOCK_PREALLOC_METADATA,
    BLOCK_PREALLOC_FALLOC,
    BLOCK_PREALLOC_FULL
};
extern const char *const block_prealloc_names[]; /* as users write them, NULL-terminated */

struct block_limits {
    uint32_t request_alignment; /* bytes, power of 2, at least 1 */
    uint32_t memory_alignment;  /* of buffers, bytes, power of 2 */
    uint32_t max_transfer;      /* bytes, a multiple of request_alignment */
    uint32_t max_iov;
    uint32_t discard_alignment;             /* bytes, power of 2 */
    uint32_t write_zeroes_alignment;        /* bytes, power of 2 */
    uint64_t max_discard, max_write_zeroes; /* bytes, multiples of the alignments */
};

enum node_option_type {
    NODE_OPTION_STRING,
    NODE_OPTION_BOOL,
    NODE_OPTION_INTEGER,
    NODE_OPTION_SIZE,
    NODE_OPTION_CHILD,         /* a node's name; what is below "NAME." is for the child */
    NODE_OPTION_OPTIONAL_CHILD /* the same; null and "" say that there is none */
};

/* An option that a node of the driver may have. */
struct node_option {
    const char *name; /* a '*' stands for anything between dots: "set-state.*.event" */
    enum node_option_type type;
    bool is_strong; /* it changes what is read, or from where */
};

struct block_driver {
    const char *name; /* "raw", "file" */
    bool is_protocol;
    bool is_filter;
    /* It writes what nobody above asked for, or remembers what it read, as formats do with metadata: from
     * opening on it writes to its files if it may, and nobody else does. */
    bool keeps_metadata;
    size_t state_size;
    const char *help;
    /* Its own options, up to one without a name; others are refused before it is opened. NULL: only
     * the driver knows them. */
    const struct node_option *options;
    /* BLOCK_REQ_FUA if co_pwritev and co_write_zeroes do that themselves; else a flush follows.
     * BLOCK_REQ_COMPRESSED if there are compressed clusters. */
    unsigned supported_flags;
    /* What image tools do with an image of this format (block/image.h), or NULL. */
    const struct block_image_ops *image;

    /* opts: the node's own options, without driver, node-name, cache.*, read-only; children are
     * opened by the driver through block_node_open_child(). May take BLOCK_OPEN_RDWR out of
     * node->flags if auto-read-only is on and writing can never be. Main loop, not in a coroutine; close
     * comes only after a successful open. */
    bool (*open)(struct block_node *node, struct options *opts, struct error **errp);
    void (*close)(struct block_node *node);
    /* The process is to end, and nobody uses the node yet: requests that wait for others (a server) end
     * with an error, also later ones. Or NULL. Main loop. */
    void (*interrupt)(struct block_node *node);
    /* Changes limits from what they are by default: none. Follows open. */
    void (*limits)(struct block_node *node, struct block_limits *limits);
    /* Drivers that file names can ask for: the name that opens the same as the node, or NULL. Not given:
     * of a format, its file's; of a filter, none. has_options: there are strong ones beside filename=.
     * Main loop. The caller frees it. */
    char *(*plain_name)(const struct block_node *node, bool has_options);
    /* Present length in bytes or negative errno. May block shortly. */
    int64_t (*length)(struct block_node *node);

    /* Bytes that it takes on the host, or negative errno; NULL: what its children take, without
     * backing files. May block shortly. */
    int64_t (*allocated)(struct block_node *node);

    int (*co_preadv)(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                     unsigned flags, uint64_t id);
    int (*co_pwritev)(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                      unsigned flags, uint64_t id);
    /* The rest may be NULL. co_flush NULL: the file child is flushed. co_discard and
     * co_write_zeroes may answer -ENOTSUP. */
    int (*co_flush)(struct block_node *node, uint64_t id);
    int (*co_discard)(struct block_node *node, uint64_t offset, uint64_t length);
    int (*co_write_zeroes)(struct block_node *node, uint64_t offset, uint64_t length,
                           unsigned flags);
    /* Status flags (>= 0) of [offset, offset + *length), *length cut to what shares it. NULL: all
     * is data; a filter: as its child. */
    int (*co_block_status)(struct block_node *node, uint64_t offset, uint64_t *length,
                           uint64_t *map);
    /* 1 or 0, or negative errno: BLOCK_STATUS_ALLOCATED alone, at less cost; NULL: by the status. */
    int (*co_is_allocated)(struct block_node *node, uint64_t offset, uint64_t *length);
    /* Changes the length (of a format: of what the guest sees). What comes new reads as zeroes. No
     * request is in flight. 0 or negative errno, with *errp set. */
    int (*co_truncate)(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
                       struct error **errp);
    /* A format above keeps its metadata here and wants writes behind the end to make the node
     * longer. False or NULL if that cannot be: then they fail with -ENOSPC. Filters ask their
     * child. Main loop. */
    bool (*allow_growth)(struct block_node *node);
    /* Protocols: makes an empty file of filename=, size=, preallocation=, nocow=; what was there is
     * gone. Main loop. */
    bool (*create)(struct options *opts, struct error **errp);
    /* Users come, go, or change what they do: node->perms, which is still the old one, becomes *perms.
     * Fails only where something is added, and then nothing has changed. For drivers at the bottom.
     * Main loop; requests that the old perms allow may be in flight. */
    bool (*set_perms)(struct block_node *node, const struct block_perms *perms,
                      struct error **errp);
    /* Other flags (BLOCK_OPEN_RDWR, _NOCACHE, _NO_FLUSH, _UNMAP, _DETECT_*) for a node that is open;
     * its children have theirs already, or get them next if it stops writing: should one of them
     * refuse, it is called to go on writing. On failure nothing has changed. NULL: only those that
     * the driver never looks at. No request is in flight. Main loop. */
    bool (*reopen)(struct block_node *node, unsigned flags, struct error **errp);
    /* Stops and restarts what the driver does by itself; requests that it holds back go on. Those of
     * backends that are not drained come and go meanwhile. After drain_end, which may poll, a loop
     * without requests to the node may end. Calls nest. Main loop. */
    void (*drain_begin)(struct block_node *node);
    void (*drain_end)(struct block_node *node);
};

extern const struct block_driver *const block_drivers[]; /* NULL-terminated */
const struct block_driver *block_driver_find(const char *name);
/* "raw, file, …": for messages; the caller frees it. */
char *block_driver_names(void);
/* Tests: one driver more, until NULL is given. */
void block_driver_set_test(const struct block_driver *driver);

#endif
