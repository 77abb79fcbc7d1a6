#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The whole program under stress on this host's KVM: the hand-written guest keeps 32 requests in
flight, or writes garbage to everything it can reach, while ferry is reset, stopped and ended.

    stress.py --build build                    under a minute
    stress.py --build build --rounds 20        longer; --seed for another course

races     system_reset, stop and cont by QMP at random moments, then quit or a signal. Every block
          must hold a generation that the guest's ledger allows: no write is lost or torn.
resets    the guest resets the machine itself, by every means it has, with requests in flight.
garbage   the guest writes to ports, registers, PCI configuration and rings; QMP must go on.
full      the image's file system is full: werror=stop, cont retries, and nothing is lost.
silent    the guest floods a serial port whose client never reads.

However it goes, ferry must end within seconds, with status 0 and nothing from a sanitizer.
"""
import argparse
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from kit import qtest, report  # noqa: E402
from kvm import native_guest  # noqa: E402

DISK_BYTES = 2 << 20
BOOT_SECONDS = 60
ANSWER_SECONDS = 3  # a loaded machine's second
END_SECONDS = 10
IOTHREAD = ("-object", "iothread,id=io0")
DOORBELLS = {
    "ioeventfd": ("", ()),
    "iothread": (",iothread=io0", IOTHREAD),
    "exits": (",ioeventfd=off", ()),
    "exits-iothread": (",ioeventfd=off,iothread=io0", IOTHREAD),
}
SIGNALS = {"sigterm": signal.SIGTERM, "sigint": signal.SIGINT, "sighup": signal.SIGHUP}


class Fault(Exception):
    """What ferry or its guest did wrong."""


class Course:
    """One way through the options; successive rounds meet all of them."""

    def __init__(self, rng, number):
        self.machine = ("q35", "pc")[number % 2]
        self.irqchip = ("on", "split", "off")[number % 3]
        self.doorbell = list(DOORBELLS)[rng.randrange(4)]
        self.aio = ("threads", "io_uring")[rng.randrange(2)]
        self.cpus = rng.randrange(1, 3)

    @property
    def name(self):
        return f"{self.machine}/{self.irqchip}/{self.doorbell}/{self.aio}/smp{self.cpus}"


class Guest:
    """A ferry that runs the guest, its QMP client, and what it prints."""

    def __init__(self, build, elf, folder, course, append, image, *, device="", serial=None,
                 extra=(), debug_exit=True):
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=folder))
        self._console = self.folder / "console"
        self._errors = open(self.folder / "errors", "w+", encoding="utf-8", errors="replace")
        doorbell, objects = DOORBELLS[course.doorbell]
        listener = qtest.Listener(self.folder / "qmp")
        exit_device = ("-device", "isa-debug-exit,iobase=0xf4,iosize=4") if debug_exit else ()
        self.process = subprocess.Popen(
            [build / "ferry", "-M", course.machine, "-smp", str(course.cpus), "-m", "64",
             "-accel", f"kvm,force=on,kernel-irqchip={course.irqchip}", "-nodefaults",
             "-display", "none", "-serial", serial or f"file:{self._console}", *exit_device,
             "-kernel", elf, "-append", append, *objects, "-blockdev",
             f"driver=file,node-name=d,filename={image},aio={course.aio}",
             "-device", f"virtio-blk-pci,drive=d{doorbell}{device}",
             "-qmp", f"unix:{listener.path}", *extra],
            stdin=subprocess.DEVNULL, stdout=self._errors, stderr=self._errors)
        try:
            self.qmp = qtest.Qmp(listener.accept(self.process))
        except qtest.Dead as dead:
            self.process.kill()
            self.process.wait()
            raise Fault(f"{dead}: {self.errors()[-500:]}") from dead
        finally:
            listener.close()

    def errors(self):
        self._errors.seek(0)
        return self._errors.read()

    def console(self):
        try:
            return self._console.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def wait_for(self, text, count=1):
        """Until the console has text so many times."""
        end = time.monotonic() + BOOT_SECONDS
        while (console := self.console()).count(text) < count:
            if "FAIL" in console or self.process.poll() is not None:
                raise Fault(f"the guest ended: {console[-200:]!r}")
            if time.monotonic() > end:
                raise Fault(f"the guest does not come to {text!r}: {console[-100:]!r}")
            time.sleep(0.01)

    def status(self):
        """The run state, in time."""
        began = time.monotonic()
        state = self.qmp.command("query-status")["status"]
        if time.monotonic() - began > ANSWER_SECONDS:
            raise Fault(f"query-status took {time.monotonic() - began:.1f} s")
        return state

    def restart(self):
        """Out of any state: reset, and run."""
        self.qmp.command("system_reset")
        end = time.monotonic() + ANSWER_SECONDS
        while self.status() not in ("prelaunch", "running") and time.monotonic() < end:
            time.sleep(0.01)
        self.qmp.command("cont")

    def end(self, how):
        """By "quit" or the name of a signal, or None: by itself."""
        if how == "quit":
            self.qmp.command("quit")
        elif how:
            self.process.send_signal(SIGNALS[how])
        self.check_end(0 if how else native_guest.SUCCESS, END_SECONDS if how else BOOT_SECONDS)

    def check_end(self, wanted, seconds):
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Fault(f"ferry does not end: {self.console()[-100:]!r}") from None
        if "FAIL" in self.console():
            raise Fault(self.console()[-200:])
        if status != wanted:
            raise Fault(f"exit status {status}")

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        self.process.kill()
        self.process.wait()
        self.qmp.close()
        errors = self.errors()
        self._errors.close()
        # A sanitizer's report says more than what came of it.
        if "Sanitizer" in errors or "runtime error" in errors:
            report.show_tail(errors, 60)
            raise Fault("a sanitizer has something to say") from error
        if kind:
            report.show_tail(errors)


class Stress:
    def __init__(self, options, elf, folder, rng):
        self.build, self.elf, self.folder, self.rng = options.build, elf, folder, rng

    def image(self, folder=None, size=DISK_BYTES):
        handle, path = tempfile.mkstemp(suffix=".img", dir=folder or self.folder)
        os.truncate(handle, size)
        os.close(handle)
        return path

    def guest(self, course, append, image=None, **more):
        return Guest(self.build, self.elf, self.folder, course, append, image or self.image(),
                     **more)

    def races(self, course):
        rng = self.rng
        with self.guest(course, "mode=2 depth=32") as guest:
            guest.wait_for("CHECKED")
            for _ in range(8):
                time.sleep(rng.random() * 0.1)
                what = rng.choice(["reset", "reset-twice", "stop", "stop-often", "stop-reset"])
                if what.startswith("reset"):
                    for _ in range(2 if what == "reset-twice" else 1):
                        guest.qmp.command("system_reset")
                elif what == "stop-reset":
                    guest.qmp.command("stop")
                    guest.restart()
                else:
                    for _ in range(10 if what == "stop-often" else 1):
                        guest.qmp.command("stop")
                        time.sleep(rng.random() * 0.005)
                        guest.qmp.command("cont")
                if guest.status() != "running":
                    raise Fault(f"{guest.status()} after {what}")
            # All that was written until now is there.
            guest.wait_for("CHECKED", self._reset(guest))
            time.sleep(rng.random() * 0.05)
            if rng.randrange(3) == 0:
                guest.qmp.command("stop")
            guest.end(rng.choice(["quit", *SIGNALS]))

    @staticmethod
    def _reset(guest):
        """How often the console says CHECKED when the guest has started once more."""
        guest.qmp.command("stop")
        seen = guest.console().count("CHECKED")
        guest.restart()
        return seen + 1

    def resets(self, course):
        with self.guest(course, "mode=2 depth=32 resets=100 boots=9") as guest:
            guest.end(None)
            asked = guest.console().count("RESET")
            done = guest.qmp.events_until_end().count("RESET")
            if done != asked:
                raise Fault(f"{done} resets, {asked} were asked for")

    def garbage(self, course, seconds):
        seed = self.rng.randrange(1, 1 << 30)
        more = ("-no-shutdown", "-device", "pci-testdev")
        with self.guest(course, f"mode=3 seed={seed}", extra=more, debug_exit=False) as guest:
            end = time.monotonic() + seconds
            length, since = 0, time.monotonic()
            while time.monotonic() < end:
                time.sleep(0.05)
                state, now = guest.status(), time.monotonic()
                if state != "running" or now - since > 1:
                    guest.restart()  # it has switched itself off, or hangs
                    since = now
                elif len(guest.console()) != length:
                    length, since = len(guest.console()), now
            if "BOOT" not in guest.console():
                raise Fault("the guest does not start")
            guest.end("quit")

    def full(self, course):
        small = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        if not mount(small, "size=1m"):
            return "needs the right to mount a tmpfs"
        try:
            image = self.image(small)
            with self.guest(course, "mode=2 depth=32", image, device=",werror=stop") as guest:
                guest.wait_for("CHECKED")
                guest.qmp.event("STOP")
                guest.qmp.command("cont")
                guest.qmp.event("STOP")
                if guest.status() != "io-error":
                    raise Fault(f"{guest.status()} with a full disk")
                mount(small, "remount,size=8m")
                dots = guest.console().count(".")
                guest.qmp.command("cont")
                guest.wait_for(".", dots + 3)
                guest.wait_for("CHECKED", self._reset(guest))
                guest.end("quit")
        finally:
            subprocess.run(["umount", "-l", small], check=False)
        return None

    def silent(self, course):
        path = self.folder / "silent"
        with self.guest(course, "mode=4", serial=f"unix:{path},server=on,wait=off") as guest:
            client = qtest.connect(path)
            time.sleep(1)
            if guest.status() != "running":
                raise Fault(guest.status())
            guest.restart()
            if not client.recv(1):
                raise Fault("the client has been cut off")
            guest.end(self.rng.choice(["quit", "sigterm"]))
            client.close()


def mount(folder, options):
    return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder],
                          stderr=subprocess.DEVNULL, check=False).returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    parser.add_argument("--prefix", default="kvm/stress", help="of the cases' names")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="part of the cases' names")
    options = parser.parse_args()
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("there is no /dev/kvm that this user may open")
        return report.SKIP_STATUS
    if not (options.build / "ferry").exists():
        print(f"{options.build} has no ferry")
        return report.SKIP_STATUS
    results = report.Results()

    def case(kind, number, fn, *args):
        rng = random.Random(f"{options.seed} {kind} {number}")
        course = Course(rng, number)
        name = f"{options.prefix}/{kind}/{number}"
        if options.only not in name:
            return
        began = time.monotonic()
        fault = skipped = None
        try:
            skipped = getattr(Stress(options, elf, folder, rng), fn)(course, *args)
        except (Fault, qtest.Dead, qtest.Refused) as error:
            fault = f"{course.name}: {error}"
        if skipped:
            results.skip(name, skipped)
        else:
            results.case(name, fault, f"{course.name}, {time.monotonic() - began:.1f} s")

    with tempfile.TemporaryDirectory(prefix="ferry-stress-") as folder:
        folder = pathlib.Path(folder)
        elf = native_guest.build(folder)
        for turn in range(options.rounds):
            for number in range(6 * turn, 6 * turn + 6):
                case("races", number, "races")
            for number in range(2 * turn, 2 * turn + 2):
                case("resets", number, "resets")
                case("garbage", number, "garbage", 3)
            case("full", turn, "full")
            if turn == 0:
                case("silent", 0, "silent")
    return results.exit_status()


if __name__ == "__main__":
    sys.exit(main())
