#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What only firmware sees: the A20 gate, SMIs, SMRAM (firmware.S, as a ROM of its own); on pc and
q35, on the soft CPU with SMM and without, or with --engine kvm, which has no gate, in L1.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from kit import report  # noqa: E402
from kvm import l1  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
SECONDS = 60
NAMES = {"tcg": "guest/firmware", "kvm": "kvm/firmware"}


def make_rom(folder):
    """firmware.S as 64 KiB."""
    code, rom = folder / "firmware.o", folder / "firmware.bin"
    subprocess.run([os.environ.get("CC", "gcc"), "-m32", "-c", "-o", code, HERE / "firmware.S"],
                   check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-T", HERE / "firmware.ld", "--oformat", "binary",
                    "-o", rom, code], check=True)
    return rom


def command(ferry, rom, machine, engine):
    return [ferry, "-M", machine, "-accel", engine, "-m", "64", "-nodefaults", "-display", "none",
            "-no-reboot", "-bios", rom, "-chardev", "stdio,id=c",
            "-device", "isa-debugcon,iobase=0x402,chardev=c",
            "-device", "isa-debug-exit,iobase=0x501,iosize=4"]


def run(ferry, rom, machine):
    argv = command(ferry, rom, machine, "tcg")
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as expired:
        return (expired.stdout or b"").decode(errors="replace")
    return done.stdout.decode(errors="replace")


def run_in_l1(build, rom, machines):
    """Machine -> what it printed."""
    with l1.L1() as host:
        host.add_program(build / "ferry")
        host.add(rom)
        outcomes = host.run([
            l1.Command(machine, " ".join(command("./ferry", rom.name, machine, "kvm")), SECONDS)
            for machine in machines])
    return {machine: outcomes[machine].output for machine in machines}


def fault_in(output, has_smm, has_gate=True):
    """Every check that it printed, and the end."""
    lines = [line.strip("\0 ") for line in output.splitlines()]
    if "end" not in lines:
        return "it did not come to its end"
    checks = [line.split() for line in lines if len(line.split()) == 3]
    expected = 20 if has_gate else 15
    if len(checks) != expected:
        return f"{len(checks)} checks of {expected}"
    for name, got, want in checks:
        if not has_smm and name.startswith(("smi", "smram")):
            # No SMI comes, and nothing that a handler would have changed has changed.
            if name in ("smi-first", "smi-second", "smi-third", "smi-moved") and got != "0000":
                return f"{name}: {got} without SMM"
        elif got != want and (has_gate or name != "a20-closed-read"):
            return f"{name}: {got}, should be {want}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    parser.add_argument("--engine", choices=("tcg", "kvm"), default="tcg")
    options = parser.parse_args()
    results = report.Results()
    with tempfile.TemporaryDirectory(prefix="ferry-firmware-") as folder:
        rom = make_rom(pathlib.Path(folder))
        if options.engine == "kvm":
            outputs = run_in_l1(options.build, rom, ("pc", "q35"))
        else:
            outputs = {machine: run(options.build / "ferry", rom, machine)
                       for machine in ("pc", "q35", "pc,smm=on", "q35,smm=off")}
        for machine, output in outputs.items():
            fault = fault_in(output, "smm=off" not in machine, options.engine != "kvm")
            results.case(f"{NAMES[options.engine]}/{machine}", fault)
            if fault:
                report.show_tail(output)
    return results.exit_status()


if __name__ == "__main__":
    report.run(main)
