# SPDX-License-Identifier: MIT
"""ferry-img beside Debian's qemu-img: 4 KiB requests to images of all kinds, and conversions.

Both programs run in turn. In each round the better of two I/O engines (threads, io_uring) counts for
each. Images are in the page cache, so what is measured is the way through the program; "disk" means
that the file is on the file system of the build folder, where the kernel does more than on tmpfs.
"""
import itertools
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time

QEMU = "qemu-img"
SIZE = 256 * 2**20
STRIDE = 17 * 4096
COUNTS = {1: 40000, 32: 80000}
NULL_COUNTS = {1: 400000, 32: 400000}
ENGINES = ("threads", "io_uring")
CONVERT_SIZE = 2**30
# A host may take back what its VM freed (free page reporting); about one conversion in three then
# waits for its pages a second time, whichever program it is. So more pairs than of other rows.
CONVERT_PAIRS = 11
SECONDS = 600


def call(argv, folder):
    for _ in range(20):
        done = subprocess.run([str(a) for a in argv], cwd=folder, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=SECONDS, check=False)
        # The kernel takes down the io_uring of a process, and lets go of its files, after its end.
        if not done.returncode or b"lock" not in done.stderr:
            break
        time.sleep(0.1)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, argv))}: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode()


def completed(argv, folder):
    return float(re.search(r"completed in ([0-9.]+) s", call(argv, folder)).group(1)) or 0.0005


