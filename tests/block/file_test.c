/* SPDX-License-Identifier: MIT */
/*
 * Host files: what cannot be opened and why, odd lengths, files that change under the guest, and
 * formats that were not given.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/range.h"
#include "block/iov.h"
#include "block/node.h"
#include "kit.h"

static const char *const engines[] = {"threads", "io_uring"};
#define FOR_EACH_ENGINE(aio)                                                                       \
    for (size_t i_ = 0; i_ < 2; i_++)                                                              \
        for (const char *aio = i_ && !kit_has_uring() ? NULL : engines[i_]; aio; aio = NULL)

/* ---- opening --------------------------------------------------------------------------------- */

static void cannot_be_opened(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    kit_drive_fails("file=nothing,format=raw",
                    "Could not open 'nothing': No such file or directory");
    kit_drive_fails("file=nothing", "Could not open 'nothing': No such file or directory");
    kit_drive_fails("file=,format=raw",
                    "The 'file' block driver requires a file name: filename=FILE");
    kit_drive_fails("file=.,format=raw,readonly=on",
                    "Could not open '.': Is a directory; give the file name of an image");
    kit_drive_fails("file=.,format=raw",
                    "Could not open '.': Is a directory; give the file name of an image");
    assert_int_equal(mkfifo("fifo", 0600), 0);
    kit_drive_fails("file=fifo,format=raw,readonly=on",
                    "'file' driver requires 'fifo' to be a regular file");
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    kit_drive_fails("file=socket,format=raw",
                    "'file' driver requires 'socket' to be a regular file");
    kit_drive_fails("file=/dev/zero,format=raw",
                    "'file' driver requires '/dev/zero' to be a regular file");
    kit_drive_fails("driver=host_device,filename=/dev/zero",
                    "'host_device' driver requires '/dev/zero' to be a block device");
    kit_make_file("plain", 512);
    kit_drive_fails("driver=host_device,filename=plain",
                    "'host_device' driver requires 'plain' to be a block device");
    assert_int_equal(symlink("loop", "loop"), 0);
    kit_drive_fails("file=loop,format=raw",
                    "Could not open 'loop': Too many levels of symbolic links");
    kit_drive_fails("file=/proc/version,format=raw,readonly=on,cache=none",
                    "Could not open '/proc/version': Invalid argument | its file system may not "
                    "know O_DIRECT; use cache.direct=off (cache=writeback)");
}

/* As somebody who may not: root may open everything. */
static void without_permission(void **state)
{
    if (geteuid() != 0) {
        print_message("skipped: not root, so no other user can be tried\n");
        skip();
    }
    kit_make_file("secret", 512);
    kit_make_file("readable", 1024);
    assert_int_equal(chmod("secret", 0600) | chmod("readable", 0644) | chmod(".", 0755), 0);
    assert_int_equal(seteuid(65534), 0);
    if (access("readable", R_OK) < 0 || open("readable", O_RDONLY | O_CLOEXEC) < 0) {
        assert_int_equal(seteuid(0), 0);
        print_message("skipped: another user cannot reach this directory\n");
        skip();
    }
    kit_drive_fails("file=secret,format=raw", "Could not open 'secret': Permission denied");
    kit_drive_fails("file=secret,format=raw,readonly=on",
                    "Could not open 'secret': Permission denied");
    kit_drive_fails("file=readable,format=raw",
                    "Could not open 'readable': Permission denied | it can be read; use "
                    "read-only=on to go without writing");
    struct block_backend *be = kit_drive("file=readable,format=raw,auto-read-only=on,if=none");
    struct error *err = NULL;
    assert_null(backend_attach(backend_name(be), "disk", true, false, &err));
    kit_assert_error(err, "Could not open 'readable': Permission denied | it can be read; use "
                          "read-only=on to go without writing");
    be = kit_drive("file=readable,format=raw,readonly=on,if=none");
    assert_int_equal(backend_length(be), 1024);
    assert_int_equal(seteuid(0), 0);
}

/* A program that runs cannot be written, whoever asks. */
static void busy_text(void **state)
{
    kit_drive_fails("file=/proc/self/exe,format=raw",
                    "Could not open '/proc/self/exe': Text file busy | it can be read; use "
                    "read-only=on to go without writing");
}

static void names(void **state)
{
    kit_make_file("a:b", 512);
    kit_make_file("a,b", 1024);
    kit_drive_fails("file=a:b,format=raw",
                    "Unknown protocol 'a' in 'a:b'; for a file of that name write './a:b'");
    assert_int_equal(backend_length(kit_drive("file=./a:b,format=raw,if=none")), 512);
    kit_close();
    assert_int_equal(backend_length(kit_drive("file=file:a:b,format=raw,if=none")), 512);
    kit_close();
    assert_int_equal(backend_length(kit_drive("file=a,,b,format=raw,if=none")), 1024);
    kit_close();
    /* -blockdev takes the name as it is. */
    kit_blockdev("driver=file,node-name=n,filename=a:b");
    assert_int_equal(block_length(block_node_find("n")), 512);
}

