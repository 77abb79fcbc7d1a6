/* SPDX-License-Identifier: MIT */
/*
 * Images as tools open them: making raw images, growth and other lengths, locks, other flags for an
 * open node, what an image says of itself, and what nodes are called; and the overlays of -drive.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/range.h"
#include "block/file.h"
#include "block/image.h"
#include "block/name.h"
#include "kit.h"

static struct block_backend *open_image(const char *filename, const char *format, bool writable,
                                        unsigned flags, struct error **errp)
{
    return block_image_open(
        &(struct block_image_how){
            .filename = filename,
            .format = format,
            .writable = writable,
            .flags = flags,
            .user = "test",
        },
        errp);
}

static struct block_backend *must_open(const char *filename, const char *format, bool writable)
{
    struct error *err = NULL;
    struct block_backend *be = open_image(filename, format, writable, 0, &err);

    if (!be) {
        fail_msg("%s: %s", filename, error_message(err));
    }
    return be;
}

static void create(const char *filename, const char *format, const char *options,
                   const char *message)
{
    struct error *err = NULL;
    struct options *opts = options_parse(options, NULL, &err);

    assert_non_null(opts);
    bool ok = block_image_create(filename, format, opts, 0, &err);
    options_free(opts);
    if (!message) {
        if (!ok) {
            fail_msg("%s: %s", options, error_message(err));
        }
        return;
    }
    assert_false(ok);
    kit_assert_error(err, message);
}

/* ---- making ---------------------------------------------------------------------------------- */

static void raw_images_are_made(void **state)
{
    struct stat st;

    create("r", "raw", "size=1M", NULL);
    assert_int_equal(kit_file_size("r"), MiB);
    create("r", "raw", "size=1000", NULL); /* over the old one; whole sectors */
    assert_int_equal(kit_file_size("r"), 1024);
    create("r", "raw", "size=64k,preallocation=full", NULL);
    assert_int_equal(stat("r", &st), 0);
    assert_true(st.st_blocks * 512 >= 65536);
    create("r", "raw", "size=64k,preallocation=falloc", NULL);
    assert_int_equal(kit_file_size("r"), 65536);
}

static void what_cannot_be_made_is_refused(void **state)
{
    create("new", "raw", "size=1M,cluster_size=64k", "Invalid parameter 'cluster_size'");
    create("new", "raw", "size=1M,sise=3", "Invalid parameter 'sise' | Did you mean 'size'?");
    create("new", "raw", "preallocation=off", "Image creation needs a size parameter");
    create("new", "raw", "size=1M,preallocation=metadata",
           "Preallocation mode 'metadata' is not for raw images; use off, falloc or full");
    create("new", "nope", "size=1M", "Unknown file format 'nope'");
    create("new", "null-co", "size=1M", "Format driver 'null-co' does not support image creation");
    create("no/such/folder", "raw", "size=1M",
           "Could not create 'no/such/folder': No such file or directory");
    assert_int_equal(access("new", F_OK), -1); /* nothing is left behind */
}

static void what_is_in_use_is_not_overwritten(void **state)
{
    kit_make_file("busy", 65536);
    struct block_backend *be = must_open("busy", "raw", true);

    create("busy", "raw", "size=1M", "'busy' is in use as 'busy'; give the new image another name");
    assert_int_equal(kit_file_size("busy"), 65536);
    block_image_close(be);

    /* Nor without locks, whatever its name. */
    be = open_image("busy", "raw", false, BLOCK_OPEN_FORCE_SHARE, NULL);
    assert_non_null(be);
    assert_int_equal(symlink("busy", "link"), 0);
    create("link", "qcow2", "size=1M",
           "'link' is in use as 'busy'; give the new image another name");
    assert_int_equal(kit_file_size("busy"), 65536);
    block_image_close(be);

    /* By another process. */
    int fd = open("busy", O_RDWR);
    const struct block_perms none = {0}, writes = {.used = BLOCK_PERM_WRITE};
    assert_true(file_lock(fd, &none, &writes, "busy", NULL));
    struct error *err = NULL;
    struct options *opts = options_parse("size=1M", NULL, NULL);
    assert_false(block_image_create("busy", "raw", opts, 0, &err));
    assert_non_null(strstr(error_message(err), "another process is using 'busy'"));
    error_free(err);
    options_free(opts);
    close(fd);
    assert_int_equal(kit_file_size("busy"), 65536);
}

