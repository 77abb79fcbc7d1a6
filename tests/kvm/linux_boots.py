#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Debian's kernel as L2 under KVM in L1, over machines, interrupt chips, kernel images, sizes and
back ends; the bytes of its virtio-blk disk are checked on both sides.

The disk has two partitions: 64 MiB of random data, and 64 MiB of holes. L2 reads the data (md5),
writes it once more into the holes by four processes, rotated by a quarter, syncs, drops its
caches and reads it back (md5). When L1 is down, the host checks both in the image file.

    linux_boots.py --build build                 the short table
    linux_boots.py --build build --long          every combination
    linux_boots.py --vmm qemu                    the same with Debian's QEMU, for comparison
                                                 (7.2 has no irqchip=off with two CPUs: SeaBIOS
                                                 stops there)
    linux_boots.py --build build --only 'q35/*'
"""
import argparse
import concurrent.futures
import dataclasses
import fnmatch
import hashlib
import itertools
import os
import pathlib
import random
import re
import shutil
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from kit import debian, initramfs, report  # noqa: E402
from kvm import l1  # noqa: E402

MIB = 1 << 20
SECTORS_PER_MIB = MIB // 512
AREA_MIB = 64  # of each partition
WRITERS = 4
QUARTER_MIB = AREA_MIB // WRITERS
BOOT_SECONDS = 300  # 30-45 s on an idle machine of today, twice that with irqchip=off
BOOTS_PER_L1 = 12
L2_MODULES = ("virtio_pci", "virtio_blk")
KERNEL_FILES = {"bzimage": "bzImage", "pvh": "vmlinux"}
HOST_BRIDGES = {"q35": "0x29c0", "pc": "0x1237"}

L2_INIT = f"""
echo "L2 cpus $(nproc)"
echo "L2 memory $(grep MemTotal /proc/meminfo)"
echo "L2 host-bridge $(cat /sys/bus/pci/devices/0000:00:00.0/device)"
i=0
while [ ! -b /dev/vda2 ] && [ $i -lt 50 ]; do sleep 0.1; i=$((i + 1)); done
echo "L2 read $(md5sum /dev/vda1)"
for i in 0 1 2 3; do
    dd if=/dev/vda1 of=/dev/vda2 bs=1M count={QUARTER_MIB} conv=notrunc 2>/dev/null \\
        skip=$((({QUARTER_MIB} * (i + 1)) % {AREA_MIB})) seek=$(({QUARTER_MIB} * i)) ||
        echo "L2 writer $i failed" &