/* ---- lengths --------------------------------------------------------------------------------- */

static void odd_length(void **state)
{
    uint8_t buffer[1024], zeroes[512] = {0};

    FOR_EACH_ENGINE(aio)
    {
        for (int direct = 0; direct <= kit_has_direct(); direct++) {
            kit_make_file("odd", 1000);
            struct block_backend *be = kit_drive("file=odd,format=raw,if=none,aio=%s,cache=%s", aio,
                                                 direct ? "none" : "writeback");
            assert_int_equal(backend_length(be), 1024);
            memset(buffer, 0xee, sizeof(buffer));
            assert_int_equal(kit_read(be, 0, buffer, 1024), 0);
            assert_int_equal(buffer[999], kit_pattern(999));
            assert_memory_equal(buffer + 1000, zeroes, 24);
            memset(buffer, 0xee, sizeof(buffer));
            assert_int_equal(kit_read(be, 1010, buffer, 14), 0);
            assert_memory_equal(buffer, zeroes, 14);
            assert_int_equal(kit_file_size("odd"), 1000);

            memset(buffer, 0x55, sizeof(buffer));
            assert_int_equal(kit_write(be, 512, buffer, 512), 0);
            assert_int_equal(kit_file_size("odd"), 1024);
            assert_int_equal(kit_read(be, 0, buffer, 1024), 0);
            assert_int_equal(buffer[511], kit_pattern(511));
            assert_int_equal(buffer[1023], 0x55);
            assert_int_equal(kit_write(be, 1024, buffer, 512), -EIO);
            assert_int_equal(kit_file_size("odd"), 1024);
            kit_close();
        }
    }
}

static void empty_file(void **state)
{
    uint8_t buffer[512];

    kit_make_file("empty", 0);
    struct block_backend *be = kit_drive("file=empty,format=raw,if=none");
    assert_int_equal(backend_length(be), 0);
    assert_int_equal(kit_read(be, 0, buffer, 512), -EIO);
    assert_int_equal(kit_write(be, 0, buffer, 512), -EIO);
    assert_int_equal(kit_flush(be), 0);
    assert_int_equal(kit_file_size("empty"), 0);
}

static void file_shrinks(void **state)
{
    static uint8_t buffer[65536];

    FOR_EACH_ENGINE(aio)
    {
        for (int direct = 0; direct <= kit_has_direct(); direct++) {
            kit_make_file("shrinks", 65536);
            struct block_backend *be = kit_drive("file=shrinks,format=raw,if=none,aio=%s,cache=%s",
                                                 aio, direct ? "none" : "writeback");
            assert_int_equal(truncate("shrinks", 10000), 0);
            assert_int_equal(kit_read(be, 0, buffer, 8192), 0);
            assert_int_equal(buffer[8191], kit_pattern(8191));
            assert_int_equal(kit_read(be, 8192, buffer, 4096), -EIO);
            assert_int_equal(kit_read(be, 32768, buffer, 4096), -EIO);
            assert_int_equal(kit_read(be, 0, buffer, 65536), -EIO);
            /* Written again, it is there again. */
            memset(buffer, 1, sizeof(buffer));
            assert_int_equal(kit_write(be, 0, buffer, 65536), 0);
            assert_int_equal(kit_read(be, 0, buffer, 65536), 0);
            kit_close();
        }
    }
}

/* Zeroes behind the end of such a file, or around it, make it longer as data does. */
static void zeroes_in_file_that_shrank(void **state)
{
    static const unsigned flags[] = {0, BLOCK_REQ_MAY_UNMAP};
    static const char *const graphs[] = {"format=raw,file=shrank", "driver=file,filename=shrank"};
    uint8_t buffer[8192], zeroes[8192] = {0};

    for (int i = 0; i < 8; i++) {
        uint64_t at = i & 4 ? 32 * KiB : 12 * KiB;
        kit_make_file("shrank", 64 * KiB);
        struct block_backend *be = kit_drive("%s,discard=unmap,if=none", graphs[i & 1]);
        assert_int_equal(truncate("shrank", 16 * KiB), 0);
        assert_int_equal(kit_zero(be, at, sizeof(buffer), flags[i >> 1 & 1]), 0);
        memset(buffer, 1, sizeof(buffer));
        assert_int_equal(kit_read(be, at, buffer, sizeof(buffer)), 0);
        assert_memory_equal(buffer, zeroes, sizeof(buffer));
        assert_int_equal(kit_file_size("shrank"), at + sizeof(buffer));
        assert_int_equal(kit_read(be, 8192, buffer, 4096), 0);
        assert_int_equal(buffer[4095], kit_pattern(12287));
        assert_int_equal(kit_zero(be, at, 64 * KiB - at, flags[i >> 1 & 1]), 0);
        assert_int_equal(kit_file_size("shrank"), 64 * KiB);
        kit_close();
    }
}

