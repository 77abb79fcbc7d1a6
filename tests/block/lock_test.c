/* SPDX-License-Identifier: MIT */
/* Image locks: between two opens here, and against QEMU's tools where those are installed. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/range.h"
#include "block/file.h"
#include "block/image.h"
#include "kit.h"

#define OR_A_DRIVE                                                                                 \
    "another process is using 'image' | Or another drive of this VM is. Devices that all have "    \
    "share-rw=on may use it together."
#define WRITE_LOCK  "Failed to get \"write\" lock: " OR_A_DRIVE
#define SHARED_LOCK "Failed to get shared \"write\" lock: " OR_A_DRIVE

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
    disk_fails(IMAGE, false, WRITE_LOCK);
    disk_fails(IMAGE ",readonly=on", false, SHARED_LOCK);
    close_all();
    disk(IMAGE ",readonly=on", false);
    disk(IMAGE ",readonly=on", false);
    disk_fails(IMAGE, false, WRITE_LOCK);
    kit_drive(IMAGE ",file.locking=off");
    close_all();
    disk(IMAGE ",file.locking=on", false);
}

/* Open at the same time, they may only be used together by devices that share. */
static void shared(void **state)
{
    struct error *err = NULL;

    struct block_backend *first = kit_drive(IMAGE), *second = kit_drive(IMAGE);
    assert_non_null(try_attach(second, true, NULL));
    assert_null(try_attach(first, false, &err));
    kit_assert_error(err, SHARED_LOCK);
    assert_string_equal(backend_device(first), "");
    assert_non_null(try_attach(first, true, NULL));
    attached[attached_count++] = first;
    err = NULL;
    backend_detach(second);
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
    disk_fails(IMAGE, true, WRITE_LOCK);
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
        check_bytes(fd, "10000000"); /* it has no device yet */
        assert_non_null(try_attach(be, false, NULL));
        check_bytes(fd, write ? "11000100" : "10000100");
        backend_detach(be);
        check_bytes(fd, "00000000");
        assert_non_null(try_attach(be, true, NULL));
        check_bytes(fd, write ? "11000000" : "10000000");
        backend_detach(be);
        kit_close();
        check_bytes(fd, "00000000");
    }
    close(fd);
}

/* ---- nodes ------------------------------------------------------------------------------------ */

static void blockdevs(const char *const *texts)
{
    for (; *texts; texts++) {
        kit_blockdev("%s", *texts);
    }
}

static void attach(const char *node, bool writable, bool shares_write)
{
    struct error *err = NULL;
    struct block_backend *be = backend_attach(node, "disk", writable, shares_write, &err);

    if (!be) {
        fail_msg("%s: %s", node, error_message(err));
    }
    attached[attached_count++] = be;
}

static void attach_fails(const char *node, bool writable, const char *message)
{
    struct error *err = NULL;

    assert_null(backend_attach(node, "disk", writable, false, &err));
    kit_assert_error(err, message);
}

static void detach(void)
{
    backend_detach(attached[--attached_count]);
}

static bool is_open_for_writing(const char *node)
{
    const struct file_state *s = block_node_find(node)->state;

    return (fcntl(s->fd, F_GETFL) & O_ACCMODE) == O_RDWR;
}

/* Nobody writes by a file node until somebody above wants to, however it was opened. */
static void nodes(void **state)
{
    static const char *const how[] = {"driver=file,filename=image,node-name=f",
                                      "driver=file,filename=image,node-name=f,auto-read-only=on"};
    int fd = open("image", O_RDWR | O_CLOEXEC);

    for (int is_auto = 0; is_auto < 2; is_auto++) {
        blockdevs((const char *const[]){how[is_auto], "driver=raw,file=f,node-name=ro,read-only=on",
                                        "driver=raw,file=f,node-name=rw", NULL});
        check_bytes(fd, "00000000");
        assert_int_equal(is_open_for_writing("f"), !is_auto);
        attach("ro", false, false);
        check_bytes(fd, "10000100");
        assert_int_equal(is_open_for_writing("f"), !is_auto);
        attach_fails("rw", true, "node 'f' is already in use by 'ro', so 'rw' cannot write it");
        check_bytes(fd, "10000100");
        detach();
        attach("rw", false, false);
        check_bytes(fd, "10000100");
        detach();
        attach("rw", true, false);
        check_bytes(fd, "11000100");
        assert_true(is_open_for_writing("f"));
        attach_fails("ro", false,
                     "node 'f' is already in use by 'rw', so 'ro' cannot read it "
                     "while that may write to it");
        detach();
        check_bytes(fd, "00000000");
        assert_int_equal(is_open_for_writing("f"), !is_auto);
        attach("rw", true, true);
        attach("ro", false, true);
        check_bytes(fd, "11000000");
        close_all();
        check_bytes(fd, "00000000");
    }
    close(fd);
}

