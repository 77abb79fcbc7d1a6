#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Hostile qcow2 images: fields of every kind of metadata get values that no program would write, and
the tools look at them, repair them, read and write them.

    hostile.py --build build [--rounds N] [--seed N] [--prefix PREFIX] [--keep FOLDER]

Whatever the image says, a tool ends by itself, soon, with a status of its own; a repair that says that
all is well has made an image in which neither program's check finds anything.
"""
import argparse
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from kit import report  # noqa: E402

SECONDS = 60
MEMORY = 4 << 30  # bytes of address space, not under sanitizers
OFFSETS = 0x00fffffffffffe00

SEEDS = [
    ("plain", "cluster_size=64k", []),
    ("small", "cluster_size=512,refcount_bits=1", []),
    ("wide", "cluster_size=4k,refcount_bits=64", ["snapshot", "bitmap"]),
    ("extended", "cluster_size=16k,extended_l2=on", ["snapshot"]),
    ("old", "compat=0.10,cluster_size=4k", ["snapshot"]),
    ("zstd", "cluster_size=4k,compression_type=zstd", ["compressed", "bitmap"]),
    ("zlib", "cluster_size=4k", ["compressed", "snapshot"]),
]

NUMBERS = [0, 1, 2, 3, 7, 8, 63, 64, 255, 511, 512, 1023, 1024, 4096, 65535, 65536, 1 << 20,
           (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 53), (1 << 56) - 512, 1 << 56,
           1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]


# -- images ---------------------------------------------------------------------------------------

def make_seed(folder, name, options, parts):
    image = folder / name

    def call(*argv):
        subprocess.run(argv, check=True, cwd=folder, stdout=subprocess.DEVNULL)

    call("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(image), "8M")
    writes = ["write -P 1 0 100k", "write -P 2 1M 70k", "write -z 2M 64k", "write -P 3 7M 1k"]
    if "compressed" in parts:
        writes += [f"write -c -P {i} {3 << 20 | i << 16} 64k" for i in range(4)]
    call("qemu-io", "-f", "qcow2", *[w for c in writes for w in ("-c", c)], str(image))
    if "bitmap" in parts:
        call("qemu-img", "bitmap", "--add", str(image), "bits")
    if "snapshot" in parts:
        call("qemu-img", "snapshot", "-c", "one", str(image))
    call("qemu-io", "-f", "qcow2", "-c", "write -P 9 32k 200k", str(image))
    return image.read_bytes()


class Places:
    """Where an image's fields are: (offset, size in bytes)."""

    def __init__(self, data):
        self.data = data
        self.cluster = 1 << self.at(20, 4)
        self.places = {"header": [(o, 4) for o in (4, 16, 20, 32, 36, 56, 60)] +
                                 [(o, 8) for o in (8, 24, 40, 48, 64)]}
        if self.at(4, 4) > 2:
            self.places["header"] += [(72, 8), (80, 8), (88, 8), (96, 4), (100, 4), (104, 1)]
            start = self.at(100, 4)
            self.places["extensions"] = [(o, s) for o in range(start, start + 160, 8)
                                         for s in (4, 8)] + [(start + 4, 4)]
        self.table("l1", self.at(40, 8), self.at(36, 4), "l2")
        self.table("reftable", self.at(48, 8), self.cluster // 8, "refblock")
        if self.at(60, 4):
            start = self.at(64, 8)
            self.places["snapshots"] = [(start + o, s) for o, s in
                                        ((0, 8), (8, 4), (12, 2), (14, 2), (32, 4), (36, 4), (40, 8),
                                         (48, 8))]
            self.table("snapshot_l1", self.at(start, 8), self.at(start + 8, 4), "snapshot_l2")
        found = data.find(struct.pack(">II", 0x23852875, 24), 0, self.cluster)
        if found >= 0:
            directory = self.at(found + 24, 8)
            self.places["bitmaps"] = [(found + 8, 4), (found + 16, 8), (found + 24, 8)] + \
                [(directory + o, s) for o, s in ((0, 8), (8, 4), (12, 4), (16, 1), (17, 1), (18, 2),
                                                 (20, 4))] + [(self.at(directory, 8), 8)]

    def at(self, offset, size):
        return int.from_bytes(self.data[offset:offset + size], "big")

    def table(self, name, offset, entries, below):
        used = []
        for i in range(min(entries, 64)):
            entry = self.at(offset + 8 * i, 8) & OFFSETS
            if entry:
                self.places.setdefault(below, []).extend(
                    (entry + 8 * j, 8) for j in range(min(self.cluster // 8, 256))
                    if self.at(entry + 8 * j, 8))
                used.append((offset + 8 * i, 8))
        self.places[name] = used + [(offset + 8 * min(entries, 64) - 8, 8)]

    def values(self, dice):
        """An interesting value: of metadata's own offsets, of numbers, of bits."""
        kind = dice.randrange(4)
        if kind == 0:
            table = dice.choice([8 + 32, 48, 64])
            flags = dice.choice([0, 1 << 63, 1, 1 << 62, 3 << 62])
            return (self.at(table, 8) if dice.randrange(2) else
                    dice.randrange(len(self.data) // self.cluster + 3) * self.cluster) | flags
        if kind == 1:
            return dice.choice(NUMBERS)
        if kind == 2:
            return dice.getrandbits(64)
        return None  # a bit of what is there


def mutate(data, dice):
    places = Places(data)
    out = bytearray(data)
    told = []
    for _ in range(dice.choice([1, 1, 1, 2, 3, 6])):
        kind = dice.choice(list(places.places))
        offset, size = dice.choice(places.places[kind])
        value = places.values(dice)
        if value is None:
            value = int.from_bytes(out[offset:offset + size], "big") ^ 1 << dice.randrange(8 * size)
        value &= (1 << 8 * size) - 1
        if offset + size <= len(out):
            out[offset:offset + size] = value.to_bytes(size, "big")
            told.append(f"{kind} {offset:#x}={value:#x}")
    if dice.randrange(10) == 0:
        cut = dice.randrange(len(out))
        del out[cut:]
        told.append(f"cut at {cut:#x}")
    return bytes(out), ", ".join(told)


# -- made by hand ----------------------------------------------------------------------------------

def put(data, offset, value, size=8):
    out = bytearray(data)
    out[offset:offset + size] = value.to_bytes(size, "big")
    return bytes(out)


def handmade(seeds):
    """(name, bytes, length of the file or 0): what needs many fields at once."""
    plain = seeds["plain"]
    p = Places(plain)
    cluster, l1, reftable = p.cluster, p.at(40, 8), p.at(48, 8)
    l2 = p.at(l1, 8) & OFFSETS
    refblock = p.at(reftable, 8) & OFFSETS

    yield "l2-is-l1", put(plain, l1, l1 | 1 << 63), 0
    yield "l2-is-none", put(plain, l1, 1 << 63), 0
    yield "l2-is-itself", put(plain, l2, l2 | 1 << 63), 0
    yield "l2-is-reftable", put(plain, l1, reftable | 1 << 63), 0
    yield "refblock-is-itself", put(plain, reftable, reftable), 0
    yield "refblock-is-l1", put(plain, reftable, l1), 0
    yield "l1-is-reftable", put(plain, 40, reftable), 0
    full = bytearray(plain)
    full[refblock:refblock + cluster] = b"\xff" * cluster
    yield "all-counted", bytes(full), 0
    yield "nothing-counted", plain[:refblock] + bytes(cluster) + plain[refblock + cluster:], 0
    # A long refcount table, each entry the same block, and a file that may be that long. (Not longer:
    # each error takes a line.)
    big = bytearray(full)
    big += bytes(-len(big) % cluster)
    at = len(big)
    big += struct.pack(">Q", refblock) * (1 << 17)
    big = put(put(bytes(big), 48, at), 56, (1 << 20) // cluster, 4)
    yield "one-block-for-all", big, 0
    yield "one-block-for-all-long", big, 1 << 33
    # All entries of an L1 table are the same L2 table.
    l1_entries = 70000
    big = plain + bytes(-len(plain) % cluster)
    at = len(big)
    big += struct.pack(">Q", l2) * l1_entries
    big = put(put(put(big, 40, at), 36, l1_entries, 4), 24, l1_entries * cluster // 8 * cluster)
    yield "one-l2-for-all", big, 0
    # Snapshots by the ten thousand, that share one long L1 table.
    entry = struct.pack(">QIHHIIQII", l1, 1, 1, 1, 0, 0, 0, 0, 16) + struct.pack(">QQ", 0, 8 << 20)
    entry += b"11" + bytes(6)
    big = plain + bytes(-len(plain) % cluster)
    at = len(big)
    big += entry * 65536
    yield "many-snapshots", put(put(big, 64, at), 60, 65536, 4), 0
    entry = struct.pack(">QIHHIIQII", l1, 4 << 20, 1, 1, 0, 0, 0, 0, 16) + \
        struct.pack(">QQ", 0, 8 << 20) + b"11" + bytes(6)
    big = plain + bytes(-len(plain) % cluster)
    at = len(big)
    big += entry * 65536
    yield "many-long-snapshots", put(put(big, 64, at), 60, 65536, 4), 1 << 36
    zlib = seeds["zlib"]
    z = Places(zlib)
    table = z.at(z.at(40, 8) + 8 * 1, 8) & OFFSETS or z.at(z.at(40, 8), 8) & OFFSETS
    yield "compressed-behind-end", put(zlib, table, 1 << 62 | (1 << 50) - 3), 0
    yield "compressed-in-itself", put(zlib, table, 1 << 62 | table), 0
    name = b"/" + b"x" * 1022
    yield "backing-1023", put(put(plain[:512] + name + plain[512 + len(name):], 8, 512), 16,
                              len(name), 4), 0
    name = b"a\0b/../../../etc/passwd\n\x1b[31m"
    yield "backing-nul", put(put(plain[:512] + name + plain[512 + len(name):], 8, 512), 16, len(name),
                             4), 0
    name = b"image"
    yield "backing-itself", put(put(plain[:512] + name + plain[512 + len(name):], 8, 512), 16,
                                len(name), 4), 0


# -- what is done with them ------------------------------------------------------------------------

def limit_memory():
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 44, 1 << 44))


class Tools:
    def __init__(self, build, folder):
        self.build = build
        self.folder = folder
        self.is_sanitized = "asan" in build.name

    def run(self, program, *arguments):
        """(status, output, fault): a fault is what no image may bring about."""
        try:
            done = subprocess.run([str(self.build / program), *arguments], cwd=self.folder,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, timeout=SECONDS, check=False,
                                  preexec_fn=None if self.is_sanitized else limit_memory,
                                  env={**os.environ, "LC_ALL": "C",
                                       "ASAN_OPTIONS": "abort_on_error=1:allocator_may_return_null=0",
                                       "UBSAN_OPTIONS": "halt_on_error=1:abort_on_error=1"})
        except subprocess.TimeoutExpired:
            return -1, "", f"{program} {arguments[0]}: not done after {SECONDS} s"
        text = done.stdout.decode(errors="replace")
        fault = None
        if done.returncode < 0 or "Sanitizer" in text or "runtime error" in text:
            fault = f"{program} {' '.join(arguments)[:60]}: status {done.returncode}"
        return done.returncode, text, fault

    def commands(self):
        image = ["-f", "qcow2", "image"]
        yield "ferry-img", "info", *image
        yield "ferry-img", "info", "-U", "--backing-chain", *image
        yield "ferry-img", "check", *image
        yield "ferry-img", "map", "--output=json", *image
        yield "ferry-img", "measure", "-O", "qcow2", *image
        yield "ferry-img", "snapshot", "-l", *image
        yield "ferry-io", "-f", "qcow2", "-r", "-c", "read 0 1M", "-c", "read 3M 1M", "image"

    def changes(self, dice):
        image = ["-f", "qcow2", "copy"]
        return dice.choice([
            ("ferry-img", "snapshot", "-c", "two", "copy"),
            ("ferry-img", "snapshot", "-a", "one", "copy"),
            ("ferry-img", "snapshot", "-d", "one", "copy"),
            ("ferry-img", "resize", "--shrink", *image, "4M"),
            ("ferry-img", "resize", *image, "1G"),
            ("ferry-img", "amend", *image, "-o", "refcount_bits=16"),
            ("ferry-img", "bitmap", "--remove", "copy", "bits"),
            ("ferry-img", "bitmap", "--add", "copy", "more"),
            ("ferry-io", "-f", "qcow2", "-c", "write 0 64k", "-c", "write 5M 1M", "-c",
             "discard 0 8M", "-c", "write -z 1M 1k", "-c", "write 1M 512k", "-c", "flush", "copy"),
            ("ferry-io", "-f", "qcow2", "-c", "write -c 3M 64k", "-c", "write 3M 4k", "-c",
             "read 0 8M", "copy"),
        ])

    def tell(self, text):
        report.show_tail(text, 12)

    def try_all(self, data, length, dice, convert):
        image = self.folder / "image"
        image.write_bytes(data)
        if length:
            os.truncate(image, length)
        for command in self.commands():
            _, text, fault = self.run(*command)
            if fault:
                self.tell(text)
                return fault
        if convert:
            _, text, fault = self.run("ferry-img", "convert", "-f", "qcow2", "-O", "qcow2", "image",
                                      "out")
            if fault:
                self.tell(text)
                return fault
        subprocess.run(["cp", "--sparse=always", image, self.folder / "copy"], check=True)
        _, text, fault = self.run(*self.changes(dice))
        if fault:
            self.tell(text)
            return fault
        return self.repair()

    def has_odd_size(self):
        """QEMU cuts off what is less than a sector, and then some bitmaps are too long for it."""
        with open(self.folder / "image", "rb") as image:
            image.seek(24)
            return int.from_bytes(image.read(8), "big") % 512

    def repair(self):
        status, text, fault = self.run("ferry-img", "check", "-r", "all", "-f", "qcow2", "image")
        if fault:
            self.tell(text)
            return fault
        if status != 0:
            return None
        again, text, fault = self.run("ferry-img", "check", "-f", "qcow2", "image")
        if fault or again:
            self.tell(text)
            return fault or f"check: status {again} after a repair"
        theirs = subprocess.run(["qemu-img", "check", "-f", "qcow2", "image"], cwd=self.folder,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                                timeout=120)
        if theirs.returncode and not self.has_odd_size():
            self.tell(theirs.stdout.decode(errors="replace"))
            return f"qemu-img check: status {theirs.returncode} after a repair"
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prefix", default="image/hostile")
    parser.add_argument("--keep", type=pathlib.Path, help="folder for images that showed a fault")
    parser.add_argument("--only", help="the handmade images with this in their names")
    arguments = parser.parse_args()
    results = report.Results()
    build = arguments.build.resolve()

    with tempfile.TemporaryDirectory(dir=build) as name:
        folder = pathlib.Path(name)
        tools = Tools(build, folder)
        seeds = {n: make_seed(folder, n, options, parts) for n, options, parts in SEEDS}

        def attempt(what, data, length, dice, convert):
            fault = tools.try_all(data, length, dice, convert)
            if fault and arguments.keep:
                arguments.keep.mkdir(exist_ok=True)
                (arguments.keep / what.replace("/", "-").replace(" ", "-")[:60]).write_bytes(data)
            return fault

        for what, data, length in handmade(seeds):
            if not arguments.only or arguments.only in what:
                fault = attempt(what, data, length, random.Random(what), False)
                results.case(f"{arguments.prefix}/{what}", fault)
        for what, data in seeds.items():
            fault = None
            for i in range(arguments.rounds if not arguments.only or arguments.only in what else 0):
                key = f"{arguments.seed} {what} {i}"
                dice = random.Random(key)
                hostile, told = mutate(data, dice)
                found = attempt(key, hostile, 0, dice, True)
                if found:
                    print(f"  {key}: {told}: {found}", flush=True)
                    fault = f"seed {arguments.seed} round {i}: {found}"
            if not arguments.only or arguments.only in what:
                results.case(f"{arguments.prefix}/{what}", fault)
    shutil.rmtree(folder, ignore_errors=True)
    return results.exit_status()


report.run(main)
