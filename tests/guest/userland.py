#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Debian's own user land in a guest on the soft CPU: a debootstrap tree on a virtio-blk disk runs
bash, perl, python3, gcc (compiles and runs a program), openssl's self-checks, gzip and sha256sum;
what they print is compared with what the host's programs print.

Needs root and debootstrap to make the tree (it is kept in --cache for the next run).
"""
import argparse
import gzip
import hashlib
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from kit import debian, initramfs, report  # noqa: E402

MIB = 1 << 20
DATA_MIB = 64
IMAGE_MIB = 2048
SECONDS = 3000
PACKAGES = "bash,perl,python3-minimal,gcc,libc6-dev,openssl,gzip"

PROGRAM = r"""
#include <math.h>
#include <stdio.h>
int main(void)
{
    double sum = 0;
    for (int i = 1; i < 100000; i++) {
        sum += sqrt(i) / (1.0 + i);
    }
    printf("%.12f %a\n", sum, (double)((long double)sum / 3));
    return 0;
}
"""

# Prints "CHECK name result" for each.
SCRIPT = r"""#!/bin/bash
cd /checks
check() { echo "CHECK $1 $2"; }
check bash "$(for ((i = 0, s = 0; i < 20000; i++)); do ((s = (s * 31 + i) % 1000003)); done; echo $s)"
check perl "$(perl -e 'my %h; $h{($_ * 7919) % 5003} .= chr(65 + $_ % 26) for 1..100000;
    my $s = 0; $s = ($s * 33 + length($h{$_}) + ord($h{$_})) % 1000000007 for sort { $a <=> $b } keys %h;
    printf "%d %.10f", $s, atan2(1, 3) * exp(1.5)')"
check python3 "$(python3 -c 'import math
a = sorted((i * 2654435761) % 1000003 for i in range(50000))
print(sum(x * i for i, x in enumerate(a)), pow(3, 100003, 10**40), repr(math.fsum(1 / (i + 1) for i in range(20000))))')"
gcc -O2 -o program program.c -lm && check gcc "$(./program)"
check gcc-warnings "$(gcc -O2 -Wall -S -o - program.c | grep -c sqrt)"
check sha256 "$(sha256sum < data)"
gzip -1 -k -c data > data.gz; check gzip "$(gzip -d -c data.gz | sha256sum)"
check gunzip "$(gzip -d -c from-host.gz | sha256sum)"
for a in md5 sha1 sha512 blake2b512 sha3-256; do check openssl-$a "$(openssl dgst -$a -r < small)"; done
check openssl-aes "$(openssl enc -aes-256-cbc -K 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -iv 0102030405060708090a0b0c0d0e0f10 < small | openssl dgst -sha256 -r)"
check openssl-chacha "$(openssl enc -chacha20 -K 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff -iv 0102030405060708090a0b0c0d0e0f10 < small | openssl dgst -sha256 -r)"
openssl genrsa -out key.pem 1024 2>/dev/null && openssl dgst -sha256 -sign key.pem -out sig small &&
    openssl rsa -in key.pem -pubout -out pub.pem 2>/dev/null &&
    check openssl-rsa "$(openssl dgst -sha256 -verify pub.pem -signature sig small)"
openssl ecparam -genkey -name prime256v1 -out ec.pem 2>/dev/null && openssl dgst -sha256 -sign ec.pem -out sig small &&
    openssl ec -in ec.pem -pubout -out ecpub.pem 2>/dev/null &&
    check openssl-ec "$(openssl dgst -sha256 -verify ecpub.pem -signature sig small)"