/* The host takes a part of the write and then refuses: the rest is tried and its error told. */
static void short_write(void **state)
{
    static uint8_t buffer[65536];
    struct rlimit old, small = {.rlim_cur = 20480};
    struct sigaction ignore = {.sa_handler = SIG_IGN}, before;

    sigaction(SIGXFSZ, &ignore, &before);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small.rlim_max = old.rlim_max;
    memset(buffer, 0x77, sizeof(buffer));
    FOR_EACH_ENGINE(aio)
    {
        for (int direct = 0; direct <= kit_has_direct(); direct++) {
            kit_make_file("short", 0);
            assert_int_equal(truncate("short", 65536), 0);
            struct block_backend *be = kit_drive("file=short,format=raw,if=none,aio=%s,cache=%s",
                                                 aio, direct ? "none" : "writeback");
            assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
            int ret = kit_write(be, 0, buffer, 65536);
            assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
            assert_int_equal(ret, -EFBIG);
            assert_int_equal(kit_read(be, 0, buffer, 32768), 0);
            assert_int_equal(buffer[20479], 0x77);
            assert_int_equal(buffer[20480], 0);
            memset(buffer, 0x77, sizeof(buffer));
            kit_close();
        }
    }
    sigaction(SIGXFSZ, &before, NULL);
}

/* ---- what the host cannot do, or fails at ---------------------------------------------------- */

/* Calls that the tests make fail (--wrap): errno values, 0: as ever. */
static int fdatasync_error, dsync_error, plain_error, fallocate_error;
static int fdatasyncs, dsyncs, plains, fallocates;
static bool tear_write; /* the next write ends within a block */

int __wrap_fdatasync(int fd);
int __real_fdatasync(int fd);
ssize_t __wrap_pwritev64v2(int fd, const struct iovec *iov, int niov, off_t offset, int flags);
ssize_t __real_pwritev64v2(int fd, const struct iovec *iov, int niov, off_t offset, int flags);
int __wrap_fallocate64(int fd, int mode, off_t offset, off_t length);
int __real_fallocate64(int fd, int mode, off_t offset, off_t length);

static bool fails(int *count, int error)
{
    ++*count;
    errno = error;
    return error;
}

int __wrap_fdatasync(int fd)
{
    return fails(&fdatasyncs, fdatasync_error) ? -1 : __real_fdatasync(fd);
}

ssize_t __wrap_pwritev64v2(int fd, const struct iovec *iov, int niov, off_t offset, int flags)
{
    if (tear_write) {
        struct iovec sector = {.iov_base = iov->iov_base, .iov_len = 512};
        tear_write = false;
        return __real_pwritev64v2(fd, &sector, 1, offset, flags) + 188;
    }
    if (flags & RWF_DSYNC ? fails(&dsyncs, dsync_error) : fails(&plains, plain_error)) {
        return -1;
    }
    return __real_pwritev64v2(fd, iov, niov, offset, flags);
}

int __wrap_fallocate64(int fd, int mode, off_t offset, off_t length)
{
    return fails(&fallocates, fallocate_error) ? -1 : __real_fallocate64(fd, mode, offset, length);
}

/* What a failed write left behind the end of a file that grows is seen at once, not when the next
 * write makes the file longer. */
