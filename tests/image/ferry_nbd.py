#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""ferry-nbd under real clients: libnbd's nbdinfo and nbdcopy, qemu-img and qemu-io, over unix sockets,
TCP and TLS; beside qemu-nbd where what they say can be compared.

    ferry_nbd.py --build BUILD [--only NAME]
"""
import argparse
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from kit import report  # noqa: E402

SECONDS = 60
MIB = 1 << 20


class Fault(Exception):
    pass


def expect(condition, text):
    if not condition:
        raise Fault(text)


def run(*words, status=0, **more):
    """Runs a client; its output. A status of None is any."""
    done = subprocess.run([str(word) for word in words], text=True, errors="replace",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS,
                          check=False, **more)
    if status is not None and done.returncode != status:
        raise Fault(f"{words[0]}: status {done.returncode}: {done.stdout.strip()[-300:]}")
    return done.stdout


class Server:
    """A server over a unix socket, ended by SIGTERM; it must end with status 0 then."""

    def __init__(self, program, folder, *words, persistent=True, listen=None):
        self.path = folder / f"{os.path.basename(str(program))}-{random.randrange(10**9)}.sock"
        place = listen if listen is not None else ["-k", str(self.path)]
        self.log = open(f"{self.path}.log", "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [str(program), *place, *(["-t"] if persistent else []), *map(str, words)],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, cwd=folder)
        self.listen = listen

    def __enter__(self):
        deadline = time.monotonic() + SECONDS
        while self.listen is None and not self.path.exists():
            expect(self.process.poll() is None, f"the server ended: {self.output()}")
            expect(time.monotonic() < deadline, "the server does not listen")
            time.sleep(0.01)
        return self

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            status = self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = "none: it does not end"
        if kind is None:
            expect(status == 0, f"status {status}: {self.output()}")
            expect(not self.path.exists(), "the socket's path is left behind")

    def output(self):
        self.log.seek(0)
        return self.log.read()[-400:].strip()

    def uri(self, export=""):
        return f"nbd+unix:///{export}?socket={self.path}"


def random_file(path, size, seed=1):
    path.write_bytes(random.Random(seed).randbytes(size))
    return path


def same_files(a, b):
    return run("cmp", a, b, status=None) == ""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for_port(port):
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    raise Fault(f"nobody listens at port {port}")


# -- what clients see --------------------------------------------------------------------------


def case_info(nbd, folder):
    """nbdinfo and qemu-nbd -L say of ferry-nbd what they say of qemu-nbd."""
    run("qemu-img", "create", "-q", "-f", "qcow2", folder / "i.qcow2", "10M")
    run("qemu-io", "-c", "write 1M 2M", "-c", "write -z 4M 1M", folder / "i.qcow2")
    shutil.copy(folder / "i.qcow2", folder / "j.qcow2")
    words = ["-x", "one", "-D", "a description", "-A", "-e", "3", "-f", "qcow2"]
    seen = []
    for program, image in ((nbd, "i.qcow2"), ("qemu-nbd", "j.qcow2")):
        with Server(program, folder, *words, image) as server:
            info = json.loads(run("nbdinfo", "--json", server.uri("one")))["exports"][0]
            info.pop("uri", None)
            info.pop("content", None)
            # qemu-nbd of 7.2 does not offer this for writers, though it might.
            info["can_multi_conn"] = True
            seen.append((info, json.loads(run("nbdinfo", "--json", "--map", server.uri("one"))),
                         run("nbdinfo", "--map=qemu:allocation-depth", server.uri("one")),
                         run("qemu-img", "map", "--output=json", server.uri("one"))))
            if program == nbd:
                listed = run("qemu-nbd", "-L", "-k", server.path)
                own = run(nbd, "-L", "-k", server.path)
                expect("export: 'one'" in listed and "a description" in listed, listed)
                expect(own == listed, f"-L says:\n{own}\nqemu-nbd -L:\n{listed}")
    for what, ours, theirs in zip(("nbdinfo", "map", "depth", "qemu-img map"), *seen):
        expect(ours == theirs, f"{what}: {ours} instead of {theirs}")


def case_copy(nbd, folder):
    """nbdcopy there and back, with several connections; qemu-img compares."""
    source = random_file(folder / "source", 40 * MIB)
    for threads in (0, 2):
        image = folder / f"copy{threads}"
        with open(image, "wb") as f:
            f.truncate(40 * MIB)
        with Server(nbd, folder, "-e", "0", "-f", "raw", f"--threads={threads}", image) as server:
            run("nbdcopy", "--flush", source, server.uri())
            expect(same_files(source, image), "what nbdcopy wrote differs")
            run("nbdcopy", server.uri(), folder / "back")
            expect(same_files(source, folder / "back"), "what nbdcopy read differs")
            run("qemu-img", "compare", "-f", "raw", "-F", "raw", source, server.uri())
            run("nbdcopy", "--synchronous", server.uri(), folder / "back2")
            expect(same_files(source, folder / "back2"), "what nbdcopy --synchronous read differs")


def case_convert(nbd, folder):
    """qemu-img convert reads and writes; holes stay holes."""
    source = folder / "sparse"
    with open(source, "wb") as f:
        f.truncate(64 * MIB)
        f.seek(10 * MIB)
        f.write(random.Random(3).randbytes(MIB))
    target = folder / "target"
    with open(target, "wb") as f:
        f.truncate(64 * MIB)
    with Server(nbd, folder, "-e", "0", "-f", "raw", "--discard=unmap", target) as server:
        run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source, server.uri())
        run("qemu-img", "convert", "-f", "raw", "-O", "raw", server.uri(), folder / "again")
    expect(same_files(source, target) and same_files(source, folder / "again"), "copies differ")
    used = (folder / "again").stat().st_blocks * 512
    expect(used < 4 * MIB, f"a copy of 1 MiB in 64 uses {used} bytes")


def case_qemu_io(nbd, folder):
    """Requests of qemu-io: FUA, zeroes, discards that free blocks, read-only."""
    image = random_file(folder / "io", 8 * MIB)
    with Server(nbd, folder, "-e", "0", "-f", "raw", "--discard=unmap", image) as server:
        out = run("qemu-io", "-f", "raw", "-d", "unmap", "-c", "write -P 5 -f 0 1M", "-c",
                  "read -P 5 0 1M", "-c", "write -zu 1M 1M", "-c", "read -P 0 1M 1M", "-c",
                  "discard 4M 4M", "-c", "read -P 0 4M 4M", "-c", "flush", "-c", "write -P 9 3 5",
                  "-c", "read -P 9 3 5", server.uri())
        expect("failed" not in out, out)
        used = image.stat().st_blocks * 512
        expect(used <= 4 * MIB, f"after the discard {used} bytes are used")
    with Server(nbd, folder, "-r", "-e", "0", "-f", "raw", image) as server:
        out = run("qemu-io", "-f", "raw", "-c", "write 0 512", server.uri(), status=1)
        expect("read-only" in out.lower() or "Permission" in out, out)
        run("qemu-io", "-r", "-f", "raw", "-c", "read -P 5 8 1k", server.uri())


def case_offset(nbd, folder):
    """-o shows a part."""
    image = random_file(folder / "part", 2 * MIB)
    with Server(nbd, folder, "-f", "raw", "-o", "512k", image) as server:
        run("nbdcopy", server.uri(), folder / "rest")
    expect((folder / "rest").read_bytes() == image.read_bytes()[512 * 1024:], "another part")


def case_raw_over_qcow2(nbd, folder):
    """A part of an image, by a raw node above it; what the image has not, its backing file has."""
    base = random_file(folder / "base", 8 * MIB)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", folder / "over")
    options = f"driver=raw,offset=1M,size=4M,file.driver=qcow2,file.file.filename={folder / 'over'}"
    with Server(nbd, folder, "-r", "--image-opts", options) as server:
        run("nbdcopy", server.uri(), folder / "part")
        status = run("nbdinfo", "--map", server.uri())
    expect((folder / "part").read_bytes() == base.read_bytes()[MIB:5 * MIB], "another part")
    expect("data" in status and "zero" not in status, status)


def case_throttle(nbd, folder):
    """An image below a throttle node, with its group made by --object."""
    image = random_file(folder / "slow", 4 * MIB)
    with Server(nbd, folder, "--object", "throttle-group,id=g0,x-bps-total=4194304",
                "--image-opts", f"driver=throttle,throttle-group=g0,file.driver=raw,"
                f"file.file.driver=file,file.file.filename={image}") as server:
        begin = time.monotonic()
        run("nbdcopy", server.uri(), folder / "slow.copy")
        spent = time.monotonic() - begin
    expect(same_files(image, folder / "slow.copy"), "the copy differs")
    expect(spent > 0.5, f"4 MiB at 4 MiB/s took {spent:.2f} s")


def case_exports(nbd, folder):
    """Several exports, used at the same time."""
    files = [random_file(folder / f"e{i}", 4 * MIB, i) for i in range(4)]
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", files[3], folder / "e3.qcow2")
    words = [f"--export=name=n{i},file={files[i]},format=raw,description=file {i}"
             + (",read-only=on" if i == 1 else "") for i in range(3)]
    words.append("--export=name=n3,image.driver=qcow2,image.file.driver=file,"
                 f"image.file.filename={folder}/e3.qcow2")
    with Server(nbd, folder, "-e", "0", *words) as server:
        names = [e["export-name"] for e in
                 json.loads(run("nbdinfo", "--json", "--list", server.uri()))["exports"]]
        expect(names == ["n0", "n1", "n2", "n3"], names)
        clients = [subprocess.Popen(["nbdcopy", server.uri(f"n{i % 4}"), folder / f"c{i}"])
                   for i in range(8)]
        for client in clients:
            expect(client.wait(SECONDS) == 0, "nbdcopy failed")
        for i in range(8):
            expect(same_files(files[i % 4], folder / f"c{i}"), f"export n{i % 4} differs")
        run("nbdinfo", server.uri("n4"), status=1)
        expect(json.loads(run("nbdinfo", "--json", server.uri("n1")))["exports"][0]
               ["is_read_only"], "n1 is not read-only")


def case_tcp(nbd, folder):
    """TCP, with the clients of two at once and one that waits for its turn."""
    image = random_file(folder / "tcp", 4 * MIB)
    port = free_port()
    with Server(nbd, folder, "-f", "raw", "-e", "2", image,
                listen=["-p", str(port), "-b", "127.0.0.1"]) as server:
        wait_for_port(port)
        first = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
        for s in first:
            s.settimeout(SECONDS)
            expect(len(s.recv(18, socket.MSG_WAITALL)) == 18, "no greeting")
        third = subprocess.Popen(["nbdcopy", "--connections=1", f"nbd://127.0.0.1:{port}",
                                  folder / "third"])
        time.sleep(0.3)
        expect(third.poll() is None, "-e 2 lets a third client in")
        first[0].close()
        expect(third.wait(SECONDS) == 0, "the third client failed")
        expect(same_files(image, folder / "third"), "it read something else")
        first[1].close()
        expect(server.process.poll() is None, "the server has gone")


@contextlib.contextmanager
def gone_at_failure(pid):
    """A server in the background does not outlive a test that fails."""
    try:
        yield pid
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        raise


def case_life(nbd, folder):
    """It ends with its last client, unless -t; --fork, --pid-file, signals."""
    image = random_file(folder / "life", MIB)
    with Server(nbd, folder, "-f", "raw", "-e", "4", image, persistent=False) as server:
        run("nbdinfo", "--size", server.uri())
        expect(server.process.wait(SECONDS) == 0, "status is not 0")
    path, pid_file = folder / "fork.sock", folder / "pid"
    run(nbd, "-f", "raw", "-t", "-k", path, "--fork", "--pid-file", pid_file, image)
    with gone_at_failure(int(pid_file.read_text())) as pid:
        run("nbdinfo", "--size", f"nbd+unix:///?socket={path}")
        os.kill(pid, signal.SIGINT)
        deadline = time.monotonic() + SECONDS
        while path.exists() or pid_file.exists():
            expect(time.monotonic() < deadline, "SIGINT does not end it")
            time.sleep(0.02)
    out = run(nbd, "-f", "raw", "--fork", "-k", path, folder / "nofile", status=1)
    expect("nofile" in out, f"a server that does not start says: {out}")
    # The path of a server that was killed is taken over, that of one that lives is not.
    with Server(nbd, folder, "-f", "raw", image) as server:
        out = run(nbd, "-f", "raw", "-r", "-k", server.path, image, status=1)
        expect("in use" in out or "lock" in out, out)
        server.process.kill()
        server.process.wait()
        with Server(nbd, folder, "-f", "raw", image,
                    listen=["-k", str(server.path)]) as second:
            deadline = time.monotonic() + SECONDS
            while run("nbdinfo", "--size", server.uri(), status=None).strip() != str(MIB):
                expect(time.monotonic() < deadline and second.process.poll() is None,
                       second.output())
                time.sleep(0.05)
        server.process.returncode = 0  # it was killed on purpose


def case_activation(nbd, folder):
    """LISTEN_FDS: the socket comes from whoever started it."""
    image = random_file(folder / "act", MIB)
    path = folder / "act.sock"
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(path))
        s.listen()
        script = f'exec 3<&{s.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
        with subprocess.Popen(["bash", "-c", script, "bash", nbd, "-f", "raw", image],
                              pass_fds=[s.fileno()]) as process:
            run("nbdcopy", f"nbd+unix:///?socket={path}", folder / "act.copy")
            expect(process.wait(SECONDS) == 0, "status is not 0")
    expect(same_files(image, folder / "act.copy"), "the copy differs")


def start_copy(words):
    return subprocess.Popen(["nbdcopy", *words], stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)


def copied(pid):
    """Bytes that nbdcopy has read from a file or written to one."""
    with contextlib.suppress(OSError):  # it ends
        fields = dict(line.split(": ") for line in
                      pathlib.Path(f"/proc/{pid}/io").read_text().splitlines())
        return int(fields["rchar"]) + int(fields["wchar"])
    return 0


def kill_while_copying(words, size):
    """Kills a client that has copied something, but not all."""
    for _ in range(20):
        client, done = start_copy(words), 0
        while client.poll() is None and done < size // 4:
            time.sleep(0.001)
            done = copied(client.pid)
        client.kill()
        if client.wait() == -signal.SIGKILL and size // 4 <= done < size:
            return
    raise Fault(f"{words} was never killed while it copied")


def case_dead_clients(nbd, folder):
    """Clients killed in the middle of what they do; the others notice nothing."""
    source = random_file(folder / "big", 32 * MIB)
    image = random_file(folder / "victim", 32 * MIB, 2)
    with Server(nbd, folder, "-e", "0", "-f", "raw", "--threads=1", image) as server:
        write, read = (source, server.uri()), (server.uri(), folder / "junk")
        for words in (read, write):
            kill_while_copying(words, 32 * MIB)
        for i in range(4):
            client = start_copy(read if i % 2 else write)
            time.sleep(0.02 * (i + 1))  # it may have begun, or have ended
            client.kill()
            client.wait()
        run("nbdcopy", "--flush", source, server.uri())
        expect(same_files(source, image), "what was written differs")


def case_sigterm(nbd, folder):
    """SIGTERM while clients read and write, and one that takes nothing: it ends soon, with status 0."""
    image = folder / "term"
    with open(image, "wb") as f:
        f.truncate(256 * MIB)
    source = random_file(folder / "s", 64 * MIB)
    for threads in (0, 2):
        with Server(nbd, folder, "-e", "0", "-f", "raw", f"--threads={threads}", image) as server:
            clients = [subprocess.Popen(["nbdcopy", *words], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
                       for words in ((source, server.uri()), (server.uri(), folder / "junk"))]
            lazy = socket.socket(socket.AF_UNIX)
            lazy.connect(str(server.path))
            lazy.sendall(bytes.fromhex("00000003") + b"IHAVEOPT" + bytes.fromhex("0000000100000000"))
            for cookie in range(20):
                lazy.sendall(bytes.fromhex("2560951300000000") + cookie.to_bytes(8, "big")
                             + bytes(8) + MIB.to_bytes(4, "big"))
            time.sleep(0.1)
            begin = time.monotonic()
            server.process.terminate()
            status = server.process.wait(SECONDS)
            expect(status == 0, f"status {status}: {server.output()}")
            expect(time.monotonic() - begin < 20, "it took long")
            for client in clients:
                client.kill()
                client.wait()
            lazy.close()


def begin_requests(path, kind, data, count):
    """A client that asks for the default export and begins requests of a MiB; its socket."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(SECONDS)
    client.connect(str(path))
    expect(len(client.recv(18, socket.MSG_WAITALL)) == 18, "no greeting")
    client.sendall(bytes.fromhex("00000003") + b"IHAVEOPT" + bytes.fromhex("0000000100000000"))
    expect(len(client.recv(10, socket.MSG_WAITALL)) == 10, "no export")
    for cookie in range(count):
        client.sendall(bytes.fromhex("25609513") + kind.to_bytes(4, "big")
                       + cookie.to_bytes(8, "big") + (cookie * MIB).to_bytes(8, "big")
                       + MIB.to_bytes(4, "big") + data)
    return client


