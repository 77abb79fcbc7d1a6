/* SPDX-License-Identifier: MIT */
/*
 * Character devices: bytes between a front end of ours (serial port, monitor, qtest server) and a
 * back end on the host (terminal, file, socket, pseudo-terminal).
 *
 *      front end                          chardev                              back end
 *                              +---------------------------+
 *   can_read() read() <--------| queue 16 KiB <-- (mux) <--|<------- main loop: fd readable
 *   event()           <--------|                           |
 *   chardev_write()  --------->| send --> if it would block|
 *      (any thread)            |          buffer 64 KiB    |-------> main loop: fd writable
 *   writable()        <--------|                           |
 *                              +---------------------------+
 *
 * Output. chardev_write() never waits for a slow peer: it sends what the host takes at once,
 * buffers a bounded rest, and returns how much it took. A front end that gets less keeps the
 * remaining bytes and goes on when writable() is called. Where nobody listens (a socket without a
 * client, a pseudo-terminal that is not open) output is dropped and counts as taken. Regular files
 * are written directly.
 *
 * Input. The fd is read while there is room in the queue of the front end, which gets no more than
 * can_read() allows. A front end that was full calls chardev_accept_input() when it has room again.
 *
 * With mux=on up to CHARDEV_MUX_MAX front ends share one back end. Output of all goes out, input
 * goes to the one in focus, and keys after the escape character (Ctrl-A, or -echr) are commands:
 * h help, x exit, s save, b break, c next front end, and the escape character itself (or a) once
 * more to send it. Commands are seen even if the guest reads nothing, until its queue is full.
 *
 * Threads. Everything is called in the main loop's thread (the loop bound when the chardev was
 * made), except what says "any thread". The callbacks of a front end run in the main loop without
 * any lock held; they may call anything here, detaching themselves included.
 */
#ifndef FERRY_CHARDEV_CHARDEV_H
#define FERRY_CHARDEV_CHARDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "base/options.h"

#define CHARDEV_MUX_MAX 4

struct chardev;

enum chardev_event {
    CHARDEV_OPENED,    /* the back end is there: before the first input, and on each reconnection */
    CHARDEV_CLOSED,    /* it went away, or its input ended; more may follow after the next OPENED */
    CHARDEV_BREAK,     /* a break on the line */
    CHARDEV_FOCUS_IN,  /* mux: input comes here from now on */
    CHARDEV_FOCUS_OUT, /* mux: input goes elsewhere */
};

/* Embedded in its owner, who fills it before chardev_attach() and keeps it until
 * chardev_detach(). */
struct chardev_frontend {
    /* Bytes that read() would take now; 0: none until chardev_accept_input(). */
    int (*can_read)(void *opaque);
    void (*read)(void *opaque, const uint8_t *buf, size_t len);
    /* NULL: not interested. */
    void (*event)(void *opaque, enum chardev_event event);
    /* After a short chardev_write(): there is room again. NULL: not interested. */
    void (*writable)(void *opaque);
    void *opaque;
    /* Mux: gets the focus only from the user or chardev_take_focus(), unless it is the only one
     * (monitors). */
    bool is_background;
};

/* ---- making them (vmm, monitor) ------------------------------------------------------------- */

/*
 * -chardev BACKEND,id=ID,…: opts come from options_parse(text, "backend"). Server sockets with
 * wait=on (the default) block until a client is there. The chardev is in the registry from then on.
 *
 *   null                                 for all: mux=on|off, logfile=PATH, logappend=on|off
 *   stdio[,signal=on|off]
 *   file,path=PATH[,append=on|off]
 *   pty
 *   socket,path=PATH|host=HOST,port=PORT|fd=N[,server=on|off][,wait=on|off][,reconnect=SECONDS]
 *         [,ipv4=on|off][,ipv6=on|off][,delay=on|off]
 */
struct chardev *chardev_new_from_options(struct options *opts, struct error **errp);

/*
 * The text of -serial, -monitor, -qmp, -qtest: null, stdio, pty, file:PATH, unix:PATH[,server=on]…,
 * tcp:HOST:PORT[,server=on]…, chardev:ID (one that exists already), mon:TEXT (with mux and without
 * signals). id: of the new one. "none" means no chardev at all and is the caller's.
 */
struct chardev *chardev_new_from_legacy(const char *text, const char *id, struct error **errp);
/* True if it was made by "mon:": a human monitor is to share it. */
bool chardev_wants_monitor(const struct chardev *chr);

/* Waiting for a client ends with an error once fd (a signalfd) is readable; -1: nothing ends it. */
void chardev_set_interrupt_fd(int fd);

struct chardev *chardev_find(const char *id); /* NULL: none */
/* False if a front end is attached. */
bool chardev_delete(struct chardev *chr, struct error **errp);
/* Deletes all: waits up to half a second for output that is buffered, restores the terminal, removes
 * sockets. Front ends may detach later, before the loop is freed; until then nothing happens to
 * them. */
void chardevs_cleanup(void);

/* Prints "Available chardev backend types: …". */
void chardev_print_backends(FILE *to);
/* If opts ask for help ("help", "?", "socket,help"), prints it and returns true. */
bool chardev_print_help(struct options *opts, FILE *to);

const char *chardev_id(const struct chardev *chr);
/* As query-chardev has it: "stdio", "pty:/dev/pts/3", "disconnected:unix:/tmp/x,server=on". To be
 * freed. */
char *chardev_filename(const struct chardev *chr);
bool chardev_is_open(const struct chardev *chr);
bool chardev_has_frontend(const struct chardev *chr);
/* All, in the order in which they were made. */
struct chardev *chardev_first(void);
struct chardev *chardev_next(const struct chardev *chr);

/* ---- using them (front ends) ---------------------------------------------------------------- */

/* False if another front end has it and it is no mux. OPENED follows from the loop if the back end
 * is there. Also before the loop runs, and with the machine lock held: no callback is called
 * from within. */
bool chardev_attach(struct chardev *chr, struct chardev_frontend *fe, struct error **errp);
/* No callback comes after this. Other threads have stopped to write for fe. */
void chardev_detach(struct chardev *chr, struct chardev_frontend *fe);

/* The front end has room for input again. Any thread. */
void chardev_accept_input(struct chardev *chr);

/* Takes up to len bytes and returns how many. Any thread, with any lock held. */
size_t chardev_write(struct chardev *chr, const void *buf, size_t len);
/* Takes all bytes, in memory if need be: for answers to a peer's commands. Who uses this reads no
 * more commands (can_read() gives 0) while chardev_writable() is false. Any thread. */
void chardev_write_all(struct chardev *chr, const void *buf, size_t len);
/* False if chardev_write() would take nothing; then writable() will be called. Any thread. */
bool chardev_writable(struct chardev *chr);
/* Bytes that wait for the peer to read. Any thread. */
size_t chardev_unsent(struct chardev *chr);

/* ---- mux ------------------------------------------------------------------------------------ */

bool chardev_is_mux(const struct chardev *chr);
void chardev_take_focus(struct chardev *chr, struct chardev_frontend *fe);
/* -echr: a character code; 1 (Ctrl-A) unless set. Before the first input. */
void chardev_set_escape(uint8_t c);
/* What the key x does; fn is called in the main loop. Without one, x only says so. */
void chardev_set_exit_handler(void (*fn)(void));

#endif
