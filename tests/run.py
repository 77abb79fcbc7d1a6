#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Builds ferry in all its ways and runs the tests that this machine can run (./dev test).

    run.py [--long] [--only PATTERN]

PATTERN is a part of a test's name, or a shell pattern ("kvm/*"). The names are those that this
program prints: build/<kind>, <kind>:<meson test>, and those of the scripts in tests/scripts.txt.
The last line is "N passed, N failed, N skipped"; the exit status is 0 if none failed.
"""
import argparse
import dataclasses
import fnmatch
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOGS = ROOT / "build/test-logs"
SKIP_STATUS = 77
CASE = re.compile(r"^CASE (\S+) (PASS|FAIL|SKIP) ?(.*)$")
SKIPPED = re.compile(r"^\[  SKIPPED \] (\w+)$")  # a line of cmocka

SANITIZER_OPTIONS = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=0:strict_string_checks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}

# What these do, they do on the main loop: ThreadSanitizer sees little in them, and takes long.
ONE_LOOP = frozenset(f"block/qcow2/{name}" for name in (
    "amend", "check", "create", "fault_event", "format_crash", "hostile", "mutation", "rebuild_crash",
    "resize"))

# Tests that take their length from the environment, and how much longer meson lets them run.
LONG_OPTIONS = {"FERRY_TEST_LONG": "5"}
LONG_TIMEOUT_FACTOR = 10


@dataclasses.dataclass
class Build:
    kind: str
    folder: str
    what: str
    meson_tests: bool
    skip_suites: tuple = ()
    skip_short: frozenset = frozenset()


BUILDS = [
    Build("asan", "build/asan", "gcc, ASan and UBSan", True),
    Build("tsan", "build/tsan", "clang, TSan", True, skip_suites=("lint",),
          skip_short=ONE_LOOP),
    Build("clang", "build/clang", "clang, optimised, warnings are errors", False),
    Build("release", "build", "gcc, optimised", False),
]


@dataclasses.dataclass
class Script:
    name: str
    run: str
    seconds: int
    command: list


class Report:
    def __init__(self):
        self.counts = {"PASS": 0, "FAIL": 0, "SKIP": 0}
        self.notable = []

    def add(self, name, verdict, remark=""):
        self.counts[verdict] += 1
        line = f"{verdict} {name}" + (f": {remark}" if remark else "")
        print(line, flush=True)
        if verdict != "PASS":
            self.notable.append(line)

    def finish(self):
        if self.notable:
            print("\nFailed or skipped:")
            print("\n".join(sorted(self.notable)))
        print("{PASS} passed, {FAIL} failed, {SKIP} skipped".format(**self.counts))
        return 1 if self.counts["FAIL"] or not self.counts["PASS"] else 0


def matches(name, pattern):
    return not pattern or pattern in name or fnmatch.fnmatch(name, pattern)


def show_tail(text, lines=40):
    for line in text.splitlines()[-lines:]:
        print("    | " + line)


# -- builds -----------------------------------------------------------------------------------


def build(kind, report):
    """Builds; the log is shown if that fails."""
    began = time.monotonic()
    done = subprocess.run(["./dev", "build", kind.kind], cwd=ROOT, text=True, errors="replace",
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False)
    if done.returncode == 0:
        report.add(f"build/{kind.kind}", "PASS", f"{kind.what}, {time.monotonic() - began:.0f} s")
        return True
    show_tail(done.stdout)
    report.add(f"build/{kind.kind}", "FAIL", kind.what)
    return False


# -- meson tests ------------------------------------------------------------------------------


def meson_test_names(kind, pattern):
    """Names of the build's tests that the pattern selects."""
    listing = subprocess.run(["meson", "introspect", "--tests", kind.folder], cwd=ROOT,
                             stdout=subprocess.PIPE, check=True).stdout
    names = []
    for test in json.loads(listing):
        suites = [suite.split(":")[-1] for suite in test["suite"]]
        if not set(suites) & set(kind.skip_suites) and \
                matches(f"{kind.kind}:{test['name']}", pattern):
            names.append(test["name"])
    return names