static void failed_growth(void **state)
{
    char data[16384], first[4096], again[4096];
    struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
    struct rlimit old, small;

    sigaction(SIGXFSZ, &ignore, &before);
    FOR_EACH_ENGINE(aio)
    {
        struct block_backend *be;
        assert_int_equal(system("rm -f q; qemu-img create -q -f qcow2 q 1M"), 0);
        be = kit_drive("file=q,format=qcow2,if=none,aio=%s", aio);
        memset(data, 0x5a, sizeof(data));
        assert_int_equal(kit_write(be, 0, data, 512), 0);
        assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
        small = (struct rlimit){kit_file_size("q") - 512 + 8192, old.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        int ret = kit_write(be, 4096, data, sizeof(data));
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        assert_int_equal(ret, -EFBIG);
        assert_int_equal(kit_read(be, 4096, first, sizeof(first)), 0);
        assert_int_equal(kit_write(be, 65536 - 512, data, 512), 0);
        assert_int_equal(kit_read(be, 4096, again, sizeof(again)), 0);
        assert_memory_equal(first, again, sizeof(first));
        kit_close();
    }
    sigaction(SIGXFSZ, &before, NULL);
}

static void reset_counts(void)
{
    fdatasync_error = dsync_error = plain_error = fallocate_error = 0;
    fdatasyncs = dsyncs = plains = fallocates = 0;
}

/* Linux tells of lost pages once. The guest is told every time from then on. */
static void flush_error_sticks(void **state)
{
    uint8_t buffer[4096] = {0};

    for (int direct = 0; direct <= kit_has_direct(); direct++) {
        reset_counts();
        kit_make_file("sticky", 4096);
        struct block_backend *be =
            kit_drive("file=sticky,format=raw,if=none,cache=%s", direct ? "none" : "writeback");
        assert_int_equal(kit_write(be, 0, buffer, 4096), 0);
        assert_int_equal(kit_flush(be), 0);
        assert_int_equal(fdatasyncs, 1);
        fdatasync_error = EIO;
        assert_int_equal(kit_write(be, 0, buffer, 4096), 0);
        assert_int_equal(kit_flush(be), -EIO);
        fdatasync_error = 0;
        assert_int_equal(kit_flush(be), direct ? 0 : -EIO);
        assert_int_equal(kit_write(be, 0, buffer, 4096), 0);
        assert_int_equal(kit_flush(be), direct ? 0 : -EIO);
        kit_capture_stderr();
        kit_close();
        char *text = kit_captured();
        assert_string_equal(text, direct ? ""
                                         : "ferry: Could not flush all disks: Input/output error; "
                                           "what the guest wrote last may be lost\n");
        free(text);
    }
}

static void write_through_by_dsync(void **state)
{
    uint8_t buffer[4096] = {0};

    reset_counts();
    kit_make_file("through", 65536);
    struct block_backend *be = kit_drive("file=through,format=raw,if=none,cache=writethrough");
    assert_int_equal(kit_write(be, 0, buffer, 4096), 0);
    assert_int_equal(dsyncs, 1);
    assert_int_equal(fdatasyncs, 0);
    assert_int_equal(kit_zero(be, 0, 4096, 0), 0);
    assert_int_equal(fdatasyncs, 1);
    /* A file system that does not know RWF_DSYNC is asked once. */
    dsync_error = EOPNOTSUPP;
    assert_int_equal(kit_write(be, 0, buffer, 4096), 0);
    assert_int_equal(kit_write(be, 0, buffer, 4096), 0);
    assert_int_equal(dsyncs, 2);
    assert_int_equal(fdatasyncs, 3);
    kit_close();

    /* Nothing of that with cache.no-flush=on. */
    reset_counts();
    be = kit_drive("file=through,format=raw,if=none,cache=writethrough,cache.no-flush=on");
    assert_int_equal(kit_write(be, 0, buffer, 4096), 0);
    assert_int_equal(kit_zero(be, 0, 4096, 0), 0);
    assert_int_equal(kit_flush(be), 0);
    assert_int_equal(dsyncs + fdatasyncs, 0);
}

/* A write with RWF_DSYNC is told of the pages lost before it: the flush after it must know. */
static void dsync_error_sticks(void **state)
{
    uint8_t buffer[4096] = {0};

    for (int direct = 0; direct <= kit_has_direct(); direct++) {
        reset_counts();
        kit_make_file("sticky", 65536);
        struct block_backend *be =
            kit_drive("file=sticky,format=raw,if=none,cache=%s", direct ? "none" : "writeback");
        assert_int_equal(kit_write(be, 0, buffer, 4096), 0);
        dsync_error = EIO;
        assert_int_equal(kit_write_flags(be, 8192, buffer, 4096, BLOCK_REQ_FUA), -EIO);
        assert_int_equal(dsyncs, 1);
        dsync_error = 0;
        assert_int_equal(kit_flush(be), direct ? 0 : -EIO);
        kit_capture_stderr();
        kit_close();
        free(kit_captured());

        /* One that the host refuses as such says nothing of what was before. */
        reset_counts();
        be = kit_drive("file=sticky,format=raw,if=none,cache=%s", direct ? "none" : "writeback");
        dsync_error = plain_error = ENOSPC;
        assert_int_equal(kit_write_flags(be, 8192, buffer, 4096, BLOCK_REQ_FUA), -ENOSPC);
        dsync_error = plain_error = 0;
        assert_int_equal(kit_flush(be), 0);
        kit_close();
    }
}

/* O_DIRECT goes on with the block that was not finished. */
static void torn_direct_write(void **state)
{
    static _Alignas(4096) uint8_t buffer[16384], got[16384];

    if (!kit_has_direct()) {
        print_message("skipped: the build directory's file system does not know O_DIRECT\n");
        skip();
    }
    kit_make_file("torn", 16384);
    struct block_backend *be = kit_drive("file=torn,format=raw,if=none,cache=none");
    for (size_t i = 0; i < sizeof(buffer); i++) {
        buffer[i] = (uint8_t)~kit_pattern(i);
    }
    tear_write = true;
    assert_int_equal(kit_write(be, 0, buffer, sizeof(buffer)), 0);
    assert_false(tear_write);
    assert_int_equal(kit_read(be, 0, got, sizeof(got)), 0);
    assert_memory_equal(got, buffer, sizeof(got));
}

static void no_fallocate(void **state)
{
    uint8_t buffer[8192];

    reset_counts();
    kit_make_file("plain", 65536);
    struct block_backend *be = kit_drive("file=plain,format=raw,if=none,discard=unmap");
    fallocate_error = EOPNOTSUPP;
    assert_int_equal(kit_zero(be, 0, 4096, BLOCK_REQ_MAY_UNMAP), 0);
    assert_int_equal(fallocates, 2); /* a hole, then a zero range */
    assert_int_equal(kit_zero(be, 4096, 4000, BLOCK_REQ_MAY_UNMAP), 0);
    assert_int_equal(kit_discard(be, 0, 65536), 0);
    assert_int_equal(fallocates, 2);
    assert_int_equal(kit_read(be, 0, buffer, 8192), 0);
    for (int i = 0; i < 8192; i++) {
        assert_int_equal(buffer[i], i < 8096 ? 0 : kit_pattern(i));
    }
    kit_close();

    be = kit_drive("file=plain,format=raw,if=none,discard=unmap");
    fallocate_error = ENOSPC;
    assert_int_equal(kit_zero(be, 0, 4096, 0), -ENOSPC);
    reset_counts();
}

/* ---- holes ----------------------------------------------------------------------------------- */

struct status {
    struct block_node *node;
    uint64_t offset, length, map;
};

static int co_status(void *opaque)
{
    struct status *s = opaque;

    return block_co_status(s->node, s->offset, &s->length, &s->map);
}

static void zeroes_discard_and_status(void **state)
{
    static uint8_t buffer[MiB], zeroes[MiB];
    struct stat st;

    kit_make_file("holes", MiB);
    struct block_backend *be = kit_drive("file=holes,format=raw,if=none,discard=unmap");
    assert_int_equal(kit_zero(be, 65536, 65536, BLOCK_REQ_MAY_UNMAP | BLOCK_REQ_FUA), 0);
    assert_int_equal(kit_zero(be, 3 * 65536 + 100, 1000, 0), 0);
    assert_int_equal(kit_discard(be, 512 * KiB, 256 * KiB), 0);
    assert_int_equal(kit_read(be, 0, buffer, MiB), 0);
    assert_int_equal(buffer[65535], kit_pattern(65535));
    assert_memory_equal(buffer + 65536, zeroes, 65536);
    assert_int_equal(buffer[131072], kit_pattern(131072));
    assert_memory_equal(buffer + 3 * 65536 + 100, zeroes, 1000);
    assert_int_equal(buffer[3 * 65536 + 99], kit_pattern(3 * 65536 + 99));
    assert_int_equal(kit_file_size("holes"), MiB);

    assert_int_equal(stat("holes", &st), 0);
    if (st.st_blocks * 512 > MiB - 256 * KiB) {
        print_message("no holes in this file system: status not looked at\n");
        return;
    }
    struct status s = {backend_root(be), 0, MiB, 0};
    assert_int_equal(block_run(co_status, &s),
                     BLOCK_STATUS_DATA | BLOCK_STATUS_OFFSET_VALID | BLOCK_STATUS_ALLOCATED);
    assert_int_equal(s.length, 65536);
    s = (struct status){backend_root(be), 65536 + 512, MiB, 0};
    assert_true(block_run(co_status, &s) & BLOCK_STATUS_ZERO);
    assert_int_equal(s.length, 65536 - 512);
    assert_int_equal(s.map, 65536 + 512);
    s = (struct status){backend_root(be), MiB, 512, 0};
    assert_int_equal(block_run(co_status, &s), BLOCK_STATUS_EOF);
}

/* Zeroes that are no whole blocks of what is below: their ends are written, the rest is not. */
static void zeroes_of_parts(void **state)
{
    static uint8_t buffer[MiB];
    struct stat st;

    kit_make_file("parts", MiB);
    struct block_backend *be =
        kit_drive("driver=raw,file.driver=blkdebug,file.align=4096,file.image.driver=file,"
                  "file.image.filename=parts,if=none,discard=unmap");
    assert_int_equal(kit_zero(be, 512, MiB - 1024, BLOCK_REQ_MAY_UNMAP), 0);
    assert_int_equal(kit_read(be, 0, buffer, MiB), 0);
    for (unsigned i = 0; i < MiB; i++) {
        assert_int_equal(buffer[i], i < 512 || i >= MiB - 512 ? kit_pattern(i) : 0);
    }
    assert_int_equal(stat("parts", &st), 0);
    int fd = open("parts", O_RDWR | O_CLOEXEC);
    bool has_holes = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096) == 0;
    close(fd);
    assert_true(!has_holes || st.st_blocks * 512 <= 256 * KiB);
}

