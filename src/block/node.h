/* SPDX-License-Identifier: MIT */
/*
 * The node graph: opening, naming, references, users.
 *
 *   backend "disk0"   backend "disk1"        <- requests enter here, through a gate
 *        |                 |
 *      link              link                <- struct block_link: who uses whom, and how
 *        v                 v
 *   node "#block1" (raw)  node "n" (null-co)
 *        | file
 *        v
 *   node "#block0" (file)
 *
 * Nodes are made on the main loop by -blockdev, -drive or blockdev-add, named by node-name, and
 * counted by references (a link from above, the monitor). The graph changes only on the main
 * loop, after a drain.
 */
#ifndef FERRY_BLOCK_NODE_H
#define FERRY_BLOCK_NODE_H

#include <stdatomic.h>

#include "aio/coroutine.h"
#include "block/driver.h"
#include "block/track.h"

#define BLOCK_OPEN_RDWR     1u
#define BLOCK_OPEN_NOCACHE  2u /* O_DIRECT: cache.direct=on */
#define BLOCK_OPEN_NO_FLUSH 4u /* flushes are dropped: cache.no-flush=on */
#define BLOCK_OPEN_UNMAP    8u /* discards pass: discard=unmap */
/* auto-read-only=on: a file is written only while somebody writes to it; a server that does not let us
 * write makes the node read-only. */
#define BLOCK_OPEN_AUTO_READ_ONLY 16u
#define BLOCK_OPEN_PROBED         32u  /* raw was guessed; not for children */
#define BLOCK_OPEN_FORCE_SHARE    64u  /* read-only, whatever others do meanwhile: force-share=on */
#define BLOCK_OPEN_NO_BACKING     128u /* the backing file is not opened; not for children */
/* To be checked or repaired: opens what it can, does not repair by itself; not for children. */
#define BLOCK_OPEN_CHECK 256u
/* Writes of zeroes become write-zeroes, which may deallocate: detect-zeroes=on, =unmap; not for
 * children. */
#define BLOCK_OPEN_DETECT_ZEROES 512u
#define BLOCK_OPEN_DETECT_UNMAP  1024u
/* Nobody will ask for the guest's data: a data file is not opened, so that looking at an image touches no
 * file that the image names. Read-only; not for children. */
#define BLOCK_OPEN_NO_IO 2048u
#define BLOCK_OPEN_NOT_INHERITED                                                                   \
    (BLOCK_OPEN_PROBED | BLOCK_OPEN_NO_BACKING | BLOCK_OPEN_CHECK | BLOCK_OPEN_DETECT_ZEROES |     \
     BLOCK_OPEN_DETECT_UNMAP | BLOCK_OPEN_NO_IO)

/* What a backend does with a node. Who reads or writes it wants no other to write, unless it says that
 * it shares that. What a node does with its children follows from that (link.c). */
enum block_claim {
    BLOCK_CLAIM_NONE,
    BLOCK_CLAIM_OPEN, /* it is kept open, to be read or written by a device that may come */
    BLOCK_CLAIM_READ,
    BLOCK_CLAIM_WRITE
};

/* What a child is to its parent node. */
enum block_child {
    BLOCK_CHILD_FILTERED, /* all that the parent shows is the child's; flags as the parent's */
    BLOCK_CHILD_FILE,     /* an image format's file; grows if it can */
    BLOCK_CHILD_DATA,     /* a format's second file, for data alone; grows if it can */
    BLOCK_CHILD_BACKING   /* shows through where the parent has nothing; read-only by default */
};

/* A use of a node by what is above it. Main loop. */
struct block_link {
    struct block_node *node;       /* what is used */
    struct block_node *parent;     /* who uses it: a node … */
    struct block_gate *gate;       /* … or the gate of a backend */
    const char *key;               /* with a parent: the option that it is given by, "file" */
    enum block_child role;         /* with a parent */
    const char *user;              /* its name, for messages; lives as long as the link */
    enum block_claim claim;        /* of a backend */
    bool shares_write;             /* of a backend: others may write meanwhile */
    struct block_perms perms;      /* what has been got for it */
    struct block_link *next_user;  /* other users of `node` */
    struct block_link *next_child; /* other children of `parent` */
};