static void a_backing_file_is_not_overwritten(void **state)
{
    kit_make_file("base", 65536);
    assert_int_equal(symlink("base", "other"), 0);
    create("base", "qcow2", "backing_file=./base,backing_fmt=raw",
           "Error: Trying to create an image with the same filename as the backing file");
    create("other", "qcow2", "backing_file=base,backing_fmt=raw",
           "Error: Trying to create an image with the same filename as the backing file");
    assert_int_equal(kit_file_size("base"), 65536);
}

/* ---- lengths --------------------------------------------------------------------------------- */

struct truncation {
    struct block_node *node;
    uint64_t length;
    struct error *err;
};

static int co_truncate(void *opaque)
{
    struct truncation *t = opaque;

    return block_co_truncate(t->node, t->length, BLOCK_PREALLOC_OFF, &t->err);
}

static int set_length(struct block_backend *be, uint64_t length, const char *message)
{
    struct truncation t = {.node = backend_root(be), .length = length};
    int ret = block_run(co_truncate, &t);

    if (message) {
        assert_true(ret < 0);
        kit_assert_error(t.err, message);
    }
    return ret;
}

static void lengths_change(void **state)
{
    char buffer[512] = "x", back[512];

    kit_make_file("l", 4096);
    struct block_backend *be = must_open("l", "raw", true);
    assert_int_equal(set_length(be, 8192, NULL), 0);
    assert_int_equal(backend_length(be), 8192);
    assert_int_equal(kit_file_size("l"), 8192);
    assert_int_equal(kit_write(be, 7680, buffer, 512), 0);
    assert_int_equal(kit_read(be, 7168, back, 512), 0);
    assert_int_equal(back[0], 0);
    assert_int_equal(set_length(be, 512, NULL), 0);
    assert_int_equal(kit_file_size("l"), 512);
    assert_int_equal(kit_read(be, 512, back, 512), -EIO);
    assert_int_equal(set_length(be, 513, NULL), 0); /* seen as whole sectors */
    assert_int_equal(kit_file_size("l"), 513);
    assert_int_equal(backend_length(be), 1024);
    assert_int_equal(kit_read(be, 512, back, 512), 0);
    set_length(be, UINT64_MAX - 511, "A length of 18446744073709551104 bytes is too much");
    block_image_close(be);

    be = must_open("l", "raw", false);
    set_length(be, 1024, "Image 'l' is read-only");
    block_image_close(be);
}

/* As formats need it of their file, and nobody else. */
static void files_grow_for_formats_only(void **state)
{
    char buffer[512] = "x", back[512];

    kit_make_file("g", 1000);
    struct block_backend *be = kit_drive("file=g,format=file,if=none");
    assert_int_equal(backend_length(be), 1024);
    assert_int_equal(kit_write(be, 1024, buffer, 512), -EIO);

    assert_true(block_node_allow_growth(backend_root(be)));
    assert_int_equal(kit_write(be, 8192, buffer, 512), 0);
    assert_int_equal(backend_length(be), 8704);
    assert_int_equal(kit_file_size("g"), 8704);
    assert_int_equal(kit_read(be, 4096, back, 512), 0);
    assert_int_equal(back[0], 0);
    assert_int_equal(kit_zero(be, 16384, 4096, 0), 0);
    assert_int_equal(backend_length(be), 20480);
    assert_int_equal(kit_read(be, 16384, back, 512), 0);
    assert_int_equal(back[0], 0);
    kit_close();

    be = kit_drive("driver=null-co,size=4k,if=none");
    assert_false(block_node_allow_growth(backend_root(be)));
}

/* ---- locks and flags ------------------------------------------------------------------------- */

static void one_writes_or_many_read(void **state)
{
    struct error *err = NULL;

    kit_make_file("k", 4096);
    struct block_backend *reader = must_open("k", "raw", false);
    struct block_backend *second = must_open("k", "raw", false);
    assert_null(open_image("k", "raw", true, 0, &err));
    assert_non_null(strstr(error_message(err), "another process is using 'k'"));
    error_free(err);
    err = NULL;
    block_image_close(second);
    block_image_close(reader);

    struct block_backend *writer = must_open("k", "raw", true);
    assert_null(open_image("k", "raw", false, 0, &err));
    error_free(err);
    err = NULL;
    /* -U */
    struct block_backend *onlooker = open_image("k", "raw", false, BLOCK_OPEN_FORCE_SHARE, &err);
    assert_non_null(onlooker);
    assert_null(open_image("k", "raw", true, BLOCK_OPEN_FORCE_SHARE, &err));
    kit_assert_error(err, "force-share=on can only be used with read-only=on");
    block_image_close(onlooker);
    block_image_close(writer);
}

