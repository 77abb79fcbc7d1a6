# SPDX-License-Identifier: MIT
"""What QMP tells of disks and devices, beside Debian's QEMU, which is asked the same."""
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

from kit import pci
from kit.qtest import TIMEOUT
from vmm.bench import QUIET, Fault, expect, expect_that
from vmm.disk import disk_driver

QEMU = shutil.which("qemu-system-x86_64")
NODES = [("query-block", {}), ("query-named-block-nodes", {}),
         ("query-named-block-nodes", {"flat": True})]


def ask(program, options, commands, cwd, env=None):
    """The answers (errors: their text) of a stopped machine to commands, sent one by one."""
    with subprocess.Popen([str(program), *QUIET, "-S", "-qmp", "stdio", *options], cwd=cwd,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env={**os.environ, **(env or {})}, text=True) as process:
        answers = []
        try:
            process.stdout.readline()
            for name, arguments in [("qmp_capabilities", {}), *commands, ("quit", {})]:
                process.stdin.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
                process.stdin.flush()
                answer = {"event": None}
                while "event" in answer:
                    answer = json.loads(process.stdout.readline())
                answers.append(answer.get("return", answer.get("error", {}).get("desc")))
        except (BrokenPipeError, json.JSONDecodeError):
            raise Fault(f"{program} {options}: {process.communicate()[1]}") from None
        process.communicate(timeout=TIMEOUT)
        expect("status", process.returncode, 0)
    return answers[1:-1]


def comparable(answer):
    """Names that are made up are alike; nodes are in an order of their own."""
    if isinstance(answer, dict):
        return {key: comparable(value) for key, value in answer.items()}
    if isinstance(answer, list):
        answer = [comparable(value) for value in answer]
        if answer and isinstance(answer[0], dict) and "node-name" in answer[0]:
            answer.sort(key=lambda node: json.dumps(node, sort_keys=True))
        return answer
    return re.sub(r"^#block\d+$", "#block", answer) if isinstance(answer, str) else answer


def beside_qemu(bench, options, commands):
    """ferry's answers, which are QEMU's if there is a QEMU."""
    ours = ask(bench.program, ["-accel", "qtest", *options], commands, bench.folder, bench.env)
    if QEMU:
        theirs = ask(QEMU, ["-accel", "tcg", *options], commands, bench.folder)
        for command, our, their in zip(commands, ours, theirs):
            expect(f"{' '.join(options)}: {command}", comparable(our), comparable(their))
    return ours


def make_chain(bench):
    """base.qcow2 <- top.qcow2 <- top2.qcow2, with a snapshot and a bitmap; raw.img, raw2.img"""
    for name in ("raw.img", "raw2.img"):
        (bench.folder / name).write_bytes(bytes(1 << 20))
    for command in ("create -q -f qcow2 base.qcow2 4M", "snapshot -c s0 base.qcow2",
                    "create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2",
                    "create -q -f qcow2 -b top.qcow2 -F qcow2 top2.qcow2"):
        subprocess.run(["qemu-img", *command.split()], cwd=bench.folder, check=True)


def test_query_chain(bench):
    """The chain of a drive and of its nodes: how long, which files, what format."""
    make_chain(bench)
    drive = ["-drive", "if=none,id=d0,format=qcow2,file=top2.qcow2"]
    block, nodes, flat = beside_qemu(bench, drive, NODES)
    inserted = block[0]["inserted"]
    image = inserted["image"]
    expect("chain", [inserted["backing_file_depth"], inserted.get("backing_file"),
                     image.get("full-backing-filename")], [2, "top.qcow2", "top.qcow2"])
    base = image.get("backing-image", {}).get("backing-image", {})
    expect("snapshots", [s["name"] for s in base.get("snapshots", [])], ["s0"])
    expect("depths", [sorted(node["backing_file_depth"] for node in found)
                      for found in (nodes, flat)], [[0, 0, 0, 0, 1, 2], [0] * 6])
    expect_that("backing-image" not in json.dumps(flat), "flat=true tells of more than the node")
    top = '"file":{"driver":"file","filename":"top.qcow2"}'
    for backing in ("null", '{"driver":"raw","file":{"driver":"file","filename":"raw.img"}}'):
        beside_qemu(bench, ["-blockdev",
                            f'{{"driver":"qcow2","node-name":"q",{top},"backing":{backing}}}',
                            "-device", "virtio-blk-pci,drive=q,id=disk0"], NODES)


