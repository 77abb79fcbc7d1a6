/* SPDX-License-Identifier: MIT */
/*
 * blkdebug: a filter for tests. Requests pass to the image child unless a rule says that they fail or
 * wait (blkdebug.h); limits can be made narrower than the child's; and what changes the child can
 * be written to a log (blkdebug_log.h).
 *
 * It counts as a protocol: a format goes on top of it, and may let it grow.
 */
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "aio/coroutine.h"
#include "base/alloc.h"
#include "base/range.h"
#include "block/blkdebug.h"
#include "block/blkdebug_log.h"
#include "block/bounce.h"
#include "block/iov.h"
#include "block/node.h"

#define LOG_MAX_TRANSFER (4 * MiB) /* bounds a copy for the log */

struct blkdebug_state {
    struct blkdebug_rules rules; /* the first: debug.c */
    /* constant; 0: as the child */
    uint64_t align, max_transfer;
    uint64_t opt_write_zero, max_write_zero, opt_discard, max_discard;
    struct blkdebug_log_file *log; /* or NULL */
    /* block/bounce.h */
    struct bounce_line copies; /* for the log */
};

/* ---- opening ---------------------------------------------------------------------------------- */

/* A limit is no more than `most` and a multiple of what else there is. */
static bool get_limit(struct options *opts, const char *key, uint64_t unit, uint64_t most,
                      uint64_t *value, struct error **errp)
{
    if (!options_get_size(opts, key, 1, value, errp)) {
        return false;
    }
    if (*value && (*value > most || *value % unit)) {
        error_set(errp,
                  "Cannot meet constraints with %s %llu: it must be a multiple of %llu and at most "
                  "%llu",
                  key, (unsigned long long)*value, (unsigned long long)unit,
                  (unsigned long long)most);
        return false;
    }
    return true;
}

static bool get_power_of_2(struct options *opts, const char *key, uint64_t least, uint64_t *value,
                           struct error **errp)
{
    if (!options_get_size(opts, key, 1, value, errp)) {
        return false;
    }
    if (*value && (!is_power_of_2(*value) || *value < least || *value > GiB)) {
        error_set(errp,
                  "Cannot meet constraints with %s %llu: it must be a power of 2 from %llu to %llu",
                  key, (unsigned long long)*value, (unsigned long long)least,
                  (unsigned long long)GiB);
        return false;
    }
    return true;
}

static bool get_limits(struct blkdebug_state *s, struct options *opts, struct error **errp)
{
    if (!get_power_of_2(opts, "align", 1, &s->align, errp)) {
        return false;
    }
    uint64_t align = MAX(s->align, 1);
    uint64_t most = align_down(INT_MAX, align), most_64 = align_down(INT64_MAX, GiB);
    return get_limit(opts, "max-transfer", align, most, &s->max_transfer, errp) &&
           get_power_of_2(opts, "opt-write-zero", align, &s->opt_write_zero, errp) &&
           get_limit(opts, "max-write-zero", MAX(s->opt_write_zero, align), most_64,
                     &s->max_write_zero, errp) &&
           get_power_of_2(opts, "opt-discard", align, &s->opt_discard, errp) &&
           get_limit(opts, "max-discard", MAX(s->opt_discard, align), most_64, &s->max_discard,
                     errp);
}

/* QEMU's way to try its permissions, which are others than ours. */
static bool refuse_permissions(struct options *opts, struct error **errp)
{
    static const char *const keys[] = {"take-child-perms", "unshare-child-perms"};

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        struct options *list = options_take_prefix(opts, keys[i]);
        bool given = options_count(list) || options_get(opts, keys[i]);
        options_free(list);
        if (given) {
            error_set(errp,
                      "blkdebug: %s is not supported: a node here claims to read or to write, and "
                      "has no other permissions; leave it out",
                      keys[i]);
            return false;
        }
    }
    return true;
}

static bool read_config(struct blkdebug_state *s, struct options *opts, struct error **errp)
{
    const char *filename = options_get(opts, "config");

    if (!filename || !*filename) {
        return true;
    }
    struct options *rules = options_new();
    bool ok = blkdebug_config_read(filename, rules, errp);
    if (ok && !blkdebug_rules_parse(&s->rules, rules, errp)) {
        error_prepend(errp, "%s: ", filename);
        ok = false;
    }
    options_free(rules);
    return ok;
}

