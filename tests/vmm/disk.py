# SPDX-License-Identifier: MIT
"""virtio-blk as a driver sees it through qtest, the file as the host sees it, and what QMP tells."""
import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import time

from kit import pci
from kit.qtest import TIMEOUT
from vmm.bench import (BARS, ECAM, MSI, QUIET, RAM, Fault, expect, expect_refusal, expect_that,
                       machines)


def disk_driver(bench, ferry, machine):
    config = pci.EcamConfig(ferry.qtest, ECAM) if machine == "q35" else pci.PortConfig(ferry.qtest)
    function = pci.find(config, pci.VENDOR_VIRTIO, pci.DEVICE_BLK)
    if not function:
        raise Fault("there is no virtio-blk")
    return pci.VirtioBlk(ferry.qtest, function, BARS, RAM)


def slot_driver(ferry, slot):
    """The driver of the disk at addr=slot of a q35, with places of its own."""
    function = pci.Function(pci.EcamConfig(ferry.qtest, ECAM), slot << 3)
    return pci.VirtioBlk(ferry.qtest, function, BARS + (slot << 20), RAM + (slot << 16))


def exchange(disk, image):
    """Reads, writes and flushes; the host sees it."""
    status, length, data = disk.request(pci.IN, 7, size=512)
    expect("read", [status, length, data], [0, 513, bytes([7, 0]) * 256])
    status, length, data = disk.request(pci.IN, 2047, size=512)
    expect("last sector", [status, data], [0, bytes([0xFF, 7]) * 256])
    status, length, _ = disk.request(pci.OUT, 9, data=b"ferry..." * 128)
    expect("write", [status, length], [0, 1])
    expect("flush", disk.request(pci.FLUSH, 0)[0], 0)
    expect("the file", image.read_bytes()[9 * 512:11 * 512], b"ferry..." * 128)
    expect("past the end", disk.request(pci.IN, 2048, size=512)[0], 1)
    expect("write past the end", disk.request(pci.OUT, 2047, data=bytes(1024))[0], 1)
    expect("unknown request", disk.request(77, 0, size=512)[0], 2)
    expect("the file's size", image.stat().st_size, 1 << 20)


@machines
def test_disk(bench, machine):
    image = bench.image("disk.img")
    with bench.ferry("-M", machine, "-drive", f"file={image},if=virtio,format=raw,id=d0") as ferry:
        disk = disk_driver(bench, ferry, machine)
        disk.reset()
        features = disk.features()
        expect_that(features >> pci.F_VERSION_1 & 1 and features >> pci.F_BLK_FLUSH & 1,
                    f"features {features:#x}")
        expect("capacity", ferry.qtest.readq(disk.config), 2048)
        expect_that(not disk.start(1 << pci.F_BLK_FLUSH), "a driver without VERSION_1 is taken")
        expect_that(disk.start(1 << pci.F_VERSION_1 | 1 << pci.F_BLK_FLUSH), "FEATURES_OK is off")
        # INTx: the pin goes up with a request, and down when the ISR status is read.
        ferry.qtest.ask("irq_intercept_in ioapic")
        disk.submit(pci.IN, 1, size=512)
        disk.finish()
        pin = wait_pin(ferry.qtest)
        expect("ISR", ferry.qtest.readb(disk.isr), 1)
        ferry.qtest.wait_irq(pin, False)
        exchange(disk, image)
        # A queue index that is nonsense: the device asks for a reset, and comes back.
        ferry.qtest.writew(disk.avail + 2, 0x4000)
        ferry.qtest.writew(disk.doorbell, 0)
        ferry.qtest.wait_for(lambda: disk.status() & pci.NEEDS_RESET, "NEEDS_RESET")
        expect_that(disk.start(1 << pci.F_VERSION_1), "no new start")
        expect("read again", disk.request(pci.IN, 3, size=512)[2], bytes([3, 0]) * 256)


def wait_pin(q):
    q.wait_for(lambda: q.ask("endianness") and any(q.irq.values()), "an interrupt")
    return next(line for line, level in q.irq.items() if level)