static void formats_are_found_or_given(void **state)
{
    struct error *err = NULL;

    kit_make_file("f", 4096);
    struct block_backend *be = must_open("f", NULL, false);
    assert_string_equal(backend_root(be)->driver->name, "raw");
    block_image_close(be);

    be = block_image_open(
        &(struct block_image_how){
            .filename = "driver=raw,offset=512,file.driver=file,file.filename=f",
            .image_opts = true,
            .user = "test",
        },
        &err);
    assert_non_null(be);
    assert_int_equal(backend_length(be), 3584);
    block_image_close(be);

    assert_null(open_image("f", "nope", false, 0, &err));
    assert_non_null(strstr(error_message(err), "Unknown driver 'nope'"));
    error_free(err);
    err = NULL;
    assert_null(open_image("missing", NULL, false, 0, &err));
    kit_assert_error(err, "Could not open 'missing': No such file or directory");
}

static void backing_names_begin_at_their_image(void **state)
{
    static const struct {
        const char *image, *backing, *path;
    } cases[] = {
        {"a.qcow2", "b.raw", "b.raw"},
        {"dir/a.qcow2", "b.raw", "dir/b.raw"},
        {"/x/a.qcow2", "../b.raw", "/x/../b.raw"},
        {"/x/a.qcow2", "/b.raw", "/b.raw"},
        {"/x/a.qcow2", "nbd://h/e", "nbd://h/e"},
        {"file:/x/a.qcow2", "b", "/x/b"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        autofree char *path = block_image_backing_path(cases[i].image, cases[i].backing, NULL);
        assert_string_equal(path, cases[i].path);
    }
    struct error *err = NULL;
    assert_null(block_image_backing_path("json:{}", "b", &err));
    kit_assert_error(err, "Cannot use relative backing file names for 'json:{}': 'b'");
}

/* ---- what nodes are called ------------------------------------------------------------------- */

static struct block_node *open_nodes(const char *text)
{
    struct error *err = NULL;
    struct block_node *node = block_image_open_node(
        &(struct block_image_how){.filename = text, .image_opts = true}, &err);

    if (!node) {
        fail_msg("%s: %s", text, error_message(err));
    }
    return node;
}

#define I_FILE "{\"driver\": \"file\", \"filename\": \"i\"}"

static void nodes_are_called_what_opens_the_same(void **state)
{
    static const struct {
        const char *options, *name;
    } cases[] = {
        {"driver=raw,file.filename=i", "i"},
        {"driver=raw,file.filename=x:i", "./x:i"},
        {"driver=file,filename=i,aio=threads,locking=off", "i"},
        {"driver=raw,size=512,offset=1k,file.filename=i",
         "json:{\"offset\": \"1k\", \"driver\": \"raw\", \"size\": \"512\", \"file\": " I_FILE "}"},
        {"{'driver':'raw','size':512,'file':{'driver':'raw','file.filename':'i'}}",
         "json:{\"driver\": \"raw\", \"size\": 512, \"file\": {\"driver\": \"raw\", "
         "\"file\": " I_FILE "}}"},
        {"driver=raw,file.driver=blkdebug,file.image.filename=i", "blkdebug::i"},
        {"driver=raw,file.driver=blkdebug,file.image.filename=x:i", "blkdebug::./x:i"},
        {"driver=raw,file.driver=blkdebug,file.align=512,file.image.filename=i",
         "json:{\"driver\": \"raw\", \"file\": {\"image\": " I_FILE
         ", \"driver\": \"blkdebug\", \"align\": \"512\"}}"},
        {"{'driver':'blkdebug','set-state':[{'event':'l2_update','new_state':2}],'image':{'driver':"
         "'file',"
         "'filename':'i'}}",
         "json:{\"image\": " I_FILE ", \"driver\": \"blkdebug\", \"set-state.0.event\": "
         "\"l2_update\", \"set-state.0.new_state\": 2}"},
        {"driver=copy-on-read,file.driver=raw,file.file.filename=i",
         "json:{\"driver\": \"copy-on-read\", \"file\": {\"driver\": \"raw\", \"file\": " I_FILE
         "}}"},
        {"driver=null-co,latency-ns=1", "null-co://"},
        {"driver=null-co,read-zeroes=on",
         "json:{\"read-zeroes\": \"on\", \"driver\": \"null-co\"}"},
        {"driver=qcow2,file.filename=q", "q"},
        {"driver=qcow2,file.filename=q,lazy-refcounts=on,backing.driver=raw", "q"},
        {"driver=qcow2,file.filename=q,backing=",
         "json:{\"backing\": null, \"driver\": \"qcow2\", \"file\": {\"driver\": \"file\", "
         "\"filename\": \"q\"}}"},
        {"driver=qcow2,file.filename=q,backing.driver=raw,backing.file.driver=null-co",
         "json:{\"backing\": {\"driver\": \"raw\", \"file\": {\"driver\": \"null-co\"}}, "
         "\"driver\": \"qcow2\", \"file\": {\"driver\": \"file\", \"filename\": \"q\"}}"},
    };

    kit_make_file("i", 65536);
    kit_make_file("x:i", 65536);
    create("q", "qcow2", "backing_file=i,backing_fmt=raw", NULL);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct block_node *node = open_nodes(cases[i].options);
        assert_string_equal(node->filename, cases[i].name);
        block_node_unref(node);
    }
}

