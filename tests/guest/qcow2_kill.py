#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""ferry killed (SIGKILL) while a guest writes to a qcow2 image, again and again.

The image has a compressed backing file and an internal snapshot. The guest (Debian's kernel,
e2fsprogs, on the soft CPU) makes ext4 on it, then checks it after every kill, mounts it and
writes, syncs, verifies, deletes and trims files until ferry dies. After each kill

  - `qemu-img check` finds no errors (leaked clusters are allowed),
  - e2fsck, once it has replayed the journal, finds the file system clean,
  - every file that the guest said it had synced is there with its checksum,
  - and at the end the snapshot still reads as the image did when it was taken.

    qcow2_kill.py --build build              a few kills
    qcow2_kill.py --build build --long       50 of them
"""
import argparse
import hashlib
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from kit import debian, initramfs, report  # noqa: E402

MIB = 1 << 20
DISK_MIB = 256
BOOT_SECONDS = 240
KILLS_SHORT, KILLS_LONG = 3, 50

# Files are numbered on from the last that is there. "synced" is printed only after sync has returned.
GUEST_INIT = """
i=0
while [ ! -b /dev/vda ] && [ $i -lt 50 ]; do sleep 0.1; i=$((i + 1)); done
mkdir /mnt
if grep -q fresh /proc/cmdline; then
    /e2/mke2fs -q -F -t ext4 -E lazy_itable_init=0 /dev/vda || echo "guest fault mke2fs"
fi
/e2/e2fsck -p /dev/vda > /tmp/fsck 2>&1
[ $? -le 1 ] || { echo "guest fault e2fsck: $(tail -1 /tmp/fsck)"; poweroff -f; }
mount -t ext4 -o discard /dev/vda /mnt || { echo "guest fault mount"; poweroff -f; }
n=$(ls /mnt | sed -n 's/^f\\([0-9]*\\)$/\\1/p' | sort -n | tail -1)
n=${n:-0}
echo "guest loads"
while :; do
    n=$((n + 1))
    size=$((n * 37 % 300 + 1))
    dd if=/dev/urandom of=/mnt/f$n bs=4k count=$size 2>/dev/null
    dd if=/dev/urandom of=/mnt/f$n bs=4k count=1 seek=$((size / 2)) conv=notrunc 2>/dev/null
    sum=$(sha256sum /mnt/f$n | cut -d' ' -f1)
    sync
    echo "guest synced f$n $sum"
    old=$((n - 20))
    if [ -f /mnt/f$old ]; then
        echo "guest removes f$old"
        rm /mnt/f$old
    fi
    echo 3 > /proc/sys/vm/drop_caches
    [ $(sha256sum /mnt/f$n | cut -d' ' -f1) = $sum ] || echo "guest fault f$n reads differently"
done
"""


def add_program(ramfs, path):
    """A program of the host's with its libraries."""
    ramfs.file("e2/" + path.name, path, mode=0o755)
    for line in subprocess.run(["ldd", path], check=True, text=True,
                               stdout=subprocess.PIPE).stdout.splitlines():
        library = re.search(r"(/\S+)", line)
        if library:
            ramfs.file(library.group(1), pathlib.Path(library.group(1)), mode=0o755)


def make_guest(folder):
    kernel = debian.Kernel()
    os.symlink(kernel.bzimage, folder / "bzImage")
    ramfs = initramfs.busybox_initramfs(
        debian.busybox(), kernel.modules("virtio_pci", "virtio_blk"), GUEST_INIT)
    for name in ("mke2fs", "e2fsck"):
        # In a folder of their own: busybox has applets of these names.
        add_program(ramfs, pathlib.Path(shutil.which(name)))
    (folder / "guest.cpio").write_bytes(ramfs.pack())


def run_tool(*arguments, **options):
    return subprocess.run([str(a) for a in arguments], text=True, errors="replace",
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, **options)


