#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""ferry as its users and their tools drive it: command line, QMP and the qtest protocol, with real
processes and sockets; and what it says to bad input.

    cli.py --build build [--prefix vmm/cli] [--only PART]
"""
import argparse
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from kit import pci, report  # noqa: E402
from kit.qtest import TIMEOUT, Dead, Listener, Qmp, Qtest, Refused, connect  # noqa: E402
from vmm import bad_input, disk, query  # noqa: E402
from vmm.bench import (BARS, ECAM, PM_BASE, QUIET, SLEEP, Bench, Fault, expect,  # noqa: E402
                       expect_refusal, expect_that, machines)

# -- buses and chips -----------------------------------------------------------------------------


@machines
def test_pci_config(bench, machine):
    with bench.ferry("-M", machine, "-device", "pci-testdev,addr=7") as ferry:
        q = ferry.qtest
        ports = pci.PortConfig(q)
        expect("host bridge", ports.readl(0, 0), 0x29C08086 if machine == "q35" else 0x12378086)
        expect("absent function", ports.readl(0x80, 0), 0xFFFFFFFF)
        function = pci.find(ports, 0x1B36, 0x0005)
        expect_that(function is not None, "there is no pci-testdev")
        expect("its place", function.devfn, 7 << 3)
        expect("its class", function.readl(8), 0x00FF0000)
        # Bytes and words within a register.
        expect("vendor", [function.readw(0), function.readb(1)], [0x1B36, 0x1B])
        expect("device", function.readw(2), 0x0005)
        before = function.readl(pci.INTERRUPT_LINE)
        function.writeb(pci.INTERRUPT_LINE, 0x5A)
        expect("interrupt line", function.readl(pci.INTERRUPT_LINE), before & ~0xFF | 0x5A)
        function.writel(0, 0)
        expect("ids are read-only", function.readl(0), 0x00051B36)
        # 0xcf8 takes double words only; without bit 31 it is no address.
        q.outl(0xCF8, 0x3800)
        expect("disabled", q.inl(0xCFC), 0xFFFFFFFF)
        expect("0xcf8", q.inl(0xCF8), 0x3800)
        if machine == "q35":
            ecam = pci.EcamConfig(q, ECAM)
            for offset in range(0, 256, 4):
                expect(f"ECAM offset {offset:#x}", ecam.readl(function.devfn, offset),
                       ports.readl(function.devfn, offset))
            ecam.writeb(function.devfn, pci.INTERRUPT_LINE, 0x77)
            expect("line by ECAM", function.readb(pci.INTERRUPT_LINE), 0x77)
            expect("absent by ECAM", ecam.readl(0x80, 0), 0xFFFFFFFF)
            ports.writel(0, 0x60, 0)  # PCIEXBAR off
            expect("no ECAM", q.readl(ECAM), 0xFFFFFFFF)


@machines
def test_bars(bench, machine):
    with bench.ferry("-M", machine, "-device", "pci-testdev,addr=7") as ferry:
        q = ferry.qtest
        function = pci.find(pci.PortConfig(q), 0x1B36, 0x0005)
        expect("BAR 0", function.bar_size(0), (4096, 0))
        size, flags = function.bar_size(1)
        expect_that(flags & 1 and size, f"BAR 1 is no I/O BAR: {size}, {flags}")
        expect("no BAR 2", function.bar_size(2)[0], 0)
        function.map_bars(BARS)
        first = q.readl(BARS)
        expect_that(first != 0xFFFFFFFF, "BAR 0 is not where it was put")
        function.writel(pci.BAR0, BARS + 0x10000)
        expect("moved", q.readl(BARS + 0x10000), first)
        expect("old place", q.readl(BARS), 0xFFFFFFFF)
        function.writew(pci.COMMAND, 0)
        expect("memory decode off", q.readl(BARS + 0x10000), 0xFFFFFFFF)
        function.writel(pci.BAR0 + 4, 0xD000)
        function.writew(pci.COMMAND, pci.COMMAND_IO)
        expect_that(q.inl(0xD000) != 0xFFFFFFFF, "BAR 1 is not where it was put")


@machines
def test_full_bus(bench, machine):
    """On a full bus there is still place at an address that a user gives."""
    first = 1 if machine == "q35" else 2
    devices = ["-device", f"pci-testdev,multifunction=on,addr={first}.0"]
    devices += ["-device", "pci-testdev"] * 29  # two of 32 slots are the chipset's
    status, output = bench.run("-M", machine, "-accel", "qtest", *QUIET, *devices, "-device",
                               "pci-testdev,id=last", check=False)
    expect("status", status, 1)
    expect_that("PCI: no slot available for pci-testdev,id=last, bus" in output, output)
    with bench.ferry("-M", machine, *devices, "-device", f"pci-testdev,addr={first}.7") as ferry:
        function = pci.Function(pci.PortConfig(ferry.qtest), first << 3 | 7)
        expect("the last one", function.readl(0), 0x00051B36)


@machines
def test_chips(bench, machine):
    log = bench.folder / "serial.log"
    with bench.ferry("-M", machine, "-rtc", "base=2024-02-29T12:34:56,clock=vm", "-chardev",
                     f"file,id=s0,path={log}", "-serial", "chardev:s0") as ferry:
        q = ferry.qtest
        # RTC (MC146818): the date of -rtc, in BCD; a second later 57.
        def rtc(index):
            q.outb(0x70, index)
            return q.inb(0x71)
        expect("date", [rtc(n) for n in (0x32, 9, 8, 7, 4, 2)], [0x20, 0x24, 2, 0x29, 0x12, 0x34])
        expect("seconds", rtc(0), 0x56)
        q.clock_step(1_000_000_000)
        expect("seconds later", rtc(0), 0x57)
        # PIT channel 2 through port 0x61: mode 0, count 1000, that is 838 us.
        q.outb(0x61, 1)
        q.outb(0x43, 0xB0)
        q.outb(0x42, 1000 & 0xFF)
        q.outb(0x42, 1000 >> 8)
        expect("output before", q.inb(0x61) & 0x20, 0)
        q.clock_step(500_000)
        expect("output half-way", q.inb(0x61) & 0x20, 0)
        q.clock_step(500_000)
        expect("output after", q.inb(0x61) & 0x20, 0x20)
        # Serial: what is written arrives; loopback brings it back.
        expect("line status", q.inb(0x3FD), 0x60)
        for byte in b"hello\n":
            q.outb(0x3F8, byte)
        q.outb(0x3FC, 0x10)
        q.outb(0x3F8, 0xA5)
        q.clock_step(10_000_000)
        expect("looped back", [q.inb(0x3FD) & 1, q.inb(0x3F8)], [1, 0xA5])
        expect("serial output", log.read_bytes(), b"hello\n")
        # PM timer: 3.579545 MHz.
        before = q.inl(PM_BASE + 8)
        q.clock_step(1_000_000_000)
        expect("PM timer", q.inl(PM_BASE + 8) - before & 0xFFFFFF, 3579545)
        # PIC mask, port 92, POST port.
        q.outb(0x21, 0xA5)
        expect("PIC mask", q.inb(0x21), 0xA5)
        q.outb(0x80, 0x42)
        # The IOAPIC's redirection table by its window.
        q.writel(0xFEC00000, 1)
        expect("IOAPIC version", q.readl(0xFEC00010) & 0xFF00FF, 0x170020 if q else 0)


def test_serial_interrupt(bench):
    with bench.ferry("-M", "q35", "-serial", "null") as ferry:
        q = ferry.qtest
        q.ask("irq_intercept_in ioapic")
        q.outb(0x3FC, 8)  # OUT2: interrupts get out
        q.outb(0x3F9, 2)  # transmitter empty
        q.wait_irq(4, True)
        expect("cause", q.inb(0x3FA) & 0xF, 2)
        q.wait_irq(4, False)
        expect_refusal(lambda: q.ask("irq_intercept_out ioapic"), "already enabled")


# -- the end, in all its ways --------------------------------------------------------------------


@machines
def test_power_off(bench, machine):
    with bench.ferry("-M", machine) as ferry:
        ferry.qtest.outw(PM_BASE + 4, SLEEP)
        event = ferry.qmp.event("SHUTDOWN")
        expect("event", event["data"], {"guest": True, "reason": "guest-shutdown"})
        expect("status", ferry.wait(), 0)
        expect("output", ferry.output, "")


@machines
def test_no_shutdown(bench, machine):
    with bench.ferry("-M", machine, "-no-shutdown") as ferry:
        ferry.qtest.outw(PM_BASE + 4, SLEEP)
        expect("events", [ferry.qmp.event(name)["event"] for name in ("SHUTDOWN", "STOP")],
               ["SHUTDOWN", "STOP"])
        expect("state", ferry.qmp.command("query-status"),
               {"status": "shutdown", "singlestep": False, "running": False})
        expect_refusal(lambda: ferry.qmp.command("cont"), "Resetting the Virtual Machine")
        ferry.qmp.command("system_reset")
        ferry.qmp.event("RESET")
        ferry.qmp.command("cont")
        ferry.qmp.event("RESUME")
        ferry.qmp.command("quit")
        expect("status", ferry.wait(), 0)


@machines
def test_power_button(bench, machine):
    with bench.ferry("-M", machine) as ferry:
        ferry.qmp.command("system_powerdown")
        ferry.qmp.event("POWERDOWN")
        expect("PM1 status", ferry.qtest.inw(PM_BASE) & 0x100, 0x100)
    with bench.ferry("-M", f"{machine},acpi=off") as ferry:
        expect_refusal(lambda: ferry.qmp.command("system_powerdown"), "acpi=off")


@machines
def test_reset(bench, machine):
    with bench.ferry("-M", machine) as ferry:
        ferry.qtest.writel(0x1000, 0x12345678)
        ferry.qtest.outb(0x21, 0x5A)
        for port, values in ((0xCF9, (2, 6)), (0x64, (0xFE,)), (0x92, (0, 1))):
            for value in values:
                ferry.qtest.outb(port, value)
            expect(f"event of port {port:#x}", ferry.qmp.event("RESET")["data"],
                   {"guest": True, "reason": "guest-reset"})
        expect("RAM stays", ferry.qtest.readl(0x1000), 0x12345678)
        expect("running", ferry.qmp.command("query-status")["running"], True)


def test_no_reboot(bench):
    with bench.ferry("-M", "q35", "-no-reboot") as ferry:
        ferry.qmp.command("system_reset")  # the user's may
        expect("reason", ferry.qmp.event("RESET")["data"]["reason"], "host-qmp-system-reset")
        ferry.qtest.outb(0xCF9, 6)
        expect("event", ferry.qmp.event("SHUTDOWN")["data"],
               {"guest": True, "reason": "guest-reset"})
        expect("status", ferry.wait(), 0)
    with bench.ferry("-M", "q35", "-action", "reboot=none") as ferry:
        ferry.qtest.outb(0xCF9, 6)
        ferry.qmp.command("quit")
        expect_that("RESET" not in ferry.qmp.events_until_end(), "a reset despite reboot=none")


def test_debug_exit(bench):
    for value, status in ((0, 1), (1, 3), (0x10, 33), (0x7F, 255)):
        with bench.ferry("-M", "q35", "-device", "isa-debug-exit,iobase=0xf4,iosize=4") as ferry:
            ferry.qtest.outl(0xF4, value)
            expect(f"status for {value:#x}", ferry.wait(), status)


def test_signals(bench):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        with bench.ferry("-M", "q35") as ferry:
            ferry.process.send_signal(number)
            expect("event", ferry.qmp.event("SHUTDOWN")["data"],
                   {"guest": False, "reason": "host-signal"})
            expect("status", ferry.wait(), 0)
            expect_that(re.fullmatch(rf"ferry: terminating on signal {int(number)} from pid \d+\n",
                                     ferry.output), f"output {ferry.output!r}")


def test_signal_while_waiting(bench):
    """SIGTERM also ends a ferry that waits for a client, and leaves nothing behind."""
    path, pidfile = bench.folder / "wait", bench.folder / "wait.pid"
    process = bench.start("-M", "q35", "-accel", "qtest", *QUIET, "-pidfile", pidfile, "-qmp",
                          f"unix:{path},server=on,wait=on", stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + TIMEOUT
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.05)
        process.terminate()
        _, output = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
        process.wait()
    expect(f"status ({output})", process.returncode, 0)
    expect_that(not path.exists() and not pidfile.exists(), "socket or pidfile is left")


def test_quit(bench):
    with bench.ferry("-M", "pc") as ferry:
        ferry.qmp.command("quit")
        expect("events", ferry.qmp.events_until_end(), ["SHUTDOWN"])
        expect("status", ferry.wait(), 0)


# -- run states ----------------------------------------------------------------------------------


def test_run_states(bench):
    with bench.ferry("-M", "q35", "-S", "-name", "guest=n1,debug-threads=on") as ferry:
        qmp = ferry.qmp

        def status():
            return qmp.command("query-status")["status"]
        expect("at first", qmp.command("query-status"),
               {"status": "prelaunch", "singlestep": False, "running": False})
        expect("name", qmp.command("query-name"), {"name": "n1"})
        qmp.command("stop")
        expect("after stop", status(), "prelaunch")
        qmp.command("cont")
        event = qmp.event("RESUME")
        expect("event", sorted(event), ["event", "timestamp"])
        expect_that(abs(event["timestamp"]["seconds"] - time.time()) < 60, "time stamp")
        expect("after cont", status(), "running")
        qmp.command("cont")  # nothing to do
        qmp.command("stop")
        qmp.event("STOP")
        expect("after stop", status(), "paused")
        qmp.command("system_reset")
        expect("reset", qmp.event("RESET")["data"],
               {"guest": False, "reason": "host-qmp-system-reset"})
        expect("after reset", status(), "prelaunch")
        qmp.command("cont")
        qmp.command("system_powerdown")
        qmp.event("POWERDOWN")
        expect("power button status", ferry.qtest.inw(PM_BASE) & 0x100, 0x100)
    with bench.ferry("-M", "pc,acpi=off") as ferry:
        expect_refusal(lambda: ferry.qmp.command("system_powerdown"), "acpi=off")


# -- QMP -----------------------------------------------------------------------------------------


def test_qmp_queries(bench):
    image = bench.image("query.img")
    with bench.ferry("-M", "q35", "-m", "64", "-drive",
                     f"file={image},if=none,format=raw,id=d0,cache=none,aio=threads", "-device",
                     "virtio-blk-pci,drive=d0,id=vd", "-blockdev",
                     "null-co,node-name=n0,size=4096") as ferry:
        qmp = ferry.qmp
        expect("greeting", sorted(qmp.greeting["QMP"]), ["capabilities", "version"])
        expect("version", qmp.command("query-version"), qmp.greeting["QMP"]["version"])
        names = [command["name"] for command in qmp.command("query-commands")]
        expect("all commands are there once", len(names), len(set(names)))
        for name in names:
            if name.startswith("query-"):
                qmp.command(name)
        block = qmp.command("query-block")
        expect("disks", [disk["device"] for disk in block], ["d0"])
        inserted = block[0]["inserted"]
        expect("disk", [block[0]["qdev"], inserted["file"], inserted["drv"], inserted["ro"],
                        inserted["image"]["virtual-size"], inserted["cache"]],
               ["/machine/peripheral/vd/virtio-backend", str(image), "raw", False, 1 << 20,
                {"writeback": True, "direct": True, "no-flush": False}])
        expect_that("n0" in [node["node-name"] for node in
                             qmp.command("query-named-block-nodes")], "node n0")
        expect("memory", qmp.command("query-memory-size-summary"),
               {"base-memory": 64 << 20, "plugged-memory": 0})
        expect("characters", [(chr["label"], chr["frontend-open"])
                              for chr in qmp.command("query-chardev")],
               [("qtest", True), ("compat_monitor0", True)])
        aliases = {machine.get("alias"): machine for machine in qmp.command("query-machines")}
        expect("machines", sorted(aliases), ["pc", "q35"])
        expect("default", aliases["pc"]["is-default"], True)
        types = {kind["name"] for kind in qmp.command("qom-list-types", implements="device")}
        expect_that("virtio-blk-pci" in types and "iothread" not in types, f"types {types}")
        expect("KVM", qmp.command("query-kvm"), {"enabled": False, "present": True})


def test_qmp_objects(bench):
    with bench.ferry("-M", "q35", "-device", "pci-testdev,id=td,addr=7") as ferry:
        qmp = ferry.qmp
        qmp.command("object-add", qom_type="iothread", id="io1", poll_max_ns=77)
        (thread,) = qmp.command("query-iothreads")
        expect("iothread", [thread["id"], thread["poll-max-ns"], thread["aio-max-batch"]],
               ["io1", 77, 0])
        expect_that(os.path.exists(f"/proc/{ferry.process.pid}/task/{thread['thread-id']}"),
                    "the iothread's thread is not there")
        expect("qom-get", qmp.command("qom-get", path="/objects/io1", property="poll-max-ns"), 77)
        expect_refusal(lambda: qmp.command("object-add", qom_type="iothread", id="io1"), "io1")
        expect_refusal(lambda: qmp.command("object-add", qom_type="nope", id="x"), "nope")
        expect_refusal(lambda: qmp.command("object-add", qom_type="iothread", id="x", foo=1), "foo")
        qmp.command("object-del", id="io1")
        expect("no iothreads", qmp.command("query-iothreads"), [])
        expect_refusal(lambda: qmp.command("object-del", id="io1"), "io1")
        expect("peripheral", qmp.command("qom-list", path="/machine/peripheral")[1],
               {"name": "td", "type": "child<pci-testdev>"})
        expect("type", qmp.command("qom-get", path="td", property="type"), "pci-testdev")
        expect_refusal(lambda: qmp.command("qom-list", path="/nope"), "/nope",
                       error_class="DeviceNotFound")
        expect_refusal(lambda: qmp.command("device_add", driver="pci-testdev"), "hotplug")
        expect_refusal(lambda: qmp.command("device_add", driver="nope"), "nope")
        expect_refusal(lambda: qmp.command("device_del", id="td"), "hotplug")
        expect_refusal(lambda: qmp.command("device_del", id="x"), error_class="DeviceNotFound")
        expect_refusal(lambda: qmp.command("human-monitor-command", command_line="info kvm"),
                       "human monitor")
        expect_refusal(lambda: qmp.command("nope"), "nope", error_class="CommandNotFound")


def test_qmp_bootindex(bench):
    """A kernel is booted whatever it says; it is there to be asked."""
    with bench.ferry("-M", "q35", "-blockdev", "null-co,node-name=n,read-only=on", "-device",
                     "virtio-blk-pci,drive=n,id=a,bootindex=7", "-device",
                     "virtio-blk-pci,drive=n,id=b") as ferry:
        expect("bootindex", [ferry.qmp.command("qom-get", path=name, property="bootindex")
                             for name in "ab"], [7, -1])


def test_qmp_blockdev(bench):
    image = bench.image("add.img")
    with bench.ferry("-M", "q35") as ferry:
        qmp = ferry.qmp
        qmp.command("blockdev-add", driver="file", node_name="f0", filename=str(image))
        expect_refusal(lambda: qmp.command("blockdev-add", driver="null-co", node_name="f0"), "f0")
        expect_refusal(lambda: qmp.command("blockdev-add", driver="null-co"), "node-name")
        expect_refusal(lambda: qmp.command("blockdev-add", driver="raw", node_name="r1",
                                           file="nope"), "nope")
        expect_refusal(lambda: qmp.command("blockdev-add", driver="file", node_name="x",
                                           filename="/nope"), "/nope")
        # Members have types, and a member's name has no dots.
        for bad, words in (({"read_only": "yes"}, "'read-only', expected: boolean"),
                           ({"size": "1M"}, "'size', expected: integer"),
                           ({"file.driver": "null-co"}, "'file.driver' is unexpected")):
            expect_refusal(lambda: qmp.command("blockdev-add", driver="raw", node_name="x",
                                               **({"file": "f0"} | bad)), words)
        qmp.command("blockdev-add", driver="raw", node_name="r0", file="f0")
        expect_refusal(lambda: qmp.command("blockdev-del", node_name="f0"), "f0")
        qmp.command("blockdev-del", node_name="r0")
        qmp.command("blockdev-del", node_name="f0")
        expect_refusal(lambda: qmp.command("blockdev-del", node_name="f0"), "f0")
        expect("nodes", qmp.command("query-named-block-nodes"), [])


def test_json_device(bench):
    """A number as addr= is slot and function; a drive's id names a node below another."""
    with bench.ferry("-M", "q35", "-drive", "if=none,id=d0,driver=null-co,readonly=on", "-device",
                     json.dumps({"driver": "pci-testdev", "addr": 7 << 3})) as ferry:
        function = pci.find(pci.PortConfig(ferry.qtest), 0x1B36, 0x0005)
        expect("its place", function.devfn, 7 << 3)
        ferry.qmp.command("blockdev-add", driver="raw", node_name="r", file="d0", read_only=True)
        ferry.qmp.command("blockdev-del", node_name="r")