def write_replies(client):
    """Cookies of the writes that are done."""
    cookies = []
    while reply := client.recv(16, socket.MSG_WAITALL):
        expect(reply[:8] == bytes.fromhex("6744669800000000"), f"a reply {reply.hex()}")
        cookies.append(int.from_bytes(reply[8:], "big"))
    return cookies


def case_sigterm_throttle(nbd, folder):
    """SIGTERM while requests wait for a throttle node, which would let them go in minutes: it ends
    soon, they are done, and writers are told so. A CACHE of 1 MiB and a FUA TRIM are more than one
    request for the image."""
    for threads in (0, 1):
        image = folder / f"throttled{threads}"
        with open(image, "wb") as f:
            f.truncate(16 * MIB)
        with Server(nbd, folder, "-e", "0", f"--threads={threads}", "--object",
                    "throttle-group,id=g0,x-bps-total=65536", "--image-opts",
                    "driver=throttle,throttle-group=g0,file.driver=raw,file.file.driver=file,"
                    f"file.file.filename={image}") as server:
            data = random.Random(threads).randbytes(MIB)
            writer = begin_requests(server.path, 1, data, 16)
            others = [begin_requests(server.path, kind, b"", 4) for kind in (5, 0x10004)]
            time.sleep(0.2)
            begin = time.monotonic()
            server.process.terminate()
            status = server.process.wait(SECONDS)
            spent = time.monotonic() - begin
            expect(status == 0, f"status {status}: {server.output()}")
            expect(spent < 10, f"it took {spent:.1f} s")
            done = write_replies(writer)
            expect(len(done) >= 8, f"{len(done)} of 16 writes are done")
            with open(image, "rb") as f:
                for cookie in done:
                    f.seek(cookie * MIB)
                    expect(f.read(MIB) == data, f"write {cookie} is said to be done")
            for client in (writer, *others):
                client.close()


