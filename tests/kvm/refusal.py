#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""ferry -accel kvm where there is no KVM that can run a 64-bit guest: status 1, one clear line.

    refusal.py --build build
"""
import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from kit import report, vmm  # noqa: E402
from kvm import l1  # noqa: E402

COMMAND = "-M q35 -accel kvm -m 64 -nodefaults -display none -S"


def fault_in_refusal(status, output):
    lines = output.strip().splitlines()
    if status != 1:
        return f"exit status {status} instead of 1"
    if len(lines) != 1:
        return f"{len(lines)} lines instead of one"
    if not lines[0].startswith("ferry: ") or "kvm" not in lines[0].lower():
        return f"unclear: {lines[0]}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    options = parser.parse_args()
    results = report.Results()

    refusal = vmm.kvm_refusal(options.build)
    if refusal is None:
        results.skip("kvm/refusal/host", "this host's KVM runs 64-bit guests")
    else:
        results.case("kvm/refusal/host", fault_in_refusal(1, refusal), refusal)

    with l1.L1(cpu=l1.CPU_WITHOUT_SVM) as machine:
        machine.add_program(options.build / "ferry")
        outcome = machine.run([l1.Command("refusal", f"exec ./ferry {COMMAND}")])["refusal"]
    fault = fault_in_refusal(outcome.status, outcome.output)
    results.case("kvm/refusal/no-svm", fault, outcome.output.strip())
    if fault:
        report.show_tail(outcome.output)
    return results.exit_status()


if __name__ == "__main__":
    report.run(main)