/* A file that somebody has made shorter: what is missing is not known to be zeroes. */
static void status_of_shrunk_file(void **state)
{
    kit_make_file("shrunk", MiB);
    struct block_backend *be = kit_drive("file=shrunk,format=raw,if=none,discard=unmap");
    assert_int_equal(kit_zero(be, 64 * KiB, MiB - 64 * KiB, BLOCK_REQ_MAY_UNMAP), 0);
    assert_int_equal(truncate("shrunk", 256 * KiB), 0);
    struct status s = {backend_root(be), 128 * KiB, MiB, 0};
    bool has_holes = block_run(co_status, &s) & BLOCK_STATUS_ZERO;
    assert_true(!has_holes || s.length == 128 * KiB);
    s = (struct status){backend_root(be), 256 * KiB, MiB, 0};
    int status = block_run(co_status, &s);
    assert_true(status & BLOCK_STATUS_DATA && !(status & BLOCK_STATUS_ZERO));
    assert_int_equal(s.length, MiB - 256 * KiB);
}

/* ---- reads at the end ------------------------------------------------------------------------ */

struct at_end {
    struct block_node *node;
    uint64_t offset;
    _Atomic(bool) done;
    int ret;
    _Alignas(4096) uint8_t buffer[4096];
};

static void co_read_behind(void *opaque)
{
    struct at_end *a = opaque;
    struct iovec vec = {a->buffer, sizeof(a->buffer)};
    struct block_iov iov = {.iov = &vec, .niov = 1, .size = sizeof(a->buffer)};

    a->ret = a->node->driver->co_preadv(a->node, a->offset, &iov, 0, 0);
    atomic_store(&a->done, true);
}

