# SPDX-License-Identifier: MIT
"""What the tests of ferry as a process share: the program and its folder, expectations, places in
guest memory."""
import os
import pathlib
import subprocess

from kit.qtest import TIMEOUT, Ferry, Refused

QUIET = ["-nodefaults", "-display", "none"]
ECAM = 0xB0000000
BARS, RAM, MSI = 0xE0000000, 0x100000, 0x180000  # places in guest memory
PM_BASE = 0x600
SLEEP = 0x2000  # SLP_EN; type 0 is S5 here


class Fault(Exception):
    """What a test found."""


def expect(what, got, wanted):
    if got != wanted:
        raise Fault(f"{what}: {got!r} instead of {wanted!r}")


def expect_that(condition, what):
    if not condition:
        raise Fault(what)


def expect_refusal(call, *parts, error_class=None):
    """The call is refused in words that have these parts."""
    try:
        result = call()
    except Refused as refused:
        for part in parts:
            expect_that(part in str(refused), f"'{refused}' lacks '{part}'")
        if error_class:
            expect("class", refused.error_class, error_class)
        return
    raise Fault(f"not refused, but {result!r}")


class Bench:
    """What the tests share: the program, its environment, a folder of their own."""

    def __init__(self, program, env, folder):
        self.program, self.env, self.folder = program, env, pathlib.Path(folder)

    def ferry(self, *options, **keywords):
        return Ferry(self.program, *options, env=self.env, **keywords)

    def run(self, *options, stdin="", check=True):
        """A ferry that ends by itself: status and output."""
        done = subprocess.run([str(self.program), *map(str, options)], input=stdin.encode(),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT,
                              env={**os.environ, **self.env}, check=False)
        output = done.stdout.decode(errors="replace")
        if check:
            expect(f"status of {' '.join(map(str, options))} ({output[-1500:]})", done.returncode, 0)
        return done.returncode, output

    def start(self, *options, **keywords):
        return subprocess.Popen([str(self.program), *map(str, options)],
                                env={**os.environ, **self.env}, **keywords)

    def image(self, name, sectors=2048):
        path = self.folder / name
        path.write_bytes(b"".join(bytes([n & 0xFF, n >> 8]) * 256 for n in range(sectors)))
        return path


def machines(test):
    test.machines = True
    return test
