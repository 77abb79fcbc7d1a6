/* SPDX-License-Identifier: MIT */
/* Options, lists, the short texts of -serial, and the back ends file, null and pty. */
#include <sys/stat.h>
#include <termios.h>

#include "kit.h"

static char *contents(const char *path)
{
    char *text = xcalloc(1, 4096);
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    assert_true(read(fd, text, 4095) >= 0);
    close(fd);
    return text;
}

static void expect_contents(const char *path, const char *text)
{
    autofree char *got = contents(path);
    assert_string_equal(got, text);
}

/* ---- options -------------------------------------------------------------------------------- */

static void bad_options(void **state)
{
    refuse("'backend' is missing", "id=x");
    refuse("'id' is missing", "null");
    refuse("expects an identifier", "null,id=0x");
    refuse("expects an identifier", "null,id=");
    refuse("'nul' is not a valid char driver name; did you mean 'null'?", "nul,id=x");
    refuse("'vc' is not a valid char driver name; -chardev help", "vc,id=x");
    refuse("null chardev 'x': unknown option 'path'", "null,id=x,path=y");
    refuse("unknown option 'signl'; did you mean 'signal'?", "stdio,id=x,signl=off");
    refuse("option 'mux': 'maybe'", "null,id=x,mux=maybe");
    refuse("no filename", "file,id=x");
    refuse("logappend=on needs logfile", "null,id=x,logappend=on");
    refuse("logfile: cannot open", "null,id=x,logfile=/nonexistent/x");
    refuse("cannot open '/nonexistent/x': No such file", "file,id=x,path=/nonexistent/x");
    refuse("Is a directory", "file,id=x,path=/tmp");
    /* A file is not emptied for a line that is wrong. */
    autofree char *path = xasprintf("%s/keep", kit_dir);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    send_text(fd, "precious");
    close(fd);
    refuse("unknown option 'apend'; did you mean 'append'?", "file,id=x,path=%s,apend=on", path);
    expect_contents(path, "precious");
    assert_null(chardev_first());

    make("null,id=x");
    refuse("Chardev with id 'x' already exists", "null,id=x");
}

static void json_options(void **state)
{
    struct chardev *chr = make("{\"backend\": \"null\", \"id\": \"j\", \"mux\": true}");
    assert_true(chardev_is_mux(chr));
    assert_string_equal(chardev_id(chr), "j");
}

static char *printed(const char *text)
{
    char *out = NULL;
    size_t size;
    FILE *to = open_memstream(&out, &size);
    struct options *opts = options_parse(text, "backend", NULL);
    bool is_help = chardev_print_help(opts, to);
    fclose(to);
    options_free(opts);
    assert_true(is_help == (size > 0));
    return out;
}

static void help(void **state)
{
    static const char *const texts[] = {"help", "?"};
    for (int i = 0; i < 2; i++) {
        autofree char *list = printed(texts[i]);
        assert_string_equal(list, "Available chardev backend types: \n"
                                  "  file\n  null\n  pty\n  socket\n  stdio\n");
    }
    autofree char *file = printed("file,help");
    assert_string_equal(file, "file options:\n  append=<bool (on/off)>\n  path=<str>\n"
                              "  logappend=<bool (on/off)>\n  logfile=<str>\n"
                              "  mux=<bool (on/off)>\n");
    autofree char *none = printed("file,id=x,path=y");
    assert_string_equal(none, "");
    autofree char *unknown = printed("nothing,help");
    assert_string_equal(unknown, "");
}

static void the_registry(void **state)
{
    assert_null(chardev_first());
    struct chardev *a = make("null,id=a"), *b = make("null,id=b"), *c = make("null,id=c");
    assert_ptr_equal(chardev_first(), a);
    assert_ptr_equal(chardev_next(a), b);
    assert_ptr_equal(chardev_next(b), c);
    assert_null(chardev_next(c));
    assert_true(chardev_delete(b, NULL));
    assert_ptr_equal(chardev_next(a), c);
    assert_null(chardev_find("b"));
    assert_ptr_equal(chardev_find("c"), c);
}

