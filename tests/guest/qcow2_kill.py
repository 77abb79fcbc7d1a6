#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""ferry killed (SIGKILL) while a guest writes to a qcow2 image, again and again.

The image has data of its own, compressed and not, over a compressed backing file, and snapshots
that share it. The guest (Debian's kernel, e2fsprogs, on the soft CPU) makes ext4 on a part of it,
then checks it after every kill, mounts it and writes, syncs, verifies, deletes and trims files
until ferry dies, while another process writes and syncs blocks behind the file system. After each
kill

  - `qemu-img check` finds no errors (leaked clusters are allowed),
  - e2fsck, once it has replayed the journal, finds the file system clean,
  - every file and block that the guest said it had synced is there,
  - what the guest never writes to has not changed,
  - each snapshot reads as the image did when it was taken; some are made and deleted on the way.

In the end it must have been about that: kills during writes, clusters of every kind written to.

    qcow2_kill.py --build build              a few kills
    qcow2_kill.py --build build --long       50 of them, of images of two cluster sizes
"""
import argparse
import dataclasses
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

KIB, MIB = 1 << 10, 1 << 20
BOOT_SECONDS = 240
SHORT, LONG = {"64k": 3}, {"64k": 25, "8k": 25}  # kills by cluster size

# The disk: the file system, what nobody writes to, and blocks that the guest writes to by number.
DISK, FS, KEPT = 128 * MIB, 96 * MIB, 16 * MIB
AREA, BLOCK = FS + KEPT, 4 * KIB
# Each stripe of it has data of these kinds, of which later ones hide earlier ones; then nothing.
STRIPE = 4 * MIB
KINDS = {"base": (0, 512 * KIB), "compressed": (256 * KIB, 768 * KIB),
         "plain": (768 * KIB, 1280 * KIB), "none": (1280 * KIB, STRIPE)}
# Write number n of the guest goes to block n * STEP % PLACES of the area; every fourth is LARGE.
LARGE = 16
PLACES, STEP = (DISK - AREA) // BLOCK - LARGE, 3163
# The guest removes its oldest file but KEEP; the last TRUSTED that we heard of are there for sure.
KEEP, TRUSTED = 10, 8

# Files are numbered on from the last that is there. "synced" and "wrote" are printed only after
# sync and fsync have returned.
GUEST_INIT = f"""
word() {{ sed -n "s/.*\\b$1=\\([0-9]*\\).*/\\1/p" /proc/cmdline; }}
trim() {{
    echo "guest trimmed $(fstrim -v -o $(($1 % {FS // (8 * MIB)} * {8 * MIB})) -l {8 * MIB} /mnt)"
}}
write_blocks() {{
    s=$(word first)
    while :; do
        count=$((s % 4 ? 1 : {LARGE}))
        echo "guest writes $s"
        yes $(printf %015d $s) | dd of=/dev/vda bs={BLOCK} count=$count iflag=fullblock \\
            seek=$(({AREA // BLOCK} + s * {STEP} % {PLACES})) conv=notrunc,fsync 2>/dev/null ||
            echo "guest fault write of block $s"
        echo "guest wrote $s"
        s=$((s + 1))
    done
}}
i=0
while [ ! -b /dev/vda ] && [ $i -lt 50 ]; do sleep 0.1; i=$((i + 1)); done
mkdir /mnt
if grep -q fresh /proc/cmdline; then
    /e2/mke2fs -q -F -t ext4 -E lazy_itable_init=0,nodiscard /dev/vda {FS // MIB}M ||
        echo "guest fault mke2fs"
fi
/e2/e2fsck -p /dev/vda > /tmp/fsck 2>&1
[ $? -le 1 ] || {{ echo "guest fault e2fsck: $(tail -1 /tmp/fsck)"; poweroff -f; }}
discard=nodiscard
grep -q trims /proc/cmdline && discard=discard
mount -t ext4 -o $discard /dev/vda /mnt || {{ echo "guest fault mount"; poweroff -f; }}
n=$(ls /mnt | sed -n 's/^f\\([0-9]*\\)$/\\1/p' | sort -n | tail -1)
n=${{n:-0}}
[ $discard = discard ] && trim $n
echo "guest loads"
write_blocks &
while :; do
    n=$((n + 1))
    size=$((n * 37 % 300 + 1))
    dd if=/dev/urandom of=/mnt/f$n bs=4k count=$size 2>/dev/null
    dd if=/dev/urandom of=/mnt/f$n bs=4k count=1 seek=$((size / 2)) conv=notrunc 2>/dev/null
    sum=$(sha256sum /mnt/f$n | cut -d' ' -f1)
    echo "guest syncs f$n"
    sync
    echo "guest synced f$n $sum"
    old=$((n - {KEEP}))
    if [ -f /mnt/f$old ]; then
        echo "guest removes f$old"
        rm /mnt/f$old
    fi
    [ $discard = discard ] && [ $((n % 4)) = 0 ] && trim $n
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


def blocks_of(number):
    """Where the guest's write of that number goes, in blocks of the area."""
    first = number * STEP % PLACES
    return range(first, first + (1 if number % 4 else LARGE))


def number_in(sector):
    """Which write filled it, or None."""
    line = sector[:16]
    return int(line) if line * (len(sector) // 16) == sector and line[:15].isdigit() else None


def kind_of(block):
    """What the area's block was when "start" was taken."""
    at = (AREA + block * BLOCK) % STRIPE
    return [kind for kind, (start, end) in KINDS.items() if start <= at < end][-1]


@dataclasses.dataclass
class Known:
    """What the guest has told, over all boots."""
    synced: dict = dataclasses.field(default_factory=dict)  # file to checksum
    written: dict = dataclasses.field(default_factory=dict)  # block to the last write that ended
    next_write: int = 1
    trimmed: int = 0  # bytes


class Console:
    """What the guest tells in one boot, as it goes."""

    def __init__(self, path, known):
        self._file, self._known, self._rest = open(path, "rb"), known, ""
        self.text, self.fault, self.loads, self.syncs = "", None, False, 0
        self.syncing = self.writing = False

    def follow(self):
        self._rest += self._file.read().decode(errors="replace").replace("\r", "")
        # Only whole lines: the last may be cut off.
        *lines, self._rest = self._rest.split("\n")
        for line in lines:
            self.text += line + "\n"
            if line.startswith("guest "):
                self._line(line.split()[1], line.split()[2:])

    def _line(self, verb, words):
        known = self._known
        if verb == "fault":
            self.fault = self.fault or " ".join(words)
        elif verb == "loads":
            self.loads = True
        elif verb in ("syncs", "synced"):
            self.syncing = verb == "syncs"
            self.syncs += self.syncing
            if verb == "synced":
                known.synced[words[0]] = words[1]
        elif verb == "removes":
            known.synced.pop(words[0], None)
        elif verb in ("writes", "wrote"):
            self.writing = verb == "writes"
            if verb == "wrote":
                known.written.update((block, int(words[0])) for block in blocks_of(int(words[0])))
            known.next_write = int(words[0]) + 1
        elif verb == "trimmed":
            known.trimmed += int(re.search(r"(\d+) bytes", " ".join(words)).group(1))

    def end(self):
        """After the kill."""
        self.follow()
        self._file.close()
        # A removal may have reached the disk although its line did not reach us.
        synced = self._known.synced
        newest = max((int(name[1:]) for name in synced), default=0)
        for name in [name for name in synced if int(name[1:]) <= newest - TRUSTED]:
            del synced[name]


class Image:
    """disk.qcow2 over a compressed base.qcow2, with snapshots. What goes wrong is returned."""

    def __init__(self, folder, tool, cluster_size, rng):
        self.folder, self.tool = folder, tool
        self.snapshots = ["start"]  # what they are to read as is NAME.raw
        self.snapshots_taken = self.snapshots_deleted = self.snapshots_compared = 0
        self.files_compared = self.leaks = self.leaking_kills = self.compressed = 0
        fill = self._make_raw(rng)
        self._img("convert", "-c", "-f", "raw", "-O", "qcow2", "base.raw", "base.qcow2")
        self._img("create", "-q", "-f", "qcow2", "-o", f"cluster_size={cluster_size}",
                  "-b", "base.qcow2", "-F", "qcow2", "disk.qcow2")
        run_tool("qemu-io", *fill, "disk.qcow2", cwd=folder, check=True)
        self._img("snapshot", "-c", "start", "disk.qcow2")
        if fault := self._check() or self._snapshot_fault():
            raise AssertionError("before any kill: " + fault)
        self.compressed_at_start = self.compressed

    def _make_raw(self, rng):
        """base.raw and start.raw; returns qemu-io's arguments that make one from the other."""
        fill = []
        with open(self.folder / "base.raw", "wb") as base, \
                open(self.folder / "start.raw", "wb") as whole:
            base.truncate(DISK)
            whole.truncate(DISK)
            for stripe in range(0, DISK, STRIPE):
                for kind in ("base", "compressed", "plain"):
                    start, end = KINDS[kind]
                    # It deflates, but not to nothing.
                    data = b"".join(rng.randbytes(1024) * 4 for _ in range((end - start) // 4096))
                    for file in (base, whole) if kind == "base" else (whole,):
                        file.seek(stripe + start)
                        file.write(data)
                    if kind != "base":
                        name, flag = f"{kind}.{stripe}", " -c" if kind == "compressed" else ""
                        (self.folder / name).write_bytes(data)
                        fill += ["-c", f"write -q{flag} -s {name} {stripe + start} {end - start}"]
        return fill

    def _img(self, *arguments):
        done = run_tool(self.tool, *arguments, cwd=self.folder, check=False)
        if done.returncode:
            raise AssertionError(f"ferry-img {' '.join(arguments)}: {done.stdout}")

    def _check(self):
        for _ in range(50):
            check = run_tool("qemu-img", "check", "--output=json", "disk.qcow2", cwd=self.folder,
                             check=False)
            # The kernel lets go of a killed process's io_uring, and so of its locks, a bit later.
            if "lock" not in check.stdout:
                break
            time.sleep(0.1)
        if check.returncode not in (0, 3):
            lines = check.stdout.strip().splitlines()
            return "qemu-img check: " + next((l for l in lines if l.startswith("ERROR")), lines[0])
        leaks = re.search(r'"leaks": (\d+)', check.stdout)
        self.leaks = int(leaks.group(1)) if leaks else 0
        compressed = re.search(r'"compressed-clusters": (\d+)', check.stdout)
        self.compressed = int(compressed.group(1)) if compressed else 0
        return None

    def _part(self, name, start, length):
        with open(self.folder / name, "rb") as file:
            file.seek(start)
            return file.read(length)

    def _kept_fault(self):
        if self._part("now.raw", FS, KEPT) != self._part("start.raw", FS, KEPT):
            return "what the guest does not write to has changed"
        return None

    def _blocks_fault(self, known):
        """Each sector of the area is as it was, if no write to it has ended, or is of one of them,
        not older than the last that ended."""
        now, then = (self._part(name, AREA, DISK - AREA) for name in ("now.raw", "start.raw"))
        for at in range(0, DISK - AREA, 512):
            block, sector = at // BLOCK, now[at:at + 512]
            last = known.written.get(block)
            if last is None and sector == then[at:at + 512]:
                continue
            number = number_in(sector)
            if number is None or block not in blocks_of(number) or number < (last or 1):
                return f"block {block}, last written by {last}, holds {number or sector[:16]}"
            known.next_write = max(known.next_write, number + 1)
        return None

    def _files_fault(self, synced):
        run_tool("cp", "now.raw", "fsck.raw", cwd=self.folder, check=True)
        if run_tool("e2fsck", "-p", "fsck.raw", cwd=self.folder, check=False).returncode > 1:
            return "e2fsck -p needs help"
        fsck = run_tool("e2fsck", "-f", "-n", "fsck.raw", cwd=self.folder, check=False)
        if fsck.returncode:
            return "e2fsck: " + fsck.stdout.strip().splitlines()[-1]
        for name, checksum in synced.items():
            content = subprocess.run(["debugfs", "-R", f"cat /{name}", "fsck.raw"],
                                     cwd=self.folder, check=True, stdout=subprocess.PIPE,
                                     stderr=subprocess.DEVNULL).stdout
            if hashlib.sha256(content).hexdigest() != checksum:
                return f"{name} was synced and has changed or is gone"
            self.files_compared += 1
        return None

    def _snapshot_fault(self):
        for name in self.snapshots:
            run_tool("qemu-img", "convert", "-l", name, "-O", "raw", "disk.qcow2", "then.raw",
                     cwd=self.folder, check=True)
            compare = run_tool("cmp", f"{name}.raw", "then.raw", cwd=self.folder, check=False)
            if compare.returncode:
                return f"snapshot {name} has changed: " + compare.stdout.strip()
            self.snapshots_compared += 1
        return None

    def fault(self, known):
        """What is wrong with it after a kill."""
        leaks = self.leaks
        if fault := self._check():
            return fault
        self.leaking_kills += self.leaks > leaks
        run_tool("qemu-img", "convert", "-O", "raw", "disk.qcow2", "now.raw", cwd=self.folder,
                 check=True)
        return (self._kept_fault() or self._blocks_fault(known) or
                self._files_fault(known.synced) or self._snapshot_fault())

    def take_snapshot(self, name):
        """Of what fault() has looked at."""
        self._img("snapshot", "-c", name, "disk.qcow2")
        run_tool("cp", "now.raw", f"{name}.raw", cwd=self.folder, check=True)
        self.snapshots.append(name)
        self.snapshots_taken += 1
        return self._check()

    def delete_snapshot(self, name):
        self._img("snapshot", "-d", name, "disk.qcow2")
        os.unlink(self.folder / f"{name}.raw")
        self.snapshots.remove(name)
        self.snapshots_deleted += 1
        return self._check()


def arguments(fresh, trims, first, aio):
    words = ["console=ttyS0", "quiet", "panic=-1", f"first={first}",
             *["fresh"] * fresh, *["trims"] * trims]
    return ["-M", "q35", "-accel", "tcg", "-smp", "2", "-m", "512", "-nodefaults",
            "-display", "none", "-serial", "stdio", "-no-reboot",
            "-kernel", "bzImage", "-initrd", "guest.cpio", "-append", " ".join(words),
            "-drive", f"file=disk.qcow2,if=none,id=d0,format=qcow2,discard=unmap,aio={aio}",
            "-device", "virtio-blk-pci,drive=d0"]


@dataclasses.dataclass
class Moment:
    """When ferry dies: after some seconds of load, once the guest has begun as many syncs, while it
    syncs or writes, if `during` is one of these, and then a bit later."""
    during: str
    seconds: float
    syncs: int
    later: float

    def has_come(self, console, loading_since):
        return (time.monotonic() >= loading_since + self.seconds and
                console.syncs >= self.syncs and
                {"sync": console.syncing, "write": console.writing}.get(self.during, True))


def random_moment(rng, during):
    if during == "sync":
        return Moment(during, 0, rng.randint(2, 4), rng.uniform(0, 0.03))
    return Moment(during, rng.uniform(0.2, 3), 0, rng.uniform(0, 0.01))


def run_and_kill(command, folder, known, moment):
    """Boots and kills ferry when the moment has come. Returns the console."""
    with open(folder / "console", "wb") as out:
        vm = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out,
                              stderr=subprocess.STDOUT)
        console = Console(folder / "console", known)
        end, since = time.monotonic() + BOOT_SECONDS, None
        while vm.poll() is None and time.monotonic() < end and not console.fault:
            console.follow()
            if console.loads:
                since = since or time.monotonic()
                if moment.has_come(console, since):
                    time.sleep(moment.later)
                    break
            time.sleep(0.003)
        died = vm.poll()
        if died is None:
            vm.send_signal(signal.SIGKILL)
            vm.wait()
    console.end()
    if died is not None or not console.loads:
        console.fault = (console.fault or
                         f"the guest did not come to its load (ferry's status is {died})")
    return console


class Run:
    """All kills with one image."""

    def __init__(self, folder, options, cluster_size, kills):
        self.folder, self.kills = folder, kills
        self.rng = random.Random(options.seed)
        self.ferry = os.path.abspath(options.build / "ferry")
        self.known = Known()
        self.during_sync = self.during_any = self.compressed_at_first = 0
        # How often a snapshot is taken, and how many are kept.
        self.every, self.keep = max(1, min(5, kills // 4)), 2 if kills >= 10 else 1
        make_guest(folder)
        self.image = Image(folder, os.path.abspath(options.build / "ferry-img"),
                           cluster_size, self.rng)

    def kill(self, number):
        """Returns a fault, what to say of it, and the console."""
        rng, image = self.rng, self.image
        aio, trims = rng.choice(("threads", "io_uring")), number % 3 == 2
        moment = random_moment(rng, ("anything", "sync", "write")[number % 3])
        command = [self.ferry, *arguments(number == 1, trims, self.known.next_write, aio)]
        console = run_and_kill(command, self.folder, self.known, moment)
        self.during_sync += console.syncing
        self.during_any += console.syncing or console.writing
        fault = console.fault or image.fault(self.known)
        self.compressed_at_first = self.compressed_at_first or image.compressed
        if not fault and number % self.every == 0 and number < self.kills:
            fault = image.take_snapshot(f"k{number}")
            if not fault and len(image.snapshots) > 1 + self.keep:
                fault = image.delete_snapshot(rng.choice(image.snapshots[1:-1]))
        now = " and ".join(["sync"] * console.syncing + ["write"] * console.writing) or "neither"
        return fault, (f"aio={aio}, in {now}, {len(self.known.synced)} files, "
                       f"{len(self.known.written)} blocks, {len(image.snapshots)} snapshots, "
                       f"{image.leaks} leaks"), console.text

    def all(self, results, prefix):
        for number in range(1, self.kills + 1):
            fault, remark, console = self.kill(number)
            results.case(f"{prefix}/{number}", fault, remark)
            if fault:
                report.show_tail(console)
                return
        results.case(f"{prefix}/reach", *self.missed())

    def missed(self):
        """What all of this was to be about and was not, and what it was."""
        image, known = self.image, self.known
        kinds = {kind_of(block) for block in known.written}
        found = {
            f"{self.during_any} kills during a write or sync": self.during_any >= self.kills // 3,
            f"{self.during_sync} during sync": self.during_sync >= self.kills // 6,
            f"{image.leaking_kills} that leaked": True,
            f"{image.files_compared} files compared": image.files_compared >= self.kills,
            f"{len(known.written)} blocks over {'+'.join(sorted(kinds))}": kinds == set(KINDS),
            f"{known.trimmed} bytes trimmed": known.trimmed > 0,
            f"{image.compressed_at_start} compressed clusters, {self.compressed_at_first} left by "
            f"the first kill, {image.compressed} by the last":
                image.compressed_at_start / 2 < self.compressed_at_first and
                0 < image.compressed < image.compressed_at_start,
            f"{image.snapshots_taken} snapshots taken": image.snapshots_taken > 0,
            f"{image.snapshots_deleted} deleted": image.snapshots_deleted > 0,
            f"{image.snapshots_compared} compared": image.snapshots_compared > self.kills,
        }
        missed = [what for what, enough in found.items() if not enough]
        return "not enough: " + ", ".join(missed) if missed else None, ", ".join(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--kills", type=int, help="of each image; 3 at least")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cluster-size", help="of the only image")
    parser.add_argument("--prefix", default="guest/qcow2-kill")
    options = parser.parse_args()
    plan = LONG if options.long else SHORT
    if options.cluster_size:
        plan = {options.cluster_size: max(plan.values())}
    results = report.Results()
    print(f"seed {options.seed}", flush=True)
    for cluster_size, kills in plan.items():
        with tempfile.TemporaryDirectory(prefix="ferry-kill-") as name:
            run = Run(pathlib.Path(name), options, cluster_size, options.kills or kills)
            run.all(results, f"{options.prefix}/{cluster_size}")
    return results.exit_status()


if __name__ == "__main__":
    report.run(main)