static bool open_parts(struct block_node *node, struct options *opts, struct error **errp)
{
    struct blkdebug_state *s = node->state;
    const char *log = options_get(opts, "write-log");

    if (!refuse_permissions(opts, errp) || !read_config(s, opts, errp) ||
        !blkdebug_rules_parse(&s->rules, opts, errp) || !get_limits(s, opts, errp) ||
        !block_node_open_child(node, opts, "image", BLOCK_CHILD_FILTERED, errp)) {
        return false;
    }
    if (log) {
        s->log = blkdebug_log_create(log, block_length(node->file), errp);
    }
    return !log || s->log;
}

static bool blkdebug_open(struct block_node *node, struct options *opts, struct error **errp)
{
    struct blkdebug_state *s = node->state;

    blkdebug_rules_init(&s->rules);
    if (!open_parts(node, opts, errp)) {
        blkdebug_rules_destroy(&s->rules);
        return false;
    }
    bounce_line_init(&s->copies);
    free(node->filename);
    node->filename = xstrdup(node->file->filename);
    atomic_fetch_add(&block_debug_nodes, 1);
    blkdebug_event(&s->rules, BLOCK_EVENT_NONE);
    return true;
}

static void blkdebug_close(struct block_node *node)
{
    struct blkdebug_state *s = node->state;

    atomic_fetch_sub(&block_debug_nodes, 1);
    if (s->log) {
        blkdebug_log_close(s->log);
    }
    bounce_line_destroy(&s->copies);
    blkdebug_rules_destroy(&s->rules);
}

static void blkdebug_limits(struct block_node *node, struct block_limits *limits)
{
    const struct blkdebug_state *s = node->state;
    uint64_t most = s->log ? MAX(LOG_MAX_TRANSFER, s->align) : 0;

    limits->request_alignment = (uint32_t)MAX(s->align, 1);
    limits->max_transfer = (uint32_t)(most && s->max_transfer ? MIN(most, s->max_transfer)
                                                              : MAX(most, s->max_transfer));
    limits->write_zeroes_alignment = (uint32_t)s->opt_write_zero;
    limits->max_write_zeroes = s->max_write_zero;
    limits->discard_alignment = (uint32_t)s->opt_discard;
    limits->max_discard = s->max_discard;
}

static int64_t blkdebug_length(struct block_node *node)
{
    return (int64_t)block_length(node->file);
}

static bool blkdebug_allow_growth(struct block_node *node)
{
    return block_node_allow_growth(node->file);
}

/* ---- requests --------------------------------------------------------------------------------- */

/* What the rules say: 0, or the negative errno that the request fails with. */
static int co_check(struct blkdebug_state *s, enum blkdebug_iotype type, uint64_t offset,
                    uint64_t length)
{
    struct blkdebug_outcome outcome = blkdebug_check(&s->rules, type, offset, length);

    if (outcome.delay_ns) {
        co_sleep(AIO_CLOCK_RT, (int64_t)outcome.delay_ns);
    }
    if (outcome.error && !outcome.immediately) {
        co_wake(coroutine_self());
        coroutine_yield();
    }
    return outcome.error;
}

/* With align= the last block may reach over the child's end: how many bytes the child has. */
static uint64_t bytes_in_child(struct block_node *node, uint64_t offset, uint64_t length)
{
    uint64_t total = block_length(node->file);

    return offset >= total ? 0 : MIN(length, total - offset);
}

static int blkdebug_co_preadv(struct block_node *node, uint64_t offset, const struct block_iov *iov,
                              unsigned flags, uint64_t id)
{
    int ret = co_check(node->state, BLKDEBUG_READ, offset, iov->size);

    return ret < 0 ? ret : block_co_preadv_padded(node->file, offset, iov, flags, id);
}

/* A change of the child with its two records. data: of a write, in one piece. */
struct change {
    enum blkdebug_log_type type;
    uint64_t offset, length;
    unsigned flags;
    const struct block_iov *iov; /* of a write */
    uint64_t id;
    enum block_prealloc prealloc; /* of a truncation */
    struct error **errp;
};