def test_query_filters(bench):
    """Filters that a user asked for as such are there; those of bps= and copy-on-read= are not."""
    make_chain(bench)
    file = "file.driver=qcow2,file.file.driver=file,file.file.filename=top.qcow2"
    for options, driver, group in (
            (["-drive", f"if=none,id=d0,driver=copy-on-read,{file}"], "copy-on-read", None),
            (["-object", "throttle-group,id=tg,x-iops-total=100", "-drive",
              f"if=none,id=d0,driver=throttle,throttle-group=tg,{file},bps=1000000"],
             "throttle", "d0"),
            (["-drive", "if=none,id=d0,format=qcow2,file=top.qcow2,bps=1000000,copy-on-read=on"],
             "qcow2", "d0")):
        block = beside_qemu(bench, options, NODES)[0]
        inserted = block[0]["inserted"]
        expect("the drive", [inserted["drv"], inserted.get("group")], [driver, group])
    # QEMU does not tell the size of what is below this one.
    (block,) = ask(bench.program, ["-accel", "qtest", "-drive", "if=none,id=d0,driver=blkdebug,"
                                   "image.driver=file,image.filename=raw.img"], NODES[:1],
                   bench.folder, bench.env)
    expect("blkdebug", [block[0]["inserted"][key] for key in ("drv", "file", "backing_file_depth")],
           ["blkdebug", "blkdebug::raw.img", 1])


def test_query_bitmaps(bench):
    make_chain(bench)
    subprocess.run(["qemu-img", "bitmap", "--add", "top.qcow2", "b0"], cwd=bench.folder, check=True)
    (block,) = ask(bench.program, ["-accel", "qtest", "-drive",
                                   "if=none,id=d0,format=qcow2,file=top.qcow2"], NODES[:1],
                   bench.folder, bench.env)
    expect("bitmaps", block[0]["inserted"].get("dirty-bitmaps"),
           [{"name": "b0", "count": 0, "granularity": 65536, "recording": True, "busy": False,
             "persistent": True}])


PATHS = [("qom-list", {"path": "/machine/peripheral"}),
         ("qom-list", {"path": "/machine/peripheral-anon"})]


def properties(path, *names):
    return [("qom-get", {"path": path, "property": name}) for name in names]


def test_qom_paths(bench):
    """query-block's qdev is a path that the qom commands know; removable: without a device."""
    make_chain(bench)
    anonymous = "/machine/peripheral-anon/device[0]"
    commands = NODES[:1] + PATHS
    for path in ("/machine/peripheral/disk0/virtio-backend", "disk0/virtio-backend",
                 f"{anonymous}/virtio-backend"):
        commands += properties(path, "type", "drive", "addr", "num-queues")
    commands += properties(anonymous, "type", "addr")
    commands += properties("/machine/peripheral-anon/device[9]", "type")
    commands += properties("/machine/peripheral/disk0/nope", "type")
    block = beside_qemu(bench, [
        "-drive", "if=none,id=d0,format=raw,file=raw.img", "-device",
        "virtio-blk-pci,drive=d0,id=disk0", "-blockdev",
        "qcow2,node-name=q,file.driver=file,file.filename=top.qcow2", "-device",
        "virtio-blk-pci,drive=q", "-drive",
        "if=none,id=d1,format=raw,file=raw2.img,readonly=on"], commands)[0]
    expect("disks", [(disk["device"], disk["removable"], disk.get("qdev")) for disk in block],
           [("d0", False, "/machine/peripheral/disk0/virtio-backend"), ("d1", True, None),
            ("", False, f"{anonymous}/virtio-backend")])