/* ---- legacy --------------------------------------------------------------------------------- */

static void expect_legacy(const char *text, const char *filename)
{
    struct error *err = NULL;
    struct chardev *chr = chardev_new_from_legacy(text, "serial0", &err);
    if (!chr)
        fail_msg("%s: %s", text, error_message(err));
    assert_string_equal(chardev_id(chr), "serial0");
    autofree char *name = chardev_filename(chr);
    assert_string_equal(name, filename);
    assert_true(chardev_delete(chr, NULL));
}

static void refuse_legacy(const char *text, const char *part)
{
    struct error *err = NULL;
    if (chardev_new_from_legacy(text, "serial0", &err))
        fail_msg("'%s' was taken", text);
    if (!strstr(error_message(err), part))
        fail_msg("'%s': error '%s' lacks '%s'", text, error_message(err), part);
    error_free(err);
}

static void legacy(void **state)
{
    autofree char *file = xasprintf("file:%s/a,b=c,path", kit_dir);
    autofree char *path = xasprintf("%s/sock", kit_dir);
    autofree char *server = xasprintf("unix:%s,server=on,wait=off", path);
    autofree char *old_server = xasprintf("unix:%s,server,nowait", path);
    autofree char *server_name = xasprintf("disconnected:unix:%s,server=on", path);
    expect_legacy("null", "null");
    expect_legacy(file, "file");
    assert_int_equal(access(file + 5, F_OK), 0); /* a path is taken as it is */
    expect_legacy(server, server_name);
    expect_legacy(old_server, server_name);

    struct chardev *there = make("null,id=there");
    assert_ptr_equal(chardev_new_from_legacy("chardev:there", "serial0", NULL), there);

    struct chardev *mux = chardev_new_from_legacy("mon:null", "m", NULL);
    assert_true(chardev_is_mux(mux) && chardev_wants_monitor(mux));
    assert_false(chardev_wants_monitor(there));

    refuse_legacy("chardev:nowhere", "no chardev 'nowhere'");
    refuse_legacy("mon:chardev:there", "not a valid char driver");
    refuse_legacy("mon:mon:null", "not a valid char driver");
    refuse_legacy("none", "not a valid char driver");
    refuse_legacy("vc", "'vc' is not a valid char driver");
    refuse_legacy("", "not a valid char driver");
    refuse_legacy("null,x=y", "not a valid char driver");
    refuse_legacy("file:", "no filename");
    refuse_legacy("unix:", "path=PATH");
    refuse_legacy("unix:/nonexistent/x", "cannot connect to unix:/nonexistent/x: No such file");
    refuse_legacy("unix:/nonexistent/x,server,nowait", "cannot listen on unix:/nonexistent/x");
    refuse_legacy("unix:/tmp/x,srever=on", "unknown option 'srever'; did you mean 'server'?");
    refuse_legacy("tcp:", "no port");
    refuse_legacy("tcp:localhost", "no port");
    refuse_legacy("tcp:localhost:", "no port");
    refuse_legacy("tcp:::1:80", "too many colons");
    refuse_legacy("tcp:localhost:1,tls-creds=x", "unknown option 'tls-creds'");
    refuse_legacy("telnet:localhost:1", "not a valid char driver");
}

/* ---- file, null, logs ----------------------------------------------------------------------- */