static void names_follow_the_graph(void **state)
{
    struct error *err = NULL;

    kit_make_file("i", 65536);
    create("q", "qcow2", "backing_file=i,backing_fmt=raw", NULL);
    struct block_node *top =
        open_nodes("driver=raw,size=512,file.driver=qcow2,file.file.filename=q");
    assert_null(strstr(top->filename, "backing"));
    assert_true(block_node_set_backing(top->file, NULL, &err));
    assert_non_null(strstr(top->file->filename, "json:{\"backing\": null, "));
    assert_non_null(strstr(top->filename, "\"file\": {\"backing\": null, "));
    block_node_unref(top);
}

static void nodes_are_compared_by_what_they_show(void **state)
{
    static const struct {
        const char *first, *second;
        bool same;
    } cases[] = {
        {"driver=raw,file.filename=i", "driver=raw,file.filename=./i", true},
        {"driver=raw,file.filename=i", "driver=raw,file.filename=hard", true},
        {"driver=raw,file.filename=i", "driver=raw,file.filename=x:i", false},
        {"driver=raw,file.filename=i", "driver=raw,offset=512,file.filename=i", false},
        {"driver=raw,offset=512,file.filename=i", "driver=raw,offset=512,file.filename=i", true},
        {"driver=raw,size=512,file.filename=i", "driver=raw,size=1k,file.filename=i", false},
        {"driver=raw,file.filename=q", "driver=qcow2,file.filename=q", false},
        {"driver=qcow2,file.filename=q", "driver=qcow2,file.filename=./q", true},
        {"driver=qcow2,file.filename=q", "driver=qcow2,file.filename=q,backing=", false},
        {"driver=qcow2,file.filename=q,backing=", "driver=qcow2,file.filename=q", false},
        {"driver=qcow2,file.filename=q",
         "driver=qcow2,file.filename=q,backing.driver=raw,"
         "backing.file.filename=x:i",
         false},
    };

    kit_make_file("i", 65536);
    kit_make_file("x:i", 65536);
    assert_int_equal(link("i", "hard"), 0);
    create("q", "qcow2", "backing_file=i,backing_fmt=raw", NULL);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct block_node *a = open_nodes(cases[i].first), *b = open_nodes(cases[i].second);
        assert_int_equal(block_name_is_same(a, b), cases[i].same);
        assert_true(block_name_is_same(a, a));
        block_node_unref(a);
        block_node_unref(b);
    }
    unlink("hard");
}

static void an_image_describes_itself(void **state)
{
    struct block_image_info info;

    kit_make_file("i", 65536);
    struct block_backend *be = must_open("i", "raw", false);
    block_image_info(backend_root(be), &info);
    assert_int_equal(info.virtual_size, 65536);
    assert_true(info.actual_size >= 65536);
    assert_null(info.backing_filename);
    block_image_info_free(&info);
    block_image_close(be);
}

/* ---- snapshot=on ----------------------------------------------------------------------------- */

#define SNAPSHOT_OF_I "if=none,file=i,format=raw,snapshot=on"

