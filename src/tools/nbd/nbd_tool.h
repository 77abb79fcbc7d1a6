/* SPDX-License-Identifier: MIT */
/*
 * ferry-nbd: images as NBD exports, with qemu-nbd's arguments.
 *
 *   main.c      the life of the process
 *   options.c   the command line
 *   object.c    --object: TLS credentials, who may connect
 *   export.c    images, opened and given to the server (nbd/server.h)
 *   listen.c    sockets: TCP, unix, those of socket activation
 *   daemon.c    --fork, --pid-file
 *   list.c      -L, by libnbd (list_none.c without it)
 *
 * All of it runs in the main thread.
 */
#ifndef FERRY_TOOLS_NBD_NBD_TOOL_H
#define FERRY_TOOLS_NBD_NBD_TOOL_H

#include "nbd/server.h"
#include "tools/common/args.h"

struct nbd_args {
    /* the connection */
    const char *port, *bind_address, *socket_path;
    unsigned shared;  /* clients at once; 0: no limit */
    unsigned threads; /* event loops for clients besides the main loop */
    bool persistent, verbose, fork;
    const char *pid_file;
    /* the image, as one export … */
    const char *filename; /* or NULL */
    const char *name, *description;
    uint64_t offset;
    bool allocation_depth;
    struct tool_list bitmaps;
    const char *snapshot; /* -l */
    /* … and as several: what --export says */
    struct tool_list exports;
    /* how images are opened */
    const char *format, *cache, *aio, *discard, *detect_zeroes;
    bool image_opts, read_only;
    /* TLS */
    struct tool_list objects;
    const char *tls_creds, *tls_authz, *tls_hostname;
    /* another server */
    bool list;
    bool version;
};

/* TOOL_ARGS_HELP: it was printed, or the version. */
enum tool_args_result nbd_args_parse(int argc, char **argv, struct nbd_args *args,
                                     struct error **errp);
void nbd_args_free(struct nbd_args *args);

/* ---- object.c -------------------------------------------------------------------------------- */

/* What --object makes, until objects_free(). */
bool nbd_objects_add(const char *text, struct error **errp);
void nbd_objects_free(void);
/* Credentials for a server, or for a client. */
const struct nbd_tls_creds *nbd_objects_find_creds(const char *id, bool for_server,
                                                   struct error **errp);
/* "authz-simple": may somebody of this name come in? */
struct nbd_authz;
const struct nbd_authz *nbd_objects_find_authz(const char *id, struct error **errp);
bool nbd_authz_allows(const struct nbd_authz *authz, const char *name);

/* ---- export.c -------------------------------------------------------------------------------- */

struct nbd_images {
    struct block_backend **list;
    size_t count;
};

/* All images are opened and given to the server. */
bool nbd_images_open(const struct nbd_args *args, struct nbd_server *server,
                     struct nbd_images *images, struct error **errp);
/* Flushes and closes them; false: what was written last may be lost, which has been said. After the
 * server has gone. */
bool nbd_images_close(struct nbd_images *images);

/* ---- listen.c -------------------------------------------------------------------------------- */

struct nbd_sockets {
    int *fds;
    size_t count;
    char *path; /* of a unix socket that was made, or NULL */
};

/* As systemd passes them: LISTEN_PID, LISTEN_FDS. False: none. */
bool nbd_sockets_inherited(struct nbd_sockets *sockets);
bool nbd_sockets_listen(const struct nbd_args *args, struct nbd_sockets *sockets,
                        struct error **errp);
/* Removes the path; the fds are closed by the server. */
void nbd_sockets_free(struct nbd_sockets *sockets);

/* ---- daemon.c -------------------------------------------------------------------------------- */

/* Forks. Returns in the child; the parent waits until daemon_ready() or the child's end, and exits
 * with 0 or 1. */
bool nbd_daemon_fork(struct error **errp);
/* The server accepts clients: lets the parent go, and of standard streams keeps stderr only if
 * asked to. */
void nbd_daemon_ready(bool keep_stderr);
/* The process id goes into the file, which stays locked. */
bool nbd_pid_file_write(const char *path, struct error **errp);
void nbd_pid_file_remove(const char *path);

/* ---- list.c ---------------------------------------------------------------------------------- */

/* Prints the exports of another server. */
bool nbd_list(const struct nbd_args *args, struct error **errp);

#endif