def case_bitmap(nbd, folder):
    """A dirty bitmap as qemu-nbd shows it."""
    run("qemu-img", "create", "-q", "-f", "qcow2", folder / "b.qcow2", "16M")
    run("qemu-img", "bitmap", "--add", folder / "b.qcow2", "b0")
    run("qemu-io", "-c", "write 1M 128k", "-c", "write 7M 1M", folder / "b.qcow2")
    for state in ("enable", "disable"):
        run("qemu-img", "bitmap", f"--{state}", folder / "b.qcow2", "b0")
        seen = []
        for program in (nbd, "qemu-nbd"):
            with Server(program, folder, "-r", "-B", "b0", "-f", "qcow2", "b.qcow2") as server:
                contexts = json.loads(run("nbdinfo", "--json", server.uri()))["exports"][0]["contexts"]
                dirty = run("nbdinfo", "--map=qemu:dirty-bitmap:b0", server.uri())
                seen.append((contexts, dirty))
        expect(seen[0] == seen[1], f"{state}: {seen[0]} instead of {seen[1]}")
        expect("dirty" in dirty, dirty)
    # In a backing file, behind one that does not have it; images are longer or shorter than it is.
    for size, words in (("24M", ["-r"]), ("4M", [])):
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "b.qcow2", "-F", "qcow2",
            folder / "middle.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "middle.qcow2", "-F", "qcow2",
            folder / "top.qcow2", size)
        run("qemu-io", "-c", "write 3M 64k", folder / "top.qcow2")
        maps = []
        for program in (nbd, "qemu-nbd"):
            with Server(program, folder, *words, "-B", "b0", "-f", "qcow2", "top.qcow2") as server:
                maps.append(run("nbdinfo", "--map=qemu:dirty-bitmap:b0", server.uri()))
        expect(maps[0] == maps[1], f"{size}, {words}: {maps[0]} instead of {maps[1]}")
        expect("dirty" in maps[0], maps[0])
    out = run(nbd, "-r", "-B", "b1", "-f", "qcow2", "-k", folder / "x.sock", folder / "b.qcow2",
              status=1)
    expect("Bitmap 'b1' is not found" in out, out)


