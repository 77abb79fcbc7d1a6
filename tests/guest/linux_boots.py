#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Debian's kernel on the soft CPU, over machines, kernel images, CPU counts and back ends; the bytes
of its virtio-blk disk are checked on both sides, as under KVM (tests/kvm/linux_boots.py).

    linux_boots.py --build build                 the short table
    linux_boots.py --build build --long          every combination, and 20 boots in a row while
                                                 another job loads the machine
    linux_boots.py --build build --only 'q35/*'
    linux_boots.py --vmm qemu                    the same with Debian's QEMU (TCG)
    linux_boots.py --build build/asan --prefix guest/linux-asan --only 'q35/bzimage/smp1/*'
"""
import argparse
import dataclasses
import fnmatch
import itertools
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from kit import debian, initramfs, report  # noqa: E402
from kvm.linux_boots import (Disk, KERNEL_FILES, L2_INIT, L2_MODULES,  # noqa: E402
                             fault_in_console)

BOOT_SECONDS = 240
ROW = 20

# What Debian's kernel prints under QEMU (TCG) with the same devices, too.
KNOWN_WARNINGS = ()


@dataclasses.dataclass(frozen=True)
class Boot:
    machine: str
    kernel: str
    cpus: int
    aio: str
    doorbell: str = "main"
    cpu: str = "qemu64"
    memory: str = "512"
    number: int = 0

    @property
    def name(self):
        name = f"{self.machine}/{self.kernel}/smp{self.cpus}/{self.aio}/{self.cpu}"
        if self.doorbell != "main":
            name += "/" + self.doorbell
        return f"{name}/{self.number}" if self.number else name

    def arguments(self, image):
        device = "virtio-blk-pci,drive=d0"
        objects = []
        if self.doorbell == "iothread":
            objects = ["-object", "iothread,id=io0"]
            device += ",iothread=io0"
        return ["-M", self.machine, "-accel", "tcg", "-cpu", self.cpu, "-smp", str(self.cpus),
                "-m", self.memory, "-nodefaults", "-display", "none", "-serial", "stdio",
                "-no-reboot", "-kernel", KERNEL_FILES[self.kernel], "-initrd", "guest.cpio",
                "-append", "console=ttyS0 loglevel=5 panic=-1",
                *objects, "-drive",
                f"file={image},if=none,id=d0,format=raw,cache=none,aio={self.aio}",
                "-device", device]


# Every value of every column at least once.
SHORT = [
    Boot("q35", "bzimage", 1, "io_uring"),
    Boot("pc", "pvh", 2, "threads"),
    Boot("q35", "pvh", 4, "io_uring", "iothread", "max"),
    Boot("pc", "bzimage", 8, "threads", "main", "max"),
]
LONG = [
    *itertools.starmap(Boot, itertools.product(
        ("q35", "pc"), ("bzimage", "pvh"), (1, 2, 4, 8), ("threads", "io_uring"))),
    Boot("q35", "bzimage", 2, "threads", "iothread", "max"),
    Boot("pc", "pvh", 2, "io_uring", "iothread", "max"),
]


@dataclasses.dataclass
class Outcome:
    status: int
    output: str
    seconds: float


def run(vmm, boot, folder, seconds):
    start = time.monotonic()
    try:
        done = subprocess.run([*vmm, *boot.arguments("disk.img")], cwd=folder, text=True,
                              errors="replace", stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=seconds, check=False)
        status, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as expired:
        status, output = None, (expired.stdout or b"").decode(errors="replace")
    return Outcome(status, output.replace("\r", ""), time.monotonic() - start)


def warnings(output):
    """Lines of the kernel's log that only a fault of the machine explains."""
    pattern = re.compile(r"(WARNING|BUG|Oops|Call Trace|unable to handle|soft lockup|rcu.*stall"
                         r"|TSC.*unstable|clocksource.*skew|trap invalid opcode|general protection)")
    return [line for line in output.splitlines()
            if pattern.search(line) and not any(known in line for known in KNOWN_WARNINGS)]


def one_boot(vmm, boot, folder, disk, seconds):
    disk.write(folder / "disk.img")
    outcome = run(vmm, boot, folder, seconds)
    # 512 MiB; names of columns that fault_in_console() looks at are the same.
    fault = fault_in_console(boot, outcome, disk) or disk.fault(folder / "disk.img")
    if not fault and (lines := warnings(outcome.output)):
        fault = "the kernel warns: " + lines[0].strip()
    return fault, outcome


class Load:
    """Another job on every CPU of the host."""

    def __enter__(self):
        self.jobs = [subprocess.Popen(["sh", "-c", "while :; do :; done"])
                     for _ in range(os.cpu_count())]

    def __exit__(self, *_):
        for job in self.jobs:
            job.kill()
            job.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    parser.add_argument("--vmm", choices=("ferry", "qemu"), default="ferry")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--only", metavar="PATTERN", default="*")
    parser.add_argument("--seconds", type=int, default=BOOT_SECONDS, help="most for one boot")
    parser.add_argument("--prefix", default="guest/linux", help="of the names of cases")
    parser.add_argument("--list", action="store_true", help="the names of the boots")
    parser.add_argument("--verbose", action="store_true", help="show every console")
    options = parser.parse_args()
    row = [Boot("q35", "bzimage", 2, "io_uring", number=i + 1) for i in range(ROW)]
    table, row = ([boot for boot in boots if fnmatch.fnmatch(boot.name, options.only)]
                  for boots in (LONG if options.long else SHORT, row if options.long else []))
    if options.list:
        print("\n".join(boot.name for boot in [*table, *row]))
        return 0
    vmm = [os.path.abspath(options.build / "ferry") if options.vmm == "ferry"
           else "qemu-system-x86_64"]
    kernel = debian.Kernel()
    disk = Disk()
    results = report.Results()
    with tempfile.TemporaryDirectory(prefix="ferry-boots-") as name:
        folder = pathlib.Path(name)
        os.symlink(kernel.bzimage, folder / "bzImage")
        os.symlink(kernel.vmlinux(), folder / "vmlinux")
        (folder / "guest.cpio").write_bytes(initramfs.busybox_initramfs(
            debian.busybox(), kernel.modules(*L2_MODULES), L2_INIT).pack())

        def boot_all(boots, prefix):
            for boot in boots:
                fault, outcome = one_boot(vmm, boot, folder, disk, options.seconds)
                results.case(f"{prefix}/{boot.name}", fault, f"{outcome.seconds:.0f} s")
                if fault or options.verbose:
                    report.show_tail(outcome.output)

        boot_all(table, options.prefix)
        if row:
            with Load():
                boot_all(row, "guest/linux-loaded")
    return results.exit_status()


if __name__ == "__main__":
    report.run(main)
