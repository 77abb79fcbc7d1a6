#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""ferry-img beside Debian's qemu-img: the same arguments in folders of their own.

    ferry_img.py --build build [--long] [NAME ...]

Each case prepares images with qemu-img and qemu-io, runs commands with both programs, and compares
exit statuses, standard output (JSON by structure), whether something was said on standard error, and
the images that come out: `qemu-img check` finds nothing, `qemu-img compare` no difference. What differs
by nature is left out: space taken on the host, dates, times.
"""
import argparse
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from kit import report  # noqa: E402

SECONDS = 120
REFERENCE = "qemu-img"


class Fault(Exception):
    pass


class Skip(Exception):
    """The case, or the rest of it, cannot be run here."""


def run(argv, folder, check=False, timeout=SECONDS):
    done = subprocess.run([str(a) for a in argv], cwd=folder, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=timeout,
                          env={**os.environ, "TZ": "UTC", "LC_ALL": "C"}, check=False)
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    if check and done.returncode:
        raise Fault(f"{' '.join(map(str, argv))}: status {done.returncode}: {err.strip()}")
    return done.returncode, out, err


# -- what is compared -----------------------------------------------------------------------------

# Of JSON and of lines for people: by nature not the same.
LOOSE_KEYS = {"actual-size", "date-sec", "date-nsec"}
LOOSE = [(re.compile(r"^disk size: .*$", re.M), "disk size: …"),
         (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "DATE"),
         (re.compile(r"completed in [0-9.]+ s"), "completed in … s"),
         (re.compile(r"(    \(\d+\.\d\d/100%\)\r)+"), "PROGRESS\r")]


def strip(value):
    if isinstance(value, dict):
        return {k: strip(v) for k, v in value.items() if k not in LOOSE_KEYS}
    return [strip(v) for v in value] if isinstance(value, list) else value


def normalise(text):
    if text.lstrip()[:1] in ("{", "["):
        try:
            return strip(json.loads(text))
        except json.JSONDecodeError:
            pass
    for pattern, replacement in LOOSE:
        text = pattern.sub(replacement, text)
    return text.replace("qemu-img", "IMG").replace("ferry-img", "IMG")


def first_line(text):
    """Which of the layers says "Could not open" is left out."""
    line = text.strip().split("\n")[0].split("IMG: ")[-1]
    return re.sub(r"^(Could not open '[^']*': )+", "Could not open: ", line)


class Pair:
    """Two folders with the same images."""

    def __init__(self, program, folder):
        self.program = program
        self.ours, self.theirs = folder / "ferry", folder / "qemu"
        for side in (self.ours, self.theirs):
            shutil.rmtree(side, ignore_errors=True)
            side.mkdir(parents=True)

    def prepare(self, *commands):
        """qemu-img create … (or a list of words), or io IMAGE command … (qemu-io); done once, copied."""
        for command in commands:
            words = command if isinstance(command, list) else command.split()
            if words[0] == "io":
                argv = ["qemu-io"]
                if words[1].endswith(".raw"):
                    argv += ["-f", "raw"]
                for part in command.split(" ", 2)[2].split("; "):
                    argv += ["-c", part]
                run(argv + [words[1]], self.theirs, check=True)
            elif words[0] == "truncate":
                run(words, self.theirs, check=True)
            else:
                run([REFERENCE] + words, self.theirs, check=True)
        for path in self.theirs.iterdir():
            copy = self.ours / path.name
            run(["cp", "--sparse=auto", path, copy], self.ours, check=True)
            # What is allocated and not written becomes a hole: not in files that have few.
            if path.stat().st_blocks * 512 > path.stat().st_size / 2 and copy.stat().st_size:
                with open(copy, "r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)

    def same(self, *words, stderr="any"):
        """Both with the same words. stderr: "same" compares the first line, "any" only whether there
        is one."""
        ours = run([self.program, *words], self.ours)
        theirs = run([REFERENCE, *words], self.theirs)
        what = " ".join(words)
        if ours[0] != theirs[0]:
            raise Fault(f"{what}: status {ours[0]}, not {theirs[0]}: {(ours[2] or ours[1]).strip()[:300]}")
        if normalise(ours[1]) != normalise(theirs[1]):
            raise Fault(f"{what}: prints {normalise(ours[1])!r}, not {normalise(theirs[1])!r}")
        errors = [normalise(ours[2]), normalise(theirs[2])]
        if bool(errors[0].strip()) != bool(errors[1].strip()):
            raise Fault(f"{what}: says {errors[0]!r}, not {errors[1]!r}")
        if stderr == "same" and first_line(errors[0]) != first_line(errors[1]):
            raise Fault(f"{what}: says {first_line(errors[0])!r}, not {first_line(errors[1])!r}")
        return ours

    def ferry(self, *words, status=0):
        done = run([self.program, *words], self.ours)
        if done[0] != status:
            raise Fault(f"{' '.join(map(str, words))}: status {done[0]}, not {status}: {done[2].strip()}")
        return done

    def check(self, *names):
        """Our image has no errors, and the contents that theirs has."""
        for name in names:
            if run([REFERENCE, "info", name], self.ours, check=True)[1].find("format: qcow2") > 0:
                status, out, err = run([REFERENCE, "check", name], self.ours)
                if status:
                    raise Fault(f"check of {name}: {(err + out).strip()[:300]}")
            self.compare(name, self.theirs / name)

    def compare(self, name, other):
        status, out, err = run([REFERENCE, "compare", name, other], self.ours)
        if status:
            raise Fault(f"{name} and {other}: {(out + err).strip()}")


# -- images that most cases have ------------------------------------------------------------------

BASE = ["create -q -f qcow2 a.qcow2 10M",
        "io a.qcow2 write -P 1 0 64k; write -P 2 1M 1M; write -z 3M 1M; write -P 9 9M 512"]
OVERLAY = BASE + ["create -q -f qcow2 -b a.qcow2 -F qcow2 b.qcow2",
                  "io b.qcow2 write -P 3 2M 64k; write -z 1M 64k"]
RAW = ["create -q -f raw a.raw 10M", "io a.raw write -P 1 0 64k; write -P 2 5000k 1M"]
CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


# -- commands -------------------------------------------------------------------------------------

@case
def usage(p, long):
    p.prepare(*BASE)
    for words in ([], ["foo"], ["create"], ["create", "-f"], ["create", "-z"], ["create", "--foo"],
                  ["info"], ["info", "a", "b"], ["check"], ["compare", "a"], ["map"], ["resize"],
                  ["resize", "a.qcow2"], ["rebase"], ["rebase", "a.qcow2"], ["commit"], ["amend"],
                  ["amend", "a.qcow2"], ["bench"], ["snapshot", "a", "b"], ["convert"], ["convert", "a"],
                  ["measure"], ["measure", "a", "b"], ["dd"], ["dd", "if=a"], ["dd", "foo"],
                  ["check", "-r", "foo", "a.qcow2"], ["info", "--output=foo", "a.qcow2"],
                  ["snapshot", "-a", "1", "-d", "1", "a.qcow2"], ["bitmap"], ["bitmap", "--add", "a"],
                  ["bitmap", "a.qcow2", "b"]):
        p.same(*words, stderr="same")


@case
def create(p, long):
    p.prepare(*RAW)
    for words in (["create", "-f", "raw", "c.raw", "10M"], ["create", "c2.raw", "1000"],
                  ["create", "-f", "qcow2", "c.qcow2", "1.5G"],
                  ["create", "-f", "qcow2", "-b", "c.qcow2", "-F", "qcow2", "d.qcow2"],
                  ["create", "-f", "qcow2", "-b", "c.qcow2", "-F", "qcow2", "e.qcow2", "20M"],
                  ["create", "-q", "-f", "qcow2", "-b", "a.raw", "-F", "raw", "f.qcow2"],
                  ["create", "-f", "qcow2", "-u", "-b", "nope", "-F", "raw", "g.qcow2", "1M"],
                  ["create", "-f", "qcow2", "-o", "compat=0.10", "h.qcow2", "64M"],
                  ["create", "-f", "qcow2", "-o", "size=1G,cluster_size=4k,lazy_refcounts=on",
                   "-o", "preallocation=metadata", "i.qcow2"],
                  ["create", "-f", "qcow2", "-o", "refcount_bits=64,compression_type=zstd,compat=v3",
                   "j.qcow2", "1T"],
                  ["create", "-f", "qcow2", "-o", "extended_l2=on,cluster_size=128k", "k.qcow2", "1G"],
                  ["create", "-f", "qcow2", "-o", "data_file=l.raw,data_file_raw=on", "l.qcow2", "8M"],
                  ["create", "-f", "raw", "-o", "preallocation=falloc", "m.raw", "1M"]):
        p.same(*words)
    p.check("c.raw", "c2.raw", "c.qcow2", "d.qcow2", "e.qcow2", "f.qcow2", "h.qcow2", "i.qcow2",
            "j.qcow2", "k.qcow2", "l.qcow2", "m.raw")
    for words in (["create", "x"], ["create", "x", "1X"], ["create", "x", "--", "-1"],
                  ["create", "-f", "foo", "x", "1"], ["create", "-f", "qcow2", "-o", "foo=1", "x", "1"],
                  ["create", "-f", "qcow2", "x", "1G", "2G"], ["create", "-q", "nonexist/x", "1G"],
                  ["create", "-f", "qcow2", "-b", "nope", "-F", "raw", "x", "1G"],
                  ["create", "-f", "qcow2", "-u", "-b", "nope", "-F", "raw", "x"],
                  ["create", "-f", "qcow2", "-o", "size=1G", "x", "2G"],
                  ["create", "-f", "raw", "-b", "a.raw", "x"],
                  ["create", "-f", "qcow2", "-b", "a.raw", "x"],
                  ["create", "-f", "qcow2", "-b", "", "-F", "raw", "x", "1M"],
                  ["create", "x", "9999999999999999999999"], ["create", "x", ""]):
        p.same(*words, stderr="same")


@case
def wrong_options(p, long):
    """They leave the old image as it was, and no new one."""
    p.prepare(*BASE, *RAW)
    before = {name: (p.ours / name).read_bytes() for name in ("a.qcow2", "a.raw")}
    for option in ("cluster_size=3k", "compat=0.10,lazy_refcounts=on", "lazy_refcounts=foo", "", "cluster_size=64k,",
                   ",cluster_size=64k", "cluster_size=64k,,", "cluster_size=64k,,,", "compat=0.10,data_file=d",
                   "data_file_raw=on", "refcount_bits=3", "preallocation=foo", "nocow=foo", "compression_type=foo",
                   "extended_l2=on,cluster_size=4k"):
        for target in ("a.qcow2", "x"):
            p.same("create", "-q", "-f", "qcow2", "-o", option, target, "1M")
            p.same("convert", "-O", "qcow2", "-o", option, "a.raw", target)
            p.same("convert", "-c", "-O", "qcow2", "-o", "compat=1.1", "-o", option, "a.raw", target)
    for option in ("preallocation=metadata", "preallocation=foo", "nocow=foo", "extent_size_hint=foo", ""):
        for target in ("a.raw", "x"):
            p.same("create", "-q", "-f", "raw", "-o", option, target, "1M")
    p.ferry("create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "a.qcow2", "8E", status=1)
    p.same("amend", "-o", "", "a.qcow2", stderr="same")
    p.same("amend", "-o", "lazy_refcounts=on,", "a.qcow2", stderr="same")
    p.same("measure", "-O", "qcow2", "-o", "cluster_size=64k,", "--size", "1M", stderr="same")
    for name, data in before.items():
        if (p.ours / name).read_bytes() != data:
            raise Fault(f"{name} is no longer what it was")
    if (p.ours / "x").exists() or (p.ours / "d").exists():
        raise Fault("a failed command leaves a file")


@case
def option_lists(p, long):
    """-o help: the format's, with a file name also the file's."""
    for fmt, name in itertools.product(("raw", "qcow2"), ([], ["x"])):
        lists = []
        for program, side in ((p.program, p.ours), (REFERENCE, p.theirs)):
            status, out, err = run([program, "create", "-f", fmt, "-o", "help", *name], side)
            # Encryption is not in this build.
            lists.append((status, err, re.sub(r" - .*", "", "\n".join(
                line for line in out.split("\n") if "encrypt" not in line))))
        if lists[0] != lists[1]:
            raise Fault(f"-f {fmt} -o help {name}: {lists[0]}, not {lists[1]}")


@case
def info(p, long):
    p.prepare(*RAW, *OVERLAY, "snapshot -c one b.qcow2", "snapshot -c a-rather-long-name-of-it b.qcow2",
              "bitmap --add b.qcow2 bit", "create -q -f qcow2 -o extended_l2=on,refcount_bits=1 e.qcow2 1G",
              "create -q -f qcow2 -o data_file=d.raw,data_file_raw=on d.qcow2 1M",
              "create -q -f qcow2 -o compat=0.10 old.qcow2 1M", "truncate -s 1 odd.raw",
              "create -q -f qcow2 -o lazy_refcounts=on,compression_type=zstd z.qcow2 1M")
    names = ["a.raw", "a.qcow2", "b.qcow2", "e.qcow2", "d.qcow2", "old.qcow2", "odd.raw", "z.qcow2"]
    for name, output in itertools.product(names, ("human", "json")):
        p.same("info", f"--output={output}", name)
        p.same("info", "-U", "--backing-chain", f"--output={output}", name)
    p.same("info", "-f", "raw", "a.qcow2")
    p.same("info", "file:a.raw")
    p.same("info", "./a.raw")
    p.same("info", '--image-opts', "driver=qcow2,file.filename=b.qcow2")
    p.same("info", '--image-opts', "driver=qcow2,file.driver=file,file.filename=a.qcow2")
    p.same("info", 'json:{"driver":"raw","file":{"driver":"file","filename":"a.raw"}}')
    (p.ours / "d.raw").unlink(), (p.theirs / "d.raw").unlink()
    p.same("info", "d.qcow2")
    os.mkfifo(p.ours / "d.raw"), os.mkfifo(p.theirs / "d.raw")
    p.same("info", "--output=json", "d.qcow2")
    p.same("info", "--image-opts", "driver=qcow2,file.filename=d.qcow2,data-file.filename=nope")
    p.same("info", "--image-opts", "driver=qcow2,file.filename=d.qcow2,data-file=nope")
    p.ferry("map", "d.qcow2", status=1)
    if "disk size: 0 B\n" not in p.same("info", "null-co://")[1]:
        raise Fault("null-co has a size on the host")
    for words in (["info", "nope"], ["info", "-f", "qcow2", "a.raw"],
                  ["info", "--image-opts", "driver=qcow2,file.filename=nope"],
                  ["info", "--image-opts", "-f", "raw", "driver=raw,file.filename=a.raw"]):
        p.same(*words, stderr="same")
    p.same("info", "-f", "foo", "a.raw")
    p.same("info", ".")


@case
def check(p, long):
    p.prepare(*BASE, *RAW)
    leak, bad = p.theirs / "leak.qcow2", p.theirs / "bad.qcow2"
    for path, patches in ((leak, [(0x40000, bytes(8))]),
                          (bad, [(0x20000, b"\0\2"), (0x2000A, b"\0\2")])):
        data = bytearray((p.theirs / "a.qcow2").read_bytes())
        for offset, patch in patches:
            data[offset:offset + len(patch)] = patch
        path.write_bytes(data)
        shutil.copy(path, p.ours)
    for name, output in itertools.product(("a.qcow2", "leak.qcow2", "bad.qcow2", "a.raw", "nope"),
                                          ("human", "json")):
        p.same("check", f"--output={output}", name)
        p.same("check", "-q", "-U", f"--output={output}", name)
    p.same("check", "-f", "qcow2", "-r", "leaks", "leak.qcow2")
    p.same("check", "leak.qcow2")
    p.same("check", "-r", "all", "bad.qcow2")
    p.same("check", "bad.qcow2")
    p.check("leak.qcow2", "bad.qcow2")


@case
def compare(p, long):
    p.prepare(*BASE, *RAW, "truncate -s 10M zero.raw", "truncate -s 20M big.raw",
              "convert -O qcow2 a.raw ra.qcow2", "convert -c -O qcow2 a.raw rc.qcow2",
              "truncate -s 20M tail.raw", "io tail.raw write -P 7 15728641 1")
    pairs = [("a.qcow2", "a.qcow2"), ("a.qcow2", "a.raw"), ("a.raw", "ra.qcow2"), ("ra.qcow2", "rc.qcow2"),
             ("zero.raw", "big.raw"), ("zero.raw", "tail.raw"), ("tail.raw", "big.raw"),
             ("nope", "a.raw"), ("a.raw", "nope")]
    for options in ([], ["-s"], ["-q"], ["-p"]):
        for first, second in pairs:
            if "-s" in options and "tail.raw" in (first, second):
                continue  # qemu-img takes the ends of the files for a difference of status
            if "-p" in options and "nope" in (first, second):
                continue  # qemu-img ends a line of progress that it never began
            p.same("compare", "-U", *options, first, second)
    p.same("compare", "-f", "raw", "-F", "raw", "zero.raw", "big.raw")
    p.same("compare", "-f", "foo", "zero.raw", "big.raw")
    rules = ('json:{"driver":"raw","file":{"driver":"blkdebug","image":{"driver":"file",'
             '"filename":"%s"},"inject-error":[{"event":"read_aio","errno":5,"sector":%d}]}}')
    for name, sector in (("a.raw", 10100), ("tail.raw", 30720)):
        for images in ((name, rules % (name, sector)), (rules % (name, sector), name)):
            if p.same("compare", *images)[0] != 4:
                raise Fault("a read error has another status than 4")
    if p.same("compare", "big.raw", rules % ("a.raw", 10100))[0] == 0:
        raise Fault("a read error is no error")
    status = rules.replace('"read_aio"', '"none","iotype":"block-status"') % ("a.raw", 0)
    for options in ([], ["-s"]):
        if p.same("compare", *options, "a.raw", status)[0] != 3:
            raise Fault("a failed query of allocation has another status than 3")
    p.same("compare", "-T", "foo", "zero.raw", "zero.raw", stderr="same")


@case
def maps(p, long):
    p.prepare(*RAW, *OVERLAY, "truncate -s 700k short.raw",
              "create -q -f qcow2 -b short.raw -F raw s.qcow2 2M",
              "create -q -f qcow2 -o extended_l2=on e.qcow2 4M", "io e.qcow2 write 0 8k; write -z 8k 56k",
              "create -q -f qcow2 -o data_file=d.raw,data_file_raw=on d.qcow2 1M", "io d.qcow2 write 0 64k",
              "create -q -f qcow2 c.qcow2 1M", "io c.qcow2 write -c -P 7 64k 64k")
    for name in ("a.raw", "a.qcow2", "b.qcow2", "s.qcow2", "e.qcow2", "d.qcow2", "c.qcow2"):
        for options in ([], ["--output=json"], ["--start-offset=64k", "--max-length=3M"],
                        ["-s", "64k", "-l", "3M", "--output=json"], ["--max-length=0"],
                        ["--start-offset=20M"], ["--start-offset=20M", "--output=json"]):
            p.same("map", *options, name)
    p.same("map", "--start-offset=foo", "a.raw", stderr="same")
    p.prepare("truncate -s 1M one.raw", "create -q -f qcow2 -b one.raw -F raw two.qcow2 2M",
              "create -q -f qcow2 -b two.qcow2 -F qcow2 three.qcow2 3M", "io three.qcow2 write 2560k 64k")
    p.same("map", "--output=json", "three.qcow2")


@case
def measure(p, long):
    p.prepare(*RAW, *OVERLAY, "snapshot -c s a.qcow2", "bitmap --add b.qcow2 bit")
    for output in ("human", "json"):
        for words in (["--size", "1G"], ["--size", "1G", "-O", "qcow2"],
                      ["-O", "qcow2", "-o", "cluster_size=4k", "--size", "8T"],
                      ["-O", "qcow2", "-o", "cluster_size=2M,refcount_bits=64", "--size", "8T"],
                      ["-O", "qcow2", "-o", "extended_l2=on", "--size", "1T"],
                      ["-O", "qcow2", "-o", "preallocation=full", "--size", "1T"],
                      ["-O", "qcow2", "-o", "size=1G", "--size", "1M"],
                      ["-O", "qcow2", "a.qcow2"], ["-O", "raw", "a.qcow2"], ["-O", "qcow2", "b.qcow2"],
                      ["-O", "qcow2", "a.raw"], ["-O", "qcow2", "-f", "raw", "a.raw"],
                      ["-l", "1", "a.qcow2"]):
            p.same("measure", f"--output={output}", *words)
    for words in (["--size", "1G", "a.qcow2"], ["-O", "foo", "a.qcow2"], ["--image-opts", "--size", "1G"],
                  ["-f", "raw", "--size", "1"], ["-l", "x", "--size", "1G"], ["-l", "nope", "a.qcow2"],
                  ["-O", "qcow2", "-o", "foo=1", "--size", "1"], ["-O", "file", "--size", "1"]):
        p.same("measure", *words, stderr="same")


@case
def resize(p, long):
    p.prepare(*RAW, *OVERLAY, "create -q -f raw odd.raw 1M", "io odd.raw write -P 7 0 1M",
              "create -q -f qcow2 -o data_file=d.raw d.qcow2 1M")
    for name in ("a.raw", "a.qcow2", "b.qcow2"):
        fmt = ["-f", "raw" if name == "a.raw" else "qcow2"]
        for words in (["20M"], ["+1M"], ["-1M"], ["foo"], ["-1G"], ["5M"], ["--preallocation=foo", "30M"]):
            p.same("resize", *fmt, *words[:-1], name, words[-1], stderr="same")
        p.same("resize", *fmt, "--shrink", name, "-1M")
        p.same("resize", "-q", *fmt, "--preallocation=falloc", name, "25M")
        p.same("resize", *fmt, "--preallocation=falloc", "--shrink", name, "15M", stderr="same")
        p.same("resize", *fmt, "--shrink", name, "2M")
        p.same("resize", *fmt, name, "12M")
        p.check(name)
    for words in (["odd.raw", "2097153"], ["odd.raw", "+1"], ["--shrink", "odd.raw", "-2000"],
                  ["--shrink", "odd.raw", "1000"], ["--preallocation=full", "odd.raw", "1M"],
                  ["--preallocation=falloc", "odd.raw", "1048577"], ["--preallocation=metadata", "odd.raw", "2M"],
                  ["--shrink", "odd.raw", "1"]):
        p.same("resize", "-f", "raw", *words)
        sizes = [(side / "odd.raw").stat().st_size for side in (p.ours, p.theirs)]
        if sizes[0] != sizes[1]:
            raise Fault(f"resize {words}: {sizes[0]} bytes, not {sizes[1]}")
        p.check("odd.raw")
    p.same("resize", "--preallocation=metadata", "d.qcow2", "2M")
    p.check("d.qcow2")
    p.same("resize", "nope", "1M", stderr="same")
    p.same("resize", "a.qcow2", "+1", stderr="same")
    p.same("resize", "a.raw", "20M")


@case
def snapshots(p, long):
    p.prepare(*BASE, *RAW)
    for words in (["a.qcow2"], ["-l", "a.qcow2"], ["-c", "one", "a.qcow2"], ["a.qcow2"], ["nope"],
                  ["-c", "two-with-a-long-name", "a.qcow2"], ["-l", "a.qcow2"], ["-a", "one", "a.qcow2"],
                  ["-d", "one", "a.qcow2"], ["-c", "three", "a.qcow2"], ["-l", "a.qcow2"],
                  ["-l", "a.raw"]):
        p.same("snapshot", *words)
    p.check("a.qcow2")
    for side in (p.ours, p.theirs):
        run(["qemu-io", "-c", "write -P 33 1M 128k", "a.qcow2"], side, check=True)
    p.same("snapshot", "-a", "three", "a.qcow2")
    p.check("a.qcow2")
    p.same("convert", "-l", "three", "a.qcow2", "three.raw")
    p.check("three.raw")
    for words in (["-a", "nope", "a.qcow2"], ["-d", "nope", "a.qcow2"]):
        p.same("snapshot", *words, stderr="same")
    p.same("snapshot", "-U", "-a", "three", "a.qcow2")


@case
def dd(p, long):
    p.prepare(*BASE, *RAW, "truncate -s 1 odd.raw")
    for i, words in enumerate((["if=a.qcow2"], ["if=a.qcow2", "bs=64k", "count=20"],
                               ["if=a.qcow2", "bs=64k", "skip=16"], ["if=a.qcow2", "count=0"],
                               ["if=a.qcow2", "bs=100000", "count=3"], ["if=odd.raw", "bs=1"],
                               ["-O", "qcow2", "if=a.raw", "bs=1M"], ["-U", "if=a.qcow2", "bs=1M"],
                               ["-f", "raw", "if=a.qcow2"], ["if=a.qcow2", "skip=100000000"],
                               ["--image-opts", "if=driver=qcow2,file.filename=a.qcow2", "bs=1M"])):
        p.same("dd", *words, f"of={i}.out")
        p.check(f"{i}.out")
    for words in (["bs=0"], ["bs=foo"], ["bs=3G"], ["count=foo"], ["foo=1"], ["-n"]):
        p.same("dd", "if=a.qcow2", "of=x", *words, stderr="same")
    p.same("dd", "if=nope", "of=x", stderr="same")


@case
def commit(p, long):
    for options, again in (([], True), (["-d"], False), (["-b", "base.qcow2"], False), (["-q"], True),
                           (["-p"], True), (["-r", "100M"], True)):
        p.__init__(p.program, p.ours.parent)
        p.prepare("create -q -f qcow2 base.qcow2 8M", "io base.qcow2 write -P 9 0 128k",
                  "create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2 10M",
                  "io mid.qcow2 write -P 3 2M 64k; write -z 64k 64k",
                  "create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2",
                  "io top.qcow2 write -P 4 3M 64k; write -P 5 9M 1k")
        p.same("commit", *options, "top.qcow2")
        p.check("top.qcow2", "base.qcow2" if "-b" in options else "mid.qcow2")
        p.same("info", "top.qcow2")
        if again:
            p.same("map", "--output=json", "--max-length=1M", "mid.qcow2")
            p.same("commit", "mid.qcow2")
            p.check("base.qcow2", "top.qcow2")
    # What has to be written before the base can be: bitmaps that are in use, refcounts of a dirty image.
    p.prepare("create -q -f qcow2 base.qcow2 2M", "bitmap --add -g 64k base.qcow2 b",
              "create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2", "io top.qcow2 write -P 3 1M 64k")
    p.same("commit", "top.qcow2")
    p.same("info", "--output=json", "base.qcow2")
    p.check("top.qcow2", "base.qcow2")
    p.prepare("create -q -f qcow2 -o lazy_refcounts=on base.qcow2 2M",
              "create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2", "io top.qcow2 write -P 3 1M 64k")
    run(["qemu-io", "-c", "write -P 5 0 128k", "-c", "sigraise 9", "base.qcow2"], p.ours)
    p.ferry("commit", "top.qcow2")
    run(["qemu-io", "-c", "write -P 5 0 128k", "-c", "write -P 3 1M 64k", "base.qcow2"], p.theirs, check=True)
    p.check("base.qcow2")
    p.prepare("create -q -f qcow2 -o compat=0.10 base.qcow2 1M", "snapshot -c s base.qcow2",
              "create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2 2M", "io top.qcow2 write -P 3 1M 64k")
    if "base.qcow2" not in p.ferry("commit", "top.qcow2", status=1)[2]:
        raise Fault("a base that cannot grow is not named")
    for words in (["-b", "nope", "top.qcow2"], ["base.qcow2"], ["-r", "foo", "mid.qcow2"],
                  ["-t", "foo", "mid.qcow2"]):
        p.same("commit", *words, stderr="same")


def window(offset, size=262144, name="disk"):
    """The name of a part of a file."""
    return json.dumps({"driver": "raw", "offset": offset, "size": size,
                       "file": {"driver": "file", "filename": name}}, separators=(",", ":"))


def windows(p):
    """Fresh folders with disk: 256 KiB of 'A', of 'B', of 'C', of 'D'."""
    p.__init__(p.program, p.ours.parent)
    for side in (p.ours, p.theirs):
        for name in ("disk", "a:b"):
            (side / name).write_bytes(b"".join(bytes((c,)) * 262144 for c in b"ABCD"))


@case
def commit_to_the_node(p, long):
    """The changes go where the overlay's data came from, whatever its backing node is made of."""
    json_name = "json:" + window(262144)
    given = "driver=qcow2,file.filename=o,backing.driver=raw,backing.offset=256k"
    for backing, length, words in (
            (json_name, "256k", ["o"]),
            (json_name, "2M", ["o"]),
            ("disk", "256k", ["--image-opts", given + ",backing.file.filename=disk"]),
            ("disk", "2M", ["--image-opts", given + ",backing.file.filename=disk"]),
            ("disk", "1M", ["--image-opts", given + ",backing.size=64k,backing.file.filename=disk"]),
            ("file:a:b", "1M", ["o"]), ("./a:b", "1M", ["-d", "o"]),
            ("disk", "1M", ["--image-opts", "driver=qcow2,file.filename=o,backing.driver=raw,"
                            "backing.file.filename=disk,backing.file.read-only=on"]),
            ("disk", "1M", ["--image-opts", "driver=qcow2,file.filename=o,backing.read-only=on"]),
            ('json:{"driver":"raw","file":' + window(4096, 0x80000) + "}", "512k", ["-t", "none", "o"])):
        windows(p)
        p.prepare(f"create -q -f qcow2 -u -b {backing} -F raw o {length}",
                  f"io o write -P 0x42 16k 4k; write -P 0x43 {int(length[:-1]) - 1}{length[-1]} 1k")
        p.same("commit", *words)
        for name in ("disk", "a:b"):
            same_bytes(p, name)
        p.same("map", "--output=json", "-U", "o")


