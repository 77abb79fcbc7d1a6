#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Code that a virtio-blk device writes, after it has run (device_code.S, as a ROM of its own): on the
soft CPU, with the device on the main loop and on an iothread. --vmm qemu runs the same there.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import firmware  # noqa: E402
from kit import report  # noqa: E402

CHECKS = 17
CASES = {
    "main-loop": (),
    "iothread": ("-object", "iothread,id=io0"),
    "no-ioeventfd": (),
}
DEVICE = {"main-loop": "", "iothread": ",iothread=io0", "no-ioeventfd": ",ioeventfd=off"}


def run(vmm, rom, disk, case):
    argv = [*firmware.command(vmm, rom, "pc", "tcg"), *CASES[case],
            "-drive", f"file={disk},if=none,format=raw,id=d",
            "-device", "virtio-blk-pci,drive=d,addr=4,serial=S,disable-legacy=on" + DEVICE[case]]
    return firmware.output_of(argv)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    parser.add_argument("--vmm", choices=("ferry", "qemu"), default="ferry")
    options = parser.parse_args()
    vmm = options.build / "ferry" if options.vmm == "ferry" else "qemu-system-x86_64"
    results = report.Results()
    with tempfile.TemporaryDirectory(prefix="ferry-device-code-") as folder:
        rom = firmware.make_rom(pathlib.Path(folder), "device_code.S")
        disk = pathlib.Path(folder) / "disk.img"
        disk.write_bytes(b"\xcb" * (1 << 20))
        for case in CASES:
            output = run(vmm, rom, disk, case)
            fault = firmware.wrong_check(output, CHECKS)
            results.case(f"guest/device-code/{case}", fault)
            if fault:
                report.show_tail(output)
    return results.exit_status()


if __name__ == "__main__":
    report.run(main)
