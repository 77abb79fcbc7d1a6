#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Benchmarks side by side with Debian's QEMU, run in turn (./dev bench [NAME]).

    run.py --build build [kvm | boot | cpu | block | nbd]

The machine is shared and noisy: what counts is the ratio of each pair, and of those the median.
"""
import argparse
import itertools
import os
import pathlib
import statistics
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from bench import block, nbd, soft  # noqa: E402
from kvm import native_guest  # noqa: E402

QEMU = "qemu-system-x86_64"
SECONDS = 180
REQUESTS = {1: 60000, 32: 400000}


def measure(vmm, elf, accel, depth, iothread):
    """Requests per second of one run."""
    extra = ("-object", "iothread,id=io0") if iothread else ()
    argv = native_guest.command(
        vmm, elf, f"mode=1 depth={depth} count={REQUESTS[depth]}",
        "driver=null-co,node-name=d,size=1073741824", "q35", accel,
        ",iothread=io0" if iothread else "", extra)
    status, console, span = native_guest.run(argv, SECONDS)
    if status != native_guest.SUCCESS or not span:
        sys.exit(f"{vmm}: status {status}\n{console[-2000:]}")
    return REQUESTS[depth] / span


def bench_kvm(build, rounds):
    """4 KiB reads of null-co by virtio-blk under this host's KVM."""
    print("4 KiB reads, null-co, virtio-blk-pci, one vCPU that spins; requests per second")
    print(f"{'depth':>5} {'iothread':>8} {'ferry':>9} {'QEMU':>9} {'ferry/QEMU, median (range)':>28} "
          f"{'load':>5}")
    with tempfile.TemporaryDirectory(prefix="ferry-bench-") as folder:
        elf = native_guest.build(pathlib.Path(folder))
        for depth, iothread in itertools.product((1, 32), (False, True)):
            pairs = []
            for _ in range(rounds):
                pairs.append((measure(build / "ferry", elf, "kvm,force=on", depth, iothread),
                              measure(QEMU, elf, "kvm", depth, iothread)))
            ratios = [ferry / qemu for ferry, qemu in pairs]
            print(f"{depth:5} {'on' if iothread else 'off':>8} "
                  f"{statistics.median(p[0] for p in pairs):9.0f} "
                  f"{statistics.median(p[1] for p in pairs):9.0f} "
                  f"{statistics.median(ratios):12.2f} ({min(ratios):.2f}-{max(ratios):.2f}) "
                  f"{os.getloadavg()[0]:8.1f}", flush=True)


def bench_block(build, rounds):
    """Images by ferry-img, then by ferry-nbd."""
    block.bench_block(build, rounds)
    nbd.bench_nbd(build, rounds)


BENCHES = {"kvm": bench_kvm, "boot": soft.bench_boot, "cpu": soft.bench_cpu,
           "block": bench_block, "nbd": nbd.bench_nbd}
# "nbd" is a part of "block".
DEFAULT = ("kvm", "boot", "cpu", "block")


def main():
    parser = argparse.ArgumentParser(prog="./dev bench")
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    options = parser.parse_args()
    for name in options.names or DEFAULT:
        if name not in BENCHES:
            parser.error(f"no benchmark '{name}': {', '.join(BENCHES)}")
        BENCHES[name](options.build, options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