def same_bytes(p, name):
    ours, theirs = ((side / name).read_bytes() for side in (p.ours, p.theirs))
    if ours != theirs:
        at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), None)
        raise Fault(f"{name}: {len(ours)} bytes, not {len(theirs)}; they differ from byte {at} on")


@case
def commit_base_names(p, long):
    """-b: any path to the file; with a protocol, as the chain has it."""
    json_name = "json:" + window(262144)
    for backing, names in (
            ("disk", ["disk", "./disk", "{}/disk", "sub/../disk", "link", "hard", "file:disk", "nope", "b"]),
            ("{}/disk", ["disk", "./disk", "{}/disk", "link"]), ("./disk", ["disk", "{}/disk"]),
            ("link", ["disk", "link"]), ("file:disk", ["disk", "file:disk"]),
            (json_name, [json_name, "disk", "json: " + window(262144), "json:" + window(0)]),
            ("./a:b", ["./a:b", "{}/a:b", "a:b", "file:a:b"]), ("file:a:b", ["file:a:b", "./a:b"])):
        for name in names:
            windows(p)
            for side in (p.ours, p.theirs):
                (side / "sub").mkdir()
                (side / "link").symlink_to("disk")
                (side / "hard").hardlink_to(side / "disk")
                run([REFERENCE, "create", "-q", "-f", "qcow2", "-b", backing.replace("{}", str(side)),
                     "-F", "raw", "b"], side, check=True)
                run([REFERENCE, "create", "-q", "-f", "qcow2", "-b", "b", "-F", "qcow2", "c"], side, check=True)
                run(["qemu-io", "-c", "write -P 0x42 8k 4k", "c"], side, check=True)
            each(p, "commit", "-q", "-b", name, "c")
            for file in ("disk", "a:b"):
                same_bytes(p, file)
            each(p, "map", "--output=json", "c")


