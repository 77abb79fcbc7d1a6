/* SPDX-License-Identifier: MIT */
/* Breakpoints of blkdebug nodes; sleep, sigraise, abort. See io_tool.h. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "block/debug.h"
#include "tools/common/tool.h"
#include "tools/io/io_tool.h"

/* ---- breakpoints ----------------------------------------------------------------------------- */

static bool answer(int ret, const char *what)
{
    if (ret < 0) {
        printf("%s: %s\n", what, strerror(-ret));
    }
    return ret >= 0;
}

static void say(const char *line)
{
    printf("%s\n", line);
}

bool io_break(struct io_session *s, int argc, char **argv)
{
    block_debug_set_report(say);
    return answer(block_debug_break(backend_root(s->be), argv[1], argv[2]),
                  "Could not set breakpoint");
}

bool io_resume(struct io_session *s, int argc, char **argv)
{
    return answer(block_debug_resume(backend_root(s->be), argv[1]), "Could not resume request");
}

bool io_remove_break(struct io_session *s, int argc, char **argv)
{
    int ret = block_debug_remove_break(backend_root(s->be), argv[1]);

    if (ret < 0) {
        printf("Could not remove breakpoint %s: %s\n", argv[1], strerror(-ret));
    }
    return ret >= 0;
}

bool io_wait_break(struct io_session *s, int argc, char **argv)
{
    return answer(block_debug_wait_break(backend_root(s->be), argv[1]),
                  "Could not wait for the breakpoint");
}

/* ---- the process ----------------------------------------------------------------------------- */

static void set_flag(void *opaque)
{
    *(bool *)opaque = true;
}

/* Requests go on meanwhile. */
bool io_sleep(struct io_session *s, int argc, char **argv)
{
    struct aio_loop *loop = aio_loop_current();
    struct aio_timer timer;
    bool is_over = false;
    uint64_t ms;

    if (!parse_uint(argv[1], &ms) || ms > INT64_MAX / NS_PER_MS / 2) {
        printf("%s is not a valid number\n", argv[1]);
        return false;
    }
    timer_init(&timer, loop, AIO_CLOCK_RT, set_flag, &is_over);
    timer_set(&timer, clock_get_ns(AIO_CLOCK_RT) + (int64_t)ms * NS_PER_MS);
    while (!is_over) {
        aio_loop_poll(loop, true);
    }
    return true;
}

bool io_sigraise(struct io_session *s, int argc, char **argv)
{
    uint64_t number;

    if (!io_parse_number(argv[1], &number)) {
        return false;
    }
    if (number > NSIG) {
        printf("signal argument '%s' is too large to be a valid signal\n", argv[1]);
        return false;
    }
    tool_flush_output(); /* what was answered before is seen */
    if (raise((int)number) != 0) {
        printf("Could not raise signal %s: %s\n", argv[1], strerror(errno));
        return false;
    }
    return true;
}

bool io_abort(struct io_session *s, int argc, char **argv)
{
    abort();
}