def test_qmp_bad_client(bench):
    """What goes wrong with one client does not touch the next."""
    path = bench.folder / "bad"
    with bench.ferry("-M", "q35", "-qmp", f"unix:{path},server=on,wait=off") as ferry:
        for junk in (b"\x00\xff" * 5000, b"[" * 100000, b'{"execute": "' + b"x" * 100000,
                     b'{"execute": "quit"}', b"\n" * 100000, b""):
            client = connect(path)
            client.sendall(junk)
            client.close()
        client = Qmp(connect(path))
        expect("status", client.command("query-status")["status"], "running")
        expect("as the other sees it", ferry.qmp.command("query-status")["status"], "running")
        client.close()


def test_qmp_slow_client(bench):
    """A client that asks and never reads stops being served; nobody else does."""
    path = bench.folder / "slow"
    with bench.ferry("-M", "q35", "-qmp", f"unix:{path},server=on,wait=off") as ferry:
        client = connect(path)
        client.settimeout(0.5)
        client.sendall(b'{"execute": "qmp_capabilities"}')
        sent = 0
        try:
            while sent < 64 << 20:
                sent += client.send(b'{"execute": "query-commands"}' * 100)
        except socket.timeout:
            pass
        expect_that(sent < 64 << 20, "64 MiB of requests were taken without an answer read")
        expect("the other client", ferry.qmp.command("query-status")["status"], "running")
        client.close()


