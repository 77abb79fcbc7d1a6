# SPDX-License-Identifier: MIT
"""The soft CPU beside QEMU's TCG: time of a boot, and a small set of programs in the guest."""
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

from kit import debian, initramfs

QEMU = "qemu-system-x86_64"
SECONDS = 600
LOOP_INSTRUCTIONS = 400_000_000  # of bench_loop() in cpu_set.c

BOOT_INIT = """
echo "guest init"
poweroff -f
"""
CPU_INIT = """
/cpu_set
poweroff -f
"""


def arguments(vmm, folder, cpu):
    return [vmm, "-M", "q35", "-accel", "tcg", "-cpu", cpu, "-smp", "1", "-m", "512",
            "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
            "-kernel", folder / "bzImage", "-initrd", folder / "guest.cpio",
            "-append", "console=ttyS0 quiet panic=-1"]


def make_guest(folder, script, files=()):
    kernel = debian.Kernel()
    if not (folder / "bzImage").exists():
        os.symlink(kernel.bzimage, folder / "bzImage")
    archive = initramfs.busybox_initramfs(debian.busybox(), kernel.modules("virtio_pci"), script)
    for name, path in files:
        archive.file(name, path.read_bytes(), 0o755)
    (folder / "guest.cpio").write_bytes(archive.pack())


def seconds_to_init(vmm, folder, cpu):
    start = time.monotonic()
    with subprocess.Popen(arguments(vmm, folder, cpu), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        console = b""
        for line in process.stdout:
            console += line
            if b"guest init" in line:
                process.stdout.read()
                process.wait(SECONDS)
                return time.monotonic() - start
    sys.exit(f"{vmm}: no init\n{console[-2000:].decode(errors='replace')}")


def ratios(pairs):
    values = [ferry / qemu for ferry, qemu in pairs]
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def bench_boot(build, rounds):
    """Debian's kernel to the end of an init that powers off at once; a loop's rate."""
    print("Debian's cloud kernel, q35, 1 vCPU, 512 MiB: seconds from start to power-off by init")
    print(f"{'cpu':>7} {'ferry':>8} {'QEMU TCG':>9} {'ferry/QEMU, median (range)':>28}")
    with tempfile.TemporaryDirectory(prefix="ferry-bench-") as name:
        folder = pathlib.Path(name)
        make_guest(folder, BOOT_INIT)
        for cpu in ("qemu64", "max"):
            pairs = [(seconds_to_init(build / "ferry", folder, cpu),
                      seconds_to_init(QEMU, folder, cpu)) for _ in range(rounds)]
            print(f"{cpu:>7} {statistics.median(p[0] for p in pairs):8.2f} "
                  f"{statistics.median(p[1] for p in pairs):9.2f} {ratios(pairs):>28}", flush=True)


def run_set(argv):
    """{name: (seconds, check)} of the set's output."""
    run = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, timeout=SECONDS, check=False)
    text = run.stdout.decode(errors="replace")
    found = {name: (float(seconds), check) for name, seconds, check in
             re.findall(r"bench (\w+) ([0-9.]+) ([0-9a-f]{16})", text)}
    if not found:
        sys.exit(f"{argv[0]}: no results\n{text[-2000:]}")
    return found


def bench_cpu(build, rounds):
    """A set of small programs in the guest on ferry and on QEMU (TCG), and natively."""
    with tempfile.TemporaryDirectory(prefix="ferry-bench-") as name:
        folder = pathlib.Path(name)
        program = folder / "cpu_set"
        source = pathlib.Path(__file__).parent / "cpu_set.c"
        subprocess.run(["cc", "-O2", "-static", "-o", program, source], check=True)
        make_guest(folder, CPU_INIT, [("cpu_set", program)])
        runs = [(run_set(arguments(build / "ferry", folder, "qemu64")),
                 run_set(arguments(QEMU, folder, "qemu64")), run_set([program]))
                for _ in range(rounds)]
    print("Programs in the guest, -cpu qemu64, 1 vCPU; seconds, median of", rounds)
    print(f"{'':>10} {'ferry':>8} {'QEMU TCG':>9} {'native':>8} {'ferry/QEMU (range)':>22} "
          f"{'ferry/native':>13}")
    for bench in runs[0][2]:
        if any(len({run[bench][1] for run in trio}) != 1 for trio in runs):
            sys.exit(f"{bench}: the results differ")
        seconds = [statistics.median(trio[i][bench][0] for trio in runs) for i in range(3)]
        pairs = [(trio[0][bench][0], trio[1][bench][0]) for trio in runs]
        print(f"{bench:>10} {seconds[0]:8.3f} {seconds[1]:9.3f} {seconds[2]:8.3f} "
              f"{ratios(pairs):>22} {seconds[0] / seconds[2]:13.1f}", flush=True)
    rate = LOOP_INSTRUCTIONS / statistics.median(trio[0]["loop"][0] for trio in runs) / 1e6
    print(f"integer loop on ferry: {rate:.0f} million instructions/s")
