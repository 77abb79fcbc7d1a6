/* SPDX-License-Identifier: MIT */
/* The registry of character devices, their options, and their lives. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/id.h"
#include "base/range.h"
#include "chardev/internal.h"

static const struct chardev_backend *const backends[] = {
    &chardev_file, &chardev_null, &chardev_pty, &chardev_socket, &chardev_stdio,
};

static const struct chardev_option common_options[] = {
    {"logappend", "bool (on/off)"},
    {"logfile", "str"},
    {"mux", "bool (on/off)"},
    {NULL},
};

/* Main thread. */
static struct chardev *registry;

/* ---- registry ------------------------------------------------------------------------------- */

struct chardev *chardev_find(const char *id)
{
    for (struct chardev *chr = registry; chr; chr = chr->next) {
        if (strcmp(chr->id, id) == 0)
            return chr;
    }
    return NULL;
}

struct chardev *chardev_first(void)
{
    return registry;
}

struct chardev *chardev_next(const struct chardev *chr)
{
    return chr->next;
}

static void registry_add(struct chardev *chr)
{
    struct chardev **link = &registry;
    while (*link)
        link = &(*link)->next;
    *link = chr;
}

static void registry_remove(struct chardev *chr)
{
    struct chardev **link = &registry;
    while (*link && *link != chr)
        link = &(*link)->next;
    if (*link)
        *link = chr->next;
}

/* ---- life ----------------------------------------------------------------------------------- */

static void pump(void *opaque)
{
    chardev_pump(opaque);
}

static struct chardev *allocate(const struct chardev_backend *backend, const char *id)
{
    /* A reader of our output that goes away is an error of write(), not the end of the guest. */
    signal(SIGPIPE, SIG_IGN);

    struct chardev *chr = xnew(struct chardev);
    chr->backend = backend;
    chr->id = xstrdup(id);
    chr->loop = aio_loop_current();
    assert(chr->loop);
    chr->bh = bh_new(chr->loop, pump, chr);
    for (int i = 0; i < CHARDEV_MUX_MAX; i++)
        chr->slots[i] = xnew(struct chardev_slot);
    chr->focus = -1;
    chr->in_fd = chr->out_fd = chr->log_fd = -1;
    pthread_mutex_init(&chr->lock, NULL);
    return chr;
}

static void release(struct chardev *chr)
{
    bh_delete(chr->bh);
    for (int i = 0; i < CHARDEV_MUX_MAX; i++)
        free(chr->slots[i]);
    pthread_mutex_destroy(&chr->lock);
    free(chr->out.data);
    free(chr->id);
    free(chr);
}

/* Closes the back end. Front ends that are still attached hear nothing more, and what they write is
 * dropped; the last one to detach frees chr. */
static void destroy(struct chardev *chr)
{
    registry_remove(chr);
    chardev_enter(chr);
    chr->is_deleted = true;
    chr->backend->close(chr);
    pthread_mutex_lock(&chr->lock);
    if (chr->log_fd >= 0)
        close(chr->log_fd);
    chr->log_fd = -1;
    pthread_mutex_unlock(&chr->lock);
    chardev_leave(chr);
}

void chardev_enter(struct chardev *chr)
{
    chr->depth++;
}

void chardev_leave(struct chardev *chr)
{
    assert(chr->depth > 0);
    if (--chr->depth == 0 && chr->is_deleted && !chardev_has_frontend(chr))
        release(chr);
}

bool chardev_delete(struct chardev *chr, struct error **errp)
{
    if (chardev_has_frontend(chr)) {
        error_set(errp, "Chardev '%s' is busy", chr->id);
        return false;
    }
    destroy(chr);
    return true;
}

/* Sends what is buffered, of all at once, so that one peer that does not read leaves the time of the
 * others alone. */
static void drain_all(int64_t deadline_ns)
{
    size_t count = 0;
    for (struct chardev *chr = registry; chr; chr = chr->next)
        count++;
    autofree struct pollfd *fds = xcalloc(count, sizeof(*fds));

    for (bool may_go_on = true; may_go_on;) {
        int64_t left_ns = deadline_ns - clock_get_ns(AIO_CLOCK_RT);
        size_t n = 0;
        for (struct chardev *chr = registry; chr; chr = chr->next) {
            output_flush(chr);
            int fd = output_pending_fd(chr);
            if (fd >= 0)
                fds[n++] = (struct pollfd){.fd = fd, .events = POLLOUT};
        }
        if (!n || left_ns < NS_PER_MS)
            return;
        int ready = poll(fds, n, (int)(left_ns / NS_PER_MS));
        /* A peer that hung up may be reported forever without taking anything. */
        may_go_on = ready < 0;
        for (size_t i = 0; ready > 0 && i < n; i++)
            may_go_on |= fds[i].revents & POLLOUT;
    }
}