def test_qmp_deaf_client(bench):
    """Events for a client that never reads do not fill ferry's memory; once it reads, it hears new
    ones."""
    path = bench.folder / "deaf"
    with bench.ferry("-M", "q35", "-qmp", f"unix:{path},server=on,wait=off") as ferry:
        deaf = connect(path)
        deaf.settimeout(TIMEOUT)
        deaf.sendall(b'{"execute": "qmp_capabilities"}')
        for _ in range(15000):  # at 80 bytes an event, twice what is kept
            ferry.qmp.command("stop")
            ferry.qmp.command("cont")
        deaf.sendall(b'{"execute": "query-target"}')
        lines, count = deaf.makefile(), 0
        while '"arch"' not in (line := lines.readline()):
            expect_that(line, "end of the stream")
            count += '"event"' in line
        expect_that(1000 < count < 29000, f"{count} events of 30000 came")
        ferry.qmp.command("stop")
        expect_that('"STOP"' in lines.readline(), "no new event")
        deaf.close()
        ferry.qmp.command("quit")
        expect("status", ferry.wait(), 0)
        expect("warnings", ferry.output.count("does not read; events for it are lost"), 1)


def test_qmp_one_at_a_time(bench):
    """While one client's command waits (for a server that says nothing), no other's comes in between:
    what the first has found, a name that is free or an object, stays so until it has used it."""
    path = bench.folder / "other"
    with bench.ferry("-M", "q35", "-object", "throttle-group,id=tg0", "-qmp",
                     f"unix:{path},server=on,wait=off") as ferry, socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(bench.folder / "silent"))
        silent.listen()
        silent.settimeout(TIMEOUT)
        other = Qmp(connect(path))
        replies = []

        def first():
            server = {"type": "unix", "path": str(bench.folder / "silent")}
            child = {"driver": "nbd", "server": server}
            try:
                ferry.qmp.command("blockdev-add", driver="throttle", node_name="n0",
                                  throttle_group="tg0", file=child)
            except Refused as refusal:
                replies.append(str(refusal))
        thread = threading.Thread(target=first)
        thread.start()
        connection, _ = silent.accept()

        def second():
            other.command("blockdev-add", driver="null-co", node_name="n0")
            other.command("object-del", id="tg0")
            replies.append("second")
        late = threading.Thread(target=second)
        late.start()
        late.join(0.5)
        expect("replies while the first waits", replies, [])
        connection.close()
        thread.join(TIMEOUT)
        late.join(TIMEOUT)
        # A client that goes away while its command waits, and another one on the same socket.
        other.raw_send(json.dumps({"execute": "blockdev-add", "arguments": {
            "driver": "nbd", "node-name": "n1", "server": {"type": "unix", "path": str(bench.folder / "silent")}}}))
        connection, _ = silent.accept()
        other.close()
        other = connect(path)
        time.sleep(0.2)
        connection.close()
        other = Qmp(other)
        expect("status", other.command("query-status")["status"], "running")
        # Both are answered at about the same time: which thread wakes first is nobody's promise.
        expect("replies", len(replies), 2)
        expect_that("second" in replies and any("Failed to connect" in reply for reply in replies),
                    f"the replies are {replies}")
        expect("nodes", [node["node-name"] for node in
                         ferry.qmp.command("query-named-block-nodes")], ["n0"])
        other.close()