static void co_write_behind(void *opaque)
{
    struct at_end *a = opaque;
    struct iovec vec = {a->buffer, sizeof(a->buffer)};
    struct block_iov iov = {.iov = &vec, .niov = 1, .size = sizeof(a->buffer)};

    a->ret = a->node->driver->co_pwritev(a->node, a->offset, &iov, 0, 0);
    atomic_store(&a->done, true);
}

/* What an unaligned write reads behind the end is zeroes, also if another loop makes the file longer
 * before the read is seen to be done. */
static void growth_beside_a_read(void **state)
{
    static struct at_end reader, writer;

    if (!kit_has_direct()) {
        skip();
    }
    FOR_EACH_ENGINE(aio)
    {
        struct kit_thread *thread = kit_thread_start(AIO_LOOP_AUTO);
        kit_make_file("grows", 4096);
        kit_drive("driver=raw,file.driver=file,file.filename=grows,file.node-name=grows,if=none,"
                  "file.aio=%s,cache=none",
                  aio);
        reader = (struct at_end){.node = block_node_find("grows"), .offset = 4096};
        writer = (struct at_end){.node = reader.node, .offset = 16384};
        memset(reader.buffer, 1, sizeof(reader.buffer));
        coroutine_enter(coroutine_new(co_read_behind, &reader));
        usleep(20000);
        aio_call_co(kit_thread_loop(thread), co_write_behind, &writer);
        while (!atomic_load(&writer.done)) {
            usleep(100);
        }
        while (!atomic_load(&reader.done)) {
            aio_loop_poll(aio_loop_current(), true);
        }
        assert_int_equal(writer.ret, 0);
        assert_int_equal(reader.ret, 0);
        for (size_t i = 0; i < sizeof(reader.buffer); i++) {
            assert_int_equal(reader.buffer[i], 0);
        }
        kit_close();
        kit_thread_stop(thread);
    }
}

/* ---- lengths that do not fit ------------------------------------------------------------------ */

/* A write to the last block would make the image longer: refused also when what was opened for reading
 * is to be written. */
static void reopened_for_writing(void **state)
{
    uint8_t buffer[512];
    struct error *err = NULL;

    kit_make_file("odd", MiB + 512);
    struct block_backend *be =
        kit_drive("driver=raw,readonly=on,file.driver=blkdebug,file.align=4096,"
                  "file.image.driver=file,file.image.filename=odd,if=none");
    struct block_node *root = backend_root(be);
    assert_false(block_node_reopen(root, root->flags | BLOCK_OPEN_RDWR, &err));
    kit_assert_error(err,
                     "'json:{\"image\": {\"driver\": \"file\", \"filename\": \"odd\"}, "
                     "\"driver\": \"blkdebug\", \"align\": \"4096\"}' has 1049088 bytes, not a "
                     "multiple of the 4096 that "
                     "cache.direct=on needs to write it; use cache.direct=off "
                     "(cache=writeback) or make the image longer");
    assert_false(root->flags & BLOCK_OPEN_RDWR);
    assert_int_equal(kit_read(be, MiB, buffer, 512), 0);
    assert_int_equal(buffer[0], kit_pattern(MiB));
}

