# SPDX-License-Identifier: MIT
"""ferry-nbd beside qemu-nbd: random 4 KiB requests of libnbd clients (nbd_load.c) to a raw and to a qcow2
image, over a unix socket. Both serve the same file in turn, with each of their I/O engines; two
clients have two loops of ferry-nbd."""
import itertools
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

IMAGE_SIZE = 512 << 20
SECONDS = 1.0
TIMEOUT = 30
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """User and system time of a process so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measure(program, client, image, load, extra):
    """Requests per second, and CPU microseconds of the server for each. load: operation, number of
    clients, depth of each."""
    op, clients, depth = load
    with tempfile.TemporaryDirectory(prefix="ferry-bench-") as folder:
        path = pathlib.Path(folder) / "nbd.sock"
        with subprocess.Popen([str(program), "-k", str(path), "-f", image.suffix[1:], "-t", "-e", "0",
                               *extra, str(image)]) as server:
            try:
                while not path.exists():
                    if server.poll() is not None:
                        sys.exit(f"{program} does not start")
                    time.sleep(0.01)
                before = cpu_seconds(server.pid)
                running = [subprocess.Popen([str(client), f"nbd+unix:///?socket={path}", op,
                                             str(depth), str(SECONDS)], stdout=subprocess.PIPE,
                                            text=True) for _ in range(clients)]
                rate = sum(float(c.communicate(timeout=TIMEOUT)[0]) for c in running)
                return rate, (cpu_seconds(server.pid) - before) / (rate * SECONDS) * 1e6
            finally:
                server.terminate()
                server.wait()


def make_images(folder):
    """The same random bytes in both formats."""
    raw, qcow2 = folder / "image.raw", folder / "image.qcow2"
    with open(raw, "wb") as f:
        block = os.urandom(1 << 20)
        for _ in range(IMAGE_SIZE >> 20):
            f.write(block)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2], check=True)
    return raw, qcow2


def build_client(folder):
    source = pathlib.Path(__file__).parent / "nbd_load.c"
    client = pathlib.Path(folder) / "nbd_load"
    subprocess.run(["gcc", "-O2", "-o", client, source, "-lnbd"], check=True)
    return client


def bench_nbd(build, rounds):
    if not shutil.which("qemu-nbd"):
        sys.exit("qemu-nbd is not installed")
    print("random 4 KiB requests by NBD over a unix socket; requests per second, and CPU time of the "
          "server\nfor each request")
    print(f"{'format':>6} {'aio':>8} {'op':>5} {'clients':>7} {'depth':>5} {'ferry':>8} {'QEMU':>8} "
          f"{'ratio, median (range)':>23} {'us':>6} {'QEMU':>6} {'ratio':>6} {'load':>5}")
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # the disk is not the limit
    with tempfile.TemporaryDirectory(prefix="ferry-bench-", dir=memory) as name:
        folder = pathlib.Path(name)
        client = build_client(folder)
        for image, aio, (op, (clients, depth)) in itertools.product(
                make_images(folder), ("threads", "io_uring"),
                itertools.product(("read", "write"), ((1, 1), (1, 32), (2, 32)))):
            load = (op, clients, depth)
            extra = [f"--aio={aio}"]
            threads = ["--threads=2"] if clients > 1 else []
            pairs = [(measure(build / "ferry-nbd", client, image, load, extra + threads),
                      measure("qemu-nbd", client, image, load, extra)) for _ in range(rounds)]
            ratios = [ours[0] / theirs[0] for ours, theirs in pairs]
            cost = [statistics.median(pair[i][1] for pair in pairs) for i in (0, 1)]
            print(f"{image.suffix[1:]:>6} {aio:>8} {op:>5} {clients:7} {depth:5} "
                  f"{statistics.median(p[0][0] for p in pairs):8.0f} "
                  f"{statistics.median(p[1][0] for p in pairs):8.0f} "
                  f"{statistics.median(ratios):10.2f} ({min(ratios):.2f}-{max(ratios):.2f}) "
                  f"{cost[0]:6.1f} {cost[1]:6.1f} {cost[1] / cost[0]:6.2f} "
                  f"{os.getloadavg()[0]:5.1f}", flush=True)