class Image:
    """disk.qcow2 over a compressed base.qcow2, with a snapshot."""

    def __init__(self, folder, tool, cluster_size):
        self.folder, self.tool = folder, tool
        rng = random.Random(7)
        with open(folder / "base.raw", "wb") as base:
            base.truncate(DISK_MIB * MIB)
            for at in range(0, DISK_MIB, 4):  # a pattern that deflates, with holes
                base.seek(at * MIB)
                base.write(b"".join(bytes([rng.randrange(256)]) * 4096 for _ in range(256)))
        self._img("convert", "-c", "-f", "raw", "-O", "qcow2", "base.raw", "base.qcow2")
        self._img("create", "-q", "-f", "qcow2", "-o", f"cluster_size={cluster_size}",
                  "-b", "base.qcow2", "-F", "qcow2", "disk.qcow2")
        self._img("snapshot", "-c", "start", "disk.qcow2")

    def _img(self, *arguments):
        run_tool(self.tool, *arguments, cwd=self.folder, check=True)

    def faults(self, synced):
        """What is wrong with it after a kill."""
        for _ in range(50):
            check = run_tool("qemu-img", "check", "disk.qcow2", cwd=self.folder, check=False)
            # The kernel lets go of a killed process's io_uring, and so of its locks, a bit later.
            if "lock" not in check.stdout:
                break
            time.sleep(0.1)
        if check.returncode not in (0, 3):
            return "qemu-img check: " + check.stdout.strip().splitlines()[0]
        run_tool("qemu-img", "convert", "-O", "raw", "disk.qcow2", "now.raw", cwd=self.folder,
                 check=True)
        if run_tool("e2fsck", "-p", "now.raw", cwd=self.folder, check=False).returncode > 1:
            return "e2fsck -p needs help"
        fsck = run_tool("e2fsck", "-f", "-n", "now.raw", cwd=self.folder, check=False)
        if fsck.returncode:
            return "e2fsck: " + fsck.stdout.strip().splitlines()[-1]
        for name, checksum in synced.items():
            content = subprocess.run(["debugfs", "-R", f"cat /{name}", "now.raw"],
                                     cwd=self.folder, check=True, stdout=subprocess.PIPE,
                                     stderr=subprocess.DEVNULL).stdout
            if hashlib.sha256(content).hexdigest() != checksum:
                return f"{name} was synced and has changed or is gone"
        return None

    def snapshot_fault(self):
        run_tool("qemu-img", "convert", "-l", "start", "-O", "raw", "disk.qcow2", "then.raw",
                 cwd=self.folder, check=True)
        compare = run_tool("cmp", "base.raw", "then.raw", cwd=self.folder, check=False)
        return "the snapshot has changed: " + compare.stdout.strip() if compare.returncode else None


def arguments(fresh, aio):
    return ["-M", "q35", "-accel", "tcg", "-smp", "2", "-m", "512", "-nodefaults",
            "-display", "none", "-serial", "stdio", "-no-reboot",
            "-kernel", "bzImage", "-initrd", "guest.cpio",
            "-append", "console=ttyS0 quiet panic=-1" + (" fresh" if fresh else ""),
            "-drive", f"file=disk.qcow2,if=none,id=d0,format=qcow2,discard=unmap,aio={aio}",
            "-device", "virtio-blk-pci,drive=d0"]


def load_and_kill(ferry, folder, synced, fresh, mark, seconds, aio):
    """Boots, waits for `mark` on the console and then some seconds, kills ferry. synced: what is known to be there,
    brought up to date. Returns a fault or None, and the console."""
    console = ""
    with open(folder / "console", "wb+") as out:
        vm = subprocess.Popen([ferry, *arguments(fresh, aio)], cwd=folder,
                              stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        end, kill_at = time.monotonic() + BOOT_SECONDS, None
        while vm.poll() is None and time.monotonic() < end:
            console = (folder / "console").read_text(errors="replace")
            if kill_at is None and mark in console:
                kill_at = time.monotonic() + seconds
            if kill_at and time.monotonic() >= kill_at:
                break
            time.sleep(0.02)
        died = vm.poll()
        if died is None:
            vm.send_signal(signal.SIGKILL)
            vm.wait()
    console = (folder / "console").read_text(errors="replace").replace("\r", "")
    for line in console.splitlines():
        # Only whole lines: the last may be cut off.
        if found := re.fullmatch(r"guest synced (\S+) ([0-9a-f]{64})", line):
            synced[found.group(1)] = found.group(2)
        elif found := re.fullmatch(r"guest removes (\S+)", line):
            synced.pop(found.group(1), None)
    # The removal may have reached the disk although its line did not reach us.
    if synced:
        newest = max(int(name[1:]) for name in synced)
        for name in [name for name in synced if int(name[1:]) <= newest - 18]:
            del synced[name]
    if fault := re.search(r"^guest fault (.*)$", console, re.MULTILINE):
        return fault.group(1), console
    if kill_at is None or died is not None:
        return f"the guest did not come to its load (ferry's status is {died})", console
    return None, console


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--kills", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cluster-size", default="64k")
    parser.add_argument("--prefix", default="guest/qcow2-kill")
    options = parser.parse_args()
    kills = options.kills or (KILLS_LONG if options.long else KILLS_SHORT)
    rng = random.Random(options.seed)
    ferry = os.path.abspath(options.build / "ferry")
    tool = os.path.abspath(options.build / "ferry-img")
    results = report.Results()
    with tempfile.TemporaryDirectory(prefix="ferry-kill-") as name:
        folder = pathlib.Path(name)
        make_guest(folder)
        image, synced = Image(folder, tool, options.cluster_size), {}
        for number in range(1, kills + 1):
            aio = rng.choice(("threads", "io_uring"))
            mark = rng.choice(("guest loads", "guest synced", "guest synced"))
            fault, console = load_and_kill(ferry, folder, synced, number == 1, mark,
                                           rng.uniform(0.2, 3), aio)
            fault = fault or image.faults(synced)
            results.case(f"{options.prefix}/{number}", fault, f"aio={aio}, {len(synced)} files")
            if fault:
                report.show_tail(console)
                return results.exit_status()
        results.case(f"{options.prefix}/snapshot", image.snapshot_fault())
    return results.exit_status()


if __name__ == "__main__":
    report.run(main)
