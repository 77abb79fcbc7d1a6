/* SPDX-License-Identifier: MIT */
/*
 * The configuration file of blkdebug, as QEMU has it:
 *
 *   # a comment
 *   [inject-error]          or [inject-error "a name"]
 *   event = "l2_update"
 *   errno = "28"
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "block/blkdebug.h"

#define MAX_RULES 1024

struct config {
    const char *filename;
    unsigned line, injects, states;
    char *group; /* "inject-error.3" or NULL: none yet */
    struct options *opts;
};

static char *strip(char *text)
{
    while (isspace((unsigned char)*text)) {
        text++;
    }
    char *end = text + strlen(text);
    while (end > text && isspace((unsigned char)end[-1])) {
        *--end = '\0';
    }
    return text;
}

static bool read_group(struct config *c, char *text, struct error **errp)
{
    char *end = strrchr(text, ']');
    size_t length = strcspn(text + 1, " \t\"]");
    unsigned *count;

    if (!end || end[1]) {
        error_set(errp, "%s:%u: a line that begins with '[' ends with ']'", c->filename, c->line);
        return false;
    }
    text[1 + length] = '\0';
    if (!strcmp(text + 1, "inject-error")) {
        count = &c->injects;
    } else if (!strcmp(text + 1, "set-state")) {
        count = &c->states;
    } else {
        error_set(errp, "%s:%u: There is no option group '%s'; use [inject-error] or [set-state]",
                  c->filename, c->line, text + 1);
        return false;
    }
    if (*count == MAX_RULES) {
        error_set(errp, "%s:%u: more than %d rules of a kind", c->filename, c->line, MAX_RULES);
        return false;
    }
    free(c->group);
    c->group = xasprintf("%s.%u", text + 1, (*count)++);
    return true;
}

static bool read_option(struct config *c, char *text, struct error **errp)
{
    char *equals = strchr(text, '=');

    if (!c->group) {
        error_set(errp, "%s:%u: no group defined; begin with [inject-error] or [set-state]",
                  c->filename, c->line);
        return false;
    }
    char *value = equals ? strip(equals + 1) : NULL;
    size_t length = value ? strlen(value) : 0;
    if (length < 2 || value[0] != '"' || value[length - 1] != '"') {
        error_set(errp, "%s:%u: parse error: a line is KEY = \"VALUE\", not '%s'", c->filename,
                  c->line, text);
        return false;
    }
    *equals = '\0';
    value[length - 1] = '\0';
    autofree char *key = xasprintf("%s.%s", c->group, strip(text));
    options_set(c->opts, key, value + 1);
    return true;
}

bool blkdebug_config_read(const char *filename, struct options *opts, struct error **errp)
{
    struct config c = {.filename = filename, .opts = opts};
    char line[1200];
    bool ok = true;

    FILE *file = fopen(filename, "re");
    if (!file) {
        error_set_errno(errp, errno, "Could not read blkdebug config file '%s'", filename);
        return false;
    }
    while (ok && fgets(line, sizeof(line), file)) {
        char *text = strip(line);

        c.line++;
        if (*text == '[') {
            ok = read_group(&c, text, errp);
        } else if (*text && *text != '#') {
            ok = read_option(&c, text, errp);
        }
    }
    if (ok && ferror(file)) {
        error_set_errno(errp, errno, "Could not read blkdebug config file '%s'", filename);
        ok = false;
    }
    fclose(file);
    free(c.group);
    return ok;
}
