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


def make_rom(folder, source):
    """A file of this folder as 64 KiB."""
    code, rom = folder / "rom.o", folder / "rom.bin"
    subprocess.run([os.environ.get("CC", "gcc"), "-m32", "-c", "-o", code, HERE / source],
                   check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-T", HERE / "firmware.ld", "--oformat", "binary",
                    "-o", rom, code], check=True)
    return rom


def command(ferry, rom, machine, engine):
    return [ferry, "-M", machine, "-accel", engine, "-m", "64", "-nodefaults", "-display", "none",
            "-no-reboot", "-bios", rom, "-chardev", "stdio,id=c",
            "-device", "isa-debugcon,iobase=0x402,chardev=c",
            "-device", "isa-debug-exit,iobase=0x501,iosize=4"]


def output_of(argv):
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


def wrong_check(output, expected, is_wrong=lambda name, got, want: got != want):
    """A check that it printed and that is wrong, or what else a ROM has not done."""
    lines = [line.strip("\0 ") for line in output.splitlines()]
    if "end" not in lines:
        return "it did not come to its end"
    checks = [line.split() for line in lines if len(line.split()) == 3]
    if len(checks) != expected:
        return f"{len(checks)} checks of {expected}"
    for name, got, want in checks:
        if is_wrong(name, got, want):
            return f"{name}: {got}, should be {want}"
    return None


def fault_in(output, has_smm, has_gate=True):
    def is_wrong(name, got, want):
        if not has_smm and name.startswith(("smi", "smram")):
            # No SMI comes, and nothing that a handler would have changed has changed.
            return (name in ("smi-first", "smi-second", "smi-third", "smi-moved",
                             "smi-ipi") and
                    got != "0000")
        return got != want and (has_gate or name != "a20-closed-read")

    return wrong_check(output, 21 if has_gate else 16, is_wrong)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    parser.add_argument("--engine", choices=("tcg", "kvm"), default="tcg")
    options = parser.parse_args()
    results = report.Results()
    with tempfile.TemporaryDirectory(prefix="ferry-firmware-") as folder:
        rom = make_rom(pathlib.Path(folder), "firmware.S")
        if options.engine == "kvm":
            outputs = run_in_l1(options.build, rom, ("pc", "q35"))
        else:
            outputs = {machine: output_of(command(options.build / "ferry", rom, machine, "tcg"))
                       for machine in ("pc", "q35", "pc,smm=on", "q35,smm=off")}
        for machine, output in outputs.items():
            fault = fault_in(output, "smm=off" not in machine, options.engine != "kvm")
            results.case(f"{NAMES[options.engine]}/{machine}", fault)
            if fault:
                report.show_tail(output)
    return results.exit_status()


if __name__ == "__main__":
    report.run(main)
