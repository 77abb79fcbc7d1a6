# SPDX-License-Identifier: MIT
"""The hand-written guest of tests/kvm/guest, for KVMs that cannot boot a kernel: it runs at CPL 3,
finds a virtio-blk-pci and moves blocks with MSI-X. It boots by PVH on ferry and on QEMU."""
import pathlib
import re
import subprocess
import time

SOURCES = ("start.S", "main.c", "util.c", "virtio_blk.c", "stress.c")
FLAGS = ("-m64 -O2 -ffreestanding -fno-pic -fno-pie -no-pie -mno-red-zone -mgeneral-regs-only "
         "-fno-stack-protector -fno-asynchronous-unwind-tables -nostdlib -static -Wall -Wextra "
         "-Werror -Wl,--build-id=none -Wl,--no-warn-rwx-segments").split()
SUCCESS = 0x10 << 1 | 1  # what isa-debug-exit makes of 0x10


def build(folder):
    """Compiles the guest; its path."""
    source = pathlib.Path(__file__).resolve().parent / "guest"
    folder.mkdir(parents=True, exist_ok=True)
    elf = folder / "native-guest.elf"
    subprocess.run(["gcc", *FLAGS, f"-Wl,-T,{source}/link.ld", "-o", elf,
                    *(source / name for name in SOURCES)], check=True)
    return elf


def command(vmm, elf, append, disk, machine="q35", accel="kvm", device="", extra=()):
    """The same command line for ferry and QEMU. disk: the text of -blockdev, node-name=d."""
    return [str(vmm), "-M", machine, "-accel", accel, "-m", "64", "-nodefaults", "-display", "none",
            "-no-user-config", "-serial", "stdio", "-no-reboot",
            "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
            "-kernel", str(elf), "-append", append, "-blockdev", disk,
            *extra, "-device", f"virtio-blk-pci,drive=d{device}"]


def run(argv, seconds):
    """Runs to the end: exit status, console, seconds between START and END (None without)."""
    began = None
    span = None
    console = []
    with subprocess.Popen(["timeout", "-k", "5", str(seconds), *argv], text=True, errors="replace",
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as process:
        for line in process.stdout:
            now = time.monotonic()
            console.append(line)
            if line.rstrip().endswith("START"):
                began = now
            elif line.startswith("END") and began:
                span = now - began
        status = process.wait()
    return status, "".join(console), span


def requests_done(console):
    """Requests and interrupts of the guest's last line, or None."""
    found = re.search(r"^END (\d+) (\d+)", console, re.MULTILINE)
    return (int(found[1]), int(found[2])) if found else None
