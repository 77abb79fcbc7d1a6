# SPDX-License-Identifier: MIT
"""Debian's kernel and busybox for guests: downloaded with apt, unpacked into a cache directory,
never installed on the host. Works without root.
"""
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile

KERNEL_META_PACKAGE = "linux-image-cloud-amd64"
LZ4_LEGACY_MAGIC = 0x184C2102


def cache_dir():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = pathlib.Path(base) / "ferry"
    path.mkdir(parents=True, exist_ok=True)
    return path


class Unavailable(Exception):
    """A package cannot be had here; the message says why."""


def _apt(arguments, cwd, own_lists):
    """Runs an apt tool; own_lists: with package lists of our own, for which no root is needed."""
    options = ["-o", "APT::Sandbox::User=" + ("root" if os.getuid() == 0 else "")]
    if own_lists:
        state = cache_dir() / "apt"
        for folder in ("lists/partial", "cache/archives/partial"):
            (state / folder).mkdir(parents=True, exist_ok=True)
        options += ["-o", f"Dir::State::Lists={state}/lists", "-o", f"Dir::Cache={state}/cache"]
    return subprocess.run([arguments[0], *options, *arguments[1:]], cwd=cwd, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False)


def _download(package, folder, own_lists):
    """Downloads the package (for a meta package: the kernel it depends on); the .deb or None."""
    if package == KERNEL_META_PACKAGE:
        depends = _apt(["apt-cache", "depends", package], folder, own_lists).stdout
        names = [line.split()[1] for line in depends.splitlines() if "Depends: linux-image" in line]
        if not names:
            return None
        package = names[0]
    if _apt(["apt-get", "download", package], folder, own_lists).returncode != 0:
        return None
    return next(folder.glob("*.deb"), None)


def package(name):
    """The folder with the unpacked package."""
    home = cache_dir() / "packages" / name
    if home.is_dir():
        return home
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise Unavailable(f"package {name} of Debian is needed, and this machine has no apt")
    home.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
        folder = pathlib.Path(scratch)
        deb = _download(name, folder, own_lists=False)
        if not deb:
            _apt(["apt-get", "update"], folder, own_lists=True)
            deb = _download(name, folder, own_lists=True)
        if not deb:
            raise Unavailable(f"apt cannot download {name}")
        subprocess.run(["dpkg-deb", "-x", deb, folder / "root"], check=True)
        try:
            (folder / "root").rename(home)
        except OSError:
            if not home.is_dir():  # else another process was faster
                raise
    return home


def busybox():
    """The statically linked busybox."""
    return package("busybox-static") / "bin/busybox"


class Kernel:
    """Debian's kernel for virtual machines: image and modules."""

    def __init__(self, meta_package=KERNEL_META_PACKAGE):
        self.root = package(meta_package)
        self.bzimage = next((self.root / "boot").glob("vmlinuz-*"))
        self.version = self.bzimage.name.removeprefix("vmlinuz-")
        self.module_dir = self.root / "lib/modules" / self.version

    def modules(self, *names):
        """The paths of modules and all they depend on, in the order to insert them."""
        index = self.module_dir / "modules.dep"
        if not index.exists():
            subprocess.run(["depmod", "-b", self.root, self.version], check=True)
        depends = {}
        for line in index.read_text().splitlines():
            module, _, needs = line.partition(":")
            depends[module] = needs.split()
        by_name = {pathlib.Path(module).stem.replace("-", "_"): module for module in depends}
        ordered = []
        for name in names:
            module = by_name[name.replace("-", "_")]
            # modules.dep names the direct need first, the one that needs nothing last.
            for needed in [*reversed(depends[module]), module]:
                if needed not in ordered:
                    ordered.append(needed)
        return [self.module_dir / module for module in ordered]

    def vmlinux(self):
        """The ELF kernel, with its PVH entry, out of the bzImage's payload."""
        path = self.root / "boot" / ("vmlinux-" + self.version)
        if not path.exists():
            part = path.with_name(f"{path.name}.{os.getpid()}")
            part.write_bytes(unpack_bzimage(self.bzimage.read_bytes()))
            part.rename(path)
        return path


def unpack_bzimage(image):
    """The payload of a bzImage (Linux boot protocol, 2.08 and later), decompressed."""
    if image[0x202:0x206] != b"HdrS":
        raise ValueError("no bzImage: the setup header lacks HdrS")
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    # The length counts the four bytes at the end that give the uncompressed size.
    payload, trailer = image[start:start + length - 4], image[start + length - 4:start + length]
    if struct.unpack_from("<I", payload)[0] != LZ4_LEGACY_MAGIC:
        raise ValueError("the bzImage's payload is not LZ4")
    elf = subprocess.run(["lz4", "-d", "-c"], input=payload, stdout=subprocess.PIPE,
                         check=True).stdout
    if len(elf) != struct.unpack("<I", trailer)[0] or not elf.startswith(b"\x7fELF"):
        raise ValueError("the bzImage's payload is damaged")
    return elf
