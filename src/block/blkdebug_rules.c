/* SPDX-License-Identifier: MIT */
/* What a blkdebug node does at events and to requests. See blkdebug.h. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "aio/coroutine.h"
#include "base/alloc.h"
#include "base/range.h"
#include "block/blkdebug.h"

#define SECTOR       512
#define MAX_ERRNO    4095
#define MAX_DELAY_NS (60 * NS_PER_SEC)
#define ANY_SECTOR   UINT64_MAX
/* What inject-error is about if it does not say: all but block status, as QEMU. */
#define DEFAULT_TYPES                                                                              \
    (1u << BLKDEBUG_READ | 1u << BLKDEBUG_WRITE | 1u << BLKDEBUG_WRITE_ZEROES |                    \
     1u << BLKDEBUG_DISCARD | 1u << BLKDEBUG_FLUSH)

enum action { ACTION_INJECT, ACTION_SET_STATE, ACTION_BREAK };

struct blkdebug_rule {
    /* constant */
    enum action action;
    enum block_event event;
    unsigned state; /* 0: any */
    /* ACTION_INJECT */
    unsigned types; /* 1u << enum blkdebug_iotype */
    int error;      /* positive errno, or 0 */
    uint64_t sector, delay_ns;
    bool once, immediately;
    unsigned new_state; /* ACTION_SET_STATE */
    char *tag;          /* ACTION_BREAK */
    /* under the rules' lock */
    bool active;
    struct blkdebug_rule *next;
};

struct blkdebug_held {
    char *tag;
    struct coroutine *co;
    struct blkdebug_held *next;
};

static void (*_Atomic report_line)(const char *line);

void blkdebug_set_report(void (*report)(const char *line))
{
    atomic_store(&report_line, report);
}

static void report(const char *what, const char *tag)
{
    void (*say)(const char *) = atomic_load(&report_line);

    if (say) {
        autofree char *line = xasprintf("blkdebug: %s request '%s'", what, tag);
        say(line);
    }
}

static void rule_free(struct blkdebug_rule *rule)
{
    free(rule->tag);
    free(rule);
}

static void remove_locked(struct blkdebug_rules *rules, struct blkdebug_rule **p)
{
    struct blkdebug_rule *rule = *p;

    *p = rule->next;
    if (rules->last == &rule->next) {
        rules->last = p;
    }
    rule_free(rule);
}

static void add(struct blkdebug_rules *rules, struct blkdebug_rule *rule)
{
    pthread_mutex_lock(&rules->lock);
    *rules->last = rule;
    rules->last = &rule->next;
    pthread_mutex_unlock(&rules->lock);
}

void blkdebug_rules_init(struct blkdebug_rules *rules)
{
    pthread_mutex_init(&rules->lock, NULL);
    rules->state = 1;
    rules->last = &rules->first;
}

void blkdebug_rules_destroy(struct blkdebug_rules *rules)
{
    while (rules->first) {
        remove_locked(rules, &rules->first);
    }
    pthread_mutex_destroy(&rules->lock);
}

/* ---- options ---------------------------------------------------------------------------------- */

static bool get_state(struct options *opts, const char *key, unsigned *state, struct error **errp)
{
    uint64_t value = *state;

    if (!options_get_uint(opts, key, 0, INT_MAX, &value, errp)) {
        return false;
    }
    *state = (unsigned)value;
    return true;
}

static bool get_event(struct options *opts, struct blkdebug_rule *rule, struct error **errp)
{
    int event = 0;

    if (!options_has(opts, "event")) {
        autofree char *key = options_full_key(opts, "event");
        error_set(errp, "Missing event name for rule; give %s=", key);
        return false;
    }
    if (!options_get_enum(opts, "event", block_debug_event_names, &event, errp)) {
        return false;
    }
    rule->event = event;
    return get_state(opts, "state", &rule->state, errp);
}