def test_qom_values(bench):
    """Properties are what has become of them."""
    make_chain(bench)
    names = ("addr", "vectors", "num-queues", "rerror", "werror", "logical_block_size", "drive")
    for more, values in (("", [16, 2, 1, "auto", "auto", 512, "d0"]),
                         (",addr=5.0,vectors=4,werror=stop", [40, 4, 1, "auto", "stop", 512, "d0"])):
        got = beside_qemu(bench, ["-drive", "if=none,id=d0,format=raw,file=raw.img", "-device",
                                  f"virtio-blk-pci,drive=d0,id=disk0{more}"],
                          properties("/machine/peripheral/disk0", *names))
        expect("values", got, values)


def test_drive_order(bench):
    """Disks of -drive if=virtio come after all of -device, wherever they stand."""
    make_chain(bench)
    drives = ["-drive", "if=virtio,format=raw,file=raw.img", "-drive",
              "if=virtio,format=qcow2,file=top2.qcow2,id=d1"]
    disks = ["-blockdev", "null-co,node-name=n0", "-blockdev", "null-co,node-name=n1", "-device",
             "virtio-blk-pci,drive=n0,id=disk0", "-device", "virtio-blk-pci,drive=n1"]
    anonymous = [f"/machine/peripheral-anon/device[{n}]" for n in range(3)]
    commands = PATHS + [command for path in ("disk0", *anonymous)
                        for command in properties(path, "addr", "drive")]
    for machine, first in (("pc", 2), ("q35", 1)):
        for options in (drives + disks, disks + drives, disks[:6] + drives + disks[6:]):
            answers = beside_qemu(bench, ["-M", machine, *options], commands)[2:]
            expect("disks", answers, [value for n, drive in enumerate(("n0", "n1", "virtio0", "d1"))
                                      for value in ((first + n) << 3, drive)])
    # An address that is free for -device is not taken by a drive.
    beside_qemu(bench, ["-M", "pc", *drives, *disks[:4], "-device",
                        "virtio-blk-pci,drive=n0,id=disk0,addr=2"],
                properties("disk0", "addr") + properties(anonymous[0], "addr"))


# -- signals while an image is opened ------------------------------------------------------------


class SilentServer:
    """An NBD server that accepts and says nothing, or answers until data is asked for."""

    OPTION, REPLY = 0x49484156454F5054, 0x3E889045565A9
    ACK, INFO, UNSUPPORTED = 1, 3, 0x80000001

    def __init__(self, negotiates):
        self.negotiates, self.peers = negotiates, []
        self.reached = threading.Event()  # a client waits in vain
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        try:
            while True:
                peer, _ = self.listener.accept()
                self.peers.append(peer)
                if self.negotiates:
                    self.negotiate(peer, peer.makefile("rb"))
                self.reached.set()
        except (OSError, struct.error):
            pass

    def negotiate(self, peer, stream):
        peer.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
        stream.read(4)
        while True:
            _, option, length = struct.unpack(">QII", stream.read(16))
            stream.read(length)
            answers = [(self.UNSUPPORTED, b"")]
            if option == 7:  # NBD_OPT_GO
                answers = [(self.INFO, struct.pack(">HQH", 0, 1 << 20, 1)), (self.ACK, b"")]
            for kind, data in answers:
                peer.sendall(struct.pack(">QIII", self.REPLY, option, kind, len(data)) + data)
            if option == 7:
                stream.read(28)  # the first request
                return

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()
        for peer in self.peers:
            peer.close()