/* The fd that data was written by is the one that hears of errors when it is flushed. */
static void written_by_one_fd(void **state)
{
    char data[512] = "x";

    kit_blockdev("driver=file,filename=image,node-name=f,auto-read-only=on");
    attach("f", true, false);
    assert_int_equal(kit_write(attached[0], 0, data, 512), 0);
    detach();
    assert_true(is_open_for_writing("f"));
    attach("f", true, false);
    assert_int_equal(kit_flush(attached[0]), 0);
    detach();
    assert_false(is_open_for_writing("f"));
    attach("f", false, false);
    assert_int_equal(kit_read(attached[0], 0, data, 512), 0);
    assert_string_equal(data, "x");
    close_all();
}

/* As somebody who may read it only. */
static void not_writable(void **state)
{
    static const char message[] = "Could not open 'image': Permission denied | it can be read; use "
                                  "read-only=on to go without writing";
    int fd = open("image", O_RDWR | O_CLOEXEC);

    if (geteuid() != 0) {
        print_message("skipped: not root, so no other user can be tried\n");
        skip();
    }
    assert_int_equal(chmod("image", 0644) | chmod(".", 0755), 0);
    assert_int_equal(seteuid(65534), 0);
    if (access("image", R_OK) < 0 || open("image", O_RDONLY | O_CLOEXEC) < 0) {
        assert_int_equal(seteuid(0), 0);
        print_message("skipped: another user cannot reach this directory\n");
        skip();
    }
    kit_blockdev_fails("driver=file,filename=image,node-name=f", message);
    blockdevs((const char *const[]){"driver=file,filename=image,node-name=f,auto-read-only=on",
                                    "driver=raw,file=f,node-name=r,auto-read-only=on", NULL});
    kit_blockdev_fails("driver=qcow2,file=f,node-name=q,auto-read-only=on", message);
    check_bytes(fd, "00000000");
    attach_fails("r", true, message);
    check_bytes(fd, "00000000");
    attach("r", false, false);
    check_bytes(fd, "10000100");
    detach();
    assert_int_equal(seteuid(0), 0);
    attach("r", true, false);
    check_bytes(fd, "11000100");
    close_all();
    close(fd);
}

static void lock(int fd, short type, off_t byte)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

    assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
}

static void make_overlay(const char *name, const char *backing, const char *format)
{
    struct options *opts = options_new();

    options_set(opts, "backing_file", backing);
    options_set(opts, "backing_fmt", format);
    assert_true(block_image_create(name, "qcow2", opts, 0, NULL));
    options_free(opts);
}

static const char *const storage = "driver=file,filename=image,node-name=bs,auto-read-only=on";
static const char *const base = "driver=raw,file=bs,node-name=b,read-only=on";
static const char *const overlay =
    "driver=qcow2,file.driver=file,file.filename=overlay,file.auto-read-only=on,node-name=o,"
    "backing=b";

