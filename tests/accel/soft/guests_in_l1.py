#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The soft CPU's guests on KVM in L1: what they find must be what they find on the soft CPU.

    guests_in_l1.py --build build

The guests know themselves what is right; digests compare everything else that they noted. A guest
that made another number of checks ran on a CPU with other features: then only its own verdict counts.
"""
import argparse
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))
from kit import report  # noqa: E402
from kvm import l1  # noqa: E402

SECONDS = 300  # 40 s on a machine of today
LINE = re.compile(r"^guest (\w+) +(\d+) checks, (\d+) wrong, digest (\w+)")


def parse(output):
    found = {}
    for line in output.splitlines():
        match = LINE.match(line)
        if match:
            found[match[1]] = (int(match[2]), int(match[3]), match[4])
    return found


def judge(soft, kvm):
    """Why the two disagree, or None."""
    if kvm is None:
        return "did not run in L1"
    if kvm[1]:
        return f"{kvm[1]} checks wrong in L1"
    if soft[0] == kvm[0] and soft[2] != kvm[2]:
        return f"digest {soft[2]} on the soft CPU, {kvm[2]} on KVM"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    options = parser.parse_args()
    results = report.Results()
    program = options.build / "tests/accel/soft/soft_guests"

    ours = subprocess.run([program, "tcg"], capture_output=True, text=True, timeout=SECONDS,
                          check=False)
    soft = parse(ours.stdout)
    with l1.L1() as machine:
        machine.add_program(program)
        outcome = machine.run([l1.Command("guests", "exec ./soft_guests kvm", SECONDS)])["guests"]
    kvm = parse(outcome.output)
    for name, verdict in soft.items():
        fault = f"{verdict[1]} checks wrong on the soft CPU" if verdict[1] else \
            judge(verdict, kvm.get(name))
        results.case(f"accel/soft-guests-l1/{name}", fault, "")
    fault = None
    if not soft:
        fault = "no guest ran on the soft CPU"
    elif outcome.status is None:
        fault = "L1 did not get to its end"
    results.case("accel/soft-guests-l1", fault, f"{len(kvm)} guests, {outcome.seconds:.0f} s")
    if results.exit_status():
        report.show_tail(outcome.output)
    return results.exit_status()


if __name__ == "__main__":
    report.run(main)
