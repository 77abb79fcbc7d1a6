/* SPDX-License-Identifier: MIT */
/* Image locks: between two opens here, and against QEMU's tools where those are installed. */
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/range.h"
#include "kit.h"

#define WRITE_LOCK "Failed to get \"write\" lock: another process is using 'image'"
#define SHARED_LOCK                                                                                \
    "Failed to get shared \"write\" lock: another process is using 'image' | Or another drive of " \
    "this VM is. Devices that all have share-rw=on may use it together."

#define IMAGE "file=image,format=raw,if=none"

static struct block_backend *attached[8];
static unsigned attached_count;

static int setup(void **state)
{
    kit_setup(state);
    kit_make_file("image", 65536);
    return 0;
}

static void close_all(void)
{
    while (attached_count) {
        backend_detach(attached[--attached_count]);
    }
    kit_close();
}

static int teardown(void **state)
{
    close_all();
    return kit_teardown(state);
}

static struct block_backend *try_attach(struct block_backend *be, bool shares_write,
                                        struct error **errp)
{
    const char *name = backend_name(be);

    return backend_attach(name, "disk", !backend_text_is_readonly(name), shares_write, errp);
}

/* -drive and a device on it. */
static struct block_backend *disk(const char *drive, bool shares_write)
{
    struct block_backend *be = kit_drive("%s", drive);
    struct error *err = NULL;

    if (!try_attach(be, shares_write, &err)) {
        fail_msg("%s: %s", drive, error_message(err));
    }
    attached[attached_count++] = be;
    return be;
}

/* The drive can be opened, but no device attached. */
static void disk_fails(const char *drive, bool shares_write, const char *message)
{
    struct block_backend *be = kit_drive("%s", drive);
    struct error *err = NULL;

    assert_null(try_attach(be, shares_write, &err));
    kit_assert_error(err, message);
}

static void between_us(void **state)
{
    disk(IMAGE, false);
    kit_drive_fails(IMAGE, WRITE_LOCK);
    disk_fails(IMAGE ",readonly=on", false, SHARED_LOCK);
    close_all();
    disk(IMAGE ",readonly=on", false);
    disk(IMAGE ",readonly=on", false);
    kit_drive_fails(IMAGE, WRITE_LOCK);
    kit_drive(IMAGE ",file.locking=off");
    close_all();
    disk(IMAGE ",file.locking=on", false);
}

/* Open at the same time, they may only be used together by devices that share. */
static void shared(void **state)
{
    struct error *err = NULL;

    struct block_backend *first = kit_drive(IMAGE), *second = kit_drive(IMAGE);
    assert_null(try_attach(first, false, &err));
    kit_assert_error(err, SHARED_LOCK);
    assert_string_equal(backend_device(first), "");
    assert_non_null(try_attach(first, true, NULL));
    attached[attached_count++] = first;
    err = NULL;
    assert_null(try_attach(second, false, &err));
    kit_assert_error(err, SHARED_LOCK);
    assert_non_null(try_attach(second, true, NULL));
    attached[attached_count++] = second;
    disk(IMAGE ",readonly=on", true);
    disk_fails(IMAGE ",readonly=on", false, SHARED_LOCK);

    char data[512], seen[512];
    memset(data, 0x5a, sizeof(data));
    assert_int_equal(kit_write(first, 512, data, 512), 0);
    assert_int_equal(kit_read(second, 512, seen, 512), 0);
    assert_memory_equal(seen, data, 512);
    close_all();

    /* Who shares alone has nobody to share with who does not. */
    disk(IMAGE, true);
    disk_fails(IMAGE, false, SHARED_LOCK);
    close_all();
    disk(IMAGE, false);
    kit_drive_fails(IMAGE, WRITE_LOCK);
}

/* The bytes are QEMU's: 100 + permission used, 200 + permission not shared. */
static bool is_locked(int fd, off_t byte)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

    assert_int_equal(fcntl(fd, F_OFD_GETLK, &lock), 0);
    return lock.l_type != F_UNLCK;
}

static void check_bytes(int fd, const char *want)
{
    for (int p = 0; p < 4; p++) {
        assert_int_equal(is_locked(fd, 100 + p), want[p] == '1');
        assert_int_equal(is_locked(fd, 200 + p), want[4 + p] == '1');
    }
}