static void discard_ignored(void **state)
{
    uint8_t buffer[4096];

    kit_make_file("kept", 65536);
    struct block_backend *be = kit_drive("file=kept,format=raw,if=none");
    assert_int_equal(kit_discard(be, 0, 65536), 0);
    assert_int_equal(kit_read(be, 4096, buffer, 4096), 0);
    assert_int_equal(buffer[0], kit_pattern(4096));
}

/* A window of the file. */
static void raw_window(void **state)
{
    uint8_t buffer[4096];

    kit_make_file("window", 65536);
    struct block_backend *be = kit_drive("file=window,format=raw,offset=1000,size=4096,if=none");
    assert_int_equal(backend_length(be), 4096);
    assert_int_equal(kit_read(be, 0, buffer, 4096), 0);
    assert_int_equal(buffer[0], kit_pattern(1000));
    assert_int_equal(buffer[4095], kit_pattern(5095));
    memset(buffer, 0xaa, sizeof(buffer));
    assert_int_equal(kit_write(be, 0, buffer, 4096), 0);
    assert_int_equal(kit_zero(be, 4095, 1, 0), 0);
    assert_int_equal(kit_write(be, 4096, buffer, 512), -EIO);
    kit_close();
    kit_read_file("window", 999, buffer, 4096);
    assert_int_equal(buffer[0], kit_pattern(999));
    assert_int_equal(buffer[1], 0xaa);
    kit_read_file("window", 5094, buffer, 3);
    assert_int_equal(buffer[0], 0xaa);
    assert_int_equal(buffer[1], 0);
    assert_int_equal(buffer[2], kit_pattern(5096));
}

/* It begins within a sector: the last one ends behind the file, which a write makes longer. */
static void raw_window_to_the_end(void **state)
{
    uint8_t buffer[1024];

    kit_make_file("window", 65536);
    struct block_backend *be = kit_drive("file=window,format=raw,offset=100,if=none,readonly=on");
    assert_int_equal(backend_length(be), 65536);
    kit_close();
    be = kit_drive("file=window,format=raw,offset=100,if=none");
    assert_int_equal(backend_length(be), 65536);
    memset(buffer, 0xaa, sizeof(buffer));
    assert_int_equal(kit_read(be, 65024, buffer, 512), 0);
    assert_int_equal(buffer[411], kit_pattern(65535));
    for (size_t i = 412; i < 512; i++) {
        assert_int_equal(buffer[i], 0);
    }
    assert_int_equal(kit_discard(be, 0, 65536), 0);
    memset(buffer, 0xbb, sizeof(buffer));
    assert_int_equal(kit_write(be, 64512, buffer, 1024), 0);
    memset(buffer, 0, sizeof(buffer));
    assert_int_equal(kit_read(be, 64512, buffer, 1024), 0);
    assert_int_equal(buffer[1023], 0xbb);
    kit_close();
    assert_int_equal(kit_file_size("window"), 65636);
    kit_read_file("window", 65635, buffer, 1);
    assert_int_equal(buffer[0], 0xbb);
}

/* ---- formats --------------------------------------------------------------------------------- */

#define MAGIC(format, offset, bytes)                                                               \
    {                                                                                              \
        format, offset, bytes, sizeof(bytes) - 1                                                   \
    }

static const struct magic {
    const char *format;
    size_t offset;
    const char *bytes;
    size_t size;
} magics[] = {
    MAGIC("qcow", 0, "QFI\xfb\0\0\0\1"),
    MAGIC("qcow2", 0, "QFI\xfb\0\0\0\2"),
    MAGIC("qcow2", 0, "QFI\xfb\0\0\0\3"),
    MAGIC("qed", 0, "QED\0"),
    MAGIC("vmdk", 0, "KDMV"),
    MAGIC("vmdk", 0, "COWD"),
    MAGIC("vmdk", 0, "# Disk DescriptorFile\nversion=1\n"),
    MAGIC("vmdk", 0, "#\n\r\n# x\nversion=1\n"),
    MAGIC("vdi", 64, "\x7f\x10\xda\xbe"),
    MAGIC("vhdx", 0, "vhdxfile"),
    MAGIC("vpc", 0, "conectix"),
    MAGIC("luks", 0, "LUKS\xba\xbe\0\1"),
    MAGIC("parallels", 0, "WithoutFreeSpace"),
    MAGIC("parallels", 0, "WithouFreSpacExt"),
    MAGIC("bochs", 0, "Bochs Virtual HD Image"),
    MAGIC("cloop", 0, "#!/bin/sh\n#V2.0 Format\n"),
};

static void make_magic_file(const struct magic *magic, size_t size)
{
    kit_make_file("magic", size);
    int fd = open("magic", O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, magic->bytes, magic->size, (off_t)magic->offset), magic->size);
    close(fd);
}

