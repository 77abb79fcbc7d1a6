/* SPDX-License-Identifier: MIT */
/* Image locks: between two opens here, and against QEMU's tools where those are installed. */
#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kit.h"

#define WRITE_LOCK  "Failed to get \"write\" lock: another process is using 'image'"
#define SHARED_LOCK "Failed to get shared \"write\" lock: another process is using 'image'"

static int setup(void **state)
{
    kit_setup(state);
    kit_make_file("image", 65536);
    return 0;
}

static void between_us(void **state)
{
    kit_drive("file=image,format=raw,if=none");
    kit_drive_fails("file=image,format=raw,if=none", WRITE_LOCK);
    kit_drive_fails("file=image,format=raw,if=none,readonly=on", SHARED_LOCK);
    kit_close();
    kit_drive("file=image,format=raw,if=none,readonly=on");
    kit_drive("file=image,format=raw,if=none,readonly=on");
    kit_drive_fails("file=image,format=raw,if=none", WRITE_LOCK);
    kit_drive("file=image,format=raw,if=none,file.locking=off");
    kit_close();
    kit_drive("file=image,format=raw,if=none,file.locking=on");
}

/* The bytes are QEMU's: 100 + permission used, 200 + permission not shared. */
static bool is_locked(int fd, off_t byte)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

    assert_int_equal(fcntl(fd, F_OFD_GETLK, &lock), 0);
    return lock.l_type != F_UNLCK;
}

static void bytes(void **state)
{
    static const char for_writing[] = "11000100", for_reading[] = "10000100";
    int fd = open("image", O_RDWR | O_CLOEXEC);

    for (int write = 0; write < 2; write++) {
        kit_drive("file=image,format=raw,if=none,readonly=%s", write ? "off" : "on");
        for (int p = 0; p < 4; p++) {
            const char *want = write ? for_writing : for_reading;
            assert_int_equal(is_locked(fd, 100 + p), want[p] == '1');
            assert_int_equal(is_locked(fd, 200 + p), want[4 + p] == '1');
        }
        kit_close();
        for (int p = 0; p < 4; p++) {
            assert_false(is_locked(fd, 100 + p) || is_locked(fd, 200 + p));
        }
    }
    close(fd);
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
        kit_drive("file=image,format=raw,if=none,readonly=%s", write ? "off" : "on");
        assert_int_not_equal(run("qemu-io -f raw -c 'write 0 512' image 2>&1", output, 1024), 0);
        assert_non_null(strstr(output, "Failed to get \"write\" lock"));
        assert_int_not_equal(run(vm, output, 1024), 0);
        assert_non_null(strstr(output, "Failed to get \"write\" lock"));
        /* Tools that only look are welcome. */
        assert_int_equal(run("qemu-img info image 2>&1", output, 1024), 0);
        assert_int_equal(run("qemu-io -r -f raw -c 'read 0 512' image 2>&1", output, 1024), 0);
        kit_close();
    }
    kit_drive("file=image,format=raw,if=none,file.locking=off");
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
    kit_drive_fails("file=image,format=raw,if=none", SHARED_LOCK);
    kit_drive_fails("file=image,format=raw,if=none,readonly=on", SHARED_LOCK);
    let_go(holder, "");
    kit_drive("file=image,format=raw,if=none");
    kit_close();

    holder = hold(read, "length\n", "64 KiB");
    kit_drive("file=image,format=raw,if=none");
    let_go(holder, "");
}

static void a_qemu_vm_keeps_us_out(void **state)
{
    char drive[] = "file=image,format=raw,if=virtio,readonly=off";
    const char *const vm[] = {"qemu-system-x86_64",
                              "-S",
                              "-nodefaults",
                              "-display",
                              "none",
                              "-accel",
                              "tcg",
                              "-drive",
                              drive,
                              "-qmp",
                              "stdio",
                              NULL};
    const char *hello = "{\"execute\":\"qmp_capabilities\"}\n";
    const char *goodbye = "{\"execute\":\"quit\"}\n";

    need("qemu-system-x86_64");
    struct holder holder = hold(vm, hello, "\"return\"");
    kit_drive_fails("file=image,format=raw,if=none", WRITE_LOCK);
    kit_drive_fails("file=image,format=raw,if=none,readonly=on", SHARED_LOCK);
    let_go(holder, goodbye);

    memcpy(strstr(drive, "off"), "on", 3);
    holder = hold(vm, hello, "\"return\"");
    kit_drive_fails("file=image,format=raw,if=none", WRITE_LOCK);
    kit_drive("file=image,format=raw,if=none,readonly=on");
    let_go(holder, goodbye);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(between_us, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(bytes, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(we_keep_qemu_out, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(qemu_tools_keep_us_out, setup, kit_teardown),
        cmocka_unit_test_setup_teardown(a_qemu_vm_keeps_us_out, setup, kit_teardown),
    };

    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