def case_snapshot(nbd, folder):
    """-l: an internal snapshot, read-only."""
    image = folder / "s.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", image, "4M")
    run("qemu-io", "-c", "write -P 1 0 4M", image)
    run("qemu-img", "snapshot", "-c", "then", image)
    run("qemu-io", "-c", "write -P 2 0 4M", image)
    for which in ("then", "snapshot.name=then"):
        with Server(nbd, folder, "-l", which, "-f", "qcow2", image) as server:
            run("qemu-io", "-r", "-f", "raw", "-c", "read -P 1 0 4M", server.uri())
    run("qemu-img", "snapshot", "-c", "1", image)  # a name that is an id
    with Server(nbd, folder, "-l", "snapshot.name=1", "-f", "qcow2", image) as server:
        run("qemu-io", "-r", "-f", "raw", "-c", "read -P 2 0 4M", server.uri())
    for which in ("snapshot.name=2", "snapshot.id=then", "snapshot.id=1,snapshot.name=1"):
        run(nbd, "-l", which, "-f", "qcow2", "-k", folder / "y.sock", image, status=1)
    out = run(nbd, "-l", "never", "-f", "qcow2", "-k", folder / "y.sock", image, status=1)
    expect("never" in out, out)


# -- TLS ---------------------------------------------------------------------------------------

