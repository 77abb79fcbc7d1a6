/* SPDX-License-Identifier: MIT */
/* Sockets as server and client, unix and TCP; clients that come, go, and come too early. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/stat.h>

#include "kit.h"

/* ---- the other side ------------------------------------------------------------------------- */

static struct sockaddr_un unix_address(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    assert_true(strlen(path) < sizeof(un.sun_path));
    strcpy(un.sun_path, path);
    return un;
}

static int connect_unix(const char *path)
{
    struct sockaddr_un un = unix_address(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&un, sizeof(un)) != 0) {
        close(fd);
        return -1;
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static int listen_unix(const char *path)
{
    struct sockaddr_un un = unix_address(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
    assert_int_equal(listen(fd, 4), 0);
    return fd;
}

static int accept_one(int listener)
{
    int fd = -1;
    until((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
    return fd;
}

static int listen_tcp(unsigned *port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(in);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
    assert_int_equal(listen(fd, 4), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &size), 0);
    *port = ntohs(in.sin_port);
    return fd;
}

static int connect_tcp(unsigned port)
{
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static void expect_filename(struct chardev *chr, const char *expected)
{
    autofree char *name = chardev_filename(chr);
    assert_string_equal(name, expected);
}

/* ---- unix ----------------------------------------------------------------------------------- */

static void a_server(void **state)
{
    autofree char *path = xasprintf("%s/s", kit_dir);
    autofree char *name = xasprintf("unix:%s,server=on", path);
    autofree char *waiting = xasprintf("disconnected:%s", name);
    struct chardev *chr = make("socket,id=s,path=%s,server=on,wait=off", path);
    struct fake *f = fake_attach(chr, 1000);
    linger();
    assert_string_equal(f->events, "");
    assert_false(chardev_is_open(chr));
    expect_filename(chr, waiting);
    assert_int_equal(chardev_write(chr, "lost", 4), 4);

    int client = connect_unix(path);
    until(strcmp(f->events, "O") == 0);
    expect_filename(chr, name);
    send_text(client, "one");
    until(fake_got(f, "one"));
    chardev_write(chr, "1", 1);
    expect_text(client, "1");

    /* The next one waits in the queue. */
    int second = connect_unix(path);
    send_text(second, "two");
    linger();
    assert_true(fake_got(f, "one"));
    close(client);
    until(fake_got(f, "onetwo"));
    assert_string_equal(f->events, "OCO");
    chardev_write(chr, "2", 1);
    expect_text(second, "2");
    close(second);
    until(strcmp(f->events, "OCOC") == 0);
    expect_filename(chr, waiting);

    fake_free(f);
    assert_true(chardev_delete(chr, NULL));
    assert_int_equal(access(path, F_OK), -1); /* cleaned up */
}

static void *connect_later(void *opaque)
{
    usleep(100 * 1000);
    int *fd = opaque;
    char path[100];
    snprintf(path, sizeof(path), "%s/s", kit_dir);
    *fd = connect_unix(path);
    return NULL;
}

static void a_server_that_waits(void **state)
{
    autofree char *path = xasprintf("%s/s", kit_dir);
    pthread_t thread;
    int client = -1;
    pthread_create(&thread, NULL, connect_later, &client);
    struct chardev *chr = make("socket,id=s,path=%s,server=on", path);
    assert_true(chardev_is_open(chr));
    pthread_join(thread, NULL);
    assert_true(client >= 0);
    struct fake *f = fake_attach(chr, 1000);
    send_text(client, "x");
    until(fake_got(f, "x"));
    close(client);
    /* Later it does not wait any more. */
    until(strcmp(f->events, "OC") == 0);
    fake_free(f);
}

static void paths_in_use(void **state)
{
    autofree char *path = xasprintf("%s/s", kit_dir);
    /* What a killed ferry left behind. */
    close(listen_unix(path));
    assert_int_equal(access(path, F_OK), 0);
    struct chardev *chr = make("socket,id=s,path=%s,server=on,wait=off", path);
    assert_true(chardev_delete(chr, NULL));

    /* Anything else is not ours to remove. */
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    close(fd);
    refuse("exists and is not a socket", "socket,id=s,path=%s,server=on,wait=off", path);
    assert_int_equal(access(path, F_OK), 0);
    refuse("cannot connect to unix:", "socket,id=s,path=%s", path);
}

/* A client that leaves input behind which the front end does not take, and the next one. */
static void a_next_client_cuts_short(void **state)
{
    autofree char *path = xasprintf("%s/s", kit_dir);
    struct chardev *chr = make("socket,id=s,path=%s,server=on,wait=off", path);
    struct fake *f = fake_attach(chr, 2);
    int client = connect_unix(path);
    send_text(client, "abcdef");
    close(client);
    until(fake_got(f, "ab"));
    linger();
    assert_string_equal(f->events, "O"); /* there is more to come */
    client = connect_unix(path);
    until(strcmp(f->events, "OCO") == 0);
    send_text(client, "new");
    f->room = 100;
    chardev_accept_input(chr);
    until(fake_got(f, "abnew"));
    close(client);
    fake_free(f);
}

/* Clients that leave at once, many of them, with and without a word. */
static void visitors(void **state)
{
    autofree char *path = xasprintf("%s/s", kit_dir);
    struct chardev *chr = make("socket,id=s,path=%s,server=on,wait=off", path);
    struct fake *f = fake_attach(chr, 1 << 17);
    size_t said = 0;
    for (int i = 0; i < 300; i++) {
        int client = connect_unix(path);
        assert_true(client >= 0);
        if (i % 3) {
            send_text(client, "hi");
            said += 2;
        }
        if (i % 2)
            chardev_write(chr, "welcome", 7);
        close(client);
        f->events[0] = 0;
        aio_loop_poll(loop, false);
        aio_loop_poll(loop, false);
        aio_loop_poll(loop, false);
    }
    until(!chardev_is_open(chr) && f->count == said);
    fake_free(f);
}

/* ---- clients -------------------------------------------------------------------------------- */

static void a_client(void **state)
{
    autofree char *path = xasprintf("%s/s", kit_dir);
    int listener = listen_unix(path);
    struct chardev *chr = make("socket,id=c,path=%s", path);
    assert_true(chardev_is_open(chr));
    int peer = accept_one(listener);
    struct fake *f = fake_attach(chr, 100);
    send_text(peer, "hello");
    until(fake_got(f, "hello"));
    chardev_write(chr, "you", 3);
    expect_text(peer, "you");
    close(peer);
    until(strcmp(f->events, "OC") == 0);
    linger();
    assert_int_equal(accept(listener, NULL, NULL), -1); /* once only */
    close(listener);
    fake_free(f);
}

static void a_client_that_reconnects(void **state)
{
    autofree char *path = xasprintf("%s/s", kit_dir);
    /* Nobody there yet: no error. */
    struct chardev *chr = make("socket,id=c,path=%s,reconnect=1", path);
    assert_false(chardev_is_open(chr));
    struct fake *f = fake_attach(chr, 100);
    int listener = listen_unix(path);
    int peer = accept_one(listener);
    until(strcmp(f->events, "O") == 0);
    close(peer);
    until(strcmp(f->events, "OC") == 0);
    peer = accept_one(listener);
    until(strcmp(f->events, "OCO") == 0);
    send_text(peer, "again");
    until(fake_got(f, "again"));
    close(peer);
    close(listener);
    until(strcmp(f->events, "OCOC") == 0);
    fake_free(f); /* while the timer is set */
}

/* ---- TCP ------------------------------------------------------------------------------------ */

static void tcp_server(void **state)
{
    struct chardev *chr = make("socket,id=t,host=127.0.0.1,port=0,server=on,wait=off,nodelay");
    autofree char *name = chardev_filename(chr);
    unsigned port = 0;
    assert_int_equal(sscanf(name, "disconnected:tcp:127.0.0.1:%u,server=on", &port), 1);
    assert_true(port > 0);
    struct fake *f = fake_attach(chr, 100);
    int client = connect_tcp(port);
    until(strcmp(f->events, "O") == 0);
    autofree char *connected = chardev_filename(chr);
    assert_non_null(strstr(connected, ",server=on <-> 127.0.0.1:"));
    send_text(client, "x");
    until(fake_got(f, "x"));
    chardev_write(chr, "y", 1);
    expect_text(client, "y");

    /* The port is taken. */
    refuse("cannot listen on tcp:127.0.0.1:",
           "socket,id=u,host=127.0.0.1,port=%u,server=on,wait=off", port);
    close(client);
    fake_free(f);
}

static void tcp_client(void **state)
{
    unsigned port;
    int listener = listen_tcp(&port);
    autofree char *text = xasprintf("tcp:127.0.0.1:%u", port);
    struct chardev *chr = chardev_new_from_legacy(text, "serial0", NULL);
    assert_non_null(chr);
    int peer = accept_one(listener);
    struct fake *f = fake_attach(chr, 100);
    send_text(peer, "x");
    until(fake_got(f, "x"));
    /* A reset is an end as well. */
    struct linger hard = {.l_onoff = 1};
    setsockopt(peer, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    close(peer);
    until(strcmp(f->events, "OC") == 0);
    fake_free(f);

    chr = make("socket,id=r,host=127.0.0.1,port=%u,reconnect=1,ipv4=on", port);
    f = fake_attach(chr, 100);
    peer = accept_one(listener);
    until(strcmp(f->events, "O") == 0);
    close(peer);
    close(listener);
    fake_free(f);

    refuse("cannot connect to tcp:127.0.0.1:", "socket,id=x,host=127.0.0.1,port=%u", port);
}

static void bad_options(void **state)
{
    char path[120];
    memset(path, 'x', sizeof(path));
    path[sizeof(path) - 1] = 0;
    refuse("path=PATH or host=HOST,port=PORT", "socket,id=x");
    refuse("path=PATH or host=HOST,port=PORT", "socket,id=x,host=localhost");
    refuse("either a path or", "socket,id=x,path=/x,port=1");
    refuse("is too long", "socket,id=x,path=%s,server=on,wait=off", path);
    refuse("no path", "socket,id=x,path=");
    refuse("'wait' option is incompatible", "socket,id=x,path=/x,wait=off");
    refuse("'reconnect' option is incompatible", "socket,id=x,path=/x,server=on,reconnect=1");
    refuse("'reconnect'", "socket,id=x,path=/x,reconnect=-1");
    refuse("leave no way", "socket,id=x,host=a,port=1,ipv4=off,ipv6=off");
    refuse("unknown option 'telnet'", "socket,id=x,path=/x,telnet=on");
    refuse("unknown option 'ipv4'", "socket,id=x,path=/x,ipv4=on");
    refuse("address resolution failed", "socket,id=x,host=127.0.0.1,port=nosuchport");
    refuse("fd=999 is not an open stream socket", "socket,id=x,fd=999");
    refuse("option 'fd': 'x'", "socket,id=x,fd=x");
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    refuse("is a connected socket; use server=off", "socket,id=x,fd=%d,server=on", fds[0]);
    refuse("'reconnect' option is incompatible with 'fd'", "socket,id=x,fd=%d,reconnect=1", fds[0]);
    refuse("unknown option 'path'", "socket,id=x,fd=%d,path=/x", dup(fds[0]));
    close(fds[0]);
    close(fds[1]);
    assert_null(chardev_first());
}

/* A listening socket that somebody else made. */
static void a_listening_fd(void **state)
{
    autofree char *path = xasprintf("%s/s", kit_dir);
    int listener = listen_unix(path);
    refuse("is a listening socket; use server=on", "socket,id=x,fd=%d", dup(listener));
    struct chardev *chr = make("socket,id=x,fd=%d,server=on,wait=off", listener);
    struct fake *f = fake_attach(chr, 100);
    int client = connect_unix(path);
    send_text(client, "x");
    until(fake_got(f, "x"));
    close(client);
    fake_free(f);
    assert_true(chardev_delete(chr, NULL));
    assert_int_equal(access(path, F_OK), 0); /* not ours to remove */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(a_server),
        kit_test(a_server_that_waits),
        kit_test(paths_in_use),
        kit_test(a_next_client_cuts_short),
        kit_test(visitors),
        kit_test(a_client),
        kit_test(a_client_that_reconnects),
        kit_test(tcp_server),
        kit_test(tcp_client),
        kit_test(bad_options),
        kit_test(a_listening_fd),
    };
    return kit_run("chardev/socket", tests);
}