static int co_pass(struct block_node *node, const struct change *c)
{
    switch (c->type) {
    case BLKDEBUG_LOG_WRITE:
        return block_co_pwritev(node->file, c->offset, c->iov, c->flags, c->id);
    case BLKDEBUG_LOG_ZEROES:
        return block_co_write_zeroes(node->file, c->offset, c->length, c->flags);
    case BLKDEBUG_LOG_DISCARD:
        return block_co_discard(node->file, c->offset, c->length);
    case BLKDEBUG_LOG_FLUSH:
        return block_co_flush(node->file, c->id);
    default:
        return block_co_truncate(node->file, c->length, c->prealloc, c->errp);
    }
}

static int co_pass_logged(struct block_node *node, struct change *c)
{
    struct blkdebug_state *s = node->state;
    struct iovec vec;
    struct block_iov copied;
    void *copy = NULL;
    uint64_t number;

    if (!s->log) {
        return co_pass(node, c);
    }
    if (c->type == BLKDEBUG_LOG_WRITE) {
        /* The guest may change its buffers meanwhile: the log and the child get the same. */
        copy = co_bounce_line_alloc(&s->copies, c->length);
        if (!copy) {
            return -ENOMEM;
        }
        block_iov_read(c->iov, 0, copy, c->length);
        copied = block_iov_of(&vec, copy, c->length);
        c->iov = &copied;
    }
    unsigned flags = c->flags & (BLOCK_REQ_FUA | BLOCK_REQ_MAY_UNMAP);
    int ret = blkdebug_log_begin(s->log, c->type, c->offset, c->length, flags, copy, &number);
    if (ret == 0) {
        ret = co_pass(node, c);
        int logged = blkdebug_log_done(s->log, number, ret);
        ret = ret < 0 ? ret : logged;
    }
    if (copy) {
        co_bounce_line_free(&s->copies, copy, c->length);
    }
    return ret;
}

static int blkdebug_co_pwritev(struct block_node *node, uint64_t offset,
                               const struct block_iov *iov, unsigned flags, uint64_t id)
{
    struct blkdebug_state *s = node->state;
    struct change c = {.type = BLKDEBUG_LOG_WRITE,
                       .offset = offset,
                       .length = iov->size,
                       .flags = flags,
                       .iov = iov,
                       .id = id};
    struct block_iov part;
    struct iovec *vec = NULL;

    blkdebug_event(&s->rules, BLOCK_EVENT_PWRITEV);
    int ret = co_check(s, BLKDEBUG_WRITE, offset, iov->size);
    if (ret < 0) {
        return ret;
    }
    if (!node->file->grows) {
        c.length = bytes_in_child(node, offset, iov->size);
    }
    if (c.length < iov->size) {
        vec = calloc((size_t)iov->niov, sizeof(*vec));
        if (!vec) {
            return -ENOMEM;
        }
        part = (struct block_iov){.iov = vec, .size = c.length};
        block_iov_slice(iov, 0, c.length, vec, iov->niov, &part.niov);
        c.iov = &part;
    }
    ret = co_pass_logged(node, &c);
    free(vec);
    blkdebug_event(&s->rules, BLOCK_EVENT_PWRITEV_DONE);
    return ret;
}

static int blkdebug_co_flush(struct block_node *node, uint64_t id)
{
    struct blkdebug_state *s = node->state;

    blkdebug_event(&s->rules, BLOCK_EVENT_FLUSH_TO_DISK);
    int ret = co_check(s, BLKDEBUG_FLUSH, 0, 0);
    return ret < 0 ? ret
                   : co_pass_logged(node, &(struct change){.type = BLKDEBUG_LOG_FLUSH, .id = id});
}

static int blkdebug_co_discard(struct block_node *node, uint64_t offset, uint64_t length)
{
    int ret = co_check(node->state, BLKDEBUG_DISCARD, offset, length);

    length = bytes_in_child(node, offset, length);
    return ret < 0 || !length ? ret
                              : co_pass_logged(node, &(struct change){.type = BLKDEBUG_LOG_DISCARD,
                                                                      .offset = offset,
                                                                      .length = length});
}