TEMPLATES = {
    "ca": "cn = \"ferry test\"\nca\ncert_signing_key\n",
    "server": "organization = \"ferry\"\ncn = \"localhost\"\ndns_name = \"localhost\"\n"
              "ip_address = \"127.0.0.1\"\ntls_www_server\nencryption_key\nsigning_key\n",
    "client": "organization = \"ferry\"\ncn = \"client\"\ntls_www_client\nencryption_key\n"
              "signing_key\n",
}


def make_certificates(folder, names=("ca", "server", "client")):
    folder.mkdir()
    for name in names:
        (folder / f"{name}.info").write_text(TEMPLATES[name])
        key, cert = folder / f"{name}-key.pem", folder / f"{name}-cert.pem"
        run("certtool", "--generate-privkey", "--key-type=ecdsa", "--outfile", key)
        if name == "ca":
            run("certtool", "--generate-self-signed", "--load-privkey", key, "--template",
                folder / "ca.info", "--outfile", cert)
        else:
            run("certtool", "--generate-certificate", "--load-ca-certificate",
                folder / "ca-cert.pem", "--load-ca-privkey", folder / "ca-key.pem",
                "--load-privkey", key, "--template", folder / f"{name}.info", "--outfile", cert)


def check_tls_names(nbd, folder, words, image, client):
    """Over TCP, -L checks the name that it connects to and who signed the certificate."""
    port = free_port()
    strangers = folder / "strangers"
    make_certificates(strangers, ["ca"])
    for name in ("client-cert.pem", "client-key.pem"):
        shutil.copy(folder / "pki" / name, strangers)
    other_ca = f"tls-creds-x509,id=c0,endpoint=client,dir={strangers}"
    with Server(nbd, folder, *words, image, listen=["-p", str(port), "-b", "0.0.0.0"]):
        wait_for_port(port)
        for host, creds, more, wanted in (
                ("localhost", client, [], "exports available: 1"),
                ("127.0.0.1", client, ["--tls-hostname", "127.0.0.1"], "exports available: 1"),
                ("127.0.0.2", client, [], "certificate"),
                ("127.0.0.1", other_ca, [], "certificate"),
                ("127.0.0.1", client, ["--tls-hostname", "wrong.example"], "-b wrong.example")):
            out = run(nbd, "-L", "-b", host, "-p", port, "--object", creds, "--tls-creds", "c0",
                      *more, status=0 if "available" in wanted else 1)
            expect(wanted in out, f"{host} {more}: {out}")