@machines
def test_disk_msix(bench, machine):
    image = bench.image("msix.img")
    with bench.ferry("-M", machine, "-object", "iothread,id=io0", "-drive",
                     f"file={image},if=none,format=raw,id=d0", "-device",
                     "virtio-blk-pci,drive=d0,iothread=io0,id=vd") as ferry:
        disk = disk_driver(bench, ferry, machine)
        disk.enable_msix(MSI)
        expect_that(disk.start(1 << pci.F_VERSION_1 | 1 << pci.F_BLK_FLUSH), "FEATURES_OK is off")
        disk.submit(pci.IN, 5, size=512)
        expect("read", disk.finish(512)[2], bytes([5, 0]) * 256)
        ferry.qtest.wait_for(lambda: ferry.qtest.readl(MSI + 4) == 0x1001, "the message")
        expect("vector 0", ferry.qtest.readl(MSI), 0)
        exchange(disk, image)
        # Stopped and gone on, reset and gone on: the disk still works.
        ferry.qmp.command("stop")
        disk.submit(pci.IN, 6, size=512)
        ferry.qmp.command("cont")
        expect("after cont", disk.finish(512)[2], bytes([6, 0]) * 256)
        ferry.qmp.command("system_reset")
        ferry.qmp.event("RESET")
        disk = disk_driver(bench, ferry, machine)
        expect_that(disk.start(1 << pci.F_VERSION_1), "no start after a reset")
        expect("after reset", disk.request(pci.IN, 8, size=512)[2], bytes([8, 0]) * 256)
        expect_refusal(lambda: ferry.qmp.command("object-del", id="io0"), "in use")


def test_disk_readonly(bench):
    image = bench.image("ro.img")
    before = image.read_bytes()
    with bench.ferry("-M", "q35", "-drive",
                     f"file={image},if=virtio,format=raw,readonly=on") as ferry:
        disk = disk_driver(bench, ferry, "q35")
        expect_that(disk.features() & 1 << 5, "F_RO is not offered")
        disk.start(1 << pci.F_VERSION_1)
        expect("write", disk.request(pci.OUT, 0, data=b"x" * 512)[0], 1)
        expect("read", disk.request(pci.IN, 4, size=512)[2], bytes([4, 0]) * 256)
        expect("inserted", ferry.qmp.command("query-block")[0]["inserted"]["ro"], True)
    expect_that(image.read_bytes() == before, "the image has changed")


def test_disk_odd_size(bench):
    """The rest of a file that is no multiple of 512 is left alone."""
    image = bench.folder / "odd.img"
    image.write_bytes(b"a" * 1300)
    with bench.ferry("-M", "q35", "-drive", f"file={image},if=virtio,format=raw") as ferry:
        disk = disk_driver(bench, ferry, "q35")
        capacity = ferry.qtest.readq(disk.config)
        expect_that(capacity in (2, 3), f"capacity {capacity}")
        disk.start(1 << pci.F_VERSION_1)
        expect("first", disk.request(pci.IN, 0, size=512)[2], b"a" * 512)
        expect("past the end", disk.request(pci.OUT, 3, data=b"b" * 512)[0], 1)
    expect_that(image.read_bytes()[:1024] == b"a" * 1024, "the image has changed")


def test_disk_shrinks(bench):
    """An image that becomes shorter than the guest believes."""
    image = bench.image("shrink.img")
    with bench.ferry("-M", "q35", "-drive", f"file={image},if=virtio,format=raw") as ferry:
        disk = disk_driver(bench, ferry, "q35")
        disk.start(1 << pci.F_VERSION_1)
        os.truncate(image, 4096)
        expect("still there", disk.request(pci.IN, 0, size=512)[0], 0)
        status, _, data = disk.request(pci.IN, 100, size=512)
        expect_that(status == 1 or data == bytes(512), f"status {status}")
        expect("running", ferry.qmp.command("query-status")["status"], "running")


