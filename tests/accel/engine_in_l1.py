#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The KVM engine's tests (accel/kvm) in L1, where code at CPL 0 runs for real: none is skipped.

    engine_in_l1.py --build build
"""
import argparse
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from kit import report  # noqa: E402
from kvm import l1  # noqa: E402

SECONDS = 180  # 20 s on a machine of today
# Cases as cmocka prints them: "[       OK ] test_mmio".
LINE = re.compile(r"^\[\s+(OK|FAILED|SKIPPED)\s*\] (test_\w+)$")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    options = parser.parse_args()
    results = report.Results()

    with l1.L1() as machine:
        machine.add_program(options.build / "tests/accel/accel_kvm")
        outcome = machine.run([l1.Command("accel_kvm", "exec ./accel_kvm", SECONDS)])["accel_kvm"]
    verdicts = {}
    for line in outcome.output.splitlines():
        match = LINE.match(line)
        if match:
            verdicts.setdefault(match[2], match[1])
    for name, verdict in verdicts.items():
        fault = None if verdict == "OK" else f"{verdict.lower()} in L1"
        results.case(f"accel/kvm-l1/{name}", fault, "")
    fault = None
    if outcome.status != 0:
        fault = "L1 did not get to its end" if outcome.status is None else \
            f"exit status {outcome.status}"
    elif not verdicts:
        fault = "no test ran"
    results.case("accel/kvm-l1", fault, f"{len(verdicts)} tests, {outcome.seconds:.0f} s")
    if results.exit_status():
        report.show_tail(outcome.output)
    return results.exit_status()


if __name__ == "__main__":
    report.run(main)
