# SPDX-License-Identifier: MIT
"""Writes initramfs images: cpio archives in the "newc" format (the kernel's
Documentation/driver-api/early-userspace/buffer-format.rst). Needs neither root nor cpio.
"""
import pathlib
import stat


class Initramfs:
    def __init__(self):
        self._entries = []
        self._folders = set()
        self._add("dev", stat.S_IFDIR | 0o755)
        self._folders.add("dev")
        # The kernel opens it for init before anything is mounted.
        self._add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))

    def _add(self, path, mode, data=b"", device=(0, 0)):
        self._entries.append((path, mode, data, device))

    def folder(self, path):
        path = str(path).strip("/")
        if path in ("", ".") or path in self._folders:
            return
        self.folder(pathlib.PurePosixPath(path).parent)
        self._folders.add(path)
        self._add(path, stat.S_IFDIR | 0o755)

    def file(self, path, data, mode=0o644):
        """data: bytes, str or the path of a host file."""
        if isinstance(data, pathlib.Path):
            data = data.read_bytes()
        elif isinstance(data, str):
            data = data.encode()
        path = str(path).strip("/")
        self.folder(pathlib.PurePosixPath(path).parent)
        self._add(path, stat.S_IFREG | mode, data)

    def link(self, path, target):
        path = str(path).strip("/")
        self.folder(pathlib.PurePosixPath(path).parent)
        self._add(path, stat.S_IFLNK | 0o777, str(target).encode())

    def pack(self):
        """The archive as bytes."""
        out = bytearray()

        def pad():
            out.extend(bytes(-len(out) % 4))

        entries = [*self._entries, ("TRAILER!!!", 0, b"", (0, 0))]
        for number, (path, mode, data, device) in enumerate(entries, 1):
            name = path.encode() + b"\0"
            fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name), 0)
            out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
            pad()
            out += data
            pad()
        return bytes(out)


def busybox_initramfs(busybox, modules, init):
    """An initramfs with busybox, kernel modules that are inserted in the order given, and a
    shell script that runs as init after that."""
    ramfs = Initramfs()
    for folder in ("proc", "sys", "tmp", "bin"):
        ramfs.folder(folder)
    ramfs.file("bin/busybox", busybox, mode=0o755)
    inserts = ""
    for module in modules:
        ramfs.file("modules/" + module.name, module)
        inserts += f"insmod /modules/{module.name}\n"
    ramfs.file("init", f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
{inserts}
{init}
""", mode=0o755)
    return ramfs