struct block_bitmap;

struct block_node {
    /* constant while it is open */
    const struct block_driver *driver;
    char *name;     /* node-name; generated names begin with '#' */
    char *filename; /* what messages call it (block/name.h) */
    unsigned flags;
    bool stays_read_only;    /* read-only=on was given: reopening its parent does not change that */
    struct json_t *strong;   /* options that make it what it is */
    struct block_node *file; /* child of a format node or a filter, or NULL */
    struct block_node *backing;
    bool grows; /* writes behind the end make it longer (set before requests come) */
    struct block_limits limits;
    uint64_t request_mask; /* request_alignment - 1 */
    bool tracks_writes;    /* request_alignment is more than 1 */
    void *state;           /* driver->state_size bytes */
    /* main loop */
    unsigned refs;
    bool monitor_owned;
    struct block_perms perms; /* of all users together */
    bool starts_writing;      /* being reopened: it is about to get BLOCK_OPEN_RDWR */
    bool has_plain_name;
    bool is_implicit;            /* a filter that nobody named: it is called like what it filters */
    struct json_t *full_options; /* the strong ones with those of the children */
    char *named_backing; /* the backing file that the image names, and by its name as a node once it
                                  * is opened by that alone; or NULL */
    unsigned drained;    /* nested drains of it and what is below it */
    struct block_link *users, *children;
    struct block_node *next;
    /* atomic */
    _Atomic(uint64_t) length; /* bytes */
    _Atomic(bool) unflushed;  /* written since the last flush began */
    /* under flush_lock, a coroutine lock: one flush at a time */
    struct co_mutex flush_lock;
    /* block/track.h */
    struct block_tracker tracker;
    /* block/bitmap.h: the first; changes on the main loop with no request in flight */
    _Atomic(struct block_bitmap *) bitmaps;
};

/* Opens from options as -blockdev has them (driver=, node-name=, read-only=, auto-read-only=,
 * cache.direct=, cache.no-flush=, discard=, detect-zeroes=, and the driver's own). flags are the
 * defaults. The caller gets a reference. Unknown options are an error. Main loop, which must be
 * bound to the thread. */
struct block_node *block_node_open(struct options *opts, unsigned flags, struct error **errp);
/* Reads the options that every node has into *flags, which holds the defaults; leaves them in. */
bool block_node_parse_flags(struct options *opts, unsigned *flags, struct error **errp);
/* A driver opens its child KEY ("file", a constant): nested options "file.driver=…" or a reference
 * "file=NAME". It becomes node->backing if its role is that, else, unless it is a format's data
 * file, node->file; node.c lets go of it at close. Returns the child, whose reference the link
 * has. */
struct block_node *block_node_open_child(struct block_node *parent, struct options *opts,
                                         const char *key, enum block_child role,
                                         struct error **errp);
/* A write to the last block of a node goes back as a whole and would make it longer: an error if its
 * length is no multiple of what writes need. For those who show the node's bytes as they are. */
bool block_node_check_length(struct block_node *node, struct error **errp);
/* Puts another child (or, with NULL, none) into the place of parent->backing. Drained, main loop. */
bool block_node_set_backing(struct block_node *parent, struct block_node *backing,
                            struct error **errp);
/* The node that a filter filters, down to one that is none. */
struct block_node *block_node_skip_filters(struct block_node *node);
/* The same for filters that nobody asked for as such: the node that users know. Main loop, or where
 * requests are made. */
struct block_node *block_node_skip_implicit(struct block_node *node);
/* Writes behind the end shall make it longer; false if it cannot be. Main loop, no requests. */
bool block_node_allow_growth(struct block_node *node);
/* Changes the flags BLOCK_OPEN_RDWR, _NOCACHE, _NO_FLUSH, _UNMAP, _DETECT_ZEROES and _DETECT_UNMAP
 * of the node, and those that change and are inherited also of what is below it without backing
 * files; if that fails they are what they were, or, when it could not go on writing, read-only.
 * Drained, main loop. */