def case_tls_x509(nbd, folder):
    """Certificates: with them clients come in, without or in the clear they do not."""
    pki = folder / "pki"
    make_certificates(pki)
    image = random_file(folder / "tls", 4 * MIB)
    words = ["-f", "raw", "-e", "0", "--object",
             f"tls-creds-x509,id=t0,endpoint=server,dir={pki},verify-peer=on", "--tls-creds", "t0"]
    with Server(nbd, folder, *words, image) as server:
        uri = f"nbds+unix://localhost/?socket={server.path}&tls-certificates={pki}"
        run("nbdcopy", uri, folder / "tls.copy")
        expect(same_files(image, folder / "tls.copy"), "the copy differs")
        run("nbdcopy", image, uri)
        out = run("nbdinfo", "--size", server.uri(), status=1)
        expect("TLS" in out or "tls" in out, f"in the clear: {out}")
        client = f"tls-creds-x509,id=c0,endpoint=client,dir={pki}"
        out = run("qemu-img", "compare", "--object", client, "--image-opts",
                  f"driver=raw,file.driver=file,file.filename={image}",
                  "driver=raw,file.driver=nbd,file.server.type=unix,"
                  f"file.server.path={server.path},file.tls-creds=c0,file.tls-hostname=localhost")
        expect("Images are identical" in out, f"qemu-img compare: {out}")
        nobody = folder / "nobody"
        nobody.mkdir()
        shutil.copy(pki / "ca-cert.pem", nobody)
        run("nbdinfo", "--size", f"nbds+unix://localhost/?socket={server.path}"
            f"&tls-certificates={nobody}", status=1)
        # Certificates are not checked over unix sockets: that has to be asked for.
        out = run(nbd, "-L", "-k", server.path, "--object", client, "--tls-creds", "c0",
                  "--tls-hostname", "localhost", status=1)
        expect("verify-peer=off" in out, out)
        out = run(nbd, "-L", "-k", server.path, "--object", f"{client},verify-peer=off",
                  "--tls-creds", "c0")
        expect("exports available: 1" in out, out)
    check_tls_names(nbd, folder, words, image, client)
    # A name that nobody has verified is anybody's.
    unverified = [word.replace("verify-peer=on", "verify-peer=off") for word in words]
    out = run(nbd, "-k", folder / "x.sock", *unverified, "--object",
              "authz-simple,id=a0,identity=CN=client", "--tls-authz", "a0", image, status=1)
    expect("verify-peer=on" in out, out)
    name = "O=ferry,CN=client"
    for program, identity, status in ((nbd, name, 0), ("qemu-nbd", name, 0),
                                      (nbd, "CN=client,O=ferry", 1), (nbd, "CN=other", 1)):
        identity = identity.replace(",", ",,")
        with Server(program, folder, *words, "--object", f"authz-simple,id=a0,identity={identity}",
                    "--tls-authz", "a0", image) as server:
            uri = f"nbds+unix://localhost/?socket={server.path}&tls-certificates={pki}"
            run("nbdinfo", "--size", uri, status=status)