# -- character devices and files -----------------------------------------------------------------


def test_stdio(bench):
    """qtest and QMP on stdin and stdout."""
    _, output = bench.run("-M", "pc", "-accel", "qtest", *QUIET, "-qtest", "stdio", "-qtest-log",
                          "none", "-device", "isa-debug-exit,iobase=0xf4", check=False,
                          stdin="endianness\ninb 0x5ff\noutb 0xf4 0\n")
    expect("qtest", output, "OK little\nOK 0x00ff\nOK\n")
    commands = ["qmp_capabilities", "query-status", "quit"]
    _, output = bench.run("-M", "pc", "-accel", "qtest", *QUIET, "-qmp", "stdio",
                          stdin="".join(f'{{"execute": "{name}"}}\r\n' for name in commands))
    lines = output.split("\r\n")
    expect("QMP", lines[1:4],
           ['{"return": {}}',
            '{"return": {"status": "running", "singlestep": false, "running": true}}',
            '{"return": {}}'])
    expect("last", [json.loads(lines[4])["event"], lines[5:]], ["SHUTDOWN", [""]])


def test_debugcon(bench):
    log = bench.folder / "console.log"
    with bench.ferry("-M", "q35", "-debugcon", f"file:{log}") as ferry:
        for byte in b"hello\n":
            ferry.qtest.outb(0xE9, byte)
        expect("reading", ferry.qtest.inb(0xE9), 0xE9)
        expect("output", log.read_bytes(), b"hello\n")