static void writes_go_to_the_overlay(void **state)
{
    uint8_t buffer[4096], now[65536];

    kit_make_file("i", sizeof(now));
    for (int i = 0; i < 2; i++) { /* what was written is lost */
        struct block_backend *be = kit_drive(SNAPSHOT_OF_I "%s", i ? ",force-share=on" : "");
        struct block_node *root = backend_root(be);
        assert_string_equal(root->driver->name, "qcow2");
        assert_false(backend_is_readonly(be));
        assert_false(root->flags & BLOCK_OPEN_DETECT_ZEROES);
        assert_false(root->backing->flags & BLOCK_OPEN_RDWR);
        assert_int_equal(kit_read(be, 4096, buffer, sizeof(buffer)), 0);
        assert_int_equal(buffer[0], kit_pattern(4096));
        memset(buffer, 0xee, sizeof(buffer));
        assert_int_equal(kit_write(be, 4096, buffer, sizeof(buffer)), 0);
        assert_int_equal(kit_zero(be, 32768, 4096, BLOCK_REQ_MAY_UNMAP), 0);
        assert_int_equal(kit_read(be, 0, now, sizeof(now)), 0);
        for (size_t at = 0; at < sizeof(now); at++) {
            uint8_t old = at / 4096 == 8 ? 0 : kit_pattern(at);
            assert_int_equal(now[at], at / 4096 == 1 ? 0xee : old);
        }
        kit_close();
        kit_read_file("i", 0, now, sizeof(now));
        for (size_t at = 0; at < sizeof(now); at++) {
            assert_int_equal(now[at], kit_pattern(at));
        }
    }
}

/* What is said of the drive holds for the overlay, not for the image. */
static void overlays_are_as_their_drive(void **state)
{
    static const struct {
        const char *options;
        unsigned flags;
    } cases[] = {
        {"", BLOCK_OPEN_RDWR},
        {",readonly=off", BLOCK_OPEN_RDWR},
        {",readonly=on", 0},
        {",read-only=on,iops=1000", 0},
        {",media=cdrom", 0},
        {",detect-zeroes=on", BLOCK_OPEN_RDWR | BLOCK_OPEN_DETECT_ZEROES},
        {",detect-zeroes=unmap", BLOCK_OPEN_RDWR | BLOCK_OPEN_DETECT_ZEROES},
        {",detect-zeroes=on,readonly=on", BLOCK_OPEN_DETECT_ZEROES},
        {",detect-zeroes=unmap,discard=unmap,iops=1000",
         BLOCK_OPEN_RDWR | BLOCK_OPEN_DETECT_ZEROES | BLOCK_OPEN_DETECT_UNMAP},
    };
    const unsigned detect = BLOCK_OPEN_DETECT_ZEROES | BLOCK_OPEN_DETECT_UNMAP;
    uint8_t buffer[512] = {0};

    kit_make_file("i", 65536);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        bool writable = cases[i].flags & BLOCK_OPEN_RDWR;
        struct block_backend *be = kit_drive(SNAPSHOT_OF_I "%s", cases[i].options);
        struct block_node *overlay = block_node_skip_filters(backend_root(be));
        assert_int_equal(overlay->flags & (BLOCK_OPEN_RDWR | detect), cases[i].flags);
        assert_int_equal(overlay->backing->flags & (BLOCK_OPEN_RDWR | detect), 0);
        assert_int_equal(backend_is_readonly(be), !writable);
        assert_int_equal(kit_write(be, 0, buffer, sizeof(buffer)), writable ? 0 : -EROFS);
        assert_int_equal(kit_read(be, 0, buffer, sizeof(buffer)), 0);
        assert_int_equal(buffer[0], writable ? 0 : kit_pattern(0));
        memset(buffer, 0, sizeof(buffer));
        kit_close();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(raw_images_are_made, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_made_is_refused, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(what_is_in_use_is_not_overwritten, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(a_backing_file_is_not_overwritten, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(lengths_change, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(files_grow_for_formats_only, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(one_writes_or_many_read, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(formats_are_found_or_given, kit_setup, kit_teardown),
        cmocka_unit_test(backing_names_begin_at_their_image),
        cmocka_unit_test_setup_teardown(nodes_are_called_what_opens_the_same, kit_setup,
                                        kit_teardown),
        cmocka_unit_test_setup_teardown(names_follow_the_graph, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(nodes_are_compared_by_what_they_show, kit_setup,
                                        kit_teardown),
        cmocka_unit_test_setup_teardown(an_image_describes_itself, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(writes_go_to_the_overlay, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(overlays_are_as_their_drive, kit_setup, kit_teardown),
    };

    return cmocka_run_group_tests_name("block/image", tests, kit_enter_directory,
                                       kit_leave_directory);
}
