/* SPDX-License-Identifier: MIT */
/*
 * What every image tool does first and last: its name in messages, the main loop of its thread.
 *
 *   main --> tool_start() --> parse (args.h) --> block_image_open() … --> tool_end()
 *
 * Tools are single-threaded but for the workers of the thread pool: all functions of tools/ run in
 * the main thread, those named co_* in its coroutines. Exit status: 0, or 1 after an error unless a
 * command says otherwise.
 */
#ifndef FERRY_TOOLS_COMMON_TOOL_H
#define FERRY_TOOLS_COMMON_TOOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct block_node;

/* tool_begin(), then makes the main loop and binds it to the thread. only_requests:
 * aio_loop_set_only_requests(). */
bool tool_start(const char *program, bool only_requests, struct error **errp);
/* process_begin(), and names the program in messages: for what comes before tool_start(). */
void tool_begin(const char *program);
/* Commands of it have -U, which errors may advise. */
void tool_has_force_share(bool has);
/* Nodes that are left (of tool_add_object() and the like) go, then the loop. */
void tool_end(void);

/* "ferry-img", as given to tool_start(). */
const char *tool_name(void);
/* "ferry-img version 0.1.0". */
void tool_print_version(void);
/* What was printed shall be seen now. */
void tool_flush_output(void);
/* stdout is complete, or whoever read it has gone: 0, else 1 and a message (disk full). Before the
 * process ends. */
int tool_finish_output(void);

/* --object TYPE,id=…: makes it, or says that there is no such type. */
bool tool_add_object(const char *text, struct error **errp);

/* On stderr, if the image's format was guessed as raw and it is open for writing. */
void tool_warn_of_probing(const struct block_node *node);
/* -l of an image: reads go to that snapshot from now on. text: an id or a name, or
 * "snapshot.id=ID,snapshot.name=NAME" (one or both). */
bool tool_load_snapshot(struct block_node *node, const char *text, struct error **errp);

/* A cache mode as users write it; the errors name `option` ("-t"). Only checks it. */
bool tool_check_cache(const char *mode, const char *what, struct error **errp);
/* "threads" or "io_uring"; NULL is fine. */
bool tool_check_aio(const char *aio, struct error **errp);

/* Sizes as "1G", "512", "4k": bytes, within [min, max]. The errors are QEMU's: "Invalid WHAT
 * specified. …". */
bool tool_parse_size(const char *text, const char *what, uint64_t min, uint64_t max,
                     uint64_t *bytes, struct error **errp);
/* "1.5 GiB": as the image tools print sizes for people, three significant digits. `text` has room
 * for TOOL_SIZE_TEXT. */
#define TOOL_SIZE_TEXT 32
char *tool_size_text(uint64_t bytes, char *text);

#endif