def limit_files(ferry, size):
    """From now on no write reaches beyond size: what a full disk does to ferry, with EFBIG."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.prlimit(ferry.process.pid, resource.RLIMIT_FSIZE, (size, hard))


def io_status(ferry):
    (block,) = ferry.qmp.command("query-block")
    return block.get("io-status")


def test_disk_error(bench):
    """BLOCK_IO_ERROR, what follows it, and query-block's io-status, as QEMU has them."""
    for action, drive, status in (("report", True, 1), ("ignore", False, 0), ("stop", True, 0),
                                  ("stop", False, 0)):
        image = bench.image("error.img")
        # The node of bps= is not the one that is told.
        options = (["-drive", f"file={image},if=none,format=raw,id=d0,file.node-name=f,node-name=n,"
                    "bps=100000000"] if drive else
                   ["-blockdev", f"raw,node-name=n,file.driver=file,file.filename={image}"])
        with bench.ferry("-M", "q35", "-object", "iothread,id=io0", *options, "-device",
                         f"virtio-blk-pci,drive={'d0' if drive else 'n'},werror={action}"
                         f"{',iothread=io0' if drive else ''}") as ferry:
            disk = disk_driver(bench, ferry, "q35")
            disk.start(1 << pci.F_VERSION_1)
            expect("io-status", io_status(ferry), "ok" if action == "stop" else None)
            limit_files(ferry, 51200)
            disk.submit(pci.OUT, 200, data=b"n" * 512)
            expect("event", ferry.qmp.event("BLOCK_IO_ERROR")["data"],
                   {"device": "d0" if drive else "", "node-name": "n", "operation": "write",
                    "action": action, "reason": "File too large",
                    **({"nospace": False} if action == "stop" else {})})
            if action == "stop":
                ferry.qmp.event("STOP")
                expect("state", ferry.qmp.command("query-status")["status"], "io-error")
                expect("io-status", io_status(ferry), "failed")
                limit_files(ferry, resource.RLIM_INFINITY)
                ferry.qmp.command("cont")
                # QEMU 7.2 does not come to backends without a name.
                expect("io-status after cont", io_status(ferry), "ok" if drive else "failed")
            expect("status", disk.finish()[0], status)
            expect_that((image.read_bytes()[200 * 512] == ord("n")) == (action == "stop"),
                        "the image is not what it should be")


# Commands that come while the VM stops or is reset, which takes as long as a request in flight.
SLOW = 500_000_000  # ns


def slow_and_failing(bench, iothread=False, delay=0):
    """A ferry with two disks: a slow one (8), and one whose first read fails after delay ns and stops
    the VM (9)."""
    more = ",iothread=io0" if iothread else ""
    return bench.ferry(
        "-M", "q35", "-object", "iothread,id=io0",
        "-blockdev", f"null-co,node-name=slow,latency-ns={SLOW}",
        "-device", f"virtio-blk-pci,drive=slow,addr=8{more}",
        "-blockdev", "blkdebug,node-name=fails,image.driver=null-co,inject-error.0.event=none,"
        f"inject-error.0.iotype=read,inject-error.0.once=on,inject-error.0.delay={delay}",
        "-device", f"virtio-blk-pci,drive=fails,addr=9,rerror=stop{more}")


def started(ferry, slot):
    disk = slot_driver(ferry, slot)
    expect_that(disk.start(1 << pci.F_VERSION_1), "FEATURES_OK is off")
    return disk


def goes_on(ferry, *disks):
    """STOP, RESUME, the reply to `cont`, and the disks' requests are done, that which failed by a new
    try."""
    ferry.qmp.event("STOP")
    ferry.qmp.event("RESUME")
    expect("reply", ferry.qmp.reply(), {"return": {}})
    for disk in disks:
        expect("status", disk.finish()[0], 0)
    expect("state", ferry.qmp.command("query-status")["status"], "running")
    ferry.qmp.command("quit")
    expect("status", ferry.wait(), 0)


def test_stop_during_reset(bench):
    """`stop` stops a VM that is being reset."""
    for reset in (lambda ferry: ferry.qmp.command("system_reset"),
                  lambda ferry: ferry.qtest.outb(0xCF9, 6)):
        with slow_and_failing(bench) as ferry:
            started(ferry, 8).submit(pci.IN, 0, size=512)
            reset(ferry)
            ferry.qmp.command("stop")
            ferry.qmp.event("RESET")
            expect("state", ferry.qmp.command("query-status")["status"], "paused")
            disk = started(ferry, 9)
            disk.submit(pci.OUT, 0, data=b"n" * 512)
            time.sleep(0.1)
            expect("requests done while paused", ferry.qtest.readw(disk.ring + 2), 0)
            ferry.qmp.command("cont")
            expect("status", disk.finish()[0], 0)


def test_commands_during_stop(bench):
    """A disk error stops the VM. What clients send while it stops waits until it has."""
    for iothread in (False, True):
        for commands in ("cont",), ("stop", "cont"):
            with slow_and_failing(bench, iothread) as ferry:
                slow, failing = started(ferry, 8), started(ferry, 9)
                slow.submit(pci.IN, 0, size=512)
                failing.submit(pci.IN, 0, size=512)
                ferry.qmp.event("BLOCK_IO_ERROR")
                ferry.qmp.raw_send("".join(f'{{"execute": "{name}"}}' for name in commands))
                goes_on(ferry, slow, failing)