def has_chosen_tests(kind, pattern):
    """Whether it is worth building for the pattern; yes if that cannot be told before."""
    if not kind.meson_tests:
        return False
    if not (ROOT / kind.folder / "build.ninja").exists():
        return True
    refresh = subprocess.run(["ninja", "-C", kind.folder, "build.ninja"], cwd=ROOT,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return refresh.returncode != 0 or bool(meson_test_names(kind, pattern))


def fixed_addresses():
    """The sanitizers of gcc 12 and clang 14 fail at random where the kernel randomises addresses
    by more than 28 bits: a prefix that turns this off, where it is needed and allowed."""
    try:
        bits = int(pathlib.Path("/proc/sys/vm/mmap_rnd_bits").read_text())
    except (OSError, ValueError):
        bits = 32
    prefix = ["setarch", "-R"]
    if bits <= 28 or not shutil.which("setarch") or \
            subprocess.run([*prefix, "true"], stderr=subprocess.DEVNULL, check=False).returncode:
        return []
    return prefix


def run_meson_tests(kind, pattern, is_long, report):
    names = meson_test_names(kind, pattern)
    if not is_long:
        for name in sorted(kind.skip_short.intersection(names)):
            report.add(f"{kind.kind}:{name}", "SKIP", "one loop, no threads: with --long")
        names = [name for name in names if name not in kind.skip_short]
    if not names:
        return
    log = ROOT / kind.folder / "meson-logs/testlog.json"
    log.unlink(missing_ok=True)
    length = LONG_OPTIONS if is_long else {}
    subprocess.run([*fixed_addresses(), "meson", "test", "-C", kind.folder, "--no-rebuild",
                    "--num-processes", str(max(2, os.cpu_count() or 2)),
                    "--timeout-multiplier", str(LONG_TIMEOUT_FACTOR if is_long else 1), *names],
                   cwd=ROOT, env={**SANITIZER_OPTIONS, **length, **os.environ},
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, check=False)
    seen = set()
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
        test = json.loads(line)
        seen.add(test["name"].split(" / ")[-1])
        name = f"{kind.kind}:{test['name'].split(' / ')[-1]}"
        output = test.get("stdout", "") + test.get("stderr", "")
        if test["result"] in ("OK", "EXPECTEDFAIL"):
            report.add(name, "PASS", f"{test['duration']:.1f} s")
            for case, reason in skipped_cases(output):
                report.add(f"{name}/{case}", "SKIP", reason)
        elif test["result"] == "SKIP":
            report.add(name, "SKIP", last_line(output))
        else:
            show_tail(output)
            report.add(name, "FAIL", test["result"].lower())
    for name in sorted(set(names) - seen):
        report.add(f"{kind.kind}:{name}", "FAIL", "meson did not run it")


def skipped_cases(output):
    """What of a program was skipped though it passed, and why if it says so in the line before."""
    before, cases = "", {}
    for line in output.splitlines():
        case = SKIPPED.match(line)
        if case:
            said = "" if before.startswith("[") else before.removeprefix("skipped: ").strip()
            # cmocka lists them once more at the end.
            cases.setdefault(case[1], said or "it does not say why")
        before = line
    return cases.items()


def last_line(output):
    return (output.strip().splitlines() or ["it does not say why"])[-1].strip()


# -- scripts ----------------------------------------------------------------------------------


def scripts():
    for line in (ROOT / "tests/scripts.txt").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            name, run, seconds, *command = line.split()
            yield Script(name, run, int(seconds), command)


def run_script(script, report):
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / (script.name.replace("/", "-") + ".log")
    command = [word.replace("BUILD", "build") for word in script.command]
    began = time.monotonic()
    cases = {"PASS": 0, "FAIL": 0, "SKIP": 0}
    output = []
    with open(log, "w", encoding="utf-8") as sink, \
            subprocess.Popen(["timeout", "-k", "10", str(script.seconds), *command], cwd=ROOT,
                             text=True, errors="replace", stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        for line in process.stdout:
            sink.write(line)
            sink.flush()
            output.append(line)
            case = CASE.match(line)
            if case:
                cases[case[2]] += 1
                report.add(*case.groups())
            elif line.startswith("    | "):
                print(line, end="")
        status = process.wait()
    seconds = f"{time.monotonic() - began:.0f} s"
    count = sum(cases.values())
    if status == SKIP_STATUS and not count:
        report.add(script.name, "SKIP", last_line("".join(output)))
    elif status == 124:
        show_tail("".join(output))
        report.add(script.name, "FAIL", f"not done after {script.seconds} s")
    elif status == (1 if cases["FAIL"] else 0):
        # Cases have been counted one by one.
        if count:
            print(f"     {script.name}: {count} cases, {seconds}")
        else:
            report.add(script.name, "PASS", seconds)
    else:
        show_tail("".join(output))
        report.add(script.name, "FAIL", f"exit status {status}")


def needs(script, kind):
    """Whether a script runs what this build makes."""
    return kind.kind == "release" or f"BUILD/{kind.kind}" in script.command


# -- main -------------------------------------------------------------------------------------


def take_signals():
    """A shell's background job ignores these, and so would every test that is about them."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler),
                            (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


def main():
    take_signals()
    parser = argparse.ArgumentParser(prog="./dev test")
    parser.add_argument("--long", action="store_true", help="the long table too")
    parser.add_argument("--only", metavar="PATTERN", help="tests whose name has or matches it")
    options = parser.parse_args()
    report = Report()

    chosen = [script for script in scripts() if matches(script.name, options.only)
              and (options.long or script.run == "short")]
    for kind in BUILDS:
        if not (matches(f"build/{kind.kind}", options.only) or has_chosen_tests(kind, options.only)
                or any(needs(script, kind) for script in chosen)):
            continue
        if build(kind, report):
            if kind.meson_tests:
                run_meson_tests(kind, options.only, options.long, report)
        elif kind.kind == "release":
            for script in chosen:
                report.add(script.name, "SKIP", "there is no release build")
            chosen = []
    for script in chosen:
        run_script(script, report)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