def case_tls_psk(nbd, folder):
    """A shared key."""
    keys = folder / "psk"
    keys.mkdir()
    run("psktool", "-u", "alice", "-p", keys / "keys.psk")
    image = random_file(folder / "psk.img", 2 * MIB)
    with Server(nbd, folder, "-f", "raw", "-e", "0", "--object",
                f"tls-creds-psk,id=p0,endpoint=server,dir={keys}", "--tls-creds", "p0",
                image) as server:
        uri = f"nbds+unix://alice@localhost/?socket={server.path}&tls-psk-file={keys}/keys.psk"
        run("nbdcopy", uri, folder / "psk.copy")
        expect(same_files(image, folder / "psk.copy"), "the copy differs")
        uri = uri.replace("alice", "mallory")
        run("nbdinfo", "--size", uri, status=1)
    out = run(nbd, "-k", folder / "x.sock", "-f", "raw", "--object",
              f"tls-creds-psk,id=p0,endpoint=server,dir={keys}", "--tls-creds", "p0", "--object",
              "authz-simple,id=a0,identity=alice", "--tls-authz", "a0", image, status=1)
    expect("--tls-authz needs tls-creds-x509" in out, out)


def case_words(nbd, folder):
    """-k counts, whatever -p and -b say; a format that was guessed is told; names of exports."""
    image = random_file(folder / "words", MIB)
    with Server(nbd, folder, "-p", "1", "-b", "203.0.113.1", image) as server:
        run("nbdinfo", "--size", server.uri())
        expect("Image format was not specified" in server.output(), server.output())
    with Server(nbd, folder, "-f", "raw", "-x", "ex", "-e", "0", image) as server:
        expect("WARNING" not in server.output(), server.output())
        for tool in ("qemu-img", nbd.with_name("ferry-img")):
            out = run(tool, "info", "-f", "raw", server.uri("ex"))
            expect(f"image: nbd+unix:///ex?socket={server.path}" in out, out)
    with Server(nbd, folder, "-f", "raw", "-e", "0", image) as server:
        for tool in ("qemu-img", nbd.with_name("ferry-img")):
            out = run(tool, "info", "-f", "raw", server.uri())
            expect(f"image: nbd+unix://?socket={server.path}" in out, out)
        for tool in ("qemu-io", nbd.with_name("ferry-io")):
            out = run(tool, "-r", "-f", "raw", "-c", "info", server.uri(), status=1)
            expect(out == "format name: raw\n", out)


# -- command lines that are wrong ----------------------------------------------------------------