def each(p, *words):
    """Both with the same words, in which {} is each one's folder; the statuses."""
    ours, theirs = (run([program, *(word.replace("{}", str(side)) for word in words)], side)
                    for program, side in ((p.program, p.ours), (REFERENCE, p.theirs)))
    if ours[0] != theirs[0]:
        raise Fault(f"{words}: status {ours[0]}, not {theirs[0]}: {(ours[2] or theirs[2]).strip()[:300]}")


@case
def rebase_windows(p, long):
    """Two parts of a file are two backing files, two names of a file are one."""
    first, second = ("json:" + window(offset) for offset in (0, 262144))
    for old, new, form in ((first, second, "raw"), (second, first, "raw"), (first, first, "raw"),
                           ("disk", second, "raw"), (first, "disk", "raw"), ("disk", "./disk", "raw"),
                           ("disk", "a:b", "raw"), ("disk", "file:a:b", "raw"),
                           ("image", "image", "raw"), ("image", "./image", "raw")):
        windows(p)
        p.prepare("create -q -f qcow2 image 256k", "io image write -P 0x49 0 64k",
                  ["create", "-q", "-f", "qcow2", "-u", "-b", old, "-F", "qcow2" if old == "image" else "raw",
                   "o", "256k"], "io o write -P 0x42 64k 4k")
        run([REFERENCE, "convert", "-O", "raw", "o", "before"], p.ours, check=True)
        # qemu-img takes the image of the chain for the new one, whatever format -F says.
        call = p.ferry if new.endswith("image") else p.same
        if new == "a:b":
            p.same("rebase", "-b", new, "-F", form, "o")
            continue
        call("rebase", "-b", new, "-F", form, "o")
        run([REFERENCE, "convert", "-O", "raw", "o", "after"], p.ours, check=True)
        if (p.ours / "before").read_bytes() != (p.ours / "after").read_bytes():
            raise Fault(f"from {old} to {new}: the guest sees something else")
        if call == p.same:
            p.same("map", "--output=json", "o")


