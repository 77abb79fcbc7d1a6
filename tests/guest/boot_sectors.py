#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Boot sectors (sectors/*.S) that SeaBIOS starts from a virtio disk, on the soft CPU: what they print to COM1.

    boot_sectors.py [--build BUILD] [--prefix PREFIX] [--vmm qemu] [names ...]

--vmm qemu runs the same on QEMU's emulated CPU.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from kit import report  # noqa: E402

SOURCES = pathlib.Path(__file__).resolve().parent / "sectors"
SEABIOS = "/usr/share/seabios/bios-256k.bin"
SECONDS = 100
# Name, machine, what is printed. remap: P is right, too, where the TLB still has the old page, and O where
# what runs is not decoded anew yet.
SECTORS = {
    "wrap": ("pc", "OOONNN"),
    "remap": ("pc", "[OP]{3}[NOP]{2}"),
    "clock_in_apic": ("pc", "[.+]{8}"),
    "smi_halted": ("q35", "1234"),
    "xop": ("pc", "AB"),
}


def assemble(name, folder):
    image = folder / f"{name}.img"
    for argv in (["as", "--32", "-I", SOURCES, "-o", f"{image}.o", SOURCES / f"{name}.S"],
                 ["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-o", image, f"{image}.o"]):
        subprocess.run(argv, check=True)
    image.write_bytes(image.read_bytes().ljust(1 << 20, b"\0"))
    return image


def run(vmm, image, machine):
    """The text, and how the VMM ended."""
    output = image.with_suffix(".txt")
    argv = [vmm, "-M", machine, "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "64", "-display", "none",
            "-monitor", "none", "-serial", f"file:{output}", "-device", "isa-debug-exit,iobase=0xf4", "-net",
            "none", "-no-reboot", "-bios", SEABIOS, "-drive", f"file={image},if=virtio,format=raw"]
    # Memory that was freed must not look as before.
    done = subprocess.run(argv, timeout=SECONDS, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
                          env={**os.environ, "MALLOC_PERTURB_": "165"})
    text = output.read_text(errors="replace") if output.exists() else ""
    return text, done.returncode, done.stdout


def fault_of(vmm, image, machine, wanted):
    try:
        text, status, said = run(vmm, image, machine)
    except subprocess.TimeoutExpired:
        return f"not done after {SECONDS} s"
    if status <= 1 or status % 2 == 0:  # isa-debug-exit: an odd one
        return f"status {status}: {said.strip()[-300:]}"
    return None if re.fullmatch(wanted, text.strip()) else f"printed {text!r}, not {wanted}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    parser.add_argument("--prefix", default="guest/boot-sectors")
    parser.add_argument("--vmm", choices=("ferry", "qemu"), default="ferry")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    vmm = options.build.resolve() / "ferry" if options.vmm == "ferry" else "qemu-system-x86_64"
    results = report.Results()
    with tempfile.TemporaryDirectory(prefix="ferry-sectors-") as folder:
        for name, (machine, wanted) in SECTORS.items():
            if not options.names or name in options.names:
                image = assemble(name, pathlib.Path(folder))
                results.case(f"{options.prefix}/{name.replace('_', '-')}", fault_of(vmm, image, machine, wanted))
    return results.exit_status()


if __name__ == "__main__":
    report.run(main)