static bool get_inject(struct options *opts, struct blkdebug_rule *rule, struct error **errp)
{
    static const char *const type_names[] = {
        "read", "write", "write-zeroes", "discard", "flush", "block-status", NULL};
    uint64_t error = EIO, sector = 0;
    int type = -1;

    if (!options_get_enum(opts, "iotype", type_names, &type, errp) ||
        !options_get_uint(opts, "errno", 0, MAX_ERRNO, &error, errp) ||
        !options_get_uint(opts, "sector", 0, INT64_MAX / SECTOR, &sector, errp) ||
        !options_get_uint(opts, "delay", 0, MAX_DELAY_NS, &rule->delay_ns, errp) ||
        !options_get_bool(opts, "once", &rule->once, errp) ||
        !options_get_bool(opts, "immediately", &rule->immediately, errp)) {
        return false;
    }
    rule->types = type < 0 ? DEFAULT_TYPES : 1u << type;
    rule->error = (int)error;
    rule->sector = options_has(opts, "sector") ? sector : ANY_SECTOR;
    return true;
}

static bool parse_rule(struct blkdebug_rules *rules, enum action action, struct options *opts,
                       const char *name, struct error **errp)
{
    struct blkdebug_rule *rule = xnew(struct blkdebug_rule);

    rule->action = action;
    bool ok = get_event(opts, rule, errp) &&
              (action == ACTION_INJECT ? get_inject(opts, rule, errp)
                                       : get_state(opts, "new_state", &rule->new_state, errp)) &&
              options_check_used(opts, name, errp);
    if (!ok) {
        rule_free(rule);
        return false;
    }
    add(rules, rule);
    return true;
}

/* "KEY.0.…", "KEY.1.…", as far as the numbers go. */
static bool parse_list(struct blkdebug_rules *rules, enum action action, struct options *opts,
                       const char *key, struct error **errp)
{
    struct options *list = options_take_prefix(opts, key);
    bool ok = true;

    for (unsigned i = 0; ok && options_count(list); i++) {
        autofree char *index = xasprintf("%u", i);
        autofree char *name = xasprintf("%s.%u", key, i);
        struct options *one = options_take_prefix(list, index);

        if (options_count(one)) {
            ok = parse_rule(rules, action, one, name, errp);
        } else {
            error_set(errp,
                      "'%s.%s' does not belong to a list; the first is '%s.0.event', and no "
                      "number is left out",
                      key, options_key(list, 0), key);
            ok = false;
        }
        options_free(one);
    }
    options_free(list);
    return ok;
}

bool blkdebug_rules_parse(struct blkdebug_rules *rules, struct options *opts, struct error **errp)
{
    return parse_list(rules, ACTION_INJECT, opts, "inject-error", errp) &&
           parse_list(rules, ACTION_SET_STATE, opts, "set-state", errp);
}

/* ---- events ----------------------------------------------------------------------------------- */

static void deactivate_locked(struct blkdebug_rules *rules)
{
    for (struct blkdebug_rule *rule = rules->first; rule; rule = rule->next) {
        rule->active = false;
    }
}

/* A breakpoint that hits is used up: its tag goes to the coroutine that is held. */
static void hold_locked(struct blkdebug_rules *rules, struct blkdebug_rule **p)
{
    struct blkdebug_held *held = xnew(struct blkdebug_held);

    held->tag = (*p)->tag;
    (*p)->tag = NULL;
    held->co = coroutine_self();
    held->next = rules->held;
    rules->held = held;
    remove_locked(rules, p);
    report("Suspended", held->tag);
    if (rules->watcher) {
        aio_loop_wake(rules->watcher);
    }
}

