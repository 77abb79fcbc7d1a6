/* SPDX-License-Identifier: MIT */
/* ferry-nbd: the life of the process. See nbd_tool.h. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "aio/notifier.h"
#include "base/log.h"
#include "tools/common/tool.h"
#include "tools/nbd/nbd_tool.h"

struct service {
    const struct nbd_args *args;
    const struct nbd_authz *authz;
    bool is_over; /* the last client has gone, or a signal came */
};

static struct event_notifier signalled = {.fd = -1};

static void on_signal(int number)
{
    event_notifier_set(&signalled);
}

static void take_signal(void *opaque)
{
    ((struct service *)opaque)->is_over = true;
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

/* ---- what the server tells ------------------------------------------------------------------- */

static void client_left(void *opaque, bool had_export, unsigned left)
{
    struct service *service = opaque;

    if (had_export && !left && !service->args->persistent) {
        service->is_over = true;
    }
}

static void say(void *opaque, const char *text)
{
    log_info("%s", text);
}

static bool authorize(void *opaque, const char *peer_name)
{
    const struct service *service = opaque;

    return nbd_authz_allows(service->authz, peer_name);
}

/* ---- serving --------------------------------------------------------------------------------- */

static bool configure(struct service *service, struct nbd_server_config *config,
                      struct error **errp)
{
    const struct nbd_args *args = service->args;

    for (size_t i = 0; i < args->objects.count; i++) {
        if (!nbd_objects_add(args->objects.items[i], errp)) {
            return false;
        }
    }
    if (args->tls_creds && !(config->tls = nbd_objects_find_creds(args->tls_creds, true, errp))) {
        return false;
    }
    if (args->tls_authz && !nbd_tls_creds_verify_names(config->tls)) {
        error_set(errp,
                  "--tls-authz needs tls-creds-x509 with verify-peer=on: '%s' do not verify "
                  "names",
                  args->tls_creds);
        return false;
    }
    if (args->tls_authz) {
        service->authz = nbd_objects_find_authz(args->tls_authz, errp);
        config->authorize = authorize;
    }
    return !args->tls_authz || service->authz;
}

static bool start(struct service *service, struct nbd_server *server, struct nbd_images *images,
                  struct nbd_sockets *sockets, struct error **errp)
{
    const struct nbd_args *args = service->args;

    if (!nbd_images_open(args, server, images, errp) ||
        (!sockets->count && !nbd_sockets_listen(args, sockets, errp)) ||
        (args->pid_file && !nbd_pid_file_write(args->pid_file, errp))) {
        return false;
    }
    for (size_t i = 0; i < sockets->count; i++) {
        nbd_server_listen(server, sockets->fds[i]);
    }
    return true;
}

static bool serve(const struct nbd_args *args, struct nbd_sockets *sockets, struct error **errp)
{
    struct service service = {.args = args};
    struct nbd_server_config config = {
        .max_connections = args->shared,
        .threads = args->threads,
        .closed = client_left,
        .say = args->verbose ? say : NULL,
        .opaque = &service,
    };
    struct nbd_images images = {0};
    struct aio_loop *loop = aio_loop_current();

    if (!configure(&service, &config, errp) || !event_notifier_init(&signalled, errp)) {
        return false;
    }
    struct nbd_server *server = nbd_server_new(&config, errp);
    if (!server) {
        return false;
    }
    aio_set_notifier(loop, &signalled, take_signal, NULL, &service);
    catch_signals();
    bool ok = start(&service, server, &images, sockets, errp);
    if (ok) {
        nbd_daemon_ready(args->verbose);
        while (!service.is_over) {
            aio_loop_poll(loop, true);
        }
    }
    nbd_server_free(server);
    ok = nbd_images_close(&images) && ok;
    aio_set_notifier(loop, &signalled, NULL, NULL, NULL);
    if (args->pid_file && ok) {
        nbd_pid_file_remove(args->pid_file);
    }
    return ok;
}

/* False without *err: the reason has been told. */
static bool run(const struct nbd_args *args, struct error **errp)
{
    struct nbd_sockets sockets;
    bool inherited = nbd_sockets_inherited(&sockets); /* before the process id changes */

    if (inherited && (args->port || args->bind_address || args->socket_path)) {
        error_set(errp, "-p, -b and -k cannot be used with socket activation");
        return false;
    }
    if (args->fork && !nbd_daemon_fork(errp)) {
        return false;
    }
    bool ok = tool_start("ferry-nbd", false, errp) && serve(args, &sockets, errp);
    nbd_objects_free();
    nbd_sockets_free(&sockets);
    tool_end();
    return ok;
}

int main(int argc, char **argv)
{
    struct nbd_args args;
    struct error *err = NULL;
    bool ok = true;

    tool_begin("ferry-nbd");
    switch (nbd_args_parse(argc, argv, &args, &err)) {
    case TOOL_ARGS_HELP:
        ok = tool_finish_output() == 0;
        break;
    case TOOL_ARGS_ERROR:
        ok = false;
        break;
    case TOOL_ARGS_OK:
        ok = args.list ? nbd_list(&args, &err) && tool_finish_output() == 0 : run(&args, &err);
        break;
    }
    if (err) {
        error_report(err);
    }
    nbd_args_free(&args);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
