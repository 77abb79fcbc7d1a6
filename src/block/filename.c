/* SPDX-License-Identifier: MIT */
/* File names made into options. See filename.h. */
#include "block/filename.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/filename_int.h"

/* null-co://, null-aio:// */
static struct options *parse_null(const char *filename, struct error **errp)
{
    autofree char *driver = xstrndup(filename, strcspn(filename, ":"));
    const char *rest = filename + strlen(driver);

    if (strcmp(rest, "://")) {
        error_set(errp, "The only allowed filename for this driver is '%s://', not '%s'", driver,
                  filename);
        return NULL;
    }
    struct options *opts = options_new();
    options_set(opts, "driver", driver);
    return opts;
}

bool block_filename_has_protocol(const char *filename)
{
    return filename[strcspn(filename, ":/")] == ':';
}

char *block_filename_of_path(const char *path)
{
    return xasprintf("%s%s", block_filename_has_protocol(path) ? "./" : "", path);
}

static const char *path_driver(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISBLK(st.st_mode) ? "host_device" : "file";
}

static struct options *parse_path(const char *text)
{
    autofree char *path = block_filename_of_path(text);
    struct options *opts = options_new();

    options_set(opts, "driver", path_driver(path));
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
        options_copy(opts, key, child, i);
    }
    options_free(child);
    return opts;
}

/* A backing file is no file but an image: what its format is, the image above says. */
static bool names_backing(const char *prefix)
{
    const char *dot = strrchr(prefix, '.');

    return !strcmp(dot ? dot + 1 : prefix, "backing");
}

/* The next "PREFIX" of a "PREFIX.filename" without "PREFIX.driver", or NULL; *path is its value. The
 * caller frees it. */
static char *find_nameless(const struct options *opts, const char **path)
{
    static const char end[] = ".filename";

    for (size_t i = 0; i < options_count(opts); i++) {
        const char *key = options_key(opts, i);
        size_t length = strlen(key);
        if (length < sizeof(end) || strcmp(key + length - strlen(end), end) != 0) {
            continue;
        }
        char *prefix = xstrndup(key, length - strlen(end));
        autofree char *driver = xasprintf("%s.driver", prefix);
        if (!options_has(opts, driver) && !names_backing(prefix)) {
            *path = options_value(opts, i);
            return prefix;
        }
        free(prefix);
    }
    return NULL;
}

void block_filename_add_drivers(struct options *opts)
{
    for (;;) {
        const char *path;
        autofree char *prefix = find_nameless(opts, &path);
        if (!prefix) {
            return;
        }
        autofree char *key = xasprintf("%s.driver", prefix);
        options_set(opts, key, path_driver(path));
    }
}

static struct options *parse_json(const char *filename, struct error **errp)
{
    const char *json = filename + strlen("json:");

    json += strspn(json, " \t\r\n");
    if (*json != '{') {
        error_set(errp, "Could not parse the JSON options '%s': they begin with 'json:{'",
                  filename);
        return NULL;
    }
    struct options *opts = options_parse(json, NULL, errp);
    if (opts) {
        options_loosen(opts);
        block_filename_add_drivers(opts);
    } else {
        error_prepend(errp, "Could not parse the JSON options: ");
    }
    return opts;
}

static struct options *parse_file(const char *filename, struct error **errp)
{
    return parse_path(filename + strlen("file:"));
}

/* host_device:/dev/sda is that, whatever the path is: opening tells. */
static struct options *parse_host_device(const char *filename, struct error **errp)
{
    struct options *opts = options_new();

    options_set(opts, "driver", "host_device");
    autofree char *path = block_filename_of_path(filename + strlen("host_device:"));
    options_set(opts, "filename", path);
    return opts;
}

static const struct protocol {
    const char *name;
    struct options *(*parse)(const char *filename, struct error **errp);
} protocols[] = {
    {"json", parse_json},
    {"file", parse_file},
    {"host_device", parse_host_device},
    {"null-co", parse_null},
    {"null-aio", parse_null},
    {"blkdebug", parse_blkdebug},
    {"nbd", filename_parse_nbd},
    {"nbd+tcp", filename_parse_nbd},
    {"nbd+unix", filename_parse_nbd},
    {"nbds", filename_parse_nbd},
    {"nbds+tcp", filename_parse_nbd},
    {"nbds+unix", filename_parse_nbd},
};

/* QEMU's, which there are none of here. */
static const char *const other_protocols[] = {
    "blkverify",    "blkreplay",    "fat",        "ftp",      "ftps",  "gluster", "gluster+tcp",
    "gluster+unix", "gluster+rdma", "host_cdrom", "http",     "https", "iscsi",   "iser",
    "nfs",          "nvme",         "rbd",        "sheepdog", "ssh",   "vvfat",
};

struct options *block_filename_parse(const char *filename, struct error **errp)
{
    size_t length = strcspn(filename, ":/");

    if (filename[length] != ':') {
        return parse_path(filename);
    }
    for (size_t i = 0; i < ARRAY_SIZE(protocols); i++) {
        const struct protocol *p = &protocols[i];
        if (strlen(p->name) == length && !strncmp(p->name, filename, length)) {
            return p->parse(filename, errp);
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(other_protocols); i++) {
        const char *name = other_protocols[i];
        if (strlen(name) == length && !strncmp(name, filename, length)) {
            error_set(errp,
                      "Protocol '%s' of '%s' is not supported in this build; use nbd, or a "
                      "local file",
                      name, filename);
            return NULL;
        }
    }
    error_set(errp, "Unknown protocol '%.*s' in '%s'; for a file of that name write './%s'",
              (int)length, filename, filename, filename);
    return NULL;
}