def test_signal_while_opening(bench):
    """A signal ends a ferry that waits for an NBD server: at once, and nothing is left behind."""
    make_chain(bench)
    subprocess.run(["qemu-img", "bitmap", "--add", "top.qcow2", "b0"], cwd=bench.folder, check=True)
    temporary = bench.folder / "tmp"
    temporary.mkdir()
    for number, negotiates, image in (
            (signal.SIGINT, False, "nbd://{}/x,format=raw"), (signal.SIGTERM, False, "nbd://{}/x"),
            (signal.SIGHUP, True, "nbd://{}/x"), (signal.SIGTERM, True, "nbd://{}/x,format=qcow2")):
        with SilentServer(negotiates) as server:
            with bench.start(
                    "-accel", "qtest", *QUIET, "-pidfile", "pid", "-chardev",
                    "socket,id=c0,path=sock,server=on,wait=off", "-drive",
                    "if=none,id=d0,format=qcow2,file=top.qcow2", "-drive",
                    "if=none,id=d1,format=raw,file=raw.img,snapshot=on", "-drive",
                    f"if=none,id=d2,file={image.format(server.address)}", stderr=subprocess.PIPE,
                    cwd=bench.folder, text=True) as process:
                try:
                    expect_that(server.reached.wait(TIMEOUT), "ferry does not come")
                    time.sleep(0.1)
                    began = time.monotonic()
                    process.send_signal(number)
                    _, output = process.communicate(timeout=TIMEOUT)
                finally:
                    process.kill()
        expect(f"status ({output})", process.returncode, 0)
        expect_that(re.fullmatch(rf"(ferry: warning: .*\n)*ferry: terminating on signal {int(number)}"
                                 r" from pid \d+\n", output), f"output {output!r}")
        expect_that(time.monotonic() - began < 5, "it takes long")
        left = {path.name for path in bench.folder.iterdir()}
        expect("files that are left", left & {"pid", "sock"}, set())
    text = subprocess.run(["qemu-img", "info", "top.qcow2"], cwd=bench.folder, check=True,
                          stdout=subprocess.PIPE, text=True).stdout
    expect_that("in-use" not in text, f"an image that was open was not closed: {text}")


def test_signal_while_adding(bench):
    """The same for blockdev-add, to which the client still gets an answer."""
    for negotiates in (False, True):
        with SilentServer(negotiates) as server, bench.ferry("-M", "q35") as ferry:
            host, port = server.address.split(":")
            ferry.qmp.raw_send(json.dumps({"execute": "blockdev-add", "arguments": {
                "driver": "qcow2", "node-name": "n", "file": {
                    "driver": "nbd", "server": {"type": "inet", "host": host, "port": port}}}}))
            expect_that(server.reached.wait(TIMEOUT), "ferry does not come")
            time.sleep(0.1)
            began = time.monotonic()
            ferry.process.terminate()
            expect("event", ferry.qmp.event("SHUTDOWN")["data"]["reason"], "host-signal")
            expect("status", ferry.wait(), 0)
            expect_that(time.monotonic() - began < 5, "it takes long")


def test_signal_spares_disks(bench):
    """What a guest has written is flushed all the same, over a connection that stays."""
    image, path = bench.image("flush.img"), bench.folder / "nbd.sock"
    server = subprocess.Popen([bench.program.parent / "ferry-nbd", "-f", "raw", "-k", path, image])
    try:
        end = time.monotonic() + TIMEOUT
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.01)
        with bench.ferry("-M", "q35", "-drive",
                         f"if=virtio,format=raw,file=nbd+unix:///?socket={path}") as ferry:
            disk = disk_driver(bench, ferry, "q35")
            disk.start(1 << pci.F_VERSION_1 | 1 << pci.F_BLK_FLUSH)
            expect("write", disk.request(pci.OUT, 3, data=b"n" * 512)[0], 0)
            ferry.process.terminate()
            ferry.qmp.event("SHUTDOWN")
            expect("status", ferry.wait(), 0)
            expect_that(re.fullmatch(r"ferry: terminating on .*\n", ferry.output), ferry.output)
    finally:
        server.terminate()
        server.wait()


# -- the list of commands ------------------------------------------------------------------------


def test_documented_commands(bench):
    """ferry(1) has the commands that there are."""
    manual = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "ferry.1").read_text()
    table = re.search(r'\.\\" QMP commands\n(.*?)\.\\" end', manual, re.DOTALL)
    if not table:
        raise Fault("ferry.1 has no table of QMP commands")
    documented = [name.replace("\\-", "-") for line in table[1].splitlines()
                  if line.startswith(".B ") for name in line[3:].split()]
    (commands,) = ask(bench.program, ["-accel", "qtest"], [("query-commands", {})], bench.folder,
                      bench.env)
    expect("commands", sorted(documented), sorted(command["name"] for command in commands))
