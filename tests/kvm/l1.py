#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs commands on a machine that has KVM: L1, a guest of an emulated CPU with AMD SVM.

    host: qemu-system-x86_64 -accel tcg -cpu max,+svm
      L1: Debian's kernel, kvm-amd.ko, busybox; /l1 is an ext4 image with what the commands need
        L2: whatever the commands boot with /dev/kvm

L1 runs its commands one after the other in /l1, each with a time limit, and powers off. Its
console is the only channel out: lines that begin with "@@" frame each command's output. The
image stays on the host, so that files which the commands wrote can be read with debugfs.

As a program, it runs one command, for a look at something by hand:

    tests/kvm/l1.py --add build/ferry -- ./ferry -accel kvm -version
"""
import argparse
import collections
import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from kit import debian, initramfs  # noqa: E402

L1_MODULES = ("virtio_pci", "virtio_blk", "kvm_amd")
CPU_WITH_SVM = "max,+svm"
CPU_WITHOUT_SVM = "EPYC,-svm"
BOOT_SECONDS = 60  # 5 s on a machine of today
# One CPU, and a timer that interrupts periodically: QEMU 7.2 changes a CPU's pending interrupts
# without a lock when a nested guest exits, and may lose one. With two CPUs, L1 or L2 stopped in one
# boot of five, whatever VMM ran there; the next tick brings back what was lost.
L1_APPEND = "console=ttyS0 quiet panic=-1 mitigations=off nohz=off highres=off"
# Still, there are L1s in which, from some moment on, no timer of a kernel irqchip fires: everything
# that needs one hangs there, and runs in the next L1. So a command that its time limit ends is tried
# once more in a new L1, and so are those behind it.
ATTEMPTS = 2
KILLED = 128 + 9

INIT = """
mkdir /l1
mount -t ext4 /dev/vda /l1
# Programs name their loader by its full path.
ln -s /l1/lib /lib
ln -s /l1/lib /lib64
export LD_LIBRARY_PATH=/l1/lib HOME=/tmp
# L2 may have more memory than L1, as long as it does not use it.
echo 1 > /proc/sys/vm/overcommit_memory
cd /l1
. ./commands
cd /
sync
umount /l1
poweroff -f
"""


@dataclasses.dataclass
class Command:
    """A shell command for L1. Its output must not begin a line with "@@"."""
    name: str
    shell: str
    seconds: int = 60


@dataclasses.dataclass
class Outcome:
    """What came of a command. status is None if L1 did not get to its end."""
    status: int | None
    output: str
    seconds: float = 0
    image: pathlib.Path | None = None  # of /l1, after the run


class L1:
    """One boot of L1. Use it as a context manager: it owns a temporary folder."""

    def __init__(self, log=None, cpu=CPU_WITH_SVM, memory_mib=2048, echo=False):
        self.cpu = cpu
        self.memory_mib = memory_mib
        self.log = log
        self.echo = echo

    def __enter__(self):
        self._scratch = tempfile.TemporaryDirectory(prefix="ferry-l1-")
        self.folder = pathlib.Path(self._scratch.name)
        self._tree = self.folder / "tree"
        (self._tree / "lib").mkdir(parents=True)
        return self

    def __exit__(self, *_):
        self._scratch.cleanup()

    def add(self, path, name=None):
        """Makes a host file (or folder) available as /l1/<name>."""
        path = pathlib.Path(path).resolve()
        target = self._tree / (name or path.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target)
            return
        try:
            os.link(path, target)
        except OSError:
            shutil.copy(path, target)

    def add_program(self, path, name=None):
        """As add(), with the shared libraries of the program."""
        self.add(path, name)
        listing = subprocess.run(["ldd", path], stdout=subprocess.PIPE, text=True,
                                 stderr=subprocess.DEVNULL, check=False).stdout
        for library in re.findall(r"(/\S+) \(0x", listing):
            library = pathlib.Path(library)
            if not (self._tree / "lib" / library.name).exists():
                shutil.copy(library.resolve(), self._tree / "lib" / library.name)

    def add_bytes(self, name, data):
        (self._tree / name).write_bytes(data)

    def read_file(self, outcome, name):
        """A file of /l1 after the run, as the path of a copy."""
        copy = self.folder / "read-back"
        copy.unlink(missing_ok=True)
        subprocess.run(["debugfs", "-R", f"dump /{name} {copy}", outcome.image], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return copy

    def _make_image(self, image):
        """An ext4 image of the tree; holes stay holes. Half as much again is left free."""
        size = sum(path.stat().st_size for path in self._tree.rglob("*") if path.is_file())
        mib = (size * 3 // 2 >> 20) + 64
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0",
                        "-d", self._tree, image, f"{mib}M"], check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def _qemu(self, kernel, ramfs, image):
        return ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi",
                "-cpu", self.cpu, "-smp", "1", "-m", str(self.memory_mib),
                "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio",
                "-no-reboot", "-kernel", kernel.bzimage, "-initrd", ramfs,
                "-append", L1_APPEND,
                "-drive", f"file={image},if=none,id=d0,format=raw,cache=unsafe",
                "-device", "virtio-blk-pci,drive=d0"]

    def run(self, commands, progress=None):
        """Boots L1, runs the commands, returns {name: Outcome}. progress(name, outcome) is
        called as each command ends."""
        outcomes = {}
        left = list(commands)
        stops = collections.Counter()
        while left:
            outcomes |= self._boot(stops.total(), left, progress)
            left = [command for command in left if outcomes[command.name].status in (None, KILLED)]
            if left:
                stops[left[0].name] += 1
                again = stops[left[0].name] < ATTEMPTS
                print(f"# L1 stopped in {left[0].name}" + (": once more" if again else ""),
                      flush=True)
                left = left if again else left[1:]  # else its outcome stands
        return outcomes

    def _boot(self, attempt, commands, progress):
        kernel = debian.Kernel()
        script = ""
        for number, command in enumerate(commands):
            self.add_bytes(f"command-{number}", command.shell.encode() + b"\n")
            # Here init runs: kill -1 spares it and ends what the command left behind.
            script += (f"echo; echo '@@ begin {command.name}'\n"
                       f"timeout -s KILL {command.seconds} sh ./command-{number} "
                       f"</dev/null 2>&1; status=$?\n"
                       f"kill -9 -1; sync; echo; echo \"@@ end $status\"\n"
                       f"[ $status = {KILLED} ] && return\n")
        self.add_bytes("commands", script.encode())
        image = self.folder / f"l1-{attempt}.img"
        self._make_image(image)
        ramfs = self.folder / "l1.cpio"
        ramfs.write_bytes(initramfs.busybox_initramfs(
            debian.busybox(), kernel.modules(*L1_MODULES), INIT).pack())

        seconds = {command.name: command.seconds for command in commands}
        with subprocess.Popen(self._qemu(kernel, ramfs, image), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as qemu:
            watchdog = Watchdog(qemu.kill)
            console = Console(self.log, self.echo, progress,
                              lambda name: watchdog.feed(seconds[name] + BOOT_SECONDS))
            watchdog.feed(BOOT_SECONDS)
            try:
                for line in qemu.stdout:
                    console.line(line.decode(errors="replace"))
                if qemu.wait() != 0:
                    console.line(f"L1's QEMU ended with status {qemu.returncode}\n")
            finally:
                watchdog.stop()
                qemu.kill()
        outcomes = console.finish(commands)
        for outcome in outcomes.values():
            outcome.image = image
        return outcomes


class Watchdog:
    """Calls bite() when it has not been fed for the seconds given at the last time."""

    def __init__(self, bite):
        self._bite = bite
        self._timer = None

    def feed(self, seconds):
        self.stop()
        self._timer = threading.Timer(seconds, self._bite)
        self._timer.start()

    def stop(self):
        if self._timer:
            self._timer.cancel()


class Console:
    """Sorts L1's console into the outcomes of commands."""

    def __init__(self, log, echo, progress, begins):
        self._log = open(log, "a", encoding="utf-8") if log else None
        self._echo = echo
        self._progress = progress
        self._begins = begins
        self._outcomes = {}
        self._name = None
        self._began = 0.0
        self._lines = []

    def line(self, text):
        text = text.replace("\r", "")
        if self._log:
            self._log.write(text)
            self._log.flush()
        if self._echo:
            print(text, end="", flush=True)
        if text.startswith("@@ begin "):
            self._name = text.split()[2]
            self._began = time.monotonic()
            self._lines = []
            self._begins(self._name)
        elif text.startswith("@@ end ") and self._name:
            self._close(int(text.split()[2]))
        else:
            self._lines.append(text)

    def _close(self, status):
        outcome = Outcome(status, "".join(self._lines), time.monotonic() - self._began)
        self._outcomes[self._name] = outcome
        if self._progress:
            self._progress(self._name, outcome)
        self._name = None
        self._lines = []

    def finish(self, commands):
        if self._log:
            self._log.close()
        rest = "".join(self._lines)
        for command in commands:
            if command.name not in self._outcomes:
                # The first one that is missing has the output up to the end of L1.
                self._outcomes[command.name] = Outcome(None, rest)
                rest = ""
        return self._outcomes


