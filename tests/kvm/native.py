#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""virtio-blk on this host's own KVM, by the hand-written guest: every block of a disk is written,
read back and compared, over machines, doorbells and loops; and what a request costs in system
calls, by strace.

    native.py --build build
"""
import argparse
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from kit import report  # noqa: E402
from kvm import native_guest  # noqa: E402

DISK_BYTES = 2 << 20
SECONDS = 60
IOTHREAD = ("-object", "iothread,id=io0")

# name, machine, properties of the device, further options, aio
CASES = [
    ("q35-ioeventfd", "q35", "", (), "io_uring"),
    ("q35-iothread", "q35", ",iothread=io0", IOTHREAD, "threads"),
    ("q35-exits", "q35", ",ioeventfd=off", (), "threads"),
    ("q35-exits-iothread", "q35", ",ioeventfd=off,iothread=io0", IOTHREAD, "io_uring"),
    ("pc-ioeventfd", "pc", "", (), "threads"),
    ("pc-iothread", "pc", ",iothread=io0", IOTHREAD, "io_uring"),
]
ACCELS = [("on", "kvm,force=on"), ("split", "kvm,force=on,kernel-irqchip=split")]


def pattern(block, word):
    """The guest's pattern: main.c, pattern()."""
    return ((block << 16 | word) * 0x9e3779b97f4a7c15 + 1) & (1 << 64) - 1


def fault_in_image(path):
    """Every block of the image must hold what the guest writes."""
    data = path.read_bytes()
    if len(data) != DISK_BYTES:
        return f"the image has {len(data)} bytes"
    for block in range(DISK_BYTES // 4096):
        for word in (0, 1, 255, 511):
            at = block * 4096 + word * 8
            if int.from_bytes(data[at:at + 8], "little") != pattern(block, word):
                return f"block {block}, word {word} of the image is not what the guest wrote"
    return None


def verify(build, elf, folder, name, accel, case, results):
    _, machine, device, extra, aio = case
    image = folder / f"{name}.img"
    image.write_bytes(random.Random(name).randbytes(DISK_BYTES))
    argv = native_guest.command(build / "ferry", elf, "mode=0 depth=8",
                                f"driver=file,node-name=d,filename={image},aio={aio}",
                                machine, accel, device, extra)
    status, console, _ = native_guest.run(argv, SECONDS)
    fault = None
    if status != native_guest.SUCCESS:
        fault = f"exit status {status}"
    elif not native_guest.requests_done(console):
        fault = "the guest did not come to its end"
    results.case(f"kvm/native/{name}", fault or fault_in_image(image))
    if fault:
        report.show_tail(console)


def strace_counts(build, elf, folder, append, calls, pattern, iothread=IOTHREAD):
    """How often the pattern matches system calls of a run, by the name it finds."""
    log = folder / "strace.log"
    argv = native_guest.command(build / "ferry", elf, append,
                                "driver=null-co,node-name=d,size=67108864", "q35",
                                "kvm,force=on", ",iothread=io0", iothread)
    status, console, _ = native_guest.run(
        ["strace", "-f", "-e", f"trace={calls}", "-o", str(log), *argv], SECONDS)
    if status != native_guest.SUCCESS:
        return None, console
    names = re.findall(pattern, log.read_text(errors="replace"), re.MULTILINE)
    return {name: names.count(name) for name in set(names)}, console


def kvm_counts(build, elf, folder, append):
    """How often each KVM request was made in a run."""
    return strace_counts(build, elf, folder, append, "ioctl", r"ioctl\(\d+, (KVM_\w+)")


def count_request_calls(build, elf, folder, results):
    """A request that nobody polls for: the loop waits, and sets the irqfd; it reads no eventfd."""
    counts = []
    for count in (100, 3100):
        counts.append(strace_counts(
            build, elf, folder, f"mode=1 depth=1 count={count}",
            "read,write,io_uring_enter,epoll_wait,epoll_pwait2,ppoll", r"^\d+ +(\w+)\(",
            ("-object", "iothread,id=io0,poll-max-ns=0"))[0])
    if None in counts:
        results.case("kvm/native/calls-per-request", "the guest did not come to its end")
        return
    more = {name: n - counts[0].get(name, 0) for name, n in counts[1].items()}
    text = ", ".join(f"{name} {n / 3000:.2f}" for name, n in sorted(more.items()) if n > 150)
    results.case("kvm/native/calls-per-request",
                 f"per request: {text}" if sum(more.values()) > 2.2 * 3000 else None,
                 f"per request: {text}")


def count_system_calls(build, elf, folder, results):
    if subprocess.run(["strace", "true"], stderr=subprocess.DEVNULL, check=False).returncode:
        results.skip("kvm/native/syscalls", "strace does not work here")
        return
    count_request_calls(build, elf, folder, results)
    small, console = kvm_counts(build, elf, folder, "mode=1 depth=1 count=100 opens=1")
    large, _ = kvm_counts(build, elf, folder, "mode=1 depth=1 count=3100 opens=3")
    if not small or not large:
        results.case("kvm/native/syscalls", "the guest did not come to its end")
        report.show_tail(console)
        return
    exits = large["KVM_RUN"] - small["KVM_RUN"]
    # The two further initialisations exit to user space for each register; requests must not.
    fault = f"{exits} more exits for 3000 more requests" if exits > 600 else None
    results.case("kvm/native/exits-per-request", fault,
                 f"{exits} more KVM_RUN for 3000 more requests and 2 more initialisations")
    signals = large.get("KVM_SIGNAL_MSI", 0)
    results.case("kvm/native/irqfd", f"KVM_SIGNAL_MSI was called {signals} times" if signals
                 else None if large.get("KVM_IRQFD", 0) else "KVM_IRQFD was not called")
    results.case("kvm/native/ioeventfd",
                 None if large.get("KVM_IOEVENTFD", 0) else "KVM_IOEVENTFD was not called")
    commits = large["KVM_SET_GSI_ROUTING"] - small["KVM_SET_GSI_ROUTING"]
    results.case("kvm/native/routing",
                 None if commits == 2 else f"{commits} more commits for 2 more DRIVER_OK")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    options = parser.parse_args()
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("there is no /dev/kvm that this user may open")
        return report.SKIP_STATUS
    results = report.Results()
    with tempfile.TemporaryDirectory(prefix="ferry-native-") as folder:
        folder = pathlib.Path(folder)
        elf = native_guest.build(folder)
        for chip, accel in ACCELS:
            for case in CASES if chip == "on" else CASES[:2]:
                verify(options.build, elf, folder, f"{case[0]}-{chip}", accel, case, results)
        count_system_calls(options.build, elf, folder, results)
    return results.exit_status()


if __name__ == "__main__":
    sys.exit(main())