check openssl-speed "$(openssl speed -seconds 1 -bytes 1024 sha256 aes-128-cbc 2>&1 | grep -c -i error)"
sync
"""

INIT = """
i=0
while [ ! -b /dev/vda ] && [ $i -lt 50 ]; do sleep 0.1; i=$((i + 1)); done
mount -t ext4 /dev/vda /mnt
mount -t proc proc /mnt/proc
mount -t devtmpfs dev /mnt/dev
echo "guest cpus $(nproc)"
chroot /mnt /bin/bash /checks/script 2>&1
echo "guest done"
umount /mnt/dev /mnt/proc
umount /mnt
poweroff -f
"""


def make_tree(cache):
    tree = cache / "tree"
    if (tree / "usr/bin/openssl").exists() and (tree / "usr/bin/gcc").exists():
        return tree
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        raise debian.Unavailable("needs root and debootstrap to make a tree of Debian")
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    run = subprocess.run(["debootstrap", "--variant=minbase", "--include=" + PACKAGES,
                          "bookworm", tree], check=False,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if run.returncode:
        raise debian.Unavailable("debootstrap failed: " + run.stdout.strip().splitlines()[-1])
    return tree


def fill(tree):
    """The files that both sides work on."""
    work = tree / "checks"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    rng = random.Random(11)
    data = b"".join(rng.randbytes(4096) + bytes(rng.randrange(2000)) + b"text %d " % i * 50
                    for i in range(DATA_MIB * MIB // 6000))
    data = data[:DATA_MIB * MIB].ljust(DATA_MIB * MIB, b"x")
    (work / "data").write_bytes(data)
    (work / "small").write_bytes(data[:MIB])
    (work / "from-host.gz").write_bytes(gzip.compress(data, 6))
    (work / "program.c").write_text(PROGRAM)
    (work / "script").write_text(SCRIPT)
    return hashlib.sha256(data).hexdigest()


def checks_of(text):
    return dict(re.findall(r"^CHECK (\S+) (.*)$", text.replace("\r", ""), re.MULTILINE))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    parser.add_argument("--vmm", choices=("ferry", "qemu"), default="ferry")
    parser.add_argument("--cpu", default="max")
    parser.add_argument("--smp", default="2")
    parser.add_argument("--cache", type=pathlib.Path)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    cache = (options.cache or options.build / "userland").absolute()
    tree = make_tree(cache)
    sha256 = fill(tree)
    host = subprocess.run(["chroot", tree, "/bin/bash", "/checks/script"], check=False, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
    fill(tree)
    expected = checks_of(host)
    results = report.Results()
    with tempfile.TemporaryDirectory(prefix="ferry-userland-") as name:
        folder = pathlib.Path(name)
        kernel = debian.Kernel()
        (folder / "guest.cpio").write_bytes(initramfs.busybox_initramfs(
            debian.busybox(), kernel.modules("virtio_pci", "virtio_blk"),
            "mkdir /mnt\n" + INIT).pack())
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, folder / "disk.img",
                        f"{IMAGE_MIB}M"], check=True, stdin=subprocess.DEVNULL)
        vmm = (os.path.abspath(options.build / "ferry") if options.vmm == "ferry"
               else "qemu-system-x86_64")
        start = time.monotonic()
        run = subprocess.run(
            [vmm, "-M", "q35", "-accel", "tcg", "-cpu", options.cpu, "-smp", options.smp,
             "-m", "1G", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
             "-kernel", kernel.bzimage, "-initrd", folder / "guest.cpio",
             "-append", "console=ttyS0 quiet panic=-1",
             "-drive", f"file={folder / 'disk.img'},if=none,id=d0,format=raw,cache=unsafe",
             "-device", "virtio-blk-pci,drive=d0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=SECONDS, check=False)
        output = run.stdout.decode(errors="replace")
        print(f"# guest: {time.monotonic() - start:.0f} s, status {run.returncode}")
    found = checks_of(output)
    prefix = f"guest/userland/{options.cpu}"
    for name, value in expected.items():
        fault = None if found.get(name) == value else (
            f"the guest says {found.get(name) or 'nothing'}, the host {value}")
        results.case(f"{prefix}/{name}", fault)
    for name in ("sha256", "gzip", "gunzip"):
        if not found.get(name, "").startswith(sha256):
            results.case(f"{prefix}/{name}-of-host", "not what the host wrote")
    results.case(f"{prefix}/end", None if "guest done" in output and run.returncode == 0
                 else f"no end, status {run.returncode}")
    if options.verbose or results.exit_status():
        report.show_tail(output)
    return results.exit_status()


if __name__ == "__main__":
    report.run(main)
