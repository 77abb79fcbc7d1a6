# SPDX-License-Identifier: MIT
"""What QMP tells of disks and devices, beside Debian's QEMU, which is asked the same."""
import json
import os
import re
import shutil
import subprocess

from kit.qtest import TIMEOUT
from vmm.bench import QUIET, Fault, expect, expect_that

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


PATHS = [("qom-list", {"path": "/machine/peripheral"}),
         ("qom-list", {"path": "/machine/peripheral-anon"})]


def properties(path, *names):
    return [("qom-get", {"path": path, "property": name}) for name in names]


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
