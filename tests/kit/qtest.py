# SPDX-License-Identifier: MIT
"""Drives a ferry without CPUs from outside: clients of the qtest protocol and of QMP, and the process
they talk to.

    with Ferry(program, "-M", "q35") as ferry:
        ferry.qtest.outl(0xcf8, 0x80000000)
        ferry.qmp.command("query-status")
"""
import base64
import json
import os
import pathlib
import socket
import subprocess
import tempfile
import time

TIMEOUT = 30  # seconds for anything to answer


class Dead(Exception):
    """The peer went away."""


class _Lines:
    """Lines over a stream socket."""

    def __init__(self, sock):
        self._sock = sock
        self._sock.settimeout(TIMEOUT)
        self._rest = b""

    def send(self, data):
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise Dead(str(error)) from error

    def line(self):
        while b"\n" not in self._rest:
            try:
                data = self._sock.recv(65536)
            except socket.timeout:
                raise Dead(f"no line within {TIMEOUT} s") from None
            except OSError as error:
                raise Dead(str(error)) from error
            if not data:
                raise Dead("end of the stream")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def close(self):
        self._sock.close()


class Refused(Exception):
    """A request that got FAIL, or an error of QMP (whose class is error_class)."""

    def __init__(self, text, error_class=None):
        super().__init__(text)
        self.error_class = error_class


class Qtest:
    def __init__(self, sock):
        self._lines = _Lines(sock)
        self.irq = {}  # levels of intercepted lines

    def raw(self, line):
        """The reply to a line, whatever it is."""
        self._lines.send(line.encode() + b"\n")
        return self._reply()

    def _reply(self):
        while True:
            words = self._lines.line().decode().split(" ")
            if words[0] != "IRQ":
                return " ".join(words)
            self.irq[int(words[2])] = words[1] == "raise"

    def ask(self, line):
        """The value in the reply."""
        reply = self.raw(line)
        if not reply.startswith("OK"):
            raise Refused(f"{line}: {reply}")
        return reply[3:]

    def _read(self, command, address):
        return int(self.ask(f"{command} {address:#x}"), 0)

    def _write(self, command, address, value):
        self.ask(f"{command} {address:#x} {value:#x}")

    def inb(self, port): return self._read("inb", port)
    def inw(self, port): return self._read("inw", port)
    def inl(self, port): return self._read("inl", port)
    def outb(self, port, value): self._write("outb", port, value)
    def outw(self, port, value): self._write("outw", port, value)
    def outl(self, port, value): self._write("outl", port, value)
    def readb(self, address): return self._read("readb", address)
    def readw(self, address): return self._read("readw", address)
    def readl(self, address): return self._read("readl", address)
    def readq(self, address): return self._read("readq", address)
    def writeb(self, address, value): self._write("writeb", address, value)
    def writew(self, address, value): self._write("writew", address, value)
    def writel(self, address, value): self._write("writel", address, value)
    def writeq(self, address, value): self._write("writeq", address, value)

    def read(self, address, size):
        return bytes.fromhex(self.ask(f"read {address:#x} {size:#x}")[2:])

    def write(self, address, data):
        self.ask(f"write {address:#x} {len(data):#x} 0x{data.hex()}")

    def b64read(self, address, size):
        return base64.b64decode(self.ask(f"b64read {address:#x} {size:#x}"))

    def b64write(self, address, data):
        self.ask(f"b64write {address:#x} {len(data):#x} {base64.b64encode(data).decode()}")

    def memset(self, address, size, value):
        self.ask(f"memset {address:#x} {size:#x} {value:#x}")

    def clock_step(self, ns=None):
        return int(self.ask("clock_step" if ns is None else f"clock_step {ns}"))

    def wait_irq(self, line, level):
        """Until the intercepted line has the level; the machine's loop is awake meanwhile."""
        end = time.monotonic() + TIMEOUT
        while self.irq.get(line, False) != level:
            self.ask("endianness")
            if time.monotonic() > end:
                raise Dead(f"line {line} did not become {level}")

    def wait_for(self, condition, what):
        end = time.monotonic() + TIMEOUT
        while not condition():
            if time.monotonic() > end:
                raise Dead(f"{what} did not come")
            time.sleep(0.001)

    def close(self):
        self._lines.close()


