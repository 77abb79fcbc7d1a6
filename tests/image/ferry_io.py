#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""ferry-io beside Debian's qemu-io: the same commands to both, on copies of the same image. What they
print, their exit status and the image afterwards must be the same; times and rates may differ, and
how a command describes its use.

    ferry_io.py --build BUILD
"""
import argparse
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from kit import report  # noqa: E402

SECONDS = 30

# Name, image, options of the program, commands. "nul" is null-co, "none" no image at all.
SAME = [
    ("read", "raw", [], ["read 0 512", "read 1 513", "read 0 0", "r 4k 64k", "read 1M 4"]),
    ("read-numbers", "raw", [], ["read 0x200 0x200", "read 1.5k 1k", "read 010 010", "read 1e3 4",
                                 "read 0 8E", "read 0 4T", "read abc 4", "read 4 abc", "read 0 4x",
                                 "read -- -5 512", "read 0 2147483137"]),
    ("read-ends", "raw", [], ["read 1M 512", "read 1023k 1k", "read 1023k 2k", "read 2M 0"]),
    ("read-pattern", "raw", [], ["write -P 7 0 64k", "read -P 7 0 64k", "read -P 8 0 64k",
                                 "write -P 9 4k 4k", "read -P 9 -s 4k -l 4k 0 64k",
                                 "read -P 7 -s 4k -l 4k 0 64k", "read -P 7 -s 8k 0 64k",
                                 "read -P 0 -s 600 0 512", "read -P 0 -s 100 -l 500 0 512",
                                 "read -P x 0 4", "read -P 256 0 4", "read -P 0xff 0 4",
                                 "read -P 1 -l x 0 4", "read -s x -P 1 0 4"]),
    ("read-dump", "raw", [], ["write -s {pattern} 0 512", "read -v 0 40", "read -v 7 17",
                              "read -vq 0 16", "read -v 0xf0 300", "readv -v 3 16 16",
                              "write -s bytes 4k 256", "read -v 4k 256"]),
    ("read-terse", "raw", [], ["read -C 0 512", "read -Cq 0 512", "readv -C 0 4k 4k",
                               "write -C 0 512", "discard -C 0 64k", "writev -C 0 512"]),
    ("readv", "raw", [], ["readv 0 512 512 1k", "readv -P 0 0 4k", "readv -P 1 0 4k",
                          "readv 0 1.5k 0.5k", "readv 0 4 x", "readv 0 2G", "readv 0 2147483136 1",
                          "readv 1M 4"]),
    ("write", "raw", [], ["write 0 512", "w 3 5", "write -f 4k 4k", "write -q 8k 4k",
                          "write 1023k 2k", "write 2M 512", "read -P 0xcd 0 512", "write 0 0"]),
    ("write-zeroes", "raw", [], ["write -P 5 0 256k", "write -z 0 64k", "write -zu 64k 64k",
                                 "write -zn 128k 64k", "write -zf 192k 4k", "read -P 0 0 192k",
                                 "write -n 0 4", "write -u 0 4", "write -z -P 1 0 4",
                                 "write -z 0 3G", "write -zn 0 3G"]),
    ("write-file", "raw", [], ["write -s {pattern} 0 4k", "read -v 0 32", "write -s nofile 0 4",
                               "write -s {pattern} -P 3 0 4"]),
    ("write-compressed", "raw", [], ["write -c 0 64k", "write -c 0 4", "write -c 3 512"]),
    ("write-vm-state", "raw", [], ["read -b 0 512", "write -b 0 512", "write -bz 0 512",
                                   "write -fb 0 512", "write -fc 0 512"]),
    ("writev", "raw", [], ["writev -P 3 0 512 512", "readv -P 3 0 1k", "writev 0 abc",
                           "writev -P x 0 4", "writev -f 0 4k"]),
    ("aio", "raw", [], ["aio_write -P 7 0 64k", "aio_flush", "aio_read -P 7 0 64k", "aio_flush",
                        "aio_read -P 8 0 64k", "aio_flush", "aio_read -v 0 16", "aio_flush",
                        "aio_write -z 0 4k", "aio_flush", "aio_read 2M 4k", "aio_flush",
                        "aio_write 2M 4k", "aio_flush", "aio_write -u 0 4k",
                        "aio_write -z 0 4k 5k", "aio_write -z -P 1 0 4k", "aio_read -i 0 512",
                        "aio_write -i 0 512", "aio_write -P x 0 4", "aio_read 0 x"]),
    ("discard", "raw", [], ["discard 0 64k", "discard -q 0 64k", "d 0 6400k", "discard 0 3G",
                            "discard x 1", "discard 1 x", "discard 0 0"]),
    ("flush", "raw", [], ["write 0 4k", "flush", "f"]),
    ("length", "raw", [], ["length", "l"]),
    ("truncate", "raw", [], ["truncate 2M", "length", "truncate 512k", "length",
                             "truncate -m falloc 1M", "length", "truncate -m foo 1M", "truncate x",
                             "truncate -m off 3M", "t 1M", "length"]),
    ("info", "raw", [], ["info"]),
    ("map", "raw", [], ["map"]),
    ("alloc", "raw", [], ["alloc 0", "alloc 0 4k", "alloc 1 1", "alloc 0 4M", "alloc 4M 4M",
                          "alloc 1T", "alloc x", "alloc 0 x", "a 0 4k"]),
    ("null", "nul", ["-f", "raw"], ["discard 0 2147483136", "read 0 4k",
                                    "write 0 1M", "length"]),
    ("read-only", "raw", ["-r"], ["read 0 512", "write 0 512", "writev 0 512", "aio_write 0 512",
                                  "discard 0 512", "write 0", "flush", "length"]),
    ("counts", "raw", [], ["read", "read 0", "readv 0", "write", "discard 1", "truncate",
                           "length 1", "info a", "map a", "alloc", "alloc 1 2 3", "break a",
                           "resume", "wait_break", "remove_break a b", "sleep", "sigraise",
                           "help a b", "flush 1", "aio_flush 1", "close 1", "abort 1"]),
    ("no-file", "none", [], ["read 0 512", "close", "length", "info", "map", "aio_flush", "flush",
                             "reopen", "sleep 1", "quit", "length"]),
    ("names", "raw", [], ["foo", "rv 0 512", "help foo", "", "  length", "length  "]),
    ("quit", "raw", [], ["length", "q", "length"]),
    ("sleep", "raw", [], ["sleep 10", "sleep abc"]),
    ("sigraise", "raw", [], ["length", "sigraise 15"]),
    ("sigraise-numbers", "raw", [], ["sigraise abc", "sigraise 0", "sigraise 100", "sigraise 66",
                                     "sigraise 5000000000", "length"]),
    ("abort", "raw", [], ["abort"]),
    ("open", "none", [], ["open -o driver=raw,file.driver=file,file.filename={image}", "length",
                          "write -P 3 0 4k", "read -P 3 0 4k", "close", "length"]),
    ("open-read-only", "none", [], ["open -r -o driver=raw {image}", "write 0 512", "read 0 512",
                                    "open {image}"]),
    ("open-fails", "none", [], ["open nofile", "open", "open -t bad {image}", "open -d bad {image}"]),
    ("reopen", "raw", [], ["reopen", "reopen -r", "write 0 512", "reopen -w", "write 0 512",
                           "reopen -r -w", "reopen -c none", "read 0 4k", "reopen -c bad",
                           "reopen -o foo=on", "reopen -c writethrough", "write 0 4k"]),
    ("reopen-twice", "raw", [], ["reopen -r -o read-only=off", "write 0 512",
                                 "reopen -w -o read-only=on", "reopen -c none -o cache.direct=off",
                                 "reopen -c writeback -o cache.no-flush=on",
                                 "reopen -o cache.direct=on", "reopen -r",
                                 "reopen -o read-only=off", "write 0 512"]),
    ("break-without", "raw", [], ["break write_aio A", "resume A", "remove_break A"]),
    ("misalign", "raw", ["-m"], ["write -P 3 0 4k", "read -P 3 0 4k"]),
    ("cache-none", "raw", ["-n", "-m"], ["write -P 3 3 5k", "read -P 3 3 5k", "aio_read 1 7",
                                         "aio_flush"]),
    ("io-uring", "raw", ["-i", "io_uring"], ["write -P 3 0 64k", "read -P 3 0 64k"]),
    ("native", "raw", ["-n", "-k"], ["write -P 3 0 64k", "read -P 3 0 64k", "aio_read 1 7"]),
    ("native-buffered", "raw", ["-k"], ["read 0 512"]),
    ("image-opts", "opts", ["--image-opts"], ["length", "read 0 512"]),
    ("bad-option", "raw", ["-t", "bad"], ["length"]),
    ("bad-discard", "raw", ["-d", "bad"], ["length"]),
    ("qcow2-read", "qcow2", [], ["read -P 0 0 1M", "length", "info", "map", "alloc 0 1M"]),
    ("qcow2-write", "qcow2", [], ["write -P 1 64k 128k", "map", "alloc 0 1M", "alloc 64k 1",
                                  "read -P 1 64k 128k", "write -z 64k 64k", "read -P 0 64k 64k",
                                  "discard 128k 64k", "map", "read -P 0 128k 64k"]),
    ("qcow2-zeroes-nothing", "qcow2", [], ["write -zn 1M 4k", "write -zn 1100k 100", "write -zn 3200k 200k",
                                           "write -P 1 0 64k", "write -zn 0 4k", "write -zn 32k 64k",
                                           "read -P 1 0 64k", "write -P 2 5M 64k",
                                           "write -zn 5M 100k", "read -P 0 5M 128k"]),
    ("backed-zeroes-nothing", "backed", [], ["write -z 64k 64k", "write -zn 65k 4k", "write -zn 0 4k",
                                             "read -P 6 0 64k"]),
    ("qcow2-discard-end", "qcow2", ["-d", "unmap"],
     ["truncate 19000k", "write -P 1 18900k 100k", "map", "discard 18900k 100k", "map",
      "read -P 1 18900k 20k", "read -P 0 18944k 56k", "discard 0 19000k", "map"]),
    ("qcow2-extended", "extended", [], ["info", "write 64k 2k", "map"]),
    ("qcow2-compressed", "qcow2", [], ["write -c -P 1 1M 64k", "read -P 1 1M 64k",
                                       "write -c 2M 13k", "map"]),
    ("qcow2-truncate", "qcow2", [], ["truncate 20M", "length", "truncate 10485761", "truncate 5M",
                                     "length"]),
    ("copy-on-read", "backed", ["-C"], ["map", "read -P 6 0 64k", "map", "read -P 0 1M 64k",
                                        "write -P 1 64k 4k", "map"]),
    ("open-copy-on-read", "none", [], ["open -C {image}", "read 0 4k", "close",
                                       "open -C -r {image}"]),
    ("qcow2-backed", "backed", [], ["map", "read -P 6 0 64k", "alloc 0 1M", "write -P 2 64k 4k",
                                    "read -P 2 64k 4k", "map"]),
]

# Only to see how ferry-io differs on purpose: command, and a word that must be in what it prints.
OWN = [
    ("help", ["help"], "aio_flush"),
    ("help-one", ["help write"], "-z  zeroes"),
    ("usage", ["read -x 0 4"], "read [-bCqv]"),
    ("snapshot", ["open -s {image}"], "-s is not supported"),
    ("sigraise-none", ["sigraise 65"], "Could not raise signal 65"),
    ("wait-break-without", ["wait_break A"], "Operation not supported"),
]

TIMES = re.compile(r"ops; .*$", re.MULTILINE)
TERSE = re.compile(r"^(\d+,1),0:.*$", re.MULTILINE)
USAGE = re.compile(r"^\w+ \[.*\].* -- .*$", re.MULTILINE)


def normalise(text, program):
    text = text.replace(program, "PROGRAM")
    text = TIMES.sub("ops; TIME", text)
    text = TERSE.sub(r"\1,TIME", text)
    text = USAGE.sub("USAGE", text)
    return re.sub(r"^WARNING:.*\n( .*\n)*", "", text, flags=re.MULTILINE)


class Pair:
    """Images for one case: a folder for each program."""

    def __init__(self, folder, kind):
        self.folder = folder
        self.kind = kind
        folder.mkdir()
        image = folder / "image"
        if kind in ("qcow2", "backed", "extended"):
            extra = ["-o", "extended_l2=on"] if kind == "extended" else []
            if kind == "backed":
                base = folder / "base"
                with open(base, "wb") as f:
                    f.write(b"\6" * 65536)
                    f.truncate(1 << 20)
                extra = ["-b", "base", "-F", "raw"]
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *extra, "image", "10M"],
                           cwd=folder, check=True)
        else:
            with open(image, "wb") as f:
                f.truncate(1 << 20)
        (folder / "pattern").write_bytes(b"abcde")
        (folder / "bytes").write_bytes(bytes(range(256)))

    def operands(self, options):
        if self.kind == "none":
            return []
        if self.kind == "nul":
            return ["null-co://"]
        if self.kind == "opts":
            return ["driver=raw,file.driver=file,file.filename=image"]
        return [*([] if "-f" in options else ["-f", "qcow2" if self.kind != "raw" else "raw"]),
                "image"]


def run(program, folder, arguments, stdin=None):
    done = subprocess.run([program, *arguments], cwd=folder, input=stdin or "", text=True,
                          errors="replace", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=SECONDS, check=False)
    name = os.path.basename(program)
    return done.returncode, normalise(done.stdout, name), normalise(done.stderr, name)


def arguments_of(pair, options, commands):
    words = []
    for command in commands:
        words += ["-c", command.format(image="image", pattern="pattern")]
    return [*options, *words, *pair.operands(options)]


def differences(ours, theirs, names=("status", "stdout", "stderr")):
    for name, a, b in zip(names, ours, theirs):
        if a != b:
            report.show_tail(f"{name} of ferry-io:\n{a}\n{name} of qemu-io:\n{b}")
            return f"{name} differs"
    return None


def same_image(a, b):
    """What a guest would see must be the same."""
    done = subprocess.run(["qemu-img", "compare", "-q", a, b], check=False)
    return done.returncode == 0


def run_same(ferry, folder, case):
    name, kind, options, commands = case
    results = []
    images = []
    for program in (ferry, "qemu-io"):
        pair = Pair(folder / f"{name}-{os.path.basename(program)}", kind)
        results.append(run(program, pair.folder, arguments_of(pair, options, commands)))
        images.append(pair.folder / "image")
    fault = differences(*results)
    if not fault and not same_image(*images):
        fault = "the images differ"
    if not fault and kind in ("qcow2", "backed", "extended"):
        check = subprocess.run(["qemu-img", "check", "-q", images[0]], check=False)
        fault = f"qemu-img check says {check.returncode}" if check.returncode else None
    return fault


def run_shell(ferry, folder):
    """Commands from a pipe, one of them without a newline at the end."""
    text = "length\nread 0 512\n\nwrite -P 3 0 4k\nread -P 3 0 4k\nlength"
    results = []
    for program in (ferry, "qemu-io"):
        pair = Pair(folder / f"shell-{os.path.basename(program)}", "raw")
        results.append(run(program, pair.folder, ["-f", "raw", "image"], stdin=text))
    return differences(*results)


def read_until(fd, text, wanted):
    """What a terminal shows, until `wanted` is in it (None: to the end) or time is over."""
    deadline = time.monotonic() + SECONDS
    while not (wanted and re.search(wanted, text)):
        if not select.select([fd], [], [], max(0, deadline - time.monotonic()))[0]:
            break
        try:
            piece = os.read(fd, 4096)
        except OSError:
            break
        if not piece:
            break
        text += piece.decode(errors="replace")
    return text


def run_terminal(ferry, folder):
    """A line at a terminal; requests go on while the shell waits."""
    pair = Pair(folder / "terminal", "raw")
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(pair.folder)
        os.execv(ferry, [ferry, "-f", "raw", "image"])
    text = ""
    fault = None
    for wanted, line in ((r"ferry-io> ", "length\n"), (r"1 MiB[^>]*> ", "aio_read -P 0 0 4k\n"),
                         (r"read 4096/4096 bytes at offset 0\s+.* ops/sec\)", "quit\n")):
        text = read_until(fd, text, wanted)
        if not re.search(wanted, text):
            fault = f"'{wanted}' is not in {text!r}"
            os.kill(pid, signal.SIGKILL)
            break
        os.write(fd, line.encode())
    text = read_until(fd, text, None)
    _, status = os.waitpid(pid, 0)
    return fault or (f"status {status}: {text}" if status else None)


def run_break(ferry, folder):
    """Breakpoints hold a request until it is resumed."""
    commands = ["break write_aio A", "aio_write -P 4 0 64k", "wait_break A", "sleep 20", "resume A",
                "aio_flush", "read -P 4 0 64k", "break foo B", "resume B", "remove_break B",
                "break read_aio C", "remove_break C", "read 0 4k"]
    results = []
    for program in (ferry, "qemu-io"):
        pair = Pair(folder / f"break-{os.path.basename(program)}", "raw")
        image = "driver=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename=image"
        words = [word for command in commands for word in ("-c", command)]
        results.append(run(program, pair.folder, [*words, "--image-opts", image]))
    return differences(*results)


def run_times(ferry, folder):
    """Of requests that take more than a second; both programs at once."""
    commands = ["break read_aio A", "aio_read 0 4k", "wait_break A", "break read_aio B",
                "aio_read -C 4k 4k", "wait_break B", "sleep 1100", "resume A", "resume B",
                "aio_flush"]
    words = [word for command in commands for word in ("-c", command)]
    image = "driver=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename=image"
    runs = []
    for program in ("qemu-io", ferry):
        pair = Pair(folder / f"times-{os.path.basename(program)}", "raw")
        runs.append(subprocess.Popen([program, *words, "--image-opts", image], text=True,
                                     cwd=pair.folder, stdout=subprocess.PIPE))
    for process in runs:
        out, _ = process.communicate(timeout=SECONDS)
        if process.returncode or not re.search(r" ops; 0:00:0[1-9]\.\d\d \(", out) \
                or not re.search(r"^4096,1,0:00:0[1-9]\.\d\d,", out, re.MULTILINE):
            return f"status {process.returncode} of {process.args[0]}: {out!r}"
    return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--prefix", default="image/ferry-io")
    options = parser.parse_args()
    ferry = str((options.build / "ferry-io").resolve())
    if not shutil.which("qemu-io"):
        print("qemu-io is not installed")
        return report.SKIP_STATUS
    results = report.Results()

    def case(name, function, *arguments):
        if options.only not in name:
            return
        try:
            fault = function(ferry, *arguments)
        except subprocess.TimeoutExpired as expired:
            fault = f"not done after {SECONDS} s: {' '.join(expired.cmd)}"
        results.case(f"{options.prefix}/{name}", fault)

    with tempfile.TemporaryDirectory(prefix="ferry-io-", dir=options.build) as name:
        folder = pathlib.Path(name).resolve()
        for same in SAME:
            case(same[0], run_same, folder, same)
        for name, commands, wanted in OWN:
            def own(program, name=name, commands=commands, wanted=wanted):
                pair = Pair(folder / f"own-{name}", "raw")
                _, out, err = run(program, pair.folder, arguments_of(
                    pair, [], commands if "{" not in commands[0] else ["close", *commands]))
                text = out + err
                return None if wanted in text or "USAGE" in text else f"no '{wanted}' in {text!r}"
            case(name, own)
        case("shell", run_shell, folder)
        case("terminal", run_terminal, folder)
        case("break", run_break, folder)
        case("times", run_times, folder)
    return results.exit_status()


if __name__ == "__main__":
    report.run(main)
