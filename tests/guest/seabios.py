#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Debian's SeaBIOS on the soft CPU: real mode, protected mode and its threads, to the end of its
start. What it says comes through the debug port 0x402. It moves SMBASE into SMRAM, by one SMI.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from kit import report  # noqa: E402

BIOS = pathlib.Path("/usr/share/seabios/bios-256k.bin")
SECONDS = 90
END = "All threads complete."


def console_of(argv):
    """What SeaBIOS says until it is done; it never ends by itself."""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as process:
        os.set_blocking(process.stdout.fileno(), False)
        output, deadline = b"", time.monotonic() + SECONDS
        while END.encode() not in output and time.monotonic() < deadline:
            output += process.stdout.read() or b""
            if process.poll() is not None:
                break
            time.sleep(0.05)
        process.terminate()
        process.wait(30)
    return output.decode(errors="replace").replace("\r", "")


SMM = ["SMM: enter, SMBASE 00030000", "SMM: after RSM, SMBASE 000a0000"]


def fault_in(output, events, cpus, memory):
    if END not in output:
        return "SeaBIOS did not come to its end"
    if f"Found {cpus} cpu(s)" not in output:
        return "SeaBIOS counts " + (re.findall(r"Found \d+ cpu\(s\)", output) or ["no CPUs"])[0]
    if f"RamSize: 0x{memory << 20:08x}" not in output:
        return "SeaBIOS sees another size of memory"
    if re.findall(r"SMM: .*", events) != SMM:
        return f"SMM: {re.findall(r'SMM: .*', events)[:4]}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    options = parser.parse_args()
    if not BIOS.exists():
        print(f"{BIOS} is missing: install seabios")
        return report.SKIP_STATUS
    results = report.Results()
    for machine, cpus, cpu in (("pc", 1, "qemu64"), ("q35", 4, "max")):
        with tempfile.NamedTemporaryFile(mode="r", errors="replace") as log:
            output = console_of([options.build / "ferry", "-M", machine, "-accel", "tcg",
                                 "-cpu", cpu, "-smp", str(cpus), "-m", "256", "-nodefaults",
                                 "-display", "none", "-d", "int", "-D", log.name,
                                 "-bios", BIOS, "-chardev", "stdio,id=c",
                                 "-device", "isa-debugcon,iobase=0x402,chardev=c"])
            fault = fault_in(output, log.read(), cpus, 256)
        results.case(f"guest/seabios/{machine}/smp{cpus}/{cpu}", fault)
        if fault:
            report.show_tail(output)
    return results.exit_status()


if __name__ == "__main__":
    report.run(main)