class Qmp:
    def __init__(self, sock, negotiate=True):
        self._lines = _Lines(sock)
        self.greeting = self._object()
        self._events = []
        if negotiate:
            self.command("qmp_capabilities")

    def _object(self):
        """One JSON value; a pretty one takes several lines."""
        text = b""
        while True:
            text += self._lines.line() + b"\n"
            try:
                return json.loads(text)
            except ValueError:
                continue

    def raw(self, text):
        """The reply to anything that gets one."""
        self._lines.send(text if isinstance(text, bytes) else text.encode())
        return self.reply()

    def raw_send(self, text):
        """Does not wait for a reply."""
        self._lines.send(text.encode())

    def reply(self):
        """The next reply; events before it are kept."""
        while True:
            reply = self._object()
            if "event" not in reply:
                return reply
            self._events.append(reply)

    def command(self, name, **arguments):
        """The value returned; members may have '_' for '-'."""
        arguments = {key.replace("_", "-"): value for key, value in arguments.items()}
        request = {"execute": name, **({"arguments": arguments} if arguments else {})}
        reply = self.raw(json.dumps(request))
        if "error" in reply:
            raise Refused(reply["error"]["desc"], reply["error"]["class"])
        return reply["return"]

    def event(self, name):
        """The next event of that name; events and replies before it are dropped."""
        while True:
            event = self._events.pop(0) if self._events else self._object()
            if event.get("event") == name:
                return event

    def events_until_end(self):
        """Names of all events until the server goes away."""
        events, self._events = self._events, []
        try:
            while True:
                events.append(self._object())
        except Dead:
            return [event["event"] for event in events if "event" in event]

    def close(self):
        self._lines.close()


class Listener:
    """A UNIX socket that ferry connects to."""

    def __init__(self, path):
        self.path = path
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(str(path))
        self._sock.listen(1)
        self._sock.settimeout(TIMEOUT)

    def accept(self, process):
        """The connection of this process."""
        self._sock.settimeout(0.05)
        end = time.monotonic() + TIMEOUT
        while True:
            try:
                return self._sock.accept()[0]
            except socket.timeout:
                if process.poll() is not None or time.monotonic() > end:
                    raise Dead("ferry does not connect") from None

    def close(self):
        self._sock.close()


class Ferry:
    """ferry -accel qtest with a qtest and a QMP client connected."""

    def __init__(self, program, *options, env=None, accel="qtest"):
        self._folder = tempfile.TemporaryDirectory()
        folder = pathlib.Path(self._folder.name)
        listeners = [Listener(folder / name) for name in ("qtest", "qmp")]
        command = [program, *(["-accel", accel] if accel else []), "-nodefaults", "-display", "none",
                   "-qtest", f"unix:{listeners[0].path}", "-qtest-log", "none",
                   "-qmp", f"unix:{listeners[1].path}", *options]
        self._errors = open(folder / "stderr", "w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                                        stdout=self._errors, stderr=self._errors,
                                        env={**os.environ, **(env or {})})
        self.qtest = self.qmp = None
        self.output = ""
        self._awaited = False  # the test has looked at the exit status itself
        try:
            self.qtest = Qtest(listeners[0].accept(self.process))
            self.qmp = Qmp(listeners[1].accept(self.process))
        except Dead as dead:
            self.process.terminate()
            self.wait()
            self._close_files()
            raise Dead(f"{dead}: {self.output}") from dead
        finally:
            for listener in listeners:
                listener.close()

    def wait(self):
        """The exit status."""
        status = self.process.wait(timeout=TIMEOUT)
        self._awaited = True
        self._errors.seek(0)
        self.output = self._errors.read()
        return status

    def close(self):
        """Ends ferry by SIGTERM if it still runs; what a sanitizer says is an error."""
        awaited = self._awaited
        if self.process.poll() is None:
            self.process.terminate()
        try:
            status = self.wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.wait()
        self._close_files()
        if (status and not awaited) or "Sanitizer" in self.output or "runtime error" in self.output:
            raise Dead(f"ferry ended with status {status}: {self.output[-3000:]}")

    def _close_files(self):
        for client in (self.qtest, self.qmp):
            if client:
                client.close()
        self._errors.close()
        self._folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            self.close()
        except Dead:
            if kind in (None, Dead):  # else what the test found says more
                raise


def connect(path):
    """A client of a UNIX socket that a server is about to make."""
    end = time.monotonic() + TIMEOUT
    while True:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(str(path))
            return client
        except OSError:
            client.close()
            if time.monotonic() > end:
                raise Dead(f"nobody listens at {path}") from None
            time.sleep(0.01)
