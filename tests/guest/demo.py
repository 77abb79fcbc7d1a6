#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A guest's disk I/O, followed to the host and back (./dev demo).

The host makes an ext4 image that holds one file. A small guest (Debian's kernel, busybox) mounts
it as a virtio-blk disk, reads the file, writes another one, syncs and powers off. The host then
reads the guest's file out of the image. Both sides must agree on both checksums.
"""
import argparse
import hashlib
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from kit import debian, initramfs, report, vmm  # noqa: E402

MIB = 1 << 20
IMAGE_MIB = 64
FILE_MIB = 8
SECONDS = 300

GUEST_INIT = f"""
i=0
while [ ! -b /dev/vda ] && [ $i -lt 50 ]; do sleep 0.1; i=$((i + 1)); done
mkdir /mnt
mount -t ext4 /dev/vda /mnt || echo "guest mount failed"
echo "guest kernel $(uname -r)"
echo "guest read $(sha256sum /mnt/from-host)"
dd if=/dev/urandom of=/mnt/from-guest bs=1M count={FILE_MIB} 2>/dev/null
sync
echo "guest wrote $(sha256sum /mnt/from-guest)"
umount /mnt
poweroff -f
"""


def arguments(image):
    return ["-M", "q35", "-accel", "kvm", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "512",
            "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
            "-kernel", "bzImage", "-initrd", "guest.cpio",
            "-append", "console=ttyS0 quiet mitigations=off tsc=reliable panic=-1",
            "-drive", f"file={image},if=none,id=d0,format=raw,cache=none",
            "-device", "virtio-blk-pci,drive=d0"]


def make_image(folder):
    """disk.img with /from-host; returns the file's checksum."""
    data = random.randbytes(FILE_MIB * MIB)
    (folder / "tree").mkdir()
    (folder / "tree/from-host").write_bytes(data)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", folder / "tree",
                    folder / "disk.img", f"{IMAGE_MIB}M"], check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return hashlib.sha256(data).hexdigest()


def run(build, folder):
    try:
        run = subprocess.run([os.path.abspath(build / "ferry"), *arguments("disk.img")],
                             cwd=folder, text=True, errors="replace", stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS,
                             check=False)
    except subprocess.TimeoutExpired as expired:
        return None, (expired.stdout or b"").decode(errors="replace")
    return run.returncode, run.stdout


def file_in_image(image, name):
    """Checksum of a file in an ext4 image, read by debugfs."""
    content = subprocess.run(["debugfs", "-R", f"cat {name}", image], check=True,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    return hashlib.sha256(content).hexdigest() if content else "nothing"


def is_clean(image):
    return subprocess.run(["e2fsck", "-f", "-n", image], stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          check=False).returncode == 0


def demo(build, folder):
    kernel = debian.Kernel()
    os.symlink(kernel.bzimage, folder / "bzImage")
    (folder / "guest.cpio").write_bytes(initramfs.busybox_initramfs(
        debian.busybox(), kernel.modules("virtio_pci", "virtio_blk"), GUEST_INIT).pack())
    sent = make_image(folder)
    print(f"host   made disk.img, ext4, with /from-host of {FILE_MIB} MiB, sha256 {sent[:16]}...")

    if vmm.kvm_refusal(build):
        print("host   has no usable KVM: the guest runs on ferry's own CPU in software (-accel tcg)",
              flush=True)
    status, output = run(build, folder)

    facts = dict(re.findall(r"^guest (\S+) (.*)$", output.replace("\r", ""), re.MULTILINE))
    read, wrote = ((facts.get(what) or "nothing").split()[0] for what in ("read", "wrote"))
    found = file_in_image(folder / "disk.img", "/from-guest")
    if "kernel" not in facts:
        return [f"the guest did not boot (ferry's exit status is {status})"], output
    print(f"guest  Linux {facts['kernel']} mounted it from virtio-blk\n"
          f"guest  read /from-host, sha256 {read[:16]}...\n"
          f"guest  wrote /from-guest of {FILE_MIB} MiB, sha256 {wrote[:16]}..., and powered off\n"
          f"host   finds /from-guest in disk.img, sha256 {found[:16]}...")
    faults = []
    if status != 0:
        faults.append(f"ferry's exit status is {status}")
    if read != sent:
        faults.append("the guest read other bytes than the host wrote")
    if wrote == "nothing" or found != wrote:
        faults.append("the host found other bytes than the guest wrote")
    if not is_clean(folder / "disk.img"):
        faults.append("e2fsck finds faults in the image")
    return faults, output


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ferry-demo-") as folder:
        faults, output = demo(options.build, pathlib.Path(folder))
    if faults:
        report.show_tail(output)
        print("FAILED: " + "; ".join(faults))
        return 1
    print("The checksums agree: the guest's I/O went to the host and back.\n\n"
          "An image of your own (raw), with a kernel and initrd of Debian:\n\n"
          f"    {options.build}/ferry -M q35 -m 1G -smp 2 -nographic -kernel VMLINUZ "
          "-initrd INITRD \\\n"
          '        -append "console=ttyS0 root=/dev/vda1" \\\n'
          "        -drive file=IMAGE,format=raw,if=virtio,cache=none")
    return 0


if __name__ == "__main__":
    report.run(main)