def test_pretty(bench):
    for options in ("-chardev stdio,id=c -mon chardev=c,mode=control,pretty=on", "-qmp-pretty stdio"):
        check_pretty(bench, options.split())


def check_pretty(bench, options):
    _, output = bench.run("-M", "pc", "-accel", "qtest", *QUIET, *options,
                          stdin='{"execute": "qmp_capabilities"}{"execute": "query-kvm"}'
                          '{"execute": "quit"}')
    expect_that('{\r\n    "return": {\r\n        "enabled": false,\r\n        "present": true\r\n    '
                '}\r\n}\r\n' in output, f"not pretty: {output!r}")


def test_sockets(bench):
    """Server with wait=off and wait=on, client, TCP; one client after the other."""
    path = bench.folder / "server"
    with bench.ferry("-M", "q35", "-chardev", f"socket,id=c,path={path},server=on,wait=off", "-mon",
                     "c,mode=control", "-chardev", "socket,id=t,host=127.0.0.1,port=0,server=on,"
                     "wait=off", "-mon", "t,mode=control") as ferry:
        for _ in range(3):
            client = Qmp(connect(path))
            expect("status", client.command("query-status")["running"], True)
            client.close()
        names = {chr["label"]: chr["filename"] for chr in ferry.qmp.command("query-chardev")}
        expect_that("unix:" in names["c"] and "server=on" in names["c"], f"name {names['c']}")
        port = re.search(r"tcp:127\.0\.0\.1:(\d+)", names["t"])
        expect_that(port, f"name {names['t']}")
        client = Qmp(socket.create_connection(("127.0.0.1", int(port[1]))))
        expect("by TCP", client.command("query-status")["running"], True)
        client.close()
        ferry.qmp.command("quit")
        expect("status", ferry.wait(), 0)
        expect_that(not path.exists(), "the socket is left")

    path = bench.folder / "waits"
    process = bench.start("-M", "q35", "-accel", "qtest", *QUIET, "-qmp", f"unix:{path},server=on",
                          stderr=subprocess.PIPE, text=True)
    client = Qmp(connect(path))
    client.command("quit")
    _, output = process.communicate(timeout=TIMEOUT)
    expect("status", process.returncode, 0)
    expect_that("waiting for connection on: " in output, f"output {output!r}")
    client.close()

    listener = Listener(bench.folder / "listens")
    process = bench.start("-M", "q35", "-accel", "qtest", *QUIET, "-qtest-log", "none", "-chardev",
                          f"socket,id=q,path={listener.path}", "-qtest", "chardev:q",
                          stderr=subprocess.DEVNULL)
    qtest = Qtest(listener.accept(process))
    expect("as client", qtest.ask("endianness"), "little")
    process.terminate()
    expect("status", process.wait(timeout=TIMEOUT), 0)
    qtest.close()
    listener.close()


