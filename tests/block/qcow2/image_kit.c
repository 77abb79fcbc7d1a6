/* SPDX-License-Identifier: MIT */
/* See image_kit.h. */
#include "image_kit.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "block/qcow2/format.h"

static int shell(const char *fmt, va_list ap) __attribute__((format(printf, 1, 0)));

static int shell(const char *fmt, va_list ap)
{
    autofree char *command = xvasprintf(fmt, ap);
    int status = system(command);

    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int run_status(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int status = shell(fmt, ap);
    va_end(ap);
    return status;
}

void run(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int status = shell(fmt, ap);
    va_end(ap);
    if (status) {
        fail_msg("status %d of: %s", status, fmt);
    }
}

char *run_output(const char *fmt, ...)
{
    va_list ap;
    size_t size = 0, room = 4096;
    char *text = xmalloc(room);

    va_start(ap, fmt);
    autofree char *command = xvasprintf(fmt, ap);
    va_end(ap);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    for (size_t n; (n = fread(text + size, 1, room - size - 1, f)) > 0;) {
        size += n;
        if (size + 1 == room) {
            room *= 2;
            text = xrealloc(text, room);
        }
    }
    pclose(f);
    text[size] = 0;
    return text;
}

static char *slurp(const char *name, size_t *size)
{
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    struct stat st;

    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    char *data = xmalloc(st.st_size + 1);
    assert_int_equal(read(fd, data, st.st_size), st.st_size);
    close(fd);
    *size = st.st_size;
    return data;
}

void copy_file(const char *from, const char *to)
{
    size_t size;
    autofree char *data = slurp(from, &size);
    int fd = open(to, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size), size);
    close(fd);
}

bool same_files(const char *a, const char *b)
{
    size_t size_a, size_b;
    autofree char *data_a = slurp(a, &size_a);
    autofree char *data_b = slurp(b, &size_b);

    return size_a == size_b && memcmp(data_a, data_b, size_a) == 0;
}

/* ---- bytes ------------------------------------------------------------------------------------ */

static void get(struct image *image, uint64_t offset, void *to, size_t size)
{
    memset(to, 0, size);
    assert_true(pread(image->fd, to, size, (off_t)offset) >= 0);
}

void image_put(struct image *image, uint64_t offset, const void *from, size_t size)
{
    assert_int_equal(pwrite(image->fd, from, size, (off_t)offset), size);
}

void image_open(struct image *image, const char *name)
{
    uint8_t h[QCOW2_H_V3_LENGTH];

    image->fd = open(name, O_RDWR | O_CLOEXEC);
    assert_true(image->fd >= 0);
    get(image, 0, h, sizeof(h));
    image->cluster_size = BIT64(load_be32(h + QCOW2_H_CLUSTER_BITS));
    image->l1 = load_be64(h + QCOW2_H_L1_OFFSET);
    image->l2 = image_get64(image, image->l1) & QCOW2_OFFSET_MASK;
    image->reftable = load_be64(h + QCOW2_H_REFTABLE_OFFSET);
    image->refblock = image_get64(image, image->reftable);
    image->snapshots = load_be64(h + QCOW2_H_SNAPSHOTS_OFFSET);
}

void image_close(struct image *image)
{
    close(image->fd);
}

uint64_t image_get64(struct image *image, uint64_t offset)
{
    uint8_t raw[8];

    get(image, offset, raw, sizeof(raw));
    return load_be64(raw);
}

void image_put64(struct image *image, uint64_t offset, uint64_t value)
{
    uint8_t raw[8];

    store_be64(raw, value);
    image_put(image, offset, raw, sizeof(raw));
}

void image_put32(struct image *image, uint64_t offset, uint32_t value)
{
    uint8_t raw[4];

    store_be32(raw, value);
    image_put(image, offset, raw, sizeof(raw));
}

void image_put16(struct image *image, uint64_t offset, uint16_t value)
{
    uint8_t raw[2];

    store_be16(raw, value);
    image_put(image, offset, raw, sizeof(raw));
}