static int blkdebug_co_write_zeroes(struct block_node *node, uint64_t offset, uint64_t length,
                                    unsigned flags)
{
    struct blkdebug_state *s = node->state;

    blkdebug_event(&s->rules, BLOCK_EVENT_PWRITEV_ZERO);
    int ret = co_check(s, BLKDEBUG_WRITE_ZEROES, offset, length);
    if (ret < 0) {
        return ret;
    }
    if (!node->file->grows) {
        length = bytes_in_child(node, offset, length);
    }
    ret = co_pass_logged(
        node, &(struct change){
                  .type = BLKDEBUG_LOG_ZEROES, .offset = offset, .length = length, .flags = flags});
    blkdebug_event(&s->rules, BLOCK_EVENT_PWRITEV_DONE);
    return ret;
}

static int blkdebug_co_block_status(struct block_node *node, uint64_t offset, uint64_t *length,
                                    uint64_t *map)
{
    int ret = co_check(node->state, BLKDEBUG_BLOCK_STATUS, offset, *length);

    return ret < 0 ? ret : block_co_status(node->file, offset, length, map);
}

static int blkdebug_co_truncate(struct block_node *node, uint64_t length,
                                enum block_prealloc prealloc, struct error **errp)
{
    return co_pass_logged(node, &(struct change){.type = BLKDEBUG_LOG_TRUNCATE,
                                                 .length = length,
                                                 .prealloc = prealloc,
                                                 .errp = errp});
}

/* Of its options, only the configuration file has a place in the name. */
static char *blkdebug_plain_name(const struct block_node *node, bool has_options)
{
    const json_t *config = json_object_get(node->strong, "config");
    const char *name = config ? json_string_value(config) : "";

    if (!node->file->has_plain_name || !name || strchr(name, ':') ||
        json_object_size(node->strong) > !!config) {
        return NULL;
    }
    return xasprintf("blkdebug:%s:%s", name, node->file->filename);
}

static const struct node_option options[] = {
    {"image", NODE_OPTION_CHILD},
    {"config", NODE_OPTION_STRING, true},
    {"inject-error.*.event", NODE_OPTION_STRING, true},
    {"inject-error.*.state", NODE_OPTION_INTEGER, true},
    {"inject-error.*.iotype", NODE_OPTION_STRING, true},
    {"inject-error.*.errno", NODE_OPTION_INTEGER, true},
    {"inject-error.*.sector", NODE_OPTION_INTEGER, true},
    {"inject-error.*.delay", NODE_OPTION_INTEGER, true},
    {"inject-error.*.once", NODE_OPTION_BOOL, true},
    {"inject-error.*.immediately", NODE_OPTION_BOOL, true},
    {"set-state.*.event", NODE_OPTION_STRING, true},
    {"set-state.*.state", NODE_OPTION_INTEGER, true},
    {"set-state.*.new_state", NODE_OPTION_INTEGER, true},
    {"align", NODE_OPTION_SIZE, true},
    {"max-transfer", NODE_OPTION_SIZE, true},
    {"opt-write-zero", NODE_OPTION_SIZE, true},
    {"max-write-zero", NODE_OPTION_SIZE, true},
    {"opt-discard", NODE_OPTION_SIZE, true},
    {"max-discard", NODE_OPTION_SIZE, true},
    {"write-log", NODE_OPTION_STRING},
    {"take-child-perms", NODE_OPTION_STRING},
    {"take-child-perms.*", NODE_OPTION_STRING},
    {"unshare-child-perms", NODE_OPTION_STRING},
    {"unshare-child-perms.*", NODE_OPTION_STRING},
    {NULL},
};

const struct block_driver block_driver_blkdebug = {
    .name = "blkdebug",
    .help = "requests that fail when they are told to, for tests; image=, config=, "
            "inject-error.N.event=, set-state.N.event=, align=, write-log=",
    .is_protocol = true,
    .is_filter = true,
    .state_size = sizeof(struct blkdebug_state),
    .options = options,
    .plain_name = blkdebug_plain_name,
    .supported_flags = BLOCK_REQ_FUA,
    .open = blkdebug_open,
    .close = blkdebug_close,
    .limits = blkdebug_limits,
    .length = blkdebug_length,
    .allow_growth = blkdebug_allow_growth,
    .co_preadv = blkdebug_co_preadv,
    .co_pwritev = blkdebug_co_pwritev,
    .co_flush = blkdebug_co_flush,
    .co_discard = blkdebug_co_discard,
    .co_write_zeroes = blkdebug_co_write_zeroes,
    .co_block_status = blkdebug_co_block_status,
    .co_truncate = blkdebug_co_truncate,
};