static void files(void **state)
{
    autofree char *path = xasprintf("%s/out", kit_dir);
    struct chardev *chr = make("file,id=f,path=%s", path);
    struct fake *f = fake_attach(chr, 10);
    assert_string_equal(f->events, "O");
    assert_int_equal(chardev_write(chr, "one\n", 4), 4);
    expect_contents(path, "one\n"); /* at once */
    fake_free(f);
    assert_true(chardev_delete(chr, NULL));

    chr = make("file,id=f,path=%s,append=on", path);
    chardev_write(chr, "two\n", 4);
    expect_contents(path, "one\ntwo\n");
    assert_true(chardev_delete(chr, NULL));

    chr = make("file,id=f,path=%s", path);
    expect_contents(path, "");
    assert_true(chardev_delete(chr, NULL));

    /* A disk that is full: a warning, no more. */
    if (access("/dev/full", W_OK) == 0) {
        chr = make("file,id=f,path=/dev/full");
        for (int i = 0; i < 3; i++)
            assert_int_equal(chardev_write(chr, "x", 1), 1);
        assert_true(chardev_writable(chr));
    }
}

static void null(void **state)
{
    struct chardev *chr = make("null,id=n");
    struct fake *f = fake_attach(chr, 10);
    assert_string_equal(f->events, "O");
    for (int i = 0; i < 1000; i++)
        assert_int_equal(chardev_write(chr, kit_dir, sizeof(kit_dir)), sizeof(kit_dir));
    linger();
    assert_int_equal(f->count, 0);
    assert_int_equal(f->writable, 0);
    fake_free(f);
}

static void logs(void **state)
{
    autofree char *path = xasprintf("%s/log", kit_dir);
    struct chardev *chr = make("null,id=n,logfile=%s", path);
    chardev_write(chr, "a", 1);
    chardev_write_all(chr, "bc", 2);
    expect_contents(path, "abc");
    assert_true(chardev_delete(chr, NULL));
    chr = make("null,id=n,logfile=%s,logappend=on", path);
    chardev_write(chr, "d", 1);
    expect_contents(path, "abcd");
}

/* A named pipe whose reader goes away. */
static void a_pipe(void **state)
{
    autofree char *path = xasprintf("%s/fifo", kit_dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    int reader = open(path, O_RDONLY | O_NONBLOCK);
    struct chardev *chr = make("file,id=f,path=%s", path);
    struct fake *f = fake_attach(chr, 0);
    chardev_write(chr, "x", 1);
    expect_text(reader, "x");
    /* Full: it does not block. */
    static char chunk[4096];
    size_t taken = 0, n;
    do {
        n = chardev_write(chr, chunk, sizeof(chunk));
        taken += n;
    } while (n == sizeof(chunk));
    assert_true(taken >= 2 * 65536);
    close(reader);
    until(f->writable > 0);
    assert_int_equal(chardev_write(chr, "x", 1), 1);
    fake_free(f);
}

/* ---- pty ------------------------------------------------------------------------------------ */

static void pty(void **state)
{
    struct chardev *chr = make("pty,id=p");
    struct fake *f = fake_attach(chr, 1000);
    autofree char *name = chardev_filename(chr);
    assert_memory_equal(name, "pty:/dev/", 9);
    linger();
    assert_string_equal(f->events, "");
    assert_int_equal(chardev_write(chr, "dropped", 7), 7);

    int slave = open(name + 4, O_RDWR | O_NOCTTY | O_NONBLOCK);
    assert_true(slave >= 0);
    struct termios t;
    assert_int_equal(tcgetattr(slave, &t), 0);
    assert_false(t.c_lflag & (ECHO | ICANON));
    until(strcmp(f->events, "O") == 0);
    send_text(slave, "\003in\r");
    until(fake_got(f, "\003in\r"));
    chardev_write(chr, "out\n", 4);
    expect_text(slave, "out\n");
    close(slave);
    until(strcmp(f->events, "OC") == 0);

    slave = open(name + 4, O_RDWR | O_NOCTTY | O_NONBLOCK);
    until(strcmp(f->events, "OCO") == 0);
    send_text(slave, "2");
    until(fake_got(f, "\003in\r2"));
    close(slave);
    fake_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(bad_options), kit_test(json_options), kit_test(help), kit_test(the_registry),
        kit_test(legacy),      kit_test(files),        kit_test(null), kit_test(logs),
        kit_test(a_pipe),      kit_test(pty),
    };
    return kit_run("chardev/backends", tests);
}