static void bytes(void **state)
{
    int fd = open("image", O_RDWR | O_CLOEXEC);

    for (int write = 0; write < 2; write++) {
        const char *drive = write ? IMAGE : IMAGE ",readonly=on";
        struct block_backend *be = kit_drive("%s", drive);
        check_bytes(fd, write ? "11000000" : "10000000"); /* nobody uses it yet */
        assert_non_null(try_attach(be, false, NULL));
        check_bytes(fd, write ? "11000100" : "10000100");
        backend_detach(be);
        check_bytes(fd, write ? "11000000" : "10000000");
        assert_non_null(try_attach(be, true, NULL));
        check_bytes(fd, write ? "11000000" : "10000000");
        backend_detach(be);
        kit_close();
        check_bytes(fd, "00000000");
    }
    close(fd);
}

#define AT_ATTACH 101 /* the byte that matters when a device comes; others do at open */

struct holder_thread {
    int fd;
    _Atomic(bool) closes; /* or has closed it */
};

static void *close_soon(void *opaque)
{
    struct holder_thread *holder = opaque;

    usleep(5000);
    atomic_store(&holder->closes, true);
    close(holder->fd);
    return NULL;
}

static bool try_drive(const char *text, struct block_backend **be)
{
    struct options *opts = options_parse(text, NULL, NULL);
    struct drive_spec spec;
    struct error *err = NULL;
    bool ok = drive_new(opts, "ide", &spec, &err);

    options_free(opts);
    error_free(err);
    if (ok) {
        free(spec.serial);
        *be = spec.backend;
    }
    return ok;
}

/* A disk is opened whose byte is locked for a moment. False: it was free already, or the thread
 * that frees it came too late, since the machine is busy. */
static bool opens_late(off_t byte)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    struct holder_thread holder = {.fd = open("image", O_RDWR | O_CLOEXEC)};
    struct block_backend *be = NULL;
    struct error *err = NULL;
    pthread_t thread;

    assert_int_equal(fcntl(holder.fd, F_OFD_SETLK, &lock), 0);
    assert_int_equal(pthread_create(&thread, NULL, close_soon, &holder), 0);
    bool was_locked = !atomic_load(&holder.closes);
    bool opened = try_drive(IMAGE, &be);
    if (byte == AT_ATTACH) {
        was_locked = !atomic_load(&holder.closes);
    }
    opened = opened && try_attach(be, false, &err);
    if (opened) {
        attached[attached_count++] = be;
        assert_true(atomic_load(&holder.closes)); /* it waited */
    }
    pthread_join(thread, NULL);
    error_free(err);
    close_all();
    return opened && was_locked;
}

/* Locks that a killed process leaves behind for a moment are waited for, of each kind. */
static void late(void **state)
{
    static const off_t bytes[] = {200, 201, AT_ATTACH};

    for (unsigned i = 0; i < ARRAY_SIZE(bytes); i++) {
        unsigned attempts = 1;
        while (!opens_late(bytes[i])) {
            assert_true(attempts++ < 3);
        }
    }
}

/* Runs a shell command; its output (of both kinds) into *output. Returns the exit status. */
static int run(const char *command, char *output, size_t size)
{
    FILE *p = popen(command, "r");

    assert_non_null(p);
    size_t n = fread(output, 1, size - 1, p);
    output[n] = '\0';
    return WEXITSTATUS(pclose(p));
}

static void need(const char *tool)
{
    char command[64], output[64];

    snprintf(command, sizeof(command), "command -v %s", tool);
    if (run(command, output, sizeof(output)) != 0) {
        print_message("skipped: %s is not installed\n", tool);
        skip();
    }
}

static void we_keep_qemu_out(void **state)
{
    char output[1024];
    const char *vm = "qemu-system-x86_64 -S -nodefaults -display none -accel tcg -drive "
                     "file=image,format=raw,if=virtio 2>&1";

    need("qemu-io");
    need("qemu-system-x86_64");
    for (int write = 0; write < 2; write++) {
        disk(write ? IMAGE : IMAGE ",readonly=on", false);
        assert_int_not_equal(run("qemu-io -f raw -c 'write 0 512' image 2>&1", output, 1024), 0);
        assert_non_null(strstr(output, "Failed to get \"write\" lock"));
        assert_int_not_equal(run(vm, output, 1024), 0);
        assert_non_null(strstr(output, "Failed to get \"write\" lock"));
        /* Tools that only look are welcome. */
        assert_int_equal(run("qemu-img info image 2>&1", output, 1024), 0);
        assert_int_equal(run("qemu-io -r -f raw -c 'read 0 512' image 2>&1", output, 1024), 0);
        close_all();
    }
    disk(IMAGE, true);
    assert_int_equal(run("qemu-io -f raw -c 'write 0 512' image 2>&1", output, 1024), 0);
    assert_int_not_equal(run(vm, output, 1024), 0);
    assert_non_null(strstr(output, "Failed to get shared \"write\" lock"));
    close_all();
    disk(IMAGE ",file.locking=off", false);
    assert_int_equal(run("qemu-io -f raw -c 'write 0 512' image 2>&1", output, 1024), 0);
}

