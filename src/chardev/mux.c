/* SPDX-License-Identifier: MIT */
/* Several front ends on one back end: who has the focus, and the keys that follow the escape
 * character. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "chardev/internal.h"

/* Set at start-up. */
static uint8_t escape = 1;
static void (*exit_handler)(void);

void chardev_set_escape(uint8_t c)
{
    escape = c;
}

void chardev_set_exit_handler(void (*fn)(void))
{
    exit_handler = fn;
}

bool chardev_is_mux(const struct chardev *chr)
{
    return chr->is_mux;
}

/* ---- focus ---------------------------------------------------------------------------------- */

/* The front end that should have the focus when nobody chose: -1 if there is none. */
int mux_default_focus(const struct chardev *chr)
{
    int found = -1;
    for (int i = CHARDEV_MUX_MAX - 1; i >= 0; i--) {
        const struct chardev_frontend *fe = chr->slots[i]->fe;
        if (fe && (found < 0 || !fe->is_background || chr->slots[found]->fe->is_background))
            found = i;
    }
    return found;
}

void mux_focus(struct chardev *chr, int index)
{
    int old = chr->focus;
    if (old == index)
        return;
    chr->focus = index;
    if (!chr->is_mux || chr->is_deleted)
        return;
    chardev_enter(chr);
    if (old >= 0 && chr->slots[old]->is_told_open)
        chardev_tell(chr->slots[old], CHARDEV_FOCUS_OUT);
    /* Who is not told of the opening yet hears of its focus then. */
    if (index >= 0 && chr->focus == index && chr->slots[index]->is_told_open)
        chardev_tell(chr->slots[index], CHARDEV_FOCUS_IN);
    chardev_leave(chr);
}

void chardev_take_focus(struct chardev *chr, struct chardev_frontend *fe)
{
    for (int i = 0; i < CHARDEV_MUX_MAX; i++) {
        if (chr->slots[i]->fe == fe)
            mux_focus(chr, i);
    }
    bh_schedule(chr->bh);
}

static void focus_next(struct chardev *chr)
{
    for (int step = 1; step <= CHARDEV_MUX_MAX; step++) {
        int i = (chr->focus + step) % CHARDEV_MUX_MAX;
        if (chr->slots[i]->fe) {
            mux_focus(chr, i);
            return;
        }
    }
}

/* ---- keys ----------------------------------------------------------------------------------- */

static void say(struct chardev *chr, const char *text)
{
    chardev_write_all(chr, text, strlen(text));
}

static void print_help(struct chardev *chr)
{
    char key[8];
    if (escape >= 1 && escape <= 26)
        snprintf(key, sizeof(key), "C-%c", 'a' + escape - 1);
    else if (isprint(escape))
        snprintf(key, sizeof(key), "%c", escape);
    else
        snprintf(key, sizeof(key), "0x%02x", escape);

    static const char *const lines[][2] = {
        {"h", "show these keys"},
        {"x", "end ferry"},
        {"b", "send a break (Linux: magic SysRq)"},
        {"c", "switch to the next of console and monitors"},
    };
    say(chr, "\r\n");
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        autofree char *line = xasprintf("%s %-6s %s\r\n", key, lines[i][0], lines[i][1]);
        say(chr, line);
    }
    autofree char *line = xasprintf("%s %-6s send %s\r\n", key, key, key);
    say(chr, line);
}

static void exit_key(struct chardev *chr)
{
    if (!exit_handler) {
        say(chr, "\r\nferry: cannot be ended from here\r\n");
        return;
    }
    say(chr, "\r\nferry: terminated\r\n");
    exit_handler();
}

bool mux_filter(struct chardev *chr, uint8_t *c)
{
    if (!chr->has_escape) {
        chr->has_escape = *c == escape;
        return chr->has_escape;
    }
    chr->has_escape = false;
    if (*c == escape)
        return false;
    switch (*c) {
    case 'a':
        *c = escape;
        return false;
    case 'h':
    case '?':
        print_help(chr);
        break;
    case 'x':
        exit_key(chr);
        break;
    case 'b':
        chardev_tell(chr->slots[chr->focus], CHARDEV_BREAK);
        break;
    case 'c':
        focus_next(chr);
        break;
    default:
        break;
    }
    return true;
}