def test_qtest_log(bench):
    log = bench.folder / "qtest.log"
    listener = Listener(bench.folder / "logged")
    process = bench.start("-M", "q35", "-accel", "qtest", *QUIET, "-qtest", f"unix:{listener.path}",
                          "-qtest-log", log, stderr=subprocess.DEVNULL)
    qtest = Qtest(listener.accept(process))
    qtest.outb(0x80, 0x42)
    process.terminate()
    expect("status", process.wait(timeout=TIMEOUT), 0)
    text = log.read_text()
    expect_that(re.search(r"\[R \+\d+\.\d{6}\] outb 0x80 0x42\n\[S \+\d+\.\d{6}\] OK\n", text),
                f"log {text!r}")
    qtest.close()
    listener.close()


def test_messages(bench):
    """-msg: the time and the guest's name before messages; the last one counts alone."""
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z "
    for options, head in (("timestamp=on", stamp), ("timestamp=on,guest-name=on", stamp + "g "),
                          ("timestamp=on -msg guest-name=on", "g "), ("timestamp=off", "")):
        status, output = bench.run("-M", "q35", "-accel", "qtest", *QUIET, "-device", "nope",
                                   "-name", "g", "-msg", *options.split(), check=False)
        expect("status", status, 1)
        expect_that(re.match(head + "ferry: -device nope: ", output), f"{options}: {output}")