void chardevs_cleanup(void)
{
    if (registry)
        drain_all(clock_get_ns(AIO_CLOCK_RT) + CHARDEV_LINGER_NS);
    while (registry)
        destroy(registry);
}

/* ---- making --------------------------------------------------------------------------------- */

static const struct chardev_backend *find_backend(const char *name, struct error **errp)
{
    const char *names[ARRAY_SIZE(backends)];
    for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
        if (strcmp(backends[i]->name, name) == 0)
            return backends[i];
        names[i] = backends[i]->name;
    }
    const char *near = nearest_name(name, names, ARRAY_SIZE(names));
    if (near)
        error_set(errp, "'%s' is not a valid char driver name; did you mean '%s'?", name, near);
    else
        error_set(errp, "'%s' is not a valid char driver name; -chardev help lists them", name);
    return NULL;
}

static bool check_id(const char *id, struct error **errp)
{
    if (!id) {
        error_set(errp, "Parameter 'id' is missing; add id=NAME");
        return false;
    }
    if (!id_is_wellformed(id)) {
        error_set(errp, "Parameter 'id' expects an identifier, not '%s'", id);
        error_add_hint(errp, "Identifiers consist of letters, digits, '-', '.', '_', "
                             "starting with a letter.");
        return false;
    }
    if (chardev_find(id)) {
        error_set(errp, "Chardev with id '%s' already exists", id);
        return false;
    }
    return true;
}

struct common {
    const char *log_file;
    bool log_append, mux;
};

static bool parse_common(struct options *opts, struct common *c, struct error **errp)
{
    c->log_file = options_get(opts, "logfile");
    if (!options_get_bool(opts, "logappend", &c->log_append, errp) ||
        !options_get_bool(opts, "mux", &c->mux, errp))
        return false;
    if (c->log_append && !c->log_file) {
        error_set(errp, "logappend=on needs logfile=PATH");
        return false;
    }
    return true;
}

static bool open_log(struct chardev *chr, const struct common *c, struct error **errp)
{
    if (!c->log_file)
        return true;
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC | (c->log_append ? O_APPEND : O_TRUNC);
    chr->log_fd = open(c->log_file, flags, 0666);
    if (chr->log_fd < 0) {
        error_set_errno(errp, errno, "logfile: cannot open '%s'", c->log_file);
        return false;
    }
    return true;
}

struct chardev *chardev_new_from_options(struct options *opts, struct error **errp)
{
    const char *name = options_get(opts, "backend");
    const char *id = options_get(opts, "id");
    struct common common = {0};
    if (!name) {
        error_set(errp, "Parameter 'backend' is missing; -chardev help lists them");
        return NULL;
    }
    const struct chardev_backend *backend = find_backend(name, errp);
    if (!backend || !check_id(id, errp) || !parse_common(opts, &common, errp))
        return NULL;

    struct chardev *chr = allocate(backend, id);
    chr->is_mux = common.mux;
    autofree char *what = xasprintf("%s chardev '%s'", name, id);
    /* Nothing is opened or truncated before all options are known to be good. */
    if (!backend->parse(chr, opts, errp) || !options_check_used(opts, what, errp) ||
        !open_log(chr, &common, errp) || !backend->open(chr, errp)) {
        destroy(chr);
        return NULL;
    }
    registry_add(chr);
    return chr;
}

/* ---- lists ---------------------------------------------------------------------------------- */

void chardev_print_backends(FILE *to)
{
    fprintf(to, "Available chardev backend types: \n");
    for (size_t i = 0; i < ARRAY_SIZE(backends); i++)
        fprintf(to, "  %s\n", backends[i]->name);
}

static bool is_help(const char *text)
{
    return text && (strcmp(text, "help") == 0 || strcmp(text, "?") == 0);
}

static void print_options(FILE *to, const struct chardev_option *options)
{
    for (; options->name; options++)
        fprintf(to, "  %s=<%s>\n", options->name, options->type);
}

bool chardev_print_help(struct options *opts, FILE *to)
{
    const char *name = options_get(opts, "backend");
    if (is_help(name)) {
        chardev_print_backends(to);
        return true;
    }
    const struct chardev_backend *backend = name ? find_backend(name, NULL) : NULL;
    if (!backend || (!options_has(opts, "help") && !options_has(opts, "?")))
        return false;
    fprintf(to, "%s options:\n", name);
    print_options(to, backend->options);
    print_options(to, common_options);
    return true;
}

const char *chardev_id(const struct chardev *chr)
{
    return chr->id;
}

char *chardev_filename(const struct chardev *chr)
{
    return chr->backend->filename ? chr->backend->filename(chr) : xstrdup(chr->backend->name);
}

bool chardev_is_open(const struct chardev *chr)
{
    return chr->is_open;
}

bool chardev_wants_monitor(const struct chardev *chr)
{
    return chr->wants_monitor;
}
