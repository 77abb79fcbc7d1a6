/* SPDX-License-Identifier: MIT */
/* File names made into options. See filename.h. */
#include "block/filename.h"

#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

static bool starts_with(const char *text, const char *prefix)
{
    return !strncmp(text, prefix, strlen(prefix));
}

static bool has_protocol(const char *filename)
{
    return filename[strcspn(filename, ":/")] == ':';
}

static struct options *parse_null(const char *filename, struct error **errp)
{
    if (strcmp(filename, "null-co://")) {
        error_set(errp, "The only allowed filename for this driver is 'null-co://', not '%s'",
                  filename);
        return NULL;
    }
    struct options *opts = options_new();
    options_set(opts, "driver", "null-co");
    return opts;
}

static struct options *parse_path(const char *path)
{
    struct options *opts = options_new();
    struct stat st;

    options_set(opts, "driver",
                stat(path, &st) == 0 && S_ISBLK(st.st_mode) ? "host_device" : "file");
    options_set(opts, "filename", path);
    return opts;
}

struct options *block_filename_parse(const char *filename, struct error **errp)
{
    if (starts_with(filename, "json:")) {
        const char *json = filename + strlen("json:");
        if (*json != '{') {
            error_set(errp, "Could not parse the JSON options '%s': they begin with 'json:{'",
                      filename);
            return NULL;
        }
        return options_parse(json, NULL, errp);
    }
    if (starts_with(filename, "null-co:")) {
        return parse_null(filename, errp);
    }
    if (starts_with(filename, "file:")) {
        return parse_path(filename + strlen("file:"));
    }
    if (has_protocol(filename)) {
        int length = (int)strcspn(filename, ":");
        error_set(errp, "Unknown protocol '%.*s' in '%s'; for a file of that name write './%s'",
                  length, filename, filename, filename);
        return NULL;
    }
    return parse_path(filename);
}