@case
def names(p, long):
    """What an image is called: plain if that opens the same, else with all its options."""
    windows(p)
    p.prepare("create -q -f qcow2 q 1M", "create -q -f qcow2 -b q -F qcow2 o",
              ["create", "-q", "-f", "qcow2", "-b", "json:" + window(262144), "-F", "raw", "w"],
              "create -q -f qcow2 -b file:a:b -F raw colon", "create -q -f qcow2 -o data_file=d.raw d 1M")
    disk = '{"driver":"file","filename":"disk"}'
    debug = '{"driver":"blkdebug","image":%s}' % disk
    for name in ("disk", "./disk", "file:disk", "file:./disk", "file:a:b", "./a:b", "null-co://",
                 "blkdebug::disk", "blkdebug::q", "colon", "w", "d"):
        # qemu-img has no dirty-flag for null-co.
        for output in ("human",) if "null-co" in name else ("human", "json"):
            p.same("info", "-U", f"--output={output}", name)
            p.same("info", "-U", "--backing-chain", f"--output={output}", name)
    for text in (window(262144), '{"driver":"raw","offset":"256k","file.filename":"disk"}',
                 '{"driver":"raw","file":%s}' % disk, '{"driver":"raw","size":512,"file":%s}' % debug,
                 '{"driver":"raw","file":%s}' % debug, debug, '{"driver":"null-co","size":1024}',
                 '{"driver":"null-co","read-zeroes":true}', '{"driver":"null-co","latency-ns":10}',
                 '{"driver":"raw","file":{"driver":"null-co","size":1024,"read-zeroes":true}}',
                 '{"driver":"raw","file":' + window(512, 1024) + "}",
                 '{"driver":"qcow2","backing":null,"file.filename":"o"}',
                 '{"driver":"qcow2","lazy-refcounts":true,"file.filename":"q"}',
                 '{"driver":"qcow2","file":{"driver":"raw","offset":0,"file.filename":"o"}}',
                 '{"driver":"raw","file.filename":"a/b:c"}', '{"driver":"raw","file.filename":"file:disk"}'):
        for output in ("human",) if "null-co" in text else ("human", "json"):
            p.same("info", "-U", "--backing-chain", f"--output={output}", "json:" + text, stderr="same")
    for text in ("driver=raw,offset=256k,file.filename=disk", "driver=raw,file.filename=disk",
                 "driver=raw,offset=0,size=512,file.filename=disk", "driver=file,filename=disk",
                 "driver=raw,file.driver=raw,file.offset=4k,file.file.filename=disk",
                 "driver=qcow2,file.filename=o,lazy-refcounts=on"):
        p.same("info", "--image-opts", text)
    p.same("check", "--output=json", "file:q")
    p.same("map", "-f", "raw", "file:a:b")
    # A plain name would open something else, though qemu-img gives one.
    if "image: ./a:b\n" not in p.ferry("info", "--image-opts", "driver=raw,file.filename=a:b")[1]:
        raise Fault("a:b is called like a protocol")


@case
def raw_over_qcow2(p, long):
    """What a qcow2 image takes from its backing file is data to a raw node above the image."""
    p.prepare("create -q -f qcow2 a.qcow2 4M", "io a.qcow2 write -P 0x55 0 3M",
              "create -q -f qcow2 -b a.qcow2 -F qcow2 b.qcow2", "io b.qcow2 write -P 7 2M 64k; write -z 1536k 64k")
    for words in ("driver=raw,file.driver=qcow2,file.file.filename=b.qcow2",
                  "driver=raw,offset=1M,size=2560k,file.driver=qcow2,file.file.filename=b.qcow2",
                  "driver=raw,offset=1M,size=2560k,file.driver=blkdebug,file.image.driver=qcow2,"
                  "file.image.file.filename=b.qcow2"):
        p.same("convert", "--image-opts", "-O", "raw", words, "out")
        p.same("convert", "--image-opts", "-O", "qcow2", words, "out.qcow2")
        p.check("out", "out.qcow2")
        # qemu-img compare takes for zeroes what b.qcow2 has not.
        p.ferry("compare", "--image-opts", words, "driver=raw,file.filename=out")
        p.ferry("compare", "--image-opts", words, "driver=qcow2,file.filename=out.qcow2")


@case
def json_names(p, long):
    """QEMU's JSON: strings also in single quotes, spaces around, drivers of files left out."""
    windows(p)
    p.prepare("create -q -f qcow2 q 1M", ["create", "-q", "-f", "qcow2", "-u", "-b",
                                          "json:{'driver':'raw','offset':4096,'file.filename':'disk'}", "-F", "raw",
                                          "o", "64k"],
              ["create", "-q", "-f", "qcow2", "-u", "-b", 'json:{"driver":"qcow2","file.filename":"q"}', "-F",
               "raw", "as-raw", "64k"])
    for text in ("{'driver':'qcow2','file.filename':'q'}", ' {"driver":"qcow2","file.filename":"q"} ',
                 "\t\n{'driver' : \"qcow2\",\n'file' : {'driver':'file','filename':'q'}}",
                 "{'driver':'raw','file.filename':'it\\'s \"this\"'}", '{"driver":"raw","file.filename":"it\\\'s"}',
                 "{'driver':'raw','file.filename':'\\u0071'}", "{'driver':'raw','file.filename':'q}", "{'driver'",
                 "{'driver':'raw','file.filename':'q'} x", "{'driver':'raw','driver':'raw','file.filename':'q'}",
                 "{'a':'\\x'}", "['q']", "", " ", "q", "{}"):
        p.same("info", "json:" + text)
    for name in ("o", "as-raw"):
        p.same("convert", "-O", "raw", name, "x")
        same_bytes(p, "x")


@case
def backing_options(p, long):
    """Options of a backing file that is not there, or is not opened, are refused."""
    windows(p)
    p.prepare("create -q -f qcow2 q 1M", "create -q -f qcow2 -b q -F qcow2 o")
    for command in (["info"], ["convert", "-O", "raw"], ["check"], ["rebase", "-u", "-b", "", "--"]):
        for name in ("q", "o"):
            for option in ("backing.driver=raw", "backing.driver=raw,backing.file.filename=disk",
                           "backing.file.filename=q", "backing.offset=512", "backing=nope"):
                if name == "q" and option == "backing.file.filename=q":
                    continue  # without a format: looked at by qemu-img, refused by ferry
                words = [command[0], "--image-opts", *command[1:], f"driver=qcow2,file.filename={name},{option}"]
                p.same(*words, *(["x"] if command[0] == "convert" else []))


@case
def odd_names(p, long):
    """Names that are no UTF-8, in JSON."""
    windows(p)
    for name in (b"\xff\xfe", b"a\xc3\xa4", b"\xed\xa0\x80x", b"\xef\xbf\xbe", b"\xf0\x9f\x98\x80",
                 b"\xe2\x82", b"\x80\x80z", b"\xf4\x90\x80\x80", b"\xfc\x80\x80\x80\x80\x80", b'\t\n"\\'):
        path = os.fsdecode(name)
        for side in (p.ours, p.theirs):
            run(["cp", "disk", path], side, check=True)
            run([REFERENCE, "create", "-q", "-f", "qcow2", "-u", "-b", path, "-F", "raw", "o", "1M"], side,
                check=True)
        p.same("info", "-f", "raw", "--output=json", path)
        p.same("info", "--output=json", "o")
        p.same("info", "--image-opts", "driver=raw,offset=512,file.filename=" + path)


@case
def rebase(p, long):
    chain = ["create -q -f qcow2 base.qcow2 8M", "io base.qcow2 write -P 9 0 256k",
             "create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2 10M",
             "io mid.qcow2 write -P 3 2M 64k; write -z 64k 64k",
             "create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2",
             "io top.qcow2 write -P 4 3M 64k; write -P 5 9M 1k",
             "create -q -f qcow2 other.qcow2 4M", "io other.qcow2 write -P 8 0 4M",
             "truncate -s 1M short.raw"]
    for words in (["-b", "base.qcow2", "-F", "qcow2"], ["-b", "other.qcow2", "-F", "qcow2"], ["-b", ""],
                  ["-p", "-b", "short.raw", "-F", "raw"], ["-U", "-u", "-b", "base.qcow2", "-F", "qcow2"],
                  ["-u", "-b", "base.qcow2", "-F", "qcow2"], ["-u", "-b", "nope", "-F", "raw"], ["-u"],
                  ["-u", "-b", ""], ["-t", "none", "-T", "none", "-b", "base.qcow2", "-F", "qcow2"]):
        p.__init__(p.program, p.ours.parent)
        p.prepare(*chain)
        p.same("rebase", *words, "top.qcow2")
        p.same("info", "top.qcow2")
        if "nope" not in words:
            p.check("top.qcow2")
    p.__init__(p.program, p.ours.parent)
    p.prepare(*chain)
    for words in (["-b", "base.qcow2", "top.qcow2"], ["-b", "nope", "-F", "qcow2", "top.qcow2"],
                  ["-u", "-b", "x", "-F", "foo", "top.qcow2"], ["-u", "-b", "mid.qcow2", "top.qcow2"],
                  ["-t", "foo", "-b", "x", "top.qcow2"], ["-u", "-b", "x", "-F", "raw", "-f", "raw", "short.raw"]):
        p.same("rebase", *words, stderr="same")


