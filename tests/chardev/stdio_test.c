/* SPDX-License-Identifier: MIT */
/*
 * stdio: a child process with a terminal of its own, or with files and pipes. The terminal is as
 * it was when the child has gone, however it went.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>

#include "kit.h"

/* ---- the child ------------------------------------------------------------------------------ */

static void setup_loop(void)
{
    aio_loop_unbind(loop); /* the parent's */
    loop = aio_loop_new("child", kit_engine, NULL);
    aio_loop_bind(loop);
}

static struct fake *echoing;

static void leave(void)
{
    chardevs_cleanup();
    free(echoing);
    exit(0); /* by way of atexit() */
}

/* Echoes as "[text]"; "q" ends it, "a" aborts. */
static void echo(struct fake *f)
{
    if (memchr(f->data, 'q', f->count))
        leave();
    if (memchr(f->data, 'a', f->count))
        abort();
    autofree char *text = xasprintf("[%.*s]", (int)f->count, (const char *)f->data);
    chardev_write_all(f->chr, text, strlen(text));
    f->room += (int)f->count;
    f->count = 0;
}

static void run_echo(const char *text)
{
    setup_loop();
    struct chardev *chr = chardev_new_from_legacy(text, "serial0", NULL);
    if (!chr)
        _exit(3);
    chardev_set_exit_handler(leave);
    struct fake *f = echoing = fake_new(1000);
    f->chr = chr;
    f->on_read = echo;
    chardev_attach(chr, &f->fe, NULL);
    chardev_write(chr, "ready\n", 6);
    for (;;)
        aio_loop_poll(loop, true);
}

static void echo_plain(void)
{
    run_echo("stdio");
}

static void echo_mux(void)
{
    run_echo("mon:stdio");
}

static void killed_before(void)
{
    /* As a shell that ignores a signal for its background jobs: it stays ignored. */
    signal(SIGHUP, SIG_IGN);
    run_echo("stdio");
}

/* ---- the parent ----------------------------------------------------------------------------- */

struct terminal {
    int master, slave;
    struct termios before;
    pid_t child;
};

