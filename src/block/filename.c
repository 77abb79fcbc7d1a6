/* SPDX-License-Identifier: MIT */
/* File names made into options. See filename.h. */
#include "block/filename.h"

#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"

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

/* blkdebug:CONFIG:IMAGE; CONFIG may be empty. */
static struct options *parse_blkdebug(const char *filename, struct error **errp)
{
    const char *config = filename + strlen("blkdebug:");
    const char *image = strchr(config, ':');

    if (!image) {
        error_set(errp,
                  "blkdebug requires both config file and image path: blkdebug:CONFIG:IMAGE, not "
                  "'%s'",
                  filename);
        return NULL;
    }
    struct options *child = block_filename_parse(image + 1, errp);
    if (!child) {
        return NULL;
    }
    struct options *opts = options_new();
    options_set(opts, "driver", "blkdebug");
    if (image > config) {
        autofree char *name = xstrndup(config, image - config);
        options_set(opts, "config", name);
    }
    for (size_t i = 0; i < options_count(child); i++) {
        autofree char *key = xasprintf("image.%s", options_key(child, i));
        options_set(opts, key, options_value(child, i));
    }
    options_free(child);
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
    if (starts_with(filename, "blkdebug:")) {
        return parse_blkdebug(filename, errp);
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