done
wait
sync
echo 3 > /proc/sys/vm/drop_caches
echo "L2 written $(md5sum /dev/vda2)"
grep -q 'PCI-MSI.*virtio0-req' /proc/interrupts && echo "L2 msix"
poweroff -f
"""


@dataclasses.dataclass(frozen=True)
class Boot:
    machine: str
    irqchip: str
    kernel: str
    cpus: int
    memory: str
    aio: str
    doorbell: str = "eventfd"

    @property
    def name(self):
        name = (f"{self.machine}/{self.irqchip}/{self.kernel}/smp{self.cpus}/{self.memory}"
                f"/{self.aio}")
        return name if self.doorbell == "eventfd" else f"{name}/{self.doorbell}"

    def arguments(self, image, cpu="host"):
        """The command line, in the spelling that ferry and QEMU share."""
        device = "virtio-blk-pci,drive=d0"
        objects = ""
        if self.doorbell == "iothread":
            objects = "-object iothread,id=io0 "
            device += ",iothread=io0"
        elif self.doorbell == "exit":
            device += ",ioeventfd=off"
        append = "console=ttyS0 quiet mitigations=off tsc=reliable panic=-1"
        return (f"-M {self.machine},kernel-irqchip={self.irqchip} -accel kvm -cpu {cpu} "
                f"-smp {self.cpus} -m {self.memory} -nodefaults -display none -serial stdio "
                f"-no-reboot -kernel {KERNEL_FILES[self.kernel]} -initrd l2.cpio "
                f"-append '{append}' {objects}"
                f"-drive file={image},if=none,id=d0,format=raw,cache=none,aio={self.aio} "
                f"-device {device}")


# Every value of every column at least once.
SHORT = [
    Boot("q35", "on", "bzimage", 1, "512", "io_uring"),
    Boot("q35", "split", "pvh", 2, "512", "threads"),
    Boot("q35", "off", "bzimage", 2, "512", "io_uring", "iothread"),
    Boot("pc", "on", "pvh", 2, "5G", "threads"),
    Boot("pc", "split", "bzimage", 1, "512", "io_uring", "exit"),
    Boot("pc", "off", "bzimage", 1, "5G", "threads"),
]
LONG = [
    *itertools.starmap(Boot, itertools.product(
        ("q35", "pc"), ("on", "split", "off"), ("bzimage", "pvh"), (1, 2), ("512", "5G"),
        ("threads", "io_uring"))),
    *itertools.starmap(Boot, itertools.product(
        ("q35", "pc"), ("on", "split", "off"), ("bzimage",), (2,), ("512",),
        ("threads", "io_uring"), ("iothread", "exit"))),
]


class Disk:
    """What an image holds before and after a run."""

    def __init__(self):
        self.label = partition_table()
        self.data = random.Random(2010).randbytes(AREA_MIB * MIB)
        first = QUARTER_MIB * MIB
        self.rotated = self.data[first:] + self.data[:first]
        self.read_md5 = hashlib.md5(self.data).hexdigest()
        self.written_md5 = hashlib.md5(self.rotated).hexdigest()

    def write(self, path):
        with open(path, "wb") as image:
            image.write(self.label)
            image.write(self.data)
            image.truncate(len(self.label) + 2 * AREA_MIB * MIB)

    def fault(self, path):
        """What is wrong with the image file after the run, or None."""
        if path.stat().st_size != len(self.label) + 2 * AREA_MIB * MIB:
            return f"the image has {path.stat().st_size} bytes on the host"
        with open(path, "rb") as image:
            if image.read(len(self.label)) != self.label:
                return "the partition table has changed on the host"
            if image.read(AREA_MIB * MIB) != self.data:
                return "what L2 only read has changed on the host"
            if image.read() != self.rotated:
                return "what L2 wrote differs on the host"
        return None


def partition_table():
    """The first MiB of a disk with an MBR and two partitions."""
    label = bytearray(MIB)
    for number in (0, 1):
        struct.pack_into("<B3sB3sII", label, 446 + 16 * number, 0, b"\0\2\0", 0x83, b"\0\2\0",
                         (1 + AREA_MIB * number) * SECTORS_PER_MIB, AREA_MIB * SECTORS_PER_MIB)
    label[510:512] = b"\x55\xaa"
    return bytes(label)


def fault_in_console(boot, outcome, disk):
    """What is wrong with the output and exit status of a boot, or None."""
    facts = dict(re.findall(r"^L2 (\S+) ?(.*)$", outcome.output, re.MULTILINE))
    if outcome.status is None:
        return "L1 ended before L2"
    if "cpus" not in facts:
        return f"L2 did not reach its init (status {outcome.status})"
    if facts["cpus"] != str(boot.cpus):
        return f"L2 sees {facts['cpus']} CPUs"
    memory_mib = int("".join(re.findall(r"\d+", facts.get("memory", ""))) or 0) >> 10
    wanted_mib = 5120 if boot.memory == "5G" else int(boot.memory)
    if not wanted_mib * 0.8 < memory_mib <= wanted_mib:
        return f"L2 sees {memory_mib} MiB of memory"
    if facts.get("host-bridge") != HOST_BRIDGES[boot.machine]:
        return f"L2 sees the host bridge {facts.get('host-bridge')}"
    for what, md5 in (("read", disk.read_md5), ("written", disk.written_md5)):
        if not facts.get(what, "").startswith(md5):
            return f"md5 in L2 of the data {what}: {facts.get(what) or 'none'}"
    if "writer" in facts:
        return f"writer {facts['writer']} in L2"
    if "msix" not in facts:
        return "the disk does not interrupt by MSI-X"
    if outcome.status != 0:
        return f"the VMM's exit status is {outcome.status}"
    return None


def add_vmm(machine, vmm, build):
    """Puts the VMM into L1; returns how L1 calls it."""
    if vmm == "ferry":
        machine.add_program(build / "ferry", "vmm")
        return "./vmm"
    machine.add_program(shutil.which("qemu-system-x86_64"), "vmm")
    for file in ("bios-256k.bin", "linuxboot_dma.bin", "pvh.bin", "kvmvapic.bin"):
        found = [path for folder in ("qemu", "seabios")
                 if (path := pathlib.Path("/usr/share") / folder / file).exists()]
        machine.add(found[0], "share/" + file)
    return "./vmm -L share"


def run_boots(number, boots, options, results):
    """One L1 for all the boots."""
    kernel = debian.Kernel()
    disk = Disk()
    log = options.log and options.log.with_suffix(f".{number}{options.log.suffix}")
    with l1.L1(log=log, echo=options.verbose) as machine:
        vmm = add_vmm(machine, options.vmm, options.build)
        machine.add(kernel.bzimage, "bzImage")
        machine.add(kernel.vmlinux(), "vmlinux")
        machine.add_bytes("l2.cpio", initramfs.busybox_initramfs(
            debian.busybox(), kernel.modules(*L2_MODULES), L2_INIT).pack())
        commands = []
        for index, boot in enumerate(boots):
            image = f"disk-{index}"
            disk.write(machine.folder / image)
            machine.add(machine.folder / image)
            # KVM has no asynchronous page faults without its own LAPIC, and QEMU 7.2 fails there.
            cpu = "host,-kvm-asyncpf-int" if options.vmm == "qemu" else "host"
            commands.append(l1.Command(boot.name, f"exec {vmm} {boot.arguments(image, cpu)}",
                                       BOOT_SECONDS))

        # The verdict waits for L1 to write everything back.
        outcomes = machine.run(commands, progress=lambda name, outcome: print(
            f"# {name}: ran {outcome.seconds:.0f} s", flush=True))
        for index, boot in enumerate(boots):
            outcome = outcomes[boot.name]
            fault = fault_in_console(boot, outcome, disk)
            fault = fault or disk.fault(machine.read_file(outcome, f"disk-{index}"))
            results.case(f"kvm/linux/{boot.name}", fault, f"{outcome.seconds:.0f} s")
            if fault:
                report.show_tail(outcome.output)


def shares(boots, jobs):
    """Lists of boots, one for each L1: as many as run at once, or more if they get long."""
    count = max(min(jobs, len(boots)), -(-len(boots) // BOOTS_PER_L1))
    return [boots[start::count] for start in range(count)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    parser.add_argument("--vmm", choices=("ferry", "qemu"), default="ferry")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--only", metavar="PATTERN", default="*")
    parser.add_argument("--list", action="store_true", help="the names of the boots")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count()), help="L1s at a time")
    parser.add_argument("--log", type=pathlib.Path, help="file for L1's console")
    parser.add_argument("--verbose", action="store_true", help="show L1's console")
    options = parser.parse_args()
    boots = [boot for boot in (LONG if options.long else SHORT)
             if fnmatch.fnmatch(boot.name, options.only)]
    if options.list:
        print("\n".join(boot.name for boot in boots))
        return 0
    debian.Kernel().vmlinux()  # fills the cache before the threads need it
    results = report.Results()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        runs = [pool.submit(run_boots, number, share, options, results)
                for number, share in enumerate(shares(boots, options.jobs))]
    for run in runs:
        run.result()
    return results.exit_status()


if __name__ == "__main__":
    report.run(main)