/* What is refused for one file of a chain leaves the others, and the file itself, as they were. */
static void chain(void **state)
{
    make_overlay("overlay", "image", "raw");
    int other = open("image", O_RDWR | O_CLOEXEC), fd = open("image", O_RDWR | O_CLOEXEC);
    int above = open("overlay", O_RDWR | O_CLOEXEC);

    blockdevs((const char *const[]){storage, base, overlay, NULL});
    check_bytes(fd, "00000000");
    check_bytes(above, "11010101"); /* it has metadata */
    for (int write = 0; write < 2; write++) {
        lock(other, F_RDLCK, 101);
        attach_fails("o", write, SHARED_LOCK);
        lock(other, F_UNLCK, 101);
        check_bytes(fd, "00000000");
        check_bytes(above, "11010101");
        assert_int_equal(block_node_find("o")->perms.used, 0);
        attach("o", write, false);
        check_bytes(fd, "10000101");
        detach();
    }
    /* One that shares what the next does not. */
    attach("o", false, true);
    lock(other, F_RDLCK, 101);
    struct error *err = NULL;
    struct block_backend *be = attached[attached_count - 1];
    assert_null(backend_attach("o", "other", false, false, &err));
    kit_assert_error(err, SHARED_LOCK);
    check_bytes(fd, "11000000"); /* 101 is the other's */
    assert_true(backend_start_writing(be, NULL));
    lock(other, F_UNLCK, 101);
    close_all();
    check_bytes(fd, "00000000");
    check_bytes(above, "00000000");
    close(fd);
    close(other);
    close(above);
}

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

/* A disk is opened whose byte is locked for a moment; 200 matters for the drive, others for the device.
 * False: it was free already, or the thread that frees it came too late, since the machine is busy. */
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
    was_locked = was_locked && (byte == 200 || !atomic_load(&holder.closes));
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
    static const off_t bytes[] = {200, 201, 101};

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

/* A VM of QEMU's with options that are separated by blanks; then what is given to a shell instead. */
#define QEMU_VM "qemu-system-x86_64 -S -nodefaults -display none -accel tcg -qmp stdio "

static struct holder hold_vm(const char *options)
{
    char command[2048];

    snprintf(command, sizeof(command), "exec " QEMU_VM "%s", options);
    const char *const shell[] = {"sh", "-c", command, NULL};
    return hold(shell, "{\"execute\":\"qmp_capabilities\"}\n", "\"return\"");
}

static bool vm_starts(const char *options)
{
    char command[2048], output[4096];

    snprintf(command, sizeof(command),
             "echo '{\"execute\":\"qmp_capabilities\"}{\"execute\":\"quit\"}' | " QEMU_VM "%s 2>&1",
             options);
    return run(command, output, sizeof(output)) == 0;
}

static void a_qemu_vm_keeps_us_out(void **state)
{
    const char *goodbye = "{\"execute\":\"quit\"}\n";

    need("qemu-system-x86_64");
    struct holder holder = hold_vm("-drive " IMAGE ",id=d -device virtio-blk-pci,drive=d");
    disk_fails(IMAGE, false, WRITE_LOCK);
    disk_fails(IMAGE ",readonly=on", false, SHARED_LOCK);
    disk(IMAGE ",readonly=on", true);
    close_all();
    let_go(holder, goodbye);

    holder = hold_vm("-drive " IMAGE ",id=d,readonly=on -device virtio-blk-pci,drive=d");
    disk_fails(IMAGE, false, WRITE_LOCK);
    disk(IMAGE ",readonly=on", false);
    close_all();
    let_go(holder, goodbye);

    holder = hold_vm("-drive " IMAGE ",id=d -device virtio-blk-pci,drive=d,share-rw=on");
    disk_fails(IMAGE, false, SHARED_LOCK);
    disk(IMAGE, true);
    let_go(holder, goodbye);
}

