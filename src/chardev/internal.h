/* SPDX-License-Identifier: MIT */
/*
 * Inside chardev/: what back ends provide and what they may use.
 *
 *   chardev.c   registry, options, life           stdio.c terminal.c   terminal or pipes
 *   input.c     fd -> stage -> queues             file.c null.c        output only
 *   mux.c       focus and keys                    pty.c                pseudo-terminal
 *   output.c    sending and the buffer            socket.c             unix and TCP sockets
 *   legacy.c    texts of -serial
 */
#ifndef FERRY_CHARDEV_INTERNAL_H
#define FERRY_CHARDEV_INTERNAL_H

#include <pthread.h>

#include "aio/loop.h"
#include "chardev/chardev.h"

#define CHARDEV_STAGE_SIZE 4096
#define CHARDEV_QUEUE_SIZE 16384 /* a power of 2 */
#define CHARDEV_OUT_LIMIT  65536
#define CHARDEV_LINGER_NS  (NS_PER_SEC / 2) /* for a peer to read, at the end of the process */

struct chardev_option {
    const char *name;
    const char *type; /* as help prints it */
};

struct chardev_backend {
    const char *name;
    const struct chardev_option *options; /* own ones; ends with a NULL name */
    /* Reads the options into chr->state; nothing on the host changes yet. */
    bool (*parse)(struct chardev *chr, struct options *opts, struct error **errp);
    bool (*open)(struct chardev *chr, struct error **errp);
    /* The end, also after a parse or open that failed: closes everything, frees chr->state. */
    void (*close)(struct chardev *chr);
    /* in_fd is at its end, but some input is still queued. NULL: nothing to do. */
    void (*input_ending)(struct chardev *chr);
    /* in_fd is at its end and all input was delivered. */
    void (*input_ended)(struct chardev *chr);
    char *(*filename)(const struct chardev *chr); /* NULL: its name */
};

extern const struct chardev_backend chardev_file, chardev_null, chardev_pty, chardev_socket,
    chardev_stdio;

/* A place for a front end. */
struct chardev_slot {
    /* loop */
    struct chardev_frontend *fe; /* NULL: free */
    bool is_told_open;
    bool is_reading; /* in fe->read(), which is never nested */
    size_t head, count;
    uint8_t queue[CHARDEV_QUEUE_SIZE];
};

/* Bytes waiting to be sent. */
struct chardev_buffer {
    uint8_t *data;
    size_t head, count, capacity;
};

struct chardev {
    /* constant */
    const struct chardev_backend *backend;
    char *id;
    struct aio_loop *loop;
    struct aio_bh *bh; /* chardev_pump(), for what other threads want the loop to do */
    bool is_mux, wants_monitor;
    void *state; /* of the back end */

    /* loop */
    struct chardev *next;
    struct chardev_slot *slots[CHARDEV_MUX_MAX]; /* [0] only without mux */
    int focus;                                   /* index of a slot, or -1 */
    bool has_escape;                             /* the escape character was the last input */
    bool is_open;
    int in_fd;                         /* -1: none */
    bool in_eof;                       /* in_fd is at its end */
    uint8_t stage[CHARDEV_STAGE_SIZE]; /* read, but not yet in a queue */
    size_t stage_head, stage_count;
    unsigned depth; /* callbacks that are running; no free() until it is 0 */
    bool is_deleted;

    /* under lock, a leaf; out_fd and log_fd are changed by the loop only */
    pthread_mutex_t lock;
    int out_fd;         /* -1: output is dropped */
    bool out_is_socket; /* send() instead of write() */
    struct chardev_buffer out;
    bool is_starved; /* a front end waits for writable() */
    bool has_warned; /* that output is lost */
    int log_fd;      /* -1: none */
};

/* ---- for back ends (loop) ------------------------------------------------------------------- */

/* The back end is there: reads in_fd (-1: no input), writes out_fd; both non-blocking or regular
 * files. The back end owns them and closes them after chardev_disconnect(). */
void chardev_connect(struct chardev *chr, int in_fd, int out_fd);
/* It has gone: forgets fds and buffered output, tells front ends. */
void chardev_disconnect(struct chardev *chr);
/* Only input has gone: in_fd will not be read any more. */
void chardev_disconnect_input(struct chardev *chr);
/* Throws away input that no front end has taken. */
void chardev_discard_input(struct chardev *chr);

/* ---- among the files ------------------------------------------------------------------------ */

/* Runs all that can go on: news of opening, input, watching of fds. */
void chardev_pump(struct chardev *chr);
/* Between these callbacks may run; chardev_leave() may free chr. */
void chardev_enter(struct chardev *chr);
void chardev_leave(struct chardev *chr);
void chardev_tell(struct chardev_slot *slot, enum chardev_event event);

/* True if byte *c is part of a command, which then has been carried out; else *c is the byte to
 * pass on. */
bool mux_filter(struct chardev *chr, uint8_t *c);
void mux_focus(struct chardev *chr, int index);
int mux_default_focus(const struct chardev *chr);

/* Sends what is buffered; true if front ends that wait may go on. */
bool output_flush(struct chardev *chr);
bool output_is_pending(struct chardev *chr);
/* The fd that buffered output waits for, or -1 if there is none. */
int output_pending_fd(struct chardev *chr);
void output_set_fd(struct chardev *chr, int fd);

/* Terminals (terminal.c). Raw mode until terminal_restore(), exit(), or a fatal signal. */
void terminal_set_raw(int fd, bool with_signals);
void terminal_restore(void);

#endif