def test_managed(bench):
    """What a manager of machines gives a q35 guest."""
    image, socket_path = bench.image("managed.img"), bench.folder / "managed"
    disk_json = {"driver": "virtio-blk-pci", "bus": "pcie.0", "addr": "0x3", "drive": "format1",
                 "id": "virtio-disk0", "bootindex": 1, "write-cache": "on"}
    storage = {"driver": "file", "filename": str(image), "node-name": "storage1",
               "auto-read-only": True, "discard": "unmap"}
    form = {"node-name": "format1", "read-only": False, "driver": "raw", "file": "storage1"}
    options = """
        -name guest=g,debug-threads=on -S
        -machine pc-q35-7.2,usb=off,dump-guest-core=off,kernel_irqchip=on,acpi=on -m size=262144k
        -overcommit mem-lock=off -smp 2,sockets=2,dies=1,clusters=1,cores=1,threads=1
        -uuid 01234567-89ab-cdef-0123-456789abcdef -no-user-config
        -mon chardev=charm,id=monitor,mode=control
        -rtc base=utc -global kvm-pit.lost_tick_policy=delay -no-hpet -no-shutdown
        -global ICH9-LPC.disable_s3=1 -global ICH9-LPC.disable_s4=1 -boot strict=on
        -msg timestamp=on""".split()
    with bench.ferry(*options, "-chardev", f"socket,id=charm,path={socket_path},server=on,wait=off",
                     "-object", '{"qom-type":"iothread","id":"iothread1"}', "-blockdev",
                     json.dumps(storage), "-blockdev", json.dumps(form), "-device",
                     json.dumps(disk_json)) as ferry:
        client = Qmp(connect(socket_path))
        expect("status", client.command("query-status")["status"], "prelaunch")
        client.command("cont")
        client.close()


def test_identity(bench):
    uuid = "C0FFEE00-0000-4000-8000-0123456789ab"
    with bench.ferry("-M", "q35", "-name", "guest=g,debug-threads=on", "-uuid", uuid) as ferry:
        expect("name", ferry.qmp.command("query-name"), {"name": "g"})
        expect("uuid", ferry.qmp.command("query-uuid"), {"UUID": uuid.lower()})


def test_files(bench):
    pidfile, log = bench.folder / "pid", bench.folder / "log"
    with bench.ferry("-M", "q35", "-pidfile", pidfile, "-D", log, "-d", "guest_errors,unimp",
                     "-name", "process=ferrytest") as ferry:
        expect("pidfile", pidfile.read_text(), f"{ferry.process.pid}\n")
        expect("process name", pathlib.Path(f"/proc/{ferry.process.pid}/comm").read_text(),
               "ferrytest\n")
        status, output = bench.run("-M", "q35", "-accel", "qtest", *QUIET, "-pidfile", pidfile,
                                   check=False)
        expect("second with the same pidfile", status, 1)
        expect_that(str(pidfile) in output and output.count("\n") == 1, output)
        expect("pidfile afterwards", pidfile.read_text(), f"{ferry.process.pid}\n")
    expect_that(not pidfile.exists(), "the pidfile is left")
    expect_that(log.exists(), "there is no log")


def test_accel_unknown(bench):
    """An unknown accelerator is warned of; the next one is taken."""
    for options, lines in (
            ("-accel foo -accel qtest", ["warning: -accel foo: invalid accelerator",
                                         "using the accelerator 'qtest'"]),
            ("-M q35,accel=foo:qtest", ["warning: -accel foo: invalid accelerator",
                                        "using the accelerator 'qtest'"]),
            ("-accel qtest -accel kmv", ["warning: -accel kmv: invalid accelerator; did you mean "
                                         "'kvm'?"])):
        status, output = bench.run("-M", "pc", *options.split(), *QUIET, "-qmp", "stdio",
                                   stdin='{"execute": "qmp_capabilities"}{"execute": "quit"}')
        expect("status", status, 0)
        expect(options, [line[7:] for line in output.splitlines() if line.startswith("ferry: ")],
               lines)


def test_phys_bits(bench):
    """Just enough addresses for RAM and BARs."""
    for options in ("-M q35 -m 8G -cpu qemu64,phys-bits=36", "-M pc -m 8G -cpu qemu64,phys-bits=34",
                    "-M q35 -m 1G -cpu qemu64,phys-bits=32"):
        with bench.ferry(*options.split(), "-device", "pci-testdev,addr=7,membar=64M") as ferry:
            function = pci.find(pci.PortConfig(ferry.qtest), 0x1B36, 0x0005)
            address = function.readl(pci.BAR0 + 8) & ~15 | function.readl(pci.BAR0 + 12) << 32
            bits = int(options.rsplit("=", 1)[1])
            expect_that(0 < address < 1 << bits, f"{options}: BAR 2 is at {address:#x}")
            expect("in the 64-bit window", address >= 1 << 32, bits > 32)


def test_loader(bench):
    """A loader is something to boot, however it is spelled."""
    code = bench.folder / "code"
    code.write_bytes(b"\xf4")  # hlt
    file = f"file={code},addr=0x7c00,force-raw=on"
    for text in (f"loader,{file}", f"driver=loader,{file}", f"{file},driver=loader",
                 json.dumps({"driver": "loader", "file": str(code), "addr": 0x7C00})):
        with bench.ferry("-M", "q35", "-S", "-device", text, accel="tcg") as ferry:
            ferry.qmp.command("quit")
            expect("status", ferry.wait(), 0)


def test_log_registers(bench):
    """-d cpu_reset writes to the file of -D, and nothing to stderr."""
    bios, log = bench.folder / "bios", bench.folder / "log"
    bios.write_bytes(b"\xf4" * 65536)  # hlt
    with bench.ferry("-M", "q35", "-bios", bios, "-S", "-D", log, "-d", "cpu_reset",
                     accel="tcg") as ferry:
        ferry.qmp.command("system_reset")
        ferry.qmp.event("RESET")
        ferry.qmp.command("quit")
        expect("status", ferry.wait(), 0)
    expect_that(re.search(r"^CPU Reset \(CPU 0\)\nRAX=|^CPU Reset \(CPU 0\)\nEAX=", log.read_text(),
                          re.MULTILINE), log.read_text())
    expect("stderr", ferry.output, "")