def main():
    parser = argparse.ArgumentParser(description="Run a shell command in L1.")
    parser.add_argument("--add", action="append", default=[], metavar="FILE",
                        help="file for /l1; a program brings its libraries")
    parser.add_argument("--kernel", action="store_true",
                        help="add bzImage, vmlinux and l2.cpio, for L2 to boot")
    parser.add_argument("--without-svm", action="store_true", help="an L1 that cannot have KVM")
    parser.add_argument("--memory", type=int, default=2048, help="MiB")
    parser.add_argument("--seconds", type=int, default=300, help="time limit")
    parser.add_argument("shell", nargs="+", metavar="COMMAND", help="run by sh in /l1")
    options = parser.parse_args()
    cpu = CPU_WITHOUT_SVM if options.without_svm else CPU_WITH_SVM
    with L1(cpu=cpu, memory_mib=options.memory, echo=True) as l1:
        for path in options.add:
            l1.add_program(path)
        if options.kernel:
            kernel = debian.Kernel()
            l1.add(kernel.bzimage, "bzImage")
            l1.add(kernel.vmlinux(), "vmlinux")
            ramfs = initramfs.busybox_initramfs(
                debian.busybox(), kernel.modules("virtio_pci", "virtio_blk"),
                "echo L2 is up; cat /proc/interrupts; poweroff -f")
            l1.add_bytes("l2.cpio", ramfs.pack())
        outcome = l1.run([Command("command", " ".join(options.shell), options.seconds)])["command"]
    if outcome.status is None:
        print("L1 did not get to the end of the command", file=sys.stderr)
    return 1 if outcome.status is None else outcome.status


if __name__ == "__main__":
    sys.exit(main())