@case
def amend(p, long):
    p.prepare(*BASE, *RAW, "create -q -f qcow2 c.qcow2 10M", "io c.qcow2 write -P 6 1M 100k")
    for words in (["lazy_refcounts=on", "a.qcow2"], ["compat=0.10,lazy_refcounts=off", "a.qcow2"],
                  ["compat=1.1", "a.qcow2"], ["refcount_bits=64", "c.qcow2"], ["refcount_bits=8", "c.qcow2"],
                  ["size=30M", "c.qcow2"]):
        p.same("amend", "-o", *words)
        p.same("info", words[-1])
        p.check(words[-1])
    p.same("amend", "-p", "-o", "size=31M", "c.qcow2")
    p.check("c.qcow2")
    for words in (["foo=1", "a.qcow2"], ["cluster_size=4k", "a.qcow2"], ["size=1", "-f", "raw", "a.raw"],
                  ["backing_file=a.raw,backing_fmt=raw", "c.qcow2"], ["-t", "foo", "a.qcow2"],
                  ["help"], ["help", "-f", "raw"]):
        p.same("amend", "-o", *words, stderr="same")


@case
def bitmap(p, long):
    p.prepare(*BASE, "create -q -f qcow2 c.qcow2 10M", *RAW, "create -q -f qcow2 -o compat=0.10 old.qcow2 1M")
    for words in (["--add", "a.qcow2", "b0"], ["--add", "-g", "4k", "a.qcow2", "b1"],
                  ["--add", "--disable", "a.qcow2", "b2"], ["--add", "c.qcow2", "c0"]):
        p.same("bitmap", *words)
    p.same("info", "a.qcow2")
    for side in (p.ours, p.theirs):
        run(["qemu-io", "-c", "write 1M 100k", "a.qcow2"], side, check=True)
    for words in (["--disable", "a.qcow2", "b0"], ["--enable", "a.qcow2", "b2"],
                  ["--merge", "b1", "a.qcow2", "b0"], ["--merge", "b1", "--merge", "b0", "a.qcow2", "b2"],
                  ["--merge", "b0", "-b", "a.qcow2", "-F", "qcow2", "c.qcow2", "c0"],
                  ["--clear", "a.qcow2", "b1"], ["--remove", "a.qcow2", "b1"],
                  ["--add", "--merge", "b0", "-f", "qcow2", "a.qcow2", "b3"]):
        p.same("bitmap", *words)
    p.same("info", "--output=json", "a.qcow2")
    p.same("info", "c.qcow2")
    p.same("measure", "-O", "qcow2", "a.qcow2")
    p.same("convert", "--bitmaps", "-O", "qcow2", "a.qcow2", "copy.qcow2")
    p.same("info", "copy.qcow2")
    p.check("a.qcow2", "c.qcow2", "copy.qcow2")
    for words in (["--add", "a.qcow2", "b0"], ["--add", "-g", "5k", "a.qcow2", "x"],
                  ["--add", "-g", "1", "a.qcow2", "x"], ["--merge", "nope", "a.qcow2", "b0"],
                  ["--remove", "a.qcow2", "nope"], ["-F", "qcow2", "--add", "a.qcow2", "x"],
                  ["-g", "4k", "--remove", "a.qcow2", "b0"], ["--add", "-g", "foo", "a.qcow2", "x"]):
        p.same("bitmap", *words, stderr="same")
    p.same("bitmap", "--add", "-f", "raw", "a.raw", "x")
    # An old image cannot have them: that is known before anything is lost.
    p.prepare("create -q -f qcow2 -o compat=0.10 there.qcow2 10M", "io there.qcow2 write -P 5 0 1M")
    p.same("convert", "-n", "--bitmaps", "-O", "qcow2", "a.qcow2", "there.qcow2")
    p.ferry("convert", "--bitmaps", "-O", "qcow2", "-o", "compat=0.10", "a.qcow2", "there.qcow2", status=1)
    run(["qemu-io", "-c", "read -P 5 0 1M", "there.qcow2"], p.ours, check=True)
    p.check("there.qcow2")
    # qemu-img makes an image then that it cannot open any more.
    p.ferry("create", "-q", "-f", "qcow2", "empty.qcow2", "0")
    p.ferry("bitmap", "--add", "empty.qcow2", "b", status=1)
    p.ferry("resize", "-q", "empty.qcow2", "1M")
    p.ferry("bitmap", "--add", "empty.qcow2", "b")
    p.ferry("resize", "-q", "--shrink", "empty.qcow2", "0", status=1)
    run([REFERENCE, "info", "empty.qcow2"], p.ours, check=True)
    p.same("bitmap", "--add", "old.qcow2", "x")


@case
def bench(p, long):
    p.prepare(*RAW, *BASE)
    for words in (["-c", "10", "a.qcow2"], ["-c", "10", "-w", "-f", "raw", "a.raw"],
                  ["-c", "1000", "-d", "4", "-o", "64k", "-S", "8k", "-w", "--flush-interval=4", "-f", "raw",
                   "a.raw"],
                  ["-d", "2", "-c", "10", "-w", "--flush-interval=4", "--no-drain", "-f", "raw", "a.raw"],
                  ["-c", "3", "-i", "io_uring", "-w", "--pattern=7", "-f", "raw", "a.raw"],
                  ["-q", "-c", "3", "-t", "none", "-f", "raw", "a.raw"], ["-c", "0", "-f", "raw", "a.raw"],
                  ["-c", "10", "-s", "512", "-S", "0", "-U", "-f", "raw", "a.raw"], ["-c", "3", "null-co://"],
                  ["-c", "100", "-w", "a.qcow2"]):
        p.same("bench", *words)
    p.check("a.raw", "a.qcow2")
    for words in (["--flush-interval=4"], ["-c", "foo"], ["-d", "foo"], ["-S", "foo"], ["-o", "foo"],
                  ["-c", "10", "-o", "100G"], ["-i", "foo"], ["-t", "foo"], ["--pattern=foo"],
                  ["--pattern=256"], ["-w", "--flush-interval=foo"], ["-w", "-d", "8", "--flush-interval=4"],
                  ["-c", "3", "-o", "9M", "-S", "1M", "-s", "2M"]):
        p.same("bench", *words, "-f", "raw", "a.raw", stderr="same")


# -- convert --------------------------------------------------------------------------------------

TARGETS = {
    "raw": ["-O", "raw"],
    "qcow2": ["-O", "qcow2"],
    "v2": ["-O", "qcow2", "-o", "compat=0.10"],
    "compressed": ["-c", "-O", "qcow2"],
    "zstd": ["-c", "-O", "qcow2", "-o", "compression_type=zstd"],
    "small": ["-O", "qcow2", "-o", "cluster_size=512"],
    "large": ["-c", "-O", "qcow2", "-o", "cluster_size=2M"],
    "extended": ["-O", "qcow2", "-o", "extended_l2=on,cluster_size=64k"],
    "prealloc": ["-O", "qcow2", "-o", "preallocation=metadata"],
    "data": ["-O", "qcow2", "-o", "data_file=data.raw,data_file_raw=on"],
    "wide": ["-O", "qcow2", "-o", "refcount_bits=1,cluster_size=4k"],
}