class Images:
    """Makes the image of a kind, anew where a run changes its allocation."""

    def __init__(self, folder):
        self.folder = folder
        call([QEMU, "create", "-q", "-f", "raw", "-o", "preallocation=full", "full.raw", SIZE], folder)
        with open(folder / "full.raw", "r+b") as file:
            block = random.Random(1).randbytes(2**20)
            for _ in range(SIZE // 2**20):
                file.write(block)
        call([QEMU, "convert", "-f", "raw", "-O", "qcow2", "full.raw", "full.qcow2"], folder)

    def prepare(self, kind, writes):
        if kind == "allocating" or (kind == "backed" and writes) or not (self.folder / "b.qcow2").exists():
            (self.folder / "new.qcow2").unlink(missing_ok=True)
            call([QEMU, "create", "-q", "-f", "qcow2", "new.qcow2", SIZE], self.folder)
            call([QEMU, "create", "-q", "-f", "qcow2", "-b", "full.qcow2", "-F", "qcow2", "b.qcow2"],
                 self.folder)
        return {"raw": ["-f", "raw", "full.raw"], "qcow2": ["-f", "qcow2", "full.qcow2"],
                "allocating": ["-f", "qcow2", "new.qcow2"], "backed": ["-f", "qcow2", "b.qcow2"]}[kind]


def best(program, images, kind, writes, strided, depth):
    """Seconds of one run with the better engine."""
    spans = []
    for engine in ENGINES:
        words = images.prepare(kind, writes)
        spans.append(completed(
            [program, "bench", "-c", COUNTS[depth], "-d", depth, "-i", engine,
             *(["-w"] if writes else []), *(["-S", STRIDE] if strided else []), *words], images.folder))
    return min(spans)


def row(label, pairs, unit, scale):
    """pairs: seconds of ferry and QEMU; scale / seconds is the figure."""
    ratios = [qemu / ferry for ferry, qemu in pairs]
    print(f"{label:46} {statistics.median(scale / f for f, _ in pairs):9.1f} "
          f"{statistics.median(scale / q for _, q in pairs):9.1f} {unit:6} "
          f"{statistics.median(ratios):6.2f} ({min(ratios):.2f}-{max(ratios):.2f})", flush=True)
    return statistics.median(ratios)


def in_turn(rounds, ferry, qemu):
    """One after the other, beginning with another one each time."""
    pairs = []
    for number in range(rounds):
        if number % 2:
            theirs, ours = qemu(), ferry()
        else:
            ours, theirs = ferry(), qemu()
        pairs.append((ours, theirs))
    return pairs


def bench_requests(program, rounds, place, folder):
    images = Images(folder)
    kinds = (("raw", (False, True)), ("qcow2", (False, True)), ("allocating", (True,)),
             ("backed", (False, True)))
    low = []
    for kind, writes_of in kinds:
        for writes, strided, depth in itertools.product(writes_of, (False, True), (1, 32)):
            pairs = in_turn(rounds, lambda: best(program, images, kind, writes, strided, depth),
                            lambda: best(QEMU, images, kind, writes, strided, depth))
            label = (f"{place}, {kind}, {'strided' if strided else 'sequential'} "
                     f"{'write' if writes else 'read'}, depth {depth}")
            if row(label, pairs, "kIOPS", COUNTS[depth] / 1000) < 1:
                low.append(label)
    return low


def bench_null(program, rounds, folder):
    for depth in (1, 32):
        def run(tool, depth=depth):
            return completed([tool, "bench", "-c", NULL_COUNTS[depth], "-d", depth, "null-co://"], folder)
        row(f"null-co, read, depth {depth}",
            in_turn(rounds, lambda run=run: run(program), lambda run=run: run(QEMU)),
            "kIOPS", NULL_COUNTS[depth] / 1000)


# -- conversions ----------------------------------------------------------------------------------

def timed(tool, words, folder, target):
    (folder / target).unlink(missing_ok=True)
    start = time.monotonic()
    call([tool, "convert", *words, target], folder)
    return time.monotonic() - start


def make_source(folder):
    """Data, repetitions and holes, a third each; random data would compress to nothing."""
    rng = random.Random(7)
    words = [bytes(rng.randrange(97, 123) for _ in range(rng.randrange(3, 12))) for _ in range(4000)]
    with open(folder / "source.raw", "wb") as file:
        for number in range(CONVERT_SIZE // 2**22):
            if number % 3 == 0:
                file.write(rng.randbytes(2**21) + b" ".join(rng.choices(words, k=250000))[:2**21])
            elif number % 3 == 1:
                file.write(b" ".join(rng.choices(words, k=600000))[:2**22])
            file.seek((number + 1) * 2**22)
        file.truncate(CONVERT_SIZE)


def bench_convert(program, rounds, place, folder, compresses):
    make_source(folder)
    call([QEMU, "convert", "-O", "qcow2", "source.raw", "source.qcow2"], folder)
    for label, words in (("raw to qcow2", ["-f", "raw", "-O", "qcow2", "source.raw"]),
                         ("qcow2 to raw", ["-f", "qcow2", "-O", "raw", "source.qcow2"]),
                         ("qcow2 to qcow2", ["-f", "qcow2", "-O", "qcow2", "source.qcow2"])):
        row(f"{place}, {label}, 1 GiB",
            in_turn(max(rounds, CONVERT_PAIRS), lambda words=words: timed(program, words, folder, "out"),
                    lambda words=words: timed(QEMU, words, folder, "out")), "MiB/s", CONVERT_SIZE / 2**20)
    (folder / "out").unlink(missing_ok=True)
    if not compresses:
        return
    for kind in ("zlib", "zstd"):
        words = ["-c", "-f", "raw", "-O", "qcow2", "-o", f"compression_type={kind}", "source.raw"]
        row(f"{place}, raw to qcow2 compressed ({kind}), 1 GiB",
            in_turn(rounds, lambda words=words: timed(program, words, folder, "ferry.out"),
                    lambda words=words: timed(QEMU, words, folder, "qemu.out")),
            "MiB/s", CONVERT_SIZE / 2**20)
        ours, theirs = ((folder / name).stat().st_size for name in ("ferry.out", "qemu.out"))
        print(f"{'':46} {ours / 2**20:9.1f} {theirs / 2**20:9.1f} MiB    {ours / theirs:6.3f} of the size")


def bench_block(build, rounds):
    """4 KiB requests and conversions."""
    program = (build / "ferry-img").resolve()
    print("ferry-img and qemu-img in turn; ratio of speeds, above 1: ferry is faster")
    print(f"{'':46} {'ferry':>9} {'QEMU':>9} {'':6} ratio, median (range)")
    low = []
    for place, parent in (("tmpfs", "/dev/shm"), ("disk", build.resolve())):
        if not os.access(parent, os.W_OK):
            print(f"{place}: {parent} cannot be written")
            continue
        with tempfile.TemporaryDirectory(prefix="ferry-bench-", dir=parent) as name:
            folder = pathlib.Path(name)
            if place == "tmpfs":
                bench_null(program, rounds, folder)
            low += bench_requests(program, rounds, place, folder)
            bench_convert(program, rounds, place, folder, place == "tmpfs")
    print("slower than QEMU: " + ("; ".join(low) if low else "none"))