/* The nodes that libvirt makes, here and in a VM of QEMU's, in either order. */
static void nodes_beside_qemu(void **state)
{
    static const struct {
        const char *file; /* below a raw node */
        bool writable;
    } how[] = {
        {"driver=file,filename=image,node-name=f,auto-read-only=on,discard=unmap", false},
        {"driver=file,filename=image,node-name=f", false},
        {"driver=file,filename=image,node-name=f,auto-read-only=on,discard=unmap", true},
    };
    char vm[ARRAY_SIZE(how)][512], raw[ARRAY_SIZE(how)][128];

    need("qemu-system-x86_64");
    for (unsigned i = 0; i < ARRAY_SIZE(how); i++) {
        snprintf(raw[i], sizeof(raw[i]), "driver=raw,file=f,node-name=r,read-only=%s",
                 how[i].writable ? "off" : "on");
        snprintf(vm[i], sizeof(vm[i]), "-blockdev %s -blockdev %s -device virtio-blk-pci,drive=r",
                 how[i].file, raw[i]);
    }
    for (unsigned theirs = 0; theirs < ARRAY_SIZE(how); theirs++) {
        struct holder holder = hold_vm(vm[theirs]);
        for (unsigned ours = 0; ours < ARRAY_SIZE(how); ours++) {
            blockdevs((const char *const[]){how[ours].file, raw[ours], NULL});
            if (how[ours].writable) {
                attach_fails("r", true, WRITE_LOCK);
            } else if (how[theirs].writable) {
                attach_fails("r", false, SHARED_LOCK);
            } else {
                attach("r", false, false);
            }
            close_all();
        }
        let_go(holder, "{\"execute\":\"quit\"}\n");
    }
    for (unsigned ours = 0; ours < ARRAY_SIZE(how); ours++) {
        blockdevs((const char *const[]){how[ours].file, raw[ours], NULL});
        for (unsigned theirs = 0; theirs < ARRAY_SIZE(how); theirs++) {
            assert_true(vm_starts(vm[theirs])); /* there is nobody yet */
        }
        attach("r", how[ours].writable, false);
        for (unsigned theirs = 0; theirs < ARRAY_SIZE(how); theirs++) {
            assert_int_equal(vm_starts(vm[theirs]), !how[ours].writable && !how[theirs].writable);
        }
        close_all();
    }
}

/* Two overlays, one here and one there, and those who write to what is below. */
static void overlays_beside_qemu(void **state)
{
    static const char their_overlay[] =
        "-blockdev driver=file,filename=image,node-name=bs,auto-read-only=on,discard=unmap "
        "-blockdev driver=raw,file=bs,node-name=b,read-only=on "
        "-blockdev driver=file,filename=theirs,node-name=os,auto-read-only=on,discard=unmap "
        "-blockdev driver=qcow2,file=os,node-name=o,backing=b -device virtio-blk-pci,drive=o";
    static const char writer[] = "-drive " IMAGE ",id=d -device virtio-blk-pci,drive=d";
    const char *goodbye = "{\"execute\":\"quit\"}\n";

    need("qemu-system-x86_64");
    make_overlay("overlay", "image", "raw");
    make_overlay("theirs", "image", "raw");
    struct holder holder = hold_vm(their_overlay);
    blockdevs((const char *const[]){storage, base, overlay, NULL});
    attach("o", true, false);
    close_all();
    disk_fails(IMAGE, false, WRITE_LOCK);
    let_go(holder, goodbye);
    close_all();

    blockdevs((const char *const[]){storage, base, overlay, NULL});
    assert_true(vm_starts(writer)); /* nobody reads it yet */
    attach("o", true, false);
    assert_true(vm_starts(their_overlay));
    assert_false(vm_starts(writer));
    detach();
    holder = hold_vm(writer);
    attach_fails("o", true, SHARED_LOCK);
    let_go(holder, goodbye);
    attach("o", true, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(between_us, setup, teardown),
        cmocka_unit_test_setup_teardown(shared, setup, teardown),
        cmocka_unit_test_setup_teardown(bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(nodes, setup, teardown),
        cmocka_unit_test_setup_teardown(written_by_one_fd, setup, teardown),
        cmocka_unit_test_setup_teardown(not_writable, setup, teardown),
        cmocka_unit_test_setup_teardown(chain, setup, teardown),
        cmocka_unit_test_setup_teardown(late, setup, teardown),
        cmocka_unit_test_setup_teardown(we_keep_qemu_out, setup, teardown),
        cmocka_unit_test_setup_teardown(qemu_tools_keep_us_out, setup, teardown),
        cmocka_unit_test_setup_teardown(a_qemu_vm_keeps_us_out, setup, teardown),
        cmocka_unit_test_setup_teardown(nodes_beside_qemu, setup, teardown),
        cmocka_unit_test_setup_teardown(overlays_beside_qemu, setup, teardown),
    };

    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