bool block_node_reopen(struct block_node *node, unsigned flags, struct error **errp);
struct block_node *block_node_find(const char *name);
struct block_node *block_node_first(void);
void block_node_ref(struct block_node *node);
void block_node_unref(struct block_node *node);

/* Adds a user (link->node, parent or gate, key, role and user are set) and a reference; an error if it
 * or another user writes and the other does not share that. A backend's first claim is NONE.
 *
 * What it comes to for the nodes below is got for all of them, or for none: in this process by their links,
 * from others by the locks of the files. What somebody has is given up only once all is got. */
bool block_link_add(struct block_link *link, struct error **errp);
/* For a backend, as above. */
bool block_link_set_claim(struct block_link *link, enum block_claim claim, bool shares_write,
                          struct error **errp);
void block_link_remove(struct block_link *link);

/* Closes the gates of all backends above the node, and waits (polling the loop of this thread)
 * until no request is below them; new ones wait until the end. Main loop, not in a coroutine,
 * without the machine lock. */
void block_node_drain_begin(struct block_node *node);
void block_node_drain_end(struct block_node *node);

/* Requests to a node, any alignment; in a coroutine. For backends (within their gate) and for
 * drivers (to their children). id: of the request, for tracing, or 0. */
int block_co_preadv(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                    unsigned flags, uint64_t id);
/* The same where the node may end within the range, or before it: what is behind its end is zeroes. */
int block_co_preadv_padded(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                           unsigned flags, uint64_t id);
int block_co_pwritev(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                     unsigned flags, uint64_t id);
int block_co_flush(struct block_node *node, uint64_t id);
int block_co_discard(struct block_node *node, uint64_t offset, uint64_t length);
int block_co_write_zeroes(struct block_node *node, uint64_t offset, uint64_t length,
                          unsigned flags);
int block_co_status(struct block_node *node, uint64_t offset, uint64_t *length, uint64_t *map);
/* Whether the node has the beginning of [offset, offset + *length) itself, cut to what is alike: 1, 0 or
 * negative errno. No file is asked for its holes. */
int block_co_is_allocated(struct block_node *node, uint64_t offset, uint64_t *length);
/* The status as seen from `top`, looking through backing files down to but without `base` (NULL:
 * all of them), with BLOCK_STATUS_ALLOCATED if a node above base has it. What lies behind the end
 * of a shorter backing file, base too, is ZERO. Neither ZERO nor DATA: base has it. DATA but not
 * ALLOCATED: a backing file that is not in the chain, as raw may have a file with one. *owner and *depth (either may be NULL) become the node that
 * has it and its place in the chain. */
int block_co_status_above(struct block_node *top, struct block_node *base, uint64_t offset,
                          uint64_t *length, uint64_t *map, struct block_node **owner,
                          unsigned *depth);
/* Whether all of [offset, end) is zeroes as far as the status tells: 1, 0 or negative errno. */
int block_co_reads_as_zeroes(struct block_node *node, uint64_t offset, uint64_t end);
/* Lets the host copy from one image to another, without our reading and writing: 0, -ENOTSUP if it
 * cannot (a part may have been copied), or negative errno. The caller sees to it that nobody else
 * writes to the range of `to`. */
int block_co_copy_range(struct block_node *from, uint64_t from_offset, struct block_node *to,
                        uint64_t to_offset, uint64_t length);
/* Changes the length; *errp says why it failed. 0 or negative errno. Main loop's coroutines, and no
 * other request in flight at the node. */
int block_co_truncate(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
                      struct error **errp);

/* Bytes on the host, with children, without backing files; negative errno if that is not known. Main
 * loop. */
int64_t block_allocated(struct block_node *node);
/* Bytes. Any thread. */
static inline uint64_t block_length(struct block_node *node)
{
    return atomic_load_explicit(&node->length, memory_order_relaxed);
}

/* Runs fn(opaque) in a coroutine of this thread's loop and polls the loop until it has returned;
 * its result. Main loop, not in a coroutine. */
int block_run(int (*fn)(void *opaque), void *opaque);

/* Frees all nodes that the monitor owns (process end). */
void block_nodes_close(void);

#endif