static void terminal_open(struct terminal *t)
{
    t->master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(t->master >= 0 && grantpt(t->master) == 0 && unlockpt(t->master) == 0);
    fcntl(t->master, F_SETFL, O_NONBLOCK);
    t->slave = open(ptsname(t->master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(t->slave >= 0);
    assert_int_equal(tcgetattr(t->slave, &t->before), 0);
    assert_true(t->before.c_lflag & ICANON && t->before.c_lflag & ECHO);
}

static void terminal_close(struct terminal *t)
{
    close(t->master);
    close(t->slave);
}

/* Runs fn in a new session whose terminal is t. */
static void terminal_run(struct terminal *t, void (*fn)(void))
{
    t->child = fork();
    if (t->child)
        return;
    setsid();
    ioctl(t->slave, TIOCSCTTY, 0);
    dup2(t->slave, 0);
    dup2(t->slave, 1);
    /* As a shell in a terminal starts it, however the test was started (nohup, in the background). */
    signal(SIGHUP, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    signal(SIGQUIT, SIG_DFL);
    fn();
    _exit(0);
}

static bool is_raw(const struct terminal *t)
{
    struct termios now;
    assert_int_equal(tcgetattr(t->slave, &now), 0);
    return !(now.c_lflag & ICANON);
}

static void assert_restored(const struct terminal *t)
{
    struct termios now;
    assert_int_equal(tcgetattr(t->slave, &now), 0);
    assert_int_equal(now.c_iflag, t->before.c_iflag);
    assert_int_equal(now.c_oflag, t->before.c_oflag);
    assert_int_equal(now.c_cflag, t->before.c_cflag);
    assert_int_equal(now.c_lflag, t->before.c_lflag);
}

static int await(pid_t child)
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void raw_mode(void **state)
{
    struct terminal t;
    terminal_open(&t);
    terminal_run(&t, echo_plain);
    expect_text(t.master, "ready\r\n"); /* '\n' alone still starts a line at its beginning */
    struct termios now;
    assert_int_equal(tcgetattr(t.slave, &now), 0);
    assert_false(now.c_lflag & (ICANON | ECHO | IEXTEN));
    assert_true(now.c_lflag & ISIG);
    assert_true(now.c_oflag & OPOST);
    assert_false(now.c_iflag & (ICRNL | IXON | ISTRIP));
    /* No line editing, no echo, carriage return as typed. */
    send_text(t.master, "x");
    expect_text(t.master, "[x]");
    send_text(t.master, "\r");
    expect_text(t.master, "[\r]");
    send_text(t.master, "\023\021\177");
    expect_text(t.master, "[\023\021\177]");
    send_text(t.master, "q");
    assert_int_equal(await(t.child), 0);
    assert_restored(&t);
    terminal_close(&t);
}

static void ctrl_c(void **state)
{
    struct terminal t;
    terminal_open(&t);
    terminal_run(&t, echo_plain);
    expect_text(t.master, "ready\r\n");
    send_text(t.master, "\003");
    int status = await(t.child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
    assert_restored(&t);

    /* With mon: it is for the guest. */
    terminal_run(&t, echo_mux);
    expect_text(t.master, "ready\r\n");
    send_text(t.master, "\003");
    expect_text(t.master, "[\003]");
    send_text(t.master, "\001h");
    expect_text(t.master, "\r\r\nC-a h "); /* the terminal adds a carriage return */
    send_text(t.master, "\001x");
    assert_int_equal(await(t.child), 0);
    assert_restored(&t);
    terminal_close(&t);
}

static void signals(void **state)
{
    static const int numbers[] = {SIGTERM, SIGHUP, SIGQUIT, SIGINT, SIGABRT};
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        struct terminal t;
        terminal_open(&t);
        terminal_run(&t, echo_plain);
        expect_text(t.master, "ready\r\n");
        assert_true(is_raw(&t));
        if (numbers[i] == SIGABRT)
            send_text(t.master, "a");
        else
            kill(t.child, numbers[i]);
        int status = await(t.child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == numbers[i]);
        assert_restored(&t);
        terminal_close(&t);
    }
}

static void ignored_signals_stay_ignored(void **state)
{
    struct terminal t;
    terminal_open(&t);
    terminal_run(&t, killed_before);
    expect_text(t.master, "ready\r\n");
    kill(t.child, SIGHUP);
    send_text(t.master, "x");
    expect_text(t.master, "[x]");
    assert_true(is_raw(&t));
    send_text(t.master, "q");
    assert_int_equal(await(t.child), 0);
    terminal_close(&t);
}

static void stop_and_go(void **state)
{
    struct terminal t;
    terminal_open(&t);
    terminal_run(&t, echo_plain);
    expect_text(t.master, "ready\r\n");
    int status;
    kill(t.child, SIGSTOP);
    assert_int_equal(waitpid(t.child, &status, WUNTRACED), t.child);
    assert_true(WIFSTOPPED(status));
    /* The shell wants its own mode. */
    assert_int_equal(tcsetattr(t.slave, TCSANOW, &t.before), 0);
    kill(t.child, SIGCONT);
    until(is_raw(&t));
    send_text(t.master, "q");
    assert_int_equal(await(t.child), 0);
    assert_restored(&t);
    terminal_close(&t);
}

/* `ferry … &`: in the background the terminal is not ours; to touch it would stop us. */
static void background(void)
{
    pid_t child = fork();
    if (child == 0) {
        setpgid(0, 0);
        setup_loop();
        struct chardev *chr = chardev_new_from_legacy("stdio", "serial0", NULL);
        chardev_write(chr, "there\n", 6);
        leave();
    }
    setpgid(child, child);
    int status = 0;
    waitpid(child, &status, WUNTRACED);
    if (WIFSTOPPED(status))
        kill(child, SIGKILL);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 9);
}

static void in_the_background(void **state)
{
    struct terminal t;
    terminal_open(&t);
    terminal_run(&t, background);
    assert_int_equal(await(t.child), 0);
    expect_text(t.master, "there\r\n");
    assert_restored(&t);
    terminal_close(&t);
}

/* ---- files and pipes ------------------------------------------------------------------------ */

static pid_t run_with(int in, int out, void (*fn)(void))
{
    pid_t child = fork();
    if (child)
        return child;
    dup2(in, 0);
    dup2(out, 1);
    fn();
    _exit(0);
}

/* Reads all of stdin, and writes how much it was after its end. */
static void count_input(void)
{
    setup_loop();
    struct chardev *chr = chardev_new_from_legacy("stdio", "serial0", NULL);
    struct fake *f = fake_attach(chr, 1 << 17);
    until(strcmp(f->events, "OC") == 0);
    autofree char *text = xasprintf("%zu\n", f->count);
    chardev_write(chr, text, strlen(text));
    fake_free(f);
    leave();
}

static void input_from_files(void **state)
{
    char path[] = "/tmp/ferry-stdio-XXXXXX";
    static char text[100000];
    int in = mkstemp(path), out[2];
    unlink(path);
    assert_int_equal(write(in, text, sizeof(text)), sizeof(text));
    lseek(in, 0, SEEK_SET);
    assert_int_equal(pipe(out), 0);
    pid_t child = run_with(in, out[1], count_input);
    expect_text(out[0], "100000\n");
    assert_int_equal(await(child), 0);
    close(in);

    in = open("/dev/null", O_RDONLY);
    child = run_with(in, out[1], count_input);
    expect_text(out[0], "0\n");
    assert_int_equal(await(child), 0);
    close(in);

    int pipe_in[2];
    assert_int_equal(pipe(pipe_in), 0);
    send_text(pipe_in[1], "123");
    close(pipe_in[1]);
    child = run_with(pipe_in[0], out[1], count_input);
    expect_text(out[0], "3\n");
    assert_int_equal(await(child), 0);
    close(pipe_in[0]);
    close(out[0]);
    close(out[1]);
}

/* Fills the pipe; says on fd 2 how much it took; goes on when somebody reads. */
static void fill_output(void)
{
    setup_loop();
    struct chardev *chr = chardev_new_from_legacy("stdio", "serial0", NULL);
    struct fake *f = fake_attach(chr, 0);
    static char chunk[1000];
    while (chardev_write(chr, chunk, sizeof(chunk)) == sizeof(chunk))
        ;
    dprintf(2, "full\n");
    until(f->writable > 0);
    chardev_write_all(chr, "end", 3);
    fake_free(f);
    leave();
}

static void a_reader_that_sleeps(void **state)
{
    int out[2], said[2];
    assert_int_equal(pipe(out), 0);
    assert_int_equal(pipe(said), 0);
    fflush(stderr);
    int saved = dup(2);
    dup2(said[1], 2);
    int null = open("/dev/null", O_RDONLY);
    pid_t child = run_with(null, out[1], fill_output);
    dup2(saved, 2);
    close(saved);
    expect_text(said[0], "full\n"); /* it does not hang in write() */
    /* The pipe that we share is not made non-blocking behind our back. */
    assert_false(fcntl(out[1], F_GETFL) & O_NONBLOCK);
    close(out[1]);
    char last[3] = "", chunk[4096];
    for (ssize_t n; (n = read(out[0], chunk, sizeof(chunk))) > 0;) {
        if (n >= 3)
            memcpy(last, chunk + n - 3, 3);
    }
    assert_memory_equal(last, "end", 3);
    assert_int_equal(await(child), 0);
    close(out[0]);
    close(said[0]);
    close(said[1]);
    close(null);
}

static void write_on(void)
{
    setup_loop();
    struct chardev *chr = chardev_new_from_legacy("stdio", "serial0", NULL);
    for (int i = 0; i < 100; i++) {
        if (chardev_write(chr, "x", 1) != 1)
            _exit(4);
        aio_loop_poll(loop, false);
    }
    leave();
}

static void a_reader_that_leaves(void **state)
{
    int out[2], null = open("/dev/null", O_RDONLY);
    assert_int_equal(pipe(out), 0);
    close(out[0]);
    assert_int_equal(await(run_with(null, out[1], write_on)), 0);
    close(out[1]);
    close(null);
}

/* Output appended to a file by the shell stays where it belongs. */
static void output_to_a_file(void **state)
{
    char path[] = "/tmp/ferry-stdio-XXXXXX", text[200] = "";
    int out = mkstemp(path), null = open("/dev/null", O_RDONLY);
    unlink(path);
    send_text(out, "before\n");
    assert_int_equal(await(run_with(null, out, count_input)), 0);
    send_text(out, "after\n");
    assert_true(pread(out, text, sizeof(text) - 1, 0) > 0);
    assert_string_equal(text, "before\n0\nafter\n");
    close(out);
    close(null);
}

static void make_two(void)
{
    setup_loop();
    struct error *err = NULL;
    struct chardev *chr = chardev_new_from_legacy("stdio", "serial0", NULL);
    if (!chr || chardev_new_from_legacy("stdio", "serial1", &err) ||
        !strstr(error_message(err), "cannot use stdio by multiple character devices"))
        _exit(5);
    error_free(err);
    /* One after the other is fine. */
    if (!chardev_delete(chr, NULL) || !chardev_new_from_legacy("stdio", "serial1", NULL))
        _exit(6);
    leave();
}

static void make_without_fds(void)
{
    setup_loop();
    close(0);
    struct error *err = NULL;
    if (chardev_new_from_legacy("stdio", "serial0", &err))
        _exit(7);
    error_free(err);
}

static void one_at_a_time(void **state)
{
    int null = open("/dev/null", O_RDWR);
    assert_int_equal(await(run_with(null, null, make_two)), 0);
    assert_int_equal(await(run_with(null, null, make_without_fds)), 0);
    close(null);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(raw_mode),
        kit_test(ctrl_c),
        kit_test(signals),
        kit_test(ignored_signals_stay_ignored),
        kit_test(stop_and_go),
        kit_test(in_the_background),
        kit_test(input_from_files),
        kit_test(a_reader_that_sleeps),
        kit_test(a_reader_that_leaves),
        kit_test(output_to_a_file),
        kit_test(one_at_a_time),
    };
    return kit_run("chardev/stdio", tests);
}