# -- help ----------------------------------------------------------------------------------------


def test_help(bench):
    """Every list is printed with status 0, and names what it must."""
    lists = {
        "-help": ["-drive", "-device", "-accel", "-qtest"],
        "-h": ["-drive"],
        "--help": ["-drive"],
        "-version": ["ferry version "],
        "-M help": ["Supported machines are:\n", "q35", "(default)"],
        "-machine ?": ["q35"],
        "-M q35,help": ["pc-q35-7.2-machine options:\n", "  acpi=<OnOffAuto>"],
        "-smp help": ["smp-opts options:\n", "  cpus=<num>\n"],
        "-smp 2 -smp 3,?": ["smp-opts options:\n"],
        "-rtc help": ["rtc options:\n  base=<str>\n  clock=<str>\n  driftfix=<str>\n"],
        "-global help": ["global options:\n  driver=<str>\n"],
        "-boot help": ["boot-opts options:\n"],
        "-msg help": ["msg options:\n", "  timestamp=<bool (on/off)>\n"],
        "-overcommit help": ["overcommit options:\n"],
        "-action help": ["action options:\n", "  reboot=<str>\n"],
        "-accel help": ["kvm\n", "qtest\n"],
        "-accel ?": ["kvm\n"],
        "-cpu help": ["x86 host", "EPYC", "Recognized CPUID flags:"],
        "-cpu ?": ["x86 max"],
        "-device help": ["Storage devices:\n", 'name "virtio-blk-pci", bus PCI'],
        "-device ?": ["isa-serial"],
        "-device virtio-blk-pci,help": ["virtio-blk-pci options:\n", "  drive=<str>"],
        "-device virtio-blk-pci,?": ["  drive=<str>"],
        "-object help": ["List of user creatable objects:\n", "  iothread\n"],
        "-object iothread,help": ["poll-max-ns=<"],
        "-chardev help": ["Available chardev backend types", "  socket\n"],
        "-chardev socket,help": ["path=<str>"],
        "-drive format=help": ["Supported formats: ", " raw"],
        "-blockdev driver=help": ["Supported formats: ", " null-co"],
        "-d help": ["guest_errors"],
        "-d ?": ["guest_errors"],
        "-vga help": ["none"],
        "-display help": ["none"],
        "-nic help": ["none"],
        "-net help": ["none"],
    }
    for options, parts in lists.items():
        _, output = bench.run(*options.split(" "))
        for part in parts:
            expect_that(part in output, f"{options} lacks {part!r}: {output[:500]}")
        expect_that("ferry: " not in output, f"{options}: {output[:500]}")
    for options in ("-device nope,help", "-object nope,help", "-M nope,help", "-chardev nope,help"):
        status, output = bench.run(*options.split(" "), check=False)
        expect(f"status of {options}", status, 1)
        expect_that(output.startswith("ferry: ") and "nope" in output, f"{options}: {output}")


def test_not_help(bench):
    """Values may end in the word."""
    status, output = bench.run("-M", "q35", "-accel", "qtest", *QUIET, "-append", "say,help",
                               check=False)
    expect("status", status, 1)
    expect_that("-append need -kernel" in output, output)


# -- main ----------------------------------------------------------------------------------------


def sanitizer_environment():
    return {
        "ASAN_OPTIONS": "detect_stack_use_after_return=0:strict_string_checks=1:exitcode=99",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99",
        "LSAN_OPTIONS": "exitcode=99",
    }


def run_test(bench, results, prefix, test):
    for machine in ("q35", "pc") if getattr(test, "machines", False) else (None,):
        name = test.__name__.removeprefix("test_").replace("_", "-")
        fault = None
        began = time.monotonic()
        try:
            test(*([bench, machine] if machine else [bench]))
        except (Fault, Dead, Refused, subprocess.TimeoutExpired, OSError, ValueError) as error:
            fault = f"{type(error).__name__}: {error}"
        results.case(f"{prefix}/{name}" + (f"-{machine}" if machine else ""),
                     fault.splitlines()[0] if fault else None,
                     f"{time.monotonic() - began:.1f} s")
        if fault:
            report.show_tail(fault)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    parser.add_argument("--prefix", default="vmm/cli", help="of the cases' names")
    parser.add_argument("--only", help="tests whose name has this")
    options = parser.parse_args()
    program = (options.build / "ferry").resolve()
    if not program.exists():
        print(f"there is no {options.build}/ferry")
        return report.SKIP_STATUS

    results = report.Results()
    wanted = options.only or ""
    with tempfile.TemporaryDirectory() as folder:
        for name, test in [*globals().items(), *vars(disk).items(), *vars(query).items()]:
            if name.startswith("test_") and wanted in name:
                with tempfile.TemporaryDirectory(dir=folder) as own:
                    run_test(Bench(program, sanitizer_environment(), own), results, options.prefix,
                             test)
        if wanted in "bad_input":
            with tempfile.TemporaryDirectory() as own:
                for fault in bad_input.check(program, own, {**os.environ, **sanitizer_environment()},
                                             results, options.prefix):
                    report.show_tail(fault)
    return results.exit_status()


if __name__ == "__main__":
    sys.exit(main())