uint64_t image_size(struct image *image)
{
    struct stat st;

    assert_int_equal(fstat(image->fd, &st), 0);
    return st.st_size;
}

void image_truncate(struct image *image, uint64_t size)
{
    assert_int_equal(ftruncate(image->fd, (off_t)size), 0);
}

/* ---- checks ----------------------------------------------------------------------------------- */

static uint64_t number(json_t *object, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(object, key)); /* 0 if it is not there */
}

bool qemu_check(const char *name, struct block_check_result *result)
{
    autofree char *text =
        run_output("qemu-img check -f qcow2 --output=json '%s' 2>/dev/null", name);
    json_t *object = json_loads(text, 0, NULL);

    *result = (struct block_check_result){
        .corruptions = number(object, "corruptions"),
        .leaks = number(object, "leaks"),
        .check_errors = number(object, "check-errors"),
        .image_end_offset = number(object, "image-end-offset"),
        .total_clusters = number(object, "total-clusters"),
        .allocated_clusters = number(object, "allocated-clusters"),
        .fragmented_clusters = number(object, "fragmented-clusters"),
        .compressed_clusters = number(object, "compressed-clusters"),
    };
    json_decref(object);
    return object;
}

static void gather(void *opaque, const char *line)
{
    fprintf(opaque, "%s\n", line);
}

static struct block_backend *open_with(const char *text, bool writable, unsigned flags,
                                       struct error **errp)
{
    bool is_options = strncmp(text, "driver=", 7) == 0;
    struct block_image_how how = {
        .filename = text,
        .format = is_options ? NULL : "qcow2",
        .image_opts = is_options,
        .writable = writable,
        .flags = flags,
        .user = "test",
    };

    return block_image_open(&how, errp);
}

bool ferry_check(const char *name, unsigned fix, struct block_check_result *result, char **lines,
                 char **error)
{
    struct error *err = NULL;
    struct block_backend *be = open_with(name, fix, BLOCK_OPEN_CHECK | BLOCK_OPEN_NO_BACKING, &err);
    char *said = NULL;
    size_t size;
    FILE *to = open_memstream(&said, &size);
    bool done = false;

    *result = (struct block_check_result){0};
    if (be) {
        struct block_node *node = backend_root(be);
        done = node->driver->image->check(node, fix, result, gather, to, &err);
        assert_int_equal(done, !err);
        block_image_close(be);
    }
    fclose(to);
    if (lines) {
        *lines = said;
    } else {
        free(said);
    }
    if (error) {
        *error = err ? xstrdup(error_message(err)) : NULL;
    }
    error_free(err);
    return done;
}

/* ---- opening ---------------------------------------------------------------------------------- */

struct block_backend *image_backend(const char *text, bool writable)
{
    struct error *err = NULL;
    struct block_backend *be = open_with(text, writable, 0, &err);

    if (!be) {
        fail_msg("%s: %s", text, error_message(err));
    }
    return be;
}

void image_backend_close(struct block_backend *be)
{
    block_image_close(be);
}

void snapshot_op(struct block_backend *be, const char *op, const char *arg, const char *message)
{
    struct block_node *node = backend_root(be);
    const struct block_image_ops *ops = node->driver->image;
    char *name = (char *)(uintptr_t)arg;
    struct block_snapshot snapshot = {.name = name, .date_sec = 1700000000};
    struct error *err = NULL;
    bool done = false;

    if (strcmp(op, "create") == 0) {
        done = ops->snapshot_create(node, &snapshot, &err);
    } else if (strcmp(op, "apply") == 0) {
        done = ops->snapshot_apply(node, arg, &err);
    } else if (strcmp(op, "delete") == 0) {
        done = ops->snapshot_delete(node, arg, &err);
    } else if (strcmp(op, "load") == 0) {
        done = ops->snapshot_load(node, &(struct block_snapshot_key){.id_or_name = arg}, &err);
    }
    if (done == (message != NULL)) {
        fail_msg("%s %s: %s", op, arg, err ? error_message(err) : "should have failed");
    }
    if (message) {
        assert_string_equal(error_message(err), message);
    }
    error_free(err);
}
