/* SPDX-License-Identifier: MIT */
/* What a program does about its process before anything else. */
#ifndef FERRY_BASE_PROCESS_H
#define FERRY_BASE_PROCESS_H

/* Standard streams that are closed become /dev/null: no image and no socket shall get their numbers, and
 * then what is printed. A closed pipe (SIGPIPE) and a file that must not grow (SIGXFSZ) are errors of
 * the write, EPIPE and EFBIG, no signals. First of all in main(). */
void process_begin(void);

#endif