/* A process that has the image open until it is told to end. */
struct holder {
    pid_t pid;
    FILE *in, *out;
};

/* Says `hello` to it and waits for a line with `answer`: then it has the image open. */
static struct holder hold(const char *const *argv, const char *hello, const char *answer)
{
    int in[2], out[2];
    char line[512] = "";

    assert_int_equal(pipe2(in, O_CLOEXEC) | pipe2(out, O_CLOEXEC), 0);
    struct holder holder = {.pid = fork()};
    if (holder.pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    holder.in = fdopen(in[1], "w");
    holder.out = fdopen(out[0], "r");
    fputs(hello, holder.in);
    fflush(holder.in);
    while (!strstr(line, answer)) {
        assert_non_null(fgets(line, sizeof(line), holder.out));
    }
    return holder;
}

static void let_go(struct holder holder, const char *goodbye)
{
    fputs(goodbye, holder.in);
    fclose(holder.in);
    assert_int_equal(waitpid(holder.pid, NULL, 0), holder.pid);
    fclose(holder.out);
}

static void qemu_tools_keep_us_out(void **state)
{
    const char *const write[] = {"qemu-io", "-f", "raw", "image", NULL};
    const char *const read[] = {"qemu-io", "-r", "-f", "raw", "image", NULL};

    need("qemu-io");
    struct holder holder = hold(write, "length\n", "64 KiB");
    disk_fails(IMAGE, false, SHARED_LOCK);
    disk_fails(IMAGE ",readonly=on", false, SHARED_LOCK);
    disk(IMAGE, true);
    let_go(holder, "");
    close_all();
    disk(IMAGE, false);
    close_all();

    holder = hold(read, "length\n", "64 KiB");
    disk(IMAGE, false);
    let_go(holder, "");
}

static struct holder hold_vm(const char *drive, const char *device)
{
    const char *const vm[] = {"qemu-system-x86_64",
                              "-S",
                              "-nodefaults",
                              "-display",
                              "none",
                              "-accel",
                              "tcg",
                              "-drive",
                              drive,
                              "-device",
                              device,
                              "-qmp",
                              "stdio",
                              NULL};

    return hold(vm, "{\"execute\":\"qmp_capabilities\"}\n", "\"return\"");
}

static void a_qemu_vm_keeps_us_out(void **state)
{
    const char *goodbye = "{\"execute\":\"quit\"}\n";

    need("qemu-system-x86_64");
    struct holder holder = hold_vm(IMAGE ",id=d", "virtio-blk-pci,drive=d");
    kit_drive_fails(IMAGE, WRITE_LOCK);
    disk_fails(IMAGE ",readonly=on", false, SHARED_LOCK);
    disk(IMAGE ",readonly=on", true);
    close_all();
    let_go(holder, goodbye);

    holder = hold_vm(IMAGE ",id=d,readonly=on", "virtio-blk-pci,drive=d");
    kit_drive_fails(IMAGE, WRITE_LOCK);
    disk(IMAGE ",readonly=on", false);
    close_all();
    let_go(holder, goodbye);

    holder = hold_vm(IMAGE ",id=d", "virtio-blk-pci,drive=d,share-rw=on");
    disk_fails(IMAGE, false, SHARED_LOCK);
    disk(IMAGE, true);
    let_go(holder, goodbye);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(between_us, setup, teardown),
        cmocka_unit_test_setup_teardown(shared, setup, teardown),
        cmocka_unit_test_setup_teardown(bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(late, setup, teardown),
        cmocka_unit_test_setup_teardown(we_keep_qemu_out, setup, teardown),
        cmocka_unit_test_setup_teardown(qemu_tools_keep_us_out, setup, teardown),
        cmocka_unit_test_setup_teardown(a_qemu_vm_keeps_us_out, setup, teardown),
    };

    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