def make_source(p, seed):
    """A raw image with data, holes, repeated bytes and odd ends, in both folders."""
    rng = random.Random(seed)
    for path in (p.theirs / "source.raw",):
        with open(path, "wb") as file:
            file.truncate(6 * 2**20 + 512 * rng.randrange(200))
            for _ in range(40):
                file.seek(rng.randrange(0, 6 * 2**20 - 200000))
                size = rng.choice((1, 511, 4096, 65536, 131072, 5000))
                file.write(rng.choice((rng.randbytes(size), bytes(size), b"abc" * (size // 3))))
    run(["cp", "--sparse=always", p.theirs / "source.raw", p.ours], p.ours, check=True)


@case
def convert(p, long):
    """Every pair of formats, through ferry-img both ways, and with the options of the copy."""
    names = list(TARGETS)
    pairs = itertools.product(names, names) if long else [(n, names[(i + 1) % len(names)])
                                                          for i, n in enumerate(names)]
    for number, (first, second) in enumerate(pairs):
        p.__init__(p.program, p.ours.parent)
        make_source(p, number)
        # Its data file is not the one of two.img.
        target = [word.replace("data.raw", "data1.raw") for word in TARGETS[first]]
        p.ferry("convert", "-f", "raw", *target, "source.raw", "one.img")
        extra = [[], ["-W"], ["-m", "1"], ["-m", "16", "-W"], ["-t", "none", "-T", "none"],
                 ["-S", "0"], ["-S", "64k"], ["-p"]][number % 8]
        if (p.ours / "data1.raw").exists() != (first == "data"):
            raise Fault(f"{first}: data1.raw is there, or missing")
        p.ferry("convert", *extra, *TARGETS[second], "one.img", "two.img")
        run([REFERENCE, "convert", "-f", "raw", "-O", "raw", "source.raw", "one.img"], p.theirs, check=True)
        shutil.copy(p.theirs / "one.img", p.theirs / "two.img")
        p.check("one.img", "two.img")


@case
def convert_options(p, long):
    p.prepare(*RAW, *OVERLAY, "snapshot -c s a.qcow2", "io a.qcow2 write -P 77 0 1M",
              "truncate -s 10M there.raw", "io there.raw write -P 99 0 10M", "truncate -s 1 odd.raw",
              "create -q -f qcow2 there.qcow2 12M", "io there.qcow2 write -P 99 0 10M")
    for i, words in enumerate((["a.qcow2"], ["a.qcow2", "a.raw"], ["-U", "b.qcow2"], ["-C", "a.qcow2"],
                               ["-l", "1", "a.qcow2"], ["-l", "snapshot.name=s", "a.qcow2"],
                               ["-l", "snapshot.id=1,snapshot.name=s", "a.qcow2"],
                               ["-O", "qcow2", "-B", "a.qcow2", "-F", "qcow2", "b.qcow2"],
                               ["-O", "qcow2", "-o", "backing_file=a.qcow2,backing_fmt=qcow2", "b.qcow2"],
                               ["-c", "-O", "qcow2", "-B", "a.qcow2", "-F", "qcow2", "b.qcow2"],
                               ["-O", "qcow2", "-o", "size=20M", "a.raw"],
                               ["-O", "qcow2", "-o", "size=512", "a.raw"], ["-o", "size=512", "a.raw"],
                               ["-r", "1G", "a.raw"], ["--salvage", "a.raw"], ["-f", "raw", "a.qcow2"],
                               ["-O", "qcow2", "odd.raw"], ["-p", "-W", "-m", "3", "b.qcow2"],
                               ["--image-opts", "driver=qcow2,file.filename=b.qcow2"])):
        p.same("convert", *words, f"{i}.out")
        p.check(f"{i}.out")
    p.same("info", "7.out")
    # A name that is another one's id.
    p.prepare("create -q -f qcow2 twins.qcow2 1M", "io twins.qcow2 write -P 1 0 64k", "snapshot -c 2 twins.qcow2",
              "io twins.qcow2 write -P 2 0 64k", "snapshot -c other twins.qcow2")
    for i, which in enumerate(("2", "snapshot.name=2", "snapshot.id=2", "other", "snapshot.name=2,snapshot.id=1")):
        p.same("convert", "-l", which, "twins.qcow2", f"twin{i}.raw")
        p.check(f"twin{i}.raw")
    for words in (["-f", "raw", "a.raw"], ["-f", "raw", "-r", "1G", "-W", "a.raw", "there.raw", "a.raw"]):
        p.same("convert", "-C", *words, "offloaded.raw")
        p.check("offloaded.raw")
    p.same("convert", "-n", "a.qcow2", "there.raw")
    p.same("convert", "-n", "-O", "qcow2", "b.qcow2", "there.qcow2")
    p.check("there.raw", "there.qcow2")
    p.same("convert", "-n", "--target-image-opts", "a.raw", "driver=qcow2,file.filename=there.qcow2")
    p.check("there.qcow2")
    p.same("create", "-f", "qcow2", "fresh.qcow2", "10M")
    p.same("convert", "-n", "--target-is-zero", "-O", "qcow2", "a.raw", "fresh.qcow2")
    p.check("fresh.qcow2")
    for words in (["nope", "x"], ["-O", "foo", "a.raw", "x"], ["-O", "qcow2", "-o", "foo=1", "a.raw", "x"],
                  ["-n", "-o", "size=1", "a.raw", "x"], ["-c", "a.raw", "x"],
                  ["-c", "-O", "qcow2", "-o", "preallocation=metadata", "a.raw", "x"],
                  ["-m", "17", "a.raw", "x"], ["-m", "0", "a.raw", "x"], ["-S", "foo", "a.raw", "x"],
                  ["-S", "17", "a.raw", "x"], ["-t", "foo", "a.raw", "x"], ["-T", "foo", "a.raw", "x"],
                  ["--target-image-opts", "a.raw", "driver=raw,file.filename=x"],
                  ["--target-is-zero", "a.raw", "x"], ["-n", "--target-is-zero", "a.raw", "nope"],
                  ["-n", "a.raw", "odd.raw"], ["-C", "-c", "-O", "qcow2", "a.raw", "x"],
                  ["-C", "-S", "4k", "a.raw", "x"], ["-B", "a.qcow2", "-O", "raw", "b.qcow2", "x"],
                  ["-B", "a.qcow2", "-O", "qcow2", "b.qcow2", "x"], ["-F", "qcow2", "-O", "qcow2", "b.qcow2", "x"],
                  ["-B", "a.qcow2", "-F", "qcow2", "-O", "qcow2", "a.raw", "b.qcow2", "x"],
                  ["-l", "nope", "a.qcow2", "x"], ["-l", "1", "a.qcow2", "a.qcow2", "x"],
                  ["-l", "snapshot.name=no,snapshot.id=1", "a.qcow2", "x"],
                  ["-l", "snapshot.id=s", "a.qcow2", "x"], ["-l", "snapshot.name=1", "a.qcow2", "x"],
                  ["--bitmaps", "-O", "qcow2", "a.qcow2", "a.qcow2", "x"],
                  ["--bitmaps", "-O", "raw", "a.qcow2", "x"], ["--skip-broken-bitmaps", "a.raw", "x"],
                  ["-r", "foo", "a.raw", "x"], ["--salvage", "-C", "a.raw", "x"], ["a.raw", "nonexist/x"]):
        p.same("convert", *words, stderr="same")
        for side in (p.ours, p.theirs):
            (side / "x").unlink(missing_ok=True)
    p.same("convert", "-o", "size=foo", "a.raw", "x")
    p.same("convert", "-O", "qcow2", "a.qcow2", "a.qcow2")
    p.same("convert", "-f", "foo", "a.raw", "x")


INTO = ["create -q -f raw s.raw 1M", "io s.raw write -P 7 0 64k; write -P 8 600k 5k",
        "create -q -f raw t.raw 2M", "io t.raw write -P 9 0 2M",
        "create -q -f qcow2 t.qcow2 2M", "io t.qcow2 write -P 9 0 2M",
        "create -q -f qcow2 -b t.qcow2 -F qcow2 o.qcow2", "create -q -f qcow2 -o compat=0.10 v2.qcow2 2M",
        "io v2.qcow2 write -P 9 0 2M", "create -q -f qcow2 -o preallocation=full p.qcow2 8M",
        "create -q -f qcow2 -o data_file=d.raw,data_file_raw=on d.qcow2 2M", "io d.qcow2 write -P 9 0 2M"]


def allocated(path):
    """What `check` counts: clusters."""
    out = run([REFERENCE, "check", "--output=json", path], path.parent, check=True)[1]
    return json.loads(out)["allocated-clusters"]


@case
def convert_into(p, long):
    """A target that was there: what lies behind the source's end stays, data and preallocation."""
    for options in ([], ["-S", "0"], ["-C"], ["-W"], ["-m", "1"], ["-S", "64k"]):
        p.__init__(p.program, p.ours.parent)
        p.prepare(*INTO)
        p.same("convert", "-n", *options, "-f", "raw", "-O", "raw", "s.raw", "t.raw")
        p.check("t.raw")
        for name in ("t.qcow2", "o.qcow2", "v2.qcow2", "p.qcow2", "d.qcow2"):
            p.same("convert", "-n", *options, "-f", "raw", "-O", "qcow2", "s.raw", name)
            p.check(name)
        for name in ("t.qcow2", "p.qcow2"):
            counts = [allocated(side / name) for side in (p.ours, p.theirs)]
            if counts[0] != counts[1]:
                raise Fault(f"{options} {name}: {counts[0]} clusters are allocated, not {counts[1]}")
        if (p.ours / "d.raw").read_bytes() != (p.theirs / "d.raw").read_bytes():
            raise Fault(f"{options}: other bytes in the data file")


@case
def convert_to_device(p, long):
    """A block device is longer than the source, also if the target is not said to be there."""
    p.prepare(*INTO)
    for fmt in ("raw", "qcow2"):
        for side, program in ((p.ours, p.program), (p.theirs, REFERENCE)):
            status, device, _ = run(["losetup", "--show", "-f", side / "t.raw"], side)
            if status:
                raise Skip("not root, or no loop devices")
            try:
                run([program, "convert", "-f", "raw", "-O", fmt, "s.raw", device.strip()], side, check=True)
            finally:
                run(["losetup", "-d", device.strip()], side)
        if fmt == "raw":
            p.check("t.raw")
        else:
            p.compare("s.raw", 'json:{"driver":"qcow2","file":{"driver":"file","filename":"t.raw"}}')


@case
def quiet(p, long):
    """-q prints errors only, also with -p."""
    for words in (["convert", "a.raw", "o.raw"], ["compare", "-f", "raw", "-F", "raw", "a.raw", "a.raw"],
                  ["rebase", "-b", "", "b.qcow2"], ["commit", "b.qcow2"],
                  ["amend", "-o", "lazy_refcounts=on", "a.qcow2"]):
        p.__init__(p.program, p.ours.parent)
        p.prepare(*OVERLAY, *RAW)
        if p.same(words[0], "-q", "-p", *words[1:])[1]:
            raise Fault(f"{words[0]} -q -p is not quiet")


# -- what qemu-img has no counterpart for ------------------------------------------------------------

@case
def interrupted(p, long):
    """A signal: status 1, and no half-made target that looks like a whole one."""
    make_source(p, 1)
    for number, new in ((signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGTERM, False)):
        target = p.ours / "target.raw"
        words = ["convert", "-p", "-r", "1M", "-S", "0"]
        if not new:
            run([REFERENCE, "create", "-q", "target.raw", "8M"], p.ours, check=True)
            words.append("-n")
        with subprocess.Popen([p.program, *words, "source.raw", "target.raw"], cwd=p.ours,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.read(8)
            process.send_signal(signal.SIGUSR1)
            progress = process.stderr.readline()
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        if process.returncode != 1 or b"incomplete" not in err or not progress.endswith(b"/100%)\n"):
            raise Fault(f"{number.name}: status {process.returncode}, {err!r}")
        if new and target.exists():
            raise Fault(f"{number.name}: the target is still there")
    (p.ours / "link.raw").symlink_to("real.raw")
    for words, left in ((["link.raw"], ["link.raw", "real.raw"]), (["file:plain.raw"], ["plain.raw"]),
                        (["-O", "qcow2", "-o", "data_file=data.raw", "top.qcow2"], ["top.qcow2", "data.raw"])):
        with subprocess.Popen([p.program, "convert", "-p", "-r", "1M", "-S", "0", "source.raw", *words],
                              cwd=p.ours, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.read(8)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        for name in left:
            if (p.ours / name).exists() or process.returncode != 1 or b"has been removed" not in err:
                raise Fault(f"{words}: status {process.returncode}, {name} is still there: {err!r}")
    if not (p.ours / "link.raw").is_symlink():
        raise Fault("the link was removed")


@case
def salvage(p, long):
    """Sectors that cannot be read become zeroes, and are told."""
    make_source(p, 2)
    with open(p.ours / "source.raw", "r+b") as file:
        file.write(b"no hole " * 2**17)
    rules = ('json:{"driver":"raw","file":{"driver":"blkdebug","image":{"driver":"file",'
             '"filename":"source.raw"},"inject-error":[{"event":"read_aio","errno":5,"sector":%d}]}}')
    sector = 100
    status, _, err = run([p.program, "convert", "-O", "raw", rules % sector, "o.raw"], p.ours)
    if status != 1 or "error while reading" not in err or (p.ours / "o.raw").exists():
        raise Fault(f"without --salvage: status {status}: {err}")
    _, _, err = p.ferry("convert", "--salvage", "-O", "raw", rules % sector, "o.raw")
    if "error while reading offset 51200" not in err:
        raise Fault(f"says {err}")
    data, got = (p.ours / "source.raw").read_bytes(), (p.ours / "o.raw").read_bytes()
    wanted = data[:51200] + bytes(512) + data[51712:]
    if got != wanted:
        raise Fault("other bytes than the lost sector changed")


def shell(p, text):
    done = subprocess.run(["bash", "-c", text, str(p.program)], cwd=p.ours, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=SECONDS, check=False,
                          env={**os.environ, "LC_ALL": "C"})
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@case
def output(p, long):
    """A full disk is told as that where something was to be printed; who closes stdout wants nothing, and no
    image gets its number."""
    p.prepare(*RAW, *BASE)
    size = (p.ours / "a.raw").stat().st_size
    for words in ("create -f raw z 1M", "info a.qcow2", "map --output=json a.raw", "convert -p a.raw b.raw",
                  "resize -f raw a.raw 10M", "check a.qcow2"):
        status, _, err = shell(p, f"$0 {words} >/dev/full")
        if status != 1 or err != "ferry-img: Could not write to standard output: No space left on device\n":
            raise Fault(f"{words} on a full disk: status {status}: {err}")
        for closed in (">&-", ">&- <&-", ">&- <&- 2>&-"):
            status, _, err = shell(p, f"$0 {words} {closed}")
            if status or err:
                raise Fault(f"{words} {closed}: status {status}: {err}")
    status, out, err = shell(p, "$0 create -q -f raw z 1M >/dev/full")
    if status or out or err:
        raise Fault(f"-q on a full disk: status {status}: {err}")
    if (p.ours / "a.raw").stat().st_size != size:
        raise Fault("an image has other bytes")
    p.check("a.raw", "a.qcow2")


@case
def reader_is_gone(p, long):
    """Who closes a pipe has seen enough: no error."""
    p.prepare("create -q -f qcow2 many.qcow2 64M")
    run(["qemu-io", *(word for i in range(500) for word in ("-c", f"write {i * 128}k 64k")), "many.qcow2"],
        p.ours, check=True)
    for command in ("map --output=json many.qcow2", "info many.qcow2"):
        status, _, err = shell(p, f"set -o pipefail; $0 {command} | (exec <&-; sleep 0.1)")
        if status or err:
            raise Fault(f"{command}: status {status}: {err}")


@case
def data_files(p, long):
    """A new image's data file is none that the command reads, and has a plain name in the image."""
    p.prepare(*RAW)
    before = (p.ours / "a.raw").read_bytes()
    (p.ours / "sub").mkdir()
    shutil.copy(p.ours / "a.raw", p.ours / "sub")
    p.ferry("create", "-q", "-f", "qcow2", "-b", "a.raw", "-F", "raw", "base.qcow2")
    for words in (["create", "-f", "qcow2", "-b", "a.raw", "-F", "raw", "-o", "data_file=file:a.raw", "sub/o.qcow2"],
                  ["convert", "-U", "-O", "qcow2", "-o", "data_file=file:a.raw", "sub/a.raw", "sub/o.qcow2"]):
        p.ferry(*words, status=1)
        if (p.ours / "sub/a.raw").read_bytes() != before or (p.ours / "sub/o.qcow2").exists():
            raise Fault(f"{' '.join(words)} changes a file")
    for words in (["convert", "-U", "-f", "raw", "-O", "qcow2", "-o", "data_file=a.raw", "a.raw", "o.qcow2"],
                  ["create", "-f", "qcow2", "-b", "a.raw", "-F", "raw", "-o", "data_file=a.raw", "o.qcow2"],
                  ["create", "-f", "qcow2", "-o", "data_file=./o.qcow2", "o.qcow2", "1M"],
                  ["create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "-o", "data_file=a.raw", "o.qcow2"],
                  ["create", "-f", "qcow2", "-o", "data_file=nbd://host/x", "o.qcow2", "1M"]):
        p.ferry(*words, status=1)
        if (p.ours / "a.raw").read_bytes() != before or (p.ours / "o.qcow2").exists():
            raise Fault(f"{' '.join(words)} changes a file")
    # Zeroes that may be holes are holes in it.
    for options in ("data_file=z.raw", "data_file=z.raw,data_file_raw=on"):
        run([REFERENCE, "create", "-q", "-f", "qcow2", "-o", options, "z.qcow2", "16M"], p.ours, check=True)
        run(["qemu-io", "-c", "write -P 5 0 16M", "z.qcow2"], p.ours, check=True)
        ferry_io = p.program.with_name("ferry-io")
        run([ferry_io, "-d", "unmap", "-c", "write -z -u 1M 14M", "z.qcow2"], p.ours, check=True)
        run(["qemu-io", "-c", "read -P 5 0 1M", "-c", "read -P 0 1M 14M", "-c", "read -P 5 15M 1M", "z.qcow2"],
            p.ours, check=True)
        blocks = (p.ours / "z.raw").stat().st_blocks
        if blocks * 512 > 4 << 20:
            raise Fault(f"{options}: zeroes take {blocks} sectors")
        run([REFERENCE, "check", "z.qcow2"], p.ours, check=True)
    p.ferry("convert", "-f", "raw", "-O", "qcow2", "-o", "data_file=file:data.raw", "a.raw", "o.qcow2")
    p.ferry("info", "o.qcow2")
    p.compare("a.raw", "o.qcow2")


@case
def file_size_limit(p, long):
    """RLIMIT_FSIZE is an error of the write, not the end of the process."""
    p.prepare(*RAW)
    for words in ("create -f raw x 3M", "convert a.raw x", "resize -f raw a.raw 30M",
                  "create -f qcow2 -o preallocation=full x 3M",
                  "create -f qcow2 -o data_file=d,preallocation=full x 3M"):
        status, _, err = shell(p, f"ulimit -f 1024; $0 {words}")
        if status != 1 or "File too large" not in err:
            raise Fault(f"{words}: status {status}: {err}")
        if (p.ours / "x").exists() or (p.ours / "d").exists():
            raise Fault(f"{words} leaves a file")


def expect_advice(p, words, *texts, prefix=()):
    """What cannot be opened: the file is named, and what helps is something that this program has."""
    status, _, err = run([*prefix, p.program, *words], p.ours)
    if status != 1 or "VM" in err or "share-rw" in err or "#block" in err:
        raise Fault(f"{' '.join(map(str, words))}: status {status}: {err}")
    for text in texts:
        if text not in err:
            raise Fault(f"{' '.join(map(str, words))} does not say {text!r}: {err}")
    return err


@case
def advice(p, long):
    """Images that others use, nodes that can only be read."""
    p.prepare(*BASE, *RAW)
    with subprocess.Popen(["qemu-io", "a.qcow2"], cwd=p.ours, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as holder:
        holder.stdin.write(b"read 0 512\n")
        holder.stdin.flush()
        holder.stdout.readline()
        for words in (["info", "a.qcow2"], ["resize", "a.qcow2", "20M"], ["check", "a.qcow2"],
                      ["create", "-f", "qcow2", "a.qcow2", "1M"], ["convert", "-n", "a.raw", "a.qcow2"]):
            err = expect_advice(p, words, 'Failed to get ', '"write" lock',
                                "\nIs another process using the image [a.qcow2]?\n")
            if ("\n-U opens it" in err) != (words[0] in ("info", "check")):
                raise Fault(f"{' '.join(words)} advises {err}")
        holder.stdin.close()
    options = "driver=qcow2,file.filename=a.qcow2,read-only=on"
    for words in (["resize", "--image-opts", options, "20M"], ["snapshot", "-c", "x", "--image-opts", options],
                  ["amend", "-o", "compat=0.10", "--image-opts", options],
                  ["convert", "-n", "--target-image-opts", "a.raw", options]):
        expect_advice(p, words, "Block node is read-only: 'a.qcow2'", "leave out read-only=on")


@case
def advice_permissions(p, long):
    """A file that may not be written."""
    p.prepare(*BASE)
    prefix = ()
    if os.geteuid() == 0:
        prefix = ("setpriv", "--reuid=65534", "--clear-groups")
        if not shutil.which("setpriv"):
            raise Skip("setpriv is not installed (util-linux)")
        p.ours.parent.parent.chmod(0o711)
        if not all(folder.stat().st_mode & 1 for folder in p.ours.parents):
            raise Skip("the build's folder is not for others")
    (p.ours / "a.qcow2").chmod(0o444)
    for words in (["resize", "a.qcow2", "20M"], ["snapshot", "-c", "x", "a.qcow2"],
                  ["amend", "-o", "compat=0.10", "a.qcow2"]):
        expect_advice(p, words, "Could not open 'a.qcow2': Permission denied",
                      "it can be read; its permissions", prefix=prefix)


@case
def help_texts(p, long):
    """Every command has a help, and it names every option once."""
    _, out, _ = p.ferry("--help")
    commands = re.findall(r"^  (\w+) ", out.split("Commands:")[1], re.M)
    if len(commands) != 15:
        raise Fault(f"{len(commands)} commands: {commands}")
    for command in commands:
        _, text, _ = p.ferry(command, "--help")
        letters = re.findall(r"^  -(\w)", text, re.M)
        if len(letters) != len(set(letters)) or "usage: ferry-img " + command not in text:
            raise Fault(f"{command}: {text}")
    _, out, _ = p.ferry("--version")
    if not out.startswith("ferry-img version "):
        raise Fault(out)
    for words in (["-T", "x"], ["info", "--object", "foo,id=x", "a"]):
        p.ferry(*words, status=1)


@case
def objects(p, long):
    """--object throttle-group, used by a throttle node."""
    p.prepare(*RAW)
    start = time.monotonic()
    p.ferry("bench", "--object", "throttle-group,id=g,x-iops-total=100", "--image-opts", "-c", "60",
            "driver=throttle,throttle-group=g,file.driver=raw,file.file.filename=a.raw")
    if not 0.3 < time.monotonic() - start < 20:
        raise Fault(f"60 requests at 100 a second took {time.monotonic() - start:.2f} s")


@case
def hostile(p, long):
    """Damaged headers and tables: an error or an answer, never a signal or a hang."""
    p.prepare(*OVERLAY, "snapshot -c s a.qcow2", "bitmap --add a.qcow2 bit",
              "io a.qcow2 write -c -P 3 5M 64k")
    original = (p.ours / "a.qcow2").read_bytes()
    rng = random.Random(5)
    spots = list(range(112)) + [rng.randrange(0x70, 0x400) for _ in range(20)]
    spots += [0x10000 * n + rng.randrange(64) for n in range(len(original) // 0x10000)]
    commands = (["info"], ["check"], ["map", "--output=json"], ["snapshot", "-l"], ["measure", "-O", "qcow2"],
                ["compare", "a.qcow2"], ["convert", "-n", "-O", "raw", "--target-is-zero"])
    run([REFERENCE, "create", "-q", "-f", "raw", "sink.raw", "1G"], p.ours, check=True)
    for number in range(2000 if long else 60):
        data = bytearray(original)
        for _ in range(rng.choice((1, 1, 2, 5))):
            at = rng.choice(spots)
            data[at] = rng.choice((0, 0xFF, 0x80, 1, data[at] ^ 1 << rng.randrange(8)))
        if rng.random() < 0.1:
            del data[rng.randrange(len(data)):]
        (p.ours / "bad.qcow2").write_bytes(data)
        command = commands[number % len(commands)]
        words = [*command, "-f", "qcow2", "bad.qcow2"]
        if command[0] == "compare":
            words = ["compare", "-f", "qcow2", "-F", "qcow2", "bad.qcow2", "a.qcow2"]
        elif command[0] == "convert":
            words.append("sink.raw")
        elif command[0] == "measure":
            words = ["measure", "-O", "qcow2", "-f", "qcow2", "bad.qcow2"]
        status, _, err = run([p.program, *words], p.ours, timeout=60)
        if status not in (0, 1, 2, 3, 63) and (command[0], status) != ("compare", 4):
            shutil.copy(p.ours / "bad.qcow2", p.ours.parent / f"bad-{number}.qcow2")
            raise Fault(f"image {number}, {' '.join(words)}: status {status}: {err[-300:]}")


@case
def short_backing(p, long):
    """convert -B: behind the end of the source's backing file are zeroes, whatever the target's has there."""
    for size in ("512", "64k"):
        p.prepare("create -q -f raw base.raw 64k", "io base.raw write -P 1 0 64k", "create -q -f raw base2.raw 1M",
                  "io base2.raw write -P 1 0 64k; write -P 2 64k 960k",
                  f"create -q -f qcow2 -o cluster_size={size} -b base.raw -F raw o.qcow2 1M",
                  "io o.qcow2 write -P 3 512k 64k")
        for words in ([], ["-c"], ["-S", "0"], ["-o", "cluster_size=4k"]):
            p.ferry("convert", *words, "-O", "qcow2", "-B", "base2.raw", "-F", "raw", "o.qcow2", "out.qcow2")
            p.compare("o.qcow2", "out.qcow2")
            if (p.ours / "out.qcow2").stat().st_size > 4 << 20:
                raise Fault("the target is too large")


@case
def full_with_bitmap(p, long):
    """An image with a bitmap, in storage without room for a cluster: it can be written to, and keeps the
    bitmap unless that has new bits."""
    p.prepare("create -q -f qcow2 a.qcow2 1M", "io a.qcow2 write -P 1 0 1M", "bitmap --add a.qcow2 one",
              "create -q -f qcow2 -b a.qcow2 -F qcow2 top.qcow2",
              "io top.qcow2 write -P 7 64k 64k")
    image, ferry_io = p.ours / "a.qcow2", p.program.with_name("ferry-io")
    os.truncate(image, (image.stat().st_size + 511) // 512 * 512)
    options = f"driver=qcow2,file.driver=raw,file.size={image.stat().st_size},file.file.filename=a.qcow2"

    def bitmaps():
        data = json.loads(run([REFERENCE, "info", "--output=json", "a.qcow2"], p.ours, check=True)[1])
        return [(b["name"], b["flags"]) for b in data["format-specific"]["data"]["bitmaps"]]

    before = bitmaps()
    run([ferry_io, "--image-opts", "-c", "read -P 1 0 64k", options], p.ours, check=True)
    if bitmaps() != before:
        raise Fault(f"after a read: {bitmaps()}")
    _, _, err = p.ferry("bitmap", "--add", "--image-opts", options, "three", status=1)
    if "No space left on device" not in err or bitmaps() != before:
        raise Fault(f"after --add: {bitmaps()}: {err}")
    p.ferry("rebase", "-u", "-b", "json:" + json.dumps({
        "driver": "qcow2", "file": {"driver": "raw", "size": image.stat().st_size,
                                    "file": {"driver": "file", "filename": "a.qcow2"}}}),
            "-F", "qcow2", "top.qcow2")
    run([p.program, "commit", "-d", "top.qcow2"], p.ours)
    run(["qemu-io", "-r", "-c", "read -P 1 0 64k", "-c", "read -P 7 64k 64k", "a.qcow2"], p.ours, check=True)
    if bitmaps() != [(name, ["in-use"] + flags) for name, flags in before]:
        raise Fault(f"after new bits that have no room: {bitmaps()}")
    run([REFERENCE, "check", "a.qcow2"], p.ours, check=True)


@case
def compressed_zeroes(p, long):
    """-S 0 goes with -c."""
    p.prepare(*BASE)
    for words in (["-S", "0"], ["-S", "4k"], []):
        p.same("convert", "-c", *words, "-O", "qcow2", "a.qcow2", "out.qcow2")
        p.same("map", "--output=json", "out.qcow2")
        p.check("out.qcow2")


@case
def preallocated(p, long):
    """What only the host's file knows to be zero."""
    p.prepare("create -q -f qcow2 -o preallocation=metadata a.qcow2 20M", "io a.qcow2 write -P 1 1M 1M; write -P 2 5M 4k",
              "create -q -f qcow2 n.qcow2 4M",
              "io n.qcow2 write -P 1 0 64k; write -P 2 1M 64k",
              "create -q -f qcow2 -o preallocation=metadata,data_file=d.raw d.qcow2 4M",
              "create -q -f qcow2 -b a.qcow2 -F qcow2 top.qcow2", "io top.qcow2 write -P 3 2M 64k")
    p.same("create", "-q", "-f", "qcow2", "-o", "preallocation=falloc", "f.qcow2", "4M")
    for name in ("a.qcow2", "f.qcow2", "n.qcow2", "d.qcow2", "top.qcow2"):
        p.same("map", "--output=json", name)
        p.same("map", name)
        p.same("measure", "-O", "qcow2", name)
    if "required size: 1441792\n" not in p.same("measure", "-O", "qcow2", "a.qcow2")[1]:
        raise Fault("the holes count")
    for words in ([], ["-c"]):
        p.same("convert", *words, "-O", "qcow2", "a.qcow2", "out.qcow2")
        p.check("out.qcow2")
        p.same("compare", "-s", "a.qcow2", "out.qcow2")
        p.same("compare", "-s", "a.qcow2", "a.qcow2")
    run([p.program, "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", "ours.qcow2", "4M"], p.ours,
        check=True)
    _, out, _ = p.ferry("map", "--output=json", "ours.qcow2")
    if [e["zero"] for e in json.loads(out)] != [True]:
        raise Fault(f"map of our own: {out}")


RAW_OVER = "driver=raw,file.driver=qcow2,file.file.filename="


@case
def raw_over_qcow2(p, long):
    """What a raw node does not know by itself, it asks its file for."""
    p.prepare(*OVERLAY, "create -q -f qcow2 -o extended_l2=on e.qcow2 4M", "io e.qcow2 write 0 64k")
    for name in ("a.qcow2", "b.qcow2", "e.qcow2"):
        p.same("map", "--image-opts", RAW_OVER + name)
        p.same("info", "--image-opts", RAW_OVER + name)
        p.same("info", "--output=json", "--image-opts", RAW_OVER + name)
    p.same("map", "--output=json", "--image-opts", RAW_OVER + "a.qcow2")
    _, out, _ = p.ferry("map", "--output=json", "--image-opts", RAW_OVER + "b.qcow2")
    if any(e["present"] for e in json.loads(out) if e["start"] >= 3 << 20):
        raise Fault(f"there is what nobody has: {out}")
    if p.ferry("measure", "-O", "qcow2", "--image-opts", RAW_OVER + "b.qcow2")[1].split("\n")[0] != \
            p.ferry("measure", "-O", "qcow2", "b.qcow2")[1].split("\n")[0]:
        raise Fault("another size than without the raw node")
    p.ferry("convert", "-O", "qcow2", "--image-opts", RAW_OVER + "b.qcow2", "out.qcow2")
    p.compare("b.qcow2", "out.qcow2")
    # A raw node that has what it shows from elsewhere, in the middle of a chain.
    backing = {"driver": "raw", "file": {"driver": "qcow2", "file": {"driver": "file", "filename": "b.qcow2"}}}
    p.ferry("create", "-q", "-u", "-f", "qcow2", "-b", "json:" + json.dumps(backing), "-F", "raw", "t.qcow2", "10M")
    p.ferry("convert", "-O", "qcow2", "t.qcow2", "out.qcow2")
    p.compare("b.qcow2", "out.qcow2")
    for words in (["-l"], ["-c", "one"], ["-l"], ["-a", "one"], ["-a", "nope"], ["-d", "nope"], ["-d", "one"], ["-l"]):
        p.same("snapshot", *words, "--image-opts", RAW_OVER + "a.qcow2")
    p.check("a.qcow2")


@case
def small_things(p, long):
    p.prepare(*BASE, "create -q -f qcow2 -o cluster_size=4k s.qcow2 1M", "create -q -f raw b,c.raw 1M")
    for size in ("1.1M", "1.", "1.M", "1.b", "1.0001k", "1.5k", "0.0004k", "0.0005k", ".5M", "0.5", "1.5b"):
        p.same("measure", "--size", size)
        p.same("create", "-q", "-f", "raw", "x.raw", size)
        if size[0] != "." and not size.endswith(".5b") and size != "0.5":
            p.check("x.raw")
    for name in ("a.qcow2", "s.qcow2"):
        p.same("bitmap", "--add", "-g", "0", name, "bit")
        p.same("bitmap", "--add", name, "bit2")
        p.same("info", name)
    for words in (["-f", "qcow2", "-o", "extent_size_hint=1M"], ["-f", "raw", "-o", "extent_size_hint=1M"],
                  ["-f", "qcow2", "-o", "extent_size_hint=0,nocow=on"], ["-q", "-f", "qcow2", "-o", "extent_size_hint=foo"],
                  ["-f", "raw", "-o", "extent_size_hint=5G"], ["-f", "qcow2", "-b", "b,c.raw", "-F", "raw"],
                  ["-f", "qcow2", "-o", "extent_size_hint=5G"]):
        p.same("create", *words, "x,y", "1M")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    parser.add_argument("--prefix", default="image/ferry-img")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    program = (options.build / "ferry-img").resolve()
    if not shutil.which(REFERENCE) or not shutil.which("qemu-io"):
        print("qemu-img and qemu-io are missing: apt install qemu-utils")
        return report.SKIP_STATUS
    results = report.Results()
    with tempfile.TemporaryDirectory(prefix="ferry-img-", dir=options.build.resolve()) as folder:
        for name, function in CASES.items():
            if options.names and name not in options.names:
                continue
            fault, skipped, start = None, None, time.monotonic()
            try:
                function(Pair(program, pathlib.Path(folder) / name), options.long)
            except Skip as reason:
                skipped = str(reason)
            except Fault as found:
                fault = str(found)
            except subprocess.TimeoutExpired as late:
                fault = f"{late.cmd} takes longer than {late.timeout} s"
            title = f"{options.prefix}/{name.replace('_', '-')}"
            if skipped:
                results.skip(title, skipped)
            else:
                results.case(title, fault and fault.replace("\n", " | "),
                             f"{time.monotonic() - start:.1f} s")
            shutil.rmtree(pathlib.Path(folder) / name, ignore_errors=True)
    return results.exit_status()


if __name__ == "__main__":
    report.run(main)