WRONG = [
    ([], "Invalid number of arguments"),
    (["a", "b"], "Invalid number of arguments"),
    (["nofile"], "No such file or directory"),
    (["-f", "foo", "{image}"], "Unknown driver 'foo'"),
    (["-e", "x", "{image}"], "Invalid shared device number 'x'"),
    (["-p", "70000", "{image}"], "Invalid port '70000'"),
    (["--cache=none", "-n", "{image}"], "-n and --cache can only be specified once"),
    (["--aio=threads", "--aio=threads", "{image}"], "--aio can only be specified once"),
    (["--discard=off", "--discard=off", "{image}"], "--discard can only be specified once"),
    (["-k", "relative", "{image}"], "socket path must be absolute"),
    (["-k", "/{long}", "{image}"], "longer than"),
    (["--cache=bad", "{image}"], "Invalid cache"),
    (["--aio=bad", "{image}"], "Invalid aio"),
    (["--discard=bad", "{image}"], "Invalid discard mode"),
    (["--detect-zeroes=bad", "{image}"], "detect_zeroes"),
    (["--detect-zeroes=unmap", "{image}"], "without setting discard"),
    (["-o", "1G", "-f", "raw", "{image}"], "past the end of the image"),
    (["-x", "{long}", "-f", "raw", "{image}"], "longer than 4096"),
    (["-s", "{image}"], "--snapshot is not supported"),
    (["-c", "/dev/nbd0", "{image}"], "nbd-client"),
    (["-B", "b", "-f", "raw", "{image}"], "Bitmap 'b' is not found"),
    (["-L", "{image}"], "incompatible with a file name"),
    (["--tls-creds", "t", "{image}"], "No TLS credentials with id 't'"),
    (["--tls-hostname", "t", "{image}"], "hostname"),
    (["-L", "--tls-hostname", "t"], "without --tls-creds"),
    *[(["-L", *words], "List mode is incompatible with per-device settings") for words in (
        ["-x", "n"], ["-D", "d"], ["-o", "1k"], ["-B", "b"], ["-f", "raw"], ["-l", "s"], ["-A"],
        ["-n"], ["--cache=none"], ["--aio=threads"], ["--discard=unmap"], ["--fork", "-f", "raw"],
        ["--image-opts"], ["--export", "name=a,file={image}"])],
    (["-L", "--fork"], "List mode is incompatible with forking"),
    (["--tls-authz", "t", "{image}"], "without --tls-creds"),
    (["--object", "foo,id=x", "{image}"], "invalid object type: foo"),
    (["--object", "tls-creds-x509,id=x,dir=/nowhere,endpoint=server", "{image}"], "/nowhere"),
    (["--export", "file={image}"], "name= is missing"),
    (["--export", "name=a"], "file=FILE"),
    (["--export", "name=a,format=raw,image.driver=file,image.filename={image}"],
     "format= goes with file="),
    (["--export", "name=a,file={image},format=raw,foo=1"], "unknown option 'foo'"),
    (["--export", "name=a,file={image},format=raw", "--export",
      "name=a,file={image},format=raw"], "a"),
    (["--threads=65", "{image}"], "Invalid number of threads"),
    (["--nonsense", "{image}"], "unrecognized option"),
    (["--image-opts", "-f", "raw", "driver=raw"], "mutually exclusive"),
]


def case_wrong(nbd, folder):
    """Each is refused with status 1 and names its culprit."""
    image = random_file(folder / "wrong", MIB)
    for words, wanted in WRONG:
        words = [word.replace("{image}", str(image)).replace("{long}", "x" * 4097)
                 for word in words]
        place = [] if set(words) & {"-p", "-k", "-L"} else ["-k", str(folder / "wrong.sock")]
        out = run(nbd, *place, *words, status=1, cwd=folder)
        expect(wanted in out, f"{words[:3]}: '{wanted}' is not in {out[:300]!r}")
        expect(out.startswith(("ferry-nbd: ", "WARNING: Image format")), out[:100])


def case_help(nbd, folder):
    """--help names every option of the manual page's synopsis."""
    out = run(nbd, "--help")
    for option in ("--port", "--socket", "--export", "--tls-creds", "--list", "--fork"):
        expect(option in out, f"{option} is not in the help")
    expect("ferry-nbd version" in run(nbd, "--version"), "no version")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--prefix", default="image/ferry-nbd")
    options = parser.parse_args()
    nbd = (options.build / "ferry-nbd").resolve()
    for program in ("nbdinfo", "nbdcopy", "qemu-nbd", "qemu-img", "qemu-io"):
        if not shutil.which(program):
            print(f"{program} is not installed")
            return report.SKIP_STATUS
    results = report.Results()
    with tempfile.TemporaryDirectory(prefix="nbd-", dir="/tmp") as name:
        for key, function in list(globals().items()):
            if not key.startswith("case_") or options.only not in key:
                continue
            case = f"{options.prefix}/{key[5:].replace('_', '-')}"
            if "tls" in key and not shutil.which("certtool"):
                results.skip(case, "certtool is not installed (gnutls-bin)")
                continue
            folder = pathlib.Path(name) / key[5:]
            folder.mkdir()
            fault = None
            try:
                function(nbd, folder)
            except Fault as found:
                fault = str(found).replace("\n", " | ")
            except subprocess.TimeoutExpired as expired:
                fault = f"not done after {SECONDS} s: {expired.cmd}"
            results.case(case, fault)
            shutil.rmtree(folder, ignore_errors=True)
    return results.exit_status()


if __name__ == "__main__":
    report.run(main)