def test_cont_before_stop(bench):
    """A disk fails during a command, and the next one in the same packet is `cont`: the stop comes
    first."""
    path = str(bench.folder / "silent")
    with slow_and_failing(bench, delay=SLOW // 2) as ferry, \
            socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen()
        silent.settimeout(TIMEOUT)
        failing = started(ferry, 9)
        failing.submit(pci.IN, 0, size=512)
        # This one waits for a server that says nothing.
        add = {"execute": "blockdev-add", "arguments": {
            "driver": "nbd", "node-name": "n0", "server": {"type": "unix", "path": path}}}
        ferry.qmp.raw_send(json.dumps(add) + '{"execute": "cont"}')
        connection, _ = silent.accept()
        ferry.qmp.event("BLOCK_IO_ERROR")
        connection.close()
        goes_on(ferry, failing)


def test_disk_corrupt(bench):
    """BLOCK_IMAGE_CORRUPTED, once: a cluster of the disk lies in the L1 table."""
    image = bench.folder / "corrupt.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "4M"], check=True)
    subprocess.run(["qemu-io", "-c", "write 0 64k", image], check=True, stdout=subprocess.DEVNULL)
    with open(image, "r+b") as file:
        file.seek(0x40000)
        file.write((1 << 63 | 0x30000).to_bytes(8, "big"))
    with bench.ferry("-M", "q35", "-object", "iothread,id=io0", "-drive",
                     f"file={image},if=none,format=qcow2,id=d0,node-name=n", "-device",
                     "virtio-blk-pci,drive=d0,iothread=io0") as ferry:
        disk = disk_driver(bench, ferry, "q35")
        disk.start(1 << pci.F_VERSION_1)
        for _ in range(2):
            expect("status", disk.request(pci.OUT, 0, data=b"n" * 512)[0], 1)
        expect("event", ferry.qmp.event("BLOCK_IMAGE_CORRUPTED")["data"],
               {"device": "d0", "node-name": "n", "offset": 0x30000, "size": 512, "fatal": True,
                "msg": "Preventing invalid write on metadata (overlaps with active L1 table)"})
        ferry.qmp.command("quit")
        expect_that("BLOCK_IMAGE_CORRUPTED" not in ferry.qmp.events_until_end(), "told twice")


def test_disk_shared(bench):
    """share-rw=on: two drives of one VM, and another VM, write to one image."""
    image = bench.image("shared.img")

    def drives(count, share="on"):
        return [word for n in range(count) for word in (
            "-drive", f"file={image},if=none,format=raw,id=d{n}", "-device",
            f"virtio-blk-pci,drive=d{n},share-rw={share},addr={n + 8}")]
    with bench.ferry("-M", "q35", *drives(2)) as first, \
            bench.ferry("-M", "q35", *drives(1)) as second:
        for number, (ferry, slot) in enumerate(((first, 8), (first, 9), (second, 8))):
            disk = slot_driver(ferry, slot)
            disk.start(1 << pci.F_VERSION_1)
            if number:
                expect("what was written before", disk.request(pci.IN, 3, size=512)[2],
                       bytes([number - 1]) * 512)
            expect("write", disk.request(pci.OUT, 3, data=bytes([number]) * 512)[0], 0)
        status, output = bench.run("-M", "q35", "-accel", "qtest", *QUIET, *drives(1, "off"),
                                   check=False)
        expect("status of one that does not share", status, 1)
        expect_that("shared.img" in output and "lock" in output and "share-rw=on" in output, output)


# -- locks ---------------------------------------------------------------------------------------


class Vm:
    """A machine that stands still, of ferry or QEMU, with its monitor on its standard input."""

    def __init__(self, bench, name, options):
        program = {"ferry": [str(bench.program), "-accel", "qtest"],
                   "qemu": ["qemu-system-x86_64", "-accel", "tcg"]}[name]
        self.process = subprocess.Popen([*program, "-S", *QUIET, "-qmp", "stdio", *options],
                                        env={**os.environ, **bench.env}, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write('{"execute":"qmp_capabilities"}')
            self.process.stdin.flush()
        # QEMU's greeting comes before it opens images.
        self.starts = all([self.process.stdout.readline() for _ in range(2)])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.output = "".join(self.process.communicate())


def overlay_options(base, overlay):
    """The nodes that libvirt makes."""
    storage = "driver=file,node-name={}s,filename={},auto-read-only=on,discard=unmap"
    return ["-blockdev", storage.format("b", base), "-blockdev",
            '{"driver":"qcow2","node-name":"b","file":"bs","read-only":true,"backing":null}',
            "-blockdev", storage.format("o", overlay), "-blockdev",
            '{"driver":"qcow2","node-name":"o","file":"os","backing":"b"}', "-device",
            "virtio-blk-pci,drive=o"]


def raw_options(image, how, file_how, device=""):
    return ["-blockdev", f"driver=file,node-name=f,filename={image}{file_how}", "-blockdev",
            f"driver=raw,node-name=r,file=f{how}", "-device", f"virtio-blk-pci,drive=r{device}"]


def test_locks(bench):
    """Two machines with one image: both of ferry, or one of Debian's QEMU, in either order."""
    image = bench.image("locked.img")
    base, one, two = (bench.folder / f"{name}.qcow2" for name in ("base", "one", "two"))
    tool = bench.program.parent / "ferry-img"
    subprocess.run([tool, "create", "-q", "-f", "qcow2", base, "1M"], check=True)
    for overlay in (one, two):
        subprocess.run([tool, "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, overlay],
                       check=True)
    auto = ",auto-read-only=on,discard=unmap"
    pairs = {
        "readers": (raw_options(image, ",read-only=on", auto),
                    raw_options(image, ",read-only=on", auto), True),
        "readers of writable files": (raw_options(image, ",read-only=on", ""),
                                      raw_options(image, ",read-only=on", ""), True),
        "reader, writer": (raw_options(image, ",read-only=on", auto), raw_options(image, "", auto),
                           False),
        "writer, reader": (raw_options(image, "", auto), raw_options(image, ",read-only=on", auto),
                           False),
        "writer, -U": (raw_options(image, "", auto),
                       raw_options(image, ",read-only=on,force-share=on",
                                   ",read-only=on,force-share=on"), True),
        "writers": (raw_options(image, "", ""), raw_options(image, "", auto), False),
        "writers that share": (raw_options(image, "", auto, ",share-rw=on"),
                               raw_options(image, "", "", ",share-rw=on"), True),
        "writer, nobody": (raw_options(image, "", auto), raw_options(image, "", "")[:4], True),
        "nobody, writer": (raw_options(image, "", "")[:4], raw_options(image, "", auto), True),
        "overlays": (overlay_options(base, one), overlay_options(base, two), True),
        "overlay twice": (overlay_options(base, one), overlay_options(base, one), False),
        "overlay, base": (overlay_options(base, one),
                          ["-blockdev", "driver=qcow2,node-name=b,file.driver=file,file.filename="
                           f"{base},file.auto-read-only=on"], False),
        "overlay, file of base": (overlay_options(base, one),
                                  ["-blockdev", f"driver=file,node-name=f,filename={base}{auto}"],
                                  True),
        "snapshots": (["-snapshot", "-drive", f"file={image},format=raw,if=virtio"],
                      ["-snapshot", "-drive", f"file={image},format=raw,if=virtio"], True),
    }
    vms = ["ferry", "qemu"] if shutil.which("qemu-system-x86_64") else ["ferry"]
    for name, (first, second, both) in pairs.items():
        for order in [(a, b) for a in vms for b in vms if "ferry" in (a, b)]:
            what = f"{name}, {' and '.join(order)}"
            with Vm(bench, order[0], first) as a:
                with Vm(bench, order[1], second) as b:
                    pass
            expect_that(a.starts, f"{what}: the first: {a.output}")
            expect(f"{what}: {b.output}", b.starts, both)
            expect_that(both or "lock" in b.output, f"{what}: {b.output}")


def test_locks_within(bench):
    """A node beside a drive of its image: it is refused what it does, not that it is there."""
    image = bench.image("within.img")
    drive = ["-drive", f"file={image},format=raw,if=virtio,id=d0"]
    with bench.ferry("-M", "q35", *drive) as ferry:
        ferry.qmp.command("blockdev-add", driver="raw", node_name="r",
                          file={"driver": "file", "filename": str(image)})
        ferry.qmp.command("blockdev-add", driver="raw", node_name="above", file="r")
        expect_refusal(lambda: ferry.qmp.command("blockdev-add", driver="qcow2", node_name="q",
                                                 file="r"), "lock", str(image))
        expect_refusal(lambda: ferry.qmp.command("blockdev-del", node_name="r"), "above")
        ferry.qmp.command("blockdev-del", node_name="above")
        ferry.qmp.command("blockdev-del", node_name="r")
    status, output = bench.run("-M", "q35", "-accel", "qtest", *QUIET, *drive, "-drive",
                               f"file={image},format=raw,if=virtio", check=False)
    expect("status", status, 1)
    expect_that("another drive of this VM" in output, output)