static void other_formats_are_refused(void **state)
{
    char message[256];

    for (size_t i = 0; i < ARRAY_SIZE(magics); i++) {
        make_magic_file(&magics[i], 4096);
        if (block_driver_find(magics[i].format)) {
            continue; /* qcow2: its driver has tests of its own */
        }
        snprintf(message, sizeof(message),
                 "format %s of 'magic' is not supported in this build; convert it by 'qemu-img "
                 "convert -O raw', or give format=raw if the guest should see the bytes as they "
                 "are",
                 magics[i].format);
        kit_drive_fails("file=magic,if=none", message);
        kit_drive_fails("file=magic,if=none,readonly=on", message);
        /* Given as raw it is not looked at. */
        kit_drive("file=magic,format=raw,if=none");
        kit_close();
        kit_blockdev("driver=raw,node-name=n,file.driver=file,file.filename=magic");
        kit_close();
    }
    make_magic_file(&magics[1], 200); /* shorter than a sector */
    kit_drive_fails("file=magic,if=none",
                    "Could not open 'magic': Unsupported cluster size: 2^2375326626; cluster_bits "
                    "must be 9 to 21");
}

#define WARNING                                                                                    \
    "ferry: warning: Image format was not specified for '%s' and probing guessed raw; the guest "  \
    "cannot write to its first sector what looks like another format. Give format=raw to lift "    \
    "that\n"

/* Opens a drive of which no format is given, and says whether it is warned about. */
static struct block_backend *open_probed(const char *name, const char *options, bool warned)
{
    char warning[512];

    snprintf(warning, sizeof(warning), WARNING, name);
    kit_capture_stderr();
    struct block_backend *be = kit_drive("file=%s,if=none%s", name, options);
    char *text = kit_captured();
    assert_string_equal(text, warned ? warning : "");
    free(text);
    return be;
}

static void probing_warns(void **state)
{
    kit_make_file("warned", 4096);
    kit_make_file("empty", 0);
    open_probed("empty", "", true);
    kit_close();
    open_probed("warned", "", true);
    kit_close();
    open_probed("warned", ",readonly=on", false); /* no harm can be done */
    kit_close();
    open_probed("null-co://", "", true);
    kit_close();
    open_probed("blkdebug::null-co://", "", true);
    kit_close();
    open_probed("warned", ",format=raw", false);
}

/* The guest of a probed image cannot make it another format: not at once, not byte by byte. */
static void guest_cannot_change_the_format(void **state)
{
    static uint8_t buffer[65536], now[65536];

    for (size_t i = 0; i < ARRAY_SIZE(magics); i++) {
        kit_make_file("guest", sizeof(buffer));
        struct block_backend *be = open_probed("guest", "", true);
        kit_read_file("guest", 0, buffer, sizeof(buffer));

        memcpy(buffer + magics[i].offset, magics[i].bytes, magics[i].size);
        assert_int_equal(kit_write(be, 0, buffer, 512), -EPERM);
        assert_int_equal(kit_write(be, 0, buffer, sizeof(buffer)), -EPERM);
        assert_int_equal(kit_write_flags(be, 0, buffer, 512, BLOCK_REQ_FUA), -EPERM);
        assert_int_equal(kit_write(be, magics[i].offset, magics[i].bytes, magics[i].size), -EPERM);
        int ret = 0;
        for (size_t j = 0; j < magics[i].size && ret == 0; j++) {
            ret = kit_write(be, magics[i].offset + j, magics[i].bytes + j, 1);
        }
        assert_int_equal(ret, -EPERM);
        kit_close();

        /* What is harmless passes. */
        be = open_probed("guest", "", true);
        memset(buffer, 0x11, sizeof(buffer));
        assert_int_equal(kit_write(be, 0, buffer, sizeof(buffer)), 0);
        assert_int_equal(kit_write(be, 512, magics[i].bytes, magics[i].size), 0);
        assert_int_equal(kit_zero(be, 0, 1024, 0), 0);
        assert_int_equal(kit_write(be, 0, buffer, sizeof(buffer)), 0);
        kit_close();
        kit_read_file("guest", 0, now, sizeof(now));
        assert_memory_equal(now, buffer, sizeof(now));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(cannot_be_opened, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(without_permission, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(busy_text, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(names, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(odd_length, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(empty_file, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(file_shrinks, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(zeroes_in_file_that_shrank, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(short_write, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(failed_growth, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(flush_error_sticks, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(write_through_by_dsync, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(dsync_error_sticks, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(torn_direct_write, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(no_fallocate, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(zeroes_discard_and_status, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(zeroes_of_parts, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(status_of_shrunk_file, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(growth_beside_a_read, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(reopened_for_writing, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(discard_ignored, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(raw_window, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(raw_window_to_the_end, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(probing_warns, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(other_formats_are_refused, kit_setup, kit_teardown),
        cmocka_unit_test_setup_teardown(guest_cannot_change_the_format, kit_setup, kit_teardown),
    };

    return cmocka_run_group_tests(tests, kit_enter_directory, kit_leave_directory);
}