void blkdebug_event(struct blkdebug_rules *rules, enum block_event event)
{
    bool may_hold = coroutine_self(), injects = false, held = false;

    pthread_mutex_lock(&rules->lock);
    unsigned state = rules->state;
    for (struct blkdebug_rule **p = &rules->first; *p;) {
        struct blkdebug_rule *rule = *p;

        if (rule->event == event && (!rule->state || rule->state == state)) {
            if (rule->action == ACTION_SET_STATE) {
                rules->state = rule->new_state;
            } else if (rule->action == ACTION_INJECT) {
                if (!injects) {
                    deactivate_locked(rules);
                    injects = true;
                }
                rule->active = true;
            } else if (may_hold && !held) {
                hold_locked(rules, p);
                held = true;
                continue;
            }
        }
        p = &rule->next;
    }
    pthread_mutex_unlock(&rules->lock);
    if (held) {
        coroutine_yield();
    }
}

/* ---- requests --------------------------------------------------------------------------------- */

static bool matches(const struct blkdebug_rule *rule, enum blkdebug_iotype type, uint64_t offset,
                    uint64_t length)
{
    return rule->active && rule->types & 1u << type &&
           (rule->sector == ANY_SECTOR ||
            range_overlaps(offset, length, rule->sector * SECTOR, SECTOR));
}

struct blkdebug_outcome blkdebug_check(struct blkdebug_rules *rules, enum blkdebug_iotype type,
                                       uint64_t offset, uint64_t length)
{
    struct blkdebug_outcome outcome = {0};

    pthread_mutex_lock(&rules->lock);
    for (struct blkdebug_rule **p = &rules->first; *p && !outcome.error;) {
        struct blkdebug_rule *rule = *p;

        if (!matches(rule, type, offset, length)) {
            p = &rule->next;
            continue;
        }
        outcome.error = -rule->error;
        outcome.immediately = rule->immediately;
        outcome.delay_ns += rule->delay_ns;
        if (rule->once) {
            remove_locked(rules, p);
        } else {
            p = &rule->next;
        }
    }
    pthread_mutex_unlock(&rules->lock);
    return outcome;
}

/* ---- breakpoints ------------------------------------------------------------------------------ */

void blkdebug_break(struct blkdebug_rules *rules, enum block_event event, const char *tag)
{
    struct blkdebug_rule *rule = xnew(struct blkdebug_rule);

    rule->action = ACTION_BREAK;
    rule->event = event;
    rule->tag = xstrdup(tag);
    add(rules, rule);
}

bool blkdebug_remove_break(struct blkdebug_rules *rules, const char *tag)
{
    bool removed = false;

    pthread_mutex_lock(&rules->lock);
    for (struct blkdebug_rule **p = &rules->first; *p;) {
        if ((*p)->action == ACTION_BREAK && !strcmp((*p)->tag, tag)) {
            remove_locked(rules, p);
            removed = true;
        } else {
            p = &(*p)->next;
        }
    }
    pthread_mutex_unlock(&rules->lock);
    return removed;
}

bool blkdebug_resume(struct blkdebug_rules *rules, const char *tag)
{
    struct blkdebug_held **p = &rules->held;

    pthread_mutex_lock(&rules->lock);
    while (*p && strcmp((*p)->tag, tag)) {
        p = &(*p)->next;
    }
    struct blkdebug_held *held = *p;
    if (held) {
        *p = held->next;
    }
    pthread_mutex_unlock(&rules->lock);
    if (!held) {
        return false;
    }
    report("Resuming", tag);
    co_wake(held->co);
    free(held->tag);
    free(held);
    return true;
}

bool blkdebug_is_suspended(struct blkdebug_rules *rules, const char *tag)
{
    pthread_mutex_lock(&rules->lock);
    const struct blkdebug_held *held = rules->held;
    while (held && strcmp(held->tag, tag)) {
        held = held->next;
    }
    pthread_mutex_unlock(&rules->lock);
    return held;
}

void blkdebug_watch(struct blkdebug_rules *rules, struct aio_loop *loop)
{
    pthread_mutex_lock(&rules->lock);
    rules->watcher = loop;
    pthread_mutex_unlock(&rules->lock);
}
